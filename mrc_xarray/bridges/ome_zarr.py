"""Multiscale images in OME-Zarr 0.5, from data of any size."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import xarray as xr

from mrc_xarray.bridges.halving import METHODS
from mrc_xarray.bridges.ome_axes import Axis, axes_of
from mrc_xarray.bridges.zarr_store import new_store, place, storable, zarr_package
from mrc_xarray.labels.spacing import as_float
from mrc_xarray.storage import WriteTarget
from mrc_xarray.units import scaled
from mrc_xarray.writing.arrays import Array, as_dask, as_data_array
from mrc_xarray.writing.progress import Progress, check_progress, computed

if TYPE_CHECKING:
    import dask.array

__all__ = ["to_ome_zarr"]

# the largest size along each axis of the last level, and the size of chunks
_SMALL = 128
# sections that are read for one row of chunks, in bytes
_SLAB = 256 * 1024**2


def to_ome_zarr(
    obj: Array,
    store: WriteTarget,
    *,
    levels: int | Literal["auto"] = "auto",
    chunks: int | Mapping[str, int] | Literal["auto"] = "auto",
    method: Literal["mean", "mode"] = "mean",
    overwrite: bool = False,
    progress: Progress = "auto",
    storage_options: dict[str, Any] | None = None,
) -> None:
    """Write data as a multiscale image in OME-Zarr 0.5.

    Each level has half the resolution of the one before, and is made from it as it was written,
    chunk by chunk, so that the memory does not grow with the data. A store on a disk has a
    temporary name until it is complete.

    Parameters
    ----------
    obj : DataArray, Dataset with one data variable, or array
        An image, a stack of images, a volume or a stack of volumes, of any numeric dtype.
    store : path, URL or UPath
        Usually in .ome.zarr.
    levels : int or "auto"
        The number of resolutions, with the full one. "auto" adds levels until no spatial dimension
        is larger than 128.
    chunks : int, mapping of dimension to int, or "auto"
        The size of chunks along each spatial dimension, or along those that are named; -1 is the
        size of the dimension. "auto" is 128 × 128 × 128 for volumes and 1024 × 1024 for images.
        Chunks of volumes with large sections are flatter, since a row of chunks is read at a time.
    method : {"mean", "mode"}
        What becomes of a block of two pixels along each spatial dimension: its mean without NaN,
        with halves rounded up in integers; or, for labels, its most frequent value.
    overwrite : bool
        Whether to replace an existing store.
    progress : {"auto", True, False}
        As for `to_mrc`.
    storage_options : dict, optional
        Options for fsspec.

    Raises
    ------
    MrcError
        If OME-Zarr can't hold the dimensions or coordinates.
    FileExistsError
        If the store exists and may not be replaced.
    ImportError
        If Zarr is not installed.
    ValueError
        If an argument has a wrong value.

    Notes
    -----
    The groups ``scale0``, ``scale1``, … contain ``data``, with the coordinates and attributes of
    `obj`, so that ``xr.open_dataset(store, engine="zarr", group="scale0")`` returns them. The last
    row or column of an odd size is left out in the next level. A dimension of size 1 is not
    halved. Images and volumes of a stack are not averaged.

    Scales and translations are in ångström if the coordinates have a unit of length, and a
    translation is the center of the first voxel. Without coordinates, they have no unit.
    """
    check_progress(progress)
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; accepted: {', '.join(map(repr, METHODS))}")
    zarr = zarr_package()
    _, name = place(store, storage_options)
    given = as_data_array(obj)
    axes = axes_of(given, name)
    data = given.transpose(*(axis.name for axis in axes))
    n_levels = _number_of_levels(levels, axes)
    sizes = _chunk_sizes(chunks, data, axes)
    with new_store(store, overwrite=overwrite, storage_options=storage_options) as at:
        coords = {key: coord.variable for key, coord in data.coords.items()}
        level = _Level(0, as_dask(data), coords, axes)
        datasets = []
        for i in range(n_levels):
            level = level.next(at, sizes, method) if i else level
            computed(level.write(at, sizes, data.attrs), progress)
            datasets.append(level.metadata())
        stem = os.path.basename(name.rstrip("/")).removesuffix(".zarr").removesuffix(".ome")
        described = [axis.metadata() for axis in axes]
        image = {"name": stem, "axes": described, "datasets": datasets, "type": method}
        ome = {"version": "0.5", "multiscales": [image]}
        # last, so that a store that is not complete is no image
        zarr.open_group(**at, mode="r+").attrs["ome"] = ome


class _Level(NamedTuple):
    """One resolution."""

    number: int
    pixels: dask.array.Array
    coords: dict[Any, xr.Variable]
    axes: tuple[Axis, ...]

    def write(self, at: dict[str, Any], chunks: Mapping[str, int], attrs: Any) -> Any:
        """Return the task that writes the level to its group; coordinates are written now."""
        dims = [axis.name for axis in self.axes]
        chunk = tuple(min(chunks[axis.name], axis.size) for axis in self.axes)
        data = xr.Variable(dims, self.pixels.rechunk(chunk), attrs)
        ds = storable(xr.Dataset({"data": data}, self.coords))
        for variable in ds.variables.values():
            variable.encoding["_FillValue"] = None
        ds["data"].encoding["chunks"] = chunk
        options: Any = {"group": f"scale{self.number}", "consolidated": False, "zarr_format": 3}
        return ds.to_zarr(**at, **options, mode="w-", compute=False)

    def next(self, at: dict[str, Any], chunks: Mapping[str, int], method: str) -> _Level:
        """Return the level of half the resolution, from this one as it was written."""
        import dask.array
        import zarr

        stored = zarr.open_array(**at, path=f"scale{self.number}/data", mode="r")
        factors = {i: 1 + axis.is_halved for i, axis in enumerate(self.axes)}
        # a chunk of the new level is made from these
        parts = [min(factors[i] * chunks[a.name], a.size) for i, a in enumerate(self.axes)]
        pixels = dask.array.from_zarr(stored, chunks=tuple(parts))
        halves = dask.array.coarsen(METHODS[method], pixels, factors, trim_excess=True)
        dims = {axis.name for axis in self.axes if axis.is_halved}
        axes = tuple(axis.halved() if axis.is_halved else axis for axis in self.axes)
        return _Level(self.number + 1, halves, dict(_halved_coords(self.coords, dims)), axes)

    def metadata(self) -> dict[str, Any]:
        """Return the entry of the level in the metadata of the image."""
        scale = {"type": "scale", "scale": [axis.step for axis in self.axes]}
        translation = {"type": "translation", "translation": [axis.first for axis in self.axes]}
        path = f"scale{self.number}/data"
        return {"path": path, "coordinateTransformations": [scale, translation]}


def _halved_coords(
    coords: Mapping[Any, xr.Variable], dims: set[str]
) -> Iterator[tuple[Any, xr.Variable]]:
    """Yield the coordinates of the next level: the centers of its voxels."""
    for name, coord in coords.items():
        along = dims & set(coord.dims)
        if not along:
            yield name, coord
        elif coord.dtype.kind in "iuf":
            windows = dict.fromkeys(along, 2)
            halve: Any = coord.coarsen
            centers: xr.Variable = halve(windows, "mean", boundary="trim", keep_attrs=True)
            if as_float(coord.attrs.get("spacing")) > 0:
                centers.attrs["spacing"] = scaled(coord.attrs["spacing"], 2)
            yield name, centers


def _number_of_levels(levels: Any, axes: tuple[Axis, ...]) -> int:
    largest = max(axis.size for axis in axes if axis.is_spatial)
    if levels == "auto":
        # the largest size is halved until it is _SMALL or less
        return 1 + (largest // (_SMALL + 1)).bit_length()
    # each halves the largest size, up to a level of one voxel
    most = largest.bit_length()
    is_number = isinstance(levels, Integral) and not isinstance(levels, bool)
    if not is_number or not 1 <= int(levels) <= most:
        raise ValueError(f"levels is {levels!r}; accepted: 'auto', or 1 to {most} for this size")
    return int(levels)


def _chunk_sizes(chunks: Any, data: xr.DataArray, axes: tuple[Axis, ...]) -> dict[str, int]:
    """Return the sizes of chunks of all levels."""
    spatial = [axis.name for axis in axes if axis.is_spatial]
    sizes = dict.fromkeys(map(str, data.dims), 1) | _default_chunks(data, spatial)
    if isinstance(chunks, str) and chunks == "auto":
        return sizes
    given = chunks if isinstance(chunks, Mapping) else dict.fromkeys(spatial, chunks)
    are_sizes = all(isinstance(n, Integral) and (n == -1 or int(n) > 0) for n in given.values())
    if not are_sizes or not given.keys() <= sizes.keys():
        raise ValueError(
            f"chunks is {chunks!r}; accepted: 'auto', a positive integer, or such integers by "
            f"dimension, of {', '.join(sizes)}; -1 is the size of the dimension"
        )
    return sizes | {dim: data.sizes[dim] if n == -1 else int(n) for dim, n in given.items()}


def _default_chunks(data: xr.DataArray, spatial: list[str]) -> dict[str, int]:
    if len(spatial) == 2:
        return dict.fromkeys(spatial, 8 * _SMALL)
    n_sections, edge = _SMALL, _SMALL
    section = data.sizes[spatial[1]] * data.sizes[spatial[2]] * data.dtype.itemsize
    # of the same number of voxels
    while n_sections > 2 and n_sections * section > _SLAB:
        n_sections, edge = n_sections // 4, edge * 2
    return dict(zip(spatial, (n_sections, edge, edge), strict=True))
