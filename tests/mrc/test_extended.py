"""Extended headers: mrcfile is the oracle for FEI1 and FEI2, bytes by hand for the others."""

from __future__ import annotations

import datetime
import math
import re
import struct
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import by_hand
import mrcfile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mrcfile.dtypes import fei1_dtype_big_endian, fei2_dtype_big_endian

from mrc_xarray.metadata.columns import Column, Metadata, gather, with_gaps
from mrc_xarray.mrc import extended
from mrc_xarray.mrc.header import Header

Array = np.ndarray[Any, Any]

FEI1, FEI2 = fei1_dtype_big_endian.newbyteorder("<"), fei2_dtype_big_endian.newbyteorder("<")
# mrcfile's spelling of what has another name here; the other names follow from mrcfile's
NAMES = {
    "Timestamp": "time", "D-Number": "d_number", "HT": "voltage", "Alpha tilt": "tilt_angle",
    "Beta tilt": "tilt_beta", "X-Stage": "stage_x", "Y-Stage": "stage_y", "Z-Stage": "stage_z",
    "Acceleration voltage offset": "voltage_offset", "Integration time": "exposure_time",
    "Readout area left": "readout_left", "Readout area top": "readout_top",
    "Readout area right": "readout_right", "Readout area bottom": "readout_bottom",
    "Direct detector electron counting": "electron_counting",
    "Direct detector align frames": "frames_aligned", "STEM Detector name": "stem_detector",
    "Gain": "stem_gain", "Offset": "stem_offset", "Full scan FOV X": "scan_fov_x",
    "Full scan FOV Y": "scan_fov_y", "Scan size left": "scan_left", "Scan size top": "scan_top",
    "Scan size right": "scan_right", "Scan size bottom": "scan_bottom",
    "Input stack filename": "input_stack", "Alpha tilt min": "tilt_angle_min",
    "Alpha tilt max": "tilt_angle_max", "Diffraction pattern rotation": "diffraction_rotation",
    "Scan mode enumeration": "scan_mode", "Acquisition time stamp": "acquisition_time",
    "Detector commercial name": "detector_name", "Start tilt angle": "tilt_angle_start",
    "End tilt angle": "tilt_angle_end", "Beam center X pixel": "beam_center_x",
    "Beam center Y pixel": "beam_center_y", "CFEG flash timestamp": "cfeg_flash_time",
    "Phase plate position index": "phase_plate_index",
    "Objective aperture name": "objective_aperture",
}  # fmt: skip
NOT_DATA = {"Metadata size", "Metadata version"} | {f"Bitmask {n}" for n in (1, 2, 3, 4)}
EPOCH = datetime.datetime(1899, 12, 30)


def our_names(field: str) -> list[str]:
    """Return what a field of mrcfile's is called here."""
    if field == "Unused range":
        return [f"unused_{n}" for n in range(6)]
    name = NAMES.get(field, field.lower().replace(" ", "_"))
    return [re.sub("^(camera|stem)_param_", r"\1_", name)]


def bits(dtype: np.dtype[Any]) -> list[tuple[str, str, int, int]]:
    """Return (mrcfile's field, our name, number of the mask, bit), by the order of the fields."""
    found: list[tuple[str, str, int, int]] = []
    for field in dtype.names or ():
        if field.startswith("Bitmask"):
            number, before = int(field[-1]), len(found)
        elif field not in NOT_DATA:
            found += [
                (field, name, number, len(found) - before + n)
                for n, name in enumerate(our_names(field))
            ]
    return found


def header(exttyp: bytes, raw: bytes, n: int, *, byteorder: str = "<", **fields: Any) -> Header:
    fields = {"exttyp": exttyp, "nsymbt": len(raw)} | fields
    made = by_hand.header((n, 3, 4), 6, byteorder=byteorder, **fields)
    return Header.parse(made, byteorder)  # type: ignore[arg-type]


def blocks(dtype: np.dtype[Any], n: int, **masks: int) -> Array:
    """Return blocks in which every field is valid, and every value another."""
    table = np.zeros(n, dtype)
    table["Metadata size"] = dtype.itemsize
    table["Metadata version"] = 0 if dtype.itemsize == 768 else 2
    for place, field in enumerate(dtype.names or ()):
        kind = dtype[field].kind
        numbers = 1 + place + 200 * np.arange(n)
        if field.startswith("Bitmask"):
            table[field] = 0xFFFFFFFF
        elif field == "Unused range":
            table[field] = [
                struct.pack(dtype["HT"].byteorder + "6d", *(k + m / 8 for m in range(6)))
                for k in numbers
            ]
        elif field in ("Acquisition time stamp", "CFEG flash timestamp"):
            table[field] = 1_600_000_000_000_000 + numbers
        elif kind == "S":
            table[field] = [f"{field[:6]} {k}".encode() for k in numbers]
        elif kind == "b":
            table[field] = (place + np.arange(n)) % 2
        elif field.startswith("Pixel size"):
            table[field] = numbers * 1e-12
        elif field not in NOT_DATA:
            table[field] = numbers + (0.25 if kind == "f" else 0)
    for mask, value in masks.items():
        table[f"Bitmask {mask[-1]}"] = value
    return table


def all_of(metadata: Metadata, n: int) -> dict[str, Array]:
    """Return all fields as columns."""
    columns = {column.name: column.values for column in metadata.columns}
    assert all(values.shape == (n,) for values in columns.values())
    assert not columns.keys() & metadata.values.keys()
    return columns | {name: np.array([v] * n) for name, (v, _) in metadata.values.items()}


def units_of(metadata: Metadata) -> dict[str, str]:
    units = {column.name: column.units for column in metadata.columns}
    return units | {name: value.units for name, value in metadata.values.items()}


def as_mrcfile_has_it(field: str, name: str, oracle: Array) -> list[Any]:
    if field == "Unused range":
        order = ">" if oracle.dtype["HT"].byteorder == ">" else "<"
        padded = [value.ljust(48, b"\0") for value in oracle[field].tolist()]
        return [struct.unpack_from(order + "d", value, 8 * int(name[-1]))[0] for value in padded]
    values = oracle[field].tolist()
    if field == "Timestamp":
        return [EPOCH + datetime.timedelta(days=value) for value in values]
    if field in ("Acquisition time stamp", "CFEG flash timestamp"):
        epoch = datetime.datetime(1970, 1, 1)
        return [epoch + datetime.timedelta(microseconds=value) for value in values]
    return [value.decode("latin-1") if isinstance(value, bytes) else value for value in values]


def check_with_mrcfile(path: Path, exttyp: str) -> Metadata:
    """Compare all valid fields, and tell that no other is there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with mrcfile.open(path, permissive=True) as mrc:
            oracle = mrc.indexed_extended_header.copy()
            raw = mrc.extended_header.tobytes()
            order = "<" if mrc.header.nx.dtype.str[0] in "<|" else ">"
    head = path.read_bytes()[:1024]
    parsed = Header.parse(head, order)  # type: ignore[arg-type]
    assert extended.kind(parsed, len(raw)) == exttyp
    assert extended.record_size(parsed, raw) == oracle.dtype.itemsize
    metadata = extended.read(parsed, raw)
    assert metadata.problems == ()
    ours = all_of(metadata, len(oracle))
    valid = set()
    for field, name, number, bit in bits(oracle.dtype):
        masks = oracle[f"Bitmask {number}"]
        if not (masks >> bit & 1).any():
            continue
        assert (masks >> bit & 1).all()
        valid.add(name)
        assert ours[name].tolist() == as_mrcfile_has_it(field, name, oracle), name
    assert ours.keys() == valid
    return metadata


def test_real_file_as_mrcfile_reads_it(real_file: Callable[[str], Path]) -> None:
    metadata = check_with_mrcfile(real_file("fei-extended.mrc"), "FEI1")
    assert metadata.values["voltage"] == (300000.0, "V")
    assert metadata.values["application"] == ("Fei EPU", "")
    assert metadata.values["eftem_on"] == (True, "")
    assert metadata.values["magnification"] == (165000.0, "")
    columns = {column.name: column for column in metadata.columns}
    assert columns["tilt_angle"].units == columns["tilt_beta"].units == "degree"
    assert columns["dose"].units == "e/m^2"
    assert columns["defocus"].units == columns["stage_x"].units == "m"
    assert columns["time"].values.astype("M8[D]") == np.datetime64("2017-10-10")


def test_pixel_size_of_the_real_file(real_file: Callable[[str], Path]) -> None:
    raw = real_file("fei-extended.mrc").read_bytes()[: 1024 + 786432]
    found = extended.pixel_size(Header.parse(raw, "<"), raw[1024:])
    assert found is not None
    x, y, units = found
    assert (x, units) == (y, "m")
    assert x * 1e10 == pytest.approx(3167.507 / 3710, rel=1e-6)


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize(
    ("exttyp", "dtype"),
    [
        ("FEI1", FEI1), ("FEI2", FEI2),
        ("FEI1", fei1_dtype_big_endian), ("FEI2", fei2_dtype_big_endian),
    ],
)  # fmt: skip
def test_every_field_as_mrcfile_reads_it(
    tmp_path: Path, exttyp: str, dtype: np.dtype[Any], n: int
) -> None:
    order = ">" if dtype["HT"].byteorder == ">" else "<"
    raw = blocks(dtype, n).tobytes()
    pixels = np.zeros((n, 3, 4), "u2")
    file = by_hand.mrc(pixels, byteorder=order, extended=raw, exttyp=exttyp.encode())
    (tmp_path / "file.mrc").write_bytes(file)
    metadata = check_with_mrcfile(tmp_path / "file.mrc", exttyp)
    n_fields = len(bits(dtype))
    assert n_fields == 98 + (15 if exttyp == "FEI2" else 0)
    assert len(metadata.columns) + len(metadata.values) == n_fields


def test_blocks_may_be_little_endian_in_a_big_endian_file() -> None:
    raw = blocks(FEI2, 3).tobytes()
    little = extended.read(header(b"FEI2", raw, 3), raw)
    big = extended.read(header(b"FEI2", raw, 3, byteorder=">"), raw)
    assert all_of(little, 3).keys() == all_of(big, 3).keys()
    for name, values in all_of(little, 3).items():
        np.testing.assert_array_equal(values, all_of(big, 3)[name])


@pytest.mark.parametrize(("field", "name", "number", "bit"), bits(FEI2))
def test_each_bit_alone(field: str, name: str, number: int, bit: int) -> None:
    masks = {f"mask_{n}": 0 for n in (1, 2, 3, 4)}
    table = blocks(FEI2, 3, **masks | {f"mask_{number}": 1 << bit})
    raw = table.tobytes()
    assert list(all_of(extended.read(header(b"FEI2", raw, 3), raw), 3)) == [name]

    table = blocks(FEI2, 3)
    table[f"Bitmask {number}"] -= 1 << bit
    raw = table.tobytes()
    found = all_of(extended.read(header(b"FEI2", raw, 3), raw), 3)
    assert len(found) == 112
    assert name not in found

    # valid in the second block alone
    table[f"Bitmask {number}"][1] += 1 << bit
    raw = table.tobytes()
    found = all_of(extended.read(header(b"FEI2", raw, 3), raw), 3)
    values = found[name]
    (expected,) = as_mrcfile_has_it(field, name, table[1:2])
    assert values[1] == expected or values.tolist()[1] == expected
    if values.dtype.kind == "U":
        assert values[::2].tolist() == ["", ""]
    elif values.dtype.kind == "M":
        assert np.isnat(values[::2]).all()
    else:
        assert values.dtype == np.float64
        assert np.isnan(values[::2]).all()


def test_dtypes_are_native() -> None:
    raw = blocks(fei2_dtype_big_endian, 3).tobytes()
    for column in extended.read(header(b"FEI2", raw, 3), raw).columns:
        assert (
            column.values.dtype in ("f8", "i8", "?", "M8[us]") or column.values.dtype.kind == "U"
        )
        assert column.values.dtype.isnative
        assert column.values.flags.owndata


def test_no_bit_no_field() -> None:
    raw = blocks(FEI2, 3, mask_1=0, mask_2=0, mask_3=0, mask_4=0).tobytes()
    metadata = extended.read(header(b"FEI2", raw, 3), raw)
    assert (metadata.columns, metadata.values, metadata.problems) == ((), {}, ())


def test_fields_that_vary_and_fields_that_do_not() -> None:
    table = blocks(FEI2, 3)
    for field in table.dtype.names or ():
        table[field] = table[field][0]
    table["Magnification"] = [1000, 1000, 2000]
    raw = table.tobytes()
    metadata = extended.read(header(b"FEI2", raw, 3), raw)
    assert {column.name for column in metadata.columns} == {
        "time", "dose", "tilt_angle", "tilt_beta", "stage_x", "stage_y", "stage_z", "defocus",
        "exposure_time", "magnification", "tilt_angle_min", "tilt_angle_max",
        "tilt_angle_start", "tilt_angle_end", "acquisition_time", "cfeg_flash_time",
    }  # fmt: skip
    voltage = metadata.values["voltage"]
    assert voltage == (table["HT"][0], "V")
    kinds = {type(value) for value, _ in metadata.values.values()}
    assert kinds == {str, bool, int, float}


@pytest.mark.parametrize("size", [768, 888, 1024])
def test_the_stride_is_the_blocks_own_size(size: int) -> None:
    """EPU's files are padded, and what a later version may add stands behind the fields."""
    n = 13
    table = blocks(FEI2 if size >= 888 else FEI1, n)
    table["Metadata size"] = size
    raw = b"".join(block.tobytes().ljust(size, b"\xee") for block in table).ljust(30720, b"\0")
    parsed = header(b"FEI2" if size >= 888 else b"FEI1", raw, n)
    assert extended.record_size(parsed, raw[:4]) == size
    metadata = extended.read(parsed, raw)
    assert metadata.problems == ()
    np.testing.assert_array_equal(all_of(metadata, n)["tilt_angle"], table["Alpha tilt"])
    assert ("scan_rotation" in all_of(metadata, n)) == (size >= 888)


def test_fields_of_fei2_in_a_block_of_fei1_are_not_there() -> None:
    raw = blocks(FEI1, 2).tobytes()
    found = all_of(extended.read(header(b"FEI2", raw, 2), raw), 2)
    assert len(found) == 98


def test_sections() -> None:
    table = blocks(FEI2, 6)
    raw = table.tobytes()
    parsed = header(b"FEI2", raw, 6)
    for sections in ([4, 1], [3], np.arange(2, 5), [1, 1], []):
        metadata = extended.read(parsed, raw, np.asarray(sections, int))
        assert metadata.problems == ()
        if len(sections):
            tilts = all_of(metadata, len(sections))["tilt_angle"]
            np.testing.assert_array_equal(tilts, table["Alpha tilt"][np.asarray(sections)])


def test_records_missing_at_the_end() -> None:
    table = blocks(FEI2, 3)
    table["HT"] = 300000
    raw = table.tobytes() + bytes(100)
    parsed = header(b"FEI2", raw, 5)
    metadata = extended.read(parsed, raw)
    (problem,) = metadata.problems
    assert "extended header (bytes 1024–3787)" in problem.message("x.mrc")
    assert "without a record for 2 of 5 sections" in problem.message("x.mrc")
    found = all_of(metadata, 5)
    np.testing.assert_array_equal(found["tilt_angle"], [*table["Alpha tilt"], np.nan, np.nan])
    assert found["camera_name"].tolist() == [t.decode() for t in table["Camera name"]] + ["", ""]
    assert np.isnat(found["time"]).tolist() == [False] * 3 + [True] * 2
    assert found["spot_index"].dtype == np.float64
    assert metadata.values["voltage"] == (300000.0, "V")
    # of the sections that have one, nothing is wrong
    assert extended.read(parsed, raw, np.arange(3)).problems == ()
    metadata = extended.read(parsed, raw, np.array([4, 2, -1, 7]))
    assert len(metadata.problems) == 1
    np.testing.assert_array_equal(
        all_of(metadata, 4)["tilt_angle"], [np.nan, table["Alpha tilt"][2], np.nan, np.nan]
    )
    metadata = extended.read(parsed, raw, np.array([4]))
    assert (metadata.columns, metadata.values) == ((), {})
    assert len(metadata.problems) == 1


def test_blocks_that_were_never_written_are_missing() -> None:
    table = blocks(FEI1, 3)
    raw = table[:1].tobytes() + bytes(768) + table[2:].tobytes()
    metadata = extended.read(header(b"FEI1", raw, 3), raw)
    tilts = all_of(metadata, 3)["tilt_angle"]
    assert np.isnan(tilts).tolist() == [False, True, False]
    assert "1 of 3 sections" in metadata.problems[0].message("x.mrc")


@pytest.mark.parametrize("exttyp", [b"FEI1", b"FEI2", b"SERI", b"AGAR", b"CCP4"])
def test_what_was_reserved_and_never_written_is_normal(exttyp: bytes) -> None:
    raw = bytes(1760)
    metadata = extended.read(header(exttyp, raw, 2), raw)
    assert (metadata.columns, metadata.values, metadata.problems) == ((), {}, ())


@pytest.mark.parametrize("size", [-1, 0, 1, 767, 16385, 2**31 - 1])
def test_a_size_that_makes_no_sense(size: int) -> None:
    raw = struct.pack("<i", size) + b"\1" * 2000
    parsed = header(b"FEI1", raw, 2)
    if int.from_bytes(raw[:4], "big") in range(768, 16385):
        pytest.skip("a size in the other order")
    assert extended.record_size(parsed, raw) == 0
    metadata = extended.read(parsed, raw)
    assert (metadata.columns, metadata.values) == ((), {})
    assert f"block of {size} bytes" in metadata.problems[0].message("x.mrc")


@pytest.mark.parametrize("days", [0.0, -1.0, 1e300, -1e300, math.nan, math.inf, 100_001])
def test_a_time_that_is_none(days: float) -> None:
    table = blocks(FEI2, 2)
    table["Timestamp"][1] = days
    table["Acquisition time stamp"][1] = -(2**63)
    raw = table.tobytes()
    found = all_of(extended.read(header(b"FEI2", raw, 2), raw), 2)
    assert np.isnat(found["time"]).tolist() == [False, True]
    assert np.isnat(found["acquisition_time"]).tolist() == [False, True]


def test_the_time_of_veloxs_sample() -> None:
    table = blocks(FEI2, 1)
    table["Timestamp"] = 44900.509
    raw = table.tobytes()
    (time,) = all_of(extended.read(header(b"FEI2", raw, 1), raw), 1)["time"]
    assert str(time).startswith("2022-12-05T12:12:57.6")


def test_text_ends_at_its_first_nul() -> None:
    table = blocks(FEI2, 2)
    table["Camera name"] = [b"BM-Ceta\0\xffrubbish", b"BM-Ceta\0old"]
    table["Element"] = [b"\xc5", b"0123456789abcdef"]
    raw = table.tobytes()
    metadata = extended.read(header(b"FEI2", raw, 2), raw)
    assert metadata.values["camera_name"] == ("BM-Ceta", "")
    assert all_of(metadata, 2)["element"].tolist() == ["Å", "0123456789abcdef"]


def test_a_bool_that_is_neither_0_nor_1() -> None:
    raw = bytearray(blocks(FEI1, 2).tobytes())
    raw[288], raw[768 + 288] = 0, 2
    found = all_of(extended.read(header(b"FEI1", bytes(raw), 2), bytes(raw)), 2)
    assert found["eftem_on"].tolist() == [False, True]


# (instrument mode, projection mode or None, x, y) → what pixel_size returns
PIXELS: dict[str, tuple[int | None, float, float, tuple[float, float, str] | None]] = {
    "EPU, image": (2, 8.5e-11, 8.6e-11, (8.5e-11, 8.6e-11, "m")),
    "Velox, STEM image": (1, 5.679e-9, 5.679e-9, (5.679e-9, 5.679e-9, "m")),
    "diffraction": (1, 2.5e7, 2.6e7, (2.5e7, 2.6e7, "1/m")),
    "diffraction, mode not said": (None, 2.5e7, 2.5e7, (2.5e7, 2.5e7, "1/m")),
    "image, mode not said": (None, 8.5e-11, 8.5e-11, (8.5e-11, 8.5e-11, "m")),
    "image with pixels of km": (2, 2.5e7, 2.5e7, None),
    "zero": (2, 0.0, 0.0, None),
    "negative": (2, -1e-10, -1e-10, None),
    "not finite": (2, math.nan, math.inf, None),
    "two units": (1, 1e-10, 1e7, None),
}


@pytest.mark.parametrize("case", PIXELS)
def test_pixel_size(case: str) -> None:
    mode, x, y, expected = PIXELS[case]
    table = blocks(FEI2, 2)
    table["Projection mode"] = mode or 2
    if mode is None:
        table["Bitmask 1"] -= 1 << 26
    table["Pixel size X"], table["Pixel size Y"] = x, y
    raw = table.tobytes()
    parsed = header(b"FEI2", raw, 2)
    assert extended.pixel_size(parsed, raw) == expected
    assert extended.pixel_size(parsed, raw[:888]) == expected
    if expected:
        assert units_of(extended.read(parsed, raw))["pixel_size_x"] == expected[2]


@pytest.mark.parametrize("bit", [14, 15])
def test_pixel_size_that_is_not_valid(bit: int) -> None:
    table = blocks(FEI2, 2)
    table["Bitmask 1"] -= 1 << bit
    raw = table.tobytes()
    assert extended.pixel_size(header(b"FEI2", raw, 2), raw) is None


def test_a_million_blocks() -> None:
    """No Python loop over sections: 200,000 decode in what a loop needs for some thousand."""
    n = 200_000
    table = np.zeros(n, FEI1)
    table["Metadata size"] = 768
    for number in (1, 2, 3, 4):
        table[f"Bitmask {number}"] = 0xFFFFFFFF
    table["Alpha tilt"] = np.arange(n)
    raw = table.tobytes()
    parsed = header(b"FEI1", raw, n)
    del table
    tracemalloc.start()
    try:
        metadata = extended.read(parsed, raw)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # columns of 8 bytes a section, and little beside them
    assert held < 20 * 8 * n
    assert peak < len(raw)
    assert len(metadata.values) > 80


# SERI: flag → (bytes of one record, name → value); see FORMAT
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


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("exttyp", [b"SERI", b""])
@pytest.mark.parametrize("flags", [*SERI, 3, 5, 45, 63, 1 + 64 + 32, 2047])
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
    assert extended.kind(parsed, len(raw)) == "SERI"
    assert extended.record_size(parsed, raw) == nint
    metadata = extended.read(parsed, raw)
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
    metadata = extended.read(parsed, raw)
    assert metadata.columns[0].values.tolist() == tilts
    assert metadata.values == {"magnification": (1000.0, "")}
    found = all_of(extended.read(parsed, raw, np.array([3, 1])), 2)
    assert found["tilt_angle"].tolist() == [0, -57.01]
    metadata = extended.read(parsed, raw[:-3])
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
    found = extended.read(header(b"SERI", raw, 1, nint=4, nreal=32), raw)
    assert all_of(found, 1)["dose"].tolist() == [dose]


def test_seri_whose_flags_do_not_fit_is_agards() -> None:
    raw = struct.pack("<iff", 7, 1.5, 8) + struct.pack("<iff", 7, 3.0, 9)
    parsed = header(b"SERI", raw, 2, nint=1, nreal=2)
    assert extended.kind(parsed, len(raw)) == "AGAR"
    assert all_of(extended.read(parsed, raw), 2)["tilt_angle"].tolist() == [1.5, 3]


@pytest.mark.parametrize(("nint", "nreal"), [(0, 0), (-1, 1), (7, -1), (2, -32768)])
def test_seri_whose_numbers_make_no_sense(nint: int, nreal: int) -> None:
    raw = b"\1" * 100
    parsed = header(b"SERI", raw, 2, nint=nint, nreal=nreal)
    assert extended.record_size(parsed, raw) == 0
    metadata = extended.read(parsed, raw)
    assert (metadata.columns, metadata.values) == ((), {})
    assert f"NINT {nint} and NREAL {nreal}" in metadata.problems[0].message("x.mrc")


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("exttyp", [b"AGAR", b""])
def test_agar(exttyp: bytes, byteorder: str) -> None:
    raw = b"".join(
        struct.pack(byteorder + "2i3f", 10 + i, 5, -60 + 3 * i, 0, 0.5 * i) for i in range(4)
    )
    parsed = header(exttyp, raw, 4, byteorder=byteorder, nint=2, nreal=3)
    assert extended.kind(parsed, len(raw)) == "AGAR"
    assert extended.record_size(parsed, raw) == 20
    metadata = extended.read(parsed, raw)
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
    assert extended.kind(parsed, 12) == "AGAR"
    assert all_of(extended.read(parsed, raw), 3)["tilt_angle"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(("nint", "nreal"), [(0, 0), (-1, 3), (300, 1), (32767, 32767)])
def test_agar_whose_numbers_make_no_sense(nint: int, nreal: int) -> None:
    raw = b"\1" * 1000
    parsed = header(b"AGAR", raw, 2, nint=nint, nreal=nreal)
    metadata = extended.read(parsed, raw)
    assert (metadata.columns, metadata.values) == ((), {})
    assert f"NINT, NREAL (bytes 128–131) are {nint}, {nreal}" in metadata.problems[0].message("x")


@pytest.mark.parametrize("angle", [math.nan, math.inf, 361, -1e30])
def test_agar_that_is_something_else(angle: float) -> None:
    raw = struct.pack("<2f", 0, angle)
    metadata = extended.read(header(b"", raw, 2, nint=0, nreal=1), raw)
    assert (metadata.columns, metadata.values) == ((), {})
    assert "ds.mrc.extended_header" in metadata.problems[0].message("x")


FEI_FLOATS = {
    "tilt_angle": -60.0, "tilt_beta": 0.5, "stage_x": 1e-4, "stage_y": -2e-4, "stage_z": 3e-5,
    "shift_x": 1e-7, "shift_y": -1e-7, "defocus": -3e-6, "exposure_time": 1.5,
    "mean_intensity": 812.0, "tilt_axis_angle": 84.5, "pixel_size": 4e-10,
    "magnification": 29000.0, "voltage": 300000.0,
}  # fmt: skip
FEI_UNITS = {
    "tilt_angle": "degree", "tilt_beta": "degree", "stage_x": "m", "stage_y": "m", "stage_z": "m",
    "shift_x": "m", "shift_y": "m", "defocus": "m", "exposure_time": "s", "mean_intensity": "",
    "tilt_axis_angle": "degree", "pixel_size": "m", "magnification": "", "voltage": "V",
}  # fmt: skip


def fei(n: int, n_records: int = 1024, byteorder: str = "<", **floats: float) -> bytes:
    raw = b""
    for i in range(n):
        values = FEI_FLOATS | floats
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
}


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("exttyp", [b"", b"AGAR"])
@pytest.mark.parametrize("case", LEGACY)
def test_legacy_fei(case: str, exttyp: bytes, byteorder: str) -> None:
    nint, nreal, labels, n_records = LEGACY[case]
    raw = fei(5, n_records, byteorder)
    parsed = header(
        exttyp, raw, 5, byteorder=byteorder, nint=nint, nreal=nreal, labels=labels
    )  # fmt: skip
    assert extended.kind(parsed, len(raw)) == "FEI"
    assert extended.record_size(parsed, raw) == 128
    metadata = extended.read(parsed, raw)
    assert metadata.problems == ()
    found = all_of(metadata, 5)
    assert found.keys() == FEI_FLOATS.keys()
    assert found["tilt_angle"].tolist() == [-60, -58, -56, -54, -52]
    for name, value in FEI_FLOATS.items():
        assert found[name][0] == np.float32(value)
    assert units_of(metadata) == FEI_UNITS
    x = float(np.float32(4e-10))
    assert extended.pixel_size(parsed, raw) == (x, x, "m")
    # the caller may read the records of NZ sections alone
    short = extended.read(parsed, raw[: 5 * 128], extended_size=len(raw))
    assert all_of(short, 5)["tilt_angle"].tolist() == found["tilt_angle"].tolist()
    short = extended.read(parsed, raw[: 5 * 128])
    assert all_of(short, 5)["tilt_angle"].tolist() == found["tilt_angle"].tolist()


def test_legacy_fei_has_1024_records_for_more_sections() -> None:
    raw = fei(1, 1024)
    parsed = header(b"", raw, 1030, nint=0, nreal=32)
    metadata = extended.read(parsed, raw)
    assert np.isnan(all_of(metadata, 1030)["tilt_angle"]).sum() == 6
    assert "6 of 1030 sections" in metadata.problems[0].message("x.mrc")


def test_legacy_fei_in_um_is_told() -> None:
    raw = fei(2, stage_x=120.0, stage_y=-0.5, defocus=-3.0)
    metadata = extended.read(header(b"", raw, 2, nint=0, nreal=32), raw)
    (problem,) = metadata.problems
    assert "values over 1 m for defocus, stage" in problem.message("x.mrc")
    units = units_of(metadata)
    assert {units[name] for name in ("stage_x", "stage_y", "stage_z", "defocus")} == {"um"}
    assert units["shift_x"] == "m"


def test_legacy_fei_leaves_out_what_nobody_wrote() -> None:
    raw = fei(2, pixel_size=0.0, magnification=0.0, voltage=0.0)
    parsed = header(b"", raw, 2, nint=0, nreal=32)
    found = all_of(extended.read(parsed, raw), 2)
    assert FEI_FLOATS.keys() - found.keys() == {"pixel_size", "magnification", "voltage"}
    assert extended.pixel_size(parsed, raw) is None


def test_legacy_fei_voltage_in_kv() -> None:
    raw = fei(2, voltage=300.0)
    metadata = extended.read(header(b"", raw, 2, nint=0, nreal=32), raw)
    assert metadata.values["voltage"] == (300.0, "kV")


SYMMETRY = ("X,Y,Z", "-X,Y+1/2,-Z")


@pytest.mark.parametrize("exttyp", [b"CCP4", b""])
@pytest.mark.parametrize("fill", [b" ", b"\0"])
def test_ccp4(exttyp: bytes, fill: bytes) -> None:
    raw = b"".join(line.encode().ljust(80, fill) for line in SYMMETRY) + fill * 80
    parsed = header(exttyp, raw, 3)
    assert extended.kind(parsed, len(raw)) == "CCP4"
    assert extended.record_size(parsed, raw) == 0
    metadata = extended.read(parsed, raw)
    assert metadata.columns == ()
    assert metadata.values == {"symmetry": ("X,Y,Z\n-X,Y+1/2,-Z", "")}
    assert metadata.problems == ()


@pytest.mark.parametrize("raw", [b" " * 160, bytes(160)])
def test_ccp4_that_is_blank(raw: bytes) -> None:
    metadata = extended.read(header(b"CCP4", raw, 3), raw)
    assert (metadata.columns, metadata.values, metadata.problems) == ((), {}, ())


def test_ccp4_that_is_something_else() -> None:
    raw = bytes(range(160))
    metadata = extended.read(header(b"", raw, 3), raw)
    assert (metadata.columns, metadata.values) == ((), {})
    assert "not text" in metadata.problems[0].message("x")


@pytest.mark.parametrize("nint", [0, 4])
def test_ccp4s_skew_matrix_is_no_record(nint: int) -> None:
    """Its floats are where EXTTYP, NINT and NREAL are."""
    raw = b"X,Y,Z".ljust(80)
    parsed = header(b"\0\0\x80?", raw, 3, lskflg=1, nint=nint, nreal=1)
    assert extended.kind(parsed, 80) == "CCP4"
    assert extended.read(parsed, raw).values == {"symmetry": ("X,Y,Z", "")}


@pytest.mark.parametrize("exttyp", [b"MRCO", b"HDF5", b"what", b"\xff\xfe\x80\0", b""])
def test_unknown(exttyp: bytes) -> None:
    raw = b"\1" * 81
    parsed = header(exttyp, raw, 3)
    assert extended.kind(parsed, 81) == exttyp.rstrip(b"\0").decode("latin-1")
    assert extended.record_size(parsed, raw) == 0
    metadata = extended.read(parsed, raw)
    assert (metadata.columns, metadata.values) == ((), {})
    (problem,) = metadata.problems
    assert "EXTTYP (bytes 104–107)" in problem.message("x.mrc")
    assert "ds.mrc.extended_header" in problem.message("x.mrc")


@pytest.mark.parametrize("exttyp", [b"json", b"JSON"])
def test_json_is_read_elsewhere(exttyp: bytes) -> None:
    parsed = header(exttyp, b"{}", 3)
    assert extended.kind(parsed, 2) == "json"
    metadata = extended.read(parsed, b"{}")
    assert (metadata.columns, metadata.values, metadata.problems) == ((), {}, ())


@pytest.mark.parametrize("exttyp", [b"FEI1", b"CCP4", b"MRCO", b""])
def test_no_extended_header(exttyp: bytes) -> None:
    parsed = header(exttyp, b"", 3, nsymbt=800)
    assert extended.kind(parsed, 0) is None
    assert extended.record_size(parsed, b"") == 0
    assert extended.pixel_size(parsed, b"") is None
    metadata = extended.read(parsed, b"")
    assert (metadata.columns, metadata.values, metadata.problems) == ((), {}, ())


def test_has_records() -> None:
    for exttyp, expected in ((b"FEI1", True), (b"AGAR", True), (b"CCP4", False), (b"MRCO", False)):
        assert extended.has_records(header(exttyp, b"", 3), 100) is expected
        assert not extended.has_records(header(exttyp, b"", 3), 0)


def check_garbage(parsed: Header, raw: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metadata = extended.read(parsed, raw)
        chosen = extended.read(parsed, raw, np.array([0, 2, 10**6]))
        assert 0 <= extended.record_size(parsed, raw) <= 4 * 65534
        extended.pixel_size(parsed, raw)
    for found, n in ((metadata, max(parsed.nz, 0)), (chosen, 3)):
        for column in found.columns:
            assert column.values.shape == (n,)
        for problem in found.problems:
            assert "x.mrc: " in problem.message("x.mrc")


@settings(max_examples=300, deadline=None)
@given(
    raw=st.binary(max_size=3000),
    start=st.sampled_from([b"", struct.pack("<2i", 768, 0), struct.pack(">2i", 888, 2)]),
    exttyp=st.sampled_from([b"FEI1", b"FEI2", b"SERI", b"AGAR", b"CCP4", b"MRCO", b"json", b""]),
    byteorder=st.sampled_from("<>"),
    nz=st.integers(-3, 50) | st.sampled_from([2**31 - 1, 2**22, -(2**31)]),
    nint=st.integers(-32768, 32767) | st.integers(-1, 20) | st.just(128),
    nreal=st.integers(-32768, 32767) | st.integers(-1, 40) | st.just(32),
    labels=st.sampled_from([(), LABEL]),
)
def test_garbage_never_raises(
    raw: bytes,
    start: bytes,
    exttyp: bytes,
    byteorder: str,
    nz: int,
    nint: int,
    nreal: int,
    labels: tuple[bytes, ...],
) -> None:
    raw = start + raw
    parsed = header(
        exttyp, raw, nz, byteorder=byteorder, nint=nint, nreal=nreal, labels=labels
    )  # fmt: skip
    check_garbage(parsed, raw)


@settings(max_examples=100, deadline=None)
@given(main=st.binary(min_size=1024, max_size=1024), raw=st.binary(max_size=300))
def test_garbage_in_the_main_header_too(main: bytes, raw: bytes) -> None:
    check_garbage(Header.parse(main, "<"), raw)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), order=st.sampled_from("<>"))
def test_blocks_of_garbage(seed: int, order: str) -> None:
    """Every bit pattern in every field, in blocks that are right else."""
    random = np.random.default_rng(seed)
    table = np.frombuffer(random.bytes(4 * 888), FEI2.newbyteorder(order)).copy()
    table["Metadata size"] = 888
    raw = table.tobytes()
    check_garbage(header(b"FEI2", raw, 4), raw)


@pytest.mark.parametrize("nz", [2**31 - 1, 2**24])
def test_more_sections_than_any_file_has(nz: int) -> None:
    raw = blocks(FEI2, 3).tobytes()
    tracemalloc.start()
    try:
        metadata = extended.read(header(b"FEI2", raw, nz), raw)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1e6
    assert (metadata.columns, metadata.values) == ((), {})
    assert f"{nz} of {nz} sections" in metadata.problems[0].message("x.mrc")


def test_gather() -> None:
    columns = [
        Column("camera", np.array(["a", "a"])),
        Column("tilt_angle", np.array([1.0, 1.0]), "degree"),
        Column("when", np.array(["2020-01-01"] * 2, "M8[us]")),
        Column("spot", np.array([1, 2])),
        Column("gap", np.array([np.nan, np.nan])),
    ]
    metadata = gather(columns)
    assert [c.name for c in metadata.columns] == ["tilt_angle", "when", "spot", "gap"]
    assert metadata.values == {"camera": ("a", "")}
    assert gather([Column("camera", np.array([]))]).values == {}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.5, 2.5], [1.5, np.nan]),
        ([1, 2], [1.0, np.nan]),
        ([True, True], [1.0, np.nan]),
        (["a", "b"], ["a", ""]),
        (np.array(["2020-01-01"] * 2, "M8[us]"), np.array(["2020-01-01", "NaT"], "M8[us]")),
    ],
)
def test_with_gaps(values: Any, expected: Any) -> None:
    values, expected = np.asarray(values), np.asarray(expected)
    found = with_gaps(values, np.array([True, False]))
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    whole = with_gaps(values, np.array([True, True]))
    assert whole.dtype == values.dtype
    assert not np.shares_memory(whole, values)
