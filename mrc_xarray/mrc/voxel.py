"""The voxel size along an axis, CELLA divided by MX, MY or MZ, and why it is unknown.

A voxel size that the header does not give is left out, never invented. See
``docs/reference/format.md#voxel-size``.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import replace

import numpy as np

from mrc_xarray.errors import Problem
from mrc_xarray.mrc.header import PLACES, Header

__all__ = [
    "AXES", "axis_names", "intervals", "joined", "problems_of_cell", "shortest", "sizes",
    "voxel_size",
]  # fmt: skip

AXES = "xyz"
# a twentieth of the wavelength of electrons of 300 kV, and a millimetre: no instrument that writes
# MRC samples finer or coarser
_FINEST, _COARSEST = 1e-3, 1e7  # Å


def axis_names(header: Header) -> tuple[str, str, str]:
    """Return the axes of sections, rows and columns: z, y, x if MAPC, MAPR, MAPS are damaged."""
    numbers = (header.mapc, header.mapr, header.maps)
    if sorted(numbers) == [1, 2, 3]:
        columns, rows, sections = (AXES[number - 1] for number in numbers)
        return sections, rows, columns
    return "z", "y", "x"


def sizes(header: Header) -> dict[str, int]:
    """Return the number of voxels along each axis."""
    numbers = (header.nz, header.ny, header.n_columns)
    return dict(zip(axis_names(header), numbers, strict=True))


def voxel_size(header: Header, axis: str) -> float | None:
    """Return the voxel size in Å, or None if it is unset or damaged.

    It is the shortest decimal number whose product with the number of intervals is CELLA.
    """
    edge, n = header.cella[AXES.index(axis)], intervals(header, axis)
    # Direct Electron's −10 Å are a placeholder
    if edge == 0 or header.is_direct_electron or _damage(header, axis) is not None:
        return None
    return shortest(edge, n)


def shortest(value: float, scale: int = 1, offset: float = 0.0) -> float:
    """Return the shortest decimal number x, for which scale · x + offset is a float32 `value`."""
    exact = (value - offset) / scale
    rounded = (float(f"{exact:.{digits}e}") for digits in range(16))
    return next((x for x in rounded if np.float32(x * scale + offset) == value), exact)


def problems_of_cell(header: Header, axes: Collection[str]) -> list[Problem]:
    """Return why the voxel size along `axes` is unknown: one problem for each kind of damage."""
    alike: dict[tuple[str, str], dict[str, Problem]] = {}
    for axis in AXES:
        if axis in axes and (problem := _damage(header, axis)) is not None:
            alike.setdefault((problem.code, problem.accepted), {})[axis] = problem
    action = "The voxel size is unknown, and there is no coordinate along {}."
    return [
        joined(problems.values(), action.format(" and ".join(problems)))
        for problems in alike.values()
    ]


def joined(problems: Iterable[Problem], action: str) -> Problem:
    """Return one problem for problems of the same kind in several fields of the header."""
    alike = list(problems)
    start = min(p.offset or 0 for p in alike)
    return replace(
        alike[0],
        field=", ".join(p.field for p in alike),
        found=", ".join(p.found for p in alike),
        action=action,
        offset=start,
        nbytes=max((p.offset or 0) + p.nbytes for p in alike) - start,
    )


def intervals(header: Header, axis: str) -> int:
    """Return the number of intervals of the cell along an axis."""
    n: int = header[f"m{axis}"]
    if header.mrcz_version is not None and (n <= 0 or header.mx <= 0):
        # mrcz leaves MX and MY at 0, and stores the number of sections per frame in MZ
        return sizes(header)[axis]
    return n


def _damage(header: Header, axis: str) -> Problem | None:
    """Return what is wrong with the cell along an axis, if it is set."""
    edge, n = header.cella[AXES.index(axis)], intervals(header, axis)
    code, found = "cell", f"{edge:g}"
    if edge == 0:
        return None
    if not 0 < edge < math.inf:
        code = "negative-cell" if edge < 0 else "cell"
        accepted = "a finite length in Å, 0 if unknown"
    elif n <= 0:
        code = "negative-field" if n < 0 else "cell"
        return header.problem(code, f"M{axis.upper()}", "1 or more, as CELLA is set", "")
    elif not _FINEST <= edge / n <= _COARSEST:
        found = f"{edge:g} for {n} voxels"
        accepted = f"voxels of {_FINEST:g} to {_COARSEST:g} Å, 0 if unknown"
    else:
        return None
    offset = PLACES["CELLA"][0] + 4 * AXES.index(axis)
    return Problem(code, f"CELLA.{axis}", found, accepted, "", offset=offset, nbytes=4)
