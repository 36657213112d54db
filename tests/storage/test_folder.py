"""Folders on disks and in stores, and the names that may not lead out of them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import pytest

from mrc_xarray import MrcError
from mrc_xarray.storage import InStore, open_source
from mrc_xarray.storage.folder import Folder

MEMORY = fsspec.filesystem("memory")


class Named(fsspec.AbstractFileSystem):
    """A store that has no files, only names."""

    protocol = ("s3", "http", "https")
    cachable = False


class PathInStore(NamedTuple):
    """A path of universal_pathlib has these."""

    fs: Any
    path: str


STORES = {
    "s3": Folder(Named(), "bucket/a/b"),
    "http": Folder(Named(), "https://host:80/a%20b/c"),
    "memory": Folder(MEMORY, "/a/b"),
}


@pytest.mark.parametrize(
    ("store", "name", "path"),
    [
        ("s3", "x.mrcs", "bucket/a/b/x.mrcs"),
        ("s3", "./d//x #1.mrcs", "bucket/a/b/d/x #1.mrcs"),
        ("s3", "../../x.mrcs", "bucket/x.mrcs"),
        ("http", "x #1?.mrcs", "https://host:80/a%20b/c/x%20%231%3F.mrcs"),
        ("http", "../../d/x.mrcs", "https://host:80/d/x.mrcs"),
        ("http", "@other/x.mrcs", "https://host:80/a%20b/c/%40other/x.mrcs"),
        ("http", "%2e%2e/x.mrcs", "https://host:80/a%20b/c/%252e%252e/x.mrcs"),
        ("memory", "c/../x.mrcs", "/a/b/x.mrcs"),
    ],
)
def test_names_in_stores(store: str, name: str, path: str) -> None:
    found = STORES[store].file(name)
    assert isinstance(found, InStore)
    assert found.path == path


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../../../x.mrcs", "leads out of"),
        ("a/../../../../b/x.mrcs", "leads out of"),
        ("/etc/passwd", "absolute path"),
        ("//host/x.mrcs", "absolute path"),
        ("s3://other/x.mrcs", "no URLs"),
        ("x\0.mrcs", "no URLs"),
    ],
)
def test_names_that_lead_out(store: str, name: str, message: str) -> None:
    with pytest.raises(MrcError, match=message):
        STORES[store].file(name)


def test_parents() -> None:
    found = {store: [f.path for f in folder.upwards()] for store, folder in STORES.items()}
    assert found == {
        "s3": ["bucket/a/b", "bucket/a", "bucket"],
        "http": ["https://host:80/a%20b/c", "https://host:80/a%20b", "https://host:80"],
        "memory": ["/a/b", "/a", ""],
    }
    assert [f.path for f in Folder(None, "/a/b").upwards()] == ["/a/b", "/a", "/"]


def test_the_folder_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.star"
    path.write_text("x")
    own = Folder.of(open_source(path))
    assert own == Folder.at(tmp_path, None) == Folder(None, str(tmp_path))
    in_file_system: Any = PathInStore(fsspec.filesystem("file"), str(tmp_path))
    assert Folder.at(in_file_system, None) == own
    assert own is not None
    assert own.file("/etc/x.mrcs") == "/etc/x.mrcs"
    assert own.has("a.star")
    assert not own.has("b.star")
    assert Folder.of(open_source(b"x")) is None
    with pytest.raises(MrcError, match="no URLs"):
        own.file("file:///a.mrcs")
    MEMORY.pipe("/folder/a.star", b"x")
    in_store = Folder.of(open_source("memory://folder/a.star"))
    assert in_store is not None
    assert in_store.path == "/folder"
    assert in_store.has("a.star")
    assert not in_store.has("b.star")
    again = pickle.loads(pickle.dumps(in_store))
    assert open_source(again.file("a.star")).read_all() == b"x"
    roots: list[Any] = ["memory://folder/", PathInStore(MEMORY, "/folder")]
    for root in roots:
        assert Folder.at(root, None).path == "/folder"
    MEMORY.rm("/folder", recursive=True)
