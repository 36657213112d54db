"""Every file that mrcz can write reads back equal, one block at a time, from everywhere."""

from __future__ import annotations

import contextlib
import enum
import importlib.util
import json
import pickle
import re
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import blosc
import by_hand
import fsspec
import mrcz
import numpy as np
import pytest
import servers
import xarray as xr
from dask.base import tokenize
from distributed import Client

from mrc_xarray import MrcError, MrcWarning
from mrc_xarray.cli import main
from mrc_xarray.pixels import compression
from mrc_xarray.pixels.array import StackArray
from mrc_xarray.storage import LocalSource

Array = np.ndarray[Any, Any]
MiB = 1024**2

DTYPES = ["i1", "i2", "u2", "i4", "u4", "f4", "c8"]
CODECS = ["blosclz", "lz4", "lz4hc", "zlib", "zstd"]

needs_blosc2 = pytest.mark.skipif(
    importlib.util.find_spec("blosc2") is None, reason="chunks of version 5 need blosc2"
)
backends = pytest.mark.parametrize(
    "backend", ["blosc1", pytest.param("blosc2", marks=needs_blosc2)]
)
# chunks smaller than what is offered are meant here
any_chunks = pytest.mark.filterwarnings("ignore:The specified chunks separate the stored chunks")


def counts(shape: tuple[int, ...], dtype: str = "i2") -> Array:
    """Return what a counting camera sees, with negative and imaginary parts where there can be."""
    pixels = np.random.default_rng(5).poisson(2, shape).astype(dtype)
    if pixels.dtype.kind in "ifc":
        pixels[..., ::3] *= -1
    if pixels.dtype.kind == "c":
        pixels[..., ::2] *= 1j
    return pixels


def write(path: Path, data: Any, **options: Any) -> Path:
    mrcz.writeMRC(data, path, **options)
    return path


def opened(path: Path, **options: Any) -> xr.Dataset:
    return xr.open_dataset(path, engine="mrc", **options)


def block_places(raw: bytes, n: int) -> list[tuple[int, int]]:
    """Return first byte and length of each block, from the chunks' own headers."""
    start = 1024 + struct.unpack_from("<i", raw, 92)[0]
    places = []
    for _ in range(n):
        (nbytes,) = struct.unpack_from("<I", raw, start + 12)
        places.append((start, nbytes))
        start += nbytes
    assert start == len(raw)
    return places


@pytest.fixture
def path(tmp_path: Path) -> Path:
    # by content and not by suffix
    return tmp_path / "movie.mrc"


# what mrcz writes -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("endian", ["le", "be"])
@pytest.mark.parametrize("codec", CODECS)
@backends
def test_all_types_orders_and_codecs(
    path: Path, dtype: str, endian: str, codec: str, backend: str
) -> None:
    pixels = counts((3, 48, 64), dtype)
    write(path, pixels, endian=endian, compressor=codec, backend=backend)
    assert path.read_bytes()[1024] == {"blosc1": 2, "blosc2": 5}[backend]
    ds = opened(path)
    assert ds.data.dims == ("image", "y", "x")
    assert ds.data.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(ds.data, mrcz.readMRC(path, endian=endian)[0])
    np.testing.assert_array_equal(ds.data, pixels)
    assert ds.data.attrs["mrcz_codec"] == codec
    assert ds.data.attrs["mrcz_chunk_version"] == {"blosc1": 2, "blosc2": 5}[backend]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("endian", ["le", "be"])
def test_all_types_uncompressed(path: Path, dtype: str, endian: str) -> None:
    pixels = counts((3, 5, 7), dtype)
    write(path, pixels, endian=endian, meta={"a": 1})
    np.testing.assert_array_equal(opened(path).data, pixels)
    assert "mrcz_codec" not in opened(path).data.attrs


@pytest.mark.parametrize("clevel", range(10))
@backends
def test_all_levels(path: Path, clevel: int, backend: str) -> None:
    pixels = counts((2, 48, 64), "f4")
    write(path, pixels, compressor="zstd", clevel=clevel, backend=backend)
    np.testing.assert_array_equal(opened(path).data, pixels)


@backends
def test_noise_that_can_not_be_compressed(path: Path, backend: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 2**16, (3, 48, 64), "u2")
    write(path, pixels, compressor="lz4", backend=backend)
    np.testing.assert_array_equal(opened(path).data, pixels)
    assert opened(path).data.attrs["mrcz_ratio"] < 1


@backends
@pytest.mark.parametrize("value", [0, 7])
def test_constant_frames(path: Path, backend: str, value: int) -> None:
    pixels = np.full((3, 48, 64), value, "i2")
    write(path, pixels, compressor="zstd", backend=backend)
    np.testing.assert_array_equal(opened(path).data, pixels)


@needs_blosc2
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 5, 7), (2, 17, 23), (2, 63, 65)])
@pytest.mark.parametrize("n_threads", [1, 2, 3, 16])
def test_small_frames_by_blosc2_are_right_or_an_error(
    path: Path, dtype: str, shape: tuple[int, ...], n_threads: int
) -> None:
    """For small frames mrcz may cut pixels apart, and blosc2 then decodes to other values."""
    pixels = counts(shape, dtype)
    write(path, pixels, compressor="zstd", backend="blosc2", n_threads=n_threads)
    ds = opened(path)
    for k, (start, _) in enumerate(block_places(path.read_bytes(), len(pixels))):
        flags, typesize, _, blocksize = struct.unpack_from("<BBII", path.read_bytes(), start + 2)
        # what is copied as it is can be cut anywhere
        if blocksize % typesize and not flags & 2:
            with pytest.raises(MrcError, match=f"section {k}, at byte {start}: "):
                ds.data[k].load()
        else:
            np.testing.assert_array_equal(ds.data[k], pixels[k])


@needs_blosc2
@pytest.mark.parametrize("codec", ["zfp_acc", "zfp_prec", "zfp_rate"])
def test_codecs_that_only_blosc2_has(path: Path, codec: str) -> None:
    pixels = counts((3, 48, 64), "f4")
    write(path, pixels, compressor=codec)
    np.testing.assert_array_equal(opened(path).data, mrcz.readMRC(path)[0])
    np.testing.assert_array_equal(opened(path).data, pixels)
    assert opened(path).data.attrs["mrcz_codec"] == codec


@pytest.mark.parametrize(("given", "stored"), [("f8", "f4"), ("c16", "c8")])
def test_types_that_mrcz_narrows(path: Path, given: str, stored: str) -> None:
    pixels = counts((2, 48, 64), given)
    ds = opened(write(path, pixels, compressor="lz4"))
    assert ds.data.dtype == np.dtype(stored)
    np.testing.assert_array_equal(ds.data, pixels.astype(stored))


def test_type_that_is_cast_while_writing(path: Path) -> None:
    """The chunks then have the type size of the pixels before."""
    pixels = counts((2, 48, 64), "i2")
    ds = opened(write(path, pixels, compressor="zstd", dtype="f4"))
    np.testing.assert_array_equal(ds.data, pixels.astype("f4"))


@pytest.mark.parametrize("shape", [(4, 6, 8), (1, 3, 2), (3, 5, 10)])
def test_four_bits(path: Path, shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 16, shape, "u1")
    ds = opened(write(path, pixels, dtype="uint4"))
    assert ds.mrc.header.mode == 101
    np.testing.assert_array_equal(ds.data.values.squeeze(), mrcz.readMRC(path)[0])
    np.testing.assert_array_equal(ds.data.values.reshape(shape), pixels)


# layouts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("compressor", [None, "zstd"])
def test_one_image(path: Path, compressor: str | None) -> None:
    pixels = counts((48, 64))
    ds = opened(write(path, pixels, compressor=compressor))
    assert ds.data.dims == ("y", "x")
    np.testing.assert_array_equal(ds.data, pixels)


@backends
def test_list_of_images(path: Path, backend: str) -> None:
    images = [*counts((3, 48, 64))]
    ds = opened(write(path, images, compressor="lz4", backend=backend))
    assert ds.mrc.header.mz == 1
    assert ds.data.dims == ("image", "y", "x")
    np.testing.assert_array_equal(ds.data, np.stack(mrcz.readMRC(path)[0]))
    np.testing.assert_array_equal(ds.data, images)


@pytest.mark.parametrize("endian", ["le", "be"])
@backends
def test_list_of_stacks_has_channels(path: Path, endian: str, backend: str) -> None:
    frames = [*counts((3, 2, 48, 64))]
    ds = opened(write(path, frames, compressor="zstd", endian=endian, backend=backend))
    assert ds.data.dims == ("image", "channel", "y", "x")
    np.testing.assert_array_equal(ds.data, mrcz.readMRC(path, endian=endian)[0])
    np.testing.assert_array_equal(ds.data, frames)
    np.testing.assert_array_equal(ds["section"], np.arange(6).reshape(3, 2))


@pytest.mark.parametrize(("n", "shape"), [(1, (6, 5, 7)), (2, (3, 2, 5, 7)), (3, (2, 3, 5, 7))])
def test_sections_per_frame_overrides(path: Path, n: int, shape: tuple[int, ...]) -> None:
    frames = counts((3, 2, 5, 7))
    write(path, [*frames], compressor="zstd")
    ds = opened(path, sections_per_frame=n)
    assert ds.data.dims == (("image", "y", "x") if n == 1 else ("image", "channel", "y", "x"))
    np.testing.assert_array_equal(ds.data, frames.reshape(shape))


def test_sections_per_frame_must_divide(path: Path) -> None:
    write(path, counts((6, 5, 7)), compressor="zstd")
    with pytest.raises(MrcError, match="6 sections"):
        opened(path, sections_per_frame=4)


def test_volume_and_scan_by_argument(path: Path) -> None:
    pixels = counts((6, 5, 7))
    write(path, pixels, compressor="zstd")
    assert opened(path, layout="volume").data.dims == ("z", "y", "x")
    ds = opened(path, scan_shape=(2, 3))
    assert ds.data.dims == ("scan_y", "scan_x", "y", "x")
    np.testing.assert_array_equal(ds.data, pixels.reshape(2, 3, 5, 7))


def test_grouping_of_old_versions_is_ignored(path: Path) -> None:
    """Before 0.5.0 mrcz wrote the shape to MX, MY and MZ."""
    pixels = counts((6, 5, 7))
    write(path, pixels, compressor="zstd")
    raw = bytearray(path.read_bytes())
    struct.pack_into("<3i", raw, 28, 7, 5, 6)
    raw[224:233] = b"MRCZ0.4.1"
    path.write_bytes(raw)
    ds = opened(path)
    assert ds.data.dims == ("image", "y", "x")
    images, _ = mrcz.readMRC(path)
    np.testing.assert_array_equal(ds.data, np.stack(images))
    np.testing.assert_array_equal(ds.data, pixels)
    assert ds.mrc.voxel_size == pytest.approx({"y": 0.1, "x": 0.1})


# what a header and its JSON say -----------------------------------------------------------------


@pytest.mark.parametrize("units", ["\\AA", "nm", "pm", "\\mum"])
@pytest.mark.parametrize("endian", ["le", "be"])
def test_pixel_size(path: Path, units: str, endian: str) -> None:
    write(
        path, counts((3, 5, 7)), compressor="lz4", endian=endian,
        pixelsize=[5.0, 2.5, 1.25], pixelunits=units,
    )  # fmt: skip
    ds = opened(path, layout="volume")
    _, header = mrcz.readMRC(path, endian=endian)
    found = [ds.mrc.voxel_size[axis] for axis in "zyx"]
    np.testing.assert_allclose(found, header["pixelsize"], rtol=1e-6)
    angstroms = {"\\AA": 1, "nm": 10, "pm": 0.01, "\\mum": 1e4}[units]
    np.testing.assert_allclose(found, np.array([5, 2.5, 1.25]) * angstroms, rtol=1e-6)
    assert set(opened(path).mrc.voxel_size) == {"y", "x"}


def test_pixel_size_of_channels_is_that_of_an_image(path: Path) -> None:
    write(path, [*counts((3, 2, 5, 7))], compressor="lz4", pixelsize=2.0)
    ds = opened(path, units="nm")
    assert ds.mrc.voxel_size == pytest.approx({"y": 2, "x": 2})
    np.testing.assert_allclose(ds["x"], np.arange(7) * 0.2, rtol=1e-6)


@pytest.mark.parametrize("compressor", [None, "zlib"])
@pytest.mark.parametrize("endian", ["le", "be"])
def test_voltage_c3_and_gain(path: Path, compressor: str | None, endian: str) -> None:
    write(
        path, counts((2, 5, 7)), compressor=compressor, endian=endian,
        voltage=300.0, C3=2.7, gain=1.25,
    )  # fmt: skip
    attrs = opened(path).data.attrs
    _, header = mrcz.readMRC(path, endian=endian)
    found = [attrs[key] for key in ("voltage_kV", "c3_mm", "gain_e_per_DN")]
    assert found == [header[key] for key in ("voltage", "C3", "gain")]
    assert found == pytest.approx([300, 2.7, 1.25])


def test_voltage_that_was_not_given_is_left_out(path: Path) -> None:
    attrs = opened(write(path, counts((2, 5, 7)), compressor="lz4")).data.attrs
    assert {"voltage_kV", "c3_mm"}.isdisjoint(attrs)


class Axis(enum.Enum):
    X = 1


METADATA: dict[str, dict[str, Any]] = {
    "empty": {},
    "nested": {"stage": {"x": [1.5, -2e-9], "locked": True, "by": None}, "text": "Å 试样"},
    "numpy": {"shifts": np.arange(6.0).reshape(2, 3), "n": np.int32(3), "axis": Axis.X},
    "over 64 KiB": {"dose": list(range(20_000)), "last": "here"},
}


@pytest.mark.parametrize("metadata", METADATA.values(), ids=list(METADATA))
@pytest.mark.parametrize("compressor", [None, "zstd"])
@pytest.mark.parametrize("endian", ["le", "be"])
def test_metadata(
    path: Path, metadata: dict[str, Any], compressor: str | None, endian: str
) -> None:
    pixels = counts((3, 5, 7))
    write(path, pixels, meta=metadata, compressor=compressor, endian=endian)
    ds = opened(path)
    _, header = mrcz.readMRC(path, endian=endian)
    assert ds.mrc.metadata == {key: header[key] for key in metadata}
    np.testing.assert_array_equal(ds.data, pixels)


@pytest.mark.parametrize("compressor", [None, "zstd"])
@pytest.mark.parametrize("broken", [b'{"a": ', b"[1, 2]", b'{"a": "\xff"}', b"\0" * 6])
def test_broken_metadata_is_one_warning(path: Path, compressor: str | None, broken: bytes) -> None:
    pixels = counts((3, 5, 7))
    write(path, pixels, meta={"a": "x" * 20}, compressor=compressor)
    raw = bytearray(path.read_bytes())
    raw[1024 : 1024 + len(broken)] = broken
    raw[1024 + len(broken) : 1024 + 29] = b" " * (29 - len(broken))
    path.write_bytes(raw)
    with pytest.warns(MrcWarning, match="extended header") as warned:
        ds = opened(path)
    assert len(warned) == 1
    assert ds.mrc.metadata == {}
    np.testing.assert_array_equal(ds.data, pixels)


@pytest.mark.parametrize("suffix", ["nc", "zarr"])
def test_attributes_outlast_other_formats(path: Path, tmp_path: Path, suffix: str) -> None:
    write(path, counts((3, 5, 7), "f4"), meta=METADATA["nested"], compressor="zstd", voltage=300)
    stored = tmp_path / f"stored.{suffix}"
    with opened(path) as ds:
        if suffix == "nc":
            ds.to_netcdf(stored)
            again = xr.open_dataset(stored)
        else:
            # consolidated metadata are not in the Zarr 3 specification, and zarr says so
            ds.to_zarr(stored, consolidated=False)
            again = xr.open_zarr(stored, chunks=None, consolidated=False)
        with again:
            xr.testing.assert_identical(again.load(), ds.load())
            assert again.mrc.metadata == METADATA["nested"]
            for key in ("mrcz_codec", "mrcz_chunk_version", "mrcz_ratio", "voltage_kV"):
                assert again.data.attrs[key] == ds.data.attrs[key]


@pytest.mark.parametrize("name", ["movie.mrc", "movie.mrcz", "movie.mrcs", "movie"])
@pytest.mark.parametrize("endian", ["le", "be"])
def test_is_found_without_naming_the_engine(tmp_path: Path, name: str, endian: str) -> None:
    pixels = counts((3, 5, 7))
    path = write(tmp_path / name, pixels, compressor="zstd", endian=endian)
    np.testing.assert_array_equal(xr.open_dataset(path).data, pixels)


# what can't be decoded here ---------------------------------------------------------------------


def by_codec(path: Path, number: int, chunk_codec: int, version: int = 2) -> Path:
    """Write a file that names a codec in MODE, and another in the flags of its one chunk."""
    block = bytearray(blosc.compress(bytes(48 * 64), 1, cname="zstd"))
    block[0] = version
    block[2] = block[2] & 0b11101 | chunk_codec << 5
    path.write_bytes(by_hand.header((1, 48, 64), 1000 * number, ispg=0) + block)
    return path


def test_snappy(path: Path) -> None:
    ds = opened(by_codec(path, 4, 2))
    with pytest.raises(MrcError, match=r"section 0, at byte 1024: .*snappy.*install"):
        ds.data.load()


@pytest.mark.parametrize(("number", "codec"), [(7, "ndlz"), (8, "zfp_acc"), (14, "j2k")])
def test_codec_of_blosc2_in_a_chunk_of_version_2(path: Path, number: int, codec: str) -> None:
    ds = opened(by_codec(path, number, 6))
    with pytest.raises(MrcError, match=f"{codec}.*install"):
        ds.data.load()


@pytest.mark.parametrize(
    ("number", "chunk_codec", "codec"), [(6, 4, "zstd"), (2, 1, "lz4"), (7, 6, "ndlz")]
)
def test_version_5_without_blosc2(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int, chunk_codec: int, codec: str
) -> None:
    monkeypatch.setattr(compression, "_blosc2", lambda: None)
    ds = opened(by_codec(path, number, chunk_codec, version=5))
    with pytest.raises(MrcError, match=rf'section 0, .*version 5 \({codec}\).*\[blosc2\]"'):
        ds.data.load()


@needs_blosc2
def test_plugin_that_is_not_installed(path: Path) -> None:
    write(path, counts((1, 48, 64), "i1"), compressor="zstd", backend="blosc2")
    raw = bytearray(path.read_bytes())
    struct.pack_into("<i", raw, 12, 7000)
    raw[1026] |= 7 << 5
    # the number of ndlz, which wants more of a file than a chunk
    raw[1024 + 22] = 32
    path.write_bytes(raw)
    ds = opened(path)
    with pytest.raises(MrcError, match=r"ndlz.*pip install blosc2-ndlz"):
        ds.data.load()


def test_blosc2_is_not_asked_for_version_2(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "_blosc2", lambda: None)
    pixels = counts((2, 5, 7))
    np.testing.assert_array_equal(opened(write(path, pixels, compressor="zstd")).data, pixels)


# laziness ---------------------------------------------------------------------------------------

SHAPE = (6, 24, 33)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """First byte and length of every read of pixels."""
    asked: list[tuple[int, int]] = []
    read_into = LocalSource.read_into

    def remember(self: LocalSource, requests: Any) -> None:
        asked.extend((offset, len(buffer)) for offset, buffer in requests)
        read_into(self, requests)

    monkeypatch.setattr(LocalSource, "read_into", remember)
    return asked


@pytest.fixture
def stack(path: Path) -> Array:
    pixels = counts(SHAPE)
    write(path, pixels, compressor="zstd", meta={"odd": "length"})
    return pixels


@pytest.mark.parametrize(
    ("key", "sections"),
    [
        ({"image": 4}, [4]),
        ({"image": 0, "y": 3, "x": slice(5, 9)}, [0]),
        ({"image": [5, 1, 5]}, [1, 5]),
        ({"image": slice(None, None, 3)}, [0, 3]),
        ({"x": 2}, list(range(6))),
        ({"image": []}, []),
        ({"image": 2, "y": []}, []),
    ],
)
@pytest.mark.parametrize("mmap", [False, True])
def test_reads_the_blocks_of_its_sections_alone(
    path: Path, stack: Array, asked: Any, key: Any, sections: list[int], mmap: bool
) -> None:
    ds = opened(path, mmap=mmap)
    asked.clear()
    ds.data.isel(key).load()
    places = block_places(path.read_bytes(), len(stack))
    assert sorted(asked) == [places[k] for k in sections]


def test_opening_reads_no_block(path: Path, stack: Array, asked: Any) -> None:
    opened(path, chunks={})
    first, _ = block_places(path.read_bytes(), len(stack))[0]
    assert all(start + nbytes <= max(first, 64 * 1024) for start, nbytes in asked)


def test_each_chunk_is_decoded_once(path: Path, stack: Array, asked: Any) -> None:
    ds = opened(path, chunks={})
    asked.clear()
    np.testing.assert_array_equal(ds.data.compute(scheduler="threads"), stack)
    assert sorted(asked) == block_places(path.read_bytes(), len(stack))


TRANSFORMS: dict[str, tuple[Any, ...]] = {
    "all": (),
    "scalar": (2,),
    "scalar from the end": (-1,),
    "scalar row": (slice(None), 1),
    "scalars": (1, 2, 3),
    "window": (slice(1, 3), slice(1, 5), slice(2, 6)),
    "narrow window": (slice(None), slice(1, 4), slice(4, 5)),
    "strided": (slice(None, None, 2), slice(1, None, 3), slice(0, 30, 7)),
    "reversed": (slice(None, None, -1), slice(None, None, -1), slice(None, None, -2)),
    "empty slice": (slice(1, 1),),
    "empty rows": (slice(None), slice(3, 1)),
    "empty list": ([],),
    "list": ([0, 2],),
    "unsorted list": ([2, 0, 1, 0], [3, 0, 4, 1], [7, 0, 7]),
    "list with duplicates": (slice(None), [1, 1, 3, 3]),
    "orthogonal": ([0, 1], [4, 0, 2], [8, 1, 1]),
    "list and scalar": ([-1, 0], 1, [2, 0]),
    "boolean": (slice(None), np.arange(24) % 2 == 0, np.arange(33) % 4 == 1),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("kind", ["i2", "big-endian", "c8", "channels", "scan", "blosc2"])
def test_transform(path: Path, kind: str, transform: str) -> None:
    if kind == "blosc2":
        pytest.importorskip("blosc2", reason="chunks of version 5 need blosc2")
    pixels: Array = counts(
        (6, 48, 64) if kind == "blosc2" else SHAPE, "c8" if kind == "c8" else "i2"
    )
    if kind == "channels":
        pixels = pixels.reshape(3, 2, *pixels.shape[1:])
    options = {"blosc2": {"backend": "blosc2"}, "big-endian": {"endian": "be"}}.get(kind, {})
    write(path, [*pixels] if kind == "channels" else pixels, compressor="zstd", **options)
    ds = opened(path, cache=False, scan_shape=(3, 2) if kind == "scan" else None)
    lazy = ds.data.variable
    eager = xr.Variable(lazy.dims, pixels.reshape(lazy.shape))
    keys = TRANSFORMS[transform]
    if lazy.ndim == 4:
        keys = (*keys[:1], *keys[:1], *keys[1:])
    key = {}
    for dim, n, k in zip(lazy.dims, lazy.shape, keys, strict=False):
        key[dim] = min(k, n - 1) if isinstance(k, int) else k
        if isinstance(k, list):
            key[dim] = [min(i, n - 1) for i in k]
        elif isinstance(k, np.ndarray):
            key[dim] = np.resize(k, n)
    found = lazy.isel(key).values
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, eager.isel(key).values)


def test_vectorised(path: Path, stack: Array) -> None:
    points = [0, 3, 5], [0, 1, 4], [8, 0, 2]
    key = {dim: xr.Variable("p", p) for dim, p in zip(("image", "y", "x"), points, strict=True)}
    np.testing.assert_array_equal(opened(path).data.isel(key), stack[points])


def test_load_of_many_sections_uses_threads(path: Path) -> None:
    pixels = np.tile(counts((4, 512, 1024)), (10, 1, 1))
    pixels[:, 0, 0] = range(40)
    write(path, pixels, compressor="lz4")
    np.testing.assert_array_equal(opened(path).data, pixels)


@pytest.mark.parametrize(
    ("shape", "chunks"),
    [
        ((5, 1024, 2048), (4, 1024, 2048)),
        ((2, 3, 1024, 1024), (2, 3, 1024, 1024)),
        ((2, 9, 1024, 1024), (1, 8, 1024, 1024)),
        ((2, 4096, 4096), (1, 4096, 4096)),
        ((1000, 16, 16), (1000, 16, 16)),
    ],
)
def test_dask_chunks_are_whole_sections(path: Path, shape: Any, chunks: Any) -> None:
    pixels = np.zeros(shape, "i2")
    write(path, pixels if len(shape) == 3 else [*pixels], compressor="lz4")
    ds = opened(path, chunks={})
    preferred = ds.data.encoding["preferred_chunks"]
    assert preferred == dict(zip(ds.data.dims, chunks, strict=True))
    assert ds.data.data.chunksize == chunks
    assert np.prod(chunks) * 2 <= 16 * MiB or chunks[:-2] == (1,)


def test_chunks_that_cut_blocks_are_warned_of(path: Path, stack: Array) -> None:
    with pytest.warns(UserWarning, match="separate the stored chunks"):
        ds = opened(path, chunks={"y": 10})
    np.testing.assert_array_equal(ds.data, stack)


# what is set for the whole process --------------------------------------------------------------


@pytest.fixture
def mrcz_threads() -> Iterator[Callable[[int], None]]:
    before = mrcz.ioMRC.DEFAULT_N_THREADS
    yield mrcz.setDefaultThreads
    mrcz.setDefaultThreads(before)


@backends
@pytest.mark.parametrize("n", [1, 2, 4])
def test_mrcz_may_set_its_threads(path: Path, mrcz_threads: Any, n: int, backend: str) -> None:
    pixels = counts((4, 256, 256))
    write(path, pixels, compressor="zstd", backend=backend)
    ds = opened(path, cache=False)
    for _ in range(3):
        mrcz_threads(n)
        np.testing.assert_array_equal(mrcz.readMRC(path)[0], pixels)
        np.testing.assert_array_equal(ds.data, pixels)


@pytest.mark.parametrize("releasegil", [False, True])
def test_blosc_may_be_set_otherwise(path: Path, stack: Array, releasegil: bool) -> None:
    ds = opened(path, cache=False)
    before = blosc.set_releasegil(releasegil)
    try:
        blosc.set_nthreads(2)
        np.testing.assert_array_equal(ds.data, stack)
    finally:
        blosc.set_releasegil(before)


def test_mrcz_reads_at_the_same_time(path: Path, mrcz_threads: Any) -> None:
    pixels = counts((8, 256, 256))
    write(path, pixels, compressor="zstd")
    ds = opened(path, cache=False)
    mrcz_threads(2)
    readers = [lambda: ds.data.values, lambda: mrcz.readMRC(path)[0]] * 8
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda read: read(), readers):
            np.testing.assert_array_equal(found, pixels)


# pickling ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many_blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 65,536 equal blocks."""
    path = tmp_path_factory.mktemp("many") / "many.mrc"
    block = blosc.compress(np.arange(16, dtype="i2").tobytes(), 2, cname="lz4")
    n = 65_536
    header = by_hand.header(
        (n, 4, 4),
        2001,
        ispg=0,
        mx=0,
        my=0,
        mz=0,
        labels=(b"MRCZ0.6.0",),
        packed_bytes=n * len(block),
    )
    path.write_bytes(header + block * n)
    return path


@pytest.mark.parametrize("chunks", [None, {}], ids=["loaded", "chunked"])
def test_pickled_dataset(path: Path, stack: Array, chunks: Any) -> None:
    ds = pickle.loads(pickle.dumps(opened(path, chunks=chunks)))
    np.testing.assert_array_equal(ds.data[3], stack[3])
    np.testing.assert_array_equal(ds.data, stack)


@any_chunks
def test_index_is_once_in_a_graph(many_blocks: Path) -> None:
    ds = opened(many_blocks, chunks={"image": 64})
    graph = dict(ds.data.data.dask)
    sizes = sorted(len(pickle.dumps(task)) for task in graph.values())
    assert len(sizes) >= 1024
    # two int64 a block, and no more
    assert sizes[-1] < 16 * 65_536 + 16 * 1024
    assert sizes[-2] < 4096
    assert len(pickle.dumps(ds.data.data.dask)) < 2 * MiB
    np.testing.assert_array_equal(ds.data[-1].compute(), np.arange(16).reshape(4, 4))


def test_index_is_not_in_the_attributes(many_blocks: Path) -> None:
    ds = opened(many_blocks)
    assert len(json.dumps(ds.data.attrs)) < 16 * 1024


def test_tokens_tell_files_apart(path: Path, tmp_path: Path, stack: Array) -> None:
    other = write(tmp_path / "other.mrc", stack, compressor="lz4")
    tokens = [tokenize(array_of(opened(p))) for p in (path, path, other)]
    assert tokens[0] == tokens[1]
    assert tokens[0] != tokens[2]


def array_of(ds: xr.Dataset) -> StackArray:
    array: Any = ds.data.variable._data
    while not isinstance(array, StackArray):
        array = array.array
    return array


# stores and schedulers --------------------------------------------------------------------------

FRAMES = counts((4, 2, 48, 64), "u2")
Opened = tuple[str, dict[str, Any]]


def local(path: Path) -> Iterator[Opened]:
    yield str(path), {}


def memory(path: Path) -> Iterator[Opened]:
    fs = fsspec.filesystem("memory")
    fs.pipe(f"/mrcz/{path.name}", path.read_bytes())
    yield f"memory://mrcz/{path.name}", {}
    fs.rm("/mrcz", recursive=True)


def http(path: Path) -> Iterator[Opened]:
    with servers.http_server(path.parent) as server:
        yield server.url(path.name), {}


def s3(path: Path) -> Iterator[Opened]:
    with servers.s3_server() as bucket:
        yield bucket.put(path.name, path.read_bytes()), {"storage_options": bucket.storage_options}


@pytest.fixture(scope="module", params=["blosc1", pytest.param("blosc2", marks=needs_blosc2)])
def frames(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stores") / "frames.mrcz"
    return write(path, [*FRAMES], compressor="zstd", backend=request.param, meta={"a": [1]})


@pytest.fixture(scope="module", params=[local, memory, http, s3], ids=lambda store: store.__name__)
def stored(request: pytest.FixtureRequest, frames: Path) -> Iterator[Opened]:
    with contextlib.contextmanager(request.param)(frames) as found:
        yield found


def test_store_without_dask(stored: Opened) -> None:
    target, options = stored
    ds = xr.open_dataset(target, engine="mrc", **options)
    np.testing.assert_array_equal(ds.data[2, 1], FRAMES[2, 1])
    np.testing.assert_array_equal(ds.data[::-2, :, 3:9], FRAMES[::-2, :, 3:9])
    np.testing.assert_array_equal(ds.data, FRAMES)
    assert ds.mrc.metadata == {"a": [1]}


@any_chunks
@pytest.mark.parametrize("chunks", [{}, "auto", {"image": 1}])
@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_store_with_chunks(stored: Opened, chunks: Any, scheduler: str) -> None:
    target, options = stored
    ds = xr.open_dataset(target, engine="mrc", chunks=chunks, **options)
    np.testing.assert_array_equal(ds.data.compute(scheduler=scheduler), FRAMES)
    mean = ds.data.mean(["image", "channel"]).compute(scheduler=scheduler)
    np.testing.assert_allclose(mean, FRAMES.mean((0, 1)))


@any_chunks
def test_store_from_processes(stored: Opened, client: Client) -> None:
    target, options = stored
    if target.startswith("memory"):
        pytest.skip("each process has a memory of its own")
    ds = xr.open_dataset(target, engine="mrc", chunks={"image": 1}, **options)
    np.testing.assert_array_equal(client.compute(ds.data).result(), FRAMES)


def test_a_damaged_block_is_told_from_processes(path: Path, client: Client) -> None:
    write(path, counts((3, 48, 64)), compressor="zstd")
    raw = bytearray(path.read_bytes())
    start, nbytes = block_places(bytes(raw), 3)[1]
    raw[start + 32 : start + nbytes] = bytes(nbytes - 32)
    path.write_bytes(raw)
    ds = opened(path, chunks={})
    with pytest.raises(MrcError, match=f"section 1, at byte {start}: "):
        client.compute(ds.data).result()


def test_requests_grow_with_bytes_and_not_with_blocks(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(-128, 128, (1000, 100, 100), "i1")
    path = write(tmp_path / "many.mrcz", pixels, compressor="lz4")
    with servers.http_server(tmp_path) as server:
        ds = xr.open_dataset(server.url(path.name), engine="mrc")
        assert server.methods().count("GET") <= 2 + path.stat().st_size // MiB
        server.requests.clear()
        np.testing.assert_array_equal(ds.data[567], pixels[567])
        start, nbytes = block_places(path.read_bytes(), 1000)[567]
        assert server.gets() == [(start, start + nbytes)]


def test_walk_over_large_blocks_reads_their_headers_alone(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(-128, 128, (6, 1500, 1000), "i1")
    path = write(tmp_path / "large.mrcz", pixels, compressor="lz4")
    with servers.http_server(tmp_path) as server:
        xr.open_dataset(server.url(path.name), engine="mrc")
        assert server.methods().count("GET") <= 1 + len(pixels)
        assert server.nbytes() <= 64 * 1024 + 16 * len(pixels)


# command line -----------------------------------------------------------------------------------


@backends
@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_info(path: Path, capsys: pytest.CaptureFixture[str], backend: str, codec: str) -> None:
    frames = counts((4, 2, 48, 64), "u2")
    write(path, [*frames], compressor=codec, backend=backend)
    version = {"blosc1": 2, "blosc2": 5}[backend]
    assert main(["info", str(path)]) == 0
    ratio = frames.nbytes / (path.stat().st_size - 1024)
    expected = f"{codec}, chunk version {version}, ratio {ratio:.2f}, 8 blocks"
    assert expected in capsys.readouterr().out

    assert main(["info", "--json", str(path)]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["compression"] == {
        "codec": codec, "chunk_version": version, "blocks": 8, "ratio": pytest.approx(ratio),
    }  # fmt: skip


def test_info_of_one_image(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(path, counts((48, 64)), compressor="zlib")
    assert main(["info", str(path)]) == 0
    assert re.search(r"zlib, chunk version 2, ratio \d+\.\d\d, 1 block", capsys.readouterr().out)


def test_info_of_an_uncompressed_file(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(path, counts((3, 5, 7)))
    assert main(["info", "--json", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)[0]["compression"] is None
