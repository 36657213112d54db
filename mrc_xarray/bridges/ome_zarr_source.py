"""Multiscale images in OME-Zarr, by any program, as labelled data."""

from __future__ import annotations

import contextlib
import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from xarray.core.indexing import LazilyIndexedArray

from mrc_xarray.bridges.ome_axes import Axis
from mrc_xarray.bridges.zarr_store import place, zarr_package
from mrc_xarray.errors import MrcError, warn
from mrc_xarray.storage import WriteTarget
from mrc_xarray.storage.failures import without_secrets
from mrc_xarray.text import printable

if TYPE_CHECKING:
    import zarr

__all__ = ["is_ome_zarr", "open_ome_zarr"]

# of images in versions that do not name them
_DIMS = "tczyx"


def open_ome_zarr(
    store: WriteTarget, *, level: int = 0, storage_options: dict[str, Any] | None = None
) -> xr.Dataset:
    """Open one level of a multiscale image in OME-Zarr 0.1 to 0.5, by any program, lazily.

    Parameters
    ----------
    store : path, URL or UPath
        The group of the image.
    level : int
        The resolution: 0 is the full one.
    storage_options : dict, optional
        Options for fsspec.

    Returns
    -------
    xarray.Dataset
        With the variable ``data``. Stores by `to_ome_zarr` have the coordinates and attributes
        that were written. Otherwise, coordinates come from scales and translations that have a
        unit, in ångström for units of length. Dimensions of time and channels of size 1 are left
        out.

    Raises
    ------
    MrcError
        If the store contains no multiscale image, or no such level, or its metadata are malformed.
    ImportError
        If Zarr is not installed.
    """
    at, name = place(store, storage_options)
    try:
        with without_secrets(at["store"]):
            root = zarr_package().open_group(**at, mode="r")
    except FileNotFoundError:
        if not os.path.exists(at["store"]):
            raise
        raise MrcError(
            f"{name}: this is not a Zarr group; accepted: the folder of a multiscale image"
        ) from None
    image = _image(root)
    if image is None:
        raise MrcError(
            f"{name}: the group has no 'multiscales' of OME-Zarr. Open the group of an image, "
            f"such as {name}/0, or a plain Zarr store with engine='zarr'"
        )
    levels = image.get("datasets")
    n = len(levels) if levels and isinstance(levels, list) else 1
    if type(level) is not int or not 0 <= level < n:
        raise MrcError(f"{name}: level is {level!r}; accepted: 0 to {n - 1}")
    try:
        entry = image["datasets"][level]
        path, array = _array(root, entry)
        axes = _axes(image, entry, array.shape)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # of whatever another program has written there
        what = f"the metadata of level {level} of the image can't be used"
        raise MrcError(f"{name}: {what}: {error or type(error).__name__}") from error
    data = _labelled(at, path, axes)
    data = _bare(array, axes) if data is None else data
    unknown = [axis for axis in axes if axis.name not in data.coords]
    _warn_of_unused(unknown, name)
    found = {axis.name: coord for axis in unknown if (coord := axis.coordinate()) is not None}
    frames = [axis for axis in unknown if axis.kind in ("time", "channel") and axis.size == 1]
    data = data.assign_coords(found).isel({axis.name: 0 for axis in frames}, drop=True)
    return (data.transpose(..., "rgb") if "rgb" in data.dims else data).to_dataset(name="data")


def is_ome_zarr(name: str) -> bool:
    """Return whether a path or URL leads to a multiscale image that can be read."""
    try:
        at, _ = place(name)
        return _image(zarr_package().open_group(**at, mode="r")) is not None
    except Exception:
        # whoever opens it reports the error
        return False


def _image(root: zarr.Group) -> dict[str, Any] | None:
    """Return the metadata of the first multiscale image of a group."""
    attrs = root.attrs.asdict()
    ome = attrs.get("ome", attrs)
    images = ome.get("multiscales") if isinstance(ome, dict) else None
    found = images[0] if isinstance(images, list) and images else None
    return found if isinstance(found, dict) else None


def _array(root: zarr.Group, entry: dict[str, Any]) -> tuple[str, zarr.Array[Any]]:
    """Return the path and the array of a level."""
    path = entry["path"].strip("/")
    # zarr refuses paths that lead out of the store
    array = root.get(path)
    if not isinstance(array, zarr_package().Array):
        raise ValueError(f"the path is {path!r}; accepted: that of an array")
    return path, array


def _axes(image: dict[str, Any], entry: dict[str, Any], shape: tuple[int, ...]) -> list[Axis]:
    """Return the axes of a level."""
    ndim = len(shape)
    transforms = [
        *entry.get("coordinateTransformations", ()),
        *image.get("coordinateTransformations", ()),
    ]
    steps, firsts = np.ones(ndim), np.zeros(ndim)
    for transform in transforms:
        kind = transform["type"]
        if kind == "identity":
            continue
        if kind not in ("scale", "translation"):
            raise ValueError(f"a transformation is {kind!r}; accepted: scale, translation")
        numbers = np.array(_of_length(ndim, [float(n) for n in transform[kind]], kind))
        if kind == "translation":
            firsts += numbers
            continue
        # numbers that are not finite give no coordinate
        with np.errstate(all="ignore"):
            firsts, steps = firsts * numbers, steps * numbers
    entries = _of_length(ndim, list(image.get("axes", _DIMS[-ndim:])), "axes")
    found = zip(entries, shape, steps.tolist(), firsts.tolist(), strict=True)
    axes = [_axis(entry, size, step, first) for entry, size, step, first in found]
    names = [axis.name for axis in axes]
    # the variable has this name
    if len({*names} - {"data"}) < ndim:
        accepted = f"{ndim} different names, without 'data'"
        raise ValueError(f"the axes are {', '.join(names)}; accepted: {accepted}")
    return axes


def _of_length(n: int, found: list[Any], name: str) -> list[Any]:
    """Return a list; raise ValueError if it does not have an entry for each dimension."""
    if len(found) != n:
        raise ValueError(f"{name} has {len(found)} entries; accepted: {n}, one per dimension")
    return found


def _axis(entry: Any, size: int, step: float, first: float) -> Axis:
    found = {"name": entry} if isinstance(entry, str) else entry
    name = printable(found["name"])
    kind = found.get("type") or ("space" if name in "xyz" else "")
    unit = printable(str(found.get("unit") or ""))
    return Axis(name=name, kind=kind, size=size, unit=unit, step=step, first=first)


def _labelled(at: dict[str, Any], path: str, axes: list[Axis]) -> xr.DataArray | None:
    """Return the data of a group that xarray can open; None for any other."""
    group, _, variable = path.rpartition("/")
    if not group:
        # levels of other sizes are in the same group
        return None
    options: Any = {"consolidated": False, "use_zarr_fill_value_as_mask": False}
    with contextlib.suppress(KeyError, TypeError, ValueError):
        data: xr.DataArray = xr.open_zarr(**at, group=group, chunks=None, **options)[variable]
        if list(data.dims) == [axis.name for axis in axes]:
            return data
    return None


def _bare(array: zarr.Array[Any], axes: list[Axis]) -> xr.DataArray:
    """Return the pixels of an array, as xarray reads them, without its attributes."""
    from xarray.backends.zarr import ZarrArrayWrapper

    dims = [axis.name for axis in axes]
    lazy = LazilyIndexedArray(ZarrArrayWrapper(array))  # type: ignore[no-untyped-call]
    chunks = dict(zip(dims, array.chunks, strict=True))
    variable = xr.Variable(dims, lazy, encoding={"preferred_chunks": chunks})
    # a DataArray of its own would read the pixels
    return xr.Dataset({"data": variable})["data"]


def _warn_of_unused(axes: list[Axis], name: str) -> None:
    """Warn of voxel sizes without a unit."""
    # levels without a voxel size have 1, 2, 4, ...
    unused = [
        axis.name
        for axis in axes
        if axis.is_spatial and not axis.unit and math.frexp(axis.step)[0] != 0.5
    ]
    if unused:
        warn(
            f"{name}: the scales along {', '.join(unused)} have no unit, and are left out. "
            "ds.assign_coords gives the data positions in ångström"
        )
