"""Blosc chunks: what their headers say, and how to decode them.

See FORMAT: MRCZ. A chunk says itself how much it decodes to, and decoders believe it: what it
claims is compared with what the MRC header promises before any decoding.
"""

from __future__ import annotations

import functools
import struct
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from mrc_xarray.errors import MrcError

__all__ = [
    "BLOCK_HEADER_SIZE",
    "CODECS",
    "LARGEST_BLOCK",
    "Chunk",
    "decode_block",
    "encode_block",
    "encoder",
]

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
# the bits for shuffled bytes and shuffled bits; with both, the header is version 5's long one
_SHUFFLED = 5
# bytes that are compressed together: zstd is quicker, and packs better, than with blosc's choice
_PART = 512 * 1024
_TYPE_SIZES = (1, 2, 4, 8, 16)

_HEADER = struct.Struct("<4B3I")
#: Bytes that say what a block is.
BLOCK_HEADER_SIZE = _HEADER.size
#: What one block can decode to at the most, in bytes.
LARGEST_BLOCK = 2**31 - 1


class Chunk(NamedTuple):
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

    @classmethod
    def parse(cls, buffer: Any, at: int = 0) -> Self:
        """Decode the header that begins at byte `at` of a buffer."""
        return cls(*_HEADER.unpack_from(buffer, at))

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

    def is_hollow(self, raw: npt.NDArray[np.uint8]) -> bool:
        """Tell whether a version-5 chunk claims to be all alike, and yet has a content.

        All zeros (kind 1) or NaN (2) is told by the header alone, and one value (3) by that
        value. What was never set (4) decodes to whatever the memory held before.
        """
        if self.flags & _SHUFFLED != _SHUFFLED or len(raw) < 32:
            return False
        kind = int(raw[31]) >> 4 & 7
        sizes = {0: self.ctbytes, 1: 32, 2: 32, 3: 32 + self.typesize}
        return sizes.get(kind) != self.ctbytes

    def complaint(self, section_bytes: int) -> str | None:
        """Return what is wrong, given what a section decodes to; None if nothing is."""
        least = BLOCK_HEADER_SIZE + (16 if self.version == 5 else min(self.nbytes, 4))
        # it need not be the stored type's: mrcz has the one from before a cast
        sane = self.typesize in _TYPE_SIZES
        for value, holds, what, accepted in (
            (self.version, self.version in (2, 5), "version", "2 or 5"),
            (self.typesize, sane, "type size", "1, 2, 4, 8 or 16"),
            (self.nbytes, self.nbytes == section_bytes, "decoded size", f"{section_bytes} bytes"),
            (self.ctbytes, self.ctbytes >= least, "size", f"{least} bytes or more"),
        ):
            if not holds:
                return f"its {what} is {value}; accepted: {accepted}"
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
    chunk = Chunk.parse(raw.data)
    complaint = chunk.complaint(out.nbytes)
    if complaint is None and chunk.ctbytes != len(raw):
        complaint = f"its size is {chunk.ctbytes}; accepted: {len(raw)} bytes"
    if complaint is None and chunk.cuts_values:
        complaint = (
            f"it was compressed in parts of {chunk.blocksize} bytes, which cut values. mrcz makes "
            "such blocks of small sections with backend='blosc2', and can't read them either"
        )
    if complaint is not None:
        raise MrcError(f"{where}: the block is damaged: {complaint}")
    decode = _decode_with_blosc if chunk.version == 2 else _decode_with_blosc2
    n = decode(chunk, raw, out, codec, where)
    if n != out.nbytes:
        raise MrcError(f"{where}: the block is damaged: it decodes to {n} bytes")


def encoder(compressor: str) -> int:
    """Return the number in MODE of a codec that blocks can be encoded with.

    Parameters
    ----------
    compressor : str
        The codec's name; with "blosc2:" before it, for chunks of version 5.

    Raises
    ------
    MrcError
        If there is no such codec, or what has it is not installed.
    """
    name = compressor.removeprefix("blosc2:")
    known = ["blosclz", "lz4", "lz4hc", "zlib", "zstd"]
    if "snappy" in _blosc().cnames:
        known.append("snappy")
    if name not in known:
        raise MrcError(
            f"compressor is {compressor!r}; accepted: 'auto', None, "
            f"{', '.join(map(repr, known))}, or one of them behind 'blosc2:'"
        )
    if compressor != name:
        if _blosc2() is None:
            raise MrcError(f'compressor={compressor!r} takes pip install "mrc-xarray[blosc2]"')
    elif name not in _blosc().cnames:
        raise MrcError(f"the installed blosc can't encode {name}: install a build that has it")
    return next(number for number, codec in CODECS.items() if codec == name)


def encode_block(
    section: npt.NDArray[np.uint8], *, compressor: str, level: int, typesize: int
) -> bytes:
    """Encode one section as a block with shuffled bits.

    Parameters
    ----------
    section : ndarray of uint8, C-contiguous
    compressor : str
        As for `encoder`.
    level : int
        0 to 9.
    typesize : int
        Bytes of one pixel.
    """
    codec = compressor.removeprefix("blosc2:")
    if codec != compressor:
        blosc2 = _blosc2()
        packed: bytes = blosc2.compress2(
            section.reshape(-1),
            typesize=typesize,
            codec=blosc2.Codec[codec.upper()],
            clevel=level,
            filters=[blosc2.Filter.BITSHUFFLE],
            nthreads=1,
        )
        return packed
    blosc = _blosc()
    if blosc.nthreads != 1:
        blosc.set_nthreads(1)
    if blosc.get_blocksize() != _PART:
        # another library, such as mrcz, has set its own
        blosc.set_blocksize(_PART)
    packed = blosc.compress_ptr(
        section.ctypes.data, section.size // typesize, typesize, level, blosc.BITSHUFFLE, codec
    )
    return packed


def _decode_with_blosc(
    chunk: Chunk, raw: npt.NDArray[np.uint8], out: npt.NDArray[Any], codec: str, where: str
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
    chunk: Chunk, raw: npt.NDArray[np.uint8], out: npt.NDArray[Any], codec: str, where: str
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
    if chunk.is_hollow(raw):
        raise MrcError(f"{where}: the block is damaged: it says that it has no content of its own")
    try:
        blosc2.decompress2(raw, dst=out.reshape(-1).view(np.uint8), nthreads=1)
    except Exception as error:
        # a codec of a plug-in that is not there looks like a damaged block
        hint = "" if chunk.codec else f"; if it is sound, pip install blosc2-{name.split('_')[0]}"
        raise MrcError(f"{where}: the block ({name}) can't be decoded: {error}{hint}") from error
    return out.nbytes


@functools.cache
def _blosc() -> Any:
    """Import blosc, and make it scale over threads.

    Here, and in `encode_block`, something is set for the whole process: blosc releases the GIL
    from now on, works with one thread of its own, and compresses in larger parts. Our threads have
    a block each, which was measured to be twice as fast as threads of blosc's on one block after
    the other.
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
