"""How frames lie in a scan: by the info file, by coordinates, and where they do not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrc_xarray.errors import Problem
from mrc_xarray.metadata.scan import Scan, arrange, custom, raster
from mrc_xarray.metadata.sidecar.direct_electron import (
    Coordinates,
    Info,
    parse_coordinates,
    parse_info,
)


def info(**changed: object) -> Info:
    """Return the info of a raster of 3 rows and 4 columns, with keys of "Scan - " changed."""
    keys: dict[str, object] = {
        "Scan - Enable": "Enable",
        "Scan - Type": "Raster",
        "Scan - Size X": 4,
        "Scan - Size Y": 3,
        "Scan - ROI Enable": "Disable",
        "Scan - ROI Size X": 5,
        "Scan - ROI Size Y": 2,
        "Scan - ROI Type": "Raster",
        "Scan - Repeats": 1,
    }
    keys |= {f"Scan - {key.replace('_', ' ')}": value for key, value in changed.items()}
    text = "".join(f"{key:<50}= {value}\n" for key, value in keys.items() if value is not None)
    return parse_info(text.encode(), "a_info.txt")


def at(*positions: tuple[int, int]) -> Coordinates:
    return Coordinates("a.csv", np.array(positions, np.int64).reshape(-1, 2))


def only(problems: list[Problem]) -> str:
    assert len(problems) == 1
    return problems[0].message("a_movie.mrc")


RASTERS: dict[str, tuple[dict[str, object], int, dict[str, int]]] = {
    "plain": ({}, 12, {"scan_y": 3, "scan_x": 4}),
    "region of interest": ({"ROI_Enable": "Enable"}, 10, {"scan_y": 2, "scan_x": 5}),
    "one row": ({"Size_Y": 1}, 4, {"scan_x": 4}),
    "one column": ({"Size_X": 1}, 3, {"scan_y": 3}),
    "one point": ({"Size_X": 1, "Size_Y": 1}, 1, {}),
    "repeats": ({"Repeats": 2}, 24, {"repeat": 2, "scan_y": 3, "scan_x": 4}),
    "points repeat, 2.7.2": (
        {"Point_Repeat": 5}, 60, {"scan_y": 3, "scan_x": 4, "point_repeat": 5},
    ),
    "points repeat, 2.7.4": (
        {"Camera_Frames_Per_Point": 5}, 60, {"scan_y": 3, "scan_x": 4, "point_repeat": 5},
    ),
    "both repeat": (
        {"Repeats": 2, "Point_Repeat": 5, "ROI_Enable": "Enable"},
        100,
        {"repeat": 2, "scan_y": 2, "scan_x": 5, "point_repeat": 5},
    ),
    "unknown repeats": ({"Repeats": -1, "Point_Repeat": ""}, 12, {"scan_y": 3, "scan_x": 4}),
    "no repeats": ({"Repeats": None}, 12, {"scan_y": 3, "scan_x": 4}),
    "no type": ({"Type": None}, 12, {"scan_y": 3, "scan_x": 4}),
    "one point a frame": ({"Points_Per_Camera_Frame": 1}, 12, {"scan_y": 3, "scan_x": 4}),
    "unlinked region off": ({"ROI_Type": "Random"}, 12, {"scan_y": 3, "scan_x": 4}),
}  # fmt: skip


@pytest.mark.parametrize("case", RASTERS)
def test_raster(case: str) -> None:
    changed, n_frames, dims = RASTERS[case]
    scan, problems = arrange(info(**changed), None, n_frames)
    assert problems == []
    assert scan is not None
    assert scan.dims == tuple(dims.items())
    assert scan.shape == tuple(dims.values())
    assert scan.frame_index is None


def test_frames_summed_by_the_server() -> None:
    """Four camera frames a point, two of them in each saved frame."""
    text = "Scan - Enable = Enable\nScan - Size X = 4\nScan - Size Y = 3\n"
    text += "Scan - Camera Frames Per Point = 4\nAutosave Movie Sum Count = 2\n"
    summed = parse_info(text.encode(), "a_info.txt")
    scan, _ = raster(summed, 24)
    assert scan is not None
    assert scan.dims == (("scan_y", 3), ("scan_x", 4), ("point_repeat", 2))
    scan, _ = raster(summed, 48)
    assert scan is not None
    assert scan.dims[-1] == ("point_repeat", 4)
    assert raster(summed, 12)[0] is None


UNFIT: dict[str, tuple[dict[str, object], str]] = {
    "NZ": ({"Size_X": 5}, "line 4: Scan - Repeats × Scan - Size Y × Scan - Size X"),
    "points": ({"Points_Per_Camera_Frame": 2}, "Scan - Points Per Camera Frame is '2'"),
    "no size": ({"Size_X": None}, "a_info.txt: Scan - Size X is missing"),
    "unknown size": ({"Size_X": -1}, "line 3: Scan - Size X is '-1'"),
    "size 0": ({"Size_Y": 0}, "line 4: Scan - Size Y is '0'"),
    "size and a half": ({"Size_Y": 1.5}, "line 4: Scan - Size Y is '1.5'"),
    "no number": ({"Repeats": "many"}, "line 9: Scan - Repeats is 'many'"),
    "infinite": ({"Repeats": "inf"}, "line 9: Scan - Repeats is 'inf'"),
    "huge": ({"Repeats": "1e300"}, "line 9: Scan - Repeats is '1e300'"),
    "not a raster": ({"Type": "XY File"}, "line 2: Scan - Type is 'XY File'"),
    "region not a raster": (
        {"ROI_Enable": "Enable", "ROI_Type": "Random"}, "line 8: Scan - ROI Type is 'Random'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", UNFIT)
def test_raster_that_does_not_fit_stays_a_stack(case: str) -> None:
    changed, message = UNFIT[case]
    scan, problems = arrange(info(**changed), None, 12)
    assert scan is None
    assert message in only(problems)
    assert "The frames stay a plain stack" in only(problems)


def test_both_numbers_are_named() -> None:
    scan, problems = arrange(info(), None, 11)
    assert scan is None
    assert "1 × 3 × 4 × 1 = 12; accepted: the number of frames in the movie, 11" in only(problems)


@pytest.mark.parametrize("switch", ["Disable", "Off", "", None])
def test_no_scan(switch: str | None) -> None:
    assert arrange(info(Enable=switch), at((0, 0)), 1) == (None, [])


def test_custom_by_hand() -> None:
    """Neither symmetric nor square: rows, columns and frames can't be taken for each other."""
    positions = [(3, 0), (0, 2), (1, 0), (3, 0), (2, 2)]
    scan, problems = arrange(info(Type="XY File"), at(*positions), 5)
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


def test_custom_once() -> None:
    scan, _ = custom(at((1, 0), (0, 0), (2, 1)), None, 3)
    assert scan is not None
    assert scan.dims == (("scan_y", 2), ("scan_x", 3))
    np.testing.assert_array_equal(scan.frame_index, [[1, 0, -1], [-1, -1, 2]])


def test_custom_along_a_line() -> None:
    scan, _ = custom(at((2, 0), (0, 0)), None, 2)
    assert scan is not None
    assert scan.dims == (("scan_x", 3),)
    np.testing.assert_array_equal(scan.frame_index, [1, -1, 0])


def test_custom_of_one_point() -> None:
    scan, _ = custom(at((0, 0)), None, 1)
    assert scan is not None
    assert scan.dims == ()
    assert scan.frame_index is not None
    assert scan.frame_index.shape == ()
    assert scan.frame_index == 0


def test_custom_in_a_region() -> None:
    """Coordinates are relative to the region, and its last rows and columns were not visited."""
    scan, problems = arrange(info(Type="Random", ROI_Enable="Enable"), at((3, 0), (0, 0)), 2)
    assert problems == []
    assert scan is not None
    assert scan.dims == (("scan_y", 2), ("scan_x", 5))
    np.testing.assert_array_equal(scan.frame_index, [[1, -1, -1, 0, -1], [-1] * 5])


def test_custom_outside_of_the_scan() -> None:
    scan, problems = arrange(info(Type="XY File"), at((5, 0), (0, 1)), 2)
    assert scan is not None
    assert scan.dims == (("scan_y", 3), ("scan_x", 6))
    assert "line 3: Scan - Size X is '4'; accepted: 6 or more, as a.csv" in only(problems)


def test_custom_where_the_info_has_no_size() -> None:
    scan, problems = arrange(info(Type="XY File", Size_X=None, Size_Y=-1), at((5, 0), (0, 1)), 2)
    assert scan is not None
    assert scan.dims == (("scan_y", 2), ("scan_x", 6))
    assert problems == []


def test_custom_raster_that_was_thinned_out() -> None:
    """A raster whose sizes do not fit takes the coordinates."""
    scan, problems = arrange(info(), at((3, 2), (0, 1)), 2)
    assert problems == []
    assert scan is not None
    assert scan.frame_index is not None
    assert scan.frame_index[2, 3] == 0


@pytest.mark.parametrize("n_frames", [1, 3])
def test_custom_counts_rows_and_not_the_box(n_frames: int) -> None:
    scan, problems = arrange(info(Type="XY File"), at((3, 2), (0, 1)), n_frames)
    assert scan is None
    assert "a.csv: the number of positions is 2" in only(problems)
    assert f"accepted: the number of frames in the movie, {n_frames}" in only(problems)


def test_custom_with_several_points_a_frame() -> None:
    scan, problems = arrange(info(Type="XY File", Points_Per_Camera_Frame=2), at((3, 2)), 1)
    assert scan is None
    assert "Scan - Points Per Camera Frame is '2'" in only(problems)


@pytest.mark.parametrize(
    "positions", [[(10**18 - 1, 10**18 - 1)], [(9000, 9000)], [(4000, 4000)] + [(0, 0)] * 40]
)
def test_custom_too_large(positions: list[tuple[int, int]]) -> None:
    """Before the memory is asked for: a scan is dense, and coordinates are a few bytes."""
    scan, problems = custom(at(*positions), None, len(positions))
    assert scan is None
    assert "a.csv: the size of the scan is" in only(problems)


@pytest.mark.parametrize(("corner", "fits"), [(2047, True), (2048, False)])
def test_custom_scan_that_is_nearly_empty(corner: int, fits: bool) -> None:
    """The frame numbers of 2048 × 2048 positions take 32 MiB, however few were visited."""
    positions = np.zeros((20_000, 2), np.int64)
    positions[:, 0] = np.arange(20_000) % 2000
    positions[:, 1] = np.arange(20_000) // 2000
    positions[-1] = corner, 2047
    scan, problems = custom(Coordinates("a.csv", positions), None, len(positions))
    assert (scan is not None) == fits == (problems == [])


def test_a_million_positions() -> None:
    n = 1000
    y, x = np.divmod(np.random.default_rng(5).permutation(n * n), n)
    scan, problems = custom(Coordinates("a.csv", np.stack([x, y], axis=1)), None, n * n)
    assert problems == []
    assert scan is not None
    assert scan.frame_index is not None
    np.testing.assert_array_equal(scan.frame_index[y, x], np.arange(n * n))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=40))
def test_custom_as_a_loop_does_it(positions: list[tuple[int, int]]) -> None:
    scan, _ = custom(at(*positions), None, len(positions))
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


def test_real_raster(real_file: Callable[[str], Path]) -> None:
    path = real_file("direct_electron/20241021_00405_info.txt")
    scan, problems = arrange(parse_info(path.read_bytes(), path.name), None, 32)
    assert problems == []
    assert scan is not None
    assert scan.dims == (("scan_y", 4), ("scan_x", 8))


def test_real_custom(real_file: Callable[[str], Path]) -> None:
    path = real_file("direct_electron/Custom_info.txt")
    rows = path.with_name("Custom_scan_coordinates.csv").read_bytes()
    coordinates, _ = parse_coordinates(rows, "Custom_scan_coordinates.csv")
    scan, problems = arrange(parse_info(path.read_bytes(), path.name), coordinates, 30)
    assert problems == []
    assert scan is not None
    assert scan.dims == (("repeat", 2), ("scan_y", 5), ("scan_x", 5))
    assert scan.frame_index is not None
    # every second column, downwards, twice
    np.testing.assert_array_equal(scan.frame_index[:, :, 1::2], -1)
    np.testing.assert_array_equal(
        scan.frame_index[:, :, ::2].transpose(0, 2, 1), np.arange(30).reshape(2, 3, 5)
    )


@pytest.mark.parametrize("n_frames", [16384, 255])
def test_real_sizes_that_do_not_fit(real_file: Callable[[str], Path], n_frames: int) -> None:
    """The file says 16,384 points, and 32 × 8 of them."""
    path = real_file("direct_electron/info.txt")
    parsed = parse_info(path.read_bytes(), path.name)
    scan, problems = arrange(parsed, None, n_frames)
    assert scan is None
    assert "info.txt, line 162" in only(problems)
    assert arrange(parsed, None, 256)[1] == []
