"""The files that back data: those that are read or mapped when the pixels are used."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Iterator
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import xarray as xr

from mrc_xarray.pixels.array import StackArray
from mrc_xarray.storage.local import Map, is_same_file

__all__ = ["contents", "is_read_from"]

# dask graphs, views of NumPy, and xarray's adapters around a lazy array consist of these
_SEARCHED = ("builtins", "collections", "functools", "dask", "numpy", "xarray")


def is_read_from(data: xr.DataArray, path: str) -> bool:
    """Return whether the pixels of `data` come from an existing file, by reads or a memory map.

    A dask graph is searched for lazy arrays, memory maps, and tasks whose arguments name the file.
    Workers of a cluster search what they hold, when they have computed it.
    """
    found = [*contents(data)]
    if _is_any_backed_by(found, path):
        return True
    futures = [part for part in found if type(part).__module__ == "distributed.client"]
    if not futures:
        return False
    from distributed import wait

    wait(futures)
    keys = [future.key for future in futures]
    return any(futures[0].client.run(_is_held, keys, path).values())


def contents(data: xr.DataArray) -> Iterator[Any]:
    """Yield the arrays, the tasks of a graph, and everything that they refer to."""
    return _reachable(data.variable._data)


def _is_held(keys: list[Any], path: str, dask_worker: Any) -> bool:
    """Return whether a worker holds chunks that are backed by a file, if it sees the file."""
    # what is not in memory has been copied to a disk
    held = getattr(dask_worker.data, "fast", dask_worker.data)
    parts = (part for key in keys if key in held for part in _reachable(held[key]))
    return os.path.exists(path) and _is_any_backed_by(parts, path)


def _is_any_backed_by(parts: Iterable[Any], path: str) -> bool:
    target = os.stat(path)
    maps, base = _maps_of(target), os.path.basename(path)
    return any(_is_backed_by(part, target, base, maps) for part in parts)


def _reachable(start: Any) -> Iterator[Any]:
    left, seen = [start], dict[int, Any]()
    while left:
        found = left.pop()
        if id(found) not in seen:
            # this reference prevents the id of a temporary object from being reused
            seen[id(found)] = found
            yield found
            left += _referents(found)


def _is_backed_by(found: Any, target: os.stat_result, base: str, maps: list[range]) -> bool:
    match found:
        case StackArray():
            return found.source.is_of(target)
        case np.ndarray() if any(found.__array_interface__["data"][0] in span for span in maps):
            return True
        case np.memmap():
            return found.filename is not None and is_same_file(os.fsdecode(found.filename), target)
        case Map():
            return is_same_file(found.name, target)
        case str() | os.PathLike():
            name = os.fsdecode(found)
            # no task opens any other text as a file
            may_be = os.path.isabs(name) or os.path.basename(name) == base
            return may_be and is_same_file(name, target)
    return False


def _referents(found: Any) -> Iterable[Any]:
    """Return the parts of an array, of a dask graph, or of an object in a graph."""
    match found:
        case np.ndarray():
            return [found.base]
        case FunctionType():
            contents = [cell.cell_contents for cell in found.__closure__ or ()]
            # a closure may contain the name for other reasons than to read the file
            return [part for part in contents if not isinstance(part, str | os.PathLike)]
        case xr.DataArray() | xr.Dataset():
            # not the attributes, which name the source
            return [part._data for part in found._to_temp_dataset().variables.values()]
        case type() | MethodType():
            # a class has the methods of its instances, and a method may belong to a path
            return []
    is_searched = type(found).__module__.partition(".")[0] in _SEARCHED
    return gc.get_referents(found) if is_searched else []


def _maps_of(target: os.stat_result) -> list[range]:
    """Return the addresses where this process has a file mapped, by whatever package."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
            lines = [line.split(maxsplit=5) for line in file]
    except OSError:
        # not on Linux; maps of this package and of NumPy are still found
        return []
    spans = [fields[0].split("-") for fields in lines if int(fields[4]) == target.st_ino]
    return [range(int(start, 16), int(stop, 16)) for start, stop in spans]
