"""Units of lengths, doses, times, angles, energies and voltages, and their conversion."""

from __future__ import annotations

import math
import re
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
    "shortest",
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
    "deg": "degree", "degrees": "degree", "°": "degree", "mrads": "mrad",
    "sec": "s", "second": "s", "seconds": "s", "millisecond": "ms", "nanosecond": "ns",
    "microsecond": "us", "µs": "us", "\u03bcs": "us", "meter": "m", "millimeter": "mm",
}  # fmt: skip
# 1/nm, 1 / nm, nm^-1, nm-1, nm⁻¹, $nm^{-1}$
_INVERSE = re.compile(
    r"1\s*/\s*(?P<denominator>\S+)|\$?(?P<base>[^\W\d]+) ?(?:\^? ?-1|\^\{-1\}|⁻¹)\$?"
)

#: Units of named quantities in a Dataset, independent of the units in the file.
COLUMN_UNITS = {
    "tilt_angle": "degree",
    "tilt_beta": "degree",
    "stage_x": "um",
    "stage_y": "um",
    "stage_z": "um",
    "defocus": "um",
    "defocus_u": "um",
    "defocus_v": "um",
    "dose": "e/angstrom^2",
    "exposure_time": "s",
    "voltage": "kV",
}
# the sizes of units that measure the same quantity
_METRES = {
    "m": 1.0, "cm": 1e-2, "mm": 1e-3, "um": 1e-6, "nm": 1e-9, "angstrom": 1e-10, "pm": 1e-12,
}  # fmt: skip
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


def shortest(value: float) -> float:
    """Return the decimal that is meant by a number of a float32: 2.7 of 2.70000005."""
    with np.errstate(over="ignore"):
        single = np.float32(value)
    return float(str(single)) if float(single) == value else float(value)


def known_unit(text: str) -> str | None:
    """Return our spelling of a unit of length, 1/length, angle, time or energy; None of others."""
    name = text.strip()
    found = _INVERSE.fullmatch(name)
    inverse = name if found is None else found["denominator"] or found["base"]
    unit = _LENGTH_BY_SPELLING.get(inverse.lower()) or _OTHER_SPELLINGS.get(inverse, inverse)
    if found is not None:
        return f"1/{unit}" if unit in _METRES else None
    known = (_METRES, _SECONDS, _DEGREES, _ENERGIES)
    return unit if any(unit in scale for scale in known) else None


def factor(unit: str, wanted: str) -> float | None:
    """Return what to multiply by for another unit; None if they measure different quantities."""
    if unit.startswith("1/") and wanted.startswith("1/"):
        return factor(wanted[2:], unit[2:])
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
