"""Labels: dimensions, coordinates, units and attrs, also after computation and in other files."""

from __future__ import annotations

import io
import json
import struct
from decimal import Decimal
from pathlib import Path
from typing import Any

import blosc
import by_hand
import mrcfile
import numpy as np
import pytest
import xarray as xr

from mrc_xarray import to_mrc
from mrc_xarray.labels.dataset import to_dataset
from mrc_xarray.metadata.columns import Column, Value
from mrc_xarray.mrc import reading
from mrc_xarray.options import OpenOptions
from mrc_xarray.recording import Dimension, Recording
from mrc_xarray.storage import MemorySource

SHAPE = (2, 3, 4)
DATA = np.arange(24, dtype="i2").reshape(SHAPE)
# 2.5 Å along x, 3 along y, 4 along z
CELL = {"cella": (10, 9, 8)}
IMOD = {"imod_stamp": by_hand.IMOD_STAMP}
STACK = {"ispg": 0, "mz": 1}


def opened(data: np.ndarray[Any, Any] = DATA, *, options: Any = None, **fields: Any) -> xr.Dataset:
    raw = by_hand.mrc(data, **({"cella": (10, 9, 8)} | fields))
    return xr.open_dataset(io.BytesIO(raw), engine="mrc", **(options or {}))


def first(ds: xr.Dataset) -> dict[str, float]:
    """Return where the first voxel is."""
    return {dim: ds[dim].item(0) for dim in ds.data.dims if dim in ds.coords}


@pytest.mark.parametrize(
    ("units", "scale"), [("angstrom", 1), ("nm", 0.1), ("pm", 100), ("um", 1e-4)]
)
def test_coordinates(units: str, scale: float) -> None:
    ds = opened(options={"units": units}, origin=(100, -20, 0))
    expected = {
        "x": ([100, 102.5, 105, 107.5], 2.5),
        "y": ([-20, -17, -14], 3),
        "z": ([0, 4], 4),
    }
    for dim, (positions, spacing) in expected.items():
        coord = ds[dim]
        assert coord.dtype == np.float64
        assert coord.dims == (dim,)
        np.testing.assert_allclose(coord, np.array(positions) * scale, rtol=1e-14)
        assert coord.attrs == {
            "units": units,
            "long_name": f"{dim} position",
            "spacing": pytest.approx(spacing * scale),
        }  # fmt: skip
        assert type(coord.attrs["spacing"]) is float
    assert ds.mrc.voxel_size == pytest.approx({"x": 2.5, "y": 3, "z": 4})


@pytest.mark.parametrize(
    "fields", [{}, {"mx": 5, "my": 6, "mz": 16}, {"ispg": 401, "mz": 2}, STACK], ids=str
)
def test_voxel_size_as_mrcfile_has_it(tmp_path: Path, fields: dict[str, Any]) -> None:
    path = tmp_path / "file.mrc"
    path.write_bytes(by_hand.mrc(np.zeros((4, 5, 7), "f4"), **({"cella": (9, 8, 7)} | fields)))
    with mrcfile.open(path) as mrc, xr.open_dataset(path, engine="mrc") as ds:
        expected = {axis: float(mrc.voxel_size[axis]) for axis in "xyz"}
        assert ds.mrc.voxel_size == pytest.approx(expected, rel=1e-6)


# origin rules: fields, argument → first voxel along x, y, z
ORIGINS: dict[str, tuple[dict[str, Any], str, tuple[float, float, float]]] = {
    "none": ({}, "auto", (0, 0, 0)),
    "ORIGIN": ({"origin": (1, -2, 3)}, "auto", (1, -2, 3)),
    "ORIGIN with two zeros": (
        {"origin": (0, 0, 3), "nxstart": 1, "nystart": 1, "nzstart": 1}, "auto", (0, 0, 3),
    ),
    "ORIGIN is a decimal": ({"origin": (-3.3, 0.1, 1e4 / 3)}, "auto", (-3.3, 0.1, 3333.3333)),
    "ORIGIN is rounding": (
        {"origin": (1e-7, -3.6e-43, 0), "nxstart": 2}, "auto", (5, 0, 0),
    ),
    "ORIGIN is N*START": (
        {
            "origin": (4091 * 0.83, 4025 * 1.0537, -7000 * 1.0537),
            "cella": (4 * 0.83, 3 * 1.0537, 2 * 1.0537),
            "nxstart": 4091, "nystart": 4025, "nzstart": -7000,
        }, "auto", (3395.53, 4241.1425, -7375.9),
    ),
    "N*START": ({"nxstart": -1, "nystart": 2, "nzstart": 3}, "auto", (-2.5, 6, 12)),
    "N*START by argument": (
        {"origin": (1, 2, 3), "nxstart": -1, "nystart": 2, "nzstart": 3}, "nstart", (-2.5, 6, 12),
    ),
    "ORIGIN by argument": ({"origin": (0, 0, 0), "nxstart": 2}, "origin", (0, 0, 0)),
    "zero by argument": ({"origin": (1, 2, 3), "nxstart": 2}, "zero", (0, 0, 0)),
    "IMOD": ({**IMOD, "imod_flags": 3, "origin": (1, 0, 3)}, "auto", (-1, 0, -3)),
    "IMOD, flag 4 among others": (
        {**IMOD, "imod_flags": 13, "origin": (1, -2, 0)}, "auto", (1, -2, 0),
    ),
    "IMOD by argument": ({**IMOD, "origin": (1, -2, 3)}, "origin", (-1, 2, -3)),
    "IMOD, N*START": ({**IMOD, "nxstart": 2}, "auto", (5, 0, 0)),
    "flag 4 without the stamp": ({"imod_flags": 4, "origin": (1, -2, 3)}, "auto", (1, -2, 3)),
}  # fmt: skip


@pytest.mark.parametrize("case", ORIGINS)
def test_origin(case: str) -> None:
    fields, choice, expected = ORIGINS[case]
    ds = opened(options={"origin": choice}, **fields)
    assert first(ds) == dict(zip("xyz", expected, strict=True))
    assert not any(np.signbit(v) for v in first(ds).values() if v == 0)


@pytest.mark.parametrize(("units", "factor"), [("angstrom", 1), ("nm", 10), ("pm", 0.01)])
def test_positions_are_the_decimal_numbers(units: str, factor: float) -> None:
    ds = opened(options={"units": units}, cella=(4 * 13.48, 3 * 1.0537, 2 * 3.3702))
    assert [float(repr(v)) for v in ds.mrc.voxel_size.values()] == [3.3702, 1.0537, 13.48]
    for dim, voxel in (("x", 13.48), ("y", 1.0537), ("z", 3.3702)):
        # Decimal has no rounding errors
        step = Decimal(str(voxel)) / Decimal(str(factor))
        assert ds[dim].values.tolist() == [float(i * step) for i in range(ds.sizes[dim])]
        assert ds[dim].attrs["spacing"] == float(step)
        assert ds[dim].sel({dim: float(step)}).item() == float(step)
    assert ds.isel(x=slice(None, None, 2)).mrc.voxel_size["x"] == 26.96
    assert ds.isel(y=[1, 2]).mrc.voxel_size["y"] == 1.0537


@pytest.mark.parametrize("origin", [0, 123.4, -7654.32, "centre"])
@pytest.mark.parametrize(("voxel", "n"), [(13.48, 100), (1.0537, 4092), (0.8537755, 8192)])
def test_a_part_has_the_positions_of_the_volume(voxel: float, n: int, origin: float | str) -> None:
    """MX and CELLA of the part are those of its own voxels; N*START and ORIGIN are moved."""
    first = -n / 2 * voxel if isinstance(origin, str) else origin
    for units in ("angstrom", "nm"):
        cell, at = {"cella": (n * voxel, 9, 9)}, {"origin": (first, 0, 0)}
        volume = opened(np.zeros((1, 1, n), "i1"), options={"units": units}, **cell, **at)
        for start, stop in ((n - 67, n - 10), (1, 3), (n // 2 - 1, n // 2)):
            part = opened(
                np.zeros((1, 1, stop - start), "i1"), options={"units": units},
                cella=((stop - start) * voxel, 9, 9), nxstart=start,
                origin=(first + start * voxel, 0, 0),
            )  # fmt: skip
            assert part.x.values.tolist() == volume.x.values[start:stop].tolist()
            assert part.mrc.voxel_size["x"] == volume.mrc.voxel_size["x"] == voxel


def with_skew(
    order: str, flag: int, matrix: list[float], moved: list[float], **fields: Any
) -> Any:
    raw = bytearray(by_hand.mrc(DATA, byteorder=order, **CELL, **fields))
    struct.pack_into(f"{order}i12f", raw, 96, flag, *matrix, *moved)
    return xr.open_dataset(io.BytesIO(raw), engine="mrc")


IDENTITY = [1, 0, 0, 0, 1, 0, 0, 0, 1]
TURNED = [0, 1, 0, -1, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("order", ["<", ">"])
def test_skew_without_rotation_is_an_origin(order: str) -> None:
    moved = [1.2, -3.4, 5.6]
    for flag, matrix, fields, expected in (
        (1, IDENTITY, {}, moved),
        (1, IDENTITY, {"nxstart": 2}, [5, 0, 0]),
        (1, IDENTITY, {"origin": (0, 0, 3)}, [0, 0, 3]),
        (1, TURNED, {}, [0, 0, 0]),
        (1, [*IDENTITY[:8], np.nan], {}, [0, 0, 0]),
        (0, IDENTITY, {}, [0, 0, 0]),
    ):
        ds = with_skew(order, flag, matrix, moved, **fields)
        assert list(first(ds).values())[::-1] == expected, (flag, matrix, fields)
        assert not {"voltage_kV", "c3_mm", "gain_e_per_DN"} & set(ds.data.attrs)


def test_sections_of_a_stack_have_no_origin() -> None:
    ds = opened(**STACK, origin=(1, 2, 3), nzstart=7)
    assert first(ds) == {"y": 2, "x": 1}
    assert ds.section.values.tolist() == [0, 1]


AXES = {"x": 1, "y": 2, "z": 3}


@pytest.mark.parametrize("order", ["zxy", "yzx", "xyz"])
def test_permuted_axes_name_the_dimensions(order: str) -> None:
    """MX, CELLA and ORIGIN are in X, Y, Z; N*START are of columns, rows, sections."""
    sizes = dict(zip(order, SHAPE, strict=True))
    voxel = {"x": 2.5, "y": 3.0, "z": 4.0}
    fields: dict[str, Any] = {
        "maps": AXES[order[0]], "mapr": AXES[order[1]], "mapc": AXES[order[2]],
        **{f"m{axis}": sizes[axis] for axis in "xyz"},
        "cella": tuple(voxel[axis] * sizes[axis] for axis in "xyz"),
    }  # fmt: skip
    ds = opened(**fields, origin=(1, 2, 3))
    assert ds.data.dims == tuple(order)
    np.testing.assert_array_equal(ds.data, DATA)
    assert ds.mrc.voxel_size == voxel
    assert first(ds) == {"x": 1, "y": 2, "z": 3}

    ds = opened(**fields, nxstart=5, nystart=6, nzstart=7)
    starts = dict(zip(order, (7, 6, 5), strict=True))
    assert first(ds) == {axis: starts[axis] * voxel[axis] for axis in "xyz"}


@pytest.mark.parametrize(("cella", "coords"), [((0, 0, 0), []), ((10, 9, 0), ["x", "y"])])
def test_unknown_voxel_size_is_no_coordinate(cella: tuple[float, ...], coords: list[str]) -> None:
    ds = opened(cella=cella, origin=(1, 2, 3), nxstart=1)
    assert sorted(ds.coords) == sorted(ds.indexes) == coords
    assert sorted(ds.mrc.voxel_size) == coords


@pytest.mark.parametrize("units", ["angstrom", "nm"])
def test_a_single_voxel_has_a_position_and_a_size(tmp_path: Path, units: str) -> None:
    ds = opened(options={"units": units}, origin=(100, -20, 8))
    one = ds.isel(x=[2], y=slice(1, 2))
    to_mrc(one, tmp_path / "one.mrc")
    with xr.open_dataset(tmp_path / "one.mrc", engine="mrc", units=units) as again:
        for dim in "xyz":
            np.testing.assert_allclose(again[dim], one[dim], rtol=1e-6)
            assert again[dim].attrs["spacing"] == pytest.approx(one[dim].attrs["spacing"])
        assert again.mrc.voxel_size == pytest.approx(ds.mrc.voxel_size)


@pytest.mark.parametrize(
    ("options", "dims"),
    [
        ({}, ("image",)),
        ({"sections_per_frame": 3}, ("image", "channel")),
        ({"dims": ("tilt", "row", "column")}, ("tilt",)),
    ],
)
def test_section_coordinate(options: dict[str, Any], dims: tuple[str, ...]) -> None:
    ds = opened(np.zeros((6, 3, 4), "i2"), options=options, **STACK)
    assert ds.section.dtype == np.int64
    assert ds.section.dims == dims
    assert ds.section.values.ravel().tolist() == list(range(6))
    assert ds.data.isel({dims[0]: [-1, 0]}).section.values.ravel()[-1] in (0, 2)


def test_scan_positions_have_neither_coordinate_nor_section() -> None:
    ds = opened(options={"scan_shape": (1, 2)}, origin=(1, 2, 3))
    assert first(ds) == {"y": 2, "x": 1}
    assert "section" not in ds.coords


def test_own_names_of_dimensions() -> None:
    ds = opened(options={"dims": ("depth", "row", "column")}, origin=(1, 2, 3))
    assert ds.data.dims == ("depth", "row", "column")
    assert first(ds) == {"depth": 3, "row": 2, "column": 1}
    assert ds.mrc.voxel_size == {"depth": 4, "row": 3, "column": 2.5}
    raw = by_hand.mrc(np.zeros((2, 3, 4, 3), "u1"), 16, shape=SHAPE)
    ds = xr.open_dataset(io.BytesIO(raw), engine="mrc", dims=["a", "b", "c", "colour"])
    assert ds.data.dims == ("a", "b", "c", "colour")


@pytest.mark.parametrize("dims", [("a", "b"), ("a", "a", "b"), (1, 2, 3), "abc"])
def test_dims_that_do_not_fit(dims: Any) -> None:
    with pytest.raises(ValueError, match=r"dims is .*; accepted: 3 different names, for z, y, x"):
        opened(options={"dims": dims})


def test_attrs_are_what_files_can_store() -> None:
    for ds in (opened(), opened(np.zeros(SHAPE, "i1")), opened(**STACK)):
        for attrs in (ds.data.attrs, *(coord.attrs for coord in ds.coords.values())):
            assert all(isinstance(value, str | float | int) for value in attrs.values())


def test_attrs_say_what_the_file_is(tmp_path: Path) -> None:
    path = tmp_path / "file.mrc"
    path.write_bytes(by_hand.mrc(DATA))
    with xr.open_dataset(path, engine="mrc") as ds:
        attrs = ds.data.attrs
        assert attrs["mrc_source"] == str(path)
        assert attrs["mrc_layout"] == "volume"
        assert attrs["mrc_layout_rule"].startswith("5")
        assert json.loads(attrs["mrc_header"])["nx"] == ds.mrc.header["NX"] == 4
        assert ds.data.mrc.header == ds.mrc.header
        assert ds.mrc.metadata == ds.attrs == {}
        assert sorted(ds.indexes) == sorted(ds.coords) == ["x", "y", "z"]


def test_fields_of_mrcz_are_read_in_its_own_files() -> None:
    names = {"voltage_kV", "c3_mm", "gain_e_per_DN"}
    fields = {"voltage": 300, "c3": 2.7, "gain": 1}
    assert not names & set(opened(**fields).data.attrs)
    for labels in ((b"MRCZ0.6.0",), (b"another", b"mrc_xarray 0.1")):
        assert names <= set(opened(**fields, labels=labels).data.attrs)
        # but a skew transformation is in their place
        skew = with_skew("<", 1, TURNED, [300, 2.7, 1], labels=labels)
        assert not names & set(skew.data.attrs)
    # NVERSION and no matrix
    assert names <= set(opened(**fields, lskflg=1, labels=(b"MRCZ0.6.0",)).data.attrs)
    raw = by_hand.header(SHAPE, 1001, **fields) + b"".join(map(blosc.compress, DATA))
    assert names <= set(xr.open_dataset(io.BytesIO(raw), engine="mrc").data.attrs)


def test_no_header_without_a_file() -> None:
    da = xr.DataArray([1, 2], dims="x")
    with pytest.raises(AttributeError, match="not opened with engine='mrc'"):
        _ = da.mrc.header
    with pytest.raises(AttributeError, match="mrc_header"):
        _ = xr.Dataset({"other": da}).mrc.header
    assert da.mrc.metadata == {}
    assert da.mrc.voxel_size == {}


@pytest.mark.parametrize("units", ["angstrom", "nm"])
def test_voxel_size_after_selection(units: str) -> None:
    ds = opened(np.zeros((6, 8, 9), "i2"), cella=(18, 24, 24), options={"units": units})
    for obj in (ds, ds.data):
        voxel = {
            "all": obj.mrc.voxel_size,
            "strided": obj.isel(x=slice(None, None, 2), y=slice(1, None, 3)).mrc.voxel_size,
            "reversed": obj.isel(z=slice(None, None, -1)).mrc.voxel_size,
            "coarse": obj.coarsen(x=3, y=2, z=1).mean().mrc.voxel_size,
            "thin": obj.isel(z=[2], x=slice(1, 2)).mrc.voxel_size,
            "irregular": obj.isel(x=[0, 1, 5]).mrc.voxel_size,
            "no z": obj.isel(z=2).mrc.voxel_size,
            "mean": obj.mean("y", keep_attrs=True).mrc.voxel_size,
            # a single position has the spacing that it was opened with
            "one": obj.coarsen(x=9).mean().mrc.voxel_size,
        }
        expected = {
            "all": {"z": 4, "y": 3, "x": 2},
            "strided": {"z": 4, "y": 9, "x": 4},
            "reversed": {"z": 4, "y": 3, "x": 2},
            "coarse": {"z": 4, "y": 6, "x": 6},
            "thin": {"z": 4, "y": 3, "x": 2},
            "irregular": {"z": 4, "y": 3},
            "no z": {"y": 3, "x": 2},
            "mean": {"z": 4, "x": 2},
            "one": {"z": 4, "y": 3, "x": 2},
        }
        assert voxel == {name: pytest.approx(value) for name, value in expected.items()}


def test_attrs_are_preserved_by_arithmetic() -> None:
    ds = opened(**STACK, nversion=20140)
    for obj in (
        (ds.data * 2 + 1).astype("f4"),
        ds.data - ds.data.mean(),
        ds.data[0].T,
        np.sqrt(ds.data),
        (ds * 2).data,
        ds.data.mean("image"),
        xr.concat([ds.data, ds.data], "image"),
    ):
        assert obj.mrc.header == ds.mrc.header
        of_sections = {"z": 8} if "image" in obj.dims else {}
        assert obj.mrc.voxel_size == {"y": 3, "x": 2.5} | of_sections
        assert obj.attrs["mrc_layout"] == "image_stack"
    assert (ds.data[1] * 2).section.item() == 1


# netCDF has no type for complex numbers and float16
@pytest.mark.parametrize(
    ("dtype", "suffix"), [("c8", "zarr"), ("f2", "zarr"), ("i1", "nc"), ("u4", "nc"), ("f4", "nc")]
)
def test_other_formats(tmp_path: Path, dtype: str, suffix: str) -> None:
    raw = by_hand.mrc(DATA.astype(dtype), byteorder=">", origin=(1, 2, 3), **STACK)
    stored = tmp_path / f"file.{suffix}"
    with xr.open_dataset(io.BytesIO(raw), engine="mrc") as ds:
        if suffix == "zarr":
            # consolidated metadata are not in the Zarr 3 specification, and zarr warns
            ds.to_zarr(stored, consolidated=False)
            again = xr.open_zarr(stored, chunks=None, consolidated=False)
        else:
            ds.to_netcdf(stored)
            again = xr.open_dataset(stored)
        with again:
            xr.testing.assert_identical(again.load(), ds.load())
            assert again.data.dtype == ds.data.dtype
            assert again.mrc.header == ds.mrc.header
            assert again.mrc.voxel_size == ds.mrc.voxel_size


def test_a_stored_computation_has_the_header_of_its_file(tmp_path: Path) -> None:
    (opened().data / 2).to_netcdf(tmp_path / "half.nc")
    with xr.open_dataarray(tmp_path / "half.nc") as da:
        np.testing.assert_array_equal(da, DATA / 2)
        assert da.mrc.header.nx == 4
        assert da.mrc.voxel_size == {"z": 4, "y": 3, "x": 2.5}


def test_a_reader_of_any_format_returns_a_recording() -> None:
    """Labels do not depend on MRC: a reader of another format sets the fields that it has."""
    source = MemorySource(by_hand.mrc(DATA))
    recording = Recording(
        name="image.dm4",
        sections=reading.read(source).sections,
        dims=(
            Dimension(name="tilt", size=2),
            Dimension(name="ky", size=3, start=-1.5, step=1.23456789, unit="1/nm"),
            Dimension(name="x", size=4, start=1e-9, step=2e-9, unit="m"),
        ),
        columns=(Column("tilt_angle", np.array([0, np.pi / 2]), "rad"),),
        values={"voltage": Value(200_000, "V"), "camera": Value("K3")},
        metadata={"key": [1]},
        attrs={"dm_version": 4},
    )
    ds = to_dataset(recording, source, OpenOptions(units="nm"))
    np.testing.assert_array_equal(ds.data, DATA)
    assert ds.data.dims == ("tilt", "ky", "x")
    np.testing.assert_allclose(ds.tilt_angle, [0, 90])
    # only positions in Å are rounded
    assert ds.ky.values.tolist() == [-1.5, -1.5 + 1.23456789, -1.5 + 2 * 1.23456789]
    np.testing.assert_allclose(ds.x, [1, 3, 5, 7])
    assert (ds.ky.attrs["units"], ds.x.attrs["units"]) == ("1/nm", "nm")
    assert set(ds.coords) == {"ky", "x", "tilt_angle"}
    assert ds.data.attrs == {
        "mrc_source": "image.dm4", "dm_version": 4, "mrc_metadata": '{"key": [1]}',
        "voltage_kV": 200.0, "camera": "K3",
    }  # fmt: skip
