"""Decoders of gzip, xz and zip with limited output and memory.

They exist because the standard library's file classes lack three things. `gzip` can't use a faster
inflate, and isal's own class loses the bytes in front of an error. `lzma` allocates whatever the
stream asks for. `zipfile` decodes all of the input that it holds, however large the output is.
"""

from __future__ import annotations

import bz2
import contextlib
import copy
import gzip
import io
import lzma
import re
import struct
import zipfile
import zlib
from types import ModuleType
from typing import Any, BinaryIO, Protocol

from mrc_xarray.errors import MrcError

__all__ = ["Decoder", "GzipDecoder", "XzDecoder", "isal", "open_member", "single_member"]

# compressed bytes that are decoded at once: few, because the unused rest is copied each time
_BLOCK = 16 * 1024
# xz -9 uses 64 MiB, and the libraries of zstd refuse more than this
_MOST_DICTIONARY = 128 * 1024**2
# a decoder needs some KiB more than its dictionary
_MOST_MEMORY = _MOST_DICTIONARY + 1024**2
# far more than one entry needs: name, extra field and comment have up to 64 KiB each
_LONGEST_DIRECTORY = 1024**2
# bytes at once from a decoder that does not limit its output
_SIP = 4096
_EXTRA, _NAME, _COMMENT, _HEADER_CRC = 4, 8, 16, 2
# supported methods of zip; the others depend on the version of Python
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_CUT = "Compressed file ended before the end-of-stream marker was reached"


class Decoder(Protocol):
    """The bytes that a stream decodes to."""

    def read1(self, nbytes: int, /) -> bytes:
        """Return up to `nbytes` of the next bytes, and none at the end."""


def isal() -> ModuleType | None:
    """Return ISA-L's zlib, which inflates faster; None if it is not installed."""
    try:
        from isal import isal_zlib
    except ImportError:
        return None
    module: ModuleType = isal_zlib
    return module


class GzipDecoder:
    """The members of a gzip file (RFC 1952), decoded by ISA-L or the standard library's zlib.

    It raises the same exceptions as `gzip`, but only after it has returned all bytes in front of
    the fault.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._zlib: Any = isal() or zlib
        # compressed bytes that were read but not used yet
        self._ahead: bytes = file.read(_BLOCK)
        self._member: Any = None
        self._crc = self._length = 0

    def read1(self, nbytes: int, /) -> bytes:
        while True:
            if self._member is not None and self._member.eof:
                self._check_trailer()
            if self._member is None and not self._begin_member():
                return b""
            given = self._ahead or self._file.read(_BLOCK)
            data: bytes = self._member.decompress(given, nbytes)
            is_over = self._member.eof
            self._ahead = self._member.unused_data if is_over else self._member.unconsumed_tail
            if data:
                self._crc = self._zlib.crc32(data, self._crc)
                self._length += len(data)
                return data
            if not given and not is_over:
                raise EOFError(_CUT)

    def _begin_member(self) -> bool:
        """Read the header of the next member; return False if there is none."""
        magic = self._take(2, at_most=True)
        if not magic:
            return False
        if magic != b"\x1f\x8b":
            raise gzip.BadGzipFile(f"Not a gzipped file ({magic!r})")
        method, flags = struct.unpack("<BB6x", self._take(8))
        if method != 8:
            raise gzip.BadGzipFile("Unknown compression method")
        if flags & _EXTRA:
            self._take(struct.unpack("<H", self._take(2))[0])
        for flag in (_NAME, _COMMENT):
            if flags & flag:
                self._skip_text()
        if flags & _HEADER_CRC:
            self._take(2)
        self._member = self._zlib.decompressobj(wbits=-zlib.MAX_WBITS)
        self._crc = self._length = 0
        return True

    def _check_trailer(self) -> None:
        self._member = None
        crc, length = struct.unpack("<II", self._take(8))
        if crc != self._crc:
            raise gzip.BadGzipFile(f"CRC check failed {crc:#x} != {self._crc:#x}")
        if length != self._length % 2**32:
            raise gzip.BadGzipFile("Incorrect length of data produced")
        # zeros may fill the last block of a tape
        self._ahead = self._ahead.lstrip(b"\0")
        while not self._ahead and (block := self._file.read(_BLOCK)):
            self._ahead = block.lstrip(b"\0")

    def _take(self, nbytes: int, *, at_most: bool = False) -> bytes:
        missing = nbytes - len(self._ahead)
        if missing > 0:
            self._ahead += self._file.read(max(missing, _BLOCK))
        if len(self._ahead) < nbytes and not at_most:
            raise EOFError(_CUT)
        taken, self._ahead = self._ahead[:nbytes], self._ahead[nbytes:]
        return taken

    def _skip_text(self) -> None:
        while (end := self._ahead.find(b"\0")) < 0:
            if not (block := self._file.read(_BLOCK)):
                raise EOFError(_CUT)
            self._ahead = block
        self._ahead = self._ahead[end + 1 :]


class XzDecoder:
    """The streams of an .xz or .lzma file. Dictionaries above 128 MiB are refused."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        self._stream = self._new_stream()

    def read1(self, nbytes: int, /) -> bytes:
        while True:
            if self._stream.eof:
                follows = self._stream.unused_data or self._file.read(_BLOCK)
                self._stream = self._new_stream()
                try:
                    data = follows and self._decode(follows, nbytes)
                except lzma.LZMAError:
                    # what follows is not a stream, and is ignored
                    return b""
                if not follows:
                    return b""
            else:
                given = self._file.read(_BLOCK) if self._stream.needs_input else b""
                if self._stream.needs_input and not given:
                    raise EOFError(_CUT)
                data = self._decode(given, nbytes)
            if data:
                return data

    @staticmethod
    def _new_stream() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(memlimit=_MOST_MEMORY)

    def _decode(self, given: bytes, nbytes: int) -> bytes:
        try:
            return self._stream.decompress(given, nbytes)
        except lzma.LZMAError as error:
            if "Memory usage limit" not in str(error):
                raise
            raise too_much_memory(self._name, _dictionary(given)) from None


def _dictionary(stream: bytes) -> int | None:
    """Return the size of the dictionary that an .xz or .lzma stream needs; None if unknown.

    In .xz it is one byte after the id of LZMA2, 0x21, at the end of the first block's header. Only
    padding and a checksum follow. See sections 3.1 and 5.3.1 of the .xz file format.
    """
    if stream.startswith(b"\x5d\0\0"):
        return int.from_bytes(stream[1:5], "little")
    end = 12 + 4 * stream[12] if len(stream) > 12 and stream.startswith(b"\xfd7zXZ\0") else 0
    found = re.search(rb"\x21\x01(.)\0{0,3}\Z", stream[12:end], re.DOTALL)
    if found is None:
        return None
    bits = min(found[1][0], 40)
    return 2**32 - 1 if bits == 40 else (2 | bits & 1) << (bits // 2 + 11)


def too_much_memory(name: str, dictionary: int | None) -> MrcError:
    """Return the error for a stream whose dictionary is too large."""
    asked = "more" if dictionary is None else f"{dictionary} bytes"
    return MrcError(
        f"{name}: the stream needs a dictionary of {asked}; accepted: up to "
        f"{_MOST_DICTIONARY} bytes. Decompress the file, or compress it with `xz -9` or less."
    )


def single_member(file: BinaryIO, name: str) -> tuple[zipfile.ZipFile, zipfile.ZipInfo]:
    """Open a zip archive, and return it with the entry of its only member.

    Raises
    ------
    MrcError
        If there is not exactly one member, or its compression method is not supported.
    """
    archive = zipfile.ZipFile(_ShortReads(file, name))
    members = [member for member in archive.infolist() if not member.is_dir()]
    if len(members) != 1:
        # names may be long, and contain any character
        names = [repr(member.filename[:200])[1:-1] for member in members[:5]]
        raise MrcError(
            f"{name}: a zip archive of {len(members)} files; accepted: one file. To choose one, "
            f"open zip://NAME::ARCHIVE. The names are "
            f"{', '.join(names)}{', …' * (len(members) > 5)}"
        )
    if members[0].compress_type not in _METHODS:
        raise MrcError(
            f"{name}: a zip archive whose member is compressed by method "
            f"{members[0].compress_type}; accepted: {', '.join(map(str, _METHODS))} "
            "(stored, deflate, bzip2 and LZMA). Unpack the archive."
        )
    return archive, members[0]


class _ShortReads(io.BufferedReader):
    """The file of an archive, which refuses the one long read of a very long directory."""

    def __init__(self, file: Any, name: str) -> None:
        super().__init__(file)
        self._archive = name

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _LONGEST_DIRECTORY:
            raise MrcError(
                f"{self._archive}: a zip archive whose directory has {size} bytes; accepted: up "
                f"to {_LONGEST_DIRECTORY} bytes, for one file. Unpack the archive."
            )
        return super().read(size)


def open_member(file: BinaryIO, name: str) -> Decoder:
    """Open the only member of a zip archive, whatever its method."""
    archive, member = single_member(file, name)
    if member.compress_type == zipfile.ZIP_BZIP2:
        # zipfile would decode all input that it holds, without a limit
        return bz2.BZ2File(_as_it_is(archive, member))
    opened: Any = archive.open(member)
    if member.compress_type != zipfile.ZIP_LZMA:
        return opened  # type: ignore[no-any-return]
    # version and length of the properties (2 bytes each), a byte, and the size of the dictionary
    with contextlib.closing(_as_it_is(archive, member)) as raw:
        dictionary = int.from_bytes(raw.read(9)[5:], "little")
    if dictionary > _MOST_DICTIONARY:
        raise too_much_memory(name, dictionary)
    return _Sips(opened)


def _as_it_is(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Any:
    """Open the compressed bytes of a member, by pretending to `zipfile` that it is stored."""
    stored = copy.copy(member)
    stored.compress_type = zipfile.ZIP_STORED
    stored.file_size = stored.compress_size
    # the checksum is that of the decoded bytes
    del stored.CRC
    return archive.open(stored)


class _Sips:
    """A file that is read in small parts."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def read1(self, nbytes: int, /) -> bytes:
        part: bytes = self._file.read1(min(nbytes, _SIP))
        return part
