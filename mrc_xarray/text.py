"""Text for people, with control characters escaped, because terminals execute them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["aligned", "did_you_mean", "json_text", "printable", "printable_lines"]


# characters of a column that the next one is aligned to
_WIDEST = 30


def printable(text: str) -> str:
    """Return `text` with an escape in place of each character that is not printable.

    Such characters are control characters including line ends, characters that change the
    direction of writing, and lone surrogates, which can't be encoded.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def printable_lines(text: str) -> str:
    r"""Return `text` as `printable` does, but preserve line ends (``"\n"``)."""
    return "\n".join(map(printable, text.split("\n")))


def aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """Return printable lines of rows of text, with aligned columns; long texts reach over."""
    found = [[printable(text) for text in row] for row in rows]
    n_columns = max(map(len, found), default=0)
    # the last text of a row, such as a label, moves no other column
    widths = [
        min(max((len(row[i]) for row in found if any(row[i + 1 :])), default=0), _WIDEST)
        for i in range(n_columns)
    ]
    padded = ([text.ljust(n) for text, n in zip(row, widths, strict=True)] for row in found)
    return ["  " + "  ".join(row).rstrip() for row in padded]


def did_you_mean(unknown: Iterable[str], accepted: Iterable[str]) -> str:
    """Return the end of a message about unknown names: similar ones that are accepted, if any."""
    from difflib import get_close_matches

    known = {name.lower(): name for name in accepted}
    found = [get_close_matches(name.lower(), known, n=1, cutoff=0.7) for name in unknown]
    names = dict.fromkeys(known[name] for names in found for name in names)
    return f". Did you mean {' and '.join(names)}?" if names else ""


def json_text(value: Any, **options: Any) -> str:
    """Return JSON of printable ASCII only; the options are those of `json.dumps`."""
    # DEL is the only control character that JSON does not escape
    return json.dumps(value, **options).replace("\x7f", "\\u007f")
