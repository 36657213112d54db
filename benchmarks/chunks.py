"""Chunk sizes and schedulers: ``python -m benchmarks.chunks [FOLDER]``.

Makes a file of 512 MiB and one of 256 MiB in FOLDER (a temporary one by default), which stay in
the page cache. ``docs/howto/chunks.md`` has the results.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from distributed import Client, LocalCluster

from benchmarks.plain import make
from benchmarks.timing import interleaved, peak_memory, run_in_folder, show

VOLUME = (128, 1024, 1024)
FRAMES = (8192, 128, 128)


def main(folder: Path) -> None:
    """Make the files, and print all tables."""
    volume, frames = folder / "volume.mrc", folder / "frames.mrcs"
    make(volume, VOLUME, np.float32)
    make(frames, FRAMES, np.uint16)
    sizes("sum of sections of 4 MiB", volume, "z", (1, 4, 32, 128))
    sizes("sum of frames of 32 KiB", frames, "image", (1, 16, 512, 4096))
    memory(volume)
    orders(volume)
    schedulers(frames)


def sizes(title: str, path: Path, dim: str, numbers: tuple[int, ...]) -> None:
    """Compare chunks of some numbers of sections with those of ``chunks={}``."""
    contenders: dict[str, Callable[[], Any]] = {"chunks={}": lambda: _open(path).sum().compute()}
    for n in numbers:
        contenders[f"{n} sections"] = lambda n=n: _open(path, {dim: n}).sum().compute()
    show(title, interleaved(contenders, repeats=5), {})


def memory(path: Path) -> None:
    """Print the memory of the standard deviation, which makes large temporary arrays."""
    for chunks in ({}, {"z": 8}):
        opened = f'xr.open_dataarray("{path}", engine="mrc", chunks={chunks})'
        mebibytes = peak_memory("", f"{opened}.std().compute(num_workers=2)")
        print(f"std, two threads, chunks={chunks}: {mebibytes:.0f} MiB")


def orders(path: Path) -> None:
    """Compare a window that is selected before chunking with one that is selected after it."""
    window = {"z": slice(10, 110), "y": slice(500, 600), "x": slice(500, 600)}

    def before() -> Any:
        part = xr.open_dataarray(path, engine="mrc", cache=False).isel(window)
        return part.chunk(z=50).std().compute()

    def after() -> Any:
        return _open(path).isel(window).std().compute()

    def rechunked() -> Any:
        return _open(path, {"z": 1}).chunk(z=50).isel(window).std().compute()

    contenders = {
        "select, then chunk": before,
        "chunk, then select": after,
        "chunk twice, then select": rechunked,
    }
    show("window of 100 × 100 × 100", interleaved(contenders, repeats=5), {})


def schedulers(path: Path) -> None:
    """Compare schedulers with a function that NumPy runs, and one that Python runs."""
    data = _open(path)
    python = _open(path, {"image": 1024})

    def brightest(frame: Any) -> Any:
        return max(max(row) for row in frame.tolist())

    slow = xr.apply_ufunc(
        brightest, python, input_core_dims=[["y", "x"]], vectorize=True, dask="parallelized"
    )
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        for title, result in (("mean of each frame", data.mean(("y", "x"))), ("Python", slow)):
            gets = {
                "threads": "threads",
                "one thread": "synchronous",
                "processes": "processes",
                "cluster": client.get,
            }
            contenders = {
                name: lambda result=result, get=get: result.compute(scheduler=get)
                for name, get in gets.items()
            }
            show(title, interleaved(contenders, repeats=3), {})


def _open(path: Path, chunks: dict[str, int] | None = None) -> xr.DataArray:
    return xr.open_dataarray(path, engine="mrc", chunks=chunks or {})


if __name__ == "__main__":
    run_in_folder(main)
