"""Writers that are interrupted in the middle, or killed at random moments."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import by_hand
import numpy as np
import pytest
import xarray as xr

from mrc_xarray import MrcError, MrcWarning, edit_header, to_mrc, validate

ROUNDS = int(os.environ.get("MRC_XARRAY_KILLS", "10"))
N = 48
OLD = np.arange(N, dtype="f4")[:, None, None] * np.ones((1, 128, 128), "f4")
NEW = OLD + 1000

# writes sections, and waits at the 30th
HALFWAY = """
import signal, sys
import dask.array as da, numpy as np, xarray as xr
import mrc_xarray

def block(part, block_info=None):
    if block_info[0]["array-location"][0][0] == 30:
        print("reached", flush=True)
        sys.stdin.readline()
    return part

# a background job of a shell ignores it
signal.signal(signal.SIGINT, signal.default_int_handler)
lazy = da.ones((48, 128, 128), dtype="f4", chunks=(1, -1, -1))
lazy = lazy.map_blocks(block, meta=np.empty((0, 0, 0), "f4"))
mrc_xarray.to_mrc(xr.DataArray(lazy, dims=("z", "y", "x")), sys.argv[1], overwrite=True)
"""


def read(path: Path) -> tuple[np.ndarray[Any, Any], dict[str, float], list[str]]:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        data = xr.open_dataarray(path, engine="mrc")
        return data.values, data.mrc.voxel_size, [str(w.message) for w in seen]


@pytest.mark.parametrize(
    ("suffix", "by"),
    [(".mrc", signal.SIGKILL), (".mrc", signal.SIGINT), (".mrcz", signal.SIGINT)],
)
@pytest.mark.slow
def test_interrupted_writer_leaves_the_old_file(
    tmp_path: Path, suffix: str, by: signal.Signals
) -> None:
    path = tmp_path / f"volume{suffix}"
    path.write_bytes(before := by_hand.mrc(OLD))
    with subprocess.Popen(
        [sys.executable, "-c", HALFWAY, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "reached\n"
        assert list(tmp_path.glob(f".{path.name}.*.part"))
        writer.send_signal(by)
        if by == signal.SIGINT:
            # Ctrl-C removes the temporary file, although a thread still runs
            give_up = time.monotonic() + 30
            while os.listdir(tmp_path) != [path.name]:
                assert time.monotonic() < give_up
                time.sleep(0.005)
            # an interrupted ThreadPoolExecutor can wait for its own lock for ever
            writer.kill()
        writer.communicate()
    assert writer.returncode != 0
    assert path.read_bytes() == before
    # the next writer removes the temporary file of a killed one
    to_mrc(NEW, path, overwrite=True)
    np.testing.assert_array_equal(read(path)[0], NEW)
    assert os.listdir(tmp_path) == [path.name]


# forks for each input line, so that modules are imported once; the child writes by sections
WRITER = """
import os, sys
import dask.array as da, numpy as np, xarray as xr
import mrc_xarray

what, path = sys.argv[1:]
new = np.arange(48, dtype="f4")[:, None, None] * np.ones((1, 128, 128), "f4") + 1000
data = xr.DataArray(da.from_array(new, chunks=(1, -1, -1)), dims=("z", "y", "x"))
options = {
    "overwrite": {"overwrite": True},
    "append": {"append_dim": "z"},
    "region": {"region": {"z": slice(0, 48)}},
}
# import the modules that are imported lazily
mrc_xarray.to_mrc(data[:2], path.replace("volume", "first"), overwrite=True)
for line in sys.stdin:
    child = os.fork()
    if not child:
        if what == "edit_header":
            for i in range(200):
                mrc_xarray.edit_header(path, voxel_size=2.0 + i % 2, origin=(i % 2, 0, 0))
        else:
            mrc_xarray.to_mrc(data, path, **options[what])
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@contextlib.contextmanager
def writers(what: str, path: Path) -> Iterator[Callable[[float | None], tuple[bool, float]]]:
    """Start a process that forks writers.

    The result is a function that writes, kills the writer after some seconds, and returns whether
    it had finished, and how long it ran.
    """
    command = [sys.executable, "-W", "ignore", "-c", WRITER, what, str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        to_process, from_process = process.stdin, process.stdout
        assert to_process is not None
        assert from_process is not None

        def run(after: float | None) -> tuple[bool, float]:
            print("go", file=to_process, flush=True)
            child = int(from_process.readline())
            began = time.monotonic()
            if after is not None:
                time.sleep(after)
                # it may have finished; only its parent may wait for it
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            status = int(from_process.readline())
            assert status in (0, -signal.SIGKILL)
            return status == 0, time.monotonic() - began

        yield run


def outcome(what: str, path: Path) -> str:
    """Return the state that a killed write left; fail if it is not an allowed one."""
    pixels, voxel, messages = read(path)
    if what == "overwrite":
        assert not messages
        assert np.array_equal(pixels, OLD) or np.array_equal(pixels, NEW)
        return "new" if pixels[0, 0, 0] == 1000 else "old"
    if what == "region":
        # its sections are the old ones or the new ones, some of them in part
        assert pixels.shape == OLD.shape
        assert ((pixels == OLD) | (pixels == NEW)).all()
        return "filled" if np.array_equal(pixels, NEW) else "filled in part"
    if what == "edit_header":
        assert set(voxel.values()) in ({1.0}, {2.0}, {3.0})
        np.testing.assert_array_equal(pixels, OLD)
        assert not messages
        return f"voxel size {voxel['x']}"
    np.testing.assert_array_equal(pixels[:N], OLD)
    if len(pixels) == 2 * N:
        np.testing.assert_array_equal(pixels[N:], NEW)
        assert not messages
        return "appended"
    assert len(pixels) == N
    if path.stat().st_size == 1024 + OLD.nbytes:
        return "old"
    assert "os.truncate" in messages[0]
    assert any("os.truncate" in str(problem) for problem in validate(path))
    with pytest.raises(MrcError, match="killed"):
        to_mrc(NEW[:1], path, append_dim="z")
    os.truncate(path, 1024 + OLD.nbytes)
    return "old, and the rest recognised"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "suffix"),
    [
        *[("overwrite", suffix) for suffix in (".mrc", ".mrcz", ".mrc.gz")],
        *[(what, ".mrc") for what in ("append", "region", "edit_header")],
        ("edit_header", ".mrcz"),
    ],
)
def test_killed_writers(tmp_path: Path, what: str, suffix: str) -> None:
    path = tmp_path / f"volume{suffix}"
    rng = random.Random(0)
    outcomes: Counter[str] = Counter()

    def restore() -> None:
        if suffix == ".mrc":
            path.write_bytes(by_hand.mrc(OLD))
        else:
            to_mrc(OLD, path, overwrite=True)

    with writers(what, path) as run:
        restore()
        longest = max(run(None)[1] for _ in range(2))
        for _ in range(ROUNDS):
            restore()
            is_done, _ = run(rng.uniform(0, longest))
            outcomes[outcome(what, path) + ", done" * is_done] += 1
            # the next writer of the name succeeds, and removes the temporary files
            with warnings.catch_warnings():
                warnings.simplefilter("error", MrcWarning)
                if what == "edit_header":
                    edit_header(path, voxel_size=2.0)
                else:
                    to_mrc(OLD, path, overwrite=True)
                    assert not [name for name in os.listdir(tmp_path) if name.endswith(".part")]
    print(f"\n{what} {suffix}: {dict(outcomes)}, killed within {longest * 1000:.0f} ms")
