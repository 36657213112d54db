"""The data to be written: as a labelled array, and as blocks for dask."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from mrc_xarray.errors import MrcError

if TYPE_CHECKING:
    import dask.array

__all__ = ["Data", "as_dask", "as_data_array", "with_leading"]

Data: TypeAlias = "xr.DataArray | xr.Dataset | npt.NDArray[Any] | dask.array.Array"

_DEFAULT_DIMS = {2: ("y", "x"), 3: ("z", "y", "x"), 4: ("volume", "z", "y", "x")}
# large enough to outweigh the cost of a task, small enough that its memory is reused
_BLOCK = 16 * 1024**2


def as_data_array(obj: Any) -> xr.DataArray:
    """Return the data as a DataArray; raise MrcError if they are not one array of known shape."""
    if isinstance(obj, xr.Dataset):
        names = list(obj.data_vars)
        if len(names) != 1:
            raise MrcError(
                f"the Dataset has the variables {names}; accepted: one, for example ds[['a']]"
            )
        data = obj[names[0]].assign_attrs(obj.attrs | obj[names[0]].attrs)
    elif isinstance(obj, xr.DataArray):
        data = obj
    else:
        array = obj if hasattr(obj, "dask") else np.asanyarray(obj)
        if isinstance(getattr(array, "_meta", None), np.ma.MaskedArray):
            raise MrcError("the data are masked, and an MRC file has no mask; fill them first")
        if array.ndim not in _DEFAULT_DIMS:
            raise MrcError(
                f"the array has the shape {array.shape}; accepted: two dimensions (an image), "
                "three (a volume) or four (a stack of volumes). Name the dimensions of other "
                "arrays with xarray.DataArray(..., dims=)"
            )
        data = xr.DataArray(array, dims=_DEFAULT_DIMS[array.ndim])
    if any(isinstance(n, float) for n in data.shape):
        raise MrcError("the data have dimensions of unknown size; compute_chunk_sizes() first")
    return data


def as_dask(data: xr.DataArray) -> dask.array.Array:
    """Return the pixels as a dask array; blocks that are made here have complete rows."""
    array: dask.array.Array
    if data.chunks is not None:
        array = data.data
        return array
    chunks = {data.dims[-1]: data.shape[-1]}
    n_rows = max(1, _BLOCK // (data.shape[-1] * data.dtype.itemsize))
    for dim in reversed(data.dims[:-1]):
        chunks[dim] = min(data.sizes[dim], n_rows)
        n_rows = max(1, n_rows // data.sizes[dim])
    # xarray has no public name for this
    if not data.variable._in_memory:
        array = data.chunk(chunks).data
        return array
    import dask.array

    array = dask.array.from_array(
        _Uncopied(data.values),
        chunks=tuple(chunks[dim] for dim in data.dims),
        # the default name is a hash of all pixels
        name=f"pixels-{uuid.uuid4().hex}",
        meta=np.empty((0,) * data.ndim, data.dtype),
    )
    return array


def with_leading(data: xr.DataArray, dim: str) -> xr.DataArray:
    """Return the data with another dimension of size 1 in front; lazy data remain lazy."""
    # xarray would load them
    is_lazy = data.chunks is None and not data.variable._in_memory
    return (data.copy(data=as_dask(data)) if is_lazy else data).expand_dims(dim)


class _Uncopied:
    """Pixels in memory, or a map of a large file: dask would copy an array when it wraps it."""

    def __init__(self, values: npt.NDArray[Any]) -> None:
        self.values = values
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim

    def __getitem__(self, key: Any) -> Any:
        return self.values[key]
