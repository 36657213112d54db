"""Half the resolution: values by hand."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from dask.array.chunk import coarsen

from mrc_xarray.bridges.halving import METHODS

NAN = np.nan


def halved(pixels: Any, *, axes: tuple[int, ...], method: str) -> Any:
    """Return what a task of dask returns."""
    return coarsen(METHODS[method], pixels, dict.fromkeys(axes, 2), trim_excess=True)


def mean(pixels: Any, dtype: str, axes: tuple[int, ...] = (0,)) -> Any:
    return halved(np.array(pixels, dtype), axes=axes, method="mean").tolist()


@pytest.mark.parametrize(
    ("dtype", "pixels", "expected"),
    [
        # halves are rounded up, and below zero, too
        ("i1", [127, 127, 1, 2, -1, -2, -128, -128], [127, 2, -1, -128]),
        ("u1", [255, 254, 0, 1], [255, 1]),
        ("i2", [-(2**15), 2**15 - 1], [0]),
        ("u2", [2**16 - 1, 2**16 - 1], [2**16 - 1]),
        ("i4", [2**31 - 1, 2**31 - 1], [2**31 - 1]),
        ("u4", [2**32 - 1, 2**32 - 2], [2**32 - 1]),
        # exact beyond 53 bits
        ("i8", [2**60 + 1, 2**60 + 3], [2**60 + 2]),
        ("bool", [True, False, False, False], [True, False]),
        # the sum is greater than any float16
        ("f2", [65504, 65504, 0.5, 1], [65504, 0.75]),
        ("f4", [0.5, 1, -1, 1], [0.75, 0]),
        ("f8", [1e300, 1e300], [1e300]),
        ("c8", [1 + 1j, 3], [2 + 0.5j]),
        # the last one of an odd size is left out
        ("f4", [1, 3, 5], [2]),
    ],
)
def test_mean(dtype: str, pixels: list[Any], expected: list[Any]) -> None:
    found = halved(np.array(pixels, dtype), axes=(0,), method="mean")
    assert found.dtype == dtype
    assert found.tolist() == expected
    # from another byte order
    assert mean(pixels, np.dtype(dtype).newbyteorder().str) == expected


def test_mean_leaves_out_nan() -> None:
    found = mean([1, NAN, NAN, NAN, 2, 4, np.inf, NAN, np.inf, -np.inf], "f4")
    np.testing.assert_array_equal(found, [1, NAN, 3, np.inf, NAN])
    (found,) = mean([complex(NAN, 1), 3 + 1j], "c8")
    assert found == 3 + 1j


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2), (2,)])
def test_axes(axes: tuple[int, ...]) -> None:
    pixels = np.arange(5 * 6 * 7, dtype="f8").reshape(5, 6, 7)
    starts = [range(0, n - 1, 2) if i in axes else range(n) for i, n in enumerate(pixels.shape)]
    a, b, c = (2 if i in axes else 1 for i in range(3))
    expected = [
        [[pixels[z : z + a, y : y + b, x : x + c].mean() for x in starts[2]] for y in starts[1]]
        for z in starts[0]
    ]
    np.testing.assert_allclose(halved(pixels, axes=axes, method="mean"), expected)


def test_mode() -> None:
    labels = np.random.default_rng(0).integers(0, 4, (6, 5, 4)).astype("u1")
    found = halved(labels, axes=(0, 1, 2), method="mode")
    for z, y, x in np.ndindex(found.shape):
        block = labels[2 * z : 2 * z + 2, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
        counts = Counter(block.ravel().tolist())
        # of several, the least
        assert found[z, y, x] == max(sorted(counts), key=lambda label: counts[label])
    assert found.dtype == "u1"


def test_mode_of_nan() -> None:
    found = halved(np.array([NAN, 5, NAN, NAN], "f4"), axes=(0,), method="mode")
    np.testing.assert_array_equal(found, [5, NAN])
