"""The picture of the middle section: its pixels, and how little is read for it."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import by_hand
import dask.array
import fsspec
import numpy as np
import pytest
import xarray as xr
from PIL import Image

from mrc_xarray.tools.thumbnail import MOST_READ, Thumbnail, thumbnail

Array = np.ndarray[Any, Any]
# black, gray and white; the percentiles of the contrast are the extremes
STEPS = np.repeat(np.array([[0, 50, 100]], "f4"), 3, 0)
STEPS[0] = 0
GRAY = [[0, 128, 255], [0, 128, 255], [0, 0, 0]]


def opened(target: Any, **options: Any) -> xr.DataArray:
    return xr.open_dataset(target, engine="mrc", **options)["data"]


def written(path: Path, data: Array, **fields: Any) -> Path:
    path.write_bytes(by_hand.mrc(data, **fields))
    return path


def pixels(picture: Thumbnail | None) -> Array:
    """Return the pixels by another implementation of PNG."""
    assert picture is not None
    return np.asarray(Image.open(io.BytesIO(picture.png)))


@pytest.mark.parametrize(
    ("dtype", "byteorder", "chunks"),
    [
        *(("i2", "<", None), ("u2", ">", None), ("f4", ">", {"y": 2})),
        *(("f2", "<", None), ("c8", ">", None), ("f4", "<", {})),
    ],
)
def test_middle_section_with_y_upwards(
    tmp_path: Path, dtype: str, byteorder: str, chunks: Any
) -> None:
    volume = np.zeros((5, 3, 3), dtype)
    volume[2] = STEPS
    data = opened(written(tmp_path / "a.mrc", volume, byteorder=byteorder), chunks=chunks)
    picture = thumbnail(data)
    assert np.abs(pixels(picture).astype(int) - GRAY).max() <= 2
    assert picture is not None
    assert (picture.width, picture.height, picture.caption) == (144, 144, "z 2")
    np.testing.assert_array_equal(
        pixels(thumbnail(data[::-1, :, 1:].load())), pixels(picture)[:, 1:]
    )


@pytest.mark.parametrize("suffix", [".mrcz", ".mrc.gz", ".mrc.bz2"])
def test_compressed_files(tmp_path: Path, suffix: str) -> None:
    data = opened(io.BytesIO(by_hand.mrc(np.stack([STEPS] * 3))))
    data.mrc.to_file(tmp_path / f"a{suffix}")
    picture = pixels(thumbnail(opened(tmp_path / f"a{suffix}")))
    np.testing.assert_array_equal(picture, pixels(thumbnail(data)))


def test_colours_and_packed_bytes(tmp_path: Path) -> None:
    rgb = np.zeros((1, 2, 2, 3), "u1")
    rgb[0, 1, 0], rgb[0, 0, 1] = (255, 0, 0), (0, 255, 0)
    fields: Any = {"ispg": 0, "mode": 16, "shape": (1, 2, 2)}
    picture = pixels(thumbnail(opened(written(tmp_path / "rgb.mrc", rgb, **fields))))
    assert picture.tolist() == [[[255, 0, 0], [0] * 3], [[0] * 3, [0, 255, 0]]]
    fields = {"ispg": 0, "mode": 101, "shape": (1, 2, 2)}
    packed = np.array([[0xF0], [0x0F]], "u1")
    picture = pixels(thumbnail(opened(written(tmp_path / "packed.mrc", packed, **fields))))
    assert picture.tolist() == [[255, 0], [0, 255]]


def test_what_is_not_finite_is_black() -> None:
    values = STEPS.copy()
    values[1] = np.nan, np.inf, 100
    assert pixels(thumbnail(xr.DataArray(values, dims=("y", "x"))))[1].tolist() == [0, 0, 255]
    for value, gray in ((np.nan, 0), (7.0, 128)):
        data = xr.DataArray(np.full((4, 2), value), dims=("y", "x"))
        assert (pixels(thumbnail(data)) == gray).all()


def test_scans_point_down_and_long_sections_are_averaged() -> None:
    pattern = xr.DataArray(STEPS[None, None], dims=("scan_y", "scan_x", "ky", "kx"))
    np.testing.assert_allclose(pixels(thumbnail(pattern)), GRAY[::-1], atol=1)
    stripes = xr.DataArray(
        np.tile(np.array([[0, 10], [10, 0]], "u1"), (300, 600)), dims=("y", "x")
    )
    picture = thumbnail(stripes)
    assert (pixels(picture) == 128).all()
    assert picture is not None
    assert (picture.width, picture.height) == (144, 72)


# --- what is read


def sparse(path: Path, shape: tuple[int, int, int], mode: int, nbytes: int) -> Path:
    """Write a header, and zeros that take no space on the disk."""
    path.write_bytes(by_hand.header(shape, mode))
    os.truncate(path, 1024 + nbytes)
    return path


LARGE: dict[str, tuple[tuple[int, int, int], int, int, str]] = {
    "a tomogram": ((1000, 4096, 4096), 2, 4, "z 500"),
    "bytes": ((100, 8192, 16384), 0, 1, "z 50"),
    "long rows": ((3, 40000, 40000), 2, 4, "centre of z 1"),
    "two rows": ((3, 2, 2**20), 1, 2, "centre of z 1"),
    "many rows": ((3, 2**20, 2), 4, 8, "z 1"),
    "many sections": ((2**20, 3, 3), 6, 2, f"z {2**19}"),
}


@pytest.mark.parametrize(
    ("name", "chunks"), [*((name, None) for name in LARGE), ("a tomogram", "auto")]
)
def test_at_most_one_mib_is_read(
    tmp_path: Path, ranges_read: list[tuple[int, int]], name: str, chunks: Any
) -> None:
    shape, mode, itemsize, caption = LARGE[name]
    path = sparse(tmp_path / "large.mrc", shape, mode, itemsize * int(np.prod(shape)))
    data = opened(path, chunks=chunks)
    ranges_read.clear()
    picture = thumbnail(data)
    assert 0 < sum(nbytes for _, nbytes in ranges_read) <= MOST_READ == 2**20
    assert picture is not None
    assert picture.caption == caption
    assert len(picture.png) < 2**17


@pytest.mark.parametrize(
    "key", [{"x": 5}, {"y": 5}, {"x": slice(0, 9)}, {"x": slice(None, None, 7)}]
)
def test_a_part_of_a_large_file(
    tmp_path: Path, ranges_read: list[tuple[int, int]], key: dict[str, Any]
) -> None:
    path = sparse(tmp_path / "large.mrc", (1000, 4096, 4096), 2, 4 * 1000 * 4096**2)
    part = opened(path).isel(key)
    ranges_read.clear()
    # one column needs all rows, so it is not tried
    assert (thumbnail(part) is None) == (key == {"x": 5})
    assert sum(nbytes for _, nbytes in ranges_read) <= MOST_READ


def test_large_blocks_and_streams_are_not_read(
    tmp_path: Path, ranges_read: list[tuple[int, int]]
) -> None:
    noise = np.random.default_rng(0).integers(0, 2**16, (1, 1024, 1024), "u2")
    data = opened(io.BytesIO(by_hand.mrc(noise)))
    for name in ("a.mrcz", "a.mrc.gz"):
        data.mrc.to_file(tmp_path / name, clevel=1, compressor="lz4" if name == "a.mrcz" else None)
        part = opened(tmp_path / name)
        ranges_read.clear()
        assert thumbnail(part) is None
        assert not ranges_read


def test_no_picture_of_stores_computations_and_other_data(tmp_path: Path) -> None:
    raw = by_hand.mrc(np.stack([STEPS] * 3))
    fsspec.filesystem("memory").pipe("/thumbnail.mrc", raw)
    remote = opened("memory://thumbnail.mrc")
    assert thumbnail(remote) is None
    assert thumbnail(remote.load()) is not None
    path = written(tmp_path / "a.mrc", np.stack([STEPS] * 3))

    def fail(block: Array) -> Array:
        raise AssertionError("computed")

    lazy = opened(path, chunks={})
    assert thumbnail(lazy.copy(data=lazy.data.map_blocks(fail, dtype="f4", meta=STEPS))) is None
    assert thumbnail(lazy * 2) is None
    assert thumbnail(xr.DataArray(dask.array.zeros((3, 3)), dims=("y", "x"))) is None
    for data in (lazy[0, 0], lazy[:, :0], xr.DataArray([["a"]]), xr.DataArray(1.0)):
        assert thumbnail(data) is None


def test_a_file_that_changed_or_is_gone(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mrc", np.stack([STEPS] * 3))
    data = opened(path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        thumbnail(data)
