"""Where complete files go: compressed on a disk, to a store, or to an open file object."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
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


# file objects -----------------------------------------------------------------------------------

plain = pytest.mark.parametrize("data", [OLD_PIXELS, volume(OLD_PIXELS)], ids=["numpy", "dask"])


@plain
def test_file_begins_at_the_position_of_the_object(data: Any) -> None:
    file = io.BytesIO(b"in front of it" + bytes(9999))
    file.seek(len(b"in front of it"))
    to_mrc(data, file)
    raw = file.getvalue()
    assert raw.startswith(b"in front of it")
    assert file.tell() == len(raw)
    np.testing.assert_array_equal(read(raw.removeprefix(b"in front of it")), OLD_PIXELS)
    assert raw.endswith(OLD_PIXELS.tobytes())


OPENERS: dict[str, Callable[[Path], Any]] = {
    "w+b": lambda path: path.open("w+b"),
    "unbuffered": lambda path: path.open("wb", buffering=0),
    "r+b": lambda path: path.open("r+b"),
    "temporary": lambda path: tempfile.NamedTemporaryFile(  # noqa: SIM115  # closed by the test
        dir=path.parent, suffix=path.suffix
    ),
    "local": lambda path: fsspec.open(str(path), "wb").open(),
    "fsspec": lambda path: fsspec.open(f"memory://objects/{path.name}", "wb").open(),
}


@pytest.mark.parametrize(
    ("opener", "name"),
    [*((opener, "a.mrcz") for opener in OPENERS), ("r+b", "a.mrc"), ("local", "a.mrc.gz")],
)
def test_name_of_an_object_has_a_suffix(tmp_path: Path, opener: str, name: str) -> None:
    (tmp_path / name).write_bytes(bytes(9999))
    with OPENERS[opener](tmp_path / name) as file:
        to_mrc(OLD_PIXELS, file)
        assert not file.closed
        where = file.name if opener == "temporary" else tmp_path / name
        if opener == "fsspec":
            file.close()
            where = f"memory://objects/{name}"
        data = xr.load_dataarray(where, engine="mrc")
    np.testing.assert_array_equal(data, OLD_PIXELS)
    assert ("mrcz_codec" in data.attrs) == (name == "a.mrcz")
    assert ("mrc_stream" in data.attrs) == (name == "a.mrc.gz")


def test_object_that_can_not_seek(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive, archive.open("a.mrc", "w") as file:
        to_mrc(OLD_PIXELS, file)
    np.testing.assert_array_equal(read(tmp_path / "a.zip"), OLD_PIXELS)
    with gzip.open(tmp_path / "a.mrc.gz", "wb") as file:
        to_mrc(OLD_PIXELS, file)
    assert gzip.decompress((tmp_path / "a.mrc.gz").read_bytes()).endswith(OLD_PIXELS.tobytes())


@pytest.mark.parametrize(
    ("target", "compression", "decompress"),
    [
        (io.BytesIO, "gzip", gzip.decompress),
        (lambda: "a.mrc", "bzip2", bz2.decompress),
        (lambda: "a.xz", "bz2", bz2.decompress),
        (io.BytesIO, "xz", lzma.decompress),
        (lambda: "a.mrc", "lzma", lzma.decompress),
        (io.BytesIO, None, bytes),
    ],
)
def test_compression_of_any_name(
    tmp_path: Path, monkeypatch: Any, target: Any, compression: Any, decompress: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    written = target()
    to_mrc(OLD_PIXELS, written, compression=compression)
    raw = Path(written).read_bytes() if isinstance(written, str) else written.getvalue()
    assert decompress(raw)[:4] == b"\6\0\0\0"
    assert decompress(raw)[1024:] == OLD_PIXELS.tobytes()
    np.testing.assert_array_equal(read(raw), OLD_PIXELS)


def test_name_without_its_compression(tmp_path: Path) -> None:
    to_mrc(OLD_PIXELS, tmp_path / "a.mrc.gz", compression=None)
    assert (tmp_path / "a.mrc.gz").read_bytes()[1024:] == OLD_PIXELS.tobytes()
    to_mrc(OLD_PIXELS, tmp_path / "a.mrcz", compressor=None, compression="gzip")
    assert gzip.decompress((tmp_path / "a.mrcz").read_bytes())[1024:] == OLD_PIXELS.tobytes()
    with pytest.raises(MrcError, match="already compressed"):
        to_mrc(OLD_PIXELS, tmp_path / "b.mrcz", compression="gzip")


@pytest.mark.parametrize(
    ("opener", "error", "named"),
    [
        (lambda path: path.open("rb"), OSError, r"a\.mrc|BufferedReader.* reading only"),
        (lambda path: path.open("r+"), TypeError, "open as text"),
        (lambda path: io.StringIO(), TypeError, "StringIO.*open as text"),
        (lambda path: fsspec.open(str(path), "wb"), TypeError, "OpenFile, which is not open"),
    ],
)
def test_objects_that_bytes_can_not_be_written_to(
    tmp_path: Path, opener: Any, error: Any, named: str
) -> None:
    (tmp_path / "a.mrc").write_bytes(OLD)
    with contextlib.closing(opener(tmp_path / "a.mrc")) as file, pytest.raises(error, match=named):
        to_mrc(once(fail), file)
    assert (tmp_path / "a.mrc").read_bytes() == OLD


def test_failure_leaves_an_object_as_it_was(tmp_path: Path) -> None:
    file = io.BytesIO(OLD)
    with dask.config.set({"temporary-directory": str(tmp_path)}):
        with pytest.raises(RuntimeError, match="beyond repair"):
            to_mrc(once(fail), file)
        # pixels that come from the object itself
        to_mrc(xr.open_dataset(file, engine="mrc", chunks=None) + 1, file)
    np.testing.assert_array_equal(read(file.getvalue()), OLD_PIXELS + 1)
    assert os.listdir(tmp_path) == []


def test_object_is_written_by_a_delayed_task(tmp_path: Path) -> None:
    file = io.BytesIO()
    task = to_mrc(volume(OLD_PIXELS), file, compute=False)
    assert file.getvalue() == b""
    assert task is not None
    task.compute()
    np.testing.assert_array_equal(read(file.getvalue()), OLD_PIXELS)


@pytest.mark.slow
def test_workers_write_for_the_object_of_their_client(client: Client) -> None:
    file = io.BytesIO()
    to_mrc(volume(), file, compressor="zstd")
    np.testing.assert_array_equal(read(file.getvalue()), PIXELS)
    task = to_mrc(volume(), io.BytesIO(), compute=False)
    with pytest.raises(MrcError, match="this process does not have the file object"):
        client.compute(task).result()
