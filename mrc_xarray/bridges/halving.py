"""What becomes of a block of pixels in the next resolution: its mean or its mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["METHODS"]

Array = npt.NDArray[Any]


def mean(blocks: Array, axis: tuple[int, ...] | None = None) -> Array:
    """Return the mean along axes, without NaN, in the dtype of the pixels.

    Means of integers are rounded to the nearest one, and halves up.
    """
    parts, dtype = _parts(blocks, axis), blocks.dtype
    if dtype.kind in "iub":
        wide = np.uint64 if dtype.kind == "u" else np.int64
        n = wide(len(parts))
        return np.asarray((_sum(parts, wide) + n // wide(2)) // n, dtype)
    numbers: Any = len(parts)
    with np.errstate(invalid="ignore"):
        sums = _sum(parts, np.result_type(dtype, np.float32))
        if np.isnan(sums).any():
            # a block without numbers is 0 / 0, which is NaN
            numbers = _sum([~np.isnan(part) for part in parts], np.int8)
            zero = dtype.type(0)
            sums = _sum([np.where(np.isnan(part), zero, part) for part in parts], sums.dtype)
        return np.asarray((sums / numbers).astype(dtype))


def mode(blocks: Array, axis: tuple[int, ...] | None = None) -> Array:
    """Return the most frequent value along axes, and the least one of several."""
    values = np.sort(np.stack(_parts(blocks, axis)), axis=0)
    found: Array = values[0]
    most: Any = 0
    for value in values:
        n = np.count_nonzero(values == value, axis=0)
        found, most = np.where(n > most, value, found), np.maximum(n, most)
    return found


def _parts(blocks: Array, axis: tuple[int, ...] | None) -> list[Array]:
    """Return the first pixel of all blocks, the second, and so on, which is faster than `sum`."""
    axes = tuple(range(blocks.ndim)) if axis is None else axis
    moved = np.moveaxis(blocks, axes, range(len(axes)))
    return [moved[(*index, ...)] for index in np.ndindex(moved.shape[: len(axes)])]


def _sum(parts: list[Array], dtype: Any) -> Array:
    total: Array = parts[0].astype(dtype)
    for part in parts[1:]:
        total += part
    return total


#: The reductions, by the name of the method.
METHODS: dict[str, Callable[..., Array]] = {"mean": mean, "mode": mode}
