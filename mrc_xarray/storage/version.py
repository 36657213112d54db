"""Versions of an object in a store, and whether a response is from the opened version."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mrc_xarray.errors import MrcError
from mrc_xarray.storage.base import changed
from mrc_xarray.storage.failures import refusal

__all__ = ["COPY", "ByteRange", "Version", "plain"]

# marks that responses contain as well, and the header fields that contain them
_IN_RESPONSES = {"ETag": "etag", "Last-Modified": "last-modified"}
# first byte, last byte and size of the file; a server may leave out the range or the size
_CONTENT_RANGE = re.compile(r"(?i)bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
#: What to do about a store whose responses are not valid.
COPY = "Copy the file, or put simplecache:: before the URL."


@dataclass(frozen=True)
class Version:
    """What distinguishes one version of an object from another.

    `marks` are names and values of properties that change when the object does, such as its ETag.
    """

    size: int
    marks: tuple[tuple[str, str], ...]

    def difference(self, size: int | None, marks: Mapping[str, str]) -> str:
        """Return how another version is known to differ, or an empty string."""
        differences = [name for name, value in self.marks if marks.get(name, value) != value]
        if size not in (None, self.size):
            differences.append(f"size: {self.size} bytes, now {size}")
        return ", ".join(differences)


@dataclass(frozen=True)
class ByteRange:
    """The bytes from `start` to `stop` of an object, to be requested from the `opened` version.

    `path` is the object's name in the store, and `name` its name for messages.
    """

    path: str
    name: str
    opened: Version
    start: int
    stop: int

    def check(self, status: int, headers: Mapping[str, str]) -> bool:
        """Check HTTP status and headers of a response, before its bytes are read.

        Return whether the headers, by names in lower case, prove that the bytes are from the
        version that was opened.

        Raises
        ------
        OSError
            If the status is an error.
        MrcError
            If the bytes are from another version, or from another range.
        """
        content_range = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
        length = headers.get("content-length", "")
        size = length if status == 200 else content_range[3] if content_range else ""
        found = {name: plain(headers.get(header, "")) for name, header in _IN_RESPONSES.items()}
        found = {name: value for name, value in found.items() if value}
        if status in (200, 206, 416):
            self._compare(int(size) if size.isdigit() else None, found)
        if status not in (200, 206):
            raise refusal(status, self.name)
        encoding = headers.get("content-encoding", "identity")
        if encoding not in ("", "identity"):
            raise MrcError(
                f"{self.name}: the server sends the bytes with Content-Encoding {encoding!a}; "
                f"accepted: none. {COPY}"
            )
        if status == 206:
            self._check_part(content_range, length)
        elif (self.start, self.stop) != (0, self.opened.size):
            raise self.other_bytes(length or "all", hint=f" It ignores byte ranges. {COPY}")
        return all(name in found for name, _ in self.opened.marks)

    def _compare(self, size: int | None, found: Mapping[str, str]) -> None:
        if not (difference := self.opened.difference(size, found)):
            return
        marks = dict(self.opened.marks)
        if marks and marks.items() <= found.items():
            raise MrcError(
                f"{self.name}: the server gives two sizes of the same file: {self.opened.size} "
                f"bytes when it was opened, and {size} in a later response. {COPY}"
            )
        raise changed(self.name, difference)

    def _check_part(self, content_range: re.Match[str] | None, length: str) -> None:
        """Check that a partial response contains the requested bytes."""
        if content_range is None or content_range[1] is None:
            hint = f" The response has no valid Content-Range. {COPY}"
            raise self.other_bytes(length or "some", hint=hint)
        start, stop = int(content_range[1]), int(content_range[2]) + 1
        if (start, stop) != (self.start, self.stop):
            raise self.other_bytes(stop - start, start)
        if length not in ("", str(stop - start)):
            raise self.other_bytes(length)

    def other_bytes(self, got: int | str, start: int | None = None, hint: str = "") -> MrcError:
        """Return the error for a response with other bytes than were requested."""
        place = "" if start in (None, self.start) else f" from byte {start}"
        return MrcError(
            f"{self.name}: the store answered with {got} bytes{place} instead of the "
            f"{self.stop - self.start} bytes from byte {self.start}.{hint}"
        )


def plain(mark: str) -> str:
    """Return an ETag without the prefix of a weak one, which a proxy may add."""
    return mark.removeprefix("W/")
