"""Where the blocks of an MRCZ are: they follow each other without an index.

See FORMAT: MRCZ.
"""

from __future__ import annotations

import functools
import itertools
import struct
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mrc_xarray.pixels.compression import BLOCK_HEADER_SIZE, Chunk

__all__ = ["BlockIndex", "walk"]

# the search for the next block after a damaged one goes by these steps
_SEARCHED_AT_ONCE = 4 * 1024**2
_HOLE = bytes(_SEARCHED_AT_ONCE)
# beyond these the file is garbage, or made to keep us busy: what was not found counts as damaged
_MOST_RUNS = 64
_MOST_MARKS = 10_000
# bytes that all searches of a file read together
_MOST_SEARCHED = 512 * 1024**2
# if the header promises more sections than this, at least a 16th must be found
_MANY_SECTIONS = 2**21
_FEWEST = 16


@dataclass(frozen=True, eq=False)
class BlockIndex:
    """Where the blocks of a file are.

    Attributes
    ----------
    starts, stops : ndarray of int64, shape (n_blocks,)
        First byte of each block, and the one after its last. The stop is −1 where the block
        can't be read, and the start too where not even its place is known.
    version : int
        Chunk version of the first block: 2 or 5; 0 where no block can be read.
    codec : str
        That MODE names.
    end : int
        Where the walk ended: the end of the last block, or the file's.
    """

    starts: npt.NDArray[np.int64]
    stops: npt.NDArray[np.int64]
    version: int
    codec: str
    end: int

    @property
    def damaged(self) -> list[int]:
        """Sections that can't be read."""
        damaged: list[int] = np.flatnonzero(self.stops < 0).tolist()
        return damaged


class _Run(NamedTuple):
    """Blocks each of which begins where the one before it ends.

    Attributes
    ----------
    starts : array of int64
        First byte of each.
    end : int
        The byte behind the last, or where the first was looked for in vain.
    version : int
        Chunk version of the first; 0 if there is none.
    is_cut : bool
        Whether the file ends before the next block does.
    """

    starts: array[int]
    end: int
    version: int
    is_cut: bool


def walk(
    fetch: Callable[[int, int], Any],
    *,
    start: int,
    size: int,
    n_sections: int,
    section_bytes: int,
    window: int,
    codec: str,
    packed_bytes: int,
) -> BlockIndex:
    """Follow the block headers from the first to the last.

    Where one is damaged, the next sound block is looked for, so that a damaged block costs one
    section. The blocks behind are numbered only where it is sure how many were passed over:
    where the numbers add up, or else from the end of a file that is known to be complete.

    Parameters
    ----------
    fetch : callable
        ``fetch(offset, nbytes)`` returns a buffer of the file's bytes.
    start : int
        First byte of the first block.
    size : int
        Of the file, in bytes.
    n_sections : int
    section_bytes : int
        What a block decodes to, by the MRC header.
    window : int
        Bytes to fetch at once.
    codec : str
        That MODE names.
    packed_bytes : int
        What all blocks have together, by the MRC header; 0 where it does not tell.

    Returns
    -------
    BlockIndex
        Of fewer than `n_sections` blocks where the file ends before.
    """
    follow = functools.partial(
        _follow,
        fetch,
        n_blocks=n_sections,
        size=size,
        section_bytes=section_bytes,
        window=window,
    )
    runs = [follow(start)]
    left = _MOST_SEARCHED
    while len(runs[0].starts) < n_sections and runs[-1].end < size and len(runs) < _MOST_RUNS:
        last = runs[-1]
        # the size of a run's last block may be what is damaged
        behind = last.starts[-1] + BLOCK_HEADER_SIZE if last.starts else last.end + 1
        found = _find(fetch, behind, min(behind + left, size), size, section_bytes)
        if found is None:
            break
        left -= found - behind
        runs.append(follow(found))

    head = runs[0]
    n_blocks = n_sections
    n_found = sum(len(run.starts) for run in runs)
    if (len(runs) == 1 and head.is_cut) or n_sections > max(_MANY_SECTIONS, _FEWEST * n_found):
        runs, n_blocks = [head], len(head.starts)
    starts = np.full(n_blocks, -1, np.int64)
    stops = np.full(n_blocks, -1, np.int64)
    is_complete = packed_bytes == size - start if packed_bytes else None
    behind = 0
    for first, run in _number(runs, n_sections, size, is_complete):
        if behind == first > 0:
            # the block before does not end where this one begins
            stops[first - 1] = -1
        behind = first + len(run.starts)
        if run.starts:
            starts[first:behind] = run.starts
            stops[first : behind - 1] = run.starts[1:]
            stops[behind - 1] = run.end
        if behind < n_blocks:
            # a damaged block, unless another run overwrites this
            starts[behind] = run.end
    version = next((run.version for run in runs if run.version), 0)
    end = head.end if len(head.starts) == n_sections else size
    return BlockIndex(starts, stops, version, codec, end)


def _number(
    runs: list[_Run], n_sections: int, size: int, is_complete: bool | None
) -> list[tuple[int, _Run]]:
    """Return which section each run begins with, for those runs where that is sure.

    Where the file is cut, too, or may be (None), blocks that end where it does need not be the
    last.
    """
    head, last = runs[0], runs[-1]
    if len(runs) == 1 or last.end != size:
        return [(0, head)]
    # more runs may be as many blocks by chance, one passed over and one that is none
    all_there = sum(len(run.starts) for run in runs) == n_sections and len(runs) == 2
    numbered = [(0, head)]
    for before, run in itertools.pairwise(runs):
        # a run that begins before the last one ended tells that a size was wrong, and no more
        hidden = not all_there and run.starts[0] >= before.end
        numbered.append((numbered[-1][0] + len(before.starts) + hidden, run))
    from_end = n_sections - len(last.starts)
    if all_there or (numbered[-1][0] == from_end and is_complete is not False):
        return numbered
    if is_complete and from_end > len(head.starts):
        return [(0, head), (from_end, last)]
    return [(0, head)]


def _follow(
    fetch: Callable[[int, int], Any],
    position: int,
    *,
    n_blocks: int,
    size: int,
    section_bytes: int,
    window: int,
) -> _Run:
    """Follow up to `n_blocks` block headers, as far as they make sense."""
    starts = array("q")
    base, buffer, version = position, b"", 0
    while len(starts) < n_blocks:
        at = position - base
        if at + BLOCK_HEADER_SIZE > len(buffer):
            base, at = position, 0
            buffer = fetch(position, min(window, size - position))
            if len(buffer) < BLOCK_HEADER_SIZE:
                return _Run(starts, position, version, is_cut=True)
        chunk = Chunk.parse(buffer, at)
        if chunk.complaint(section_bytes) is not None:
            return _Run(starts, position, version, is_cut=False)
        if position + chunk.ctbytes > size:
            return _Run(starts, position, version, is_cut=True)
        version = version or chunk.version
        starts.append(position)
        position += chunk.ctbytes
    return _Run(starts, position, version, is_cut=False)


def _find(
    fetch: Callable[[int, int], Any], position: int, end: int, size: int, section_bytes: int
) -> int | None:
    """Return the first byte where a block can begin, from `position` up to `end`."""
    mark = struct.pack("<I", section_bytes)
    n_looked_at = 0
    while position + BLOCK_HEADER_SIZE <= end:
        buffer = bytes(fetch(position, min(_SEARCHED_AT_ONCE, end - position)))
        # comparing is faster than searching, which matters for the holes of a sparse file
        at = -1 if buffer == _HOLE[: len(buffer)] else buffer.find(mark, 4)
        while 0 <= at - 4 <= len(buffer) - BLOCK_HEADER_SIZE:
            chunk = Chunk.parse(buffer, at - 4)
            stop = position + at - 4 + chunk.ctbytes
            if chunk.complaint(section_bytes) is None and stop <= size:
                return position + at - 4
            n_looked_at += 1
            if n_looked_at > _MOST_MARKS:
                return None
            at = buffer.find(mark, at + 1)
        position += max(len(buffer) - BLOCK_HEADER_SIZE + 1, 1)
    return None
