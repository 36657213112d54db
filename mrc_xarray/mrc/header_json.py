"""A header as JSON: the fields whose bytes differ from those of an empty header.

Attributes with this JSON are looked at, and can come from anyone. All values that earlier versions
wrote are read as well: every field, with bytes as Latin-1 text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from mrc_xarray.mrc.fields import FIELDS, Field, Fields

__all__ = ["every_field", "fields_that_differ", "packed"]

_STANDARD = [field for field in FIELDS if not field.dialect]
_LABEL_SIZE = 80
# bytes that are not zero, with a few zeros between them
_RUNS = re.compile(rb"[^\0]+(?:\0{1,4}[^\0]+)*")
# fewer blanks at the end of a label are written as they are
_FEW_BLANKS = 8


def fields_that_differ(header: Fields, empty: Fields) -> dict[str, Any]:
    """Return the byte order and the fields that differ from those of `empty`, as JSON has them.

    Bytes, and texts that contain a NUL, are a mapping of the place of a byte in the header to
    hexadecimal digits, without zeros. A label that is padded with blanks is a list of the text
    and its length with the blanks. Labels after the last one are left out.
    """
    found, others = vars(header), vars(empty)
    values = {"byteorder": found["byteorder"]}
    for field in _STANDARD:
        value = found[field.name]
        # as text, since −0 equals 0
        if repr(value) != repr(others[field.name]):
            values[field.name] = _short(value, field.offset)
    return values


def every_field(header: Fields) -> dict[str, Any]:
    """Return all fields of all dialects, with bytes as Latin-1 text and NaN as "nan"."""
    return {name: _plain(header[name]) for name in header}


def packed(values: Mapping[str, Any], empty: bytes) -> bytearray:
    """Return the bytes of a header that JSON describes, whose other fields are those of `empty`.

    Raises KeyError, OverflowError, TypeError, ValueError or struct.error for anything else.
    """
    raw = bytearray(empty)
    for field in _STANDARD:
        if field.name in values:
            value = _value(values[field.name], field)
            field.pack(raw, {"byteorder": values["byteorder"], field.name: value})
    return raw


def _short(value: Any, offset: int) -> Any:
    if isinstance(value, bytes) or (isinstance(value, str) and "\0" in value):
        encoded = value.encode("latin-1") if isinstance(value, str) else value
        return {str(offset + run.start()): run[0].hex() for run in _RUNS.finditer(encoded)}
    if isinstance(value, str):
        text = value.rstrip(" ")
        return [text, len(value)] if len(value) - len(text) >= _FEW_BLANKS else value
    if isinstance(value, tuple) and isinstance(value[0], str):
        n_used = max(n for n, text in enumerate(value, 1) if text)
        return [_short(text, offset + _LABEL_SIZE * n) for n, text in enumerate(value[:n_used])]
    if isinstance(value, float) and math.isnan(value):
        # with its sign, which Python's text of a NaN lacks
        return "-nan" if math.copysign(1, value) < 0 else "nan"
    if isinstance(value, float) and math.isfinite(value):
        # the shortest decimal number with the same float32
        return value if value.is_integer() else float(str(np.float32(value)))
    return [_short(v, offset) for v in value] if isinstance(value, tuple) else _plain(value)


def _plain(value: Any) -> Any:
    """Return a value that strict JSON can store."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


def _value(stored: Any, field: Field) -> Any:
    """Return the value of a field in one of the forms of `_short` or `_plain`."""
    if field.name == "label":
        texts = [
            _text(text, field.offset + _LABEL_SIZE * n, _LABEL_SIZE)
            for n, text in enumerate(stored)
        ]
        return [*texts, *[""] * (field.nbytes // _LABEL_SIZE - len(texts))]
    return _text(stored, field.offset, field.nbytes)


def _text(stored: Any, offset: int, nbytes: int) -> Any:
    if isinstance(stored, dict):
        raw = bytearray(nbytes)
        for place, digits in stored.items():
            run, start = bytes.fromhex(digits), int(place) - offset
            if not 0 <= start <= nbytes - len(run):
                raise ValueError(f"byte {place} is outside of the field")
            raw[start : start + len(run)] = run
        return bytes(raw)
    match stored:
        case [str(text), int(length)]:
            if not len(text) <= length <= nbytes:
                raise ValueError(f"a text of {length} characters")
            return text.ljust(length)
    return stored
