"""The pixels of DataTypes, and half planes of Fourier transforms as complete sections.

See ``docs/reference/format.md#dm-pixels``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mrc_xarray.pixels.modes import ByteOrder, Mode
from mrc_xarray.pixels.sections import Sections
from mrc_xarray.pixels.selection import Numbers

__all__ = ["PIXELS", "HalfPlane", "sections_of"]

Array: TypeAlias = npt.NDArray[Any]


class _Bgra(Mode):
    """Colours that are stored as blue, green, red and alpha."""

    def is_native(self, byteorder: ByteOrder) -> bool:
        return False

    def decode(self, raw: npt.NDArray[np.uint8], byteorder: ByteOrder, n_columns: int) -> Array:
        return super().decode(raw, byteorder, n_columns)[..., [2, 1, 0, 3]]


class HalfPlane(Mode):
    """The Fourier transform of a real image: half of it, since it is Hermitian.

    Row r of the result has the frequency r − n_rows // 2, and column c likewise.
    """

    def row_bytes(self, n_columns: int) -> int:
        """Return the length of one row in bytes."""
        return (n_columns // 2 + 1) * np.dtype(self.stored).itemsize

    def is_native(self, byteorder: ByteOrder) -> bool:
        """Return False: pixels are computed."""
        return False

    def fits(self, n_rows: int, n_columns: int) -> bool:
        """Return whether a section can have this size."""
        return True

    def complete(self, stored: Array, n_rows: int, n_columns: int) -> Array:
        """Return sections ``(n, n_rows, n_columns)`` from the numbers that are stored for them.

        The frequencies of the stored columns are 0, −1, −2, ….
        """
        half = stored.reshape(-1, n_rows, n_columns // 2 + 1)
        centre = n_columns // 2
        # the row of the opposite frequency; row 0 of an even number is its own
        opposite = (2 * (n_rows // 2) - np.arange(n_rows)) % n_rows
        right = half[:, opposite, 1 : n_columns - centre].conj()
        return np.concatenate([half[..., ::-1], right], axis=-1)


class _RealsAndHalfPlane(HalfPlane):
    """The older form, of square images: two real numbers share the place of each complex one."""

    def row_bytes(self, n_columns: int) -> int:
        return n_columns * np.dtype(self.stored).itemsize

    def fits(self, n_rows: int, n_columns: int) -> bool:
        return n_rows == n_columns and n_rows % 2 == 0

    def complete(self, stored: Array, n_rows: int, n_columns: int) -> Array:
        n = n_rows // 2
        pairs = stored.astype(np.float32).view(np.complex64).reshape(-1, n_rows, n)
        # frequencies from 0 on along columns; the largest one, −n, is added as the first
        half = np.zeros((len(pairs), n_rows, n + 1), np.complex64)
        half[..., 1:n] = pairs[..., 1:]
        # column 0 of the lower half has frequency 0, and of the upper half frequency −n
        half[:, n + 1 :, 0] = pairs[:, n + 1 :, 0]
        half[:, n + 1 :, n] = pairs[:, 1:n, 0]
        half[:, 1:n, [0, n]] = half[:, :n:-1, [0, n]].conj()
        half[:, n, 0], half[:, n, n] = pairs[:, n, 0].real, pairs[:, 0, 0].real
        half[:, 0, 0], half[:, 0, n] = pairs[:, n, 0].imag, pairs[:, 0, 0].imag
        opposite = (n_rows - np.arange(n_rows)) % n_rows
        left = half[:, opposite, n - 1 : 0 : -1].conj()
        return np.concatenate([half[..., n:], left, half[..., :n]], axis=-1)


@dataclass(frozen=True, eq=False)
class _HalfPlanes(Sections):
    """Sections of which a half is stored, so that each is read as a unit."""

    mode: HalfPlane

    @property
    def is_compressed(self) -> bool:
        return True

    def decode(
        self,
        raw: npt.NDArray[np.uint8],
        numbers: Numbers,
        out: Array | None = None,
        n_threads: int = 1,
    ) -> Array:
        stored = raw.view(np.dtype(self.mode.stored).newbyteorder(self.byteorder))
        return self.mode.complete(stored, *self.shape[1:3])


# numbers as NumPy has them
_NUMBERS = {
    1: "i2", 2: "f4", 3: "c8", 6: "u1", 7: "i4", 9: "i1", 10: "u2", 11: "u4", 12: "f8", 13: "c16",
    14: "?", 39: "i8", 40: "u8",
}  # fmt: skip
#: By DataType. The number of a mode is negative, since it is no MODE of MRC.
PIXELS: dict[int, Mode] = {
    **{n: Mode(-n, 8 * np.dtype(code).itemsize, code, code) for n, code in _NUMBERS.items()},
    **{n: _Bgra(-n, 32, "u1", "u1", samples=(4,)) for n in (8, 23)},
    5: _RealsAndHalfPlane(-5, 32, "f4", "c8"),
    27: HalfPlane(-27, 64, "c8", "c8"),
    28: HalfPlane(-28, 128, "c16", "c16"),
}


def sections_of(
    mode: Mode, shape: tuple[int, int, int], offset: int, byteorder: ByteOrder
) -> Sections:
    """Return sections ``shape`` (n_sections, n_rows, n_columns) from the byte `offset` on."""
    kind = _HalfPlanes if isinstance(mode, HalfPlane) else Sections
    return kind(offset, (*shape, *mode.samples), mode, byteorder)  # type: ignore[arg-type]
