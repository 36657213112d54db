"""Any bytes either open and load or raise MrcError, quickly and within little memory.

Property tests of headers, records and sidecars are in the fast tier. ``pytest -m slow`` mutates
valid files, ``MRC_XARRAY_FUZZ`` times (4000), in separate processes, since a crash of a C library
would end pytest. To repeat one mutation, run ``python tests/test_fuzz.py KIND SEED SEED+1``.
"""

from __future__ import annotations

import bz2
import contextlib
import faulthandler
import functools
import gzip
import json
import math
import os
import re
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import tracemalloc
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import blosc
import by_hand
import de_by_hand
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from mrcfile.dtypes import fei1_dtype_big_endian, fei2_dtype_big_endian

from mrc_xarray import MrcError, MrcWarning

Array = np.ndarray[Any, Any]
#: Content by file name: the image first, then the files next to it.
Files = Mapping[str, bytes]

N_MUTATIONS = int(os.environ.get("MRC_XARRAY_FUZZ", "4000"))

_MiB = 1024**2
MOST_MEMORY = 50 * _MiB
# text files next to the image are read line by line
MOST_SECONDS, MOST_SECONDS_SIDECAR = 0.05, 0.25
# larger data stay lazy
LOADED = 4 * _MiB
NAN, INF = math.nan, math.inf


# checks -----------------------------------------------------------------------------------------


def check(files: Files, *, traced: bool = True, **options: Any) -> xr.Dataset | None:
    """Open and load a file; return None if this raises MrcError, as it may."""
    with laid_out(files) as target:
        if traced:
            tracemalloc.start()
        try:
            ds, message = opened(target, load=True, **options)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < MOST_MEMORY, f"{peak / _MiB:.0f} MiB for {sum(map(len, files.values()))} bytes"
    if ds is None:
        # the name of the file, and what is wrong with it
        assert re.match(r"(?s).*: ...", message), message
        return None
    header = ds.mrc.header
    if header.mode < 1000 and "frame_index" not in ds:
        # packed bits become bytes, and pairs of integers complex numbers
        assert ds.data.nbytes <= 2 * max(map(len, files.values()))
    return ds


@contextlib.contextmanager
def laid_out(files: Files) -> Iterator[Any]:
    """Write the files into a new folder, or return the bytes of a single file."""
    if len(files) == 1:
        yield next(iter(files.values()))
        return
    with tempfile.TemporaryDirectory(dir=SHARED) as folder:
        for name, raw in files.items():
            Path(folder, name).write_bytes(raw)
        yield str(Path(folder, next(iter(files))))


SHARED = "/dev/shm" if os.path.isdir("/dev/shm") else None


def opened(target: Any, *, load: bool, **options: Any) -> tuple[xr.Dataset | None, str]:
    """Return the Dataset, or None and the text of an MrcError; any other error is raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", MrcWarning)
        try:
            ds = xr.open_dataset(target, engine="mrc", cache=False, **options)
            if load and ds.data.nbytes <= LOADED:
                ds.data.load()
            # what the attributes and coordinates are for
            assert all(0 < size < INF for size in ds.mrc.voxel_size.values())
            assert isinstance(ds.mrc.metadata, dict)
        except MrcError as error:
            return None, str(error)
    return ds, ""


def check_time(files: Files, limit: float) -> None:
    """Open up to five times, because the caches may be cold at first."""
    with laid_out(files) as target:
        for _ in range(5):
            start = time.process_time()
            opened(target, load=False)
            taken = time.process_time() - start
            if taken < limit:
                return
    raise AssertionError(f"opening takes {taken:.3f} s")


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    """Open a file, since imports take long while memory is traced."""
    opened(by_hand.mrc(PIXELS), load=True)


# valid files ------------------------------------------------------------------------------------

FEI1, FEI2 = fei1_dtype_big_endian.newbyteorder("<"), fei2_dtype_big_endian.newbyteorder("<")
STACK = {"ispg": 0, "mz": 1}
PIXELS = np.arange(24, dtype="u2").reshape(2, 3, 4)
CHUNK = {"version": "B", "codec_version": "B", "flags": "B", "typesize": "B", "nbytes": "I",
         "blocksize": "I", "ctbytes": "I"}  # fmt: skip
MOVIE, INFO, POSITIONS = (
    f"{de_by_hand.STEM}_{name}" for name in ("movie.mrc", "info.txt", "scan_coordinates.csv")
)
MDOC = """PixelSpacing = 2.5
ImageFile = a.mrc
[T = SerialEM: tilt axis angle = 84.1]

[ZValue = 0]
TiltAngle = -3.5
StagePosition = 1.5 -2
Defocus = -2.25
DateTime = 21-Nov-26  12:38:50
SubFramePath = C:\\frames\\a_000.tif

[ZValue = 1]
TiltAngle = 3.5
ExposureDose = 2
"""
# labels that our writer stores because a header has no place for them
LABELS = {
    "dims": ["t", "y", "x"],
    "shape": [2, 3, 4],
    "coords": {
        "t": {"data": [1.5, 2], "dtype": "float64", "dims": ["t"], "attrs": {"units": "s"}},
        "when": {
            "data": ["2026-11-21", "2026-11-22"], "dtype": "datetime64[ns]",
            "dims": ["t"], "attrs": {},
        },
    },
    "attrs": {"title": "by hand"},
}  # fmt: skip


def fei(dtype: np.dtype[Any], n: int = 2, **fields: Any) -> bytes:
    """Return blocks in which every field is valid."""
    table = np.zeros(n, dtype)
    for place, name in enumerate(dtype.names or ()):
        if name.startswith("Bitmask"):
            table[name] = 2**32 - 1
        elif dtype[name].kind in "iuf":
            table[name] = 1 + place + np.arange(n)
        elif dtype[name].kind == "S":
            table[name] = b"text"
    table["Metadata size"] = dtype.itemsize
    for name, value in fields.items():
        table[name.replace("_", " ")] = value
    return table.tobytes()


def extended(exttyp: bytes, raw: bytes, pixels: Array = PIXELS, **fields: Any) -> bytes:
    return by_hand.mrc(pixels, extended=raw, exttyp=exttyp, **STACK | fields)


def mrcz(
    shape: tuple[int, int, int] = (2, 3, 4),
    metadata: Any = None,
    blocks: list[bytes] | None = None,
    **fields: Any,
) -> bytes:
    """Return an MRCZ of 16-bit zeros, with JSON in its extended header."""
    if blocks is None:
        blocks = [blosc.compress(bytes(2 * math.prod(shape[1:])), 2, cname="lz4")] * shape[0]
    text = metadata if isinstance(metadata, bytes) else json.dumps(metadata).encode()
    text = b"" if metadata is None else text
    fields = {
        "ispg": 0, "mx": 0, "my": 0, "mz": 0, "labels": (b"MRCZ0.6.0",), "nsymbt": len(text),
        "exttyp": b"json" if text else b"", "packed_bytes": sum(map(len, blocks)),
    } | fields  # fmt: skip
    return by_hand.header(shape, 2006, **fields) + text + b"".join(blocks)


def labelled(**changed: Any) -> bytes:
    return mrcz(metadata={"mrc_xarray": LABELS | changed})


def coordinate(data: Any, dtype: str, *dims: str) -> dict[str, Any]:
    return {"data": data, "dtype": dtype, "dims": list(dims), "attrs": {}}


def movie(
    info: Mapping[str, Any] | None = None,
    positions: list[tuple[int, int]] | bytes | None = None,
    n: int = 12,
) -> dict[str, bytes]:
    """Return a Direct Electron movie with its info file, and coordinates if any are given."""
    files = {MOVIE: de_by_hand.movie(de_by_hand.frames(n)), INFO: de_by_hand.info(info)}
    if positions is not None:
        raw = positions if isinstance(positions, bytes) else de_by_hand.csv(positions)
        files[POSITIONS] = raw
    return files


def plain_files() -> list[bytes]:
    rng = np.random.default_rng(0)

    def pixels(dtype: str, *shape: int) -> Array:
        return rng.integers(0, 100, shape or (3, 4, 5)).astype(dtype)

    nibbles = by_hand.pack_4bit(pixels("u1") & 15)
    return [
        by_hand.mrc(pixels("i2")),
        by_hand.mrc(pixels("f4"), byteorder=">"),
        by_hand.mrc(pixels("u2", 6, 4, 5), **STACK),
        by_hand.mrc(pixels("i1"), ispg=401, mz=1),
        by_hand.mrc(pixels("c8", 1, 4, 5), ispg=0),
        by_hand.mrc(pixels("i2", 3, 4, 10), 3, shape=(3, 4, 5)),
        by_hand.mrc(pixels("f2")),
        by_hand.mrc(pixels("u1", 3, 4, 15), 16, shape=(3, 4, 5)),
        by_hand.mrc(nibbles, 101, shape=(3, 4, 5)),
        by_hand.mrc(pixels("i2"), mapc=3, mapr=1, maps=2, extended=b"text" * 20, exttyp=b"MRCO"),
    ]


PLAIN, IMAGES = plain_files(), by_hand.mrc(PIXELS, **STACK)
RECORDS = [
    extended(b"FEI1", fei(FEI1)),
    extended(b"FEI2", fei(FEI2)),
    extended(b"SERI", np.arange(22, dtype="i2").tobytes(), nint=22, nreal=63),
    extended(b"AGAR", np.linspace(-1, 1, 64, dtype="f4").tobytes(), nint=0, nreal=32),
    extended(b"AGAR", np.linspace(-1, 1, 64, dtype="f4").tobytes(), nint=2, nreal=30),
    extended(b"CCP4", b"X,Y,Z".ljust(80) * 2, ispg=4, mz=2),
]
SECTION = np.random.default_rng(0).poisson(2, (8, 8)).astype("i2").tobytes()
BLOCKS = [blosc.compress(SECTION, 2, cname=codec) for codec in ("lz4", "zstd", "zlib")]
META = {"stage": [1.5, None], "text": "å", "deep": [[{}]]}
PACKERS: list[tuple[Callable[[bytes], bytes], str]] = [
    (functools.partial(gzip.compress, mtime=0), ".gz"),
    (bz2.compress, ".bz2"),
]
#: Valid files of each kind; they are small, so that most mutations have an effect.
SEEDS: dict[str, list[Files]] = {
    "plain": [{"a.mrc": raw} for raw in PLAIN],
    "mrcz": [{"a.mrcz": mrcz((3, 8, 8), META, BLOCKS)}, {"a.mrcz": labelled()}],
    "extended": [{"a.mrc": raw} for raw in RECORDS],
    "direct electron": [
        movie(),
        movie(de_by_hand.XY_FILE, list(de_by_hand.POSITIONS), 8),
        movie({"Scan - Enable": "Disable"}),
    ],
    "sidecar": [
        {"a.mrc": IMAGES, "a.mrc.mdoc": MDOC.encode()},
        {"a.st": IMAGES, "a.rawtlt": b"-3.5\n 3.5\n"},
    ],
    "packed": [
        {f"a.mrc{end}": pack(raw)}
        for raw in (*PLAIN[:3], mrcz(), RECORDS[0])
        for pack, end in PACKERS
    ],
}


# properties -------------------------------------------------------------------------------------

few = settings(deadline=None, max_examples=20, derandomize=True, database=None)

INTEGERS = [0, 1, 2, 3, 4, 16, 101, 401, 1001, 6006, 2**15 - 1, 2**16, 2**24, 2**30, 2**31 - 1]
FLOATS = [0.0, -0.0, 1.0, -10.0, 1e-45, 1e10, 3e38, NAN, INF]
# numbers to some parsers only
TEXTS = [
    "", "0", "-1", "3", "12", "8191", "67108864", "9" * 30, "1e308", "-1e308", "1e400", "5e-324",
    "nan", "inf", "1_0", "٣", "x", "=", "\0", "[", "]", "\r", "å", "x" * 300, "1 2",
]  # fmt: skip
CODES = {
    "i": st.sampled_from([sign * n for n in INTEGERS for sign in (1, -1)] + [-(2**31)])
    | st.integers(-(2**31), 2**31 - 1),
    "h": st.sampled_from([-(2**15), -1, 0, 1, 26, 32, 128, 2**15 - 1]),
    "q": st.sampled_from([-(2**63), -1, 0, 1, 2**31, 2**63 - 1]),
    "f": st.sampled_from(FLOATS) | st.floats(width=32),
    "s": st.sampled_from([b"", b"MAP ", b"FEI1", b"FEI2", b"SERI", b"AGAR", b"CCP4", b"json"])
    | st.binary(min_size=4, max_size=4),
}


def of_code(code: str) -> st.SearchStrategy[tuple[Any, ...]]:
    """Draw what `struct` packs by a code such as "i", "3f" or "4s"."""
    return st.tuples(*[CODES[code[-1]]] * (1 if code == "4s" else int(code[:-1] or 1)))


FIELDS = {name: of_code(code) for name, (_, code) in by_hand.FIELDS.items()}
CHOICES: list[dict[str, Any]] = [
    {}, {"truncated": "trim"}, {"strict": True}, {"byteorder": "big"}, {"layout": "image_stack"},
    {"layout": "volume_stack"}, {"origin": "nstart", "units": "pm"}, {"convention": "eman2"},
]  # fmt: skip
OPTIONS = st.sampled_from(CHOICES)


def changes(values: Mapping[str, st.SearchStrategy[Any]], most: int) -> st.SearchStrategy[Any]:
    """Draw other values for up to `most` of some fields."""
    one = st.sampled_from(sorted(values)).flatmap(
        lambda name: st.tuples(st.just(name), values[name])
    )
    return st.lists(one, max_size=most).map(dict)


def tampered(raw: bytes, cut: int, extra: bytes) -> bytes:
    """Take bytes from the end, and add some."""
    return raw[: max(len(raw) - cut, 0)] + extra


ends = st.tuples(st.sampled_from([0, 0, 0, 1, 23, 48, 1000, 3000]), st.binary(max_size=20))


def put(raw: bytes, order: str, fields: Mapping[str, tuple[Any, ...]]) -> bytes:
    """Replace fields of the main header."""
    changed = bytearray(raw)
    for name, values in fields.items():
        offset, code = by_hand.FIELDS[name]
        struct.pack_into(order + code, changed, offset, *values)
    return bytes(changed)


@few
@given(changes(FIELDS, 5), st.integers(0, 9), ends, st.sampled_from("<>"), OPTIONS)
def test_any_header_is_opened_or_refused(
    fields: dict[str, Any], k: int, end: Any, order: str, options: dict[str, Any]
) -> None:
    raw = put(PLAIN[k], order, fields)
    check({"a.mrc": tampered(raw, *end)}, **options)


CHUNKS = changes(dict.fromkeys(CHUNK, CODES["i"]), 3)


@few
@given(changes(FIELDS, 3), CHUNKS, st.sampled_from([2, 5]), ends, OPTIONS)
def test_any_block_is_opened_or_refused(
    fields: dict[str, Any], chunk: dict[str, int], version: int, end: Any, options: dict[str, Any]
) -> None:
    sound = dict(zip(CHUNK, (version, 1, 2, 2, 24, 24, 40), strict=True))
    values = [abs(v) % 256 if CHUNK[n] == "B" else abs(v) for n, v in (sound | chunk).items()]
    block = struct.pack("<" + "".join(CHUNK.values()), *values) + bytes(24)
    raw = put(mrcz(blocks=[block] * 2), "<", fields)
    check({"a.mrcz": tampered(raw, *end)}, **options)


NAMES = st.sampled_from(["dims", "data", "dtype", "attrs", "t", "y", "x", "q", "section", ""])
scalars = st.sampled_from([None, True, False, *INTEGERS, -1, 10**30, *FLOATS, *TEXTS, "t", "y"])
anything = st.recursive(
    scalars, lambda v: st.lists(v, max_size=4) | st.dictionaries(NAMES, v), max_leaves=8
)
DTYPES = [
    "int64", "uint8", "float16", "float32", "complex64", "bool", "str", "U9", "<U99999999",
    "S300000000", "V9", "O", "i4,i4", "(9999999,)i4", "datetime64[ns]", "M8", "timedelta64[s]",
    "m8[3Y]", "a5", "",
]  # fmt: skip
coordinates = st.fixed_dictionaries(
    {
        "data": st.lists(scalars, min_size=2, max_size=2) | anything,
        "dtype": st.sampled_from(DTYPES) | scalars,
        "dims": st.sampled_from([["t"], ["y"], ["t", "t"], ["t", "y"], [], ["q"]]) | anything,
        "attrs": st.sampled_from([{}, {"units": "nm"}]) | anything,
    }
)
labels = {
    "dims": st.lists(NAMES, max_size=4) | anything,
    "shape": st.lists(st.sampled_from([-2, -1, 0, 1, 2, 3, 4, INF, 2.5]), max_size=4) | anything,
    "coords": st.dictionaries(NAMES, coordinates) | anything,
    "attrs": st.dictionaries(st.sampled_from(["units", "mrc_header", "a/b"]), scalars) | anything,
}


@pytest.mark.slow
@few
@given(changes(labels, 2) | anything)
def test_any_labels_are_opened_or_refused(changed: Any) -> None:
    stored = LABELS | changed if isinstance(changed, dict) else changed
    check({"a.mrcz": mrcz(metadata={"mrc_xarray": stored})})


REALS = [0.0, -1.0, 1e-300, 1.7e308, -1.7e308, 43000.5, NAN, INF]
WHOLES = [0, 1, -1, 768, 888, 2**31 - 1, -(2**31)]


@pytest.mark.slow
@settings(few, max_examples=8)
@given(
    st.sampled_from([FEI1, FEI2, fei2_dtype_big_endian]),
    st.dictionaries(st.integers(0, 500), st.sampled_from([*REALS, *WHOLES]), max_size=6),
    changes(FIELDS, 2),
    ends,
)
def test_any_fei_record_is_opened_or_refused(
    dtype: np.dtype[Any], values: dict[int, Any], fields: dict[str, Any], end: Any
) -> None:
    table = np.frombuffer(bytearray(fei(dtype)), dtype)
    names = dtype.names or ()
    for place, value in values.items():
        name, row = names[place % len(names)], place % 2
        if dtype[name].kind == "f":
            table[name][row] = value
        elif dtype[name].kind in "iu" and math.isfinite(value):
            info = np.iinfo(dtype[name])
            table[name][row] = min(max(int(value), info.min), info.max)
    raw = put(extended(b"FEI2", table.tobytes()), "<", fields)
    check({"a.mrc": tampered(raw, *end)})


@pytest.mark.slow
@few
@given(
    st.sampled_from([b"SERI", b"AGAR", b"CCP4", b"MRCO", b"json", b""]),
    st.integers(-1, 300) | CODES["h"],
    st.integers(-1, 2100) | CODES["h"],
    st.binary(max_size=300)
    | st.lists(CODES["f"], max_size=64).map(lambda v: np.array(v, "f4").tobytes()),
    changes(FIELDS, 2),
)
def test_any_record_is_opened_or_refused(
    exttyp: bytes, nint: int, nreal: int, raw: bytes, fields: dict[str, Any]
) -> None:
    check({"a.mrc": put(extended(exttyp, raw, nint=nint, nreal=nreal), "<", fields)})


texts = st.sampled_from(TEXTS) | st.integers(-10, 10000).map(str) | st.text(max_size=8)
infos = changes(dict.fromkeys([*de_by_hand.INFO, "Scan - Points Per Camera Frame"], texts), 4)
visits = st.lists(st.tuples(*[st.integers(0, 9) | st.sampled_from([8191, 10**6, 10**18])] * 2))


@pytest.mark.slow
@few
@given(infos, st.none() | visits | texts.map(str.encode), st.booleans())
def test_any_acquisition_is_opened_or_refused(
    info: dict[str, str], positions: Any, is_custom: bool
) -> None:
    n = len(positions) or 1 if isinstance(positions, list) else 12
    encodable = {key: text.encode(errors="replace").decode() for key, text in info.items()}
    check(movie(encodable | (de_by_hand.XY_FILE if is_custom else {}), positions, n))


HEADS = [
    "[ZValue = 0]", "[ZValue = 1]", "[ZValue = 99999999]", "[FrameSet = 0]", "[ZValue", "[]",
    "[T = tilt axis angle = 9]",
]  # fmt: skip
KEYS = [
    "TiltAngle", "StagePosition", "DateTime", "Defocus", "image", "data", "y", "units", "section",
    "mrc_header", "SubFramePath", "(", "_FillValue",
]  # fmt: skip
lines = st.sampled_from(HEADS) | st.tuples(st.sampled_from(KEYS), texts).map(" = ".join) | texts


@pytest.mark.slow
@few
@given(st.lists(lines, max_size=12).map("\n".join), st.sampled_from(["a.mrc.mdoc", "a.rawtlt"]))
def test_any_sidecar_is_opened_or_refused(text: str, name: str) -> None:
    check({"a.mrc": IMAGES, name: text.encode(errors="replace")})


# regressions ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        {"coords": {"t": coordinate([10**30, 1], "int64", "t")}},
        {"coords": {"t": coordinate([INF, 1], "int64", "t")}},
        {"coords": {"t": coordinate([1e300, 1], "float32", "t")}},
        {"coords": {"t": coordinate([[1e300, 1], [1, 1]], "complex64", "t")}},
        {"coords": {"t": coordinate(1, "int64")}},
        {"coords": {"q": coordinate([[1, 2], [3, 4]], "int64", "t", "t")}},
        {"coords": {"t": coordinate(["a", "b"], "<U10000000", "t")}},
        {"coords": {"t": coordinate(["a", "b"], "V40000000", "t")}},
        {"coords": {"q": coordinate([1, 2], "(10000000,)i4", "t")}},
        {"shape": [INF, 3, 4]},
        {"dims": ["data", "y", "x"]},
        {"dims": ["section", "y", "x"]},
    ],
    ids=lambda changed: json.dumps(changed)[:60],
)
def test_labels_that_no_writer_wrote_are_left_out(changed: dict[str, Any]) -> None:
    assert check({"a.mrcz": labelled(**changed)}) is not None


def test_labels_with_negative_sizes_are_left_out() -> None:
    stored = LABELS | {"dims": ["a", "b", "y", "x"], "shape": [-2, -3, 3, 4], "coords": {}}
    ds = check({"a.mrcz": mrcz((6, 3, 4), {"mrc_xarray": stored})})
    assert ds is not None
    assert ds.data.shape == (6, 3, 4)


@pytest.mark.parametrize("version", [2, 5])
def test_a_row_that_a_small_file_claims_has_no_positions_in_memory(version: int) -> None:
    """A block of 40 bytes says that it decodes to 32 MiB, in one row: 128 MiB of x."""
    nx = 2**24
    block = struct.pack("<4B3I", version, 1, 5, 2, 2 * nx, 2 * nx, 40) + bytes(24)
    check({"a.mrcz": mrcz((1, 1, nx), blocks=[block])})


@pytest.mark.parametrize("depth", [*range(880, 1000, 6), 100_000])
def test_json_that_is_nested_deeply_is_opened_or_left_out(depth: int) -> None:
    """The encoder may fail at a depth that the parser accepts."""
    check({"a.mrcz": mrcz(metadata=b'{"a":' + b"[" * depth + b"]" * depth + b"}")})


def stack(n: int, **files: str) -> Files:
    """Return a stack of `n` small images, and files next to it by their suffix."""
    image = by_hand.mrc(np.zeros((n, 1, 1), "i1"), **STACK)
    return {"a.mrc": image} | {f"a.mrc.{end}": text.encode() for end, text in files.items()}


LONG_TEXT = coordinate(["x" * 100_000, *[""] * 199], "str", "t")
LONG = LABELS | {"dims": ["t", "y", "x"], "shape": [200, 2, 2], "coords": {"t": LONG_TEXT}}
HUGE = [1.7e308, -1.7e308]
KEYS_OF_SECTIONS = "\n".join(f"[ZValue = {k}]\nkey{k} = 1" for k in range(800))
# 60 bytes of coordinates say 8192 × 8192
FAR_APART = [(8191, 8191), *((0, k) for k in range(7))]
# files that took more memory than their bytes justify, or raised a warning
GREEDY: dict[str, Files] = {
    "long text among labels": {"a.mrcz": mrcz((200, 2, 2), {"mrc_xarray": LONG})},
    "long text of one section": stack(1000, mdoc="[ZValue = 0]\nNote = " + "x" * 100_000),
    "keys of single sections": stack(3000, mdoc=KEYS_OF_SECTIONS),
    "two records": {"a.mrc": extended(b"FEI1", fei(FEI1), np.zeros((2**18, 1, 1), "i1"))},
    "large lengths": {
        "a.mrc": extended(b"FEI2", fei(FEI2, **{"X-Stage": HUGE, "Defocus": HUGE, "Dose": HUGE}))
    },
    "large pixels": movie(
        {"Specimen Pixel Size X (nanometers)": "1e308", "Diffraction Pixel Size X": "1e308"}
    ),
    "positions far apart": movie(de_by_hand.XY_FILE, FAR_APART, 8),
    "large scan": movie(
        de_by_hand.XY_FILE | {"Scan - Size X": 8192, "Scan - Size Y": 8192}, FAR_APART[1:], 7
    ),
}


@pytest.mark.parametrize("case", GREEDY)
def test_small_files_take_little_memory(case: str) -> None:
    assert check(GREEDY[case]) is not None


@pytest.mark.slow
@pytest.mark.parametrize(("pack", "end"), PACKERS, ids=["gzip", "bzip2"])
def test_compressed_zeros_after_the_pixels_take_little_memory(
    pack: Callable[[bytes], bytes], end: str
) -> None:
    """80 MiB from some kB, in members of 1 MiB each."""
    check({f"a.mrc{end}": pack(by_hand.mrc(PIXELS)) + pack(bytes(_MiB)) * 80})


def test_opening_reads_each_line_once() -> None:
    long_line = b"x " * 20_000 + b"," + b"z " * 2_000
    check_time(movie(de_by_hand.XY_FILE, long_line), MOST_SECONDS_SIDECAR)
    check_time(GREEDY["keys of single sections"], 1)


# mutations --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", SEEDS)
def test_mutations(kind: str) -> None:
    command = [sys.executable, "-W", "ignore", __file__, kind, "0", str(N_MUTATIONS // len(SEEDS))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert not done.returncode, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"


def mutate(raw: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    """Change some bytes, as faulty disks, transfers and programs do."""
    changed = bytearray(raw)
    for _ in range(int(rng.integers(1, 5))):
        at, n = int(rng.integers(len(changed) + 1)), int(rng.integers(1, 60))
        match int(rng.integers(10)):
            case 0 | 1 if changed:
                changed[at % len(changed)] ^= 1 << int(rng.integers(8))
            case 2:
                changed[at:at] = rng.bytes(n)
            case 3:
                del changed[at : at + n]
            case 4 | 5 | 6:
                # a number, in the main header as often as elsewhere
                at = 4 * int(rng.integers(56)) if rng.random() < 0.5 else at
                value = extreme(rng)
                changed[at : at + len(value)] = value
            case 7:
                other = others[int(rng.integers(len(others)))]
                changed[at : at + int(rng.integers(n))] = other[at : at + n]
            case 8:
                numbers = list(re.finditer(rb"\d+", changed))
                if numbers:
                    start, stop = numbers[int(rng.integers(len(numbers)))].span()
                    changed[start:stop] = TEXTS[int(rng.integers(len(TEXTS)))].encode()
            case 9:
                del changed[at:]
    return bytes(changed)


def extreme(rng: np.random.Generator) -> bytes:
    order = "<>"[int(rng.integers(2))]
    integer = int(rng.choice(INTEGERS)) * int(rng.choice([-1, 1])) % 2**32
    codes = {"I": integer, "f": float(rng.choice(FLOATS)), "d": float(rng.choice(REALS))}
    code = "Ifd "[int(rng.integers(4))]
    return struct.pack(order + code, codes[code]) if code in codes else rng.bytes(4)


@contextlib.contextmanager
def little_memory_left() -> Iterator[None]:
    """Limit the memory of the process, so that a large allocation is a MemoryError."""
    import resource

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2 * MOST_MEMORY, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def mutated(seeds: list[Files], seed: int) -> Files:
    rng = np.random.default_rng(seed)
    files = dict(seeds[int(rng.integers(len(seeds)))])
    names = list(files)
    # often the image, else any file
    name = names[int(rng.integers(len(names)))] if rng.random() < 0.7 else names[0]
    others = [raw for files in seeds for raw in files.values()]
    files[name] = mutate(files[name], others, rng)
    return files


def main(kind: str, start: str, stop: str) -> int:
    """Check mutations, and print the first failures with their seeds."""
    seeds = SEEDS[kind]
    for files in seeds:
        assert check(files) is not None
    n_failed = 0
    for seed in range(int(start), int(stop)):
        # show where a seed hangs; Python shows where the process crashes
        faulthandler.dump_traceback_later(60, exit=True)
        files = mutated(seeds, seed)
        limit = MOST_SECONDS if len(files) == 1 else MOST_SECONDS_SIDECAR
        # tracing takes ten times as long as opening, so most seeds have a limit of memory instead
        traced = seed % 10 == 0
        with contextlib.nullcontext() if traced else little_memory_left():
            began = time.process_time()
            try:
                check(files, traced=traced, **CHOICES[seed % len(CHOICES)])
                if not traced and time.process_time() - began > limit:
                    check_time(files, limit)
            except Exception:
                print(f"seed {seed} of {kind}:\n{traceback.format_exc(limit=-6)}")
                n_failed += 1
        if n_failed == 5:
            break
    return n_failed > 0


if __name__ == "__main__":
    faulthandler.enable()
    sys.exit(main(*sys.argv[1:]))
