"""What all sources of bytes have in common."""

from __future__ import annotations

import contextlib
import mmap
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias

from mrc_xarray.errors import MrcError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = [
    "FIRST_READ",
    "LONGEST_SIDECAR",
    "Access",
    "ByteSource",
    "Bytes",
    "InStore",
    "MiB",
    "Request",
    "changed",
    "cores",
    "too_short",
]

#: First byte in the file, and the buffer to fill from there.
Request: TypeAlias = tuple[int, memoryview]

MiB = 1024**2
#: Opening a file starts with one read of this size: the header, and usually the extended header.
FIRST_READ = 64 * 1024
#: Longer files are not read as sidecars.
LONGEST_SIDECAR = 256 * MiB


@dataclass(frozen=True, slots=True)
class Access:
    """How a kind of source is best read, in bytes."""

    #: Unwanted bytes between two wanted ranges that cost less than a second request.
    gap: int
    #: The same for a walk from one block to the next, which can't request both at once.
    skip: int
    #: The longest single request.
    piece: int
    #: How much is requested at once.
    batch: int


@dataclass(frozen=True)
class InStore:
    """A file in a store that has not been opened yet."""

    fs: AbstractFileSystem = field(repr=False)
    #: The name in the store. For HTTP this is the complete URL, with its secrets.
    path: str = field(repr=False)
    #: The URL for attributes and messages, without user, password and query string.
    name: str


class Bytes(Protocol):
    """The part of a `ByteSource` that opening a file needs."""

    @property
    def access(self) -> Access: ...

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int | None: ...

    @property
    def local_path(self) -> str | None: ...

    def read(self, offset: int, nbytes: int) -> bytes: ...

    def fetching(self) -> contextlib.AbstractContextManager[Callable[[int, int], Any]]: ...

    def read_sibling(self, name: str) -> bytes | None: ...

    def sibling_names(self) -> list[str]: ...


class ByteSource(ABC):
    """Bytes of one unchanging file, to be read from any position by any thread.

    Attributes
    ----------
    access : Access
    name : str
        The path or URL, for messages and for the suffix.
    size : int or None
        Length in bytes. It is None for a compressed stream that was not decoded to its end.
    local_path : str or None
        The path of a file on a disk whose bytes are these. None for any other source.
    can_be_reopened : bool
        Whether another process can read the file by its name.
    is_on_local_disk : bool
        Whether it is known that the pages of a map come from a disk of this machine, and not one
        by one over a network.
    """

    access: ClassVar[Access]
    name: str
    size: int | None

    @property
    def plausible_size(self) -> int:
        """Length in bytes, or the most that it can be if `size` is None."""
        assert self.size is not None
        return self.size

    @property
    def local_path(self) -> str | None:
        return None

    @property
    def can_be_reopened(self) -> bool:
        return True

    @property
    def is_on_local_disk(self) -> bool:
        return False

    @abstractmethod
    def read_into(self, requests: Sequence[Request]) -> None:
        """Fill every buffer; raise MrcError if the file changed or is too short."""

    def read(self, offset: int, nbytes: int) -> bytes:
        """Return `nbytes` bytes from `offset`."""
        buffer = bytearray(nbytes)
        self.read_into([(offset, memoryview(buffer))])
        return bytes(buffer)

    def expecting(self, end: int, longest: int) -> ByteSource:
        """Return this source for a file with pixels up to the byte `end`.

        A stream raises MrcError if it can't contain them, or `longest` sections, rows or columns.
        """
        return self

    def read_all(self) -> bytes:
        """Return the content of the complete file."""
        assert self.size is not None
        return self.read(0, self.size)

    def fetching(self) -> contextlib.AbstractContextManager[Callable[[int, int], bytes]]:
        """Return a context whose function is a faster `read`, for many short reads in turn."""
        return contextlib.nullcontext(self.read)

    def map(self, *, writable: bool) -> mmap.mmap | None:
        """Map the file; return None if it can't be mapped.

        Writing to a writable map does not change the file.
        """
        return None

    def is_of(self, found: os.stat_result) -> bool:
        """Return whether the bytes come from the file on a disk with this status."""
        return False

    def read_sibling(self, name: str) -> bytes | None:
        """Return the content of another file in the same folder, or None if there is none."""
        return None

    def sibling_names(self) -> list[str]:
        """Return the names of the files in the same folder."""
        return []

    def sibling(self, name: str) -> str | InStore:
        """Return what `open_source` accepts for another file in the same folder."""
        return name


def too_short(name: str, offset: int, wanted: int, got: int) -> MrcError:
    """Return the error for a file that ended while it was read."""
    return MrcError(
        f"{name}: the file ended while it was read: {got} of {wanted} bytes from byte {offset}"
    )


def changed(name: str, how: str) -> MrcError:
    """Return the error for a file that is not the one that was opened."""
    return MrcError(
        f"{name}: the file changed since it was opened ({how}); open it again to read it as it is"
    )


def cores() -> int:
    """Return how many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1
