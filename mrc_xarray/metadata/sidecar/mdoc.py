"""SerialEM's ``.mdoc``: what the microscope was set to, for each section or for one exposure.

See FORMAT: SerialEM mdoc.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np

from mrc_xarray.errors import Problem
from mrc_xarray.metadata.columns import Column, Metadata, Value, gather
from mrc_xarray.metadata.limits import are_worthwhile
from mrc_xarray.metadata.sidecar.autodoc import Autodoc, Entry, parse
from mrc_xarray.metadata.sidecar.lines import LONGEST_LINE, Room, clip, more, number

__all__ = ["names", "read"]

# kinds of entries: a section of a stack, and the frames of one exposure
_SECTION, _FRAMES = "ZValue", "FrameSet"
_TILT_AXIS = re.compile(r"tilt ?axis ?angle\s*=\s*([-+]?\d+\.?\d*)", re.IGNORECASE)


def names(image: str) -> tuple[str, ...]:
    """Return the names that the .mdoc of an image can have."""
    return (image + ".mdoc",)


def read(raw: bytes, name: str, image: str, n_sections: int) -> Metadata:
    """Read an .mdoc for an image.

    Parameters
    ----------
    raw : bytes
        The .mdoc's.
    name : str
        The .mdoc's, for messages.
    image : str
        The image's file name, which tells its exposure among several.
    n_sections : int
        Sections in the image.

    Returns
    -------
    Metadata
        Of an .mdoc with ``[ZValue]``: columns, the entry for section n at n. Of one with
        ``[FrameSet]``: single values, for all frames of one exposure. In SerialEM's units. Keys
        without a known meaning are in its `keys`: global keys as they are, and keys of the
        entries under ``"sections"``.
    """
    doc = parse(raw, name)
    problems = list(doc.problems)
    entries, is_single = _entries_of(doc, image, n_sections, problems)
    n_places = 1 if is_single else n_sections
    columns = _columns(name, entries, n_places, problems)
    found = Metadata(values=_values(columns)) if is_single else gather(columns)

    values = _values(_columns(name, {0: doc.globals}, 1, problems))
    if doc.titles:
        values["titles"] = Value("\n".join(doc.titles)[:LONGEST_LINE])
        if axis := _TILT_AXIS.search(values["titles"].value):
            values["tilt_axis_angle"] = Value(float(axis[1]), "degree")
    # a section's own word goes before the file's
    for column in found.columns:
        values.pop(column.name, None)
    room = Room()
    keys: dict[str, Any] = {
        key: text for key, text in doc.globals.values.items() if room.takes(key, (text,))
    }
    if doc.titles and room.takes("titles", doc.titles, len(doc.titles)):
        keys["titles"] = list(doc.titles)
    if unknown := _unknown(entries, n_places, room):
        keys["sections"] = unknown
    problems += room.problems(name)
    return Metadata(found.columns, values | dict(found.values), keys, tuple(problems))


def _entries_of(
    doc: Autodoc, image: str, n_sections: int, problems: list[Problem]
) -> tuple[Mapping[int, Entry], bool]:
    """Return a mapping of section to entry, and whether a single entry is for all sections."""
    sections = [entry for entry in doc.entries if entry.kind == _SECTION]
    exposures = [entry for entry in doc.entries if entry.kind == _FRAMES]
    if sections:
        return _in_order(doc.name, sections, n_sections, problems), False
    stem = _stem(image)
    same = [e for e in exposures if stem and _stem(e.values.get("SubFramePath", "")) == stem]
    if len(exposures) == 1 or len(same) == 1:
        return {0: (same or exposures)[0]}, True
    if exposures and len(exposures) == n_sections:
        return dict(enumerate(exposures)), False
    found = (
        f"there {len(exposures)} times, none of them for this image" if exposures else "missing"
    )
    problems.append(
        Problem(
            "sidecar",
            _FRAMES if exposures else _SECTION,
            found,
            f"[{_SECTION} = n] for each section, or one [{_FRAMES} = 0] with its SubFramePath",
            "What is known of single sections is left out.",
            file=doc.name,
            line=exposures[0].line if exposures else 0,
        )
    )
    return {}, True


def _in_order(
    name: str, sections: Sequence[Entry], n_sections: int, problems: list[Problem]
) -> dict[int, Entry]:
    """Return a mapping of the image's sections to their entries."""
    ordered: dict[int, Entry] = {}
    wrong, repeated = [], []
    for entry in sections:
        section = int(entry.title) if re.fullmatch("[0-9]{1,9}", entry.title) else n_sections
        if section >= n_sections:
            wrong.append(entry)
            continue
        if section in ordered:
            repeated.append(entry)
        ordered[section] = entry
    for group, accepted, action in (
        (wrong, f"a section of the image, 0–{n_sections - 1}", "It is left out."),
        (repeated, "each section once", "The last one is taken."),
    ):
        if group:
            found = clip(group[0].title) + more(group)
            problems.append(
                Problem(
                    "sidecar", _SECTION, found, accepted, action, file=name, line=group[0].line
                )
            )
    if n_missing := n_sections - len(ordered):
        first = next(section for section in range(n_sections) if section not in ordered)
        problems.append(
            Problem(
                "sidecar",
                f"[{_SECTION} = {first}]",
                "missing" + (f" (and {n_missing - 1} more)" if n_missing > 1 else ""),
                "an entry for each section of the image",
                "What it would say is unknown."
                if are_worthwhile(len(ordered), n_sections)
                else "The few entries are not worth a column, and are left out.",
                file=name,
            )
        )
    return ordered


def _columns(
    name: str, entries: Mapping[int, Entry], n_places: int, problems: list[Problem]
) -> list[Column]:
    """Return the keys with a known meaning as columns, with one value for each of `n_places`."""
    columns: list[Column] = []
    if not are_worthwhile(len(entries), n_places):
        return columns
    for key, row in _KEYS.items():
        texts = {place: text for place, e in entries.items() if (text := e.values.get(key))}
        values = {place: row.parse(text) for place, text in texts.items()}
        if bad := [place for place, value in values.items() if value is None]:
            line, found = entries[bad[0]].lines[key], clip(texts[bad[0]]) + more(bad)
            problems.append(
                Problem(
                    "sidecar",
                    key,
                    found,
                    row.accepted,
                    "It is taken as unknown.",
                    file=name,
                    line=line,
                )
            )
        known = {place: value for place, value in values.items() if value is not None}
        for part, column_name in enumerate(row.names if known else ()):
            # numpy makes NaN or NaT of None
            column = np.full(n_places, None, row.dtype)
            column[list(known)] = [value[part] for value in known.values()]
            columns.append(Column(column_name, column, row.units))
    return columns


def _unknown(entries: Mapping[int, Entry], n_places: int, room: Room) -> dict[str, Any]:
    """Return the keys without a known meaning: one text if all places have the same, else a list.

    A key that most places lack has a mapping of place to text, so that a sidecar of many
    different keys does not become longer in the metadata.
    """
    by_key: dict[str, dict[int, str]] = {}
    for place, entry in entries.items():
        for key, text in entry.values.items():
            if key not in _KEYS:
                by_key.setdefault(key, {})[place] = text
    found: dict[str, Any] = {}
    for key, texts in by_key.items():
        distinct = set(texts.values())
        if len(texts) == n_places and len(distinct) == 1:
            if room.takes(key, distinct):
                found[key] = distinct.pop()
        elif 2 * len(texts) < n_places:
            if room.takes(key, texts.values()):
                found[key] = {str(place): text for place, text in texts.items()}
        elif room.takes(key, texts.values(), n_places):
            found[key] = [texts.get(place, "") for place in range(n_places)]
    return found


def _values(columns: Iterable[Column]) -> dict[str, Value]:
    """Return columns of one entry as single values, without what is unknown."""
    values = {}
    for column in columns:
        value = column.values[0]
        # not so for NaN and NaT
        if value == value:
            plain = value if column.values.dtype.kind == "M" else value.item()
            values[column.name] = Value(plain, column.units)
    return values


def _stem(path: str) -> str:
    """Return a file's name without folders, which may be Windows's, and without its suffix."""
    return re.sub(r"\.[^.]*\Z", "", re.split(r"[\\/]", path)[-1]).lower()


def _numbers(text: str, count: int) -> tuple[float, ...] | None:
    numbers = [value for part in text.split() if (value := number(part)) is not None]
    return tuple(numbers) if len(numbers) == len(text.split()) == count else None


# whatever the locale calls them
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DATE_TIME = re.compile(
    r"(\d{1,4})-([a-z]{3})-(\d{1,4})\s+(\d\d?):(\d\d):(\d\d)", re.IGNORECASE | re.ASCII
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
    hour, minute, second = (int(match[group]) for group in (4, 5, 6))
    try:
        time = datetime(year, month, day, hour, minute, second)
    except ValueError:
        return None
    return (np.datetime64(time, "us"),)


class _Key(NamedTuple):
    """What a key is called here, and how its value is read."""

    names: tuple[str, ...]
    units: str
    dtype: str
    accepted: str
    parse: Callable[[str], tuple[Any, ...] | None]


def _number(name: str, units: str = "") -> _Key:
    return _Key((name,), units, "f8", "a number", functools.partial(_numbers, count=1))


def _several(*names: str, units: str = "") -> _Key:
    read_all = functools.partial(_numbers, count=len(names))
    return _Key(names, units, "f8", f"{len(names)} numbers", read_all)


_KEYS = {
    "TiltAngle": _number("tilt_angle", "degree"),
    "StagePosition": _several("stage_x", "stage_y", units="um"),
    "StageZ": _number("stage_z", "um"),
    "Defocus": _number("defocus", "um"),
    "TargetDefocus": _number("target_defocus", "um"),
    "ExposureDose": _number("dose", "e/angstrom^2"),
    "PriorRecordDose": _number("prior_record_dose", "e/angstrom^2"),
    "DoseRate": _number("dose_rate", "e/pixel/s"),
    "ExposureTime": _number("exposure_time", "s"),
    "DateTime": _Key(("time",), "", "M8[us]", "as in 21-Nov-26  12:38:50", _date_time),
    "Magnification": _number("magnification"),
    "ImageShift": _several("image_shift_x", "image_shift_y", units="um"),
    "RotationAngle": _number("rotation_angle", "degree"),
    "PixelSpacing": _number("pixel_spacing", "angstrom"),
    "Voltage": _number("voltage", "kV"),
    "MinMaxMean": _several("minimum", "maximum", "mean"),
}
