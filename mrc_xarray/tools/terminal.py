"""Colours, in a terminal only."""

from __future__ import annotations

import os
import re
from typing import TextIO

__all__ = ["coloured", "has_colours"]

_BOLD, _RED, _YELLOW, _CYAN, _END = "\x1b[1m", "\x1b[31m", "\x1b[33m", "\x1b[36m", "\x1b[0m"
# lines that need attention, by the name in front of them
_NOTABLE = {"problem": _RED, "repaired": _YELLOW, "8-bit data": _YELLOW}
_NAME = re.compile(r"(  )(\S+(?: \S+)*)(.*)")


def has_colours(stream: TextIO) -> bool:
    """Return whether text for a stream can have colours: not in a pipe, nor with NO_COLOR."""
    is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    # the console of Windows shows escape codes, unless a terminal interprets them
    is_known = os.name != "nt" or "WT_SESSION" in os.environ
    return bool(is_known and not is_plain and stream.isatty())


def coloured(text: str, stream: TextIO) -> str:
    """Return lines, with their first one bold and names coloured, if `stream` has colours.

    Names are the beginnings of indented lines.
    """
    if not has_colours(stream):
        return text
    first, *lines = text.split("\n")
    return "\n".join([f"{_BOLD}{first}{_END}", *map(_coloured, lines)])


def _coloured(line: str) -> str:
    if match := _NAME.fullmatch(line):
        indent, name, rest = match.groups()
        return f"{indent}{_NOTABLE.get(name, _CYAN)}{name}{_END}{rest}"
    return f"{_RED}{line}{_END}" if "  error: " in line else line
