"""Which bytes contain the pixels of the sections, and how to decode them.

The file is ``(section, row, column)``, followed by the samples of a pixel (RGB). What the
sections mean is the subject of `mrc_xarray.mrc.layout`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from mrc_xarray.pixels.modes import ByteOrder, Mode
from mrc_xarray.pixels.selection import Numbers, Pick, numbers_at, spans
from mrc_xarray.storage.base import Access, ByteSource, Request

__all__ = ["Batch", "InFile", "Sections", "groups", "runs"]

Array: TypeAlias = npt.NDArray[Any]

# bytes of a part that is read at once
_PART = 16 * 1024**2


class Batch(NamedTuple):
    """Byte ranges to read at once, and what they contain.

    `ranges` are offsets and lengths in bytes. They contain `n_sections` sections, of which
    `picked` are selected: those at `at` in the selection.
    """

    ranges: list[tuple[int, int]]
    at: slice
    picked: Pick
    n_sections: int

    @property
    def is_complete(self) -> bool:
        """Whether all sections in the ranges are selected, each once."""
        return isinstance(self.picked, slice) or np.array_equal(
            self.picked, np.arange(self.n_sections)
        )

    @property
    def nbytes(self) -> int:
        """Length of all ranges in bytes."""
        return sum(nbytes for _, nbytes in self.ranges)

    def requests(self, buffer: npt.NDArray[np.uint8]) -> list[Request]:
        """Return the requests that fill a buffer with the ranges, one after the other."""
        requests, start, memory = [], 0, buffer.data
        for offset, nbytes in self.ranges:
            requests.append((offset, memory[start : start + nbytes]))
            start += nbytes
        return requests


class InFile(NamedTuple):
    """The selected sections that are in one file: their numbers there, in order.

    They are those at `at` in the selection.
    """

    file: int
    at: slice | npt.NDArray[np.intp]
    numbers: Numbers


@dataclass(frozen=True, eq=False)
class Sections:
    """Uncompressed sections, one after the other.

    Attributes
    ----------
    offset : int
        The first byte of section 0.
    shape : tuple of int, (n_sections, n_rows, n_columns, *samples)
    mode : Mode
    byteorder : {"<", ">"}
        Order of the bytes in the file.
    """

    offset: int
    shape: tuple[int, ...]
    mode: Mode
    byteorder: ByteOrder

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """The dtype that the user gets, in the byte order of the machine."""
        return np.dtype(self.mode.decoded)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, before any compression."""
        return self.mode.row_bytes(self.shape[2])

    @property
    def section_bytes(self) -> int:
        """Bytes of one section, before any compression."""
        return self.row_bytes * self.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of all sections, before any compression."""
        return self.section_bytes * self.shape[0]

    @property
    def is_native(self) -> bool:
        """Whether the decoded bytes of a section are its pixels, with nothing to convert."""
        return self.mode.is_native(self.byteorder)

    @property
    def is_compressed(self) -> bool:
        """Whether a section can only be read as a unit."""
        return False

    @property
    def compressor(self) -> Literal["blosc", "blosc2"] | None:
        """The library that compressed each section, as one chunk of its own; None for none."""
        return None

    def ranges(
        self, numbers: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the first byte and the length in the file of sections."""
        starts = self.offset + numbers * self.section_bytes
        return starts, np.full_like(starts, self.section_bytes)

    def in_files(self, numbers: Numbers) -> list[InFile]:
        """Return the selected sections by the files that they are in: here, in one."""
        return [InFile(0, slice(None), numbers)]

    def opened(self, source: ByteSource, part: InFile) -> tuple[ByteSource, Sections]:
        """Return the file of a part, and its sections; `source` is that of the array."""
        del part
        return source, self

    def parts(self) -> Iterator[tuple[slice, ...]]:
        """Yield the keys of all parts: sections, or rows of a very large one, to read in turn."""
        n, rows, *rest = self.shape
        per_step, band = 1, rows
        if not self.is_compressed:
            per_step = max(1, _PART // self.section_bytes)
            band = max(1, _PART * rows // self.section_bytes)
        for start, row in product(range(0, n, per_step), range(0, rows, band)):
            stop = min(start + per_step, n)
            yield slice(start, stop), slice(row, row + band), *(slice(None) for _ in rest)

    def by_row(self) -> Sections:
        """Return each row as one section."""
        n_sections, n_rows, *rest = self.shape
        return replace(self, shape=(n_sections * n_rows, 1, *rest))

    def by_pixel(self) -> Sections:
        """Return each pixel as one section, which is impossible if pixels share bytes."""
        return replace(self, shape=(prod(self.shape[:3]), 1, 1, *self.shape[3:]))

    def batches(self, numbers: Numbers, access: Access) -> Iterator[Batch]:
        """Yield the byte ranges of the selected sections, as few as possible, in batches."""
        nbytes = self.section_bytes
        edges = spans(numbers, access.gap // nbytes, max(1, access.piece // nbytes))
        starts, stops = edges[:-1], edges[1:]
        first, last = numbers_at(numbers, starts), numbers_at(numbers, stops - 1)
        offsets, n_read = self.offset + first * nbytes, last - first + 1
        lengths = (n_read * nbytes).tolist()
        for group in groups(lengths, access.batch):
            at = slice(int(starts[group.start]), int(stops[group.stop - 1]))
            ranges = list(zip(offsets[group].tolist(), lengths[group], strict=True))
            picked: Pick = slice(None)
            if not isinstance(numbers, range):
                skipped = first[group] - (np.cumsum(n_read[group]) - n_read[group])
                picked = numbers[at] - np.repeat(skipped, np.diff(edges)[group])
            yield Batch(ranges, at, picked, int(n_read[group].sum()))

    def decode(
        self,
        raw: npt.NDArray[np.uint8],
        numbers: Numbers,
        out: Array | None = None,
        n_threads: int = 1,
    ) -> Array:
        """Return the pixels of complete sections, in the byte order of the file.

        `raw` are the ranges of a batch, and `numbers` its selected sections. `out` is memory for
        the decoded bytes, if these are the pixels; it is returned if it was used. Up to
        `n_threads` decode a section together. The result has the shape
        ``(n_sections, n_rows, n_columns, *samples)``.
        """
        del numbers, out, n_threads  # all sections are decoded at once, and `Blocks` needs these
        rows = self.mode.decode(raw, self.byteorder, self.shape[2])
        return rows.reshape(-1, *self.shape[1:])


def groups(lengths: Sequence[int], limit: int) -> Iterator[slice]:
    """Group byte ranges by their lengths, up to `limit` bytes or one range."""
    start, total = 0, 0
    for i, nbytes in enumerate(lengths):
        if i > start and total + nbytes > limit:
            yield slice(start, i)
            start, total = i, 0
        total += nbytes
    if lengths:
        yield slice(start, len(lengths))


def runs(
    stored: npt.NDArray[np.uint8], shape: Sequence[int], start: Sequence[int]
) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Cut a block into runs that are contiguous in the complete array, with their first bytes.

    The complete array has `shape`, in bytes along the last axis, and the block begins at `start`.
    """
    strides = [prod(shape[axis + 1 :]) for axis in range(len(shape))]
    outer = len(shape) - 1
    while outer and stored.shape[outer] == shape[outer]:
        outer -= 1
    first = sum(at * stride for at, stride in zip(start, strides, strict=True))
    for index in np.ndindex(stored.shape[:outer]):
        offset = sum(at * stride for at, stride in zip(index, strides, strict=False))
        yield first + offset, stored[index].reshape(-1)
