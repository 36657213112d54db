"""CCP4's symmetry operators, by hand."""

from __future__ import annotations

import pytest
from records_by_hand import header, is_empty, kind, read, record_size

SYMMETRY = ("X,Y,Z", "-X,Y+1/2,-Z")


@pytest.mark.parametrize(("exttyp", "fill"), [(b"CCP4", b" "), (b"", b"\0")])
def test_ccp4(exttyp: bytes, fill: bytes) -> None:
    raw = b"".join(line.encode().ljust(80, fill) for line in SYMMETRY) + fill * 80
    parsed = header(exttyp, raw, 3)
    assert kind(parsed, raw).name == "CCP4"
    assert record_size(parsed, raw) == 0
    metadata = read(parsed, raw)
    assert metadata.columns == ()
    assert metadata.values == {"symmetry": ("X,Y,Z\n-X,Y+1/2,-Z", "")}
    assert metadata.problems == ()


@pytest.mark.parametrize("raw", [b" " * 160, bytes(160)])
def test_ccp4_that_is_blank(raw: bytes) -> None:
    metadata = read(header(b"CCP4", raw, 3), raw)
    assert is_empty(metadata)
    assert metadata.problems == ()


def test_ccp4_that_is_something_else() -> None:
    raw = bytes(range(160))
    metadata = read(header(b"", raw, 3), raw)
    assert is_empty(metadata)
    assert "not text" in metadata.problems[0].message("x")


@pytest.mark.parametrize("nint", [0, 4])
def test_ccp4s_skew_matrix_is_no_record(nint: int) -> None:
    """Its floats are where EXTTYP, NINT and NREAL are."""
    raw = b"X,Y,Z".ljust(80)
    parsed = header(b"\0\0\x80?", raw, 3, lskflg=1, nversion=0, nint=nint, nreal=1)
    assert kind(parsed, raw).name == "CCP4"
    assert read(parsed, raw).values == {"symmetry": ("X,Y,Z", "")}
