"""A gzip file that rapidgzip reads from any place, and what its threads ask for.

They are left behind by a fork, and abort the interpreter where they are still there at its end.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
import weakref
from typing import Any

from mrc_xarray.source.base import MiB, cores
from mrc_xarray.source.decoded import Sequential
from mrc_xarray.source.local import LocalSource

__all__ = ["Seekable", "has_rapidgzip"]

# what is decoded at once, on the way to the checksum
_PIECE = 4 * MiB


class Seekable:
    """A gzip file on a disk that rapidgzip reads from any place, by the index that it builds."""

    def __init__(self, inner: LocalSource, promised: int, instead: Sequential) -> None:
        self._inner = inner
        self._promised = promised
        # of a damaged stream it tells more, and reads more
        self._instead = instead
        self._gave_up = False
        # closing takes it, too, and a fork closes while it has it
        self._lock = threading.RLock()
        self._file: Any = None
        self._index: bytes | None = None
        self._close: weakref.finalize[Any, Any] | None = None

    @property
    def size(self) -> int:
        size = self._attempt(lambda file: int(file.seek(0, os.SEEK_END)))
        return self._instead.size if size is None else size

    @property
    def fault(self) -> str | None:
        return self._instead.fault

    def read_into(self, offset: int, buffer: memoryview) -> None:
        def fill(file: Any) -> bool:
            file.seek(offset)
            done = 0
            while done < len(buffer) and (n := file.readinto(buffer[done:])):
                done += n
            # the checksum is behind the last byte
            while offset + len(buffer) >= self._promised and file.read(_PIECE):
                pass
            return done == len(buffer)

        if not self._attempt(fill):
            self._instead.read_into(offset, buffer)

    def _attempt(self, work: Any) -> Any:
        """Do something with the open file; return None where that can't be done."""
        if self._gave_up:
            return None
        with self._lock:
            try:
                return work(self._opened())
            except MemoryError:
                raise
            except Exception:
                self._gave_up = True
                self.close()
                return None

    def _opened(self) -> Any:
        if self._file is None:
            import rapidgzip

            _make_room()
            self._file = rapidgzip.open(self._inner.name, parallelization=cores())
            # an open one aborts the interpreter at its end
            self._close = weakref.finalize(self, _close, self._file, self._lock)
            if self._index is not None:
                self._file.import_index(io.BytesIO(self._index))
        # the one that was used last comes last
        _opened.pop(id(self), None)
        _opened[id(self)] = weakref.ref(self)
        return self._file

    def rest(self) -> None:
        """Close the file, to be opened again with the index that it has by now."""
        if self._file is not None and self._file.block_offsets_complete():
            with contextlib.suppress(Exception), io.BytesIO() as index:
                self._file.export_index(index)
                self._index = index.getvalue()
        self.close()

    def rest_if_idle(self) -> None:
        """Do so, unless it is being read."""
        if self._lock.acquire(blocking=False):
            try:
                self.rest()
            finally:
                self._lock.release()

    def close(self) -> None:
        """Close the file."""
        if self._close is not None:
            self._close()
        self._file = self._close = None
        _opened.pop(id(self), None)

    def before_fork(self) -> None:
        """Stop the threads, which the child would wait for in vain, and keep the index."""
        self._lock.acquire()
        self.rest()

    def after_fork(self) -> None:
        """Let others read."""
        self._lock.release()


# who has an open file, by identity; a process may have so many, and each has threads
_opened: dict[int, weakref.ref[Seekable]] = {}
_MOST_OPEN = 16


def _make_room() -> None:
    for reference in list(_opened.values())[: 1 - _MOST_OPEN]:
        seekable = reference()
        if seekable is not None:
            seekable.rest_if_idle()


def _close(file: Any, lock: threading.RLock) -> None:
    # a daemon thread may be reading while the interpreter ends
    with lock:
        file.close()


def has_rapidgzip() -> bool:
    """Tell whether gzip can be read from any place."""
    try:
        import rapidgzip  # noqa: F401
    except ImportError:
        return False
    return True


_forking = threading.RLock()
_held: list[Seekable] = []


def _before_fork() -> None:
    # two threads that fork at once would each wait for what the other holds
    _forking.acquire()
    for reference in list(_opened.values()):
        seekable = reference()
        if seekable is not None:
            seekable.before_fork()
            _held.append(seekable)


def _after_fork() -> None:
    while _held:
        _held.pop().after_fork()
    _forking.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )
