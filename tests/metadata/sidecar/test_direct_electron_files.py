"""The names of the files of one Direct Electron acquisition."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrc_xarray.metadata.sidecar.direct_electron import names
from mrc_xarray.metadata.sidecar.direct_electron_files import companions


def groups(
    movie: str, names: Iterable[str], keys: Mapping[str, str] | None = None
) -> dict[str, dict[str, str]]:
    """Return group → name → file, in their order."""
    found: dict[str, dict[str, str]] = {}
    for companion in companions(movie, names, keys or {}):
        found.setdefault(companion.group, {})[companion.name] = companion.file
    return found


def test_names_of_the_info_file() -> None:
    assert names("20241021_00405_movie.mrc") == ("20241021_00405_info.txt",)
    assert names("20250429_06699_0_movie.mrc") == (
        "20250429_06699_0_info.txt",
        "20250429_06699_info.txt",
    )
    assert names("20250429_06699_run1_26_movie.mrc") == (
        "20250429_06699_run1_26_info.txt",
        "20250429_06699_run1_info.txt",
        "20250429_06699_info.txt",
    )
    assert names("Custom_movie.mrc") == ("Custom_info.txt",)
    for other in ("20241021_00405_final.mrc", "_movie.mrc", "movie.mrc", "", "a_movie.mrc.gz"):
        assert names(other) == ()


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


@given(st.text(max_size=30), st.lists(st.text(max_size=30), max_size=5))
def test_any_names(movie: str, names: list[str]) -> None:
    companions(movie + "_movie.mrc", names, {})
