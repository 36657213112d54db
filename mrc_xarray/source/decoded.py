"""What one process has of a decoded stream.

A stream can't be read from its middle. So it is decoded once, as far as it is asked for, and what
was decoded is kept: in memory, and beyond a limit in a temporary file. Only gzip can do better,
where rapidgzip is installed; see `mrc_xarray.source.seekable`.
"""

from __future__ import annotations

import gzip
import io
import os
import sys
import tempfile
import threading
import weakref
import zipfile
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from mrc_xarray.format import MrcError
from mrc_xarray.source.base import ByteSource, MiB
from mrc_xarray.source.codecs import InnerFile, decoder, parts

__all__ = ["Decoded", "Limits", "Sequential"]

# what is decoded at once, and kept together
_PIECE = 4 * MiB
# from which a decoder is fed
_BUFFER = 128 * 1024


@dataclass(frozen=True)
class Limits:
    """How much of a decoded stream a process keeps, in bytes, and where.

    Attributes
    ----------
    memory : int
    disk : int
        Of what is beyond memory.
    folder : str or None
        Of the temporary file, where the user says so.
    """

    memory: int
    disk: int
    folder: str | None

    @classmethod
    def configured(cls) -> Limits:
        """Take them from dask's configuration."""
        from dask import config

        memory = _configured("mrc-xarray.decoded-memory", "512 MiB")
        disk = _configured("mrc-xarray.decoded-disk", "64 GiB")
        return cls(memory, disk, config.get("temporary-directory", None))


def _configured(key: str, default: str) -> int:
    from dask import config
    from dask.utils import parse_bytes

    value = config.get(key, default)
    try:
        nbytes: int = parse_bytes(value)
        if nbytes >= 0:
            return nbytes
    except (AttributeError, TypeError, ValueError):
        pass
    raise ValueError(f"dask's {key} is {value!r}; accepted: a size such as '512 MiB'")


class Decoded(Protocol):
    """A decoded stream. For any threads."""

    @property
    def size(self) -> int:
        """Decode all that can be decoded, and return how many bytes that is."""

    @property
    def fault(self) -> str | None:
        """What is wrong with the stream, as far as it was decoded."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes from `offset`.

        Raises
        ------
        MrcError
            If the stream ends before, or is damaged.
        """


class Sequential:
    """A stream that is decoded from its start, with all that was decoded.

    Parameters
    ----------
    inner : ByteSource
        The compressed file.
    codec : str
    limits : Limits
    promised : int
        Where what is wanted of the stream ends. Who reads as far wants to know that the stream
        is sound to its end, where its checksum is.
    salvages : bool
        Whether what was decoded is given even where it may be wrong.
    """

    def __init__(
        self,
        inner: ByteSource,
        codec: str,
        limits: Limits,
        promised: int,
        *,
        salvages: bool = False,
    ) -> None:
        self.fault: str | None = None
        # whether a checksum tells that what was decoded is not what was compressed
        self._is_untrue = False
        self._salvages = salvages
        self._inner = inner
        self._codec = codec
        self._limits = limits
        self._promised = promised
        self._decoding = threading.Lock()
        self._file: BinaryIO | None = None
        self._raw = InnerFile(inner)
        # each has _PIECE bytes, but the last
        self._in_memory: list[bytes | bytearray] = []
        self._on_disk: _Spill | None = None
        self._n_decoded = 0
        self._is_at_end = False

    @property
    def size(self) -> int:
        self._decode(sys.maxsize)
        return self._n_decoded

    def read_into(self, offset: int, buffer: memoryview) -> None:
        end = offset + len(buffer)
        is_last = end >= self._promised and not self._salvages
        self._decode(sys.maxsize if is_last else end)
        if end > self._n_decoded or (not self._salvages and self._is_doubtful):
            raise MrcError(self._complaint(end))
        while len(buffer):
            n, start = divmod(offset, _PIECE)
            if n < len(self._in_memory):
                piece = memoryview(self._in_memory[n])[start : start + len(buffer)]
                buffer[: len(piece)] = piece
                buffer, offset = buffer[len(piece) :], offset + len(piece)
            else:
                assert self._on_disk is not None
                self._on_disk.read_into(offset - len(self._in_memory) * _PIECE, buffer)
                return

    @property
    def _is_doubtful(self) -> bool:
        """Whether there is a fault, and no telling which of the pixels it is in."""
        return self.fault is not None and (self._is_untrue or self._n_decoded >= self._promised)

    def _complaint(self, end: int) -> str:
        stream = f"{self._inner.name}: the {self._codec} stream"
        has = f"{self._n_decoded} bytes could be decoded, and what is wanted ends at {end}"
        if self.fault is not None and end <= self._n_decoded:
            return (
                f"{stream} is damaged ({self.fault}): what it decodes to may be wrong, and there "
                "is no telling where. truncated='trim' opens it all the same."
            )
        if self.fault is not None:
            return (
                f"{stream} is damaged or truncated ({self.fault}): {has}. What is before can be "
                "read; truncated='trim' opens the whole sections."
            )
        return (
            f"{stream} holds a truncated file: {has}. truncated='trim' opens the whole sections."
        )

    def _decode(self, end: int) -> None:
        """Decode to `end`, or to the end of the stream."""
        if self._n_decoded >= end or self._is_at_end:
            return
        with self._decoding:
            while self._n_decoded < end and not self._is_at_end:
                try:
                    piece, is_last = self._next_piece()
                    self._keep(piece)
                except BaseException:
                    # such as a store's: the next read begins anew
                    self._file = None
                    raise
                # in this order, as others look at both without waiting
                self._n_decoded += len(piece)
                self._is_at_end = is_last
            if self._is_at_end:
                self._file = None

    def _next_piece(self) -> tuple[bytes | bytearray, bool]:
        """Decode as much as is kept together, and less at the end; tell whether that is it."""
        is_kept = self._n_decoded < self._promised
        room = self._limits.memory + self._limits.disk - self._n_decoded if is_kept else _PIECE
        # one more than there is room for tells whether that is all
        most = min(_PIECE, room + 1)
        piece, n, is_last = bytearray(most), 0, False
        try:
            if self._file is None:
                self._file = self._begin()
            for part in parts(self._file, most):
                piece[n : n + len(part)] = part
                n += len(part)
            is_last = n < most
        except (MrcError, MemoryError):
            raise
        except Exception as error:
            if self._raw.error is not None:
                raise self._raw.error from None
            is_last = True
            if not (self._n_decoded + n and _is_of_what_follows(error)):
                self._is_untrue = isinstance(error, gzip.BadGzipFile | zipfile.BadZipFile)
                self.fault = str(error) or type(error).__name__
        if n > room:
            raise MrcError(
                f"{self._inner.name}: the {self._codec} stream decodes to more than the "
                f"{self._limits.memory} bytes of memory and {self._limits.disk} bytes of disk "
                "that it may take. Set dask's mrc-xarray.decoded-memory or "
                "mrc-xarray.decoded-disk, or decompress the file."
            )
        return (piece if n == most else bytes(memoryview(piece)[:n])), is_last

    def _begin(self) -> BinaryIO:
        """Open the stream, and go to where it was left."""
        self._raw = InnerFile(self._inner)
        file = decoder(self._codec, io.BufferedReader(self._raw, _BUFFER), self._inner.name)
        for start in range(0, self._n_decoded, _PIECE):
            for _ in parts(file, min(_PIECE, self._n_decoded - start)):
                pass
        return file

    def _keep(self, piece: bytes | bytearray) -> None:
        if self._n_decoded >= self._promised:
            # it was decoded for the checksum behind it
            return
        if self._on_disk is None and self._n_decoded + len(piece) <= self._limits.memory:
            # it may be there already, where Ctrl-C came before it was counted
            self._in_memory[self._n_decoded // _PIECE :] = [piece]
            return
        if self._on_disk is None:
            self._on_disk = _Spill(self._limits.folder)
        try:
            self._on_disk.write(self._n_decoded - len(self._in_memory) * _PIECE, piece)
        except OSError as error:
            error.add_note(
                f"{self._inner.name} is decoded into {self._on_disk.folder}; dask's "
                "temporary-directory names another folder"
            )
            raise


def _is_of_what_follows(error: Exception) -> bool:
    """Tell whether a fault is only that there is something else behind a whole stream of gzip."""
    return isinstance(error, gzip.BadGzipFile) and str(error).startswith("Not a gzipped file")


class _Spill:
    """A temporary file without a name, which goes when this does."""

    def __init__(self, folder: str | None) -> None:
        # what is there for the user need not be there for a worker
        is_here = folder is not None and os.path.isdir(folder)
        self.folder = folder if is_here else tempfile.gettempdir()
        self._lock = threading.Lock()
        self._file = tempfile.TemporaryFile(dir=self.folder, buffering=0)  # noqa: SIM115
        weakref.finalize(self, self._file.close)

    def write(self, offset: int, piece: bytes | bytearray) -> None:
        with self._lock:
            self._file.seek(offset)
            left = memoryview(piece)
            while left:
                left = left[self._file.write(left) :]

    def read_into(self, offset: int, buffer: memoryview) -> None:
        with self._lock:
            self._file.seek(offset)
            while len(buffer):
                buffer = buffer[self._file.readinto(buffer) :]
