"""A small tomogram of recognisable content, for the demo, the docs and the notebooks."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import numpy.typing as npt

from mrc_xarray.mrc.header import XYZ, Header

__all__ = ["picture", "tomogram", "write_tomogram"]

_LABEL = "Synthetic tomogram: two vesicles and gold beads (mrc_xarray demo)"


def write_tomogram(
    path: str | os.PathLike[str],
    shape: tuple[int, int, int] = (64, 192, 192),
    voxel_size: float = 13.3,
) -> None:
    """Write a synthetic tomogram, with the header that mrcfile gives to a volume.

    Parameters
    ----------
    path : path
        Where to write.
    shape : (int, int, int)
        Sections, rows and columns.
    voxel_size : float, Å

    Raises
    ------
    FileExistsError
        If something is there already.
    """
    data = tomogram(shape)
    nz, ny, nx = shape
    header = dataclasses.replace(
        Header.blank(),
        nx=nx,
        ny=ny,
        nz=nz,
        mode=2,
        mx=nx,
        my=ny,
        mz=nz,
        cella=XYZ(nx * voxel_size, ny * voxel_size, nz * voxel_size),
        dmin=float(data.min()),
        dmax=float(data.max()),
        dmean=float(data.mean(dtype=np.float64)),
        rms=float(data.std(dtype=np.float64)),
        ispg=1,
        nlabl=1,
        label=(_LABEL, *[""] * 9),
    )
    with open(path, "xb") as file:
        file.write(header.encode())
        file.write(data.astype("<f4").tobytes())


def tomogram(shape: tuple[int, int, int]) -> npt.NDArray[np.float32]:
    """Return two vesicles and three gold beads in noise: dark, as cryo-EM shows them.

    Parameters
    ----------
    shape : (int, int, int)
        Sections, rows and columns.

    Returns
    -------
    ndarray of float32, of that shape
        Always the same for the same shape.
    """
    nz, ny, nx = shape
    z, y, x = np.ogrid[:nz, :ny, :nx]
    density = np.random.default_rng(3197).normal(0, 0.15, shape).astype(np.float32)
    unit = ny / 192

    def distance(cz: float, cy: float, cx: float) -> npt.NDArray[np.float64]:
        squared = (z - cz * nz) ** 2 + (y - cy * ny) ** 2 + (x - cx * nx) ** 2
        root: npt.NDArray[np.float64] = np.sqrt(squared)
        return root

    for centre, radius in (((0.5, 0.40, 0.36), 52), ((0.5, 0.70, 0.76), 30)):
        # a membrane has two leaflets
        for leaflet in (radius - 2.5, radius + 2.5):
            shell = (distance(*centre) - leaflet * unit) / (1.4 * unit)
            density -= np.exp(-0.5 * shell**2).astype(np.float32)
    for centre in ((0.3, 0.15, 0.80), (0.6, 0.85, 0.25), (0.5, 0.42, 0.40)):
        bead = distance(*centre) < 5 * unit
        density[bead] = -5
    return density


def picture(image: npt.NDArray[np.floating], width: int = 64) -> str:
    """Draw an image with characters, dark pixels as dense ones.

    Parameters
    ----------
    image : ndarray, shape (n_rows, n_columns)
    width : int
        Characters in a line; a line is two pixels of this width high.
    """
    step = max(1, image.shape[1] // width)
    n_rows, n_columns = (image.shape[0] // (2 * step), image.shape[1] // step)
    cropped = image[: n_rows * 2 * step, : n_columns * step]
    small = cropped.reshape(n_rows, 2 * step, n_columns, step).mean((1, 3))
    dark, light = np.percentile(small, (3, 80))
    ink = "@%#*+=-:. "
    level = np.clip((small - dark) / max(light - dark, 1e-9), 0, 1) * (len(ink) - 1)
    return "\n".join("".join(ink[int(value)] for value in row) for row in level)
