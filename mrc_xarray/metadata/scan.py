"""The frames of a movie as a scan: repeats, rows, columns, repeated points.

See ``docs/reference/format.md#direct-electron``.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mrc_xarray.errors import Problem
from mrc_xarray.metadata.files import TextFile, clip
from mrc_xarray.metadata.raster import MOST_UNVISITED, NO_GAPS, Gaps

__all__ = ["COUNT_DIFFERS", "STAYS_A_STACK", "Positions", "Scan", "read_positions", "scan_dims"]

STAYS_A_STACK = "The frames stay a plain stack; scan_shape=(scan_y, scan_x) folds it."
#: For a scan with another number of positions.
COUNT_DIFFERS = (
    f"{STAYS_A_STACK} If frames belong to no position, or positions have no frame, "
    "scan_offset= and scan_flyback= give their numbers."
)


@dataclass(frozen=True, eq=False, slots=True)
class Scan:
    """The frames of a movie as a scan.

    Attributes
    ----------
    dims : tuple of (str, int)
        Names and sizes of the dimensions, slowest first.
    frame_index : ndarray of int64 or None, shape as in `dims`
        The frame at each position, -1 where none was recorded. None if the frames are in the
        order of `dims`.
    """

    dims: tuple[tuple[str, int], ...]
    frame_index: np.ndarray[Any, np.dtype[np.int64]] | None = None

    @classmethod
    def raster(cls, sizes: Sequence[int]) -> Scan:
        """Return a scan whose frames are in order, without the dimensions of size 1.

        `sizes` are the repeats of the scan, rows, columns, and repeats of each point.
        """
        names = ("repeat", "scan_y", "scan_x", "point_repeat")
        return cls(tuple((n, size) for n, size in zip(names, sizes, strict=True) if size != 1))

    def fitted(self, line: int, n_frames: int, gaps: Gaps) -> tuple[Scan | None, list[Problem]]:
        """Return the scan of a movie of `n_frames`, whose lines have `line` frames, and problems.

        Without gaps, there is no scan if the number of positions is another one.
        """
        sizes = [size for _, size in self.dims]
        if not gaps:
            return (self if math.prod(sizes) == n_frames else None), []
        frame_index, problems = gaps.place(sizes, line, n_frames)
        return (None if frame_index is None else Scan(self.dims, frame_index)), problems


def scan_dims(sizes: Sequence[int]) -> tuple[tuple[str, int], ...]:
    """Return the dimensions of a scan of any number of dimensions, slowest first.

    The last two are rows and columns, and the others repeat these.
    """
    n_slower = len(sizes) - 2
    slower = ["repeat"] if n_slower == 1 else [f"repeat_{n + 1}" for n in range(n_slower)]
    names = [*slower, "scan_y", "scan_x"][-len(sizes) :]
    return tuple(zip(names, sizes, strict=True))


@dataclass(frozen=True, eq=False, slots=True)
class Positions:
    """The position of each frame in a scan that is not a raster.

    Attributes
    ----------
    file : TextFile
    xy : ndarray of int64, shape (n_frames, 2)
        Column and row of each frame, from 0, in the order of acquisition.
    """

    file: TextFile
    xy: np.ndarray[Any, np.dtype[np.int64]]

    @property
    def sizes(self) -> tuple[int, int]:
        """The smallest numbers of rows and columns that contain all positions."""
        n_x, n_y = (int(last) + 1 for last in self.xy.max(axis=0, initial=0))
        return n_y, n_x

    def to_scan(
        self, sizes: tuple[int, int], n_frames: int, gaps: Gaps = NO_GAPS
    ) -> tuple[Scan | None, list[Problem]]:
        """Return the scan of a movie of `n_frames`, and problems; `sizes` are rows and columns.

        The first frame at a position is at repeat 0, the second one at repeat 1. There is no scan
        if there is not one position for each frame, except for `gaps`, or if it is too large.
        """
        numbers, problems = self._numbers(n_frames, gaps)
        if numbers is None:
            return None, problems
        most = max(MOST_UNVISITED, 2 * n_frames)
        shape = [1, *sizes]
        if math.prod(shape) <= most:
            places = self.xy[:, 1] * sizes[1] + self.xy[:, 0]
            visits = _visits(places)
            shape[0] += int(visits.max(initial=0))
        if math.prod(shape) > most:
            found = " × ".join(map(str, shape))
            accepted = f"up to {most} positions of {n_frames} frames"
            return None, [self._misfit("the size of the scan", found, accepted)]
        frame_index = np.full((shape[0], math.prod(sizes)), -1, np.int64)
        frame_index[visits, places] = numbers
        dims = Scan.raster([*shape, 1]).dims
        return Scan(dims, frame_index.reshape([size for _, size in dims])), problems

    def _numbers(
        self, n_frames: int, gaps: Gaps
    ) -> tuple[np.ndarray[Any, np.dtype[np.int64]] | None, list[Problem]]:
        """Return the number of the frame at each position of the list, and problems."""
        n_positions = len(self.xy)
        if gaps.flyback:
            field, accepted = "scan_flyback", "0, as a list of positions has no lines"
            return None, [Problem("scan", field, str(gaps.flyback), accepted, STAYS_A_STACK)]
        if gaps:
            return gaps.place((n_positions,), n_positions, n_frames)
        if n_positions == n_frames:
            return np.arange(n_frames), []
        accepted = f"the number of frames in the movie, {n_frames}"
        field, found = "the number of positions", str(n_positions)
        return None, [self._misfit(field, found, accepted, COUNT_DIFFERS)]

    def _misfit(
        self, field: str, found: str, accepted: str, action: str = STAYS_A_STACK
    ) -> Problem:
        return self.file.problem(field, found, accepted, action, code="scan")


def _visits(places: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return for each place how many earlier elements are equal to it."""
    order = np.argsort(places, kind="stable")
    firsts = np.flatnonzero(np.diff(places[order], prepend=-1))
    n_equal = np.diff(firsts, append=len(places))
    visits = np.empty(len(places), np.int64)
    visits[order] = np.arange(len(places)) - np.repeat(firsts, n_equal)
    return visits


# lines of two integers whose digits fit into 64 bits, and blank lines
_POSITIONS = re.compile(rb"(?:[ \t]*[0-9]{1,18}[ \t]*,[ \t]*[0-9]{1,18}[ \t]*\r?\n|[ \t\r]*\n)*+")
_NAME = rb"[^,\n]{0,80}(?:\b|_)%s[^,\n]{0,80}"
_TITLE = re.compile(
    rb"(?:[ \t\r]*\n)*+" + _NAME % b"x" + b"," + _NAME % b"y" + rb"(?:,[^\n]*)?\n", re.IGNORECASE
)


def read_positions(file: TextFile) -> tuple[Positions | None, list[Problem]]:
    """Read the positions of a scan: ``x,y`` per line and frame, after an optional title line.

    There are no positions if a line can't be read: all later frames would be misplaced.
    """
    body = file.raw.removeprefix(codecs.BOM_UTF8) + b"\n"
    title = _TITLE.match(body)
    start = title.end() if title else 0
    positions = _POSITIONS.match(body, start)
    end = positions.end() if positions else start
    if body[start:].strip() and end == len(body):
        numbers = np.fromstring(body[start:].replace(b",", b" "), dtype=np.int64, sep=" ")
        return Positions(file, numbers.reshape(-1, 2)), []
    text, line = "missing: the file has none", 0
    if body[start:].strip():
        line = body.count(b"\n", 0, end) + 1
        text = clip(body[end : body.index(b"\n", end)].decode(errors="replace").strip(" \t\r"))
    accepted = "x,y as two integers from 0, one line per frame"
    action = "The frames stay a plain stack."
    return None, [file.problem("the position", text, accepted, action, line=line, code="scan")]
