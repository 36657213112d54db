"""The main header and the pixels of a file; mrcfile's validator is the oracle."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import by_hand
import fsspec
import mrcfile
import mrcz_by_hand as damage
import numpy as np
import pytest
import servers
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from validating import (
    DATA,
    HEADER_CODES,
    INF,
    NAN,
    NOT_IN_MRCFILE,
    STATISTICS,
    STRICT,
    TEXT,
    Fields,
    assert_as_mrcfile,
    codes,
    header_errors,
    judged,
    key,
    mrcfile_accepts,
    warned,
)
from writes import noise

import mrc_xarray
from mrc_xarray import MrcWarning, errors

RealFile = Callable[[str], Path]


# valid files ------------------------------------------------------------------------------------

SHAPES = {"image": (3, 4), "stack": (5, 3, 4), "volume": (5, 3, 4), "volumes": (2, 5, 3, 4)}


@pytest.mark.parametrize(
    ("dtype", "kind", "compression"),
    [
        *((dtype, "volume", None) for dtype in ("i1", "u2", "f2", "c8", ">f4")),
        *(("f4", kind, None) for kind in ("image", "stack", "volumes")),
        ("i2", "stack", "gzip"),
    ],
)  # fmt: skip
def test_valid_file_by_mrcfile(
    tmp_path: Path, dtype: str, kind: str, compression: str | None
) -> None:
    path = tmp_path / f"file.mrc{'.gz' if compression else ''}"
    shape = SHAPES[kind]
    with mrcfile.new(path, compression=compression) as mrc:
        # few and small values, because mrcfile adds float16 in float16
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
    "unchanged": {},
    "version 20140": {"nversion": 20140},
    "axes permuted": {"mapc": 3, "mapr": 1, "maps": 2, "mx": 3, "my": 2, "mz": 4},
    "cell 0": {"cella": (0, 0, 0)},
    "M 0 without a cell": {"cella": (0, 0, 0), "mx": 0, "my": 0, "mz": 0},
    "image stack": {"ispg": 0, "mz": 1},
    "space group": {"ispg": 19},
    "631 is not a stack": {"ispg": 631, "mz": 2},
    "volumes": {"ispg": 401, "mz": 1},
    "ten labels": {"labels": (b"text",) * 10},
    "blank label": {"labels": (b"text", b"   "), "nlabl": 1},
    "labels of control characters": {"labels": (b"\x1c", b"\x85", b"\xa0"), "nlabl": 3},
    "label after a NUL": {"labels": (b"\0text", b"  \0 "), "nlabl": 2},
    "no statistics": {"dmin": 0, "dmax": -1, "dmean": -2, "rms": -1},
    "only the mean": {"dmin": 0, "dmax": -1, "dmean": 11.5, "rms": -1},
    "only the range": {"dmean": -2, "rms": -1},
    "range of one number": {"dmin": 5, "dmax": 5, "dmean": 5},
    "not finite, undetermined": {"dmin": NAN, "dmax": NAN, "dmean": NAN, "rms": NAN},
    "mean above no minimum": {"dmin": NAN, "dmax": 5, "dmean": 7, "rms": -INF},
    "stamp of the standard": {"machst": b"\x44\x41\0\0"},
    "stamp of four equal bytes": {"machst": b"\x44" * 4},
    "big-endian stamp": {"byteorder": ">", "machst": b"\x11" * 4},
}


@pytest.mark.parametrize("case", VALID)
def test_valid(write: Any, case: str) -> None:
    assert assert_as_mrcfile(write(**VALID[case])) == []


def statistics(pixels: np.ndarray[Any, Any]) -> Fields:
    """Return the header fields; complex pixels have no order."""
    fields = {"rms": float(pixels.std())}
    if pixels.dtype.kind != "c":
        fields |= {"dmin": float(pixels.min()), "dmax": float(pixels.max())}
        fields["dmean"] = float(pixels.mean())
    return fields


PAIRS = np.arange(-30, 30, dtype="i2").reshape(2, 3, 10)
NIBBLES = (np.arange(30).reshape(2, 3, 5) % 16).astype("u1")


@pytest.mark.parametrize(
    ("mode", "stored", "pixels"),
    [
        (3, PAIRS, PAIRS[..., ::2] + 1j * PAIRS[..., 1::2]),
        (101, by_hand.pack_4bit(NIBBLES), NIBBLES),
    ],
)
def test_modes_of_the_standard_that_mrcfile_lacks(
    write: Any, mode: int, stored: Any, pixels: Any
) -> None:
    right = statistics(pixels)
    path = write(by_hand.mrc(stored, mode, shape=pixels.shape, **right))
    assert judged(path, data=True) == judged(path) == []
    assert not mrcfile_accepts(path)
    path = write(by_hand.mrc(stored, mode, shape=pixels.shape, **right | {"rms": 1}))
    assert codes(judged(path, data=True)) == ["statistics-rms"]
    assert codes(judged(write(path.read_bytes()[:-1]))) == ["truncated"]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("file.mrc", "i1"), ("file.mrc", "c8"), ("file.mrcz", "u2"), ("file.mrc.gz", "f4")],
)
def test_valid_file_by_to_mrc(tmp_path: Path, dtype: str, name: str) -> None:
    data = xr.DataArray(np.arange(60).reshape(3, 4, 5).astype(dtype), dims=("z", "y", "x"))
    mrc_xarray.to_mrc(data, tmp_path / name)
    assert judged(tmp_path / name, data=True) == judged(tmp_path / name) == []


# broken headers ---------------------------------------------------------------------------------

# fields; code, field, found and accepted of the problem; and the codes that may follow
Broken = tuple[Fields, str, str, str, str, set[str]]
EXTENDED = {"extended": TEXT}
BROKEN: dict[str, Broken] = {
    "no MAP": ({"map": bytes(4)}, "map-word", "MAP", r"\x00\x00\x00\x00", "MAP ", set()),
    "MAP and NUL": ({"map": b"MAP\0"}, "map-.+", "MAP", r"MAP\x00", "MAP ", set()),
    "stamp 0": ({"machst": bytes(4)}, "machine-stamp", "MACHST", "00 00 00 00", "44 44", set()),
    "both stamps": (
        {"machst": b"\x11\x44\0\0"}, "machine-stamp", "MACHST", "11 44 00 00", "44 41", set(),
    ),
    "mode 9": ({"mode": 9}, "mode", "MODE", "9", "101", set()),
    "MODE that is not in the standard": (
        {"mode": 7}, "extension", "MODE", "7", "0, 1, 2, 3, 4, 6, 12", HEADER_CODES,
    ),
    "RGB": ({"mode": 16}, "extension", "MODE", "16", "0, 1, 2", HEADER_CODES),
    "NX negative": ({"nx": -4}, "dimensions", "NX.*", "-4", "1", set()),
    "MX negative": ({"mx": -4}, "negative-field", "MX", "-4", "0", set()),
    "NLABL negative": ({"nlabl": -1}, "negative-field", "NLABL", "-1", "0", {"label-count"}),
    "cell negative": ({"cella": (-4, 3, 2)}, "negative-cell", r"CELLA\.x", "-4", "0", set()),
    "axes twice": ({"maps": 1}, "axes", "MAPC, MAPR, MAPS", "1, 2, 1", "1, 2, 3", set()),
    "MZ that does not divide NZ": (
        {"ispg": 401, "mz": 3}, "volume-stack", ".*MZ", "3", "2", {"extra-bytes", "truncated"},
    ),
    "volumes of no section": ({"ispg": 630, "mz": 0}, "volume-stack", ".*MZ", "0", "", set()),
    "gap in the labels": (
        {"labels": (b"one", b"", b"three"), "nlabl": 2}, "label-gap", "label 2|label 3", "", "",
        set(),
    ),
    "NLABL too large": ({"nlabl": 1}, "label-count", "NLABL", "1", "0", set()),
    "NLABL too small": (
        {"labels": (b"one", b"two"), "nlabl": 0}, "label-count", "NLABL", "0", "2", set(),
    ),
    "no version": ({"nversion": 0}, "version", "NVERSION", "0", "20141", set()),
    "EXTTYP unset": (EXTENDED | {"exttyp": b""}, "exttyp", "EXTTYP", "", "CCP4", set()),
    "EXTTYP of mrcz": (
        EXTENDED | {"exttyp": b"json"}, "extension", "EXTTYP", "json", "SERI", set(),
    ),
    "minimum": ({"dmin": 1}, "statistics-minimum", "DMIN", "1", "0", set()),
    "maximum": ({"dmax": 22}, "statistics-maximum", "DMAX", "22", "23", set()),
    "mean": ({"dmean": 12}, "statistics-mean", "DMEAN", "12", "11.5", set()),
    "infinite mean": ({"dmean": INF}, "statistics-mean", "DMEAN", "inf", "11.5", set()),
    "rms": ({"rms": 7.25}, "statistics-rms", "RMS", "7.25", "6.92", set()),
    "rms infinite": ({"rms": INF}, "statistics-rms", "RMS", "inf", "6.92", set()),
    "NSYMBT without the bytes": (
        {"nsymbt": 80, "exttyp": b"CCP4"}, "nsymbt", "NSYMBT", "80", "0", set(),
    ),
    "NSYMBT too short": (
        EXTENDED | {"nsymbt": 0}, "extra-bytes", "NX, NY, NZ.*", "4, 3, 2", "1200", HEADER_CODES,
    ),
}  # fmt: skip
# mrcfile accepts these, but the engine warns
SUSPICIOUS: dict[str, tuple[Fields, str, str, str]] = {
    "MX 0": ({"mx": 0}, "cell", "MX", "0"),
    "cell not a number": ({"cella": (4, NAN, 2)}, "cell", "CELLA.y", "nan"),
    "origin not a number": ({"origin": (NAN, 0, 0)}, "origin", "ORIGIN", "nan, 0, 0"),
    "origin huge": ({"origin": (0, 0, 1e30)}, "origin", "ORIGIN", "0, 0, 1e+30"),
    "NXSTART huge": ({"nxstart": 41}, "start", "NXSTART", "41"),
}


# one for each type of field
BIG_ENDIAN = ("mode 9", "cell negative", "axes twice", "NLABL too large", "rms", "no MAP")


@pytest.mark.parametrize(
    ("case", "order"), [(case, "<") for case in BROKEN] + [(case, ">") for case in BIG_ENDIAN]
)
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


@pytest.mark.parametrize("case", SUSPICIOUS)
def test_suspicious(write: Any, case: str) -> None:
    fields, *expected = SUSPICIOUS[case]
    [problem] = assert_as_mrcfile(write(**fields))
    assert [problem.code, problem.field, problem.found] == expected
    assert problem.severity == "warning"


def test_ccp4s_skew_is_no_version_and_no_extended_header(write: Any) -> None:
    """Its matrix is stored over EXTTYP and NVERSION, so mrcfile calls both wrong."""
    path = write(lskflg=1, extended=b"X,Y,Z".ljust(80))
    raw = bytearray(path.read_bytes())
    raw[100:148] = np.eye(3, 4, dtype="<f4").tobytes()
    path.write_bytes(raw)
    assert mrc_xarray.validate(path) == []


def test_all_problems_are_listed(write: Any) -> None:
    path = write(map=bytes(4), nversion=0, mapc=0, cella=(-1, -2, 3), mx=-1, my=-1, dmin=1, rms=0)
    assert sorted(codes(header_errors(assert_as_mrcfile(path)))) == [
        "axes", "map-word", "negative-cell", "negative-field", "statistics-minimum",
        "statistics-rms", "version",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "code"), [(-96, "truncated"), (-1, "truncated"), (1, "extra-bytes")]
)
def test_other_size(write: Any, change: int, code: str) -> None:
    raw = by_hand.mrc(DATA)
    path = write(raw[:change] if change < 0 else raw + bytes(change))
    [problem] = assert_as_mrcfile(path)
    assert problem.code == code
    assert str(1120 + change) in str(problem)


def test_no_data(write: Any) -> None:
    """Valid for mrcfile, which finds no data, as the header implies."""
    path = write(by_hand.header((2, 3, 0), 2))
    assert mrcfile_accepts(path)
    for data in (False, True):
        assert "dimensions" in codes(header_errors(judged(path, data=data)))


@pytest.mark.parametrize("dtype", ["i1", "f4"])
@pytest.mark.parametrize("order", "<>")
def test_stamp_of_the_other_order(write: Any, order: str, dtype: str) -> None:
    """Mode 2 is possible in one order only, and mrcfile then ignores the stamp."""
    stamp = by_hand.STAMPS["<" if order == ">" else ">"]
    path = write(by_hand.mrc(DATA.astype(dtype), byteorder=order, machst=stamp))
    [problem] = judged(path, data=True)
    assert (problem.code, problem.field) == ("machine-stamp", "MACHST")
    assert stamp.hex(" ") in problem.found
    assert mrcfile_accepts(path) == (dtype == "f4")


# pixels -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "value"), [("f2", NAN), ("f4", -INF), ("c8", INF)])
def test_not_finite(write: Any, dtype: str, value: float) -> None:
    data = DATA.astype(dtype)
    data[1, 2, 3] = value
    path = write(by_hand.mrc(data))
    [problem] = assert_as_mrcfile(path)
    assert (problem.code, problem.severity) == ("not-finite", "warning")
    assert problem.found == "NaN or infinite (1 in total, the first in section 1)"
    assert judged(path) == []


# of the finite pixels 0 to 22
FINITE = {"dmin": 0, "dmax": 22, "dmean": 11, "rms": float(np.arange(23).std())}


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        (FINITE, []),
        # what all pixels together have, as mrcfile calculates it, is not compared
        ({"dmin": 0, "dmax": INF, "dmean": NAN, "rms": NAN}, []),
        (FINITE | {"dmin": -1, "dmax": 23}, ["statistics-minimum", "statistics-maximum"]),
        (FINITE | {"dmean": 11.5}, ["statistics-part"]),
        (FINITE | {"rms": 1}, ["statistics-part"]),
    ],
    ids=str,
)
def test_statistics_are_of_the_finite_pixels(
    write: Any, value: float, fields: Fields, wrong: list[str]
) -> None:
    data = DATA.copy()
    data[1, 2, 3] = value
    problems = judged(write(by_hand.mrc(data, **fields)), data=True)
    assert sorted(codes(problems)) == sorted(["not-finite", *wrong])
    assert all("of the finite pixels" in p.accepted for p in problems if p.code != "not-finite")


def test_statistics_without_a_finite_pixel_are_undetermined(write: Any) -> None:
    data = np.full((2, 3, 4), NAN, "f4")
    assert codes(judged(write(by_hand.mrc(data)), data=True)) == ["not-finite"]
    problems = judged(write(by_hand.mrc(data, rms=1)), data=True)
    assert "undetermined" in {p.code: p.accepted for p in problems}["statistics-rms"]


def test_statistics_of_one_section_are_a_warning(write: Any) -> None:
    first = {"dmin": 0, "dmax": 11, "dmean": 5.5, "rms": float(np.arange(12).std())}
    assert codes(judged(write(by_hand.mrc(DATA, **first)), data=True)) == ["statistics-part"]
    problems = judged(write(by_hand.mrc(DATA, **(first | {"dmax": 10}))), data=True)
    assert "statistics-maximum" in codes(problems)


@pytest.mark.parametrize("dtype", ["i1", "i2", "u2", "f2", "f4", "c8"])
def test_statistics_of_every_type(write: Any, dtype: str) -> None:
    data = (DATA - (0 if dtype == "u2" else 12)).astype(dtype)
    if dtype == "c8":
        data += 1j * DATA[::-1]
    right = statistics(data)
    assert assert_as_mrcfile(write(by_hand.mrc(data, **right))) == []
    names = {"dmin": "minimum", "dmax": "maximum", "dmean": "mean", "rms": "rms"}
    for field, value in right.items():
        path = write(by_hand.mrc(data, **right | {field: value + 0.5}))
        assert codes(assert_as_mrcfile(path)) == [f"statistics-{names[field]}"]


@pytest.mark.parametrize("stamp", [{}, {"imod_stamp": by_hand.IMOD_STAMP, "imod_flags": 4}])
def test_mode_0_has_the_sign_that_the_engine_finds(write: Any, stamp: Fields) -> None:
    data = (DATA + 120).astype("u1")
    path = write(by_hand.mrc(data, 0, **statistics(data), **stamp))
    assert judged(path, data=True) == []
    # mrcfile takes all as signed
    assert not mrcfile_accepts(path)
    right = statistics(data.view("i1"))
    assert assert_as_mrcfile(write(by_hand.mrc(data, 0, **right))) == []
    path = write(by_hand.mrc(data, 0, **right, **stamp))
    assert bool(judged(path, data=True)) == bool(stamp)


def change(how: str, data: xr.DataArray, path: Path, mode: int | None) -> None:
    """Create a file, possibly in two steps."""
    if how == "create":
        options = {"dims": data.dims, "mode": mode, "fill": data.values.flat[-1]}
        mrc_xarray.create(path, data.shape, data.dtype, overwrite=True, **options)
        return
    first = data[:3] if how == "append_dim" else data
    mrc_xarray.to_mrc(first, path, mode=mode, statistics=how != "measure", overwrite=True)
    if how == "append_dim":
        mrc_xarray.to_mrc(data[3:], path, mode=mode, append_dim="image")
    elif how == "region":
        mrc_xarray.to_mrc(data[:1], path, mode=mode, region={"image": slice(1, 2)})
    elif how == "measure":
        mrc_xarray.edit_header(path, statistics=data.dtype.kind != "c")


@pytest.mark.filterwarnings("ignore::mrc_xarray.MrcWarning")
@pytest.mark.parametrize(
    ("dtype", "mode"),
    [
        ("u1", 0), ("f4", None), ("c8", None), ("rgb", None), ("u1", 101),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in (("c8", 3), ("u4", None))),
    ],
)  # fmt: skip
def test_output_of_to_mrc_is_valid(tmp_path: Path, dtype: str, mode: int | None) -> None:
    """In each kind of mode, with NaN where there can be, and after each change."""
    dims, code = ("image", "y", "x"), dtype
    if dtype == "rgb":
        dims, code = (*dims, "rgb"), "u1"
    pixels = noise((4, 6, 8, 3)[: len(dims)], code)
    pixels = {3: np.rint, 101: lambda found: found & 15}.get(mode or 0, np.array)(pixels)
    has_nan = mode is None and code in ("f2", "f4", "c8")
    if has_nan:
        pixels[0, 0, 0] = np.nan
    expected = {"extension"} if dtype in ("u4", "rgb") else set()
    expected |= {"not-finite"} if has_nan else set()
    path, data = tmp_path / "a.mrc", xr.DataArray(pixels, dims=dims)
    for how in ("new", "append_dim", "region", "create", "measure"):
        change(how, data, path, mode)
        # after an append, the mean is weighted by the number of all pixels
        found = set(codes(judged(path, data=True))) - ({"statistics-part"} if has_nan else set())
        assert found == expected - ({"not-finite"} if how == "create" else set())
    mrc_xarray.to_mrc(data, path, mode=mode, statistics="quick", overwrite=True)
    assert {problem.severity for problem in judged(path, data=True)} <= {"warning"}


def test_other_output_is_valid(tmp_path: Path) -> None:
    pixels = noise((4, 6, 8))
    pixels[0, 0, 0] = np.nan
    for name in ("a.mrcz", "a.mrc.gz"):
        with pytest.warns(MrcWarning, match="NaN"):
            mrc_xarray.to_mrc(pixels, tmp_path / name)
        assert codes(judged(tmp_path / name, data=True)) == ["not-finite"]
    mrc_xarray.to_mrc(DATA, tmp_path / "a.mrc", metadata={"a": 1})
    assert codes(judged(tmp_path / "a.mrc", data=True)) == ["extension"]


@pytest.mark.parametrize("dtype", ["f2", "f4"])
def test_sums_that_overflow_in_mrcfile(write: Any, dtype: str) -> None:
    """It adds float16 in float16, and squares float32 in float32."""
    data = np.full((4, 100, 100), 10, dtype)
    data[::2] = 20
    if dtype == "f4":
        data *= np.float32(1e20)
    path = write(by_hand.mrc(data, **statistics(data.astype("f8"))))
    assert judged(path, data=True) == []
    assert not mrcfile_accepts(path)


def test_large_files_are_measured_in_parts(write: Any) -> None:
    """More than one step of sections, and a section of more than one step."""
    for shape in ((5, 1024, 1024), (1, 2048, 2100)):
        data = np.zeros(shape, "f4")
        data[-1, -1] = np.nan
        [problem] = judged(write(by_hand.mrc(data)), data=True)
        assert f"({shape[2]} in total, the first in section {shape[0] - 1})" in problem.found


def test_pixels_are_read_only_with_data(tmp_path: Path) -> None:
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
# small, because mrcfile allocates the memory that a header implies; tests above cover sizes of 0,
# stamps of the other order and modes that mrcfile does not know
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


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True)
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


REAL_FILES = {
    "EMD-3197.map": ["version"],
    "EMD-3197.map.bz2": ["version"],
    "emd_3197.map.gz": ["version"],
    "fei-extended.mrc": [],
    "direct_electron/20241021_00405_final.mrc": ["negative-cell"],
    "direct_electron/20241021_00405_movie.mrc": ["negative-cell"],
    "direct_electron/Custom_movie.mrc": ["negative-cell"],
}


@pytest.mark.parametrize("name", REAL_FILES)
def test_real_file(real_file: RealFile, name: str) -> None:
    assert codes(assert_as_mrcfile(real_file(name))) == REAL_FILES[name]


# files that are not MRC --------------------------------------------------------------------------

NO_MRC: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty"),
    "half a header": (by_hand.mrc(DATA)[:1000], "short"),
    "Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid 0\n", "foreign"),
    "HTML": (b"<!DOCTYPE html>\n<html><body>404</body></html>".ljust(5000), "foreign"),
    "DeltaVision": (by_hand.mrc(DATA, lskflg=0xC0A0), "foreign"),
    "text": (b"The quick brown fox\n" * 99, "foreign"),
}


@pytest.mark.parametrize("case", NO_MRC)
def test_no_mrc(write: Any, case: str) -> None:
    raw, code = NO_MRC[case]
    path = write(raw)
    for data in (False, True):
        assert code in codes(header_errors(judged(path, data=data)))


@pytest.mark.parametrize("mode", [77, -1, 2101, 99006])
def test_unknown_mode_is_reported_as_the_reader_reports_it(write: Any, mode: int) -> None:
    path = write(by_hand.mrc(DATA, mode=mode, map=b"\0\0\0\0"))
    with pytest.raises(mrc_xarray.MrcError) as caught:
        xr.open_dataset(path, engine="mrc")
    problems = mrc_xarray.validate(path)
    assert [p.message(str(path)) for p in problems if p.code == "mode"] == [str(caught.value)]
    assert codes(problems) == ["mode", "map-word"]


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        mrc_xarray.validate(tmp_path / "none.mrc")
    with pytest.raises(OSError, match=r"directory|folder"):
        mrc_xarray.validate(tmp_path)


@st.composite
def damaged_files(draw: st.DrawFn) -> bytes:
    """Return a valid file with some bytes overwritten, or noise."""
    if draw(st.booleans()):
        return draw(st.binary(min_size=0, max_size=64)) * draw(st.integers(0, 70))
    valid = [by_hand.mrc(DATA, extended=TEXT), damage.file(damage.chunks()[:2], nz=2)]
    raw = bytearray(draw(st.sampled_from(valid)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, 1100) | st.integers(0, len(raw)))
        noise = draw(st.binary(min_size=1, max_size=8))
        raw[at : at + len(noise)] = noise
    return bytes(raw[: draw(st.integers(0, len(raw)) | st.just(len(raw)))])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(raw=damaged_files(), data=st.booleans())
def test_no_bytes_raise(raw: bytes, data: bool) -> None:
    judged(raw, data=data)


# the table, strict= and warnings ----------------------------------------------------------------


def test_rules() -> None:
    assert set(errors.RULES) >= HEADER_CODES | NOT_IN_MRCFILE
    assert {code for code, rule in errors.RULES.items() if rule.strict} == STRICT
    assert all(errors.RULES[code].severity == "error" for code in STRICT)


ERRORS_PAGE = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"


@pytest.mark.skipif(not ERRORS_PAGE.exists(), reason="the docs are not available")
def test_rules_are_documented() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (\w+) \| (.+) \|$", ERRORS_PAGE.read_text(), re.M)
    assert {code: (severity, meaning) for code, severity, meaning in rows} == {
        code: (rule.severity, rule.meaning) for code, rule in errors.RULES.items()
    }


EVERY = {name: row[0] for name, row in [*BROKEN.items(), *SUSPICIOUS.items()]}
# what the engine warns about when it opens a file; some stamps are normal
WARNED = STRICT - {"machine-stamp"} | {"cell", "negative-cell", "origin", "start"}


@pytest.mark.parametrize("case", EVERY)
def test_engine_warns_about_the_same_problems(write: Any, case: str) -> None:
    path = write(**EVERY[case])
    problems = judged(path)
    messages = warned(path)
    if messages is None:
        assert "error" in {p.severity for p in problems}
        return
    about = [[p.code for p in problems if p.field in m and p.found in m] for m in messages]
    assert all(about), messages
    assert {p.code for p in problems} & WARNED <= {code for found in about for code in found}
    is_refused = any(errors.RULES[p.code].strict for p in problems)
    assert (warned(path, strict=True) is None) == is_refused


# targets ----------------------------------------------------------------------------------------


@pytest.fixture
def broken(write: Any) -> Path:
    return write(map=bytes(4), nversion=0, dmin=1, mx=0, cella=(-4, 3, 2))


def test_any_target(broken: Path) -> None:
    raw = broken.read_bytes()
    expected = list(map(key, judged(broken, data=True)))
    assert len(expected) >= 4
    with broken.open("rb") as file:
        for target in (str(broken), f"file://{broken}", raw, io.BytesIO(raw), file):
            assert list(map(key, judged(target, data=True))) == expected
        assert not file.closed


def test_any_store(broken: Path) -> None:
    expected = list(map(key, judged(broken, data=True)))
    memory = fsspec.filesystem("memory")
    memory.pipe("/validate/file.mrc", broken.read_bytes())
    try:
        url = "memory://validate/file.mrc"
        assert list(map(key, judged(url, data=True, storage_options={}))) == expected
        with pytest.raises(FileNotFoundError, match="none"):
            mrc_xarray.validate("memory://validate/none.mrc")
    finally:
        memory.rm("/validate", recursive=True)
