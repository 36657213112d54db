"""Sources without a name to open them by again: bytes in memory, and open file objects."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, ClassVar

from mrc_xarray.storage.base import Access, ByteSource, MiB, Request, too_short

__all__ = ["FileObjectSource", "MemorySource"]


@dataclass(frozen=True)
class MemorySource(ByteSource):
    """Bytes that are already in memory."""

    access: ClassVar[Access] = Access(gap=0, skip=1024, piece=8 * MiB, batch=8 * MiB)

    data: bytes = field(repr=False)
    name: str = "<bytes>"

    can_be_reopened = False

    @property
    def size(self) -> int:  # type: ignore[override]  # nothing assigns to a frozen source
        return len(self.data)

    def read(self, offset: int, nbytes: int) -> bytes:
        return self.data[offset : offset + nbytes]

    def read_into(self, requests: Sequence[Request]) -> None:
        view = memoryview(self.data)
        for offset, buffer in requests:
            buffer[:] = view[offset : offset + len(buffer)]


class FileObjectSource(ByteSource):
    """An open file that has no name to open it by again, such as a member of an archive.

    It has one position, so reads wait for each other, and it can't be sent to another process.
    """

    access: ClassVar[Access] = Access(gap=64 * 1024, skip=1024, piece=8 * MiB, batch=8 * MiB)
    can_be_reopened = False

    def __init__(self, file: BinaryIO) -> None:
        self.name = f"<{type(file).__name__}>"
        self._file = file
        self._lock = _lock_of(file)
        with self._position():
            self.size = file.seek(0, os.SEEK_END)

    def __copy__(self) -> FileObjectSource:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(
            f"{self.name}: an open file object can't be sent to another process; "
            "open the file by its path or URL"
        )

    def read_into(self, requests: Sequence[Request]) -> None:
        with self._position():
            for offset, buffer in requests:
                self._file.seek(offset)
                done = 0
                while done < len(buffer):
                    data = self._file.read(len(buffer) - done)
                    if not data:
                        raise too_short(self.name, offset, len(buffer), done)
                    buffer[done : done + len(data)] = data
                    done += len(data)

    def is_of(self, found: os.stat_result) -> bool:
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), found)
        except (AttributeError, OSError, ValueError):
            return False

    @contextlib.contextmanager
    def _position(self) -> Iterator[None]:
        """Hold the file, and restore the user's position in it."""
        with self._lock:
            before = self._file.tell()
            try:
                yield
            finally:
                self._file.seek(before)


# sources of one file object share its position
_locks: weakref.WeakKeyDictionary[Any, threading.Lock] = weakref.WeakKeyDictionary()


def _lock_of(file: BinaryIO) -> threading.Lock:
    try:
        return _locks.setdefault(file, threading.Lock())
    except TypeError:
        # without weak references, two sources of one file object can't find a common lock
        return threading.Lock()
