"""Which entry of a sidecar describes which section, by the records of the extended header.

See ``docs/reference/format.md#sidecars-and-sections``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from mrc_xarray.metadata.files import ImageFile
from mrc_xarray.metadata.limits import is_worth_a_column

__all__ = ["SAME_ANGLE", "contradiction", "match", "stem"]

_Angles: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"

#: Two recordings of one tilt angle differ by this at most, in degrees.
SAME_ANGLE = 0.1
# records with larger numbers contain no angles
_LARGEST_ANGLE = 180.0


def stem(path: str) -> str:
    """Return a file name in lower case, without suffix and folders, also of Windows."""
    return re.sub(r"\.[^.]*\Z", "", re.split(r"[\\/]", path)[-1]).lower()


def contradiction(
    angles: _Angles, image: ImageFile, tolerance: float = SAME_ANGLE
) -> tuple[str, str, str] | None:
    """Compare the tilt angles of all sections, or one angle for all, with the records.

    Return the field, what was found and what is accepted for the first section that differs.
    """
    angles, recorded = np.broadcast_arrays(angles, _recorded_angles(image))
    # comparisons with NaN, for unknown, are False
    differs = np.flatnonzero(np.abs(angles - recorded) > tolerance)
    if not len(differs):
        return None
    found = f"{angles[differs[0]]:.6g} for section {differs[0]}"
    accepted = f"the angle in the extended header, {recorded[differs[0]]:.6g}"
    return "the tilt angle", found, accepted


def match(frames: Sequence[str], angles: _Angles, image: ImageFile) -> dict[int, int]:
    """Return the number of the entry of each section that the records identify.

    They contain the names of its frames, or else its tilt angle. An entry that fits several
    sections is left out, and so is a section that fits several entries.

    Parameters
    ----------
    frames : sequence of str
        For each entry, the name of the file of its frames, as `stem` returns it, or ``""``.
    angles : ndarray of float64, shape (n_entries,)
        Their tilt angles in degrees, or NaN.
    """
    # the header may promise 2³¹ sections
    if not is_worth_a_column(len(frames), image.n_sections):
        return {}
    return _by_frames(frames, image) or _by_angle(angles, image)


def _by_frames(frames: Sequence[str], image: ImageFile) -> dict[int, int]:
    counts = Counter(frames)
    numbers = {name: i for i, name in enumerate(frames) if name and counts[name] == 1}
    recorded = image.recorded.get("input_stack", np.zeros(1, "U1")).tolist()
    return _without_repeats([numbers.get(stem(name), -1) for name in recorded], image)


def _by_angle(angles: _Angles, image: ImageFile) -> dict[int, int]:
    recorded = _recorded_angles(image)
    # NaN is sorted to the end
    order = np.argsort(angles)[: np.count_nonzero(np.isfinite(angles))]
    first = np.searchsorted(angles[order], recorded - SAME_ANGLE)
    end = np.searchsorted(angles[order], recorded + SAME_ANGLE, "right")
    numbers = np.full(len(recorded), -1)
    is_one = end - first == 1
    numbers[is_one] = order[first[is_one]]
    return _without_repeats(numbers, image)


def _without_repeats(numbers: Sequence[int] | _Angles, image: ImageFile) -> dict[int, int]:
    """Return the numbers of entries by section, without −1 and numbers of several sections."""
    # one value for all sections can be an array of length 1
    of_sections = np.broadcast_to(numbers, image.n_sections).tolist()
    counts = Counter(of_sections)
    return {section: i for section, i in enumerate(of_sections) if i >= 0 and counts[i] == 1}


def _recorded_angles(image: ImageFile) -> _Angles:
    """Return the tilt angles in the records, shape (n_sections,) or (1,); NaN if unknown.

    Programs reserve records and leave them zero, or write other numbers in the place of the angle.
    """
    angles = image.recorded.get("tilt_angle", np.zeros(1))
    known = angles[np.isfinite(angles)]
    are_angles = known.any() and (np.abs(known) <= _LARGEST_ANGLE).all()
    return angles if are_angles else np.full(1, np.nan)
