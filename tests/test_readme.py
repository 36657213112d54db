"""The README's code blocks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mrc_xarray import samples

README = Path(__file__).parents[1] / "README.md"


def test_python_blocks_run(tmp_path, monkeypatch) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.M | re.S)
    assert len(blocks) == 2
    samples.tomogram(tmp_path, name="tomo.mrc")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    slab = names["slab"]
    assert slab.sizes["z"] == 3  # 400–450 Å at 13.3 Å: 412.3, 425.6, 438.9
    assert names["ds"].mrc.voxel_size == pytest.approx({"z": 13.3, "y": 13.3, "x": 13.3})


def test_commands_are_the_two_that_ci_runs() -> None:
    commands = re.findall(r"^```sh\n(.*?)^```$", README.read_text(), re.M | re.S)
    assert [command.split()[0] for command in commands] == ["pip", "pip"]
