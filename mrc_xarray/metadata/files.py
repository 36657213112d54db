"""The text files next to an image: finding them, their lines and numbers, and messages."""

from __future__ import annotations

import codecs
import io
import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from mrc_xarray.errors import Problem
from mrc_xarray.metadata.raster import NO_GAPS, Gaps

__all__ = ["Companion", "ImageFile", "Name", "SidecarChoice", "TextFile", "clip", "more", "number"]

_LONGEST_QUOTE = 60
_MOST_NAMES = 5


@dataclass(frozen=True, slots=True)
class TextFile:
    """A text file: its name, for messages and for the kind of sidecar, and its content."""

    name: str
    raw: bytes

    def lines(self) -> Iterator[tuple[int, str]]:
        """Yield the number, from 1, and the stripped text of each line that is not blank."""
        try:
            text = self.raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            # any bytes are valid Latin-1
            text = self.raw.decode("latin-1")
        # str.splitlines would also split at form feeds and Latin-1 controls
        for count, line in enumerate(io.StringIO(text, newline=None), start=1):
            if stripped := line.strip():
                yield count, stripped

    def problem(
        self,
        field: str,
        found: str,
        accepted: str,
        action: str,
        *,
        line: int = 0,
        code: str = "sidecar",
    ) -> Problem:
        """Return a problem of this file; `line` 0 stands for the complete file."""
        offset = None
        if line:
            byte_order_mark = len(codecs.BOM_UTF8) * self.raw.startswith(codecs.BOM_UTF8)
            ends = itertools.islice(re.finditer(rb"\r\n|\n|\r", self.raw), line - 1)
            offset = max((end.end() for end in ends), default=byte_order_mark)
        words = field, found, accepted, action
        return Problem(code, *words, offset=offset, file=self.name, line=line)


#: The name of a file, or a pattern for the complete name.
Name: TypeAlias = "str | re.Pattern[str]"

#: Look for a sidecar next to the image, use this one, or use none.
SidecarChoice: TypeAlias = "Literal['auto'] | TextFile | None"


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFile:
    """An image, as its sidecars see it.

    Attributes
    ----------
    name : str
        File name, without folders and without a suffix of compression.
    n_sections : int
        Complete sections in the file.
    n_promised : int
        Sections according to the header (NZ). Larger than `n_sections` in a truncated file.
    is_in_store : bool
        Whether each look for a file next to the image is a request.
    scan_file : "auto", TextFile or None
        Scan coordinates: to be looked for, these, or none.
    gaps : Gaps
        Frames that belong to no position of a scan.
    recorded : mapping of str to ndarray, shape (n_sections,) or (1,)
        Values of the sections in the records of the extended header.
    read_next_to : callable
        Returns the content of the file of a given name in the image's folder, or None.
    names_next_to : callable
        Returns the names of the files in the image's folder.
    """

    name: str
    n_sections: int
    n_promised: int
    is_in_store: bool = False
    scan_file: SidecarChoice = "auto"
    gaps: Gaps = NO_GAPS
    recorded: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    read_next_to: Callable[[str], bytes | None] = lambda name: None
    names_next_to: Callable[[], list[str]] = list

    def find(
        self, names: Iterable[Name], *, code: str = "sidecar"
    ) -> tuple[TextFile | None, list[Problem]]:
        """Return the first of the named files that is next to the image.

        The list has a problem, of the given code, if a file is there and can't be read, or if
        several files fit a pattern. Of these, the first in the order of the alphabet is used. In
        a store, no file is looked for by a pattern, since a listing is a request.
        """
        for name in names:
            candidates = [name] if isinstance(name, str) else self._matching(name)
            file, problems = self._first(candidates, code)
            if file is not None and len(candidates) > 1:
                listed = ", ".join(candidates[:_MOST_NAMES])
                words = "the name", f"the first of {len(candidates)}: {listed}"
                action = f"{file.name} is used; metadata_file= or scan_file= names another one."
                problems.append(file.problem(*words, "one file", action, code=code))
            if file is not None or problems:
                return file, problems
        return None, []

    def _matching(self, pattern: re.Pattern[str]) -> list[str]:
        if self.is_in_store:
            return []
        try:
            return sorted(filter(pattern.fullmatch, self.names_next_to()))
        except OSError:
            # files in a folder can be readable that may not be listed
            return []

    def _first(self, names: Iterable[str], code: str) -> tuple[TextFile | None, list[Problem]]:
        for name in names:
            try:
                raw = self.read_next_to(name)
            except OSError as error:
                # some stores also raise for a file that does not exist
                found, accepted = f"unreadable: {error}", "a text file"
                action = "It is ignored; metadata_file=None does not look for it."
                words = "the file", found, accepted, action
                return None, [TextFile(name, b"").problem(*words, code=code)]
            # some servers respond with a page to a request for any file
            if raw is not None and not re.match(rb"\s*<", raw):
                return TextFile(name, raw), []
        return None, []


class Companion(NamedTuple):
    """Another image of the same acquisition.

    Attributes
    ----------
    group : str
        Where the image belongs in a tree, such as ``"virtual"``; empty for the root.
    name : str
        A detector's name, or what the image is.
    file : str
        File name, without folders.
    shares : {"scan", "frame"}
        The dimensions of the movie that the image can have.
    """

    group: str
    name: str
    file: str
    shares: Literal["scan", "frame"]


def number(text: str) -> float | None:
    """Return the finite number that `text` is, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    # only Python reads 1_000 as a number
    return value if math.isfinite(value) and "_" not in text else None


def clip(text: str) -> str:
    """Return `text` in quotes, short enough for a message."""
    return repr(text if len(text) <= _LONGEST_QUOTE else text[: _LONGEST_QUOTE - 1] + "…")


def more(group: Sized) -> str:
    """Return the end of a message about the first of `group`: how many others there are."""
    return f" (and {len(group) - 1} more)" if len(group) > 1 else ""
