"""The graph of tasks that write a file: for threads, or for the workers of a cluster."""

from __future__ import annotations

import uuid
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from mrc_xarray.storage.base import cores
from mrc_xarray.writing.plan import (
    Plan,
    append_blocks,
    begin,
    compress_block,
    finish_mrcz,
    finish_plain,
    join,
    turn,
    write_block,
)

if TYPE_CHECKING:
    import dask.array
    from dask.delayed import Delayed

__all__ = ["written"]

_MiB = 1024**2
# chunks are joined up to this size
_CHUNK = 16 * _MiB
# writing a shorter run of bytes takes less time than the call does
_LEAST_RUN = 16 * 1024
# partial results that one task joins
_JOINED = 64


def written(plan: Plan, array: dask.array.Array, *, is_begun: bool) -> Delayed:
    """Return the task that completes the file, with all that it needs.

    Parameters
    ----------
    plan : Plan
    array : dask array
        The data, of the plan's number of dimensions.
    is_begun : bool
        Whether the caller has called `begin` and holds the lock. Otherwise the first task does so.
    """
    from dask.delayed import Delayed, delayed
    from dask.highlevelgraph import HighLevelGraph

    # no two writes are the same, even of the same data to the same file
    token = uuid.uuid4().hex
    begun = delayed(plan, name=f"plan-mrc-{token}", traverse=False)
    if not is_begun:
        begun = delayed(begin)(begun, dask_key_name=f"begin-mrc-{token}")
    make, finish = (
        (_plain, finish_plain) if plan.compressor is None else (_compressed, finish_mrcz)
    )
    graph, last = make(plan, array, begun, token)
    name = f"to-mrc-{token}"
    graph[name] = (finish, begun.key, last)
    return Delayed(name, HighLevelGraph.from_collections(name, graph, dependencies=()))


def _plain(
    plan: Plan, array: dask.array.Array, begun: Delayed, token: str
) -> tuple[dict[Any, Any], Any]:
    """Write every block at its own place, and join the statistics as a tree."""
    from dask.base import optimize
    from dask.core import flatten

    pixel = prod(array.shape[plan.n_leading + 2 :]) * array.dtype.itemsize
    narrow = max(array.chunks[plan.n_leading + 1]) * pixel < _LEAST_RUN
    if plan.mode.is_packed or (narrow and array.numblocks[plan.n_leading + 1] > 1):
        # packed pixels share a byte, and short runs cost a call each
        array = _with_whole(array, range(plan.n_leading + 1, array.ndim))
    elif plan.mode.samples:
        array = array.rechunk({array.ndim - 1: -1})
    blocks = _by_block(write_block, array, begun, f"write-mrc-{token}")
    (blocks,) = optimize(blocks)
    graph = dict(blocks.__dask_graph__())
    keys = list(flatten(blocks.__dask_keys__()))
    level = 0
    while len(keys) > 1 or not level:
        joined = {
            (f"join-mrc-{token}", level, i): (join, keys[i * _JOINED : (i + 1) * _JOINED])
            for i in range(-(-len(keys) // _JOINED))
        }
        graph |= joined
        keys, level = list(joined), level + 1
    return graph, keys[0]


def _compressed(
    plan: Plan, array: dask.array.Array, begun: Delayed, token: str
) -> tuple[dict[Any, Any], Any]:
    """Compress blocks of whole sections side by side, and append them one after the other.

    An append needs the place where the one before it ended, and no more: blocks are written by
    the worker that compressed them. A block is not begun before the one some way ahead of it is
    in the file, so that compressed blocks don't pile up.
    """
    import dask.array
    from dask.base import optimize
    from dask.core import flatten
    from dask.highlevelgraph import HighLevelGraph

    array = _with_whole(array, range(plan.n_leading, array.ndim))
    array = array.rechunk(_one_after_the_other(array, plan.n_leading))
    # placeholders, which get their tasks when the rest is optimised
    name = f"turn-mrc-{token}"
    indices = list(np.ndindex(array.numblocks))
    turns = dask.array.Array(
        HighLevelGraph.from_collections(
            name, {(name, *index): np.zeros((1,) * array.ndim) for index in indices}, ()
        ),
        name,
        chunks=tuple((1,) * n for n in array.numblocks),
        dtype=float,
    )
    blocks = _by_block(compress_block, array, begun, f"compress-mrc-{token}", turns)
    (blocks,) = optimize(blocks)
    graph = dict(blocks.__dask_graph__())
    window = 2 * _n_threads() + 2
    appended: list[Any] = []
    keys = flatten(blocks.__dask_keys__())
    for i, (index, key) in enumerate(zip(indices, keys, strict=True)):
        append = (f"append-mrc-{token}", i)
        graph[append] = (append_blocks, begun.key, key, appended[-1] if appended else None)
        if i >= window:
            graph[(name, *index)] = (turn, appended[i - window])
        appended.append(append)
    return graph, appended[-1]


def _by_block(
    function: Any, array: dask.array.Array, begun: Delayed, name: str, *others: dask.array.Array
) -> dask.array.Array:
    """Map a function over the blocks of an array; what it returns is one object a block."""
    import dask.array
    from dask.delayed import delayed

    edges = tuple(np.cumsum([0, *sizes], dtype=np.int64) for sizes in array.chunks)
    mapped: dask.array.Array = dask.array.map_blocks(
        function,
        array,
        *others,
        plan=begun,
        # one object that is sent once, and not numbers in each of many tasks
        edges=delayed(edges, name=f"edges-{name}", traverse=False),
        name=name,
        dtype=object,
        chunks=tuple((1,) * n for n in array.numblocks),
        meta=np.empty((0,) * array.ndim, object),
    )
    return mapped


def _with_whole(array: dask.array.Array, axes: range) -> dask.array.Array:
    """Join chunks along some axes, and cut them along those before, to keep their size."""
    if all(array.numblocks[axis] == 1 for axis in axes):
        return array
    chunk = [max(sizes) for sizes in array.chunks]
    limit = max(prod(chunk) * array.dtype.itemsize, _CHUNK)
    chunks: dict[int, int] = {axis: array.shape[axis] for axis in axes}
    size = prod({**dict(enumerate(chunk)), **chunks}.values()) * array.dtype.itemsize
    for axis in range(axes.start):
        if size > limit:
            chunks[axis] = max(1, chunk[axis] * limit // size)
            size = size * chunks[axis] // chunk[axis]
    joined: dask.array.Array = array.rechunk(chunks)
    return joined


def _one_after_the_other(array: dask.array.Array, n_leading: int) -> dict[int, int]:
    """Return chunks whose sections follow each other in the file, no larger than they are."""
    if n_leading < 2:
        return {}
    chunks = {}
    n_sections = prod(max(sizes) for sizes in array.chunks[:n_leading])
    for axis in reversed(range(n_leading)):
        chunks[axis] = max(1, min(array.shape[axis], n_sections))
        n_sections //= array.shape[axis]
    return chunks


def _n_threads() -> int:
    """Return how many tasks can run at once."""
    try:
        from distributed import default_client

        return sum(default_client().nthreads().values()) or cores()
    except (ImportError, ValueError):
        return cores()
