"""On a cluster of processes: equal values, small graphs, and little memory."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import by_hand
import numpy as np
import pytest
import servers
import xarray as xr
from distributed import Client

from mrc_xarray import MrcError

NZ, NY, NX = 12, 64, 128
PIXELS = np.random.default_rng(3).integers(-(2**15), 2**15, (NZ, NY, NX), "i2")
BYTES = by_hand.mrc(PIXELS)
ROW = NX * 2
SECTION = NY * ROW

# chunks smaller than the preferred ones, so that every worker has work
by_two = pytest.mark.filterwarnings("ignore:The specified chunks separate the stored chunks")


@pytest.fixture(scope="module")
def s3() -> Iterator[servers.S3]:
    with servers.s3_server() as s3:
        yield s3


@pytest.fixture
def path(client: Client, tmp_path: Path) -> Path:
    path = tmp_path / "volume.mrc"
    path.write_bytes(BYTES)
    return path


@pytest.fixture
def http(path: Path) -> Iterator[servers.HttpServer]:
    with servers.http_server(path.parent) as server:
        yield server


class Stored:
    """A file that can be replaced, on a disk or in a store."""

    def __init__(self, put: Callable[[bytes], str], **options: Any) -> None:
        self.put = put
        self.options = {"engine": "mrc"} | options

    def open(self, **options: Any) -> xr.Dataset:
        return xr.open_dataset(self.put(BYTES), **self.options, **options)


@pytest.fixture(params=["local", "http", "s3"])
def stored(request: pytest.FixtureRequest, path: Path) -> Stored:
    def put_locally(data: bytes) -> str:
        path.write_bytes(data)
        return str(path)

    if request.param == "local":
        return Stored(put_locally)
    if request.param == "http":
        url = request.getfixturevalue("http").url(path.name)
        return Stored(lambda data: (put_locally(data), url)[1])
    s3 = request.getfixturevalue("s3")
    return Stored(lambda data: s3.put(path.name, data), storage_options=s3.storage_options)


def on_threads(lazy: xr.DataArray) -> xr.DataArray:
    return lazy.compute(scheduler="threads", num_workers=16)


def on_processes(lazy: xr.DataArray) -> xr.DataArray:
    return lazy.compute(scheduler="processes", num_workers=2)


# equal values -----------------------------------------------------------------------------------


NIBBLES = (PIXELS & 15).astype("u1")
PACKED = by_hand.mrc(by_hand.pack_4bit(NIBBLES), 101, shape=PIXELS.shape)


@pytest.mark.slow
@by_two
@pytest.mark.parametrize(
    ("raw", "pixels", "options"),
    [
        (BYTES, PIXELS, {"chunks": "auto"}),
        (BYTES, PIXELS, {"chunks": {"z": 5, "y": 30, "x": 50}}),
        (BYTES, PIXELS, {"chunks": {"z": 2}, "mmap": True}),
        (by_hand.mrc(PIXELS, byteorder=">"), PIXELS, {"chunks": {"z": 2}}),
        (PACKED, NIBBLES, {"chunks": {"z": 2}}),
    ],
    ids=["auto", "chunks", "mapped", "big-endian", "packed"],
)
def test_pixels_equal_numpy(
    client: Client, path: Path, raw: Any, pixels: Any, options: Any
) -> None:
    path.write_bytes(raw)
    data = xr.open_dataset(path, engine="mrc", **options).data
    np.testing.assert_array_equal(
        (data + 1).compute(scheduler=client), pixels + pixels.dtype.type(1)
    )
    window = data[:, 3:9, 2:5].compute(scheduler=client)
    np.testing.assert_array_equal(window, pixels[:, 3:9, 2:5])


@pytest.mark.slow
@by_two
def test_same_computation_is_equal_everywhere(client: Client, stored: Stored) -> None:
    data = stored.open(chunks={"z": 2}).data
    lazy = (data.astype("i8") ** 2).sum(("y", "x"))
    expected = (PIXELS.astype("i8") ** 2).sum((1, 2))
    for run in (on_threads, on_processes, lambda lazy: lazy.compute(scheduler=client)):
        np.testing.assert_array_equal(run(lazy), expected)
    np.testing.assert_array_equal(lazy.compute(scheduler="synchronous"), expected)


@pytest.mark.slow
def test_pickled_dataset_is_read_by_a_worker(client: Client, stored: Stored) -> None:
    pickled = pickle.dumps(stored.open())
    found = client.submit(lambda: pickle.loads(pickled).data[3].values, pure=False).result()
    np.testing.assert_array_equal(found, PIXELS[3])


@pytest.mark.slow
def test_bytesio_is_sent_to_the_workers(client: Client) -> None:
    ds = xr.open_dataset(io.BytesIO(BYTES), engine="mrc", chunks={})
    np.testing.assert_array_equal(ds.data.compute(scheduler=client), PIXELS)


@pytest.mark.slow
def test_many_threads_read_one_file_object(path: Path) -> None:
    compressed = path.with_suffix(".gz")
    compressed.write_bytes(gzip.compress(BYTES))
    with gzip.open(compressed) as file:
        ds = xr.open_dataset(file, engine="mrc").chunk(z=1)
        np.testing.assert_array_equal(on_threads(ds.data), PIXELS)


# a file that changed ----------------------------------------------------------------------------


@pytest.mark.slow
@by_two
def test_file_that_changed_before_computing_is_an_error(client: Client, stored: Stored) -> None:
    ds = stored.open(chunks={"z": 2})
    stored.put(by_hand.mrc(PIXELS + np.int16(1)) + b"\0")
    with pytest.raises(MrcError, match=r"volume\.mrc: the file changed since it was opened"):
        ds.data.compute(scheduler=client)


# graphs, and what the workers read --------------------------------------------------------------


@pytest.mark.slow
@by_two
def test_tasks_read_the_rows_of_a_window(
    client: Client, http: servers.HttpServer, path: Path
) -> None:
    ds = xr.open_dataset(http.url(path.name), engine="mrc", chunks={"z": 3})
    http.requests.clear()
    window = ds.data.isel(z=slice(4, 8), y=slice(20, 50), x=slice(20, 50))
    np.testing.assert_array_equal(window.compute(scheduler=client), PIXELS[4:8, 20:50, 20:50])
    # the gap between two windows in one chunk costs less than a request
    starts = [1024 + z * SECTION + 20 * ROW for z in (4, 6)]
    assert http.gets() == [(start, start + SECTION + 30 * ROW) for start in starts]
    # once per worker
    assert http.methods().count("HEAD") <= 2


@by_two
def test_graph_of_many_chunks_is_small(tmp_path: Path) -> None:
    path = tmp_path / "volume.mrc"
    shape = (100_000, 16, 16)
    write_sparse(path, shape, {})
    ds = xr.open_dataset(path, engine="mrc", chunks={"z": 1})
    assert ds.data.data.npartitions == shape[0]
    assert len(pickle.dumps(ds.data.data.dask)) < 1_000_000


# more than memory -------------------------------------------------------------------------------


def write_sparse(path: Path, shape: tuple[int, int, int], sums: dict[int, float]) -> None:
    """Write float32 zeros that take no space, but one nonzero pixel in some sections."""
    nz, ny, nx = shape
    with path.open("wb") as file:
        file.write(by_hand.header(shape, 2))
        file.truncate(1024 + 4 * nz * ny * nx)
        for section, value in sums.items():
            file.seek(1024 + 4 * (section * ny * nx + (section * 7919) % (ny * nx)))
            file.write(np.float32(value).tobytes())


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the peak is read from /proc")
def test_reduction_of_more_than_memory(client: Client, tmp_path: Path) -> None:
    # sparse files in memory cost nothing to read
    shared = "/dev/shm" if os.path.isdir("/dev/shm") else tmp_path
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        check_reduction(client, Path(folder, "large.mrc"))


def check_reduction(client: Client, path: Path) -> None:
    shape = (1200, 2048, 2048)
    # both sides of 2³¹ and 2³² bytes, and the ends
    sums = {0: 2.0, 127: 4.0, 128: 8.0, 255: 16.0, 256: 32.0, 700: -64.0, 1199: 128.0}
    write_sparse(path, shape, sums)
    assert path.stat().st_size > 20e9
    limits = [w["memory_limit"] for w in client.scheduler_info()["workers"].values()]
    assert limits == [10**9, 10**9]
    processes = client.run(os.getpid)

    ds = xr.open_dataset(path, engine="mrc", chunks={})
    means = ds.data.mean(("y", "x"), skipna=False).compute(scheduler=client)

    expected = np.zeros(shape[0], "f4")
    expected[list(sums)] = np.array(list(sums.values())) / (2048 * 2048)
    np.testing.assert_array_equal(means, expected)
    assert client.run(os.getpid) == processes

    def peak() -> int:
        # ru_maxrss starts at the value of the parent process
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))

    # by value, as the workers can't import this file
    peaks = {worker: 1024 * kilobytes for worker, kilobytes in client.run(peak).items()}
    assert max(peaks.values()) < 10**9
