"""Unusual headers are silent; damaged ones are a warning or an error that names the field."""

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

from mrc_xarray import MrcError, MrcWarning, validate

NAN, INF = float("nan"), float("inf")
DATA = np.arange(24, dtype="i2").reshape(2, 3, 4)
DIRECT_ELECTRON = {
    "nversion": 20140, "cella": (-40, -30, 0), "dmin": 2, "dmax": 1, "dmean": 0, "rms": -1,
}  # fmt: skip


def opened(raw: bytes, **options: Any) -> xr.Dataset:
    return xr.open_dataset(io.BytesIO(raw), engine="mrc", **options)


def check(ds: xr.Dataset, coords: str) -> None:
    """Check the pixels, and that only the dimensions in `coords` have a coordinate."""
    np.testing.assert_array_equal(ds.data, DATA)
    assert "".join(sorted(set(ds.coords) - {"section"})) == coords


# normal headers → fields, and the dimensions with a coordinate
SILENT: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "xyz"),
    "MotionCor2's MAP": ({"map": b"MAP\0"}, "xyz"),
    "NVERSION 0": ({"nversion": 0}, "xyz"),
    "CELLA and M 0": ({"cella": (0, 0, 0), "mx": 0, "my": 0, "mz": 0}, ""),
    "CELLA.z 0": ({"cella": (4, 3, 0)}, "xy"),
    "Direct Electron's cell": (DIRECT_ELECTRON, ""),
    "no statistics, IMOD": ({"dmin": 3.4e38, "dmax": -3.4e38, "dmean": 0}, "xyz"),
    "statistics not finite": ({"dmin": NAN, "dmax": INF, "dmean": NAN, "rms": NAN}, "xyz"),
    "angles 0": ({"cellb": (0, 0, 0)}, "xyz"),
    "NLABL absurd": ({"nlabl": -12345}, "xyz"),
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


ODD_STAMPS = {
    "IMP": bytes(4), "Maestro": b"MAE ", "Leginon": b"\0\0\x44\x44", "SerialEM": b"\x44\0\0\0",
    "44 11": b"\x44\x11\0\0", "blank": b"\x44\x20\x20\x20",
}  # fmt: skip


@pytest.mark.parametrize("writer", ODD_STAMPS)
@pytest.mark.parametrize("order", ["<", ">"])
def test_odd_stamps_are_silent_and_invalid(tmp_path: Path, order: str, writer: str) -> None:
    path = tmp_path / "file.mrc"
    path.write_bytes(by_hand.mrc(DATA, byteorder=order, machst=ODD_STAMPS[writer]))
    with xr.open_dataset(path, engine="mrc") as ds:
        check(ds, "xyz")
        assert "mrc_repairs" not in ds.data.attrs
    assert [problem.code for problem in validate(path)] == ["machine-stamp"]
    with pytest.raises(MrcError, match="MACHST"):
        xr.open_dataset(path, engine="mrc", strict=True)


# damage → fields, the field and bytes in the warning, whether strict= raises, and the dimensions
# with a coordinate
DAMAGE: dict[str, tuple[dict[str, Any], str, bool, str]] = {
    "no MAP": ({"map": bytes(4)}, r"MAP (bytes 208–211) is '\x00\x00\x00\x00'", True, "xyz"),
    "other MAP": ({"map": b"map "}, "MAP (bytes 208–211) is 'map '", True, "xyz"),
    "no MAP, no stamp": (
        {"map": bytes(4), "machst": bytes(4)},
        r"MAP (bytes 208–211) is '\x00\x00\x00\x00'", True, "xyz",
    ),
    "unknown stamp": (
        {"machst": b"\xde\xad\xbe\xef"}, "MACHST (bytes 212–215) is de ad be ef", True, "xyz",
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
    "cell infinite": ({"cella": (INF, 1, 1)}, "CELLA.x (bytes 40–43) is inf", False, "yz"),
    "cell not a number": ({"cella": (4, NAN, 2)}, "CELLA.y (bytes 44–47) is nan", False, "xz"),
    "cell with the bits of an integer": (
        {"cella": (4, 3, 3.6e-43)},
        "CELLA.z (bytes 48–51) is 3.60134e-43 for 2 voxels", False, "xy",
    ),
    "MX absurd": (
        {"mx": 2**30}, "CELLA.x (bytes 40–43) is 4 for 1073741824 voxels", False, "yz",
    ),
    "cells of three axes": (
        {"cella": (3.6e-43, 1e30, 1e-3)},
        "CELLA.x, CELLA.y, CELLA.z (bytes 40–51) are "
        "3.60134e-43 for 4 voxels, 1e+30 for 3 voxels, 0.001 for 2 voxels", False, "",
    ),
    "M 0": (
        {"mx": 0, "my": 0, "mz": 0}, "MX, MY, MZ (bytes 28–39) are 0, 0, 0", False, "",
    ),
    "N*START huge": (
        {"nxstart": 2**30, "nystart": 2**30, "nzstart": 1},
        "NYSTART, NXSTART (bytes 16–23) are 1073741824, 1073741824", False, "xyz",
    ),
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
    missing = [axis for axis in "xyz" if axis not in coords]
    assert not missing or f"there is no coordinate along {' and '.join(missing)}." in message
    check(ds, coords)


@pytest.mark.parametrize("case", DAMAGE)
def test_strict(tmp_path: Path, case: str) -> None:
    fields, named, is_strict, coords = DAMAGE[case]
    raw = by_hand.mrc(DATA, **fields)
    path = tmp_path / "file.mrc"
    path.write_bytes(raw)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            mrcfile.open(path).close()
        except (ValueError, MemoryError):
            assert is_strict
        else:
            # mrcfile accepts these, and other machine stamps of either byte order
            assert not is_strict or named.startswith(("MAPC", "NSYMBT", "MACHST"))
    if is_strict:
        with pytest.raises(MrcError) as caught:
            opened(raw, strict=True)
        assert f"<bytes>: {named}; accepted: " in str(caught.value)
    else:
        with pytest.warns(MrcWarning):
            check(opened(raw, strict=True), coords)


def test_two_things_are_two_warnings() -> None:
    raw = by_hand.mrc(DATA, map=bytes(4), machst=bytes(4), mx=0)
    with pytest.warns(MrcWarning) as caught:
        opened(raw)
    # both say that the file is from before 2000
    assert [str(w.message).split(" ")[1] for w in caught] == ["MAP", "MX"]
    with pytest.raises(MrcError, match=r"(?s)MAP \(bytes.*MACHST \(bytes") as error:
        opened(raw, strict=True)
    assert "MX" not in str(error.value)


def test_a_chosen_byte_order_is_not_compared_with_the_stamp() -> None:
    raw = by_hand.mrc(DATA, machst=by_hand.STAMPS[">"])
    check(opened(raw, byteorder="little", strict=True), "xyz")
    with pytest.warns(MrcWarning, match="MACHST.*little-endian; byteorder= overrides"):
        check(opened(raw), "xyz")


def test_old_style_header() -> None:
    """Amira writes no MAP, the stamp of another machine, and floats at the bytes of MAP."""
    raw = bytearray(by_hand.mrc(DATA, nversion=0, origin=(NAN, 1e30, 0)))
    raw[208:220] = np.array([1.5, 2.5, 3.5], "<f4").tobytes()
    with pytest.warns(MrcWarning) as caught:
        check(opened(bytes(raw)), "xyz")
    assert [str(w.message).split(" ")[1] for w in caught] == ["MAP"]


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
def test_unusable_origin_or_start(fields: dict[str, Any], positions: list[float]) -> None:
    ds = opened(by_hand.mrc(DATA, **fields))
    assert ds.x.values.tolist() == positions
    assert ds.y.values[0] == (fields.get("nystart") or 0)


@pytest.mark.parametrize(
    ("nsymbt", "n_bytes"),
    [(80, 80), (80, 0), *itertools.product((-1, 2**31 - 1, 1024**3), (0, 5, 80))],
)
@pytest.mark.filterwarnings("ignore:.*NSYMBT.*:mrc_xarray.MrcWarning")
def test_nsymbt_is_found_by_the_size(nsymbt: int, n_bytes: int) -> None:
    # text, as symmetry records are
    raw = by_hand.mrc(DATA, extended=b"X" * n_bytes, exttyp=b"CCP4", nsymbt=nsymbt)
    ds = opened(raw)
    np.testing.assert_array_equal(ds.data, DATA)
    assert ("mrc_repairs" in ds.data.attrs) == (nsymbt != n_bytes)


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


# fields, sections, missing bytes → complete sections, dimensions of sections, opened sections
TRIMMED: dict[str, tuple[dict[str, Any], int, int, int, tuple[str, ...], int]] = {
    "within a section": ({}, 2, 1, 1, ("z",), 1),
    "between sections": ({}, 2, 24, 1, ("z",), 1),
    "after an extended header": ({"extended": b"X" * 100, "exttyp": b"CCP4"}, 2, 1, 1, ("z",), 1),
    "stack": ({"ispg": 0, "mz": 1}, 5, 30, 3, ("image",), 3),
    "stack of one image": ({"ispg": 0, "mz": 1}, 5, 96, 1, ("image",), 1),
    # incomplete frames and volumes are left out
    "frames of mrcz": (
        {"ispg": 0, "mx": 0, "my": 0, "mz": 3, "labels": (b"MRCZ0.6.0",)},
        6, 1, 5, ("image", "channel"), 3,
    ),
    "volumes": ({"ispg": 401, "mz": 3}, 6, 1, 5, ("volume", "z"), 3),
}  # fmt: skip


@pytest.mark.parametrize("case", TRIMMED)
def test_trim(case: str) -> None:
    fields, n, n_missing, n_complete, leading, n_opened = TRIMMED[case]
    data = np.arange(12 * n, dtype="i2").reshape(n, 3, 4)
    raw = by_hand.mrc(data, **fields)[:-n_missing]
    message = rf"NZ \(bytes 8–11\) is {n}; accepted: {n_complete}, as the file"
    with pytest.warns(MrcWarning, match=message) as caught:
        ds = opened(raw, truncated="trim")
    assert len(caught) == 1
    assert ds.data.dims == (*leading, "y", "x")
    np.testing.assert_array_equal(ds.data.values.reshape(-1, 3, 4), data[:n_opened])
    assert ds.mrc.header.nz == n
    if leading == ("image",):
        assert ds.section.values.tolist() == list(range(n_opened))
    with pytest.raises(MrcError, match="NZ"):
        opened(raw, truncated="trim", strict=True)
    check(opened(by_hand.mrc(DATA), truncated="trim", strict=True), "xyz")


def test_trim_to_less_than_a_volume_says_what_to_do() -> None:
    raw = by_hand.mrc(np.zeros((6, 3, 4), "i2"), ispg=401, mz=3)
    with pytest.raises(
        MrcError, match=r"2 complete sections, and 3 belong together.*layout='volume'"
    ):
        opened(raw[: 1024 + 48], truncated="trim")


def test_trim_needs_a_section() -> None:
    with pytest.raises(MrcError, match="No section is complete"):
        opened(by_hand.mrc(DATA)[: 1024 + 23], truncated="trim")


@pytest.mark.parametrize("strict", [False, True])
def test_a_longer_file_warns(strict: bool) -> None:
    raw = by_hand.mrc(DATA) + bytes(7)
    with pytest.warns(
        MrcWarning, match=r"1079 bytes.*1072, and the 7 bytes after them are ignored"
    ) as w:
        check(opened(raw, strict=strict), "xyz")
    assert len(w) == 1


def test_permission_error_is_raised_as_open_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.mrc"
    path.write_bytes(by_hand.mrc(DATA))

    def refuse(name: str, *_: Any) -> int:
        raise PermissionError(13, "Permission denied", name)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError, match=r"file\.mrc"):
        xr.open_dataset(path, engine="mrc")
