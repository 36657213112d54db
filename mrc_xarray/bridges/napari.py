"""The reader and the writer of the napari plugin; ``napari.yaml`` declares them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from mrc_xarray.bridges.axes import coords_of
from mrc_xarray.bridges.layers import Layer, layers_of
from mrc_xarray.suffixes import DM_SUFFIXES, stem_and_suffix
from mrc_xarray.writing.writer import to_mrc

__all__ = ["get_reader", "read", "write"]

# no other program uses these suffixes, so that a damaged file is an error with a reason
_OURS = (".mrc", ".mrcs", ".mrcz")
# MODE for dtypes that are common in napari and have no MODE of their own
_MODES = {"bool": 0, "float64": 2, "complex128": 4}
# for longer integers, the first that holds the values
_INTEGERS = {1: "int16", 6: "uint16", 7: "int32", 8: "uint32"}


def get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[Layer]] | None:
    """Return `read` if all files are MRC or DM files, else None."""
    paths = [path] if isinstance(path, str) else path
    return read if paths and all(map(_is_ours, paths)) else None


def _is_ours(path: str) -> bool:
    engine = xr.backends.list_engines()[_engine(path)]
    return stem_and_suffix(path)[1] in _OURS or engine.guess_can_open(path)


def _engine(path: str) -> str:
    return "dm" if stem_and_suffix(path)[1] in DM_SUFFIXES else "mrc"


def read(path: str | Sequence[str], **options: Any) -> list[Layer]:
    """Return the layers of a file, or of several files as one stack.

    Files that differ in shape or dtype have layers of their own. The options are those of
    `xarray.open_dataset`. Raises MrcError for a file that can't be read, and napari shows its
    message.
    """
    paths = [path] if isinstance(path, str) else list(path)
    opened = [xr.open_dataarray(name, engine=_engine(name), **options) for name in paths]
    if len({(data.dims, data.shape, data.dtype) for data in opened}) == 1 < len(opened):
        return _stacked([layers_of(data) for data in opened])
    return [layer for data in opened for layer in layers_of(data)]


def _stacked(files: Sequence[Sequence[Layer]]) -> list[Layer]:
    """Return the layers of equal files with a dimension ``file`` in front, as the first has it."""
    import dask.array

    new = {"scale": 1.0, "translate": 0.0, "units": "pixel", "axis_labels": "file"}
    return [
        (
            dask.array.stack([file[i][0] for file in files]),
            options | {name: (value, *options[name]) for name, value in new.items()},
            kind,
        )
        for i, (_, options, kind) in enumerate(files[0])
    ]


def write(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """Write a layer of images or labels to an MRC or MRCZ file, which may exist.

    The voxel size comes from the scale and the units of the layer. A layer that this plugin has
    read has the header, labels and layout of its file, as far as they still hold.
    """
    metadata = meta.get("metadata", {})
    levels = data[0] if meta.get("multiscale") else data
    # MRC has no transparency
    pixels = levels[..., :3] if meta.get("rgb") else levels
    samples = ("rgb",) if meta.get("rgb") else ()
    dims, coords = coords_of(_axes(pixels.shape[: pixels.ndim - len(samples)], meta))
    angles = metadata.get("tilt_angle", ())
    if "image" in dims and np.shape(angles) == (pixels.shape[dims.index("image")],):
        coords["tilt_angle"] = xr.Variable("image", angles, {"units": "degree"})
    attrs = metadata.get("attrs", {})
    labelled = xr.DataArray(pixels, coords, (*dims, *samples), "data", attrs)
    to_mrc(labelled, path, mode=_mode(pixels), overwrite=True)
    return [path]


def _mode(pixels: Any) -> int | None:
    """Return the MODE of pixels whose dtype has none in the standard; None for others."""
    dtype = np.dtype(pixels.dtype)
    if dtype.kind not in "iu" or dtype.itemsize < 4:
        return _MODES.get(dtype.name)
    low, high = int(pixels.min()), int(pixels.max())
    limits = ((mode, np.iinfo(name)) for mode, name in _INTEGERS.items())
    return next((mode for mode, limit in limits if limit.min <= low <= high <= limit.max), None)


def _axes(shape: Sequence[int], meta: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the axes of a layer; those without labels are named by their place."""
    n = len(shape)
    names = [str(label) for label in meta.get("axis_labels") or ()]
    if len(set(names)) < n or any(name.lstrip("-").isdigit() for name in names):
        names = [*(f"axis_{i}" for i in range(n - 4)), *("volume", "z", "y", "x")[-n:]]
    scales, starts = meta.get("scale", (1.0,) * n), meta.get("translate", (0.0,) * n)
    units = meta.get("units") or ("pixel",) * n
    return [
        {
            "name": name,
            "size": size,
            "scale": float(scale),
            "offset": float(start),
            # pint's symbols, such as nm, are among the units that are known
            "units": unit if isinstance(unit, str) else format(unit, "~"),
            "navigate": i < n - 2,
        }
        for i, (name, size, scale, start, unit) in enumerate(
            zip(names, shape, scales, starts, units, strict=True)
        )
    ]
