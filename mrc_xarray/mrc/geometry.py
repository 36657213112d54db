"""Where the voxels are: voxel size, and position of the first voxel, in Å.

See ``docs/reference/format.md#origin``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mrc_xarray.errors import Problem
from mrc_xarray.mrc.header import Header
from mrc_xarray.mrc.voxel import AXES, axis_names, joined, shortest, sizes, voxel_size

__all__ = ["AXES", "FARTHEST", "Geometry", "axis_names", "geometry_of"]

#: 10 cm in Å: no microscope stage travels farther, so a larger position is garbage.
FARTHEST = 1e9
# a smaller position is rounding, or garbage
_SMALLEST = 1e-6
# relative: neighbours in float32
_FLOAT32 = 2.0**-23
_IDENTITY = (1, 0, 0, 0, 1, 0, 0, 0, 1)


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Where the voxels are along axes with a known voxel size.

    Attributes
    ----------
    voxel, start : mapping of str to float, Å
        By axis, voxel size and position of the first voxel.
    problems : tuple of Problem
        What is wrong with the fields that give the position.
    """

    voxel: Mapping[str, float]
    start: Mapping[str, float]
    problems: tuple[Problem, ...] = ()


def geometry_of(
    header: Header,
    axes: Iterable[str],
    choice: str = "auto",
    given: Mapping[str, float] | None = None,
) -> Geometry:
    """Return where the voxels are along `axes`, if their voxel size is known.

    `choice` is the argument ``origin`` of the engine, and `given` are voxel sizes that replace
    those of the header.
    """
    found = {axis: (given or {}).get(axis) or voxel_size(header, axis) for axis in axes}
    voxel = {axis: size for axis, size in found.items() if size is not None}
    start, problems = _start(header, voxel, choice)
    return Geometry(voxel=voxel, start=start, problems=tuple(problems))


def _start(
    header: Header, voxel: Mapping[str, float], choice: str
) -> tuple[dict[str, float], list[Problem]]:
    """Return the first position along the axes in `voxel`, and what is wrong with its source."""
    if choice == "zero" or not voxel:
        return dict.fromkeys(voxel, 0.0), []
    starts = dict(zip(axis_names(header), ("NZSTART", "NYSTART", "NXSTART"), strict=True))
    problems: list[Problem] = []
    if choice != "nstart":
        origin, problems = _origin(header)
        if choice == "origin" or any(origin.values()):
            at = {a: _at_origin(origin[a], header[starts[a]], v) for a, v in voxel.items()}
            return at, problems
    by_start, of_starts = _by_nstart(header, voxel, starts)
    if choice == "auto" and not any(by_start.values()):
        by_start = _translation(header, voxel)
    return by_start, [*problems, *of_starts]


def _origin(header: Header) -> tuple[dict[str, float], list[Problem]]:
    """Return ORIGIN with MRC2014's sign by axis; zeros if it is unset or garbage."""
    zero = dict.fromkeys(AXES, 0.0)
    if header.is_old_style or all(abs(value) < _SMALLEST for value in header.origin):
        return zero, []
    if not all(abs(value) < FARTHEST for value in header.origin):
        accepted = "finite positions in Å, below 10 cm"
        action = "It is taken as unset; origin= chooses another source."
        return zero, [header.problem("origin", "ORIGIN", accepted, action)]
    sign = header.sign_of_origin
    # 0.0 + x turns the -0.0 of a negated zero into 0.0
    return {axis: 0.0 + sign * value for axis, value in zip(AXES, header.origin, strict=True)}, []


def _at_origin(origin: float, start: int, step: float) -> float:
    """Return the position that ORIGIN means, of all that are equal as float32.

    It is a number of voxels, first of all N*START, times the voxel size, if that is equal. Else
    it is the sum of N*START times the voxel size and the shortest decimal number: the part of a
    volume is as far from the grid as the volume is.
    """
    for n_voxels in (start, round(origin / step)):
        if abs(origin - n_voxels * step) <= _FLOAT32 * abs(origin):
            return n_voxels * step
    return start * step + shortest(origin, offset=start * step)


def _by_nstart(
    header: Header, voxel: Mapping[str, float], fields: Mapping[str, str]
) -> tuple[dict[str, float], list[Problem]]:
    """Return the N*START in `fields` times the voxel size; 0 where that is garbage."""
    n_voxels, garbage = sizes(header), {}
    accepted = "a start within ten times the size of the map"
    for axis in voxel:
        if abs(header[fields[axis]]) > 10 * max(n_voxels[axis], header[f"m{axis}"]):
            garbage[axis] = header.problem("start", fields[axis], accepted, "")
    position = {a: 0.0 if a in garbage else header[fields[a]] * v for a, v in voxel.items()}
    if not garbage:
        return position, []
    action = f"It is taken as 0 along {' and '.join(garbage)}; origin= chooses another source."
    return position, [joined(garbage.values(), action)]


def _translation(header: Header, axes: Iterable[str]) -> dict[str, float]:
    """Return the translation of CCP4's skew transformation along `axes`; 0 if it rotates.

    See ``docs/reference/format.md#skew``.
    """
    skew = header.skew or ()
    if skew[:9] != _IDENTITY or not all(abs(value) < FARTHEST for value in skew[9:]):
        return dict.fromkeys(axes, 0.0)
    return {axis: shortest(skew[9 + AXES.index(axis)]) for axis in axes}
