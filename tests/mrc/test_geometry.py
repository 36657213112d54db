"""Which field gives the position of the first voxel, for each choice of `origin=`."""

from __future__ import annotations

from typing import Any

import by_hand
import pytest

from mrc_xarray.mrc.geometry import geometry_of
from mrc_xarray.mrc.header import Header

BOTH = {"nxstart": 2, "origin": (7, 0, -1.5)}
IMOD = {"imod_stamp": by_hand.IMOD_STAMP}


@pytest.mark.parametrize(
    ("fields", "choice", "start"),
    [
        (BOTH, "auto", (7, 0, -1.5)),
        (BOTH, "origin", (7, 0, -1.5)),
        (BOTH, "nstart", (2, 0, 0)),
        (BOTH, "zero", (0, 0, 0)),
        ({"nxstart": 2}, "auto", (2, 0, 0)),
        ({"nxstart": 2}, "origin", (0, 0, 0)),
        (BOTH | IMOD, "auto", (-7, 0, 1.5)),
        ({"origin": (1e30, 0, 0), "nxstart": 2}, "auto", (2, 0, 0)),
        ({"nxstart": 2**30}, "auto", (0, 0, 0)),
    ],
)
def test_start(fields: dict[str, Any], choice: str, start: tuple[float, float, float]) -> None:
    header = Header.parse(by_hand.header((5, 6, 7), 2, **fields), "<")
    found = geometry_of(header, "xyz", choice)
    assert found.start == dict(zip("xyz", start, strict=True))
