"""A small picture of the middle section, for which little of a file is read."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import xarray as xr
from xarray.core import indexing

from mrc_xarray.pixels.array import StackArray
from mrc_xarray.pixels.contrast import contrast
from mrc_xarray.pixels.variable import unwrapped
from mrc_xarray.recording import SAMPLES
from mrc_xarray.storage import ByteSource, LocalSource, MemorySource, Request, StreamSource
from mrc_xarray.storage.base import Access, MiB
from mrc_xarray.tools.drawn_axis import DOWN

__all__ = ["MOST_READ", "Thumbnail", "thumbnail"]

#: The most that is read from a file, in bytes.
MOST_READ = 1 * MiB
# pixels along the longer side
_SIDE = 144
# longer rows are not read completely, but in this many parts around the centre
_LONGEST_ROW, _N_PARTS = 64 * 1024, 64
# the most that a block or stream may decode to
_MOST_DECODED = 64 * MiB
# the contrast leaves out these percentages of the pixels
_PERCENTILES = (0.5, 99.5)

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Thumbnail:
    """A picture as PNG, the size to show it in, and what it shows."""

    png: bytes
    width: int
    height: int
    caption: str


def thumbnail(data: xr.DataArray) -> Thumbnail | None:
    """Return a picture of the middle section of data in memory, or of a file on a disk.

    At most `MOST_READ` bytes are read. Rows and columns are left out, or averaged. None if the
    data are a computation that was not done yet, if they come from a store, if more would have to
    be read, or if there is no picture of such data.

    Raises
    ------
    OSError, MrcError
        If the file can't be read.
    """
    found = _readable(data.variable)
    dims = [dim for dim in data.dims if dim not in SAMPLES]
    if found is None or len(dims) < 2 or not data.size or data.dtype.kind not in "biufc":
        return None
    variable, row_bytes, pixel_bytes = found
    middle = {dim: data.sizes[dim] // 2 for dim in dims[:-2]}
    frame = [data.sizes[dim] for dim in dims[-2:]]
    parts = _parts(frame, row_bytes, pixel_bytes)
    try:
        section = variable.isel(middle).isel(dict(zip(dims[-2:], parts, strict=True))).values
    except _TooMuchError:
        return None
    spans = [part.stop - part.start for part in parts]
    where = ", ".join(f"{dim} {i}" for dim, i in middle.items()) or "the image"
    caption = where if spans == frame else f"centre of {where}"
    height, width = (max(1, round(_SIDE * n / max(spans))) for n in spans)
    picture = _shades(_binned(section))
    # y points up, except in scans and diffraction patterns
    return Thumbnail(_png(picture if dims[-2] in DOWN else picture[::-1]), width, height, caption)


def _readable(variable: xr.Variable) -> tuple[xr.Variable, int, int] | None:
    """Return data that can be read in parts, and the bytes of a row and pixel in the file.

    These are 0 if a part of a section costs as much as the complete section.
    """
    # private: everything public would make an array of the data
    inner = unwrapped(variable._data)
    if getattr(inner, "shape", None) != variable.shape:
        return None
    if isinstance(inner, np.ndarray):
        return xr.Variable(variable.dims, inner), 0, 0
    stack = inner.array if isinstance(inner, indexing.LazilyIndexedArray) else None
    if not isinstance(stack, StackArray):
        return None
    source, sections = _limited(stack), stack.sections
    # each pixel of a plane across the columns would be a read of its own
    is_across = isinstance(inner.key.tuple[len(stack.leading) + 1], int | np.integer)
    if source is None or is_across:
        return None
    limited = replace(stack, source=source, mmap=False, is_in_task=True)
    lazy = xr.Variable(variable.dims, indexing.LazilyIndexedArray(limited, inner.key))
    if sections.is_compressed or not isinstance(source, _Limited):
        return lazy, 0, 0
    return lazy, sections.row_bytes, -(-sections.row_bytes // sections.shape[2])


def _limited(stack: StackArray) -> ByteSource | None:
    """Return a source of the same bytes that reads no more than allowed; None for a store."""
    source, sections = stack.source, stack.sections
    if isinstance(source, StreamSource):
        compressed, end = source.stream.source, sections.offset + sections.nbytes
        is_local = isinstance(compressed, LocalSource | MemorySource)
        is_short = (compressed.size or 0) <= MOST_READ and end <= _MOST_DECODED
        return source if is_local and is_short else None
    if sections.is_compressed and sections.section_bytes > _MOST_DECODED:
        return None
    if isinstance(source, LocalSource):
        return _Limited(source)
    return source if isinstance(source, MemorySource) else None


def _parts(frame: Sequence[int], row_bytes: int, pixel_bytes: int) -> list[slice]:
    """Return the rows and columns to read of a frame of rows and columns."""
    if row_bytes > _LONGEST_ROW:
        # few enough columns for the reader to leave out the others
        n_columns = min(frame[1] // 4, _LONGEST_ROW // 4 // pixel_bytes) or 1
        n_rows = min(frame[0], n_columns)
        step = -(-n_rows // _N_PARTS)
        return [_centre(frame[0], n_rows, step), _centre(frame[1], n_columns, 1)]
    if row_bytes * frame[0] > MOST_READ:
        # each of these rows is a request
        n_rows = min(MOST_READ // row_bytes, 4 * _SIDE)
        return [slice(0, frame[0], -(-frame[0] // n_rows)), slice(0, frame[1], 1)]
    return [slice(0, n, max(1, n // (4 * _SIDE))) for n in frame]


def _centre(n: int, n_wanted: int, step: int) -> slice:
    start = (n - n_wanted) // 2
    return slice(start, start + n_wanted, step)


class _TooMuchError(Exception):
    """The part of the file is too long."""


class _Limited(ByteSource):
    """A local file of which no more than `MOST_READ` bytes are read."""

    access: ClassVar[Access] = Access(gap=0, skip=1024, piece=_LONGEST_ROW // 4, batch=MOST_READ)

    def __init__(self, source: LocalSource) -> None:
        self.name, self.size = source.name, source.size
        self._source, self._left = source, MOST_READ

    def read_into(self, requests: Sequence[Request]) -> None:
        self._left -= sum(len(buffer) for _, buffer in requests)
        if self._left < 0:
            raise _TooMuchError
        self._source.read_into(requests)


def _binned(section: Array) -> Array:
    """Return the mean of blocks of pixels, without those that are not finite, as float64.

    There are less than 2 × `_SIDE` blocks along each axis.
    """
    values = (np.abs(section) if section.dtype.kind == "c" else section).astype(np.float64)
    values[~np.isfinite(values)] = np.nan
    y, x = (max(1, n // _SIDE) for n in values.shape[:2])
    n_y, n_x = values.shape[0] // y, values.shape[1] // x
    blocks = values[: n_y * y, : n_x * x].reshape(n_y, y, n_x, x, *values.shape[2:])
    count = np.isfinite(blocks).sum((1, 3))
    mean: Array = np.nansum(blocks, (1, 3)) / np.where(count, count, np.nan)
    return mean


def _shades(values: Array) -> Array:
    """Return values from black to white as uint8, by percentiles; gray if all are equal."""
    low, high = contrast([values], _PERCENTILES) or (0, 1)
    if low == high:
        return np.full(values.shape, 128, np.uint8)
    scaled = np.nan_to_num((values - low) / (high - low), nan=0.0)
    shades: Array = np.rint(255 * scaled.clip(0, 1)).astype(np.uint8)
    return shades


def _png(pixels: Array) -> bytes:
    """Return a PNG of gray or colour pixels, with the first row at the top."""
    n_rows, n_columns = pixels.shape[:2]
    colours = pixels.reshape(n_rows, n_columns, -1)[..., :3]
    kind = 2 if colours.shape[2] == 3 else 0
    rows = b"".join(b"\0" + row.tobytes() for row in colours)
    header = struct.pack(">2I5B", n_columns, n_rows, 8, kind, 0, 0, 0)
    chunks = (b"IHDR" + header, b"IDAT" + zlib.compress(rows), b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in chunks
    )
