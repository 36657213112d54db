from __future__ import annotations

import gzip
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import by_hand
import mrcfile
import mrcz_by_hand
import numpy as np
import pytest
import writes
import xarray as xr

import mrc_xarray
from mrc_xarray import MrcError, MrcWarning
from mrc_xarray.bridges.layers import layers_of
from mrc_xarray.bridges.napari import get_reader, read, write

RNG = np.random.default_rng(0)
VOLUME = RNG.normal(size=(6, 8, 10)).astype("f4")
MANIFEST = Path(mrc_xarray.__file__).parent / "napari.yaml"


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("name", ["a.mrc", "odd näme.REC", "a.mrc.gz"])
def test_a_volume(name: str, byteorder: str, tmp_path: Path) -> None:
    raw = by_hand.mrc(VOLUME, byteorder=byteorder, cella=(20, 12, 18), origin=(5, 0, 0))
    path = tmp_path / name
    path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    reader = get_reader(str(path))
    assert reader is read
    [(pixels, options, kind)] = reader(str(path))
    assert kind == "image"
    assert (pixels.shape, pixels.dtype, pixels.chunksize) == ((6, 8, 10), "f4", (1, 8, 10))
    np.testing.assert_array_equal(pixels.compute(), VOLUME)
    section = VOLUME[0 if name.endswith(".gz") else 3]
    assert options.pop("contrast_limits") == pytest.approx(np.percentile(section, [0.5, 99.5]))
    attrs = options.pop("metadata")["attrs"]
    assert attrs["mrc_layout"] == "volume"
    assert options == {
        "name": name, "scale": (3.0, 1.5, 2.0), "translate": (0.0, 0.0, 5.0),
        "units": ("angstrom",) * 3, "axis_labels": ("z", "y", "x"),
    }  # fmt: skip
    assert all(type(step) is float for step in options["scale"] + options["translate"])


def test_mrcz_and_unknown_voxel_size(tmp_path: Path) -> None:
    path = tmp_path / "movie.mrcz"
    path.write_bytes(mrcz_by_hand.file(mrcz_by_hand.chunks(), cella=(0, 0, 0)))
    [(pixels, options, kind)] = read([str(path)])
    np.testing.assert_array_equal(pixels[4], mrcz_by_hand.PIXELS[4])
    assert (options["scale"], options["units"]) == ((1.0,) * 3, ("pixel",) * 3)
    assert (options["axis_labels"], kind) == (("image", "y", "x"), "image")


def test_colours(tmp_path: Path) -> None:
    colours = RNG.integers(0, 255, (4, 5, 3), "u1")
    path = tmp_path / "rgb.mrc"
    path.write_bytes(by_hand.mrc(colours, 16, shape=(1, 4, 5), ispg=0))
    [(pixels, options, _)] = read(str(path))
    assert (options["rgb"], len(options["scale"])) == (True, 2)
    np.testing.assert_array_equal(pixels, colours)
    alpha = np.concatenate([colours, colours[..., :1]], axis=-1)
    for name, values in (("copy.mrc", pixels.compute()), ("alpha.mrc", alpha)):
        with pytest.warns(MrcWarning, match="MODE 16"):
            write(str(tmp_path / name), values, options)
        np.testing.assert_array_equal(xr.open_dataarray(tmp_path / name, engine="mrc"), colours)


def test_a_scan_and_a_dm_file(real_file: Callable[[str], Path]) -> None:
    [(pixels, options, _)] = read(str(real_file("direct_electron/20241021_00405_movie.mrc")))
    assert pixels.chunksize == (1, 1, 4, 8)
    assert options["axis_labels"] == ("scan_y", "scan_x", "ky", "kx")
    assert options["scale"] == (2.0, 1.0, 0.1, 0.1)
    assert options["units"] == ("angstrom", "angstrom", "1/nm", "1/nm")
    path = str(real_file("dm/2D_test_STEM_image.dm3"))
    assert get_reader(path) is read
    [(pixels, options, _)] = read(path)
    assert pixels.shape == (68, 68)
    assert options["scale"] == pytest.approx((2.4853802, 2.4853802))
    with pytest.raises(MrcError, match=r"the dimensions \('energy',\); accepted: two or more"):
        read(str(real_file("dm/1D_test-EELS_spectrum.dm3")))


def test_several_files(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.mrc").write_bytes(by_hand.mrc(VOLUME[i : i + 1], ispg=0))
    (tmp_path / "3.mrc").write_bytes(by_hand.mrc(VOLUME))
    paths = [str(tmp_path / f"{i}.mrc") for i in range(4)]
    [(pixels, options, _)] = read(paths[:3])
    np.testing.assert_array_equal(pixels, VOLUME[:3])
    assert (options["axis_labels"], options["scale"]) == (("file", "y", "x"), (1.0, 1.0, 1.0))
    assert options["units"] == ("pixel", "angstrom", "angstrom")
    assert [layer[1]["name"] for layer in read(paths)] == ["0.mrc", "1.mrc", "2.mrc", "3.mrc"]
    assert get_reader([*paths, str(tmp_path / "x.tif")]) is None
    assert get_reader([]) is None


def test_what_can_not_be_read(tmp_path: Path) -> None:
    damaged, source_map = tmp_path / "bad.mrc", tmp_path / "style.css.map"
    damaged.write_bytes(by_hand.mrc(VOLUME)[:-100])
    source_map.write_text("{}" * 1000)
    assert get_reader(str(source_map)) is None
    reader = get_reader(str(damaged))
    assert reader is not None
    with pytest.raises(MrcError, match="truncated"):
        reader(str(damaged))
    with pytest.warns(MrcWarning, match="truncated"):
        [(pixels, *_)] = read(str(damaged), truncated="trim")
    assert pixels.shape == (5, 8, 10)


# writing ----------------------------------------------------------------------------------------


def test_what_is_read_is_written(tmp_path: Path) -> None:
    path, copy = tmp_path / "a.mrc", tmp_path / "b.mrcz"
    path.write_bytes(
        by_hand.mrc(VOLUME.astype("f2"), cella=(20, 12, 18), origin=(5, 0, 0), labels=(b"mine",))
    )
    [(pixels, options, _)] = read(str(path))
    assert write(str(copy), pixels, options) == [str(copy)]
    source, found = (xr.open_dataarray(name, engine="mrc") for name in (path, copy))
    xr.testing.assert_equal(found, source)
    assert found.dtype == np.float16
    assert "mine" in found.mrc.header.label


@pytest.mark.parametrize("angles", [[-3, 0, 3], [-60.02, -57, -54.01], [0, 3, -3]])
def test_tilt_angles_are_written(angles: list[float], tmp_path: Path) -> None:
    data = writes.tilt_series(angles)
    [(pixels, options, _)] = layers_of(data)
    write(str(tmp_path / "a.mrcz"), pixels, options)
    found = xr.open_dataarray(tmp_path / "a.mrcz", engine="mrc")
    assert found.dims == ("image", "y", "x")
    assert found.tilt_angle.values.tolist() == angles


class Unit:
    """A unit as pint has it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __format__(self, spec: str) -> str:
        return {"": self.name, "~": "Å" if self.name == "angstrom" else self.name}[spec]


@pytest.mark.parametrize("unit", ["nm", Unit("nm"), "nanometer"])
def test_other_layers_have_the_scale_and_the_units_of_napari(unit: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    path.write_bytes(b"to be replaced")
    pixels = RNG.normal(size=(6, 8, 10))
    meta = {
        "scale": np.array([2, 1, 0.5]), "translate": np.zeros(3), "units": (unit,) * 3,
        "axis_labels": ("-3", "-2", "-1"), "metadata": {}, "rgb": False, "multiscale": True,
    }  # fmt: skip
    write(str(path), [pixels, pixels[:, ::2, ::2]], meta)
    with mrcfile.open(path) as mrc:
        np.testing.assert_allclose(mrc.data, pixels, rtol=1e-6)
        assert mrc.voxel_size.tolist() == (5, 10, 20)
        assert mrc.is_volume()


def test_layers_without_units_have_no_voxel_size(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    write(str(path), VOLUME, {"scale": (3, 3, 3), "units": ("pixel",) * 3})
    with mrcfile.open(path) as mrc:
        assert mrc.voxel_size.tolist() == (0, 0, 0)
    write(str(path), VOLUME[0], {})
    assert xr.open_dataarray(path, engine="mrc").dims == ("y", "x")


@pytest.mark.parametrize(
    ("dtype", "high", "expected"),
    [("?", 1, "i1"), ("u1", 200, "u2"), ("i8", 300, "i2"), ("i4", 60_000, "u2"), ("f8", 2, "f4"),
     ("c16", 2, "c8")],
)  # fmt: skip
def test_dtypes_without_a_mode(dtype: str, high: int, expected: str, tmp_path: Path) -> None:
    pixels = np.zeros((2, 3, 4), dtype)
    pixels[1, 1] = high
    write(str(tmp_path / "a.mrc"), pixels, {})
    found = xr.open_dataarray(tmp_path / "a.mrc", engine="mrc")
    assert found.dtype == expected
    np.testing.assert_array_equal(found, pixels)


# the plugin --------------------------------------------------------------------------------------


def test_the_manifest_is_declared() -> None:
    [found] = entry_points(group="napari.manifest", name="mrc-xarray")
    assert found.value == "mrc_xarray:napari.yaml"
    assert MANIFEST.is_file()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of pydantic, about npe2
def test_the_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from npe2 import PluginManager, PluginManifest, io_utils

    manifest = PluginManifest.from_file(MANIFEST)
    manifest.validate_imports()
    manager = PluginManager()
    monkeypatch.setattr(PluginManager, "instance", lambda: manager)
    manager.register(manifest)
    paths = [tmp_path / name for name in ("a.mrc", "b.mrc", "c.MRCZ", "d.rec", "e.map.gz")]
    raw = by_hand.mrc(VOLUME)
    for path in paths:
        path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
        [(pixels, options, kind)] = io_utils.read([str(path)], stack=False)
        assert (pixels.shape, options["name"], kind) == (VOLUME.shape, path.name, "image")
    [(stacked, *_)] = io_utils.read([str(path) for path in paths[:2]], stack=True)
    assert stacked.shape == (2, *VOLUME.shape)
    (tmp_path / "x.map").write_text("no map" * 300)
    with pytest.raises(ValueError, match="No readers returned data"):
        io_utils.read([str(tmp_path / "x.map")], stack=False)
    (tmp_path / "x.mrc").write_bytes(raw[:-8])
    with pytest.raises(MrcError, match="truncated"):
        io_utils.read([str(tmp_path / "x.mrc")], stack=False)
    for target, layer in (("out.mrcz", (pixels, options, "image")),
                          ("out.mrc", (np.ones((2, 3, 4), int), {}, "labels"))):  # fmt: skip
        assert io_utils.write(str(tmp_path / target), [layer]) == [str(tmp_path / target)]
    np.testing.assert_array_equal(xr.open_dataarray(tmp_path / "out.mrcz", engine="mrc"), VOLUME)
