"""What the tests of writing share: data, and how other programs read the files."""

from __future__ import annotations

import io
import os
import stat
import struct
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import by_hand
import dask.array as da
import mrcfile
import mrcz
import numpy as np
import pytest
import rsciio.mrc
import xarray as xr

from mrc_xarray import MrcWarning, to_mrc

Array = np.ndarray[Any, Any]
ORDERS = {"little": "<", "big": ">"}
UNDETERMINED = (0, -1, -2, -1)
PIXELS = np.random.default_rng(4).integers(-(2**15), 2**15, (24, 32, 48), "i2")
# what a target contains before it is overwritten
OLD_PIXELS = np.arange(4 * 5 * 6, dtype="f4").reshape(4, 5, 6)
OLD = by_hand.mrc(OLD_PIXELS)

# sections are written in place by any task, and blocks of an MRCZ one after the other
kinds = pytest.mark.parametrize("suffix", [".mrc", ".mrcz"])
# for a test whose subject is something else
unwarned = pytest.mark.filterwarnings("ignore::mrc_xarray.MrcWarning")
# chunks smaller than the preferred ones, so that there is work for every worker
by_two = pytest.mark.filterwarnings("ignore:The specified chunks separate the stored chunks")


# data -------------------------------------------------------------------------------------------


def noise(shape: tuple[int, ...], dtype: Any = "f4", seed: int = 0) -> Array:
    """Return values over the whole range of integers, and with imaginary parts if any."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    # mrcfile adds up squares of float16 as float16
    pixels = (1 if dtype == "f2" else 100) * rng.standard_normal(shape)
    return (pixels + 1j * pixels[::-1] if dtype.kind == "c" else pixels).astype(dtype)


def labelled(
    pixels: Any,
    dims: tuple[str, ...] = ("z", "y", "x"),
    voxel: float | dict[str, float] = 2.5,
    first: float | dict[str, float] = 0.0,
    units: str = "angstrom",
) -> xr.DataArray:
    """Give x, y and z a position; a single one has its spacing as an attribute."""
    coords = {}
    for dim, n in zip(dims, pixels.shape, strict=True):
        if dim in ("x", "y", "z"):
            step = voxel[dim] if isinstance(voxel, dict) else voxel
            start = first[dim] if isinstance(first, dict) else first
            attrs = {"units": units} | ({"spacing": step} if n == 1 else {})
            coords[dim] = (dim, start + step * np.arange(n), attrs)
    return xr.DataArray(pixels, coords, dims)


def in_chunks(pixels: Array, chunks: Any) -> Any:
    return pixels if chunks is None else da.from_array(pixels, chunks=chunks)


def counted(pixels: Array, chunks: Any) -> tuple[da.Array, Counter[Any]]:
    """Return a lazy array, and how often each of its blocks was computed."""
    counts: Counter[Any] = Counter()

    def block(part: Array, block_info: Any = None) -> Array:
        counts[tuple(block_info[0]["chunk-location"])] += 1
        return part

    lazy = da.from_array(pixels, chunks=chunks)
    meta = np.empty((0,) * pixels.ndim, pixels.dtype)
    return lazy.map_blocks(block, meta=meta), counts


def volume(
    pixels: Array = PIXELS, act: Callable[[int], Any] = lambda section: None, chunk: int = 1
) -> xr.DataArray:
    """Return a volume in blocks of sections, each of which calls `act` with its first section."""

    def block(part: Any, block_info: Any = None) -> Any:
        act(block_info[0]["array-location"][0][0])
        return part

    lazy = da.from_array(pixels, chunks=(chunk, -1, -1))
    meta = np.empty((0, 0, 0), pixels.dtype)
    return xr.DataArray(lazy.map_blocks(block, meta=meta), dims=("z", "y", "x"))


def once(act: Callable[[], Any], at: int = 12, pixels: Array = PIXELS) -> xr.DataArray:
    """Return a volume that calls `act` when section `at` is computed."""
    return volume(pixels, lambda section: act() if section == at else None)


def fail() -> None:
    raise RuntimeError("beyond repair")


# files ------------------------------------------------------------------------------------------


def opened(path: Path, **options: Any) -> xr.Dataset:
    with warnings.catch_warnings():
        # about extended headers of an unknown kind
        warnings.filterwarnings("ignore", ".*[Ee]xt", MrcWarning)
        return xr.open_dataset(path, engine="mrc", **options)


def source(folder: Path, pixels: Array, name: str = "source.mrc", **fields: Any) -> xr.Dataset:
    """Write a file by hand, and open it."""
    path = folder / name
    path.write_bytes(by_hand.mrc(pixels, **fields))
    return opened(path)


def warned(data: Any, path: Path, **options: Any) -> str:
    """Write, and return the text of the one warning."""
    with pytest.warns(MrcWarning) as caught:
        to_mrc(data, path, **options)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    return str(caught[0].message)


def field(path: Path, name: str, byteorder: str = "<") -> Any:
    """Return a header field from its bytes."""
    offset, code = by_hand.FIELDS[name]
    with path.open("rb") as file:
        values = struct.unpack_from(byteorder + code, file.read(1024), offset)
    return values[0] if len(values) == 1 else values


def fields(path: Path, *names: str, byteorder: str = "<") -> tuple[Any, ...]:
    return tuple(field(path, name, byteorder) for name in names)


def statistics(path: Path) -> tuple[float, ...]:
    return fields(path, "dmin", "dmax", "dmean", "rms")


def check_statistics(path: Path, pixels: Array, byteorder: str = "<") -> None:
    """Compare with NumPy's, of the finite pixels."""
    exact = pixels[np.isfinite(pixels)].astype("f8")
    mean, spread = exact.mean(), exact.std()
    found = fields(path, "dmin", "dmax", "dmean", "rms", byteorder=byteorder)
    assert found == pytest.approx((exact.min(), exact.max(), mean, spread), abs=1e-6 * spread)


def labels(path: Path) -> list[str]:
    """Return the texts, after a check that they come first and are counted."""
    raw = path.read_bytes()
    texts = [raw[at : at + 80].rstrip(b" \0").decode() for at in range(224, 1024, 80)]
    n = field(path, "nlabl")
    assert all(texts[:n])
    assert not any(texts[n:])
    return texts[:n]


def extended(path: Path) -> bytes:
    return path.read_bytes()[1024 : 1024 + field(path, "nsymbt")]


def stored(path: Path) -> bytes:
    """Return the bytes after the header and the extended header."""
    return path.read_bytes()[1024 + len(extended(path)) :]


def read_by_rosettasciio(reader: Any, path: Path) -> dict[str, Any]:
    with warnings.catch_warnings():
        # it leaves the file to the garbage collector
        warnings.simplefilter("ignore", ResourceWarning)
        result: dict[str, Any] = reader.file_reader(str(path))[0]
    return result


def check_validity(path: Path) -> None:
    report = io.StringIO()
    assert mrcfile.validate(path, print_file=report), report.getvalue()


def check_pixels(path: Path, pixels: Array) -> None:
    """Compare with what mrcz or other programs read."""
    if path.suffix == ".mrc":
        check_plain(path, pixels)
    else:
        np.testing.assert_array_equal(np.reshape(mrcz.readMRC(path)[0], pixels.shape), pixels)


def check_plain(path: Path, pixels: Array, byteorder: str = "<", *, valid: bool = True) -> None:
    """Compare with what other programs read from a plain file."""
    with mrcfile.open(path) as mrc:
        assert mrc.data.dtype.newbyteorder("=") == pixels.dtype
        np.testing.assert_array_equal(mrc.data.reshape(pixels.shape), pixels)
    if valid:
        check_validity(path)
    # RosettaSciIO reads all files as little-endian pixels, and 8 bits as unsigned
    if byteorder == "<":
        found = read_by_rosettasciio(rsciio.mrc, path)["data"]
        found = found.view("i1") if pixels.dtype == "i1" else found
        np.testing.assert_array_equal(np.reshape(found, pixels.shape), pixels)


def read(path: Path | str, **options: Any) -> Array:
    pixels: Array = xr.open_dataarray(path, engine="mrc", **options).values
    return pixels


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def modes_of_parts(folder: Path) -> list[int]:
    return [mode_of(path) for path in folder.glob(".*.part")]


def by_rename(path: Path, content: bytes) -> None:
    """Replace a file by another one."""
    other = path.with_name("other")
    other.write_bytes(content)
    other.replace(path)


def tilt_series(angles: Any) -> xr.DataArray:
    """Return images with angles, and positions along x only."""
    return xr.DataArray(
        np.arange(len(angles) * 12, dtype="f4").reshape(-1, 3, 4),
        {"tilt_angle": ("image", np.asarray(angles, float), {"units": "degree"}),
         "x": ("x", np.arange(4) * 0.5, {"units": "nm"})},
        ("image", "y", "x"), attrs={"mrc_layout": "image_stack"},
    )  # fmt: skip
