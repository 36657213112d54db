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
    assert find.evidence_next_to(str(path), 1) == found.evidence
    (tmp_path / "a_info.txt").write_text("Camera Model = DE-16")
    assert read(path).values == {"camera_model": ("DE-16", "")}
    assert read(path, metadata_file=None).values == {}


@pytest.mark.parametrize(
    ("name", "requested"),
    [
        # an .mdoc can make a stack of a volume
        ("a.mrc", ["a.mrc.mdoc", "a.mdoc"]),
        ("a.mrc.gz", ["a.mrc.mdoc", "a.mdoc"]),
        ("a.st", ["a.st.mdoc", "a.rawtlt"]),
        ("a.ali", ["a.ali.mdoc", "a.tlt"]),
        ("a_movie.mrc", ["a_info.txt", "a_movie.mrc.mdoc", "a_movie.mdoc"]),
        ("a.rec", []),
    ],
)
def test_names_that_are_requested_from_a_store(name: str, requested: list[str]) -> None:
    source = by_hand.Claimed(b"", 0, f"s3://bucket/{name}")
    names: list[str] = []
    source.read_sibling = names.append
    options: dict[str, Any] = {"metadata_file": "auto", "scan_file": "auto"}
    assert find.read_sidecar(source, n_sections=1, n_promised=1, **options).values == {}
    assert names == requested


# image, .mdoc, its content, and what it is used for; there are two sections
TWO = "[ZValue = 0]\n[ZValue = 7]"
NAMED = [
    ("TS_1.mrc", "TS_1.mdoc", f"ImageFile = X:\\data\\ts_1.st\n{TWO}", "any layout"),
    ("TS_1.mrc", "TS_1.mdoc", "ImageFile = X:\\data\\ts_1.MRC\n[ZValue = 0]", "any layout"),
    ("TS_1.mrc.gz", "TS_1.mdoc", f"ImageFile = TS_1\n{TWO}", "any layout"),
    ("TS_1.st", "TS_1.mrc.mdoc", f"ImageFile = TS_1.mrc\n{TWO}", "any layout"),
    ("TS_1.mrc", "TS_1.mdoc", TWO, "any layout"),
    ("TS_1.mrc", "TS_1.mrc.mdoc", "ImageFile = other.mrc", "any layout"),
    # the image can be a reconstruction from the series
    ("TS_1.mrc", "TS_1.mdoc", "ImageFile = /data/TS_1.st\n[ZValue = 0]", "stacks"),
    ("TS_1.ali", "TS_1.st.mdoc", "ImageFile = TS_1.st\n[ZValue = 0]", "stacks"),
    ("TS_1.mrc", "TS_1.mdoc", f"ImageFile = TS_11.mrc\n{TWO}", ""),
    ("TS_1.st", "TS_1.mrc.mdoc", f"ImageFile = other.mrc\n{TWO}", ""),
    ("TS_1.mrc", "TS_1.mdoc", "[ZValue = 0]", ""),
]


@pytest.mark.parametrize(("image", "name", "text", "used_for"), NAMED)
def test_mdoc_with_the_stem_of_the_image(
    tmp_path: Path, image: str, name: str, text: str, used_for: str
) -> None:
    (tmp_path / name).write_text(f"Voltage = 300\n{text}\n")
    found = read(tmp_path / image, 2)
    expected = "an .mdoc describes the file" if used_for == "any layout" else ""
    assert found.evidence == find.evidence_next_to(str(tmp_path / image), 2) == expected
    assert ("voltage" in found.values) == bool(used_for)
    assert found.only_for_stacks == (used_for != "any layout")
    if not used_for:
        assert name in only(found.problems)
        assert "It is not used; pass it as metadata_file=" in only(found.problems)


def test_mdoc_after_one_that_can_not_be_read() -> None:
    """A store can refuse a request for a file that it does not have."""
    source = by_hand.Claimed(b"", 0, "s3://bucket/TS.mrc")

    def read_sibling(name: str) -> bytes:
        if name == "TS.mdoc":
            return b"ImageFile = TS.mrc\n" + MDOC.encode()
        raise PermissionError(f"{name}: 403")

    source.read_sibling = read_sibling
    options: dict[str, Any] = {"metadata_file": "auto", "scan_file": "auto"}
    found = find.read_sidecar(source, n_sections=1, n_promised=1, **options)
    assert columns(found)["tilt_angle"].values == [3]
    assert "TS.mrc.mdoc: the file is unreadable" in only(found.problems)


def test_mdoc_of_another_image_hides_no_other_sidecar(tmp_path: Path) -> None:
    (tmp_path / "a.mdoc").write_text("ImageFile = b.mrc\n")
    (tmp_path / "a.rawtlt").write_text("5")
    found = read(tmp_path / "a.st")
    assert columns(found)["tilt_angle"].values == [5]
    assert "ImageFile is 'b.mrc'; accepted: the name of this image, 'a.st'" in only(found.problems)


def test_list_of_the_angles_of_the_sections_next_to_an_mdoc(tmp_path: Path) -> None:
    """IMOD writes a new .rawtlt when views are removed, and no .mdoc."""
    entries = (f"[ZValue = {i}]\nTiltAngle = {3 * i - 6}.004\nDefocus = {i}\n" for i in range(5))
    text = "ImageFile = a.mrc\nVoltage = 300\n" + "".join(entries)
    (tmp_path / "a.mrc.mdoc").write_text(text)
    (tmp_path / "a.rawtlt").write_text("0\n6\n-6")
    found = read(tmp_path / "a.st", 3)
    assert found.problems == ()
    assert (found.evidence, found.only_for_stacks) == ("", True)
    assert found.values["voltage"] == (300, "kV")
    by_name = columns(found)
    assert by_name["tilt_angle"].values.tolist() == [0, 6, -6]
    assert by_name["defocus"].values.tolist() == [2, 4, 0]
    # a list for other sections does not help
    found = read(tmp_path / "a.st", 4)
    assert "the number of entries [ZValue = n] is 5" in only(found.problems)
    assert found.columns == ()
    # an .mdoc of all sections needs no list, unless it has no angles
    (tmp_path / "a.rawtlt").write_text("1\n2\n3\n4\n5")
    assert columns(read(tmp_path / "a.st", 5))["tilt_angle"].values[0] == -6.004
    (tmp_path / "a.mrc.mdoc").write_text(text.replace("TiltAngle", "Tilt"))
    by_name = columns(read(tmp_path / "a.st", 5))
    assert by_name["tilt_angle"].values.tolist() == [1, 2, 3, 4, 5]
    assert by_name["defocus"].values.tolist() == [0, 1, 2, 3, 4]


def test_reconstruction_has_only_an_mdoc_of_its_own_name(tmp_path: Path) -> None:
    for name in ("a.mdoc", "a.mrc.mdoc"):
        (tmp_path / name).write_text("ImageFile = a.mrc\n" + MDOC)
    for image in ("a.rec", "a.map", "a.ccp4.gz"):
        assert read(tmp_path / image).values == {}
    (tmp_path / "a.rec.mdoc").write_text(MDOC)
    assert columns(read(tmp_path / "a.rec"))["tilt_angle"].values == [3]


def test_page_of_a_server_is_no_sidecar(tmp_path: Path) -> None:
    """Some servers send a page with status 200 for a file that they do not have."""
    (tmp_path / "a.mrc.mdoc").write_text("\n<!DOCTYPE html>\n<html>a = b</html>")
    assert read(tmp_path / "a.mrc").evidence == ""


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
    (tmp_path / "a.mrc.mdoc").write_text(MDOC + "[ZValue = 1]")
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
        ("simplecache::https://host/f%2Fo/0_Virt%200_%23.mrc", "0_Virt 0_#.mrc"),
        ("s3://bucket/a%20b.mrc", "a%20b.mrc"),
    ],
)
def test_image_name(name: str, expected: str) -> None:
    assert find.image_name(name) == expected
