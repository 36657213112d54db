"""The decoded bytes of a stream in one process.

A stream can't be read from its middle. So it is decoded once, as far as it is needed, and the
decoded bytes are held within the process's `Budget`. When that is exhausted, the bytes of the
least recently read stream are discarded, and the next read of it decodes them again.
"""

from __future__ import annotations

import gzip
import sys
import threading
import time
import weakref
import zipfile
from dataclasses import dataclass

from mrc_xarray.errors import MrcError
from mrc_xarray.storage.base import ByteSource
from mrc_xarray.storage.budget import PIECE, Limits, NoRoom, Pieces, budget
from mrc_xarray.storage.compressed import CompressedFile

__all__ = ["Decoded", "Stream"]


@dataclass(frozen=True)
class Stream:
    """A compressed file, and how it is to be decoded; `codec` is by fsspec's names."""

    source: ByteSource
    codec: str
    limits: Limits
    #: Whether to return decoded bytes even if they may be wrong.
    salvages: bool = False
    #: Where the pixels end by the header. A read up to there also decodes the rest of the stream,
    #: to verify the checksum at its end.
    promised: int = sys.maxsize


class Decoded:
    """A decoded stream, shared by all its sources in this process. Safe for use by any thread."""

    def __init__(self, stream: Stream) -> None:
        # when it was read last
        self.used = 0.0
        self._stream = stream
        self._decoding = Decoding(stream)

    @classmethod
    def of(cls, stream: Stream) -> Decoded:
        """Return the instance that this process already has of a stream, or a new one."""
        with budget.lock:
            found = _shared.get(stream)
            if found is None:
                found = _shared[stream] = cls(stream)
                budget.streams.add(found)
            return found

    def use(self) -> Decoding:
        """Return what was decoded, as the most recently used stream."""
        self.used = time.monotonic()
        return self._decoding

    @property
    def pieces(self) -> Pieces:
        return self._decoding.pieces

    @property
    def is_decoding(self) -> bool:
        """Whether a decoder is open."""
        return self._decoding.file is not None

    def close_decoder(self) -> None:
        """Close the decoder unless it is in use; the next read opens it again."""
        self._decoding.close_if_idle()

    def discard(self) -> None:
        """Discard what was decoded: the next read starts from the beginning."""
        # a read in progress has its own reference, and continues
        self._decoding = Decoding(self._stream)


_shared: weakref.WeakValueDictionary[Stream, Decoded] = weakref.WeakValueDictionary()


class Decoding:
    """One pass through a stream from its start, with the bytes that it has decoded."""

    def __init__(self, stream: Stream) -> None:
        self.pieces = Pieces()
        self.file: CompressedFile | None = None
        self._stream = stream
        self._lock = threading.Lock()
        self._n_decoded = 0
        self._is_at_end = False
        self._fault: Exception | None = None

    def ended(self) -> tuple[int, str | None]:
        """Decode all that can be decoded; return its size, and what is wrong or None."""
        self._decode(sys.maxsize)
        return self._n_decoded, self._fault_text

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes from `offset`; raise MrcError if the stream is damaged."""
        stream, end = self._stream, offset + len(buffer)
        is_last = end >= stream.promised and not stream.salvages
        self._decode(sys.maxsize if is_last else end)
        if end > self._n_decoded or (self._is_doubtful and not stream.salvages):
            raise MrcError(self._complaint(end))
        self.pieces.read_into(offset, buffer)

    def close_if_idle(self) -> None:
        if self._lock.acquire(blocking=False):
            self.file = None
            self._lock.release()

    @property
    def _fault_text(self) -> str | None:
        return None if self._fault is None else str(self._fault) or type(self._fault).__name__

    @property
    def _is_doubtful(self) -> bool:
        """Whether there is a fault, and it is not known which of the pixels it is in."""
        is_checksum = isinstance(self._fault, gzip.BadGzipFile | zipfile.BadZipFile)
        return self._fault is not None and (
            is_checksum or self._n_decoded >= self._stream.promised
        )

    def _complaint(self, end: int) -> str:
        stream = f"{self._stream.source.name}: the {self._stream.codec} stream"
        sizes = f"{self._n_decoded} bytes could be decoded, and the requested bytes end at {end}"
        if self._fault is None:
            return (
                f"{stream} holds a truncated file: {sizes}. truncated='trim' opens the complete "
                "sections."
            )
        if end > self._n_decoded:
            return (
                f"{stream} is damaged or truncated ({self._fault_text}): {sizes}. The sections in "
                "front can be read; truncated='trim' opens the complete sections."
            )
        return (
            f"{stream} is damaged ({self._fault_text}): the pixels may be wrong, and it is not "
            "known which. truncated='trim' opens them anyway."
        )

    def _decode(self, end: int) -> None:
        """Decode to `end`, or to the end of the stream."""
        if self._n_decoded >= end or self._is_at_end:
            return
        with self._lock:
            try:
                while self._n_decoded < end and not self._is_at_end:
                    self._decode_piece()
            except BaseException:
                # such as an error of the store: the next read opens the file again
                self.file = None
                raise
            if self._is_at_end:
                self.file = None

    def _decode_piece(self) -> None:
        if self.file is None:
            self.file = self._opened()
        piece, fault = self.file.read(PIECE)
        # bytes after the promised ones are decoded only for the checksum. After Ctrl-C, a piece
        # may have been added and not counted.
        if piece and self.pieces.held == self._n_decoded < self._stream.promised:
            self._add(piece)
        # in this order, because other threads look at all of them without the lock
        self._fault = fault
        self._n_decoded += len(piece)
        self._is_at_end = len(piece) < PIECE

    def _opened(self) -> CompressedFile:
        """Open the stream, and go to where decoding stopped."""
        budget.close_decoders()
        file = CompressedFile(self._stream.source, self._stream.codec)
        for _ in range(0, self._n_decoded, PIECE):
            file.read(PIECE)
        return file

    def _add(self, piece: bytes) -> None:
        name, codec, limits = self._stream.source.name, self._stream.codec, self._stream.limits
        try:
            budget.add(self.pieces, piece, limits)
        except NoRoom:
            raise MrcError(
                f"{name}: the {codec} stream decodes to more than the {limits.memory} bytes of "
                f"memory and {limits.disk} bytes of disk that decoded streams may take. Set "
                "dask's mrc-xarray.decoded-memory or mrc-xarray.decoded-disk, or decompress the "
                "file."
            ) from None
        except OSError as error:
            error.add_note(
                f"{name} is decoded into a temporary file; set dask's temporary-directory to use "
                "another folder"
            )
            raise
