"""The lazy array: every indexing returns what NumPy returns, and reads only what it needs."""

from __future__ import annotations

import io
import os
import pickle
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import by_hand
import dask
import numpy as np
import pytest
import xarray as xr
from dask.base import tokenize
from hypothesis import given, settings
from hypothesis import strategies as st
from indexings import TRANSFORMS, VECTORISED, indices
from mapped import is_mapped
from modes_by_hand import SHAPE, complex_integers, four_bits, noise, plain, rgb
from xarray.core import indexing

from mrc_xarray.pixels.array import StackArray
from mrc_xarray.pixels.chunks import preferred_chunks
from mrc_xarray.pixels.modes import mode_for
from mrc_xarray.pixels.sections import Sections
from mrc_xarray.storage import LocalSource
from mrc_xarray.storage.base import Access

Array = np.ndarray[Any, Any]
MiB = 1024**2
LARGEST = 2**31 - 1


# kind of file → bytes and pixels, arguments, whether it is given as a file on disk
KINDS: dict[str, tuple[tuple[bytes, Array], dict[str, Any], bool]] = {
    "float32": (plain(), {}, True),
    "int8": (plain("i1"), {}, True),
    "big-endian": (plain(byteorder=">"), {}, True),
    "unaligned": (plain("i2", extended=b"{} ", exttyp=b"json"), {}, True),
    "4-bit": (four_bits(), {}, True),
    "rgb": (rgb(), {}, True),
    "complex integers": (complex_integers(), {}, True),
    "one image": (plain(shape=(1, 5, 9), ispg=0), {}, True),
    "mmap": (plain("u2"), {"mmap": True}, True),
    "mmap, unaligned": (plain("f4", extended=b"{} ", exttyp=b"json"), {"mmap": True}, True),
    "mmap, big-endian": (plain(byteorder=">"), {"mmap": True}, True),
    "mmap, 4-bit": (four_bits(), {"mmap": True}, True),
    "mmap, rgb": (rgb(), {"mmap": True}, True),
    "BytesIO": (plain(), {}, False),
    "BytesIO, 4-bit": (four_bits(), {"mmap": True}, False),
    "scan": (plain("u2"), {"scan_shape": (2, 3)}, True),
    "scan, mmap": (plain("u2"), {"scan_shape": (3, 2), "mmap": True}, True),
    "channels": (plain(), {"sections_per_frame": 2}, True),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What to open, for each of KINDS."""
    folder = tmp_path_factory.mktemp("kinds")
    files: dict[str, Any] = {}
    for i, (kind, ((raw, _), _, on_disk)) in enumerate(KINDS.items()):
        files[kind] = folder / f"{i}.mrc" if on_disk else raw
        if on_disk:
            files[kind].write_bytes(raw)
    return files


def lazy_and_eager(files: dict[str, Any], kind: str) -> tuple[xr.Variable, xr.Variable]:
    """Return the pixels of the engine and of NumPy, without coordinates."""
    target = files[kind]
    ds = xr.open_dataset(
        io.BytesIO(target) if isinstance(target, bytes) else target,
        engine="mrc", cache=False, **KINDS[kind][1],
    )  # fmt: skip
    lazy = ds.data.variable
    return lazy, xr.Variable(lazy.dims, KINDS[kind][0][1].reshape(lazy.shape))


def same(lazy: xr.Variable, eager: xr.Variable, what: str = "") -> None:
    assert lazy.dims == eager.dims, what
    found = lazy.values
    assert found.dtype == eager.dtype.newbyteorder("="), what
    assert found.dtype.isnative, what
    np.testing.assert_array_equal(found, eager.values, what)


@pytest.mark.parametrize("kind", KINDS)
def test_transforms(files: dict[str, Any], kind: str) -> None:
    lazy, eager = lazy_and_eager(files, kind)
    n_leading = eager.ndim - 2 - (eager.shape[-1] == 3)
    sizes = dict(zip(eager.dims, eager.shape, strict=True))
    for transform, keys in TRANSFORMS.items():
        # the first index is for the sections, the second and third for rows and columns
        leading = [keys[0]] * n_leading
        rest = [*keys[1:], *[slice(None)] * eager.ndim][: eager.ndim - n_leading]
        key = dict(zip(eager.dims, leading + rest, strict=True))
        for dim, k in key.items():
            if isinstance(k, int | np.integer):
                key[dim] = min(k, sizes[dim] - 1)
        same(lazy.isel(key), eager.isel(key), transform)


@pytest.mark.parametrize("kind", ["float32", "4-bit", "rgb", "complex integers", "mmap"])
def test_vectorised(files: dict[str, Any], kind: str) -> None:
    lazy, eager = lazy_and_eager(files, kind)
    for transform, keys in VECTORISED.items():
        key = {dim: xr.Variable(*k) if isinstance(k, tuple) else k for dim, k in keys.items()}
        same(lazy.isel(key), eager.isel(key), transform)


@pytest.mark.parametrize("kind", KINDS)
def test_selections_of_selections(files: dict[str, Any], kind: str) -> None:
    lazy, eager = lazy_and_eager(files, kind)
    first = {dim: slice(None, None, -1) for dim in lazy.dims}
    second = {dim: [0, -1] for dim in lazy.dims[-2:]}
    same(lazy.isel(first).isel(second), eager.isel(first).isel(second))
    third = {lazy.dims[-1]: -1}
    same(lazy.isel(second).isel(third).T, eager.isel(second).isel(third).T)


@pytest.mark.parametrize("kind", ["float32", "4-bit", "rgb", "mmap", "scan", "channels"])
def test_chunked_is_equal(files: dict[str, Any], kind: str) -> None:
    _, eager = lazy_and_eager(files, kind)
    with xr.open_dataset(files[kind], engine="mrc", chunks={}, **KINDS[kind][1]) as ds:
        cut = ds.data.chunk(dict.fromkeys(ds.data.dims, 2))
        same(ds.data.variable, eager)
        same(cut[..., ::-2].variable, eager[..., ::-2])


@pytest.mark.parametrize(
    "key", [{"z": 6}, {"y": 5}, {"x": 9}, {"z": [0, 6]}, {"y": [5]}, {"x": [0, 9]}]
)
def test_index_beyond_the_end(files: dict[str, Any], key: dict[str, Any]) -> None:
    lazy, _ = lazy_and_eager(files, "float32")
    with pytest.raises(IndexError):
        np.asarray(lazy.isel(key))


@settings(deadline=None, max_examples=60)
@given(
    kind=st.sampled_from(["float32", "big-endian", "4-bit", "mmap", "BytesIO"]),
    keys=st.tuples(*map(indices, SHAPE)),
)
def test_any_orthogonal_indexing(files: dict[str, Any], kind: str, keys: tuple[Any, ...]) -> None:
    lazy, eager = lazy_and_eager(files, kind)
    key = dict(zip(eager.dims, keys, strict=True))
    same(lazy.isel(key), eager.isel(key))


def opened(path: Path, raw: bytes, **options: Any) -> xr.Dataset:
    path.write_bytes(raw)
    return xr.open_dataset(path, engine="mrc", **options)


class Counting:
    """A source that records the byte ranges that it reads."""

    def __init__(self, inner: LocalSource) -> None:
        self.inner, self.ranges = inner, list[tuple[int, int]]()
        self.access = inner.access

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def map(self, *, writable: bool) -> None:
        return None

    def read_into(self, requests: Any) -> None:
        self.ranges += [(offset, len(buffer)) for offset, buffer in requests]
        self.inner.read_into(requests)


def counting(ds: xr.Dataset) -> tuple[xr.Variable, Counting]:
    """Return the pixels of a file with a counting source, and that source."""
    array = ds.data.variable._data
    while not isinstance(array, StackArray):
        array = array.array
    source = Counting(array.source)
    array = StackArray(source, array.sections, array.leading)
    return xr.Variable(ds.data.dims, indexing.LazilyIndexedArray(array)), source


@pytest.fixture
def counted(tmp_path: Path) -> Iterator[tuple[xr.Variable, Array, Counting]]:
    """A lazy float32 variable of (20, 30, 40), its pixels, and its counting source."""
    data = noise((20, 30, 40), "f4")
    with opened(tmp_path / "file.mrc", by_hand.mrc(data), cache=False) as ds:
        lazy, source = counting(ds)
        yield lazy, data, source


SECTION, ROW = 30 * 40 * 4, 40 * 4
# selection → the byte ranges that it reads, from the first pixel
READS: dict[str, tuple[tuple[Any, ...], list[tuple[int, int]]]] = {
    "window": ((5, slice(10, 20), slice(10, 20)), [(5 * SECTION + 10 * ROW, 10 * ROW)]),
    "scalar": ((19, 29, 39), [(20 * SECTION - ROW, ROW)]),
    "section": ((7,), [(7 * SECTION, SECTION)]),
    "sections": (([0, 9],), [(0, SECTION), (9 * SECTION, SECTION)]),
    "runs of sections": (([3, 4, 5, 9],), [(3 * SECTION, 3 * SECTION), (9 * SECTION, SECTION)]),
    "every fifth": ((slice(None, None, 5),), [(i * SECTION, SECTION) for i in (0, 5, 10, 15)]),
    "reversed": ((slice(None, None, -1),), [(0, 20 * SECTION)]),
    "rows of two sections": (
        (slice(1, 3), slice(2, 5)), [(i * SECTION + 2 * ROW, 3 * ROW) for i in (1, 2)],
    ),
    "two rows apart": ((0, [3, 20]), [(3 * ROW, ROW), (20 * ROW, ROW)]),
    "nothing": ((slice(0, 0),), []),
    "no columns": ((slice(None), slice(None), []), []),
    "all": ((), [(0, 20 * SECTION)]),
}  # fmt: skip


@pytest.mark.parametrize("selection", READS)
def test_bytes_read(counted: tuple[xr.Variable, Array, Counting], selection: str) -> None:
    variable, data, source = counted
    key, ranges = READS[selection]
    found = variable[key].values
    assert [(offset - 1024, n) for offset, n in sorted(source.ranges)] == ranges
    np.testing.assert_array_equal(found, xr.Variable(variable.dims, data)[key])


def test_a_selection_of_points_reads_their_rows(
    counted: tuple[xr.Variable, Array, Counting],
) -> None:
    variable, data, source = counted
    points = xr.Variable("p", [2, 2])
    np.testing.assert_array_equal(variable[points, points, points], data[[2, 2], [2, 2], [2, 2]])
    assert source.ranges == [(1024 + 2 * SECTION + 2 * ROW, ROW)]


def test_opening_reads_no_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        LocalSource, "read", lambda self, offset, n, read=LocalSource.read: (
            asked.append((offset, n)) or read(self, offset, n)
        ),
    )  # fmt: skip
    with opened(tmp_path / "file.mrc", by_hand.mrc(noise((4, 100, 100), "f4"))) as ds:
        assert asked == [(0, 64 * 1024)]
        repr(ds)
        assert len(asked) == 1


@pytest.mark.parametrize("kind", ["float32", "int8", "rgb", "scan", "unaligned"])
def test_mmap_gives_writable_views(tmp_path: Path, kind: str) -> None:
    (raw, data), options, _ = KINDS[kind]
    path = tmp_path / "file.mrc"
    with opened(path, raw, mmap=True, cache=False, **options) as ds:
        found = ds.data.variable[..., 1:].values
        assert is_mapped(found)
        assert found.flags.writeable
        found[:] = 0
        assert path.read_bytes() == raw
        np.testing.assert_array_equal(ds.data.values.ravel(), data.ravel())
    del found


@pytest.mark.parametrize("kind", ["big-endian", "4-bit", "complex integers"])
def test_mmap_reads_where_it_can_not_map(tmp_path: Path, kind: str) -> None:
    (raw, data), _, _ = KINDS[kind]
    with opened(tmp_path / "file.mrc", raw, mmap=True) as ds:
        assert not is_mapped(ds.data.values)
        np.testing.assert_array_equal(ds.data, data)


@pytest.mark.parametrize("kind", ["float32", "4-bit", "mmap", "BytesIO", "scan"])
def test_pickling(files: dict[str, Any], kind: str) -> None:
    lazy, eager = lazy_and_eager(files, kind)
    again = pickle.loads(pickle.dumps(lazy))
    assert len(pickle.dumps(lazy)) < 8192
    same(again, eager)
    same(pickle.loads(pickle.dumps(lazy[..., 1:]))[..., ::-1], eager[..., 1:][..., ::-1])


@pytest.mark.parametrize(
    ("name", "options", "is_changed"),
    [
        ("a.mrc", {"mmap": True}, False),
        ("a.mrc", {"mode0": "uint8"}, False),
        ("a.mrc", {"scan_shape": (2, 3)}, False),
        ("a.mrc", {}, True),
        ("b.mrc", {}, False),
    ],
)
def test_tokens(tmp_path: Path, name: str, options: dict[str, Any], is_changed: bool) -> None:
    def tokens(name: str, **options: Any) -> tuple[str, str]:
        ds = xr.open_dataset(tmp_path / name, engine="mrc", chunks={}, **options)
        return tokenize(ds), ds.data.data.name

    for each in ("a.mrc", "b.mrc"):
        (tmp_path / each).write_bytes(plain("i1")[0])
    before = tokens("a.mrc")
    assert tokens("a.mrc") == before
    if is_changed:
        os.utime(tmp_path / name, ns=(1, 1))
    after = tokens(name, **options)
    assert all(new != old for new, old in zip(after, before, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "byteorder"), [((80, 300, 1000), ">"), ((2, 5000, 2000), "<")])
def test_load_in_threads(tmp_path: Path, shape: tuple[int, int, int], byteorder: str) -> None:
    """Above 32 MiB, with sections below and above the length of a request."""
    data = np.resize(np.arange(2**16, dtype="u2"), shape)
    raw = by_hand.mrc(data, byteorder=byteorder)
    assert len(raw) > 32 * MiB
    with opened(tmp_path / "file.mrc", raw, cache=False) as ds:
        np.testing.assert_array_equal(ds.data, data)
        np.testing.assert_array_equal(ds.data[::-1, 1:, :-1], data[::-1, 1:, :-1])


def sparse(folder: Path, shape: tuple[int, int, int], mode: int, itemsize: float = 1) -> Path:
    size = 1024 + int(np.prod(shape) * itemsize)
    return by_hand.sparse(folder / "sparse.mrc", by_hand.header(shape, mode), size)


# shape, mode, item size, arguments → preferred chunks
PREFERRED: dict[
    str, tuple[tuple[int, int, int], int, float, dict[str, Any], dict[str, int]]
] = {
    "mapped: 32 Mi pixels": ((1000, 1024, 1024), 2, 4, {}, {"z": 32}),
    "mapped: of any type": ((1000, 1024, 1024), 0, 1, {"mmap": True}, {"z": 32}),
    "mapped: rounded down": ((1000, 1000, 1000), 6, 2, {}, {"z": 33}),
    "mapped: 128 MiB": ((1000, 1024, 1024), 4, 8, {}, {"z": 16}),
    "mapped: all": ((32, 1024, 1024), 2, 4, {}, {}),
    "mapped: samples count": ((100, 1024, 1024), 16, 3, {}, {"z": 10}),
    "mapped: own names": (
        (1000, 1024, 1024), 2, 4, {"dims": ("depth", "row", "column")}, {"depth": 32},
    ),
    "mapped: bands of a montage": ((3, 8000, 8000), 2, 4, {}, {"z": 1, "y": 4194}),
    "mapped: no bands at 128 MiB": ((3, 8192, 4096), 2, 4, {}, {"z": 1}),
    "mapped: scan": (
        (40_000, 64, 64), 6, 2, {"scan_shape": (200, 200)}, {"scan_y": 40},
    ),
    "read: 16 MiB": ((1000, 1024, 1024), 2, 4, {"mmap": False}, {"z": 4}),
    "read: one above 16 MiB": ((10, 3000, 3000), 2, 4, {"mmap": False}, {"z": 1}),
    "read: decoded size counts": ((100, 2048, 2048), 101, 0.5, {}, {"z": 4}),
    "read: other byte order": ((1000, 1024, 1024), 2, 4, {"byteorder": "big"}, {"z": 4}),
    "read: tiny sections": ((16_384, 128, 128), 6, 2, {"mmap": False}, {"z": 512}),
    "read: bands of a montage": (
        (3, 8000, 8000), 2, 4, {"mmap": False}, {"z": 1, "y": 524},
    ),
    "read: scan with long rows": (
        (40_000, 64, 64), 6, 2, {"scan_shape": (2, 20_000), "mmap": False},
        {"scan_y": 1, "scan_x": 2048},
    ),
    "image": ((1, 100, 100), 2, 4, {"layout": "image"}, {}),
    "bands of one image": ((1, 8000, 8000), 2, 4, {"layout": "image"}, {"y": 4194}),
}  # fmt: skip


@pytest.mark.parametrize("case", PREFERRED)
def test_preferred_chunks(tmp_path: Path, case: str) -> None:
    shape, mode, itemsize, options, chunks = PREFERRED[case]
    raw = by_hand.header(shape, mode, byteorder=">" if "byteorder" in options else "<")
    path = by_hand.sparse(tmp_path / "sparse.mrc", raw, 1024 + int(np.prod(shape) * itemsize))
    with xr.open_dataset(path, engine="mrc", chunks={}, **options) as ds:
        assert ds.data.encoding["preferred_chunks"] == chunks
        for dim, n in ds.data.sizes.items():
            assert ds.data.chunksizes[dim][0] == chunks.get(dim, n)
        assert dask.is_dask_collection(ds.data)


@pytest.mark.parametrize("chunks", [{"x": 100, "y": 7}, {"z": 4}, 512])
def test_own_chunks_are_silent(tmp_path: Path, chunks: Any) -> None:
    path = sparse(tmp_path, (12, 4096, 4096), 0)
    with xr.open_dataset(path, engine="mrc", chunks=chunks) as ds:
        wanted = chunks if isinstance(chunks, dict) else {"y": chunks}
        assert {dim: ds.data.chunksizes[dim][0] for dim in wanted} == wanted


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((LARGEST, 1, 1), "i1"), ((1, LARGEST, LARGEST), "i1"), ((LARGEST,) * 3, "i1"),
        ((5_000_000, 4096, 4096), "f4"), ((3, LARGEST, 1000), "i1"),
    ],
)  # fmt: skip
def test_preferred_chunks_are_few(shape: tuple[int, int, int], dtype: str) -> None:
    source: Any = None
    array = StackArray(source, Sections(1024, shape, mode_for(dtype), "<"), shape[:1])
    chunks = preferred_chunks(("z", "y", "x"), array)
    sizes = dict(zip("zyx", shape, strict=True))
    assert np.prod([float(-(-sizes[d] // n)) for d, n in chunks.items()]) <= 100_000
    assert all(1 <= n <= sizes[d] for d, n in chunks.items())


def test_auto_chunks_are_complete_sections(tmp_path: Path) -> None:
    path = sparse(tmp_path, (1000, 4096, 4096), 0)
    with xr.open_dataset(path, engine="mrc", chunks="auto") as ds:
        assert ds.data.chunksizes["y"] == ds.data.chunksizes["x"] == (4096,)
        assert ds.data.chunksizes["z"][0] < 20


WIDE = (64, 256, 4096)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sparse float32 file of 256 MiB."""
    return sparse(tmp_path_factory.mktemp("wide"), WIDE, 2, 4)


@pytest.mark.slow
@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize(
    "selection",
    [
        {"z": [0, 63], "x": slice(0, 100)},
        {"y": [0, 255], "x": slice(0, 100)},
        {"z": [0, 63], "y": slice(0, 10)},
        {"x": 100},
        {dim: xr.DataArray([0, 30, 60], dims="point") for dim in "zyx"},
    ],
    ids=["sections", "rows", "rows of sections", "column", "points"],
)
def test_sparse_selection_takes_little_memory(wide: Path, selection: Any, mmap: bool) -> None:
    data = xr.open_dataset(wide, engine="mrc", mmap=mmap, cache=False)["data"].isel(selection)
    tracemalloc.start()
    try:
        nbytes = data.values.nbytes
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # at most one batch of rows per thread
    assert peak < 3 * nbytes + 8 * 2**20 * (os.cpu_count() or 1) + 2**20


def test_rows_of_many_small_frames_are_read_together(tmp_path: Path) -> None:
    frames = np.arange(5000 * 6 * 4, dtype="u2").reshape(5000, 6, 4)
    path = tmp_path / "frames.mrcs"
    path.write_bytes(by_hand.mrc(frames, ispg=0, mz=1))
    data = xr.open_dataset(path, engine="mrc", cache=False)["data"]
    np.testing.assert_array_equal(data.isel(y=slice(1, 3)), frames[:, 1:3])
    np.testing.assert_array_equal(data.isel(y=[0, 5], image=slice(7, None)), frames[7:, [0, 5]])


# rows that are longer than a request -------------------------------------------------------------

COLUMNS: dict[str, tuple[Any, ...]] = {
    "pixel": (1, 2, 2_900),
    "band": (slice(None), slice(None), slice(1_000, 1_050)),
    "every hundredth": (1, slice(None), slice(10, None, 100)),
    "gathered": ([0, 1], [0, 2], [5, 7, 2_999]),
    "reversed": (slice(None, None, -1), 0, slice(2_000, 1_990, -1)),
    "most": (0, 1, slice(3, None)),
    "all": (0,),
}


@pytest.mark.parametrize(
    ("mode", "byteorder"), [("f4", "<"), ("f4", ">"), ("i2 pairs", ">"), ("rgb", "<")]
)
@pytest.mark.parametrize("columns", COLUMNS)
def test_very_long_rows_are_read_by_pixel(
    tmp_path: Path, columns: str, mode: str, byteorder: str
) -> None:
    rng = np.random.default_rng(3)
    n, path = 3_000, tmp_path / "file.mrc"
    if mode == "f4":
        data = rng.random((2, 3, n), "f4")
        raw, nbytes = by_hand.mrc(data, byteorder=byteorder), 4
    elif mode == "rgb":
        data = rng.integers(0, 256, (2, 3, n, 3), "u1")
        raw, nbytes = by_hand.mrc(data, 16, shape=(2, 3, n), byteorder=byteorder), 3
    else:
        pairs = rng.integers(-999, 999, (2, 3, n, 2), "i2")
        raw, nbytes = by_hand.mrc(pairs, 3, shape=(2, 3, n), byteorder=byteorder), 4
        data = pairs[..., 0] + 1j * pairs[..., 1]
    with opened(path, raw, cache=False) as ds:
        lazy, source = counting(ds)
        source.access = Access(gap=0, skip=1024, piece=4096, batch=65536)
        found = lazy[COLUMNS[columns]].values
    oracle = xr.Variable(lazy.dims, data)[COLUMNS[columns]].values
    np.testing.assert_array_equal(found, oracle)
    if columns in ("pixel", "gathered", "reversed", "every hundredth"):
        n_pixels = oracle.size // (3 if mode == "rgb" else 1)
        assert sum(length for _, length in source.ranges) <= n_pixels * nbytes * 2
