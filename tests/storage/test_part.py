"""How a new file gets its name and attributes, and what happens to files of killed writers."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import by_hand
import dask.array as da
import numpy as np
import pytest
import servers
import xarray as xr

from mrc_xarray import MrcError, to_mrc
from mrc_xarray.storage import part as part_module
from mrc_xarray.storage.part import Part
from mrc_xarray.storage.upload import Upload
from mrc_xarray.tools.convert import convert

PIXELS = np.arange(6 * 4 * 5, dtype="f4").reshape(6, 4, 5)
OTHER = b"a file that another writer has finished meanwhile"

Act = Callable[[], Any]


def in_the_middle(act: Act) -> xr.DataArray:
    """Return data that call `act` when their second half is computed."""

    def block(pixels: Any, block_info: Any = None) -> Any:
        if block_info[0]["chunk-location"][0] == 1:
            act()
        return pixels

    lazy = da.from_array(PIXELS, chunks=(3, -1, -1))
    meta = np.empty((0, 0, 0), "f4")
    return xr.DataArray(lazy.map_blocks(block, meta=meta), dims=("z", "y", "x"), name="data")


def write(data: xr.DataArray, path: Path, *, overwrite: bool = False) -> None:
    """Write the format of the suffix, with the writer or the converter."""
    if path.suffix in (".nc", ".zarr"):
        converter = {".nc": "_to_netcdf", ".zarr": "_to_zarr"}[path.suffix]
        module = sys.modules[convert.__module__]
        getattr(module, converter)(data.to_dataset(), str(path), overwrite)
    else:
        to_mrc(data, path, overwrite=overwrite)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.fixture(params=[True, False], ids=["links", "no links"])
def links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """File systems with and without hard links."""
    link = os.link

    def refuse(source: Any, *args: Any, **options: Any) -> None:
        # zarr makes links of its own here
        if not request.param and os.fspath(source).endswith(".part"):
            raise OSError(errno.EOPNOTSUPP, "no hard links here")
        link(source, *args, **options)

    monkeypatch.setattr(os, "link", refuse)


# a name that is taken during the write -----------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["a.mrc", "a.mrcz", "a.mrc.gz", "a.mrc.bz2", "a.mrc.xz", "a.nc", "a.zarr"]
)
def test_file_that_appeared_meanwhile_is_not_replaced(
    links: None, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    with pytest.raises(FileExistsError, match="overwrite"):
        write(in_the_middle(lambda: path.write_bytes(OTHER)), path)
    assert path.read_bytes() == OTHER
    assert names(tmp_path) == [name]


@pytest.mark.parametrize("name", ["a.mrc", "a.mrcz", "a.mrc.gz", "a.nc", "a.zarr"])
def test_new_file_is_published(links: None, tmp_path: Path, name: str) -> None:
    write(in_the_middle(lambda: None), tmp_path / name)
    engine = {".nc": "netcdf4", ".zarr": "zarr"}.get((tmp_path / name).suffix, "mrc")
    options = {"consolidated": False} if engine == "zarr" else {}
    with xr.open_dataset(tmp_path / name, engine=engine, **options) as ds:
        np.testing.assert_array_equal(ds["data"].values, PIXELS)
    assert names(tmp_path) == [name]


def test_store_that_appeared_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"

    def appear() -> None:
        path.mkdir()
        (path / "zarr.json").write_bytes(OTHER)

    with pytest.raises(FileExistsError, match="overwrite"):
        write(in_the_middle(appear), path)
    assert (path / "zarr.json").read_bytes() == OTHER
    assert names(tmp_path) == [path.name]


def test_zarr_store_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    write(in_the_middle(lambda: None), path)

    def fail() -> None:
        raise RuntimeError("beyond repair")

    with pytest.raises(RuntimeError, match="beyond repair"):
        write(in_the_middle(fail) * 2, path, overwrite=True)
    np.testing.assert_array_equal(xr.open_zarr(path, consolidated=False)["data"], PIXELS)
    write(in_the_middle(lambda: None) * 2, path, overwrite=True)
    np.testing.assert_array_equal(xr.open_zarr(path, consolidated=False)["data"], PIXELS * 2)
    assert names(tmp_path) == [path.name]


def test_zarr_store_replaces_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    path.write_bytes(OTHER)
    write(in_the_middle(lambda: None), path, overwrite=True)
    np.testing.assert_array_equal(xr.open_zarr(path, consolidated=False)["data"], PIXELS)
    assert names(tmp_path) == [path.name]


def test_zarr_store_that_can_not_be_renamed_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.zarr"
    write(in_the_middle(lambda: None), path)
    rename = os.rename

    def refuse(source: str, target: str) -> None:
        if target == str(path) and (Path(source) / "zarr.json").exists() and "old" not in seen:
            seen.add("old")
            raise PermissionError(errno.EPERM, "not now", target)
        rename(source, target)

    seen: set[str] = set()
    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(PermissionError, match="not now"):
        write(in_the_middle(lambda: None) * 2, path, overwrite=True)
    np.testing.assert_array_equal(xr.open_zarr(path, consolidated=False)["data"], PIXELS)
    assert names(tmp_path) == [path.name]


def test_conditional_put_decides_between_two_writers(monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 itself refuses the second writer, whatever was checked before."""
    monkeypatch.setattr(Upload, "_check", lambda self: None)
    with servers.s3_server() as s3:
        for n_columns in (5, 5000):
            url = s3.url(f"a{n_columns}.mrc")
            data = in_the_middle(lambda: s3.put(f"a{n_columns}.mrc", OTHER))  # noqa: B023
            with pytest.raises(FileExistsError, match="overwrite"):
                to_mrc(data.pad(x=(0, n_columns - 5)), url, storage_options=s3.storage_options)
            assert to_mrc(PIXELS, s3.url("new.mrc"), overwrite=True, **stored(s3)) is None
            assert fetched(s3, f"a{n_columns}.mrc") == OTHER


def stored(s3: servers.S3) -> dict[str, Any]:
    return {"storage_options": s3.storage_options}


def fetched(s3: servers.S3, name: str) -> bytes:
    import fsspec

    fs = fsspec.filesystem("s3", **s3.storage_options)
    fs.invalidate_cache()
    content: bytes = fs.cat_file(f"{s3.bucket}/{name}")
    return content


@pytest.mark.parametrize("overwrite", [False, True])
def test_server_that_takes_no_files_is_named(tmp_path: Path, overwrite: bool) -> None:
    with (
        servers.http_server(tmp_path) as server,
        pytest.raises(MrcError, match=r"a\.mrc: this kind of URL can't be written to"),
    ):
        to_mrc(PIXELS, server.url("a.mrc"), overwrite=overwrite)


def test_store_without_conditions_is_looked_at_before_publication() -> None:
    import fsspec

    fs = fsspec.filesystem("memory")
    data = in_the_middle(lambda: fs.pipe_file("/meanwhile/a.mrc", OTHER))
    with pytest.raises(FileExistsError, match="overwrite"):
        to_mrc(data, "memory://meanwhile/a.mrc")
    assert fs.cat_file("/meanwhile/a.mrc") == OTHER


def test_publishing_again_does_no_harm(tmp_path: Path) -> None:
    """A worker may die between the link and the removal of the temporary name."""
    part = Part.of(str(tmp_path / "a.mrc"))
    part.create(4).release()
    os.link(part.path, part.name)
    part.publish(overwrite=False)
    assert names(tmp_path) == ["a.mrc"]


# permissions and attributes ----------------------------------------------------------------------


def mode_of(path: Path | str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.mark.parametrize("name", ["a.mrc", "a.mrcz", "a.mrc.gz", "a.nc"])
def test_nobody_else_reads_the_temporary_file(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[int] = set()

    def look(*args: Any) -> None:
        seen.update(mode_of(path) for path in tmp_path.glob(".*.part"))

    published = Part.publish

    def publish(self: Part, *, overwrite: bool) -> None:
        look()
        published(self, overwrite=overwrite)

    monkeypatch.setattr(Part, "publish", publish)
    write(in_the_middle(look), tmp_path / name)
    assert seen == {0o600}


def test_nobody_else_reads_a_store_that_is_written(tmp_path: Path) -> None:
    path, seen = tmp_path / "a.zarr", set[int]()
    look = in_the_middle(lambda: seen.update(mode_of(p) for p in tmp_path.glob(".*.part")))
    umask = os.umask(0o027)
    try:
        write(look, path)
        assert mode_of(path) == 0o750
        path.chmod(0o705)
        write(look, path, overwrite=True)
    finally:
        os.umask(umask)
    assert seen == {0o700}
    assert mode_of(path) == 0o705
    assert names(tmp_path) == [path.name]


def test_nobody_else_reads_the_spool_of_an_upload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dask

    seen: set[int] = set()
    look = in_the_middle(lambda: seen.update(mode_of(p) for p in tmp_path.glob(".*.part")))
    with dask.config.set({"temporary-directory": str(tmp_path)}):
        to_mrc(look, "memory://private/a.mrc")
    assert seen == {0o600}
    assert names(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "setxattr"), reason="no extended attributes in Python here")
@pytest.mark.parametrize("name", ["a.mrc", "a.mrcz", "a.mrc.gz"])
def test_replaced_file_gives_its_attributes(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(by_hand.mrc(PIXELS))
    path.chmod(0o640)
    try:
        os.setxattr(path, "user.project", b"ribosome")
    except OSError:
        pytest.skip("the file system has no extended attributes for users")
    owner = (1234, 4321) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(path, *owner)
    to_mrc(PIXELS + 1, path, overwrite=True)
    found = path.stat()
    assert stat.S_IMODE(found.st_mode) == 0o640
    assert (found.st_uid, found.st_gid) == owner
    assert os.getxattr(path, "user.project") == b"ribosome"


@pytest.mark.skipif(not hasattr(os, "chown"), reason="this system has no owners")
@pytest.mark.parametrize(
    ("mode", "expected"), [(0o660, 0o600), (0o604, 0o604), (0o4775, 0o705), (0o2775, 0o705)]
)
def test_another_group_does_not_get_what_the_old_one_was_allowed(
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


# an access control list as the kernel has it: version 2, then tag, permissions and id of each
# entry; here the owner, user 1234, the group, the mask and others
ACL = b"".join(
    [
        (2).to_bytes(4, "little"),
        *(
            tag.to_bytes(2, "little") + perm.to_bytes(2, "little") + who.to_bytes(4, "little")
            for tag, perm, who in (
                (0x01, 6, 0xFFFFFFFF),
                (0x02, 4, 1234),
                (0x04, 4, 0xFFFFFFFF),
                (0x10, 4, 0xFFFFFFFF),
                (0x20, 0, 0xFFFFFFFF),
            )
        ),
    ]
)


@pytest.mark.skipif(not hasattr(os, "setxattr"), reason="no extended attributes in Python here")
def test_new_file_gets_the_default_list_of_its_folder(tmp_path: Path) -> None:
    try:
        os.setxattr(tmp_path, "system.posix_acl_default", ACL)
    except OSError:
        pytest.skip("the file system has no access control lists")
    seen = []
    path, plain = tmp_path / "a.mrc", tmp_path / "plain"
    plain.touch()

    def look() -> None:
        (part,) = tmp_path.glob(".*.part")
        seen.append(mode_of(part))

    to_mrc(in_the_middle(look), path)
    assert seen == [0o600]
    assert mode_of(path) == mode_of(plain) == 0o640
    acl = "system.posix_acl_access"
    assert os.getxattr(path, acl) == os.getxattr(plain, acl)


# temporary files of killed writers ---------------------------------------------------------------

LIVING = """
import sys
from mrc_xarray.storage.part import Part

lock = Part(sys.argv[1], sys.argv[2]).create(8)
print("locked", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("name", ["a.mrc", "a.mrcz", "a.mrc.gz"])
def test_left_overs_are_removed_unless_their_writer_lives(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    dead, living = (str(tmp_path / f".{name}.{c * 12}.part") for c in "de")
    others = [f".b{name}.{'d' * 12}.part", f".{name}.part", f".{name}.{'d' * 11}.part"]
    for left in (*others, os.path.basename(dead)):
        (tmp_path / left).write_bytes(b"left")
    with subprocess.Popen(
        [sys.executable, "-c", LIVING, living, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "locked\n"
        to_mrc(PIXELS, path)
        assert names(tmp_path) == sorted([name, os.path.basename(living), *others])
        writer.kill()
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


DELAYED = """
import json, sys
import numpy as np, xarray as xr, dask, dask.array as da
from pathlib import Path
import mrc_xarray

path = Path(sys.argv[1])
other = xr.DataArray(np.ones((2, 2, 3), "f4"), dims=("z", "y", "x"))

def block(pixels):
    # another writer of the same name removes the temporary files of killed writers
    mrc_xarray.to_mrc(other, path, overwrite=True)
    return pixels

lazy = da.zeros((4, 2, 3), chunks=(2, -1, -1), dtype="f4").map_blocks(block, dtype="f4")
write = mrc_xarray.to_mrc(
    xr.DataArray(lazy, dims=("z", "y", "x")), path, overwrite=True, compute=False
)
with dask.config.set(scheduler=sys.argv[2]):
    write.compute()
print(json.dumps([int(xr.open_dataarray(path, engine="mrc").sizes["z"]), len(list(path.parent.iterdir()))]))
"""  # noqa: E501


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_delayed_write_is_no_left_over_while_it_runs(tmp_path: Path, scheduler: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", DELAYED, str(tmp_path / "a.mrc"), scheduler],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [4, 1]
