"""What a pixel is: the table of modes, each with its codec.

See ``docs/reference/format.md#modes`` and ``docs/reference/format.md#signedness``. A new mode is
one row of `MODES`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from mrc_xarray.errors import MrcError

__all__ = ["EMAN2_MODES", "MODES", "PER_CODEC", "STANDARD", "ByteOrder", "Mode", "mode_for"]

Array: TypeAlias = npt.NDArray[Any]
ByteOrder = Literal["<", ">"]

#: MODE of an MRCZ file is this times the number of the codec, plus the mode of the pixels.
PER_CODEC = 1000


@dataclass(frozen=True)
class Mode:
    """How one pixel is stored, decoded and encoded.

    Attributes
    ----------
    number : int
        MODE in the header; negative for pixels of another format than MRC.
    bits : int
        Bits per pixel in the file.
    stored : str
        NumPy's code of one number in the file, without a byte order.
    decoded : str
        NumPy's code of the values that the user gets.
    samples : tuple of int
        Trailing dimensions of a pixel: ``(3,)`` for RGB, otherwise empty.
    is_standard : bool
        Whether MRC2014 defines it.
    sign_varies : bool
        Whether some programs store signed and others unsigned numbers.
    successor : int or None
        The mode that new files have instead; None if files of this mode are written.
    """

    number: int
    bits: int
    stored: str
    decoded: str
    samples: tuple[int, ...] = ()
    is_standard: bool = True
    sign_varies: bool = False
    successor: int | None = None

    @property
    def decoded_name(self) -> str:
        """The name of the dtype that the user gets."""
        return "rgb uint8" if self.samples else np.dtype(self.decoded).name

    @property
    def is_packed(self) -> bool:
        """Whether two pixels can share a byte."""
        return self.bits % 8 != 0

    @property
    def is_plain(self) -> bool:
        """Whether the bytes in the file are the decoded values, in one of the two byte orders."""
        return self.is_native("<") or self.is_native(">")

    @property
    def is_unsigned_variant(self) -> bool:
        """Whether this is the unsigned variant of a mode whose sign varies."""
        return self.sign_varies and np.dtype(self.stored).kind == "u"

    @property
    def value_range(self) -> tuple[float, float]:
        """The least and the largest finite value, for complex values of each part."""
        return _range(np.dtype(self.decoded))

    @property
    def holds_its_dtype(self) -> bool:
        """Whether every value of the decoded dtype can be stored."""
        return self.value_range == _range(np.dtype(self.decoded))

    def with_sign(self, stored: str) -> Mode:
        """Return the variant of the mode with the dtype `stored`, signed or unsigned."""
        return dataclasses.replace(self, stored=stored, decoded=stored)

    def row_bytes(self, n_columns: int) -> int:
        """Return the length of one row in bytes; rows of packed pixels are padded to a byte."""
        return (n_columns * self.bits + 7) // 8

    def is_native(self, byteorder: ByteOrder) -> bool:
        """Return whether the bytes in the file are the decoded values on this machine."""
        stored = np.dtype(self.stored).newbyteorder(byteorder)
        return not self.is_packed and stored == np.dtype(self.decoded)

    def decode(self, raw: npt.NDArray[np.uint8], byteorder: ByteOrder, n_columns: int) -> Array:
        """Return pixels ``(n_rows, n_columns, *samples)``, in the byte order of the file."""
        stored = raw.view(np.dtype(self.stored).newbyteorder(byteorder))
        return stored.reshape(-1, n_columns, *self.samples)

    def cast(self, pixels: Array) -> Array:
        """Return pixels as values of this mode, of the native dtype `decoded`.

        Floats are rounded to the nearest integer where the mode stores integers. Raises MrcError
        if a value is outside of `value_range`.
        """
        decoded = np.dtype(self.decoded)
        if np.can_cast(pixels.dtype, decoded) and self.value_range == _range(decoded):
            return pixels.astype(decoded, copy=False)
        is_complex = pixels.dtype.kind == "c"
        is_rounded = np.dtype(self.stored).kind in "iu"
        components = np.stack([pixels.real, pixels.imag]) if is_complex else pixels
        if is_rounded and components.dtype.kind == "f":
            # float32 would round the largest integers out of the range
            components = np.rint(components.astype(np.float64))
        least, most = self.value_range
        outside = ~((components >= least) & (components <= most))
        if not is_rounded:
            # a float can be infinite or NaN
            outside &= np.isfinite(components)
        if outside.any():
            raise MrcError(
                f"the data have values that mode {self.number} ({self.decoded_name}) can't hold, "
                f"such as {components[outside][0]}; accepted: {least} to {most}. Scale or clip "
                "them, or choose another mode=."
            )
        if not is_rounded:
            return pixels.astype(decoded)
        values: Array = components[0] + 1j * components[1] if is_complex else components
        return values.astype(decoded)

    def encode(self, values: Array, byteorder: ByteOrder) -> npt.NDArray[np.uint8]:
        """Return the bytes of values from `cast`, of shape ``(..., n_rows, n_bytes)``.

        The result is C-contiguous, and a view of `values` if possible.
        """
        *outer, n_columns = values.shape[: values.ndim - len(self.samples)]
        stored = np.dtype(self.stored).newbyteorder(byteorder)
        raw = np.ascontiguousarray(values, dtype=stored).view(np.uint8)
        return raw.reshape(*outer, self.row_bytes(n_columns))


class ComplexIntegers(Mode):
    """Pairs of integers, the real and the imaginary part, for which NumPy has no dtype."""

    @property
    def value_range(self) -> tuple[float, float]:
        return _range(np.dtype(self.stored))

    def decode(self, raw: npt.NDArray[np.uint8], byteorder: ByteOrder, n_columns: int) -> Array:
        pairs = raw.view(np.dtype(self.stored).newbyteorder(byteorder))
        return pairs.astype(np.float32).view(self.decoded).reshape(-1, n_columns)

    def encode(self, values: Array, byteorder: ByteOrder) -> npt.NDArray[np.uint8]:
        pairs = np.ascontiguousarray(values).view(np.float32)
        return pairs.astype(np.dtype(self.stored).newbyteorder(byteorder)).view(np.uint8)


class Packed(Mode):
    """Pixels that share bytes: the first in the lowest bits, and each row begins at a byte."""

    @property
    def value_range(self) -> tuple[float, float]:
        return 0, 2**self.bits - 1

    def decode(self, raw: npt.NDArray[np.uint8], byteorder: ByteOrder, n_columns: int) -> Array:
        rows = raw.reshape(-1, self.row_bytes(n_columns))
        pixels = np.zeros((len(rows), n_columns), self.decoded)
        for columns, byte, shift in self._overlaps():
            target = pixels[:, columns]
            bits = rows[:, byte][:, : target.shape[1]].astype(self.decoded, copy=False)
            target |= bits >> shift if shift >= 0 else bits << -shift
        pixels &= 2**self.bits - 1
        return pixels

    def encode(self, values: Array, byteorder: ByteOrder) -> npt.NDArray[np.uint8]:
        *outer, n_columns = values.shape
        raw = np.zeros((*outer, self.row_bytes(n_columns)), np.uint8)
        for columns, byte, shift in self._overlaps():
            bits = values[..., columns]
            bits = bits << shift if shift >= 0 else bits >> -shift
            raw[..., byte][..., : bits.shape[-1]] |= bits.astype(np.uint8)
        return raw

    def _overlaps(self) -> Iterator[tuple[slice, slice, int]]:
        """Yield columns, the bytes with bits of them, and in these the first bit of the pixel."""
        n_bits = math.lcm(self.bits, 8)
        for start in range(0, n_bits, self.bits):
            columns = slice(start // self.bits, None, n_bits // self.bits)
            for byte in range(start // 8, (start + self.bits - 1) // 8 + 1):
                yield columns, slice(byte, None, n_bits // 8), start - 8 * byte


MODES: dict[int, Mode] = {
    mode.number: mode
    for mode in (
        Mode(0, 8, "i1", "i1", sign_varies=True),
        Mode(1, 16, "i2", "i2"),
        Mode(2, 32, "f4", "f4"),
        ComplexIntegers(3, 32, "i2", "c8"),
        Mode(4, 64, "c8", "c8"),
        Mode(5, 8, "u1", "u1", is_standard=False, successor=0),
        Mode(6, 16, "u2", "u2"),
        Mode(7, 32, "i4", "i4", is_standard=False),
        Mode(8, 32, "u4", "u4", is_standard=False),
        Mode(12, 16, "f2", "f2"),
        Mode(16, 24, "u1", "u1", samples=(3,), is_standard=False),
        Packed(101, 4, "u1", "u1"),
    )
}

#: The numbers of the modes that MRC2014 defines.
STANDARD = frozenset(number for number, mode in MODES.items() if mode.is_standard)

# the mode that stores a dtype without loss
_LOSSLESS = {
    "bool": 0, "int8": 0, "int16": 1, "float32": 2, "complex64": 4, "uint8": 6, "uint16": 6,
    "int32": 7, "uint32": 8, "float16": 12,
}  # fmt: skip

#: The numbers that mrcz attributes to EMAN2. EMAN2 itself writes MRC files with the table above.
EMAN2_MODES: dict[int, Mode] = {
    number: Mode(number, 8 * np.dtype(code).itemsize, code, code)
    for number, code in enumerate(("i1", "u1", "i2", "u2", "i4", "u4", "f4"), start=1)
}


def mode_for(dtype: npt.DTypeLike, number: int | None = None, *, is_rgb: bool = False) -> Mode:
    """Return the requested mode, by default the one that stores `dtype` without loss.

    Raises MrcError if no mode stores the dtype without loss, or the requested mode can't store it.
    """
    given = np.dtype(dtype)
    lossless = 16 if is_rgb else _LOSSLESS.get(given.name)
    chosen = lossless if number is None else number
    if chosen is None:
        hint = "mode=4" if given.kind == "c" else "mode=2 (float32) or another mode"
        raise MrcError(
            f"no MODE of MRC holds {given} without loss; choose {hint}, or cast the data with "
            ".astype()"
        )
    if chosen not in MODES or MODES[chosen].successor is not None:
        known = ", ".join(str(n) for n, mode in MODES.items() if mode.successor is None)
        raise MrcError(f"mode is {chosen!r}; accepted: {known}")
    mode = MODES[chosen]
    numeric = given.kind in ("biufc" if mode.decoded == "c8" else "biuf")
    if is_rgb != bool(mode.samples) or not numeric or (is_rgb and given.name != "uint8"):
        raise MrcError(
            f"mode {chosen} ({mode.decoded_name}) can't hold {given}{' RGB' * is_rgb} data"
        )
    return mode.with_sign("u1") if mode.sign_varies and given.name == "uint8" else mode


def _range(dtype: np.dtype[Any]) -> tuple[float, float]:
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return int(info.min), int(info.max)
    most = float(np.finfo(dtype).max)
    return -most, most
