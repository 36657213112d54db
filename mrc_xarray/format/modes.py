"""What a pixel is: the table of modes, and the rule for the sign of 8-bit data.

See FORMAT: modes, mode-0 signedness. A new mode is one row of `MODES`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mrc_xarray.format.header import Header

__all__ = ["EMAN2_MODES", "MODES", "PER_CODEC", "Mode", "mode0_sign"]

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

#: The numbers that mrcz calls EMAN2's. EMAN2 itself writes MRC with the table above.
EMAN2_MODES: dict[int, Mode] = {
    number: Mode(number, code, code)
    for number, code in enumerate(("i1", "u1", "i2", "u2", "i4", "u4", "f4"), start=1)
}


def mode0_sign(header: Header) -> tuple[str, str]:
    """Tell whether mode 0 is signed in this file, and by which evidence.

    Returns
    -------
    dtype : {"int8", "uint8"}
    evidence : str
        For the user, in `attrs`.
    """
    if header.has_imod_stamp:
        signed = bool(header.imod_flags & 1)
        return "int8" if signed else "uint8", f"IMOD's flags say {'' if signed else 'un'}signed"
    if header.is_direct_electron:
        return "uint8", "a Direct Electron server wrote the file"
    if header.has_statistics:
        fits_int8 = header.dmin >= -128 and header.dmax <= 127
        fits_uint8 = header.dmin >= 0 and header.dmax <= 255
        if fits_int8 != fits_uint8:
            return (
                "int8" if fits_int8 else "uint8",
                f"DMIN is {header.dmin:g} and DMAX {header.dmax:g}",
            )
    if header.mrcz_version is not None:
        return "int8", "mrcz wrote the file, and can't write unsigned bytes"
    if header.has_valid_nversion:
        return "int8", "NVERSION is valid, and MRC2014 is signed"
    if not header.has_map_word:
        return "uint8", "a header without MAP is from before 2000"
    return "int8", "assumed: nothing in the header tells"
