"""The samples: valid files with the content that their names promise, read by other programs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import rsciio.mrc
import xarray as xr
from writes import check_validity, read_by_rosettasciio

import mrc_xarray
from mrc_xarray import samples
from mrc_xarray.samples import specimen

SAMPLES = {
    samples.tomogram: ["tomogram.mrc"],
    samples.tilt_series: ["tilt_series.mrc", "tilt_series.mrc.mdoc"],
    samples.stem4d: [
        "20261121_00007_movie.mrc", "20261121_00007_0_Sum_sum.mrc", "20261121_00007_final.mrc",
        "20261121_00007_info.txt",
    ],
    samples.particles: ["particles.mrcs", "particles.star"],
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("samples") / "made"


@pytest.mark.slow
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.__name__)
def test_files_are_small_and_always_the_same(
    sample: Callable[..., Path], folder: Path, tmp_path: Path
) -> None:
    first, *others = SAMPLES[sample]
    assert sample(folder) == folder / first
    again = sample(str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {first, *others}
    for name in (first, *others):
        assert (again.with_name(name)).read_bytes() == (folder / name).read_bytes()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 10e6


def test_a_sample_is_written_over_itself_only(tmp_path: Path) -> None:
    path = samples.tomogram(tmp_path, shape=(4, 16, 16))
    assert samples.tomogram(tmp_path, shape=(4, 16, 16)) == path
    with pytest.raises(FileExistsError, match="not this sample"):
        samples.tomogram(tmp_path, shape=(4, 16, 17))
    precious = tmp_path / "particles.star"
    precious.write_text("precious")
    with pytest.raises(FileExistsError, match=r"particles\.star"):
        samples.particles(tmp_path)
    assert precious.read_text() == "precious"
    assert {path.name for path in tmp_path.iterdir()} == {"tomogram.mrc", "particles.star"}


def test_each_temporary_folder_is_new() -> None:
    path, other = (mrc_xarray.samples.tomogram(shape=(2, 8, 8)) for _ in range(2))
    assert path != other
    assert path.parent.parent == other.parent.parent
    assert len(list(path.parent.iterdir())) == 1


@pytest.mark.slow
def test_temporary_folders_are_removed() -> None:
    code = "from mrc_xarray import samples; print(samples.tomogram(shape=(2, 8, 8)).parent.parent)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert "mrc_xarray-samples-" in done.stdout
    assert not Path(done.stdout.strip()).exists()
    assert done.stderr == ""


def test_tomogram(folder: Path) -> None:
    path = samples.tomogram(folder)
    check_validity(path)
    with mrcfile.open(path) as mrc:
        assert mrc.is_volume()
        assert mrc.voxel_size.x == pytest.approx(13.3, rel=1e-6)
        data = mrc.data
        # gold, a membrane with two leaflets, and ice
        assert data[38, 163, 48] < -4
        row = data[28:37, 72:81].mean((0, 1))
        assert row[int(0.36 * 192) + 54] < -0.8 > row[int(0.36 * 192) + 50] - 0.2
        assert abs(row[int(0.36 * 192) + 30]) < 0.1
    assert xr.open_dataset(path, engine="mrc")["data"].dims == ("z", "y", "x")


def projected(volume: np.ndarray, angle: float) -> np.ndarray:
    """Add up voxels along the beam, at each point the nearest one."""
    nz, _, nx = volume.shape
    padded = np.pad(volume, ((0, 1), (0, 0), (0, 1))).transpose(0, 2, 1)
    cosine, sine = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    across, along = np.arange(nx) - nx / 2, np.arange(-nx, nx, 0.5)[:, np.newaxis]
    in_x = np.rint(across * cosine - along * sine + nx / 2).astype(int)
    in_z = np.rint(across * sine + along * cosine + nz / 2).astype(int)
    outside = (in_x < 0) | (in_x >= nx) | (in_z < 0) | (in_z >= nz)
    in_x[outside], in_z[outside] = nx, nz
    return padded[in_z, in_x].sum(0).T / 2


@pytest.mark.parametrize("angle", [0, -51])
def test_projections_are_those_of_the_volume(angle: float) -> None:
    shape = (48, 128, 128)
    expected = projected(specimen.density(shape), angle)
    result = specimen.projection(shape, angle)
    # voxels at the sides leave a tilted box
    inner = (slice(None), slice(32, -32))
    assert np.corrcoef(result[inner].ravel(), expected[inner].ravel())[0, 1] > 0.98
    assert result[inner].sum() == pytest.approx(expected[inner].sum(), rel=0.03)


def test_tilt_series(folder: Path) -> None:
    path = samples.tilt_series(folder)
    check_validity(path)
    ds = xr.open_dataset(path, engine="mrc")
    assert dict(ds.sizes) == {"image": 41, "y": 192, "x": 192}
    with mrcfile.open(path) as mrc:
        assert mrc.header.label[0].startswith(b"SerialEM: ")
        np.testing.assert_array_equal(ds["data"], mrc.data)
    assert ds.tilt_angle.values[:4] == pytest.approx([0, 3, -3, -6], abs=0.1)
    assert (abs(ds.tilt_angle).max(), ds["data"].attrs["voltage_kV"]) == (
        pytest.approx(60, abs=0.1),
        300,
    )


@pytest.mark.slow
def test_mdoc_is_read_by_mdocfile(folder: Path) -> None:
    import mdocfile

    path = samples.tilt_series(folder)
    ds = xr.open_dataset(path, engine="mrc")
    entries = mdocfile.read(f"{path}.mdoc")
    np.testing.assert_array_equal(ds.tilt_angle, entries.TiltAngle)
    np.testing.assert_array_equal(ds.dose, entries.ExposureDose)
    np.testing.assert_array_equal(ds.defocus, entries.Defocus)
    assert list(entries.DateTime)[:2] == ["21-Nov-26  12:38:50", "21-Nov-26  12:39:28"]


def test_stem4d(folder: Path) -> None:
    path = samples.stem4d(folder)
    ds = xr.open_dataset(path, engine="mrc", units="nm")
    scan = ds["data"]
    signal = read_by_rosettasciio(rsciio.mrc, path)
    np.testing.assert_array_equal(scan, signal["data"])
    assert [(axis["name"], axis["units"]) for axis in signal["axes"]] == [
        ("y", "nm"), ("x", "nm"), ("ky", "nm^-1"), ("kx", "nm^-1"),
    ]  # fmt: skip
    # RosettaSciIO 0.15 sets all of them to 1
    assert [ds[dim].attrs["spacing"] for dim in scan.dims] == [0.5, 0.5, 0.3, 0.3]
    # (002) of gold is 1 / 0.204 nm from the direct beam, in another direction in each grain
    grains = scan[17:20, 16:20], scan[17:20, 28:32]
    spots = [(25 + 16.3 * np.sin(turn), 27 + 16.3 * np.cos(turn)) for turn in np.deg2rad([8, 41])]
    boxes = [np.s_[..., int(y) - 1 : int(y) + 3, int(x) - 1 : int(x) + 3] for y, x in spots]
    bright = [[grain[box].mean() > 3 for box in boxes] for grain in grains]
    assert bright == [[True, False], [False, True]]
    beam = np.s_[..., 22:29, 24:31]
    film = scan[17:20, 2:6]
    assert film[beam].mean() > 1.8 * grains[0][beam].mean()
    tree = xr.open_datatree(path, engine="mrc")
    np.testing.assert_array_equal(tree["virtual/Sum/data"], scan.sum(("ky", "kx")))
    np.testing.assert_array_equal(tree["final/data"], scan.sum(("scan_y", "scan_x")))


def test_particles(folder: Path) -> None:
    path = samples.particles(folder)
    check_validity(path)
    with mrcfile.open(path) as mrc:
        assert mrc.is_image_stack()
        assert mrc.voxel_size.y == 4
        top, side, _ = (mrc.data[view::3].mean(0) for view in range(3))
    # seven subunits around the middle
    turn = np.arange(0, 2 * np.pi, np.pi / 90)
    ring = top[
        np.rint(32 + 11 * np.sin(turn)).astype(int), np.rint(32 + 11 * np.cos(turn)).astype(int)
    ]
    assert np.abs(np.fft.rfft(ring))[1:20].argmax() + 1 == 7
    # the axis of a barrel with a tilt of 90° is x, and the gap between its rings is in the middle
    assert side[28:37, 27:30].mean() > side[28:37, 31:34].mean() < side[28:37, 35:38].mean()
    text = (folder / "particles.star").read_text()
    rows = [line.split() for line in text.splitlines() if "@" in line]
    names = [line.split()[0] for line in text.splitlines() if line.startswith("_rln")][8:]
    table = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    assert table["_rlnImageName"][0] == "000001@particles.mrcs"
    assert table["_rlnImageName"][-1] == "000240@particles.mrcs"
    assert table["_rlnClassNumber"][:4] == ["1", "2", "3", "1"]
    tilt = np.array(table["_rlnAngleTilt"], float)
    assert [tilt[view::3].mean() for view in range(3)] == pytest.approx([0, 90, 45], abs=2)
