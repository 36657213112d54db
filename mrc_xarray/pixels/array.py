"""The lazy array: from an xarray key to byte ranges, or a memory map, to an ndarray."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from xarray.backends import BackendArray
from xarray.core import indexing

from mrc_xarray.pixels.columns import copy_columns
from mrc_xarray.pixels.sections import Batch, InFile, Sections
from mrc_xarray.pixels.selection import (
    Numbers,
    Pick,
    as_pick,
    is_complete,
    is_contiguous,
    length,
    numbers_within,
    select,
)
from mrc_xarray.storage import ByteSource, StreamSource
from mrc_xarray.storage.base import MiB, cores
from mrc_xarray.storage.threads import run_in_threads

__all__ = ["StackArray"]

Array: TypeAlias = npt.NDArray[Any]

# dask tasks read smaller parts: a copy of them costs little, and a map can take a descriptor
_MAPPED = 1 * MiB
# memory that each thread reuses for undecoded bytes
_SCRATCH = 8 * MiB
# below this, starting threads costs more than they save
_THREADED = 32 * MiB
_THREADED_DECODING = 4 * MiB
# with so many small sections, reading all rows costs less than many requests
_MANY = 4096
_SMALL_SECTION = 64 * 1024
# if less of a long row is selected, its pixels are read one by one
_FEW_COLUMNS = 1 / 4


@dataclass(frozen=True, eq=False)
class StackArray(BackendArray):
    """The pixels of one file, read when they are indexed.

    It holds no handle, no map and no lock, and can be pickled.

    Attributes
    ----------
    source : ByteSource
    sections : Sections
        Where the pixels are in the file.
    leading : tuple of int
        Sizes of the dimensions that the sections are arranged in; empty for one image.
    mmap : {"auto", True, False}
        Whether to return views of a map; "auto" is for large parts in tasks alone.
    frame_index : ndarray of int64, shape `leading`, optional
        The section at each position of `leading`, -1 where there is none; by default they are
        in order.
    is_in_task : bool
        Whether a task of dask indexes the array. Its results may be views that can't be written
        to, and it starts no threads, as dask has one for each core.
    """

    source: ByteSource
    sections: Sections
    leading: tuple[int, ...]
    mmap: str | bool = False
    frame_index: npt.NDArray[np.int64] | None = None
    is_in_task: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """``(*leading, n_rows, n_columns, *samples)``."""
        return (*self.leading, *self.sections.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """In the byte order of the machine."""
        return self.sections.dtype

    def sections_at(self, steps: tuple[int, ...]) -> npt.NDArray[np.int64]:
        """Return the section at every position along `leading` with these steps, -1 for none."""
        if self.frame_index is not None:
            return self.frame_index[tuple(slice(None, None, step) for step in steps)]
        numbers = np.zeros((), np.int64)
        for n, step in zip(self.leading, steps, strict=True):
            numbers = numbers[..., np.newaxis] * n + np.arange(0, n, step)
        return numbers

    @property
    def is_mapped_by_tasks(self) -> bool:
        """Whether a large part is not read by a task of dask, but mapped."""
        if not self.mmap or self.frame_index is not None or not prod(self.shape):
            return False
        if self.sections.is_compressed or not self.sections.is_native:
            return False
        # compiled code may refuse numbers at odd addresses
        is_aligned = self.sections.offset % self.dtype.alignment == 0
        return self.mmap is True or (is_aligned and self.source.is_on_local_disk)

    @property
    def _n_threads(self) -> int:
        return 1 if self.is_in_task else cores()

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Array:
        result: Array = indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self.read
        )
        return result

    async def async_getitem(self, key: indexing.ExplicitIndexer) -> Array:
        """Read in a thread, as neither files nor decoders are asynchronous."""
        return await asyncio.to_thread(self.__getitem__, key)

    def read(self, key: tuple[Any, ...]) -> Array:
        """Return the outer selection `key`, of ints, forward slices and sorted arrays."""
        picks = [as_pick(k, n) for k, n in zip(key, self.shape, strict=True)]
        result = self._mapped(picks)
        if result is None:
            shape = tuple(length(pick, n) for pick, n in zip(picks, self.shape, strict=True))
            if isinstance(self.source, StreamSource):
                self.source.prepare(prod(shape) * self.dtype.itemsize)
            result = np.empty(shape, self.dtype)
            if result.size and self.frame_index is not None:
                self._fill_scan(result, picks, self.frame_index)
            elif result.size:
                self._fill(result, picks)
        dropped = tuple(axis for axis, k in enumerate(key) if isinstance(k, int | np.integer))
        return result.squeeze(dropped) if dropped else result

    def _mapped(self, picks: list[Pick]) -> Array | None:
        """Select from a map of the file; return None if the file has to be read."""
        if self.mmap is not True:
            nbytes = prod(map(length, picks, self.shape)) * self.dtype.itemsize
            if not self.is_in_task or nbytes < _MAPPED or not is_contiguous(picks, self.shape):
                return None
        if not self.is_mapped_by_tasks:
            return None
        # the tasks that use a chunk must not change it for each other
        mapped = self.source.map(writable=not self.is_in_task)
        if mapped is None:
            return None
        file = np.ndarray(self.shape, self.dtype, buffer=mapped, offset=self.sections.offset)
        return select(file, picks)

    def _fill(self, result: Array, picks: list[Pick]) -> None:
        """Read sections that are in order."""
        n_leading = len(self.leading)
        numbers: Numbers = range(1)
        for pick, n in zip(picks, self.leading, strict=False):
            numbers = numbers_within(numbers, pick, n)
        self._read_into(result, numbers, picks[n_leading:])

    def _fill_scan(
        self, result: Array, picks: list[Pick], frame_index: npt.NDArray[np.int64]
    ) -> None:
        """Read the frames of a scan to their positions; positions without a frame are NaN or 0."""
        n_leading = len(self.leading)
        frames = select(frame_index, picks[:n_leading]).reshape(-1)
        order = np.argsort(frames, kind="stable")
        order = order[np.searchsorted(frames[order], 0) :]
        by_frame = result.reshape(len(frames), *result.shape[n_leading:])
        if len(order) < len(frames):
            result[...] = np.nan if self.dtype.kind in "fc" else 0
        if len(order):
            # in the order of the file, so that adjacent frames are read together
            recorded = np.empty((len(order), *by_frame.shape[1:]), self.dtype)
            self._read_into(recorded, frames[order], picks[n_leading:])
            by_frame[order] = recorded

    def _read_into(self, result: Array, numbers: Numbers, picks: list[Pick]) -> None:
        """Read the selected rows, columns and samples of sections into contiguous memory."""
        sizes = map(length, picks, self.sections.shape[1:])
        target = result.reshape(len(numbers), *sizes)
        parts = self.sections.in_files(numbers)
        # of many files, each is read by one thread
        within = self._n_threads if len(parts) == 1 else 1

        def read(part: InFile) -> None:
            source, sections = self.sections.opened(self.source, part)
            in_place = isinstance(part.at, slice)
            shape = (len(part.numbers), *target.shape[1:])
            memory = target[part.at] if in_place else np.empty(shape, target.dtype)
            if source is not self.source and isinstance(source, StreamSource):
                source.prepare(memory.nbytes)
            arguments = source, sections, memory, part.numbers, picks, within
            if not (self.mmap and copy_columns(*arguments)):
                _read_file(*arguments)
            if not in_place:
                target[part.at] = memory

        run_in_threads(read, parts, self._n_threads)


def _read_file(
    source: ByteSource,
    sections: Sections,
    result: Array,
    numbers: Numbers,
    picks: list[Pick],
    most_threads: int,
) -> None:
    """Read parts of the sections of one file into contiguous memory."""
    access = source.access
    sections, chosen, parts = _finest(sections, numbers, picks, access.piece)
    sizes = [length(part, n) for part, n in zip(parts, sections.shape[1:], strict=True)]
    target = result.reshape(len(chosen), *sizes)
    all_in_place = sections.is_native and all(map(is_complete, parts, sections.shape[1:]))

    def fill(batch: Batch) -> None:
        memory = target[batch.at]
        in_place = all_in_place and batch.is_complete
        if in_place and not sections.is_compressed:
            source.read_into(batch.requests(memory.reshape(-1).view(np.uint8)))
            return
        raw = _scratch(batch.nbytes)
        source.read_into(batch.requests(raw))
        out = memory if in_place else None
        pixels = sections.decode(raw, chosen[batch.at], out, n_decoding)
        if pixels is not memory:
            memory[...] = select(pixels, [batch.picked, *parts])

    batches = list(sections.batches(chosen, access))
    threaded = _THREADED_DECODING if sections.is_compressed else _THREADED
    is_short = len(chosen) * sections.section_bytes < threaded
    n_threads = 1 if is_short else most_threads
    # the block of a single batch is decoded by all threads together
    n_decoding = n_threads if len(batches) == 1 else 1
    run_in_threads(fill, batches, n_threads)


def _finest(
    sections: Sections, numbers: Numbers, picks: list[Pick], longest: int
) -> tuple[Sections, Numbers, list[Pick]]:
    """Choose complete sections, or rows if some are selected, or pixels of very long rows.

    These are returned as sections, with the numbers of the selected ones, and the picks in each.
    """
    _, n_rows, n_columns, *_ = sections.shape
    rows, columns, *samples = picks
    is_small = sections.section_bytes <= _SMALL_SECTION and len(numbers) > _MANY
    is_short = sections.section_bytes <= longest
    if sections.is_compressed or is_small or (is_short and is_complete(rows, n_rows)):
        return sections, numbers, picks
    numbers_of_rows = numbers_within(numbers, rows, n_rows)
    few = length(columns, n_columns) <= _FEW_COLUMNS * n_columns
    if sections.row_bytes <= longest or sections.mode.is_packed or not few:
        return sections.by_row(), numbers_of_rows, [slice(0, 1, 1), columns, *samples]
    numbers_of_pixels = numbers_within(numbers_of_rows, columns, n_columns)
    return sections.by_pixel(), numbers_of_pixels, [slice(0, 1, 1), slice(0, 1, 1), *samples]


_reused = threading.local()


def _scratch(nbytes: int) -> npt.NDArray[np.uint8]:
    """Return memory that each thread reuses, as new pages cost more than a read."""
    if not 0 < nbytes <= _SCRATCH:
        return np.empty(nbytes, np.uint8)
    if not hasattr(_reused, "memory"):
        _reused.memory = np.empty(_SCRATCH, np.uint8)
    memory: npt.NDArray[np.uint8] = _reused.memory
    return memory[:nbytes]
