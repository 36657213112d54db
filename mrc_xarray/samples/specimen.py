"""The specimen of the tomogram and of the tilt series: spheres in a slab of ice.

A sphere has an exact projection at any angle, so the images of the tilt series are those of the
tomogram.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["density", "projection"]

Array = npt.NDArray[Any]


class _Sphere(NamedTuple):
    """A sphere; the centre in fractions of the slab, radii in 192nds of its height along y."""

    z: float
    y: float
    x: float
    radius: float
    density: float
    hollow: float = 0  # radius of the part inside that is left out


def _vesicle(z: float, y: float, x: float, radius: float) -> tuple[_Sphere, _Sphere]:
    """Return the two leaflets of a membrane."""
    outer = _Sphere(z, y, x, radius + 3.6, -1, hollow=radius + 1.4)
    return outer, _Sphere(z, y, x, radius - 1.4, -1, hollow=radius - 3.6)


_VESICLES = ((0.5, 0.40, 0.36, 52), (0.5, 0.70, 0.76, 30), (0.45, 0.86, 0.09, 14))
_GOLD_BEADS = ((0.3, 0.15, 0.80), (0.6, 0.85, 0.25), (0.5, 0.42, 0.40))
_RIBOSOMES = (
    (0.30, 0.28, 0.22), (0.62, 0.24, 0.38), (0.45, 0.34, 0.50), (0.70, 0.41, 0.23),
    (0.35, 0.54, 0.29), (0.52, 0.56, 0.45), (0.40, 0.68, 0.70), (0.60, 0.73, 0.82),
    (0.50, 0.30, 0.92), (0.65, 0.08, 0.62), (0.38, 0.45, 0.80), (0.55, 0.93, 0.55),
    (0.47, 0.78, 0.46), (0.33, 0.06, 0.12),
)  # fmt: skip
_SPHERES = (
    *(leaflet for vesicle in _VESICLES for leaflet in _vesicle(*vesicle)),
    *(_Sphere(*centre, radius=6.5, density=-0.7) for centre in _RIBOSOMES),
    *(_Sphere(*centre, radius=5, density=-5) for centre in _GOLD_BEADS),
)


def density(shape: tuple[int, int, int]) -> npt.NDArray[np.float32]:
    """Return the density of voxels, shape (n_sections, n_rows, n_columns), dark as in cryo-EM."""
    result = np.zeros(shape, np.float32)
    for sphere in _SPHERES:
        scaled = _scaled(sphere, shape)
        box = tuple(map(_near, scaled[:3], [scaled.radius] * 3, shape))
        axes = np.ogrid[box]
        square = sum((axis - centre) ** 2 for axis, centre in zip(axes, scaled[:3], strict=True))
        distance = np.sqrt(square)
        # a surface is one voxel wide
        filled, hollow = (
            np.clip(r + 0.5 - distance, 0, 1) for r in (scaled.radius, scaled.hollow)
        )
        result[box] += scaled.density * (filled - hollow if scaled.hollow else filled)
    return result


def projection(shape: tuple[int, int, int], angle: float) -> npt.NDArray[np.float64]:
    """Return the density along the beam, times the length in voxels, shape (n_rows, n_columns).

    The slab is tilted about the y axis through its middle, by an angle in degrees below 90.
    """
    nz, ny, nx = shape
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    total = np.zeros((ny, nx))
    for sphere in _SPHERES:
        z, y, x, radius, value, hollow = _scaled(sphere, shape)
        # across and along the beam, from the middle of the slab
        across = (x - nx / 2) * cosine + (z - nz / 2) * sine
        along = (z - nz / 2) * cosine - (x - nx / 2) * sine
        box = (_near(y, radius, ny), _near(across + nx / 2, radius, nx))
        row, column = np.ogrid[box]
        square = (row - y) ** 2 + (column - nx / 2 - across) ** 2
        # where the beam enters and leaves the slab
        middle, half = -(column - nx / 2) * sine / cosine, nz / 2 / cosine
        ends = (middle - half - along, middle + half - along)
        total[box] += value * (_chord(square, radius, *ends) - _chord(square, hollow, *ends))
    return total


def _scaled(sphere: _Sphere, shape: tuple[int, int, int]) -> _Sphere:
    """Return a sphere in voxels."""
    nz, ny, nx = shape
    unit = ny / 192
    z, y, x, radius, value, hollow = sphere
    return _Sphere(z * nz, y * ny, x * nx, radius * unit, value, hollow * unit)


def _near(centre: float, radius: float, n: int) -> slice:
    """Return the part of `n` voxels that contains a sphere."""
    low, high = math.floor(centre - radius), math.ceil(centre + radius) + 1
    return slice(min(max(low, 0), n), min(max(high, 0), n))


def _chord(square: Array, radius: float, start: Array, stop: Array) -> Array:
    """Return the length of the beam in a sphere, between two positions from its centre."""
    half = np.sqrt(np.clip(radius**2 - square, 0, None))
    length: Array = np.clip(np.minimum(half, stop) - np.maximum(-half, start), 0, None)
    return length
