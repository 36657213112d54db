"""References to documents have a target in the project."""

from __future__ import annotations

import re
from pathlib import Path

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
