"""A tomogram of vesicles."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mrc_xarray.samples import files, specimen

__all__ = ["tomogram"]

_LABEL = "Synthetic tomogram: vesicles and gold beads (mrc_xarray samples)"


def tomogram(
    folder: files.Folder = None,
    *,
    name: str = "tomogram.mrc",
    shape: tuple[int, int, int] = (64, 192, 192),
    voxel_size: float = 13.3,
) -> Path:
    """Write a tomogram: vesicles with membranes, ribosomes and gold beads in noisy ice.

    The header is the one that mrcfile writes for a volume, in float32.

    Parameters
    ----------
    folder : path, optional
        It is made if it does not exist. By default a new temporary folder, which is removed when
        Python ends.
    name : str
        Name of the file.
    shape : (int, int, int)
        Numbers of sections, rows and columns.
    voxel_size : float, Å

    Returns
    -------
    pathlib.Path
        Of the file.
    """
    noise = np.random.default_rng(3197).standard_normal(shape, np.float32)
    pixels = specimen.density(shape) + np.float32(0.15) * noise
    content = files.mrc(pixels, mode=2, label=_LABEL, cell=(voxel_size,) * 3, ispg=1)
    return files.write(files.made(folder) / name, content)
