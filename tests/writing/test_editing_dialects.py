"""Fields of several programs in the same bytes are written, or refused with the reason."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import by_hand
import numpy as np
import pytest
import xarray as xr
from writes import field

from mrc_xarray import MrcError, edit_header

PIXELS = np.random.default_rng(6).integers(-(2**15), 2**15, (8, 12, 10), "i2")
IMOD = {"imod_stamp": by_hand.IMOD_STAMP, "imod_flags": 4}
OURS = {"labels": (b"mrc_xarray 0.2.0",)}
# LSKFLG and the identity as skew matrix; its bytes are also those of EXTTYP and NVERSION
SKEW = struct.pack("12f", 1, 0, 0, 0, 1, 0, 0, 0, 1, 1.2, 3.4, 5.6)

# fields that the table of by_hand has not: first byte and code, as IMOD documents them
MORE = {
    "creatid": (96, "h"), "sub": (132, "h"), "zfac": (134, "h"), "min2": (136, "f"),
    "max2": (140, "f"), "min3": (144, "f"), "max3": (148, "f"), "idtype": (160, "h"),
    "lens": (162, "h"), "nd1": (164, "h"), "nd2": (166, "h"), "vd1": (168, "h"),
    "vd2": (170, "h"), "extra1": (96, "8s"), "extra2": (112, "84s"),
}  # fmt: skip
PLACES = by_hand.FIELDS | MORE

# a value of each field that leaves the file readable, and what else the file contains
ANY: dict[str, Any] = {
    "nx": 12, "ny": 10, "nz": 8, "mode": 6, "nxstart": -4, "nystart": 5, "nzstart": 7,
    "mx": 20, "my": 24, "mz": 16, "cella": (1.5, 2.5, 3.5), "cellb": (90, 100, 110),
    "mapc": 2, "mapr": 1, "maps": 3, "dmin": -1.5, "dmax": 2.5, "dmean": 0.5, "ispg": 19,
    "nsymbt": 0, "exttyp": "AGAR", "nversion": 20140, "nint": 3, "nreal": 4, "idtype": 1,
    "imod_stamp": by_hand.IMOD_STAMP, "imod_flags": 5, "tiltangles": (1, 2, 3, 4, 5, 6),
    "origin": (-1, 2, 3), "map": "MAP ", "rms": 3.5, "nlabl": 1, "lens": 7, "nd1": 2, "nd2": 1,
    "vd1": 150, "vd2": -6000, "sub": 9, "zfac": -9, "min2": -1.5, "max2": 8.25, "min3": 1e-3,
    "max3": 4.5, "creatid": 1000,
    "extra1": b"\0\0\0\0ABCD", "extra2": bytes(range(100, 184)),
}  # fmt: skip
IN_FILES_OF = {
    "voltage": (300.0, OURS), "c3": (2.7, OURS), "gain": (1.25, OURS),
    "lskflg": (0, {"lskflg": 1, "nversion": 0}),
}  # fmt: skip
CASES = {name: (value, {}) for name, value in ANY.items()} | IN_FILES_OF


def test_every_field_has_a_case() -> None:
    from mrc_xarray.writing.header_fields import FIELDS

    assert set(FIELDS) == {*CASES, "label", "machst", "packed_bytes"}


@pytest.mark.parametrize("order", "<>")
def test_each_field_is_written(path: Path, order: str) -> None:
    # axes, and sizes, change two by two
    pairs = {name: two for two in (("mapc", "mapr"), ("nx", "ny")) for name in two}
    for name, (_, fields) in CASES.items():
        before = by_hand.mrc(PIXELS, byteorder=order, **fields)
        path.write_bytes(before)
        given = {each: CASES[each][0] for each in pairs.get(name, (name,))}
        edit_header(path, **given)
        expected = bytearray(before)
        for each, value in given.items():
            offset, code = PLACES[each]
            stored = value.encode() if isinstance(value, str) else value
            packed = stored if isinstance(stored, tuple) else (stored,)
            struct.pack_into(order + code, expected, offset, *packed)
        assert path.read_bytes() == expected, name


def test_fields_over_the_same_bytes_are_refused_together(path: Path) -> None:
    path.write_bytes(before := by_hand.mrc(PIXELS))
    for one, other in (
        ("creatid", "lskflg"), ("voltage", "sub"), ("voltage", "zfac"), ("c3", "min2"),
        ("gain", "max2"), ("packed_bytes", "min3"), ("packed_bytes", "max3"),
    ):  # fmt: skip
        with pytest.raises(MrcError, match="share bytes") as caught:
            edit_header(path, **{other: 1, one: 1})
        for name in (one, other):
            assert f"{name.upper()} (bytes {PLACES[name][0]}–" in str(caught.value)
        assert path.read_bytes() == before


def skewed(**fields: Any) -> bytes:
    raw = bytearray(by_hand.mrc(PIXELS, lskflg=1, **fields))
    raw[100:148] = SKEW
    return bytes(raw)


OLD = {"map": bytes(4), "machst": struct.pack("<f", 30.0), "rms": 40.0}


@pytest.mark.parametrize(
    ("content", "edit", "reason"),
    [
        # over the skew matrix, also in a file of IMOD
        *((skewed(), {name: 1}, "skew") for name in ("voltage", "nint", "creatid", "nversion")),
        (skewed(**IMOD), {"exttyp": "FEI1"}, "skew"),
        # no matrix
        (by_hand.mrc(PIXELS), {"lskflg": 1}, "EXTTYP or NVERSION"),
        # mrcz's fields are read only in files by mrcz and by this package
        (by_hand.mrc(PIXELS, **IMOD), {"voltage": 300}, "no program would read it"),
        (by_hand.mrc(PIXELS, **OURS), {"zfac": 2}, "voltage, C3 and gain"),
        (by_hand.mrc(PIXELS, **OURS, voltage=300), {"label": ["a"]}, "hide VOLTAGE"),
        (by_hand.mrc(PIXELS), {"packed_bytes": 99}, "MRCZ"),
        # before 2000
        (by_hand.mrc(PIXELS, **OLD), {"origin": (1, 2, 3)}, "before 2000"),
        (by_hand.mrc(PIXELS, **OLD), {"rms": 2}, "before 2000"),
    ],
)
def test_field_whose_bytes_mean_something_else_is_refused(
    path: Path, content: bytes, edit: dict[str, Any], reason: str
) -> None:
    path.write_bytes(content)
    [name] = edit
    with pytest.raises(MrcError, match=reason) as caught:
        edit_header(path, **edit)
    assert re.search(rf"volume\.mrc: .*{name}", str(caught.value), re.IGNORECASE)
    assert path.read_bytes() == content


def test_field_is_written_where_the_same_call_makes_it_readable(path: Path) -> None:
    path.write_bytes(by_hand.mrc(PIXELS))
    edit_header(path, voltage=300, label=["MRCZ0.6.0"])
    assert xr.open_dataset(path, engine="mrc")["data"].attrs["voltage_kV"] == 300
    path.write_bytes(skewed())
    edit_header(path, lskflg=0, nversion=20141, exttyp="")
    assert (field(path, "lskflg"), field(path, "nversion")) == (0, 20141)
    path.write_bytes(by_hand.mrc(PIXELS, **OLD))
    edit_header(path, map="MAP ", machst=b"\x44\x44\0\0", origin=(1, 2, 3), rms=-1)
    assert xr.open_dataset(path, engine="mrc")["x"].values[0] == 1


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        ({"voxel_size": 2.0, "cella": (1, 2, 3)}, "cella"),
        ({"statistics": True, "dmin": 1, "rms": 2}, "dmin, rms"),
        ({"statistics": "quick"}, "True or False"),
        ({"voxelsize": 2.0}, r"voxelsize.*Did you mean voxel_size\?"),
    ],
)
def test_arguments_that_contradict_each_other(
    path: Path, edit: dict[str, Any], named: str
) -> None:
    path.write_bytes(before := by_hand.mrc(PIXELS))
    with pytest.raises(TypeError, match=named):
        edit_header(path, **edit)
    assert path.read_bytes() == before


def test_free_bytes_and_a_field_in_them(path: Path) -> None:
    path.write_bytes(before := by_hand.mrc(PIXELS))
    edit_header(path, extra2=b"\7" * 84, nint=2)
    expected = before[:112] + b"\7" * 16 + b"\2\0" + b"\7" * 66 + before[196:]
    assert path.read_bytes() == expected
    for value in (b"\7" * 83, "7" * 84, 7):
        with pytest.raises(TypeError, match=r"extra2 is .*accepted: 84 bytes"):
            edit_header(path, extra2=value)
    # −16224 at byte 96 is DeltaVision's
    with pytest.raises(MrcError, match="DeltaVision"):
        edit_header(path, extra1=b"\xa0\xc0".ljust(8, b"\0"))
    assert path.read_bytes() == expected


def test_short_text_is_padded_with_blanks(path: Path) -> None:
    path.write_bytes(by_hand.mrc(PIXELS, map=b"MAP\0"))
    edit_header(path, map="MAP", exttyp="")
    assert (field(path, "map"), field(path, "exttyp")) == (b"MAP ", bytes(4))
