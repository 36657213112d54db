"""Statistics in the header, compared with those that mrcfile writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import mrcfile
import numpy as np
import pytest
import xarray as xr
from writes import ORDERS, UNDETERMINED, fields, statistics

from mrc_xarray import create, to_mrc, validate
from mrc_xarray.pixels.statistics import Statistics

NAMES = ("dmin", "dmax", "dmean", "rms")
PARTS = np.random.default_rng(2).normal(3, 20, (2, 6, 12, 10))
COMPLEX = (PARTS[0] + 1j * PARTS[1]).astype("c8")
INTEGERS = np.rint(COMPLEX.view("f4")).view("c8")


def by_mrcfile(path: Path, pixels: Any) -> tuple[float, ...]:
    with mrcfile.new(path, pixels) as mrc:
        return tuple(float(mrc.header[name]) for name in NAMES)


@pytest.mark.parametrize(
    ("pixels", "name", "options"),
    [
        (COMPLEX, "plain.mrc", {}),
        (da.from_array(COMPLEX, (2, 5, 10)), "dask.mrc", {"byteorder": "big"}),
        (COMPLEX, "blocks.mrcz", {}),
        # mrcfile has no MODE 3, which stores these values as integers
        (INTEGERS, "integers.mrc", {"mode": 3}),
        (INTEGERS, "integers.mrcz", {"mode": 3, "byteorder": "big"}),
    ],
    ids=str,
)
def test_complex_pixels_have_the_rms_of_mrcfile(
    tmp_path: Path, pixels: Any, name: str, options: dict[str, Any]
) -> None:
    path = tmp_path / name
    to_mrc(pixels, path, **options)
    expected = by_mrcfile(tmp_path / "there.mrc", np.asarray(pixels))
    order = ORDERS[options.get("byteorder", "little")]
    assert fields(path, *NAMES, byteorder=order) == pytest.approx(expected, rel=1e-5)
    assert expected[:3] == UNDETERMINED[:3]
    assert validate(path) == validate(tmp_path / "there.mrc") == []


def test_complex_pixels_that_are_not_finite_are_left_out() -> None:
    pixels = COMPLEX.ravel().copy()
    pixels[5], pixels[7] = complex(0, np.nan), complex(np.inf, 0)
    finite = np.delete(pixels, [5, 7]).astype("c16")
    found = Statistics.of(pixels[:9]).joined(Statistics.of(pixels[9:]))
    assert found.mean == pytest.approx(finite.mean())
    assert found.fields()["rms"] == pytest.approx(finite.std())
    assert found.n_not_finite == 2


def test_quick_and_equal_complex_pixels(tmp_path: Path) -> None:
    path = tmp_path / "quick.mrc"
    to_mrc(xr.DataArray(COMPLEX, dims=("image", "y", "x")), path, statistics="quick")
    assert statistics(path)[3] == pytest.approx(COMPLEX[0].std(), rel=1e-5)
    create(path, (2, 3, 4), "complex64", fill=2 + 1j, overwrite=True)
    assert statistics(path) == (0, -1, -2, 0)
