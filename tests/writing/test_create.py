"""Files of zeros, to be filled later."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path
from typing import Any

import by_hand
import mrcfile
import numpy as np
import pytest
import xarray as xr
from writes import ORDERS, UNDETERMINED, fields, noise, opened, statistics, unwarned

from mrc_xarray import MrcError, MrcWarning, create
from mrc_xarray.writing import plan


def test_large_file_takes_no_space(path: Path) -> None:
    shape = (1250, 2048, 2048)
    create(path, shape, "f4", voxel_size=1.5)
    assert path.stat().st_size == 1024 + 4 * 1250 * 2048 * 2048
    assert path.stat().st_blocks * 512 < 1024**2
    assert fields(path, "mode", "cella", "origin") == (2, (3072, 3072, 1875), (0, 0, 0))
    assert statistics(path) == UNDETERMINED
    with mrcfile.mmap(path) as mrc:
        assert mrc.data.shape == shape
        assert mrc.voxel_size.z == 1.5
        assert not mrc.data[-1, -1].any()
    assert opened(path).mrc.voxel_size == {"z": 1.5, "y": 1.5, "x": 1.5}


@pytest.mark.parametrize(
    ("dtype", "mode", "found", "number", "byteorder"),
    [
        ("u1", None, "u2", 6, "big"),
        ("u1", 0, "u1", 0, "little"),
        ("f4", 12, "f2", 12, "big"),
        ("u1", 101, "u1", 101, "big"),
    ],
)
def test_create_types(
    path: Path, dtype: str, mode: int | None, found: str, number: int, byteorder: str
) -> None:
    dims = ("image", "y", "x")
    create(path, (4, 6, 7), dtype, dims=dims, mode=mode, byteorder=byteorder)
    assert fields(path, "mode", "nx", "mz", byteorder=ORDERS[byteorder]) == (number, 7, 1)
    ds = xr.open_dataset(path, engine="mrc")
    assert ds.data.dtype == np.dtype(found)
    assert ds.data.dims == dims
    assert ds.data.shape == (4, 6, 7)
    assert not ds.data.values.any()


def test_create_labels_origin_and_voxel_of_each_dimension(path: Path) -> None:
    origin = {"z": -40.0, "y": 0.5, "x": 7.0}
    voxel = {"z": 4.0, "y": 3.0, "x": 2.0}
    create(path, (4, 6, 7), "i2", voxel_size=voxel, origin=origin, labels=["ours", "theirs"])
    ds = xr.open_dataset(path, engine="mrc")
    for dim, size in ds.sizes.items():
        np.testing.assert_allclose(ds[dim], origin[dim] + voxel[dim] * np.arange(size))
    with mrcfile.open(path) as mrc:
        assert {"ours", "theirs"} <= {label.strip() for label in mrc.get_labels()}


def test_create_overwrites_only_on_request(path: Path) -> None:
    path.write_bytes(before := by_hand.mrc(noise((3, 4, 5))))
    with pytest.raises(FileExistsError, match=r"volume\.mrc"):
        create(path, (2, 3, 4), "i2")
    assert path.read_bytes() == before
    create(path, (2, 3, 4), "f4", overwrite=True)
    np.testing.assert_array_equal(opened(path).data, np.zeros((2, 3, 4)))


@pytest.mark.parametrize(
    ("shape", "dtype", "options", "named"),
    [
        ((2, 3, 4), "f8", {}, "float64"),
        ((2, 3, 4), "f4", {"origin": {"z": 1.0}}, "origin"),
        ((2, 3, 4), "f4", {"origin": {"w": 1.0}, "voxel_size": 2.0}, "origin"),
        ((2, 3, 4), "f4", {"dims": ("image", "y")}, "dims"),
    ],
)
def test_create_refuses(
    path: Path, shape: Any, dtype: str, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        create(path, shape, dtype, **options)
    assert not path.exists()


@pytest.mark.parametrize("name", ["volume.mrc.gz", "memory://volume.mrc"])
def test_only_plain_files_on_a_disk_are_created(name: str) -> None:
    with pytest.raises(MrcError, match=r"can.* be filled"):
        create(name, (2, 3, 4), "f4")


RECORDS = b"".join(struct.pack("<i", 768) + bytes(764) for _ in range(5))


def test_create_with_an_extended_header(path: Path) -> None:
    """FEI1: its records begin with their size, 768 bytes."""
    dims = ("image", "y", "x")
    create(path, (5, 6, 8), "f4", dims=dims, extended_header=("FEI1", RECORDS), fill=2.5)
    raw = path.read_bytes()
    assert fields(path, "exttyp", "nsymbt", "nint", "nreal") == (b"FEI1", 5 * 768, 0, 0)
    assert raw[1024 : 1024 + 5 * 768] == RECORDS
    assert raw[1024 + 5 * 768 :] == np.full(5 * 6 * 8, 2.5, "<f4").tobytes()
    with mrcfile.open(path) as mrc:
        assert len(mrc.indexed_extended_header) == 5


@pytest.mark.parametrize(
    ("dtype", "mode", "fill", "stored"),
    [
        ("i2", None, -7, np.array(-7, ">i2").tobytes()),
        ("f4", None, 0.1, np.array(0.1, ">f4").tobytes()),
        ("u1", 0, 200, b"\xc8"),
        ("f8", 1, 2.6, np.array(3, ">i2").tobytes()),
        ("c8", 3, 1 - 2j, np.array([1, -2], ">i2").tobytes()),
        ("bool", None, True, b"\1"),
    ],
)
@unwarned
def test_create_filled(
    path: Path, dtype: str, mode: int | None, fill: Any, stored: bytes, monkeypatch: Any
) -> None:
    # several parts, the last of which is shorter
    monkeypatch.setattr(plan, "_PART", 10 * len(stored) * 4)
    create(path, (3, 5, 4), dtype, mode=mode, fill=fill, byteorder="big")
    assert path.read_bytes()[1024:] == stored * 60
    value = opened(path)["data"].values[0, 0, 0]
    expected = (0, -1, -2, 0) if dtype == "c8" else (value, value, value, 0)
    assert fields(path, "dmin", "dmax", "dmean", "rms", byteorder=">") == expected


def test_create_filled_4_bits_and_zero(path: Path) -> None:
    create(path, (2, 3, 5), "u1", mode=101, fill=9)
    assert path.read_bytes()[1024:] == b"\x99\x99\x09" * 6
    create(path, (500, 512, 512), "f4", fill=0, overwrite=True)
    assert path.stat().st_blocks * 512 < 1024**2
    assert statistics(path) == (0, 0, 0, 0)


def test_create_filled_with_nan_warns(path: Path) -> None:
    with pytest.warns(MrcWarning, match=r"NaN or infinite were written \(24 in total\)"):
        create(path, (2, 3, 4), "f4", fill=float("nan"))
    assert statistics(path) == UNDETERMINED
    assert np.isnan(opened(path)["data"].values).all()


@pytest.mark.parametrize(
    ("dtype", "fill", "error"),
    [
        ("i1", 256, MrcError),
        ("i2", float("nan"), MrcError),
        ("f4", 1j, MrcError),
        ("f4", [1], TypeError),
    ],
)
def test_create_refuses_to_fill(path: Path, dtype: str, fill: Any, error: Any) -> None:
    with pytest.raises(error):
        create(path, (2, 3, 4), dtype, fill=fill)
    assert not path.exists()


def test_create_filled_takes_little_memory(path: Path) -> None:
    tracemalloc.start()
    create(path, (16, 1024, 1024), "f4", fill=1)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert path.stat().st_size == 1024 + 64 * 1024**2
    assert most < 16 * 1024**2
