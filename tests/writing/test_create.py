"""Files of zeros, to be filled later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import by_hand
import mrcfile
import numpy as np
import pytest
import xarray as xr
from writes import ORDERS, UNDETERMINED, fields, noise, opened, statistics

from mrc_xarray import MrcError, create


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
