"""Text for people, with control characters escaped, because terminals execute them."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["json_text", "printable", "printable_lines"]


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


def json_text(value: Any, **options: Any) -> str:
    """Return JSON of printable ASCII only; the options are those of `json.dumps`."""
    # DEL is the only control character that JSON does not escape
    return json.dumps(value, **options).replace("\x7f", "\\u007f")
