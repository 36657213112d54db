"""SerialEM's ``.mdoc``: the settings of the microscope, for each section or for one exposure.

See ``docs/reference/format.md#mdoc``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from mrc_xarray.errors import Problem
from mrc_xarray.metadata.columns import Column, Metadata, Value
from mrc_xarray.metadata.files import ImageFile, TextFile, clip, more, number
from mrc_xarray.metadata.limits import is_worth_a_column
from mrc_xarray.metadata.sidecar.autodoc import LONGEST_LINE, Autodoc, Entry, parse

__all__ = ["names", "read"]

# kinds of entries: a section of a stack, and the frames of one exposure
_SECTION, _FRAMES = "ZValue", "FrameSet"
_TILT_AXIS = re.compile(r"tilt ?axis ?angle\s*=\s*([-+]?\d+\.?\d*)", re.IGNORECASE)


def names(image: str) -> tuple[str, ...]:
    """Return the possible names of the .mdoc of an image."""
    return (image + ".mdoc",)


def read(file: TextFile, image: ImageFile) -> Metadata:
    """Read an .mdoc, in SerialEM's units.

    Entries of ``[ZValue]`` are columns, and those of ``[FrameSet]`` single values for all frames
    of one exposure. Keys without a known meaning are in `keys`: global keys as they are, and keys
    of the entries under ``"sections"``.
    """
    doc = parse(file)
    sections = [entry for entry in doc.entries if entry.kind == _SECTION]
    exposures = [entry for entry in doc.entries if entry.kind == _FRAMES]
    n_places = image.n_sections
    if sections:
        entries, problems = _by_section(file, sections, image.n_sections)
    elif exposure := _exposure_of(exposures, image):
        entries, problems, n_places = {0: exposure}, [], 1
    elif exposures and len(exposures) == image.n_sections:
        entries, problems = dict(enumerate(exposures)), []
    else:
        entries, problems, n_places = {}, [_no_entry(file, exposures)], 1
    columns, bad = _columns(file, entries, n_places)
    found = Metadata.of_columns(columns)
    if not sections and n_places == 1:
        found = Metadata(values=_single_values(columns))
    top, more_bad = _columns(file, {0: doc.top}, 1)
    of_file = Metadata(
        values=_single_values(top) | _of_titles(doc),
        keys=_keys(doc, entries, n_places),
        problems=(*doc.problems, *problems, *bad, *more_bad),
    )
    # the value of a section overrides the value of the file
    return found.over(of_file)


def _exposure_of(exposures: list[Entry], image: ImageFile) -> Entry | None:
    """Return the exposure whose frames are in the image: the only one, or the one of its name."""
    stem = _stem(image.name)
    same = [e for e in exposures if stem and _stem(e.values.get("SubFramePath", "")) == stem]
    return next((group[0] for group in (same, exposures) if len(group) == 1), None)


def _no_entry(file: TextFile, exposures: list[Entry]) -> Problem:
    accepted = f"[{_SECTION} = n] for each section, or one [{_FRAMES} = 0] with its SubFramePath"
    action = "The values of single sections are left out."
    if not exposures:
        return file.problem(_SECTION, "missing", accepted, action)
    found = f"there {len(exposures)} times, but never for this image"
    return file.problem(_FRAMES, found, accepted, action, line=exposures[0].line)


def _by_section(
    file: TextFile, entries: list[Entry], n_sections: int
) -> tuple[dict[int, Entry], list[Problem]]:
    """Return a mapping of the image's sections to their entries."""
    ordered: dict[int, Entry] = {}
    wrong, repeated = [], []
    for entry in entries:
        section = int(entry.title) if re.fullmatch("[0-9]{1,9}", entry.title) else n_sections
        if section >= n_sections:
            wrong.append(entry)
            continue
        if section in ordered:
            repeated.append(entry)
        ordered[section] = entry
    problems = [
        file.problem(
            _SECTION, clip(group[0].title) + more(group), accepted, action, line=group[0].line
        )
        for group, accepted, action in (
            (wrong, f"a section of the image, 0–{n_sections - 1}", "It is left out."),
            (repeated, "each section once", "The last one is used."),
        )
        if group
    ]
    if n_missing := n_sections - len(ordered):
        first = next(section for section in range(n_sections) if section not in ordered)
        action = "Its values are unknown."
        if not is_worth_a_column(len(ordered), n_sections):
            action = "The entries are too few for columns, and are left out."
        found, accepted = "missing" + more(range(n_missing)), "an entry for each section"
        problems.append(file.problem(f"[{_SECTION} = {first}]", found, accepted, action))
    return ordered, problems


def _columns(
    file: TextFile, entries: Mapping[int, Entry], n_places: int
) -> tuple[list[Column], list[Problem]]:
    """Return the keys with a known meaning as columns of `n_places` values."""
    columns: list[Column] = []
    problems: list[Problem] = []
    if not is_worth_a_column(len(entries), n_places):
        return columns, problems
    for key, row in _KEYS.items():
        texts = {place: text for place, e in entries.items() if (text := e.values.get(key))}
        values = {place: row.parse(text) for place, text in texts.items()}
        if bad := [place for place, value in values.items() if value is None]:
            found, line = clip(texts[bad[0]]) + more(bad), entries[bad[0]].lines[key]
            action = "The value is unknown."
            problems.append(file.problem(key, found, row.accepted, action, line=line))
        known = {place: value for place, value in values.items() if value is not None}
        for part, name in enumerate(row.names if known else ()):
            # NumPy converts None to NaN or NaT
            column = np.full(n_places, None, row.dtype)
            column[list(known)] = [value[part] for value in known.values()]
            columns.append(Column(name, column, row.units))
    return columns, problems


def _keys(doc: Autodoc, entries: Mapping[int, Entry], n_places: int) -> dict[str, Any]:
    keys: dict[str, Any] = dict(doc.top.values)
    if doc.titles:
        keys["titles"] = list(doc.titles)
    if unknown := _unknown(entries, n_places):
        keys["sections"] = unknown
    return keys


def _unknown(entries: Mapping[int, Entry], n_places: int) -> dict[str, Any]:
    """Return the keys without a known meaning: one text if all places have the same, else a list.

    A key that most places lack is a mapping of place to text, so that the metadata of an .mdoc
    with many different keys are not longer than the file.
    """
    by_key: dict[str, dict[int, str]] = {}
    for place, entry in entries.items():
        for key, text in entry.values.items():
            if key not in _KEYS:
                by_key.setdefault(key, {})[place] = text
    found: dict[str, Any] = {}
    for key, texts in by_key.items():
        if len(texts) == n_places and len(set(texts.values())) == 1:
            found[key] = next(iter(texts.values()))
        elif 2 * len(texts) < n_places:
            found[key] = {str(place): text for place, text in texts.items()}
        else:
            found[key] = [texts.get(place, "") for place in range(n_places)]
    return found


def _of_titles(doc: Autodoc) -> dict[str, Value]:
    titles = "\n".join(doc.titles)[:LONGEST_LINE]
    if not titles:
        return {}
    axis = _TILT_AXIS.search(titles)
    angle = {"tilt_axis_angle": Value(float(axis[1]), "degree")} if axis else {}
    return {"titles": Value(titles)} | angle


def _single_values(columns: Iterable[Column]) -> dict[str, Value]:
    """Return columns of one entry as single values, without unknown ones."""
    values = {}
    for column in columns:
        value = column.values[0]
        # NaN and NaT do not equal themselves
        if value == value:
            plain = value if column.values.dtype.kind == "M" else value.item()
            values[column.name] = Value(plain, column.units)
    return values


def _stem(path: str) -> str:
    """Return a file name in lower case, without suffix and folders, also of Windows."""
    return re.sub(r"\.[^.]*\Z", "", re.split(r"[\\/]", path)[-1]).lower()


def _numbers(text: str, count: int) -> tuple[float, ...] | None:
    numbers = [value for part in text.split() if (value := number(part)) is not None]
    return tuple(numbers) if len(numbers) == len(text.split()) == count else None


# independent of the locale
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DATE_TIME = re.compile(
    r"(\d{1,4})-([a-z]{3})-(\d{1,4})\s+(\d\d?:\d\d:\d\d)", re.IGNORECASE | re.ASCII
)


def _date_time(text: str) -> tuple[np.datetime64] | None:
    """Return the time of ``21-Nov-26  12:38:50`` or ``2026-Nov-21  12:38:50``."""
    match = _DATE_TIME.fullmatch(text)
    if match is None or match[2].lower() not in _MONTHS:
        return None
    day, year = int(match[1]), int(match[3])
    if len(match[1]) == 4:
        day, year = year, day
    year += 2000 if year < 100 else 0
    month = _MONTHS.index(match[2].lower()) + 1
    try:
        text = f"{year:04}-{month:02}-{day:02}T{match[4]:0>8}"
        return (np.datetime64(text, "us"),)
    except ValueError:
        return None


class _Key(NamedTuple):
    """The names of a key's numbers here, and how its value is read."""

    names: tuple[str, ...]
    units: str
    dtype: str
    accepted: str
    parse: Callable[[str], tuple[Any, ...] | None]


def _floats(*names: str, units: str = "") -> _Key:
    accepted = f"{len(names)} numbers" if len(names) > 1 else "a number"
    return _Key(names, units, "f8", accepted, functools.partial(_numbers, count=len(names)))


_KEYS = {
    "TiltAngle": _floats("tilt_angle", units="degree"),
    "StagePosition": _floats("stage_x", "stage_y", units="um"),
    "StageZ": _floats("stage_z", units="um"),
    "Defocus": _floats("defocus", units="um"),
    "TargetDefocus": _floats("target_defocus", units="um"),
    "ExposureDose": _floats("dose", units="e/angstrom^2"),
    "PriorRecordDose": _floats("prior_record_dose", units="e/angstrom^2"),
    "DoseRate": _floats("dose_rate", units="e/pixel/s"),
    "ExposureTime": _floats("exposure_time", units="s"),
    "DateTime": _Key(("time",), "", "M8[us]", "as in 21-Nov-26  12:38:50", _date_time),
    "Magnification": _floats("magnification"),
    "ImageShift": _floats("image_shift_x", "image_shift_y", units="um"),
    "RotationAngle": _floats("rotation_angle", units="degree"),
    "PixelSpacing": _floats("pixel_spacing", units="angstrom"),
    "Voltage": _floats("voltage", units="kV"),
    "MinMaxMean": _floats("minimum", "maximum", "mean"),
}
