"""Direct Electron's sidecars of a movie: ``_info.txt`` and ``_scan_coordinates.csv``.

See ``docs/reference/format.md#direct-electron``.
"""

from __future__ import annotations

import math

from mrc_xarray.errors import Problem
from mrc_xarray.metadata.columns import Metadata
from mrc_xarray.metadata.files import ImageFile, Name, TextFile, number
from mrc_xarray.metadata.raster import NO_GAPS, Gaps
from mrc_xarray.metadata.scan import COUNT_DIFFERS, Positions, Scan, read_positions
from mrc_xarray.metadata.sidecar.direct_electron_files import names_of
from mrc_xarray.metadata.sidecar.direct_electron_info import SUM_COUNT, Info

__all__ = ["Info", "names", "read", "scan_of"]

# size of a scan of 8192 × 8192
_LARGEST_SIZE = 2**26
# of movies whose electrons are counted
_PIXEL_FORMAT = "Autosave Counted Movie Pixel Format"
_SIZES = ("Scan - Size Y", "Scan - Size X")
_ROI_SIZES = ("Scan - ROI Size Y", "Scan - ROI Size X")
_REPEATS = "Scan - Repeats"
_POINTS_PER_FRAME = "Scan - Points Per Camera Frame"
# of server 2.7.4, and of 2.7.2 in two spellings
_POINT_REPEATS = ("Scan - Camera Frames Per Point", "Scan - Point Repeat", "Scan - Point Repeats")


def names(image: str) -> tuple[Name, ...]:
    """Return the possible names of the info file of a movie, best first."""
    return names_of(image, "_info.txt")


def read(file: TextFile, image: ImageFile) -> Metadata:
    """Read an info file, and the scan coordinates if the scan needs them."""
    info = Info.parse(file)
    scan, problems = _read_scan(info, image)
    is_counted = info.values.get(_PIXEL_FORMAT) == "uint8"
    return Metadata(
        stack_columns=info.times(image.n_sections),
        values=info.single_values(),
        keys=dict(info.values),
        steps=info.steps(),
        scan=scan,
        is_diffraction=info.is_diffraction,
        mode0=("uint8", f"{_PIXEL_FORMAT} is uint8") if is_counted else None,
        problems=(*info.problems, *problems),
    )


def _read_scan(info: Info, image: ImageFile) -> tuple[Scan | None, list[Problem]]:
    """Return the scan by the coordinates of the user, or else by the info file."""
    file, of_frames = image.scan_file, (image.n_sections, image.gaps)
    if isinstance(file, TextFile):
        positions, problems = read_positions(file)
        if positions is not None:
            return _place(info, positions, *of_frames)
        scan, misfits = scan_of(info, None, *of_frames)
        return scan, [*problems, *misfits]
    scan, misfits = scan_of(info, None, *of_frames)
    if scan is not None or not info.is_scan or file is None:
        return scan, misfits
    found, problems = image.find(names_of(image.name, "_scan_coordinates.csv"), code="scan")
    positions, unreadable = (None, []) if found is None else read_positions(found)
    scan, misfits = scan_of(info, positions, *of_frames)
    return scan, [*problems, *unreadable, *misfits]


def scan_of(
    info: Info,
    positions: Positions | None,
    n_frames: int,
    gaps: Gaps = NO_GAPS,
) -> tuple[Scan | None, list[Problem]]:
    """Return the scan of a movie of `n_frames`, and problems.

    All scans except rasters need positions. There is no scan if the beam was not scanned, or if
    the sidecars do not fit the movie.
    """
    if not info.is_scan:
        return None, []
    if info.is_raster:
        scan, problems = _raster(info, n_frames, gaps)
        if scan is not None or positions is None:
            return scan, problems
    if positions is not None:
        return _place(info, positions, n_frames, gaps)
    key = "Scan - ROI Type" if info.values.get("Scan - Type") == "Raster" else "Scan - Type"
    accepted = "Raster, or a scan with a _scan_coordinates.csv next to the movie"
    action = "The frames stay a plain stack; scan_file= names the coordinates."
    return None, [info.problem(key, accepted, action)]


def _raster(info: Info, n_frames: int, gaps: Gaps) -> tuple[Scan | None, list[Problem]]:
    """Return the scan of a raster, or None if its sizes do not multiply to `n_frames`.

    The complete scan repeats, so `repeat` is slowest; a point repeats before the beam moves on,
    so `point_repeat` is fastest.
    """
    known = (key for key in _POINT_REPEATS if info.values.get(key) not in (None, "", "-1"))
    keys = (_REPEATS, *_size_keys(info), next(known, _POINT_REPEATS[0]))
    counts = [_count(info, key, default=None if "Size" in key else 1) for key in keys]
    problems = _merged_points(info) + [problem for _, problem in counts if problem]
    if problems:
        return None, problems
    sizes = [size for size, _ in counts]
    # a stored frame can be the sum of several camera frames of one point
    n_summed, _ = _count(info, SUM_COUNT, default=1)
    *outer, n_repeats = sizes
    possible = [sizes, *([[*outer, n_repeats // n_summed]] if n_repeats % n_summed == 0 else [])]
    fitting = (s for s in possible if gaps.fits(s, s[2] * s[3], n_frames))
    chosen = next(fitting, sizes)
    scan, misfits = Scan.raster(chosen).fitted(chosen[2] * chosen[3], n_frames, gaps)
    if scan is not None or misfits:
        return scan, misfits
    found = f"{' × '.join(map(str, sizes))} = {math.prod(sizes)}"
    words = found, f"the number of frames in the movie, {n_frames}", COUNT_DIFFERS
    line = info.lines.get(keys[1], 0)
    return None, [info.file.problem(" × ".join(keys), *words, line=line, code="scan")]


def _place(
    info: Info, positions: Positions, n_frames: int, gaps: Gaps
) -> tuple[Scan | None, list[Problem]]:
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
    scan, misfits = positions.to_scan((sizes[0], sizes[1]), n_frames, gaps)
    return scan, misfits if scan is None else [*misfits, *problems]


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
