"""What is written is what other programs read, and what comes back: plain files."""

from __future__ import annotations

import io
import itertools
import os
import re
import struct
import tempfile
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import by_hand
import dask
import dask.array as da
import mrcfile
import mrcz
import numpy as np
import pytest
import rsciio.mrc
import rsciio.mrcz
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import mrc_xarray
from mrc_xarray import MrcError, MrcWarning

Array = np.ndarray[Any, Any]
MiB = 1024**2
NAN, INF = float("nan"), float("inf")

# what is written → MODE, and what comes back
DTYPES = {
    "bool": (0, "i1"), "i1": (0, "i1"), "i2": (1, "i2"), "f4": (2, "f4"), "c8": (4, "c8"),
    "u1": (6, "u2"), "u2": (6, "u2"), "i4": (7, "i4"), "u4": (8, "u4"), "f2": (12, "f2"),
}  # fmt: skip
# modes that the oracles know
MRCFILE = {0, 1, 2, 4, 6, 12}
MRCZ = {0, 1, 2, 4, 6, 7, 8}
ORDERS = {"little": "<", "big": ">"}
UNDETERMINED = (0, -1, -2, -1)
# one of each unit, in Å
UNITS = {"angstrom": 1.0, "nm": 10.0, "pm": 0.01, "um": 1e4}

kinds = pytest.mark.parametrize("suffix", [".mrc", ".mrcz"])
# where another test looks at warnings
unwarned = pytest.mark.filterwarnings("ignore::mrc_xarray.MrcWarning")
# chunks smaller than what is offered are meant here
any_chunks = pytest.mark.filterwarnings("ignore:The specified chunks separate the stored chunks")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "result.mrc"


def noise(shape: tuple[int, ...], dtype: Any = "f4", seed: int = 0) -> Array:
    """Return values over the whole range of integers, and with imaginary parts if any."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    # mrcfile adds up squares of float16 as float16
    pixels = (1 if dtype == "f2" else 100) * rng.standard_normal(shape)
    return (pixels + 1j * pixels[::-1] if dtype.kind == "c" else pixels).astype(dtype)


def labelled(
    pixels: Any,
    dims: tuple[str, ...],
    voxel: float | dict[str, float] = 2.5,
    first: float | dict[str, float] = 0.0,
    units: str = "angstrom",
) -> xr.DataArray:
    """Give x, y and z a position; a single one has its spacing beside it."""
    coords = {}
    for dim, n in zip(dims, pixels.shape, strict=True):
        if dim in ("x", "y", "z"):
            step = voxel[dim] if isinstance(voxel, dict) else voxel
            start = first[dim] if isinstance(first, dict) else first
            attrs = {"units": units} | ({"spacing": step} if n == 1 else {})
            coords[dim] = (dim, start + step * np.arange(n), attrs)
    return xr.DataArray(pixels, coords, dims)


def opened(path: Path, **options: Any) -> xr.Dataset:
    with warnings.catch_warnings():
        # of extended headers of no known kind, which opening tells
        warnings.filterwarnings("ignore", ".*[Ee]xt", MrcWarning)
        return xr.open_dataset(path, engine="mrc", **options)


def field(path: Path, name: str, byteorder: str = "<") -> Any:
    """Return a header field from its bytes."""
    offset, code = by_hand.FIELDS[name]
    values = struct.unpack_from(byteorder + code, path.read_bytes(), offset)
    return values[0] if len(values) == 1 else values


def fields(path: Path, *names: str) -> tuple[Any, ...]:
    return tuple(field(path, name) for name in names)


def statistics(path: Path) -> tuple[float, ...]:
    return fields(path, "dmin", "dmax", "dmean", "rms")


def labels(path: Path) -> list[str]:
    """Return the texts, after a check that they come first and are counted."""
    raw = path.read_bytes()
    texts = [raw[at : at + 80].rstrip(b" \0").decode() for at in range(224, 1024, 80)]
    n = field(path, "nlabl")
    assert all(texts[:n])
    assert not any(texts[n:])
    return texts[:n]


def extended(path: Path) -> bytes:
    return path.read_bytes()[1024 : 1024 + field(path, "nsymbt")]


def read_by_rosettasciio(reader: Any, path: Path) -> dict[str, Any]:
    with warnings.catch_warnings():
        # it leaves the file to the garbage collector
        warnings.simplefilter("ignore", ResourceWarning)
        result: dict[str, Any] = reader.file_reader(str(path))[0]
    return result


def check_validity(path: Path) -> None:
    report = io.StringIO()
    assert mrcfile.validate(path, print_file=report), report.getvalue()


def check_plain(path: Path, pixels: Array, byteorder: str = "<", *, valid: bool = True) -> None:
    """Compare with what others read from a plain file."""
    with mrcfile.open(path) as mrc:
        assert mrc.data.dtype.newbyteorder("=") == pixels.dtype
        np.testing.assert_array_equal(mrc.data.reshape(pixels.shape), pixels)
    if valid:
        check_validity(path)
    # it reads all files as little-endian pixels, and 8 bits as unsigned
    if byteorder == "<":
        found = read_by_rosettasciio(rsciio.mrc, path)["data"]
        found = found.view("i1") if pixels.dtype == "i1" else found
        np.testing.assert_array_equal(np.reshape(found, pixels.shape), pixels)


# round trips ------------------------------------------------------------------------------------

LAYOUTS = [
    ("y", "x"),
    ("image", "y", "x"),
    ("image", "channel", "y", "x"),
    ("volume", "z", "y", "x"),
    *itertools.permutations("zyx"),
]
LEAST = {"image": 2, "channel": 2}
CHUNKINGS = ("numpy", "sections", "rows", "columns", "pairs", "everything")


class Case(NamedTuple):
    pixels: Array
    data: xr.DataArray
    voxel: dict[str, float]
    units: str
    byteorder: str
    suffix: str


@st.composite
def cases(draw: st.DrawFn) -> Case:
    suffix = draw(st.sampled_from([".mrc", ".mrcz"]))
    known = LAYOUTS if suffix == ".mrcz" else [dims for dims in LAYOUTS if "channel" not in dims]
    dims = draw(st.sampled_from(known))
    shape = tuple(draw(st.integers(LEAST.get(dim, 1), 5), label=dim) for dim in dims)
    dtypes = [t for t, (mode, _) in DTYPES.items() if suffix == ".mrc" or mode in MRCZ]
    pixels = noise(shape, draw(st.sampled_from(dtypes)), draw(st.integers(0, 99)))

    units = draw(st.sampled_from(sorted(UNITS)))
    lengths = st.floats(0.05, 500)
    places = st.one_of(st.just(0.0), st.floats(-1e5, 1e5), st.integers(-50, 50).map(float))
    # in Å
    voxel = {axis: draw(lengths) for axis in "xyz"}
    first = {axis: draw(places) for axis in "xyz"}
    scaled = [{a: length / UNITS[units] for a, length in of.items()} for of in (voxel, first)]
    data = labelled(pixels, dims, *scaled, units)

    sizes = dict.fromkeys(dims, -1)
    match draw(st.sampled_from(CHUNKINGS)):
        case "sections":
            sizes |= dict.fromkeys(dims[:-2], 1)
        case "rows":
            sizes[dims[-2]] = 2
        case "columns":
            sizes[dims[-1]] = 2
        case "pairs":
            sizes |= dict.fromkeys(dims[:-2], 2)
        case "everything":
            sizes = {dim: draw(st.integers(1, 3)) for dim in dims}
        case "numpy":
            sizes = {}
    data = data.chunk(sizes) if sizes else data
    return Case(pixels, data, voxel, units, draw(st.sampled_from(sorted(ORDERS))), suffix)


@settings(max_examples=200, deadline=None)
@given(cases())
def test_round_trip(case: Case) -> None:
    pixels, data, voxel, units, byteorder, suffix = case
    order = ORDERS[byteorder]
    mode, dtype = DTYPES[pixels.dtype.str[1:] if pixels.dtype.kind != "b" else "bool"]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, f"result{suffix}")
        with warnings.catch_warnings():
            if mode in (7, 8):
                warnings.simplefilter("ignore", MrcWarning)
            mrc_xarray.to_mrc(data, path, byteorder=byteorder)
        stored = pixels.astype(dtype)
        assert field(path, "mode", order) == mode + (6000 if suffix == ".mrcz" else 0)

        ds = opened(path, units=units)
        assert ds.data.dims == data.dims
        assert ds.data.dtype == stored.dtype
        np.testing.assert_array_equal(ds.data, stored)
        for dim in {"x", "y", "z"} & set(data.dims):
            given = data[dim].values
            size = np.abs(given).max() + given.size * voxel[dim] / UNITS[units]
            np.testing.assert_allclose(ds[dim], given, rtol=0, atol=4e-7 * size)
            assert ds.mrc.voxel_size[dim] == pytest.approx(voxel[dim], rel=1e-6)

        if suffix == ".mrc" and mode in MRCFILE:
            check_plain(path, stored, order)
            with mrcfile.open(path) as mrc:
                for dim in {"x", "y", "z"} & set(data.dims):
                    assert mrc.voxel_size[dim] == pytest.approx(voxel[dim], rel=1e-6)
        elif suffix == ".mrcz":
            found, header = mrcz.readMRC(path, endian={"<": "le", ">": "be"}[order])
            assert isinstance(found, list) == (data.ndim == 4)
            np.testing.assert_array_equal(np.reshape(found, stored.shape), stored)
            if data.dims[-2:] == ("y", "x"):
                expected = [voxel["y"], voxel["x"]]
                np.testing.assert_allclose(header["pixelsize"][1:], expected, rtol=1e-6)
                if data.dims == ("z", "y", "x"):
                    assert header["pixelsize"][0] == pytest.approx(voxel["z"], rel=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("byteorder", ORDERS)
@unwarned
def test_every_dtype_has_its_mode(path: Path, dtype: str, byteorder: str) -> None:
    pixels = noise((3, 4, 5), dtype)
    mode, decoded = DTYPES[dtype]
    assert mrc_xarray.to_mrc(pixels, path, byteorder=byteorder) is None
    order = ORDERS[byteorder]
    assert field(path, "mode", order) == mode
    stored = pixels.astype(np.dtype(decoded).newbyteorder(order))
    assert path.read_bytes()[1024:] == stored.tobytes()
    assert opened(path).data.dtype == np.dtype(decoded)
    if mode in MRCFILE:
        check_plain(path, pixels.astype(decoded), order)


@pytest.mark.parametrize(
    "twist",
    [
        lambda pixels: np.asfortranarray(pixels),
        lambda pixels: pixels.astype(">f4"),
        lambda pixels: pixels.astype("<f4"),
        lambda pixels: np.repeat(pixels, 2, axis=2)[:, :, ::2],
        lambda pixels: np.ascontiguousarray(pixels[::-1, ::-1, ::-1])[::-1, ::-1, ::-1],
        lambda pixels: np.moveaxis(np.moveaxis(pixels, 0, 2).copy(), 2, 0),
        lambda pixels: np.ma.array(pixels).data,
    ],
)
@pytest.mark.parametrize("byteorder", ORDERS)
@pytest.mark.parametrize("chunked", [False, True])
@kinds
def test_any_order_in_memory(
    tmp_path: Path, twist: Any, byteorder: str, chunked: bool, suffix: str
) -> None:
    pixels = noise((4, 6, 8))
    twisted = twist(pixels)
    path = tmp_path / f"result{suffix}"
    data = da.from_array(twisted, chunks=(2, 3, -1)) if chunked else twisted
    mrc_xarray.to_mrc(data, path, byteorder=byteorder)
    np.testing.assert_array_equal(twisted, pixels)
    np.testing.assert_array_equal(opened(path).data, pixels)
    if suffix == ".mrc":
        check_plain(path, pixels, ORDERS[byteorder])
    else:
        np.testing.assert_array_equal(mrcz.readMRC(path)[0], pixels)


def test_data_of_any_kind(tmp_path: Path) -> None:
    pixels = noise((3, 4, 5))
    array = labelled(pixels, ("z", "y", "x"))
    kinds = {
        "array": lambda path: mrc_xarray.to_mrc(array, path),
        "dataset": lambda path: mrc_xarray.to_mrc(array.to_dataset(name="density"), path),
        "accessor": lambda path: array.mrc.to_file(path),
        "dataset's accessor": lambda path: array.to_dataset(name="d").mrc.to_file(str(path)),
        "options": lambda path: array.mrc.to_file(path, mode=2, labels=["by hand"]),
    }
    for name, write in kinds.items():
        path = tmp_path / f"{name}.mrc"
        write(path)
        check_plain(path, pixels)
        assert opened(path).mrc.voxel_size == pytest.approx({"z": 2.5, "y": 2.5, "x": 2.5})


@pytest.mark.parametrize("chunks", [None, {}, {"image": 2}, {"image": 3, "y": 2}])
@any_chunks
@kinds
def test_what_was_opened_is_written(tmp_path: Path, chunks: Any, suffix: str) -> None:
    pixels = noise((7, 4, 6), "i2")
    source = tmp_path / "source.mrc"
    source.write_bytes(by_hand.mrc(pixels, ispg=0, mz=1, cella=(12, 8, 1)))
    ds = opened(source, chunks=chunks)
    path = tmp_path / f"result{suffix}"
    ds.mrc.to_file(path)
    again = opened(path)
    np.testing.assert_array_equal(again.data, pixels)
    assert again.mrc.voxel_size == {"y": 2, "x": 2}
    assert again.data.dims == ("image", "y", "x")


# the header -------------------------------------------------------------------------------------

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
@pytest.mark.parametrize("byteorder", ORDERS)
def test_header_from_labels(
    path: Path, dims: Any, shape: Any, n: Any, m: Any, axes: Any, ispg: int, byteorder: str
) -> None:
    voxel, first = {"x": 1.5, "y": 2.0, "z": 4.0}, {"x": -3.0, "y": 7.0, "z": 100.0}
    pixels = noise(shape)
    mrc_xarray.to_mrc(labelled(pixels, dims, voxel, first), path, byteorder=byteorder)

    def found(*names: str) -> tuple[Any, ...]:
        return tuple(field(path, name, ORDERS[byteorder]) for name in names)

    assert found("nx", "ny", "nz") == n
    assert found("mx", "my", "mz") == m
    assert found("mapc", "mapr", "maps") == axes
    assert found("nxstart", "nystart", "nzstart") == (0, 0, 0)
    assert found("ispg", "mode", "nsymbt", "nversion") == (ispg, 2, 0, 20141)
    assert found("cellb", "map") == ((90, 90, 90), b"MAP ")
    (cella, origin) = found("cella", "origin")
    for i, axis in enumerate("xyz"):
        if axis in dims:
            assert cella[i] == voxel[axis] * m[i]
            assert origin[i] == first[axis]
    assert path.read_bytes()[212:216] == by_hand.STAMPS[ORDERS[byteorder]]
    check_plain(path, pixels, ORDERS[byteorder])


@pytest.mark.parametrize(
    ("shape", "dims"),
    [
        ((4, 5), ("y", "x")),
        ((3, 4, 5), ("z", "y", "x")),
        ((2, 3, 4, 5), ("volume", "z", "y", "x")),
    ],
)
@pytest.mark.parametrize("make", [np.asarray, da.from_array])
def test_arrays_without_labels(path: Path, shape: Any, dims: Any, make: Any) -> None:
    pixels = noise(shape)
    mrc_xarray.to_mrc(make(pixels), path)
    assert field(path, "cella") == (0, 0, 0)
    ds = opened(path)
    assert ds.data.dims == dims
    assert not {"x", "y", "z"} & set(ds.coords)
    check_plain(path, pixels)


@pytest.mark.parametrize(
    ("units", "angstroms"),
    [
        ("angstrom", 1), ("Angstrom", 1), ("angstroms", 1), ("Å", 1), ("\u212b", 1), ("A", 1),
        ("nm", 10), ("nanometer", 10), ("nanometers", 10), ("pm", 0.01), ("um", 1e4),
        ("µm", 1e4), ("\u03bcm", 1e4), ("micrometer", 1e4),
    ],
)  # fmt: skip
def test_units(path: Path, units: str, angstroms: float) -> None:
    data = labelled(noise((4, 5)), ("y", "x"), 0.5, {"x": -2.0, "y": 3.0}, units)
    mrc_xarray.to_mrc(data, path)
    np.testing.assert_allclose(field(path, "cella")[:2], [2.5 * angstroms, 2 * angstroms], 1e-6)
    np.testing.assert_allclose(field(path, "origin")[:2], [-2 * angstroms, 3 * angstroms], 1e-6)


def test_each_coordinate_has_its_units(path: Path) -> None:
    data = labelled(noise((3, 4, 5)), ("z", "y", "x"), 2.0)
    data["z"].attrs["units"] = "nm"
    data["y"].attrs["units"] = "pm"
    mrc_xarray.to_mrc(data, path)
    assert field(path, "cella") == pytest.approx((10, 0.08, 60))


def test_single_position_has_its_spacing(path: Path) -> None:
    data = labelled(noise((1, 1, 5)), ("z", "y", "x"), {"z": 4.0, "y": 3.0, "x": 2.0}, 6.0, "nm")
    mrc_xarray.to_mrc(data, path)
    assert field(path, "cella") == (100, 30, 40)
    assert field(path, "origin") == (60, 60, 60)
    assert opened(path).data.dims == ("z", "y", "x")


def test_selected_section_is_a_volume_still(path: Path, tmp_path: Path) -> None:
    """Its spacing came from the file that it was read from."""
    source = tmp_path / "source.mrc"
    source.write_bytes(by_hand.mrc(noise((4, 5, 6)), cella=(12, 10, 12)))
    mrc_xarray.to_mrc(opened(source).isel(z=[2]), path)
    ds = opened(path)
    assert ds.data.dims == ("z", "y", "x")
    assert ds.mrc.voxel_size == pytest.approx({"z": 3, "y": 2, "x": 2})
    assert ds.z.item() == pytest.approx(6)


def test_coarsened_data_have_larger_voxels(path: Path, tmp_path: Path) -> None:
    source = tmp_path / "source.mrc"
    source.write_bytes(by_hand.mrc(noise((4, 6, 8)), cella=(16, 12, 8)))
    data = opened(source).data.coarsen(z=2, y=2, x=2).mean()
    mrc_xarray.to_mrc(data, path)
    assert field(path, "cella") == (16, 12, 8)
    assert field(path, "origin") == (1, 1, 1)
    check_plain(path, data.values)


@pytest.mark.parametrize(
    ("voxel_size", "cella"),
    [(3.0, (15, 12, 9)), (2, (10, 8, 6)), ({"x": 1, "y": 2.0, "z": 0.5}, (5, 8, 1.5))],
)
@pytest.mark.parametrize("has_labels", [False, True])
def test_voxel_size_as_argument_wins(
    path: Path, voxel_size: Any, cella: Any, has_labels: bool
) -> None:
    pixels = noise((3, 4, 5))
    data = labelled(pixels, ("z", "y", "x"), 7.0, units="nm") if has_labels else pixels
    mrc_xarray.to_mrc(data, path, voxel_size=voxel_size)
    assert field(path, "cella") == cella
    check_plain(path, pixels)


def test_voxel_size_of_one_dimension_leaves_the_others(path: Path) -> None:
    data = labelled(noise((3, 4, 5)), ("z", "y", "x"), 2.0)
    mrc_xarray.to_mrc(data, path, voxel_size={"z": 5})
    assert field(path, "cella") == (10, 8, 15)


@pytest.mark.parametrize("voxel_size", [0, -1, NAN, INF, {"z": -1}, {"t": 1}])
def test_bad_voxel_size_is_refused(path: Path, voxel_size: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="voxel_size"):
        mrc_xarray.to_mrc(noise((3, 4, 5)), path, voxel_size=voxel_size)
    assert not path.exists()


@pytest.mark.parametrize("dim", ["x", "y", "z"])
@pytest.mark.parametrize(
    "positions",
    [lambda n: np.arange(n) ** 2.0, lambda n: -2.0 * np.arange(n), lambda n: np.zeros(n),
     lambda n: np.where(np.arange(n) == 1, NAN, np.arange(n))],
    ids=["irregular", "decreasing", "equal", "nan"],
)  # fmt: skip
def test_irregular_coordinate_is_refused(path: Path, dim: str, positions: Any) -> None:
    data = labelled(noise((4, 5, 6)), ("z", "y", "x"))
    bad = data.assign_coords({dim: (dim, positions(data.sizes[dim]), {"units": "nm"})})
    with pytest.raises(MrcError, match=rf"\b{dim}\b") as caught:
        mrc_xarray.to_mrc(bad, path)
    assert re.search(r"voxel_size|drop_vars|sortby", str(caught.value))
    assert not path.exists()
    # what it may say to do
    mrc_xarray.to_mrc(bad.drop_vars(dim), path)
    assert field(path, "cella")["xyz".index(dim)] == 0


@unwarned
def test_irregular_coordinate_with_voxel_size(path: Path) -> None:
    data = labelled(noise((4, 5, 6)), ("z", "y", "x"))
    bad = data.assign_coords(z=("z", [0.0, 1.0, 4.0, 9.0], {"units": "angstrom"}))
    mrc_xarray.to_mrc(bad, path, voxel_size={"z": 2})
    assert field(path, "cella") == (15, 12.5, 8)


def test_coordinate_that_went_through_float32_is_regular(path: Path) -> None:
    data = labelled(noise((4, 500)), ("y", "x"), 1.1, 1234.5)
    narrow = data.assign_coords(x=("x", data.x.values.astype("f4"), data.x.attrs))
    mrc_xarray.to_mrc(narrow, path)
    assert field(path, "cella")[0] == pytest.approx(550, rel=1e-5)


# labels -----------------------------------------------------------------------------------------


def test_own_label_is_added(path: Path) -> None:
    mrc_xarray.to_mrc(noise((4, 5)), path)
    (label,) = labels(path)
    assert label.startswith("mrc_xarray ")


def test_users_labels_are_added(path: Path) -> None:
    given = ["aligned", "x" * 80]
    mrc_xarray.to_mrc(noise((4, 5)), path, labels=given)
    found = labels(path)
    assert len(found) == 3
    assert [label for label in found if label in given] == given
    check_validity(path)


def test_old_labels_are_kept(path: Path, tmp_path: Path) -> None:
    old = (b"first", b"second")
    source = tmp_path / "source.mrc"
    source.write_bytes(by_hand.mrc(noise((3, 4, 5)), labels=old))
    data = (opened(source, chunks={}).data * 2).compute()
    mrc_xarray.to_mrc(data, path, labels=["third"])
    found = labels(path)
    assert found[:2] == ["first", "second"]
    assert "third" in found
    assert len(found) == 4


@pytest.mark.parametrize("n", [8, 9, 10])
@unwarned
def test_labels_are_ten_at_most(path: Path, tmp_path: Path, n: int) -> None:
    old = [f"old {k}" for k in range(n)]
    source = tmp_path / "source.mrc"
    source.write_bytes(
        by_hand.mrc(noise((3, 4, 5)), labels=tuple(label.encode() for label in old))
    )
    mrc_xarray.to_mrc(opened(source), path, labels=["new"])
    found = labels(path)
    assert len(found) == 10
    kept = [label for label in found if label in old]
    # in their order, and as many as there is room for
    assert kept == sorted(kept, key=old.index)
    assert len(kept) >= 8
    assert "new" in found


def test_gaps_between_old_labels_are_closed(path: Path, tmp_path: Path) -> None:
    source = tmp_path / "source.mrc"
    source.write_bytes(by_hand.mrc(noise((3, 4, 5)), labels=(b"first", b"", b"third")))
    mrc_xarray.to_mrc(opened(source), path)
    assert labels(path)[:2] == ["first", "third"]
    check_validity(path)


@unwarned
def test_labels_of_the_user_outlast_many_rewrites(tmp_path: Path) -> None:
    mrc_xarray.to_mrc(noise((4, 5)), tmp_path / "0.mrc", labels=["mine"])
    for k in range(12):
        mrc_xarray.to_mrc(opened(tmp_path / f"{k}.mrc"), tmp_path / f"{k + 1}.mrc")
        assert "mine" in labels(tmp_path / f"{k + 1}.mrc")
    check_validity(tmp_path / "12.mrc")


@pytest.mark.parametrize("bad", [["x" * 81], ["试样"]])
def test_bad_labels_are_refused(path: Path, bad: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="label"):
        mrc_xarray.to_mrc(noise((4, 5)), path, labels=bad)
    assert not path.exists()


# statistics -------------------------------------------------------------------------------------

CHUNKS = [None, (1, -1, -1), (2, 3, -1), (3, 4, 5), (-1, -1, 2)]


def in_chunks(pixels: Array, chunks: Any) -> Any:
    return pixels if chunks is None else da.from_array(pixels, chunks=chunks)


@pytest.mark.parametrize("dtype", ["bool", "i1", "i2", "u1", "u2", "i4", "u4", "f2", "f4"])
@pytest.mark.parametrize("chunks", CHUNKS)
@unwarned
def test_statistics(path: Path, dtype: str, chunks: Any) -> None:
    pixels = noise((5, 7, 11), dtype)
    mrc_xarray.to_mrc(in_chunks(pixels, chunks), path)
    exact = pixels.astype("f8")
    expected = exact.min(), exact.max(), exact.mean(), exact.std()
    assert statistics(path) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("chunks", CHUNKS)
def test_statistics_of_large_values_that_hardly_differ(path: Path, chunks: Any) -> None:
    pixels = (1e7 + noise((5, 7, 11)) // 16).astype("f4")
    mrc_xarray.to_mrc(in_chunks(pixels, chunks), path)
    exact = pixels.astype("f8")
    assert statistics(path)[2:] == pytest.approx((exact.mean(), exact.std()), rel=1e-6)


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_statistics_are_of_finite_values(path: Path, chunks: Any, bad: float) -> None:
    pixels = noise((5, 7, 11))
    pixels[1] = bad
    pixels[3, 2, 4] = bad
    mrc_xarray.to_mrc(in_chunks(pixels, chunks), path)
    exact = pixels[np.isfinite(pixels)].astype("f8")
    expected = exact.min(), exact.max(), exact.mean(), exact.std()
    assert statistics(path) == pytest.approx(expected, rel=1e-6)
    # mrcfile finds any statistics wrong where there is a NaN
    check_plain(path, pixels, valid=False)


@pytest.mark.parametrize("statistics_", [True, "quick"])
@pytest.mark.parametrize("bad", [NAN, INF])
def test_statistics_of_no_finite_value_are_undetermined(
    path: Path, bad: float, statistics_: Any
) -> None:
    mrc_xarray.to_mrc(np.full((2, 3, 4), bad, "f4"), path, statistics=statistics_)
    assert statistics(path) == UNDETERMINED


@pytest.mark.parametrize("statistics_", [True, False, "quick"])
def test_statistics_of_complex_data_are_undetermined(path: Path, statistics_: Any) -> None:
    pixels = noise((3, 4, 5), "c8")
    mrc_xarray.to_mrc(pixels, path, statistics=statistics_)
    assert statistics(path) == UNDETERMINED
    check_plain(path, pixels)


def test_statistics_of_a_constant(path: Path) -> None:
    mrc_xarray.to_mrc(np.full((2, 3, 4), 0.1, "f4"), path)
    value = np.float32(0.1)
    assert statistics(path) == (value, value, pytest.approx(value), pytest.approx(0, abs=1e-9))


@pytest.mark.parametrize("chunks", CHUNKS)
@kinds
def test_quick_statistics_are_of_the_first_section(
    tmp_path: Path, chunks: Any, suffix: str
) -> None:
    pixels = noise((5, 7, 11), "i2")
    path = tmp_path / f"result{suffix}"
    mrc_xarray.to_mrc(in_chunks(pixels, chunks), path, statistics="quick")
    exact = pixels[0].astype("f8")
    expected = exact.min(), exact.max(), exact.mean(), exact.std()
    assert statistics(path) == pytest.approx(expected, rel=1e-6)


@kinds
def test_no_statistics(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"result{suffix}"
    mrc_xarray.to_mrc(noise((3, 4, 5)), path, statistics=False)
    assert statistics(path) == UNDETERMINED
    if suffix == ".mrc":
        check_validity(path)


def test_statistics_are_of_what_is_stored(path: Path) -> None:
    pixels = np.array([[0.6, 1.4], [2.6, -3.4]])
    mrc_xarray.to_mrc(pixels, path, mode=1)
    assert statistics(path) == pytest.approx((-3, 3, 0.5, np.std([1, 1, 3, -3])))
    check_plain(path, np.array([[1, 1], [3, -3]], "i2"))


def test_unknown_statistics_are_refused(path: Path) -> None:
    with pytest.raises((ValueError, TypeError), match="statistics"):
        mrc_xarray.to_mrc(noise((4, 5)), path, statistics="slow")


# modes and casts --------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [np.asarray, lambda pixels: da.from_array(pixels, chunks=-1)])
@pytest.mark.parametrize(
    ("dtype", "cast"),
    [
        ("f8", "mode=2|float32"), (">f8", "mode=2|float32"), ("i8", "mode=|astype"),
        ("u8", "mode=|astype"), ("c16", "mode=4|complex64"), ("S3", "."), ("U3", "."),
        ("M8[s]", "."), ("m8[s]", "."), ("O", "."), ("i2,i2", "."),
    ],
)  # fmt: skip
def test_dtypes_that_no_mode_holds(path: Path, dtype: str, cast: str, make: Any) -> None:
    pixels = make(np.zeros((2, 3, 4), dtype))
    with pytest.raises(MrcError, match=cast) as caught:
        mrc_xarray.to_mrc(pixels, path)
    assert pixels.dtype.name in str(caught.value) or str(pixels.dtype) in str(caught.value)
    assert not path.exists()


@pytest.mark.parametrize(
    ("given", "mode", "stored"),
    [
        ("f8", 2, "f4"), ("f8", 12, "f2"), ("f4", 12, "f2"), ("c16", 4, "c8"), ("i8", 1, "i2"),
        ("u8", 6, "u2"), ("i4", 0, "i1"), ("f4", 0, "i1"), ("f8", 6, "u2"), ("u1", 1, "i2"),
        ("u1", 2, "f4"), ("i2", 2, "f4"), ("bool", 2, "f4"), ("i8", 2, "f4"), ("u2", 12, "f2"),
        (">i4", 1, "i2"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("chunks", [None, (1, 2, -1)])
def test_casts_on_request(path: Path, given: str, mode: int, stored: str, chunks: Any) -> None:
    pixels = np.arange(60).reshape(3, 4, 5).astype(given)
    mrc_xarray.to_mrc(in_chunks(pixels, chunks), path, mode=mode)
    assert field(path, "mode") == mode
    check_plain(path, pixels.astype(stored))


@pytest.mark.parametrize(
    ("values", "dtype", "mode", "stored"),
    [
        ([1.4, 1.6, -1.4, -1.6], "f4", 1, [1, 2, -1, -2]),
        ([127.4, -128.4, 0, 0], "f8", 0, [127, -128, 0, 0]),
        ([65535.4, -0.4, 0.6, 2], "f8", 6, [65535, 0, 1, 2]),
        ([32767, -32768, 0, 0], "i8", 1, [32767, -32768, 0, 0]),
        ([2**24, -(2**24), 0, 0], "i8", 2, [2**24, -(2**24), 0, 0]),
        ([NAN, INF, -INF, 0], "f8", 2, [NAN, INF, -INF, 0]),
        ([NAN, INF, -INF, 0], "f4", 12, [NAN, INF, -INF, 0]),
        ([65504, -65504, 0, 0], "f8", 12, [65504, -65504, 0, 0]),
    ],
)
def test_values_after_a_cast(path: Path, values: Any, dtype: str, mode: int, stored: Any) -> None:
    mrc_xarray.to_mrc(np.array([values], dtype), path, mode=mode)
    codes = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
    valid = NAN not in values and mode != 12
    check_plain(path, np.array([stored], codes[mode]), valid=valid)


OUT_OF_RANGE = [
    ("i2", 128, 0, "127"), ("i2", -129, 0, "-128"), ("u1", 16, 101, "15"), ("i2", -1, 101, "0"),
    ("f4", 15.6, 101, "15"), ("i4", 32768, 1, "32767"), ("u2", 32768, 1, "32767"),
    ("i4", -32769, 1, "-32768"), ("i1", -1, 6, "0"), ("i4", 65536, 6, "65535"),
    ("f4", 65536, 6, "65535"), ("f4", -1, 6, "0"), ("f4", 127.6, 0, "127"),
    ("f8", 2.0**31, 7, "2147483647"), ("i8", -1, 8, "0"), ("u8", 2**63, 7, "2147483647"),
    ("f8", 1e39, 2, "e"), ("f4", 70000, 12, "65504"), ("i4", 70000, 12, "65504"),
    ("f4", NAN, 1, "32767"), ("f4", INF, 6, "65535"), ("f8", -INF, 0, "-128"),
    ("f4", NAN, 101, "15"), ("c8", 40000j, 3, "32767"), ("c8", -40000, 3, "-32768"),
    ("c16", 1e39j, 4, "e"), ("c8", complex(NAN, 0), 3, "32767"),
]  # fmt: skip


@pytest.mark.parametrize(("dtype", "value", "mode", "limit"), OUT_OF_RANGE)
@pytest.mark.parametrize("chunks", [None, (1, 2, -1)])
@unwarned
def test_values_out_of_range_are_refused(
    path: Path, dtype: str, value: Any, mode: int, limit: str, chunks: Any
) -> None:
    pixels = np.zeros((3, 4, 5), dtype)
    pixels[2, 3, 4] = value
    with pytest.raises(MrcError, match=limit) as caught:
        mrc_xarray.to_mrc(in_chunks(pixels, chunks), path, mode=mode)
    part = abs(value.imag or value.real)
    assert re.search(rf"{part:g}|{part:.0f}".replace("+", r"\+"), str(caught.value))
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("mode", [1, 2, 6, 12, 0])
def test_complex_data_are_not_made_real(path: Path, mode: int) -> None:
    with pytest.raises(MrcError, match="complex"):
        mrc_xarray.to_mrc(noise((4, 5), "c8"), path, mode=mode)
    assert not path.exists()


@pytest.mark.parametrize("mode", [5, 9, -1, 17, 1001, "int16", 16])
def test_unknown_modes_are_refused(path: Path, mode: Any) -> None:
    """Mode 16 is one of the unknown: the data are not RGB."""
    with pytest.raises((MrcError, TypeError), match="mode"):
        mrc_xarray.to_mrc(np.zeros((4, 5), "u1"), path, mode=mode)
    assert not path.exists()


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("byteorder", ORDERS)
def test_unsigned_bytes_have_imods_flag(path: Path, chunks: Any, byteorder: str) -> None:
    pixels = noise((5, 7, 11), "u1")
    first = {"z": 5.0, "y": -3.0, "x": 2.0}
    data = labelled(in_chunks(pixels, chunks), ("z", "y", "x"), 2.0, first)
    mrc_xarray.to_mrc(data, path, mode=0, byteorder=byteorder)
    order = ORDERS[byteorder]
    assert field(path, "mode", order) == 0
    assert field(path, "imod_stamp", order) == by_hand.IMOD_STAMP
    assert field(path, "imod_flags", order) & 1 == 0
    # an unsigned byte is a signed one to mrcfile, which so finds the statistics wrong
    check_plain(path, pixels.view("i1"), order, valid=False)
    ds = opened(path)
    assert ds.data.dtype == np.uint8
    np.testing.assert_array_equal(ds.data, pixels)
    # IMOD's stamp without flag 4 would turn the sign of ORIGIN
    for dim in "xyz":
        assert ds[dim].values[0] == first[dim]


def test_signed_bytes_have_no_imod_stamp_that_says_otherwise(path: Path, tmp_path: Path) -> None:
    source = tmp_path / "source.mrc"
    pixels = noise((3, 4, 5), "u1")
    more = {"imod_stamp": by_hand.IMOD_STAMP, "imod_flags": 4, "origin": (1, 2, 3)}
    source.write_bytes(by_hand.header(pixels.shape, 0, **more) + pixels.tobytes())
    data = opened(source).data
    assert data.dtype == np.uint8
    signed = (data.astype("i2") - 128).astype("i1")
    mrc_xarray.to_mrc(signed, path)
    ds = opened(path)
    assert ds.data.dtype == np.int8
    np.testing.assert_array_equal(ds.data, signed)
    assert [ds[dim].item(0) for dim in "xyz"] == [1, 2, 3]


@pytest.mark.parametrize("nx", [1, 2, 7, 8])
@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("dtype", ["u1", "i2", "f4"])
def test_four_bits(path: Path, nx: int, chunks: Any, dtype: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 16, (5, 7, nx), "u1")
    if chunks:
        chunks = tuple(min(c, n) for c, n in zip(chunks, pixels.shape, strict=True))
    mrc_xarray.to_mrc(in_chunks(pixels.astype(dtype), chunks), path, mode=101)
    assert field(path, "mode") == 101
    raw = path.read_bytes()[1024:]
    row = (nx + 1) // 2
    packed = np.frombuffer(raw, "u1").reshape(5, 7, row)
    nibbles = np.stack([packed & 15, packed >> 4], axis=-1).reshape(5, 7, 2 * row)
    np.testing.assert_array_equal(nibbles[..., :nx], pixels)
    np.testing.assert_array_equal(opened(path).data, pixels)
    assert raw == by_hand.pack_4bit(pixels).tobytes()


@pytest.mark.parametrize("byteorder", ORDERS)
@pytest.mark.parametrize("dtype", ["c8", "c16"])
@pytest.mark.parametrize("chunks", CHUNKS)
def test_complex_integers(path: Path, byteorder: str, dtype: str, chunks: Any) -> None:
    parts = noise((5, 7, 11, 2), "i2")
    pixels = (parts[..., 0] + 1j * parts[..., 1]).astype(dtype)
    mrc_xarray.to_mrc(in_chunks(pixels, chunks), path, mode=3, byteorder=byteorder)
    order = ORDERS[byteorder]
    assert field(path, "mode", order) == 3
    found = np.frombuffer(path.read_bytes()[1024:], f"{order}i2").reshape(parts.shape)
    np.testing.assert_array_equal(found, parts)
    np.testing.assert_array_equal(opened(path).data, pixels)


def test_complex_integers_are_rounded(path: Path) -> None:
    mrc_xarray.to_mrc(np.array([[1.4 - 1.6j, -2.6 + 0.4j]], "c8"), path, mode=3)
    assert np.frombuffer(path.read_bytes()[1024:], "<i2").tolist() == [1, -2, -3, 0]


@pytest.mark.parametrize("dims", [("y", "x", "rgb"), ("image", "y", "x", "rgb")])
@pytest.mark.parametrize("mode", [None, 16])
@pytest.mark.parametrize("chunked", [False, True])
@unwarned
def test_rgb(path: Path, dims: Any, mode: int | None, chunked: bool) -> None:
    pixels = noise((2, 4, 5, 3)[-len(dims) :], "u1")
    data = labelled(pixels, dims)
    mrc_xarray.to_mrc(data.chunk(y=3, rgb=1) if chunked else data, path, mode=mode)
    assert fields(path, "mode", "nx", "ny") == (16, 5, 4)
    assert path.read_bytes()[1024:] == pixels.tobytes()
    assert opened(path).data.dims == dims
    np.testing.assert_array_equal(opened(path).data, pixels)


@pytest.mark.parametrize(("dtype", "n"), [("u2", 3), ("f4", 3)])
def test_rgb_is_of_unsigned_bytes(path: Path, dtype: str, n: int) -> None:
    with pytest.raises(MrcError, match=r"(?i)rgb|mode 16"):
        mrc_xarray.to_mrc(xr.DataArray(np.zeros((4, 5, n), dtype), dims=("y", "x", "rgb")), path)


# what can't be written --------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (5,), (0, 5), (3, 0, 5), (2, 3, 4, 0), (0, 4, 5)])
@pytest.mark.parametrize("make", [np.asarray, da.from_array, xr.DataArray])
@kinds
def test_shapes_that_are_no_images(tmp_path: Path, shape: Any, make: Any, suffix: str) -> None:
    path = tmp_path / f"result{suffix}"
    with pytest.raises(MrcError, match=r"."):
        mrc_xarray.to_mrc(make(np.zeros(shape, "f4")), path)
    assert not path.exists()


@kinds
def test_unknown_chunks_are_refused(tmp_path: Path, suffix: str) -> None:
    lazy = da.from_array(noise((4, 5, 6)), chunks=(1, -1, -1))
    unknown = lazy[da.from_array(np.array([True, False, True, True]), chunks=1)]
    path = tmp_path / f"result{suffix}"
    with pytest.raises(MrcError, match="chunk"):
        mrc_xarray.to_mrc(unknown, path)
    assert not path.exists()


@pytest.mark.parametrize("names", [(), ("a", "b")])
def test_datasets_have_one_variable(path: Path, names: tuple[str, ...]) -> None:
    ds = xr.Dataset({name: (("y", "x"), noise((4, 5))) for name in names})
    with pytest.raises(ValueError, match="variable"):
        mrc_xarray.to_mrc(ds, path)


@pytest.mark.parametrize("data", ["text", None, [[1, 2], [3, 4]], 5])
def test_other_objects_are_refused(path: Path, data: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"."):
        mrc_xarray.to_mrc(data, path)
    assert not path.exists()


def test_unknown_byteorder_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="byteorder"):
        mrc_xarray.to_mrc(noise((4, 5)), path, byteorder="<")


# what draws a warning ---------------------------------------------------------------------------


def warned(data: Any, path: Path, **options: Any) -> str:
    """Write, and return the text of the one warning."""
    with pytest.warns(MrcWarning) as caught:
        mrc_xarray.to_mrc(data, path, **options)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    return str(caught[0].message)


STACK = noise((3, 4, 5))
PLAIN_STACK = labelled(STACK, ("image", "y", "x"))


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.mrc", noise((4, 5), "i4"), ["7", "MRC2014"]),
        ("a.mrc", noise((4, 5), "u4"), ["8", "MRC2014"]),
        ("a.mrc", labelled(STACK, ("tilt_angle", "y", "x")), ["tilt_angle"]),
        (
            "a.mrc",
            labelled(STACK, ("tilt_angle", "y", "x")).assign_coords(tilt_angle=[-3, 0, 3]),
            ["tilt_angle"],
        ),
        (
            "a.mrc",
            labelled(noise((2, 3, 4, 5)), ("image", "channel", "y", "x")),
            ["channel", "sections_per_frame=3"],
        ),
        (
            "a.mrc",
            labelled(noise((2, 3, 4, 5)), ("scan_y", "scan_x", "y", "x")),
            [r"scan_shape=\(2, 3\)"],
        ),
        (
            "a.mrc",
            labelled(noise((2, 3, 4, 5)), ("scan_y", "scan_x", "ky", "kx")),
            [r"scan_shape=\(2, 3\)", r"\bky\b", r"\bkx\b"],
        ),
        (
            "a.mrc",
            labelled(noise((2, 3, 2, 4, 5)), ("repeat", "scan_y", "scan_x", "y", "x")),
            ["repeat", "scan_y", "scan_x"],
        ),
        ("a.mrc", PLAIN_STACK.assign_coords(dose=("image", [1, 2, 3])), [r"\bdose\b"]),
        ("a.mrc", PLAIN_STACK.assign_coords(time=5.0), [r"\btime\b"]),
        ("a.mrc", PLAIN_STACK.assign_coords(image=[4, 5, 9]), [r"\bimage\b"]),
        (
            "a.mrc",
            PLAIN_STACK.assign_coords(bent=(("y", "x"), np.zeros((4, 5)))),
            [r"\bbent\b"],
        ),
        ("a.mrc", labelled(STACK, ("z", "y", "x"), units="1/nm"), [r"\bx\b", r"\by\b", r"\bz\b"]),
        ("a.mrc", labelled(noise((4, 5)), ("y", "x"), units="px"), [r"\bx\b", r"\by\b"]),
        (
            "a.mrc",
            xr.DataArray(noise((4, 5)), {"x": np.arange(5.0)}, ("y", "x")),
            [r"\bx\b", "Å|angstrom|ångström"],
        ),
        ("a.mrc", labelled(STACK[:1], ("image", "y", "x")), ["layout="]),
        ("a.mrc", STACK[:1], ["layout=.volume"]),
        ("a.mrcs", labelled(STACK, ("z", "y", "x")), ["layout=.volume"]),
        ("a.st", labelled(STACK, ("z", "y", "x")), ["layout=.volume"]),
        ("a.map", PLAIN_STACK, ["layout=.image_stack"]),
        ("a.rec", PLAIN_STACK, ["layout=.image_stack"]),
    ],
)
def test_what_mrc_can_not_hold(tmp_path: Path, name: str, data: Any, words: list[str]) -> None:
    path = tmp_path / name
    message = warned(data, path)
    for word in words:
        assert re.search(word, message)
    pixels = np.asarray(data)
    raw = np.frombuffer(path.read_bytes()[1024:], pixels.dtype)
    np.testing.assert_array_equal(raw, pixels.ravel())
    # an argument that the warning names gives the dimensions that were written
    if found := re.search(r"(layout|sections_per_frame|scan_shape)=('\w+'|\d+|\(.*?\))", message):
        dims = opened(path, **{found[1]: eval(found[2])}).data.sizes
        assert tuple(dims.values()) == pixels.shape


@pytest.mark.parametrize("name", ["a.mrc", "a.mrcs", "a.st", "a.ali"])
def test_stacks_draw_no_warning(tmp_path: Path, name: str) -> None:
    mrc_xarray.to_mrc(PLAIN_STACK, tmp_path / name)
    assert opened(tmp_path / name).data.dims == ("image", "y", "x")


@pytest.mark.parametrize("name", ["a.mrc", "a.map", "a.ccp4", "a.rec"])
def test_volumes_draw_no_warning(tmp_path: Path, name: str) -> None:
    mrc_xarray.to_mrc(labelled(STACK, ("z", "y", "x")), tmp_path / name)
    assert opened(tmp_path / name).data.dims == ("z", "y", "x")


def test_all_is_in_one_warning(tmp_path: Path) -> None:
    pixels = noise((3, 4, 5), "i4")
    data = labelled(pixels, ("tilt_angle", "y", "x")).assign_coords(
        tilt_angle=[-3, 0, 3],
        dose=("tilt_angle", [1, 2, 3]),
        stage=1.5,
        x=("x", np.arange(5.0), {"units": "1/nm"}),
        y=np.arange(4.0),
    )
    message = warned(data, tmp_path / "a.rec")
    for word in ("tilt_angle", "dose", "stage", r"\bx\b", r"\by\b", "MRC2014", "layout="):
        assert re.search(word, message)


def test_units_that_are_no_length_leave_the_voxel_size_unknown(path: Path) -> None:
    warned(labelled(noise((4, 5)), ("y", "x"), units="1/nm"), path)
    assert field(path, "cella")[:2] == (0, 0)
    assert not {"x", "y"} & set(opened(path).coords)


def test_angstroms_are_assumed(path: Path) -> None:
    warned(xr.DataArray(noise((4, 5)), {"x": 2.0 * np.arange(5) + 7}, ("y", "x")), path)
    assert field(path, "cella")[0] == 10
    assert field(path, "origin")[0] == 7


def test_section_numbers_draw_no_warning(path: Path, tmp_path: Path) -> None:
    """They tell where the sections were, and the new file numbers its own."""
    source = tmp_path / "source.mrc"
    source.write_bytes(by_hand.mrc(STACK, ispg=0, mz=1))
    mrc_xarray.to_mrc(opened(source).isel(image=[0, 2]), path)
    np.testing.assert_array_equal(opened(path)["section"], [0, 1])
    check_plain(path, STACK[[0, 2]])


# what the file said -----------------------------------------------------------------------------


def fei_block(k: int, size: int) -> bytes:
    """Return a block of EPU's with one field, the alpha tilt."""
    raw = bytearray(size)
    struct.pack_into("<iiI", raw, 0, size, {768: 0, 888: 2}[size], 1 << 7)
    struct.pack_into("<d", raw, 100, 10 * k - 20)
    raw[-8:] = struct.pack("<q", k)
    return bytes(raw)


N = 6
# kind → header fields, records of six sections, bytes behind them
RECORDS: dict[str, tuple[dict[str, Any], list[bytes], int]] = {
    "FEI1": ({"exttyp": b"FEI1"}, [fei_block(k, 768) for k in range(N)], 0),
    "FEI1 padded": ({"exttyp": b"FEI1"}, [fei_block(k, 768) for k in range(N)], 5 * 768),
    "FEI2": ({"exttyp": b"FEI2"}, [fei_block(k, 888) for k in range(N)], 0),
    "FEI2 padded": ({"exttyp": b"FEI2"}, [fei_block(k, 888) for k in range(N)], 15360 - N * 888),
    # EMAN2 mixes these up: the block's own size decides
    "FEI1 of 888": ({"exttyp": b"FEI1"}, [fei_block(k, 888) for k in range(N)], 0),
    "SERI": (
        {"exttyp": b"SERI", "nint": 4, "nreal": 1 | 8},
        [struct.pack("<hh", 300 * k - 900, 50 + k) for k in range(N)],
        0,
    ),
    "SERI padded": (
        {"exttyp": b"SERI", "nint": 2, "nreal": 1},
        [struct.pack("<h", 300 * k - 900) for k in range(N)],
        1024 - 2 * N,
    ),
    "AGAR": (
        {"exttyp": b"AGAR", "nint": 1, "nreal": 2},
        [struct.pack("<iff", k, 3.0 * k, -1.5) for k in range(N)],
        0,
    ),
}  # fmt: skip


def with_records(tmp_path: Path, kind: str) -> tuple[Path, list[bytes], int]:
    more, records, padding = RECORDS[kind]
    path = tmp_path / "source.mrc"
    path.write_bytes(
        by_hand.mrc(
            noise((N, 4, 5), "i2"),
            extended=b"".join(records) + bytes(padding),
            ispg=0,
            mz=1,
            **more,
        )
    )
    return path, records, padding


def check_records(path: Path, kind: str, records: list[bytes]) -> None:
    more, _, padding = RECORDS[kind]
    for name, value in more.items():
        assert field(path, name) == value
    found, wanted = extended(path), b"".join(records)
    assert found[: len(wanted)] == wanted
    assert not any(found[len(wanted) :])
    assert len(found) == len(wanted) or padding
    assert path.stat().st_size == 1024 + len(found) + field(path, "nz") * 4 * 5 * 2


@pytest.mark.parametrize("kind", RECORDS)
def test_records_are_carried_over(path: Path, tmp_path: Path, kind: str) -> None:
    source, records, _ = with_records(tmp_path, kind)
    ds = opened(source)
    mrc_xarray.to_mrc(ds, path)
    check_records(path, kind, records)
    check_plain(path, ds.data.values)
    assert opened(path).data.dims == ("image", "y", "x")


@pytest.mark.parametrize("kind", RECORDS)
@pytest.mark.parametrize(
    "key", [[1, 2], [4, 0, 5], slice(1, None, 2), slice(None, None, -1), [3], slice(2, 5)]
)
@pytest.mark.parametrize("computed", [False, True])
def test_records_of_the_selected_sections(
    path: Path, tmp_path: Path, kind: str, key: Any, computed: bool
) -> None:
    source, records, _ = with_records(tmp_path, kind)
    data = opened(source, chunks={}).data.isel(image=key)
    data = ((data + 1).compute() - 1) if computed else data
    with warnings.catch_warnings():
        if data.sizes["image"] == 1:
            # one image is no stack when it is opened
            warnings.simplefilter("ignore", MrcWarning)
        mrc_xarray.to_mrc(data, path)
    numbers = np.arange(N)[key]
    check_records(path, kind, [records[k] for k in numbers])
    check_plain(path, noise((N, 4, 5), "i2")[numbers])


@pytest.mark.parametrize("kind", RECORDS)
@unwarned
def test_records_are_dropped_where_sections_are_gone(
    path: Path, tmp_path: Path, kind: str
) -> None:
    source, _, _ = with_records(tmp_path, kind)
    mrc_xarray.to_mrc(opened(source).data.mean("image").astype("f4"), path)
    assert field(path, "nsymbt") == 0
    assert field(path, "exttyp").strip(b" \0") == b""
    check_validity(path)


@pytest.mark.parametrize("kind", ["SERI", "AGAR"])
@unwarned
def test_records_in_the_files_order_are_not_copied_to_another(
    path: Path, tmp_path: Path, kind: str
) -> None:
    source, records, _ = with_records(tmp_path, kind)
    mrc_xarray.to_mrc(opened(source), path, byteorder="big")
    n = field(path, "nsymbt", ">")
    found = path.read_bytes()[1024 : 1024 + n]
    code = {"SERI": "2h", "AGAR": "iff"}[kind] * N
    swapped = struct.pack(">" + code, *struct.unpack("<" + code, b"".join(records)))
    assert found in (b"", swapped)


@pytest.mark.parametrize("key", [slice(None), [4, 0], slice(1, 3)])
def test_records_of_old_fei_files(path: Path, tmp_path: Path, key: Any) -> None:
    """They have no EXTTYP, and are recognised by their length of 1024 records."""
    records = [struct.pack("<32f", 3.0 * k, *range(31)) for k in range(1024)]
    source = tmp_path / "source.mrc"
    source.write_bytes(
        by_hand.mrc(
            noise((N, 4, 5), "i2"), extended=b"".join(records), ispg=0, mz=1, nint=0, nreal=32
        )
    )
    mrc_xarray.to_mrc(opened(source).isel(image=key), path)
    numbers = np.arange(N)[key]
    wanted = b"".join(records[k] for k in numbers)
    assert extended(path)[: len(wanted)] == wanted
    assert opened(path).data.attrs["mrc_layout"] == "image_stack"
    assert read_by_rosettasciio(rsciio.mrc, path)["data"].shape[0] == len(numbers)


@pytest.mark.parametrize("exttyp", [b"MRCO", b"HDF5", b"ABCD", b"    "])
def test_unknown_records_are_kept_with_the_shape(
    path: Path, tmp_path: Path, exttyp: bytes
) -> None:
    content = bytes(range(250)) * 4
    source = tmp_path / "source.mrc"
    source.write_bytes(by_hand.mrc(noise((3, 4, 5)), extended=content, exttyp=exttyp))
    mrc_xarray.to_mrc((opened(source).data + 1).compute(), path)
    assert extended(path) == content
    assert field(path, "exttyp").strip(b" \0") == exttyp.strip()


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.isel(z=slice(1, 3)),
        lambda data: data.isel(x=slice(1, 3)),
        lambda data: data.transpose("x", "y", "z"),
        lambda data: data.mean("z"),
    ],
)
@unwarned
def test_unknown_records_are_dropped_with_the_shape(
    path: Path, tmp_path: Path, change: Any
) -> None:
    source = tmp_path / "source.mrc"
    source.write_bytes(by_hand.mrc(noise((4, 4, 4)), extended=b"secret" * 40, exttyp=b"ABCD"))
    mrc_xarray.to_mrc(change(opened(source).data), path)
    assert field(path, "nsymbt") == 0
    check_validity(path)


SYMMETRY = b"".join(
    text.ljust(80) for text in (b"X,  Y,  Z", b"-X+1/2, -Y, Z+1/2", b"-X, Y+1/2, -Z+1/2")
)
CRYSTAL: dict[str, Any] = {"ispg": 19, "cellb": (90, 100, 120), "exttyp": b"CCP4"}


def test_crystal_is_kept_where_the_grid_is(path: Path, tmp_path: Path) -> None:
    source = tmp_path / "source.map"
    source.write_bytes(by_hand.mrc(noise((3, 4, 5)), extended=SYMMETRY, **CRYSTAL))
    data = (opened(source, chunks={}).data * 2).compute()
    mrc_xarray.to_mrc(data, path)
    assert fields(path, "ispg", "exttyp", "cellb") == (19, b"CCP4", (90, 100, 120))
    assert extended(path) == SYMMETRY
    check_plain(path, data.values)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.isel(z=slice(1, 3)),
        lambda data: data.isel(x=slice(1, 3)),
        lambda data: data.coarsen(x=2, y=2, z=2).mean(),
    ],
)
@unwarned
def test_crystal_is_dropped_where_the_grid_changes(
    path: Path, tmp_path: Path, change: Any
) -> None:
    source = tmp_path / "source.map"
    source.write_bytes(by_hand.mrc(noise((4, 4, 4)), extended=SYMMETRY, **CRYSTAL))
    mrc_xarray.to_mrc(change(opened(source).data), path)
    assert fields(path, "ispg", "nsymbt") == (1, 0)
    check_validity(path)


def test_skew_is_kept(path: Path, tmp_path: Path) -> None:
    """CCP4's words 25–37 lie over EXTTYP and NVERSION of MRC2014."""
    raw = bytearray(by_hand.mrc(noise((3, 4, 5)), nversion=0))
    struct.pack_into("<i12f", raw, 96, 1, 1, 0, 0, 0, 0.5, 0.5, 0, -0.5, 0.5, 10, 20, 30)
    source = tmp_path / "source.map"
    source.write_bytes(raw)
    ds = opened(source)
    mrc_xarray.to_mrc(ds, path)
    assert path.read_bytes()[96:148] == bytes(raw[96:148])
    np.testing.assert_array_equal(opened(path).data, ds.data)


def test_cell_angles_are_right_angles_without_a_source(path: Path) -> None:
    mrc_xarray.to_mrc(noise((3, 4, 5)), path)
    assert field(path, "cellb") == (90, 90, 90)


@pytest.mark.parametrize(
    "arithmetic",
    [
        lambda data: data + 1,
        lambda data: (data * 2).astype("f4"),
        lambda data: data.where(data > 0, 0),
        lambda data: xr.apply_ufunc(np.abs, data, dask="allowed"),
        lambda data: data.compute(),
        lambda data: data.copy(deep=True),
        lambda data: data.rename("other"),
        lambda data: data.to_dataset(name="other"),
    ],
)
def test_what_the_file_said_survives_arithmetic(
    path: Path, tmp_path: Path, arithmetic: Any
) -> None:
    source = tmp_path / "source.mrc"
    source.write_bytes(
        by_hand.mrc(
            noise((3, 4, 5)),
            labels=(b"a long story",),
            extended=b"secret" * 40,
            exttyp=b"MRCO",
            cellb=(90, 100, 110),
            cella=(10, 8, 6),
            origin=(1, 2, 3),
        )
    )
    mrc_xarray.to_mrc(arithmetic(opened(source, chunks={}).data), path)
    assert labels(path)[0] == "a long story"
    assert fields(path, "cellb", "cella", "origin", "exttyp") == (
        (90, 100, 110),
        (10, 8, 6),
        (1, 2, 3),
        b"MRCO",
    )
    assert extended(path) == b"secret" * 40


@unwarned
def test_source_that_is_gone_is_no_error(path: Path, tmp_path: Path) -> None:
    source, _, _ = with_records(tmp_path, "FEI1")
    ds = opened(source).load()
    source.unlink()
    mrc_xarray.to_mrc(ds, path)
    assert field(path, "nsymbt") == 0
    check_plain(path, ds.data.values)


@pytest.mark.parametrize(
    ("given", "exttyp", "content"),
    [
        (b"", b"", b""),
        (b"x" * 33, None, b"x" * 33),
        (("FEI1", fei_block(0, 768) * 6), b"FEI1", fei_block(0, 768) * 6),
        (("SERI", b"\1\2" * 6), b"SERI", b"\1\2" * 6),
    ],
)
@unwarned
def test_extended_header_by_argument(
    path: Path, tmp_path: Path, given: Any, exttyp: bytes | None, content: bytes
) -> None:
    source, _, _ = with_records(tmp_path, "FEI2")
    ds = opened(source)
    mrc_xarray.to_mrc(ds, path, extended_header=given)
    assert extended(path) == content
    if exttyp is not None:
        assert field(path, "exttyp").strip(b" \0") == exttyp
    with mrcfile.open(path) as mrc:
        np.testing.assert_array_equal(mrc.data, ds.data)
    assert opened(path).data.shape == ds.data.shape


@pytest.mark.parametrize("given", ["text", ("FEI11", b"")])
def test_bad_extended_header_is_refused(path: Path, given: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="extended_header"):
        mrc_xarray.to_mrc(STACK, path, extended_header=given)
    assert not path.exists()


# files of others --------------------------------------------------------------------------------

RealFile = Callable[[str], Path]


@pytest.mark.parametrize("name", ["EMD-3197.map", "fei-extended.mrc"])
@pytest.mark.parametrize("chunks", [None, {}])
@kinds
def test_real_files(
    tmp_path: Path, real_file: RealFile, name: str, chunks: Any, suffix: str
) -> None:
    source = real_file(name)
    path = tmp_path / f"result{suffix}"
    ds = opened(source, chunks=chunks)
    mrc_xarray.to_mrc(ds, path)
    with mrcfile.open(source) as mrc:
        pixels, voxel = mrc.data.copy(), mrc.voxel_size
        text = [label.strip() for label in mrc.get_labels()]
    again = opened(path)
    assert again.data.dims == ds.data.dims
    for dim in ds.data.dims:
        np.testing.assert_allclose(again[dim], ds[dim], rtol=1e-6, atol=1e-3)
    if suffix == ".mrc":
        check_plain(path, pixels)
        with mrcfile.open(path) as mrc:
            for dim in ds.data.dims:
                assert mrc.voxel_size[dim] == pytest.approx(float(voxel[dim]), rel=1e-6)
    else:
        found, header = mrcz.readMRC(path)
        np.testing.assert_array_equal(found, pixels)
        assert header["pixelsize"][2] == pytest.approx(float(voxel.x), rel=1e-6)
    assert [label for label in labels(path) if label in text] == text


def test_real_extended_header(path: Path, real_file: RealFile) -> None:
    source = real_file("fei-extended.mrc")
    mrc_xarray.to_mrc(opened(source), path)
    with mrcfile.open(source) as before, mrcfile.open(path) as after:
        assert after.header.exttyp == b"FEI1"
        assert after.indexed_extended_header[0] == before.indexed_extended_header[0]
        assert after.extended_header.tobytes()[:768] == before.extended_header.tobytes()[:768]


@pytest.mark.parametrize("dims", [{"z": slice(3, 9)}, {"y": slice(2, 20, 3), "x": slice(5, 6)}])
def test_part_of_a_real_map(path: Path, real_file: RealFile, dims: Any) -> None:
    source = real_file("EMD-3197.map")
    ds = opened(source).isel(dims)
    mrc_xarray.to_mrc(ds, path)
    again = opened(path)
    for dim in "zyx":
        np.testing.assert_allclose(again[dim], ds[dim], rtol=1e-6, atol=1e-3)
    check_plain(path, ds.data.values)


# dask -------------------------------------------------------------------------------------------


def counted(pixels: Array, chunks: Any) -> tuple[da.Array, Counter[Any]]:
    """Return a lazy array, and how often each of its blocks was computed."""
    counts: Counter[Any] = Counter()

    def block(part: Array, block_info: Any = None) -> Array:
        counts[tuple(block_info[0]["chunk-location"])] += 1
        return part

    lazy = da.from_array(pixels, chunks=chunks)
    meta = np.empty((0,) * pixels.ndim, pixels.dtype)
    return lazy.map_blocks(block, meta=meta), counts


@pytest.mark.parametrize(
    "chunks",
    [
        (1, -1, -1), (2, -1, -1), (3, 4, -1), (1, 3, 5), (-1, -1, 4), (-1, 2, -1), (4, 1, 1),
        ((1, 3, 2), (5, 3), (2, 8)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
@pytest.mark.parametrize("options", [{}, {"statistics": False}, {"statistics": "quick"}])
@kinds
def test_each_block_is_computed_once(
    tmp_path: Path, chunks: Any, scheduler: str, options: Any, suffix: str
) -> None:
    pixels = noise((6, 8, 10), "i2")
    lazy, counts = counted(pixels, chunks)
    path = tmp_path / f"result{suffix}"
    with dask.config.set(scheduler=scheduler):
        mrc_xarray.to_mrc(lazy, path, **options)
    assert len(counts) == lazy.npartitions
    assert set(counts.values()) == {1}
    if suffix == ".mrc":
        # statistics of one section are wrong ones to mrcfile
        check_plain(path, pixels, valid=options.get("statistics") != "quick")
    else:
        np.testing.assert_array_equal(mrcz.readMRC(path)[0], pixels)


@pytest.mark.parametrize("chunks", [(1, 1, -1, -1), (2, 1, 3, -1), (1, 3, -1, 2), (-1, 2, 5, 5)])
@pytest.mark.parametrize("dims", [("volume", "z", "y", "x"), ("scan_y", "scan_x", "y", "x")])
@unwarned
@kinds
def test_blocks_of_several_leading_dimensions(
    tmp_path: Path, chunks: Any, dims: Any, suffix: str
) -> None:
    pixels = noise((4, 3, 8, 10), "i2")
    lazy, counts = counted(pixels, chunks)
    path = tmp_path / f"result{suffix}"
    mrc_xarray.to_mrc(xr.DataArray(lazy, dims=dims), path)
    assert set(counts.values()) == {1}
    if suffix == ".mrc":
        check_plain(path, pixels)
    else:
        np.testing.assert_array_equal(np.reshape(mrcz.readMRC(path)[0], pixels.shape), pixels)


@pytest.mark.parametrize("chunks", [(2, 2, 7), (1, -1, 3)])
def test_blocks_that_cut_packed_pixels(path: Path, chunks: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 16, (3, 4, 15), "u1")
    lazy, counts = counted(pixels, chunks)
    mrc_xarray.to_mrc(lazy, path, mode=101)
    assert set(counts.values()) == {1}
    assert path.read_bytes()[1024:] == by_hand.pack_4bit(pixels).tobytes()


@pytest.mark.parametrize("lazy", [False, True])
@kinds
def test_nothing_happens_before_it_is_computed(tmp_path: Path, lazy: bool, suffix: str) -> None:
    pixels = noise((6, 8, 10), "i2")
    data, counts = counted(pixels, (2, 3, -1))
    path = tmp_path / f"result{suffix}"
    delayed = mrc_xarray.to_mrc(data if lazy else pixels, path, compute=False)
    assert not counts
    assert list(tmp_path.iterdir()) == []
    assert delayed.compute() is None
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert set(counts.values()) <= {1}
    np.testing.assert_array_equal(opened(path).data, pixels)


def test_delayed_overwrite_leaves_the_old_file_until_then(path: Path) -> None:
    path.write_bytes(before := by_hand.mrc(STACK))
    delayed = mrc_xarray.to_mrc(STACK + 1, path, compute=False, overwrite=True)
    assert path.read_bytes() == before
    (done,) = dask.compute(delayed)
    assert done is None
    check_plain(path, STACK + 1)


def test_existing_file_is_not_overwritten_when_it_came_in_the_meantime(path: Path) -> None:
    delayed = mrc_xarray.to_mrc(STACK, path, compute=False)
    path.write_bytes(before := by_hand.mrc(STACK + 1))
    with pytest.raises(FileExistsError):
        delayed.compute()
    assert path.read_bytes() == before


def test_two_delayed_writes_together(tmp_path: Path) -> None:
    lazy, counts = counted(STACK, (1, -1, -1))
    paths = [tmp_path / "a.mrc", tmp_path / "b.mrcz"]
    dask.compute(*(mrc_xarray.to_mrc(lazy + k, p, compute=False) for k, p in enumerate(paths)))
    assert set(counts) == {(k, 0, 0) for k in range(3)}
    for k, path in enumerate(paths):
        np.testing.assert_array_equal(opened(path).data, STACK + k)


def peak(run: Callable[[], Any]) -> int:
    """Return the most memory that was in use at once, in bytes; NumPy's arrays are counted."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        run()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def generated(shape: tuple[int, ...], chunks: Any, dtype: str = "i2") -> da.Array:
    """Return data that are nowhere until they are computed."""

    def block(block_info: Any = None) -> Array:
        return noise(block_info[None]["chunk-shape"], dtype) & 7

    chunks = da.core.normalize_chunks(chunks, shape, dtype=dtype)
    return da.map_blocks(block, chunks=chunks, dtype=dtype, meta=np.empty((0,) * 3, dtype))


@pytest.mark.parametrize(
    "chunks", [(1, 1024, 1024), (2, 512, 1024), (2, 1024, 512)], ids=["whole", "rows", "columns"]
)
@kinds
def test_memory_of_a_write_is_a_few_chunks(tmp_path: Path, chunks: Any, suffix: str) -> None:
    lazy = generated((64, 1024, 1024), chunks)
    assert lazy.nbytes == 128 * MiB
    path = tmp_path / f"result{suffix}"
    with dask.config.set(scheduler="threads", num_workers=2):
        used = peak(lambda: mrc_xarray.to_mrc(lazy, path))
    assert used < 0.2 * lazy.nbytes
    np.testing.assert_array_equal(opened(path).data[57], lazy[57])


@pytest.mark.parametrize(("chunks", "mode"), [(None, None), ({}, 2)])
@kinds
def test_memory_of_a_copy_is_a_few_chunks(
    tmp_path: Path, chunks: Any, mode: int | None, suffix: str
) -> None:
    """Without chunks, too: a lazy array is not loaded as a whole, and is lazy afterwards."""
    shape = (256, 512, 512)
    source = tmp_path / "source.mrc"
    source.write_bytes(by_hand.header(shape, 1, ispg=0, mz=1))
    with source.open("r+b") as file:
        file.truncate(1024 + 128 * MiB)
    path = tmp_path / f"result{suffix}"
    ds = opened(source, chunks=chunks)
    with dask.config.set(scheduler="threads", num_workers=2):
        used = peak(lambda: mrc_xarray.to_mrc(ds, path, mode=mode))
    assert used < (64 if mode is None else 128) * MiB
    assert opened(path).data.shape == shape


@pytest.mark.parametrize("n", [1000])
def test_many_small_sections_are_written_quickly(path: Path, n: int) -> None:
    """One task a block, and not one a section."""
    pixels = np.arange(n * 64, dtype="i4").reshape(n, 8, 8).astype("f4")
    lazy, counts = counted(pixels, (500, -1, -1))
    mrc_xarray.to_mrc(lazy, path)
    assert sum(counts.values()) == 2
    check_plain(path, pixels)


# what a review found ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize(
    ("mode", "limit"), [(0, 128), (1, 2**15), (6, 2**16), (7, 2**31), (8, 2**32)]
)
@unwarned
def test_no_integer_overflows(path: Path, dtype: str, mode: int, limit: int) -> None:
    for value in (float(limit), np.inf):
        with np.errstate(over="ignore"):
            pixels = np.full((4, 4), value, dtype)
        with pytest.raises(MrcError, match="can't hold"):
            mrc_xarray.to_mrc(pixels, path, mode=mode)
    assert not path.exists()


def test_two_writes_of_the_same_data_are_two(path: Path) -> None:
    data = da.ones((2, 4, 4), dtype="f4", chunks=(1, 4, 4))
    mrc_xarray.create(path, (4, 4, 4), "f4")
    regions = [{"z": slice(0, 2)}, {"z": slice(2, 4)}]
    tasks = [mrc_xarray.to_mrc(data, path, region=r, compute=False) for r in regions]
    dask.compute(*tasks)
    assert (opened(path).data == 1).all()


def test_skew_and_symmetry_are_carried_together(path: Path, tmp_path: Path) -> None:
    source = tmp_path / "source.mrc"
    raw = bytearray(by_hand.mrc(noise((3, 4, 5)), extended=b"X,  Y,  Z".ljust(80)))
    skew = struct.pack("<i12f", 1, *range(2, 14))
    raw[96:148] = skew
    source.write_bytes(raw)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MrcWarning)
        mrc_xarray.to_mrc(opened(source).data * 2, path)
    assert path.read_bytes()[96:148] == skew
    assert path.read_bytes()[1024:1104] == raw[1024:1104]


@unwarned
def test_records_of_joined_files_are_not_mixed_up(path: Path, tmp_path: Path) -> None:
    angles = []
    parts = []
    for name, tilts in (("a", (10, 20, 30)), ("b", (-60, -50, -40))):
        source = tmp_path / f"{name}.st"
        records = b"".join(struct.pack("<h", 100 * tilt) for tilt in tilts)
        source.write_bytes(
            by_hand.mrc(noise((3, 4, 5)), extended=records, exttyp=b"SERI", nint=2, nreal=1)
        )
        parts.append(opened(source).data)
        angles += tilts
    joined = xr.concat(parts, "image")
    assert joined.tilt_angle.values.tolist() == angles
    mrc_xarray.to_mrc(joined, path)
    assert field(path, "nsymbt") == 0


def test_records_that_the_user_corrects_are_dropped_aloud(tmp_path: Path) -> None:
    source, path = tmp_path / "a.st", tmp_path / "b.mrcs"
    records = b"".join(struct.pack("<h", 100 * tilt) for tilt in (10, 20, 30))
    source.write_bytes(
        by_hand.mrc(noise((3, 4, 5)), extended=records, exttyp=b"SERI", nint=2, nreal=1)
    )
    data = opened(source).data.assign_coords(tilt_angle=("image", [1.0, 2.0, 3.0]))
    with pytest.warns(MrcWarning, match="tilt_angle.*contradict"):
        mrc_xarray.to_mrc(data, path)


@pytest.mark.parametrize("suffix", [".mrc", ".mrcz"])
def test_averaged_to_one_voxel_the_size_is_unknown(tmp_path: Path, suffix: str) -> None:
    source, path = tmp_path / "a.mrc", tmp_path / f"b{suffix}"
    source.write_bytes(by_hand.mrc(noise((4, 4, 4)), cella=(8, 8, 8)))
    one = opened(source).data.coarsen(z=4).mean()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MrcWarning)
        mrc_xarray.to_mrc(one, path, mode=2)
    assert field(path, "cella")[2] == 0
    mrc_xarray.to_mrc(opened(source).data[1:2], path, overwrite=True)
    assert field(path, "cella")[2] == 2


def test_irregular_positions_far_away_are_refused(path: Path) -> None:
    x = 1e7 + np.array([0, 10, 20, 35, 40, 50.0])
    coords = {"x": ("x", x, {"units": "angstrom"})}
    data = xr.DataArray(noise((4, 6)), dims=("y", "x"), coords=coords)
    with pytest.raises(MrcError, match="x is not regular"):
        mrc_xarray.to_mrc(data, path)


def test_decreasing_positions_are_refused_whatever_the_voxel_size(path: Path) -> None:
    x = ("x", np.arange(6)[::-1] * 10.0, {"units": "angstrom"})
    data = xr.DataArray(noise((4, 6)), dims=("y", "x"), coords={"x": x})
    with pytest.raises(MrcError, match="x decreases"):
        mrc_xarray.to_mrc(data, path, voxel_size=10)


def test_positions_beyond_any_stage_are_told(path: Path) -> None:
    x = ("x", 1e12 + np.arange(6.0), {"units": "angstrom"})
    data = xr.DataArray(noise((4, 6)), dims=("y", "x"), coords={"x": x})
    with pytest.warns(MrcWarning, match="beyond 10 cm"):
        mrc_xarray.to_mrc(data, path)


@pytest.mark.parametrize("suffix", [".mrc", ".mrcz"])
@pytest.mark.parametrize("columns", [3, 9])
def test_blocks_of_another_shape_are_refused(tmp_path: Path, suffix: str, columns: int) -> None:
    block = dask.delayed(np.ones)((4, 5, columns), "f4")
    data = da.from_delayed(block, (4, 5, 6), "f4")
    with pytest.raises(MrcError, match="its chunks declare"):
        mrc_xarray.to_mrc(data, tmp_path / f"a{suffix}")


def test_masked_data(path: Path) -> None:
    pixels = np.ma.masked_less(noise((4, 5)), 0)
    with pytest.raises(MrcError, match="masked"):
        mrc_xarray.to_mrc(da.ma.masked_less(da.from_array(pixels.data), 0), path)
    # xarray fills arrays in memory
    mrc_xarray.to_mrc(pixels, path)
    np.testing.assert_array_equal(opened(path).data, pixels.filled(np.nan))


def test_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MrcError, match="not a regular file"):
        mrc_xarray.to_mrc(noise((4, 5)), tmp_path / "pipe", overwrite=True)


def test_colons_in_a_name(tmp_path: Path) -> None:
    mrc_xarray.to_mrc(noise((4, 5)), tmp_path / "a::b.mrc")
    assert os.listdir(tmp_path) == ["a::b.mrc"]


def test_volume_beside_an_mdoc_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.mrc.mdoc").write_text("[ZValue = 0]\n")
    with pytest.warns(MrcWarning, match="layout='volume'"):
        mrc_xarray.to_mrc(noise((3, 4, 5)), tmp_path / "a.mrc")


def test_numbers_beyond_float32_are_refused_at_once(path: Path) -> None:
    with pytest.raises(MrcError, match="more than a header can hold"):
        mrc_xarray.to_mrc(
            da.ones((4, 5)).map_blocks(lambda b: 1 / 0, dtype="f4"), path, voltage=1e39
        )


def test_rows_and_columns_come_last(path: Path) -> None:
    data = xr.DataArray(noise((3, 4, 5)), dims=("y", "x", "image"))
    with pytest.raises(MrcError, match=r"data.transpose\('image', ...\)"):
        mrc_xarray.to_mrc(data, path)


def test_arrays_in_memory_are_not_copied(path: Path, tmp_path: Path) -> None:
    """Such as a map of a file that is larger than memory."""
    np.save(tmp_path / "a.npy", np.zeros((64, 256, 1024), "f4"))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    tracemalloc.start()
    try:
        mrc_xarray.to_mrc(mapped, path, statistics=False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < mapped.nbytes / 8


@pytest.mark.parametrize(("chunks", "suffix"), [((64, 64, 4), ".mrc"), ((64, 8, 512), ".mrcz")])
def test_memory_of_chunks_that_cut(tmp_path: Path, chunks: Any, suffix: str) -> None:
    """Thin chunks are joined, and no larger than they must be."""
    data = da.zeros((64, 512, 512), dtype="f4", chunks=chunks)
    tracemalloc.start()
    try:
        mrc_xarray.to_mrc(data, tmp_path / f"a{suffix}", statistics=False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2.5 * data.nbytes


@pytest.mark.parametrize(
    "values",
    [
        np.array([1, 2, 3], "m8[s]"),
        np.array(["2024-01-01", "NaT", "2025-01-01"], "M8[ns]"),
        np.array([1 + 2j, 3, 4]),
        np.array([True, False, True]),
        np.array(["a", "b", "c"]),
    ],
    ids=str,
)
def test_coordinates_of_any_kind_come_back(tmp_path: Path, values: Any) -> None:
    data = xr.DataArray(
        noise((3, 4, 5)), dims=("tilt", "y", "x"), coords={"c": ("tilt", values)}
    ).assign_attrs(note="kept")
    mrc_xarray.to_mrc(data, tmp_path / "a.mrcz")
    again = opened(tmp_path / "a.mrcz").data
    assert again.dims == data.dims
    np.testing.assert_array_equal(again.c, values)
    assert again.c.dtype.kind == values.dtype.kind
    assert again.attrs["note"] == "kept"


def test_what_json_can_not_hold_is_told(tmp_path: Path) -> None:
    data = xr.DataArray(noise((4, 5)), dims=("y", "x"), attrs={"good": 1, "bad": {1, 2}})
    with pytest.warns(MrcWarning, match="bad, for which JSON has no form"):
        mrc_xarray.to_mrc(data, tmp_path / "a.mrcz")
    assert opened(tmp_path / "a.mrcz").data.attrs["good"] == 1
