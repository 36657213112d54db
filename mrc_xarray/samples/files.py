"""The files of a sample: their folder, and the bytes of an MRC file."""

from __future__ import annotations

import atexit
import errno
import functools
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mrc_xarray.mrc.header import N_LABELS, XYZ, Header
from mrc_xarray.pixels.statistics import Statistics

__all__ = ["Folder", "made", "mrc", "write"]

Folder = str | os.PathLike[str] | None


def made(folder: Folder) -> Path:
    """Return the folder, which is made if it does not exist, or a new temporary one."""
    if folder is None:
        return Path(tempfile.mkdtemp(dir=_temporary()))
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    return path


def write(path: Path, content: bytes) -> Path:
    """Write a file that does not exist, or that has this content already."""
    try:
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError:
        if path.stat().st_size == len(content) and path.read_bytes() == content:
            return path
        text = "File exists, and is not this sample: choose another folder, or remove it"
        raise FileExistsError(errno.EEXIST, text, str(path)) from None
    return path


def mrc(
    pixels: npt.NDArray[Any],
    mode: int,
    label: str = "",
    extended: bytes = b"",
    cell: tuple[float, float, float] | None = None,
    **fields: Any,
) -> bytes:
    """Return a file with these pixels, shape (n_sections, n_rows, n_columns).

    `cell` is the size of a voxel along x, y and z, in Å. `fields` take precedence over all others.
    """
    values: dict[str, Any] = {"mode": mode, "nsymbt": len(extended)}
    values |= Statistics.of(pixels).fields()
    for axis, n in zip("zyx", pixels.shape, strict=True):
        values |= {f"n{axis}": n, f"m{axis}": n}
    if label:
        values |= {"nlabl": 1, "label": (label, *[""] * (N_LABELS - 1))}
    if cell is not None:
        edges = zip(cell, reversed(pixels.shape), strict=True)
        values["cella"] = XYZ(*(size * n for size, n in edges))
    header = Header.blank().replaced(**(values | fields))
    stored = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False)
    return header.encode() + extended + np.ascontiguousarray(stored).tobytes()


@functools.cache
def _temporary() -> str:
    """Return the folder of this process, which is removed when Python ends."""
    folder = tempfile.mkdtemp(prefix="mrc_xarray-samples-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
