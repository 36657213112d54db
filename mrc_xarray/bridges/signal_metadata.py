"""Metadata of HyperSpy signals: from and to the attributes of labelled data.

HyperSpy has names for some values, such as ``Acquisition_instrument.TEM.beam_energy``. All others
are in its ``original_metadata``.
"""

from __future__ import annotations

import importlib.util
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from mrc_xarray.bridges.axes import has_patterns
from mrc_xarray.labels.spacing import as_float
from mrc_xarray.suffixes import stem_and_suffix
from mrc_xarray.text import json_text, printable, printable_lines
from mrc_xarray.units import factor, scaled
from mrc_xarray.writing.provenance import Provenance

__all__ = ["attrs_of", "metadata_of"]

# name and unit of an attribute, and name and unit in the metadata of a microscope
_VALUES = (
    ("voltage_kV", "kV", "beam_energy", "kV"),  # of electrons, in keV
    ("magnification", "", "magnification", ""),
    ("camera_length", "mm", "camera_length", "mm"),
    ("exposure_time", "s", "Camera.exposure", "s"),
    ("tilt_angle", "degree", "Stage.tilt_alpha", "degree"),
    ("tilt_beta", "degree", "Stage.tilt_beta", "degree"),
    ("stage_x", "um", "Stage.x", "mm"),
    ("stage_y", "um", "Stage.y", "mm"),
    ("stage_z", "um", "Stage.z", "mm"),
)
_MICROSCOPES = ("TEM", "SEM")
# the parts of original_metadata that only this package writes
_ATTRS, _COORDS, _METADATA = "attrs", "coords", "metadata"
# elements of an array in JSON; others are large
_MOST_ELEMENTS = 1000


def metadata_of(
    data: xr.DataArray, axes: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the ``metadata`` and ``original_metadata`` of a signal with these axes."""
    scalars = {str(name): c.item() for name, c in data.coords.items() if not c.ndim}
    values = scalars | {str(name): value for name, value in data.attrs.items()}
    metadata: dict[str, Any] = {}
    for name, unit, path, wanted in _VALUES:
        scale = factor(str(values.get(f"{name}_units", unit)), wanted) if unit else 1.0
        value = as_float(values.get(name))
        if scale is not None and math.isfinite(value):
            _set(metadata, f"Acquisition_instrument.TEM.{path}", scaled(value, scale))
    source = str(values.get("mrc_source", ""))
    title = values.get("title") or os.path.basename(stem_and_suffix(source)[0])
    _set(metadata, "General.title", str(title or (data.name if data.name != "data" else "") or ""))
    if source:
        _set(metadata, "General.original_filename", os.path.basename(source))
    date, _, time = str(values.get("time", "")).partition("T")
    if time:
        metadata["General"] |= {"date": date, "time": time.partition(".")[0]}
    is_pattern = has_patterns(axes) and data.dtype.kind != "c"
    # HyperSpy warns about the types of packages that are not installed
    is_known = is_pattern and importlib.util.find_spec("pyxem") is not None
    _set(metadata, "Signal.signal_type", "electron_diffraction" if is_known else "")
    return metadata, _original(data, {axis["name"] for axis in axes})


def _original(data: xr.DataArray, in_axes: set[str]) -> dict[str, Any]:
    coords = {
        str(name): {
            "dims": list(map(str, coord.dims)),
            "units": str(coord.attrs.get("units", "")),
            "values": coord.values if coord.ndim and _is_number(coord) else _plain(coord.values),
        }
        for name, coord in data.coords.items()
        if name not in in_axes
    }
    found = {
        # plain texts, since h5py stores no subclass of str
        _ATTRS: {
            str(name): str(value) if isinstance(value, str) else value
            for name, value in data.attrs.items()
        },
        _COORDS: coords,
        _METADATA: _as_tree(Provenance.of(data).metadata),
    }
    return {name: part for name, part in found.items() if part or name == _ATTRS}


def _is_number(coord: xr.DataArray) -> bool:
    return coord.dtype.kind in "iufb"


def _as_tree(value: Any) -> Any:
    """Return metadata of a file for HyperSpy, to which names that begin with _ mean signals."""
    if isinstance(value, Mapping):
        return {str(k).lstrip("_") or "value": _as_tree(part) for k, part in value.items()}
    return value


def attrs_of(signal: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a signal, which can be those that it was made from."""
    original = signal.get("original_metadata") or {}
    metadata = _plain(
        {k: v for k, v in (signal.get("metadata") or {}).items() if k != "_HyperSpy"}
    )
    for path, (name, function) in (signal.get("mapping") or {}).items():
        value = _at(original, path)
        if value is not None:
            _set(metadata, name, _plain(function(value) if function else value))
    found = _values(metadata)
    if _ATTRS in original and set(original) <= {_ATTRS, _COORDS, _METADATA}:
        own = dict(original[_ATTRS])
        # the user may have changed those that have no unit of their own
        names = own.keys() & found.keys() & {"title", "voltage_kV", "magnification"}
        return own | {name: found[name] for name in names}
    parts = {"metadata": metadata, "original_metadata": _plain(original)}
    stored = {name: part for name, part in parts.items() if part}
    return found | ({"mrc_metadata": json_text(stored)} if stored else {})


def _values(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that have names in this package."""
    attrs: dict[str, Any] = {}
    title = _at(metadata, "General.title")
    if isinstance(title, str) and title:
        attrs["title"] = printable_lines(title)
    for name, unit, path, wanted in _VALUES:
        places = (f"Acquisition_instrument.{microscope}.{path}" for microscope in _MICROSCOPES)
        value = next(
            (v for v in (_at(metadata, place) for place in places) if v is not None), None
        )
        scale = factor(wanted, unit) if unit else 1.0
        if scale is not None and math.isfinite(as_float(value)):
            attrs[name] = scaled(as_float(value), scale)
            # the name of a voltage has its unit
            attrs |= {f"{name}_units": unit} if unit and name != "voltage_kV" else {}
    return attrs


def _at(tree: Mapping[str, Any], path: str) -> Any:
    """Return what a tree has at a path of names; None if it has nothing there.

    Names are compared as HyperSpy does: ``exposure (s)`` is ``exposure_s``.
    """
    found: Any = tree
    for name in path.split("."):
        by_name = (
            {_slug(str(k)): v for k, v in found.items()} if isinstance(found, Mapping) else {}
        )
        found = by_name.get(_slug(name))
    return found


def _slug(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_")


def _set(tree: dict[str, Any], path: str, value: Any) -> None:
    *groups, name = path.split(".")
    for group in groups:
        if not isinstance(tree.get(group), dict):
            tree[group] = {}
        tree = tree[group]
    tree[name] = value


def _plain(value: Any) -> Any:
    """Return a value as JSON can store it, without empty parts; large arrays as a text."""
    if isinstance(value, Mapping):
        parts = ((printable(str(k)), _plain(part)) for k, part in value.items())
        return {name: part for name, part in parts if part not in (None, "", {})}
    if getattr(value, "size", 0) > _MOST_ELEMENTS:
        return f"array of {value.dtype} of shape {tuple(value.shape)}"
    if isinstance(value, np.ndarray | np.generic):
        is_time = value.dtype.kind in "mM"
        return _plain((value.astype(str) if is_time else value).tolist())
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, bytes):
        return printable_lines(value.decode(errors="replace"))
    if isinstance(value, str):
        return printable_lines(value)
    return value if value is None or isinstance(value, bool | int | float) else str(value)
