"""All decoded streams of a process share one limit in memory and one on disk."""

from __future__ import annotations

import functools
import gc
import gzip
import lzma
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import by_hand
import dask
import numpy as np
import pytest
import servers
import xarray as xr
from distributed import Client, Worker
from streams_by_hand import MiB, limits, linux, temporary_files

from mrc_xarray import MrcError
from mrc_xarray.storage import budget as module
from mrc_xarray.storage.budget import budget

# 10 sections of 1 MiB: two pieces and a half
SHAPE = (10, 512, 1024)
CODECS: dict[str, Callable[[bytes], bytes]] = {
    "gz": lambda raw: gzip.compress(raw, 1),
    "xz": lambda raw: lzma.compress(raw, preset=0),
}


@pytest.fixture(autouse=True)
def nothing_held() -> None:
    """Collect what errors and cycles of other tests still hold."""
    gc.collect()


@functools.cache
def pixels(stream: int) -> np.ndarray[Any, Any]:
    """Return sections that differ between streams, and between the pieces of a stream."""
    z, y, x = np.ogrid[tuple(map(slice, SHAPE))]
    return (1000 * stream + 90 * z + y // 16 + x // 64).astype("i2")


def streams(folder: Path, n: int, suffix: str = "gz") -> list[Path]:
    paths = [folder / f"{i}.mrc.{suffix}" for i in range(n)]
    for i, path in enumerate(paths):
        path.write_bytes(packed(i, suffix))
    return paths


@functools.cache
def packed(stream: int, suffix: str) -> bytes:
    return CODECS[suffix](by_hand.mrc(pixels(stream)))


def opened(path: Path) -> xr.DataArray:
    return xr.open_dataarray(path, engine="mrc", cache=False)


def in_memory() -> int:
    return sum(pieces.in_memory for pieces in budget.pieces)


def on_disk() -> int:
    return sum(pieces.on_disk for pieces in budget.pieces)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suffix", "n_mib"),
    [("gz", 0), ("gz", 5), ("gz", 64), ("xz", 5)],
)
def test_streams_share_the_memory(tmp_path: Path, suffix: str, n_mib: int) -> None:
    with limits(tmp_path, f"{n_mib} MiB"):
        arrays = [opened(path) for path in streams(tmp_path, 3, suffix)]
    expected = [pixels(i) for i in range(3)]
    # forwards and backwards, in turn, and across the ends of pieces
    for z in (0, 9, 4, 3, 8, 1):
        for array, right in zip(arrays, expected, strict=True):
            np.testing.assert_array_equal(array[z], right[z])
            assert in_memory() <= n_mib * MiB
    for array, right in zip(arrays, expected, strict=True):
        np.testing.assert_array_equal(array[2:9, 100:300, 7], right[2:9, 100:300, 7])
    # everything is held, and only once
    assert in_memory() + on_disk() == 3 * (1024 + expected[0].nbytes)
    if n_mib >= 4:
        assert in_memory() > (n_mib - 4) * MiB or on_disk() == 0


@linux
def test_stream_without_references_is_freed(tmp_path: Path) -> None:
    with limits(tmp_path, "5 MiB"):
        arrays = [opened(path) for path in streams(tmp_path, 2)]
    for array in arrays:
        array[9].load()
    copy = pickle.loads(pickle.dumps(arrays[0]))
    del array
    assert 4 * MiB <= in_memory() <= 5 * MiB
    arrays.pop(0)
    # the copy of the first still exists
    copy[3].load()
    assert in_memory() >= 4 * MiB
    del copy
    assert in_memory() == 0
    assert len(temporary_files(tmp_path)) == 1
    np.testing.assert_array_equal(arrays[0][9], pixels(1)[9])
    arrays.clear()
    assert in_memory() == on_disk() == 0
    assert temporary_files(tmp_path) == []


def test_without_a_disk_one_stream_makes_room_for_the_next(tmp_path: Path) -> None:
    with limits(tmp_path, "11 MiB", "0"):
        arrays = [opened(path) for path in streams(tmp_path, 3)]
    for _ in range(2):
        for i, array in enumerate(arrays):
            np.testing.assert_array_equal(array[9], pixels(i)[9])
            assert in_memory() <= 11 * MiB
    # a stream that does not fit alone
    with limits(tmp_path, "7 MiB", "0"):
        array = opened(tmp_path / "0.mrc.gz")
    with pytest.raises(MrcError, match=r"0\.mrc\.gz.*7340032 bytes.*mrc-xarray\.decoded-memory"):
        array[9].load()


@pytest.mark.slow
def test_stream_that_is_discarded_while_it_is_read(tmp_path: Path) -> None:
    with limits(tmp_path, "11 MiB", "11 MiB"):
        arrays = [opened(path) for path in streams(tmp_path, 6)]
    expected = [pixels(i) for i in range(6)]
    stop = threading.Event()
    wrong = []

    def read() -> None:
        rng = np.random.default_rng(threading.get_ident() % 1000)
        while not stop.is_set():
            z = int(rng.integers(10))
            if not np.array_equal(arrays[0][z], expected[0][z]):
                wrong.append(z)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for _ in range(2):
            for array, right in zip(arrays, expected, strict=True):
                np.testing.assert_array_equal(array[9], right[9])
    finally:
        stop.set()
        thread.join()
    assert wrong == []


@pytest.mark.slow
@linux
def test_many_streams_have_few_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_FILES", 5)
    sections = np.arange(12, dtype="i2")[:, None, None] + np.zeros((12, 16, 3000), "i2")
    paths = [tmp_path / f"{i}.mrc.gz" for i in range(12)]
    for i, path in enumerate(paths):
        path.write_bytes(gzip.compress(by_hand.mrc(sections + np.int16(100 * i)), 1))
    with limits(tmp_path, "0"):
        arrays = [opened(path) for path in paths]
    for z in (11, 2):
        for i, array in enumerate(arrays):
            assert np.unique(array[z]).tolist() == [100 * i + z]
            assert len(temporary_files(tmp_path)) <= 5


def test_idle_decoders_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_DECODERS", 2)
    with limits(tmp_path, "64 MiB"):
        arrays = [opened(path) for path in streams(tmp_path, 5)]
    for z in (0, 5):
        for i, array in enumerate(arrays):
            np.testing.assert_array_equal(array[z], pixels(i)[z])
            # and the one that was opened last
            assert sum(stream.is_decoding for stream in budget.streams) <= 3


def test_disk_that_is_full_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with limits(tmp_path, "5 MiB"):
        arrays = [opened(path) for path in streams(tmp_path, 2)]
    arrays[0][9].load()
    write, tried = module._TemporaryFile.write, []

    def is_full(self: Any, offset: int, piece: bytes) -> None:
        tried.append(offset)
        if on_disk() or len(tried) > 2:
            raise OSError(28, "No space left on device")
        write(self, offset, piece)

    monkeypatch.setattr(module._TemporaryFile, "write", is_full)
    # the other stream makes room
    np.testing.assert_array_equal(arrays[1][5], pixels(1)[5])
    assert tried == [0, 0]
    with pytest.raises(OSError, match="No space") as failure:
        arrays[1][9].load()
    assert "1.mrc.gz" in failure.value.__notes__[0]
    assert "temporary-directory" in failure.value.__notes__[0]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="it forks")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_child_of_a_fork_has_a_budget_of_its_own(tmp_path: Path) -> None:
    with limits(tmp_path, "9 MiB"):
        arrays = [opened(path) for path in streams(tmp_path, 2)]
    # the decoder of the first is open
    arrays[0][5].load()
    arrays[1][9].load()
    forked, done = threading.Event(), threading.Event()

    def hold() -> None:
        with budget.lock:
            forked.set()
            done.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    forked.wait()

    def read() -> bytes:
        before = in_memory() + on_disk()
        right = [bool((arrays[i][9] == pixels(i)[9]).all()) for i in range(2)]
        return repr((before, right, in_memory() <= 9 * MiB)).encode()

    answer = servers.forked(read)
    done.set()
    holder.join()
    # both at the same time, from the same temporary file
    for i in range(2):
        np.testing.assert_array_equal(arrays[i][8], pixels(i)[8])
    assert answer() == b"(0, [True, True], True)"


# workers of a cluster ----------------------------------------------------------------------------


def held_on(client: Client) -> dict[int, int]:
    """Return by a worker's process how many bytes its streams hold in memory."""

    # a function of this module could not be imported there
    def held() -> tuple[int, int]:
        from mrc_xarray.storage.budget import budget

        return os.getpid(), sum(pieces.in_memory for pieces in budget.pieces)

    return dict(client.run(held).values())


@pytest.mark.slow
def test_large_streams_in_turn_do_not_end_a_worker(client: Client, tmp_path: Path) -> None:
    # 320 MiB decoded, which compress well and differ between sections
    shape, n_files = (40, 2048, 2048), 3
    pack = CODECS["gz"]
    header = pack(by_hand.header(shape, 1))
    zeros = pack(bytes(2 * shape[2] * (shape[1] - 1)))
    worker = min(client.run(os.getpid))
    before = held_on(client)
    for i in range(n_files):
        rows = [np.full(shape[2], 100 * i + z, "i2").tobytes() for z in range(shape[0])]
        path = tmp_path / f"{i}.mrc"
        path.write_bytes(header + b"".join(pack(row) + zeros for row in rows))
        # a chunk is read by a pool of threads
        array = xr.open_dataarray(path, engine="mrc", chunks={"z": 8})
        means = client.compute(array.mean(("y", "x")), workers=[worker]).result()
        assert means.values.tolist() == [(100 * i + z) / shape[1] for z in range(shape[0])]
        # a quarter of 1 GB
        assert max(held_on(client).values()) <= 250_000_000
    after = held_on(client)
    assert set(before) == set(after)
    assert max(after.values()) > 100_000_000


def stand_in(memory_limit: int | None, status: str = "running") -> SimpleNamespace:
    """Return the part of a worker that the budget uses."""
    manager = SimpleNamespace(memory_limit=memory_limit)
    return SimpleNamespace(memory_manager=manager, status=SimpleNamespace(name=status))


@pytest.mark.slow
def test_workers_in_one_process_share_the_smallest_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = opened(streams(tmp_path, 1)[0])
    workers = [stand_in(40 * MiB), stand_in(36 * MiB), stand_in(None), stand_in(MiB, "closed")]
    monkeypatch.setattr(Worker, "_instances", workers)
    np.testing.assert_array_equal(array[9], pixels(0)[9])
    assert in_memory() == 8 * MiB
    # workers that are closed do not count
    workers.clear()
    again = opened(tmp_path / "0.mrc.gz")
    del array
    np.testing.assert_array_equal(again[9], pixels(0)[9])
    assert in_memory() == 1024 + pixels(0).nbytes


def test_temporary_file_that_is_too_short(tmp_path: Path) -> None:
    """Reading after the end used to loop forever."""
    file = module._TemporaryFile(str(tmp_path))
    file.write(0, b"abc")
    file.read_into(1, memoryview(found := bytearray(2)))
    assert found == b"bc"
    with pytest.raises(MrcError, match="ended while it was read: 1 of 9 bytes from byte 2"):
        file.read_into(2, memoryview(bytearray(9)))


def test_limit_that_is_no_size_is_named(tmp_path: Path) -> None:
    (path,) = streams(tmp_path, 1)
    for value in ("abc", -1, None, [1]):
        with (
            dask.config.set({"mrc-xarray.decoded-memory": value}),
            pytest.raises(ValueError, match=r"mrc-xarray\.decoded-memory = .*accepted: a size"),
        ):
            opened(path)
