"""Chunks of blosc as mrcz writes them, chunks that can't be decoded, and settings of blosc."""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import blosc
import by_hand
import mrcz
import numpy as np
import pytest
import xarray as xr
from mrcz_by_hand import PIXELS, Array, N, block_places, chunk, counts, needs_blosc2, put

from mrc_xarray import MrcError
from mrc_xarray.cli import main
from mrc_xarray.pixels import compression

backends = pytest.mark.parametrize(
    "backend", ["blosc1", pytest.param("blosc2", marks=needs_blosc2)]
)


def write(path: Path, data: Any, **options: Any) -> Path:
    mrcz.writeMRC(data, path, **options)
    return path


def opened(path: Path, **options: Any) -> xr.Dataset:
    return xr.open_dataset(path, engine="mrc", **options)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    # found by content and not by suffix
    return tmp_path / "movie.mrc"


# what mrcz writes -------------------------------------------------------------------------------


def assert_as_written(path: Path, pixels: Array, codec: str, backend: str, endian: str) -> None:
    write(path, pixels, compressor=codec, backend=backend, endian=endian)
    ds = opened(path)
    version = {"blosc1": 2, "blosc2": 5}[backend]
    assert path.read_bytes()[1024] == version
    assert ds.data.dims == ("image", "y", "x")
    assert ds.data.dtype == pixels.dtype
    np.testing.assert_array_equal(ds.data, mrcz.readMRC(path, endian=endian)[0])
    np.testing.assert_array_equal(ds.data, pixels)
    assert (ds.data.mrcz_codec, ds.data.mrcz_chunk_version) == (codec, version)


@backends
@pytest.mark.parametrize("endian", ["le", "be"])
@pytest.mark.parametrize("dtype", ["i1", "i2", "u2", "i4", "u4", "f4", "c8"])
def test_types_and_orders(path: Path, dtype: str, endian: str, backend: str) -> None:
    assert_as_written(path, counts((3, 48, 64), dtype), "zstd", backend, endian)


@backends
@pytest.mark.parametrize("codec", ["blosclz", "lz4", "lz4hc", "zlib"])
def test_codecs(path: Path, codec: str, backend: str) -> None:
    assert_as_written(path, counts((3, 48, 64), "f4"), codec, backend, "le")


@backends
def test_noise_and_constants(path: Path, backend: str) -> None:
    noise = np.random.default_rng(0).integers(0, 2**16, (3, 48, 64), "u2")
    assert_as_written(path, noise, "lz4", backend, "le")
    assert opened(path).data.attrs["mrcz_ratio"] < 1
    for value in (0, 7):
        assert_as_written(path, np.full((3, 48, 64), value, "i2"), "zstd", backend, "le")


@needs_blosc2
@pytest.mark.parametrize("dtype", ["i2", "f4", "c8"])
@pytest.mark.parametrize("shape", [(2, 5, 7), (2, 17, 23), (2, 63, 65)])
@pytest.mark.parametrize("n_threads", [1, 16])
def test_small_frames_by_blosc2_are_right_or_an_error(
    path: Path, dtype: str, shape: tuple[int, ...], n_threads: int
) -> None:
    """mrcz may cut the pixels of small frames apart, and blosc2 then decodes other values."""
    pixels = counts(shape, dtype)
    write(path, pixels, compressor="zstd", backend="blosc2", n_threads=n_threads)
    ds = opened(path)
    for k, (start, _) in enumerate(block_places(path.read_bytes(), len(pixels))):
        flags, typesize, _, blocksize = struct.unpack_from("<BBII", path.read_bytes(), start + 2)
        # uncompressed chunks can be cut anywhere
        if blocksize % typesize and not flags & 2:
            with pytest.raises(MrcError, match=f"section {k}, at byte {start}: "):
                ds.data[k].load()
        else:
            np.testing.assert_array_equal(ds.data[k], pixels[k])


@needs_blosc2
def test_codec_that_only_blosc2_has(path: Path) -> None:
    pixels = counts((3, 48, 64), "f4")
    write(path, pixels, compressor="zfp_acc")
    np.testing.assert_array_equal(opened(path).data, mrcz.readMRC(path)[0])
    assert opened(path).data.attrs["mrcz_codec"] == "zfp_acc"


def test_type_that_is_cast_while_writing(path: Path) -> None:
    """The chunks then have the type size of the pixels before the cast."""
    pixels = counts((2, 48, 64), "i2")
    ds = opened(write(path, pixels, compressor="zstd", dtype="f4"))
    np.testing.assert_array_equal(ds.data, pixels.astype("f4"))


@pytest.mark.parametrize("shape", [(4, 6, 8), (1, 3, 2), (3, 5, 10)])
def test_four_bits_of_mrcz(path: Path, shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 16, shape, "u1")
    ds = opened(write(path, pixels, dtype="uint4"))
    assert ds.mrc.header.mode == 101
    np.testing.assert_array_equal(ds.data.values.squeeze(), mrcz.readMRC(path)[0])
    np.testing.assert_array_equal(ds.data.values.reshape(shape), pixels)


# layouts and metadata ---------------------------------------------------------------------------


@pytest.mark.parametrize("compressor", [None, "zstd"])
def test_one_image(path: Path, compressor: str | None) -> None:
    pixels = counts((48, 64))
    ds = opened(write(path, pixels, compressor=compressor))
    assert ds.data.dims == ("y", "x")
    np.testing.assert_array_equal(ds.data, pixels)


@pytest.mark.parametrize("endian", ["le", "be"])
def test_list_of_stacks_has_channels(path: Path, endian: str) -> None:
    frames = [*counts((3, 2, 48, 64))]
    ds = opened(write(path, frames, compressor="zstd", endian=endian))
    assert ds.data.dims == ("image", "channel", "y", "x")
    np.testing.assert_array_equal(ds.data, mrcz.readMRC(path, endian=endian)[0])
    np.testing.assert_array_equal(ds.data, frames)
    np.testing.assert_array_equal(ds["section"], np.arange(6).reshape(3, 2))
    key = {"image": [2, 0], "channel": -1, "y": slice(4, 0, -2)}
    np.testing.assert_array_equal(ds.data.isel(key), np.stack(frames)[[2, 0], -1, 4:0:-2])


@pytest.mark.parametrize("units", ["\\AA", "nm", "pm", "\\mum"])
def test_pixel_size(path: Path, units: str) -> None:
    write(
        path, counts((3, 5, 7)), compressor="lz4", endian="be",
        pixelsize=[5.0, 2.5, 1.25], pixelunits=units,
    )  # fmt: skip
    ds = opened(path, layout="volume")
    angstroms = {"\\AA": 1, "nm": 10, "pm": 0.01, "\\mum": 1e4}[units]
    expected = {axis: n * angstroms for axis, n in zip("zyx", (5, 2.5, 1.25), strict=True)}
    assert ds.mrc.voxel_size == pytest.approx(expected, rel=1e-6)
    assert opened(path).mrc.voxel_size == pytest.approx(expected, rel=1e-6)


def test_pixel_size_of_channels(path: Path) -> None:
    write(path, [*counts((3, 2, 5, 7))], compressor="lz4", pixelsize=2.0)
    ds = opened(path, units="nm")
    assert ds.mrc.voxel_size == pytest.approx({"z": 2, "y": 2, "x": 2})
    np.testing.assert_allclose(ds["x"], np.arange(7) * 0.2, rtol=1e-6)


@pytest.mark.parametrize(("compressor", "endian"), [(None, "le"), ("zlib", "be")])
def test_voltage_c3_gain_and_metadata(path: Path, compressor: str | None, endian: str) -> None:
    meta = {"stage": {"x": [1.5, -2e-9], "by": None}, "text": "Å 试样", "n": list(range(20_000))}
    write(
        path, counts((2, 5, 7)), compressor=compressor, endian=endian,
        voltage=300.0, C3=2.7, gain=1.25, meta=meta,
    )  # fmt: skip
    ds = opened(path)
    found = [ds.data.attrs[key] for key in ("voltage_kV", "c3_mm", "gain_e_per_DN")]
    assert found == pytest.approx([300, 2.7, 1.25])
    assert ds.mrc.metadata == meta


def test_voltage_that_was_not_given_is_left_out(path: Path) -> None:
    attrs = opened(write(path, counts((2, 5, 7)), compressor="lz4")).data.attrs
    assert {"voltage_kV", "c3_mm"}.isdisjoint(attrs)


def test_info(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = counts((4, 2, 48, 64), "u2")
    write(path, [*frames], compressor="lz4")
    ratio = frames.nbytes / (path.stat().st_size - 1024)
    assert main(["info", str(path)]) == 0
    assert f"lz4, chunk version 2, ratio {ratio:.2f}, 8 blocks" in capsys.readouterr().out
    assert main(["info", "--json", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)[0]["compression"] == {
        "codec": "lz4", "chunk_version": 2, "blocks": 8, "ratio": pytest.approx(ratio),
    }  # fmt: skip
    write(path, frames[0])
    assert main(["info", "--json", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)[0]["compression"] is None


# what can't be decoded here ---------------------------------------------------------------------


def by_codec(path: Path, number: int, chunk_codec: int, version: int = 2) -> Path:
    """Write a file with a codec in MODE, and another in the flags of its one chunk."""
    block = bytearray(blosc.compress(bytes(48 * 64), 1, cname="zstd"))
    block[0] = version
    block[2] = block[2] & 0b11101 | chunk_codec << 5
    path.write_bytes(by_hand.header((1, 48, 64), 1000 * number, ispg=0) + block)
    return path


@pytest.mark.parametrize(
    ("number", "chunk_codec", "codec"), [(4, 2, "snappy"), (7, 6, "ndlz"), (8, 6, "zfp_acc")]
)
def test_codec_that_blosc_does_not_have(
    path: Path, number: int, chunk_codec: int, codec: str
) -> None:
    ds = opened(by_codec(path, number, chunk_codec))
    with pytest.raises(MrcError, match=rf"section 0, at byte 1024: .*{codec}.*install"):
        ds.data.load()


@pytest.mark.parametrize(("number", "chunk_codec", "codec"), [(6, 4, "zstd"), (7, 6, "ndlz")])
def test_version_5_without_blosc2(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int, chunk_codec: int, codec: str
) -> None:
    monkeypatch.setattr(compression, "_blosc2", lambda: None)
    ds = opened(by_codec(path, number, chunk_codec, version=5))
    with pytest.raises(MrcError, match=rf"section 0, .*version 5 \({codec}\).*install blosc2"):
        ds.data.load()


@needs_blosc2
@pytest.mark.parametrize(
    ("mode", "message"),
    [(7000, "ndlz.*pip install blosc2-ndlz"), (6000, "codec is not zstd, which MODE names")],
)
def test_plugin_that_is_not_installed(path: Path, mode: int, message: str) -> None:
    write(path, counts((1, 48, 64), "i1"), compressor="zstd", backend="blosc2")
    raw = bytearray(path.read_bytes())
    struct.pack_into("<i", raw, 12, mode)
    raw[1026] |= 7 << 5
    # the number of ndlz
    raw[1024 + 22] = 32
    path.write_bytes(raw)
    with pytest.raises(MrcError, match=message):
        opened(path).data.load()


def test_blosc2_is_not_needed_for_version_2(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "_blosc2", lambda: None)
    pixels = counts((2, 5, 7))
    np.testing.assert_array_equal(opened(write(path, pixels, compressor="zstd")).data, pixels)


@pytest.mark.slow
@pytest.mark.parametrize("version", [2, pytest.param(5, marks=needs_blosc2)])
def test_decoders_write_the_complete_section_and_nothing_else(version: int) -> None:
    """Blocks with random bytes decode, or are an MrcError, in the middle of a larger array."""
    rng, guard, n = np.random.default_rng(0), 4096, PIXELS[0].nbytes
    n_decoded = 0
    for _ in range(2000):
        block = chunk(PIXELS[int(rng.integers(N))], version)
        for _ in range(int(rng.integers(1, 6))):
            block[int(rng.integers(1, len(block)))] = int(rng.integers(256))
        put(block, "nbytes", n)
        put(block, "ctbytes", len(block))
        results = []
        for canary in (0xA5, 0x5A):
            buffer = np.full(n + 2 * guard, canary, np.uint8)
            out = buffer[guard : guard + n]
            with contextlib.suppress(MrcError):
                raw = np.frombuffer(block, np.uint8)
                compression.decode_block(raw, out, codec="zstd", where="a block")
                results.append(out.tobytes())
            assert (buffer[:guard] == canary).all()
            assert (buffer[guard + n :] == canary).all()
        if results:
            n_decoded += 1
            assert results[0] == results[1]
    assert n_decoded


# what is set for the complete process -----------------------------------------------------------


@pytest.fixture
def mrcz_threads() -> Iterator[Callable[[int], None]]:
    before = mrcz.ioMRC.DEFAULT_N_THREADS
    yield mrcz.setDefaultThreads
    mrcz.setDefaultThreads(before)


def test_settings_of_other_libraries_do_not_matter(path: Path, mrcz_threads: Any) -> None:
    pixels = counts((4, 48, 64))
    ds = opened(write(path, pixels, compressor="zstd"), cache=False)
    for release_gil in (False, True):
        before = blosc.set_releasegil(release_gil)
        try:
            mrcz_threads(2)
            np.testing.assert_array_equal(mrcz.readMRC(path)[0], pixels)
            np.testing.assert_array_equal(ds.data, pixels)
            assert blosc.nthreads == 1
        finally:
            blosc.set_releasegil(before)


@pytest.mark.slow
def test_mrcz_reads_at_the_same_time(path: Path, mrcz_threads: Any) -> None:
    pixels = counts((8, 256, 256))
    ds = opened(write(path, pixels, compressor="zstd"), cache=False)
    mrcz_threads(2)
    readers = [lambda: ds.data.values, lambda: mrcz.readMRC(path)[0]] * 8
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda read: read(), readers):
            np.testing.assert_array_equal(found, pixels)
