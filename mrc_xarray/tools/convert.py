"""Conversion between MRC, MRCZ, Zarr and netCDF, in bounded memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import xarray as xr

from mrc_xarray.errors import MrcError
from mrc_xarray.storage import filesystem, redacted
from mrc_xarray.storage.failures import without_secrets
from mrc_xarray.storage.part import PartFolder, exists
from mrc_xarray.storage.sink import open_sink
from mrc_xarray.storage.threads import own_threads
from mrc_xarray.suffixes import compressed_suffix, stem_and_suffix
from mrc_xarray.writing.writer import to_mrc

if TYPE_CHECKING:
    from dask.delayed import Delayed

__all__ = ["convert"]

Kind: TypeAlias = Literal["mrc", "netcdf", "zarr"]

_KINDS: dict[str, Kind] = {".zarr": "zarr", ".nc": "netcdf", ".nc4": "netcdf"}
# how xarray opens each kind
_OPENED: dict[Kind, dict[str, Any]] = {
    "mrc": {"engine": "mrc"},
    "netcdf": {"engine": "netcdf4"},
    "zarr": {"engine": "zarr", "consolidated": False},
}


def convert(
    source: str,
    target: str,
    *,
    select: Mapping[str, slice] | None = None,
    overwrite: bool = False,
    **options: Any,
) -> None:
    """Convert a file or store to another format; the suffixes of the names are the formats.

    Parameters
    ----------
    source, target : path or URL
        In .zarr for Zarr, .nc or .nc4 for netCDF, .mrcz for MRCZ, and any other for MRC.
    select : mapping of dimension to slice, optional
        The part to convert, by index.
    overwrite : bool
        Whether to replace an existing target.
    **options
        For `mrc_xarray.to_mrc`, if the target is MRC or MRCZ.

    Raises
    ------
    MrcError
        If the target can't store the data.
    """
    kind = _kind(target)
    if options and kind != "mrc":
        raise MrcError(
            f"{redacted(target)}: {', '.join(options)} can't be used for a {kind} target; "
            "accepted: a target in MRC or MRCZ"
        )
    if kind != "mrc" and (suffix := compressed_suffix(target.rstrip("/"))):
        raise MrcError(
            f"{redacted(target)}: Zarr and netCDF files can't be written as a compressed stream; "
            f"leave out {suffix}"
        )
    if kind != "mrc" and _same_place(source, target):
        raise MrcError(
            f"{redacted(target)}: source and target are the same, or one contains the other. "
            "Choose another target"
        )
    urls = [name for name in (source, target) if "://" in name and _kind(name) != "mrc"]
    with (
        without_secrets(*urls) if urls else contextlib.nullcontext(),
        xr.open_dataset(source, **_OPENED[_kind(source)]) as ds,
    ):
        if unknown := sorted(set(select or {}) - set(map(str, ds.dims))):
            raise MrcError(
                f"{redacted(source)}: no dimension {', '.join(map(repr, unknown))}; "
                f"accepted: {', '.join(map(str, ds.dims))}"
            )
        # select first, so that no chunk reads more than the selection
        selected = _chunked(ds.isel(select or {}))
        if kind == "mrc":
            to_mrc(selected, target, overwrite=overwrite, **options)
        elif kind == "zarr":
            _to_zarr(selected.drop_encoding(), target, overwrite)
        else:
            _to_netcdf(selected.drop_encoding(), target, overwrite)


def _kind(name: str) -> Kind:
    return _KINDS.get(stem_and_suffix(name.rstrip("/"))[1], "mrc")


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


def _to_zarr(ds: xr.Dataset, target: str, overwrite: bool) -> None:
    fs, path = filesystem(target)
    if fs is not None:
        try:
            # Zarr 3 has no consolidated metadata, and warns about them
            ds.to_zarr(target, mode="w" if overwrite else "w-", consolidated=False)
        except FileExistsError:
            raise exists(redacted(target)) from None
        return
    # write to a folder with a temporary name, and rename it when it is complete
    folder = os.path.realpath(os.path.expanduser(path))
    if os.path.lexists(folder) and not overwrite:
        raise exists(folder)
    part = PartFolder.of(folder)
    try:
        part.create()
        _compute(ds.to_zarr(part.path, mode="w-", consolidated=False, compute=False))
        part.publish(overwrite=overwrite)
    finally:
        part.discard()


def _to_netcdf(ds: xr.Dataset, target: str, overwrite: bool) -> None:
    fs, path = filesystem(target)
    if fs is not None:
        raise MrcError(f"{redacted(target)}: netCDF can only be written to a local path")
    sink = open_sink(path, None, overwrite)
    try:
        # HDF5 locks the file itself
        sink.begin(0).release()
        _compute(ds.to_netcdf(sink.part.path, engine="netcdf4", compute=False))
        sink.part.publish(overwrite=overwrite)
    finally:
        sink.discard()


def _compute(task: Delayed) -> None:
    with own_threads(task) as threads:
        task.compute(**threads)
