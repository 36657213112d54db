"""New pixels with the labels of a file, or of other data."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from mrc_xarray.labels.attributes import ATTRS_WITH_UNIT, OWN_ATTRS
from mrc_xarray.writing.arrays import as_data_array, is_labelled
from mrc_xarray.writing.subject import find_roles

__all__ = ["labelled_like"]

# what the attributes say about the file, and not about the pixels
_OF_FILE = set(OWN_ATTRS) - set(ATTRS_WITH_UNIT.values())


def labelled_like(
    obj: Any, like: Any, storage_options: dict[str, Any] | None
) -> tuple[xr.DataArray, list[str]]:
    """Return data with the labels of `like` that still hold, and what does not, for a warning.

    Labels of the data win. The file that they are a copy of is that of `like`, whatever file the
    data were opened from.

    Raises
    ------
    MrcError, OSError, TypeError
        If `like` can't be opened, or is no single array.
    """
    pattern, data = _pattern(like, storage_options), as_data_array(obj, of_any_rank=True)
    if not is_labelled(obj):
        data = xr.DataArray(data.variable._replace(dims=_dims(data.shape, pattern)))
    missing = {name: c for name, c in pattern.coords.items() if name not in data.coords}
    coords = {
        name: coord.variable
        for name, coord in missing.items()
        if all(data.sizes.get(dim) == n for dim, n in coord.sizes.items())
    }
    own = {name: value for name, value in data.attrs.items() if name not in _OF_FILE}
    labelled = data.assign_coords(coords)
    # as far as they describe the file, those of the data are left out
    labelled.attrs = pattern.attrs | own
    # the new file numbers its own sections
    lost = {str(name) for name in missing.keys() - coords.keys() - {"section"}}
    if not lost:
        return labelled, []
    hint = " (voxel_size= sets the steps)" if lost & set(find_roles(data).spatial.values()) else ""
    return labelled, [
        f"the coordinates {', '.join(sorted(lost))} of like={hint}, as the data have the shape "
        f"({_shown(data)}), and like= has ({_shown(pattern)})"
    ]


def _pattern(like: Any, storage_options: dict[str, Any] | None) -> xr.DataArray:
    if is_labelled(like):
        return as_data_array(like)
    if hasattr(like, "dtype") or not (
        isinstance(like, str | bytes | os.PathLike) or hasattr(like, "read") or hasattr(like, "fs")
    ):
        raise TypeError(
            f"like is {type(like).__name__}; accepted: a path, a URL, a file object, a DataArray "
            "or a Dataset"
        )
    # a path in a store, as of universal_pathlib, brings its own options
    options = storage_options if isinstance(like, str) else None
    ds = xr.open_dataset(like, engine="mrc", storage_options=options)
    return as_data_array(ds)


def _dims(shape: Sequence[int], pattern: xr.DataArray) -> tuple[Hashable, ...]:
    """Return names for the dimensions of an array without labels: those of the pattern.

    An array with more or fewer dimensions is of the same kind as far as possible: a stack if the
    pattern has images, and a volume if it has volumes.
    """
    roles = find_roles(pattern)
    frame = pattern.dims[len(roles.leading) :][:2]
    is_rgb = roles.is_rgb and len(shape) > 2 and shape[-1] == 3
    n_leading = len(shape) - 2 - is_rgb
    is_volume = roles.kind in ("volume", "volume_stack")
    section_axis = roles.leading[-1] if is_volume else roles.axes[0]
    others = {0: (), 1: (section_axis if is_volume else "image",), 2: ("volume", section_axis)}
    leading = roles.leading if n_leading == len(roles.leading) else others.get(n_leading)
    if leading is None:
        # an error about arrays without labels
        return as_data_array(np.broadcast_to(0, shape)).dims
    return (*leading, *frame, *["rgb"] * is_rgb)


def _shown(data: xr.DataArray) -> str:
    return ", ".join(f"{dim}: {n}" for dim, n in data.sizes.items())
