"""What stands beside the pixels: the records of the extended header, and sidecars.

A sidecar's word goes before the header's, and the user's argument before both.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, TypeAlias

from mrc_xarray.errors import Problem
from mrc_xarray.metadata import scan
from mrc_xarray.metadata.columns import Column, Metadata, Value
from mrc_xarray.metadata.sidecar import SIDECARS, Sidecar, direct_electron_names, sidecar_named
from mrc_xarray.metadata.sidecar import direct_electron as de
from mrc_xarray.metadata.sidecar.lines import line_start
from mrc_xarray.storage.base import Bytes
from mrc_xarray.suffixes import COMPRESSED_SUFFIXES

__all__ = [
    "Beside",
    "NamedBytes",
    "SidecarChoice",
    "Step",
    "image_name",
    "read_sidecar",
    "read_tilt_list",
]

_TILT_LIST = "tilt_list"


class NamedBytes(NamedTuple):
    """A sidecar: its name, for its kind and for messages, and its content."""

    name: str
    raw: bytes


#: Look beside the image, don't, or take this one.
SidecarChoice: TypeAlias = "Literal['auto'] | NamedBytes | None"


class Step(NamedTuple):
    """The distance of neighbours along a dimension, and its units as in the file."""

    size: float
    units: str


@dataclass(frozen=True, eq=False)
class Beside:
    """What was found beside the pixels.

    Attributes
    ----------
    columns : tuple of Column
        One value a section.
    values : mapping of str to Value
        One value for the file.
    keys : mapping of str to str
        A sidecar's own keys and texts.
    scan : Scan or None
        How the sections lie in a scan.
    is_diffraction : bool
        Whether the sections are diffraction patterns.
    steps : mapping of str to Step
        By dimension.
    problems : tuple of Problem
        Of the scan, apart, since they do not matter where the user says what the sections are.
    scan_problems : tuple of Problem
    evidence : str
        How a sidecar tells that the sections are images of a stack; empty if none does.
    """

    columns: tuple[Column, ...] = ()
    values: Mapping[str, Value] = field(default_factory=dict)
    keys: Mapping[str, Any] = field(default_factory=dict)
    scan: scan.Scan | None = None
    is_diffraction: bool = False
    steps: Mapping[str, Step] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    scan_problems: tuple[Problem, ...] = ()
    evidence: str = ""

    @property
    def is_told(self) -> bool:
        """Whether there was a sidecar."""
        return bool(self.columns or self.values or self.keys)

    def over(self, records: Metadata) -> Beside:
        """Return these with what the extended header tells and they don't."""
        told = {column.name for column in self.columns} | set(self.values)
        columns = [column for column in records.columns if column.name not in told]
        values = {name: value for name, value in records.values.items() if name not in told}
        return replace(
            self,
            columns=(*self.columns, *columns),
            values=values | dict(self.values),
            problems=(*self.problems, *records.problems),
        )


def read_sidecar(
    source: Bytes, choice: SidecarChoice, scan_choice: SidecarChoice, n_sections: int
) -> Beside:
    """Read the sidecar that the user names, or else one that is beside the file.

    Parameters
    ----------
    source : Bytes
    choice : "auto", NamedBytes or None
    scan_choice : "auto", NamedBytes or None
        Of a Direct Electron scan's coordinates.
    n_sections : int

    Returns
    -------
    Beside
    """
    image = image_name(source)
    problems: list[Problem] = []
    kind, found = _find(source, choice, image, problems)
    if kind is None or found is None:
        if not isinstance(scan_choice, NamedBytes):
            return Beside(problems=tuple(problems))
        coordinates, more = de.parse_coordinates(scan_choice.raw, scan_choice.name)
        arranged: scan.Scan | None = None
        if coordinates is not None:
            arranged, more = scan.custom(coordinates, None, n_sections)
        scan_problems = _placed(more, scan_choice, code="scan")
        return Beside(scan=arranged, problems=tuple(problems), scan_problems=scan_problems)
    if kind.kind == "direct_electron":
        return _direct_electron(source, found, scan_choice, image, n_sections)
    metadata = kind.read(found.raw, found.name, image, n_sections)
    return Beside(
        metadata.columns,
        metadata.values,
        metadata.keys,
        problems=_placed(metadata.problems, found),
        evidence=(
            "an .mdoc is beside the file"
            if choice == "auto"
            else f"{found.name} tells of sections"
        ),
    )


def read_tilt_list(source: Bytes, n_sections: int) -> Metadata:
    """Read the list of tilt angles beside a stack, if there is one."""
    kind = next(sidecar for sidecar in SIDECARS if sidecar.kind == _TILT_LIST)
    image, problems = image_name(source), list[Problem]()
    found = _look(source, kind.names(image), problems)
    if found is None:
        return Metadata(problems=tuple(problems))
    metadata = kind.read(found.raw, found.name, image, n_sections)
    return replace(metadata, problems=_placed(metadata.problems, found))


def image_name(source: Bytes) -> str:
    """Return the name of an image's file, without folders and without what compresses it."""
    name = source.name.split("?")[0] if "://" in source.name else source.name
    name = posixpath.basename(name.replace("\\", "/"))
    stem, suffix = posixpath.splitext(name)
    # what is beside a file is not named after what compresses it
    return stem if suffix.lower() in COMPRESSED_SUFFIXES else name


def _find(
    source: Bytes, choice: SidecarChoice, image: str, problems: list[Problem]
) -> tuple[Sidecar | None, NamedBytes | None]:
    """Return a sidecar and its kind, if there is one."""
    if isinstance(choice, NamedBytes):
        return sidecar_named(choice.name) or _by_content(choice.raw), choice
    if choice == "auto":
        # a list of tilt angles has the name of a series, and so may a volume made from it
        for sidecar in SIDECARS:
            if sidecar.kind == _TILT_LIST:
                continue
            named = _look(source, sidecar.names(image), problems)
            if named is not None:
                return sidecar, named
    return None, None


def _look(source: Bytes, names: tuple[str, ...], problems: list[Problem]) -> NamedBytes | None:
    """Return the first of some files that is beside the image."""
    for name in names:
        try:
            raw = source.read_sibling(name)
        except OSError as error:
            # some stores say so of what is not there, too
            found = f"not to be read: {error}"
            action = "It is left out; metadata_file=None does not look for it."
            problems.append(
                Problem("sidecar", "the file", found, "a text file", action, file=name)
            )
            break
        if raw is not None:
            return NamedBytes(name, raw)
    return None


def _by_content(raw: bytes) -> Sidecar:
    """Tell the kind of a sidecar whose name does not."""
    kind = _TILT_LIST
    if b"[ZValue" in raw or b"[FrameSet" in raw:
        kind = "mdoc"
    elif b"=" in raw:
        kind = "direct_electron"
    return next(sidecar for sidecar in SIDECARS if sidecar.kind == kind)


def _direct_electron(
    source: Bytes, found: NamedBytes, scan_choice: SidecarChoice, image: str, n_sections: int
) -> Beside:
    info = de.parse_info(found.raw, found.name)
    metadata = info.metadata()
    coordinates: de.Coordinates | None = None
    beside: NamedBytes | None = None
    scan_problems: list[Problem] = []
    if scan_choice == "auto" and info.is_scan:
        beside = _look(source, direct_electron_names.coordinates_names(image), scan_problems)
    elif isinstance(scan_choice, NamedBytes):
        beside = scan_choice
    if beside is not None:
        coordinates, more = de.parse_coordinates(beside.raw, beside.name)
        scan_problems += more
    if coordinates is not None and isinstance(scan_choice, NamedBytes):
        # the user's word goes before the info file's
        arranged, more = scan.custom(coordinates, info, n_sections)
    else:
        arranged, more = scan.arrange(info, coordinates, n_sections)
    steps: dict[str, Step] = {}
    specimen = ("scan_y", "scan_x") if info.is_scan else ("y", "x")
    frame = ("ky", "kx") if info.is_diffraction else ("y", "x")
    for roles, sizes, units in (
        (specimen, info.specimen_pixel_size, "nm"),
        (frame, info.diffraction_pixel_size if info.is_diffraction else (None, None), "1/nm"),
    ):
        steps |= {n: Step(s, units) for n, s in zip(roles, sizes, strict=True) if s is not None}
    return Beside(
        values=metadata.values,
        keys=metadata.keys,
        scan=arranged,
        is_diffraction=info.is_diffraction,
        steps=steps,
        problems=_placed(metadata.problems, found),
        scan_problems=_placed((*scan_problems, *more), found, beside, code="scan"),
    )


def _placed(
    problems: Iterable[Problem], *files: NamedBytes | None, code: str | None = None
) -> tuple[Problem, ...]:
    """Say where in a sidecar the lines begin that something is wrong with."""
    raw = {file.name: file.raw for file in files if file is not None}
    return tuple(
        replace(
            problem,
            code=code or problem.code,
            offset=line_start(raw[problem.file], problem.line) if problem.line else None,
        )
        for problem in problems
        if isinstance(problem, Problem)
    )
