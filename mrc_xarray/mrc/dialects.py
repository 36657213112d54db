"""What bytes of a header mean in a file, where several programs use the same bytes.

See ``docs/reference/format.md#header`` and ``docs/reference/format.md#ccp4``.
"""

from __future__ import annotations

from mrc_xarray.mrc.header import PLACES, Header

__all__ = ["other_meanings"]

_SKEWED = [
    name.lower() for name, (first, _) in PLACES.items() if 96 <= first < 148 and name != "LSKFLG"
]


def other_meanings(header: Header) -> dict[str, str]:
    """Return why the bytes of some fields have another meaning in this file, by field.

    A file has only one of CCP4's skew transformation, IMOD's fields and mrcz's in the same bytes,
    and readers decide by the rest of the header which one.
    """
    reasons: dict[str, str] = {}
    if header.has_mrcz_fields:
        reason = "voltage, C3 and gain are there, since mrcz or mrc_xarray wrote the file"
        reasons |= dict.fromkeys(("sub", "zfac", "min2", "max2"), reason)
    else:
        reason = (
            "no program would read it, since the first label does not begin with 'MRCZ', nor the "
            "last one with 'mrc_xarray'. to_mrc(..., voltage=, c3=, gain=) writes such a file"
        )
        reasons |= dict.fromkeys(("voltage", "c3", "gain"), reason)
    if header.is_mrcz:
        reason = "the size of the blocks of an MRCZ file is there"
        reasons |= dict.fromkeys(("min3", "max3"), reason)
    else:
        reasons["packed_bytes"] = "only an MRCZ file has it there"
    if header.is_old_style:
        reason = (
            "a header without MAP and machine stamp is from before 2000, and has wavelengths and "
            "a position there. map='MAP ' and machst= make it a header of today"
        )
        reasons |= dict.fromkeys(("origin", "rms"), reason)
    if header.skew is not None:
        reason = (
            "CCP4's skew transformation is there, since LSKFLG is 1. lskflg=0 gives up the "
            "transformation"
        )
        reasons |= dict.fromkeys(_SKEWED, reason)
    elif header.lskflg:
        reasons["lskflg"] = (
            "bytes 100–147 contain no skew matrix, but other numbers, EXTTYP or NVERSION; "
            "accepted: 0"
        )
    return reasons
