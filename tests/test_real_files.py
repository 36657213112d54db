"""Files by microscopes, archives and detectors, compared with what mrcfile reads."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import xarray as xr

RealFile = Callable[[str], Path]

DIRECT_ELECTRON = "direct_electron/20241021_00405"
# name → dimensions
FILES = {
    "EMD-3197.map": ("z", "y", "x"),
    "fei-extended.mrc": ("y", "x"),
    f"{DIRECT_ELECTRON}_movie.mrc": ("scan_y", "scan_x", "ky", "kx"),
    f"{DIRECT_ELECTRON}_final.mrc": ("y", "x"),
    f"{DIRECT_ELECTRON}_ext1_Ext 1.mrc": ("y", "x"),
    f"{DIRECT_ELECTRON}_0_Virt 0_sum.mrc": ("y", "x"),
    f"{DIRECT_ELECTRON}_1_Virt 1_sum.mrc": ("y", "x"),
    "direct_electron/Custom_movie.mrc": ("repeat", "scan_y", "scan_x", "ky", "kx"),
}


@pytest.mark.parametrize("chunks", [None, {}], ids=["plain", "chunked"])
@pytest.mark.parametrize("name", FILES)
def test_values(real_file: RealFile, name: str, chunks: dict[str, int] | None) -> None:
    path = real_file(name)
    with mrcfile.open(path) as mrc, xr.open_dataset(path, engine="mrc", chunks=chunks) as ds:
        assert ds.data.dims == FILES[name]
        assert ds.data.dtype == mrc.data.dtype
        found = ds.data.values
        if "frame_index" in ds:
            # a custom scan, which did not visit every position
            order = np.argsort(ds.frame_index.values, axis=None)[-len(mrc.data) :]
            found = found.reshape(-1, *found.shape[-2:])[order]
        np.testing.assert_array_equal(found.reshape(mrc.data.shape), mrc.data)


@pytest.mark.parametrize("name", FILES)
def test_header(real_file: RealFile, name: str) -> None:
    path = real_file(name)
    with mrcfile.open(path) as mrc, xr.open_dataset(path, engine="mrc", strict=True) as ds:
        header = ds.mrc.header
        for field in ("nx", "ny", "nz", "mode", "mx", "mz", "mapc", "ispg", "nsymbt", "nversion"):
            assert header[field] == mrc.header[field].item()
        assert header.exttyp.encode() == mrc.header.exttyp.item()
        assert header.encode() == path.read_bytes()[:1024]


@pytest.mark.parametrize(("name", "dims"), [("EMD-3197.map", "zyx"), ("fei-extended.mrc", "yx")])
def test_voxel_size(real_file: RealFile, name: str, dims: str) -> None:
    path = real_file(name)
    with mrcfile.open(path) as mrc, xr.open_dataset(path, engine="mrc") as ds:
        expected = {axis: float(mrc.voxel_size[axis]) for axis in dims}
        assert ds.mrc.voxel_size == pytest.approx(expected, rel=1e-6)


def test_position_of_an_emdb_map(real_file: RealFile) -> None:
    with xr.open_dataset(real_file("EMD-3197.map"), engine="mrc") as ds:
        header, voxel = ds.mrc.header, ds.mrc.voxel_size
        assert (header.nxstart, header.nversion) == (-2, 0)
        assert ds.x.item(0) == pytest.approx(-2 * voxel["x"])
        assert ds.data.attrs["mrc_layout"] == "volume"


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("direct_electron")])
def test_direct_electron_has_no_voxel_size(real_file: RealFile, name: str) -> None:
    with xr.open_dataset(real_file(name), engine="mrc", strict=True) as ds:
        assert not {"x", "y"} & set(ds.coords)
        assert not {"x", "y"} & set(ds.mrc.voxel_size)


def test_scan(real_file: RealFile) -> None:
    path = real_file(f"{DIRECT_ELECTRON}_movie.mrc")
    with mrcfile.open(path) as mrc:
        frames = mrc.data.copy()
    shape = (8, len(frames) // 8)
    with xr.open_dataset(path, engine="mrc", scan_shape=shape, chunks={}) as ds:
        # the info file says that the frames are diffraction patterns
        assert ds.data.dims == ("scan_y", "scan_x", "ky", "kx")
        image = ds.data.mean(("ky", "kx"))
        np.testing.assert_allclose(image, frames.mean((1, 2)).reshape(shape))


@pytest.mark.parametrize("name", ["emd_3197.map.gz", "EMD-3197.map.bz2"])
def test_a_compressed_map_is_the_map(real_file: RealFile, name: str) -> None:
    with (
        xr.open_dataset(real_file(name), engine="mrc") as ds,
        xr.open_dataset(real_file("EMD-3197.map"), engine="mrc") as plain,
    ):
        xr.testing.assert_equal(ds, plain)


def test_without_an_engine(real_file: RealFile) -> None:
    with xr.open_dataset(real_file("fei-extended.mrc")) as ds:
        assert ds.data.sizes == {"y": 3838, "x": 3710}


# name → dimensions, dimensions with a voxel size, and the fields that the engine warns about
ODD_FILES: dict[str, tuple[str, str, list[str]]] = {
    "2dx_no_map_word.mrc": ("yx", "yx", ["MAP"]),
    "celeritas_dark.mrc": ("iyx", "", ["NZ", "CELLA.x, CELLA.y"]),
    "imp_invalid_axes.mrc": ("zyx", "zyx", ["MAPC, MAPR, MAPS"]),
    "leginon.mrc": ("yx", "yx", []),
    "unsigned_bytes.rec": ("yx", "yx", ["MAP"]),
}


@pytest.mark.parametrize("name", ODD_FILES)
def test_one_cause_is_one_warning(real_file: RealFile, name: str) -> None:
    dims, with_voxels, fields = ODD_FILES[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ds = xr.open_dataset(real_file(f"real/{name}"), engine="mrc", truncated="trim")
    assert "".join(str(dim)[0] for dim in ds.data.dims) == dims
    assert "".join(ds.mrc.voxel_size) == with_voxels
    found = [str(warning.message).split(": ", 1)[1] for warning in caught]
    assert [text.partition(" (bytes")[0] for text in found] == fields
