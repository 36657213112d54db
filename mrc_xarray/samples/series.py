"""A tilt series of the specimen in the tomogram, with its ``.mdoc``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from mrc_xarray.mrc.header import IMOD_STAMP
from mrc_xarray.samples import files, specimen

__all__ = ["tilt_series"]

_SHAPE = (64, 192, 192)  # of the specimen
_STEP, _N_STEPS = 3, 20  # degrees, and to each side
_PIXEL_SIZE = 13.3  # Å
_DOSE = 3.0  # e/Å²
_THICKNESS = 0.4  # of the ice, in mean free paths
_CONTRAST = 0.01  # of the density of one voxel
_START = datetime(2026, 11, 21, 12, 38, 50)
_INTERVAL = timedelta(seconds=38)
_TITLE = "SerialEM: Tilt series of vesicles (mrc_xarray samples)  21-Nov-26  12:38:50"


def tilt_series(folder: files.Folder = None) -> Path:
    """Write a tilt series of 41 images from −60° to 60°, and its ``.mdoc``, as SerialEM does.

    The images are projections of the specimen of `tomogram` with the noise of 3 e/Å² each, in
    the dose-symmetric order in which they were recorded: 0°, 3°, −3°, −6°, …. The ``.mdoc`` has
    the tilt angles, the stage, the defocus, the dose and the times.

    Parameters
    ----------
    folder : path, optional
        It is made if it does not exist. By default a new temporary folder, which is removed when
        Python ends.

    Returns
    -------
    pathlib.Path
        Of the file ``tilt_series.mrc``, in int16; ``tilt_series.mrc.mdoc`` is next to it.
    """
    rng = np.random.default_rng(3)
    nominal = list(_angles())
    images = np.stack([rng.poisson(_expected(angle)) for angle in nominal]).astype(np.int16)
    # a goniometer is not exact
    angles = np.round(nominal + rng.normal(0, 0.02, len(nominal)), 3)
    path = files.made(folder) / "tilt_series.mrc"
    text = "\n".join(_mdoc(path.name, images.shape, angles, rng))
    files.write(path.with_name(f"{path.name}.mdoc"), text.encode())
    content = files.mrc(
        images,
        mode=1,
        label=_TITLE,
        cell=(_PIXEL_SIZE,) * 3,
        nversion=20140,
        imod_stamp=IMOD_STAMP,
    )
    return files.write(path, content)


def _angles() -> Iterator[float]:
    """Generate the angles in the order of recording, in degrees."""
    yield 0.0
    for step in range(1, _N_STEPS + 1):
        first = _STEP * step if step % 2 else -_STEP * step
        yield from (float(first), float(-first))


def _expected(angle: float) -> np.ndarray:
    """Return the expected number of electrons per pixel, shape (n_rows, n_columns)."""
    ice = _THICKNESS / math.cos(math.radians(angle))
    absorbed = -_CONTRAST * specimen.projection(_SHAPE, angle)
    expected: np.ndarray = _DOSE * _PIXEL_SIZE**2 * np.exp(-ice - absorbed)
    return expected


def _mdoc(
    image: str, shape: tuple[int, ...], angles: np.ndarray, rng: np.random.Generator
) -> Iterator[str]:
    """Generate the lines of the ``.mdoc``."""
    yield from (f"PixelSpacing = {_PIXEL_SIZE}", "Voltage = 300", f"ImageFile = {image}")
    yield from (f"ImageSize = {shape[2]} {shape[1]}", "DataMode = 1", "", f"[T = {_TITLE}]", "")
    yield from ("[T =     Tilt axis angle = 0.0, binning = 1  spot = 8  camera = 0]", "")
    for section, angle in enumerate(angles):
        x, y = rng.normal((102.4, -310.7), 0.05)
        when = _START + section * _INTERVAL
        yield f"[ZValue = {section}]"
        yield f"TiltAngle = {angle:.3f}"
        yield f"StagePosition = {x:.3f} {y:.3f}"
        yield "StageZ = -71.25"
        yield "Magnification = 8700"
        yield f"Defocus = {rng.normal(-3.5, 0.1):.3f}"
        yield f"ExposureDose = {_DOSE}"
        yield "ExposureTime = 0.8"
        yield f"SubFramePath = D:\\frames\\tilt_series_{section:03}_{angle:.1f}.eer"
        yield f"DateTime = {when:%d}-Nov-{when:%y}  {when:%H:%M:%S}"
        yield ""
