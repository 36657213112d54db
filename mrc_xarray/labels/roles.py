"""What the dimensions of labelled data are, and where their voxels are: in the terms of a file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from mrc_xarray.errors import MrcError
from mrc_xarray.labels import provenance
from mrc_xarray.labels.dataset import length_unit, spacing
from mrc_xarray.mrc import geometry

__all__ = ["AXES", "Grid", "Roles", "find_grids", "find_roles"]

AXES = "xyz"
# dimensions of ours that count sections
_COUNTING = {"image", "channel", "volume", "repeat", "scan_y", "scan_x", "point_repeat"}


class Roles(NamedTuple):
    """What each dimension is.

    Attributes
    ----------
    kind : str
        The layout.
    leading : tuple of str
        Dimensions that count sections.
    axes : tuple of {"x", "y", "z"}
        What sections, rows and columns run along.
    spatial : dict of str to str
        Of those axes that the layout has, the dimension.
    is_rgb : bool
    """

    kind: str
    leading: tuple[str, ...]
    axes: tuple[str, str, str]
    spatial: dict[str, str]
    is_rgb: bool


class Grid(NamedTuple):
    """Where the voxels are along one axis, in Å.

    Attributes
    ----------
    voxel : float or None
    first : float
    is_told : bool
        Whether this is all that the coordinate tells.
    note : str
        What was assumed.
    """

    voxel: float | None
    first: float
    is_told: bool = True
    note: str = ""


def find_roles(data: xr.DataArray) -> Roles:
    """Tell what each dimension is, by its name, or by its place where the name is the user's."""
    dims = [str(dim) for dim in data.dims]
    is_rgb = len(dims) > 2 and dims[-1] == "rgb" and data.sizes["rgb"] == 3
    if is_rgb:
        dims.pop()
    if misplaced := _COUNTING & set(dims[-2:]):
        raise MrcError(
            f"the dimensions are ({', '.join(dims)}), and rows and columns come last: "
            f"data.transpose({', '.join(map(repr, sorted(misplaced)))}, ...) puts them there"
        )
    if len(dims) < 2 or 0 in data.shape:
        shape = ", ".join(f"{dim}: {n}" for dim, n in data.sizes.items())
        raise MrcError(
            f"the data have the shape ({shape}); accepted: two dimensions or more, none empty"
        )
    *leading, rows, columns = dims
    named = [dim for dim in (rows, columns) if dim in AXES]
    row_axis = rows if rows in AXES else next(a for a in "yxz" if a not in named)
    column_axis = (
        columns if columns in AXES else next(a for a in "xyz" if a not in (*named, row_axis))
    )
    section_axis = next(a for a in AXES if a not in (row_axis, column_axis))
    spatial = {row_axis: rows, column_axis: columns}
    said = data.attrs.get("mrc_layout")

    kind = "image_stack"
    if not leading:
        kind = "image"
    elif len(leading) == 1:
        if leading[0] == section_axis or (
            leading[0] != "image" and said != "image_stack" and (said == "volume" or not named)
        ):
            kind = "volume"
    elif len(leading) == 2 and (
        leading[1] == section_axis or (said == "volume_stack" and "image" not in leading)
    ):
        kind = "volume_stack"
    if kind in ("volume", "volume_stack"):
        spatial[section_axis] = leading[-1]
    return Roles(kind, tuple(leading), (section_axis, row_axis, column_axis), spatial, is_rgb)


def find_grids(
    data: xr.DataArray, roles: Roles, voxel_size: float | Mapping[str, float] | None
) -> dict[str, Grid]:
    """Return where the voxels are, for the spatial axes and those that were selected away."""
    if isinstance(voxel_size, Mapping):
        given = {str(dim): float(step) for dim, step in voxel_size.items()}
    else:
        given = {} if voxel_size is None else dict.fromkeys(roles.spatial, float(voxel_size))
    unknown = set(given) - set(roles.spatial) - set(roles.spatial.values())
    if unknown:
        raise MrcError(
            f"voxel_size names {', '.join(map(repr, sorted(unknown)))}; accepted: "
            f"{', '.join(map(repr, roles.spatial.values()))}"
        )
    grids = {}
    for axis in AXES:
        dim = roles.spatial.get(axis, axis)
        step = given.get(dim, given.get(axis))
        if step is not None and not (math.isfinite(step) and step > 0):
            raise MrcError(f"voxel_size is {step}; accepted: a length in Å, above 0")
        if axis in roles.spatial:
            grids[axis] = _grid(data, dim, step)
        elif axis in data.coords and data.coords[axis].ndim == 0:
            # what is left of a section that was selected
            grids[axis] = _grid(data, axis, None)
    return grids


def _grid(data: xr.DataArray, dim: str, step: float | None) -> Grid:
    # asked for, xarray would make up a coordinate
    if dim not in data.coords or data.coords[dim].dtype.kind not in "iuf":
        return Grid(step, 0.0, is_told=dim not in data.coords)
    coord = data.coords[dim]
    values = np.atleast_1d(coord.values).astype(np.float64)
    units = coord.attrs.get("units")
    unit = 1.0 if units is None else length_unit(units)
    if unit is None:
        return Grid(step, 0.0, is_told=False)
    note = "" if units else f"{dim} has no units, and is taken as ångström"
    is_told = True
    if coord.ndim:
        found = spacing(coord.values, _stored_spacing(data, dim, coord))
        decreases = len(values) > 1 and values[-1] < values[0]
        hint = f"voxel_size={{{dim!r}: ...}} gives its step in Å, or "
        what = "is not regular" if found is None and len(values) > 1 else ""
        if decreases:
            what, hint = "decreases", f"data.sortby({dim!r}) turns it, or "
        if (what and step is None) or decreases:
            raise MrcError(
                f"the coordinate {dim} {what}, and an MRC file can't say so: {hint}"
                f"data.drop_vars({dim!r}) leaves it out"
            )
        is_told = found is not None or len(values) == 1
        step = found * unit if step is None and found is not None else step
    first = float(values[0]) * unit
    if step is None and coord.ndim:
        # of a single voxel the position alone tells no size
        return Grid(None, 0.0, is_told=False)
    if not abs(first) < geometry.FARTHEST:
        return Grid(step, 0.0, is_told=False, note=f"{dim} begins at {first:g} Å, beyond 10 cm")
    return Grid(step, first, is_told, note)


def _stored_spacing(data: xr.DataArray, dim: str, coord: xr.DataArray) -> Any:
    """Return the voxel size that a single position had when it was opened, if it still holds."""
    stored = coord.attrs.get("spacing")
    found = provenance.header_of(data.attrs)
    if coord.size > 1 or not isinstance(stored, float | int) or found is None:
        return stored
    axes = geometry.axis_names(found)
    if dim not in axes:
        return stored
    # where voxels were averaged, the position lies between those of the file
    sizes = dict(zip(axes, (found.nz, found.ny, found.nx), strict=True))
    voxel, _ = geometry.voxel_size(found, (dim,), sizes)
    first, _ = geometry.origin(found, axes, voxel, sizes)
    unit = length_unit(coord.attrs.get("units"))
    if dim not in voxel or unit is None:
        return stored
    n = (float(coord.values[0]) * unit - first[dim]) / voxel[dim]
    return stored if abs(n - round(n)) < 0.01 else None
