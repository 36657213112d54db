"""Which values of pixels are drawn black and white."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

__all__ = ["contrast"]


def contrast(
    images: Iterable[np.ndarray[Any, Any]], percentiles: tuple[float, float]
) -> tuple[float, float] | None:
    """Return percentiles of the finite values of images; None if there are none.

    The limits are the smallest and the largest value if the percentiles are equal: few pixels
    differ from a constant background.
    """
    values = np.concatenate([image[np.isfinite(image)] for image in images]).astype(np.float64)
    if not values.size:
        return None
    low, high = np.percentile(values, percentiles)
    return (values.min(), values.max()) if low == high else (low, high)
