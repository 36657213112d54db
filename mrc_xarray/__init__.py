"""Electron-microscopy MRC files as labelled, lazy xarray data.

After the package is installed, ``xr.open_dataset("tomo.mrc", engine="mrc")`` works.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mrc_xarray import accessor as _accessor  # noqa: F401  # registers ds.mrc
from mrc_xarray._version import __version__
from mrc_xarray.errors import MrcError, MrcWarning

if TYPE_CHECKING:
    from mrc_xarray import samples
    from mrc_xarray.bridges.hyperspy import from_hyperspy, from_rosettasciio
    from mrc_xarray.bridges.ome_zarr import to_ome_zarr
    from mrc_xarray.bridges.ome_zarr_source import open_ome_zarr
    from mrc_xarray.bridges.references import references
    from mrc_xarray.mrc.reading import read_header
    from mrc_xarray.tools.many import open_many
    from mrc_xarray.tools.validation import validate
    from mrc_xarray.writing.create import create
    from mrc_xarray.writing.editing import edit_header
    from mrc_xarray.writing.writer import to_mrc

__all__ = [
    "MrcError", "MrcWarning", "__version__", "create", "edit_header", "from_hyperspy",
    "from_rosettasciio", "open_many", "open_ome_zarr", "read_header", "references", "samples",
    "to_mrc", "to_ome_zarr", "validate",
]  # fmt: skip

# imported on first use, so that opening a file does not wait for them
_MODULES = {
    "create": "mrc_xarray.writing.create",
    "edit_header": "mrc_xarray.writing.editing",
    "from_hyperspy": "mrc_xarray.bridges.hyperspy",
    "from_rosettasciio": "mrc_xarray.bridges.hyperspy",
    "open_many": "mrc_xarray.tools.many",
    "open_ome_zarr": "mrc_xarray.bridges.ome_zarr_source",
    "read_header": "mrc_xarray.mrc.reading",
    "references": "mrc_xarray.bridges.references",
    "samples": "mrc_xarray.samples",
    "to_mrc": "mrc_xarray.writing.writer",
    "to_ome_zarr": "mrc_xarray.bridges.ome_zarr",
    "validate": "mrc_xarray.tools.validation",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(_MODULES[name])
    # a function, or the module itself
    return getattr(module, name, module)


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
