"""The names and units of columns: RELION's labels, and those of coordinates."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeGuard

__all__ = [
    "OF_OPTICS", "is_label", "is_number", "is_text", "label_of", "name_of", "unique_names",
    "unit_of",
]  # fmt: skip

# labels by their units in RELION, without "rln"; lengths that end in Angst are not listed
_BY_UNIT = {
    "angstrom": "CtfMaxResolution DefocusU DefocusV ImagePixelSize MicrographPixelSize "
    "MicrographOriginalPixelSize PixelSize TomoTiltSeriesPixelSize",
    "angstrom^2": "CtfBfactor",
    "degree": "AnglePsi AnglePsiPrior AngleRot AngleRotPrior AngleTilt AngleTiltPrior "
    "DefocusAngle PhaseShift TomoNominalStageTiltAngle TomoNominalTiltAxisAngle "
    "TomoSubtomogramPsi TomoSubtomogramRot TomoSubtomogramTilt TomoXTilt TomoYTilt TomoZRot",
    "e/angstrom^2": "MicrographDoseRate MicrographPreExposure",
    "kV": "Voltage",
    "mm": "SphericalAberration",
    "mrad": "BeamTiltX BeamTiltY",
    "pixel": "CoordinateX CoordinateY CoordinateZ ImageSize OriginX OriginY OriginZ",
    "um": "DetectorPixelSize TomoNominalDefocus",
}
_UNITS = {f"rln{label}": unit for unit, labels in _BY_UNIT.items() for label in labels.split()}
# without units
_OTHERS = (
    "AmplitudeContrast AutopickFigureOfMerit ClassNumber CtfFigureOfMerit GroupName GroupNumber "
    "HelicalTubeID ImageDimensionality LogLikeliContribution Magnification "
    "MaxValueProbDistribution MicrographName NormCorrection NrOfSignificantSamples OpticsGroup "
    "OpticsGroupName RandomSubset TomoName TomoParticleName"
)
#: Names that this package has for the same quantities.
_NAMES = {
    "rlnSphericalAberration": "c3",
    "rlnTomoNominalStageTiltAngle": "tilt_angle",
    "rlnVoltage": "voltage",
}
_OPTICS = (
    "AmplitudeContrast BeamTiltX BeamTiltY CtfDataAreCtfPremultiplied DetectorPixelSize "
    "EvenZernike ImageDimensionality ImagePixelSize ImageSize MagMat00 MagMat01 MagMat10 "
    "MagMat11 Magnification MicrographOriginalPixelSize MicrographPixelSize MtfFileName "
    "OddZernike OpticsGroupName PixelSize SphericalAberration TomoSubtomogramBinning "
    "TomoTiltSeriesPixelSize Voltage"
)
#: Labels of the microscope and the camera, which are one value if they are equal for all images.
OF_OPTICS = frozenset(f"rln{label}" for label in _OPTICS.split())
_ANGST = "Angst"
# names that mean something else in a Dataset of this package
_OWN = (
    "c3 class_average data frame frame_index gain micrograph mode0_assumption movie particle "
    "relion_column rgb section section_spacing_angstrom tomogram voltage x y z"
)
_RESERVED = frozenset(_OWN.split())


def is_label(value: object) -> TypeGuard[str]:
    """Return whether an attribute can be a label; attributes may come from anywhere."""
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z]\w{0,99}", value) is not None


def is_text(label: str) -> bool:
    """Return whether values are names, which can consist of digits only."""
    return label.endswith(("Name", "File", "Image"))


def is_number(label: str) -> bool:
    """Return whether values must be numbers."""
    return unit_of(label) != "" or label in ("rlnOpticsGroup", "rlnMagnification")


def unit_of(label: str) -> str:
    """Return the units that RELION defines; empty if there are none."""
    return (
        "angstrom" if label.startswith("rln") and label.endswith(_ANGST) else _UNITS.get(label, "")
    )


def name_of(label: str) -> str:
    """Return the name of the coordinate for a label, in snake case."""
    if label in _NAMES:
        return _NAMES[label]
    words = label.removeprefix("rln")
    name = _snake(words if words == label else words.removesuffix(_ANGST))
    is_own = not name or name in _RESERVED or name.startswith("mrc")
    return f"rln_{name}" if is_own else name


def unique_names(labels: Iterable[str]) -> dict[str, str]:
    """Return the name of the coordinate for each label, each name once."""
    names: dict[str, str] = {}
    for label in labels:
        name = name_of(label)
        if name in names.values():
            # rlnOriginX is in pixels, and rlnOriginXAngst in Å
            name = _snake(label.removeprefix("rln"))
        while name in names.values():
            name += "_"
        names[label] = name
    return names


def _snake(words: str) -> str:
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", words)
    return re.sub(r"\W", "_", parted).lower()


def label_of(name: str) -> str | None:
    """Return the label for the name of a coordinate, or None if RELION has none that we know."""
    return _LABELS.get(name)


_LABELS = {name_of(label): label for label in (*_UNITS, *(f"rln{o}" for o in _OTHERS.split()))} | {
    f"origin_{axis}": f"rlnOrigin{axis.upper()}Angst" for axis in "xyz"
}
