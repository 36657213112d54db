"""Narrow columns of a local file, copied from a memory map of it."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mrc_xarray.pixels.sections import Sections
from mrc_xarray.pixels.selection import Numbers, Pick, length, numbers_within, select
from mrc_xarray.storage import ByteSource
from mrc_xarray.storage.base import MiB
from mrc_xarray.storage.threads import run_in_threads

__all__ = ["copy_columns"]

Array: TypeAlias = npt.NDArray[Any]

# of wider columns, complete rows are read
_NARROW = 1 / 4
# fewer bytes of rows are read in little time
_LARGE = MiB
# bytes that a thread copies at once
_PIECE = MiB


def copy_columns(
    source: ByteSource,
    sections: Sections,
    result: Array,
    numbers: Numbers,
    picks: list[Pick],
    n_threads: int,
) -> bool:
    """Copy a few adjacent columns of many rows to `result`, without reading the complete rows.

    `numbers` are the selected sections, and `picks` select their rows, columns and samples. Return
    False if the rows have to be read.
    """
    rows, columns, *samples = picks
    _, n_rows, n_columns, *_ = sections.shape
    if sections.is_compressed or sections.mode.is_packed:
        return False
    first, width = _extent(columns)
    pixel = sections.row_bytes // n_columns
    nbytes = len(numbers) * length(rows, n_rows) * sections.row_bytes
    if width > _NARROW * n_columns or width * pixel > _PIECE or nbytes < _LARGE:
        return False
    parts = _parts(source, sections, first * pixel, width * pixel)
    if parts is None:
        return False
    chosen = numbers_within(numbers, rows, n_rows)
    within = slice(0, width, columns.step) if isinstance(columns, slice) else columns - first
    target = result.reshape(len(chosen), *map(length, picks[1:], sections.shape[2:]))

    def copy(at: slice) -> None:
        some = chosen[at]
        raw = parts[some.start : some.stop] if isinstance(some, range) else parts[some]
        in_memory = np.ascontiguousarray(raw).view(np.uint8)
        pixels = sections.mode.decode(in_memory, sections.byteorder, width)
        target[at] = select(pixels, [slice(None), within, *samples])

    step = min(_PIECE // (width * pixel), -(-len(chosen) // n_threads))
    pieces = [slice(start, start + step) for start in range(0, len(chosen), step)]
    run_in_threads(copy, pieces, n_threads)
    return True


def _parts(source: ByteSource, sections: Sections, start: int, nbytes: int) -> Array | None:
    """Return the bytes from `start` of each row of a map, as one element; None without a map."""
    mapped = source.map(writable=False) if source.is_on_local_disk else None
    if mapped is None:
        return None
    n_rows = sections.shape[0] * sections.shape[1]
    offset = sections.offset + start
    return np.ndarray((n_rows,), f"V{nbytes}", mapped, offset, (sections.row_bytes,))


def _extent(pick: Pick) -> tuple[int, int]:
    """Return the first selected index, and how many there are from it to the last one."""
    if isinstance(pick, slice):
        return pick.start, pick.stop - pick.start
    return int(pick[0]), int(pick[-1] - pick[0] + 1)
