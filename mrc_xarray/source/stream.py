"""A compressed file, as the source of the bytes that it decodes to."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from mrc_xarray.format import FIRST_READ, MrcError
from mrc_xarray.format.errors import Problem, warn
from mrc_xarray.source.base import Access, Alone, ByteSource, InStore, MiB, Request
from mrc_xarray.source.codecs import InnerFile, decoder, parts
from mrc_xarray.source.decoded import Decoded, Limits, Sequential
from mrc_xarray.source.local import LocalSource
from mrc_xarray.source.seekable import Seekable, has_rapidgzip

__all__ = ["StreamSource", "damage"]

# compressed bytes from which decoding takes so long that the user wants to know
_LONG = 32 * MiB
# compressed bytes that are one piece to rapidgzip, and not worth an open file
_SMALL = 4 * MiB
# no byte of deflate's holds more
_MOST_BY_DEFLATE = 1032
# streams that a worker of a cluster keeps when a computation is done, as the next may need them
_KEPT_BY_WORKERS = 2


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
    # these are not pickled: the first bytes, and by process what it has decoded
    head: bytes = field(default=b"", repr=False, compare=False)
    _here: dict[int, Decoded] = field(default_factory=dict, repr=False, compare=False)

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
        if short_size is None and inner.size >= _LONG and not source._is_seekable:
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
        return self._decoded().size if self.short_size is None else self.short_size

    @property
    def stream(self) -> str:
        return self.codec

    @property
    def known_size(self) -> int | None:
        return self.short_size

    @property
    def fault(self) -> str | None:
        """What is wrong with the stream, or None: everything is decoded to know."""
        decoded = self._decoded()
        decoded.size  # noqa: B018  # on the way there it is found
        return decoded.fault

    def measured(self) -> StreamSource:
        """Decode everything, and return this source with its size known."""
        return replace(self, short_size=self.size)

    def read(self, offset: int, nbytes: int) -> bytes:
        end = offset + nbytes
        if end <= len(self.head):
            return self.head[offset:end]
        if os.getpid() not in self._here:
            # what stands before the pixels is short, and not worth keeping a decoder for
            return _decode_first(self.inner, b"", self.codec, end)[offset:]
        buffer = bytearray(nbytes)
        self.read_into([(offset, memoryview(buffer))])
        return bytes(buffer)

    def read_into(self, requests: Sequence[Request]) -> None:
        # the file may have changed since it was decoded
        self.inner.read_into(())
        decoded = self._decoded()
        for offset, buffer in requests:
            decoded.read_into(offset, buffer)

    def until(self, end: int) -> StreamSource:
        """Return this source for who will read no farther than to `end`.

        Raises
        ------
        MrcError
            If no stream of this length can hold as much.
        """
        most = self.inner.size * _MOST_BY_DEFLATE
        if self.codec == "gzip" and self.short_size is None and end > most:
            message = (
                f"the header promises {end} bytes, and a gzip stream of {self.inner.size} bytes "
                f"holds {most} at most: one of them is damaged"
            )
            raise MrcError.of(self.name, damage(self.codec, message), message)
        # what is salvaged was decoded to its end when the file was opened
        return self if self.salvages else replace(self, promised=end, _here={})

    def make_sure(self, nbytes: int) -> None:
        # few maps are as empty as that
        if nbytes > max(_LONG, self.inner.size * _MOST_BY_DEFLATE):
            self.read_into([(self.promised - 1, memoryview(bytearray(1)))])

    def map(self) -> None:
        return None

    def read_beside(self, name: str) -> bytes | None:
        return self.inner.read_beside(name)

    def names_beside(self) -> list[str]:
        return self.inner.names_beside()

    def beside(self, name: str) -> str | InStore:
        return self.inner.beside(name)

    @property
    def _is_seekable(self) -> bool:
        """Whether rapidgzip is there, and quicker: it is not on files that Python reads for it."""
        is_local = isinstance(self.inner, LocalSource) and self.inner.size >= _SMALL
        return self.codec == "gzip" and is_local and not self.salvages and has_rapidgzip()

    def _decoded(self) -> Decoded:
        """Return what this process has decoded, for this source and its copies."""
        here = self._here.get(os.getpid())
        if here is None:
            what = (self.inner, self.codec, self.limits, self.promised)
            key = (os.getpid(), *what, self.salvages)
            with _first_come:
                here = _decoded_here.get(key)
                if here is None:
                    here = Sequential(*what, salvages=self.salvages)
                    if self._is_seekable and isinstance(self.inner, LocalSource):
                        here = Seekable(self.inner, self.promised, here)
                    _decoded_here[key] = here
                self._here[os.getpid()] = here
            _keep_on_worker(here)
        return here


# by process, and by what a source is
_decoded_here: weakref.WeakValueDictionary[Any, Decoded] = weakref.WeakValueDictionary()
_first_come = threading.Lock()


def _forget_lock() -> None:
    """Get a lock that no thread has, in the child of a fork."""
    global _first_come
    _first_come = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_lock)


def _keep_on_worker(decoded: Decoded) -> None:
    """Keep a stream for the next computation, where this is a worker of a cluster."""
    if "distributed" in sys.modules:
        from distributed import get_worker

        with contextlib.suppress(ValueError):
            kept = vars(get_worker()).setdefault("_mrc_streams", deque(maxlen=_KEPT_BY_WORKERS))
            if decoded in kept:
                kept.remove(decoded)
            kept.append(decoded)


def _decode_first(inner: ByteSource, head: bytes, codec: str, nbytes: int) -> bytes:
    """Decode the first bytes of a stream, and fewer where it ends or is damaged.

    `head` are bytes of the file that are not read again.
    """
    raw = InnerFile(inner, head)
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
    return Problem("stream", "the stream", 0, 0, found, f"a sound stream of {codec}", action)


def _expensive(inner: ByteSource, codec: str) -> str:
    extra = ""
    if codec == "gzip" and isinstance(inner, LocalSource):
        extra = 'pip install "mrc-xarray[gzip]" reads it from any place, and in parallel; '
    return (
        f"{inner.name}: a {codec} stream of {inner.size / MiB:.0f} MiB, which every process that "
        f"reads it decodes from its start. {extra}`mrc-xarray convert` makes a file for all times."
    )
