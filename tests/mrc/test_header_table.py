"""The header as a table: which fields, with which values and meanings."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path
from typing import Any

import by_hand
import pytest

from mrc_xarray.mrc.fields import FIELDS
from mrc_xarray.mrc.header import Header
from mrc_xarray.mrc.header_table import rows

ROOT = Path(__file__).parents[2]


def header(byteorder: Any = "<", **fields: Any) -> Header:
    raw = by_hand.header((2, 3, 4), 1, byteorder=byteorder, **fields)
    return Header.parse(raw, byteorder)


def test_text_has_only_what_is_set() -> None:
    text = str(
        header(">", nxstart=-3, labels=(b"by hand, in long".ljust(80), b" " * 80), cella=(8, 6, 5))
    )
    first, *lines = text.split("\n")
    assert first == "<MRC header, big-endian>"
    assert [line.split("  ")[1].strip() for line in lines] == [
        "NX", "NY", "NZ", "MODE", "NXSTART", "MX", "MY", "MZ", "CELLA", "ISPG", "NLABL", "LABEL 1",
    ]  # fmt: skip
    assert "  CELLA    8, 6, 5  edges of the cell along X, Y, Z, in Å" in lines
    assert lines[-1] == "  LABEL 1  by hand, in long"
    assert len(lines[0].split("  ")) > 2


def test_blank_header_and_mode_zero() -> None:
    assert [line.split()[0] for line in str(Header.blank()).split("\n")[1:]] == [
        "NX", "NY", "NZ", "MODE",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"imod_stamp": by_hand.IMOD_STAMP, "imod_flags": 5}, {"IMOD_STAMP", "IMOD_FLAGS"}),
        ({"imod_flags": 5}, set()),
        ({"nint": 2, "nreal": 3}, {"NINT", "NREAL"}),
        ({"voltage": 300, "labels": (b"MRCZ0.6.0",)}, {"VOLTAGE"}),
        ({"voltage": 300}, set()),
        ({"voltage": 300, "imod_stamp": by_hand.IMOD_STAMP}, {"ZFAC", "IMOD_STAMP"}),
    ],
)
def test_fields_of_a_dialect_only_in_its_files(fields: dict[str, Any], shown: set[str]) -> None:
    standard = {field.name.upper() for field in FIELDS if not field.dialect}
    names = {name for name, _, _ in rows(header(**fields)) if not name.startswith("LABEL")}
    assert names - standard == shown
    assert {"NX", "DMIN", "MACHST", "RMS"} <= names
    assert not {"EXTRA1", "EXTRA2"} & names
    every = {name for name, _, _ in rows(header(**fields), every_field=True)}
    assert {"EXTRA1", "EXTRA2", "PACKED_BYTES", "LSKFLG"} <= every


def test_fields_that_an_old_header_has_not() -> None:
    names = {name for name, _, _ in rows(header(map=b"", machst=b"\0" * 4))}
    assert not {"ORIGIN", "RMS"} & names


def test_html_has_a_row_with_a_meaning_for_each_field() -> None:
    html = header(exttyp=b"<i>", labels=(b"a & b",))._repr_html_()
    assert html.count("<tr") == len(FIELDS) - sum(bool(f.dialect) for f in FIELDS) - 2
    assert "&lt;i&gt;" in html
    assert "a &amp; b" in html
    assert ">minimum of the pixels<" in html
    assert all(field.meaning for field in FIELDS)


def test_garbage_is_shown() -> None:
    found = Header.parse(bytes(range(256)) * 4, ">")
    assert all(line.isprintable() for line in str(found).split("\n"))
    assert max(map(len, str(found).split("\n"))) < 160
    nan = struct.pack("<f", float("nan")) * 256
    assert "nan" in Header.parse(nan, "<")._repr_html_()
    odd = dataclasses.replace(found, nx="x", cella=("a",), label=(1,), machst=None)
    for shown in (repr(odd), odd._repr_html_()):
        assert "header" in shown
