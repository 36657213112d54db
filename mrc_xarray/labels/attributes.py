"""The attributes of labelled data: names, accepted values, and how they are made.

Attributes pass through arithmetic, and through netCDF and Zarr files that anyone may have made.
They are data, and nothing is opened because an attribute names it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any

import numpy as np

from mrc_xarray.labels.source_name import SourceName
from mrc_xarray.labels.spacing import SECTION_SPACING, as_float
from mrc_xarray.metadata.columns import Value
from mrc_xarray.recording import Recording
from mrc_xarray.safe_json import decode_json
from mrc_xarray.storage import ByteSource, StreamSource
from mrc_xarray.text import json_text, printable, printable_lines
from mrc_xarray.units import converted

__all__ = [
    "ATTRS_WITH_UNIT",
    "COORDINATE_ATTRS",
    "OWN_ATTRS",
    "attrs_of",
    "printable_attrs",
    "recording_attrs",
]

#: Attributes that have their unit in their name, by what they are.
ATTRS_WITH_UNIT = {"voltage": "voltage_kV", "c3": "c3_mm", "gain": "gain_e_per_DN"}
# longest text that is not JSON, in characters
_LONGEST_TEXT = 2**14


def recording_attrs(recording: Recording, source: ByteSource) -> dict[str, Any]:
    """Return the attributes of ``data``: flat values of types that netCDF and Zarr store."""
    # a path can contain control characters
    name = SourceName(printable(recording.name), source, recording.extended_range)
    attrs: dict[str, Any] = {"mrc_source": name, **recording.attrs}
    if recording.section_spacing is not None:
        attrs[SECTION_SPACING] = recording.section_spacing
    if isinstance(source, StreamSource):
        attrs["mrc_stream"] = source.stream.codec
    if recording.problems:
        repairs = [problem.message(recording.name) for problem in recording.problems]
        attrs["mrc_repairs"] = json.dumps(repairs)
    if recording.metadata is not None:
        attrs["mrc_metadata"] = json_text(recording.metadata)
    return printable_attrs(attrs | attrs_of(recording.values))


def attrs_of(values: Mapping[str, Value]) -> dict[str, Any]:
    """Return the attributes for values of a file; units are attributes of their own."""
    attrs: dict[str, Any] = {}
    for name, found in values.items():
        value, unit = converted(name, found.value, found.units)
        if name in ATTRS_WITH_UNIT:
            attrs[ATTRS_WITH_UNIT[name]] = float(value)
            continue
        if isinstance(value, np.datetime64):
            attrs[name] = str(value)
        else:
            attrs[name] = int(value) if isinstance(value, bool) else value
        if unit:
            attrs[f"{name}_units"] = unit
    return attrs


def printable_attrs(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes without control characters in names and texts."""
    return {
        printable(name): printable_lines(value) if type(value) is str else value
        for name, value in attrs.items()
    }


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_TEXT


def _is_count(value: object) -> bool:
    return isinstance(value, Integral) and 0 <= int(value) < 2**31


def _is_number(value: object) -> bool:
    return abs(as_float(value)) <= float(np.finfo(np.float32).max)


def _is_step(value: object) -> bool:
    return 0 < as_float(value) < math.inf


def _is_json(kind: type) -> Callable[[object], bool]:
    def is_json(value: object) -> bool:
        try:
            return isinstance(value, str) and isinstance(decode_json(value), kind)
        except ValueError:
            return False

    return is_json


#: For each attribute that the engine sets, a function that checks whether a value is possible.
OWN_ATTRS: dict[str, Callable[[object], bool]] = {
    "mrc_header": _is_json(dict),
    "mrc_metadata": _is_json(dict),
    "mrc_repairs": _is_json(list),
    "mrc_source": _is_text,
    "mrc_layout": _is_text,
    "mrc_layout_rule": _is_text,
    "mrc_stream": _is_text,
    "mrc_extended_bytes": _is_count,
    "mode0_assumption": _is_text,
    SECTION_SPACING: _is_step,
    "mrcz_codec": _is_text,
    "mrcz_chunk_version": _is_count,
    "mrcz_blocks": _is_count,
    "mrcz_ratio": _is_number,
    "voltage_kV": _is_number,
    "c3_mm": _is_number,
    "gain_e_per_DN": _is_number,
}
#: The same for the attributes of spatial coordinates.
COORDINATE_ATTRS: dict[str, Callable[[object], bool]] = {
    "spacing": _is_step,
    "units": _is_text,
}
