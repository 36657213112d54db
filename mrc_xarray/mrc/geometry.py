"""Where the voxels are: axis names, voxel size and origin, in Å, with what is wrong with them.

Unknown is None, never invented.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from mrc_xarray.errors import Problem
from mrc_xarray.mrc.header import PLACES, Header, header_problem

__all__ = ["FARTHEST", "axis_names", "is_of", "origin", "voxel_size"]

_AXES = "xyz"
#: 10 cm in Å: no microscope's stage goes further, so that what does is garbage
FARTHEST = 1e9
_INTERVALS = ("MX", "MY", "MZ")


def axis_names(header: Header) -> tuple[str, str, str]:
    """Return which of x, y, z sections, rows and columns run along: the usual one by default."""
    numbers = (header.mapc, header.mapr, header.maps)
    if sorted(numbers) == [1, 2, 3]:
        columns, rows, sections = (_AXES[number - 1] for number in numbers)
        return sections, rows, columns
    return "z", "y", "x"


def voxel_size(
    header: Header, axes: Iterable[str], sizes: dict[str, int]
) -> tuple[dict[str, float], list[Problem]]:
    """Return the voxel size along those of `axes` where the header tells it.

    Parameters
    ----------
    header : Header
    axes : iterable of {"x", "y", "z"}
        The spatial axes that the layout has.
    sizes : dict of str to int
        Voxels along each axis, as NX, NY and NZ promise.

    Returns
    -------
    voxel : dict of str to float, Å
        Axes with an unknown voxel size are left out.
    problems : list of Problem
        What is damaged, as against merely unset.
    """
    is_mrcz = header.mrcz_version is not None
    voxel: dict[str, float] = {}
    problems = []
    for axis in axes:
        index = _AXES.index(axis)
        cell = header.cella[index]
        intervals = (header.mx, header.my, header.mz)[index]
        if is_mrcz and (intervals <= 0 or header.mx <= 0):
            # mrcz leaves MX and MY at 0, and keeps the sections of a frame in MZ
            intervals = sizes[axis]
        if cell == 0 or header.is_direct_electron:
            continue
        code = "negative-cell" if cell < 0 else "cell"
        field, found, accepted = f"CELLA.{axis}", f"{cell:g}", "a finite length in Å, 0 if unknown"
        offset = PLACES["CELLA"][0] + 4 * index
        if math.isfinite(cell) and cell > 0:
            if intervals > 0:
                voxel[axis] = cell / intervals
                continue
            code = "negative-field" if intervals < 0 else "cell"
            field, found, accepted = (
                _INTERVALS[index],
                str(intervals),
                "1 or more, as CELLA is set",
            )
            offset = PLACES[field][0]
        problems.append(
            Problem(
                code,
                field,
                found,
                accepted,
                f"The voxel size along {axis} is unknown, and {axis} has no coordinate.",
                offset=offset,
                nbytes=4,
            )
        )
    return voxel, problems


def is_of(problem: Problem, axes: set[str]) -> bool:
    """Tell whether a problem that `voxel_size` found is one of these axes'."""
    return problem.field[-1].lower() in axes


def origin(
    header: Header,
    names: tuple[str, str, str],
    voxel: dict[str, float],
    sizes: dict[str, int],
    choice: str = "auto",
) -> tuple[dict[str, float], list[Problem]]:
    """Return the position of the first voxel along each axis.

    Parameters
    ----------
    header : Header
    names : tuple of str
        The axes that sections, rows and columns run along.
    voxel : dict of str to float, Å
    sizes : dict of str to int
        Voxels along each axis.
    choice : {"auto", "origin", "nstart", "zero"}
        The user's argument.

    Returns
    -------
    position : dict of str to float, Å
        For each axis in `voxel`.
    problems : list of Problem
    """
    if choice not in ("auto", "origin", "nstart", "zero"):
        raise ValueError(f"origin is {choice!r}; accepted: 'auto', 'origin', 'nstart', 'zero'")
    zero = dict.fromkeys(voxel, 0.0)
    if choice == "zero":
        return zero, []
    problems: list[Problem] = []
    if choice in ("auto", "origin") and not header.is_old_style:
        usable = all(abs(value) < FARTHEST for value in header.origin)
        if not usable and voxel:
            problems.append(
                header_problem(
                    "origin",
                    "ORIGIN",
                    ", ".join(f"{value:g}" for value in header.origin),
                    "finite positions in Å, below 10 cm",
                    "It is taken as unset; origin= chooses another source.",
                )
            )
        if usable and (any(header.origin) or choice == "origin"):
            # IMOD's own sign is the opposite, and is MRC2014's only where flag 4 says so
            sign = -1 if header.has_imod_stamp and not header.imod_flags & 4 else 1
            # 0.0 + x turns the -0.0 of a negated zero into 0.0
            return {a: 0.0 + sign * header.origin[_AXES.index(a)] for a in voxel}, []
    if choice == "origin":
        return zero, problems
    starts = _starts(header, names)
    intervals = dict(zip(_AXES, (header.mx, header.my, header.mz), strict=True))
    position = {}
    for axis, step in voxel.items():
        field, start = starts[axis]
        if abs(start) > 10 * max(sizes[axis], intervals[axis]):
            problems.append(
                header_problem(
                    "start",
                    field,
                    str(start),
                    "a start within ten times the size of the map",
                    f"It is taken as 0 along {axis}; origin= chooses another source.",
                )
            )
            start = 0
        position[axis] = start * step
    return position, problems


def _starts(header: Header, names: tuple[str, str, str]) -> dict[str, tuple[str, int]]:
    """Return for each axis the N*START that is its own: they are in the file's axis order."""
    columns, rows, sections = reversed(names)
    return {
        columns: ("NXSTART", header.nxstart),
        rows: ("NYSTART", header.nystart),
        sections: ("NZSTART", header.nzstart),
    }
