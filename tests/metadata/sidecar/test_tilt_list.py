"""IMOD's lists of tilt angles."""

from __future__ import annotations

import numpy as np
import pytest
from sidecars_by_hand import columns, image_file, only, text_file, units

from mrc_xarray.metadata.sidecar import tilt_list


@pytest.mark.parametrize(
    "text",
    [
        "-60\n-57.5\n 0.00\n", "\n-60.00\r\n\r\n-57.5\r\n0", "-6e1\n-57.5 \n0",
        # the first of two or three columns
        "-60 1\n-57.5 2\n0 3", "-60\t1\t-60.1\n-57.5\t2\t-57\n0\t3\t0",
    ],
)  # fmt: skip
def test_tilt_list(text: str) -> None:
    found = tilt_list.read(text_file(text, "a.rawtlt"), image_file("a.st", 3))
    assert found.problems == ()
    assert units(found) == {"tilt_angle": "degree"}
    np.testing.assert_array_equal(columns(found)["tilt_angle"].values, [-60, -57.5, 0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-60\n-57\n", "a.tlt: the number of tilt angles is 2; accepted: one for each section"),
        ("", "a.tlt: the number of tilt angles is 0"),
        ("-60\n\nx\n-54\n", "a.tlt, line 3: the tilt angle is 'x'"),
        ("-60\n-57 1\n-54\n", "a.tlt, line 2: the tilt angle is '-57 1'"),
        ("1 -60 0 9\n2 -57 0 9\n3 -54 0 9", "line 1: the tilt angle is '1 -60 0 9'; accepted: a"),
        ("-60\nnan\n-54\n", "a.tlt, line 2: the tilt angle is 'nan'"),
    ],
)
def test_tilt_list_that_cannot_be_used(text: str, message: str) -> None:
    found = tilt_list.read(text_file(text, "a.tlt"), image_file("a.st", 3))
    assert message in only(found.problems)
    assert found.columns == ()


@pytest.mark.parametrize(
    ("image", "names"),
    [
        ("BB.st", ("BB.rawtlt", "BB.tlt")),
        ("BB.mrc", ("BB.rawtlt", "BB.tlt")),
        ("BB.ali", ("BB.tlt", "BB.rawtlt")),
        ("BB_ali.mrc", ("BB.tlt", "BB.rawtlt")),
        ("BB_preali.mrc", ("BB.tlt", "BB.rawtlt")),
        ("BB.st.gz", ("BB.rawtlt", "BB.tlt")),
        ("BB.rec", ()),
    ],
)
def test_names_of_tilt_lists(image: str, names: tuple[str, ...]) -> None:
    assert tilt_list.names(image) == names


def test_tilt_list_of_a_truncated_image() -> None:
    """The list has the angles of all sections that the header promises."""
    image = image_file("a.st", 3, n_promised=4)
    found = tilt_list.read(text_file("1\n2\n3\n4", "a.tlt"), image)
    assert columns(found)["tilt_angle"].values.tolist() == [1, 2, 3]
    found = tilt_list.read(text_file("1\n2\n3", "a.tlt"), image)
    assert "is 3; accepted: one for each section of the image, 4" in only(found.problems)


def test_list_that_is_too_long() -> None:
    found = tilt_list.read(text_file(b" " * 100_401, "a.tlt"), image_file("a.st", 4))
    assert "the list is 100401 bytes long; accepted: up to 100400" in only(found.problems)
