"""Plain MRC compared with rosettasciio, mrcfile and NumPy: ``python -m benchmarks.plain``.

Makes files of 1 GiB and 512 MiB in FOLDER (a temporary one by default), which stay in the page
cache. Ratios are the time of the other program divided by ours.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import xarray as xr
from rsciio.mrc import file_reader
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from benchmarks.timing import best_times, run_in_folder, show

SHAPE = (256, 1024, 1024)
FRAMES = (16384, 128, 128)
MiB = 1024**2


def main(folder: Path) -> None:
    """Make the files, and print all tables."""
    volume, frames = folder / "volume.mrc", folder / "frames.mrcs"
    _make(volume, SHAPE, np.float32, is_stack=False)
    _make(frames, FRAMES, np.uint16, is_stack=True)
    opening(volume)
    loading(volume)
    reducing(volume)
    selecting(volume)
    averaging_frames(frames)
    importing()


def opening(path: Path) -> None:
    """Compare with an engine that only returns the same coordinates and an empty lazy array."""
    ds = xr.open_dataset(path, engine="mrc")
    nothing = _nothing_engine(ds)
    times = best_times(
        {
            "mrc_xarray": lambda: xr.open_dataset(path, engine="mrc"),
            "an engine that does nothing": lambda: xr.open_dataset(path, engine=nothing),
            "rosettasciio lazy": lambda: file_reader(str(path), lazy=True),
            "mrcfile.mmap": lambda: mrcfile.mmap(path).close(),
        },
        repeats=100,
    )
    show("open 1 GiB", times, {})
    above = times["mrc_xarray"] - times["an engine that does nothing"]
    print(f"{'':<34} above nothing: {1e3 * above:.2f} ms (goal 0.3 at most)")


def loading(path: Path) -> None:
    """Compare loading the complete file."""
    times = best_times(
        {
            "mrc_xarray": lambda: xr.open_dataset(path, engine="mrc").load(),
            "rosettasciio eager": lambda: file_reader(str(path), lazy=False),
            "mrcfile.read": lambda: mrcfile.read(path),
            "2 threads of preadv": lambda: _preadv(path),
        },
        repeats=5,
    )
    goal = {"rosettasciio eager": 3, "mrcfile.read": 7, "2 threads of preadv": 1 / 1.3}
    show("load() 1 GiB", times, goal)


def reducing(path: Path) -> None:
    """Compare the sum of all pixels through dask."""
    for title, options, goal in (
        ("dask sum of 1 GiB", {}, 1.8),
        ("dask sum of 1 GiB, mmap=True", {"mmap": True}, 3),
    ):
        times = best_times(
            {
                "mrc_xarray": lambda options=options: _open(path, **options).sum().compute(),
                "rosettasciio lazy": lambda: _rosettasciio(path).sum().compute(),
                "numpy, mapped, 1 thread": lambda: _mapped(path).sum(),
            },
            repeats=9,
        )
        show(title, times, {"rosettasciio lazy": goal})


def selecting(path: Path) -> None:
    """Compare small selections of files that are open."""
    ds, lazy = xr.open_dataset(path, engine="mrc", cache=False), _rosettasciio(path)
    for title, selection in {
        "one section": {"z": 100},
        "one xz plane": {"y": 500},
        "a 10 × 100 × 100 window": {
            "z": slice(50, 60),
            "y": slice(500, 600),
            "x": slice(300, 400),
        },
        "one yz plane": {"x": 300},
    }.items():
        key = tuple(selection.get(dim, slice(None)) for dim in "zyx")
        times = best_times(
            {
                "mrc_xarray": lambda selection=selection: ds.isel(selection).load(),
                "rosettasciio lazy": lambda key=key: lazy[key].compute(),
            },
            repeats=30,
        )
        show(title, times, {} if "yz" in title else {"rosettasciio lazy": 5})


def averaging_frames(path: Path) -> None:
    """Compare the mean of each of many small frames through dask."""
    times = best_times(
        {
            "mrc_xarray": lambda: _open(path).mean((1, 2)).compute(),
            "rosettasciio lazy": lambda: _rosettasciio(path).mean((1, 2)).compute(),
        },
        repeats=5,
    )
    show("mean of each of 16,384 frames", times, {"rosettasciio lazy": 1})


def importing() -> None:
    """Time the import of the engine's module, numpy and xarray being there already."""
    code = (
        "import time, numpy, xarray; start = time.perf_counter(); "
        "import mrc_xarray.backend; print(time.perf_counter() - start)"
    )
    # as users import it: from compiled files, which the first run leaves
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    runs = [subprocess.check_output([sys.executable, "-c", code], env=env) for _ in range(9)]
    print(f"{'import of the engine':<34} {1e3 * min(map(float, runs)):.1f} ms (goal 20 at most)")


def _open(path: Path, **options: Any) -> Any:
    return xr.open_dataset(path, engine="mrc", chunks={}, **options)["data"].data


def _rosettasciio(path: Path) -> Any:
    return file_reader(str(path), lazy=True)[0]["data"]


def _mapped(path: Path) -> np.ndarray[Any, Any]:
    return np.memmap(path, np.float32, "r", offset=1024)


def _preadv(path: Path, piece: int = 8 * MiB) -> np.ndarray[Any, Any]:
    """Fill a fresh array with two threads: what the machine can do."""
    array = np.empty(SHAPE, np.float32)
    flat = memoryview(array.reshape(-1).view(np.uint8))
    fd = os.open(path, os.O_RDONLY)

    def fill(start: int) -> None:
        stop = min(start + piece, len(flat))
        while start < stop:
            start += os.preadv(fd, [flat[start:stop]], 1024 + start)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(fill, range(0, len(flat), piece)))
    os.close(fd)
    return array


def _nothing_engine(like: xr.Dataset) -> type[BackendEntrypoint]:
    """Make an engine that returns the coordinates of `like`, and an array without a file."""

    class Empty(BackendArray):
        shape, dtype = like["data"].shape, like["data"].dtype

        def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
            raise NotImplementedError

    coords: dict[str, Callable[[], xr.Variable]] = {}
    for name, coord in like.coords.items():
        values, attrs = coord.values.copy(), dict(coord.attrs)
        coords[str(name)] = lambda d=coord.dims, v=values, a=attrs: xr.Variable(d, v, a)

    class Nothing(BackendEntrypoint):
        open_dataset_parameters = ("filename_or_obj", "drop_variables")

        def open_dataset(self, filename_or_obj: Any, *, drop_variables: Any = None) -> xr.Dataset:
            data = xr.Variable(like["data"].dims, indexing.LazilyIndexedArray(Empty()))
            made = {name: make() for name, make in coords.items()}
            return xr.Dataset({"data": data}, xr.Coordinates(made, indexes={}))

    return Nothing


def _make(path: Path, shape: tuple[int, int, int], dtype: Any, is_stack: bool) -> None:
    if path.exists():
        return
    random = np.random.default_rng(0)
    with mrcfile.new_mmap(path, shape, mrcfile.utils.mode_from_dtype(np.dtype(dtype))) as mrc:
        for section in mrc.data:
            section[:] = (random.standard_normal(shape[1:], np.float32) * 10 + 100).astype(dtype)
        mrc.voxel_size = 1.5
        if is_stack:
            mrc.set_image_stack()


if __name__ == "__main__":
    run_in_folder(main)
