"""What is wrong with a file: mrcfile's verdict is the oracle, and bytes by hand for the rest."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import re
import struct
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import by_hand
import de_by_hand as de
import fsspec
import mrcfile
import mrcz
import mrcz_by_hand as damage
import numpy as np
import pytest
import servers
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import mrc_xarray
from mrc_xarray import MrcError, MrcWarning, errors
from mrc_xarray.cli import main

Array = np.ndarray[Any, Any]
Fields = dict[str, Any]
Problems = list[Any]
RealFile = Callable[[str], Path]

NAN, INF = float("nan"), float("inf")
DATA = np.arange(24, dtype="f4").reshape(2, 3, 4)
STATISTICS = {"dmin": 0, "dmax": 23, "dmean": 11.5, "rms": float(DATA.std())}
TEXT = b"X,Y,Z".ljust(80)

ATTRIBUTES = ("code", "severity", "field", "offset", "found", "accepted", "action", "file")
HEADER_CODES = {
    "map-word", "machine-stamp", "mode", "dimensions", "negative-field", "negative-cell", "axes",
    "volume-stack", "label-gap", "label-count", "version", "exttyp", "nsymbt", "truncated",
    "extra-bytes", "cell", "origin", "start", "empty", "short", "foreign", "stream",
    "statistics-minimum", "statistics-maximum", "statistics-mean", "statistics-rms", "not-finite",
}  # fmt: skip
# what mrcfile does not look at
BESIDE_HEADER = {"block", "blocks", "packed-bytes", "extended-header", "sidecar", "scan"}
STRICT = {"map-word", "machine-stamp", "axes", "nsymbt", "truncated"}


def place(field: str) -> int | None:
    """Return the first byte of a header field, of several the first one's."""
    first = field.split(", ")[0]
    if match := re.fullmatch(r"label (\d+)", first):
        return 224 + 80 * (int(match[1]) - 1)
    name, _, axis = first.partition(".")
    if name.lower() not in by_hand.FIELDS:
        return None
    return by_hand.FIELDS[name.lower()][0] + 4 * "xyz".index(axis or "x")


def judged(target: Any, **options: Any) -> Problems:
    """Validate, and check of every problem what holds for all."""
    problems: Problems = mrc_xarray.validate(target, **options)
    assert isinstance(problems, list)
    for problem in problems:
        assert problem.severity == errors.RULES[problem.code].severity
        for name in ("field", "found", "accepted", "action"):
            assert isinstance(getattr(problem, name), str)
            assert getattr(problem, name) or problem.offset is None
        assert str(problem).isprintable()
        if problem.file == "" and (first := place(problem.field)) is not None:
            assert problem.offset == first
    keys = [key(problem) for problem in problems]
    assert len(set(keys)) == len(keys)
    return problems


def key(problem: Any) -> tuple[Any, ...]:
    return tuple(getattr(problem, name) for name in ATTRIBUTES)


def codes(problems: Problems) -> list[str]:
    return [problem.code for problem in problems]


def header_errors(problems: Problems) -> Problems:
    return [p for p in problems if p.severity == "error" and p.code not in BESIDE_HEADER]


def mrcfile_accepts(path: Path) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bool(mrcfile.validate(path, print_file=io.StringIO()))


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write bytes, by default those of a valid file but for some fields."""

    def write(raw: bytes | None = None, name: str = "file.mrc", **fields: Any) -> Path:
        path = tmp_path / name
        path.write_bytes(by_hand.mrc(DATA, **(STATISTICS | fields)) if raw is None else raw)
        return path

    return write


def assert_as_mrcfile(path: Path) -> Problems:
    """Compare the verdicts, and return our reasons."""
    problems = judged(path, data=True)
    assert bool(header_errors(problems)) == (not mrcfile_accepts(path)), problems
    return problems


# valid files ------------------------------------------------------------------------------------

SHAPES = {"image": (3, 4), "stack": (5, 3, 4), "volume": (5, 3, 4), "volumes": (2, 5, 3, 4)}


@pytest.mark.parametrize("compression", [None, "gzip", "bzip2"])
@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("dtype", ["i1", "i2", "u1", "u2", "f2", "f4", "c8", ">i2", ">f4"])
def test_mrcfiles_own(tmp_path: Path, dtype: str, kind: str, compression: str | None) -> None:
    suffix = {None: "", "gzip": ".gz", "bzip2": ".bz2"}[compression]
    path = tmp_path / f"file.mrc{suffix}"
    shape = SHAPES[kind]
    with mrcfile.new(path, compression=compression) as mrc:
        # it adds up float16 in float16: few and small ones
        mrc.set_data((np.arange(np.prod(shape)) % 7).reshape(shape).astype(dtype))
        if kind == "stack":
            mrc.set_image_stack()
        mrc.set_extended_header(np.frombuffer(TEXT, "V1"))
        mrc.header.exttyp = b"CCP4"
    assert mrcfile_accepts(path)
    assert judged(path, data=True) == judged(path) == []


@pytest.mark.parametrize("exttyp", [b"MRCO", b"SERI", b"AGAR", b"FEI1", b"FEI2", b"HDF5"])
def test_every_kind_of_extended_header(write: Any, exttyp: bytes) -> None:
    path = write(by_hand.mrc(DATA, extended=b"X" * 80, exttyp=exttyp))
    assert list(map(key, assert_as_mrcfile(path))) == list(map(key, judged(path)))


VALID: dict[str, Fields] = {
    "as it is": {},
    "version 20140": {"nversion": 20140},
    "axes permuted": {"mapc": 3, "mapr": 1, "maps": 2, "mx": 3, "my": 2, "mz": 4},
    "cell 0": {"cella": (0, 0, 0)},
    "cell minus 0": {"cella": (-0.0, 3, 2)},
    "M 0 without a cell": {"cella": (0, 0, 0), "mx": 0, "my": 0, "mz": 0},
    "image stack": {"ispg": 0, "mz": 1},
    "space group": {"ispg": 19},
    "400 is no stack": {"ispg": 400, "mz": 2},
    "631 is no stack": {"ispg": 631, "mz": 2},
    "volumes": {"ispg": 401, "mz": 1},
    "volumes to the last": {"ispg": 630, "mz": 2},
    "ten labels": {"labels": (b"text",) * 10},
    "blank label": {"labels": (b"text", b"   "), "nlabl": 1},
    "label of any blanks": {"labels": (b"text", b" \t\n\r\x0b\x0c"), "nlabl": 1},
    "label of other controls": {"labels": (b"\x1c", b"\x85", b"\xa0"), "nlabl": 3},
    "label behind a NUL": {"labels": (b"\0text", b"  \0 "), "nlabl": 2},
    "EXTTYP of nothing": {"exttyp": b"json"},
    "nothing determined": {"dmin": 0, "dmax": -1, "dmean": -2, "rms": -1},
    "nothing determined, Velox": {"dmin": 3, "dmax": 2, "dmean": 1, "rms": -1},
    "nothing but the mean": {"dmin": 0, "dmax": -1, "dmean": 11.5, "rms": -1},
    "nothing but the range": {"dmean": -2, "rms": -1},
    "one number as range": {"dmin": 5, "dmax": 5, "dmean": 5},
    "nearly": {"dmean": 11.6, "rms": 6.98},
    "not finite, undetermined": {"dmin": NAN, "dmax": NAN, "dmean": NAN, "rms": NAN},
    "mean below a minimum of nothing": {"dmin": NAN, "dmax": 5, "dmean": 7, "rms": -INF},
}


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("case", VALID)
def test_valid(write: Any, case: str, order: str) -> None:
    assert assert_as_mrcfile(write(byteorder=order, **VALID[case])) == []


@pytest.mark.parametrize(
    ("order", "stamp"), [("<", b"\x44\x41\0\0"), ("<", b"\x44" * 4), (">", b"\x11" * 4)]
)
def test_valid_stamp(write: Any, order: str, stamp: bytes) -> None:
    assert assert_as_mrcfile(write(byteorder=order, machst=stamp)) == []


def test_modes_of_the_standard_that_mrcfile_lacks(write: Any) -> None:
    shape = (2, 3, 5)
    pairs = np.arange(-30, 30, dtype="i2").reshape(2, 3, 10)
    rms = float((pairs[..., ::2] + 1j * pairs[..., 1::2]).std())
    for right in (-1, rms):
        path = write(by_hand.mrc(pairs, 3, shape=shape, rms=right))
        assert judged(path, data=True) == judged(path) == []
        assert not mrcfile_accepts(path)
    assert codes(judged(write(by_hand.mrc(pairs, 3, shape=shape, rms=1)), data=True)) == [
        "statistics-rms"
    ]
    pixels = (np.arange(30).reshape(shape) % 16).astype("u1")
    packed = by_hand.pack_4bit(pixels)
    right = {"dmin": 0, "dmax": 15, "dmean": float(pixels.mean()), "rms": float(pixels.std())}
    path = write(by_hand.mrc(packed, 101, shape=shape, **right))
    assert judged(path, data=True) == []
    assert not mrcfile_accepts(path)
    path = write(by_hand.mrc(packed, 101, shape=shape, **right | {"dmax": 14}))
    assert codes(judged(path, data=True)) == ["statistics-maximum"]
    path = write(by_hand.mrc(packed, 101, shape=shape)[:-1])
    assert codes(judged(path)) == ["truncated"]


@pytest.mark.parametrize("name", ["file.mrc", "file.mrcz", "file.mrc.gz"])
@pytest.mark.parametrize("dtype", ["i1", "u2", "f4", "c8"])
def test_our_own(tmp_path: Path, dtype: str, name: str) -> None:
    data = xr.DataArray(np.arange(60).reshape(3, 4, 5).astype(dtype), dims=("z", "y", "x"))
    mrc_xarray.to_mrc(data, tmp_path / name)
    assert judged(tmp_path / name, data=True) == judged(tmp_path / name) == []


# broken headers ---------------------------------------------------------------------------------

# fields, and the code, field, what was found and what is accepted; then codes of what follows
Broken = tuple[Fields, str, str, str, str, set[str]]
EXTENDED = {"extended": TEXT}
BROKEN: dict[str, Broken] = {
    "no MAP": ({"map": bytes(4)}, "map-word", "MAP", r"\x00\x00\x00\x00", "MAP ", set()),
    "other MAP": ({"map": b"map "}, "map-word", "MAP", "map ", "MAP ", set()),
    "MAP and NUL": ({"map": b"MAP\0"}, "map-.+", "MAP", r"MAP\x00", "MAP ", set()),
    "MAP and more": ({"map": b"MAPS"}, "map-.+", "MAP", "MAPS", "MAP ", set()),
    "stamp 0": ({"machst": bytes(4)}, "machine-stamp", "MACHST", "00 00 00 00", "44 44", set()),
    "half a stamp": (
        {"machst": b"\x44\0\0\0"}, "machine-stamp", "MACHST", "44 00 00 00", "11 11", set(),
    ),
    "both stamps": (
        {"machst": b"\x11\x44\0\0"}, "machine-stamp", "MACHST", "11 44 00 00", "44 41", set(),
    ),
    "mode 9": ({"mode": 9}, "mode", "MODE", "9", "101", set()),
    "mode -1": ({"mode": -1}, "mode", "MODE", "-1", "12", set()),
    "MODE that is not in the standard": (
        {"mode": 7}, "mode", "MODE", "7", "0, 1, 2, 3, 4, 6, 12", HEADER_CODES,
    ),
    "RGB": ({"mode": 16}, "mode", "MODE", "16", "0, 1, 2", HEADER_CODES),
    "NX negative": ({"nx": -4}, "dimensions", "NX.*", "-4", "1", set()),
    "NY negative": ({"ny": -3}, "dimensions", "(NX, )?NY.*", "-3", "1", set()),
    "NZ negative": ({"nz": -2}, "dimensions", "(NX, NY, )?NZ", "-2", "1", set()),
    "MX negative": ({"mx": -4}, "negative-field", "MX", "-4", "0", set()),
    "MY negative": ({"my": -(2**31)}, "negative-field", "MY", "-2147483648", "0", set()),
    "MZ negative": ({"mz": -1}, "negative-field", "MZ", "-1", "0", set()),
    "ISPG negative": ({"ispg": -1}, "negative-field", "ISPG", "-1", "0", set()),
    "NLABL negative": ({"nlabl": -1}, "negative-field", "NLABL", "-1", "0", {"label-count"}),
    "cell negative": ({"cella": (-4, 3, 2)}, "negative-cell", r"CELLA\.x", "-4", "0", set()),
    "cell minus infinity": (
        {"cella": (4, -INF, 2)}, "negative-cell", r"CELLA\.y", "-inf", "0", set(),
    ),
    "axes 0": ({"mapc": 0}, "axes", "MAPC, MAPR, MAPS", "0, 2, 3", "1, 2, 3", set()),
    "axes twice": ({"maps": 1}, "axes", "MAPC, MAPR, MAPS", "1, 2, 1", "1, 2, 3", set()),
    "MZ that does not divide NZ": (
        {"ispg": 401, "mz": 3}, "volume-stack", ".*MZ", "3", "2", {"extra-bytes", "truncated"},
    ),
    "volumes of no section": ({"ispg": 630, "mz": 0}, "volume-stack", ".*MZ", "0", "", set()),
    "gap in the labels": (
        {"labels": (b"one", b"", b"three"), "nlabl": 2}, "label-gap", "label 2|label 3", "", "",
        set(),
    ),
    "gap that NLABL counts": (
        {"labels": (b"one", b" ", b"three")}, "label-gap", "label 2|label 3", "", "",
        {"label-count"},
    ),
    "NLABL too large": ({"nlabl": 1}, "label-count", "NLABL", "1", "0", set()),
    "NLABL of eleven": (
        {"labels": (b"text",) * 10, "nlabl": 11}, "label-count", "NLABL", "11", "10", set(),
    ),
    "NLABL too small": (
        {"labels": (b"one", b"two"), "nlabl": 0}, "label-count", "NLABL", "0", "2", set(),
    ),
    "blank label that counts": (
        {"labels": (b"one", b"  ")}, "label-count", "NLABL", "2", "1", set(),
    ),
    "control that does not count": (
        {"labels": (b"one", b"\x1c"), "nlabl": 1}, "label-count", "NLABL", "1", "2", set(),
    ),
    "no version": ({"nversion": 0}, "version", "NVERSION", "0", "20141", set()),
    "version to come": ({"nversion": 20142}, "version", "NVERSION", "20142", "20140", set()),
    "EXTTYP unset": (EXTENDED | {"exttyp": b""}, "exttyp", "EXTTYP", "", "CCP4", set()),
    "EXTTYP blank": (EXTENDED | {"exttyp": b"    "}, "exttyp", "EXTTYP", "    ", "FEI1", set()),
    "EXTTYP unknown": (EXTENDED | {"exttyp": b"ccp4"}, "exttyp", "EXTTYP", "ccp4", "CCP4", set()),
    "EXTTYP of mrcz": (EXTENDED | {"exttyp": b"json"}, "exttyp", "EXTTYP", "json", "SERI", set()),
    "EXTTYP not text": (
        EXTENDED | {"exttyp": b"\xff\xfe\x80\0"}, "exttyp", "EXTTYP", "", "HDF5", set(),
    ),
    "minimum": ({"dmin": 1}, "statistics-minimum", "DMIN", "1", "0", set()),
    "maximum": ({"dmax": 22}, "statistics-maximum", "DMAX", "22", "23", set()),
    "infinite minimum": ({"dmin": -INF}, "statistics-minimum", "DMIN", "-inf", "0", set()),
    "mean": ({"dmean": 12}, "statistics-mean", "DMEAN", "12", "11.5", set()),
    "mean alone": (
        {"dmin": 0, "dmax": -1, "dmean": 0}, "statistics-mean", "DMEAN", "0", "11.5", set(),
    ),
    "mean above a minimum alone": (
        {"dmin": 5, "dmax": NAN, "dmean": 7}, "statistics-mean", "DMEAN", "7", "11.5", set(),
    ),
    "infinite mean": ({"dmean": INF}, "statistics-mean", "DMEAN", "inf", "11.5", set()),
    "rms": ({"rms": 7.25}, "statistics-rms", "RMS", "7.25", "6.92", set()),
    "rms 0": ({"rms": 0}, "statistics-rms", "RMS", "0", "6.92", set()),
    "rms minus 0": ({"rms": -0.0}, "statistics-rms", "RMS", "0", "6.92", set()),
    "rms infinite": ({"rms": INF}, "statistics-rms", "RMS", "inf", "6.92", set()),
    "NSYMBT without the bytes": (
        {"nsymbt": 80, "exttyp": b"CCP4"}, "nsymbt", "NSYMBT", "80", "0", set(),
    ),
    "NSYMBT too long": (
        {"nsymbt": 10**6, "exttyp": b"CCP4"}, "nsymbt", "NSYMBT", "1000000", "", set(),
    ),
    "NSYMBT negative": ({"nsymbt": -1}, "nsymbt", "NSYMBT", "-1", "", set()),
    "NSYMBT too short": (
        EXTENDED | {"nsymbt": 0}, "extra-bytes", "NX, NY, NZ.*", "4, 3, 2", "1200", HEADER_CODES,
    ),
}  # fmt: skip
# mrcfile does not object, but the engine warns
SUSPICIOUS: dict[str, tuple[Fields, str, str, str]] = {
    "MX 0": ({"mx": 0}, "cell", "MX", "0"),
    "MZ 0": ({"mz": 0}, "cell", "MZ", "0"),
    "cell not a number": ({"cella": (4, NAN, 2)}, "cell", "CELLA.y", "nan"),
    "cell infinite": ({"cella": (4, 3, INF)}, "cell", "CELLA.z", "inf"),
    "origin not a number": ({"origin": (NAN, 0, 0)}, "origin", "ORIGIN", "nan, 0, 0"),
    "origin huge": ({"origin": (0, 0, 1e30)}, "origin", "ORIGIN", "0, 0, 1e+30"),
    "NXSTART huge": ({"nxstart": 41}, "start", "NXSTART", "41"),
    "NZSTART huge": ({"nzstart": -(2**31)}, "start", "NZSTART", "-2147483648"),
}


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("case", BROKEN)
def test_broken(write: Any, case: str, order: str) -> None:
    fields, code, field, found, accepted, following = BROKEN[case]
    path = write(byteorder=order, **fields)
    problems = header_errors(assert_as_mrcfile(path))
    [problem] = [p for p in problems if re.fullmatch(code, p.code)]
    assert set(codes(problems)) - {problem.code} <= following
    assert re.fullmatch(field, problem.field)
    assert found in problem.found
    assert accepted in problem.accepted
    assert problem.action
    assert problem.file == ""
    if not problem.code.startswith("statistics"):
        assert key(problem) in map(key, judged(path))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("case", SUSPICIOUS)
def test_suspicious(write: Any, case: str, order: str) -> None:
    fields, *expected = SUSPICIOUS[case]
    path = write(byteorder=order, **fields)
    [problem] = assert_as_mrcfile(path)
    assert [problem.code, problem.field, problem.found] == expected
    assert problem.severity == "warning"
    assert str(problem) == str(judged(path)[0])


def test_all_is_told_at_once(write: Any) -> None:
    path = write(map=bytes(4), nversion=0, mapc=0, cella=(-1, -2, 3), mx=-1, my=-1, dmin=1, rms=0)
    assert sorted(codes(header_errors(assert_as_mrcfile(path)))) == [
        "axes", "map-word", "negative-cell", "negative-cell", "negative-field", "negative-field",
        "statistics-minimum", "statistics-rms", "version",
    ]  # fmt: skip


def test_statistics_only_where_asked(write: Any) -> None:
    path = write(dmin=1, dmax=2, dmean=3, rms=4)
    assert judged(path) == []
    assert len(judged(path, data=True)) == 4


@pytest.mark.parametrize("kept", [0, 1, 47, 48, 95])
def test_too_short(write: Any, kept: int) -> None:
    path = write(by_hand.mrc(DATA)[: 1024 + kept])
    [problem] = header_errors(assert_as_mrcfile(path))
    assert problem.code == "truncated"
    assert str(1024 + kept) in str(problem)
    assert "1120" in str(problem)


@pytest.mark.parametrize("more", [1, 96, 5000])
def test_too_long(write: Any, more: int) -> None:
    path = write(by_hand.mrc(DATA) + bytes(more))
    [problem] = assert_as_mrcfile(path)
    assert problem.code == "extra-bytes"
    assert str(1120 + more) in str(problem)


def test_too_short_behind_an_extended_header(write: Any) -> None:
    path = write(by_hand.mrc(DATA, extended=TEXT * 2, exttyp=b"CCP4")[:-30])
    assert set(codes(assert_as_mrcfile(path))) & {"truncated", "nsymbt"}


@pytest.mark.parametrize("shape", [(0, 0, 0), (0, 3, 4), (2, 0, 4), (2, 3, 0)])
def test_no_data(write: Any, shape: tuple[int, int, int]) -> None:
    """To mrcfile it is valid: no data, as promised."""
    path = write(by_hand.header(shape, 2))
    assert mrcfile_accepts(path)
    for data in (False, True):
        assert "dimensions" in codes(header_errors(judged(path, data=data)))


@pytest.mark.parametrize("dtype", ["i1", "f4"])
@pytest.mark.parametrize("order", "<>")
def test_stamp_of_the_other_order(write: Any, order: str, dtype: str) -> None:
    """Mode 2 makes sense in one order only, and mrcfile then passes over the stamp."""
    stamp = by_hand.STAMPS["<" if order == ">" else ">"]
    path = write(by_hand.mrc(DATA.astype(dtype), byteorder=order, machst=stamp))
    [problem] = judged(path, data=True)
    assert (problem.code, problem.field) == ("machine-stamp", "MACHST")
    assert stamp.hex(" ") in problem.found
    assert mrcfile_accepts(path) == (dtype == "f4")


# pixels -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f2", "f4", "c8"])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_not_finite(write: Any, dtype: str, value: float) -> None:
    data = DATA.astype(dtype)
    data[1, 2, 3] = value
    path = write(by_hand.mrc(data))
    [problem] = assert_as_mrcfile(path)
    assert (problem.code, problem.severity) == ("not-finite", "warning")
    assert judged(path) == []


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize(
    "fields",
    [
        {"rms": 1}, {"rms": INF}, {"dmin": 0, "dmax": 23}, {"dmean": 11.5}, {"dmean": INF},
        {"dmin": 0, "dmax": INF, "dmean": INF, "rms": NAN}, {"dmin": 0, "dmax": NAN, "rms": NAN},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("value", [NAN, INF])
def test_statistics_of_what_is_not_finite(write: Any, value: float, fields: Fields) -> None:
    data = DATA.copy()
    data[1, 2, 3] = value
    assert "not-finite" in codes(assert_as_mrcfile(write(by_hand.mrc(data, **fields))))


@pytest.mark.parametrize("dtype", ["i1", "i2", "u2", "f2", "f4"])
def test_statistics_of_every_type(write: Any, dtype: str) -> None:
    data = (DATA - (0 if dtype == "u2" else 12)).astype(dtype)
    right = {"dmin": data.min(), "dmax": data.max(), "dmean": data.mean(), "rms": data.std()}
    path = write(by_hand.mrc(data, **{k: float(v) for k, v in right.items()}))
    assert assert_as_mrcfile(path) == []
    for field, code in zip(right, ("minimum", "maximum", "mean", "rms"), strict=True):
        wrong = {k: float(v) for k, v in right.items()} | {field: float(right[field]) + 0.5}
        path = write(by_hand.mrc(data, **wrong))
        assert codes(assert_as_mrcfile(path)) == [f"statistics-{code}"]


def test_mode_0_is_signed(write: Any) -> None:
    data = (DATA + 120).astype("u1")
    path = write(by_hand.mrc(data, 0, dmin=120, dmax=143, dmean=131.5, rms=float(data.std())))
    assert header_errors(assert_as_mrcfile(path))


def test_statistics_of_complex_pixels(write: Any) -> None:
    data = (DATA + 1j * DATA[::-1]).astype("c8")
    assert assert_as_mrcfile(write(by_hand.mrc(data, rms=float(data.std())))) == []
    assert codes(assert_as_mrcfile(write(by_hand.mrc(data, rms=1)))) == ["statistics-rms"]


@pytest.mark.parametrize("dtype", ["f2", "f4"])
def test_numbers_that_mrcfile_has_no_room_for(write: Any, dtype: str) -> None:
    """It adds up float16 in float16, and squares float32 in float32."""
    data = np.full((4, 100, 100), 10, dtype)
    data[::2] = 20
    if dtype == "f4":
        data *= np.float32(1e20)
    wide = data.astype("f8")
    right = {"dmin": wide.min(), "dmax": wide.max(), "dmean": wide.mean(), "rms": wide.std()}
    path = write(by_hand.mrc(data, **right))
    assert judged(path, data=True) == []
    assert not mrcfile_accepts(path)


def test_pixels_are_read_only_where_asked(tmp_path: Path) -> None:
    path = tmp_path / "large.mrc"
    shape = (5120, 1024, 1024)
    path.write_bytes(by_hand.header(shape, 2, dmin=1, dmax=2, dmean=3, rms=4))
    with path.open("r+b") as file:
        file.truncate(1024 + 4 * int(np.prod(shape)))
    start = time.perf_counter()
    assert judged(path) == []
    assert time.perf_counter() - start < 2


def test_what_is_read_of_a_store(tmp_path: Path) -> None:
    data = np.zeros((16, 256, 256), "f4")
    (tmp_path / "file.mrc").write_bytes(by_hand.mrc(data, dmin=0, dmax=0, dmean=0, rms=1))
    with servers.http_server(tmp_path) as server:
        assert judged(server.url("file.mrc")) == []
        assert server.nbytes() <= 128 * 1024
        assert codes(judged(server.url("file.mrc"), data=True)) == ["statistics-rms"]
        assert server.nbytes() >= data.nbytes


# agreement with mrcfile -------------------------------------------------------------------------

FLOATS = [0.0, -0.0, 1.0, -1.0, 11.5, 23.0, float(DATA.std()), 1e30, -1e30, NAN, INF, -INF]
triples = st.tuples(*[st.sampled_from(FLOATS)] * 3)
# mrcfile asks for the memory that a header promises; and sizes of 0, stamps of the other order
# and modes that it does not know have tests of their own
sizes = st.sampled_from([-4, -1, 1, 2, 3, 4, 5, 100])
intervals = st.sampled_from([-(2**31), -2, -1, 0, 1, 2, 3, 4, 2**31 - 1])
axes = st.integers(-1, 4)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "nx": sizes, "ny": sizes, "nz": sizes, "mx": intervals, "my": intervals, "mz": intervals,
    "mode": st.sampled_from([-1, 0, 1, 2, 4, 5, 6, 7, 8, 9, 12, 16, 17, 100, 2**24, 2**31 - 1]),
    "nxstart": intervals, "nystart": intervals, "nzstart": intervals,
    "cella": triples, "cellb": triples, "origin": triples,
    "mapc": axes, "mapr": axes, "maps": axes,
    "ispg": st.sampled_from([-(2**31), -1, 0, 1, 2, 400, 401, 402, 630, 631, 2**31 - 1]),
    "nsymbt": st.sampled_from([-(2**31), -1024, -1, 0, 1, 79, 80, 81, 96, 176, 177, 1000]),
    "exttyp": st.sampled_from([b"", b"    ", b"CCP4", b"MRCO", b"json", b"FEI1", b"\xff\xfe"]),
    "nversion": st.sampled_from([-1, 0, 2014, 20139, 20140, 20141, 20142, 2**31 - 1]),
    "lskflg": st.integers(-1, 2), "nint": st.integers(-1, 40), "nreal": st.integers(-1, 40),
    "imod_stamp": st.just(by_hand.IMOD_STAMP), "imod_flags": st.integers(0, 31),
    "map": st.sampled_from([b"MAP ", b"MAP\0", b"MAP", b"map ", b" MAP", bytes(4), b"\xffAP "]),
    "machst": st.sampled_from([b"\x44\x41\0\0", b"\x44" * 4, b"\x44\0\0\0", b"\x11\x44\0\0", b""]),
    "dmin": st.sampled_from(FLOATS), "dmax": st.sampled_from(FLOATS),
    "dmean": st.sampled_from(FLOATS), "rms": st.sampled_from(FLOATS),
    "nlabl": st.sampled_from([-(2**31), -1, 0, 1, 2, 3, 10, 11]),
    "labels": st.lists(
        st.sampled_from([b"", b"text", b"  ", b"\t\r\n", b"\x1c", b"\xa0", b"\0a", b" \0 "]),
        max_size=10,
    ).map(tuple),
}  # fmt: skip


@st.composite
def changed_fields(draw: st.DrawFn) -> Fields:
    names = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=3, unique=True))
    return {name: draw(VALUES[name]) for name in names}


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    fields=changed_fields(),
    dtype=st.sampled_from(["f4", "i2", "i1"]),
    extended=st.sampled_from([b"", TEXT]),
)
def test_any_header(
    tmp_path_factory: pytest.TempPathFactory, fields: Fields, dtype: str, extended: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any_header.mrc"
    kind = {"exttyp": b"CCP4"} if extended else {}
    data = DATA.astype(dtype)
    path.write_bytes(by_hand.mrc(data, extended=extended, **(STATISTICS | kind | fields)))
    assert_as_mrcfile(path)


# a sample is checked for each line that stands for something
REAL_FILES = {
    "EMD-3197.map": ["version"],
    "EMD-3197.map.bz2": ["version"],
    "emd_3197.map.gz": ["version"],
    "fei-extended.mrc": [],
    "direct_electron/20241021_00405_final.mrc": ["negative-cell"] * 2,
    "direct_electron/20241021_00405_movie.mrc": ["negative-cell"] * 2,
    "direct_electron/Custom_movie.mrc": ["negative-cell"] * 2,
}


@pytest.mark.parametrize("name", REAL_FILES)
def test_real_file(real_file: RealFile, name: str) -> None:
    assert codes(assert_as_mrcfile(real_file(name))) == REAL_FILES[name]


# extended headers -------------------------------------------------------------------------------


def fei(n: int, size: int = 768) -> bytes:
    """Return blocks that hold nothing but their size, and the voltage."""
    block = bytearray(768)
    struct.pack_into("<iiI", block, 0, size, 0, 1 << 5)
    struct.pack_into("<d", block, 84, 300e3)
    return bytes(block) * n


STACK: Fields = {"ispg": 0, "mz": 1, "nz": 4}
FRAMES = np.zeros((4, 3, 4), "i2")
AGAR = struct.pack("<f", 30) * 4
# extended header, fields, and what is found
EXTENDED_BROKEN: dict[str, tuple[bytes, Fields, str]] = {
    "FEI1, too few blocks": (fei(2), {"exttyp": b"FEI1"}, "2 of 4"),
    "FEI1, last block cut": (fei(4)[:-100], {"exttyp": b"FEI1"}, "1 of 4"),
    "FEI1, wrong size": (fei(4, size=5), {"exttyp": b"FEI1"}, "5"),
    "FEI2, one block of another size": (
        fei(2) + fei(1, size=700) + fei(1), {"exttyp": b"FEI2"}, "1 of 4",
    ),
    "SERI, too few records": (
        b"\1\0" * 3, {"exttyp": b"SERI", "nint": 2, "nreal": 1}, "1 of 4",
    ),
    "SERI, flags of other bytes": (b"\1\0" * 4, {"exttyp": b"SERI", "nint": 2, "nreal": -3}, "-3"),
    "AGAR, no angle": (
        struct.pack("<f", 1e9) * 4, {"exttyp": b"AGAR", "nint": 0, "nreal": 1}, "1e+09",
    ),
    "AGAR, no numbers": (AGAR, {"exttyp": b"AGAR", "nint": -1, "nreal": -1}, "-1"),
    "CCP4, not text": (b"\x01\x02".ljust(80, b"\xff"), {"exttyp": b"CCP4"}, "not text"),
    "json, not JSON": (b"{nothing", {"exttyp": b"json"}, "not JSON"),
}  # fmt: skip


@pytest.mark.parametrize("case", EXTENDED_BROKEN)
def test_extended_header(write: Any, case: str) -> None:
    extended, fields, found = EXTENDED_BROKEN[case]
    path = write(by_hand.mrc(FRAMES, extended=extended, **(STACK | fields)))
    [problem] = [p for p in assert_as_mrcfile(path) if p.code != "exttyp"]
    assert problem.code == "extended-header"
    assert found in problem.found
    assert problem.offset == (place(problem.field) or 1024)
    assert key(problem) in map(key, judged(path))


def test_whole_extended_headers(write: Any) -> None:
    for extended, fields in [
        (fei(4), {"exttyp": b"FEI1"}),
        (fei(4) + bytes(5000), {"exttyp": b"FEI1"}),
        (bytes(4 * 768), {"exttyp": b"FEI1"}),
        (b"\1\0" * 4, {"exttyp": b"SERI", "nint": 2, "nreal": 1}),
        (AGAR, {"exttyp": b"AGAR", "nint": 0, "nreal": 1}),
    ]:
        path = write(by_hand.mrc(FRAMES, extended=extended, **(STACK | fields)))
        assert assert_as_mrcfile(path) == []


# MRCZ -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["i1", "u2", "i4", "f4", "c8"])
@pytest.mark.parametrize("meta", [None, {"stage": [1, 2]}], ids=["bare", "json"])
def test_mrczs_own(tmp_path: Path, dtype: str, meta: Any) -> None:
    """Its NVERSION is 0, its MX and MY are 0, and its statistics those of the first section."""
    data = np.random.default_rng(0).poisson(3, (4, 6, 8)).astype(dtype)
    path = tmp_path / "file.mrcz"
    for options in (
        {"compressor": "zstd", "clevel": 1},
        {"compressor": "lz4", "pixelsize": [1, 2, 3], "voltage": 300, "C3": 2.7},
    ):
        mrcz.writeMRC(data, str(path), meta=meta, **options)
        assert judged(path, data=True) == judged(path) == []
    mrcz.writeMRC(list(data), str(path), meta=meta, compressor="zstd")
    assert judged(path, data=True) == []


@pytest.mark.parametrize("dtype", ["u2", "f4"])
@pytest.mark.parametrize("meta", [None, {"stage": [1, 2]}], ids=["bare", "json"])
def test_mrcz_without_compression_is_judged_as_mrc(tmp_path: Path, dtype: str, meta: Any) -> None:
    data = np.random.default_rng(0).poisson(3, (4, 6, 8)).astype(dtype)
    path = tmp_path / "file.mrc"
    mrcz.writeMRC(data, str(path), meta=meta, compressor=None)
    assert "version" in codes(assert_as_mrcfile(path))


def test_mrcz_by_hand() -> None:
    raw = damage.file(damage.chunks(), damage.METADATA, exttyp=b"json")
    assert judged(raw, data=True) == judged(raw) == []


@damage.versions
@damage.positions
@pytest.mark.parametrize(("field", "value"), [("version", 9), ("nbytes", 3), ("typesize", 0)])
def test_block_header(version: int, k: int, field: str, value: int) -> None:
    blocks = damage.chunks(version)
    damage.put(blocks[k], field, value)
    [problem] = judged(damage.file(blocks))
    assert problem.code == "blocks"
    assert problem.field.endswith(f" of block {k}")
    assert "blocks" in codes(judged(damage.file(blocks), data=True))


@damage.versions
@damage.positions
def test_block_content(version: int, k: int) -> None:
    blocks = damage.chunks(version)
    blocks[k][32:] = bytes(len(blocks[k]) - 32)
    raw = damage.file(blocks)
    assert judged(raw) == []
    [problem] = judged(raw, data=True)
    assert problem.code == "block"
    assert problem.offset == damage.start_of(blocks, k)


def test_every_damaged_block_is_told() -> None:
    blocks = damage.chunks()
    for k in (2, 5, 7):
        blocks[k][32:] = bytes(len(blocks[k]) - 32)
    problems = judged(damage.file(blocks), data=True)
    assert codes(problems) == ["block"] * 3
    assert [p.offset for p in problems] == [damage.start_of(blocks, k) for k in (2, 5, 7)]


@pytest.mark.parametrize("packed_bytes", [1, -1, 2**40])
def test_packed_bytes(packed_bytes: int) -> None:
    [problem] = judged(damage.file(damage.chunks(), packed_bytes=packed_bytes))
    assert (problem.code, problem.offset) == ("packed-bytes", 144)
    assert str(packed_bytes) in problem.found


def test_packed_bytes_that_nobody_told() -> None:
    assert judged(damage.file(damage.chunks(), packed_bytes=0)) == []


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"map": bytes(4)}, "map-word"), ({"machst": bytes(4)}, "machine-stamp"),
        ({"mapc": 0}, "axes"), ({"nz": 0}, "dimensions"), ({"nz": damage.N + 1}, "truncated"),
        ({"mx": -1}, "negative-field"), ({"cella": (-1, 1, 1)}, "negative-cell"),
        ({"labels": (b"MRCZ0.6.0", b"", b"text"), "nlabl": 2}, "label-gap"),
        ({"nlabl": 2}, "label-count"), ({"nsymbt": -1}, "nsymbt"), ({"mode": 99006}, "mode"),
    ],
    ids=str,
)  # fmt: skip
def test_header_of_an_mrcz(fields: Fields, code: str) -> None:
    assert code in codes(judged(damage.file(damage.chunks(), **fields), data=True))


def test_mrcz_that_is_no_file_of_blocks() -> None:
    for raw in (
        damage.file(damage.chunks())[:-1],
        damage.file(damage.chunks()) + b"\7" * 50,
        damage.file([bytearray(5000)]),
        damage.file([]),
    ):
        for data in (False, True):
            assert judged(raw, data=data)


# streams ----------------------------------------------------------------------------------------

PACK = {".gz": gzip.compress, ".bz2": bz2.compress}


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("case", ["MAP and NUL", "version to come", "maximum", "NSYMBT too short"])
def test_broken_in_a_stream(write: Any, case: str, suffix: str) -> None:
    fields, *_ = BROKEN[case]
    plain = write(**fields)
    path = write(PACK[suffix](plain.read_bytes()), f"file.mrc{suffix}")
    problems = assert_as_mrcfile(path)
    assert codes(problems) == codes(judged(plain, data=True))
    assert [p.offset for p in problems] == [p.offset for p in judged(plain, data=True)]


@pytest.mark.parametrize("suffix", PACK)
def test_length_of_what_is_in_a_stream(write: Any, suffix: str) -> None:
    # longer than what is decoded when opening
    raw = by_hand.mrc(np.random.default_rng(0).random((40, 64, 64)).astype("f4"))
    name = f"file.mrc{suffix}"
    assert assert_as_mrcfile(write(PACK[suffix](raw), name)) == []
    assert codes(assert_as_mrcfile(write(PACK[suffix](raw + b"\0"), name))) == ["extra-bytes"]
    assert codes(assert_as_mrcfile(write(PACK[suffix](raw[:-1]), name))) == ["truncated"]


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("shape", [(2, 3, 4), (40, 64, 64)], ids=["small", "large"])
def test_damaged_stream(write: Any, shape: tuple[int, ...], suffix: str) -> None:
    data = np.random.default_rng(0).random(shape).astype("f4")
    packed = bytearray(PACK[suffix](by_hand.mrc(data)))
    name = f"file.mrc{suffix}"
    problems = assert_as_mrcfile(write(packed[:-20], name))
    assert set(codes(problems)) & {"stream", "truncated"}
    for at in (-6, len(packed) // 2):
        damaged = packed.copy()
        damaged[at] ^= 0xFF
        assert "stream" in codes(assert_as_mrcfile(write(damaged, name)))


def test_streams_that_are_not_decoded_are_problems(write: Any) -> None:
    zstd = write(b"\x28\xb5\x2f\xfd\x04\0" + bytes(2000), "file.mrc.zst")
    two = io.BytesIO()
    with zipfile.ZipFile(two, "w") as archive:
        archive.writestr("a", b"A")
        archive.writestr("b", b"B")
    for path in (zstd, write(two.getvalue(), "file.zip")):
        assert header_errors(judged(path))


def test_text_in_a_stream(write: Any) -> None:
    for packed in (gzip.compress(b"text\n"), gzip.compress(b"text\n" * 999), b"\x1f\x8b\x08\0"):
        for data in (False, True):
            assert header_errors(judged(write(packed, "file.mrc.gz"), data=data))


# sidecars ---------------------------------------------------------------------------------------

ENTRIES = "".join(f"[ZValue = {i}]\nTiltAngle = {i}\n" for i in range(4))
# name of the sidecar, its bytes, and where the line begins; field, and what is found
SIDECARS: dict[str, tuple[str, bytes, bytes | None, str, str]] = {
    "mdoc, no key": (
        "series.st.mdoc", f"{ENTRIES}nonsense\nB = 1\n".encode(), b"nonsense", "", "nonsense",
    ),
    "mdoc, indented": (
        "series.st.mdoc", f"{ENTRIES}  nonsense\n".encode(), b"  nonsense", "", "nonsense",
    ),
    "mdoc, CRLF and a mark": (
        "series.st.mdoc", f"\ufeffA = µm\n\n{ENTRIES}nonsense\n".replace("\n", "\r\n").encode(),
        b"nonsense", "", "nonsense",
    ),
    "mdoc, Latin-1": (
        "series.st.mdoc", f"A = µm\n{ENTRIES}nonsense\n".encode("latin-1"), b"nonsense", "",
        "nonsense",
    ),
    "mdoc, no number": (
        "series.st.mdoc", ENTRIES.replace("= 2\n", "= up\n").encode(), b"TiltAngle = up",
        "TiltAngle", "up",
    ),
    "tilts, no number": ("series.rawtlt", b"1\r\n2\r\nthree\r\n4\r\n", b"three", "", "three"),
    "tilts, too few": ("series.rawtlt", b"1\n2\n3\n", None, "", "3"),
    "tilts, too many": ("series.tlt", b"1\n2\n3\n4\n5\n", None, "", "5"),
}  # fmt: skip


@pytest.mark.parametrize("case", SIDECARS)
def test_sidecar(write: Any, case: str) -> None:
    name, raw, line, field, found = SIDECARS[case]
    write(raw, name)
    path = write(by_hand.mrc(FRAMES, **STACK), "series.st")
    [problem] = assert_as_mrcfile(path)
    assert (problem.code, problem.file) == ("sidecar", name)
    assert found in problem.found
    assert field in problem.field
    assert problem.offset == (None if line is None else raw.index(line))
    assert name in str(problem)


def test_right_sidecars(write: Any) -> None:
    path = write(by_hand.mrc(FRAMES, **STACK), "series.st")
    write(ENTRIES.encode(), "series.st.mdoc")
    write(b"1\n2\n3\n4\n", "series.rawtlt")
    assert judged(path, data=True) == []


def test_info_file(tmp_path: Path) -> None:
    path = de.write(tmp_path, de.frames(12), {"Exposure Time (seconds)": "soon"})
    [problem] = [p for p in assert_as_mrcfile(path) if p.code != "negative-cell"]
    raw = de.info({"Exposure Time (seconds)": "soon"})
    assert (problem.code, problem.file) == ("sidecar", f"{de.STEM}_info.txt")
    assert problem.field == "Exposure Time (seconds)"
    assert problem.offset == raw.index(b"Exposure Time")
    assert "soon" in problem.found


@pytest.mark.parametrize(
    ("changed", "positions", "file"),
    [
        ({"Scan - Size X": 5}, None, "info.txt"),
        ({"Scan - Size X": "?"}, None, "info.txt"),
        (de.XY_FILE, [(0, 0)] * 11, "scan_coordinates.csv"),
        (de.XY_FILE, [(0, 0), (-1, 0)] * 6, "scan_coordinates.csv"),
    ],
)
def test_scan(tmp_path: Path, changed: Any, positions: Any, file: str) -> None:
    path = de.write(tmp_path, de.frames(12), changed, positions)
    problems = [p for p in assert_as_mrcfile(path) if p.code != "negative-cell"]
    assert problems
    assert set(codes(problems)) <= {"scan", "sidecar"}
    assert f"{de.STEM}_{file}" in {p.file for p in problems}


def test_right_scan(tmp_path: Path) -> None:
    for changed, n, positions in (({}, 12, None), (de.XY_FILE, 8, de.POSITIONS)):
        path = de.write(tmp_path, de.frames(n), changed, positions)
        assert codes(judged(path, data=True)) == ["negative-cell"] * 2


# what is no MRC file ----------------------------------------------------------------------------

NO_MRC: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty"),
    "ten bytes": (b"0123456789", "short"),
    "half a header": (by_hand.mrc(DATA)[:1000], "short"),
    "Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid 0\n", "foreign"),
    "HTML": (b"<!DOCTYPE html>\n<html><body>404</body></html>".ljust(5000), "foreign"),
    "TIFF": (b"II*\0\x08\0\0\0" + bytes(2000), "foreign"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(2000), "foreign"),
    "DeltaVision": (by_hand.mrc(DATA, lskflg=0xC0A0), "foreign"),
    "PNG": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 8, ""),
    "text": (b"The quick brown fox\n" * 99, ""),
    "noise": (np.random.default_rng(1).bytes(4096), ""),
    "zeros": (bytes(4096), ""),
}


@pytest.mark.parametrize("data", [False, True])
@pytest.mark.parametrize("case", NO_MRC)
def test_no_mrc(write: Any, case: str, data: bool) -> None:
    raw, code = NO_MRC[case]
    problems = header_errors(judged(write(raw), data=data))
    assert problems
    if code:
        assert codes(problems) == [code]


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        mrc_xarray.validate(tmp_path / "none.mrc")
    with pytest.raises(OSError, match=r"directory|folder"):
        mrc_xarray.validate(tmp_path)


@st.composite
def damaged_files(draw: st.DrawFn) -> bytes:
    """Overwrite some bytes of a file that is valid, or take nothing but noise."""
    if draw(st.booleans()):
        return draw(st.binary(min_size=0, max_size=64)) * draw(st.integers(0, 70))
    whole = [by_hand.mrc(DATA, extended=TEXT), damage.file(damage.chunks()[:2], nz=2)]
    raw = bytearray(draw(st.sampled_from(whole)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, 1100) | st.integers(0, len(raw)))
        noise = draw(st.binary(min_size=1, max_size=8))
        raw[at : at + len(noise)] = noise
    return bytes(raw[: draw(st.integers(0, len(raw)) | st.just(len(raw)))])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(raw=damaged_files(), data=st.booleans())
def test_no_bytes_raise(raw: bytes, data: bool) -> None:
    judged(raw, data=data)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_noise(seed: int) -> None:
    raw = np.random.default_rng(seed).bytes(4096)
    assert header_errors(judged(raw, data=True))
    judged(by_hand.mrc(DATA)[:216] + raw, data=True)
    judged(by_hand.mrc(DATA)[:16] + raw, data=True)


# the table, strict= and warnings ----------------------------------------------------------------


def test_rules() -> None:
    assert set(errors.RULES) >= HEADER_CODES | BESIDE_HEADER
    assert {code for code, rule in errors.RULES.items() if rule.strict} == STRICT
    for code, rule in errors.RULES.items():
        assert re.fullmatch("[a-z]+(-[a-z]+)*", code)
        assert rule.severity in ("error", "warning", "note")
        assert rule.meaning
    for code in ("cell", "origin", "start", "not-finite"):
        assert errors.RULES[code].severity == "warning"
    assert all(errors.RULES[code].severity == "error" for code in STRICT)


ERRORS_PAGE = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"


@pytest.mark.skipif(not ERRORS_PAGE.exists(), reason="the docs are not here")
def test_rules_are_documented() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (\w+) \| (.+) \|$", ERRORS_PAGE.read_text(), re.M)
    assert {code: (severity, meaning) for code, severity, meaning in rows} == {
        code: (rule.severity, rule.meaning) for code, rule in errors.RULES.items()
    }


EVERY = {name: row[0] for name, row in [*BROKEN.items(), *SUSPICIOUS.items()]}


def warned(path: Path) -> list[str] | None:
    """Return what the engine warns of; None where it can't open the file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            xr.open_dataset(path, engine="mrc")
        except MrcError:
            return None
    assert all(issubclass(one.category, MrcWarning) for one in caught)
    return [str(one.message) for one in caught]


@pytest.mark.parametrize("case", EVERY)
def test_warnings_of_the_engine_are_problems(write: Any, case: str) -> None:
    path = write(**EVERY[case])
    problems = judged(path)
    for message in warned(path) or []:
        assert any(p.field in message and p.found in message for p in problems), message


@pytest.mark.parametrize("case", SIDECARS)
def test_warnings_of_sidecars_are_problems(write: Any, case: str) -> None:
    name, raw, *_ = SIDECARS[case]
    write(raw, name)
    path = write(by_hand.mrc(FRAMES, **STACK), "series.st")
    (message,) = warned(path) or []
    [problem] = judged(path)
    for part in (problem.file, problem.field, problem.found, problem.accepted, problem.action):
        assert part in message


@pytest.mark.filterwarnings("ignore::mrc_xarray.MrcWarning")
@pytest.mark.parametrize("case", EVERY)
def test_strict_is_by_the_same_table(write: Any, case: str) -> None:
    path = write(**EVERY[case])
    if warned(path) is None:
        assert judged(path)
    elif any(errors.RULES[p.code].strict for p in judged(path)):
        with pytest.raises(MrcError):
            xr.open_dataset(path, engine="mrc", strict=True)
    else:
        xr.open_dataset(path, engine="mrc", strict=True)


@pytest.mark.parametrize("code", sorted(STRICT))
def test_strict_raises(write: Any, code: str) -> None:
    fields = {
        "map-word": {"map": bytes(4)}, "machine-stamp": {"machst": bytes(4)}, "axes": {"mapc": 0},
        "nsymbt": {"nsymbt": 80, "exttyp": b"CCP4"}, "truncated": {"nz": 3},
    }[code]  # fmt: skip
    path = write(**fields)
    assert code in codes(judged(path))
    with pytest.raises(MrcError):
        xr.open_dataset(path, engine="mrc", strict=True, truncated="trim")


# targets ----------------------------------------------------------------------------------------


@pytest.fixture
def broken(write: Any) -> Path:
    return write(map=bytes(4), nversion=0, dmin=1, mx=0, cella=(-4, 3, 2))


def test_any_target(broken: Path) -> None:
    raw = broken.read_bytes()
    expected = sorted(map(key, judged(broken, data=True)), key=str)
    assert len(expected) >= 4
    targets: Iterator[Any] = iter((str(broken), f"file://{broken}", raw, io.BytesIO(raw)))
    for target in targets:
        assert sorted(map(key, judged(target, data=True)), key=str) == expected
    with broken.open("rb") as file:
        assert sorted(map(key, judged(file, data=True)), key=str) == expected
        assert not file.closed


def test_any_store(broken: Path) -> None:
    expected = list(map(key, judged(broken, data=True)))
    with servers.http_server(broken.parent) as server:
        assert list(map(key, judged(server.url("file.mrc"), data=True))) == expected
        with pytest.raises(OSError, match="none"):
            mrc_xarray.validate(server.url("none.mrc"))
    memory = fsspec.filesystem("memory")
    memory.pipe("/validate/file.mrc", broken.read_bytes())
    try:
        url = "memory://validate/file.mrc"
        assert list(map(key, judged(url, data=True, storage_options={}))) == expected
    finally:
        memory.rm("/validate", recursive=True)


# the command ------------------------------------------------------------------------------------


def strictly(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_command_on_a_valid_file(write: Any, capsys: Any) -> None:
    path = write()
    assert main(["validate", str(path)]) == 0
    out, err = capsys.readouterr()
    assert str(path) in out
    assert "valid" in out
    assert err == ""


def test_command_tells_a_line_a_problem(broken: Path, capsys: Any) -> None:
    for options in ([], ["--data"]):
        assert main(["validate", str(broken), *options]) == 1
        out, err = capsys.readouterr()
        problems = judged(broken, data=bool(options))
        lines = [line for line in out.splitlines() if line.strip().rstrip(":") != str(broken)]
        assert str(broken) in out
        assert len(lines) == len(problems)
        for line, problem in zip(lines, problems, strict=True):
            assert problem.field in line
            assert problem.found in line
        assert err == ""


def test_command_counts_a_warning(write: Any, capsys: Any) -> None:
    assert main(["validate", str(write(mx=0))]) == 1
    assert "MX" in capsys.readouterr().out


def test_command_reads_pixels_only_where_asked(write: Any, capsys: Any) -> None:
    path = write(dmin=1)
    assert main(["validate", str(path)]) == 0
    assert main(["validate", "--data", str(path)]) == 1
    assert "DMIN" in capsys.readouterr().out


def test_command_as_json(write: Any, broken: Path, capsys: Any) -> None:
    valid, nan = write(name="valid.mrc"), write(name="nan.mrc", cella=(4, NAN, INF), dmean=INF)
    files = [valid, broken, nan]
    assert main(["validate", "--json", "--data", *map(str, files)]) == 1
    told = strictly(capsys.readouterr().out)
    assert [one["file"] for one in told] == list(map(str, files))
    for one, path in zip(told, files, strict=True):
        assert set(one) == {"file", "valid", "problems"}
        problems = judged(path, data=True)
        assert one["valid"] is (not problems)
        assert all(set(problem) == set(ATTRIBUTES) for problem in one["problems"])
        assert [tuple(p[name] for name in ATTRIBUTES) for p in one["problems"]] == [
            key(problem) for problem in problems
        ]
    assert main(["validate", "--json", str(valid)]) == 0
    [one] = strictly(capsys.readouterr().out)
    assert one == {"file": str(valid), "valid": True, "problems": []}


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_command_goes_on_after_a_file_that_is_not_there(
    write: Any, tmp_path: Path, capsys: Any, options: list[str]
) -> None:
    path, missing = write(), tmp_path / "none.mrc"
    assert main(["validate", *options, str(missing), str(tmp_path), str(path)]) == 1
    out, err = capsys.readouterr()
    assert str(missing) in out + err
    assert "Traceback" not in out + err
    if options:
        assert [one["valid"] for one in strictly(out) if one["file"] == str(path)] == [True]
        assert not any(one["valid"] for one in strictly(out) if one["file"] != str(path))
    else:
        assert str(path) in out


def test_command_on_what_is_no_mrc(write: Any, capsys: Any) -> None:
    for case, (raw, _) in NO_MRC.items():
        path = write(raw)
        assert main(["validate", "--data", str(path)]) == 1, case
        out, err = capsys.readouterr()
        assert str(path) in out
        assert "Traceback" not in out + err


def test_command_shows_no_control_characters(write: Any, capsys: Any) -> None:
    path = write(
        by_hand.mrc(
            FRAMES, extended=b"\x1b[2J" * 20, exttyp=b"\x1b]0\x07", map=b"\x1b[7m",
            labels=(b"\x1b[31mred", b"", b"\x9b31m\r\x07"), nlabl=2, **STACK,
        ),
        "series.st",
    )  # fmt: skip
    write(b"\x1b[31mnonsense\x07\x9b\n" + ENTRIES.encode(), "series.st.mdoc")
    assert {"label-gap", "exttyp", "map-word", "sidecar"} <= set(codes(judged(path)))
    for options in ([], ["--json"]):
        assert main(["validate", *options, str(path)]) == 1
        out, err = capsys.readouterr()
        assert not set(out + err) & set(map(chr, [*range(10), *range(11, 32), *range(127, 160)]))
