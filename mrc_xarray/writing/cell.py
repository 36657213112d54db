"""The cell of a new file: M, CELLA, N*START and ORIGIN, from the coordinates and the source.

Programs place a volume by N*START or by ORIGIN (see ``docs/reference/format.md#origin``):

- A part of the source moves N*START by its offset, and also ORIGIN if that is set or nothing is.
- M is that of the source if this is a part of a larger cell, or is placed by N*START; else M = N.
- CELLA is M times the voxel size.

These rules need not hold for each file: the first cell is taken that the reader opens with the
labels of the data. The last one is that of data without a source.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from mrc_xarray.mrc.geometry import AXES, Geometry, axis_names, geometry_of
from mrc_xarray.mrc.header import XYZ, Header
from mrc_xarray.mrc.voxel import shortest, sizes
from mrc_xarray.writing.subject import Subject

__all__ = ["Cell", "cells", "fits_labels"]

# N*START of sections, rows and columns
_STARTS = ("nzstart", "nystart", "nxstart")
# the largest deviation from the grid of the source, in voxels
_ON_GRID = 1e-3


class Cell(NamedTuple):
    """A cell for the new file, by axis."""

    start: Mapping[str, int]  # N*START
    intervals: Mapping[str, int]  # M
    edges: Mapping[str, float]  # CELLA in Å
    origin: Mapping[str, float]  # ORIGIN in Å, with the sign of MRC2014
    is_of_source: bool = False  # whether the data are a part of the source, in the same cell

    def fields(self, header: Header) -> dict[str, Any]:
        """Return the header fields, for the axes of a header and its sign of ORIGIN."""
        starts = zip(_STARTS, axis_names(header), strict=True)
        sign = header.sign_of_origin
        return {
            **{name: self.start[axis] for name, axis in starts},
            **{f"m{axis}": self.intervals[axis] for axis in AXES},
            "cella": XYZ(*(self.edges[axis] for axis in AXES)),
            # 0.0 + x turns -0.0 into 0.0
            "origin": XYZ(*(0.0 + sign * self.origin[axis] for axis in AXES)),
        }


def cells(subject: Subject, standard: Mapping[str, int]) -> tuple[list[Cell], list[str]]:
    """Return the possible cells, best first, and what of the source's is in none of them.

    `standard` are the intervals, by axis, that are not the number of voxels.
    """
    grids, intervals = subject.grids, subject.axis_sizes | dict(standard)
    of_data = dict.fromkeys(AXES, subject.section_spacing)
    of_data |= {a: grids[a].voxel for a in subject.roles.spatial}
    plain = Cell(
        start=dict.fromkeys(AXES, 0),
        intervals=intervals,
        edges=_edges(subject, intervals, of_data),
        origin={a: (grids[a].first or 0.0) if a in grids else 0.0 for a in AXES},
    )
    if subject.source is None or not all(map(subject.is_of_source, subject.roles.spatial)):
        return [plain], []
    axes = _axes_of(subject, subject.source)
    placed = {a: axes[a] for a in grids}
    steps = {a: axis.step for a, axis in axes.items()}
    starts, origins = _positions(axes, placed)
    found = [
        Cell(
            start=start,
            intervals=m,
            edges=_edges(subject, m, steps),
            origin=origin,
            is_of_source=all(
                axis.is_inside and (m[a] or axis.new_size) == axis.intervals
                for a, axis in placed.items()
            ),
        )
        for start, origin, m in itertools.product(
            starts, origins, _intervals(subject, axes, intervals)
        )
    ]
    lost = []
    if len(starts) == 1 and any(axis.start for axis in placed.values()):
        lost.append("NXSTART, NYSTART, NZSTART, since only ORIGIN can hold the position")
    if subject.codec and any(axis.is_part and axis.is_on_grid for axis in placed.values()):
        shown = ", ".join(str(axis.intervals) for axis in axes.values())
        lost.append(f"MX, MY, MZ ({shown}) and CELLA, as the cell of an MRCZ has its voxels")
    return [*found, plain], lost


def fits_labels(subject: Subject, header: Header) -> bool:
    """Return whether the engine would give a file with this header the coordinates of the data."""
    grids = {a: subject.grids[a] for a in subject.roles.spatial}
    known = {a: (grid.voxel, grid.first) for a, grid in grids.items() if grid.voxel is not None}
    found = geometry_of(header, grids)
    return found.voxel.keys() == known.keys() and all(
        _is_equal(found.voxel[a], voxel, subject.axis_sizes[a])
        and (first is None or abs(found.start[a] - first) <= _ON_GRID * voxel + 2e-7 * abs(first))
        for a, (voxel, first) in known.items()
    )


class _Axis(NamedTuple):
    """One axis of the source, and what the data have of it."""

    size: int  # voxels of the source
    intervals: int  # M of the source
    start: int  # N*START of the source
    origin: float  # ORIGIN of the source in Å, 0 if it is not set
    new_size: int  # voxels of the data
    step: float | None  # voxel size of the data in Å
    is_same_voxel: bool  # whether that is the voxel size of the source
    shift: float  # of the data in the source, in voxels of the source; NaN if it is unknown
    new_start: float  # N*START of the data, if it is a whole number
    new_origin: float  # ORIGIN of the data in Å

    @property
    def is_part(self) -> bool:
        """Whether the source is a part of its cell."""
        return self.intervals != self.size

    @property
    def is_on_grid(self) -> bool:
        """Whether the data have voxels of the source, or of its grid around it."""
        return self.is_same_voxel and _is_whole(self.shift)

    @property
    def is_inside(self) -> bool:
        """Whether the data have voxels of the source, and no others."""
        return self.is_on_grid and 0 <= round(self.shift) <= self.size - self.new_size

    @property
    def needs_cell(self) -> bool:
        """Whether a part of the source needs its cell, and not one of just the voxels."""
        # the edge of a smaller cell may be that of another voxel size
        edge = float(np.float32((self.step or 0.0) * self.new_size))
        is_other = bool(edge) and shortest(edge, self.new_size) != self.step
        return self.is_part or self.start != 0 or is_other


def _axes_of(subject: Subject, header: Header) -> dict[str, _Axis]:
    """Compare the data with their source, placed by N*START if only that has the data in it."""
    found = [
        {a: _axis(subject, header, a, geometry_of(header, AXES, choice)) for a in AXES}
        for choice in ("auto", "nstart")
    ]
    inside = (axes for axes in found if all(axes[a].is_inside for a in subject.grids))
    return next(inside, found[0])


def _axis(subject: Subject, header: Header, a: str, geometry: Geometry) -> _Axis:
    index = axis_names(header).index(a)
    count, size = (header.nz, header.ny, header.nx)[index], sizes(header)[a]
    if header.is_volume_stack and index == 0:
        count = size = header.mz
    m, start, new_size = header[f"m{a}"], header[_STARTS[index]], subject.axis_sizes[a]
    # any voxel size will do
    origin = geometry_of(header, AXES, "origin", dict.fromkeys(AXES, 1.0)).start[a]
    voxel, grid = geometry.voxel.get(a), subject.grids.get(a)
    step, first = voxel, None
    if grid is not None:
        # a section that was selected has the voxel size of its volume
        step = grid.voxel if a in subject.roles.spatial else voxel
        first = None if step is None else grid.first
    elif not subject.has_kind_of_source:
        start, origin, step = 0, 0.0, subject.section_spacing
    elif subject.provenance.attrs["mrc_layout"] == "image_stack":
        step = subject.section_spacing
    shift, new_start = math.nan, math.nan
    if grid is None or (voxel is first is None and size == new_size):
        # nothing says that it was moved
        shift, new_start = 0.0, float(start)
    elif not (voxel is None or step is None or first is None):
        distance = first - geometry.start[a]
        shift, new_start = distance / voxel, (start * voxel + distance) / step
    if header.mrcz_version is not None or m <= 0 or m == count:
        # bytes of two pixels count once; in an MRCZ, M is no number of intervals
        m = 1 if grid is None and header.mrcz_version is not None else size
    is_same = voxel is None or (step is not None and _is_equal(voxel, step, new_size))
    return _Axis(
        size=size,
        intervals=m,
        start=start,
        origin=origin,
        new_size=new_size,
        step=voxel if is_same and voxel is not None else step,
        is_same_voxel=is_same,
        shift=shift,
        new_start=new_start,
        new_origin=first if first is not None else origin * (shift == 0),
    )


def _positions(
    axes: Mapping[str, _Axis], placed: Mapping[str, _Axis]
) -> tuple[list[dict[str, int]], list[dict[str, float]]]:
    """Return the possible N*START and ORIGIN, best first: those of the source, moved."""
    starts = [dict.fromkeys(AXES, 0)]
    origins = [{a: axis.new_origin for a, axis in axes.items()}]
    is_exact = all(_is_whole(axis.new_start) for axis in placed.values())
    has_start = any(axis.start for axis in placed.values())
    if is_exact:
        starts.insert(0, {a: round(axis.new_start) for a, axis in axes.items()})
    if all(abs(axis.shift) <= _ON_GRID for axis in placed.values()):
        origins.insert(0, {a: axis.origin for a, axis in axes.items()})
    elif is_exact and has_start and not any(axis.origin for axis in placed.values()):
        origins.insert(0, dict.fromkeys(AXES, 0.0))
    return starts, origins


def _intervals(
    subject: Subject, axes: Mapping[str, _Axis], plain: Mapping[str, int]
) -> list[Mapping[str, int]]:
    """Return the possible M, best first: those of the source, as far as they still hold."""
    if subject.codec:
        return [plain]
    placed = [axes[a] for a in subject.grids]
    is_in_cell = all(axis.is_on_grid for axis in placed) and any(a.needs_cell for a in placed)
    of_source = {a: axes[a].intervals for a in subject.grids if is_in_cell}
    for a in axes.keys() - subject.grids.keys():
        # sections of a stack
        if subject.has_kind_of_source:
            of_source[a] = axes[a].intervals if axes[a].is_part else subject.n_along[a]
    if subject.roles.kind == "volume_stack":
        # MZ is the number of sections of one volume
        of_source.pop("z", None)
    return [dict(plain) | of_source, plain]


def _edges(
    subject: Subject, intervals: Mapping[str, int], steps: Mapping[str, float | None]
) -> dict[str, float]:
    """Return the edges of the cell in Å, 0 where the voxel size is unknown."""
    # MZ of an MRCZ can be 0, and the cell has all sections; see ``docs/reference/format.md#mrcz``
    n = {a: intervals[a] or subject.n_along[a] for a in AXES}
    return {a: (steps.get(a) or 0.0) * n[a] for a in AXES}


def _is_equal(one: float, other: float, size: int) -> bool:
    """Return whether two voxel sizes are equal; positions can be rounded to 1e-6 Å."""
    return abs(one - other) <= 2e-6 * (one + 1 / max(size - 1, 1))


def _is_whole(n_voxels: float) -> bool:
    """Return whether a distance is a whole number of voxels, that N*START can hold."""
    return abs(n_voxels) < 2**31 and abs(n_voxels - round(n_voxels)) <= _ON_GRID
