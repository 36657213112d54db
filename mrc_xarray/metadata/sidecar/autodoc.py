"""SerialEM's and IMOD's autodoc text: keys, in entries below heads such as ``[ZValue = 3]``.

See FORMAT: SerialEM mdoc. What the keys mean is told by ``mrc_xarray.metadata.sidecar.mdoc``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mrc_xarray.errors import Problem
from mrc_xarray.metadata.sidecar.lines import clip, decode, lines, more, too_long

__all__ = ["Autodoc", "Entry", "parse"]


@dataclass(frozen=True, eq=False, slots=True)
class Entry:
    """The keys below one ``[kind = title]``.

    Attributes
    ----------
    kind, title : str
        ``ZValue`` and ``3`` for section 3; both empty for what stands before the first entry.
    line : int
        Where it begins, from 1 on.
    values : dict of str to str
        All keys in the file's order.
    lines : dict of str to int
        The line of each key.
    """

    kind: str
    title: str
    line: int
    values: dict[str, str] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, slots=True)
class Autodoc:
    """An autodoc as it stands.

    Attributes
    ----------
    name : str
        The file's, for messages.
    globals : Entry
        What stands before the first entry.
    titles : tuple of str
        Free text, from ``[T = ...]``, or ``T = ...`` in files for one exposure.
    entries : tuple of Entry
        In the file's order.
    problems : tuple of Problem
        Lines that could not be read.
    """

    name: str
    globals: Entry
    titles: tuple[str, ...]
    entries: tuple[Entry, ...]
    problems: tuple[Problem, ...]


def parse(raw: bytes, name: str) -> Autodoc:
    """Read an autodoc, whatever is in it.

    Parameters
    ----------
    raw : bytes
        The file's.
    name : str
        The file's, for messages.

    Returns
    -------
    Autodoc
    """
    first = entry = Entry("", "", 1)
    titles, entries, malformed = [], [], []
    long: list[tuple[int, int]] = []
    for line, text in lines(decode(raw), long):
        is_head = text.startswith("[")
        whole = text.endswith("]") if is_head else True
        # titles hold "=", too
        key, equals, value = (
            part.strip() for part in text.strip("[]" if is_head else "").partition("=")
        )
        if not (whole and key and equals):
            malformed.append((line, text))
            if is_head:
                # so that keys below a broken head do not go to the entry before it
                entry = Entry("", "", line)
        elif key == "T":
            titles.append(value)
        elif is_head:
            entry = Entry(key, value, line)
            entries.append(entry)
        else:
            entry.values[key] = value
            entry.lines[key] = line
    problems = too_long(name, long)
    if malformed:
        line, text = malformed[0]
        found = clip(text) + more(malformed)
        accepted = "key = value, or [key = value]"
        problems.append(
            Problem(
                "sidecar", "the line", found, accepted, "It is left out.", file=name, line=line
            )
        )
    return Autodoc(name, first, tuple(titles), tuple(entries), tuple(problems))
