"""The command line: what a user and a script see of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import by_hand
import mrcfile
import numpy as np
import pytest

from mrc_xarray.cli import main


@pytest.fixture
def tomogram(tmp_path: Path) -> Path:
    path = tmp_path / "tomo.mrc"
    with mrcfile.new(path) as mrc:
        mrc.set_data(np.zeros((3, 4, 5), np.float32))
        mrc.voxel_size = 2.5
    return path


def test_info_tells_shape_type_voxel_size_layout_size_and_labels(tomogram, capsys) -> None:
    assert main(["info", str(tomogram)]) == 0
    out = capsys.readouterr().out
    for text in (
        str(tomogram),
        "3 z × 4 y × 5 x",
        "float32 (MODE 2, little-endian)",
        "z 2.5 Å, y 2.5 Å, x 2.5 Å",
        "volume, by rule 5",
        f"{tomogram.stat().st_size} bytes",
        "Created by mrcfile.py",
    ):
        assert text in out


def test_info_tells_repairs_and_assumptions(tmp_path, capsys) -> None:
    path = tmp_path / "odd.mrc"
    path.write_bytes(by_hand.mrc(np.zeros((2, 2, 2), np.int8), mapc=0, nversion=0))
    assert main(["info", str(path)]) == 0
    out = capsys.readouterr().out
    assert "MAPC, MAPR, MAPS (bytes 64–75) are 0, 2, 3" in out
    assert "int8: assumed" in out


def test_info_as_json_is_strict_and_whole(tomogram, tmp_path, capsys) -> None:
    nan = tmp_path / "nan.mrc"
    nan.write_bytes(by_hand.mrc(np.zeros((1, 2, 2), np.float32), dmean=float("nan")))
    assert main(["info", "--json", str(tomogram), str(nan)]) == 0

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    first, second = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert first["shape"] == {"z": 3, "y": 4, "x": 5}
    assert first["voxel_size_angstrom"] == {"z": 2.5, "y": 2.5, "x": 2.5}
    assert first["size_on_disk"] == tomogram.stat().st_size
    assert first["header"]["nx"] == 5
    assert second["header"]["dmean"] == "nan"


def test_info_goes_on_after_a_bad_file_and_fails(tomogram, tmp_path, capsys) -> None:
    bad = tmp_path / "bad.mrc"
    bad.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    missing = tmp_path / "missing.mrc"
    assert main(["info", str(bad), str(missing), str(tomogram)]) == 1
    out, err = capsys.readouterr()
    assert "3 z × 4 y × 5 x" in out
    lines = err.splitlines()
    assert len(lines) == 2
    assert "Git LFS pointer" in lines[0]
    assert "missing.mrc" in lines[1]


def test_the_installed_command_shows_no_traceback(tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mrc_xarray", "info", str(tmp_path / "none.mrc")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_demo_makes_a_file_that_mrcfile_reads_and_computes_its_mean(tmp_path) -> None:
    path = tmp_path / "demo.mrc"
    done = subprocess.run(
        [sys.executable, "-m", "mrc_xarray", "demo", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert mrcfile.validate(path, print_file=sys.stderr)
    with mrcfile.open(path) as mrc:
        mean = float(mrc.data.mean(dtype=np.float64))
        assert mrc.voxel_size.x == pytest.approx(13.3, rel=1e-6)
        assert mrc.is_volume()
    assert "<xarray.Dataset>" in done.stdout
    lines = done.stdout.splitlines()
    shown = lines[lines.index(next(line for line in lines if "mean().compute()" in line)) + 1]
    assert float(shown) == pytest.approx(mean, abs=2e-6)
    assert done.stderr == ""


def test_demo_overwrites_nothing(tmp_path, capsys) -> None:
    path = tmp_path / "precious.mrc"
    path.write_bytes(b"precious")
    assert main(["demo", str(path)]) == 1
    assert path.read_bytes() == b"precious"
    assert "File exists" in capsys.readouterr().err


def test_any_library_error_is_one_line_that_names_file_and_kind(tmp_path, capsys) -> None:
    path = tmp_path / "no.zip"
    path.write_bytes(b"no archive")
    assert main(["info", f"zip://x.mrc::{path}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path) in line
    assert "BadZipFile" in line


def test_labels_are_no_commands_to_the_terminal(tmp_path, capsys) -> None:
    path = tmp_path / "label.mrc"
    data = np.zeros((1, 2, 2), np.float32)
    path.write_bytes(by_hand.mrc(data, labels=(b"\x1b]0;title\x07",)))
    assert main(["info", str(path)]) == 0
    out = capsys.readouterr().out
    assert "title" in out
    assert "\x1b" not in out
