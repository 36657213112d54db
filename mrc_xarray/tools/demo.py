"""A small synthetic tomogram for the demo, the docs and the notebooks."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from mrc_xarray.mrc.header import XYZ, Header
from mrc_xarray.pixels.statistics import Statistics

__all__ = ["picture", "tomogram", "write_tomogram"]

_LABEL = "Synthetic tomogram: two vesicles and gold beads (mrc_xarray demo)"


def write_tomogram(
    path: str | os.PathLike[str],
    shape: tuple[int, int, int] = (64, 192, 192),
    voxel_size: float = 13.3,
) -> None:
    """Write a synthetic tomogram, with the header that mrcfile writes for a volume.

    Parameters
    ----------
    path : path
    shape : (int, int, int)
        Numbers of sections, rows and columns.
    voxel_size : float, Å

    Raises
    ------
    FileExistsError
        If the path exists.
    """
    data = tomogram(shape)
    fields: dict[str, Any] = dict(Statistics.of(data).fields())
    for axis, n in zip("zyx", shape, strict=True):
        fields |= {f"n{axis}": n, f"m{axis}": n}
    fields |= {"mode": 2, "ispg": 1, "nlabl": 1, "label": (_LABEL, *[""] * 9)}
    fields["cella"] = XYZ(*(n * voxel_size for n in reversed(shape)))
    header = dataclasses.replace(Header.blank(), **fields)
    with open(path, "xb") as file:
        file.write(header.encode())
        file.write(data.astype("<f4").tobytes())


def tomogram(shape: tuple[int, int, int]) -> npt.NDArray[np.float32]:
    """Return two vesicles and three gold beads in noise, dark as in cryo-EM.

    The result depends only on the shape, (n_sections, n_rows, n_columns).
    """
    nz, ny, nx = shape
    z, y, x = np.ogrid[:nz, :ny, :nx]
    density = np.random.default_rng(3197).normal(0, 0.15, shape).astype(np.float32)
    unit = ny / 192

    def distance(cz: float, cy: float, cx: float) -> Any:
        return np.sqrt((z - cz * nz) ** 2 + (y - cy * ny) ** 2 + (x - cx * nx) ** 2)

    for centre, radius in (((0.5, 0.40, 0.36), 52), ((0.5, 0.70, 0.76), 30)):
        # a membrane has two leaflets
        for leaflet in (radius - 2.5, radius + 2.5):
            shell = (distance(*centre) - leaflet * unit) / (1.4 * unit)
            density -= np.exp(-0.5 * shell**2).astype(np.float32)
    for centre in ((0.3, 0.15, 0.80), (0.6, 0.85, 0.25), (0.5, 0.42, 0.40)):
        density[distance(*centre) < 5 * unit] = -5
    return density


def picture(image: npt.NDArray[np.floating], width: int = 64) -> str:
    """Draw an image with `width` characters per line, denser ones for darker pixels."""
    # a character is twice as high as wide
    step = max(1, image.shape[1] // width)
    n_rows, n_columns = (image.shape[0] // (2 * step), image.shape[1] // step)
    cropped = image[: n_rows * 2 * step, : n_columns * step]
    small = cropped.reshape(n_rows, 2 * step, n_columns, step).mean((1, 3))
    dark, light = np.percentile(small, (3, 80))
    ink = "@%#*+=-:. "
    level = np.clip((small - dark) / max(light - dark, 1e-9), 0, 1) * (len(ink) - 1)
    return "\n".join("".join(ink[int(value)] for value in row) for row in level)
