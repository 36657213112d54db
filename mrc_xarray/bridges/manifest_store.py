"""A store of VirtualiZarr whose coordinates are in memory.

Coordinates are computed from a header, so a file has no bytes that a reference could lead to.
Early versions of VirtualiZarr have no other place for them than such a store.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from virtualizarr.manifests import ChunkManifest, ManifestArray, ManifestGroup, ManifestStore
from zarr.core.metadata.v3 import ArrayV3Metadata

from mrc_xarray.bridges.chunks import Chunked

__all__ = ["PixelStore"]

# the only one that VirtualiZarr can list
_KEYS = {"name": "default", "configuration": {"separator": "."}}


class PixelStore(ManifestStore):
    """A store of the pixels of one file as references, and of its coordinates as bytes.

    Parameters
    ----------
    held : mapping of str to bytes
        All keys of a Zarr-3 group, except for the chunks of ``data``.
    pixels : Chunked
        The chunks of ``data``.
    url : str
        The file.
    registry : ObjectStoreRegistry
        The store that the file is in.
    """

    def __init__(
        self, held: Mapping[str, bytes], pixels: Chunked, url: str, registry: Any
    ) -> None:
        group = json.loads(held["zarr.json"])["attributes"]
        documents = {
            key.removesuffix("/zarr.json"): json.loads(document)
            for key, document in held.items()
            if key.endswith("/zarr.json")
        }
        data = documents.pop("data")
        data["attributes"].pop("coordinates", None)
        arrays = {name: _without_chunks(document) for name, document in documents.items()}
        self._coordinates = {
            key: value for key, value in held.items() if key.partition("/")[0] in arrays
        }
        attributes = group | {"coordinates": " ".join(arrays)}
        arrays["data"] = _referring(data, pixels, url)
        super().__init__(ManifestGroup(arrays=arrays, attributes=attributes), registry=registry)

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        """Return the bytes of a key, or None if there are none."""
        if key in self._coordinates:
            # zarr reads a document or a chunk as a unit
            return prototype.buffer.from_bytes(self._coordinates[key])
        return await super().get(key, prototype, byte_range)

    def to_virtual_dataset(
        self,
        group: str = "",
        loadable_variables: Iterable[str] | None = None,
        decode_times: bool | None = None,
    ) -> xr.Dataset:
        """Return the Dataset, with the coordinates and the given variables in memory."""
        coordinates = {key.partition("/")[0] for key in self._coordinates}
        loaded = sorted({*coordinates, *(loadable_variables or ())})
        ds: xr.Dataset = super().to_virtual_dataset(group, loaded, decode_times)
        return ds


def _without_chunks(document: dict[str, Any]) -> ManifestArray:
    metadata = ArrayV3Metadata.from_dict(document)
    sizes = zip(metadata.shape, metadata.chunks, strict=True)
    grid = tuple(-(-size // chunk) for size, chunk in sizes)
    return ManifestArray(metadata, ChunkManifest({}, shape=grid))


def _referring(document: dict[str, Any], pixels: Chunked, url: str) -> ManifestArray:
    """Return references to a file; the offset is -1 where there is no chunk."""
    metadata = ArrayV3Metadata.from_dict(document | {"chunk_key_encoding": _KEYS})
    is_there = pixels.offsets >= 0
    paths: Any = np.where(is_there, url, "").astype(np.dtypes.StringDType())
    manifest = ChunkManifest.from_arrays(
        paths=paths,
        offsets=np.where(is_there, pixels.offsets, 0).astype(np.uint64),
        lengths=np.where(is_there, pixels.lengths, 0).astype(np.uint64),
        validate_paths=False,
    )
    return ManifestArray(metadata, manifest)
