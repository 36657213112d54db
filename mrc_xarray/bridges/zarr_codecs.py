"""A codec for Zarr of the pixels that Zarr has no type for: complex integers, and packed pixels.

zarr imports it when an array uses its name, by the entry point ``zarr.codecs``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from zarr.abc.codec import ArrayBytesCodec

from mrc_xarray.pixels.modes import MODES, ByteOrder

__all__ = ["ModeCodec"]


@dataclass(frozen=True)
class ModeCodec(ArrayBytesCodec):
    """Decode the pixels of a MODE, in chunks of complete rows. It does not encode.

    Attributes
    ----------
    mode : int
        MODE in the header, such as 3 or 101.
    endian : {"little", "big"}
    """

    mode: int
    endian: str = "little"
    is_fixed_size = True

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Return the codec from its JSON."""
        return cls(**data["configuration"])

    def to_dict(self) -> dict[str, Any]:
        """Return the codec as JSON."""
        configuration = {"mode": self.mode, "endian": self.endian}
        return {"name": "mrc_xarray.mode", "configuration": configuration}

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:
        """Return the length of a chunk in the file, in bytes."""
        *outer, n_columns = chunk_spec.shape
        return int(np.prod(outer)) * MODES[self.mode].row_bytes(n_columns)

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        raw = np.frombuffer(chunk_bytes.to_bytes(), np.uint8)
        order: ByteOrder = "<" if self.endian == "little" else ">"
        pixels = MODES[self.mode].decode(raw, order, chunk_spec.shape[-1])
        return chunk_spec.prototype.nd_buffer.from_ndarray_like(pixels.reshape(chunk_spec.shape))
