"""Particles of a chaperonin, as RELION extracts them: a stack and a table."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mrc_xarray.mrc.header import XYZ
from mrc_xarray.samples import files

__all__ = ["particles"]

Array = npt.NDArray[Any]

_N_PARTICLES, _N_MICROGRAPHS = 240, 6
_BOX = 64  # pixels
_PIXEL_SIZE = 4.0  # Å
_VOLTAGE, _CS, _AMPLITUDE_CONTRAST = 300.0, 2.7, 0.1  # kV, mm
_WAVELENGTH = 0.0196875  # Å, of 300 kV
_VIEWS = (0.0, 90.0, 45.0)  # tilt of the three classes, in degrees
# standard deviations of a side view and of the background, in those of the noise
_SIGNAL, _BACKGROUND = 2.0, 1.2
_COLUMNS = (
    "ImageName", "OpticsGroup", "ClassNumber", "RandomSubset", "DefocusU", "DefocusV",
    "DefocusAngle", "AngleRot", "AngleTilt", "AnglePsi",
)  # fmt: skip


class _Pose(NamedTuple):
    """Angles in degrees and defocus in Å, one value per particle."""

    rot: Array
    tilt: Array
    defocus: Array


def particles(folder: files.Folder = None) -> Path:
    """Write a stack of 240 particles and a table of their angles and defocus, as RELION does.

    The particles are projections of a barrel of two rings with seven subunits each, with the
    contrast transfer of a microscope and noise: 40 from each of six micrographs. They are aligned
    in the plane, and of three views in turn: from the top, from the side, and tilted.

    Parameters
    ----------
    folder : path, optional
        It is made if it does not exist. By default a new temporary folder, which is removed when
        Python ends.

    Returns
    -------
    pathlib.Path
        Of the stack ``particles.mrcs``, in float32; the table ``particles.star`` is next to it.
    """
    rng = np.random.default_rng(7)
    pose = _poses(rng)
    specimen = _projections(pose)
    specimen *= _SIGNAL / specimen[1].std()
    # ice and carbon are imaged like the particle, and electrons are counted
    specimen += _BACKGROUND * rng.standard_normal(specimen.shape)
    imaged = np.fft.irfft2(np.fft.rfft2(specimen) * _transfer(pose), (_BOX, _BOX))
    images = imaged + rng.standard_normal(imaged.shape)
    target = files.made(folder)
    files.write(target / "particles.star", "\n".join(_table(pose)).encode())
    label = "Relion    21-Nov-26  12:38:50"
    cella = XYZ(_BOX * _PIXEL_SIZE, _BOX * _PIXEL_SIZE, _PIXEL_SIZE)
    content = files.mrc(images.astype(np.float32), mode=2, label=label, mz=1, cella=cella)
    return files.write(target / "particles.mrcs", content)


def _poses(rng: np.random.Generator) -> _Pose:
    # a turn by a seventh looks the same
    rot = 360 / 7 * rng.integers(0, 7, _N_PARTICLES) + rng.normal(0, 2, _N_PARTICLES)
    views = np.resize(_VIEWS, _N_PARTICLES)
    tilt = np.abs(views + rng.normal(0, 2, _N_PARTICLES))
    # of the micrographs
    defocus = np.repeat(rng.uniform(10000, 20000, _N_MICROGRAPHS), _N_PARTICLES // _N_MICROGRAPHS)
    # as the table has them
    return _Pose(*(np.round(values, 3) for values in (rot % 360, tilt, defocus)))


def _barrel() -> tuple[Array, Array]:
    """Return the centres of balls, shape (n, 3) as x, y, z, and their radii, in Å."""
    balls = [
        (radius * np.cos(turn), radius * np.sin(turn), side * height, width)
        for side, k in itertools.product((-1, 1), range(7))
        for turn in [2 * np.pi * k / 7]
        for radius, height, width in ((38, 17, 9.0), (50, 38, 7.0), (42, 59, 9.0))
    ]
    return np.array(balls)[:, :3], np.array(balls)[:, 3]


def _projections(pose: _Pose) -> Array:
    """Return the projections along z of the turned barrel, shape (n, n_rows, n_columns)."""
    centres, radii = _barrel()
    rot, tilt = np.deg2rad(pose.rot), np.deg2rad(pose.tilt)
    # the first two rows of RELION's matrix of the angles rot, tilt and psi, with psi 0
    to_x = np.stack([np.cos(tilt) * np.cos(rot), np.cos(tilt) * np.sin(rot), -np.sin(tilt)], -1)
    to_y = np.stack([-np.sin(rot), np.cos(rot), np.zeros_like(rot)], -1)
    positions = _PIXEL_SIZE * (np.arange(_BOX) - _BOX // 2)
    # a ball is a Gaussian, the product of its profiles along x and y
    along_x, along_y = (
        np.exp(-0.5 * ((positions - (axis @ centres.T)[..., np.newaxis]) / radii[:, None]) ** 2)
        for axis in (to_x, to_y)
    )
    projected: Array = along_y.transpose(0, 2, 1) @ along_x
    return projected


def _transfer(pose: _Pose) -> Array:
    """Return the contrast transfer functions, in which a particle is bright."""
    ky, kx = np.fft.fftfreq(_BOX, _PIXEL_SIZE)[:, None], np.fft.rfftfreq(_BOX, _PIXEL_SIZE)
    square = ky**2 + kx**2
    aberration = 0.5 * np.pi * _CS * 1e7 * _WAVELENGTH**3 * square**2
    phase = np.pi * _WAVELENGTH * pose.defocus[:, None, None] * square - aberration
    transfer: Array = np.sin(phase + np.arcsin(_AMPLITUDE_CONTRAST))
    return transfer


def _table(pose: _Pose) -> Iterator[str]:
    """Generate the lines of a STAR file of RELION 3.1 and later."""
    optics = {
        "OpticsGroupName": "opticsGroup1",
        "OpticsGroup": 1,
        "Voltage": _VOLTAGE,
        "SphericalAberration": _CS,
        "AmplitudeContrast": _AMPLITUDE_CONTRAST,
        "ImagePixelSize": _PIXEL_SIZE,
        "ImageSize": _BOX,
        "ImageDimensionality": 2,
    }
    yield from _block("optics", optics)
    yield " ".join(map(str, optics.values()))
    yield from ("", *_block("particles", _COLUMNS))
    for i in range(_N_PARTICLES):
        rot, tilt, defocus = (f"{values[i]:12.3f}" for values in pose)
        number = f"{i + 1:06}@particles.mrcs"
        # halves alternate after each round of the views
        counts = f"{1:6d}{i % len(_VIEWS) + 1:6d}{i // len(_VIEWS) % 2 + 1:6d}"
        yield f"{number}{counts} {defocus} {defocus} {0:12.3f} {rot} {tilt} {0:12.3f}"
    yield ""


def _block(name: str, columns: Any) -> Iterator[str]:
    yield from ("", "# version 30001", "", f"data_{name}", "", "loop_")
    yield from (f"_rln{column} #{i}" for i, column in enumerate(columns, 1))
