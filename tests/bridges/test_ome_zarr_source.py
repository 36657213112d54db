"""OME-Zarr by other programs, by hand, and by nobody."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
import xarray as xr
import zarr

from mrc_xarray import MrcError, MrcWarning, open_ome_zarr
from mrc_xarray.cli import main

Array = np.ndarray[Any, Any]
PIXELS = np.random.default_rng(4).integers(0, 99, (6, 8, 10), "u2")


def axes(dims: str, unit: str = "angstrom") -> list[dict[str, str]]:
    kinds = {"t": "time", "c": "channel"}
    return [
        {"name": dim, "type": kinds.get(dim, "space")} | ({} if dim in kinds else {"unit": unit})
        for dim in dims
    ]


def scaled(path: str, scale: list[float], translation: list[float] | None = None) -> Any:
    transforms: list[Any] = [{"type": "scale", "scale": scale}]
    if translation is not None:
        transforms.append({"type": "translation", "translation": translation})
    return {"path": path, "coordinateTransformations": transforms}


def written(folder: Path, image: dict[str, Any], arrays: dict[str, Array], version: str) -> str:
    """Write a store as ome-zarr-py does: the levels 0, 1, … in the root."""
    store, zarr_format = str(folder / "theirs.zarr"), 2 if version < "0.5" else 3
    root = zarr.open_group(store, mode="w", zarr_format=zarr_format)
    for path, pixels in arrays.items():
        root.create_array(path, data=pixels, chunks=pixels.shape)
    found = {"multiscales": [{"version": version, **image}]}
    root.attrs.update(found if version < "0.5" else {"ome": {"version": version, **found}})
    return store


def five_dimensions(folder: Path, version: str, unit: str = "nanometer") -> str:
    image = {
        "axes": axes("tczyx", unit),
        "datasets": [
            scaled("0", [1, 1, 0.5, 0.25, 0.25], [0, 0, 1, 0, -3]),
            scaled("1", [1, 1, 1, 0.5, 0.5], [0, 0, 1.25, 0.125, -2.875]),
        ],
        # of all levels
        "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 2, 2, 2]}],
    }
    levels = {"0": PIXELS[None, None], "1": PIXELS[None, None, ::2, ::2, ::2]}
    return written(folder, image, levels, version)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_store_of_light_microscopy(version: str, tmp_path: Path) -> None:
    """Single times and channels are left out, zeros are numbers, and nanometres are ångström."""
    store = five_dimensions(tmp_path, version)
    ds = open_ome_zarr(store)
    assert ds.data.dims == ("z", "y", "x")
    assert ds.data.dtype == "u2"
    np.testing.assert_array_equal(ds.data, PIXELS)
    assert ds.mrc.voxel_size == {"z": 10.0, "y": 5.0, "x": 5.0}
    assert ds.z.values.tolist() == [20, 30, 40, 50, 60, 70]
    assert ds.x.values[:2].tolist() == [-60, -55]
    target = tmp_path / "a.mrc"
    assert main(["convert", "--quiet", store, str(target), "--level", "1"]) == 0
    with mrcfile.open(target) as file:
        np.testing.assert_array_equal(file.data, PIXELS[::2, ::2, ::2])
        assert file.voxel_size.tolist() == (10, 10, 20)
        assert file.header.origin.tolist() == (-57.5, 2.5, 25)


def test_pixels_are_read_when_they_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = five_dimensions(tmp_path, "0.4")
    (tmp_path / "theirs.zarr" / "0" / "0.0.0.0.0").write_bytes(b"not a chunk")
    ds = open_ome_zarr(store)
    assert ds.data.chunks is None
    assert ds.data.encoding["preferred_chunks"]["x"] == 10
    with pytest.raises(Exception):  # noqa: B017, PT011  # of any codec
        ds.load()


def test_other_units(tmp_path: Path) -> None:
    times: dict[str, Any] = {"name": "t", "type": "time", "unit": "millisecond"}
    image = {
        "axes": [times, *axes("yx", "picometer")],
        "datasets": [scaled("0", [40, 50, 50])],
    }
    ds = open_ome_zarr(written(tmp_path, image, {"0": PIXELS}, "0.5"))
    assert ds.t.attrs["units"] == "ms"
    assert ds.t.values[:2].tolist() == [0, 40]
    assert ds.mrc.voxel_size == {"y": 0.5, "x": 0.5}
    # a unit that is none
    times["unit"] = [{"\x1b[2J": 1}]
    found = open_ome_zarr(written(tmp_path, image, {"0": PIXELS}, "0.5"))
    assert found.t.attrs["units"].isprintable()


def test_scales_without_a_unit(tmp_path: Path) -> None:
    image: dict[str, Any] = {"axes": [{"name": n, "type": "space"} for n in "zyx"]}
    image["datasets"] = [
        scaled(str(i), scale) for i, scale in enumerate(([1, 1, 1], [2, 2, 2], [3, 1, 1]))
    ]
    store = written(tmp_path, image, dict.fromkeys("012", PIXELS), "0.4")
    assert not open_ome_zarr(store).coords
    assert not open_ome_zarr(store, level=1).coords
    with pytest.warns(MrcWarning, match="scales along z have no unit"):
        assert not open_ome_zarr(store, level=2).coords


@pytest.mark.parametrize(
    ("image", "dims"),
    [
        # versions 0.1 to 0.3
        ({"datasets": [{"path": "0"}]}, "zyx"),
        ({"axes": ["c", "y", "x"], "datasets": [{"path": "0"}]}, "cyx"),
        (
            {"axes": axes("zyx"), "datasets": [{"path": "0", "coordinateTransformations": [
                {"type": "identity"}]}]},
            "zyx",
        ),
    ],
)  # fmt: skip
def test_old_metadata(image: dict[str, Any], dims: str, tmp_path: Path) -> None:
    ds = open_ome_zarr(written(tmp_path, image, {"0": PIXELS}, "0.1"))
    assert ds.data.dims == tuple(dims)
    np.testing.assert_array_equal(ds.data, PIXELS)


def entry(**changes: Any) -> dict[str, Any]:
    return {"axes": axes("zyx"), "datasets": [scaled("0", [1, 1, 1]) | changes]}


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ({}, "the metadata of level 0 of the image can't be used: 'datasets'"),
        (entry(path=5), "'int' object has no attribute 'strip'"),
        (entry(path="../../0"), "can't be used: .*'.' or '..'"),
        (entry(path="9\x1b[2J"), r"the path is '9\\x1b\[2J'; accepted: that of an array"),
        (entry(path=""), "the path is ''"),
        (
            entry(coordinateTransformations=[{"type": "scale", "scale": [1]}]),
            "scale has 1 entries",
        ),
        (entry(coordinateTransformations=[{"type": "scale", "path": "0"}]), "'scale'"),
        (entry(coordinateTransformations=[{"type": "scale", "scale": "abc"}]), "to float: 'a'"),
        (entry(coordinateTransformations=[{"type": "affine", "affine": [1]}]), "is 'affine'"),
        (
            entry(coordinateTransformations=[{"type": "scale", "scale": 3 * [10**400]}]),
            "int too large",
        ),
        ({**entry(), "datasets": []}, "level 0 of the image can't be used: list index"),
        ({**entry(), "axes": axes("yx")}, "axes has 2 entries; accepted: 3, one per"),
        ({**entry(), "axes": axes("zzx")}, "the axes are z, z, x; accepted: 3 different names"),
        ({**entry(), "axes": ["data", "y", "x"]}, "the axes are data, y, x; accepted: 3 diff"),
        ({**entry(), "axes": [{"name": 5}, "y", "x"]}, "has no attribute"),
        ({**entry(), "axes": 7}, "not iterable"),
        ([], "no 'multiscales' of OME-Zarr"),
    ],
)
def test_malformed_metadata(image: Any, message: str, tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    array = zarr.create_array(store / "0", data=PIXELS)
    assert array.shape == PIXELS.shape
    node = {"zarr_format": 3, "node_type": "group"}
    node["attributes"] = {"ome": {"multiscales": [image]}}  # type: ignore[assignment]
    (store / "zarr.json").write_text(json.dumps(node))
    with pytest.raises(MrcError, match=message) as caught:
        open_ome_zarr(store)
    assert str(caught.value).isprintable()


def test_positions_that_are_not_finite(tmp_path: Path) -> None:
    """They are no coordinates, and neither are those of sizes that no image has."""
    infinite = [{"type": "scale", "scale": [1e400, -1, 0]}]
    image = {
        "axes": axes("zyx"),
        "datasets": [{"path": "0", "coordinateTransformations": infinite}],
    }
    assert not open_ome_zarr(written(tmp_path, image, {"0": PIXELS}, "0.4")).coords
    root = zarr.open_group(str(tmp_path / "large.zarr"), mode="w")
    root.create_array("0", shape=(2**40, 2**40), chunks=(2**10, 2**10), dtype="u1")
    image = {"axes": axes("yx"), "datasets": [scaled("0", [1, 1])]}
    root.attrs["ome"] = {"multiscales": [image]}
    assert not open_ome_zarr(tmp_path / "large.zarr").coords


@pytest.mark.parametrize("level", [2, -1, "0"])
def test_unknown_level(level: Any, tmp_path: Path) -> None:
    store = five_dimensions(tmp_path, "0.5")
    with pytest.raises(MrcError, match=f"level is {level!r}; accepted: 0 to 1"):
        open_ome_zarr(store, level=level)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_store_of_ngff_zarr(version: str, tmp_path: Path) -> None:
    import ngff_zarr

    image = ngff_zarr.to_ngff_image(
        PIXELS,
        dims=["z", "y", "x"],
        scale={"z": 2.5, "y": 2.5, "x": 2.5},
        translation={"z": 5.0, "y": 0.0, "x": -10.0},
        name="theirs",
        axes_units=dict.fromkeys("zyx", "angstrom"),
    )
    method = ngff_zarr.Methods.DASK_BIN_SHRINK
    images = ngff_zarr.to_multiscales(image, scale_factors=[2], method=method)
    store = tmp_path / "theirs.ome.zarr"
    ngff_zarr.to_ngff_zarr(str(store), images, version=version)
    for i, expected in enumerate(images.images):
        ds = open_ome_zarr(store, level=i)
        np.testing.assert_array_equal(ds.data, expected.data)
        assert ds.mrc.voxel_size == expected.scale
        assert {dim: float(ds[dim][0]) for dim in ds.data.dims} == expected.translation
    for suffix in (".mrc", ".mrcz", ".nc"):
        target = str(tmp_path / f"a{suffix}")
        assert main(["convert", "--quiet", str(store), target, "--select", "z=10:15A"]) == 0
        with xr.open_dataset(target, engine="netcdf4" if suffix == ".nc" else "mrc") as found:
            np.testing.assert_array_equal(found.data, PIXELS[2:5])
            assert found.mrc.voxel_size == {"z": 2.5, "y": 2.5, "x": 2.5}
