"""Open many files of one kind as one Dataset."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import xarray as xr

from mrc_xarray.errors import MrcError
from mrc_xarray.storage import Target
from mrc_xarray.storage.base import InStore
from mrc_xarray.storage.listing import matching
from mrc_xarray.text import printable

__all__ = ["open_many"]

# requests that wait for a store at the same time
_THREADS = 16
# a longer list in an error is not read
_MOST_FILES = 10


def open_many(
    paths: str | os.PathLike[str] | Iterable[Target],
    dim: str = "tomogram",
    tolerance: float = 0.01,
    **options: Any,
) -> xr.Dataset:
    """Open files of one kind as one lazy Dataset, with a new dimension that counts the files.

    Each file is opened once, and no pixels are read. The files must have the same dimensions,
    sizes and dtype, and the same positions within a tolerance, as xarray compares positions
    exactly. The positions in the result are those of one of the files.

    Parameters
    ----------
    paths : str, path, or iterable of paths, URLs or file objects
        A pattern, such as ``"tomograms/TS_*.mrc"`` or ``"s3://bucket/**/*.rec"``, whose files are
        in natural order: ``TS_2`` precedes ``TS_10``. Or a list, in whose order the files are.
    dim : str
        Name of the new dimension. Its coordinate has the names of the files, as
        ``ds.sel(tomogram="TS_2.mrc")`` selects them. If two files in different folders have the
        same name, the names contain as many folders as distinguish all files.
    tolerance : float
        How far positions may be apart, in voxels.
    **options
        As for `xarray.open_dataset`, with the arguments of the engine. ``chunks`` is ``{}`` by
        default, and can't be None, since xarray would read the pixels to join them.

    Returns
    -------
    xarray.Dataset
        One variable ``data``: shape (files, ...), backed by dask. It has the attributes and
        coordinates that are equal in all files. Those that differ are left out.

    Raises
    ------
    MrcError
        If files do not fit to the others; it names each of them, and why. Or if a file can't be
        read as MRC.
    FileNotFoundError
        If no file matches the pattern, or a file is missing.
    ValueError
        If two names are the same file, or an argument has a wrong value.
    """
    chosen = {"engine": "mrc", "chunks": {}} | options
    if chosen["chunks"] is None:
        raise ValueError(
            "chunks is None, and xarray would read all files to join them; accepted: {}, 'auto', "
            "or chunks by dimension"
        )
    if not tolerance >= 0:
        raise ValueError(f"tolerance is {tolerance!r}; accepted: 0 or more voxels")
    if isinstance(paths, str | os.PathLike):
        files = list[Target](matching(os.fspath(paths), chosen.get("storage_options")))
    else:
        files = list(paths)
    if not files:
        raise ValueError("paths is empty; accepted: at least one file")
    datasets = _opened(files, chosen)
    taken = {str(name) for ds in datasets for name in (*ds.dims, *ds.variables)}
    if dim in taken:
        raise ValueError(
            f"dim is {dim!r}, which the files have already; accepted: a new name, unlike "
            f"{', '.join(sorted(taken))}"
        )
    arrays = [ds["data"] for ds in datasets]
    names = _names([str(array.attrs["mrc_source"]) for array in arrays])
    kinds = [_kind(array) for array in arrays]
    # the first one of the most common kind
    at = kinds.index(Counter(kinds).most_common(1)[0][0])
    found = [_difference(array, arrays[at], tolerance) for array in arrays]
    misfits = {name: why for name, why in zip(names, found, strict=True) if why}
    if misfits:
        raise MrcError(_refusal(misfits, len(names), names[at], tolerance))
    label = xr.Variable((dim,), np.array(names), {"long_name": "file"})
    return _joined(arrays, arrays[at], label)


def _opened(files: Sequence[Target], options: dict[str, Any]) -> list[xr.Dataset]:
    def opened(file: Target) -> xr.Dataset:
        return xr.open_dataset(file, **options)  # type: ignore[arg-type]  # what the engine opens

    if not any(isinstance(f, InStore) or (isinstance(f, str) and "://" in f) for f in files):
        # threads would be no faster, and a warning would not name the line of the user's code
        return list(map(opened, files))
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(opened, files))


def _names(sources: Sequence[str]) -> list[str]:
    """Return the names of files, with as many folders as distinguish them."""
    paths = [
        next((part for part in source.split("::") if "://" in part), source).split("/")
        for source in sources
    ]
    for n in range(1, max(map(len, paths)) + 1):
        names = ["/".join(path[-n:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    twice = [name for name, n in Counter(sources).items() if n > 1]
    raise ValueError(f"paths has {', '.join(twice)} twice; accepted: different files")


def _pixels(data: xr.DataArray) -> str:
    sizes = ", ".join(f"{dim} {size}" for dim, size in data.sizes.items())
    return f"{data.dtype} with the dimensions {sizes}"


def _grid(data: xr.DataArray) -> dict[Hashable, xr.Variable]:
    """Return the positions along the dimensions whose voxel size is known."""
    coords = {dim: data.coords[dim].variable for dim in data.dims if dim in data.coords}
    return {dim: coord for dim, coord in coords.items() if coord.dtype.kind in "iuf"}


def _step(coord: xr.Variable) -> float:
    if coord.size < 2:
        return float(coord.attrs.get("spacing", 1.0))
    return float(coord.values[-1] - coord.values[0]) / (coord.size - 1)


def _kind(data: xr.DataArray) -> tuple[object, ...]:
    """Return what files have in common whose grids are nearly equal."""
    ends = (f"{coord.values[0]:.3g}, {coord.values[-1]:.3g}" for coord in _grid(data).values())
    return _pixels(data), *ends


def _difference(data: xr.DataArray, expected: xr.DataArray, tolerance: float) -> str:
    """Return how data differ from those of another file; "" if they can be joined."""
    if _pixels(data) != _pixels(expected):
        return f"{_pixels(data)} instead of {_pixels(expected)}"
    grid, wanted = _grid(data), _grid(expected)
    if grid.keys() != wanted.keys():
        known, others = (", ".join(map(str, dims)) or "none" for dims in (grid, wanted))
        return f"the voxel size is known along {known} instead of {others}"
    found = []
    for dim, there in wanted.items():
        here, step = grid[dim], _step(there)
        apart = max(abs(_step(here) - step), np.abs(here.values - there.values).max())
        is_same_unit = here.attrs.get("units") == there.attrs.get("units")
        if not (is_same_unit and apart <= tolerance * abs(step)):
            found.append(f"{dim} has {_described(here)} instead of {_described(there)}")
    return "; ".join(found)


def _described(coord: xr.Variable) -> str:
    unit = coord.attrs.get("units", "")
    return f"voxels of {_step(coord):.8g} {unit} from {coord.values[0]:.8g} on"


def _refusal(misfits: Mapping[str, str], n_files: int, reference: str, tolerance: float) -> str:
    """Return the message of the error that names the files that do not fit."""
    lines = [f"{name}: {why}" for name, why in misfits.items()]
    if len(lines) > _MOST_FILES:
        lines[_MOST_FILES:] = [f"and {len(lines) - _MOST_FILES} more"]
    text = "\n".join(map(printable, lines))
    return (
        f"{len(misfits)} of {n_files} files do not fit {printable(reference)}:\n{text}\n"
        "Leave these files out, or open them alone. origin='zero' ignores where files begin. "
        f"The tolerance is {tolerance:g} voxels."
    )


def _joined(
    arrays: Sequence[xr.DataArray], reference: xr.DataArray, label: xr.Variable
) -> xr.Dataset:
    """Join arrays whose grids agree, with the labels that all of them have."""
    # without coordinates, which xarray would compare
    bare = [xr.DataArray(array.data, dims=array.dims) for array in arrays]
    data = xr.concat(bare, label.dims[0])
    data.attrs = {
        key: value
        for key, value in reference.attrs.items()
        if all(array.attrs.get(key) == value for array in arrays)
    }
    coords = {
        name: coord.variable
        for name, coord in reference.coords.items()
        if name in _grid(reference)
        or all(
            name in array.coords and array.coords[name].variable.identical(coord.variable)
            for array in arrays
        )
    }
    return xr.Dataset({"data": data}, {label.dims[0]: label, **coords})
