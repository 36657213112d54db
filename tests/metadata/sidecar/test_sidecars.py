"""The table of sidecars: which one a file is, and that none raises, whatever a file contains."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sidecars_by_hand import image_file

from mrc_xarray.metadata.files import TextFile
from mrc_xarray.metadata.scan import read_positions
from mrc_xarray.metadata.sidecar import SIDECARS, Sidecar, sidecar_of

DIRECT_ELECTRON, MDOC, TILT_LIST = SIDECARS


@pytest.mark.parametrize(
    ("name", "sidecar"),
    [
        ("20241021_00405_info.txt", DIRECT_ELECTRON),
        ("info.txt", DIRECT_ELECTRON),
        ("TS_01.mrc.mdoc", MDOC),
        ("TS_01.MDOC", MDOC),
        ("TS_01.tlt", TILT_LIST),
        ("TS_01.rawtlt", TILT_LIST),
    ],
)
def test_sidecar_by_its_name(name: str, sidecar: Sidecar) -> None:
    assert sidecar_of(TextFile(name, b"[ZValue = 0] or anything")) is sidecar


@pytest.mark.parametrize(
    ("raw", "sidecar"),
    [
        (b"Voltage = 300\n[ZValue = 0]\n", MDOC),
        (b"[FrameSet = 0]\n", MDOC),
        (b"Scan - Enable = Enable\n", DIRECT_ELECTRON),
        (b"-60\n-57\n", TILT_LIST),
        (b"", TILT_LIST),
    ],
)
def test_sidecar_by_its_content(raw: bytes, sidecar: Sidecar) -> None:
    assert sidecar_of(TextFile("notes.xtlt", raw)) is sidecar


@pytest.mark.parametrize("sidecar", SIDECARS, ids=["direct_electron", "mdoc", "tilt_list"])
def test_each_sidecar_has_the_names_that_it_is_found_by(sidecar: Sidecar) -> None:
    found = [name for image in ("20240101_7_movie.mrc", "a.st") for name in sidecar.names(image)]
    assert found
    exact = [name for name in found if isinstance(name, str)]
    assert all(sidecar_of(TextFile(name, b"")) is sidecar for name in exact)


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


@settings(max_examples=50)
@given(GARBAGE, st.integers(0, 5))
@example(b"\xff\xfe[\x00Z\x00", 1)
@example(b"[ZValue = 0]\n" * 3, 0)
def test_garbage_is_reported_and_never_raised(raw: bytes, n_sections: int) -> None:
    image = image_file("a_movie.mrc", n_sections, scan_file=TextFile("scan", raw))
    for sidecar in SIDECARS:
        found = sidecar.read(TextFile("side", raw), image)
        assert all(re.search("side|scan", p.message("a_movie.mrc")) for p in found.problems)
        assert all(len(column.values) == n_sections for column in found.columns)
        assert len(found.problems) < 60
        scan = found.scan
        assert scan is None or scan.frame_index is None or scan.frame_index.max() < n_sections
    positions, problems = read_positions(TextFile("scan", raw))
    assert (positions is None) == bool(problems)
