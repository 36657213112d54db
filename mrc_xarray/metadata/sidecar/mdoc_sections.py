"""Which sections of an image the entries of an ``.mdoc`` describe, and which image it describes.

See ``docs/reference/format.md#sidecars-and-sections``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mrc_xarray.errors import Problem
from mrc_xarray.metadata.files import ImageFile, TextFile, clip, more, number
from mrc_xarray.metadata.sidecar.autodoc import Autodoc, Entry, parse
from mrc_xarray.metadata.sidecar.matching import contradiction, match, stem

__all__ = ["Placed", "is_evidence", "misfit", "place"]

# kinds of entries: a section of a stack, and the frames of one exposure
_SECTION, _FRAMES = "ZValue", "FrameSet"


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Placed:
    """Entries by the sections that they describe.

    Attributes
    ----------
    entries : mapping of int to Entry
        By section, or the only exposure as 0.
    is_exposure : bool
        Whether all sections are the frames of one exposure.
    is_matched : bool
        Whether the records of the extended header decided, which then override the entries.
    problems : tuple of Problem
    """

    entries: Mapping[int, Entry] = field(default_factory=dict)
    is_exposure: bool = False
    is_matched: bool = False
    problems: tuple[Problem, ...] = ()


def place(file: TextFile, doc: Autodoc, image: ImageFile) -> Placed:
    """Find the entries of the sections of an image, or the one entry of an exposure.

    The numbers of entries decide if they are exactly those of all sections that the header
    promises, and if the tilt angles are those of the records. Otherwise, the records decide.
    """
    entries = _entries(doc)
    if not entries:
        accepted = f"[{_SECTION} = n] for each section, or one [{_FRAMES} = 0]"
        action = "The values of single sections are left out."
        return Placed(problems=(file.problem(_SECTION, "missing", accepted, action),))
    numbered, exposure = _numbered(entries, image), _exposure(entries, image)
    is_exposure = bool(exposure) and (exposure[0].kind == _FRAMES or not numbered)
    chosen = exposure if is_exposure else numbered
    differs = contradiction(_angles(chosen), image) if chosen else None
    if chosen and differs is None:
        return Placed(entries=dict(enumerate(chosen)), is_exposure=is_exposure)
    matched = match(list(map(_frames, entries)), _angles(entries), image)
    return Placed(
        entries={section: entries[i] for section, i in matched.items()},
        is_matched=True,
        problems=_unmatched(file, entries, matched, differs, image),
    )


def misfit(file: TextFile, image: ImageFile) -> Problem | None:
    """Return why an .mdoc does not describe an image, or None if it does.

    It describes the image of its own name, and else the one that it names as ImageFile. If it
    names none, it describes an image with as many sections as it has entries.
    """
    if file.name == image.name + ".mdoc":
        return None
    doc = parse(file)
    named, n_entries = doc.top.values.get("ImageFile", ""), len(_entries(doc))
    if named:
        # the name may have no suffix
        is_of_image = stem(image.name) in (stem(named), stem(named + ".mrc"))
        words = "ImageFile", clip(named), f"the name of this image, {clip(image.name)}"
    else:
        is_of_image = n_entries == image.n_promised
        accepted = f"ImageFile, or {image.n_promised}, one for each section of the image"
        words = "the number of entries", str(n_entries), accepted
    action = "It is not used; pass it as metadata_file= if it describes this image."
    line = doc.top.lines.get("ImageFile", 0)
    return None if is_of_image else file.problem(*words, action, line=line)


def is_evidence(file: TextFile, image: ImageFile) -> bool:
    """Return whether an .mdoc that does not misfit makes the image a stack.

    A reconstruction can have the stem of its tilt series, whose .mdoc has other entries.
    """
    if file.name == image.name + ".mdoc":
        return True
    doc = parse(file)
    named = re.split(r"[\\/]", doc.top.values.get("ImageFile", ""))[-1]
    return named.lower() == image.name.lower() or len(_entries(doc)) == image.n_promised


def _entries(doc: Autodoc) -> list[Entry]:
    sections = [entry for entry in doc.entries if entry.kind == _SECTION]
    return sections or [entry for entry in doc.entries if entry.kind == _FRAMES]


def _numbered(entries: Sequence[Entry], image: ImageFile) -> list[Entry]:
    """Return the entries of all sections by their numbers, 0 … NZ − 1; empty for other numbers."""
    by_number = {int(e.title): e for e in entries if re.fullmatch("[0-9]{1,9}", e.title)}
    if len(entries) != image.n_promised or by_number.keys() != set(range(len(entries))):
        return []
    return [by_number[section] for section in range(image.n_sections)]


def _exposure(entries: Sequence[Entry], image: ImageFile) -> list[Entry]:
    """Return the exposure whose frames are in the image: the one of its name, or the only one."""
    name = stem(image.name)
    named = [entry for entry in entries if name and _frames(entry) == name]
    only = [entry for entry in entries if entry.kind == _FRAMES]
    return next((group for group in (named, only) if len(group) == 1), [])


def _frames(entry: Entry) -> str:
    return stem(entry.values.get("SubFramePath", ""))


def _angles(entries: Sequence[Entry]) -> np.ndarray[Any, np.dtype[np.float64]]:
    # NumPy converts None to NaN
    return np.array([number(entry.values.get("TiltAngle", "")) for entry in entries], np.float64)


def _unmatched(
    file: TextFile,
    entries: Sequence[Entry],
    matched: Collection[int],
    differs: tuple[str, str, str] | None,
    image: ImageFile,
) -> tuple[Problem, ...]:
    """Return the problem that sections have no entry, if there is one.

    It is that the records contradict the numbers, if they do, or else what the numbers are.
    """
    missing = range(image.n_sections - len(matched))
    if not missing:
        return ()
    action = "The values of single sections are left out."
    if matched:
        first = next(section for section in range(image.n_sections) if section not in matched)
        action = f"The values of section {first}{more(missing)} are unknown."
    titles = sorted((entry.title for entry in entries), key=lambda title: (len(title), title))
    found = f"{len(entries)}, with n from {clip(titles[0])} to {clip(titles[-1])}"
    accepted = f"{image.n_promised}, with n from 0 to {image.n_promised - 1}, each of them once"
    numbers = f"the number of entries [{entries[0].kind} = n]", found, accepted
    return (file.problem(*(differs or numbers), action, line=entries[0].line),)
