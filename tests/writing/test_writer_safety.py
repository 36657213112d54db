"""Whatever happens in mid-write, the target is what it was, or complete; anywhere."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import pickle
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import by_hand
import dask
import dask.array as da
import fsspec
import mrcfile
import mrcz
import numpy as np
import pytest
import servers
import xarray as xr
from aiobotocore.client import AioBaseClient
from botocore.exceptions import ClientError
from distributed import Client

from mrc_xarray import MrcError, MrcWarning, to_mrc
from mrc_xarray.storage import filesystem
from mrc_xarray.storage.sink import NewFile
from mrc_xarray.storage.upload import Upload
from mrc_xarray.writing import writer
from mrc_xarray.writing.plan import Plan, append_blocks, compress_block, finish_mrcz

Array = np.ndarray[Any, Any]
MiB = 1024**2

PIXELS = np.random.default_rng(4).integers(-(2**15), 2**15, (24, 32, 48), "i2")
OLD_PIXELS = np.arange(4 * 5 * 6, dtype="f4").reshape(4, 5, 6)
OLD = by_hand.mrc(OLD_PIXELS)

kinds = pytest.mark.parametrize("suffix", [".mrc", ".mrcz"])
# chunks smaller than what is offered, so that there is work for everyone
by_two = pytest.mark.filterwarnings("ignore:The specified chunks separate the stored chunks")


@pytest.fixture(params=["threads", "cluster"])
def anywhere(request: pytest.FixtureRequest) -> Iterator[None]:
    """Computing in threads of this process, and on workers."""
    if request.param == "threads":
        with dask.config.set(scheduler="threads", num_workers=4):
            yield
    else:
        with request.getfixturevalue("client").as_current():
            yield


@pytest.fixture(params=["new", "old"])
def before(request: pytest.FixtureRequest) -> bytes | None:
    """What is at the target's name already."""
    return {"new": None, "old": OLD}[request.param]


def each(lazy: da.Array, act: Callable[[int], Any]) -> xr.DataArray:
    """Label sections as a volume, and call `act` with the first section of each block."""

    def block(part: Any, block_info: Any = None) -> Any:
        act(block_info[0]["array-location"][0][0])
        return part

    meta = np.empty((0, 0, 0), lazy.dtype)
    return xr.DataArray(lazy.map_blocks(block, meta=meta), dims=("z", "y", "x"))


def one_by_one(pixels: Array = PIXELS) -> da.Array:
    return da.from_array(pixels, chunks=(1, -1, -1))


def breaking(pixels: Array = PIXELS, at: int = 17) -> xr.DataArray:
    def act(section: int) -> None:
        if section == at:
            raise RuntimeError(f"section {at} is beyond repair")

    return each(one_by_one(pixels), act)


def read(path: Path | str, **options: Any) -> Array:
    pixels: Array = xr.open_dataset(path, engine="mrc", **options).data.values
    return pixels


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def put(path: Path, content: bytes | None) -> list[str]:
    """Write what is there before, and return the names in its directory."""
    if content is not None:
        path.write_bytes(content)
    return names(path.parent)


def content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def wait_for(condition: Callable[[], Any], seconds: float = 15) -> Any:
    give_up = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < give_up
        time.sleep(0.005)
    return found


# killed -----------------------------------------------------------------------------------------

# writes 40 sections of 16 KiB, tells when it is at the 30th, and waits there
WRITER = """
import json, os, signal, sys, time
import dask.array as da
import numpy as np
import xarray as xr
import mrc_xarray

def block(part, block_info=None):
    if block_info[0]["array-location"][0][0] == 30:
        print("reached", flush=True)
        while not os.path.exists(go):
            time.sleep(0.01)
    return part + np.int16(7)

if __name__ == "__main__":
    # a shell's job in the background starts with it ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    target, go, options = sys.argv[1:]
    noise = np.random.default_rng(0).integers(0, 999, (40, 64, 128), "i2")
    lazy = da.from_array(noise, chunks=(1, -1, -1))
    lazy = lazy.map_blocks(block, meta=np.empty((0, 0, 0), "i2"))
    data = xr.DataArray(lazy, dims=("z", "y", "x"))
    mrc_xarray.to_mrc(data, target, **json.loads(options))
"""


class Writer:
    """The script in a process of its own, halfway through."""

    def __init__(self, target: Path, go: Path, **options: Any) -> None:
        self.go = go
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(target), str(go), json.dumps(options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Writer:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "reached\n", self.process.communicate()[1]
        return self

    def __exit__(self, *args: Any) -> None:
        self.go.touch()
        try:
            self.process.communicate(timeout=30)
        finally:
            self.process.kill()


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT])
@kinds
def test_killed_writer_leaves_the_old_file(
    tmp_path: Path, suffix: str, by: signal.Signals
) -> None:
    directory = tmp_path / "results"
    directory.mkdir()
    path = directory / f"volume{suffix}"
    path.write_bytes(OLD)
    with Writer(path, tmp_path / "go", overwrite=True) as writer:
        # it is in the middle of the temporary file
        wait_for(lambda: list(directory.glob(f".{path.name}.*.part")))
        writer.process.send_signal(by)
        if by == signal.SIGINT:
            # Ctrl-C: there is someone left to tidy up, and the threads still run
            wait_for(lambda: names(directory) == [path.name])
    assert writer.process.returncode != 0
    assert path.read_bytes() == OLD
    np.testing.assert_array_equal(read(path), OLD_PIXELS)
    if by == signal.SIGINT:
        assert names(directory) == [path.name]
    # the next writer removes the temporary files of a killed one
    to_mrc(PIXELS, path, overwrite=True)
    np.testing.assert_array_equal(read(path), PIXELS)
    assert names(directory) == [path.name]


def test_killed_append_leaves_the_old_sections(tmp_path: Path) -> None:
    pixels = PIXELS[:4, :1, :1] + np.zeros((4, 64, 128), "i2")
    path = tmp_path / "volume.mrc"
    path.write_bytes(before := by_hand.mrc(pixels))
    with Writer(path, tmp_path / "go", append_dim="z") as writer:
        writer.process.kill()
    assert path.read_bytes()[: len(before)] == before
    with warnings.catch_warnings():
        # bytes behind the last section
        warnings.simplefilter("ignore", MrcWarning)
        np.testing.assert_array_equal(read(path), pixels)


# what raises ------------------------------------------------------------------------------------


def check_nothing_happened(path: Path, before: bytes | None, listed: list[str]) -> None:
    assert content(path) == before
    assert names(path.parent) == listed
    if before is not None:
        np.testing.assert_array_equal(read(path), OLD_PIXELS)


@kinds
def test_raising_task_leaves_what_was_there(
    anywhere: None, tmp_path: Path, suffix: str, before: bytes | None
) -> None:
    path = tmp_path / f"volume{suffix}"
    listed = put(path, before)
    with pytest.raises(RuntimeError, match="section 17 is beyond repair") as caught:
        to_mrc(breaking(), path, overwrite=True)
    assert caught.value.__notes__
    check_nothing_happened(path, before, listed)


@kinds
def test_value_out_of_range_leaves_what_was_there(
    anywhere: None, tmp_path: Path, suffix: str, before: bytes | None
) -> None:
    path = tmp_path / f"volume{suffix}"
    listed = put(path, before)
    pixels = PIXELS.astype("f4")
    pixels[20, 3, 4] = 40000
    data = xr.DataArray(one_by_one(pixels), dims=("z", "y", "x"))
    with pytest.raises(MrcError, match="40000") as caught:
        to_mrc(data, path, mode=1, overwrite=True)
    assert "32767" in str(caught.value)
    check_nothing_happened(path, before, listed)


@kinds
@pytest.mark.parametrize("options", [{"mode": 0}, {"labels": ["x" * 81]}, {"compressor": "none!"}])
def test_bad_arguments_leave_what_was_there(
    tmp_path: Path, suffix: str, before: bytes | None, options: dict[str, Any]
) -> None:
    path = tmp_path / f"volume{suffix}"
    listed = put(path, before)
    with pytest.raises(ValueError, match=r"."):
        to_mrc(PIXELS, path, overwrite=True, **options)
    check_nothing_happened(path, before, listed)


@kinds
def test_delayed_write_that_raises_leaves_the_old_file(
    client: Client, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"volume{suffix}"
    path.write_bytes(OLD)
    delayed = to_mrc(breaking(), path, overwrite=True, compute=False)
    for run in (lambda: delayed.compute(), lambda: client.compute(delayed).result()):
        with pytest.raises(RuntimeError, match="section 17 is beyond repair"):
            run()
        assert path.read_bytes() == OLD


@kinds
def test_existing_file_is_not_overwritten_unasked(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"volume{suffix}"
    listed = put(path, OLD)
    with pytest.raises(FileExistsError, match="volume"):
        to_mrc(PIXELS, path)
    check_nothing_happened(path, OLD, listed)


# disks and directories --------------------------------------------------------------------------


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 1 MiB, for root."""
    with tempfile.TemporaryDirectory() as directory:
        try:
            command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", directory]
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"a file system can't be mounted here: {error}")
        try:
            yield Path(directory)
        finally:
            # even where something is still open
            subprocess.run(["umount", "--lazy", directory], check=True)


@kinds
def test_full_disk_leaves_what_was_there(
    anywhere: None, small_disk: Path, suffix: str, before: bytes | None
) -> None:
    path = small_disk / f"volume{suffix}"
    listed = put(path, before)
    # noise, that compression can't make smaller
    noise = np.random.default_rng(0).integers(-(2**15), 2**15, (32, 256, 256), "i2")
    with pytest.raises(OSError, match=r".") as caught:
        to_mrc(xr.DataArray(one_by_one(noise), dims=("z", "y", "x")), path, overwrite=True)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.__notes__
    check_nothing_happened(path, before, listed)
    # all the space is there again
    small = PIXELS[:16]
    to_mrc(small, path, overwrite=True)
    np.testing.assert_array_equal(read(path), small)


@kinds
def test_read_only_disk(small_disk: Path, suffix: str, before: bytes | None) -> None:
    path = small_disk / f"volume{suffix}"
    listed = put(path, before)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(OSError, match=r".") as caught:
        to_mrc(PIXELS, path, overwrite=True)
    assert caught.value.errno == errno.EROFS
    check_nothing_happened(path, before, listed)


@kinds
def test_missing_directory(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        to_mrc(PIXELS, tmp_path / "nowhere" / f"volume{suffix}")
    assert names(tmp_path) == []


@kinds
@pytest.mark.parametrize("overwrite", [False, True])
def test_target_that_is_a_directory(tmp_path: Path, suffix: str, overwrite: bool) -> None:
    path = tmp_path / f"volume{suffix}"
    path.mkdir()
    (path / "precious").touch()
    with pytest.raises((IsADirectoryError, FileExistsError), match="volume"):
        to_mrc(PIXELS, path, overwrite=overwrite)
    assert names(tmp_path) == [path.name]
    assert names(path) == ["precious"]


@kinds
def test_link_leads_to_the_new_file(tmp_path: Path, suffix: str) -> None:
    for name in ("links", "files"):
        (tmp_path / name).mkdir()
    file = tmp_path / "files" / f"volume{suffix}"
    file.write_bytes(OLD)
    link = tmp_path / "links" / f"linked{suffix}"
    link.symlink_to(Path("..", "files", file.name))
    to_mrc(PIXELS, link, overwrite=True)
    assert link.is_symlink()
    assert not file.is_symlink()
    assert names(link.parent) == [link.name]
    assert names(file.parent) == [file.name]
    np.testing.assert_array_equal(read(file), PIXELS)


@kinds
def test_permissions_are_the_old_files_or_the_umask(
    anywhere: None, tmp_path: Path, suffix: str
) -> None:
    new, old = tmp_path / f"new{suffix}", tmp_path / f"old{suffix}"
    old.write_bytes(OLD)
    old.chmod(0o604)
    umask = os.umask(0o027)
    try:
        for path in (new, old):
            to_mrc(PIXELS, path, overwrite=True)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(new.stat().st_mode) == 0o640
    assert stat.S_IMODE(old.stat().st_mode) == 0o604


# at every moment --------------------------------------------------------------------------------


@kinds
def test_target_is_old_or_complete_at_every_moment(
    anywhere: None, tmp_path: Path, suffix: str, before: bytes | None
) -> None:
    path = tmp_path / f"volume{suffix}"
    put(path, before)
    seen: list[bytes | None] = [before]
    done = threading.Event()

    def look() -> None:
        try:
            found = path.read_bytes()
        except FileNotFoundError:
            found = None
        if found != seen[-1]:
            seen.append(found)

    def watch() -> None:
        while not done.is_set():
            look()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        to_mrc(each(one_by_one(), lambda section: time.sleep(0.01)), path, overwrite=True)
    finally:
        done.set()
        watcher.join()
    look()
    assert len(seen) == 2
    np.testing.assert_array_equal(read(path), PIXELS)
    assert names(tmp_path) == [path.name]


@kinds
def test_two_writers_of_one_file_leave_what_one_of_them_wrote(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"volume{suffix}"
    versions = [PIXELS, PIXELS[:9] + np.int16(1)]
    with ThreadPoolExecutor() as pool:
        lazy = [each(one_by_one(v), lambda section: time.sleep(0.005)) for v in versions]
        list(pool.map(lambda data: to_mrc(data, path, overwrite=True), lazy))
    found = read(path)
    assert any(np.array_equal(found, version) for version in versions)
    assert names(tmp_path) == [path.name]


@by_two
@kinds
@pytest.mark.parametrize("chunks", [None, {"z": 2}])
def test_file_that_is_read_lazily_is_overwritten(
    anywhere: None, tmp_path: Path, suffix: str, chunks: dict[str, int] | None
) -> None:
    path = tmp_path / f"volume{suffix}"
    to_mrc(PIXELS, path)
    ds = xr.open_dataset(path, engine="mrc", chunks=chunks)
    to_mrc(ds + np.int16(1), path, overwrite=True)
    np.testing.assert_array_equal(read(path), PIXELS + np.int16(1))
    # half of it, by the accessor
    ds = xr.open_dataset(path, engine="mrc", chunks=chunks)
    ds.data[5:17, ::-1].mrc.to_file(path, overwrite=True)
    np.testing.assert_array_equal(read(path), PIXELS[5:17, ::-1] + np.int16(1))
    assert names(tmp_path) == [path.name]


@kinds
def test_nothing_is_touched_before_it_is_computed(tmp_path: Path, suffix: str) -> None:
    path, other = tmp_path / f"volume{suffix}", tmp_path / f"other{suffix}"
    path.write_bytes(OLD)
    computed = []
    lazy = each(one_by_one(), computed.append)
    delayed = to_mrc(lazy, path, overwrite=True, compute=False)
    also = to_mrc(PIXELS, other, compute=False)
    assert computed == []
    assert names(tmp_path) == [path.name]
    assert path.read_bytes() == OLD
    assert dask.compute(delayed, also) == (None, None)
    assert len(computed) == len(PIXELS)
    for written in (path, other):
        np.testing.assert_array_equal(read(written), PIXELS)
    assert names(tmp_path) == sorted([path.name, other.name])


# clusters ---------------------------------------------------------------------------------------


def check_oracle(path: Path, pixels: Array) -> None:
    """Let mrcfile or mrcz read it."""
    if path.suffix == ".mrcz":
        np.testing.assert_array_equal(np.squeeze(mrcz.readMRC(path)[0]), pixels)
        return
    with mrcfile.open(path) as file:
        np.testing.assert_array_equal(file.data, pixels)
        header = file.header
        assert header.dmin == pixels.min()
        assert header.dmax == pixels.max()
        assert header.dmean == pytest.approx(pixels.mean(dtype="f8"), rel=1e-6)
        assert header.rms == pytest.approx(pixels.std(dtype="f8"), rel=1e-6)


@by_two
@kinds
@pytest.mark.parametrize("how", ["current", "scheduler", "future"])
@pytest.mark.parametrize("chunks", [{"z": 2}, {"z": 5, "y": 7}])
def test_workers_write(
    client: Client, tmp_path: Path, suffix: str, how: str, chunks: dict[str, int]
) -> None:
    source, path = tmp_path / "source.mrc", tmp_path / f"volume{suffix}"
    source.write_bytes(by_hand.mrc(PIXELS))
    data = xr.open_dataset(source, engine="mrc", chunks=chunks).data + np.int16(3)
    if how == "current":
        with client.as_current():
            found = to_mrc(data, path)
    elif how == "scheduler":
        found = to_mrc(data, path, compute=False).compute(scheduler=client)
    else:
        found = client.compute(to_mrc(data, path, compute=False)).result()
    assert found is None
    np.testing.assert_array_equal(read(path), PIXELS + np.int16(3))
    check_oracle(path, PIXELS + np.int16(3))
    assert names(tmp_path) == sorted([source.name, path.name])


def test_workers_write_several_files_at_once(client: Client, tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}{suffix}" for i in range(3) for suffix in (".mrc", ".mrcz")]
    lazy = da.from_array(PIXELS, chunks=(4, -1, -1))
    delayed = [
        to_mrc(xr.DataArray(lazy + np.int16(i), dims=("z", "y", "x")), path, compute=False)
        for i, path in enumerate(paths)
    ]
    assert client.gather(client.compute(delayed)) == [None] * len(paths)
    for i, path in enumerate(paths):
        np.testing.assert_array_equal(read(path), PIXELS + np.int16(i))
    assert names(tmp_path) == sorted(path.name for path in paths)


@kinds
def test_worker_that_dies_costs_nothing(client: Client, tmp_path: Path, suffix: str) -> None:
    directory = tmp_path / "started"
    directory.mkdir()
    started = str(directory)
    path = tmp_path / f"volume{suffix}"
    path.write_bytes(OLD)

    def act(section: int) -> None:
        with open(f"{started}/{section}", "w"):
            time.sleep(0.05)

    pixels = np.concatenate([PIXELS, PIXELS[::-1], PIXELS, PIXELS[:, ::-1]])
    data = each(one_by_one(pixels), act)
    workers = client.run(os.getpid)
    future = client.compute(to_mrc(data, path, overwrite=True, compute=False))
    # one after the other, so that the one that has the most to lose is among them
    for i, (address, pid) in enumerate(workers.items()):
        wait_for(lambda i=i: len(names(directory)) >= 20 * (i + 1))
        assert not future.done()
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda address=address: address not in client.scheduler_info()["workers"])
        client.wait_for_workers(2, timeout=30)
    assert future.result(timeout=60) is None
    np.testing.assert_array_equal(read(path), pixels)
    check_oracle(path, pixels)


@kinds
def test_bulk_does_not_come_here(client: Client, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"volume{suffix}"
    shape = (64, 512, 1024)

    def noise(part: Any, block_info: Any = None) -> Any:
        # the first section's number is enough for a seed
        seed = block_info[0]["array-location"][0][0]
        return np.random.default_rng(seed).integers(-(2**15), 2**15, part.shape, "i2")

    lazy = da.zeros(shape, "i2", chunks=(2, -1, -1))
    lazy = lazy.map_blocks(noise, meta=np.empty((0, 0, 0), "i2"))
    delayed = to_mrc(xr.DataArray(lazy, dims=("z", "y", "x")), path, compute=False)
    # client and scheduler are in this process, and NumPy and distributed tell what they take
    tracemalloc.start()
    try:
        assert client.compute(delayed).result() is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > np.prod(shape)
    assert peak < 16 * MiB
    expected = np.random.default_rng(62).integers(-(2**15), 2**15, (2, *shape[1:]), "i2")
    np.testing.assert_array_equal(xr.open_dataset(path, engine="mrc").data[62:], expected)


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


# stores -----------------------------------------------------------------------------------------


class MemoryStore:
    """fsspec's files in memory."""

    options: dict[str, Any] = {}  # noqa: RUF012

    def url(self, name: str) -> str:
        return f"memory://written/{name}"

    def put(self, name: str, data: bytes) -> None:
        fsspec.filesystem("memory").pipe(f"/written/{name}", data)

    def get(self, name: str) -> bytes | None:
        fs = fsspec.filesystem("memory")
        return fs.cat(f"/written/{name}") if fs.exists(f"/written/{name}") else None

    def names(self) -> list[str]:
        found = fsspec.filesystem("memory").find("/written")
        return [name.removeprefix("/written/") for name in found]

    def unfinished(self) -> list[Any]:
        return []


class S3Store:
    """A bucket, asked without fsspec."""

    def __init__(self, s3: servers.S3) -> None:
        self.bucket = s3.bucket
        self.url = s3.url
        # the smallest parts that S3 takes
        self.options = {"default_block_size": 5 * MiB} | s3.storage_options
        self.client = boto3.client(
            "s3",
            endpoint_url=s3.endpoint,
            aws_access_key_id="key",
            aws_secret_access_key="secret",
            region_name="us-east-1",
        )

    def put(self, name: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=name, Body=data)

    def get(self, name: str) -> bytes | None:
        try:
            body = self.client.get_object(Bucket=self.bucket, Key=name)["Body"]
        except ClientError:
            return None
        found: bytes = body.read()
        body.close()
        return found

    def names(self) -> list[str]:
        found = self.client.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        return [entry["Key"] for entry in found]

    def unfinished(self) -> list[Any]:
        found: list[Any] = self.client.list_multipart_uploads(Bucket=self.bucket).get(
            "Uploads", []
        )
        return found

    def clear(self) -> None:
        for name in self.names():
            self.client.delete_object(Bucket=self.bucket, Key=name)


@pytest.fixture(scope="module")
def s3_store() -> Iterator[S3Store]:
    with servers.s3_server() as s3:
        store = S3Store(s3)
        yield store
        store.client.close()


@pytest.fixture
def memory() -> Iterator[MemoryStore]:
    yield MemoryStore()
    fsspec.filesystem("memory").rm("/written", recursive=True)


@pytest.fixture
def s3(s3_store: S3Store) -> Iterator[S3Store]:
    yield s3_store
    s3_store.clear()


Store = MemoryStore | S3Store


@pytest.fixture(params=["memory", "s3"])
def store(request: pytest.FixtureRequest) -> Store:
    found: Store = request.getfixturevalue(request.param)
    found.put("other", b"not touched")
    return found


def stored(store: Store, name: str) -> Array:
    return read(store.url(name), storage_options=store.options)


@kinds
@pytest.mark.parametrize("before", [None, OLD])
def test_store_gets_the_same_file_as_a_disk(
    store: Store, tmp_path: Path, suffix: str, before: bytes | None
) -> None:
    name = f"volume{suffix}"
    if before is not None:
        store.put(name, before)
    data = xr.DataArray(da.from_array(PIXELS, chunks=(5, 9, 20)), dims=("z", "y", "x"))
    url = store.url(name)
    assert to_mrc(data, url, overwrite=True, storage_options=store.options) is None
    assert store.names() == ["other", name]
    np.testing.assert_array_equal(stored(store, name), PIXELS)
    path = tmp_path / name
    found = store.get(name)
    assert found is not None
    path.write_bytes(found)
    check_oracle(path, PIXELS)


@pytest.mark.parametrize("suffix", [".mrc"])
def test_large_file_goes_to_s3_in_parts(
    s3: S3Store, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    calls = []
    real = AioBaseClient._make_api_call

    async def call(self: Any, operation: str, *args: Any, **kwargs: Any) -> Any:
        calls.append(operation)
        return await real(self, operation, *args, **kwargs)

    monkeypatch.setattr(AioBaseClient, "_make_api_call", call)
    # 60 MiB, half of them noise
    pixels = np.zeros((60, 512, 1024), "i2")
    pixels[::2] = np.random.default_rng(1).integers(-(2**15), 2**15, (30, 512, 1024), "i2")
    data = xr.DataArray(da.from_array(pixels, chunks=(3, -1, -1)), dims=("z", "y", "x"))
    name = f"large{suffix}"
    to_mrc(data, s3.url(name), storage_options=s3.options)
    assert calls.count("CreateMultipartUpload") == 1
    assert calls.count("UploadPart") >= 2
    assert s3.unfinished() == []
    found = s3.get(name)
    assert found is not None
    if suffix == ".mrc":
        assert found[1024:] == pixels.tobytes()
    np.testing.assert_array_equal(stored(s3, name), pixels)


@kinds
@pytest.mark.parametrize("before", [None, OLD])
def test_raising_task_leaves_a_store_as_it_was(
    store: Store, suffix: str, before: bytes | None
) -> None:
    name = f"volume{suffix}"
    if before is not None:
        store.put(name, before)
    listed = store.names()
    # beyond the first parts
    noise = np.random.default_rng(0).integers(-(2**15), 2**15, (18, 512, 1024), "i2")
    with pytest.raises(RuntimeError, match="section 17 is beyond repair"):
        to_mrc(breaking(noise), store.url(name), overwrite=True, storage_options=store.options)
    assert store.get(name) == before
    assert store.names() == listed
    assert store.unfinished() == []


@kinds
def test_existing_object_is_not_overwritten_unasked(store: Store, suffix: str) -> None:
    name = f"volume{suffix}"
    store.put(name, OLD)
    with pytest.raises(FileExistsError, match=name):
        to_mrc(PIXELS, store.url(name), storage_options=store.options)
    assert store.get(name) == OLD


@by_two
@kinds
def test_object_that_is_read_lazily_is_overwritten(store: Store, suffix: str) -> None:
    url = store.url(f"volume{suffix}")
    to_mrc(PIXELS, url, storage_options=store.options)
    ds = xr.open_dataset(url, engine="mrc", chunks={"z": 2}, storage_options=store.options)
    to_mrc(ds.data + np.int16(1), url, overwrite=True, storage_options=store.options)
    np.testing.assert_array_equal(stored(store, f"volume{suffix}"), PIXELS + np.int16(1))


@by_two
@kinds
def test_workers_read_and_write_s3(client: Client, s3: S3Store, suffix: str) -> None:
    s3.put("source.mrc", by_hand.mrc(PIXELS))
    ds = xr.open_dataset(
        s3.url("source.mrc"), engine="mrc", chunks={"z": 3}, storage_options=s3.options
    )
    url = s3.url(f"volume{suffix}")
    delayed = to_mrc(ds + np.int16(1), url, compute=False, storage_options=s3.options)
    assert s3.names() == ["source.mrc"]
    assert client.compute(delayed).result() is None
    np.testing.assert_array_equal(stored(s3, f"volume{suffix}"), PIXELS + np.int16(1))
    assert s3.unfinished() == []


@pytest.mark.parametrize("options", [{"region": {"z": slice(0, 4)}}, {"append_dim": "z"}])
def test_object_can_not_be_changed_in_place(store: Store, options: dict[str, Any]) -> None:
    store.put("volume.mrc", OLD)
    with pytest.raises((ValueError, NotImplementedError), match=r"volume\.mrc"):
        to_mrc(OLD_PIXELS, store.url("volume.mrc"), storage_options=store.options, **options)
    assert store.get("volume.mrc") == OLD


@kinds
def test_file_url_is_as_safe_as_a_path(tmp_path: Path, suffix: str, before: bytes | None) -> None:
    path = tmp_path / f"volume{suffix}"
    listed = put(path, before)
    with pytest.raises(RuntimeError, match="section 17 is beyond repair"):
        to_mrc(breaking(), f"file://{path}", overwrite=True)
    check_nothing_happened(path, before, listed)
    to_mrc(PIXELS, f"file://{path}", overwrite=True)
    np.testing.assert_array_equal(read(path), PIXELS)
    assert names(tmp_path) == [path.name]


# a cluster may run a task again ----------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 8])
def test_beginning_again_keeps_what_is_written(tmp_path: Path, size: int) -> None:
    sink = NewFile.at(str(tmp_path / "a.mrcz"), overwrite=False)
    sink.begin(size)
    sink.write([(0, b"12345678")])
    sink.begin(size)
    sink.finish(b"head")
    assert (tmp_path / "a.mrcz").read_bytes() == b"head5678"


def test_finishing_again_does_no_harm(tmp_path: Path) -> None:
    sink = NewFile.at(str(tmp_path / "a.mrc"), overwrite=False)
    sink.begin(8)
    sink.finish(b"head")
    sink.finish(b"head")
    assert os.listdir(tmp_path) == ["a.mrc"]


def test_uploading_again_does_no_harm() -> None:
    fs, path = filesystem("memory://again/a.mrc")
    assert fs is not None
    sink = Upload.at(fs, path, "memory://again/a.mrc", overwrite=False)
    sink.begin(8)
    sink.finish(b"head")
    sink.finish(b"head")
    assert fs.cat_file(path) == b"head\0\0\0\0"
    assert not sink.part.is_there


# blocks that differ when they are computed again -------------------------------------------------


def planned(path: Path, **options: Any) -> Plan:
    """Return the plan of an MRCZ of six sections, after `begin`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "_write", lambda plan, data, compute: plan)
        plan: Any = to_mrc(
            xr.DataArray(np.zeros((6, 64, 48), "i2"), dims=("z", "y", "x")), path, **options
        )
    plan.sink.begin(0).release()
    assert isinstance(plan, Plan)
    return plan


def compressed(plan: Plan, pixels: Array, first: int) -> Array:
    in_chunks = dataclasses.replace(plan, chunks=((first, len(pixels)), (64,), (48,)))
    block = compress_block(pixels, None, in_chunks, (1, 0, 0))
    # as it would arrive from another worker
    copy: Array = pickle.loads(pickle.dumps(block))
    return copy


def noise(seed: int, n: int, spread: int) -> Array:
    return np.random.default_rng(seed).integers(0, spread, (n, 64, 48), "i2")


@pytest.mark.parametrize("statistics", [True, "quick", False])
@pytest.mark.parametrize("compressor", ["zstd", "blosc2:zstd"])
@pytest.mark.parametrize("spread", [2, 30000])
@pytest.mark.parametrize("again", [0, 1])
def test_block_that_compresses_to_another_size_leaves_its_neighbours(
    tmp_path: Path, again: int, spread: int, compressor: str, statistics: Any
) -> None:
    """A worker with a result died, after the next blocks were placed after its block."""
    if compressor.startswith("blosc2"):
        pytest.importorskip("blosc2")
    path = tmp_path / "volume.mrcz"
    plan = planned(path, compressor=compressor, statistics=statistics)
    parts = [noise(seed, 2, 300) for seed in range(3)]
    ends: list[Any] = [None]
    for i, part in enumerate(parts):
        ends.append(append_blocks(compressed(plan, part, 2 * i), ends[-1], plan))
    other = compressed(plan, noise(9, 2, spread), 2 * again)
    assert append_blocks(other, ends[again], plan) == ends[again + 1]
    finish_mrcz(plan, ends[-1])
    pixels = np.concatenate(parts)
    np.testing.assert_array_equal(read(path), pixels)
    header = xr.open_dataset(path, engine="mrc").mrc.header
    measured = pixels[0] if statistics == "quick" else pixels
    expected = (measured.min(), measured.max()) if statistics else (0, -1)
    assert (header.dmin, header.dmax) == expected


@pytest.mark.parametrize("n_after", [0, 1, 2])
def test_block_that_was_not_complete_is_written_again(tmp_path: Path, n_after: int) -> None:
    """A worker died in the middle of a block: its first header is not there yet."""
    path = tmp_path / "volume.mrcz"
    plan = planned(path)
    parts = [noise(seed, 1, 300) for seed in range(6)]
    end = None
    for i, part in enumerate(parts):
        if i == 5 - n_after:
            # of the chunk that is computed again, it wrote more
            half = compressed(plan, np.concatenate([noise(9, 1, 30000)] * 3), i).item()[2]
            start = plan.offset if end is None else end[0]
            plan.sink.write([(start + 16, b"".join(half)[16:])])
        end = append_blocks(compressed(plan, part, i), end, plan)
    assert end is not None
    finish_mrcz(plan, end)
    np.testing.assert_array_equal(read(path), np.concatenate(parts))


@pytest.mark.parametrize("damage", ["zeros", "another block", "cut"])
def test_block_that_was_overwritten_is_found_before_publication(
    tmp_path: Path, damage: str
) -> None:
    """A worker that had lost its cluster wrote once more."""
    path = tmp_path / "volume.mrcz"
    plan = planned(path)
    end: Any = None
    starts = [plan.offset]
    for i in range(6):
        end = append_blocks(compressed(plan, noise(i, 1, 300), i), end, plan)
        starts.append(end[0])
    if damage == "cut":
        plan.sink.cut(starts[3])
    else:
        other = compressed(plan, noise(9, 1, 30000), 3).item()[2][0]
        plan.sink.write([(starts[3], bytes(16) if damage == "zeros" else other)])
    with pytest.raises(MrcError, match=r"section [34],.* was overwritten"):
        finish_mrcz(plan, end)
    assert not path.exists()


@by_two
@kinds
def test_worker_that_dies_under_a_random_pipeline(
    client: Client, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"volume{suffix}"

    def block(pixels: Any) -> Any:
        seed = np.random.default_rng()
        time.sleep(0.02)
        return seed.integers(0, seed.integers(2, 2**14), pixels.shape, "i2")

    lazy = da.zeros((40, 64, 48), chunks=(1, -1, -1), dtype="i2").map_blocks(block, dtype="i2")
    with client.as_current():
        done = client.compute(
            to_mrc(xr.DataArray(lazy, dims=("z", "y", "x")), path, compute=False)
        )
        wait_for(lambda: [p for p in tmp_path.glob(".*.part") if p.stat().st_size > 8192])
        os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
        done.result(timeout=60)
    pixels = read(path)
    assert pixels.shape == lazy.shape
    assert names(tmp_path) == [path.name]
    if suffix == ".mrcz":
        header = xr.open_dataset(path, engine="mrc").mrc.header
        assert (header.dmin, header.dmax) == (pixels.min(), pixels.max())


@kinds
@pytest.mark.parametrize(
    ("declared", "real"),
    [("f4", "f8"), ("i2", "i4"), ("i2", "f4"), ("u1", "i1"), ("f4", "c8"), ("i2", "U3")],
)
def test_block_of_another_type_than_declared_is_an_error(
    tmp_path: Path, suffix: str, declared: str, real: str
) -> None:
    lazy = da.zeros((4, 8, 8), chunks=2, dtype=declared)
    wrong = lazy.map_blocks(lambda block: block.astype(real), dtype=declared)
    path = tmp_path / f"volume{suffix}"
    with pytest.raises(MrcError, match=f"{np.dtype(real)}, which .* {np.dtype(declared)} that"):
        to_mrc(xr.DataArray(wrong, dims=("z", "y", "x")), path)
    assert names(tmp_path) == []


@kinds
def test_block_that_casts_safely_is_written(tmp_path: Path, suffix: str) -> None:
    lazy = da.ones((4, 8, 8), chunks=2, dtype="f4")
    narrow = lazy.map_blocks(lambda block: block.astype("i2"), dtype="f4")
    path = tmp_path / f"volume{suffix}"
    to_mrc(xr.DataArray(narrow, dims=("z", "y", "x")), path)
    np.testing.assert_array_equal(read(path), np.ones((4, 8, 8), "f4"))
