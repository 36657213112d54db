"""The blocks of MRCZ files: found without an index, read one by one, and damaged."""

from __future__ import annotations

import io
import json
import pickle
import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import blosc
import by_hand
import mrcz
import numpy as np
import pytest
import servers
import xarray as xr
from distributed import Client
from mrcz_by_hand import (
    METADATA,
    NX,
    NY,
    PIXELS,
    Array,
    N,
    block_places,
    chunks,
    file,
    positions,
    put,
    start_of,
    versions,
)

from mrc_xarray import MrcError, MrcWarning

MiB = 1024**2


class Opened(NamedTuple):
    """The warnings of an opened file, and each section or its error."""

    warnings: list[str]
    sections: list[Array | MrcError]

    def damaged(self) -> list[int]:
        return [k for k, section in enumerate(self.sections) if isinstance(section, MrcError)]

    def assert_right(self, but: int | None = None) -> None:
        """Compare all sections; section `but` may be an error."""
        assert set(self.damaged()) <= {but}
        for k, section in enumerate(self.sections):
            if not isinstance(section, MrcError):
                np.testing.assert_array_equal(section, PIXELS[k], f"section {k}")


def opened(raw: bytes, **options: Any) -> Opened:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        ds = xr.open_dataset(io.BytesIO(raw), engine="mrc", cache=False, **options)
    assert all(issubclass(warning.category, MrcWarning) for warning in warned)
    sections: list[Array | MrcError] = []
    for k in range(ds.data.shape[0]):
        try:
            sections.append(ds.data[k].values)
        except MrcError as error:
            sections.append(error)
    return Opened([str(warning.message) for warning in warned], sections)


@versions
def test_intact_file_has_no_warning(version: int) -> None:
    found = opened(file(chunks(version), METADATA, exttyp=b"json"))
    assert found.warnings == []
    assert len(found.sections) == N
    found.assert_right()


# damaged headers of blocks ----------------------------------------------------------------------

# field, value, and what is accepted instead
DAMAGE = [
    ("version", 6, "2 or 5"),
    ("typesize", 0, "1, 2, 4, 8 or 16"),
    ("nbytes", 2**32 - 1, f"{NY * NX * 2} bytes"),
    ("ctbytes", 0, "bytes or more"),
    ("ctbytes", 19, "bytes or more"),
]


@versions
@positions
@pytest.mark.parametrize(("field", "value", "accepted"), DAMAGE)
def test_damaged_header_ends_what_can_be_read(
    version: int, k: int, field: str, value: int, accepted: str
) -> None:
    blocks = chunks(version)
    put(blocks[k], field, value)
    raw, start = file(blocks), start_of(blocks, k)
    place = rf"of block {k} \(bytes {start}–{start + 15}\) is {value}; accepted: .*{accepted}"
    with pytest.raises(MrcError, match=place) as caught:
        opened(raw)
    if not k:
        assert "No section can be read" in str(caught.value)
        with pytest.raises(MrcError, match=place):
            opened(raw, truncated="trim")
        return
    readable = f"Sections 0 to {k - 1}" if k > 1 else "Section 0"
    assert f"{readable} can be read, and none after the damage" in str(caught.value)
    assert "truncated='trim' opens them" in str(caught.value)
    found = opened(raw, truncated="trim")
    (warning,) = found.warnings
    assert re.search(place, warning)
    assert f"{readable} can be read" in warning
    assert len(found.sections) == k
    found.assert_right()


@pytest.mark.parametrize("error", [-100, 1, 2**31 - 2000])
@pytest.mark.parametrize("k", [0, 4])
def test_wrong_size_of_a_block_hides_the_next_blocks(k: int, error: int) -> None:
    blocks = chunks()
    put(blocks[k], "ctbytes", len(blocks[k]) + error)
    with pytest.raises(MrcError, match=rf"truncated|of block {k + 1} \(bytes"):
        opened(file(blocks))
    if not k:
        return
    found = opened(file(blocks), truncated="trim")
    assert len(found.warnings) == 1
    assert len(found.sections) in (k, k + 1)
    found.assert_right(but=k)


def test_last_block_that_is_too_small() -> None:
    blocks = chunks()
    put(blocks[-1], "ctbytes", len(blocks[-1]) - 10)
    found = opened(file(blocks))
    assert len(found.warnings) == 1
    assert found.damaged() == [N - 1]
    assert f"section {N - 1}, at byte {start_of(blocks, N - 1)}: " in str(found.sections[-1])
    found.assert_right(but=N - 1)


@pytest.mark.parametrize("more", [1, 2**31])
def test_last_block_beyond_the_file_is_truncation(more: int) -> None:
    blocks = chunks()
    put(blocks[-1], "ctbytes", len(blocks[-1]) + more)
    with pytest.raises(MrcError, match=f"truncated.* {N - 1} complete sections"):
        opened(file(blocks))
    found = opened(file(blocks), truncated="trim")
    assert len(found.sections) == N - 1
    found.assert_right()


# damaged contents of blocks ---------------------------------------------------------------------


def by_blosc(block: bytearray) -> Array | None:
    """Decode with blosc itself; None if it can't."""
    try:
        if block[0] == 2:
            content = blosc.decompress(bytes(block))
        else:
            import blosc2

            content = blosc2.decompress2(bytes(block))
    except Exception:
        return None
    return np.frombuffer(content, "u2").reshape(NY, NX)


def assert_as_blosc_has_it(blocks: list[bytearray], k: int, *, may_refuse: bool) -> None:
    """Check that block `k` is an error, or decodes to what blosc decodes.

    With `may_refuse`, a block that blosc decodes may be refused, as its header makes no sense.
    """
    found = opened(file(blocks))
    assert found.warnings == []
    section = found.sections[k]
    if isinstance(section, MrcError):
        assert f"section {k}, at byte {start_of(blocks, k)}: " in str(section)
        assert may_refuse or by_blosc(blocks[k]) is None
    else:
        np.testing.assert_array_equal(section, by_blosc(blocks[k]))
        found.sections[k] = PIXELS[k]
    found.assert_right(but=k)


@versions
@pytest.mark.parametrize(
    ("field", "value"),
    [("codec version", 99), ("typesize", 1), ("blocksize", 0), ("blocksize", 333),
     ("blocksize", 2**31 - 1), ("blocksize", 2**32 - 1), ("flags", 0), ("flags", 0x20),
     ("flags", 0x60), ("flags", 0xFF)],
)  # fmt: skip
def test_field_that_the_decoder_checks(version: int, field: str, value: int) -> None:
    blocks = chunks(version)
    put(blocks[4], field, value)
    assert_as_blosc_has_it(blocks, 4, may_refuse=True)


@versions
@positions
def test_flipped_bits(version: int, k: int) -> None:
    rng = np.random.default_rng(k)
    for _ in range(5):
        blocks = chunks(version)
        place = int(rng.integers(32, len(blocks[k])))
        blocks[k][place] ^= 1 << int(rng.integers(8))
        assert_as_blosc_has_it(blocks, k, may_refuse=False)


@versions
@positions
def test_damaged_content_is_an_error_of_its_section_alone(version: int, k: int) -> None:
    blocks = chunks(version)
    blocks[k][32:] = bytes(len(blocks[k]) - 32)
    found = opened(file(blocks))
    assert found.warnings == []
    assert found.damaged() == [k]
    assert f"section {k}, at byte {start_of(blocks, k)}: " in str(found.sections[k])
    found.assert_right(but=k)


@versions
def test_block_without_content_is_an_error(version: int) -> None:
    blocks = chunks()
    blocks[4] = blocks[4][:32]
    put(blocks[4], "version", version)
    put(blocks[4], "ctbytes", 32)
    found = opened(file(blocks))
    assert found.damaged() == [4]
    found.assert_right(but=4)
    if version == 5:
        # the content can also be marked as never set: bits 4 to 6 of byte 31
        blocks = chunks(5)
        blocks[4][31] = 4 << 4
        assert opened(file(blocks)).damaged() == [4]


@pytest.mark.parametrize("options", [{"chunks": {}}, {"chunks": None}], ids=["dask", "numpy"])
def test_all_sections_with_a_damaged_one_are_an_error(options: dict[str, Any]) -> None:
    blocks = chunks()
    blocks[3][32:] = bytes(len(blocks[3]) - 32)
    ds = xr.open_dataset(io.BytesIO(file(blocks)), engine="mrc", **options)
    with pytest.raises(MrcError, match=f"section 3, at byte {start_of(blocks, 3)}: "):
        ds.data.compute(scheduler="threads")
    np.testing.assert_array_equal(ds.data[4:], PIXELS[4:])


@pytest.mark.slow
def test_error_of_a_damaged_block_comes_from_processes(tmp_path: Path, client: Client) -> None:
    blocks = chunks()
    blocks[1][32:] = bytes(len(blocks[1]) - 32)
    (tmp_path / "movie.mrc").write_bytes(file(blocks))
    ds = xr.open_dataset(tmp_path / "movie.mrc", engine="mrc", chunks={})
    with pytest.raises(MrcError, match=f"section 1, at byte {start_of(blocks, 1)}: "):
        client.compute(ds.data).result()


# sizes and the main header ----------------------------------------------------------------------


@versions
@pytest.mark.parametrize("n_left", [0, 15, 16, 300])
def test_truncated_file(version: int, n_left: int) -> None:
    blocks = chunks(version)
    raw = file(blocks)[: start_of(blocks, 7) + n_left]
    numbers = f"it has {len(raw)} bytes with 7 complete sections, and its header promises {N}"
    with pytest.raises(MrcError, match=numbers):
        opened(raw)
    found = opened(raw, truncated="trim")
    (warning,) = found.warnings
    assert f"accepted: 7, as the file has {len(raw)} bytes" in warning
    assert len(found.sections) == 7
    found.assert_right()


def test_file_without_a_block_is_an_error() -> None:
    raw = file(chunks())
    for without in (raw[:1024], raw[:1039], file(chunks(), nsymbt=len(raw) - 1024)):
        with pytest.raises(MrcError, match="No section is complete"):
            opened(without)


@pytest.mark.parametrize("size", [1, 5000])
def test_bytes_after_the_blocks_are_a_warning(size: int) -> None:
    found = opened(file([*chunks(), bytearray(b"\x07" * size)]))
    (warning,) = found.warnings
    assert f"the {size} bytes after them are ignored" in warning
    found.assert_right()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"nsymbt": -1}, r"NSYMBT \(bytes 92–95\) is -1; accepted: 0 to"),
        ({"nsymbt": 2**31 - 1}, r"NSYMBT \(bytes 92–95\) is 2147483647; accepted: 0 to"),
        ({"nsymbt": 0}, r"of block 0 \(bytes 1024–.*No section"),
        ({"nsymbt": 26}, r"of block 0 \(bytes 1050–.*No section"),
        ({"nx": 2**31 - 1}, "the most that a block can hold"),
        ({"nx": 2**16, "ny": 2**15}, "the most that a block can hold"),
        ({"nx": 2**21, "ny": 1}, "NX, NY .* are 2097152, 1; accepted: up to 1048576 in this"),
        ({"nx": NX - 1}, f"decoded size of block 0 .* accepted: {(NX - 1) * NY * 2} bytes"),
        ({"nz": N + 1}, f"{N} complete sections, and its header promises {N + 1}"),
        ({"nz": 2**31 - 1}, f"{N} complete sections, and its header promises 2147483647"),
    ],
)
def test_damaged_main_header(fields: dict[str, int], message: str) -> None:
    with pytest.raises(MrcError, match=message):
        opened(file(chunks(), METADATA, **fields))


def test_nz_that_is_too_small_is_a_warning() -> None:
    blocks = chunks()
    put(blocks[5], "version", 9)
    found = opened(file(blocks, nz=4))
    (warning,) = found.warnings
    assert "bytes after them are ignored" in warning
    assert len(found.sections) == 4
    found.assert_right()


# laziness ---------------------------------------------------------------------------------------


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    path = tmp_path / "movie.mrc"
    path.write_bytes(file(chunks(), METADATA, exttyp=b"json"))
    return path


@pytest.mark.parametrize(
    ("key", "sections"),
    [
        ({"image": 4}, [4]),
        ({"image": [5, 1, 5], "y": slice(None, None, -1), "x": [7, 0, 7]}, [1, 5]),
        ({"image": slice(None, None, 3), "y": 3, "x": slice(5, 9)}, [0, 3, 6, 9]),
        ({dim: xr.Variable("p", [0, 3, 5]) for dim in ("image", "y", "x")}, [0, 3, 5]),
        ({"x": 2}, list(range(N))),
        ({"image": []}, []),
        ({"image": 2, "y": []}, []),
    ],
)
@pytest.mark.parametrize("mmap", [False, True])
def test_reads_the_blocks_of_its_sections_alone(
    stack: Path, ranges_read: Any, key: Any, sections: list[int], mmap: bool
) -> None:
    data = xr.open_dataset(stack, engine="mrc", mmap=mmap).data
    ranges_read.clear()
    expected = xr.DataArray(PIXELS, dims=data.dims).isel(key)
    np.testing.assert_array_equal(data.isel(key), expected)
    places = block_places(stack.read_bytes(), N)
    assert sorted(ranges_read) == [places[k] for k in sections]


def test_each_chunk_is_decoded_once(stack: Path, ranges_read: Any) -> None:
    ds = xr.open_dataset(stack, engine="mrc", chunks={})
    assert ds.data.encoding["preferred_chunks"] == {"image": N, "y": NY, "x": NX}
    ranges_read.clear()
    np.testing.assert_array_equal(ds.data.compute(scheduler="threads"), PIXELS)
    assert sorted(ranges_read) == block_places(stack.read_bytes(), N)


def test_many_sections_are_decoded_in_threads(tmp_path: Path) -> None:
    pixels = np.tile(np.random.default_rng(5).poisson(2, (4, 256, 512)).astype("i2"), (5, 1, 1))
    pixels[:, 0, 0] = range(20)
    mrcz.writeMRC(pixels, tmp_path / "movie.mrc", compressor="lz4", endian="be")
    with xr.open_dataset(tmp_path / "movie.mrc", engine="mrc") as ds:
        np.testing.assert_array_equal(ds.data, pixels)


def test_chunks_that_cut_blocks_are_a_warning(stack: Path) -> None:
    with pytest.warns(UserWarning, match="separate the stored chunks"):
        ds = xr.open_dataset(stack, engine="mrc", chunks={"y": 10})
    np.testing.assert_array_equal(ds.data, PIXELS)


@pytest.fixture(scope="module")
def many_blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 65,536 equal blocks."""
    path = tmp_path_factory.mktemp("many") / "many.mrc"
    block = blosc.compress(np.arange(16, dtype="i2").tobytes(), 2, cname="lz4")
    fields: dict[str, Any] = {"ispg": 0, "mx": 0, "my": 0, "mz": 0, "labels": (b"MRCZ0.6.0",)}
    path.write_bytes(by_hand.header((65_536, 4, 4), 2001, **fields) + block * 65_536)
    return path


@pytest.mark.filterwarnings("ignore:The specified chunks separate the stored chunks")
def test_a_graph_contains_the_edges_once(many_blocks: Path) -> None:
    ds = xr.open_dataset(many_blocks, engine="mrc", chunks={"image": 64})
    assert len(json.dumps(ds.data.attrs)) < 16 * 1024
    graph = dict(ds.data.data.dask)
    sizes = sorted(len(pickle.dumps(task)) for task in graph.values())
    assert len(sizes) >= 1024
    # one int64 per block
    assert sizes[-1] < 8 * 65_536 + 16 * 1024
    assert sizes[-2] < 4096
    assert len(pickle.dumps(ds.data.data.dask)) < 2 * MiB
    np.testing.assert_array_equal(ds.data[-1].compute(), np.arange(16).reshape(4, 4))


@pytest.mark.slow
def test_small_blocks_are_requested_together(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(-128, 128, (1000, 100, 100), "i1")
    path = tmp_path / "many.mrcz"
    mrcz.writeMRC(pixels, path, compressor="lz4")
    with servers.http_server(tmp_path) as server:
        ds = xr.open_dataset(server.url(path.name), engine="mrc")
        assert server.methods().count("GET") <= 2 + path.stat().st_size // MiB
        server.requests.clear()
        np.testing.assert_array_equal(ds.data[567], pixels[567])
        start, nbytes = block_places(path.read_bytes(), 1000)[567]
        assert server.gets() == [(start, start + nbytes)]


@pytest.mark.slow
def test_only_the_headers_of_large_blocks_are_read(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(-128, 128, (6, 1500, 1000), "i1")
    path = tmp_path / "large.mrcz"
    mrcz.writeMRC(pixels, path, compressor="lz4")
    with servers.http_server(tmp_path) as server:
        xr.open_dataset(server.url(path.name), engine="mrc")
        assert server.methods().count("GET") <= 1 + len(pixels)
        assert server.nbytes() <= 64 * 1024 + 16 * len(pixels)
