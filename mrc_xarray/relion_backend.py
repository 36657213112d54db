"""The engine for RELION's tables: what xarray expects of a backend, and nothing else.

xarray imports this module for every ``open_dataset`` without an engine, as `mrc_xarray.backend`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import xarray as xr
from xarray.backends import BackendEntrypoint

from mrc_xarray.engines import can_open, describe, labelled
from mrc_xarray.options import OpenOptions
from mrc_xarray.relion.images import IMAGES
from mrc_xarray.relion.reading import read
from mrc_xarray.storage import (
    ByteSource,
    MemorySource,
    StreamSource,
    Target,
    open_decoded,
)
from mrc_xarray.storage.base import FIRST_READ

__all__ = ["RelionBackendEntrypoint"]

_OPTIONS = ("storage_options", "dims", "units", "voxel_size", "mode0", "truncated", "strict")

_DOCUMENTATION = """Open the images that a table of RELION names.

Reads the table, and the header of the first file that it names. Other files are opened when their
pixels are read.

Parameters
----------
{parameters}
root : path or URL, optional
    The folder that the names in the table are relative to: RELION's project. By default, the first
    of the working folder, the folder of the table and its parents that has the first file. For a
    table in a store, only the folder of the table and its parents in the store.
column : str, optional
    The column that names the files, by its label or by the name of its coordinate, such as
    ``"rlnMicrographName"`` or ``"micrograph_name"``. By default, the first of these that the table
    has: rlnImageName, rlnReferenceImage, rlnTomoReconstructedTomogram, rlnMicrographName,
    rlnMicrographMovieName.

Returns
-------
xarray.Dataset
    One variable, ``data``, lazy: shape (particle, y, x), and likewise (micrograph, y, x),
    (movie, frame, y, x), (tomogram, z, y, x) or (class_average, y, x). The columns are coordinates
    along its first dimension. They have the units that RELION defines, except that ``defocus_u``
    and ``defocus_v`` are in µm, and the label in ``attrs["relion_name"]``. Properties of optics
    are attributes of ``data`` if they are equal for all images. If the pixel size is, x, y and z
    have coordinates.

Raises
------
MrcError
    If the table is malformed or names no images, or if the first file can't be read as MRC. When
    pixels are read, also for a file that is not like the first one, or has too few sections.
OSError
    As `open` raises, if the table or a file is missing or may not be read.
"""


class RelionBackendEntrypoint(BackendEntrypoint):
    """Open RELION's tables: ``xr.open_dataset("particles.star", engine="relion")``."""

    description = "Open the images that a table of RELION names (.star)"

    def open_dataset(  # type: ignore[override]  # xarray's own engines add keywords, too
        self,
        filename_or_obj: Target,
        *,
        drop_variables: str | Iterable[str] | None = None,
        root: str | os.PathLike[str] | None = None,
        column: str | None = None,
        **options: Any,
    ) -> xr.Dataset:
        """Open the images of a table; the other arguments are described in `OpenOptions`."""
        chosen = OpenOptions.of(options, _OPTIONS)
        source, _ = open_decoded(filename_or_obj, chosen.storage_options)
        recording = read(source, chosen, root, column)
        return labelled(recording, _identity(source), chosen, drop_variables)

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Return whether a local file begins with a table that names images."""
        return can_open(filename_or_obj, (), FIRST_READ, _names_images)


describe(RelionBackendEntrypoint, _DOCUMENTATION, _OPTIONS)


def _identity(source: ByteSource) -> ByteSource:
    """Return a source that names the table, and holds nothing of it: all of it was read."""
    if isinstance(source, StreamSource):
        return _identity(source.stream.source)
    return source if source.can_be_reopened else MemorySource(b"", source.name)


def _names_images(head: bytes) -> bool:
    labels = (f"_{label}".encode() for label in IMAGES)
    return b"data_" in head and any(label in head for label in labels)
