"""MRCZ: sections that are blosc chunks, one after the other, without an index.

See FORMAT: MRCZ. A chunk says itself how much it decodes to, and decoders believe it: what it
claims is compared with what the MRC header promises before any decoding.
"""

from __future__ import annotations

import functools
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


class _Walk(NamedTuple):
    """A run of blocks, each of which begins where the one before it ends."""

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
) -> BlockIndex:
    """Follow the block headers from the first to the last.

    Where a header is damaged, the file's last blocks are found from their end: a run of blocks
    that ends where the file does must be the last sections. So one damaged block costs one
    section, and no section is taken for another.

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

    Returns
    -------
    BlockIndex
        Of fewer than `n_sections` blocks where the file ends before.
    """
    follow = functools.partial(
        _follow, fetch, size=size, section_bytes=section_bytes, window=window
    )
    head = follow(start, n_blocks=n_sections)
    n_head = len(head.starts)
    starts = np.full(n_sections, -1, np.int64)
    stops = np.full(n_sections, -1, np.int64)
    starts[:n_head] = head.starts
    stops[:n_head] = [*head.starts[1:], head.end][:n_head]
    if n_head == n_sections:
        return BlockIndex(starts, stops, head.version, codec, head.end)

    tail, resume = None, head.end
    while (found := _find(fetch, resume + 1, size, section_bytes)) is not None:
        tail = follow(found, n_blocks=n_sections)
        resume = tail.end
        if tail.end == size:
            break
    n_tail = len(tail.starts) if tail and tail.end == size else 0
    if not n_tail and head.is_cut:
        return BlockIndex(starts[:n_head], stops[:n_head], head.version, codec, head.end)
    if n_head < n_sections:
        starts[n_head] = head.end
    if tail and 0 < n_tail <= n_sections - n_head + 1:
        first = n_sections - n_tail
        starts[first:] = tail.starts
        stops[first:] = [*tail.starts[1:], tail.end]
        if first == n_head - 1 or first == n_head:
            # the last block of the head does not end where the next one begins
            stops[first - 1] = -1
    version = head.version or (tail.version if tail else 0)
    return BlockIndex(starts, stops, version, codec, size)


def _follow(
    fetch: Callable[[int, int], Any],
    position: int,
    *,
    n_blocks: int,
    size: int,
    section_bytes: int,
    window: int,
) -> _Walk:
    """Follow up to `n_blocks` block headers, as far as they make sense."""
    starts: list[int] = []
    base, buffer, version = position, b"", 0
    while len(starts) < n_blocks:
        at = position - base
        if at + _HEADER.size > len(buffer):
            base, at = position, 0
            buffer = fetch(position, min(window, size - position))
            if len(buffer) < _HEADER.size:
                return _Walk(starts, position, version, is_cut=True)
        chunk = _Chunk(*_HEADER.unpack_from(buffer, at))
        if chunk.complaint(section_bytes) is not None:
            return _Walk(starts, position, version, is_cut=False)
        if position + chunk.ctbytes > size:
            return _Walk(starts, position, version, is_cut=True)
        version = version or chunk.version
        starts.append(position)
        position += chunk.ctbytes
    return _Walk(starts, position, version, is_cut=False)


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
