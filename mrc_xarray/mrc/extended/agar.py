"""AGAR: integers and floats for each section, and the older records of FEI, which are floats.

See ``docs/reference/format.md#agar``. NINT and NREAL are the numbers of integers and floats per
section.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mrc_xarray.errors import Problem
from mrc_xarray.metadata.columns import Column, Metadata
from mrc_xarray.mrc.extended.kind import (
    ExtendedHeader,
    SectionNumbers,
    nint_and_nreal,
    not_decoded,
    problem,
)
from mrc_xarray.mrc.extended.records import is_blank, is_tilt_series, take, take_all
from mrc_xarray.mrc.header import PLACES, Header

__all__ = ["AGAR", "LEGACY_FEI"]

# FEI reserved this many records of 32 floats, whatever NZ was
_FEI_FLOATS = 32
_FEI_SIZES = (1024 * 4 * _FEI_FLOATS, 8192 * 4 * _FEI_FLOATS)
# FEI wrote the size of a record in bytes as the number of integers
_FEI_NINT_BUG = 4 * _FEI_FLOATS

# IMOD's and FEI's records have up to some tens of numbers; with more, NINT and NREAL are garbage
_MOST_NUMBERS = 256
_FULL_TURN = 360.0  # degree
_LARGEST_PIXEL = 1e-3  # m

_FEI = {
    "tilt_angle": "degree",
    "tilt_beta": "degree",
    "stage_x": "m",
    "stage_y": "m",
    "stage_z": "m",
    "shift_x": "m",
    "shift_y": "m",
    "defocus": "m",
    "exposure_time": "s",
    "mean_intensity": "",
    "tilt_axis_angle": "degree",
    "pixel_size": "m",
    "magnification": "",
    "voltage": "V",
}
# beginnings of names; all numbers of one are in µm instead of m if one of them is larger than 1
_LENGTHS = frozenset({"stage", "shift", "defocus"})
# 0 means that the value is unknown
_POSITIVE = ("pixel_size", "magnification", "voltage")
# no microscope has so few volts, or so many kilovolts
_BETWEEN_KV_AND_V = 5000.0


def _is_kind(header: Header, extended_size: int) -> bool:
    """Return whether EXTTYP names this kind or, in old files without it, NINT and NREAL fit."""
    exttyp = header.exttyp.strip()
    if exttyp:
        return exttyp == "AGAR" or (exttyp == "SERI" and header.nint >= 0 <= header.nreal)
    return 0 < _record_size(header, b"") * header.nz <= extended_size


def _is_legacy_fei(header: Header, extended_size: int) -> bool:
    """Return whether these are records of FEI's older software, which did not write EXTTYP."""
    if header.exttyp.strip() not in ("", "AGAR"):
        return False
    is_labelled = header.label[0].startswith("Fei ")
    has_size = extended_size in _FEI_SIZES
    if header.nreal == _FEI_FLOATS and header.nint in (0, _FEI_NINT_BUG):
        # FEI may have written records of 32 floats to a file without its label, too
        is_agar = header.nint == 0 and _is_kind(header, extended_size)
        return is_labelled or has_size or is_agar
    return is_labelled and has_size


def _record_size(header: Header, raw: bytes) -> int:
    plausible = header.nint >= 0 <= header.nreal
    return 4 * (header.nint + header.nreal) if plausible else 0


def _matches(header: Header, raw: bytes) -> bool:
    """Return whether the first float of each record is the tilt angle of a series."""
    if not header.nreal or not 0 < _record_size(header, raw) <= 4 * _MOST_NUMBERS:
        return False
    return is_tilt_series(take_all(header, raw, _agar_dtype(header))["tilt_angle"])


def _matches_fei(header: Header, raw: bytes) -> bool:
    """Return whether the records have pixel size and magnification, or regular tilt angles."""
    table = take_all(header, raw, _fei_dtype(header))
    pixel_size, magnification = table["pixel_size"], table["magnification"]
    if len(table) and (magnification >= 1).all():
        is_size = (pixel_size > 0) & (pixel_size < _LARGEST_PIXEL)
        return bool((is_size & (magnification < np.inf)).all())
    return is_tilt_series(table["tilt_angle"])


def _decode(header: Header, raw: bytes, sections: SectionNumbers) -> Metadata:
    """Decode records whose first float is the tilt angle.

    The meaning of the other numbers is not known. Those that are 0 in all sections are left out.
    """
    if not 0 < _record_size(header, raw) <= 4 * _MOST_NUMBERS:
        return Metadata(problems=() if is_blank(raw) else (_bad_counts(header),))
    records = take(header, raw, _agar_dtype(header), sections)
    table = records.table
    if header.nreal and (bad := _bad_angles(table["tilt_angle"], len(raw))):
        return bad
    return records.metadata(
        Column(name, _native(table[name]), "degree" if name == "tilt_angle" else "")
        for name in table.dtype.names or ()
        if name == "tilt_angle" or table[name].any()
    )


def _decode_fei(header: Header, raw: bytes, sections: SectionNumbers) -> Metadata:
    records = take(header, raw, _fei_dtype(header), sections)
    table = records.table
    if bad := _bad_angles(table["tilt_angle"], len(raw)):
        return bad
    in_um = {name.partition("_")[0] for name in _FEI if (np.abs(table[name]) > 1).any()}
    in_um &= _LENGTHS
    found = f"of FEI, with values over 1 m for {', '.join(sorted(in_um))}"
    assumed = problem(len(raw), found, "lengths in m", "They are taken as µm.")
    units = {name: "um" for name in _FEI if name.partition("_")[0] in in_um}
    return records.metadata(_fei_columns(table, _FEI | units), (assumed,) if in_um else ())


def _agar_dtype(header: Header) -> np.dtype[Any]:
    integers = [(f"int_{number}", "i4") for number in range(header.nint)]
    floats = [
        (f"float_{number}" if number else "tilt_angle", "f4") for number in range(header.nreal)
    ]
    return np.dtype(integers + floats).newbyteorder(header.byteorder)


def _fei_dtype(header: Header) -> np.dtype[Any]:
    names = [*_FEI, *(f"unused_{number}" for number in range(len(_FEI), _FEI_FLOATS))]
    return np.dtype([(name, header.byteorder + "f4") for name in names])


def _fei_columns(table: np.ndarray[Any, Any], units: Mapping[str, str]) -> Iterator[Column]:
    for name, unit in units.items():
        values = _native(table[name])
        if name in _POSITIVE:
            values[~(values > 0)] = np.nan
            if np.isnan(values).all():
                continue
        is_in_kv = name == "voltage" and np.nanmax(values) < _BETWEEN_KV_AND_V
        yield Column(name, values, "kV" if is_in_kv else unit)


def _native(stored: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return stored.astype(np.int64 if stored.dtype.kind == "i" else np.float64)


def _bad_angles(angles: np.ndarray[Any, Any], size: int) -> Metadata | None:
    """Return the problem of tilt angles that are impossible, so that these are not records."""
    impossible = angles[~(np.abs(angles) <= _FULL_TURN)]
    if not len(impossible):
        return None
    found, accepted = (
        f"invalid: it has a tilt angle of {impossible[0]:g}",
        f"tilt angles within ±{_FULL_TURN:g}°",
    )
    return not_decoded(size, found, accepted)


def _bad_counts(header: Header) -> Problem:
    return Problem(
        "extended-header",
        "NINT, NREAL",
        f"{header.nint}, {header.nreal}",
        f"the numbers of integers and floats per section, 1 to {_MOST_NUMBERS} in all",
        "They are not decoded; the bytes are at ds.mrc.extended_header.",
        offset=PLACES["NINT"][0],
        nbytes=4,
    )


AGAR = ExtendedHeader(
    name="AGAR",
    is_kind=_is_kind,
    decode=_decode,
    matches=_matches,
    record_size=_record_size,
    is_per_section=True,
    word_size=4,
    counts=nint_and_nreal,
)
LEGACY_FEI = ExtendedHeader(
    name="FEI",
    is_kind=_is_legacy_fei,
    decode=_decode_fei,
    matches=_matches_fei,
    record_size=lambda header, raw: 4 * _FEI_FLOATS,
    is_per_section=True,
    word_size=4,
    exttyp="AGAR",
    counts=lambda header: {"nint": 0, "nreal": _FEI_FLOATS},
)
