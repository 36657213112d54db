"""Whatever happens during a write, the target is what it was, or complete."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from writes import OLD, PIXELS, by_two, fail, kinds, mode_of, names, once, read, volume

from mrc_xarray import MrcError, to_mrc


@pytest.fixture(params=["threads", pytest.param("cluster", marks=pytest.mark.slow)])
def anywhere(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compute in threads of this process, or in workers."""
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


def put(path: Path, content: bytes | None) -> list[str]:
    """Write the old content, if there is any, and return the names in the directory."""
    if content is not None:
        path.write_bytes(content)
    return names(path.parent)


def check_nothing_changed(path: Path, before: bytes | None, listed: list[str]) -> None:
    assert (path.read_bytes() if path.exists() else None) == before
    assert names(path.parent) == listed


# errors ----------------------------------------------------------------------------------------


@kinds
def test_failed_task_leaves_the_old_file(
    anywhere: None, tmp_path: Path, suffix: str, before: bytes | None
) -> None:
    path = tmp_path / f"volume{suffix}"
    listed = put(path, before)
    with pytest.raises(RuntimeError, match="beyond repair") as caught:
        to_mrc(once(fail), path, overwrite=True)
    assert any("was not written" in note for note in caught.value.__notes__)
    check_nothing_changed(path, before, listed)


@pytest.mark.parametrize(
    ("suffix", "declared", "real"),
    [(".mrc", "f4", "f8"), (".mrc", "u1", "i1"), (".mrcz", "i2", "U3")],
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
def test_full_disk_leaves_the_old_file(anywhere: None, small_disk: Path, suffix: str) -> None:
    path = small_disk / f"volume{suffix}"
    listed = put(path, OLD)
    # compression can't make noise smaller; with .gz the disk is full when it is compressed
    n_sections = 6 if suffix == ".mrc.gz" else 32
    noise = np.random.default_rng(0).integers(-(2**15), 2**15, (n_sections, 256, 256), "i2")
    with pytest.raises(OSError, match="No space left") as caught:
        to_mrc(volume(noise), path, overwrite=True)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.__notes__
    check_nothing_changed(path, OLD, listed)
    # the space is free again
    to_mrc(PIXELS[:16], path, overwrite=True)
    np.testing.assert_array_equal(read(path), PIXELS[:16])


def test_read_only_disk(small_disk: Path, before: bytes | None) -> None:
    path = small_disk / "volume.mrc"
    listed = put(path, before)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(OSError, match="Read-only") as caught:
        to_mrc(PIXELS, path, overwrite=True)
    assert caught.value.errno == errno.EROFS
    check_nothing_changed(path, before, listed)


@pytest.mark.parametrize("overwrite", [False, True])
def test_target_that_can_not_be_written_is_an_error_before_the_first_pixel(
    tmp_path: Path, overwrite: bool
) -> None:
    folder, pipe, file = (tmp_path / f"{kind}.mrc" for kind in ("folder", "pipe", "file"))
    folder.mkdir()
    os.mkfifo(pipe)
    file.write_bytes(OLD)
    with pytest.raises(IsADirectoryError, match=r"folder\.mrc"):
        to_mrc(once(fail), folder, overwrite=overwrite)
    with pytest.raises(MrcError, match=r"pipe\.mrc: not a regular file"):
        to_mrc(once(fail), pipe, overwrite=overwrite)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        to_mrc(once(fail), tmp_path / "nowhere" / "a.mrc", overwrite=overwrite)
    with pytest.raises(RuntimeError if overwrite else FileExistsError, match=r"beyond|file\.mrc"):
        to_mrc(once(fail), file, overwrite=overwrite)
    assert names(tmp_path) == ["file.mrc", "folder.mrc", "pipe.mrc"]
    assert file.read_bytes() == OLD
    assert names(folder) == []


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
    with pytest.raises(RuntimeError, match="beyond repair"):
        to_mrc(once(fail), f"file://{path}", overwrite=True)
    check_nothing_changed(path, OLD, listed)
    to_mrc(PIXELS, f"file://{path}", overwrite=True)
    np.testing.assert_array_equal(read(path), PIXELS)
    assert names(tmp_path) == [path.name]


def test_permissions_come_from_the_old_file_or_the_umask(anywhere: None, tmp_path: Path) -> None:
    new, old = tmp_path / "new.mrc", tmp_path / "old.mrc"
    old.write_bytes(OLD)
    old.chmod(0o604)
    umask = os.umask(0o027)
    try:
        for path in (new, old):
            to_mrc(PIXELS, path, overwrite=True)
    finally:
        os.umask(umask)
    assert mode_of(new) == 0o640
    assert mode_of(old) == 0o604


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

    to_mrc(volume(PIXELS, act), path, overwrite=True)
    np.testing.assert_array_equal(read(path), PIXELS)
    assert names(tmp_path) == [path.name]


@kinds
def test_two_writers_of_one_file_leave_the_file_of_one(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"volume{suffix}"
    versions = [PIXELS, PIXELS[:9] + np.int16(1)]
    meet = threading.Barrier(2)

    def act(section: int) -> None:
        if section == 5:
            meet.wait(30)

    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda v: to_mrc(volume(v, act), path, overwrite=True), versions))
    found = read(path)
    assert any(np.array_equal(found, version) for version in versions)
    assert names(tmp_path) == [path.name]


@by_two
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
