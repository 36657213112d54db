"""What a pixel is: every mode in both byte orders, its codec, and the sign of 8-bit data."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import by_hand
import mrcfile
import mrcz
import numpy as np
import pytest
import xarray as xr

from mrc_xarray import MrcError, MrcWarning, validate
from mrc_xarray.mrc import reading
from mrc_xarray.pixels.modes import MODES, Packed, mode_for

ORDERS = ("<", ">")
# mode → dtype of a number in the file
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
    np.testing.assert_array_equal(found.values, expected)


@pytest.mark.parametrize("order", ORDERS)
def test_mode_5_is_unsigned_bytes(order: str) -> None:
    data = any_bits((2, 3, 7), "u1")
    found = load(by_hand.mrc(data, 5, byteorder=order, shape=data.shape))
    check(found, data)
    assert "mode0_assumption" not in found.attrs
    problems = validate(io.BytesIO(by_hand.mrc(data, 5, byteorder=order, shape=data.shape)))
    assert [problem.field for problem in problems] == ["MODE"]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("mode", PLAIN)
def test_plain_modes(mode: int, order: str) -> None:
    data = any_bits((2, 3, 7), PLAIN[mode])
    check(load(by_hand.mrc(data, mode, byteorder=order)), data)


@pytest.mark.parametrize("order", ORDERS)
def test_complex_integers(order: str) -> None:
    pairs = any_bits((2, 3, 7, 2), "i2")
    found = load(by_hand.mrc(pairs, 3, byteorder=order, shape=(2, 3, 7)))
    check(found, (pairs[..., 0] + 1j * pairs[..., 1]).astype("c8"))


def test_rgb() -> None:
    pixels = any_bits((2, 3, 7, 3), "u1")
    found = load(by_hand.mrc(pixels, 16, shape=(2, 3, 7)))
    assert found.dims == ("z", "y", "x", "rgb")
    assert "rgb" not in found.coords
    check(found, pixels)


@pytest.mark.parametrize("nx", [1, 6, 7])
def test_four_bits(nx: int) -> None:
    pixels = any_bits((2, 3, nx), "u1") & 15
    raw = by_hand.mrc(by_hand.pack_4bit(pixels), 101, shape=(2, 3, nx))
    check(load(raw), pixels)


def test_four_bits_ignore_the_padding() -> None:
    raw = by_hand.header((1, 1, 3), 101) + b"\x21\xf3"
    assert load(raw).values.tolist() == [[[1, 2, 3]]]


# IMOD's stamp with flags → bytes that contain two pixels each
PACKED: dict[str, Any] = {
    "imod_stamp": by_hand.IMOD_STAMP, "imod_flags": 16, "dmin": 0, "dmax": 15, "dmean": 7,
}  # fmt: skip


def packed_file(pixels: np.ndarray[Any, Any], **fields: Any) -> bytes:
    return by_hand.mrc(by_hand.pack_4bit(pixels), 0, **(PACKED | fields))


@pytest.mark.parametrize("order", ORDERS)
def test_two_pixels_in_each_byte_of_mode_0(tmp_path: Path, order: str) -> None:
    pixels = any_bits((5, 6, 14), "u1") & 15
    raw = packed_file(pixels, byteorder=order, cella=(7 * 2.5, 6 * 1.25, 5), imod_flags=30)
    for name, content in (("a.mrc", raw), ("a.mrc.gz", gzip.compress(raw))):
        (tmp_path / name).write_bytes(content)
        for options in ({}, {"chunks": {"x": 5}}, {"mmap": True}):
            with xr.open_dataset(tmp_path / name, engine="mrc", **options) as ds:
                check(ds.data, pixels)
                key = (slice(None, None, 2), [4, 1], slice(3, 12, 4))
                np.testing.assert_array_equal(ds.data[key], xr.DataArray(pixels)[key])
                # NX and MX count pairs, and so does the voxel size along x
                assert ds.mrc.header.nx == ds.mrc.header.mx == 7
                assert ds.mrc.voxel_size == {"z": 1, "y": 1.25, "x": 2.5}
        assert validate(tmp_path / name) == []
    assert ds.data.attrs["mode0_assumption"].startswith("uint8: IMOD's flag 16 says")


def test_two_pixels_in_each_byte_of_a_truncated_file() -> None:
    pixels = any_bits((3, 6, 14), "u1") & 15
    with pytest.warns(MrcWarning, match="NZ .* is 3; accepted: 2"):
        check(load(packed_file(pixels)[:-1], truncated="trim"), pixels[:2])


@pytest.mark.parametrize("mode0", ["int8", "uint8"])
def test_mode0_argument_reads_bytes(mode0: str) -> None:
    data = any_bits((2, 3, 4), "u1")
    found = load(by_hand.mrc(data, 0, **PACKED), mode0=mode0)
    check(found, data.view(mode0))
    assert found.attrs["mode0_assumption"] == f"{mode0}: the argument mode0="


LABEL = b"SerialEM: Frames from K2, 4 bits packed                 01-Jan-16  12:00:00"


@pytest.mark.parametrize(
    ("ny", "nx", "fields", "factor"),
    [
        (7420, 3838, {}, 2), (7676, 3710, {}, 2), (7424, 3840, {}, 2), (8184, 5760, {}, 2),
        (7420, 7676, {}, 1), (3838, 3710, {}, 1),
        (7420, 3838, {"labels": (LABEL, b"newstack: copied")}, 1),
        (7420, 3838, {"dmin": -8, "dmax": 7, "dmean": 0}, 1),
        # IMOD refuses to unpack signed bytes
        (3, 4, PACKED | {"imod_flags": 17}, 1), (3, 4, PACKED | {"imod_flags": 0}, 1),
        (3, 4, PACKED | {"imod_stamp": 0}, 1), (7420, 3838, PACKED | {"imod_flags": 17}, 1),
    ],
)  # fmt: skip
def test_evidence_of_packed_bytes(ny: int, nx: int, fields: dict[str, Any], factor: int) -> None:
    raw = by_hand.header((9, ny, nx), 0, byteorder=">", **({"labels": (LABEL,)} | fields))
    file = reading.inspect(by_hand.Claimed(raw, 1024 + 9 * ny * nx))
    assert file.sections.shape == (9, ny, factor * nx)


@pytest.mark.parametrize("mode", [0, 1, 2, 4, 6, 12])
@pytest.mark.parametrize("order", ORDERS)
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


@pytest.mark.parametrize("number", EMAN2)
def test_eman2_table(number: int) -> None:
    data = any_bits((2, 3, 5), EMAN2[number])
    found = load(by_hand.mrc(data, number, byteorder=">"), convention="eman2")
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
NO_VERSION = {"nversion": 0}

SIGNS = {
    "IMOD, flag 1": ({**IMOD, "imod_flags": 1}, "int8", "IMOD"),
    "IMOD, no flag": ({**IMOD, "imod_flags": 0}, "uint8", "IMOD"),
    "IMOD, other flags": ({**IMOD, "imod_flags": 12}, "uint8", "IMOD"),
    "IMOD before statistics": (
        {**IMOD, "imod_flags": 0, "dmin": -5, "dmax": 5, "dmean": 0}, "uint8", "IMOD",
    ),
    "a flag without the stamp": ({**NO_VERSION, "imod_flags": 0}, "int8", "assumed"),
    "Direct Electron": (DIRECT_ELECTRON, "uint8", "Direct Electron"),
    "Direct Electron with a label": ({**DIRECT_ELECTRON, "nlabl": 1}, "int8", "NVERSION"),
    "Direct Electron with EXTTYP": ({**DIRECT_ELECTRON, "exttyp": b"FEI1"}, "int8", "NVERSION"),
    "Direct Electron, a cell": ({**DIRECT_ELECTRON, "cella": (4, 3, 2)}, "int8", "NVERSION"),
    "below zero": ({"dmin": -1, "dmax": 100, "dmean": 50}, "int8", "DMIN"),
    "beyond 127": ({"dmin": 0, "dmax": 128, "dmean": 50}, "uint8", "DMAX"),
    "beyond 127, NVERSION": ({"dmin": 3, "dmax": 255, "dmean": 50}, "uint8", "DMAX"),
    "in both ranges": ({"dmin": 0, "dmax": 127, "dmean": 50}, "int8", "NVERSION"),
    "in neither range": ({"dmin": -1, "dmax": 128, "dmean": 50}, "int8", "NVERSION"),
    "DMEAN at DMIN": ({"dmin": 1, "dmax": 200, "dmean": 1}, "uint8", "DMAX"),
    "DMEAN outside": ({"dmin": 0, "dmax": 200, "dmean": 201}, "int8", "NVERSION"),
    "DMIN equals DMAX": ({"dmin": 200, "dmax": 200, "dmean": 200}, "int8", "NVERSION"),
    "DMAX not finite": ({"dmin": 0, "dmax": np.inf, "dmean": 1}, "int8", "NVERSION"),
    "DMIN not a number": ({"dmin": np.nan, "dmax": 200, "dmean": 1}, "int8", "NVERSION"),
    "NVERSION 20140": ({"nversion": 20140}, "int8", "NVERSION"),
    "no MAP": ({**NO_VERSION, "map": bytes(4)}, "uint8", "MAP"),
    "no MAP, but NVERSION": ({"map": bytes(4)}, "int8", "NVERSION"),
    "no MAP, but statistics": (
        {**NO_VERSION, "map": bytes(4), "dmin": -7, "dmax": 7, "dmean": 0}, "int8", "DMIN",
    ),
    "nothing": (NO_VERSION, "int8", "assumed"),
}  # fmt: skip


@pytest.mark.parametrize("case", SIGNS)
@pytest.mark.filterwarnings("ignore:.*(MAP|CELLA).*:mrc_xarray.MrcWarning")
def test_sign_of_mode_0(case: str) -> None:
    fields, dtype, evidence = SIGNS[case]
    data = any_bits((2, 3, 4), dtype)
    found = load(by_hand.mrc(data, 0, byteorder=">" if "IMOD" in case else "<", **fields))
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


def test_mode0_is_only_for_mode_0() -> None:
    found = load(by_hand.mrc(np.ones((2, 3, 4), "i2")), mode0="uint8")
    assert found.dtype == np.int16
    assert "mode0_assumption" not in found.attrs


@pytest.mark.parametrize("mode", [9, 17, -1, 100, 10**9])
def test_unknown_mode(mode: int) -> None:
    raw = by_hand.mrc(np.ones((2, 3, 4), "u1"), mode)
    with pytest.raises(ValueError, match=rf"MODE \(bytes 12–15\) is {mode}; accepted: 0, 1"):
        load(raw)


# the codec --------------------------------------------------------------------------------------

VALUES = np.arange(30).reshape(2, 3, 5)
# what is cast → mode, and what the file contains
CAST: dict[str, tuple[Any, int, Any]] = {
    "rounded": (VALUES + 0.75, 1, VALUES + 1),
    "to the even integer": (VALUES + 0.5, 6, np.rint(VALUES + 0.5)),
    "float32 at the end of int32": (np.full((1, 1, 2), -(2.0**31), "f4"), 7, -(2**31)),
    "rounded pairs": (VALUES + 0.25j, 3, VALUES),
    "real to complex": (VALUES, 4, VALUES),
    "not finite": (np.array([[[np.nan, np.inf, 65504]]]), 12, [[[np.nan, np.inf, 65504]]]),
    "not finite, complex": (
        np.array([[[complex(1, np.inf), 2]]]), 4, [[[complex(1, np.inf), 2]]],
    ),
    "4 bits": (VALUES % 16, 101, VALUES % 16),
    "big-endian": (VALUES.astype(">i2"), 1, VALUES),
}  # fmt: skip


@pytest.mark.parametrize("case", CAST)
def test_cast_and_encode(case: str) -> None:
    pixels, number, expected = CAST[case]
    mode = MODES[number]
    values = mode.cast(pixels)
    assert values.dtype == mode.decoded
    for order in ORDERS:
        raw = mode.encode(values, order)
        assert raw.shape == (*pixels.shape[:2], mode.row_bytes(pixels.shape[2]))
        found = mode.decode(raw.reshape(-1), order, pixels.shape[2]).reshape(pixels.shape)
        np.testing.assert_array_equal(found, np.broadcast_to(expected, found.shape))


def test_values_of_the_mode_are_not_copied() -> None:
    values = VALUES.astype("i2")
    assert MODES[1].cast(values) is values
    assert np.shares_memory(MODES[1].encode(values, "<"), values)


@pytest.mark.parametrize(
    ("value", "number", "accepted"),
    [
        (-129, 0, "-128 to 127"), (128, 0, "-128 to 127"), (32767.5, 1, "-32768 to 32767"),
        (np.float32(2.0**31), 7, "-2147483648 to 2147483647"), (np.nan, 6, "0 to 65535"),
        (1e39, 2, "-3.40"), (65505.0, 12, "-65504.0 to 65504.0"), (-1e39j, 4, "-3.40"),
        (1 - 32769j, 3, "-32768 to 32767"), (16, 101, "0 to 15"), (-1, 101, "0 to 15"),
        (True, 101, None),
    ],
)  # fmt: skip
def test_range(value: Any, number: int, accepted: str | None) -> None:
    pixels = np.array([[[0, value]]])
    if accepted is None:
        assert MODES[number].cast(pixels).tolist() == [[[0, 1]]]
        return
    with pytest.raises(MrcError, match=rf"mode {number} \(.*can't hold.*accepted: {accepted}"):
        MODES[number].cast(pixels)


@pytest.mark.parametrize("nx", [4, 5])
@pytest.mark.filterwarnings("ignore:.*MODE 102 is not in MRC2014:mrc_xarray.MrcWarning")
def test_a_packed_mode_is_one_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nx: int
) -> None:
    """Two pixels of 12 bits in three bytes, as some cameras store them."""
    monkeypatch.setitem(MODES, 102, Packed(102, 12, "u1", "u2", is_standard=False))
    pixels = np.random.default_rng(0).integers(0, 4096, (4, 3, nx), "u2")
    xr.DataArray(pixels, dims=("z", "y", "x")).mrc.to_file(tmp_path / "a.mrc", mode=102)
    raw = (tmp_path / "a.mrc").read_bytes()[1024:]
    # by hand: rows as little-endian integers of 12 bits per pixel
    rows = [
        int.from_bytes(raw[i : i + len(raw) // 12], "little")
        for i in range(0, len(raw), len(raw) // 12)
    ]
    by_bits = [[row >> 12 * column & 4095 for column in range(nx)] for row in rows]
    np.testing.assert_array_equal(np.reshape(by_bits, pixels.shape), pixels)
    with xr.open_dataset(tmp_path / "a.mrc", engine="mrc", cache=False) as ds:
        assert ds.data.dtype == "u2"
        for key in ((), (2, slice(1, None), slice(None, None, -2)), ([3, 0], 1, [0, 3])):
            np.testing.assert_array_equal(ds.data[key], xr.DataArray(pixels)[key])
    with pytest.raises(MrcError, match=r"mode 102 .*accepted: 0 to 4095"):
        xr.DataArray(pixels + 4000, dims=("z", "y", "x")).mrc.to_file(tmp_path / "b.mrc", mode=102)


@pytest.mark.parametrize(
    ("dtype", "number", "message"),
    [
        ("f8", None, "no MODE of MRC holds float64 without loss.*mode=2"),
        ("c16", None, "no MODE of MRC holds complex128 .*mode=4"),
        ("u1", 5, "mode is 5; accepted: 0, 1, 2, 3, 4, 6"),
        ("c8", 2, r"mode 2 \(float32\) can't hold complex64 data"),
        ("u1", 16, r"mode 16 \(rgb uint8\) can't hold uint8 data"),
        ("M8[s]", 1, "can't hold datetime64"),
    ],
)
def test_mode_that_can_not_be_chosen(dtype: str, number: int | None, message: str) -> None:
    with pytest.raises(MrcError, match=message):
        mode_for(dtype, number)
