"""The engine for DM3 and DM4: what xarray expects of a backend, and nothing else.

xarray imports this module for every ``open_dataset`` without an engine, as `mrc_xarray.backend`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import xarray as xr
from xarray.backends import BackendEntrypoint

from mrc_xarray.dm.images import DmImage
from mrc_xarray.dm.reading import DmFile, read
from mrc_xarray.dm.tags import HEADER_SIZE, looks_like_dm
from mrc_xarray.engines import can_open, describe, labelled, names_in
from mrc_xarray.errors import MrcError, warn
from mrc_xarray.labels.tree import tree_of_images
from mrc_xarray.options import OpenOptions
from mrc_xarray.recording import Recording
from mrc_xarray.storage import ByteSource, Target, open_decoded
from mrc_xarray.suffixes import DM_SUFFIXES

__all__ = ["DmBackendEntrypoint"]

_OPTIONS = ("storage_options", "dims", "units", "mmap")

_DOCUMENTATION = """Open the largest image of a DM3 or DM4 file.

Reads the tags, and no pixels. Thumbnails are left out; `open_datatree` opens all images.

Parameters
----------
{parameters}

Returns
-------
xarray.Dataset
    One variable, ``data``, lazy, with its dimensions slowest first. An axis that is calibrated
    has a coordinate: lengths in the units that you choose, others in the units of the file. The
    tags are JSON in ``data.attrs["mrc_metadata"]``, which ``ds.mrc.metadata`` decodes.

Raises
------
MrcError
    If the file is not DM3 or DM4, is damaged or truncated, or has pixels of an unknown type.
OSError
    As `open` raises, if the file is missing or may not be read.

Warns
-----
MrcWarning
    If a dimension is too long for a coordinate.
"""


class DmBackendEntrypoint(BackendEntrypoint):
    """Open files of DigitalMicrograph: ``xr.open_dataset(target, engine="dm")``."""

    description = "Open files of Gatan's DigitalMicrograph (.dm3, .dm4)"
    supports_groups = True

    def open_dataset(  # type: ignore[override]  # xarray's own engines add keywords, too
        self,
        filename_or_obj: Target,
        *,
        drop_variables: str | Iterable[str] | None = None,
        **options: Any,
    ) -> xr.Dataset:
        """Open the largest image; the arguments are described in `OpenOptions`."""
        chosen = OpenOptions.of(options, _OPTIONS)
        file, source = _opened(filename_or_obj, chosen)
        return labelled(file.recording(file.largest), source, chosen, drop_variables)

    def open_groups_as_dict(  # type: ignore[override]  # with our keywords, as open_dataset
        self,
        filename_or_obj: Target,
        *,
        drop_variables: str | Iterable[str] | None = None,
        **options: Any,
    ) -> dict[str, xr.Dataset]:
        """Open all images, except for thumbnails; see `open_datatree`."""
        chosen = OpenOptions.of(options, _OPTIONS)
        dropped = names_in(drop_variables)
        file, source = _opened(filename_or_obj, chosen)
        largest = labelled(file.recording(file.largest), source, chosen, dropped)
        # the user's dimensions are those of the largest image
        of_others = dataclasses.replace(chosen, dims=None)
        others = [
            (image.name, labelled(recording, source, of_others, dropped))
            for image in file.images
            if image is not file.largest and (recording := _readable(file, image)) is not None
        ]
        return tree_of_images(largest, others)

    def open_datatree(  # type: ignore[override]  # with our keywords, as open_dataset
        self, filename_or_obj: Target, **options: Any
    ) -> xr.DataTree:
        """Open all images of a DM3 or DM4 file, except for thumbnails.

        Parameters
        ----------
        filename_or_obj : path, URL or binary file object
        **options
            As for `open_dataset`; `dims` are those of the largest image.

        Returns
        -------
        DataTree
            The largest image at the root, and the others at ``<name>``. An image shares the
            dimensions of the largest one if it has their sizes and positions, and otherwise has
            dimensions that begin with its own name. An image that can't be read is left out, with
            a warning.
        """
        return xr.DataTree.from_dict(self.open_groups_as_dict(filename_or_obj, **options))

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Return whether a local file is DM3 or DM4 by its content, or a URL by its suffix."""
        return can_open(filename_or_obj, DM_SUFFIXES, HEADER_SIZE, looks_like_dm)


describe(DmBackendEntrypoint, _DOCUMENTATION, _OPTIONS)


def _opened(target: Target, options: OpenOptions) -> tuple[DmFile, ByteSource]:
    """Read the tags of a file; those of a compressed stream may be at its end."""
    source, head = open_decoded(target, options.storage_options)
    file = read(source, head)
    return file, source.expecting(file.end, max(axis.size for axis in file.largest.axes))


def _readable(file: DmFile, image: DmImage) -> Recording | None:
    """Return the recording of an image, or None with a warning if it can't be read."""
    try:
        return file.recording(image)
    except MrcError as error:
        warn(f"{error}. The image is left out of the tree")
        return None
