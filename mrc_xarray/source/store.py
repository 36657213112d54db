"""A file in a store that fsspec knows."""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from mrc_xarray.format import MrcError
from mrc_xarray.format.layout import COMPRESSED_SUFFIXES
from mrc_xarray.source.base import LONGEST_SIDECAR, Access, Alone, MiB, Request, changed

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = ["StoreSource", "missing_store"]

# what a store is asked for beside a Direct Electron movie
_MOVIES_SIDECARS = ("_info.txt", "_scan_coordinates.csv")


@dataclass(frozen=True)
class StoreSource(Alone):
    """A file in a store that fsspec knows."""

    # 64 MiB under way keep a fast store busy, and bound the memory of a large load
    access: ClassVar[Access] = Access(64 * 1024, skip=MiB, piece=16 * MiB, batch=64 * MiB)

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
        fs = self._filesystem()
        if os.getpid() not in self._compared:
            size, version = _describe(fs, self.path, self.name)
            if (size, version) != (self.size, self.version):
                raise changed(
                    self.name, f"{self.size} bytes, {self.version}; now {size}, {version}"
                )
            self._compared.add(os.getpid())
        if not requests:
            return
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
        image, suffix = os.path.splitext(self.path)
        image = image if suffix in COMPRESSED_SUFFIXES else self.path
        if not image.endswith("_movie.mrc") or not name.endswith(_MOVIES_SIDECARS):
            return None
        fs = self._filesystem()
        try:
            found: bytes = fs.cat_file(_sibling(self.path, name), start=0, end=LONGEST_SIDECAR)
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


def missing_store(url: str) -> str:
    """Return what to install for a URL of this kind."""
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
    try:
        info = fs.info(path)
    except FileNotFoundError as error:
        reason = _reason(error, name)
        if reason is None:
            raise
        raise reason from error
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


def _reason(error: FileNotFoundError, name: str) -> OSError | None:
    """Tell apart what fsspec calls a missing file, whatever it was that an HTTP server said."""
    cause = error.__cause__
    status, said = getattr(cause, "status", 404), getattr(cause, "message", "")
    if isinstance(cause, TimeoutError):
        return TimeoutError(errno.ETIMEDOUT, "The server did not answer in time", name)
    if status in (401, 403):
        return PermissionError(errno.EACCES, f"The server refuses it: {status} {said}", name)
    if status >= 500:
        return OSError(errno.EIO, f"The server can't give it now: {status} {said}", name)
    return None
