"""Regions of existing files are filled, and sections are appended."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import by_hand
import dask
import dask.array as da
import mrcfile
import numpy as np
import pytest
import xarray as xr
from writes import (
    UNDETERMINED,
    Array,
    by_rename,
    check_statistics,
    fail,
    field,
    fields,
    once,
    read,
    statistics,
)

from mrc_xarray import MrcError, MrcWarning, create, edit_header, to_mrc, validate
from mrc_xarray.storage.sink import InPlace

PIXELS = np.random.default_rng(6).integers(-(2**15), 2**15, (8, 12, 10), "i2")
NEW = np.full((4, 12, 10), -777, "i2")


def by_name(data: Any, *dims: str) -> xr.DataArray:
    return xr.DataArray(data, dims=dims or ("z", "y", "x"))


# regions ----------------------------------------------------------------------------------------


def test_region_of_permuted_axes_is_given_by_name(path: Path) -> None:
    # columns along z, rows along x, sections along y
    path.write_bytes(by_hand.mrc(np.zeros((8, 12, 10), "i2"), mapc=3, mapr=1, maps=2))
    part = by_name(PIXELS[2:5, :, 1:4], "y", "x", "z")
    to_mrc(part, path, region={"y": slice(2, 5), "z": slice(1, 4)})
    expected = np.zeros_like(PIXELS)
    expected[2:5, :, 1:4] = PIXELS[2:5, :, 1:4]
    np.testing.assert_array_equal(read(path), expected)


def test_region_preserves_the_rest_of_the_file(path: Path) -> None:
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
    of_statistics = [*range(76, 88), *range(216, 220)]
    assert not [k for k in range(1024) if after[k] != before[k] and k not in of_statistics]
    assert statistics(path) == UNDETERMINED


def ones(*shape: int, dtype: str = "i2") -> xr.DataArray:
    return by_name(np.ones(shape, dtype))


@pytest.mark.parametrize(
    ("data", "options", "named"),
    [
        (ones(8, 12, 10), {"region": {"image": slice(2, 5)}}, "dimensions image; accepted: z"),
        (ones(8, 12, 10), {"region": {}, "mode": 2}, "mode is 2, and the file has MODE 1"),
        (40000 * ones(8, 12, 10, dtype="f4"), {"region": {}, "mode": 1}, "40000"),
        (ones(8, 12, 10), {"append_dim": "image"}, "append_dim is 'image'; accepted: 'z'"),
        (ones(3, 11, 10), {"append_dim": "z"}, "11 along y"),
        (by_name(PIXELS[:3], "image", "y", "x"), {"append_dim": "z"}, "dimensions .*image"),
        (ones(3, 12, 10, dtype="f4"), {"append_dim": "z"}, "float32"),
    ],
)
def test_data_that_do_not_fit_are_refused(
    path: Path, data: xr.DataArray, options: dict[str, Any], named: str
) -> None:
    path.write_bytes(before := by_hand.mrc(PIXELS))
    with pytest.raises(MrcError, match=named):
        to_mrc(data, path, **options)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("target", "data", "options"),
    [
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


@pytest.mark.parametrize("options", [{"region": {"z": slice(3, 4)}}, {"append_dim": "z"}])
def test_bytes_remain_unsigned_without_the_statistics_that_said_so(
    path: Path, options: dict[str, Any]
) -> None:
    pixels = (PIXELS & 255).astype("u1")
    fields = {"dmin": 0, "dmax": 255, "dmean": 127, "rms": -1, "origin": (1, 2, 3)}
    path.write_bytes(by_hand.mrc(pixels, 0, **fields))
    to_mrc(pixels[:1], path, mode=0, **options)
    data = xr.open_dataarray(path, engine="mrc")
    assert data.dtype == np.uint8
    np.testing.assert_array_equal(data[-1 if "append_dim" in options else 3], pixels[0])
    assert (field(path, "imod_stamp"), field(path, "imod_flags")) == (by_hand.IMOD_STAMP, 4)
    assert [float(data[axis][0]) for axis in "xyz"] == [1, 2, 3]


def test_two_pixels_in_each_byte_of_mode_0(path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 16, (4, 5, 6), "u1")
    stack = {"imod_stamp": by_hand.IMOD_STAMP, "imod_flags": 16, "ispg": 0, "mz": 1}
    path.write_bytes(by_hand.mrc(by_hand.pack_4bit(pixels[:3]), 0, **stack))
    dims = ("image", "y", "x")
    to_mrc(xr.DataArray(pixels[3:], dims=dims), path, append_dim="image")
    changed = xr.DataArray(pixels[1:2, 2:] ^ 15, dims=dims)
    to_mrc(changed, path, region={"image": slice(1, 2), "y": slice(2, 5)})
    pixels[1, 2:] ^= 15
    assert path.read_bytes()[1024:] == by_hand.pack_4bit(pixels).tobytes()
    with xr.open_dataset(path, engine="mrc") as ds:
        np.testing.assert_array_equal(ds.data, pixels)


def test_region_that_fails_leaves_the_other_pixels(path: Path) -> None:
    path.write_bytes(by_hand.mrc(PIXELS))
    # other threads would continue for a moment
    with (
        dask.config.set(scheduler="synchronous"),
        pytest.raises(RuntimeError, match="beyond repair") as caught,
    ):
        to_mrc(once(fail, 3, ~PIXELS[2:7]), path, region={"z": slice(2, 7)})
    assert caught.value.__notes__
    found = read(path)
    for z in (0, 1, 7):
        np.testing.assert_array_equal(found[z], PIXELS[z])


def test_region_that_fails_leaves_what_another_process_appends(path: Path) -> None:
    path.write_bytes(by_hand.mrc(PIXELS))
    longer = by_hand.header((9, 12, 10), 1) + np.concatenate([PIXELS, PIXELS[:1]]).tobytes()

    def append_and_fail() -> None:
        # as another process leaves the file, which has no lock here
        path.write_bytes(by_hand.mrc(PIXELS)[:1024] + longer[1024:])
        fail()

    with dask.config.set(scheduler="synchronous"), pytest.raises(RuntimeError, match="repair"):
        to_mrc(once(append_and_fail, 2, NEW), path, region={"z": slice(0, 4)})
    assert path.stat().st_size == len(longer)
    assert path.read_bytes()[-240:] == PIXELS[:1].tobytes()


IN_PLACE: list[dict[str, Any]] = [{"region": {"z": slice(0, 4)}}, {"append_dim": "z"}]
by_option = pytest.mark.parametrize("options", IN_PLACE, ids=lambda options: next(iter(options)))


@by_option
def test_only_existing_plain_files_change_in_place(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    missing = tmp_path / "missing.mrc"
    for name in ("volume.mrcz", "volume.mrc.gz"):
        to_mrc(PIXELS, tmp_path / name)
        before = (tmp_path / name).read_bytes()
        with pytest.raises(MrcError, match=name):
            to_mrc(PIXELS[:4], tmp_path / name, **options)
        assert (tmp_path / name).read_bytes() == before
    if "region" in options:
        with pytest.raises(FileNotFoundError, match="missing"):
            to_mrc(PIXELS[:4], missing, **options)
    assert not missing.exists()
    damaged = tmp_path / "damaged.mrc"
    damaged.write_bytes(before := by_hand.mrc(PIXELS)[:-1])
    with pytest.raises(MrcError, match="truncated"):
        to_mrc(PIXELS[:4], damaged, **options)
    assert damaged.read_bytes() == before


# append_dim -------------------------------------------------------------------------------------


APPENDS = {
    "image": (("image", "y", "x"), PIXELS, 3),
    "z": (("z", "y", "x"), PIXELS, 3),
    "volume": (("volume", "z", "y", "x"), PIXELS.reshape(4, 2, 12, 10), 1),
}


@pytest.mark.parametrize("dim", list(APPENDS))
@pytest.mark.parametrize(
    ("byteorder", "order", "chunked"), [("little", "<", False), ("big", ">", True)]
)
def test_append(path: Path, dim: str, byteorder: str, order: str, chunked: bool) -> None:
    dims, pixels, first = APPENDS[dim]
    parts = [pixels[:first], pixels[first : first + 1], pixels[first + 1 :]]
    data = [by_name(da.from_array(part, chunks=3) if chunked else part, *dims) for part in parts]
    to_mrc(data[0], path, byteorder=byteorder, voxel_size=2.5)
    before = fields(path, "cella", "mz", byteorder=order)
    for more in data[1:]:
        assert to_mrc(more, path, append_dim=dim) is None
    assert path.stat().st_size == 1024 + pixels.nbytes
    assert path.read_bytes()[1024:] == pixels.astype(order + "i2").tobytes()
    assert mrcfile.validate(path, print_file=sys.stderr)
    ds = xr.open_dataset(path, engine="mrc")
    assert ds.data.dims == dims
    np.testing.assert_array_equal(ds.data, pixels)
    assert set(ds.mrc.voxel_size.values()) == {2.5}
    assert field(path, "nz", order) == 8
    expected = ((25, 30, 20), 8) if dim == "z" else before
    assert fields(path, "cella", "mz", byteorder=order) == expected
    check_statistics(path, pixels, order)


def test_append_to_a_volume_by_its_intervals(path: Path) -> None:
    """Gorgon counts the intervals between the first and the last voxel."""
    path.write_bytes(by_hand.mrc(PIXELS[:3], ispg=0, mx=9, my=11, mz=2, cella=(9, 11, 4)))
    to_mrc(by_name(PIXELS[3:], "z", "y", "x"), path, append_dim="z")
    ds = xr.open_dataset(path, engine="mrc")
    assert (ds.data.dims, ds.mrc.voxel_size) == (("z", "y", "x"), {"z": 2, "y": 1, "x": 1})
    assert fields(path, "cella", "mz") == ((9, 11, 14), 7)


def image(number: int, **coords: Any) -> xr.DataArray:
    return xr.DataArray(PIXELS[number], coords, ("y", "x"))


@pytest.mark.parametrize(
    ("first", "dim", "others", "dims"),
    [
        # a stack begins with an image, or with several
        (PIXELS[0], "image", [PIXELS[1], image(2)], ("image", "y", "x")),
        (image(0, image=4.0), "image", [PIXELS[1], PIXELS[2:4]], ("image", "y", "x")),
        # a volume, and a stack of volumes
        (image(0), "z", [image(1), PIXELS[2:]], ("z", "y", "x")),
        (PIXELS[:4], "volume", [PIXELS[4:]], ("volume", "z", "y", "x")),
    ],
)
@pytest.mark.filterwarnings("ignore:.*can't store everything:mrc_xarray.MrcWarning")
def test_append_begins_and_continues_a_file(
    path: Path, first: Any, dim: str, others: list[Any], dims: tuple[str, ...]
) -> None:
    for part in (first, *others):
        assert to_mrc(part, path, append_dim=dim) is None
    n = field(path, "nz")
    assert path.read_bytes()[1024:] == PIXELS[:n].tobytes()
    assert mrcfile.validate(path, print_file=sys.stderr)
    data = xr.open_dataarray(path, engine="mrc")
    assert data.dims == dims
    np.testing.assert_array_equal(data.values.reshape(n, 12, 10), PIXELS[:n])
    check_statistics(path, PIXELS[:n])
    assert field(path, "mz") == {"image": 1, "z": n, "volume": 4}[dim]


def test_lazy_image_is_appended_block_by_block(path: Path, tmp_path: Path) -> None:
    source = tmp_path / "source.mrc"
    source.write_bytes(by_hand.mrc(PIXELS, ispg=0, mz=1))
    frames = xr.open_dataarray(source, engine="mrc")
    to_mrc(frames[:2], path, append_dim="image")
    to_mrc(frames[2], path, append_dim="image")
    np.testing.assert_array_equal(read(path), PIXELS[:3])


@pytest.mark.parametrize(
    ("name", "data", "dim", "named"),
    [
        ("a.mrcz", PIXELS, "z", "compressed"),
        ("a.mrc.gz", PIXELS, "z", "compressed"),
        ("a.mrc", by_name(PIXELS), "t", "append_dim is 't'"),
        ("a.mrc", by_name(PIXELS, "y", "image", "x"), "image", "slowest"),
        ("a.mrc", PIXELS[0], "volume", "append_dim is 'volume'"),
    ],
)
def test_append_that_would_begin_a_file_that_can_not_grow(
    tmp_path: Path, name: str, data: Any, dim: str, named: str
) -> None:
    with pytest.raises(MrcError, match=named):
        to_mrc(data, tmp_path / name, append_dim=dim)
    assert not os.listdir(tmp_path)


def test_delayed_append_that_begins_a_file(path: Path) -> None:
    task, second = (to_mrc(PIXELS[:3], path, append_dim="z", compute=False) for _ in "12")
    assert not path.exists()
    assert task.compute() is None
    with pytest.raises(FileExistsError, match=r"to_mrc\(append_dim=\) adds to it"):
        second.compute()
    to_mrc(PIXELS[3:], path, append_dim="z", compute=False).compute()
    np.testing.assert_array_equal(read(path), PIXELS)


def test_append_to_pixels_that_are_not_all_finite(path: Path) -> None:
    """The header does not say how many pixels its statistics are about."""
    pixels = np.random.default_rng(1).normal(size=(4, 6, 8)).astype("f4")
    pixels[0, :3] = np.nan
    with pytest.warns(MrcWarning, match="NaN"):
        to_mrc(pixels[:2], path)
    to_mrc(pixels[2:], path, append_dim="z")
    assert statistics(path)[:2] == (np.nanmin(pixels), np.nanmax(pixels))
    assert {problem.severity for problem in validate(path, data=True)} == {"warning"}
    edit_header(path, statistics=True)
    check_statistics(path, pixels)


def test_image_appended_to_an_image_makes_a_stack(path: Path) -> None:
    to_mrc(by_name(PIXELS[0], "y", "x"), path)
    to_mrc(by_name(PIXELS[1:3], "image", "y", "x"), path, append_dim="image")
    np.testing.assert_array_equal(read(path), PIXELS[:3])
    check_statistics(path, PIXELS[:3])


def test_undetermined_statistics_stay_undetermined(path: Path) -> None:
    to_mrc(PIXELS[:3], path, statistics=False)
    to_mrc(PIXELS[3:], path, append_dim="z")
    assert statistics(path) == UNDETERMINED
    np.testing.assert_array_equal(read(path), PIXELS)


def test_append_preserves_the_header(path: Path) -> None:
    extended = b"symmetry".ljust(80)
    preserved = {"exttyp": b"CCP4", "origin": (5, 6, 7), "cellb": (90, 90, 100), "nxstart": 3}
    path.write_bytes(by_hand.mrc(PIXELS[:3], extended=extended, **preserved))
    to_mrc(PIXELS[3:], path, append_dim="z")
    after = path.read_bytes()
    assert after[1024:1104] == extended
    assert fields(path, *preserved) == tuple(preserved.values())
    assert field(path, "cella") == (10, 12, 8)
    assert after[1104:] == PIXELS.tobytes()


def test_append_that_fails_leaves_the_old_sections(path: Path) -> None:
    path.write_bytes(before := by_hand.mrc(PIXELS[:3]))
    with pytest.raises(RuntimeError, match="beyond repair") as caught:
        to_mrc(once(fail, 3, ~PIXELS[:5]), path, append_dim="z")
    assert caught.value.__notes__
    assert path.read_bytes()[: len(before)] == before
    with warnings.catch_warnings():
        # bytes after the last section
        warnings.simplefilter("ignore", MrcWarning)
        np.testing.assert_array_equal(read(path), PIXELS[:3])
        # the next append succeeds
        to_mrc(PIXELS[3:], path, append_dim="z")
    np.testing.assert_array_equal(read(path), PIXELS)


APPENDER = """
import sys
import numpy as np
import mrc_xarray

for n in sys.argv[2:]:
    mrc_xarray.to_mrc(np.full((2, 12, 10), n, "i2"), sys.argv[1], append_dim="z")
"""


@pytest.mark.slow
def test_appends_of_several_processes_wait_for_each_other(path: Path) -> None:
    appenders = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", APPENDER, str(path), *numbers])
        for numbers in ("123", "456")
    ]
    assert [appender.wait(60) for appender in appenders] == [0, 0]
    assert sorted(read(path)[::2, 0, 0]) == list(range(1, 7))


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
    path.write_bytes(before := by_hand.mrc(PIXELS))
    fill = to_mrc(~PIXELS[:2], path, region={"z": slice(0, 2)}, compute=False)
    assert path.read_bytes() == before
    to_mrc(PIXELS[:3], path, append_dim="z")
    edit_header(path, voxel_size=3, statistics=True)
    fill.compute()
    with mrcfile.open(path) as mrc:
        assert mrc.header.nz == 11
        assert float(mrc.voxel_size.x) == 3
        assert mrc.header.dmax < mrc.header.dmin
        np.testing.assert_array_equal(mrc.data[:2], ~PIXELS[:2])
        np.testing.assert_array_equal(mrc.data[8:], PIXELS[:3])


# a file that was replaced during a write ---------------------------------------------------------


@by_option
@pytest.mark.parametrize(
    ("delayed", "replace", "shape"),
    [
        (False, by_rename, (3, 12, 10)),
        # only the inode differs
        (False, by_rename, (8, 12, 10)),
        (True, Path.write_bytes, (8, 13, 10)),
    ],
)
def test_file_that_took_the_name_is_not_touched(
    path: Path, options: dict[str, Any], delayed: bool, replace: Any, shape: tuple[int, int, int]
) -> None:
    path.write_bytes(by_hand.mrc(PIXELS))
    new = by_hand.mrc(np.full(shape, 5, "i2"))
    data = once(lambda: replace(path, new), 2, NEW)

    with dask.config.set(scheduler="sync"), pytest.raises(MrcError, match="was planned for"):
        dask.compute(to_mrc(data, path, compute=not delayed, **options))
    assert path.read_bytes() == new
    if delayed:
        # the traceback holds the lock
        gc.collect()


@by_option
def test_file_that_is_gone_is_not_created_again(path: Path, options: dict[str, Any]) -> None:
    path.write_bytes(by_hand.mrc(PIXELS))
    with dask.config.set(scheduler="sync"), pytest.raises(FileNotFoundError):
        to_mrc(once(path.unlink, 2, NEW), path, **options)
    assert not path.exists()


# killed -----------------------------------------------------------------------------------------


def test_killed_append_is_recognised_and_can_be_repaired(path: Path) -> None:
    path.write_bytes(complete := by_hand.mrc(PIXELS))
    with path.open("ab") as file:
        file.write(bytes(1000))
    repair = re.escape(f"os.truncate({str(path)!r}, {len(complete)})")
    with pytest.warns(MrcWarning, match=repair):
        assert xr.open_dataarray(path, engine="mrc").sizes["z"] == 8
    (problem,) = validate(path)
    assert re.search(repair, str(problem))
    with pytest.raises(MrcError, match=f"An append may have been killed.*{repair}"):
        to_mrc(PIXELS[:1], path, append_dim="z")
    assert path.read_bytes() == complete + bytes(1000)
    os.truncate(path, len(complete))
    to_mrc(PIXELS[:1], path, append_dim="z")
    np.testing.assert_array_equal(read(path), np.concatenate([PIXELS, PIXELS[:1]]))


def test_append_to_a_file_that_is_truncated_meanwhile_fails(path: Path) -> None:
    path.write_bytes(before := by_hand.mrc(PIXELS))
    finish = InPlace.finish

    def cut_and_finish(self: InPlace, head: bytes) -> None:
        os.truncate(path, len(before))
        finish(self, head)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InPlace, "finish", cut_and_finish)
        with pytest.raises(MrcError, match=f"has {len(before)} bytes after sections were added"):
            to_mrc(NEW, path, append_dim="z")
    assert path.read_bytes() == before
