"""New files that are first written uncompressed to a disk, and then copied in order.

The header comes first, but describes pixels that come later. Compressed streams and stores must be
written in order.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from mrc_xarray.errors import MrcError
from mrc_xarray.storage.codecs import encoder
from mrc_xarray.storage.failures import without_secrets
from mrc_xarray.storage.locks import Lock
from mrc_xarray.storage.part import Part, exists
from mrc_xarray.storage.sink import NewFile, ToPart, is_written
from mrc_xarray.storage.urls import redacted

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = ["Encoded", "Upload"]

# bytes at once of a copy to a store
_COPIED = 16 * 1024**2
# bytes at once of a compressed copy: few, so that it stops soon after Ctrl-C
_ENCODED = 1024**2


@dataclass(frozen=True)
class Encoded(ToPart):
    """A compressed file on a disk.

    Attributes
    ----------
    target : NewFile
    codec : str
        By fsspec's names.
    part : Part
        The uncompressed file. It is in the folder of the target, where the workers of a cluster
        can write.
    """

    target: NewFile
    codec: str
    part: Part

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
        return self._create(size)

    def finish(self, head: bytes) -> None:
        if not self.part.is_there and is_written(self.name, head):
            # a cluster may repeat this after the worker that did it has died
            return
        self.part.write([(0, head)])
        encoded = self.target.part
        with encoded.create(0):
            with open(encoded.path, "wb") as file:
                _copy(self.part, file, self.codec)
            encoded.publish(overwrite=self.target.overwrite)
        self.part.discard()

    def discard(self) -> None:
        super().discard()
        self.target.discard()


@dataclass(frozen=True)
class Upload(ToPart):
    """A file in a store.

    Attributes
    ----------
    url : str
        With its secrets, so that it is not shown.
    overwrite : bool
        Whether it may replace an object.
    part : Part
        The uncompressed file on a local disk.
    fs : AbstractFileSystem
    path : str
        The name in the store.
    codec : str or None
        What compresses the file while it is sent, by fsspec's names.
    """

    url: str = field(repr=False)
    overwrite: bool
    part: Part
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
        # without a query string, which may be secret and contain slashes
        part = Part.of(os.path.join(os.path.abspath(folder), os.path.basename(redacted(name))))
        sink = cls(name, overwrite, part, fs, path, codec)
        sink._check()
        return sink

    @property
    def name(self) -> str:
        return redacted(self.url)

    def begin(self, size: int) -> Lock:
        self._check()
        return self._create(size)

    def finish(self, head: bytes) -> None:
        if not self.part.is_there and is_written(self.path, head, self.fs.open):
            return
        self._check()
        self.part.write([(0, head)])
        try:
            with without_secrets(self.url, self.path):
                self._send()
        except FileExistsError:
            raise exists(self.name) from None
        self.discard()

    def _send(self) -> None:
        # a transaction belongs to the file system, which others may use at the same time
        own = type(self.fs)(
            *self.fs.storage_args, **self.fs.storage_options, skip_instance_cache=True
        )
        with own.transaction:
            with self._opened(own) as file:
                _copy(self.part, file, self.codec)
            # check once more, because the object is published at the end of the transaction
            self._check()
        self.fs.invalidate_cache(self.path)

    def _check(self) -> None:
        with without_secrets(self.url, self.path):
            self.fs.invalidate_cache(self.path)
            is_there = not self.overwrite and self.fs.exists(self.path)
        if is_there:
            raise exists(self.name)

    def _opened(self, fs: AbstractFileSystem) -> BinaryIO:
        """Open the object for writing, exclusively if the store supports that."""
        if not self.overwrite:
            try:
                exclusive: BinaryIO = fs.open(self.path, "xb")
                return exclusive
            except (NotImplementedError, ValueError):
                # the check of a moment ago is the best that can be done
                pass
        try:
            opened: BinaryIO = fs.open(self.path, "wb")
        except NotImplementedError:
            raise MrcError(
                f"{self.name}: this kind of URL can't be written to. Write to a disk, or to a "
                "store such as s3://"
            ) from None
        return opened


def _copy(spool: Part, file: BinaryIO, codec: str | None) -> None:
    """Copy a file into an open one, and compress it if there is a codec."""
    with open(spool.path, "rb") as plain:
        if codec is None:
            shutil.copyfileobj(plain, file, _COPIED)
            return
        with encoder(codec, file, spool.name) as encoded:
            while part := plain.read(_ENCODED):
                if not spool.is_there:
                    # removed after Ctrl-C
                    raise MrcError(f"{spool.name}: writing was interrupted")
                encoded.write(part)
