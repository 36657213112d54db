"""Locks on files, against other writers in other processes and in this one."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import threading
import weakref
from collections import deque
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


class Lock:
    """A lock on an open file, held until it is released or garbage-collected.

    A pickled copy holds nothing: the lock stays in the process that has opened the file.

    Parameters
    ----------
    fd : int, optional
        Descriptor of the open file, which the lock owns. Without it the lock holds nothing.
    key : Key, optional
        Entry of the file in the table of this process.
    """

    def __init__(self, fd: int | None = None, key: Key | None = None) -> None:
        self._key = key
        self._close = None if fd is None else weakref.finalize(self, _close, fd, key, os.getpid())

    def __reduce__(self) -> tuple[Any, ...]:
        return Lock, ()

    def is_on(self, found: os.stat_result) -> bool:
        """Return whether it is the lock of the file with this status."""
        return self._key is not None and self._key[1:] == (found.st_dev, found.st_ino)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def release(self) -> None:
        """Release the lock and close the file. May be called more than once."""
        if self._close is not None:
            self._close()


def lock_in_place(path: str, *, exclusive: bool, waits: bool) -> Lock:
    """Lock a file that is going to be changed in place.

    Parameters
    ----------
    path : str
    exclusive : bool
        Whether to hold the lock exclusively, or to share it with other writers.
    waits : bool
        Whether to wait if another process holds the lock. Otherwise this is an error.

    Returns
    -------
    Lock

    Raises
    ------
    MrcError
        If another writer in this process holds the lock, since waiting could be a deadlock.
        Without `waits`, also if another process holds it.
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
        Whether the file is now locked; None if the file system has no locks.

    Raises
    ------
    OSError
        If locking fails for another reason.
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
            f"{path}: another process is changing the file in place. Try again when it has "
            "finished"
        ) from None
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        warn(
            f"{path}: the file system has no locks ({error.strerror}). Make sure that no other "
            "process changes the file at the same time."
        )


# by file, the number of writers in this process that share the lock; -1 for an exclusive one
_writers: dict[Key, int] = {}
# locks that were released, not yet removed from _writers: the garbage collector may release one at
# any time, and must not wait for the guard
_done: deque[Key] = deque()
_guard = threading.Lock()


def _enter(key: Key, exclusive: bool, path: str) -> None:
    if not _entered(key, exclusive):
        # a failed delayed write holds its lock until its traceback is garbage-collected
        gc.collect()
        if not _entered(key, exclusive):
            raise MrcError(
                f"{path}: another write in this process is changing the file in place. "
                "Start this one when it has finished. A delayed write that failed counts for as "
                "long as its exception is referred to, for example by sys.last_value"
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
        # unlock explicitly: a forked child may also have the descriptor open
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)
    if key is not None:
        _done.append(key)


def _new_guard() -> None:
    """Replace the guard in the child of a fork, where a thread that is gone may hold it."""
    global _guard
    _guard = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_guard)
