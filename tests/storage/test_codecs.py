"""Which codec a stream has, by its content; and streams that are written, by their suffix."""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import json
import lzma
import os
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import by_hand
import dask.array as da
import fsspec
import mrcfile
import mrcz
import numpy as np
import pytest
import writes
import xarray as xr
from streams_by_hand import BYTES, CODECS, PIXELS, packed, zipped

import mrc_xarray
from mrc_xarray import MrcError, to_mrc
from mrc_xarray.cli import main
from mrc_xarray.storage.codecs import begins_stream, codec_of, encoder
from mrc_xarray.storage.compressed import first_bytes
from mrc_xarray.suffixes import COMPRESSED_SUFFIXES

Array = np.ndarray[Any, Any]


def opened(target: Any, **options: Any) -> xr.Dataset:
    return xr.open_dataset(target, engine="mrc", **options)


# reading -----------------------------------------------------------------------------------------


def gzip_with_fields(data: bytes) -> bytes:
    """Return a gzip member with all that RFC 1952 allows in its header."""
    head = b"\x1f\x8b\x08\x1e" + struct.pack("<I", 1234567890) + b"\2\3"
    head += struct.pack("<H", 8) + b"MX\4\0mrcx" + "Größe.mrc\0".encode("latin-1") + b"comment\0"
    head += struct.pack("<H", zlib.crc32(head) & 0xFFFF)
    deflate = zlib.compressobj(wbits=-15)
    body = deflate.compress(data) + deflate.flush()
    return head + body + struct.pack("<II", zlib.crc32(data), len(data))


def members(codec: str, *ends: int) -> bytes:
    """Compress BYTES in several members."""
    parts = [BYTES[start:end] for start, end in itertools.pairwise((0, *ends, len(BYTES)))]
    return b"".join(map(CODECS[codec].pack, parts))


VARIANTS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "many members": ("gzip", lambda: members("gzip", 0, 100, 100, 1023, 70_000, 70_001)),
    "header fields": ("gzip", lambda: gzip_with_fields(BYTES)),
    "zeros at the end": ("gzip", lambda: packed(CODECS["gzip"]) + bytes(1000)),
    "stored": ("gzip", lambda: gzip.compress(BYTES, 0)),
    "several streams of bzip2": ("bz2", lambda: members("bz2", 100, 100, 1023, 400_001)),
    "large blocks": ("bz2", lambda: bz2.compress(BYTES, 9)),
    "several streams of xz": ("xz", lambda: members("xz", 100, 1023, 400_001)),
    "xz with CRC32": ("xz", lambda: lzma.compress(BYTES, check=lzma.CHECK_CRC32, preset=0)),
    "zip, stored": ("zip", lambda: zipped({"a/b.mrc": BYTES}, zipfile.ZIP_STORED)),
    "zip by bzip2": ("zip", lambda: zipped({"b.txt": BYTES}, zipfile.ZIP_BZIP2)),
    "zip by lzma": ("zip", lambda: zipped({"b.mrc": BYTES}, zipfile.ZIP_LZMA)),
}


@pytest.mark.parametrize(
    ("variant", "with_isal"),
    [*((name, True) for name in VARIANTS), ("many members", False), ("header fields", False)],
)
def test_variants(
    variant: str, with_isal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, make = VARIANTS[variant]
    if not with_isal:
        monkeypatch.setitem(sys.modules, "isal", None)
    raw = make()
    assert CODECS[name].unpack(raw) == BYTES
    path = tmp_path / "volume.mrc"
    path.write_bytes(raw)
    ds = opened(path)
    assert ds.data.attrs["mrc_stream"] == name
    np.testing.assert_array_equal(ds.data[-1], PIXELS[-1])
    np.testing.assert_array_equal(ds.data, PIXELS)


def test_codec_by_the_content() -> None:
    for name, codec in CODECS.items():
        assert begins_stream(packed(codec)) == name
        assert first_bytes(io.BytesIO(packed(codec)), 2000) == BYTES[:2000]
        # what can be decoded of a damaged stream
        assert BYTES.startswith(first_bytes(io.BytesIO(packed(codec)[:200]), 2000))
    assert begins_stream(lzma.compress(b"", format=lzma.FORMAT_ALONE)) == "lzma"
    assert begins_stream(BYTES) is begins_stream(b"") is begins_stream(b"BZh but no bzip2") is None
    assert first_bytes(io.BytesIO(BYTES), 2000) == BYTES[:2000]


@pytest.mark.parametrize(
    ("magic", "package"), [(b"\x28\xb5\x2f\xfd", "zstandard"), (b"\x04\x22\x4d\x18", "lz4")]
)
def test_missing_package_is_named(
    tmp_path: Path, magic: bytes, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for codec in ("zstd", "lz4"):
        monkeypatch.delitem(fsspec.compression.compr, codec, raising=False)
    path = tmp_path / "volume.mrc.zst"
    path.write_bytes(magic + b"\x04\x00" + bytes(5000))
    with pytest.raises(MrcError, match=rf"volume\.mrc\.zst.*pip install {package}"):
        opened(path)
    with pytest.raises(MrcError, match=r"volume\.mrc\.zst: a zstd stream .* install zstandard"):
        to_mrc(PIXELS, tmp_path / "volume.mrc.zst", overwrite=True)


def test_zip_of_two_names_its_members(tmp_path: Path) -> None:
    path = tmp_path / "both.zip"
    path.write_bytes(zipped({"first.mrc": BYTES, "more/second.mrc": BYTES}))
    with pytest.raises(MrcError, match=r"both\.zip.*zip://.*first\.mrc, more/second\.mrc"):
        opened(path)
    # and the advice is right
    ds = opened(f"zip://more/second.mrc::file://{path}")
    np.testing.assert_array_equal(ds.data[1], PIXELS[1])
    path.write_bytes(zipped({}))
    with pytest.raises(MrcError, match=r"both\.zip"):
        opened(path)


def test_suffix_in_front_of_any_codec_gives_the_layout(tmp_path: Path) -> None:
    for codec in CODECS.values():
        path = tmp_path / f"s.mrcs{codec.suffix}"
        path.write_bytes(codec.pack(BYTES))
        assert opened(path).data.dims == ("image", "y", "x"), codec.name


# writing -----------------------------------------------------------------------------------------

SMALL = PIXELS[:, :24, :40]
WRITABLE = {c.suffix: c for c in CODECS.values() if c.name != "zip"}
suffixes = pytest.mark.parametrize("suffix", WRITABLE)


def labelled(pixels: Any = SMALL) -> xr.DataArray:
    coords = {
        dim: (dim, 2.5 * np.arange(n), {"units": "angstrom"})
        for dim, n in zip("zyx", SMALL.shape, strict=True)
    }
    return xr.DataArray(pixels, coords, tuple("zyx"))


def check_written(raw: bytes, suffix: str, folder: Path) -> None:
    """Compare what is in a stream with `labelled()`, by mrcfile."""
    plain = folder / "check.mrc"
    plain.write_bytes(WRITABLE[suffix].unpack(raw))
    assert mrcfile.validate(plain, print_file=sys.stderr)
    with mrcfile.open(plain) as mrc:
        np.testing.assert_array_equal(mrc.data, SMALL)
        assert mrc.voxel_size.tolist() == (2.5, 2.5, 2.5)
        assert (mrc.header.dmin, mrc.header.dmax) == (0, 15)
    plain.unlink()


def test_codec_by_the_suffix() -> None:
    names = {"a.mrc.GZ": "gzip", "a.bz2": "bz2", "s3://a/b.xz": "xz", "a.lzma": "lzma"}
    assert {name: codec_of(name) for name in names} == names
    assert codec_of("a.gz.mrc") is codec_of("gz") is None
    expected = {".gz", ".bz2", ".xz", ".zst", ".lzma", ".zip", ".lz4"}
    assert set(COMPRESSED_SUFFIXES) == expected


@suffixes
@pytest.mark.parametrize("is_lazy", [False, True], ids=["numpy", "dask"])
def test_write(tmp_path: Path, suffix: str, is_lazy: bool) -> None:
    path = tmp_path / f"volume.mrc{suffix}"
    pixels = da.from_array(SMALL, chunks=(3, 50, -1)) if is_lazy else SMALL
    to_mrc(labelled(pixels), path)
    assert os.listdir(tmp_path) == [path.name]
    check_written(path.read_bytes(), suffix, tmp_path)
    ds = opened(path)
    np.testing.assert_array_equal(ds.data, SMALL)
    assert ds.mrc.voxel_size == pytest.approx({"z": 2.5, "y": 2.5, "x": 2.5})
    with pytest.raises(FileExistsError):
        to_mrc(labelled(), path)
    # what is read from can be overwritten
    to_mrc(opened(path, chunks={}).data, path, overwrite=True)
    check_written(path.read_bytes(), suffix, tmp_path)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("before", [None, b"precious"], ids=["new", "old"])
def test_failing_task_leaves_the_old_file(tmp_path: Path, before: bytes | None) -> None:
    path = tmp_path / "a.mrc.gz"
    if before is not None:
        path.write_bytes(before)
    with pytest.raises(RuntimeError, match="beyond repair"):
        to_mrc(writes.once(writes.fail), path, overwrite=True)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == ([before] if before else [])


def test_streams_that_are_not_written(tmp_path: Path) -> None:
    for codec in ("zip", "lz4"):
        with pytest.raises(MrcError, match=rf"mrc\.{codec}: {codec} can be read and not written"):
            to_mrc(labelled(), tmp_path / f"volume.mrc.{codec}")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("with_isal", [True, False])
def test_gzip_is_the_same_each_time(
    with_isal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not with_isal:
        monkeypatch.setitem(sys.modules, "isal", None)
    path = tmp_path / "volume.mrc.gz"
    to_mrc(labelled(), path)
    check_written(path.read_bytes(), ".gz", tmp_path)
    first, again = path.read_bytes(), io.BytesIO()
    # the same bytes: a label of another file may have another time
    with encoder("gzip", again, "") as file:
        file.write(gzip.decompress(first))
    assert first == again.getvalue()
    # no flag, such as that of a name, and no time
    assert first[:8] == b"\x1f\x8b\x08\0\0\0\0\0"


def test_write_lzma(tmp_path: Path) -> None:
    path = tmp_path / "volume.mrc.lzma"
    to_mrc(labelled(), path)
    raw = lzma.decompress(path.read_bytes(), format=lzma.FORMAT_ALONE)
    (tmp_path / "plain.mrc").write_bytes(raw)
    assert mrcfile.validate(tmp_path / "plain.mrc", print_file=io.StringIO())
    np.testing.assert_array_equal(opened(path).data, SMALL)


def test_streams_do_not_change_in_place(tmp_path: Path) -> None:
    path, other = tmp_path / "volume.mrc.gz", tmp_path / "volume.mrc"
    before = packed(CODECS["gzip"])
    # by the content, whatever the name
    for target in (path, other):
        target.write_bytes(before)
        for change in (
            lambda target=target: to_mrc(PIXELS[:2], target, region={"z": slice(0, 2)}),
            lambda target=target: to_mrc(PIXELS[:2], target, append_dim="z"),
        ):
            with pytest.raises(MrcError, match=rf"{target.name}: a .* can't be changed in place"):
                change()
            assert target.read_bytes() == before
    new = tmp_path / "new.mrc.gz"
    for target in (path, new):
        with pytest.raises(MrcError, match=target.name):
            mrc_xarray.create(target, (4, 5, 6), "f4", overwrite=True)
    assert path.read_bytes() == before
    assert not new.exists()


# the command -------------------------------------------------------------------------------------


def test_convert_to_a_stream_and_on(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("a.mrc", "b.mrc.gz", "c.mrcz"))
    first.write_bytes(raw := by_hand.mrc(SMALL))
    assert main(["convert", "--quiet", str(first), str(second)]) == 0
    assert gzip.decompress(second.read_bytes())[1024:] == raw[1024:]
    assert main(["convert", "--quiet", str(second), str(third)]) == 0
    np.testing.assert_array_equal(mrcz.readMRC(str(third))[0], SMALL)


def test_info(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "volume.mrc.gz"
    path.write_bytes(packed(CODECS["gzip"]))
    assert main(["info", "--json", str(path)]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["size_on_disk"] == path.stat().st_size
    path.write_bytes(path.read_bytes()[:30])
    assert main(["info", str(path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert path.name in line
