"""The part: a temporary file or folder, which gets its final name when it is complete."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
import stat
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

from mrc_xarray.storage.local import is_same_file
from mrc_xarray.storage.locks import Lock, try_lock

__all__ = ["Buffer", "Part", "PartFolder", "exists", "read_at", "write_at"]

#: First byte in the file, and the bytes to write from there.
Buffer: TypeAlias = "tuple[int, Any]"

_BINARY = getattr(os, "O_BINARY", 0)
_ACL = "system.posix_acl_access"
# these belong to the old content
_OF_CONTENT = {"security.ima", "security.evm", "security.capability"}


@dataclass(frozen=True)
class Part:
    """A temporary file, which only its owner can read until it gets its final `name`."""

    path: str
    name: str

    @classmethod
    def of(cls, name: str) -> Self:
        """Choose a temporary path; nothing is written yet."""
        folder, base = os.path.split(_short(name))
        return cls(os.path.join(folder, f".{base}.{uuid.uuid4().hex[:12]}.part"), name)

    @property
    def is_there(self) -> bool:
        """Whether the file exists: from its creation until it is published or discarded."""
        return os.path.exists(self.path)

    def create(self, size: int) -> Lock:
        """Create the file if it does not exist yet, with at least `size` bytes, and lock it.

        While the lock is held, other writers do not remove the file.
        """
        while True:
            # do not truncate: a cluster may repeat this after the worker that did it has died
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | _BINARY, 0o600)
            lock = Lock(fd)
            try:
                is_lockable = try_lock(fd) is not None
                if os.fstat(fd).st_size < size:
                    os.ftruncate(fd, size)
                is_there = is_same_file(self.path, os.fstat(fd))
            except BaseException:
                lock.release()
                raise
            if not (is_lockable and is_there):
                # on Windows, an open file can't be renamed
                lock.release()
            if is_there:
                return lock
            # another writer removed the file between its creation and its lock

    def publish(self, *, overwrite: bool) -> None:
        """Give the file its final name, atomically; raise FileExistsError if that is taken."""
        with open(self.path, "r+b") as file:
            os.fsync(file.fileno())
        self._take_over_attributes()
        if overwrite:
            os.replace(self.path, self.name)
        else:
            self._publish_new()
        _sync_folder(os.path.dirname(self.name))

    def remove_left_overs(self) -> None:
        """Remove the temporary files of killed writers of the same name."""
        folder, base = map(glob.escape, os.path.split(_short(self.name)))
        pattern = os.path.join(folder, f".{base}.{'[0-9a-f]' * 12}.part")
        for path in set(glob.glob(pattern)) - {self.path}:
            _remove_unlocked(path)

    def discard(self) -> None:
        """Remove the file if it exists."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)

    def _publish_new(self) -> None:
        try:
            os.link(self.path, self.name)
        except FileExistsError:
            # a cluster may repeat this after the worker that did it has died
            if not os.path.samefile(self.path, self.name):
                raise exists(self.name) from None
        except OSError:
            # for example on a file system without hard links
            self._replace_reserved()
        self.discard()

    def _replace_reserved(self) -> None:
        """Reserve the name with an empty file, and replace that."""
        try:
            open(self.name, "xb").close()
        except FileExistsError:
            raise exists(self.name) from None
        try:
            os.replace(self.path, self.name)
        except BaseException:
            os.unlink(self.name)
            raise

    def _take_over_attributes(self) -> None:
        """Give the file the attributes of the file that it replaces, or those of any new file."""
        if os.path.exists(self.name):
            _copy_attributes(self.name, self.path)
            return
        # the attributes of a new file, by umask and default ACL
        trial = Part.of(self.name)
        with open(trial.path, "xb") as file:
            # by descriptor: another writer may remove it as left over
            _copy_attributes(file.fileno(), self.path)
        trial.discard()


@dataclass(frozen=True)
class PartFolder:
    """A new folder, in a `private` one that only its owner can enter until it is published."""

    private: str
    name: str

    @classmethod
    def of(cls, name: str) -> Self:
        """Choose a temporary path; nothing is made yet."""
        return cls(Part.of(name).path, name)

    @property
    def path(self) -> str:
        """Where the new folder is written."""
        return os.path.join(self.private, "new")

    def create(self) -> None:
        """Make the folder."""
        os.mkdir(self.private, 0o700)
        os.mkdir(self.path)

    def publish(self, *, overwrite: bool) -> None:
        """Give the folder its final name; raise FileExistsError if that is taken."""
        if os.path.isdir(self.name):
            _copy_attributes(self.name, self.path)
        if not overwrite or not os.path.lexists(self.name):
            try:
                os.rename(self.path, self.name)
            except OSError as error:
                if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                    raise exists(self.name, can_grow=False) from None
                raise
            return
        # a folder that is not empty can't be replaced in one step
        old = Part.of(self.name).path
        os.rename(self.name, old)
        try:
            os.rename(self.path, self.name)
        except BaseException:
            os.rename(old, self.name)
            raise
        # for `discard` to remove
        os.rename(old, self.path)

    def discard(self) -> None:
        """Remove the temporary folder, and what was replaced."""
        shutil.rmtree(self.private, ignore_errors=True)


def write_at(fd: int, buffers: Iterable[Buffer]) -> None:
    """Write buffers at their offsets into an open file."""
    for offset, buffer in buffers:
        left = memoryview(buffer).cast("B")
        while left:
            n = _pwrite(fd, left, offset)
            left, offset = left[n:], offset + n


def read_at(fd: int, offset: int, nbytes: int) -> bytes:
    """Return up to `nbytes` bytes of an open file from `offset` on, and fewer at its end."""
    with open(fd, "rb", closefd=False) as file:
        file.seek(offset)
        return file.read(nbytes)


def _seek_and_write(fd: int, buffer: memoryview, offset: int) -> int:
    """Write as `os.pwrite` does, to a descriptor that no other thread uses."""
    os.lseek(fd, offset, os.SEEK_SET)
    return os.write(fd, buffer)


# Windows has no pwrite
_pwrite = getattr(os, "pwrite", _seek_and_write)


def exists(name: str, *, can_grow: bool = True) -> FileExistsError:
    """Return the error for a target that may not be replaced."""
    reason = "File exists; overwrite=True replaces it"
    if can_grow:
        reason += ", and to_mrc(append_dim=) adds to it"
    return FileExistsError(errno.EEXIST, reason, name)


def _short(name: str) -> str:
    """Return a path with the first 200 bytes of its last name: the part's may have 255."""
    folder, base = os.path.split(name)
    return os.path.join(folder, os.fsdecode(os.fsencode(base)[:200]))


def _remove_unlocked(path: str) -> None:
    """Remove a file, unless a running writer holds its lock, or it can't be opened."""
    # do not follow a link, and do not wait for a pipe
    flags = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        fd = os.open(path, flags | _BINARY)
    except OSError:
        return
    with Lock(fd):
        if stat.S_ISREG(os.fstat(fd).st_mode) and try_lock(fd):
            os.unlink(path)


def _copy_attributes(source: str | int, path: str) -> None:
    """Copy owner, extended attributes and mode, as far as this user may set them."""
    found = os.stat(source)
    if hasattr(os, "chown"):
        for owner in ((found.st_uid, found.st_gid), (-1, found.st_gid)):
            with contextlib.suppress(OSError):
                os.chown(path, *owner)
                break
    if hasattr(os, "listxattr"):
        with contextlib.suppress(OSError):
            _copy_extended_attributes(source, path)
    mode = stat.S_IMODE(found.st_mode) & ~stat.S_ISUID
    if os.stat(path).st_gid != found.st_gid:
        # another group does not get the permissions of the old one
        mode &= ~(stat.S_IRWXG | stat.S_ISGID)
    with contextlib.suppress(OSError):
        os.chmod(path, mode)


def _copy_extended_attributes(source: str | int, path: str) -> None:
    attributes = set(os.listxattr(source)) - _OF_CONTENT
    if _ACL in set(os.listxattr(path)) - attributes:
        # it comes from the folder's default ACL, and the replaced file has none
        os.removexattr(path, _ACL)
    for attribute in attributes:
        with contextlib.suppress(OSError):
            os.setxattr(path, attribute, os.getxattr(source, attribute))


def _sync_folder(folder: str) -> None:
    """Make a new name durable; on Windows a folder can't be opened, and this does nothing."""
    with contextlib.suppress(PermissionError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
