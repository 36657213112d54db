"""What a header can't hold is in one warning, or in the JSON of an MRCZ."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from writes import check_plain, field, labelled, noise, opened, source, stored, warned

from mrc_xarray import MrcWarning, to_mrc

STACK = noise((3, 4, 5))
PLAIN_STACK = labelled(STACK, ("image", "y", "x"))


SCAN = noise((2, 3, 4, 5))


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.mrc", labelled(SCAN, ("image", "channel", "y", "x")), ["sections_per_frame=3"]),
        (
            "a.mrc",
            labelled(SCAN, ("scan_y", "scan_x", "ky", "kx")),
            [r"scan_shape=\(2, 3\)", r"\bky\b", r"\bkx\b"],
        ),
        (
            "a.mrc",
            labelled(SCAN[None], ("repeat", "scan_y", "scan_x", "y", "x")),
            ["repeat", "scan_y", "scan_x", r"scan_shape=\(1, 2, 3\)"],
        ),
        ("a.mrc", labelled(STACK, ("scan_x", "ky", "kx")), [r"as \(image, y, x\) \(scan_shape="]),
        ("a.mrc", PLAIN_STACK.assign_coords(time=5.0), [r"\btime\b"]),
        ("a.mrc", PLAIN_STACK.assign_coords(image=[4, 5, 9]), [r"\bimage\b"]),
        ("a.mrc", labelled(STACK[:1], ("image", "y", "x")), ["layout="]),
        ("a.mrc", STACK[:1], ["layout=.volume"]),
        ("a.mrcs", labelled(STACK, ("z", "y", "x")), ["layout=.volume"]),
        ("a.rec", PLAIN_STACK, ["layout=.image_stack"]),
    ],
)
def test_labels_that_no_mrc_holds(tmp_path: Path, name: str, data: Any, words: list[str]) -> None:
    path = tmp_path / name
    message = warned(data, path)
    for word in words:
        assert re.search(word, message)
    pixels = np.asarray(data)
    assert stored(path) == pixels.tobytes()
    # an argument that the warning names gives the dimensions that were written
    if found := re.search(r"(layout|sections_per_frame|scan_shape)=('\w+'|\d+|\(.*?\))", message):
        dims = opened(path, **{found[1]: eval(found[2])}).data.sizes
        assert tuple(dims.values()) == pixels.shape


@pytest.mark.parametrize(
    ("name", "first"), [("a.mrc", "image"), ("a.st", "image"), ("a.mrc", "z"), ("a.rec", "z")]
)
def test_layouts_without_a_warning(tmp_path: Path, name: str, first: str) -> None:
    to_mrc(labelled(STACK, (first, "y", "x")), tmp_path / name)
    assert opened(tmp_path / name).data.dims == (first, "y", "x")


def test_all_is_in_one_warning(tmp_path: Path) -> None:
    pixels = noise((3, 4, 5), "i4")
    data = labelled(pixels, ("tilt_angle", "y", "x")).assign_coords(
        tilt_angle=[-3, 0, 3],
        dose=("tilt_angle", [1, 2, 3]),
        stage=1.5,
        x=("x", np.arange(5.0), {"units": "1/nm"}),
        y=np.arange(4.0),
    )
    message = warned(data, tmp_path / "a.rec")
    for word in ("tilt_angle", "dose", "stage", r"\bx\b", r"\by\b", "MODE 7.*MRC2014", "layout="):
        assert re.search(word, message)


def test_angstroms_are_assumed(path: Path) -> None:
    data = xr.DataArray(noise((4, 5)), {"x": 2.0 * np.arange(5) + 7}, ("y", "x"))
    assert "x has no units, and is taken as ångström" in warned(data, path)
    assert field(path, "cella")[0] == 10
    assert field(path, "origin")[0] == 7


def test_section_numbers_draw_no_warning(path: Path, tmp_path: Path) -> None:
    """They are the numbers in the old file, and the new file numbers its own sections."""
    to_mrc(source(tmp_path, STACK, ispg=0, mz=1).isel(image=[0, 2]), path)
    np.testing.assert_array_equal(opened(path)["section"], [0, 1])
    check_plain(path, STACK[[0, 2]])


@pytest.mark.parametrize("name", ["a.mrc", "a.mrc.gz"])
def test_volume_next_to_an_mdoc_draws_a_warning(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.mrc.mdoc").write_text("[ZValue = 0]\n")
    with pytest.warns(MrcWarning, match="layout='volume'"):
        to_mrc(noise((3, 4, 5)), tmp_path / name)


@pytest.mark.parametrize(
    "values",
    [
        np.array([1, 2, 3], "m8[s]"),
        np.array(["2024-01-01", "NaT", "2025-01-01"], "M8[ns]"),
        np.array([1 + 2j, 3, 4]),
        np.array([True, False, True]),
        np.array(["a", "b", "c"]),
    ],
    ids=str,
)
def test_coordinates_of_any_kind_come_back(tmp_path: Path, values: Any) -> None:
    data = xr.DataArray(
        noise((3, 4, 5)), dims=("tilt", "y", "x"), coords={"c": ("tilt", values)}
    ).assign_attrs(note="stored")
    to_mrc(data, tmp_path / "a.mrcz")
    again = opened(tmp_path / "a.mrcz").data
    assert again.dims == data.dims
    np.testing.assert_array_equal(again.c, values)
    assert again.c.dtype.kind == values.dtype.kind
    assert again.attrs["note"] == "stored"


def test_what_json_can_not_hold_is_reported(tmp_path: Path) -> None:
    data = xr.DataArray(noise((4, 5)), dims=("y", "x"), attrs={"good": 1, "bad": {1, 2}})
    with pytest.warns(MrcWarning, match="bad, for which JSON has no form"):
        to_mrc(data, tmp_path / "a.mrcz")
    assert opened(tmp_path / "a.mrcz").data.attrs["good"] == 1


def test_records_that_json_replaces_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "b.mrcs"
    records = b"".join((100 * tilt).to_bytes(2, "little") for tilt in (10, 20, 30))
    seri: Any = {"extended": records, "exttyp": b"SERI", "nint": 2, "nreal": 1}
    message = warned(source(tmp_path, STACK, "a.st", **seri), path, metadata={"a": 1})
    assert re.search(r"tilt_angle.*bytes \(SERI\)", message)
    assert opened(path).mrc.metadata == {"a": 1}
