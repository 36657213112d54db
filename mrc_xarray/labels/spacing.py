"""The voxel size of labelled data, from its coordinates."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np
import xarray as xr

from mrc_xarray.units import angstroms_per

__all__ = ["as_float", "spacing", "voxel_size"]


def voxel_size(obj: xr.Dataset | xr.DataArray) -> dict[str, float]:
    """Return the voxel size of labelled data in Å, along dimensions with regular coordinates."""
    voxel = {}
    for dim in obj.dims:
        coord = obj.coords.get(dim)
        unit = None if coord is None else angstroms_per(coord.attrs.get("units"))
        if coord is None or unit is None or coord.dtype.kind not in "iuf":
            continue
        step = spacing(coord.values, coord.attrs.get("spacing"))
        if step is not None:
            voxel[str(dim)] = step * unit
    return voxel


def as_float(value: object) -> float:
    """Return a number as a float; NaN if it is not a number, or larger than any float."""
    try:
        return float(value) if isinstance(value, Real) else math.nan
    except OverflowError:
        return math.nan


def spacing(positions: np.ndarray[Any, Any], stored: object) -> float | None:
    """Return the step of regular positions, or the stored step of one; None if irregular."""
    if not np.isfinite(positions).all():
        return None
    if len(positions) < 2:
        single = as_float(stored)
        return single if 0 < single < math.inf else None
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    # positions that are or were float32 are regular only to its precision
    rounding = 2e-7 * float(np.abs(positions).max())
    tolerance = 1e-3 * abs(step) + min(rounding, 0.1 * abs(step))
    is_regular = np.allclose(np.diff(positions), step, rtol=0, atol=tolerance)
    return float(abs(step)) if is_regular and step else None
