"""A file on a disk, or on a file system that all workers share."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mrc_xarray.errors import MrcError
from mrc_xarray.storage.base import (
    LONGEST_SIDECAR,
    Access,
    ByteSource,
    MiB,
    Request,
    changed,
    too_short,
)
from mrc_xarray.storage.identity import Node, is_another, is_on_local_disk, node_of

__all__ = ["LocalSource", "Map", "is_same_file", "read_next_to"]

# Python has the name since 3.13; the number is Linux's on x86 and ARM
_MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)
# no descriptor is left (before Python 3.13 each map has one), too little address space (ulimit),
# or a file system that has no maps
_NOT_MAPPED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENODEV)


class Map(mmap.mmap):
    """A memory map with the name of its file."""

    name: str


@dataclass(frozen=True)
class LocalSource(ByteSource):
    """A file on a disk; `name` is its absolute path."""

    access: ClassVar[Access] = Access(gap=0, skip=1024, piece=8 * MiB, batch=8 * MiB)

    name: str
    size: int
    #: Modification time, in nanoseconds.
    mtime_ns: int
    node: Node | None = None

    @classmethod
    def open(cls, path: str) -> LocalSource:
        """Return the source of a file as it is now."""
        path = os.path.abspath(os.path.expanduser(path))
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(21, "Is a directory", path)
        if not stat.S_ISREG(found.st_mode):
            raise MrcError(f"{path}: not a regular file, but a pipe, socket or device")
        return cls(path, found.st_size, found.st_mtime_ns, node_of(found, path))

    @property
    def local_path(self) -> str:
        return self.name

    def read_into(self, requests: Sequence[Request]) -> None:
        with self._checked() as fd:
            for offset, buffer in requests:
                done = 0
                while done < len(buffer):
                    # one read returns 2 GiB at most, and nothing at the end of the file
                    n = _preadv(fd, [buffer[done:]], offset + done)
                    if not n:
                        raise too_short(self.name, offset, len(buffer), done)
                    done += n

    @contextlib.contextmanager
    def fetching(self) -> Iterator[Callable[[int, int], bytes]]:
        with self._checked() as fd:

            def fetch(offset: int, nbytes: int) -> bytes:
                os.lseek(fd, offset, os.SEEK_SET)
                return os.read(fd, nbytes)

            yield fetch

    @property
    def is_on_local_disk(self) -> bool:
        return is_on_local_disk(self.name)

    def map(self, *, writable: bool) -> Map | None:
        options: dict[str, Any] = {"access": mmap.ACCESS_COPY if writable else mmap.ACCESS_READ}
        if writable and sys.platform == "linux":
            # without MAP_NORESERVE, a private map of more than the machine's memory is refused
            flags = mmap.MAP_PRIVATE | _MAP_NORESERVE
            options = {"flags": flags, "prot": mmap.PROT_READ | mmap.PROT_WRITE}
        if sys.version_info >= (3, 13):
            options["trackfd"] = False
        with self._checked() as fd:
            try:
                mapped = Map(fd, self.size, **options)
            except OSError as error:
                if error.errno not in _NOT_MAPPED:
                    raise
                return None
        mapped.name = self.name
        return mapped

    def is_of(self, found: os.stat_result) -> bool:
        return is_same_file(self.name, found)

    def read_sibling(self, name: str) -> bytes | None:
        return read_next_to(self.name, name)

    def sibling_names(self) -> list[str]:
        return os.listdir(os.path.dirname(self.name))

    def sibling(self, name: str) -> str:
        return os.path.join(os.path.dirname(self.name), name)

    @contextlib.contextmanager
    def _checked(self) -> Iterator[int]:
        """Open the file, and check that it is the one that was opened first."""
        # O_NONBLOCK: a pipe may have taken the file's name, and would wait for a writer
        flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
        fd = os.open(self.name, flags)
        try:
            if difference := self._difference(os.fstat(fd)):
                raise changed(self.name, difference)
            yield fd
        finally:
            os.close(fd)

    def _difference(self, found: os.stat_result) -> str:
        """Return how a file differs from the one that was opened, or an empty string."""
        differences = []
        if is_another(self.node, node_of(found, self.name)):
            differences.append("another file")
        if found.st_size != self.size:
            differences.append(f"size: {self.size} bytes, now {found.st_size}")
        elif found.st_mtime_ns != self.mtime_ns:
            differences.append("modification time")
        return ", ".join(differences)


def read_next_to(path: str, name: str) -> bytes | None:
    """Return the content of a file in the folder of `path`, or None if there is none."""
    sibling = os.path.join(os.path.dirname(path), name)
    if not os.path.isfile(sibling):
        return None
    with open(sibling, "rb") as file:
        # `read` allocates as much as is requested
        return file.read(min(os.fstat(file.fileno()).st_size, LONGEST_SIDECAR))


def is_same_file(path: str, found: os.stat_result) -> bool:
    """Return whether a path leads to the file with this status."""
    try:
        return os.path.samestat(os.stat(path), found)
    except (OSError, ValueError):
        return False


def _seek_and_read(fd: int, buffers: list[memoryview], offset: int) -> int:
    """Do what `os.preadv` does, on a descriptor that no other thread uses."""
    os.lseek(fd, offset, os.SEEK_SET)
    data = os.read(fd, len(buffers[0]))
    buffers[0][: len(data)] = data
    return len(data)


# Windows and macOS before 11 have no preadv
_preadv = getattr(os, "preadv", _seek_and_read)
