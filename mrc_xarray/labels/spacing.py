"""The voxel size of labelled data, from its coordinates."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np
import xarray as xr

from mrc_xarray.recording import SAMPLES
from mrc_xarray.units import angstroms_per, scaled

__all__ = ["RESOLUTION", "SECTION_SPACING", "as_float", "signed_step", "spacing", "voxel_size"]

#: Positions are rounded to this many Å.
RESOLUTION = 1e-6
#: Attribute with the distance between the sections of an image stack, which have no positions.
SECTION_SPACING = "section_spacing_angstrom"


def voxel_size(obj: xr.Dataset | xr.DataArray) -> dict[str, float]:
    """Return the voxel size of labelled data in Å, along dimensions with regular coordinates.

    The distance between the sections of an image stack is that along their axis, usually z.
    """
    voxel = _section_spacing(obj)
    for dim in obj.dims:
        coord = obj.coords.get(dim)
        unit = None if coord is None else angstroms_per(coord.attrs.get("units"))
        if coord is None or unit is None or coord.dtype.kind not in "iuf":
            continue
        step = spacing(coord.values, coord.attrs.get("spacing"), RESOLUTION / unit)
        if step is not None:
            voxel[str(dim)] = scaled(step, unit)
    return voxel


def _section_spacing(obj: xr.Dataset | xr.DataArray) -> dict[str, float]:
    """Return the distance between sections by their axis; empty if it is unknown."""
    arrays = [obj] if isinstance(obj, xr.DataArray) else obj.data_vars.values()
    for array in arrays:
        size = as_float(array.attrs.get(SECTION_SPACING))
        if 0 < size < math.inf and len({*array.dims} - {*SAMPLES}) > 2:
            return {next((a for a in "zyx" if a not in array.dims), "z"): size}
    return {}


def as_float(value: object) -> float:
    """Return a number as a float; NaN if it is not a number, or larger than any float."""
    try:
        return float(value) if isinstance(value, Real) else math.nan
    except OverflowError:
        return math.nan


def spacing(
    positions: np.ndarray[Any, Any], stored: object, resolution: float = RESOLUTION
) -> float | None:
    """Return the step of regular positions; None if they are irregular.

    Positions that are rounded to `resolution` have a multiple of the `stored` step, if that fits.
    A single position has the stored step.
    """
    if not np.isfinite(positions).all():
        return None
    known = as_float(stored)
    is_known = 0 < known < math.inf
    if len(positions) < 2:
        return known if is_known else None
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    # positions that are or were float32 are regular only to its precision
    rounding = 2e-7 * float(np.abs(positions).max())
    tolerance = 1e-3 * abs(step) + min(rounding, 0.1 * abs(step))
    is_regular = np.allclose(np.diff(positions), step, rtol=0, atol=tolerance)
    if not (is_regular and step):
        return None
    size = float(abs(step))
    if is_known:
        n = max(1.0, np.rint(size / known))
        if abs(size - n * known) * (len(positions) - 1) <= 1.01 * resolution:
            return scaled(known, n)
    # without the rounding of the positions
    return float(f"{size:.12g}")


def signed_step(coord: xr.DataArray) -> float | None:
    """Return the step of a regular coordinate, negative if it decreases; None if irregular."""
    # differences of unsigned integers are positive
    values = coord.values.astype(np.float64)
    step = spacing(values, coord.attrs.get("spacing"))
    return -step if step is not None and values.size and values[-1] < values[0] else step
