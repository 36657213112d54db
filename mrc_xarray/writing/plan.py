"""What is written where, and the tasks that write it, in any process and perhaps twice."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from mrc_xarray.errors import MrcError, warn
from mrc_xarray.mrc.header import HEADER_SIZE, Header
from mrc_xarray.pixels.compression import BLOCK_HEADER_SIZE, Chunk, decode_block, encode_block
from mrc_xarray.pixels.modes import Mode
from mrc_xarray.pixels.sections import runs
from mrc_xarray.pixels.statistics import Statistics
from mrc_xarray.storage.locks import Lock
from mrc_xarray.storage.part import Buffer
from mrc_xarray.storage.sink import ByteSink
from mrc_xarray.writing.arrays import refuse_masked
from mrc_xarray.writing.region import Index, consecutive

__all__ = [
    "Plan",
    "append_blocks",
    "begin",
    "compress_block",
    "finish_mrcz",
    "finish_plain",
    "join",
    "warn_not_finite",
    "write_block",
    "write_equal",
]

Array: TypeAlias = npt.NDArray[Any]
# bytes that `write_equal` writes at once
_PART = 4 * 1024**2
#: End of the blocks in the file so far, and the statistics of their pixels.
Appended: TypeAlias = tuple[int, Statistics]


@dataclass(frozen=True, eq=False, kw_only=True)
class Plan:
    """What is written where; the same for all tasks."""

    sink: ByteSink
    header: Header  # with undetermined statistics
    extended: bytes = b""
    mode: Mode
    # of all pixels in the file: (*leading, n_rows, n_columns, *samples)
    shape: tuple[int, ...]
    # of the data, before they are cast to the mode
    dtype: np.dtype[Any]
    # where the data are in the file along each dimension, and the sizes of their blocks there
    places: tuple[Index, ...]
    chunks: tuple[tuple[int, ...], ...] = ()
    statistics: bool | Literal["quick"] = True
    # statistics of the pixels that the file already has; None if they can't be known
    known: Statistics | None = field(default_factory=Statistics)
    compressor: str | None = None
    clevel: int = 1
    offset: int = HEADER_SIZE  # of the first pixel in the file
    # of the process that began to write; a copy in another process holds nothing
    lock: Lock = field(default_factory=Lock, repr=False)

    @property
    def n_leading(self) -> int:
        """Number of dimensions that count sections."""
        return len(self.shape) - 2 - len(self.mode.samples)

    @property
    def section_bytes(self) -> int:
        """Size of a section in bytes, before compression."""
        n_rows, n_columns = self.shape[self.n_leading :][:2]
        return n_rows * self.mode.row_bytes(n_columns)

    @property
    def measures(self) -> bool:
        """Whether the statistics of the pixels are measured."""
        return bool(self.statistics) and self.known is not None


def begin(plan: Plan) -> Plan:
    """Create the file, and return the plan with a lock on it.

    The lock is held for as long as the returned plan is in use. A scheduler drops the plan when
    the last task that needs it is done.
    """
    size = 0 if plan.compressor else plan.offset + plan.header.nz * plan.section_bytes
    return replace(plan, lock=plan.sink.begin(size))


def write_block(block: Array, plan: Plan, block_id: tuple[int, ...] = ()) -> Array:
    """Write a block in its place; return its statistics as the one element of an array."""
    places = _places_of(plan, block, block_id)
    values = plan.mode.cast(block)
    plan.sink.write(_buffers(plan, values, places))
    return _as_block(_measured(plan, values, _first(places)), block.ndim)


def _buffers(plan: Plan, values: Array, places: Sequence[Index]) -> Iterator[Buffer]:
    """Yield the bytes of pixels with their offsets in the file, in parts that are contiguous."""
    n_outer = plan.n_leading + 1
    n_columns = plan.shape[n_outer]
    row = plan.mode.row_bytes(n_columns)
    shape = (*plan.shape[:n_outer], row)
    for parts in itertools.product(*map(consecutive, places)):
        picks, at = zip(*parts, strict=True)
        stored = plan.mode.encode(values[picks], plan.header.byteorder)
        start = (*at[:n_outer], at[n_outer] * row // n_columns)
        for offset, part in runs(stored, shape, start):
            yield plan.offset + offset, part


def write_equal(plan: Plan, pixel: Array) -> None:
    """Write the value of one pixel to all pixels of a new file, in parts."""
    row = plan.mode.encode(np.repeat(pixel, plan.header.nx, axis=1), plan.header.byteorder)
    n_rows, row_bytes = plan.header.nz * plan.header.ny, plan.mode.row_bytes(plan.header.nx)
    n_at_once = min(n_rows, max(1, _PART // row_bytes))
    # a new file consists of zeros already
    if row.any():
        part = np.repeat(row, n_at_once, axis=0)
        firsts = range(0, n_rows, n_at_once)
        plan.sink.write((plan.offset + i * row_bytes, part[: n_rows - i]) for i in firsts)


def compress_block(block: Array, turn: Any, plan: Plan, block_id: tuple[int, ...] = ()) -> Array:
    """Compress the sections of a block.

    Return its position, its statistics and its sections as the one element of an array. The task
    waits for `turn`, whose value is not used.
    """
    at = _first(_places_of(plan, block, block_id))
    values = plan.mode.cast(block)
    stored = plan.mode.encode(values, plan.header.byteorder)
    assert plan.compressor is not None
    size, sections = np.dtype(plan.mode.stored).itemsize, stored.reshape(-1, *stored.shape[-2:])
    options: Any = {"compressor": plan.compressor, "level": plan.clevel, "typesize": size}
    blocks = [encode_block(section, **options) for section in sections]
    return _as_block((at, _measured(plan, values, at), blocks), block.ndim)


def append_blocks(compressed: Array, before: Appended | None, plan: Plan) -> Appended:
    """Write blocks after the ones in the file.

    A cluster may repeat this after the worker that did it has died, and the blocks may then have
    other sizes. Blocks are not written again if others may have been placed after them. The first
    header is written last, so if it is there, the blocks are complete.
    """
    start, statistics = before or (plan.offset, Statistics())
    at, measured, blocks = compressed.item()
    if any(plan.sink.read(start, BLOCK_HEADER_SIZE)):
        # an image has no leading dimension
        along, sizes = (0, *at[: plan.n_leading]), (1, *plan.shape[: plan.n_leading])
        first = int(np.ravel_multi_index(along, sizes))
        blocks = [plan.sink.read(*each) for each in _extents(plan, start, first, len(blocks))]
        measured = _measured_in_blocks(plan, at, blocks)
    else:
        # what a worker wrote before it died may be longer
        plan.sink.cut(start)
        starts = start + np.cumsum([0, *map(len, blocks)])
        body = memoryview(blocks[0])[BLOCK_HEADER_SIZE:]
        rest = zip(starts[1:].tolist(), blocks[1:], strict=False)
        plan.sink.write([(start + BLOCK_HEADER_SIZE, body), *rest])
        plan.sink.write([(start, blocks[0][:BLOCK_HEADER_SIZE])])
    return start + sum(map(len, blocks)), statistics.joined(measured)


def _extents(plan: Plan, start: int, first: int, n: int) -> list[tuple[int, int]]:
    """Return first byte and size of `n` blocks in the file, from section `first` on.

    Raise MrcError if one of them was overwritten, for example by a worker that the cluster assumed
    to be dead.
    """
    found: list[tuple[int, int]] = []
    section_bytes = plan.section_bytes
    while len(found) < n:
        header = plan.sink.read(start, BLOCK_HEADER_SIZE)
        chunk = Chunk.parse(header.ljust(BLOCK_HEADER_SIZE, b"\0"))
        if chunk.fault(section_bytes):
            raise _overwritten(plan, first + len(found))
        found.append((start, chunk.ctbytes))
        start += chunk.ctbytes
    return found


def _overwritten(plan: Plan, section: int) -> MrcError:
    return MrcError(
        f"{plan.sink.name}: the block of section {section}, or the block in front of it, was "
        "overwritten while the file was written, for example by a worker that lost the "
        "connection to its cluster. Write the file again"
    )


def _measured_in_blocks(plan: Plan, at: tuple[int, ...], blocks: list[bytes]) -> Statistics:
    """Decode blocks from the file, and measure their pixels."""
    sections = np.empty((len(blocks), plan.section_bytes), np.uint8)
    for block, section in zip(blocks, sections, strict=True):
        raw = np.frombuffer(block, np.uint8)
        decode_block(raw, section, codec=plan.compressor or "", where=plan.sink.name)
    values = plan.mode.decode(sections.reshape(-1), plan.header.byteorder, plan.header.nx)
    along_leading = (1,) * (plan.n_leading - 1)
    return _measured(plan, values.reshape(*along_leading, len(blocks), -1), at)


def join(parts: list[Any]) -> Statistics:
    """Join the statistics of blocks, or statistics that are already joined."""
    found = (part.item() if isinstance(part, np.ndarray) else part for part in parts)
    return reduce(Statistics.joined, found, Statistics())


def finish_plain(plan: Plan, measured: Statistics) -> int:
    """Write the header with the statistics of the pixels, and complete the file.

    Return how many of the pixels that were examined are NaN or infinite.
    """
    known = plan.known or Statistics()
    fields = known.joined(measured).fields() if plan.measures else Statistics().fields()
    plan.sink.finish(plan.header.with_statistics(fields).encode() + plan.extended)
    return measured.n_not_finite


def finish_mrcz(plan: Plan, appended: Appended) -> int:
    """Write the header with the size and statistics of the blocks, and complete the file.

    Return the same as `finish_plain`.
    """
    end, measured = appended
    extents = _extents(plan, plan.offset, 0, plan.header.nz)
    if sum(extents[-1]) != end:
        raise _overwritten(plan, len(extents))
    header = plan.header.replaced(packed_bytes=end - plan.offset, **measured.fields())
    plan.sink.finish(header.encode() + plan.extended)
    return measured.n_not_finite


def warn_not_finite(name: str, n: int) -> None:
    """Warn about pixels that are NaN or infinite, if there are any."""
    if n:
        warn(
            f"{name}: pixels that are NaN or infinite were written ({n} in total). The statistics "
            "in the header leave them out. Few programs accept such pixels; data.fillna(0) "
            "replaces NaN"
        )


def _places_of(plan: Plan, block: Array, block_id: tuple[int, ...]) -> tuple[Index, ...]:
    """Check a block, and return where its pixels are in the file along each dimension."""
    refuse_masked(block)
    if not np.can_cast(block.dtype, plan.dtype):
        raise MrcError(
            f"a block of the dask array has dtype {block.dtype}, which can't be cast safely to "
            f"the {plan.dtype} that the array declares. The function that makes the blocks must "
            "return the dtype that dtype= or meta= declares"
        )
    declared = tuple(sizes[i] for sizes, i in zip(plan.chunks, block_id, strict=True))
    if block.shape != declared:
        raise MrcError(
            f"a block of the dask array has the shape {block.shape}, but its chunks declare "
            f"{declared}; they must be the same"
        )
    along = zip(plan.places, plan.chunks, block_id, strict=True)
    starts = [(index, sum(sizes[:i]), sizes[i]) for index, sizes, i in along]
    return tuple(index[start : start + n] for index, start, n in starts)


def _first(places: Sequence[Index]) -> tuple[int, ...]:
    """Return the position of the first pixel of a block, or zeros for an empty block."""
    return tuple(int(index[0]) if len(index) else 0 for index in places)


def _measured(plan: Plan, values: Array, at: tuple[int, ...]) -> Statistics:
    if not plan.statistics or (plan.statistics == "quick" and any(at[: plan.n_leading])):
        return Statistics()
    examined = values[(0,) * plan.n_leading] if plan.statistics == "quick" else values
    return Statistics.of(examined) if plan.measures else Statistics.count(examined)


def _as_block(result: Any, ndim: int) -> Array:
    """Return the result of a block as an array with one element, as dask expects it."""
    wrapped = np.empty((1,) * ndim, object)
    wrapped[(0,) * ndim] = result
    return wrapped
