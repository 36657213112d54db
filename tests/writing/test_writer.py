"""What is written is what other programs read, and what comes back."""

from __future__ import annotations

import itertools
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import by_hand
import dask
import dask.array as da
import fsspec
import mrcfile
import mrcz
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from writes import (
    ORDERS,
    Array,
    check_plain,
    counted,
    field,
    kinds,
    labelled,
    labels,
    noise,
    opened,
    stored,
    unwarned,
    warned,
)

from mrc_xarray import MrcError, MrcWarning, create, to_mrc

# what is written → MODE, and what comes back
DTYPES = {
    "bool": (0, "i1"), "i1": (0, "i1"), "i2": (1, "i2"), "f4": (2, "f4"), "c8": (4, "c8"),
    "u1": (6, "u2"), "u2": (6, "u2"), "i4": (7, "i4"), "u4": (8, "u4"), "f2": (12, "f2"),
}  # fmt: skip


# modes that the oracles know
MRCFILE = {0, 1, 2, 4, 6, 12}
MRCZ = {0, 1, 2, 4, 6, 7, 8}
# one of each unit, in Å
UNITS = {"angstrom": 1.0, "nm": 10.0, "pm": 0.01, "um": 1e4}
STACK = noise((3, 4, 5))


LAYOUTS = [
    ("y", "x"),
    ("image", "y", "x"),
    ("image", "channel", "y", "x"),
    ("volume", "z", "y", "x"),
    *itertools.permutations("zyx"),
]
LEAST = {"image": 2, "channel": 2}


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

    chunkings = {
        "numpy": {},
        "sections": dict.fromkeys(dims[:-2], 1),
        "rows": {dims[-2]: 2},
        "columns": {dims[-1]: 2},
        "pairs": dict.fromkeys(dims[:-2], 2),
        "everything": {dim: draw(st.integers(1, 3)) for dim in dims},
    }
    sizes = chunkings[draw(st.sampled_from(sorted(chunkings)))]
    data = data.chunk(sizes) if sizes else data
    return Case(pixels, data, voxel, units, draw(st.sampled_from(sorted(ORDERS))), suffix)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
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
            to_mrc(data, path, byteorder=byteorder)
        expected = pixels.astype(dtype)
        assert field(path, "mode", order) == mode + (6000 if suffix == ".mrcz" else 0)

        ds = opened(path, units=units)
        assert ds.data.dims == data.dims
        assert ds.data.dtype == expected.dtype
        np.testing.assert_array_equal(ds.data, expected)
        for dim in {"x", "y", "z"} & set(data.dims):
            given = data[dim].values
            size = np.abs(given).max() + given.size * voxel[dim] / UNITS[units]
            np.testing.assert_allclose(ds[dim], given, rtol=0, atol=4e-7 * size)
            assert ds.mrc.voxel_size[dim] == pytest.approx(voxel[dim], rel=1e-6)

        if suffix == ".mrc" and mode in MRCFILE:
            check_plain(path, expected, order)
            with mrcfile.open(path) as mrc:
                for dim in {"x", "y", "z"} & set(data.dims):
                    assert mrc.voxel_size[dim] == pytest.approx(voxel[dim], rel=1e-6)
        elif suffix == ".mrcz":
            found, header = mrcz.readMRC(path, endian={"<": "le", ">": "be"}[order])
            assert isinstance(found, list) == (data.ndim == 4)
            np.testing.assert_array_equal(np.reshape(found, expected.shape), expected)
            if data.dims[-2:] == ("y", "x"):
                expected = [voxel["y"], voxel["x"]]
                np.testing.assert_allclose(header["pixelsize"][1:], expected, rtol=1e-6)
                if data.dims == ("z", "y", "x"):
                    assert header["pixelsize"][0] == pytest.approx(voxel["z"], rel=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@unwarned
def test_every_dtype_has_its_mode(path: Path, dtype: str) -> None:
    pixels = noise((3, 4, 5), dtype)
    mode, decoded = DTYPES[dtype]
    assert to_mrc(pixels, path, byteorder="big") is None
    assert field(path, "mode", ">") == mode
    assert stored(path) == pixels.astype(np.dtype(decoded).newbyteorder(">")).tobytes()
    assert opened(path).data.dtype == np.dtype(decoded)
    if mode in MRCFILE:
        check_plain(path, pixels.astype(decoded), ">")


@pytest.mark.parametrize(
    "twist",
    [
        lambda pixels: np.asfortranarray(pixels),
        lambda pixels: pixels.astype(">f4"),
        lambda pixels: np.repeat(pixels, 2, axis=2)[:, :, ::2],
        lambda pixels: np.ascontiguousarray(pixels[::-1, ::-1, ::-1])[::-1, ::-1, ::-1],
        lambda pixels: np.moveaxis(np.moveaxis(pixels, 0, 2).copy(), 2, 0),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_any_order_in_memory(path: Path, twist: Any, chunked: bool) -> None:
    pixels = noise((4, 6, 8))
    twisted = twist(pixels)
    data = da.from_array(twisted, chunks=(2, 3, -1)) if chunked else twisted
    to_mrc(data, path)
    np.testing.assert_array_equal(twisted, pixels)
    assert stored(path) == pixels.tobytes()


@pytest.mark.parametrize(
    "write",
    [
        lambda array, path: to_mrc(array.to_dataset(name="density"), path),
        lambda array, path: array.mrc.to_file(path, mode=2, labels=["by hand"]),
        lambda array, path: array.to_dataset(name="d").mrc.to_file(str(path)),
    ],
)
def test_data_of_any_kind(path: Path, write: Any) -> None:
    write(labelled(STACK), path)
    assert stored(path) == STACK.tobytes()
    assert opened(path).mrc.voxel_size == pytest.approx({"z": 2.5, "y": 2.5, "x": 2.5})


@pytest.mark.parametrize(
    ("shape", "dims"),
    [
        ((4, 5), ("y", "x")),
        ((3, 4, 5), ("z", "y", "x")),
        ((2, 3, 4, 5), ("volume", "z", "y", "x")),
    ],
)
def test_arrays_without_labels(path: Path, shape: Any, dims: Any) -> None:
    pixels = noise(shape)
    to_mrc(da.from_array(pixels), path)
    assert field(path, "cella") == (0, 0, 0)
    ds = opened(path)
    assert ds.data.dims == dims
    assert not {"x", "y", "z"} & set(ds.coords)
    assert stored(path) == pixels.tobytes()


# what can't be written --------------------------------------------------------------------------


PIXELS = noise((4, 5, 6))
UNKNOWN = da.from_array(PIXELS)[da.from_array(np.array([True, False, True, True]))]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((2, 0, 4), "f4"), "shape"),
        (xr.DataArray(np.zeros(5, "f4")), "shape"),
        (xr.DataArray(np.zeros((0, 5), "f4")), "shape"),
        ("text", "shape"),
        (None, "shape"),
        (UNKNOWN, "compute_chunk_sizes"),
        (xr.Dataset(), "variables"),
        (xr.Dataset(dict.fromkeys("ab", (("y", "x"), PIXELS[0]))), "variables"),
        (xr.DataArray(PIXELS, dims=("y", "x", "image")), r"data.transpose\('image', ...\)"),
        (da.ma.masked_less(da.from_array(PIXELS), 0), "masked"),
    ],
)
def test_data_that_are_no_images_are_refused(path: Path, data: Any, message: str) -> None:
    with pytest.raises(MrcError, match=message):
        to_mrc(data, path)
    assert not path.exists()


def test_masked_values_in_memory_become_nan(path: Path) -> None:
    """xarray fills them."""
    pixels = np.ma.masked_less(noise((4, 5)), 0)
    assert "NaN" in warned(pixels, path)
    np.testing.assert_array_equal(opened(path).data, pixels.filled(np.nan))


@kinds
def test_blocks_of_another_shape_are_refused(tmp_path: Path, suffix: str) -> None:
    block = dask.delayed(np.ones)((4, 5, 3), "f4")
    data = da.from_delayed(block, (4, 5, 6), "f4")
    with pytest.raises(MrcError, match="its chunks declare"):
        to_mrc(data, tmp_path / f"a{suffix}")


def test_colons_in_a_name(tmp_path: Path) -> None:
    to_mrc(noise((4, 5)), tmp_path / "a::b.mrc")
    assert os.listdir(tmp_path) == ["a::b.mrc"]


class PathInStore:
    """What universal_pathlib gives for a URL: no `os.PathLike`, but a store and a name in it."""

    def __init__(self, url: str) -> None:
        self.fs, self.path = fsspec.url_to_fs(url)

    def __str__(self) -> str:
        return self.fs.unstrip_protocol(self.path)


@kinds
def test_path_in_a_store(tmp_path: Path, suffix: str) -> None:
    for url in (f"memory://paths/a{suffix}", f"file://{tmp_path}/a{suffix}"):
        target: Any = PathInStore(url)
        to_mrc(labelled(STACK), target)
        np.testing.assert_array_equal(opened(target).data, STACK)
        with pytest.raises(FileExistsError):
            labelled(STACK).mrc.to_file(target)
    with pytest.raises(MrcError, match="only a file on a disk"):
        create(PathInStore("memory://paths/b.mrc"), (4, 5), "f4")  # type: ignore[arg-type]


# files of others --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["EMD-3197.map", "fei-extended.mrc"])
@kinds
def test_real_files(
    tmp_path: Path, real_file: Callable[[str], Path], name: str, suffix: str
) -> None:
    source = real_file(name)
    path = tmp_path / f"result{suffix}"
    ds = opened(source, chunks={})
    to_mrc(ds, path)
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


# delayed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lazy", [False, True])
@kinds
def test_nothing_happens_before_it_is_computed(tmp_path: Path, lazy: bool, suffix: str) -> None:
    pixels = noise((6, 8, 10), "i2")
    data, counts = counted(pixels, (2, 3, -1))
    path = tmp_path / f"result{suffix}"
    delayed = to_mrc(data if lazy else pixels, path, compute=False)
    assert not counts
    assert list(tmp_path.iterdir()) == []
    assert delayed.compute() is None
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert set(counts.values()) <= {1}
    np.testing.assert_array_equal(opened(path).data, pixels)


def test_delayed_overwrite_leaves_the_old_file_until_then(path: Path) -> None:
    path.write_bytes(before := by_hand.mrc(STACK))
    delayed = to_mrc(STACK + 1, path, compute=False, overwrite=True)
    assert path.read_bytes() == before
    assert dask.compute(delayed) == (None,)
    check_plain(path, STACK + 1)


def test_existing_file_is_not_overwritten_if_it_appears_in_the_meantime(path: Path) -> None:
    delayed = to_mrc(STACK, path, compute=False)
    path.write_bytes(before := by_hand.mrc(STACK + 1))
    with pytest.raises(FileExistsError):
        delayed.compute()
    assert path.read_bytes() == before


def test_two_delayed_writes_together(tmp_path: Path) -> None:
    lazy, counts = counted(STACK, (1, -1, -1))
    paths = [tmp_path / "a.mrc", tmp_path / "b.mrcz"]
    dask.compute(*(to_mrc(lazy + k, p, compute=False) for k, p in enumerate(paths)))
    assert set(counts) == {(k, 0, 0) for k in range(3)}
    for k, path in enumerate(paths):
        np.testing.assert_array_equal(opened(path).data, STACK + k)


def test_two_writes_of_the_same_data_are_two(path: Path) -> None:
    data = da.ones((2, 4, 4), dtype="f4", chunks=(1, 4, 4))
    create(path, (4, 4, 4), "f4")
    regions = [{"z": slice(0, 2)}, {"z": slice(2, 4)}]
    tasks = [to_mrc(data, path, region=r, compute=False) for r in regions]
    dask.compute(*tasks)
    assert (opened(path).data == 1).all()


@kinds
def test_file_with_the_same_header_is_replaced(tmp_path: Path, suffix: str) -> None:
    """The label has the second in which the file was written, and statistics have no order."""
    path, heads = tmp_path / f"result{suffix}", [b"", b"-"]
    pixels = np.arange(60, dtype="i2").reshape(3, 4, 5)
    while heads[0] != heads[1]:
        for k, part in enumerate((pixels, pixels[:, ::-1])):
            to_mrc(part, path, overwrite=True, compressor=None)
            heads[k] = path.read_bytes()[:1024]
    np.testing.assert_array_equal(opened(path, layout="volume").data, pixels[:, ::-1])
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
