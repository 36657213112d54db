"""Faults with real parts: files cut, refused or replaced, stores that fail, processes killed.

What would end pytest runs in a process of its own.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import io
import os
import re
import signal
import subprocess
import sys
import tempfile
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
    if request.param == "plain":
        return write(tmp_path / "volume.mrc", PIXELS)
    return write_mrcz(tmp_path / "volume.mrcz", PIXELS)


def write(path: Path, pixels: Array) -> Path:
    path.write_bytes(by_hand.mrc(pixels))
    return path


def write_mrcz(path: Path, pixels: Array) -> Path:
    mrcz.writeMRC(pixels, str(path), compressor="zstd", n_threads=1)
    return path


def data_of(target: Any, **options: Any) -> xr.DataArray:
    return xr.open_dataset(target, engine="mrc", cache=False, **options).data


def assert_readable(data: xr.DataArray) -> None:
    np.testing.assert_array_equal(data.values, PIXELS)


def run(script: str, *args: Any, seconds: float = 30) -> subprocess.CompletedProcess[str]:
    """Run a script that ends soon, or the test fails."""
    command = [sys.executable, "-c", script, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# a file that is cut -----------------------------------------------------------------------------

# cuts the file after the first read of pixels, whatever the system's call for it
CUTS = """
import os, sys
path, size = sys.argv[1], int(sys.argv[2])
armed, calls = False, 0

def cutting(read):
    def call(*args):
        global calls
        calls += armed
        if calls > 1:
            os.truncate(path, size)
        return read(*args)
    return call

for name in ("preadv", "pread", "read"):
    if hasattr(os, name):
        setattr(os, name, cutting(getattr(os, name)))
import xarray as xr
from mrc_xarray import MrcError

data = xr.open_dataset(path, engine="mrc", cache=False).data
armed = True
try:
    data.load()
except MrcError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("make", [write, write_mrcz], ids=["plain", "mrcz"])
def test_file_that_is_cut_while_it_is_read_is_an_error(tmp_path: Path, make: Any) -> None:
    # several reads of some MiB each
    pixels = np.random.default_rng(0).integers(-(2**15), 2**15, (12, 1024, 1024), "i2")
    path = make(tmp_path / "volume.mrc", pixels)
    done = run(CUTS, path, path.stat().st_size // 2 - 100)
    assert done.returncode == 0, done.stderr
    # where threads read side by side, another may look at the size before it reads
    assert re.match(
        ".*volume.mrc: the file (ended while it was read|changed since it was opened)", done.stdout
    )


MAPPED = """
import os, sys
import xarray as xr
path = sys.argv[1]
data = xr.open_dataset(path, engine="mrc", mmap=True).data
values = data.values if sys.argv[2] == "all" else data[-1, :, 3:9].values
os.truncate(path, 1024 + 4096)
print("touched", values.max())
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGBUS"), reason="this system has no SIGBUS")
@pytest.mark.parametrize("selection", ["all", "end"])
def test_map_of_a_file_that_lost_its_end_kills_the_process(path: Path, selection: str) -> None:
    """As docs/howto/read_or_map.md says, and why mmap=False is the default."""
    done = run(MAPPED, path, selection)
    assert done.returncode == -signal.SIGBUS
    assert "touched" not in done.stdout


@pytest.mark.parametrize("mmap", [False, True])
def test_file_that_is_cut_before_it_is_read_or_mapped_is_an_error(path: Path, mmap: bool) -> None:
    lazy = xr.open_dataset(path, engine="mrc", chunks={}, mmap=mmap).data
    os.truncate(path, 5120)
    message = r"changed since it was opened \(size: 97024 bytes, now 5120\)"
    with pytest.raises(MrcError, match=message):
        lazy.compute(scheduler="threads")


# what can't be opened ---------------------------------------------------------------------------

# root may read all, and so becomes nobody; all that is imported late was imported before
AS_NOBODY = """
import os, sys
import xarray as xr
path = sys.argv[1]
opened = xr.open_dataset(path, engine="mrc", cache=False).data
opened.load()
opened = xr.open_dataset(path, engine="mrc", cache=False).data
os.chmod(os.path.dirname(path) if sys.argv[2] == "folder" else path, 0)
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
for read in (opened.load, lambda: xr.open_dataset(path, engine="mrc")):
    try:
        read()
    except PermissionError as error:
        print(error)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has no permission bits")
@pytest.mark.parametrize("what", ["file", "folder"])
def test_file_that_may_not_be_read_raises_as_open_does(what: str) -> None:
    # pytest's own folder is closed to others
    with tempfile.TemporaryDirectory() as outer:
        os.chmod(outer, 0o755)
        folder = Path(outer, "folder")
        folder.mkdir()
        write(folder / "volume.mrc", PIXELS)
        done = run(AS_NOBODY, folder / "volume.mrc", what)
        folder.chmod(0o755)
    assert done.returncode == 0, done.stderr
    # an array that was opened before, and a new one
    assert done.stdout.count("Permission denied") == 2
    assert done.stdout.count("volume.mrc") == 2


def test_directory_raises_as_open_does(tmp_path: Path) -> None:
    for target in (tmp_path, str(tmp_path), f"file://{tmp_path}", f"{tmp_path}/"):
        with pytest.raises(IsADirectoryError):
            data_of(target)


def test_directory_in_the_files_place_is_an_error(path: Path) -> None:
    data = data_of(path)
    path.unlink()
    path.mkdir()
    with pytest.raises((MrcError, IsADirectoryError), match=r"volume\.mrc"):
        data.load()


@pytest.mark.parametrize("to", ["none.mrc", "link.mrc"], ids=["dead", "to itself"])
def test_link_to_nothing_raises_as_open_does(tmp_path: Path, to: str) -> None:
    link = tmp_path / "link.mrc"
    link.symlink_to(to)
    with pytest.raises(OSError, match=r"link\.mrc") as raised:
        data_of(link)
    with pytest.raises(type(raised.value)):
        link.open()


@pytest.fixture
def soon() -> Iterator[None]:
    """Fail a test that waits for ever."""

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
def test_pipe_is_never_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.mrc"
    os.mkfifo(pipe)
    with pytest.raises(MrcError, match=r"pipe\.mrc: not a regular file"):
        data_of(pipe)
    assert not MrcBackendEntrypoint().guess_can_open(pipe)
    path = write(tmp_path / "volume.mrc", PIXELS)
    with pytest.raises(MrcError, match=r"pipe\.mrc: not a regular file"):
        data_of(path, metadata_file=pipe)
    os.mkfifo(tmp_path / "volume.mrc.mdoc")
    assert_readable(data_of(path))


@needs_fifo
@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("mmap", [False, True])
def test_pipe_in_the_files_place_is_never_waited_for(path: Path, mmap: bool) -> None:
    data = data_of(path, mmap=mmap)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(MrcError, match=r"volume\.mrc: "):
        data.load()


# stores that fail -------------------------------------------------------------------------------


class FailingServer(servers.HttpServer):
    """Fails in ways that can be set at any time.

    `fail` requests are answered with 503; `hang` answers none, until it is cleared; `cut` closes
    the connection after so many bytes of an answer that promised more.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.RequestHandlerClass = _FailingHandler
        self.fail = 0
        self.status = 503
        self.hang = False
        self.cut: int | None = None
        self.ended = threading.Event()


class _FailingHandler(servers._Handler):
    server: FailingServer

    def _answer(self, *, with_body: bool) -> None:
        server = self.server
        if server.hang:
            server.ended.wait(30)
            return
        if server.fail:
            server.fail -= 1
            self.send_error(server.status)
            return
        if with_body and server.cut is not None:
            self.wfile = _Cut(self.wfile, server.cut)
            self.close_connection = True
        super()._answer(with_body=with_body)


class _Cut(io.BufferedIOBase):
    """Passes on what is written first, the headers, and the beginning of what is written next."""

    def __init__(self, file: Any, nbytes: int) -> None:
        self.file = file
        self.lengths = iter([None, nbytes])

    def write(self, data: Any) -> int:
        self.file.write(data[: next(self.lengths)])
        return len(data)

    def flush(self) -> None:
        self.file.flush()


@pytest.fixture
def http(path: Path) -> Iterator[FailingServer]:
    with FailingServer(path.parent) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.ended.set()
            server.shutdown()
            thread.join()


def test_connection_that_is_closed_early_is_an_error(http: FailingServer) -> None:
    data = data_of(http.url("volume.mrc"))
    for read in (data.load, lambda: data_of(http.url("volume.mrc"))):
        http.cut = 100
        with pytest.raises(OSError, match="not completed"):
            read()
        http.cut = None
        # the connection that was closed is not used again
        read()
    assert_readable(data_of(http.url("volume.mrc")))


def test_server_that_fails_is_an_error_with_the_status(http: FailingServer) -> None:
    url = http.url("volume.mrc")
    # fsspec asks by GET where HEAD fails
    http.fail = 2
    with pytest.raises(OSError, match="The server can't send the file now: 503") as raised:
        data_of(url)
    assert raised.value.errno == errno.EIO
    data = data_of(url)
    # the array is none the worse for it, and neither is one that failed after its first pixels
    for read in (data.load, data[3].load):
        http.fail = 1
        with pytest.raises(OSError, match="The server can't send the file now: 503") as raised:
            read()
        assert raised.value.errno == errno.EIO
        assert_readable(data)


def test_server_that_refuses_is_no_missing_file(http: FailingServer) -> None:
    http.fail, http.status = 2, 403
    with pytest.raises(PermissionError, match="The server refuses access: 403 Forbidden"):
        data_of(http.url("volume.mrc"))
    with pytest.raises(FileNotFoundError):
        data_of(http.url("nothing.mrc"))


async def retry(request: aiohttp.ClientRequest, handler: Any) -> aiohttp.ClientResponse:
    """Ask again, as in aiohttp's documentation."""
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
def test_storage_options_ask_a_failing_server_again(http: FailingServer) -> None:
    http.fail = 3
    options = {"client_kwargs": {"middlewares": (retry,)}}
    data = data_of(http.url("volume.mrc"), storage_options=options)
    http.fail = 3
    assert_readable(data)
    assert http.fail == 0


def as_s3(http: FailingServer, **config: Any) -> dict[str, Any]:
    """Take the server for an S3 endpoint: the files of its folders are objects in buckets."""
    folder = http.directory / "bucket"
    folder.mkdir(exist_ok=True)
    write(folder / "volume.mrc", PIXELS)
    endpoint = http.url("").rstrip("/")
    return {"anon": True, "endpoint_url": endpoint, "config_kwargs": config}


@pytest.mark.slow
def test_s3_is_asked_again_where_it_fails(http: FailingServer) -> None:
    """botocore does so, as often as storage_options say."""
    options = as_s3(http, retries={"max_attempts": 2, "mode": "standard"})
    data = data_of("s3://bucket/volume.mrc", storage_options=options)
    http.fail = 1
    assert_readable(data)
    assert http.fail == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["http", "s3"])
def test_server_that_never_answers_is_a_timeout(
    http: FailingServer, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "http":
        url = http.url("volume.mrc")
        options: dict[str, Any] = {"client_kwargs": {"timeout": aiohttp.ClientTimeout(total=0.3)}}
    else:
        url = "s3://bucket/volume.mrc"
        options = as_s3(http, read_timeout=0.3, retries={"max_attempts": 0})
        # else it tries five times five times
        monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    data = data_of(url, storage_options=options)
    compared = data_of(url, storage_options=options)
    compared[0].load()
    http.hang = True
    for read in (lambda: data_of(url, storage_options=options), data.load, compared[1].load):
        start = time.perf_counter()
        with pytest.raises(TimeoutError, match="did not answer in time"):
            read()
        assert time.perf_counter() - start < 4
    http.hang = False
    assert_readable(data)


# threads and forks ------------------------------------------------------------------------------


@pytest.mark.slow
@needs_proc
def test_two_hundred_threads_read_one_array(either: Path) -> None:
    data = data_of(either)
    data[0].load()
    before = open_descriptors()
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
    assert open_descriptors() <= before


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
        yield str(write_mrcz(path.with_suffix(".mrcz"), PIXELS))
    else:
        yield str(path)


def read_in_fork(data: xr.DataArray) -> str:
    """Read all in a forked process; return what went wrong there."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        answer = "no answer"
        try:
            signal.alarm(20)
            answer = "" if np.array_equal(data.values, PIXELS) else "other pixels"
        except BaseException as error:
            answer = repr(error)
        finally:
            os.write(write_end, answer.encode())
            os._exit(0)
    os.close(write_end)
    with open(read_end) as file:
        answer = file.read()
    _, status = os.waitpid(child, 0)
    return answer if not status else f"{answer} {status}"


@needs_fork
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize(
    "before", ["opened", "read", pytest.param("while a thread reads", marks=pytest.mark.slow)]
)
def test_forked_process_reads_what_its_parent_opened(anywhere: str, before: str) -> None:
    data = data_of(anywhere)
    if before == "opened":
        assert read_in_fork(data) == ""
        return
    assert_readable(data)
    assert read_in_fork(data) == ""
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
        # each at another moment of the other's read
        assert [read_in_fork(data) for _ in range(8)] == [""] * 8
    finally:
        ended.set()
        thread.join()
    assert not wrong


# over and over ----------------------------------------------------------------------------------


@pytest.mark.slow
@needs_proc
def test_a_thousand_openings_leave_no_file_open(tmp_path: Path) -> None:
    paths = [write(tmp_path / "a.mrc", PIXELS), write_mrcz(tmp_path / "a.mrcz", PIXELS)]
    for path in paths:
        data_of(path).load()
    gc.collect()
    before = open_descriptors()
    arrays = [data_of(paths[k % 2]) for k in range(1000)]
    # not even while the arrays are there
    assert open_descriptors() <= before
    assert len(arrays) == 1000


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
        # what is made once, and the memory that a thread reuses to decode from
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


# the last, as a cluster opens and closes sockets ------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The specified chunks separate the stored chunks")
def test_worker_that_is_killed_costs_time_alone(client: Client, either: Path) -> None:
    data = xr.open_dataset(either, engine="mrc", chunks={either_dim(either): 1}).data

    def slow(section: Array) -> Array:
        time.sleep(0.1)
        return section + np.int16(1)

    processes = client.run(os.getpid)
    result = client.compute(data.data.map_blocks(slow, dtype="i2"))
    # some sections are done, and some are not
    time.sleep(0.5)
    assert result.status == "pending"
    os.kill(min(processes.values()), signal.SIGKILL)
    np.testing.assert_array_equal(result.result(timeout=30), PIXELS + np.int16(1))


def either_dim(path: Path) -> str:
    return str(data_of(path).dims[0])
