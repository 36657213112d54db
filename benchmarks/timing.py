"""Timing of things beside each other, on a machine that is noisy."""

from __future__ import annotations

import gc
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def best_times(contenders: Mapping[str, Callable[[], Any]], repeats: int = 7) -> dict[str, float]:
    """Run the contenders in turn, and return the best time of each.

    Turns, rather than one after the other, so that a slow spell of the machine hits all alike;
    short ones a few times in a row, as caches are then those of its own work.

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


def show(title: str, times: Mapping[str, float], wanted: Mapping[str, float]) -> None:
    """Print the times: ours, which comes first, and the others as multiples of it.

    Parameters
    ----------
    title : str
    times : mapping of str to float, s
        Ours comes first.
    wanted : mapping of str to float
        How many times ours each of the others should take, where that is agreed.
    """
    (ours, our_time), *others = times.items()
    print(f"{title:<34} {ours:<26} {1e3 * our_time:9.2f} ms")
    for name, taken in others:
        ratio = f"{taken / our_time:6.2f} ×"
        goal = f" (wanted {wanted[name]:g})" if name in wanted else ""
        print(f"{'':<34} {name:<26} {1e3 * taken:9.2f} ms  {ratio}{goal}")


def run_in_folder(main: Callable[[Path], None]) -> None:
    """Call `main` with the folder that the command line names, or with a temporary one."""
    warnings.simplefilter("ignore")
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(scratch))
