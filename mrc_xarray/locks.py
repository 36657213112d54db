"""Locks on files: they keep out the writers of other processes, and of this one."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import threading
import weakref
from collections import deque
from typing import Any, TypeAlias

from mrc_xarray.format.errors import MrcError, warn

try:
    import fcntl
except ImportError:
    # Windows has none
    fcntl = None  # type: ignore[assignment]

__all__ = ["Lock", "lock_in_place", "try_lock"]

#: Process, device and inode: a lock of the parent process is not the child's.
Key: TypeAlias = tuple[int, int, int]

_BINARY = getattr(os, "O_BINARY", 0)
# file systems that have no such locks, as network file systems may be mounted
_UNSUPPORTED = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}


class Lock:
    """A lock on an open file, held until it is released or no longer referred to.

    A pickled copy holds nothing: the lock stays in the process that has the file open.

    Parameters
    ----------
    fd : int, optional
        The open file, which the lock owns; none for a lock that holds nothing.
    key : Key, optional
        Its entry in the table of this process.
    """

    def __init__(self, fd: int | None = None, key: Key | None = None) -> None:
        self._close = None if fd is None else weakref.finalize(self, _close, fd, key, os.getpid())

    def __reduce__(self) -> tuple[Any, ...]:
        return Lock, ()

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def release(self) -> None:
        """Give the file back. Doing it twice does no harm."""
        if self._close is not None:
            self._close()


def lock_in_place(path: str, *, exclusive: bool, waits: bool) -> Lock:
    """Lock a file that is going to be changed where it is.

    Parameters
    ----------
    path : str
    exclusive : bool
        Whether nobody else may change the file. Otherwise others may share the lock.
    waits : bool
        Whether to wait for another process that holds the lock, or to raise.

    Raises
    ------
    MrcError
        If another writer in this process holds the lock: to wait for it might never end. Without
        `waits`, also if another process holds it.
    OSError
        If the file is missing, or may not be written.

    Warns
    -----
    MrcWarning
        If the file system has no locks.
    """
    while True:
        fd = os.open(path, os.O_RDWR | _BINARY)
        opened = os.fstat(fd)
        key = (os.getpid(), opened.st_dev, opened.st_ino)
        try:
            _enter(key, exclusive, path)
        except MrcError:
            os.close(fd)
            raise
        lock = Lock(fd, key)
        try:
            _flock(fd, exclusive, waits, path)
            if os.path.samestat(opened, os.stat(path)):
                return lock
        except BaseException:
            lock.release()
            raise
        # another file took the name while this process waited
        lock.release()


def try_lock(fd: int) -> bool | None:
    """Lock an open file exclusively, without waiting.

    Returns
    -------
    bool or None
        Whether the file is now locked; None where the file system has no locks.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return None
        raise
    return True


def _flock(fd: int, exclusive: bool, waits: bool, path: str) -> None:
    if fcntl is None:
        return
    operation = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    try:
        fcntl.flock(fd, operation if waits else operation | fcntl.LOCK_NB)
    except BlockingIOError:
        raise MrcError(
            f"{path}: another process is changing the file in place; try again when it has "
            "finished"
        ) from None
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        warn(
            f"{path}: the file system has no locks ({error.strerror}). Make sure that no other "
            "process changes the file at the same time."
        )


# by file, how many writers of this process share it; -1 for a single one that excludes others
_writers: dict[Key, int] = {}
# by those that are done; the garbage collector may come at any time, and must not wait
_done: deque[Key] = deque()
_guard = threading.Lock()


def _enter(key: Key, exclusive: bool, path: str) -> None:
    if not _entered(key, exclusive):
        # a delayed write that failed holds its lock until its traceback is gone
        gc.collect()
        if not _entered(key, exclusive):
            raise MrcError(
                f"{path}: another write in this process is changing the file in place; "
                "start this one when it has finished. A delayed write that failed counts for as "
                "long as its exception is referred to, as by sys.last_value"
            )


def _entered(key: Key, exclusive: bool) -> bool:
    with _guard:
        while _done:
            left = _done.popleft()
            n = _writers.pop(left)
            if n > 1:
                _writers[left] = n - 1
        n = _writers.get(key, 0)
        is_free = n == 0 or (n > 0 and not exclusive)
        if is_free:
            _writers[key] = -1 if exclusive else n + 1
        return is_free


def _close(fd: int, key: Key | None, pid: int) -> None:
    if fcntl is not None and os.getpid() == pid:
        # a child process that was forked has the descriptor, too, and would keep the lock
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)
    if key is not None:
        _done.append(key)


def _new_guard() -> None:
    """Get a lock that no thread holds, in the child of a fork."""
    global _guard
    _guard = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_guard)
