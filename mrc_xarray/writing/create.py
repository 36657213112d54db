"""Create plain files of equal pixels, to be filled in place."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from mrc_xarray.errors import MrcError
from mrc_xarray.pixels.statistics import Statistics
from mrc_xarray.suffixes import COMPRESSED_SUFFIXES
from mrc_xarray.voxel_size import VoxelSize, VoxelSizeArgument
from mrc_xarray.writing.arrays import as_data_array
from mrc_xarray.writing.live import local_path
from mrc_xarray.writing.new_file import plan_new
from mrc_xarray.writing.options import WriteOptions
from mrc_xarray.writing.plan import Plan, begin, finish_plain, warn_not_finite, write_equal
from mrc_xarray.writing.subject import find_roles
from mrc_xarray.writing.voxel_size import with_steps

__all__ = ["create"]


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
        raise MrcError(
            f"{path}: a compressed stream can't be filled in place. Create a plain file, and "
            "compress it when it is complete"
        )
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
    plan = plan_new(_at_origin(data, origin or {}, options.voxel_size), target, options)
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
    if value.dtype.kind == "c" and np.dtype(mode.decoded).kind != "c":
        raise MrcError(
            f"fill is {number!r}; accepted: a real number, as the file is {mode.decoded_name} "
            f"(MODE {mode.number})"
        )
    return mode.cast(np.broadcast_to(value, (1, 1, *mode.samples)))


def _at_origin(
    data: xr.DataArray, origin: Mapping[str, float], voxel_size: VoxelSize | None
) -> xr.DataArray:
    """Return the data with coordinates that begin at `origin`, in Å."""
    if not isinstance(origin, Mapping):
        raise TypeError(f"origin is {origin!r}; accepted: a mapping of dimension to number, in Å")
    spatial = find_roles(data).spatial
    lengths, _ = with_steps(data, spatial, voxel_size)
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
