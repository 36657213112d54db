"""A compressed file, as the source of the bytes that it decodes to."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from mrc_xarray.errors import MrcError, Problem, warn
from mrc_xarray.storage.base import FIRST_READ, Access, Alone, ByteSource, InStore, MiB, Request
from mrc_xarray.storage.budget import Limits
from mrc_xarray.storage.codecs import ENOUGH_TO_BEGIN, InnerFile, decoder, most_decoded, parts
from mrc_xarray.storage.decoded import Decoded
from mrc_xarray.storage.decoders import isal

__all__ = ["StreamSource", "damage"]

# compressed bytes from which decoding takes so long that the user wants to know
_LONG = 32 * MiB
# a compressed byte rarely decodes to more, even with codecs that allow it
_USUAL_EXPANSION = 1032
# rows, columns or sections that any stream may promise
_FEW = 2**21
# streams that a worker of a cluster holds after a computation, since the next may need them
_HELD_BY_WORKERS = 2


@dataclass(frozen=True)
class StreamSource(Alone):
    """The bytes that a compressed file decodes to.

    Attributes
    ----------
    inner : ByteSource
        The compressed file.
    codec : str
        What decodes it, by fsspec's names.
    limits : Limits
    promised : int
        Where the pixels end, by the header.
    salvages : bool
        Whether to give what could be decoded of a damaged stream, even where it may be wrong.
    short_size : int or None
        Length in bytes, where it is so short that the first read decoded it all.
    """

    access: ClassVar[Access] = Access(gap=0, skip=MiB, piece=16 * MiB, batch=16 * MiB)

    inner: ByteSource
    codec: str
    limits: Limits
    salvages: bool
    short_size: int | None
    promised: int = sys.maxsize
    # the first bytes, which are not pickled
    head: bytes = field(default=b"", repr=False, compare=False)

    @classmethod
    def open(
        cls, inner: ByteSource, head: bytes, codec: str, *, salvages: bool = False
    ) -> StreamSource:
        """Decode the first bytes of a file that begins with `head`.

        Raises
        ------
        MrcError
            If they can't be decoded.
        """
        first = _decode_first(inner, head, codec, FIRST_READ)
        short_size = len(first) if len(first) < FIRST_READ else None
        source = cls(inner, codec, Limits.configured(), salvages, short_size, head=first)
        if short_size is None and inner.size >= _LONG:
            warn(_expensive(inner, codec))
        return source

    def __reduce__(self) -> tuple[Any, ...]:
        return StreamSource, (
            self.inner,
            self.codec,
            self.limits,
            self.salvages,
            self.short_size,
            self.promised,
        )

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return self.__reduce__()

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def size(self) -> int:
        # decodes everything
        return self._shared.size if self.short_size is None else self.short_size

    @property
    def can_be_reopened(self) -> bool:
        return self.inner.can_be_reopened

    @property
    def stream(self) -> str:
        return self.codec

    @property
    def known_size(self) -> int | None:
        return self.short_size

    @property
    def fault(self) -> str | None:
        """What is wrong with the stream, or None: everything is decoded to know."""
        return self._shared.fault

    def measured(self) -> StreamSource:
        """Decode everything, and return this source with its size known."""
        return replace(self, short_size=self.size)

    def read(self, offset: int, nbytes: int) -> bytes:
        end = offset + nbytes
        if end <= len(self.head):
            return self.head[offset:end]
        if "_shared" not in vars(self):
            # what stands before the pixels is short, and not worth keeping a decoder for
            return _decode_first(self.inner, b"", self.codec, end)[offset:]
        buffer = bytearray(nbytes)
        self.read_into([(offset, memoryview(buffer))])
        return bytes(buffer)

    def read_into(self, requests: Sequence[Request]) -> None:
        # the file may have changed since it was decoded
        self.inner.read_into(())
        decoded = self._shared
        for offset, buffer in requests:
            decoded.read_into(offset, buffer)

    def until(self, end: int) -> StreamSource:
        # what is salvaged was decoded to its end when the file was opened
        return self if self.salvages else replace(self, promised=end)

    def justify(self, end: int, longest: int) -> None:
        most, size = most_decoded(self.codec, self.inner), self.inner.size
        if end > most:
            message = (
                f"the header promises {end} bytes, but a {self.codec} stream of {size} bytes "
                f"decodes to {most} bytes at most: the header or the stream is damaged"
            )
        elif longest > max(_FEW, size):
            message = (
                f"the header promises {longest} sections, rows or columns; accepted: up to "
                f"{max(_FEW, size)} for a {self.codec} stream of {size} bytes. Decompress the "
                "file: a plain file shows by its size how many there are."
            )
        else:
            return
        raise MrcError.of(self.name, damage(self.codec, message), message)

    def make_sure(self, nbytes: int) -> None:
        # here, because the threads that read later can't find the worker
        _hold_on_worker(self._shared)
        if nbytes > max(_LONG, self.inner.size * _USUAL_EXPANSION):
            self.read_into([(self.promised - 1, memoryview(bytearray(1)))])

    def map(self) -> None:
        return None

    def read_beside(self, name: str) -> bytes | None:
        return self.inner.read_beside(name)

    def is_of(self, found: os.stat_result) -> bool:
        return self.inner.is_of(found)

    def names_beside(self) -> list[str]:
        return self.inner.names_beside()

    def beside(self, name: str) -> str | InStore:
        return self.inner.beside(name)

    @functools.cached_property
    def _shared(self) -> Decoded:
        """The decoded stream that this source shares with its copies in this process."""
        return Decoded.of(self.inner, self.codec, self.limits, self.promised, self.salvages)


def _hold_on_worker(decoded: Decoded) -> None:
    """Hold a stream for the next computation, if this is a worker of a cluster."""
    if "distributed" in sys.modules:
        from distributed import get_worker

        with contextlib.suppress(ValueError):
            held = vars(get_worker()).setdefault("_mrc_streams", deque(maxlen=_HELD_BY_WORKERS))
            # the most recently used one comes last; another thread may have removed it
            with contextlib.suppress(ValueError):
                held.remove(decoded)
            held.append(decoded)


def _decode_first(inner: ByteSource, head: bytes, codec: str, nbytes: int) -> bytes:
    """Decode the first bytes of a stream, and fewer where it ends or is damaged.

    `head` are bytes of the file that are not read again.
    """
    raw = InnerFile(inner, head, ENOUGH_TO_BEGIN + 2 * nbytes)
    found: list[bytes] = []
    try:
        for part in parts(decoder(codec, io.BufferedReader(raw), inner.name), nbytes):
            found.append(part)
    except (MrcError, MemoryError):
        raise
    except Exception as error:
        if raw.error is not None:
            raise raw.error from None
        if not found:
            why = str(error) or type(error).__name__
            message = f"this begins as a {codec} stream, and can't be decoded: {why}"
            raise MrcError.of(inner.name, damage(codec, why), message) from error
    return b"".join(found)


def damage(codec: str, fault: str) -> Problem:
    """Return the problem that a stream is damaged."""
    action = "What is before can be read; truncated='trim' opens what could be decoded."
    found = f"damaged or truncated: {fault}"
    return Problem("stream", "the stream", found, f"a sound stream of {codec}", action, offset=0)


def _expensive(inner: ByteSource, codec: str) -> str:
    extra = ""
    if codec == "gzip" and isal() is None:
        extra = 'pip install "mrc-xarray[gzip]" decodes it in about half the time. '
    return (
        f"{inner.name}: a {codec} stream of {inner.size / MiB:.0f} MiB, which every process that "
        f"reads it decodes from its start. {extra}`mrc-xarray convert` makes a file for all times."
    )
