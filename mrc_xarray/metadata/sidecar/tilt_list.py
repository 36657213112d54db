"""IMOD's lists of tilt angles, ``.rawtlt`` as recorded and ``.tlt`` as refined: one a line."""

from __future__ import annotations

import re

import numpy as np

from mrc_xarray.errors import Problem
from mrc_xarray.metadata.columns import Column, Metadata
from mrc_xarray.metadata.sidecar.lines import clip, decode, lines, number
from mrc_xarray.suffixes import stem_and_suffix

__all__ = ["names", "read"]

# bytes of a line with one angle, and lines that may be blank
_LONGEST_LINE, _OTHER_LINES = 100, 1000
_ACTION = "The tilt angles are left out."


def names(image: str) -> tuple[str, ...]:
    """Return the names that the list for an image can have, best first.

    A raw stack has its angles as recorded, an aligned one as the alignment refined them; the
    files of a reconstruction have none.
    """
    stem, suffix = stem_and_suffix(image)
    if suffix in (".rec", ".map", ".ccp4"):
        return ()
    base = re.sub(r"_(pre)?ali\Z", "", stem)
    is_aligned = suffix in (".ali", ".preali") or base != stem
    kinds = (".tlt", ".rawtlt") if is_aligned else (".rawtlt", ".tlt")
    return tuple(base + kind for kind in kinds)


def read(raw: bytes, name: str, image: str, n_sections: int) -> Metadata:
    """Read a list of tilt angles.

    Parameters
    ----------
    raw : bytes
        The list's: one angle a line, degrees; blank lines are passed over.
    name : str
        The list's, for messages.
    image : str
        The image's, which does not matter here.
    n_sections : int
        Sections in the image, and so angles in the list.

    Returns
    -------
    Metadata
        One column, ``tilt_angle``, in degrees; none where a line is no angle, or their number is
        not that of the sections: an angle left out would move all that follow.
    """
    most = _LONGEST_LINE * (n_sections + _OTHER_LINES)
    if len(raw) > most:
        found, accepted = f"{len(raw)} bytes long", f"up to {most} for {n_sections} sections"
        problem = Problem("sidecar", "the list", found, accepted, _ACTION, file=name)
        return Metadata(problems=(problem,))
    angles = []
    for line, text in lines(decode(raw)):
        angle = number(text)
        if angle is None:
            problem = Problem(
                "sidecar",
                "the tilt angle",
                clip(text),
                "a number of degrees",
                _ACTION,
                file=name,
                line=line,
            )
            return Metadata(problems=(problem,))
        angles.append(angle)
    if len(angles) != n_sections:
        problem = Problem(
            "sidecar",
            "the number of tilt angles",
            str(len(angles)),
            f"one for each section of the image, {n_sections}",
            _ACTION,
            file=name,
        )
        return Metadata(problems=(problem,))
    return Metadata((Column("tilt_angle", np.array(angles, np.float64), "degree"),))
