"""Odd and damaged headers: silent, a warning that names the field, or an error that says why."""

from __future__ import annotations

import io
import itertools
import json
import os
import warnings
from pathlib import Path
from typing import Any

import by_hand
import mrcfile
import numpy as np
import pytest
import xarray as xr

from mrc_xarray import MrcError, MrcWarning

NAN, INF = float("nan"), float("inf")
DATA = np.arange(24, dtype="i2").reshape(2, 3, 4)
DIRECT_ELECTRON = {
    "nversion": 20140, "cella": (-40, -30, 0), "dmin": 2, "dmax": 1, "dmean": 0, "rms": -1,
}  # fmt: skip


def opened(raw: bytes, **options: Any) -> xr.Dataset:
    return xr.open_dataset(io.BytesIO(raw), engine="mrc", **options)


def check(ds: xr.Dataset, coords: str) -> None:
    """The pixels are right, and just the dimensions in `coords` have a coordinate."""
    np.testing.assert_array_equal(ds.data, DATA)
    assert "".join(sorted(set(ds.coords) - {"section"})) == coords


# what is normal → fields, and the dimensions with a coordinate
SILENT: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "xyz"),
    "MotionCor2's MAP": ({"map": b"MAP\0"}, "xyz"),
    "any fourth byte of MAP": ({"map": b"MAPx"}, "xyz"),
    "NVERSION 0": ({"nversion": 0}, "xyz"),
    "NVERSION 20140": ({"nversion": 20140}, "xyz"),
    "CELLA 0": ({"cella": (0, 0, 0)}, ""),
    "CELLA and M 0": ({"cella": (0, 0, 0), "mx": 0, "my": 0, "mz": 0}, ""),
    "CELLA.z 0": ({"cella": (4, 3, 0)}, "xy"),
    "Direct Electron's cell": (DIRECT_ELECTRON, ""),
    "no statistics, mrcfile": ({"dmin": 0, "dmax": -1, "dmean": -2, "rms": -1}, "xyz"),
    "no statistics, Velox": ({"dmin": 3, "dmax": 2, "dmean": 1, "rms": -1}, "xyz"),
    "no statistics, IMOD": ({"dmin": 3.4e38, "dmax": -3.4e38, "dmean": 0}, "xyz"),
    "statistics not finite": ({"dmin": NAN, "dmax": INF, "dmean": NAN, "rms": NAN}, "xyz"),
    "angles 0": ({"cellb": (0, 0, 0)}, "xyz"),
    "NLABL wrong": ({"nlabl": 7}, "xyz"),
    "NLABL absurd": ({"nlabl": -12345}, "xyz"),
    "ISPG 0 for a volume": ({"ispg": 0}, "xyz"),
    "unknown EXTTYP": ({"exttyp": b"json"}, "xyz"),
    "EXTTYP not text": ({"exttyp": b"\xff\xfe\x80\0"}, "xyz"),
    "CCP4's LSKFLG": ({"lskflg": 1}, "xyz"),
    "starts within ten times the size": ({"nxstart": 40, "nystart": -30, "nzstart": 20}, "xyz"),
    "starts within ten times MX": (
        {"nxstart": 90, "mx": 9, "cella": (9, 3, 2)}, "xyz",
    ),
    "garbage starts, but ORIGIN": ({"nxstart": 2**31 - 1, "origin": (1, 2, 3)}, "xyz"),
    "ORIGIN of a metre, times 0.05": ({"origin": (5e8, 0, 0)}, "xyz"),
    "garbage CELLA.z in a stack": ({"cella": (4, 3, NAN), "mz": 1, "ispg": 0}, "xy"),
    "garbage NZSTART in a stack": ({"nzstart": 2**31 - 1, "mz": 1, "ispg": 0}, "xy"),
    "MZ 0 in a stack": ({"mz": 0, "ispg": 0, "cella": (4, 3, 1)}, "xy"),
    "permuted axes": ({"mapc": 3, "mapr": 1, "maps": 2, "mx": 3, "my": 2, "mz": 4}, "xyz"),
}  # fmt: skip


@pytest.mark.parametrize("case", SILENT)
def test_silent(case: str) -> None:
    fields, coords = SILENT[case]
    raw = by_hand.mrc(DATA, byteorder=">" if "stack" in case else "<", **fields)
    for strict in (False, True):
        check(opened(raw, strict=strict), coords)
    assert "mrc_repairs" not in opened(raw).data.attrs


@pytest.mark.parametrize(
    ("order", "machst"),
    [("<", b"\x44\x41\0\0"), ("<", b"\x44\x44\x44\x44"), (">", b"\x11\x11\x11\x11")],
)
def test_other_stamps_of_the_right_order(order: str, machst: bytes) -> None:
    check(opened(by_hand.mrc(DATA, byteorder=order, machst=machst), strict=True), "xyz")


# what is damage → fields, the field and bytes that the warning names, whether strict= raises,
# and the dimensions with a coordinate
DAMAGE: dict[str, tuple[dict[str, Any], str, bool, str]] = {
    "no MAP": ({"map": bytes(4)}, r"MAP (bytes 208–211) is '\x00\x00\x00\x00'", True, "xyz"),
    "other MAP": ({"map": b"map "}, "MAP (bytes 208–211) is 'map '", True, "xyz"),
    "stamp 0": ({"machst": bytes(4)}, "MACHST (bytes 212–215) is 00 00 00 00", True, "xyz"),
    "SerialEM's stamp": (
        {"machst": b"\x44\0\0\0"}, "MACHST (bytes 212–215) is 44 00 00 00", True, "xyz",
    ),
    "blank stamp": (
        {"machst": b"\x44\x20\x20\x20"}, "MACHST (bytes 212–215) is 44 20 20 20", True, "xyz",
    ),
    "axes 0": (
        {"mapc": 0, "mapr": 0, "maps": 0},
        "MAPC, MAPR, MAPS (bytes 64–75) are 0, 0, 0", True, "xyz",
    ),
    "axes twice": (
        {"mapc": 1, "mapr": 1, "maps": 3},
        "MAPC, MAPR, MAPS (bytes 64–75) are 1, 1, 3", True, "xyz",
    ),
    "axes garbage": (
        {"mapc": -7, "mapr": 2**30, "maps": 3},
        "MAPC, MAPR, MAPS (bytes 64–75) are -7, 1073741824, 3", True, "xyz",
    ),
    "MX 0": ({"mx": 0}, "MX (bytes 28–31) is 0", False, "yz"),
    "MY negative": ({"my": -3}, "MY (bytes 32–35) is -3", False, "xz"),
    "MZ 0": ({"mz": 0}, "MZ (bytes 36–39) is 0", False, "xy"),
    "cell negative": ({"cella": (-4, 3, 2)}, "CELLA.x (bytes 40–43) is -4", False, "yz"),
    "cell not a number": ({"cella": (4, NAN, 2)}, "CELLA.y (bytes 44–47) is nan", False, "xz"),
    "cell infinite": ({"cella": (4, 3, INF)}, "CELLA.z (bytes 48–51) is inf", False, "xy"),
    "origin not a number": (
        {"origin": (NAN, 0, 0)}, "ORIGIN (bytes 196–207) is nan, 0, 0", False, "xyz",
    ),
    "origin infinite": (
        {"origin": (0, -INF, 0)}, "ORIGIN (bytes 196–207) is 0, -inf, 0", False, "xyz",
    ),
    "origin huge": (
        {"origin": (0, 0, 1e30)}, "ORIGIN (bytes 196–207) is 0, 0, 1e+30", False, "xyz",
    ),
    "NXSTART huge": ({"nxstart": 41}, "NXSTART (bytes 16–19) is 41", False, "xyz"),
    "NZSTART huge": ({"nzstart": -(2**31)}, "NZSTART (bytes 24–27) is -2147483648", False, "xyz"),
    "NSYMBT without the bytes": ({"nsymbt": 80}, "NSYMBT (bytes 92–95) is 80", True, "xyz"),
    "NSYMBT negative": ({"nsymbt": -1}, "NSYMBT (bytes 92–95) is -1", True, "xyz"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("case", "order"), [*((case, "<") for case in DAMAGE), ("axes 0", ">"), ("MX 0", ">")]
)
def test_one_warning_that_names_the_field(case: str, order: str) -> None:
    fields, named, _, coords = DAMAGE[case]
    with pytest.warns(MrcWarning) as caught:
        ds = opened(by_hand.mrc(DATA, byteorder=order, **fields))
    [message] = [str(warning.message) for warning in caught]
    assert message.startswith(f"<bytes>: {named}; accepted: ")
    assert json.loads(ds.data.attrs["mrc_repairs"]) == [message]
    check(ds, coords)


@pytest.mark.parametrize("case", DAMAGE)
def test_strict(case: str) -> None:
    fields, named, is_strict, coords = DAMAGE[case]
    raw = by_hand.mrc(DATA, **fields)
    if is_strict:
        with pytest.raises(MrcError) as caught:
            opened(raw, strict=True)
        assert f"<bytes>: {named}; accepted: " in str(caught.value)
    else:
        with pytest.warns(MrcWarning):
            check(opened(raw, strict=True), coords)


@pytest.mark.parametrize("case", DAMAGE)
def test_strict_refuses_what_mrcfile_refuses(tmp_path: Path, case: str) -> None:
    fields, named, is_strict, _ = DAMAGE[case]
    path = tmp_path / "file.mrc"
    path.write_bytes(by_hand.mrc(DATA, **fields))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            mrcfile.open(path).close()
        except (ValueError, MemoryError):
            assert is_strict
            return
    # beyond mrcfile, only NSYMBT, the axes, and the two bytes of the stamp with the byte order
    assert not is_strict or named.startswith(("MAPC", "NSYMBT", "MACHST"))


def test_two_things_are_two_warnings() -> None:
    raw = by_hand.mrc(DATA, map=bytes(4), machst=bytes(4), mx=0)
    with pytest.warns(MrcWarning) as caught:
        opened(raw)
    assert [str(w.message).split(" ")[1] for w in caught] == ["MAP", "MACHST", "MX"]
    with pytest.raises(MrcError, match=r"(?s)MAP \(bytes.*MACHST \(bytes") as error:
        opened(raw, strict=True)
    assert "MX" not in str(error.value)


def test_a_chosen_byte_order_settles_the_stamp() -> None:
    raw = by_hand.mrc(DATA, machst=by_hand.STAMPS[">"])
    check(opened(raw, byteorder="little", strict=True), "xyz")
    with pytest.warns(MrcWarning, match="MACHST.*little-endian; byteorder= overrides"):
        check(opened(raw), "xyz")


def test_old_style_header() -> None:
    """Amira's: no MAP, another machine's stamp, floats where MAP would be."""
    raw = bytearray(by_hand.mrc(DATA, nversion=0, origin=(NAN, 1e30, 0)))
    raw[208:220] = np.array([1.5, 2.5, 3.5], "<f4").tobytes()
    with pytest.warns(MrcWarning) as caught:
        check(opened(bytes(raw)), "xyz")
    assert sorted(str(w.message).split(" ")[1] for w in caught) == ["MACHST", "MAP"]


@pytest.mark.parametrize(
    ("fields", "positions"),
    [
        # IMOD and ChimeraX use the start if ORIGIN is not a position
        ({"origin": (NAN, 1, 2), "nxstart": 2}, [2, 3, 4, 5]),
        ({"origin": (1e30, 0, 0), "nxstart": 2}, [2, 3, 4, 5]),
        ({"nxstart": 2**31 - 1, "nystart": 2}, [0, 1, 2, 3]),
    ],
)
@pytest.mark.filterwarnings("ignore::mrc_xarray.MrcWarning")
def test_what_is_assumed_instead(fields: dict[str, Any], positions: list[float]) -> None:
    ds = opened(by_hand.mrc(DATA, **fields))
    assert ds.x.values.tolist() == positions
    assert ds.y.values[0] == (fields.get("nystart") or 0)


@pytest.mark.parametrize(
    ("said", "there"),
    [(80, 80), (80, 0), *itertools.product((-1, 2**31 - 1, 1024**3), (0, 5, 80))],
)
@pytest.mark.filterwarnings("ignore:.*NSYMBT.*:mrc_xarray.MrcWarning")
def test_nsymbt_is_found_by_the_size(said: int, there: int) -> None:
    # text, as symmetry records are
    raw = by_hand.mrc(DATA, extended=b"X" * there, exttyp=b"CCP4", nsymbt=said)
    ds = opened(raw)
    np.testing.assert_array_equal(ds.data, DATA)
    assert ("mrc_repairs" in ds.data.attrs) == (said != there)


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, -4)])
def test_no_data(shape: tuple[int, int, int]) -> None:
    raw = by_hand.header(shape, 2, mx=1, my=1, mz=1) + bytes(96)
    nx, ny, nz = shape[::-1]
    with pytest.raises(MrcError, match=rf"NX, NY, NZ \(bytes 0–11\) are {nx}, {ny}, {nz}"):
        opened(raw)


FOREIGN = {
    "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS"),
    "HTML": (b"<!DOCTYPE html>\n<html><body>404</body></html>", "HTML"),
    "HTML after blanks": (b"\n  <!doctype HTML><html>", "HTML"),
    "long HTML": (b"<html>" + b" " * 4096, "HTML"),
    "gzip": (b"\x1f\x8b\x08\0" + bytes(2000), "gzip"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(2000), "HDF5"),
    "DeltaVision": (by_hand.header((2, 3, 4), 1, lskflg=0xC0A0) + DATA.tobytes(), "DeltaVision"),
    "big-endian DeltaVision": (
        by_hand.header((2, 3, 4), 1, byteorder=">", lskflg=-0x3F600000) + DATA.tobytes(),
        "DeltaVision",
    ),
    "empty": (b"", "empty"),
    "short": (b"\0" * 500, "500 bytes.* 1024"),
    "half a header": (by_hand.header((2, 3, 4), 1)[:1000], "1000 bytes.* 1024"),
    "zeros": (bytes(2048), "NX, NY, NZ"),
    "noise": (np.random.default_rng(1).bytes(4096), "MODE"),
    "disk corruption": (by_hand.mrc(DATA, mode=-1164413361), "MODE .* -1164413361"),
    "MRCZ without blocks": (by_hand.mrc(DATA, mode=1000 + 1), "of block 0 .*No section"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_another_kind_of_file(tmp_path: Path, case: str) -> None:
    raw, kind = FOREIGN[case]
    path = tmp_path / "file.mrc"
    path.write_bytes(raw)
    with pytest.raises(MrcError, match=rf"{path}.*{kind}"):
        xr.open_dataset(path, engine="mrc")


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("n_left", [1, 24, 47])
def test_truncated(tmp_path: Path, n_left: int, strict: bool) -> None:
    path = tmp_path / "file.mrc"
    path.write_bytes(by_hand.mrc(DATA)[: 1024 + n_left])
    n_complete = n_left // 24
    with pytest.raises(
        MrcError,
        match=rf"file\.mrc: .*truncated.* {1024 + n_left} bytes with {n_complete} complete "
        r"sections.*promises 1072 bytes with 2 sections",
    ):
        xr.open_dataset(path, engine="mrc", strict=strict)


@pytest.mark.parametrize("n_left", [24, 47])
def test_trim(n_left: int) -> None:
    raw = by_hand.mrc(DATA)[: 1024 + n_left]
    with pytest.warns(MrcWarning, match=r"NZ \(bytes 8–11\) is 2; .* 1, as the file") as caught:
        ds = opened(raw, truncated="trim")
    assert len(caught) == 1
    assert ds.data.sizes == {"z": 1, "y": 3, "x": 4}
    np.testing.assert_array_equal(ds.data, DATA[:1])
    assert ds.mrc.header.nz == 2
    assert ds.mrc.voxel_size == {"z": 1, "y": 1, "x": 1}
    with pytest.raises(MrcError, match="NZ"):
        opened(raw, truncated="trim", strict=True)


def test_trim_of_a_stack_counts_its_sections() -> None:
    raw = by_hand.mrc(np.arange(60, dtype="i2").reshape(5, 3, 4), ispg=0, mz=1)[:-30]
    with pytest.warns(MrcWarning, match="accepted: 3, as the file"):
        ds = opened(raw, truncated="trim")
    assert ds.section.values.tolist() == [0, 1, 2]


def test_trim_of_mrczs_frames() -> None:
    """An incomplete frame is left out."""
    data = np.arange(72, dtype="i2").reshape(6, 3, 4)
    raw = by_hand.mrc(data, ispg=0, mx=0, my=0, mz=3, labels=(b"MRCZ0.6.0",))[:-1]
    with pytest.warns(MrcWarning, match="accepted: 5, as the file"):
        ds = opened(raw, truncated="trim")
    assert ds.data.dims == ("image", "channel", "y", "x")
    np.testing.assert_array_equal(ds.data, data[None, :3])


def test_trim_of_volumes() -> None:
    data = np.arange(72, dtype="i2").reshape(6, 3, 4)
    with pytest.warns(MrcWarning, match="accepted: 5, as the file"):
        ds = opened(by_hand.mrc(data, ispg=401, mz=3)[:-1], truncated="trim")
    assert ds.data.dims == ("volume", "z", "y", "x")
    np.testing.assert_array_equal(ds.data, data[None, :3])


def test_trim_of_a_stack_to_one_image_has_its_dimension() -> None:
    raw = by_hand.mrc(np.arange(60, dtype="i2").reshape(5, 3, 4), ispg=0, mz=1)
    with pytest.warns(MrcWarning, match="accepted: 1, as the file"):
        assert opened(raw[: 1024 + 24], truncated="trim").sizes["image"] == 1


def test_trim_to_less_than_a_volume_says_what_to_do() -> None:
    raw = by_hand.mrc(np.zeros((6, 3, 4), "i2"), ispg=401, mz=3)
    with pytest.raises(
        MrcError, match=r"2 (whole|complete) sections, and 3 belong together.*layout='volume'"
    ):
        opened(raw[: 1024 + 48], truncated="trim")


def test_trim_after_an_extended_header() -> None:
    raw = by_hand.mrc(DATA, extended=b"X" * 100, exttyp=b"CCP4")[:-1]
    with pytest.warns(MrcWarning, match="accepted: 1, as the file"):
        np.testing.assert_array_equal(opened(raw, truncated="trim").data, DATA[:1])


def test_trim_leaves_a_complete_file_alone() -> None:
    check(opened(by_hand.mrc(DATA), truncated="trim", strict=True), "xyz")


def test_trim_needs_a_section() -> None:
    with pytest.raises(MrcError, match="No section is complete"):
        opened(by_hand.mrc(DATA)[: 1024 + 23], truncated="trim")


def test_wrong_choice_of_truncated() -> None:
    with pytest.raises(ValueError, match="truncated is 'pad'; accepted: 'error', 'trim'"):
        opened(by_hand.mrc(DATA), truncated="pad")


@pytest.mark.parametrize("strict", [False, True])
def test_a_longer_file_warns(strict: bool) -> None:
    raw = by_hand.mrc(DATA) + bytes(7)
    with pytest.warns(
        MrcWarning, match=r"1079 bytes.*1072, and the 7 bytes after them are ignored"
    ) as w:
        check(opened(raw, strict=strict), "xyz")
    assert len(w) == 1


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.mrc"):
        xr.open_dataset(tmp_path / "none.mrc", engine="mrc")


def test_directory(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        xr.open_dataset(tmp_path, engine="mrc")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mrc")
    with pytest.raises(MrcError, match=r"pipe\.mrc: not a regular file"):
        xr.open_dataset(tmp_path / "pipe.mrc", engine="mrc")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "file.mrc"
    path.write_bytes(by_hand.mrc(DATA))
    path.chmod(0)
    with pytest.raises(PermissionError, match=r"file\.mrc"):
        xr.open_dataset(path, engine="mrc")


def test_permission_error_is_opens_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.mrc"
    path.write_bytes(by_hand.mrc(DATA))

    def refuse(name: str, *_: Any) -> int:
        raise PermissionError(13, "Permission denied", name)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError, match=r"file\.mrc"):
        xr.open_dataset(path, engine="mrc")
