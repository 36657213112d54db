"""MRC files as virtual Zarr for VirtualiZarr and icechunk: references to pixels, and no copy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import xarray as xr

from mrc_xarray.bridges.joined import alone
from mrc_xarray.installation import optional
from mrc_xarray.storage import ByteSource, Request, StoreSource, redacted
from mrc_xarray.storage.base import LONGEST_SIDECAR, Access
from mrc_xarray.storage.urls import has_encoded_names, sibling

__all__ = ["MRCParser"]


class MRCParser:
    """A parser of MRC and MRCZ files for ``virtualizarr.open_virtual_dataset(parser=…)``.

    The virtual Dataset has the labels of the engine. Its coordinates are always in memory.

    Parameters
    ----------
    sections_per_chunk : int, optional
        How many uncompressed sections a chunk has at most. By default, sections of 4 MiB in total
        make one chunk. Files of different lengths can be concatenated along the dimension that
        counts sections if their chunks are the same; 1 fits all.
    **options
        Arguments of the engine, such as ``layout`` or ``voxel_size``; and ``engine="dm"`` for
        files of DigitalMicrograph.

    Raises
    ------
    MrcError
        When a file is parsed: if it can't be read, or Zarr can't decode its pixels.
    """

    def __init__(self, *, sections_per_chunk: int | None = None, **options: Any) -> None:
        if sections_per_chunk is not None and sections_per_chunk < 1:
            raise ValueError(
                f"sections_per_chunk is {sections_per_chunk!r}; accepted: None, or 1 or more"
            )
        self.sections_per_chunk = sections_per_chunk
        self.options = {"engine": "mrc"} | options

    def __call__(self, url: str, registry: Any) -> Any:
        """Return the manifest store of the file at `url`, in one of the stores of `registry`."""
        optional("virtualizarr", "MRCParser")
        from mrc_xarray.bridges.manifest_store import PixelStore

        parts = urlsplit(url)
        is_local = parts.scheme == "file"
        target: Any = url2pathname(parts.path) if is_local else _InRegistry.of(url, registry)
        ds = xr.open_dataset(target, chunks=None, **self.options)
        pixels = alone(ds, self.sections_per_chunk)
        return PixelStore(pixels.documents(), pixels.files[0], _readable(redacted(url)), registry)


def _readable(url: str) -> str:
    """Return a URL that both VirtualiZarr and icechunk can read, if there is one.

    icechunk decodes percent signs, and VirtualiZarr does not.
    """
    is_encoded = url.startswith("file:") or has_encoded_names(url)
    decoded = unquote(url) if is_encoded else url
    return url if set("#?%") & set(decoded) else decoded


@dataclass(frozen=True)
class _InRegistry(ByteSource):
    """A file in an obstore store, which the user has set up with its credentials."""

    access: ClassVar[Access] = StoreSource.access

    store: Any = field(repr=False)
    path: str
    name: str
    size: int

    @classmethod
    def of(cls, url: str, registry: Any) -> _InRegistry:
        name = redacted(url)
        store, found = registry.resolve(name)
        path = unquote(str(found)) if has_encoded_names(url) else str(found)
        return cls(store, path, name, store.head(path)["size"])

    def read_into(self, requests: Sequence[Request]) -> None:
        starts = [offset for offset, _ in requests]
        lengths = [len(buffer) for _, buffer in requests]
        ranges = self.store.get_ranges(self.path, starts=starts, lengths=lengths)
        for (_, buffer), found in zip(requests, ranges, strict=True):
            buffer[:] = memoryview(found)

    def read_sibling(self, name: str) -> bytes | None:
        path = sibling(self.path, name)
        try:
            found = self.store.get_range(path, start=0, length=LONGEST_SIDECAR)
        except FileNotFoundError:
            return None
        return bytes(found)
