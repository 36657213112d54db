"""How much all decoded streams of a process may take together, in memory and then on disk."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mrc_xarray.storage.base import too_short

if TYPE_CHECKING:
    from mrc_xarray.storage.decoded import Decoded

__all__ = ["PIECE", "Budget", "Limits", "NoRoom", "Pieces", "budget"]

#: Bytes of each piece of a stream except the last.
PIECE = 4 * 1024**2
# a quarter of a worker's memory; the rest is for the interpreter, the pixels of its tasks and
# their results
_SHARE_OF_WORKER = 4
# open temporary files: a process can have only a few hundred files open
_MOST_FILES = 64
# open decoders: each holds some MiB, and must start again if it is closed
_MOST_DECODERS = 16


@dataclass(frozen=True)
class Limits:
    """How many bytes all decoded streams of a process may take in `memory` and on `disk`."""

    memory: int
    disk: int
    #: Where temporary files are created, if configured.
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

    @property
    def held(self) -> int:
        """How many bytes have been added."""
        return self.in_memory + self.on_disk

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

        NoRoom is raised if the limits are too small, OSError if the temporary file can't be
        written.
        """
        with self.lock:
            self.pieces.add(pieces)
            others = self._oldest(lambda s: s.pieces is not pieces and s.pieces.held > 0)
            while (failure := self._place(pieces, piece, limits)) is not None:
                if not others:
                    raise failure
                others.pop(0).discard()

    def close_decoders(self) -> None:
        """Close the least recently used decoders, before another one is opened."""
        with self.lock:
            for stream in self._oldest(lambda s: s.is_decoding, _MOST_DECODERS):
                stream.close_decoder()

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
                for stream in self._oldest(lambda s: s.pieces.file is not None, _MOST_FILES - 1):
                    stream.discard()
                pieces.file = _TemporaryFile(limits.folder)
            pieces.file.write(pieces.on_disk, piece)
        except OSError as error:
            # such as a disk that is full before the limit is reached
            return error
        pieces.on_disk += len(piece)
        return None

    def _oldest(self, has: Callable[[Decoded], bool], n_spared: int = 0) -> list[Decoded]:
        """Return the streams with a property, without the `n_spared` most recently used ones."""
        found = sorted(filter(has, self.streams), key=lambda stream: stream.used)
        return found[: max(len(found) - n_spared, 0)]


def _memory(limits: Limits) -> int:
    """Return the limit in memory: the configured one, or a worker's share if that is less.

    `distributed.get_worker` finds the worker only in the task's own thread, but sections are read
    by a pool of threads. So this uses the private list of all workers in this process, as
    distributed itself does.
    """
    module = sys.modules.get("distributed.worker")
    workers = module.Worker._instances if module is not None else ()
    running = [w.memory_manager for w in workers if w.status.name not in ("closed", "failed")]
    shares: list[int] = [w.memory_limit // _SHARE_OF_WORKER for w in running if w.memory_limit]
    return min([limits.memory, *shares])


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
                n = self._file.readinto(buffer[done:])
                if not n:
                    raise too_short("a temporary file", offset, len(buffer), done)
                done += n


#: The budget of this process.
budget = Budget()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=budget.reset)
