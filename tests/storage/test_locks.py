"""Writers in place: processes wait for each other, but a process does not wait for itself."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import by_hand
import dask.array as da
import numpy as np
import pytest
import xarray as xr

from mrc_xarray import MrcError, MrcWarning, edit_header, to_mrc
from mrc_xarray.storage import locks
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
EXCLUDE_EACH_OTHER = [(a, b) for a in WRITES for b in WRITES if (a, b) != ("region", "region")]


def during(
    write: str, path: Path, act: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Call `act` during a write, in the thread that writes."""
    real, done = locks._flock, []

    def flock(*args: Any) -> None:
        real(*args)
        if not done:
            done.append(True)
            act()

    monkeypatch.setattr(locks, "_flock", flock)
    WRITES[write](path)
    assert done


@pytest.mark.parametrize(("first", "second"), EXCLUDE_EACH_OTHER)
def test_second_write_in_one_process_is_refused_at_once(
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
    during(
        "region",
        path,
        lambda: to_mrc(PIXELS[:1] - 1, path, region={"z": slice(3, 4)}),
        monkeypatch,
    )
    np.testing.assert_array_equal(xr.open_dataarray(path, engine="mrc")[3], PIXELS[0] - 1)


HOLDER = """
import fcntl, os, sys

fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.flock(fd, {"shared": fcntl.LOCK_SH, "exclusive": fcntl.LOCK_EX}[sys.argv[2]])
print("locked", flush=True)
sys.stdin.readline()
"""


class Holder:
    """Another process that holds a lock."""

    def __init__(self, path: Path, kind: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path), kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "locked\n"

    def release(self) -> None:
        self.process.communicate("go\n")


@pytest.fixture
def held_by(path: Path) -> Iterator[Callable[[str], Holder]]:
    holders: list[Holder] = []

    def hold(kind: str) -> Holder:
        holders.append(Holder(path, kind))
        return holders[-1]

    yield hold
    for holder in holders:
        holder.process.kill()
        holder.process.communicate()


@pytest.mark.parametrize(
    ("write", "kind"),
    [
        ("region", "exclusive"),
        *[
            (write, kind)
            for write in ("append", "edit_header")
            for kind in ("shared", "exclusive")
        ],
    ],
)
def test_another_process_is_waited_for(
    path: Path, write: str, kind: str, held_by: Callable[[str], Holder]
) -> None:
    before = path.read_bytes()
    holder = held_by(kind)
    thread = threading.Thread(target=WRITES[write], args=(path,))
    thread.start()
    thread.join(0.1)
    assert thread.is_alive()
    assert path.read_bytes() == before
    holder.release()
    thread.join(20)
    assert not thread.is_alive()
    assert path.read_bytes() != before


def test_regions_of_several_processes_do_not_wait(
    path: Path, held_by: Callable[[str], Holder]
) -> None:
    held_by("shared")
    WRITES["region"](path)
    np.testing.assert_array_equal(xr.open_dataarray(path, engine="mrc")[0], PIXELS[0] + 1)


@pytest.mark.parametrize("write", WRITES)
def test_file_that_took_the_name_meanwhile_is_locked_instead(
    path: Path, write: str, held_by: Callable[[str], Holder]
) -> None:
    """A process that waited plans for the file that has the name when the lock is free."""
    old, new = path.with_name("old"), path.with_name("new")
    holder = held_by("exclusive")
    thread = threading.Thread(target=WRITES[write], args=(path,))
    thread.start()
    thread.join(0.1)
    os.link(path, old)
    new.write_bytes(by_hand.mrc(PIXELS[:2] + 7))
    new.replace(path)
    before = path.read_bytes()
    holder.release()
    thread.join(20)
    assert not thread.is_alive()
    assert old.read_bytes() == by_hand.mrc(PIXELS)
    assert path.read_bytes() != before


@pytest.mark.parametrize("kind", ["shared", "exclusive"])
def test_delayed_append_is_refused_while_another_process_writes(
    path: Path, kind: str, held_by: Callable[[str], Holder]
) -> None:
    """A waiting task could occupy the thread of the task that it waits for."""
    more = xr.DataArray(da.from_array(PIXELS[:1]), dims=DIMS)
    write = to_mrc(more, path, append_dim="z", compute=False)
    holder = held_by(kind)
    before = path.read_bytes()
    with pytest.raises(MrcError, match=r"volume\.mrc: another process is changing the file"):
        write.compute(scheduler="threads")
    assert path.read_bytes() == before
    holder.release()
    write.compute(scheduler="threads")
    assert xr.open_dataarray(path, engine="mrc").sizes["z"] == 5


def test_delayed_append_is_not_planned_while_another_process_appends(
    path: Path, held_by: Callable[[str], Holder]
) -> None:
    """What it has added so far is not what a killed append left."""
    with path.open("ab") as file:
        file.write(bytes(100))
    held_by("exclusive")
    with pytest.raises(MrcError, match="another process is changing the file"):
        to_mrc(xr.DataArray(PIXELS, dims=DIMS), path, append_dim="z", compute=False)


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
        child = os.fork()
        if not child:
            status = 1
            try:
                lock_in_place(str(path), exclusive=True, waits=False)
            except MrcError as error:
                status = 0 if "another process" in str(error) else 2
            os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
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


def test_file_system_without_locks_is_a_warning(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*args: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    with pytest.warns(MrcWarning, match="the file system has no locks"):
        WRITES["region"](path)
    to_mrc(PIXELS, path, overwrite=True)
