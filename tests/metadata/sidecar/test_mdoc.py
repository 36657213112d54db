"""SerialEM's .mdoc: columns, values and keys, and messages about lines that can't be read."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from sidecars_by_hand import columns, image_file, only, plain, text_file, units

from mrc_xarray.metadata.columns import Metadata
from mrc_xarray.metadata.sidecar import mdoc

MDOC = """\
PixelSpacing = 5.4
Voltage = 300
ImageFile = TS_01.mrc
ImageSize = 64 48
DataMode = 1

[T = SerialEM: Titan, somewhere        26-Nov-21  12:00:00]

[T =     Tilt axis angle = -85.3, binning = 1  spot = 8  camera = 2]

[ZValue = 1]
StagePosition = 20.5 -155.25
TiltAngle = 3.5
StageZ = 163.8
Magnification = 53000
ExposureDose = 1.5
Defocus = -4.25
ImageShift = 0.5 -0.25
ExposureTime = 0.8
SubFramePath = D:\\frames\\TS_01_001_3.0.mrc
DateTime = 26-Nov-21  12:39:50
SpotSize = 8
MinMaxMean = 5 1403 623.5

[ZValue = 0]
TiltAngle = 0.25
StagePosition = 20 -155
StageZ = 163
Magnification = 53000
ExposureDose = 1.25
Defocus = -4
ImageShift = 0 0.25
ExposureTime = 0.75
SubFramePath = D:\\frames\\TS_01_000_0.0.mrc
DateTime = 2021-Nov-26  12:38:50
SpotSize = 8
MinMaxMean = 4 1400 620
NavigatorLabel = 7=a
"""


def read(text: str, n_sections: int, image: str = "TS_01.mrc") -> Metadata:
    return mdoc.read(text_file(text, "TS_01.mrc.mdoc"), image_file(image, n_sections))


def test_mdoc() -> None:
    found = read(MDOC, 2)
    assert found.problems == ()
    expected = {
        "tilt_angle": ([0.25, 3.5], "degree"),
        "stage_x": ([20, 20.5], "um"),
        "stage_y": ([-155, -155.25], "um"),
        "stage_z": ([163, 163.8], "um"),
        "defocus": ([-4, -4.25], "um"),
        "dose": ([1.25, 1.5], "e/angstrom^2"),
        "exposure_time": ([0.75, 0.8], "s"),
        "image_shift_x": ([0, 0.5], "um"),
        "image_shift_y": ([0.25, -0.25], "um"),
        "minimum": ([4, 5], ""),
        "maximum": ([1400, 1403], ""),
        "mean": ([620, 623.5], ""),
    }
    by_name = columns(found)
    for name, (values, unit) in expected.items():
        np.testing.assert_array_equal(by_name[name].values, values, strict=False)
        assert by_name[name].values.dtype == np.float64
        assert by_name[name].units == unit
    times = ["2021-11-26T12:38:50", "2021-11-26T12:39:50"]
    np.testing.assert_array_equal(by_name["time"].values, np.array(times, "M8[us]"))
    assert by_name["time"].values.dtype == "M8[us]"
    assert by_name.keys() == expected.keys() | {"time"}
    # keys without a known meaning, as in the file
    assert found.keys == {
        "PixelSpacing": "5.4",
        "Voltage": "300",
        "ImageFile": "TS_01.mrc",
        "ImageSize": "64 48",
        "DataMode": "1",
        "titles": [
            "SerialEM: Titan, somewhere        26-Nov-21  12:00:00",
            "Tilt axis angle = -85.3, binning = 1  spot = 8  camera = 2",
        ],
        "sections": {
            "SubFramePath": [r"D:\frames\TS_01_000_0.0.mrc", r"D:\frames\TS_01_001_3.0.mrc"],
            "SpotSize": "8",
            "NavigatorLabel": ["7=a", ""],
        },
    }

    assert found.values["pixel_spacing"] == (5.4, "angstrom")
    assert found.values["voltage"] == (300, "kV")
    assert found.values["tilt_axis_angle"] == (-85.3, "degree")
    values = plain(found)
    assert str(values["titles"]).startswith("SerialEM: Titan, somewhere")
    # equal in all sections
    assert values["magnification"] == 53000
    assert values.keys() == {
        "pixel_spacing", "voltage", "titles", "tilt_axis_angle", "magnification",
    }  # fmt: skip


FRAMES = r"""T = SerialEM: Glacios 0123456 at a university        26-Oct-23  14:55:45
T =     Tilt axis angle = 85.5, binning = 1  spot = 8  camera = 2
Voltage = 200

[FrameSet = 0]
TiltAngle = -30.5
StagePosition = -26.5 53
ExposureDose = 2.5
Defocus = -3
DateTime = 26-Oct-23  14:55:40
SubFramePath = X:\data\tilt_030.mrc
NumSubFrames = 8
"""


def test_mdoc_of_one_exposure() -> None:
    """All frames are of one tilt, however many."""
    for n_sections in (1, 8):
        found = read(FRAMES, n_sections, "anything.mrc")
        assert found.problems == ()
        assert found.columns == ()
        values = plain(found)
        assert values["tilt_angle"] == -30.5
        assert values["stage_y"] == 53
        assert values["time"] == np.datetime64("2023-10-26T14:55:40")
        assert values["voltage"] == 200
        assert values["tilt_axis_angle"] == 85.5
        assert found.keys["sections"] == {
            "SubFramePath": r"X:\data\tilt_030.mrc",
            "NumSubFrames": "8",
        }
        assert units(found)["dose"] == "e/angstrom^2"


def test_exposure_among_several() -> None:
    second = FRAMES[FRAMES.index("[FrameSet") :].replace("-30.5", "-27").replace("030", "027")
    text = FRAMES + second.replace("= 0]", "= 1]")
    assert plain(read(text, 8, "TILT_027.tif"))["tilt_angle"] == -27
    np.testing.assert_array_equal(
        columns(read(text, 2, "stack.mrc"))["tilt_angle"].values, [-30.5, -27]
    )
    found = read(text, 8, "stack.mrc")
    assert "line 5: the number of entries [FrameSet = n] is 2" in only(found.problems)
    assert found.columns == ()
    assert plain(found)["voltage"] == 200


# what is replaced, the message, and the values of a column
DAMAGED: list[tuple[tuple[str, str], str, str, Any]] = [
    (("TiltAngle = 3.5", "TiltAngle = three"),
     "TS_01.mrc.mdoc, line 13: TiltAngle is 'three'; accepted: a number",
     "tilt_angle", [0.25, np.nan]),
    (("StagePosition = 20 -155", "StagePosition = 20"),
     "line 27: StagePosition is '20'; accepted: 2 numbers", "stage_y", [np.nan, -155.25]),
    (("StageZ = 163.8", "StageZ 163.8"),
     "line 14: the line is 'StageZ 163.8'; accepted: key = value", "stage_z", [163, np.nan]),
    (("26-Nov-21  12:39:50", "31-Feb-21  12:39:50"),
     "line 21: DateTime is '31-Feb-21  12:39:50'",
     "time", np.array(["2021-11-26T12:38:50", "NaT"], "M8[us]")),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message", "name", "values"), DAMAGED)
def test_mdoc_with_a_line_that_cannot_be_read(
    change: tuple[str, str], message: str, name: str, values: Any
) -> None:
    """The rest of the file is read."""
    found = read(MDOC.replace(*change), 2)
    assert any(message in problem.message("TS_01.mrc") for problem in found.problems)
    np.testing.assert_array_equal(columns(found)[name].values, values)
    assert columns(found)["exposure_time"].values[0] == 0.75


# what is replaced, the number of sections, and what is found
MISNUMBERED: list[tuple[tuple[str, str], int, str]] = [
    (("[ZValue = 1]", "[ZValue = 2]"), 2, "line 11: … is 2, with n from '0' to '2'"),
    (("[ZValue = 0]", "[ZValue = 1]"), 2, "line 11: … is 2, with n from '1' to '1'"),
    (("[ZValue = 1]", "[ZValue = x]"), 2, "line 11: … is 2, with n from '0' to 'x'"),
    (("NavigatorLabel", "[ZValue = 1]\nLabel"), 2, "line 11: … is 3, with n from '0' to '1'"),
    (("", ""), 4, "line 11: … is 2, with n from '0' to '1'"),
    (("", ""), 1, "line 11: … is 2, with n from '0' to '1'"),
]


@pytest.mark.parametrize(("change", "n_sections", "message"), MISNUMBERED)
def test_entries_that_are_not_exactly_those_of_the_sections(
    change: tuple[str, str], n_sections: int, message: str
) -> None:
    """It is not known which sections they belong to; the global keys are those of the stack."""
    found = read(MDOC.replace(*change, 1), n_sections)
    problem = only(found.problems)
    assert message.replace("…", "the number of entries [ZValue = n]") in problem
    expected = f"accepted: {n_sections}, with n from 0 to {n_sections - 1}, each of them once. The"
    assert expected in problem
    assert found.columns == ()
    assert "sections" not in found.keys
    assert plain(found)["voltage"] == 300


def test_numbers_are_those_of_the_header_in_a_truncated_file() -> None:
    found = mdoc.read(text_file(MDOC, "a.mdoc"), image_file("a.mrc", 1, n_promised=2))
    assert found.problems == ()
    assert columns(found)["tilt_angle"].values == [0.25]


def test_piece_coordinates() -> None:
    """SerialEM writes them for a montage; the keys of aligned pieces stay texts."""
    text = "[ZValue = 1]\nPieceCoordinates = 5 -7 0\nAlignedPieceCoords = 4 -7 0\n[ZValue = 0]\n"
    by_name = columns(read(text + "PieceCoordinates = 0 3686 2\n", 2))
    for name, expected, unit in (
        ("piece_x", [0, 5], "pixel"), ("piece_y", [3686, -7], "pixel"), ("piece_z", [2, 0], ""),
    ):  # fmt: skip
        assert by_name[name].values.tolist() == expected
        assert (by_name[name].values.dtype, by_name[name].units) == (np.dtype("i8"), unit)
    for bad in ("1 2", "1.5 2 3", "1e300 2 3", "1 2 x"):
        found = read(f"{text}PieceCoordinates = {bad}\n", 2)
        assert f"PieceCoordinates is '{bad}'; accepted: 3 integers" in only(found.problems)
        np.testing.assert_array_equal(columns(found)["piece_x"].values, [np.nan, 5])
    assert found.keys["sections"] == {"AlignedPieceCoords": ["", "4 -7 0"]}


@pytest.mark.parametrize("text", ["", "Voltage = 300\n", "[MontSection = 0]\nTiltAngle = 1\n"])
def test_mdoc_without_sections(text: str) -> None:
    found = read(text, 2)
    assert "TS_01.mrc.mdoc: ZValue is missing" in only(found.problems)
    assert found.columns == ()


def test_first_line_that_cannot_be_read() -> None:
    found = read("junk\n" + MDOC + "junk\n" * 999, 2)
    message = "TS_01.mrc.mdoc, line 1: the line is 'junk' (and 999 more); accepted: key = value"
    assert message in only(found.problems)
    assert found.problems[0].offset == 0


def test_keys_with_the_names_of_columns() -> None:
    found = read("[ZValue = 0]\nDose = 3\nExposureDose = 2\ndose = 4\n", 1)
    assert columns(found)["dose"].values == [2]
    assert plain(found) == {}
    assert found.keys == {"sections": {"Dose": "3", "dose": "4"}}


def test_thousands_of_keys_are_metadata_and_no_columns() -> None:
    n_keys = 3_300
    keys = "".join(f"K{i} = {i}\n" for i in range(n_keys))
    expected = {f"K{i}": str(i) for i in range(n_keys)}
    in_one = read(f"[ZValue = 0]\n{keys}TiltAngle = 3\n[ZValue = 1]\n", 2)
    assert list(columns(in_one)) == ["tilt_angle"]
    assert in_one.keys["sections"] == {key: [text, ""] for key, text in expected.items()}
    assert in_one.values == {}
    assert in_one.problems == ()
    in_all = read(f"[ZValue = 0]\n{keys}[ZValue = 1]\n{keys}", 2)
    assert in_all.keys["sections"] == expected
    above = read(f"{keys}[ZValue = 0]\n[ZValue = 1]\n", 2)
    assert above.keys == expected
    assert (above.values, above.columns) == ({}, ())
    exposure = read(f"[FrameSet = 0]\n{keys}", 8)
    assert exposure.keys["sections"] == expected


def test_long_lines_are_cut() -> None:
    long = "x" * 100_000
    text = f"[ZValue = 0]\nTiltAngle = 3\nNote = {long}\n[T = {long}]\n{long}\nDefocus = 1\n"
    found = read(text, 1)
    first, second = (problem.message("a.mrc") for problem in found.problems)
    assert (
        "line 3: the line is 100007 characters long (and 2 more); accepted: up to 65536" in first
    )
    assert "line 4: the line is '[T = xxx" in second
    assert found.keys["sections"] == {"Note": "x" * (65536 - 7)}
    assert list(columns(found)) == ["tilt_angle"]
    assert found.values == {}


def test_few_entries_for_many_sections_are_no_columns() -> None:
    """A header may claim 2³¹ sections; two entries are too few for a column."""
    entries = "[ZValue = 0]\nTiltAngle = 3\n[ZValue = 7]\nTiltAngle = 4\nNote = a\n"
    for n_sections in (2**14 + 1, 2**24 + 1, 2**31 - 1):
        tracemalloc.start()
        found = read(entries, n_sections)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert found.columns == ()
        assert peak < 2**22
        message = found.problems[0].message("a")
        assert "the number of entries [ZValue = n] is 2, with n from '0' to '7'" in message
        assert "left out" in message
