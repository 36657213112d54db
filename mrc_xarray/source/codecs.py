"""What decodes a compressed stream, by how the stream begins. The codecs are fsspec's."""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from mrc_xarray.format import MrcError
from mrc_xarray.format.layout import COMPRESSED_SUFFIXES
from mrc_xarray.source.base import ByteSource

__all__ = ["InnerFile", "begins_stream", "codec_of", "decoder", "encoder", "first_bytes", "parts"]

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
# a block of bzip2 can't be decoded in part, and is shorter
_ENOUGH_TO_BEGIN = 1024**2
# of a compressed file, at once
_FIRST_FETCHED = 256 * 1024
_MOST_FETCHED = 8 * 1024**2


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
    raw = io.BytesIO(head + file.read(_ENOUGH_TO_BEGIN))
    first = b""
    # the end of what was read is not the end of the stream
    with contextlib.suppress(Exception):
        for part in parts(decoder(codec, raw, ""), nbytes):
            first += part
    return first


def parts(file: Any, nbytes: int) -> Iterator[bytes]:
    """Yield `nbytes` bytes of a decoder's, and fewer at its end: those before a fault, before it.

    What the decoder raises is raised.
    """
    # not all decoders of fsspec's have it
    read = getattr(file, "read1", file.read)
    while nbytes and (part := read(nbytes)):
        yield part
        nbytes -= len(part)


def decoder(codec: str, file: BinaryIO, name: str) -> BinaryIO:
    """Return the decoded bytes of `file`, as a file.

    Raises
    ------
    MrcError
        If what decodes them is not installed, or it is an archive of several files.
    """
    options = {}
    if codec == "zip":
        with zipfile.ZipFile(file) as archive:
            members = [member.filename for member in archive.infolist() if not member.is_dir()]
        if len(members) != 1:
            raise MrcError(
                f"{name}: a zip archive of {len(members)} files, and it is not clear which is "
                f"meant: fsspec opens one as zip://NAME::ARCHIVE, NAME being "
                f"{', '.join(members[:5])}{', …' * (len(members) > 5)}"
            )
        file.seek(0)
        options = {"filename": members[0]}
    opened: BinaryIO = _codec(codec, name)(file, mode="rb", **options)
    return opened


def encoder(codec: str, file: BinaryIO, name: str) -> BinaryIO:
    """Return a file that encodes into `file` what is written to it.

    Raises
    ------
    MrcError
        If what encodes it is not installed.
    """
    if codec == "gzip":
        # the program's own level, and no name or time, so that the same pixels are the same bytes
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

    Attributes
    ----------
    error : Exception or None
        Why it could not be read: decoders call it their own failure.
    """

    def __init__(self, source: ByteSource, head: bytes = b"") -> None:
        self.error: Exception | None = None
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
        return len(known)

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
