"""Units of lengths, doses, times, angles, energies and voltages, and their conversion."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np

__all__ = [
    "COLUMN_UNITS",
    "LENGTHS",
    "angstroms_per",
    "converted",
    "factor",
    "known_unit",
    "scaled",
]

#: Units of the spatial coordinates: one ångström in each.
LENGTHS = {"angstrom": 1.0, "nm": 0.1, "pm": 100.0, "um": 1e-4}

# as other programs spell them
_SPELLINGS = {
    "angstrom": ("angstroms", "ångström", "ångstrom", "å", "\u212b", "a"),
    "nm": ("nanometer", "nanometers", "nanometre", "nanometres"),
    "pm": ("picometer", "picometers", "picometre", "picometres"),
    "um": ("µm", "μm", "micron", "microns", "micrometer", "micrometers", "micrometre"),
}
_LENGTH_BY_SPELLING = {
    spelling: unit for unit, others in _SPELLINGS.items() for spelling in (unit, *others)
}
_OTHER_SPELLINGS = {
    "deg": "degree", "degrees": "degree", "°": "degree", "sec": "s", "seconds": "s",
    "µs": "us", "\u03bcs": "us",
}  # fmt: skip

#: Units of named quantities in a Dataset, independent of the units in the file.
COLUMN_UNITS = {
    "tilt_angle": "degree",
    "tilt_beta": "degree",
    "stage_x": "um",
    "stage_y": "um",
    "stage_z": "um",
    "defocus": "um",
    "dose": "e/angstrom^2",
    "exposure_time": "s",
    "voltage": "kV",
}
# the sizes of units that measure the same quantity
_METRES = {"m": 1.0, "mm": 1e-3, "um": 1e-6, "nm": 1e-9, "angstrom": 1e-10, "pm": 1e-12}
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_DEGREES = {"degree": 1.0, "rad": 180 / math.pi, "mrad": 0.18 / math.pi}
_ENERGIES = {"eV": 1.0, "keV": 1e3, "meV": 1e-3}
_SCALES: tuple[dict[str, float], ...] = (
    _METRES,
    _SECONDS,
    _DEGREES,
    _ENERGIES,
    {"e/m^2": 1.0, "e/nm^2": 1e18, "e/angstrom^2": 1e20},
    {"V": 1.0, "kV": 1e3},
)


def angstroms_per(name: object) -> float | None:
    """Return the size in Å of a unit of the spatial coordinates, or None for any other unit."""
    unit = _LENGTH_BY_SPELLING.get(str(name).strip().lower())
    return None if unit is None else 1 / LENGTHS[unit]


def scaled(value: float, factor: float) -> float:
    """Return the product of two decimal numbers, without the rounding of binary ones."""
    return float(Decimal(repr(float(value))) * Decimal(repr(float(factor))))


def known_unit(text: str) -> str | None:
    """Return our spelling of a unit of length, 1/length, angle, time or energy; None of others."""
    name = text.strip()
    inverse = name.removeprefix("1/").strip()
    unit = _LENGTH_BY_SPELLING.get(inverse.lower()) or _OTHER_SPELLINGS.get(inverse, inverse)
    if inverse != name:
        return f"1/{unit}" if unit in _METRES else None
    known = (_METRES, _SECONDS, _DEGREES, _ENERGIES)
    return unit if any(unit in scale for scale in known) else None


def factor(unit: str, wanted: str) -> float | None:
    """Return what to multiply by for another unit; None if they measure different quantities."""
    scales = [scale for scale in _SCALES if {unit, wanted} <= scale.keys()]
    if not scales:
        return None
    # 1000 for nm and pm, without the rounding of binary numbers
    return float(Decimal(repr(scales[0][unit])) / Decimal(repr(scales[0][wanted])))


def converted(name: str, value: Any, unit: str) -> tuple[Any, str]:
    """Convert a value or an array to the units of this quantity in a Dataset."""
    wanted = COLUMN_UNITS.get(name)
    scale = factor(unit, wanted) if wanted is not None and unit != wanted else None
    if wanted is None or scale is None:
        return value, unit
    with np.errstate(all="ignore"):
        return value * scale, wanted
