"""Conversion between MRC, MRCZ, Zarr and netCDF, and from DM3 and DM4, in bounded memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import xarray as xr
from xarray.backends import list_engines

from mrc_xarray.errors import MrcError, warn
from mrc_xarray.pixels.modes import mode_for
from mrc_xarray.storage import filesystem, redacted
from mrc_xarray.storage.failures import without_secrets
from mrc_xarray.storage.part import PartFolder, exists
from mrc_xarray.storage.sink import open_sink
from mrc_xarray.storage.threads import own_threads
from mrc_xarray.suffixes import DM_SUFFIXES, compressed_suffix, stem_and_suffix
from mrc_xarray.writing.writer import to_mrc

if TYPE_CHECKING:
    from dask.delayed import Delayed

__all__ = ["convert"]

Kind: TypeAlias = Literal["mrc", "netcdf", "zarr"]

_KINDS: dict[str, Kind] = {".zarr": "zarr", ".nc": "netcdf", ".nc4": "netcdf"}
# how xarray opens each kind; tasks that read have smaller chunks than tasks that map, and these
# are the chunks of a Zarr store, too
_OPENED: dict[Kind, dict[str, Any]] = {
    "mrc": {"engine": "mrc", "mmap": False},
    "netcdf": {"engine": "netcdf4"},
    "zarr": {"engine": "zarr", "consolidated": False},
}


def convert(
    source: str,
    target: str,
    *,
    select: Mapping[str, slice] | None = None,
    mode: int | None = None,
    overwrite: bool = False,
    reading: Mapping[str, Any] | None = None,
    **options: Any,
) -> None:
    """Convert a file or store to another format; the suffixes of the names are the formats.

    Parameters
    ----------
    source, target : path or URL
        In .zarr for Zarr, .nc or .nc4 for netCDF, .mrcz for MRCZ, and any other for MRC. A source
        in .dm3 or .dm4, or with their content, is a file of DigitalMicrograph, of which the
        largest image is converted.
    select : mapping of dimension to slice, optional
        The part to convert, by index.
    mode : int, optional
        MODE of the target, with a check of the range. A Zarr store or netCDF file gets the type
        of this MODE.
    overwrite : bool
        Whether to replace an existing target.
    reading : mapping of str to object, optional
        Arguments of the engine that opens the source, if it is MRC or MRCZ.
    **options
        For `mrc_xarray.to_mrc`, if the target is MRC or MRCZ.

    Raises
    ------
    MrcError
        If the target can't store the data.
    """
    kind, opening = _kind(target), _opening(source)
    _check(source, target, opening["engine"], reading or {}, options)
    urls = [name for name in (source, target) if "://" in name and _kind(name) != "mrc"]
    with (
        without_secrets(*urls) if urls else contextlib.nullcontext(),
        xr.open_dataset(source, **{**opening, **(reading or {})}) as ds,
    ):
        if unknown := sorted(set(select or {}) - set(map(str, ds.dims))):
            raise MrcError(
                f"{redacted(source)}: no dimension {', '.join(map(repr, unknown))}; "
                f"accepted: {', '.join(map(str, ds.dims))}"
            )
        # select first, so that no chunk reads more than the selection
        selected = _chunked(ds.isel(select or {}))
        if kind == "mrc":
            data = _as_images(selected, redacted(target))
            to_mrc(data, target, mode=mode, overwrite=overwrite, **options)
            return
        cast = (selected if mode is None else _cast(selected, mode)).drop_encoding()
        if kind == "zarr":
            _to_zarr(cast, target, overwrite)
        else:
            _to_netcdf(cast, target, overwrite)


def _kind(name: str) -> Kind:
    return _KINDS.get(stem_and_suffix(name.rstrip("/"))[1], "mrc")


def _opening(source: str) -> dict[str, Any]:
    """Return the arguments that open a source."""
    kind = _kind(source)
    has_suffix = stem_and_suffix(source)[1] in DM_SUFFIXES
    # of a local file by its content
    is_dm = has_suffix or (kind == "mrc" and list_engines()["dm"].guess_can_open(source))
    return {"engine": "dm", "mmap": False} if is_dm else _OPENED[kind]


def _check(
    source: str, target: str, engine: str, reading: Mapping[str, Any], options: Mapping[str, Any]
) -> None:
    """Raise MrcError for arguments that the formats of source or target do not have."""
    kind = _kind(target)
    if reading and engine != "mrc":
        raise MrcError(
            f"{redacted(source)}: {', '.join(reading)} can't be used for a source that is opened "
            f"with engine={engine!r}; accepted: a source in MRC or MRCZ"
        )
    if kind == "mrc":
        return
    if options:
        raise MrcError(
            f"{redacted(target)}: {', '.join(options)} can't be used for a {kind} target; "
            "accepted: a target in MRC or MRCZ"
        )
    if suffix := compressed_suffix(target.rstrip("/")):
        raise MrcError(
            f"{redacted(target)}: Zarr and netCDF files can't be written as a compressed stream; "
            f"leave out {suffix}"
        )
    if _same_place(source, target):
        raise MrcError(
            f"{redacted(target)}: source and target are the same, or one contains the other. "
            "Choose another target"
        )


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


def _as_images(ds: xr.Dataset, name: str) -> xr.Dataset:
    """Return the dataset with a spectrum as one row, and colours without alpha."""
    # MRC has no spectra
    is_spectrum = [variable.ndim for variable in ds.data_vars.values()] == [1]
    images = ds.expand_dims("y") if is_spectrum else ds
    if ds.sizes.get("rgba") == 4:
        warn(f"{name}: red, green and blue are written without alpha, which MRC does not have")
        images = images.isel(rgba=slice(3)).rename(rgba="rgb")
    return images


def _cast(ds: xr.Dataset, number: int) -> xr.Dataset:
    """Return the dataset with its pixels as a MODE of MRC stores them."""

    def cast(data: xr.DataArray) -> xr.DataArray:
        mode = mode_for(data.dtype, number, is_rgb=data.dims[-1:] == ("rgb",))
        options: Any = {"dask": "parallelized", "output_dtypes": [np.dtype(mode.decoded)]}
        found: xr.DataArray = xr.apply_ufunc(mode.cast, data, keep_attrs=True, **options)
        return found

    return ds.map(cast, keep_attrs=True)


def _check_types(ds: xr.Dataset, target: str) -> None:
    """Raise MrcError if netCDF has no type for the numbers of a variable."""
    for name, variable in ds.variables.items():
        dtype = variable.dtype
        hint = "--mode 2 (mode=2 in Python) converts them to float32 without loss"
        if dtype.kind == "c":
            hint = f"write ds[{name!r}].real and .imag as two variables in Python"
        if dtype == np.float16 or dtype.kind == "c":
            raise MrcError(
                f"{redacted(target)}: the numbers of {name!r} are {dtype}, and netCDF has no type "
                f"for them. A Zarr store (.zarr) holds them. For netCDF, {hint}"
            )


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
    _check_types(ds, target)
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
