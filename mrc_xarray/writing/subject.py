"""The data to be written, and what their labels mean in terms of a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xarray as xr

from mrc_xarray.errors import MrcError
from mrc_xarray.labels.spacing import SECTION_SPACING, spacing
from mrc_xarray.mrc.geometry import AXES, FARTHEST, axis_names, geometry_of
from mrc_xarray.mrc.header import Header
from mrc_xarray.pixels.modes import Mode
from mrc_xarray.units import angstroms_per
from mrc_xarray.writing.copied_mode import choose_mode
from mrc_xarray.writing.options import WriteOptions
from mrc_xarray.writing.provenance import Provenance
from mrc_xarray.writing.voxel_size import with_steps

__all__ = ["Grid", "Roles", "Subject", "find_roles"]

# our names of dimensions that count sections
_SCAN = {"scan_y", "scan_x"}
_COUNTING = {"image", "channel", "volume", "particle", "repeat", "point_repeat", *_SCAN}


class Roles(NamedTuple):
    """What each dimension is."""

    kind: str  # "image", "image_stack", "volume" or "volume_stack"
    leading: tuple[str, ...]  # the dimensions that count sections
    axes: tuple[str, str, str]  # of sections, rows and columns
    spatial: dict[str, str]  # the dimension of each of these axes that the layout has
    is_rgb: bool

    @property
    def is_list_of_frames(self) -> bool:
        """Whether these are frames of several channels, which mrcz reads as a list of arrays."""
        return self.kind == "image_stack" and self.leading[1:] == ("channel",)


class Grid(NamedTuple):
    """Voxel size and first position along one axis, in Å."""

    voxel: float | None
    first: float | None  # None if there is no coordinate
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
    mode_note: str  # for a warning, if a copy has another mode than its source
    provenance: Provenance
    source: Header | None  # of the file that the data were opened from
    sizes: tuple[int, ...]  # of the dimensions that count sections

    @classmethod
    def of(cls, data: xr.DataArray, name: str, options: WriteOptions, codec: int) -> Subject:
        """Raise MrcError if no MRC file can have such dimensions, coordinates or dtype."""
        roles = find_roles(data)
        steps, labelled = with_steps(data, roles.spatial, options.voxel_size)
        provenance = Provenance.of(labelled)
        mode, note = choose_mode(
            data, options.mode, provenance.header, is_rgb=roles.is_rgb, codec=codec
        )
        return cls(
            name=name,
            data=labelled,
            options=options,
            codec=codec,
            roles=roles,
            grids=_find_grids(labelled, roles, steps, provenance.header),
            mode=mode,
            mode_note=note,
            provenance=provenance,
            source=provenance.header,
            sizes=data.shape[: len(roles.leading)],
        )

    @property
    def n_along(self) -> dict[str, int]:
        """The numbers of sections, rows and columns, by axis."""
        numbers = (int(np.prod(self.sizes)), *self.data.shape[len(self.sizes) :][:2])
        return dict(zip(self.roles.axes, numbers, strict=True))

    @property
    def axis_sizes(self) -> dict[str, int]:
        """The number of voxels along each axis: of one volume, in a stack of volumes."""
        is_grouped = self.roles.kind == "volume_stack"
        return self.n_along | ({self.roles.axes[0]: self.sizes[-1]} if is_grouped else {})

    @property
    def has_kind_of_source(self) -> bool:
        """Whether the source was opened as images, a volume or whatever the data are."""
        layout = self.provenance.attrs.get("mrc_layout")
        return self.roles.kind == ("image_stack" if layout == "scan" else layout)

    @property
    def section_spacing(self) -> float | None:
        """The distance between the sections of an image stack in Å; None if it is unknown."""
        size = self.provenance.attrs.get(SECTION_SPACING)
        is_stack = self.roles.kind == "image_stack"
        return float(size) if is_stack and size is not None else None

    def is_of_source(self, axis: str) -> bool:
        """Return whether an axis can be that of the source: positions of a scan are others."""
        return self.roles.spatial[axis] not in _COUNTING

    @property
    def section_numbers(self) -> npt.NDArray[np.integer] | None:
        """The number of each section in the source; None if that is unknown."""
        coord, leading = self.data.coords.get("section"), self.data.dims[: len(self.sizes)]
        if coord is None or set(coord.dims) != set(leading) or coord.dtype.kind not in "iu":
            return None
        numbers: npt.NDArray[np.integer] = coord.transpose(*leading).values.reshape(-1)
        return numbers


def find_roles(data: xr.DataArray) -> Roles:
    """Return what each dimension is, by its name, or by its place if the name is the user's."""
    dims = [str(dim) for dim in data.dims]
    is_rgb = len(dims) > 2 and dims[-1] == "rgb" and data.sizes["rgb"] == 3
    if is_rgb:
        dims.pop()
    misplaced = [dim for dim in dims if dim in _COUNTING & set(dims[-2:])]
    # an image that a scan has made has a pixel for each position
    is_scan_image = set(dims[-2:]) == _SCAN and set(dims) <= _COUNTING
    if misplaced and not is_scan_image:
        hint = f"data.transpose({', '.join(map(repr, misplaced))}, ...) moves the others"
        if len(set(dims) - _COUNTING) < 2:
            free = next(axis for axis in "yxz" if axis not in dims)
            hint = f"data.rename({misplaced[0]}={free!r}) makes an axis of an image of it"
        raise MrcError(
            f"the dimensions are ({', '.join(dims)}), and rows and columns must be the last two: "
            f"{hint}"
        )
    if len(dims) < 2 or 0 in data.shape:
        shape = ", ".join(f"{dim}: {n}" for dim, n in data.sizes.items())
        raise MrcError(
            f"the data have the shape ({shape}); accepted: two dimensions or more, none empty"
        )
    *leading, rows, columns = dims
    row_axis, column_axis = _axis(rows), _axis(columns)
    row_axis = row_axis or next(a for a in "yxz" if a != column_axis)
    column_axis = column_axis or next(a for a in AXES if a != row_axis)
    section_axis = next(a for a in AXES if a not in (row_axis, column_axis))
    spatial = {row_axis: rows, column_axis: columns}
    named = {*AXES, *_SCAN}
    kind = _kind(leading, section_axis, data.attrs.get("mrc_layout"), {rows, columns} & named)
    if kind in ("volume", "volume_stack"):
        spatial[section_axis] = leading[-1]
    return Roles(kind, tuple(leading), (section_axis, row_axis, column_axis), spatial, is_rgb)


def _axis(dim: str) -> str:
    """Return the axis that a dimension is along by its name; empty for other names."""
    return dim[-1] if dim in {*AXES, "ky", "kx", *_SCAN} else ""


def _kind(leading: list[str], section_axis: str, layout: object, named: set[str]) -> str:
    """Return the kind of data; `layout` is that of the source, `named` the names in x, y, z."""
    match leading:
        case []:
            return "image"
        case [dim] if dim == section_axis:
            return "volume"
        case [dim] if dim in _COUNTING:
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
    given: Mapping[str, float],
    header: Header | None,
) -> dict[str, Grid]:
    """Return where the voxels are, for the spatial axes and those that were selected away.

    Steps that are `given` by axis, in Å, override coordinates. `header` is the one that the data
    were opened with.
    """
    grids = {}
    for axis in AXES:
        dim = roles.spatial.get(axis, axis)
        if axis in roles.spatial:
            grids[axis] = _grid(data, dim, given.get(axis), header)
        elif axis in data.coords and data.coords[axis].ndim == 0:
            # what is left of a section that was selected
            grids[axis] = _grid(data, axis, None, header)
    return grids


def _grid(data: xr.DataArray, dim: str, step: float | None, header: Header | None) -> Grid:
    # xarray would make up a coordinate
    if dim not in data.coords:
        return Grid(step, None)
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
    if not abs(first) < FARTHEST:  # also if it is NaN
        note = f"{dim} begins at {first:g} Å, beyond 10 cm"
        return Grid(voxel, 0.0, is_stored=False, note=note)
    return Grid(voxel, first, found is not None or coord.size == 1, note)


def _check_regular(coord: xr.DataArray, dim: str, *, is_known: bool) -> None:
    """Raise MrcError if positions decrease, or are irregular and their step is not known."""
    if len(coord) < 2:
        return
    if (np.diff(coord.values) < 0).all():
        first, last = coord.values[0], coord.values[-1]
        reverse = f"data[{dim!r}].copy(data=data[{dim!r}].values[::-1])"
        raise MrcError(
            f"the coordinate {dim} decreases from {first:g} to {last:g}, which an MRC file has no "
            f"field for. data.sortby({dim!r}) writes the pixels in the order of their positions. "
            f"data.assign_coords({{{dim!r}: {reverse}}}) writes them in the order that they have, "
            "at increasing positions"
        )
    if not is_known:
        in_order = spacing(np.sort(coord.values), None) is not None
        sort = f"data.sortby({dim!r}) makes it regular, " * in_order
        raise MrcError(
            f"the coordinate {dim} is not regular, which an MRC file has no field for: {sort}"
            f"voxel_size={{{dim!r}: ...}} gives its step in Å, or data.drop_vars({dim!r}) leaves "
            "it out"
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
