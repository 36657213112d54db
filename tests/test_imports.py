"""The layers of the package, the weight of its import, and its public names."""

from __future__ import annotations

import ast
import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest

import mrc_xarray
from mrc_xarray.accessor import MrcAccessor

PACKAGE = Path(mrc_xarray.__file__).parent
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
HEAVY = {
    "dask", "distributed", "fsspec", "blosc", "blosc2", "matplotlib", "mrcfile", "zarr", "netCDF4",
    "hyperspy", "icechunk", "napari", "ndv", "ngff_zarr", "obstore", "rsciio", "starfile",
    "virtualizarr", "yaozarrs",
}  # fmt: skip


@functools.cache
def parsed(module: str) -> ast.Module:
    return ast.parse((PACKAGE / module).read_text(encoding="utf-8"))


@functools.cache
def imported(module: str, *, at_top: bool = False) -> set[str]:
    """Return the modules that a file imports, anywhere or at its top, except for types only."""
    found = set()
    nodes: list[ast.AST] = [parsed(module)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.expr) or (
            at_top and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ):
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
    (
        "_version", "errors", "installation", "markup", "options", "safe_json", "suffixes", "text",
        "units", "voxel_size",
    ),
    ("storage",),
    ("pixels",),
    ("metadata",),
    ("recording",),
    ("mrc", "dm", "relion"),
    ("labels",),
    ("writing",),
    ("bridges",),
    ("tools",),
    ("engines", "accessor", "backend", "dm_backend", "relion_backend", "samples", "virtual"),
    ("cli", "__main__", "__init__"),
)  # fmt: skip
#: Only these know xarray.
KNOW_XARRAY = {
    "accessor", "backend", "bridges", "cli", "dm_backend", "engines", "labels", "pixels/array.py",
    "pixels/variable.py", "relion_backend", "samples", "tools", "virtual", "writing", "__init__",
}  # fmt: skip


def layer(module: str) -> int:
    name = module.removeprefix("mrc_xarray").lstrip(".").replace("/", ".").partition(".")[0]
    return next(i for i, names in enumerate(LAYERS) if (name or "__init__") in names)


def test_imports_go_downwards() -> None:
    upwards = [
        (module, name)
        for module in MODULES
        for name in imported(module)
        if name.startswith("mrc_xarray.") and layer(name) > layer(module)
    ]
    assert upwards == []


def test_only_the_upper_layers_know_xarray() -> None:
    for module in MODULES:
        if not {module, module.partition("/")[0].removesuffix(".py")} & KNOW_XARRAY:
            assert "xarray" not in packages(imported(module)), module


#: Classes of another package, which are imported only when that package is used.
PLUG_INS = {"bridges/manifest_store.py", "bridges/zarr_codecs.py"}


def test_nothing_heavy_at_the_top() -> None:
    found = {m: packages(imported(m, at_top=True)) & HEAVY for m in {*MODULES} - PLUG_INS}
    assert not any(found.values()), found


def test_only_storage_knows_fsspec() -> None:
    knowing = [module for module in MODULES if "fsspec" in packages(imported(module))]
    assert {module.partition("/")[0] for module in knowing} == {"storage"}


# xarray does this for every file that is opened without engine=
GUESS = """
from mrc_xarray.backend import MrcBackendEntrypoint as Engine
from mrc_xarray.dm_backend import DmBackendEntrypoint
DmBackendEntrypoint().guess_can_open("s3://bucket/file.mrc")
Engine().guess_can_open("s3://bucket/file.mrc"), Engine().guess_can_open("file.mrc")
"""


def test_import_and_guessing_import_nothing_heavy() -> None:
    stages = ("import xarray, xarray.backends", "import mrc_xarray", GUESS)
    show = "import json, sys; print(json.dumps(sorted(sys.modules)))"
    code = "\n".join(f"{stage}\n{show}" for stage in stages)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    of_xarray, *ours = (packages(set(json.loads(line))) for line in done.stdout.splitlines())
    for found in ours:
        assert "mrc_xarray" in found
        assert not (found - of_xarray) & HEAVY


def test_public_names() -> None:
    public = [name for name in dir(mrc_xarray) if not name.startswith("_")]
    assert public == [
        "MrcError", "MrcWarning", "create", "edit_header", "from_hyperspy", "from_rosettasciio",
        "open_many", "open_ome_zarr", "read_header", "references", "samples", "to_mrc",
        "to_ome_zarr", "validate",
    ]  # fmt: skip
    assert set(mrc_xarray.__all__) == {*public, "__version__"}
    assert issubclass(mrc_xarray.MrcError, ValueError)
    assert issubclass(mrc_xarray.MrcWarning, UserWarning)
    assert all(hasattr(mrc_xarray, name) for name in dir(mrc_xarray))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mrc_xarray.nothing  # noqa: B018
    members = [name for name in vars(MrcAccessor) if not name.startswith("_")]
    # and the engine and the command
    assert len(public) + len(members) + 2 <= 30
