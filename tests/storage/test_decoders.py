"""Decoders return and raise what the standard library does, with limited size and memory."""

from __future__ import annotations

import bz2
import functools
import gzip
import io
import lzma
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import by_hand
import numpy as np
import pytest
import servers
import streams_by_hand
import xarray as xr

from mrc_xarray import MrcError
from mrc_xarray.storage import codecs
from mrc_xarray.storage.decoders import Decoder, open_archive

MiB = 1024**2
NOISE = np.random.default_rng(1).poisson(0.5, 300_000).astype("u1").tobytes()


@pytest.fixture(params=["zlib", "isal"])
def inflate(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Choose which of the two libraries inflates."""
    name: str = request.param
    if name == "isal":
        pytest.importorskip("isal")
    else:
        monkeypatch.setitem(sys.modules, "isal", None)
    return name


def decoder(codec: str, raw: bytes, name: str = "") -> Decoder:
    return codecs.decoder(codec, io.BytesIO(raw), name)


def outcome(file: Any, nbytes: int) -> tuple[bytes, type[Exception] | None]:
    """Return the decoded bytes, and the class of the error that ended decoding."""
    found = []
    try:
        while part := file.read1(nbytes):
            assert len(part) <= nbytes
            found.append(part)
    except Exception as error:
        return b"".join(found), type(error)
    return b"".join(found), None


# gzip --------------------------------------------------------------------------------------------

MEMBER = gzip.compress(NOISE, 1, mtime=0)
BGZF = b"\x1f\x8b\x08\x04" + bytes(6) + b"\6\0BC\2\0\0\0" + MEMBER[10:]
GZIPS = {
    "one member": MEMBER,
    "two": MEMBER * 2,
    "empty members": gzip.compress(b"", mtime=0) * 50 + MEMBER,
    "zeros between": MEMBER + bytes(20_000) + MEMBER + bytes(3),
    "extra field": BGZF,
    "comment": b"\x1f\x8b\x08\x18" + bytes(6) + b"a\0" + b"c" * 9000 + b"\0" + MEMBER[10:],
    # 16 KiB are read at once: the second header is cut after so many bytes
    "cut magic": gzip.compress(NOISE[: 16361 - 1], 0) + BGZF,
    "cut extra field": gzip.compress(NOISE[: 16361 - 14], 0) + BGZF,
    "stored": gzip.compress(NOISE, 0),
    "nothing": b"",
    "half a header follows": MEMBER + MEMBER[:6],
    "without its last byte": MEMBER[:-1],
    "without its trailer": MEMBER[:-8],
    "name without an end": b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * 100_000,
}  # fmt: skip


@pytest.mark.parametrize("nbytes", [1000, 4 * MiB])
@pytest.mark.parametrize("case", GZIPS)
def test_gzip_as_the_standard_library(inflate: str, case: str, nbytes: int) -> None:
    raw = GZIPS[case]
    expected = outcome(gzip.GzipFile(fileobj=io.BytesIO(raw)), 1000)
    assert outcome(decoder("gzip", raw), nbytes) == expected


@pytest.mark.parametrize("follows", [b"and so on", b"x", bytes(1000) + b"abc", b"\x1f\x8b\x07"])
def test_other_data_after_a_member_are_ignored(inflate: str, follows: bytes) -> None:
    assert outcome(decoder("gzip", MEMBER + follows), 70_000) == (NOISE, None)


@pytest.mark.parametrize("place", [-8, -1], ids=["checksum", "length"])
def test_wrong_trailer_loses_at_most_the_last_block(inflate: str, place: int) -> None:
    found, error = outcome(decoder("gzip", streams_by_hand.flipped(MEMBER, place)), 70_000)
    assert error is gzip.BadGzipFile
    assert NOISE.startswith(found)
    assert len(found) > len(NOISE) - 100_000


@pytest.mark.parametrize("case", ["cut", "zeroed", "bad block"])
def test_damaged_deflate_is_decoded_up_to_the_damage(inflate: str, case: str) -> None:
    middle = len(MEMBER) // 2
    raw = {
        "cut": MEMBER[:middle],
        "zeroed": streams_by_hand.zeroed(MEMBER, middle),
        "bad block": MEMBER + MEMBER[:10] + b"\7" + MEMBER[11:],
    }[case]
    found, error = outcome(decoder("gzip", raw), 4 * MiB)
    assert error is not None
    # up to one compressed block may be lost
    least = len(NOISE) if case == "bad block" else len(NOISE) // 2 - 100_000
    assert len(found) >= least
    assert found[:least] == NOISE[:least]


# how much a stream may hold ----------------------------------------------------------------------


def lzma_zip(data: bytes, dictionary: int | None = None) -> bytes:
    raw = bytearray(zipped(data, zipfile.ZIP_LZMA))
    if dictionary is not None:
        # the properties follow the name
        start = 30 + len("a.mrc") + 5
        raw[start : start + 4] = struct.pack("<I", dictionary)
    return bytes(raw)


def zipped(data: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    return streams_by_hand.zipped({"a.mrc": data}, method)


@pytest.mark.parametrize(
    ("codec", "pack", "nbytes", "least"),
    [
        ("gzip", gzip.compress, 16 * MiB, 900),
        pytest.param("xz", lzma.compress, 64 * MiB, 6000, marks=pytest.mark.slow),
        # the most that one block can contain
        pytest.param("bz2", bz2.compress, 45_899_235, 900_000, marks=pytest.mark.slow),
    ],
)
def test_expansion_of_zeros_is_close_to_the_bound(
    codec: str, pack: Callable[[bytes], bytes], nbytes: int, least: int
) -> None:
    packed = pack(bytes(nbytes))
    assert least * len(packed) <= nbytes <= codecs.CODECS[codec].expansion * len(packed)


@pytest.mark.parametrize("suffix", ["gz", "xz", "bz2", "zip", "stored", "lzma-zip", "bz2-zip"])
def test_header_that_promises_more_than_any_stream_of_its_length(
    tmp_path: Path, suffix: str
) -> None:
    raw = by_hand.header((2**31 - 1, 2**10, 2**10), 0) + bytes(200_000)
    pack: dict[str, Callable[[bytes], bytes]] = {
        "gz": gzip.compress,
        "xz": lzma.compress,
        "bz2": bz2.compress,
        "zip": zipped,
        "stored": lambda data: zipped(data, zipfile.ZIP_STORED),
        "lzma-zip": lambda data: zipped(data, zipfile.ZIP_LZMA),
        "bz2-zip": lambda data: zipped(data, zipfile.ZIP_BZIP2),
    }
    path = tmp_path / "claims.mrc"
    path.write_bytes(pack[suffix](raw))
    with pytest.raises(MrcError, match=r"claims\.mrc: the header promises .* at most"):
        xr.open_dataset(path, engine="mrc")


# dictionaries ------------------------------------------------------------------------------------


def xz_with_dictionary(code: int, raw: bytes) -> bytes:
    """Return an .xz file whose block header is changed to ask for another dictionary."""
    packed = bytearray(lzma.compress(raw, preset=0))
    end = 12 + 4 * (packed[12] + 1)
    header = packed[12:end]
    header[header.index(b"\x21\x01") + 2] = code
    header[-4:] = struct.pack("<I", zlib.crc32(bytes(header[:-4])))
    packed[12:end] = header
    return bytes(packed)


@pytest.mark.parametrize(("code", "nbytes"), [(31, 192 * MiB), (38, 2048 * MiB), (40, 2**32 - 1)])
def test_huge_dictionary_of_xz_is_refused(tmp_path: Path, code: int, nbytes: int) -> None:
    path = tmp_path / "dictionary.mrc.xz"
    path.write_bytes(xz_with_dictionary(code, by_hand.mrc(np.zeros((2, 4, 4), "i2"))))
    with pytest.raises(MrcError, match=rf"dictionary\.mrc\.xz: .* dictionary of {nbytes} bytes"):
        xr.open_dataset(path, engine="mrc")


def test_huge_dictionary_of_a_later_stream(tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).integers(0, 9, (8, 128, 128), "i2")
    raw = by_hand.mrc(pixels)
    path = tmp_path / "later.mrc.xz"
    path.write_bytes(lzma.compress(raw[:150_000]) + xz_with_dictionary(40, raw[150_000:]))
    with pytest.raises(MrcError, match=rf"dictionary of {2**32 - 1} bytes"):
        xr.open_dataarray(path, engine="mrc")[7].load()


def test_huge_dictionary_in_a_zip_archive() -> None:
    assert outcome(open_archive(io.BytesIO(lzma_zip(NOISE)), "a.zip"), 70_000) == (NOISE, None)
    with pytest.raises(MrcError, match=r"a\.zip: .* dictionary of 3221225472 bytes"):
        open_archive(io.BytesIO(lzma_zip(b"short", 3 * 2**30)), "a.zip")


XZ = lzma.compress(NOISE, preset=0)
XZ_REVERSED = lzma.compress(NOISE[::-1], preset=0)


@pytest.mark.parametrize(
    "raw", [XZ, XZ + XZ_REVERSED, XZ + b"text", XZ[:-1]], ids=["one", "two", "text", "cut"]
)
def test_xz_as_the_standard_library(raw: bytes) -> None:
    with lzma.LZMAFile(io.BytesIO(raw)) as file:
        expected = outcome(file, 70_000)
    assert outcome(decoder("xz", raw), 70_000) == expected


@pytest.mark.parametrize(
    ("codec", "raw", "expected"),
    [
        ("lzma", lzma.compress(NOISE, lzma.FORMAT_ALONE), NOISE),
        ("xz", lzma.compress(NOISE, preset=9 | lzma.PRESET_EXTREME), NOISE),
        # LZMAFile ignores what follows the padding; see section 2.2 of the .xz file format
        ("xz", XZ + bytes(8) + XZ_REVERSED, NOISE + NOISE[::-1]),
    ],
    ids=["lzma", "largest dictionary", "padding"],
)
def test_lzma(codec: str, raw: bytes, expected: bytes) -> None:
    assert outcome(decoder(codec, raw), 70_000) == (expected, None)


# zip archives ------------------------------------------------------------------------------------


def directory(n: int, **fields: int) -> bytes:
    """Return a zip archive of one member, whose directory lists it `n` times."""
    raw = zipped(by_hand.mrc(np.zeros((2, 300, 300), "i2")))
    start = raw.index(b"PK\1\2")
    entry = bytearray(raw[start : raw.index(b"PK\5\6")])
    places = {"compress_size": 20, "file_size": 24}
    for name, value in fields.items():
        struct.pack_into("<I", entry, places[name], value)
    many = bytes(entry) * n
    end = b"PK\5\6" + struct.pack(
        "<4H2IH", 0, 0, min(n, 65535), min(n, 65535), len(many), start, 0
    )
    return raw[:start] + many + end


@pytest.mark.slow
def test_directory_of_a_million_members(tmp_path: Path) -> None:
    path = tmp_path / "many.zip"
    path.write_bytes(directory(1_000_000))
    refusal = r"many\.zip: the beginning of the compressed stream does not decode"
    with servers.http_server(tmp_path) as server:
        with pytest.raises(MrcError, match=refusal):
            xr.open_dataset(server.url("many.zip"), engine="mrc")
        assert server.nbytes() < 2 * MiB
    with pytest.raises(MrcError, match=refusal):
        xr.open_dataset(path, engine="mrc")


@pytest.mark.parametrize("field", ["file_size", "compress_size"])
def test_directory_that_gives_other_sizes(tmp_path: Path, field: str) -> None:
    path = tmp_path / "lies.zip"
    with streams_by_hand.less_memory_than(32 * MiB):
        # the file has the length that the header promises
        path.write_bytes(directory(1, **{field: 2**32 - 2}))
        assert not xr.open_dataarray(path, engine="mrc").values.any()
        path.write_bytes(directory(1, **{field: 0}))
        with pytest.raises(MrcError, match=r"lies\.zip"):
            xr.open_dataarray(path, engine="mrc").load()


def test_names_of_members_are_short_and_have_no_control_characters(tmp_path: Path) -> None:
    path = tmp_path / "names.zip"
    path.write_bytes(streams_by_hand.zipped({"a\x1b[31m.mrc": b"", "b" * 60_000: b""}))
    with pytest.raises(MrcError, match=r"names\.zip") as refused:
        xr.open_dataset(path, engine="mrc")
    assert "\x1b" not in str(refused.value)
    assert len(str(refused.value)) < 2000


def test_method_that_is_not_known(tmp_path: Path) -> None:
    raw = bytearray(zipped(NOISE))
    raw[raw.index(b"PK\1\2") + 10] = 93
    path = tmp_path / "method.zip"
    path.write_bytes(raw)
    with pytest.raises(MrcError, match=r"method\.zip: .* method 93; accepted: 0, 8, 12, 14"):
        xr.open_dataset(path, engine="mrc")


# bombs -------------------------------------------------------------------------------------------


@functools.cache
def bombs() -> dict[str, bytes]:
    """Return short streams that decode to gigabytes, after a header that promises as much."""
    header = by_hand.header((100, 8192, 8192), 0)
    block = bz2.compress(bytes(45_000_000))
    bz2_bomb = bz2.compress(header) + block * 150
    zip_bomb = zipped(bz2_bomb, zipfile.ZIP_STORED)
    # change the member's method to bzip2, and its size to a large one
    for magic, place in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        at = zip_bomb.index(magic) + place
        zip_bomb = zip_bomb[:at] + b"\x0c\0" + zip_bomb[at + 2 :]
    at = zip_bomb.index(b"PK\1\2") + 24
    zip_bomb = zip_bomb[:at] + struct.pack("<I", 2**32 - 2) + zip_bomb[at + 4 :]
    xz = lzma.compress(header) + lzma.compress(bytes(64 * MiB)) * 100
    gz = gzip.compress(header) + gzip.compress(bytes(64 * MiB)) * 100
    name = b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * (64 * MiB)
    return {
        "bz2": bz2_bomb,
        "zip": zip_bomb,
        "xz": xz,
        "gz": gz,
        "empty gzip members": gzip.compress(b"") * 3_000_000,
        "empty bz2 streams": bz2.compress(b"") * 3_000_000,
        "empty xz streams": lzma.compress(b"") * 1_000_000,
        "name of a gzip": name,
    }


OPEN = """
import sys, time, warnings, xarray, mrc_xarray, mrc_xarray.storage.stream, bz2, lzma, dask

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))

warnings.simplefilter("ignore")
before, start = peak(), time.process_time()
try:
    data = xarray.open_dataarray(sys.argv[1], engine="mrc")
    data[0, 0, 0].load()
    result = "opened"
except mrc_xarray.MrcError as error:
    result = "refused"
print(result, time.process_time() - start, peak() - before)
"""


OPENED = ["bz2", "zip", "xz", "gz"]
REFUSED = ["empty gzip members", "empty bz2 streams", "empty xz streams", "name of a gzip"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
@pytest.mark.parametrize("name", OPENED + REFUSED)
def test_bomb_costs_little(tmp_path: Path, name: str) -> None:
    path = tmp_path / "bomb.mrc"
    path.write_bytes(bombs()[name])
    command = [sys.executable, "-c", OPEN, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result, seconds, mib = done.stdout.split()
    assert result == ("opened" if name in OPENED else "refused")
    assert float(mib) < 64
    assert float(seconds) < 10
