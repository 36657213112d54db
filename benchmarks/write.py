"""Writing compared with mrcfile and mrcz: ``python -m benchmarks.write [FOLDER]``.

Makes the files in FOLDER (a temporary one by default). Ratios are the time of the other
program divided by ours: above 1, ours is faster. Our file is synchronised to the disk before it
gets its name. Theirs is not, so that each of them is also timed with a synchronisation, which
costs nothing in a FOLDER in memory, such as one in /dev/shm.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import mrcfile
import mrcz
import numpy as np

import mrc_xarray
from benchmarks.timing import interleaved, peak_memory, run_in_folder, show

MiB = 1024**2


def main(folder: Path) -> None:
    """Print all tables."""
    plain(folder)
    compressed(folder)
    memory(folder)


def plain(folder: Path) -> None:
    """Compare 1 GiB of float32, with statistics."""
    pixels = np.random.default_rng(0).standard_normal((256, 1024, 1024), np.float32)
    chunked = da.from_array(pixels, chunks=(4, 1024, 1024), name=False)
    path = folder / "plain.mrc"

    def write_with_mrcfile() -> None:
        mrcfile.write(path, pixels, overwrite=True)

    times = interleaved(
        {
            "to_mrc, dask array": lambda: mrc_xarray.to_mrc(chunked, path, overwrite=True),
            "to_mrc, numpy array": lambda: mrc_xarray.to_mrc(pixels, path, overwrite=True),
            "mrcfile.write": write_with_mrcfile,
            "mrcfile.write, and sync": lambda: _synced(path, write_with_mrcfile),
        },
        repeats=3,
    )
    show("1 GiB float32", times, {"mrcfile.write": 1})
    path.unlink()


def compressed(folder: Path) -> None:
    """Compare 256 MiB of counting data."""
    random = np.random.default_rng(1)
    frames = [random.poisson(0.1, (2048, 2048)).astype(np.int8) for _ in range(8)]
    pixels = np.stack(frames * 8)
    chunked = da.from_array(pixels, chunks=(4, 2048, 2048), name=False)
    path = folder / "counting.mrcz"
    for compressor, level in (("zstd", 1), ("lz4", 9)):
        settings: dict[str, Any] = {"compressor": compressor, "clevel": level}

        def ours(obj: Any, settings: dict[str, Any] = settings, statistics: Any = "quick") -> None:
            # mrcz measures the first section
            mrc_xarray.to_mrc(obj, path, overwrite=True, statistics=statistics, **settings)

        def write_with_mrcz(settings: dict[str, Any] = settings) -> None:
            mrcz.writeMRC(pixels, str(path), **settings)

        times = interleaved(
            {
                "to_mrc, dask array": lambda ours=ours: ours(chunked),
                "to_mrc, numpy array": lambda ours=ours: ours(pixels),
                "to_mrc, all measured": lambda ours=ours: ours(chunked, statistics=True),
                "mrcz.writeMRC": write_with_mrcz,
                "mrcz.writeMRC, and sync": lambda theirs=write_with_mrcz: _synced(path, theirs),
            },
            repeats=4,
        )
        show(f"256 MiB int8, {compressor} {level}", times, {"mrcz.writeMRC": 1.3})
        sizes = []
        for write in (lambda ours=ours: ours(pixels), write_with_mrcz):
            write()
            sizes.append(path.stat().st_size / MiB)
        print(f"{'':<34} size: {sizes[0]:.1f} MiB, by mrcz {sizes[1]:.1f} MiB")
    path.unlink()


def memory(folder: Path) -> None:
    """Measure the peak memory of writing 1 GiB from a lazy source, in another process."""
    source = folder / "source.mrc"
    mrc_xarray.create(source, (256, 1024, 1024), "f4", overwrite=True)
    for suffix in (".mrc", ".mrcz"):
        target = folder / f"result{suffix}"
        before = (
            f"data = xr.open_dataarray({str(source)!r}, engine='mrc', chunks={{}})\n"
            f"mrc_xarray.to_mrc(data[:4] + 1, {str(target)!r})"
        )
        code = f"mrc_xarray.to_mrc(data + 1, {str(target)!r}, overwrite=True)"
        above = peak_memory(before, code)
        title = f"peak of 1 GiB to {suffix}"
        print(f"{title:<34} {above:.0f} MiB, {above / 1024:.0%} (goal 20% at most)")
        target.unlink()
    source.unlink()


def _synced(path: Path, write: Callable[[], None]) -> None:
    write()
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


if __name__ == "__main__":
    run_in_folder(main)
