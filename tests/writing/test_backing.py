"""Writes in place of data that are read or mapped from the same file."""

from __future__ import annotations

import functools
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import by_hand
import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from writes import by_two

from mrc_xarray import MrcError, to_mrc

PIXELS = np.arange(8 * 5 * 6, dtype="f4").reshape(8, 5, 6)
DIMS = ("z", "y", "x")
REGION = {"z": slice(0, 8)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "volume.mrc"
    path.write_bytes(by_hand.mrc(PIXELS))
    return path


opened = functools.partial(xr.open_dataarray, engine="mrc")


def linked(path: Path) -> Path:
    link = path.with_name("link.mrc")
    os.link(path, link)
    return link


def pointed(path: Path) -> Path:
    link = path.with_name("pointer.mrc")
    link.symlink_to(path)
    return link


def read_by_hand(path: str | Path) -> np.ndarray[Any, Any]:
    return np.fromfile(path, "f4", offset=1024).reshape(PIXELS.shape)


def mapped(path: Path) -> Any:
    with path.open("rb") as file:
        view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(view, "f4", offset=1024).reshape(PIXELS.shape)[::-1]


def in_closure(lazy: xr.DataArray) -> da.Array:
    return da.from_delayed(dask.delayed(lambda: lazy.values)(), PIXELS.shape, "f4")


READ_FROM_THE_FILE: dict[str, Callable[[Path], Any]] = {
    "lazy": lambda path: opened(path)[::-1],
    "dask": lambda path: opened(path, chunks={"z": 2}).drop_attrs() + 1,
    "dask, inlined": lambda path: opened(path, chunks={}, inline_array=True) * 2,
    "map": lambda path: opened(path, mmap=True).load()[::-1],
    "map by numpy": lambda path: np.memmap(path, "f4", "r", 1024, PIXELS.shape)[::-1],
    "map by the standard library": mapped,
    "hard link": lambda path: opened(linked(path)).drop_attrs(),
    "through a cache": lambda path: opened(f"blockcache::file://{path}"),
    "task with another name": lambda path: da.from_delayed(
        dask.delayed(read_by_hand)(str(pointed(path))), PIXELS.shape, "f4"
    ),
    "task with a keyword": lambda path: da.from_delayed(
        dask.delayed(functools.partial(read_by_hand, path=path))(), PIXELS.shape, "f4"
    ),
    "block with the name": lambda path: da.zeros(PIXELS.shape, "f4").map_blocks(
        lambda block, path: read_by_hand(path), path, dtype="f4"
    ),
    "task with a lazy array in a closure": lambda path: in_closure(opened(path)),
}


@by_two
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize(
    ("case", "options"),
    [*[(case, {"region": REGION}) for case in READ_FROM_THE_FILE], ("dask", {"append_dim": "z"})],
    ids=str,
)
def test_data_from_the_same_file_are_refused_before_the_first_byte(
    path: Path, case: str, options: dict[str, Any]
) -> None:
    data = READ_FROM_THE_FILE[case](path)
    before = path.read_bytes()
    with pytest.raises(MrcError, match=r"volume\.mrc: the data would be read from.*load\(\)"):
        to_mrc(data, path, **options)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "data",
    [
        lambda path, other: opened(path).load(),
        # the attributes of what is in memory name the file
        lambda path, other: in_closure(opened(path).load()),
        lambda path, other: opened(path, mmap=True).load().copy(deep=True),
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
