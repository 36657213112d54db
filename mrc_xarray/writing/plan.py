"""What is written where, and the tasks that write it: in any process, and perhaps twice."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from mrc_xarray.errors import MrcError
from mrc_xarray.mrc.header import HEADER_SIZE, Header
from mrc_xarray.pixels.compression import BLOCK_HEADER_SIZE, Chunk, decode_block, encode_block
from mrc_xarray.pixels.modes import Mode
from mrc_xarray.pixels.sections import runs
from mrc_xarray.pixels.statistics import Statistics
from mrc_xarray.storage.locks import Lock
from mrc_xarray.storage.sink import ByteSink

__all__ = [
    "Plan",
    "append_blocks",
    "begin",
    "compress_block",
    "finish_mrcz",
    "finish_plain",
    "join",
    "turn",
    "write_block",
]

Array: TypeAlias = npt.NDArray[Any]
#: First element of each block along each dimension, and behind the last its end.
Edges: TypeAlias = tuple[npt.NDArray[np.int64], ...]
#: Position of a block in the file, its statistics, and its sections as blocks of an MRCZ.
Compressed: TypeAlias = tuple[tuple[int, ...], Statistics, list[bytes]]


@dataclass(frozen=True, eq=False)
class Plan:
    """What is written where; the same for all tasks.

    Attributes
    ----------
    sink : ByteSink
    header : Header
        Without what only the pixels tell.
    extended : bytes
    mode : Mode
    shape : tuple of int, (*leading, n_rows, n_columns, *samples)
        Of the file's pixels.
    dtype : numpy.dtype
        Type of the data before they are cast to the mode.
    start : tuple of int
        Where the data begin in them.
    statistics : bool or "quick"
    known : Statistics or None
        Those of the pixels that the file has already; None where these are changed.
    compressor : str or None
    clevel : int
    offset : int
        First byte of the pixels.
    lock : Lock
        Lock of the process that began to write. A copy in another process holds nothing.
    """

    sink: ByteSink
    header: Header
    extended: bytes
    mode: Mode
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: tuple[int, ...]
    statistics: bool | Literal["quick"] = True
    known: Statistics | None = field(default_factory=Statistics)
    compressor: str | None = None
    clevel: int = 1
    offset: int = HEADER_SIZE
    lock: Lock = field(default_factory=Lock, repr=False)

    @property
    def n_leading(self) -> int:
        """Dimensions that count sections."""
        return len(self.shape) - 2 - len(self.mode.samples)

    @property
    def size(self) -> int:
        """Bytes of the file, before any compression."""
        n_sections, n_rows, n_columns = self.header.nz, self.header.ny, self.header.nx
        return self.offset + n_sections * n_rows * self.mode.row_bytes(n_columns)

    @property
    def measures(self) -> bool:
        """Whether the pixels are to be measured."""
        return bool(self.statistics) and self.known is not None and self.mode.has_statistics


def begin(plan: Plan) -> Plan:
    """Create the file, and return the plan with a lock on it.

    The lock is held for as long as the returned plan is in use. A scheduler drops the plan when
    the last task that needs it is done.
    """
    return replace(plan, lock=plan.sink.begin(0 if plan.compressor else plan.size))


def write_block(block: Array, plan: Plan, edges: Edges, block_id: tuple[int, ...] = ()) -> Array:
    """Write a block at its own place; return its statistics as the one element of an array."""
    at = _place(plan, block, edges, block_id)
    values = plan.mode.cast(block)
    measured = _measured(plan, values, at)
    n_outer = plan.n_leading + 1
    row = plan.mode.row_bytes(plan.header.nx)
    first_byte = at[n_outer] * row // plan.header.nx
    stored = plan.mode.encode(values, plan.header.byteorder)
    plan.sink.write(
        (plan.offset + offset, part)
        for offset, part in runs(stored, (*plan.shape[:n_outer], row), (*at[:n_outer], first_byte))
    )
    return _one(measured, block.ndim)


def compress_block(
    block: Array, turn: Array, plan: Plan, edges: Edges, block_id: tuple[int, ...] = ()
) -> Array:
    """Compress the sections of a block; return `Compressed` as one element."""
    del turn
    at = _place(plan, block, edges, block_id)
    values = plan.mode.cast(block)
    measured = _measured(plan, values, at)
    stored = plan.mode.encode(values, plan.header.byteorder)
    assert plan.compressor is not None
    blocks = [
        encode_block(
            section,
            compressor=plan.compressor,
            level=plan.clevel,
            typesize=np.dtype(plan.mode.stored).itemsize,
        )
        for section in stored.reshape(-1, *stored.shape[-2:])
    ]
    return _one((at, measured, blocks), block.ndim)


def turn(appended: Any) -> Array:
    """Let a block begin, when one some way ahead of it is in the file."""
    del appended
    return np.zeros(())


def append_blocks(
    plan: Plan, compressed: Array, before: tuple[int, Statistics] | None
) -> tuple[int, Statistics]:
    """Write blocks after the others, and return where they end.

    A cluster may repeat this after the worker that did it has died, and the blocks may then have
    other sizes. Blocks are not written again if others may have been placed after them. The first
    header is written last, so if it is there, the blocks are complete.
    """
    start, statistics = (plan.offset, Statistics()) if before is None else before
    at, measured, blocks = compressed.item()
    if any(header := plan.sink.read(start, BLOCK_HEADER_SIZE)):
        blocks = _written_blocks(plan, start, header, len(blocks))
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


def _written_blocks(plan: Plan, start: int, header: bytes, n: int) -> list[bytes]:
    """Read `n` consecutive blocks from the file; `header` is that of the first."""
    blocks = []
    for _ in range(n):
        blocks.append(plan.sink.read(start, Chunk.parse(header).ctbytes))
        start += len(blocks[-1])
        header = plan.sink.read(start, BLOCK_HEADER_SIZE)
    return blocks


def _measured_in_blocks(plan: Plan, at: tuple[int, ...], blocks: list[bytes]) -> Statistics:
    """Decode blocks from the file, and measure their pixels."""
    stored = np.dtype(plan.mode.stored).newbyteorder(plan.header.byteorder)
    sections = np.empty((len(blocks), plan.header.ny * plan.mode.row_bytes(plan.header.nx)), "u1")
    for block, section in zip(blocks, sections, strict=True):
        raw = np.frombuffer(block, np.uint8)
        decode_block(raw, section, codec=plan.compressor or "", where=plan.sink.name)
    along_leading = (1,) * (plan.n_leading - 1)
    return _measured(plan, sections.view(stored).reshape(*along_leading, len(blocks), -1), at)


def join(blocks: list[Any]) -> Statistics:
    """Join the statistics of blocks, or joined ones."""
    joined = Statistics()
    for block in blocks:
        joined = joined.joined(block.item() if isinstance(block, np.ndarray) else block)
    return joined


def finish_plain(plan: Plan, measured: Statistics) -> None:
    """Write the header, which tells of the pixels, and make the file last."""
    known = Statistics() if plan.known is None else plan.known
    fields = known.joined(measured).fields() if plan.measures else Statistics().fields()
    plan.sink.finish(plan.header.replaced(**fields).encode() + plan.extended)


def finish_mrcz(plan: Plan, appended: tuple[int, Statistics]) -> None:
    """Write the header, which tells of the pixels and of the blocks, and make the file last."""
    end, measured = appended
    _check_blocks(plan, end)
    header = plan.header.replaced(packed_bytes=end - plan.offset, **measured.fields())
    plan.sink.finish(header.encode() + plan.extended)


def _check_blocks(plan: Plan, end: int) -> None:
    """Follow the headers of the blocks, and raise MrcError unless they end where the last ends.

    They do, unless a worker that the cluster had given up for dead went on to write.
    """
    section_bytes = plan.header.ny * plan.mode.row_bytes(plan.header.nx)
    at, n_found = plan.offset, 0
    while n_found < plan.header.nz:
        header = plan.sink.read(at, BLOCK_HEADER_SIZE)
        if len(header) < BLOCK_HEADER_SIZE or Chunk.parse(header).fault(section_bytes):
            break
        at, n_found = at + Chunk.parse(header).ctbytes, n_found + 1
    if at != end:
        raise MrcError(
            f"{plan.sink.name}: the block of section {n_found}, or the one before it, was "
            "overwritten while the file was written, as by a worker that had lost its cluster. "
            "Write the file again"
        )


def _place(plan: Plan, block: Array, edges: Edges, block_id: tuple[int, ...]) -> tuple[int, ...]:
    """Return the first element of a block in the file."""
    if isinstance(block, np.ma.MaskedArray):
        raise MrcError("the data are masked, and an MRC file can't say where; fill them first")
    if not np.can_cast(block.dtype, plan.dtype):
        raise MrcError(
            f"a block of the dask array has dtype {block.dtype}, which can't be cast safely to "
            f"the {plan.dtype} that the array declares. The function that makes the blocks must "
            "return what its dtype= or meta= says"
        )
    declared = tuple(
        int(along[i + 1] - along[i]) for along, i in zip(edges, block_id, strict=True)
    )
    if block.shape != declared:
        raise MrcError(
            f"a block of the dask array has the shape {block.shape}, and its chunks say "
            f"{declared}; they must be the same"
        )
    return tuple(
        first + int(along[i]) for first, along, i in zip(plan.start, edges, block_id, strict=True)
    )


def _measured(plan: Plan, values: Array, at: tuple[int, ...]) -> Statistics:
    if not plan.measures:
        return Statistics()
    if plan.statistics == "quick":
        if any(at[: plan.n_leading]):
            return Statistics()
        values = values[(0,) * plan.n_leading]
    return Statistics.of(values)


def _one(result: Any, ndim: int) -> Array:
    """Wrap a block's result as the one element of an array."""
    wrapped = np.empty((1,) * ndim, object)
    wrapped[(0,) * ndim] = result
    return wrapped
