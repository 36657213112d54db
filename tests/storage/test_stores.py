"""The same selections from every store, and few requests for them."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import by_hand
import fsspec
import numpy as np
import pytest
import servers
import xarray as xr

from mrc_xarray import MrcError
from mrc_xarray.backend import MrcBackendEntrypoint

NZ, NY, NX = 6, 256, 512
ROW = NX * 2
SECTION = NY * ROW
PIXELS = np.random.default_rng(2).integers(-(2**15), 2**15, (NZ, NY, NX), "i2")
BYTES = by_hand.mrc(PIXELS)
HEADER = (0, 64 * 1024)

STORES = ["path", "memory", "http", "simplecache", "BytesIO", "open file"]

Opened = tuple[Any, dict[str, Any]]


@pytest.fixture(scope="module", params=[*STORES, pytest.param("s3", marks=pytest.mark.slow)])
def opened(
    request: pytest.FixtureRequest, path: Path, server: servers.HttpServer, memory_url: str
) -> Iterator[Opened]:
    """What to open, and options."""
    url = server.url(path.name)
    if request.param == "s3":
        with servers.s3_server() as s3:
            yield s3.put("volume.mrc", BYTES), {"storage_options": s3.storage_options}
    elif request.param == "open file":
        # it remains open between tests, after which no file with an MRC suffix may be open
        other = path.with_suffix(".bin")
        other.write_bytes(BYTES)
        with other.open("rb") as file:
            yield file, {}
    else:
        targets = {
            "path": str(path),
            "memory": memory_url,
            "http": url,
            "BytesIO": io.BytesIO(BYTES),
        }
        yield targets.get(request.param, f"simplecache::{url}"), {}


@pytest.fixture(scope="module")
def memory_url() -> Iterator[str]:
    fs = fsspec.filesystem("memory")
    fs.pipe("/stores/volume.mrc", BYTES)
    yield "memory://stores/volume.mrc"
    fs.rm("/stores", recursive=True)


# name → selection, and the byte ranges of the pixels that it takes from a store
SELECTIONS: dict[str, tuple[dict[str, Any], list[tuple[int, int]]]] = {
    "all": ({}, [(0, NZ * SECTION)]),
    "section": ({"z": 4}, [(4 * SECTION, 5 * SECTION)]),
    "window": (
        {"z": 5, "y": slice(100, 200), "x": slice(100, 200)},
        [(5 * SECTION + 100 * ROW, 5 * SECTION + 200 * ROW)],
    ),
    "list": (
        {"z": [0, 2, 3, 5]},
        [(0, SECTION), (2 * SECTION, 4 * SECTION), (5 * SECTION, 6 * SECTION)],
    ),
    # it is cheaper to read what is between near rows than to send more requests
    "near rows": ({"z": 1, "y": slice(3, 250, 10)}, [(SECTION + 3 * ROW, SECTION + 244 * ROW)]),
    "far rows": (
        {"z": 1, "y": slice(3, None, 100)},
        [(SECTION + y * ROW, SECTION + (y + 1) * ROW) for y in (3, 103, 203)],
    ),
    "backwards": ({"z": slice(2, 0, -1)}, [(SECTION, 3 * SECTION)]),
    "nothing": ({"z": []}, []),
}
selections = pytest.mark.parametrize(
    ("selection", "ranges"), SELECTIONS.values(), ids=list(SELECTIONS)
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stores") / "volume.mrc"
    path.write_bytes(BYTES)
    return path


@pytest.fixture(scope="module")
def server(path: Path) -> Iterator[servers.HttpServer]:
    with servers.http_server(path.parent) as server:
        yield server


@pytest.fixture
def fresh(server: servers.HttpServer) -> servers.HttpServer:
    """The server, without any requests yet."""
    server.requests.clear()
    return server


def expected(selection: dict[str, Any]) -> np.ndarray:
    return PIXELS[tuple(selection.get(dim, slice(None)) for dim in "zyx")]


@selections
def test_selection_equals_numpy(opened: Opened, selection: Any, ranges: Any) -> None:
    target, options = opened
    ds = xr.open_dataset(target, engine="mrc", **options)
    np.testing.assert_array_equal(ds.data.isel(selection).values, expected(selection))


@pytest.mark.parametrize("chunks", [{}, {"y": 100}, {"z": NZ, "x": 300}])
def test_chunks_equal_numpy(opened: Opened, chunks: Any) -> None:
    target, options = opened
    ds = xr.open_dataset(target, engine="mrc", chunks=chunks, **options)
    np.testing.assert_array_equal(ds.data.compute(scheduler="threads"), PIXELS)


def test_pickled_dataset_equals_numpy(opened: Opened) -> None:
    target, options = opened
    ds = xr.open_dataset(target, engine="mrc", **options)
    again = pickle.loads(pickle.dumps(ds))
    np.testing.assert_array_equal(again.data[3], PIXELS[3])


# requests ---------------------------------------------------------------------------------------


def test_opening_requests_size_and_header(fresh: servers.HttpServer) -> None:
    n_before = fresh.n_arrived
    ds = xr.open_dataset(fresh.url("volume.mrc"), engine="mrc")
    assert fresh.methods() == ["HEAD", "GET"]
    assert fresh.gets() == [HEADER]
    # and two names of an .mdoc, which are not there
    assert fresh.n_arrived - n_before == 4
    assert ds.data.shape == PIXELS.shape


@selections
def test_selection_requests_one_range_per_run(
    fresh: servers.HttpServer, selection: Any, ranges: Any
) -> None:
    ds = xr.open_dataset(fresh.url("volume.mrc"), engine="mrc")
    fresh.requests.clear()
    ds.data.isel(selection).load()
    assert fresh.gets() == [(1024 + start, 1024 + stop) for start, stop in ranges]
    # the responses identify the version of the file
    assert set(fresh.methods()) <= {"GET"}


def test_window_of_chunks_requests_only_its_rows(fresh: servers.HttpServer) -> None:
    selection, ranges = SELECTIONS["window"]
    ds = xr.open_dataset(fresh.url("volume.mrc"), engine="mrc", chunks={})
    fresh.requests.clear()
    window = ds.data.isel(selection).compute(scheduler="threads")
    np.testing.assert_array_equal(window, expected(selection))
    assert fresh.gets() == [(1024 + start, 1024 + stop) for start, stop in ranges]


def test_other_store_gets_all_ranges_in_one_call(
    memory_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = fsspec.get_filesystem_class("memory")
    real, calls = memory.cat_ranges, []

    def cat_ranges(self: Any, paths: Any, starts: Any, ends: Any, **kwargs: Any) -> Any:
        calls.append(list(zip(starts, ends, strict=True)))
        return real(self, paths, starts, ends, **kwargs)

    selection, ranges = SELECTIONS["list"]
    ds = xr.open_dataset(memory_url, engine="mrc")
    # the class: pytest 8 would leave the method in the instance, which other tests use as well
    monkeypatch.setattr(memory, "cat_ranges", cat_ranges)
    ds.data.isel(selection).load()
    assert calls == [[(1024 + start, 1024 + stop) for start, stop in ranges]]


@pytest.mark.slow
def test_old_listing_of_s3_hides_no_change() -> None:
    with servers.s3_server() as s3:
        url = s3.put("volume.mrc", BYTES)
        fs = fsspec.filesystem("s3", **s3.storage_options)
        assert len(fs.ls(s3.bucket)) == 1
        ds = xr.open_dataset(url, engine="mrc", storage_options=s3.storage_options)
        # as another machine would
        other = fsspec.filesystem("s3", skip_instance_cache=True, **s3.storage_options)
        other.pipe(f"{s3.bucket}/volume.mrc", by_hand.mrc(~PIXELS))
        with pytest.raises(MrcError, match=r"volume\.mrc: the file changed since it was opened"):
            ds.load()
        again = xr.open_dataset(url, engine="mrc", storage_options=s3.storage_options)
        np.testing.assert_array_equal(again.data, ~PIXELS)


def test_guess_can_open_sends_no_request(fresh: servers.HttpServer) -> None:
    guess = MrcBackendEntrypoint().guess_can_open
    assert guess(fresh.url("volume.mrc"))
    assert guess("s3://no-such-bucket/volume.mrcs")
    assert guess("simplecache::https://no.such.host/volume.rec?version=1")
    assert not guess(fresh.url("volume.nc"))
    assert fresh.requests == []
