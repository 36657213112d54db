"""Plan to write a new file."""

from __future__ import annotations

import os

import xarray as xr

from mrc_xarray.errors import MrcError, warn
from mrc_xarray.mrc.header import HEADER_SIZE
from mrc_xarray.pixels.compression import LARGEST_BLOCK, encoder
from mrc_xarray.storage.sink import open_sink
from mrc_xarray.writing.heading import Heading, make_heading
from mrc_xarray.writing.options import WriteOptions
from mrc_xarray.writing.plan import Plan

__all__ = ["plan_new"]


def plan_new(data: xr.DataArray, target: str | os.PathLike[str], options: WriteOptions) -> Plan:
    """Plan to write data to a new file.

    Raises
    ------
    MrcError
        If no MRC file can hold the data or their coordinates.
    FileExistsError
        If there is a file already, and it may not be replaced.

    Warns
    -----
    MrcWarning
        One, which lists what the file can't hold.
    """
    sink = open_sink(target, options.storage_options, options.overwrite)
    compressor = options.compressor_for(sink.name)
    codec = 0 if compressor is None else encoder(compressor)
    heading = make_heading(data, sink.name, options, codec)
    if codec:
        _check_can_be_compressed(heading)
    if heading.lost:
        warn(f"{sink.name}: an MRC file can't hold everything: {'; '.join(heading.lost)}")
    return Plan(
        sink=sink,
        header=heading.header,
        extended=heading.extended,
        mode=heading.mode,
        shape=data.shape,
        dtype=data.dtype,
        start=(0,) * data.ndim,
        statistics=options.statistics,
        compressor=compressor,
        clevel=options.clevel,
        offset=HEADER_SIZE + len(heading.extended),
    )


def _check_can_be_compressed(heading: Heading) -> None:
    header, mode = heading.header, heading.mode
    if mode.number == 101:
        raise MrcError("4-bit data (mode 101) can't be compressed; use compressor=None")
    # a block also has some bytes of blosc's own
    if header.ny * mode.row_bytes(header.nx) > LARGEST_BLOCK - 64:
        raise MrcError(
            f"a section of {header.ny} × {header.nx} pixels is larger than the 2 GiB that a block "
            "of an MRCZ file can hold; use compressor=None"
        )
