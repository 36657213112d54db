"""Statistics are measured in place, and headers of compressed streams are changed."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import by_hand
import de_by_hand
import numpy as np
import pytest
import xarray as xr
from writes import UNDETERMINED, noise, statistics

from mrc_xarray import MrcError, edit_header, to_mrc

PIXELS = noise((5, 7, 11))
OF_STATISTICS = {*range(76, 88), *range(216, 220)}


def changed(after: bytes, before: bytes) -> set[int]:
    return {i for i, (a, b) in enumerate(zip(after, before, strict=True)) if a != b}


def exact(pixels: Any) -> tuple[float, ...]:
    values = pixels[np.isfinite(pixels)].astype("f8")
    found = (values.min(), values.max(), values.mean(), values.std())
    return tuple(struct.unpack("<4f", struct.pack("<4f", *found)))


WITH_NAN = PIXELS.copy()
WITH_NAN[2, 3], WITH_NAN[4, 0, 0] = np.nan, np.inf
NIBBLES = (np.arange(5 * 7 * 11).reshape(5, 7, 11) % 13 + 1).astype("u1")
STAMP = {"imod_stamp": by_hand.IMOD_STAMP, "imod_flags": 4}


@pytest.mark.parametrize(
    ("content", "pixels"),
    [
        (by_hand.mrc(PIXELS, dmin=3, dmax=9, rms=7), PIXELS),
        (by_hand.mrc(WITH_NAN), WITH_NAN),
        (by_hand.mrc(noise((5, 7, 11), "i1"), 0), noise((5, 7, 11), "i1")),
        (by_hand.mrc(noise((5, 7, 11), "u1"), 0, **STAMP), noise((5, 7, 11), "u1")),
        (by_hand.mrc(by_hand.pack_4bit(NIBBLES), 101, shape=NIBBLES.shape), NIBBLES),
    ],
    ids=["f4", "nan", "i1", "u1", "4 bits"],
)
def test_statistics_are_measured_in_place(path: Path, content: bytes, pixels: Any) -> None:
    path.write_bytes(content)
    assert edit_header(path, statistics=True) is None
    assert statistics(path) == pytest.approx(exact(pixels), rel=1e-6)
    assert statistics(path)[:2] == exact(pixels)[:2]
    assert changed(path.read_bytes(), content) <= OF_STATISTICS


def test_statistics_take_little_memory(tmp_path: Path) -> None:
    begins = by_hand.header((3, 4096, 4096), 2, dmin=5)
    path = by_hand.sparse(tmp_path / "large.mrc", begins, 1024 + 3 * 4 * 4096**2)
    tracemalloc.start()
    edit_header(path, statistics=True)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 48 * 1024**2
    assert statistics(path) == (0, 0, 0, 0)


def test_statistics_of_pixels_without_order_or_a_finite_value(path: Path) -> None:
    pixels = PIXELS + 1j * PIXELS[::-1]
    path.write_bytes(by_hand.mrc(pixels.astype("c8"), dmin=1, dmax=2, rms=2))
    edit_header(path, statistics=True)
    assert statistics(path) == pytest.approx((*UNDETERMINED[:3], pixels.std()), rel=1e-6)
    path.write_bytes(by_hand.mrc(np.full((2, 3, 4), np.nan, "f4"), dmin=1, dmax=2, rms=3))
    edit_header(path, statistics=True)
    assert statistics(path) == UNDETERMINED


def test_position_of_an_old_header_is_not_overwritten_by_rms(path: Path) -> None:
    old = {"map": struct.pack("<f", 20.0), "machst": struct.pack("<f", 30.0), "rms": 40.0}
    path.write_bytes(by_hand.mrc(PIXELS, **old))
    edit_header(path, statistics=True)
    assert statistics(path)[:3] == pytest.approx(exact(PIXELS)[:3], rel=1e-6)
    assert statistics(path)[3] == 40
    to_mrc(PIXELS[:1], path, region={"z": slice(0, 1)})
    assert statistics(path) == (*UNDETERMINED[:3], 40)


def test_signature_of_direct_electron_is_preserved(path: Path) -> None:
    pixels = (np.arange(3 * 4 * 6) % 7).astype("u2").reshape(3, 4, 6)
    path.write_bytes(before := de_by_hand.movie(pixels))
    with pytest.raises(MrcError, match="Direct Electron"):
        edit_header(path, statistics=True)
    assert path.read_bytes() == before
    to_mrc(pixels[:1], path, region={"image": slice(2, 3)})
    to_mrc(pixels[0], path, append_dim="image")
    assert statistics(path) == (2, 1, 0, -1)
    assert xr.open_dataarray(path, engine="mrc").dims == ("image", "y", "x")


def test_edit_does_not_turn_a_stack_into_a_volume_by_the_way(path: Path) -> None:
    path.write_bytes(before := de_by_hand.movie(np.ones((3, 4, 6), "u2"), mz=3))
    assert xr.open_dataarray(path, engine="mrc").dims == ("image", "y", "x")
    with pytest.raises(MrcError, match=r"would open as volume \(.*instead of image_stack"):
        edit_header(path, voxel_size=2.5)
    assert path.read_bytes() == before
    edit_header(path, voxel_size={"x": 2.5, "y": 2.5}, ispg=0, mz=1)
    data = xr.open_dataarray(path, engine="mrc")
    assert (data.dims, data.mrc.voxel_size) == (("image", "y", "x"), {"y": 2.5, "x": 2.5})


def test_edit_does_not_change_the_pixels_by_the_way(path: Path) -> None:
    bytes_200 = np.full((2, 4, 6), 200, "u1")
    path.write_bytes(before := by_hand.mrc(bytes_200, 0, dmin=0, dmax=200, dmean=100))
    with pytest.raises(MrcError, match=r"would open as int8 \(.*instead of uint8 .*imod_stamp="):
        edit_header(path, dmin=0, dmax=100, dmean=50)
    assert path.read_bytes() == before
    stamp = {"imod_stamp": by_hand.IMOD_STAMP, "imod_flags": 4}
    edit_header(path, dmin=0, dmax=100, dmean=50, **stamp)
    np.testing.assert_array_equal(xr.open_dataarray(path, engine="mrc"), bytes_200)
    edit_header(path, statistics=True)
    assert statistics(path)[:3] == (200, 200, 200)


# compressed streams -----------------------------------------------------------------------------

CODECS: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    ".map.gz": (gzip.compress, gzip.decompress),
    ".mrc.bz2": (bz2.compress, bz2.decompress),
    ".mrc.xz": (lzma.compress, lzma.decompress),
    # recognised by its content
    ".mrc": (gzip.compress, gzip.decompress),
}


@pytest.mark.parametrize("suffix", CODECS)
def test_header_of_a_stream_is_changed(tmp_path: Path, suffix: str) -> None:
    encode, decode = CODECS[suffix]
    path, before = tmp_path / f"a{suffix}", by_hand.mrc(PIXELS, byteorder=">")
    path.write_bytes(encode(before))
    path.chmod(0o640)
    edit_header(path, voxel_size=2.5, statistics=True)
    after = decode(path.read_bytes())
    assert after[1024:] == before[1024:]
    assert struct.unpack_from(">3f", after, 40) == (27.5, 17.5, 12.5)
    found = struct.unpack_from(">3f", after, 76) + struct.unpack_from(">f", after, 216)
    assert found == pytest.approx(exact(PIXELS), rel=1e-6)
    assert changed(after, before) <= OF_STATISTICS | set(range(40, 52))
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == [path.name]
    assert xr.open_dataset(path, engine="mrc").mrc.voxel_size["x"] == 2.5


@pytest.mark.parametrize(
    ("content", "edit", "match"),
    [
        (gzip.compress(by_hand.mrc(PIXELS)), {"nz": 6}, r"a\.mrc\.gz: "),
        (gzip.compress(by_hand.mrc(PIXELS))[:-9], {"origin": (1, 2, 3)}, "damaged or truncated"),
        (gzip.compress(b"no MRC" * 900), {"ispg": 1}, r"a\.mrc\.gz: "),
    ],
    ids=["worse", "truncated", "foreign"],
)
def test_stream_that_is_not_changed(
    tmp_path: Path, content: bytes, edit: dict[str, Any], match: str
) -> None:
    path = tmp_path / "a.mrc.gz"
    path.write_bytes(content)
    with pytest.raises(MrcError, match=match):
        edit_header(path, **edit)
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == [path.name]
