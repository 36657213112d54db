"""Which version of an object is in a store, and whether an answer with bytes is of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mrc_xarray.format import MrcError
from mrc_xarray.source.base import changed
from mrc_xarray.source.failures import refusal

__all__ = ["COPY", "Question", "Version", "plain"]

# marks that an answer with bytes has as well, and the header that has them
_IN_ANSWERS = {"ETag": "etag", "Last-Modified": "last-modified"}
#: What to do about a store that does not answer as it should.
COPY = "Copy the file, or put simplecache:: before the URL."


@dataclass(frozen=True)
class Version:
    """What tells one version of an object from another.

    Attributes
    ----------
    size : int
        In bytes.
    marks : tuple of (str, str)
        Names and values of what changes when the object does, such as its ETag.
    """

    size: int
    marks: tuple[tuple[str, str], ...]

    def difference(self, size: int | None, marks: Mapping[str, str]) -> str:
        """Return what differs in another version, as far as that is known; empty if nothing."""
        differences = [name for name, value in self.marks if marks.get(name, value) != value]
        if size not in (None, self.size):
            differences.append(f"size: {self.size} bytes, now {size}")
        return ", ".join(differences)


@dataclass(frozen=True)
class Question:
    """A range of an object that was opened in a certain version."""

    path: str
    name: str
    opened: Version
    start: int
    stop: int

    def check(self, status: int, headers: Mapping[str, str]) -> bool:
        """Look at an answer before its bytes.

        Returns
        -------
        bool
            Whether it proves that they are of the version that was opened.

        Raises
        ------
        OSError, MrcError
            If it has no bytes, those of another version, or others than were asked for.
        """
        span = re.fullmatch(
            r"(?i)bytes (\d+|\*)(?:-(\d+))?/(\d+)", headers.get("content-range", "")
        )
        length = headers.get("content-length", "")
        size = int(span[3]) if span else int(length) if status == 200 and length else None
        found = {name: plain(headers.get(header, "")) for name, header in _IN_ANSWERS.items()}
        found = {name: value for name, value in found.items() if value}
        if status in (200, 206, 416):
            self._compare(size, found)
        if status not in (200, 206):
            raise refusal(status, self.name)
        encoding = headers.get("content-encoding", "identity")
        if encoding not in ("", "identity"):
            raise MrcError(f"{self.name}: the server encodes its answers as {encoding!a}. {COPY}")
        if status == 200 and (self.start, self.stop) != (0, self.opened.size):
            raise self.other_bytes(length or "all", hint=f" It ignores byte ranges. {COPY}")
        if status == 206:
            self._check_span(headers.get("content-range", ""), length)
        return all(name in found for name, _ in self.opened.marks)

    def _compare(self, size: int | None, found: Mapping[str, str]) -> None:
        if not (difference := self.opened.difference(size, found)):
            return
        marks = dict(self.opened.marks)
        if marks and marks.items() <= found.items():
            raise MrcError(
                f"{self.name}: the server gives two sizes of the same file: {self.opened.size} "
                f"bytes when it was opened, and {size} in an answer with bytes. {COPY}"
            )
        raise changed(self.name, difference)

    def _check_span(self, content_range: str, length: str) -> None:
        """Look at which bytes a partial answer has."""
        span = re.fullmatch(r"(?i)bytes (\d+)-(\d+)/(\d+|\*)", content_range)
        if span is None:
            hint = f" It does not say which (no valid Content-Range). {COPY}"
            raise self.other_bytes(length or "some", hint=hint)
        start, stop = int(span[1]), int(span[2]) + 1
        if (start, stop) != (self.start, self.stop):
            raise self.other_bytes(stop - start, start)
        if length not in ("", str(stop - start)):
            raise self.other_bytes(length)

    def other_bytes(self, got: int | str, start: int | None = None, hint: str = "") -> MrcError:
        """Return the error for an answer with other bytes than were asked for."""
        place = "" if start in (None, self.start) else f" from byte {start}"
        return MrcError(
            f"{self.name}: the store answered with {got} bytes{place} for the "
            f"{self.stop - self.start} from byte {self.start}.{hint}"
        )


def plain(mark: str) -> str:
    """Return an ETag without the sign of the weak kind, which a proxy may add."""
    return mark.removeprefix("W/")
