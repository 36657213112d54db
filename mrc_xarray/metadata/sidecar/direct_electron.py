"""Direct Electron's sidecars of a movie: ``_info.txt`` and ``_scan_coordinates.csv``.

See ``docs/reference/format.md#direct-electron``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mrc_xarray.errors import Problem
from mrc_xarray.metadata.columns import Metadata, Step, Value
from mrc_xarray.metadata.files import ImageFile, TextFile, clip, number
from mrc_xarray.metadata.scan import STAYS_A_STACK, Positions, Scan, read_positions
from mrc_xarray.metadata.sidecar.autodoc import parse
from mrc_xarray.metadata.sidecar.direct_electron_files import prefixes

__all__ = ["Info", "names", "read", "scan_of"]

# seconds since 1970; the last date of Python's datetime
_YEAR_9999 = 253_370_764_800
_ON = frozenset({"enable", "on", "true", "yes", "1"})
# size of a scan of 8192 × 8192
_LARGEST_SIZE = 2**26


def names(image: str) -> tuple[str, ...]:
    """Return the possible names of the info file of a movie, best first."""
    return tuple(prefix + "_info.txt" for prefix in prefixes(image))


def read(file: TextFile, image: ImageFile) -> Metadata:
    """Read an info file, and the scan coordinates if the scan needs them."""
    info = Info.parse(file)
    scan, problems = _read_scan(info, image)
    is_counted = info.values.get(_PIXEL_FORMAT) == "uint8"
    return Metadata(
        values=info.single_values(),
        keys=dict(info.values),
        steps=info.steps(),
        scan=scan,
        is_diffraction=info.is_diffraction,
        mode0=("uint8", f"{_PIXEL_FORMAT} is uint8") if is_counted else None,
        problems=(*info.problems, *problems),
    )


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
        for key in (*(row.key for row in _NUMBERS), *_ADUS_PER_ELECTRON, _TIMESTAMP, _MODE):
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

    def single_values(self) -> dict[str, Value]:
        """Return the known values of the complete movie, in the file's units."""
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


def _read_scan(info: Info, image: ImageFile) -> tuple[Scan | None, list[Problem]]:
    """Return the scan by the coordinates of the user, or else by the info file."""
    file = image.scan_file
    is_given = isinstance(file, TextFile)
    problems: list[Problem] = []
    if file == "auto":
        candidates = [prefix + "_scan_coordinates.csv" for prefix in prefixes(image.name)]
        file, problems = image.find(candidates if info.is_scan else (), code="scan")
    positions, unreadable = (None, []) if file is None else read_positions(file)
    if is_given and positions is not None:
        return _place(info, positions, image.n_sections)
    scan, misfits = scan_of(info, positions, image.n_sections)
    return scan, [*problems, *unreadable, *misfits]


def scan_of(
    info: Info, positions: Positions | None, n_frames: int
) -> tuple[Scan | None, list[Problem]]:
    """Return the scan of a movie of `n_frames`, and problems.

    All scans except rasters need positions. There is no scan if the beam was not scanned, or if
    the sidecars do not fit the movie.
    """
    if not info.is_scan:
        return None, []
    if info.is_raster:
        scan, problems = _raster(info, n_frames)
        if scan is not None or positions is None:
            return scan, problems
    if positions is not None:
        return _place(info, positions, n_frames)
    key = "Scan - ROI Type" if info.values.get("Scan - Type") == "Raster" else "Scan - Type"
    accepted = "Raster, or a scan with a _scan_coordinates.csv next to the movie"
    action = "The frames stay a plain stack; scan_file= names the coordinates."
    return None, [info.problem(key, accepted, action)]


def _raster(info: Info, n_frames: int) -> tuple[Scan | None, list[Problem]]:
    """Return the scan of a raster, or None if its sizes do not multiply to `n_frames`.

    The complete scan repeats, so `repeat` is slowest; a point repeats before the beam moves on,
    so `point_repeat` is fastest.
    """
    point_key = next((key for key in _POINT_REPEATS if info.values.get(key)), _POINT_REPEATS[0])
    keys = (_REPEATS, *_size_keys(info), point_key)
    counts = [_count(info, key, default=None if "Size" in key else 1) for key in keys]
    problems = _merged_points(info) + [problem for _, problem in counts if problem]
    if problems:
        return None, problems
    sizes = [size for size, _ in counts]
    total = math.prod(sizes)
    # a stored frame can be the sum of several camera frames of one point
    n_summed, _ = _count(info, "Autosave Movie Sum Count", default=1)
    if total == n_frames:
        return Scan.raster(sizes), []
    if total == n_frames * n_summed and sizes[-1] % n_summed == 0:
        return Scan.raster([*sizes[:-1], sizes[-1] // n_summed]), []
    found = f"{' × '.join(map(str, sizes))} = {total}"
    words = found, f"the number of frames in the movie, {n_frames}", STAYS_A_STACK
    line = info.lines.get(keys[1], 0)
    return None, [info.file.problem(" × ".join(keys), *words, line=line, code="scan")]


def _place(info: Info, positions: Positions, n_frames: int) -> tuple[Scan | None, list[Problem]]:
    """Return a scan of the size in the info file, or larger if the positions need it."""
    if merged := _merged_points(info):
        return None, merged
    sizes, problems = [], []
    for key, visited in zip(_size_keys(info), positions.sizes, strict=True):
        size, _ = _count(info, key, default=0)
        if 0 < size < visited:
            accepted = f"{visited} or more, because of the positions in {positions.file.name}"
            action = "The scan is made as large as its coordinates."
            problems.append(info.problem(key, accepted, action))
        sizes.append(max(size, visited))
    scan, misfits = positions.to_scan((sizes[0], sizes[1]), n_frames)
    return scan, misfits or problems


def _merged_points(info: Info) -> list[Problem]:
    """Return the problem of frames that cover several points, which can't be separated."""
    n_points, problem = _count(info, _POINTS_PER_FRAME, default=1)
    if n_points > 1:
        problem = info.problem(_POINTS_PER_FRAME, "1")
    return [problem] if problem else []


def _size_keys(info: Info) -> tuple[str, str]:
    return _ROI_SIZES if info.is_on("Scan - ROI Enable") else _SIZES


def _count(info: Info, key: str, default: int | None) -> tuple[int, Problem | None]:
    """Return a positive integer; `default` if it is unknown, and with None that is a problem."""
    value = number(info.values.get(key, ""))
    if default is not None and (value == -1 or not info.values.get(key)):
        return default, None
    if value is None or value < 1 or value % 1 or value > _LARGEST_SIZE:
        return 1, info.problem(key, "a positive integer")
    return int(value), None


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
_TIMESTAMP = "Timestamp (seconds since Epoch)"
# of movies whose electrons are counted
_PIXEL_FORMAT = "Autosave Counted Movie Pixel Format"
_SIZES = ("Scan - Size Y", "Scan - Size X")
_ROI_SIZES = ("Scan - ROI Size Y", "Scan - ROI Size X")
_REPEATS = "Scan - Repeats"
_POINTS_PER_FRAME = "Scan - Points Per Camera Frame"
# of server 2.7.4, and of 2.7.2
_POINT_REPEATS = ("Scan - Camera Frames Per Point", "Scan - Point Repeat")
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
