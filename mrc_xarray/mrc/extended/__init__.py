"""Extended headers: what stands between the main header and the pixels.

See FORMAT: extended headers. A new kind is one row of `EXTENDED` and one small file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from mrc_xarray.errors import Problem
from mrc_xarray.metadata.columns import Metadata
from mrc_xarray.mrc.checks import STANDARD_EXTTYPS
from mrc_xarray.mrc.extended import agar, ccp4, fei, mrcz, seri
from mrc_xarray.mrc.header import Header, header_problem

__all__ = [
    "EXTENDED",
    "Reader",
    "has_records",
    "is_there",
    "kind",
    "most",
    "pixel_size",
    "read",
    "record_size",
]


class Reader(NamedTuple):
    """How an extended header of one kind is read.

    Attributes
    ----------
    read : callable
        From the header, the extended header's bytes and the numbers of sections (None: all)
        to `Metadata`.
    record_size : callable
        From the header and the extended header's first bytes to the bytes of a section's record.
    looks_like : callable
        From the header and the extended header, or its beginning, to whether the bytes are
        records of this kind, and not pixels, by their contents. False if that can't be decided.
    is_per_section : bool
        Whether there is a record for each section.
    most : int
        Bytes of records that are decoded when a file is opened. More would need too much memory.
    """

    read: Callable[[Header, bytes, np.ndarray[Any, Any] | None], Metadata]
    record_size: Callable[[Header, bytes], int]
    looks_like: Callable[[Header, bytes], bool]
    is_per_section: bool = True
    most: int = 4 * 1024**2


EXTENDED: dict[str, Reader] = {
    "FEI1": Reader(fei.read, fei.record_size, fei.looks_like, most=fei.MOST),
    "FEI2": Reader(fei.read, fei.record_size, fei.looks_like, most=fei.MOST),
    "SERI": Reader(seri.read, seri.record_size, seri.looks_like),
    "AGAR": Reader(agar.read, agar.record_size, agar.looks_like),
    "FEI": Reader(agar.read_fei, agar.record_size_fei, agar.looks_like_fei),
    "CCP4": Reader(ccp4.read, ccp4.record_size, ccp4.looks_like, is_per_section=False),
    mrcz.KIND: Reader(mrcz.read, mrcz.record_size, mrcz.looks_like, is_per_section=False),
}


def kind(header: Header, extended_size: int) -> str | None:
    """Tell what the extended header is.

    Parameters
    ----------
    header : Header
    extended_size : int
        Bytes of the extended header that are really there.

    Returns
    -------
    str or None
        A key of `EXTENDED` ("FEI" is what FEI wrote before FEI1), "json", or another EXTTYP as
        the file has it, empty where it has none. None where there is no extended header.
    """
    if extended_size <= 0:
        return None
    exttyp = header.exttyp.strip()
    if exttyp.lower() == mrcz.KIND:
        return mrcz.KIND
    # where CCP4's skew matrix is, there are neither EXTTYP nor NINT and NREAL
    is_skewed = header.lskflg == 1 and not header.has_imod_stamp and exttyp not in EXTENDED
    if is_skewed:
        return _without_records(extended_size)
    if exttyp in ("", "AGAR") and agar.is_fei(header, extended_size):
        return "FEI"
    if exttyp == "SERI":
        # as IMOD does it; where neither fits, SERI's reader says what is wrong
        is_agar = not seri.is_seri(header) and header.nint >= 0 <= header.nreal
        return "AGAR" if is_agar else "SERI"
    if exttyp:
        return exttyp
    # old SerialEM's and Agard's files say so by NINT and NREAL alone
    for name, fits in (("SERI", seri.is_seri(header)), ("AGAR", True)):
        size = EXTENDED[name].record_size(header, b"")
        if fits and 0 < size * header.nz <= extended_size:
            return name
    return _without_records(extended_size)


def has_records(header: Header, extended_size: int) -> bool:
    """Tell whether the extended header has one record a section."""
    reader = EXTENDED.get(kind(header, extended_size) or "")
    return reader is not None and reader.is_per_section


def is_there(header: Header, raw: bytes) -> bool:
    """Return whether the bytes after the main header are records of the kind that it names.

    Parameters
    ----------
    header : Header
    raw : bytes
        The NSYMBT bytes after the main header, or the first of them.

    Returns
    -------
    bool
        Also False if records of this kind can't be distinguished from pixels.
    """
    reader = EXTENDED.get(kind(header, header.nsymbt) or "")
    # garbage is full of infinities and NaNs
    with np.errstate(all="ignore"):
        return reader is not None and reader.looks_like(header, raw)


def most(header: Header, extended_size: int) -> int:
    """Return how many bytes of the extended header are decoded at most when a file is opened."""
    reader = EXTENDED.get(kind(header, extended_size) or "")
    return 0 if reader is None else reader.most


def record_size(header: Header, raw: bytes, *, extended_size: int | None = None) -> int:
    """Return the bytes of one section's record.

    Parameters
    ----------
    header : Header
    raw : bytes
        The extended header, or its first bytes, 4 or more.
    extended_size : int, optional
        As for `read`.

    Returns
    -------
    int
        0 where there is no record a section, or its size makes no sense.
    """
    reader = EXTENDED.get(_kind(header, raw, extended_size) or "")
    return 0 if reader is None else reader.record_size(header, raw)


def read(
    header: Header,
    raw: bytes,
    sections: np.ndarray[Any, Any] | None = None,
    *,
    extended_size: int | None = None,
) -> Metadata:
    """Decode an extended header.

    Parameters
    ----------
    header : Header
    raw : bytes
        The extended header from its beginning on, at least as far as the last record wanted.
    sections : ndarray of int, shape (n_sections,), optional
        Numbers of sections in the file; all NZ where left out.
    extended_size : int, optional
        Bytes of the whole extended header that are really there; where left out, as NSYMBT says
        and `raw` confirms.

    Returns
    -------
    Metadata
        Columns of shape (n_sections,). Whatever the bytes are, nothing is raised.
    """
    name = _kind(header, raw, extended_size)
    if name is None:
        return Metadata()
    reader = EXTENDED.get(name)
    if reader is None:
        return Metadata(problems=(_unknown(header),))
    # garbage is full of infinities and NaNs
    with np.errstate(all="ignore"):
        return reader.read(header, raw, sections)


def pixel_size(
    header: Header, raw: bytes, *, extended_size: int | None = None
) -> tuple[float, float, str] | None:
    """Return the pixel size that the first section's record tells.

    Parameters
    ----------
    header, raw, extended_size
        As for `read`; the first record suffices.

    Returns
    -------
    x, y : float
    units : {"m", "1/m"}
        The latter in diffraction.

    None is returned where there is no pixel size, or it is not a finite positive number, or it
    is not clear in which of the units it is.
    """
    found = read(header, raw, np.zeros(1, np.int64), extended_size=extended_size).values
    x, y = (found.get(f"pixel_size_{axis}", found.get("pixel_size")) for axis in "xy")
    if x is None or y is None or x.units != y.units or not x.units:
        return None
    if not (0 < x.value < np.inf and 0 < y.value < np.inf):
        return None
    return x.value, y.value, x.units


def _kind(header: Header, raw: bytes, extended_size: int | None) -> str | None:
    if extended_size is None:
        extended_size = max(header.nsymbt, len(raw)) if raw else 0
    return kind(header, extended_size)


def _without_records(extended_size: int) -> str:
    return "" if extended_size % ccp4.RECORD else "CCP4"


def _unknown(header: Header) -> Problem:
    known = ", ".join(name for name in EXTENDED if name not in ("FEI", mrcz.KIND))
    return header_problem(
        "not-decoded" if header.exttyp in STANDARD_EXTTYPS else "exttyp",
        "EXTTYP",
        repr(header.exttyp),
        f"{known} or json, whose contents are known",
        "The extended header is not decoded; its bytes are at ds.mrc.extended_header.",
    )
