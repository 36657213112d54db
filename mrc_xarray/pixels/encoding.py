"""From pixels to the bytes of a file: checked casts, and packing.

The way back is in `sections`. See FORMAT: modes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mrc_xarray.errors import MrcError
from mrc_xarray.pixels.modes import ByteOrder, Mode

__all__ = ["cast", "pack", "runs"]

Array: TypeAlias = npt.NDArray[Any]


def cast(pixels: Array, mode: Mode) -> Array:
    """Return pixels as values that a mode holds, in the machine's byte order.

    Floats are rounded to the nearest integer where the mode holds integers.

    Parameters
    ----------
    pixels : ndarray
    mode : Mode

    Returns
    -------
    ndarray of ``mode.decoded``, of the same shape
        `pixels` itself where nothing is to do.

    Raises
    ------
    MrcError
        Where a value is outside of what the mode holds.
    """
    wanted = np.dtype(mode.decoded)
    if mode.number in (3, 101):
        # they hold less than the dtype that they are decoded to
        return _within(pixels, mode, np.dtype("i2") if mode.number == 3 else wanted)
    if pixels.dtype.newbyteorder("=") == wanted:
        return pixels.astype(wanted, copy=False)
    if np.can_cast(pixels.dtype, wanted):
        return pixels.astype(wanted)
    return _within(pixels, mode, wanted)


def pack(values: Array, mode: Mode, byteorder: ByteOrder) -> npt.NDArray[np.uint8]:
    """Return the bytes that values are stored as.

    Parameters
    ----------
    values : ndarray, shape (..., n_rows, n_columns, *samples)
        As `cast` returns them.
    mode : Mode
    byteorder : {"<", ">"}

    Returns
    -------
    ndarray of uint8, shape (..., n_rows, n_bytes), C-contiguous
        A view of `values` where they are stored as they are.
    """
    n_outer = values.ndim - 1 - len(mode.samples)
    if mode.number == 101:
        if values.shape[-1] % 2:
            values = np.concatenate([values, np.zeros_like(values[..., :1])], axis=-1)
        # the first pixel is in the low nibble
        return np.ascontiguousarray(values[..., ::2] | (values[..., 1::2] << 4))
    if mode.number == 3:
        values = np.ascontiguousarray(values).view(np.float32).astype(np.int16)
    stored = np.dtype(mode.stored).newbyteorder(byteorder)
    contiguous = np.ascontiguousarray(values, dtype=stored)
    shape = (*contiguous.shape[:n_outer], -1) if contiguous.size else contiguous.shape
    return contiguous.view(np.uint8).reshape(shape)


def runs(
    stored: npt.NDArray[np.uint8], shape: Sequence[int], start: Sequence[int]
) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Cut a block into parts that are contiguous in the whole array.

    Parameters
    ----------
    stored : ndarray of uint8, C-contiguous
        The block.
    shape : sequence of int
        Of the whole array, in bytes along the last axis.
    start : sequence of int
        The block's first element in it.

    Yields
    ------
    offset : int
        First byte of the part in the whole array.
    part : ndarray of uint8, one-dimensional
    """
    strides = [prod(shape[axis + 1 :]) for axis in range(len(shape))]
    outer = len(shape) - 1
    while outer and stored.shape[outer] == shape[outer]:
        outer -= 1
    first = sum(at * stride for at, stride in zip(start, strides, strict=True))
    for index in np.ndindex(stored.shape[:outer]):
        offset = sum(at * stride for at, stride in zip(index, strides, strict=False))
        yield first + offset, stored[index].reshape(-1)


def _within(pixels: Array, mode: Mode, held: np.dtype[Any]) -> Array:
    """Cast after a check that every value, or both parts of it, is in the range of `held`."""
    parts = pixels
    if pixels.dtype.kind == "c":
        parts = np.stack([pixels.real, pixels.imag])
    least: float
    most: float
    if held.kind in "iu":
        info = np.iinfo(held)
        least, most = (0, 15) if mode.number == 101 else (int(info.min), int(info.max))
        if parts.dtype.kind == "f":
            # in float32 the largest integers are none, and would be rounded up beyond the range
            parts = np.rint(parts.astype(np.float64))
    else:
        most = float(np.finfo(held).max)
        least = -most
    if parts.dtype.kind == "f" and held.kind in "fc":
        # infinities and NaN are values of their own
        outside = np.isfinite(parts) & (np.abs(parts) > most)
    else:
        outside = ~((parts >= least) & (parts <= most))
    if outside.any():
        bad = parts[outside][0]
        raise MrcError(
            f"the data have values that mode {mode.number} ({mode.decoded_name}) can't hold, such "
            f"as {bad}; accepted: {least} to {most}. Scale or clip them, or choose another mode=."
        )
    if pixels.dtype.kind == "c":
        rounded: Array = (parts[0] + 1j * parts[1]).astype(np.complex64)
        return rounded
    return parts.astype(mode.decoded)
