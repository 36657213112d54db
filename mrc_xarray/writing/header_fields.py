"""The header fields that can be edited, and the values that they accept."""

from __future__ import annotations

import math
import operator
from typing import Any, NamedTuple

from mrc_xarray.mrc.header import PLACES, XYZ, Header

__all__ = ["FIELDS", "EditableField", "typed"]


class EditableField(NamedTuple):
    """The type of a header field.

    `kind` is int, float, str or bytes. `n` is the number of values if the field is a tuple of
    them, else the length of the one value.
    """

    kind: type
    n: int
    is_tuple: bool


def _field(name: str) -> EditableField:
    annotation = str(Header.__dataclass_fields__[name].type)
    kinds = {"int": int, "str": str, "bytes": bytes, "tuple[str, ...]": str}
    kind, nbytes = kinds.get(annotation, float), PLACES[name.upper()][1]
    is_tuple = annotation == "XYZ" or annotation.startswith("tuple")
    n = nbytes // (80 if kind is str else 4) if is_tuple else nbytes
    return EditableField(kind, n, is_tuple)


#: By name, in the order of the header.
FIELDS = {name.lower(): _field(name.lower()) for name in PLACES}


def typed(name: str, value: Any) -> Any:
    """Return a value of the type that a field has; raise TypeError if it can't be one."""
    kind, n, is_tuple = FIELDS[name]
    try:
        if kind is str and is_tuple:
            return _labels(value, n)
        if kind is str:
            # blanks as in "MAP "; an empty text means an unset field
            return (text := _text(value, n)) and text.ljust(n)
        if kind is bytes:
            return _bytes(value, n)
        if kind is int:
            return operator.index(value)
        return _floats(value, n) if is_tuple else _finite(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} is {value!r}: {error}") from None


def _finite(value: Any) -> float:
    if not math.isfinite(value):
        raise TypeError("accepted: finite numbers")
    return float(value)


def _floats(value: Any, n: int) -> tuple[float, ...]:
    if isinstance(value, str) or len(value) != n:
        raise TypeError(f"accepted: {n} numbers")
    numbers = tuple(map(_finite, value))
    return XYZ(*numbers) if n == len(XYZ._fields) else numbers


def _bytes(value: Any, length: int) -> bytes:
    if not isinstance(value, bytes) or len(value) != length:
        raise TypeError(f"accepted: {length} bytes")
    return value


def _labels(value: Any, n: int) -> tuple[str, ...]:
    if isinstance(value, str) or len(value) > n:
        raise TypeError(f"accepted: up to {n} texts")
    return (*map(_text, value), *[""] * (n - len(value)))


def _text(value: Any, longest: int = 80) -> str:
    if not isinstance(value, str) or len(value) > longest or not value.isprintable():
        raise TypeError(f"accepted: a printable text of up to {longest} characters")
    return value
