"""Where bytes go: to a new file, which is published when it is complete, or to a file in place.

A sink holds no handle: every write opens the file, writes at its own position and closes it, so
that tasks may run in any thread or process that sees the same file system, and may run twice.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from mrc_xarray.errors import MrcError
from mrc_xarray.storage import WriteTarget, name_of, place_of
from mrc_xarray.storage.codecs import codec_of
from mrc_xarray.storage.destination import (
    Destination,
    DiskDestination,
    FileObjectDestination,
    StoreDestination,
)
from mrc_xarray.storage.identity import Node, is_another, node_of
from mrc_xarray.storage.locks import Lock, lock_in_place
from mrc_xarray.storage.part import Buffer, Part, read_at, write_at

__all__ = ["ByteSink", "InPlace", "NewFile", "open_sink"]

_BINARY = getattr(os, "O_BINARY", 0)
# NX and NY, MODE, NSYMBT: if these differ, the pixels are elsewhere
_PLACING = (slice(0, 8), slice(12, 16), slice(92, 96))
# DMIN, DMAX and DMEAN, RMS: another write has not seen the pixels of this one
_STATISTICS = (slice(76, 88), slice(216, 220))


@dataclass(frozen=True)
class NewFile:
    """A file that is written uncompressed to a temporary file, and published when complete."""

    part: Part
    destination: Destination

    @classmethod
    def at(cls, destination: Destination) -> NewFile:
        """Check the destination, and choose the temporary file; nothing is written yet."""
        destination.check()
        return cls(destination.part(), destination)

    @property
    def name(self) -> str:
        """The path or URL."""
        return self.destination.name

    def begin(self, size: int) -> Lock:
        """Create the file with `size` bytes, and lock it. May be called more than once."""
        self.destination.check()
        self.part.remove_left_overs()
        return self.part.create(size)

    def write(self, buffers: Iterable[Buffer]) -> None:
        """Write buffers, each at its offset."""
        try:
            with open(self.part.path, "r+b", buffering=0) as file:
                write_at(file.fileno(), buffers)
        except FileNotFoundError as error:
            error.add_note(
                "the workers of a cluster must share the file system that the file is written to"
            )
            raise

    def read(self, offset: int, nbytes: int) -> bytes:
        """Return up to `nbytes` bytes from `offset` on, and fewer at the end of the file."""
        with open(self.part.path, "rb") as file:
            file.seek(offset)
            return file.read(nbytes)

    def cut(self, size: int) -> None:
        """Truncate what was written to `size` bytes."""
        os.truncate(self.part.path, size)

    def finish(self, head: bytes) -> None:
        """Write the first bytes of the file, and publish it."""
        if not self.part.is_there and self.destination.begins_with(head):
            # a cluster may repeat this after the worker that did it has died
            return
        self.write([(0, head)])
        self.destination.publish(self.part)

    def deliver(self) -> None:
        """Complete what `finish` can do only in the process that called `open_sink`."""
        self.destination.deliver(self.part)

    def discard(self) -> None:
        """Remove what was written, if `finish` did not succeed."""
        self.part.discard()

    @property
    def note(self) -> str:
        """What a failure means for the file."""
        return self.destination.note


@dataclass(frozen=True)
class InPlace:
    """A file that is changed in place: after a crash it may be changed in part.

    `size`, `before` (the header) and `node` are those of the file when the change was planned.
    """

    name: str
    size: int
    before: bytes = field(repr=False)
    node: Node | None
    #: Size in bytes after sections are appended; None if none are. While they are, no other
    #: writer may change the file.
    grows_to: int | None = None
    #: Whether `begin` locks the file. Otherwise the caller holds the lock.
    locks: bool = False

    def begin(self, size: int) -> Lock:
        # do not wait: this task could occupy the thread of the task that it waits for
        exclusive = self.grows_to is not None
        lock = lock_in_place(self.name, exclusive=exclusive, waits=False) if self.locks else Lock()
        try:
            with self._opened() as fd:
                is_as_planned = self._is_as_planned(fd)
            if exclusive and not is_as_planned:
                raise MrcError(
                    f"{self.name}: the file changed since the append was planned; plan it again"
                )
        except BaseException:
            lock.release()
            raise
        return lock

    def write(self, buffers: Iterable[Buffer]) -> None:
        with self._opened() as fd:
            write_at(fd, buffers)

    def read(self, offset: int, nbytes: int) -> bytes:
        with self._opened() as fd:
            return read_at(fd, offset, nbytes)

    def cut(self, size: int) -> None:
        raise NotImplementedError("blocks of an MRCZ are not written in place")

    def finish(self, head: bytes) -> None:
        """Write the bytes of the header that change: others may have changed the rest."""
        with self._opened() as fd:
            now, size = read_at(fd, 0, len(head)), os.fstat(fd).st_size
            if self.grows_to is not None and now != self.before:
                if now == head:
                    # a cluster may repeat this after the worker that did it has died
                    return
                raise MrcError(f"{self.name}: the file changed while sections were added to it")
            if self.grows_to not in (None, size):
                raise MrcError(
                    f"{self.name}: the file has {size} bytes after sections were added to it, "
                    f"instead of {self.grows_to}: another process has changed it"
                )
            # the header describes the pixels, so these must be on the disk first
            os.fsync(fd)
            each = zip(head, self.before, now, strict=True)
            merged = bytearray(new if new != old else current for new, old, current in each)
            for at in _STATISTICS:
                merged[at] = head[at]
            if merged != now:
                # in one call: a mixture of old and new header could mean anything
                write_at(fd, [(0, merged)])
                os.fsync(fd)

    def deliver(self) -> None:
        """Do nothing: `finish` has changed the file."""

    def discard(self) -> None:
        if self.grows_to is None:
            return
        with contextlib.suppress(MrcError, FileNotFoundError), self._opened() as fd:
            if os.fstat(fd).st_size > self.size and self._is_as_planned(fd):
                os.ftruncate(fd, self.size)

    @property
    def note(self) -> str:
        return f"{self.name} was being changed in place; its header was not changed"

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        """Open the file; raise MrcError if it is not the one that the change was planned for."""
        fd = os.open(self.name, os.O_RDWR | _BINARY)
        try:
            if reason := self._difference(fd):
                raise MrcError(
                    f"{self.name}: the file is not the one that this write was planned for "
                    f"({reason}). Nothing more was written to it. If the new file is the one to "
                    "be changed, start the write again"
                )
            yield fd
        finally:
            os.close(fd)

    def _difference(self, fd: int) -> str:
        """Return how the file was replaced, or an empty string."""
        found, head = os.fstat(fd), read_at(fd, 0, len(self.before))
        if is_another(self.node, node_of(found, self.name)):
            return "another file has taken its name"
        if found.st_size < self.size or any(head[at] != self.before[at] for at in _PLACING):
            return "it was rewritten"
        return ""

    def _is_as_planned(self, fd: int) -> bool:
        return read_at(fd, 0, len(self.before)) == self.before


#: What a write needs, whether the file is new or not.
ByteSink: TypeAlias = NewFile | InPlace


def open_sink(
    target: WriteTarget,
    storage_options: dict[str, Any] | None,
    overwrite: bool,
    compression: str | None = "auto",
) -> NewFile:
    """Return the sink for a new file, compressed as `codec_of` says.

    FileExistsError is raised if the file exists and `overwrite` is False, MrcError if the package
    that compresses it is not installed, and TypeError or OSError if a file object can't be written
    to.
    """
    if hasattr(target, "write"):
        name = name_of(target)
        return NewFile.at(FileObjectDestination(name, codec_of(name, compression), target))
    name, fs, path = place_of(target, storage_options)
    codec = codec_of(name, compression)
    if fs is None:
        path = os.path.realpath(os.path.expanduser(path))
        return NewFile.at(DiskDestination(path, overwrite, codec))
    return NewFile.at(StoreDestination(name, overwrite, codec, fs, path))
