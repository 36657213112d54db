"""Bytes 96 to 195 of a new header: what the source has there, and what this package stores there.

MRC2014 leaves most of these bytes free. See ``docs/reference/format.md#header`` for the programs
that store their own fields in them.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mrc_xarray.labels.attributes import ATTRS_WITH_UNIT
from mrc_xarray.mrc.header import IMOD_STAMP, Header
from mrc_xarray.mrc.recognition import BYTE_ORDERS
from mrc_xarray.writing.subject import Subject

__all__ = ["extra_of"]

_EXTRA = slice(96, 196)
# voltage, C3, gain and packed bytes of mrcz
_MRCZ = slice(132, 152)
# stamp and flags of IMOD
_IMOD = slice(152, 160)
# IMOD's flags: bytes are signed, ORIGIN has MRC2014's sign, each byte contains two pixels
_SIGNED, _SIGN_OF_ORIGIN, _PACKED = 1, 4, 16


def extra_of(subject: Subject) -> tuple[Header, bool, list[str]]:
    """Return a header of which bytes 96 to 195 are those of a new file.

    Also return whether these contain voltage, C3 and gain as this package stores them, and what of
    the source's they can't hold, for a warning.
    """
    header, source = Header.blank(BYTE_ORDERS[subject.options.byteorder]), subject.source
    lost: list[str] = []
    if source is not None and subject.codec and source.skew is not None:
        lost.append("CCP4's skew transformation, as an MRCZ has its own fields there")
    elif source is not None:
        header, lost = _copied(header, source)
    is_ours = header.skew is None and (
        source is None or source.has_mrcz_fields or not any(header.encode()[_MRCZ])
    )
    if subject.codec and not is_ours:
        lost.append("bytes 132–151 of the header, where an MRCZ has its own fields")
        is_ours = True
    if is_ours:
        header = header.replaced(packed_bytes=0, **_instrument(subject))
    elif any(value is not None for value in subject.options.instrument.values()):
        lost.append("voltage, C3 and gain, since other fields of the source are in their place")
    stamped, replaced = _stamped(header, subject)
    return stamped, is_ours, lost + replaced


def _copied(blank: Header, source: Header) -> tuple[Header, list[str]]:
    """Return a blank header with bytes 96 to 195 of the source, and what of them is left out.

    In another byte order, only fields whose meaning is known can be copied.
    """
    raw, extra = bytearray(blank.encode()), source.encode()[_EXTRA]
    is_swapped = source.byteorder != blank.byteorder
    if source.skew is not None:
        # all of them are words of four bytes
        words = np.frombuffer(extra, np.uint32)
        raw[_EXTRA] = (words.byteswap() if is_swapped else words).tobytes()
        return Header.parse(raw, blank.byteorder), []
    nversion = (
        max(source.nversion, blank.nversion) if source.has_valid_nversion else blank.nversion
    )
    if not is_swapped:
        raw[_EXTRA] = extra
        return Header.parse(raw, blank.byteorder).replaced(nversion=nversion), []
    dialect = "IMOD" if source.has_imod_stamp else "MRCZ" if source.has_mrcz_fields else None
    known = {
        field.name: source[field.name]
        for field in dataclasses.fields(Header)
        if dialect is not None and field.metadata.get("dialect") == dialect
    }
    if source.nsymbt:
        known |= {"nint": source.nint, "nreal": source.nreal}
    same = Header.blank(source.byteorder).replaced(**known)
    is_complete = (same.extra1, same.extra2) == (source.extra1, source.extra2)
    order = "big" if source.byteorder == ">" else "little"
    note = f"bytes 96–195 of the header in another byte order (byteorder={order!r} copies them)"
    return blank.replaced(nversion=nversion, **known), [] if is_complete else [note]


def _instrument(subject: Subject) -> dict[str, float]:
    """Return voltage, C3 and gain: the arguments, or the attributes of the data."""
    attrs = subject.provenance.attrs
    return {
        name: float(attrs.get(ATTRS_WITH_UNIT[name], 0.0) if value is None else value)
        for name, value in subject.options.instrument.items()
    }


def _stamped(header: Header, subject: Subject) -> tuple[Header, list[str]]:
    """Return the header with IMOD's stamp if it had that, or if bytes are unsigned.

    ORIGIN retains the sign that it has.
    """
    mode, had_stamp = subject.mode, header.has_imod_stamp
    if not (had_stamp or mode.is_unsigned_variant):
        return header, []
    flags = header.imod_flags & ~_PACKED if had_stamp else _SIGN_OF_ORIGIN
    if mode.sign_varies:
        flags = flags & ~_SIGNED | (0 if mode.is_unsigned_variant else _SIGNED)
    is_taken = not had_stamp and any(header.encode()[_IMOD])
    note = "bytes 152–159 of the header, since unsigned bytes need IMOD's flags there"
    return header.replaced(imod_stamp=IMOD_STAMP, imod_flags=flags), [note] * is_taken
