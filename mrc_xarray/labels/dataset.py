"""From a `Recording` to a labelled xarray Dataset: dimensions, coordinates, units, attributes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from xarray.core import indexing

from mrc_xarray.labels.attributes import recording_attrs
from mrc_xarray.labels.stored_labels import StoredLabels
from mrc_xarray.metadata.columns import Column, with_gaps
from mrc_xarray.pixels.array import StackArray, StackVariable, preferred_chunks
from mrc_xarray.recording import Dimension, Recording
from mrc_xarray.storage import ByteSource
from mrc_xarray.units import LENGTHS, converted, factor

__all__ = ["to_dataset"]


def to_dataset(
    recording: Recording,
    source: ByteSource,
    *,
    dims: Sequence[str] | None = None,
    units: str = "angstrom",
    mmap: bool = False,
) -> xr.Dataset:
    """Label the pixels of a recording; `dims`, `units` and `mmap` are described in `OpenOptions`.

    Returns
    -------
    xarray.Dataset
        One lazy variable ``data``, and its coordinates without indexes, which xarray makes.
    """
    shape = recording.sections.shape
    stored = None if dims is not None else StoredLabels.parse(recording.stored_labels, shape)
    if stored is not None:
        names = tuple(stored.sizes)
        dimensions = _as_stored(recording, stored)
    else:
        names = _names(recording.dims, dims)
        dimensions = recording.dims
    n_leading = len(dimensions) - (len(shape) - 1)
    leading = tuple(dimension.size for dimension in dimensions[:n_leading])
    array = StackArray(source, recording.sections, leading, mmap, recording.frame_index)
    attrs = recording_attrs(recording, source)
    coords = _section_coords(recording, names[:n_leading], leading)
    for name, dimension in zip(names, dimensions, strict=True):
        positions = _positions(name, dimension, units)
        if positions is not None:
            coords[name] = positions
    data = StackVariable(
        names,
        indexing.LazilyIndexedArray(array),
        attrs if stored is None else stored.attrs | attrs,
        {"preferred_chunks": preferred_chunks(names, array)},
    )
    coords = coords if stored is None else stored.coords | coords
    return xr.Dataset({"data": data}, xr.Coordinates(coords, indexes={}))


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
    frame = recording.dims[len(recording.leading) :]
    sizes = list(stored.sizes.items())[: len(stored.sizes) - len(frame)]
    if len(sizes) != len(recording.leading):
        return *(Dimension(name=name, size=size) for name, size in sizes), *frame
    leading = (
        dataclasses.replace(dimension, size=size)
        for dimension, (_, size) in zip(recording.leading, sizes, strict=True)
    )
    return *leading, *frame


def _positions(name: str, dimension: Dimension, units: str) -> xr.Variable | None:
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
    step, start = dimension.step * scale, dimension.start * scale
    if not math.isfinite(start + step * dimension.size):
        return None
    kind = "spatial frequency" if is_reciprocal else "position"
    attrs = {"units": unit, "long_name": f"{dimension.name} {kind}", "spacing": step}
    # in place, to save memory for long dimensions
    positions = np.arange(dimension.size, dtype=np.float64)
    positions *= step
    positions += start
    return xr.Variable((name,), positions, attrs)


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
        coords["frame_index"] = xr.Variable(along, index, attrs)
    return coords


def _from_column(
    column: Column,
    index: np.ndarray[Any, Any] | None,
    along: tuple[str, ...],
    leading: tuple[int, ...],
) -> xr.Variable:
    values, unit = converted(column.name, column.values, column.units)
    if index is None:
        values = values[: math.prod(leading)].reshape(leading)
    else:
        # index -1, for a position without a frame, is the missing value at the end
        gap = with_gaps(values[:1], np.zeros(1, np.bool_))
        values = np.concatenate([values, gap])[index]
    attrs = {"units": unit, "long_name": column.long_name}
    return xr.Variable(along, values, {key: text for key, text in attrs.items() if text})
