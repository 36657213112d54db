"""Where the voxels are: axis names, voxel size and origin in Å.

A voxel size that the header does not give is left out, never invented. See
``docs/reference/format.md#origin``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mrc_xarray.errors import Problem
from mrc_xarray.mrc.header import PLACES, Header

__all__ = ["AXES", "FARTHEST", "Geometry", "axis_names", "cell_problem", "geometry_of"]

AXES = "xyz"
#: 10 cm in Å: no microscope stage travels farther, so a larger position is garbage.
FARTHEST = 1e9


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """By axis, voxel size and position of the first voxel in Å, for axes with a known size.

    `damage` has the damaged field of an axis; an axis whose voxel size is merely unset is not in
    it. `problems` are those of the origin.
    """

    voxel: Mapping[str, float]
    start: Mapping[str, float]
    damage: Mapping[str, Problem] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


def axis_names(header: Header) -> tuple[str, str, str]:
    """Return the axes of sections, rows and columns: z, y, x if MAPC, MAPR, MAPS are damaged."""
    numbers = (header.mapc, header.mapr, header.maps)
    if sorted(numbers) == [1, 2, 3]:
        columns, rows, sections = (AXES[number - 1] for number in numbers)
        return sections, rows, columns
    return "z", "y", "x"


def geometry_of(header: Header, axes: Iterable[str], choice: str = "auto") -> Geometry:
    """Return where the voxels are along `axes`, if the header gives their voxel size.

    `choice` is the argument ``origin`` of the engine.
    """
    voxel: dict[str, float] = {}
    damage: dict[str, Problem] = {}
    for axis in axes:
        found = _voxel_size(header, axis)
        if isinstance(found, Problem):
            damage[axis] = found
        elif found is not None:
            voxel[axis] = found
    start, problems = _start(header, voxel, choice)
    return Geometry(voxel=voxel, start=start, damage=damage, problems=tuple(problems))


def _sizes(header: Header) -> dict[str, int]:
    """Return the number of voxels along each axis."""
    return dict(zip(axis_names(header), (header.nz, header.ny, header.nx), strict=True))


def _voxel_size(header: Header, axis: str) -> float | Problem | None:
    """Return the voxel size along an axis, the damaged field, or None if it is unset."""
    index = AXES.index(axis)
    cell = header.cella[index]
    if cell == 0 or header.is_direct_electron:
        return None
    if not (math.isfinite(cell) and cell > 0):
        return cell_problem(header, axis)
    intervals: int = (header.mx, header.my, header.mz)[index]
    if header.mrcz_version is not None and (intervals <= 0 or header.mx <= 0):
        # mrcz leaves MX and MY at 0, and stores the number of sections per frame in MZ
        intervals = _sizes(header)[axis]
    if intervals > 0:
        return cell / intervals
    code = "negative-field" if intervals < 0 else "cell"
    accepted = "1 or more, as CELLA is set"
    return header.problem(code, f"M{axis.upper()}", accepted, _without_coordinate(axis))


def cell_problem(header: Header, axis: str) -> Problem:
    """Return the problem of a cell edge that is negative or not finite."""
    edge = header.cella[AXES.index(axis)]
    return Problem(
        "negative-cell" if edge < 0 else "cell",
        f"CELLA.{axis}",
        f"{edge:g}",
        "a finite length in Å, 0 if unknown",
        _without_coordinate(axis),
        offset=PLACES["CELLA"][0] + 4 * AXES.index(axis),
        nbytes=4,
    )


def _without_coordinate(axis: str) -> str:
    return f"The voxel size along {axis} is unknown, and {axis} has no coordinate."


def _start(
    header: Header, voxel: Mapping[str, float], choice: str
) -> tuple[dict[str, float], list[Problem]]:
    """Return the position of the first voxel along the axes in `voxel`, in Å."""
    zero = dict.fromkeys(voxel, 0.0)
    if choice == "zero":
        return zero, []
    problems: list[Problem] = []
    if choice != "nstart" and not header.is_old_style:
        usable = all(abs(value) < FARTHEST for value in header.origin)
        if not usable and voxel:
            accepted = "finite positions in Å, below 10 cm"
            action = "It is taken as unset; origin= chooses another source."
            problems.append(header.problem("origin", "ORIGIN", accepted, action))
        if usable and (any(header.origin) or choice == "origin"):
            # IMOD's sign is the opposite of MRC2014's, unless flag 4 is set
            sign = -1 if header.has_imod_stamp and not header.imod_flags & 4 else 1
            # 0.0 + x turns the -0.0 of a negated zero into 0.0
            return {a: 0.0 + sign * header.origin[AXES.index(a)] for a in voxel}, []
    if choice == "origin":
        return zero, problems
    position, more = _by_nstart(header, voxel)
    return position, problems + more


def _by_nstart(
    header: Header, voxel: Mapping[str, float]
) -> tuple[dict[str, float], list[Problem]]:
    """Return N*START times the voxel size; N*START are in the axis order of the file."""
    fields = dict(zip(axis_names(header), ("NZSTART", "NYSTART", "NXSTART"), strict=True))
    sizes = _sizes(header)
    position, problems = {}, []
    for axis, step in voxel.items():
        start = header[fields[axis]]
        if abs(start) <= 10 * max(sizes[axis], header[f"m{axis}"]):
            position[axis] = start * step
            continue
        position[axis] = 0.0
        accepted = "a start within ten times the size of the map"
        action = f"It is taken as 0 along {axis}; origin= chooses another source."
        problems.append(header.problem("start", fields[axis], accepted, action))
    return position, problems
