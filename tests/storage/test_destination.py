"""Where complete files go: compressed on a disk, or to a store."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import by_hand
import dask
import fsspec
import numpy as np
import pytest
import servers
import xarray as xr
from distributed import Client
from writes import OLD, OLD_PIXELS, PIXELS, Array, by_two, fail, modes_of_parts, once, read, volume

from mrc_xarray import MrcError, to_mrc
from mrc_xarray.storage import destination
from mrc_xarray.storage.destination import StoreDestination
from mrc_xarray.storage.sink import open_sink

MiB = 1024**2
# of more than one part: S3 takes parts of 5 MiB and more
LARGE = np.random.default_rng(0).integers(-(2**15), 2**15, (24, 512, 512), "i2")

names = pytest.mark.parametrize("name", ["a.mrc", "a.mrcz", "a.mrc.gz"])
new_and_old = pytest.mark.parametrize("before", [None, OLD], ids=["new", "old"])


class Store:
    """A folder of a store, whose listings are not cached."""

    def __init__(self, root: str, **options: Any) -> None:
        self.root = root
        self.options = options
        self.fs, self.folder = fsspec.url_to_fs(root, use_listings_cache=False, **options)

    def url(self, name: str) -> str:
        return f"{self.root}/{name}"

    def put(self, name: str, data: bytes) -> None:
        self.fs.pipe_file(f"{self.folder}/{name}", data)

    def get(self, name: str) -> bytes | None:
        found: bytes = self.fs.cat_file(f"{self.folder}/{name}") if name in self.names() else None
        return found

    def names(self) -> list[str]:
        self.fs.invalidate_cache()
        return [path.rpartition("/")[2] for path in self.fs.find(self.folder)]

    def unfinished(self) -> list[Any]:
        """Return the uploads of parts that were neither completed nor aborted."""
        found: list[Any] = []
        if self.root.startswith("s3"):
            found = self.fs.list_multipart_uploads(self.folder)
        return found

    def write(self, data: Any, name: str, **options: Any) -> Any:
        return to_mrc(data, self.url(name), storage_options=self.options, **options)

    def read(self, name: str) -> Array:
        return read(self.url(name), storage_options=self.options)


@pytest.fixture(scope="module")
def s3_server() -> Iterator[servers.S3]:
    with servers.s3_server() as s3:
        yield s3


@pytest.fixture
def s3(s3_server: servers.S3) -> Iterator[Store]:
    store = Store(
        f"s3://{s3_server.bucket}", default_block_size=5 * MiB, **s3_server.storage_options
    )
    yield store
    for name in store.names():
        store.fs.rm_file(f"{store.folder}/{name}")


@pytest.fixture(params=["memory", pytest.param("s3", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    is_s3 = request.param == "s3"
    store = request.getfixturevalue("s3") if is_s3 else Store("memory://written")
    store.put("other", b"not touched")
    yield store
    if not is_s3:
        store.fs.rm(store.folder, recursive=True)


def test_compression_stops_after_an_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After Ctrl-C a thread may still compress the file, which has been discarded."""
    sink = open_sink(tmp_path / "a.mrc.gz", None, overwrite=False)
    sink.begin(8 * MiB)
    written: list[int] = []

    class Encoder(gzip.GzipFile):
        def write(self, data: Any) -> int:
            sink.discard()
            written.append(len(data))
            return super().write(data)

    def encoder(codec: str, file: BinaryIO, name: str) -> gzip.GzipFile:
        assert codec == "gzip"
        return Encoder("", "wb", 1, file)

    monkeypatch.setattr(destination, "encoder", encoder)
    with pytest.raises(MrcError, match=r"a\.mrc\.gz: writing was interrupted"):
        sink.finish(b"head")
    assert written == [MiB]
    assert os.listdir(tmp_path) == []


@names
@new_and_old
def test_store_gets_the_complete_file(
    store: Store, tmp_path: Path, name: str, before: bytes | None
) -> None:
    if before is not None:
        store.put(name, before)
    assert store.write(volume(), name, overwrite=True) is None
    assert store.names() == sorted(["other", name])
    found = store.get(name)
    assert found is not None
    (tmp_path / name).write_bytes(found)
    np.testing.assert_array_equal(read(tmp_path / name), PIXELS)


@new_and_old
def test_raising_task_leaves_a_store_as_it_was(store: Store, before: bytes | None) -> None:
    if before is not None:
        store.put("a.mrc", before)
    listed = store.names()
    with pytest.raises(RuntimeError, match="beyond repair"):
        store.write(once(fail), "a.mrc", overwrite=True)
    assert store.get("a.mrc") == before
    assert store.names() == listed
    assert store.unfinished() == []


def test_existing_object_is_not_overwritten(store: Store) -> None:
    store.put("a.mrc", OLD)
    with pytest.raises(FileExistsError, match=r"a\.mrc"):
        store.write(once(fail), "a.mrc")
    assert store.get("a.mrc") == OLD


def test_object_that_appeared_meanwhile_is_not_replaced(store: Store) -> None:
    with pytest.raises(FileExistsError, match="overwrite"):
        store.write(once(lambda: store.put("a.mrc", OLD)), "a.mrc")
    assert store.get("a.mrc") == OLD
    assert store.unfinished() == []


@pytest.mark.slow
@pytest.mark.parametrize("pixels", [PIXELS, LARGE], ids=["one part", "several parts"])
def test_conditional_put_decides_between_two_writers(
    s3: Store, monkeypatch: pytest.MonkeyPatch, pixels: Array
) -> None:
    """S3 itself refuses the second writer."""
    monkeypatch.setattr(StoreDestination, "check", lambda self: None)
    with pytest.raises(FileExistsError, match="overwrite"):
        s3.write(volume(pixels, lambda section: s3.put("a.mrc", OLD), 12), "a.mrc")
    assert s3.get("a.mrc") == OLD
    s3.write(pixels, "a.mrc", overwrite=True)
    np.testing.assert_array_equal(s3.read("a.mrc"), pixels)
    assert s3.unfinished() == []


@by_two
def test_object_that_is_read_lazily_is_overwritten(store: Store) -> None:
    store.write(PIXELS, "a.mrc")
    options = {"chunks": {"z": 2}, "storage_options": store.options}
    ds = xr.open_dataset(store.url("a.mrc"), engine="mrc", **options)
    store.write(ds + np.int16(1), "a.mrc", overwrite=True)
    np.testing.assert_array_equal(store.read("a.mrc"), PIXELS + np.int16(1))


@pytest.mark.parametrize("options", [{"region": {"z": slice(0, 4)}}, {"append_dim": "z"}])
def test_object_can_not_be_changed_in_place(store: Store, options: dict[str, Any]) -> None:
    store.put("a.mrc", OLD)
    with pytest.raises(MrcError, match=r"a\.mrc.*only a file on a disk"):
        store.write(OLD_PIXELS, "a.mrc", **options)
    assert store.get("a.mrc") == OLD


def test_temporary_file_of_an_upload_is_private(tmp_path: Path) -> None:
    seen: list[int] = []
    with dask.config.set({"temporary-directory": str(tmp_path)}):
        to_mrc(once(lambda: seen.extend(modes_of_parts(tmp_path))), "memory://private/a.mrc")
    assert seen == [0o600]
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
@by_two
@names
def test_workers_read_and_write_s3(client: Client, s3: Store, name: str) -> None:
    s3.put("source.mrc", by_hand.mrc(PIXELS))
    options = {"chunks": {"z": 3}, "storage_options": s3.options}
    ds = xr.open_dataset(s3.url("source.mrc"), engine="mrc", **options)
    write = s3.write(ds + np.int16(1), name, compute=False)
    assert s3.names() == ["source.mrc"]
    assert client.compute(write).result() is None
    np.testing.assert_array_equal(s3.read(name), PIXELS + np.int16(1))
    assert s3.unfinished() == []
