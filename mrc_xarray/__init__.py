"""Electron-microscopy MRC files as labelled, lazy xarray data.

After the package is installed, ``xr.open_dataset("tomo.mrc", engine="mrc")`` works.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mrc_xarray import accessor as _accessor  # noqa: F401  # registers ds.mrc
from mrc_xarray._version import __version__
from mrc_xarray.errors import MrcError, MrcWarning

if TYPE_CHECKING:
    from mrc_xarray.mrc.reading import read_header
    from mrc_xarray.tools.many import open_many
    from mrc_xarray.tools.validation import validate
    from mrc_xarray.writing.create import create
    from mrc_xarray.writing.editing import edit_header
    from mrc_xarray.writing.writer import to_mrc

__all__ = [
    "MrcError", "MrcWarning", "__version__", "create", "edit_header", "open_many",
    "read_header", "to_mrc", "validate",
]  # fmt: skip

# imported on first use, so that opening a file does not wait for them
_MODULES = {
    "create": "mrc_xarray.writing.create",
    "edit_header": "mrc_xarray.writing.editing",
    "open_many": "mrc_xarray.tools.many",
    "read_header": "mrc_xarray.mrc.reading",
    "to_mrc": "mrc_xarray.writing.writer",
    "validate": "mrc_xarray.tools.validation",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
