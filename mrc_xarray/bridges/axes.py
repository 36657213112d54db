"""Axes of HyperSpy signals, as dictionaries: from and to dimensions and their coordinates."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from mrc_xarray.errors import MrcError
from mrc_xarray.installation import optional
from mrc_xarray.labels.dataset import positions_along
from mrc_xarray.labels.spacing import signed_step
from mrc_xarray.recording import Dimension
from mrc_xarray.text import printable
from mrc_xarray.units import angstroms_per, factor, known_unit, scaled

__all__ = ["axes_of", "coords_of", "has_patterns"]

# as HyperSpy spells units
_SPELLINGS = {"angstrom": "Å", "um": "µm", "degree": "°"}
# axes of spectra
_SPECTRAL = ("energy", "time", "wavelength")
# names of axes in other formats
_NAMES = {
    "X": "x", "Y": "y", "Z": "z", "width": "x", "height": "y", "depth": "z",
    "Energy": "energy", "Energy loss": "energy", "Energy-loss": "energy", "X-ray energy": "energy",
    "Time": "time", "Wavelength": "wavelength",
}  # fmt: skip
# units of axes that are not calibrated
_UNCALIBRATED = ("", "px", "pixel", "pixels", "<undefined>")


def axes_of(data: xr.DataArray) -> list[dict[str, Any]]:
    """Return the axes of labelled data, in the order of the dimensions.

    Raises MrcError if the data have no dimension, or an empty one.
    """
    if not data.ndim or not data.size:
        shape = ", ".join(f"{dim}: {n}" for dim, n in data.sizes.items())
        raise MrcError(
            f"the data have the shape ({shape}); accepted: one dimension or more, none empty"
        )
    n_signal = 1 if data.dims[-1] in _SPECTRAL else min(2, data.ndim)
    return [_axis(data, dim, navigate=i < data.ndim - n_signal) for i, dim in enumerate(data.dims)]


def has_patterns(axes: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the signal axes are two angles or reciprocal lengths."""
    frame = [axis for axis in axes if not axis["navigate"]]
    return len(frame) == 2 and all(_is_reciprocal(axis.get("units")) for axis in frame)


def _axis(data: xr.DataArray, dim: Hashable, *, navigate: bool) -> dict[str, Any]:
    axis = {"name": str(dim), "size": data.sizes[dim], "navigate": navigate}
    # of a dimension without a coordinate, xarray would make one up
    name = str(dim) if dim in data.coords else "tilt_angle"
    if name not in data.coords:
        return axis
    coord = data.coords[name]
    if coord.dims != (dim,) or coord.dtype.kind not in "iuf":
        return axis
    positions = coord.values.astype(np.float64)
    unit = coord.attrs.get("units")
    units = {} if unit is None else {"units": _spelled(str(unit))}
    step = signed_step(coord)
    if step is not None:
        return axis | {"name": name, "scale": step, "offset": float(positions[0])} | units
    steps = np.diff(positions)
    if np.isfinite(positions).all() and ((steps > 0).all() or (steps < 0).all()):
        return {"name": name, "axis": positions, "navigate": navigate} | units
    # HyperSpy accepts no other order
    return axis


def _spelled(unit: str) -> str:
    inverse = unit.removeprefix("1/")
    prefix = "1/" if inverse != unit else ""
    return prefix + _SPELLINGS.get(inverse, inverse)


def coords_of(axes: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return the dimensions of axes, in the order of the array, and the coordinates."""
    if all("index_in_array" in axis for axis in axes):
        in_order = sorted(axes, key=lambda axis: int(axis["index_in_array"]))
    else:
        in_order = list(axes)
    dims = _dims(in_order)
    coords = {}
    for dim, axis in zip(dims, in_order, strict=True):
        coord = _coordinate(dim, axis)
        if coord is not None:
            coords[dim] = coord
    if "tilt_angle" not in coords or "image" in dims:
        return dims, coords
    # the images are counted, as the engine does it, because the angles may be in any order
    along = tuple("image" if dim == "tilt_angle" else dim for dim in dims)
    angles = coords["tilt_angle"]
    attrs = {key: text for key, text in angles.attrs.items() if key == "units"}
    return along, coords | {"tilt_angle": xr.Variable(("image",), angles.values, attrs)}


def _name(axis: Mapping[str, Any]) -> str:
    """Return the name of an axis as ours; empty if it has none."""
    name = axis.get("name")
    found = name.strip() if isinstance(name, str) else ""
    return printable(_NAMES.get(found, "" if found == "<undefined>" else found))


def _unit(axis: Mapping[str, Any]) -> str | None:
    """Return the unit of an axis in our spelling; None if it is not calibrated."""
    text = axis.get("units")
    unit = text.strip() if isinstance(text, str) else ""
    return None if unit in _UNCALIBRATED else known_unit(unit) or printable(unit)


def _evaluated(axis: Mapping[str, Any]) -> Any:
    """Return the values of an axis that is a function."""
    axes = optional("hyperspy.axes", f"the axis {axis['expression']!r}")
    return axes.create_axis(**axis).axis


def _dims(axes: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the names of the dimensions, all different."""
    frame = [i for i, axis in enumerate(axes) if not axis.get("navigate")]
    others = [i for i, axis in enumerate(axes) if axis.get("navigate")]
    if len(frame) == 2:
        defaults = dict(zip(frame, "yx", strict=True))
        by_place = ["scan_y", "scan_x"] if len(others) == 2 else ["image"]
    else:
        is_energy = len(frame) == 1 and factor(_unit(axes[frame[0]]) or "", "eV") is not None
        defaults = {} if len(frame) != 1 else {frame[0]: "energy" if is_energy else "channel"}
        by_place = ["y", "x"][-len(others) :]
    if len(others) == len(by_place):
        defaults |= dict(zip(others, by_place, strict=True))
    named = {i: _name(axis) or defaults.get(i, f"axis_{i}") for i, axis in enumerate(axes)}
    is_pattern = all(_is_reciprocal(_unit(axes[i])) for i in frame)
    if is_pattern and {named[i] for i in frame} == {"x", "y"}:
        named |= {i: f"k{named[i]}" for i in frame}
    if len(frame) == 2 and (is_pattern or {"x", "y"} <= {named[i] for i in others}):
        named |= {i: f"scan_{named[i]}" for i in others if named[i] in {"x", "y"}}
    listed = list(named.values())
    return tuple(
        name if listed.count(name) == 1 else f"{name}_{listed[: i + 1].count(name)}"
        for i, name in enumerate(listed)
    )


def _is_reciprocal(units: object) -> bool:
    unit = known_unit(str(units)) or ""
    return unit.startswith("1/") or factor(unit, "degree") is not None


def _coordinate(dim: str, axis: Mapping[str, Any]) -> xr.Variable | None:
    """Return the positions of an axis; None if it is not calibrated."""
    unit = _unit(axis)
    if unit is None:
        return None
    if "axis" in axis or "expression" in axis:
        positions = np.asarray(axis["axis"] if "axis" in axis else _evaluated(axis), np.float64)
        return xr.Variable((dim,), positions, {"units": unit, "long_name": dim})
    start, step = float(axis.get("offset") or 0.0), float(axis.get("scale") or 0.0)
    if not step or not math.isfinite(step) or not math.isfinite(start):
        return None
    per_unit = angstroms_per(unit)
    if per_unit is not None:
        # positions are rounded in Å, as those of a file are
        start, step = scaled(start, per_unit), scaled(step, per_unit)
    own = unit if per_unit is None else "angstrom"
    dimension = Dimension(name=dim, size=int(axis["size"]), start=start, step=step, unit=own)
    return positions_along(dim, dimension, unit)
