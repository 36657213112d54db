"""Labels that a header has no field for, stored as JSON in the file.

Another program may have written anything there. What does not fit the pixels is ignored.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from mrc_xarray.labels.attributes import OWN_ATTRS, printable_attrs
from mrc_xarray.text import printable

__all__ = ["StoredLabels", "values_from_json", "values_to_json"]

# the limit of NumPy 1; with more coordinates, xarray needs seconds to create a Dataset
_MOST_DIMS, _MOST_COORDS = 32, 500
# characters of all texts, each as long as the longest
_MOST_CHARACTERS = 2**22
# what `values_to_json` writes; an element of another dtype may be of any size
_STORED_DTYPE = re.compile(
    r"u?int(8|16|32|64)|float(16|32|64)|complex(64|128)|bool|str"
    r"|(datetime|timedelta)64\[[a-zA-Zμ]+\]"
)


@dataclass(frozen=True, kw_only=True)
class StoredLabels:
    """Labels of the pixels: dimensions and their sizes, coordinates, attributes."""

    sizes: dict[str, int]
    coords: dict[str, xr.Variable]
    attrs: dict[str, Any]

    @classmethod
    def parse(cls, stored: Any, sections_shape: tuple[int, ...]) -> StoredLabels | None:
        """Decode labels; return None if they are malformed or do not fit the pixels."""
        if not isinstance(stored, dict):
            return None
        try:
            return cls._parse(stored, sections_shape)
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError, RecursionError):
            return None

    @classmethod
    def _parse(cls, stored: dict[str, Any], sections_shape: tuple[int, ...]) -> StoredLabels:
        dims = [_name(dim) for dim in stored["dims"]]
        shape = list(map(int, stored["shape"]))
        n_leading = len(dims) - (len(sections_shape) - 1)
        fits = (
            len(shape) == len(dims) == len(set(dims)) <= _MOST_DIMS
            and n_leading >= 0
            and math.prod(shape[:n_leading]) == sections_shape[0]
            and tuple(shape[n_leading:]) == sections_shape[1:]
            and min(shape) > 0
            and not {"data", "section"} & set(dims)
            and len(stored["coords"]) <= _MOST_COORDS
        )
        if not fits:
            raise ValueError("the labels do not fit the pixels")
        sizes = dict(zip(dims, shape, strict=True))
        coords = {
            _name(name): coord
            for name, found in stored["coords"].items()
            if (coord := _coordinate(_name(name), found, sizes)) is not None
        }
        attrs = printable_attrs(stored["attrs"])
        others = {name: value for name, value in attrs.items() if name not in OWN_ATTRS}
        return cls(sizes=sizes, coords=coords, attrs=others)


def _coordinate(name: str, stored: dict[str, Any], sizes: dict[str, int]) -> xr.Variable | None:
    values = values_from_json(stored["data"], stored["dtype"])
    dims = tuple(map(_name, stored["dims"]))
    fits = len(set(dims)) == len(dims) and values.shape == tuple(sizes[dim] for dim in dims)
    # in xarray, a coordinate with the name of a dimension must be along this dimension
    if not fits or name == "data" or (name in sizes and dims != (name,)):
        return None
    return xr.Variable(dims, values, printable_attrs(stored["attrs"]))


def _name(stored: Any) -> str:
    """Return the name of a dimension or coordinate without control characters."""
    if not isinstance(stored, str):
        raise TypeError(f"{type(stored).__name__} instead of a name")
    return printable(stored)


def values_to_json(values: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Return the values of an array as JSON can store them, and its dtype; objects as text."""
    dtype = values.dtype.newbyteorder("=")
    data = values.astype(dtype)
    if dtype.kind == "m":
        data = data.view(np.int64)
    elif dtype.kind == "M":
        data = data.astype(str)
    elif dtype.kind == "c":
        data = np.stack([data.real, data.imag], axis=-1)
    elif not _STORED_DTYPE.fullmatch(str(dtype)):
        texts = np.array([str(value) for value in values.reshape(-1)], dtype=str)
        return {"dtype": "str", "data": texts.reshape(values.shape).tolist()}
    return {"dtype": str(dtype), "data": data.tolist()}


def values_from_json(data: Any, dtype: str) -> np.ndarray[Any, Any]:
    """Return the array that `values_to_json` stored."""
    if not _STORED_DTYPE.fullmatch(dtype):
        raise ValueError(f"dtype is {dtype!r}")
    wanted = np.dtype(dtype)
    with np.errstate(all="ignore"):
        if wanted.kind == "m":
            return np.array(data, np.int64).view(wanted)
        if wanted.kind == "c":
            pairs = np.array(data, np.float64)
            return (pairs[..., 0] + 1j * pairs[..., 1]).astype(wanted)
        if wanted.kind == "U":
            # every element has the length of the longest
            texts = np.array(data, object)
            longest = max((len(str(text)) for text in texts.reshape(-1)), default=0)
            if longest * texts.size > _MOST_CHARACTERS:
                raise ValueError(f"{texts.size} texts of up to {longest} characters")
        if wanted.kind in "iu":
            # NumPy 1 only warns of integers that are out of range
            limits, integers = np.iinfo(wanted), np.array(data, object).reshape(-1).tolist()
            if not all(limits.min <= integer <= limits.max for integer in integers):
                raise ValueError(f"integers out of the range of {wanted}")
        return np.array(data, wanted)
