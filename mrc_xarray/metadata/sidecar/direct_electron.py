"""Direct Electron: the files beside a movie, ``_info.txt`` and ``_scan_coordinates.csv``.

See FORMAT: Direct Electron. Their names are in `direct_electron_names`, and what they
say about the movie's frames is in ``mrc_xarray.metadata.scan``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mrc_xarray.errors import Problem
from mrc_xarray.metadata.columns import Metadata, Value
from mrc_xarray.metadata.sidecar.lines import Room, clip, decode, lines, more, number, too_long

__all__ = [
    "Coordinates",
    "Info",
    "parse_coordinates",
    "parse_info",
    "read",
]

# in seconds since 1970; Python's own dates end with it
_YEAR_9999 = 253_370_764_800
_ON = frozenset({"enable", "on", "true", "yes", "1"})


@dataclass(frozen=True, eq=False, slots=True)
class Info:
    """An info file: every key with its value as text, and what they say of the frames.

    Attributes
    ----------
    name : str
        The file's, for messages.
    values : mapping of str to str
        All keys in the file's order; empty text where the file has none.
    lines : mapping of str to int
        The line of each key, from 1 on.
    problems : tuple of Problem
        Lines that are no ``key = value``, and known keys whose value is no number.
    """

    name: str
    values: Mapping[str, str]
    lines: Mapping[str, int]
    problems: tuple[Problem, ...] = ()

    @property
    def is_scan(self) -> bool:
        """Whether the beam was scanned."""
        return self.is_on("Scan - Enable")

    @property
    def is_raster(self) -> bool:
        """Whether the scan went row by row, so that no list of coordinates is needed."""
        kinds = [self.values.get("Scan - Type")]
        if self.is_on("Scan - ROI Enable"):
            kinds.append(self.values.get("Scan - ROI Type"))
        return all((kind or "Raster").lower() == "raster" for kind in kinds)

    @property
    def is_diffraction(self) -> bool:
        """Whether the frames are diffraction patterns.

        In STEM mode, or with a camera length, or where the mode is unknown and the beam was
        scanned.
        """
        mode = number(self.values.get(_MODE, ""))
        camera_length = number(self.values.get(_CAMERA_LENGTH, ""))
        if mode == 1 or camera_length not in (None, -1):
            return True
        return mode in (None, -1) and self.is_scan

    @property
    def specimen_pixel_size(self) -> tuple[float | None, float | None]:
        """Step of the scan, or pixel size of an image: (y, x), nm; None where unknown."""
        return self.positive(_SPECIMEN.format("Y")), self.positive(_SPECIMEN.format("X"))

    @property
    def diffraction_pixel_size(self) -> tuple[float | None, float | None]:
        """Pixel size of a diffraction pattern: (ky, kx), 1/nm; None where unknown.

        The file states no unit; 1/nm is what RosettaSciIO takes it for.
        """
        return self.positive(_DIFFRACTION.format("Y")), self.positive(_DIFFRACTION.format("X"))

    def is_on(self, key: str) -> bool:
        """Tell whether a switch is on; one that is missing is off."""
        return self.values.get(key, "").lower() in _ON

    def positive(self, *spellings: str) -> float | None:
        """Return the first number above zero under these keys; -1, the file's unknown, is None."""
        found = (number(self.values.get(key, "")) for key in spellings)
        return next((value for value in found if value is not None and value > 0), None)

    def metadata(self) -> Metadata:
        """Return what is known of the whole movie, in the file's units."""
        values = {}
        for row in _NUMBERS:
            if row.key.startswith("Scan - ") and not self.is_scan:
                continue
            value = number(self.values.get(row.key, ""))
            if value is not None and (value > 0 or row.signed):
                values[row.name] = Value(value, row.units)
        for name, key in _TEXTS.items():
            if text := self.values.get(key):
                values[name] = Value(text)
        if per_electron := self.positive(*_ADUS_PER_ELECTRON):
            values["gain"] = Value(1 / per_electron, "e/DN")
        seconds = self.positive(_TIMESTAMP)
        if seconds is not None and seconds < _YEAR_9999:
            values["time"] = Value(np.datetime64(round(seconds * 1e6), "us"))
        room = Room()
        keys = {key: text for key, text in self.values.items() if room.takes(key, (text,))}
        problems = (*self.problems, *room.problems(self.name))
        return Metadata(values=values, keys=keys, problems=problems)


@dataclass(frozen=True, eq=False, slots=True)
class Coordinates:
    """Where in the scan each frame was recorded.

    Attributes
    ----------
    name : str
        The file's, for messages.
    positions : ndarray of int64, shape (n_rows, 2)
        x and y of each row, from 0 on within the region of interest, in the order of acquisition.
    """

    name: str
    positions: np.ndarray[Any, np.dtype[np.int64]]


def parse_info(raw: bytes, name: str) -> Info:
    """Read an info file, whatever is in it.

    Parameters
    ----------
    raw : bytes
        The file's: ``key = value`` a line.
    name : str
        The file's, for messages.

    Returns
    -------
    Info
    """
    values: dict[str, str] = {}
    places: dict[str, int] = {}
    malformed = []
    long: list[tuple[int, int]] = []
    for line, text in lines(decode(raw), long):
        # keys hold parentheses, and values may hold "="
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not key:
            malformed.append((line, text))
            continue
        values[key] = value
        places[key] = line
    problems = too_long(name, long)
    if malformed:
        line, text = malformed[0]
        found = clip(text) + more(malformed)
        problems.append(
            Problem(
                "sidecar",
                "the line",
                found,
                "key = value",
                "It is left out.",
                file=name,
                line=line,
            )
        )
    problems += [
        Problem(
            "sidecar",
            key,
            clip(values[key]),
            "a number",
            "It is taken as unknown.",
            file=name,
            line=places[key],
        )
        for key in _NUMERIC
        if values.get(key) and number(values[key]) is None
    ]
    return Info(name, values, places, tuple(problems))


def read(raw: bytes, name: str, image: str, n_sections: int) -> Metadata:
    """Read an info file; see `Info.metadata`."""
    return parse_info(raw, name).metadata()


# lines of two whole numbers, whose digits fit into 64 bits, and blank ones
_POSITIONS = re.compile(rb"(?:[ \t]*[0-9]{1,18}[ \t]*,[ \t]*[0-9]{1,18}[ \t]*\r?\n|[ \t\r]*\n)*+")
_X, _Y = (re.compile(rb"(?:\b|_)" + axis, re.IGNORECASE) for axis in (b"x", b"y"))


def parse_coordinates(raw: bytes, name: str) -> tuple[Coordinates | None, list[Problem]]:
    """Read the positions of a custom scan.

    Parameters
    ----------
    raw : bytes
        The file's: ``x,y`` a line, one line a frame, perhaps below a line with their names.
    name : str
        The file's, for messages.

    Returns
    -------
    coordinates : Coordinates or None
        None where a line could not be read: all later frames would be misplaced.
    problems : list of Problem
    """
    body = raw.removeprefix(b"\xef\xbb\xbf") + b"\n"
    start, end = 0, _end_of_positions(body, 0)
    if not body[:end].strip() and _names_x_y(_line_at(body, end)):
        start = end + len(_line_at(body, end)) + 1
        end = _end_of_positions(body, start)
    is_empty = not body[start:].strip()
    if end < len(body) or is_empty:
        line = 0 if is_empty else body.count(b"\n", 0, end) + 1
        text = decode(_line_at(body, end)).strip(" \t\r")
        problem = Problem(
            "sidecar",
            "the position",
            "missing: the file has none" if is_empty else clip(text),
            "x,y as two whole numbers from 0 on, one line a frame",
            "The frames stay a plain stack.",
            file=name,
            line=line,
        )
        return None, [problem]
    numbers = np.fromstring(body[start:].replace(b",", b" "), dtype=np.int64, sep=" ")
    return Coordinates(name, numbers.reshape(-1, 2)), []


def _end_of_positions(body: bytes, start: int) -> int:
    """Return where the first line begins that is no position; the length where all are."""
    match = _POSITIONS.match(body, start)
    return match.end() if match else start


def _names_x_y(line: bytes) -> bool:
    first, _, behind = line.partition(b",")
    return bool(_X.search(first) and _Y.search(behind.partition(b",")[0]))


def _line_at(body: bytes, start: int) -> bytes:
    return body[start : body.find(b"\n", start)]


class _Row(NamedTuple):
    """What a key is called here; `signed` where 0 and below are values, and not unknown."""

    name: str
    units: str
    key: str
    signed: bool = False


_CAMERA_LENGTH = "Instrument Project Camera Length (centimeters)"
_MODE = "Instrument Project TEMorSTEM Mode"
_SPECIMEN = "Specimen Pixel Size {} (nanometers)"
_DIFFRACTION = "Diffraction Pixel Size {}"
_TIMESTAMP = "Timestamp (seconds since Epoch)"
# of server 2.7.4, and of 2.7.2
_ADUS_PER_ELECTRON = ("ADUs Per Electron", "ADUs Per Electron Bin1x")

_NUMBERS = (
    _Row("voltage", "V", "Instrument Accelerating Voltage (V)"),
    _Row("magnification", "", "Instrument Project Magnification"),
    _Row("camera_length", "cm", _CAMERA_LENGTH),
    _Row("exposure_time", "s", "Exposure Time (seconds)"),
    _Row("exposure_rate", "e/pixel/s", "Exposure Rate (e-/pix/s)"),
    _Row("frame_time", "ns", "Frame Time (nanoseconds)"),
    _Row("frames_per_second", "1/s", "Frames Per Second"),
    _Row("dwell_time", "us", "Scan - Dwell Time (microseconds)"),
    _Row("scan_time", "s", "Scan - Time (seconds)"),
    _Row("repeat_delay", "s", "Scan - Repeat Delay (seconds)"),
    _Row("scan_rotation", "degree", "Scan - Rotation", signed=True),
    _Row("pixel_pitch", "um", "Sensor Pixel Pitch (micrometers)"),
    _Row("specimen_pixel_size_x", "nm", _SPECIMEN.format("X")),
    _Row("specimen_pixel_size_y", "nm", _SPECIMEN.format("Y")),
    _Row("diffraction_pixel_size_x", "1/nm", _DIFFRACTION.format("X")),
    _Row("diffraction_pixel_size_y", "1/nm", _DIFFRACTION.format("Y")),
)
_TEXTS = {
    "camera_model": "Camera Model",
    "camera_name": "Camera Name",
    "processing_mode": "Image Processing - Mode",
    "server_version": "Server Software Version",
}
_NUMERIC = (*(row.key for row in _NUMBERS), *_ADUS_PER_ELECTRON, _TIMESTAMP, _MODE)
