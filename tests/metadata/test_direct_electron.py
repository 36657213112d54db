"""Direct Electron movies through the engine: frames at their places, and no other frame read."""

from __future__ import annotations

import gzip
import io
import json
import warnings
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import by_hand
import de_by_hand as de
import fsspec
import numpy as np
import pytest
import servers
import xarray as xr
from dask.base import tokenize
from distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st
from indexings import VECTORISED, indices

from mrc_xarray import MrcError, MrcWarning

Array = np.ndarray[Any, Any]
Ranges = list[tuple[int, int]]

MOVIE, INFO, CSV = (
    f"{de.STEM}_{end}" for end in ("movie.mrc", "info.txt", "scan_coordinates.csv")
)
N = len(de.POSITIONS)
FRAME = 5 * 9 * 2
REPEATS = ("repeat", "scan_y", "scan_x", "ky", "kx")

# these tests ask for chunks that are smaller than the preferred ones
any_chunks = pytest.mark.filterwarnings("ignore:The specified chunks separate the stored chunks")


def opened(path: Any, **options: Any) -> xr.Dataset:
    return xr.open_dataset(path, engine="mrc", **options)


@pytest.fixture
def custom(tmp_path: Path) -> Path:
    """A custom scan of uint16: (repeat, scan_y, scan_x) of (3, 3, 4), with 8 frames of 36."""
    return de.write(tmp_path, de.frames(N), de.XY_FILE, de.POSITIONS)


def frames_in(ranges: Ranges) -> list[int]:
    """Return the frames of whose bytes any were read, as often as they were."""
    return sorted(
        frame
        for offset, n in ranges
        for frame in range((offset - 1024) // FRAME, (offset - 1024 + n - 1) // FRAME + 1)
    )


@any_chunks
@pytest.mark.parametrize("options", [{}, {"chunks": {}}], ids=str)
def test_raster(tmp_path: Path, options: dict[str, Any]) -> None:
    changed = {"Scan - Repeats": 2, "Scan - Point Repeat": 3, "Scan - ROI Enable": "Enable"}
    sizes = {"repeat": 2, "scan_y": 2, "scan_x": 5, "point_repeat": 3}
    pixels = de.frames(prod(sizes.values()))
    ds = opened(de.write(tmp_path, pixels, changed), **options)
    assert ds.data.sizes == sizes | {"ky": 5, "kx": 9}
    assert list(ds.data.dims) == [*sizes, "ky", "kx"]
    assert not {"section", "frame_index"} & set(ds.coords)
    assert ds.data.attrs["mrc_layout"] == "scan"
    assert "sidecar" in ds.data.attrs["mrc_layout_rule"]
    np.testing.assert_array_equal(ds.data, pixels.reshape(*sizes.values(), 5, 9))


def test_scan_that_does_not_fit_stays_a_stack(tmp_path: Path) -> None:
    message = r"info\.txt, line \d+: Scan - Repeats × Scan - Size Y.*= 12;.*in the movie, 11"
    pixels = de.frames(11)
    path = de.write(tmp_path, pixels)
    with pytest.warns(MrcWarning, match=message) as caught:
        ds = opened(path)
    assert len(caught) == 1
    assert "plain stack" in str(caught[0].message)
    assert MOVIE in str(caught[0].message)
    assert ds.data.dims == ("image", "ky", "kx")
    assert ds.section.values.tolist() == list(range(11))
    np.testing.assert_array_equal(ds.data, pixels)
    assert json.loads(ds.data.attrs["mrc_repairs"]) == [str(caught[0].message)]
    # a sidecar is no reason to refuse a file
    with pytest.warns(MrcWarning, match="plain stack"):
        assert opened(path, strict=True).sizes["image"] == 11


@any_chunks
@pytest.mark.parametrize(("dtype", "mmap"), [("u2", False), ("c8", True)])
def test_custom(tmp_path: Path, dtype: str, mmap: bool) -> None:
    pixels = de.frames(N, dtype)
    path = de.write(tmp_path, pixels, de.XY_FILE, de.POSITIONS)
    expected = de.dense(pixels)
    for options in ({}, {"chunks": {}}, {"chunks": {"scan_x": 3, "repeat": 2}}):
        ds = opened(path, mmap=mmap, **options)
        assert ds.data.dims == REPEATS
        assert ds.data.dtype == dtype
        np.testing.assert_array_equal(ds.data, expected)
    index = ds.coords["frame_index"]
    assert index.dims == ("repeat", "scan_y", "scan_x")
    assert index.dtype == np.int64
    np.testing.assert_array_equal(index, de.FRAME_INDEX)
    assert index.attrs.keys() == {"long_name"}
    # by these numbers the array finds its frames
    with pytest.raises(ValueError, match="copy"):
        index[...] = 0


def test_custom_at_one_point(tmp_path: Path) -> None:
    pixels = de.frames(1)
    changed = de.XY_FILE | {"Scan - Size Y": 1, "Scan - Size X": 1}
    ds = opened(de.write(tmp_path, pixels, changed, [(0, 0)]))
    assert ds.data.dims == ("ky", "kx")
    assert ds.frame_index == 0
    np.testing.assert_array_equal(ds.data[1:3, ::-2], pixels[0, 1:3, ::-2])


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, xr.Variable]:
    """A custom scan of frames of (5, 9), and the same in memory."""
    pixels = de.frames(N)
    path = de.write(tmp_path_factory.mktemp("scan"), pixels, de.XY_FILE, de.POSITIONS)
    return path, xr.Variable(REPEATS, de.dense(pixels))


def same(lazy: xr.Variable, eager: xr.Variable) -> None:
    assert lazy.dims == eager.dims
    found = lazy.values
    assert found.dtype == eager.dtype
    np.testing.assert_array_equal(found, eager.values)


def lazy_of(path: Path) -> xr.Variable:
    return opened(path, cache=False).data.variable


def test_vectorised(scanned: tuple[Path, xr.Variable]) -> None:
    path, eager = scanned
    names = {"z": "scan_x", "y": "ky", "x": "kx"}
    for keys in VECTORISED.values():
        key = {names[d]: xr.Variable(*k) if isinstance(k, tuple) else k for d, k in keys.items()}
        if isinstance(along := key.get("scan_x"), xr.Variable):
            key["scan_x"] = along % 4
        same(lazy_of(path).isel(key), eager.isel(key))


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(keys=st.tuples(*map(indices, (3, 3, 4, 5, 9))))
def test_any_orthogonal_indexing(scanned: tuple[Path, xr.Variable], keys: tuple[Any, ...]) -> None:
    path, eager = scanned
    key = dict(zip(eager.dims, keys, strict=True))
    same(lazy_of(path).isel(key), eager.isel(key))


def test_opening_reads_the_header_once(custom: Path, ranges_read: Ranges) -> None:
    opened(custom)
    size = custom.stat().st_size
    assert ranges_read == [(0, min(size, 64 * 1024))]


SELECTIONS: dict[str, dict[str, Any]] = {
    "one": {"repeat": 1, "scan_y": 0, "scan_x": 3},
    "a row": {"scan_y": 1},
    "a column backwards": {"scan_x": 3, "scan_y": slice(None, None, -1)},
    "a list": {"scan_x": [3, 0, 3]},
    "a window": {"repeat": slice(0, 2), "scan_y": slice(0, 2), "scan_x": slice(2, None)},
    "rows of a frame": {"scan_y": 0, "ky": slice(1, 2)},
    "all": {},
    "without frames": {"scan_y": 2},
    "nothing": {"scan_x": []},
}


@pytest.mark.parametrize("selection", SELECTIONS)
def test_a_selection_reads_its_frames_alone(
    custom: Path, ranges_read: Ranges, selection: str
) -> None:
    key = SELECTIONS[selection]
    data = opened(custom).data.isel(key)
    index = xr.Variable(REPEATS[:3], de.FRAME_INDEX)
    wanted = index.isel({dim: k for dim, k in key.items() if dim in index.dims}).values
    ranges_read.clear()
    found = data.values
    assert set(frames_in(ranges_read)) == set(wanted[wanted >= 0].tolist())
    eager = xr.Variable(REPEATS, de.dense(de.frames(N))).isel(key)
    np.testing.assert_array_equal(found, eager)
    n_rows = range(5)[key["ky"]] if "ky" in key else range(5)
    n_bytes = len(np.unique(wanted[wanted >= 0])) * len(n_rows) * 9 * 2
    if selection != "a list":
        assert sum(n for _, n in ranges_read) == n_bytes


@any_chunks
@pytest.mark.parametrize("chunks", [{"scan_y": 2, "scan_x": 3}, {"repeat": 2, "ky": 2}], ids=str)
def test_a_task_reads_the_frames_of_its_positions_alone(
    custom: Path, ranges_read: Ranges, chunks: dict[str, int]
) -> None:
    array = opened(custom, chunks=chunks).data.data
    starts = [np.cumsum([0, *sizes]) for sizes in array.chunks]
    expected = de.dense(de.frames(N))
    for block in np.ndindex(array.numblocks):
        at = tuple(slice(s[i], s[i + 1]) for s, i in zip(starts, block, strict=True))
        wanted = de.FRAME_INDEX[at[:3]]
        ranges_read.clear()
        found = array.blocks[block].compute(scheduler="synchronous")
        np.testing.assert_array_equal(found, expected[at])
        assert frames_in(ranges_read) == sorted(wanted[wanted >= 0].tolist())


def test_neighbours_in_the_file_are_read_together(tmp_path: Path, ranges_read: Ranges) -> None:
    """Their places in the scan do not matter: this one goes by columns, from right to left."""
    positions = [(x, y) for x in (3, 2, 1, 0) for y in (2, 1, 0)]
    data = opened(de.write(tmp_path, de.frames(12), de.XY_FILE, positions)).data
    ranges_read.clear()
    np.testing.assert_array_equal(data[0, 3], de.frames(12)[2])
    data.isel(scan_x=[2, 3]).load()
    data.load()
    assert ranges_read == [(1024 + 2 * FRAME, FRAME), (1024, 6 * FRAME), (1024, 12 * FRAME)]


def test_tokens(custom: Path) -> None:
    def token() -> str:
        return tokenize(opened(custom).data.variable._data)

    first = token()
    assert first == token()
    (custom.parent / CSV).write_bytes(de.csv(de.POSITIONS[::-1]))
    assert token() != first
    name = opened(custom, chunks={}).data.data.name
    assert name == opened(custom, chunks={}).data.data.name


@any_chunks
@pytest.mark.slow
def test_cluster(client: Client, custom: Path) -> None:
    expected = de.dense(de.frames(N))
    for chunks in ({}, {"scan_x": 1}, {"repeat": 1, "scan_y": 2, "ky": 3}):
        data = opened(custom, chunks=chunks).data
        np.testing.assert_array_equal(data.compute(scheduler=client), expected)
        detector = data.isel(ky=slice(1, 3), kx=slice(2, 8)).sum(("ky", "kx"))
        found = detector.compute(scheduler=client)
        np.testing.assert_array_equal(found, expected[..., 1:3, 2:8].sum((-1, -2)))
        np.testing.assert_array_equal(found.frame_index, de.FRAME_INDEX)


def test_pixel_sizes(custom: Path) -> None:
    for options, unit, scale in (({}, "angstrom", 10.0), ({"units": "nm"}, "nm", 1.0)):
        ds = opened(custom, **options)
        for dim, step, n in (("scan_x", 2, 4), ("scan_y", 3, 3)):
            np.testing.assert_allclose(ds[dim], np.arange(n) * step * scale)
            assert ds[dim].attrs["units"] == unit
            assert ds[dim].attrs["spacing"] == step * scale
        for dim, step, n in (("kx", 0.25, 9), ("ky", 0.5, 5)):
            np.testing.assert_allclose(ds[dim], np.arange(n) * step)
            assert ds[dim].attrs["units"] == "1/nm"
            assert ds[dim].attrs["spacing"] == step
        assert "repeat" not in ds.coords
        assert sorted(ds.indexes) == ["kx", "ky", "scan_x", "scan_y"]
        assert ds.mrc.voxel_size == pytest.approx({"scan_y": 30, "scan_x": 20})
    picked = ds.data.sel(scan_x=6, scan_y=0, kx=0.5, ky=1).isel(repeat=1)
    assert picked == de.frames(N)[3, 2, 2]


def test_single_values_are_attributes(custom: Path) -> None:
    attrs = opened(custom).data.attrs
    assert attrs["voltage_kV"] == 200
    assert attrs["gain_e_per_DN"] == 1 / 40
    assert (attrs["exposure_time"], attrs["exposure_time_units"]) == (0.125, "s")
    assert (attrs["camera_length"], attrs["camera_length_units"]) == (11, "cm")
    assert attrs["time"].startswith("2024-10-21T19:36:50")
    assert len(attrs) < 20
    assert all(isinstance(value, str | float | int) for value in attrs.values())
    text = {key: str(value) for key, value in (de.INFO | de.XY_FILE).items()}
    assert text["Server Software Version"] == "2.7.4 = by hand"
    assert opened(custom).mrc.metadata == json.loads(attrs["mrc_metadata"]) == text
    assert (opened(custom).data * 2).mrc.metadata == text


def test_images_of_the_specimen(tmp_path: Path) -> None:
    """In TEM mode and not scanned: a stack of images."""
    key = "Instrument Project Camera Length (centimeters)"
    changed = {"Instrument Project TEMorSTEM Mode": 0, key: -1, "Scan - Enable": "Disable"}
    ds = opened(de.write(tmp_path, de.frames(6), changed))
    assert ds.data.dims == ("image", "y", "x")
    assert ds.mrc.voxel_size == pytest.approx({"y": 30, "x": 20})
    assert ds.section.values.tolist() == list(range(6))
    # scanned in TEM mode: the pixel size is the scan's, and that of the image is unknown
    ds = opened(de.write(tmp_path, de.frames(12), changed | {"Scan - Enable": "Enable"}))
    assert ds.data.dims == ("scan_y", "scan_x", "y", "x")
    assert ds.mrc.voxel_size == pytest.approx({"scan_y": 30, "scan_x": 20})


def test_counted_movie_is_unsigned(custom: Path) -> None:
    pixels = np.arange(N * 45, dtype="u1").reshape(N, 5, 9)
    # by the header of the server, and by the info file
    changed = de.XY_FILE | {"Autosave Counted Movie Pixel Format": "uint8"}
    for fields, info in (({}, de.XY_FILE), ({"cella": (90, 50, 0)}, changed)):
        custom.write_bytes(de.movie(pixels, **fields))
        (custom.parent / INFO).write_bytes(de.info(info))
        ds = opened(custom)
        assert ds.data.dtype == np.uint8
        np.testing.assert_array_equal(ds.data, de.dense(pixels))
        assert opened(custom, mode0="int8").data.dtype == np.int8


def test_arguments_win(tmp_path: Path) -> None:
    """Without a warning about the positions, which do not fit."""
    path = de.write(tmp_path, de.frames(12), de.XY_FILE, de.POSITIONS)
    for options, leading in (
        ({"scan_shape": (4, 3)}, ("scan_y", "scan_x")),
        ({"layout": "image_stack"}, ("image",)),
        ({"sections_per_frame": 12}, ("image", "channel")),
    ):
        ds = opened(path, **options)
        assert ds.data.dims == (*leading, "ky", "kx")
        assert "frame_index" not in ds.coords
        np.testing.assert_array_equal(ds.data.values.reshape(12, 5, 9), de.frames(12))
        # the other metadata of the sidecar are still used
        assert ds.data.attrs["voltage_kV"] == 200
    with pytest.raises(MrcError, match=r"scan_shape \(3, 2\) has 6 .* 12 frames"):
        opened(path, scan_shape=(3, 2))


def test_own_names_of_dimensions(custom: Path) -> None:
    ds = opened(custom, dims=("visit", "row", "column", "v", "u"))
    assert ds.data.dims == ("visit", "row", "column", "v", "u")
    assert ds.frame_index.dims == ("visit", "row", "column")
    assert ds.row.attrs["spacing"] == 30
    assert ds.u.attrs["units"] == "1/nm"
    with pytest.raises(ValueError, match="5 different names, for repeat, scan_y, scan_x, ky, kx"):
        opened(custom, dims=("row", "column"))


def test_no_sidecar(custom: Path) -> None:
    ds = opened(custom, metadata_file=None)
    assert ds.data.dims == ("image", "y", "x")
    assert sorted(ds.coords) == ["section"]
    assert "voltage_kV" not in ds.data.attrs
    assert ds.mrc.metadata == {}
    np.testing.assert_array_equal(ds.data, de.frames(N))
    with pytest.warns(MrcWarning, match="Scan - Type is 'XY File'.*scan_file= names"):
        ds = opened(custom, scan_file=None)
    assert ds.data.dims == ("image", "ky", "kx")


def test_scan_file_alone(custom: Path) -> None:
    """Without an info file, the scan is as large as its coordinates."""
    expected = de.dense(de.frames(N), de.FRAME_INDEX[:, :2])
    plain = custom.with_name("any name.mrc")
    plain.write_bytes(by_hand.mrc(de.frames(N)))
    for scan_file in (custom.parent / CSV, str(custom.parent / CSV), io.BytesIO(de.csv())):
        ds = opened(plain, scan_file=scan_file)
        assert ds.data.dims == ("repeat", "scan_y", "scan_x", "y", "x")
        np.testing.assert_array_equal(ds.data, expected)
    with pytest.warns(MrcWarning, match="the number of positions is 1"):
        assert opened(plain, scan_file=io.BytesIO(b"0,0")).data.dims == ("z", "y", "x")


TEXTS: dict[str, Callable[[Path], Any]] = {
    "StringIO": lambda path: io.StringIO(path.read_text()),
    "open": lambda path: path.open(),
    "Latin-1": lambda path: path.open(encoding="latin-1", newline=""),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_sidecars_as_text_files(custom: Path, kind: str) -> None:
    other = custom.rename(custom.with_name("other.mrc"))
    with (
        TEXTS[kind](custom.parent / INFO) as info,
        TEXTS[kind](custom.parent / CSV) as positions,
    ):
        before = info.readline(), info.tell()
        for options in ({}, {"chunks": {}}):
            ds = opened(other, metadata_file=info, scan_file=positions, **options)
            assert before[1:] == (info.tell(),)
            np.testing.assert_array_equal(ds.data, de.dense(de.frames(N)))
        # also while its lines are iterated
        next(iter(info))
        ds = opened(other, metadata_file=info, scan_file=None, layout="image_stack")
        assert ds.data.attrs["voltage_kV"] == 200


@pytest.mark.filterwarnings("ignore::mrc_xarray.MrcWarning")
def test_each_sidecar_as_text(tmp_path: Path) -> None:
    path = tmp_path / "series.mrc"
    path.write_bytes(by_hand.mrc(de.frames(2)))
    mdoc = "[ZValue = 0]\nTiltAngle = -3\n[ZValue = 1]\nTiltAngle = 3\n"
    for text in ("-3\n3\n", mdoc):
        assert opened(path, metadata_file=io.StringIO(text)).tilt_angle.values.tolist() == [-3, 3]
    with pytest.raises(TypeError, match="open it as 'rb'"):
        opened(io.StringIO("text"))


@pytest.mark.filterwarnings("error")
def test_times_of_a_movie_whose_frame_rate_is_known(tmp_path: Path) -> None:
    changed = {"Scan - Enable": "Disable", "Frames Per Second": 40, "Scan - Repeats": -1}
    for more, step in (({}, 1 / 40), ({"Autosave Movie Sum Count": 5}, 1 / 8)):
        ds = opened(de.write(tmp_path, de.frames(6), changed | more), chunks={})
        np.testing.assert_allclose(ds.time, np.arange(6) * step, rtol=1e-15)
        assert (ds.time.dims, ds.time.attrs["units"]) == (("image",), "s")
        # the time of the acquisition
        assert ds.data.attrs["time"].startswith("2024-10-21")
    by_duration = {"Frames Per Second": -1, "Frame Time (nanoseconds)": 25e6}
    ds = opened(de.write(tmp_path, de.frames(6), changed | by_duration))
    np.testing.assert_allclose(ds.time, np.arange(6) / 40)
    for unknown in ({"Frames Per Second": -1}, {"Frames Per Second": "1e-320"}):
        assert "time" not in opened(de.write(tmp_path, de.frames(6), changed | unknown)).coords
    # a scan has no time along an image, unless it is opened as a stack
    path = de.write(tmp_path, de.frames(12), changed | {"Scan - Enable": "Enable"})
    assert "time" not in opened(path).coords
    np.testing.assert_allclose(opened(path, layout="image_stack").time, np.arange(12) / 40)
    assert "time" not in opened(path, layout="volume").coords


def test_times_as_rosettasciio_has_them(real_file: Callable[[str], Path], tmp_path: Path) -> None:
    reader = pytest.importorskip("rsciio.mrc._api", reason="RosettaSciIO is not installed")
    info = real_file("direct_electron/3DTEM_scan_info.txt")
    axes = reader.read_de_metadata_file(str(info))[2]
    path = tmp_path / "movie.mrc"
    path.write_bytes(de.movie(de.frames(5)))
    times = opened(path, metadata_file=info).time
    assert (axes[0]["name"], axes[0]["units"], times.attrs["units"]) == ("time", "sec", "s")
    np.testing.assert_allclose(times, np.arange(5) * float(axes[0]["scale"]))


def test_info_file_with_another_suffix(custom: Path) -> None:
    expected = opened(custom)
    for name in (INFO, CSV):
        suffixed = name.replace(de.STEM, f"{de.STEM}_run 1_2")
        (custom.parent / name).rename(custom.parent / suffixed)
    xr.testing.assert_equal(opened(custom), expected)
    with gzip.open(f"{custom}.gz", "wb") as file:
        file.write(custom.read_bytes())
    xr.testing.assert_equal(opened(f"{custom}.gz"), expected)
    other = custom.with_name(f"{de.STEM}_run 3_info.txt")
    other.write_bytes(de.info({"Instrument Accelerating Voltage (V)": 80000} | de.XY_FILE))
    with pytest.warns(MrcWarning, match=f"first of 2.*{de.STEM}_run 1_2_info.txt is used") as got:
        ds = opened(custom)
    assert len(got) == 1
    xr.testing.assert_equal(ds, expected)


def test_scan_file_overrides_the_sidecars(custom: Path, tmp_path: Path) -> None:
    other = io.BytesIO(de.csv([(x, y) for y in (0, 1) for x in range(4)]))
    ds = opened(custom, scan_file=other)
    assert ds.data.sizes == {"scan_y": 3, "scan_x": 4, "ky": 5, "kx": 9}
    np.testing.assert_array_equal(ds.data[:2].values.reshape(8, 5, 9), de.frames(N))
    # the info file describes a raster that fits as well
    path = de.write(tmp_path, de.frames(12))
    positions = [(x, y) for x in range(4) for y in range(3)]
    ds = opened(path, scan_file=io.BytesIO(de.csv(positions)))
    np.testing.assert_array_equal(ds.frame_index, np.arange(12).reshape(4, 3).T)


def test_sidecars_by_name(custom: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.mrc"
    other.write_bytes(custom.read_bytes())
    assert opened(other).data.dims == ("image", "y", "x")
    ds = opened(other, metadata_file=custom.parent / INFO, scan_file=custom.parent / CSV)
    xr.testing.assert_equal(ds, opened(custom))


def test_trimmed_movie(custom: Path) -> None:
    custom.write_bytes(custom.read_bytes()[:-3])
    with (
        pytest.warns(MrcWarning, match=r"NZ \(bytes 8–11\) is 8"),
        pytest.warns(MrcWarning, match=r"the number of positions is 8; .* 7"),
    ):
        ds = opened(custom, truncated="trim")
    assert ds.data.dims == ("image", "ky", "kx")
    np.testing.assert_array_equal(ds.data, de.frames(N - 1))


def files_of(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.parent.iterdir()}


def test_memory(custom: Path) -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe({f"/scans/{name}": raw for name, raw in files_of(custom).items()})
    url, expected = f"memory://scans/{MOVIE}", opened(custom)
    xr.testing.assert_equal(opened(url), expected)
    xr.testing.assert_equal(opened(f"simplecache::{url}"), expected)
    # named from one store for a file in another
    other = custom.rename(custom.with_name("other.mrc"))
    folder = "memory://scans"
    ds = opened(other, metadata_file=f"{folder}/{INFO}", scan_file=f"{folder}/{CSV}")
    xr.testing.assert_equal(ds, expected)
    fs.rm("/scans", recursive=True)


@pytest.mark.slow
def test_http(custom: Path) -> None:
    with servers.http_server(custom.parent) as server:
        ds = opened(server.url(MOVIE))
        # the size, the header, and each sidecar once
        assert server.methods().count("HEAD") == 1
        assert server.methods().count("GET") == 3
        xr.testing.assert_equal(ds, opened(custom))
        server.requests.clear()
        np.testing.assert_array_equal(ds.data.isel(scan_y=0), de.dense(de.frames(N))[:, 0])
        assert not ds.data.isel(scan_y=2).values.any()
        server.requests.clear()
        opened(server.url(MOVIE), metadata_file=None)
        assert server.methods() == ["HEAD", "GET"]
        (custom.parent / "other.mrc").write_bytes(custom.read_bytes())
        server.requests.clear()
        assert opened(server.url("other.mrc")).data.dims == ("image", "y", "x")
        assert server.methods() == ["HEAD", "GET"]
        ds = opened(
            server.url("other.mrc"), metadata_file=server.url(INFO), scan_file=server.url(CSV)
        )
        xr.testing.assert_equal(ds, opened(custom))


@pytest.mark.slow
def test_s3(monkeypatch: pytest.MonkeyPatch, custom: Path) -> None:
    s3fs = pytest.importorskip("s3fs")
    calls = []
    real = s3fs.S3FileSystem._call_s3

    async def call(self: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        calls.append((method, kwargs.get("Key", "").rpartition("/")[2].removeprefix(de.STEM)))
        return await real(self, method, *args, **kwargs)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", call)
    with servers.s3_server() as s3:
        for name, raw in files_of(custom).items():
            s3.put(name, raw)
        calls.clear()
        ds = opened(s3.url(MOVIE), storage_options=s3.storage_options)
        assert calls[:2] == [("head_object", "_movie.mrc"), ("get_object", "_movie.mrc")]
        got = [key for method, key in calls[2:] if method == "get_object"]
        assert got == ["_info.txt", "_scan_coordinates.csv"]
        assert len(calls) <= 6
        xr.testing.assert_equal(ds, opened(custom))

        s3.put("plain.mrc", custom.read_bytes())
        calls.clear()
        opened(s3.url("plain.mrc"), storage_options=s3.storage_options)
        # an .mdoc can make a stack of a volume
        assert calls == [
            ("head_object", "plain.mrc"), ("get_object", "plain.mrc"),
            ("get_object", "plain.mrc.mdoc"), ("get_object", "plain.mdoc"),
        ]  # fmt: skip


def rosettasciio(path: Path, **options: Any) -> Array:
    reader = pytest.importorskip("rsciio.mrc", reason="RosettaSciIO is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        signals = reader.file_reader(str(path), **options)
    return np.asarray(signals[0]["data"])


def test_real_raster_as_rosettasciio_reads_it(real_file: Callable[[str], Path]) -> None:
    path = real_file("direct_electron/20241021_00405_movie.mrc")
    ds = opened(path)
    info = path.with_name("20241021_00405_info.txt")
    oracle = rosettasciio(path, metadata_file=str(info))
    assert ds.data.sizes == {"scan_y": 4, "scan_x": 8, "ky": 4, "kx": 8}
    assert ds.data.dtype == oracle.dtype == np.uint16
    np.testing.assert_array_equal(ds.data.values, oracle)
    np.testing.assert_array_equal(
        ds.data.values.ravel(), np.frombuffer(path.read_bytes()[1024:], "<u2")
    )
    # the info file is the oracle for scales
    assert ds.mrc.voxel_size == pytest.approx({"scan_y": 2, "scan_x": 1})
    assert ds.kx.attrs["spacing"] == ds.ky.attrs["spacing"] == 0.1
    assert ds.data.attrs["voltage_kV"] == 300


def test_real_custom_as_rosettasciio_reads_it(real_file: Callable[[str], Path]) -> None:
    path = real_file("direct_electron/Custom_movie.mrc")
    ds = opened(path)
    assert ds.data.sizes == {"repeat": 2, "scan_y": 5, "scan_x": 5, "ky": 16, "kx": 16}
    oracle = rosettasciio(
        path,
        metadata_file=str(path.with_name("Custom_info.txt")),
        scan_file=str(path.with_name("Custom_scan_coordinates.csv")),
    )
    assert oracle.size == ds.data.size
    # the order of its dimensions may differ
    repeats = int(np.argmax(np.array(oracle.shape[:3]) == 2))
    np.testing.assert_array_equal(ds.data.values, np.moveaxis(oracle, repeats, 0))
    assert sorted(ds.coords) == ["frame_index"]
    raw = np.frombuffer(path.read_bytes()[1024:], "<u2").reshape(30, 16, 16)
    rows = path.with_name("Custom_scan_coordinates.csv").read_text().split()
    for frame, row in enumerate(rows):
        x, y = map(int, row.split(","))
        np.testing.assert_array_equal(ds.data[frame // 15, y, x], raw[frame])


def test_name_of_a_detector_in_the_info_file(tmp_path: Path) -> None:
    path = de.write(tmp_path, de.frames(12), {"Scan - Virtual Detector 1 Name": "inner_left"})
    image = by_hand.mrc(np.ones((1, 3, 4), "f4"), ispg=0, mz=1)
    (tmp_path / f"{de.STEM}_1_inner_left_sum.mrc").write_bytes(image)
    tree = xr.open_datatree(path, engine="mrc")
    assert list(tree["virtual"].children) == ["inner_left"]
    assert tree["virtual/inner_left"]["data"].dims == ("scan_y", "scan_x")
