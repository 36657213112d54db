"""The engine for RELION's tables: images, columns, optics, folders, stores, damage."""

from __future__ import annotations

import gzip
import inspect
import io
import pickle
import re
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import by_hand
import fsspec
import indexings
import mrcz
import numpy as np
import pytest
import servers
import starfile
import xarray as xr
from distributed import Client
from star_by_hand import loop, names, optics, stack

from mrc_xarray import MrcError
from mrc_xarray.relion_backend import RelionBackendEntrypoint

A, B = "Extract/job007/Movies/a.mrcs", "Extract/job007/Movies/b b.mrcs"
IMAGE = 5 * 9 * 4
# in the order of the table: from a.mrcs and b b.mrcs, out of order and one of them twice
CHOSEN = [(A, 3), (B, 1), (A, 1), (B, 4), (A, 3), (A, 2)]
COLUMNS = {
    "rlnCoordinateX": [f"{x:12.6f}" for x in (11.5, 12, 13, 14, 15, 16)],
    "rlnImageName": [f'"{n:06d}@{name}"' for name, n in CHOSEN],
    "rlnMicrographName": [f"'MotionCorr/{name[-6]} 1.mrc'" for name, _ in CHOSEN],
    "rlnOpticsGroup": [1, 2, 1, 2, 1, 1],
    "rlnDefocusU": ["10864.146484", "11200.5", "9000", "15000.25", "12000", "8000"],
    "rlnDefocusV": ["10600.0"] * 6,
    "rlnDefocusAngle": [45.5, -12, 0, 0, 0, 0],
    "rlnPhaseShift": ["0.000000"] * 6,
    "rlnAngleRot": [1.5, 2, 3, 4, 5, 6],
    "rlnOriginXAngst": [-1.25, 0, 0, 0, 0, 2.5],
    "rlnClassNumber": [1, 2, 1, 2, 1, 2],
}


def open_relion(target: Any, **options: Any) -> xr.Dataset:
    return xr.open_dataset(target, engine=RelionBackendEntrypoint, **options)


class Project:
    """A project with two stacks, and the images of its table in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        stacks = {A: stack(folder / A, 4), B: stack(folder / B, 5, first=9)}
        self.pixels = np.stack([stacks[name][n - 1] for name, n in CHOSEN])
        self.table = self.write(optics(2) + loop("particles", COLUMNS))

    def write(self, text: str, name: str = "Refine3D/job008/run data.star") -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


def test_arguments() -> None:
    options = ("storage_options", "dims", "units", "voxel_size", "mode0", "truncated", "strict")
    assert RelionBackendEntrypoint.open_dataset_parameters == (
        "filename_or_obj", "drop_variables", "root", "column", *options,
    )  # fmt: skip
    text = inspect.getdoc(RelionBackendEntrypoint.open_dataset) or ""
    documented = [line.partition(" :")[0] for line in text.splitlines() if " : " in line[:24]]
    assert sorted(documented) == sorted(RelionBackendEntrypoint.open_dataset_parameters)


def test_entry_point() -> None:
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert 'relion = "mrc_xarray.relion_backend:RelionBackendEntrypoint"' in text
    found = [
        point.value for point in metadata.entry_points(group="xarray.backends", name="relion")
    ]
    # an installation from before the engine has none
    assert found in ([], ["mrc_xarray.relion_backend:RelionBackendEntrypoint"])


def test_images_are_in_the_order_of_the_table(project: Project) -> None:
    data = open_relion(project.table).data
    assert data.dims == ("particle", "y", "x")
    assert data.dtype == np.float32
    np.testing.assert_array_equal(data, project.pixels)


def test_columns_are_coordinates(project: Project) -> None:
    """starfile reads the table as we do; defocus is in µm."""
    ds = open_relion(project.table)
    tables = starfile.read(project.table)
    for label, values in tables["particles"].items():
        name = re.sub("(?<=[a-z])(?=[A-Z])", "_", label[3:].removesuffix("Angst")).lower()
        coordinate = ds[name]
        assert coordinate.dims == ("particle",)
        assert coordinate.attrs["relion_name"] == label
        scale = 1e-4 if label in ("rlnDefocusU", "rlnDefocusV") else 1
        if values.dtype.kind in "if":
            np.testing.assert_allclose(coordinate, values * scale, rtol=1e-15)
        else:
            assert coordinate.values.tolist() == values.tolist()
    units = {name: coord.attrs.get("units") for name, coord in ds.coords.items()}
    assert units == {
        "coordinate_x": "pixel", "image_name": None, "micrograph_name": None, "defocus_u": "um",
        "optics_group": None, "optics_group_name": None, "defocus_v": "um",
        "defocus_angle": "degree", "phase_shift": "degree", "angle_rot": "degree",
        "origin_x": "angstrom", "class_number": None, "x": "angstrom", "y": "angstrom",
    }  # fmt: skip
    assert ds.optics_group_name.values.tolist() == [f"opticsGroup{n}" for n in (1, 2, 1, 2, 1, 1)]


def test_equal_optics_are_attributes_and_positions(project: Project) -> None:
    ds = open_relion(project.table, units="nm")
    attrs = ds.data.attrs
    assert (attrs["voltage_kV"], attrs["c3_mm"], attrs["amplitude_contrast"]) == (300, 2.7, 0.1)
    assert (attrs["image_pixel_size"], attrs["image_pixel_size_units"]) == (1.25, "angstrom")
    assert attrs["mrc_source"] == str(project.table)
    np.testing.assert_allclose(ds.x, np.arange(9) * 0.125)
    assert ds.mrc.voxel_size == {"y": 1.25, "x": 1.25}
    assert open_relion(project.table, voxel_size=2).mrc.voxel_size == {"y": 2, "x": 2}


def test_optics_that_differ_are_coordinates(project: Project) -> None:
    groups = optics(2, rlnVoltage=[300, 200], rlnImagePixelSize=[1.25, 1.5])
    ds = open_relion(project.write(groups + loop("particles", COLUMNS)))
    assert ds.voltage.values.tolist() == [300, 200, 300, 200, 300, 300]
    assert ds.voltage.attrs == {"units": "kV", "relion_name": "rlnVoltage"}
    assert ds.image_pixel_size.values.tolist() == [1.25, 1.5, 1.25, 1.5, 1.25, 1.25]
    assert not {"x", "y"} & set(ds.coords)
    assert "voltage_kV" not in ds.data.attrs
    # of one group only
    some = {key: [values[0], values[2]] for key, values in COLUMNS.items()}
    assert open_relion(project.write(groups + loop("particles", some))).x[1] == 1.25


@pytest.mark.parametrize("name", ["", "images"])
def test_tables_of_relion_3_0(project: Project, name: str) -> None:
    """One block, and the pixel size by detector and magnification."""
    columns = {
        "rlnImageName": names([2, 1], A), "rlnVoltage": [200, 200],
        "rlnSphericalAberration": [2.0, 2.0], "rlnDetectorPixelSize": [14, 14],
        "rlnMagnification": [40000, 40000], "rlnOriginX": [1.5, 0], "rlnGroupNumber": [1, 2],
    }  # fmt: skip
    ds = open_relion(project.write(loop(name, columns)))
    assert ds.mrc.voxel_size == {"y": 3.5, "x": 3.5}
    assert ds.origin_x.attrs == {"units": "pixel", "relion_name": "rlnOriginX"}
    assert ds.data.attrs["voltage_kV"] == 200
    assert ds.data.attrs["c3_mm"] == 2
    columns["rlnMagnification"] = [40000, 20000]
    ds = open_relion(project.write(loop(name, columns)))
    assert ds.pixel_size.values.tolist() == [3.5, 7]
    assert ds.pixel_size.attrs["units"] == "angstrom"
    assert "x" not in ds.coords
    columns["rlnMagnification"] = ["1e60"] * 2
    assert "x" not in open_relion(project.write(loop(name, columns))).coords


def test_thirty_by_defocus_read_thirty_images(
    tmp_path: Path, ranges_read: list[tuple[int, int]]
) -> None:
    pixels = [stack(tmp_path / f"s{n}.mrcs", 50, first=n) for n in range(4)]
    defocus = np.random.default_rng(0).permutation(200)
    columns = {
        "rlnImageName": [name for n in range(4) for name in names(range(1, 51), f"s{n}.mrcs")],
        "rlnDefocusU": defocus,
    }
    path = tmp_path / "particles.star"
    path.write_text(loop("particles", columns))
    ds = open_relion(path)
    # the head of the table, all of it, and the header of the first stack
    assert [n for _, n in ranges_read if n != 1024] == [path.stat().st_size] * 2
    ranges_read.clear()
    sharpest = ds.isel(particle=ds.defocus_u.argsort()[:30]).data.load()
    read = [nbytes for offset, nbytes in ranges_read if offset]
    assert sum(read) == 30 * IMAGE
    assert all(nbytes == 1024 for offset, nbytes in ranges_read if not offset)
    wanted = np.concatenate(pixels)[np.argsort(defocus)[:30]]
    np.testing.assert_array_equal(sharpest, wanted)


@pytest.mark.parametrize("options", [{}, {"chunks": {"particle": 4}}], ids=str)
def test_indexing_equals_numpy(project: Project, options: dict[str, Any]) -> None:
    data = open_relion(project.table, **options).data.variable
    eager = xr.Variable(data.dims, project.pixels)
    for key in indexings.TRANSFORMS.values():
        np.testing.assert_array_equal(data[key[:3]], eager[key[:3]])
    points = {dim: xr.Variable("p", [0, 3]) for dim in data.dims}
    np.testing.assert_array_equal(data.isel(points), eager.isel(points))


def test_pickles_and_tasks_are_small(tmp_path: Path) -> None:
    """The positions of the images: 2 bytes for each, and the names of the stacks."""
    n = 5000
    stack(tmp_path / "a.mrcs", 100)
    path = tmp_path / "particles.star"
    path.write_text(loop("particles", {"rlnImageName": names(np.arange(n) % 100 + 1, "a.mrcs")}))
    ds = open_relion(path, chunks={"particle": 2500})
    assert len(pickle.dumps(open_relion(path).data.variable._data)) < 2 * n + 4000
    again = pickle.loads(pickle.dumps(ds.data))
    np.testing.assert_array_equal(again[17], ds.data[117])


def million(path: Path) -> None:
    """Write a table of a million rows, for 1000 stacks that are links to one."""
    row = "{n:06d}@{{s}}.mrcs mic/{{s}}.mrc 1" + " 12345.678901" * 9 + " 1\n"
    rows = "".join(row.format(n=n) for n in range(1, 1001))
    labels = "ImageName MicrographName OpticsGroup DefocusU DefocusV DefocusAngle AngleRot "
    labels += "AngleTilt AnglePsi OriginXAngst OriginYAngst CtfMaxResolution ClassNumber"
    with path.open("w") as file:
        file.write(optics() + "\ndata_particles\nloop_\n")
        file.writelines(f"_rln{label}\n" for label in labels.split())
        for n in range(1000):
            file.write(rows.replace("{s}", f"s{n:04d}"))
            (path.parent / f"s{n:04d}.mrcs").symlink_to("s.mrcs")


@pytest.mark.slow
def test_a_million_particles(tmp_path: Path) -> None:
    pixels = stack(tmp_path / "s.mrcs", 1000)
    path = tmp_path / "particles.star"
    million(path)
    begin = time.process_time()
    data = open_relion(path).data
    assert time.process_time() - begin < 10
    assert data.shape == (10**6, 5, 9)
    assert len(pickle.dumps(data.variable._data)) < 4.1e6
    some = np.random.default_rng(0).integers(0, 10**6, 30)
    np.testing.assert_array_equal(data[some], pixels[some % 1000])


PIXELS = np.arange(3 * 48).reshape(3, 6, 8)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("a.mrcs", ">f4"), ("a.mrc", "f2"), ("a.mrcs", "i2"), ("a.mrcs.gz", "u2"), ("a.st", "c8")],
)
def test_kinds_of_stacks(tmp_path: Path, name: str, dtype: str) -> None:
    pixels = PIXELS.astype(dtype)
    order = "<>"[dtype[0] == ">"]
    raw = by_hand.mrc(pixels, ispg=0, byteorder=order)
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    columns = {"rlnImageName": [*names([3, 1], name), f"000002@{name}:mrcs"]}
    (tmp_path / "a.star").write_text(loop("", columns))
    data = open_relion(tmp_path / "a.star").data
    assert data.dtype == pixels.dtype.newbyteorder("=")
    np.testing.assert_array_equal(data, pixels[[2, 0, 1]])


def test_mrcz_stack(tmp_path: Path) -> None:
    pixels = PIXELS.astype("f4")
    mrcz.writeMRC(pixels, tmp_path / "a.mrcz", compressor="zstd")
    (tmp_path / "a.star").write_text(loop("", {"rlnImageName": names([3, 1], "a.mrcz")}))
    np.testing.assert_array_equal(open_relion(tmp_path / "a.star").data, pixels[[2, 0]])


def test_4_bits_and_colours(tmp_path: Path) -> None:
    nibbles = (PIXELS % 16).astype("u1")
    raw = by_hand.mrc(by_hand.pack_4bit(nibbles), 101, shape=(3, 6, 8), ispg=0)
    (tmp_path / "a.mrcs").write_bytes(raw)
    (tmp_path / "a.star").write_text(loop("", {"rlnImageName": names([3, 1], "a.mrcs")}))
    np.testing.assert_array_equal(open_relion(tmp_path / "a.star").data, nibbles[[2, 0]])
    colours = np.stack([PIXELS, PIXELS + 1, PIXELS + 2], axis=-1).astype("u1")
    (tmp_path / "a.mrcs").write_bytes(by_hand.mrc(colours, 16, shape=(3, 6, 8), ispg=0))
    data = open_relion(tmp_path / "a.star").data
    assert data.dims == ("particle", "y", "x", "rgb")
    np.testing.assert_array_equal(data, colours[[2, 0]])


def test_real_stack(real_file: Any, tmp_path: Path) -> None:
    """A stack by RELION."""
    path = real_file("real/relion_stack.mrcs")
    wanted = xr.open_dataarray(path, engine="mrc", layout="image_stack").values
    listed = names(range(len(wanted), 0, -1), str(path))
    (tmp_path / "a.star").write_text(loop("particles", {"rlnImageName": listed}))
    np.testing.assert_array_equal(open_relion(tmp_path / "a.star").data, wanted[::-1])


# folders and stores ------------------------------------------------------------------------------


def test_names_are_relative_to_the_first_folder_that_has_the_first_image(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.testing.assert_array_equal(open_relion(project.table).data, project.pixels)
    # the working folder wins
    other = Project(project.folder.with_name("other"))
    stack(other.folder / A, 4, first=50)
    monkeypatch.chdir(other.folder)
    assert open_relion(project.table).data[0, 0, 0] == 50_000 + 2 * 45
    given = open_relion(project.table, root=project.folder)
    np.testing.assert_array_equal(given.data, project.pixels)
    with pytest.raises(FileNotFoundError, match=r"a\.mrcs"):
        open_relion(project.table, root=project.folder / "Extract")
    monkeypatch.chdir(project.folder)
    in_memory = io.BytesIO(project.table.read_bytes())
    np.testing.assert_array_equal(open_relion(in_memory).data, project.pixels)


def test_absolute_and_relative_paths(tmp_path: Path) -> None:
    wanted = stack(tmp_path / "a.mrcs", 3)
    listed = [f"1@{tmp_path}/a.mrcs", "2@./a.mrcs", f"3@../{tmp_path.name}/a.mrcs"]
    (tmp_path / "a.star").write_text(loop("", {"rlnImageName": listed}))
    np.testing.assert_array_equal(open_relion(tmp_path / "a.star").data, wanted)


def test_no_folder_has_the_first_image(project: Project) -> None:
    (project.folder / A).rename(project.folder / "a.mrcs")
    with pytest.raises(FileNotFoundError, match=r"No such file in .*/project, .*root= names"):
        open_relion(project.table)


def test_table_and_stacks_in_memory(project: Project) -> None:
    fs = fsspec.filesystem("memory")
    for path in project.folder.rglob("*.*"):
        fs.pipe(f"/relion/{path.relative_to(project.folder)}", path.read_bytes())
    ds = open_relion(f"memory://relion/{project.table.relative_to(project.folder)}", chunks={})
    np.testing.assert_array_equal(ds.data, project.pixels)
    given = open_relion(project.table, root="memory://relion")
    np.testing.assert_array_equal(given.data, project.pixels)
    fs.rm("/relion", recursive=True)


@pytest.mark.slow
def test_table_and_stacks_on_http(project: Project) -> None:
    with servers.http_server(project.folder) as server:
        quoted = "Refine3D/job008/run%20data.star"
        link = project.folder / quoted
        link.symlink_to(project.table)
        (project.folder / B.replace(" ", "%20")).symlink_to(project.folder / B)
        data = open_relion(server.url(quoted) + "?token=secret").data
        np.testing.assert_array_equal(data, project.pixels)
        assert "secret" not in str(data.attrs)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("1@../../x.mrcs", "leads out of"),
        ("1@/etc/passwd", "absolute path; accepted: paths relative"),
        ("1@http://127.0.0.1/x.mrcs", "accepted: paths, and no URLs"),
        ("1@file:///etc/passwd", "accepted: paths, and no URLs"),
    ],
)
def test_names_do_not_lead_out_of_a_store(name: str, message: str) -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe("/out/a.star", loop("", {"rlnImageName": [name]}).encode())
    with pytest.raises(MrcError, match=message) as caught:
        open_relion("memory://out/a.star")
    assert "memory://out/a.star names this file" in caught.value.__notes__
    with pytest.raises(MrcError, match=message):
        open_relion("memory://out/a.star", root="memory://out").data.load()
    fs.rm("/out", recursive=True)


def test_names_are_never_urls(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe("/secret.mrcs", by_hand.mrc(PIXELS.astype("f4")))
    stack(tmp_path / "a.mrcs", 1)
    listed = ["1@a.mrcs", "1@memory://secret.mrcs"]
    (tmp_path / "a.star").write_text(loop("", {"rlnImageName": listed}))
    data = open_relion(tmp_path / "a.star").data
    with pytest.raises(MrcError, match=r"'memory://secret.mrcs' is not the path"):
        data.load()
    fsspec.filesystem("memory").rm("/secret.mrcs")


# damage ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("5@a.mrcs", MrcError, r"row 2: rlnImageName names image 5 of a.mrcs, which has 4"),
        ("99999999@a.mrcs", MrcError, r"row 2: .* image 99999999 of a.mrcs, which has 4"),
        ("1@small.mrcs", MrcError, r"row 2: small.mrcs has 3 × 9 .* accepted: 5 × 9 pixels"),
        ("1@short.mrcs", MrcError, r"row 2: short.mrcs has .* of int16; accepted: .* of float32"),
        ("1@text.mrcs", MrcError, "text.mrcs"),
        ("1@missing.mrcs", FileNotFoundError, "missing.mrcs"),
        ("1@cut.mrcs", MrcError, "truncated='trim' opens the complete sections"),
        ("1@/dev/null", MrcError, "not a regular file"),
    ],
)
def test_a_stack_is_checked_when_it_is_read(
    tmp_path: Path, name: str, error: type[Exception], message: str
) -> None:
    first = stack(tmp_path / "a.mrcs", 4)
    (tmp_path / "small.mrcs").write_bytes(by_hand.mrc(first[:, :3], ispg=0))
    stack(tmp_path / "short.mrcs", 4, dtype="i2")
    (tmp_path / "text.mrcs").write_text("nothing" * 400)
    (tmp_path / "cut.mrcs").write_bytes((tmp_path / "a.mrcs").read_bytes()[:-1])
    (tmp_path / "a.star").write_text(loop("", {"rlnImageName": ["2@a.mrcs", name]}))
    ds = open_relion(tmp_path / "a.star")
    np.testing.assert_array_equal(ds.data[0], first[1])
    with pytest.raises(error, match=message) as caught:
        ds.data.load()
    assert "row 2" in "".join([str(caught.value), *getattr(caught.value, "__notes__", [])])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "without a block"),
        ("data_particles\n", "no column names images; accepted: rlnImageName"),
        (loop("particles", {"rlnImageName": []}), "no rows"),
        (loop("particles", {"rlnDefocusU": [1]}), "no column names images"),
        (loop("particles", {"rlnImageName": ["x@a.mrcs"]}), "row 1: .* a number from 1"),
        (loop("", {"rlnImageName": ["1@a.mrcs", "0@a.mrcs"]}), "row 2: .*'0@a.mrcs'"),
        (loop("", {"rlnImageName": ["1@a.mrcs", "-1@a.mrcs"]}), "row 2"),
        (loop("", {"rlnImageName": ["1@a.mrcs", "a.mrcs"]}), "row 2"),
        (loop("", {"rlnImageName": ["1@a.mrcs", "9" * 5000 + "@a.mrcs"]}), "row 2"),
        (loop("", {"rlnImageName": ["1@"]}), "names no file"),
        (loop("", {"rlnImageName": ["1@a.mrcs"], "rlnDefocusU": ["deep"]}), "line 9: rlnDef"),
        (optics() + loop("p", {"rlnImageName": ["1@a.mrcs"], "rlnOpticsGroup": [3]}),
         "row 1: rlnOpticsGroup is 3; accepted: those in data_optics, 1"),
        (optics(2) + loop("p", {"rlnImageName": ["1@a.mrcs"]}), "data_p has no rlnOpticsGroup"),
        (optics(2, rlnOpticsGroup=[1, 1]) + loop(
            "p", {"rlnImageName": ["1@a.mrcs"], "rlnOpticsGroup": [1]}), "two rows of one"),
        (loop("a", {"rlnImageName": ["1@a.mrcs"]}) * 2, r"several blocks have .* \(a, a\)"),
        ("data_\nloop_\n_rlnImageName\n_rlnImageName\n", "line 4: a second '_rlnImageName'"),
    ],
)  # fmt: skip
def test_malformed_tables(tmp_path: Path, text: str, message: str) -> None:
    stack(tmp_path / "a.mrcs", 4)
    (tmp_path / "a.star").write_text(text)
    with pytest.raises(MrcError, match=message) as caught:
        open_relion(tmp_path / "a.star")
    assert str(caught.value).startswith(f"{tmp_path / 'a.star'}")


def test_names_of_this_package_are_not_replaced(tmp_path: Path) -> None:
    stack(tmp_path / "a.mrcs", 1)
    labels = ["rlnMrcSource", "rlnGain", "rlnData", "rlnX", "rlnParticle", "rlnC3", "rlnFoo/Bar"]
    text = optics(1, **{label: ["/etc/passwd"] for label in labels})
    columns = {
        "rlnImageName": ["1@a.mrcs"],
        "rln\x1b[31m": [1],
        "rlnY": [7],
        "rlnA": [1],
        "a": [2],
    }
    (tmp_path / "a.star").write_text(text + loop("p", columns))
    ds = open_relion(tmp_path / "a.star")
    assert ds.data.attrs["mrc_source"] == str(tmp_path / "a.star")
    assert ds.data.attrs["rln_mrc_source"] == "/etc/passwd"
    assert {"rln_y", "a", "a_"} <= set(ds.coords)
    assert ds.y[1] == 1.25
    assert all(name.isprintable() and "/" not in name for name in map(str, ds.variables))


# micrographs, movies, tomograms ------------------------------------------------------------------


def test_micrographs_and_movies(tmp_path: Path) -> None:
    images = [stack(tmp_path / f"m{n}.mrc", 1, first=n) for n in range(3)]
    movies = [stack(tmp_path / f"movie{n}.mrcs", 4, first=n) for n in range(3)]
    columns = {
        "rlnMicrographMovieName": [f"movie{n}.mrcs" for n in range(3)],
        "rlnMicrographName": [f"m{n}.mrc" for n in range(3)],
        "rlnTomoNominalStageTiltAngle": [-3, 0, 3],
        "rlnMicrographPreExposure": [0, 3, 6],
    }
    sizes = optics(rlnMicrographPixelSize=[2.5], rlnMicrographOriginalPixelSize=[1.25])
    (tmp_path / "a.star").write_text(sizes + loop("micrographs", columns))
    ds = open_relion(tmp_path / "a.star")
    assert ds.data.sizes == {"micrograph": 3, "y": 5, "x": 9}
    np.testing.assert_array_equal(ds.data, np.concatenate(images))
    assert ds.mrc.voxel_size == {"y": 2.5, "x": 2.5}
    assert ds.tilt_angle.attrs["units"] == "degree"
    for column in ("rlnMicrographMovieName", "_rlnMicrographMovieName", "micrograph_movie_name"):
        ds = open_relion(tmp_path / "a.star", column=column)
        assert ds.data.sizes == {"movie": 3, "frame": 4, "y": 5, "x": 9}
    np.testing.assert_array_equal(ds.data, movies)
    np.testing.assert_array_equal(ds.data[1, 2:, 3], movies[1][2:, 3])
    assert ds.mrc.voxel_size == {"y": 1.25, "x": 1.25}
    assert ds.tilt_angle.dims == ("movie",)
    with pytest.raises(MrcError, match="column='movie' is not in the table; accepted: rln"):
        open_relion(tmp_path / "a.star", column="movie")


def test_tomograms(tmp_path: Path) -> None:
    volumes = [stack(tmp_path / f"t{n}.mrc", 5, first=n, ispg=1, mz=5) for n in range(2)]
    columns = {
        "rlnTomoName": ["01", "02"],
        "rlnTomoTiltSeriesPixelSize": [1.5, 1.5],
        "rlnTomoTomogramBinning": [4, 4],
        "rlnTomoTiltSeriesStarFile": ["a.star", "b.star"],
        "rlnTomoReconstructedTomogram": ["t0.mrc", "t1.mrc"],
    }
    path = tmp_path / "tomograms.star"
    path.write_text(loop("global", columns))
    ds = open_relion(path)
    assert ds.data.sizes == {"tomogram": 2, "z": 5, "y": 5, "x": 9}
    np.testing.assert_array_equal(ds.data, volumes)
    np.testing.assert_array_equal(ds.data.isel(tomogram=1, y=2), volumes[1][:, 2])
    assert ds.mrc.voxel_size == {"z": 6, "y": 6, "x": 6}
    assert ds.tomo_name.values.tolist() == ["01", "02"]
    stack(tmp_path / "t1.mrc", 3, ispg=1, mz=3)
    with pytest.raises(MrcError, match=r"t1.mrc has 3 sections .* accepted: 5 .*open_many"):
        open_relion(path).data.load()
    del columns["rlnTomoReconstructedTomogram"]
    path.write_text(loop("global", columns))
    with pytest.raises(MrcError, match="rlnTomoTiltSeriesStarFile names other tables"):
        open_relion(path)


def test_subtomograms_and_class_averages(tmp_path: Path) -> None:
    volumes = [stack(tmp_path / f"p{n}.mrc", 5, first=n, ispg=1, mz=5) for n in range(2)]
    path = tmp_path / "a.star"
    path.write_text(optics() + loop(
        "particles", {"rlnImageName": ["p1.mrc", "p0.mrc"], "rlnOpticsGroup": [1, 1]}
    ))  # fmt: skip
    ds = open_relion(path, dims=("p", "a", "b", "c"))
    assert ds.data.dims == ("p", "a", "b", "c")
    assert open_relion(path).mrc.voxel_size == {"z": 1.25, "y": 1.25, "x": 1.25}
    np.testing.assert_array_equal(ds.data, volumes[::-1])
    averages = stack(tmp_path / "classes.mrcs", 3)
    columns = {"rlnReferenceImage": names([1, 3], "classes.mrcs")}
    general = "data_model_general\n\n_rlnPixelSize 2.0\n_rlnNrClasses 2\n"
    path.write_text(general + loop("model_classes", columns))
    data = open_relion(path).data
    assert data.dims == ("class_average", "y", "x")
    np.testing.assert_array_equal(data, averages[[0, 2]])


# guessing, round trips, clusters -----------------------------------------------------------------


def test_guess(project: Project) -> None:
    guess = RelionBackendEntrypoint().guess_can_open
    assert guess(project.table)
    assert guess(project.table.read_bytes())
    assert not guess("s3://bucket/particles.star")
    assert not guess("https://host/particles.star")
    assert not guess(project.folder / "missing.star")
    assert not guess(project.folder / A)
    assert not guess(project.write(loop("job", {"rlnJobTypeLabel": ["relion.import"]})))
    assert not guess(None)
    long = project.write(project.table.read_text() + 1024 * "\n")
    with pytest.raises(MrcError, match="a table of RELION: open it with engine='relion'"):
        xr.open_dataset(long, engine="mrc")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["nc", "zarr"])
def test_netcdf_and_zarr(project: Project, suffix: str) -> None:
    ds = open_relion(project.table)
    path = project.folder / f"a.{suffix}"
    if suffix == "nc":
        ds.to_netcdf(path)
    else:
        ds.to_zarr(path, consolidated=False)
    options = {} if suffix == "nc" else {"consolidated": False, "engine": "zarr"}
    with xr.open_dataset(path, **options) as again:  # type: ignore[arg-type]
        np.testing.assert_array_equal(again.data, project.pixels)
        assert again.image_name.values.tolist() == ds.image_name.values.tolist()
        assert again.defocus_u.attrs == ds.defocus_u.attrs


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["path", "http", "s3"])
def test_cluster(client: Client, project: Project, kind: str) -> None:
    text = project.table.read_text().replace("b b", "b_b").replace('"', "")
    (project.folder / B).rename(project.folder / B.replace(" ", "_"))
    table = project.write(text, "a.star")
    with servers.http_server(project.folder) as server, servers.s3_server() as s3:
        targets: dict[str, tuple[Any, dict[str, Any]]] = {
            "path": (table, {}),
            "http": (server.url("a.star"), {}),
            "s3": (
                s3.put("dir/a.star", table.read_bytes()),
                {"storage_options": s3.storage_options},
            ),
        }
        for path in project.folder.rglob("*.mrcs"):
            s3.put(f"dir/{path.relative_to(project.folder)}", path.read_bytes())
        target, options = targets[kind]
        data = open_relion(target, chunks={"particle": 2}, **options).data
        found = client.compute(data.astype("f8").sum(("y", "x"))).result()
        np.testing.assert_array_equal(found, project.pixels.astype("f8").sum((1, 2)))
