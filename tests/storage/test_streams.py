"""MRC inside gzip, bzip2, xz and zip: the same pixels, decoded once, and only as far as needed."""

from __future__ import annotations

import bz2
import contextlib
import functools
import gc
import gzip
import io
import itertools
import json
import lzma
import os
import pickle
import signal
import struct
import sys
import tempfile
import time
import tracemalloc
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import by_hand
import dask
import dask.array as da
import fsspec
import mrcfile
import mrcz
import numpy as np
import pytest
import servers
import xarray as xr
from distributed import Client

import mrc_xarray
from mrc_xarray import MrcError, MrcWarning, to_mrc
from mrc_xarray.backend import MrcBackendEntrypoint
from mrc_xarray.cli import main
from mrc_xarray.storage import decoded
from mrc_xarray.storage.codecs import encoder

RealFile = Callable[[str], Path]
Array = np.ndarray[Any, Any]
KiB, MiB = 1024, 1024**2

# sections of 32 KiB with noise in 4 of 16 bits: there is something to compress, and to decode
NZ, NY, NX = 20, 64, 256
PIXELS = np.random.default_rng(6).integers(0, 16, (NZ, NY, NX), "i2")
BYTES = by_hand.mrc(PIXELS)
SECTION = PIXELS[0].nbytes

# sections of 1 MiB that are alike, so that most codecs compress one of them only
LONG_SHAPE = (24, 512, 1024)
LONG_SECTION = np.random.default_rng(7).integers(-(2**15), 2**15, LONG_SHAPE[1:], "i2")

# chunks smaller than what is offered, so that there is work for everyone
by_one = pytest.mark.filterwarnings("ignore:The specified chunks separate the stored chunks")
linux = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="it looks into /proc")


# codecs, by the standard library -----------------------------------------------------------------


class Codec(NamedTuple):
    """How to make and to read a stream without the package; `name` is what attrs call it."""

    name: str
    suffix: str
    pack: Callable[[bytes], bytes]
    unpack: Callable[[bytes], bytes]
    # what decodes as much as there is
    decompressor: Callable[[], Any] | None = None

    def pack_parts(self, parts: Sequence[bytes]) -> bytes:
        """Compress each part alone, where a file may have several streams."""
        if self.name == "zip":
            return zipped({"volume.mrc": b"".join(parts)}, compresslevel=0)
        packed = {part: self.pack(part) for part in set(parts)}
        return b"".join(packed[part] for part in parts)


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, **options: Any) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method, **options) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def read_by(open_: Callable[..., Any]) -> Callable[[bytes], bytes]:
    """Decode by a module's file, which finds damage that its `decompress` takes for an end."""

    def unpack(raw: bytes) -> bytes:
        with open_(io.BytesIO(raw)) as file:
            return bytes(file.read())

    return unpack


def unzipped(raw: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        (member,) = archive.namelist()
        return archive.read(member)


CODECS = {
    "gzip": Codec(
        "gzip",
        ".gz",
        functools.partial(gzip.compress, compresslevel=1, mtime=0),
        read_by(gzip.open),
        functools.partial(zlib.decompressobj, 31),
    ),
    # blocks of 100 kB, so that there are several
    "bz2": Codec(
        "bz2",
        ".bz2",
        functools.partial(bz2.compress, compresslevel=1),
        read_by(bz2.open),
        bz2.BZ2Decompressor,
    ),
    "xz": Codec(
        "xz",
        ".xz",
        functools.partial(lzma.compress, preset=0),
        read_by(lzma.open),
        lzma.LZMADecompressor,
    ),
    "zip": Codec("zip", ".zip", lambda data: zipped({"volume.mrc": data}), unzipped),
}
ALL = ["gzip", "isal", "bz2", "xz", "zip"]
STREAMS = ["gzip", "isal", "bz2", "xz"]
ERRORS = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)

streams = pytest.mark.parametrize("codec", STREAMS, indirect=True)
decoders = pytest.mark.parametrize("codec", ["gzip", "isal"], indirect=True)


@pytest.fixture(params=ALL)
def codec(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Codec:
    """A codec; "gzip" is that of the standard library, as where isal is not installed."""
    if request.param == "isal":
        pytest.importorskip("isal")
        return CODECS["gzip"]
    monkeypatch.setitem(sys.modules, "isal", None)
    return CODECS[request.param]


@functools.cache
def packed(codec: Codec) -> bytes:
    return codec.pack(BYTES)


@functools.cache
def long(codec: Codec) -> bytes:
    """Return a stream of 24 MiB, and about as many compressed."""
    return codec.pack_parts([by_hand.header(LONG_SHAPE, 1), *[LONG_SECTION.tobytes()] * 24])


def opened(target: Any, **options: Any) -> xr.Dataset:
    return xr.open_dataset(target, engine="mrc", **options)


@pytest.fixture
def path(codec: Codec, tmp_path: Path) -> Path:
    path = tmp_path / f"volume.mrc{codec.suffix}"
    path.write_bytes(packed(codec))
    return path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[servers.HttpServer]:
    with servers.http_server(tmp_path) as server:
        yield server


def files_open(folder: Path | str = "/") -> list[str]:
    """Return those files in a folder that this process has open, removed or not."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(os.readlink(descriptor))
    return sorted(target for target in found if target.startswith(str(folder)))


@pytest.fixture(autouse=True)
def no_stream_left_open(tmp_path: Path) -> Iterator[None]:
    """Fail a test after which this process has a file in its folder open, removed or not."""
    yield
    if Path("/proc/self/fd").exists():
        if files_open(tmp_path):
            # what is in a cycle; to look for those takes longer than most tests
            gc.collect()
        assert files_open(tmp_path) == []


def traced(act: Callable[[], Any]) -> tuple[Any, int]:
    """Return what `act` returns, and the peak of Python's memory above what there was."""
    gc.collect()
    tracemalloc.start()
    try:
        result = act()
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# real files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [None, {}], ids=["plain", "chunked"])
@pytest.mark.parametrize(
    ("name", "stream"), [("emd_3197.map.gz", "gzip"), ("EMD-3197.map.bz2", "bz2")]
)
def test_emdb_map_equals_the_plain_one(
    real_file: RealFile, name: str, stream: str, chunks: dict[str, int] | None
) -> None:
    path = real_file(name)
    ds, plain = opened(path, chunks=chunks), opened(real_file("EMD-3197.map"))
    xr.testing.assert_equal(ds, plain)
    assert ds.data.attrs["mrc_stream"] == stream
    assert ds.data.attrs["mrc_source"] == str(path)
    with mrcfile.open(path) as mrc:
        np.testing.assert_array_equal(ds.data, mrc.data)
        voxel = {axis: float(mrc.voxel_size[axis]) for axis in "zyx"}
        assert ds.mrc.voxel_size == pytest.approx(voxel, rel=1e-6)
        assert ds.mrc.header.encode()[:224] == plain.mrc.header.encode()[:224]


def test_extended_header_of_a_microscope(
    real_file: RealFile, codec: Codec, tmp_path: Path
) -> None:
    plain = real_file("fei-extended.mrc")
    path = tmp_path / f"fei.mrc{codec.suffix}"
    # the extended header comes first, and little is compressed soon
    with plain.open("rb") as file:
        first = file.read(MiB)
    path.write_bytes(codec.pack(first))
    ds, expected = opened(path), opened(plain)
    assert list(ds.coords) == list(expected.coords)
    assert "tilt_angle" in ds.coords
    for name in expected.coords:
        np.testing.assert_array_equal(ds[name], expected[name])
    assert ds.mrc.extended_header == expected.mrc.extended_header
    xr.testing.assert_equal(ds.mrc.extended_fields, expected.mrc.extended_fields)
    with mrcfile.open(plain, header_only=True) as mrc:
        assert ds.mrc.extended_header == mrc.extended_header.tobytes()
    np.testing.assert_array_equal(ds.data[:10], expected.data[:10])


# every way to open -------------------------------------------------------------------------------


@contextlib.contextmanager
def local_path(path: Path) -> Iterator[Any]:
    yield str(path)


@contextlib.contextmanager
def path_like(path: Path) -> Iterator[Any]:
    yield path


@contextlib.contextmanager
def bytes_themselves(path: Path) -> Iterator[Any]:
    yield path.read_bytes()


@contextlib.contextmanager
def bytesio(path: Path) -> Iterator[Any]:
    yield io.BytesIO(path.read_bytes())


@contextlib.contextmanager
def open_file(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        file.read(10)
        yield file
        assert file.tell() == 10


@contextlib.contextmanager
def nameless_file(path: Path) -> Iterator[Any]:
    with tempfile.TemporaryFile() as file:
        file.write(path.read_bytes())
        yield file


@contextlib.contextmanager
def http_url(path: Path) -> Iterator[Any]:
    with servers.http_server(path.parent) as server:
        yield server.url(path.name)


@contextlib.contextmanager
def memory_url(path: Path) -> Iterator[Any]:
    fs = fsspec.filesystem("memory")
    fs.pipe(f"/streams/{path.name}", path.read_bytes())
    yield f"memory://streams/{path.name}"
    fs.rm("/streams", recursive=True)


@pytest.mark.parametrize(
    "target",
    [
        local_path,
        path_like,
        bytes_themselves,
        bytesio,
        open_file,
        nameless_file,
        http_url,
        memory_url,
    ],
)
def test_targets(codec: Codec, path: Path, target: Any) -> None:
    with target(path) as found:
        ds = opened(found)
        assert ds.data.attrs["mrc_stream"] == codec.name
        # a late section, and then early ones
        np.testing.assert_array_equal(ds.data[15], PIXELS[15])
        np.testing.assert_array_equal(ds.data, PIXELS)


@by_one
def test_chunks(path: Path) -> None:
    ds = opened(path, chunks={"z": 1})
    np.testing.assert_array_equal(ds.data.compute(scheduler="threads", num_workers=8), PIXELS)


def test_content_counts_and_not_the_name(codec: Codec, tmp_path: Path) -> None:
    for name in ("volume.mrc", "volume", "volume.mrc.gz", "volume.bz2"):
        path = tmp_path / name
        path.write_bytes(packed(codec))
        np.testing.assert_array_equal(opened(path).data[1], PIXELS[1])
        path.write_bytes(BYTES)
        plain = opened(path)
        np.testing.assert_array_equal(plain.data, PIXELS)
        assert "mrc_stream" not in plain.data.attrs


def test_without_an_engine(codec: Codec, tmp_path: Path) -> None:
    path = tmp_path / f"volume.map{codec.suffix}"
    path.write_bytes(packed(codec))
    with xr.open_dataset(path) as ds:
        np.testing.assert_array_equal(ds.data[2], PIXELS[2])
        assert ds.data.attrs["mrc_stream"] == codec.name


def test_guess_looks_inside(codec: Codec, tmp_path: Path) -> None:
    guess = MrcBackendEntrypoint().guess_can_open
    path = tmp_path / f"volume.map{codec.suffix}"
    for inside, expected in (
        (BYTES, True),
        (b"", False),
        (BYTES[:100], False),
        (b"no MRC at all, but a long text" * 100, False),
        (b"\x89HDF\r\n\x1a\n" + bytes(4096), False),
        (codec.pack(BYTES), False),
    ):
        path.write_bytes(codec.pack(inside))
        assert guess(path) is expected
        assert guess(path.read_bytes()) is expected
    path.write_bytes(packed(codec)[:30])
    assert not guess(path)


def test_mmap_just_reads(path: Path) -> None:
    ds = opened(path, mmap=True)
    pixels = ds.data[3].values
    np.testing.assert_array_equal(pixels, PIXELS[3])
    pixels[...] = -1
    np.testing.assert_array_equal(opened(path).data[3], PIXELS[3])


# what streams may look like ----------------------------------------------------------------------


def gzip_with_fields(data: bytes) -> bytes:
    """Return a gzip member with all that RFC 1952 lets stand in its header."""
    head = b"\x1f\x8b\x08\x1e" + struct.pack("<I", 1234567890) + b"\2\3"
    head += struct.pack("<H", 8) + b"MX\4\0mrcx" + "Größe.mrc\0".encode("latin-1") + b"comment\0"
    head += struct.pack("<H", zlib.crc32(head) & 0xFFFF)
    deflate = zlib.compressobj(wbits=-15)
    body = deflate.compress(data) + deflate.flush()
    return head + body + struct.pack("<II", zlib.crc32(data), len(data))


def parts(codec: str, *ends: int) -> bytes:
    starts = (0, *ends)
    return CODECS[codec].pack_parts(
        [BYTES[start:end] for start, end in zip(starts, (*ends, len(BYTES)), strict=True)]
    )


VARIANTS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "two members": ("gzip", lambda: parts("gzip", 400_001)),
    "many members": ("gzip", lambda: parts("gzip", 0, 100, 100, 1023, 70_000, 70_001)),
    "header fields": ("gzip", lambda: gzip_with_fields(BYTES)),
    "zeros behind": ("gzip", lambda: packed(CODECS["gzip"]) + bytes(1000)),
    "stored": ("gzip", lambda: gzip.compress(BYTES, 0)),
    "several streams of bzip2": ("bz2", lambda: parts("bz2", 100, 100, 1023, 400_001)),
    "large blocks": ("bz2", lambda: bz2.compress(BYTES, 9)),
    "several streams of xz": ("xz", lambda: parts("xz", 100, 1023, 400_001)),
    "xz with CRC32": ("xz", lambda: lzma.compress(BYTES, check=lzma.CHECK_CRC32, preset=0)),
    "zip, stored": ("zip", lambda: zipped({"a/b.mrc": BYTES}, zipfile.ZIP_STORED)),
    "zip by bzip2": ("zip", lambda: zipped({"b.txt": BYTES}, zipfile.ZIP_BZIP2)),
    "zip by lzma": ("zip", lambda: zipped({"b.mrc": BYTES}, zipfile.ZIP_LZMA)),
}


@decoders
@pytest.mark.parametrize("variant", VARIANTS)
def test_variants(variant: str, codec: Codec, tmp_path: Path) -> None:
    name, make = VARIANTS[variant]
    raw = make()
    # the standard library has to agree
    assert CODECS[name].unpack(raw) == BYTES
    path = tmp_path / "volume.mrc"
    path.write_bytes(raw)
    ds = opened(path)
    assert ds.data.attrs["mrc_stream"] == name
    np.testing.assert_array_equal(ds.data[-1], PIXELS[-1])
    np.testing.assert_array_equal(ds.data, PIXELS)


def test_written_by_mrcfile(tmp_path: Path) -> None:
    for compression, suffix in (("gzip", ".gz"), ("bzip2", ".bz2")):
        path = tmp_path / f"volume.mrc{suffix}"
        with mrcfile.new(path, PIXELS, compression=compression) as mrc:
            mrc.voxel_size = 2.5
        ds = opened(path)
        np.testing.assert_array_equal(ds.data, PIXELS)
        assert ds.mrc.voxel_size == pytest.approx({"z": 2.5, "y": 2.5, "x": 2.5})


# what is inside ----------------------------------------------------------------------------------

SYMMETRY = b"X,Y,Z".ljust(80)
INSIDE: dict[str, tuple[Array, bytes]] = {
    "big-endian": (PIXELS, by_hand.mrc(PIXELS, byteorder=">")),
    "mode 0": (PIXELS.astype("i1"), by_hand.mrc(PIXELS.astype("i1"))),
    "4 bits": (
        PIXELS[..., :-1].astype("u1"),
        by_hand.mrc(by_hand.pack_4bit(PIXELS[..., :-1].astype("u1")), 101, shape=(NZ, NY, NX - 1)),
    ),
    "complex": (PIXELS[:4] + 1j, by_hand.mrc((PIXELS[:4] + 1j).astype("c8"))),
    # longer than what is decoded first
    "extended header": (PIXELS, by_hand.mrc(PIXELS, extended=SYMMETRY * 1500, exttyp=b"CCP4")),
}


@pytest.mark.parametrize("inside", INSIDE)
def test_inside(codec: Codec, tmp_path: Path, inside: str) -> None:
    pixels, raw = INSIDE[inside]
    plain, path = tmp_path / "plain.mrc", tmp_path / f"plain.mrc{codec.suffix}"
    plain.write_bytes(raw)
    path.write_bytes(codec.pack(raw))
    expected, found = opened(plain), opened(path)
    np.testing.assert_array_equal(found.data[2:4], pixels[2:4])
    np.testing.assert_array_equal(found.data, pixels)
    xr.testing.assert_equal(found, expected)
    assert found.data.dtype == expected.data.dtype
    assert found.mrc.header == expected.mrc.header
    assert found.mrc.extended_header == expected.mrc.extended_header


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz"])
@pytest.mark.parametrize(
    ("kind", "rule"),
    [(".map", "3: the name ends in .map"), (".mrcs", "4: the name ends in .mrcs")],
)
def test_layout_by_the_name_before_the_suffix(
    tmp_path: Path, suffix: str, kind: str, rule: str
) -> None:
    path = tmp_path / f"a{kind}{suffix}"
    raw = by_hand.mrc(PIXELS, ispg=0, mz=1)
    path.write_bytes({c.suffix: c.pack for c in CODECS.values()}[suffix](raw))
    assert opened(path).data.attrs["mrc_layout_rule"] == rule


def test_sidecars_of_the_name_before_the_suffix(tmp_path: Path) -> None:
    angles = [-60 + 6 * i for i in range(NZ)]
    path = tmp_path / "series.mrc.gz"
    path.write_bytes(CODECS["gzip"].pack(by_hand.mrc(PIXELS, ispg=0, mz=1)))
    beside = tmp_path / "series.rawtlt"
    beside.write_text("\n".join(map(str, angles)))
    ds = opened(path)
    assert ds.data.dims == ("image", "y", "x")
    assert ds.tilt_angle.values.tolist() == angles
    beside.unlink()
    (tmp_path / "series.mrc.mdoc").write_text(
        "".join(f"[ZValue = {i}]\nTiltAngle = {angle}\n\n" for i, angle in enumerate(angles))
    )
    assert opened(path).tilt_angle.values.tolist() == angles


# selections --------------------------------------------------------------------------------------


def random_selection(rng: np.random.Generator) -> tuple[Any, ...]:
    """Return an outer selection of ints, slices with any step, and lists."""

    def pick(n: int) -> Any:
        start, stop = sorted(rng.integers(0, n, 2).tolist())
        step = int(rng.integers(1, 9))
        return [
            start,
            slice(start, stop + 1, step),
            slice(stop, start or None, -step),
            rng.integers(0, n, 5),
            slice(None),
        ][rng.integers(5)]

    return tuple(pick(n) for n in PIXELS.shape)


def orthogonal(selection: tuple[Any, ...]) -> Array:
    found = PIXELS
    # from behind, as an int drops its axis
    for axis, pick in reversed(list(enumerate(selection))):
        found = found[(slice(None),) * axis + (pick,)]
    return found


def test_random_windows_equal_numpy(path: Path) -> None:
    ds = opened(path)
    rng = np.random.default_rng(8)
    for _ in range(30):
        selection = random_selection(rng)
        expected = orthogonal(selection)
        np.testing.assert_array_equal(ds.data[selection], expected, err_msg=repr(selection))


def test_sections_in_any_order(path: Path) -> None:
    ds = opened(path)
    for z in (17, 0, 18, 3, 17, 19, 1):
        np.testing.assert_array_equal(ds.data[z], PIXELS[z])


# how much is read, and how often -----------------------------------------------------------------


def test_threads_share_what_is_decoded(
    codec: Codec, path: Path, server: servers.HttpServer
) -> None:
    ds = opened(server.url(path.name))
    server.requests.clear()
    order = np.random.default_rng(9).integers(0, NZ, 160)
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda z: ds.data[int(z)].values, order))
    np.testing.assert_array_equal(found, PIXELS[order])
    assert server.nbytes() < 1.25 * len(packed(codec))


def test_copies_share_what_is_decoded(
    codec: Codec, path: Path, server: servers.HttpServer
) -> None:
    ds = opened(server.url(path.name))
    pickled = pickle.dumps(ds)
    # of what is loaded as a whole xarray forgets where it came from
    np.testing.assert_array_equal(ds.data[:NZ], PIXELS)
    server.requests.clear()
    for copy in (ds.copy(), pickle.loads(pickled), pickle.loads(pickle.dumps(ds))):
        np.testing.assert_array_equal(copy.data[7], PIXELS[7])
    assert server.nbytes() == 0
    del ds
    gc.collect()
    np.testing.assert_array_equal(copy.data[8], PIXELS[8])
    assert server.nbytes() == 0
    # and one that comes when all others are gone reads anew
    del copy
    gc.collect()
    np.testing.assert_array_equal(pickle.loads(pickled).data[9], PIXELS[9])
    assert server.nbytes() > 0


def test_pickled_is_little_more_than_the_name(path: Path) -> None:
    ds = opened(path)
    before = len(pickle.dumps(ds))
    assert np.array_equal(ds.data[-1], PIXELS[-1])
    assert before < 16 * KiB
    assert len(pickle.dumps(ds)) < 16 * KiB


def test_opening_and_one_section_read_little(
    codec: Codec, tmp_path: Path, server: servers.HttpServer
) -> None:
    (tmp_path / "long").write_bytes(raw := long(codec))
    assert len(raw) > 20 * MiB
    ds = opened(server.url("long"), chunks={})
    assert ds.data.shape == LONG_SHAPE
    assert server.nbytes() < MiB
    np.testing.assert_array_equal(ds.data.isel(z=0).compute(), LONG_SECTION)
    assert server.nbytes() < 12 * MiB


@by_one
def test_each_worker_decodes_once(
    client: Client, tmp_path: Path, server: servers.HttpServer
) -> None:
    raw = packed(CODECS["bz2"])
    (tmp_path / "volume.mrc").write_bytes(raw)
    url = server.url("volume.mrc")
    pickled = pickle.dumps(opened(url))
    lazy = [opened(url, chunks={"z": 1}) for _ in range(2)]
    server.requests.clear()
    for ds in lazy:
        np.testing.assert_array_equal(ds.data.compute(scheduler=client), PIXELS)
    # each is sent another copy
    for z in (19, 3):
        for found in client.run(lambda z: pickle.loads(pickled).data[z].values, z).values():
            np.testing.assert_array_equal(found, PIXELS[z])
    assert server.nbytes() < 2.25 * len(raw)


@by_one
def test_cluster_reads_right(client: Client, codec: Codec, path: Path) -> None:
    data = opened(path, chunks={"z": 3}).data
    np.testing.assert_array_equal(data.compute(scheduler=client), PIXELS)
    window = data[4:9, 20:30, 40:50].compute(scheduler=client)
    np.testing.assert_array_equal(window, PIXELS[4:9, 20:30, 40:50])


# memory and disk ---------------------------------------------------------------------------------


@contextlib.contextmanager
def limits(folder: Path, memory: str, disk: str = "1 GiB") -> Iterator[None]:
    with dask.config.set(
        {
            "mrc-xarray.decoded-memory": memory,
            "mrc-xarray.decoded-disk": disk,
            "temporary-directory": str(folder),
        }
    ):
        yield


def removed(folder: Path) -> list[str]:
    """Return the open files of a folder that have no name there."""
    return [target for target in files_open(folder) if target.endswith("(deleted)")]


@linux
def test_what_memory_does_not_hold_is_in_a_file_without_a_name(
    codec: Codec, path: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    with limits(folder, "200 KiB"):
        ds = opened(path)
    # one section does fit
    np.testing.assert_array_equal(ds.data[0], PIXELS[0])
    for z in (19, 3, 10, 0):
        np.testing.assert_array_equal(ds.data[z], PIXELS[z])
    assert len(removed(folder)) == 1
    assert list(folder.iterdir()) == []
    copy = pickle.loads(pickle.dumps(ds))
    np.testing.assert_array_equal(copy.data, PIXELS)
    assert len(removed(folder)) == 1
    del ds, copy
    gc.collect()
    assert removed(folder) == []


@linux
def test_by_default_it_stays_in_memory(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    with dask.config.set({"temporary-directory": str(folder)}):
        ds = opened(path)
        np.testing.assert_array_equal(ds.data, PIXELS)
        np.testing.assert_array_equal(ds.data[0], PIXELS[0])
    assert removed(folder) == []


@pytest.mark.parametrize("codec", ["gzip", "xz"], indirect=True)
def test_memory_is_bounded(codec: Codec, tmp_path: Path) -> None:
    path = tmp_path / "long.mrc"
    # far more than what is decoded at once
    header = by_hand.header((72, 1024, 1024), 0)
    path.write_bytes(codec.pack_parts([header, *[bytes(8 * MiB)] * 9]))

    def read() -> xr.Dataset:
        with limits(tmp_path, "1 MiB"):
            ds = opened(path)
        for z in (0, 71, 1):
            assert not ds.data[z].values.any()
        return ds

    ds, peak = traced(read)
    assert ds.data.shape == (72, 1024, 1024)
    assert peak < 24 * MiB


def test_memory_is_given_back(codec: Codec, tmp_path: Path) -> None:
    path = tmp_path / "long.mrc"
    shape = (12, *LONG_SHAPE[1:])
    path.write_bytes(codec.pack_parts([by_hand.header(shape, 1), bytes(12 * MiB)]))
    gc.collect()
    tracemalloc.start()
    try:
        ds = opened(path)
        assert not ds.data[-1].values.any()
        del ds
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 2 * MiB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("codec", ["gzip", "xz", "zip"], indirect=True)
def test_more_than_the_disk_may_hold_is_an_error(codec: Codec, tmp_path: Path) -> None:
    path = tmp_path / "long.mrc"
    path.write_bytes(long(codec))
    with limits(tmp_path, "6 MiB", "6 MiB"):
        ds = opened(path)
    np.testing.assert_array_equal(ds.data[1], LONG_SECTION)
    with pytest.raises(MrcError, match=r"long\.mrc.*mrc-xarray\.decoded-disk"):
        ds.data[23].load()
    # that much is there all the same
    np.testing.assert_array_equal(ds.data[2], LONG_SECTION)


@linux
@by_one
def test_limits_go_to_the_workers(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "volume.mrc"
    path.write_bytes(packed(CODECS["bz2"]))

    def files_without_a_name() -> int:
        folder = "/proc/self/fd"
        links = []
        for descriptor in os.listdir(folder):
            with contextlib.suppress(OSError):
                links.append(os.readlink(os.path.join(folder, descriptor)))
        return sum(link.endswith(" (deleted)") for link in links)

    before = sum(client.run(files_without_a_name).values())
    with limits(tmp_path, "100 KiB"):
        ds = opened(path, chunks={"z": 1})
    np.testing.assert_array_equal(ds.data.compute(scheduler=client), PIXELS)
    # they stay for the worker's life
    assert sum(client.run(files_without_a_name).values()) > before
    with limits(tmp_path, "0 B", "100 KiB"):
        ds = opened(path, chunks={"z": 1})
    with pytest.raises(MrcError, match=r"mrc-xarray\.decoded-disk"):
        ds.data.compute(scheduler=client)


# the warning of large files ----------------------------------------------------------------------


@functools.cache
def large(codec: Codec, nbytes: int) -> bytes:
    """Return a stream of just so many bytes, whose header promises more than enough."""
    raw = codec.pack(by_hand.header((100, 1024, 1024), 1) + bytes(128 * KiB))
    block = codec.pack(np.random.default_rng(10).bytes(MiB))
    raw += block * ((nbytes - len(raw)) // len(block))
    return raw + bytes(nbytes - len(raw))


@streams
def test_large_file_is_told(codec: Codec, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    path = tmp_path / f"large.mrc{codec.suffix}"
    path.write_bytes(large(codec, 32 * MiB))
    with pytest.warns(MrcWarning) as told:
        ds = opened(path)
    (warning,) = told
    text = str(warning.message)
    assert path.name in text
    assert "mrc-xarray convert" in text
    assert ("mrc-xarray[gzip]" in text) == ("[gzip]" in request.node.name)
    assert ds.data.shape == (100, 1024, 1024)
    assert not ds.data[0, :32].values.any()


@pytest.mark.parametrize("codec", ["gzip"], indirect=True)
def test_smaller_file_is_not_told(codec: Codec, tmp_path: Path) -> None:
    path = tmp_path / f"large.mrc{codec.suffix}"
    path.write_bytes(large(codec, 32 * MiB - 1))
    # warnings are errors
    assert opened(path).data.shape == (100, 1024, 1024)


# damage ------------------------------------------------------------------------------------------


def zeroed(raw: bytes, at: int, n: int = 64) -> bytes:
    return raw[:at] + bytes(n) + raw[at + n :]


def flipped(raw: bytes, at: int) -> bytes:
    at %= len(raw)
    return raw[:at] + bytes([raw[at] ^ 0x55]) + raw[at + 1 :]


def wrong_checksum(codec: Codec, raw: bytes) -> bytes:
    """Flip bits of the checksum of all that is decoded."""
    if codec.name == "zip":
        return flipped(raw, raw.rindex(b"PK\1\2") + 16)
    # of xz the index (12 bytes) and the footer (12 bytes) come behind
    return flipped(raw, {"gzip": -8, "bz2": -3, "xz": -28}[codec.name])


def right_or_refused(read: Callable[[], xr.DataArray], expected: Array) -> None:
    """Read, where an error is all right, and wrong pixels are not."""
    with contextlib.suppress(MrcError):
        np.testing.assert_array_equal(read(), expected)


DAMAGES: dict[str, Callable[[Codec, bytes], bytes]] = {
    "truncated": lambda codec, raw: raw[: len(raw) * 3 // 4],
    "damaged": lambda codec, raw: zeroed(raw, len(raw) * 3 // 4),
    "wrong checksum": wrong_checksum,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_loading_a_damaged_stream_is_an_error(codec: Codec, path: Path, damage: str) -> None:
    raw = DAMAGES[damage](codec, packed(codec))
    # the standard library finds it, too
    with pytest.raises(ERRORS):
        codec.unpack(raw)
    path.write_bytes(raw)
    if codec.name == "zip" and damage == "truncated":
        # what tells of the member is at the end
        with pytest.raises(MrcError, match=path.name):
            opened(path)
        return
    ds = opened(path)
    # where only a checksum tells of the damage, nobody knows what it is before
    right_or_refused(lambda: ds.data[1], PIXELS[1])
    with pytest.raises(MrcError, match=rf"{path.name}.*(truncated|damaged)"):
        ds.load()
    # again, and by another copy
    with pytest.raises(MrcError, match=path.name):
        pickle.loads(pickle.dumps(ds)).load()
    right_or_refused(lambda: ds.data[2], PIXELS[2])


@streams
def test_without_its_last_byte_it_is_right_or_refused(codec: Codec, path: Path) -> None:
    # no pixel is missing, but what confirms them is
    path.write_bytes(packed(codec)[:-1])
    ds = opened(path)
    right_or_refused(lambda: ds.data[1], PIXELS[1])
    right_or_refused(lambda: ds.data[:NZ], PIXELS)


@streams
def test_sections_before_the_end_can_be_read(codec: Codec, path: Path) -> None:
    raw = packed(codec)[: len(packed(codec)) // 2]
    assert codec.decompressor is not None
    n_whole = (len(codec.decompressor().decompress(raw)) - 1024) // SECTION
    assert 3 < n_whole < NZ - 3
    path.write_bytes(raw)
    ds = opened(path)
    assert ds.data.shape == PIXELS.shape
    np.testing.assert_array_equal(ds.data[: n_whole - 1], PIXELS[: n_whole - 1])
    for z in (NZ - 1, n_whole + 1):
        with pytest.raises(MrcError, match=rf"{path.name}.*(truncated|damaged)"):
            ds.data[z].load()
    np.testing.assert_array_equal(ds.data[0], PIXELS[0])


@decoders
def test_damage_of_the_last_bytes_is_found(codec: Codec, tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).integers(0, 2**15, (12, 512, 1024), "i2")
    raw = codec.pack(by_hand.mrc(pixels))
    for back in (5, 8, 9, 10, 11, 12):
        path = tmp_path / f"{back}.mrc.gz"
        path.write_bytes(flipped(raw, -back))
        data = xr.open_dataarray(path, engine="mrc")
        with pytest.raises(MrcError, match="damaged"):
            data.load()


@streams
@pytest.mark.parametrize("chunks", [None, {}], ids=["load", "dask"])
def test_no_flipped_bit_at_the_end_gives_wrong_pixels(
    codec: Codec, path: Path, chunks: Any
) -> None:
    """Where the mark of the end is lost, a few bytes too many are decoded before that shows."""
    pixels = PIXELS[:3, :20, :20]
    raw = codec.pack(by_hand.mrc(pixels) + bytes(70_000))
    short = codec.pack(by_hand.mrc(pixels))
    n_errors = 0
    for whole in (raw, short):
        for at in range(len(whole) - 24, len(whole)):
            for bit in range(0, 8, 3):
                damaged = bytearray(whole)
                damaged[at] ^= 1 << bit
                path.write_bytes(damaged)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", MrcWarning)
                    try:
                        found = xr.open_dataarray(path, engine="mrc", chunks=chunks).load()
                    except MrcError:
                        n_errors += 1
                        continue
                np.testing.assert_array_equal(found, pixels)
    assert n_errors > 24


def test_header_that_promises_more_than_a_stream_can_hold(codec: Codec, path: Path) -> None:
    path.write_bytes(codec.pack(by_hand.header((2**20, 2**10, 2**10), 1) + bytes(200_000)))
    with pytest.raises(MrcError, match=rf"{path.name}.*(at most|truncated)"):
        opened(path).load()
    tracemalloc.start()
    try:
        with pytest.raises(MrcError):
            opened(path).load()
        assert tracemalloc.get_traced_memory()[1] < 32 * MiB
    finally:
        tracemalloc.stop()


def test_limit_that_is_just_enough(codec: Codec, path: Path, tmp_path: Path) -> None:
    # errors of other tests hold what they came from
    gc.collect()
    nbytes = 1024 + PIXELS.nbytes
    for memory, disk in ((nbytes, 0), (0, nbytes), (nbytes - 1, nbytes)):
        with limits(tmp_path, str(memory), str(disk)):
            ds = opened(path)
        np.testing.assert_array_equal(ds.data, PIXELS)
    with limits(tmp_path, str(nbytes - 1), str(nbytes - 1)):
        ds = opened(path)
    with pytest.raises(MrcError, match="decoded-memory"):
        ds.load()


@pytest.mark.parametrize("value", ["abc", -1, None, [1]])
def test_limit_that_is_no_size_is_named(value: Any, tmp_path: Path) -> None:
    path = tmp_path / "volume.mrc.gz"
    path.write_bytes(gzip.compress(BYTES))
    with (
        dask.config.set({"mrc-xarray.decoded-memory": value}),
        pytest.raises(ValueError, match=r"mrc-xarray\.decoded-memory = .*accepted: a size"),
    ):
        opened(path)


def test_folder_that_a_worker_lacks(path: Path, tmp_path: Path) -> None:
    path.write_bytes(gzip.compress(BYTES))
    folder = tmp_path / "scratch"
    folder.mkdir()
    with limits(folder, "0"):
        ds = opened(path)
    folder.rmdir()
    np.testing.assert_array_equal(ds.data, PIXELS)


def test_sidecar_that_is_compressed(tmp_path: Path) -> None:
    path, angles = tmp_path / "series.st", tmp_path / "angles.tlt.gz"
    path.write_bytes(by_hand.mrc(PIXELS[:3], ispg=0, mz=1))
    angles.write_bytes(gzip.compress(b"-1\n0\n1\n"))
    ds = xr.open_dataset(path, engine="mrc", metadata_file=angles)
    assert ds.tilt_angle.values.tolist() == [-1, 0, 1]


def test_the_end_is_not_told_before_it_is_there(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = decoded._Decoding._keep

    def keep_slowly(self: decoded._Decoding, piece: bytes) -> None:
        time.sleep(0.2)
        keep(self, piece)

    monkeypatch.setattr(decoded._Decoding, "_keep", keep_slowly)
    path.write_bytes(gzip.compress(BYTES))
    ds = opened(path)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(lambda: ds.data[0].values)
        time.sleep(0.1)
        np.testing.assert_array_equal(ds.data[-1].values, PIXELS[-1])
        np.testing.assert_array_equal(first.result(), PIXELS[0])


@streams
def test_sections_before_the_damage_can_be_read(codec: Codec, path: Path) -> None:
    # a quarter each in a stream of its own, so that damage is found where it is
    ends = [0, *(1024 + SECTION * z for z in (5, 10, 15, 20))]
    quarters = [codec.pack(BYTES[a:b]) for a, b in itertools.pairwise(ends)]
    if codec.name == "gzip":
        # behind the header of 10 bytes, a kind of block that there is not
        quarters[2] = quarters[2][:10] + b"\7" + quarters[2][11:]
    else:
        quarters[2] = zeroed(quarters[2], len(quarters[2]) // 2)
    with pytest.raises(ERRORS, match=r"^((?!CRC).)*$"):
        codec.unpack(b"".join(quarters))
    path.write_bytes(b"".join(quarters))
    ds = opened(path)
    np.testing.assert_array_equal(ds.data[:9], PIXELS[:9])
    for z in (15, 19):
        with pytest.raises(MrcError, match=rf"{path.name}.*(truncated|damaged)"):
            ds.data[z].load()
    np.testing.assert_array_equal(ds.data[8], PIXELS[8])


@streams
def test_trimmed(codec: Codec, path: Path) -> None:
    raw = packed(codec)[: len(packed(codec)) // 2]
    assert codec.decompressor is not None
    n_whole = (len(codec.decompressor().decompress(raw)) - 1024) // SECTION
    path.write_bytes(raw)
    with pytest.warns(MrcWarning, match=path.name):
        ds = opened(path, truncated="trim")
    # the standard library's files may give a little less than its decompressors
    assert n_whole - 1 <= ds.sizes["z"] <= n_whole
    np.testing.assert_array_equal(ds.data, PIXELS[: ds.sizes["z"]])
    # nothing to trim
    path.write_bytes(packed(codec))
    np.testing.assert_array_equal(opened(path, truncated="trim").data, PIXELS)


def test_header_that_promises_more_is_believed(codec: Codec, path: Path) -> None:
    raw = by_hand.header((NZ + 3, NY, NX), 1) + BYTES[1024:]
    path.write_bytes(codec.pack(raw))
    # an archive tells the size of its member, which may be looked at
    refused = contextlib.suppress(MrcError) if codec.name == "zip" else contextlib.nullcontext()
    with refused:
        ds = opened(path)
        assert ds.sizes["z"] == NZ + 3
        np.testing.assert_array_equal(ds.data[NZ - 1], PIXELS[-1])
        for z in (NZ, NZ + 2):
            with pytest.raises(MrcError, match=rf"{path.name}.*(truncated|damaged|ended)"):
                ds.data[z].load()
    with pytest.warns(MrcWarning, match=path.name):
        trimmed = opened(path, truncated="trim")
    np.testing.assert_array_equal(trimmed.data, PIXELS)


def test_short_stream_is_as_a_plain_file(codec: Codec, path: Path) -> None:
    pixels = PIXELS[:4, :16, :16]
    raw = by_hand.mrc(pixels)
    path.write_bytes(codec.pack(raw))
    np.testing.assert_array_equal(opened(path).data, pixels)
    path.write_bytes(codec.pack(raw[:-10]))
    with pytest.raises(MrcError, match=rf"{path.name}.*truncated"):
        opened(path)
    with pytest.warns(MrcWarning, match=path.name):
        trimmed = opened(path, truncated="trim")
    np.testing.assert_array_equal(trimmed.data, pixels[:3])
    path.write_bytes(codec.pack(raw[:500]))
    with pytest.raises(MrcError, match=rf"{path.name}.*(500|short|truncated)"):
        opened(path)


@streams
def test_stream_that_ends_within_the_header(codec: Codec, path: Path) -> None:
    for n in (4, 12, 40):
        path.write_bytes(codec.pack(np.random.default_rng(1).bytes(10_000))[:n])
        with pytest.raises(MrcError, match=path.name):
            opened(path)


NOT_MRC: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "empty"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(100_000), "HDF5"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
    "gzip": (gzip.compress(BYTES), "gzip"),
    "bzip2": (bz2.compress(BYTES), "bzip2"),
    "zip": (zipped({"volume.mrc": BYTES}), "zip"),
    "text": (b"once upon a time " * 10_000, ""),
}


@pytest.mark.parametrize("kind", NOT_MRC)
def test_what_is_inside_is_told(codec: Codec, path: Path, kind: str) -> None:
    inside, told = NOT_MRC[kind]
    path.write_bytes(codec.pack(inside))
    with pytest.raises(MrcError, match=rf"(?s){path.name}.*{told}"):
        opened(path)


def test_mrcz_inside_is_refused(codec: Codec, path: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(11).integers(-(2**15), 2**15, (4, 256, 256), "i2")
    inner = tmp_path / "volume.mrcz"
    mrcz.writeMRC(pixels, str(inner), compressor="zstd")
    np.testing.assert_array_equal(opened(inner).data, pixels)
    path.write_bytes(codec.pack(inner.read_bytes()))
    with pytest.raises(MrcError, match=rf"{path.name}.*MRCZ"):
        opened(path)


@pytest.mark.parametrize("nsymbt", [-80, 17 * MiB, 2**31 - 1])
def test_absurd_extended_header_is_refused(codec: Codec, path: Path, nsymbt: int) -> None:
    path.write_bytes(codec.pack(by_hand.mrc(PIXELS[:4], nsymbt=nsymbt)))
    with pytest.raises(MrcError, match=rf"{path.name}.*NSYMBT.*[Dd]ecompress"):
        opened(path)


def test_zip_of_two_names_its_members(tmp_path: Path) -> None:
    path = tmp_path / "both.zip"
    path.write_bytes(zipped({"first.mrc": BYTES, "more/second.mrc": BYTES}))
    with pytest.raises(MrcError, match=r"both\.zip.*") as told:
        opened(path)
    for text in ("zip://", "first.mrc", "more/second.mrc"):
        assert text in str(told.value)
    # and that does open it
    ds = opened(f"zip://more/second.mrc::file://{path}")
    np.testing.assert_array_equal(ds.data[1], PIXELS[1])
    path.write_bytes(zipped({}))
    with pytest.raises(MrcError, match=r"both\.zip"):
        opened(path)


def bomb(codec: Codec) -> bytes:
    """Return 256 MiB of zeros, and a header before them, in little."""
    zeros = bytes(32 * MiB)
    if codec.name == "zip":
        zeros *= 8
        return zipped({"volume.mrc": by_hand.header((256, 1024, 1024), 0) + zeros})
    return codec.pack(by_hand.header((256, 1024, 1024), 0)) + codec.pack(zeros) * 8


@pytest.mark.parametrize("codec", ["gzip", "bz2", "xz"], indirect=True)
def test_bomb_is_opened_in_little_memory(codec: Codec, path: Path) -> None:
    path.write_bytes(bomb(codec))
    assert path.stat().st_size < 2 * MiB

    def read() -> xr.Dataset:
        ds = opened(path)
        assert not ds.data[0].values.any()
        return ds

    ds, peak = traced(read)
    assert ds.data.shape == (256, 1024, 1024)
    assert peak < 50 * MiB


@pytest.mark.skipif(
    "zstd" in fsspec.available_compressions(), reason="what reads zstd is installed here"
)
def test_missing_zstd_is_told(tmp_path: Path) -> None:
    path = tmp_path / "volume.mrc.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd\x04\x00" + bytes(5000))
    with pytest.raises(MrcError, match=r"volume\.mrc\.zst.*install.*zst"):
        opened(path)


# the file, and who else is there -----------------------------------------------------------------


@pytest.mark.parametrize("store", ["local", "http"])
@pytest.mark.parametrize("is_read", [False, True], ids=["opened", "partly read"])
def test_changed_file_is_an_error(
    codec: Codec, path: Path, server: servers.HttpServer, store: str, is_read: bool
) -> None:
    if store == "http" and is_read:
        pytest.skip("a store is asked once a process")
    ds = opened(path if store == "local" else server.url(path.name))
    if is_read:
        np.testing.assert_array_equal(ds.data[0], PIXELS[0])
    path.write_bytes(codec.pack(by_hand.mrc(PIXELS[::-1] + np.int16(1))))
    with pytest.raises(MrcError, match=rf"{path.name}: the file changed"):
        ds.data[-1].load()
    again = opened(path if store == "local" else server.url(path.name))
    np.testing.assert_array_equal(again.data[-1], PIXELS[0] + 1)


def test_change_in_a_store_is_found_however_much_was_read_before(
    tmp_path: Path, server: servers.HttpServer
) -> None:
    # a block of bzip2 is decoded as a whole, and these are long
    pixels = np.random.default_rng(12).integers(-(2**15), 2**15, PIXELS.shape, "i2")
    path = tmp_path / "volume.mrc.bz2"
    path.write_bytes(bz2.compress(by_hand.mrc(pixels)))
    ds = opened(server.url(path.name))
    path.write_bytes(bz2.compress(by_hand.mrc(pixels[::-1])))
    with pytest.raises(MrcError, match=rf"{path.name}: the file changed"):
        ds.data[-1].load()


@linux
def test_fifty_leave_no_descriptor(codec: Codec, path: Path) -> None:
    datasets = [opened(path) for _ in range(50)]
    assert files_open(path.parent) == []
    for ds in datasets[::5]:
        np.testing.assert_array_equal(ds.data[1], PIXELS[1])
    # an array holds none
    assert files_open(path.parent) == []
    del datasets, ds
    gc.collect()
    assert files_open(path.parent) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="it forks")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_fork_after_a_read(path: Path) -> None:
    ds = opened(path)
    np.testing.assert_array_equal(ds.data[10], PIXELS[10])
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        answer = b"no answer"
        try:
            signal.alarm(20)
            right = [np.array_equal(ds.data[z], PIXELS[z]) for z in (0, 19, 12)]
            answer = repr(right).encode()
        except BaseException as error:
            answer = repr(error).encode()
        finally:
            os.write(write_end, answer)
            os._exit(0)
    os.close(write_end)
    # at the same time, since positions in files are shared with the child
    same = [np.array_equal(ds.data[z], PIXELS[z]) for z in (1, 18, 11)]
    os.waitpid(child, 0)
    with open(read_end, "rb") as file:
        assert file.read() == b"[True, True, True]"
    assert all(same)


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


@pytest.fixture
def spool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where temporary files go: nothing may stay there."""
    folder = tmp_path_factory.mktemp("spool")
    with dask.config.set({"temporary-directory": str(folder)}):
        yield folder
    assert os.listdir(folder) == []


@suffixes
@pytest.mark.parametrize("is_lazy", [False, True], ids=["numpy", "dask"])
def test_write(tmp_path: Path, spool: Path, suffix: str, is_lazy: bool) -> None:
    path = tmp_path / f"volume.mrc{suffix}"
    pixels = da.from_array(SMALL, chunks=(3, 50, -1)) if is_lazy else SMALL
    to_mrc(labelled(pixels), path)
    assert os.listdir(tmp_path) == [path.name]
    check_written(path.read_bytes(), suffix, tmp_path)
    if suffix != ".xz":
        # mrcfile knows two of them
        with mrcfile.open(path) as mrc:
            np.testing.assert_array_equal(mrc.data, SMALL)
    ds = opened(path)
    np.testing.assert_array_equal(ds.data, SMALL)
    assert ds.mrc.voxel_size == pytest.approx({"z": 2.5, "y": 2.5, "x": 2.5})


@pytest.mark.parametrize(
    ("store", "suffix"), [("memory", ".gz"), ("memory", ".bz2"), ("memory", ".xz"), ("s3", ".gz")]
)
def test_write_to_a_store(
    tmp_path: Path, spool: Path, request: pytest.FixtureRequest, suffix: str, store: str
) -> None:
    options: dict[str, Any] = {}
    url = f"memory://written/volume.mrc{suffix}"
    if store == "s3":
        s3 = request.getfixturevalue("s3")
        url, options = s3.url(f"volume.mrc{suffix}"), {"storage_options": s3.storage_options}
    to_mrc(labelled(), url, **options)
    fs, name = fsspec.url_to_fs(url, **options.get("storage_options", {}))
    try:
        check_written(fs.cat_file(name), suffix, tmp_path)
        np.testing.assert_array_equal(opened(url, **options).data[3], SMALL[3])
        with pytest.raises(FileExistsError):
            to_mrc(labelled(SMALL + 1), url, **options)
        check_written(fs.cat_file(name), suffix, tmp_path)
    finally:
        fs.rm(name)


@pytest.fixture(scope="module")
def s3() -> Iterator[servers.S3]:
    with servers.s3_server() as s3:
        yield s3


@suffixes
def test_overwrite(tmp_path: Path, spool: Path, suffix: str) -> None:
    path = tmp_path / f"volume.mrc{suffix}"
    path.write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        to_mrc(labelled(), path)
    assert path.read_bytes() == b"precious"
    to_mrc(labelled(), path, overwrite=True)
    check_written(path.read_bytes(), suffix, tmp_path)
    # what is read from, too
    lazy = opened(path, chunks={}).data
    to_mrc(lazy, path, overwrite=True)
    check_written(path.read_bytes(), suffix, tmp_path)
    assert os.listdir(tmp_path) == [path.name]


@suffixes
def test_computed_later(tmp_path: Path, spool: Path, suffix: str) -> None:
    path = tmp_path / f"volume.mrc{suffix}"
    later = to_mrc(labelled(da.from_array(SMALL, chunks=(5, -1, -1))), path, compute=False)
    assert later is not None
    assert not path.exists()
    later.compute(scheduler="threads")
    check_written(path.read_bytes(), suffix, tmp_path)
    assert os.listdir(tmp_path) == [path.name]


def test_written_by_a_cluster(client: Client, tmp_path: Path, spool: Path) -> None:
    path = tmp_path / "volume.mrc.gz"
    with client.as_current():
        to_mrc(labelled(da.from_array(SMALL, chunks=(5, -1, -1))), path)
    check_written(path.read_bytes(), ".gz", tmp_path)
    assert os.listdir(tmp_path) == [path.name]


@suffixes
@pytest.mark.parametrize("before", [None, b"precious"], ids=["new", "old"])
def test_failing_task_leaves_what_was_there(
    tmp_path: Path, spool: Path, suffix: str, before: bytes | None
) -> None:
    path = tmp_path / f"volume.mrc{suffix}"
    if before is not None:
        path.write_bytes(before)

    def fail(part: Array, block_info: Any = None) -> Array:
        if block_info and block_info[0]["chunk-location"][0] == 17:
            raise RuntimeError("section 17 is beyond repair")
        return part

    lazy = da.from_array(SMALL, chunks=(1, -1, -1))
    breaking = lazy.map_blocks(fail, meta=np.empty((0, 0, 0), SMALL.dtype))
    with pytest.raises(RuntimeError, match="beyond repair"):
        to_mrc(labelled(breaking), path, overwrite=True)
    assert os.listdir(tmp_path) == ([path.name] if before else [])
    if before is not None:
        assert path.read_bytes() == before


@suffixes
def test_mrcz_in_a_stream_is_not_written(tmp_path: Path, spool: Path, suffix: str) -> None:
    for name, options in (
        ("volume.mrcz", {}),
        ("volume.mrc", {"compressor": "zstd"}),
        ("volume.mrc", {"compressor": "blosc2:zstd"}),
    ):
        # MrcError is a ValueError
        with pytest.raises(ValueError, match=r"MRCZ|compressor"):
            to_mrc(labelled(), tmp_path / f"{name}{suffix}", **options)
    assert os.listdir(tmp_path) == []


def test_codecs_that_are_only_read_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(MrcError, match=r"volume\.mrc\.zip: zip can be read and not written"):
        to_mrc(labelled(), tmp_path / "volume.mrc.zip")
    assert os.listdir(tmp_path) == []


@decoders
def test_gzip_is_the_same_each_time(codec: Codec, tmp_path: Path) -> None:
    path = tmp_path / "volume.mrc.gz"
    to_mrc(labelled(), path)
    check_written(path.read_bytes(), ".gz", tmp_path)
    with mrcfile.open(path) as mrc:
        np.testing.assert_array_equal(mrc.data, SMALL)
    first, again = path.read_bytes(), io.BytesIO()
    # the same bytes: a label of the next file could be of the next second
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


@suffixes
def test_streams_do_not_change_in_place(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"volume.mrc{suffix}"
    path.write_bytes(before := packed(WRITABLE[suffix]))
    # by the content, whatever the name
    other = tmp_path / "volume.mrc"
    other.write_bytes(before)
    for target in (path, other):
        for change in (
            lambda target=target: to_mrc(PIXELS[:2], target, region={"z": slice(0, 2)}),
            lambda target=target: to_mrc(PIXELS[:2], target, append_dim="z"),
            lambda target=target: mrc_xarray.edit_header(target, ispg=0),
        ):
            with pytest.raises(MrcError, match=rf"{target.name}: a .* can't be changed in place"):
                change()
            assert target.read_bytes() == before
    new = tmp_path / f"new.mrc{suffix}"
    for target in (path, new):
        with pytest.raises(MrcError, match=target.name):
            mrc_xarray.create(target, (4, 5, 6), "f4", overwrite=True)
    assert path.read_bytes() == before
    assert not new.exists()


# the command -------------------------------------------------------------------------------------


def test_convert_decompresses(codec: Codec, path: Path, tmp_path: Path) -> None:
    after = tmp_path / "after.mrc"
    assert main(["convert", "--quiet", str(path), str(after)]) == 0
    assert mrcfile.validate(after, print_file=sys.stderr)
    with mrcfile.open(after) as mrc:
        np.testing.assert_array_equal(mrc.data, PIXELS)
        assert mrc.voxel_size.tolist() == (1, 1, 1)


@suffixes
def test_convert_to_a_stream_and_on(tmp_path: Path, suffix: str) -> None:
    first, second, third = (tmp_path / name for name in ("a.mrc", f"b.mrc{suffix}", "c.mrcz"))
    first.write_bytes(raw := by_hand.mrc(SMALL))
    assert main(["convert", "--quiet", str(first), str(second)]) == 0
    inside = WRITABLE[suffix].unpack(second.read_bytes())
    assert inside[1024:] == raw[1024:]
    assert main(["convert", "--quiet", str(second), str(third)]) == 0
    np.testing.assert_array_equal(mrcz.readMRC(str(third))[0], SMALL)


def test_info(codec: Codec, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(path)]) == 0
    out = capsys.readouterr().out
    for text in (str(path), f"{NZ} z × {NY} y × {NX} x", codec.name):
        assert text in out
    assert main(["info", "--json", str(path)]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["shape"] == {"z": NZ, "y": NY, "x": NX}
    assert found["size_on_disk"] == path.stat().st_size


def test_info_of_damage_is_one_line(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_bytes(path.read_bytes()[:30])
    assert main(["info", str(path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert path.name in line


def test_nothing_warns(path: Path) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        opened(path).load()
        gc.collect()
    assert [str(warning.message) for warning in told] == []
