"""Locks on files, against other writers in other processes and in this one."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import threading
import weakref
from typing import Any, TypeAlias

from mrc_xarray.errors import MrcError, warn

try:
    import fcntl
except ImportError:
    # Windows has no such module
    fcntl = None  # type: ignore[assignment]

__all__ = ["Lock", "lock_in_place", "try_lock"]

#: Process, device and inode. The process is included because a forked child holds no locks.
Key: TypeAlias = tuple[int, int, int]

_BINARY = getattr(os, "O_BINARY", 0)
# errors of file systems without such locks, such as some network file systems
_UNSUPPORTED = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}

# by descriptor, the files that this process changes in place, and whether exclusively
_held: dict[int, tuple[Key, bool]] = {}
_guard = threading.Lock()
if hasattr(os, "register_at_fork"):
    # another thread must not hold the guard in the child, where that thread is gone
    os.register_at_fork(
        before=_guard.acquire, after_in_parent=_guard.release, after_in_child=_guard.release
    )


class Lock:
    """A lock on an open file, held until it is released or garbage-collected.

    It owns the descriptor `fd`. Without one, it holds nothing. Nor does a pickled copy: the lock
    stays in the process that has opened the file.
    """

    def __init__(self, fd: int | None = None) -> None:
        self._found = None if fd is None else os.fstat(fd)
        self._close = None if fd is None else weakref.finalize(self, _close, fd, os.getpid())

    def __reduce__(self) -> tuple[Any, ...]:
        return Lock, ()

    def is_on(self, found: os.stat_result) -> bool:
        """Return whether it is the lock of the file with this status."""
        return self._found is not None and os.path.samestat(self._found, found)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def release(self) -> None:
        """Release the lock and close the file. May be called more than once."""
        if self._close is not None:
            self._close()


def lock_in_place(path: str, *, exclusive: bool, waits: bool) -> Lock:
    """Lock a file that is going to be changed in place, or share its lock with other writers.

    If another process holds the lock, this `waits` or raises MrcError. A writer in this process
    is always an error, since waiting for it could be a deadlock. OSError is raised if the file is
    missing, or may not be written.
    """
    while True:
        fd = os.open(path, os.O_RDWR | _BINARY)
        lock = Lock(fd)
        try:
            _reserve(fd, exclusive, path)
            is_locked = try_lock(fd, exclusive=exclusive, waits=waits)
            if is_locked is False:
                raise MrcError(
                    f"{path}: another process is changing the file in place. Try again when it "
                    "has finished"
                )
            if is_locked is None and fcntl is not None:
                warn(
                    f"{path}: the file system has no locks. Make sure that no other process "
                    "changes the file at the same time."
                )
            if lock.is_on(os.stat(path)):
                return lock
        except BaseException:
            lock.release()
            raise
        # another file took the name while this process waited
        lock.release()


def try_lock(fd: int, *, exclusive: bool = True, waits: bool = False) -> bool | None:
    """Lock an open file, and return whether it is locked now; None if the system has no locks."""
    if fcntl is None:
        return None
    operation = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    try:
        fcntl.flock(fd, operation if waits else operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return None
        raise
    return True


def _reserve(fd: int, exclusive: bool, path: str) -> None:
    """Raise MrcError if another write in this process excludes this one."""
    if not _try_reserve(fd, exclusive):
        # a failed delayed write holds its lock until its traceback is garbage-collected
        gc.collect()
        if not _try_reserve(fd, exclusive):
            raise MrcError(
                f"{path}: another write in this process is changing the file in place. Start this "
                "one when it has finished. A delayed write that failed counts for as long as its "
                "exception is referred to, for example by sys.last_value"
            )


def _try_reserve(fd: int, exclusive: bool) -> bool:
    found = os.fstat(fd)
    key = (os.getpid(), found.st_dev, found.st_ino)
    with _guard:
        others = [is_exclusive for other, is_exclusive in list(_held.values()) if other == key]
        is_free = not others if exclusive else not any(others)
        if is_free:
            _held[fd] = (key, exclusive)
    return is_free


def _close(fd: int, pid: int) -> None:
    # without the guard: the garbage collector may call this at any time
    _held.pop(fd, None)
    if fcntl is not None and os.getpid() == pid:
        # unlock explicitly: a forked child may also have the descriptor open
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)
