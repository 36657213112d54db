"""The documents: each code block runs, and references have a target in the project.

The build of the docs runs the pages that consist of cells. Pages with other blocks run here.

A page is run from its top to its bottom, in a folder of its own. What a block needs and the reader
does not, is in a cell with the tag ``remove-cell``. These comments, in the line above a block, say
how it is run:

- ``<!-- not run: REASON -->`` above a block of text
- ``<!-- exit status: N -->`` above shell commands that fail
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import gc
import inspect
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import numpy as np
import pytest
import servers
import slurm
import xarray as xr

import mrc_xarray
from mrc_xarray import samples
from mrc_xarray.accessor import MrcAccessor

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


def entries(page: str) -> list[str]:
    """Return the pages in the tables of contents of a page, relative to docs."""
    trees = [block.text for block in blocks(page) if block.language == "{toctree}"]
    names = re.findall(r"^(?:.* <)?([\w./-]+?)>?$", "\n".join(trees), re.M)
    folder = Path(page).parent
    return [os.path.normpath(folder / name).removeprefix("docs/") for name in names]


def test_each_page_is_in_the_sidebar_of_a_section() -> None:
    sections = entries("docs/index.md")
    assert all(name.endswith("/index") for name in sections)
    found = Counter(name for section in sections for name in entries(f"docs/{section}.md"))
    assert set(found.values()) == {1}
    pages = {page.removeprefix("docs/").removesuffix(".md") for page in PAGES}
    notebooks = {f"notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert found.keys() >= pages - {"index", *sections} | notebooks


def documented(page: Path) -> Iterator[str]:
    """Return the full names of the objects that a page documents."""
    module = ""
    text = page.read_text(encoding="utf-8")
    for directive, name in re.findall(r"^\.\. (currentmodule|auto\w+):: ([\w.]+)", text, re.M):
        if directive == "currentmodule":
            module = name
        else:
            yield name if name.startswith("mrc_xarray.") else f"{module}.{name}"


def test_the_search_finds_each_public_name_once() -> None:
    pages = [ROOT / page for page in PAGES]
    assert [page.name for page in pages if ":no-index:" in page.read_text(encoding="utf-8")] == []
    found = Counter(name for page in pages for name in documented(page))
    assert set(found.values()) == {1}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    engines = project["entry-points"]["xarray.backends"].values()
    expected = {
        *(f"mrc_xarray.{name}" for name in mrc_xarray.__all__ if name != "__version__"),
        *(f"mrc_xarray.accessor.MrcAccessor.{name}" for name in public(MrcAccessor)),
        *(f"{engine.replace(':', '.')}.open_dataset" for engine in engines),
    }
    assert len(expected) > 15
    assert expected - found.keys() == set()


def public(obj: Any) -> set[str]:
    return {name for name in vars(obj) if not name.startswith("_")}


# --- the blocks of the pages


class Block(NamedTuple):
    """A fenced block, and the comment in the line above it."""

    page: str
    line: int
    language: str
    comment: str
    text: str


PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
# test_readme.py and test_coming_from.py have files for these
RUN_ELSEWHERE = {"README.md", "docs/howto/cheat_sheet.md", "docs/howto/coming_from.md"}
PYTHON = {"{code-cell}", "python"}
DIRECTIVES = {"{eval-rst}", "{image}", "{include}", "{toctree}"}
# of colons, around text
LAYOUT = {"{div}", "{grid}", "{grid-item}", "{grid-item-card}"}


def blocks(page: str) -> list[Block]:
    source = (ROOT / page).read_text(encoding="utf-8")
    fence = re.compile(r"(?:^<!-- (.*) -->\n)?^```(\S*).*\n((?:.*\n)*?)^```$", re.M)
    return [
        Block(page, source.count("\n", 0, match.start(2)) + 1, match[2], match[1] or "", match[3])
        for match in fence.finditer(source)
    ]


ALL = [block for page in [*PAGES, "README.md"] for block in blocks(page)]


def test_each_block_runs_or_says_why_not() -> None:
    assert len(ALL) > 100
    for page in [*PAGES, "README.md"]:
        text = (ROOT / page).read_text(encoding="utf-8")
        assert len(re.findall("^ *```", text, re.M)) == 2 * len(blocks(page)), page
        assert set(re.findall("^ *:::+(.+?\\})", text, re.M)) <= LAYOUT, page
    runs = {*PYTHON, "sh", *DIRECTIVES}
    assert [
        f"{block.page}:{block.line}"
        for block in ALL
        if block.language not in runs
        and not (block.language == "text" and block.comment.startswith("not run: "))
    ] == []


def test_lines_of_code_fit_next_to_the_sidebars() -> None:
    assert [
        f"{block.page}:{block.line}"
        for block in ALL
        if block.language in {*PYTHON, "sh"} and "[remove-" not in block.text
        for line in block.text.splitlines()
        if len(line) > 88
    ] == []


class Page:
    """Runs the blocks of a page in the working directory; `urls` replaces some of its text."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.urls: dict[str, str] = {}
        self.names: dict[str, Any] = {"__name__": "__main__"}

    @property
    def text(self) -> str:
        return (ROOT / self.name).read_text(encoding="utf-8")

    def run(self) -> dict[str, Any]:
        """Return the names that the page defines."""
        for block in blocks(self.name):
            text = block.text
            for there, here in self.urls.items():
                text = text.replace(there, here)
            try:
                if block.language in PYTHON:
                    self.python(re.sub(r"\A(:.*\n)+", "", text))
                elif block.language == "sh":
                    self.shell(text, block.comment)
            except BaseException as error:
                error.add_note(f"in {block.page}, line {block.line}")
                raise
        return self.names

    def python(self, text: str) -> None:
        """Run Python code as a notebook does, with ``await`` at its top level."""
        code = compile(text, "<block>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, self.names)
        if inspect.iscoroutine(result):
            asyncio.run(result)

    def shell(self, text: str, comment: str) -> None:
        expected = re.fullmatch(r"exit status: (\d+)", comment)
        done = subprocess.run(["bash", "-eu", "-c", text], capture_output=True, text=True)
        assert done.returncode == (int(expected[1]) if expected else 0), done.stderr


@pytest.fixture
def page(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Page]:
    """Run a page in an empty folder, with the servers that it names on this machine."""
    page = Page(request.param)
    folder, served = tmp_path / "page", tmp_path / "served"
    folder.mkdir()
    served.mkdir()
    samples.tomogram(served, name="tomo.mrc", shape=(16, 64, 64))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    with contextlib.ExitStack() as stack:
        if "example.org" in page.text:
            http = stack.enter_context(servers.http_server(served))
            page.urls["https://example.org/"] = http.url("")
        if "s3://" in page.text:
            s3 = stack.enter_context(servers.s3_server("bucket"))
            s3.put("tomo.mrc", (served / "tomo.mrc").read_bytes())
            bucket = fsspec.filesystem("s3", **s3.storage_options)
            bucket.chmod("bucket/tomo.mrc", "public-read")
            credentials = tmp_path / "credentials"
            keys = "aws_access_key_id = key\naws_secret_access_key = secret\n"
            credentials.write_text(f"[default]\n{keys}[lab]\n{keys}")
            monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
            monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
            # another page has used the same arguments for its own server
            type(bucket).clear_instance_cache()
        if "SLURMCluster" in page.text:
            samples.tomogram(folder, shape=(16, 64, 64))
            there = stack.enter_context(slurm.commands(tmp_path / "slurm"))
            monkeypatch.setenv("PATH", f"{there}{os.pathsep}{os.environ['PATH']}")
        yield page
    # functions of a page refer to its names
    page.names.clear()
    gc.collect()


def check_comparison(names: dict[str, Any]) -> None:
    full = {"z": 16, "y": 64, "x": 64}
    assert (names["after"] - names["before"]).sizes == {"z": 1, "y": 1, "x": 1}
    for result in ("overridden", "corrected", "change", "joined"):
        assert names[result].sizes == full
    assert names["difference"].sizes == {"z": 8, "y": 64, "x": 30}
    assert not names["difference"].isnull().any()


def check_virtual_detector(names: dict[str, Any]) -> None:
    """The image has neither the units of the mask's coordinates nor the coordinates."""
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


def check_slurm(names: dict[str, Any]) -> None:
    """The workers that computed were batch jobs."""
    with xr.open_dataset("tomogram.mrc", engine="mrc") as ds:
        xr.testing.assert_equal(names["projection"], ds["data"].max("z"))
        expected = ds["data"].coarsen(z=2, y=2, x=2).mean()
    with xr.open_dataset("binned.mrc", engine="mrc") as ds:
        np.testing.assert_allclose(ds["data"], expected, rtol=1e-6)
    folder = Path(shutil.which("sbatch") or "").parent
    jobs = [path.read_text() for path in folder.glob("job-*.sh")]
    # and perhaps those of `adapt`
    assert len(jobs) >= 3
    assert all("#SBATCH -p cpu" in job and "--cpus-per-task=4" in job for job in jobs)
    assert sum("#SBATCH -A cryo" in job for job in jobs) == 2
    assert "#SBATCH --mem=15G" in names["script"]


# pages whose results are checked as well
RESULTS: dict[str, Callable[[dict[str, Any]], None]] = {
    "docs/howto/compare.md": check_comparison,
    "docs/howto/slurm.md": check_slurm,
    "docs/howto/stem4d.md": check_virtual_detector,
}


# the build of the docs runs the cells, and fails if one of them raises an error
RUN_HERE = {block.page for block in ALL if block.language in {"python", "sh"}} - RUN_ELSEWHERE


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", sorted(RUN_HERE | RESULTS.keys()), indirect=True)
def test_blocks_of_a_page_run(page: Page) -> None:
    names = page.run()
    RESULTS.get(page.name, lambda names: None)(names)
