"""Where a complete file goes: to a disk, a store or an open file object, perhaps compressed."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, cast

from mrc_xarray.errors import MrcError
from mrc_xarray.storage.codecs import encoder
from mrc_xarray.storage.compressed import first_bytes
from mrc_xarray.storage.failures import without_secrets
from mrc_xarray.storage.part import Part, exists
from mrc_xarray.storage.urls import redacted

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = ["Destination", "DiskDestination", "FileObjectDestination", "StoreDestination"]

# bytes that are copied at once: few, so that a copy stops soon after Ctrl-C
_COPIED = 1024**2


class _ByName:
    """A destination that any process finds by its name."""

    name: str

    def deliver(self, part: Part) -> None:
        """Do nothing: the process that completed the file has published it."""

    @property
    def note(self) -> str:
        """What a failure means for the file."""
        return f"{self.name} was not written; an existing file was not changed"


@dataclass(frozen=True)
class DiskDestination(_ByName):
    """A file on a disk, by its path. It is compressed if there is a codec, by fsspec's names."""

    name: str
    overwrite: bool
    codec: str | None = None

    def part(self) -> Part:
        """Choose a temporary file. It is in the same folder, where all workers can write."""
        return Part.of(self.name)

    def check(self) -> None:
        """Raise OSError or MrcError if nothing may be written under the name."""
        folder, is_there = os.path.dirname(self.name), os.path.exists(self.name)
        if not os.path.isdir(folder):
            raise FileNotFoundError(2, "No such directory", folder)
        if os.path.isdir(self.name):
            raise IsADirectoryError(21, "Is a directory", self.name)
        if is_there and not os.path.isfile(self.name):
            raise MrcError(f"{self.name}: not a regular file, but a pipe, socket or device")
        if is_there and not self.overwrite:
            raise exists(self.name)

    def begins_with(self, head: bytes) -> bool:
        """Return whether the file exists and, after decoding, begins with `head`."""
        return _begins_with(open, self.name, head)

    def publish(self, part: Part) -> None:
        """Give a complete file its final name, atomically, or compress it first."""
        if self.codec is None:
            part.publish(overwrite=self.overwrite)
            return
        encoded = self.part()
        try:
            with encoded.create(0):
                with open(encoded.path, "wb") as file:
                    _copy(part, file, self.codec, self.name)
                encoded.publish(overwrite=self.overwrite)
        finally:
            encoded.discard()
        part.discard()


@dataclass(frozen=True)
class StoreDestination(_ByName):
    """A file in a store, which is compressed while it is sent if there is a codec."""

    #: With its secrets, so that it is not shown.
    url: str = field(repr=False)
    overwrite: bool
    codec: str | None
    fs: AbstractFileSystem = field(repr=False)
    path: str = field(repr=False)

    @property
    def name(self) -> str:  # type: ignore[override]  # nothing assigns to it
        return redacted(self.url)

    def part(self) -> Part:
        """Choose a temporary file on a local disk."""
        # without a query string, which may be secret and contain slashes
        return _on_a_disk(self.name)

    def check(self) -> None:
        """Raise FileExistsError if the object exists and may not be replaced."""
        with without_secrets(self.url, self.path):
            self.fs.invalidate_cache(self.path)
            is_there = not self.overwrite and self.fs.exists(self.path)
        if is_there:
            raise exists(self.name)

    def begins_with(self, head: bytes) -> bool:
        """Return whether the object exists and, after decoding, begins with `head`."""
        return _begins_with(self.fs.open, self.path, head)

    def publish(self, part: Part) -> None:
        """Send a complete file, atomically."""
        self.check()
        # a transaction belongs to the file system, which others may use at the same time
        own = type(self.fs)(
            *self.fs.storage_args, **self.fs.storage_options, skip_instance_cache=True
        )
        try:
            with without_secrets(self.url, self.path), own.transaction:
                with self._opened(own) as file:
                    _copy(part, file, self.codec, self.name)
                # check once more, because the object is published at the end of the transaction
                self.check()
        except FileExistsError:
            raise exists(self.name) from None
        self.fs.invalidate_cache(self.path)
        part.discard()

    def _opened(self, fs: AbstractFileSystem) -> BinaryIO:
        """Open the object for writing, exclusively if the store supports that."""
        if not self.overwrite:
            # a store without exclusive writes relies on the check of a moment ago
            with contextlib.suppress(NotImplementedError, ValueError):
                return cast("BinaryIO", fs.open(self.path, "xb"))
        try:
            return cast("BinaryIO", fs.open(self.path, "wb"))
        except NotImplementedError:
            raise MrcError(
                f"{self.name}: this kind of URL can't be written to. Write to a disk, or to a "
                "store such as s3://"
            ) from None


@dataclass(frozen=True)
class FileObjectDestination:
    """An open binary file, which gets the complete file at its position, and is cut after it.

    A copy in another process has no `file`. So a part that another process completed stays on
    the disk until `deliver` is called in the process of the user.
    """

    name: str
    codec: str | None
    file: Any = field(default=None, repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return FileObjectDestination, (self.name, self.codec)

    def part(self) -> Part:
        """Choose a temporary file on a local disk."""
        return _on_a_disk(self.name)

    def check(self) -> None:
        """Raise TypeError or OSError if the object is not open for writing bytes."""
        if isinstance(getattr(self.file, "file", self.file), io.TextIOBase):
            raise TypeError(f"can't write to {self.name}, which is open as text; open it as 'w+b'")
        is_writable = getattr(self.file, "writable", None)
        if is_writable is not None and not is_writable():
            raise io.UnsupportedOperation(
                f"{self.name} is open for reading only; accepted: a file object that is open for "
                "writing bytes, for example as 'w+b' or 'r+b'"
            )

    def begins_with(self, head: bytes) -> bool:
        """Return False: only the part shows what was done."""
        return False

    def publish(self, part: Part) -> None:
        """Write a complete file to the object, if this process has it."""
        if self.file is not None:
            self.deliver(part)

    def deliver(self, part: Part) -> None:
        """Write a complete file to the object, unless that was done."""
        if not part.is_there:
            return
        if self.file is None:
            part.discard()
            raise MrcError(
                f"{self.name}: this process does not have the file object. With compute=False and "
                "a scheduler of several processes, write to a path"
            )
        with _LeftOpen(self.file) as file:
            _copy(part, cast("BinaryIO", file), self.codec, self.name)
        with contextlib.suppress(AttributeError, io.UnsupportedOperation):
            # the rest of an older and longer file
            self.file.truncate()
        with contextlib.suppress(AttributeError):
            self.file.flush()
        part.discard()

    @property
    def note(self) -> str:
        """What a failure means for the object."""
        return f"{self.name} was not written, or was written in part"


class _LeftOpen(io.RawIOBase):
    """An open file that takes all bytes of each write, and is not closed with this object."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        nbytes = len(left)
        while left:
            n = self._file.write(left)
            # an object that returns no number has taken all bytes
            left = left[nbytes if n is None else n :]
        return nbytes


Destination: TypeAlias = DiskDestination | StoreDestination | FileObjectDestination


def _on_a_disk(name: str) -> Part:
    """Choose a temporary file for something that is not on a disk."""
    import dask

    folder = dask.config.get("temporary-directory", None) or tempfile.gettempdir()
    # not every file system has names with "<" and ">"
    return Part.of(os.path.join(os.path.abspath(folder), os.path.basename(name).strip("<>")))


def _begins_with(opener: Callable[..., Any], path: str, head: bytes) -> bool:
    try:
        with opener(path, "rb") as file:
            return first_bytes(file, len(head)) == head
    except OSError:
        return False


def _copy(part: Part, file: BinaryIO, codec: str | None, name: str) -> None:
    """Copy a complete file into an open one, and compress it if there is a codec.

    The header comes first but describes the pixels, so a stream can't be written directly.
    """
    encoded = contextlib.nullcontext(file) if codec is None else encoder(codec, file, name)
    with open(part.path, "rb") as plain, encoded as out:
        while block := plain.read(_COPIED):
            if not part.is_there:
                # discarded after Ctrl-C
                raise MrcError(f"{name}: writing was interrupted")
            out.write(block)
