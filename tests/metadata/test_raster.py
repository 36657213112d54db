"""The frames of a raster, compared with a beam that visits the positions one by one."""

from __future__ import annotations

import re
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sidecars_by_hand import only

from mrc_xarray.metadata.raster import Gaps


def visited(sizes: tuple[int, ...], line: int, offset: int, flyback: int) -> list[int | None]:
    """Return the position of each frame that a camera records, and None where it has none."""
    positions = range(max(-offset, 0), prod(sizes))
    recorded: list[int | None] = [None] * max(offset, 0)
    for position in positions:
        recorded.append(position)
        if (position + 1) % line == 0:
            recorded += [None] * flyback
    return recorded


@settings(max_examples=60)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.integers(-6, 4),
    st.integers(0, 3),
    st.integers(1, 60),
)
def test_as_the_beam_goes(sizes: list[int], offset: int, flyback: int, n_frames: int) -> None:
    gaps, line = Gaps(offset=offset, flyback=flyback), sizes[-1]
    recorded = visited(tuple(sizes), line, offset, flyback)
    expected = np.full(prod(sizes), -1)
    for frame, position in enumerate(recorded[:n_frames]):
        if position is not None:
            expected[position] = frame
    found, problems = gaps.place(sizes, line, n_frames)
    if (expected == -1).all():
        assert found is None
        assert "scan_offset is" in only(problems)
        return
    assert found is not None
    np.testing.assert_array_equal(found.reshape(-1), expected)
    assert found.shape == tuple(sizes)
    n_needed = len(recorded) - flyback
    fits = n_needed <= n_frames <= len(recorded)
    assert gaps.fits(sizes, line, n_frames) == fits == (problems == [])


@pytest.mark.parametrize(
    ("gaps", "n_frames", "message"),
    [
        (Gaps(offset=1), 11, "the number of frames is 11; accepted: 13 for 3 × 4 positions with"),
        (Gaps(offset=1), 11, r"The last positions \(2\) have no frame, and frame_index is −1"),
        (Gaps(flyback=2), 20, r"is 20; accepted: 16 .* The last frames \(2\) are left out"),
    ],
)
def test_problems(gaps: Gaps, n_frames: int, message: str) -> None:
    _, problems = gaps.place((3, 4), 4, n_frames)
    assert re.search(message, only(problems))


def test_scan_that_is_too_large_takes_no_memory() -> None:
    found, problems = Gaps(offset=1).place((2**30, 2**30), 2**30, 14)
    assert found is None
    assert (
        "size of the scan is 1073741824 × 1073741824; accepted: up to 4194304 positions of 14"
        in only(problems)
    )
    assert Gaps(flyback=2**31 - 1).fits((2**26, 2**26), 2**26, 3) is False
