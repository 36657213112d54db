"""The formats that can be converted: how each is recognised, opened and written."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from mrc_xarray.bridges.ome_zarr import to_ome_zarr
from mrc_xarray.bridges.ome_zarr_source import is_ome_zarr, open_ome_zarr
from mrc_xarray.bridges.zarr_store import new_store, storable
from mrc_xarray.errors import MrcError, warn
from mrc_xarray.options import OpenOptions
from mrc_xarray.pixels.modes import mode_for
from mrc_xarray.storage import filesystem, redacted
from mrc_xarray.storage.sink import open_sink
from mrc_xarray.suffixes import stem_and_suffix
from mrc_xarray.tools.summary import engine_of
from mrc_xarray.writing.progress import Progress, computed
from mrc_xarray.writing.writer import to_mrc

__all__ = ["FORMATS", "Format"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Format:
    """A format of files or stores.

    Attributes
    ----------
    name : str
        For messages.
    is_source, is_target : callable
        Whether a path or URL to read has this format, or whether one to write gets it.
    open : callable
        Return the Dataset of a path or URL, with the arguments `reading`.
    write : callable or None
        Write a Dataset to a path or URL, with the arguments ``mode``, ``overwrite``, ``progress``
        and `options`; None if the format is only read.
    reading, options : frozenset of str
        The arguments that `open` and `write` accept, apart from those of each format.
    is_stream : bool
        Whether the format can be written into a compressed stream.
    """

    name: str
    is_source: Callable[[str], bool]
    is_target: Callable[[str], bool]
    open: Callable[..., xr.Dataset]
    write: Callable[..., None] | None = None
    reading: frozenset[str] = frozenset()
    options: frozenset[str] = frozenset()
    is_stream: bool = False


def _has_suffix(*suffixes: str) -> Callable[[str], bool]:
    return lambda name: stem_and_suffix(name.rstrip("/"))[1] in suffixes


_is_netcdf = _has_suffix(".nc", ".nc4")
_is_zarr = _has_suffix(".zarr")


def _is_ome_target(name: str) -> bool:
    return _is_zarr(name) and stem_and_suffix(name.rstrip("/"))[0].lower().endswith(".ome")


def _is_zarr_source(name: str) -> bool:
    # a group of a store can be a source, too
    is_group = any(_is_zarr(part) for part in name.split("/")[:-1])
    return _is_zarr(name) or (is_group and not stem_and_suffix(name)[1])


def _opening(**options: Any) -> Callable[..., xr.Dataset]:
    return lambda source, **reading: xr.open_dataset(source, **options, **reading)


def _to_mrc(ds: xr.Dataset, target: str, **options: Any) -> None:
    to_mrc(_as_images(ds, redacted(target), "MRC"), target, **options)


def _to_ome_zarr(ds: xr.Dataset, target: str, *, mode: int | None, **options: Any) -> None:
    to_ome_zarr(_as_images(_cast(ds, mode), redacted(target), "OME-Zarr"), target, **options)


def _to_zarr(
    ds: xr.Dataset, target: str, *, mode: int | None, overwrite: bool, progress: Progress
) -> None:
    cast = storable(_cast(ds, mode))
    with new_store(target, overwrite=overwrite) as at:
        task = cast.to_zarr(**at, mode="a", zarr_format=3, consolidated=False, compute=False)
        computed(task, progress)


def _to_netcdf(
    ds: xr.Dataset, target: str, *, mode: int | None, overwrite: bool, progress: Progress
) -> None:
    fs, path = filesystem(target)
    if fs is not None:
        raise MrcError(f"{redacted(target)}: netCDF can only be written to a local path")
    cast = _cast(ds, mode).drop_encoding()
    _check_types(cast, target)
    sink = open_sink(path, None, overwrite)
    try:
        # HDF5 locks the file itself
        sink.begin(0).release()
        computed(cast.to_netcdf(sink.part.path, engine="netcdf4", compute=False), progress)
        sink.part.publish(overwrite=overwrite)
    finally:
        sink.discard()


def _as_images(ds: xr.Dataset, name: str, kind: str) -> xr.Dataset:
    """Return the dataset with a spectrum as one row, and colours without alpha."""
    # images have rows
    is_spectrum = [variable.ndim for variable in ds.data_vars.values()] == [1]
    images = ds.expand_dims("y") if is_spectrum else ds
    if ds.sizes.get("rgba") == 4:
        warn(f"{name}: red, green and blue are written without alpha, which {kind} does not have")
        images = images.isel(rgba=slice(3)).rename(rgba="rgb")
    return images


def _cast(ds: xr.Dataset, number: int | None) -> xr.Dataset:
    """Return the dataset with its pixels as a MODE of MRC stores them, if one is given."""
    if number is None:
        return ds

    def cast(data: xr.DataArray) -> xr.DataArray:
        mode = mode_for(data.dtype, number, is_rgb=data.dims[-1:] == ("rgb",))
        options: Any = {"dask": "parallelized", "output_dtypes": [np.dtype(mode.decoded)]}
        found: xr.DataArray = xr.apply_ufunc(mode.cast, data, keep_attrs=True, **options)
        return found

    return ds.map(cast, keep_attrs=True)


def _check_types(ds: xr.Dataset, target: str) -> None:
    """Raise MrcError if netCDF has no type for the numbers of a variable."""
    for name, variable in ds.variables.items():
        is_complex = variable.dtype.kind == "c"
        if is_complex or variable.dtype == np.float16:
            hint = "--mode 2 (mode=2 in Python) converts them to float32 without loss"
            if is_complex:
                hint = f"write ds[{name!r}].real and .imag as two variables in Python"
            raise MrcError(
                f"{redacted(target)}: the numbers of {name!r} are {variable.dtype}, and netCDF "
                f"has no type for them. A Zarr store (.zarr) holds them. For netCDF, {hint}"
            )


#: The first that fits is used. Tasks that read have smaller chunks than tasks that map, and these
#: are the chunks of a Zarr store, too.
FORMATS = (
    Format(
        name="OME-Zarr",
        is_source=lambda name: _is_zarr_source(name) and is_ome_zarr(name),
        is_target=_is_ome_target,
        open=open_ome_zarr,
        write=_to_ome_zarr,
        reading=frozenset({"level"}),
        options=frozenset({"levels", "chunks", "method"}),
    ),
    Format(
        name="Zarr",
        is_source=_is_zarr_source,
        is_target=_is_zarr,
        open=_opening(engine="zarr", consolidated=False),
        write=_to_zarr,
    ),
    Format(
        name="netCDF",
        is_source=_is_netcdf,
        is_target=_is_netcdf,
        open=_opening(engine="netcdf4"),
        write=_to_netcdf,
    ),
    Format(
        name="DM",
        is_source=lambda name: engine_of(name) == "dm",
        is_target=lambda name: False,
        open=_opening(engine="dm", mmap=False),
    ),
    Format(
        name="MRC",
        is_source=lambda name: True,
        is_target=lambda name: True,
        open=_opening(engine="mrc", mmap=False),
        write=_to_mrc,
        reading=frozenset(field.name for field in dataclasses.fields(OpenOptions)),
        options=frozenset(inspect.signature(to_mrc).parameters),
        is_stream=True,
    ),
)
