"""Which sidecar of an image is read, and what it is evidence for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import by_hand
import numpy as np
import pytest
from sidecars_by_hand import columns, only

from mrc_xarray.metadata import find
from mrc_xarray.metadata.columns import Metadata
from mrc_xarray.metadata.files import TextFile
from mrc_xarray.storage import LocalSource

MDOC = "[ZValue = 0]\nTiltAngle = 3\nNote = a\n"


def read(path: Path, n_sections: int = 1, **options: Any) -> Metadata:
    path.write_bytes(b"image")
    choices = {"metadata_file": "auto", "scan_file": "auto"} | options
    source = LocalSource.open(str(path))
    return find.read_sidecar(source, n_sections=n_sections, n_promised=n_sections, **choices)


def test_first_sidecar_that_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a_movie.mrc"
    assert read(path).evidence == ""
    (tmp_path / "a_movie.rawtlt").write_text("5")
    found = read(path)
    assert (found.only_for_stacks, found.evidence) == (True, "")
    assert columns(found)["tilt_angle"].values == [5]
    (tmp_path / "a_movie.mrc.mdoc").write_text(MDOC)
    found = read(path)
    assert (found.only_for_stacks, found.evidence) == (False, "an .mdoc describes the file")
    assert columns(found)["tilt_angle"].values == [3]
    assert find.evidence_next_to(str(path)) == found.evidence
    (tmp_path / "a_info.txt").write_text("Camera Model = DE-16")
    assert read(path).values == {"camera_model": ("DE-16", "")}
    assert read(path, metadata_file=None).values == {}


@pytest.mark.parametrize(
    ("name", "requested"),
    [("a.mrc", []), ("a.st", []), ("a_movie.mrc", ["a_info.txt"])],
)
def test_names_that_are_requested_from_a_store(name: str, requested: list[str]) -> None:
    source = by_hand.Claimed(b"", 0, f"s3://bucket/{name}")
    names: list[str] = []
    source.read_sibling = names.append
    options: dict[str, Any] = {"metadata_file": "auto", "scan_file": "auto"}
    assert find.read_sidecar(source, n_sections=1, n_promised=1, **options).values == {}
    assert names == requested


def test_a_list_of_tilts_that_the_user_names_is_evidence(tmp_path: Path) -> None:
    found = read(tmp_path / "a.mrc", metadata_file=TextFile("other.txt", b"7"))
    assert not found.only_for_stacks
    assert found.evidence == "a list of tilt angles describes the file"


def test_scan_file_without_an_info_file(tmp_path: Path) -> None:
    options: dict[str, Any] = {"metadata_file": None, "scan_file": TextFile("a.csv", b"1,0\n0,0")}
    found = read(tmp_path / "a.mrc", 2, **options)
    assert found.scan is not None
    np.testing.assert_array_equal(found.scan.frame_index, [1, 0])
    assert "the number of positions is 2" in only(read(tmp_path / "a.mrc", 3, **options).problems)
    # other sidecars do not hide it
    (tmp_path / "a.rawtlt").write_text("5\n6")
    options["metadata_file"] = "auto"
    found = read(tmp_path / "a.mrc", 2, **options)
    assert found.scan is not None
    assert not found.only_for_stacks
    (tmp_path / "a.mrc.mdoc").write_text(MDOC)
    with_mdoc = read(tmp_path / "a.mrc", 2, **options)
    assert with_mdoc.scan is not None
    assert [column.name for column in with_mdoc.columns] == ["tilt_angle"]


def test_keys_of_a_long_sidecar_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = TextFile("a.mdoc", MDOC.encode())
    assert read(tmp_path / "a.mrc", metadata_file=file).keys == {"sections": {"Note": "a"}}
    monkeypatch.setattr(find, "_LONGEST_WITH_KEYS", len(MDOC) - 1)
    found = read(tmp_path / "a.mrc", metadata_file=file)
    assert found.keys == {}
    assert columns(found)["tilt_angle"].values == [3]
    assert f"a.mdoc: the file is {len(MDOC)} bytes long" in only(found.problems)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("/folder/a.mrc.gz", "a.mrc"),
        (r"C:\folder\a.mrc", "a.mrc"),
        ("http://host/folder/a.mrc?key=b/c", "a.mrc"),
        ("simplecache::s3://bucket/a.st", "a.st"),
    ],
)
def test_image_name(name: str, expected: str) -> None:
    assert find.image_name(name) == expected
