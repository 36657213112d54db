"""Names, calibrations and choice of images, by files built by hand and real ones."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dm_by_hand as by_hand
import mrcz
import numpy as np
import pytest
import xarray as xr
from rsciio.digitalmicrograph import file_reader

from mrc_xarray import MrcError, MrcWarning

NM, PER_NM, EV, NONE = (0, 0.5, "nm"), (2, 0.25, "1/nm"), (10, 0.5, "eV"), (0, 1, "")
LIGHT = {"Meta Data": {"Signal": "CL", "Format": "Spectrum image"}}


def opened(raw: bytes, **options: Any) -> xr.Dataset:
    return xr.open_dataset(io.BytesIO(raw), engine="dm", **options)


# calibrations, fastest axis first → names, slowest first
NAMES: list[tuple[list[tuple[float, float, str]], str]] = [
    ([EV], "energy"),
    ([NM], "x"),
    ([NM, NM], "y x"),
    ([PER_NM, PER_NM], "ky kx"),
    ([(0, 1, "mrad"), (0, 1, "mrad")], "ky kx"),
    ([NM, NM, NONE], "image y x"),
    ([NM, NM, NM], "z y x"),
    ([NM, NM, (0, 0.1, "s")], "time y x"),
    ([NM, NM, EV], "energy y x"),
    ([EV, NM, NM], "y x energy"),
    ([EV, NM], "x energy"),
    ([EV, (0, 1, "mrad"), NM], "y kx energy"),
    ([PER_NM, PER_NM, NONE], "image ky kx"),
    ([PER_NM, PER_NM, NM], "scan_x ky kx"),
    ([PER_NM, PER_NM, NM, NM], "scan_y scan_x ky kx"),
    ([NM, NM, PER_NM, PER_NM], "ky kx scan_y scan_x"),
    ([PER_NM, PER_NM, NM, NM, (0, 1, "s")], "time scan_y scan_x ky kx"),
    ([NONE, NONE, NONE, NONE], "scan_y scan_x y x"),
    ([NONE] * 5, "axis_0 scan_y scan_x y x"),
    ([(0, 1, "s"), (0, 1, "ms")], "time_1 time_2"),
]


@pytest.mark.parametrize(("axes", "names"), NAMES)
def test_names(axes: list[tuple[float, float, str]], names: str) -> None:
    shape = tuple(range(2, 2 + len(axes)))
    wanted = np.arange(np.prod(shape)).reshape(shape)
    data = opened(by_hand.dm(by_hand.image(wanted, 7, axes=axes))).data
    assert data.dims == tuple(names.split())
    np.testing.assert_array_equal(data, wanted)


def test_wavelengths() -> None:
    made = by_hand.image(np.zeros((5, 2, 3)), 2, axes=[NM, NM, (-400, 1, "nm")], **LIGHT)
    ds = opened(by_hand.dm(made), units="nm")
    assert ds.data.dims == ("wavelength", "y", "x")
    np.testing.assert_array_equal(ds.wavelength, np.arange(400, 405))


# units as they are stored, with a scale of 0.25 → units and step of the coordinate
UNITS = {
    "nm": ("angstrom", 2.5), "µm": ("angstrom", 2500.0), "Å": ("angstrom", 0.25),
    "1/nm": ("1/nm", 0.25), "nm^-1": ("1/nm", 0.25), "1/Å": ("1/angstrom", 0.25),
    "mrad": ("mrad", 0.25), "deg": ("degree", 0.25), "eV": ("eV", 0.25), "keV": ("keV", 0.25),
    "s": ("s", 0.25), "sec": ("s", 0.25), "µs": ("us", 0.25),
    "channels": ("channels", 0.25), "": ("1", 0.25), "\x1b[2J": ("\\x1b[2J", 0.25),
    "1/" * 2000: ("1/" * 2000, 0.25),
}  # fmt: skip


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: repr(unit)[:9])
def test_units(unit: str) -> None:
    made = by_hand.image(np.zeros((2, 3)), 2, axes=[(-2, 0.25, unit), (0, 1, "")])
    data = opened(by_hand.dm(made)).data
    assert data.dims[0] not in data.coords
    wanted, step = UNITS[unit]
    coord = data.coords[data.dims[1]]
    assert (coord.attrs["units"], coord.attrs["spacing"]) == (wanted, step)
    np.testing.assert_allclose(coord, (np.arange(3) + 2) * step, rtol=1e-12)


def test_units_of_the_user_and_names() -> None:
    made = by_hand.image(np.zeros((2, 3)), 2, axes=[(1, 0.1, "nm"), (0, -0.1, "nm")])
    data = opened(by_hand.dm(made), units="pm", dims=["row", "column"]).data
    # the float32 in the file is the decimal 0.1
    np.testing.assert_array_equal(data.column, [-100, 0, 100])
    np.testing.assert_array_equal(data.row, [0, -100])
    assert data.row.attrs == {"units": "pm", "long_name": "y position", "spacing": 100}
    assert opened(by_hand.dm(made)).mrc.voxel_size == {"y": 1.0, "x": 1.0}


@pytest.mark.parametrize(
    "axis", [(0, 0, "nm"), (0, np.nan, "nm"), (np.inf, 1, "nm"), (0, np.inf, "eV")]
)
def test_impossible_calibrations_are_absent(axis: tuple[float, float, str]) -> None:
    assert not opened(by_hand.dm(by_hand.image(np.zeros((2, 3)), 2, axes=[axis, axis]))).coords


def test_calibrations_can_be_missing(tmp_path: Path) -> None:
    """Files by some plugins do not have the last, and RosettaSciIO opens them, too."""
    made = by_hand.image(np.zeros((4, 2, 3)), 2, axes=[NM, NM])
    (tmp_path / "a.dm3").write_bytes(by_hand.dm(made, version=3))
    data = xr.open_dataset(tmp_path / "a.dm3", engine="dm").data
    assert data.dims == ("image", "y", "x")
    np.testing.assert_array_equal(data.section, range(4))
    oracle = file_reader(tmp_path / "a.dm3")[0]["axes"]
    assert [axis["scale"] for axis in oracle] == [1, 0.5, 0.5]
    del made["ImageData"]["Calibrations"]
    assert not opened(by_hand.dm(made)).y.coords


def test_values_and_tags() -> None:
    where = {"Voltage": 300000.0, "Stage Position": {"Stage Alpha": -12.5, "Stage X": 40.0}}
    made = by_hand.image(np.zeros((2, 3)), 2, **{"Microscope Info": where, "µ.note": "Ω"})
    data = opened(by_hand.dm(by_hand.image(np.zeros((1, 1)), 2), made)).data
    wanted = {"title": "an image", "voltage_kV": 300.0, "tilt_angle": -12.5, "stage_x": 40.0}
    assert {name: data.attrs[name] for name in wanted} == wanted
    tags = data.mrc.metadata
    assert tags["ImageTags"] == {"Microscope Info": where, "µ.note": "Ω"}
    assert tags["ApplicationBounds"] == [0, 0, 768, 1596]
    assert tags["ImageData"]["Dimensions"] == {"0": 3, "1": 2}
    assert "Data" not in tags["ImageData"]
    assert "ImageList" not in tags
    # the tags of the images that the stack builder joins
    stack = by_hand.image(
        np.zeros((2, 3)), 2, source={"Tags at creation": {"Microscope Info": where}}
    )
    assert opened(by_hand.dm(stack)).data.attrs["voltage_kV"] == 300


def test_the_largest_image_is_opened() -> None:
    small, large, same = (by_hand.image(np.full((n, 3), n), 1) for n in (2, 5, 5))
    thumbnail = by_hand.image(np.zeros((64, 64, 4)), 23, (64, 64))
    for images in ((thumbnail, small, large), (thumbnail, large, small, same)):
        data = opened(by_hand.dm(*images, thumbnails=[0])).data
        np.testing.assert_array_equal(data, np.full((5, 3), 5))
    assert opened(by_hand.dm(thumbnail, large)).data.sizes["rgba"] == 4
    assert opened(by_hand.dm(thumbnail, thumbnails=[0])).data.sizes["rgba"] == 4


def test_all_images_are_a_tree() -> None:
    calibrated = by_hand.image(np.zeros((4, 5)), 2, axes=[NM, NM], name="survey")
    like = by_hand.image(np.ones((4, 5)), 1, axes=[NM, NM], name="copy/2")
    spectrum = by_hand.image(np.arange(7), 2, axes=[EV], name="survey")
    unnamed = by_hand.image(np.full((2, 3), 9), 1, axes=[PER_NM, PER_NM], name="")
    unknown = by_hand.image(np.zeros(3), 2, name="odd")
    unknown["ImageData"]["DataType"] = 17
    text = {"ImageTags": {"note": "no pixels"}, "Name": "text"}
    raw = by_hand.dm(spectrum, unnamed, calibrated, like, unknown, text, spectrum)
    with pytest.warns(MrcWarning, match="DataType is 17.*left out of the tree"):
        tree = xr.open_datatree(io.BytesIO(raw), engine="dm", dims=["v", "u"])
    assert tree.data.dims == ("v", "u")
    with pytest.warns(MrcWarning, match="DataType is 17"):
        groups = xr.open_groups(io.BytesIO(raw), engine="dm", drop_variables=["energy"])
    assert {path: ds.data.dims for path, ds in groups.items()} == {
        "/": ("y", "x"), "/survey": ("energy",), "/image": ("ky", "kx"), "/copy_2": ("y", "x"),
        "/survey_4": ("energy",),
    }  # fmt: skip
    assert "energy" not in groups["/survey"].coords
    np.testing.assert_array_equal(groups["/survey"].data, range(7))
    has_document = ["ApplicationBounds" in ds.mrc.metadata for ds in groups.values()]
    assert has_document == [True, False, False, False, False]
    np.testing.assert_array_equal(groups["/image"].data, np.full((2, 3), 9))


def test_dimensions_of_a_tree_do_not_contradict_each_other() -> None:
    largest = by_hand.image(np.zeros((4, 5)), 2, axes=[NM, NM], name="largest")
    other = by_hand.image(np.zeros((2, 3)), 2, axes=[(0, 3, "nm")] * 2, name="detail")
    tree = xr.open_datatree(io.BytesIO(by_hand.dm(largest, other)), engine="dm")
    assert tree["detail"].data.dims == ("detail_y", "detail_x")
    np.testing.assert_array_equal(tree["detail"].detail_x, [0, 30, 60])
    assert set(tree["detail"].coords) - set(tree.coords) == {"detail_y", "detail_x"}


ONE = {"Data": by_hand.pixels(np.zeros(1), 6), "DataType": 6, "Dimensions": {"#0": 1}}
DAMAGED: dict[str, tuple[dict[str, Any], str]] = {
    "no list": ({"ImageList": 5}, "ImageList has no image"),
    "an empty list": ({"ImageList": {}}, "ImageList has no image"),
    "no groups": ({"ImageList": {"#0": 3, "#1": {"ImageData": "a"}}}, "ImageList has no image"),
    "size 0": ({"Dimensions": {"#0": 0, "#1": 4}}, r"Dimensions is \[0, 4\]; accepted: 1 to 32"),
    "sizes": ({"Dimensions": {"#0": "a"}}, r"Dimensions is \['a'\]"),
    "many sizes": ({"Dimensions": by_hand.numbered([1] * 40)}, "accepted: 1 to 32 sizes"),
    "large sizes": ({"Dimensions": by_hand.numbered([2**30] * 32)}, "48 bytes long; accepted"),
    "type": ({"DataType": "two"}, "DataType is 'two'; accepted: a number"),
    "many images": ({"ImageList": by_hand.numbered([{"ImageData": ONE}] * 1025)}, "1025 images; "),
    "calibrations": ({"Calibrations": {"Dimension": 3}}, ""),
    "thumbnails": ({"Thumbnails": {"#0": "x", "#1": {"ImageIndex": {}}}}, ""),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_tags_of_other_kinds(name: str) -> None:
    changed, message = DAMAGED[name]
    made = by_hand.image(np.zeros((3, 4)), 2)
    in_image = {key: value for key, value in changed.items() if key in made["ImageData"]}
    made["ImageData"] |= in_image
    others = {key: value for key, value in changed.items() if key not in in_image}
    raw = by_hand.Writer().file(by_hand.root(made) | others)
    if message:
        with pytest.raises(MrcError, match=message):
            opened(raw)
    else:
        assert opened(raw).data.shape == (3, 4)


def test_long_dimensions_have_no_coordinate(tmp_path: Path) -> None:
    made = by_hand.image(np.zeros(0), 6, (2, 2**23), axes=[NM, NM])
    made["ImageData"]["Data"] = by_hand.Raw.of((20, 10, 2**24), b"")
    # the tags after the pixels follow the hole
    head, tail = by_hand.dm(made).split(b"DataType", 1)
    start = len(head) - 3
    with (tmp_path / "a.dm4").open("wb") as file:
        file.write(head[:start])
        file.seek(2**24, 1)
        file.write(head[start:] + b"DataType" + tail)
    with pytest.warns(MrcWarning, match="Dimensions is 8388608 along x"):
        ds = xr.open_dataset(tmp_path / "a.dm4", engine="dm")
    assert set(ds.coords) == {"y"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_mrcz_reads_the_same_in_another_order_of_rows(tmp_path: Path) -> None:
    wanted = np.arange(24, dtype="f4").reshape(2, 3, 4)
    made = by_hand.image(wanted, 2, axes=[NM] * 3)
    (tmp_path / "a.dm4").write_bytes(by_hand.dm(made))
    data = xr.open_dataset(tmp_path / "a.dm4", engine="dm").data
    [oracle] = mrcz.readDM4(str(tmp_path / "a.dm4")).im
    np.testing.assert_array_equal(data[:, ::-1], oracle.imageData)


NAMES_OF_FILES = (
    "1D_test-EELS_spectrum.dm3", "2D_test-1.dm3", "2D_test-13.dm4", "2D_test-27.dm4",
    "2D_test_STEM_image.dm3", "2D_test_diffraction_pattern.dm3", "3D_test-23.dm4",
    "2D_test_fft_packed_complex8.dm4",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES_OF_FILES)
def test_real_files(name: str, real_file: Callable[[str], Path]) -> None:
    path = real_file(f"dm/{name}")
    data = xr.open_dataset(path, engine="dm", units="nm").data
    [oracle] = file_reader(path)
    wanted = oracle["data"]
    if wanted.dtype.names:
        wanted = np.stack([wanted[channel] for channel in "RGBA"], axis=-1)
    # of a transform of 5 columns, RosettaSciIO has only 4
    found = data[:, :4] if "packed" in name else data
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found, wanted)
    for axis, dim in zip(oracle["axes"], data.dims, strict=False):
        assert data.sizes[dim] == axis["size"]
        if dim in data.coords:
            coord = data.coords[dim]
            positions = axis["offset"] + axis["scale"] * np.arange(axis["size"])
            np.testing.assert_allclose(coord, positions, rtol=1e-6)
            assert coord.attrs["units"] == (axis["units"] or "1")
        else:
            assert (axis["scale"], axis["units"]) == (1, "")
    tags = oracle["original_metadata"]["ImageList"]["TagGroup0"]["ImageTags"]
    assert data.mrc.metadata["ImageTags"].keys() == tags.keys()
    assert data.attrs["title"] == oracle["metadata"]["General"]["title"]
