"""SerialEM's ``.mdoc``: what the microscope was set to, for each section or for one exposure.

See FORMAT: SerialEM mdoc.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Container, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np

from mrc_xarray.format.errors import SidecarProblem
from mrc_xarray.format.metadata import Column, Metadata, Value, gather
from mrc_xarray.format.sidecar.autodoc import Autodoc, Entry, parse
from mrc_xarray.format.sidecar.text import clip, more, number

__all__ = ["names", "read"]

# kinds of entries: a section of a stack, and the frames of one exposure
_SECTION, _FRAMES = "ZValue", "FrameSet"
# what is kept of keys that have no name here: values, and letters of a key's texts
_MOST_UNLISTED = 2**17
_MOST_LETTERS, _SHORT = 2**20, 256
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
        ``[FrameSet]``: single values, for all frames of one exposure. In SerialEM's units.
    """
    doc = parse(raw, name)
    problems = list(doc.problems)
    entries, is_single = _entries_of(doc, image, n_sections, problems)
    columns = _columns(name, entries, problems) if any(entries) else []
    found = Metadata(values=_values(columns)) if is_single else gather(columns)

    values = _values(_columns(name, [doc.globals], problems))
    if doc.titles:
        values["titles"] = Value("\n".join(doc.titles))
        if axis := _TILT_AXIS.search(values["titles"].value):
            values["tilt_axis_angle"] = Value(float(axis[1]), "degree")
    # a section's own word goes before the file's
    for column in found.columns:
        values.pop(column.name, None)
    return Metadata(found.columns, values | dict(found.values), tuple(problems))


def _entries_of(
    doc: Autodoc, image: str, n_sections: int, problems: list[SidecarProblem]
) -> tuple[Sequence[Entry | None], bool]:
    """Return the entries for an image's sections, or the single one for all of them."""
    sections = [entry for entry in doc.entries if entry.kind == _SECTION]
    exposures = [entry for entry in doc.entries if entry.kind == _FRAMES]
    if sections:
        return _in_order(doc.name, sections, n_sections, problems), False
    stem = _stem(image)
    same = [e for e in exposures if stem and _stem(e.values.get("SubFramePath", "")) == stem]
    if len(exposures) == 1 or len(same) == 1:
        return (same or exposures), True
    if exposures and len(exposures) == n_sections:
        return exposures, False
    found = (
        f"there {len(exposures)} times, none of them for this image" if exposures else "missing"
    )
    problems.append(
        SidecarProblem(
            doc.name,
            exposures[0].line if exposures else 0,
            _FRAMES if exposures else _SECTION,
            found,
            f"[{_SECTION} = n] for each section, or one [{_FRAMES} = 0] with its SubFramePath",
            "What is known of single sections is left out.",
        )
    )
    return [], True


def _in_order(
    name: str, sections: Sequence[Entry], n_sections: int, problems: list[SidecarProblem]
) -> list[Entry | None]:
    """Return the entry for each section of the image; None where there is none."""
    ordered: list[Entry | None] = [None] * n_sections
    wrong, repeated = [], []
    for entry in sections:
        section = int(entry.title) if re.fullmatch("[0-9]{1,9}", entry.title) else n_sections
        if section >= n_sections:
            wrong.append(entry)
        elif ordered[section] is not None:
            repeated.append(entry)
        if section < n_sections:
            ordered[section] = entry
    for group, accepted, action in (
        (wrong, f"a section of the image, 0–{n_sections - 1}", "It is left out."),
        (repeated, "each section once", "The last one is taken."),
    ):
        if group:
            found = clip(group[0].title) + more(group)
            problems.append(SidecarProblem(name, group[0].line, _SECTION, found, accepted, action))
    if missing := [str(index) for index, entry in enumerate(ordered) if entry is None]:
        problems.append(
            SidecarProblem(
                name,
                0,
                f"[{_SECTION} = {missing[0]}]",
                "missing" + more(missing),
                "an entry for each section of the image",
                "What it would say is unknown.",
            )
        )
    return ordered


def _columns(
    name: str, entries: Sequence[Entry | None], problems: list[SidecarProblem]
) -> list[Column]:
    """Return all keys as columns, one value for each of `entries`."""
    columns: dict[str, Column] = {}
    left_out = []
    most = max(_MOST_UNLISTED // max(len(entries), 1), 1)
    for key in dict.fromkeys(key for entry in entries if entry for key in entry.values):
        row = _KEYS.get(key)
        if row is None and len(columns) >= most:
            left_out.append(key)
            continue
        texts = [entry.values.get(key, "") if entry else "" for entry in entries]
        if row is None:
            if long := [text for text in texts if len(text) > _longest(texts)]:
                found = clip(long[0]) + more(long)
                accepted = f"up to {_longest(texts)} characters"
                problems.append(SidecarProblem(name, 0, key, found, accepted, "It is cut off."))
            column = _unlisted(key, texts, columns)
            columns[column.name] = column
            continue
        values = [row.parse(text) if text else None for text in texts]
        bad = [
            (entry.lines[key], text)
            for entry, text, value in zip(entries, texts, values, strict=True)
            if entry and text and value is None
        ]
        if bad:
            line, text = bad[0]
            found = clip(text) + more(bad)
            problems.append(
                SidecarProblem(name, line, key, found, row.accepted, "It is taken as unknown.")
            )
        for part, column_name in enumerate(row.names if any(values) else ()):
            # numpy makes NaN, or NaT, of None
            parts = np.array([value and value[part] for value in values], row.dtype)
            columns[column_name] = Column(column_name, parts, row.units)
    if left_out:
        found = clip(left_out[0]) + more(left_out)
        accepted = f"up to {most} keys for {len(entries)} sections"
        problems.append(SidecarProblem(name, 0, "the key", found, accepted, "It is left out."))
    return list(columns.values())


def _unlisted(key: str, texts: list[str], taken: Container[str]) -> Column:
    """Return the column of a key that the table does not have."""
    name = _snake_case(key)
    while name in taken or name in _NAMES:
        name += "_"
    numbers = [number(text) if text else np.nan for text in texts]
    if any(texts) and None not in numbers:
        return Column(name, np.array(numbers, np.float64))
    longest = _longest(texts)
    return Column(name, np.array([text[:longest] for text in texts], np.str_))


def _longest(texts: Sequence[str]) -> int:
    """Return how long texts may be: every element of an array takes what the longest does."""
    return max(_MOST_LETTERS // len(texts), _SHORT)


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


def _snake_case(key: str) -> str:
    return re.sub(r"\W+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key)).lower()


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
_NAMES = frozenset(name for key in _KEYS.values() for name in key.names)
