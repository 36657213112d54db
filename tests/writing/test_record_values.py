"""``edit_header(extended=)`` on records of FEI and SerialEM, by mrcfile and by hand."""

from __future__ import annotations

import gzip
import struct
from datetime import datetime
from pathlib import Path
from typing import Any

import by_hand
import mrcfile
import numpy as np
import pytest
import records_by_hand
import xarray as xr

from mrc_xarray import MrcError, edit_header

PIXELS = np.random.default_rng(6).integers(-(2**15), 2**15, (3, 6, 8), "i2")
ANGLES = [-60.0, 0.5, 59.99]
# two more records than sections
N_RECORDS = 5
# in the units of coordinates, mrcfile's field and its value
FEI: dict[str, tuple[Any, str, Any]] = {
    "tilt_angle": (ANGLES, "Alpha tilt", ANGLES),
    "defocus": (-3.5, "Defocus", -3.5e-6),
    "stage_x": ([1, 2, 3], "X-Stage", [1e-6, 2e-6, 3e-6]),
    "dose": (2.5, "Dose", 2.5e20),
    "voltage": (300, "HT", 300e3),
    "exposure_time": (np.float32(0.5), "Integration time", 0.5),
    "spot_index": (7, "Spot index", 7),
    "slit_inserted": (True, "Slit inserted", True),
    "camera_name": ("BM-Falcon", "Camera name", b"BM-Falcon"),
    "time": (datetime(2026, 1, 31, 12), "Timestamp", 46053.5),
    "start_frame": ([1, 5, 9], "Start frame", [1, 5, 9]),
    "tilt_angle_max": (60, "Alpha tilt max", 60),
}


def fei(exttyp: str, order: str) -> Any:
    """Return blocks that have no valid field but a voltage."""
    dtype = {"FEI1": records_by_hand.FEI1, "FEI2": records_by_hand.FEI2}[exttyp]
    if order == ">":
        # mrcfile's, whose masks are little-endian
        dtype = {
            "FEI1": records_by_hand.fei1_dtype_big_endian,
            "FEI2": records_by_hand.fei2_dtype_big_endian,
        }[exttyp]
    blocks = np.zeros(N_RECORDS, dtype)
    blocks["Metadata size"], blocks["Metadata version"] = dtype.itemsize, 2 * (exttyp == "FEI2")
    blocks["Bitmask 1"] = 1 << 5
    blocks["HT"] = 200e3
    blocks["Input stack filename"] = b"/some/frames.mrc"
    return blocks


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("exttyp", ["FEI1", "FEI2"])
def test_fei(path: Path, exttyp: str, order: str) -> None:
    blocks = fei(exttyp, order)
    made: dict[str, Any] = {"exttyp": exttyp.encode(), "byteorder": order, "ispg": 0, "mz": 1}
    path.write_bytes(by_hand.mrc(PIXELS, extended=blocks.tobytes(), **made))
    places = {ours: (n, bit) for _, ours, n, bit in records_by_hand.bits(blocks.dtype)}
    edit_header(path, extended={name: value for name, (value, _, _) in FEI.items()}, dmin=-5)
    for name, (_, field, value) in FEI.items():
        n, bit = places[name]
        blocks[field][:3] = value
        blocks[f"Bitmask {n}"][:3] |= np.uint32(1 << bit)
    expected = by_hand.mrc(PIXELS, extended=blocks.tobytes(), **made, dmin=-5)
    found = np.frombuffer(path.read_bytes(), blocks.dtype, N_RECORDS, 1024)
    for name in blocks.dtype.names:
        if blocks.dtype[name].kind == "f":
            np.testing.assert_allclose(found[name], blocks[name], rtol=1e-15, err_msg=name)
        else:
            assert (found[name] == blocks[name]).all(), name
    end = 1024 + blocks.nbytes
    assert path.read_bytes()[:1024] + path.read_bytes()[end:] == expected[:1024] + expected[end:]
    with mrcfile.open(path) as mrc:
        assert mrc.indexed_extended_header["Alpha tilt"].tolist()[:3] == ANGLES
    ds = xr.open_dataset(path, engine="mrc")
    assert ds["tilt_angle"].values.tolist() == ANGLES
    assert ds["stage_x"].values.tolist() == [1, 2, 3]
    assert ds["defocus"].values.tolist() == [-3.5] * 3
    assert ds["dose"].values.tolist() == [2.5] * 3
    assert (ds["time"].values == np.datetime64("2026-01-31T12:00:00")).all()
    assert ds["data"].attrs["voltage_kV"] == 300


# flags 0 to 6 but 4: tilt, piece, stage, magnification, dose, and two bytes that are reserved
SERI_FLAGS = 0b1101111
SERI_CODE = "h2HhhhhhhH"


def seri(order: str, *records: tuple[int, ...]) -> bytes:
    size = struct.calcsize("<" + SERI_CODE)
    packed = b"".join(struct.pack(order + SERI_CODE, *record) for record in records)
    return packed.ljust(size * N_RECORDS, b"\0")


@pytest.mark.parametrize("order", "<>")
def test_seri(path: Path, order: str) -> None:
    old = [(100 * i, 1, 2, 3, 25, 50, 330, 1, 2, 99) for i in range(3)]
    made: dict[str, Any] = {
        "exttyp": b"SERI", "nint": 20, "nreal": SERI_FLAGS, "byteorder": order, "ispg": 0, "mz": 1,
    }  # fmt: skip
    path.write_bytes(by_hand.mrc(PIXELS, extended=seri(order, *old), **made))
    values: dict[str, Any] = {
        "tilt_angle": ANGLES, "piece_y": [0, 40000, 65535], "stage_x": [-1.04, 0, 1310.68],
        "magnification": 105_000, "dose": [0, 2.5, -1e-3],
    }  # fmt: skip
    edit_header(path, extended=values)
    # 2.5 is 5242880 / 2²¹, and 0.001 is 8589935 / 2³³, halved to have 23 bits: 4294967
    dose = [(0, 0), (5242880 >> 8, -(21 * 256)), (-(8589935 >> 9), -(32 * 256 + 4294967 % 256))]
    new = [
        (tilt, 1, y, 3, x, 50, 1050, *shorts, 99)
        for tilt, y, x, shorts in zip(
            (-6000, 50, 5999), (0, 40000, 65535), (-26, 0, 32767), dose, strict=True
        )
    ]
    assert path.read_bytes() == by_hand.mrc(PIXELS, extended=seri(order, *new), **made)
    ds = xr.open_dataset(path, engine="mrc")
    for name in ("tilt_angle", "piece_y", "stage_x"):
        assert ds[name].values.tolist() == values[name]
    np.testing.assert_allclose(ds["dose"], values["dose"], rtol=1e-6)


def test_stream(tmp_path: Path) -> None:
    path, blocks = tmp_path / "a.mrc.gz", fei("FEI1", "<")
    made: dict[str, Any] = {"exttyp": b"FEI1", "ispg": 0, "mz": 1}
    path.write_bytes(gzip.compress(by_hand.mrc(PIXELS, extended=blocks.tobytes(), **made)))
    edit_header(path, extended={"tilt_angle": 3})
    blocks["Alpha tilt"][:3] = 3
    blocks["Bitmask 1"][:3] |= 1 << 7
    found = gzip.decompress(path.read_bytes())
    assert found == by_hand.mrc(PIXELS, extended=blocks.tobytes(), **made)


SERI_FILE = by_hand.mrc(
    PIXELS, extended=struct.pack("<6h", *range(6)), exttyp=b"SERI", nint=4, nreal=0b1000 | 1
)
FEI_FILE = by_hand.mrc(PIXELS, extended=fei("FEI1", "<").tobytes(), exttyp=b"FEI1")


@pytest.mark.parametrize(
    ("content", "values", "match"),
    [
        (SERI_FILE, {"tilt_angle": 327.68}, r"'tilt_angle'\] is 327.68; .* -32768 to 32767"),
        (SERI_FILE, {"tilt_angle": [0, 1, float("nan")]}, "finite numbers"),
        (SERI_FILE, {"tilt_angle": "up"}, "finite numbers"),
        (SERI_FILE, {"tilt_angle": [1, 2]}, "one value, or 3, one for each section"),
        (SERI_FILE, {"tilt_angle": 1, "magnification": 1e9}, "magnification"),
        (
            SERI_FILE, {"tiltangle": 1},
            r"no tiltangle; accepted: tilt_angle \[degree\], magnification\. Did you mean tilt_a",
        ),
        (FEI_FILE, {"stage_w": 1}, r"FEI1 records have no stage_w; .*stage_z \[um\]"),
        # a field of FEI2
        (FEI_FILE, {"scan_rotation": 1}, "FEI1 records have no scan_rotation"),
        (FEI_FILE, {"camera_name": "more than 16 letters"}, "ASCII texts of up to 16 characters"),
        (FEI_FILE, {"camera_name": "a\n"}, "printable"),
        (FEI_FILE, {"time": 5}, "times, such as"),
        (FEI_FILE, {"time": "1850-01-01"}, "times after 1899-12-30"),
        (FEI_FILE, {"time": "noon"}, "accepted: times, such as"),
        (FEI_FILE, {"time": "2026-01-31T12:00:00+01:00"}, "without a zone"),
        (FEI_FILE, {"tilt_angle": np.ma.masked_equal([1, 2, 3], 2)}, "one value, or 3"),
        (FEI_FILE, {"spot_index": 1.5}, "whole numbers"),
        (FEI_FILE, {"spot_index": 2**31}, "stored numbers of -2147483648 to"),
        (FEI_FILE, {"slit_inserted": 2}, "0 or 1"),
        (by_hand.mrc(PIXELS), {"tilt_angle": 1}, "no extended header; .* FEI1, FEI2"),
        (
            by_hand.mrc(PIXELS, extended=bytes(24), exttyp=b"AGAR", nreal=2), {"tilt_angle": 1},
            "EXTTYP is 'AGAR'; extended= changes records of SERI, FEI1, FEI2",
        ),
        (
            by_hand.mrc(PIXELS, extended=fei("FEI1", "<")[:2].tobytes(), exttyp=b"FEI1"),
            {"tilt_angle": 1}, "2 records for 3 sections",
        ),
        (
            by_hand.mrc(PIXELS, extended=fei("FEI1", "<")[:1].tobytes() + bytes(1536),
                        exttyp=b"FEI1"),
            {"tilt_angle": 1}, "the record of section 1 is empty",
        ),
    ],
)  # fmt: skip
def test_what_records_can_not_hold(
    path: Path, content: bytes, values: dict[str, Any], match: str
) -> None:
    path.write_bytes(content)
    with pytest.raises(MrcError, match=match):
        edit_header(path, extended=values, dmin=-9)
    assert path.read_bytes() == content


def test_values_without_names(path: Path) -> None:
    path.write_bytes(FEI_FILE)
    with pytest.raises(TypeError, match="a mapping of name to values"):
        edit_header(path, extended=[1, 2, 3])  # type: ignore[arg-type]
