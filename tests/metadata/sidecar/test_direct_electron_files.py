"""The names of the files of one Direct Electron acquisition."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sidecars_by_hand import image_file, only

from mrc_xarray.metadata.files import TextFile
from mrc_xarray.metadata.sidecar.direct_electron import names
from mrc_xarray.metadata.sidecar.direct_electron_files import companions, names_of


def groups(
    movie: str, names: Iterable[str], keys: Mapping[str, str] | None = None
) -> dict[str, dict[str, str]]:
    """Return group → name → file, in their order."""
    found: dict[str, dict[str, str]] = {}
    for companion in companions(movie, names, keys or {}):
        found.setdefault(companion.group, {})[companion.name] = companion.file
    return found


def exact(movie: str) -> list[str]:
    return [name for name in names(movie) if isinstance(name, str)]


def test_names_of_the_info_file() -> None:
    assert exact("20241021_00405_movie.mrc") == ["20241021_00405_info.txt"]
    assert exact("20250429_06699_0_movie.mrc") == [
        "20250429_06699_0_info.txt",
        "20250429_06699_info.txt",
    ]
    assert exact("20250429_06699_run1_26_movie.mrc") == [
        "20250429_06699_run1_26_info.txt",
        "20250429_06699_run1_info.txt",
        "20250429_06699_info.txt",
    ]
    assert names("Custom_movie.mrc") == ("Custom_info.txt",)
    for other in ("20241021_00405_final.mrc", "_movie.mrc", "movie.mrc", "", "a_movie.mrc.gz"):
        assert names(other) == ()


SUFFIXES = ("", "_0", "_run1", "_run1_26", "_a_b", "_7")


def test_acquisitions_with_other_suffixes_as_rosettasciio_finds_them(tmp_path: Path) -> None:
    """For each movie alone with one info file, list and detector of any suffix."""
    find = pytest.importorskip("rsciio.mrc._api").find_related_de_files
    ends = ("_info.txt", "_scan_coordinates.csv", "_1_BF_sum.mrc", "_ext2_HAADF.mrc")
    for at, of_files in enumerate((*SUFFIXES, "2")):
        folder = tmp_path / str(at)
        folder.mkdir()
        files = [f"20240101_7{of_files}{end}" for end in ends]
        for file in files:
            (folder / file).touch()
        for of_movie in SUFFIXES:
            movie = f"20240101_7{of_movie}_movie.mrc"
            oracle = find(str(folder / movie))
            for key, end in (("info_file", ends[0]), ("scan_csv", ends[1])):
                image = image_file(movie, 1, read_next_to=dict.fromkeys(files, b"").get)
                image = replace(image, names_next_to=lambda: files)  # noqa: B023
                file, problems = image.find(names_of(movie, end))
                assert (file and str(folder / file.name)) == oracle[key]
                assert problems == []
            external = oracle["external_images"]
            # it also takes an external image with a numbered suffix for a virtual one
            virtual = sorted({*oracle["virtual_images"]} - {*external})
            for group, expected in (("virtual", virtual), ("external", external)):
                listed = groups(movie, files).get(group, {}).values()
                assert [str(folder / name) for name in listed] == expected


def test_ambiguous_files_are_a_warning() -> None:
    files = ["20240101_7_b_info.txt", "20240101_7_a_info.txt", "20240101_77_info.txt"]
    image = replace(
        image_file("20240101_7_movie.mrc", 1, read_next_to=lambda name: name.encode()),
        names_next_to=lambda: files,
    )
    file, problems = image.find(names("20240101_7_movie.mrc")[1:])
    assert file == TextFile("20240101_7_a_info.txt", b"20240101_7_a_info.txt")
    message = only(problems)
    assert (
        "the first of 2: 20240101_7_a_info.txt, 20240101_7_b_info.txt; accepted: one file"
        in message
    )
    assert "20240101_7_a_info.txt is used; metadata_file=" in message
    # in a store nothing is listed
    assert replace(image, is_in_store=True).find(names("20240101_7_movie.mrc")[1:]) == (None, [])


def test_real_companions(real_file: Callable[[str], Path]) -> None:
    movie = real_file("direct_electron/20241021_00405_movie.mrc")
    found = groups(movie.name, [path.name for path in movie.parent.iterdir()])
    assert found["virtual"] == {
        "Virt 0": "20241021_00405_0_Virt 0_sum.mrc",
        "Virt 1": "20241021_00405_1_Virt 1_sum.mrc",
    }
    assert found["external"] == {"Ext 1": "20241021_00405_ext1_Ext 1.mrc"}
    assert found[""] == {"final": "20241021_00405_final.mrc"}


FOLDER = [
    "20240101_7_movie.mrc",
    "20240101_7_info.txt",
    "20240101_7_10_BF_sum.mrc",
    "20240101_7_2_Virt #2_centroid_amplitude.mrc",
    "20240101_7_virt3_DF inner_sum.mrc",
    "20240101_7_ext2.mrc",
    "20240101_7_ext1_HAADF_left.mrc",
    "20240101_7_final.mrc",
    "20240101_7_0_movie.mrc",
    "20240101_77_0_BF_sum.mrc",
    "20240101_77_final.mrc",
    "20240101_7_4_BF_sum.tif",
    "20240101_7_5_BF.mrc",
    "notes.txt",
]


@pytest.mark.parametrize("movie", ["20240101_7_movie.mrc", "20240101_7_0_movie.mrc"])
def test_companions_by_hand(movie: str) -> None:
    found = groups(movie, FOLDER)
    assert list(found["virtual"].items()) == [
        ("Virt #2", "20240101_7_2_Virt #2_centroid_amplitude.mrc"),
        ("DF inner", "20240101_7_virt3_DF inner_sum.mrc"),
        ("BF", "20240101_7_10_BF_sum.mrc"),
    ]
    assert list(found["external"].items()) == [
        ("HAADF_left", "20240101_7_ext1_HAADF_left.mrc"),
        ("ext2", "20240101_7_ext2.mrc"),
    ]
    assert found[""] == {"final": "20240101_7_final.mrc"}


def test_companions_with_the_same_name() -> None:
    folder = ["a_0_BF_sum.mrc", "a_1_BF_mean.mrc", "a_2_BF_mean.mrc", "a_3_DF_sum.mrc"]
    found = groups("a_movie.mrc", folder)
    assert found["virtual"] == {
        "BF sum": "a_0_BF_sum.mrc",
        "BF mean": "a_1_BF_mean.mrc",
        "2 BF mean": "a_2_BF_mean.mrc",
        "DF": "a_3_DF_sum.mrc",
    }


@pytest.mark.parametrize(
    ("number", "known", "name"),
    [
        (1, "inner_left", "inner_left"),
        (1, "inner", "inner"),
        # renamed after the acquisition, and another detector
        (1, "outer_left", "inner"),
        (1, "inner_left_su", "inner"),
        (2, "inner_left", "inner"),
    ],
)
def test_names_that_the_info_file_knows(number: int, known: str, name: str) -> None:
    keys = {f"Scan - Virtual Detector {number} Name": known}
    found = groups("a_movie.mrc", ["a_1_inner_left_sum.mrc"], keys)
    assert found["virtual"] == {name: "a_1_inner_left_sum.mrc"}


def test_dimensions_that_companions_share() -> None:
    found = companions("20240101_7_movie.mrc", FOLDER, {})
    assert {companion.group: companion.shares for companion in found} == {
        "virtual": "scan", "external": "scan", "": "frame",
    }  # fmt: skip


@pytest.mark.slow
@settings(max_examples=20)
@given(st.text(max_size=30), st.lists(st.text(max_size=30), max_size=5))
def test_any_names(movie: str, names: list[str]) -> None:
    companions(movie + "_movie.mrc", names, {})
