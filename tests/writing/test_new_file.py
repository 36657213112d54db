"""The header of a new file, from the labels of the data."""

from __future__ import annotations

import re
import struct
import warnings
from pathlib import Path
from typing import Any

import by_hand
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from writes import (
    check_plain,
    check_validity,
    extended,
    field,
    fields,
    kinds,
    labelled,
    labels,
    noise,
    opened,
    source,
    unwarned,
    warned,
)

from mrc_xarray import MrcError, MrcWarning, to_mrc

NAN, INF = float("nan"), float("inf")


# dimensions, shape → NX NY NZ, MX MY MZ, MAPC MAPR MAPS, ISPG
HEADERS = [
    (("y", "x"), (4, 5), (5, 4, 1), (5, 4, 1), (1, 2, 3), 0),
    (("image", "y", "x"), (3, 4, 5), (5, 4, 3), (5, 4, 1), (1, 2, 3), 0),
    (("z", "y", "x"), (3, 4, 5), (5, 4, 3), (5, 4, 3), (1, 2, 3), 1),
    (("z", "x", "y"), (3, 4, 5), (5, 4, 3), (4, 5, 3), (2, 1, 3), 1),
    (("y", "z", "x"), (3, 4, 5), (5, 4, 3), (5, 3, 4), (1, 3, 2), 1),
    (("y", "x", "z"), (3, 4, 5), (5, 4, 3), (4, 3, 5), (3, 1, 2), 1),
    (("x", "z", "y"), (3, 4, 5), (5, 4, 3), (3, 5, 4), (2, 3, 1), 1),
    (("x", "y", "z"), (3, 4, 5), (5, 4, 3), (3, 4, 5), (3, 2, 1), 1),
    (("volume", "z", "y", "x"), (2, 3, 4, 5), (5, 4, 6), (5, 4, 3), (1, 2, 3), 401),
]


@pytest.mark.parametrize(("dims", "shape", "n", "m", "axes", "ispg"), HEADERS)
def test_header_from_labels(
    path: Path, dims: Any, shape: Any, n: Any, m: Any, axes: Any, ispg: int
) -> None:
    voxel, first = {"x": 1.5, "y": 2.0, "z": 4.0}, {"x": -3.0, "y": 7.0, "z": 100.0}
    pixels = noise(shape)
    to_mrc(labelled(pixels, dims, voxel, first), path)
    assert fields(path, "nx", "ny", "nz") == n
    assert fields(path, "mx", "my", "mz") == m
    assert fields(path, "mapc", "mapr", "maps") == axes
    assert fields(path, "nxstart", "nystart", "nzstart") == (0, 0, 0)
    assert fields(path, "ispg", "mode", "nsymbt", "nversion") == (ispg, 2, 0, 20141)
    assert fields(path, "cellb", "map") == ((90, 90, 90), b"MAP ")
    (cella, origin) = fields(path, "cella", "origin")
    for i, axis in enumerate("xyz"):
        if axis in dims:
            assert cella[i] == voxel[axis] * m[i]
            assert origin[i] == first[axis]
    assert path.read_bytes()[212:216] == by_hand.STAMPS["<"]
    check_plain(path, pixels)


def test_unknown_dimensions_are_known_by_their_place(path: Path) -> None:
    """The last is x, the one in front of it y, and a single one in front of these z."""
    data = labelled(noise((3, 4, 5)), voxel={"z": 4.0, "y": 2.0, "x": 1.5}, first=7.0)
    message = warned(data.rename(z="a", y="b", x="c"), path)
    assert re.search(r"\(a, b, c\), which open as \(z, y, x\)", message)
    expected = ((3, 4, 5)[::-1], (7.5, 8, 12), (7, 7, 7), 1)
    assert (fields(path, "nx", "ny", "nz"), *fields(path, "cella", "origin", "ispg")) == expected
    unlabelled = xr.DataArray(noise((3, 4, 5)), dims=("a", "b", "c"))
    warned(unlabelled, path, voxel_size={"b": 3.0}, overwrite=True)
    assert field(path, "cella") == (0, 12, 0)


@pytest.mark.parametrize(
    ("units", "angstroms"),
    [
        ("Angstrom", 1), ("\u212b", 1), ("nanometers", 10), ("pm", 0.01), ("\u03bcm", 1e4),
    ],
)  # fmt: skip
def test_units(path: Path, units: str, angstroms: float) -> None:
    data = labelled(noise((4, 5)), ("y", "x"), 0.5, {"x": -2.0, "y": 3.0}, units)
    # each coordinate has its own units
    data["y"].attrs["units"] = "angstrom"
    to_mrc(data, path)
    np.testing.assert_allclose(field(path, "cella")[:2], [2.5 * angstroms, 2], 1e-6)
    np.testing.assert_allclose(field(path, "origin")[:2], [-2 * angstroms, 3], 1e-6)


def test_single_position_has_its_spacing(path: Path) -> None:
    data = labelled(noise((1, 1, 5)), ("z", "y", "x"), {"z": 4.0, "y": 3.0, "x": 2.0}, 6.0, "nm")
    to_mrc(data, path)
    assert field(path, "cella") == (100, 30, 40)
    assert field(path, "origin") == (60, 60, 60)
    assert opened(path).data.dims == ("z", "y", "x")


def test_selected_section_is_still_a_volume(path: Path, tmp_path: Path) -> None:
    """Its spacing is that of the source."""
    to_mrc(source(tmp_path, noise((4, 5, 6)), cella=(12, 10, 12)).isel(z=[2]), path)
    ds = opened(path)
    assert ds.data.dims == ("z", "y", "x")
    assert ds.mrc.voxel_size == pytest.approx({"z": 3, "y": 2, "x": 2})
    assert ds.z.item() == pytest.approx(6)


def test_coarsened_data_have_larger_voxels(path: Path, tmp_path: Path) -> None:
    ds = source(tmp_path, noise((4, 6, 8)), cella=(16, 12, 8))
    data = ds.data.coarsen(z=2, y=2, x=2).mean()
    to_mrc(data, path)
    assert field(path, "cella") == (16, 12, 8)
    assert field(path, "origin") == (1, 1, 1)
    np.testing.assert_array_equal(opened(path).data, data)


@unwarned
@kinds
def test_averaged_to_one_voxel_the_size_is_unknown(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"b{suffix}"
    data = source(tmp_path, noise((4, 4, 4)), cella=(8, 8, 8)).data
    to_mrc(data.coarsen(z=4).mean(), path, mode=2)
    assert field(path, "cella")[2] == 0
    to_mrc(data[1:2], path, overwrite=True)
    assert field(path, "cella")[2] == 2


@pytest.mark.parametrize(
    ("voxel_size", "cella"),
    [
        (3.0, (15, 12, 9)),
        (2, (10, 8, 6)),
        ({"x": 1, "y": 2.0, "z": 0.5}, (5, 8, 1.5)),
        ({"z": 5}, (350, 280, 15)),
    ],
)
def test_voxel_size_overrides_coordinates(path: Path, voxel_size: Any, cella: Any) -> None:
    pixels = noise((3, 4, 5))
    data = pixels if voxel_size == 2 else labelled(pixels, voxel=7.0, units="nm")
    to_mrc(data, path, voxel_size=voxel_size)
    assert field(path, "cella") == cella
    np.testing.assert_array_equal(opened(path).data, pixels)


@pytest.mark.parametrize("voxel_size", [0, INF, {"z": NAN}, {"t": 1}])
def test_bad_voxel_size_is_refused(path: Path, voxel_size: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="voxel_size"):
        to_mrc(noise((3, 4, 5)), path, voxel_size=voxel_size)
    assert not path.exists()


def test_hint_on_too_few_axes_works(path: Path) -> None:
    rows = xr.DataArray(noise((3, 5)), dims=("image", "x"))
    with pytest.raises(MrcError, match=r"data\.rename\(image='y'\) makes an axis"):
        to_mrc(rows, path)
    to_mrc(rows.rename(image="y"), path)
    np.testing.assert_array_equal(opened(path).data, rows)


@pytest.mark.parametrize(
    "positions",
    [lambda n: np.arange(n) ** 2.0, lambda n: -2.0 * np.arange(n), lambda n: np.zeros(n),
     lambda n: np.where(np.arange(n) == 1, NAN, np.arange(n)), lambda n: np.full(n, NAN),
     lambda n: np.roll(np.arange(n), 1)],
    ids=["irregular", "decreasing", "equal", "nan", "all nan", "not in order"],
)  # fmt: skip
@unwarned
def test_hints_on_a_coordinate_work(path: Path, positions: Any) -> None:
    """Each is followed to the letter, and gives a file with the pixels and positions it says."""
    data = labelled(noise((4, 5, 6)), ("z", "y", "x"))
    data = data.assign_coords({"y": ("y", positions(5), {"units": "nm"})})
    with pytest.raises(MrcError, match=r"the coordinate y") as caught:
        to_mrc(data, path)
    assert not path.exists()
    message = str(caught.value)
    hints = re.findall(r"data\.(?:\w+\('y'\)|assign_coords\({.*?}\))", message)
    assert len(hints) == message.count("data.")
    for hint in hints:
        fixed = eval(hint, {"data": data})
        to_mrc(fixed, path, overwrite=True)
        again = opened(path, units="nm").data
        np.testing.assert_array_equal(again, fixed)
        assert ("y" in again.coords) == ("y" in fixed.coords)
        if "y" in fixed.coords:
            np.testing.assert_allclose(again.y, fixed.y)
            assert fixed.y.attrs["units"] == "nm"
    if "voxel_size={'y': ...}" in message:
        to_mrc(data, path, voxel_size={"y": 20.0}, overwrite=True)
        assert field(path, "cella")[1] == 100


@unwarned
def test_irregular_coordinate_with_voxel_size(path: Path) -> None:
    data = labelled(noise((4, 5, 6)), ("z", "y", "x"))
    bad = data.assign_coords(z=("z", [0.0, 1.0, 4.0, 9.0], {"units": "angstrom"}))
    to_mrc(bad, path, voxel_size={"z": 2})
    assert field(path, "cella") == (15, 12.5, 8)


def test_coordinate_that_went_through_float32_is_regular(path: Path) -> None:
    data = labelled(noise((4, 500)), ("y", "x"), 1.1, 1234.5)
    narrow = data.assign_coords(x=("x", data.x.values.astype("f4"), data.x.attrs))
    to_mrc(narrow, path)
    assert field(path, "cella")[0] == pytest.approx(550, rel=1e-5)


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (1e7 + np.array([0, 10, 20, 35, 40, 50.0]), {}, "x is not regular"),
        (np.arange(6)[::-1] * 10.0, {"voxel_size": 10}, "x decreases"),
        (1e12 + np.arange(6.0), {}, "beyond 10 cm"),
    ],
)
def test_positions_that_no_header_holds(
    path: Path, x: Any, options: dict[str, Any], message: str
) -> None:
    coords = {"x": ("x", x, {"units": "angstrom"})}
    data = xr.DataArray(noise((4, 6)), dims=("y", "x"), coords=coords)
    with pytest.raises(MrcWarning if "cm" in message else MrcError, match=message):
        to_mrc(data, path, **options)


def test_scan_image_is_an_image(path: Path) -> None:
    """What a virtual detector measures has a pixel for each position of the scan."""
    coords = {
        dim: (dim, 0.5 * np.arange(n), {"units": "nm"})
        for dim, n in (("scan_y", 3), ("scan_x", 4))
    }
    data = xr.DataArray(noise((3, 4)), coords, ("scan_y", "scan_x"))
    assert "(scan_y, scan_x), which open as (y, x)" in warned(data, path)
    assert fields(path, "ispg", "cella") == (0, (20, 15, 0))
    assert opened(path).mrc.voxel_size == {"y": 5, "x": 5}
    # the axes have the same meaning
    warned(data.T, path, overwrite=True)
    assert fields(path, "mapc", "mapr", "maps") == (2, 1, 3)


def test_scan_image_of_a_file_has_not_the_pixels_of_its_frames(path: Path, tmp_path: Path) -> None:
    source(tmp_path, noise((6, 4, 5)), ispg=0, mz=1, nxstart=2, cella=(10, 8, 1))
    scan = opened(tmp_path / "source.mrc", scan_shape=(2, 3)).data
    image = scan.sum(("y", "x"), keep_attrs=True)
    coords = {a: (a, 2.0 * np.arange(n), {"units": "angstrom"}) for a, n in image.sizes.items()}
    assert "mrc_header" in image.attrs
    warned(image.assign_coords(coords), path)
    assert fields(path, "cella", "origin", "nxstart", "mx") == ((6, 4, 0), (0, 0, 0), 0, 3)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("a.zarr", "to_zarr"), ("a.nc", "to_netcdf"), ("a.TIF", "tifffile"), ("a.h5", "h5py"),
        ("a.npy.gz", "numpy.save"), ("a.dm4", "another package"), ("memory://a/b.zarr", "convert"),
    ],
)  # fmt: skip
def test_name_of_another_format_is_refused(tmp_path: Path, name: str, hint: str) -> None:
    target = name if "://" in name else tmp_path / name
    with pytest.raises(MrcError, match=rf"the file would be MRC.*{hint}"):
        to_mrc(noise((4, 5)), target)
    assert not any(tmp_path.iterdir())


def test_numbers_beyond_float32_are_refused_before_the_first_pixel(path: Path) -> None:
    with pytest.raises(MrcError, match="more than a header can hold"):
        to_mrc(da.ones((4, 5)).map_blocks(lambda b: 1 / 0, dtype="f4"), path, voltage=1e39)


# labels -----------------------------------------------------------------------------------------


def test_users_labels_are_added(path: Path) -> None:
    given = ["aligned", "x" * 80]
    to_mrc(noise((4, 5)), path, labels=given)
    found = labels(path)
    assert len(found) == 3
    assert [label for label in found if label in given] == given
    check_validity(path)


@unwarned
@pytest.mark.parametrize(("suffix", "first"), [(".mrc", []), (".mrcz", ["MRCZ0.6.0"])])
def test_labels_are_ten_at_most(tmp_path: Path, suffix: str, first: list[str]) -> None:
    path = tmp_path / f"result{suffix}"
    old = [f"old {k}" for k in range(10)]
    texts = (b"old 0", b"", *(label.encode() for label in old[1:9]))
    to_mrc(source(tmp_path, noise((3, 4, 5)), labels=texts), path, labels=["new"])
    found = labels(path)
    assert len(found) == 10
    # in their order, and as many as there is room for
    assert found[:9] == [*first, *old[: 8 - len(first)], "new"]


@unwarned
def test_labels_of_the_user_outlast_rewrites(tmp_path: Path) -> None:
    to_mrc(noise((4, 5)), tmp_path / "0.mrc", labels=["mine"])
    for k in range(4):
        to_mrc(opened(tmp_path / f"{k}.mrc"), tmp_path / f"{k + 1}.mrc")
        assert "mine" in labels(tmp_path / f"{k + 1}.mrc")
    check_validity(tmp_path / "4.mrc")


def test_too_many_labels_are_refused(path: Path) -> None:
    with pytest.raises(MrcError, match="10 labels; accepted: up to 9"):
        to_mrc(noise((4, 5)), path, labels=["x"] * 10)
    assert not path.exists()


# the crystal of the source -------------------------------------------------------------------


SYMMETRY = b"".join(
    text.ljust(80) for text in (b"X,  Y,  Z", b"-X+1/2, -Y, Z+1/2", b"-X, Y+1/2, -Z+1/2")
)
CRYSTAL: dict[str, Any] = {"ispg": 19, "cellb": (90, 100, 120), "exttyp": b"CCP4"}


def test_crystal_is_preserved_where_the_grid_is(path: Path, tmp_path: Path) -> None:
    data = source(tmp_path, noise((3, 4, 5)), extended=SYMMETRY, **CRYSTAL).data * 2
    to_mrc(data, path)
    assert fields(path, "ispg", "exttyp", "cellb") == (19, b"CCP4", (90, 100, 120))
    assert extended(path) == SYMMETRY
    check_plain(path, data.values)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.isel(z=slice(1, 3)),
        lambda data: data.coarsen(x=2, y=2, z=2).mean(),
    ],
)
@unwarned
def test_crystal_is_dropped_where_the_grid_changes(
    path: Path, tmp_path: Path, change: Any
) -> None:
    data = source(tmp_path, noise((4, 4, 4)), extended=SYMMETRY, **CRYSTAL).data
    to_mrc(change(data), path)
    assert fields(path, "ispg", "nsymbt") == (1, 0)
    check_validity(path)


def test_skew_and_symmetry_are_carried_together(path: Path, tmp_path: Path) -> None:
    raw = bytearray(by_hand.mrc(noise((3, 4, 5)), extended=b"X,  Y,  Z".ljust(80)))
    skew = struct.pack("<i12f", 1, *range(2, 14))
    raw[96:148] = skew
    (tmp_path / "source.mrc").write_bytes(raw)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MrcWarning)
        data = (opened(tmp_path / "source.mrc").data * 2).compute()
        # mrcz has the voltage in the same bytes, so it is dropped, with a warning
        attrs = data.attrs | {"voltage_kV": 200.0}
        to_mrc(data.assign_attrs(attrs), path)
    assert path.read_bytes()[96:148] == skew
    assert "voltage, C3 and gain" in warned(data, path, voltage=300, overwrite=True)
    assert path.read_bytes()[96:148] == skew
    assert path.read_bytes()[1024:1104] == raw[1024:1104]


def test_header_survives_arithmetic(path: Path, tmp_path: Path) -> None:
    cell: dict[str, Any] = {
        "exttyp": b"MRCO", "cellb": (90, 100, 110), "cella": (10, 8, 6), "origin": (1, 2, 3),
    }  # fmt: skip
    more = {"labels": (b"a long story",), "extended": b"secret" * 40} | cell
    data = (source(tmp_path, noise((3, 4, 5)), **more).data * 2).where(
        lambda values: values > 0, 0
    )
    to_mrc(data.to_dataset(name="other"), path)
    assert labels(path)[0] == "a long story"
    assert dict(zip(cell, fields(path, *cell), strict=True)) == cell
    assert extended(path) == b"secret" * 40
