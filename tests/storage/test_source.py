"""Sources: a file that changes, ends early or can't be sent is an error that says so."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import by_hand
import fsspec
import numpy as np
import pytest
import servers
import xarray as xr

from mrc_xarray import MrcError
from mrc_xarray.storage import (
    FileObjectSource,
    LocalSource,
    MemorySource,
    StoreSource,
    local,
    open_source,
)

DATA = np.arange(5 * 6 * 7, dtype="i2").reshape(5, 6, 7)
BYTES = by_hand.mrc(DATA)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "volume.mrc"
    path.write_bytes(BYTES)
    return path


@pytest.fixture
def memory_url() -> Iterator[str]:
    fs = fsspec.filesystem("memory")
    fs.pipe("/sources/volume.mrc", BYTES)
    yield "memory://sources/volume.mrc"
    fs.rm("/sources", recursive=True)


def values(target: Any, **options: Any) -> np.ndarray:
    return xr.open_dataset(target, engine="mrc", **options).data.values


def read_into(source: Any, *ranges: tuple[int, int]) -> list[bytes]:
    buffers = [bytearray(stop - start) for start, stop in ranges]
    source.read_into(
        [(start, memoryview(b)) for (start, _), b in zip(ranges, buffers, strict=True)]
    )
    return [bytes(b) for b in buffers]


# every kind of source ---------------------------------------------------------------------------


@pytest.fixture
def member(path: Path) -> Iterator[Any]:
    """A file object that can't be opened again: a member of an archive."""
    archive = path.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as file:
        file.write(path, "member.mrc")
    with zipfile.ZipFile(archive) as file, file.open("member.mrc") as opened:
        yield opened


@pytest.fixture(params=["local", "http", "memory", "bytes", "file object"])
def source(request: pytest.FixtureRequest, path: Path) -> Any:
    targets = {
        "local": lambda: str(path),
        "http": lambda: request.getfixturevalue("http").url(path.name),
        "memory": lambda: request.getfixturevalue("memory_url"),
        "bytes": lambda: BYTES,
        "file object": lambda: request.getfixturevalue("member"),
    }
    return open_source(targets[request.param]())


RANGES = [(0, 4), (1024, 1100), (3, 3), (len(BYTES) - 1, len(BYTES)), (10, 1030)]


def test_source_reads_any_range_in_any_order(source: Any) -> None:
    assert source.size == len(BYTES)
    assert [source.read(start, stop - start) for start, stop in RANGES] == [
        BYTES[start:stop] for start, stop in RANGES
    ]
    assert read_into(source, *RANGES) == [BYTES[start:stop] for start, stop in RANGES]
    assert read_into(source) == []
    with source.fetching() as fetch:
        assert fetch(1020, 30) == BYTES[1020:1050]
    assert source.read_all() == BYTES


def test_source_survives_pickling_unless_it_is_a_file_object(source: Any) -> None:
    assert source.can_be_reopened != isinstance(source, FileObjectSource | MemorySource)
    if isinstance(source, FileObjectSource):
        with pytest.raises(TypeError, match=r"can't be sent to another process.*path or URL"):
            pickle.dumps(source)
        return
    read_into(source, (0, 4))
    again = pickle.loads(pickle.dumps(source))
    assert (again.name, again.size) == (source.name, source.size)
    assert read_into(again, (1020, 1040)) == [BYTES[1020:1040]]


def test_sidecar_in_the_same_folder(source: Any, path: Path) -> None:
    assert source.read_sibling("volume.mrc.mdoc") is None
    path.with_name("volume.mrc.mdoc").write_text("T = series")
    found = source.read_sibling("volume.mrc.mdoc")
    has_folder = isinstance(source, LocalSource) or source.name.startswith("http")
    assert found == (b"T = series" if has_folder else None)


# local files ------------------------------------------------------------------------------------


def test_local_source_holds_no_descriptor(path: Path) -> None:
    before = os.listdir("/dev/fd")
    source = LocalSource.open(str(path))
    read_into(source, (0, 4), (1024, 1030))
    assert os.listdir("/dev/fd") == before


def test_local_reads_are_completed_if_the_system_returns_less(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preadv, offsets = local._preadv, []

    def short(fd: int, buffers: list[memoryview], offset: int) -> int:
        offsets.append(offset)
        return preadv(fd, [buffers[0][:100]], offset)

    monkeypatch.setattr(local, "_preadv", short)
    np.testing.assert_array_equal(values(path), DATA)
    assert 1024 + 100 in offsets


def test_local_reads_need_no_preadv(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_preadv", local._seek_and_read)
    np.testing.assert_array_equal(values(path), DATA)
    with LocalSource.open(str(path)).fetching() as fetch:
        assert fetch(1020, 30) == BYTES[1020:1050]
        assert fetch(len(BYTES) - 5, 30) == BYTES[-5:]


def test_local_file_that_is_gone_raises_as_open_does(path: Path) -> None:
    ds = xr.open_dataset(path, engine="mrc")
    path.unlink()
    with pytest.raises(FileNotFoundError):
        ds.load()


def test_local_file_that_ends_while_it_is_read_is_an_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ds = xr.open_dataset(path, engine="mrc")
    monkeypatch.setattr(local, "_preadv", lambda *request: 0)
    with pytest.raises(MrcError, match="ended while it was read: 0 of 420 bytes from byte 1024"):
        ds.load()


def test_directory_and_pipe_are_refused(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        open_source(str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MrcError, match="not a regular file"):
        open_source(str(tmp_path / "pipe"))


def test_relative_path_does_not_depend_on_a_later_directory(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    ds = xr.open_dataset(path.name, engine="mrc")
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(ds.data.values, DATA)


# stores -----------------------------------------------------------------------------------------


def test_store_that_ignores_ranges_is_an_error_when_opened(
    http: servers.HttpServer, tmp_path: Path
) -> None:
    large = np.zeros((2, 200, 200), "i2")
    (tmp_path / "large.mrc").write_bytes(by_hand.mrc(large))
    http.ignore_ranges = True
    url = http.url("large.mrc")
    message = r"161024 bytes instead of the 65536 bytes from byte 0.*ignores byte"
    with pytest.raises(MrcError, match=message):
        xr.open_dataset(url, engine="mrc")
    # the message's own advice
    np.testing.assert_array_equal(values(f"simplecache::{url}"), large)


def test_store_that_does_not_give_the_size_is_an_error(
    http: servers.HttpServer, path: Path
) -> None:
    http.gives_size = False
    with pytest.raises(MrcError, match="does not give the file's size"):
        open_source(http.url(path.name))


def test_missing_remote_file_raises_as_open_does(http: servers.HttpServer) -> None:
    with pytest.raises(FileNotFoundError):
        open_source(http.url("none.mrc"))
    with pytest.raises(FileNotFoundError):
        open_source("memory://sources/none.mrc")


@pytest.mark.parametrize(
    ("url", "module", "note"),
    [
        ("https://a.b/c.mrc", "fsspec.implementations.http", "pip install aiohttp"),
        ("simplecache::s3://a/c.mrc", "s3fs", "pip install s3fs"),
        ("gs://a/c.mrc", "gcsfs", "install the fsspec package"),
    ],
)
def test_missing_store_package_is_named(
    url: str, module: str, note: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    # what fsspec has imported before
    for protocol in ("http", "https", "s3"):
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, protocol, raising=False)
    with pytest.raises(ImportError) as caught:
        xr.open_dataset(url, engine="mrc")
    (found,) = caught.value.__notes__
    assert url in found
    assert note in found


def test_chained_url_reads_a_member_of_an_archive(http: servers.HttpServer, path: Path) -> None:
    archive = path.with_name("archive.zip")
    with zipfile.ZipFile(archive, "w") as file:
        file.write(path, "inner/volume.mrc")
    for where in (str(archive), http.url(archive.name)):
        ds = xr.open_dataset(f"zip://inner/volume.mrc::{where}", engine="mrc")
        ds = pickle.loads(pickle.dumps(ds))
        np.testing.assert_array_equal(ds.data.values, DATA)


# bytes and file objects -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, io.BytesIO])
def test_bytes_are_taken_as_they_are_now(kind: Any) -> None:
    changing = bytearray(BYTES)
    source = open_source(kind(changing))
    changing[:] = bytes(len(changing))
    assert isinstance(source, MemorySource)
    assert source.read(0, len(BYTES)) == BYTES


@pytest.mark.parametrize(("mode", "buffering"), [("rb", -1), ("r+b", -1), ("rb", 0)])
def test_open_local_file_is_opened_again_by_its_path(
    path: Path, mode: str, buffering: int
) -> None:
    with path.open(mode, buffering) as file:
        file.seek(17)
        ds = xr.open_dataset(file, engine="mrc")
        assert file.tell() == 17
    ds = pickle.loads(pickle.dumps(ds))
    np.testing.assert_array_equal(ds.data.values, DATA)
    assert ds.data.attrs["mrc_source"] == str(path)


def test_open_file_that_lost_its_name_is_read_itself(path: Path) -> None:
    with path.open("rb") as file:
        path.rename(path.with_name("old.mrc"))
        path.write_bytes(by_hand.mrc(DATA + 1))
        np.testing.assert_array_equal(values(file), DATA)
        path.unlink()
        np.testing.assert_array_equal(values(file), DATA)


class Trickle(io.RawIOBase):
    """A seekable file that returns at most ten bytes at once, and has no name."""

    def __init__(self, data: bytes) -> None:
        self.inner = io.BytesIO(data)
        self.seek, self.tell = self.inner.seek, self.inner.tell  # type: ignore[method-assign]

    def read(self, n: int = -1) -> bytes:
        return self.inner.read(min(n, 10))


def gzip_file(path: Path) -> Any:
    path.with_suffix(".gz").write_bytes(gzip.compress(BYTES))
    return gzip.open(path.with_suffix(".gz"))


def nameless_file(path: Path) -> Any:
    file = tempfile.TemporaryFile()  # noqa: SIM115
    file.write(BYTES)
    return file


@pytest.mark.parametrize(
    "make", [gzip_file, nameless_file, lambda path: Trickle(BYTES)], ids=["gzip", "temp", "custom"]
)
def test_file_object_without_a_path_is_read_and_left_where_it_was(path: Path, make: Any) -> None:
    with make(path) as file:
        file.seek(17)
        ds = xr.open_dataset(file, engine="mrc", cache=False)
        assert file.tell() == 17
        np.testing.assert_array_equal(ds.data.values, DATA)
        assert file.tell() == 17
        np.testing.assert_array_equal(ds.data[::2, 1:4, [0, 5]], DATA[::2, 1:4, [0, 5]])
        chunked = ds.chunk(z=1)
        np.testing.assert_array_equal(chunked.data.compute(scheduler="threads"), DATA)
        assert file.tell() == 17
        with pytest.raises(TypeError, match="open file object can't be sent to another process"):
            pickle.dumps(ds)


def test_file_object_that_ends_early_is_an_error() -> None:
    file = Trickle(BYTES)
    ds = xr.open_dataset(file, engine="mrc")
    file.inner.truncate(1100)
    with pytest.raises(MrcError, match="ended while it was read: 76 of 420 bytes"):
        ds.load()


class NoSeek:
    """A file object that can't be read from any position, such as a socket's."""

    read = tell = None


@pytest.mark.parametrize("target", [17, None, NoSeek()], ids=["int", "None", "no seek"])
def test_other_targets_are_refused(target: Any) -> None:
    with pytest.raises(TypeError, match="accepted: a path, a URL, bytes, or a seekable binary"):
        open_source(target)


def test_file_that_is_open_as_text_is_refused(path: Path) -> None:
    with path.open() as file, pytest.raises(TypeError, match="open it as 'rb'"):
        open_source(file)  # type: ignore[arg-type]


# fsspec's files ---------------------------------------------------------------------------------


@pytest.fixture(params=["local", "http", "memory"])
def url(request: pytest.FixtureRequest, path: Path) -> str:
    if request.param == "http":
        return request.getfixturevalue("http").url(path.name)
    if request.param == "memory":
        return request.getfixturevalue("memory_url")
    return f"file://{path}"


@pytest.mark.parametrize("opened", [False, True])
def test_fsspec_file_is_opened_again_from_its_store(url: str, path: Path, opened: bool) -> None:
    target: Any = fsspec.open(url)
    if opened:
        with target as file:
            source = open_source(file)
    else:
        source = open_source(target)
    assert isinstance(source, LocalSource if url.startswith("file") else StoreSource)
    assert source.name in (url, str(path), url.replace("memory://", "memory:///"))
    assert read_into(pickle.loads(pickle.dumps(source)), (1024, 1444)) == [BYTES[1024:]]


@pytest.mark.parametrize("opened", [False, True])
def test_fsspec_file_that_decompresses_is_read_decompressed(path: Path, opened: bool) -> None:
    compressed = path.with_suffix(".mrc.gz")
    compressed.write_bytes(gzip.compress(BYTES))
    target: Any = fsspec.open(str(compressed), compression="gzip")
    if opened:
        with target as file:
            np.testing.assert_array_equal(values(file), DATA)
    else:
        np.testing.assert_array_equal(values(target), DATA)


# forks ------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_fork_after_a_read_reads_right(url: str) -> None:
    source = open_source(url)
    read_into(source, (0, 4))
    assert servers.forked(lambda: read_into(source, (1024, 1444))[0])() == BYTES[1024:]


def test_two_sources_of_one_file_object_do_not_disturb_each_other(tmp_path: Path) -> None:
    packed = tmp_path / "v.gz"
    data = bytes(range(256)) * 256
    packed.write_bytes(gzip.compress(data))
    with gzip.open(packed) as file:
        sources = [open_source(file), open_source(file)]

        def read(k: int) -> bool:
            offset = (k * 7919) % (len(data) - 1000)
            return sources[k % 2].read(offset, 1000) == data[offset : offset + 1000]

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(read, range(100)))


def test_named_temporary_file_is_opened_by_its_name() -> None:
    with tempfile.NamedTemporaryFile(suffix=".mrc") as file:
        file.write(BYTES)
        file.flush()
        assert isinstance(open_source(file), LocalSource)


def test_local_name_with_colons(tmp_path: Path) -> None:
    path = tmp_path / "a::b.mrc"
    path.write_bytes(BYTES)
    assert open_source(path).read(0, 4) == BYTES[:4]
