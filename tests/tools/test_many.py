"""Many files as one Dataset: their order, their names, what they share, and which do not fit."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import by_hand
import fsspec
import numpy as np
import pytest
import servers
import xarray as xr

from mrc_xarray import MrcError, open_many, to_mrc
from mrc_xarray.storage import LocalSource

SHAPE = (4, 5, 6)
VOXEL = 13.3


def pixels(i: int) -> np.ndarray[Any, Any]:
    return np.arange(i, i + 120, dtype="f4").reshape(SHAPE)


def tomogram(i: int = 0, *, voxel: float = VOXEL, **fields: Any) -> bytes:
    data = fields.pop("data", pixels(i))
    cella = tuple(n * voxel for n in reversed(data.shape))
    return by_hand.mrc(data, **({"cella": cella, "labels": (b"%d" % i,)} | fields))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three tomograms whose voxel sizes and headers differ a little."""
    for i in (1, 2, 10):
        raw = tomogram(i, voxel=VOXEL + i * 1e-5)
        (tmp_path / f"TS_{i}.mrc").write_bytes(raw)
    return tmp_path


def test_a_pattern_is_one_lazy_dataset(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    real = LocalSource.read_into

    def read_into(self: LocalSource, requests: Any) -> None:
        reads.extend(len(buffer) for _, buffer in requests)
        real(self, requests)

    ds = open_many(folder / "TS_*.mrc")
    # 10 follows 2
    assert ds.tomogram.values.tolist() == ["TS_1.mrc", "TS_2.mrc", "TS_10.mrc"]
    assert ds.data.dims == ("tomogram", "z", "y", "x")
    assert ds.data.dtype == np.float32
    assert ds.data.chunks == ((1, 1, 1), (4,), (5,), (6,))
    monkeypatch.setattr(LocalSource, "read_into", read_into)
    one = ds.sel(tomogram="TS_10.mrc").isel(z=1)
    np.testing.assert_array_equal(one.data, pixels(10)[1])
    # the pixels of one file
    assert sum(reads) == 4 * 5 * 6 * 4
    np.testing.assert_array_equal(ds.data, [pixels(i) for i in (1, 2, 10)])
    assert ds.mrc.voxel_size == pytest.approx({"z": VOXEL, "y": VOXEL, "x": VOXEL})
    # xarray alone would find only the first of these positions in all files
    assert (ds.data - ds.data.mean("tomogram")).shape == (3, *SHAPE)
    # what differs is left out
    assert ds.data.attrs.keys() == {"mrc_layout", "mrc_layout_rule"}


def test_a_list_has_its_own_order_and_names_their_folders(folder: Path) -> None:
    other = folder / "aligned" / "TS_1.mrc"
    other.parent.mkdir()
    other.write_bytes(tomogram(7))
    (folder / "TS_3.mrc.gz").write_bytes(gzip.compress(tomogram(3)))
    to_mrc(xr.open_dataset(folder / "TS_2.mrc", engine="mrc").data, folder / "a.mrcz")
    paths = [folder / "TS_10.mrc", str(folder / "TS_3.mrc.gz"), folder / "a.mrcz"]
    ds = open_many(iter(paths), dim="run")
    assert ds.run.values.tolist() == ["TS_10.mrc", "TS_3.mrc.gz", "a.mrcz"]
    np.testing.assert_array_equal(ds.data, [pixels(i) for i in (10, 3, 2)])

    ds = open_many([folder / "TS_1.mrc", other])
    assert ds.tomogram.values.tolist() == [f"{folder.name}/TS_1.mrc", "aligned/TS_1.mrc"]
    assert open_many(str(folder / "**" / "TS_1.mrc")).sizes["tomogram"] == 2


def test_coordinates_of_sections_that_are_equal_remain(tmp_path: Path) -> None:
    stack = tomogram(1, ispg=0, mz=1)
    for i in range(2):
        (tmp_path / f"{i}.st").write_bytes(stack)
        (tmp_path / f"{i}.tlt").write_text("-3\n0\n3\n6\n")
    ds = open_many(tmp_path / "*.st", dim="series")
    assert ds.data.dims == ("series", "image", "y", "x")
    assert ds.tilt_angle.values.tolist() == [-3, 0, 3, 6]
    assert {"mrc_header", "mrc_layout"} <= ds.data.attrs.keys()
    (tmp_path / "1.tlt").write_text("-3\n0\n3\n7\n")
    ds = open_many(tmp_path / "*.st", dim="series")
    assert "tilt_angle" not in ds.coords
    assert ds.section.values.tolist() == [0, 1, 2, 3]


PIXELS = "float32 with the dimensions z 4, y 5, x 6"
MISFITS = {
    "size": ({"data": np.zeros((4, 5, 7), "f4")}, f"float32 .* x 7 instead of {PIXELS}"),
    "dtype": ({"data": np.zeros(SHAPE, "i2")}, f"int16 .* instead of {PIXELS}"),
    "stack": ({"ispg": 0, "mz": 1}, f"image 4, y 5, x 6 instead of {PIXELS}"),
    "voxel": (
        {"voxel": 13.48}, "z has voxels of 13.48 angstrom from 0 on instead of voxels of 13.3 ",
    ),
    "start": ({"origin": (5, 0, 0)}, "x has voxels of 13.3 angstrom from 5 on instead of "),
    "unknown": ({"cella": (0, 9, 9)}, "the voxel size is known along z, y instead of z, y, x"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISFITS)
def test_files_that_do_not_fit_are_named(tmp_path: Path, case: str) -> None:
    fields, reason = MISFITS[case]
    # the first file is the odd one
    (tmp_path / "0.mrc").write_bytes(tomogram(**fields))
    for i in (1, 2, 3):
        (tmp_path / f"{i}.mrc").write_bytes(tomogram(i))
    with pytest.raises(MrcError, match=rf"1 of 4 files do not fit 1\.mrc:\n0\.mrc: .*{reason}"):
        open_many(tmp_path / "*.mrc")
    if case == "start":
        assert open_many(tmp_path / "*.mrc", origin="zero").sizes["tomogram"] == 4
    if case == "voxel":
        ds = open_many(tmp_path / "*.mrc", tolerance=0.1)
        np.testing.assert_allclose(ds.x, VOXEL * np.arange(6))


def test_the_tolerance_is_in_voxels(tmp_path: Path) -> None:
    """The last of 1,001 voxels is off by a hundredth of a voxel, and then by more."""
    for i, voxel in enumerate((10, 10.00009, 10.00011)):
        data = np.zeros((1, 1, 1001), "f4")
        (tmp_path / f"{i}.mrc").write_bytes(
            tomogram(data=data, cella=(1001 * voxel, 10, 10), ispg=0)
        )
    assert open_many([tmp_path / f"{i}.mrc" for i in (0, 1)]).sizes["x"] == 1001
    with pytest.raises(MrcError, match=r"2\.mrc: x has voxels of 10\.00011 .* instead of"):
        open_many(tmp_path / "*.mrc")
    assert open_many(tmp_path / "*.mrc", tolerance=0.02).sizes["tomogram"] == 3


@pytest.mark.parametrize(
    ("paths", "options", "error", "message"),
    [
        ("*.rec", {}, FileNotFoundError, r"No file matches the pattern: '.*\*\.rec'"),
        ("none.mrc", {}, FileNotFoundError, r"none\.mrc"),
        ("*.mrc", {"chunks": None}, ValueError, "chunks is None"),
        ("*.mrc", {"tolerance": -1}, ValueError, "tolerance is -1; accepted: 0 or more voxels"),
        ("*.mrc", {"dim": "x"}, ValueError, "dim is 'x', which the files have already"),
        ("*.mrc", {"scan_shap": 1}, TypeError, "Did you mean scan_shape"),
        ([], {}, ValueError, "paths is empty"),
        (["TS_1.mrc", "TS_1.mrc"], {}, ValueError, r"TS_1\.mrc twice"),
    ],
    ids=str,
)
def test_wrong_arguments(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    paths: Any,
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(error, match=message):
        open_many(paths, **options)


def test_patterns_match_files_only(folder: Path) -> None:
    (folder / "a[1].mrc").write_bytes(tomogram(5))
    (folder / "TS_folder.mrc").mkdir()
    # the name of a file is no pattern
    assert open_many(folder / "a[1].mrc").tomogram.values.tolist() == ["a[1].mrc"]
    assert open_many(folder / "TS_*").sizes["tomogram"] == 3


@pytest.fixture
def store() -> Iterator[str]:
    fs = fsspec.filesystem("memory")
    for i in (2, 10):
        fs.pipe(f"/many/TS_{i}.mrc", tomogram(i))
    yield "memory://many"
    fs.rm("/many", recursive=True)


@pytest.mark.parametrize("pattern", ["{}/*.mrc", "simplecache::{}/TS_*.mrc"])
def test_patterns_in_a_store(store: str, pattern: str) -> None:
    ds = open_many(pattern.format(store))
    assert ds.tomogram.values.tolist() == ["TS_2.mrc", "TS_10.mrc"]
    np.testing.assert_array_equal(ds.data, [pixels(2), pixels(10)])


def test_files_of_an_archive_and_of_different_places(store: str, folder: Path) -> None:
    with zipfile.ZipFile(folder / "all.zip", "w") as archive:
        archive.writestr("TS_4.mrc", tomogram(4))
        archive.writestr("TS_3.mrc", tomogram(3))
    ds = open_many(f"zip://*.mrc::{folder}/all.zip")
    assert ds.tomogram.values.tolist() == ["TS_3.mrc", "TS_4.mrc"]
    np.testing.assert_array_equal(ds.data, [pixels(3), pixels(4)])
    ds = open_many(
        [f"{store}/TS_10.mrc", folder / "TS_1.mrc", f"zip://TS_3.mrc::{folder}/all.zip"]
    )
    np.testing.assert_array_equal(ds.data, [pixels(i) for i in (10, 1, 3)])


@pytest.mark.slow
def test_urls_have_no_secrets_in_their_names(folder: Path) -> None:
    with servers.http_server(folder) as server:
        urls = [server.url(f"TS_{i}.mrc?token=secret{i}") for i in (10, 2)]
        ds = open_many(urls)
        assert ds.tomogram.values.tolist() == ["TS_10.mrc", "TS_2.mrc"]
        np.testing.assert_array_equal(ds.data, [pixels(10), pixels(2)])
        # one opening per file
        assert server.methods().count("HEAD") <= 2
