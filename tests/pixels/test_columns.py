"""Narrow columns are copied from a map, which reads no complete rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from mapped import is_mapped, set_file_system
from modes_by_hand import complex_integers, four_bits, plain, rgb

from mrc_xarray.pixels import columns

SHAPE = (6, 5, 40)


KINDS = {
    "float32": plain("f4", SHAPE),
    "int8": plain("i1", SHAPE),
    "big-endian": plain("i2", SHAPE, byteorder=">"),
    "unaligned": plain("f4", SHAPE, extended=b"{} ", exttyp=b"json"),
    "rgb": rgb(SHAPE),
    "complex integers": complex_integers(SHAPE),
}
KEYS: dict[str, tuple[Any, ...]] = {
    "a column": (slice(None), slice(None), 17),
    "the last": (slice(None), slice(None), 39),
    "a band": (slice(None), slice(None), slice(3, 9)),
    "steps": (slice(1, None, 2), slice(None, None, 2), slice(1, 10, 3)),
    "reversed": (slice(None, None, -1), slice(None, None, -1), slice(9, 1, -1)),
    "some": ([0, 3, 5], [4, 0], [30, 33, 31]),
    "rows of one section": (2, slice(None), slice(0, 2)),
    "one pixel": (2, 3, 4),
}


@pytest.fixture
def lazy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that opens bytes as a file on what counts as a local disk."""
    set_file_system(monkeypatch, "ext4")
    monkeypatch.setattr(columns, "_LARGE", 1)

    def opened(raw: bytes, **options: Any) -> xr.Variable:
        path = tmp_path / "file.mrc"
        if not path.exists():
            path.write_bytes(raw)
        return xr.open_dataset(path, engine="mrc", cache=False, **options).data.variable

    return opened


@pytest.mark.parametrize("kind", KINDS)
def test_columns_equal_numpy(lazy: Any, kind: str, ranges_read: Any) -> None:
    raw, pixels = KINDS[kind]
    data, chunked = lazy(raw), lazy(raw, chunks={"z": 4})
    ranges_read.clear()
    for name, key in KEYS.items():
        found = data[key].values
        np.testing.assert_array_equal(found, xr.Variable(data.dims, pixels)[key], name)
        assert found.flags.writeable
        assert not is_mapped(found), name
        assert not ranges_read, name
        in_tasks = chunked[key].compute(scheduler="sync")
        np.testing.assert_array_equal(in_tasks, found, name)
        # dask reads complete chunks for some of the keys
        ranges_read.clear()


def test_frames_of_a_scan(lazy: Any) -> None:
    raw, pixels = plain("u2", SHAPE)
    data = lazy(raw, scan_shape=(2, 3))
    expected = pixels.reshape(2, 3, 5, 40)
    np.testing.assert_array_equal(data[..., 7], expected[..., 7])
    np.testing.assert_array_equal(data[1, ::2, :, :9], expected[1, ::2, :, :9])


def test_pieces_of_sections_in_threads(lazy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "_PIECE", 1)
    raw, pixels = plain("f4", SHAPE)
    np.testing.assert_array_equal(lazy(raw)[..., 5:9], pixels[..., 5:9])


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        (plain("f4", SHAPE)[0], (slice(None), slice(None), slice(0, 11))),
        (plain("f4", SHAPE)[0], (slice(None), slice(None), [0, 39])),
        (four_bits(SHAPE)[0], (0, slice(None), 3)),
    ],
    ids=["wide", "far apart", "packed"],
)
def test_rows_are_read(lazy: Any, ranges_read: Any, raw: bytes, key: Any) -> None:
    data = lazy(raw)
    ranges_read.clear()
    assert data[key].values.any()
    assert ranges_read


@pytest.mark.parametrize(("kind", "mmap"), [("nfs4", "auto"), ("ext4", False)])
def test_file_that_is_not_mapped(
    lazy: Any, ranges_read: Any, monkeypatch: pytest.MonkeyPatch, kind: str, mmap: Any
) -> None:
    set_file_system(monkeypatch, kind)
    raw, pixels = plain("f4", SHAPE)
    data = lazy(raw, mmap=mmap)
    ranges_read.clear()
    np.testing.assert_array_equal(data[..., 3], pixels[..., 3])
    assert ranges_read
