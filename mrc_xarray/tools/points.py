"""Points in an array, from an array of positions or a table, and the voxels that they are in."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from mrc_xarray.labels.spacing import signed_step
from mrc_xarray.recording import SAMPLES
from mrc_xarray.units import factor, known_unit

__all__ = ["PointsArgument", "Table", "table_of", "voxels"]

Array: TypeAlias = npt.NDArray[Any]
#: Positions of shape (n, number of dimensions), or a table: a pandas DataFrame, an xarray Dataset,
#: a structured array, or a mapping.
PointsArgument: TypeAlias = Any

# positions that are exactly between two voxels are so within the rounding of floats
_DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns of equal length: positions by dimension, and others by name."""

    n: int
    positions: Mapping[Hashable, xr.Variable]
    others: Mapping[str, xr.Variable]


def table_of(points: PointsArgument, data: xr.DataArray, box: Sequence[Hashable]) -> Table:
    """Return points as a table.

    Raises
    ------
    ValueError
        If they have no position along a dimension of the box, or columns of different lengths.
    """
    columns = _columns(points)
    if columns is None:
        columns = _from_array(points, data, box)
    if missing := [str(dim) for dim in box if dim not in columns]:
        found = ", ".join(map(str, columns)) or "none"
        raise ValueError(
            f"points have the columns {found}; accepted: a column for each dimension of a box, "
            f"and {', '.join(missing)} is missing"
        )
    n = columns[box[0]].size
    for name, column in columns.items():
        if column.ndim != 1 or column.size != n:
            raise ValueError(
                f"points have a column {str(name)!r} of shape {column.shape}; accepted: ({n},), "
                f"as {str(box[0])!r} has"
            )
    positions = {dim: columns[dim] for dim in data.dims if dim in columns}
    others = {str(name): col for name, col in columns.items() if name not in positions}
    return Table(n=n, positions=positions, others=others)


def _columns(points: PointsArgument) -> dict[Hashable, xr.Variable] | None:
    """Return the columns of a table as one-dimensional variables; None if it is no table."""
    if isinstance(points, xr.Dataset):
        found: dict[Hashable, Any] = dict(points.variables)
    elif isinstance(points, Mapping) or hasattr(points, "columns"):
        names: Any = getattr(points, "columns", points)
        found = {name: points[name] for name in names}
    elif isinstance(points, np.ndarray) and points.dtype.names is not None:
        found = {name: points[name] for name in points.dtype.names}
    else:
        return None
    return {name: _column(values) for name, values in found.items()}


def _column(values: Any) -> xr.Variable:
    attrs = values.attrs if isinstance(values, xr.DataArray | xr.Variable) else {}
    array = np.atleast_1d(np.asarray(values))
    if array.dtype == object and all(isinstance(value, str) for value in array.flat):
        # as pandas has texts, which netCDF and Zarr store only as text, and columns of no rows
        array = array.astype(str if array.size else float)
    dims = ("particle", *(f"dim_{i}" for i in range(1, array.ndim)))
    return xr.Variable(dims, array, attrs)


def _from_array(
    points: PointsArgument, data: xr.DataArray, box: Sequence[Hashable]
) -> dict[Hashable, xr.Variable]:
    array = np.asarray(points)
    if array.size == 0:
        array = np.empty((0, len(box)))
    dims = tuple(dim for dim in data.dims if dim not in SAMPLES)
    for names in (tuple(box), dims):
        if array.ndim == 2 and array.shape[1] == len(names):
            return {dim: _column(array[:, i]) for i, dim in enumerate(names)}
    accepted = {", ".join(map(str, names)): len(names) for names in (box, dims)}
    listed = " or ".join(f"(n, {size}) for {names}" for names, size in accepted.items())
    raise ValueError(f"points have the shape {array.shape}; accepted: {listed}, or a table")


def voxels(data: xr.DataArray, dim: Hashable, column: xr.Variable, *, is_box: bool) -> Array:
    """Return the index of the voxel that is nearest to each position along a dimension.

    A position in the middle between two voxels is in the second one. Along a dimension of the box
    the index may be outside of the data; along another dimension it may not.
    """
    coord = data.coords.get(dim)
    n = data.sizes[dim]
    if coord is not None and coord.dtype.kind not in "iufc":
        return _exact(coord, column)
    values = column.values
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        is_number = values.dtype.kind in "iuf"
        row = int(np.argmin(np.isfinite(values))) if is_number else 0
        found = values[row].item() if values.size else values.dtype
        raise ValueError(f"points have {dim} = {found!r} in row {row}; accepted: finite numbers")
    if coord is None:
        indices = _rounded(values.astype(np.float64))
    else:
        indices = _nearest(coord, values * _scale(column, coord), is_box=is_box)
    if is_box:
        # far enough outside, and never beyond an integer
        return np.clip(indices, -(2.0**40), 2.0**40).astype(np.int64)
    outside = np.flatnonzero((indices < 0) | (indices >= n))
    if outside.size:
        row = int(outside[0])
        low, high = (0, n - 1) if coord is None else (coord.values.min(), coord.values.max())
        raise ValueError(
            f"points have {dim} = {values[row]:g} in row {row}; accepted: {low:g} to {high:g}"
        )
    return indices.astype(np.int64)


def _scale(column: xr.Variable, coord: xr.DataArray) -> float:
    """Return what converts the positions of a column to the units of a coordinate."""
    given, wanted = (known_unit(str(each.attrs.get("units", ""))) for each in (column, coord))
    if given is None or wanted is None or given == wanted:
        return 1.0
    scale = factor(given, wanted)
    if scale is None:
        raise ValueError(f"points have {coord.name} in {given}; accepted: {wanted}")
    return scale


def _nearest(coord: xr.DataArray, positions: Array, *, is_box: bool) -> Array:
    step = signed_step(coord)
    if step is not None:
        return _rounded((positions - float(coord.values[0])) / step)
    if is_box:
        raise ValueError(
            f"the coordinate {coord.name} is irregular, so a box has no size along it; "
            f"data.drop_vars({str(coord.name)!r}) uses voxel indices"
        )
    order = np.argsort(coord.values, kind="stable")
    sorted_ = coord.values[order]
    nearest: Array = order[np.searchsorted((sorted_[1:] + sorted_[:-1]) / 2, positions, "right")]
    return nearest


def _rounded(indices: Array) -> Array:
    rounded: Array = np.floor(np.round(indices, _DIGITS) + 0.5)
    return rounded


def _exact(coord: xr.DataArray, column: xr.Variable) -> Array:
    """Return the index of each label, for coordinates such as names of files."""
    numbers = {label: i for i, label in enumerate(coord.values.tolist())}
    labels = column.values.tolist()
    if unknown := [label for label in labels if label not in numbers]:
        listed = ", ".join(map(repr, list(numbers)[:10]))
        raise ValueError(f"points have {coord.name} = {unknown[0]!r}; accepted: {listed}")
    return np.array([numbers[label] for label in labels], np.int64)
