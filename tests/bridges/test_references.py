"""References, read by zarr through fsspec as anyone reads them, against arrays built by hand."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import by_hand
import dm_by_hand
import fsspec
import modes_by_hand
import mrcz_by_hand
import numpy as np
import pytest
import servers
import xarray as xr
from fsspec.implementations.reference import LazyReferenceMapper

from mrc_xarray import MrcError, MrcWarning, references, to_mrc
from mrc_xarray.bridges.references import for_parquet

Array = np.ndarray[Any, Any]
FRAMES = {"ispg": 0, "mz": 1}
pytestmark = pytest.mark.usefixtures("codec")


def written(path: Path, raw: bytes) -> str:
    path.write_bytes(raw)
    return str(path)


def read(refs: Any, **options: Any) -> xr.Dataset:
    """Return what zarr reads from references that were a JSON file."""
    found = {"fo": json.loads(json.dumps(refs))} | options
    return xr.open_zarr("reference://", storage_options=found, chunks=None).load()


def opened(target: Any, **options: Any) -> xr.Dataset:
    return xr.open_dataset(target, engine="mrc", chunks=None, **options).load()


def ranges(refs: Any) -> dict[str, tuple[int, int]]:
    """Return first byte and length of each chunk of pixels."""
    found = refs["refs"].items()
    return {key: (v[1], v[2]) for key, v in found if key.startswith("data/c/")}


def frames(n: int, shape: tuple[int, ...] = (5, 9), dtype: str = "i2") -> Array:
    return modes_by_hand.noise((n, *shape), dtype)


@pytest.mark.parametrize("dtype", ["<i1", ">i2", "<f4", ">c8", ">f2"])
def test_plain_files(tmp_path: Path, dtype: str) -> None:
    pixels = frames(4, dtype="u1").astype(dtype)
    pixels[0] = 0
    path = written(tmp_path / "a {{b}} ü%20#.mrc", by_hand.mrc(pixels, byteorder=dtype[0]))
    refs = references(path)
    ds = read(refs)
    np.testing.assert_array_equal(ds["data"].values, pixels)
    assert ds["data"].dtype == np.dtype(dtype[1:])
    xr.testing.assert_identical(ds, opened(path))
    # the bytes are those of the file
    assert ranges(refs) == {"data/c/0/0/0": (1024, pixels.nbytes)}
    assert refs["refs"]["data/c/0/0/0"][0] == path


def test_zarr_3_alone_and_zeros_are_zeros(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mrc", by_hand.mrc(np.zeros((2, 3, 4), "f4")))
    refs = references(path)
    keys = set(refs["refs"])
    assert not [key for key in keys if "/.z" in key or key.startswith(".z")]
    for masks in (True, False):
        found = {"fo": refs}
        ds = xr.open_zarr("reference://", storage_options=found, mask_and_scale=masks)
        assert (ds["data"].values == 0).all()
    unconsolidated = xr.open_zarr(
        "reference://", storage_options={"fo": refs}, consolidated=False, chunks=None
    )
    xr.testing.assert_identical(unconsolidated.load(), opened(path))


def test_special_pixels(tmp_path: Path) -> None:
    path = written(tmp_path / "rgb.mrc", modes_by_hand.rgb()[0])
    np.testing.assert_array_equal(read(references(path))["data"].values, modes_by_hand.rgb()[1])
    pairs = frames(3, (4, 10))
    raw = by_hand.mrc(pairs, 3, shape=(3, 4, 5), byteorder=">")
    ds = read(references(written(tmp_path / "fft.mrc", raw)))
    np.testing.assert_array_equal(ds["data"].values, pairs[..., ::2] + 1j * pairs[..., 1::2])
    raw, pixels = modes_by_hand.four_bits()
    ds = read(references(written(tmp_path / "packed.mrc", raw)))
    np.testing.assert_array_equal(ds["data"].values, pixels)
    one = written(tmp_path / "one.mrc", by_hand.mrc(np.full((1, 1, 1), 7, "i2"), cella=(0, 0, 0)))
    xr.testing.assert_identical(read(references(one)), opened(one))


def test_a_block_of_mrcz_is_a_chunk(tmp_path: Path) -> None:
    raw = mrcz_by_hand.file(mrcz_by_hand.chunks())
    path = written(tmp_path / "a.mrcz", raw)
    refs = references(path)
    places = mrcz_by_hand.block_places(raw, mrcz_by_hand.N)
    assert ranges(refs) == {f"data/c/{i}/0/0": place for i, place in enumerate(places)}
    ds = read(refs)
    np.testing.assert_array_equal(ds["data"].values, mrcz_by_hand.PIXELS)
    xr.testing.assert_identical(ds, opened(path))


def test_positions_without_a_frame(tmp_path: Path) -> None:
    options = {"scan_shape": (2, 4), "scan_offset": -1, "scan_flyback": 1}
    for dtype, fill in (("f4", np.nan), ("i2", 0)):
        pixels = frames(8, dtype=dtype) + np.array(1, dtype)
        path = written(tmp_path / f"{dtype}.mrc", by_hand.mrc(pixels, **FRAMES))
        refs = references(path, **options)
        data = read(refs)["data"].values
        np.testing.assert_array_equal(data[0, 0], np.full((5, 9), fill))
        np.testing.assert_array_equal(data[0, 1:], pixels[:3])
        np.testing.assert_array_equal(data[1], pixels[4:8])
        assert "data/c/0/0/0/0" not in ranges(refs)
        xr.testing.assert_identical(read(refs), opened(path, **options))


def test_small_frames_share_chunks_and_large_ones_are_cut(tmp_path: Path) -> None:
    def chunks(shape: tuple[int, int, int], **options: Any) -> tuple[Any, int]:
        head = by_hand.header(shape, 1, **FRAMES)
        path = tmp_path / "a.mrc"
        by_hand.sparse(path, head, 1024 + 2 * shape[0] * shape[1] * shape[2])
        refs = references(path, **options)
        document = json.loads(refs["refs"]["data/zarr.json"])
        found = sorted(ranges(refs).values())
        stops = [start + nbytes for start, nbytes in found]
        # without a gap
        assert [1024, *stops[:-1]] == [start for start, _ in found]
        return document["chunk_grid"]["configuration"]["chunk_shape"], len(found)

    assert chunks((65536, 64, 64), scan_shape=(256, 256)) == ([2, 256, 64, 64], 128)
    assert chunks((1009, 64, 64)) == ([1009, 64, 64], 1)
    assert chunks((10, 2048, 2048)) == ([1, 2048, 2048], 10)
    assert chunks((2, 8192, 8192)) == ([1, 256, 8192], 64)


def test_files_along_a_new_dimension(tmp_path: Path) -> None:
    stacks = [frames(4) + np.int16(i) for i in range(3)]
    paths = []
    for i, pixels in enumerate(stacks):
        paths.append(written(tmp_path / f"{i}.st", by_hand.mrc(pixels, **FRAMES)))
        angles = "".join(f"[ZValue = {k}]\nTiltAngle = {k + i}\n" for k in range(4))
        (tmp_path / f"{i}.st.mdoc").write_text(f"ImageFile = {i}.st\n{angles}")
    refs = references(paths, "series")
    ds = read(refs)
    np.testing.assert_array_equal(ds["data"].values, stacks)
    np.testing.assert_array_equal(ds["tilt_angle"].values, [np.arange(4) + i for i in range(3)])
    expected = xr.concat([opened(path) for path in paths], "series")
    xr.testing.assert_identical(ds, expected)
    doses = xr.DataArray([1.5, 3.0, 4.5], dims="dose", name="dose", attrs={"units": "e/nm^2"})
    ds = read(references(iter(paths), doses))
    np.testing.assert_array_equal(ds["data"].sel(dose=3.0).values, stacks[1])
    assert ds["dose"].attrs == {"units": "e/nm^2"}


def test_files_along_one_of_their_dimensions(tmp_path: Path) -> None:
    sizes = (4, 6, 2)
    parts = [frames(n) + np.int16(n) for n in sizes]
    starts = np.cumsum((0, *sizes[:-1]))
    paths = [
        written(tmp_path / f"{n}.mrc", by_hand.mrc(part, nzstart=int(start), origin=(0, 0, start)))
        for n, part, start in zip(sizes, parts, starts, strict=True)
    ]
    refs = references(paths, "z")
    ds = read(refs)
    np.testing.assert_array_equal(ds["data"].values, np.concatenate(parts))
    xr.testing.assert_identical(ds, xr.concat([opened(path) for path in paths], "z"))
    # chunks of two sections, which divide all files
    assert len(ranges(refs)) == 6
    rows = read(references([paths[0], paths[0]], "y"))["data"].values
    np.testing.assert_array_equal(rows, np.concatenate([parts[0], parts[0]], 1))


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    def file(name: str, pixels: Array, **fields: Any) -> str:
        return written(tmp_path / name, by_hand.mrc(pixels, **fields))

    a = file("a.mrc", frames(4))
    for other, what in {
        file("dtype.mrc", frames(4, dtype="f4")): "dtype is float32; accepted: int16",
        file("shape.mrc", frames(4, (5, 8))): "5, 8; accepted: 4, 5, 9",
        file("stack.mrc", frames(4), **FRAMES): "dimensions is image, y, x; accepted: z, y, x",
        file("order.mrc", frames(4), byteorder=">"): "way to store pixels",
        file("unknown.mrc", frames(4), cella=(0, 0, 0)): "known voxel size along",
        file("moved.mrc", frames(4), origin=(3, 0, 0)): "cannot align",
    }.items():
        with pytest.raises(MrcError, match=f"{what}"):
            references([a, other], "tomogram")
    with pytest.raises(MrcError, match=r"shape\.mrc.*5, 8; accepted: 5, 9, as in .*a\.mrc"):
        references([a, str(tmp_path / "shape.mrc")], "z")
    with pytest.raises(ValueError, match="dim is None; accepted for 2 files"):
        references([a, a])
    with pytest.raises(ValueError, match="target is empty"):
        references([], "z")


def test_what_has_no_references(tmp_path: Path) -> None:
    raw, _ = modes_by_hand.plain()
    with pytest.raises(MrcError, match="bytes can't be referred to; pass a path or URL"):
        references(raw)
    with pytest.raises(MrcError, match="a compressed stream have no byte ranges"):
        references(written(tmp_path / "a.mrc.gz", gzip.compress(raw)))
    with pytest.raises(FileNotFoundError):
        references(tmp_path / "missing.mrc")
    # the URL of a reference would be that of another file
    fs = fsspec.filesystem("memory")
    fs.pipe("/a#b.mrc", raw)
    with (
        pytest.warns(MrcWarning, match="without user, password"),
        pytest.raises(MrcError, match=r"memory://a: .* contains \? or #"),
    ):
        references("memory://a#b.mrc")
    fs.rm("/a#b.mrc")


def test_dm_files(tmp_path: Path) -> None:
    pixels = frames(3, dtype="f4")
    path = written(tmp_path / "a.dm4", dm_by_hand.dm(dm_by_hand.image(pixels, 2)))
    ds = read(references(path, engine="dm"))
    np.testing.assert_array_equal(ds["data"].values, pixels)
    xr.testing.assert_identical(ds, xr.open_dataset(path, engine="dm").load())
    spectrum = dm_by_hand.image(np.arange(7, dtype="f4"), 2, axes=[(0, 0.5, "eV")])
    path = written(tmp_path / "spectrum.dm4", dm_by_hand.dm(spectrum))
    ds = read(references(path, engine="dm"))
    xr.testing.assert_identical(ds, xr.open_dataset(path, engine="dm").load())
    colours = dm_by_hand.image(np.zeros((4, 5, 4), "u1"), 23, (4, 5))
    path = written(tmp_path / "rgb.dm4", dm_by_hand.dm(colours))
    with pytest.raises(MrcError, match=r"rgb\.dm4: no codec of Zarr decodes these pixels"):
        references(path, engine="dm")


@mrcz_by_hand.needs_blosc2
def test_chunks_of_version_5(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mrcz", mrcz_by_hand.file(mrcz_by_hand.chunks(5)))
    with pytest.raises(MrcError, match=r"a\.mrcz: the blocks are chunks of version 5"):
        references(path)


def test_parquet_files_of_kerchunk_take_them(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mrcz", mrcz_by_hand.file(mrcz_by_hand.chunks()))
    refs = for_parquet(references(path))
    xr.testing.assert_identical(read(refs), opened(path))
    # as kerchunk.df.refs_to_dataframe writes them
    mapper = LazyReferenceMapper.create(str(tmp_path / "a.parq"), record_size=100)
    for key in sorted(refs["refs"]):
        mapper[key] = refs["refs"][key]
    places = mrcz_by_hand.block_places(Path(path).read_bytes(), mrcz_by_hand.N)
    for i, (start, nbytes) in enumerate(places):
        assert mapper[f"data/{i}.0.0"] == [path, start, nbytes]


@pytest.mark.slow
def test_names_of_files(tmp_path: Path) -> None:
    paths = [written(tmp_path / f"{n}.mrc", by_hand.mrc(frames(n))) for n in (2, 3)]
    names = xr.DataArray(["two", "three"], dims="name", name="name")
    with pytest.raises(MrcError, match="the shape is 3, 5, 9; accepted: 2, 5, 9"):
        references(paths, names)
    ds = read(references([paths[0], paths[0]], names))
    np.testing.assert_array_equal(ds["data"].sel(name="three").values, frames(2))


# an environment without this package, and with no other way to read the file
READ_ALONE = """
import json, sys
sys.modules["mrc_xarray"] = None
import xarray as xr
fo = json.load(sys.stdin)
ds = xr.open_zarr("reference://", storage_options={"fo": fo}, chunks=None)
print(ds["data"].dtype, int(ds["data"].sum()), list(ds["x"].values[:2]), ds["x"].attrs["units"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("is_compressed", [False, True])
def test_no_part_of_this_package_is_needed_to_read(tmp_path: Path, is_compressed: bool) -> None:
    compressed = mrcz_by_hand.file(mrcz_by_hand.chunks(), ispg=1, mx=64, my=48, mz=10)
    raw = compressed if is_compressed else by_hand.mrc(mrcz_by_hand.PIXELS, cella=(128, 96, 20))
    path = written(tmp_path / "a.mrcz", raw)
    done = subprocess.run(
        [sys.executable, "-c", READ_ALONE],
        input=json.dumps(references(path)),
        capture_output=True,
        text=True,
        check=True,
    )
    voxel = 1.0 if is_compressed else 2.0
    expected = (
        f"uint16 {mrcz_by_hand.PIXELS.sum()} [np.float64(0.0), np.float64({voxel})] angstrom"
    )
    assert done.stdout.strip() == expected


@pytest.mark.slow
@pytest.mark.parametrize("compressor", ["none", "zstd", "lz4", "lz4hc", "blosclz", "zlib"])
@pytest.mark.parametrize("dtype", ["i1", "i2", "f4", "c8"])
def test_files_by_mrcz(tmp_path: Path, dtype: str, compressor: str) -> None:
    import mrcz

    pixels = frames(7, (33, 65), "u1").astype(dtype)
    path = str(tmp_path / "a.mrcz")
    options = {} if compressor == "none" else {"compressor": compressor, "clevel": 3}
    mrcz.writeMRC(pixels, path, pixelsize=(1.5, 1.5, 1.5), pixelunits="\u00c5", **options)
    ds = read(references(path))
    np.testing.assert_array_equal(ds["data"].values, pixels)
    xr.testing.assert_identical(ds, opened(path))


@pytest.mark.slow
def test_five_labelled_dimensions(tmp_path: Path) -> None:
    pixels = frames(24).reshape(2, 3, 4, 5, 9)
    coords = {
        "time": np.array(["2026-01-01", "2026-01-02"], "datetime64[us]"),
        "channel": ["a", "bc", "d"],
        "z": ("z", 2.0 * np.arange(4), {"units": "angstrom"}),
    }
    path = tmp_path / "a.mrcz"
    to_mrc(xr.DataArray(pixels, coords, ("time", "channel", "z", "y", "x")), path)
    ds = read(references(path))
    np.testing.assert_array_equal(ds["data"].sel(channel="bc").values, pixels[:, 1])
    np.testing.assert_array_equal(ds["time"].values, coords["time"])
    xr.testing.assert_identical(ds, opened(path))


@pytest.mark.slow
def test_http_and_s3_without_credentials(tmp_path: Path) -> None:
    raw = mrcz_by_hand.file(mrcz_by_hand.chunks())
    written(tmp_path / "a.mrcz", raw)
    with servers.http_server(tmp_path) as http, servers.s3_server() as s3:
        url = http.url("a.mrcz")
        aio = {"asynchronous": True}
        ds = read(references([url, url], "t"), remote_protocol="http", remote_options=aio)
        xr.testing.assert_identical(ds, xr.concat([opened(url), opened(url)], "t"))
        with pytest.warns(MrcWarning, match="references have the URL without user, password"):
            refs = references(url.replace("//", "//me:hidden@") + "?token=hidden")
        assert "hidden" not in json.dumps(refs)
        assert refs["refs"]["data/c/0/0/0"][0] == url
        keys = s3.storage_options
        stored = s3.put("a.mrcz", raw)
        refs = references(stored, storage_options=keys)
        assert "secret" not in json.dumps(refs)
        ds = read(refs, remote_protocol="s3", remote_options=keys | aio)
        xr.testing.assert_identical(ds, opened(stored, storage_options=keys))
        with pytest.raises(MrcError, match="a chain of URLs can't be referred to"):
            references(f"simplecache::{url}")


REAL = (
    "EMD-3197.map", "fei-extended.mrc", "direct_electron/Custom_movie.mrc",
    "direct_electron/20241021_00405_movie.mrc", "real/2dx_no_map_word.mrc", "real/griddata.ccp4",
    "real/cctbx_box_in_cell.ccp4", "real/relion_float16.mrc", "real/unsigned_bytes.rec",
    "real/warptools_particle.mrcs",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::mrc_xarray.MrcWarning")
@pytest.mark.parametrize("name", REAL)
def test_real_files(real_file: Callable[[str], Path], name: str) -> None:
    path = real_file(name)
    xr.testing.assert_identical(read(references(path)), opened(path))


@pytest.mark.slow
def test_many_sections_are_quick(tmp_path: Path) -> None:
    n = 100_000
    block = bytes(mrcz_by_hand.chunk(np.arange(64, dtype="u2").reshape(8, 8), 2))
    fields = {"ispg": 0, "mx": 0, "my": 0, "mz": 0, "labels": (b"MRCZ0.6.0",)}
    head = by_hand.header((n, 8, 8), 6006, packed_bytes=n * len(block), **fields)
    path = written(tmp_path / "a.mrcz", head + n * block)
    before = time.perf_counter()
    refs = references(path)
    assert time.perf_counter() - before < 20
    assert ranges(refs)["data/c/99999/0/0"] == (1024 + 99_999 * len(block), len(block))
    plain = by_hand.sparse(
        tmp_path / "plain.mrc", by_hand.header((n, 256, 256), 1, **FRAMES), 1024 + n * 2**17
    )
    assert len(json.dumps(references(plain))) < 10**6
