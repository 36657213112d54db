"""The suffixes of file names."""

from __future__ import annotations

import os

__all__ = [
    "CODECS_BY_SUFFIX",
    "COMPRESSED_SUFFIXES",
    "DM_SUFFIXES",
    "MRC_SUFFIXES",
    "OTHER_FORMATS",
    "READ_ONLY_CODECS",
    "STACK_SUFFIXES",
    "VOLUME_SUFFIXES",
    "compressed_suffix",
    "stem_and_suffix",
]

VOLUME_SUFFIXES = (".rec", ".map", ".ccp4")
STACK_SUFFIXES = (".mrcs", ".st", ".ali", ".preali")
MRC_SUFFIXES = (".mrc", ".mrcz", *VOLUME_SUFFIXES, *STACK_SUFFIXES)
DM_SUFFIXES = (".dm3", ".dm4")
#: What encodes a file by the suffix of its name, by fsspec's names.
CODECS_BY_SUFFIX = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd", ".lzma": "lzma"}
#: What a file with one of these suffixes is compressed with; such a file is not written.
READ_ONLY_CODECS = {".zip": "zip", ".lz4": "lz4"}
#: Suffixes of formats that a file in MRC would only pretend to be, and what writes each format.
OTHER_FORMATS = {
    ".zarr": "`mrc-xarray convert`, or data.to_zarr",
    **dict.fromkeys((".nc", ".nc4", ".cdf"), "`mrc-xarray convert`, or data.to_netcdf"),
    **dict.fromkeys((".h5", ".hdf5", ".hdf", ".emd"), "data.to_netcdf, or h5py"),
    **dict.fromkeys((".tif", ".tiff"), "tifffile.imwrite(name, data.values)"),
    **dict.fromkeys((".npy", ".npz"), "numpy.save(name, data.values)"),
    **dict.fromkeys((".png", ".jpg", ".jpeg"), "data.plot and matplotlib"),
    **dict.fromkeys((".hspy", ".zspy", *DM_SUFFIXES, ".dv", ".eer", ".em", ".ser", ".spi",
                     ".csv", ".json", ".mdoc", ".star", ".tlt", ".txt", ".xml"),
                    "another package"),
}  # fmt: skip
#: After the suffix of a file in a compressed stream.
COMPRESSED_SUFFIXES = (*CODECS_BY_SUFFIX, *READ_ONLY_CODECS)


def stem_and_suffix(name: str) -> tuple[str, str]:
    """Split a path or URL into stem and lower-case suffix, without a suffix of compression."""
    stem, suffix = os.path.splitext(_path(name))
    if suffix.lower() in COMPRESSED_SUFFIXES:
        stem, suffix = os.path.splitext(stem)
    return stem, suffix.lower()


def compressed_suffix(name: str) -> str:
    """Return the suffix of compression of a path or URL in lower case; empty if there is none."""
    suffix = os.path.splitext(_path(name))[1].lower()
    return suffix if suffix in COMPRESSED_SUFFIXES else ""


def _path(name: str) -> str:
    """Return a path, or the part of a URL that names the file."""
    if "://" not in name:
        return name
    # in a chain like simplecache::s3://bucket/key, the first URL names the file
    url = next(part for part in name.split("::") if "://" in part)
    return url.split("?")[0].split("#")[0]
