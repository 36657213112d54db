"""What a process holds of all decoded streams together: in memory, and beyond that on disk."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import weakref
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Budget", "Limits", "NoRoom", "Pieces", "budget"]

#: Each piece of a stream has this length, but the last.
PIECE = 4 * 1024**2
# of a worker's memory: the rest is for the interpreter, the pixels of its tasks and their results
_SHARE_OF_WORKER = 4
# temporary files at once: a process may have some hundred files open
_MOST_FILES = 64
# open decoders of streams at rest that are never closed, however much memory they hold
_FEW_DECODERS = 4


@dataclass(frozen=True)
class Limits:
    """How much of decoded streams a process may hold, in bytes, and where.

    Attributes
    ----------
    memory, disk : int
        Of all streams of the process together.
    folder : str or None
        Of the temporary file, where the user says so.
    """

    memory: int
    disk: int
    folder: str | None

    @classmethod
    def configured(cls) -> Limits:
        """Take them from dask's configuration."""
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
    raise ValueError(f"dask's {key} is {value!r}; accepted: a size such as '512 MiB'")


class NoRoom(Exception):  # noqa: N818  # it never leaves the package
    """Neither memory nor disk has room for a piece."""


class Pieces:
    """What was decoded of one stream, from its start: first in memory, then in a file.

    The budget adds to them; any thread reads what was added.
    """

    def __init__(self) -> None:
        self.memory: list[bytes | bytearray] = []
        self.file: _TemporaryFile | None = None
        self.on_disk = 0

    @property
    def in_memory(self) -> int:
        return sum(map(len, self.memory))

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes from `offset`, which were added before."""
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
        """What was decoded of it."""

    @property
    def working(self) -> int:
        """Bytes that its decoder holds; 0 where none is open."""

    def rest(self) -> None:
        """Close the decoder, unless it is decoding: the next read opens it again."""

    def forget(self) -> None:
        """Let go what was decoded: the next read begins anew."""

    def renew(self) -> None:
        """Begin anew in the child of a fork, where no other thread is."""


class Budget:
    """What all streams of this process may hold.

    Attributes
    ----------
    lock : threading.RLock
        Of everything here.

    Notes
    -----
    Nothing is counted: what is there is added up when there is need, so that a stream that
    nobody refers to any more gives back its bytes by being gone.
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self.lock = threading.RLock()
        self._streams: weakref.WeakSet[Any] = weakref.WeakSet()
        # also of streams that were forgotten while they were read
        self._pieces: weakref.WeakSet[Pieces] = weakref.WeakSet()

    def join(self, stream: Stream) -> None:
        """Let a stream take part."""
        with self.lock:
            self._streams.add(stream)

    def keep(self, pieces: Pieces, piece: bytes | bytearray, limits: Limits) -> None:
        """Add a piece to those of a stream.

        Raises
        ------
        NoRoom
            If it is too much even without all other streams.
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
        """Close decoders that were not used for long, where they hold much in memory."""
        with self.lock:
            others = [s for s in self._oldest_first() if s.working]
            held = sum(other.working for other in others)
            for other in others[: max(len(others) - _FEW_DECODERS, 0)]:
                if held <= _memory(limits) // 2:
                    return
                held -= other.working
                other.rest()

    def renew(self) -> None:
        """Begin anew in the child of a fork: the parent's pieces are the parent's."""
        streams = list(self._streams)
        self._reset()
        for stream in streams:
            stream.renew()
            self.join(stream)

    def _oldest_first(self) -> list[Any]:
        return sorted(self._streams, key=lambda stream: stream.used)


def _memory(limits: Limits) -> int:
    """Return the limit in memory: the configured one, and on a worker a share of its own."""
    shares = [limit // _SHARE_OF_WORKER for limit in _limits_of_workers()]
    return min([limits.memory, *shares])


def _limits_of_workers() -> list[int]:
    """Return the memory limits of the workers of a cluster that are in this process.

    `distributed.get_worker` knows the worker of a task in the task's own thread alone, and
    sections are read by a pool of threads. So the class is asked for all its instances, as
    distributed does for itself.
    """
    module = sys.modules.get("distributed.worker")
    if module is None:
        return []
    running = [w for w in module.Worker._instances if w.status.name not in ("closed", "failed")]
    return [w.memory_manager.memory_limit for w in running if w.memory_manager.memory_limit]


def _forget(stream: Stream) -> bool:
    """Let a stream begin anew; return False where it has nothing to let go."""
    if not (stream.pieces.memory or stream.pieces.on_disk):
        return False
    stream.forget()
    return True


class _TemporaryFile:
    """A temporary file without a name, which goes when this does."""

    def __init__(self, folder: str | None) -> None:
        # what is there for the user need not be there for a worker
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


#: That of this process.
budget = Budget()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=budget.renew)
