"""The distance between the sections of a stack by label: mrcfile and mrcz are the oracles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import by_hand
import mrcfile
import mrcz
import numpy as np
import pytest
import xarray as xr
from writes import field, unwarned

from mrc_xarray import MrcError, create, edit_header, to_mrc

PIXELS = np.random.default_rng(6).integers(-99, 99, (4, 6, 8), "i2")
NAME = "section_spacing_angstrom"
DIMS = ("image", "y", "x")


def opened(path: Path, **options: Any) -> xr.DataArray:
    return xr.open_dataarray(path, engine="mrc", **options)


def z_by_mrcfile(path: Path) -> float:
    with mrcfile.open(path, header_only=True) as mrc:
        return float(mrc.voxel_size.z)


@pytest.fixture
def stack(path: Path) -> Path:
    """Return a stack with pixels of 1.5 Å, and 3.25 Å between its sections."""
    path.write_bytes(by_hand.mrc(PIXELS, ispg=0, mz=2, cella=(12, 9, 6.5)))
    assert z_by_mrcfile(path) == 3.25
    return path


def test_is_read(stack: Path) -> None:
    data = opened(stack, units="nm")
    assert data.attrs[NAME] == 3.25
    assert data.mrc.voxel_size == {"z": 3.25, "y": 1.5, "x": 1.5}
    assert data.to_dataset(name="a").mrc.voxel_size["z"] == 3.25
    assert (data[1:] * 2).mrc.voxel_size["z"] == 3.25
    # a single image has no sections, and those of a volume have positions
    assert "z" not in data[0].mrc.voxel_size
    volume = opened(stack, layout="volume")
    assert (NAME in volume.attrs, volume.mrc.voxel_size["z"]) == (False, 3.25)


@pytest.mark.parametrize("edge", [0, -6.5, np.nan, np.inf, 1e-40])
def test_unknown_is_absent(path: Path, edge: float) -> None:
    path.write_bytes(by_hand.mrc(PIXELS, ispg=0, mz=1, cella=(12, 9, edge)))
    data = opened(path)
    assert NAME not in data.attrs
    assert data.mrc.voxel_size == {"y": 1.5, "x": 1.5}
    to_mrc(data, path.with_name("b.mrcs"))
    assert field(path.with_name("b.mrcs"), "cella") == (12, 9, 0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"z": 2}, {"z": 2, "y": 1.5, "x": 1.5}),
        ({"z": (0.4, "nm"), "x": 3}, {"z": 4, "y": 1.5, "x": 3}),
        ((1, 2, 4), {"z": 4, "y": 2, "x": 1}),
        # what says nothing about sections
        ((1, 2, 0), {"z": 3.25, "y": 2, "x": 1}),
        (2, {"z": 3.25, "y": 2, "x": 2}),
    ],
)
def test_is_given(stack: Path, given: Any, expected: dict[str, float]) -> None:
    data = opened(stack, voxel_size=given)
    assert data.mrc.voxel_size == expected
    copy = stack.with_name("copy.mrcs")
    to_mrc(data, copy)
    assert opened(copy).mrc.voxel_size == expected
    assert z_by_mrcfile(copy) == expected["z"]
    # written, and changed in place
    to_mrc(opened(stack), copy, voxel_size=given, overwrite=True)
    assert opened(copy).mrc.voxel_size == expected
    edit_header(stack, voxel_size=given)
    assert opened(stack).mrc.voxel_size == expected
    assert field(stack, "mz") == 2


def test_new_stack(path: Path) -> None:
    for size, z in (((1, 1, 5), 5), ({"y": 1, "x": 1, "z": 5}, 5), ((1, 1, 0), 0), (1, 0)):
        to_mrc(xr.DataArray(PIXELS, dims=DIMS), path, voxel_size=size, overwrite=True)
        assert field(path, "cella") == (8, 6, z)
        create(path, PIXELS.shape, "i2", dims=DIMS, voxel_size=size, overwrite=True)
        assert field(path, "cella") == (8, 6, z)
    labelled = xr.DataArray(PIXELS, dims=DIMS, attrs={NAME: 2.5})
    to_mrc(labelled, path, overwrite=True)
    assert z_by_mrcfile(path) == 2.5


def test_copies(stack: Path) -> None:
    data, copy = opened(stack), stack.with_name("copy.mrcs")
    for part in (data, data[1:3], data[::2] * 2, data.assign_attrs({NAME: 7})):
        to_mrc(part, copy, overwrite=True)
        assert z_by_mrcfile(copy) == part.attrs[NAME]
    # the user's decision
    del data.attrs[NAME]
    to_mrc(data, copy, overwrite=True)
    assert z_by_mrcfile(copy) == 0
    store = stack.with_name("a.zarr")
    opened(stack).to_dataset(name="data").to_zarr(store, consolidated=False)
    stored = xr.open_dataset(store, engine="zarr", consolidated=False)["data"]
    to_mrc(stored, copy, overwrite=True)
    assert z_by_mrcfile(copy) == 3.25


@unwarned
def test_attribute_that_is_no_distance(path: Path) -> None:
    for wrong in (-1, "wide", np.nan):
        to_mrc(xr.DataArray(PIXELS, dims=DIMS, attrs={NAME: wrong}), path, overwrite=True)
        assert field(path, "cella") == (0, 0, 0)


def test_mrcz(tmp_path: Path) -> None:
    theirs, ours = str(tmp_path / "theirs.mrcz"), tmp_path / "ours.mrcz"
    mrcz.writeMRC(PIXELS, theirs, compressor="zstd", pixelsize=[2.5, 1.5, 1.5], pixelunits=r"\AA")
    data = xr.open_dataarray(theirs, engine="mrc")
    assert data.mrc.voxel_size == {"z": 2.5, "y": 1.5, "x": 1.5}
    to_mrc(data, ours)
    assert mrcz.readMRC(str(ours))[1]["pixelsize"] == pytest.approx([2.5, 1.5, 1.5])
    to_mrc(data, ours, voxel_size={"z": 4}, overwrite=True)
    assert mrcz.readMRC(str(ours))[1]["pixelsize"] == pytest.approx([4, 1.5, 1.5])
    edit_header(ours, voxel_size=(1, 2, 3))
    assert mrcz.readMRC(str(ours))[1]["pixelsize"] == pytest.approx([3, 2, 1])
    assert opened(ours).mrc.voxel_size == {"z": 3, "y": 2, "x": 1}


def test_no_length(stack: Path) -> None:
    for given in ({"z": (1, "s")}, {"w": 1}):
        with pytest.raises(MrcError, match="accepted: a"):
            opened(stack, voxel_size=given)
        with pytest.raises(MrcError, match="accepted: a"):
            to_mrc(opened(stack), stack.with_name("b.mrc"), voxel_size=given)
    with pytest.raises(MrcError, match="voxel_size is for z"):
        opened(stack, scan_shape=(2, 2), voxel_size={"z": 2})
