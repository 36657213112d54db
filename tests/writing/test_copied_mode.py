"""The mode of a copy is that of its source; after arithmetic, it follows from the dtype."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import by_hand
import numpy as np
import pytest
import xarray as xr
from writes import check_statistics, field, fields, noise, opened, stored, unwarned, warned

from mrc_xarray import MrcError, MrcWarning, to_mrc

SHAPE = (3, 4, 6)
FOUR = noise(SHAPE, "u1") % 16
PAIRS = noise((3, 4, 12), "i2")
# MODE → the pixels in the file
MODES: dict[int, Any] = {
    0: noise(SHAPE, "u1"), 1: noise(SHAPE, "i2"), 2: noise(SHAPE), 3: PAIRS, 4: noise(SHAPE, "c8"),
    6: noise(SHAPE, "u2"), 7: noise(SHAPE, "i4"), 8: noise(SHAPE, "u4"), 12: noise(SHAPE, "f2"),
    16: noise((*SHAPE, 3), "u1"), 101: by_hand.pack_4bit(FOUR),
}  # fmt: skip


def write(path: Path, mode: int, **fields: Any) -> Path:
    path.write_bytes(by_hand.mrc(MODES[mode], mode, shape=SHAPE, **fields))
    return path


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("chunks", [None, {}])
@unwarned
def test_copy_has_the_bytes_of_its_source(tmp_path: Path, mode: int, chunks: Any) -> None:
    statistics = {"dmin": 0, "dmax": 255, "dmean": 99} if mode == 0 else {}
    name = write(tmp_path / "s.mrc", mode, **statistics)
    data = opened(name, chunks=chunks)
    to_mrc(data, tmp_path / "a.mrc")
    assert field(tmp_path / "a.mrc", "mode") == mode
    assert stored(tmp_path / "a.mrc") == stored(name)
    assert opened(tmp_path / "a.mrc").data.dtype == data.data.dtype
    # also from memory, and in parts
    to_mrc(data.load().isel(x=slice(1, 5)), tmp_path / "b.mrc")
    assert field(tmp_path / "b.mrc", "mode") == mode
    np.testing.assert_array_equal(opened(tmp_path / "b.mrc").data, data.data[:, :, 1:5])


def test_unsigned_bytes_are_unsigned_by_their_statistics(tmp_path: Path, path: Path) -> None:
    """For programs that do not know IMOD's stamp."""
    data = opened(write(tmp_path / "s.mrc", 0, dmin=0, dmax=255, dmean=99))
    to_mrc(data, path)
    check_statistics(path, MODES[0])
    # the user's argument wins, and data from elsewhere have 16 bits
    to_mrc(data, path, mode=6, overwrite=True)
    assert field(path, "mode") == 6
    to_mrc(MODES[0], path, overwrite=True)
    assert field(path, "mode") == 6


@pytest.mark.parametrize(
    ("mode", "dtype", "new"), [(0, "f4", 2), (0, "i2", 1), (0, "u1", 0), (101, "u2", 6)]
)
def test_mode_after_arithmetic(
    tmp_path: Path, path: Path, mode: int, dtype: str, new: int
) -> None:
    data = opened(write(tmp_path / "s.mrc", mode, dmax=255, dmean=99)).data
    with xr.set_options(keep_attrs=True):
        changed = (data // 2).astype(dtype)
    to_mrc(changed, path)
    assert field(path, "mode") == new
    np.testing.assert_array_equal(opened(path).data, changed)


@pytest.mark.parametrize("chunks", [None, {}])
@pytest.mark.parametrize(
    ("mode", "change", "new"),
    [(101, lambda data: data + np.uint8(100), 6), (3, lambda data: data * np.complex64(0.5j), 4)],
)
def test_values_that_the_mode_does_not_hold(
    tmp_path: Path, path: Path, chunks: Any, mode: int, change: Any, new: int
) -> None:
    """Lazy pixels are not computed first: arithmetic is enough."""
    with xr.set_options(keep_attrs=True):
        data = change(opened(write(tmp_path / "s.mrc", mode), chunks=chunks).data)
    assert f"MODE {mode} of the source" in warned(data, path)
    assert field(path, "mode") == new
    np.testing.assert_array_equal(opened(path).data, data)


def test_lazy_pixels_that_were_only_moved(tmp_path: Path, path: Path) -> None:
    data = opened(write(tmp_path / "s.mrc", 101), chunks={}).data.chunk(z=1)
    moved = xr.concat([data.isel(z=[0]), data.isel(z=[1, 2])], "z").transpose("x", "z", "y")
    to_mrc(moved.chunk(x=2), path)
    assert field(path, "mode") == 101
    np.testing.assert_array_equal(opened(path).data, moved)


def test_mrcz_has_no_packed_pixels(tmp_path: Path) -> None:
    path = tmp_path / "a.mrcz"
    data = opened(write(tmp_path / "s.mrc", 101))
    assert "MODE 101, as an MRCZ can't hold packed pixels" in warned(data, path)
    assert field(path, "mode") == 6000
    assert opened(path).equals(data)
    with pytest.raises(MrcError, match="mode 101 can't be compressed"):
        to_mrc(data, path, mode=101, overwrite=True)


@pytest.mark.parametrize("change", [lambda ds: ds, lambda ds: ds.load(), lambda ds: ds.chunk(z=1)])
def test_copy_of_packed_bytes_has_mode_101(tmp_path: Path, path: Path, change: Any) -> None:
    """Two pixels in each byte of MODE 0, by IMOD's flag 16."""
    imod: dict[str, Any] = {"imod_stamp": by_hand.IMOD_STAMP, "imod_flags": 16 | 4}
    raw = by_hand.mrc(MODES[101], 0, shape=(3, 4, 3), cella=(6, 8, 9), mx=3, **imod)
    (tmp_path / "s.mrc").write_bytes(raw)
    data = change(opened(tmp_path / "s.mrc"))
    assert "MODE 0 with two pixels in each byte, which becomes MODE 101" in warned(data, path)
    found = fields(path, "mode", "imod_flags", "nx", "mx", "cella")
    assert found == (101, 4, 6, 6, (12, 8, 9))
    assert stored(path) == raw[1024:]
    assert opened(path).equals(data)
    # the bytes themselves, if the user asks for them
    to_mrc(opened(tmp_path / "s.mrc", mode0="uint8"), path, overwrite=True)
    assert fields(path, "mode", "imod_flags") == (0, 4)
    assert stored(path) == raw[1024:]


def test_copy_of_mode_5_has_mode_0(tmp_path: Path, path: Path) -> None:
    (tmp_path / "s.mrc").write_bytes(by_hand.mrc(MODES[0], 5))
    with pytest.warns(MrcWarning, match="MODE 5, which becomes MODE 0"):
        to_mrc(opened(tmp_path / "s.mrc"), path)
    assert field(path, "mode") == 0
    np.testing.assert_array_equal(opened(path).data, MODES[0])
