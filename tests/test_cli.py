"""The command line: its output, messages and exit status."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import by_hand
import mrcfile
import numpy as np
import pytest
import xarray as xr
from validating import ATTRIBUTES

import mrc_xarray
from mrc_xarray.cli import main


@pytest.fixture
def tomogram(tmp_path: Path) -> Path:
    path = tmp_path / "tomo.mrc"
    with mrcfile.new(path) as mrc:
        mrc.set_data(np.zeros((3, 4, 5), np.float32))
        mrc.voxel_size = 2.5
    return path


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.mrc"
    fields = {"nversion": 0, "cella": (-1, float("inf"), 2), "dmin": 3, "dmax": 4}
    path.write_bytes(by_hand.mrc(np.zeros((2, 3, 4), np.float32), **fields))
    return path


def strictly(text: str) -> Any:
    """Parse JSON, which has no NaN."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


# info -------------------------------------------------------------------------------------------


def test_info(tomogram: Path, capsys: Any) -> None:
    assert main(["info", str(tomogram)]) == 0
    out, err = capsys.readouterr()
    for text in (
        str(tomogram),
        "3 z × 4 y × 5 x",
        "float32 (MODE 2, little-endian)",
        "z 2.5 Å, y 2.5 Å, x 2.5 Å",
        "volume (5",
        f"{tomogram.stat().st_size} bytes",
        "Created by mrcfile.py",
    ):
        assert text in out
    assert err == ""


def test_info_on_repairs_and_assumptions(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "odd.mrc"
    path.write_bytes(by_hand.mrc(np.zeros((2, 2, 2), np.int8), mapc=0, nversion=0))
    assert main(["info", str(path)]) == 0
    out = capsys.readouterr().out
    assert "MAPC, MAPR, MAPS (bytes 64–75) are 0, 2, 3" in out
    assert "int8: assumed" in out


def test_info_as_json(tomogram: Path, tmp_path: Path, capsys: Any) -> None:
    nan = tmp_path / "nan.mrc"
    nan.write_bytes(by_hand.mrc(np.zeros((1, 2, 2), np.float32), dmean=float("nan")))
    assert main(["info", "--json", str(tomogram), str(nan)]) == 0
    first, second = strictly(capsys.readouterr().out)
    assert first["shape"] == {"z": 3, "y": 4, "x": 5}
    assert first["voxel_size_angstrom"] == {"z": 2.5, "y": 2.5, "x": 2.5}
    assert first["size_on_disk"] == tomogram.stat().st_size
    assert first["header"]["nx"] == 5
    assert second["header"]["dmean"] == "nan"


@pytest.mark.parametrize(
    ("t", "text"), [(["a", "b"], "unknown"), ([1.5, 2], "t 1.5"), ([np.nan, 2], "unknown")]
)
def test_info_on_coordinates_without_units_or_numbers(
    tmp_path: Path, capsys: Any, t: list[Any], text: str
) -> None:
    path = tmp_path / "series.mrcz"
    data = xr.DataArray(np.zeros((2, 3, 4), "f4"), {"t": t}, ("t", "y", "x"))
    mrc_xarray.to_mrc(data, path)
    assert main(["info", str(path)]) == main(["info", "--json", str(path)]) == 0
    out = capsys.readouterr().out
    assert f"  first voxel at  {text}\n" in out
    strictly(out[out.index("\n[") :])


def test_info_continues_after_a_bad_file(tomogram: Path, tmp_path: Path, capsys: Any) -> None:
    bad, missing, archive = (tmp_path / name for name in ("bad.mrc", "missing.mrc", "no.zip"))
    bad.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    archive.write_bytes(b"not an archive")
    files = [str(bad), str(missing), f"zip://x.mrc::{archive}", str(tomogram)]
    assert main(["info", *files]) == 1
    out, err = capsys.readouterr()
    assert "3 z × 4 y × 5 x" in out
    # one line per error, with the file and the class of another library's error
    first, second, third = err.splitlines()
    assert "Git LFS pointer" in first
    assert "missing.mrc" in second
    assert str(archive) in third
    assert "BadZipFile" in third


# validate ---------------------------------------------------------------------------------------


def test_validate(tomogram: Path, broken: Path, capsys: Any) -> None:
    assert main(["validate", "--data", str(tomogram)]) == 0
    assert capsys.readouterr() == (f"{tomogram}: valid\n", "")
    for options in ([], ["--data"]):
        assert main(["validate", str(broken), *options]) == 1
        out, err = capsys.readouterr()
        problems = mrc_xarray.validate(broken, data=bool(options))
        assert out == "".join([f"{broken}:\n", *(f"  {problem}\n" for problem in problems)])
        assert ("DMIN" in out) == bool(options)
        assert err == ""


def test_validate_fails_for_a_warning(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "suspicious.mrc"
    path.write_bytes(by_hand.mrc(np.zeros((2, 3, 4), np.float32), mx=0))
    assert main(["validate", str(path)]) == 1
    assert "warning cell: MX" in capsys.readouterr().out


def test_validate_as_json(tomogram: Path, broken: Path, tmp_path: Path, capsys: Any) -> None:
    missing = tmp_path / "none.mrc"
    files = [tomogram, broken, missing, tmp_path]
    assert main(["validate", "--json", "--data", *map(str, files)]) == 1
    out, err = capsys.readouterr()
    valid, invalid, *unreadable = strictly(out)
    assert valid == {"file": str(tomogram), "valid": True, "problems": []}
    assert (invalid["file"], invalid["valid"]) == (str(broken), False)
    assert invalid["problems"] == [
        {name: getattr(problem, name) for name in ATTRIBUTES}
        for problem in mrc_xarray.validate(broken, data=True)
    ]
    for report, path in zip(unreadable, files[2:], strict=True):
        assert (report["file"], report["valid"]) == (str(path), False)
        assert [problem["code"] for problem in report["problems"]] == ["unreadable"]
    assert len(err.splitlines()) == 2


# edit -------------------------------------------------------------------------------------------


def test_edit(tomogram: Path, capsys: Any) -> None:
    pixels = tomogram.read_bytes()[1024:]
    options = ["--origin", "0", "-1.5", "-430", "--ispg", "401", "--mz", "1", "--exttyp", "MRCO"]
    options += ["--voxel-size", "1.35", "--label", "aligned", "by hand", "--machst", "44410000"]
    assert main(["edit", str(tomogram), *options]) == 0
    assert main(["edit", str(tomogram), "--tiltangles", *"123456", "--dmin", "-1e-3"]) == 0
    assert struct.unpack_from("<f", tomogram.read_bytes(), 76) == (np.float32(-1e-3),)
    assert main(["edit", str(tomogram), "--statistics"]) == 0
    assert capsys.readouterr() == ("", "")
    raw = tomogram.read_bytes()
    assert raw[1024:] == pixels
    assert (raw[104:108], raw[212:216]) == (b"MRCO", b"\x44\x41\0\0")
    assert struct.unpack_from("<3f", raw, 196) == (0, -1.5, -430)
    assert struct.unpack_from("<i", raw, 88) == (401,)
    assert struct.unpack_from("<6f", raw, 172) == (1, 2, 3, 4, 5, 6)
    assert struct.unpack_from("<3f", raw, 76) == (0, 0, 0)
    with mrcfile.open(tomogram) as mrc:
        assert [label.strip() for label in mrc.get_labels()] == ["aligned", "by hand"]
        assert float(mrc.voxel_size.x) == pytest.approx(1.35)


def test_edit_of_three_voxel_sizes_and_several_files(tomogram: Path, capsys: Any) -> None:
    missing, other = tomogram.with_name("none.mrc"), tomogram.with_name("other.mrc")
    other.write_bytes(tomogram.read_bytes())
    files = [str(tomogram), str(missing), str(other)]
    assert main(["edit", *files, "--voxel-size", "1", "2", "4"]) == 1
    assert "none.mrc" in capsys.readouterr().err
    for path in (tomogram, other):
        assert struct.unpack_from("<3f", path.read_bytes(), 40) == (5, 8, 12)


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        ([], 2, "nothing to change"),
        (["--voxel-size", "1", "2"], 2, "expected 1 or 3 arguments"),
        (["--voxelsize", "1"], 2, "--voxelsize"),
        (["--origin", "1", "2"], 2, "expected 3 arguments"),
        (["--nz", "9"], 1, "tomo.mrc: "),
        (["--voltage", "300"], 1, "no program would read it"),
        (["--dmin", "nan"], 1, "finite"),
    ],
)
def test_edit_that_fails(
    tomogram: Path, options: list[str], status: int, message: str, capsys: Any
) -> None:
    before = tomogram.read_bytes()
    try:
        found = main(["edit", str(tomogram), *options])
    except SystemExit as stopped:
        found = int(stopped.code or 0)
    assert found == status
    assert message in capsys.readouterr().err
    assert tomogram.read_bytes() == before


# the process ------------------------------------------------------------------------------------


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mrc_xarray", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_python_m_mrc_xarray(tmp_path: Path) -> None:
    done = run("info", str(tmp_path / "none.mrc"))
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("mrc-xarray: ")


def test_version_and_usage(capsys: Any) -> None:
    for arguments, status in ((["--version"], 0), (["convert", "one"], 2)):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == status
    out, err = capsys.readouterr()
    assert out == f"{mrc_xarray.__version__}\n"
    assert err.startswith("usage: mrc-xarray convert ")


@pytest.mark.slow
def test_demo(tmp_path: Path) -> None:
    path = tmp_path / "demo.mrc"
    done = run("demo", str(path))
    assert done.returncode == 0
    assert done.stderr == ""
    assert mrcfile.validate(path, print_file=sys.stderr)
    with mrcfile.open(path) as mrc:
        mean = float(mrc.data.mean(dtype=np.float64))
        assert mrc.voxel_size.x == pytest.approx(13.3, rel=1e-6)
        assert mrc.is_volume()
    assert "<xarray.Dataset>" in done.stdout
    _, result = done.stdout.split(">>> ds.data.mean().compute(), on a cluster of 2 processes\n")
    assert float(result.splitlines()[0]) == pytest.approx(mean, abs=2e-6)


def test_demo_overwrites_nothing(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "precious.mrc"
    path.write_bytes(b"precious")
    assert main(["demo", str(path)]) == 1
    assert path.read_bytes() == b"precious"
    assert "File exists" in capsys.readouterr().err
