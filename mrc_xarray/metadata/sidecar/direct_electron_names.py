"""The names of the files of one Direct Electron acquisition, by the name of its movie.

See FORMAT: Direct Electron, for what servers call them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from mrc_xarray.metadata.sidecar.direct_electron import Info

__all__ = ["Neighbours", "coordinates_names", "info_names", "neighbours"]

_MOVIE = "_movie.mrc"
_ACQUISITION = re.compile(r"\d{8}_\d+")


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The files of one acquisition, beside its movie.

    Attributes
    ----------
    virtual, external : dict of str to str
        Detector's name to file name, in the order of the detectors' numbers.
    final : str or None
        File name of the sum of all frames.
    """

    virtual: dict[str, str] = field(default_factory=dict)
    external: dict[str, str] = field(default_factory=dict)
    final: str | None = None


def info_names(movie: str) -> tuple[str, ...]:
    """Return the names that the info file of a movie can have, best first.

    Parameters
    ----------
    movie : str
        File name, without folders. Nothing is beside what does not end in ``_movie.mrc``.
    """
    return tuple(prefix + "_info.txt" for prefix in _prefixes(movie))


def coordinates_names(movie: str) -> tuple[str, ...]:
    """Return the names that the scan coordinates of a movie can have, best first."""
    return tuple(prefix + "_scan_coordinates.csv" for prefix in _prefixes(movie))


def neighbours(movie: str, names: Iterable[str], info: Info | None = None) -> Neighbours:
    """Tell which files belong to the acquisition of a movie.

    Parameters
    ----------
    movie : str
        File name, without folders.
    names : iterable of str
        The files in its folder.
    info : Info, optional
        For the names of the detectors, where these hold a ``_``.

    Returns
    -------
    Neighbours
        Where two detectors have one name, it is followed by the calculation, or led by the
        number.
    """
    names = sorted(names)
    virtual: list[_Image] = []
    external: list[_Image] = []
    final = None
    for prefix in _prefixes(movie):
        virtual = virtual or _virtual(prefix, names, info)
        external = external or _external(prefix, names)
        if final is None and f"{prefix}_final.mrc" in names:
            final = f"{prefix}_final.mrc"
    return Neighbours(_by_name(virtual), _by_name(external), final)


class _Image(NamedTuple):
    """An image beside the movie."""

    number: int
    name: str
    rest: str
    file: str


def _prefixes(movie: str) -> list[str]:
    """Return what the names of the neighbours can begin with.

    Movies of one acquisition are numbered, and its other files are not; some servers leave out
    the suffix as well.
    """
    if not movie.endswith(_MOVIE) or movie == _MOVIE:
        return []
    stem = movie.removesuffix(_MOVIE)
    prefixes = [stem]
    if acquisition := _ACQUISITION.match(stem):
        unnumbered = re.sub(r"_\d+\Z", "", stem)
        if len(unnumbered) > acquisition.end():
            prefixes.append(unnumbered)
        prefixes.append(acquisition[0])
    return list(dict.fromkeys(prefixes))


def _virtual(prefix: str, names: Iterable[str], info: Info | None) -> list[_Image]:
    # virtual: <n or virt n>_<name>_<calculation>
    pattern = re.compile(
        re.escape(prefix) + r"_(?:virt ?)?(\d{1,9})_([^_]+_.+)\.mrc", re.IGNORECASE
    )
    images = []
    for file in names:
        if file.endswith(_MOVIE) or not (match := pattern.fullmatch(file)):
            continue
        count, rest = int(match[1]), match[2]
        known = info.values.get(f"Scan - Virtual Detector {count} Name", "") if info else ""
        cut = len(known) if known and rest.startswith(known + "_") else rest.index("_")
        images.append(_Image(count, rest[:cut], rest[cut + 1 :], file))
    return sorted(images)


def _external(prefix: str, names: Iterable[str]) -> list[_Image]:
    pattern = re.compile(re.escape(prefix) + r"_ext(\d{1,9})(?:_(.+))?\.mrc", re.IGNORECASE)
    found = [(match, file) for file in names if (match := pattern.fullmatch(file))]
    return sorted(
        _Image(int(match[1]), match[2] or f"ext{int(match[1])}", "", file) for match, file in found
    )


def _by_name(images: list[_Image]) -> dict[str, str]:
    files: dict[str, str] = {}
    for image in images:
        same = [other for other in images if other.name == image.name]
        name = image.name if len(same) == 1 else f"{image.name} {image.rest}".strip()
        while name in files:
            name = f"{image.number} {name}"
        files[name] = image.file
    return files
