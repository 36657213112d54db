"""A file on a disk that is changed in place, as it is at the moment of the change."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace

from mrc_xarray.errors import MrcError
from mrc_xarray.mrc.header import HEADER_SIZE, Header
from mrc_xarray.mrc.recognition import refuse_foreign
from mrc_xarray.storage import LocalSource, filesystem, redacted
from mrc_xarray.storage.base import Access
from mrc_xarray.storage.codecs import begins_stream
from mrc_xarray.storage.identity import Node, node_of
from mrc_xarray.storage.locks import Lock

__all__ = ["LiveFile", "local_path"]


def local_path(target: str | os.PathLike[str]) -> str:
    """Return the path of a file that can be changed in place; raise MrcError for a store."""
    fs, path = filesystem(os.fsdecode(target))
    if fs is not None:
        raise MrcError(
            f"{redacted(os.fsdecode(target))}: only a file on a disk can be filled or changed in "
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
    access: Access = LocalSource.access

    @classmethod
    def open(cls, path: str, lock: Lock) -> LiveFile:
        """Open the file; raise MrcError if it is not plain, or not the one that is locked."""
        # refuses what is not a regular file
        LocalSource.open(path)
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            head = file.read(HEADER_SIZE)
        if len(head) < HEADER_SIZE:
            refuse_foreign(path, head)
        if not lock.is_on(found):
            raise MrcError(f"{path}: another file has just taken its name; try again")
        if (codec := begins_stream(head)) is not None:
            raise MrcError(
                f"{path}: a {codec} stream can't be changed in place; decompress it, or write "
                "another file with to_mrc"
            )
        return cls(path, found.st_size, head, node_of(found, path))

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
        with open(self.name, "rb") as file:
            file.seek(offset)
            data = file.read(nbytes)
        return self.head[offset : offset + nbytes] + data[max(HEADER_SIZE - offset, 0) :]

    def fetching(self) -> contextlib.AbstractContextManager[Callable[[int, int], bytes]]:
        """Return a context in which many reads are quick."""
        return contextlib.nullcontext(self.read)

    def read_sibling(self, name: str) -> bytes | None:
        """Return a file next to this one: an .mdoc or info file may give the layout."""
        return LocalSource.open(self.name).read_sibling(name)
