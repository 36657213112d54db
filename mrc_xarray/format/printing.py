"""Text for people: what a stranger's file may hold is escaped, as a terminal obeys some of it."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["json_text", "printable", "printable_lines"]


def printable(text: str) -> str:
    """Return `text` with an escape in place of each character that is not printable.

    These are control characters, line ends among them, those that change the direction of
    writing, and lone surrogates, which can't be encoded.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def printable_lines(text: str) -> str:
    """Return `text` as `printable` does, but with its line ends."""
    return "\n".join(map(printable, text.split("\n")))


def json_text(value: Any, **options: Any) -> str:
    """Return JSON of printable ASCII alone; the options are those of `json.dumps`."""
    # DEL is the one character that JSON need not escape, and a terminal may obey
    return json.dumps(value, **options).replace("\x7f", "\\u007f")
