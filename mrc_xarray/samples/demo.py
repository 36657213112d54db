"""The demo of the command line: a tomogram, opened, reduced on a cluster and drawn as text."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xarray as xr

from mrc_xarray.samples.volume import tomogram

__all__ = ["run"]


def run(path: str | None = None) -> None:
    """Write a tomogram, in a temporary folder by default, and print what is done with it.

    Raises
    ------
    FileExistsError
        If the path is another file.
    """
    from distributed import Client, LocalCluster

    with tempfile.TemporaryDirectory() as folder:
        target = Path(path or Path(folder, "tomogram.mrc"))
        tomogram(target.parent, name=target.name)
        print(f'>>> ds = xr.open_dataset("{target.name}", engine="mrc", chunks={{}})')
        ds = xr.open_dataset(target, engine="mrc", chunks={})
        print(ds)
        # a heartbeat that arrives while the cluster closes is logged as an error
        options = {"dashboard_address": ":0", "silence_logs": logging.CRITICAL}
        with (
            LocalCluster(n_workers=2, threads_per_worker=1, **options) as cluster,
            Client(cluster),
        ):
            print("\n>>> ds.data.mean().compute(), on a cluster of 2 processes")
            print(f"{float(ds['data'].mean().compute()):.6f}")
            print('\n>>> ds.data.sel(z=slice(380, 460)).mean("z").compute()')
            print(_picture(ds["data"].sel(z=slice(380, 460)).mean("z").compute().values))


def _picture(image: npt.NDArray[np.floating], width: int = 64) -> str:
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
