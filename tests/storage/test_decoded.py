"""A stream is decoded once per process, only as far as needed, and shared by its copies."""

from __future__ import annotations

import gc
import gzip
import os
import pickle
import stat
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import by_hand
import numpy as np
import pytest
import servers
import streams_by_hand as by
import xarray as xr
from distributed import Client
from streams_by_hand import BYTES, CODECS, NZ, PIXELS, Codec, MiB, limits, packed

from mrc_xarray import MrcError
from mrc_xarray.storage import decoded

# chunks smaller than the preferred ones, so that there is work for every thread
by_one = pytest.mark.filterwarnings("ignore:The specified chunks separate the stored chunks")
linux = by.linux


@pytest.fixture(params=["gzip", "bz2", "xz"])
def codec(request: pytest.FixtureRequest) -> Codec:
    return CODECS[request.param]


@pytest.fixture
def path(codec: Codec, tmp_path: Path) -> Path:
    path = tmp_path / f"volume.mrc{codec.suffix}"
    path.write_bytes(packed(codec))
    return path


def opened(target: Any, **options: Any) -> xr.DataArray:
    return xr.open_dataset(target, engine="mrc", **options).data


# selections --------------------------------------------------------------------------------------


def test_sections_and_windows_in_any_order(path: Path) -> None:
    data = opened(path)
    for z in (17, 0, 18, 3, 17, 19, 1):
        np.testing.assert_array_equal(data[z], PIXELS[z])
    for key in np.s_[3:18:5, 60:1:-7, 5], np.s_[::-1, 1:3, ::100], np.s_[:, 63, 255]:
        np.testing.assert_array_equal(data[key], PIXELS[key])
    np.testing.assert_array_equal(data[[19, 0, 7], :, [3, 200]], PIXELS[[19, 0, 7]][..., [3, 200]])


# how much is read, and how often -----------------------------------------------------------------


@pytest.mark.parametrize("codec", ["gzip", "bz2"], indirect=True)
def test_threads_share_what_is_decoded(codec: Codec, path: Path, http: servers.HttpServer) -> None:
    data = opened(http.url(path.name))
    http.requests.clear()
    order = np.random.default_rng(9).integers(0, NZ, 80)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda z: data[int(z)].values, order))
    np.testing.assert_array_equal(found, PIXELS[order])
    assert http.nbytes() < 1.25 * len(packed(codec))


@pytest.mark.parametrize("codec", ["gzip"], indirect=True)
def test_copies_share_what_is_decoded(codec: Codec, path: Path, http: servers.HttpServer) -> None:
    data = opened(http.url(path.name))
    pickled = pickle.dumps(data)
    # a slice: xarray replaces a complete array that was loaded
    np.testing.assert_array_equal(data[:NZ], PIXELS)
    http.requests.clear()
    for copy in (data.copy(), pickle.loads(pickled), pickle.loads(pickle.dumps(data))):
        np.testing.assert_array_equal(copy[7], PIXELS[7])
    assert http.nbytes() == 0
    del data
    gc.collect()
    np.testing.assert_array_equal(copy[8], PIXELS[8])
    assert http.nbytes() == 0
    # without any of them, the next copy decodes again
    del copy
    gc.collect()
    np.testing.assert_array_equal(pickle.loads(pickled)[9], PIXELS[9])
    assert http.nbytes() > 0


def test_salvaged_stream_is_decoded_once(tmp_path: Path, http: servers.HttpServer) -> None:
    raw = packed(CODECS["gzip"])
    (tmp_path / "volume.mrc").write_bytes(raw)
    np.testing.assert_array_equal(opened(http.url("volume.mrc"), truncated="trim"), PIXELS)
    # to find the codec, to decode the beginning, and to decode all
    assert http.nbytes() < 64 * 1024 + 256 * 1024 + 1.1 * len(raw)


def test_opening_and_one_section_read_little(tmp_path: Path, http: servers.HttpServer) -> None:
    noise = np.random.default_rng(7).integers(-(2**15), 2**15, (512, 1024), "i2")
    section = gzip.compress(noise.tobytes(), 1)
    raw = gzip.compress(by_hand.header((24, 512, 1024), 1)) + section * 24
    (tmp_path / "long").write_bytes(raw)
    data = opened(http.url("long"), chunks={})
    assert http.nbytes() < MiB < len(raw) / 20
    np.testing.assert_array_equal(data.isel(z=0).compute(), noise)
    assert http.nbytes() < 10 * MiB


@by_one
@pytest.mark.slow
def test_each_worker_decodes_once(
    client: Client, tmp_path: Path, http: servers.HttpServer
) -> None:
    raw = packed(CODECS["bz2"])
    (tmp_path / "volume.mrc").write_bytes(raw)
    url = http.url("volume.mrc")
    pickled = pickle.dumps(opened(url))
    lazy = [opened(url, chunks={"z": 1}) for _ in range(2)]
    http.requests.clear()
    for data in lazy:
        np.testing.assert_array_equal(data.compute(scheduler=client), PIXELS)
    # each is sent another copy
    for z in (19, 3):
        for found in client.run(lambda z: pickle.loads(pickled)[z].values, z).values():
            np.testing.assert_array_equal(found, PIXELS[z])
    assert http.nbytes() < 2.25 * len(raw)


# memory and disk ---------------------------------------------------------------------------------


@pytest.mark.slow
@linux
def test_what_exceeds_the_memory_is_in_a_file_without_a_name(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    with limits(folder, "200 KiB"):
        data = opened(path)
    for z in (0, 19, 3, 10, 0):
        np.testing.assert_array_equal(data[z], PIXELS[z])
    (status,) = by.temporary_files(folder)
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_nlink == 0
    copy = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(copy, PIXELS)
    assert len(by.temporary_files(folder)) == 1
    del data, copy
    gc.collect()
    assert by.temporary_files(folder) == []


@linux
def test_arrays_hold_no_file(path: Path, tmp_path: Path) -> None:
    with limits(tmp_path, "1 GiB"):
        datasets = [opened(path) for _ in range(20)]
    for data in datasets[::5]:
        np.testing.assert_array_equal(data[1], PIXELS[1])
    assert by.temporary_files(tmp_path) == []
    links = [Path(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
    assert not [link for link in links if link.exists() and link.resolve() == path]


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["gzip", "xz"], indirect=True)
def test_memory_is_bounded_and_returned(codec: Codec, tmp_path: Path) -> None:
    path = tmp_path / "long.mrc"
    header = codec.pack(by_hand.header((72, 1024, 1024), 0))
    path.write_bytes(header + codec.pack(bytes(8 * MiB)) * 9)
    # this imports all that is needed
    opened(path)[0].load()
    gc.collect()
    with by.less_memory_than(24 * MiB):
        with limits(tmp_path, "1 MiB"):
            data = opened(path)
        for z in (0, 71, 1):
            assert not data[z].values.any()
        del data
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 2 * MiB


@pytest.mark.parametrize("codec", ["gzip"], indirect=True)
def test_limit_that_is_just_enough(codec: Codec, path: Path, tmp_path: Path) -> None:
    # errors of other tests may hold streams
    gc.collect()
    for memory, disk in ((len(BYTES), 0), (0, len(BYTES)), (len(BYTES) - 1, len(BYTES))):
        with limits(tmp_path, str(memory), str(disk)):
            data = opened(path)
        np.testing.assert_array_equal(data, PIXELS)
    with limits(tmp_path, str(len(BYTES) - 1), str(len(BYTES) - 1)):
        data = opened(path)
    with pytest.raises(MrcError, match=r"volume\.mrc.*decoded-memory or mrc-xarray\.decoded-disk"):
        data.load()


@pytest.mark.slow
def test_folder_that_a_worker_lacks(tmp_path: Path) -> None:
    path = tmp_path / "volume.mrc.gz"
    path.write_bytes(gzip.compress(BYTES))
    folder = tmp_path / "scratch"
    folder.mkdir()
    with limits(folder, "0"):
        data = opened(path)
    folder.rmdir()
    np.testing.assert_array_equal(data, PIXELS)


# threads and processes ---------------------------------------------------------------------------


def test_a_section_is_not_read_before_it_is_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = decoded.Decoding._add
    is_adding, may_add = threading.Event(), threading.Event()

    def add_slowly(self: decoded.Decoding, piece: bytes) -> None:
        is_adding.set()
        assert may_add.wait(20)
        add(self, piece)

    monkeypatch.setattr(decoded.Decoding, "_add", add_slowly)
    path = tmp_path / "volume.mrc.gz"
    path.write_bytes(gzip.compress(BYTES))
    data = opened(path)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(lambda: data[0].values)
        assert is_adding.wait(20)
        last = threads.submit(lambda: data[-1].values)
        may_add.set()
        np.testing.assert_array_equal(last.result(), PIXELS[-1])
        np.testing.assert_array_equal(first.result(), PIXELS[0])


def test_interrupted_piece_is_added_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add, n_calls = decoded.Decoding._add, []

    def interrupted(self: decoded.Decoding, piece: bytes) -> None:
        add(self, piece)
        n_calls.append(1)
        if len(n_calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(decoded.Decoding, "_add", interrupted)
    path = tmp_path / "volume.mrc.gz"
    pixels = np.random.default_rng(4).integers(0, 9, (10, 512, 1024), "i2")
    path.write_bytes(gzip.compress(by_hand.mrc(pixels), 1))
    data = opened(path)
    with pytest.raises(KeyboardInterrupt):
        data[0].load()
    np.testing.assert_array_equal(data[9], pixels[9])
    np.testing.assert_array_equal(data[:], pixels)
