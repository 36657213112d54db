"""The frames of a scan: rasters by the info file, and positions from coordinates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sidecars_by_hand import image_file, only, text_file

from mrc_xarray.errors import Problem
from mrc_xarray.metadata.files import TextFile
from mrc_xarray.metadata.scan import Positions, Scan, read_positions
from mrc_xarray.metadata.sidecar.direct_electron import Info, read, scan_of


def info(**changed: object) -> Info:
    """Return the info of a raster of 3 rows and 4 columns, with keys of "Scan - " changed."""
    keys: dict[str, object] = {
        "Enable": "Enable", "Type": "Raster", "Size X": 4, "Size Y": 3, "ROI Enable": "Disable",
        "ROI Size X": 5, "ROI Size Y": 2, "ROI Type": "Raster", "Repeats": 1,
    }  # fmt: skip
    keys |= {key.replace("_", " "): value for key, value in changed.items()}
    lines = [f"Scan - {key:<43}= {value}\n" for key, value in keys.items() if value is not None]
    return Info.parse(text_file("".join(lines), "a_info.txt"))


def at(*positions: tuple[int, int]) -> Positions:
    return Positions(TextFile("a.csv", b""), np.array(positions, np.int64).reshape(-1, 2))


def custom(positions: Positions) -> tuple[Scan | None, list[Problem]]:
    """Return a scan as large as its positions."""
    return positions.to_scan(positions.sizes, len(positions.xy))


RASTERS: dict[str, tuple[dict[str, object], int, dict[str, int]]] = {
    "plain": ({}, 12, {"scan_y": 3, "scan_x": 4}),
    "region of interest": ({"ROI_Enable": "Enable"}, 10, {"scan_y": 2, "scan_x": 5}),
    "one column": ({"Size_X": 1}, 3, {"scan_y": 3}),
    "one point": ({"Size_X": 1, "Size_Y": 1}, 1, {}),
    "repeats": ({"Repeats": 2}, 24, {"repeat": 2, "scan_y": 3, "scan_x": 4}),
    "points repeat, 2.7.4": (
        {"Camera_Frames_Per_Point": 5}, 60, {"scan_y": 3, "scan_x": 4, "point_repeat": 5},
    ),
    "points repeat, in the other spelling of 2.7.2": (
        {"Camera_Frames_Per_Point": -1, "Point_Repeat": "", "Point_Repeats": 2},
        24,
        {"scan_y": 3, "scan_x": 4, "point_repeat": 2},
    ),
    "both repeat": (
        {"Repeats": 2, "Point_Repeat": 5, "ROI_Enable": "Enable"},
        100,
        {"repeat": 2, "scan_y": 2, "scan_x": 5, "point_repeat": 5},
    ),
    "unknown repeats": ({"Repeats": -1, "Point_Repeat": ""}, 12, {"scan_y": 3, "scan_x": 4}),
    "no type": ({"Type": None}, 12, {"scan_y": 3, "scan_x": 4}),
    "unlinked region off": ({"ROI_Type": "Random"}, 12, {"scan_y": 3, "scan_x": 4}),
}  # fmt: skip


@pytest.mark.parametrize("case", RASTERS)
def test_raster(case: str) -> None:
    changed, n_frames, dims = RASTERS[case]
    scan, problems = scan_of(info(**changed), None, n_frames)
    assert problems == []
    assert scan is not None
    assert scan.dims == tuple(dims.items())
    assert scan.frame_index is None


def test_frames_summed_by_the_server() -> None:
    """Four camera frames per point, two of them in each saved frame."""
    text = "Scan - Enable = Enable\nScan - Size X = 4\nScan - Size Y = 3\n"
    text += "Scan - Camera Frames Per Point = 4\nAutosave Movie Sum Count = 2\n"
    summed = Info.parse(text_file(text, "a_info.txt"))
    for n_frames, n_repeats in ((24, 2), (48, 4)):
        scan, _ = scan_of(summed, None, n_frames)
        assert scan is not None
        assert scan.dims == (("scan_y", 3), ("scan_x", 4), ("point_repeat", n_repeats))
    assert scan_of(summed, None, 12)[0] is None


UNFIT: dict[str, tuple[dict[str, object], str]] = {
    "NZ": ({"Size_X": 5}, "1 × 3 × 5 × 1 = 15; accepted: the number of frames in the movie, 12"),
    "points": ({"Points_Per_Camera_Frame": 2}, "Scan - Points Per Camera Frame is '2'"),
    "no size": ({"Size_X": None}, "a_info.txt: Scan - Size X is missing"),
    "unknown size": ({"Size_X": -1}, "line 3: Scan - Size X is '-1'"),
    "size and a half": ({"Size_Y": 1.5}, "line 4: Scan - Size Y is '1.5'"),
    "no number": ({"Repeats": "many"}, "line 9: Scan - Repeats is 'many'"),
    "huge": ({"Repeats": "1e300"}, "line 9: Scan - Repeats is '1e300'"),
    "not a raster": ({"Type": "XY File"}, "line 2: Scan - Type is 'XY File'"),
    "region not a raster": (
        {"ROI_Enable": "Enable", "ROI_Type": "Random"}, "line 8: Scan - ROI Type is 'Random'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", UNFIT)
def test_raster_that_does_not_fit_stays_a_stack(case: str) -> None:
    changed, message = UNFIT[case]
    scan, problems = scan_of(info(**changed), None, 12)
    assert scan is None
    assert message in only(problems)
    assert "The frames stay a plain stack" in only(problems)
    assert problems[0].code == "scan"


def test_custom_by_hand() -> None:
    """Neither symmetric nor square: rows, columns and frames can't be taken for each other."""
    positions = [(3, 0), (0, 2), (1, 0), (3, 0), (2, 2)]
    scan, problems = scan_of(info(Type="XY File"), at(*positions), 5)
    assert problems == []
    assert scan is not None
    assert scan.dims == (("repeat", 2), ("scan_y", 3), ("scan_x", 4))
    assert scan.frame_index is not None
    assert scan.frame_index.dtype == np.int64
    np.testing.assert_array_equal(
        scan.frame_index,
        [
            [[-1, 2, -1, 0], [-1, -1, -1, -1], [1, -1, 4, -1]],
            [[-1, -1, -1, 3], [-1, -1, -1, -1], [-1, -1, -1, -1]],
        ],
    )


# keys, positions, frames, and the sizes with a note, or the problem
CUSTOM: dict[str, tuple[dict[str, object], list[tuple[int, int]], int, dict[str, int], str]] = {
    "outside of the scan": (
        {"Type": "XY File"}, [(5, 0), (0, 1)], 2, {"scan_y": 3, "scan_x": 6},
        "line 3: Scan - Size X is '4'; accepted: 6 or more, because of the positions in a.csv",
    ),
    "unknown sizes": (
        {"Type": "XY File", "Size_X": None, "Size_Y": -1}, [(5, 0), (0, 1)], 2,
        {"scan_y": 2, "scan_x": 6}, "",
    ),
    "a raster that was thinned out": ({}, [(3, 2), (0, 1)], 2, {"scan_y": 3, "scan_x": 4}, ""),
    "another number of frames": (
        {"Type": "XY File"}, [(3, 2), (0, 1)], 3, {},
        "a.csv: the number of positions is 2; accepted: the number of frames in the movie, 3",
    ),
    "several points per frame": (
        {"Type": "XY File", "Points_Per_Camera_Frame": 2}, [(3, 2)], 1, {},
        "Scan - Points Per Camera Frame is '2'",
    ),
}  # fmt: skip


def test_custom_in_a_region() -> None:
    """Coordinates are relative to the region, and its last rows and columns were not visited."""
    scan, problems = scan_of(info(Type="Random", ROI_Enable="Enable"), at((3, 0), (0, 0)), 2)
    assert problems == []
    assert scan is not None
    assert scan.dims == (("scan_y", 2), ("scan_x", 5))
    np.testing.assert_array_equal(scan.frame_index, [[1, -1, -1, 0, -1], [-1] * 5])


@pytest.mark.parametrize("case", CUSTOM)
def test_custom_by_case(case: str) -> None:
    changed, positions, n_frames, sizes, message = CUSTOM[case]
    scan, problems = scan_of(info(**changed), at(*positions), n_frames)
    assert (dict(scan.dims) if scan else {}) == sizes
    assert message in only(problems) if message else problems == []


@pytest.mark.parametrize(
    "positions",
    [
        [(10**18 - 1, 10**18 - 1)],
        [(9000, 9000)],
        [(4000, 4000)] + [(0, 0)] * 40,
        [(2047, 2047), (0, 0), (0, 0)],
    ],
)
def test_custom_too_large(positions: list[tuple[int, int]]) -> None:
    """No memory is allocated for it: a scan is dense, and coordinates are a few bytes."""
    scan, problems = custom(at(*positions))
    assert scan is None
    assert "a.csv: the size of the scan is" in only(problems)


@pytest.mark.parametrize(("corner", "fits"), [(2047, True), (2048, False)])
def test_custom_scan_that_is_nearly_empty(corner: int, fits: bool) -> None:
    """The frame numbers of 2048 × 2048 positions take 32 MiB, however few were visited."""
    positions = np.zeros((20_000, 2), np.int64)
    positions[:, 0] = np.arange(20_000) % 2000
    positions[:, 1] = np.arange(20_000) // 2000
    positions[-1] = corner, 2047
    scan, problems = custom(Positions(TextFile("a.csv", b""), positions))
    assert (scan is not None) == fits == (problems == [])


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=40))
def test_custom_as_a_loop_does_it(positions: list[tuple[int, int]]) -> None:
    scan, _ = custom(at(*positions))
    assert isinstance(scan, Scan)
    assert scan.frame_index is not None
    sizes = dict(scan.dims)
    full = scan.frame_index.reshape(
        [sizes.get(name, 1) for name in ("repeat", "scan_y", "scan_x")]
    )
    visits: dict[Any, int] = {}
    for frame, (x, y) in enumerate(positions):
        visit = visits.setdefault((x, y), 0)
        assert full[visit, y, x] == frame
        visits[x, y] += 1
    assert (full >= 0).sum() == len(positions)
    assert len(full) == max(visits.values())


def test_scan_file_of_the_user_is_used_without_a_scan() -> None:
    image = image_file("a_movie.mrc", 2, scan_file=TextFile("my.csv", b"1,0\n0,1\n"))
    found = read(text_file("Scan - Enable = Disable", "a_info.txt"), image)
    assert found.scan is not None
    np.testing.assert_array_equal(found.scan.frame_index, [[-1, 0], [1, -1]])
    assert found.problems == ()


def test_real_sizes_that_do_not_fit(real_file: Callable[[str], Path]) -> None:
    """The file gives 16,384 points, and 32 × 8 of them."""
    path = real_file("direct_electron/info.txt")
    parsed = Info.parse(text_file(path.read_bytes(), path.name))
    scan, problems = scan_of(parsed, None, 16384)
    assert scan is None
    assert "info.txt, line 162" in only(problems)
    assert scan_of(parsed, None, 256)[1] == []


@pytest.mark.parametrize(
    "raw",
    [
        b"7,12\n11,18\n0,3\n",
        b"7,12\n11,18\n0,3",
        b"7,12\r\n11,18\r\n0,3\r\n\r\n",
        b"\n7,12\n\n 11 , 18 \n\t\n0,3\n\n",
        b"x,y\n7,12\n11,18\n0,3\n",
        b'\xef\xbb\xbf"Scan X", "Scan Y"\r\n7,12\r\n11,18\r\n0,3',
        b"# x (px), y (px)\n007,12\n11,18\n0,3",
    ],
)
def test_positions(raw: bytes) -> None:
    positions, problems = read_positions(TextFile("a.csv", raw))
    assert problems == []
    assert positions is not None
    assert positions.xy.dtype == np.int64
    np.testing.assert_array_equal(positions.xy, [[7, 12], [11, 18], [0, 3]])


@pytest.mark.parametrize(
    ("raw", "place"),
    [
        (b"1,2\n3,4\n5;6\n", "line 3: the position is '5;6'"),
        (b"x,y\r\n1,2\r\n-1,4\r\n", "line 3: the position is '-1,4'"),
        (b"1,2\n3,4.0\n", "line 2: the position is '3,4.0'"),
        (b"1,2\n3,4,5\n", "line 2: the position is '3,4,5'"),
        (b"1,2\nx,y\n", "line 2: the position is 'x,y'"),
        (b"y,x\n1,2\n", "line 1: the position is 'y,x'"),
        (b"1,2\n3,9999999999999999999\n", "line 2: the position is '3,9999"),
        (b"", "a.csv: the position is missing"),
        (b"x,y\n \n", "a.csv: the position is missing"),
    ],
)
def test_positions_that_cannot_be_read(raw: bytes, place: str) -> None:
    positions, problems = read_positions(TextFile("a.csv", raw))
    assert positions is None
    assert place in only(problems)
    assert problems[0].code == "scan"
