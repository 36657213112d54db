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
    number of other values: infinities and NaN, which have no mean. Complex values have no order,
    so they have a mean and a standard deviation, but no minimum and no maximum.
    """

    n: int = 0
    least: float = math.inf
    most: float = -math.inf
    mean: complex = 0.0
    squares: float = 0.0
    n_not_finite: int = 0

    @property
    def is_ordered(self) -> bool:
        """Whether the values have a minimum and a maximum."""
        return self.least <= self.most

    @classmethod
    def of(cls, values: npt.NDArray[Any]) -> Self:
        """Measure real or complex values, in float64 or complex128."""
        flat = values.reshape(-1)
        scratch = np.empty(min(_STEP, flat.size), np.result_type(values.dtype, np.float64))
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
    def _of_step(cls, values: npt.NDArray[Any], scratch: npt.NDArray[Any]) -> Self:
        least, most, is_finite = _range(values)
        if not is_finite:
            finite = values[np.isfinite(values)]
            measured = cls._of_step(finite, scratch) if finite.size else cls()
            return replace(measured, n_not_finite=values.size - finite.size)
        deviations = scratch[: values.size]
        deviations[:] = values
        mean = deviations.mean().item()
        deviations -= mean
        # of the real and the imaginary parts
        parts = deviations.view(np.float64)
        squares = float(np.einsum("i,i->", parts, parts))
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
            self.squares + other.squares + abs(apart) ** 2 * (self.n * other.n / n),
            n_not_finite,
        )

    def fields(self) -> dict[str, float]:
        """Return the header fields, undetermined if there is no finite value.

        Of complex values, only RMS is determined; see ``docs/reference/format.md#statistics``.
        """
        if not self.n:
            return dict(UNDETERMINED)
        rms = {"rms": math.sqrt(self.squares / self.n)}
        if not self.is_ordered:
            return UNDETERMINED | rms
        return {"dmin": self.least, "dmax": self.most, "dmean": self.mean.real, **rms}


def _range(values: npt.NDArray[Any]) -> tuple[float, float, bool]:
    """Return minimum and maximum, and whether all values are finite."""
    if values.dtype.kind == "c":
        return math.inf, -math.inf, bool(np.isfinite(values).all())
    least, most = float(values.min()), float(values.max())
    return least, most, math.isfinite(least) and math.isfinite(most)
