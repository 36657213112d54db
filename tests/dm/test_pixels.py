"""Every type of pixel, next to RosettaSciIO and to bytes built by hand."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import dm_by_hand as by_hand
import numpy as np
import pytest
import xarray as xr
from rsciio.digitalmicrograph import file_reader

from mrc_xarray import MrcError

Array = np.ndarray[Any, Any]
PLAIN = (1, 2, 3, 6, 7, 9, 10, 11, 12, 13, 14, 39, 40)


def numbers(data_type: int, shape: tuple[int, ...]) -> Array:
    """Return pixels that differ, from the whole range of the type if possible."""
    dtype = np.dtype(by_hand.TYPES[data_type][0])
    if dtype.kind == "b":
        return np.arange(np.prod(shape)).reshape(shape) % 3 == 1
    raw = np.random.default_rng(data_type).bytes(int(np.prod(shape)) * dtype.itemsize)
    found = np.frombuffer(raw, dtype).reshape(shape)
    return np.nan_to_num(found) if dtype.kind in "fc" else found


def opened(raw: bytes) -> xr.DataArray:
    return xr.open_dataset(io.BytesIO(raw), engine="dm").data


@pytest.mark.parametrize("data_type", PLAIN)
def test_plain_types(data_type: int, tmp_path: Path) -> None:
    shape = (2, 3, 4)
    wanted = numbers(data_type, shape)
    for version, byteorder in ((3, "<"), (4, "<"), (3, ">"), (4, ">")):
        made = by_hand.image(wanted, data_type, byteorder=byteorder)
        raw = by_hand.dm(made, version=version, byteorder=byteorder)
        data = opened(raw)
        assert data.dtype == wanted.dtype
        np.testing.assert_array_equal(data, wanted)
        np.testing.assert_array_equal(data[1, :, ::2], wanted[1, :, ::2])
        if byteorder == "<" and data_type < 39:
            # RosettaSciIO takes pixels as little-endian, and has no 64-bit integers
            path = tmp_path / f"a.dm{version}"
            path.write_bytes(raw)
            np.testing.assert_array_equal(file_reader(path)[0]["data"], data)


@pytest.mark.parametrize("data_type", [8, 23])
@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5)])
def test_colours(data_type: int, shape: tuple[int, ...], tmp_path: Path) -> None:
    made = by_hand.image(numbers(data_type, (*shape, 4)), data_type, shape)
    (tmp_path / "a.dm4").write_bytes(by_hand.dm(made))
    data = xr.open_dataset(tmp_path / "a.dm4", engine="dm").data
    assert data.dims[-1] == "rgba"
    assert data.dtype == np.uint8
    oracle = file_reader(tmp_path / "a.dm4")[0]["data"]
    np.testing.assert_array_equal(data, np.stack([oracle[name] for name in "RGBA"], axis=-1))


def test_older_half_plane(tmp_path: Path) -> None:
    stored = numbers(2, (8, 8)) * np.float32(1e-30)
    (tmp_path / "a.dm3").write_bytes(by_hand.dm(by_hand.image(stored, 5), version=3))
    data = xr.open_dataset(tmp_path / "a.dm3", engine="dm").data
    assert data.dtype == np.complex64
    np.testing.assert_array_equal(data, file_reader(tmp_path / "a.dm3")[0]["data"])
    big = by_hand.dm(by_hand.image(stored, 5, byteorder=">"), byteorder=">")
    np.testing.assert_array_equal(opened(big), data)


@pytest.mark.parametrize(("data_type", "dtype"), [(27, np.complex64), (28, np.complex128)])
@pytest.mark.parametrize("shape", [(4, 6), (5, 5), (5, 6), (2, 4, 5), (7,)])
def test_half_plane(data_type: int, dtype: type, shape: tuple[int, ...]) -> None:
    """It is completed to the transform of a real image, with frequency 0 in the centre."""
    real = np.random.default_rng(1).normal(size=shape)
    axes = tuple(range(len(shape)))[-2:]
    wanted = np.fft.fftshift(np.fft.fftn(real, axes=axes), axes=axes)
    stored = wanted[..., : shape[-1] // 2 + 1][..., ::-1]
    data = opened(by_hand.dm(by_hand.image(stored, data_type, shape)))
    assert data.dtype == dtype
    np.testing.assert_allclose(data, wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(data[..., 2:4], data.values[..., 2:4])
    np.testing.assert_array_equal(data.chunk({data.dims[-1]: 2}), data)


def test_half_plane_is_that_of_rosettasciio(tmp_path: Path) -> None:
    """Its right half is another: it has the conjugates of its left half without turning them."""
    stored = np.random.default_rng(2).normal(size=(4, 4, 2)).view(np.complex128)[..., 0]
    (tmp_path / "a.dm4").write_bytes(by_hand.dm(by_hand.image(stored, 27, (4, 6))))
    data = xr.open_dataset(tmp_path / "a.dm4", engine="dm").data
    oracle = file_reader(tmp_path / "a.dm4")[0]["data"]
    np.testing.assert_array_equal(data[:, :4], oracle[:, :4])
    np.testing.assert_array_equal(data[[0, 3, 2, 1], 4:], oracle[:, 4:])


@pytest.mark.parametrize(
    ("data_type", "shape", "message"),
    [
        (17, (3, 4), "DataType is 17; accepted: 1, 2, 3, 5, 6, 7, 8, 9"),
        (0, (3, 4), "DataType is 0; accepted"),
        (5, (3, 4), "a square of an even number of pixels"),
        (2, (3, 5), r"Data \(byte \d+\) is 48 bytes long; accepted: 60, for 5 × 3 pixels"),
        (2, (3, 3), "is 48 bytes long; accepted: 36"),
    ],
)
def test_pixels_that_do_not_fit(data_type: int, shape: tuple[int, ...], message: str) -> None:
    made = by_hand.image(np.zeros((3, 4)), 2, shape)
    made["ImageData"]["DataType"] = data_type
    with pytest.raises(MrcError, match=message):
        opened(by_hand.dm(made))
