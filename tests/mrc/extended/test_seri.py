"""SERI: records of SerialEM's shorts, by hand."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from records_by_hand import all_of, header, is_empty, kind, read, record_size, units_of

# SERI: flag → (bytes of one record, name → value)
SERI: dict[int, tuple[tuple[str, tuple[int, ...]], dict[str, float], int]] = {
    1: (("h", (-6025,)), {"tilt_angle": -60.25}, 2),
    2: (("HHh", (65535, 40000, -3)), {"piece_x": 65535, "piece_y": 40000, "piece_z": -3}, 6),
    4: (("hh", (-2530, 26)), {"stage_x": -101.2, "stage_y": 1.04}, 4),
    8: (("h", (260,)), {"magnification": 26000}, 2),
    16: (("h", (12345,)), {"intensity": 0.4938}, 2),
    # 2.5 = (2·256 + 128) · 2⁻⁸ is 640 = 2·256 + 128 with exponent −8
    32: (("hh", (2, -(8 * 256 + 128))), {"dose": 2.5}, 4),
    64: (("h", (-1,)), {}, 2),
    128: (("hh", (-1, -1)), {}, 4),
    256: (("h", (-1,)), {}, 2),
    512: (("hh", (-1, -1)), {}, 4),
    1024: (("h", (-1,)), {}, 2),
}
SERI_UNITS = {
    "tilt_angle": "degree", "piece_x": "pixel", "piece_y": "pixel", "piece_z": "",
    "stage_x": "um", "stage_y": "um", "magnification": "", "intensity": "",
    "dose": "e/angstrom^2",
}  # fmt: skip


@pytest.mark.parametrize(("exttyp", "byteorder"), [(b"SERI", "<"), (b"", ">")])
@pytest.mark.parametrize("flags", [*SERI, 1 + 64 + 32, 2047])
def test_seri(flags: int, exttyp: bytes, byteorder: str) -> None:
    record, expected, nint = b"", {}, 0
    for bit, ((codes, numbers), values, nbytes) in SERI.items():
        if flags & bit:
            record += struct.pack(byteorder + codes, *numbers)
            expected |= values
            nint += nbytes
    assert len(record) == nint
    raw = record * 3
    parsed = header(exttyp, raw, 3, byteorder=byteorder, nint=nint, nreal=flags)
    assert kind(parsed, raw).name == "SERI"
    assert record_size(parsed, raw) == nint
    metadata = read(parsed, raw)
    assert metadata.problems == ()
    found = all_of(metadata, 3)
    assert {name: values.tolist() for name, values in found.items()} == {
        name: [value] * 3 for name, value in expected.items()
    }
    assert units_of(metadata) == {name: SERI_UNITS[name] for name in expected}
    assert metadata.values.keys() <= {"magnification", "intensity"}


def test_seri_by_section_and_short() -> None:
    tilts = [-60.0, -57.01, -0.29, 0.0, 3.07]
    raw = b"".join(struct.pack("<hh", round(100 * tilt), 10) for tilt in tilts)
    parsed = header(b"SERI", raw, 5, nint=4, nreal=9)
    metadata = read(parsed, raw)
    assert metadata.columns[0].values.tolist() == tilts
    assert metadata.values == {"magnification": (1000.0, "")}
    found = all_of(read(parsed, raw, np.array([3, 1])), 2)
    assert found["tilt_angle"].tolist() == [0, -57.01]
    metadata = read(parsed, raw[:-3])
    np.testing.assert_array_equal(metadata.columns[0].values, [*tilts[:-1], np.nan])
    assert metadata.values == {"magnification": (1000.0, "")}
    assert "1 of 5 sections" in metadata.problems[0].message("x.mrc")


@pytest.mark.parametrize(
    ("shorts", "dose"),
    [
        ((0, 0), 0.0), ((1, 0), 256.0), ((1, 3), 259.0), ((-1, 3), -259.0), ((0, 5), 5.0),
        ((2, 256), 1024.0), ((2, -256), 256.0), ((-2, -(2 * 256 + 4)), -129.0),
        ((32767, 255), 8388607.0), ((-32768, 0), -8388608.0), ((1, -32768), 256 * 2.0**-128),
    ],
)  # fmt: skip
def test_serialems_float_of_two_shorts(shorts: tuple[int, int], dose: float) -> None:
    raw = struct.pack("<hh", *shorts)
    found = read(header(b"SERI", raw, 1, nint=4, nreal=32), raw)
    assert all_of(found, 1)["dose"].tolist() == [dose]


def test_seri_whose_flags_do_not_fit_is_agards() -> None:
    raw = struct.pack("<iff", 7, 1.5, 8) + struct.pack("<iff", 7, 3.0, 9)
    parsed = header(b"SERI", raw, 2, nint=1, nreal=2)
    assert kind(parsed, raw).name == "AGAR"
    assert all_of(read(parsed, raw), 2)["tilt_angle"].tolist() == [1.5, 3]


@pytest.mark.parametrize(("nint", "nreal"), [(0, 0), (-1, 1), (7, -1)])
def test_seri_whose_numbers_make_no_sense(nint: int, nreal: int) -> None:
    raw = b"\1" * 100
    parsed = header(b"SERI", raw, 2, nint=nint, nreal=nreal)
    assert record_size(parsed, raw) == 0
    metadata = read(parsed, raw)
    assert is_empty(metadata)
    assert f"NINT {nint} and NREAL {nreal}" in metadata.problems[0].message("x.mrc")
