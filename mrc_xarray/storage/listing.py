"""The files whose names match a pattern, on a disk or in a store."""

from __future__ import annotations

import errno
import glob
import os
import re
from typing import TYPE_CHECKING, Any

from mrc_xarray.storage import filesystem
from mrc_xarray.storage.base import InStore
from mrc_xarray.storage.failures import without_secrets
from mrc_xarray.storage.urls import redacted

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = ["matching"]


def matching(
    pattern: str, storage_options: dict[str, Any] | None = None
) -> list[str] | list[InStore]:
    """Return the files that match a pattern, in natural order: ``TS_2`` precedes ``TS_10``.

    A path can contain ``*``, ``?``, ``[...]`` and ``**``, and a URL ``*`` and ``**``. The name of
    an existing file, and a URL without ``*``, match themselves.

    Raises
    ------
    FileNotFoundError
        If no file matches.
    OSError
        If the store can't be listed.
    """
    # in a URL, ? begins a query string, and [ can begin a host
    has_magic = "*" in redacted(pattern) if "://" in pattern else glob.has_magic(pattern)
    if not has_magic or os.path.lexists(os.path.expanduser(pattern)):
        return [pattern]
    fs, path = filesystem(pattern, storage_options)
    found: list[str] | list[InStore]
    if fs is None:
        names = glob.glob(os.path.expanduser(path), recursive=True)
        found = sorted((name for name in names if not os.path.isdir(name)), key=_natural)
    else:
        found = _in_store(fs, path, pattern)
    if not found:
        raise FileNotFoundError(errno.ENOENT, "No file matches the pattern", redacted(pattern))
    return found


def _in_store(fs: AbstractFileSystem, path: str, pattern: str) -> list[InStore]:
    with without_secrets(pattern, path):
        entries = fs.glob(path, detail=True)
    names = [name for name, entry in entries.items() if entry.get("type") != "directory"]
    # simplecache::s3://bucket/*.mrc names the files as simplecache::s3:// and their paths
    start, _, end = redacted(pattern).partition(redacted(path).lstrip("/"))
    return [
        InStore(fs, name, start + redacted(name).lstrip("/") + end)
        for name in sorted(names, key=_natural)
    ]


def _natural(name: str) -> list[int | str]:
    """Return a key that sorts numbers in names by their value."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]
