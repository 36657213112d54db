"""Interleaved timing of alternatives, on a noisy machine."""

from __future__ import annotations

import gc
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_PEAK = """
import re, xarray as xr, mrc_xarray
def peak():
    # ru_maxrss would count the memory of the parent process, too
    with open("/proc/self/status") as status:
        return int(re.search(r"VmHWM:\\s+(\\d+)", status.read())[1]) / 1024
"""


def best_times(contenders: Mapping[str, Callable[[], Any]], repeats: int = 7) -> dict[str, float]:
    """Run the contenders in turn, and return the best time of each.

    They are interleaved, so that a slow phase of the machine affects all of them. Short ones run
    several times in a row, so that the caches contain their own data.

    Parameters
    ----------
    contenders : mapping of str to callable
    repeats : int
        Turns of each, after one that is not counted.

    Returns
    -------
    dict of str to float, s
    """
    best = dict.fromkeys(contenders, float("inf"))
    in_a_row = 5 if repeats >= 20 else 1
    for turn in range(repeats // in_a_row + 1):
        gc.collect()
        for name, run in contenders.items():
            for _ in range(in_a_row):
                start = time.perf_counter()
                result = run()
                taken = time.perf_counter() - start
                del result
                if turn:
                    best[name] = min(best[name], taken)
    return best


def show(title: str, times: Mapping[str, float], goal: Mapping[str, float]) -> None:
    """Print the times: the first one, and the others as multiples of it.

    Parameters
    ----------
    title : str
    times : mapping of str to float, s
        The time of this package comes first.
    goal : mapping of str to float
        The ratios to reach; a name may be left out.
    """
    (ours, our_time), *others = times.items()
    print(f"{title:<34} {ours:<26} {1e3 * our_time:9.2f} ms")
    for name, taken in others:
        ratio = f"{taken / our_time:6.2f} ×"
        suffix = f" (goal {goal[name]:g})" if name in goal else ""
        print(f"{'':<34} {name:<26} {1e3 * taken:9.2f} ms  {ratio}{suffix}")


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
