"""The files that back data: those that are read or mapped when the pixels are used."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping, Set
from types import FunctionType
from typing import Any

import numpy as np
import xarray as xr

from mrc_xarray.pixels.array import StackArray
from mrc_xarray.storage.local import Map, is_same_file

__all__ = ["is_read_from"]


def is_read_from(data: xr.DataArray, path: str) -> bool:
    """Return whether the pixels of `data` come from a file, by reading it or from a memory map.

    Parameters
    ----------
    data : DataArray
        In memory, lazy, or backed by dask. A dask graph is searched for lazy arrays, memory maps,
        and tasks that are given the name of the file. Data that the workers of a cluster already
        hold can't be searched.
    path : str
        The path of an existing file.

    Returns
    -------
    bool

    Raises
    ------
    OSError
        If the file is missing.
    """
    target, base = os.stat(path), os.path.basename(path)
    maps = _maps_of(target)
    left, seen = [data.variable._data], dict[int, Any]()
    while left:
        found = left.pop()
        if id(found) in seen:
            continue
        # holding a reference keeps the id of a temporary object from being used again
        seen[id(found)] = found
        if isinstance(found, np.ndarray) and any(_address(found) in span for span in maps):
            return True
        if isinstance(found, StackArray) and found.source.is_of(target):
            return True
        name = _file(found)
        # any other text is no name that a task would open
        may_be = name is not None and (os.path.isabs(name) or os.path.basename(name) == base)
        if may_be and is_same_file(str(name), target):
            return True
        left += _parts(found)
    return False


def _file(found: Any) -> str | None:
    """Return the name of the file that an object maps or names."""
    match found:
        case Map():
            return found.name
        case np.memmap():
            return None if found.filename is None else os.fsdecode(found.filename)
        case str() | os.PathLike():
            return os.fsdecode(found)
    return None


def _parts(found: Any) -> Iterator[Any]:
    """Yield the parts of an array, a dask graph, or an object in a graph."""
    match found:
        case np.ndarray():
            yield found.base
        case memoryview():
            yield found.obj
        case Mapping():
            yield from found.values()
        case list() | tuple() | Set():
            yield from found
        case functools.partial():
            yield from (found.func, found.args, found.keywords)
        case FunctionType():
            cells = (cell.cell_contents for cell in found.__closure__ or ())
            # a closure may contain the name for other reasons than to read the file
            yield from (content for content in cells if not isinstance(content, str | os.PathLike))
        case xr.DataArray() | xr.Dataset():
            yield from (variable._data for variable in found._to_temp_dataset().variables.values())
        case type():
            # a class in a graph has the methods of its instances
            return
        case _ if hasattr(found, "__dask_graph__"):
            yield found.__dask_graph__()
        case _ if type(found).__module__.startswith(("dask.", "numpy.", "xarray.")):
            # a task, the owner of a strided view, or one of xarray's adapters around a lazy array
            names = ("args", "kwargs", "value", "func", "base", "array")
            yield from (getattr(found, name, None) for name in names)


def _maps_of(target: os.stat_result) -> list[range]:
    """Return the addresses where this process has a file mapped, by whatever package."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
            lines = [line.split(maxsplit=5) for line in file]
    except OSError:
        # no Linux: the maps of this package and of NumPy are found all the same
        return []
    spans = [fields[0].split("-") for fields in lines if int(fields[4]) == target.st_ino]
    return [range(int(start, 16), int(stop, 16)) for start, stop in spans]


def _address(array: np.ndarray[Any, Any]) -> int:
    return int(array.__array_interface__["data"][0])
