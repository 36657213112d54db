"""A picture of a file, for the command line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import xarray as xr

from mrc_xarray.errors import MrcError
from mrc_xarray.storage import redacted
from mrc_xarray.tools.planes import planes_of
from mrc_xarray.tools.plot import Norm, new_figure, plot_slices
from mrc_xarray.tools.summary import engine_of

__all__ = ["preview"]

_DOTS_PER_INCH = 200


def preview(
    source: str,
    picture: str,
    *,
    at: Mapping[str, float] | None = None,
    thickness: Mapping[str, float] | None = None,
    norm: Norm = "linear",
    reading: Mapping[str, Any] | None = None,
) -> None:
    """Draw slices of a file to a picture, as `MrcAccessor.plot_slices` does.

    Parameters
    ----------
    source : path or URL
        MRC, MRCZ, DM3 or DM4.
    picture : path
        Its suffix is the format, any that matplotlib writes. An existing picture is replaced.
    at, thickness, norm
        As for `MrcAccessor.plot_slices`.
    reading : mapping of str to object, optional
        Arguments of the engine.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    MrcError
        If matplotlib does not write the format of the picture, the source can't be read, or it
        does not contain the point.
    """
    with xr.open_dataset(source, engine=engine_of(source), **(reading or {})) as ds:
        data = ds["data"]
        try:
            planes = planes_of(data, at, thickness)
        except ValueError as error:
            raise MrcError(f"{redacted(source)}: {error}") from None
        # matplotlib needs no display for a figure that is not one of pyplot
        figure = new_figure(planes, is_shown=False)
        formats = figure.canvas.get_supported_filetypes()
        suffix = os.path.splitext(picture)[1].lower()
        if suffix[1:] not in formats:
            accepted = ", ".join(f".{name}" for name in sorted(formats))
            raise MrcError(f"{picture}: the suffix is {suffix!r}; accepted: {accepted}")
        plot_slices(data, at, thickness=thickness, norm=norm, figure=figure)
        figure.savefig(picture, dpi=_DOTS_PER_INCH, bbox_inches="tight")
