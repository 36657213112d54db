"""Which bytes hold the rows of a section, and how to decode them.

The file is seen as ``(section, row, column)``, with a pixel's samples (RGB) behind; what the
sections mean is `layout`'s business.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from mrc_xarray.errors import MrcError
from mrc_xarray.pixels.blocks import BlockIndex
from mrc_xarray.pixels.compression import decode_block
from mrc_xarray.pixels.modes import ByteOrder, Mode

__all__ = [
    "Blocks",
    "Contiguous",
    "Packed4Bit",
    "Pick",
    "Piece",
    "Sections",
    "is_whole",
    "picked_numbers",
]

# bytes of a section, and ranges, for which one long read beats many short ones
_SMALL = 64 * 1024
_MANY = 4096
# sections whose rows are decoded together
_TOGETHER = 64

#: A selection along one dimension: a slice with a positive step, or sorted indices.
Pick: TypeAlias = "slice | npt.NDArray[np.intp]"
#: Numbers of sections in the file.
Numbers: TypeAlias = "range | npt.NDArray[np.intp]"


class Piece(NamedTuple):
    """Whole rows of one section or of some that follow each other, and where they go.

    Attributes
    ----------
    offset : int
        First byte.
    nbytes : int
        Of all of its rows.
    section : int
        The first that it covers.
    n_sections : int
        How many, each with the same rows.
    rows : slice, ndarray of int or None
        Which of the decoded rows are wanted; None for all.
    at : tuple of slice
        Sections and rows of the result.
    step : int
        Bytes from a section's first row to that of the next, where they are apart; 0 where the
        piece is one byte range.
    """

    offset: int
    nbytes: int
    section: int
    n_sections: int
    rows: Pick | None
    at: tuple[slice, slice]
    step: int = 0

    def ranges(self) -> list[tuple[int, int]]:
        """Return offset and length of each byte range."""
        if not self.step:
            return [(self.offset, self.nbytes)]
        nbytes = self.nbytes // self.n_sections
        return [(self.offset + i * self.step, nbytes) for i in range(self.n_sections)]


@dataclass(frozen=True, eq=False)
class Sections:
    """Uncompressed sections, one after the other: where the rows are.

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
        """What the user gets, in the machine's byte order."""
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
    def stored_dtype(self) -> np.dtype[np.generic] | None:
        """The dtype that a row's bytes have as they are, or None where they need decoding."""
        raise NotImplementedError

    @property
    def is_native(self) -> bool:
        """Whether a row's bytes are the user's values, with nothing to convert."""
        return self.stored_dtype is not None and self.stored_dtype == self.dtype

    @property
    def is_compressed(self) -> bool:
        """Whether the rows of a section can only be had all together."""
        return False

    def by_pixel(self) -> Sections | None:
        """Return the rows as sections and the pixels as rows, which can be read one by one.

        None where bytes hold several pixels, or are compressed.
        """
        return None

    def pieces(self, numbers: Numbers, rows: Pick, gap: int, longest: int) -> Iterator[Piece]:
        """Cut a selection into byte ranges, as few as can be.

        Parameters
        ----------
        numbers : sequence of int
            The selected sections.
        rows : slice or ndarray of int
            The selected rows of each.
        gap : int
            Bytes between two rows that are better read than left out.
        longest : int
            Bytes that one range may have, if it is not a single row.
        """
        n_rows, row_bytes, section_bytes = self.shape[1], self.row_bytes, self.section_bytes
        wanted = picked_numbers(rows, n_rows)
        bands = list(_bands(wanted, gap // row_bytes, max(1, longest // row_bytes)))
        whole = is_whole(rows, n_rows) and section_bytes <= longest
        # of many small sections, reading all is cheaper than leaving out
        if whole or (section_bytes <= _SMALL and len(numbers) * len(bands) > _MANY):
            at_once = longest // section_bytes
            for start, stop in _runs(numbers):
                for i in range(start, stop, at_once):
                    j = min(i + at_once, stop)
                    first = int(numbers[i])
                    offset, nbytes = self.offset + first * section_bytes, (j - i) * section_bytes
                    at = (slice(i, j), slice(0, len(wanted)))
                    yield Piece(offset, nbytes, first, j - i, None if whole else wanted, at)
            return
        ranges = []
        for along in bands:
            band = wanted[along]
            first, n = int(band[0]), int(band[-1] - band[0]) + 1
            picked = None if (np.diff(band) == 1).all() else band - first
            ranges.append((first * row_bytes, n * row_bytes, picked, along))
        # together, as each piece has a cost of its own, which is that of reading some 100 KiB
        together = max(1, min(longest // sum(nbytes for _, nbytes, *_ in ranges), _TOGETHER))
        for start, stop in _runs(numbers):
            for i in range(start, stop, together):
                j = min(i + together, stop)
                first = int(numbers[i])
                for offset, nbytes, picked, along in ranges:
                    offset += self.offset + first * section_bytes
                    at = (slice(i, j), along)
                    yield Piece(offset, (j - i) * nbytes, first, j - i, picked, at, section_bytes)

    def decode(
        self, raw: npt.NDArray[np.uint8], piece: Piece, out: npt.NDArray[Any] | None = None
    ) -> npt.NDArray[Any]:
        """Return the rows of a piece.

        Parameters
        ----------
        raw : ndarray of uint8
            The piece's bytes.
        piece : Piece
        out : ndarray, C-contiguous, optional
            Where all of the decoded rows may go directly, if they are native.

        Returns
        -------
        ndarray, shape (n_sections, n_rows, n_columns, *samples)
            In the file's byte order; `out` where that was filled.
        """
        raise NotImplementedError


class Contiguous(Sections):
    """Pixels as NumPy has them, or nearly so (mode 3)."""

    @property
    def stored_dtype(self) -> np.dtype[np.generic] | None:
        if self.mode.numbers > 1 and not self.mode.samples:
            return None
        return np.dtype(self.mode.stored).newbyteorder(self.byteorder)

    def by_pixel(self) -> Sections | None:
        n_sections, n_rows, n_columns, *samples = self.shape
        shape = (n_sections * n_rows, n_columns, 1, *samples)
        return Contiguous(self.offset, shape, self.mode, self.byteorder)

    def decode(
        self, raw: npt.NDArray[np.uint8], piece: Piece, out: npt.NDArray[Any] | None = None
    ) -> npt.NDArray[Any]:
        pixels = raw.view(np.dtype(self.mode.stored).newbyteorder(self.byteorder))
        if self.stored_dtype is None:
            # mode 3: pairs of int16 have no complex dtype of their own
            pixels = pixels.astype(np.float32).view(np.complex64)
        return pixels.reshape(piece.n_sections, -1, *self.shape[2:])


class Packed4Bit(Sections):
    """Mode 101: two pixels a byte, the first in the low nibble, rows padded to whole bytes."""

    @property
    def stored_dtype(self) -> None:
        return None

    def decode(
        self, raw: npt.NDArray[np.uint8], piece: Piece, out: npt.NDArray[Any] | None = None
    ) -> npt.NDArray[Any]:
        pixels = np.empty((raw.size, 2), np.uint8)
        np.bitwise_and(raw, 0x0F, out=pixels[:, 0])
        np.right_shift(raw, 4, out=pixels[:, 1])
        rows = pixels.reshape(piece.n_sections, -1, 2 * self.row_bytes)
        return rows[:, :, : self.shape[2]]


@dataclass(frozen=True, eq=False)
class Blocks(Contiguous):
    """MRCZ: each section is a block that must be decoded whole.

    Attributes
    ----------
    index : BlockIndex
        Where the blocks are.
    name : str
        The file's, for messages.
    """

    index: BlockIndex
    name: str

    @property
    def is_compressed(self) -> bool:
        return True

    def by_pixel(self) -> None:
        return None

    def pieces(self, numbers: Numbers, rows: Pick, gap: int, longest: int) -> Iterator[Piece]:
        n_rows = self.shape[1]
        picked = None if is_whole(rows, n_rows) else rows
        along = slice(0, len(picked_numbers(rows, n_rows)))
        for i, number in enumerate(numbers):
            section = int(number)
            start, stop = int(self.index.starts[section]), int(self.index.stops[section])
            if stop < 0:
                raise MrcError(f"{self._where(section)}: the block is damaged, and can't be read")
            yield Piece(start, stop - start, section, 1, picked, (slice(i, i + 1), along))

    def decode(
        self, raw: npt.NDArray[np.uint8], piece: Piece, out: npt.NDArray[Any] | None = None
    ) -> npt.NDArray[Any]:
        where, codec = self._where(piece.section), self.index.codec
        if out is not None:
            decode_block(raw, out, codec=codec, where=where)
            return out
        block = np.empty(self.section_bytes, np.uint8)
        decode_block(raw, block, codec=codec, where=where)
        return super().decode(block, piece)

    def _where(self, section: int) -> str:
        start = int(self.index.starts[section])
        place = f"at byte {start}" if start >= 0 else "behind a damaged block"
        return f"{self.name}: section {section}, {place}"


def picked_numbers(pick: Pick, n: int) -> npt.NDArray[np.intp]:
    """Return the indices that a selection picks from a dimension of length `n`."""
    return np.arange(*pick.indices(n)) if isinstance(pick, slice) else pick


def is_whole(pick: Pick, n: int) -> bool:
    """Tell whether a selection takes all of `n` in their order."""
    return isinstance(pick, slice) and pick == slice(0, n, 1)


def _runs(numbers: Numbers) -> Iterator[tuple[int, int]]:
    """Yield start and stop of each run of consecutive numbers."""
    if isinstance(numbers, range) and numbers.step == 1:
        yield 0, len(numbers)
        return
    breaks = (np.flatnonzero(np.diff(numbers) != 1) + 1).tolist()
    yield from zip([0, *breaks], [*breaks, len(numbers)], strict=True)


def _bands(wanted: npt.NDArray[np.intp], gap: int, longest: int) -> Iterator[slice]:
    """Yield groups of rows to read together: gaps within `gap` rows, spans within `longest`."""
    start = 0
    for stop in [*(np.flatnonzero(np.diff(wanted) - 1 > gap) + 1).tolist(), len(wanted)]:
        while start < stop:
            reach = int(np.searchsorted(wanted[start:stop], wanted[start] + longest)) + start
            yield slice(start, reach)
            start = reach
