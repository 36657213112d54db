"""Text files beside an image: what they say, and what is said of lines that can't be read."""

from __future__ import annotations

import calendar
import datetime
import re
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mrc_xarray.metadata.sidecar.lines import clip, decode, lines, number

from mrc_xarray.errors import Problem
from mrc_xarray.metadata.columns import Column, Metadata
from mrc_xarray.metadata.scan import arrange
from mrc_xarray.metadata.sidecar import (
    SIDECARS,
    autodoc,
    direct_electron_names,
    mdoc,
    sidecar_named,
    tilt_list,
)
from mrc_xarray.metadata.sidecar import lines as sidecar_lines
from mrc_xarray.metadata.sidecar.direct_electron import parse_coordinates, parse_info

INFO_FILES = [
    "20241021_00405_info.txt",
    "3DSTEM_scan_info.txt",
    "3DTEMDiffracting_scan_info.txt",
    "3DTEM_scan_info.txt",
    "Custom_info.txt",
    "info.txt",
]


def only(problems: tuple[Problem, ...]) -> str:
    assert len(problems) == 1
    return problems[0].message("a.mrc")


def columns(metadata: Metadata) -> dict[str, Column]:
    return {column.name: column for column in metadata.columns}


def plain(metadata: Metadata) -> dict[str, object]:
    return {name: value.value for name, value in metadata.values.items()}


def units(metadata: Metadata) -> dict[str, str]:
    by_value = {name: value.units for name, value in metadata.values.items()}
    return by_value | {column.name: column.units for column in metadata.columns}


# --- messages and text ---------------------------------------------------------------------------


def test_problem_names_file_line_and_key() -> None:
    problem = Problem(
        "sidecar", "Defocus", "'?'", "a number", "It is unknown.", file="a.mdoc", line=7
    )
    assert problem.message("a.st") == (
        "a.st: a.mdoc, line 7: Defocus is '?'; accepted: a number. It is unknown."
    )
    assert "strict=True refuses it. Without strict: It is unknown." in problem.refusal("a.st")
    assert not problem.strict


def test_problem_with_the_whole_file() -> None:
    problem = Problem("sidecar", "the number of tilt angles", "3", "4", "Left out.", file="a.tlt")
    assert problem.message("a.st").startswith("a.st: a.tlt: the number of tilt angles is 3")


def test_problem_of_the_header_is_told_as_before() -> None:
    problem = Problem("mode", "MODE", "9", "0 or 1", "It is taken for 1.", offset=12, nbytes=4)
    assert problem.message("a.mrc") == (
        "a.mrc: MODE (bytes 12–15) is 9; accepted: 0 or 1. It is taken for 1."
    )
    assert isinstance(problem, Problem)


def test_lines_end_in_any_way() -> None:
    text = "\n a \r\nb\rc\x0bd\x85e\n\n"
    assert list(lines(text)) == [(2, "a"), (3, "b"), (4, "c\x0bd\x85e")]


@pytest.mark.parametrize(
    ("raw", "text"), [("µm".encode(), "µm"), (b"\xb5m", "µm"), (b"\xef\xbb\xbfa", "a")]
)
def test_decode(raw: bytes, text: str) -> None:
    assert decode(raw) == text


@pytest.mark.parametrize("text", ["", "x", "nan", "inf", "1_0", "1,5", "1 2", "-nan(ind)"])
def test_no_number(text: str) -> None:
    assert number(text) is None


def test_clip() -> None:
    assert clip("a") == "'a'"
    assert len(clip("a" * 1000)) == 62


# --- Direct Electron: the info file --------------------------------------------------------------


@pytest.mark.parametrize("name", INFO_FILES)
def test_info_has_each_line_of_the_file(real_file: Callable[[str], Path], name: str) -> None:
    raw = real_file(f"direct_electron/{name}").read_bytes()
    info = parse_info(raw, name)
    assert info.problems == ()
    text = raw.decode("ascii").replace("\r\n", "\n").rstrip("\n").split("\n")
    assert len(info.values) == len(text)
    for (key, value), line in zip(info.values.items(), info.lines.values(), strict=True):
        found = re.fullmatch(r"(.{63}) = ?(.*)", text[line - 1])
        if found is None:
            # a key that is longer than its column
            found = re.fullmatch(r"([^=]*)=(.*)", text[line - 1])
        assert found is not None
        assert (key, value) == (found[1].strip(), found[2].strip())


@pytest.mark.parametrize("name", INFO_FILES)
def test_info_as_rosettasciio_reads_it(real_file: Callable[[str], Path], name: str) -> None:
    """Its keys, its values, and whether it calls the frames diffraction."""
    rsciio = pytest.importorskip("rsciio.mrc._api", reason="RosettaSciIO is not installed")
    path = real_file(f"direct_electron/{name}")
    csv = path.with_name("Custom_scan_coordinates.csv") if name.startswith("Custom") else None
    values, _, axes, shape, _ = rsciio.read_de_metadata_file(str(path), scan_pos_file=csv)
    info = parse_info(path.read_bytes(), name)
    assert dict(info.values) == values
    assert info.is_diffraction == (axes[-1]["name"] == "kx")
    if shape is not None and csv is None:
        scan, _ = arrange(info, None, int(np.prod(shape)))
        assert scan is not None
        # its order is x, y
        assert scan.shape == shape[::-1]


# the file → whether scanned, whether diffraction, specimen's and pattern's pixel size (y, x)
SAID = {
    "20241021_00405_info.txt": (True, True, (0.2, 0.1), (0.1, 0.1)),
    "3DSTEM_scan_info.txt": (False, True, (10, 10), (None, None)),
    "3DTEMDiffracting_scan_info.txt": (False, True, (10, 10), (None, None)),
    "3DTEM_scan_info.txt": (False, False, (10, 10), (None, None)),
    "Custom_info.txt": (True, True, (None, None), (None, None)),
    "info.txt": (True, True, (10, 10), (None, None)),
}


@pytest.mark.parametrize("name", SAID)
def test_what_an_info_file_says(real_file: Callable[[str], Path], name: str) -> None:
    info = parse_info(real_file(f"direct_electron/{name}").read_bytes(), name)
    assert SAID[name] == (
        info.is_scan,
        info.is_diffraction,
        info.specimen_pixel_size,
        info.diffraction_pixel_size,
    )
    assert info.is_raster == (name != "Custom_info.txt")


def test_metadata_of_server_2_7_4(real_file: Callable[[str], Path]) -> None:
    name = "20241021_00405_info.txt"
    info = parse_info(real_file(f"direct_electron/{name}").read_bytes(), name)
    found = info.metadata()
    assert found.columns == ()
    values = plain(found)
    assert values["time"] == np.datetime64("2024-10-21T19:36:50")
    expected = {
        "voltage": (300000, "V"),
        "magnification": (1000, ""),
        "camera_length": (0.1, "cm"),
        "exposure_time": (0.045712, "s"),
        "frame_time": (1428500, "ns"),
        "dwell_time": (1464.212499, "us"),
        "gain": (1 / 51, "e/DN"),
        "specimen_pixel_size_x": (0.1, "nm"),
        "specimen_pixel_size_y": (0.2, "nm"),
        "diffraction_pixel_size_x": (0.1, "1/nm"),
        "camera_model": ("DESim", ""),
        "scan_rotation": (0, "degree"),
    }
    assert {name: (values[name], units(found)[name]) for name in expected} == expected


def test_metadata_leaves_out_what_is_unknown(real_file: Callable[[str], Path]) -> None:
    """Each of these is −1 in the file, or not in it."""
    name = "Custom_info.txt"
    found = parse_info(real_file(f"direct_electron/{name}").read_bytes(), name).metadata()
    unknown = {"magnification", "camera_length", "gain", "specimen_pixel_size_x"}
    assert not unknown & set(found.values)
    assert "diffraction_pixel_size_y" not in found.values
    assert found.values["voltage"] == (300000, "V")


def test_metadata_of_server_2_7_2(real_file: Callable[[str], Path]) -> None:
    """It spells the gain otherwise, and its exposure rate is below zero."""
    name = "3DTEM_scan_info.txt"
    found = parse_info(real_file(f"direct_electron/{name}").read_bytes(), name).metadata()
    assert found.values["gain"] == (1 / 300, "e/DN")
    assert "exposure_rate" not in found.values
    # the beam was not scanned
    assert "dwell_time" not in found.values


HAND = """\
Server Software Version     = 2.7.4 = new
Empty                       =
Also Empty=
Exposure Time (seconds)=0.5
Scan - Enable               = Enable
Specimen Pixel Size X (nanometers) = 0.25
Specimen Pixel Size Y (nanometers) = 0.5
Diffraction Pixel Size X    = 0.125
Diffraction Pixel Size Y    = -1
"""


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_info_by_hand(ending: str) -> None:
    info = parse_info(HAND.replace("\n", ending).encode(), "a_info.txt")
    assert info.problems == ()
    assert info.values["Server Software Version"] == "2.7.4 = new"
    assert info.values["Empty"] == info.values["Also Empty"] == ""
    assert info.lines["Exposure Time (seconds)"] == 4
    assert info.specimen_pixel_size == (0.5, 0.25)
    assert info.diffraction_pixel_size == (None, 0.125)
    assert plain(info.metadata())["exposure_time"] == 0.5


def test_lines_of_an_info_file_that_cannot_be_read() -> None:
    info = parse_info(
        b"Scan - Enable = Enable\nnonsense\n= 3\nFrames Per Second = 2\n", "a_info.txt"
    )
    assert "a_info.txt, line 2: the line is 'nonsense' (and 1 more)" in only(info.problems)
    assert info.is_scan
    assert plain(info.metadata()) == {"frames_per_second": 2}


def test_value_of_an_info_file_that_is_no_number() -> None:
    info = parse_info(b"A = b\nExposure Time (seconds) = long\n", "a_info.txt")
    found = info.metadata()
    assert "a_info.txt, line 2: Exposure Time (seconds) is 'long'" in only(found.problems)
    assert found.values == {}


MODE, LENGTH = (
    "Instrument Project TEMorSTEM Mode",
    "Instrument Project Camera Length (centimeters)",
)


@pytest.mark.parametrize(
    ("keys", "is_diffraction"),
    [
        ({}, False),
        ({MODE: "-1"}, False),
        ({MODE: "-1", "Scan - Enable": "Enable"}, True),
        ({"Scan - Enable": "Enable"}, True),
        ({MODE: "0", "Scan - Enable": "Enable"}, False),
        ({MODE: "0", LENGTH: "-1"}, False),
        ({MODE: "0", LENGTH: "10"}, True),
        ({MODE: "0", LENGTH: "0"}, True),
        ({MODE: "1", LENGTH: "-1"}, True),
        ({MODE: "-1", LENGTH: "10"}, True),
        ({MODE: "?", LENGTH: ""}, False),
    ],
)
def test_diffraction(keys: Mapping[str, str], is_diffraction: bool) -> None:
    text = "".join(f"{key} = {value}\n" for key, value in keys.items())
    assert parse_info(text.encode(), "a_info.txt").is_diffraction is is_diffraction


# --- Direct Electron: scan coordinates -----------------------------------------------------------


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
def test_coordinates(raw: bytes) -> None:
    coordinates, problems = parse_coordinates(raw, "a.csv")
    assert problems == []
    assert coordinates is not None
    assert coordinates.positions.dtype == np.int64
    np.testing.assert_array_equal(coordinates.positions, [[7, 12], [11, 18], [0, 3]])


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
def test_coordinates_that_cannot_be_read(raw: bytes, place: str) -> None:
    coordinates, problems = parse_coordinates(raw, "a.csv")
    assert coordinates is None
    assert place in only(tuple(problems))


def test_real_coordinates(real_file: Callable[[str], Path]) -> None:
    path = real_file("direct_electron/Custom_scan_coordinates.csv")
    coordinates, problems = parse_coordinates(path.read_bytes(), path.name)
    assert problems == []
    assert coordinates is not None
    np.testing.assert_array_equal(
        coordinates.positions, np.loadtxt(path, delimiter=",", dtype=int)
    )


# --- Direct Electron: names ----------------------------------------------------------------------


def test_names_of_the_info_file() -> None:
    names = direct_electron_names.info_names
    assert names("20241021_00405_movie.mrc") == ("20241021_00405_info.txt",)
    assert names("20250429_06699_0_movie.mrc") == (
        "20250429_06699_0_info.txt",
        "20250429_06699_info.txt",
    )
    assert names("20250429_06699_run1_26_movie.mrc") == (
        "20250429_06699_run1_26_info.txt",
        "20250429_06699_run1_info.txt",
        "20250429_06699_info.txt",
    )
    assert names("Custom_movie.mrc") == ("Custom_info.txt",)
    for other in ("20241021_00405_final.mrc", "_movie.mrc", "movie.mrc", "", "a_movie.mrc.gz"):
        assert names(other) == ()
    assert direct_electron_names.coordinates_names("a_movie.mrc") == ("a_scan_coordinates.csv",)


def test_real_neighbours(real_file: Callable[[str], Path]) -> None:
    movie = real_file("direct_electron/20241021_00405_movie.mrc")
    found = direct_electron_names.neighbours(
        movie.name, [path.name for path in movie.parent.iterdir()]
    )
    assert found.virtual == {
        "Virt 0": "20241021_00405_0_Virt 0_sum.mrc",
        "Virt 1": "20241021_00405_1_Virt 1_sum.mrc",
    }
    assert found.external == {"Ext 1": "20241021_00405_ext1_Ext 1.mrc"}
    assert found.final == "20241021_00405_final.mrc"


def test_real_movie_without_neighbours(real_file: Callable[[str], Path]) -> None:
    movie = real_file("direct_electron/Custom_movie.mrc")
    found = direct_electron_names.neighbours(
        movie.name, [path.name for path in movie.parent.iterdir()]
    )
    assert found == direct_electron_names.Neighbours()


FOLDER = [
    "20240101_7_movie.mrc",
    "20240101_7_info.txt",
    "20240101_7_10_BF_sum.mrc",
    "20240101_7_2_Virt #2_centroid_amplitude.mrc",
    "20240101_7_virt3_DF inner_sum.mrc",
    "20240101_7_ext2.mrc",
    "20240101_7_ext1_HAADF_left.mrc",
    "20240101_7_final.mrc",
    "20240101_7_0_movie.mrc",
    "20240101_77_0_BF_sum.mrc",
    "20240101_77_final.mrc",
    "20240101_7_4_BF_sum.tif",
    "20240101_7_5_BF.mrc",
    "notes.txt",
]


@pytest.mark.parametrize("movie", ["20240101_7_movie.mrc", "20240101_7_0_movie.mrc"])
def test_neighbours_by_hand(movie: str) -> None:
    found = direct_electron_names.neighbours(movie, FOLDER)
    assert list(found.virtual.items()) == [
        ("Virt #2", "20240101_7_2_Virt #2_centroid_amplitude.mrc"),
        ("DF inner", "20240101_7_virt3_DF inner_sum.mrc"),
        ("BF", "20240101_7_10_BF_sum.mrc"),
    ]
    assert list(found.external.items()) == [
        ("HAADF_left", "20240101_7_ext1_HAADF_left.mrc"),
        ("ext2", "20240101_7_ext2.mrc"),
    ]
    assert found.final == "20240101_7_final.mrc"


def test_neighbours_with_one_name_keep_apart() -> None:
    folder = ["a_0_BF_sum.mrc", "a_1_BF_mean.mrc", "a_2_BF_mean.mrc", "a_3_DF_sum.mrc"]
    found = direct_electron_names.neighbours("a_movie.mrc", folder)
    assert found.virtual == {
        "BF sum": "a_0_BF_sum.mrc",
        "BF mean": "a_1_BF_mean.mrc",
        "2 BF mean": "a_2_BF_mean.mrc",
        "DF": "a_3_DF_sum.mrc",
    }


def test_neighbour_whose_name_the_info_file_knows() -> None:
    info = parse_info(b"Scan - Virtual Detector 1 Name = inner_left\n", "a_info.txt")
    found = direct_electron_names.neighbours("a_movie.mrc", ["a_1_inner_left_sum.mrc"], info)
    assert found.virtual == {"inner_left": "a_1_inner_left_sum.mrc"}


# --- SerialEM ------------------------------------------------------------------------------------

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
    return mdoc.read(text.encode(), "TS_01.mrc.mdoc", image, n_sections)


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
    # keys without a name here, as they stand there
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
    # equal in all sections, and no section's by nature
    assert values["magnification"] == 53000
    assert values.keys() == {
        "pixel_spacing", "voltage", "titles", "tilt_axis_angle", "magnification",
    }  # fmt: skip


def test_order_of_keys_and_sections_does_not_matter() -> None:
    head, *parts = re.split(r"(?=\[ZValue)", MDOC)
    shuffled = head
    for part in reversed(parts):
        title, *keys = part.strip().split("\n")
        shuffled += "\n".join([title, *reversed(keys)]) + "\n\n"
    one, other = read(MDOC, 2), read(shuffled.replace("\n", "\r\n"), 2)
    assert one.values == other.values
    assert columns(one).keys() == columns(other).keys()
    for name, column in columns(one).items():
        np.testing.assert_array_equal(column.values, columns(other)[name].values)


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
    assert "line 5: FrameSet is there 2 times" in only(found.problems)
    assert found.columns == ()
    assert plain(found)["voltage"] == 200


@pytest.mark.parametrize(
    ("change", "message", "name", "values"),
    [
        (
            ("TiltAngle = 3.5", "TiltAngle = three"),
            "TS_01.mrc.mdoc, line 13: TiltAngle is 'three'; accepted: a number",
            "tilt_angle",
            [0.25, np.nan],
        ),
        (
            ("StagePosition = 20 -155", "StagePosition = 20"),
            "line 27: StagePosition is '20'; accepted: 2 numbers",
            "stage_y",
            [np.nan, -155.25],
        ),
        (
            ("StageZ = 163.8", "StageZ 163.8"),
            "line 14: the line is 'StageZ 163.8'; accepted: key = value",
            "stage_z",
            [163, np.nan],
        ),
        (
            ("[ZValue = 1]", "[ZValue = 2]"),
            "line 11: ZValue is '2'; accepted: a section of the image, 0–1",
            "tilt_angle",
            [0.25, np.nan],
        ),
        (
            ("[ZValue = 1]", "[ZValue = one]"),
            "line 11: ZValue is 'one'",
            "tilt_angle",
            [0.25, np.nan],
        ),
        (
            ("[ZValue = 1]", "[ZValue = 1"),
            "line 11: the line is '[ZValue = 1'",
            "tilt_angle",
            [0.25, np.nan],
        ),
    ],
)
def test_mdoc_with_a_line_that_cannot_be_read(
    change: tuple[str, str], message: str, name: str, values: list[float]
) -> None:
    """The rest of the file is read."""
    found = read(MDOC.replace(*change), 2)
    assert any(message in problem.message("TS_01.mrc") for problem in found.problems)
    np.testing.assert_array_equal(columns(found)[name].values, values)
    assert columns(found)["exposure_time"].values[0] == 0.75


def test_mdoc_with_a_date_that_is_none() -> None:
    found = read(MDOC.replace("26-Nov-21  12:39:50", "31-Feb-21  12:39:50"), 2)
    assert "line 21: DateTime is '31-Feb-21  12:39:50'" in only(found.problems)
    assert np.isnat(columns(found)["time"].values[1])


def test_mdoc_with_a_section_twice() -> None:
    found = read(MDOC + "\n[ZValue = 1]\nTiltAngle = 9\n", 2)
    assert "ZValue is '1'; accepted: each section once. The last one is taken" in only(
        found.problems
    )
    assert columns(found)["tilt_angle"].values[1] == 9


def test_mdoc_with_fewer_sections() -> None:
    found = read(MDOC, 4)
    assert "[ZValue = 2] is missing (and 1 more)" in only(found.problems)
    np.testing.assert_array_equal(columns(found)["tilt_angle"].values, [0.25, 3.5, np.nan, np.nan])
    assert np.isnat(columns(found)["time"].values[2:]).all()
    assert found.keys["sections"]["SubFramePath"][2:] == ["", ""]


@pytest.mark.parametrize("text", ["", "Voltage = 300\n", "[MontSection = 0]\nTiltAngle = 1\n"])
def test_mdoc_without_sections(text: str) -> None:
    found = read(text, 2)
    assert "TS_01.mrc.mdoc: ZValue is missing" in only(found.problems)
    assert found.columns == ()


def test_many_bad_lines_are_one_problem() -> None:
    found = read(MDOC + "junk\n" * 1000, 2)
    assert "the line is 'junk' (and 999 more)" in only(found.problems)


def test_keys_with_the_names_of_others() -> None:
    found = read("[ZValue = 0]\nDose = 3\nExposureDose = 2\ndose = 4\n", 1)
    assert columns(found)["dose"].values == [2]
    assert plain(found) == {}
    assert found.keys == {"sections": {"Dose": "3", "dose": "4"}}


@given(st.datetimes(datetime.datetime(2000, 1, 1), datetime.datetime(2069, 12, 31)))
def test_dates_in_both_forms(time: datetime.datetime) -> None:
    time = time.replace(microsecond=0)
    month = calendar.month_abbr[time.month]
    for form in (
        f"%d-{month}-%y  %H:%M:%S",
        f"%Y-{month}-%d  %H:%M:%S",
        f"%d-{month}-%Y %H:%M:%S",
    ):
        found = read(f"[ZValue = 0]\nDateTime = {time.strftime(form)}\n", 1)
        assert found.problems == ()
        assert columns(found)["time"].values == np.datetime64(time)


def test_mdoc_as_mdocfile_reads_it() -> None:
    mdocfile = pytest.importorskip(
        "mdocfile.data_models", reason="mdocfile, an oracle, is not installed"
    )
    theirs = mdocfile.Mdoc.from_string(MDOC)
    found = read(MDOC, 2)
    ordered = sorted(theirs.section_data, key=lambda section: section.ZValue)
    by_name = columns(found)
    for name, get in {
        "tilt_angle": lambda s: s.TiltAngle,
        "stage_x": lambda s: s.StagePosition[0],
        "stage_y": lambda s: s.StagePosition[1],
        "stage_z": lambda s: s.StageZ,
        "defocus": lambda s: s.Defocus,
        "dose": lambda s: s.ExposureDose,
        "exposure_time": lambda s: s.ExposureTime,
        "image_shift_x": lambda s: s.ImageShift[0],
        "image_shift_y": lambda s: s.ImageShift[1],
        "mean": lambda s: s.MinMaxMean[2],
    }.items():
        assert list(by_name[name].values) == [get(section) for section in ordered]
    assert found.keys["sections"]["SubFramePath"] == [str(s.SubFramePath) for s in ordered]
    values = plain(found)
    assert values["voltage"] == theirs.global_data.Voltage
    assert values["pixel_spacing"] == theirs.global_data.PixelSpacing
    assert found.keys["ImageFile"] == str(theirs.global_data.ImageFile)
    assert values["magnification"] == ordered[0].Magnification
    assert [f"[T = {title}]" for title in str(values["titles"]).split("\n")] == [
        re.sub(r"= +", "= ", title, count=1) for title in theirs.titles
    ]


# --- lists of tilt angles ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["-60\n-57.5\n 0.00\n", "\n-60.00\r\n\r\n-57.5\r\n0", "-6e1\n-57.5 \n0"]
)
def test_tilt_list(text: str) -> None:
    found = tilt_list.read(text.encode(), "a.rawtlt", "a.st", 3)
    assert found.problems == ()
    assert units(found) == {"tilt_angle": "degree"}
    np.testing.assert_array_equal(columns(found)["tilt_angle"].values, [-60, -57.5, 0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-60\n-57\n", "a.tlt: the number of tilt angles is 2; accepted: one for each section"),
        ("", "a.tlt: the number of tilt angles is 0"),
        ("-60\n\nx\n-54\n", "a.tlt, line 3: the tilt angle is 'x'"),
        ("-60\n-57 1\n-54\n", "a.tlt, line 2: the tilt angle is '-57 1'"),
        ("-60\nnan\n-54\n", "a.tlt, line 2: the tilt angle is 'nan'"),
    ],
)
def test_tilt_list_that_cannot_be_used(text: str, message: str) -> None:
    found = tilt_list.read(text.encode(), "a.tlt", "a.st", 3)
    assert message in only(found.problems)
    assert found.columns == ()


@pytest.mark.parametrize(
    ("image", "names"),
    [
        ("BB.st", ("BB.rawtlt", "BB.tlt")),
        ("BB.mrc", ("BB.rawtlt", "BB.tlt")),
        ("BB.ali", ("BB.tlt", "BB.rawtlt")),
        ("BB_ali.mrc", ("BB.tlt", "BB.rawtlt")),
        ("BB_preali.mrc", ("BB.tlt", "BB.rawtlt")),
        ("BB.st.gz", ("BB.rawtlt", "BB.tlt")),
        ("BB.rec", ()),
    ],
)
def test_names_of_tilt_lists(image: str, names: tuple[str, ...]) -> None:
    assert tilt_list.names(image) == names


# --- the table -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("20241021_00405_info.txt", "direct_electron"),
        ("info.txt", "direct_electron"),
        ("TS_01.mrc.mdoc", "mdoc"),
        ("TS_01.MDOC", "mdoc"),
        ("TS_01.tlt", "tilt_list"),
        ("TS_01.rawtlt", "tilt_list"),
        ("TS_01.xtlt", None),
        ("notes.txt", None),
        ("", None),
    ],
)
def test_sidecar_by_its_name(name: str, kind: str | None) -> None:
    found = sidecar_named(name)
    assert (found and found.kind) == kind


@pytest.mark.parametrize("sidecar", SIDECARS, ids=lambda sidecar: sidecar.kind)
def test_each_sidecar_has_the_names_that_it_is_found_by(sidecar: object) -> None:
    assert isinstance(sidecar, tuple)
    found = [name for image in ("20240101_7_movie.mrc", "a.st") for name in sidecar.names(image)]
    assert found
    assert all(sidecar_named(name) is sidecar for name in found)


SNIPPETS = [
    "[ZValue = 0]", "[ZValue = 1]", "[ZValue = ", "[FrameSet = 0]", "[T = x = y]", "[[]]",
    "[]", "]", "TiltAngle = 1", "TiltAngle =", "TiltAngle = 1e999", "StagePosition = 1 2",
    "StagePosition = 1", "DateTime = 21-Nov-26  12:38:50", "DateTime = 99-Xxx-26  99:38:50",
    "= 3", "=", "a = b", "", "DateTime = ٢١-Nov-26  12:38:50", "[ZValue = ٣]",
    "[ZValue = 999999999999]", "T = t", "t = 1", "Scan - Enable = Enable", "Scan - Size X = 2",
    "Scan - Size Y = 1", "Scan - Type = XY File", "Scan - Repeats = -3",
    "Diffraction Pixel Size X = 1e-320", "ADUs Per Electron = 1e-320",
    "Timestamp (seconds since Epoch) = 1e300", "Scan - Points Per Camera Frame = x", "1,2",
    "x,y", "0,0", "9999999999,1", "-3.5", "nan", "0",
]  # fmt: skip
GARBAGE = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=200).map(str.encode),
    st.lists(st.sampled_from(SNIPPETS), max_size=20).map(lambda parts: "\n".join(parts).encode()),
)


@given(GARBAGE, st.integers(0, 5))
@example(b"\xff\xfe[\x00Z\x00", 1)
@example(b"[ZValue = 0]\n" * 3, 0)
def test_garbage_is_told_and_never_raised(raw: bytes, n_sections: int) -> None:
    for sidecar in SIDECARS:
        found = sidecar.read(raw, "side", "a_movie.mrc", n_sections)
        assert all("side" in problem.message("a_movie.mrc") for problem in found.problems)
        assert all(len(column.values) == n_sections for column in found.columns)
        assert len(found.problems) < 60
    autodoc.parse(raw, "side")
    info = parse_info(raw, "side")
    coordinates, problems = parse_coordinates(raw, "side")
    assert (coordinates is None) == bool(problems)
    scan, problems = arrange(info, coordinates, n_sections)
    assert scan is None or scan.frame_index is None or scan.frame_index.max() < n_sections
    assert all(problem.message("a_movie.mrc") for problem in problems)


@given(st.text(max_size=30), st.lists(st.text(max_size=30), max_size=5))
def test_any_names(movie: str, names: list[str]) -> None:
    direct_electron_names.neighbours(movie + "_movie.mrc", names)
    for sidecar in SIDECARS:
        sidecar.names(movie)
        sidecar_named(movie)


# --- keys without a name here --------------------------------------------------------------------


@pytest.mark.parametrize("n_keys", [3_300, 50_000])
def test_thousands_of_keys_are_metadata_and_no_columns(n_keys: int) -> None:
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
    info = parse_info("".join(f"K{i} = {i}\n" for i in range(n_keys)).encode(), "a_info.txt")
    found = info.metadata()
    assert (found.values, found.keys) == ({}, expected)


def test_keys_beyond_what_metadata_take_are_one_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sidecar_lines, "_MOST_VALUES", 5)
    found = read("A = 1\n[ZValue = 0]\nB = 1\nC = 2\nD = 3\n[ZValue = 1]\nD = 3\n", 2)
    assert found.keys == {"A": "1", "sections": {"B": ["1", ""], "C": ["2", ""]}}
    assert "the key is 'D'; accepted: up to 5 values" in only(found.problems)
    monkeypatch.setattr(sidecar_lines, "_MOST_LETTERS", 6)
    found = read("A = 12345\nB = 1\nC = 2\n[FrameSet = 0]\nD = 1\n", 2)
    assert found.keys == {"A": "12345"}
    assert "the key is 'B' (and 2 more); accepted: up to 5 values and 6 char" in only(
        found.problems
    )


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
    info = parse_info(f"Camera Model = {long}\n".encode(), "a_info.txt")
    assert info.values == {"Camera Model": "x" * (65536 - 15)}
    assert "line 1: the line is 100015 characters long" in only(info.problems)


def test_few_entries_for_many_sections_are_no_columns() -> None:
    """A header may claim 2³¹ sections; two entries are not worth a column of these."""
    entries = "[ZValue = 0]\nTiltAngle = 3\n[ZValue = 7]\nTiltAngle = 4\nNote = a\n"
    for n_sections in (2**14 + 1, 2**24 + 1, 2**31 - 1):
        tracemalloc.start()
        found = read(entries, n_sections)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert found.columns == ()
        assert peak < 2**22
        message = found.problems[0].message("a")
        assert f"[ZValue = 1] is missing (and {n_sections - 3} more)" in message
        assert "left out" in message
    assert list(columns(read(entries, 2**14))) == ["tilt_angle"]
