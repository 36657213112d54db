"""MRCZ bytes built by hand from blosc chunks, intact or damaged."""

from __future__ import annotations

import importlib.util
import struct
from typing import Any

import blosc
import by_hand
import numpy as np
import pytest

Array = np.ndarray[Any, Any]
N, NY, NX = 10, 48, 64
PIXELS = np.random.default_rng(0).poisson(2, (N, NY, NX)).astype("u2")
METADATA = b'{"stage": [1.5, -2]}'
# first byte of each field of a chunk, and its struct code
FIELDS = {"version": (0, "B"), "codec version": (1, "B"), "flags": (2, "B"), "typesize": (3, "B"),
          "nbytes": (4, "<I"), "blocksize": (8, "<I"), "ctbytes": (12, "<I")}  # fmt: skip
needs_blosc2 = pytest.mark.skipif(
    importlib.util.find_spec("blosc2") is None, reason="chunks of version 5 need blosc2"
)
versions = pytest.mark.parametrize("version", [2, pytest.param(5, marks=needs_blosc2)])
positions = pytest.mark.parametrize("k", [0, 1, N - 1], ids=["first", "second", "last"])


def counts(shape: tuple[int, ...], dtype: str = "i2") -> Array:
    """Return the image of a counting camera, with negative and imaginary parts where possible."""
    pixels = np.random.default_rng(5).poisson(2, shape).astype(dtype)
    if pixels.dtype.kind in "ifc":
        pixels[..., ::3] *= -1
    if pixels.dtype.kind == "c":
        pixels[..., ::2] *= 1j
    return pixels


def chunk(section: Array, version: int) -> bytearray:
    if version == 2:
        return bytearray(blosc.compress(section.tobytes(), 2, cname="zstd", clevel=1))
    import blosc2

    options = {"typesize": 2, "blocksize": 2048, "nthreads": 1}
    return bytearray(blosc2.compress2(section, codec=blosc2.Codec.ZSTD, clevel=1, **options))


def chunks(version: int = 2) -> list[bytearray]:
    return [chunk(section, version) for section in PIXELS]


def file(blocks: list[bytearray], extended: bytes = b"", **fields: Any) -> bytes:
    data = b"".join(blocks)
    fields = {
        "ispg": 0, "mx": 0, "my": 0, "mz": 0, "labels": (b"MRCZ0.6.0",),
        "nsymbt": len(extended), "packed_bytes": len(data),
    } | fields  # fmt: skip
    return by_hand.header((N, NY, NX), fields.pop("mode", 6006), **fields) + extended + data


def put(block: bytearray, field: str, value: int) -> None:
    offset, code = FIELDS[field]
    struct.pack_into(code, block, offset, value)


def start_of(blocks: list[bytearray], k: int) -> int:
    return 1024 + sum(map(len, blocks[:k]))


def block_places(raw: bytes, n: int) -> list[tuple[int, int]]:
    """Return first byte and length of each block, from the chunk headers."""
    start = 1024 + struct.unpack_from("<i", raw, 92)[0]
    places = []
    for _ in range(n):
        (nbytes,) = struct.unpack_from("<I", raw, start + 12)
        places.append((start, nbytes))
        start += nbytes
    assert start == len(raw)
    return places
