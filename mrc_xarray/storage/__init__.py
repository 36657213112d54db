"""Where bytes come from: a local file, any store that fsspec knows, memory, a file object.

A source holds no handle, no map and no lock (except for a file object, which is one), so that it
can be pickled, forked and shared by threads. It remembers what the file was when it was opened,
and refuses to read another: wrong pixels are worse than an error.

This is the only package that knows fsspec.
"""

from __future__ import annotations

import contextlib
import io
import os
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from mrc_xarray.storage.base import FIRST_READ, ByteSource, InStore, Request
from mrc_xarray.storage.codecs import begins_stream
from mrc_xarray.storage.failures import without_secrets
from mrc_xarray.storage.local import LocalSource
from mrc_xarray.storage.memory import FileObjectSource, MemorySource
from mrc_xarray.storage.store import StoreSource
from mrc_xarray.storage.stream import StreamSource
from mrc_xarray.storage.urls import redacted

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = [
    "ByteSource",
    "FileObjectSource",
    "InStore",
    "LocalSource",
    "MemorySource",
    "Request",
    "StoreSource",
    "StreamSource",
    "Target",
    "WriteTarget",
    "filesystem",
    "name_of",
    "open_decoded",
    "open_source",
    "place_of",
    "redacted",
]

#: What the engine opens.
Target: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | InStore | ByteSource"
)
#: What is written to.
WriteTarget: TypeAlias = "str | os.PathLike[str] | BinaryIO"


def open_source(target: Target, storage_options: dict[str, Any] | None = None) -> ByteSource:
    """Return the source for a target; `storage_options` are for fsspec, if it is a URL.

    Raises
    ------
    OSError
        As `open` raises, if there is no such file, or it may not be read.
    MrcError
        If the target is not a regular file.
    TypeError
        If the target is something else.
    """
    if isinstance(target, bytes | bytearray | memoryview):
        return MemorySource(bytes(target))
    if isinstance(target, str | os.PathLike):
        path = os.fsdecode(target)
        fs, stripped = filesystem(path, storage_options)
        return LocalSource.open(stripped) if fs is None else _from_filesystem(fs, stripped, path)
    if isinstance(target, InStore):
        return _from_filesystem(target.fs, target.path, target.name)
    if isinstance(target, ByteSource):
        return target
    if isinstance(target, io.TextIOBase):
        raise TypeError("can't read MRC from a file that is open as text; open it as 'rb'")
    if getattr(target, "compression", None) and hasattr(target, "open"):
        # from fsspec.open(..., compression=...): its path leads to the compressed bytes
        return FileObjectSource(target.open())
    if hasattr(target, "fs") and hasattr(target, "path"):
        # an fsspec file object
        return _from_filesystem(target.fs, target.path, target.fs.unstrip_protocol(target.path))
    if isinstance(target, io.BytesIO):
        return MemorySource(target.getvalue())
    if hasattr(target, "read") and hasattr(target, "seek"):
        return _from_file_object(target)
    raise TypeError(
        f"can't open {type(target).__name__} as MRC; accepted: a path, a URL, bytes, "
        "or a seekable binary file object"
    )


def open_decoded(
    target: Target,
    storage_options: dict[str, Any] | None = None,
    *,
    salvages: bool = False,
    first_read: int = FIRST_READ,
) -> tuple[ByteSource, bytes]:
    """Return the source of a file, which decodes a compressed stream, and its first bytes.

    Parameters
    ----------
    target, storage_options
        As for `open_source`.
    salvages : bool
        Whether to decode a compressed stream to its end now, and to return also bytes that may be
        wrong if it is damaged.
    first_read : int
        How many of its first bytes to return, unless it is a stream.

    Returns
    -------
    source : ByteSource
    head : bytes
        Its first bytes, or all of them.

    Raises
    ------
    OSError, MrcError, TypeError
        As `open_source`; MrcError also if a stream can't be decoded. A long one is a warning.
    """
    source = open_source(target, storage_options)
    assert source.size is not None
    head = source.read(0, min(first_read, source.size))
    codec = begins_stream(head)
    if codec is None:
        return source, head
    return StreamSource.open(source, codec, salvages=salvages)


def filesystem(
    target: str, storage_options: dict[str, Any] | None = None
) -> tuple[AbstractFileSystem | None, str]:
    """Return the store that a path or URL leads to, None for a disk, and the name there."""
    # "::" alone may be part of a name, unlike "://"
    if "://" not in target or os.path.exists(target):
        return None, target
    from fsspec.core import url_to_fs
    from fsspec.implementations.local import LocalFileSystem

    # this may open an archive, whose error may contain the URL
    with without_secrets(target):
        fs, path = url_to_fs(target, **(storage_options or {}))
    return (None if isinstance(fs, LocalFileSystem) else fs), path


def place_of(
    target: WriteTarget, storage_options: dict[str, Any] | None = None
) -> tuple[str, AbstractFileSystem | None, str]:
    """Return the name of a target to write to, the store, and the name there, as `filesystem`.

    A path in a store, as of universal_pathlib, brings its own store. Raise TypeError for anything
    else than a path or URL.
    """
    # what fsspec.open returns also has a store and a path
    is_path = not (hasattr(target, "write") or hasattr(target, "compression"))
    if isinstance(target, str | os.PathLike):
        name = os.fsdecode(target)
        return name, *filesystem(name, storage_options)
    if hasattr(target, "fs") and hasattr(target, "path") and is_path:
        from fsspec.implementations.local import LocalFileSystem

        is_local = isinstance(target.fs, LocalFileSystem)
        return str(target), None if is_local else target.fs, target.path
    hint = ", which is not open" if hasattr(target, "compression") else ""
    raise TypeError(
        f"can't write to {type(target).__name__}{hint}; accepted: a path or a URL, and for a new "
        "file also an open binary file object"
    )


def name_of(target: WriteTarget, storage_options: dict[str, Any] | None = None) -> str:
    """Return the name of a target to write to, without secrets, for messages and its suffix."""
    if not hasattr(target, "write"):
        return redacted(place_of(target, storage_options)[0])
    if hasattr(target, "fs") and hasattr(target, "path"):
        return redacted(target.fs.unstrip_protocol(target.path))
    # a named temporary file wraps its file
    file = getattr(target, "file", target)
    name = getattr(file, "name", None)
    # a GzipFile has the name of the compressed file
    is_plain = isinstance(file, io.FileIO | io.BufferedWriter | io.BufferedRandom)
    return name if is_plain and isinstance(name, str) else f"<{type(file).__name__}>"


def _from_filesystem(fs: AbstractFileSystem, path: str, url: str) -> ByteSource:
    from fsspec.implementations.local import LocalFileSystem

    is_local = isinstance(fs, LocalFileSystem)
    return LocalSource.open(path) if is_local else StoreSource.open(fs, path, url)


def _from_file_object(file: BinaryIO) -> ByteSource:
    """Open a local file by its name again, if the name still leads to the same file."""
    # a named temporary file wraps its file
    file = getattr(file, "file", file)
    # a GzipFile also has a name and a descriptor, but of the compressed file
    if isinstance(file, io.FileIO | io.BufferedReader | io.BufferedRandom):
        with contextlib.suppress(AttributeError, OSError, TypeError):
            path = file.name
            is_same = os.path.samestat(os.fstat(file.fileno()), os.stat(path))
            if isinstance(path, str) and is_same:
                return LocalSource.open(path)
    return FileObjectSource(file)
