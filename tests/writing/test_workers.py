"""Workers of a cluster write one file together, and may die meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster
from writes import PIXELS, Array, check_pixels, check_statistics, kinds, names, read, volume

from mrc_xarray import MrcError, to_mrc

MiB = 1024**2


def check(path: Path, pixels: Array) -> None:
    check_pixels(path, pixels)
    check_statistics(path, pixels)


def wait_for(condition: Callable[[], Any], seconds: float = 30) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.005)


def test_tasks_are_sent_to_workers(tmp_path: Path) -> None:
    """Workers in threads of this process get pickled tasks, as others do."""
    paths = [tmp_path / name for name in ("a.mrc", "b.mrcz", "c.mrcz")]
    options = {"processes": False, "protocol": "tcp", "dashboard_address": ":0"}
    with LocalCluster(n_workers=2, **options) as cluster, Client(cluster) as client:
        to_mrc(volume(chunk=5), paths[0])
        first, second = (to_mrc(volume(chunk=5), path, compute=False) for path in paths[1:])
        assert first is not None
        assert second is not None
        first.compute(scheduler=client)
        client.compute(second).result()
    for path in paths:
        check(path, PIXELS)
    assert names(tmp_path) == [path.name for path in paths]


@pytest.mark.slow
def test_workers_fill_regions_and_append(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "volume.mrc"
    to_mrc(PIXELS, path)
    lazy = xr.DataArray(da.from_array(PIXELS, chunks=(3, 10, 11)), dims=("z", "y", "x"))
    expected = PIXELS.copy()
    expected[3:20, 1:31] = PIXELS[4:21, :30]
    with client.as_current():
        to_mrc(lazy[4:21, :30], path, region={"z": slice(3, 20), "y": slice(1, 31)})
        to_mrc(lazy[2:], path, append_dim="z")
    np.testing.assert_array_equal(read(path), np.concatenate([expected, PIXELS[2:]]))


@pytest.mark.slow
@pytest.mark.parametrize("mmap", [True, False])
def test_persisted_data_go_back_into_their_file_unless_mapped(
    client: Client, tmp_path: Path, mmap: bool
) -> None:
    path = tmp_path / "volume.mrc"
    to_mrc(PIXELS, path)
    with client.as_current():
        ds = xr.open_dataset(path, engine="mrc", chunks={"z": 5}, mmap=mmap).persist()
        with pytest.raises(MrcError, match="read from") if mmap else contextlib.nullcontext():
            to_mrc(ds["data"][::-1], path, region={})
    check_pixels(path, PIXELS if mmap else PIXELS[::-1])


@pytest.mark.slow
@kinds
def test_pixels_do_not_pass_through_client_and_scheduler(
    client: Client, tmp_path: Path, suffix: str
) -> None:
    path, shape = tmp_path / f"volume{suffix}", (64, 512, 1024)

    def noise(part: Any, block_info: Any = None) -> Any:
        seed = block_info[0]["array-location"][0][0]
        return np.random.default_rng(seed).integers(-(2**15), 2**15, part.shape, "i2")

    lazy = da.zeros(shape, "i2", chunks=(2, -1, -1)).map_blocks(noise, dtype="i2")
    write = to_mrc(xr.DataArray(lazy, dims=("z", "y", "x")), path, compute=False)
    # client and scheduler are in this process
    tracemalloc.start()
    try:
        assert client.compute(write).result() is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > np.prod(shape)
    assert peak < 16 * MiB
    expected = np.random.default_rng(62).integers(-(2**15), 2**15, (2, *shape[1:]), "i2")
    np.testing.assert_array_equal(xr.open_dataarray(path, engine="mrc")[62:], expected)


@pytest.mark.slow
@kinds
def test_worker_that_dies_costs_nothing(client: Client, tmp_path: Path, suffix: str) -> None:
    started, path = tmp_path / "started", tmp_path / f"volume{suffix}"
    started.mkdir()
    path.write_bytes(b"what was there before")
    pixels = np.concatenate([PIXELS, PIXELS[::-1], PIXELS, PIXELS[:, ::-1]])

    def act(section: int) -> None:
        (started / str(section)).touch()
        time.sleep(0.05)

    workers = client.run(os.getpid)
    future = client.compute(to_mrc(volume(pixels, act), path, overwrite=True, compute=False))
    # one after the other, so that the one that has the most to lose is among them
    for i, (address, pid) in enumerate(workers.items()):
        wait_for(lambda i=i: len(names(started)) >= 20 * (i + 1))
        assert not future.done()
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda address=address: address not in client.scheduler_info()["workers"])
        client.wait_for_workers(2, timeout=200)
    assert future.result(timeout=120) is None
    check(path, pixels)
