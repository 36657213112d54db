"""Plain MRC compared with rosettasciio, mrcfile and NumPy: ``python -m benchmarks.plain``.

Makes two files of 1 GiB and one of 512 MiB in FOLDER (a temporary one by default), which stay in
the page cache. Each line has the minimum and the median; ratios are the time of the other program
divided by ours, above 1 where ours is faster.
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
from distributed import Client, LocalCluster
from rsciio.mrc import file_reader
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from benchmarks.timing import interleaved, run_in_folder, show

SHAPE = (256, 1024, 1024)
WIDE = (64, 512, 8192)
FRAMES = (16384, 128, 128)
MiB = 1024**2


def main(folder: Path) -> None:
    """Make the files, and print all tables."""
    volume, wide, frames = (folder / name for name in ("volume.mrc", "wide.mrc", "frames.mrcs"))
    make(volume, SHAPE, np.float32)
    make(wide, WIDE, np.float32)
    make(frames, FRAMES, np.uint16)
    opening(volume)
    loading(volume)
    reducing(volume)
    averaging_frames(frames)
    on_a_cluster(volume)
    selecting(volume)
    columns(volume, "rows of 4 KiB")
    columns(wide, "rows of 32 KiB")
    importing()


def opening(path: Path) -> None:
    """Compare with an engine that only returns the same coordinates and an empty lazy array."""
    nothing = _nothing_engine(xr.open_dataset(path, engine="mrc"))
    times = interleaved(
        {
            "mrc_xarray": lambda: xr.open_dataset(path, engine="mrc"),
            "an engine that does nothing": lambda: xr.open_dataset(path, engine=nothing),
            "rosettasciio lazy": lambda: file_reader(str(path), lazy=True),
            "mrcfile.mmap": lambda: mrcfile.mmap(path).close(),
        },
        repeats=200,
    )
    show("open 1 GiB", times, {})
    above = times["mrc_xarray"].best - times["an engine that does nothing"].best
    print(f"{'':<34} above nothing: {1e3 * above:.2f} ms (goal 0.1 at most)")


def loading(path: Path) -> None:
    """Compare loading the complete file."""
    times = interleaved(
        {
            "mrc_xarray": lambda: xr.open_dataset(path, engine="mrc").load(),
            "rosettasciio eager": lambda: file_reader(str(path), lazy=False),
            "mrcfile.read": lambda: mrcfile.read(path),
            "a preadv per core": lambda: _preadv(path),
        },
        repeats=5,
    )
    show("load() 1 GiB", times, {"rosettasciio eager": 3, "mrcfile.read": 7})


def reducing(path: Path) -> None:
    """Compare the sum of all pixels through dask."""
    _compare_dask(path, "dask sum of 1 GiB", lambda array: array.sum(), goals=(2, 3))


def averaging_frames(path: Path) -> None:
    """Compare the mean of each of many small frames through dask."""
    title = "mean of each of 16,384 frames"
    _compare_dask(path, title, lambda array: array.mean((1, 2)), goals=(1.1, 1.2))


def on_a_cluster(path: Path) -> None:
    """Compare the sum of all pixels on processes: 2, or 4 of 4 threads if there are 16 cores."""
    n_workers, n_threads = (4, 4) if (os.cpu_count() or 1) >= 16 else (2, 1)
    with (
        LocalCluster(
            n_workers=n_workers, threads_per_worker=n_threads, dashboard_address=":0"
        ) as cluster,
        Client(cluster),
    ):
        title = f"sum, {n_workers} × {n_threads} cluster"
        _compare_dask(path, title, lambda array: array.sum(), goals=(1.3, 1.3))


def selecting(path: Path) -> None:
    """Compare small selections of a file that is opened each time."""
    for title, selection, goal in (
        ("one section", {"z": 100}, 4),
        ("one xz plane", {"y": 500}, 1),
        (
            "a 10 × 100 × 100 window",
            {"z": slice(50, 60), "y": slice(500, 600), "x": slice(300, 400)},
            2,
        ),
    ):
        _compare_selection(path, title, selection, goal)


def columns(path: Path, rows: str) -> None:
    """Compare a few columns, whose pixels are far apart in the file."""
    _compare_selection(path, f"one yz plane, {rows}", {"x": 300}, 2 if "32" in rows else 1.3)
    _compare_selection(path, f"100 columns, {rows}", {"x": slice(300, 400)}, 1)


def _compare_dask(
    path: Path, title: str, reduce: Callable[[Any], Any], goals: tuple[float, float]
) -> None:
    times = interleaved(
        {
            "mrc_xarray": lambda: reduce(_open(path)).compute(),
            "mrc_xarray, mmap=True": lambda: reduce(_open(path, mmap=True)).compute(),
            "mrc_xarray, mmap=False": lambda: reduce(_open(path, mmap=False)).compute(),
            "rosettasciio lazy": lambda: reduce(_rosettasciio(path)).compute(),
        },
        repeats=15,
    )
    peer = "rosettasciio lazy"
    show(title, {name: times[name] for name in ("mrc_xarray", peer)}, {peer: goals[0]})
    for name, goal in {
        "mrc_xarray, mmap=True": {peer: goals[1]},
        "mrc_xarray, mmap=False": {},
    }.items():
        show("", {name: times[name], peer: times[peer]}, goal)


def _compare_selection(path: Path, title: str, selection: dict[str, Any], goal: float) -> None:
    key = tuple(selection.get(dim, slice(None)) for dim in "zyx")
    opened = xr.open_dataset(path, engine="mrc", cache=False)
    times = interleaved(
        {
            "mrc_xarray, with opening": lambda: (
                xr.open_dataset(path, engine="mrc").isel(selection).load()
            ),
            "mrc_xarray, file open": lambda: opened.isel(selection).load(),
            "rosettasciio, with opening": lambda: _rosettasciio(path)[key].compute(),
        },
        repeats=30,
    )
    show(title, times, {"rosettasciio, with opening": goal})


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


def _preadv(path: Path, piece: int = 8 * MiB) -> np.ndarray[Any, Any]:
    """Fill a fresh array with all cores: what the machine can do."""
    array = np.empty(SHAPE, np.float32)
    flat = memoryview(array.reshape(-1).view(np.uint8))
    fd = os.open(path, os.O_RDONLY)

    def fill(start: int) -> None:
        stop = min(start + piece, len(flat))
        while start < stop:
            start += os.preadv(fd, [flat[start:stop]], 1024 + start)

    with ThreadPoolExecutor() as pool:
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


def make(path: Path, shape: tuple[int, int, int], dtype: Any) -> None:
    """Write noise by plain writes: a file that is written through a map is cached differently."""
    if path.exists():
        return
    random, section = np.random.default_rng(0), np.zeros((1, *shape[1:]), dtype)
    with mrcfile.new(path, section) as mrc:
        mrc.voxel_size = 1.5
        mrc.header.nz = shape[0]
        mrc.header.mz = 1 if path.suffix == ".mrcs" else shape[0]
        mrc.header.ispg = path.suffix != ".mrcs"
        mrc.header.cella.z = 1.5 * mrc.header.mz
    with open(path, "r+b") as file:
        file.seek(1024)
        for _ in range(shape[0]):
            noise = random.standard_normal(shape[1:], np.float32) * 10 + 100
            file.write(noise.astype(dtype).tobytes())


if __name__ == "__main__":
    run_in_folder(main)
