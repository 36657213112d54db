"""From any of MRC, MRCZ, Zarr and netCDF to any other, in bounded memory."""

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
from mrc_xarray.suffixes import stem_and_suffix
from mrc_xarray.writing.writer import to_mrc

if TYPE_CHECKING:
    from dask.delayed import Delayed

__all__ = ["convert"]

Kind: TypeAlias = Literal["mrc", "netcdf", "zarr"]

_KINDS: dict[str, Kind] = {".zarr": "zarr", ".nc": "netcdf", ".nc4": "netcdf"}


def convert(
    source: str,
    target: str,
    *,
    select: Mapping[str, slice] | None = None,
    overwrite: bool = False,
    **options: Any,
) -> None:
    """Convert a file or store; what it is, its suffix tells.

    Parameters
    ----------
    source, target : path or URL
        In .zarr for Zarr, .nc for netCDF, .mrcz for MRCZ, and any other for plain MRC.
    select : mapping of dimension to slice, optional
        What to take, by index.
    overwrite : bool
        Whether to replace what is there.
    **options
        For `mrc_xarray.to_mrc`, where the target is MRC.

    Raises
    ------
    MrcError
        If the target can't hold the data.
    """
    kind = _kind(target)
    if options and kind != "mrc":
        raise MrcError(f"{', '.join(options)}: for a target in MRC alone, and this is {kind}")
    opened: dict[Kind, dict[str, Any]] = {
        "mrc": {"engine": "mrc"},
        "netcdf": {"engine": "netcdf4"},
        "zarr": {"engine": "zarr", "consolidated": False},
    }
    if kind != "mrc" and _same_place(source, target):
        raise MrcError(
            f"{redacted(target)}: source and target are the same, or one is within the other"
        )
    urls = [name for name in (source, target) if "://" in name and _kind(name) != "mrc"]
    # chunks come after the selection: then no chunk reads what is left out
    with (
        without_secrets(*urls) if urls else contextlib.nullcontext(),
        xr.open_dataset(source, **opened[_kind(source)]) as ds,
    ):
        unknown = set(select or {}) - set(ds.dims)
        if unknown:
            raise MrcError(
                f"{redacted(source)}: no dimension {', '.join(map(repr, sorted(unknown)))}; "
                f"it has {', '.join(map(str, ds.dims))}"
            )
        ds = _chunked(ds.isel(select or {}))
        if kind == "mrc":
            to_mrc(ds, target, overwrite=overwrite, **options)
        elif kind == "zarr":
            _to_zarr(ds.drop_encoding(), target, overwrite)
        else:
            _to_netcdf(ds.drop_encoding(), target, overwrite)


def _kind(name: str) -> Kind:
    return _KINDS.get(stem_and_suffix(name.rstrip("/"))[1], "mrc")


def _same_place(source: str, target: str) -> bool:
    """Tell whether writing the target would destroy the source."""
    places = []
    for name in (source, target):
        fs, path = filesystem(name)
        path = os.path.realpath(os.path.expanduser(path)) if fs is None else path
        places.append((None if fs is None else fs.to_json(), path.rstrip("/") + "/"))
    (store, path), (other_store, other) = places
    return store == other_store and (path.startswith(other) or other.startswith(path))


def _chunked(ds: xr.Dataset) -> xr.Dataset:
    """Cut the variables as they are best read."""
    chunks: dict[Any, Any] = {}
    for variable in ds.data_vars.values():
        preferred = variable.encoding.get("preferred_chunks") or {}
        chunks |= {dim: size for dim, size in preferred.items() if dim in variable.dims}
    return ds.chunk(chunks)


def _to_zarr(ds: xr.Dataset, target: str, overwrite: bool) -> None:
    fs, path = filesystem(target)
    if fs is None:
        _to_folder(ds, os.path.realpath(os.path.expanduser(path)), overwrite)
        return
    try:
        # version 3 of Zarr has no consolidated metadata, and warns of them
        ds.to_zarr(target, mode="w" if overwrite else "w-", consolidated=False)
    except FileExistsError:
        raise exists(redacted(target)) from None


def _to_folder(ds: xr.Dataset, path: str, overwrite: bool) -> None:
    """Write a Zarr store to a folder with a temporary name, and rename it when it is complete."""
    if os.path.lexists(path) and not overwrite:
        raise exists(path)
    part = PartFolder.of(path)
    try:
        part.create()
        _compute(ds.to_zarr(part.path, mode="w-", consolidated=False, compute=False))
        part.publish(overwrite=overwrite)
    finally:
        part.discard()


def _to_netcdf(ds: xr.Dataset, target: str, overwrite: bool) -> None:
    fs, path = filesystem(target)
    if fs is not None:
        raise MrcError(f"{redacted(target)}: netCDF can only be written to a disk")
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
