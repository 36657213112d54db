"""MRC inside gzip, bzip2, xz and zip opens like a plain file, as far as its bytes allow."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import itertools
import os
import pickle
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import by_hand
import mrcfile
import mrcz
import numpy as np
import pytest
import servers
import streams_by_hand as by
import xarray as xr
from streams_by_hand import BYTES, CODECS, NX, NY, NZ, PIXELS, SECTION, Codec, MiB, packed

from mrc_xarray import MrcError, MrcWarning
from mrc_xarray.backend import MrcBackendEntrypoint
from mrc_xarray.storage import StreamSource, open_decoded

RealFile = Callable[[str], Path]
Array = np.ndarray[Any, Any]

STREAMS = ["gzip", "isal", "bz2", "xz"]
streams = pytest.mark.parametrize("codec", STREAMS, indirect=True)


@pytest.fixture(params=[*STREAMS, "zip"])
def codec(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Codec:
    """A codec; "gzip" is decoded by the standard library, as without isal."""
    if request.param == "isal":
        pytest.importorskip("isal")
        return CODECS["gzip"]
    monkeypatch.setitem(sys.modules, "isal", None)
    return CODECS[request.param]


def opened(target: Any, **options: Any) -> xr.Dataset:
    return xr.open_dataset(target, engine="mrc", **options)


@pytest.fixture
def path(codec: Codec, tmp_path: Path) -> Path:
    path = tmp_path / f"volume.mrc{codec.suffix}"
    path.write_bytes(packed(codec))
    return path


# real files --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "stream"), [("emd_3197.map.gz", "gzip"), ("EMD-3197.map.bz2", "bz2")]
)
def test_emdb_map_equals_the_plain_one(real_file: RealFile, name: str, stream: str) -> None:
    path = real_file(name)
    ds, plain = opened(path), opened(real_file("EMD-3197.map"))
    xr.testing.assert_equal(ds, plain)
    assert ds.data.attrs["mrc_stream"] == stream
    assert ds.data.attrs["mrc_source"] == str(path)
    with mrcfile.open(path) as mrc:
        np.testing.assert_array_equal(ds.data, mrc.data)
        voxel = {axis: float(mrc.voxel_size[axis]) for axis in "zyx"}
        assert ds.mrc.voxel_size == pytest.approx(voxel, rel=1e-6)


def test_extended_header_of_a_microscope(real_file: RealFile, tmp_path: Path) -> None:
    plain = real_file("fei-extended.mrc")
    path = tmp_path / "fei.mrc.gz"
    with plain.open("rb") as file:
        path.write_bytes(gzip.compress(file.read(MiB), 1))
    ds, expected = opened(path), opened(plain)
    assert "tilt_angle" in ds.coords
    xr.testing.assert_equal(ds.drop_vars("data"), expected.drop_vars("data"))
    assert ds.mrc.extended_header == expected.mrc.extended_header
    with mrcfile.open(plain, header_only=True) as mrc:
        assert ds.mrc.extended_header == mrc.extended_header.tobytes()


# how a stream is opened --------------------------------------------------------------------------


def test_targets(codec: Codec, path: Path, http: servers.HttpServer) -> None:
    raw = path.read_bytes()
    with path.open("rb") as file:
        file.seek(10)
        for target in (path, raw, io.BytesIO(raw), file, http.url(path.name)):
            ds = opened(target)
            assert ds.data.attrs["mrc_stream"] == codec.name
            np.testing.assert_array_equal(ds.data[15], PIXELS[15])
        assert file.tell() == 10


def test_codec_depends_on_the_content(codec: Codec, tmp_path: Path) -> None:
    for name in ("volume.mrc", "volume.mrc.gz", "volume.bz2"):
        path = tmp_path / name
        path.write_bytes(packed(codec))
        np.testing.assert_array_equal(opened(path).data[1], PIXELS[1])
        path.write_bytes(BYTES)
        assert "mrc_stream" not in opened(path).data.attrs


def test_guess_decodes_the_beginning(codec: Codec, tmp_path: Path) -> None:
    guess = MrcBackendEntrypoint().guess_can_open
    path = tmp_path / f"volume.map{codec.suffix}"
    hdf5, stream = b"\x89HDF\r\n\x1a\n" + bytes(4096), codec.pack(BYTES[:9000])
    others = [codec.pack(inside) for inside in (b"", BYTES[:100], hdf5, stream)]
    for raw in (*others, packed(codec)[:30], packed(codec)):
        path.write_bytes(raw)
        assert guess(path) is (raw is packed(codec))
        assert guess(raw) is (raw is packed(codec))
    with xr.open_dataset(path) as ds:
        assert ds.data.attrs["mrc_stream"] == codec.name


SYMMETRY = b"X,Y,Z".ljust(80)
INSIDE: dict[str, tuple[Array, bytes]] = {
    "big-endian": (PIXELS, by_hand.mrc(PIXELS, byteorder=">")),
    "4 bits": (
        PIXELS[..., :-1].astype("u1"),
        by_hand.mrc(by_hand.pack_4bit(PIXELS[..., :-1].astype("u1")), 101, shape=(NZ, NY, NX - 1)),
    ),
    # longer than what is decoded first
    "extended header": (PIXELS, by_hand.mrc(PIXELS, extended=SYMMETRY * 1500, exttyp=b"CCP4")),
}


@pytest.mark.parametrize("inside", INSIDE)
@pytest.mark.parametrize("codec", ["gzip", "xz"], indirect=True)
def test_inside(codec: Codec, tmp_path: Path, inside: str) -> None:
    pixels, raw = INSIDE[inside]
    plain, path = tmp_path / "plain.mrc", tmp_path / f"plain.mrc{codec.suffix}"
    plain.write_bytes(raw)
    path.write_bytes(codec.pack(raw))
    expected, found = opened(plain), opened(path)
    np.testing.assert_array_equal(found.data[2:4], pixels[2:4])
    xr.testing.assert_equal(found, expected)
    assert found.data.dtype == expected.data.dtype
    assert found.mrc.header == expected.mrc.header
    assert found.mrc.extended_header == expected.mrc.extended_header


def test_layout_and_sidecars_by_the_name_without_the_suffix(tmp_path: Path) -> None:
    raw = gzip.compress(by_hand.mrc(PIXELS, ispg=0, mz=1), 1)
    for name, rule in (("a.map.gz", "3: the name ends in"), ("a.mrcs.xz", "4: the name ends in")):
        (tmp_path / name).write_bytes(raw)
        assert opened(tmp_path / name).data.attrs["mrc_layout_rule"].startswith(rule)
    angles = [-60 + 6 * i for i in range(NZ)]
    path = tmp_path / "series.mrc.bz2"
    path.write_bytes(raw)
    path.with_name("series.rawtlt").write_text("\n".join(map(str, angles)))
    assert opened(path).tilt_angle.values.tolist() == angles
    path.with_name("series.mrc.mdoc").write_text(
        "".join(f"[ZValue = {i}]\nTiltAngle = {-a}\n\n" for i, a in enumerate(angles))
    )
    assert opened(path).tilt_angle.values.tolist() == [-a for a in angles]


def test_compressed_sidecar(tmp_path: Path) -> None:
    path, angles = tmp_path / "series.st", tmp_path / "angles.tlt.gz"
    path.write_bytes(by_hand.mrc(PIXELS[:3], ispg=0, mz=1))
    angles.write_bytes(gzip.compress(b"-1\n0\n1\n"))
    assert opened(path, metadata_file=angles).tilt_angle.values.tolist() == [-1, 0, 1]
    # one that is longer than what is decoded first
    angles.write_bytes(gzip.compress(b"-1\n0\n1\n" + b"\n" * 100_000))
    assert opened(path, metadata_file=angles).tilt_angle.values.tolist() == [-1, 0, 1]
    angles.write_bytes(angles.read_bytes()[:-6])
    with pytest.raises(MrcError, match=r"angles\.tlt\.gz: the stream is damaged or truncated"):
        opened(path, metadata_file=angles)


NOT_MRC: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "empty"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(100_000), "HDF5"),
    "a stream": (gzip.compress(BYTES), "gzip"),
    "text": (b"once upon a time " * 10_000, ""),
}


@pytest.mark.parametrize("kind", NOT_MRC)
def test_what_is_inside_is_named(codec: Codec, path: Path, kind: str) -> None:
    inside, name = NOT_MRC[kind]
    path.write_bytes(codec.pack(inside))
    with pytest.raises(MrcError, match=rf"(?s){path.name}.*{name}"):
        opened(path)


def test_mrcz_inside_is_refused(tmp_path: Path) -> None:
    pixels = np.random.default_rng(11).integers(-(2**15), 2**15, (4, 256, 256), "i2")
    inner, path = tmp_path / "volume.mrcz", tmp_path / "volume.mrcz.gz"
    mrcz.writeMRC(pixels, str(inner), compressor="zstd")
    path.write_bytes(gzip.compress(inner.read_bytes()))
    with pytest.raises(MrcError, match=r"volume\.mrcz\.gz.*MRCZ"):
        opened(path)


@pytest.mark.parametrize("nsymbt", [-80, 17 * MiB, 2**31 - 1])
def test_absurd_extended_header_is_refused(tmp_path: Path, nsymbt: int) -> None:
    path = tmp_path / "volume.mrc.gz"
    path.write_bytes(gzip.compress(by_hand.mrc(PIXELS[:4], nsymbt=nsymbt)))
    with pytest.raises(MrcError, match=r"volume\.mrc\.gz.*NSYMBT.*[Dd]ecompress"):
        opened(path)


# sizes -------------------------------------------------------------------------------------------


def fetched(path: Path, *spans: tuple[int, int]) -> list[bytes]:
    with open_decoded(path)[0].fetching() as fetch:
        return [fetch(offset, n) for offset, n in spans]


def test_fetching_decodes_forward_and_from_the_start_again(codec: Codec, path: Path) -> None:
    end = len(BYTES)
    spans = [(10, 5), (end // 2, 100), (0, 20), (end - 5, 9), (end + 5, 3)]
    assert fetched(path, *spans) == [BYTES[offset : offset + n] for offset, n in spans]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(MrcError, match=r"is damaged or truncated|this begins as a zip stream"):
        fetched(path, (end - 5, 5))


def test_size_is_known_for_short_and_for_salvaged_streams(codec: Codec, tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    path.write_bytes(packed(codec))
    source, head = open_decoded(path)
    assert source.size is None
    assert head == BYTES[: 64 * 1024]
    assert open_decoded(path, salvages=True)[0].size == len(BYTES)
    path.write_bytes(codec.pack(BYTES[:5000]))
    assert open_decoded(path)[0].size == 5000


@pytest.mark.parametrize("shape", [(2**23, 8, 8), (8, 8, 2**23), (8, 2**23, 8)])
def test_more_sections_than_a_stream_may_promise(
    tmp_path: Path, shape: tuple[int, int, int]
) -> None:
    path = tmp_path / "claims.mrc.bz2"
    noise = np.random.default_rng(1).bytes(100_000)
    path.write_bytes(bz2.compress(by_hand.header(shape, 0) + noise))
    with pytest.raises(MrcError, match=r"promises 8388608 sections, rows or columns.*2097152"):
        opened(path)


def test_stream_that_contains_as_many_sections(tmp_path: Path) -> None:
    path = tmp_path / "line.mrc.gz"
    pixels = np.random.default_rng(2).integers(-128, 128, (2**21 + 100_000, 1, 1), "i1")
    path.write_bytes(gzip.compress(by_hand.mrc(pixels, ispg=1), 1))
    with pytest.warns(MrcWarning, match="z has no coordinates"):
        array = opened(path).data
    np.testing.assert_array_equal(array[-3:], pixels[-3:])


def test_large_read_is_decoded_before_its_memory_is_allocated(tmp_path: Path) -> None:
    # bzip2 could contain 400 MB in a stream of this length
    path = tmp_path / "volume.mrc.bz2"
    path.write_bytes(CODECS["bz2"].pack(by_hand.header((400, 1000, 1000), 0) + BYTES))
    ds = opened(path)
    with (
        by.less_memory_than(64 * MiB),
        pytest.raises(MrcError, match="holds a truncated file"),
    ):
        ds.load()


def test_header_that_promises_more_is_believed(codec: Codec, path: Path) -> None:
    path.write_bytes(codec.pack(by_hand.header((NZ + 3, NY, NX), 1) + BYTES[1024:]))
    ds = opened(path)
    assert ds.sizes["z"] == NZ + 3
    np.testing.assert_array_equal(ds.data[NZ - 1], PIXELS[-1])
    with pytest.raises(MrcError, match=rf"{path.name}: the .* stream holds a truncated file"):
        ds.data[NZ].load()
    with pytest.warns(MrcWarning, match=path.name):
        trimmed = opened(path, truncated="trim")
    np.testing.assert_array_equal(trimmed.data, PIXELS)


def test_short_stream_is_checked_like_a_plain_file(codec: Codec, path: Path) -> None:
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


@pytest.mark.parametrize("codec", ["gzip", "isal", "xz"], indirect=True)
def test_only_a_long_stream_is_a_warning(
    codec: Codec, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path = tmp_path / f"large.mrc{codec.suffix}"
    path.write_bytes(codec.pack(by_hand.header((100, 1024, 1024), 1) + bytes(128 * 1024)))
    os.truncate(path, 32 * MiB)
    with pytest.warns(MrcWarning, match=r"large\.mrc.*mrc-xarray convert") as caught:
        opened(path)
    (warning,) = caught
    assert ("install isal" in str(warning.message)) == ("[gzip]" in request.node.name)
    os.truncate(path, 32 * MiB - 1)
    # warnings are errors
    assert opened(path).data.shape == (100, 1024, 1024)


# damage ------------------------------------------------------------------------------------------


def wrong_checksum(codec: Codec, raw: bytes) -> bytes:
    """Flip bits of the checksum of the complete stream."""
    if codec.name == "zip":
        return by.flipped(raw, raw.rindex(b"PK\1\2") + 16)
    # in xz the index (12 bytes) and the footer (12 bytes) follow
    return by.flipped(raw, {"gzip": -8, "bz2": -3, "xz": -28}[codec.name])


def right_or_refused(read: Callable[[], xr.DataArray], expected: Array) -> None:
    with contextlib.suppress(MrcError):
        np.testing.assert_array_equal(read(), expected)


DAMAGES: dict[str, Callable[[Codec, bytes], bytes]] = {
    "truncated": lambda codec, raw: raw[: len(raw) * 3 // 4],
    "damaged": lambda codec, raw: by.zeroed(raw, len(raw) * 3 // 4),
    "wrong checksum": wrong_checksum,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_loading_a_damaged_stream_is_an_error(codec: Codec, path: Path, damage: str) -> None:
    raw = DAMAGES[damage](codec, packed(codec))
    # the standard library finds it as well
    with pytest.raises(by.ERRORS):
        codec.unpack(raw)
    path.write_bytes(raw)
    if codec.name == "zip" and damage == "truncated":
        # the directory is at the end
        with pytest.raises(MrcError, match=path.name):
            opened(path)
        return
    ds = opened(path)
    # before its end is decoded, the damage may not be known
    right_or_refused(lambda: ds.data[1], PIXELS[1])
    with pytest.raises(MrcError, match=rf"{path.name}.*(truncated|damaged)"):
        ds.load()
    with pytest.raises(MrcError, match=path.name):
        pickle.loads(pickle.dumps(ds)).load()
    right_or_refused(lambda: ds.data[2], PIXELS[2])


@streams
def test_sections_in_front_of_the_end_can_be_read(codec: Codec, path: Path) -> None:
    raw = packed(codec)[: len(packed(codec)) // 2]
    assert codec.decompressor is not None
    n_complete = (len(codec.decompressor().decompress(raw)) - 1024) // SECTION
    assert 3 < n_complete < NZ - 3
    path.write_bytes(raw)
    ds = opened(path)
    assert ds.data.shape == PIXELS.shape
    np.testing.assert_array_equal(ds.data[: n_complete - 1], PIXELS[: n_complete - 1])
    for z in (NZ - 1, n_complete + 1):
        with pytest.raises(MrcError, match=rf"{path.name}.*damaged or truncated"):
            ds.data[z].load()
    np.testing.assert_array_equal(ds.data[0], PIXELS[0])
    with pytest.warns(MrcWarning, match=path.name):
        trimmed = opened(path, truncated="trim")
    assert n_complete - 1 <= trimmed.sizes["z"] <= n_complete
    np.testing.assert_array_equal(trimmed.data, PIXELS[: trimmed.sizes["z"]])


@streams
def test_sections_in_front_of_the_damage_can_be_read(codec: Codec, path: Path) -> None:
    # a quarter each in a stream of its own, so that damage is found where it is
    ends = [0, *(1024 + SECTION * z for z in (5, 10, 15, 20))]
    quarters = [codec.pack(BYTES[a:b]) for a, b in itertools.pairwise(ends)]
    if codec.name == "gzip":
        # after the header of 10 bytes, a kind of block that does not exist
        quarters[2] = quarters[2][:10] + b"\7" + quarters[2][11:]
    else:
        quarters[2] = by.zeroed(quarters[2], len(quarters[2]) // 2)
    with pytest.raises(by.ERRORS, match=r"^((?!CRC).)*$"):
        codec.unpack(b"".join(quarters))
    path.write_bytes(b"".join(quarters))
    ds = opened(path)
    np.testing.assert_array_equal(ds.data[:9], PIXELS[:9])
    for z in (15, 19):
        with pytest.raises(MrcError, match=rf"{path.name}.*damaged or truncated"):
            ds.data[z].load()
    np.testing.assert_array_equal(ds.data[8], PIXELS[8])


@streams
def test_wrong_checksum_is_salvaged(codec: Codec, path: Path) -> None:
    path.write_bytes(wrong_checksum(codec, packed(codec)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MrcWarning)
        ds = opened(path, truncated="trim")
    # other decoders than gzip's can lose the last 16 KiB of compressed bytes
    assert ds.sizes["z"] >= NZ - (0 if codec is CODECS["gzip"] else 4)
    np.testing.assert_array_equal(ds.data, PIXELS[: ds.sizes["z"]])


@pytest.mark.parametrize("codec", ["gzip", "isal"], indirect=True)
def test_damage_of_the_last_bytes_is_found(codec: Codec, path: Path) -> None:
    raw = packed(codec)
    for back in (5, 8, 9, 10, 11, 12):
        path.write_bytes(by.flipped(raw, -back))
        with pytest.raises(MrcError, match="damaged"):
            opened(path).load()


@pytest.mark.slow
@streams
@pytest.mark.parametrize("chunks", [None, {}], ids=["load", "dask"])
def test_no_flipped_bit_at_the_end_gives_wrong_pixels(
    codec: Codec, path: Path, chunks: Any
) -> None:
    """If the mark of the end is lost, a few bytes too many are decoded before that shows."""
    pixels = PIXELS[:3, :20, :20]
    long = codec.pack(by_hand.mrc(pixels) + bytes(70_000))
    short = codec.pack(by_hand.mrc(pixels))
    n_errors = 0
    for complete, at, bit in itertools.product((long, short), range(-24, 0), range(0, 8, 3)):
        damaged = bytearray(complete)
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


@streams
def test_stream_that_ends_within_the_header(codec: Codec, path: Path) -> None:
    for n in (4, 12, 40):
        path.write_bytes(codec.pack(np.random.default_rng(1).bytes(10_000))[:n])
        with pytest.raises(MrcError, match=path.name):
            opened(path)


@pytest.mark.parametrize("codec", ["gzip"], indirect=True)
def test_changed_file_is_an_error(codec: Codec, path: Path) -> None:
    ds = opened(path)
    # this decodes all
    np.testing.assert_array_equal(ds.data[-1], PIXELS[-1])
    path.write_bytes(codec.pack(by_hand.mrc(PIXELS[::-1])))
    with pytest.raises(MrcError, match=rf"{path.name}: the file changed"):
        ds.data[0].load()
    np.testing.assert_array_equal(opened(path).data[0], PIXELS[-1])


def test_source_of_a_stream_is_small_and_survives_pickling(codec: Codec, path: Path) -> None:
    source, _ = open_decoded(path)
    assert isinstance(source, StreamSource)
    assert source.can_be_reopened
    assert source.read(70_000, 10) == BYTES[70_000:70_010]
    pickled = pickle.dumps(source)
    assert len(pickled) < 2000
    again = pickle.loads(pickled)
    assert again == source
    assert again.name == str(path)
    assert again.read(70_000, 10) == BYTES[70_000:70_010]
