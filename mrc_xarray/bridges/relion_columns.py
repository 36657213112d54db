"""Coordinates as columns of RELION's tables, in RELION's units, and optics groups."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from mrc_xarray.errors import MrcError
from mrc_xarray.labels.attributes import ATTRS_WITH_UNIT
from mrc_xarray.relion.labels import OF_OPTICS, is_label, label_of, name_of, unit_of
from mrc_xarray.units import factor, known_unit, shortest

__all__ = ["IMAGE_NAME", "optics_of", "table_columns"]

Array = np.ndarray[Any, Any]

#: The first column of a table, which names the images.
IMAGE_NAME = "rlnImageName"
_GROUP, _PIXEL_SIZE = "rlnOpticsGroup", "rlnImagePixelSize"
# the size of the images can have changed
_OF_THE_DATA = ("rlnImageDimensionality", "rlnImageSize")
# they describe where images were in other files
_OF_OTHER_FILES = {"section", "frame_index", "image_name", IMAGE_NAME}


def table_columns(images: xr.DataArray) -> tuple[dict[str, Array], list[str]]:
    """Return the columns by label, and the names of coordinates that have none.

    Raises MrcError if a coordinate has units that do not fit those of its label.
    """
    dim, *of_image = images.dims
    columns, left_out = {}, []
    for name, coord in images.coords.items():
        stored = coord.attrs.get("relion_name")
        label = stored if is_label(stored) else label_of(str(name))
        if name in (dim, *of_image) or {name, label} & _OF_OTHER_FILES or coord.dims != (dim,):
            continue
        if label is None or label in columns or coord.dtype.kind not in "biufUO":
            left_out.append(str(name))
            continue
        columns[label] = _in_units(str(name), coord, unit_of(label))
    return columns, left_out


def _in_units(name: str, coord: xr.DataArray, wanted: str) -> Array:
    """Return values in the units of RELION."""
    values: Array = coord.values
    if values.dtype.kind in "UO":
        return values.astype(str).astype(object)
    if values.dtype.kind == "b":
        return values.astype(np.int64)
    units = coord.attrs.get("units")
    unit = (known_unit(units) or units) if isinstance(units, str) else None
    if not wanted or not unit or unit == wanted:
        return values.astype(np.float64) if values.dtype.kind == "f" else values
    scale = factor(unit, wanted)
    if scale is None:
        raise MrcError(
            f"the coordinate {name} is in {units}; accepted: {wanted}, or a unit of the same kind"
        )
    # without the rounding of binary numbers
    return np.array([float(f"{value:.14g}") for value in (values * scale).tolist()])


def optics_of(
    images: xr.DataArray, columns: dict[str, Array], pixel_size: float | None
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the table of optics groups, and the columns of the images without theirs.

    A property that differs within a group remains a column of the images.
    """
    groups = columns.get(_GROUP, np.ones(len(images), np.int64))
    if groups.dtype.kind not in "iu":
        raise MrcError(f"optics_group is {groups.dtype}; accepted: integers, as by .astype(int)")
    numbers, first = np.unique(groups, return_index=True)
    at = np.searchsorted(numbers, groups)
    of_groups = {
        label: values[first]
        for label, values in columns.items()
        if label in OF_OPTICS and (values[first][at] == values).all()
    }
    of_images = {label: values for label, values in columns.items() if label not in of_groups}
    shared = _of_attributes(images) | {"rlnImageDimensionality": 2}
    if images.shape[1] == images.shape[2]:
        shared["rlnImageSize"] = images.shape[2]
    if pixel_size is not None:
        shared[_PIXEL_SIZE] = pixel_size
        of_groups.pop(_PIXEL_SIZE, None)
        of_images.pop(_PIXEL_SIZE, None)
    named = {"rlnOpticsGroupName": [f"opticsGroup{number}" for number in numbers]}
    everywhere = {label: [value] * len(numbers) for label, value in shared.items()}
    return named | everywhere | of_groups | {_GROUP: numbers}, of_images | {_GROUP: groups}


def _of_attributes(images: xr.DataArray) -> dict[str, Any]:
    """Return the properties of optics in the attributes, by their labels."""
    found: dict[str, Any] = {}
    for label in sorted(label for label in OF_OPTICS if label not in _OF_THE_DATA):
        name = name_of(label)
        value = images.attrs.get(ATTRS_WITH_UNIT.get(name, name))
        if isinstance(value, str):
            found[label] = value
        elif isinstance(value, int | float | np.number):
            found[label] = shortest(float(value))
    return found
