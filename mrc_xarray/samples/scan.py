"""A 4D-STEM scan of a gold particle, as a camera of Direct Electron writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mrc_xarray.mrc.header import XYZ
from mrc_xarray.samples import files

__all__ = ["stem4d"]

Array = npt.NDArray[Any]

_NAME = "20261121_00007"
_SCAN = (36, 48)  # rows and columns
_PATTERN = (48, 56)
_CENTRE = (25.0, 27.0)  # of the direct beam: row, column
_RADIUS = 3.2  # of a disk, in pixels
_SCAN_STEP = 0.5  # nm
_PATTERN_STEP = 0.3  # 1/nm
# gold along [110]: angles in degrees and lengths in 1/nm of (002) and the two kinds of (111)
_REFLECTIONS = ((0.0, 4.90), (54.74, 4.25), (125.26, 4.25))
# of the two grains of the particle, in degrees
_ROTATIONS = (8.0, 41.0)
_BEAM, _DIFFRACTED, _HAZE = 40.0, 4.0, 2.0  # electrons per pixel and frame


def stem4d(folder: files.Folder = None) -> Path:
    """Write a 4D-STEM scan of a gold particle, as a camera of Direct Electron does.

    The scan has 36 rows and 48 columns in steps of 0.5 nm, and patterns of 48 × 56 pixels of
    0.3 1/nm. The particle has two grains, which diffract in different directions, on a film of
    carbon that becomes thicker to the right.

    Parameters
    ----------
    folder : path, optional
        It is made if it does not exist. By default a new temporary folder, which is removed when
        Python ends.

    Returns
    -------
    pathlib.Path
        Of the movie ``20261121_00007_movie.mrc``, in uint16. Next to it are its info file, the
        sum of each pattern (``20261121_00007_0_Sum_sum.mrc``) and the sum of all patterns
        (``20261121_00007_final.mrc``).
    """
    target = files.made(folder)
    patterns = np.random.default_rng(4).poisson(_expected()).astype(np.uint16)
    frames = patterns.reshape(-1, *_PATTERN)
    total = patterns.sum((2, 3), dtype=np.float32)[np.newaxis]
    final = frames.sum(0, dtype=np.float32)[np.newaxis]
    files.write(target / f"{_NAME}_info.txt", _info().encode())
    files.write(target / f"{_NAME}_0_Sum_sum.mrc", _camera_file(total, mode=2))
    files.write(target / f"{_NAME}_final.mrc", _camera_file(final, mode=2))
    return files.write(target / f"{_NAME}_movie.mrc", _camera_file(frames, mode=6))


def _expected() -> Array:
    """Return the expected electrons, shape (n_scan_rows, n_scan_columns, n_rows, n_columns)."""
    y, x = (axis / n for axis, n in zip(np.mgrid[: _SCAN[0], : _SCAN[1]], _SCAN, strict=True))
    thickness = 0.4 + 0.6 * x
    # a particle with flat sides, cut into two grains
    across, up = (x - 0.5) * 4 / 3, y - 0.5
    sides = (abs(up), abs(0.87 * across + 0.5 * up), abs(0.87 * across - 0.5 * up))
    particle = np.max(sides, 0) < 0.34
    is_first = across + 0.35 * up < 0
    grains = (particle & is_first, particle & ~is_first)

    haze = np.exp(-_distance(*_CENTRE) / 9)
    weights = [_BEAM * np.exp(-0.5 * thickness - 0.9 * particle), _HAZE * thickness]
    weights += [_DIFFRACTED * grain for grain in grains]
    parts = [_disk(*_CENTRE), haze, *map(_reflections, _ROTATIONS)]
    return np.tensordot(np.stack(weights, -1), np.stack(parts), 1)


def _reflections(rotation: float) -> Array:
    """Return the disks of a grain around the direct beam."""
    total = np.zeros(_PATTERN)
    for angle, length in _REFLECTIONS:
        turned = np.deg2rad(angle + rotation)
        shift = length / _PATTERN_STEP * np.array([np.sin(turned), np.cos(turned)])
        total += _disk(*(_CENTRE + shift)) + _disk(*(_CENTRE - shift))
    return total


def _disk(row: float, column: float) -> Array:
    """Return a disk with an edge that is one pixel wide."""
    return np.clip(_RADIUS + 0.5 - _distance(row, column), 0, 1)


def _distance(row: float, column: float) -> Array:
    """Return the distance of each pixel of a pattern from a position."""
    rows, columns = np.ogrid[: _PATTERN[0], : _PATTERN[1]]
    return np.hypot(rows - row, columns - column)


def _camera_file(frames: Array, mode: int) -> bytes:
    """Return a file as the server of a camera writes it, whose header says little."""
    _, n_rows, n_columns = frames.shape
    return files.mrc(
        frames,
        mode,
        # the pixel size is unknown
        cella=XYZ(-10 * n_columns, -10 * n_rows, 0),
        ispg=1,
        nversion=20140,
        machst=b"DD\0\0",
        dmin=2,
        dmax=1,
        dmean=0,
        rms=-1,
    )


def _info() -> str:
    """Return the info file: some of its two hundred keys."""
    keys = {
        "Server Software Version": "2.7.4.10190",
        "Timestamp (seconds since Epoch)": 1795264730,
        "ADUs Per Electron": 1,
        "Autosave Movie Sum Count": 1,
        "Camera Model": "Synthetic (mrc_xarray samples)",
        "Diffraction Pixel Size X": _PATTERN_STEP,
        "Diffraction Pixel Size Y": _PATTERN_STEP,
        "Exposure Time (seconds)": 0.001,
        "Image Size X (pixels)": _PATTERN[1],
        "Image Size Y (pixels)": _PATTERN[0],
        "Instrument Accelerating Voltage (V)": 200000,
        "Instrument Project Camera Length (centimeters)": 60,
        "Instrument Project TEMorSTEM Mode": 1,
        "Scan - Camera Frames Per Point": 1,
        "Scan - Enable": "Enable",
        "Scan - Points Per Camera Frame": 1,
        "Scan - ROI Enable": "Disable",
        "Scan - Repeats": 1,
        "Scan - Size X": _SCAN[1],
        "Scan - Size Y": _SCAN[0],
        "Scan - Type": "Raster",
        "Scan - Virtual Detector 0 Name": "Sum",
        "Specimen Pixel Size X (nanometers)": _SCAN_STEP,
        "Specimen Pixel Size Y (nanometers)": _SCAN_STEP,
    }
    return "".join(f"{key:64}= {value}\n" for key, value in keys.items())
