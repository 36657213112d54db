"""References to documents have a target in the project."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
FORMAT = "docs/reference/format.md"
TEXTS = sorted(
    path
    for folder in ("mrc_xarray", "tests", "docs", "notebooks", "benchmarks", ".ci", ".github")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".py", ".md", ".ipynb", ".yml", ""} and path.is_file()
) + sorted(ROOT.glob("*.md"))


def test_references_to_the_format_have_a_target() -> None:
    anchors = set(re.findall(r"^\((\S+)\)=$", (ROOT / FORMAT).read_text(encoding="utf-8"), re.M))
    used = {
        (path.name, anchor)
        for path in TEXTS
        if path.suffix == ".py"
        for anchor in re.findall(
            r"reference/format\.md#([\w-]+)", path.read_text(encoding="utf-8")
        )
    }
    assert len(used) > 10
    assert {reference for reference in used if reference[1] not in anchors} == set()


@pytest.mark.parametrize("name", ["DESIGN", "FORMAT", "STYLE"])
def test_no_reference_leaves_the_project(name: str) -> None:
    pattern = re.compile(rf"\b{name}\.md\b|[Ss]ee {name}\b")
    found = [path.name for path in TEXTS if pattern.search(path.read_text(encoding="utf-8"))]
    assert [path for path in found if path != "test_docs.py"] == []


def run_page(name: str) -> dict[str, Any]:
    """Run the cells of a page in the working directory, and return its names."""
    page = (ROOT / "docs" / name).read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for cell in re.findall(r"^```\{code-cell\}\n(.*?)^```$", page, re.M | re.S):
        exec(cell, names)
    return names


# all pages are run when the docs are built; the results of these are also checked
@pytest.mark.slow
def test_comparison_of_volumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = run_page("howto/compare.md")
    full = {"z": 16, "y": 64, "x": 64}
    assert (names["after"] - names["before"]).sizes == {"z": 1, "y": 1, "x": 1}
    for result in ("overridden", "corrected", "change", "joined"):
        assert names[result].sizes == full
    assert names["difference"].sizes == {"z": 8, "y": 64, "x": 30}
    assert not names["difference"].isnull().any()


@pytest.mark.slow
def test_virtual_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image has neither the units of the mask's coordinates nor the coordinates."""
    monkeypatch.chdir(tmp_path)
    names = run_page("howto/stem4d.md")
    image, scan = names["bright_field"], names["scan"]
    assert image.attrs == scan.attrs
    assert not {"units", "long_name", "spacing"} & image.attrs.keys()
    assert image.dims == ("scan_y", "scan_x")
    assert set(image.coords) == {"scan_y", "scan_x"}
    assert image.scan_x.attrs["units"] == "nm"
    ky, kx = np.mgrid[:8, :10] * 0.25
    mask = np.hypot(ky - 1, kx - 1.25) < 0.6
    expected = names["frames"].reshape(3, 4, 8, 10)[..., mask].sum(-1)
    np.testing.assert_array_equal(image, expected)
    steps = {dim: coord.attrs["spacing"] for dim, coord in names["labelled"].coords.items()}
    assert steps == {"scan_y": 0.5, "scan_x": 0.5, "ky": 0.25, "kx": 0.25}
