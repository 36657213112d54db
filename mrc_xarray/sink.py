"""Where bytes go: a new file that replaces the old one at once, or one that is changed in place.

A sink holds no handle: every write opens the file, writes at its own position and closes it, so
that tasks may run in any thread or process that sees the same file system, and may run twice.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeAlias

from mrc_xarray.format.errors import MrcError
from mrc_xarray.source.codecs import codec_of, encoder, first_bytes

try:
    import fcntl
except ImportError:
    # Windows has none
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = ["ByteSink", "Encoded", "InPlace", "NewFile", "Upload", "exclusive", "open_sink"]

Part: TypeAlias = "tuple[int, Any]"

# bytes of a copy to a store at once
_COPIED = 16 * 1024**2
# and of one that is compressed, which takes seconds
_ENCODED = 1024**2


class ByteSink(Protocol):
    """A file to be written from any thread or process; see FORMAT for what goes into it."""

    @property
    def name(self) -> str:
        """The path or URL."""

    def begin(self, size: int) -> None:
        """Make ready for `size` bytes. Doing it twice does no harm."""

    def write(self, parts: Iterable[Part]) -> None:
        """Write buffers, each at its offset."""

    def finish(self, head: bytes) -> None:
        """Write the first bytes of the file, and make the whole of it last."""

    def discard(self) -> None:
        """Remove what was written, if `finish` did not succeed."""

    @property
    def note(self) -> str:
        """What a failure means for the file."""


@dataclass(frozen=True)
class NewFile:
    """A file on a disk, written under another name beside it, and renamed at the end.

    Attributes
    ----------
    name : str
        The path that it gets.
    overwrite : bool
        Whether it may replace a file.
    part : str
        The path that it has until then.
    """

    name: str
    overwrite: bool
    part: str

    @classmethod
    def at(cls, path: str, overwrite: bool) -> NewFile:
        """Choose the temporary name; nothing is written yet."""
        # a link stays, and what it leads to is replaced
        path = os.path.realpath(os.path.expanduser(path))
        folder, name = os.path.split(path)
        # a name may have 255 bytes
        short = os.fsdecode(os.fsencode(name)[:200])
        part = os.path.join(folder, f".{short}.{uuid.uuid4().hex[:12]}.part")
        sink = cls(path, overwrite, part)
        sink.check()
        return sink

    def begin(self, size: int) -> None:
        self.check()
        # never cut: a cluster may do this again when the worker that did it is gone
        fd = os.open(self.part, os.O_WRONLY | os.O_CREAT | _BINARY, 0o666)
        try:
            if os.fstat(fd).st_size < size:
                os.ftruncate(fd, size)
        finally:
            os.close(fd)

    def write(self, parts: Iterable[Part]) -> None:
        _write(self.part, parts)

    def finish(self, head: bytes) -> None:
        if not os.path.exists(self.part) and _begins_with(self.name, head):
            # a cluster may do this again when the worker that did it is gone
            return
        self.check()
        _write(self.part, [(0, head)])
        self.publish()

    def publish(self) -> None:
        """Make what was written last, under the name that it gets."""
        _write(self.part, [], sync=True)
        with contextlib.suppress(FileNotFoundError):
            shutil.copymode(self.name, self.part)
        os.replace(self.part, self.name)
        _sync_folder(os.path.dirname(self.name))

    def discard(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.part)

    @property
    def note(self) -> str:
        return _untouched(self.name)

    def check(self) -> None:
        """Raise OSError or MrcError where nothing may be written under the name."""
        try:
            found = os.stat(self.name)
        except FileNotFoundError:
            folder = os.path.dirname(self.name)
            if not os.path.isdir(folder):
                raise FileNotFoundError(2, "No such directory", folder) from None
            return
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(21, "Is a directory", self.name)
        if not stat.S_ISREG(found.st_mode):
            raise MrcError(f"{self.name}: not a regular file, but a pipe, socket or device")
        if not self.overwrite:
            raise FileExistsError(17, "File exists, and overwrite is not asked for", self.name)


@dataclass(frozen=True)
class InPlace:
    """A file that is changed where it is: a crash in the middle leaves it half changed.

    Attributes
    ----------
    name : str
        The path.
    size : int
        Bytes that it has when that is planned.
    before : bytes
        The header then.
    grows : bool
        Whether sections are added, so that nobody else may do so in the meantime.
    """

    name: str
    size: int
    before: bytes = field(repr=False)
    grows: bool = False

    def begin(self, size: int) -> None:
        if self.grows and not self._is_as_planned():
            raise MrcError(f"{self.name}: the file changed since this was planned; do it again")

    def write(self, parts: Iterable[Part]) -> None:
        _write(self.name, parts)

    def finish(self, head: bytes) -> None:
        """Write those bytes of the header that change: others may have changed the rest."""
        if self.grows and not self._is_as_planned():
            raise MrcError(f"{self.name}: the file changed while sections were added to it")
        # the header tells of the pixels, and must not before they are there
        _write(self.name, [], sync=True)
        pairs = zip(head, self.before, strict=True)
        changed = [i for i, (new, old) in enumerate(pairs) if new != old]
        if changed:
            _write(self.name, [(i, head[i : i + 1]) for i in changed], sync=True)

    def discard(self) -> None:
        if self.grows and os.path.getsize(self.name) > self.size and self._is_as_planned():
            os.truncate(self.name, self.size)

    @property
    def note(self) -> str:
        return f"{self.name} was being changed in place, and its header was not"

    def _is_as_planned(self) -> bool:
        return _begins_with(self.name, self.before)


@dataclass(frozen=True)
class Encoded:
    """A compressed file on a disk: written plainly first, and compressed in order at the end.

    Attributes
    ----------
    target : NewFile
    codec : str
        By fsspec's names.
    spool : NewFile
        What is compressed.
    """

    target: NewFile
    codec: str
    spool: NewFile

    @classmethod
    def at(cls, path: str, codec: str, overwrite: bool) -> Encoded:
        """Choose the temporary names; nothing is written yet."""
        # beside the target, where there will be room, and where the workers of a cluster can write
        return cls(NewFile.at(path, overwrite), codec, NewFile.at(path, overwrite))

    @property
    def name(self) -> str:
        return self.target.name

    def begin(self, size: int) -> None:
        self.spool.begin(size)

    def write(self, parts: Iterable[Part]) -> None:
        self.spool.write(parts)

    def finish(self, head: bytes) -> None:
        if not os.path.exists(self.spool.part) and _is_written(self.name, head):
            # a cluster may do this again when the worker that did it is gone
            return
        self.target.check()
        self.spool.write([(0, head)])
        with open(self.target.part, "wb") as file:
            _copy(self.spool.part, file, self.codec, self.name)
        self.target.publish()
        self.spool.discard()

    def discard(self) -> None:
        self.spool.discard()
        self.target.discard()

    @property
    def note(self) -> str:
        return self.target.note


@dataclass(frozen=True)
class Upload:
    """A file in a store: written to a local disk first, then sent in order.

    A header comes first and tells of pixels that come later, and stores can't go back.

    Attributes
    ----------
    name : str
        The URL.
    overwrite : bool
    spool : NewFile
        The local file.
    fs : AbstractFileSystem
    path : str
        The name in the store.
    codec : str or None
        What compresses it on the way, by fsspec's names.
    """

    name: str
    overwrite: bool
    spool: NewFile
    fs: AbstractFileSystem = field(repr=False)
    path: str
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
        spool = NewFile.at(os.path.join(folder, os.path.basename(path)), overwrite=True)
        sink = cls(name, overwrite, spool, fs, path, codec)
        sink._check()
        return sink

    def begin(self, size: int) -> None:
        self._check()
        self.spool.begin(size)

    def write(self, parts: Iterable[Part]) -> None:
        self.spool.write(parts)

    def finish(self, head: bytes) -> None:
        if not os.path.exists(self.spool.part) and _is_written(self.path, head, self.fs.open):
            return
        self._check()
        self.spool.write([(0, head)])
        # a transaction is the file system's, and others may write to it at the same time
        own = type(self.fs)(
            *self.fs.storage_args, **self.fs.storage_options, skip_instance_cache=True
        )
        with own.transaction, own.open(self.path, "wb") as file:
            _copy(self.spool.part, file, self.codec, self.name)
        self.fs.invalidate_cache(self.path)
        self.discard()

    def discard(self) -> None:
        self.spool.discard()

    @property
    def note(self) -> str:
        return _untouched(self.name)

    def _check(self) -> None:
        self.fs.invalidate_cache(self.path)
        if not self.overwrite and self.fs.exists(self.path):
            raise FileExistsError(17, "File exists, and overwrite is not asked for", self.name)


def open_sink(
    target: str | os.PathLike[str], storage_options: dict[str, Any] | None, overwrite: bool
) -> NewFile | Encoded | Upload:
    """Find the sink for a new file, which compresses it where its suffix says so.

    Raises
    ------
    FileExistsError
        If there is a file already, and it may not be replaced.
    MrcError
        If what compresses it is not installed.
    """
    from mrc_xarray.source import filesystem

    if not isinstance(target, str | os.PathLike):
        raise TypeError(f"can't write to {type(target).__name__}; accepted: a path or a URL")
    name = os.fsdecode(target)
    codec = codec_of(name)
    fs, path = filesystem(name, storage_options)
    if fs is not None:
        return Upload.at(fs, path, name, overwrite, codec)
    return NewFile.at(path, overwrite) if codec is None else Encoded.at(path, codec, overwrite)


@contextlib.contextmanager
def exclusive(target: str | os.PathLike[str]) -> Iterator[None]:
    """Keep others that ask for the same from a file on a disk, until this is done."""
    from mrc_xarray.source import filesystem

    fs, path = filesystem(os.fsdecode(target))
    if fcntl is None or fs is not None:
        yield
        return
    fd = os.open(os.path.expanduser(path), os.O_RDWR)
    try:
        # it goes with the process that has it, however that ends
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _untouched(name: str) -> str:
    return f"{name} was not written; what was there before is untouched"


def _copy(path: str, file: BinaryIO, codec: str | None, name: str) -> None:
    """Copy a file into one that is open, and compress it where there is a codec."""
    with open(path, "rb") as plain:
        if codec is None:
            shutil.copyfileobj(plain, file, _COPIED)
            return
        with encoder(codec, file, name) as encoded:
            while part := plain.read(_ENCODED):
                if not os.path.exists(path):
                    # who pressed Ctrl-C has removed it
                    raise MrcError(f"{name}: writing it was given up")
                encoded.write(part)


_BINARY = getattr(os, "O_BINARY", 0)


def _write(path: str, parts: Iterable[Part], *, sync: bool = False) -> None:
    """Write buffers at their offsets into a file that is there."""
    try:
        fd = os.open(path, os.O_WRONLY | _BINARY)
    except FileNotFoundError as error:
        error.add_note(
            "the workers of a cluster must share the file system that the file is written to"
        )
        raise
    try:
        for offset, buffer in parts:
            left = memoryview(buffer).cast("B")
            while left:
                n = _pwrite(fd, left, offset)
                left, offset = left[n:], offset + n
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)


def _seek_and_write(fd: int, buffer: memoryview, offset: int) -> int:
    """Do what `os.pwrite` does, on a descriptor that no other thread uses."""
    os.lseek(fd, offset, os.SEEK_SET)
    return os.write(fd, buffer)


# Windows has none
_pwrite = getattr(os, "pwrite", _seek_and_write)


def _begins_with(path: str, head: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(head)) == head
    except OSError:
        return False


def _is_written(path: str, head: bytes, opener: Callable[..., Any] = open) -> bool:
    """Tell whether a file that may be compressed is there, and decodes to one that begins so."""
    try:
        with opener(path, "rb") as file:
            return first_bytes(file, len(head)) == head
    except OSError:
        return False


def _sync_folder(folder: str) -> None:
    """Make a new name last; a folder can't be opened on Windows."""
    with contextlib.suppress(PermissionError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
