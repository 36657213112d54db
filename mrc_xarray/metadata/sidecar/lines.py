"""What the text files next to an image have in common: characters, lines, numbers, limits."""

from __future__ import annotations

import codecs
import itertools
import math
import re
from collections.abc import Collection, Iterator, Sequence, Sized

from mrc_xarray.errors import Problem

__all__ = [
    "LONGEST_LINE",
    "Room",
    "clip",
    "decode",
    "line_start",
    "lines",
    "more",
    "number",
    "too_long",
]

_LONGEST = 60
#: A longer line is cut off; in characters.
LONGEST_LINE = 2**16
# limits of a sidecar's own keys in the metadata
_MOST_VALUES = 2**21
_MOST_LETTERS = 2**24


def decode(raw: bytes) -> str:
    """Return the text; what is not UTF-8 is taken for Latin-1, so that any bytes have one."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def lines(text: str, long: list[tuple[int, int]] | None = None) -> Iterator[tuple[int, str]]:
    """Yield the numbers, from 1 on, and the stripped texts of the lines that are not blank.

    Lines that are too long are cut off. Their numbers and lengths are appended to `long`.
    """
    # not str.splitlines, for which a line ends at a form feed or a Latin-1 control, too
    for count, line in enumerate(re.split(r"\r\n|\n|\r", text), start=1):
        bare = line.strip()
        if len(bare) > LONGEST_LINE and long is not None:
            long.append((count, len(bare)))
        if bare:
            yield count, bare[:LONGEST_LINE]


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


def too_long(name: str, long: Sequence[tuple[int, int]]) -> list[Problem]:
    """Return the problem, if any, of the lines of the file `name` that `lines` cut off."""
    if not long:
        return []
    line, length = long[0]
    found = f"{length} characters long{more(long)}"
    accepted = f"up to {LONGEST_LINE} characters"
    return [
        Problem("sidecar", "the line", found, accepted, "It is cut off.", file=name, line=line)
    ]


class Room:
    """The room that is left in the metadata for a sidecar's own keys."""

    def __init__(self) -> None:
        self._values, self._letters = _MOST_VALUES, _MOST_LETTERS
        self._left_out: list[str] = []

    def takes(self, key: str, texts: Collection[str], n_values: int = 1) -> bool:
        """Take room for a key with these texts, as `n_values` values; return whether it fits."""
        letters = len(key) + sum(map(len, texts))
        if n_values > self._values or letters > self._letters:
            self._left_out.append(key)
            return False
        self._values -= n_values
        self._letters -= letters
        return True

    def problems(self, name: str) -> list[Problem]:
        """Return the problem of the keys of the file `name` that had no room; empty if all had."""
        if not self._left_out:
            return []
        found = clip(self._left_out[0]) + more(self._left_out)
        accepted = f"up to {_MOST_VALUES} values and {_MOST_LETTERS} characters in the metadata"
        return [Problem("sidecar", "the key", found, accepted, "It is left out.", file=name)]
