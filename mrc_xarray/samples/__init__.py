"""Small sample files, made by code: what a microscope or a program writes, in miniature.

Each function writes the files of one sample and returns the path of the one to open. The same
arguments give the same bytes. Files that exist with other bytes are not replaced: that is a
`FileExistsError`.

>>> import xarray as xr
>>> from mrc_xarray import samples
>>> ds = xr.open_dataset(samples.tomogram(), engine="mrc", chunks={})
"""

from mrc_xarray.samples.particle_stack import particles
from mrc_xarray.samples.scan import stem4d
from mrc_xarray.samples.series import tilt_series
from mrc_xarray.samples.volume import tomogram

__all__ = ["particles", "stem4d", "tilt_series", "tomogram"]
