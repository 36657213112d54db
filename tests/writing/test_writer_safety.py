"""Whatever happens during a write, the target is what it was, or complete."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import by_hand
import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

from mrc_xarray import MrcError, MrcWarning, to_mrc

Array = np.ndarray[Any, Any]

PIXELS = np.random.default_rng(4).integers(-(2**15), 2**15, (24, 32, 48), "i2")
OLD_PIXELS = np.arange(4 * 5 * 6, dtype="f4").reshape(4, 5, 6)
OLD = by_hand.mrc(OLD_PIXELS)

# sections are written in place by any task, and blocks of an MRCZ one after the other
kinds = pytest.mark.parametrize("suffix", [".mrc", ".mrcz"])


@pytest.fixture(params=["threads", pytest.param("cluster", marks=pytest.mark.slow)])
def anywhere(request: pytest.FixtureRequest) -> Iterator[None]:
    """Computing in threads of this process, and on workers."""
    if request.param == "threads":
        with dask.config.set(scheduler="threads", num_workers=4):
            yield
    else:
        with request.getfixturevalue("client").as_current():
            yield


@pytest.fixture(params=["new", "old"])
def before(request: pytest.FixtureRequest) -> bytes | None:
    """What the target contains already."""
    return {"new": None, "old": OLD}[request.param]


def each(pixels: Array, act: Callable[[int], Any]) -> xr.DataArray:
    """Return a volume in blocks of one section, each of which calls `act` when computed."""

    def block(part: Any, block_info: Any = None) -> Any:
        act(block_info[0]["array-location"][0][0])
        return part

    lazy = da.from_array(pixels, chunks=(1, -1, -1))
    meta = np.empty((0, 0, 0), pixels.dtype)
    return xr.DataArray(lazy.map_blocks(block, meta=meta), dims=("z", "y", "x"))


def breaking() -> xr.DataArray:
    def act(section: int) -> None:
        if section == 17:
            raise RuntimeError("section 17 is beyond repair")

    return each(PIXELS, act)


def read(path: Path) -> Array:
    pixels: Array = xr.open_dataarray(path, engine="mrc").values
    return pixels


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def put(path: Path, content: bytes | None) -> list[str]:
    """Write what is there before, and return the names in its directory."""
    if content is not None:
        path.write_bytes(content)
    return names(path.parent)


def check_nothing_happened(path: Path, before: bytes | None, listed: list[str]) -> None:
    assert (path.read_bytes() if path.exists() else None) == before
    assert names(path.parent) == listed


# killed -----------------------------------------------------------------------------------------

# writes 40 sections of 16 KiB, says when it is at the 30th, and waits there
WRITER = """
import json, signal, sys
import dask.array as da
import numpy as np
import xarray as xr
import mrc_xarray

def block(part, block_info=None):
    if block_info[0]["array-location"][0][0] == 30:
        print("reached", flush=True)
        sys.stdin.readline()
    return part + np.int16(7)

# a shell's job in the background starts with it ignored
signal.signal(signal.SIGINT, signal.default_int_handler)
noise = np.random.default_rng(0).integers(0, 999, (40, 64, 128), "i2")
lazy = da.from_array(noise, chunks=(1, -1, -1))
lazy = lazy.map_blocks(block, meta=np.empty((0, 0, 0), "i2"))
data = xr.DataArray(lazy, dims=("z", "y", "x"))
mrc_xarray.to_mrc(data, sys.argv[1], **json.loads(sys.argv[2]))
"""


class Writer:
    """A process in the middle of a write; on exit it goes on and ends."""

    def __init__(self, target: Path, **options: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(target), json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Writer:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "reached\n", self.process.communicate()[1]
        return self

    def __exit__(self, *args: Any) -> None:
        try:
            self.process.communicate(timeout=30)
        finally:
            self.process.kill()


def check_killed(directory: Path, suffix: str, by: signal.Signals) -> None:
    path = directory / f"volume{suffix}"
    path.write_bytes(OLD)
    with Writer(path, overwrite=True) as writer:
        # it is in the middle of the temporary file
        assert list(directory.glob(f".{path.name}.*.part"))
        writer.process.send_signal(by)
        if by == signal.SIGINT:
            # Ctrl-C removes the temporary file, although a thread still runs
            give_up = time.monotonic() + 15
            while names(directory) != [path.name]:
                assert time.monotonic() < give_up
                time.sleep(0.005)
    assert writer.process.returncode != 0
    assert path.read_bytes() == OLD
    # the next writer removes the temporary file of a killed one
    to_mrc(PIXELS, path, overwrite=True)
    np.testing.assert_array_equal(read(path), PIXELS)
    assert names(directory) == [path.name]


def test_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    check_killed(tmp_path, ".mrc", signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suffix", "by"),
    [(".mrcz", signal.SIGKILL), (".mrc", signal.SIGINT), (".mrcz", signal.SIGINT)],
)
def test_interrupted_writer_leaves_the_old_file(
    tmp_path: Path, suffix: str, by: signal.Signals
) -> None:
    check_killed(tmp_path, suffix, by)


@pytest.mark.slow
def test_killed_append_leaves_the_old_sections(tmp_path: Path) -> None:
    pixels = PIXELS[:4, :1, :1] + np.zeros((4, 64, 128), "i2")
    path = tmp_path / "volume.mrc"
    path.write_bytes(before := by_hand.mrc(pixels))
    with Writer(path, append_dim="z") as writer:
        writer.process.kill()
    assert path.read_bytes()[: len(before)] == before
    with warnings.catch_warnings():
        # bytes after the last section
        warnings.simplefilter("ignore", MrcWarning)
        np.testing.assert_array_equal(read(path), pixels)


# what raises ------------------------------------------------------------------------------------


@kinds
def test_raising_task_leaves_what_was_there(
    anywhere: None, tmp_path: Path, suffix: str, before: bytes | None
) -> None:
    path = tmp_path / f"volume{suffix}"
    listed = put(path, before)
    with pytest.raises(RuntimeError, match="section 17 is beyond repair") as caught:
        to_mrc(breaking(), path, overwrite=True)
    assert any("was not written" in note for note in caught.value.__notes__)
    check_nothing_happened(path, before, listed)


@kinds
def test_delayed_write_that_raises_leaves_the_old_file(
    anywhere: None, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"volume{suffix}"
    path.write_bytes(OLD)
    write = to_mrc(breaking(), path, overwrite=True, compute=False)
    assert write is not None
    for _ in range(2):
        with pytest.raises(RuntimeError, match="section 17 is beyond repair"):
            write.compute()
        assert path.read_bytes() == OLD


@kinds
def test_value_out_of_range_leaves_what_was_there(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"volume{suffix}"
    listed = put(path, OLD)
    pixels = PIXELS.astype("f4")
    pixels[20, 3, 4] = 40000
    with pytest.raises(MrcError, match="40000") as caught:
        to_mrc(each(pixels, lambda section: None), path, mode=1, overwrite=True)
    assert "32767" in str(caught.value)
    check_nothing_happened(path, OLD, listed)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": 0}, "mode"),
        ({"labels": ["x" * 81]}, "label"),
        ({"compressor": "none!"}, "none!"),
    ],
)
def test_bad_arguments_leave_what_was_there(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    path = tmp_path / "volume.mrc"
    listed = put(path, OLD)
    with pytest.raises(ValueError, match=message):
        to_mrc(PIXELS, path, overwrite=True, **options)
    check_nothing_happened(path, OLD, listed)


@pytest.mark.parametrize(
    ("suffix", "declared", "real"),
    [
        (".mrc", "f4", "f8"),
        (".mrc", "i2", "i4"),
        (".mrc", "i2", "f4"),
        (".mrc", "u1", "i1"),
        (".mrc", "f4", "c8"),
        (".mrc", "i2", "U3"),
        (".mrcz", "f4", "f8"),
    ],
)
def test_block_of_another_type_than_declared_is_an_error(
    tmp_path: Path, suffix: str, declared: str, real: str
) -> None:
    lazy = da.zeros((4, 8, 8), chunks=2, dtype=declared)
    wrong = lazy.map_blocks(lambda block: block.astype(real), dtype=declared)
    path = tmp_path / f"volume{suffix}"
    with pytest.raises(MrcError, match=f"{np.dtype(real)}, which .* {np.dtype(declared)} that"):
        to_mrc(xr.DataArray(wrong, dims=("z", "y", "x")), path)
    assert names(tmp_path) == []


def test_block_that_casts_safely_is_written(tmp_path: Path) -> None:
    lazy = da.ones((4, 8, 8), chunks=2, dtype="f4")
    narrow = lazy.map_blocks(lambda block: block.astype("i2"), dtype="f4")
    path = tmp_path / "volume.mrc"
    to_mrc(xr.DataArray(narrow, dims=("z", "y", "x")), path)
    np.testing.assert_array_equal(read(path), np.ones((4, 8, 8), "f4"))


# disks and directories --------------------------------------------------------------------------


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 1 MiB, for root."""
    with tempfile.TemporaryDirectory() as directory:
        try:
            command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", directory]
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"a file system can't be mounted here: {error}")
        try:
            yield Path(directory)
        finally:
            # even if something is still open
            subprocess.run(["umount", "--lazy", directory], check=True)


@pytest.mark.parametrize("suffix", [".mrc", ".mrcz", ".mrc.gz"])
def test_full_disk_leaves_what_was_there(anywhere: None, small_disk: Path, suffix: str) -> None:
    path = small_disk / f"volume{suffix}"
    listed = put(path, OLD)
    # compression can't make noise smaller; with .gz the disk is full when it is compressed
    n_sections = 6 if suffix == ".mrc.gz" else 32
    noise = np.random.default_rng(0).integers(-(2**15), 2**15, (n_sections, 256, 256), "i2")
    with pytest.raises(OSError, match="No space left") as caught:
        to_mrc(each(noise, lambda section: None), path, overwrite=True)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.__notes__
    check_nothing_happened(path, OLD, listed)
    # all the space is there again
    to_mrc(PIXELS[:16], path, overwrite=True)
    np.testing.assert_array_equal(read(path), PIXELS[:16])


def test_read_only_disk(small_disk: Path, before: bytes | None) -> None:
    path = small_disk / "volume.mrc"
    listed = put(path, before)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(OSError, match="Read-only") as caught:
        to_mrc(PIXELS, path, overwrite=True)
    assert caught.value.errno == errno.EROFS
    check_nothing_happened(path, before, listed)


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        to_mrc(PIXELS, tmp_path / "nowhere" / "volume.mrc")
    assert names(tmp_path) == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_target_that_is_no_regular_file(tmp_path: Path, overwrite: bool) -> None:
    folder, pipe = tmp_path / "folder.mrc", tmp_path / "pipe.mrc"
    folder.mkdir()
    (folder / "precious").touch()
    os.mkfifo(pipe)
    with pytest.raises(IsADirectoryError, match=r"folder\.mrc"):
        to_mrc(PIXELS, folder, overwrite=overwrite)
    with pytest.raises(MrcError, match=r"pipe\.mrc: not a regular file"):
        to_mrc(PIXELS, pipe, overwrite=overwrite)
    assert names(tmp_path) == ["folder.mrc", "pipe.mrc"]
    assert names(folder) == ["precious"]


def test_existing_file_is_not_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "volume.mrc"
    listed, computed = put(path, OLD), list[int]()
    with pytest.raises(FileExistsError, match="volume"):
        to_mrc(each(PIXELS, computed.append), path)
    assert computed == []
    check_nothing_happened(path, OLD, listed)


def test_link_leads_to_the_new_file(tmp_path: Path) -> None:
    for name in ("links", "files"):
        (tmp_path / name).mkdir()
    file, link = tmp_path / "files" / "volume.mrc", tmp_path / "links" / "linked.mrc"
    file.write_bytes(OLD)
    link.symlink_to(Path("..", "files", file.name))
    to_mrc(PIXELS, link, overwrite=True)
    assert link.is_symlink()
    assert not file.is_symlink()
    assert names(link.parent) == [link.name]
    assert names(file.parent) == [file.name]
    np.testing.assert_array_equal(read(file), PIXELS)


def test_file_url_is_as_safe_as_a_path(tmp_path: Path) -> None:
    path = tmp_path / "volume.mrc"
    listed = put(path, OLD)
    with pytest.raises(RuntimeError, match="section 17 is beyond repair"):
        to_mrc(breaking(), f"file://{path}", overwrite=True)
    check_nothing_happened(path, OLD, listed)
    to_mrc(PIXELS, f"file://{path}", overwrite=True)
    np.testing.assert_array_equal(read(path), PIXELS)
    assert names(tmp_path) == [path.name]


def test_permissions_are_the_old_files_or_the_umask(anywhere: None, tmp_path: Path) -> None:
    new, old = tmp_path / "new.mrc", tmp_path / "old.mrc"
    old.write_bytes(OLD)
    old.chmod(0o604)
    umask = os.umask(0o027)
    try:
        for path in (new, old):
            to_mrc(PIXELS, path, overwrite=True)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(new.stat().st_mode) == 0o640
    assert stat.S_IMODE(old.stat().st_mode) == 0o604


# at every moment --------------------------------------------------------------------------------


@kinds
def test_target_is_old_until_it_is_complete(
    anywhere: None, tmp_path: Path, suffix: str, before: bytes | None
) -> None:
    path = tmp_path / f"volume{suffix}"
    put(path, before)

    def act(section: int) -> None:
        if (path.read_bytes() if path.exists() else None) != before:
            raise AssertionError(f"the target changed before section {section} was written")

    to_mrc(each(PIXELS, act), path, overwrite=True)
    np.testing.assert_array_equal(read(path), PIXELS)
    assert names(tmp_path) == [path.name]


@kinds
def test_two_writers_of_one_file_leave_what_one_of_them_wrote(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"volume{suffix}"
    versions = [PIXELS, PIXELS[:9] + np.int16(1)]
    meet = threading.Barrier(2)

    def act(section: int) -> None:
        if section == 5:
            meet.wait(30)

    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda v: to_mrc(each(v, act), path, overwrite=True), versions))
    found = read(path)
    assert any(np.array_equal(found, version) for version in versions)
    assert names(tmp_path) == [path.name]


@pytest.mark.filterwarnings("ignore:The specified chunks separate the stored chunks")
@kinds
@pytest.mark.parametrize("chunks", [None, {"z": 2}])
def test_file_that_is_read_lazily_is_overwritten(
    anywhere: None, tmp_path: Path, suffix: str, chunks: dict[str, int] | None
) -> None:
    path = tmp_path / f"volume{suffix}"
    to_mrc(PIXELS, path)
    ds = xr.open_dataset(path, engine="mrc", chunks=chunks)
    to_mrc(ds + np.int16(1), path, overwrite=True)
    np.testing.assert_array_equal(read(path), PIXELS + np.int16(1))
    # half of it, by the accessor
    ds = xr.open_dataset(path, engine="mrc", chunks=chunks)
    ds.data[5:17, ::-1].mrc.to_file(path, overwrite=True)
    np.testing.assert_array_equal(read(path), PIXELS[5:17, ::-1] + np.int16(1))
    assert names(tmp_path) == [path.name]


@kinds
def test_nothing_is_touched_before_it_is_computed(tmp_path: Path, suffix: str) -> None:
    path, other = tmp_path / f"volume{suffix}", tmp_path / f"other{suffix}"
    path.write_bytes(OLD)
    computed: list[int] = []
    write = to_mrc(each(PIXELS, computed.append), path, overwrite=True, compute=False)
    also = to_mrc(PIXELS, other, compute=False)
    assert computed == []
    assert names(tmp_path) == [path.name]
    assert path.read_bytes() == OLD
    assert dask.compute(write, also) == (None, None)
    assert sorted(computed) == list(range(len(PIXELS)))
    for written in (path, other):
        np.testing.assert_array_equal(read(written), PIXELS)
    assert names(tmp_path) == sorted([path.name, other.name])
