"""``mrc-xarray convert``: from each format and store to others."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import by_hand
import dm_by_hand as dm
import fsspec
import mrcfile
import numpy as np
import pytest
import servers
import xarray as xr

from mrc_xarray import open_ome_zarr
from mrc_xarray.cli import main
from mrc_xarray.writing import progress

Array = np.ndarray[Any, Any]

PIXELS = np.random.default_rng(8).integers(-(2**15), 2**15, (16, 24, 40), "i2")
# a voxel size of 2.5 Å, and not at the origin
FIELDS: dict[str, Any] = {"cella": (100, 60, 40), "origin": (-20, 5, 30), "labels": (b"ours",)}
BYTES = by_hand.mrc(PIXELS, **FIELDS)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.mrc"
    path.write_bytes(BYTES)
    return path


def opened(target: Path | str, **options: Any) -> xr.Dataset:
    if str(target).endswith(".ome.zarr"):
        return open_ome_zarr(target).load()
    engine = {".zarr": "zarr", ".nc": "netcdf4"}.get(os.path.splitext(target)[1], "mrc")
    if engine == "zarr":
        options["consolidated"] = False
    with xr.open_dataset(target, engine=engine, **options) as ds:
        return ds.load()


def convert(*arguments: object) -> int:
    """Run the command, and return its exit status."""
    try:
        return main(["convert", *map(str, arguments)])
    except SystemExit as stopped:
        return int(stopped.code or 0)


def check_equal(found: xr.Dataset, expected: xr.Dataset) -> None:
    np.testing.assert_array_equal(found.data, expected.data)
    assert found.data.dtype == expected.data.dtype
    assert found.data.dims == expected.data.dims
    for name in expected.coords:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6)
        assert found[name].attrs.get("units") == expected[name].attrs.get("units")


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the error, which is one line."""
    out, err = capsys.readouterr()
    assert out == ""
    [line] = err.splitlines()
    return line


# kinds ------------------------------------------------------------------------------------------


def test_around_all_kinds_and_back(source: Path, tmp_path: Path) -> None:
    expected = opened(source)
    before = source
    for i, suffix in enumerate((".mrcz", ".zarr", ".nc", ".mrc")):
        after = tmp_path / f"{i}{suffix}"
        assert convert(before, after, "--quiet") == 0
        found = opened(after)
        check_equal(found, expected)
        assert found.data.mrc.voxel_size == pytest.approx({"z": 2.5, "y": 2.5, "x": 2.5})
        assert any(label.strip() == "ours" for label in found.mrc.header.label)
        before = after
    assert mrcfile.validate(before, print_file=sys.stderr)
    with mrcfile.open(before) as mrc:
        np.testing.assert_array_equal(mrc.data, PIXELS)
        assert mrc.voxel_size.tolist() == (2.5, 2.5, 2.5)
        assert mrc.header.origin.tolist() == (-20, 5, 30)
    assert source.read_bytes() == BYTES


def test_ome_zarr_and_back(source: Path, tmp_path: Path) -> None:
    store, back = tmp_path / "a.ome.zarr", tmp_path / "b.mrc"
    arguments = ["--quiet", "--levels", 3, "--chunks", 8, "--method", "mode"]
    assert convert(source, store, *arguments) == 0
    check_equal(opened(store), opened(source))
    assert open_ome_zarr(store, level=2).data.shape == (4, 6, 10)
    assert open_ome_zarr(store).data.encoding["preferred_chunks"] == {"z": 8, "y": 8, "x": 8}
    assert convert(store, back, "--quiet", "--select", "z=30:60A") == 0
    with mrcfile.open(back) as mrc:
        np.testing.assert_array_equal(mrc.data, PIXELS[:13])
        assert mrc.voxel_size.tolist() == (2.5, 2.5, 2.5)
        assert mrc.header.origin.tolist() == (-20, 5, 30)
        assert mrc.header.label[0].strip() == b"ours"
    # a coarser level, by an option and as a group
    for name, options in ((store, ["--level", 1]), (store / "scale1", [])):
        assert convert(name, back, "--quiet", "--overwrite", *options) == 0
        with mrcfile.open(back) as mrc:
            assert mrc.voxel_size.tolist() == (5, 5, 5)
            assert mrc.header.origin.tolist() == (-18.75, 6.25, 31.25)


# other pairs are in the tests above
@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (".zarr", ".mrcz"), (".zarr", ".zarr"), (".mrcz", ".nc"), (".nc", ".ome.zarr"),
        (".ome.zarr", ".ome.zarr"), (".ome.zarr", ".nc"),
    ],
)  # fmt: skip
def test_each_kind_to_each(source: Path, tmp_path: Path, first: str, second: str) -> None:
    between, path = tmp_path / f"first{first}", tmp_path / f"second{second}"
    assert convert(source, between, "--quiet") == 0
    assert convert(between, path, "--quiet") == 0
    check_equal(opened(path), opened(source))
    assert sorted(os.listdir(tmp_path)) == sorted([source.name, between.name, path.name])


@pytest.mark.parametrize(("suffix", "dtype"), [(".mrc", "c8"), (".mrcz", "i1"), (".nc", "f4")])
def test_types_are_preserved(tmp_path: Path, suffix: str, dtype: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 100, (3, 4, 5)).astype(dtype)
    source, path = tmp_path / "source.mrc", tmp_path / f"written{suffix}"
    source.write_bytes(by_hand.mrc(pixels))
    assert convert(source, path, "--quiet") == 0
    check_equal(opened(path), opened(source))


NIBBLES = by_hand.pack_4bit((np.arange(60).reshape(3, 4, 5) % 16).astype("u1"))
# int16 and float32 are in the tests above
OTHER_TYPES = {
    "c8": by_hand.mrc(np.full((3, 4, 5), 1 + 2j, "c8")),
    "f2": by_hand.mrc(np.full((3, 4, 5), 0.1, "f2")),
    "rgb": by_hand.mrc(np.full((3, 4, 15), 250, "u1"), 16, shape=(3, 4, 5)),
    "4 bits": by_hand.mrc(NIBBLES, 101, shape=(3, 4, 5)),
}


@pytest.mark.parametrize("kind", OTHER_TYPES)
def test_other_types_to_zarr_and_netcdf(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source.mrc"
    source.write_bytes(OTHER_TYPES[kind])
    expected = opened(source)
    assert convert(source, tmp_path / "a.zarr", "--quiet") == 0
    check_equal(opened(tmp_path / "a.zarr"), expected)
    if kind not in ("f2", "c8"):
        assert convert(source, tmp_path / "a.nc", "--quiet") == 0
        check_equal(opened(tmp_path / "a.nc"), expected)
        return
    assert convert(source, tmp_path / "a.nc", "--quiet") == 1
    text = complaint(capsys)
    hint = "--mode 2" if kind == "f2" else "ds['data'].real and .imag"
    for part in ("a.nc", "'data'", expected["data"].dtype.name, ".zarr", hint):
        assert part in text


def test_mode_of_another_format(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half, target = tmp_path / "half.mrc", tmp_path / "a.nc"
    half.write_bytes(OTHER_TYPES["f2"])
    assert convert(half, target, "--quiet", "--mode", 2) == 0
    found, expected = opened(target)["data"], opened(half)["data"]
    assert (found.dtype, found.attrs) == (np.float32, expected.attrs)
    np.testing.assert_array_equal(found, expected.astype("f4"))
    assert convert(source, target, "--quiet", "--mode", 0, "--overwrite") == 1
    assert "mode 0 (int8) can't hold" in complaint(capsys)


@pytest.mark.parametrize(
    ("suffix", "fields", "dims"),
    [
        (".nc", {"ispg": 0, "mz": 1}, ("image", "y", "x")),
        (".zarr", {"ispg": 401, "mz": 4}, ("volume", *"zyx")),
    ],
)
def test_layouts_are_preserved(
    tmp_path: Path, suffix: str, fields: dict[str, Any], dims: tuple[str, ...]
) -> None:
    source, between, path = (tmp_path / name for name in ("a.mrc", f"b{suffix}", "c.mrc"))
    cella = {"cella": (100, 60, 10)}
    source.write_bytes(by_hand.mrc(PIXELS, **fields, **cella))
    assert opened(source).data.dims == dims
    assert convert(source, between, "--quiet") == 0
    check_equal(opened(between), opened(source))
    assert convert(between, path, "--quiet") == 0
    check_equal(opened(path), opened(source))


# options ----------------------------------------------------------------------------------------

SEVERAL = (
    ["z=2:4", "y=0:9:3", "x=-4:"],
    {"z": slice(2, 4), "y": slice(0, 9, 3), "x": slice(-4, None)},
)


@pytest.mark.parametrize(
    ("suffix", "texts", "selection"),
    [
        # an index retains the dimension
        (".rec", ["z=-1", "y=0"], {"z": slice(-1, None), "y": slice(0, 1)}),
        *((suffix, *SEVERAL) for suffix in (".mrcz", ".zarr", ".nc")),
    ],
)
def test_selection_is_by_index(
    source: Path, tmp_path: Path, suffix: str, texts: list[str], selection: dict[str, slice]
) -> None:
    path = tmp_path / f"part{suffix}"
    assert convert(source, path, "--quiet", "--select", *texts) == 0
    check_equal(opened(path), opened(source).isel(selection))


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        *(
            ("a.mrc", ["--select", text], text.partition("=")[0])
            for text in ("w=0:2", "z", "z=5:5")
        ),
        # the values do not fit
        ("a.mrc", ["--mode", "0"], "127"),
        ("a.mrc", ["--mode", "5"], "5"),
        ("a.mrc", ["--mode", "six"], "six"),
        ("a.mrcz", ["--compressor", "rar"], "rar"),
        ("a.zarr", ["--clevel", "1"], "can't be used for a target in Zarr"),
        ("a.nc", ["--compression", "gzip"], "can't be used for a target in netCDF"),
        (
            "a.mrc",
            ["--compression", "zip"],
            "compression is 'zip'; accepted: 'auto', None, 'gzip'",
        ),
        ("a.nc.gz", [], "a.nc.gz: netCDF can't be written as a compressed stream"),
        ("a.zarr.gz", [], "leave out .gz"),
        ("a.ome.zarr.gz", [], "OME-Zarr can't be written as a compressed stream"),
        (
            "a.mrc",
            ["--levels", "2"],
            "levels can't be used for a target in MRC; accepted: a target",
        ),
        ("a.ome.zarr", ["--level", "2"], "accepted: a source in OME-Zarr"),
        ("a.ome.zarr", ["--levels", "9"], "levels is 9; accepted: 'auto', or 1 to 6"),
    ],
)
def test_bad_option_is_one_line(
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    options: list[str],
    text: str,
) -> None:
    assert convert(source, tmp_path / name, "--quiet", *options) in (1, 2)
    assert text in complaint(capsys)
    assert os.listdir(tmp_path) == [source.name]


@pytest.mark.parametrize(("suffix", "mode", "dtype"), [(".mrcz", 6, "u2"), (".mrc", 12, "f2")])
def test_mode_casts(tmp_path: Path, suffix: str, mode: int, dtype: str) -> None:
    pixels = np.random.default_rng(0).uniform(0, 100, (3, 4, 5)).astype("f4")
    source, path = tmp_path / "source.mrc", tmp_path / f"cast{suffix}"
    source.write_bytes(by_hand.mrc(pixels))
    assert convert(source, path, "--quiet", "--mode", mode) == 0
    expected = np.rint(pixels) if dtype in ("i2", "u2") else pixels
    found = opened(path).data
    assert found.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found, expected.astype(dtype))


@pytest.mark.parametrize(
    ("name", "options", "codec"),
    [
        ("a.mrcz", [], "zstd"),
        ("a.mrcz", ["--compressor", "none"], None),
        ("a.mrcz", ["--compressor", "lz4", "--clevel", "5"], "lz4"),
        ("a.mrc", ["--compression", "bzip2"], "bz2"),
        ("a.mrc.gz", ["--compression", "none"], None),
    ],
)
def test_compression(
    source: Path, tmp_path: Path, name: str, options: list[str], codec: str | None
) -> None:
    assert convert(source, tmp_path / name, "--quiet", *options) == 0
    found = opened(tmp_path / name)
    assert found.data.attrs.get("mrcz_codec", found.data.attrs.get("mrc_stream")) == codec
    check_equal(found, opened(source))


@pytest.mark.parametrize("suffix", [".zarr", ".nc"])
def test_target_is_overwritten_only_when_asked(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    path = tmp_path / f"target{suffix}"
    assert convert(source, path, "--quiet", "--select", "z=0:2") == 0
    before = opened(path)
    assert convert(source, path, "--quiet") == 1
    assert path.name in complaint(capsys)
    check_equal(opened(path), before)
    assert convert(source, path, "--quiet", "--overwrite") == 0
    check_equal(opened(path), opened(source))


def test_file_is_converted_onto_itself(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "itself.mrcz"
    assert convert(source, path, "--quiet") == 0
    assert convert(path, path, "--quiet", "--overwrite", "--select", "z=4:9") == 0
    check_equal(opened(path), opened(source).isel(z=slice(4, 9)))


def test_progress_in_a_terminal_only(
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "_LONG", 0.0)
    assert convert(source, tmp_path / "a.mrc") == 0
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert convert(source, tmp_path / "b.mrc", "--quiet") == 0
    assert capsys.readouterr() == ("", "")
    for suffix in (".mrc", ".zarr", ".nc", ".ome.zarr"):
        assert convert(source, tmp_path / f"c{suffix}") == 0
        out, err = capsys.readouterr()
        assert out == ""
        assert "100% Completed" in err


# what goes wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["missing.mrc", "missing.zarr", "missing.nc"])
def test_missing_source_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert convert(tmp_path / name, tmp_path / "target.mrc", "--quiet") == 1
    assert "missing" in complaint(capsys)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("suffix", [".mrc", ".zarr", ".nc"])
def test_damaged_source_leaves_no_target(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    source = tmp_path / "source.mrc"
    source.write_bytes(BYTES[:-1])
    assert convert(source, tmp_path / f"target{suffix}", "--quiet") == 1
    assert "truncated" in complaint(capsys)
    assert os.listdir(tmp_path) == [source.name]


def test_source_with_several_variables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source.nc"
    xr.Dataset({"one": ("y", [1.0]), "two": ("y", [2.0])}).to_netcdf(source)
    assert convert(source, tmp_path / "target.mrc", "--quiet") == 1
    line = complaint(capsys)
    assert "one" in line
    assert "two" in line
    assert os.listdir(tmp_path) == [source.name]


def test_zarr_is_not_converted_onto_itself(source: Path, tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    assert convert(source, store, "--quiet") == 0
    before = opened(store)
    for target in (store, store / "inner.zarr"):
        assert convert(store, target, "--quiet", "--overwrite") == 1
    xr.testing.assert_identical(opened(store), before)


@pytest.mark.slow
def test_the_installed_command(source: Path, tmp_path: Path) -> None:
    command = shutil.which("mrc-xarray", path=os.path.dirname(sys.executable))
    if command is None:
        pytest.skip("the command is not installed with this Python")
    path = tmp_path / "target.mrcz"
    arguments = [command, "convert", str(source), str(path)]
    done = subprocess.run([*arguments, "--select", "z=0:10"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    check_equal(opened(path), opened(source).isel(z=slice(0, 10)))
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


# stores -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3() -> Iterator[servers.S3]:
    with servers.s3_server() as s3:
        yield s3


@pytest.fixture(params=["memory", pytest.param("s3", marks=pytest.mark.slow)])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], str]]:
    """Return a function from names to URLs, whose options are in fsspec's configuration."""
    # new names in each test, because file systems cache listings
    directory = tmp_path.name
    if request.param == "s3":
        s3 = request.getfixturevalue("s3")
        monkeypatch.setitem(fsspec.config.conf, "s3", s3.storage_options)
        yield lambda name: s3.url(f"{directory}/{name}")
    else:
        yield lambda name: f"memory://{directory}/{name}"
        fs = fsspec.filesystem("memory")
        if fs.exists(f"/{directory}"):
            fs.rm(f"/{directory}", recursive=True)


Store = Callable[[str], str]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (".mrcz", ".zarr"), (".zarr", ".mrc"),
        pytest.param(".zarr", ".zarr", marks=pytest.mark.slow),
        pytest.param(".ome.zarr", ".ome.zarr", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_store_to_store(source: Path, store: Store, first: str, second: str) -> None:
    urls = [store(f"first{first}"), store(f"second{second}")]
    assert convert(source, urls[0], "--quiet") == 0
    assert convert(*urls, "--quiet", "--select", "z=1:6") == 0
    check_equal(opened(urls[1]), opened(source).isel(z=slice(1, 6)))


def test_store_is_overwritten_only_when_asked(
    source: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    url = store("target.mrc")
    assert convert(source, url, "--quiet", "--select", "z=0:2") == 0
    assert convert(source, url, "--quiet") == 1
    assert "target.mrc" in complaint(capsys)
    check_equal(opened(url), opened(source).isel(z=slice(0, 2)))
    assert convert(source, url, "--quiet", "--overwrite") == 0
    check_equal(opened(url), opened(source))


# memory -----------------------------------------------------------------------------------------

# VmHWM, because ru_maxrss starts with the value of the parent process
PEAK = """
import sys
from mrc_xarray.cli import main

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))

small, large, suffix = sys.argv[1:]
assert main(["convert", small, small + suffix, "--quiet"]) == 0
before = peak()
assert main(["convert", large, large + suffix, "--quiet"]) == 0
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the peak is read from /proc")
@pytest.mark.parametrize("suffix", [".mrcz", ".zarr"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, suffix: str) -> None:
    small, large = tmp_path / "small.mrc", tmp_path / "large.mrc"
    # several chunks, so that the baseline includes the memory for one chunk
    small.write_bytes(by_hand.mrc(np.ones((8, 1024, 1024), "f4")))
    with large.open("wb") as file:
        file.write(by_hand.header((64, 1024, 1024), 2))
        file.truncate(1024 + 4 * 64 * 1024 * 1024)
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(small), str(large), suffix],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) / 1024 < 100


# files of DigitalMicrograph ----------------------------------------------------------------------

# the command prints warnings
warned = pytest.mark.filterwarnings("always::mrc_xarray.MrcWarning")
NM = (-3, 0.25, "nm")
EELS: dict[str, Any] = {"axes": [NM, NM, (100, 0.5, "eV")], "Session": {"Operator": "Ω", "n": 3}}


def check_tags(found: xr.Dataset) -> None:
    assert found.mrc.metadata["ImageTags"] == {"Session": {"Operator": "Ω", "n": 3}}
    assert found.data.attrs["title"] == "an image"


@pytest.mark.parametrize(
    ("name", "suffix"), [("a.dm4", ".mrcz"), ("a.dm3.gz", ".zarr"), ("a.xx4", ".nc")]
)
def test_dm(tmp_path: Path, name: str, suffix: str) -> None:
    """Axes of energies and lengths, and all tags."""
    raw = dm.dm(dm.image(PIXELS, 1, **EELS), version=int(name[4]))
    source, target = tmp_path / name, tmp_path / f"b{suffix}"
    source.write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    assert convert(source, target, "--quiet") == 0
    found = opened(target)
    check_equal(found, xr.open_dataset(source, engine="dm"))
    np.testing.assert_array_equal(found.energy, np.arange(-50, -42, 0.5))
    np.testing.assert_allclose(found.x, (np.arange(40) + 3) * 2.5)
    check_tags(found)


@warned
def test_dm_to_plain_mrc(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "a.dm4", tmp_path / "b.mrc"
    source.write_bytes(dm.dm(dm.image(PIXELS, 1, **EELS)))
    assert convert(source, target, "--quiet", "--select", "energy=2:5") == 0
    [warning] = capsys.readouterr().err.splitlines()
    assert "(energy, y, x), which open as (image, y, x); the coordinates energy;" in warning
    assert "the metadata" in warning
    with mrcfile.open(target) as file:
        np.testing.assert_array_equal(file.data, PIXELS[2:5])
        assert file.voxel_size.x == 2.5


@warned
@pytest.mark.slow
def test_dm_to_ome_zarr(tmp_path: Path) -> None:
    """Energies are an axis of OME-Zarr, and colours one of channels."""
    (tmp_path / "a.dm4").write_bytes(dm.dm(dm.image(PIXELS, 1, **EELS)))
    assert convert(tmp_path / "a.dm4", tmp_path / "a.ome.zarr", "--quiet") == 0
    found = opened(tmp_path / "a.ome.zarr")
    check_equal(found, xr.open_dataset(tmp_path / "a.dm4", engine="dm"))
    check_tags(found)
    colours = np.arange(6 * 5 * 4, dtype="u1").reshape(6, 5, 4)
    (tmp_path / "b.dm4").write_bytes(dm.dm(dm.image(colours, 23, (6, 5))))
    assert convert(tmp_path / "b.dm4", tmp_path / "b.ome.zarr", "--quiet") == 0
    found = opened(tmp_path / "b.ome.zarr")
    assert found.data.dims == ("y", "x", "rgb")
    np.testing.assert_array_equal(found.data, colours[..., [2, 1, 0]])


@warned
@pytest.mark.parametrize("suffix", [".mrc", ".zarr"])
def test_dm_spectrum(tmp_path: Path, suffix: str) -> None:
    """A spectrum is one row in MRC."""
    channels = np.arange(7, dtype="f4")
    made = dm.image(channels, 2, axes=[(0, 0.5, "eV")], Session=EELS["Session"])
    (tmp_path / "a.dm4").write_bytes(dm.dm(made))
    target = tmp_path / f"b{suffix}"
    assert convert(tmp_path / "a.dm4", target, "--quiet") == 0
    found = opened(target)
    np.testing.assert_array_equal(found.data.values.reshape(-1), channels)
    if suffix != ".mrc":
        np.testing.assert_array_equal(found.energy, channels / 2)
        check_tags(found)
    assert found.data.ndim == (1 if suffix == ".zarr" else 2)


@warned
def test_dm_colours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    colours = np.arange(6 * 5 * 4, dtype="u1").reshape(6, 5, 4)
    (tmp_path / "a.dm4").write_bytes(dm.dm(dm.image(colours, 23, (6, 5))))
    assert convert(tmp_path / "a.dm4", tmp_path / "b.mrc", "--quiet") == 0
    assert "written without alpha, which MRC does not have" in capsys.readouterr().err
    found = opened(tmp_path / "b.mrc")
    assert found.data.dims == ("y", "x", "rgb")
    np.testing.assert_array_equal(found.data, colours[..., [2, 1, 0]])


def test_dm_is_not_written(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(source, source.with_suffix(".dm4")) == 1
    assert "the name ends in .dm4, and the file would be MRC" in complaint(capsys)
