"""The chunks to offer to dask."""

from __future__ import annotations

from math import prod

from mrc_xarray.pixels.array import StackArray
from mrc_xarray.storage.base import MiB

__all__ = ["preferred_chunks"]

# of pixels that a task maps, which take no memory; in pixels, as tasks often make floats of them
_MAPPED_PIXELS = 32 * MiB
_MAPPED_BYTES = 128 * MiB
# of pixels that a task reads: above this, new pages of memory cost more than the read
_READ_BYTES = 16 * MiB
# the preferred chunks of a larger section are bands of rows
_LARGE_SECTION = 128 * MiB
# dask needs about a second to plan so many tasks
_MOST_CHUNKS = 100_000


def preferred_chunks(dims: tuple[str, ...], array: StackArray) -> dict[str, int]:
    """Return the chunks to offer to dask: as many complete sections as fit, or one.

    They have up to 32 Mi pixels and 128 MiB where tasks can map them, and 16 MiB elsewhere.

    Of uncompressed sections only the dimensions that are cut are named: those that count sections,
    and the rows of a very large section. Chunks along another dimension are the choice of the
    user, without a warning. If a header promises an enormous number of sections, the chunks are
    larger, as each is a task of dask.
    """
    n_leading = len(array.leading)
    section = prod(array.shape[n_leading:]) * array.dtype.itemsize
    chunk = _READ_BYTES
    if array.is_mapped_by_tasks:
        chunk = min(_MAPPED_PIXELS * array.dtype.itemsize, _MAPPED_BYTES)
    n_left = max(1, chunk // section)
    chunks: dict[str, int] = {}
    for dim, n in zip(reversed(dims[:n_leading]), reversed(array.leading), strict=True):
        chunks[dim] = min(n, n_left)
        n_left = max(1, n_left // n)
    sizes = dict(zip(dims, array.shape, strict=True))
    if array.sections.is_compressed:
        # a chunk that cuts blocks decodes them more than once: xarray warns about it
        chunks |= {dim: sizes[dim] for dim in dims[n_leading:]}
    else:
        if section > _LARGE_SECTION:
            rows = dims[n_leading]
            chunks[rows] = max(1, chunk // (section // sizes[rows]))
        # xarray warns if a user cuts a dimension that is named
        chunks = {dim: n for dim, n in chunks.items() if n < sizes[dim]}
    chunks = {dim: chunks[dim] for dim in dims if dim in chunks}
    # the fastest dimensions first, as chunks of complete sections are best
    for dim in reversed(chunks):
        n_along = -(-sizes[dim] // chunks[dim])
        n_chunks = prod(-(-sizes[other] // size) for other, size in chunks.items())
        if n_chunks > _MOST_CHUNKS:
            chunks[dim] = -(-sizes[dim] // max(1, n_along * _MOST_CHUNKS // n_chunks))
    return chunks
