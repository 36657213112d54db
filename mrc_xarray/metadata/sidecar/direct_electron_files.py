"""The file names of one Direct Electron acquisition, by the name of its movie.

See ``docs/reference/format.md#direct-electron`` for the names that servers give.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from mrc_xarray.metadata.files import Companion, Name
from mrc_xarray.suffixes import stem_and_suffix

__all__ = ["companions", "named", "names_of", "prefixes"]

_MOVIE = "_movie.mrc"
_ACQUISITION = re.compile(r"\d{8}_\d+")
_NUMBERED = re.compile(r"(\d{8}_\d+)(?:_.+)?_movie\.mrc")


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


def names_of(movie: str, end: str) -> tuple[Name, ...]:
    """Return the possible names of a file of the acquisition of a movie, best first.

    The last one is a pattern, for any suffix after the number of the acquisition.
    """
    others = (re.compile(other + re.escape(end)) for other in _any_suffix(movie))
    return (*(prefix + end for prefix in prefixes(movie)), *others)


def _any_suffix(movie: str) -> list[str]:
    """Return a pattern for beginnings with any suffix, if the movie has an acquisition number."""
    numbered = _NUMBERED.fullmatch(movie)
    return [f"{numbered[1]}(?:_.*?)?"] if numbered else []


def companions(movie: str, names: Iterable[str], keys: Mapping[str, Any]) -> tuple[Companion, ...]:
    """Return the images of the acquisition of a movie, among the files in its folder.

    These are virtual and external detectors, each in the order of their numbers, and the sum of
    all frames. Where two detectors have one name, it is followed by the calculation, or preceded
    by the number. The keys of the info file give the names of detectors that contain a ``_``.
    """
    files = sorted(names)
    beginnings = [*map(re.escape, prefixes(movie)), *_any_suffix(movie)]
    found: list[Companion] = []
    for group in ("virtual", "external"):
        by_beginning = (_detectors(group, begin, files, keys) for begin in beginnings)
        found += _named(group, next(filter(None, by_beginning), []))
    sums = (
        [file for file in files if re.fullmatch(rf"{begin}_final\.mrc", file)]
        for begin in beginnings
    )
    final = next(filter(None, sums), [])
    return (*found, *(Companion("", "final", file, "frame") for file in final[:1]))


def named(
    movie: str, group: str, names: Sequence[str], keys: Mapping[str, Any]
) -> list[Companion]:
    """Return the images of detectors that the user gives, in their order, by their file names.

    An image is named after its detector, if its file has the name that a server gives, and
    otherwise after its file.
    """
    beginnings = [*map(re.escape, prefixes(movie)), f"{_ACQUISITION.pattern}(?:_.*?)?"]
    detectors = []
    for number, name in enumerate(names):
        by_beginning = (_detectors(group, begin, [name], keys) for begin in beginnings)
        # a file object without a name has its type in angle brackets
        own = f"{group}_image_{number}" if name.startswith("<") else stem_and_suffix(name)[0]
        unknown = [_Detector(number, own, "", name)]
        detectors += next(filter(None, by_beginning), unknown)
    return _named(group, detectors)


class _Detector(NamedTuple):
    number: int
    name: str
    calculation: str
    file: str


# number, and name with calculation or, of external detectors, an optional name
_PATTERNS = {
    "virtual": r"_(?:virt ?)?(\d{1,9})_((?!ext\d+_)[^_]+_.+)\.mrc",
    "external": r"_ext(\d{1,9})(?:_(.+))?\.mrc",
}


def _detectors(
    group: str, begin: str, files: list[str], keys: Mapping[str, Any]
) -> list[_Detector]:
    pattern = re.compile(begin + _PATTERNS[group], re.IGNORECASE)
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
