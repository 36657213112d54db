"""Blosc chunks: what their headers contain, and how to decode and encode them.

A chunk header gives the decoded size, and decoders trust it: it is compared with what the MRC
header promises before anything is decoded. See ``docs/reference/format.md#mrcz``.
"""

from __future__ import annotations

import functools
import struct
from typing import Any, NamedTuple, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from mrc_xarray.errors import MrcError
from mrc_xarray.installation import install_command

__all__ = [
    "BLOCK_HEADER_SIZE",
    "LARGEST_BLOCK",
    "MRCZ_CODECS",
    "Chunk",
    "Fault",
    "codec_number",
    "decode_block",
    "encode_block",
]

#: By MODE // 1000. It is a hint: the chunk header names the codec that is needed.
MRCZ_CODECS: dict[int, str] = dict(enumerate((
    "none", "blosclz", "lz4", "lz4hc", "snappy", "zlib", "zstd",
    # since mrcz 0.6; only blosc2 and its plug-ins have these
    "ndlz", "zfp_acc", "zfp_prec", "zfp_rate", "openhtj2k", "grok", "openzl", "j2k", "htj2k",
)))  # fmt: skip

# bits 5–7 of the flags of a chunk
_CHUNK_CODECS = ("blosclz", "lz4", "snappy", "zlib", "zstd")
# the flag of a chunk that contains its data uncompressed
_COPIED = 2
# the flags of shuffled bytes and shuffled bits; with both, the header is the long one of version 5
_SHUFFLED = 5
# bytes that are compressed together: with these, zstd is faster and better than by default
_BLOCK_SIZE = 512 * 1024
_TYPE_SIZES = (1, 2, 4, 8, 16)

_Bytes: TypeAlias = npt.NDArray[np.uint8]

_HEADER = struct.Struct("<4B3I")
#: Length of a chunk header in bytes.
BLOCK_HEADER_SIZE = _HEADER.size
#: The largest decoded length of one block in bytes.
LARGEST_BLOCK = 2**31 - 1


class Fault(NamedTuple):
    """A field of a chunk header that can't be right."""

    field: str
    found: int
    accepted: str

    def __str__(self) -> str:
        return f"its {self.field} is {self.found}; accepted: {self.accepted}"


class Chunk(NamedTuple):
    """The first 16 bytes of a blosc chunk; little-endian in every file.

    `version` is 2 for blosc 1 and 5 for blosc 2. `nbytes` is the decoded size, `blocksize` the
    size of the parts that were compressed, and `ctbytes` the size in the file with this header.
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
        """The name of the codec, or None for a plug-in."""
        number = self.flags >> 5
        return _CHUNK_CODECS[number] if number < len(_CHUNK_CODECS) else None

    @property
    def cuts_values(self) -> bool:
        """Whether a version-5 chunk was compressed in parts that end within a value.

        It decodes to wrong pixels. mrcz 0.6 makes such chunks of small sections.
        """
        has_parts = not self.flags & _COPIED and self.ctbytes > 32 and self.blocksize < self.nbytes
        return self.version == 5 and has_parts and self.blocksize % self.typesize != 0

    def is_hollow(self, raw: _Bytes) -> bool:
        """Return whether a version-5 chunk claims a constant content, but has another size.

        The header alone gives all zeros (kind 1) or NaN (2), and one more value a constant (3).
        An uninitialised chunk (4) decodes to whatever was in memory.
        """
        if self.flags & _SHUFFLED != _SHUFFLED or len(raw) < 32:
            return False
        kind = int(raw[31]) >> 4 & 7
        sizes = {0: self.ctbytes, 1: 32, 2: 32, 3: 32 + self.typesize}
        return sizes.get(kind) != self.ctbytes

    def fault(self, section_bytes: int) -> Fault | None:
        """Return what is wrong, given the decoded size of a section; None if nothing is."""
        if self.version not in (2, 5):
            return Fault("version", self.version, "2 or 5")
        # mrcz writes the size of the type before a cast
        if self.typesize not in _TYPE_SIZES:
            return Fault("type size", self.typesize, "1, 2, 4, 8 or 16")
        if self.nbytes != section_bytes:
            return Fault("decoded size", self.nbytes, f"{section_bytes} bytes")
        least = BLOCK_HEADER_SIZE + (16 if self.version == 5 else min(self.nbytes, 4))
        if self.ctbytes < least:
            return Fault("size", self.ctbytes, f"{least} bytes or more")
        return None


def decode_block(
    raw: _Bytes,
    out: npt.NDArray[Any],
    *,
    codec: str,
    where: str,
    n_threads: int = 1,
) -> None:
    """Decode one complete block to `out`, which is C-contiguous and has the expected size.

    `codec` is the codec that MODE names, `where` is file, section and byte, and `n_threads` is how
    many threads share the block. Raises MrcError if the block is damaged, or if the package that
    decodes it is not installed.
    """
    chunk = Chunk.parse(raw.data)
    reason: object = chunk.fault(out.nbytes)
    if reason is None and chunk.ctbytes != len(raw):
        reason = Fault("size", chunk.ctbytes, f"{len(raw)} bytes")
    if reason is None and chunk.cuts_values:
        reason = (
            f"it was compressed in parts of {chunk.blocksize} bytes, which end within values. "
            "mrcz makes such blocks of small sections with backend='blosc2', and can't read them "
            "either"
        )
    if reason is not None:
        raise MrcError(f"{where}: the block is damaged: {reason}")
    decode = _decode_with_blosc if chunk.version == 2 else _decode_with_blosc2
    decode(chunk, raw, out, chunk.codec or codec, where, n_threads)


def codec_number(compressor: str) -> int:
    """Return the number in MODE of a codec, or raise MrcError if it can't be used here.

    Its name follows "blosc2:" for chunks of version 5.
    """
    name = compressor.removeprefix("blosc2:")
    known = ["blosclz", "lz4", "lz4hc", "zlib", "zstd"]
    if "snappy" in _blosc().cnames:
        known.append("snappy")
    if name not in known:
        raise MrcError(
            f"compressor is {compressor!r}; accepted: 'auto', None, "
            f"{', '.join(map(repr, known))}, or one of them after 'blosc2:'"
        )
    if compressor != name and _blosc2() is None:
        raise MrcError(f"compressor={compressor!r} requires blosc2: {install_command('blosc2')}")
    if compressor == name and name not in _blosc().cnames:
        raise MrcError(f"the installed blosc can't encode {name}: install a build that can")
    return next(number for number, codec in MRCZ_CODECS.items() if codec == name)


def encode_block(section: _Bytes, *, compressor: str, level: int, typesize: int) -> bytes:
    """Encode the bytes of one section, of numbers of `typesize` bytes, with shuffled bits.

    `compressor` is as for `codec_number`, and `level` is 0 to 9.
    """
    codec = compressor.removeprefix("blosc2:")
    encoded: bytes
    if codec != compressor:
        blosc2 = _blosc2()
        options = {"codec": blosc2.Codec[codec.upper()], "filters": [blosc2.Filter.BITSHUFFLE]}
        encoded = blosc2.compress2(
            section.reshape(-1), typesize=typesize, clevel=level, nthreads=1, **options
        )
        return encoded
    blosc = _blosc()
    if blosc.get_blocksize() != _BLOCK_SIZE:
        # another library, such as mrcz, has set its own
        blosc.set_blocksize(_BLOCK_SIZE)
    encoded = blosc.compress_ptr(
        section.ctypes.data, section.size // typesize, typesize, level, blosc.BITSHUFFLE, codec
    )
    return encoded


def _decode_with_blosc(
    chunk: Chunk, raw: _Bytes, out: npt.NDArray[Any], codec: str, where: str, n_threads: int
) -> None:
    blosc = _blosc(n_threads)
    if chunk.codec not in blosc.cnames and not chunk.flags & _COPIED:
        raise MrcError(
            f"{where}: the codec is {codec}, which the installed blosc {blosc.__version__} can't "
            f"decode: install a build of blosc that has {codec}"
        )
    try:
        n = blosc.decompress_ptr(raw, out.ctypes.data)
    except Exception as error:
        # the exception of blosc has no public name
        raise MrcError(f"{where}: the block is damaged: {error}") from error
    if n != out.nbytes:
        raise MrcError(f"{where}: the block is damaged: it decodes to {n} bytes")


def _decode_with_blosc2(
    chunk: Chunk, raw: _Bytes, out: npt.NDArray[Any], codec: str, where: str, n_threads: int
) -> None:
    blosc2 = _blosc2()
    if blosc2 is None:
        raise MrcError(
            f"{where}: the block is a chunk of version 5 ({codec}), which requires blosc2: "
            f"{install_command('blosc2')}"
        )
    if chunk.codec is None and codec in _CHUNK_CODECS:
        # for an unknown plug-in, blosc2 starts a process that searches for it
        raise MrcError(
            f"{where}: the block is damaged: its codec is not {codec}, which MODE names"
        )
    if chunk.is_hollow(raw):
        raise MrcError(f"{where}: the block is damaged: its header says that it has no content")
    try:
        blosc2.decompress2(raw, dst=out.reshape(-1).view(np.uint8), nthreads=n_threads)
    except Exception as error:
        # a plug-in that is not installed looks like a damaged block
        plugin = install_command(f"blosc2-{codec.split('_')[0]}")
        hint = "" if chunk.codec else f"; if it is not, {plugin}"
        raise MrcError(f"{where}: the block ({codec}) is damaged: {error}{hint}") from error


def _blosc(n_threads: int = 1) -> Any:
    """Return blosc with some threads, whatever another library, such as mrcz, has set.

    By default each of our threads decodes a block of its own, which is twice as fast as threads
    of blosc that share one block.
    """
    blosc = _import_blosc()
    if blosc.nthreads != n_threads:
        blosc.set_nthreads(n_threads)
    return blosc


@functools.cache
def _import_blosc() -> Any:
    """Import blosc and let it release the GIL, for the complete process."""
    import blosc

    blosc.set_releasegil(True)
    return blosc


@functools.cache
def _blosc2() -> Any:
    """Import blosc2, if it is installed, and let it release the GIL, for the complete process."""
    try:
        import blosc2
    except ImportError:
        return None
    blosc2.set_releasegil(True)
    return blosc2
