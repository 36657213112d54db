"""Scanned diffraction compared with lazy rosettasciio: ``python -m benchmarks.stem4d [FOLDER]``.

Makes the files in FOLDER (a temporary one by default). Ratios are the time of the other
program divided by ours: above 1, ours is faster.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import rsciio.mrc
import xarray as xr

import mrc_xarray
from benchmarks.timing import interleaved, run_in_folder, show

MiB = 1024**2
SCAN, FRAME = (64, 64), (256, 256)


def main(folder: Path) -> None:
    """Print all tables."""
    reducing(_movie(folder / "scan.mrc"))
    many_frames(folder / "million.mrc")


def reducing(path: Path) -> None:
    """Compare reductions over a scan of 64 × 64 patterns of 256 × 256 uint16."""

    def ours() -> xr.DataArray:
        return xr.open_dataarray(path, engine="mrc", chunks={}, scan_shape=SCAN)

    def theirs() -> Any:
        (read,) = rsciio.mrc.file_reader(str(path), lazy=True, navigation_shape=SCAN[::-1])
        return read["data"]

    disc = slice(100, 156)
    jobs = {
        "mean pattern": (
            lambda: ours().mean(("scan_y", "scan_x")).compute(),
            lambda: theirs().mean((0, 1)).compute(),
            1.5,
        ),
        "sum over the scan": (
            lambda: ours().sum(("scan_y", "scan_x")).compute(),
            lambda: theirs().sum((0, 1)).compute(),
            1,
        ),
        "sum of each pattern": (
            lambda: ours().sum(("y", "x")).compute(),
            lambda: theirs().sum((2, 3)).compute(),
            1,
        ),
        "virtual detector of 56 × 56": (
            lambda: ours().isel(y=disc, x=disc).sum(("y", "x")).compute(),
            lambda: theirs()[:, :, disc, disc].sum((2, 3)).compute(),
            1,
        ),
        "one pattern": (
            lambda: ours().isel(scan_y=20, scan_x=30).compute(),
            lambda: theirs()[20, 30].compute(),
            1,
        ),
    }
    for title, (mine, other, goal) in jobs.items():
        np.testing.assert_allclose(np.asarray(mine()), np.asarray(other()), rtol=1e-6)
        times = interleaved({"mrc_xarray": mine, "rosettasciio, lazy": other}, repeats=7)
        show(title, times, {"rosettasciio, lazy": goal})


def many_frames(path: Path) -> None:
    """Open 1,000,000 frames, and pickle their graph."""
    if not path.exists():
        mrc_xarray.create(path, (1_000_000, 64, 64), "i1", dims=("image", "y", "x"))
    times = interleaved(
        {
            "open (goal 50 ms)": lambda: xr.open_dataset(path, engine="mrc"),
            "open as a scan": lambda: xr.open_dataset(path, engine="mrc", scan_shape=(1000, 1000)),
            "open, chunks={}": lambda: xr.open_dataset(path, engine="mrc", chunks={}),
        },
        repeats=5,
    )
    show("1,000,000 frames of 64 × 64", times, {})
    for options in ({}, {"scan_shape": (1000, 1000)}):
        ds = xr.open_dataset(path, engine="mrc", chunks={}, **options)
        size = len(pickle.dumps(ds["data"].data.dask)) / 1e6
        n = ds["data"].data.npartitions
        print(f"{'':<34} graph of {n} chunks: {size:.3f} MB pickled (goal 1 MB)")


def _movie(path: Path) -> Path:
    if not path.exists():
        random = np.random.default_rng(0)
        frames = random.poisson(50, (64, *FRAME)).astype(np.uint16)
        stack = np.broadcast_to(frames, (SCAN[0], *frames.shape)).reshape(-1, *FRAME)
        data = xr.DataArray(stack, dims=("image", "y", "x"))
        mrc_xarray.to_mrc(data, path)
    return path


if __name__ == "__main__":
    run_in_folder(main)
