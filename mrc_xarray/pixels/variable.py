"""The variable of a lazy array, and the ways from one to the other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import xarray as xr
from xarray.core import indexing

from mrc_xarray.pixels.array import StackArray

__all__ = ["StackVariable", "read_by", "stack_of", "unwrapped"]


class StackVariable(xr.Variable):
    """The lazy pixels of a file, of which `chunk` makes tasks that may map the file.

    This is the only way from our array to a task. All other indexing is of a user, whose results
    own their memory.

    The tasks are named after the file as it was opened. xarray names them after path,
    modification time and arguments, and for a URL only after its text. If a file was replaced
    between two openings, both would share their tasks, and one of them would silently get the
    pixels of the other.
    """

    __slots__ = ()

    def chunk(  # type: ignore[override]  # the parameters are passed on
        self,
        chunks: Any = {},  # noqa: B006  # as xarray has it
        *,
        from_array_kwargs: dict[str, Any] | None = None,
        **options: Any,
    ) -> xr.Variable:
        """Return the variable as a dask array; parameters are the same as xarray's."""
        from dask.base import tokenize

        named = dict(from_array_kwargs or {})
        if named.get("name"):
            named["name"] = f"{named['name']}-{tokenize(self._data)}"
        plain = xr.Variable(self.dims, _for_tasks(self._data), self.attrs, self.encoding)
        return plain.chunk(chunks, from_array_kwargs=named, **options)


def stack_of(variable: xr.Variable) -> StackArray | None:
    """Return the array of a file that a variable is lazily read from, before any selection."""
    found = _lazily_indexed(variable._data)
    return None if found is None else found.array


def _for_tasks(data: Any) -> Any:
    """Return lazy data whose array knows that tasks index it; any other data as they are."""
    found = _lazily_indexed(data)
    if found is None:
        return data
    return indexing.LazilyIndexedArray(replace(found.array, is_in_task=True), found.key)


def _lazily_indexed(data: Any) -> Any:
    """Return xarray's selection from a `StackArray`; None for other data."""
    inner = unwrapped(data)
    is_ours = isinstance(inner, indexing.LazilyIndexedArray)
    return inner if is_ours and isinstance(inner.array, StackArray) else None


def unwrapped(data: Any) -> Any:
    """Return lazy data, or data in memory, without xarray's caches and dask's chunks of them.

    A dask array that does more than read them is returned as it is.
    """
    if hasattr(data, "dask"):
        source = read_by(data)
        return data if source is None else unwrapped(source)
    inner = data
    while not isinstance(inner, indexing.LazilyIndexedArray) and hasattr(inner, "array"):
        inner = inner.array
    return inner


def read_by(array: Any) -> Any:
    """Return what the chunks of a dask array are read from; None if they are computed."""
    # the layer that `dask.array.from_array` makes
    name = f"original-{array.name}"
    return array.dask.layers.get(name, {}).get(name)
