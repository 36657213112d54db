"""Pictures of files, by the command."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import by_hand
import dm_by_hand
import matplotlib.image
import numpy as np
import pytest

from mrc_xarray.cli import main

# a bright corner in the darkness
DATA = np.zeros((3, 8, 8), "f4")
DATA[:, :4, :4] = 1


def corners(picture: Path) -> tuple[float, float]:
    """Return the grey values near the lower left and the upper right corner of the first plot."""
    pixels = matplotlib.image.imread(picture)[..., :3]
    # the frame of the plot is the only thing in its colour
    blue = np.abs(pixels - np.array([0, 0x72, 0xB2]) / 255).max(-1) < 0.05
    rows, columns = np.flatnonzero(blue.sum(1) > 100), np.flatnonzero(blue.sum(0) > 100)
    return pixels[rows[-1] - 40, columns[0] + 40, 0], pixels[rows[0] + 40, columns[-1] - 40, 0]


@pytest.mark.slow
def test_a_volume(tmp_path: Path, capsys: Any) -> None:
    source, picture = tmp_path / "a volume.mrc", tmp_path / "slices.png"
    source.write_bytes(by_hand.mrc(DATA))
    # at the border, so that no line is in the corners
    at = ["--at", "z=0", "y=4", "x=4", "--thickness", "z=2"]
    assert main(["preview", str(source), "-o", str(picture), *at]) == 0
    assert capsys.readouterr() == ("", "")
    assert corners(picture) == pytest.approx((1, 0), abs=0.02)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::mrc_xarray.MrcWarning")
def test_arguments_of_the_engine(tmp_path: Path, capsys: Any) -> None:
    source, picture = tmp_path / "live.mrc", tmp_path / "slices.svg"
    source.write_bytes(by_hand.mrc(DATA)[:-10])
    assert main(["preview", str(source), "-o", str(picture)]) == 1
    assert "--truncated trim" in capsys.readouterr().err
    options = ["--truncated", "trim", "--scan-shape", "1", "2", "--norm", "log"]
    assert main(["preview", str(source), "-o", str(picture), *options]) == 0
    assert b"</svg>" in picture.read_bytes()


@pytest.mark.slow
def test_dm(tmp_path: Path) -> None:
    source, picture = tmp_path / "image.dm4", tmp_path / "image.pdf"
    source.write_bytes(dm_by_hand.dm(dm_by_hand.image(DATA[0], 2)))
    assert main(["preview", str(source), "-o", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"%PDF")


def test_info_on_dm(tmp_path: Path, capsys: Any) -> None:
    source = tmp_path / "image.dm4"
    source.write_bytes(dm_by_hand.dm(dm_by_hand.image(DATA[0], 2)))
    assert main(["info", "--header", str(source)]) == main(["info", "--table", str(source)]) == 0
    out = capsys.readouterr().out
    assert "  type            float32\n" in out
    assert out.count("image.dm4") == 2
    assert "None" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "slices.xyz"], "slices.xyz: the suffix is '.xyz'; accepted: ."),
        (["-o", "slices"], "slices: the suffix is ''; accepted"),
        (["-o", "slices.png", "--at", "w=1"], "volume.mrc: at has the dimension 'w'; accepted: z"),
        pytest.param(["-o", "nowhere/slices.png"], "nowhere", marks=pytest.mark.slow),
    ],
)
def test_what_is_not_accepted(
    tmp_path: Path, capsys: Any, monkeypatch: Any, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("volume.mrc").write_bytes(by_hand.mrc(DATA))
    assert main(["preview", "volume.mrc", *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["volume.mrc"]


def test_without_matplotlib(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    source = tmp_path / "volume.mrc"
    source.write_bytes(by_hand.mrc(DATA))
    assert main(["preview", str(source), "-o", str(tmp_path / "slices.png")]) == 1
    assert "pip install matplotlib" in capsys.readouterr().err


@pytest.mark.slow
def test_without_a_display(tmp_path: Path, real_file: Callable[[str], Path]) -> None:
    picture = tmp_path / "map.png"
    command = [sys.executable, "-m", "mrc_xarray", "preview", str(real_file("emd_3197.map.gz"))]
    environment = {"PATH": "", "MPLBACKEND": "qtagg", "MPLCONFIGDIR": str(tmp_path)}
    done = subprocess.run(
        [*command, "-o", str(picture)], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    assert matplotlib.image.imread(picture).std() > 0.1
