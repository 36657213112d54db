"""Conversion between the formats of `mrc_xarray.tools.formats`, in bounded memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from typing import Any

import xarray as xr

from mrc_xarray.errors import MrcError
from mrc_xarray.storage import filesystem, redacted
from mrc_xarray.storage.failures import without_secrets
from mrc_xarray.suffixes import compressed_suffix
from mrc_xarray.tools.formats import FORMATS, Format
from mrc_xarray.tools.selection import Selection, selected
from mrc_xarray.writing.progress import Progress, check_progress

__all__ = ["convert"]


def convert(
    source: str,
    target: str,
    *,
    select: Mapping[str, Selection] | None = None,
    mode: int | None = None,
    overwrite: bool = False,
    reading: Mapping[str, Any] | None = None,
    progress: Progress = "auto",
    **options: Any,
) -> None:
    """Convert a file or store to another format; the suffixes of the names are the formats.

    Parameters
    ----------
    source, target : path or URL
        In .ome.zarr for OME-Zarr, .zarr for Zarr, .nc or .nc4 for netCDF, .mrcz for MRCZ, and any
        other for MRC. A source in .zarr with a multiscale image is OME-Zarr. A source in .dm3 or
        .dm4, or with their content, is a file of DigitalMicrograph, of which the largest image is
        converted.
    select : mapping of str to slice or Positions, optional
        The part to convert: for each dimension a slice of indices, or for each coordinate the
        positions, as `mrc_xarray.tools.selection.parse_selection` returns them.
    mode : int, optional
        MODE of the target, with a check of the range. A Zarr store or netCDF file gets the type
        of this MODE.
    overwrite : bool
        Whether to replace an existing target.
    reading : mapping of str to object, optional
        Arguments of the engine that opens the source, if it is MRC or MRCZ, and ``level``, if it
        is OME-Zarr.
    progress : {"auto", True, False}
        Whether to show a progress bar, as for `mrc_xarray.to_mrc`.
    **options
        For `mrc_xarray.to_mrc`, if the target is MRC or MRCZ, and `mrc_xarray.to_ome_zarr`, if it
        is OME-Zarr.

    Raises
    ------
    MrcError
        If the target can't store the data, or the selection does not fit the source.
    """
    check_progress(progress)
    source_format = next(found for found in FORMATS if found.is_source(source))
    target_format = next(found for found in FORMATS if found.is_target(target))
    assert target_format.write is not None
    _check_arguments(source, source_format, "source", "reading", reading or {})
    _check_arguments(target, target_format, "target", "options", options)
    _check_target(source, target, target_format)
    common: dict[str, Any] = {"mode": mode, "overwrite": overwrite, "progress": progress}
    with (
        _without_secrets(source_format, source),
        _without_secrets(target_format, target),
        source_format.open(source, **(reading or {})) as ds,
    ):
        # select first, so that no chunk reads more than the selection
        part = _chunked(selected(ds, select or {}, redacted(source)))
        target_format.write(part, target, **common, **options)


def _check_arguments(
    name: str, found: Format, role: str, of: str, arguments: Iterable[str]
) -> None:
    """Raise MrcError for arguments that the format of the source or target does not have."""
    others = [key for key in arguments if key not in getattr(found, of)]
    if others:
        having = [other.name for other in FORMATS if set(others) <= getattr(other, of)]
        raise MrcError(
            f"{redacted(name)}: {', '.join(others)} can't be used for a {role} in {found.name}; "
            f"accepted: a {role} in {' or '.join(having) or 'another format'}"
        )


def _check_target(source: str, target: str, found: Format) -> None:
    if found.is_stream:
        return
    if suffix := compressed_suffix(target.rstrip("/")):
        raise MrcError(
            f"{redacted(target)}: {found.name} can't be written as a compressed stream; leave out "
            f"{suffix}"
        )
    if _same_place(source, target):
        raise MrcError(
            f"{redacted(target)}: source and target are the same, or one contains the other. "
            "Choose another target"
        )


def _without_secrets(found: Format, name: str) -> contextlib.AbstractContextManager[Any]:
    """Remove the secrets of a URL from the errors of libraries that open it."""
    is_url = "://" in name and not found.is_stream
    return without_secrets(name) if is_url else contextlib.nullcontext()


def _same_place(source: str, target: str) -> bool:
    """Return whether writing the target would destroy the source."""
    places = []
    for name in (source, target):
        fs, path = filesystem(name)
        full = os.path.realpath(os.path.expanduser(path)) if fs is None else path
        places.append((None if fs is None else fs.to_json(), full.rstrip("/") + "/"))
    (store, path), (other_store, other) = places
    return store == other_store and (path.startswith(other) or other.startswith(path))


def _chunked(ds: xr.Dataset) -> xr.Dataset:
    """Return the dataset in the chunks that its variables prefer."""
    chunks: dict[Any, Any] = {}
    for variable in ds.data_vars.values():
        chunks |= variable.encoding.get("preferred_chunks") or {}
    return ds.chunk({dim: size for dim, size in chunks.items() if dim in ds.dims})
