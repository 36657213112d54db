"""Dates and times as programs write them to an ``.mdoc``.

See ``docs/reference/format.md#mdoc``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime

import numpy as np

__all__ = ["ACCEPTED", "is_year_first", "parse"]

ACCEPTED = "as in 21-Nov-26  12:38:50, 2026-11-21T12:38:50 or 11/21/2026 12:38:50"

# strptime would expect names in the language of the locale
_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = {name: str(number) for number, name in enumerate(_NAMES, start=1)}
_FLAGS = re.IGNORECASE | re.ASCII
_YEAR = r"\d\d|\d{4}"
_TIME = r"(\d\d?)(:\d\d:\d\d(?:\.\d+)?)"
_NAMED = re.compile(rf"(\d|{_YEAR})-([a-z]{{3}})-(\d|{_YEAR})\s+{_TIME}", _FLAGS)
_US = re.compile(rf"(\d\d?)/(\d\d?)/({_YEAR})\s+{_TIME}(?:\s*([ap])m)?", _FLAGS)
_ISO = re.compile(r"(\d{4}-\d\d-\d\d)(?:t|\s+)(\d\d:\d\d.*)", _FLAGS)


def is_year_first(titles: Iterable[str]) -> bool:
    """Return whether a date with a year of two digits is YY-Mon-DD: Thermo's Tomography wrote it.

    SerialEM and others write DD-Mon-YY.
    """
    return any(re.match(r"\s*tomography\b", title, re.IGNORECASE) for title in titles)


def parse(text: str, year_first: bool) -> np.datetime64 | None:
    """Return the time that a text contains, or None for any other text.

    A time with an offset is converted to UTC.
    """
    try:
        found = datetime.fromisoformat(_as_iso(text, year_first))
        if found.tzinfo is not None:
            found = found.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None
    return np.datetime64(found, "us")


def _as_iso(text: str, year_first: bool) -> str:
    """Return a date and time in ISO form, even if there is no such day; empty for other texts."""
    if match := _NAMED.fullmatch(text):
        first, name, last, hour, rest = match.groups()
        starts_with_year = len(first) == 4 or (year_first and len(last) < 4)
        year, day = (first, last) if starts_with_year else (last, first)
        month = _MONTHS.get(name.lower(), "0")
    elif match := _US.fullmatch(text):
        month, day, year, hour, rest, half = match.groups()
        if half:
            hour = str(int(hour) % 12 + 12 * (half in "pP"))
    else:
        match = _ISO.fullmatch(text)
        return "T".join(match.groups()) if match else ""
    full_year = f"20{year}"[-4:]
    return f"{full_year}-{month:0>2}-{day:0>2}T{hour:0>2}{rest}"
