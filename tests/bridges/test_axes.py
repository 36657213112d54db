from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from mrc_xarray import MrcError
from mrc_xarray.bridges.axes import axes_of, coords_of, has_patterns


def labelled(dims: tuple[str, ...], sizes: tuple[int, ...], **coords: Any) -> xr.DataArray:
    """Return zeros; a coordinate is its dimension, values and unit."""
    made = {
        name: (dim, np.asarray(values, float), {"units": unit})
        for name, (dim, values, unit) in coords.items()
    }
    return xr.DataArray(np.zeros(sizes, "f4"), made, dims)


def axis(name: str | None, size: int, *, navigate: bool = False, **more: Any) -> dict[str, Any]:
    return {"name": name, "size": size, "navigate": navigate, **more}


def test_regular_coordinates_are_uniform_axes_in_the_spelling_of_hyperspy() -> None:
    data = labelled(
        ("z", "y", "x"), (2, 3, 4),
        z=("z", [10, 12.5], "nm"), y=("y", [2, 1, 0], "angstrom"), x=("x", [0, 1, 2, 3], "um"),
    )  # fmt: skip
    assert axes_of(data) == [
        axis("z", 2, navigate=True, scale=2.5, offset=10.0, units="nm"),
        axis("y", 3, scale=-1.0, offset=2.0, units="Å"),
        axis("x", 4, scale=1.0, offset=0.0, units="µm"),
    ]
    part = data.isel(z=slice(1, 2), y=[0, 2]).swap_dims(x="column")
    first, second, third = axes_of(part.assign_coords(z=part.z.assign_attrs(spacing=2.5)))
    assert first == axis("z", 1, navigate=True, scale=2.5, offset=12.5, units="nm")
    assert (second["scale"], second["offset"]) == (-2.0, 2.0)
    assert third == axis("column", 4)


@pytest.mark.parametrize(
    ("angles", "expected"),
    [
        ([-60.1, -30, 0.2], {"axis": [-60.1, -30, 0.2]}),
        ([3, 0, -3.5], {"axis": [3, 0, -3.5]}),
        ([-3, 0, 3], {"scale": 3.0, "offset": -3.0}),
    ],
)
def test_tilt_angles_are_the_axis_of_the_images(
    angles: list[float], expected: dict[str, Any]
) -> None:
    data = labelled(("image", "y", "x"), (3, 4, 5), tilt_angle=("image", angles, "degree"))
    for series in (data, data.swap_dims(image="tilt_angle")):
        found = axes_of(series)[0]
        assert (found.pop("name"), found.pop("units"), found.pop("navigate")) == (
            "tilt_angle", "°", True,
        )  # fmt: skip
        found.pop("size", None)
        assert {key: np.asarray(value).tolist() for key, value in found.items()} == expected


@pytest.mark.parametrize("angles", [[0, 3, -3], [0, 3, np.nan], [1, 1, 2]])
def test_an_order_that_no_axis_has_leaves_the_images_counted(angles: list[float]) -> None:
    data = labelled(("image", "y", "x"), (3, 4, 5), tilt_angle=("image", angles, "degree"))
    assert axes_of(data)[0] == axis("image", 3, navigate=True)


@pytest.mark.parametrize(
    ("dims", "signal"),
    [
        (("x",), "x"),
        (("y", "x"), "yx"),
        (("y", "x", "energy"), ("energy",)),
        (("energy", "y", "x"), "yx"),
        (("volume", "z", "y", "x"), "yx"),
        (("scan_y", "scan_x", "ky", "kx"), ("ky", "kx")),
        (("scan_y", "scan_x"), ("scan_y", "scan_x")),
    ],
)
def test_spectra_and_images_are_the_signal(dims: tuple[str, ...], signal: Any) -> None:
    axes = axes_of(labelled(dims, (2,) * len(dims)))
    assert [a["name"] for a in axes] == list(dims)
    assert [a["name"] for a in axes if not a["navigate"]] == list(signal)
    assert not has_patterns(axes)


def test_data_without_a_pixel_have_no_axes() -> None:
    with pytest.raises(MrcError, match=r"shape \(\)"):
        axes_of(labelled((), ()))
    with pytest.raises(MrcError, match=r"shape \(y: 2, x: 0\); accepted: one dimension or more"):
        axes_of(labelled(("y", "x"), (2, 0)))


@pytest.mark.parametrize("unit", ["1/nm", "1/Å", "nm^-1", "nm-1", "$A^{-1}$", "mrad"])
def test_xy_of_a_diffraction_pattern_are_kx_and_ky_of_a_scan(unit: str) -> None:
    axes = [
        axis("y", 2, navigate=True, scale=2, units="nm"),
        axis("x", 3, navigate=True, scale=2, units="nm"),
        axis("y", 4, scale=0.1, units=unit),
        axis("x", 5, scale=0.1, offset=-0.2, units=unit),
    ]
    dims, coords = coords_of(axes)
    assert dims == ("scan_y", "scan_x", "ky", "kx")
    assert coords["scan_x"].values.tolist() == [0, 2, 4]
    assert coords["scan_x"].attrs == {
        "units": "nm", "long_name": "scan_x position", "spacing": 2.0,
    }  # fmt: skip
    np.testing.assert_allclose(coords["kx"], [-0.2, -0.1, 0, 0.1, 0.2], atol=1e-15)
    assert coords["kx"].attrs["units"] in ("1/nm", "1/angstrom", "mrad")
    assert has_patterns(axes)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([axis(None, 2), axis("", 3)], ("y", "x")),
        ([axis(None, 2, navigate=True), axis(None, 3), axis(None, 4)], ("image", "y", "x")),
        ([axis("height", 2), axis("width", 3)], ("y", "x")),
        ([axis("y", 2, navigate=True), axis("x", 3, navigate=True),
          axis("Energy loss", 4, units="eV", scale=0.5)], ("y", "x", "energy")),
        ([axis(None, 2, navigate=True), axis(None, 3, units="keV")], ("x", "energy")),
        ([axis(None, 9)], ("channel",)),
        ([axis("t", 2, navigate=True), axis("t", 2), axis("a\nb", 2)], ("t_1", "t_2", r"a\nb")),
        ([axis(None, 2, navigate=True)] * 3 + [axis("y", 2), axis("x", 2)],
         ("axis_0", "axis_1", "axis_2", "y", "x")),
        ([axis("x", 3, index_in_array=1), axis("y", 2, index_in_array=0)], ("y", "x")),
        ([], ()),
    ],
)  # fmt: skip
def test_names_of_dimensions(given: list[dict[str, Any]], expected: tuple[str, ...]) -> None:
    assert coords_of(given)[0] == expected


def test_an_axis_that_is_not_calibrated_has_no_coordinate() -> None:
    axes = [
        axis("a", 2, scale=1, units=None),
        axis("b", 2, scale=1, offset=7, units="<undefined>"),
        axis("c", 2, scale=0, units="nm"),
        axis("d", 2, scale=np.nan, units="nm"),
        axis("e", 2, scale=2, units=object()),
        axis("f", 2, units="px", scale=3),
        axis("g", 2, scale=2, units="a.u."),
    ]
    assert [*coords_of(axes)[1]] == ["g"]
    assert coords_of(axes)[1]["g"].attrs["units"] == "a.u."


def test_positions_are_those_that_the_engine_would_give() -> None:
    coord = coords_of([axis("y", 4, scale=0.1, offset=0.3, units="nm"), axis("x", 2)])[1]["y"]
    assert coord.values.tolist() == [0.3, 0.4, 0.5, 0.6]
    assert coord.attrs == {"units": "nm", "long_name": "y position", "spacing": 0.1}


def test_irregular_positions_and_tilt_angles() -> None:
    axes = [
        {"name": "tilt_angle", "axis": np.array([-3, 0, 4.0]), "units": "°", "navigate": True},
        axis("y", 2),
        {"name": "x", "axis": [1, 2, 4], "units": "µm"},
    ]
    dims, coords = coords_of(axes)
    assert dims == ("image", "y", "x")
    assert coords["tilt_angle"].identical(xr.Variable("image", [-3.0, 0, 4], {"units": "degree"}))
    assert coords["x"].values.tolist() == [1, 2, 4]
    assert coords["x"].attrs["units"] == "um"
