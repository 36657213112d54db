"""How much all decoded streams of a process may take together, in memory and then on disk."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mrc_xarray.storage.decoded import Decoded

__all__ = ["Budget", "Limits", "NoRoom", "Pieces", "budget"]

#: Bytes of each piece of a stream except the last.
PIECE = 4 * 1024**2
# a quarter of a worker's memory; the rest is for the interpreter, the pixels of its tasks and
# their results
_SHARE_OF_WORKER = 4
# temporary files at once: a process can have only some hundred files open
_MOST_FILES = 64
# idle decoders at once: each holds some MiB, and must start again if it is closed
_MOST_DECODERS = 16


@dataclass(frozen=True)
class Limits:
    """How many bytes all decoded streams of a process may take in `memory` and on `disk`.

    `folder` is where temporary files are, if configured.
    """

    memory: int
    disk: int
    folder: str | None

    @classmethod
    def configured(cls) -> Limits:
        """Return the limits of dask's configuration; raise ValueError if one is not a size."""
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
        self.memory: list[bytes] = []
        self.file: _TemporaryFile | None = None
        self.on_disk = 0

    @property
    def in_memory(self) -> int:
        return sum(map(len, self.memory))

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes from `offset`, all of which must have been added."""
        done = 0
        while done < len(buffer):
            n, start = divmod(offset + done, PIECE)
            if n >= len(self.memory):
                assert self.file is not None
                self.file.read_into(offset + done - len(self.memory) * PIECE, buffer[done:])
                return
            part = memoryview(self.memory[n])[start : start + len(buffer) - done]
            buffer[done : done + len(part)] = part
            done += len(part)


class Budget:
    """The memory and disk space that all streams of this process share.

    There is no running total. The sizes are added up whenever they are needed, so a stream that
    is garbage-collected frees its share by itself.
    """

    def __init__(self) -> None:
        # guards both sets
        self.lock = threading.RLock()
        self.streams: weakref.WeakSet[Decoded] = weakref.WeakSet()
        # also those that a stream discarded while they were being read
        self.pieces: weakref.WeakSet[Pieces] = weakref.WeakSet()

    def reset(self) -> None:
        """Reset all streams in the child of a fork, since the pieces belong to the parent."""
        streams = list(self.streams)
        self.__init__()  # type: ignore[misc]  # the locks may be held by threads of the parent
        for stream in streams:
            stream.discard()
            self.streams.add(stream)

    def add(self, pieces: Pieces, piece: bytes, limits: Limits) -> None:
        """Add a piece to the pieces of a stream, and discard other streams if that makes room.

        Raises
        ------
        NoRoom
            If the limits are too small.
        OSError
            If the temporary file can't be written.
        """
        with self.lock:
            self.pieces.add(pieces)
            while (failure := self._place(pieces, piece, limits)) is not None:
                others = (s for s in self._oldest_first() if s.pieces is not pieces)
                oldest = next((s for s in others if s.pieces.memory or s.pieces.on_disk), None)
                if oldest is None:
                    raise failure
                oldest.discard()

    def _place(self, pieces: Pieces, piece: bytes, limits: Limits) -> Exception | None:
        """Store a piece in memory or on disk; return why that is not possible, or None."""
        in_memory = sum(other.in_memory for other in self.pieces)
        if not pieces.on_disk and in_memory + len(piece) <= _memory(limits):
            pieces.memory.append(piece)
            return None
        if sum(other.on_disk for other in self.pieces) + len(piece) > limits.disk:
            return NoRoom()
        try:
            if pieces.file is None:
                self._close_files(_MOST_FILES - 1)
                pieces.file = _TemporaryFile(limits.folder)
            pieces.file.write(pieces.on_disk, piece)
        except OSError as error:
            # such as a disk that is full before the limit is reached
            return error
        pieces.on_disk += len(piece)
        return None

    def _close_files(self, most: int) -> None:
        """Discard the oldest streams with a temporary file, except for `most` of them."""
        streams = [stream for stream in self._oldest_first() if stream.pieces.file is not None]
        for stream in streams[: max(len(streams) - most, 0)]:
            stream.discard()

    def close_decoders(self) -> None:
        """Close the least recently used decoders, before another one is opened."""
        with self.lock:
            streams = [stream for stream in self._oldest_first() if stream.is_decoding]
            for stream in streams[: max(len(streams) - _MOST_DECODERS, 0)]:
                stream.close_decoder()

    def _oldest_first(self) -> list[Decoded]:
        return sorted(self.streams, key=lambda stream: stream.used)


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


class _TemporaryFile:
    """A temporary file without a name, which is removed with this object."""

    def __init__(self, folder: str | None) -> None:
        # the user's folder may not exist on the machine of a worker
        is_here = folder is not None and os.path.isdir(folder)
        self._lock = threading.Lock()
        self._file = tempfile.TemporaryFile(dir=folder if is_here else None, buffering=0)  # noqa: SIM115
        weakref.finalize(self, self._file.close)

    def write(self, offset: int, piece: bytes) -> None:
        with self._lock:
            self._file.seek(offset)
            done = 0
            while done < len(piece):
                done += self._file.write(memoryview(piece)[done:])

    def read_into(self, offset: int, buffer: memoryview) -> None:
        with self._lock:
            self._file.seek(offset)
            done = 0
            while done < len(buffer):
                done += self._file.readinto(buffer[done:])


#: The budget of this process.
budget = Budget()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=budget.reset)
