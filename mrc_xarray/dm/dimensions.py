"""What the axes of an image are, by the units of their calibrations.

See ``docs/reference/format.md#dm-images``.
"""

from __future__ import annotations

from collections.abc import Sequence

from mrc_xarray.dm.images import DmImage, group_at
from mrc_xarray.recording import Dimension
from mrc_xarray.units import factor

__all__ = ["names_of"]


def names_of(image: DmImage) -> tuple[str, ...]:
    """Return the names of the axes, slowest first.

    Energies, times and wavelengths are named so. Of the other axes, the fastest are x and y, or
    kx and ky for reciprocal lengths and angles. Slower ones are a scan if the fastest two are
    diffraction patterns or there are four of them, ``z`` if they are lengths, and else ``image``.
    """
    kinds = [_kind(axis, image) for axis in image.axes]
    names = {i: kind for i, kind in enumerate(kinds) if kind not in ("length", "k", "")}
    frame = [i for i in range(len(kinds)) if i not in names]
    waves = [i for i in frame if kinds[i] == "k"]
    others = [i for i in frame if kinds[i] != "k"]
    if len(waves) == 2 and others:
        names |= _named(waves, "k") | _outer(others, kinds, "scan_x")
    else:
        names |= {
            i: ("k" if kinds[i] == "k" else "") + axis
            for i, axis in zip(frame[:-3:-1], "xy", strict=False)
        }
        names |= _outer(frame[:-2], kinds, "z")
    return _distinct([names[i] for i in range(len(kinds))])


def _kind(axis: Dimension, image: DmImage) -> str:
    """Return "energy", "time" or "wavelength", or "length", "k", or "" if it is unknown."""
    if axis.step is None:
        return ""
    if factor(axis.unit, "eV") is not None:
        return "energy"
    if factor(axis.unit, "s") is not None:
        return "time"
    if axis.unit.startswith("1/") or factor(axis.unit, "degree") is not None:
        return "k"
    if axis.unit == "nm" and axis is _spectral(image):
        return "wavelength"
    return "length" if factor(axis.unit, "angstrom") is not None else ""


def _spectral(image: DmImage) -> Dimension | None:
    """Return the axis of the spectra of cathodoluminescence, the slowest one."""
    tags = group_at(image.tags, "ImageTags")
    about = group_at(tags, "Meta Data")
    spectrometer = group_at(tags, "Acquisition", "Monarc Spectrometer")
    is_light = about.get("Signal") == "CL" or bool(spectrometer)
    is_spectrum = str(about.get("Format", "")).startswith("Spectrum")
    return image.axes[0] if is_light and is_spectrum else None


def _named(numbers: Sequence[int], prefix: str) -> dict[int, str]:
    """Return names in x, y, z for axes, of which the last is the fastest."""
    return {i: prefix + axis for i, axis in zip(reversed(numbers), "xyz", strict=False)}


def _outer(numbers: Sequence[int], kinds: Sequence[str], of_length: str) -> dict[int, str]:
    """Return the names of the axes that are not those of a frame."""
    if len(numbers) == 1:
        return {numbers[0]: of_length if kinds[numbers[0]] == "length" else "image"}
    return _named(numbers[-2:], "scan_") | {i: f"axis_{i}" for i in numbers[:-2]}


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names with numbers after those that repeat."""
    return tuple(
        name if names.count(name) == 1 else f"{name}_{names[: i + 1].count(name)}"
        for i, name in enumerate(names)
    )
