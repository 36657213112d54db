"""The data to be written: as a labelled array, and as blocks for dask."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from mrc_xarray.errors import MrcError

if TYPE_CHECKING:
    import dask.array

__all__ = [
    "Data", "as_dask", "as_data_array", "broadcast", "is_labelled", "refuse_masked",
    "with_leading",
]  # fmt: skip

Array: TypeAlias = "xr.DataArray | xr.Dataset | npt.NDArray[Any] | dask.array.Array"
#: One array, or the images of a stack.
Data: TypeAlias = "Array | Sequence[Array]"

_DEFAULT_DIMS = {2: ("y", "x"), 3: ("z", "y", "x"), 4: ("volume", "z", "y", "x")}
# large enough to outweigh the cost of a task, small enough that its memory is reused
_BLOCK = 16 * 1024**2


def as_data_array(obj: Any, *, of_any_rank: bool = False) -> xr.DataArray:
    """Return the data as a DataArray; raise MrcError if they are not one array of known shape.

    An array without labels has default names of dimensions, unless it may be `of_any_rank`.
    """
    if _is_list_of_arrays(obj):
        data = _joined(obj)
    elif isinstance(obj, xr.Dataset):
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
        refuse_masked(getattr(array, "_meta", None))
        if of_any_rank:
            return xr.DataArray(array)
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


def refuse_masked(array: Any) -> None:
    """Raise MrcError for a block of dask that is masked; NumPy's masks become NaN in xarray."""
    if isinstance(array, np.ma.MaskedArray):
        raise MrcError("the data are masked, and an MRC file has no mask; fill them first")


def is_labelled(obj: Any) -> bool:
    """Return whether the user has named the dimensions of the data."""
    part = obj[0] if isinstance(obj, list | tuple) and obj else obj
    return isinstance(part, xr.DataArray | xr.Dataset)


def _is_list_of_arrays(obj: Any) -> bool:
    """Return whether this is a list with an array, and not of the numbers of one array."""
    parts = obj if isinstance(obj, list | tuple) else ()
    return any(hasattr(part, "dtype") or is_labelled(part) for part in parts)


def _joined(parts: Sequence[Any]) -> xr.DataArray:
    """Return the images of a list as a stack, and other arrays of a list as one array.

    Raise MrcError if they differ in shape, dtype or the names of their dimensions.
    """
    names = {is_labelled(part) for part in parts}
    arrays = [as_data_array(part) if is_labelled(part) else part for part in parts]
    forms = [_form(array) for array in arrays]
    other = next((i for i, form in enumerate(forms) if form != forms[0]), 0)
    if other or len(names) > 1:
        raise MrcError(
            f"array {other} of the list is {forms[other]}, and the first is {forms[0]}; "
            "accepted: arrays of equal shape and dtype, either all with labels or all without"
        )
    if names == {True}:
        return _joined_by_label(arrays)
    if any(hasattr(array, "dask") for array in arrays):
        import dask.array

        joined: Any = dask.array.stack(arrays)
    else:
        # NumPy's own function drops masks
        is_masked = any(isinstance(array, np.ma.MaskedArray) for array in arrays)
        joined = (np.ma.stack if is_masked else np.stack)(arrays)
    is_stack = joined.ndim == 3
    return xr.DataArray(joined, dims=("image", "y", "x")) if is_stack else as_data_array(joined)


def _joined_by_label(images: Sequence[xr.DataArray]) -> xr.DataArray:
    try:
        return xr.concat(
            [_not_read(image) for image in images],
            "image",
            join="exact",
            coords="different",
            compat="equals",
            combine_attrs="override",
        )
    except ValueError as error:
        raise MrcError(f"the arrays of the list have different coordinates: {error}") from error


def _form(array: Any) -> str:
    """Return dtype, shape and the names of the dimensions, for a comparison."""
    dtype = getattr(array, "dtype", None)
    if dtype is None:
        return f"{array!r:.80}"
    named = f" with the dimensions {array.dims}" if isinstance(array, xr.DataArray) else ""
    return f"{dtype.newbyteorder('=')} of shape {array.shape}{named}"


def as_dask(data: xr.DataArray) -> dask.array.Array:
    """Return the pixels as a dask array; blocks that are made here have complete rows."""
    array: dask.array.Array
    if data.chunks is not None:
        array = data.data
        return array
    chunks = dict(zip(data.dims, _chunks(data.shape, data.dtype), strict=True))
    # xarray has no public name for this
    if not data.variable._in_memory:
        array = data.chunk(chunks).data
        return array
    import dask.array

    array = dask.array.from_array(
        _Uncopied(data.values),
        chunks=tuple(chunks.values()),
        # the default name is a hash of all pixels
        name=f"pixels-{uuid.uuid4().hex}",
        meta=np.empty((0,) * data.ndim, data.dtype),
    )
    return array


def _chunks(shape: Sequence[int], dtype: np.dtype[Any]) -> list[int]:
    """Return the sizes of blocks with complete rows."""
    *outer, n_columns = shape
    chunks, n_rows = [n_columns], max(1, _BLOCK // (n_columns * dtype.itemsize))
    for n in reversed(outer):
        chunks.insert(0, min(n, n_rows))
        n_rows = max(1, n_rows // n)
    return chunks


def broadcast(data: xr.DataArray, sizes: Mapping[str, int]) -> xr.DataArray:
    """Return the data with the dimensions of `sizes`, in this order; lazy data remain lazy."""
    shape, dims = tuple(sizes.values()), [dim for dim in sizes if dim in data.dims]
    key = tuple(slice(None) if dim in dims else None for dim in sizes)
    if 0 in shape or (data.chunks is None and (not data.ndim or data.variable._in_memory)):
        values = data.transpose(*dims).values[key]
        return xr.DataArray(np.broadcast_to(values, shape), dims=tuple(sizes))
    import dask.array

    lazy = as_dask(data).transpose([data.dims.index(dim) for dim in dims])[key]
    # the blocks of new dimensions would be as large as these
    new = _chunks(shape, data.dtype)
    chunks = tuple(
        old if size == n else part
        for old, size, n, part in zip(lazy.chunks, lazy.shape, shape, new, strict=True)
    )
    return xr.DataArray(dask.array.broadcast_to(lazy, shape, chunks=chunks), dims=tuple(sizes))


def with_leading(data: xr.DataArray, dim: str) -> xr.DataArray:
    """Return the data with another dimension of size 1 in front; lazy data remain lazy."""
    return _not_read(data).expand_dims(dim)


def _not_read(data: xr.DataArray) -> xr.DataArray:
    """Return data that are in memory or in dask: xarray would load others for many operations."""
    is_lazy = data.chunks is None and not data.variable._in_memory
    return data.copy(data=as_dask(data)) if is_lazy else data


class _Uncopied:
    """Pixels in memory, or a map of a large file: dask would copy an array when it wraps it."""

    def __init__(self, values: npt.NDArray[Any]) -> None:
        self.values = values
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim

    def __getitem__(self, key: Any) -> Any:
        return self.values[key]
