"""Axes of OME-Zarr: their kind, unit, step and first position."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from mrc_xarray.errors import MrcError
from mrc_xarray.labels.dataset import positions_along
from mrc_xarray.labels.spacing import RESOLUTION, spacing
from mrc_xarray.metadata.limits import MOST_POSITIONS
from mrc_xarray.recording import Dimension
from mrc_xarray.units import angstroms_per, known_unit, scaled
from mrc_xarray.writing.subject import find_roles

__all__ = ["Axis", "axes_of"]

# what the specification calls units that we have other names for
_THEIRS = {
    "s": "second", "ms": "millisecond", "us": "microsecond", "ns": "nanosecond",
    "m": "meter", "mm": "millimeter",
}  # fmt: skip
_KINDS = {"time": "time", "t": "time", "channel": "channel", "c": "channel", "rgb": "channel"}
# the order that the specification demands
_ORDER = ("time", "channel", "", "space")


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One dimension of one level."""

    name: str
    kind: str  # "time", "channel", "space", or empty for any other
    size: int
    unit: str = ""
    step: float = 1.0
    first: float = 0.0

    @property
    def is_spatial(self) -> bool:
        """Whether the axis is a direction."""
        return self.kind == "space"

    @property
    def is_halved(self) -> bool:
        """Whether the next level has half of the size."""
        return self.is_spatial and self.size > 1

    def halved(self) -> Axis:
        """Return the axis of the next level, whose first voxel contains the first two."""
        # without the rounding of binary numbers
        first = float(f"{self.first + self.step / 2:.12g}")
        return replace(self, size=self.size // 2, step=2 * self.step, first=first)

    def metadata(self) -> dict[str, str]:
        """Return the entry of the axis in the metadata."""
        # the schema takes an axis without a type for one of space
        found = {"name": self.name, "type": self.kind or self.name, "unit": self.unit}
        return {key: value for key, value in found.items() if value}

    def coordinate(self) -> xr.Variable | None:
        """Return the positions, lengths in ångström; None if they are unknown."""
        is_known = math.isfinite(self.first) and 0 < self.step < math.inf
        if not (is_known and self.unit) or self.size > MOST_POSITIONS:
            return None
        scale = angstroms_per(self.unit)
        dimension = Dimension(
            name=self.name,
            size=self.size,
            start=self.first * (scale or 1.0),
            step=self.step * (scale or 1.0),
            unit="angstrom" if scale else known_unit(self.unit) or self.unit,
        )
        return positions_along(self.name, dimension, "angstrom")


def axes_of(data: xr.DataArray, name: str) -> tuple[Axis, ...]:
    """Return the axes of the data in the order of OME-Zarr; `name` is for messages.

    Raises
    ------
    MrcError
        If OME-Zarr has no such dimensions, or no such coordinate.
    """
    # of a movie or channels of volumes, one volume
    counted = {dim: 0 for dim in data.dims[:-2] if data.size and str(dim) in _KINDS}
    spatial = set(find_roles(data.isel(counted)).spatial.values())
    axes = [_axis(data, str(dim), name, is_spatial=dim in spatial) for dim in data.dims]
    kinds = [axis.kind for axis in axes]
    n_others = kinds.count("channel") + kinds.count("")
    if kinds.count("time") > 1 or n_others > 1:
        raise MrcError(
            f"{name}: the dimensions are ({', '.join(map(str, data.dims))}), and OME-Zarr has at "
            "most three of space, one of time, and one of images or channels. Select or combine "
            "them first, or write a plain Zarr store, which holds them all: a name in .zarr "
            "instead of .ome.zarr, or data.to_zarr"
        )
    return tuple(sorted(axes, key=lambda axis: _ORDER.index(axis.kind)))


def _axis(data: xr.DataArray, dim: str, name: str, *, is_spatial: bool) -> Axis:
    size = data.sizes[dim]
    kind = "space" if is_spatial else _KINDS.get(dim, "")
    coord = data.coords.get(dim)
    if coord is None or coord.dtype.kind not in "iuf":
        return Axis(name=dim, kind=kind, size=size)
    unit = str(coord.attrs.get("units", ""))
    angstroms = angstroms_per(unit)
    resolution = RESOLUTION / (angstroms or 1.0)
    step = spacing(coord.values.astype(np.float64), coord.attrs.get("spacing"), resolution)
    is_rising = size == 1 or coord.values[-1] > coord.values[0]
    if step is None or not is_rising:
        # the coordinate itself is in the group
        if not is_spatial or (size == 1 and step is None):
            return Axis(name=dim, kind=kind, size=size)
        raise MrcError(
            f"{name}: the coordinate {dim} is not regular and increasing, which OME-Zarr can't "
            f"store. data.sortby({dim!r}) puts it in order, and data.drop_vars({dim!r}) leaves it "
            "out"
        )
    first = float(coord.values[0])
    if angstroms is not None:
        step, first, unit = scaled(step, angstroms), scaled(first, angstroms), "angstrom"
    else:
        unit = _THEIRS.get(known_unit(unit) or unit, unit)
    return Axis(name=dim, kind=kind, size=size, unit=unit, step=step, first=first)
