"""CCP4: symmetry operators, as records of 80 characters.

See ``docs/reference/format.md#ccp4``.
"""

from __future__ import annotations

import re
import string

from mrc_xarray.metadata.columns import Metadata, Value
from mrc_xarray.mrc.extended.kind import ExtendedHeader, SectionNumbers, not_decoded
from mrc_xarray.mrc.header import Header

__all__ = ["CCP4"]

_RECORD = 80

_PRINTABLE = string.printable.encode()
# three coordinates, such as -X+1/2; asterisks separate the operators of one record
_AXIS = rb"[0-9+\-/. ]*[XYZ][XYZ0-9+\-/. ]*"
_OPERATORS = re.compile(rb"(%s,%s,%s)(\*%s,%s,%s)*\*? *" % ((_AXIS,) * 6), re.IGNORECASE)


def _is_kind(header: Header, extended_size: int) -> bool:
    exttyp = header.exttyp.strip()
    is_unnamed = not exttyp or header.skew is not None
    return exttyp == "CCP4" or (is_unnamed and extended_size % _RECORD == 0)


def _matches(header: Header, raw: bytes) -> bool:
    """Return whether the first record contains symmetry operators."""
    return bool(_OPERATORS.fullmatch(raw[:_RECORD].replace(b"\0", b" ")))


def _decode(header: Header, raw: bytes, sections: SectionNumbers) -> Metadata:
    """Return the operators as one text of several lines; none from blank records."""
    # some programs fill up with NULs
    text = raw.replace(b"\0", b" ")
    if text.translate(None, _PRINTABLE):
        accepted = f"symmetry operators in records of {_RECORD} characters"
        return not_decoded(len(raw), "not text", accepted)
    records = (text[start : start + _RECORD] for start in range(0, len(text), _RECORD))
    lines = [line for record in records if (line := record.decode("ascii").strip())]
    return Metadata(values={"symmetry": Value("\n".join(lines))} if lines else {})


CCP4 = ExtendedHeader(
    name="CCP4", is_kind=_is_kind, decode=_decode, matches=_matches, is_of_grid=True
)
