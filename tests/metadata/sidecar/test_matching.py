"""Which entry of a sidecar belongs to which section, by hand: numbers, frames, angles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sidecars_by_hand import columns, image_file, only, plain, text_file

from mrc_xarray.metadata.columns import Metadata
from mrc_xarray.metadata.sidecar import mdoc, tilt_list

NAN = float("nan")


def read(angles: Any, recorded: Any, *, names: Any = (), **records: Any) -> Metadata:
    """Return the metadata of an .mdoc whose doses are 0, 1, 2 … in the order of its entries."""
    entries = []
    for i, angle in enumerate(angles):
        lines = [f"[ZValue = {i}]", f"TiltAngle = {angle}", f"ExposureDose = {i}", "StageZ = 9"]
        lines += [f"SubFramePath = D:\\{name}.tif" for name in names[i : i + 1]]
        entries.append("\n".join(lines))
    text = "Voltage = 300\n" + "\n".join(entries)
    known = {"tilt_angle": np.array(recorded, float)} | records
    image = image_file("a.mrc", len(recorded), recorded=known)
    return mdoc.read(text_file(text, "a.mrc.mdoc"), image)


def dose(found: Metadata) -> list[float]:
    assert plain(found)["voltage"] == 300
    return [float(value) for value in columns(found)["dose"].values]


# angles of the entries, angles in the records, and the number of the entry of each section
MATCHED: dict[str, tuple[list[float], list[float], list[int]]] = {
    "acquisition": ([0, 3, -3, -6, 6], [-6, -3, 0, 3, 6], [3, 2, 0, 1, 4]),
    "rounded": ([0.004, 3.004, -2.996], [-3, 0, 3], [2, 0, 1]),
    "views removed": ([-6, -3, 0, 3, 6], [-6, 3, 6], [0, 3, 4]),
    "one view": ([-6, -3, 0, 3, 6], [3], [3]),
    "small steps": ([0.3, 0, 0.6], [0, 0.3, 0.6], [1, 0, 2]),
}


@pytest.mark.parametrize("case", MATCHED)
def test_entries_that_are_matched_by_angle(case: str) -> None:
    angles, recorded, expected = MATCHED[case]
    found = read(angles, recorded)
    assert found.problems == ()
    assert dose(found) == expected
    # the records have better ones
    assert "tilt_angle" not in columns(found)


@pytest.mark.parametrize(
    "recorded",
    [[0, 3, -3], [0, 0, 0], [NAN, NAN, NAN], [NAN, 0, NAN], [NAN, 3, NAN], [9, 1e9, 2]],
)
def test_numbers_decide_unless_the_records_contradict(recorded: list[float]) -> None:
    """Programs reserve records, leave some of them zero, or write something else there."""
    found = read([0.004, 3.004, -2.996], recorded)
    assert found.problems == ()
    assert dose(found) == [0, 1, 2]
    assert columns(found)["tilt_angle"].values.tolist() == [0.004, 3.004, -2.996]


# angles of the entries, angles in the records, the entries of sections, and the first without one
UNCLEAR: list[tuple[list[float], list[float], list[float], str]] = [
    ([0, 3, -3, 9], [-3, 0, 4, 3, NAN], [2, 0, NAN, 1, NAN], "section 2 (and 1 more)"),
    # a series that returns to 0°, and one of whose two views was removed
    ([0, 3, -3, 0], [-3, 0, 0, 3], [2, NAN, NAN, 1], "section 1 (and 1 more)"),
    ([0, 3, -3, 0], [-3, 0, 3], [2, NAN, 1], "section 1"),
    ([0, 3, -3], [-3, 0, 0.05, 3], [2, NAN, NAN, 1], "section 1 (and 1 more)"),
]


@pytest.mark.parametrize(("angles", "recorded", "expected", "message"), UNCLEAR)
def test_sections_without_an_entry_and_with_one_angle(
    angles: list[float], recorded: list[float], expected: list[float], message: str
) -> None:
    found = read(angles, recorded)
    np.testing.assert_array_equal(dose(found), expected)
    assert f"The values of {message} are unknown." in only(found.problems)


def test_angles_that_contradict_and_match_nothing() -> None:
    found = read([0, 1, 2, 3], [-60, -20, 20, 60])
    message = only(found.problems)
    assert "a.mrc.mdoc, line 2: the tilt angle is 0 for section 0; accepted: the angle" in message
    assert "the extended header, -60. The values of single sections are left out." in message
    assert found.columns == ()
    assert plain(found) == {"voltage": 300}


def test_entries_that_are_matched_by_frames() -> None:
    names = ["v_0", "v_1", "v_2", "v_2"]
    frames = np.array(["/data/V_1.eer", r"X:\v_0.mrc", "", r"X:\v_2.mrc"])
    found = read([0, 0, 0, 0, 0], [NAN] * 4, names=names, input_stack=frames)
    np.testing.assert_array_equal(dose(found), [1, 0, NAN, NAN])
    assert "The values of section 2 (and 1 more) are unknown." in only(found.problems)
    # the name of a stack
    assert read([0, 0, 0], [NAN] * 2, names=names, input_stack=frames[:1]).columns == ()
    # an image of one exposure of the series
    found = read([0, 3, -3], [NAN], names=["x", "A", "y"])
    assert found.problems == ()
    assert (plain(found)["tilt_angle"], plain(found)["dose"]) == (3, 1)


def test_one_exposure_and_the_records() -> None:
    text = "[FrameSet = 0]\nTiltAngle = -30\nExposureDose = 2\n"
    for angle, expected in ((-30.05, {"tilt_angle": -30, "dose": 2}), (30, {})):
        image = image_file("a.mrc", 2, recorded={"tilt_angle": np.array([NAN, angle])})
        found = mdoc.read(text_file(text, "a.mdoc"), image)
        assert plain(found) == expected
    message = "the tilt angle is -30 for section 1; accepted: the angle in the extended header, 30"
    assert message in only(found.problems)


# name, angles of the list, angles in the records, and whether the list is used
LISTS: list[tuple[str, list[float], list[float], bool]] = [
    ("a.rawtlt", [-3, 0, 3.05], [-3, 0, 3], True),
    ("a.rawtlt", [0, 3, -3], [-3, 0, 3], False),
    ("a.rawtlt", [-3, 0, 3.2], [-3, 0, 3], False),
    # a refined angle is not the recorded one, but belongs to the same view
    ("a.tlt", [-2, 1, 4], [-3, 0, 3], True),
    ("a.tlt", [-1, 2, 5], [-3, 0, 3], False),
]


@pytest.mark.parametrize(("name", "angles", "recorded", "is_used"), LISTS)
def test_list_of_angles_and_records(
    name: str, angles: list[float], recorded: list[float], is_used: bool
) -> None:
    image = image_file("a.st", len(recorded), recorded={"tilt_angle": np.array(recorded, float)})
    found = tilt_list.read(text_file("\n".join(map(str, angles)), name), image)
    assert [column.values.tolist() for column in found.columns] == [angles] * is_used
    if not is_used:
        assert "accepted: the angle in the extended header" in only(found.problems)
