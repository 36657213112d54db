"""The argument ``voxel_size``: its forms, when a file is opened, created, written and edited."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import by_hand
import de_by_hand as de
import mrcfile
import numpy as np
import pytest
import xarray as xr

from mrc_xarray import MrcError, MrcWarning, create, edit_header, to_mrc
from mrc_xarray.voxel_size import VoxelSize

INF, NAN = float("inf"), float("nan")
DATA = np.arange(12 * 3 * 4, dtype="i2").reshape(12, 3, 4)
SCAN = ("scan_y", "scan_x", "ky", "kx")
STEPS = {"scan_x": (0.5, "nm"), "kx": (0.01, "1/nm")}
STACK = {"ispg": 0, "mz": 1}


def opened(voxel_size: Any, *, options: Any = None, **fields: Any) -> xr.Dataset:
    raw = by_hand.mrc(DATA, **fields)
    return xr.open_dataset(io.BytesIO(raw), engine="mrc", voxel_size=voxel_size, **(options or {}))


def grid(ds: xr.Dataset) -> dict[str, tuple[float, float, str]]:
    """Return the first position, the step and the units of each coordinate of a dimension."""
    coords = {str(dim): ds[dim] for dim in ds.data.dims if dim in ds.coords}
    for coord in coords.values():
        assert coord.attrs["spacing"] == pytest.approx(coord.values[1] - coord.values[0])
    return {
        dim: (coord.values[0], coord.attrs["spacing"], coord.attrs["units"])
        for dim, coord in coords.items()
    }


def in_angstrom(x: float, y: float, z: float) -> dict[str, tuple[float, str]]:
    return {"x": (x, "angstrom"), "y": (y, "angstrom"), "z": (z, "angstrom")}


RECORD = np.rec.array((1.35, 2, 4), dtype=[("x", "f4"), ("y", "f4"), ("z", "f4")])


@pytest.mark.parametrize(
    ("value", "steps"),
    [
        (2, in_angstrom(2, 2, 2)),
        (np.float32(1.35), in_angstrom(1.35, 1.35, 1.35)),
        ((1.35, 2, 4), in_angstrom(1.35, 2, 4)),
        (RECORD, in_angstrom(1.35, 2, 4)),
        ((1.35, (0.2, "nm"), 4), in_angstrom(1.35, 2, 4)),
        ({"x": 1.35}, {"x": (1.35, "angstrom")}),
        ({"x": (0.07, "nm")}, {"x": (0.7, "angstrom")}),
        ({"x": [2, "µm"]}, {"x": (2e4, "angstrom")}),
        ({"k": (0.01, "1/nm")}, {"k": (0.01, "1/nm")}),
        ({"k": (1, "1/Å")}, {"k": (1, "1/angstrom")}),
        ({"k": (0.3, "mrad"), "t": (2, "s")}, {"k": (0.3, "mrad"), "t": (2, "s")}),
    ],
    ids=str,
)
def test_forms(value: Any, steps: Any) -> None:
    assert VoxelSize.of(value).steps == steps


@pytest.mark.parametrize(
    "value", ["13", True, (1, 2), (1, 2, 3, 4), {"x": None}, {"x": (1, 2)}, []], ids=str
)
def test_other_forms_are_refused(value: Any) -> None:
    with pytest.raises(TypeError, match=r"voxel_size is .*; accepted: a number or \(x, y, z\) in"):
        opened(value)


@pytest.mark.parametrize(
    ("value", "accepted"),
    [
        *((size, "finite sizes above 0") for size in (0, NAN, INF, {"x": 0}, (1, 1, -1))),
        ((2, 2, 0), "0 along z; accepted: sizes above 0"),
        ({"x": (1, "pixel")}, "units of length, such as 'angstrom' and 'nm'"),
        ({"w": 1, "x": 1}, "voxel_size is for w, .*; accepted: a mapping of 'z', 'y', 'x'"),
    ],
    ids=str,
)
def test_wrong_values_are_refused(tmp_path: Path, value: Any, accepted: str) -> None:
    with pytest.raises(MrcError, match=accepted):
        opened(value)
    path = tmp_path / "new.mrc"
    with pytest.raises(MrcError, match=accepted):
        to_mrc(DATA, path, voxel_size=value)
    with pytest.raises(MrcError, match=accepted):
        create(path, DATA.shape, "i2", voxel_size=value)
    path.write_bytes(before := by_hand.mrc(DATA))
    with pytest.raises(MrcError, match=r"voxel_size .*accepted: "):
        edit_header(path, voxel_size=value)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("fields", "first"),
    [
        ({"origin": (10, 20, 30)}, (10, 20, 30)),
        # N*START count voxels
        ({"nxstart": 1, "nystart": -2, "nzstart": 3}, (1.5, -4, 15)),
        ({"cella": (0, 0, 0), "nzstart": 3}, (0, 0, 15)),
        # no warning about a cell that is not used
        ({"cella": (-1, NAN, 0), "mz": -1}, (0, 0, 0)),
    ],
    ids=str,
)
def test_it_replaces_the_voxel_size_of_the_header(fields: Any, first: Any) -> None:
    ds = opened((1.5, 2, 5), options={"layout": "volume"}, **fields)
    assert grid(ds) == {
        dim: (start, step, "angstrom")
        for dim, start, step in zip("xyz", first, (1.5, 2, 5), strict=True)
    }
    assert ds.mrc.voxel_size == {"x": 1.5, "y": 2, "z": 5}


def test_a_mapping_replaces_what_it_names() -> None:
    ds = opened({"x": (0.25, "nm")}, options={"units": "nm"}, origin=(10, 0, 0))
    assert grid(ds) == {"x": (1, 0.25, "nm"), "y": (0, 0.1, "nm"), "z": (0, 0.1, "nm")}
    assert opened({"x": (0.01, "1/nm")}, origin=(10, 0, 0)).x.values.tolist()[:2] == [0, 0.01]


def test_a_stack_has_no_step_along_its_images(tmp_path: Path) -> None:
    # mrcfile's voxel size of a stack can be 0 along z
    assert grid(opened((2, 3, 0), **STACK)) == {"x": (0, 2, "angstrom"), "y": (0, 3, "angstrom")}
    with_step = opened({"image": (0.5, "s")}, **STACK)
    assert grid(with_step)["image"] == (0, 0.5, "s")
    path = tmp_path / "stack.st"
    path.write_bytes(by_hand.mrc(DATA, **STACK, cella=(4, 3, 7)))
    edit_header(path, voxel_size=(2, 3, 0))
    with mrcfile.open(path) as mrc:
        assert mrc.header.cella.tolist() == (8, 9, 7)


def test_names_are_those_of_the_dataset() -> None:
    options = {"scan_shape": (3, 4), "dims": SCAN, "units": "nm"}
    ds = opened(STEPS, options=options, cella=(0, 0, 0))
    assert grid(ds) == {"scan_x": (0, 0.5, "nm"), "kx": (0, 0.01, "1/nm")}
    # names in another order than the axes
    swapped = opened({"x": 7, "z": 2}, options={"dims": ("x", "y", "z")})
    assert swapped.mrc.voxel_size == {"x": 7, "y": 1, "z": 2}


def test_it_replaces_the_steps_of_a_sidecar(tmp_path: Path) -> None:
    frames = de.frames(12)
    path = de.write(tmp_path, frames, {"Instrument Project TEMorSTEM Mode": 1})
    with xr.open_dataset(path, engine="mrc", voxel_size=STEPS) as ds:
        assert ds.data.dims == SCAN
        assert grid(ds)["kx"] == (0, 0.01, "1/nm")
        assert grid(ds)["scan_x"] == (0, 5, "angstrom")
        assert grid(ds)["ky"] == grid(xr.open_dataset(path, engine="mrc"))["ky"]
    with pytest.raises(MrcError, match=r"for x, y, z, which the data do not have.*'scan_y'"):
        xr.open_dataset(path, engine="mrc", voxel_size=2)


@pytest.mark.parametrize("form", ["triple", "record", "mapping"])
def test_files_have_the_voxel_size_that_mrcfile_reads(tmp_path: Path, form: str) -> None:
    mapping = {"z": (0.4, "nm"), "x": 1.5, "y": (200, "pm")}
    value: Any = mapping if form == "mapping" else (1.5, 2, 4)
    if form == "record":
        with mrcfile.new(tmp_path / "theirs.mrc", DATA) as mrc:
            mrc.voxel_size = (1.5, 2, 4)
            value = mrc.voxel_size.copy()
    written, created, edited = (tmp_path / f"{name}.mrc" for name in ("to", "create", "edit"))
    to_mrc(DATA, written, voxel_size=value)
    create(created, DATA.shape, "i2", voxel_size=value, origin={"z": 8.0})
    edited.write_bytes(by_hand.mrc(DATA, mx=8))
    edit_header(edited, voxel_size=value)
    copied = tmp_path / "copy.mrc"
    opened(value, origin=(1, 2, 3)).mrc.to_file(copied)
    for path in (written, created, edited, copied):
        with mrcfile.open(path) as mrc:
            assert mrc.voxel_size.tolist() == (1.5, 2, 4)
    with xr.open_dataset(created, engine="mrc") as ds:
        assert ds.z.values[:2].tolist() == [8, 12]


def test_steps_that_a_header_has_no_field_for_are_written_as_coordinates(tmp_path: Path) -> None:
    data = xr.DataArray(DATA.reshape(3, 4, 3, 4), dims=SCAN)
    with pytest.warns(MrcWarning, match="the coordinates scan_x, kx"):
        to_mrc(data, tmp_path / "scan.mrc", voxel_size=STEPS)
    path = tmp_path / "scan.mrcz"
    to_mrc(data, path, voxel_size=STEPS)
    found = {"scan_x": (0, 5, "angstrom"), "kx": (0, 0.01, "1/nm")}
    with xr.open_dataset(path, engine="mrc") as ds:
        assert grid(ds) == found
    # the names that a file stores are accepted as well
    steps = {"scan_y": (2, "nm"), "ky": (0.1, "1/nm"), "kx": (3, "nm")}
    with xr.open_dataset(path, engine="mrc", voxel_size=steps) as ds:
        assert grid(ds) == {
            "scan_y": (0, 20, "angstrom"), "scan_x": found["scan_x"],
            "ky": (0, 0.1, "1/nm"), "kx": (0, 30, "angstrom"),
        }  # fmt: skip
    with pytest.raises(MrcError, match=r"for k, .*; accepted: a mapping of 'scan_y', "):
        xr.open_dataset(path, engine="mrc", voxel_size={"k": 2})
