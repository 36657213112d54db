"""Interleaved timing of alternatives, on a noisy machine."""

from __future__ import annotations

import gc
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

_PEAK = """
import re, xarray as xr, mrc_xarray
def peak():
    # ru_maxrss would count the memory of the parent process, too
    with open("/proc/self/status") as status:
        return int(re.search(r"VmHWM:\\s+(\\d+)", status.read())[1]) / 1024
"""


class Times(NamedTuple):
    """The minimum and the median of several runs, in seconds."""

    best: float
    median: float


def interleaved(contenders: Mapping[str, Callable[[], Any]], repeats: int = 7) -> dict[str, Times]:
    """Run the contenders in turn, and return the times of each.

    They are interleaved, so that a slow phase of the machine affects all of them. Short ones run
    several times in a row, so that the caches contain their own data.

    Parameters
    ----------
    contenders : mapping of str to callable
    repeats : int
        Turns of each, after one that is not counted.

    Returns
    -------
    dict of str to Times
    """
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    in_a_row = 5 if repeats >= 20 else 1
    for turn in range(repeats // in_a_row + 1):
        gc.collect()
        for name, run in contenders.items():
            for _ in range(in_a_row):
                start = time.perf_counter()
                result = run()
                seconds = time.perf_counter() - start
                del result
                if turn:
                    taken[name].append(seconds)
    return {name: Times(min(runs), statistics.median(runs)) for name, runs in taken.items()}


def show(title: str, times: Mapping[str, Times], goal: Mapping[str, float]) -> None:
    """Print the minimum and the median of each; those of the others also as multiples of ours.

    Parameters
    ----------
    title : str
    times : mapping of str to Times
        Those of this package come first.
    goal : mapping of str to float
        The ratios to reach; a name may be left out.
    """
    (ours, mine), *others = times.items()
    print(f"{title:<34} {ours:<26} {1e3 * mine.best:9.2f} {1e3 * mine.median:9.2f} ms")
    for name, other in others:
        ratios = f"{other.best / mine.best:6.2f} {other.median / mine.median:6.2f} ×"
        suffix = f" (goal {goal[name]:g})" if name in goal else ""
        shown = f"{1e3 * other.best:9.2f} {1e3 * other.median:9.2f} ms"
        print(f"{'':<34} {name:<26} {shown}  {ratios}{suffix}")


def peak_memory(before: str, code: str) -> float:
    """Return by how many MiB `code` increases the peak memory of a process that ran `before`."""
    script = f"{_PEAK}{before}\nidle = peak()\n{code}\nprint(peak() - idle)"
    return float(subprocess.check_output([sys.executable, "-W", "ignore", "-c", script]))


def run_in_folder(main: Callable[[Path], None]) -> None:
    """Call `main` with the folder that the command line names, or with a temporary one."""
    warnings.simplefilter("ignore")
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(scratch))
