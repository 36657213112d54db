"""Direct Electron acquisitions built by hand, asymmetric in every way that the samples are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import by_hand
import numpy as np

Array = np.ndarray[Any, Any]

STEM = "20250102_00007"
MODES = {"u1": 0, "u2": 6, "f4": 2, "c8": 4, "i2": 1}
# a raster of 3 rows and 4 columns
INFO = {
    "Server Software Version": "2.7.4 = by hand",
    "Timestamp (seconds since Epoch)": 1729539410,
    "ADUs Per Electron": 40,
    "Diffraction Pixel Size X": 0.25,
    "Diffraction Pixel Size Y": 0.5,
    "Exposure Time (seconds)": 0.125,
    "Instrument Accelerating Voltage (V)": 200000,
    "Instrument Project Camera Length (centimeters)": 11,
    "Instrument Project TEMorSTEM Mode": -1,
    "Scan - Enable": "Enable",
    "Scan - ROI Enable": "Disable",
    "Scan - ROI Size X": 5,
    "Scan - ROI Size Y": 2,
    "Scan - ROI Type": "Raster",
    "Scan - Repeats": 1,
    "Scan - Size X": 4,
    "Scan - Size Y": 3,
    "Scan - Type": "Raster",
    "Specimen Pixel Size X (nanometers)": 2,
    "Specimen Pixel Size Y (nanometers)": 3,
}
XY_FILE = {"Scan - Type": "XY File"}
# repeated, out of order, and neither everywhere nor to the last row: 3 visits, 3 rows, 4 columns
POSITIONS = ((3, 0), (0, 1), (1, 0), (3, 0), (2, 1), (0, 1), (3, 0), (1, 1))
FRAME_INDEX = np.full((3, 3, 4), -1)
for _frame, (_visit, _y, _x) in enumerate(
    [(0, 0, 3), (0, 1, 0), (0, 0, 1), (1, 0, 3), (0, 1, 2), (1, 1, 0), (2, 0, 3), (0, 1, 1)]
):
    FRAME_INDEX[_visit, _y, _x] = _frame


def frames(n: int, dtype: str = "u2", shape: tuple[int, int] = (5, 9)) -> Array:
    """Return `n` frames in which each pixel has a value of its own (of u1: modulo 251)."""
    n_y, n_x = shape
    numbers = 1 + np.arange(n * n_y * n_x).reshape(n, n_y, n_x)
    return (numbers % 251 if dtype == "u1" else numbers).astype(dtype)


def movie(pixels: Array, **fields: Any) -> bytes:
    """Return a file as a Direct Electron server writes it."""
    *_, n_y, n_x = pixels.shape
    signature = {
        "cella": (-10 * n_x, -10 * n_y, 0), "nversion": 20140,
        "dmin": 2, "dmax": 1, "dmean": 0, "rms": -1,
    }  # fmt: skip
    return by_hand.mrc(pixels, MODES[pixels.dtype.str[1:]], **(signature | fields))


def info(changed: Mapping[str, Any] | None = None) -> bytes:
    """Return an info file; a key that is changed to None is left out."""
    keys = INFO | dict(changed or {})
    return "".join(f"{k:<63} = {v}\r\n" for k, v in keys.items() if v is not None).encode()


def csv(positions: Sequence[tuple[int, int]] = POSITIONS) -> bytes:
    return "".join(f"{x},{y}\n" for x, y in positions).encode()


def write(
    folder: Path,
    pixels: Array,
    changed: Mapping[str, Any] | None = None,
    positions: Sequence[tuple[int, int]] | None = None,
    **fields: Any,
) -> Path:
    """Write a movie with its info file, and its coordinates if there are any."""
    path = folder / f"{STEM}_movie.mrc"
    path.write_bytes(movie(pixels, **fields))
    (folder / f"{STEM}_info.txt").write_bytes(info(changed))
    if positions is not None:
        (folder / f"{STEM}_scan_coordinates.csv").write_bytes(csv(positions))
    return path


def dense(pixels: Array, frame_index: Array = FRAME_INDEX) -> Array:
    """Place frames as numpy does it, and fill the other positions."""
    fill = np.nan if pixels.dtype.kind in "fc" else 0
    placed = np.full((*frame_index.shape, *pixels.shape[1:]), fill, pixels.dtype)
    for position in np.ndindex(frame_index.shape):
        if frame_index[position] >= 0:
            placed[position] = pixels[frame_index[position]]
    return placed
