"""Which bytes hold the rows of a section, and how to decode them.

The file is seen as ``(section, row, column)``, with a pixel's samples (RGB) behind; what the
sections mean is `layout`'s business.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mrc_xarray.format.header import ByteOrder
from mrc_xarray.format.modes import Mode

__all__ = ["Contiguous", "Packed4Bit", "Sections", "plain_sections"]


@dataclass(frozen=True)
class Sections:
    """Uncompressed sections, one after the other: where the rows are.

    Attributes
    ----------
    offset : int
        The first byte of section 0.
    shape : tuple of int, (n_sections, n_rows, n_columns, *samples)
    row_bytes : int
        Bytes from one row to the next.
    mode : Mode
    byteorder : {"<", ">"}
        Order of the bytes in the file.
    """

    offset: int
    shape: tuple[int, ...]
    row_bytes: int
    mode: Mode
    byteorder: ByteOrder

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """What the user gets, in the machine's byte order."""
        return np.dtype(self.mode.decoded)

    @property
    def section_bytes(self) -> int:
        """Bytes of one section in the file."""
        return self.row_bytes * self.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of all sections in the file."""
        return self.section_bytes * self.shape[0]

    @property
    def stored_dtype(self) -> np.dtype[np.generic] | None:
        """The dtype that the file's bytes have as they are, or None where they need decoding."""
        raise NotImplementedError

    @property
    def is_native(self) -> bool:
        """Whether the file's bytes are the user's values, with nothing to convert."""
        return self.stored_dtype is not None and self.stored_dtype == self.dtype

    def decode(self, raw: npt.NDArray[np.uint8], n_sections: int) -> npt.NDArray[np.generic]:
        """Return whole rows from their bytes, in the file's byte order.

        Parameters
        ----------
        raw : ndarray of uint8
            Bytes of whole rows.
        n_sections : int
            How many sections the rows belong to, each with equally many.

        Returns
        -------
        ndarray, shape (n_sections, n_rows, n_columns, *samples)
        """
        raise NotImplementedError


class Contiguous(Sections):
    """Pixels as NumPy has them, or nearly so (mode 3)."""

    @property
    def stored_dtype(self) -> np.dtype[np.generic] | None:
        if self.mode.numbers > 1 and not self.mode.samples:
            return None
        return np.dtype(self.mode.stored).newbyteorder(self.byteorder)

    def decode(self, raw: npt.NDArray[np.uint8], n_sections: int) -> npt.NDArray[np.generic]:
        pixels = raw.view(np.dtype(self.mode.stored).newbyteorder(self.byteorder))
        if self.stored_dtype is None:
            # mode 3: pairs of int16 have no complex dtype of their own
            pixels = pixels.astype(np.float32).view(np.complex64)
        return pixels.reshape(n_sections, -1, *self.shape[2:])


class Packed4Bit(Sections):
    """Mode 101: two pixels a byte, the first in the low nibble, rows padded to whole bytes."""

    @property
    def stored_dtype(self) -> None:
        return None

    def decode(self, raw: npt.NDArray[np.uint8], n_sections: int) -> npt.NDArray[np.generic]:
        pixels = np.empty((raw.size, 2), np.uint8)
        np.bitwise_and(raw, 0x0F, out=pixels[:, 0])
        np.right_shift(raw, 4, out=pixels[:, 1])
        rows = pixels.reshape(n_sections, -1, 2 * self.row_bytes)
        return rows[:, :, : self.shape[2]]


def plain_sections(
    offset: int, shape: tuple[int, int, int], mode: Mode, byteorder: ByteOrder
) -> Sections:
    """Place uncompressed sections of `shape` (n_sections, n_rows, n_columns)."""
    kind = Packed4Bit if mode.number == 101 else Contiguous
    return kind(offset, (*shape, *mode.samples), mode.row_bytes(shape[2]), mode, byteorder)
