"""Boxes around points: subtomograms of a volume, particles of micrographs, patches of a scan."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from mrc_xarray.errors import warn
from mrc_xarray.labels.spacing import signed_step
from mrc_xarray.recording import SAMPLES
from mrc_xarray.tools.boxes import lazy_boxes
from mrc_xarray.tools.points import PointsArgument, Table, table_of, voxels

__all__ = ["Border", "Size", "extract"]

Array: TypeAlias = npt.NDArray[Any]
Border: TypeAlias = Literal["pad", "error", "drop"]
Size: TypeAlias = int | Sequence[int] | Mapping[Any, int]

_BORDERS = ("pad", "error", "drop")
# names of our coordinates along the particles: the points, and the voxels that they are in
_POINT, _CENTRE = "point_", "center_"
# of positions in a box, without the errors of products
_DECIMALS = 12
# points in a message
_LISTED = 10


def extract(
    data: xr.DataArray,
    points: PointsArgument,
    size: Size,
    border: Border = "pad",
    fill: complex | None = None,
) -> xr.DataArray:
    """Return boxes around points as one lazy array; see `MrcAccessor.extract`."""
    if border not in _BORDERS:
        raise ValueError(f"border is {border!r}; accepted: {', '.join(map(repr, _BORDERS))}")
    if "particle" in data.dims:
        raise ValueError(
            "the data have a dimension 'particle', as the result has; rename it first"
        )
    if empty := [dim for dim, n in data.sizes.items() if not n]:
        raise ValueError(f"the data have no pixels along {empty[0]}")
    sizes = _sizes(data, size)
    table = table_of(points, data, list(sizes))
    clash = set(table.others) & {f"{prefix}{dim}" for prefix in (_POINT, _CENTRE) for dim in sizes}
    if clash:
        raise ValueError(f"points have a column {clash.pop()!r}, a name of the result; rename it")
    nearest = {
        dim: voxels(data, dim, column, is_box=dim in sizes)
        for dim, column in table.positions.items()
    }
    starts = {dim: numbers - sizes.get(dim, 0) // 2 for dim, numbers in nearest.items()}
    outside = np.zeros(table.n, np.bool_)
    for dim, n in sizes.items():
        outside |= (starts[dim] < 0) | (starts[dim] + n > data.sizes[dim])
    chosen = _chosen(outside, border)
    # along a dimension without a position, a box has everything
    everything = np.zeros(table.n, np.int64)
    corners = np.stack([starts.get(dim, everything)[chosen] for dim in data.dims], 1)
    read = [sizes.get(dim, 1 if dim in starts else n) for dim, n in data.sizes.items()]
    boxes = lazy_boxes(data.variable, corners, read, _fill(data.dtype, fill))
    found = xr.DataArray(boxes, dims=("particle", *data.dims), name=data.name, attrs=data.attrs)
    indices = {dim: numbers[chosen] for dim, numbers in nearest.items()}
    coords = _coords(data, table, indices, sizes, chosen)
    return found.isel({dim: 0 for dim in indices if dim not in sizes}).assign_coords(coords)


def _sizes(data: xr.DataArray, size: Size) -> dict[Hashable, int]:
    """Return the size of a box along each of its dimensions, in the order of the data."""
    dims = [dim for dim in data.dims if dim not in SAMPLES]
    spatial = [dim for dim in dims if dim in ("z", "y", "x")]
    if isinstance(size, Mapping):
        sizes = dict(size)
    elif isinstance(size, Sequence | np.ndarray):
        fastest = dims[len(dims) - len(size) :] if len(size) <= len(dims) else []
        sizes = dict(zip(fastest, size, strict=False))
    else:
        sizes = dict.fromkeys(spatial if len(spatial) > 1 else dims[-2:], size)
    is_known = bool(sizes) and all(dim in dims for dim in sizes)
    if not is_known or not all(_is_size(n) for n in sizes.values()):
        raise ValueError(
            f"size is {size!r}; accepted: a positive number of voxels, one for each of the last "
            f"dimensions, or a mapping by dimension, of {', '.join(map(str, dims))}"
        )
    return {dim: int(sizes[dim]) for dim in dims if dim in sizes}


def _is_size(n: Any) -> bool:
    return isinstance(n, int | np.integer) and not isinstance(n, bool) and bool(n > 0)


def _chosen(outside: npt.NDArray[np.bool_], border: Border) -> Array:
    """Return the rows of the points whose boxes are returned."""
    rows = np.flatnonzero(outside)
    if border == "pad" or not rows.size:
        return np.arange(outside.size)
    listed = ", ".join(map(str, rows[:_LISTED].tolist())) + ", …" * (len(rows) > _LISTED)
    problem = (
        f"the boxes of {rows.size} of {outside.size} points (rows {listed}) are not completely "
        "inside the data"
    )
    if border == "error":
        raise ValueError(
            f"{problem}; accepted: other points, a smaller size, border='pad' or border='drop'"
        )
    warn(f"{problem}, and are dropped")
    return np.flatnonzero(~outside)


def _fill(dtype: np.dtype[Any], fill: complex | None) -> Any:
    """Return the value of voxels outside of the data."""
    if fill is None:
        return dtype.type(np.nan if dtype.kind in "fc" else 0)
    given = np.asarray(fill)
    if given.ndim == 0 and given.dtype.kind in ("biufc" if dtype.kind == "c" else "biuf"):
        with np.errstate(all="ignore"):
            value = given.astype(dtype, casting="unsafe")[()]
        # floats are rounded to the type of the data
        is_rounded = dtype.kind in "fc" and np.isfinite(value) == np.isfinite(given)
        if is_rounded or value == given:
            return value
    raise ValueError(f"fill is {fill!r}; accepted: a value of {dtype}, as the data have")


def _coords(
    data: xr.DataArray,
    table: Table,
    indices: Mapping[Hashable, Array],
    sizes: Mapping[Hashable, int],
    chosen: Array,
) -> dict[Hashable, Any]:
    """Return the coordinates of the particles, and those of the data that still hold."""
    along = {dim: _along(data, dim, table, indices[dim], n, chosen) for dim, n in sizes.items()}
    found: dict[Hashable, Any] = {"particle": ("particle", chosen, {"long_name": "row of points"})}
    found |= {f"{_POINT}{dim}": given for dim, (given, *_) in along.items()}
    found |= {f"{_CENTRE}{dim}": centre for dim, (_, centre, _) in along.items()}
    found |= {dim: within for dim, (*_, within) in along.items() if within is not None}
    particles = {
        dim: xr.DataArray(numbers, dims="particle")
        for dim, numbers in indices.items()
        if dim not in sizes
    }
    for name, coord in data.coords.items():
        if not set(coord.dims) & set(sizes):
            found[name] = coord.isel({d: at for d, at in particles.items() if d in coord.dims})
    for dim, numbers in particles.items():
        if dim not in data.coords:
            found[dim] = ("particle", numbers.values)
    return found | {name: column[chosen] for name, column in table.others.items()}


def _along(
    data: xr.DataArray, dim: Hashable, table: Table, indices: Array, size: int, chosen: Array
) -> tuple[xr.Variable, xr.Variable, xr.Variable | None]:
    """Return the points, the voxels at the centres, and the positions in a box along a dimension.

    The last are None for a dimension without a coordinate.
    """
    column, coord = table.positions[dim][chosen], data[dim]
    units = {"units": coord.attrs["units"]} if "units" in coord.attrs else {}
    given = column.copy(deep=False)
    given.attrs = units | column.attrs | {"long_name": f"{dim} of the point"}
    attrs = units | {"long_name": f"{dim} of the voxel at the centre of the box"}
    step = signed_step(coord) if dim in data.coords else None
    if step is None:
        return given, xr.Variable("particle", indices, attrs), None
    # exactly the positions of the data, where there are any
    inside = (indices >= 0) & (indices < coord.size)
    positions = float(coord.values[0]) + step * indices
    positions[inside] = coord.values[indices[inside]]
    centres = xr.Variable("particle", positions, attrs)
    offsets = np.round(step * (np.arange(size) - size // 2), _DECIMALS)
    return given, centres, xr.Variable(dim, offsets, coord.attrs | {"spacing": abs(step)})
