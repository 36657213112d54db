"""Files made empty, filled piece by piece, made longer, and their headers mended."""

from __future__ import annotations

import gc
import json
import os
import re
import struct
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import by_hand
import dask
import dask.array as da
import mrcfile
import numpy as np
import pytest
import xarray as xr

from mrc_xarray import MrcError, MrcWarning, create, edit_header, to_mrc, validate
from mrc_xarray.storage import part
from mrc_xarray.storage.sink import InPlace

Array = np.ndarray[Any, Any]

PIXELS = np.random.default_rng(6).integers(-(2**15), 2**15, (8, 12, 10), "i2")
UNDETERMINED = {"dmin": 0, "dmax": -1, "dmean": -2, "rms": -1}
VOXEL = {"z": 4.0, "y": 3.0, "x": 2.0}


def field(raw: bytes, name: str, byteorder: str = "<") -> Any:
    """Return a header field from its bytes."""
    offset, code = by_hand.FIELDS[name]
    found = struct.unpack_from(byteorder + code, raw, offset)
    return found if len(found) > 1 else found[0]


def fields(path: Path, *names: str, byteorder: str = "<") -> dict[str, Any]:
    raw = path.read_bytes()[:1024]
    return {name: field(raw, name, byteorder) for name in names}


def read(path: Path, **options: Any) -> Array:
    pixels: Array = xr.open_dataset(path, engine="mrc", **options).data.values
    return pixels


def labelled(data: Any, *dims: str) -> xr.DataArray:
    return xr.DataArray(data, dims=dims or ("z", "y", "x"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "volume.mrc"


# create -----------------------------------------------------------------------------------------


def test_large_file_is_there_at_once_and_takes_no_space(path: Path) -> None:
    shape = (1250, 2048, 2048)
    started = time.monotonic()
    create(path, shape, "f4", voxel_size=1.5)
    assert time.monotonic() - started < 2
    assert path.stat().st_size == 1024 + 4 * 1250 * 2048 * 2048
    assert path.stat().st_blocks * 512 < 1024**2
    with path.open("rb") as file:
        raw = file.read(1024)
    expected = {"nx": 2048, "ny": 2048, "nz": 1250, "mode": 2, "ispg": 1, "nversion": 20141}
    expected |= {"mx": 2048, "my": 2048, "mz": 1250, "nsymbt": 0, "map": b"MAP "}
    expected |= {"cella": (3072, 3072, 1875), "cellb": (90, 90, 90), "machst": b"\x44\x44\0\0"}
    expected |= {"mapc": 1, "mapr": 2, "maps": 3, "origin": (0, 0, 0)} | UNDETERMINED
    assert {name: field(raw, name) for name in expected} == expected
    with mrcfile.mmap(path) as mrc:
        assert mrc.data.shape == shape
        assert mrc.is_volume()
        assert mrc.voxel_size.z == 1.5
        assert not mrc.data[-1].any()
    ds = xr.open_dataset(path, engine="mrc", chunks={})
    assert not ds.data[-1, 1000].values.any()
    assert ds.mrc.voxel_size == {"z": 1.5, "y": 1.5, "x": 1.5}


@pytest.mark.parametrize(
    ("shape", "dims", "found", "ispg", "mz"),
    [
        ((6, 8), None, ("y", "x"), 0, 1),
        ((5, 6, 8), None, ("z", "y", "x"), 1, 5),
        ((5, 6, 8), ("image", "y", "x"), ("image", "y", "x"), 0, 1),
        ((3, 5, 6, 8), None, ("volume", "z", "y", "x"), 401, 5),
    ],
)
def test_create_layouts(
    path: Path, shape: tuple[int, ...], dims: Any, found: Any, ispg: int, mz: int
) -> None:
    create(path, shape, "i2", dims=dims)
    assert fields(path, "ispg", "mz") == {"ispg": ispg, "mz": mz}
    ds = xr.open_dataset(path, engine="mrc")
    assert ds.data.dims == found
    assert ds.data.shape == shape
    assert ds.data.dtype == np.dtype("i2")
    assert not ds.data.values.any()
    assert mrcfile.validate(path, print_file=sys.stderr)


@pytest.mark.parametrize(
    ("dtype", "mode", "found", "number"),
    [
        ("i1", None, "i1", 0),
        ("i2", None, "i2", 1),
        ("f4", None, "f4", 2),
        ("c8", None, "c8", 4),
        ("u2", None, "u2", 6),
        ("u1", None, "u2", 6),
        ("u1", 0, "u1", 0),
        ("f4", 12, "f2", 12),
        ("u1", 101, "u1", 101),
    ],
)
@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_create_types(
    path: Path, dtype: str, mode: int | None, found: str, number: int, byteorder: str
) -> None:
    create(path, (4, 6, 7), dtype, mode=mode, byteorder=byteorder)
    order = {"little": "<", "big": ">"}[byteorder]
    assert fields(path, "mode", "nx", byteorder=order) == {"mode": number, "nx": 7}
    ds = xr.open_dataset(path, engine="mrc")
    assert ds.data.dtype == np.dtype(found)
    assert ds.data.shape == (4, 6, 7)
    assert not ds.data.values.any()


def test_create_labels_origin_and_voxel_of_each_dimension(path: Path) -> None:
    origin = {"z": -40.0, "y": 0.5, "x": 7.0}
    create(path, (4, 6, 7), "i2", voxel_size=VOXEL, origin=origin, labels=["ours", "theirs"])
    ds = xr.open_dataset(path, engine="mrc")
    for dim, size in ds.sizes.items():
        np.testing.assert_allclose(ds[dim], origin[dim] + VOXEL[dim] * np.arange(size))
    with mrcfile.open(path) as mrc:
        assert {"ours", "theirs"} <= {label.strip() for label in mrc.get_labels()}


def test_create_overwrites_only_when_asked(path: Path) -> None:
    path.write_bytes(before := by_hand.mrc(PIXELS))
    with pytest.raises(FileExistsError, match=r"volume\.mrc"):
        create(path, (2, 3, 4), "i2")
    assert path.read_bytes() == before
    create(path, (2, 3, 4), "f4", overwrite=True)
    np.testing.assert_array_equal(read(path), np.zeros((2, 3, 4)))


@pytest.mark.parametrize(
    ("shape", "dtype", "options", "named"),
    [
        ((2, 3, 4), "f8", {}, "float64"),
        ((2, 3, 4), "i8", {}, "int64"),
        ((2, 0, 4), "f4", {}, "0"),
        ((2, 3, 4), "f4", {"mode": 5}, "5"),
        ((2, 3, 4), "f4", {"dims": ("image", "y")}, "dims"),
        ((2, 3, 4), "f4", {"byteorder": "middle"}, "middle"),
        ((2, 3, 4), "f4", {"voxel_size": {"w": 2.0}}, "w"),
    ],
)
def test_create_refuses(
    path: Path, shape: Any, dtype: str, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        create(path, shape, dtype, **options)
    assert not path.exists()


def test_create_in_no_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        create(tmp_path / "nowhere" / "volume.mrc", (2, 3, 4), "i2")


# regions ----------------------------------------------------------------------------------------

Make = Callable[[Array], Any]

MAKERS: dict[str, Make] = {
    "numpy": lambda part: part,
    "labelled": lambda part: labelled(part),
    "dask": lambda part: da.from_array(part, chunks=(3, 5, 4)),
    "labelled dask": lambda part: labelled(da.from_array(part, chunks=(2, -1, 3))),
    "dataset": lambda part: labelled(da.from_array(part, chunks=(1, 7, -1))).to_dataset(name="a"),
}
REGIONS: list[dict[str, slice]] = [
    {"z": slice(2, 5)},
    {"z": slice(None, 3)},
    {"z": slice(5, None)},
    {"y": slice(4, 5)},
    {"x": slice(3, 9)},
    {"z": slice(7, 8), "y": slice(0, 6), "x": slice(9, 10)},
    {},
]


def place(region: dict[str, slice], dims: str = "zyx") -> tuple[slice, ...]:
    return tuple(region.get(dim, slice(None)) for dim in dims)


@pytest.mark.parametrize("region", REGIONS, ids=str)
@pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))
@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_region_is_filled(
    path: Path, region: dict[str, slice], make: Make, byteorder: str
) -> None:
    create(path, PIXELS.shape, "i2", byteorder=byteorder)
    expected = np.zeros_like(PIXELS)
    expected[place(region)] = PIXELS[place(region)]
    assert to_mrc(make(PIXELS[place(region)]), path, region=region) is None
    order = {"little": "<", "big": ">"}[byteorder]
    assert path.read_bytes()[1024:] == expected.astype(order + "i2").tobytes()
    np.testing.assert_array_equal(read(path), expected)


def test_regions_piece_by_piece_make_the_whole(path: Path) -> None:
    create(path, PIXELS.shape, "i2", voxel_size=VOXEL)
    for z in range(0, 8, 3):
        for x in range(0, 10, 4):
            region = {"z": slice(z, min(z + 3, 8)), "x": slice(x, min(x + 4, 10))}
            to_mrc(labelled(PIXELS[place(region)]), path, region=region)
    np.testing.assert_array_equal(read(path), PIXELS)
    assert xr.open_dataset(path, engine="mrc").mrc.voxel_size == VOXEL


@pytest.mark.parametrize(
    ("dims", "region"),
    [
        (("image", "y", "x"), {"image": slice(2, 4)}),
        (("image", "y", "x"), {"image": slice(1, 5), "x": slice(0, 3)}),
        (("volume", "z", "y", "x"), {"volume": slice(1, 2)}),
        (("volume", "z", "y", "x"), {"volume": slice(0, 2), "z": slice(1, 3)}),
        (("volume", "z", "y", "x"), {"z": slice(0, 1), "y": slice(2, 5)}),
    ],
)
def test_region_of_a_stack(path: Path, dims: tuple[str, ...], region: dict[str, slice]) -> None:
    pixels = PIXELS if len(dims) == 3 else PIXELS.reshape(2, 4, 12, 10)
    create(path, pixels.shape, "i2", dims=dims)
    where = tuple(region.get(dim, slice(None)) for dim in dims)
    expected = np.zeros_like(pixels)
    expected[where] = pixels[where]
    to_mrc(labelled(pixels[where], *dims), path, region=region)
    np.testing.assert_array_equal(read(path), expected)


def test_region_of_permuted_axes_is_told_by_name(path: Path) -> None:
    # columns along z, rows along x, sections along y
    path.write_bytes(by_hand.mrc(np.zeros((8, 12, 10), "i2"), mapc=3, mapr=1, maps=2))
    part = labelled(PIXELS[2:5, :, 1:4], "y", "x", "z")
    to_mrc(part, path, region={"y": slice(2, 5), "z": slice(1, 4)})
    expected = np.zeros_like(PIXELS)
    expected[2:5, :, 1:4] = PIXELS[2:5, :, 1:4]
    np.testing.assert_array_equal(read(path), expected)


def test_region_keeps_the_rest_of_the_file(path: Path) -> None:
    extended = bytes(range(160))
    options = {"extended": extended, "exttyp": b"CCP4", "labels": (b"old",), "origin": (1, 2, 3)}
    path.write_bytes(before := by_hand.mrc(PIXELS, dmin=-5, dmax=5, dmean=1, rms=2, **options))
    to_mrc(~PIXELS[3:5], path, region={"z": slice(3, 5)})
    after = path.read_bytes()
    section = 12 * 10 * 2
    start = 1024 + 160 + 3 * section
    assert after[1024:start] == before[1024:start]
    assert after[start : start + 2 * section] == (~PIXELS[3:5]).tobytes()
    assert after[start + 2 * section :] == before[start + 2 * section :]
    kept = ("nx", "ny", "nz", "mode", "cella", "origin", "nsymbt", "exttyp", "ispg", "mz")
    assert [field(after, name) for name in kept] == [field(before, name) for name in kept]
    assert after[224:304].rstrip(b" \0") == b"old"
    assert {name: field(after, name) for name in UNDETERMINED} == UNDETERMINED


@pytest.mark.parametrize(
    ("shape", "region", "named"),
    [
        ((2, 12, 10), {"z": slice(2, 5)}, "z"),
        ((3, 12, 9), {"z": slice(2, 5)}, "x"),
        ((8, 12, 10), {"image": slice(2, 5)}, "image"),
        ((3, 12, 10), {"z": slice(0, 6, 2)}, "z"),
        ((3, 12, 10), {"z": slice(6, 9)}, "z"),
        ((3, 12, 10), {"z": slice(4, 1, -1)}, "z"),
        ((1, 12, 10), {"z": 3}, "z"),
        ((12, 10), {"z": slice(3, 4)}, "z"),
    ],
)
def test_region_that_does_not_fit_is_refused(
    path: Path, shape: tuple[int, ...], region: Any, named: str
) -> None:
    path.write_bytes(before := by_hand.mrc(PIXELS))
    dims = ("z", "y", "x")[-len(shape) :]
    with pytest.raises((ValueError, TypeError), match=named):
        to_mrc(labelled(np.ones(shape, "i2"), *dims), path, region=region)
    assert path.read_bytes() == before


def test_region_with_dimensions_of_another_file_is_refused(path: Path) -> None:
    path.write_bytes(before := by_hand.mrc(PIXELS))
    with pytest.raises(ValueError, match="image"):
        to_mrc(labelled(PIXELS[:2], "image", "y", "x"), path, region={"z": slice(0, 2)})
    with pytest.raises((ValueError, TypeError), match="append_dim"):
        to_mrc(labelled(PIXELS[:2]), path, region={"z": slice(0, 2)}, append_dim="z")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("target", "data", "options"),
    [
        ("f4", PIXELS[:2], {}),
        ("i2", PIXELS[:2].astype("i1"), {}),
        ("i2", np.full((2, 12, 10), 2.4, "f4"), {"mode": 1}),
        ("c8", PIXELS[:2].astype("f4"), {}),
    ],
)
def test_region_takes_what_the_files_mode_holds(
    path: Path, target: str, data: Array, options: dict[str, Any]
) -> None:
    create(path, PIXELS.shape, target)
    to_mrc(data, path, region={"z": slice(0, 2)}, **options)
    expected = np.rint(data).astype(target) if options else data.astype(target)
    np.testing.assert_array_equal(read(path)[:2], expected)


@pytest.mark.parametrize(
    ("target", "data", "options", "named"),
    [
        ("i2", PIXELS[:2].astype("f4"), {}, "float32"),
        ("i2", PIXELS[:2].astype("u2"), {}, "uint16"),
        ("i1", PIXELS[:2], {}, "int16"),
        ("f4", PIXELS[:2].astype("f8"), {}, "float64"),
        ("f4", PIXELS[:2].astype("c8"), {}, "complex64"),
        ("f4", PIXELS[:2], {"mode": 1}, "mode"),
        ("i2", np.full((2, 12, 10), 40000, "f4"), {"mode": 1}, "40000"),
    ],
)
def test_region_of_another_type_is_refused(
    path: Path, target: str, data: Array, options: dict[str, Any], named: str
) -> None:
    create(path, PIXELS.shape, target)
    before = path.read_bytes()
    with pytest.raises(MrcError, match=named):
        to_mrc(data, path, region={"z": slice(0, 2)}, **options)
    assert path.read_bytes()[1024:] == before[1024:]
    assert read(path).shape == PIXELS.shape


@pytest.mark.parametrize("region", [{"z": slice(2, 5)}, {"x": slice(3, 6)}], ids=str)
def test_region_of_packed_pixels_is_right_or_refused(path: Path, region: dict[str, slice]) -> None:
    pixels = (PIXELS & 15).astype("u1")
    path.write_bytes(before := by_hand.mrc(by_hand.pack_4bit(pixels), 101, shape=pixels.shape))
    expected = pixels.copy()
    expected[place(region)] ^= 15
    try:
        to_mrc(expected[place(region)], path, mode=101, region=region)
    except MrcError:
        assert path.read_bytes() == before
    else:
        np.testing.assert_array_equal(read(path), expected)


def test_region_is_not_touched_before_it_is_computed(path: Path) -> None:
    path.write_bytes(before := by_hand.mrc(PIXELS))
    lazy = labelled(da.from_array(~PIXELS[:3], chunks=(1, -1, -1)))
    delayed = to_mrc(lazy, path, region={"z": slice(0, 3)}, compute=False)
    assert path.read_bytes() == before
    assert delayed.compute() is None
    np.testing.assert_array_equal(read(path), np.concatenate([~PIXELS[:3], PIXELS[3:]]))


def failing(pixels: Array, at: int) -> xr.DataArray:
    """Return sections of which one can't be computed."""

    def block(part: Array, block_info: Any = None) -> Array:
        if block_info[0]["array-location"][0][0] == at:
            raise RuntimeError("beyond repair")
        return part

    lazy = da.from_array(pixels, chunks=(1, -1, -1))
    return labelled(lazy.map_blocks(block, meta=np.empty((0, 0, 0), pixels.dtype)))


def test_region_that_fails_leaves_the_other_pixels(path: Path) -> None:
    path.write_bytes(by_hand.mrc(PIXELS))
    # other threads would go on for a moment
    with (
        dask.config.set(scheduler="synchronous"),
        pytest.raises(RuntimeError, match="beyond repair") as caught,
    ):
        to_mrc(failing(~PIXELS[2:7], 3), path, region={"z": slice(2, 7)})
    assert caught.value.__notes__
    found = read(path)
    for z in (0, 1, 7):
        np.testing.assert_array_equal(found[z], PIXELS[z])


FILLER = """
import json, sys
import numpy as np
import mrc_xarray

path, start = sys.argv[1], int(sys.argv[2])
pixels = np.load(path + ".npy")
print("ready", flush=True)
sys.stdin.readline()
for z in range(8):
    region = {"z": slice(z, z + 1), "x": slice(start, start + 5)}
    mrc_xarray.to_mrc(pixels[z : z + 1, :, start : start + 5], path, region=region)
"""


def test_two_processes_fill_one_file_at_once(path: Path) -> None:
    create(path, PIXELS.shape, "i2")
    np.save(f"{path}.npy", PIXELS)
    fillers = [
        subprocess.Popen(
            [sys.executable, "-c", FILLER, str(path), start],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for start in ("0", "5")
    ]
    try:
        for filler in fillers:
            assert filler.stdout is not None
            assert filler.stdout.readline() == "ready\n"
        for filler in fillers:
            assert filler.stdin is not None
            filler.stdin.write("go\n")
            filler.stdin.flush()
        for filler in fillers:
            _, err = filler.communicate(timeout=60)
            assert filler.returncode == 0, err
    finally:
        for filler in fillers:
            filler.kill()
            filler.communicate()
    np.testing.assert_array_equal(read(path), PIXELS)


IN_PLACE: list[dict[str, Any]] = [{"region": {"z": slice(0, 2)}}, {"append_dim": "z"}]


@pytest.mark.parametrize("options", IN_PLACE, ids=lambda options: next(iter(options)))
def test_only_plain_files_that_are_there_change_in_place(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    compressed, missing = tmp_path / "volume.mrcz", tmp_path / "missing.mrc"
    to_mrc(PIXELS, compressed)
    before = compressed.read_bytes()
    with pytest.raises(MrcError, match=r"volume\.mrcz"):
        to_mrc(PIXELS[:2], compressed, **options)
    assert compressed.read_bytes() == before
    with pytest.raises(FileNotFoundError, match="missing"):
        to_mrc(PIXELS[:2], missing, **options)
    assert not missing.exists()
    damaged = tmp_path / "damaged.mrc"
    damaged.write_bytes(before := by_hand.mrc(PIXELS)[:-1])
    with pytest.raises(MrcError, match="truncated"):
        to_mrc(PIXELS[:2], damaged, **options)
    assert damaged.read_bytes() == before


# append_dim -------------------------------------------------------------------------------------


def check_statistics(path: Path, pixels: Array, byteorder: str = "<") -> None:
    found = fields(path, *UNDETERMINED, byteorder=byteorder)
    assert (found["dmin"], found["dmax"]) == (pixels.min(), pixels.max())
    # merged from what float32 keeps of the parts
    spread = pixels.std(dtype="f8")
    mean = pixels.mean(dtype="f8")
    assert found["dmean"] == pytest.approx(mean, rel=1e-6, abs=1e-6 * spread)
    assert found["rms"] == pytest.approx(spread, rel=1e-6)


APPENDS = {
    "image": (("image", "y", "x"), PIXELS, 3),
    "z": (("z", "y", "x"), PIXELS, 3),
    "volume": (("volume", "z", "y", "x"), PIXELS.reshape(4, 2, 12, 10), 1),
}


@pytest.mark.parametrize("dim", list(APPENDS))
@pytest.mark.parametrize("byteorder", ["little", "big"])
@pytest.mark.parametrize("chunked", [False, True])
def test_append(path: Path, dim: str, byteorder: str, chunked: bool) -> None:
    dims, pixels, first = APPENDS[dim]
    parts = [pixels[:first], pixels[first : first + 1], pixels[first + 1 :]]
    data = [labelled(da.from_array(part, chunks=3) if chunked else part, *dims) for part in parts]
    to_mrc(data[0], path, byteorder=byteorder, voxel_size=2.5)
    order = {"little": "<", "big": ">"}[byteorder]
    was = fields(path, "cella", "mz", byteorder=order)
    for more in data[1:]:
        assert to_mrc(more, path, append_dim=dim) is None
    assert path.stat().st_size == 1024 + pixels.nbytes
    assert path.read_bytes()[1024:] == pixels.astype(order + "i2").tobytes()
    assert mrcfile.validate(path, print_file=sys.stderr)
    ds = xr.open_dataset(path, engine="mrc")
    assert ds.data.dims == dims
    np.testing.assert_array_equal(ds.data, pixels)
    assert set(ds.mrc.voxel_size.values()) == {2.5}
    found = fields(path, "cella", "mz", "nz", byteorder=order)
    assert found["nz"] == 8
    if dim == "z":
        assert found["mz"] == 8
        assert found["cella"] == (25, 30, 20)
    else:
        assert (found["mz"], found["cella"]) == (was["mz"], was["cella"])
    check_statistics(path, pixels, order)


def test_statistics_that_were_never_determined_stay_so(path: Path) -> None:
    to_mrc(PIXELS[:3], path, statistics=False)
    to_mrc(PIXELS[3:], path, append_dim="z")
    assert fields(path, *UNDETERMINED) == UNDETERMINED
    np.testing.assert_array_equal(read(path), PIXELS)


def test_merged_statistics_of_far_apart_parts(path: Path) -> None:
    # the spread within the parts is nothing beside that between them
    pixels = np.concatenate([PIXELS[:2] / 1e4 - 1e4, PIXELS[2:] / 1e4 + 1e4]).astype("f4")
    to_mrc(pixels[:2], path)
    to_mrc(pixels[2:], path, append_dim="z")
    check_statistics(path, pixels)


def test_append_keeps_the_header(path: Path) -> None:
    extended = b"symmetry".ljust(80)
    kept = {"exttyp": b"CCP4", "origin": (5, 6, 7), "cellb": (90, 90, 100), "nxstart": 3}
    path.write_bytes(before := by_hand.mrc(PIXELS[:3], extended=extended, **kept))
    to_mrc(PIXELS[3:], path, append_dim="z")
    after = path.read_bytes()
    assert after[1024:1104] == extended
    assert {name: field(after, name) for name in kept} == kept
    assert field(after, "cella") == (10, 12, 8)
    assert after[1104:] == PIXELS.tobytes()
    assert field(before, "nz") == 3


def test_append_that_fails_leaves_the_old_sections(path: Path) -> None:
    path.write_bytes(before := by_hand.mrc(PIXELS[:3]))
    with pytest.raises(RuntimeError, match="beyond repair") as caught:
        to_mrc(failing(~PIXELS[:5], 3), path, append_dim="z")
    assert caught.value.__notes__
    assert path.read_bytes()[: len(before)] == before
    with warnings.catch_warnings():
        # bytes behind the last section
        warnings.simplefilter("ignore", MrcWarning)
        np.testing.assert_array_equal(read(path), PIXELS[:3])
        # and the next one does it
        to_mrc(PIXELS[3:], path, append_dim="z")
    np.testing.assert_array_equal(read(path), PIXELS)


def test_append_is_not_done_before_it_is_computed(path: Path) -> None:
    path.write_bytes(before := by_hand.mrc(PIXELS[:3]))
    lazy = labelled(da.from_array(PIXELS[3:], chunks=(1, -1, -1)))
    delayed = to_mrc(lazy, path, append_dim="z", compute=False)
    assert path.read_bytes() == before
    assert delayed.compute() is None
    np.testing.assert_array_equal(read(path), PIXELS)


@pytest.mark.parametrize(
    ("data", "dim", "named"),
    [
        (labelled(PIXELS[3:]), "image", "image"),
        (labelled(PIXELS[3:]), "y", "y"),
        (labelled(PIXELS[3:, :-1]), "z", "11"),
        (labelled(PIXELS[3:, :, :-1]), "z", "9"),
        (labelled(PIXELS[3:], "image", "y", "x"), "z", "image"),
        (labelled(PIXELS[3:].astype("f4")), "z", "float32"),
    ],
)
def test_append_that_does_not_fit_is_refused(
    path: Path, data: xr.DataArray, dim: str, named: str
) -> None:
    path.write_bytes(before := by_hand.mrc(PIXELS[:3]))
    with pytest.raises(ValueError, match=named):
        to_mrc(data, path, append_dim=dim)
    assert path.read_bytes() == before


# edit_header ------------------------------------------------------------------------------------


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize(
    ("edit", "changed"),
    [
        ({"voxel_size": 2.5}, {"cella": (25, 30, 20)}),
        ({"voxel_size": VOXEL}, {"cella": (20, 36, 32)}),
        ({"voxel_size": {"z": 4.0}}, {"cella": (10, 12, 32)}),
        ({"cella": (1.5, 2.5, 3.5)}, {"cella": (1.5, 2.5, 3.5)}),
        ({"cella": (0, 0, 0)}, {"cella": (0, 0, 0)}),
        ({"cellb": (90, 90, 120)}, {"cellb": (90, 90, 120)}),
        ({"origin": (-1.5, 2, 3)}, {"origin": (-1.5, 2, 3)}),
        ({"nxstart": -4, "nzstart": 7}, {"nxstart": -4, "nzstart": 7}),
        ({"ispg": 0, "mz": 1}, {"ispg": 0, "mz": 1}),
        ({"ispg": 401, "mz": 4}, {"ispg": 401, "mz": 4}),
        ({"mx": 20, "my": 24, "mz": 16}, {"mx": 20, "my": 24, "mz": 16}),
        ({"mapc": 3, "maps": 1}, {"mapc": 3, "maps": 1}),
        (
            {"dmin": -1, "dmax": 2, "dmean": 0.5, "rms": 3},
            {"dmin": -1, "dmax": 2, "dmean": 0.5, "rms": 3},
        ),
        ({"nversion": 20140}, {"nversion": 20140}),
        ({"nx": 12, "ny": 10}, {"nx": 12, "ny": 10}),
        ({"mode": 6}, {"mode": 6}),
        ({"mode": 12}, {"mode": 12}),
        ({}, {}),
    ],
    ids=str,
)
def test_fields_are_mended_and_nothing_else(
    path: Path, edit: dict[str, Any], changed: dict[str, Any], byteorder: str
) -> None:
    before = by_hand.mrc(
        PIXELS, byteorder=byteorder, extended=b"kept" * 20, exttyp=b"CCP4", labels=(b"old",)
    )
    path.write_bytes(before)
    assert edit_header(path, **edit) is None
    expected = bytearray(before)
    for name, value in changed.items():
        offset, code = by_hand.FIELDS[name]
        packed = value if isinstance(value, tuple) else (value,)
        struct.pack_into(byteorder + code, expected, offset, *packed)
    assert path.read_bytes() == expected
    with mrcfile.open(path, header_only=True) as mrc:
        for name, value in changed.items():
            found = mrc.header[name].item()
            assert found == pytest.approx(value)
    xr.open_dataset(path, engine="mrc")


def test_labels_are_replaced(path: Path) -> None:
    before = by_hand.mrc(PIXELS, labels=(b"old", b"older", b"oldest"))
    path.write_bytes(before)
    edit_header(path, label=["new", "newer"])
    after = path.read_bytes()
    assert (after[:220], after[1024:]) == (before[:220], before[1024:])
    with mrcfile.open(path) as mrc:
        assert [label.strip() for label in mrc.get_labels()] == ["new", "newer"]
    assert field(after, "nlabl") == 2
    assert not after[384:1024].strip(b" \0")


@pytest.mark.parametrize(
    "edit",
    [
        {"nz": 9},
        {"nz": 7},
        {"nx": 11},
        {"nx": -10},
        {"nx": 0},
        {"mode": 2},
        {"mode": 5},
        {"mode": 6001},
        {"nsymbt": 80},
        {"nsymbt": -1},
        {"map": "PAM "},
        {"machst": b"\x11\x11\0\0"},
        {"machst": b"\0\0\0\0"},
        {"mapc": 2},
        {"maps": 0},
        {"mx": 0},
        {"cella": (-1, 2, 3)},
        {"cella": (float("nan"), 2, 3)},
        {"cella": (1, 2)},
        {"cella": 5.0},
        {"dmin": "low"},
        {"origin": (1e12, 0, 0)},
        {"origin": (float("inf"), 0, 0)},
        {"ispg": 2**31},
        {"nxstart": 100_000},
        {"label": ["x" * 81]},
        {"label": [str(i) for i in range(11)]},
        {"voxel_size": -1.0},
        {"voxel_size": {"w": 1.0}},
        # one that would do is not written either
        {"origin": (1, 2, 3), "nz": 9},
    ],
    ids=str,
)
def test_harmful_edits_leave_the_file_as_it_was(path: Path, edit: dict[str, Any]) -> None:
    path.write_bytes(before := by_hand.mrc(PIXELS))
    with pytest.raises((MrcError, TypeError), match=r"(?i)volume\.mrc|" + "|".join(edit)):
        edit_header(path, **edit)
    assert path.read_bytes() == before


@pytest.mark.parametrize("edit", [{"voxelsize": 2.0}, {"NX": 10}, {"nz": 8, "no_field": 1}])
def test_unknown_field_is_a_type_error(path: Path, edit: dict[str, Any]) -> None:
    path.write_bytes(before := by_hand.mrc(PIXELS))
    with pytest.raises(TypeError, match=list(edit)[-1]):
        edit_header(path, **edit)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("damage", "edit"),
    [
        ({"map": b"\0\0\0\0"}, {"map": "MAP "}),
        ({"machst": b"\0\0\0\0"}, {"machst": b"\x44\x44\0\0"}),
        ({"mapc": 0}, {"mapc": 1}),
        ({"mx": 0}, {"mx": 10}),
        ({"cella": (float("nan"), 12, 8)}, {"cella": (10, 12, 8)}),
    ],
    ids=str,
)
def test_damaged_header_is_mended(
    path: Path, damage: dict[str, Any], edit: dict[str, Any]
) -> None:
    path.write_bytes(by_hand.mrc(PIXELS, **damage))
    with pytest.warns(MrcWarning):
        xr.open_dataset(path, engine="mrc")
    # a field that has nothing to do with it may be edited, too
    edit_header(path, dmin=-7)
    edit_header(path, **edit)
    assert xr.open_dataset(path, engine="mrc").mrc.header.dmin == -7
    assert path.read_bytes() == by_hand.mrc(PIXELS, dmin=-7)


def test_file_of_wrong_size_is_mended(path: Path) -> None:
    path.write_bytes(by_hand.mrc(PIXELS, nz=9, mz=9))
    edit_header(path, nz=8, mz=8)
    assert path.read_bytes() == by_hand.mrc(PIXELS)


def test_edit_needs_an_mrc_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        edit_header(tmp_path / "missing.mrc", dmin=0)
    other = tmp_path / "other.mrc"
    other.write_bytes(before := json.dumps({"no": "MRC"}).encode().ljust(4000))
    with pytest.raises(MrcError, match=r"other\.mrc"):
        edit_header(other, dmin=0)
    assert other.read_bytes() == before


@pytest.mark.parametrize("where", [{"region": {"z": slice(0, 8)}}, {"append_dim": "z"}])
def test_data_that_are_read_from_the_target_are_refused(path: Path, where: dict[str, Any]) -> None:
    path.write_bytes(before := by_hand.mrc(PIXELS))
    data = xr.open_dataarray(path, engine="mrc", chunks={}) + np.int16(1)
    with pytest.raises(MrcError, match=r"load\(\)"):
        to_mrc(data, path, **where)
    assert path.read_bytes() == before
    to_mrc(data.load(), path, **where)


@pytest.mark.parametrize(
    "ignored",
    [
        {"labels": ["a"]},
        {"voxel_size": 2.0},
        {"compressor": "zstd"},
        {"gain": 1.0},
        {"metadata": {}},
    ],
)
def test_what_a_change_in_place_would_ignore_is_refused(path: Path, ignored: Any) -> None:
    path.write_bytes(before := by_hand.mrc(PIXELS))
    with pytest.raises(ValueError, match="can't be combined with region= or append_dim="):
        to_mrc(PIXELS, path, region={"z": slice(0, 8)}, **ignored)
    assert path.read_bytes() == before


APPENDER = """
import sys
import numpy as np
import mrc_xarray

for n in sys.argv[2:]:
    mrc_xarray.to_mrc(np.full((1, 12, 10), n, "i2"), sys.argv[1], append_dim="z")
"""


def test_appends_of_several_processes_wait_for_each_other(path: Path) -> None:
    path.write_bytes(by_hand.mrc(np.zeros((1, 12, 10), "i2")))
    appenders = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", APPENDER, str(path), *numbers])
        for numbers in ("123", "456")
    ]
    assert [appender.wait(60) for appender in appenders] == [0, 0]
    assert sorted(read(path)[:, 0, 0]) == list(range(7))


def test_appends_that_were_planned_together_do_not_overwrite(path: Path) -> None:
    path.write_bytes(by_hand.mrc(PIXELS))
    tasks = [
        to_mrc(np.full((1, 12, 10), n, "i2"), path, append_dim="z", compute=False) for n in (1, 2)
    ]
    tasks[0].compute()
    before = path.read_bytes()
    with pytest.raises(MrcError, match="changed since the append was planned"):
        tasks[1].compute()
    assert path.read_bytes() == before


def test_region_leaves_what_others_change_in_the_header(path: Path) -> None:
    path.write_bytes(by_hand.mrc(PIXELS, dmin=-5, dmax=5, dmean=1, rms=2))
    fill = to_mrc(~PIXELS[:2], path, region={"z": slice(0, 2)}, compute=False)
    to_mrc(PIXELS[:3], path, append_dim="z")
    edit_header(path, voxel_size=3)
    fill.compute()
    with mrcfile.open(path) as mrc:
        assert mrc.header.nz == 11
        assert float(mrc.voxel_size.x) == 3
        assert mrc.header.dmax < mrc.header.dmin
        np.testing.assert_array_equal(mrc.data[:2], ~PIXELS[:2])
        np.testing.assert_array_equal(mrc.data[8:], PIXELS[:3])


def test_label_of_an_mrcz_stays_first(tmp_path: Path) -> None:
    path = tmp_path / "a.mrcz"
    to_mrc(xr.DataArray(np.zeros((3, 2, 8, 8), "f4"), dims=("image", "channel", "y", "x")), path)
    edit_header(path, label=["new"])
    assert xr.open_dataarray(path, engine="mrc").dims == ("image", "channel", "y", "x")


# a file that was replaced during a write ---------------------------------------------------------

PLACES: list[dict[str, Any]] = [{"region": {"z": slice(0, 4)}}, {"append_dim": "z"}]
by_option = pytest.mark.parametrize("options", PLACES, ids=lambda options: next(iter(options)))


def meanwhile(act: Callable[[], Any], n: int = 4) -> xr.DataArray:
    """Return sections of int16 that call `act` when the third of them is computed."""

    def block(pixels: Any, block_info: Any = None) -> Any:
        if block_info[0]["chunk-location"][0] == 2:
            act()
        return pixels

    lazy = da.full((n, 12, 10), -777, chunks=(1, -1, -1), dtype="i2")
    return labelled(lazy.map_blocks(block, meta=np.empty((0, 0, 0), "i2")))


def by_rename(path: Path, content: bytes) -> None:
    other = path.with_name("other")
    other.write_bytes(content)
    other.replace(path)


@by_option
@pytest.mark.parametrize("delayed", [False, True])
@pytest.mark.parametrize("replace", [by_rename, Path.write_bytes])
@pytest.mark.parametrize("shape", [(3, 12, 10), (8, 12, 11), (8, 13, 10), (200, 64, 64)])
def test_file_that_took_the_name_is_not_touched(
    path: Path, options: dict[str, Any], delayed: bool, replace: Any, shape: tuple[int, int, int]
) -> None:
    path.write_bytes(by_hand.mrc(PIXELS))
    new = by_hand.mrc(np.full(shape, 5, "i2"))
    data = meanwhile(lambda: replace(path, new))

    def write() -> None:
        task = to_mrc(data, path, compute=not delayed, **options)
        if task is not None:
            task.compute()

    with dask.config.set(scheduler="sync"), pytest.raises(MrcError, match="was planned for"):
        write()
    assert path.read_bytes() == new
    # the traceback holds the lock of a delayed write
    gc.collect()


@by_option
def test_another_file_of_the_same_size_is_noticed_by_its_node(
    path: Path, options: dict[str, Any]
) -> None:
    path.write_bytes(before := by_hand.mrc(PIXELS))
    data = meanwhile(lambda: by_rename(path, before))
    with dask.config.set(scheduler="sync"), pytest.raises(MrcError, match="another file"):
        to_mrc(data, path, **options)
    assert path.read_bytes() == before


@by_option
def test_file_that_is_gone_is_not_made_again(path: Path, options: dict[str, Any]) -> None:
    path.write_bytes(by_hand.mrc(PIXELS))
    with dask.config.set(scheduler="sync"), pytest.raises(FileNotFoundError):
        to_mrc(meanwhile(path.unlink), path, **options)
    assert not path.exists()


def test_file_that_is_replaced_before_a_header_is_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(by_hand.mrc(PIXELS))
    new = by_hand.mrc(PIXELS[:3])
    finish = InPlace.finish

    def replaced(self: InPlace, head: bytes) -> None:
        by_rename(path, new)
        finish(self, head)

    monkeypatch.setattr(InPlace, "finish", replaced)
    with pytest.raises(MrcError, match="another file"):
        edit_header(path, origin=(1, 2, 3))
    assert path.read_bytes() == new


# killed -----------------------------------------------------------------------------------------

CHANGES: dict[str, Callable[[Path], Any]] = {
    "region": lambda path: to_mrc(PIXELS[:2], path, region={"z": slice(1, 3)}),
    "append": lambda path: to_mrc(PIXELS[:2], path, append_dim="z"),
    "edit_header": lambda path: edit_header(path, voxel_size=7.7, origin=(1, 2, 3)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_header_changes_by_one_call(
    path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process can be killed between two calls, but not within one of 1024 bytes."""
    path.write_bytes(by_hand.mrc(PIXELS, dmin=-5, dmax=5, dmean=1, rms=2))
    real, calls = part._pwrite, []

    def pwrite(fd: int, buffer: memoryview, offset: int) -> int:
        calls.append((offset, len(buffer)))
        return int(real(fd, buffer, offset))

    monkeypatch.setattr(part, "_pwrite", pwrite)
    CHANGES[change](path)
    assert [call for call in calls if call[0] < 1024] == [(0, 1024)]
    assert calls[-1] == (0, 1024)


def test_killed_append_is_recognised_and_can_be_repaired(path: Path) -> None:
    path.write_bytes(whole := by_hand.mrc(PIXELS))
    with path.open("ab") as file:
        file.write(bytes(1000))
    repair = re.escape(f"os.truncate({str(path)!r}, {len(whole)})")
    with pytest.warns(MrcWarning, match=repair):
        assert xr.open_dataarray(path, engine="mrc").sizes["z"] == 8
    (problem,) = validate(path)
    assert re.search(repair, str(problem))
    with pytest.raises(MrcError, match=f"An append may have been killed.*{repair}"):
        to_mrc(PIXELS[:1], path, append_dim="z")
    assert path.read_bytes() == whole + bytes(1000)
    os.truncate(path, len(whole))
    to_mrc(PIXELS[:1], path, append_dim="z")
    np.testing.assert_array_equal(read(path), np.concatenate([PIXELS, PIXELS[:1]]))


def test_append_to_a_file_that_is_cut_meanwhile_does_not_succeed(path: Path) -> None:
    path.write_bytes(before := by_hand.mrc(PIXELS))
    data = meanwhile(lambda: None)
    finish = InPlace.finish

    def cut_and_finish(self: InPlace, head: bytes) -> None:
        os.truncate(path, len(before))
        finish(self, head)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InPlace, "finish", cut_and_finish)
        with pytest.raises(MrcError, match=f"has {len(before)} bytes after sections were added"):
            to_mrc(data, path, append_dim="z")
    assert path.read_bytes() == before


def test_header_that_does_not_fit_draws_no_advice_to_cut_the_file(path: Path) -> None:
    path.write_bytes(before := by_hand.mrc(PIXELS))
    with pytest.raises(MrcError, match="the file was left as it is") as caught:
        edit_header(path, nx=5)
    assert "truncate" not in str(caught.value)
    assert path.read_bytes() == before
