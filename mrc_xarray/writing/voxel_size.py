"""The argument ``voxel_size`` of the functions that write."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from mrc_xarray.labels.spacing import SECTION_SPACING
from mrc_xarray.mrc.geometry import AXES
from mrc_xarray.voxel_size import VoxelSize

__all__ = ["with_steps"]


def with_steps(
    data: xr.DataArray, spatial: Mapping[str, str], voxel_size: VoxelSize | None
) -> tuple[dict[str, float], xr.DataArray]:
    """Return the voxel size by axis in Å, and the data with labels of all other steps.

    A header has fields for lengths along its axes, whose dimensions are `spatial`. Other steps,
    such as those of a scan, are stored as coordinates are, and the distance between the sections
    of an image stack as an attribute.
    """
    if voxel_size is None:
        return {}, data
    axis_of = {dim: axis for axis, dim in spatial.items()}
    roles = {str(dim): axis_of.get(str(dim), str(dim)) for dim in data.dims if dim != "rgb"}
    is_stack = len(roles) > len(spatial)
    others = [axis for axis in AXES if axis not in spatial] if is_stack else []
    steps = voxel_size.along(roles, others=others)
    of_sections = [size for axis in others if (size := voxel_size.of_sections(axis))]
    attrs_of_stack = dict.fromkeys([SECTION_SPACING], *of_sections) if of_sections else {}
    in_header = {a: step.size for a, step in steps.items() if a in spatial and step.is_length}
    coords = {}
    for dim, role in roles.items():
        if role in steps and role not in in_header:
            step = steps[role]
            attrs = {"units": step.units, "spacing": step.size}
            coords[dim] = xr.Variable((dim,), np.arange(data.sizes[dim]) * step.size, attrs)
    return in_header, data.assign_coords(coords).assign_attrs(attrs_of_stack)
