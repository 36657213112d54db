"""The voxel size is the decimal number that CELLA was made from."""

from __future__ import annotations

import by_hand
import numpy as np
import pytest

from mrc_xarray.mrc.header import Header
from mrc_xarray.mrc.voxel import shortest, voxel_size


def test_sizes_of_two_to_four_decimals() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5000):
        n, decimals = int(rng.integers(1, 8193)), int(rng.integers(2, 5))
        voxel = round(float(rng.uniform(0.1, 60)), decimals)
        cella = tuple(np.float32([voxel * n] * 3).tolist())
        assert shortest(cella[0], n) == voxel
    raw = by_hand.header((1, 1, 1), 2, byteorder=">", mx=n, my=n, mz=n, cella=cella)
    assert [voxel_size(Header.parse(raw, ">"), axis) for axis in "xyz"] == [voxel] * 3


@pytest.mark.parametrize(
    ("cella", "n", "voxel"),
    [
        (1, 3, 0.33333333),
        (4, 3, 1.3333333),
        (2**20, 2**20, 1),
        (1000, 1, 1000),
        (0.5, 7, 0.07142857),
        (-float(np.float32(3.3)), 1, -3.3),
        (0.0, 1, 0),
    ],
)
def test_other_sizes(cella: float, n: int, voxel: float) -> None:
    assert shortest(cella, n) == voxel


def test_a_number_of_the_grid_and_a_decimal() -> None:
    # at 5,392 Å, a float32 has no digits after the third decimal
    value = float(np.float32(123.4 + 5000 * 1.0537))
    assert shortest(value, offset=5000 * 1.0537) == 123.4
