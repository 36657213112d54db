"""Direct Electron's info file: its keys, and what they say about the frames.

See ``docs/reference/format.md#direct-electron``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mrc_xarray.errors import Problem
from mrc_xarray.metadata.columns import Column, Step, Value
from mrc_xarray.metadata.files import TextFile, clip, number
from mrc_xarray.metadata.limits import MOST_PROMISED
from mrc_xarray.metadata.scan import STAYS_A_STACK
from mrc_xarray.metadata.sidecar.autodoc import parse

__all__ = ["SUM_COUNT", "Info"]

#: Frames of the camera in a stored frame.
SUM_COUNT = "Autosave Movie Sum Count"
# seconds since 1970; the last date of Python's datetime
_YEAR_9999 = 253_370_764_800
_ON = frozenset({"enable", "on", "true", "yes", "1"})


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Info:
    """An info file: the text and the line of each key.

    Its problems are lines that are not ``key = value``, and values that are not numbers.
    """

    file: TextFile
    values: Mapping[str, str]
    lines: Mapping[str, int]
    problems: tuple[Problem, ...] = ()

    @classmethod
    def parse(cls, file: TextFile) -> Info:
        """Read an info file. Whatever the file contains, nothing is raised."""
        doc = parse(file)
        values, lines = doc.top.values, doc.top.lines
        problems = [*doc.problems]
        for key in _ARE_NUMBERS:
            if values.get(key) and number(values[key]) is None:
                words = clip(values[key]), "a number", "The value is unknown."
                problems.append(file.problem(key, *words, line=lines[key]))
        return cls(file=file, values=values, lines=lines, problems=tuple(problems))

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

        They are in STEM mode, with a camera length, and in a scan if the mode is unknown.
        """
        mode = number(self.values.get(_MODE, ""))
        camera_length = number(self.values.get(_CAMERA_LENGTH, ""))
        if mode == 1 or camera_length not in (None, -1):
            return True
        return mode in (None, -1) and self.is_scan

    def is_on(self, key: str) -> bool:
        """Return whether a switch is on; a missing one is off."""
        return self.values.get(key, "").lower() in _ON

    def positive(self, *spellings: str) -> float | None:
        """Return the first positive number of these keys; unknown values are -1 in the file."""
        found = (number(self.values.get(key, "")) for key in spellings)
        return next((value for value in found if value is not None and value > 0), None)

    def steps(self) -> dict[str, Step]:
        """Return the known step sizes: of the scan or image, and of a diffraction pattern.

        The file gives no unit for patterns. Like RosettaSciIO, this takes the numbers as 1/nm.
        """
        scanned = "scan_" if self.is_scan else ""
        keys = {f"{scanned}{axis}": (_SPECIMEN.format(axis.upper()), "nm") for axis in "yx"}
        if self.is_diffraction:
            keys |= {f"k{axis}": (_DIFFRACTION.format(axis.upper()), "1/nm") for axis in "yx"}
        sizes = {dim: (self.positive(key), units) for dim, (key, units) in keys.items()}
        return {dim: Step(size, units) for dim, (size, units) in sizes.items() if size}

    def times(self, n_frames: int) -> tuple[Column, ...]:
        """Return the time of each frame after the first one, in seconds, if its rate is known.

        A stored frame can be the sum of several frames of the camera, whose rate is in the file.
        """
        per_second = self.positive("Frames Per Second")
        frame_time = self.positive(_FRAME_TIME)
        if per_second is None and frame_time is not None:
            per_second = 1e9 / frame_time
        if per_second is None or n_frames > MOST_PROMISED:
            return ()
        n_summed = self.positive(SUM_COUNT) or 1.0
        if not math.isfinite(n_frames * n_summed / per_second):
            return ()
        seconds = np.arange(n_frames) * n_summed / per_second
        return (Column("time", seconds, "s", "time after the first frame"),)

    def single_values(self) -> dict[str, Value]:
        """Return the values of the complete movie that users look for, in the file's units.

        All keys are in the metadata.
        """
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
        return values

    def problem(self, key: str, accepted: str, action: str = STAYS_A_STACK) -> Problem:
        """Return a problem of the scan: the value of a key."""
        value = self.values.get(key)
        found, line = "missing" if value is None else clip(value), self.lines.get(key, 0)
        return self.file.problem(key, found, accepted, action, line=line, code="scan")


class _Row(NamedTuple):
    """The name of a key here; `signed` if 0 and negative numbers are known values."""

    name: str
    units: str
    key: str
    signed: bool = False


_CAMERA_LENGTH = "Instrument Project Camera Length (centimeters)"
_MODE = "Instrument Project TEMorSTEM Mode"
_SPECIMEN = "Specimen Pixel Size {} (nanometers)"
_DIFFRACTION = "Diffraction Pixel Size {}"
_FRAME_TIME = "Frame Time (nanoseconds)"
_TIMESTAMP = "Timestamp (seconds since Epoch)"
_ADUS_PER_ELECTRON = ("ADUs Per Electron", "ADUs Per Electron Bin1x")

_NUMBERS = (
    _Row("voltage", "V", "Instrument Accelerating Voltage (V)"),
    _Row("magnification", "", "Instrument Project Magnification"),
    _Row("camera_length", "cm", _CAMERA_LENGTH),
    _Row("exposure_time", "s", "Exposure Time (seconds)"),
    _Row("frames_per_second", "1/s", "Frames Per Second"),
    _Row("dwell_time", "us", "Scan - Dwell Time (microseconds)"),
    _Row("scan_rotation", "degree", "Scan - Rotation", signed=True),
)
_TEXTS = {
    "camera_model": "Camera Model",
}
# the keys whose values are used
_ARE_NUMBERS = (
    *(row.key for row in _NUMBERS),
    *(key.format(axis) for key in (_SPECIMEN, _DIFFRACTION) for axis in "XY"),
    *(_FRAME_TIME, *_ADUS_PER_ELECTRON, _TIMESTAMP, _MODE),
)
