"""Particle sets for RELION: read by starfile, by mrcfile, and by the engine again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import mrcfile
import numpy as np
import pytest
import starfile
import writes
import xarray as xr
from star_by_hand import loop, names, optics, stack

import mrc_xarray  # noqa: F401  # registers da.mrc
from mrc_xarray import MrcError, MrcWarning
from mrc_xarray.relion_backend import RelionBackendEntrypoint


def open_relion(target: Any, **options: Any) -> xr.Dataset:
    return xr.open_dataset(target, engine=RelionBackendEntrypoint, **options)


def read_stack(path: Path) -> np.ndarray[Any, Any]:
    with mrcfile.open(path) as mrc:
        assert mrc.is_image_stack()
        return mrc.data.copy()


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


COLUMNS = {
    "rlnImageName": [*names([3, 1], "a.mrcs"), *names([2, 2], "b.mrcs")],
    "rlnMicrographName": ["'m 1.mrc'", '"m 1.mrc"', "m2.mrc", "m2.mrc"],
    "rlnOpticsGroup": [2, 1, 2, 2],
    "rlnDefocusU": ["10864.146484", "11200.5", "9000.123457", "15000.25"],
    "rlnDefocusV": [1, 2, 3, 4],
    "rlnAngleRot": [0.1, -179.999999, "nan", 4],
    "rlnOriginXAngst": [-1.25, 0, 0.3, 2.5],
    "rlnHelicalTubeID": [1, 2, 3, 4],
    "wrpSubtomoName": ["007", "x'y", '""', "#5".replace("#", "n")],
}


@pytest.fixture
def table(project: Path) -> Path:
    stack(project / "a.mrcs", 3)
    stack(project / "b.mrcs", 3, first=5)
    groups = optics(3, rlnVoltage=[200, 300, 300], rlnImagePixelSize=[1.25, 1.25, 9])
    (project / "in.star").write_text(groups + loop("particles", COLUMNS))
    return project / "in.star"


@pytest.mark.parametrize("options", [{}, {"chunks": {"particle": 3}}], ids=str)
def test_columns_return_under_their_labels(table: Path, options: dict[str, Any]) -> None:
    ds = open_relion(table, **options)
    ds.data.mrc.to_relion("Select/../out.star")
    np.testing.assert_array_equal(read_stack(Path("out.mrcs")), ds.data)
    found, source = starfile.read("out.star"), starfile.read(table)
    particles = found["particles"]
    assert particles.rlnImageName.tolist() == names([1, 2, 3, 4], "out.mrcs")
    for label in COLUMNS.keys() - {"rlnImageName"}:
        wanted = source["particles"][label]
        np.testing.assert_array_equal(particles[label], wanted)
    by_number = source["optics"].set_index("rlnOpticsGroup")
    of_groups = found["optics"].set_index("rlnOpticsGroup")
    assert of_groups.index.tolist() == [1, 2]
    for label in (
        "rlnVoltage",
        "rlnSphericalAberration",
        "rlnImagePixelSize",
        "rlnOpticsGroupName",
    ):
        assert of_groups[label].tolist() == by_number[label].tolist()[:2]
    again = open_relion("out.star")
    others = again.drop_vars("image_name").drop_attrs()
    xr.testing.assert_identical(others, ds.drop_vars("image_name").drop_attrs())
    # images that are not square have no size, and the source is another
    left = {"image_size", "image_size_units", "mrc_source"}
    assert again.data.attrs == {k: v for k, v in ds.data.attrs.items() if k not in left} | {
        "mrc_source": f"{table.parent}/out.star"
    }


def test_after_arithmetic_and_selection(table: Path) -> None:
    ds = open_relion(table, units="nm")
    best = ds.isel(particle=ds.defocus_u.argsort()[:2], x=slice(8), y=slice(4))
    best = best.rename(image_name="in_other_files")
    (2 * best.data).coarsen(x=2, y=2).mean().mrc.to_relion("out.star")
    found = starfile.read("out.star")
    assert found["particles"].rlnDefocusU.tolist() == [9000.123457, 10864.146484]
    assert found["optics"].rlnImagePixelSize.tolist() == [2.5]
    assert found["optics"].rlnVoltage.tolist() == [300]
    assert found["particles"].rlnImageName.tolist() == names([1, 2], "out.mrcs")


def images(n: int = 3, dtype: str = "f4", dim: str = "image") -> xr.DataArray:
    return writes.labelled(writes.noise((n, 6, 6), dtype), (dim, "y", "x"), voxel=0.15, units="nm")


def test_any_stack_of_images(project: Path) -> None:
    """Angles in radians and defocus in nm become degrees and ångström."""
    data = images().assign_coords(
        section=("image", [4, 5, 6]),
        angle_rot=("image", [0.0, np.pi / 2, np.pi], {"units": "rad"}),
        angle_psi=("image", [1, 2, 3]),
        defocus_u=("image", [1500.0, 2000, 2500.5], {"units": "nm"}),
        defocus_v=("image", [1.5, 2, 2.25], {"units": "um"}),
        origin_x=("image", [0.1, 0.2, 0.3], {"units": "nm"}),
        micrograph_name=("image", ["a 1.mrc", "", "b.mrc"]),
        mine=("image", [1, 2, 3]),
    )
    data.attrs |= {"voltage_kV": 200, "c3_mm": float(np.float32(1.4)), "amplitude_contrast": 0.07}
    path = project / "sub" / "out.star"
    path.parent.mkdir()
    with pytest.warns(MrcWarning, match="no label for the coordinates mine; they are left out"):
        data.mrc.to_relion(path)
    np.testing.assert_array_equal(read_stack(project / "sub/out.mrcs"), data)
    found = starfile.read(path)
    particles, groups = found["particles"], found["optics"].iloc[0]
    assert particles.to_dict("list") == {
        "rlnImageName": names([1, 2, 3], "sub/out.mrcs"), "rlnAngleRot": [0, 90, 180],
        "rlnAnglePsi": [1, 2, 3], "rlnDefocusU": [15000, 20000, 25005],
        "rlnDefocusV": [15000, 20000, 22500], "rlnOriginXAngst": [1, 2, 3],
        "rlnMicrographName": ["a 1.mrc", "", "b.mrc"], "rlnOpticsGroup": [1, 1, 1],
    }  # fmt: skip
    assert (groups["rlnVoltage"], groups["rlnSphericalAberration"]) == (200, 1.4)
    assert (groups["rlnImagePixelSize"], groups["rlnImageSize"]) == (1.5, 6)
    ds = open_relion(path)
    assert ds.defocus_u.values.tolist() == [1.5, 2, 2.5005]
    assert ds.micrograph_name.values.tolist() == ["a 1.mrc", "", "b.mrc"]
    assert ds.mrc.voxel_size == {"y": 1.5, "x": 1.5}


@pytest.mark.parametrize("dtype", ["i2", "f2"])
def test_types_and_shapes(dtype: str) -> None:
    data = images(dtype=dtype, dim="particle")
    data.mrc.to_relion("out.star")
    assert open_relion("out.star").data.dtype == dtype
    data[1].mrc.to_relion("out.star", overwrite=True)
    np.testing.assert_array_equal(open_relion("out.star").data, data[1:2])
    pixel = open_relion("out.star").data[:, :1, :1]
    pixel.mrc.to_relion("out.star", overwrite=True, root="..")
    again = open_relion("out.star", root="..")
    assert again.data.shape == (1, 1, 1)
    assert again.mrc.voxel_size == {"y": 1.5, "x": 1.5}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (writes.labelled(np.ones((2, 3, 3), "f4")), "rename.z='particle'. makes images"),
        (images().expand_dims("volume"), r"accepted: images of real numbers, \(particle, y, x\)"),
        (images(dtype="c8"), "complex64 of shape"),
        (images()[:0], "none empty"),
        (images().assign_coords(x=("x", np.arange(6) * 0.7, {"units": "nm"})),
         "pixels are 7 × 1.5 Å; accepted: square"),
        (images().assign_coords(defocus_u=("image", [1, 2, 3], {"units": "degree"})),
         "defocus_u is in degree; accepted: angstrom"),
        (images().assign_coords(micrograph_name=("image", ["a\n", "b", "c"])), "not a text that"),
        (images().assign_coords(optics_group=("image", [1.0, np.nan, 1.0])), "accepted: integers"),
    ],
)  # fmt: skip
def test_refusals(project: Path, data: xr.DataArray, message: str) -> None:
    with pytest.raises(MrcError, match=message):
        data.mrc.to_relion("out.star")
    # neither a table nor a stack
    assert not list(project.iterdir())


def test_existing_files_are_not_replaced(project: Path) -> None:
    images().mrc.to_relion("out.star")
    for name in ("out.star", "out.mrcs"):
        for path in project.iterdir():
            path.unlink()
        (project / name).write_text("other")
        with pytest.raises(FileExistsError, match=name):
            images().mrc.to_relion("out.star")
        assert (project / name).read_text() == "other"
        assert writes.names(project) == [name]
        images().mrc.to_relion("out.star", overwrite=True)
        np.testing.assert_array_equal(open_relion("out.star").data, images())
    with pytest.raises(ValueError, match=r"target is out.txt; accepted: a name in \.star"):
        images().mrc.to_relion("out.txt")


def test_unknown_pixel_size() -> None:
    with pytest.warns(MrcWarning, match="the pixel size is unknown"):
        images().drop_vars(["x", "y"]).mrc.to_relion("out.star")
    assert "rlnImagePixelSize" not in starfile.read("out.star")["optics"]


def test_attributes_from_elsewhere_are_no_labels() -> None:
    attrs = {"relion_name": "rln\ndata_x"}
    images().assign_coords(angle_psi=("image", [1, 2, 3], attrs)).mrc.to_relion("out.star")
    assert "rlnAnglePsi" in starfile.read("out.star")["particles"]


def test_store() -> None:
    data = images()
    data.mrc.to_relion("memory://sets/out.star")
    np.testing.assert_array_equal(open_relion("memory://sets/out.star").data, data)
    fsspec.filesystem("memory").rm("/sets", recursive=True)
