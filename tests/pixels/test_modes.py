"""What a pixel is: every mode, in both byte orders, and the sign of 8-bit data."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import by_hand
import mrcfile
import mrcz
import numpy as np
import pytest
import xarray as xr

ORDERS = ("<", ">")
# mode → what a number in the file is
PLAIN = {0: "i1", 1: "i2", 2: "f4", 4: "c8", 6: "u2", 7: "i4", 8: "u4", 12: "f2"}
EMAN2 = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4"}


def load(raw: bytes, **options: Any) -> xr.DataArray:
    return xr.open_dataset(io.BytesIO(raw), engine="mrc", **options).data.load()


def any_bits(shape: tuple[int, ...], dtype: str) -> np.ndarray[Any, Any]:
    """Return every kind of value that the dtype has: extremes, infinities, NaNs."""
    n = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.random.default_rng(0).integers(0, 256, n, np.uint8).view(dtype).reshape(shape)


def check(found: xr.DataArray, expected: np.ndarray[Any, Any]) -> None:
    assert found.dtype == expected.dtype.newbyteorder("=")
    assert found.dtype.isnative
    np.testing.assert_array_equal(found.values, expected)


@pytest.mark.parametrize("nx", [6, 7])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("mode", PLAIN)
def test_plain_modes(mode: int, order: str, nx: int) -> None:
    data = any_bits((2, 3, nx), PLAIN[mode])
    check(load(by_hand.mrc(data, mode, byteorder=order)), data)


@pytest.mark.parametrize("nx", [6, 7])
@pytest.mark.parametrize("order", ORDERS)
def test_complex_integers(order: str, nx: int) -> None:
    pairs = any_bits((2, 3, nx, 2), "i2")
    found = load(by_hand.mrc(pairs, 3, byteorder=order, shape=(2, 3, nx)))
    check(found, (pairs[..., 0] + 1j * pairs[..., 1]).astype("c8"))


@pytest.mark.parametrize("nx", [6, 7])
@pytest.mark.parametrize("order", ORDERS)
def test_rgb(order: str, nx: int) -> None:
    pixels = any_bits((2, 3, nx, 3), "u1")
    found = load(by_hand.mrc(pixels, 16, byteorder=order, shape=(2, 3, nx)))
    assert found.dims == ("z", "y", "x", "rgb")
    assert "rgb" not in found.coords
    check(found, pixels)


@pytest.mark.parametrize("nx", [1, 6, 7])
@pytest.mark.parametrize("order", ORDERS)
def test_four_bits(order: str, nx: int) -> None:
    pixels = any_bits((2, 3, nx), "u1") & 15
    raw = by_hand.mrc(by_hand.pack_4bit(pixels), 101, byteorder=order, shape=(2, 3, nx))
    check(load(raw), pixels)


def test_four_bits_ignore_the_padding() -> None:
    raw = by_hand.header((1, 1, 3), 101) + b"\x21\xf3"
    assert load(raw).values.tolist() == [[[1, 2, 3]]]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("mode", [0, 1, 2, 4, 6, 12])
def test_as_mrcfile_writes_them(tmp_path: Path, mode: int, order: str) -> None:
    path = tmp_path / "file.mrc"
    with mrcfile.new(path) as mrc:
        mrc.set_data(np.arange(-4, 26).reshape(2, 3, 5).astype(order + PLAIN[mode]))
        assert mrc.header.mode == mode
        expected = mrc.data.copy()
    with xr.open_dataset(path, engine="mrc") as ds:
        check(ds.data, expected)


@pytest.mark.parametrize("mode", [1, 2, 4, 6, 7, 8])
def test_as_mrcz_writes_them(tmp_path: Path, mode: int) -> None:
    data = np.arange(30).reshape(2, 3, 5).astype(PLAIN[mode])
    path = str(tmp_path / "file.mrc")
    mrcz.writeMRC(data, path)
    with xr.open_dataset(path, engine="mrc") as ds:
        assert ds.mrc.header.mode == mode
        check(ds.data, data)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("number", EMAN2)
def test_eman2_table(number: int, order: str) -> None:
    data = any_bits((2, 3, 5), EMAN2[number])
    found = load(by_hand.mrc(data, number, byteorder=order), convention="eman2")
    check(found, data)
    assert "mode0_assumption" not in found.attrs


def test_eman2_has_no_mode_0() -> None:
    raw = by_hand.mrc(np.zeros((2, 3, 4), "i1"))
    with pytest.raises(ValueError, match=r"MODE \(bytes 12–15\) is 0; accepted: 1, 2"):
        load(raw, convention="eman2")


IMOD = {"imod_stamp": by_hand.IMOD_STAMP}
DIRECT_ELECTRON = {
    "nversion": 20140, "dmin": 2, "dmax": 1, "dmean": 0, "rms": -1, "cella": (-40, -30, 0),
}  # fmt: skip
UNTOLD = {"nversion": 0}

SIGNS = {
    "IMOD, flag 1": ({**IMOD, "imod_flags": 1}, "int8", "IMOD"),
    "IMOD, flag 1 among others": ({**IMOD, "imod_flags": 13}, "int8", "IMOD"),
    "IMOD, no flag": ({**IMOD, "imod_flags": 0}, "uint8", "IMOD"),
    "IMOD, other flags": ({**IMOD, "imod_flags": 12}, "uint8", "IMOD"),
    "IMOD before statistics": (
        {**IMOD, "imod_flags": 0, "dmin": -5, "dmax": 5, "dmean": 0}, "uint8", "IMOD",
    ),
    "a flag without the stamp": ({**UNTOLD, "imod_flags": 0}, "int8", "assumed"),
    "Direct Electron": (DIRECT_ELECTRON, "uint8", "Direct Electron"),
    "Direct Electron with a label": ({**DIRECT_ELECTRON, "nlabl": 1}, "int8", "NVERSION"),
    "Direct Electron with EXTTYP": ({**DIRECT_ELECTRON, "exttyp": b"FEI1"}, "int8", "NVERSION"),
    "Direct Electron, a cell": ({**DIRECT_ELECTRON, "cella": (4, 3, 2)}, "int8", "NVERSION"),
    "below zero": ({"dmin": -1, "dmax": 100, "dmean": 50}, "int8", "DMIN"),
    "beyond 127": ({"dmin": 0, "dmax": 128, "dmean": 50}, "uint8", "DMAX"),
    "beyond 127, NVERSION": ({"dmin": 3, "dmax": 255, "dmean": 50}, "uint8", "DMAX"),
    "in both ranges": ({"dmin": 0, "dmax": 127, "dmean": 50}, "int8", "NVERSION"),
    "in neither range": ({"dmin": -1, "dmax": 128, "dmean": 50}, "int8", "NVERSION"),
    "beyond all": ({"dmin": 0, "dmax": 256, "dmean": 50}, "int8", "NVERSION"),
    "DMEAN at DMIN": ({"dmin": 1, "dmax": 200, "dmean": 1}, "uint8", "DMAX"),
    "DMEAN at DMAX": ({"dmin": 1, "dmax": 200, "dmean": 200}, "uint8", "DMAX"),
    "DMEAN outside": ({"dmin": 0, "dmax": 200, "dmean": 201}, "int8", "NVERSION"),
    "DMIN equals DMAX": ({"dmin": 200, "dmax": 200, "dmean": 200}, "int8", "NVERSION"),
    "DMAX not finite": ({"dmin": 0, "dmax": np.inf, "dmean": 1}, "int8", "NVERSION"),
    "DMIN not a number": ({"dmin": np.nan, "dmax": 200, "dmean": 1}, "int8", "NVERSION"),
    "NVERSION 20140": ({"nversion": 20140}, "int8", "NVERSION"),
    "no MAP": ({**UNTOLD, "map": bytes(4)}, "uint8", "MAP"),
    "no MAP, but NVERSION": ({"map": bytes(4)}, "int8", "NVERSION"),
    "no MAP, but statistics": (
        {**UNTOLD, "map": bytes(4), "dmin": -7, "dmax": 7, "dmean": 0}, "int8", "DMIN",
    ),
    "nothing": (UNTOLD, "int8", "assumed"),
}  # fmt: skip


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("case", SIGNS)
@pytest.mark.filterwarnings("ignore:.*(MAP|CELLA).*:mrc_xarray.MrcWarning")
def test_sign_of_mode_0(case: str, order: str) -> None:
    fields, dtype, evidence = SIGNS[case]
    data = any_bits((2, 3, 4), dtype)
    found = load(by_hand.mrc(data, 0, byteorder=order, **fields))
    check(found, data)
    assert found.attrs["mode0_assumption"].startswith(dtype)
    assert evidence in found.attrs["mode0_assumption"]


@pytest.mark.parametrize("mode0", ["int8", "uint8"])
@pytest.mark.parametrize("case", ["IMOD, flag 1", "IMOD, no flag", "beyond 127", "nothing"])
def test_mode0_argument_wins(case: str, mode0: str) -> None:
    data = any_bits((2, 3, 4), mode0)
    found = load(by_hand.mrc(data, 0, **SIGNS[case][0]), mode0=mode0)
    check(found, data)
    assert found.attrs["mode0_assumption"].startswith(mode0)
    assert "mode0=" in found.attrs["mode0_assumption"]


def test_mode0_is_for_mode_0_alone() -> None:
    found = load(by_hand.mrc(np.ones((2, 3, 4), "i2")), mode0="uint8")
    assert found.dtype == np.int16
    assert "mode0_assumption" not in found.attrs


@pytest.mark.parametrize("mode", [5, 9, 17, -1, 100, 102, 10**9])
def test_unknown_mode(mode: int) -> None:
    raw = by_hand.mrc(np.ones((2, 3, 4), "u1"), mode)
    with pytest.raises(ValueError, match=rf"MODE \(bytes 12–15\) is {mode}; accepted: 0, 1"):
        load(raw)


@pytest.mark.parametrize("option", ["mode0", "convention"])
def test_wrong_choice(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} is 'wrong'; accepted: '"):
        load(by_hand.mrc(np.ones((2, 3, 4), "i2")), **{option: "wrong"})
