"""Which kind an extended header is, and that garbage never raises."""

from __future__ import annotations

import struct
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records_by_hand import header, is_empty, kind, pixel_size, read, record_size

from mrc_xarray.mrc.extended import NONE, kind_of


@pytest.mark.parametrize("exttyp", [b"MRCO", b"\xff\xfe\x80\0", b""])
def test_unknown(exttyp: bytes) -> None:
    raw = b"\1" * 81
    parsed = header(exttyp, raw, 3)
    assert kind(parsed, raw).name == ""
    assert record_size(parsed, raw) == 0
    metadata = read(parsed, raw)
    assert is_empty(metadata)
    (problem,) = metadata.problems
    assert "EXTTYP (bytes 104–107)" in problem.message("x.mrc")
    assert "ds.mrc.extended_header" in problem.message("x.mrc")


@pytest.mark.parametrize("exttyp", [b"json", b"JSON"])
def test_json_has_no_records(exttyp: bytes) -> None:
    parsed = header(exttyp, b"{}", 3)
    assert kind(parsed, b"{}").name == "json"
    assert is_empty(read(parsed, b"{}"))


def test_no_extended_header() -> None:
    parsed = header(b"FEI1", b"", 3, nsymbt=800)
    assert kind_of(parsed, 0) is NONE
    assert NONE.record_size(parsed, b"") == 0
    assert NONE.pixel_size(parsed, b"") == {}
    metadata = NONE.read(parsed, b"")
    assert is_empty(metadata)
    assert metadata.problems == ()


@pytest.mark.parametrize(
    ("exttyp", "expected"), [(b"FEI1", True), (b"AGAR", True), (b"CCP4", False), (b"MRCO", False)]
)
def test_is_per_section(exttyp: bytes, expected: bool) -> None:
    assert kind_of(header(exttyp, b"", 3), 100).is_per_section is expected


@pytest.mark.parametrize("exttyp", [b"FEI1", b"FEI2", b"SERI", b"AGAR", b"CCP4"])
def test_what_was_reserved_and_never_written_is_normal(exttyp: bytes) -> None:
    raw = bytes(1760)
    metadata = read(header(exttyp, raw, 2), raw)
    assert is_empty(metadata)
    assert metadata.problems == ()


@settings(max_examples=150, deadline=None)
@given(
    raw=st.binary(max_size=3000),
    start=st.sampled_from([b"", struct.pack("<2i", 768, 0), struct.pack(">2i", 888, 2)]),
    exttyp=st.sampled_from([b"FEI1", b"FEI2", b"SERI", b"AGAR", b"CCP4", b"MRCO", b"json", b""]),
    byteorder=st.sampled_from("<>"),
    nz=st.integers(-3, 50) | st.sampled_from([2**31 - 1, 2**22, -(2**31)]),
    nint=st.integers(-32768, 32767) | st.integers(-1, 20) | st.just(128),
    nreal=st.integers(-32768, 32767) | st.integers(-1, 40) | st.just(32),
    labels=st.sampled_from([(), (b"Fei Company (C) Copyright 2003",)]),
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
    fields: dict[str, Any] = {"nint": nint, "nreal": nreal, "labels": labels}
    parsed = header(exttyp, raw, nz, byteorder=byteorder, **fields)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metadata = read(parsed, raw)
        chosen = read(parsed, raw, np.array([0, 2, 10**6]))
        assert 0 <= record_size(parsed, raw) <= 4 * 65534
        pixel_size(parsed, raw)
    for found, n in ((metadata, max(parsed.nz, 0)), (chosen, 3)):
        assert all(column.values.shape == (n,) for column in found.columns)
        assert all("x.mrc: " in problem.message("x.mrc") for problem in found.problems)
