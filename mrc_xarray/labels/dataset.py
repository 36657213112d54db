"""From a `Recording` to a labelled xarray Dataset: dimensions, coordinates, units, attributes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from xarray.core import indexing

from mrc_xarray.labels.attributes import printable_attrs, recording_attrs
from mrc_xarray.labels.coordinate import Coordinate
from mrc_xarray.labels.stored_labels import StoredLabels
from mrc_xarray.metadata.columns import Column, with_gaps
from mrc_xarray.metadata.limits import MOST_POSITIONS
from mrc_xarray.options import OpenOptions
from mrc_xarray.pixels.array import StackArray
from mrc_xarray.pixels.chunks import preferred_chunks
from mrc_xarray.pixels.variable import StackVariable
from mrc_xarray.recording import Dimension, Recording
from mrc_xarray.storage import ByteSource
from mrc_xarray.units import LENGTHS, converted, factor, scaled
from mrc_xarray.voxel_size import VoxelSize

__all__ = ["positions_along", "to_dataset"]

# the steps of finer positions would be irregular after rounding
_FINEST_ROUNDED = 1e-3  # Å
# dimensions that are no directions
_QUANTITIES = ("energy", "time", "wavelength")


def to_dataset(recording: Recording, source: ByteSource, options: OpenOptions) -> xr.Dataset:
    """Label the pixels of a recording, as the caller of an engine wants it.

    Returns
    -------
    xarray.Dataset
        One lazy variable ``data``, and its coordinates in memory. xarray makes their indexes.
    """
    shape = recording.sections.shape
    labels = recording.stored_labels if options.dims is None else None
    stored = StoredLabels.parse(labels, shape)
    if stored is not None:
        names, dimensions = tuple(stored.sizes), _as_stored(recording, stored)
    else:
        names, dimensions = _names(recording.dims, options.dims), recording.dims
    if options.voxel_size is not None:
        dimensions = _with_steps(recording, names, dimensions, options.voxel_size)
    n_leading = len(dimensions) - len(recording.frame)
    leading = tuple(dimension.size for dimension in dimensions[:n_leading])
    array = StackArray(source, recording.sections, leading, options.mmap, recording.frame_index)
    attrs = recording_attrs(recording, source)
    coords = _section_coords(recording, names[:n_leading], leading)
    for name, dimension in zip(names, dimensions, strict=True):
        positions = positions_along(name, dimension, options.units)
        if positions is not None:
            coords[name] = positions
    data = StackVariable(
        names,
        _lazy(array, len(names)),
        attrs if stored is None else stored.attrs | attrs,
        _encoding(names, array),
    )
    return _with_coords(data, coords if stored is None else stored.coords | coords)


def _lazy(array: StackArray, n_dims: int) -> indexing.LazilyIndexedArray:
    """Return the array without the rows of a spectrum, which is the only row of its section."""
    key = (0,) * (len(array.shape) - n_dims) + (slice(None),) * n_dims
    return indexing.LazilyIndexedArray(array, indexing.BasicIndexer(key))


def _encoding(names: tuple[str, ...], array: StackArray) -> dict[str, Any]:
    is_spectrum = len(names) < len(array.shape)
    return {} if is_spectrum else {"preferred_chunks": preferred_chunks(names, array)}


def _with_coords(data: xr.Variable, coords: Mapping[str, xr.Variable]) -> xr.Dataset:
    """Return a Dataset whose coordinates stay in memory when xarray makes dask arrays."""
    positions = {name: coord for name, coord in coords.items() if name in data.dims}
    others = {
        name: Coordinate(coord.dims, coord.values, coord.attrs)
        for name, coord in coords.items()
        if name not in positions
    }
    # xr.Coordinates would make plain variables of the others
    ds = xr.Dataset({"data": data, **others}, xr.Coordinates(positions))
    return ds.set_coords(list(others)) if others else ds


def _names(dimensions: Sequence[Dimension], dims: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the dimensions, which can be the user's."""
    own = tuple(dimension.name for dimension in dimensions)
    if dims is None:
        return own
    are_names = isinstance(dims, list | tuple) and all(isinstance(dim, str) for dim in dims)
    if not are_names or len(dims) != len(own) or len(set(dims)) != len(dims):
        raise ValueError(
            f"dims is {dims!r}; accepted: {len(own)} different names, for {', '.join(own)}"
        )
    if taken := {"data", "section"} & set(dims):
        raise ValueError(f"dims is {dims!r}; {taken.pop()!r} is the name of a variable")
    return tuple(dims)


def _as_stored(recording: Recording, stored: StoredLabels) -> tuple[Dimension, ...]:
    """Return the dimensions that the pixels were written with, and the positions that fit."""
    frame = recording.frame
    sizes = list(stored.sizes.items())[: len(stored.sizes) - len(frame)]
    if len(sizes) != len(recording.leading):
        return *(Dimension(name=name, size=size) for name, size in sizes), *frame
    leading = (
        dataclasses.replace(dimension, size=size)
        for dimension, (_, size) in zip(recording.leading, sizes, strict=True)
    )
    return *leading, *frame


def _with_steps(
    recording: Recording,
    names: Sequence[str],
    dimensions: Sequence[Dimension],
    voxel_size: VoxelSize,
) -> tuple[Dimension, ...]:
    """Return dimensions with the user's steps, also those whose names the reader did not know.

    The reader has set the steps of its own dimensions. Raises MrcError if a step is for none of
    the dimensions, nor for the axes of sections that have a distance without positions.
    """
    named = dict(zip(names, dimensions, strict=True))
    n_samples = len(recording.sections.mode.samples)
    roles = {name: named[name].name for name in names[: len(names) - n_samples]}
    others = "" if recording.section_spacing is None else "xyz"
    steps = voxel_size.along(roles, others=others)
    known = {dimension.name for dimension in recording.dims}
    for name, dimension in named.items():
        step = steps.get(dimension.name)
        is_set = name == dimension.name and name in known
        if step and not is_set and dimension.size <= MOST_POSITIONS:
            start = dimension.start if step.units == dimension.unit else 0.0
            named[name] = dataclasses.replace(
                dimension, start=start, step=step.size, unit=step.units
            )
    return tuple(named.values())


def positions_along(name: str, dimension: Dimension, units: str) -> xr.Variable | None:
    """Return the coordinate of a dimension: where its voxels are.

    None if the step is unknown, or so large that positions are not finite.
    """
    if dimension.step is None:
        return None
    is_reciprocal = dimension.unit.startswith("1/")
    scale = LENGTHS[units] if dimension.unit == "angstrom" else factor(dimension.unit, units)
    unit = units
    if scale is None or is_reciprocal:
        scale, unit = 1.0, dimension.unit
    if not math.isfinite(1e9 * (dimension.start + dimension.step * dimension.size)):
        return None
    step = scaled(dimension.step, scale)
    # in place, to save memory for long dimensions
    positions = np.arange(dimension.size, dtype=np.float64)
    if dimension.unit == "angstrom" and dimension.step >= _FINEST_ROUNDED:
        positions *= dimension.step
        positions += dimension.start
        _round(positions, scale)
    else:
        positions *= step
        positions += scaled(dimension.start, scale)
    attrs = {"units": unit, "long_name": _long_name(dimension), "spacing": abs(step)}
    return xr.Variable((name,), positions, attrs)


def _long_name(dimension: Dimension) -> str:
    if dimension.unit.startswith("1/"):
        return f"{dimension.name} spatial frequency"
    return dimension.name if dimension.name in _QUANTITIES else f"{dimension.name} position"


def _round(positions: np.ndarray[Any, Any], scale: float) -> None:
    """Round positions in Å to 1e-6 Å, and scale them, in place.

    Equal positions of a volume and of a part of it become equal numbers, the closest ones to
    decimal numbers in any unit.
    """
    # without the errors of the sums, so that a half is a half in both volumes
    positions *= 1e9
    np.rint(positions, out=positions)
    positions /= 1e3
    np.rint(positions, out=positions)
    # the quotient of two integers is rounded correctly
    positions /= 1e6 / scale


def _section_coords(
    recording: Recording, along: tuple[str, ...], leading: tuple[int, ...]
) -> dict[str, xr.Variable]:
    """Return the coordinates with one value per section, along the dimensions that count them."""
    index = recording.frame_index
    coords = {
        column.name: _from_column(column, index, along, leading) for column in recording.columns
    }
    if recording.has_section_numbers:
        numbers = np.arange(math.prod(leading), dtype=np.int64).reshape(leading)
        coords["section"] = xr.Variable(along, numbers, {"long_name": "section in the file"})
    if index is not None:
        attrs = {"long_name": "frame in the file, -1 where none was recorded"}
        # the array finds its frames by the same values
        view = index.view()
        view.flags.writeable = False
        coords["frame_index"] = xr.Variable(along, view, attrs)
    return coords


def _from_column(
    column: Column,
    index: np.ndarray[Any, Any] | None,
    along: tuple[str, ...],
    leading: tuple[int, ...],
) -> xr.Variable:
    values, unit = converted(column.name, column.values, column.units)
    dims = along
    if index is None:
        # one value for each of the first dimension, or for each section; values after these belong
        # to sections that are missing
        n_dims = 1 if leading[:1] == (len(values),) else len(leading)
        dims, shape = along[:n_dims], leading[:n_dims]
        values = values[: math.prod(shape)].reshape(shape)
    else:
        # index -1, for a position without a frame, is the missing value at the end
        gap = with_gaps(values[:1], np.zeros(1, np.bool_))
        values = np.concatenate([values, gap])[index]
    attrs = {"units": unit, "long_name": column.long_name} | printable_attrs(column.attrs)
    return xr.Variable(dims, values, {key: text for key, text in attrs.items() if text})
