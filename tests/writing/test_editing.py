"""Fields of a header are corrected in place, or the file is left as it was."""

from __future__ import annotations

import gzip
import re
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import by_hand
import mrcfile
import numpy as np
import pytest
import xarray as xr
from writes import by_rename, field

from mrc_xarray import MrcError, MrcWarning, edit_header, to_mrc
from mrc_xarray.storage import part
from mrc_xarray.storage.sink import InPlace

PIXELS = np.random.default_rng(6).integers(-(2**15), 2**15, (8, 12, 10), "i2")


@pytest.mark.parametrize(
    ("edit", "changed"),
    [
        ({"voxel_size": 2.5}, {"cella": (25, 30, 20)}),
        ({"voxel_size": {"z": 4.0, "y": 3.0, "x": 2.0}}, {"cella": (20, 36, 32)}),
        ({"voxel_size": {"z": 4.0}}, {"cella": (10, 12, 32)}),
        ({"cella": (1.5, 2.5, 3.5)}, {"cella": (1.5, 2.5, 3.5)}),
        ({"origin": (-1.5, 2, 3)}, {"origin": (-1.5, 2, 3)}),
        ({"nxstart": -4, "nzstart": 7}, {"nxstart": -4, "nzstart": 7}),
        ({"ispg": 0, "mz": 1}, {"ispg": 0, "mz": 1}),
        ({"ispg": 401, "mz": 4}, {"ispg": 401, "mz": 4}),
        ({"mapc": 3, "maps": 1}, {"mapc": 3, "maps": 1}),
        ({"dmin": -1, "rms": 3}, {"dmin": -1, "rms": 3}),
        ({"nx": 12, "ny": 10}, {"nx": 12, "ny": 10}),
        ({"mode": 6}, {"mode": 6}),
        ({}, {}),
    ],
    ids=str,
)
def test_fields_are_replaced_and_nothing_else(
    path: Path, edit: dict[str, Any], changed: dict[str, Any]
) -> None:
    before = by_hand.mrc(
        PIXELS, byteorder=">", extended=b"same" * 20, exttyp=b"CCP4", labels=(b"old",)
    )
    path.write_bytes(before)
    assert edit_header(path, **edit) is None
    expected = bytearray(before)
    for name, value in changed.items():
        offset, code = by_hand.FIELDS[name]
        packed = value if isinstance(value, tuple) else (value,)
        struct.pack_into(">" + code, expected, offset, *packed)
    assert path.read_bytes() == expected
    with mrcfile.open(path, header_only=True) as mrc:
        for name, value in changed.items():
            assert mrc.header[name].item() == value
    xr.open_dataset(path, engine="mrc")


def test_labels_are_replaced(path: Path) -> None:
    before = by_hand.mrc(PIXELS, labels=(b"old", b"older", b"oldest"))
    path.write_bytes(before)
    edit_header(path, label=["new", "newer"])
    after = path.read_bytes()
    assert (after[:220], after[1024:]) == (before[:220], before[1024:])
    with mrcfile.open(path) as mrc:
        assert [label.strip() for label in mrc.get_labels()] == ["new", "newer"]
    assert field(path, "nlabl") == 2
    assert not after[384:1024].strip(b" \0")


@pytest.mark.parametrize(
    "edit",
    [
        {"nz": 9},
        {"nx": 0},
        {"mode": 2},
        {"nsymbt": 80},
        {"map": "PAM "},
        {"exttyp": "abcde"},
        {"mapc": 2},
        {"mx": 0},
        {"cella": (float("nan"), 2, 3)},
        {"cella": (1, 2)},
        {"cella": 5.0},
        {"dmin": "low"},
        {"origin": (1e12, 0, 0)},
        {"ispg": 2**31},
        {"nxstart": 100_000},
        {"label": ["x" * 81]},
        {"label": [str(i) for i in range(11)]},
        {"voxel_size": -1.0},
        {"voxel_size": (1, 2)},
        {"voxel_size": {"x": (0.01, "1/nm")}},
        {"voxel_size": {"w": 1.0}},
        # a valid value is not written either
        {"origin": (1, 2, 3), "nz": 9},
        {"nz": 8, "no_field": 1},
        {"voxelsize": 2.0},
        {"NX": 10},
    ],
    ids=str,
)
def test_harmful_edits_leave_the_file_unchanged(path: Path, edit: dict[str, Any]) -> None:
    path.write_bytes(before := by_hand.mrc(PIXELS))
    with pytest.raises((MrcError, TypeError), match=r"(?i)volume\.mrc|" + "|".join(edit)):
        edit_header(path, **edit)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("edit", "accepted"),
    [
        ({"machst": b"DD\0\0toolong"}, "4 bytes"),
        ({"machst": 4}, "4 bytes"),
        ({"tiltangles": (1, 2)}, "6 numbers"),
    ],
    ids=str,
)
def test_values_of_another_size(path: Path, edit: dict[str, Any], accepted: str) -> None:
    path.write_bytes(before := by_hand.mrc(PIXELS))
    [(name, value)] = edit.items()
    with pytest.raises(TypeError, match=re.escape(f"{name} is {value!r}: accepted: {accepted}")):
        edit_header(path, **edit)
    assert path.read_bytes() == before


@pytest.mark.parametrize(("content", "match"), [(b"", "is empty"), (b"MRC", "has 3 bytes")])
def test_file_without_a_header_is_not_edited(path: Path, content: bytes, match: str) -> None:
    path.write_bytes(content)
    with pytest.raises(MrcError, match=match):
        edit_header(path, nx=1)


@pytest.mark.parametrize(
    ("damage", "edit"),
    [
        ({"map": b"\0\0\0\0"}, {"map": "MAP "}),
        ({"machst": b"\xde\xad\0\0"}, {"machst": b"\x44\x44\0\0"}),
        ({"mapc": 0}, {"mapc": 1}),
        ({"mx": 0}, {"mx": 10}),
        ({"cella": (float("nan"), 12, 8)}, {"cella": (10, 12, 8)}),
    ],
    ids=str,
)
def test_damaged_header_is_repaired(
    path: Path, damage: dict[str, Any], edit: dict[str, Any]
) -> None:
    path.write_bytes(by_hand.mrc(PIXELS, **damage))
    with pytest.warns(MrcWarning):
        xr.open_dataset(path, engine="mrc")
    # an unrelated field may also be edited
    edit_header(path, dmin=-7)
    edit_header(path, **edit)
    assert xr.open_dataset(path, engine="mrc").mrc.header.dmin == -7
    assert path.read_bytes() == by_hand.mrc(PIXELS, dmin=-7)


UNREADABLE = {
    "no data": {"nx": 0, "ny": 0, "nz": 0},
    "unknown MODE": {"mode": 77},
    "cut in its first section": {"nz": 8},
}


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("case", UNREADABLE)
def test_header_of_a_file_that_can_not_be_opened(path: Path, case: str, order: str) -> None:
    fields: dict[str, Any] = UNREADABLE[case] | {"byteorder": order}
    n = {"no data": 0, "unknown MODE": 1920}.get(case, 10)
    damaged = by_hand.mrc(PIXELS, **fields, map=b"\0\0\0\0")[: 1024 + n]
    path.write_bytes(damaged)
    edit_header(path, map="MAP ")
    repaired = by_hand.mrc(PIXELS, **fields)[: 1024 + n]
    assert path.read_bytes() == repaired
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with mrcfile.open(path, permissive=True) as mrc:
            assert mrc.header.map == b"MAP "
    edit_header(path, voxel_size={"x": 3}, label=["a"])
    assert field(path, "cella", order) == (30, 12, 8)
    # a step that does harm is refused also here
    for edit in ({"map": "PAM "}, {"mapc": 7}, {"nx": 5}, {"mode": 78}, {"statistics": True}):
        before = path.read_bytes()
        with pytest.raises(MrcError, match=r"volume\.mrc: "):
            edit_header(path, **edit)
        assert path.read_bytes() == before


def test_stream_that_can_not_be_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc.gz"
    path.write_bytes(gzip.compress(by_hand.mrc(PIXELS, mode=77, map=b"\0\0\0\0")))
    edit_header(path, map="MAP ")
    assert gzip.decompress(path.read_bytes()) == by_hand.mrc(PIXELS, mode=77)
    edit_header(path, mode=1)
    assert gzip.decompress(path.read_bytes()) == by_hand.mrc(PIXELS)


def test_file_without_any_mark_of_mrc_is_not_edited(path: Path) -> None:
    path.write_bytes(before := np.random.default_rng(3).bytes(5000))
    with pytest.raises(MrcError, match="may be damaged or not an MRC file"):
        edit_header(path, dmin=0)
    assert path.read_bytes() == before


def test_file_of_wrong_size_is_repaired(path: Path) -> None:
    path.write_bytes(by_hand.mrc(PIXELS, nz=9, mz=9))
    edit_header(path, nz=8, mz=8)
    assert path.read_bytes() == by_hand.mrc(PIXELS)


def test_edit_needs_an_mrc_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        edit_header(tmp_path / "missing.mrc", dmin=0)
    other = tmp_path / "other.mrc"
    other.write_bytes(before := b'{"no": "MRC"}'.ljust(4000))
    with pytest.raises(MrcError, match=r"other\.mrc"):
        edit_header(other, dmin=0)
    assert other.read_bytes() == before


def test_label_of_an_mrcz_stays_first(tmp_path: Path) -> None:
    path = tmp_path / "a.mrcz"
    to_mrc(xr.DataArray(np.zeros((3, 2, 8, 8), "f4"), dims=("image", "channel", "y", "x")), path)
    edit_header(path, label=["new"])
    assert xr.open_dataarray(path, engine="mrc").dims == ("image", "channel", "y", "x")
    with pytest.raises(TypeError, match="up to 10 texts"):
        edit_header(path, label=[str(i) for i in range(10)])


def test_file_that_is_replaced_before_a_header_is_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(by_hand.mrc(PIXELS))
    new = by_hand.mrc(PIXELS[:3])
    finish = InPlace.finish

    def replaced(self: InPlace, head: bytes) -> None:
        by_rename(path, new)
        finish(self, head)

    monkeypatch.setattr(InPlace, "finish", replaced)
    with pytest.raises(MrcError, match="another file"):
        edit_header(path, origin=(1, 2, 3))
    assert path.read_bytes() == new


CHANGES: dict[str, Callable[[Path], Any]] = {
    "region": lambda path: to_mrc(PIXELS[:2], path, region={"z": slice(1, 3)}),
    "append": lambda path: to_mrc(PIXELS[:2], path, append_dim="z"),
    "edit_header": lambda path: edit_header(path, voxel_size=7.7, origin=(1, 2, 3)),
    "layout": lambda path: edit_header(path, layout="image_stack"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_header_changes_by_one_call(
    path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process can be killed between two calls, but not within one of 1024 bytes."""
    path.write_bytes(by_hand.mrc(PIXELS, dmin=-5, dmax=5, dmean=1, rms=2))
    real, calls = part._pwrite, []

    def pwrite(fd: int, buffer: memoryview, offset: int) -> int:
        calls.append((offset, len(buffer)))
        return int(real(fd, buffer, offset))

    monkeypatch.setattr(part, "_pwrite", pwrite)
    CHANGES[change](path)
    assert [call for call in calls if call[0] < 1024] == [(0, 1024)]
    assert calls[-1] == (0, 1024)


def test_error_about_a_size_does_not_advise_to_truncate_the_file(path: Path) -> None:
    path.write_bytes(before := by_hand.mrc(PIXELS))
    with pytest.raises(MrcError, match="the file was left as it is") as caught:
        edit_header(path, nx=5)
    assert "truncate" not in str(caught.value)
    assert path.read_bytes() == before
