"""The 1024 bytes: every field, both byte orders, and the way back."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import by_hand
import mrcfile
import numpy as np
import pytest
import xarray as xr
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mrc_xarray.mrc import reading
from mrc_xarray.mrc.header import Header

ORDERS = ("<", ">")
RAW = st.binary(min_size=1024, max_size=1024)
# a signalling NaN in every float field, in either byte order
SIGNALLING = {"<": b"\1\0\x80\x7f" * 256, ">": b"\x7f\x80\0\1" * 256}

# name → value, for every field that mrcfile lets a test set
SET = {
    "nxstart": -3, "nystart": 4, "nzstart": -5, "mx": 7, "my": 8, "mz": 9,
    "cella": (10.5, 11.25, 12.0), "cellb": (90.0, 80.0, 70.5), "mapc": 2, "mapr": 3, "maps": 1,
    "dmin": -1.5, "dmax": 2.5, "dmean": 0.25, "ispg": 19, "exttyp": b"AGAR", "nversion": 20141,
    "origin": (-1.0, 2.0, 3.5), "rms": 1.125, "nlabl": 2,
}  # fmt: skip


class Claimed:
    """A source of a head alone, which claims to be any size."""

    name = "claimed.mrc"

    def __init__(self, head: bytes, size: int) -> None:
        self.head, self.size = head, size

    def read(self, offset: int, nbytes: int) -> bytes:
        return self.head[offset : offset + nbytes]

    def read_sibling(self, name: str) -> None:
        return None


def by_mrcfile(path: Path, order: str) -> np.recarray:
    with mrcfile.new(path) as mrc:
        mrc.set_data(np.zeros((2, 3, 4), order + "f4"))
        mrc.set_extended_header(np.frombuffer(b"\1\2\3\4" * 4, "V4"))
        for name, value in SET.items():
            mrc.header[name] = value
        mrc.header.label[1] = b"second label  "
        header = mrc.header.copy()
    return header


@pytest.mark.parametrize("order", ORDERS)
def test_fields_of_a_file_by_mrcfile(tmp_path: Path, order: str) -> None:
    expected = by_mrcfile(tmp_path / "file.mrc", order)
    header = Header.parse((tmp_path / "file.mrc").read_bytes(), order)
    for name in expected.dtype.names:
        found, wanted = header[name], expected[name]
        if name == "label":
            assert [text.encode() for text in found] == wanted.tolist()
        elif isinstance(found, bytes | str):
            assert found == (
                wanted.tobytes() if isinstance(found, bytes) else wanted.item().decode()
            )
        else:
            assert found == wanted.item(), name


def test_mrcfile_has_no_field_that_we_lack() -> None:
    from mrcfile.dtypes import HEADER_DTYPE

    assert set(HEADER_DTYPE.names) <= set(Header.parse(bytes(1024), "<").keys())


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", sorted(by_hand.FIELDS))
def test_field_by_hand(order: str, name: str) -> None:
    offset, code = by_hand.FIELDS[name]
    values = tuple(b"ABCD" if code == "4s" else 3 + i for i in range(int(code[:-1] or 1)))
    values = values[:1] if code == "4s" else values
    raw = bytearray(1024)
    struct.pack_into(order + code, raw, offset, *values)
    header = Header.parse(bytes(raw), order)
    found = header[name]
    found = found if isinstance(found, tuple) else (found,)
    assert tuple(v.encode() if isinstance(v, str) else v for v in found) == values


def test_integers_are_pythons() -> None:
    header = Header.parse(by_hand.header((2, 3, 4), 2), "<")
    integers = [name for name, (_, code) in by_hand.FIELDS.items() if code in "ihq"]
    assert {type(header[name]) for name in integers} == {int}
    assert header.nx**9 == 4**9


def test_access_by_name() -> None:
    header = Header.parse(by_hand.header((2, 3, 4), 2, labels=(b"one", b"two")), "<")
    assert header["NX"] == header["nx"] == header.nx == 4
    assert header.cella.x == 4.0
    assert header.label[:3] == ("one", "two", "")
    assert dict(header)["mode"] == 2
    with pytest.raises(KeyError, match="NXX"):
        header["NXX"]


@pytest.mark.parametrize("order", ORDERS)
@settings(deadline=None, max_examples=60)
@given(raw=RAW)
@example(raw=SIGNALLING["<"])
@example(raw=SIGNALLING[">"])
@example(raw=bytes(1024))
@example(raw=b"\xff" * 1024)
def test_encode_gives_the_bytes_back(order: str, raw: bytes) -> None:
    expected = bytearray(raw)
    for offset, code in ((40, "6f"), (76, "3f"), (196, "3f"), (216, "f")):
        # Python's floats are double, and do not keep the bit that makes a NaN signalling
        struct.pack_into(
            order + code, expected, offset, *struct.unpack_from(order + code, raw, offset)
        )
    assert Header.parse(raw, order).encode() == expected


@pytest.mark.parametrize("order", ORDERS)
@settings(deadline=None, max_examples=60)
@given(raw=RAW)
@example(raw=SIGNALLING["<"])
def test_json_gives_the_header_back(order: str, raw: bytes) -> None:
    header = Header.parse(raw, order)
    again = Header.from_json(header.to_json())
    assert again.to_json() == header.to_json()
    assert [type(a) for a in vars(again).values()] == [type(a) for a in vars(header).values()]
    # JSON has one NaN only, but the bytes that are free to any program come back as they were
    assert again.encode()[96:196] == raw[96:196]


def test_json_of_a_plain_header_is_equal() -> None:
    header = Header.parse(by_hand.header((2, 3, 4), 2, labels=(b"one",)), "<")
    assert Header.from_json(header.to_json()) == header


STAMPS = {
    "right": None,
    "wrong": "other",
    "zero": bytes(4),
    "short": b"\x44\0\0\0",
    "blank": b"\x44\x20\x20\x20",
    "old": b"\x90\x42\x4d\xc3",
}


@pytest.mark.parametrize("stamp", STAMPS)
@pytest.mark.parametrize("order", ORDERS)
def test_byte_order_is_what_makes_sense(order: str, stamp: str) -> None:
    machst = STAMPS[stamp]
    if machst is None or machst == "other":
        machst = by_hand.STAMPS[order if machst is None else "<>"[order == "<"]]
    data = np.arange(24, dtype="i2").reshape(2, 3, 4)
    raw = by_hand.mrc(data, byteorder=order, machst=machst)
    file = reading.read(Claimed(raw, len(raw)))
    assert file.header.byteorder == order
    assert (file.header.nx, file.header.ny, file.header.nz) == (4, 3, 2)
    assert [p.field for p in file.problems] == ([] if stamp == "right" else ["MACHST"])


@pytest.mark.parametrize("order", ORDERS)
def test_stamp_decides_between_equally_plausible_orders(order: str) -> None:
    # 0x00010100 is the same number from either end, and so are a mode and axes of 0
    n = 0x00010100
    raw = by_hand.header(
        (n, n, n), 0, mapc=0, mapr=0, maps=0, mx=0, my=0, mz=0, cella=(0, 0, 0), ispg=0,
        nversion=0, machst=by_hand.STAMPS[order],
    )  # fmt: skip
    file = reading.read(Claimed(raw, 1024 + n**3))
    assert file.header.byteorder == order


@pytest.mark.parametrize("order", ORDERS)
def test_byteorder_argument_wins(order: str) -> None:
    n = 0x00010100
    raw = by_hand.header((n, n, n), 0, nversion=0, mapc=0, mapr=0, maps=0)
    name = {"<": "little", ">": "big"}[order]
    file = reading.read(Claimed(raw, 1024 + n**3), byteorder=name)
    assert file.header.byteorder == order


@pytest.mark.parametrize(
    ("mode", "dtype", "shape"),
    [(0, "i1", (600, 2048, 2048)), (2, "f4", (600, 2048, 2048)), (6, ">u2", (70_000, 300, 200))],
)
def test_beyond_two_to_the_31(
    tmp_path: Path, mode: int, dtype: str, shape: tuple[int, int, int]
) -> None:
    order = ">" if dtype[0] == ">" else "<"
    section = np.arange(shape[1] * shape[2]).astype(dtype).reshape(shape[1:])
    path = tmp_path / "sparse.mrcs"
    with path.open("wb") as file:
        file.write(by_hand.header(shape, mode, byteorder=order))
        file.truncate(1024 + shape[0] * section.nbytes)
        file.seek(-section.nbytes, 2)
        file.write(section.tobytes())
    with xr.open_dataset(path, engine="mrc") as ds:
        assert ds.data.shape == shape
        np.testing.assert_array_equal(ds.data[-1], section)
        np.testing.assert_array_equal(ds.data[-1, -1, ::-2], section[-1, ::-2])
        assert not ds.data[shape[0] // 2].any()


def test_header_is_a_mapping_too() -> None:
    header = Header.parse(by_hand.header((2, 3, 4), 2), "<")
    assert "NX" in header
    assert "nothing" not in header
    assert list(header) == header.keys()
    assert len(header) == len(dict(header))


def test_json_is_strict_and_keeps_what_is_not_finite() -> None:
    raw = by_hand.header((2, 3, 4), 2, dmin=float("nan"), cella=(float("inf"), -float("inf"), 1))
    header = Header.parse(raw, "<")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    json.loads(header.to_json(), parse_constant=refuse)
    again = Header.from_json(header.to_json())
    assert again.cella == header.cella
    assert np.isnan(again.dmin)
