"""What a pixel is: the table of modes, and the rule for the sign of 8-bit data.

See FORMAT: modes, mode-0 signedness. A new mode is one row of `MODES`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from mrc_xarray.errors import MrcError

__all__ = ["EMAN2_MODES", "MODES", "PER_CODEC", "STANDARD", "ByteOrder", "Mode", "mode_for"]

ByteOrder = Literal["<", ">"]

#: MODE of an MRCZ is this times the codec, plus the mode of its pixels.
PER_CODEC = 1000


@dataclass(frozen=True, slots=True)
class Mode:
    """How one pixel is stored.

    Attributes
    ----------
    number : int
        MODE in the header.
    stored : str
        NumPy's code for one number in the file, without a byte order.
    numbers : int
        Stored numbers a pixel: 2 for a pair that makes one complex value, 3 for RGB.
    decoded : str
        NumPy's code for what the user gets.
    samples : tuple of int
        Trailing dimensions that a pixel has: ``(3,)`` for RGB, else none.
    """

    number: int
    stored: str
    decoded: str
    numbers: int = 1
    samples: tuple[int, ...] = ()

    @property
    def bits(self) -> int:
        """Bits a pixel in the file."""
        return 4 if self.number == 101 else 8 * self.numbers * np.dtype(self.stored).itemsize

    @property
    def decoded_name(self) -> str:
        """The dtype that the user gets, by its name in NumPy."""
        return "rgb uint8" if self.samples else np.dtype(self.decoded).name

    def row_bytes(self, n_columns: int) -> int:
        """Return the bytes of one row; rows of 4-bit pixels are padded to whole bytes."""
        return (n_columns * self.bits + 7) // 8


MODES: dict[int, Mode] = {
    mode.number: mode
    for mode in (
        Mode(0, "i1", "i1"),  # or u1, by mode0_sign
        Mode(1, "i2", "i2"),
        Mode(2, "f4", "f4"),
        Mode(3, "i2", "c8", numbers=2),
        Mode(4, "c8", "c8"),
        Mode(6, "u2", "u2"),
        Mode(7, "i4", "i4"),
        Mode(8, "u4", "u4"),
        Mode(12, "f2", "f2"),
        Mode(16, "u1", "u1", numbers=3, samples=(3,)),
        Mode(101, "u1", "u1"),
    )
}

#: Those that MRC2014 has.
STANDARD = frozenset((0, 1, 2, 3, 4, 6, 12, 101))

# the mode that holds a dtype without loss
_LOSSLESS = {
    "bool": 0,
    "int8": 0,
    "int16": 1,
    "float32": 2,
    "complex64": 4,
    "uint8": 6,
    "uint16": 6,
    "int32": 7,
    "uint32": 8,
    "float16": 12,
}

#: The numbers that mrcz calls EMAN2's. EMAN2 itself writes MRC with the table above.
EMAN2_MODES: dict[int, Mode] = {
    number: Mode(number, code, code)
    for number, code in enumerate(("i1", "u1", "i2", "u2", "i4", "u4", "f4"), start=1)
}


def mode_for(dtype: npt.DTypeLike, number: int | None = None, *, is_rgb: bool = False) -> Mode:
    """Choose how pixels are stored.

    Parameters
    ----------
    dtype : dtype
        Of the pixels.
    number : int, optional
        The mode that the user wants; by default the one that holds `dtype` without loss.
    is_rgb : bool
        Whether the last dimension is red, green and blue.

    Raises
    ------
    MrcError
        If no mode holds the dtype without loss, or the mode that is wanted can't.
    """
    dtype = np.dtype(dtype)
    if number is None:
        number = 16 if is_rgb else _LOSSLESS.get(dtype.name)
    if number is None:
        hint = "mode=4" if dtype.kind == "c" else "mode=2 (float32), or another"
        raise MrcError(
            f"no MODE of MRC holds {dtype} without loss; say which may: {hint}, or cast the data "
            f"with .astype()"
        )
    if number not in MODES:
        known = ", ".join(map(str, MODES))
        raise MrcError(f"mode is {number!r}; accepted: {known}")
    mode = MODES[number]
    numeric = dtype.kind in ("biufc" if mode.decoded == "c8" else "biuf")
    if is_rgb != bool(mode.samples) or not numeric or (is_rgb and dtype.name != "uint8"):
        raise MrcError(
            f"mode {number} ({mode.decoded_name}) can't hold {dtype}{' RGB' * is_rgb} data"
        )
    if number == 0 and dtype.name == "uint8":
        return dataclasses.replace(mode, stored="u1", decoded="u1")
    return mode
