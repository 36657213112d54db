"""Text for people, with control characters escaped, because terminals execute them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

__all__ = ["did_you_mean", "json_text", "printable", "printable_lines"]


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
