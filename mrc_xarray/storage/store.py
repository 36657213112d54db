"""A file in a store that fsspec supports."""

from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from mrc_xarray.storage.base import LONGEST_SIDECAR, Access, Alone, InStore, MiB, Request
from mrc_xarray.storage.failures import without_secrets
from mrc_xarray.storage.local import is_same_file
from mrc_xarray.storage.ranges import describe, fetch
from mrc_xarray.storage.urls import redacted, sibling, without_query
from mrc_xarray.storage.version import Version
from mrc_xarray.suffixes import COMPRESSED_SUFFIXES

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = ["StoreSource"]

# sidecars that a store is asked for, if the image is a Direct Electron movie
_MOVIES_SIDECARS = ("_info.txt", "_scan_coordinates.csv")


@dataclass(frozen=True)
class StoreSource(Alone):
    """A file in a store that fsspec supports.

    Attributes
    ----------
    fs, path, name
        See `InStore`.
    version : Version
        The version of the file that was opened. Bytes of another version are never returned.
    """

    # 64 MiB under way keep a fast store busy, and bound the memory of a large load
    access: ClassVar[Access] = Access(64 * 1024, skip=MiB, piece=16 * MiB, batch=64 * MiB)

    fs: AbstractFileSystem = field(repr=False)
    path: str = field(repr=False)
    name: str
    version: Version
    # by process, and not pickled: a forked process needs a file system of its own, since the
    # thread of fsspec's event loop does not exist there
    _here: dict[int, AbstractFileSystem] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, fs: AbstractFileSystem, path: str, url: str) -> StoreSource:
        """Return the source of the version that the store has now."""
        with without_secrets(url, path):
            version = describe(fs, path, redacted(url))
        return cls(fs, path, redacted(url), version, {os.getpid(): fs})

    def __reduce__(self) -> tuple[Any, ...]:
        return StoreSource, (self.fs, self.path, self.name, self.version)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return self.__reduce__()

    @property
    def size(self) -> int:
        return self.version.size

    def read(self, offset: int, nbytes: int) -> bytes:
        return self._fetch([(offset, offset + nbytes)])[0]

    def read_into(self, requests: Sequence[Request]) -> None:
        groups = _adjacent(requests, self.access.piece)
        spans = [(group[0][0], group[-1][0] + len(group[-1][1])) for group in groups]
        for group, (start, _), data in zip(groups, spans, self._fetch(spans), strict=True):
            whole = memoryview(data)
            for offset, buffer in group:
                buffer[:] = whole[offset - start : offset - start + len(buffer)]

    def map(self) -> None:
        return None

    def is_of(self, found: os.stat_result) -> bool:
        # such as blockcache::file://
        return is_same_file(self.path, found)

    def read_beside(self, name: str) -> bytes | None:
        # other sidecars are rarer than the requests that would look for them
        path = without_query(self.path)
        image, suffix = os.path.splitext(path)
        image = image if suffix in COMPRESSED_SUFFIXES else path
        if not image.endswith("_movie.mrc") or not name.endswith(_MOVIES_SIDECARS):
            return None
        try:
            with self._asking() as fs:
                found: bytes = fs.cat_file(sibling(path, name), start=0, end=LONGEST_SIDECAR)
        except FileNotFoundError:
            return None
        return found

    def names_beside(self) -> list[str]:
        try:
            with self._asking() as fs:
                # without a query string, which may contain slashes
                listed = fs.ls(fs._parent(sibling(self.path, "_")), detail=False)
        except (OSError, NotImplementedError):
            # most HTTP servers list nothing
            return []
        return [path.rstrip("/").rpartition("/")[2] for path in listed]

    def beside(self, name: str) -> InStore:
        # in a chain like simplecache::s3://bucket/key, the first URL names the file
        parts = self.name.split("::")
        at = next((i for i, part in enumerate(parts) if "://" in part), 0)
        parts[at] = sibling(parts[at], name)
        return InStore(self._filesystem(), sibling(self.path, name), "::".join(parts))

    def _fetch(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        with self._asking() as fs:
            return fetch(fs, self.path, self.name, self.version, spans)

    @contextlib.contextmanager
    def _asking(self) -> Iterator[AbstractFileSystem]:
        """Yield this process's file system; the exceptions that it raises contain no secrets."""
        with without_secrets(self.name, self.path):
            yield self._filesystem()

    def _filesystem(self) -> AbstractFileSystem:
        fs = self._here.get(os.getpid())
        if fs is None:
            # unpickling makes a new one in a process that has none
            fs = self._here[os.getpid()] = pickle.loads(pickle.dumps(self.fs))
        return fs


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
