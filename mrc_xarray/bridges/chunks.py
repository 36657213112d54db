"""The pixels of a file as chunks of a Zarr array: which bytes they are, and how to decode them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isqrt, log, prod
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from mrc_xarray.errors import MrcError
from mrc_xarray.pixels.array import StackArray
from mrc_xarray.pixels.modes import MODES
from mrc_xarray.pixels.variable import stack_of
from mrc_xarray.storage import StoreSource, StreamSource
from mrc_xarray.storage.base import MiB
from mrc_xarray.storage.urls import has_encoded_names

__all__ = ["Chunked", "chunk_shape", "chunked", "pixels_of"]

Array: TypeAlias = npt.NDArray[np.int64]
Codec: TypeAlias = dict[str, Any]

# of several small sections, or of a band of rows in a very large one
_CHUNK = 4 * MiB
_LARGEST = 64 * MiB


@dataclass(frozen=True, kw_only=True, eq=False)
class Chunked:
    """The chunks of one file, in a regular grid.

    Attributes
    ----------
    name : str
        Absolute path, or URL without credentials.
    chunk : tuple of int
        Pixels of one chunk along each dimension of the data.
    offsets, lengths : ndarray of int64, of the shape of the grid
        First byte and number of bytes of each chunk. The offset is -1 where none was recorded.
    serializer : dict
        Zarr's codec from the bytes to the pixels, as JSON.
    compressor : dict or None
        Zarr's codec of the compression.
    """

    name: str
    chunk: tuple[int, ...]
    offsets: Array
    lengths: Array
    serializer: Codec
    compressor: Codec | None


def pixels_of(ds: xr.Dataset) -> StackArray:
    """Return the array that the pixels of an opened file are read from.

    Raises MrcError if the pixels are not byte ranges of a file that can be opened by its name.
    """
    array = stack_of(ds["data"].variable) if "data" in ds else None
    if array is None:
        raise MrcError(
            "the data are not the pixels of one file, so that no bytes can be referred to"
        )
    name = array.source.name
    if isinstance(array.source, StreamSource):
        raise MrcError(
            f"{name}: pixels in a compressed stream have no byte ranges that can be referred to. "
            "Decompress the file, or convert it to MRCZ"
        )
    if not array.source.can_be_reopened:
        raise MrcError(f"{name}: an open file or bytes can't be referred to; pass a path or URL")
    if "://" in name and "::" in name:
        raise MrcError(
            f"{name}: a chain of URLs can't be referred to; pass the URL of the file itself"
        )
    path = array.source.path if isinstance(array.source, StoreSource) else ""
    if set("?#") & set(path) and not has_encoded_names(path):
        raise MrcError(
            f"{name}: the name of the file contains ? or #, where the URL of a reference ends. "
            "Rename the file"
        )
    return array


def chunk_shape(
    arrays: Sequence[StackArray], shape: Sequence[int], n_sections: int | None = None
) -> tuple[int, ...]:
    """Choose the chunks of files of one kind, which are contiguous in each file.

    Parameters
    ----------
    arrays : sequence of StackArray
    shape : sequence of int
        A shape that the shape of each file is a multiple of.
    n_sections : int, optional
        How many sections a chunk has at most, instead of as many as make a few MiB.

    Returns
    -------
    tuple of int
        Pixels of one chunk along each dimension; it divides `shape`.
    """
    sections, n_leading = arrays[0].sections, len(arrays[0].leading)
    leading, frame = tuple(shape[:n_leading]), tuple(shape[n_leading:])
    if any(array.sections.is_compressed for array in arrays):
        return (1,) * n_leading + frame
    if sections.section_bytes > _LARGEST and len(frame) > 1:
        rows = _nearest(_divisors(frame[0]), sections.row_bytes)[0]
        return (*(1,) * n_leading, rows, *frame[1:])
    runs = _runs(leading, [array.leading for array in arrays])
    for n in _nearest(runs, sections.section_bytes):
        is_allowed = n_sections is None or n <= n_sections
        if n == 1 or (is_allowed and all(_follow_each_other(array, n) for array in arrays)):
            return *runs[n], *frame
    return (1,) * n_leading + frame


def chunked(array: StackArray, shape: Sequence[int], chunk: tuple[int, ...]) -> Chunked:
    """Return the chunks of a file whose data have `shape`."""
    sections, n_leading = array.sections, len(array.leading)
    serializer, compressor = _codecs(array)
    firsts = array.sections_at(chunk[:n_leading])
    starts, lengths = sections.ranges(np.maximum(firsts, 0))
    # a spectrum has no rows
    has_rows = len(shape) == len(array.shape)
    n_bands = shape[n_leading] // chunk[n_leading] if has_rows else 1
    bands = np.arange(n_bands) * (sections.section_bytes // n_bands)
    offsets = starts[..., np.newaxis] + bands
    offsets[firsts < 0] = -1
    nbytes = lengths * prod(chunk[:n_leading]) // n_bands
    grid = tuple(n // size for n, size in zip(shape, chunk, strict=True))
    return Chunked(
        name=array.source.name,
        chunk=chunk,
        offsets=offsets.reshape(grid),
        lengths=np.repeat(nbytes, n_bands).reshape(grid),
        serializer=serializer,
        compressor=compressor,
    )


def _codecs(array: StackArray) -> tuple[Codec, Codec | None]:
    """Return Zarr's codecs that decode the sections of a file, or raise MrcError."""
    sections, name = array.sections, array.source.name
    # a byte has no order
    is_big = sections.byteorder == ">" and np.dtype(sections.mode.stored).itemsize > 1
    endian = {"endian": "big" if is_big else "little"}
    if sections.mode.is_plain:
        serializer = {"name": "bytes", "configuration": endian}
    elif MODES.get(sections.mode.number) == sections.mode:
        configuration = {"mode": sections.mode.number} | endian
        serializer = {"name": "mrc_xarray.mode", "configuration": configuration}
    else:
        raise MrcError(
            f"{name}: no codec of Zarr decodes these pixels, {sections.mode.decoded_name} that "
            "are stored in another form. Convert the file to Zarr"
        )
    if sections.compressor is None:
        return serializer, None
    if sections.compressor != "blosc":
        raise MrcError(
            f"{name}: the blocks are chunks of version 5 (blosc2), which no codec of Zarr "
            "decodes; accepted: version 2. Write the file again with compressor='zstd'"
        )
    # a chunk names its codec, level and sizes; all files have the same text, to be concatenated
    options = {"cname": "zstd", "clevel": 1, "shuffle": "bitshuffle", "blocksize": 0}
    options["typesize"] = max(1, np.dtype(sections.mode.stored).itemsize)
    return serializer, {"name": "blosc", "configuration": options}


def _nearest(counts: Iterable[int], nbytes: int) -> list[int]:
    """Return how many units of `nbytes` are closest to the size of a chunk, best first."""
    possible = [n for n in counts if n == 1 or n * nbytes <= _LARGEST]
    return sorted(possible, key=lambda n: abs(log(n * nbytes / _CHUNK)))


def _runs(
    leading: tuple[int, ...], in_files: Sequence[tuple[int, ...]]
) -> dict[int, tuple[int, ...]]:
    """Return the blocks of sections that follow each other, by their number of sections.

    `leading` is a part of each file, whose own sizes are `in_files`.
    """
    found = {1: (1,) * len(leading)}
    inner = 1
    for axis in reversed(range(len(leading))):
        for n in _divisors(leading[axis]):
            found[n * inner] = (*(1,) * axis, n, *leading[axis + 1 :])
        if any(sizes[axis] != leading[axis] for sizes in in_files):
            break
        inner *= leading[axis]
    return found


def _divisors(n: int) -> list[int]:
    small = [d for d in range(1, isqrt(n) + 1) if n % d == 0]
    return sorted({*small, *(n // d for d in small)})


def _follow_each_other(array: StackArray, n: int) -> bool:
    """Return whether blocks of `n` positions have sections in the order of the file, or none."""
    if array.frame_index is None:
        return True
    blocks = array.frame_index.reshape(-1, n)
    in_order = (blocks == blocks[:, :1] + np.arange(n)).all(axis=1) & (blocks[:, 0] >= 0)
    return bool((in_order | (blocks < 0).all(axis=1)).all())
