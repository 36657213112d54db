"""FEI1 and FEI2, with mrcfile as the oracle."""

from __future__ import annotations

import datetime
import math
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
from mrcfile.dtypes import fei1_dtype_big_endian, fei2_dtype_big_endian
from records_by_hand import (
    FEI1,
    FEI2,
    NOT_DATA,
    all_of,
    bits,
    header,
    is_empty,
    kind,
    pixel_size,
    read,
    record_size,
    units_of,
)

from mrc_xarray.metadata.columns import Metadata
from mrc_xarray.mrc.header import Header

Array = np.ndarray[Any, Any]

EPOCH = datetime.datetime(1899, 12, 30)


def blocks(dtype: np.dtype[Any], n: int) -> Array:
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
    return table


def decoded(table: Array) -> Metadata:
    raw = table.tobytes()
    exttyp = b"FEI1" if table.dtype == FEI1 else b"FEI2"
    return read(header(exttyp, raw, len(table)), raw)


def fields_of(table: Array) -> dict[str, Array]:
    return all_of(decoded(table), len(table))


def values_by_mrcfile(field: str, name: str, oracle: Array) -> list[Any]:
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
    """Compare all valid fields with mrcfile, and check that there are no others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with mrcfile.open(path, permissive=True) as mrc:
            oracle = mrc.indexed_extended_header.copy()
            raw = mrc.extended_header.tobytes()
            order = "<" if mrc.header.nx.dtype.str[0] in "<|" else ">"
    head = path.read_bytes()[:1024]
    parsed = Header.parse(head, order)  # type: ignore[arg-type]
    assert kind(parsed, raw).name == exttyp
    assert record_size(parsed, raw) == oracle.dtype.itemsize
    metadata = read(parsed, raw)
    assert metadata.problems == ()
    ours = all_of(metadata, len(oracle))
    valid = set()
    for field, name, number, bit in bits(oracle.dtype):
        masks = oracle[f"Bitmask {number}"]
        if not (masks >> bit & 1).any():
            continue
        assert (masks >> bit & 1).all()
        valid.add(name)
        assert ours[name].tolist() == values_by_mrcfile(field, name, oracle), name
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
    found = pixel_size(Header.parse(raw, "<"), raw[1024:])
    assert found is not None
    x, y, units = found
    assert (x, units) == (y, "m")
    assert x * 1e10 == pytest.approx(3167.507 / 3710, rel=1e-6)


@pytest.mark.parametrize(
    ("exttyp", "dtype"),
    [
        ("FEI1", FEI1), ("FEI2", FEI2),
        ("FEI1", fei1_dtype_big_endian), ("FEI2", fei2_dtype_big_endian),
    ],
)  # fmt: skip
def test_every_field_as_mrcfile_reads_it(
    tmp_path: Path, exttyp: str, dtype: np.dtype[Any]
) -> None:
    n = 5
    order = ">" if dtype["HT"].byteorder == ">" else "<"
    raw = blocks(dtype, n).tobytes()
    pixels = np.zeros((n, 3, 4), "u2")
    file = by_hand.mrc(pixels, byteorder=order, extended=raw, exttyp=exttyp.encode())
    (tmp_path / "file.mrc").write_bytes(file)
    metadata = check_with_mrcfile(tmp_path / "file.mrc", exttyp)
    n_fields = len(bits(dtype))
    assert n_fields == 98 + (15 if exttyp == "FEI2" else 0)
    assert len(metadata.columns) + len(metadata.values) == n_fields
    for column in metadata.columns:
        assert column.values.dtype.str[1:] in ("f8", "i8", "b1", "M8[us]") or (
            column.values.dtype.kind == "U"
        )
        assert column.values.dtype.isnative
        assert column.values.flags.owndata


def test_blocks_may_be_little_endian_in_a_big_endian_file() -> None:
    raw = blocks(FEI2, 3).tobytes()
    little = read(header(b"FEI2", raw, 3), raw)
    big = read(header(b"FEI2", raw, 3, byteorder=">"), raw)
    assert all_of(little, 3).keys() == all_of(big, 3).keys()
    for name, values in all_of(little, 3).items():
        np.testing.assert_array_equal(values, all_of(big, 3)[name])


def test_each_bit_alone() -> None:
    for _, name, number, bit in bits(FEI2):
        table = blocks(FEI2, 2)
        for n in (1, 2, 3, 4):
            table[f"Bitmask {n}"] = (1 << bit) * (n == number)
        assert list(fields_of(table)) == [name]


@pytest.mark.parametrize(
    ("name", "missing"),
    [("spot_index", np.nan), ("cfeg_flash_time", np.datetime64("NaT")), ("input_stack", "")],
)
def test_a_field_that_is_valid_in_one_block(name: str, missing: Any) -> None:
    (place,) = (place for place in bits(FEI2) if place[1] == name)
    field, _, number, bit = place
    table = blocks(FEI2, 3)
    table[f"Bitmask {number}"] -= 1 << bit
    found = fields_of(table)
    assert len(found) == 112
    assert name not in found
    table[f"Bitmask {number}"][1] += 1 << bit
    values = fields_of(table)[name]
    (expected,) = values_by_mrcfile(field, name, table[1:2])
    assert values.tolist()[1] == expected
    np.testing.assert_array_equal(values[[0, 2]], [missing] * 2)


def test_fields_that_vary_and_fields_that_do_not() -> None:
    table = blocks(FEI2, 3)
    for field in table.dtype.names or ():
        table[field] = table[field][0]
    table["Magnification"] = [1000, 1000, 2000]
    metadata = decoded(table)
    assert {column.name for column in metadata.columns} == {
        "time", "dose", "tilt_angle", "tilt_beta", "stage_x", "stage_y", "stage_z", "defocus",
        "exposure_time", "magnification", "tilt_angle_min", "tilt_angle_max",
        "tilt_angle_start", "tilt_angle_end", "acquisition_time", "cfeg_flash_time",
    }  # fmt: skip
    assert metadata.values["voltage"] == (table["HT"][0], "V")
    assert {type(value) for value, _ in metadata.values.values()} == {str, bool, int, float}


@pytest.mark.parametrize("size", [768, 888, 1024])
def test_the_stride_is_the_blocks_own_size(size: int) -> None:
    """EPU's files are padded, and a later version may append fields."""
    n = 13
    table = blocks(FEI2 if size >= 888 else FEI1, n)
    table["Metadata size"] = size
    raw = b"".join(block.tobytes().ljust(size, b"\xee") for block in table).ljust(30720, b"\0")
    parsed = header(b"FEI2" if size >= 888 else b"FEI1", raw, n)
    assert record_size(parsed, raw[:4]) == size
    metadata = read(parsed, raw)
    assert metadata.problems == ()
    np.testing.assert_array_equal(all_of(metadata, n)["tilt_angle"], table["Alpha tilt"])
    assert ("scan_rotation" in all_of(metadata, n)) == (size >= 888)


def test_sections() -> None:
    table = blocks(FEI2, 6)
    raw = table.tobytes()
    parsed = header(b"FEI2", raw, 6)
    for sections in ([4, 1], [3], np.arange(2, 5), [1, 1], []):
        metadata = read(parsed, raw, np.asarray(sections, int))
        assert metadata.problems == ()
        if len(sections):
            tilts = all_of(metadata, len(sections))["tilt_angle"]
            np.testing.assert_array_equal(tilts, table["Alpha tilt"][np.asarray(sections)])


def test_records_missing_at_the_end() -> None:
    table = blocks(FEI2, 3)
    table["HT"] = 300000
    raw = table.tobytes() + bytes(100)
    parsed = header(b"FEI2", raw, 5)
    metadata = read(parsed, raw)
    (problem,) = metadata.problems
    assert "extended header (bytes 1024–3787)" in problem.message("x.mrc")
    assert "without a record for 2 of 5 sections" in problem.message("x.mrc")
    found = all_of(metadata, 5)
    np.testing.assert_array_equal(found["tilt_angle"], [*table["Alpha tilt"], np.nan, np.nan])
    assert found["camera_name"].tolist() == [t.decode() for t in table["Camera name"]] + ["", ""]
    assert np.isnat(found["time"]).tolist() == [False] * 3 + [True] * 2
    assert found["spot_index"].dtype == np.float64
    assert metadata.values["voltage"] == (300000.0, "V")
    # the other sections have no problem
    assert read(parsed, raw, np.arange(3)).problems == ()
    metadata = read(parsed, raw, np.array([4, 2, -1, 7]))
    assert len(metadata.problems) == 1
    np.testing.assert_array_equal(
        all_of(metadata, 4)["tilt_angle"], [np.nan, table["Alpha tilt"][2], np.nan, np.nan]
    )
    metadata = read(parsed, raw, np.array([4]))
    assert is_empty(metadata)
    assert len(metadata.problems) == 1


def test_blocks_that_were_never_written_are_missing() -> None:
    table = blocks(FEI1, 3)
    table[1] = np.zeros((), FEI1)
    metadata = decoded(table)
    tilts = all_of(metadata, 3)["tilt_angle"]
    assert np.isnan(tilts).tolist() == [False, True, False]
    assert "1 of 3 sections" in metadata.problems[0].message("x.mrc")


@pytest.mark.parametrize("size", [-1, 0, 767, 16385])
def test_a_size_that_makes_no_sense(size: int) -> None:
    raw = struct.pack("<i", size) + b"\1" * 2000
    parsed = header(b"FEI1", raw, 2)
    assert record_size(parsed, raw) == 0
    metadata = read(parsed, raw)
    assert is_empty(metadata)
    assert f"block has {size} bytes" in metadata.problems[0].message("x.mrc")


@pytest.mark.parametrize("days", [0.0, -1e300, math.nan, math.inf, 100_001])
def test_an_impossible_time_is_missing(days: float) -> None:
    table = blocks(FEI2, 2)
    # the first is the time of Velox's sample
    table["Timestamp"] = 44900.509, days
    table["Acquisition time stamp"][1] = -(2**63)
    found = fields_of(table)
    assert str(found["time"][0]).startswith("2022-12-05T12:12:57.6")
    assert np.isnat(found["time"][1])
    assert np.isnat(found["acquisition_time"]).tolist() == [False, True]


def test_text_ends_at_its_first_nul() -> None:
    table = blocks(FEI2, 2)
    table["Camera name"] = [b"BM-Ceta\0\xffrubbish", b"BM-Ceta\0old"]
    table["Element"] = [b"\xc5", b"0123456789abcdef"]
    metadata = decoded(table)
    assert metadata.values["camera_name"] == ("BM-Ceta", "")
    assert all_of(metadata, 2)["element"].tolist() == ["Å", "0123456789abcdef"]


def test_a_bool_that_is_neither_0_nor_1() -> None:
    table = blocks(FEI1, 2)
    table.view("u1").reshape(2, 768)[:, 288] = 0, 2
    assert fields_of(table)["eftem_on"].tolist() == [False, True]


# (instrument mode, projection mode or None, x, y) → what pixel_size returns
PIXELS: dict[str, tuple[int | None, float, float, tuple[float, float, str] | None]] = {
    "EPU, image": (2, 8.5e-11, 8.6e-11, (8.5e-11, 8.6e-11, "m")),
    "Velox, STEM image": (1, 5.679e-9, 5.679e-9, (5.679e-9, 5.679e-9, "m")),
    "diffraction": (1, 2.5e7, 2.6e7, (2.5e7, 2.6e7, "1/m")),
    "diffraction, mode unknown": (None, 2.5e7, 2.5e7, (2.5e7, 2.5e7, "1/m")),
    "image, mode unknown": (None, 8.5e-11, 8.5e-11, (8.5e-11, 8.5e-11, "m")),
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
    assert pixel_size(parsed, raw) == expected
    assert pixel_size(parsed, raw[:888]) == expected
    if expected:
        assert units_of(read(parsed, raw))["pixel_size_x"] == expected[2]


@pytest.mark.parametrize("bit", [14, 15])
def test_pixel_size_that_is_not_valid(bit: int) -> None:
    table = blocks(FEI2, 2)
    table["Bitmask 1"] -= 1 << bit
    raw = table.tobytes()
    assert pixel_size(header(b"FEI2", raw, 2), raw) is None


def peak_of(table: Array, nz: int) -> tuple[Metadata, int, int]:
    """Return the metadata of a file of NZ sections, the memory that they need, and the peak."""
    raw = table.tobytes()
    parsed = header(b"FEI1" if table.dtype == FEI1 else b"FEI2", raw, nz)
    tracemalloc.start()
    try:
        metadata = read(parsed, raw)
        return metadata, *tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_many_blocks_need_little_memory() -> None:
    n = 20_000
    table = np.resize(blocks(FEI1, 1), n)
    table["Alpha tilt"] = np.arange(n)
    metadata, held, peak = peak_of(table, n)
    assert held < 24 * 8 * n
    assert peak < table.nbytes
    assert len(metadata.values) > 80


@pytest.mark.parametrize("nz", [2**31 - 1, 2**24])
def test_more_sections_than_any_file_has(nz: int) -> None:
    metadata, _, peak = peak_of(blocks(FEI2, 3), nz)
    assert peak < 1e6
    assert is_empty(metadata)
    assert f"{nz} of {nz} sections" in metadata.problems[0].message("x.mrc")
