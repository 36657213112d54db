"""Who may import whom: in the source, and in a fresh interpreter."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import mrc_xarray

PACKAGE = Path(mrc_xarray.__file__).parent
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
HEAVY = {"dask", "distributed", "fsspec", "blosc", "blosc2", "mrcfile", "zarr", "netCDF4"}


def imported(module: str, *, at_top: bool = False) -> set[str]:
    """Return the modules that a file imports, at its top or anywhere, but not for types alone."""
    tree = ast.parse((PACKAGE / module).read_text(encoding="utf-8"))
    found = set()
    nodes: list[ast.AST] = [tree]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if at_top and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
        nodes += ast.iter_child_nodes(node)
    return found


def packages(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


#: From the lowest layer to the highest. A module imports from its own layer and lower ones.
LAYERS = (
    ("_version", "errors", "options", "safe_json", "suffixes", "text", "units"),
    ("storage",),
    ("pixels",),
    ("metadata",),
    ("recording",),
    ("mrc",),
    ("labels",),
    ("writing",),
    ("tools",),
    ("accessor", "backend", "cli", "__main__", "__init__"),
)
#: Only these know xarray.
KNOW_XARRAY = {
    "accessor", "backend", "cli", "labels", "pixels/array.py", "tools", "writing", "__init__"
}  # fmt: skip


def layer(module: str) -> int:
    name = module.removeprefix("mrc_xarray").lstrip(".").replace("/", ".").partition(".")[0]
    return next(i for i, names in enumerate(LAYERS) if (name or "__init__") in names)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_downwards(module: str) -> None:
    own = {name for name in imported(module) if name.startswith("mrc_xarray.")}
    upwards = {name for name in own if layer(name) > layer(module)}
    assert upwards == set()


def test_modules_are_found() -> None:
    assert {"backend.py", "storage/local.py", "mrc/reading.py", "mrc/header.py"} <= set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_only_the_upper_layers_know_xarray(module: str) -> None:
    if not {module, module.partition("/")[0].removesuffix(".py")} & KNOW_XARRAY:
        assert "xarray" not in packages(imported(module))


@pytest.mark.parametrize("module", MODULES)
def test_nothing_heavy_at_the_top(module: str) -> None:
    assert not packages(imported(module, at_top=True)) & HEAVY


def test_only_storage_knows_fsspec() -> None:
    knowing = [module for module in MODULES if "fsspec" in packages(imported(module))]
    assert {module.partition("/")[0] for module in knowing} == {"storage"}


def after(statement: str) -> set[str]:
    """Return the packages that a fresh interpreter has imported after `statement`."""
    code = f"{statement}\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    return packages(set(json.loads(done.stdout)))


@pytest.fixture(scope="module")
def xarrays_own() -> set[str]:
    return after("import xarray, xarray.backends")


@pytest.mark.parametrize("module", ["mrc_xarray", "mrc_xarray.backend"])
def test_import_brings_nothing_heavy(xarrays_own: set[str], module: str) -> None:
    assert not (after(f"import {module}") - xarrays_own) & HEAVY


def test_guessing_brings_nothing_heavy(xarrays_own: set[str]) -> None:
    guess = (
        "from mrc_xarray.backend import MrcBackendEntrypoint as E\n"
        f"E().guess_can_open({__file__!r}); E().guess_can_open('s3://bucket/file.mrc')"
    )
    assert not (after(guess) - xarrays_own) & HEAVY


def test_public_names() -> None:
    assert mrc_xarray.MrcError.__mro__[1] is ValueError
    assert mrc_xarray.MrcWarning.__mro__[1] is UserWarning
    assert {"MrcError", "MrcWarning"} <= set(mrc_xarray.__all__)
    assert all(hasattr(mrc_xarray, name) for name in mrc_xarray.__all__)
