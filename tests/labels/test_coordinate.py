"""Coordinates are in memory, whatever xarray does to variables that are lazy."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import by_hand
import numpy as np
import pytest
import xarray as xr

from mrc_xarray import to_mrc

ANGLES = [-60.0, -30.0, 0.0, 30.0, 60.0]
DATA = np.arange(60, dtype="i2").reshape(5, 3, 4)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "series.st"
    path.write_bytes(by_hand.mrc(DATA, ispg=0, mz=1))
    path.with_suffix(".tlt").write_text("".join(f"{angle}\n" for angle in ANGLES))
    return path


@pytest.mark.parametrize("chunks", [None, {}], ids=str)
def test_coordinates_are_in_memory(path: Path, chunks: Any) -> None:
    ds = xr.open_dataset(path, engine="mrc", chunks=chunks)
    assert (ds.data.chunks is None) is (chunks is None)
    assert [coord.chunks for coord in ds.coords.values()] == [None] * 4
    assert all(coord.variable._in_memory for coord in ds.coords.values())
    assert set(ds.indexes) == {"x", "y"}
    assert "-60.0 -30.0 0.0 30.0 60.0" in repr(ds.data)
    xr.testing.assert_identical(pickle.loads(pickle.dumps(ds)), ds)

    grouped = ds.groupby("tilt_angle").mean()
    assert grouped.tilt_angle.values.tolist() == ANGLES
    np.testing.assert_array_equal(grouped.data.transpose("tilt_angle", ...), DATA)
    tilted = ds.isel(image=abs(ds.tilt_angle) > 40)
    np.testing.assert_array_equal(tilted.data, DATA[[0, 4]])
    np.testing.assert_array_equal(ds.data[ds.section >= 3], DATA[3:])
    assert ds.where(ds.tilt_angle > 0, drop=True).section.values.tolist() == [3, 4]
    assert ds.set_xindex("tilt_angle").sel(tilt_angle=29, method="nearest").section.item() == 3


def test_coordinates_of_other_values_do_not_stop_arithmetic(path: Path, tmp_path: Path) -> None:
    """They have no index, by which xarray would align the images of two series."""
    other = tmp_path / "other.st"
    other.write_bytes(path.read_bytes())
    other.with_suffix(".tlt").write_text("1\n2\n3\n4\n5\n")
    options: dict[str, Any] = {"engine": "mrc", "chunks": {}}
    total = xr.open_dataset(path, **options).data + xr.open_dataset(other, **options).data
    np.testing.assert_array_equal(total, 2 * DATA)
    assert "tilt_angle" not in total.coords


def test_stored_coordinates_are_in_memory(tmp_path: Path) -> None:
    data = xr.DataArray(
        DATA,
        dims=("grain", "y", "x"),
        coords={"label": ("grain", list("abcde")), "phase": (("grain", "y"), DATA[..., 0])},
    )
    to_mrc(data, tmp_path / "grains.mrcz")
    ds = xr.open_dataset(tmp_path / "grains.mrcz", engine="mrc", chunks={})
    xr.testing.assert_equal(ds.data.drop_vars("section").load(), data)
    assert all(coord.variable._in_memory for coord in ds.coords.values())
    assert ds.isel(grain=ds.label == "c").sizes["grain"] == 1
