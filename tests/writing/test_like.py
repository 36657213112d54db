"""New pixels with the labels of a file, compared with bytes built by hand and with mrcfile."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import by_hand
import dask.array as da
import fsspec
import mrcfile
import mrcz_by_hand
import numpy as np
import pytest
import xarray as xr
from writes import Array, extended, field, fields, labels, noise, opened, stored, unwarned, warned

from mrc_xarray import MrcError, to_mrc

SHAPE = (5, 12, 10)
PIXELS = noise(SHAPE, "i2")
CELL = {"cella": (15, 24, 10), "nxstart": 3, "nystart": -4, "origin": (4.5, -8, 0)}
RECORDS = b"".join(struct.pack("<h", 300 * k) for k in range(5))
TILTS = {"extended": RECORDS, "exttyp": b"SERI", "nint": 2, "nreal": 1, "ispg": 0, "mz": 1}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Return a volume of 1.5, 2 and 2 Å per voxel that is not at the origin."""
    path = tmp_path / "old.mrc"
    path.write_bytes(by_hand.mrc(PIXELS, labels=(b"first", b"second"), **CELL))
    return path


@pytest.fixture
def series(tmp_path: Path) -> Path:
    path = tmp_path / "series.mrc"
    path.write_bytes(by_hand.mrc(PIXELS, cella=(15, 24, 1), labels=(b"tilts",), **TILTS))
    return path


def by_name(data: Any, *dims: str, **coords: Any) -> xr.DataArray:
    return xr.DataArray(data, coords, dims)


SOURCES: dict[str, Any] = {
    "path": lambda path: path,
    "str": str,
    "URL": lambda path: f"file://{path}",
    "file": lambda path: path.open("rb"),
    "BytesIO": lambda path: io.BytesIO(path.read_bytes()),
    "bytes": lambda path: path.read_bytes(),
    "fsspec": lambda path: fsspec.open(f"file://{path}").open(),
    "DataArray": lambda path: opened(path)["data"].astype("f8"),
    "Dataset": lambda path: opened(path, chunks={}).load(),
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_pixels_of_the_same_shape(tmp_path: Path, old: Path, source: Any) -> None:
    path, new = tmp_path / "new.mrc", noise(SHAPE, "f4", seed=1)
    like = source(old)
    to_mrc(new, path, like=like)
    if hasattr(like, "close"):
        like.close()
    assert labels(path)[:2] == ["first", "second"]
    assert len(labels(path)) == 3
    names = ("cella", "nxstart", "nystart", "nzstart", "origin", "mx", "my", "mz", "ispg")
    assert fields(path, *names) == fields(old, *names)
    assert stored(path) == new.tobytes()
    # as mrcfile does
    with mrcfile.open(old, "r+") as mrc:
        mrc.set_data(new)
    assert fields(path, "mode", *names) == fields(old, "mode", *names)
    assert fields(path, "dmin", "dmax", "rms") == pytest.approx(fields(old, "dmin", "dmax", "rms"))


@pytest.mark.parametrize("target", ["series.mrc", "other.mrcz", "other.mrc.gz"])
def test_records_of_the_same_sections(tmp_path: Path, series: Path, target: str) -> None:
    to_mrc(
        da.from_array(~PIXELS, chunks=(2, -1, -1)), tmp_path / target, like=series, overwrite=True
    )
    ds = opened(tmp_path / target)
    np.testing.assert_array_equal(ds["tilt_angle"], [0, 3, 6, 9, 12])
    np.testing.assert_array_equal(ds["data"], ~PIXELS)
    assert ds["data"].dims == ("image", "y", "x")
    assert ds.mrc.voxel_size == {"z": 1, "y": 2, "x": 1.5}
    assert ds.mrc.extended_header == RECORDS


@pytest.mark.parametrize("order", ["little", "big"])
def test_other_number_of_sections(tmp_path: Path, series: Path, order: str) -> None:
    path = tmp_path / "new.mrc"
    text = warned(list(~PIXELS[:3]), path, like=series, byteorder=order)
    assert "the coordinates tilt_angle of like=, as the data have" in text
    assert "(image: 3, y: 12, x: 10), and like= has (image: 5, y: 12, x: 10)" in text
    assert "the extended header (SERI)" in text
    ds = opened(path)
    assert ds["data"].dims == ("image", "y", "x")
    assert ds.mrc.voxel_size == {"z": 1, "y": 2, "x": 1.5}
    assert ds.mrc.header.label[0] == "tilts"
    assert ds.mrc.extended_header == b""


@pytest.mark.parametrize(
    ("data", "dims", "voxel", "lost"),
    [
        (PIXELS[:3], ("z", "y", "x"), {"y": 2, "x": 1.5}, "z of like= \\(voxel_size="),
        (PIXELS[:, :6], ("z", "y", "x"), {"z": 2, "x": 1.5}, "y of like= \\(voxel_size="),
        (PIXELS[0], ("y", "x"), {"y": 2, "x": 1.5}, "coordinates z of like=, as"),
    ],
)
def test_axis_of_another_size_has_no_voxel_size(
    tmp_path: Path, old: Path, data: Array, dims: Any, voxel: Any, lost: str
) -> None:
    path = tmp_path / "new.mrc"
    with pytest.warns(match=lost):
        to_mrc(data, path, like=old)
    ds = opened(path)
    assert ds["data"].dims == dims
    assert ds.mrc.voxel_size == voxel
    # it is that of the header
    assert float(ds["x"][0]) == 4.5
    with pytest.warns(match="the coordinates"):
        to_mrc(data, path, like=old, voxel_size=3, overwrite=True)
    assert opened(path).mrc.voxel_size == dict.fromkeys(dims, 3)


@pytest.mark.parametrize(
    ("like", "shape", "dims"),
    [
        (("y", "x"), (4, 5), ("y", "x")),
        (("y", "x"), (3, 4, 5), ("image", "y", "x")),
        (("image", "y", "x"), (4, 5), ("y", "x")),
        (("image", "y", "x"), (2, 3, 4, 5), ("volume", "z", "y", "x")),
        (("z", "y", "x"), (2, 3, 4, 5), ("volume", "z", "y", "x")),
        (("volume", "z", "y", "x"), (3, 4, 5), ("z", "y", "x")),
        (("x", "z", "y"), (3, 4, 5), ("x", "z", "y")),
        (("scan_y", "scan_x", "ky", "kx"), (3, 4, 5), ("image", "ky", "kx")),
        (("image", "y", "x", "rgb"), (4, 5, 3), ("y", "x", "rgb")),
        (("y", "x", "rgb"), (2, 4, 5), ("image", "y", "x")),
    ],
)
@unwarned
def test_layout(tmp_path: Path, like: Any, shape: Any, dims: Any) -> None:
    pattern = by_name(np.zeros([3 if dim == "rgb" else 7 for dim in like], "u1"), *like)
    path = tmp_path / "new.mrc"
    data = np.ones(shape, "u1")
    # names that an MRC file has no place for are listed as for labelled data
    to_mrc(data, tmp_path / "there.mrcz" if "ky" in like else path, like=pattern)
    found = opened(tmp_path / "there.mrcz" if "ky" in like else path)["data"]
    assert found.dims == dims
    assert found.shape == shape


def test_labels_of_the_data_win(tmp_path: Path, old: Path, series: Path) -> None:
    path = tmp_path / "new.mrc"
    x = ("x", 6.0 + 3 * np.arange(10), {"units": "angstrom"})
    to_mrc(by_name(PIXELS, "z", "y", "x", x=x), path, like=old)
    ds = opened(path)
    assert ds.mrc.voxel_size == {"z": 2, "y": 2, "x": 3}
    assert (float(ds["x"][0]), float(ds["y"][0])) == (6, -8)
    # the file that the data were opened from is another one
    chosen = opened(old)["data"].isel(z=[4, 0]).rename(z="image").drop_vars("image")
    chosen = chosen.assign_coords(section=("image", [4, 0]))
    text = warned(chosen.assign_attrs(gain=2.0), path, like=series, overwrite=True)
    assert "the attributes gain" in text
    assert labels(path)[0] == "tilts"
    assert extended(path) == b""
    assert "tilt_angle of like=" in text


def test_labels_that_did_not_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "new.mrc"
    pattern = by_name(PIXELS, "image", "y", "x", y=2.0 * np.arange(12), x=3.0 * np.arange(10))
    for dim in "yx":
        pattern[dim].attrs["units"] = "nm"
    to_mrc(~PIXELS, path, like=pattern.to_dataset(name="any"))
    assert opened(path).mrc.voxel_size == {"y": 20, "x": 30}
    assert fields(path, "ispg", "mz") == (0, 1)


def test_metadata_of_an_mrcz(tmp_path: Path) -> None:
    like = tmp_path / "old.mrcz"
    json = mrcz_by_hand.METADATA
    like.write_bytes(mrcz_by_hand.file(mrcz_by_hand.chunks(), json, exttyp=b"json"))
    to_mrc(~mrcz_by_hand.PIXELS, like, like=like, overwrite=True)
    ds = opened(like)
    np.testing.assert_array_equal(ds["data"], ~mrcz_by_hand.PIXELS)
    assert ds.mrc.metadata == {"stage": [1.5, -2]}
    assert "the metadata" in warned(mrcz_by_hand.PIXELS, tmp_path / "new.mrc", like=like)


def test_file_object_that_is_replaced(old: Path) -> None:
    file = io.BytesIO(old.read_bytes())
    to_mrc(PIXELS.astype("c8"), file, like=file)
    old.write_bytes(file.getvalue())
    assert field(old, "mode") == 4
    assert field(old, "cella") == CELL["cella"]


@pytest.mark.parametrize(
    ("data", "like", "error", "named"),
    [
        (PIXELS, PIXELS, TypeError, "like is ndarray; accepted: a path"),
        (PIXELS, 3, TypeError, "like is int; accepted: a path"),
        (PIXELS, "none.mrc", FileNotFoundError, r"none\.mrc"),
        (PIXELS[0, 0], by_name(PIXELS, "z", "y", "x"), MrcError, r"shape \(10,\)"),
        (PIXELS[None, None], by_name(PIXELS, "z", "y", "x"), MrcError, "xarray.DataArray"),
        (PIXELS, xr.Dataset(), MrcError, "one"),
    ],
)
def test_what_can_be_no_pattern(
    tmp_path: Path, data: Array, like: Any, error: Any, named: str
) -> None:
    with pytest.raises(error, match=named):
        to_mrc(data, tmp_path / "new.mrc", like=like)
    assert not any(tmp_path.iterdir())
