"""Problems of extended headers, MRCZ blocks, compressed streams and sidecars."""

from __future__ import annotations

import bz2
import gzip
import struct
from pathlib import Path
from typing import Any

import by_hand
import de_by_hand as de
import mrcz
import mrcz_by_hand as damage
import numpy as np
import pytest
from streams_by_hand import zipped
from validating import (
    TEXT,
    Fields,
    assert_as_mrcfile,
    codes,
    header_errors,
    judged,
    key,
    place,
    warned,
)

# extended headers -------------------------------------------------------------------------------


def fei(n: int) -> bytes:
    """Return blocks that contain only their size and the voltage."""
    block = bytearray(768)
    struct.pack_into("<iiI", block, 0, 768, 0, 1 << 5)
    struct.pack_into("<d", block, 84, 300e3)
    return bytes(block) * n


STACK: Fields = {"ispg": 0, "mz": 1, "nz": 4}
FRAMES = np.zeros((4, 3, 4), "i2")
AGAR = struct.pack("<f", 30) * 4
# extended header, fields, and what is found
EXTENDED_BROKEN: dict[str, tuple[bytes, Fields, str]] = {
    "FEI1, too few blocks": (fei(2), {"exttyp": b"FEI1"}, "2 of 4"),
    "SERI, too few records": (
        b"\1\0" * 3, {"exttyp": b"SERI", "nint": 2, "nreal": 1}, "1 of 4",
    ),
    "AGAR, no numbers": (AGAR, {"exttyp": b"AGAR", "nint": -1, "nreal": -1}, "-1"),
    "json, not JSON": (b"{nothing", {"exttyp": b"json"}, "not JSON"),
}  # fmt: skip


@pytest.mark.parametrize("case", EXTENDED_BROKEN)
def test_extended_header(write: Any, case: str) -> None:
    extended, fields, found = EXTENDED_BROKEN[case]
    path = write(by_hand.mrc(FRAMES, extended=extended, **(STACK | fields)))
    [problem] = [p for p in assert_as_mrcfile(path) if p.code not in ("exttyp", "extension")]
    assert problem.code == "extended-header"
    assert found in problem.found
    assert problem.offset == (place(problem.field) or 1024)
    assert key(problem) in map(key, judged(path))


def test_complete_extended_headers(write: Any) -> None:
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


@pytest.mark.parametrize(
    "options",
    [
        {"compressor": "zstd", "clevel": 1},
        {"compressor": "lz4", "pixelsize": [1, 2, 3], "voltage": 300, "meta": {"stage": [1, 2]}},
    ],
    ids=["bare", "json"],
)
def test_valid_file_by_mrcz(tmp_path: Path, options: Fields) -> None:
    """Its NVERSION is 0, its MX and MY are 0, and its statistics those of the first section."""
    path = tmp_path / "file.mrcz"
    for dtype in ("i1", "c8"):
        data = np.random.default_rng(0).poisson(3, (4, 6, 8)).astype(dtype)
        for pixels in (data, list(data)):
            mrcz.writeMRC(pixels, str(path), **options)
            assert judged(path, data=True) == judged(path) == []


def test_mrcz_without_compression_is_checked_as_mrc(tmp_path: Path) -> None:
    data = np.random.default_rng(0).poisson(3, (4, 6, 8)).astype("u2")
    path = tmp_path / "file.mrc"
    mrcz.writeMRC(data, str(path), meta={"stage": [1, 2]}, compressor=None)
    assert "version" in codes(assert_as_mrcfile(path))


def test_mrcz_by_hand() -> None:
    for fields in ({}, {"packed_bytes": 0}):
        raw = damage.file(damage.chunks(), damage.METADATA, exttyp=b"json", **fields)
        assert judged(raw, data=True) == judged(raw) == []


@damage.versions
@pytest.mark.parametrize(("field", "value"), [("version", 9), ("nbytes", 3), ("typesize", 0)])
def test_block_header(version: int, field: str, value: int) -> None:
    blocks = damage.chunks(version)
    damage.put(blocks[4], field, value)
    [problem] = judged(damage.file(blocks))
    assert problem.code == "blocks"
    assert problem.field.endswith(" of block 4")
    assert "blocks" in codes(judged(damage.file(blocks), data=True))


@damage.versions
def test_every_damaged_block_is_listed(version: int) -> None:
    blocks = damage.chunks(version)
    for k in (2, 5, 7):
        blocks[k][32:] = bytes(len(blocks[k]) - 32)
    assert judged(damage.file(blocks)) == []
    problems = judged(damage.file(blocks), data=True)
    assert codes(problems) == ["block"] * 3
    assert [p.offset for p in problems] == [damage.start_of(blocks, k) for k in (2, 5, 7)]


@pytest.mark.parametrize("packed_bytes", [1, -1, 2**40])
def test_packed_bytes(packed_bytes: int) -> None:
    [problem] = judged(damage.file(damage.chunks(), packed_bytes=packed_bytes))
    assert (problem.code, problem.offset) == ("packed-bytes", 144)
    assert str(packed_bytes) in problem.found


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"map": bytes(4)}, "map-word"), ({"nz": 0}, "dimensions"),
        ({"nz": damage.N + 1}, "truncated"), ({"mx": -1}, "negative-field"),
        ({"nlabl": 2}, "label-count"), ({"nsymbt": -1}, "nsymbt"), ({"mode": 99006}, "mode"),
    ],
    ids=str,
)  # fmt: skip
def test_header_of_an_mrcz(fields: Fields, code: str) -> None:
    assert code in codes(judged(damage.file(damage.chunks(), **fields), data=True))


def test_mrcz_with_bytes_that_are_not_blocks() -> None:
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
def test_broken_in_a_stream(write: Any, suffix: str) -> None:
    plain = write(map=b"MAP\0", dmax=22, extended=TEXT, nsymbt=0)
    path = write(PACK[suffix](plain.read_bytes()), f"file.mrc{suffix}")
    found, expected = assert_as_mrcfile(path), judged(plain, data=True)
    assert [(p.code, p.offset) for p in found] == [(p.code, p.offset) for p in expected]


def test_decoded_size(write: Any) -> None:
    # longer than the part that opening decodes
    raw = by_hand.mrc(np.random.default_rng(0).random((40, 64, 64)).astype("f4"))
    cases = {raw: [], raw + b"\0": ["extra-bytes"], raw[:-1]: ["truncated"]}
    for content, expected in cases.items():
        path = write(gzip.compress(content), "file.mrc.gz")
        problems = assert_as_mrcfile(path)
        assert codes(problems) == expected
        # cutting the compressed file would destroy it
        assert not any("os.truncate" in problem.action for problem in problems)


@pytest.mark.parametrize(("suffix", "shape"), [(".bz2", (2, 3, 4)), (".gz", (40, 64, 64))])
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


def test_streams_that_can_not_be_decoded(write: Any) -> None:
    for raw, name in (
        (b"\x28\xb5\x2f\xfd\x04\0" + bytes(2000), "file.mrc.zst"),
        (zipped({"a": b"A", "b": b"B"}), "file.zip"),
    ):
        assert codes(judged(write(raw, name))) == ["unreadable"]
    for packed, code in (
        (gzip.compress(b"text\n"), "short"),
        (gzip.compress(b"text\n" * 999), "foreign"),
        (b"\x1f\x8b\x08\0", "stream"),
    ):
        for data in (False, True):
            problems = header_errors(judged(write(packed, "file.mrc.gz"), data=data))
            assert code in codes(problems)


# sidecars ---------------------------------------------------------------------------------------

ENTRIES = "".join(f"[ZValue = {i}]\nTiltAngle = {i}\n" for i in range(4))
# name and bytes of the sidecar, the malformed line, and the field and the value found
SIDECARS: dict[str, tuple[str, bytes, bytes | None, str, str]] = {
    "mdoc, CRLF and a mark": (
        "series.st.mdoc", f"\ufeffA = µm\n\n{ENTRIES}nonsense\n".replace("\n", "\r\n").encode(),
        b"nonsense", "", "nonsense",
    ),
    "mdoc, no number": (
        "series.st.mdoc", ENTRIES.replace("= 2\n", "= up\n").encode(), b"TiltAngle = up",
        "TiltAngle", "up",
    ),
    "tilts, no number": ("series.rawtlt", b"1\r\n2\r\nthree\r\n4\r\n", b"three", "", "three"),
    "tilts, too few": ("series.rawtlt", b"1\n2\n3\n", None, "", "3"),
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
    # the engine has the same text
    assert warned(path) == [problem.message(str(path))]


def test_valid_sidecars(write: Any) -> None:
    path = write(by_hand.mrc(FRAMES, **STACK), "series.st")
    write(ENTRIES.encode(), "series.st.mdoc")
    write(b"1\n2\n3\n4\n", "series.rawtlt")
    assert judged(path, data=True) == []


def test_info_file(tmp_path: Path) -> None:
    changed = {"Exposure Time (seconds)": "soon"}
    path = de.write(tmp_path, de.frames(12), changed)
    [problem] = [p for p in assert_as_mrcfile(path) if p.code != "negative-cell"]
    assert (problem.code, problem.file) == ("sidecar", f"{de.STEM}_info.txt")
    assert problem.field == "Exposure Time (seconds)"
    assert problem.offset == de.info(changed).index(b"Exposure Time")
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


def test_valid_scan(tmp_path: Path) -> None:
    for changed, n, positions in (({}, 12, None), (de.XY_FILE, 8, de.POSITIONS)):
        path = de.write(tmp_path, de.frames(n), changed, positions)
        assert codes(judged(path, data=True)) == ["negative-cell"]
