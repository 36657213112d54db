"""What one process has of a decoded stream.

A stream can't be read from its middle. So it is decoded once, as far as it is needed, and the
decoded bytes are held within the process's `Budget`. When that is exhausted, the bytes of the
least recently read stream are discarded, and the next read of it decodes them again.
"""

from __future__ import annotations

import gzip
import io
import sys
import threading
import time
import weakref
import zipfile

from mrc_xarray.errors import MrcError
from mrc_xarray.storage.base import ByteSource
from mrc_xarray.storage.budget import PIECE, Limits, NoRoom, Pieces, budget
from mrc_xarray.storage.codecs import InnerFile, decoder, memory_of, parts
from mrc_xarray.storage.decoders import Decoder

__all__ = ["Decoded"]

# from which a decoder is fed
_BUFFER = 128 * 1024


class Decoded:
    """A decoded stream, shared by all its sources in this process. Safe for use by any thread.

    Parameters
    ----------
    inner : ByteSource
        The compressed file.
    codec : str
    limits : Limits
    promised : int
        Where the wanted bytes end. A read up to there also decodes the rest of the stream, to
        verify the checksum at its end.
    salvages : bool
        Whether to return decoded bytes even if they may be wrong.
    """

    def __init__(
        self, inner: ByteSource, codec: str, limits: Limits, promised: int, salvages: bool
    ) -> None:
        self.used = 0.0
        self._what = (inner, codec, limits, promised, salvages)
        self._decoding = _Decoding(*self._what)

    @classmethod
    def of(
        cls, inner: ByteSource, codec: str, limits: Limits, promised: int, salvages: bool
    ) -> Decoded:
        """Return the instance that this process already has of a stream, or a new one."""
        what = (inner, codec, limits, promised, salvages)
        with budget.lock:
            found = _shared.get(what)
            if found is None:
                found = _shared[what] = cls(*what)
                budget.join(found)
            return found

    @property
    def size(self) -> int:
        """Decode all that can be decoded, and return how many bytes that is."""
        return self._use().ended()[0]

    @property
    def fault(self) -> str | None:
        """Decode all that can be decoded; return what is wrong with the stream, or None."""
        return self._use().ended()[1]

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes from `offset`.

        Raises
        ------
        MrcError
            If the stream ends before, or is damaged.
        """
        self._use().read_into(offset, buffer)

    def _use(self) -> _Decoding:
        self.used = time.monotonic()
        return self._decoding

    @property
    def pieces(self) -> Pieces:
        return self._decoding.pieces

    @property
    def working(self) -> int:
        return self._decoding.working

    def rest(self) -> None:
        self._decoding.rest()

    def forget(self) -> None:
        # a read in progress has its own reference, and continues
        self._decoding = _Decoding(*self._what)

    renew = forget


# by the arguments of Decoded.of
_shared: weakref.WeakValueDictionary[tuple[object, ...], Decoded] = weakref.WeakValueDictionary()


class _Decoding:
    """One pass through a stream from its start, with the bytes that it has decoded."""

    def __init__(
        self, inner: ByteSource, codec: str, limits: Limits, promised: int, salvages: bool
    ) -> None:
        self.limits = limits
        self.pieces = Pieces()
        self._inner = inner
        self._codec = codec
        self._promised = promised
        self._salvages = salvages
        self._fault: str | None = None
        # whether a checksum shows that the decoded bytes are not those that were compressed
        self._is_untrue = False
        self._lock = threading.Lock()
        self._file: Decoder | None = None
        self._raw = InnerFile(inner)
        self._n_decoded = 0
        self._is_at_end = False

    def ended(self) -> tuple[int, str | None]:
        """Decode all that can be decoded; return the size, and what is wrong or None."""
        self._decode(sys.maxsize)
        return self._n_decoded, self._fault

    def read_into(self, offset: int, buffer: memoryview) -> None:
        end = offset + len(buffer)
        is_last = end >= self._promised and not self._salvages
        self._decode(sys.maxsize if is_last else end)
        if end > self._n_decoded or (not self._salvages and self._is_doubtful):
            raise MrcError(self._complaint(end))
        self.pieces.read_into(offset, buffer)

    @property
    def working(self) -> int:
        """Bytes that are held to continue: those read ahead, and an estimate for the decoder."""
        return 0 if self._file is None else self._raw.held + memory_of(self._codec)

    def rest(self) -> None:
        if self._lock.acquire(blocking=False):
            try:
                self._stop()
            finally:
                self._lock.release()

    def _stop(self) -> None:
        self._file, self._raw = None, InnerFile(self._inner)

    @property
    def _is_doubtful(self) -> bool:
        """Whether there is a fault, and no telling which of the pixels it is in."""
        return self._fault is not None and (self._is_untrue or self._n_decoded >= self._promised)

    def _complaint(self, end: int) -> str:
        stream = f"{self._inner.name}: the {self._codec} stream"
        has = f"{self._n_decoded} bytes could be decoded, and what is wanted ends at {end}"
        if self._fault is not None and end <= self._n_decoded:
            return (
                f"{stream} is damaged ({self._fault}): what it decodes to may be wrong, and there "
                "is no telling where. truncated='trim' opens it all the same."
            )
        if self._fault is not None:
            return (
                f"{stream} is damaged or truncated ({self._fault}): {has}. What is before can be "
                "read; truncated='trim' opens the whole sections."
            )
        return (
            f"{stream} holds a truncated file: {has}. truncated='trim' opens the whole sections."
        )

    def _decode(self, end: int) -> None:
        """Decode to `end`, or to the end of the stream."""
        if self._n_decoded >= end or self._is_at_end:
            return
        with self._lock:
            while self._n_decoded < end and not self._is_at_end:
                try:
                    piece, is_last = self._next_piece()
                    self._keep(piece)
                except BaseException:
                    # such as a store's: the next read begins anew
                    self._stop()
                    raise
                # in this order, as others look at both without waiting
                self._n_decoded += len(piece)
                self._is_at_end = is_last
            if self._is_at_end:
                self._stop()

    def _next_piece(self) -> tuple[bytes | bytearray, bool]:
        """Decode a piece; return it, shorter at the end, and whether the end is reached."""
        piece, n, is_last = bytearray(PIECE), 0, False
        try:
            if self._file is None:
                self._file = self._begin()
            for part in parts(self._file, PIECE):
                piece[n : n + len(part)] = part
                n += len(part)
            is_last = n < PIECE
        except (MrcError, MemoryError):
            raise
        except Exception as error:
            if self._raw.error is not None:
                raise self._raw.error from None
            is_last = True
            if not (self._n_decoded + n and _is_of_what_follows(error)):
                self._is_untrue = isinstance(error, gzip.BadGzipFile | zipfile.BadZipFile)
                self._fault = str(error) or type(error).__name__
        return (piece if n == PIECE else bytes(memoryview(piece)[:n])), is_last

    def _begin(self) -> Decoder:
        """Open the stream, and go to where it was left."""
        budget.work(self.limits)
        self._raw = InnerFile(self._inner)
        file = decoder(self._codec, io.BufferedReader(self._raw, _BUFFER), self._inner.name)
        for start in range(0, self._n_decoded, PIECE):
            for _ in parts(file, min(PIECE, self._n_decoded - start)):
                pass
        return file

    def _keep(self, piece: bytes | bytearray) -> None:
        start = self.pieces.in_memory + self.pieces.on_disk
        # the piece may have been added already, if Ctrl-C came before it was counted; bytes after
        # the promised ones are decoded only for the checksum
        if start > self._n_decoded or self._n_decoded >= self._promised or not piece:
            return
        try:
            budget.keep(self.pieces, piece, self.limits)
        except NoRoom:
            raise MrcError(
                f"{self._inner.name}: the {self._codec} stream decodes to more than the "
                f"{self.limits.memory} bytes of memory and {self.limits.disk} bytes of disk "
                "that decoded streams may take. Set dask's mrc-xarray.decoded-memory or "
                "mrc-xarray.decoded-disk, or decompress the file."
            ) from None
        except OSError as error:
            error.add_note(
                f"{self._inner.name} is decoded into a temporary file; set dask's "
                "temporary-directory to use another folder"
            )
            raise


def _is_of_what_follows(error: Exception) -> bool:
    """Return whether the only fault is that other data follow a complete gzip stream."""
    return isinstance(error, gzip.BadGzipFile) and str(error).startswith("Not a gzipped file")
