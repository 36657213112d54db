"""What all sources of bytes have in common."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, TypeAlias

from mrc_xarray.errors import MrcError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = [
    "FIRST_READ",
    "LONGEST_SIDECAR",
    "Access",
    "Alone",
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
#: Opening reads this much at once: the header, and in most files all that follows before pixels.
FIRST_READ = 64 * 1024
#: What is longer is no text that belongs to an image.
LONGEST_SIDECAR = 256 * MiB


@dataclass(frozen=True, slots=True)
class Access:
    """How a kind of source is best read, in bytes.

    Attributes
    ----------
    gap : int
        Unwanted bytes between two wanted ones that cost less than a second request.
    skip : int
        Bytes that cost less to read through than a further request, in a walk from one to the
        next.
    piece : int
        The longest single request.
    batch : int
        How much is asked for at once.
    """

    gap: int
    skip: int
    piece: int
    batch: int


@dataclass(frozen=True)
class InStore:
    """A file in a store that has not been opened yet.

    Attributes
    ----------
    fs : AbstractFileSystem
    path : str
        The name in the store. For HTTP this is the complete URL, with its secrets.
    name : str
        The URL for attributes and messages, without user, password and query string.
    """

    fs: AbstractFileSystem = field(repr=False)
    path: str = field(repr=False)
    name: str


class Bytes(Protocol):
    """Where the bytes of a file come from, as far as opening it needs."""

    @property
    def name(self) -> str:
        """The path or URL, for messages and for the suffix."""

    @property
    def size(self) -> int:
        """Length in bytes."""

    @property
    def known_size(self) -> int | None:
        """The same; None where it takes decoding a whole stream to tell."""

    def justify(self, end: int, longest: int) -> None:
        """Check that a file of unknown size can contain what its header promises.

        Parameters
        ----------
        end : int
            The byte after the last section.
        longest : int
            The largest of the numbers of sections, rows and columns.

        Raises
        ------
        MrcError
            If it can't.
        """

    def read(self, offset: int, nbytes: int) -> bytes:
        """Return `nbytes` bytes from `offset`."""

    @property
    def skip(self) -> int:
        """Bytes that are better skipped over than read through."""

    def fetching(self) -> contextlib.AbstractContextManager[Callable[[int, int], Any]]:
        """Make `read` quicker for many short reads one after the other."""

    def read_beside(self, name: str) -> bytes | None:
        """Return the content of the file of that name in the same folder; None if there is none.

        Also None where looking would cost a request that is seldom worth it.
        """


class ByteSource(Bytes, Protocol):
    """Bytes of one unchanging file, to be read from any position by any thread."""

    access: ClassVar[Access]

    @property
    def can_be_reopened(self) -> bool:
        """Whether another process can open the file by its name."""

    @property
    def stream(self) -> str | None:
        """What decodes the file, by fsspec's names, where it is a compressed stream."""

    def read_into(self, requests: Sequence[Request]) -> None:
        """Fill every buffer; raise MrcError where the file changed or is too short."""

    def until(self, end: int) -> ByteSource:
        """Return this source for who will read no farther than to `end`."""

    def make_sure(self, nbytes: int) -> None:
        """Before memory is taken for `nbytes`, raise MrcError where the file can't have them."""

    def map(self) -> mmap.mmap | None:
        """Map the file, writable without touching it; None where it can't be mapped."""

    def is_of(self, found: os.stat_result) -> bool:
        """Return whether the bytes are those of a file on a disk with this status."""

    def names_beside(self) -> list[str]:
        """Return the names of the files in the same folder."""

    def beside(self, name: str) -> str | InStore:
        """Return what `open_source` accepts for the file of that name in the same folder."""


class Alone:
    """What sources have in common that have nothing beside them, and no quicker way to walk."""

    access: ClassVar[Access]

    @property
    def can_be_reopened(self) -> bool:
        return True

    @property
    def known_size(self) -> int | None:
        return self.size  # type: ignore[attr-defined,no-any-return]  # every source has one

    @property
    def stream(self) -> str | None:
        return None

    def until(self, end: int) -> Self:
        return self

    def justify(self, end: int, longest: int) -> None:
        pass

    def make_sure(self, nbytes: int) -> None:
        pass

    @property
    def skip(self) -> int:
        return self.access.skip

    def read(self, offset: int, nbytes: int) -> bytes:
        raise NotImplementedError

    def fetching(self) -> contextlib.AbstractContextManager[Callable[[int, int], bytes]]:
        return contextlib.nullcontext(self.read)

    def read_beside(self, name: str) -> bytes | None:
        return None

    def is_of(self, found: os.stat_result) -> bool:
        return False

    def names_beside(self) -> list[str]:
        return []

    def beside(self, name: str) -> str | InStore:
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
