"""A file in a store that fsspec supports."""

from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import unquote

from mrc_xarray.storage.base import LONGEST_SIDECAR, Access, ByteSource, InStore, MiB, Request
from mrc_xarray.storage.failures import without_secrets
from mrc_xarray.storage.local import is_same_file
from mrc_xarray.storage.ranges import Version, describe, fetch
from mrc_xarray.storage.urls import has_encoded_names, redacted, sibling

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = ["StoreSource"]


@dataclass(frozen=True)
class StoreSource(ByteSource):
    """A file in a store that fsspec supports; bytes of another `version` are never returned.

    For `fs`, `path` and `name` see `InStore`.
    """

    # a batch of 64 MiB is enough for a fast store, and bounds the memory of a large load
    access: ClassVar[Access] = Access(64 * 1024, skip=MiB, piece=16 * MiB, batch=64 * MiB)

    fs: AbstractFileSystem = field(repr=False)
    path: str = field(repr=False)
    name: str
    version: Version
    # by process, and not pickled: a forked process needs its own file system, since the thread of
    # fsspec's event loop does not exist there
    _copies: dict[int, AbstractFileSystem] = field(default_factory=dict, repr=False, compare=False)

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
    def size(self) -> int:  # type: ignore[override]  # nothing assigns to a frozen source
        return self.version.size

    def read_into(self, requests: Sequence[Request]) -> None:
        groups = _adjacent(requests, self.access.piece)
        spans = list(map(_span, groups))
        for group, (start, _), data in zip(groups, spans, self._fetch(spans), strict=True):
            view = memoryview(data)
            for offset, buffer in group:
                buffer[:] = view[offset - start : offset - start + len(buffer)]

    def is_of(self, found: os.stat_result) -> bool:
        # the path is local in chains such as blockcache::file://
        return is_same_file(self.path, found)

    def read_sibling(self, name: str) -> bytes | None:
        try:
            with self._secret_free() as fs:
                found: bytes = fs.cat_file(sibling(self.path, name), start=0, end=LONGEST_SIDECAR)
        except FileNotFoundError:
            return None
        return found

    def sibling_names(self) -> list[str]:
        try:
            with self._secret_free() as fs:
                # without a query string, which may contain slashes
                listed = fs.ls(fs._parent(sibling(self.path, "_")), detail=False)
        except (OSError, NotImplementedError):
            # most HTTP servers list no folders
            return []
        names = [path.rstrip("/").rpartition("/")[2] for path in listed]
        return [*map(unquote, names)] if has_encoded_names(self.path) else names

    def sibling(self, name: str) -> InStore:
        # in a chain like simplecache::s3://bucket/key, the first URL names the file
        parts = self.name.split("::")
        at = next((i for i, part in enumerate(parts) if "://" in part), 0)
        parts[at] = sibling(parts[at], name)
        return InStore(self._filesystem(), sibling(self.path, name), "::".join(parts))

    def _fetch(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        with self._secret_free() as fs:
            return fetch(fs, self.path, self.name, self.version, spans)

    @contextlib.contextmanager
    def _secret_free(self) -> Iterator[AbstractFileSystem]:
        """Yield this process's file system; the exceptions that it raises contain no secrets."""
        with without_secrets(self.name, self.path):
            yield self._filesystem()

    def _filesystem(self) -> AbstractFileSystem:
        fs = self._copies.get(os.getpid())
        if fs is None:
            # unpickling makes a new file system in a process without one
            fs = self._copies[os.getpid()] = pickle.loads(pickle.dumps(self.fs))
        return fs


def _adjacent(requests: Sequence[Request], longest: int) -> list[list[Request]]:
    """Group requests that follow each other in the file, such as blocks, up to `longest` bytes."""
    groups: list[list[Request]] = []
    for offset, buffer in requests:
        start, end = _span(groups[-1]) if groups else (-1, -1)
        if offset == end and offset + len(buffer) - start <= longest:
            groups[-1].append((offset, buffer))
        else:
            groups.append([(offset, buffer)])
    return groups


def _span(group: list[Request]) -> tuple[int, int]:
    offset, buffer = group[-1]
    return group[0][0], offset + len(buffer)
