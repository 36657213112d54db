"""The step of positions that are rounded, with and without the step that they were made with."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from mrc_xarray.labels.spacing import signed_step, spacing

# as the engine rounds them
POSITIONS = np.round(np.arange(100) * 0.85377549, 6)


@pytest.mark.parametrize(
    ("positions", "stored", "step"),
    [
        (POSITIONS, 0.85377549, 0.85377549),
        (POSITIONS[::3], 0.85377549, 2.56132647),
        (POSITIONS[::-1], 0.85377549, 0.85377549),
        (POSITIONS[:1], 0.85377549, 0.85377549),
        (POSITIONS.reshape(-1, 2).mean(1), 0.85377549, 1.70755098),
        # a stored step that no longer holds
        (np.arange(100) * 0.8546, 0.85377549, 0.8546),
        (np.arange(5) * 13.48, None, 13.48),
        # attributes can be anything
        (np.arange(5) * 1e10, 5e-324, 1e10),
        (np.arange(5), "1", 1.0),
        (POSITIONS[[0, 1, 5]], 0.85377549, None),
    ],
)
def test_step(positions: np.ndarray, stored: object, step: float | None) -> None:
    assert spacing(positions, stored) == step


@pytest.mark.parametrize("dtype", ["u1", "u8", "i2", "f4"])
def test_signed_step(dtype: str) -> None:
    attrs = {"spacing": 2.0}
    positions = xr.DataArray(np.arange(9, 0, -2).astype(dtype), dims="x", attrs=attrs)
    assert signed_step(positions[:0]) == 2
    assert (signed_step(positions), signed_step(positions[::-1])) == (-2, 2)
