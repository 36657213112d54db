"""The lazy array: from an xarray key to byte ranges to an ndarray."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from mrc_xarray.pixels.sections import Pick, Piece, Sections, is_whole, picked_numbers
from mrc_xarray.storage import ByteSource, StreamSource
from mrc_xarray.storage.base import cores

__all__ = ["StackArray", "StackVariable", "preferred_chunks"]

Array: TypeAlias = npt.NDArray[Any]

_MiB = 1024**2
# a task of this size is past the cost of a task, and its memory is still used again and again
_CHUNK = 16 * _MiB
# a view of a map takes no memory, so that fewer and larger tasks are better
_MAPPED_CHUNK = 64 * _MiB
# a section above this is offered in bands of rows
_LARGE_SECTION = 128 * _MiB
# dask needs about a second to plan so many tasks
_MOST_CHUNKS = 100_000
# each thread keeps this much to decode from
_KEPT = 8 * _MiB
# below this, starting threads costs more than they save
_THREADED = 32 * _MiB
_THREADED_DECODING = 4 * _MiB


class StackArray(BackendArray):
    """The pixels of one file, read when they are asked for.

    It holds no handle, no map and no lock, and can be pickled.

    Parameters
    ----------
    source : ByteSource
    sections : Sections
        Where the rows are in the file.
    leading : tuple of int
        Sizes of the dimensions that the sections are folded into; empty for one image.
    mmap : bool
        Whether to return views of a map where that can be.
    frame_index : ndarray of int64, shape `leading`, optional
        The section at each position of `leading`, -1 where there is none; by default they are
        in its order.

    Attributes
    ----------
    shape : tuple of int, (*leading, n_rows, n_columns, *samples)
    dtype : numpy.dtype
        In the machine's byte order.
    """

    def __init__(
        self,
        source: ByteSource,
        sections: Sections,
        leading: tuple[int, ...],
        mmap: bool = False,
        frame_index: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self.source = source
        self.sections = sections
        self.leading = leading
        self.mmap = mmap
        self.frame_index = frame_index
        self.shape = (*leading, *sections.shape[1:])
        self.dtype = sections.dtype

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        from dask.base import normalize_token

        return normalize_token(  # type: ignore[no-any-return]
            (
                type(self).__qualname__,
                self.source,
                self.sections,
                self.leading,
                self.mmap,
                self.frame_index,
            )
        )

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Array:
        result: Array = indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self.read
        )
        return result

    async def async_getitem(self, key: indexing.ExplicitIndexer) -> Array:
        """Read in a thread, since neither files nor decoders can wait asynchronously."""
        return await asyncio.to_thread(self.__getitem__, key)

    def read(self, key: tuple[Any, ...]) -> Array:
        """Return the outer selection `key`, of ints, forward slices and sorted arrays."""
        n_leading = len(self.leading)
        picks = [_as_pick(k, n) for k, n in zip(key, self.shape, strict=True)]
        shape = tuple(_length(pick, n) for pick, n in zip(picks, self.shape, strict=True))
        dropped = tuple(axis for axis, k in enumerate(key) if isinstance(k, int | np.integer))
        view = self._view(picks, shape)
        if view is None:
            if isinstance(self.source, StreamSource):
                self.source.prepare(prod(shape) * self.dtype.itemsize)
            result = np.empty((prod(shape[:n_leading]), *shape[n_leading:]), self.dtype)
            if result.size and self.frame_index is None:
                self._fill(result, self._section_numbers(picks[:n_leading]), picks[n_leading:])
            elif result.size:
                self._place(result, picks[:n_leading], picks[n_leading:])
            view = result.reshape(shape)
        return view.squeeze(dropped) if dropped else view

    def _view(self, picks: list[Pick], shape: tuple[int, ...]) -> Array | None:
        """Select from a map of the file, or return None where that has to be read."""
        sections = self.sections
        if self.frame_index is not None:
            return None
        if not self.mmap or sections.is_compressed or not sections.is_native or not prod(shape):
            return None
        mapped = self.source.map()
        if mapped is None:
            return None
        file = np.ndarray(self.shape, self.dtype, buffer=mapped, offset=sections.offset)
        return _select(file, picks)

    def _section_numbers(self, picks: list[Pick]) -> range | npt.NDArray[np.intp]:
        """Return the numbers in the file of the selected sections, in the result's order."""
        if not picks:
            return range(1)
        if len(picks) == 1 and isinstance(picks[0], slice):
            return range(*picks[0].indices(self.leading[0]))
        numbers = np.zeros((), np.intp)
        for pick, n in zip(picks, self.leading, strict=True):
            along = picked_numbers(pick, n)
            numbers = np.add.outer(numbers * n, along)
        return numbers.reshape(-1)

    def _place(self, result: Array, leading: list[Pick], picks: list[Pick]) -> None:
        """Read the frames of a scan to their positions, and fill those without a frame."""
        assert self.frame_index is not None
        frames = _select(self.frame_index, leading).reshape(-1)
        order = np.argsort(frames, kind="stable")
        order = order[np.searchsorted(frames[order], 0) :]
        if len(order) < len(frames):
            result[...] = np.nan if self.dtype.kind in "fc" else 0
        if len(order):
            # in the file's order, so that neighbours there are read together
            recorded = np.empty((len(order), *result.shape[1:]), self.dtype)
            self._fill(recorded, frames[order], picks)
            result[order] = recorded

    def _fill(
        self, result: Array, numbers: range | npt.NDArray[np.intp], picks: list[Pick]
    ) -> None:
        """Read the rows of the selected sections into `result`.

        Parameters
        ----------
        result : ndarray, shape (n_selected_sections, n_selected_rows, n_selected_columns, ...)
        numbers : sequence of int
            The selected sections.
        picks : list
            Rows, columns, and samples if there are any.
        """
        rows, *behind = picks
        access = self.source.access
        sections = self.sections
        by_pixel = sections.by_pixel() if sections.row_bytes > access.piece else None
        if by_pixel is not None and 4 * result.shape[2] <= sections.shape[2]:
            # a header can claim rows of 2³¹ pixels: of one that is longer than a request, the
            # wanted ones alone
            n_rows = sections.shape[1]
            each_row = np.add.outer(np.asarray(numbers) * n_rows, picked_numbers(rows, n_rows))
            numbers, sections = each_row.reshape(-1), by_pixel
            result = result.reshape(len(numbers), result.shape[2], 1, *result.shape[3:])
            rows, behind = behind[0], [slice(0, 1, 1), *behind[1:]]
        whole = all(map(is_whole, behind, sections.shape[2:]))
        in_place = whole and sections.is_native
        as_stored = in_place and not sections.is_compressed
        flat = result.reshape(-1).view(np.uint8).data
        n_rows = result.shape[1]

        def fill(batch: list[Piece]) -> None:
            requests = []
            decodings: list[tuple[Piece, Array]] = []
            decoded = [piece for piece in batch if not as_stored or piece.rows is not None]
            scratch, used = _scratch(sum(piece.nbytes for piece in decoded)), 0
            for piece in batch:
                if as_stored and piece.rows is None:
                    buffer, step = flat, n_rows * sections.row_bytes
                    first = piece.at[0].start * step + piece.at[1].start * sections.row_bytes
                else:
                    raw = scratch[used : used + piece.nbytes]
                    used += piece.nbytes
                    decodings.append((piece, raw))
                    buffer, first, step = raw.data, 0, piece.nbytes // piece.n_sections
                for offset, nbytes in piece.ranges():
                    requests.append((offset, buffer[first : first + nbytes]))
                    first += step
            self.source.read_into(requests)
            for piece, raw in decodings:
                target = result[piece.at]
                directly = in_place and piece.rows is None
                pixels = sections.decode(raw, piece, target if directly else None)
                if pixels is not target:
                    if piece.rows is not None:
                        pixels = pixels[:, piece.rows]
                    target[...] = _select(pixels, [slice(None), slice(None), *behind])

        pieces = sections.pieces(numbers, rows, access.gap, access.piece)
        # what a block decodes to is what its batch has to bear
        batches = _batches(pieces, access.batch, sections.section_bytes * sections.is_compressed)
        threaded = _THREADED_DECODING if sections.is_compressed else _THREADED
        if len(numbers) * n_rows * sections.row_bytes >= threaded:
            _run_in_threads(fill, batches)
        else:
            for batch in batches:
                fill(batch)


class StackVariable(xr.Variable):
    """The lazy pixels of a file, whose dask tasks are named by the file as it was opened.

    xarray names them by path, modification time and arguments, and for a URL by its text alone.
    Two openings of a file that was replaced in between would share their tasks, and one of them
    would silently get the pixels of the other.
    """

    __slots__ = ()

    def chunk(  # type: ignore[override]  # the parameters are handed on
        self,
        chunks: Any = {},  # noqa: B006  # as xarray has it
        *,
        from_array_kwargs: dict[str, Any] | None = None,
        **options: Any,
    ) -> xr.Variable:
        """Return the variable as a dask array; the parameters are those of xarray."""
        from dask.base import tokenize

        named = dict(from_array_kwargs or {})
        if named.get("name"):
            named["name"] = f"{named['name']}-{tokenize(self._data)}"
        chunked = super().chunk(chunks, from_array_kwargs=named, **options)
        return xr.Variable(chunked.dims, chunked._data, chunked.attrs, chunked.encoding)


def preferred_chunks(dims: tuple[str, ...], array: StackArray) -> dict[str, int]:
    """Return the chunks to offer to dask: as many whole sections as fit in 16 MiB, or one.

    Only the sections' dimensions are named, and the rows of a section that is very large, so
    that a chunk along another dimension is the user's to choose, without a warning. If a header
    promises an enormous number of sections, chunks are larger, since each is a task of dask.
    """
    n_leading = len(array.leading)
    section = prod(array.shape[n_leading:]) * array.dtype.itemsize
    chunks: dict[str, int] = {}
    chunk = _MAPPED_CHUNK if array.mmap else _CHUNK
    wanted = max(1, chunk // section)
    for dim, n in zip(reversed(dims[:n_leading]), reversed(array.leading), strict=True):
        chunks[dim] = min(n, wanted)
        wanted = max(1, wanted // n)
    if array.sections.is_compressed:
        # a chunk that cuts blocks decodes them more than once: let xarray warn of it
        chunks |= dict(zip(dims[n_leading:], array.shape[n_leading:], strict=True))
    elif section > _LARGE_SECTION:
        n_rows = array.shape[n_leading]
        chunks[dims[n_leading]] = max(1, chunk // (section // n_rows))
    sizes = dict(zip(dims, array.shape, strict=True))
    offered = {dim: chunks[dim] for dim in dims if dim in chunks}
    # the fastest dimensions first, since chunks of complete sections are best
    for dim in reversed(offered):
        n_chunks = prod(-(-sizes[d] // size) for d, size in offered.items())
        n_along = -(-sizes[dim] // offered[dim])
        if n_chunks > _MOST_CHUNKS:
            fewer = max(1, n_along * _MOST_CHUNKS // n_chunks)
            offered[dim] = -(-sizes[dim] // fewer)
    return offered


def _batches(pieces: Iterator[Piece], limit: int, least: int) -> Iterator[list[Piece]]:
    """Group pieces into lists of `limit` bytes at most, or of one piece, counted as `least`."""
    batch: list[Piece] = []
    total = 0
    for piece in pieces:
        weight = max(piece.nbytes, least)
        if batch and total + weight > limit:
            yield batch
            batch, total = [], 0
        batch.append(piece)
        total += weight
    if batch:
        yield batch


def _run_in_threads(fill: Callable[[list[Piece]], None], batches: Iterator[list[Piece]]) -> None:
    """Fill with all cores. The pool lives for this call alone, so that forks are no trouble."""
    with ThreadPoolExecutor(cores()) as pool:
        for done in pool.map(fill, batches):
            del done


_kept = threading.local()


def _scratch(nbytes: int) -> npt.NDArray[np.uint8]:
    """Return memory to decode from: the thread's own, since fresh pages cost more than a read."""
    if not 0 < nbytes <= _KEPT:
        return np.empty(nbytes, np.uint8)
    if not hasattr(_kept, "memory"):
        _kept.memory = np.empty(_KEPT, np.uint8)
    memory: npt.NDArray[np.uint8] = _kept.memory
    return memory[:nbytes]


def _as_pick(key: Any, n: int) -> Pick:
    """Turn one element of a key into a slice with all three numbers, or an array."""
    if isinstance(key, slice):
        return slice(*key.indices(n))
    if isinstance(key, int | np.integer):
        if not 0 <= key < n:
            raise IndexError(f"index {key} is out of bounds for a dimension of size {n}")
        return slice(int(key), int(key) + 1, 1)
    array: npt.NDArray[np.intp] = np.asarray(key, np.intp)
    if array.size and not 0 <= array.min() <= array.max() < n:
        raise IndexError(f"indices up to {array.max()} are out of bounds for a dimension of {n}")
    return array


def _length(pick: Pick, n: int) -> int:
    return len(range(*pick.indices(n))) if isinstance(pick, slice) else len(pick)


def _select(array: Array, picks: Sequence[Pick]) -> Array:
    """Index orthogonally: a view for slices, else a gather that touches what it takes alone."""
    array = array[tuple(pick if isinstance(pick, slice) else slice(None) for pick in picks)]
    arrays = [pick for pick in picks if not isinstance(pick, slice)]
    if not arrays:
        return array
    if len(arrays) > 1:
        # the slices are done: what is left of them is everything along their axes
        indices = [
            np.arange(n) if isinstance(pick, slice) else pick
            for pick, n in zip(picks, array.shape, strict=True)
        ]
        gathered: Array = array[np.ix_(*indices)]
    else:
        gathered = array[tuple(slice(None) if isinstance(p, slice) else p for p in picks)]
    return gathered
