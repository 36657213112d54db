"""A file on a disk that is changed in place, as it is at the moment of the change."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from mrc_xarray.errors import MrcError
from mrc_xarray.mrc.header import HEADER_SIZE, Header
from mrc_xarray.mrc.recognition import guess_byteorder, refuse_foreign
from mrc_xarray.pixels.modes import MODES
from mrc_xarray.storage import LocalSource, WriteTarget, place_of, redacted
from mrc_xarray.storage.base import Access, MiB
from mrc_xarray.storage.codecs import begins_stream
from mrc_xarray.storage.compressed import CompressedFile
from mrc_xarray.storage.destination import DiskDestination
from mrc_xarray.storage.identity import Node, node_of
from mrc_xarray.storage.locks import Lock
from mrc_xarray.storage.part import Buffer
from mrc_xarray.storage.sink import ByteSink, InPlace, NewFile
from mrc_xarray.storage.stream import damage
from mrc_xarray.suffixes import CODECS_BY_SUFFIX

__all__ = ["LiveFile", "local_path"]


def local_path(target: WriteTarget) -> str:
    """Return the path of a file that can be changed in place; raise MrcError for a store."""
    name, fs, path = place_of(target)
    if fs is not None:
        raise MrcError(
            f"{redacted(name)}: only a file on a disk can be filled or changed in "
            "place. Use a local file, and copy it when it is complete"
        )
    return os.path.realpath(os.path.expanduser(path))


@dataclass(frozen=True)
class LiveFile:
    """A file that other processes may be changing, with a header of the caller's choice.

    It has the protocol `Bytes`. A `LocalSource` would refuse to read a file that changes.
    """

    name: str
    size: int
    head: bytes
    node: Node | None
    #: Of the file, or of the decoded bytes of a compressed stream.
    path: str
    access: Access = LocalSource.access

    @classmethod
    def open(cls, path: str, lock: Lock) -> LiveFile:
        """Open the file; raise MrcError if it is not plain, or not the one that is locked."""
        file = cls._opened(path, path, lock)
        if (codec := begins_stream(file.head)) is not None:
            raise MrcError(
                f"{path}: a {codec} stream can't be changed in place; decompress it, or write "
                "another file with to_mrc"
            )
        return file

    @classmethod
    @contextlib.contextmanager
    def for_header(cls, path: str, lock: Lock) -> Iterator[tuple[LiveFile, ByteSink]]:
        """Open the file and, to change its header, the sink that finishes with a new one.

        A compressed stream is decoded to a temporary file, and replaced by the sink.
        """
        file = cls._opened(path, path, lock)
        codec = begins_stream(file.head)
        if codec is None:
            yield file, InPlace(path, file.size, file.head, file.node)
            return
        if codec not in CODECS_BY_SUFFIX.values():
            raise MrcError(f"{path}: {codec} can be read and not written; decompress the file")
        sink = NewFile.at(DiskDestination(path, overwrite=True, codec=codec))
        try:
            with sink.begin(0):
                sink.write(_decoded(path, codec))
                yield cls._opened(path, sink.part.path), sink
        finally:
            sink.discard()

    @classmethod
    def _opened(cls, name: str, path: str, lock: Lock | None = None) -> LiveFile:
        # refuses what is not a regular file
        LocalSource.open(path)
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            head = file.read(HEADER_SIZE)
        if len(head) < HEADER_SIZE and begins_stream(head) is None:
            refuse_foreign(name, head)
        if lock is not None and not lock.is_on(found):
            raise MrcError(f"{name}: another file has just taken its name; try again")
        return cls(name, found.st_size, head, node_of(found, path), path)

    @property
    def header(self) -> Header:
        """The header, in the byte order in which it makes sense."""
        return Header.parse(self.head, guess_byteorder(self.head, self.size, MODES))

    @property
    def local_path(self) -> str:
        """The path of the file."""
        return self.name

    def with_header(self, header: Header) -> LiveFile:
        """Return the file as it would be with another header."""
        try:
            return replace(self, head=header.encode())
        except (struct.error, UnicodeEncodeError, OverflowError) as error:
            raise MrcError(f"{self.name}: a value does not fit its field: {error}") from error

    def read(self, offset: int, nbytes: int) -> bytes:
        """Return bytes of the header of the caller's choice, and of the file after it."""
        with open(self.path, "rb") as file:
            file.seek(offset)
            data = file.read(nbytes)
        return self.head[offset : offset + nbytes] + data[max(HEADER_SIZE - offset, 0) :]

    def fetching(self) -> contextlib.AbstractContextManager[Callable[[int, int], bytes]]:
        """Return a context in which many reads are quick."""
        return contextlib.nullcontext(self.read)

    def read_sibling(self, name: str) -> bytes | None:
        """Return a file next to this one: an .mdoc or info file may give the layout."""
        return LocalSource.open(self.name).read_sibling(name)

    def sibling_names(self) -> list[str]:
        """Return the names of the files in the same folder."""
        return LocalSource.open(self.name).sibling_names()


def _decoded(path: str, codec: str) -> Iterator[Buffer]:
    """Yield the decoded bytes of a stream with their offsets; raise MrcError if it is damaged."""
    file, offset = CompressedFile(LocalSource.open(path), codec), 0
    while True:
        part, fault = file.read(MiB)
        if fault is not None:
            raise MrcError.of(path, damage(codec, str(fault) or type(fault).__name__))
        if not part:
            return
        yield offset, part
        offset += len(part)
