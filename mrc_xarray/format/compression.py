"""MRCZ: sections that are blosc chunks, one after the other, without an index.

See FORMAT: MRCZ. A chunk says itself how much it decodes to, and decoders believe it: what it
claims is compared with what the MRC header promises before any decoding.
"""

from __future__ import annotations

import functools
import itertools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mrc_xarray.format.errors import MrcError

__all__ = ["BLOCK_HEADER_SIZE", "CODECS", "LARGEST_BLOCK", "BlockIndex", "decode_block", "walk"]

#: What MODE // 1000 names. It is advice: the chunk itself tells what it needs.
CODECS: dict[int, str] = {
    0: "none",
    1: "blosclz",
    2: "lz4",
    3: "lz4hc",
    4: "snappy",
    5: "zlib",
    6: "zstd",
    # these came with mrcz 0.6; only blosc2 and its plug-ins have them
    7: "ndlz",
    8: "zfp_acc",
    9: "zfp_prec",
    10: "zfp_rate",
    11: "openhtj2k",
    12: "grok",
    13: "openzl",
    14: "j2k",
    15: "htj2k",
}

# bits 5–7 of a chunk's flags
_CHUNK_CODECS = ("blosclz", "lz4", "snappy", "zlib", "zstd")
# the bit of the flags that says that the chunk holds its data as they are
_COPIED = 2
_HEADER = struct.Struct("<4B3I")
BLOCK_HEADER_SIZE = _HEADER.size
#: What one block can decode to at the most, in bytes.
LARGEST_BLOCK = 2**31 - 1
# the search for the next block after a damaged one goes by these steps
_SEARCHED_AT_ONCE = 4 * 1024**2


class _Chunk(NamedTuple):
    """The 16 bytes that begin a blosc chunk; little-endian in every file.

    Attributes
    ----------
    version : int
        2 for blosc 1, 5 for blosc 2.
    codec_version, flags, typesize : int
    nbytes, blocksize, ctbytes : int
        Decoded size; size of the parts it was compressed in; size in the file with this header.
    """

    version: int
    codec_version: int
    flags: int
    typesize: int
    nbytes: int
    blocksize: int
    ctbytes: int

    @property
    def codec(self) -> str | None:
        """The codec's name, or None where it is a plug-in's."""
        number = self.flags >> 5
        return _CHUNK_CODECS[number] if number < len(_CHUNK_CODECS) else None

    @property
    def cuts_values(self) -> bool:
        """Whether a version-5 chunk was compressed in parts that are no whole numbers of values.

        They decode to wrong pixels. mrcz 0.6 makes such blocks of small sections.
        """
        has_parts = not self.flags & _COPIED and self.ctbytes > 32 and self.blocksize < self.nbytes
        return self.version == 5 and has_parts and self.blocksize % self.typesize != 0

    def is_never_set(self, raw: npt.NDArray[np.uint8]) -> bool:
        """Tell whether a version-5 chunk decodes to whatever the memory held before."""
        is_extended = self.flags & 5 == 5 and len(raw) > 31
        return is_extended and int(raw[31]) >> 4 & 7 == 4

    def complaint(self, section_bytes: int) -> str | None:
        """Return what is wrong, given what a section decodes to; None if nothing is."""
        for value, holds, what, accepted in (
            (self.version, self.version in (2, 5), "version", "2 or 5"),
            (self.typesize, self.typesize > 0, "type size", "1 or more"),
            (self.nbytes, self.nbytes == section_bytes, "decoded size", f"{section_bytes} bytes"),
            (self.ctbytes, self.ctbytes >= _HEADER.size, "size", f"{_HEADER.size} bytes or more"),
        ):
            if not holds:
                return f"its {what} is {value}; accepted: {accepted}"
        return None


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
    starts : list of int
        First byte of each.
    end : int
        The byte behind the last, or where the first was looked for in vain.
    version : int
        Chunk version of the first; 0 if there is none.
    is_cut : bool
        Whether the file ends before the next block does.
    """

    starts: list[int]
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
        _follow, fetch, n_blocks=n_sections, size=size, section_bytes=section_bytes, window=window
    )
    runs = [follow(start)]
    while len(runs[0].starts) < n_sections and runs[-1].end < size:
        last = runs[-1]
        # the size of a run's last block may be what is damaged
        behind = last.starts[-1] + _HEADER.size if last.starts else last.end + 1
        found = _find(fetch, behind, size, section_bytes)
        if found is None:
            break
        runs.append(follow(found))

    head = runs[0]
    n_blocks = n_sections
    if len(runs) == 1 and head.is_cut:
        n_blocks = len(head.starts)
    starts = np.full(n_blocks, -1, np.int64)
    stops = np.full(n_blocks, -1, np.int64)
    is_complete = packed_bytes == size - start if packed_bytes else None
    behind = 0
    for first, run in _number(runs, n_sections, size, is_complete):
        if behind == first > 0:
            # the block before does not end where this one begins
            stops[first - 1] = -1
        behind = first + len(run.starts)
        starts[first:behind] = run.starts
        stops[first:behind] = [*run.starts[1:], run.end][: len(run.starts)]
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
    starts: list[int] = []
    base, buffer, version = position, b"", 0
    while len(starts) < n_blocks:
        at = position - base
        if at + _HEADER.size > len(buffer):
            base, at = position, 0
            buffer = fetch(position, min(window, size - position))
            if len(buffer) < _HEADER.size:
                return _Run(starts, position, version, is_cut=True)
        chunk = _Chunk(*_HEADER.unpack_from(buffer, at))
        if chunk.complaint(section_bytes) is not None:
            return _Run(starts, position, version, is_cut=False)
        if position + chunk.ctbytes > size:
            return _Run(starts, position, version, is_cut=True)
        version = version or chunk.version
        starts.append(position)
        position += chunk.ctbytes
    return _Run(starts, position, version, is_cut=False)


def _find(
    fetch: Callable[[int, int], Any], position: int, size: int, section_bytes: int
) -> int | None:
    """Return the first byte at or after `position` where a block can begin."""
    mark = struct.pack("<I", section_bytes)
    while position + _HEADER.size <= size:
        buffer = bytes(fetch(position, min(_SEARCHED_AT_ONCE, size - position)))
        at = buffer.find(mark, 4)
        while 0 <= at - 4 <= len(buffer) - _HEADER.size:
            chunk = _Chunk(*_HEADER.unpack_from(buffer, at - 4))
            stop = position + at - 4 + chunk.ctbytes
            if chunk.complaint(section_bytes) is None and stop <= size:
                return position + at - 4
            at = buffer.find(mark, at + 1)
        position += max(len(buffer) - _HEADER.size + 1, 1)
    return None


def decode_block(
    raw: npt.NDArray[np.uint8], out: npt.NDArray[Any], *, codec: str, where: str
) -> None:
    """Decode one block.

    Parameters
    ----------
    raw : ndarray of uint8
        The block, whole.
    out : ndarray, C-contiguous
        What it decodes into: its size is what the block must have.
    codec : str
        That MODE names, for a message.
    where : str
        File, section and byte, for a message.

    Raises
    ------
    MrcError
        If the block is damaged, or what decodes it is not installed.
    """
    chunk = _Chunk(*_HEADER.unpack_from(raw.data, 0))
    complaint = chunk.complaint(out.nbytes)
    if complaint is None and chunk.ctbytes != len(raw):
        complaint = f"its size is {chunk.ctbytes}; accepted: {len(raw)} bytes"
    elif chunk.cuts_values:
        complaint = f"it was compressed in parts of {chunk.blocksize} bytes, which cut values"
    if complaint is not None:
        raise MrcError(f"{where}: the block is damaged: {complaint}")
    decode = _decode_with_blosc if chunk.version == 2 else _decode_with_blosc2
    n = decode(chunk, raw, out, codec, where)
    if n != out.nbytes:
        raise MrcError(f"{where}: the block is damaged: it decodes to {n} bytes")


def _decode_with_blosc(
    chunk: _Chunk, raw: npt.NDArray[np.uint8], out: npt.NDArray[Any], codec: str, where: str
) -> int:
    blosc = _blosc()
    if chunk.codec not in blosc.cnames and not chunk.flags & _COPIED:
        name = chunk.codec or codec
        raise MrcError(
            f"{where}: the codec is {name}, which the installed blosc "
            f"{blosc.__version__} can't decode: install a build of blosc that has {name}"
        )
    if blosc.nthreads != 1:
        # another library, such as mrcz, has set its own
        blosc.set_nthreads(1)
    try:
        n: int = blosc.decompress_ptr(raw, out.ctypes.data)
    except Exception as error:
        # blosc's own exception has no public name
        raise MrcError(f"{where}: the block is damaged: {error}") from error
    return n


def _decode_with_blosc2(
    chunk: _Chunk, raw: npt.NDArray[np.uint8], out: npt.NDArray[Any], codec: str, where: str
) -> int:
    name = chunk.codec or codec
    blosc2 = _blosc2()
    if blosc2 is None:
        raise MrcError(
            f"{where}: the block is a chunk of version 5 ({name}), which takes blosc2: "
            'pip install "mrc-xarray[blosc2]"'
        )
    if chunk.codec is None and codec in _CHUNK_CODECS:
        # asking blosc2 for a plug-in that is not there starts a process that looks for it
        raise MrcError(f"{where}: the block is damaged: it is not {codec}, as MODE says")
    if chunk.is_never_set(raw):
        raise MrcError(f"{where}: the block is damaged: it says that its content was never set")
    try:
        blosc2.decompress2(raw.tobytes(), dst=out.reshape(-1).view(np.uint8), nthreads=1)
    except Exception as error:
        # a codec of a plug-in that is not there looks like a damaged block
        hint = "" if chunk.codec else f"; if it is sound, pip install blosc2-{name.split('_')[0]}"
        raise MrcError(f"{where}: the block ({name}) can't be decoded: {error}{hint}") from error
    return out.nbytes


@functools.cache
def _blosc() -> Any:
    """Import blosc, and make it scale over threads.

    This is the one place where something is set for the whole process: blosc releases the GIL
    from now on, and decodes with one thread of its own. Our threads decode a block each, which
    was measured to be twice as fast as threads of blosc's on one block after the other.
    """
    import blosc

    blosc.set_releasegil(True)
    blosc.set_nthreads(1)
    return blosc


@functools.cache
def _blosc2() -> Any:
    """Import blosc2 where it is, and let it release the GIL: for the whole process, as above."""
    try:
        import blosc2
    except ImportError:
        return None
    blosc2.set_releasegil(True)
    return blosc2
