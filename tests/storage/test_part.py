"""How a new file gets its name and attributes, and what happens to files of killed writers."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import by_hand
import dask
import numpy as np
import pytest
import xarray as xr
from writes import OLD, PIXELS, mode_of, modes_of_parts, names, once, read

from mrc_xarray import to_mrc
from mrc_xarray.storage import part as part_module
from mrc_xarray.storage.part import Part, PartFolder
from mrc_xarray.storage.sink import open_sink
from mrc_xarray.tools.convert import convert

# the plain file is renamed, and the compressed one is a second temporary file
both = pytest.mark.parametrize("name", ["a.mrc", "a.mrc.gz"])


@pytest.fixture(params=[True, False], ids=["links", "no links"])
def links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """File systems with and without hard links."""

    def refuse(*args: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, "no hard links here")

    if not request.param:
        monkeypatch.setattr(os, "link", refuse)


# a name that is taken during the write -----------------------------------------------------------


@both
def test_file_that_appeared_meanwhile_is_not_replaced(
    links: None, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    with pytest.raises(FileExistsError, match="overwrite"):
        to_mrc(once(lambda: path.write_bytes(OLD)), path)
    assert path.read_bytes() == OLD
    assert names(tmp_path) == [name]


@both
def test_new_file_is_published(links: None, tmp_path: Path, name: str) -> None:
    to_mrc(once(lambda: None), tmp_path / name)
    np.testing.assert_array_equal(read(tmp_path / name), PIXELS)
    assert names(tmp_path) == [name]


@pytest.mark.parametrize(("method", "name"), [("to_netcdf", "a.nc"), ("to_zarr", "a.zarr")])
def test_converted_file_is_published_by_the_same_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, name: str
) -> None:
    source, path = tmp_path / "source.mrc", tmp_path / name
    source.write_bytes(by_hand.mrc(PIXELS))
    real, seen = getattr(xr.Dataset, method), list[int]()

    def appear(self: xr.Dataset, *args: Any, **options: Any) -> Any:
        path.write_bytes(OLD)
        seen.extend(modes_of_parts(tmp_path))
        return real(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(xr.Dataset, method, appear)
        with pytest.raises(FileExistsError, match="overwrite"):
            convert(str(source), str(path))
    assert seen == [0o600 if name == "a.nc" else 0o700]
    assert path.read_bytes() == OLD
    convert(str(source), str(path), overwrite=True)
    convert(str(path), str(tmp_path / "copy.mrc"))
    np.testing.assert_array_equal(read(tmp_path / "copy.mrc"), PIXELS)
    assert names(tmp_path) == sorted(["copy.mrc", "source.mrc", name])


def test_publishing_again_does_no_harm(tmp_path: Path) -> None:
    """A worker may die between the link and the removal of the temporary name."""
    part = Part.of(str(tmp_path / "a.mrc"))
    part.create(4).release()
    os.link(part.path, part.name)
    part.publish(overwrite=False)
    assert names(tmp_path) == ["a.mrc"]


# folders ----------------------------------------------------------------------------------------


def write_folder(path: Path, content: bytes, *, overwrite: bool) -> None:
    folder = PartFolder.of(str(path))
    try:
        folder.create()
        Path(folder.path, "zarr.json").write_bytes(content)
        folder.publish(overwrite=overwrite)
    finally:
        folder.discard()


def test_new_folder_has_the_mode_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    umask = os.umask(0o027)
    try:
        write_folder(path, b"old", overwrite=False)
        assert mode_of(path) == 0o750
        (path / "chunk").write_bytes(b"of the old one")
        path.chmod(0o705)
        with pytest.raises(FileExistsError, match="overwrite"):
            write_folder(path, b"new", overwrite=False)
        assert names(path) == ["chunk", "zarr.json"]
        write_folder(path, b"new", overwrite=True)
    finally:
        os.umask(umask)
    assert mode_of(path) == 0o705
    assert names(path) == ["zarr.json"]
    assert (path / "zarr.json").read_bytes() == b"new"
    assert names(tmp_path) == ["a.zarr"]


def test_folder_that_can_not_be_renamed_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.zarr"
    write_folder(path, b"old", overwrite=False)
    rename, refused = os.rename, []

    def refuse(source: str, target: str) -> None:
        if target == str(path) and not refused:
            refused.append(source)
            raise PermissionError(errno.EPERM, "not now", target)
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(PermissionError, match="not now"):
        write_folder(path, b"new", overwrite=True)
    assert (path / "zarr.json").read_bytes() == b"old"
    assert names(tmp_path) == ["a.zarr"]


# permissions and attributes ----------------------------------------------------------------------


@both
def test_temporary_file_is_private(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    published = Part.publish

    def publish(self: Part, *, overwrite: bool) -> None:
        seen.extend(modes_of_parts(tmp_path))
        published(self, overwrite=overwrite)

    monkeypatch.setattr(Part, "publish", publish)
    to_mrc(PIXELS, tmp_path / name)
    assert seen == [0o600] * (2 if name.endswith(".gz") else 1)


@both
def test_new_file_has_the_attributes_of_the_old_one(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(by_hand.mrc(PIXELS))
    path.chmod(0o640)
    try:
        os.setxattr(path, "user.project", b"ribosome")
    except (AttributeError, OSError):
        pytest.skip("no extended attributes for users here")
    owner = (1234, 4321) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(path, *owner)
    to_mrc(PIXELS + 1, path, overwrite=True)
    found = path.stat()
    assert mode_of(path) == 0o640
    assert (found.st_uid, found.st_gid) == owner
    assert os.getxattr(path, "user.project") == b"ribosome"


@pytest.mark.skipif(not hasattr(os, "chown"), reason="this system has no owners")
@pytest.mark.parametrize(
    ("mode", "expected"), [(0o660, 0o600), (0o604, 0o604), (0o4775, 0o705), (0o2775, 0o705)]
)
def test_another_group_does_not_get_the_permissions_of_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, expected: int
) -> None:
    path = tmp_path / "a.mrc"
    path.write_bytes(by_hand.mrc(PIXELS))
    if os.geteuid() != 0:
        pytest.skip("only root can give a file to another user")
    os.chown(path, 1234, 4321)
    path.chmod(mode)

    def refuse(*args: Any, **options: Any) -> None:
        raise PermissionError(errno.EPERM, "not allowed")

    monkeypatch.setattr(os, "chown", refuse)
    to_mrc(PIXELS + 1, path, overwrite=True)
    assert mode_of(path) == expected


# an access control list as the kernel stores it: version 2, then tag, permissions and id of each
# entry; here the owner, user 1234, the group, the mask and others
ACL = np.array(
    [(0x01, 6, -1), (0x02, 4, 1234), (0x04, 4, -1), (0x10, 4, -1), (0x20, 0, -1)],
    np.dtype([("tag", "<u2"), ("permissions", "<u2"), ("id", "<i4")]),
)


@pytest.mark.parametrize("before", [None, by_hand.mrc(PIXELS)], ids=["new", "replaced"])
def test_access_control_list_is_the_folders_default_or_the_old_files(
    tmp_path: Path, before: bytes | None
) -> None:
    acl, default = "system.posix_acl_access", "system.posix_acl_default"
    path, plain = tmp_path / "a.mrc", tmp_path / "plain"
    if before:
        # a replaced file without a list gets none
        path.write_bytes(before)
        path.chmod(0o604)
    try:
        os.setxattr(tmp_path, default, (2).to_bytes(4, "little") + ACL.tobytes())
    except (AttributeError, OSError):
        pytest.skip("no access control lists here")
    plain.touch()
    to_mrc(PIXELS, path, overwrite=True)
    if before:
        assert mode_of(path) == 0o604
        assert acl not in os.listxattr(path)
    else:
        assert mode_of(path) == mode_of(plain) == 0o640
        assert os.getxattr(path, acl) == os.getxattr(plain, acl)


# temporary files of killed writers ---------------------------------------------------------------


@both
def test_left_overs_are_removed_unless_their_writer_lives(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    dead, living = (tmp_path / f".{name}.{c * 12}.part" for c in "de")
    others = [f".b{name}.{'d' * 12}.part", f".{name}.part", f".{name}.{'d' * 11}.part"]
    for left in (*others, dead.name):
        (tmp_path / left).write_bytes(b"left")
    with Part(str(living), str(path)).create(8):
        to_mrc(PIXELS, path)
        assert names(tmp_path) == sorted([name, living.name, *others])
    to_mrc(PIXELS, path, overwrite=True)
    assert names(tmp_path) == sorted([name, *others])


def test_left_overs_are_removed_neither_through_links_nor_of_other_kinds(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / f".a.mrc.{'1' * 12}.part").symlink_to("precious")
    (tmp_path / f".a.mrc.{'2' * 12}.part").mkdir()
    os.mkfifo(tmp_path / f".a.mrc.{'3' * 12}.part")
    before = names(tmp_path)
    to_mrc(PIXELS, tmp_path / "a.mrc")
    assert names(tmp_path) == sorted([*before, "a.mrc"])


def test_left_over_of_the_longest_name_is_removed(tmp_path: Path) -> None:
    path = tmp_path / ("[x]é" * 50 + ".mrc")
    Path(Part.of(str(path)).path).write_bytes(b"left")
    to_mrc(PIXELS, path)
    assert names(tmp_path) == [path.name]


def test_part_that_was_removed_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, tries = Part.of(str(tmp_path / "a.mrc")), []

    def lock(fd: int) -> bool:
        if not tries:
            part.discard()
        tries.append(fd)
        return True

    monkeypatch.setattr(part_module, "try_lock", lock)
    part.create(8).release()
    assert part.is_there
    assert len(tries) == 2


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_delayed_write_is_no_left_over_while_it_runs(tmp_path: Path, scheduler: str) -> None:
    """Another writer of the same name removes the temporary files of killed writers."""
    path = tmp_path / "a.mrc"
    data = once(lambda: to_mrc(PIXELS[:2] + 1, path, overwrite=True))
    write = to_mrc(data, path, overwrite=True, compute=False)
    assert write is not None
    with dask.config.set(scheduler=scheduler):
        write.compute()
    np.testing.assert_array_equal(read(path), PIXELS)
    assert names(tmp_path) == ["a.mrc"]


# a cluster may run a task again ------------------------------------------------------------------


@both
@pytest.mark.parametrize("size", [0, 8])
def test_beginning_and_finishing_again_do_no_harm(tmp_path: Path, name: str, size: int) -> None:
    (tmp_path / name).write_bytes(OLD)
    sink = open_sink(tmp_path / name, None, overwrite=True)
    # what a worker wrote is on another disk, or gone
    with pytest.raises(FileNotFoundError) as caught:
        sink.finish(b"head")
    assert "must share the file system" in caught.value.__notes__[0]
    assert (tmp_path / name).read_bytes() == OLD
    sink.begin(size)
    sink.write([(0, b"12345678")])
    sink.begin(size)
    for _ in range(2):
        sink.finish(b"head")
        assert sink.destination.begins_with(b"head5678")
    assert names(tmp_path) == [name]
