"""A header as JSON: short, exact, and also as earlier versions wrote it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import by_hand
import numpy as np
import pytest
import xarray as xr

from mrc_xarray.mrc.header import Header

PIXELS = np.zeros((2, 3, 4), "f4")


def attribute(raw: bytes) -> str:
    return str(xr.open_dataset(io.BytesIO(raw), engine="mrc").data.attrs["mrc_header"])


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_only_what_differs_from_an_empty_header(byteorder: str) -> None:
    raw = by_hand.mrc(
        PIXELS,
        byteorder=byteorder,
        cella=(1.35, 3, 2),
        origin=(0, -0.0, 0),
        labels=(b"first".ljust(80), b"second", b"a\0b", b"", b"two  "),
        imod_stamp=by_hand.IMOD_STAMP,
        imod_flags=4,
    )
    text = attribute(raw)
    stamp = {"<": "494d4f4404", ">": "444f4d4900000004"}[byteorder]
    assert json.loads(text) == {
        "byteorder": byteorder,
        "nx": 4, "ny": 3, "nz": 2, "mode": 2, "mx": 4, "my": 3, "mz": 2,
        "cella": [1.35, 3, 2], "origin": [0, 0, 0],
        "ispg": 1, "nlabl": 5, "extra2": {"152": stamp},
        "label": [["first", 80], "second", {"384": "610062"}, "", "two  "],
    }  # fmt: skip
    assert "u0000" not in text
    # with the sign of −0
    assert Header.from_json(text).encode() == raw[:1024]


def test_an_empty_header_is_its_byte_order() -> None:
    assert json.loads(Header.blank(">").to_json()) == {"byteorder": ">"}
    zeros = Header.parse(bytes(1024), "<")
    assert Header.from_json(zeros.to_json()).encode() == bytes(1024)


def test_json_of_earlier_versions_is_read() -> None:
    raw = by_hand.mrc(PIXELS, voltage=300, labels=(b"MRCZ0.6.0", b"b\0c"), dmin=float("-inf"))
    header = Header.parse(raw, "<")
    # every field, with bytes as Latin-1 text
    values: dict[str, Any] = {name: header[name] for name in header}
    values |= {name: header[name].decode("latin-1") for name in ("machst", "extra1", "extra2")}
    earlier = json.dumps(values | {"dmin": "-inf"})
    assert "\\u0000" in earlier
    assert Header.from_json(earlier) == header


def test_real_headers(real_file: Any) -> None:
    folder: Path = real_file("README.md").parent
    files = [p for p in folder.rglob("*.*") if p.suffix in (".mrc", ".mrcs", ".map", ".ccp4")]
    assert len(files) > 15
    for path in files:
        raw = path.read_bytes()[:1024]
        header = Header.parse(raw, "<")
        text = header.to_json()
        again = Header.from_json(text)
        assert "u0000" not in text
        if path.name == "imp_invalid_axes.mrc":
            # garbage in its labels, and NaNs whose bits even Python's floats do not preserve
            assert repr(again.label) == repr(header.label)
        else:
            assert len(text) < 700
            assert again.encode() == raw


MALFORMED: list[Any] = [
    {"label": ["a"] * 11},
    {"label": [["a", 81]]},
    {"label": [["a", 10**12]]},
    {"label": [["ab", 1]]},
    {"label": 5},
    {"extra2": {"152": "zz"}},
    {"extra2": {"195": "0102"}},
    {"extra2": {"111": "01"}},
    {"extra2": {"x": "01"}},
    {"extra2": {"152": 1}},
    {"extra1": [1, 2]},
    {"nx": {"0": "01"}},
    {"nx": 2**40},
    {"cella": [1, 2]},
    {"byteorder": "="},
]


@pytest.mark.parametrize("fields", MALFORMED)
def test_anything_else_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        Header.from_json(json.dumps({"byteorder": "<", "nx": 1} | fields))
