"""New files that are written plainly first, and then copied in order: streams, and stores.

A header comes first and speaks of pixels that come later. A compressed stream can't go back to
it, and neither can a store.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

from mrc_xarray.format.errors import MrcError
from mrc_xarray.locks import Lock
from mrc_xarray.part import Buffer, Part, exists
from mrc_xarray.sink import NewFile
from mrc_xarray.source.codecs import encoder, first_bytes
from mrc_xarray.source.failures import without_secrets
from mrc_xarray.source.urls import redacted

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = ["Encoded", "Upload"]

# bytes of a copy to a store at once
_COPIED = 16 * 1024**2
# and of one that is compressed, which takes seconds
_ENCODED = 1024**2


@dataclass(frozen=True)
class Encoded:
    """A compressed file on a disk.

    Attributes
    ----------
    target : NewFile
    codec : str
        By fsspec's names.
    spool : Part
        What is compressed: in the same folder, where there will be room, and where the workers
        of a cluster can write.
    """

    target: NewFile
    codec: str
    spool: Part

    @classmethod
    def at(cls, path: str, codec: str, overwrite: bool) -> Encoded:
        """Choose the temporary names; nothing is written yet."""
        target = NewFile.at(path, overwrite)
        return cls(target, codec, Part.of(target.name))

    @property
    def name(self) -> str:
        return self.target.name

    def begin(self, size: int) -> Lock:
        self.target.check()
        self.spool.remove_left_overs()
        return self.spool.create(size)

    def write(self, buffers: Iterable[Buffer]) -> None:
        self.spool.write(buffers)

    def read(self, offset: int, nbytes: int) -> bytes:
        return self.spool.read(offset, nbytes)

    def finish(self, head: bytes) -> None:
        if not self.spool.is_there and _is_written(self.name, head):
            # a cluster may do this again when the worker that did it has died
            return
        self.spool.write([(0, head)])
        part = self.target.part
        with part.create(0):
            with open(part.path, "wb") as file:
                _copy(self.spool, file, self.codec)
            part.publish(overwrite=self.target.overwrite)
        self.spool.discard()

    def discard(self) -> None:
        self.spool.discard()
        self.target.discard()

    @property
    def note(self) -> str:
        return self.target.note


@dataclass(frozen=True)
class Upload:
    """A file in a store.

    Attributes
    ----------
    name : str
        The URL, without what is secret in it.
    overwrite : bool
    spool : Part
        On a local disk.
    fs : AbstractFileSystem
    path : str
        The name in the store.
    codec : str or None
        What compresses it on the way, by fsspec's names.
    """

    name: str
    overwrite: bool
    spool: Part
    fs: AbstractFileSystem = field(repr=False)
    path: str = field(repr=False)
    codec: str | None

    @classmethod
    def at(
        cls,
        fs: AbstractFileSystem,
        path: str,
        name: str,
        overwrite: bool,
        codec: str | None = None,
    ) -> Upload:
        """Choose the local file; nothing is written yet."""
        import dask

        folder = dask.config.get("temporary-directory", None) or tempfile.gettempdir()
        # of a name with a query string, which may be secret and have slashes, what is in front
        spool = Part.of(os.path.join(os.path.abspath(folder), os.path.basename(redacted(name))))
        sink = cls(redacted(name), overwrite, spool, fs, path, codec)
        sink._check()
        return sink

    def begin(self, size: int) -> Lock:
        self._check()
        self.spool.remove_left_overs()
        return self.spool.create(size)

    def write(self, buffers: Iterable[Buffer]) -> None:
        self.spool.write(buffers)

    def read(self, offset: int, nbytes: int) -> bytes:
        return self.spool.read(offset, nbytes)

    def finish(self, head: bytes) -> None:
        if not self.spool.is_there and _is_written(self.path, head, self.fs.open):
            return
        self._check()
        self.spool.write([(0, head)])
        try:
            with without_secrets(self.name, self.path):
                self._send()
        except FileExistsError:
            raise exists(self.name) from None
        self.discard()

    def _send(self) -> None:
        # a transaction is the file system's, and others may write to it at the same time
        own = type(self.fs)(
            *self.fs.storage_args, **self.fs.storage_options, skip_instance_cache=True
        )
        with own.transaction:
            with self._opened(own) as file:
                _copy(self.spool, file, self.codec)
            # once more, as it is published at the end of the transaction
            self._check()
        self.fs.invalidate_cache(self.path)

    def discard(self) -> None:
        self.spool.discard()

    @property
    def note(self) -> str:
        return f"{self.name} was not written; what was there before is untouched"

    def _check(self) -> None:
        with without_secrets(self.name, self.path):
            self.fs.invalidate_cache(self.path)
            is_there = not self.overwrite and self.fs.exists(self.path)
        if is_there:
            raise exists(self.name)

    def _opened(self, fs: AbstractFileSystem) -> BinaryIO:
        """Open the object to be written: with a condition, where the store knows conditions."""
        if not self.overwrite:
            try:
                exclusive: BinaryIO = fs.open(self.path, "xb")
                return exclusive
            except (NotImplementedError, ValueError):
                # it was looked for a moment ago, and nothing better can be done
                pass
        opened: BinaryIO = fs.open(self.path, "wb")
        return opened


def _copy(spool: Part, file: BinaryIO, codec: str | None) -> None:
    """Copy a file into one that is open, and compress it where there is a codec."""
    with open(spool.path, "rb") as plain:
        if codec is None:
            shutil.copyfileobj(plain, file, _COPIED)
            return
        with encoder(codec, file, spool.name) as encoded:
            while part := plain.read(_ENCODED):
                if not spool.is_there:
                    # the user pressed Ctrl-C, and it was removed
                    raise MrcError(f"{spool.name}: writing it was given up")
                encoded.write(part)


def _is_written(path: str, head: bytes, opener: Callable[..., Any] = open) -> bool:
    """Return whether a file that may be compressed is there, and decodes to one that begins so."""
    try:
        with opener(path, "rb") as file:
            return first_bytes(file, len(head)) == head
    except OSError:
        return False
