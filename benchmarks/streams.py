"""Compressed maps compared with mrcfile: ``python -m benchmarks.streams [FOLDER]``.

Makes the files in FOLDER (a temporary one by default): a float32 map of 256 MiB, noise in a sphere
and zeros around it as in the EMDB's maps, by gzip and bzip2. Ratios are the time of mrcfile
divided by ours: above 1, ours is faster.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import mrcfile
import numpy as np
import xarray as xr

from benchmarks.timing import interleaved, run_in_folder, show

SHAPE = (256, 512, 512)
LATE = 250


def main(folder: Path) -> None:
    """Make the files, and print all tables."""
    plain = folder / "map.mrc"
    with mrcfile.new(plain, overwrite=True) as mrc:
        mrc.set_data(_map())
    raw = plain.read_bytes()
    packed = folder / "map.mrc.gz"
    packed.write_bytes(gzip.compress(raw, 6))
    compare("gzip, with isal", packed, repeats=3, goal=1.5)
    with _without_isal():
        compare("gzip, standard library", packed, repeats=3, goal=1)
    packed = folder / "map.mrc.bz2"
    packed.write_bytes(bz2.compress(raw))
    compare("bzip2", packed, repeats=1, goal=1)


def compare(title: str, path: Path, repeats: int, goal: float) -> None:
    """Compare loading the complete file, and a section near its end."""
    times = interleaved(
        {"mrc_xarray": lambda: _open(path).load(), "mrcfile.read": lambda: mrcfile.read(path)},
        repeats,
    )
    show(f"load, {title}", times, {"mrcfile.read": goal})
    times = interleaved(
        {
            "mrc_xarray": lambda: _open(path)[LATE].load(),
            "mrcfile.open": lambda: _section_by_mrcfile(path),
        },
        repeats,
    )
    show(f"late section, {title}", times, {})
    opened = _open(path)
    times = interleaved({"mrc_xarray, file open": lambda: opened[LATE].load()}, repeats)
    show("another section", times, {})


def _open(path: Path) -> xr.DataArray:
    return xr.open_dataarray(path, engine="mrc", cache=False)


def _section_by_mrcfile(path: Path) -> np.ndarray[Any, Any]:
    with mrcfile.open(path) as mrc:
        return mrc.data[LATE].copy()


def _map() -> np.ndarray[Any, Any]:
    z, y, x = np.ogrid[tuple(slice(-1, 1, n * 1j) for n in SHAPE)]
    noise = np.random.default_rng(0).standard_normal(SHAPE, np.float32)
    noise[z**2 + y**2 + x**2 > 1] = 0
    return noise


@contextlib.contextmanager
def _without_isal() -> Iterator[None]:
    with mock.patch.dict(sys.modules, {"isal": None}):
        yield


if __name__ == "__main__":
    run_in_folder(main)
