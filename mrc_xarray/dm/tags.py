"""The tags of a DM3 or DM4 file, as nested dictionaries; the pixels remain in the file.

See ``docs/reference/format.md#dm``. Anyone may have made a file, so every number is checked
against the file and against a limit before memory depends on it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import numpy as np

from mrc_xarray.errors import MrcError
from mrc_xarray.pixels.modes import ByteOrder
from mrc_xarray.storage.base import FIRST_READ, ByteSource, MiB

__all__ = ["HEADER_SIZE", "StoredArray", "TagFile", "Tags", "looks_like_dm", "read_tags"]

#: A group of tags by name; an unnamed tag has its number among the unnamed tags of its group.
Tags: TypeAlias = dict[str, Any]

#: Bytes that `looks_like_dm` needs: the header of DM4, the longer one.
HEADER_SIZE = 26
_GROUP, _DATA = 20, 21
_STRUCT, _STRING, _ARRAY = 15, 18, 20
# an array of these is a text
_CHARACTER = 4
# codes of numbers in tags
_NUMBERS = {
    2: "i2", 3: "i4", 4: "u2", 5: "u4", 6: "f4", 7: "f8", 8: "?", 9: "i1", 10: "u1", 11: "i8",
    12: "u8",
}  # fmt: skip
# real files have some thousands of tags, about 10 levels deep
_MOST_TAGS, _DEEPEST = 2**16, 64
# words that describe a type: real structures have up to ten fields
_MOST_WORDS = 2**10
# of all arrays, structures and texts together, so that they also fit into the JSON of an MRCZ
_MOST_VALUES, _MOST_BYTES = 2**16, 4 * MiB
# a longer name is damage
_LONGEST_NAME = 2**10
_LARGEST_WINDOW = MiB


@dataclass(frozen=True)
class StoredArray:
    """An array that is left in the file: its first byte, element type and number of elements."""

    offset: int
    dtype: np.dtype[Any]
    size: int

    @property
    def nbytes(self) -> int:
        """Length in bytes."""
        return self.size * self.dtype.itemsize

    def __str__(self) -> str:
        kind = self.dtype.name if self.dtype.names is None else "structures"
        return f"{self.size} × {kind} at byte {self.offset}, not read"


@dataclass(frozen=True)
class TagFile:
    """The root group of a file, its version (3 or 4), and the byte order of its values."""

    name: str
    version: int
    byteorder: ByteOrder
    root: Tags


def looks_like_dm(head: bytes) -> bool:
    """Return whether a file that begins with these bytes, 26 or more, can be DM3 or DM4."""
    version = int.from_bytes(head[:4], "big")
    if version not in (3, 4) or len(head) < HEADER_SIZE:
        return False
    word = 4 if version == 3 else 8
    flags = int.from_bytes(head[4 + word : 8 + word], "big"), *head[8 + word : 10 + word]
    n_tags = int.from_bytes(head[10 + word : 10 + 2 * word], "big")
    return max(flags) <= 1 and 0 < n_tags < _MOST_TAGS


def read_tags(source: ByteSource, head: bytes) -> TagFile:
    """Read all tags of a file that begins with `head`, and no pixels.

    Raises MrcError if the file is not DM3 or DM4, or is damaged or truncated.
    """
    if not looks_like_dm(head):
        raise MrcError(
            f"{source.name}: the first bytes are {head[:4].hex(' ') or 'missing'}; accepted: "
            "00 00 00 03 (DM3) or 00 00 00 04 (DM4), and a group of tags. The file may be damaged "
            "or not from DigitalMicrograph"
        )
    version = head[3]
    with source.fetching() as fetch:
        window = _Window(source, fetch, head)
        window.at = 8 if version == 3 else 12
        byteorder: ByteOrder = "<" if any(window.take(4)) else ">"
        root = _Parser(window, version, byteorder).group("", 0)
    return TagFile(source.name, version, byteorder, root)


class _Window:
    """A position in a file, and the bytes around it that have been fetched."""

    def __init__(self, source: ByteSource, fetch: Callable[[int, int], Any], head: bytes) -> None:
        self.size, self.at = source.plausible_size, 0
        self._fetch, self._bytes, self._start = fetch, head, 0
        self._next_size = FIRST_READ
        self._name, self._action = source.name, "The file is damaged or truncated"
        if source.size is None:
            self._action += ", or must be decompressed before it is opened"

    def take(self, n: int) -> bytes:
        """Return the next bytes."""
        start = self.at - self._start
        if start + n > len(self._bytes):
            self._move(n)
            start = 0
        self.at += n
        return self._bytes[start : start + n]

    def skip(self, n: int) -> None:
        """Move on, without fetching bytes that only pass by."""
        if n > self.size - self.at:
            raise self.error("the file ends within a value", f"{n} bytes", self._left)
        self.at += n

    def _move(self, n: int) -> None:
        """Fetch at least the next `n` bytes; offsets only increase, which a stream needs."""
        if n > self.size - self.at:
            raise self.error("the file ends within a tag", f"{n} bytes", self._left)
        here = self._bytes[self.at - self._start :]
        is_next = self.at <= self._start + len(self._bytes)
        # the tags after an image are few; of a long list of tags, more are fetched each time
        self._next_size = min(2 * self._next_size, _LARGEST_WINDOW) if is_next else FIRST_READ
        start = self.at + len(here)
        wanted = min(max(n, self._next_size), self.size - start)
        self._bytes, self._start = here + self._fetch(start, wanted), self.at
        if len(self._bytes) < n:
            found = f"{len(self._bytes)} bytes"
            raise self.error("the file ends within a tag", f"{n} bytes", found)

    @property
    def _left(self) -> str:
        return f"{self.size - self.at} bytes"

    def error(self, what: str, found: str, accepted: str) -> MrcError:
        """Return the error for what is wrong at this position."""
        return MrcError(
            f"{self._name}: {what} (byte {self.at}): {found}; accepted: {accepted}. {self._action}"
        )


class _Parser:
    """Decodes tags from a window, in turn."""

    def __init__(self, window: _Window, version: int, byteorder: ByteOrder) -> None:
        self._window, self._is_4 = window, version == 4
        # counts and sizes are big-endian in all files
        self._word = "I" if version == 3 else "Q"
        self._size = 4 if version == 3 else 8
        self._numbers = {c: np.dtype(kind).newbyteorder(byteorder) for c, kind in _NUMBERS.items()}
        self._utf_16 = "utf-16-le" if byteorder == "<" else "utf-16-be"
        self._tags_left = _MOST_TAGS
        self._values_left, self._bytes_left = _MOST_VALUES, _MOST_BYTES

    def group(self, path: str, depth: int) -> Tags:
        """Read a group from its flags on."""
        if depth > _DEEPEST:
            raise self._window.error("groups of tags are nested", "more", f"{_DEEPEST} levels")
        self._window.take(2)
        found: Tags = {}
        n_unnamed = 0
        for _ in range(self._words(1)[0]):
            kind, length = struct.unpack(">BH", self._window.take(3))
            if length > _LONGEST_NAME:
                accepted = f"up to {_LONGEST_NAME} bytes"
                raise self._window.error("the name of a tag is long", f"{length} bytes", accepted)
            name = _text(self._window.take(length))
            if not name:
                name, n_unnamed = str(n_unnamed), n_unnamed + 1
            if self._is_4:
                # the length of the tag, which follows from its content
                self._window.take(8)
            found[name] = self._tag(kind, f"{path}/{name}", depth)
        return found

    def _tag(self, kind: int, path: str, depth: int) -> Any:
        self._tags_left -= 1
        if self._tags_left < 0:
            raise self._window.error("tags", "more", f"{_MOST_TAGS} in a file")
        if kind == _GROUP:
            return self.group(path, depth + 1)
        if kind != _DATA:
            raise self._window.error(
                f"the kind of the tag {path!r:.200}", str(kind), "20 (group) or 21 (data)"
            )
        words, dtype = self._type(path)
        is_array = words[0] == _ARRAY
        value = StoredArray(self._window.at, dtype, words[-1] if is_array else 1)
        if path.endswith("/ImageData/Data") or not self._has_room(value, words):
            self._window.skip(value.nbytes)
            return value
        raw = self._window.take(value.nbytes)
        if words[:2] == (_ARRAY, _CHARACTER):
            return raw.decode(self._utf_16, "replace").rstrip("\0")
        elements = np.frombuffer(raw, dtype).tolist() if raw else [b""] * (not is_array)
        decoded = [_decoded(element) for element in elements]
        return decoded if is_array else decoded[0]

    def _has_room(self, value: StoredArray, words: tuple[int, ...]) -> bool:
        """Return whether a value is read; otherwise it is left in the file.

        A small file, most of which is a hole, can't fill the memory. Single numbers are always
        read.
        """
        if len(words) == 1:
            return True
        is_text = words[0] == _STRING or words[:2] == (_ARRAY, _CHARACTER)
        n_values = 0 if is_text else value.size * _n_values(value.dtype)
        if value.nbytes > self._bytes_left or n_values > self._values_left:
            return False
        self._bytes_left -= value.nbytes
        self._values_left -= n_values
        return True

    def _type(self, path: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Return the words that describe the type of a value, and the type of its elements."""
        if (mark := self._window.take(4)) != b"%%%%":
            raise self._window.error(f"the mark of {path!r:.200}", repr(mark), "b'%%%%'")
        n_words = self._words(1)[0]
        if not 0 < n_words <= _MOST_WORDS:
            accepted = f"1 to {_MOST_WORDS}"
            raise self._window.error(f"the type of {path!r:.200}", f"{n_words} words", accepted)
        words = self._words(n_words)
        try:
            return words, self._dtype(words[1:-1] if words[0] == _ARRAY else words)
        except (IndexError, KeyError, ValueError):
            shown = ", ".join(map(str, words[:8]))
            accepted = "a number, text, structure or array"
            raise self._window.error(f"the type of {path!r:.200}", shown, accepted) from None

    def _dtype(self, words: tuple[int, ...]) -> np.dtype[Any]:
        """Return the type that words describe; raise KeyError or ValueError if there is none."""
        if len(words) == 1:
            return self._numbers[words[0]]
        if words[0] == _STRUCT:
            n_fields, codes = words[2], words[4::2]
            if not 0 < n_fields == len(codes) or len(words) != 3 + 2 * n_fields:
                raise ValueError("a structure with another number of fields")
            return np.dtype([("", self._numbers[code]) for code in codes])
        if words[0] == _STRING and len(words) == 2 and words[1] <= _MOST_BYTES:
            return np.dtype(f"V{words[1]}")
        if words[0] == _ARRAY and words[-1] <= _MOST_BYTES:
            return np.dtype((self._dtype(words[1:-1]), (words[-1],)))
        raise ValueError("an unknown type")

    def _words(self, n: int) -> tuple[int, ...]:
        return struct.unpack(f">{n}{self._word}", self._window.take(n * self._size))


def _n_values(dtype: np.dtype[Any]) -> int:
    """Return how many values an element has, and one for the list that contains them."""
    return 1 + prod(dtype.shape) * len(dtype.base.names or ("",))


def _decoded(element: Any) -> Any:
    """Return an element of an array with texts in place of bytes."""
    if isinstance(element, list):
        return [_decoded(part) for part in element]
    return _text(element) if isinstance(element, bytes) else element


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")
