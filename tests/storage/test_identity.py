"""Another file is never read in place of the one that was opened."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import by_hand
import fsspec
import numpy as np
import pytest
import xarray as xr
from mapped import set_file_system

from mrc_xarray import MrcError
from mrc_xarray.storage import LocalSource, identity

OLD = np.arange(2 * 3 * 4, dtype="f4").reshape(2, 3, 4)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "volume.mrc"
    path.write_bytes(by_hand.mrc(OLD))
    return path


def swap(path: Path, pixels: np.ndarray[Any, Any]) -> None:
    """Replace a file by another of the same size and the same time."""
    times = path.stat()
    other = path.with_name("other")
    other.write_bytes(by_hand.mrc(pixels))
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(path)
    assert path.stat().st_mtime_ns == times.st_mtime_ns
    assert path.stat().st_size == times.st_size


needs_node = pytest.mark.skipif(
    identity.node_of(Path(__file__).stat(), __file__) is None,
    reason="device and inode are not stable on this file system",
)


@needs_node
@pytest.mark.parametrize("options", [{}, {"mmap": True}, {"chunks": {}}], ids=str)
def test_swap_that_restores_size_and_time_is_noticed(path: Path, options: dict[str, Any]) -> None:
    data = xr.open_dataset(path, engine="mrc", **options).data
    swap(path, OLD + 1)
    with pytest.raises(MrcError, match=r"volume\.mrc: the file changed .* \(another file\)"):
        data.compute(scheduler="sync") if options.get("chunks") == {} else data.load()


def touch(path: Path) -> None:
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (touch, "modification time"),
        (lambda path: os.truncate(path, 1100), "size: 1120 bytes, now 1100"),
        pytest.param(
            lambda path: swap(path, OLD[:1].repeat(2, 0)), "another file", marks=needs_node
        ),
    ],
    ids=["time", "size", "file"],
)
def test_message_names_what_changed(path: Path, change: Any, message: str) -> None:
    source = LocalSource.open(str(path))
    change(path)
    with pytest.raises(MrcError, match=rf"changed since it was opened \({message}\)"):
        source.read(0, 4)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.chmod(0o600),
        lambda path: os.link(path, path.with_name("link")),
        lambda path: path.rename(path.with_name("away")).rename(path),
    ],
    ids=["chmod", "link", "rename"],
)
def test_change_time_alone_is_no_change(path: Path, change: Any) -> None:
    data = xr.open_dataset(path, engine="mrc").data
    change(path)
    np.testing.assert_array_equal(data.values, OLD)


def test_another_host_compares_size_and_time_alone(path: Path) -> None:
    """Workers on other hosts see other devices and inodes for a file that they share."""
    source = LocalSource.open(str(path))
    elsewhere = identity.Node("another boot", 1, 2)
    moved = pickle.loads(pickle.dumps(source))
    object.__setattr__(moved, "node", elsewhere)
    assert moved.read(0, 4) == source.read(0, 4)
    touch(path)
    with pytest.raises(MrcError, match="modification time"):
        moved.read(0, 4)


MOUNTS = """\
20 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
21 20 0:30 / /home rw,relatime shared:1 - nfs4 server:/home rw
22 20 0:31 / /data\\040of\\040us rw - fuse.sshfs host: rw
23 20 0:32 / /var/lib/box rw - overlay overlay rw,lowerdir=/a
24 20 0:33 / /scratch rw - nfs4 server:/scratch rw
25 20 0:34 / /scratch rw - xfs /dev/sdb rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/tomograms/a.mrc", "ext4"),
        ("/home/a.mrc", "nfs4"),
        ("/homes/a.mrc", "ext4"),
        ("/data of us/a.mrc", "fuse.sshfs"),
        ("/var/lib/box/a.mrc", "overlay"),
        ("/scratch/a.mrc", "xfs"),
    ],
)
def test_file_system_of_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, kind: str
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    monkeypatch.setattr(identity, "_MOUNTS", str(mounts))
    assert identity._file_system(path) == kind


@pytest.mark.parametrize("kind", ["nfs4", ""])
def test_inode_is_not_compared_where_it_is_not_stable(
    path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    set_file_system(monkeypatch, kind)
    source = LocalSource.open(str(path))
    assert source.node is None
    swap(path, OLD + 1)
    assert len(source.read(0, 1120)) == 1120


# two openings of one name -----------------------------------------------------------------------


@needs_node
def test_openings_of_a_replaced_file_share_no_task(path: Path) -> None:
    """Otherwise one of them would silently get the pixels of the other."""
    old = xr.open_dataset(path, engine="mrc", chunks={}).data
    same = xr.open_dataset(path, engine="mrc", chunks={}).data
    swap(path, OLD + 1)
    new = xr.open_dataset(path, engine="mrc", chunks={}).data
    assert old.data.name == same.data.name != new.data.name
    np.testing.assert_array_equal(new.compute(scheduler="sync"), OLD + 1)
    for mixed in (old - new, new - old):
        with pytest.raises(MrcError, match="changed since it was opened"):
            mixed.compute(scheduler="sync")


def test_openings_of_a_replaced_object_share_no_task() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/twice/a.mrc", by_hand.mrc(OLD))
    old = xr.open_dataset("memory://twice/a.mrc", engine="mrc", chunks={}).data.persist()
    memory.pipe_file("/twice/a.mrc", by_hand.mrc(OLD + 1))
    new = xr.open_dataset("memory://twice/a.mrc", engine="mrc", chunks={}).data
    np.testing.assert_array_equal(new - old, np.ones_like(OLD))


def test_chunked_pixels_are_an_ordinary_variable(path: Path) -> None:
    data = xr.open_dataset(path, engine="mrc", chunks={}).data
    assert type(data.variable) is xr.Variable
    assert data.variable.attrs["mrc_layout"] == "volume"
    assert type((xr.open_dataset(path, engine="mrc").data + 1).variable) is xr.Variable
