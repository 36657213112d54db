"""Small files with large claims: the cost of opening depends on the file, not on its header."""

from __future__ import annotations

import bz2
import lzma
import struct
import subprocess
import sys
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import blosc
import by_hand
import numpy as np
import pytest
import xarray as xr
from by_hand import sparse

from mrc_xarray import MrcError, MrcWarning, validate
from mrc_xarray.metadata import limits

MiB = 2**20
LARGEST = 2**31 - 1
STACK: dict[str, Any] = {"ispg": 0, "mz": 1, "cella": (10, 9, 0)}


@pytest.fixture
def peak() -> Iterator[Callable[[], int]]:
    """Return the peak of the bytes that were allocated since the test began."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


def opened(path: Path, **options: Any) -> tuple[xr.Dataset, list[str]]:
    if tracemalloc.is_tracing():
        # compressors allocate more
        tracemalloc.reset_peak()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ds = xr.open_dataset(path, engine="mrc", **options)
    return ds, [str(w.message) for w in caught]


SHAPES = {
    "sections": (LARGEST, 1, 1), "rows": (1, LARGEST, 1), "columns": (1, 1, LARGEST),
    "rows and columns": (1, LARGEST, LARGEST), "all": (LARGEST, LARGEST, LARGEST),
    "some of each": (2**21, 2**20, 2**19), "small sections": (2**28, 8, 8),
}  # fmt: skip


@pytest.mark.parametrize("fields", [{}, STACK], ids=["volume", "stack"])
@pytest.mark.parametrize("case", SHAPES)
def test_stream(tmp_path: Path, peak: Any, case: str, fields: dict[str, Any]) -> None:
    path = tmp_path / "a.mrc.xz"
    path.write_bytes(lzma.compress(by_hand.header(SHAPES[case], 0, **fields) + bytes(200_000)))
    try:
        ds, messages = opened(path, chunks={})
    except MrcError:
        # no stream of this size can be so long
        assert peak() < 64 * MiB
        return
    assert peak() < 64 * MiB
    (message,) = [text for text in messages if "coordinates" in text]
    without = [dim for dim in ds.dims if dim not in ds.coords and dim != "image"]
    for dim in without:
        assert f"{ds.sizes[dim]} along {dim}" in message
    assert message.count(" along ") == len(without) + ("image" in ds.dims and "section" not in ds)
    assert np.prod([float(n) for n in ds.data.data.numblocks]) < 101_000


@pytest.mark.parametrize(
    ("n", "is_labelled"), [pytest.param(2**24, True, marks=pytest.mark.slow), (2**24 + 1, False)]
)
def test_sections_of_a_plain_file(tmp_path: Path, peak: Any, n: int, is_labelled: bool) -> None:
    for suffix, fields, name in ((".mrc", {}, "z"), (".st", STACK, "section")):
        path = sparse(tmp_path / f"a{suffix}", by_hand.header((n, 1, 1), 0, **fields), 1024 + n)
        ds, messages = opened(path)
        assert (name in ds.coords) == is_labelled
        assert peak() < (16 * n if is_labelled else 0) + 64 * MiB
        if is_labelled:
            assert messages == []
            assert (ds[name][0], ds[name][-1]) == (0, n - 1)
        else:
            (message,) = messages
            assert f"NX, NY, NZ (bytes 0–11) are {n} along {name}; accepted" in message
            assert "up to 16777216 sections" in message
            assert ds.data.attrs["mrc_repairs"]
            assert "long-dimension" not in {p.code for p in validate(path)}
        del ds


def test_rows_and_columns_of_a_plain_file(tmp_path: Path) -> None:
    for shape, without in (
        ((1, 1, 2**21 - 1), set()),
        ((1, 1, 2**21), {"x"}),
        ((1, 2**21, 1), {"y"}),
    ):
        path = sparse(tmp_path / "a.rec", by_hand.header(shape, 0), 1024 + 2**21)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MrcWarning)
            ds = xr.open_dataset(path, engine="mrc")
        assert {"z", "y", "x"} - set(ds.coords) == without


@pytest.mark.parametrize(("n", "is_labelled"), [(2**21 - 100, True), (2**21, False)])
def test_sections_of_a_stream(tmp_path: Path, peak: Any, n: int, is_labelled: bool) -> None:
    for fields, name in (({}, "z"), (STACK, "section")):
        path = tmp_path / "a.mrc.bz2"
        path.write_bytes(bz2.compress(by_hand.header((n, 1, 1), 0, **fields) + bytes(n)))
        ds, messages = opened(path)
        assert (name in ds.coords) == is_labelled == (not messages)
        assert peak() < 64 * MiB


def test_dimensions_without_a_voxel_size_are_silent(tmp_path: Path) -> None:
    head = by_hand.header((2**25, 1, 1), 0, cella=(0, 0, 0))
    ds, messages = opened(sparse(tmp_path / "a.mrc", head, 1024 + 2**25))
    assert messages == []
    assert list(ds.coords) == []


def block(size: int) -> bytes:
    return struct.pack("<3I", size, 0, 1 << 7).ljust(size, b"\0")


# records that are a hole in a sparse file, and whether they are read as columns
RECORDS: dict[str, tuple[int, int, dict[str, Any], bytes, bool]] = {
    "FEI1, 65536": (65536, 768, {"exttyp": b"FEI1"}, block(768), True),
    "FEI1, a million": (2**20, 768, {"exttyp": b"FEI1"}, block(768), False),
    "FEI2, large": (131_071, 16384, {"exttyp": b"FEI2"}, block(16384), False),
    "SERI, a million": (2**20, 2, {"exttyp": b"SERI", "nint": 2, "nreal": 1}, b"\1", True),
    "SERI, more": (2**24, 2, {"exttyp": b"SERI", "nint": 2, "nreal": 1}, b"\1", False),
    "SERI, all flags": (2**18, 16, {"exttyp": b"SERI", "nint": 16, "nreal": 31}, b"\1", True),
    "SERI, all flags, more": (
        2**20, 16, {"exttyp": b"SERI", "nint": 16, "nreal": 31}, b"\1", False,
    ),
    "AGAR": (2**20, 4, {"exttyp": b"AGAR", "nint": 0, "nreal": 1}, b"\1", True),
    "AGAR, more": (2**24 + 1, 4, {"exttyp": b"AGAR", "nint": 0, "nreal": 1}, b"\1", False),
}  # fmt: skip


@pytest.mark.parametrize("case", RECORDS)
def test_records(tmp_path: Path, reads: Any, peak: Any, case: str) -> None:
    n, size, fields, begins, is_worth_it = RECORDS[case]
    head = by_hand.header((n, 1, 1), 0, nsymbt=n * size, **(STACK | fields))
    path = sparse(tmp_path / "a.mrc", head + begins, 1024 + n * (size + 1))
    ds, messages = opened(path)
    labelled = 16 * n if n <= limits.MOST_POSITIONS else 0
    assert peak() < max(64 * MiB + 8 * 2**20, labelled)
    assert ("tilt_angle" in ds.coords) == is_worth_it
    if not is_worth_it:
        assert sum(nbytes for _, nbytes in reads) <= 64 * 1024
        assert any(
            f"extended header (bytes 1024–{1023 + n * size}) is {n} records" in t for t in messages
        )


@pytest.mark.slow
def test_records_of_a_stream(tmp_path: Path, peak: Any) -> None:
    for n, size, fields in (
        (2**20, 4, {"exttyp": b"AGAR", "nint": 0, "nreal": 1}),
        (2**20, 16, {"exttyp": b"SERI", "nint": 16, "nreal": 31}),
        (2**21, 8, {"exttyp": b"FEI1"}),
    ):
        head = by_hand.header((n, 1, 1), 0, nsymbt=n * size, **(STACK | fields))
        path = tmp_path / "a.mrc.bz2"
        path.write_bytes(bz2.compress(head + bytes(n * size)))
        opened(path)
        assert peak() < 64 * MiB


def test_entries_of_an_mdoc(tmp_path: Path, peak: Any) -> None:
    path = sparse(tmp_path / "a.st", by_hand.header((LARGEST, 1, 1), 0, **STACK), 1024 + LARGEST)
    entries = "".join(f"[ZValue = {i}]\nTiltAngle = {i}\nA = {i}\n" for i in range(100))
    path.with_name("a.st.mdoc").write_text(entries)
    ds, messages = opened(path, chunks={})
    assert peak() < 8 * MiB
    assert list(ds.coords) == ["y", "x"]
    accepted = f"is 100, with n from '0' to '99'; accepted: {LARGEST}, with n from 0"
    assert any(accepted in text and "left out" in text for text in messages)


@pytest.mark.parametrize("n_blocks", [0, 1, 3])
def test_blocks(tmp_path: Path, peak: Any, n_blocks: int) -> None:
    """A hole has no blocks: it is not read to its end, and takes no memory."""
    data = b"".join(blosc.compress(bytes([i]) * 64, typesize=1) for i in range(n_blocks))
    path = sparse(tmp_path / "a.mrcz", by_hand.header((LARGEST, 8, 8), 6000) + data, 2**40)
    with pytest.raises(MrcError, match=f"version of block {n_blocks} .* is 0; accepted: 2 or 5"):
        opened(path)
    assert peak() < 32 * MiB
    if n_blocks:
        ds, _ = opened(path, truncated="trim")
        np.testing.assert_array_equal(ds.data[:, 0, 0], np.arange(n_blocks))


@pytest.mark.slow
def test_one_pixel_of_a_file_with_large_claims(tmp_path: Path) -> None:
    """Selecting one row does not allocate the numbers of all rows."""
    head = by_hand.header((LARGEST, LARGEST, 1), 0)
    path = tmp_path / "a.mrc.bz2"
    path.write_bytes(bz2.compress(head + bytes(200_000)))
    code = (
        "import resource, sys, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))\n"
        "import xarray as xr\n"
        "from mrc_xarray import MrcError\n"
        "try:\n"
        "    print(float(xr.open_dataset(sys.argv[1], engine='mrc').data[0, 0, 0]))\n"
        "except MrcError as error:\n"
        "    print('refused', error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.startswith(("0.0", "refused"))
