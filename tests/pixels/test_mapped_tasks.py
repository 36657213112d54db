"""Tasks of dask map large parts of a file; whatever a user holds owns its memory."""

from __future__ import annotations

import gc
import gzip
import os
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import by_hand
import dask
import mrcz
import numpy as np
import pytest
import xarray as xr
from distributed import Client
from mapped import is_mapped, set_file_system

from mrc_xarray import MrcError
from mrc_xarray.pixels import array as array_module
from mrc_xarray.pixels import blocks
from mrc_xarray.storage import threads

MiB = 1024**2
# two sections of 1 MiB
PIXELS = np.arange(2 * 512 * 512, dtype="f4").reshape(2, 512, 512)
BYTES = by_hand.mrc(PIXELS)
Blocks = list[tuple[bool, bool]]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of 2 MiB on what counts as a local disk."""
    set_file_system(monkeypatch, "ext4")
    file = tmp_path / "file.mrc"
    file.write_bytes(BYTES)
    return file


def opened(target: Any, chunks: Any = {}, **options: Any) -> xr.DataArray:  # noqa: B006
    return xr.open_dataset(target, engine="mrc", chunks=chunks, **options).data


def blocks_of(data: xr.DataArray, expected: Any) -> Blocks:
    """Compute, and return of each block that a function gets: is it a map, is it writable."""
    seen: Blocks = []

    def look(block: Any) -> Any:
        seen.append((is_mapped(block), block.flags.writeable))
        return block + 0

    result = data.data.map_blocks(look, dtype=data.dtype, meta=data.data._meta)
    np.testing.assert_array_equal(result.compute(scheduler="sync"), expected)
    return seen


VIEW, OWN = (True, False), (False, True)


def test_task_gets_a_view_that_can_not_be_written_to(path: Path) -> None:
    assert blocks_of(opened(path), PIXELS) == [VIEW]
    assert blocks_of(opened(path, {"z": 1}), PIXELS) == [VIEW, VIEW]
    assert blocks_of(opened(path, mmap=True), PIXELS) == [VIEW]
    assert blocks_of(opened(path, mmap=False), PIXELS) == [OWN]


@pytest.mark.parametrize(
    "chunked",
    [
        lambda path: xr.open_dataset(path, engine="mrc").chunk().data,
        lambda path: xr.open_dataset(path, engine="mrc", cache=False).data.chunk(),
        lambda path: pickle.loads(pickle.dumps(xr.open_dataset(path, engine="mrc"))).data.chunk(),
        lambda path: xr.open_mfdataset([path], engine="mrc").data,
        lambda path: xr.open_dataset(path, engine="mrc", chunks="auto").data,
    ],
    ids=["chunk", "not cached", "pickled", "many files", "auto"],
)
def test_each_way_to_tasks_maps(path: Path, chunked: Callable[[Path], xr.DataArray]) -> None:
    seen = blocks_of(chunked(path), PIXELS)
    assert all(is_view for is_view, _ in seen)


def test_selection_before_chunking_is_mapped_if_it_is_large(path: Path) -> None:
    ds = xr.open_dataset(path, engine="mrc")
    assert blocks_of(ds.isel(z=1).chunk().data, PIXELS[1]) == [VIEW]
    assert blocks_of(ds.isel(z=[1]).chunk().data, PIXELS[[1]]) == [OWN]
    assert blocks_of(ds.isel(x=slice(1, None)).chunk().data, PIXELS[..., 1:]) == [OWN]
    transposed = ds.transpose("x", "y", "z").chunk().data
    assert blocks_of(transposed, PIXELS.T) == [OWN]


def test_small_and_sparse_chunks_are_read(path: Path) -> None:
    assert blocks_of(opened(path, {"y": 256}), PIXELS) == [OWN] * 2
    assert blocks_of(opened(path, {"z": 1, "y": 511}), PIXELS) == [OWN] * 4


@pytest.mark.parametrize(
    ("raw", "pixels", "options"),
    [
        (by_hand.mrc(PIXELS, byteorder=">"), PIXELS, {}),
        (by_hand.mrc(np.zeros((2, 512, 1024), "u1"), 101, shape=(2, 512, 2048)), 0, {}),
        (by_hand.mrc(np.ones((2, 512, 512, 2), "i2"), 3, shape=(2, 512, 512)), 1 + 1j, {}),
        (by_hand.mrc(PIXELS, extended=b"{}", exttyp=b"json"), PIXELS, {}),
    ],
    ids=["other byte order", "packed", "complex integers", "not aligned"],
)
def test_what_can_not_be_a_view_is_read(path: Path, raw: Any, pixels: Any, options: Any) -> None:
    path.write_bytes(raw)
    seen = blocks_of(opened(path, **options), pixels)
    assert not any(is_view for is_view, _ in seen)


def test_streams_and_memory_are_read(path: Path) -> None:
    compressed = path.with_suffix(".mrc.gz")
    compressed.write_bytes(gzip.compress(BYTES, 1))
    with path.open("rb") as file:
        for target in (compressed, file, f"simplecache::file://{path}"):
            seen = blocks_of(opened(target), PIXELS)
            assert not any(is_view for is_view, _ in seen) or target is file


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "lustre", "fuse.sshfs", "9p", ""])
def test_network_file_systems_are_read(
    path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    set_file_system(monkeypatch, kind)
    assert blocks_of(opened(path), PIXELS) == [OWN]
    assert blocks_of(opened(path, mmap=True), PIXELS) == [VIEW]


# what a user holds -------------------------------------------------------------------------------

RESULTS: dict[str, Callable[[Path], Any]] = {
    "load": lambda path: opened(path, None).load().values,
    "values": lambda path: opened(path, None).values,
    "selection": lambda path: opened(path, None).isel(z=1).values,
    "compute of one chunk": lambda path: opened(path).compute().values,
    "values of one chunk": lambda path: opened(path).values,
    "compute by threads": lambda path: opened(path).compute(scheduler="threads").values,
    "dask's array": lambda path: opened(path).data.compute(),
    "a chunk": lambda path: opened(path, {"z": 1}).data.blocks[1].compute(),
    "a section": lambda path: opened(path, {"z": 1}).isel(z=0).compute().values,
    "a function that returns its block": lambda path: (
        opened(path).data.map_blocks(lambda block: block).compute()
    ),
    "a view of a block": lambda path: (
        opened(path).data.map_blocks(lambda block: block[::-1]).compute()
    ),
    "several": lambda path: dask.compute(opened(path).data, opened(path, {"z": 1}).data)[0],
    "load of all": lambda path: xr.open_dataset(path, engine="mrc", chunks={}).load().data.values,
    "asarray": lambda path: np.asarray(opened(path)),
    "ufunc": lambda path: (
        xr.apply_ufunc(lambda block: block, opened(path), dask="parallelized").values
    ),
}


@pytest.mark.parametrize("how", RESULTS)
def test_result_owns_its_memory(path: Path, how: str) -> None:
    result = RESULTS[how](path)
    assert not is_mapped(result)
    assert result.flags.writeable
    path.write_bytes(bytes(len(BYTES)))
    assert result.any()


def test_persist_holds_views(path: Path) -> None:
    """As docs/howto/read_or_map.md says; results of it are copies again."""
    held = opened(path).persist(scheduler="sync")
    [block] = held.data.dask.values()
    assert is_mapped(block if isinstance(block, np.ndarray) else block())
    assert not is_mapped(held.compute().values)


def test_changing_a_block_in_place_fails_and_changes_nothing(path: Path) -> None:
    def double(block: Any) -> Any:
        block *= 2
        return block

    data = opened(path).data
    with pytest.raises(ValueError, match="read-only"):
        data.map_blocks(double, meta=data._meta).compute(scheduler="sync")
    # the error refers to itself, and its frames to the view
    gc.collect()
    assert path.read_bytes() == BYTES
    changed = opened(path, mmap=False).data.map_blocks(double, meta=data._meta)
    np.testing.assert_array_equal(changed.compute(scheduler="sync"), PIXELS * 2)


def test_file_is_compared_before_it_is_mapped(path: Path) -> None:
    data = opened(path)
    os.utime(path, ns=(1, 1))
    with pytest.raises(MrcError, match="modification time"):
        data.compute(scheduler="sync")
    path.unlink()
    with pytest.raises(FileNotFoundError):
        data.compute(scheduler="sync")


# threads -----------------------------------------------------------------------------------------


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the pools that reading starts, on a machine of four cores."""
    started: list[int] = []

    def pool(n_threads: int) -> ThreadPoolExecutor:
        started.append(n_threads)
        return ThreadPoolExecutor(n_threads)

    monkeypatch.setattr(array_module, "cores", lambda: 4)
    monkeypatch.setattr(threads, "ThreadPoolExecutor", pool)
    return started


@pytest.fixture
def decoders(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of threads that decode each block."""
    used: list[int] = []
    decode = blocks.decode_block

    def counted(*args: Any, n_threads: int, **options: Any) -> None:
        used.append(n_threads)
        decode(*args, n_threads=n_threads, **options)

    monkeypatch.setattr(blocks, "decode_block", counted)
    return used


@pytest.mark.parametrize("backend", ["blosc1", "blosc2"])
def test_threads_of_mrcz(
    tmp_path: Path, pools: list[int], decoders: list[int], backend: str
) -> None:
    pixels = np.resize(np.arange(999, dtype="i2"), (2, 1024, 4096))
    path = tmp_path / "movie.mrcz"
    mrcz.writeMRC(pixels, path, compressor="lz4", backend=backend)
    data = opened(path, None, cache=False)
    # all cores decode one block, and each of several blocks has a thread
    np.testing.assert_array_equal(data.isel(image=1), pixels[1])
    assert (pools, decoders) == ([], [4])
    np.testing.assert_array_equal(data, pixels)
    assert (pools, decoders) == ([4], [4, 1, 1])
    # dask's tasks have a thread of the scheduler each
    for scheduler in ("threads", "sync"):
        np.testing.assert_array_equal(opened(path).compute(scheduler=scheduler), pixels)
    assert pools == [4]
    assert set(decoders[3:]) == {1}


def test_threads_of_a_large_read(tmp_path: Path, pools: list[int]) -> None:
    pixels = np.zeros((8, 1024, 2048), "u2")
    path = tmp_path / "volume.mrc"
    path.write_bytes(by_hand.mrc(pixels))
    assert not opened(path, None, cache=False).any()
    assert pools == [4]
    assert not opened(path, {"z": -1}, mmap=False).any().compute(scheduler="sync")
    assert pools == [4]


# memory ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux's /proc")
def test_memory_of_workers_stays_bounded(tmp_path: Path, client: Client) -> None:
    """A file of 3 GiB on two workers that may use 1 GB each: they neither pause nor spill."""

    # sent by value, so that the workers need not import this module
    def file_pages() -> int:
        """Return how many bytes of files are mapped and present in this process."""
        with open("/proc/self/status") as status:
            line = next(line for line in status if line.startswith("RssFile"))
        return int(line.split()[1]) * 1024

    def spilled(dask_worker: Any) -> int:
        return len(dask_worker.data.slow or ())

    shape = (768, 1024, 1024)
    raw = by_hand.header(shape, 2)
    path = by_hand.sparse(tmp_path / "large.mrc", raw, 1024 + int(np.prod(shape)) * 4)
    data = opened(path)
    assert data.chunksizes["z"] == (32,) * 24
    # modules that the first tasks import are mapped, too
    assert not client.compute(data[:64].max()).result(timeout=60)
    before = client.run(file_pages)
    assert client.compute((data + 1).max()).result(timeout=60) == 1
    # the pages of a part are gone when its task ends
    after = client.run(file_pages)
    assert all(after[worker] - before[worker] < 32 * MiB for worker in before)
    assert set(client.run(spilled).values()) == {0}
    log = str(client.get_worker_logs())
    assert "paus" not in log.lower(), log
