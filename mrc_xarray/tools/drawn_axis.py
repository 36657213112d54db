"""The dimensions of data as they are drawn: positions, slabs, and one unit for a figure."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from mrc_xarray.labels.spacing import signed_step
from mrc_xarray.units import angstroms_per

__all__ = ["DOWN", "Axis", "in_one_unit"]

#: Dimensions whose positions increase downwards: of a scan, and of a camera for diffraction.
DOWN = ("scan_y", "ky")

# lengths are drawn in the largest unit of which the figure has so many
_FEWEST = 10
_LENGTHS = {"µm": 1e4, "nm": 10.0, "Å": 1.0}
# as a fraction of the width of the plot
_LONGEST_BAR = 0.3
# positions that were computed in floats are within a slab
_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A dimension as it is drawn: in its unit, or in pixels if its positions are not regular.

    `slab` are the indices that are drawn where a slice cuts the dimension.
    """

    dim: Hashable
    n: int
    slab: slice
    first: float = 0.0
    step: float = 1.0
    unit: str = "pixel"

    @classmethod
    def of(
        cls, data: xr.DataArray, dim: Hashable, at: float | None, thickness: float | None
    ) -> Axis:
        """Return a dimension that is cut `at` a position, the middle by default.

        Raises
        ------
        ValueError
            If the data do not contain the position, or the thickness is no length.
        """
        # data[dim] of a dimension without a coordinate is the index
        coord = data[dim]
        is_number = coord.dtype.kind in "iuf"
        values = coord.values if is_number else np.arange(coord.size)
        step = signed_step(coord) if is_number and dim in data.coords else None
        axis = cls(dim=dim, n=len(values), slab=slice(0))
        if step is not None:
            unit = str(coord.attrs.get("units", ""))
            axis = replace(axis, first=float(values[0]), step=step, unit=unit)
        if at is not None:
            low, high, margin = float(values.min()), float(values.max()), 0.5 * abs(axis.step)
            if not low - margin <= at <= high + margin:
                accepted = f"{low:.6g} to {high:.6g} {axis.symbol}".rstrip()
                raise ValueError(f"at has {dim} = {at!r}; accepted: {accepted}")
        index = len(values) // 2 if at is None else int(np.abs(values - at).argmin())
        if thickness is None:
            return replace(axis, slab=slice(index, index + 1))
        if not 0 < thickness < math.inf:
            raise ValueError(f"thickness has {dim} = {thickness!r}; accepted: a positive number")
        centre = float(values[index]) if at is None else at
        reach = thickness / 2 + _TOLERANCE * abs(axis.step)
        within = np.flatnonzero(np.abs(values - centre) <= reach)
        start, stop = (within[0], within[-1] + 1) if within.size else (index, index + 1)
        return replace(axis, slab=slice(int(start), int(stop)))

    @property
    def length(self) -> float:
        """Length between the outer edges of the first and the last pixel."""
        return abs(self.step) * self.n

    @property
    def ends(self) -> tuple[float, float]:
        """The outer edges of the first and the last pixel."""
        return self.position(-0.5), self.position(self.n - 0.5)

    @property
    def is_slab(self) -> bool:
        """Whether a slice across the dimension is the mean of several."""
        return bool(self.slab.stop - self.slab.start > 1)

    @property
    def faces(self) -> tuple[float, float]:
        """The outer edges of the slab."""
        return self.position(self.slab.start - 0.5), self.position(self.slab.stop - 0.5)

    @property
    def centre(self) -> float:
        """The position in the middle of the slab."""
        return self.position((self.slab.start + self.slab.stop - 1) / 2)

    @property
    def is_down(self) -> bool:
        """Whether positions increase downwards."""
        return self.dim in DOWN

    @property
    def symbol(self) -> str:
        """The unit for people; empty if the coordinate has none."""
        size = angstroms_per(self.unit)
        return next((name for name, length in _LENGTHS.items() if length == size), self.unit)

    @property
    def label(self) -> str:
        """The label of the axis."""
        return f"{self.dim} [{self.symbol}]" if self.symbol else str(self.dim)

    @property
    def title(self) -> str:
        """Where the dimension is cut."""
        cut = f"{self.centre:.5g}"
        if self.is_slab:
            ends = self.position(self.slab.start), self.position(self.slab.stop - 1)
            cut = f"{min(ends):.5g} to {max(ends):.5g}"
        is_count = self.unit == "pixel" and self.dim not in ("z", "y", "x")
        return f"{self.dim} = {cut} {'' if is_count else self.symbol}".rstrip()

    @property
    def bar(self) -> tuple[float, str]:
        """The length of a scale bar in the unit of the axis, a round number, and its text."""
        longest = _LONGEST_BAR * self.length
        if self.unit == "pixel":
            length = _round(max(longest, 1))
            return length, f"{length:g} pixel{'s' if length > 1 else ''}"
        length = _round(longest)
        return length, f"{length:g} {self.symbol}".rstrip()

    def position(self, index: float) -> float:
        """Return the position of an index, which can be between two pixels."""
        return self.first + index * self.step

    def per_unit(self, other: Axis) -> float:
        """Return the drawn length of the unit of this axis, in units of another one."""
        if self.unit == other.unit:
            return 1.0
        # the units can't be compared: draw square pixels
        return abs(other.step / self.step)


def in_one_unit(axes: Iterable[Axis]) -> list[Axis]:
    """Return axes whose lengths have one unit, Å, nm or µm, and reciprocal lengths 1/nm."""
    given = list(axes)
    sizes = {axis.dim: angstroms_per(axis.unit.removeprefix("1/")) for axis in given}
    lengths = [(a.length, sizes[a.dim] or 0) for a in given if not a.unit.startswith("1/")]
    longest = max((length * size for length, size in lengths), default=0.0)
    unit = next((u for u, size in _LENGTHS.items() if longest >= _FEWEST * size), "Å")

    def converted(axis: Axis) -> Axis:
        size = sizes[axis.dim]
        if size is None:
            return axis
        is_reciprocal = axis.unit.startswith("1/")
        scale = _LENGTHS["nm"] / size if is_reciprocal else size / _LENGTHS[unit]
        drawn = "1/nm" if is_reciprocal else unit
        return replace(axis, first=axis.first * scale, step=axis.step * scale, unit=drawn)

    return [converted(axis) for axis in given]


def _round(longest: float) -> float:
    """Return 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(longest) + 1e-9)
    return power * max(digit for digit in (1, 2, 5) if digit * power <= longest * (1 + 1e-9))
