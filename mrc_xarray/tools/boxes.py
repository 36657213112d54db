"""Lazy boxes of an array: each is a chunk, which reads its own voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr
from xarray.core.indexing import ImplicitToExplicitIndexingAdapter

from mrc_xarray.pixels.variable import read_by

if TYPE_CHECKING:
    import dask.array

__all__ = ["lazy_boxes"]

Array: TypeAlias = npt.NDArray[Any]
Starts: TypeAlias = npt.NDArray[np.int64]

# so many boxes have a chunk each; of more, small ones share chunks of this size
_MOST_CHUNKS = 10_000
_CHUNK = 1024**2


def lazy_boxes(data: xr.Variable, starts: Starts, sizes: Sequence[int], fill: Any) -> Any:
    """Return boxes of an array as a dask array.

    Parameters
    ----------
    data : Variable
        Of any kind: a lazy file, dask or NumPy.
    starts : ndarray of int64, shape (n, data.ndim)
        The first index of each box, which may be outside of the data.
    sizes : sequence of int
        The shape of a box.
    fill : scalar
        The value of voxels outside of the data.

    Returns
    -------
    dask Array, shape (n, *sizes)
        A chunk has one box. Of more than 10,000 boxes it has as many as fit in 1 MiB.
    """
    from dask.array import from_array
    from dask.base import tokenize

    n, nbytes = len(starts), prod(sizes) * data.dtype.itemsize
    per_chunk = 1 if n <= _MOST_CHUNKS else max(1, _CHUNK // nbytes)
    name = f"boxes-{tokenize(data._data, starts, tuple(sizes), fill)}"
    # a file that dask reads is read in chunks that are larger than the boxes
    array = data if data.chunks is None else read_by(data.data)
    if not isinstance(array, xr.Variable | ImplicitToExplicitIndexingAdapter):
        return _from_chunks(data.data, starts, sizes, fill, per_chunk, name)
    boxes = _Boxes(array=array, starts=starts, sizes=tuple(sizes), fill=fill, dtype=data.dtype)
    chunks = (per_chunk, *sizes)
    meta = np.empty((0,) * boxes.ndim, data.dtype)
    return from_array(boxes, chunks=chunks, name=name, meta=meta)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Boxes:
    """What dask takes for an array of boxes, which are read when it is indexed."""

    array: Any
    starts: Starts
    sizes: tuple[int, ...]
    fill: Any
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.starts), *self.sizes

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, key: tuple[Any, ...]) -> Array:
        slices = [k if isinstance(k, slice) else slice(k, k + 1) for k in key]
        picked = [range(n)[part] for n, part in zip(self.shape, slices, strict=True)]
        first = [min(indices, default=0) for indices in picked]
        n, *sizes = (max(i, default=-1) + 1 - at for i, at in zip(picked, first, strict=True))
        starts = self.starts[first[0] : first[0] + n] + np.array(first[1:], np.int64)
        origin = [0] * len(sizes)
        found = _assembled([self.array], [origin], starts, sizes, self.fill, self.dtype)
        rest = (slice(None, None, k.step) if isinstance(k, slice) else 0 for k in key)
        selected: Array = found[tuple(rest)]
        return selected


def _assembled(
    blocks: Sequence[Any],
    origins: Sequence[Sequence[int]],
    starts: Starts,
    sizes: Sequence[int],
    fill: Any,
    dtype: np.dtype[Any],
) -> Array:
    """Return boxes from the blocks of an array, which begin at `origins`."""
    found = np.full((len(starts), *sizes), fill, dtype)
    for block, origin in zip(blocks, origins, strict=True):
        ends = np.add(origin, block.shape)
        first, stop = np.maximum(starts, origin), np.minimum(starts + sizes, ends)
        for i in np.flatnonzero((first < stop).all(axis=1)).tolist():
            box = found[i]
            part = tuple(map(slice, first[i] - origin, stop[i] - origin))
            box[tuple(map(slice, first[i] - starts[i], stop[i] - starts[i]))] = block[part]
    return found


def _from_chunks(
    array: dask.array.Array,
    starts: Starts,
    sizes: Sequence[int],
    fill: Any,
    per_chunk: int,
    name: str,
) -> dask.array.Array:
    """Return boxes from the chunks of a dask array; a chunk is computed once for all of them."""
    from dask.array import Array
    from dask.highlevelgraph import HighLevelGraph

    edges = [np.cumsum((0, *chunks)) for chunks in array.chunks]
    ranges = _block_ranges(starts, sizes, edges)
    tasks: dict[Any, Any] = {}
    counts = []
    for i, at in enumerate(range(0, max(1, len(starts)), per_chunk)):
        some = starts[at : at + per_chunk]
        blocks = _blocks(ranges[at : at + per_chunk])
        origins = [[int(e[b]) for e, b in zip(edges, block, strict=True)] for block in blocks]
        keys = [(array.name, *block) for block in blocks]
        key = (name, i, *(0 for _ in sizes))
        tasks[key] = (_assembled, keys, origins, some, list(sizes), fill, array.dtype)
        counts.append(len(some))
    needed: Any = [array]  # dask's protocol of a collection does not accept its own arrays
    graph = HighLevelGraph.from_collections(name, tasks, dependencies=needed)
    chunks = (tuple(counts), *((n,) for n in sizes))
    return Array(graph, name, chunks, meta=np.empty((0,) * (1 + len(sizes)), array.dtype))


def _block_ranges(starts: Starts, sizes: Sequence[int], edges: Sequence[Array]) -> Array:
    """Return the numbers of the blocks that boxes have voxels of.

    Shape (n, number of dimensions, 2): the first block, and the one after the last.
    """
    along = [
        (np.searchsorted(ends[1:], at, "right"), np.searchsorted(ends[:-1], at + size, "left"))
        for at, size, ends in zip(starts.T, sizes, edges, strict=True)
    ]
    return np.moveaxis(np.array(along), -1, 0)


def _blocks(ranges: Array) -> list[tuple[int, ...]]:
    """Return the numbers of all blocks in some ranges, each once."""
    different = [ranges[0]] if len(ranges) == 1 else np.unique(ranges, axis=0)
    found = {block for each in different for block in product(*(range(*r) for r in each.tolist()))}
    return sorted(found)
