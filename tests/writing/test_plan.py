"""The tasks that write: statistics, casts, and packed pixels."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import by_hand
import numpy as np
import pytest
import xarray as xr
from writes import (
    UNDETERMINED,
    check_plain,
    check_statistics,
    field,
    fields,
    in_chunks,
    kinds,
    labelled,
    noise,
    opened,
    source,
    statistics,
    stored,
    unwarned,
    warned,
)

from mrc_xarray import MrcError, to_mrc

NAN, INF = float("nan"), float("inf")


CHUNKS = [None, (2, 3, -1), (3, 4, 5)]


@pytest.mark.parametrize("dtype", ["bool", "i2", "u1", "u4", "f2", "f4"])
@unwarned
def test_statistics(path: Path, dtype: str) -> None:
    pixels = noise((5, 7, 11), dtype)
    to_mrc(in_chunks(pixels, (2, 3, 5)), path)
    check_statistics(path, pixels)


def test_statistics_of_large_values_that_hardly_differ(path: Path) -> None:
    pixels = (1e7 + noise((5, 7, 11)) // 16).astype("f4")
    to_mrc(in_chunks(pixels, (2, 3, -1)), path)
    exact = pixels.astype("f8")
    assert statistics(path)[2:] == pytest.approx((exact.mean(), exact.std()), rel=1e-6)


@pytest.mark.parametrize(("chunks", "bad"), list(zip(CHUNKS, [NAN, INF, -INF], strict=True)))
def test_statistics_are_of_finite_values(path: Path, chunks: Any, bad: float) -> None:
    pixels = noise((5, 7, 11))
    pixels[1] = bad
    pixels[3, 2, 4] = bad
    n = 7 * 11 + 1
    assert f"NaN or infinite were written ({n} in total)" in warned(
        in_chunks(pixels, chunks), path
    )
    check_statistics(path, pixels)
    # mrcfile finds all statistics wrong if a pixel is NaN
    check_plain(path, pixels, valid=False)


@pytest.mark.parametrize("delayed", [False, True])
@pytest.mark.parametrize(
    ("data", "options", "n"),
    [
        (np.full((2, 3, 4), complex(0, NAN), "c8"), {}, 24),
        (np.full((2, 3, 4), INF, "f4"), {"statistics": "quick"}, 12),
        (in_chunks(np.full((2, 3, 4), -INF, "f2"), 1), {}, 24),
        (np.full((2, 3, 4), NAN, "f4"), {"statistics": False}, 0),
    ],
    ids=["complex", "quick", "float16", "unchecked"],
)
@kinds
def test_pixels_that_are_not_finite_are_one_warning(
    tmp_path: Path, suffix: str, data: Any, options: dict[str, Any], n: int, delayed: bool
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        task = to_mrc(data, tmp_path / f"a{suffix}", compute=not delayed, **options)
        assert not (delayed and caught)
        assert task is None or task.compute(scheduler="sync") is None
    assert [f"({n} in total)" in str(one.message) for one in caught] == [True] * bool(n)


@pytest.mark.parametrize(
    ("pixels", "statistics_"),
    [
        (np.full((2, 3, 4), NAN, "f4"), True),
        (np.full((2, 3, 4), INF, "f4"), "quick"),
        (noise((3, 4, 5), "c8"), False),
        (noise((3, 4, 5)), False),
    ],
)
@kinds
@unwarned
def test_statistics_that_are_undetermined(
    tmp_path: Path, pixels: Any, statistics_: Any, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    to_mrc(pixels, path, statistics=statistics_)
    assert statistics(path) == UNDETERMINED
    if suffix == ".mrc" and np.isfinite(pixels).all():
        check_plain(path, pixels)


@pytest.mark.parametrize(
    ("chunks", "suffix"), [(None, ".mrc"), ((2, 3, -1), ".mrc"), (2, ".mrcz")]
)
def test_quick_statistics_are_of_the_first_section(
    tmp_path: Path, chunks: Any, suffix: str
) -> None:
    pixels = noise((5, 7, 11), "i2")
    path = tmp_path / f"result{suffix}"
    to_mrc(in_chunks(pixels, chunks), path, statistics="quick")
    check_statistics(path, pixels[0])


def test_statistics_are_of_what_is_stored(path: Path) -> None:
    pixels = np.array([[0.6, 1.4], [2.6, -3.4]])
    to_mrc(pixels, path, mode=1)
    assert statistics(path) == pytest.approx((-3, 3, 0.5, np.std([1, 1, 3, -3])))
    check_plain(path, np.array([[1, 1], [3, -3]], "i2"))


# modes and casts --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "mode", "code"),
    [
        ("f8", 2, "f4"), ("c16", 4, "c8"), ("f4", 0, "i1"), ("bool", 2, "f4"), ("u2", 12, "f2"),
        (">i4", 1, "i2"),
    ],
)  # fmt: skip
def test_casts_on_request(path: Path, given: str, mode: int, code: str) -> None:
    pixels = np.arange(60).reshape(3, 4, 5).astype(given)
    to_mrc(pixels, path, mode=mode)
    assert field(path, "mode") == mode
    assert stored(path) == pixels.astype(code).tobytes()


@pytest.mark.parametrize(
    ("dtype", "value", "mode", "limit"),
    [("i4", 65536, 6, "65535"), ("f4", NAN, 1, "32767"), ("c16", 1e39j, 4, "e")],
)
def test_values_out_of_range_are_refused(
    path: Path, dtype: str, value: Any, mode: int, limit: str
) -> None:
    pixels = np.zeros((3, 4, 5), dtype)
    pixels[2, 3, 4] = value
    with pytest.raises(MrcError, match=limit) as caught:
        to_mrc(in_chunks(pixels, (1, 2, -1)), path, mode=mode)
    assert f"{abs(value.imag or value.real):g}" in str(caught.value)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(("dtype", "mode"), [("f8", None), ("c8", 1), ("u1", 5), ("u1", "int16")])
def test_modes_that_do_not_fit_are_refused(path: Path, dtype: str, mode: Any) -> None:
    with pytest.raises(MrcError, match=r"(?i)mode"):
        to_mrc(np.zeros((4, 5), dtype), path, mode=mode)
    assert not path.exists()


@pytest.mark.parametrize(("byteorder", "order"), [("little", "<"), ("big", ">")])
def test_unsigned_bytes_have_imods_flag(path: Path, byteorder: str, order: str) -> None:
    pixels = noise((5, 7, 11), "u1")
    first = {"z": 5.0, "y": -3.0, "x": 2.0}
    data = labelled(pixels, ("z", "y", "x"), 2.0, first)
    to_mrc(data, path, mode=0, byteorder=byteorder)
    assert field(path, "mode", order) == 0
    assert field(path, "imod_stamp", order) == by_hand.IMOD_STAMP
    assert field(path, "imod_flags", order) & 1 == 0
    # mrcfile takes bytes as signed, and the statistics as wrong
    check_plain(path, pixels.view("i1"), order, valid=False)
    ds = opened(path)
    assert ds.data.dtype == np.uint8
    np.testing.assert_array_equal(ds.data, pixels)
    # IMOD's stamp without flag 4 would change the sign of ORIGIN
    for dim in "xyz":
        assert ds[dim].values[0] == first[dim]


def test_signed_bytes_have_no_imod_stamp(path: Path, tmp_path: Path) -> None:
    more = {"imod_stamp": by_hand.IMOD_STAMP, "imod_flags": 4, "origin": (1, 2, 3)}
    data = source(tmp_path, noise((3, 4, 5), "u1"), mode=0, **more).data
    assert data.dtype == np.uint8
    signed = (data.astype("i2") - 128).astype("i1")
    to_mrc(signed, path)
    ds = opened(path)
    assert ds.data.dtype == np.int8
    np.testing.assert_array_equal(ds.data, signed)
    assert [ds[dim].item(0) for dim in "xyz"] == [1, 2, 3]


@pytest.mark.parametrize(
    ("nx", "chunks"), [(1, None), (7, (2, 3, -1)), (7, (3, 4, 5)), (8, (3, 4, 5))]
)
def test_four_bits(path: Path, nx: int, chunks: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 16, (5, 7, nx), "u1")
    to_mrc(in_chunks(pixels.astype("f4"), chunks), path, mode=101)
    assert field(path, "mode") == 101
    np.testing.assert_array_equal(opened(path).data, pixels)
    assert stored(path) == by_hand.pack_4bit(pixels).tobytes()


@pytest.mark.parametrize(
    ("byteorder", "order", "dtype", "chunks"),
    [("little", "<", "c16", None), ("big", ">", "c8", (2, 3, 4))],
)
def test_complex_integers(path: Path, byteorder: str, order: str, dtype: str, chunks: Any) -> None:
    parts = noise((5, 7, 11, 2), "i2")
    pixels = (parts[..., 0] + 1j * parts[..., 1]).astype(dtype)
    to_mrc(in_chunks(pixels, chunks), path, mode=3, byteorder=byteorder)
    assert field(path, "mode", order) == 3
    found = np.frombuffer(stored(path), f"{order}i2").reshape(parts.shape)
    np.testing.assert_array_equal(found, parts)
    np.testing.assert_array_equal(opened(path).data, pixels)


@pytest.mark.parametrize(
    ("dims", "mode", "chunked"),
    [(("y", "x", "rgb"), None, True), (("image", "y", "x", "rgb"), 16, False)],
)
@unwarned
def test_rgb(path: Path, dims: Any, mode: int | None, chunked: bool) -> None:
    pixels = noise((2, 4, 5, 3)[-len(dims) :], "u1")
    data = labelled(pixels, dims)
    to_mrc(data.chunk(y=3, rgb=1) if chunked else data, path, mode=mode)
    assert fields(path, "mode", "nx", "ny") == (16, 5, 4)
    assert stored(path) == pixels.tobytes()
    assert opened(path).data.dims == dims
    np.testing.assert_array_equal(opened(path).data, pixels)


def test_rgb_is_of_unsigned_bytes(path: Path) -> None:
    with pytest.raises(MrcError, match=r"(?i)rgb|mode 16"):
        to_mrc(xr.DataArray(np.zeros((4, 5, 3), "u2"), dims=("y", "x", "rgb")), path)
