"""Blocks of any shape are computed once, in the memory of a few chunks."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import by_hand
import dask
import dask.array as da
import numpy as np
import pytest
from writes import Array, check_pixels, check_statistics, counted, kinds, noise, opened

from mrc_xarray import to_mrc
from mrc_xarray.storage.base import cores

MiB = 1024**2


@pytest.mark.parametrize(
    "chunks",
    [
        (1, -1, -1), (3, 4, -1), (-1, -1, 4), (4, 1, 1), ((1, 3, 2), (5, 3), (2, 8)),
        (1, 1, -1, -1), (2, 1, 3, -1), (1, 3, -1, 2), (-1, 2, 5, 5),
    ],
)  # fmt: skip
@kinds
def test_each_block_is_computed_once(tmp_path: Path, chunks: Any, suffix: str) -> None:
    pixels = noise((6, 8, 10) if len(chunks) == 3 else (4, 3, 8, 10), "i2")
    lazy, counts = counted(pixels, chunks)
    path = tmp_path / f"result{suffix}"
    to_mrc(lazy, path)
    assert len(counts) == lazy.npartitions
    assert set(counts.values()) == {1}
    check_pixels(path, pixels)


@pytest.mark.parametrize("n", [64, 65, pytest.param(4097, marks=pytest.mark.slow)])
def test_statistics_of_many_blocks(path: Path, n: int) -> None:
    """They are joined as a tree of 64 branches per node."""
    pixels = noise((n, 1, 3), "i2")
    with dask.config.set(scheduler="synchronous"):
        to_mrc(da.from_array(pixels, chunks=(1, -1, -1)), path)
    check_statistics(path, pixels)


def test_compressed_blocks_do_not_accumulate(tmp_path: Path) -> None:
    """While the first block is computed, only as many others as the window has begin."""
    window = 2 * cores() + 2
    begun: list[int] = []
    all_begun = threading.Event()

    def block(part: Array, block_info: Any = None) -> Array:
        k = block_info[0]["chunk-location"][0]
        begun.append(k)
        if len(begun) > window:
            all_begun.set()
        if k == 0:
            # without a window, the other threads compute all blocks in this time
            assert not all_begun.wait(0.2)
        return part

    lazy = da.zeros((40, 4, 5), dtype="i2", chunks=(1, -1, -1)).map_blocks(block, dtype="i2")
    with dask.config.set(scheduler="threads", num_workers=2):
        to_mrc(lazy, tmp_path / "a.mrcz")
    assert sorted(begun) == list(range(40))


def peak(run: Callable[[], Any]) -> int:
    """Return the peak of memory in bytes, with that of NumPy's arrays."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        run()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def generated(shape: tuple[int, ...], chunks: Any, dtype: str = "i2") -> da.Array:
    """Return data that take no memory until they are computed."""

    def block(block_info: Any = None) -> Array:
        return noise(block_info[None]["chunk-shape"], dtype) & 7

    chunks = da.core.normalize_chunks(chunks, shape, dtype=dtype)
    return da.map_blocks(block, chunks=chunks, dtype=dtype, meta=np.empty((0,) * 3, dtype))


@pytest.mark.slow
@pytest.mark.parametrize("chunks", [(1, 1024, 1024), (2, 1024, 512)], ids=["sections", "columns"])
@kinds
def test_memory_of_a_write_is_a_few_chunks(tmp_path: Path, chunks: Any, suffix: str) -> None:
    lazy = generated((64, 1024, 1024), chunks)
    assert lazy.nbytes == 128 * MiB
    path = tmp_path / f"result{suffix}"
    with dask.config.set(scheduler="threads", num_workers=2):
        # modules that are imported by the first write take memory, too
        to_mrc(lazy[:2], path)
        used = peak(lambda: to_mrc(lazy, path, overwrite=True))
    assert used < 0.25 * lazy.nbytes
    np.testing.assert_array_equal(opened(path).data[57], lazy[57])


@pytest.mark.slow
@pytest.mark.parametrize(("chunks", "mode"), [(None, None), ({}, 2)], ids=["lazy", "dask"])
@kinds
def test_memory_of_a_copy_is_a_few_chunks(
    tmp_path: Path, chunks: Any, mode: int | None, suffix: str
) -> None:
    """An array that is lazy without dask is written in blocks, too."""
    shape = (256, 512, 512)
    source = tmp_path / "source.mrc"
    source.write_bytes(by_hand.header(shape, 1, ispg=0, mz=1))
    with source.open("r+b") as file:
        file.truncate(1024 + 128 * MiB)
    path = tmp_path / f"result{suffix}"
    # in chunks of 16 MiB
    ds = opened(source, chunks=chunks, mmap=False)
    with dask.config.set(scheduler="threads", num_workers=2):
        used = peak(lambda: to_mrc(ds, path, mode=mode))
    assert used < (64 if mode is None else 128) * MiB
    assert opened(path).data.shape == shape


@pytest.mark.slow
def test_arrays_in_memory_are_not_copied(path: Path, tmp_path: Path) -> None:
    """One example is a map of a file that is larger than memory."""
    np.save(tmp_path / "a.npy", np.zeros((64, 256, 1024), "f4"))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert peak(lambda: to_mrc(mapped, path, statistics=False)) < mapped.nbytes / 8


@pytest.mark.slow
@pytest.mark.parametrize(("chunks", "suffix"), [((64, 64, 4), ".mrc"), ((64, 8, 512), ".mrcz")])
def test_memory_of_chunks_that_cut(tmp_path: Path, chunks: Any, suffix: str) -> None:
    """Thin chunks are joined, but no more than necessary."""
    data = da.zeros((64, 512, 512), dtype="f4", chunks=chunks)
    path = tmp_path / f"a{suffix}"
    assert peak(lambda: to_mrc(data, path, statistics=False)) < 2.5 * data.nbytes
