"""Lines of ``key = value``, in entries after heads such as ``[ZValue = 3]``, or without heads.

SerialEM's and IMOD's autodoc files, and Direct Electron's info files, are such texts. See
``docs/reference/format.md#mdoc``. The meaning of the keys is up to the callers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mrc_xarray.errors import Problem
from mrc_xarray.metadata.files import TextFile, clip, more

__all__ = ["LONGEST_LINE", "Autodoc", "Entry", "parse"]

#: A longer line is cut off; in characters.
LONGEST_LINE = 2**16


@dataclass(frozen=True, eq=False, slots=True)
class Entry:
    """The keys after one ``[kind = title]``.

    Attributes
    ----------
    kind, title : str
        ``ZValue`` and ``3`` for section 3; both empty for the keys in front of the first entry.
    line : int
        First line, from 1.
    values : dict of str to str
        All keys in the file's order.
    lines : dict of str to int
        The line of each key.
    """

    kind: str = ""
    title: str = ""
    line: int = 1
    values: dict[str, str] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Autodoc:
    """The content of an autodoc.

    Attributes
    ----------
    top : Entry
        The keys in front of the first entry.
    titles : tuple of str
        Free text, from ``[T = ...]``, or ``T = ...`` in files for one exposure.
    entries : tuple of Entry
        In the file's order.
    problems : tuple of Problem
        Lines that could not be read.
    """

    top: Entry
    titles: tuple[str, ...]
    entries: tuple[Entry, ...]
    problems: tuple[Problem, ...]


def parse(file: TextFile) -> Autodoc:
    """Read an autodoc. Whatever the file contains, nothing is raised."""
    top = entry = Entry()
    titles, entries, malformed, long = [], [], [], []
    for line, complete in file.lines():
        text = complete[:LONGEST_LINE]
        if text != complete:
            long.append((line, len(complete)))
        is_head = text.startswith("[")
        # titles may contain "=", too
        key, equals, value = (text.strip("[]") if is_head else text).partition("=")
        key, value = key.strip(), value.strip()
        if not (key and equals) or (is_head and not text.endswith("]")):
            malformed.append((line, text))
            if is_head:
                # the keys after a broken head do not belong to the entry in front of it
                entry = Entry()
        elif key == "T":
            titles.append(value)
        elif is_head:
            entry = Entry(key, value, line)
            entries.append(entry)
        else:
            entry.values[key] = value
            entry.lines[key] = line
    return Autodoc(
        top=top,
        titles=tuple(titles),
        entries=tuple(entries),
        problems=(*_too_long(file, long), *_malformed(file, malformed)),
    )


def _too_long(file: TextFile, lines: list[tuple[int, int]]) -> list[Problem]:
    if not lines:
        return []
    line, length = lines[0]
    found, accepted = f"{length} characters long{more(lines)}", f"up to {LONGEST_LINE} characters"
    return [file.problem("the line", found, accepted, "It is cut off.", line=line)]


def _malformed(file: TextFile, lines: list[tuple[int, str]]) -> list[Problem]:
    if not lines:
        return []
    line, text = lines[0]
    accepted = "key = value, or [key = value]"
    found = clip(text) + more(lines)
    return [file.problem("the line", found, accepted, "It is left out.", line=line)]
