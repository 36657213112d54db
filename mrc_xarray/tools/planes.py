"""Which planes of an array are drawn, and their pixels."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from mrc_xarray.recording import SAMPLES
from mrc_xarray.tools.drawn_axis import Axis, in_one_unit
from mrc_xarray.units import angstroms_per

__all__ = ["Plane", "Thickness", "pixels", "planes_of"]

Array: TypeAlias = npt.NDArray[Any]
Thickness: TypeAlias = float | Mapping[Any, float] | None

_ZYX = ("z", "y", "x")


@dataclass(frozen=True, kw_only=True)
class Plane:
    """What is drawn in one plot: a plane across `cut`, whose axes point upwards and to the right.

    `selected` are dimensions of which one index, or the mean of some, is drawn in all plots.
    """

    up: Axis
    right: Axis
    cut: tuple[Axis, ...] = ()
    selected: tuple[Axis, ...] = ()

    @property
    def title(self) -> str:
        """Where the plane is."""
        return ", ".join(axis.title for axis in (*self.selected, *self.cut))

    @property
    def is_pattern(self) -> bool:
        """Whether the axes are those of a camera, and not those of a scan."""
        return not str(self.up.dim).startswith("scan_")


def planes_of(
    data: xr.DataArray, at: Mapping[Any, float] | None, thickness: Thickness
) -> list[Plane]:
    """Return the planes of a volume, a scan or an image.

    Raises
    ------
    ValueError
        If the data have no planes, or do not contain the point.
    """
    groups = _groups(data)
    drawn = [dim for group in groups for dim in group]
    others = [dim for dim in data.dims if dim not in (*drawn, *SAMPLES)]
    is_cut = len(drawn) > 2
    cuts = [*others, *(drawn if is_cut else ())]
    point, slabs = dict(at or {}), _slabs(thickness, drawn if is_cut else others)
    for name, given in (("at", point), ("thickness", slabs)):
        if unknown := [dim for dim in given if dim not in cuts]:
            accepted = ", ".join(map(str, cuts)) or "none, because an image has no slices"
            raise ValueError(f"{name} has the dimension {unknown[0]!r}; accepted: {accepted}")
    found = [Axis.of(data, dim, point.get(dim), slabs.get(dim)) for dim in (*others, *drawn)]
    selected, axes = tuple(found[: len(others)]), in_one_unit(found[len(others) :])
    if len(axes) == 2:
        return [Plane(up=axes[0], right=axes[1], selected=selected)]
    if len(axes) == 3:
        z, y, x = axes
        # the plots below and to the right of the first share its axes
        views: list[Any] = [((z,), y, x), ((y,), z, x), ((x,), y, z)]
    else:
        views = [(tuple(axes[2:]), *axes[:2]), (tuple(axes[:2]), *axes[2:])]
    return [Plane(up=up, right=right, cut=cut, selected=selected) for cut, up, right in views]


def _groups(data: xr.DataArray) -> list[tuple[Hashable, ...]]:
    """Return the dimensions that are drawn, slowest first: one, or those of a scan and its frames.

    Three are the three planes of a volume.
    """
    dims = tuple(dim for dim in data.dims if dim not in SAMPLES)
    if empty := [dim for dim in dims if not data.sizes[dim]]:
        raise ValueError(f"the data have no pixels along {empty[0]}")
    if data.dtype.kind not in "biufc" or len(dims) < 2:
        named = ", ".join(map(str, dims))
        raise ValueError(
            f"the data are {data.dtype} with the dimensions ({named}); accepted: numbers with two "
            "dimensions or more"
        )
    scan = tuple(dim for dim in ("scan_y", "scan_x") if dim in dims)
    frame = tuple(dim for dim in dims if dim not in scan)[-2:]
    if len(scan) == 2 and len(frame) == 2 and scan[-1] in dims[:-2]:
        return [scan, frame]
    if set(_ZYX) <= set(dims):
        return [_ZYX]
    if len(dims) == 3 and all(angstroms_per(_unit(data, dim)) for dim in dims):
        return [dims]
    # of x and z, z points upwards
    return [tuple(sorted(dims[-2:], key=_ZYX.index)) if {*dims[-2:]} <= {*_ZYX} else dims[-2:]]


def _unit(data: xr.DataArray, dim: Hashable) -> str:
    return str(data.coords[dim].attrs.get("units", "")) if dim in data.coords else ""


def _slabs(thickness: Thickness, dims: Sequence[Hashable]) -> dict[Any, float]:
    if isinstance(thickness, Mapping):
        return dict(thickness)
    if thickness is None:
        return {}
    if len(dims) not in (1, 3):
        accepted = ", ".join(map(str, dims)) or "none, because an image has no slices"
        raise ValueError(f"thickness is {thickness!r}; accepted: a mapping, of {accepted}")
    return dict.fromkeys(dims, thickness)


def pixels(data: xr.DataArray, planes: Sequence[Plane]) -> list[Array]:
    """Return the pixels of each plane, rows from the bottom to the top: (rows, columns, *samples).

    A slab is the mean of its sections, which are the only ones that are read; NaN are left out.
    Complex numbers become their amplitudes.
    """
    parts = {str(i): _part(data.variable, plane) for i, plane in enumerate(planes)}
    # one computation, because the planes have chunks in common
    loaded = xr.Dataset(parts).compute().data_vars.values()
    # xarray reads transposed lazy data pixel by pixel, so transpose after loading
    found = [
        part.transpose(plane.up.dim, plane.right.dim, ...).values
        for part, plane in zip(loaded, planes, strict=True)
    ]
    # DigitalMicrograph has 0 for alpha, which would be transparent
    return [image[..., :3] if image.ndim > 2 else image for image in found]


def _part(variable: xr.Variable, plane: Plane) -> xr.Variable:
    axes = (*plane.selected, *plane.cut)
    thick = [axis.dim for axis in axes if axis.is_slab]
    part = variable.isel({a.dim: a.slab if a.dim in thick else a.slab.start for a in axes})
    # of lazy data, this reads a part that is not in memory yet
    real = abs(part) if part.dtype.kind == "c" else part
    # sums of float16, and colours between them, may be infinite
    wide = real.astype(np.float32) if real.dtype == np.float16 else real
    if not thick:
        return wide
    mean: xr.Variable = wide.mean(thick)
    return mean.round().astype(np.uint8) if set(SAMPLES) & set(variable.dims) else mean
