"""MRC bytes built by hand from the specification, without the package."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

# name → (first byte, struct code), in MRC2014 and the dialects that use its EXTRA bytes
FIELDS = {
    "nx": (0, "i"), "ny": (4, "i"), "nz": (8, "i"), "mode": (12, "i"),
    "nxstart": (16, "i"), "nystart": (20, "i"), "nzstart": (24, "i"),
    "mx": (28, "i"), "my": (32, "i"), "mz": (36, "i"),
    "cella": (40, "3f"), "cellb": (52, "3f"),
    "mapc": (64, "i"), "mapr": (68, "i"), "maps": (72, "i"),
    "dmin": (76, "f"), "dmax": (80, "f"), "dmean": (84, "f"),
    "ispg": (88, "i"), "nsymbt": (92, "i"), "lskflg": (96, "i"),
    "exttyp": (104, "4s"), "nversion": (108, "i"), "nint": (128, "h"), "nreal": (130, "h"),
    "voltage": (132, "f"), "c3": (136, "f"), "gain": (140, "f"), "packed_bytes": (144, "q"),
    "imod_stamp": (152, "i"), "imod_flags": (156, "i"), "tiltangles": (172, "6f"),
    "origin": (196, "3f"), "map": (208, "4s"), "machst": (212, "4s"),
    "rms": (216, "f"), "nlabl": (220, "i"),
}  # fmt: skip

IMOD_STAMP = 1146047817
STAMPS = {"<": b"\x44\x44\0\0", ">": b"\x11\x11\0\0"}


def header(
    shape: tuple[int, int, int],
    mode: int,
    *,
    byteorder: str = "<",
    labels: tuple[bytes, ...] = (),
    **fields: Any,
) -> bytes:
    """Return 1024 bytes for `shape` (NZ, NY, NX): a valid volume with voxels of 1 Å by default."""
    nz, ny, nx = shape
    values: dict[str, Any] = {
        "nx": nx, "ny": ny, "nz": nz, "mode": mode, "mx": nx, "my": ny, "mz": nz,
        "cella": (nx, ny, nz), "cellb": (90, 90, 90), "mapc": 1, "mapr": 2, "maps": 3,
        "dmin": 0, "dmax": -1, "dmean": -2, "rms": -1, "ispg": 1, "nversion": 20141,
        "map": b"MAP ", "machst": STAMPS[byteorder], "nlabl": len(labels),
    } | fields  # fmt: skip
    raw = bytearray(1024)
    for name, value in values.items():
        offset, code = FIELDS[name]
        packed = value if isinstance(value, tuple) else (value,)
        struct.pack_into(byteorder + code, raw, offset, *packed)
    for i, label in enumerate(labels):
        struct.pack_into("80s", raw, 224 + 80 * i, label)
    return bytes(raw)


def mrc(
    data: np.ndarray[Any, Any],
    mode: int | None = None,
    *,
    byteorder: str = "<",
    extended: bytes = b"",
    shape: tuple[int, int, int] | None = None,
    **fields: Any,
) -> bytes:
    """Return a complete file with `data` (sections, rows, columns) as its pixels.

    `data` is written in the byte order of the file. If pixels are packed, or of a kind that NumPy
    has no dtype for, `shape` and `mode` are needed.
    """
    modes = {"i1": 0, "i2": 1, "f4": 2, "c8": 4, "u2": 6, "i4": 7, "u4": 8, "f2": 12}
    if mode is None:
        mode = modes[data.dtype.str[1:]]
    if shape is None:
        shape = data.reshape(-1, *data.shape[-2:]).shape  # type: ignore[assignment]
    fields = {"nsymbt": len(extended)} | fields
    head = header(shape, mode, byteorder=byteorder, **fields)
    return head + extended + data.astype(data.dtype.newbyteorder(byteorder)).tobytes()


def pack_4bit(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Pack uint8 below 16, shape (..., n_columns), as mode 101 does: low nibble first."""
    if pixels.shape[-1] % 2:
        pixels = np.concatenate([pixels, np.zeros_like(pixels[..., :1])], axis=-1)
    return pixels[..., 0::2] | pixels[..., 1::2] << 4


def sparse(path: Path, begins: bytes, size: int) -> Path:
    """Write a file of zeros, except for its first bytes, that takes no room on disk."""
    with path.open("wb") as file:
        file.write(begins)
        file.truncate(size)
    return path


class Claimed:
    """A source that has only the first bytes of a file, and any name and size."""

    local_path = None

    def __init__(self, head: bytes, size: int, name: str = "claimed.mrc") -> None:
        self.head, self.name, self.size = head, name, size

    def read(self, offset: int, nbytes: int) -> bytes:
        return self.head[offset : offset + nbytes]

    def read_sibling(self, name: str) -> None:
        return None

    def sibling_names(self) -> list[str]:
        return []
