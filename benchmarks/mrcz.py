"""MRCZ compared with mrcz 0.6: ``python -m benchmarks.mrcz [FOLDER]``.

Makes the files in FOLDER (a temporary one by default). Ratios are the time of the other
program divided by ours: above 1, ours is faster.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import mrcz
import numpy as np
import xarray as xr

from benchmarks.timing import interleaved, peak_memory, run_in_folder, show

MiB = 1024**2


def main(folder: Path) -> None:
    """Make the files, and print all tables."""
    random = np.random.default_rng(0)
    files = {
        "int8 64×2048², zstd 1": _write(
            folder / "counting.mrcz", lambda: _counts(random, (64, 2048, 2048)), "zstd", 1
        ),
        "uint16 64×1024×2048, lz4 9": _write(
            folder / "integrating.mrcz",
            lambda: random.poisson(50, (64, 1024, 2048)).astype("u2"), "lz4", 9,
        ),
        "float32 64×1024², zstd 1": _write(
            folder / "volume.mrcz",
            lambda: random.standard_normal((64, 1024, 1024), np.float32), "zstd", 1,
        ),
        "1,000 frames of 128² uint16": _write(
            folder / "frames.mrcz",
            lambda: random.poisson(5, (1000, 128, 128)).astype("u2"), "zstd", 1,
        ),
    }  # fmt: skip
    loading(files)
    one_section(files)
    averaging(files)
    growing(folder)
    walking(folder)
    streaming(folder)


def loading(files: dict[str, Path]) -> None:
    """Compare loading the complete file."""
    ratios = []
    for title, path in files.items():
        times = interleaved(
            {
                "mrc_xarray": lambda path=path: xr.open_dataset(path, engine="mrc").load(),
                "mrcz.readMRC": lambda path=path: mrcz.readMRC(str(path)),
            },
            repeats=5,
        )
        ratios.append(times["mrcz.readMRC"].best / times["mrc_xarray"].best)
        show(f"load {title}", times, {"mrcz.readMRC": 1.4})
    print(f"{'':<34} mean of the ratios: {statistics.mean(ratios):.2f} × (goal 1.4)")


def one_section(files: dict[str, Path]) -> None:
    """Compare one section of 64; mrcz can only read the complete file."""
    for title, path in list(files.items())[:3]:
        ds = xr.open_dataset(path, engine="mrc", cache=False)
        times = interleaved(
            {
                "mrc_xarray, with opening": lambda path=path: _section(path),
                "mrc_xarray, file open": lambda ds=ds: ds.isel(image=32).load(),
                "mrcz.readMRC": lambda path=path: mrcz.readMRC(str(path))[0][32],
            },
            repeats=20,
        )
        show(f"section {title}", times, {"mrcz.readMRC": 40})


def _section(path: Path) -> xr.Dataset:
    return xr.open_dataset(path, engine="mrc").isel(image=32).load()


def averaging(files: dict[str, Path]) -> None:
    """Compare a mean over all, through dask."""
    for title, path in files.items():
        times = interleaved(
            {
                "mrc_xarray": lambda path=path: (
                    xr.open_dataset(path, engine="mrc", chunks={})["data"].mean().compute()
                ),
                "readMRC and numpy's mean": lambda path=path: mrcz.readMRC(str(path))[0].mean(),
            },
            repeats=5,
        )
        show(f"mean {title}", times, {"readMRC and numpy's mean": 1.35})


def growing(folder: Path) -> None:
    """Show what one section costs in files of more and more sections."""
    frame = np.random.default_rng(1).poisson(5, (256, 256)).astype(np.uint16)
    for n in (16, 256, 4096):
        path = _write(folder / f"grow{n}.mrcz", lambda n=n: np.stack([frame] * n), "zstd", 1)
        ds = xr.open_dataset(path, engine="mrc", cache=False)
        times = interleaved(
            {
                "a section of an open file": lambda ds=ds, n=n: ds.isel(image=n // 2).load(),
                "open": lambda path=path: xr.open_dataset(path, engine="mrc"),
            },
            repeats=20,
        )
        show(f"of {n} sections", times, {})


def walking(folder: Path) -> None:
    """Time the opening of a file of 65,536 blocks."""
    small = _write(folder / "block.mrcz", lambda: np.zeros((1, 64, 64), np.int8), "zstd", 1)
    raw = bytearray(small.read_bytes())
    n = 65536
    raw[8:12] = n.to_bytes(4, "little")
    path = folder / "blocks.mrcz"
    path.write_bytes(bytes(raw[:1024]) + bytes(raw[1024:]) * n)
    times = interleaved({"mrc_xarray": lambda: xr.open_dataset(path, engine="mrc")}, repeats=5)
    show("open 65,536 blocks (goal 300 ms)", times, {})


def streaming(folder: Path) -> None:
    """Measure the peak memory of a dask reduction over 1 GiB, in another process."""
    shape = (256, 2048, 2048)
    path = _write(folder / "gib.mrcz", lambda: _counts(np.random.default_rng(2), shape), "zstd", 1)
    code = f"xr.open_dataarray({str(path)!r}, engine='mrc', chunks={{}})"
    above = peak_memory(f"{code}[:1, :8].sum().compute()", f"{code}.sum().compute()")
    chunk = xr.open_dataarray(path, engine="mrc", chunks={}).data.blocks[0].nbytes / MiB
    goal = 4 * chunk + 32
    print(f"{'sum of 1 GiB decoded':<34} {above:.0f} MiB above idle (goal {goal:.0f} at most)")


def _counts(random: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray[Any, Any]:
    """Return counting data: mostly 0, sometimes 1."""
    sections = [random.poisson(0.1, shape[1:]).astype(np.int8) for _ in range(8)]
    return np.stack([sections[i % 8] for i in range(shape[0])])


def _write(path: Path, make: Any, compressor: str, clevel: int) -> Path:
    if not path.exists():
        mrcz.writeMRC(make(), str(path), compressor=compressor, clevel=clevel)
    return path


if __name__ == "__main__":
    run_in_folder(main)
