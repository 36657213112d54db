"""The file names of one Direct Electron acquisition, by the name of its movie.

See ``docs/reference/format.md#direct-electron`` for the names that servers give.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from mrc_xarray.metadata.files import Companion

__all__ = ["companions", "prefixes"]

_MOVIE = "_movie.mrc"
_ACQUISITION = re.compile(r"\d{8}_\d+")


def prefixes(movie: str) -> list[str]:
    """Return the beginnings of file names that belong to a movie, best first.

    Movies of one acquisition are numbered, and its other files are not; some servers leave out
    the suffix as well. A name that does not end in ``_movie.mrc`` has none.
    """
    if not movie.endswith(_MOVIE) or movie == _MOVIE:
        return []
    stem = movie.removesuffix(_MOVIE)
    found = [stem]
    if acquisition := _ACQUISITION.match(stem):
        unnumbered = re.sub(r"_\d+\Z", "", stem)
        if len(unnumbered) > acquisition.end():
            found.append(unnumbered)
        found.append(acquisition[0])
    return list(dict.fromkeys(found))


def companions(movie: str, names: Iterable[str], keys: Mapping[str, Any]) -> tuple[Companion, ...]:
    """Return the images of the acquisition of a movie, among the files in its folder.

    These are virtual and external detectors, each in the order of their numbers, and the sum of
    all frames. Where two detectors have one name, it is followed by the calculation, or preceded
    by the number. The keys of the info file give the names of detectors that contain a ``_``.
    """
    files = sorted(names)
    found: list[Companion] = []
    for group in ("virtual", "external"):
        by_prefix = (_detectors(group, prefix, files, keys) for prefix in prefixes(movie))
        found += _named(group, next(filter(None, by_prefix), []))
    sums = (f"{prefix}_final.mrc" for prefix in prefixes(movie))
    final = next((file for file in sums if file in files), None)
    return (*found, *([Companion("", "final", final, "frame")] if final else ()))


class _Detector(NamedTuple):
    number: int
    name: str
    calculation: str
    file: str


# number, and name with calculation or, of external detectors, an optional name
_PATTERNS = {
    "virtual": r"_(?:virt ?)?(\d{1,9})_([^_]+_.+)\.mrc",
    "external": r"_ext(\d{1,9})(?:_(.+))?\.mrc",
}


def _detectors(
    group: str, prefix: str, files: list[str], keys: Mapping[str, Any]
) -> list[_Detector]:
    pattern = re.compile(re.escape(prefix) + _PATTERNS[group], re.IGNORECASE)
    detectors = []
    for file in files:
        if file.endswith(_MOVIE) or not (match := pattern.fullmatch(file)):
            continue
        number, name, calculation = int(match[1]), match[2] or f"ext{int(match[1])}", ""
        if group == "virtual":
            known = str(keys.get(f"Scan - Virtual Detector {number} Name", ""))
            cut = len(known) if known and name.startswith(f"{known}_") else name.index("_")
            name, calculation = name[:cut], name[cut + 1 :]
        detectors.append(_Detector(number, name, calculation, file))
    return sorted(detectors)


def _named(group: str, detectors: list[_Detector]) -> list[Companion]:
    """Give each detector a name of its own."""
    names = [detector.name for detector in detectors]
    files: dict[str, str] = {}
    for detector in detectors:
        is_unique = names.count(detector.name) == 1
        name = detector.name if is_unique else f"{detector.name} {detector.calculation}".strip()
        while name in files:
            name = f"{detector.number} {name}"
        files[name] = detector.file
    return [Companion(group, name, file, "scan") for name, file in files.items()]
