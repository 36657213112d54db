"""Labelled data as layers of an image viewer, in the form that napari takes."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from mrc_xarray.bridges.axes import axes_of
from mrc_xarray.errors import MrcError
from mrc_xarray.pixels.contrast import contrast
from mrc_xarray.recording import SAMPLES
from mrc_xarray.units import angstroms_per, known_unit, scaled

__all__ = ["Layer", "layers_of"]

#: Data, arguments and type of a layer.
Layer = tuple[Any, dict[str, Any], str]

# what is read of a section for the contrast, in bytes
_SAMPLE = 2**20
# napari computes complete chunks: one section each, but not too many chunks
_MOST_CHUNKS = 10_000
# largest distance of irregular positions from regular ones, in steps
_MOST_IRREGULAR = 0.1


def layers_of(data: xr.DataArray) -> list[Layer]:
    """Return the data as layers of napari: one, or amplitude and phase of complex data.

    Parameters
    ----------
    data : DataArray
        Data that are not in memory remain lazy. One section is read in part, for the contrast.

    Returns
    -------
    list of (array, dict, str)
        The scale is in ångström for lengths, otherwise in the units of the coordinate. Masks, and
        volumes of integers that are equal over regions, are layers of labels, other data are
        images.

    Raises
    ------
    MrcError
        If the data have fewer than two dimensions, or an empty one.
    """
    is_rgb = data.ndim > 0 and data.dims[-1] in SAMPLES
    frame = data.isel({data.dims[-1]: 0}) if is_rgb else data
    if frame.ndim < 2:
        raise MrcError(f"the data have the dimensions {frame.dims}; accepted: two or more")
    common = _options(data, frame)
    pixels = _chunked(data, frame)
    if is_rgb:
        return [(pixels, common | {"rgb": True}, "image")]
    if data.dtype.kind == "b":
        return [(pixels.astype(np.uint8), common, "labels")]
    sample = _sample(frame)
    if data.dtype.kind != "c":
        is_labels = data.dtype.kind in "iu" and "z" in frame.dims and _is_segmented(sample)
        limits = {} if is_labels else _limits(sample)
        return [(pixels, common | limits, "labels" if is_labels else "image")]
    amplitude = common | {"name": f"{common['name']} amplitude"} | _limits(np.abs(sample))
    phase = {
        "name": f"{common['name']} phase",
        "contrast_limits": (-math.pi, math.pi),
        "visible": False,
    }
    # dask applies NumPy's functions lazily
    return [(np.abs(pixels), amplitude, "image"), (np.angle(pixels), common | phase, "image")]


def _options(data: xr.DataArray, frame: xr.DataArray) -> dict[str, Any]:
    axes = axes_of(frame)
    placed = [_placed(axis) for axis in axes]
    source = str(data.attrs.get("mrc_source", data.name or ""))
    along = {str(name): c.values for name, c in data.coords.items() if name not in data.dims}
    return {
        "name": os.path.basename(source) or "data",
        "scale": tuple(scale for scale, _, _ in placed),
        "translate": tuple(start for _, start, _ in placed),
        "units": tuple(unit for _, _, unit in placed),
        "axis_labels": tuple(
            str(dim) if unit == "pixel" else axis["name"]
            for dim, axis, (_, _, unit) in zip(frame.dims, axes, placed, strict=True)
        ),
        "metadata": along | {"attrs": dict(data.attrs)},
    }


def _placed(axis: Mapping[str, Any]) -> tuple[float, float, str]:
    """Return scale, position of the first element and unit of an axis."""
    unit = known_unit(axis.get("units") or "")
    if unit is None:
        return 1.0, 0.0, "pixel"
    start, step = axis.get("offset", 0.0), axis.get("scale", 1.0)
    if "axis" in axis:
        positions = axis["axis"]
        n = len(positions) - 1
        start, step = positions[0], (positions[-1] - positions[0]) / max(n, 1)
        irregular = np.abs(positions - start - step * np.arange(n + 1)).max()
        if not irregular <= _MOST_IRREGULAR * abs(step) or not n:
            return 1.0, 0.0, "pixel"
    per_unit = angstroms_per(unit)
    if per_unit is None:
        return float(step), float(start), unit
    return scaled(step, per_unit), scaled(start, per_unit), "angstrom"


def _chunked(data: xr.DataArray, frame: xr.DataArray) -> Any:
    """Return the pixels as they are, or as a dask array if they are not in memory."""
    # xarray has no public name for this
    if data.chunks is not None or data.variable._in_memory:
        return data.data
    chunks, n_chunks = {dim: data.sizes[dim] for dim in data.dims}, 1
    for dim in frame.dims[:-2]:
        chunks[dim] = math.ceil(n_chunks * data.sizes[dim] / _MOST_CHUNKS)
        n_chunks *= math.ceil(data.sizes[dim] / chunks[dim])
    return data.chunk(chunks).data


def _sample(frame: xr.DataArray) -> np.ndarray[Any, Any]:
    """Read rows from the middle of the middle section, or of the first one of a stream."""
    is_stream = "mrc_stream" in frame.attrs
    *leading, rows, columns = frame.dims
    at = {dim: 0 if is_stream else frame.sizes[dim] // 2 for dim in leading}
    n_columns = min(frame.sizes[columns], _SAMPLE // frame.dtype.itemsize)
    n_rows = min(frame.sizes[rows], _SAMPLE // (n_columns * frame.dtype.itemsize))
    first = (frame.sizes[rows] - n_rows) // 2
    part = {rows: slice(first, first + n_rows), columns: slice(n_columns)}
    values: np.ndarray[Any, Any] = frame.isel(at | part).values
    return values


def _limits(sample: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Return contrast limits that leave out the extremes; none if all pixels are equal."""
    low, high = contrast([sample], (0.5, 99.5)) or (0.0, 0.0)
    return {"contrast_limits": (float(low), float(high))} if low < high else {}


def _is_segmented(sample: np.ndarray[Any, Any]) -> bool:
    """Return whether most pixels that are not 0 are equal to their neighbours, but not all."""
    left, right = sample[:, :-1], sample[:, 1:]
    is_inside = (left != 0) | (right != 0)
    n_inside = int(is_inside.sum())
    n_equal = int((left == right)[is_inside].sum())
    return bool(sample.size and (sample != sample.flat[0]).any() and 2 * n_equal > n_inside)
