"""CCP4: symmetry operators, as records of 80 characters. See FORMAT: CCP4."""

from __future__ import annotations

import re
import string
from typing import Any

import numpy as np

from mrc_xarray.metadata.columns import Metadata, Value
from mrc_xarray.mrc.extended.records import problem
from mrc_xarray.mrc.header import Header

__all__ = ["RECORD", "looks_like", "read", "record_size"]

RECORD = 80

_PRINTABLE = string.printable.encode()
# three coordinates, such as -X+1/2; asterisks separate the operators of one record
_AXIS = rb"[0-9+\-/. ]*[XYZ][XYZ0-9+\-/. ]*"
_OPERATORS = re.compile(rb"(%s,%s,%s)(\*%s,%s,%s)*\*? *" % ((_AXIS,) * 6), re.IGNORECASE)


def record_size(header: Header, raw: bytes) -> int:
    """Return 0: the operators are of the file, and not of its sections."""
    return 0


def looks_like(header: Header, raw: bytes) -> bool:
    """Return whether the first record contains symmetry operators."""
    return bool(_OPERATORS.fullmatch(raw[:RECORD].replace(b"\0", b" ")))


def read(header: Header, raw: bytes, sections: np.ndarray[Any, Any] | None) -> Metadata:
    """Return the operators as one text of several lines; none where the records are blank."""
    # some programs fill up with NULs
    text = raw.replace(b"\0", b" ")
    if text.translate(None, _PRINTABLE):
        not_text = problem(
            len(raw),
            "not text",
            f"symmetry operators in records of {RECORD} characters",
            "It is taken as something else; its bytes are at ds.mrc.extended_header.",
        )
        return Metadata(problems=(not_text,))
    records = (text[start : start + RECORD] for start in range(0, len(text), RECORD))
    lines = [line for record in records if (line := record.decode("ascii").strip())]
    return Metadata(values={"symmetry": Value("\n".join(lines))} if lines else {})
