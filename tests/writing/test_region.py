"""Regions are assigned as NumPy assigns to a memory map of the pixels."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import by_hand
import dask.array as da
import mrcfile
import numpy as np
import pytest
import xarray as xr
from writes import UNDETERMINED, Array, read, statistics

from mrc_xarray import MrcError, create, to_mrc
from mrc_xarray.writing.arrays import broadcast

RNG = np.random.default_rng(8)
PIXELS = RNG.integers(-(2**15), 2**15, (8, 12, 10), "i2")
NEW = RNG.integers(-(2**15), 2**15, (8, 12, 10), "i2")
MASK = np.arange(8) % 3 == 1
ALL = slice(None)


def by_name(data: Any, *dims: str) -> xr.DataArray:
    return xr.DataArray(data, dims=dims)


KEYS: dict[str, dict[str, Any]] = {
    "integer": {"z": 3},
    "negative": {"z": -2},
    "numpy integer": {"z": np.int64(7), "y": np.uint8(2), "x": xr.DataArray(1)},
    "slice": {"z": slice(2, 5), "y": slice(-4, -1), "x": slice(None, -3)},
    "step": {"z": slice(1, None, 3)},
    "backwards": {"z": slice(None, None, -2)},
    "backwards to an end": {"z": slice(6, 2, -1), "x": slice(8, None, -3)},
    "mask": {"z": MASK},
    "list of bool": {"z": MASK.tolist(), "y": slice(0, 5)},
    "labelled mask": {"z": xr.DataArray(MASK, dims="z")},
    "list": {"z": [6, 1, -8]},
    "rows and columns": {"y": slice(None, None, 5), "x": np.arange(10) > 6},
    "several lists": {"z": [5, 0], "y": [1, 2, 7], "x": 4},
    "empty": {"z": MASK & False},
    "empty slice": {"z": slice(3, 3)},
    "everything": {},
}


def assigned(value: Any, keys: dict[str, Any], pixels: Array = PIXELS) -> Array:
    """Return pixels after an assignment by xarray."""
    result = by_name(pixels.copy(), "z", "y", "x")
    # xarray takes no labelled mask
    result[
        {dim: np.asarray(k) if isinstance(k, xr.DataArray) else k for dim, k in keys.items()}
    ] = value
    return result.values


# each kind of data with different keys, as the keys are the same for all of them
KINDS = list(zip(itertools.cycle(["numpy", "dask", "labelled"]), KEYS.values(), strict=False))


@pytest.mark.parametrize(("kind", "keys"), KINDS, ids=KEYS)
def test_region_as_xarray_assigns(path: Path, kind: str, keys: dict[str, Any]) -> None:
    order = ">" if kind == "dask" else "<"
    path.write_bytes(by_hand.mrc(PIXELS, byteorder=order, extended=bytes(160)))
    part = by_name(NEW, "z", "y", "x").isel(keys)
    data: Any = part.values
    if kind == "dask":
        data = da.from_array(data, chunks=tuple(max(1, n // 2) for n in part.shape))
    if kind == "labelled":
        data = part.transpose(*reversed(part.dims)).to_dataset(name="a")
    assert to_mrc(data, path, region=keys) is None
    expected = assigned(part.values, keys)
    assert path.read_bytes()[1024 + 160 :] == expected.astype(f"{order}i2").tobytes()


@pytest.mark.parametrize(
    ("value", "keys"),
    [
        (7, {"z": 2}),
        (-1.0, {"z": MASK}),
        (np.int64(5), {}),
        (True, {"y": slice(0, 12, 4)}),
        (xr.DataArray(3), {"x": -1}),
        (da.from_array(np.array(9, "i2")), {"z": slice(0, 2)}),
        (NEW[0], {"z": slice(1, 4)}),
        (da.from_array(NEW[0], chunks=5), {"z": slice(1, 8, 2)}),
        (NEW[:1], {"z": MASK}),
        (NEW[:, :1, :1], {}),
        (list(NEW[0]), {"z": [1, 3]}),
        (NEW[:, :, 3], {"x": 5}),
    ],
    ids=str,
)
def test_values_are_broadcast_as_numpy_broadcasts(path: Path, value: Any, keys: Any) -> None:
    path.write_bytes(by_hand.mrc(PIXELS))
    to_mrc(value, path, region=keys)
    np.testing.assert_array_equal(read(path), assigned(value, keys))
    assert statistics(path) == UNDETERMINED


def test_surplus_dimensions_of_size_1(path: Path) -> None:
    path.write_bytes(by_hand.mrc(PIXELS))
    to_mrc(NEW[:1], path, region={"z": 4})
    to_mrc(NEW[None, None, :2], path, region={"z": slice(0, 2)})
    to_mrc(NEW[:, :, 3:4], path, region={"x": 5})
    expected = PIXELS.copy()
    expected[4], expected[:2] = NEW[0], NEW[:2]
    expected[:, :, 5] = NEW[:, :, 3]
    np.testing.assert_array_equal(read(path), expected)


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (by_name(NEW[:, 0, 0], "z"), {}),
        (by_name(NEW[0, :, 0], "y"), {"z": MASK}),
        (by_name(NEW[:, :, 0], "z", "y").chunk(3), {}),
        (by_name(NEW[:, :, 0].T, "y", "z"), {}),
        (by_name(NEW[0].T, "x", "y"), {"z": 6}),
    ],
)
def test_labelled_arrays_are_broadcast_by_name(path: Path, data: Any, keys: Any) -> None:
    path.write_bytes(by_hand.mrc(PIXELS))
    to_mrc(data, path, region=keys)
    np.testing.assert_array_equal(read(path), assigned(data, keys))


def test_labelled_section_of_size_1(path: Path) -> None:
    path.write_bytes(by_hand.mrc(PIXELS))
    to_mrc(by_name(NEW[:1], "z", "y", "x"), path, region={"z": 6})
    np.testing.assert_array_equal(read(path), assigned(NEW[0], {"z": 6}))


@pytest.mark.parametrize(
    ("data", "keys", "named"),
    [
        (NEW[:2], {"z": slice(2, 5)}, "2 along z, and the region has 3"),
        (NEW[:4], {"z": MASK}, "4 along z, and the region has 3"),
        (NEW[:3], {"z": slice(6, 9)}, r"region\['z'\] is slice\(6, 9, None\).*within the file"),
        (NEW[0], {"z": 8}, r"region\['z'\] is 8; accepted: -8 to 7"),
        (NEW[0], {"z": -9}, "-9; accepted: -8 to 7"),
        (NEW[0], {"z": True}, "True; accepted: an integer, a slice, a boolean mask of 8"),
        (NEW[0], {"z": 2.0}, "2.0; accepted: an integer"),
        (NEW[0], {"z": slice(0, 2.0)}, "float"),
        (NEW[0], {"z": slice(0, 2, 0)}, "zero"),
        (NEW[0], {"z": None}, "None; accepted: an integer"),
        (NEW[0], {"z": MASK[:7]}, "a mask of 7; accepted: .* mask of 8"),
        (NEW[0], {"z": [[1]]}, "accepted: an integer"),
        (NEW[:2], {"z": [3, -5]}, "each position only once"),
        (NEW[:2], {"z": 3}, "2 along z, and the region has 1"),
        (NEW[:, :3], {"z": 3, "y": 2}, r"shape \(8, 3, 10\)|8 along z"),
        (NEW[:2], {"z": 3, "y": 2}, "2 along z"),
        (NEW[:2, 0], {"z": 3, "y": 2}, r"shape \(2, 10\), and the region has the shape \(10,\)"),
        ([[1] * 10] * 12, {"z": 3}, "int64.*mode=1 casts"),
        (NEW[:1, :5], {}, "5 along y"),
        (by_name(NEW[:1], "z", "y", "x"), {"z": MASK}, "1 along z, and the region has 3"),
        (by_name(NEW[0], "y", "other"), {"z": 1}, r"\(z, y, x\): other is not one of them"),
        (0.5, {"z": 1}, "0.5 would be 0 in the file, which is int16"),
        (40000, {"z": 1}, "40000"),
        (np.nan, {"z": 1}, "nan"),
        (1j, {"z": 1}, "no number that the file can hold"),
        ("1", {"z": 1}, "no number that the file can hold"),
        (NEW[0].astype("f4"), {"z": MASK}, "float32, and the file is int16"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_byte_is_written(
    path: Path, data: Any, keys: Any, named: str
) -> None:
    path.write_bytes(before := by_hand.mrc(PIXELS))
    with pytest.raises(MrcError, match=named):
        to_mrc(data, path, region=keys)
    assert path.read_bytes() == before


def test_regions_of_other_modes(path: Path) -> None:
    pixels = (PIXELS & 15).astype("u1")
    path.write_bytes(by_hand.mrc(by_hand.pack_4bit(pixels), 101, shape=pixels.shape))
    to_mrc(np.float32(3), path, mode=101, region={"z": MASK, "y": slice(0, 12, 5)})
    pixels[np.ix_(MASK, range(0, 12, 5))] = 3
    np.testing.assert_array_equal(read(path), pixels)
    with pytest.raises(MrcError, match=r"region\['x'\] is a part of x; accepted: complete rows"):
        to_mrc(3, path, region={"x": slice(None, None, 2)})
    colors = RNG.integers(0, 256, (4, 5, 6, 3), "u1")
    path.write_bytes(by_hand.mrc(colors, 16, shape=(4, 5, 6), ispg=0, mz=1))
    to_mrc(np.array([255, 0, 7], "u1"), path, region={"image": -1, "x": [0, 4]})
    colors[-1][:, [0, 4]] = [255, 0, 7]
    np.testing.assert_array_equal(read(path), colors)
    with pytest.raises(MrcError, match="accepted: all colors"):
        to_mrc(0, path, region={"rgb": 1})
    create(path, (3, 4, 5), "complex64", mode=3, byteorder="big", overwrite=True)
    to_mrc(2 - 1j, path, region={"z": 1})
    raw = np.frombuffer(path.read_bytes()[1024:], ">i2").reshape(3, 20, 2)
    assert (raw[1] == [2, -1]).all()
    assert not raw[[0, 2]].any()


@pytest.mark.parametrize("dim", ["image", "z"])
def test_stack_of_one_section(path: Path, dim: str) -> None:
    path.write_bytes(by_hand.mrc(PIXELS[:1], ispg=1, cella=(10, 12, 0)))
    assert read(path).shape == (12, 10)
    to_mrc(NEW[0], path, region={dim: 0})
    np.testing.assert_array_equal(read(path), NEW[0])
    to_mrc(5, path, region={"y": -1})
    assert (read(path)[-1] == 5).all()


def test_number_is_rounded_if_the_mode_is_named(path: Path) -> None:
    path.write_bytes(by_hand.mrc(PIXELS))
    to_mrc(2.6, path, region={"z": 1}, mode=1)
    assert (read(path)[1] == 3).all()


def test_volumes_and_delayed_regions(path: Path) -> None:
    volumes = PIXELS.reshape(2, 4, 12, 10)
    create(path, volumes.shape, "i2", dims=("volume", "z", "y", "x"))
    to_mrc(volumes, path, region={})
    delayed = [
        to_mrc(
            da.full((12, 10), i, dtype="i2"),
            path,
            region={"volume": i, "z": [0, 3]},
            compute=False,
        )
        for i in range(2)
    ]
    delayed += [to_mrc(5, path, region={"z": np.zeros(4, bool)}, compute=False)]
    for task in delayed:
        assert task is not None
        task.compute()
    expected = volumes.copy()
    expected[:, [0, 3]] = np.arange(2)[:, None, None, None]
    np.testing.assert_array_equal(read(path), expected)
    with mrcfile.open(path) as mrc:
        np.testing.assert_array_equal(mrc.data, expected)


def test_blocks_of_broadcast_data_are_small() -> None:
    sizes = {"z": 1000, "y": 1024, "x": 2048}
    section = by_name(da.zeros((2048, 1024), dtype="i2", chunks=(2048, 256)), "x", "y")
    lazy = broadcast(section, sizes)
    assert lazy.dims == ("z", "y", "x")
    assert lazy.data.chunksize == (4, 256, 2048)
    assert broadcast(by_name(da.zeros(2048, dtype="i2"), "x"), sizes).data.chunksize == (
        4,
        1024,
        2048,
    )
    in_memory = broadcast(by_name(np.zeros(2048, "i2"), "x"), sizes)
    assert in_memory.values.strides == (0, 0, 2)
