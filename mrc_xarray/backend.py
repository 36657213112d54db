"""The engine: what xarray expects of a backend, and nothing else.

xarray imports this module for every ``open_dataset`` without an engine, on any file: it must be
quick, and must not import dask or fsspec.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import xarray as xr
from xarray.backends import BackendEntrypoint

from mrc_xarray.engines import can_open, describe, labelled, names_in
from mrc_xarray.labels.tree import tree_of
from mrc_xarray.metadata.files import Companion
from mrc_xarray.metadata.find import companions, image_name, target_name
from mrc_xarray.metadata.sidecar.direct_electron_files import named
from mrc_xarray.mrc.reading import open_recording
from mrc_xarray.mrc.recognition import PLAUSIBLE_SIZE, looks_like_mrc
from mrc_xarray.options import OpenOptions
from mrc_xarray.recording import Recording
from mrc_xarray.storage import ByteSource, Target
from mrc_xarray.suffixes import MRC_SUFFIXES

__all__ = ["MrcBackendEntrypoint"]

_DOCUMENTATION = """Open one MRC file.

Reads the header, and no pixels. The coordinates have their indexes, whatever xarray's
``create_default_indexes`` says: xarray does not pass it to engines.

Parameters
----------
{parameters}

Returns
-------
xarray.Dataset
    One variable, ``data``: shape (sections..., rows, columns), lazy. Spatial coordinates have the
    units that you choose; a dimension whose voxel size is unknown has no coordinate.

Raises
------
MrcError
    If the file can't be read as MRC.
OSError
    As `open` raises, if the file is missing or may not be read.

Warns
-----
MrcWarning
    For each repair or assumption.
"""


class MrcBackendEntrypoint(BackendEntrypoint):
    """Open MRC files with xarray: ``xr.open_dataset(target, engine="mrc")``."""

    description = (
        "Open electron-microscopy MRC and MRCZ files (.mrc, .mrcs, .mrcz, .map, .rec, .st)"
    )
    supports_groups = True

    def open_dataset(  # type: ignore[override]  # xarray's own engines add keywords, too
        self,
        filename_or_obj: Target,
        *,
        drop_variables: str | Iterable[str] | None = None,
        **options: Any,
    ) -> xr.Dataset:
        """Open one MRC file; the arguments are described in `OpenOptions`."""
        chosen = OpenOptions.of(options)
        return labelled(*open_recording(filename_or_obj, chosen), chosen, drop_variables)

    def open_groups_as_dict(  # type: ignore[override]  # with our keywords, as open_dataset
        self,
        filename_or_obj: Target,
        *,
        drop_variables: str | Iterable[str] | None = None,
        virtual_images: Iterable[Target] | None = None,
        external_images: Iterable[Target] | None = None,
        **options: Any,
    ) -> dict[str, xr.Dataset]:
        """Open a Direct Electron movie and its images; see `open_datatree`."""
        chosen = OpenOptions.of(options)
        dropped = names_in(drop_variables)
        recording, source = open_recording(filename_or_obj, chosen)
        movie = labelled(recording, source, chosen, dropped)
        of_images = OpenOptions(
            storage_options=chosen.storage_options,
            units=chosen.units,
            strict=chosen.strict,
            metadata_file=None,
        )
        given = {"virtual": virtual_images, "external": external_images}
        images = [
            (companion, labelled(*open_recording(file, of_images), of_images, dropped))
            for companion, file in _companions(recording, source, given)
        ]
        return tree_of(movie, recording.dims, images)

    def open_datatree(  # type: ignore[override]  # with our keywords, as open_dataset
        self,
        filename_or_obj: Target,
        *,
        virtual_images: Iterable[Target] | None = None,
        external_images: Iterable[Target] | None = None,
        **options: Any,
    ) -> xr.DataTree:
        """Open a Direct Electron movie, and the images that were recorded with it.

        Parameters
        ----------
        filename_or_obj : path, URL or binary file object
            The movie, in ``_movie.mrc``; another file becomes a tree of one Dataset.
        virtual_images, external_images : list of path, URL or binary file object, optional
            Images of virtual and external detectors, instead of those next to the movie.
        **options
            As for `open_dataset`; they apply to the movie.

        Returns
        -------
        DataTree
            The movie at the root, virtual images at ``virtual/<name>``, external detectors at
            ``external/<name>``, the sum of all frames at ``final``. An image shares the
            dimensions of the movie if it has their sizes, and otherwise has dimensions that
            begin with its own name.
        """
        groups = self.open_groups_as_dict(
            filename_or_obj,
            virtual_images=virtual_images,
            external_images=external_images,
            **options,
        )
        return xr.DataTree.from_dict(groups)

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Return whether a local file is MRC by its content, or a URL by its suffix."""
        return can_open(filename_or_obj, MRC_SUFFIXES, PLAUSIBLE_SIZE, looks_like_mrc)


describe(MrcBackendEntrypoint, _DOCUMENTATION)


def _companions(
    recording: Recording, source: ByteSource, given: Mapping[str, Iterable[Target] | None]
) -> Iterator[tuple[Companion, Target]]:
    """Yield the other images of the acquisition of an image, and how each is opened.

    `given` are the images by group that the user gives instead of those next to the image.
    """
    image, keys = image_name(source.name), recording.metadata or {}
    for companion in companions(image, source.sibling_names(), keys):
        if given.get(companion.group) is None:
            yield companion, source.sibling(companion.file)
    for group, files in given.items():
        if isinstance(files, str | bytes | os.PathLike):
            accepted = "a list of paths, URLs or files"
            raise TypeError(f"{group}_images is {files!r}; accepted: {accepted}")
        targets = list(files or ())
        names = [image_name(target_name(target)) for target in targets]
        yield from zip(named(image, group, names, keys), targets, strict=True)
