"""Lists of tilt angles, IMOD's ``.rawtlt`` as recorded and ``.tlt`` as refined: one per line.

See ``docs/reference/format.md#mdoc``.
"""

from __future__ import annotations

import re

import numpy as np

from mrc_xarray.metadata.columns import Column, Metadata
from mrc_xarray.metadata.files import ImageFile, TextFile, clip, number
from mrc_xarray.metadata.sidecar.matching import SAME_ANGLE, contradiction
from mrc_xarray.suffixes import STACK_SUFFIXES, VOLUME_SUFFIXES, stem_and_suffix

__all__ = ["names", "names_in_stores", "read", "read_next_to"]

# bytes of a line with one angle, and number of lines that may be blank
_LONGEST_LINE, _OTHER_LINES = 100, 1000
# the angle, and the order or dose of the view; with more columns, the first is no angle
_MOST_COLUMNS = 3
# degrees by which a refined angle differs from the recorded one; more is another view
_MOST_REFINED = 1.5


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


def names_in_stores(image: str) -> tuple[str, ...]:
    """Return the name that is looked for in a store, if the name of the image is a stack's."""
    return names(image)[:1] if stem_and_suffix(image)[1] in STACK_SUFFIXES else ()


def read(file: TextFile, image: ImageFile) -> Metadata:
    """Read a list of tilt angles, one per line, in degrees, as the column ``tilt_angle``.

    The angle is the first of up to three numbers. Nothing is used if a line is something else, or
    if there is not one angle for each section that the header promises: a missing angle would
    move all that follow. Nor if the angles contradict the records of the extended header.
    """
    most = _LONGEST_LINE * (image.n_promised + _OTHER_LINES)
    if len(file.raw) > most:
        accepted = f"up to {most} for {image.n_promised} sections"
        return _none(file, "the list", f"{len(file.raw)} bytes long", accepted)
    rows = []
    for line, text in file.lines():
        row = [number(word) for word in text.split()]
        rows.append(row)
        if None in row or len(row) != len(rows[0]) or len(row) > _MOST_COLUMNS:
            accepted = f"a number of degrees, the first of up to {_MOST_COLUMNS} columns"
            return _none(file, "the tilt angle", clip(text), accepted, line)
    if len(rows) != image.n_promised:
        accepted = f"one for each section of the image, {image.n_promised}"
        return _none(file, "the number of tilt angles", str(len(rows)), accepted)
    angles = np.array([row[0] for row in rows[: image.n_sections]], np.float64)
    is_refined = not file.name.lower().endswith(".rawtlt")
    if differs := contradiction(angles, image, _MOST_REFINED if is_refined else SAME_ANGLE):
        return _none(file, *differs)
    return Metadata(columns=(Column("tilt_angle", angles, "degree"),))


def read_next_to(image: ImageFile) -> Metadata:
    """Read the list next to an image; empty if there is none."""
    file, _ = image.find(names(image.name))
    return Metadata() if file is None else read(file, image)


def _none(file: TextFile, field: str, found: str, accepted: str, line: int = 0) -> Metadata:
    action = "The tilt angles are left out."
    return Metadata(problems=(file.problem(field, found, accepted, action, line=line),))
