"""Opened files as one Zarr group: their labels joined by xarray, and their chunks in one grid."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from mrc_xarray.bridges.chunks import Chunked, chunk_shape, chunked, pixels_of
from mrc_xarray.bridges.zarr_store import storable, zarr_package
from mrc_xarray.errors import MrcError
from mrc_xarray.pixels.array import StackArray

__all__ = ["Joined", "alone", "joined"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Joined:
    """The labels of the result, the shape of its chunks, and the chunks of each file.

    The files follow each other along `axis`, which is a new one if `is_new`.
    """

    labels: xr.Dataset
    chunk: tuple[int, ...]
    files: Sequence[Chunked]
    axis: int = 0
    is_new: bool = False

    def chunks(self) -> Iterator[tuple[tuple[int, ...], str, int, int]]:
        """Yield the place of each chunk in the grid, its file, first byte and length in bytes."""
        join = np.stack if self.is_new else np.concatenate
        offsets = join([file.offsets for file in self.files], self.axis)
        lengths = join([file.lengths for file in self.files], self.axis)
        shapes = [file.offsets.shape for file in self.files]
        numbers = join([np.full(shape, n) for n, shape in enumerate(shapes)], self.axis)
        flat = (values.reshape(-1).tolist() for values in (numbers, offsets, lengths))
        for index, number, offset, nbytes in zip(np.ndindex(offsets.shape), *flat, strict=True):
            if offset >= 0:
                yield index, self.files[number].name, offset, nbytes

    def documents(self) -> dict[str, bytes]:
        """Return the bytes of all keys of a Zarr-3 group, except for the chunks of ``data``.

        xarray's own writer makes them, so that they are the same as in a copy by ``to_zarr``.
        """
        zarr = zarr_package()

        def codec(json: dict[str, Any]) -> Any:
            return zarr.registry.get_codec_class(json["name"]).from_dict(json)

        # all files have the same codecs
        pixels, dtype = self.files[0], self.labels["data"].dtype
        is_missing = dtype.kind in "fc" and any((file.offsets < 0).any() for file in self.files)
        encoding = {
            "chunks": self.chunk,
            "serializer": codec(pixels.serializer),
            "compressors": [] if pixels.compressor is None else [codec(pixels.compressor)],
            "filters": [],
            "fill_value": np.nan if is_missing else 0,
            # no value in the file means that it is missing
            "_FillValue": None,
        }
        held: dict[str, Any] = {}
        storable(self.labels).to_zarr(
            zarr.storage.MemoryStore(held),
            mode="w",
            compute=False,
            consolidated=False,
            zarr_format=3,
            encoding={"data": encoding},
            safe_chunks=False,
        )
        return {key: value.to_bytes() for key, value in held.items()}


def alone(ds: xr.Dataset, n_sections: int | None = None) -> Joined:
    """Return one file; `n_sections` is as for `chunk_shape`. Raises MrcError as `pixels_of`."""
    array, shape = pixels_of(ds), ds["data"].shape
    chunk = chunk_shape([array], shape, n_sections)
    file = chunked(array, shape, chunk)
    return Joined(labels=_without_pixels(ds), chunk=chunk, files=[file])


def joined(datasets: Sequence[xr.Dataset], dim: Any) -> Joined:
    """Return files along a dimension, new or not, with the labels of `xarray.concat`.

    Raises MrcError if they differ in more than what is concatenated.
    """
    arrays = [pixels_of(ds) for ds in datasets]
    shapes = [ds["data"].shape for ds in datasets]
    _check("dimensions", [ds["data"].dims for ds in datasets], arrays)
    _check("dtype", [array.dtype for array in arrays], arrays)
    dims = datasets[0]["data"].dims
    is_new = not isinstance(dim, str) or dim not in dims
    along = len(dims) if is_new else dims.index(dim)
    # chunks have one shape, and each has pixels of one file
    shape = list(shapes[0])
    if along < len(arrays[0].leading):
        shape[along] = math.gcd(*(other[along] for other in shapes))
        others = [(*other[:along], *other[along + 1 :]) for other in shapes]
        _check(f"shape without {dim}", others, arrays)
    else:
        _check("shape", shapes, arrays)
    chunk = chunk_shape(arrays, shape)
    files = [chunked(array, other, chunk) for array, other in zip(arrays, shapes, strict=True)]
    _check("way to store pixels", [(file.serializer, file.compressor) for file in files], arrays)
    labels = _concatenated(datasets, dim, arrays)
    if is_new:
        along = next(i for i, name in enumerate(labels["data"].dims) if name not in dims)
        chunk = (*chunk[:along], 1, *chunk[along:])
    return Joined(labels=labels, chunk=chunk, files=files, axis=along, is_new=is_new)


def _without_pixels(ds: xr.Dataset) -> xr.Dataset:
    """Return the Dataset with the labels of another, and pixels that are never computed."""
    import dask.array

    data = ds["data"].variable
    pixels = dask.array.zeros(data.shape, dtype=data.dtype, chunks=-1)
    return ds.assign(data=(data.dims, pixels, data.attrs))


def _check(what: str, found: Sequence[Any], arrays: Sequence[StackArray]) -> None:
    """Raise MrcError if files differ."""
    shown = [
        (", ".join(map(str, value)) or "none") if isinstance(value, tuple) else str(value)
        for value in found
    ]
    for value, text, array in zip(found, shown, arrays, strict=True):
        if value != found[0]:
            raise MrcError(
                f"{array.source.name}: the {what} is {text}; accepted: {shown[0]}, as in "
                f"{arrays[0].source.name}. Leave the file out, or refer to it alone"
            )


def _concatenated(
    datasets: Sequence[xr.Dataset], dim: Any, arrays: Sequence[StackArray]
) -> xr.Dataset:
    """Return the labels of all files."""
    # xarray would give the positions of one file to another that has none
    known = [tuple(name for name in ds.dims if name in ds.coords) for ds in datasets]
    _check("known voxel size along", known, arrays)
    try:
        return xr.concat(
            [_without_pixels(ds) for ds in datasets],
            dim,
            data_vars="all",
            coords="different",
            compat="equals",
            join="exact",
            combine_attrs="override",
        )
    except ValueError as error:
        raise MrcError(
            f"the labels of {len(datasets)} files, from {arrays[0].source.name} on, can't be "
            f"joined: {str(error).rstrip('.')}. voxel_size=, origin='zero' and metadata_file=None "
            "give all files the same labels"
        ) from error
