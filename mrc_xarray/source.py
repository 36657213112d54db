"""Where bytes come from: a local file, any store that fsspec knows, memory, a file object.

A source holds no handle, no map and no lock (but for a file object, which is one), so that it can
be pickled, forked and shared by threads. It remembers what the file was when it was opened, and
refuses to read another: wrong pixels are worse than an error.

This is the only module that knows fsspec.
"""

from __future__ import annotations

import contextlib
import errno
import io
import mmap
import os
import pickle
import stat
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Protocol, TypeAlias

from mrc_xarray.format import MrcError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = ["ByteSource", "Request", "Target", "filesystem", "open_source"]

#: What the engine opens.
Target: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO"
#: First byte in the file, and the buffer to fill from there.
Request: TypeAlias = tuple[int, memoryview]

_MiB = 1024**2
# what is longer is no text that belongs to an image
_LONGEST_SIDECAR = 256 * _MiB
# what a store is asked for beside a Direct Electron movie
_MOVIES_SIDECARS = ("_info.txt", "_scan_coordinates.csv")
# Python names it since 3.13; the number is Linux's on x86 and ARM
_MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)


@dataclass(frozen=True, slots=True)
class Access:
    """How a kind of source is best read, in bytes.

    Attributes
    ----------
    gap : int
        Unwanted bytes between two wanted ones that cost less than a second request.
    skip : int
        Bytes that cost less to read through than a further request, in a walk from one to the
        next.
    piece : int
        The longest single request.
    batch : int
        How much is asked for at once.
    """

    gap: int
    skip: int
    piece: int
    batch: int


class ByteSource(Protocol):
    """Bytes of one unchanging file, to be read from any position by any thread."""

    access: ClassVar[Access]

    @property
    def name(self) -> str:
        """The path or URL."""

    @property
    def size(self) -> int:
        """Length in bytes."""

    def read(self, offset: int, nbytes: int) -> bytes:
        """Return `nbytes` bytes from `offset`."""

    def read_into(self, requests: Sequence[Request]) -> None:
        """Fill every buffer; raise MrcError where the file changed or is too short."""

    @property
    def skip(self) -> int:
        """Bytes that are better skipped over than read through."""

    def fetching(self) -> contextlib.AbstractContextManager[Callable[[int, int], bytes]]:
        """Make `read` quicker for many short reads one after the other."""

    def map(self) -> mmap.mmap | None:
        """Map the file, writable without touching it; None where it can't be mapped."""

    def read_beside(self, name: str) -> bytes | None:
        """Return the content of the file of that name in the same folder; None if there is none.

        Also None where looking would cost a request that is seldom worth it.
        """

    def names_beside(self) -> list[str]:
        """Return the names of the files in the same folder."""

    def beside(self, name: str) -> str:
        """Return the path or URL of the file of that name in the same folder."""


class _Alone:
    """What sources have in common that have nothing beside them, and no quicker way to walk."""

    access: ClassVar[Access]

    @property
    def skip(self) -> int:
        return self.access.skip

    def read(self, offset: int, nbytes: int) -> bytes:
        raise NotImplementedError

    def fetching(self) -> contextlib.AbstractContextManager[Callable[[int, int], bytes]]:
        return contextlib.nullcontext(self.read)

    def read_beside(self, name: str) -> bytes | None:
        return None

    def names_beside(self) -> list[str]:
        return []

    def beside(self, name: str) -> str:
        return name


def open_source(target: Target, storage_options: dict[str, Any] | None = None) -> ByteSource:
    """Find the source for what the user gave.

    Parameters
    ----------
    target : path, URL, bytes or binary file object
    storage_options : dict, optional
        For fsspec, where the target is a URL.

    Raises
    ------
    OSError
        As `open` does, where there is no such file, or it may not be read.
    MrcError
        Where the target is no regular file.
    TypeError
        Where the target is something else.
    """
    if isinstance(target, bytes | bytearray | memoryview):
        return MemorySource(bytes(target))
    if isinstance(target, str | os.PathLike):
        path = os.fsdecode(target)
        fs, stripped = filesystem(path, storage_options)
        return LocalSource.open(stripped) if fs is None else _from_filesystem(fs, stripped, path)
    if isinstance(target, io.TextIOBase):
        raise TypeError("can't read MRC from a file that is open as text; open it as 'rb'")
    if getattr(target, "compression", None) and hasattr(target, "open"):
        # what fsspec.open(..., compression=...) returns: its path leads to the compressed bytes
        return FileObjectSource(target.open())
    if hasattr(target, "fs") and hasattr(target, "path"):
        # an open file of fsspec's
        return _from_filesystem(target.fs, target.path, target.fs.unstrip_protocol(target.path))
    if isinstance(target, io.BytesIO):
        return MemorySource(target.getvalue())
    if hasattr(target, "read") and hasattr(target, "seek"):
        return _from_file_object(target)
    raise TypeError(
        f"can't open {type(target).__name__} as MRC; accepted: a path, a URL, bytes, "
        "or a seekable binary file object"
    )


def filesystem(
    target: str, storage_options: dict[str, Any] | None = None
) -> tuple[AbstractFileSystem | None, str]:
    """Find where a path or URL leads.

    Returns
    -------
    fs : AbstractFileSystem or None
        The store; None for a disk.
    path : str
        The name there.
    """
    # "::" alone may stand in a name, and "://" can't
    if "://" not in target or os.path.exists(target):
        return None, target
    from fsspec.core import url_to_fs
    from fsspec.implementations.local import LocalFileSystem

    try:
        fs, path = url_to_fs(target, **(storage_options or {}))
    except ImportError as error:
        error.add_note(_missing_store(target))
        raise
    return (None if isinstance(fs, LocalFileSystem) else fs), path


@dataclass(frozen=True)
class LocalSource(_Alone):
    """A file on a disk, or on a file system that all workers share."""

    access: ClassVar[Access] = Access(gap=0, skip=1024, piece=8 * _MiB, batch=8 * _MiB)

    name: str
    size: int
    mtime_ns: int

    @classmethod
    def open(cls, path: str) -> LocalSource:
        """Take the file's size and time as they are now."""
        path = os.path.abspath(os.path.expanduser(path))
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(21, "Is a directory", path)
        if not stat.S_ISREG(found.st_mode):
            raise MrcError(f"{path}: not a regular file, but a pipe, socket or device")
        return cls(path, found.st_size, found.st_mtime_ns)

    def read(self, offset: int, nbytes: int) -> bytes:
        buffer = bytearray(nbytes)
        self.read_into([(offset, memoryview(buffer))])
        return bytes(buffer)

    def read_into(self, requests: Sequence[Request]) -> None:
        with self._checked() as fd:
            for offset, buffer in requests:
                done = _preadv(fd, [buffer], offset)
                while done < len(buffer):
                    # a read may stop early, at 2 GiB for one; one that stops at once is at the end
                    n = _preadv(fd, [buffer[done:]], offset + done)
                    if not n:
                        raise _too_short(self.name, offset, len(buffer), done)
                    done += n

    @contextlib.contextmanager
    def fetching(self) -> Iterator[Callable[[int, int], bytes]]:
        with self._checked() as fd:

            def fetch(offset: int, nbytes: int) -> bytes:
                if hasattr(os, "pread"):
                    return os.pread(fd, nbytes, offset)
                os.lseek(fd, offset, os.SEEK_SET)
                return os.read(fd, nbytes)

            yield fetch

    def map(self) -> mmap.mmap | None:
        options: dict[str, Any] = {"access": mmap.ACCESS_COPY}
        if sys.platform == "linux":
            # a private map of a file beyond the machine's memory is refused otherwise
            flags = mmap.MAP_PRIVATE | _MAP_NORESERVE
            options = {"flags": flags, "prot": mmap.PROT_READ | mmap.PROT_WRITE}
        if sys.version_info >= (3, 13):
            options["trackfd"] = False
        with self._checked() as fd:
            try:
                return mmap.mmap(fd, self.size, **options)
            except OSError as error:
                if error.errno != errno.EMFILE:
                    raise
                # before 3.13 a map keeps a descriptor, and a process may have so many
                return None

    def read_beside(self, name: str) -> bytes | None:
        path = self.beside(name)
        if not os.path.isfile(path):
            return None
        with open(path, "rb") as file:
            return file.read(_LONGEST_SIDECAR)

    def names_beside(self) -> list[str]:
        return os.listdir(os.path.dirname(self.name))

    def beside(self, name: str) -> str:
        return os.path.join(os.path.dirname(self.name), name)

    @contextlib.contextmanager
    def _checked(self) -> Iterator[int]:
        """Open the file, and make sure that it is still the one that was opened at first."""
        fd = os.open(self.name, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            found = os.fstat(fd)
            if (found.st_size, found.st_mtime_ns) != (self.size, self.mtime_ns):
                raise _changed(self.name, f"{self.size} bytes, now {found.st_size}")
            yield fd
        finally:
            os.close(fd)


@dataclass(frozen=True)
class StoreSource(_Alone):
    """A file in a store that fsspec knows."""

    # 64 MiB under way keep a fast store busy, and bound the memory of a large load
    access: ClassVar[Access] = Access(64 * 1024, skip=_MiB, piece=16 * _MiB, batch=64 * _MiB)

    fs: AbstractFileSystem
    path: str
    name: str
    size: int
    version: str
    # by process, and not pickled: each compares once before its first pixel, and one that was
    # forked needs a file system of its own, since fsspec's event loop stays behind
    _here: dict[int, AbstractFileSystem] = field(default_factory=dict, repr=False, compare=False)
    _compared: set[int] = field(default_factory=set, repr=False, compare=False)

    @classmethod
    def open(cls, fs: AbstractFileSystem, path: str, name: str) -> StoreSource:
        """Ask the store once what the file is now."""
        size, version = _describe(fs, path, name)
        return cls(fs, path, name, size, version, {os.getpid(): fs})

    def __reduce__(self) -> tuple[Any, ...]:
        return StoreSource, (self.fs, self.path, self.name, self.size, self.version)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return self.__reduce__()

    def read(self, offset: int, nbytes: int) -> bytes:
        data = self._filesystem().cat_file(self.path, start=offset, end=offset + nbytes)
        return self._complete(data, offset, nbytes)

    def read_into(self, requests: Sequence[Request]) -> None:
        if not requests:
            return
        fs = self._filesystem()
        if os.getpid() not in self._compared:
            size, version = _describe(fs, self.path, self.name)
            if (size, version) != (self.size, self.version):
                raise _changed(
                    self.name, f"{self.size} bytes, {self.version}; now {size}, {version}"
                )
            self._compared.add(os.getpid())
        groups = _adjacent(requests, self.access.piece)
        starts = [group[0][0] for group in groups]
        ends = [group[-1][0] + len(group[-1][1]) for group in groups]
        answers = fs.cat_ranges([self.path] * len(starts), starts, ends, on_error="raise")
        for group, start, end, data in zip(groups, starts, ends, answers, strict=True):
            whole = memoryview(self._complete(data, start, end - start))
            for offset, buffer in group:
                buffer[:] = whole[offset - start : offset - start + len(buffer)]

    def map(self) -> None:
        return None

    def read_beside(self, name: str) -> bytes | None:
        # other sidecars are rarer than the requests that would look for them
        if not self.path.endswith("_movie.mrc") or not name.endswith(_MOVIES_SIDECARS):
            return None
        fs = self._filesystem()
        try:
            found: bytes = fs.cat_file(_sibling(self.path, name), start=0, end=_LONGEST_SIDECAR)
        except FileNotFoundError:
            return None
        return found

    def names_beside(self) -> list[str]:
        fs = self._filesystem()
        try:
            listed = fs.ls(fs._parent(self.path), detail=False)
        except (OSError, NotImplementedError):
            # most HTTP servers list nothing
            return []
        return [path.rstrip("/").rpartition("/")[2] for path in listed]

    def beside(self, name: str) -> str:
        # in a chain like simplecache::s3://bucket/key, the first URL names the file
        parts = self.name.split("::")
        at = next((i for i, part in enumerate(parts) if "://" in part), 0)
        parts[at] = _sibling(parts[at], name)
        return "::".join(parts)

    def _filesystem(self) -> AbstractFileSystem:
        fs = self._here.get(os.getpid())
        if fs is None:
            # unpickling makes a new one in a process that has none
            fs = self._here[os.getpid()] = pickle.loads(pickle.dumps(self.fs))
        return fs

    def _complete(self, data: bytes, offset: int, nbytes: int) -> bytes:
        if len(data) == nbytes:
            return data
        hint = ""
        if len(data) == self.size:
            hint = " It ignores byte ranges: copy the file, or put simplecache:: before the URL."
        raise MrcError(
            f"{self.name}: the store answered with {len(data)} bytes for the {nbytes} from byte "
            f"{offset}.{hint}"
        )


@dataclass(frozen=True)
class MemorySource(_Alone):
    """Bytes that are already in memory."""

    access: ClassVar[Access] = Access(gap=0, skip=1024, piece=8 * _MiB, batch=8 * _MiB)

    data: bytes = field(repr=False)
    name: str = "<bytes>"

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, nbytes: int) -> bytes:
        return self.data[offset : offset + nbytes]

    def read_into(self, requests: Sequence[Request]) -> None:
        view = memoryview(self.data)
        for offset, buffer in requests:
            buffer[:] = view[offset : offset + len(buffer)]

    def map(self) -> None:
        return None


class FileObjectSource(_Alone):
    """An open file that has no name to open it by again, such as a member of an archive.

    It has one position, so that reads wait for each other, and it can't go to another process.
    """

    access: ClassVar[Access] = Access(gap=64 * 1024, skip=1024, piece=8 * _MiB, batch=8 * _MiB)

    def __init__(self, file: BinaryIO) -> None:
        self.name = f"<{type(file).__name__}>"
        self._file = file
        self._lock = _lock_of(file)
        with self._position():
            file.seek(0, os.SEEK_END)
            self.size = file.tell()

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(
            f"{self.name}: an open file object can't be sent to another process; "
            "open the file by its path or URL"
        )

    def read(self, offset: int, nbytes: int) -> bytes:
        buffer = bytearray(nbytes)
        self.read_into([(offset, memoryview(buffer))])
        return bytes(buffer)

    def read_into(self, requests: Sequence[Request]) -> None:
        with self._position():
            for offset, buffer in requests:
                self._file.seek(offset)
                done = 0
                while done < len(buffer):
                    data = self._file.read(len(buffer) - done)
                    if not data:
                        raise _too_short(self.name, offset, len(buffer), done)
                    buffer[done : done + len(data)] = data
                    done += len(data)

    def map(self) -> None:
        return None

    @contextlib.contextmanager
    def _position(self) -> Iterator[None]:
        """Hold the file, and leave it where the user had it."""
        with self._lock:
            before = self._file.tell()
            try:
                yield
            finally:
                self._file.seek(before)


def _sibling(path: str, name: str) -> str:
    """Return the path or URL of another file in the same folder of a store."""
    folder, slash, _ = path.rpartition("/")
    return folder + slash + name


def _adjacent(requests: Sequence[Request], longest: int) -> list[list[Request]]:
    """Group requests that follow each other in the file, such as blocks, up to `longest` bytes."""
    groups: list[list[Request]] = []
    end = total = -1
    for offset, buffer in requests:
        if offset == end and total + len(buffer) <= longest:
            groups[-1].append((offset, buffer))
            total += len(buffer)
        else:
            groups.append([(offset, buffer)])
            total = len(buffer)
        end = offset + len(buffer)
    return groups


# sources of one file object share its one position
_LOCKS: weakref.WeakKeyDictionary[Any, threading.Lock] = weakref.WeakKeyDictionary()
_FIRST_COME = threading.Lock()


def _lock_of(file: BinaryIO) -> threading.Lock:
    with _FIRST_COME:
        try:
            return _LOCKS.setdefault(file, threading.Lock())
        except TypeError:
            # not weakly referable: whoever opens it twice has to take care
            return threading.Lock()


def _from_filesystem(fs: AbstractFileSystem, path: str, name: str) -> ByteSource:
    from fsspec.implementations.local import LocalFileSystem

    if isinstance(fs, LocalFileSystem):
        return LocalSource.open(path)
    try:
        return StoreSource.open(fs, path, name)
    except ImportError as error:
        error.add_note(_missing_store(name))
        raise


def _from_file_object(file: BinaryIO) -> ByteSource:
    """Take an open local file by its name, if that still is the same file."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        # a named temporary file wraps its file
        file = getattr(file, "file", file)
        path = file.name
        # a GzipFile too has a name and a descriptor, but those of the compressed file
        is_raw = isinstance(file, io.FileIO | io.BufferedReader | io.BufferedRandom)
        if (
            is_raw
            and isinstance(path, str)
            and os.path.samestat(os.fstat(file.fileno()), os.stat(path))
        ):
            return LocalSource.open(path)
    return FileObjectSource(file)


def _missing_store(url: str) -> str:
    extras = {"http": "http", "https": "http", "s3": "s3", "s3a": "s3"}
    protocols = [part.partition("://")[0] for part in url.split("::")]
    extra = next((extras[protocol] for protocol in protocols if protocol in extras), None)
    if extra is None:
        return f"{url}: install the fsspec package for this kind of URL"
    return f'{url}: pip install "mrc-xarray[{extra}]" brings what this kind of URL needs'


# what stores call that which changes when a file does, the surest first
_MARKS = (
    *("ETag", "etag", "md5", "Content-MD5", "Digest", "generation"),
    *("LastModified", "Last-Modified", "last_modified", "mtime", "modified", "updated", "created"),
)


def _describe(fs: AbstractFileSystem, path: str, name: str) -> tuple[int, str]:
    """Return a file's size, and what else the store tells that changes when the file does."""
    # a listing from before could be of an older file
    fs.invalidate_cache(path)
    info = fs.info(path)
    size = info.get("size")
    if info.get("type") == "directory":
        raise IsADirectoryError(21, "Is a directory", name)
    if not isinstance(size, int):
        raise MrcError(
            f"{name}: the store does not tell the file's size; copy the file, "
            "or put simplecache:: before the URL"
        )
    version = next((f"{mark} {info[mark]}" for mark in _MARKS if info.get(mark)), "")
    return size, version


def _seek_and_read(fd: int, buffers: list[memoryview], offset: int) -> int:
    """Do what `os.preadv` does, on a descriptor that no other thread uses."""
    os.lseek(fd, offset, os.SEEK_SET)
    data = os.read(fd, len(buffers[0]))
    buffers[0][: len(data)] = data
    return len(data)


# Windows and macOS before 11 have none
_preadv = getattr(os, "preadv", _seek_and_read)


def _too_short(name: str, offset: int, wanted: int, got: int) -> MrcError:
    return MrcError(
        f"{name}: the file ended while it was read: {got} of {wanted} bytes from byte {offset}"
    )


def _changed(name: str, how: str) -> MrcError:
    return MrcError(
        f"{name}: the file changed since it was opened ({how}); open it again to read it as it is"
    )
