"""A compressed file, as the source of the bytes that it decodes to."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from mrc_xarray.errors import MrcError, Problem, warn
from mrc_xarray.installation import install_command
from mrc_xarray.storage.base import FIRST_READ, Access, ByteSource, InStore, MiB, Request
from mrc_xarray.storage.budget import Limits
from mrc_xarray.storage.codecs import CODECS
from mrc_xarray.storage.compressed import ENOUGH_TO_BEGIN, CompressedFile
from mrc_xarray.storage.decoded import Decoded, Stream
from mrc_xarray.storage.decoders import isal

__all__ = ["StreamSource", "damage"]

# compressed bytes that take so long to decode that the user should know
_LONG = 32 * MiB
# a compressed byte rarely decodes to more, even with codecs that allow it
_USUAL_EXPANSION = 1032
# the most that is decoded to open a file, and more of a large file
_USUAL_SIZE, _USUAL_RATIO = 256 * MiB, 200
# rows, columns or sections that any stream may promise
_FEW = 2**21
# streams that a worker of a cluster holds after a computation, since the next may need them
_HELD_BY_WORKERS = 2


@dataclass(frozen=True)
class StreamSource(ByteSource):
    """The bytes that a compressed file decodes to.

    `size` is None if the stream was not decoded to its end when it was opened.
    """

    access: ClassVar[Access] = Access(gap=0, skip=MiB, piece=16 * MiB, batch=16 * MiB)

    stream: Stream
    size: int | None

    @classmethod
    def open(
        cls, inner: ByteSource, codec: str, *, salvages: bool = False
    ) -> tuple[StreamSource, bytes]:
        """Return the source for a compressed file, and the first bytes that it decodes to.

        MrcError is raised if they can't be decoded. A long stream is a warning.
        """
        head, fault = CompressedFile(inner, codec, ENOUGH_TO_BEGIN).read(FIRST_READ)
        if fault is not None and not head:
            why = str(fault) or type(fault).__name__
            message = f"this begins as a {codec} stream, and can't be decoded: {why}"
            raise MrcError.of(inner.name, damage(codec, why), message) from fault
        source = cls(Stream(inner, codec, Limits.configured(), salvages), None)
        if len(head) < FIRST_READ:
            return replace(source, size=len(head)), head
        if source._compressed_size >= _LONG:
            warn(_expensive(inner.name, codec, source._compressed_size))
        if not salvages:
            return source, head
        complete = replace(source, size=source._decoded.use().ended()[0])
        # the decoded bytes live as long as a source refers to them
        vars(complete)["_decoded"] = source._decoded
        return complete, head

    def __reduce__(self) -> tuple[Any, ...]:
        return StreamSource, (self.stream, self.size)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return self.__reduce__()

    @property
    def name(self) -> str:  # type: ignore[override]  # nothing assigns to a frozen source
        return self.stream.source.name

    @property
    def can_be_reopened(self) -> bool:
        return self.stream.source.can_be_reopened

    @property
    def _compressed_size(self) -> int:
        assert self.stream.source.size is not None
        return self.stream.source.size

    @property
    def plausible_size(self) -> int:
        # the end of zeros that were compressed can be minutes away
        return self.size or max(_USUAL_SIZE, self._compressed_size * _USUAL_RATIO)

    @contextlib.contextmanager
    def fetching(self) -> Iterator[Callable[[int, int], bytes]]:
        """Return a context whose function decodes what it needs, and holds nothing of it.

        It is quick if offsets increase. At the end of the stream, it returns fewer bytes.
        """
        codec = self.stream.codec
        file, at = CompressedFile(self.stream.source, codec), 0

        def decode(nbytes: int) -> bytes:
            nonlocal at
            data, fault = file.read(nbytes)
            at += len(data)
            if fault is not None and len(data) < nbytes:
                message = f"the {codec} stream is damaged or truncated: {fault}"
                raise MrcError.of(self.name, damage(codec, str(fault)), message) from fault
            return data

        def fetch(offset: int, nbytes: int) -> bytes:
            nonlocal file, at
            if offset < at:
                file, at = CompressedFile(self.stream.source, codec), 0
            while at < offset and decode(min(MiB, offset - at)):
                pass
            return decode(nbytes)

        yield fetch

    def find_fault(self) -> str | None:
        """Decode everything; return what is wrong with the stream, or None."""
        return self._decoded.use().ended()[1]

    def expecting(self, end: int, longest: int) -> StreamSource:
        codec, size = self.stream.codec, self._compressed_size
        most = size * CODECS[codec].expansion
        message = ""
        if end > most:
            message = (
                f"the header promises {end} bytes, but a {codec} stream of {size} bytes decodes "
                f"to {most} bytes at most: the header or the stream is damaged"
            )
        elif longest > max(_FEW, size):
            message = (
                f"the header promises {longest} sections, rows or columns; accepted: up to "
                f"{max(_FEW, size)} for a {codec} stream of {size} bytes. Decompress the file: "
                "the size of a plain file shows how many there are."
            )
        if message:
            raise MrcError.of(self.name, damage(codec, message), message)
        if self.stream.salvages:
            # it was decoded to its end when it was opened
            return self
        return replace(self, stream=replace(self.stream, promised=end))

    def prepare(self, nbytes: int) -> None:
        """Before memory is allocated for `nbytes`, check that the stream contains them.

        On a worker of a cluster, this also holds the decoded stream for the next computation.
        """
        # here, because the threads that read later can't find the worker
        _hold_on_worker(self._decoded)
        if self.size is None and nbytes > max(_LONG, self._compressed_size * _USUAL_EXPANSION):
            self.read(self.stream.promised - 1, 1)

    def read_into(self, requests: Sequence[Request]) -> None:
        # the file may have changed since it was decoded
        self.stream.source.read_into(())
        for offset, buffer in requests:
            self._decoded.use().read_into(offset, buffer)

    def read_all(self) -> bytes:
        size, fault = self._decoded.use().ended()
        if fault is not None:
            raise MrcError.of(self.name, damage(self.stream.codec, fault))
        return self.read(0, size)

    def is_of(self, found: os.stat_result) -> bool:
        return self.stream.source.is_of(found)

    def read_sibling(self, name: str) -> bytes | None:
        return self.stream.source.read_sibling(name)

    def sibling_names(self) -> list[str]:
        return self.stream.source.sibling_names()

    def sibling(self, name: str) -> str | InStore:
        return self.stream.source.sibling(name)

    @functools.cached_property
    def _decoded(self) -> Decoded:
        """The decoded stream that this source shares with its copies in this process."""
        return Decoded.of(self.stream)


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


def damage(codec: str, fault: str) -> Problem:
    """Return the problem that a stream is damaged."""
    return Problem(
        "stream",
        "the stream",
        found=f"damaged or truncated: {fault}",
        accepted=f"a {codec} stream without damage",
        action="truncated='trim' opens what could be decoded in front of the damage.",
        offset=0,
    )


def _expensive(name: str, codec: str, size: int) -> str:
    extra = ""
    if codec == "gzip" and isal() is None:
        extra = f"With isal ({install_command('isal')}) it takes about half the time. "
    return (
        f"{name}: every process decodes this {codec} stream of {size / MiB:.0f} MiB from its "
        f"start. {extra}`mrc-xarray convert` makes a file that is quick to read."
    )
