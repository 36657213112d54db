"""The engine: what xarray expects of a backend, and nothing else.

xarray imports this module for every ``open_dataset`` without an engine, on any file: it must be
quick, and must not import dask or fsspec.
"""

from __future__ import annotations

import inspect
import io
import os
from collections.abc import Iterable
from typing import Any, BinaryIO

import xarray as xr
from xarray.backends import BackendEntrypoint

from mrc_xarray.errors import warn
from mrc_xarray.labels.dataset import to_dataset
from mrc_xarray.labels.tree import tree_of
from mrc_xarray.metadata.files import Companion
from mrc_xarray.metadata.find import companions, image_name
from mrc_xarray.mrc import reading
from mrc_xarray.mrc.recognition import PLAUSIBLE_SIZE, looks_like_mrc
from mrc_xarray.options import OpenOptions
from mrc_xarray.recording import Recording
from mrc_xarray.storage import ByteSource, StreamSource, Target, open_decoded
from mrc_xarray.storage.base import InStore
from mrc_xarray.storage.compressed import first_bytes
from mrc_xarray.suffixes import MRC_SUFFIXES, stem_and_suffix

__all__ = ["MrcBackendEntrypoint"]

_DOCUMENTATION = """Open one MRC file.

Reads the header, and no pixels.

Parameters
----------
filename_or_obj : path, URL, bytes or binary file object
    Any URL that fsspec supports. Bytes only with ``chunks=None``.
drop_variables : str or iterable of str, optional
    Variables and coordinates to leave out.
{options}

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
        return _dataset(*_recording(filename_or_obj, chosen), chosen, drop_variables)

    def open_groups_as_dict(  # type: ignore[override]  # with our keywords, as open_dataset
        self,
        filename_or_obj: Target,
        *,
        drop_variables: str | Iterable[str] | None = None,
        **options: Any,
    ) -> dict[str, xr.Dataset]:
        """Open a Direct Electron movie and the images next to it; see `open_datatree`."""
        chosen = OpenOptions.of(options)
        # the first image would use up a generator
        dropped = drop_variables if isinstance(drop_variables, str | None) else [*drop_variables]
        recording, source = _recording(filename_or_obj, chosen)
        movie = _dataset(recording, source, chosen, dropped)
        of_images = OpenOptions(
            storage_options=chosen.storage_options,
            units=chosen.units,
            strict=chosen.strict,
            metadata_file=None,
        )
        images = [
            (companion, _dataset(*_recording(file, of_images), of_images, dropped))
            for companion, file in _companions(recording, source)
        ]
        return tree_of(movie, recording.dims, images)

    def open_datatree(  # type: ignore[override]  # with our keywords, as open_dataset
        self, filename_or_obj: Target, **options: Any
    ) -> xr.DataTree:
        """Open a Direct Electron movie, and the images that were recorded with it.

        Parameters
        ----------
        filename_or_obj : path, URL or binary file object
            The movie, in ``_movie.mrc``; another file becomes a tree of one Dataset.
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
        return xr.DataTree.from_dict(self.open_groups_as_dict(filename_or_obj, **options))

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Return whether a local file is MRC by its content, or a URL by its suffix."""
        try:
            if isinstance(filename_or_obj, str | os.PathLike):
                return _can_open_path(os.fspath(filename_or_obj))
            if isinstance(filename_or_obj, bytes | bytearray | memoryview):
                return _begins_mrc(io.BytesIO(filename_or_obj))
            position = filename_or_obj.tell()
            try:
                filename_or_obj.seek(0)
                return _begins_mrc(filename_or_obj)
            finally:
                filename_or_obj.seek(position)
        except Exception:
            # xarray asks every engine about every file, whatever it is
            return False


def _describe(entrypoint: type[MrcBackendEntrypoint]) -> None:
    """Give `open_dataset` the parameters of `OpenOptions`, and their documentation."""
    method: Any = entrypoint.open_dataset
    signature = inspect.signature(method)
    *named, _ = signature.parameters.values()
    parameters = [*named, *inspect.signature(OpenOptions).parameters.values()]
    method.__signature__ = signature.replace(parameters=parameters)
    options = inspect.cleandoc(OpenOptions.__doc__ or "").partition("Parameters\n----------\n")[2]
    method.__doc__ = _DOCUMENTATION.format(options=options)
    entrypoint.open_dataset_parameters = tuple(parameter.name for parameter in parameters[1:])


_describe(MrcBackendEntrypoint)


def _recording(target: Target, options: OpenOptions) -> tuple[Recording, ByteSource]:
    """Read a file, and warn about its problems."""
    salvages = options.truncated == "trim"
    source, head = open_decoded(target, options.storage_options, salvages=salvages)
    recording = reading.read(source, head, options)
    sections = recording.sections
    if isinstance(source, StreamSource) and not sections.is_compressed:
        source = source.expecting(sections.offset + sections.nbytes, max(sections.shape))
    for problem in recording.problems:
        warn(problem.message(recording.name))
    return recording, source


def _dataset(
    recording: Recording,
    source: ByteSource,
    options: OpenOptions,
    drop_variables: str | Iterable[str] | None,
) -> xr.Dataset:
    ds = to_dataset(
        recording,
        source,
        dims=options.dims,
        units=options.units,
        mmap=options.mmap,
        voxel_size=options.voxel_size,
    )
    if drop_variables is not None:
        names = [drop_variables] if isinstance(drop_variables, str) else list(drop_variables)
        ds = ds.drop_vars(names, errors="ignore")
    if "://" in recording.name:
        # otherwise xarray stores the complete URL, which may contain a password
        ds.encoding["source"] = recording.name
    # open_mfdataset calls this without checking whether it is set
    ds.set_close(_nothing_to_close)
    return ds


def _companions(
    recording: Recording, source: ByteSource
) -> Iterable[tuple[Companion, str | InStore]]:
    """Return the other images of the acquisition of an image, and how each is opened."""
    keys = recording.metadata or {}
    for companion in companions(image_name(source.name), source.sibling_names(), keys):
        yield companion, source.sibling(companion.file)


def _can_open_path(path: str) -> bool:
    if "://" in path or "::" in path:
        return stem_and_suffix(path)[1] in MRC_SUFFIXES
    expanded = os.path.expanduser(path)
    if not os.path.isfile(expanded):
        # reading from a pipe would wait for its writer
        return False
    with open(expanded, "rb") as file:
        return _begins_mrc(file)


def _begins_mrc(file: BinaryIO) -> bool:
    return looks_like_mrc(first_bytes(file, PLAUSIBLE_SIZE))


def _nothing_to_close() -> None:
    """Close nothing: no file is held open."""
