"""Electron-microscopy MRC files as labelled, lazy xarray data.

Installing the package is enough for ``xr.open_dataset("tomo.mrc", engine="mrc")``.
"""

from typing import TYPE_CHECKING, Any

from mrc_xarray import accessor
from mrc_xarray._version import __version__
from mrc_xarray.errors import MrcError, MrcWarning

if TYPE_CHECKING:
    from mrc_xarray.tools.validation import validate
    from mrc_xarray.writing.editing import edit_header
    from mrc_xarray.writing.writer import create, to_mrc

__all__ = [
    "MrcError",
    "MrcWarning",
    "__version__",
    "accessor",
    "create",
    "edit_header",
    "to_mrc",
    "validate",
]

# who only reads need not wait for them
_LAZY = {
    "create": "writing.writer",
    "edit_header": "writing.editing",
    "to_mrc": "writing.writer",
    "validate": "tools.validation",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
