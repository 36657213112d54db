"""Faults: files that are cut, refused or replaced, servers that fail, and processes that end.

A script that would end pytest runs in another process.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import by_hand
import fsspec
import mrcz
import numpy as np
import pytest
import servers
import xarray as xr
from distributed import Client

from mrc_xarray import MrcError
from mrc_xarray.backend import MrcBackendEntrypoint

Array = np.ndarray[Any, Any]

NZ, NY, NX = 24, 40, 50
PIXELS = np.random.default_rng(5).poisson(3, (NZ, NY, NX)).astype("i2")
BYTES = by_hand.mrc(PIXELS)

needs_proc = pytest.mark.skipif(
    not os.path.isdir("/proc/self/fd"), reason="only Linux lists what is open in /proc"
)
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
needs_fifo = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "volume.mrc"
    path.write_bytes(BYTES)
    return path


@pytest.fixture(params=["plain", "mrcz"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A plain file, or an MRCZ of the same pixels."""
    if request.param == "mrcz":
        return write_mrcz(tmp_path / "volume.mrcz")
    path: Path = request.getfixturevalue("path")
    return path


def write_mrcz(path: Path) -> Path:
    mrcz.writeMRC(PIXELS, str(path), compressor="zstd", n_threads=1)
    return path


def data_of(target: Any, **options: Any) -> xr.DataArray:
    return xr.open_dataset(target, engine="mrc", cache=False, **options).data


def assert_readable(data: xr.DataArray) -> None:
    np.testing.assert_array_equal(data.values, PIXELS)


def run(script: str, *args: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


# local files ------------------------------------------------------------------------------------

MAPPED = """
import os, sys
import xarray as xr
path = sys.argv[1]
data = xr.open_dataset(path, engine="mrc", mmap=True).data
values = data.values
os.truncate(path, 1024 + 4096)
print("touched", values.max())
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGBUS"), reason="this system has no SIGBUS")
def test_map_of_a_file_that_lost_its_end_kills_the_process(path: Path) -> None:
    """As docs/howto/read_or_map.md says, and why results are never views by default."""
    done = run(MAPPED, path)
    assert done.returncode == -signal.SIGBUS
    assert "touched" not in done.stdout


@pytest.fixture
def soon() -> Iterator[None]:
    """Fail a test that never ends."""

    def end(*args: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(10)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@needs_fifo
@pytest.mark.usefixtures("soon")
def test_pipe_is_never_waited_for(path: Path) -> None:
    pipe = path.with_name("pipe.mrc")
    os.mkfifo(pipe)
    for target, options in ((pipe, {}), (path, {"metadata_file": pipe})):
        with pytest.raises(MrcError, match=r"pipe\.mrc: not a regular file"):
            data_of(target, **options)
    assert not MrcBackendEntrypoint().guess_can_open(pipe)
    os.mkfifo(f"{path}.mdoc")
    assert_readable(data_of(path))


@needs_fifo
@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_file_that_was_replaced_by_a_pipe_or_a_directory(
    path: Path, make: Any, mmap: bool
) -> None:
    data = data_of(path, mmap=mmap)
    path.unlink()
    make(path)
    with pytest.raises((MrcError, IsADirectoryError), match=r"volume\.mrc"):
        data.load()


# stores that fail -------------------------------------------------------------------------------


class Failing:
    """A server whose next `fail` responses are 503, and which waits until `answers` is set."""

    def __init__(self, server: servers.HttpServer) -> None:
        self.url = server.url
        self.directory = server.directory
        self.fail = 0
        self.answers = threading.Event()
        self.answers.set()
        server.before = lambda n: self.answers.wait(30) and None
        server.alter = self._alter

    def _alter(self, method: str, path: str, answer: servers.Answer) -> servers.Answer:
        if not self.fail:
            return answer
        self.fail -= 1
        return 503, {}, b""


@pytest.fixture
def http(path: Path) -> Iterator[Failing]:
    with servers.http_server(path.parent) as server:
        failing = Failing(server)
        yield failing
        failing.answers.set()


def test_server_that_fails_is_an_error_with_the_status(http: Failing) -> None:
    url = http.url("volume.mrc")
    # fsspec sends a GET after a HEAD that fails
    http.fail = 2
    with pytest.raises(OSError, match="The server can't send the file now: 503") as raised:
        data_of(url)
    assert raised.value.errno == errno.EIO
    data = data_of(url)
    # the array can still be read, and so can one that failed after its first pixels
    for read in (data.load, data[3].load):
        http.fail = 1
        with pytest.raises(OSError, match="The server can't send the file now: 503"):
            read()
        assert_readable(data)


async def retry(request: aiohttp.ClientRequest, handler: Any) -> aiohttp.ClientResponse:
    """Repeat a request that failed, as in aiohttp's documentation."""
    for wait in (0.01, 0.02, 0.04):
        response = await handler(request)
        if response.status < 500:
            return response
        response.release()
        await asyncio.sleep(wait)
    return await handler(request)


@pytest.mark.skipif(
    not hasattr(aiohttp, "ClientHandlerType"), reason="aiohttp has middlewares since 3.12"
)
def test_requests_are_repeated_by_a_middleware(http: Failing) -> None:
    http.fail = 3
    options = {"client_kwargs": {"middlewares": (retry,)}}
    data = data_of(http.url("volume.mrc"), storage_options=options)
    http.fail = 3
    assert_readable(data)
    assert http.fail == 0


def as_s3(http: Failing, **config: Any) -> dict[str, Any]:
    """Return the options of S3 for a server whose folders are the buckets."""
    folder = http.directory / "bucket"
    folder.mkdir(exist_ok=True)
    (folder / "volume.mrc").write_bytes(BYTES)
    endpoint = http.url("").rstrip("/")
    return {"anon": True, "endpoint_url": endpoint, "config_kwargs": config}


@pytest.mark.slow
def test_requests_to_s3_are_repeated(http: Failing) -> None:
    """By botocore, as often as storage_options say."""
    options = as_s3(http, retries={"max_attempts": 2, "mode": "standard"})
    data = data_of("s3://bucket/volume.mrc", storage_options=options)
    http.fail = 1
    assert_readable(data)
    assert http.fail == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["http", "s3"])
def test_server_that_never_answers_is_a_timeout(
    http: Failing, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "http":
        url = http.url("volume.mrc")
        options: dict[str, Any] = {"client_kwargs": {"timeout": aiohttp.ClientTimeout(total=0.3)}}
    else:
        url = "s3://bucket/volume.mrc"
        options = as_s3(http, read_timeout=0.3, retries={"max_attempts": 0})
        # s3fs repeats what botocore repeats
        monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    data = data_of(url, storage_options=options)
    compared = data_of(url, storage_options=options)
    compared[0].load()
    http.answers.clear()
    for read in (lambda: data_of(url, storage_options=options), data.load, compared[1].load):
        start = time.perf_counter()
        with pytest.raises(TimeoutError, match="did not answer in time"):
            read()
        assert time.perf_counter() - start < 4
    http.answers.set()
    assert_readable(data)


# threads and forks ------------------------------------------------------------------------------


@pytest.mark.slow
@needs_proc
def test_two_hundred_threads_read_one_array(either: Path) -> None:
    data = data_of(either)
    data[0].load()
    before = len(os.listdir("/proc/self/fd"))
    together = threading.Barrier(200)

    def read(seed: int) -> bool:
        rng = np.random.default_rng(seed)
        together.wait(20)
        for _ in range(3):
            window = tuple(slice(*sorted(rng.integers(0, n + 1, 2))) for n in PIXELS.shape)
            if not np.array_equal(data[window].values, PIXELS[window]):
                return False
        return True

    with ThreadPoolExecutor(200) as pool:
        assert all(pool.map(read, range(200)))
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.fixture(params=["plain", "mrcz", "memory", "http"])
def anywhere(request: pytest.FixtureRequest, path: Path) -> Iterator[str]:
    if request.param == "memory":
        fs = fsspec.filesystem("memory")
        fs.pipe("/faults/volume.mrc", BYTES)
        yield "memory://faults/volume.mrc"
        fs.rm("/faults", recursive=True)
    elif request.param == "http":
        with servers.http_server(path.parent) as server:
            yield server.url(path.name)
    elif request.param == "mrcz":
        yield str(write_mrcz(path.with_suffix(".mrcz")))
    else:
        yield str(path)


def read_in_fork(data: xr.DataArray) -> bool:
    return servers.forked(lambda: bytes([np.array_equal(data.values, PIXELS)]))() == b"\1"


@needs_fork
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize(
    "before", ["opened", "read", pytest.param("while a thread reads", marks=pytest.mark.slow)]
)
def test_forked_process_reads_what_its_parent_opened(anywhere: str, before: str) -> None:
    data = data_of(anywhere)
    if before == "opened":
        assert read_in_fork(data)
        return
    assert_readable(data)
    assert read_in_fork(data)
    if before == "read":
        return
    ended = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        while not ended.is_set():
            if not np.array_equal(data.values, PIXELS):
                wrong.append(data)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        # each fork is at another moment of the thread's read
        assert all(read_in_fork(data) for _ in range(8))
    finally:
        ended.set()
        thread.join()
    assert not wrong


# memory and workers -----------------------------------------------------------------------------


@pytest.mark.slow
def test_openings_use_no_further_memory(either: Path) -> None:
    def open_and_load(n: int) -> None:
        for k in range(n):
            data = data_of(either)
            if k % 2:
                data.load()

    open_and_load(20)
    tracemalloc.start()
    try:
        # objects that are made once, and the buffer that a thread reuses to decode
        open_and_load(5)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        open_and_load(40)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    # a single image of these is 4 kB
    assert grown < 40 * 1024, f"{grown} bytes for 40"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The specified chunks separate the stored chunks")
def test_work_of_a_worker_that_is_killed_is_repeated(client: Client, either: Path) -> None:
    data = data_of(either, chunks={})
    data = data.chunk({data.dims[0]: 1})

    def slow(section: Array) -> Array:
        time.sleep(0.1)
        return section + np.int16(1)

    processes = client.run(os.getpid)
    result = client.compute(data.data.map_blocks(slow, dtype="i2"))
    # some sections are computed, and others are not
    time.sleep(0.5)
    assert result.status == "pending"
    os.kill(min(processes.values()), signal.SIGKILL)
    np.testing.assert_array_equal(result.result(timeout=30), PIXELS + np.int16(1))
