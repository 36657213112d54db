"""The temporary file that a new file is written to, and how it gets the name of the new file."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from mrc_xarray.locks import Lock, try_lock

__all__ = ["Buffer", "Part", "copy_attributes", "exists", "read_at", "write_at"]

#: First byte in the file, and what is written from there.
Buffer: TypeAlias = "tuple[int, Any]"

_BINARY = getattr(os, "O_BINARY", 0)
_ACL = "system.posix_acl_access"
# these hold for the content, which is another one
_OF_CONTENT = {"security.ima", "security.evm", "security.capability"}


@dataclass(frozen=True)
class Part:
    """A temporary file in the same folder, which nobody else can read until it is published.

    Attributes
    ----------
    path : str
        Of the temporary file.
    name : str
        The path that it gets.
    """

    path: str
    name: str

    @classmethod
    def of(cls, name: str) -> Part:
        """Choose a temporary name; nothing is written yet."""
        folder, base = os.path.split(name)
        return cls(os.path.join(folder, f".{_short(base)}.{uuid.uuid4().hex[:12]}.part"), name)

    def create(self, size: int) -> Lock:
        """Create the file, if it is not there yet, with `size` bytes or more.

        Returns
        -------
        Lock
            As long as it is held, other writers leave the file alone.
        """
        while True:
            # never cut: a cluster may do this again when the worker that did it has died
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | _BINARY, 0o600)
            lock = Lock(fd)
            try:
                is_lockable = try_lock(fd) is not None
                if os.fstat(fd).st_size < size:
                    os.ftruncate(fd, size)
                is_there = _is_at(fd, self.path)
            except BaseException:
                lock.release()
                raise
            if not is_lockable:
                # such as on Windows, where a file that is open can't be renamed
                lock.release()
            if is_there:
                return lock
            # removed as a left-over, between its creation and its lock
            lock.release()

    def write(self, buffers: Iterable[Buffer]) -> None:
        """Write buffers at their offsets, from any process that sees the file."""
        try:
            fd = os.open(self.path, os.O_WRONLY | _BINARY)
        except FileNotFoundError as error:
            error.add_note(
                "the workers of a cluster must share the file system that the file is written to"
            )
            raise
        try:
            write_at(fd, buffers)
        finally:
            os.close(fd)

    def read(self, offset: int, nbytes: int) -> bytes:
        """Return bytes that were written, and fewer at the end of the file."""
        fd = os.open(self.path, os.O_RDONLY | _BINARY)
        try:
            return read_at(fd, offset, nbytes)
        finally:
            os.close(fd)

    @property
    def is_there(self) -> bool:
        """Whether the file exists: it does not, before it is begun and once it is published."""
        return os.path.exists(self.path)

    def publish(self, *, overwrite: bool) -> None:
        """Give the file its name: atomically, and never in place of a file that may not go.

        Raises
        ------
        FileExistsError
            Without `overwrite`, if the name is taken.
        """
        fd = os.open(self.path, os.O_RDWR | _BINARY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        _take_over_attributes(self.path, self.name)
        if overwrite:
            os.replace(self.path, self.name)
        else:
            self._publish_new()
        _sync_folder(os.path.dirname(self.name))

    def _publish_new(self) -> None:
        try:
            os.link(self.path, self.name)
        except FileExistsError:
            # a cluster may do this again when the worker that did it has died
            if not os.path.samefile(self.path, self.name):
                raise exists(self.name) from None
        except OSError:
            # such as on a file system without hard links
            self._replace_reserved()
            return
        self.discard()

    def _replace_reserved(self) -> None:
        """Take the name by an empty file, and replace that: where there are no hard links."""
        try:
            os.close(os.open(self.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            raise exists(self.name) from None
        try:
            os.replace(self.path, self.name)
        except BaseException:
            os.unlink(self.name)
            raise

    def remove_left_overs(self) -> None:
        """Remove what other writers of the same name have left that no longer live."""
        folder, base = os.path.split(self.name)
        pattern = re.compile(rf"\.{re.escape(_short(base))}\.[0-9a-f]{{12}}\.part(\.new)?")
        # a folder that can be written to need not be one that can be listed
        with contextlib.suppress(OSError):
            for entry in os.listdir(folder):
                path = os.path.join(folder, entry)
                if pattern.fullmatch(entry) and path != self.path:
                    _remove_unlocked(path)

    def discard(self) -> None:
        """Remove the file, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)


def write_at(fd: int, buffers: Iterable[Buffer]) -> None:
    """Write buffers at their offsets into an open file."""
    for offset, buffer in buffers:
        left = memoryview(buffer).cast("B")
        while left:
            n = _pwrite(fd, left, offset)
            left, offset = left[n:], offset + n


def read_at(fd: int, offset: int, nbytes: int) -> bytes:
    """Return bytes of an open file, and fewer at its end."""
    with os.fdopen(os.dup(fd), "rb") as file:
        file.seek(offset)
        return file.read(nbytes)


def _seek_and_write(fd: int, buffer: memoryview, offset: int) -> int:
    """Do what `os.pwrite` does, on a descriptor that no other thread uses."""
    os.lseek(fd, offset, os.SEEK_SET)
    return os.write(fd, buffer)


# Windows has none
_pwrite = getattr(os, "pwrite", _seek_and_write)


def exists(name: str) -> FileExistsError:
    """Return the error for a target that may not be replaced."""
    return FileExistsError(errno.EEXIST, "File exists, and overwrite is not asked for", name)


def _remove_unlocked(path: str) -> None:
    """Remove a file, unless a living writer holds its lock, or it is of another user."""
    # neither through a link, nor waiting for a pipe
    flags = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        fd = os.open(path, flags | _BINARY)
    except OSError:
        return
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode) and try_lock(fd):
            os.unlink(path)
    finally:
        os.close(fd)


def _short(base: str) -> str:
    """Return as much of a file name as leaves room for what is added; a name has 255 bytes."""
    return os.fsdecode(os.fsencode(base)[:200])


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _take_over_attributes(path: str, name: str) -> None:
    """Give a file the attributes of the one that it replaces, or of a new file in this folder."""
    if os.path.exists(name):
        copy_attributes(name, path)
        return
    # what a new file gets, by umask and default ACL, is seen on one
    new = f"{path}.new"
    os.close(os.open(new, os.O_WRONLY | os.O_CREAT, 0o666))
    try:
        copy_attributes(new, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)


def copy_attributes(source: str, path: str) -> None:
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
    with contextlib.suppress(OSError):
        os.chmod(path, stat.S_IMODE(found.st_mode))


def _copy_extended_attributes(source: str, path: str) -> None:
    attributes = set(os.listxattr(source)) - _OF_CONTENT
    if _ACL in set(os.listxattr(path)) - attributes:
        # a default of the folder, which the replaced file does not have
        os.removexattr(path, _ACL)
    for attribute in attributes:
        with contextlib.suppress(OSError):
            os.setxattr(path, attribute, os.getxattr(source, attribute))


def _sync_folder(folder: str) -> None:
    """Make a new name last; a folder can't be opened on Windows."""
    with contextlib.suppress(PermissionError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
