"""What a header can't hold of labelled data: as a warning, or as JSON in an MRCZ."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from mrc_xarray.errors import MrcError
from mrc_xarray.labels.attributes import OWN_ATTRS
from mrc_xarray.labels.stored_labels import values_to_json
from mrc_xarray.metadata.find import evidence_next_to
from mrc_xarray.mrc.header import Header
from mrc_xarray.mrc.layout import Layout, arrange
from mrc_xarray.recording import LABELS_KEY
from mrc_xarray.text import json_text
from mrc_xarray.writing.extended_header import Extended
from mrc_xarray.writing.subject import Subject

__all__ = ["layout_of", "store_labels"]

# a longer list in a warning is not read
_MOST_NAMES = 10


def store_labels(
    subject: Subject, header: Header, carried: Extended
) -> tuple[Extended, tuple[str, ...]]:
    """Return the extended header of the new file, and what can't be stored, for a warning.

    It is `carried`, the part of the source's that is still valid, or JSON if there is something to
    store as JSON: metadata, and the labels of an MRCZ. JSON then also contains the labels that the
    replaced records had.
    """
    options, data = subject.options, subject.data
    source_metadata = subject.provenance.metadata
    metadata = (source_metadata if subject.codec else {}) | dict(options.metadata or {})
    dims = _changed_dimensions(subject, header, len(carried.raw))
    left = _remainder(subject, carried, dims)
    # RosettaSciIO can't read an MRCZ that has no JSON
    needs_json = metadata or (subject.codec and (left or not carried.raw))
    if options.extended_header is not None or not needs_json:
        hint = "the metadata; metadata=data.mrc.metadata writes them as JSON"
        return carried, (*left.lost, *[hint] * bool(source_metadata), *carried.lost)
    replaced = f"the extended header's bytes ({carried.exttyp}), since JSON replaces them"
    lost = (*[replaced] * bool(carried.raw), *carried.lost)
    all_left = _remainder(subject, Extended(), dims)
    if not subject.codec:
        return Extended("json", _as_json(metadata)), (*all_left.lost, *lost)
    labels, no_form = _labels_for_json(data, all_left)
    stored = {LABELS_KEY: labels} if metadata or left else {}
    return Extended("json", _as_json(metadata | stored)), (*no_form, *lost)


@dataclass(frozen=True, kw_only=True)
class _Remainder:
    """Labels that neither the header nor the extended header holds."""

    dims: str  # how the dimensions change; empty if they do not
    coords: list[str]
    attrs: list[str]

    def __bool__(self) -> bool:
        return bool(self.dims or self.coords or self.attrs)

    @property
    def lost(self) -> list[str]:
        """Texts for a warning."""
        lost = [self.dims] if self.dims else []
        lost += [f"the coordinates {_listed(self.coords)}"] if self.coords else []
        lost += [f"the attributes {_listed(self.attrs)}"] if self.attrs else []
        return lost


def _remainder(subject: Subject, carried: Extended, dims: str) -> _Remainder:
    """Return the labels that neither the header nor the extended header `carried` holds."""
    data, spatial = subject.data, subject.roles.spatial
    held = {spatial.get(axis, axis) for axis, grid in subject.grids.items() if grid.is_stored}
    held |= {name for name, values in carried.coords.items() if _has_values(data, name, values)}
    if {"mrc_header", "mrc_source"} & data.attrs.keys():
        # the new file numbers its own sections
        held.add("section")
    attrs = {str(key): value for key, value in data.attrs.items() if key not in OWN_ATTRS}
    return _Remainder(
        dims=dims,
        coords=[str(name) for name in data.coords if name not in held],
        attrs=[
            key
            for key, value in attrs.items()
            if key not in carried.attrs or not np.array_equal(carried.attrs[key], value)
        ],
    )


def _has_values(data: xr.DataArray, name: str, values: np.ndarray[Any, Any]) -> bool:
    """Return whether a coordinate, if there is one, has exactly these values."""
    if name not in data.coords:
        return True
    found = data.coords[name].values.reshape(-1)
    if found.dtype.kind != values.dtype.kind:
        return False
    return np.array_equal(found, values, equal_nan=found.dtype.kind in "fM")


def layout_of(subject: Subject, header: Header, extended_size: int) -> Layout:
    """Return the layout that the file will be opened with."""
    return arrange(
        header,
        header.nz,
        name=subject.name,
        section_axis=subject.roles.axes[0],
        extended_size=extended_size,
        evidence=evidence_next_to(subject.name, header.nz),
    )


def _changed_dimensions(subject: Subject, header: Header, extended_size: int) -> str:
    """Return how the dimensions change when the file is opened; empty if they do not."""
    roles, arranged = subject.roles, layout_of(subject, header, extended_size)
    opened = [*dict(arranged.leading), *roles.axes[1:], *["rgb"] * roles.is_rgb]
    dims, sizes = [str(dim) for dim in subject.data.dims], subject.sizes
    if opened == dims and tuple(n for _, n in arranged.leading) == sizes:
        return ""
    hint = ""
    if roles.kind == "image_stack" and (len(sizes) > 1 or roles.leading == ("scan_x",)):
        is_list = roles.is_list_of_frames
        restores = f"sections_per_frame={sizes[1]}" if is_list else f"scan_shape={sizes}"
        hint = f" ({restores} restores them)"
    elif arranged.kind != roles.kind:
        hint = f" (layout={roles.kind!r} restores them)"
    return f"the dimensions ({', '.join(dims)}), which open as ({', '.join(opened)}){hint}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def _labels_for_json(data: xr.DataArray, left: _Remainder) -> tuple[dict[str, Any], list[str]]:
    """Return labels in the form of `labels.stored_labels`, and what JSON can't hold."""
    coords = {}
    for name in left.coords:
        coord = data.coords[name]
        coords[name] = {
            "dims": [str(dim) for dim in coord.dims],
            "attrs": {str(key): value for key, value in coord.attrs.items() if _has_form(value)},
            **values_to_json(coord.values),
        }
    attrs = {str(key): value for key, value in data.attrs.items() if str(key) in left.attrs}
    no_form = [key for key, value in attrs.items() if not _has_form(value)]
    labels = {
        "dims": [str(dim) for dim in data.dims],
        "shape": list(data.shape),
        "coords": coords,
        "attrs": {key: value for key, value in attrs.items() if key not in no_form},
    }
    return labels, [f"{_listed(no_form)}, for which JSON has no form"] if no_form else []


def _as_json(metadata: Mapping[str, Any]) -> bytes:
    """Return metadata as JSON, in the form that mrcz gives them; raise MrcError if it has none."""
    try:
        return json_text(metadata, default=_plain).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise MrcError(f"the metadata can't be written as JSON: {error}") from error


def _has_form(value: Any) -> bool:
    try:
        return bool(_as_json({"": value}))
    except MrcError:
        return False


def _plain(value: Any) -> Any:
    """Return what JSON can hold, in the form that mrcz gives it."""
    if callable(serialize := getattr(value, "serialize", None)):
        return serialize()
    if isinstance(value, enum.Enum):
        return f"Enum.{type(value).__name__}.{value.name}"
    if isinstance(value, np.ndarray | np.generic):
        return value.astype(str).tolist() if value.dtype.kind in "mM" else value.tolist()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no form in JSON")
