"""Where complete files go: compressed on a disk, or to a store."""

from __future__ import annotations

import gzip
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import boto3
import by_hand
import dask
import dask.array as da
import fsspec
import numpy as np
import pytest
import servers
import xarray as xr
from aiobotocore.client import AioBaseClient
from botocore.exceptions import ClientError
from distributed import Client

from mrc_xarray import MrcError, to_mrc
from mrc_xarray.storage import destination
from mrc_xarray.storage.destination import StoreDestination
from mrc_xarray.storage.sink import open_sink

Array = np.ndarray[Any, Any]
MiB = 1024**2

PIXELS = np.random.default_rng(4).integers(-(2**15), 2**15, (24, 32, 48), "i2")
OLD_PIXELS = np.arange(4 * 5 * 6, dtype="f4").reshape(4, 5, 6)
OLD = by_hand.mrc(OLD_PIXELS)

names = pytest.mark.parametrize("name", ["a.mrc", "a.mrcz", "a.mrc.gz"])
by_two = pytest.mark.filterwarnings("ignore:The specified chunks separate the stored chunks")


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

    def clear(self) -> None:
        fsspec.filesystem("memory").rm("/written", recursive=True)


class S3Store:
    """A bucket that is asked without fsspec."""

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
        found = self.client.list_multipart_uploads(Bucket=self.bucket)
        uploads: list[Any] = found.get("Uploads", [])
        return uploads

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
def s3(s3_store: S3Store) -> Iterator[S3Store]:
    yield s3_store
    s3_store.clear()


Store = MemoryStore | S3Store


@pytest.fixture(params=["memory", pytest.param("s3", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    store: Store = MemoryStore() if request.param == "memory" else request.getfixturevalue("s3")
    store.put("other", b"not touched")
    yield store
    store.clear()


def volume(pixels: Array, act: Any = lambda section: None) -> xr.DataArray:
    """Return a volume in blocks of one section, each of which calls `act` when computed."""

    def block(part: Any, block_info: Any = None) -> Any:
        act(block_info[0]["array-location"][0][0])
        return part

    lazy = da.from_array(pixels, chunks=(1, -1, -1))
    meta = np.empty((0, 0, 0), pixels.dtype)
    return xr.DataArray(lazy.map_blocks(block, meta=meta), dims=("z", "y", "x"))


def stored(store: Store, name: str) -> Array:
    options = {"engine": "mrc", "storage_options": store.options}
    pixels: Array = xr.open_dataarray(store.url(name), **options).values
    return pixels


# compressed on a disk ----------------------------------------------------------------------------


def test_compression_stops_after_the_write_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After Ctrl-C a thread may still compress the file, which is discarded meanwhile."""
    sink = open_sink(tmp_path / "a.mrc.gz", None, overwrite=False)
    sink.begin(8 * MiB)

    class Encoder(gzip.GzipFile):
        n_written = 0

        def write(self, data: Any) -> int:
            sink.discard()
            Encoder.n_written += len(data)
            return super().write(data)

    def encoder(codec: str, file: BinaryIO, name: str) -> gzip.GzipFile:
        assert codec == "gzip"
        return Encoder("", "wb", 1, file)

    monkeypatch.setattr(destination, "encoder", encoder)
    with pytest.raises(MrcError, match=r"a\.mrc\.gz: writing was interrupted"):
        sink.finish(b"head")
    assert Encoder.n_written < 2 * MiB
    assert os.listdir(tmp_path) == []


# stores ------------------------------------------------------------------------------------------


@names
@pytest.mark.parametrize("before", [None, OLD], ids=["new", "old"])
def test_store_gets_the_same_file_as_a_disk(
    store: Store, tmp_path: Path, name: str, before: bytes | None
) -> None:
    if before is not None:
        store.put(name, before)
    url = store.url(name)
    assert to_mrc(volume(PIXELS), url, overwrite=True, storage_options=store.options) is None
    assert store.names() == sorted(["other", name])
    to_mrc(volume(PIXELS), tmp_path / name)
    assert store.get(name) == (tmp_path / name).read_bytes()
    np.testing.assert_array_equal(stored(store, name), PIXELS)


@pytest.mark.parametrize("before", [None, OLD], ids=["new", "old"])
def test_raising_task_leaves_a_store_as_it_was(store: Store, before: bytes | None) -> None:
    if before is not None:
        store.put("a.mrc", before)
    listed = store.names()
    # of more than one part
    noise = np.random.default_rng(0).integers(-(2**15), 2**15, (18, 512, 1024), "i2")

    def act(section: int) -> None:
        if section == 17:
            raise RuntimeError("beyond repair")

    with pytest.raises(RuntimeError, match="beyond repair"):
        to_mrc(
            volume(noise, act), store.url("a.mrc"), overwrite=True, storage_options=store.options
        )
    assert store.get("a.mrc") == before
    assert store.names() == listed
    assert store.unfinished() == []


def test_existing_object_is_not_overwritten_unasked(store: Store) -> None:
    store.put("a.mrc", OLD)
    computed: list[int] = []
    with pytest.raises(FileExistsError, match=r"a\.mrc"):
        to_mrc(volume(PIXELS, computed.append), store.url("a.mrc"), storage_options=store.options)
    assert computed == []
    assert store.get("a.mrc") == OLD


def test_object_that_appeared_meanwhile_is_not_replaced(store: Store) -> None:
    data = volume(PIXELS, lambda section: store.put("a.mrc", OLD))
    with pytest.raises(FileExistsError, match="overwrite"):
        to_mrc(data, store.url("a.mrc"), storage_options=store.options)
    assert store.get("a.mrc") == OLD
    assert store.unfinished() == []


@pytest.mark.slow
@pytest.mark.parametrize("n_columns", [48, 8192])
def test_conditional_put_decides_between_two_writers(
    s3: S3Store, monkeypatch: pytest.MonkeyPatch, n_columns: int
) -> None:
    """S3 itself refuses the second writer, whether it sends one part or several."""
    monkeypatch.setattr(StoreDestination, "check", lambda self: None)
    wide = np.zeros((24, 32, n_columns), "i2")
    data = volume(wide, lambda section: s3.put("a.mrc", OLD))
    with pytest.raises(FileExistsError, match="overwrite"):
        to_mrc(data, s3.url("a.mrc"), storage_options=s3.options)
    assert s3.get("a.mrc") == OLD
    to_mrc(wide, s3.url("a.mrc"), overwrite=True, storage_options=s3.options)
    np.testing.assert_array_equal(stored(s3, "a.mrc"), wide)


@by_two
def test_object_that_is_read_lazily_is_overwritten(store: Store) -> None:
    url = store.url("a.mrc")
    to_mrc(PIXELS, url, storage_options=store.options)
    ds = xr.open_dataset(url, engine="mrc", chunks={"z": 2}, storage_options=store.options)
    to_mrc(ds.data + np.int16(1), url, overwrite=True, storage_options=store.options)
    np.testing.assert_array_equal(stored(store, "a.mrc"), PIXELS + np.int16(1))


@pytest.mark.parametrize("options", [{"region": {"z": slice(0, 4)}}, {"append_dim": "z"}])
def test_object_can_not_be_changed_in_place(options: dict[str, Any]) -> None:
    store = MemoryStore()
    store.put("a.mrc", OLD)
    with pytest.raises(MrcError, match=r"a\.mrc.*only a file on a disk"):
        to_mrc(OLD_PIXELS, store.url("a.mrc"), **options)
    assert store.get("a.mrc") == OLD
    store.clear()


def test_nobody_else_reads_the_temporary_file_of_an_upload(tmp_path: Path) -> None:
    seen: list[int] = []

    def look(section: int) -> None:
        seen.extend(stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob(".*.part"))

    with dask.config.set({"temporary-directory": str(tmp_path)}):
        to_mrc(volume(PIXELS, look), "memory://private/a.mrc")
    assert set(seen) == {0o600}
    assert os.listdir(tmp_path) == []


def test_uploading_again_does_no_harm() -> None:
    sink = open_sink("memory://again/a.mrc", None, overwrite=False)
    sink.begin(8)
    sink.finish(b"head")
    sink.finish(b"head")
    assert fsspec.filesystem("memory").cat_file("/again/a.mrc") == b"head\0\0\0\0"
    assert not sink.part.is_there


@pytest.mark.parametrize("overwrite", [False, True])
def test_server_that_takes_no_files_is_named(tmp_path: Path, overwrite: bool) -> None:
    with (
        servers.http_server(tmp_path) as server,
        pytest.raises(MrcError, match=r"a\.mrc: this kind of URL can't be written to"),
    ):
        to_mrc(PIXELS, server.url("a.mrc"), overwrite=overwrite)


@pytest.mark.slow
def test_large_file_goes_to_s3_in_parts(s3: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = AioBaseClient._make_api_call

    async def call(self: Any, operation: str, *args: Any, **kwargs: Any) -> Any:
        calls.append(operation)
        return await real(self, operation, *args, **kwargs)

    monkeypatch.setattr(AioBaseClient, "_make_api_call", call)
    pixels = np.random.default_rng(1).integers(-(2**15), 2**15, (12, 512, 1024), "i2")
    to_mrc(volume(pixels), s3.url("large.mrc"), storage_options=s3.options)
    assert calls.count("CreateMultipartUpload") == 1
    assert calls.count("UploadPart") >= 2
    assert s3.unfinished() == []
    found = s3.get("large.mrc")
    assert found is not None
    assert found[1024:] == pixels.tobytes()


@pytest.mark.slow
@by_two
@names
def test_workers_read_and_write_s3(client: Client, s3: S3Store, name: str) -> None:
    s3.put("source.mrc", by_hand.mrc(PIXELS))
    options = {"chunks": {"z": 3}, "storage_options": s3.options}
    ds = xr.open_dataset(s3.url("source.mrc"), engine="mrc", **options)
    write = to_mrc(ds + np.int16(1), s3.url(name), compute=False, storage_options=s3.options)
    assert s3.names() == ["source.mrc"]
    assert client.compute(write).result() is None
    np.testing.assert_array_equal(stored(s3, name), PIXELS + np.int16(1))
    assert s3.unfinished() == []
