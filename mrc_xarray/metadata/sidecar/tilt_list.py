"""IMOD's lists of tilt angles, ``.rawtlt`` as recorded and ``.tlt`` as refined: one per line."""

from __future__ import annotations

import re

import numpy as np

from mrc_xarray.metadata.columns import Column, Metadata
from mrc_xarray.metadata.files import ImageFile, TextFile, clip, number
from mrc_xarray.suffixes import VOLUME_SUFFIXES, stem_and_suffix

__all__ = ["names", "read"]

# bytes of a line with one angle, and number of lines that may be blank
_LONGEST_LINE, _OTHER_LINES = 100, 1000


def names(image: str) -> tuple[str, ...]:
    """Return the possible names of the list for an image, best first.

    A raw stack has its angles as recorded, an aligned stack as the alignment refined them. A
    reconstruction has none.
    """
    stem, suffix = stem_and_suffix(image)
    if suffix in VOLUME_SUFFIXES:
        return ()
    base = re.sub(r"_(pre)?ali\Z", "", stem)
    is_aligned = suffix in (".ali", ".preali") or base != stem
    kinds = (".tlt", ".rawtlt") if is_aligned else (".rawtlt", ".tlt")
    return tuple(base + kind for kind in kinds)


def read(file: TextFile, image: ImageFile) -> Metadata:
    """Read a list of tilt angles, one angle per line, in degrees, as the column ``tilt_angle``.

    Nothing is used if a line is not an angle, or if there is not one angle for each section that
    the header promises: a missing angle would move all that follow.
    """
    most = _LONGEST_LINE * (image.n_promised + _OTHER_LINES)
    if len(file.raw) > most:
        accepted = f"up to {most} for {image.n_promised} sections"
        return _none(file, "the list", f"{len(file.raw)} bytes long", accepted)
    angles = []
    for line, text in file.lines():
        angle = number(text)
        if angle is None:
            accepted = "a number of degrees"
            return _none(file, "the tilt angle", clip(text), accepted, line)
        angles.append(angle)
    if len(angles) != image.n_promised:
        accepted = f"one for each section of the image, {image.n_promised}"
        return _none(file, "the number of tilt angles", str(len(angles)), accepted)
    values = np.array(angles[: image.n_sections], np.float64)
    return Metadata(columns=(Column("tilt_angle", values, "degree"),))


def _none(file: TextFile, field: str, found: str, accepted: str, line: int = 0) -> Metadata:
    action = "The tilt angles are left out."
    return Metadata(problems=(file.problem(field, found, accepted, action, line=line),))
