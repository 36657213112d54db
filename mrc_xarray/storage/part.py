"""The temporary file that a new file is written to, and how it gets its final name."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

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
    """A temporary file, which only its owner can read until it is published.

    Attributes
    ----------
    path : str
        Path of the temporary file, in the folder of `name`.
    name : str
        The final path.
    """

    path: str
    name: str

    @classmethod
    def of(cls, name: str) -> Part:
        """Choose a temporary name; nothing is written yet."""
        folder, base = os.path.split(name)
        return cls(os.path.join(folder, f".{_short(base)}.{uuid.uuid4().hex[:12]}.part"), name)

    def create(self, size: int) -> Lock:
        """Create the file if it does not exist yet, with at least `size` bytes.

        Parameters
        ----------
        size : int
            In bytes.

        Returns
        -------
        Lock
            As long as it is held, other writers do not remove the file.

        Raises
        ------
        OSError
            If the file can't be created.
        """
        while True:
            # never truncated: a cluster may repeat this after the worker that did it has died
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
                # for example on Windows, where an open file can't be renamed
                lock.release()
            if is_there:
                return lock
            # another writer removed the file between its creation and its lock
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
        """Return up to `nbytes` bytes from `offset` on, and fewer at the end of the file."""
        fd = os.open(self.path, os.O_RDONLY | _BINARY)
        try:
            return read_at(fd, offset, nbytes)
        finally:
            os.close(fd)

    def cut(self, size: int) -> None:
        """Leave the first `size` bytes."""
        os.truncate(self.path, size)

    @property
    def is_there(self) -> bool:
        """Whether the file exists: it does after it was created, until it is published."""
        return os.path.exists(self.path)

    def publish(self, *, overwrite: bool) -> None:
        """Give the file its final name, atomically.

        Parameters
        ----------
        overwrite : bool
            Whether to replace an existing file.

        Raises
        ------
        FileExistsError
            If a file of this name exists, and `overwrite` is False.
        OSError
            If the file can't be synchronised or renamed.
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
            # a cluster may repeat this after the worker that did it has died
            if not os.path.samefile(self.path, self.name):
                raise exists(self.name) from None
        except OSError:
            # for example on a file system without hard links
            self._replace_reserved()
            return
        self.discard()

    def _replace_reserved(self) -> None:
        """Reserve the name with an empty file, and replace that, if there are no hard links."""
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
        """Remove the temporary files of killed writers of the same name."""
        folder, base = os.path.split(self.name)
        pattern = re.compile(rf"\.{re.escape(_short(base))}\.[0-9a-f]{{12}}\.part")
        # the user may be allowed to write to a folder but not to list it
        with contextlib.suppress(OSError):
            for entry in os.listdir(folder):
                path = os.path.join(folder, entry)
                if pattern.fullmatch(entry) and path != self.path:
                    _remove_unlocked(path)

    def discard(self) -> None:
        """Remove the file if it exists."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)


@dataclass(frozen=True)
class PartFolder:
    """A temporary folder next to the one that it becomes; only the user can read it.

    Attributes
    ----------
    path : str
        Of the temporary folder.
    name : str
        The path that it gets.
    """

    path: str
    name: str

    @classmethod
    def of(cls, name: str) -> PartFolder:
        """Choose a temporary name; nothing is made yet."""
        return cls(Part.of(name).path, name)

    def create(self) -> None:
        """Make the folder."""
        os.mkdir(self.path, 0o700)

    def publish(self, *, overwrite: bool) -> None:
        """Give the folder its name, with the attributes of what it replaces, or of a new one.

        Raises
        ------
        FileExistsError
            Without `overwrite`, if the name is taken, unless by an empty folder.
        """
        self._take_over_attributes()
        if not overwrite or not os.path.lexists(self.name):
            try:
                os.rename(self.path, self.name)
            except OSError as error:
                if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                    raise exists(self.name) from None
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
        if os.path.isdir(old) and not os.path.islink(old):
            shutil.rmtree(old)
        else:
            os.unlink(old)

    def _take_over_attributes(self) -> None:
        if os.path.isdir(self.name):
            copy_attributes(self.name, self.path)
            return
        new = Part.of(self.name).path
        os.mkdir(new)
        try:
            copy_attributes(new, self.path)
        finally:
            os.rmdir(new)

    def discard(self) -> None:
        """Remove the folder, if it is there."""
        shutil.rmtree(self.path, ignore_errors=True)


def write_at(fd: int, buffers: Iterable[Buffer]) -> None:
    """Write buffers at their offsets into an open file."""
    for offset, buffer in buffers:
        left = memoryview(buffer).cast("B")
        while left:
            n = _pwrite(fd, left, offset)
            left, offset = left[n:], offset + n


def read_at(fd: int, offset: int, nbytes: int) -> bytes:
    """Return up to `nbytes` bytes of an open file from `offset` on, and fewer at its end."""
    with os.fdopen(os.dup(fd), "rb") as file:
        file.seek(offset)
        return file.read(nbytes)


def _seek_and_write(fd: int, buffer: memoryview, offset: int) -> int:
    """Write as `os.pwrite` does, to a descriptor that no other thread uses."""
    os.lseek(fd, offset, os.SEEK_SET)
    return os.write(fd, buffer)


# Windows has no pwrite
_pwrite = getattr(os, "pwrite", _seek_and_write)


def exists(name: str) -> FileExistsError:
    """Return the error for a target that may not be replaced."""
    return FileExistsError(errno.EEXIST, "File exists, and overwrite is not asked for", name)


def _remove_unlocked(path: str) -> None:
    """Remove a file, unless a running writer holds its lock, or it can't be opened."""
    # do not follow a link, and do not wait for a pipe
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
    """Return the first 200 bytes of a file name: with what is added, 255 are allowed."""
    return os.fsdecode(os.fsencode(base)[:200])


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _take_over_attributes(path: str, name: str) -> None:
    """Give a file the attributes of the file that it replaces, or those of any new file."""
    if os.path.exists(name):
        copy_attributes(name, path)
        return
    # a trial file shows what umask and default ACL give to a new file; nobody knows its name
    new = Part.of(name).path
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        # by descriptor, as another writer may take it for something that was left
        copy_attributes(fd, path)
    finally:
        os.close(fd)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)


def copy_attributes(source: str | int, path: str) -> None:
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
    mode, now = stat.S_IMODE(found.st_mode), os.stat(path)
    if now.st_gid != found.st_gid:
        # what its group was allowed is not for another group
        mode &= ~(stat.S_IRWXG | stat.S_ISGID)
    if now.st_uid != found.st_uid:
        mode &= ~stat.S_ISUID
    with contextlib.suppress(OSError):
        os.chmod(path, mode)


def _copy_extended_attributes(source: str | int, path: str) -> None:
    attributes = set(os.listxattr(source)) - _OF_CONTENT
    if _ACL in set(os.listxattr(path)) - attributes:
        # from the folder's default ACL, while the replaced file has none
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
