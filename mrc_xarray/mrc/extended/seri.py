"""SERI: the shorts that SerialEM writes for each section, as announced by flags.

See ``docs/reference/format.md#seri``. NINT is the number of bytes per section, NREAL the flags.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from mrc_xarray.metadata.columns import Column, Metadata
from mrc_xarray.mrc.extended.kind import (
    Editable,
    ExtendedHeader,
    SectionNumbers,
    nint_and_nreal,
    not_decoded,
)
from mrc_xarray.mrc.extended.records import (
    as_integers,
    finite,
    is_blank,
    is_tilt_series,
    take,
    take_all,
)
from mrc_xarray.mrc.header import Header

__all__ = ["SERI", "has_flags"]


class _Number(NamedTuple):
    """A number of a record: the bit of its flag, how it is stored, and its scale."""

    bit: int
    name: str
    code: str
    scale: Fraction | None = None  # None: as it is stored
    units: str = ""


_N_FLAGS = 11
# of a float in two shorts
_MANTISSA_BITS = 23
_NUMBERS = (
    _Number(0, "tilt_angle", "i2", Fraction(1, 100), "degree"),
    _Number(1, "piece_x", "u2", None, "pixel"),
    _Number(1, "piece_y", "u2", None, "pixel"),
    _Number(1, "piece_z", "i2"),
    _Number(2, "stage_x", "i2", Fraction(1, 25), "um"),
    _Number(2, "stage_y", "i2", Fraction(1, 25), "um"),
    _Number(3, "magnification", "i2", Fraction(100)),
    _Number(4, "intensity", "i2", Fraction(1, 25000)),
    _Number(5, "dose", "(2,)i2", None, "e/angstrom^2"),
    *(_Number(bit, f"reserved_{bit}", "V4" if bit % 2 else "V2") for bit in range(6, _N_FLAGS)),
)


def has_flags(header: Header) -> bool:
    """Return whether NINT and NREAL are SerialEM's, and not counts of integers and floats."""
    return 0 <= header.nreal < 2**_N_FLAGS and _dtype(header).itemsize == header.nint


def _is_kind(header: Header, extended_size: int) -> bool:
    """Return whether SerialEM wrote the records; old files contain only NINT and NREAL."""
    if header.exttyp.strip():
        # as in IMOD; if the numbers fit neither kind, `_decode` reports that
        are_counts = header.nint >= 0 <= header.nreal
        return header.exttyp.strip() == "SERI" and (has_flags(header) or not are_counts)
    return has_flags(header) and 0 < header.nint * header.nz <= extended_size


def _record_size(header: Header, raw: bytes) -> int:
    return header.nint if has_flags(header) else 0


def _matches(header: Header, raw: bytes) -> bool:
    """Return whether these records have one magnification, or regular tilt angles.

    SerialEM fills the rest of the extended header with zeros.
    """
    size = _record_size(header, raw)
    end = size * header.nz
    if not size or not is_blank(raw[end:]):
        return False
    table = take_all(header, raw[:end], _dtype(header))
    columns = {column.name: column.values for column in _columns(header, table)}
    magnification, angles = columns.get("magnification"), columns.get("tilt_angle")
    if magnification is not None and len(table) > 1:
        # if all records are equal, they may be the pixels of a uniform image
        is_one = magnification[0] > 0 and bool((magnification == magnification[0]).all())
        return is_one and bool((table != table[0]).any())
    return angles is not None and is_tilt_series(angles)


def _decode(header: Header, raw: bytes, sections: SectionNumbers) -> Metadata:
    if _record_size(header, raw):
        records = take(header, raw, _dtype(header), sections)
        return records.metadata(_columns(header, records.table))
    if is_blank(raw):
        return Metadata()
    found = f"of SerialEM's kind, with NINT {header.nint} and NREAL {header.nreal}"
    accepted = "the bytes per section in NINT, and the flags of their contents in NREAL"
    return not_decoded(len(raw), found, accepted)


def _numbers(header: Header) -> list[_Number]:
    return [number for number in _NUMBERS if header.nreal >> number.bit & 1]


def _dtype(header: Header) -> np.dtype[Any]:
    fields = [(number.name, np.dtype(number.code)) for number in _numbers(header)]
    return np.dtype(fields).newbyteorder(header.byteorder)


def _columns(header: Header, table: np.ndarray[Any, Any]) -> Iterator[Column]:
    for number in _numbers(header):
        if number.code.startswith("V"):
            continue
        values = table[number.name]
        if number.name == "dose":
            values = _float_of_shorts(values)
        elif number.scale is None:
            values = values.astype(np.int64)
        else:
            # the nearest float to the true quotient
            values = values * float(number.scale.numerator) / number.scale.denominator
        yield Column(number.name, values, number.units)


def _float_of_shorts(stored: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the floats that SerialEM stores in two shorts, of shape (n_sections, 2).

    The sign of the first short is the sign of the number, that of the second its exponent's.
    """
    first, second = stored.astype(np.int64).T
    mantissa = np.abs(first) * 256 + np.abs(second) % 256
    exponent = np.sign(second) * (np.abs(second) // 256)
    values: np.ndarray[Any, Any] = np.ldexp(np.copysign(mantissa, first), exponent)
    return values


def _shorts_of_float(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return floats as `_float_of_shorts` reads them, shape (n_sections, 2)."""
    fraction, exponent = np.frexp(np.abs(values).astype(np.float64))
    mantissa = np.rint(np.ldexp(fraction, _MANTISSA_BITS)).astype(np.int64)
    is_rounded_up = mantissa >> _MANTISSA_BITS > 0
    mantissa, exponent = mantissa >> is_rounded_up, exponent + is_rounded_up - _MANTISSA_BITS
    if (np.abs(exponent[mantissa > 0]) >= 2**7).any():
        raise ValueError("numbers with an absolute value of 0, or of about 1e-31 to 1e45")
    exponent = np.where(mantissa > 0, exponent, 0)
    second = np.abs(exponent) * 256 + mantissa % 256
    first = np.copysign(mantissa // 256, values)
    return np.stack([first, np.where(exponent < 0, -second, second)], axis=-1)


def _editable(header: Header, raw: bytes) -> Editable | None:
    if not _record_size(header, raw):
        return None
    numbers = {n.name: n for n in _numbers(header) if not n.code.startswith("V")}

    def store(table: np.ndarray[Any, Any], name: str, values: np.ndarray[Any, Any]) -> None:
        number, stored = numbers[name], table[name]
        if name == "dose":
            stored[:] = _shorts_of_float(finite(values))
        elif number.scale is None:
            stored[:] = as_integers(values, stored.dtype)
        else:
            scaled = finite(values) / float(number.scale.numerator) * number.scale.denominator
            stored[:] = as_integers(scaled, stored.dtype, rounds=True)

    units = {name: number.units for name, number in numbers.items()}
    return Editable(dtype=_dtype(header), units=units, store=store)


SERI = ExtendedHeader(
    name="SERI",
    is_kind=_is_kind,
    decode=_decode,
    matches=_matches,
    record_size=_record_size,
    is_per_section=True,
    word_size=2,
    counts=nint_and_nreal,
    editable=_editable,
)
