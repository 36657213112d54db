"""Direct Electron's info files: keys, values, and the kind of the frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from sidecars_by_hand import image_file, only, text_file

from mrc_xarray.metadata.sidecar.direct_electron import Info, read, scan_of


def parse(raw: bytes, name: str) -> Info:
    return Info.parse(text_file(raw, name))


def sizes(info: Info, dims: tuple[str, str]) -> tuple[float | None, ...]:
    return tuple(info.steps()[dim].size if dim in info.steps() else None for dim in dims)


# the file → whether scanned, whether diffraction, specimen's and pattern's pixel size (y, x)
IN_FILES = {
    "20241021_00405_info.txt": (True, True, (0.2, 0.1), (0.1, 0.1)),
    "3DSTEM_scan_info.txt": (False, True, (10, 10), (None, None)),
    "3DTEMDiffracting_scan_info.txt": (False, True, (10, 10), (None, None)),
    "3DTEM_scan_info.txt": (False, False, (10, 10), (None, None)),
    "Custom_info.txt": (True, True, (None, None), (None, None)),
    "info.txt": (True, True, (10, 10), (None, None)),
}


@pytest.mark.parametrize("name", IN_FILES)
def test_info_as_rosettasciio_reads_it(real_file: Callable[[str], Path], name: str) -> None:
    """Its keys, its values, and whether it calls the frames diffraction."""
    rsciio = pytest.importorskip("rsciio.mrc._api", reason="RosettaSciIO is not installed")
    path = real_file(f"direct_electron/{name}")
    csv = path.with_name("Custom_scan_coordinates.csv") if name.startswith("Custom") else None
    values, _, axes, shape, _ = rsciio.read_de_metadata_file(str(path), scan_pos_file=csv)
    info = parse(path.read_bytes(), name)
    assert dict(info.values) == values
    assert info.is_diffraction == (axes[-1]["name"] == "kx")
    if shape is not None and csv is None:
        scan, _ = scan_of(info, None, int(np.prod(shape)))
        assert scan is not None
        # its order is x, y
        assert tuple(size for _, size in scan.dims) == shape[::-1]


@pytest.mark.parametrize("name", IN_FILES)
def test_scan_frames_and_pixel_sizes(real_file: Callable[[str], Path], name: str) -> None:
    info = parse(real_file(f"direct_electron/{name}").read_bytes(), name)
    specimen = ("scan_y", "scan_x") if info.is_scan else ("y", "x")
    assert IN_FILES[name] == (
        info.is_scan,
        info.is_diffraction,
        sizes(info, specimen),
        sizes(info, ("ky", "kx")),
    )
    assert info.is_raster == (name != "Custom_info.txt")


def test_metadata_of_server_2_7_4(real_file: Callable[[str], Path]) -> None:
    name = "20241021_00405_info.txt"
    info = parse(real_file(f"direct_electron/{name}").read_bytes(), name)
    values = info.single_values()
    assert values["time"].value == np.datetime64("2024-10-21T19:36:50")
    expected = {
        "voltage": (300000, "V"),
        "magnification": (1000, ""),
        "camera_length": (0.1, "cm"),
        "exposure_time": (0.045712, "s"),
        "dwell_time": (1464.212499, "us"),
        "gain": (1 / 51, "e/DN"),
        "camera_model": ("DESim", ""),
        "scan_rotation": (0, "degree"),
    }
    assert {name: values[name] for name in expected} == expected


def test_metadata_leaves_out_what_is_unknown(real_file: Callable[[str], Path]) -> None:
    """Each of these is −1 in the file, or not in it."""
    name = "Custom_info.txt"
    found = parse(real_file(f"direct_electron/{name}").read_bytes(), name).single_values()
    unknown = {"magnification", "camera_length", "gain", "specimen_pixel_size_x"}
    assert not (unknown | {"diffraction_pixel_size_y"}) & set(found)
    assert found["voltage"] == (300000, "V")
    # server 2.7.2 has another key for the gain, the exposure rate is below zero, and the beam was
    # not scanned
    name = "3DTEM_scan_info.txt"
    found = parse(real_file(f"direct_electron/{name}").read_bytes(), name).single_values()
    assert found["gain"] == (1 / 300, "e/DN")
    assert not {"exposure_rate", "dwell_time"} & set(found)


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


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_info_by_hand(ending: str) -> None:
    info = parse(HAND.replace("\n", ending).encode(), "a_info.txt")
    assert info.problems == ()
    assert info.values["Server Software Version"] == "2.7.4 = new"
    assert info.values["Empty"] == info.values["Also Empty"] == ""
    assert info.lines["Exposure Time (seconds)"] == 4
    assert info.steps() == {
        "scan_y": (0.5, "nm"), "scan_x": (0.25, "nm"), "kx": (0.125, "1/nm"),
    }  # fmt: skip
    assert info.single_values()["exposure_time"].value == 0.5


def test_info_file_that_cannot_be_read() -> None:
    info = parse(b"Scan - Enable = Enable\nnonsense\n= 3\nFrames Per Second = 2\n", "a_info.txt")
    assert "a_info.txt, line 2: the line is 'nonsense' (and 1 more)" in only(info.problems)
    assert info.is_scan
    assert info.single_values() == {"frames_per_second": (2, "1/s")}
    info = parse(b"A = b\nExposure Time (seconds) = long\n", "a_info.txt")
    assert "a_info.txt, line 2: Exposure Time (seconds) is 'long'" in only(info.problems)
    assert info.single_values() == {}


MODE, LENGTH = (
    "Instrument Project TEMorSTEM Mode",
    "Instrument Project Camera Length (centimeters)",
)


@pytest.mark.parametrize(
    ("keys", "is_diffraction"),
    [
        ({}, False),
        ({MODE: "-1", "Scan - Enable": "Enable"}, True),
        ({"Scan - Enable": "Enable"}, True),
        ({MODE: "0", "Scan - Enable": "Enable"}, False),
        ({MODE: "0", LENGTH: "-1"}, False),
        ({MODE: "0", LENGTH: "0"}, True),
        ({MODE: "1", LENGTH: "-1"}, True),
        ({MODE: "?", LENGTH: ""}, False),
    ],
)
def test_diffraction(keys: Mapping[str, str], is_diffraction: bool) -> None:
    text = "".join(f"{key} = {value}\n" for key, value in keys.items())
    assert parse(text.encode(), "a_info.txt").is_diffraction is is_diffraction


def test_counted_movies_are_unsigned() -> None:
    key = "Autosave Counted Movie Pixel Format"
    for text, expected in (("uint8", ("uint8", f"{key} is uint8")), ("uint16", None)):
        found = read(text_file(f"{key} = {text}", "a_info.txt"), image_file("a_movie.mrc", 3))
        assert found.mode0 == expected
