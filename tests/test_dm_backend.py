"""The engine for DM3 and DM4: arguments, laziness, stores, clusters, damage."""

from __future__ import annotations

import gzip
import inspect
import io
import pickle
from pathlib import Path
from typing import Any

import dm_by_hand as by_hand
import fsspec
import indexings
import numpy as np
import pytest
import servers
import xarray as xr
from distributed import Client

import mrc_xarray
from mrc_xarray import MrcError
from mrc_xarray.dm_backend import DmBackendEntrypoint

N, NY, NX = 6, 256, 512
SECTION = NY * NX * 2
PIXELS = np.random.default_rng(2).integers(-(2**15), 2**15, (N, NY, NX), "i2")
NM = [(0, 0.5, "nm"), (0, 0.5, "nm"), (0, 1, "")]
THUMBNAIL = by_hand.image(np.zeros((64, 64, 4)), 23, (64, 64))
BYTES = by_hand.dm(THUMBNAIL, by_hand.image(PIXELS, 1, axes=NM), thumbnails=[0])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "movie.dm4"
    path.write_bytes(BYTES)
    return path


def test_arguments() -> None:
    names = ("storage_options", "dims", "units", "mmap")
    assert DmBackendEntrypoint.open_dataset_parameters == (
        "filename_or_obj", "drop_variables", *names,
    )  # fmt: skip
    text = inspect.getdoc(DmBackendEntrypoint.open_dataset) or ""
    listed = [line.partition(" :")[0] for line in text.splitlines() if " : " in line[:24]]
    assert listed == ["filename_or_obj", "drop_variables", *names]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layout": "volume"}, TypeError, "layout; accepted: dims, mmap, storage_options, units$"),
        ({"unit": "nm"}, TypeError, "Did you mean units"),
        ({"units": "mm"}, ValueError, "units is 'mm'"),
        ({"dims": ["a"]}, ValueError, "3 different names, for image, y, x"),
    ],
)
def test_wrong_arguments(
    path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        xr.open_dataset(path, engine="dm", **options)


def test_opening_and_selecting_read_no_other_pixels(
    path: Path, ranges_read: list[tuple[int, int]]
) -> None:
    data = xr.open_dataset(path, engine="dm").data
    # the first bytes, and the tags after the pixels
    assert len(ranges_read) == 1
    assert sum(nbytes for _, nbytes in ranges_read) == 64 * 1024
    ranges_read.clear()
    np.testing.assert_array_equal(data[4, 100:110, 7], PIXELS[4, 100:110, 7])
    assert sum(nbytes for _, nbytes in ranges_read) == 10 * NX * 2


SPECTRUM = np.arange(9, dtype="f4")
COLOURS = PIXELS[:, :5, :36].astype("u1")
# name → file, and its pixels
KINDS: dict[str, tuple[bytes, np.ndarray[Any, Any]]] = {
    "plain": (by_hand.dm(by_hand.image(PIXELS[:, :5, :9], 1)), PIXELS[:, :5, :9]),
    "big-endian": (
        by_hand.dm(by_hand.image(PIXELS[:, :5, :9], 1, byteorder=">"), byteorder=">", version=3),
        PIXELS[:, :5, :9],
    ),
    "spectrum": (by_hand.dm(by_hand.image(SPECTRUM, 2)), SPECTRUM),
    "colours": (
        by_hand.dm(by_hand.image(COLOURS, 8, (N, 5, 9))),
        COLOURS.reshape(N, 5, 9, 4)[..., [2, 1, 0, 3]],
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"mmap": True}, {"chunks": {}}], ids=str)
def test_indexing_equals_numpy(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    raw, wanted = KINDS[kind]
    path = tmp_path / "a.dm4"
    path.write_bytes(raw)
    data = xr.open_dataset(path, engine="dm", **options).data.variable
    eager = xr.Variable(data.dims, wanted)
    for key in indexings.TRANSFORMS.values():
        # one index of a spectrum, which has as many channels as others have columns
        some = key[-1:] if wanted.ndim == 1 else key[: wanted.ndim]
        np.testing.assert_array_equal(data[some], eager[some])
    points = {dim: xr.Variable("p", [0, 3]) for dim in data.dims}
    np.testing.assert_array_equal(data.isel(points), eager.isel(points))


def test_preferred_chunks(path: Path) -> None:
    data = xr.open_dataset(path, engine="dm", chunks={}).data
    assert data.chunks == ((N,), (NY,), (NX,))
    assert xr.open_dataset(io.BytesIO(KINDS["spectrum"][0]), engine="dm", chunks={}).data.chunks


TARGETS = ["str", "bytes", "BytesIO", "file", "gzip", "memory"]


@pytest.mark.parametrize("kind", TARGETS)
def test_targets(path: Path, kind: str) -> None:
    packed = path.with_name("movie.dm4.gz")
    packed.write_bytes(gzip.compress(BYTES, 1))
    fsspec.filesystem("memory").pipe("/dm/movie.dm4", BYTES)
    with path.open("rb") as file:
        targets = {
            "str": str(path), "bytes": BYTES, "BytesIO": io.BytesIO(BYTES), "file": file,
            "gzip": packed, "memory": "memory://dm/movie.dm4",
        }  # fmt: skip
        ds = xr.open_dataset(targets[kind], engine="dm")  # type: ignore[arg-type]
        np.testing.assert_array_equal(ds.data, PIXELS)
        np.testing.assert_array_equal(ds.x, np.arange(NX) * 5)
        assert DmBackendEntrypoint().guess_can_open(targets[kind])
    fsspec.filesystem("memory").rm("/dm", recursive=True)


def test_guess(path: Path) -> None:
    guess = DmBackendEntrypoint().guess_can_open
    assert not guess(path.with_name("missing.dm4"))
    assert guess("s3://bucket/movie.DM3")
    assert guess("https://host/movie.dm4?version=1")
    assert not guess("s3://bucket/movie.mrc")
    other = path.with_name("text.dm4")
    other.write_bytes(b"text" * 100)
    assert not guess(other)
    assert xr.open_dataset(path).identical(xr.open_dataset(path, engine="dm"))
    with pytest.raises(MrcError, match="the first bytes are 74 65 78 74; accepted: 00 00 00 03"):
        xr.open_dataset(other, engine="dm")


@pytest.mark.parametrize("name", ["movie.dm4", "movie.dm4.gz"])
def test_truncation_is_an_error(tmp_path: Path, name: str) -> None:
    raw = BYTES[:-30] if name.endswith("dm4") else gzip.compress(BYTES)[:-30]
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(MrcError, match=r"ends within|stream is damaged or truncated"):
        xr.open_dataset(tmp_path / name, engine="dm")


def test_compressed_files_are_decoded_up_to_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tags follow the pixels, and a small file can decode to any number of zeros."""
    path = tmp_path / "zeros.dm4.gz"
    path.write_bytes(gzip.compress(by_hand.dm(by_hand.image(np.zeros((1024, 1024)), 7)), 1))
    ds = xr.open_dataset(path, engine="dm", chunks={})
    assert not ds.data.any()
    monkeypatch.setattr("mrc_xarray.storage.stream._USUAL_SIZE", 2**20)
    with pytest.raises(MrcError, match=r"4194304 bytes; accepted: .*must be decompressed"):
        xr.open_dataset(path, engine="dm")


def test_another_file_is_not_read(path: Path) -> None:
    data = xr.open_dataset(path, engine="dm", chunks={}).data
    again = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(again[1, 2], PIXELS[1, 2])
    path.write_bytes(BYTES + b"0")
    with pytest.raises(MrcError, match="changed since it was opened"):
        again[1, 2].compute()


def sparse(path: Path, version: int) -> tuple[int, int]:
    """Write an image of more than 4 GiB that takes no space; return its shape."""
    n_rows, n_columns = 70_000, 2**15
    made = by_hand.image(np.zeros(0), 1, (n_rows, n_columns))
    element = by_hand.Raw.of((20, 2, n_rows * n_columns), b"<pixels>")
    made["ImageData"]["Data"] = element
    before, after = by_hand.dm(made, version=version).split(b"<pixels>")
    with path.open("wb") as file:
        file.write(before)
        file.seek(2 * (n_rows * n_columns - 2), 1)
        file.write(np.array([7, -9], "<i2").tobytes() + after)
    return n_rows, n_columns


@pytest.mark.parametrize("version", [3, 4])
def test_sizes_beyond_4_gib(
    tmp_path: Path, version: int, ranges_read: list[tuple[int, int]]
) -> None:
    """DM3 has 32-bit numbers of elements, but their bytes can be more."""
    shape = sparse(tmp_path / "large.dm", version)
    assert (tmp_path / "large.dm").stat().st_size > 2**32
    for options in ({}, {"mmap": True}, {"chunks": {}}):
        ranges_read.clear()
        data = xr.open_dataset(tmp_path / "large.dm", engine="dm", **options).data
        assert data.shape == shape
        np.testing.assert_array_equal(data[-1, -3:], [0, 7, -9])
        assert sum(nbytes for _, nbytes in ranges_read) <= 2**20 + 2**16


def test_http_skips_the_pixels(path: Path) -> None:
    with servers.http_server(path.parent) as server:
        url = server.url(path.name)
        data = xr.open_dataset(url, engine="dm").data
        assert len(server.gets()) == 2
        assert server.nbytes() < 2 * 64 * 1024
        np.testing.assert_array_equal(data[3], PIXELS[3])
        assert server.nbytes() < 2 * 64 * 1024 + SECTION + 1
        assert data.attrs["mrc_source"] == url


def test_many_files(path: Path) -> None:
    path.with_name("other.dm4").write_bytes(BYTES)
    names = [path, path.with_name("other.dm4")]
    joined = mrc_xarray.open_many(names, dim="movie", engine="dm", units="nm")
    assert joined.data.dims == ("movie", "image", "y", "x")
    np.testing.assert_array_equal(joined.data[1], PIXELS)
    assert joined.x.attrs["units"] == "nm"
    nested = xr.open_mfdataset(names, engine="dm", combine="nested", concat_dim="movie")
    np.testing.assert_array_equal(nested.data, joined.data)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["path", "http", "s3"])
def test_cluster(client: Client, path: Path, kind: str) -> None:
    with servers.http_server(path.parent) as server, servers.s3_server() as s3:
        targets: dict[str, tuple[Any, dict[str, Any]]] = {
            "path": (path, {}),
            "http": (server.url(path.name), {}),
            "s3": (s3.put("movie.dm4", BYTES), {"storage_options": s3.storage_options}),
        }
        target, options = targets[kind]
        data = xr.open_dataset(target, engine="dm", chunks={"image": 2}, **options).data
        found = client.compute(data.astype("i8").sum(("y", "x"))).result()
        np.testing.assert_array_equal(found, PIXELS.astype("i8").sum((1, 2)))
