"""Decoders of gzip, bzip2, xz and zip with limited output and memory.

The standard library's file classes don't suffice. `gzip` can't use a faster inflate, and isal's
own class loses the bytes in front of an error. `lzma` allocates whatever the stream requests.
`zipfile` decodes all of the input that it holds, however large the output is.
"""

from __future__ import annotations

import bz2
import contextlib
import copy
import gzip
import lzma
import re
import struct
import zipfile
import zlib
from types import ModuleType
from typing import Any, BinaryIO, Protocol

from mrc_xarray.errors import MrcError

__all__ = ["Decoder", "MemberDecoder", "isal", "open_archive"]

# compressed bytes that are decoded at once: few, because the unused rest is copied each time
_BLOCK = 16 * 1024
# checksum and size after a gzip member
_TRAILER = struct.Struct("<2I")
# xz -9 uses 64 MiB, and the libraries of zstd refuse more than this
_MOST_DICTIONARY = 128 * 1024**2
# a decoder needs some KiB more than its dictionary
_MOST_MEMORY = _MOST_DICTIONARY + 1024**2
# decoded bytes at once from LZMA in zip, whose decoder does not limit its output
_SIP = 4096
# supported methods of zip; others depend on the version of Python
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


class Decoder(Protocol):
    """The bytes that a stream decodes to."""

    def read1(self, nbytes: int, /) -> bytes:
        """Return up to `nbytes` of the next bytes, or none at the end."""


def isal() -> ModuleType | None:
    """Return ISA-L's zlib, which inflates faster; None if it is not installed."""
    try:
        from isal import isal_zlib
    except ImportError:
        return None
    module: ModuleType = isal_zlib
    return module


class MemberDecoder:
    """The members of a gzip, bzip2, xz or lzma file.

    Bytes in front of a fault are returned before it is raised, except for those of the last
    `_BLOCK` compressed bytes in front of invalid data. A wrong checksum of gzip, after which all
    bytes are returned, is a `gzip.BadGzipFile`. Between members there may be zeros; other data
    after a member are ignored.
    """

    def __init__(self, codec: str, magic: bytes, file: BinaryIO, name: str) -> None:
        self._codec = codec
        self._magic = magic
        self._file = file
        self._name = name
        self._member: Any = None
        # compressed bytes that were read but not used yet
        self._ahead = b""

    def read1(self, nbytes: int, /) -> bytes:
        data = b""
        while not data:
            if (self._member is None or self._member.eof) and not self._begin_member():
                return b""
            data = self._decode(nbytes)
        return data

    def _begin_member(self) -> bool:
        ahead = b"" if self._member is None else self._member.unused_data.lstrip(b"\0")
        while not ahead:
            if not (block := self._file.read(_BLOCK)):
                return False
            ahead = block.lstrip(b"\0")
        if len(ahead) < _BLOCK:
            # the header has to be complete
            ahead += self._file.read(_BLOCK)
        if not re.match(self._magic, ahead):
            return False
        self._ahead = ahead
        if self._codec == "gzip":
            self._ahead = ahead[_gzip_header(ahead) :]
            self._member = _Inflate()
        elif self._codec == "bz2":
            self._member = bz2.BZ2Decompressor()
        else:
            self._member = lzma.LZMADecompressor(memlimit=_MOST_MEMORY)
        return True

    def _decode(self, nbytes: int) -> bytes:
        needs_input = self._member.needs_input
        given = self._ahead or (self._file.read(_BLOCK) if needs_input else b"")
        self._ahead = b""
        try:
            data: bytes = self._member.decompress(given, nbytes)
        except Exception as error:
            if "Memory usage limit" in str(error):
                raise _too_much_memory(self._name, _dictionary(given)) from None
            raise
        if needs_input and not (data or given or self._member.eof):
            raise EOFError("Compressed file ended before the end-of-stream marker was reached")
        return data


class _Inflate:
    """A decompressor of one gzip member, with the interface of `bz2.BZ2Decompressor`.

    The checksum is compared here, because zlib and isal discard what they have decoded in the call
    that finds a wrong one.
    """

    def __init__(self) -> None:
        self._library: Any = isal() or zlib
        self._inflate = self._library.decompressobj(wbits=-zlib.MAX_WBITS)
        self._checksum = self._size = 0
        self._rest = b""
        self.eof = False

    def decompress(self, data: bytes, max_length: int) -> bytes:
        if self._inflate.eof:
            self._rest += data
            if len(self._rest) >= _TRAILER.size:
                self._check()
            return b""
        decoded: bytes = self._inflate.decompress(self._inflate.unconsumed_tail + data, max_length)
        self._checksum = self._library.crc32(decoded, self._checksum)
        self._size += len(decoded)
        self._rest = self._inflate.unused_data
        return decoded

    def _check(self) -> None:
        checksum, size = _TRAILER.unpack_from(self._rest)
        if (checksum, size) != (self._checksum, self._size % 2**32):
            raise gzip.BadGzipFile("the checksum or the size of the decoded bytes is wrong")
        self.eof = True

    @property
    def needs_input(self) -> bool:
        if self._inflate.eof:
            return len(self._rest) < _TRAILER.size
        return not self._inflate.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._rest[_TRAILER.size :]


def _gzip_header(stream: bytes) -> int:
    """Return the length of the header of a gzip member; see section 2.3 of RFC 1952."""
    flags, size = stream[3] if len(stream) >= 10 else 0, 10
    if flags & 4:
        size += 2 + int.from_bytes(stream[10:12], "little")
    for flag in (8, 16):
        # the name and the comment end with a zero
        size = stream.find(b"\0", size) + 1 if flags & flag and size else size
    size += 2 * bool(flags & 2)
    if 10 <= size <= len(stream):
        return size
    raise EOFError(f"the header of a gzip member has no end in {len(stream)} bytes")


def _dictionary(stream: bytes) -> int | None:
    """Return the size of the dictionary that an .xz stream needs; None if unknown.

    It is one byte after the id of LZMA2, 0x21, at the end of the first block's header. Only
    padding and a checksum follow. See sections 3.1 and 5.3.1 of the .xz file format.
    """
    end = 12 + 4 * stream[12] if len(stream) > 12 else 0
    found = re.search(rb"\x21\x01(.)\0{0,3}\Z", stream[12:end], re.DOTALL)
    if found is None:
        return None
    bits = min(found[1][0], 40)
    return 2**32 - 1 if bits == 40 else (2 | bits & 1) << (bits // 2 + 11)


def _too_much_memory(name: str, dictionary: int | None) -> MrcError:
    found = "more" if dictionary is None else f"{dictionary} bytes"
    return MrcError(
        f"{name}: the stream needs a dictionary of {found}; accepted: up to "
        f"{_MOST_DICTIONARY} bytes. Decompress the file, or compress it with `xz -9` or less."
    )


def open_archive(file: BinaryIO, name: str) -> Decoder:
    """Open the only member of a zip archive; raise MrcError if that is not possible."""
    archive = zipfile.ZipFile(file)
    members = [member for member in archive.infolist() if not member.is_dir()]
    if len(members) != 1:
        # names may be long, and contain any character
        names = [repr(member.filename[:200])[1:-1] for member in members[:5]]
        raise MrcError(
            f"{name}: a zip archive of {len(members)} files; accepted: one file. To choose one, "
            f"open zip://NAME::ARCHIVE. The names are "
            f"{', '.join(names)}{', …' * (len(members) > 5)}"
        )
    (member,) = members
    if member.compress_type not in _METHODS:
        raise MrcError(
            f"{name}: a zip archive whose member is compressed by method "
            f"{member.compress_type}; accepted: {', '.join(map(str, _METHODS))} "
            "(stored, deflate, bzip2 and LZMA). Unpack the archive."
        )
    if member.compress_type == zipfile.ZIP_BZIP2:
        # zipfile would decode all input that it holds, without a limit
        return bz2.BZ2File(_open_compressed(archive, member))
    opened: Any = archive.open(member)
    if member.compress_type != zipfile.ZIP_LZMA:
        return opened  # type: ignore[no-any-return]
    # version and length of the properties (2 bytes each), a byte, and the size of the dictionary
    with contextlib.closing(_open_compressed(archive, member)) as raw:
        dictionary = int.from_bytes(raw.read(9)[5:], "little")
    if dictionary > _MOST_DICTIONARY:
        raise _too_much_memory(name, dictionary)
    return _Sips(opened)


def _open_compressed(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Any:
    """Open the compressed bytes of a member: as if it were stored, for `zipfile`."""
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
