"""Write labelled data as MRC and MRCZ files: lazily, in parallel, and atomically."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from mrc_xarray.errors import MrcError
from mrc_xarray.pixels.statistics import Statistics
from mrc_xarray.storage.locks import lock_in_place
from mrc_xarray.storage.threads import own_threads
from mrc_xarray.suffixes import COMPRESSED_SUFFIXES
from mrc_xarray.text import printable
from mrc_xarray.voxel_size import VoxelSize, VoxelSizeArgument
from mrc_xarray.writing.arrays import Data, as_dask, as_data_array
from mrc_xarray.writing.graph import client_of_user, write_task
from mrc_xarray.writing.in_place import as_first, plan_in_place
from mrc_xarray.writing.live import local_path
from mrc_xarray.writing.new_file import plan_new
from mrc_xarray.writing.options import WriteOptions
from mrc_xarray.writing.plan import Plan, begin, finish_plain, warn_not_finite, write_equal
from mrc_xarray.writing.subject import find_roles
from mrc_xarray.writing.voxel_size import with_steps

if TYPE_CHECKING:
    from dask.delayed import Delayed

__all__ = ["create", "to_mrc"]


def to_mrc(
    obj: Data,
    target: str | os.PathLike[str],
    *,
    mode: int | None = None,
    compressor: str | None = "auto",
    clevel: int = 1,
    metadata: Mapping[str, Any] | None = None,
    extended_header: bytes | tuple[str, bytes] | None = None,
    labels: Sequence[str] = (),
    statistics: bool | Literal["quick"] = True,
    voltage: float | None = None,
    c3: float | None = None,
    gain: float | None = None,
    byteorder: str = "little",
    voxel_size: VoxelSizeArgument = None,
    region: Mapping[str, slice] | None = None,
    append_dim: str | None = None,
    overwrite: bool = False,
    compute: bool = True,
    storage_options: dict[str, Any] | None = None,
) -> Delayed | None:
    """Write data to an MRC or MRCZ file.

    Data of any size that are backed by dask are written in parallel, by dask's own scheduler, in
    the memory of a few chunks. A new file has a temporary name until it is complete, so that the
    target is the old file or the new one at every moment. It may be the file that the data are
    read from. With `region` or `append_dim`, an existing file is changed in place.

    Parameters
    ----------
    obj : DataArray, Dataset with one data variable, or array
        Shape (..., n_rows, n_columns). The dimensions determine the layout, and the coordinates
        determine voxel size and origin; see the Notes. Arrays without labels are an image, a
        volume or a stack of volumes.
    target : path, URL or UPath
        Workers of a cluster must see the same path. A name of another format, such as one in
        .zarr or .tif, is refused. A file for a store is first written to
        dask's ``temporary-directory``, and then sent.
    mode : int, optional
        MODE of the file: 0 (int8; uint8 data as uint8, with IMOD's stamp), 1 (int16), 2
        (float32), 3 (complex of int16), 4 (complex64), 6 (uint16), 7 (int32), 8 (uint32), 12
        (float16), 16 (RGB), 101 (4 bits). By default that of the file that the data were opened
        from if they still have its dtype, else the one that holds the data without loss.
        For modes of integers, floats are rounded to the nearest integer.
    compressor : {"auto", None, "zstd", "lz4", "lz4hc", "zlib", "blosclz"}
        Compressor of an MRCZ. "auto" is "zstd" for a target in .mrcz, and None for others. With
        the prefix ``"blosc2:"``, chunks have version 5, which only mrcz 0.6 and this package read.
    clevel : int
        Compression level, 0 to 9.
    metadata : mapping, optional
        Written as JSON to the extended header, in addition to the metadata that an MRCZ was
        opened with.
    extended_header : bytes, or (str, bytes), optional
        The extended header, with its EXTTYP. By default, the one of the file that the data were
        opened from, as far as it is still valid.
    labels : sequence of str
        Texts of 80 characters at most, added after those that the data were opened with.
    statistics : bool or "quick"
        Whether to measure minimum, maximum, mean and standard deviation; "quick" measures only
        the first section. Statistics of complex data are always undetermined.
    voltage, c3, gain : float, optional
        In kV, mm, and electrons per count, in the header fields of mrcz.
    byteorder : {"little", "big"}
        Byte order of the file.
    voxel_size : float, (float, float, float), record array, or mapping of str to float or pair
        Replaces the steps of the coordinates: a number for all spatial dimensions, or (x, y, z),
        in ångström. Or a mapping by dimension, to a number in ångström or to a pair with its unit,
        such as ``{"kx": (0.01, "1/nm")}``. Steps that a header has no field for are stored as
        coordinates are.
    region : mapping of dimension to slice, optional
        Fill this part of an existing plain file in place. A crash leaves it partly filled. The
        statistics of the file become undetermined.
    append_dim : str, optional
        Add the data to a plain file in place, along its slowest dimension. The header is changed
        last. Data that lack this dimension are one image, section or volume. If there is no such
        file, it is created.
    overwrite : bool
        Whether to replace an existing file.
    compute : bool
        Whether to write now. Otherwise, return an object that writes when it is computed.
    storage_options : dict, optional
        Options for fsspec.

    Returns
    -------
    dask.delayed.Delayed or None
        With ``compute=False``. If one of its tasks fails, the temporary file remains.

    Raises
    ------
    MrcError
        If no MRC file can hold the data or their coordinates. In place, also if the file is not
        the one that the write was planned for, if another write in this process changes it, or if
        the data are read from it.
    FileExistsError
        If the target exists and may not be replaced, even if it appeared during the write.
    OSError
        If writing fails, for example because of a full disk or a missing directory.
    TypeError, ValueError
        If an argument has a wrong type or value.

    Warns
    -----
    MrcWarning
        One, which lists all labels, and fields of the source's header, that the file can't hold.
        Another one after the write, if pixels are NaN or infinite; with ``compute=False``, it
        comes from the last task.

    Notes
    -----
    ``(y, x)`` is an image, ``(z, y, x)`` in any order a volume, ``(image, y, x)`` a stack of
    images, ``(volume, z, y, x)`` a stack of volumes. Other dimensions in front of the last two
    count the images of a stack. Coordinates in length units give CELLA, N*START and ORIGIN; the
    other fields are those of the file that the data were opened from, where they still hold. See
    ``docs/reference/format.md#header``, ``docs/reference/format.md#origin`` and
    ``docs/reference/format.md#mrcz``.
    """
    data = as_data_array(obj)
    options = WriteOptions(
        mode=mode,
        compressor=compressor,
        clevel=clevel,
        metadata=metadata,
        extended_header=extended_header,
        labels=labels,
        statistics=statistics,
        voltage=voltage,
        c3=c3,
        gain=gain,
        byteorder=byteorder,
        voxel_size=voxel_size,
        region=region,
        append_dim=append_dim,
        overwrite=overwrite,
        storage_options=storage_options,
    )
    if not options.is_in_place:
        return _write(plan_new(data, target, options), data, compute)
    is_labelled = isinstance(obj, xr.DataArray | xr.Dataset)
    path = local_path(target)
    if append_dim is not None and not os.path.exists(path):
        first = as_first(data, append_dim, path, is_labelled=is_labelled)
        # another process may create the file in the meantime
        with contextlib.suppress(FileExistsError):
            plan = plan_new(first, path, replace(options, append_dim=None))
            return _write(plan, first, compute)
    # of two appends at the same time, one would overwrite the other
    with lock_in_place(path, exclusive=region is None, waits=compute) as lock:
        plan, complete = plan_in_place(
            data, path, options, lock, is_labelled=is_labelled, is_delayed=not compute
        )
        return _write(plan, complete, compute)


def create(
    target: str | os.PathLike[str],
    shape: Sequence[int],
    dtype: npt.DTypeLike,
    *,
    dims: Sequence[str] | None = None,
    mode: int | None = None,
    fill: complex | None = None,
    metadata: Mapping[str, Any] | None = None,
    extended_header: bytes | tuple[str, bytes] | None = None,
    voxel_size: VoxelSizeArgument = None,
    origin: Mapping[str, float] | None = None,
    labels: Sequence[str] = (),
    byteorder: str = "little",
    overwrite: bool = False,
) -> None:
    """Create a plain file of any size, that ``to_mrc(region=)`` can fill.

    It takes little memory. Pixels of 0 take no space on a file system with sparse files.

    Parameters
    ----------
    target : path
    shape : sequence of int
    dtype : dtype
    dims : sequence of str, optional
        Names of the dimensions, as for `to_mrc`; by default an image, a volume or a stack of
        volumes.
    fill : number, optional
        The value of all pixels, and with it the statistics. By default pixels are 0, and the
        statistics undetermined.
    mode, metadata, extended_header, labels, byteorder, overwrite
        As for `to_mrc`. An extended header can't be added later in place.
    voxel_size
        As for `to_mrc`.
    origin : mapping of dimension to float, Å, optional
        Positions of the first voxel.

    Raises
    ------
    MrcError
        If no MRC file can have this shape or dtype, or the mode can't hold `fill`.
    FileExistsError
        If the target exists and may not be replaced.
    """
    if (path := local_path(target)).lower().endswith(COMPRESSED_SUFFIXES):
        raise MrcError(f"{path}: a compressed stream can't be filled in place")
    # takes no memory, whatever its shape
    zeros = np.broadcast_to(np.zeros((), dtype), tuple(shape))
    data = as_data_array(zeros if dims is None else xr.DataArray(zeros, dims=tuple(dims)))
    options = WriteOptions(
        mode=mode,
        compressor=None,
        metadata=metadata,
        extended_header=extended_header,
        labels=labels,
        statistics=fill is not None,
        byteorder=byteorder,
        voxel_size=voxel_size,
        overwrite=overwrite,
    )
    plan = plan_new(_at_origin(data, origin or {}, voxel_size), target, options)
    pixel = _pixel(plan, 0 if fill is None else fill)
    # all pixels have the statistics of one
    measured = Statistics.of(pixel) if plan.measures else Statistics()
    try:
        with (begun := begin(plan)).lock:
            write_equal(begun, pixel)
            finish_plain(begun, measured)
    except BaseException:
        plan.sink.discard()
        raise
    warn_not_finite(plan.sink.name, 0 if np.isfinite(pixel).all() else data.size)


def _pixel(plan: Plan, number: complex) -> npt.NDArray[Any]:
    """Return a number as the value of one pixel; raise MrcError if the mode can't hold it."""
    value, mode = np.array(number), plan.mode
    if value.ndim or value.dtype.kind not in "biufc":
        raise TypeError(f"fill is {number!r}; accepted: a number")
    if value.dtype.kind == "c" and mode.has_statistics:
        raise MrcError(f"mode {mode.number} ({mode.decoded_name}) can't hold the number {number}")
    return mode.cast(np.broadcast_to(value, (1, 1, *mode.samples)))


def _at_origin(
    data: xr.DataArray, origin: Mapping[str, float], voxel_size: VoxelSizeArgument
) -> xr.DataArray:
    """Return the data with coordinates that begin at `origin`, in Å."""
    if not isinstance(origin, Mapping):
        raise TypeError(f"origin is {origin!r}; accepted: a mapping of dimension to number, in Å")
    spatial = find_roles(data).spatial
    given = None if voxel_size is None else VoxelSize.of(voxel_size)
    lengths, _ = with_steps(data, spatial, given)
    steps = {dim: lengths.get(axis) for axis, dim in spatial.items()}
    coords = {}
    for dim, first in origin.items():
        step = steps.get(dim)
        if dim not in data.dims or step is None:
            raise MrcError(
                f"origin is {origin!r}; accepted: dimensions of {data.dims} that have a voxel_size"
            )
        positions = first + np.arange(data.sizes[dim]) * step
        coords[dim] = xr.Variable((dim,), positions, {"units": "angstrom", "spacing": step})
    return data.assign_coords(coords)


def _write(plan: Plan, data: xr.DataArray, compute: bool) -> Delayed | None:
    """Write the data as planned, or return a task that does."""
    if not compute:
        from dask.delayed import delayed

        finished = write_task(plan, as_dask(data), is_begun=False)
        warned: Delayed = delayed(warn_not_finite)(plan.sink.name, finished)
        return warned
    # data in memory need no cluster
    is_here = data.chunks is None and client_of_user() is not None
    scheduler = {"scheduler": "threads"} if is_here else {}
    try:
        with (begun := begin(plan)).lock:
            task = write_task(begun, as_dask(data), is_begun=True)
            with own_threads(task, **scheduler) as own:
                n_not_finite = task.compute(**scheduler, **own)
    except BaseException as error:
        plan.sink.discard()
        error.add_note(printable(plan.sink.note))
        raise
    warn_not_finite(plan.sink.name, n_not_finite)
    return None
