"""Minimum, maximum, mean and standard deviation of pixels, calculated chunk by chunk."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

__all__ = ["UNDETERMINED", "Statistics"]

# values per step; with fewer, threads mostly wait for each other
_STEP = 1024**2


#: Header fields whose order means that the statistics are unknown.
UNDETERMINED: dict[str, Any] = {"dmin": 0.0, "dmax": -1.0, "dmean": -2.0, "rms": -1.0}


@dataclass(frozen=True, slots=True)
class Statistics:
    """The statistics of pixels, which can be joined with the statistics of other pixels.

    They are those of the finite values, for the writer as for the validator. `n` is the number
    of finite values, `squares` the sum of squared deviations from the mean, and `n_not_finite` the
    number of other values: infinities and NaN, which have no mean.
    """

    n: int = 0
    least: float = math.inf
    most: float = -math.inf
    mean: float = 0.0
    squares: float = 0.0
    n_not_finite: int = 0

    @classmethod
    def of(cls, values: npt.NDArray[Any]) -> Self:
        """Measure real values, in float64."""
        flat = values.reshape(-1)
        scratch = np.empty(min(_STEP, flat.size), np.float64)
        result = cls()
        for start in range(0, flat.size, _STEP):
            result = result.joined(cls._of_step(flat[start : start + _STEP], scratch))
        return result

    @classmethod
    def count(cls, values: npt.NDArray[Any]) -> Self:
        """Return only how many values are not finite; they may be complex."""
        if values.dtype.kind not in "fc":
            return cls()
        return cls(n_not_finite=values.size - int(np.count_nonzero(np.isfinite(values))))

    @classmethod
    def _of_step(cls, values: npt.NDArray[Any], scratch: npt.NDArray[np.float64]) -> Self:
        least, most = float(values.min()), float(values.max())
        if not (math.isfinite(least) and math.isfinite(most)):
            finite = values[np.isfinite(values)]
            measured = cls._of_step(finite, scratch) if finite.size else cls()
            return replace(measured, n_not_finite=values.size - finite.size)
        deviations = scratch[: values.size]
        deviations[:] = values
        mean = float(deviations.mean())
        deviations -= mean
        squares = float(np.einsum("i,i->", deviations, deviations))
        return cls(values.size, least, most, mean, squares)

    def joined(self, other: Self) -> Self:
        """Return the statistics of the pixels of both."""
        n, n_not_finite = self.n + other.n, self.n_not_finite + other.n_not_finite
        if not self.n or not other.n:
            return replace(self if self.n else other, n_not_finite=n_not_finite)
        apart = other.mean - self.mean
        return type(self)(
            n,
            min(self.least, other.least),
            max(self.most, other.most),
            self.mean + apart * (other.n / n),
            self.squares + other.squares + apart**2 * (self.n * other.n / n),
            n_not_finite,
        )

    def fields(self) -> dict[str, float]:
        """Return the header fields, undetermined if there is no finite value."""
        if not self.n:
            return dict(UNDETERMINED)
        return {
            "dmin": self.least,
            "dmax": self.most,
            "dmean": self.mean,
            "rms": math.sqrt(self.squares / self.n),
        }
