"""Electron-microscopy MRC files as labelled, lazy xarray data.

Installing the package is enough for ``xr.open_dataset("tomo.mrc", engine="mrc")``.
"""

from mrc_xarray import accessor
from mrc_xarray.format.errors import MrcError, MrcWarning

__all__ = ["MrcError", "MrcWarning", "accessor"]
__version__ = "0.1.0"
