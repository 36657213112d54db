"""What is written as MRCZ is what mrcz would have written, and what mrcz reads."""

from __future__ import annotations

import enum
import json
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import blosc
import dask
import dask.array as da
import mrcfile
import mrcz
import numpy as np
import pytest
import rsciio.mrcz
import xarray as xr
from mrcz_by_hand import counts, needs_blosc2
from writes import (
    ORDERS,
    Array,
    check_pixels,
    check_statistics,
    fields,
    kinds,
    labelled,
    labels,
    opened,
    unwarned,
)

from mrc_xarray import MrcWarning, to_mrc

CODECS = {"blosclz": 1, "lz4": 2, "lz4hc": 3, "zlib": 5, "zstd": 6}
# what blosc writes into bits 5–7 of its flags
FORMATS = {"blosclz": 0, "lz4": 1, "lz4hc": 1, "zlib": 3, "zstd": 4}
MODES = {"i1": 0, "i2": 1, "f4": 2, "c8": 4, "u2": 6, "i4": 7, "u4": 8}
# mrcz's names
ENDIAN = {"little": "le", "big": "be"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "result.mrcz"


# a voxel of 2, 3 and 4 Å along x, y and z
VOXEL = {"x": 2.0, "y": 3.0, "z": 4.0}


class Chunk:
    """A blosc chunk's own header."""

    def __init__(self, raw: bytes, start: int) -> None:
        self.version, _, self.flags, self.typesize = raw[start : start + 4]
        self.nbytes, self.blocksize, self.ctbytes = struct.unpack_from("<III", raw, start + 4)
        self.raw = raw[start : start + self.ctbytes]


def chunks_of(path: Path, byteorder: str = "<") -> list[Chunk]:
    """Return the chunk of each section, after a check that the last one ends with the file."""
    raw = path.read_bytes()
    nz, nsymbt, packed = fields(path, "nz", "nsymbt", "packed_bytes", byteorder=byteorder)
    start, found = 1024 + nsymbt, []
    for _ in range(nz):
        found.append(Chunk(raw, start))
        start += found[-1].ctbytes
    assert start == len(raw)
    assert packed == len(raw) - 1024 - nsymbt
    return found


@pytest.mark.parametrize(
    ("dtype", "codec", "byteorder"),
    [(dtype, "zstd", "little") for dtype in MODES] + [("i2", codec, "big") for codec in CODECS],
)
@unwarned
def test_all_types_codecs_and_orders(path: Path, dtype: str, codec: str, byteorder: str) -> None:
    pixels = counts((3, 48, 64), dtype)
    order = ORDERS[byteorder]
    to_mrc(pixels, path, compressor=codec, byteorder=byteorder)
    assert fields(path, "mode", byteorder=order) == (1000 * CODECS[codec] + MODES[dtype],)
    for chunk, section in zip(chunks_of(path, order), pixels, strict=True):
        assert (chunk.version, chunk.typesize) == (2, pixels.itemsize)
        assert chunk.nbytes == section.nbytes
        assert chunk.flags >> 5 == FORMATS[codec]
        # bit-shuffled, and not byte-shuffled
        assert chunk.flags & 5 == 4
        stored = section.astype(section.dtype.newbyteorder(order))
        assert blosc.decompress(chunk.raw) == stored.tobytes()
    # mrcz would not guess the order for every codec
    found, header = mrcz.readMRC(path, endian=ENDIAN[byteorder])
    np.testing.assert_array_equal(found, pixels)
    assert (header["compressor"], header["backend"]) == (codec, "blosc1")
    ds = opened(path)
    assert ds.data.dtype == pixels.dtype
    np.testing.assert_array_equal(ds.data, pixels)


def test_higher_levels_are_smaller(tmp_path: Path) -> None:
    pixels = counts((2, 256, 256))
    sizes = []
    for clevel in (0, 1, 9):
        path = tmp_path / f"{clevel}.mrcz"
        to_mrc(pixels, path, clevel=clevel)
        sizes.append(path.stat().st_size)
    assert sizes[0] > pixels.nbytes > sizes[1] > sizes[2]


@pytest.mark.parametrize(
    "pixels",
    [
        np.random.default_rng(0).integers(0, 2**16, (3, 48, 64), "u2"),
        np.zeros((3, 48, 64), "i2"),
        counts((3, 1, 1)),
        counts((2, 5, 7), "c8"),
        counts((300, 2, 3)),
        counts((2, 1024, 1025), "f4"),
    ],
    ids=["noise", "zeros", "one pixel", "odd", "many", "large"],
)
def test_sections_of_any_kind(path: Path, pixels: Array) -> None:
    to_mrc(pixels, path)
    chunks_of(path)
    check_pixels(path, pixels)
    np.testing.assert_array_equal(opened(path, layout="volume").data, pixels)


@needs_blosc2
@pytest.mark.parametrize(
    ("codec", "dtype"),
    [
        ("blosclz", "i1"),
        ("lz4", "i2"),
        ("lz4hc", "f4"),
        ("zlib", "c8"),
        ("zstd", "i4"),
    ],
)
@unwarned
def test_version_5_on_request(path: Path, codec: str, dtype: str) -> None:
    pixels = counts((3, 48, 64), dtype)
    to_mrc(pixels, path, compressor=f"blosc2:{codec}")
    assert fields(path, "mode") == (1000 * CODECS[codec] + MODES[dtype],)
    assert [chunk.version for chunk in chunks_of(path)] == [5, 5, 5]
    found, header = mrcz.readMRC(path)
    np.testing.assert_array_equal(found, pixels)
    assert header["backend"] == "blosc2"
    np.testing.assert_array_equal(opened(path).data, pixels)


@needs_blosc2
@pytest.mark.parametrize(("shape", "dtype"), [((2, 17, 23), "c8"), ((2, 1, 1), "f4")])
def test_version_5_of_small_sections(path: Path, shape: Any, dtype: str) -> None:
    pixels = counts(shape, dtype)
    to_mrc(pixels, path, compressor="blosc2:zstd")
    np.testing.assert_array_equal(opened(path).data, pixels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compressor": "snappy"}, "snappy"),
        ({"compressor": "blosc2:gzip"}, "compressor is 'blosc2:gzip'"),
        ({"mode": 101}, "mode 101 can't be compressed"),
        ({"metadata": {"x": {1}}}, "the metadata can't be written as JSON"),
        ({"metadata": {1j: 2}}, "the metadata can't be written as JSON"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_mrc(np.zeros((3, 4, 6), "u1"), path, **options)
    assert not path.exists()


def test_unsigned_bytes(path: Path) -> None:
    """mrcz takes them for signed."""
    pixels = np.arange(240, dtype="u1").reshape(3, 8, 10)
    to_mrc(pixels, path, mode=0)
    assert opened(path).data.dtype == np.uint8
    np.testing.assert_array_equal(opened(path).data, pixels)
    np.testing.assert_array_equal(mrcz.readMRC(path)[0].view("u1"), pixels)


# the header -------------------------------------------------------------------------------------


# dimensions, shape → NX NY NZ, MX MY MZ, ISPG, CELLA, what mrcz makes of it
LAYOUTS = [
    (("y", "x"), (4, 5), (5, 4, 1), (5, 4, 0), 0, (10, 12), (4, 5)),
    (("image", "y", "x"), (3, 4, 5), (5, 4, 3), (5, 4, 0), 0, (10, 12), (3, 4, 5)),
    (("z", "y", "x"), (3, 4, 5), (5, 4, 3), (5, 4, 0), 1, (10, 12, 12), (3, 4, 5)),
    (("z", "y", "x"), (1, 4, 5), (5, 4, 1), (5, 4, 0), 1, (10, 12, 4), (4, 5)),
    (
        ("image", "channel", "y", "x"), (2, 3, 4, 5), (5, 4, 6), (5, 4, 3), 0, (10, 12),
        [(3, 4, 5)] * 2,
    ),
    (("scan_y", "scan_x", "y", "x"), (2, 3, 4, 5), (5, 4, 6), (5, 4, 0), 0, (10, 12), (6, 4, 5)),
    (("volume", "z", "y", "x"), (2, 3, 4, 5), (5, 4, 6), (5, 4, 3), 401, (10, 12, 12),
     [(3, 4, 5)] * 2),
]  # fmt: skip


@pytest.mark.parametrize(("dims", "shape", "n", "m", "ispg", "cella", "seen"), LAYOUTS)
def test_header_from_labels(
    path: Path, dims: Any, shape: Any, n: Any, m: Any, ispg: int, cella: Any, seen: Any,
) -> None:  # fmt: skip
    pixels = counts(shape)
    data = labelled(pixels, dims, VOXEL)
    to_mrc(data, path, byteorder="big")

    found = fields(path, "nx", "ny", "nz", "mx", "my", "mz", "ispg", byteorder=">")
    assert found == (*n, *m, ispg)
    assert fields(path, "cella", byteorder=">")[0][: len(cella)] == cella
    found = fields(path, "nversion", "map", "cellb", "mapc", "mapr", "maps", byteorder=">")
    assert found == (20141, b"MAP ", (90, 90, 90), 1, 2, 3)
    check_statistics(path, pixels, ">")
    chunks_of(path, ">")

    images, header = mrcz.readMRC(path, endian="be")
    shapes = [image.shape for image in images] if isinstance(images, list) else images.shape
    assert shapes == seen
    np.testing.assert_array_equal(np.reshape(images, shape), pixels)
    assert header["pixelsize"][1:] == pytest.approx([3, 2])
    if dims[0] == "z":
        assert header["pixelsize"][0] == pytest.approx(4)

    ds = opened(path)
    assert ds.data.dims == dims
    assert ds.mrc.voxel_size == {dim: VOXEL[str(dim)] for dim in data.coords}
    np.testing.assert_array_equal(ds.data, pixels)


@pytest.mark.parametrize(("units", "scale"), [("nm", 0.1), ("\\AA", 1)])
def test_mrcz_and_rosettasciio_see_the_pixel_size(path: Path, units: str, scale: float) -> None:
    pixels = counts((3, 4, 5))
    # rosettasciio reads no file without JSON
    to_mrc(labelled(pixels, voxel=VOXEL), path, metadata={"a": 1})
    _, header = mrcz.readMRC(path, pixelunits=units)
    assert header["pixelsize"] == pytest.approx(np.array([4, 3, 2]) * scale)
    (signal,) = rsciio.mrcz.file_reader(str(path))
    np.testing.assert_array_equal(signal["data"], pixels)
    assert [axis["scale"] for axis in signal["axes"]] == pytest.approx([0.4, 0.3, 0.2])


SCANS = [
    ("scan_y", "scan_x", "ky", "kx"),
    ("repeat", "scan_y", "scan_x", "y", "x"),
    ("scan_y", "scan_x", "point_repeat", "ky", "kx"),
    ("mine", "yours", "ky", "kx"),
]


@pytest.mark.parametrize("dims", SCANS, ids="-".join)
def test_rosettasciio_reads_a_scan_as_one_stack(path: Path, dims: tuple[str, ...]) -> None:
    pixels = counts((2, 3, 2, 4, 5)[-len(dims) :])
    to_mrc(xr.DataArray(pixels, dims=dims), path)
    (signal,) = rsciio.mrcz.file_reader(str(path))
    np.testing.assert_array_equal(signal["data"].reshape(pixels.shape), pixels)
    assert [axis["size"] for axis in signal["axes"]] == [pixels.size // 20, 4, 5]
    again = opened(path).data
    assert again.dims == dims
    np.testing.assert_array_equal(again, pixels)


def test_scan_of_earlier_versions(path: Path, tmp_path: Path) -> None:
    """Their MZ is the number of frames in a line, and their JSON has the scan as well."""
    dims, again = SCANS[0], tmp_path / "again.mrcz"
    scan = {"dims": dims, "shape": (2, 3, 4, 5), "coords": {}, "attrs": {"note": "stored"}}
    lines = counts((2, 3, 4, 5))
    mrcz.writeMRC([*lines], path, compressor="zstd", meta={"mrc_xarray": scan})
    assert fields(path, "mz") == (3,)
    data = opened(path).data
    assert data.dims == dims
    assert data.attrs["note"] == "stored"
    np.testing.assert_array_equal(data, lines)
    to_mrc(data, again)
    np.testing.assert_array_equal(mrcz.readMRC(again)[0], lines.reshape(6, 4, 5))
    assert opened(again).data.dims == dims


@kinds
def test_voltage_c3_and_gain(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"result{suffix}"
    to_mrc(
        counts((3, 4, 5)), path, compressor="lz4", voltage=300, c3=2.7, gain=1.25,
        byteorder="big",
    )  # fmt: skip
    found = fields(path, "voltage", "c3", "gain", byteorder=">")
    assert found == pytest.approx((300, 2.7, 1.25))
    _, header = mrcz.readMRC(path, endian="be")
    assert [header[key] for key in ("voltage", "C3", "gain")] == list(found)
    attrs = opened(path).data.attrs
    assert [attrs[key] for key in ("voltage_kV", "c3_mm", "gain_e_per_DN")] == list(found)


def test_voltage_is_carried_over_and_overridden(path: Path, tmp_path: Path) -> None:
    source = tmp_path / "source.mrcz"
    mrcz.writeMRC(counts((3, 4, 5)), source, compressor="lz4", voltage=200.0, C3=1.5, gain=2.0)
    to_mrc(opened(source).data + 1, path, gain=3)
    assert fields(path, "voltage", "c3", "gain") == (200, 1.5, 3)


def test_only_an_mrcz_has_the_mrcz_label(path: Path, tmp_path: Path) -> None:
    source, plain = tmp_path / "source.mrcz", tmp_path / "plain.mrc"
    mrcz.writeMRC(counts((3, 4, 5)), source, compressor="lz4")
    to_mrc(opened(source), plain)
    assert not any(label.startswith("MRCZ") for label in labels(plain))
    to_mrc(opened(plain), path)
    again = tmp_path / "again.mrcz"
    to_mrc(opened(path), again)
    assert [label for label in labels(again) if label.startswith("MRCZ")] == ["MRCZ0.6.0"]


@kinds
def test_layouts_from_mrcz_and_back(tmp_path: Path, suffix: str) -> None:
    """mrcz reads the same from the copy of a file that it wrote."""
    for name, given in {
        "array": counts((3, 4, 5)),
        "channels": [*counts((3, 2, 4, 5))],
    }.items():
        source, path = tmp_path / f"{name} source.mrcz", tmp_path / f"{name}{suffix}"
        mrcz.writeMRC(given, source, compressor="zstd", pixelsize=[3.0, 2.0, 1.0], pixelunits="nm")
        to_mrc(opened(source), path, compressor="lz4")
        found, header = mrcz.readMRC(path)
        assert type(found) is type(given)
        np.testing.assert_array_equal(found, given)
        assert header["pixelsize"][1:] == pytest.approx([20, 10])


# metadata ---------------------------------------------------------------------------------------


class Axis(enum.Enum):
    X = 1


METADATA: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nested": ({"stage": {"x": [1.5, -2e-9], "by": None}, "ok": True}, {}),
    "unicode": ({"text": "Å 试样 🔬", "Ångström": 1}, {}),
    "numpy": (
        {"shifts": np.arange(6.0).reshape(2, 3), "n": np.int32(3), "x": np.float32(0.5)},
        {"shifts": [[0, 1, 2], [3, 4, 5]], "n": 3, "x": 0.5},
    ),
    "enum": ({"axis": Axis.X}, {"axis": "Enum.Axis.X"}),
    "over 64 KiB": ({"dose": list(range(20_000)), "last": "here"}, {}),
}


@pytest.mark.parametrize("name", METADATA)
@kinds
def test_metadata(tmp_path: Path, name: str, suffix: str) -> None:
    given, stored = METADATA[name]
    stored = stored or given
    pixels = counts((3, 4, 5))
    path = tmp_path / f"result{suffix}"
    to_mrc(pixels, path, metadata=given)
    exttyp, nsymbt = fields(path, "exttyp", "nsymbt")
    assert exttyp == b"json"
    text = json.loads(path.read_bytes()[1024 : 1024 + nsymbt].decode("utf-8"))
    assert {key: text[key] for key in stored} == stored
    found, header = mrcz.readMRC(path, slices=0)
    np.testing.assert_array_equal(found, pixels)
    assert {key: header[key] for key in stored} == stored
    metadata = opened(path).mrc.metadata
    assert {key: metadata[key] for key in stored} == stored
    if suffix == ".mrc":
        np.testing.assert_array_equal(mrcfile.read(path), pixels)


def test_metadata_are_merged_over_the_sources(path: Path, tmp_path: Path) -> None:
    source = tmp_path / "source.mrcz"
    mrcz.writeMRC(counts((3, 4, 5)), source, compressor="lz4", meta={"a": 1, "b": {"c": 2}})
    to_mrc(opened(source).data + 1, path, metadata={"b": 3, "d": [4]})
    _, header = mrcz.readMRC(path)
    assert (header["a"], header["b"], header["d"]) == (1, 3, [4])
    again = path.with_name("again.mrcz")
    to_mrc(opened(path), again)
    metadata = opened(again).mrc.metadata
    assert (metadata["a"], metadata["b"], metadata["d"]) == (1, 3, [4])


def test_extended_header_by_argument_replaces_json(tmp_path: Path) -> None:
    source, path = tmp_path / "a.mrcz", tmp_path / "b.mrcz"
    pixels = np.arange(60, dtype="i2").reshape(3, 4, 5)
    to_mrc(pixels, source, metadata={"who": "me"})
    with pytest.warns(MrcWarning, match="metadata"):
        to_mrc(xr.open_dataarray(source, engine="mrc"), path, extended_header=("CCP4", b"X" * 80))
    assert path.read_bytes()[1024:1104] == b"X" * 80
    np.testing.assert_array_equal(mrcz.readMRC(str(path))[0], pixels)


# order and settings -----------------------------------------------------------------------------


def test_sections_are_in_order_whatever_finishes_first(path: Path) -> None:
    pixels = counts((24, 16, 16))
    pixels[:, 0, 0] = range(24)
    done = [threading.Event() for _ in pixels]

    def late(part: Array, block_info: Any = None) -> Array:
        k = block_info[0]["chunk-location"][0]
        if k % 2 == 0:
            # the odd block after this one is ready first, if another thread computes it
            done[k + 1].wait(0.05)
        done[k].set()
        return part

    lazy = da.from_array(pixels, chunks=(1, -1, -1)).map_blocks(late, meta=pixels[:0])
    to_mrc(lazy, path)
    np.testing.assert_array_equal(mrcz.readMRC(path)[0], pixels)


@pytest.mark.parametrize("chunks", [(1, -1, -1), (3, 5, 7)])
def test_bytes_do_not_depend_on_chunks(path: Path, tmp_path: Path, chunks: Any) -> None:
    pixels = counts((7, 20, 30))
    to_mrc(pixels, path)
    other = tmp_path / "other.mrcz"
    to_mrc(da.from_array(pixels, chunks=chunks), other)
    # all but the statistics, whose last bits depend on the order of adding
    raws = [bytearray(p.read_bytes()) for p in (path, other)]
    for raw in raws:
        raw[84:88] = raw[216:220] = bytes(4)
        raw[224:1024] = bytes(800)
    assert raws[0] == raws[1]


def test_threads_and_block_size_that_mrcz_sets(path: Path) -> None:
    before = blosc.set_nthreads(2)
    try:
        blosc.set_blocksize(4096)
        pixels = counts((6, 256, 256), "f4")
        lazy = da.from_array(pixels, chunks=(1, -1, -1))
        to_mrc(lazy, path)
        np.testing.assert_array_equal(mrcz.readMRC(path)[0], pixels)
    finally:
        blosc.set_blocksize(0)
        blosc.set_nthreads(before)


def test_several_files_are_written_at_the_same_time(tmp_path: Path) -> None:
    """Threads of a pool and delayed writes do what mrcz's asyncWriteMRC does."""
    arrays = [counts((9, 40, 60), dtype) for dtype in ("i2", "f4", "i1", "u2", "c8")]
    names = [f"{i}.mrcz" for i in range(len(arrays))]
    with ThreadPoolExecutor(4) as pool:
        started = [
            pool.submit(to_mrc, da.from_array(a, (2, -1, -1)), tmp_path / name, clevel=5 - i % 3)
            for i, (name, a) in enumerate(zip(names, arrays, strict=True))
        ]
        there = mrcz.asyncWriteMRC(arrays[0], tmp_path / "there.mrcz", compressor="zstd")
        assert [future.result() for future in started] == [None] * len(arrays)
    there.result()
    check_pixels(tmp_path / "there.mrcz", arrays[0])
    delayed = [
        to_mrc(a, tmp_path / f"d{n}", compute=False) for n, a in zip(names, arrays, strict=True)
    ]
    dask.compute(*delayed)
    for name, array in zip(names, arrays, strict=True):
        check_pixels(tmp_path / name, array)
        check_pixels(tmp_path / f"d{name}", array)
        if array.dtype.kind != "c":
            check_statistics(tmp_path / name, array)
