"""AGAR: integers and floats for each section; and FEI's of that kind, from before FEI1.

See FORMAT: AGAR / legacy FEI. NINT and NREAL are how many integers and floats a section has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from mrc_xarray.errors import Problem
from mrc_xarray.metadata.columns import Column, Metadata
from mrc_xarray.mrc.extended.records import is_blank, is_for_all, is_tilt_series, problem, take
from mrc_xarray.mrc.header import PLACES, Header

__all__ = [
    "is_fei",
    "looks_like",
    "looks_like_fei",
    "read",
    "read_fei",
    "record_size",
    "record_size_fei",
]

# FEI reserved this many records of 32 floats, whatever NZ was
_FEI_FLOATS = 32
_FEI_SIZES = (1024 * 4 * _FEI_FLOATS, 8192 * 4 * _FEI_FLOATS)
# the bytes of a record, which FEI wrote where the number of integers belongs
_FEI_NINT_BUG = 4 * _FEI_FLOATS

# IMOD's and FEI's records have up to some tens of numbers; with more, NINT and NREAL are garbage
_MOST_NUMBERS = 256
_FULL_TURN = 360.0  # degree
_LARGEST_PIXEL = 1e-3  # m


class _Float(NamedTuple):
    """A float of FEI's record.

    Those of one `quantity` are in µm, and not in m, where one of them is larger than 1.
    """

    name: str
    units: str = ""
    quantity: str = ""
    # 0 is what nobody wrote
    is_positive: bool = False


_FEI: tuple[_Float, ...] = (
    _Float("tilt_angle", "degree"),
    _Float("tilt_beta", "degree"),
    _Float("stage_x", "m", "stage"),
    _Float("stage_y", "m", "stage"),
    _Float("stage_z", "m", "stage"),
    _Float("shift_x", "m", "shift"),
    _Float("shift_y", "m", "shift"),
    _Float("defocus", "m", "defocus"),
    _Float("exposure_time", "s"),
    _Float("mean_intensity"),
    _Float("tilt_axis_angle", "degree"),
    _Float("pixel_size", "m", is_positive=True),
    _Float("magnification", is_positive=True),
    _Float("voltage", "V", is_positive=True),
)
# in V no microscope has as little, in kV none as much
_BETWEEN_KV_AND_V = 5000.0


def is_fei(header: Header, extended_size: int) -> bool:
    """Tell whether FEI's software wrote these records, before there was EXTTYP."""
    is_labelled = header.label[0].startswith("Fei ")
    if header.nreal == _FEI_FLOATS and header.nint in (0, _FEI_NINT_BUG):
        return is_labelled or extended_size in _FEI_SIZES
    return is_labelled and extended_size in _FEI_SIZES


def record_size(header: Header, raw: bytes) -> int:
    """Return the bytes a section, 0 where NINT and NREAL make no sense."""
    plausible = header.nint >= 0 <= header.nreal
    return 4 * (header.nint + header.nreal) if plausible else 0


def record_size_fei(header: Header, raw: bytes) -> int:
    """Return the bytes a section."""
    return 4 * _FEI_FLOATS


def looks_like(header: Header, raw: bytes) -> bool:
    """Return whether the first float of each record is the tilt angle of a series."""
    if (header.nint, header.nreal) == (0, _FEI_FLOATS):
        return looks_like_fei(header, raw)
    size = record_size(header, raw)
    if not header.nreal or size > 4 * _MOST_NUMBERS or not is_for_all(header, size):
        return False
    return is_tilt_series(take(header, raw, _agar_dtype(header), None).table["tilt_angle"])


def looks_like_fei(header: Header, raw: bytes) -> bool:
    """Return whether the records have pixel size and magnification, or regular tilt angles."""
    if not is_for_all(header, record_size_fei(header, raw)):
        return False
    table = take(header, raw, _fei_dtype(header), None).table
    pixel_size, magnification = table["pixel_size"], table["magnification"]
    if len(table) and (magnification >= 1).all():
        is_size = (pixel_size > 0) & (pixel_size < _LARGEST_PIXEL)
        return bool((is_size & (magnification < np.inf)).all())
    return is_tilt_series(table["tilt_angle"])


def read(header: Header, raw: bytes, sections: np.ndarray[Any, Any] | None) -> Metadata:
    """Decode the records of some sections; see `mrc_xarray.mrc.extended.read`.

    The first float is the tilt angle. What the other numbers are is not known, and those that
    are 0 in all sections are left out.
    """
    if not 0 < record_size(header, raw) <= 4 * _MOST_NUMBERS:
        return Metadata(problems=() if is_blank(raw) else (_bad_counts(header),))
    if (header.nint, header.nreal) == (0, _FEI_FLOATS):
        return read_fei(header, raw, sections)
    records = take(header, raw, _agar_dtype(header), sections)
    table = records.table
    if header.nreal and (bad := _bad_angles(table["tilt_angle"], len(raw))):
        return Metadata(problems=(bad,))
    return records.gather(
        Column(name, _native(table[name]), "degree" if name == "tilt_angle" else "")
        for name in table.dtype.names or ()
        if name == "tilt_angle" or table[name].any()
    )


def read_fei(header: Header, raw: bytes, sections: np.ndarray[Any, Any] | None) -> Metadata:
    """Decode the records of FEI's floats; see `mrc_xarray.mrc.extended.read`."""
    records = take(header, raw, _fei_dtype(header), sections)
    if bad := _bad_angles(records.table["tilt_angle"], len(raw)):
        return Metadata(problems=(bad,))
    in_um = {
        field.quantity
        for field in _FEI
        if field.quantity and (np.abs(records.table[field.name]) > 1).any()
    }
    assumed = problem(
        len(raw),
        f"of FEI, with values over 1 m for {', '.join(sorted(in_um))}",
        "lengths in m",
        "They are taken as µm.",
    )
    return records.gather(_fei_columns(records.table, in_um), (assumed,) if in_um else ())


def _agar_dtype(header: Header) -> np.dtype[Any]:
    names = [f"int_{number}" for number in range(header.nint)]
    names += ["tilt_angle"][: header.nreal]
    names += [f"float_{number}" for number in range(1, header.nreal)]
    codes = [header.byteorder + "i4"] * header.nint + [header.byteorder + "f4"] * header.nreal
    return np.dtype(list(zip(names, codes, strict=True)))


def _fei_dtype(header: Header) -> np.dtype[Any]:
    names = [field.name for field in _FEI]
    return np.dtype(
        {
            "names": names,
            "formats": [header.byteorder + "f4"] * len(names),
            "offsets": list(range(0, 4 * len(names), 4)),
            "itemsize": 4 * _FEI_FLOATS,
        }
    )


def _fei_columns(table: np.ndarray[Any, Any], in_um: set[str]) -> Iterator[Column]:
    for field in _FEI:
        values, units = _native(table[field.name]), field.units
        if field.is_positive:
            values[~(values > 0)] = np.nan
            if np.isnan(values).all():
                continue
        if field.quantity in in_um:
            units = "um"
        if field.name == "voltage" and np.nanmax(values) < _BETWEEN_KV_AND_V:
            units = "kV"
        yield Column(field.name, values, units)


def _native(stored: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return stored.astype(np.int64 if stored.dtype.kind == "i" else np.float64)


def _bad_angles(angles: np.ndarray[Any, Any], size: int) -> Problem | None:
    """Tell by the tilt angles where the extended header holds something else."""
    if (np.abs(angles) <= _FULL_TURN).all():
        return None
    worst = angles[~(np.abs(angles) <= _FULL_TURN)][0]
    return problem(
        size,
        f"with a tilt angle of {worst:g}",
        f"angles within ±{_FULL_TURN:g}°, as NINT and NREAL promise floats",
        "It is taken as something else; its bytes are at ds.mrc.extended_header.",
    )


def _bad_counts(header: Header) -> Problem:
    return Problem(
        "extended-header",
        "NINT, NREAL",
        f"{header.nint}, {header.nreal}",
        f"the numbers of integers and floats a section, 1 to {_MOST_NUMBERS} in all",
        "They are not decoded; the bytes are at ds.mrc.extended_header.",
        offset=PLACES["NINT"][0],
        nbytes=4,
    )
