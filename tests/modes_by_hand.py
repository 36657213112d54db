"""Files of several modes, built by hand, each with the pixels that are in it."""

from __future__ import annotations

from typing import Any

import by_hand
import numpy as np

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
# with an odd number of columns, so that 4-bit rows end within a byte
SHAPE = (6, 5, 9)


def noise(shape: Shape, dtype: str) -> Array:
    n = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.random.default_rng(0).integers(0, 120, n, np.uint8).view(dtype).reshape(shape)


def plain(dtype: str = "f4", shape: Shape = SHAPE, **fields: Any) -> tuple[bytes, Array]:
    data = noise(shape, dtype)
    return by_hand.mrc(data, **fields), data


def complex_integers(shape: Any = SHAPE) -> tuple[bytes, Array]:
    pairs = noise((*shape, 2), "i2")
    return by_hand.mrc(pairs, 3, shape=shape), (pairs[..., 0] + 1j * pairs[..., 1]).astype("c8")


def four_bits(shape: Any = SHAPE) -> tuple[bytes, Array]:
    pixels = noise(shape, "u1") & 15
    return by_hand.mrc(by_hand.pack_4bit(pixels), 101, shape=shape), pixels


def rgb(shape: Any = SHAPE) -> tuple[bytes, Array]:
    pixels = noise((*shape, 3), "u1")
    return by_hand.mrc(pixels, 16, shape=shape), pixels
