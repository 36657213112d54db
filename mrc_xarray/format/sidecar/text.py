"""What the text files beside an image have in common: characters, lines, numbers."""

from __future__ import annotations

import codecs
import itertools
import math
import re
from collections.abc import Iterator, Sized

__all__ = ["clip", "decode", "line_start", "lines", "more", "number"]

_LONGEST = 60


def decode(raw: bytes) -> str:
    """Return the text; what is not UTF-8 is taken for Latin-1, so that any bytes have one."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank, without the white space around, numbered from 1 on."""
    # not str.splitlines, for which a line ends at a form feed or a Latin-1 control, too
    for count, line in enumerate(re.split(r"\r\n|\n|\r", text), start=1):
        if bare := line.strip():
            yield count, bare


def line_start(raw: bytes, line: int) -> int:
    """Return the first byte of a line that `lines` numbered."""
    ends = itertools.islice(re.finditer(rb"\r\n|\n|\r", raw), line - 1)
    start = len(codecs.BOM_UTF8) if raw.startswith(codecs.BOM_UTF8) else 0
    for end in ends:
        start = end.end()
    return start


def number(text: str) -> float | None:
    """Return the finite number that `text` is, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    # 1_000 is Python's alone
    return value if math.isfinite(value) and "_" not in text else None


def clip(text: str) -> str:
    """Return `text` in quotes, short enough for a message."""
    return repr(text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…")


def more(group: Sized) -> str:
    """Return what a message about the first of `group` says of the others."""
    return f" (and {len(group) - 1} more)" if len(group) > 1 else ""
