"""AGAR, and FEI's older records, by hand."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from records_by_hand import (
    all_of,
    header,
    is_empty,
    kind,
    pixel_size,
    read,
    record_size,
    units_of,
)


@pytest.mark.parametrize(("exttyp", "byteorder"), [(b"AGAR", "<"), (b"", ">")])
def test_agar(exttyp: bytes, byteorder: str) -> None:
    raw = b"".join(
        struct.pack(byteorder + "2i3f", 10 + i, 5, -60 + 3 * i, 0, 0.5 * i) for i in range(4)
    )
    parsed = header(exttyp, raw, 4, byteorder=byteorder, nint=2, nreal=3)
    assert kind(parsed, raw).name == "AGAR"
    assert record_size(parsed, raw) == 20
    metadata = read(parsed, raw)
    found = all_of(metadata, 4)
    assert found.pop("tilt_angle").tolist() == [-60, -57, -54, -51]
    assert found.pop("int_0").tolist() == [10, 11, 12, 13]
    assert found.pop("float_2").tolist() == [0, 0.5, 1, 1.5]
    assert metadata.values == {"int_1": (5, "")}
    assert list(found) == ["int_1"]
    assert units_of(metadata)["tilt_angle"] == "degree"


def test_agar_of_one_float() -> None:
    raw = struct.pack("<3f", 1, 2, 3)
    parsed = header(b"", raw, 3, nint=0, nreal=1)
    assert kind(parsed, raw).name == "AGAR"
    assert all_of(read(parsed, raw), 3)["tilt_angle"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(("nint", "nreal"), [(0, 0), (-1, 3), (300, 1)])
def test_agar_whose_numbers_make_no_sense(nint: int, nreal: int) -> None:
    raw = b"\1" * 1000
    parsed = header(b"AGAR", raw, 2, nint=nint, nreal=nreal)
    metadata = read(parsed, raw)
    assert is_empty(metadata)
    assert f"NINT, NREAL (bytes 128–131) are {nint}, {nreal}" in metadata.problems[0].message("x")


@pytest.mark.parametrize("angle", [math.nan, 361])
def test_agar_that_is_something_else(angle: float) -> None:
    raw = struct.pack("<2f", 0, angle)
    metadata = read(header(b"", raw, 2, nint=0, nreal=1), raw)
    assert is_empty(metadata)
    assert "ds.mrc.extended_header" in metadata.problems[0].message("x")


# name → value and units
FEI_FLOATS = {
    "tilt_angle": (-60.0, "degree"), "tilt_beta": (0.5, "degree"), "stage_x": (1e-4, "m"),
    "stage_y": (-2e-4, "m"), "stage_z": (3e-5, "m"), "shift_x": (1e-7, "m"),
    "shift_y": (-1e-7, "m"), "defocus": (-3e-6, "m"), "exposure_time": (1.5, "s"),
    "mean_intensity": (812.0, ""), "tilt_axis_angle": (84.5, "degree"), "pixel_size": (4e-10, "m"),
    "magnification": (29000.0, ""), "voltage": (300000.0, "V"),
}  # fmt: skip
FEI_UNITS = {name: units for name, (_, units) in FEI_FLOATS.items()}


def fei(n: int, n_records: int = 1024, byteorder: str = "<", **floats: float) -> bytes:
    raw = b""
    for i in range(n):
        values = {name: value for name, (value, _) in FEI_FLOATS.items()} | floats
        values["tilt_angle"] += 2 * i
        raw += struct.pack(byteorder + "14f", *values.values()).ljust(128, b"\0")
    return raw.ljust(n_records * 128, b"\0")


LABEL = (b"Fei Company (C) Copyright 2003",)
# nint, nreal, label, records
LEGACY: dict[str, tuple[int, int, tuple[bytes, ...], int]] = {
    "1024 records": (0, 32, (), 1024),
    "8192 records": (0, 32, (), 8192),
    "labelled": (0, 32, LABEL, 1024),
    "nint bug": (128, 32, (), 1024),
    "nint bug, labelled": (128, 32, LABEL, 1024),
    "nint bug, labelled, other size": (128, 32, LABEL, 7),
    "by label and size": (0, 0, LABEL, 1024),
    "one record per section": (0, 32, (), 5),
}


@pytest.mark.parametrize(("exttyp", "byteorder"), [(b"AGAR", "<"), (b"", ">")])
@pytest.mark.parametrize("case", LEGACY)
def test_legacy_fei(case: str, exttyp: bytes, byteorder: str) -> None:
    nint, nreal, labels, n_records = LEGACY[case]
    raw = fei(5, n_records, byteorder)
    parsed = header(
        exttyp, raw, 5, byteorder=byteorder, nint=nint, nreal=nreal, labels=labels
    )  # fmt: skip
    assert kind(parsed, raw).name == "FEI"
    assert kind(parsed, raw).looks_like(parsed, raw)
    pixels = np.linspace(-1e3, 1e3, len(raw) // 4).astype(byteorder + "f4").tobytes()
    assert not kind(parsed, raw).looks_like(parsed, pixels)
    assert record_size(parsed, raw) == 128
    metadata = read(parsed, raw)
    assert metadata.problems == ()
    found = all_of(metadata, 5)
    assert found.keys() == FEI_FLOATS.keys()
    assert found["tilt_angle"].tolist() == [-60, -58, -56, -54, -52]
    for name, (value, _) in FEI_FLOATS.items():
        assert found[name][0] == np.float32(value)
    assert units_of(metadata) == FEI_UNITS
    x = float(np.float32(4e-10))
    assert pixel_size(parsed, raw) == (x, x, "m")
    # the caller may read the records of NZ sections alone
    short = kind(parsed, raw).read(parsed, raw[: 5 * 128])
    assert all_of(short, 5)["tilt_angle"].tolist() == found["tilt_angle"].tolist()


def test_legacy_fei_has_1024_records_for_more_sections() -> None:
    raw = fei(1, 1024)
    parsed = header(b"", raw, 1030, nint=0, nreal=32)
    metadata = read(parsed, raw)
    assert np.isnan(all_of(metadata, 1030)["tilt_angle"]).sum() == 6
    assert "6 of 1030 sections" in metadata.problems[0].message("x.mrc")


def test_legacy_fei_in_um_is_reported() -> None:
    raw = fei(2, stage_x=120.0, stage_y=-0.5, defocus=-3.0)
    metadata = read(header(b"", raw, 2, nint=0, nreal=32), raw)
    (problem,) = metadata.problems
    assert "values over 1 m for defocus, stage" in problem.message("x.mrc")
    units = units_of(metadata)
    assert {units[name] for name in ("stage_x", "stage_y", "stage_z", "defocus")} == {"um"}
    assert units["shift_x"] == "m"


def test_legacy_fei_leaves_out_values_that_were_not_written() -> None:
    raw = fei(2, pixel_size=0.0, magnification=0.0, voltage=0.0)
    parsed = header(b"", raw, 2, nint=0, nreal=32)
    found = all_of(read(parsed, raw), 2)
    assert FEI_FLOATS.keys() - found.keys() == {"pixel_size", "magnification", "voltage"}
    assert pixel_size(parsed, raw) is None


def test_legacy_fei_voltage_in_kv() -> None:
    raw = fei(2, voltage=300.0)
    metadata = read(header(b"", raw, 2, nint=0, nreal=32), raw)
    assert metadata.values["voltage"] == (300.0, "kV")
