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
FORMAT = [name for name in MODULES if name.startswith("format/")]
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


def test_modules_are_found() -> None:
    assert {"backend.py", "source/local.py", "format/__init__.py", "format/header.py"} <= set(
        MODULES
    )


@pytest.mark.parametrize("module", FORMAT)
def test_format_needs_numpy_and_the_standard_library_alone(module: str) -> None:
    allowed = set(sys.stdlib_module_names) | {"numpy", "mrc_xarray"}
    if module == "format/compression.py":
        # the decoders, when the first block is decoded
        allowed |= {"blosc", "blosc2"}
    assert packages(imported(module)) <= allowed


@pytest.mark.parametrize("module", FORMAT)
def test_format_imports_nothing_above_it(module: str) -> None:
    ours = {name for name in imported(module) if name.startswith("mrc_xarray")}
    assert {name for name in ours if not name.startswith("mrc_xarray.format")} == set()


@pytest.mark.parametrize("module", MODULES)
def test_nothing_heavy_at_the_top(module: str) -> None:
    assert not packages(imported(module, at_top=True)) & HEAVY


def test_only_the_source_knows_fsspec() -> None:
    knowing = [module for module in MODULES if "fsspec" in packages(imported(module))]
    assert {module.partition("/")[0] for module in knowing} == {"source"}


def test_only_array_and_dataset_know_xarrays_indexing() -> None:
    touching = [
        module
        for module in MODULES
        if any(name.startswith("xarray.core.indexing") for name in imported(module))
    ]
    assert touching == ["array.py", "dataset.py"]


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


@pytest.mark.parametrize("module", FORMAT)
def test_format_stands_alone(module: str) -> None:
    """Without the package around it, which registers the accessor."""
    name = module.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    alone = (
        "import sys, types\n"
        "package = types.ModuleType('mrc_xarray')\n"
        f"package.__path__ = [{str(PACKAGE)!r}]\n"
        "sys.modules['mrc_xarray'] = package\n"
        f"import mrc_xarray.{name}"
    )
    assert not after(alone) & (HEAVY | {"xarray", "pandas"})


def test_public_names() -> None:
    assert mrc_xarray.MrcError.__mro__[1] is ValueError
    assert mrc_xarray.MrcWarning.__mro__[1] is UserWarning
    assert {"MrcError", "MrcWarning"} <= set(mrc_xarray.__all__)
    assert all(hasattr(mrc_xarray, name) for name in mrc_xarray.__all__)
