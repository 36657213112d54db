"""Writers in place: processes wait for each other, but a process does not wait for itself."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import by_hand
import dask.array as da
import numpy as np
import pytest
import servers
import xarray as xr

from mrc_xarray import MrcError, MrcWarning, edit_header, to_mrc
from mrc_xarray.storage.locks import Lock, lock_in_place
from mrc_xarray.storage.sink import InPlace

fcntl = pytest.importorskip("fcntl", reason="this system has no flock")

PIXELS = np.arange(4 * 5 * 6, dtype="f4").reshape(4, 5, 6)
DIMS = ("z", "y", "x")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "volume.mrc"
    path.write_bytes(by_hand.mrc(PIXELS))
    return path


WRITES: dict[str, Callable[[Path], Any]] = {
    "region": lambda path: to_mrc(PIXELS[:1] + 1, path, region={"z": slice(0, 1)}),
    "append": lambda path: to_mrc(PIXELS[:1], path, append_dim="z"),
    "edit_header": lambda path: edit_header(path, origin=(1, 2, 3)),
}


def during(
    write: str, path: Path, act: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Call `act` during a write, in the thread that writes."""
    real, done = fcntl.flock, []

    def flock(fd: int, operation: int) -> None:
        real(fd, operation)
        if not done:
            done.append(True)
            act()

    monkeypatch.setattr(fcntl, "flock", flock)
    WRITES[write](path)
    assert done


@pytest.mark.parametrize(
    ("first", "second"),
    [("region", "append"), ("append", "region"), ("edit_header", "append")],
)
def test_second_write_in_one_process_is_refused(
    path: Path, first: str, second: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act() -> None:
        with pytest.raises(MrcError, match=r"volume\.mrc: another write in this process"):
            WRITES[second](path)

    during(first, path, act, monkeypatch)
    # the first write has succeeded, and the lock is free
    expected = {
        "region": [PIXELS[:1] + 1, PIXELS[1:]],
        "append": [PIXELS, PIXELS[:1]],
        "edit_header": [PIXELS],
    }[first]
    assert path.read_bytes()[1024:] == np.concatenate(expected).tobytes()
    WRITES[second](path)


def test_regions_share_a_file_within_a_process(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act() -> None:
        to_mrc(PIXELS[:1] - 1, path, region={"z": slice(3, 4)})

    during("region", path, act, monkeypatch)
    np.testing.assert_array_equal(xr.open_dataarray(path, engine="mrc")[3], PIXELS[0] - 1)


@contextmanager
def held(path: Path, kind: str) -> Iterator[None]:
    """Hold a lock as another process does: the package knows only its own locks."""
    with path.open("rb") as file:
        fcntl.flock(file, {"shared": fcntl.LOCK_SH, "exclusive": fcntl.LOCK_EX}[kind])
        yield


@contextmanager
def waiting(write: str, path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Wait in another thread for another process; the write goes on when the block ends."""
    real, waits = fcntl.flock, threading.Event()

    def flock(fd: int, operation: int) -> None:
        if not waits.is_set() and not operation & (fcntl.LOCK_NB | fcntl.LOCK_UN):
            with pytest.raises(BlockingIOError):
                real(fd, operation | fcntl.LOCK_NB)
            waits.set()
        real(fd, operation)

    with ThreadPoolExecutor(1) as pool:
        with held(path, kind):
            monkeypatch.setattr(fcntl, "flock", flock)
            writing = pool.submit(WRITES[write], path)
            assert waits.wait(30)
            yield
        writing.result(30)


@pytest.mark.parametrize(
    ("write", "kind"),
    [("region", "exclusive"), ("append", "shared"), ("edit_header", "shared")],
)
def test_another_process_is_waited_for(
    path: Path, write: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()
    with waiting(write, path, kind, monkeypatch):
        assert path.read_bytes() == before
    assert path.read_bytes() != before


def test_regions_of_several_processes_do_not_wait(path: Path) -> None:
    with held(path, "shared"):
        WRITES["region"](path)
    np.testing.assert_array_equal(xr.open_dataarray(path, engine="mrc")[0], PIXELS[0] + 1)


@pytest.mark.parametrize("write", ["append", "edit_header"])
def test_file_that_took_the_name_meanwhile_is_locked_instead(
    path: Path, write: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that waited plans for the file that has the name when the lock is free."""
    old, new = path.with_name("old"), path.with_name("new")
    with waiting(write, path, "exclusive", monkeypatch):
        os.link(path, old)
        new.write_bytes(before := by_hand.mrc(PIXELS[:2] + 7))
        new.replace(path)
    assert old.read_bytes() == by_hand.mrc(PIXELS)
    assert path.read_bytes() != before


@pytest.mark.parametrize("kind", ["shared", "exclusive"])
def test_delayed_append_is_refused_while_another_process_writes(path: Path, kind: str) -> None:
    """A waiting task could occupy the thread of the task that it waits for."""
    more = xr.DataArray(da.from_array(PIXELS[:1]), dims=DIMS)
    write = to_mrc(more, path, append_dim="z", compute=False)
    assert write is not None
    before = path.read_bytes()
    with (
        held(path, kind),
        pytest.raises(MrcError, match=r"volume\.mrc: another process is changing the file"),
    ):
        write.compute(scheduler="threads")
    assert path.read_bytes() == before
    write.compute(scheduler="threads")
    assert xr.open_dataarray(path, engine="mrc").sizes["z"] == 5


def test_delayed_append_is_not_planned_while_another_process_appends(path: Path) -> None:
    """The sections that it has added so far are not the left-over of a killed append."""
    with path.open("ab") as file:
        file.write(bytes(100))
    with (
        held(path, "exclusive"),
        pytest.raises(MrcError, match="another process is changing the file"),
    ):
        to_mrc(xr.DataArray(PIXELS, dims=DIMS), path, append_dim="z", compute=False)


@pytest.mark.slow
@pytest.mark.parametrize("write", ["region", "append"])
def test_delayed_writes_hold_the_lock_until_they_are_done(
    path: Path, write: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = xr.DataArray(da.from_array(PIXELS[:2], chunks=(1, -1, -1)), dims=DIMS)
    options = {"region": {"region": {"z": slice(0, 2)}}, "append": {"append_dim": "z"}}[write]
    delayed = to_mrc(data, path, compute=False, **options)
    real, refused = InPlace.write, []

    def write_block(self: InPlace, buffers: Any) -> None:
        with pytest.raises(MrcError, match="another write in this process"):
            WRITES["edit_header"](path)
        refused.append(True)
        real(self, buffers)

    monkeypatch.setattr(InPlace, "write", write_block)
    delayed.compute(scheduler="threads")
    assert refused == [True, True]
    WRITES["edit_header"](path)


def test_lock_of_a_forked_process_is_its_own(path: Path) -> None:
    with lock_in_place(str(path), exclusive=True, waits=True):

        def lock() -> bytes:
            with pytest.raises(MrcError, match="another process"):
                lock_in_place(str(path), exclusive=True, waits=False)
            return b"refused"

        assert servers.forked(lock)() == b"refused"
        # the exit of the child does not release the lock
        with pytest.raises(MrcError, match="in this process"):
            lock_in_place(str(path), exclusive=False, waits=True)


def test_pickled_lock_holds_nothing(path: Path) -> None:
    with lock_in_place(str(path), exclusive=True, waits=True) as lock:
        copy = pickle.loads(pickle.dumps(lock))
        copy.release()
        with pytest.raises(MrcError, match="in this process"):
            lock_in_place(str(path), exclusive=True, waits=True)
    Lock().release()


def test_failed_delayed_append_does_not_hold_the_lock(path: Path) -> None:
    """Its traceback refers to the lock until it is garbage-collected."""

    def fail(block: Any) -> Any:
        raise RuntimeError("beyond repair")

    lazy = da.from_array(PIXELS).map_blocks(fail, dtype="f4")
    write = to_mrc(xr.DataArray(lazy, dims=DIMS), path, append_dim="z", compute=False)
    assert write is not None
    gc.disable()
    try:
        with contextlib.suppress(RuntimeError):
            write.compute(scheduler="sync")
        WRITES["edit_header"](path)
    finally:
        gc.enable()


def test_file_system_without_locks_is_a_warning(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*args: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.warns(MrcWarning, match="the file system has no locks"):
        WRITES["region"](path)
    to_mrc(PIXELS, path, overwrite=True)
