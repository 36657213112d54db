"""How much all decoded streams of a process may take together, in memory and then on disk."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import weakref
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Budget", "Limits", "NoRoom", "Pieces", "budget"]

#: Bytes of each piece of a stream but the last.
PIECE = 4 * 1024**2
# a quarter of a worker's memory; the rest is for the interpreter, the pixels of its tasks and
# their results
_SHARE_OF_WORKER = 4
# temporary files at once: a process can have only some hundred files open
_MOST_FILES = 64
# so many decoders stay open, however much memory they hold
_FEW_DECODERS = 4


@dataclass(frozen=True)
class Limits:
    """How many bytes of decoded streams a process may hold, and where.

    Attributes
    ----------
    memory, disk : int
        Bytes, of all streams of the process together.
    folder : str or None
        Where temporary files are, if configured.
    """

    memory: int
    disk: int
    folder: str | None

    @classmethod
    def configured(cls) -> Limits:
        """Return the limits of dask's configuration.

        Raises
        ------
        ValueError
            If a configured value is not a size.
        """
        from dask import config

        memory = _configured("mrc-xarray.decoded-memory", "1 GiB")
        disk = _configured("mrc-xarray.decoded-disk", "64 GiB")
        return cls(memory, disk, config.get("temporary-directory", None))


def _configured(key: str, default: str) -> int:
    from dask import config
    from dask.utils import parse_bytes

    value = config.get(key, default)
    try:
        nbytes: int = parse_bytes(value)
        if nbytes >= 0:
            return nbytes
    except (AttributeError, TypeError, ValueError):
        pass
    raise ValueError(
        f"dask's configuration has {key} = {value!r}; accepted: a size such as '512 MiB'"
    )


class NoRoom(Exception):  # noqa: N818  # users never see it
    """Neither memory nor disk has room for a piece."""


class Pieces:
    """The decoded bytes of one stream, from its start: first in memory, then in a file.

    The budget adds pieces. Any thread may read pieces that were added.
    """

    def __init__(self) -> None:
        self.memory: list[bytes | bytearray] = []
        self.file: _TemporaryFile | None = None
        self.on_disk = 0

    @property
    def in_memory(self) -> int:
        return sum(map(len, self.memory))

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes from `offset` on, all of which must have been added."""
        while len(buffer):
            n, start = divmod(offset, PIECE)
            if n >= len(self.memory):
                assert self.file is not None
                self.file.read_into(offset - len(self.memory) * PIECE, buffer)
                return
            part = memoryview(self.memory[n])[start : start + len(buffer)]
            buffer[: len(part)] = part
            buffer, offset = buffer[len(part) :], offset + len(part)


class Stream(Protocol):
    """A decoded stream, as the budget sees it."""

    used: float

    @property
    def pieces(self) -> Pieces:
        """The bytes that were decoded."""

    @property
    def working(self) -> int:
        """Bytes that the decoder holds; 0 if none is open."""

    def rest(self) -> None:
        """Close the decoder, unless it is decoding: the next read opens it again."""

    def forget(self) -> None:
        """Discard what was decoded: the next read starts from the beginning."""

    def renew(self) -> None:
        """Start from the beginning in the child of a fork, which has no other threads."""


class Budget:
    """The memory and disk space that all streams of this process share.

    Attributes
    ----------
    lock : threading.RLock
        Guards all attributes.

    Notes
    -----
    There is no running total. The sizes are added up whenever they are needed, so a stream that
    is garbage-collected frees its share by itself.
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self.lock = threading.RLock()
        self._streams: weakref.WeakSet[Any] = weakref.WeakSet()
        # also those that a stream discarded while they were being read
        self._pieces: weakref.WeakSet[Pieces] = weakref.WeakSet()

    def join(self, stream: Stream) -> None:
        """Register a stream, whose pieces may then be discarded to make room."""
        with self.lock:
            self._streams.add(stream)

    def keep(self, pieces: Pieces, piece: bytes | bytearray, limits: Limits) -> None:
        """Add a piece to those of a stream.

        Raises
        ------
        NoRoom
            If the piece does not fit even after all other streams were discarded.
        OSError
            If the temporary file can't be written.
        """
        with self.lock:
            self._pieces.add(pieces)
            while True:
                failure: Exception = NoRoom()
                try:
                    if self._place(pieces, piece, limits):
                        return
                except OSError as error:
                    # such as a disk that is full before its limit is reached
                    failure = error
                others = [s for s in self._oldest_first() if s.pieces is not pieces]
                if not any(_forget(stream) for stream in others):
                    raise failure

    def _place(self, pieces: Pieces, piece: bytes | bytearray, limits: Limits) -> bool:
        if not pieces.on_disk:
            held = sum(other.in_memory for other in self._pieces)
            if held + len(piece) <= _memory(limits):
                pieces.memory.append(piece)
                return True
        if sum(other.on_disk for other in self._pieces) + len(piece) > limits.disk:
            return False
        if pieces.file is None:
            files = [s for s in self._oldest_first() if s.pieces.file is not None]
            for stream in files[: len(files) + 1 - _MOST_FILES]:
                stream.forget()
            pieces.file = _TemporaryFile(limits.folder)
        pieces.file.write(pieces.on_disk, piece)
        pieces.on_disk += len(piece)
        return True

    def work(self, limits: Limits) -> None:
        """Close the least recently used decoders if all of them hold too much memory."""
        with self.lock:
            others = [s for s in self._oldest_first() if s.working]
            held = sum(other.working for other in others)
            for other in others[: max(len(others) - _FEW_DECODERS, 0)]:
                if held <= _memory(limits) // 2:
                    return
                held -= other.working
                other.rest()

    def renew(self) -> None:
        """Reset all streams in the child of a fork, since the pieces belong to the parent."""
        streams = list(self._streams)
        self._reset()
        for stream in streams:
            stream.renew()
            self.join(stream)

    def _oldest_first(self) -> list[Any]:
        return sorted(self._streams, key=lambda stream: stream.used)


def _memory(limits: Limits) -> int:
    """Return the limit in memory: the configured one, or a worker's share if that is less."""
    shares = [limit // _SHARE_OF_WORKER for limit in _limits_of_workers()]
    return min([limits.memory, *shares])


def _limits_of_workers() -> list[int]:
    """Return the memory limits of the workers of a cluster that are in this process.

    `distributed.get_worker` finds the worker only in the task's own thread, but sections are read
    by a pool of threads. So this uses the private list of all instances, as distributed itself
    does.
    """
    module = sys.modules.get("distributed.worker")
    if module is None:
        return []
    running = [w for w in module.Worker._instances if w.status.name not in ("closed", "failed")]
    return [w.memory_manager.memory_limit for w in running if w.memory_manager.memory_limit]


def _forget(stream: Stream) -> bool:
    """Discard what a stream has decoded; return False if there is nothing."""
    if not (stream.pieces.memory or stream.pieces.on_disk):
        return False
    stream.forget()
    return True


class _TemporaryFile:
    """A temporary file without a name, which is removed with this object."""

    def __init__(self, folder: str | None) -> None:
        # the user's folder may not exist on the machine of a worker
        is_here = folder is not None and os.path.isdir(folder)
        self.folder = folder if is_here else tempfile.gettempdir()
        self._lock = threading.Lock()
        self._file = tempfile.TemporaryFile(dir=self.folder, buffering=0)  # noqa: SIM115
        weakref.finalize(self, self._file.close)

    def write(self, offset: int, piece: bytes | bytearray) -> None:
        with self._lock:
            self._file.seek(offset)
            left = memoryview(piece)
            while left:
                left = left[self._file.write(left) :]

    def read_into(self, offset: int, buffer: memoryview) -> None:
        with self._lock:
            self._file.seek(offset)
            while len(buffer):
                buffer = buffer[self._file.readinto(buffer) :]


#: The budget of this process.
budget = Budget()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=budget.renew)
