"""A cluster may run a task again, after the worker that had its result has died.

A pipeline may then compute other values than before. Blocks of an MRCZ that have followers in the
file must stay as they are.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blosc
import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from dask.core import flatten, get_dependencies
from writes import Array, names

from mrc_xarray import MrcError, to_mrc

N, NY, NX = 6, 64, 48


class Pipeline:
    """Random sections. In each run they have other values, which compress to other sizes."""

    def __init__(self, spreads: tuple[int, ...] = (300, 30000), dies_at: int = N) -> None:
        self.spreads = spreads
        self.dies_at = dies_at
        self.run = 0

    def section(self, run: int, i: int) -> Array:
        rng = np.random.default_rng(10 * run + i)
        return rng.integers(0, self.spreads[run], (1, NY, NX), "i2")

    def data(self, chunk: int = 1) -> xr.DataArray:
        def block(part: Array, block_info: Any = None) -> Array:
            start, stop = block_info[0]["array-location"][0]
            if not self.run and self.dies_at < stop:
                raise ConnectionError("the worker died")
            return np.concatenate([self.section(self.run, i) for i in range(start, stop)])

        lazy = da.zeros((N, NY, NX), "i2", chunks=(chunk, -1, -1))
        return xr.DataArray(lazy.map_blocks(block, dtype="i2"), dims=("z", "y", "x"))


def tasks_of(graph: Any, keys: Any) -> tuple[dict[Any, Any], list[Any]]:
    """Return all tasks of a graph, and the keys of those that the last one needs."""
    tasks = dict(graph.__dask_graph__() if hasattr(graph, "__dask_graph__") else graph)
    (last,) = flatten(keys)
    return tasks, list(get_dependencies(tasks, last))


def twice(pipeline: Pipeline, meanwhile: Callable[[], Any] = lambda: None) -> Any:
    """Return a scheduler that runs all tasks but the last, and then all of them again."""

    def get(graph: Any, keys: Any, **options: Any) -> Any:
        tasks, needed = tasks_of(graph, keys)
        with contextlib.suppress(ConnectionError):
            dask.get(tasks, needed)
        meanwhile()
        pipeline.run = 1
        return dask.get(tasks, keys)

    return get


def part_of(path: Path) -> Path:
    (part,) = path.parent.glob(".*.part")
    return part


def starts(part: Path) -> list[int]:
    """Return where the blocks begin, and where the last one ends."""
    data = part.read_bytes()
    # the headers are written last, and no block begins with a zero
    found = [len(data) - len(data.lstrip(b"\0"))]
    while found[-1] < len(data):
        # the size of a blosc block
        found.append(found[-1] + struct.unpack_from("<I", data, found[-1] + 12)[0])
    return found


def check(path: Path, expected: Array) -> None:
    ds = xr.open_dataset(path, engine="mrc")
    np.testing.assert_array_equal(ds.data, expected)
    assert (ds.mrc.header.dmin, ds.mrc.header.dmax) == (expected.min(), expected.max())


@pytest.mark.parametrize(
    ("compressor", "again", "chunk"),
    [("zstd", 2, 1), ("zstd", 30000, 2), ("blosc2:zstd", 2, 2), ("blosc2:zstd", 30000, 1)],
)
def test_blocks_in_the_file_stay(tmp_path: Path, compressor: str, again: int, chunk: int) -> None:
    if compressor.startswith("blosc2"):
        pytest.importorskip("blosc2")
    path, pipeline = tmp_path / "a.mrcz", Pipeline((300, again))
    with dask.config.set(scheduler=twice(pipeline)):
        to_mrc(pipeline.data(chunk), path, compressor=compressor)
    assert pipeline.run == 1
    check(path, np.concatenate([pipeline.section(0, i) for i in range(N)]))


@pytest.mark.parametrize("statistics", ["quick", False])
def test_blocks_in_the_file_are_measured_as_asked(tmp_path: Path, statistics: Any) -> None:
    path, pipeline = tmp_path / "a.mrcz", Pipeline()
    with dask.config.set(scheduler=twice(pipeline)):
        to_mrc(pipeline.data(), path, statistics=statistics)
    first = pipeline.section(0, 0)
    header = xr.open_dataset(path, engine="mrc").mrc.header
    expected = (first.min(), first.max()) if statistics else (0, -1)
    assert (header.dmin, header.dmax) == expected


def test_blocks_after_the_last_one_in_the_file_are_new(tmp_path: Path) -> None:
    path, pipeline = tmp_path / "a.mrcz", Pipeline(dies_at=4)
    n_found: list[int] = []

    def meanwhile() -> None:
        n_found.append(len(starts(part_of(path))) - 1)

    with dask.config.set(scheduler=twice(pipeline, meanwhile)):
        to_mrc(pipeline.data(), path)
    (n,) = n_found
    assert n <= 4
    check(path, np.concatenate([pipeline.section(int(i >= n), i) for i in range(N)]))


@pytest.mark.parametrize("i", [0, 3, 5])
def test_block_that_was_not_complete_is_written_again(tmp_path: Path, i: int) -> None:
    """A worker died before it wrote the header of a block, which is written last."""
    path, pipeline = tmp_path / "a.mrcz", Pipeline((30000, 300))

    def meanwhile() -> None:
        part = part_of(path)
        start = starts(part)[i]
        data = part.read_bytes()
        # nothing was placed after a block that is not complete
        part.write_bytes(data[:start] + bytes(16) + data[start + 16 :][:20_000])

    with dask.config.set(scheduler=twice(pipeline, meanwhile)):
        to_mrc(pipeline.data(), path)
    check(path, np.concatenate([pipeline.section(int(j >= i), j) for j in range(N)]))


@pytest.mark.parametrize("damage", ["zeros", "another block", "cut"])
def test_block_that_was_overwritten_is_found_before_publication(
    tmp_path: Path, damage: str
) -> None:
    """A worker that had lost the connection to its cluster wrote once more."""
    path, pipeline = tmp_path / "a.mrcz", Pipeline()

    def get(graph: Any, keys: Any, **options: Any) -> Any:
        tasks, needed = tasks_of(graph, keys)
        results = dask.get(tasks, needed)
        part = part_of(path)
        data, at = part.read_bytes(), starts(part)
        longer = blosc.compress(pipeline.section(1, 3).tobytes(), 2, cname="zstd", clevel=1)
        other = longer if damage == "another block" else bytes(16)
        end = b"" if damage == "cut" else other + data[at[3] + len(other) :]
        part.write_bytes(data[: at[3]] + end)
        return dask.get(tasks | dict(zip(needed, results, strict=True)), keys)

    with (
        dask.config.set(scheduler=get),
        pytest.raises(MrcError, match=r"section [34],.* was overwritten"),
    ):
        to_mrc(pipeline.data(), path)
    assert names(tmp_path) == []
