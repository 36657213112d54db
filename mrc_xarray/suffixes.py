"""The suffixes of file names."""

from __future__ import annotations

import os

__all__ = [
    "COMPRESSED_SUFFIXES",
    "MRC_SUFFIXES",
    "STACK_SUFFIXES",
    "VOLUME_SUFFIXES",
    "stem_and_suffix",
]

VOLUME_SUFFIXES = (".rec", ".map", ".ccp4")
STACK_SUFFIXES = (".mrcs", ".st", ".ali", ".preali")
MRC_SUFFIXES = (".mrc", ".mrcz", *VOLUME_SUFFIXES, *STACK_SUFFIXES)
#: Compressed streams add one of these to the suffix of the file that they contain.
COMPRESSED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".lzma")


def stem_and_suffix(name: str) -> tuple[str, str]:
    """Split a path or URL into stem and lower-case suffix, without a suffix of compression."""
    path = name
    if "://" in name:
        # in a chain like simplecache::s3://bucket/key, the first URL names the file
        url = next(part for part in name.split("::") if "://" in part)
        path = url.split("?")[0].split("#")[0]
    stem, suffix = os.path.splitext(path)
    if suffix.lower() in COMPRESSED_SUFFIXES:
        stem, suffix = os.path.splitext(stem)
    return stem, suffix.lower()
