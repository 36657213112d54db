"""A compressed file that is decoded from its start."""

from __future__ import annotations

import io
import os
import sys
from typing import Any, BinaryIO

from mrc_xarray.errors import MrcError
from mrc_xarray.storage.base import ByteSource, MiB
from mrc_xarray.storage.codecs import begins_stream, decoder
from mrc_xarray.storage.decoders import Decoder
from mrc_xarray.storage.memory import MemorySource

__all__ = ["ENOUGH_TO_BEGIN", "CompressedFile", "first_bytes"]

#: Compressed bytes that suffice to decode the first bytes of any image: a block of bzip2, which
#: can only be decoded completely, and the directory of a zip archive.
ENOUGH_TO_BEGIN = MiB + MiB // 4

# compressed bytes that are fetched at once, with and without a limit
_FETCHED_FIRST = 256 * 1024
_FETCHED = 4 * MiB
# decoded bytes at once
_PART = MiB


class CompressedFile:
    """A compressed file, open for decoding it once from its start.

    `limit` is the most compressed bytes to read; with a limit they are fetched in smaller parts.
    """

    def __init__(self, source: ByteSource, codec: str, limit: int | None = None) -> None:
        self._raw = _RawFile(source, limit or sys.maxsize)
        self._buffered = io.BufferedReader(
            self._raw, _FETCHED if limit is None else _FETCHED_FIRST
        )
        self._codec = codec
        self._decoder: Decoder | None = None

    def read(self, nbytes: int) -> tuple[bytes, Exception | None]:
        """Return up to `nbytes` decoded bytes, and what is wrong with the stream after them.

        Errors of the source are raised, and a decoder that is missing or needs too much memory.
        """
        found: list[bytes] = []
        try:
            if self._decoder is None:
                self._decoder = decoder(self._codec, self._buffered, self._raw.name)
            # not all of fsspec's decoders have read1
            read = getattr(self._decoder, "read1", None) or self._decoder.read  # type: ignore[attr-defined]
            left = nbytes
            while left and (part := read(min(left, _PART))):
                found.append(part)
                left -= len(part)
        except (MrcError, MemoryError):
            raise
        except Exception as error:
            if self._raw.error is not None:
                # a decoder may have mistaken it for a fault of the stream
                raise self._raw.error from None
            return b"".join(found), error
        return b"".join(found), None


def first_bytes(file: BinaryIO, nbytes: int) -> bytes:
    """Return the first bytes of a file from its start, decoded if it is compressed.

    They are fewer than `nbytes` if the file ends or can't be decoded.
    """
    head = file.read(nbytes)
    codec = begins_stream(head)
    if codec is None:
        return head
    beginning = MemorySource(head + file.read(ENOUGH_TO_BEGIN))
    try:
        return CompressedFile(beginning, codec).read(nbytes)[0]
    except MrcError:
        return b""


class _RawFile(io.RawIOBase):
    """A source as a file without a handle; `error` is why the source could not be read."""

    def __init__(self, source: ByteSource, limit: int) -> None:
        assert source.size is not None
        self.name = source.name
        self.error: Exception | None = None
        self._source = source
        self._size = source.size
        self._left = limit
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        n = max(min(len(view), self._size - self._at), 0)
        try:
            self._left -= n
            if self._left < 0:
                raise MrcError(
                    f"{self.name}: the beginning of the compressed stream does not decode to the "
                    "first bytes of an image. The file may be damaged, or not an image."
                )
            self._source.read_into([(self._at, view[:n])])
        except Exception as error:
            self.error = error
            raise
        self._at += n
        return n
