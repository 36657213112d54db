"""What the tests of writing share: volumes that act while they are computed, and what is left."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import by_hand
import dask.array as da
import numpy as np
import pytest
import xarray as xr

Array = np.ndarray[Any, Any]

PIXELS = np.random.default_rng(4).integers(-(2**15), 2**15, (24, 32, 48), "i2")
# what a target contains before it is overwritten
OLD_PIXELS = np.arange(4 * 5 * 6, dtype="f4").reshape(4, 5, 6)
OLD = by_hand.mrc(OLD_PIXELS)

# sections are written in place by any task, and blocks of an MRCZ one after the other
kinds = pytest.mark.parametrize("suffix", [".mrc", ".mrcz"])
# chunks smaller than what is offered, so that there is work for every worker
by_two = pytest.mark.filterwarnings("ignore:The specified chunks separate the stored chunks")


def volume(
    pixels: Array = PIXELS, act: Callable[[int], Any] = lambda section: None, chunk: int = 1
) -> xr.DataArray:
    """Return a volume in blocks of sections, each of which calls `act` with its first section."""

    def block(part: Any, block_info: Any = None) -> Any:
        act(block_info[0]["array-location"][0][0])
        return part

    lazy = da.from_array(pixels, chunks=(chunk, -1, -1))
    meta = np.empty((0, 0, 0), pixels.dtype)
    return xr.DataArray(lazy.map_blocks(block, meta=meta), dims=("z", "y", "x"))


def once(act: Callable[[], Any]) -> xr.DataArray:
    """Return a volume that calls `act` when it is half written."""
    return volume(act=lambda section: act() if section == 12 else None)


def fail() -> None:
    raise RuntimeError("beyond repair")


def read(path: Path | str, **options: Any) -> Array:
    pixels: Array = xr.open_dataarray(path, engine="mrc", **options).values
    return pixels


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def modes_of_parts(folder: Path) -> list[int]:
    return [mode_of(path) for path in folder.glob(".*.part")]
