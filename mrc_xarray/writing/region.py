"""Regions of a file: the positions along each dimension that are filled with data."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from mrc_xarray.errors import MrcError
from mrc_xarray.writing.arrays import broadcast

__all__ = ["Index", "Region", "consecutive"]

#: Positions in the file along one dimension.
Index: TypeAlias = "range | npt.NDArray[np.intp]"


@dataclass(frozen=True)
class Region:
    """A part of a file, selected along each dimension by itself, as ``isel`` of xarray selects.

    Attributes
    ----------
    name : str
        Of the file, for messages.
    places : dict
        The positions along each dimension of the file.
    integers : frozenset of str
        The dimensions that are selected by an integer. Data need not have them.
    """

    name: str
    places: dict[str, Index]
    integers: frozenset[str]

    @classmethod
    def of(cls, keys: Mapping[str, Any], sizes: Mapping[str, int], name: str) -> Self:
        """Raise MrcError if a key is not a selection from a file with dimensions of `sizes`."""
        if unknown := [str(dim) for dim in keys if dim not in sizes]:
            raise MrcError(
                f"{name}: region has the dimensions {', '.join(unknown)}; accepted: "
                f"{', '.join(sizes)}"
            )
        places = {
            dim: _index(keys.get(dim, slice(None)), n, f"{name}: region[{dim!r}]")
            for dim, n in sizes.items()
        }
        return cls(
            name, places, frozenset(d for d, key in keys.items() if _integer(key) is not None)
        )

    def filled_with(self, data: xr.DataArray, *, is_labelled: bool) -> xr.DataArray:
        """Return the data with all dimensions of the file, broadcast to the region.

        Labelled data are broadcast by the names of their dimensions, and other data by NumPy's
        rule. Raise MrcError if their shape is another.
        """
        named = data if is_labelled else self._named(data)
        if others := [str(dim) for dim in named.dims if dim not in self.places]:
            raise MrcError(
                f"{self.name}: the data have the dimensions "
                f"({', '.join(map(str, named.dims))}), and the file has "
                f"({', '.join(self.places)}): {', '.join(others)} is not one of them"
            )
        sizes = {dim: len(index) for dim, index in self.places.items()}
        for dim, n in named.sizes.items():
            is_one = n == 1 and (not is_labelled or dim in self.integers)
            if n != sizes[str(dim)] and not is_one:
                raise MrcError(
                    f"{self.name}: the data have {n} along {dim}, and the region has "
                    f"{sizes[str(dim)]}; they must be the same"
                )
        return broadcast(named, sizes)

    def _named(self, data: xr.DataArray) -> xr.DataArray:
        """Return data without labels with the names of the last dimensions of the region."""
        dims = [dim for dim in self.places if dim not in self.integers]
        if data.ndim == len(self.places):
            dims = list(self.places)
        n_surplus = max(0, data.ndim - len(dims))
        if any(n != 1 for n in data.shape[:n_surplus]):
            shape = tuple(len(self.places[dim]) for dim in dims)
            raise MrcError(
                f"{self.name}: the data have the shape {data.shape}, and the region has the shape "
                f"{shape} ({', '.join(dims)}); accepted: the same, or one that NumPy broadcasts "
                "to it"
            )
        surplus = data.isel(dict.fromkeys(data.dims[:n_surplus], 0))
        names = dims[len(dims) - surplus.ndim :]
        return xr.DataArray(surplus.variable._replace(dims=tuple(names)))


def consecutive(index: Index) -> Iterator[tuple[slice, int]]:
    """Yield the parts of positions that follow each other, each with its first position."""
    numbers = np.asarray(index[:1] if isinstance(index, range) and index.step == 1 else index)
    edges = [0, *(np.flatnonzero(np.diff(numbers) != 1) + 1).tolist(), len(index)]
    for start, stop in itertools.pairwise(edges):
        if start < stop:
            yield slice(start, stop), int(numbers[start])


def _integer(key: Any) -> int | None:
    """Return a key that is one integer, also as an array without dimensions, and else None."""
    if isinstance(key, bool) or np.ndim(key):
        return None
    try:
        return operator.index(np.asarray(key)[()])
    except TypeError:
        return None


def _index(key: Any, n: int, where: str) -> Index:
    """Return the positions that a key selects from `n`; raise MrcError if it is no such key."""
    if (integer := _integer(key)) is not None:
        return _checked(np.array([integer]), n, key, where)
    if not isinstance(key, slice):
        return _of_array(key, n, where)
    try:
        bounds = [operator.index(at) for at in (key.start, key.stop) if at is not None]
        selected = range(n)[key]
    except (TypeError, ValueError) as error:
        raise MrcError(f"{where} is {key!r}: {error}") from error
    if any(not -n <= at <= n for at in bounds):
        raise MrcError(f"{where} is {key!r}; accepted: positions within the file, which has {n}")
    return selected


def _of_array(key: Any, n: int, where: str) -> Index:
    found = np.asarray(key)
    if found.ndim == 1 and found.dtype.kind == "b" and len(found) == n:
        return np.flatnonzero(found)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        shown = f"a mask of {len(found)}" if found.dtype.kind == "b" and found.ndim else repr(key)
        raise MrcError(
            f"{where} is {shown:.200}; accepted: an integer, a slice, a boolean mask of {n}, or a "
            "list of integers"
        )
    return _checked(found.astype(np.intp), n, key, where)


def _checked(numbers: npt.NDArray[np.intp], n: int, key: object, where: str) -> Index:
    """Return positions counted from the start; raise MrcError if one is not in the file."""
    if ((numbers < -n) | (numbers >= n)).any():
        raise MrcError(f"{where} is {key!r:.200}; accepted: {-n} to {n - 1}")
    positions = numbers % n
    if len(np.unique(positions)) < len(positions):
        raise MrcError(f"{where} is {key!r:.200}; accepted: each position only once")
    return positions
