"""Where bytes go: a new file that gets its name when it is complete, or one changed in place.

A sink holds no handle: every write opens the file, writes at its own position and closes it, so
that tasks may run in any thread or process that sees the same file system, and may run twice.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from mrc_xarray.errors import MrcError
from mrc_xarray.storage.codecs import codec_of
from mrc_xarray.storage.compressed import first_bytes
from mrc_xarray.storage.identity import Node, is_another, node_of
from mrc_xarray.storage.locks import Lock, lock_in_place
from mrc_xarray.storage.part import Buffer, Part, exists, read_at, write_at

__all__ = ["ByteSink", "InPlace", "NewFile", "ToPart", "is_written", "open_sink"]

_BINARY = getattr(os, "O_BINARY", 0)
# NX and NY, MODE, NSYMBT: if these differ, the pixels are elsewhere
_PLACING = (slice(0, 8), slice(12, 16), slice(92, 96))


class ByteSink(Protocol):
    """A file to be written from any thread or process."""

    @property
    def name(self) -> str:
        """The path or URL."""

    def begin(self, size: int) -> Lock:
        """Prepare the file for `size` bytes. May be called more than once.

        Returns
        -------
        Lock
            As long as it is held, other writers do not change or remove the file.
        """

    def write(self, buffers: Iterable[Buffer]) -> None:
        """Write buffers, each at its offset."""

    def read(self, offset: int, nbytes: int) -> bytes:
        """Return up to `nbytes` bytes from `offset` on, and fewer at the end of the file."""

    def cut(self, size: int) -> None:
        """Leave `size` bytes of what was written."""

    def finish(self, head: bytes) -> None:
        """Write the first bytes of the file, and make the whole of it last."""

    def discard(self) -> None:
        """Remove what was written, if `finish` did not succeed."""

    @property
    def note(self) -> str:
        """What a failure means for the file."""


class ToPart:
    """A sink that writes to a temporary file first, its `part`."""

    part: Part

    @property
    def name(self) -> str:
        raise NotImplementedError

    def write(self, buffers: Iterable[Buffer]) -> None:
        self.part.write(buffers)

    def read(self, offset: int, nbytes: int) -> bytes:
        return self.part.read(offset, nbytes)

    def cut(self, size: int) -> None:
        self.part.cut(size)

    def discard(self) -> None:
        self.part.discard()

    @property
    def note(self) -> str:
        return f"{self.name} was not written; what was there before is untouched"

    def _create(self, size: int) -> Lock:
        self.part.remove_left_overs()
        return self.part.create(size)


@dataclass(frozen=True)
class NewFile(ToPart):
    """A file on a disk, written under another name in the same folder, and renamed at the end.

    Attributes
    ----------
    part : Part
        The temporary file.
    overwrite : bool
        Whether it may replace a file.
    """

    part: Part
    overwrite: bool

    @classmethod
    def at(cls, path: str, overwrite: bool) -> NewFile:
        """Choose the temporary name; nothing is written yet."""
        # a link stays, and what it leads to is replaced
        sink = cls(Part.of(os.path.realpath(os.path.expanduser(path))), overwrite)
        sink.check()
        return sink

    @property
    def name(self) -> str:
        return self.part.name

    def begin(self, size: int) -> Lock:
        self.check()
        return self._create(size)

    def finish(self, head: bytes) -> None:
        if not self.part.is_there and is_written(self.name, head):
            # a cluster may repeat this after the worker that did it has died
            return
        self.write([(0, head)])
        self.part.publish(overwrite=self.overwrite)

    def check(self) -> None:
        """Raise OSError or MrcError where nothing may be written under the name."""
        try:
            found = os.stat(self.name)
        except FileNotFoundError:
            folder = os.path.dirname(self.name)
            if not os.path.isdir(folder):
                raise FileNotFoundError(2, "No such directory", folder) from None
            return
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(21, "Is a directory", self.name)
        if not stat.S_ISREG(found.st_mode):
            raise MrcError(f"{self.name}: not a regular file, but a pipe, socket or device")
        if not self.overwrite:
            raise exists(self.name)


@dataclass(frozen=True)
class InPlace:
    """A file that is changed where it is: a crash in the middle leaves it half changed.

    Attributes
    ----------
    name : str
        The path.
    size : int
        Size in bytes when the change was planned.
    before : bytes
        The header when the change was planned.
    node : Node or None
        Device and inode when the change was planned, if they are known.
    grows_to : int or None
        Bytes that it has when sections were added, so that nobody else may change the file in
        the meantime; None if none are added.
    locks : bool
        Whether `begin` locks the file. Otherwise the caller holds the lock.
    """

    name: str
    size: int
    before: bytes = field(repr=False)
    node: Node | None
    grows_to: int | None = None
    locks: bool = False

    def begin(self, size: int) -> Lock:
        # do not wait: a waiting task could occupy the thread of the task that it waits for
        lock = (
            lock_in_place(self.name, exclusive=self.grows_to is not None, waits=False)
            if self.locks
            else Lock()
        )
        try:
            with self._opened() as fd:
                if self.grows_to is not None and not self._is_as_planned(fd):
                    raise MrcError(
                        f"{self.name}: the file changed since the append was planned; plan it "
                        "again"
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
        """Write those bytes of the header that change: others may have changed the rest."""
        with self._opened() as fd:
            now = read_at(fd, 0, len(head))
            if self.grows_to is not None and now != self.before:
                if now == head:
                    # a cluster may repeat this after the worker that did it has died
                    return
                raise MrcError(f"{self.name}: the file changed while sections were added to it")
            if self.grows_to is not None and os.fstat(fd).st_size != self.grows_to:
                raise MrcError(
                    f"{self.name}: the file has {os.fstat(fd).st_size} bytes after sections were "
                    f"added to it, instead of {self.grows_to}: it was cut or written to meanwhile"
                )
            # the header describes the pixels, so these must be on the disk first
            os.fsync(fd)
            bytes_of_each = zip(head, self.before, now, strict=True)
            merged = bytes(b if b != old else current for b, old, current in bytes_of_each)
            if merged != now:
                # in one call: a mixture of old and new header could mean anything
                write_at(fd, [(0, merged)])
                os.fsync(fd)

    def discard(self) -> None:
        if self.grows_to is None:
            return
        with contextlib.suppress(MrcError, FileNotFoundError), self._opened() as fd:
            if os.fstat(fd).st_size > self.size and self._is_as_planned(fd):
                os.ftruncate(fd, self.size)

    @property
    def note(self) -> str:
        return f"{self.name} was being changed in place, and its header was not"

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        """Open the file that the change was planned for.

        Yields
        ------
        int
            The file descriptor.

        Raises
        ------
        MrcError
            If the name belongs to another file now, or if its pixels are elsewhere.
        """
        fd = os.open(self.name, os.O_RDWR | _BINARY)
        try:
            found = os.fstat(fd)
            head = read_at(fd, 0, len(self.before))
            is_moved = any(head[part] != self.before[part] for part in _PLACING)
            if is_another(self.node, node_of(found, self.name)):
                reason = "another file has taken its name"
            elif found.st_size < self.size or is_moved:
                reason = "it was rewritten"
            else:
                yield fd
                return
            raise MrcError(
                f"{self.name}: the file is not the one that this write was planned for "
                f"({reason}). Nothing more was written to it. If the new file is the one to be "
                "changed, start the write again"
            )
        finally:
            os.close(fd)

    def _is_as_planned(self, fd: int) -> bool:
        return read_at(fd, 0, len(self.before)) == self.before


def open_sink(
    target: str | os.PathLike[str], storage_options: dict[str, Any] | None, overwrite: bool
) -> ByteSink:
    """Find the sink for a new file, which compresses it where its suffix says so.

    Raises
    ------
    FileExistsError
        If there is a file already, and it may not be replaced.
    MrcError
        If what compresses it is not installed.
    """
    from mrc_xarray.storage import filesystem
    from mrc_xarray.storage.upload import Encoded, Upload

    if not isinstance(target, str | os.PathLike):
        raise TypeError(f"can't write to {type(target).__name__}; accepted: a path or a URL")
    name = os.fsdecode(target)
    codec = codec_of(name)
    fs, path = filesystem(name, storage_options)
    if fs is not None:
        return Upload.at(fs, path, name, overwrite, codec)
    return NewFile.at(path, overwrite) if codec is None else Encoded.at(path, codec, overwrite)


def is_written(path: str, head: bytes, opener: Callable[..., Any] = open) -> bool:
    """Return whether a file exists and, after decoding if it is compressed, begins with `head`."""
    try:
        with opener(path, "rb") as file:
            return first_bytes(file, len(head)) == head
    except OSError:
        return False
