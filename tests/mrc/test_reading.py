"""The header of files that can't be opened; mrcfile is the oracle."""

from __future__ import annotations

import gzip
import io
import struct
import warnings
from pathlib import Path
from typing import Any

import by_hand
import fsspec
import mrcfile
import mrcz_by_hand
import numpy as np
import pytest
import xarray as xr

from mrc_xarray import MrcError, read_header

PIXELS = np.random.default_rng(1).integers(-99, 99, (3, 6, 8), "i2")
EMPTY = {"nx": 0, "ny": 0, "nz": 0, "mode": 0, "nsymbt": 0}


def cut(n: int, **fields: Any) -> bytes:
    return by_hand.mrc(PIXELS, **fields)[: 1024 + n]


# bytes, and for each problem in its order, a part of its text
DAMAGED: dict[str, tuple[bytes, list[str]]] = {
    "unknown MODE": (by_hand.mrc(PIXELS, mode=77), ["MODE (bytes 12–15) is 77"]),
    "no data": (cut(0, **EMPTY), ["NX, NY, NZ (bytes 0–11) are 0, 0, 0"]),
    "cut in its first section": (cut(10), ["NZ (bytes 8–11) is 3; accepted: 0"]),
    "cut in its extended header": (
        by_hand.mrc(PIXELS, extended=b"FEI" * 99, exttyp=b"FEI1")[:1100], ["NZ (bytes 8–11) is 3"],
    ),
    "no MAP, big-endian": (
        cut(0, **EMPTY, map=b"\0" * 4, byteorder=">"), ["NX, NY, NZ", "MAP (bytes 208–211)"],
    ),
    "all at once": (
        cut(9, nx=0, mode=-5, map=b"PAM ", mapc=0, machst=b"\xde\xad\0\0"),
        ["MODE (bytes 12–15) is -5", "NX, NY, NZ", "MAPC", "MAP (bytes 208–211)"],
    ),
    "repaired": (by_hand.mrc(PIXELS, mapr=9), ["MAPC, MAPR, MAPS (bytes 64–75) are 1, 9, 3"]),
    "valid": (by_hand.mrc(PIXELS), []),
    "zeros": (bytes(1024), ["NX, NY, NZ", "MAPC", "MAP (bytes"]),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_header_of_any_file(tmp_path: Path, case: str) -> None:
    raw, wanted = DAMAGED[case]
    path = tmp_path / "damaged.mrc"
    path.write_bytes(raw)
    header = read_header(path)
    assert len(header.problems) == len(wanted)
    assert all(part in text for part, text in zip(wanted, header.problems, strict=True))
    assert header.encode() == raw[:1024]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with mrcfile.open(path, header_only=True, permissive=True) as mrc:
            theirs = mrc.header
    for name in ("nx", "ny", "nz", "mode", "mz", "ispg", "nsymbt", "dmin", "rms", "nlabl"):
        assert header[name] == theirs[name].item()


def test_problems_are_what_opening_says(tmp_path: Path) -> None:
    for case, (raw, _) in DAMAGED.items():
        path = tmp_path / "file.mrc"
        path.write_bytes(raw)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                xr.open_dataset(path, engine="mrc")
                said = {str(warning.message) for warning in caught}
            except MrcError as error:
                said = {str(error)}
        # the error about missing sections is longer
        assert len(said & {*read_header(path).problems}) == (len(said) if "cut" not in case else 0)


def test_every_kind_of_target(tmp_path: Path) -> None:
    raw = cut(10, byteorder=">", map=b"\0" * 4)
    path, packed = tmp_path / "a.mrc", tmp_path / "a.mrc.gz"
    path.write_bytes(raw)
    packed.write_bytes(gzip.compress(raw))
    fsspec.filesystem("memory").pipe("/header/a.mrc", raw)
    with path.open("rb") as file, gzip.open(packed) as decoded:
        targets = (str(path), raw, io.BytesIO(raw), file, decoded, packed, "memory://header/a.mrc")
        found = [read_header(target) for target in targets]
    assert {(header.encode(), header.nx, header.byteorder) for header in found} == {
        (raw[:1024], 8, ">")
    }
    assert {len(header.problems) for header in found} == {2}


def test_stream_that_is_cut_after_the_header() -> None:
    packed = gzip.compress(by_hand.mrc(np.random.default_rng(0).random((3, 60, 80), "f4")))
    assert read_header(packed[: len(packed) // 2]).nz == 3


def test_mrcz_without_a_block() -> None:
    raw = mrcz_by_hand.file(mrcz_by_hand.chunks()[:1])
    header = read_header(raw[:1030])
    assert header.encode() == raw[:1024]
    assert "No section is complete" in header.problems[0]


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"MRC", by_hand.mrc(PIXELS)[:1023], b"<!DOCTYPE html>".ljust(2000),
        b"\x89PNG\r\n\x1a\n".ljust(2000, b"\0"), b'{"no": "MRC"}'.ljust(2000),
        # version, size and byte order; sorted, open and number of the first tags
        struct.pack(">3I2BI2000x", 3, 96348, 1, 1, 0, 17),
        struct.pack(">IQI2BQ2000x", 4, 26725, 1, 1, 0, 17),
        "Å\tµ\r\n".encode() * 400, gzip.compress(b"a,b\n" * 999),
    ],
    ids=[
        "empty", "3 bytes", "1023 bytes", "HTML", "PNG", "JSON", "DM3", "DM4", "UTF-8",
        "gzip of CSV",
    ],
)  # fmt: skip
def test_other_files(raw: bytes) -> None:
    with pytest.raises(MrcError):
        read_header(raw)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_header(tmp_path / "none.mrc")


def test_problems_are_no_field() -> None:
    header = read_header(cut(0, **EMPTY))
    assert "problems" not in header
    assert header.to_json() == read_header(cut(0, **EMPTY)).to_json()
    assert header.replaced(nx=3).problems == ()
