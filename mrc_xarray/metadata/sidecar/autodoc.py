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
    """The keys after one ``[kind = title]``, their values, and their lines.

    The kind is ``ZValue`` and the title is ``3`` for section 3. Both are empty for the keys in
    front of the first entry.
    """

    kind: str = ""
    title: str = ""
    line: int = 1
    values: dict[str, str] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Autodoc:
    """An autodoc: keys in front of the first entry, free text, entries, and unreadable lines.

    The free text is from ``[T = ...]``, or from ``T = ...`` in files for one exposure.
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
            long.append((line, f"{len(complete)} characters long"))
        is_head = text.startswith("[")
        # titles may contain "=", too
        key, equals, value = (text.strip("[]") if is_head else text).partition("=")
        key, value = key.strip(), value.strip()
        if not (key and equals) or (is_head and not text.endswith("]")):
            malformed.append((line, clip(text)))
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
    cut = f"up to {LONGEST_LINE} characters", "It is cut off."
    left_out = "key = value, or [key = value]", "It is left out."
    problems = [
        file.problem("the line", lines[0][1] + more(lines), *words, line=lines[0][0])
        for lines, words in ((long, cut), (malformed, left_out))
        if lines
    ]
    return Autodoc(top=top, titles=tuple(titles), entries=tuple(entries), problems=tuple(problems))
