"""Writes in place of data that are read or mapped from the same file."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import by_hand
import dask
import dask.array as da
import mrcfile
import numpy as np
import pytest
import xarray as xr

from mrc_xarray import MrcError, to_mrc

PIXELS = np.arange(8 * 5 * 6, dtype="f4").reshape(8, 5, 6)
DIMS = ("z", "y", "x")
REGION = {"z": slice(0, 8)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "volume.mrc"
    path.write_bytes(by_hand.mrc(PIXELS))
    return path


def opened(path: Path, **options: Any) -> xr.DataArray:
    return xr.open_dataarray(path, engine="mrc", **options)


def without_attributes(data: xr.DataArray) -> xr.DataArray:
    return data.drop_attrs()


def linked(path: Path) -> Path:
    link = path.with_name("link.mrc")
    os.link(path, link)
    return link


def pointed(path: Path) -> Path:
    link = path.with_name("pointer.mrc")
    link.symlink_to(path)
    return link


def mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


class Interface:
    """An array of another package, which NumPy takes without a copy."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self._array = array
        self.__array_interface__ = array.__array_interface__


def read_by_hand(path: str) -> np.ndarray[Any, Any]:
    return np.fromfile(path, "f4", offset=1024).reshape(PIXELS.shape)


READ_FROM_THE_FILE: dict[str, Callable[[Path], Any]] = {
    "lazy": lambda path: opened(path),
    "lazy, selected": lambda path: opened(path)[::-1],
    "lazy, without attributes": lambda path: without_attributes(opened(path)),
    "dask": lambda path: opened(path, chunks={"z": 2}) + 1,
    "dask, without attributes": lambda path: without_attributes(opened(path, chunks={}) * 2),
    "dask, inlined": lambda path: opened(path, chunks={}, inline_array=True) * 2,
    "map": lambda path: opened(path, mmap=True).load(),
    "map, reversed": lambda path: opened(path, mmap=True).load()[::-1],
    "map, as an array": lambda path: opened(path, mmap=True).values[::-1],
    "map by numpy": lambda path: np.memmap(path, "f4", "r", 1024, PIXELS.shape)[::-1],
    "map, as a window": lambda path: np.lib.stride_tricks.sliding_window_view(
        opened(path, mmap=True).values, 1, axis=0
    )[..., 0],
    "map, broadcast": lambda path: xr.DataArray(
        np.broadcast_to(opened(path, mmap=True).values[:1], PIXELS.shape), dims=DIMS
    ),
    "map by mrcfile": lambda path: mrcfile.mmap(path).data,
    "hard link": lambda path: without_attributes(opened(linked(path))),
    "symbolic link": lambda path: opened(pointed(path), chunks={}),
    "by a descriptor": lambda path: opened(os.fdopen(os.open(path, os.O_RDONLY), "rb")),
    "map by the standard library": lambda path: np.frombuffer(
        mapped(path), "f4", offset=1024
    ).reshape(PIXELS.shape)[::-1],
    "map behind an interface": lambda path: np.asarray(
        Interface(opened(path, mmap=True).values[::-1])
    ),
    "through a cache": lambda path: opened(f"blockcache::file://{path}"),
    "task with another name": lambda path: da.from_delayed(
        dask.delayed(read_by_hand)(str(pointed(path))), PIXELS.shape, "f4"
    ),
    "task with the name": lambda path: da.from_delayed(
        dask.delayed(read_by_hand)(str(path)), PIXELS.shape, "f4"
    ),
    "task with a lazy array in a closure": lambda path: (
        lambda lazy: da.from_delayed(dask.delayed(lambda: lazy.values)(), PIXELS.shape, "f4")
    )(opened(path)),
}


@pytest.mark.filterwarnings("ignore:The specified chunks separate the stored chunks")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("options", [{"region": REGION}, {"append_dim": "z"}], ids=str)
@pytest.mark.parametrize("case", READ_FROM_THE_FILE)
def test_data_from_the_same_file_are_refused_before_the_first_byte(
    path: Path, case: str, options: dict[str, Any]
) -> None:
    data = READ_FROM_THE_FILE[case](path)
    before = path.read_bytes()
    with pytest.raises(MrcError, match=r"volume\.mrc: the data would be read from this file"):
        to_mrc(data, path, **options)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "data",
    [
        lambda path, other: opened(path).load(),
        lambda path, other: opened(path, mmap=True).load().copy(deep=True),
        lambda path, other: opened(path, chunks={}).compute(),
        lambda path, other: opened(other),
        lambda path, other: opened(other, chunks={}) + 0,
        lambda path, other: opened(other, mmap=True).load(),
        lambda path, other: np.memmap(other, "f4", "r", 1024, PIXELS.shape),
        lambda path, other: da.from_array(PIXELS, chunks=3),
        # dask copies arrays
        lambda path, other: da.from_array(opened(path, mmap=True).values, chunks=4),
    ],
)
def test_other_data_are_written(path: Path, data: Any) -> None:
    other = path.with_name("other") / path.name
    other.parent.mkdir()
    other.write_bytes(path.read_bytes())
    to_mrc(data(path, other), path, region=REGION)
    assert path.read_bytes()[1024:] == PIXELS.tobytes()


def test_new_file_may_replace_the_one_that_is_mapped(path: Path) -> None:
    data = opened(path, mmap=True).load()[::-1].values
    to_mrc(data, path, overwrite=True)
    assert path.read_bytes()[1024:] == PIXELS[::-1].tobytes()
