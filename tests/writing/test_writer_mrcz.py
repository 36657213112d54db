"""What is written as MRCZ is what mrcz would have written, and what mrcz reads."""

from __future__ import annotations

import enum
import importlib.util
import io
import json
import struct
import warnings
from pathlib import Path
from typing import Any

import blosc
import by_hand
import dask.array as da
import mrcfile
import mrcz
import numpy as np
import pytest
import rsciio.mrcz
import xarray as xr

import mrc_xarray
from mrc_xarray import MrcError, MrcWarning

Array = np.ndarray[Any, Any]

CODECS = {"blosclz": 1, "lz4": 2, "lz4hc": 3, "zlib": 5, "zstd": 6}
# what blosc writes into bits 5–7 of its flags
FORMATS = {"blosclz": 0, "lz4": 1, "lz4hc": 1, "zlib": 3, "zstd": 4}
MODES = {"i1": 0, "i2": 1, "f4": 2, "c8": 4, "u2": 6, "i4": 7, "u4": 8}
ORDERS = {"little": "<", "big": ">"}
# mrcz's names
ENDIAN = {"little": "le", "big": "be"}

needs_blosc2 = pytest.mark.skipif(
    importlib.util.find_spec("blosc2") is None, reason="chunks of version 5 need blosc2"
)
# where another test looks at warnings
unwarned = pytest.mark.filterwarnings("ignore::mrc_xarray.MrcWarning")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "result.mrcz"


def counts(shape: tuple[int, ...], dtype: str = "i2") -> Array:
    """Return what a counting camera sees, with negative and imaginary parts where there can be."""
    pixels = np.random.default_rng(5).poisson(2, shape).astype(dtype)
    if pixels.dtype.kind in "ifc":
        pixels[..., ::3] *= -1
    if pixels.dtype.kind == "c":
        pixels[..., ::2] *= 1j
    return pixels


def labelled(pixels: Any, dims: tuple[str, ...], units: str = "angstrom") -> xr.DataArray:
    """Label with a voxel of 2, 3 and 4 along x, y and z."""
    voxel = {"x": 2.0, "y": 3.0, "z": 4.0}
    coords = {
        dim: (dim, voxel[dim] * np.arange(n), {"units": units})
        for dim, n in zip(dims, pixels.shape, strict=True)
        if dim in voxel
    }
    return xr.DataArray(pixels, coords, dims)


def opened(path: Path, **options: Any) -> xr.Dataset:
    return xr.open_dataset(path, engine="mrc", **options)


def fields(path: Path, *names: str, byteorder: str = "<") -> list[Any]:
    """Return header fields from their bytes."""
    found = []
    for name in names:
        offset, code = by_hand.FIELDS[name]
        values = struct.unpack_from(byteorder + code, path.read_bytes(), offset)
        found.append(values[0] if len(values) == 1 else values)
    return found


def labels(path: Path) -> list[str]:
    raw = path.read_bytes()
    texts = [raw[at : at + 80].rstrip(b" \0").decode() for at in range(224, 1024, 80)]
    (n,) = fields(path, "nlabl")
    assert all(texts[:n])
    assert not any(texts[n:])
    return texts[:n]


class Chunk:
    """A blosc chunk's own header."""

    def __init__(self, raw: bytes, start: int) -> None:
        self.version, _, self.flags, self.typesize = raw[start : start + 4]
        self.nbytes, self.blocksize, self.ctbytes = struct.unpack_from("<III", raw, start + 4)
        self.raw = raw[start : start + self.ctbytes]


def chunks_of(path: Path, byteorder: str = "<") -> list[Chunk]:
    """Walk over the sections' chunks, which must end where the file does."""
    raw = path.read_bytes()
    nz, nsymbt, packed = fields(path, "nz", "nsymbt", "packed_bytes", byteorder=byteorder)
    start, found = 1024 + nsymbt, []
    for _ in range(nz):
        found.append(Chunk(raw, start))
        start += found[-1].ctbytes
    assert start == len(raw)
    assert packed == len(raw) - 1024 - nsymbt
    return found


def read_by_mrcz(path: Path, **options: Any) -> tuple[Any, dict[str, Any]]:
    found: tuple[Any, dict[str, Any]] = mrcz.readMRC(path, **options)
    return found


# chunks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", MODES)
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("byteorder", ORDERS)
@unwarned
def test_all_types_codecs_and_orders(path: Path, dtype: str, codec: str, byteorder: str) -> None:
    pixels = counts((3, 48, 64), dtype)
    order = ORDERS[byteorder]
    mrc_xarray.to_mrc(pixels, path, compressor=codec, byteorder=byteorder)
    (mode,) = fields(path, "mode", byteorder=order)
    assert mode == 1000 * CODECS[codec] + MODES[dtype]
    for chunk, section in zip(chunks_of(path, order), pixels, strict=True):
        assert (chunk.version, chunk.typesize) == (2, pixels.itemsize)
        assert chunk.nbytes == section.nbytes
        assert chunk.flags >> 5 == FORMATS[codec]
        # bit-shuffled, and not byte-shuffled
        assert chunk.flags & 5 == 4
        stored = section.astype(section.dtype.newbyteorder(order))
        assert blosc.decompress(chunk.raw) == stored.tobytes()
    # it would not guess the order of every codec's MODE
    found, header = read_by_mrcz(path, endian=ENDIAN[byteorder])
    np.testing.assert_array_equal(found, pixels)
    assert (header["compressor"], header["backend"]) == (codec, "blosc1")
    ds = opened(path)
    assert ds.data.dtype == pixels.dtype
    np.testing.assert_array_equal(ds.data, pixels)


@pytest.mark.parametrize(
    ("name", "compressor", "codec"),
    [
        ("a.mrcz", "auto", 6), ("a.MRCZ", "auto", 6), ("a.mrc", "auto", 0), ("a.mrcs", "auto", 0),
        ("a.map", "auto", 0), ("a", "auto", 0), ("a.mrcz", None, 0), ("a.mrc", "lz4", 2),
        ("a.rec", "zstd", 6),
    ],
)  # fmt: skip
@unwarned
def test_suffix_and_compressor(
    tmp_path: Path, name: str, compressor: str | None, codec: int
) -> None:
    pixels = counts((3, 48, 64))
    path = tmp_path / name
    mrc_xarray.to_mrc(pixels, path, compressor=compressor)
    assert fields(path, "mode") == [1000 * codec + 1]
    np.testing.assert_array_equal(opened(path).data, pixels)
    if codec:
        np.testing.assert_array_equal(read_by_mrcz(path)[0], pixels)
    else:
        np.testing.assert_array_equal(mrcfile.read(path), pixels)


@pytest.mark.parametrize("clevel", range(10))
@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_levels(path: Path, clevel: int, codec: str) -> None:
    pixels = counts((2, 48, 64))
    mrc_xarray.to_mrc(pixels, path, compressor=codec, clevel=clevel)
    assert [chunk.version for chunk in chunks_of(path)] == [2, 2]
    np.testing.assert_array_equal(read_by_mrcz(path)[0], pixels)
    np.testing.assert_array_equal(opened(path).data, pixels)


def test_higher_levels_are_smaller(tmp_path: Path) -> None:
    pixels = counts((2, 256, 256))
    sizes = []
    for clevel in (0, 1, 9):
        path = tmp_path / f"{clevel}.mrcz"
        mrc_xarray.to_mrc(pixels, path, clevel=clevel)
        sizes.append(path.stat().st_size)
    assert sizes[0] > pixels.nbytes > sizes[1] > sizes[2]


def test_not_much_larger_than_by_mrcz(path: Path, tmp_path: Path) -> None:
    pixels = counts((3, 512, 512), "i1")
    mrc_xarray.to_mrc(pixels, path)
    mrcz.writeMRC(pixels, tmp_path / "other.mrcz", compressor="zstd", clevel=1)
    assert path.stat().st_size < 1.2 * (tmp_path / "other.mrcz").stat().st_size


@pytest.mark.parametrize(
    "pixels",
    [
        np.random.default_rng(0).integers(0, 2**16, (3, 48, 64), "u2"),
        np.zeros((3, 48, 64), "i2"),
        np.full((3, 48, 64), 7, "f4"),
        counts((3, 1, 1)),
        counts((2, 5, 7), "c8"),
        counts((300, 2, 3)),
        counts((2, 1024, 1025), "f4"),
    ],
    ids=["noise", "zeros", "constant", "one pixel", "odd", "many", "large"],
)
@pytest.mark.parametrize("codec", CODECS)
def test_sections_of_any_kind(path: Path, pixels: Array, codec: str) -> None:
    mrc_xarray.to_mrc(pixels, path, compressor=codec)
    chunks_of(path)
    found, _ = read_by_mrcz(path)
    np.testing.assert_array_equal(np.reshape(found, pixels.shape), pixels)
    np.testing.assert_array_equal(opened(path, layout="volume").data, pixels)


@needs_blosc2
@pytest.mark.parametrize("codec", ["blosclz", "lz4", "lz4hc", "zlib", "zstd"])
@pytest.mark.parametrize("dtype", MODES)
@unwarned
def test_version_5_on_request(path: Path, codec: str, dtype: str) -> None:
    pixels = counts((3, 48, 64), dtype)
    mrc_xarray.to_mrc(pixels, path, compressor=f"blosc2:{codec}")
    assert fields(path, "mode") == [1000 * CODECS[codec] + MODES[dtype]]
    assert [chunk.version for chunk in chunks_of(path)] == [5, 5, 5]
    found, header = read_by_mrcz(path)
    np.testing.assert_array_equal(found, pixels)
    assert header["backend"] == "blosc2"
    np.testing.assert_array_equal(opened(path).data, pixels)


@needs_blosc2
@pytest.mark.parametrize("shape", [(2, 5, 7), (2, 17, 23), (2, 63, 65), (2, 1, 1)])
@pytest.mark.parametrize("dtype", ["f4", "c8"])
def test_version_5_of_small_sections(path: Path, shape: Any, dtype: str) -> None:
    pixels = counts(shape, dtype)
    mrc_xarray.to_mrc(pixels, path, compressor="blosc2:zstd")
    np.testing.assert_array_equal(opened(path).data, pixels)


@pytest.mark.parametrize("compressor", ["snappy", "gzip", "", "blosc2:", "blosc2:gzip", "none"])
def test_unknown_compressors_are_refused(path: Path, compressor: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=r"compressor|snappy"):
        mrc_xarray.to_mrc(counts((3, 4, 5)), path, compressor=compressor)
    assert not path.exists()


@pytest.mark.parametrize("clevel", [-1, 10])
def test_bad_levels_are_refused(path: Path, clevel: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="clevel"):
        mrc_xarray.to_mrc(counts((3, 4, 5)), path, clevel=clevel)
    assert not path.exists()


def test_four_bits_are_not_compressed(path: Path) -> None:
    with pytest.raises(MrcError, match="101"):
        mrc_xarray.to_mrc(np.zeros((3, 4, 6), "u1"), path, mode=101)
    assert not path.exists()


@pytest.mark.parametrize(("nx", "oracle"), [(6, True), (7, False)])
def test_four_bits_uncompressed(path: Path, nx: int, oracle: bool) -> None:
    """Odd rows are not for mrcz."""
    pixels = np.random.default_rng(0).integers(0, 16, (3, 4, nx), "u1")
    mrc_xarray.to_mrc(pixels, path, mode=101, compressor=None)
    assert path.read_bytes()[1024:] == by_hand.pack_4bit(pixels).tobytes()
    np.testing.assert_array_equal(opened(path, layout="volume").data, pixels)
    if oracle:
        np.testing.assert_array_equal(read_by_mrcz(path, slices=0)[0], pixels)


def test_unsigned_bytes(path: Path) -> None:
    """mrcz takes them for signed."""
    pixels = np.arange(240, dtype="u1").reshape(3, 8, 10)
    mrc_xarray.to_mrc(pixels, path, mode=0)
    assert opened(path).data.dtype == np.uint8
    np.testing.assert_array_equal(opened(path).data, pixels)
    np.testing.assert_array_equal(read_by_mrcz(path)[0].view("u1"), pixels)


@unwarned
@pytest.mark.parametrize(("dtype", "mode"), [("f2", None), ("c8", 3)])
def test_modes_that_mrcz_does_not_know(path: Path, dtype: str, mode: int | None) -> None:
    pixels = counts((3, 8, 10), dtype)
    mrc_xarray.to_mrc(pixels, path, mode=mode)
    np.testing.assert_array_equal(opened(path).data, pixels)


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
    (("volume", "z", "y", "x"), (2, 3, 4, 5), (5, 4, 6), (5, 4, 3), 401, (10, 12, 12),
     [(3, 4, 5)] * 2),
]  # fmt: skip


@pytest.mark.parametrize(("dims", "shape", "n", "m", "ispg", "cella", "seen"), LAYOUTS)
@pytest.mark.parametrize("byteorder", ORDERS)
@pytest.mark.parametrize("chunked", [False, True])
def test_header_from_labels(
    path: Path, dims: Any, shape: Any, n: Any, m: Any, ispg: int, cella: Any, seen: Any,
    byteorder: str, chunked: bool,
) -> None:  # fmt: skip
    pixels = counts(shape)
    data = labelled(pixels, dims)
    if shape[0] == 1:
        data["z"].attrs["spacing"] = 4.0
    data = data.chunk({dims[0]: 1, "y": 3}) if chunked else data
    order = ORDERS[byteorder]
    mrc_xarray.to_mrc(data, path, byteorder=byteorder)

    found = fields(path, "nx", "ny", "nz", "mx", "my", "mz", "ispg", byteorder=order)
    assert tuple(found) == (*n, *m, ispg)
    (cell,) = fields(path, "cella", byteorder=order)
    assert cell[: len(cella)] == cella
    found = fields(path, "nversion", "map", "cellb", "mapc", "mapr", "maps", byteorder=order)
    assert found == [20141, b"MAP ", (90, 90, 90), 1, 2, 3]
    assert path.read_bytes()[212:214] == by_hand.STAMPS[order][:2]
    assert fields(path, "dmin", "dmax", "dmean", "rms", byteorder=order) == pytest.approx(
        [pixels.min(), pixels.max(), pixels.mean(), pixels.std()]
    )
    chunks_of(path, order)

    images, header = read_by_mrcz(path, endian=ENDIAN[byteorder])
    if isinstance(seen, list):
        assert isinstance(images, list)
        assert [image.shape for image in images] == seen
    else:
        assert images.shape == seen
    np.testing.assert_array_equal(np.reshape(images, shape), pixels)
    assert header["pixelsize"][1:] == pytest.approx([3, 2])
    if dims[0] == "z":
        assert header["pixelsize"][0] == pytest.approx(4)

    ds = opened(path)
    assert ds.data.dims == dims
    assert ds.mrc.voxel_size == {dim: {"x": 2, "y": 3, "z": 4}[dim] for dim in data.coords}
    np.testing.assert_array_equal(ds.data, pixels)


# MZ is 0
@pytest.mark.filterwarnings("ignore:.* in divide:RuntimeWarning")
@pytest.mark.parametrize("dims", [("image", "y", "x"), ("z", "y", "x")])
def test_mrcfile_sees_the_voxel_size(path: Path, dims: Any) -> None:
    mrc_xarray.to_mrc(labelled(counts((3, 4, 5)), dims, "nm"), path)
    with mrcfile.open(path, header_only=True) as mrc:
        assert (mrc.voxel_size.x, mrc.voxel_size.y) == (20, 30)


@pytest.mark.parametrize(("units", "scale"), [("nm", 0.1), ("pm", 100), ("\\AA", 1)])
def test_mrcz_and_rosettasciio_see_the_pixel_size(path: Path, units: str, scale: float) -> None:
    pixels = counts((3, 4, 5))
    # rosettasciio reads no file without JSON
    mrc_xarray.to_mrc(labelled(pixels, ("z", "y", "x")), path, metadata={"a": 1})
    _, header = read_by_mrcz(path, pixelunits=units)
    assert header["pixelsize"] == pytest.approx(np.array([4, 3, 2]) * scale)
    (signal,) = rsciio.mrcz.file_reader(str(path))
    np.testing.assert_array_equal(signal["data"], pixels)
    assert [axis["scale"] for axis in signal["axes"]] == pytest.approx([0.4, 0.3, 0.2])


@pytest.mark.parametrize("byteorder", ORDERS)
@pytest.mark.parametrize("suffix", [".mrcz", ".mrc"])
def test_voltage_c3_and_gain(tmp_path: Path, byteorder: str, suffix: str) -> None:
    path = tmp_path / f"result{suffix}"
    mrc_xarray.to_mrc(
        counts((3, 4, 5)), path, compressor="lz4", voltage=300, c3=2.7, gain=1.25,
        byteorder=byteorder,
    )  # fmt: skip
    found = fields(path, "voltage", "c3", "gain", byteorder=ORDERS[byteorder])
    assert found == pytest.approx([300, 2.7, 1.25])
    _, header = read_by_mrcz(path, endian=ENDIAN[byteorder])
    assert [header[key] for key in ("voltage", "C3", "gain")] == found
    attrs = opened(path).data.attrs
    assert [attrs[key] for key in ("voltage_kV", "c3_mm", "gain_e_per_DN")] == found


def test_what_was_not_given_is_zero(path: Path) -> None:
    mrc_xarray.to_mrc(counts((3, 4, 5)), path)
    assert fields(path, "voltage", "c3") == [0, 0]
    assert {"voltage_kV", "c3_mm"}.isdisjoint(opened(path).data.attrs)


def test_voltage_is_carried_over_and_overridden(path: Path, tmp_path: Path) -> None:
    source = tmp_path / "source.mrcz"
    mrcz.writeMRC(counts((3, 4, 5)), source, compressor="lz4", voltage=200.0, C3=1.5, gain=2.0)
    data = (opened(source, chunks={}).data + 1).compute()
    mrc_xarray.to_mrc(data, path, gain=3)
    assert fields(path, "voltage", "c3", "gain") == [200, 1.5, 3]


def test_mrcz_label_is_the_first(path: Path) -> None:
    mrc_xarray.to_mrc(counts((3, 4, 5)), path, labels=["mine"])
    found = labels(path)
    assert found[0] == "MRCZ0.6.0"
    assert "mine" in found
    assert any(label.startswith("mrc_xarray ") for label in found)


def test_mrcz_label_is_of_an_mrcz_alone(path: Path, tmp_path: Path) -> None:
    source, plain = tmp_path / "source.mrcz", tmp_path / "plain.mrc"
    mrcz.writeMRC(counts((3, 4, 5)), source, compressor="lz4")
    mrc_xarray.to_mrc(opened(source), plain)
    assert not any(label.startswith("MRCZ") for label in labels(plain))
    mrc_xarray.to_mrc(opened(plain), path)
    again = tmp_path / "again.mrcz"
    mrc_xarray.to_mrc(opened(path), again)
    assert [label for label in labels(again) if label.startswith("MRCZ")] == ["MRCZ0.6.0"]


def test_old_labels_follow(path: Path, tmp_path: Path) -> None:
    source = tmp_path / "source.mrc"
    source.write_bytes(by_hand.mrc(counts((3, 4, 5)), labels=(b"first", b"second")))
    mrc_xarray.to_mrc(opened(source), path)
    assert labels(path)[:3] == ["MRCZ0.6.0", "first", "second"]


@unwarned
def test_ten_old_labels_leave_room(path: Path, tmp_path: Path) -> None:
    source = tmp_path / "source.mrc"
    old = tuple(b"old %d" % k for k in range(10))
    source.write_bytes(by_hand.mrc(counts((3, 4, 5)), labels=old))
    mrc_xarray.to_mrc(opened(source), path)
    found = labels(path)
    assert len(found) == 10
    assert found[0] == "MRCZ0.6.0"
    np.testing.assert_array_equal(read_by_mrcz(path)[0], counts((3, 4, 5)))


@pytest.mark.parametrize("suffix", [".mrc", ".mrcz"])
def test_layouts_from_mrcz_and_back(tmp_path: Path, suffix: str) -> None:
    """What mrcz wrote is written so that mrcz returns it as before."""
    for name, given in {
        "array": counts((3, 4, 5)),
        "channels": [*counts((3, 2, 4, 5))],
    }.items():
        source, path = tmp_path / f"{name} source.mrcz", tmp_path / f"{name}{suffix}"
        mrcz.writeMRC(given, source, compressor="zstd", pixelsize=[3.0, 2.0, 1.0], pixelunits="nm")
        mrc_xarray.to_mrc(opened(source), path, compressor="lz4")
        found, header = read_by_mrcz(path)
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
@pytest.mark.parametrize("byteorder", ORDERS)
@pytest.mark.parametrize("suffix", [".mrcz", ".mrc"])
def test_metadata(tmp_path: Path, name: str, byteorder: str, suffix: str) -> None:
    given, stored = METADATA[name]
    stored = stored or given
    pixels = counts((3, 4, 5))
    path = tmp_path / f"result{suffix}"
    mrc_xarray.to_mrc(pixels, path, metadata=given, byteorder=byteorder)

    order = ORDERS[byteorder]
    exttyp, nsymbt = fields(path, "exttyp", "nsymbt", byteorder=order)
    assert exttyp == b"json"
    text = json.loads(path.read_bytes()[1024 : 1024 + nsymbt].decode("utf-8"))
    assert {key: text[key] for key in stored} == stored
    found, header = read_by_mrcz(path, slices=0, endian=ENDIAN[byteorder])
    np.testing.assert_array_equal(found, pixels)
    assert {key: header[key] for key in stored} == stored
    metadata = opened(path).mrc.metadata
    assert {key: metadata[key] for key in stored} == stored
    if suffix == ".mrc":
        np.testing.assert_array_equal(mrcfile.read(path), pixels)


@pytest.mark.parametrize("bad", [{"x": object()}, {1j: 2}, "text", ["a"], 5])
def test_bad_metadata_are_refused(path: Path, bad: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=r"."):
        mrc_xarray.to_mrc(counts((3, 4, 5)), path, metadata=bad)
    assert not path.exists()


def test_metadata_are_merged_over_the_sources(path: Path, tmp_path: Path) -> None:
    source = tmp_path / "source.mrcz"
    mrcz.writeMRC(counts((3, 4, 5)), source, compressor="lz4", meta={"a": 1, "b": {"c": 2}})
    data = (opened(source, chunks={}).data + 1).compute()
    mrc_xarray.to_mrc(data, path, metadata={"b": 3, "d": [4]})
    _, header = read_by_mrcz(path)
    assert (header["a"], header["b"], header["d"]) == (1, 3, [4])
    again = path.with_name("again.mrcz")
    mrc_xarray.to_mrc(opened(path), again)
    metadata = opened(again).mrc.metadata
    assert (metadata["a"], metadata["b"], metadata["d"]) == (1, 3, [4])


def own(path: Path) -> str:
    """Return the JSON of ours in mrcz's metadata, as text."""
    text: str = json.dumps(read_by_mrcz(path)[1]["mrc_xarray"])
    return text


def test_what_mrc_can_not_hold_is_in_the_json(path: Path) -> None:
    """And so draws no warning."""
    pixels = counts((3, 4, 5))
    data = labelled(pixels, ("tilt_angle", "y", "x")).assign_coords(
        tilt_angle=("tilt_angle", [-3.5, 0, 3.5], {"units": "degree"}),
        dose=("tilt_angle", [101, 202, 303]),
        stage=47.25,
        when=("tilt_angle", np.array(["2024-05-06", "2024-05-07", "2024-05-08"], "M8[ns]")),
        detector=("tilt_angle", ["top", "top", "bottom"]),
        mask=(("y", "x"), np.arange(20).reshape(4, 5) > 7),
    )
    mrc_xarray.to_mrc(data, path, metadata={"mine": 1})
    text = own(path)
    for word in ("tilt_angle", "-3.5", "degree", "dose", "202", "47.25", "2024-05-07", "bottom"):
        assert word in text
    found, header = read_by_mrcz(path)
    np.testing.assert_array_equal(found, pixels)
    assert header["mine"] == 1


@pytest.mark.parametrize(
    "dims",
    [
        ("scan_y", "scan_x", "y", "x"),
        ("scan_y", "scan_x", "ky", "kx"),
        ("repeat", "scan_y", "scan_x", "y", "x"),
        ("frame", "y", "x"),
    ],
)
def test_own_dimensions_are_in_the_json(path: Path, dims: Any) -> None:
    pixels = counts((2, 2, 3, 4, 5)[-len(dims) :])
    mrc_xarray.to_mrc(xr.DataArray(pixels, dims=dims), path)
    for dim in dims:
        assert f'"{dim}"' in own(path)
    found, _ = read_by_mrcz(path)
    np.testing.assert_array_equal(np.reshape(found, pixels.shape), pixels)
    np.testing.assert_array_equal(np.reshape(opened(path).data, pixels.shape), pixels)


def test_units_that_are_no_length_are_in_the_json(path: Path) -> None:
    data = labelled(counts((3, 4, 5)), ("image", "y", "x"), "1/nm")
    mrc_xarray.to_mrc(data, path)
    assert "1/nm" in own(path)
    assert fields(path, "cella")[0][:2] == (0, 0)


@pytest.mark.parametrize("dtype", ["i4", "u4"])
def test_mrczs_own_modes(path: Path, dtype: str) -> None:
    """MRC2014 has none of them, and mrcz has."""
    pixels = counts((3, 4, 5), dtype)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mrc_xarray.to_mrc(pixels, path)
    assert {warning.category for warning in caught} <= {MrcWarning}
    assert len(caught) <= 1
    np.testing.assert_array_equal(read_by_mrcz(path)[0], pixels)


# to plain, and from it --------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mrc", ".mrcz"])
def test_uncompressed_copy_is_a_plain_file(tmp_path: Path, suffix: str) -> None:
    source, path = tmp_path / "source.mrcz", tmp_path / f"result{suffix}"
    pixels = counts((3, 4, 5))
    mrcz.writeMRC(pixels, source, compressor="zstd", pixelsize=0.5, pixelunits="nm")
    mrc_xarray.to_mrc(opened(source), path, compressor=None)
    assert fields(path, "mode", "mz", "ispg", "packed_bytes") == [1, 1, 0, 0]
    report = io.StringIO()
    assert mrcfile.validate(path, print_file=report), report.getvalue()
    with mrcfile.open(path) as mrc:
        np.testing.assert_array_equal(mrc.data, pixels)
        assert mrc.voxel_size.x == pytest.approx(5)


@pytest.mark.parametrize("chunks", [None, {}, {"image": 1}])
@pytest.mark.filterwarnings("ignore:The specified chunks separate the stored chunks")
def test_compressed_again(path: Path, tmp_path: Path, chunks: Any) -> None:
    source = tmp_path / "source.mrcz"
    pixels = counts((7, 48, 64), "f4")
    mrcz.writeMRC(pixels, source, compressor="lz4", pixelsize=2.0, pixelunits="\\AA")
    mrc_xarray.to_mrc(opened(source, chunks=chunks), path, compressor="zstd")
    found, header = read_by_mrcz(path)
    np.testing.assert_array_equal(found, pixels)
    assert header["compressor"] == "zstd"
    assert header["pixelsize"][1:] == pytest.approx([2, 2])


# order and settings -----------------------------------------------------------------------------


def test_sections_are_in_order_whatever_finishes_first(path: Path) -> None:
    import time

    pixels = counts((24, 16, 16))
    pixels[:, 0, 0] = range(24)

    def late(part: Array, block_info: Any = None) -> Array:
        # the first of each four is the last to be ready
        time.sleep(0.02 * (3 - block_info[0]["chunk-location"][0] % 4))
        return part

    lazy = da.from_array(pixels, chunks=(1, -1, -1)).map_blocks(late, meta=pixels[:0])
    mrc_xarray.to_mrc(lazy, path)
    np.testing.assert_array_equal(read_by_mrcz(path)[0], pixels)


@pytest.mark.parametrize(
    "chunks", [None, (1, -1, -1), (2, -1, -1), (4, 5, -1), (-1, -1, 7), (3, 5, 7)]
)
def test_bytes_do_not_depend_on_chunks(path: Path, tmp_path: Path, chunks: Any) -> None:
    pixels = counts((7, 20, 30))
    mrc_xarray.to_mrc(pixels, path)
    other = tmp_path / "other.mrcz"
    mrc_xarray.to_mrc(pixels if chunks is None else da.from_array(pixels, chunks=chunks), other)
    # all but the statistics, whose last bits depend on the order of adding
    raws = [bytearray(p.read_bytes()) for p in (path, other)]
    for raw in raws:
        raw[84:88] = raw[216:220] = bytes(4)
        raw[224:1024] = bytes(800)
    assert raws[0] == raws[1]


def test_settings_of_mrcz_do_no_harm_and_stay(path: Path) -> None:
    before = blosc.set_nthreads(2)
    try:
        blosc.set_blocksize(4096)
        pixels = counts((6, 256, 256), "f4")
        lazy = da.from_array(pixels, chunks=(1, -1, -1))
        mrc_xarray.to_mrc(lazy, path)
        np.testing.assert_array_equal(read_by_mrcz(path)[0], pixels)
    finally:
        blosc.set_blocksize(0)
        blosc.set_nthreads(before)


def test_mrcz_writes_at_the_same_time(path: Path, tmp_path: Path) -> None:
    pixels = counts((16, 256, 256), "f4")
    lazy = da.from_array(pixels, chunks=(1, -1, -1))
    other = tmp_path / "other.mrcz"
    future = mrcz.asyncWriteMRC(pixels, other, compressor="zstd")
    mrc_xarray.to_mrc(lazy, path)
    future.result()
    for written in (path, other):
        np.testing.assert_array_equal(read_by_mrcz(written)[0], pixels)
        np.testing.assert_array_equal(opened(written, layout="volume").data, pixels)


def test_extended_header_by_argument_stands(tmp_path: Path) -> None:
    """Instead of JSON, which is what an MRCZ has there otherwise."""
    source, path = tmp_path / "a.mrcz", tmp_path / "b.mrcz"
    pixels = np.arange(60, dtype="i2").reshape(3, 4, 5)
    mrc_xarray.to_mrc(pixels, source, metadata={"who": "me"})
    with pytest.warns(MrcWarning, match="metadata"):
        mrc_xarray.to_mrc(
            xr.open_dataarray(source, engine="mrc"), path, extended_header=("CCP4", b"X" * 80)
        )
    assert path.read_bytes()[1024:1104] == b"X" * 80
    np.testing.assert_array_equal(mrcz.readMRC(str(path))[0], pixels)
