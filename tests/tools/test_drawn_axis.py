"""The units of a figure, and the lengths of scale bars."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from mrc_xarray.tools.planes import planes_of


@pytest.mark.parametrize(
    ("step", "units", "length", "text"),
    [
        # up to 30 of 100 columns, in the unit of the axes: Å below 10 nm, nm below 10 µm
        (0.02, "angstrom", 0.5, "Å"),
        (0.99, "angstrom", 20, "Å"),
        (1, "angstrom", 2, "nm"),
        (13.3, "Å", 20, "nm"),
        (0.1, "nm", 2, "nm"),
        (0.09, "nm", 20, "Å"),
        (10, "pm", 2, "Å"),
        (0.001, "um", 20, "nm"),
        (990, "angstrom", 2000, "nm"),
        (1000, "angstrom", 2, "µm"),
        (0.1, "1/nm", 2, "1/nm"),
        (0.01, "1/angstrom", 2, "1/nm"),
        (0.1, "mrad", 2, "mrad"),
        (10 / 3, "", 100, ""),
        (None, None, 20, "pixels"),
    ],
)
def test_scale_bar(step: float | None, units: str, length: float, text: str) -> None:
    data = xr.DataArray(np.zeros((3, 100)), dims=("y", "x"))
    if step is not None:
        data = data.assign_coords(x=("x", step * np.arange(100), {"units": units}))
    (plane,) = planes_of(data, None, None)
    assert plane.right.bar == (pytest.approx(length), f"{length:g} {text}".rstrip())
    assert plane.right.label == (f"x [{text.removesuffix('s')}]" if text else "x")
