"""A folder on a disk or in a store, and the files that other files name relative to it."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mrc_xarray.errors import MrcError
from mrc_xarray.storage import LocalSource, StoreSource, StreamSource, place_of
from mrc_xarray.storage.base import ByteSource, InStore
from mrc_xarray.storage.failures import without_secrets
from mrc_xarray.storage.urls import has_encoded_names, redacted

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = ["Folder"]


@dataclass(frozen=True)
class Folder:
    """A folder whose files are named by paths, and never by URLs.

    On a disk, a path can be absolute or lead to a parent. In a store, it is relative, and can't
    lead out of the host or bucket.

    Attributes
    ----------
    fs : AbstractFileSystem or None
        None for a disk.
    path : str
        The path, or the name in the store: for HTTP, a URL without a query string.
    """

    fs: AbstractFileSystem | None = field(repr=False)
    path: str = field(repr=False)
    # the process that may use `fs`: its event loop does not exist in the child of a fork
    _process: int = field(default_factory=os.getpid, repr=False, compare=False)

    @classmethod
    def at(cls, target: str | os.PathLike[str], storage_options: dict[str, Any] | None) -> Folder:
        """Return the folder at a path or URL."""
        _, fs, path = place_of(target, storage_options)
        if fs is None:
            return cls(None, os.path.abspath(os.path.expanduser(path)))
        return cls(fs, _without_query(path).rstrip("/"))

    @classmethod
    def of(cls, source: ByteSource) -> Folder | None:
        """Return the folder of a file; None if the file has no name."""
        if isinstance(source, StreamSource):
            return cls.of(source.stream.source)
        if isinstance(source, LocalSource):
            return cls(None, os.path.dirname(source.name))
        if isinstance(source, StoreSource):
            return cls(source.fs, _without_query(source.path).rpartition("/")[0])
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        return Folder, (self.fs, self.path)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return self.__reduce__()

    @property
    def name(self) -> str:
        """The path or URL, without secrets."""
        return self.path if self.fs is None else redacted(self.fs.unstrip_protocol(self.path))

    def upwards(self) -> Iterator[Folder]:
        """Yield this folder and its parents."""
        if self.fs is None:
            path, parent = self.path, os.path.dirname(self.path)
            yield self
            while parent != path:
                yield Folder(None, parent)
                path, parent = parent, os.path.dirname(parent)
            return
        root, parts = _split(self.path)
        for n in range(len(parts), -1, -1):
            yield Folder(self.fs, "/".join([root, *parts[:n]]))

    def has(self, name: str) -> bool:
        """Return whether a file of this name exists, and can be looked for."""
        found = self.file(name)
        if isinstance(found, str):
            return os.path.isfile(found)
        try:
            with without_secrets(found.name, found.path):
                return bool(found.fs.exists(found.path))
        except OSError:
            return False

    def file(self, name: str) -> str | InStore:
        """Return what `open_source` accepts for a file; raise MrcError if the name is no path."""
        if "://" in name or "\0" in name:
            raise MrcError(f"{name!r} is not the path of a file; accepted: paths, and no URLs")
        if self.fs is None:
            return os.path.join(self.path, name)
        root, parts = _split(self.path)
        if name.startswith("/"):
            where = f"relative to a folder in {self.name}"
            raise MrcError(f"{name!r} is an absolute path; accepted: paths {where}")
        for part in name.split("/"):
            if part == ".." and not parts:
                raise MrcError(f"{name!r} leads out of {redacted(root) or 'the store'}")
            if part == "..":
                parts.pop()
            elif part not in ("", "."):
                parts.append(quote(part, safe="") if has_encoded_names(self.path) else part)
        path = "/".join([root, *parts])
        fs = self._filesystem()
        return InStore(fs, path, redacted(fs.unstrip_protocol(path)))

    def _filesystem(self) -> AbstractFileSystem:
        if self._process == os.getpid():
            assert self.fs is not None
            return self.fs
        fs: AbstractFileSystem = pickle.loads(pickle.dumps(self.fs))
        return fs


def _without_query(path: str) -> str:
    """Return a name in a store without the query string that a URL can have."""
    return path.partition("?")[0].partition("#")[0] if "://" in path else path


def _split(path: str) -> tuple[str, list[str]]:
    """Split a folder in a store into what no name may lead out of, and the folders within."""
    start, separator, rest = path.rpartition("://")
    root, *parts = rest.split("/")
    return start + separator + root, [part for part in parts if part]
