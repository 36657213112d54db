"""The codecs of compressed streams: how a stream begins, and what decodes and encodes it."""

from __future__ import annotations

import gzip
import lzma
import os
import re
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple, cast

from mrc_xarray.errors import MrcError
from mrc_xarray.installation import install_command
from mrc_xarray.storage.decoders import Decoder, MemberDecoder, isal, open_archive
from mrc_xarray.suffixes import CODECS_BY_SUFFIX, READ_ONLY_CODECS

__all__ = ["CODECS", "WRITABLE", "begins_stream", "codec_of", "decoder", "encoder"]


class Codec(NamedTuple):
    """A codec of compressed streams."""

    #: How a stream begins, as a regular expression.
    magic: bytes
    #: Most bytes that one compressed byte decodes to, by the definition of the format.
    expansion: int
    #: What to install, if neither this package nor the standard library decodes it.
    package: str = ""


# bzip2: a block contains 900,000 bytes, of which each 5 can encode 255. It needs at least
# 24 bytes: 156 bits of headers, 16 of two tables, and 20 of symbols.
_BZ2_EXPANSION = 900_000 * 51 // 24
# LZMA: a repeated match of 273 bytes needs 14 decisions. Each needs at least 0.022 bits, since
# the coder's largest probability is 2017 in 2048. LZMA2 and .xz only add to that.
_LZMA_EXPANSION = 7_100
#: By fsspec's names. No MRC file begins like one of them: NX would be negative, or larger than
#: any file.
CODECS = {
    # deflate (RFC 1951): a match of 258 bytes needs 2 bits, one each for length and distance
    "gzip": Codec(rb"\x1f\x8b\x08", 1032),
    "bz2": Codec(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", _BZ2_EXPANSION),
    "xz": Codec(rb"\xfd7zXZ\0", _LZMA_EXPANSION),
    "lzma": Codec(rb"\x5d\0\0\x80\0", _LZMA_EXPANSION),
    # zstd (RFC 8878): a block of 128 KiB needs 3 bytes of header and 1 byte that is repeated
    "zstd": Codec(rb"\x28\xb5\x2f\xfd", 128 * 1024 // 4, "zstandard"),
    # lz4: each additional byte of a match's length encodes 255
    "lz4": Codec(rb"\x04\x22\x4d\x18", 255, "lz4"),
    # zip: the largest expansion of its methods
    "zip": Codec(rb"PK\x03\x04", _BZ2_EXPANSION),
}


def begins_stream(head: bytes) -> str | None:
    """Return the codec of a stream that begins with `head`, by fsspec's name, or None."""
    return next((name for name, codec in CODECS.items() if re.match(codec.magic, head)), None)


#: Names of codecs that streams are written with, and fsspec's names of these codecs.
WRITABLE = {codec: codec for codec in CODECS_BY_SUFFIX.values()} | {"bzip2": "bz2"}


def codec_of(name: str, compression: str | None = "auto") -> str | None:
    """Return the codec for writing a file of this name, by fsspec's name, or None.

    `compression` is a key of `WRITABLE`, None, or "auto" for what the suffix says. MrcError is
    raised if the codec is not installed, or can only be read.
    """
    if compression is None:
        return None
    suffix = os.path.splitext(name.lower())[1]
    if compression == "auto" and suffix in READ_ONLY_CODECS:
        raise MrcError(
            f"{name}: {READ_ONLY_CODECS[suffix]} can be read and not written; accepted suffixes: "
            f"{', '.join(CODECS_BY_SUFFIX)}"
        )
    codec = CODECS_BY_SUFFIX.get(suffix) if compression == "auto" else WRITABLE[compression]
    if codec is not None:
        _fsspec_codec(codec, name)
    return codec


def decoder(codec: str, file: BinaryIO, name: str) -> Decoder:
    """Return the decoder of `file`.

    MrcError is raised if its package is not installed, if the stream needs too much memory, or if
    it is an archive of several files.
    """
    if codec == "zip":
        return open_archive(file, name)
    if not CODECS[codec].package:
        return MemberDecoder(codec, CODECS[codec].magic, file, name)
    return cast(Decoder, _fsspec_codec(codec, name)(file, mode="rb"))


def encoder(codec: str, file: BinaryIO, name: str) -> BinaryIO:
    """Open a file that writes to `file`, compressed; raise MrcError if a package is missing."""
    opened: Any
    # gzip has no name and no time, so that the same pixels give the same bytes
    if codec == "gzip" and isal() is not None:
        from isal import igzip

        faster: Any = igzip
        # level 2, the default, is 10 times as fast as zlib's level 6, and the files of maps and
        # movies are little longer
        opened = faster.IGzipFile("", "wb", 2, file, mtime=0)
    elif codec == "gzip":
        # level 6 is the default of the program gzip
        opened = gzip.GzipFile("", "wb", 6, file, mtime=0)
    else:
        # by default fsspec's codec writes .xz
        options = {"format": lzma.FORMAT_ALONE} if codec == "lzma" else {}
        opened = _fsspec_codec(codec, name)(file, mode="wb", **options)
    return cast("BinaryIO", opened)


def _fsspec_codec(codec: str, name: str) -> Callable[..., Any]:
    from fsspec.compression import compr

    if codec not in compr:
        command = install_command(CODECS[codec].package or codec)
        raise MrcError(f"{name}: a {codec} stream needs another package: {command}")
    return cast("Callable[..., Any]", compr[codec])
