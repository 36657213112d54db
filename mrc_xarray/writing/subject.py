"""The data to be written, and what their labels mean in terms of a file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xarray as xr

from mrc_xarray.errors import MrcError
from mrc_xarray.labels.spacing import spacing
from mrc_xarray.mrc.geometry import AXES, FARTHEST, axis_names, geometry_of
from mrc_xarray.mrc.header import Header
from mrc_xarray.pixels.modes import Mode, mode_for
from mrc_xarray.units import angstroms_per
from mrc_xarray.writing.options import WriteOptions
from mrc_xarray.writing.provenance import Provenance

__all__ = ["Grid", "Roles", "Subject"]

# our names of dimensions that count sections
_COUNTING = {"image", "channel", "volume", "repeat", "scan_y", "scan_x", "point_repeat"}


class Roles(NamedTuple):
    """What each dimension is."""

    kind: str  # "image", "image_stack", "volume" or "volume_stack"
    leading: tuple[str, ...]  # the dimensions that count sections
    axes: tuple[str, str, str]  # of sections, rows and columns
    spatial: dict[str, str]  # the dimension of each of these axes that the layout has
    is_rgb: bool


class Grid(NamedTuple):
    """Voxel size and first position along one axis, in Å."""

    voxel: float | None
    first: float
    is_stored: bool = True  # whether a header has fields for all that the coordinate contains
    note: str = ""  # what was assumed


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The data to be written, and what is known about them."""

    name: str  # of the file, which may determine the layout
    data: xr.DataArray
    options: WriteOptions
    codec: int  # in MODE; 0 for a plain file
    roles: Roles
    grids: dict[str, Grid]
    mode: Mode
    provenance: Provenance
    source: Header | None  # of the file that the data were opened from
    sizes: tuple[int, ...]  # of the dimensions that count sections

    @classmethod
    def of(cls, data: xr.DataArray, name: str, options: WriteOptions, codec: int) -> Subject:
        """Raise MrcError if no MRC file can have such dimensions, coordinates or dtype."""
        roles, provenance = _find_roles(data), Provenance.of(data)
        return cls(
            name=name,
            data=data,
            options=options,
            codec=codec,
            roles=roles,
            grids=_find_grids(data, roles, options.voxel_size, provenance.header),
            mode=mode_for(data.dtype, options.mode, is_rgb=roles.is_rgb),
            provenance=provenance,
            source=provenance.header,
            sizes=data.shape[: len(roles.leading)],
        )

    @property
    def section_numbers(self) -> npt.NDArray[np.integer] | None:
        """The number of each section in the source; None if that is unknown."""
        coord, leading = self.data.coords.get("section"), self.data.dims[: len(self.sizes)]
        if coord is None or set(coord.dims) != set(leading) or coord.dtype.kind not in "iu":
            return None
        numbers: npt.NDArray[np.integer] = coord.transpose(*leading).values.reshape(-1)
        return numbers


def _find_roles(data: xr.DataArray) -> Roles:
    """Return what each dimension is, by its name, or by its place if the name is the user's."""
    dims = [str(dim) for dim in data.dims]
    is_rgb = len(dims) > 2 and dims[-1] == "rgb" and data.sizes["rgb"] == 3
    if is_rgb:
        dims.pop()
    if misplaced := _COUNTING & set(dims[-2:]):
        raise MrcError(
            f"the dimensions are ({', '.join(dims)}), and rows and columns must be the last two: "
            f"data.transpose({', '.join(map(repr, sorted(misplaced)))}, ...) moves the others"
        )
    if len(dims) < 2 or 0 in data.shape:
        shape = ", ".join(f"{dim}: {n}" for dim, n in data.sizes.items())
        raise MrcError(
            f"the data have the shape ({shape}); accepted: two dimensions or more, none empty"
        )
    *leading, rows, columns = dims
    row_axis = rows if rows in AXES else next(a for a in "yxz" if a != columns)
    column_axis = columns if columns in AXES else next(a for a in AXES if a != row_axis)
    section_axis = next(a for a in AXES if a not in (row_axis, column_axis))
    spatial = {row_axis: rows, column_axis: columns}
    kind = _kind(leading, section_axis, data.attrs.get("mrc_layout"), {rows, columns} & set(AXES))
    if kind in ("volume", "volume_stack"):
        spatial[section_axis] = leading[-1]
    return Roles(kind, tuple(leading), (section_axis, row_axis, column_axis), spatial, is_rgb)


def _kind(leading: list[str], section_axis: str, layout: object, named: set[str]) -> str:
    """Return the kind of data; `layout` is that of the source, `named` the names in x, y, z."""
    match leading:
        case []:
            return "image"
        case [dim] if dim == section_axis:
            return "volume"
        case ["image"]:
            return "image_stack"
        case [_] if layout == "volume" or not (named or layout == "image_stack"):
            return "volume"
        case [_, dim] if dim == section_axis:
            return "volume_stack"
        case [_, _] if layout == "volume_stack" and "image" not in leading:
            return "volume_stack"
    return "image_stack"


def _find_grids(
    data: xr.DataArray,
    roles: Roles,
    voxel_size: float | Mapping[str, float] | None,
    header: Header | None,
) -> dict[str, Grid]:
    """Return where the voxels are, for the spatial axes and those that were selected away.

    `voxel_size`, in Å, overrides coordinates. `header` is the one that the data were opened with.
    """
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
            grids[axis] = _grid(data, dim, step, header)
        elif axis in data.coords and data.coords[axis].ndim == 0:
            # what is left of a section that was selected
            grids[axis] = _grid(data, axis, None, header)
    return grids


def _grid(data: xr.DataArray, dim: str, step: float | None, header: Header | None) -> Grid:
    # xarray would make up a coordinate
    if dim not in data.coords:
        return Grid(step, 0.0)
    coord = data.coords[dim]
    if coord.dtype.kind not in "iuf":
        return Grid(step, 0.0, is_stored=False)
    units = coord.attrs.get("units")
    unit = angstroms_per(units) if isinstance(units, str) else 1.0
    if unit is None:
        return Grid(step, 0.0, is_stored=False)
    note = "" if units else f"{dim} has no units, and is taken as ångström"
    first = float(coord.values.flat[0]) * unit
    found = None
    if coord.ndim:
        found = spacing(coord.values, _stored_spacing(coord, dim, header))
        _check_regular(coord, dim, is_known=found is not None or step is not None)
        if found is None and step is None:
            # the position of a single voxel does not say its size
            return Grid(None, 0.0, is_stored=False)
    voxel = step if step is not None or found is None else found * unit
    if not abs(first) < FARTHEST:
        note = f"{dim} begins at {first:g} Å, beyond 10 cm"
        return Grid(voxel, 0.0, is_stored=False, note=note)
    return Grid(voxel, first, found is not None or coord.size == 1, note)


def _check_regular(coord: xr.DataArray, dim: str, *, is_known: bool) -> None:
    """Raise MrcError if positions decrease, or are irregular and their step is not known."""
    values = coord.values
    if len(values) < 2 or (is_known and values[-1] >= values[0]):
        return
    what, hint = "is not regular", f"voxel_size={{{dim!r}: ...}} gives its step in Å"
    if values[-1] < values[0]:
        what, hint = "decreases", f"data.sortby({dim!r}) reverses it"
    raise MrcError(
        f"the coordinate {dim} {what}, which an MRC file has no field for: {hint}, or "
        f"data.drop_vars({dim!r}) leaves it out"
    )


def _stored_spacing(coord: xr.DataArray, dim: str, header: Header | None) -> Any:
    """Return the voxel size that a single position had when it was opened, if it still holds."""
    stored = coord.attrs.get("spacing")
    if coord.size > 1 or header is None or dim not in axis_names(header):
        return stored
    # the position of averaged voxels is between positions of the file
    geometry = geometry_of(header, (dim,))
    unit = angstroms_per(coord.attrs.get("units"))
    if dim not in geometry.voxel or unit is None:
        return stored
    n = (float(coord.values[0]) * unit - geometry.start[dim]) / geometry.voxel[dim]
    return stored if abs(n - round(n)) < 0.01 else None
