"""The 1024 bytes: every field, both byte orders, and the way back."""

from __future__ import annotations

import dataclasses
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
from mrcfile.dtypes import HEADER_DTYPE

from mrc_xarray import MrcError
from mrc_xarray.mrc import reading
from mrc_xarray.mrc.header import PLACES, Header
from mrc_xarray.options import OpenOptions

ORDERS = ("<", ">")
RAW = st.binary(min_size=1024, max_size=1024)
# a signalling NaN in every float field, in either byte order
SIGNALLING = {"<": b"\1\0\x80\x7f" * 256, ">": b"\x7f\x80\0\1" * 256}

# name → value, for every field that a test can set with mrcfile
SET = {
    "nxstart": -3, "nystart": 4, "nzstart": -5, "mx": 7, "my": 8, "mz": 9,
    "cella": (10.5, 11.25, 12.0), "cellb": (90.0, 80.0, 70.5), "mapc": 2, "mapr": 3, "maps": 1,
    "dmin": -1.5, "dmax": 2.5, "dmean": 0.25, "ispg": 19, "exttyp": b"AGAR", "nversion": 20141,
    "origin": (-1.0, 2.0, 3.5), "rms": 1.125, "nlabl": 2,
}  # fmt: skip


@pytest.mark.parametrize("order", ORDERS)
def test_fields_of_a_file_by_mrcfile(tmp_path: Path, order: str) -> None:
    with mrcfile.new(tmp_path / "file.mrc") as mrc:
        mrc.set_data(np.zeros((2, 3, 4), order + "f4"))
        mrc.set_extended_header(np.frombuffer(b"\1\2\3\4" * 4, "V4"))
        for name, value in SET.items():
            mrc.header[name] = value
        mrc.header.label[1] = b"second label  "
        expected = mrc.header.copy()
    header = Header.parse((tmp_path / "file.mrc").read_bytes(), order)
    assert set(HEADER_DTYPE.names) <= set(header)
    for name in HEADER_DTYPE.names:
        found, wanted = header[name], expected[name]
        if name == "label":
            assert [text.encode() for text in found] == wanted.tolist()
        elif isinstance(found, bytes):
            assert found == wanted.tobytes()
        else:
            wanted = wanted.item()
            assert found == (wanted.decode() if isinstance(found, str) else wanted), name


@pytest.mark.parametrize("order", ORDERS)
def test_fields_by_hand(order: str) -> None:
    for name, (offset, code) in by_hand.FIELDS.items():
        values: tuple[object, ...] = tuple(3 + i for i in range(int(code[:-1] or 1)))
        if code == "4s":
            values = (b"ABCD",)
        raw = bytearray(1024)
        struct.pack_into(order + code, raw, offset, *values)
        found = Header.parse(bytes(raw), order)[name]
        found = found if isinstance(found, tuple) else (found,)
        assert tuple(v.encode() if isinstance(v, str) else v for v in found) == values, name
        # a NumPy integer would overflow
        assert type(found[0]) in (int, float, str, bytes)


def test_header_is_a_mapping_too() -> None:
    header = Header.parse(by_hand.header((2, 3, 4), 2, labels=(b"one", b"two")), "<")
    assert header["NX"] == header["nx"] == header.nx == 4
    assert header.cella.x == 4.0
    assert header.label[:3] == ("one", "two", "")
    assert dict(header)["mode"] == 2
    assert "NX" in header
    assert "nothing" not in header
    assert len(header) == len(dict(header)) == len(list(header))
    with pytest.raises(KeyError, match="NXX"):
        header["NXX"]


@pytest.mark.parametrize("order", ORDERS)
@settings(deadline=None, max_examples=20)
@given(raw=RAW)
@example(raw=SIGNALLING["<"])
@example(raw=SIGNALLING[">"])
@example(raw=bytes(1024))
@example(raw=b"\xff" * 1024)
def test_header_is_the_same_after_bytes_and_json(order: str, raw: bytes) -> None:
    expected = bytearray(raw)
    for offset, code in ((40, "6f"), (76, "3f"), (196, "3f"), (216, "f")):
        # Python's floats are double, and lose the bit that makes a NaN signalling
        struct.pack_into(
            order + code, expected, offset, *struct.unpack_from(order + code, raw, offset)
        )
    header = Header.parse(raw, order)
    assert header.encode() == expected
    again = Header.from_json(header.to_json())
    assert again.to_json() == header.to_json()
    assert [type(a) for a in vars(again).values()] == [type(a) for a in vars(header).values()]
    # JSON has only one NaN, but the bytes that programs may use freely are unchanged
    assert again.encode()[96:196] == raw[96:196]


def test_json_is_strict_and_contains_what_is_not_finite() -> None:
    raw = by_hand.header((2, 3, 4), 2, dmin=float("nan"), cella=(float("inf"), -float("inf"), 1))
    header = Header.parse(raw, "<")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    json.loads(header.to_json(), parse_constant=refuse)
    again = Header.from_json(header.to_json())
    assert again.cella == header.cella
    assert np.isnan(again.dmin)
    assert Header.from_json(header.replaced(dmin=0).to_json()) == header.replaced(dmin=0)


# changed fields ----------------------------------------------------------------------------------

# the fields that can be changed without another change in the file
EDITABLE = sorted(
    {name.lower() for name in PLACES}
    - {"nx", "ny", "nz", "mode", "nsymbt", "extra1", "extra2", "map", "machst", "label", "exttyp"}
    - {"mapc", "mapr", "maps"}
)


def changed(name: str, header: Header) -> object:
    value = header[name]
    if isinstance(value, tuple):
        return tuple(v + 1.5 for v in value)
    return value + 1


@pytest.mark.parametrize("order", ORDERS)
def test_every_field_that_is_replaced_is_written(order: str) -> None:
    header = Header.parse(by_hand.header((2, 3, 4), 2, byteorder=order), order)
    for name in EDITABLE:
        new = header.replaced(**{name: changed(name, header)})
        again = Header.parse(new.encode(), order)
        assert again[name] == changed(name, header), name
        assert again == new, name
        # and no byte outside of the field
        offset, nbytes = PLACES[name.upper()]
        was, now = header.encode(), new.encode()
        assert (was[:offset], was[offset + nbytes :]) == (now[:offset], now[offset + nbytes :])


def test_fields_that_share_bytes_are_not_set_together() -> None:
    header = Header.parse(by_hand.header((2, 3, 4), 2), "<")
    with pytest.raises(MrcError, match=r"MIN2 \(bytes 136–139\) and C3 .* share bytes"):
        header.replaced(min2=1.0, c3=2.7)
    with pytest.raises(MrcError, match="nint is 70000, which is more than a header can hold"):
        header.replaced(nint=70_000)
    with pytest.raises(ValueError, match="header field min2 is 5, which contradicts"):
        dataclasses.replace(header, min2=5).encode()
    both = header.replaced(extra2=b"\1" * 84, nint=2)
    assert both.encode()[112:136] == b"\1" * 16 + b"\2\0" + b"\1" * 6


# byte order --------------------------------------------------------------------------------------

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
def test_byte_order_is_plausible(order: str, stamp: str) -> None:
    machst = STAMPS[stamp]
    if machst is None or machst == "other":
        machst = by_hand.STAMPS[order if machst is None else "<>"[order == "<"]]
    data = np.arange(24, dtype="i2").reshape(2, 3, 4)
    raw = by_hand.mrc(data, byteorder=order, machst=machst)
    file = reading.inspect(by_hand.Claimed(raw, len(raw)))
    assert file.header.byteorder == order
    assert (file.header.nx, file.header.ny, file.header.nz) == (4, 3, 2)
    is_damaged = stamp in ("wrong", "old")
    assert [p.field for p in file.problems] == ["MACHST"] * is_damaged


# 0x00010100 is the same number from either end, and so are a mode and axes of 0
N = 0x00010100
SYMMETRIC = {
    "mapc": 0, "mapr": 0, "maps": 0, "mx": 0, "my": 0, "mz": 0, "cella": (0, 0, 0), "ispg": 0,
    "nversion": 0,
}  # fmt: skip


@pytest.mark.parametrize("order", ORDERS)
def test_stamp_or_argument_decides_between_equally_plausible_orders(order: str) -> None:
    name = {"<": "little", ">": "big"}[order]
    for stamp, argument in ((by_hand.STAMPS[order], "auto"), (by_hand.STAMPS["<"], name)):
        raw = by_hand.header((N, N, N), 0, machst=stamp, **SYMMETRIC)
        source = by_hand.Claimed(raw, 1024 + N**3)
        file = reading.inspect(source, options=OpenOptions(byteorder=argument))
        assert file.header.byteorder == order


def test_a_missing_stamp_is_damage_where_it_would_decide() -> None:
    raw = by_hand.header((N, N, N), 0, machst=bytes(4), **SYMMETRIC)
    file = reading.inspect(by_hand.Claimed(raw, 1024 + N**3))
    assert "MACHST" in [problem.field for problem in file.problems]


def test_beyond_two_to_the_31(tmp_path: Path) -> None:
    shape = (70_000, 300, 200)
    section = np.arange(60_000).astype(">u2").reshape(300, 200)
    path = tmp_path / "sparse.mrcs"
    with path.open("wb") as file:
        file.write(by_hand.header(shape, 6, byteorder=">"))
        file.truncate(1024 + shape[0] * section.nbytes)
        file.seek(-section.nbytes, 2)
        file.write(section.tobytes())
    with xr.open_dataset(path, engine="mrc") as ds:
        assert ds.data.shape == shape
        np.testing.assert_array_equal(ds.data[-1], section)
        np.testing.assert_array_equal(ds.data[-1, -1, ::-2], section[-1, ::-2])
        assert not ds.data[shape[0] // 2].any()
