"""The graph of tasks that writes a file, for threads or for the workers of a cluster."""

from __future__ import annotations

import uuid
from dataclasses import replace
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
    write_block,
)

if TYPE_CHECKING:
    import dask.array
    from dask.delayed import Delayed

__all__ = ["client_of_user", "write_task"]

# chunks are joined up to this size
_CHUNK = 16 * 1024**2
# writing a shorter run of bytes takes less time than the call does
_SHORTEST_RUN = 16 * 1024
# partial results that one task joins
_JOINED = 64


def write_task(plan: Plan, array: dask.array.Array, *, is_begun: bool) -> Delayed:
    """Return the task that completes the file, with all tasks that it needs.

    `is_begun` is whether the caller has called `begin`. Otherwise the first task does.
    """
    from dask.delayed import delayed

    is_plain = plan.compressor is None
    blocks = _blocks_of_rows(plan, array) if is_plain else _blocks_of_sections(plan, array)
    complete = replace(plan, chunks=blocks.chunks)
    # a unique name: two writes of the same data to the same file are two tasks
    begun = delayed(complete, name=f"plan-{uuid.uuid4().hex}", traverse=False)
    if not is_begun:
        begun = delayed(begin)(begun)
    finished: Delayed = (
        delayed(finish_plain)(begun, _statistics(blocks, begun))
        if is_plain
        else delayed(finish_mrcz)(begun, _appended(blocks, begun))
    )
    return finished


def client_of_user() -> Any:
    """Return the distributed client that dask uses by default, or None."""
    try:
        from distributed import default_client

        return default_client()
    except (ImportError, ValueError):
        return None


def _statistics(array: dask.array.Array, begun: Delayed) -> Delayed:
    """Write every block in its place, and join the statistics as a tree."""
    from dask.delayed import delayed

    blocks = _fused(_map(write_block, array, plan=begun))
    joined = blocks.to_delayed(optimize_graph=False).ravel().tolist()
    while len(joined) > _JOINED:
        groups = [joined[i : i + _JOINED] for i in range(0, len(joined), _JOINED)]
        joined = [delayed(join)(group) for group in groups]
    measured: Delayed = delayed(join)(joined)
    return measured


def _appended(array: dask.array.Array, begun: Delayed) -> Delayed:
    """Compress blocks in parallel, and append them to the file one after the other.

    An append needs only the end of the previous one, so a worker writes the blocks that it
    compressed. A block waits until the block one window ahead of it is in the file, so that
    compressed blocks don't accumulate.
    """
    from dask.delayed import Delayed

    turns, previous = _placeholders(array), _placeholders(array)
    compressed = _fused(_map(compress_block, array, turns, plan=begun))
    appended = _map(append_blocks, compressed, previous, plan=begun)
    # both placeholders become other names of appends. map_blocks can't refer to its own result
    graph = dict(appended.__dask_graph__())
    indices = list(np.ndindex(array.numblocks))
    window = 2 * _n_threads() + 2
    for placeholder, distance in ((previous, 1), (turns, window)):
        for index, earlier in zip(indices[distance:], indices, strict=False):
            graph[(placeholder.name, *index)] = (appended.name, *earlier)
    return Delayed((appended.name, *indices[-1]), graph)


def _map(function: Any, *arrays: dask.array.Array, plan: Delayed) -> dask.array.Array:
    """Map a function over the blocks of arrays; its result is one object per block."""
    import dask.array

    mapped: dask.array.Array = dask.array.map_blocks(
        function,
        *arrays,
        plan=plan,
        dtype=object,
        chunks=_one_per_block(arrays[0]),
        meta=np.empty((0,) * arrays[0].ndim, object),
    )
    return mapped


def _fused(mapped: dask.array.Array) -> dask.array.Array:
    """Fuse the task of each block with the tasks that make the block."""
    from dask.base import optimize

    # a single block would be fused with `begin`, which other tasks need too and would run again
    if mapped.npartitions == 1:
        return mapped
    fused: dask.array.Array = optimize(mapped)[0]
    return fused


def _placeholders(array: dask.array.Array) -> dask.array.Array:
    """Return an array with None for each block of another."""
    import dask.array

    name = f"placeholder-{uuid.uuid4().hex}"
    graph = dict.fromkeys((name, *index) for index in np.ndindex(array.numblocks))
    return dask.array.Array(graph, name, chunks=_one_per_block(array), dtype=object)


def _one_per_block(array: dask.array.Array) -> tuple[tuple[int, ...], ...]:
    return tuple((1,) * n for n in array.numblocks)


def _blocks_of_rows(plan: Plan, array: dask.array.Array) -> dask.array.Array:
    """Join chunks whose rows can't be written in parts, or only in runs that are too short."""
    columns = plan.n_leading + 1
    pixel = prod(array.shape[columns + 1 :]) * array.dtype.itemsize
    is_narrow = max(array.chunks[columns]) * pixel < _SHORTEST_RUN
    # two pixels of 4 bits share a byte
    if plan.mode.is_packed or (is_narrow and array.numblocks[columns] > 1):
        return _with_complete(array, range(columns, array.ndim))
    joined: dask.array.Array = array.rechunk(dict.fromkeys(range(columns + 1, array.ndim), -1))
    return joined


def _blocks_of_sections(plan: Plan, array: dask.array.Array) -> dask.array.Array:
    """Join and split chunks, so that each has consecutive complete sections."""
    complete = _with_complete(array, range(plan.n_leading, array.ndim))
    if plan.n_leading < 2:
        return complete
    chunks = {}
    n_sections = prod(max(sizes) for sizes in complete.chunks[: plan.n_leading])
    for axis in reversed(range(plan.n_leading)):
        chunks[axis] = max(1, min(complete.shape[axis], n_sections))
        n_sections //= complete.shape[axis]
    in_order: dask.array.Array = complete.rechunk(chunks)
    return in_order


def _with_complete(array: dask.array.Array, axes: range) -> dask.array.Array:
    """Join chunks along the last axes, and split them along the others to preserve their size."""
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


def _n_threads() -> int:
    """Return how many tasks can run at the same time."""
    client = client_of_user()
    return (sum(client.nthreads().values()) if client else 0) or cores()
