"""How a movie's frames lie in a scan: repeats, rows, columns, repeated points.

See FORMAT: Direct Electron.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mrc_xarray.errors import Problem
from mrc_xarray.metadata.sidecar.direct_electron import Coordinates, Info
from mrc_xarray.metadata.sidecar.lines import clip, number

__all__ = ["Scan", "arrange", "custom", "raster"]

# positions of one scan, 8192 × 8192
_MOST_POSITIONS = 2**26
# where most were never visited, a typo in the coordinates is likelier than such a scan
_MANY_POSITIONS = 2**20
_VISITED = 256
# the frame numbers of more positions than this, 32 MiB, are worth their memory only if at least
# every second position was visited
_MOST_UNVISITED = 2**22

_SIZES = ("Scan - Size Y", "Scan - Size X")
_ROI_SIZES = ("Scan - ROI Size Y", "Scan - ROI Size X")
_REPEATS = "Scan - Repeats"
# of server 2.7.4, and of 2.7.2
_POINT_REPEATS = ("Scan - Camera Frames Per Point", "Scan - Point Repeat")
_POINTS_PER_FRAME = "Scan - Points Per Camera Frame"

_PLAIN = "The frames stay a plain stack; scan_shape=(scan_y, scan_x) folds it."


@dataclass(frozen=True, eq=False, slots=True)
class Scan:
    """The frames of a movie as a scan.

    Attributes
    ----------
    dims : tuple of (str, int)
        Those of repeat, scan_y, scan_x and point_repeat that are longer than 1, in this order,
        slowest first.
    frame_index : ndarray of int64 or None, shape as in `dims`
        The frame at each position, -1 where none was recorded. None where the frames are in the
        order of `dims`.
    """

    dims: tuple[tuple[str, int], ...]
    frame_index: np.ndarray[Any, np.dtype[np.int64]] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of `dims`."""
        return tuple(size for _, size in self.dims)


def arrange(
    info: Info, coordinates: Coordinates | None, n_frames: int
) -> tuple[Scan | None, list[Problem]]:
    """Tell how the frames of a movie lie in its scan.

    Parameters
    ----------
    info : Info
    coordinates : Coordinates or None
        Needed for all but rasters.
    n_frames : int
        NZ, which is the truth.

    Returns
    -------
    scan : Scan or None
        None where the beam was not scanned, and where the sidecars do not fit the movie.
    problems : list of Problem
    """
    if not info.is_scan:
        return None, []
    if info.is_raster:
        scan, problems = raster(info, n_frames)
        if scan is not None or coordinates is None:
            return scan, problems
    if coordinates is not None:
        return custom(coordinates, info, n_frames)
    return None, [
        _problem(
            info,
            "Scan - ROI Type" if info.values.get("Scan - Type") == "Raster" else "Scan - Type",
            accepted="Raster, or a scan with a _scan_coordinates.csv beside the movie",
            action="The frames stay a plain stack; scan_file= names the coordinates.",
        )
    ]


def raster(info: Info, n_frames: int) -> tuple[Scan | None, list[Problem]]:
    """Tell how the frames of a raster lie.

    The scan repeats as a whole, so that `repeat` is slowest; a point repeats before the beam
    moves on, so that `point_repeat` is fastest.

    Parameters
    ----------
    info : Info
    n_frames : int
        NZ.

    Returns
    -------
    scan : Scan or None
        None where the scan's sizes do not make `n_frames`.
    problems : list of Problem
    """
    point_key = next((key for key in _POINT_REPEATS if info.values.get(key)), _POINT_REPEATS[0])
    keys = (_REPEATS, *_size_keys(info), point_key)
    sizes, problems = [], _merged_points(info)
    for key in keys:
        size, problem = _count(info, key, default=None if "Size" in key else 1)
        sizes.append(size)
        problems += [problem] if problem else []
    if problems:
        return None, problems

    total = math.prod(sizes)
    # a saved frame can be a sum of camera frames, of those of one point
    n_summed, _ = _count(info, "Autosave Movie Sum Count", default=1)
    if total != n_frames and total == n_frames * n_summed and sizes[-1] % n_summed == 0:
        sizes[-1] //= n_summed
    elif total != n_frames:
        product = " × ".join(map(str, sizes))
        problem = Problem(
            "sidecar",
            " × ".join(keys),
            f"{product} = {total}",
            f"the number of frames in the movie, {n_frames}",
            _PLAIN,
            file=info.name,
            line=info.lines.get(keys[1], 0),
        )
        return None, [problem]
    return Scan(_dims(sizes)), []


def custom(
    coordinates: Coordinates, info: Info | None, n_frames: int
) -> tuple[Scan | None, list[Problem]]:
    """Place the frames of a scan that went in any order, and perhaps not everywhere.

    The scan is as large as the info file says, and holds all positions. A position's first frame
    is at repeat 0, its second at repeat 1.

    Parameters
    ----------
    coordinates : Coordinates
    info : Info or None
        Without it, the scan is as large as the coordinates are.
    n_frames : int
        NZ.

    Returns
    -------
    scan : Scan or None
        None where there is not one row of coordinates for each frame.
    problems : list of Problem
    """
    positions = coordinates.positions
    if info is not None and (merged := _merged_points(info)):
        return None, merged
    if len(positions) != n_frames:
        problem = Problem(
            "sidecar",
            "the number of positions",
            str(len(positions)),
            f"the number of frames in the movie, {n_frames}",
            _PLAIN,
            file=coordinates.name,
        )
        return None, [problem]

    problems: list[Problem] = []
    sizes = [int(last) + 1 for last in positions.max(axis=0, initial=0)[::-1]]
    if info is not None:
        sizes, problems = _with_unvisited(info, sizes, coordinates.name)
    most = min(max(_MANY_POSITIONS, _VISITED * n_frames), max(_MOST_UNVISITED, 2 * n_frames))
    if math.prod(sizes) > most:
        return None, [_too_large(coordinates, sizes, most)]
    places = positions[:, 1] * sizes[1] + positions[:, 0]
    visits = _visits(places)
    repeated = [int(visits.max(initial=0)) + 1, *sizes]
    if math.prod(repeated) > most:
        return None, [_too_large(coordinates, repeated, most)]
    frame_index = np.full((repeated[0], math.prod(sizes)), -1, np.int64)
    frame_index[visits, places] = np.arange(n_frames)
    dims = _dims([*repeated, 1])
    return Scan(dims, frame_index.reshape([size for _, size in dims])), problems


def _merged_points(info: Info) -> list[Problem]:
    """Return what is wrong where a frame saw several points, which can't be told apart."""
    n_points, problem = _count(info, _POINTS_PER_FRAME, default=1)
    if n_points > 1:
        problem = _problem(info, _POINTS_PER_FRAME, accepted="1", action=_PLAIN)
    return [problem] if problem else []


def _with_unvisited(
    info: Info, visited: list[int], coordinates: str
) -> tuple[list[int], list[Problem]]:
    """Return the scan's rows and columns by the info file, but no fewer than were visited."""
    sizes, problems = [], []
    for key, extent in zip(_size_keys(info), visited, strict=True):
        size, _ = _count(info, key, default=0)
        if 0 < size < extent:
            accepted = f"{extent} or more, as {coordinates} goes there"
            action = "The scan is made as large as its coordinates."
            problems.append(_problem(info, key, accepted=accepted, action=action))
        sizes.append(max(size, extent))
    return sizes, problems


def _visits(places: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return for each place how often it stands before in the array."""
    order = np.argsort(places, kind="stable")
    ordered = places[order]
    is_first = np.ones(len(places), bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    firsts = np.flatnonzero(is_first)
    visits = np.empty(len(places), np.int64)
    visits[order] = np.arange(len(places)) - firsts[np.cumsum(is_first) - 1]
    return visits


def _size_keys(info: Info) -> tuple[str, str]:
    return _ROI_SIZES if info.is_on("Scan - ROI Enable") else _SIZES


def _dims(sizes: list[int]) -> tuple[tuple[str, int], ...]:
    names = ("repeat", "scan_y", "scan_x", "point_repeat")
    return tuple((name, size) for name, size in zip(names, sizes, strict=True) if size != 1)


def _count(info: Info, key: str, default: int | None) -> tuple[int, Problem | None]:
    """Return a number of something; `default` where it is unknown, which None forbids."""
    value = number(info.values.get(key, ""))
    if default is not None and (value == -1 or not info.values.get(key)):
        return default, None
    if value is None or value < 1 or value % 1 or value > _MOST_POSITIONS:
        return 1, _problem(info, key, accepted="a whole number from 1 on", action=_PLAIN)
    return int(value), None


def _problem(info: Info, key: str, *, accepted: str, action: str) -> Problem:
    value = info.values.get(key)
    return Problem(
        "sidecar",
        key,
        "missing" if value is None else clip(value),
        accepted,
        action,
        file=info.name,
        line=info.lines.get(key, 0),
    )


def _too_large(coordinates: Coordinates, sizes: list[int], most: int) -> Problem:
    return Problem(
        "sidecar",
        "the size of the scan",
        " × ".join(map(str, sizes)),
        f"up to {most} positions of {len(coordinates.positions)} frames",
        _PLAIN,
        file=coordinates.name,
    )
