"""What decodes a compressed stream, by how the stream begins. The codecs are fsspec's."""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from mrc_xarray.errors import MrcError
from mrc_xarray.storage.base import ByteSource, MiB
from mrc_xarray.storage.decoders import (
    Decoder,
    GzipDecoder,
    XzDecoder,
    isal,
    open_member,
    single_member,
)
from mrc_xarray.suffixes import COMPRESSED_SUFFIXES

__all__ = [
    "ENOUGH_TO_BEGIN",
    "InnerFile",
    "begins_stream",
    "codec_of",
    "decoder",
    "encoder",
    "first_bytes",
    "memory_of",
    "most_decoded",
    "parts",
]

# no MRC begins like this: it would have more columns than a file can hold, or fewer than none
_MAGIC = {
    rb"\x1f\x8b\x08": "gzip",
    rb"BZh[1-9](1AY&SY|\x17rE8P\x90)": "bz2",
    rb"\xfd7zXZ\0": "xz",
    rb"\x5d\0\0\x80\0": "lzma",
    rb"\x28\xb5\x2f\xfd": "zstd",
    rb"\x04\x22\x4d\x18": "lz4",
    rb"PK\x03\x04": "zip",
}
_PACKAGES = {"zstd": "zstandard", "lz4": "lz4"}
# Most bytes that one compressed byte decodes to, by the definitions of the formats:
# - deflate (RFC 1951): a match of 258 bytes needs 2 bits, one each for length and distance.
# - LZMA: a repeated match of 273 bytes needs 14 decisions. Each needs at least 0.022 bits, since
#   the coder's largest probability is 2017 in 2048. LZMA2 and .xz only add to that.
# - bzip2: a block contains 900,000 bytes, of which each 5 may stand for 255. It needs at least
#   24 bytes: 156 bits of headers, 16 of two tables, and 20 of symbols.
# - zstd (RFC 8878): a block of 128 KiB needs 3 bytes of header and 1 byte that is repeated.
# - lz4: each additional byte of a match's length stands for 255.
_EXPANSION = {
    "stored": 1,
    "gzip": 1032,
    "bz2": 900_000 * 51 // 24,
    "xz": 7_100,
    "lzma": 7_100,
    "zstd": 128 * 1024 // 4,
    "lz4": 255,
}
# by the method numbers of zip
_METHODS = {0: "stored", 8: "gzip", 12: "bz2", 14: "lzma"}
#: Compressed bytes that suffice to decode the first bytes of any image. A block of bzip2, which
#: can only be decoded as a whole, is shorter.
ENOUGH_TO_BEGIN = MiB
# of a compressed file, at once
_FIRST_FETCHED = 256 * 1024
_MOST_FETCHED = 8 * 1024**2
# decoded bytes at once
_PART = MiB


def begins_stream(head: bytes) -> str | None:
    """Return the codec of a stream that begins with `head`, by fsspec's names, or None."""
    return next((codec for magic, codec in _MAGIC.items() if re.match(magic, head)), None)


def codec_of(name: str) -> str | None:
    """Return the codec that a file is to be written with, by the suffix of its name.

    Raises
    ------
    MrcError
        If it is not installed.
    """
    from fsspec.utils import infer_compression

    codec: str | None = infer_compression(name.lower())
    if not name.lower().endswith(COMPRESSED_SUFFIXES):
        if codec is not None:
            raise MrcError(
                f"{name}: {codec} can be read and not written; accepted suffixes: "
                f"{', '.join(COMPRESSED_SUFFIXES)}"
            )
        return None
    if codec is None:
        # fsspec infers no codec that is not there
        codec = os.path.splitext(name.lower())[1].strip(".")
        _codec("zstd" if codec == "zst" else codec, name)
    return codec


def first_bytes(file: BinaryIO, nbytes: int) -> bytes:
    """Return the first bytes of a file, decoded where it is compressed.

    Parameters
    ----------
    file : binary file, at its start
    nbytes : int
        At most so many; fewer where the stream ends or can't be decoded.
    """
    head = file.read(nbytes)
    codec = begins_stream(head)
    if codec is None:
        return head
    raw = io.BytesIO(head + file.read(ENOUGH_TO_BEGIN))
    first = b""
    # the end of what was read is not the end of the stream
    with contextlib.suppress(Exception):
        for part in parts(decoder(codec, raw, ""), nbytes):
            first += part
    return first


def parts(decoded: Decoder, nbytes: int) -> Iterator[bytes]:
    """Yield `nbytes` bytes of a decoder's, and fewer at its end: those before a fault, before it.

    What the decoder raises is raised.
    """
    # not all decoders of fsspec's have it
    read = getattr(decoded, "read1", None) or decoded.read  # type: ignore[attr-defined]
    while nbytes and (part := read(min(nbytes, _PART))):
        yield part
        nbytes -= len(part)


def decoder(codec: str, file: BinaryIO, name: str) -> Decoder:
    """Return the decoded bytes of `file`.

    Raises
    ------
    MrcError
        If the package that decodes them is not installed, if the stream needs too much memory, or
        if it is an archive of several files.
    """
    if codec == "gzip":
        return GzipDecoder(file)
    if codec in ("xz", "lzma"):
        return XzDecoder(file, name)
    if codec == "zip":
        return open_member(file, name)
    opened: Decoder = _codec(codec, name)(file, mode="rb")
    return opened


def most_decoded(codec: str, source: ByteSource) -> int:
    """Return how many bytes a stream of its compressed size can decode to at most."""
    if codec != "zip":
        return source.size * _EXPANSION[codec]
    _, member = single_member(io.BufferedReader(InnerFile(source)), source.name)
    # the size in the directory may be wrong
    return min(member.compress_size, source.size) * _EXPANSION[_METHODS[member.compress_type]]


def memory_of(codec: str) -> int:
    """Return an estimate of the bytes that a decoder holds; for xz, those of ``xz -6``."""
    return {"gzip": MiB // 4, "bz2": 4 * MiB, "lz4": 4 * MiB}.get(codec, 8 * MiB)


def encoder(codec: str, file: BinaryIO, name: str) -> BinaryIO:
    """Return a file that encodes into `file` what is written to it.

    Raises
    ------
    MrcError
        If what encodes it is not installed.
    """
    # no name and no time, so that the same pixels give the same bytes
    if codec == "gzip" and isal() is not None:
        from isal import igzip

        faster: Any = igzip
        # the default: 10 times as fast as zlib's level 6, with little longer files for maps and
        # movies
        return faster.IGzipFile("", "wb", 2, file, mtime=0)  # type: ignore[no-any-return]
    if codec == "gzip":
        # the default of the program gzip
        return gzip.GzipFile("", "wb", 6, file, mtime=0)  # type: ignore[return-value]
    # what xz writes by default is another format
    options = {"format": lzma.FORMAT_ALONE} if codec == "lzma" else {}
    opened: BinaryIO = _codec(codec, name)(file, mode="wb", **options)
    return opened


def _codec(codec: str, name: str) -> Callable[..., Any]:
    from fsspec.compression import compr

    if codec not in compr:
        package = _PACKAGES.get(codec, codec)
        raise MrcError(f"{name}: a {codec} stream, which takes pip install {package}")
    known: Callable[..., Any] = compr[codec]
    return known


class InnerFile(io.RawIOBase):
    """A source as a file, for decoders. It holds no handle.

    Parameters
    ----------
    source : ByteSource
    head : bytes
        The first bytes, where they are at hand.
    most : int
        How many bytes of the source may be read.

    Attributes
    ----------
    error : Exception or None
        Why it could not be read: decoders call it their own failure.
    """

    def __init__(self, source: ByteSource, head: bytes = b"", most: int = sys.maxsize) -> None:
        self.error: Exception | None = None
        self._left = most
        self._source = source
        self._at = 0
        # what was read last: where it begins, and the bytes
        self._ahead = (0, head)
        self._next = _FIRST_FETCHED

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._source.size}[whence]
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        start, ahead = self._ahead
        if not start <= self._at < start + len(ahead):
            follows = self._at == start + len(ahead)
            start, ahead = self._ahead = (self._at, self._fetch(follows))
        known = memoryview(ahead)[self._at - start :][: len(view)]
        view[: len(known)] = known
        self._at += len(known)
        self._left -= len(known)
        if self._left < 0:
            self.error = MrcError(
                f"{self._source.name}: the beginning of the compressed stream does not decode to "
                "the first bytes of an image. The file may be damaged, or not an image."
            )
            raise self.error
        return len(known)

    @property
    def held(self) -> int:
        """How many bytes of the source are in memory."""
        return len(self._ahead[1])

    def _fetch(self, follows: bool) -> bytes:
        """Read more and more at once: the beginning is wanted soon, and all of it in few reads."""
        self._next = min(2 * self._next, _MOST_FETCHED) if follows else _FIRST_FETCHED
        n = min(self._next, self._source.size - self._at)
        if n <= 0:
            return b""
        try:
            return self._source.read(self._at, n)
        except Exception as error:
            self.error = error
            raise
