"""SerialEM's ``.mdoc``: the settings of the microscope, for each section or for one exposure.

See ``docs/reference/format.md#mdoc``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from mrc_xarray.errors import Problem
from mrc_xarray.metadata.columns import Column, Metadata, Value, with_gaps
from mrc_xarray.metadata.files import ImageFile, TextFile, clip, more, number
from mrc_xarray.metadata.sidecar import dates, mdoc_sections, tilt_list
from mrc_xarray.metadata.sidecar.autodoc import LONGEST_LINE, Autodoc, Entry, parse
from mrc_xarray.suffixes import STACK_SUFFIXES, VOLUME_SUFFIXES, stem_and_suffix

__all__ = ["names", "names_in_stores", "read"]

_TILT_AXIS = re.compile(r"tilt ?axis ?angle\s*=\s*([-+]?\d+\.?\d*)", re.IGNORECASE)


def names(image: str) -> tuple[str, ...]:
    """Return the possible names of the .mdoc of an image, best first.

    The first is the name of the image and ``.mdoc``. The others are names for the same series,
    which `mdoc_sections.misfit` checks; a reconstruction has none of them.
    """
    stem, suffix = stem_and_suffix(image)
    others = () if suffix in VOLUME_SUFFIXES else (".mdoc", ".st.mdoc", ".mrc.mdoc")
    return tuple(dict.fromkeys([image + ".mdoc", *(stem + other for other in others)]))


def names_in_stores(image: str) -> tuple[str, ...]:
    """Return the names that are looked for in a store, best first.

    If the name of the image does not say whether it is a stack, an .mdoc can, so there are two.
    """
    suffix = stem_and_suffix(image)[1]
    if suffix in VOLUME_SUFFIXES:
        return ()
    return names(image)[: 1 if suffix in STACK_SUFFIXES else 2]


def read(file: TextFile, image: ImageFile) -> Metadata:
    """Read an .mdoc, in SerialEM's units.

    Entries of ``[ZValue]`` are columns, and those of ``[FrameSet]`` single values for all frames
    of one exposure. Keys without a known meaning are in `keys`: global keys as they are, and keys
    of the entries under ``"sections"``. If there are no tilt angles of the sections, a list of
    tilt angles next to the image takes the place of the records.
    """
    doc = parse(file)
    placed = mdoc_sections.place(file, doc, image)
    is_one = placed.is_exposure
    n_places = 1 if is_one else image.n_sections
    year_first = dates.is_year_first(doc.titles)
    columns, bad = _columns(file, placed.entries, n_places, year_first)
    if placed.is_matched:
        columns = [column for column in columns if column.name not in image.recorded]
    if "tilt_angle" not in {column.name for column in columns} | set(image.recorded):
        listed = tilt_list.read_next_to(image)
        if recorded := {column.name: column.values for column in listed.columns}:
            known = replace(image, recorded={**image.recorded, **recorded})
            return read(file, known).over(listed)
    found = Metadata(values=_single_values(columns)) if is_one else Metadata.of_columns(columns)
    top, more_bad = _columns(file, {0: doc.top}, 1, year_first)
    of_file = Metadata(
        values=_single_values(top) | _of_titles(doc),
        keys=_keys(doc, placed.entries, n_places),
        problems=(*doc.problems, *placed.problems, *bad, *more_bad),
    )
    # the value of a section overrides the value of the file
    return found.over(of_file)


def _columns(
    file: TextFile, entries: Mapping[int, Entry], n_places: int, year_first: bool
) -> tuple[list[Column], list[Problem]]:
    """Return the keys with a known meaning as columns of `n_places` values."""
    columns: list[Column] = []
    problems: list[Problem] = []
    for key, row in _KEYS.items():
        texts = {place: text for place, e in entries.items() if (text := e.values.get(key))}
        values = {place: row.parse(text, year_first) for place, text in texts.items()}
        if bad := [place for place, value in values.items() if value is None]:
            found, line = clip(texts[bad[0]]) + more(bad), entries[bad[0]].lines[key]
            action = "The value is unknown."
            problems.append(file.problem(key, found, row.accepted, action, line=line))
        known = {place: value for place, value in values.items() if value is not None}
        for part, (name, unit) in enumerate(row.units.items() if known else ()):
            column = np.zeros(n_places, row.dtype)
            column[list(known)] = [value[part] for value in known.values()]
            present = np.zeros(n_places, np.bool_)
            present[list(known)] = True
            columns.append(Column(name, with_gaps(column, present), unit))
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


class _Key(NamedTuple):
    """The names and units of a key's values here, and how they are read.

    `parse` (text, year_first) returns the values, or None for a text that can't be read.
    """

    units: Mapping[str, str]
    dtype: str
    accepted: str
    parse: Callable[[str, bool], tuple[Any, ...] | None]


def _floats(**units: str) -> _Key:
    accepted = f"{len(units)} numbers" if len(units) > 1 else "a number"
    return _Key(units, "f8", accepted, lambda text, year_first: _numbers(text, len(units)))


def _integers(**units: str) -> _Key:
    def parse(text: str, year_first: bool) -> tuple[float, ...] | None:
        numbers = _numbers(text, len(units)) or (np.nan,)
        # larger integers are no exact floats
        return numbers if all(n.is_integer() and abs(n) < 2**53 for n in numbers) else None

    return _Key(units, "i8", f"{len(units)} integers", parse)


def _numbers(text: str, count: int) -> tuple[float, ...] | None:
    numbers = [value for word in text.split() if (value := number(word)) is not None]
    return tuple(numbers) if len(numbers) == len(text.split()) == count else None


def _date(text: str, year_first: bool) -> tuple[np.datetime64] | None:
    time = dates.parse(text, year_first)
    return None if time is None else (time,)


_KEYS = {
    "TiltAngle": _floats(tilt_angle="degree"),
    "StagePosition": _floats(stage_x="um", stage_y="um"),
    "StageZ": _floats(stage_z="um"),
    "PieceCoordinates": _integers(piece_x="pixel", piece_y="pixel", piece_z=""),
    "Defocus": _floats(defocus="um"),
    "TargetDefocus": _floats(target_defocus="um"),
    "ExposureDose": _floats(dose="e/angstrom^2"),
    "PriorRecordDose": _floats(prior_record_dose="e/angstrom^2"),
    "DoseRate": _floats(dose_rate="e/pixel/s"),
    "ExposureTime": _floats(exposure_time="s"),
    "DateTime": _Key({"time": ""}, "M8[us]", dates.ACCEPTED, _date),
    "Magnification": _floats(magnification=""),
    "ImageShift": _floats(image_shift_x="um", image_shift_y="um"),
    "RotationAngle": _floats(rotation_angle="degree"),
    "PixelSpacing": _floats(pixel_spacing="angstrom"),
    "Voltage": _floats(voltage="kV"),
    "MinMaxMean": _floats(minimum="", maximum="", mean=""),
}
