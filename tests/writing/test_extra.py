"""Bytes 96 to 195 of a copy: fields of other programs, IMOD's stamp, and this package's fields."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import by_hand
import numpy as np
import pytest
from writes import ORDERS, extended, field, fields, labelled, noise, opened, source, warned

from mrc_xarray import to_mrc
from mrc_xarray.mrc.header import Header

PIXELS = noise((3, 4, 5))
# of an unknown program, in all bytes that MRC2014 leaves free
FREE = bytes(range(1, 9)), bytes(range(100, 184))


def with_extra(raw: bytes, extra1: bytes, extra2: bytes) -> bytes:
    return raw[:96] + extra1 + raw[104:112] + extra2 + raw[196:]


def extra_of(path: Path) -> bytes:
    raw = path.read_bytes()
    return raw[96:104] + raw[112:196]


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_fields_of_an_unknown_program_are_copied(
    path: Path, tmp_path: Path, byteorder: str
) -> None:
    raw = with_extra(by_hand.mrc(PIXELS, byteorder=ORDERS[byteorder]), *FREE)
    (tmp_path / "s.mrc").write_bytes(raw)
    data = opened(tmp_path / "s.mrc").data
    to_mrc(data, path, byteorder=byteorder)
    assert extra_of(path) == b"".join(FREE)
    # the label of this package does not turn them into mrcz's voltage, C3 and gain
    assert opened(path).mrc.header.label[0].startswith("copied by mrc_xarray ")
    assert "voltage_kV" not in opened(path).data.attrs
    message = warned(data, path, byteorder=byteorder, voltage=300, overwrite=True)
    assert "voltage, C3 and gain" in message


def test_fields_that_a_copy_has_no_place_for_are_reported(tmp_path: Path) -> None:
    (tmp_path / "s.mrc").write_bytes(with_extra(by_hand.mrc(PIXELS), *FREE))
    data = opened(tmp_path / "s.mrc").data
    assert "bytes 132–151" in warned(data, tmp_path / "a.mrcz", voltage=300)
    assert opened(tmp_path / "a.mrcz").data.attrs["voltage_kV"] == 300
    found, expected = extra_of(tmp_path / "a.mrcz"), b"".join(FREE)
    assert (found[:28], found[48:]) == (expected[:28], expected[48:])
    # the numbers in them have a byte order
    assert "bytes 96–195" in warned(data, tmp_path / "b.mrc", byteorder="big")
    assert not any(extra_of(tmp_path / "b.mrc"))


def test_numbers_of_imod_follow_the_byte_order(path: Path, tmp_path: Path) -> None:
    angles = (1.5, 0, -2, 0.25, 90, 3)
    imod: dict[str, Any] = {"imod_stamp": by_hand.IMOD_STAMP, "imod_flags": 6}
    raw = by_hand.mrc(PIXELS, byteorder=">", tiltangles=angles, origin=(1, 2, 3), **imod)
    (tmp_path / "s.mrc").write_bytes(raw)
    to_mrc(opened(tmp_path / "s.mrc"), path)
    assert fields(path, "imod_stamp", "imod_flags") == (by_hand.IMOD_STAMP, 6)
    assert fields(path, "tiltangles", "origin") == (angles, (1, 2, 3))


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_skew_transformation_follows_the_byte_order(
    path: Path, tmp_path: Path, byteorder: str
) -> None:
    numbers = 1, *(0.5 * k for k in range(12))
    raw = bytearray(by_hand.mrc(PIXELS))
    struct.pack_into("<i12f", raw, 96, *numbers)
    (tmp_path / "s.map").write_bytes(raw)
    data = opened(tmp_path / "s.map")
    to_mrc(data, path, byteorder=byteorder)
    assert struct.unpack_from(f"{ORDERS[byteorder]}i12f", path.read_bytes(), 96) == numbers
    assert not {"voltage_kV", "c3_mm", "gain_e_per_DN"} & opened(path).data.attrs.keys()
    assert "skew transformation" in warned(data, tmp_path / "a.mrcz")
    assert not any(extra_of(tmp_path / "a.mrcz")[:28])


@pytest.mark.parametrize(
    ("stamp", "flags"),
    # MRC2014's sign of ORIGIN, or IMOD's own
    [({}, 4), ({"imod_flags": 4 | 2}, 4 | 2), ({"imod_flags": 8}, 8)],
)
def test_unsigned_bytes_have_imods_stamp(
    path: Path, tmp_path: Path, stamp: dict[str, Any], flags: int
) -> None:
    if stamp:
        stamp["imod_stamp"] = by_hand.IMOD_STAMP
    raw = by_hand.mrc(noise((3, 4, 5), "u1"), 0, dmax=255, dmean=100, origin=(1, 2, 3), **stamp)
    (tmp_path / "s.mrc").write_bytes(raw)
    data = opened(tmp_path / "s.mrc")
    to_mrc(data, path)
    found = fields(path, "mode", "imod_stamp", "imod_flags", "origin")
    assert found == (0, by_hand.IMOD_STAMP, flags, (1, 2, 3))
    assert opened(path).equals(data)
    # signed bytes in the same file
    to_mrc(opened(tmp_path / "s.mrc", mode0="int8"), path, overwrite=True)
    assert field(path, "imod_flags") == (flags | 1 if stamp else 0)
    assert opened(path).data.dtype == "i1"


def test_bytes_of_imods_stamp_are_taken(path: Path, tmp_path: Path) -> None:
    """CCP4's mapmode2to0 has numbers of its own there."""
    raw = bytearray(by_hand.mrc(noise((3, 4, 5), "i1")))
    struct.pack_into("<2i", raw, 156, -128, 127)
    (tmp_path / "s.mrc").write_bytes(raw)
    assert "bytes 152–159" in warned(opened(tmp_path / "s.mrc").data.astype("u1"), path)
    assert opened(path).data.dtype == "u1"


def test_version_is_at_least_that_of_the_source(path: Path, tmp_path: Path) -> None:
    for old, new in [(20140, 20141), (20150, 20150), (7, 20141)]:
        data = source(tmp_path, PIXELS, nversion=old)
        to_mrc(data, path, overwrite=True)
        assert field(path, "nversion") == new


def test_counts_belong_to_the_extended_header(path: Path, tmp_path: Path) -> None:
    counted: dict[str, Any] = {"extended": b"secret" * 40, "nint": 7, "nreal": 9}
    (tmp_path / "s.mrc").write_bytes(by_hand.mrc(PIXELS, exttyp=b"MRCO", **counted))
    data = opened(tmp_path / "s.mrc").data
    to_mrc(data, path)
    assert (extended(path), *fields(path, "nint", "nreal")) == (b"secret" * 40, 7, 9)
    assert "the extended header" in warned(data[:, 1:], path, overwrite=True)
    assert fields(path, "nsymbt", "nint", "nreal") == (0, 0, 0)


def test_mark_of_another_format_is_no_header(path: Path) -> None:
    """DeltaVision has its mark in bytes that are copied: such a file could not be opened."""
    raw = with_extra(by_hand.header((3, 4, 5), 2), b"\xa0\xc0" + bytes(6), bytes(84))
    header = Header.parse(raw, "<").to_json()
    assert "mrc_header" in warned(labelled(PIXELS).assign_attrs(mrc_header=header), path)
    np.testing.assert_array_equal(opened(path).data, PIXELS)
