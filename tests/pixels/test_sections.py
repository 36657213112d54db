"""From section numbers to byte ranges: as few as possible, and none too long."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrc_xarray.pixels.modes import MODES
from mrc_xarray.pixels.sections import Sections, runs
from mrc_xarray.storage.base import Access

OFFSET, N, NBYTES = 1024, 40, 6
FILE = np.random.default_rng(0).integers(0, 256, OFFSET + N * NBYTES, np.uint8)


def batches(numbers: Any, *, gap: int = 0, piece: int = 600, batch: int = 600) -> list[Any]:
    access = Access(gap=gap * NBYTES, skip=0, piece=piece * NBYTES, batch=batch * NBYTES)
    sections = Sections(OFFSET, (N, 1, 3), MODES[6], "<")
    assert sections.section_bytes == NBYTES
    return list(sections.batches(numbers, access))


@pytest.mark.parametrize(
    ("numbers", "options", "ranges"),
    [
        (range(40), {}, [[(0, 40)]]),
        (range(5, 15), {"piece": 4}, [[(5, 4), (9, 4), (13, 2)]]),
        (range(5, 15), {"piece": 4, "batch": 8}, [[(5, 4), (9, 4)], [(13, 2)]]),
        ([3, 4, 7, 9], {}, [[(3, 2), (7, 1), (9, 1)]]),
        ([3, 4, 7, 9], {"gap": 1}, [[(3, 2), (7, 3)]]),
        ([3, 4, 7, 9], {"gap": 2, "piece": 6}, [[(3, 5), (9, 1)]]),
        ([3, 3, 4, 9, 9], {}, [[(3, 2), (9, 1)]]),
        ([0, 39], {"batch": 1}, [[(0, 1)], [(39, 1)]]),
    ],
)
def test_ranges(numbers: Any, options: dict[str, int], ranges: Any) -> None:
    numbers = numbers if isinstance(numbers, range) else np.array(numbers)
    found = [
        [((offset - OFFSET) // NBYTES, nbytes // NBYTES) for offset, nbytes in batch.ranges]
        for batch in batches(numbers, **options)
    ]
    assert found == ranges


@settings(deadline=None, max_examples=100)
@given(
    numbers=st.lists(st.integers(0, N - 1), min_size=1, max_size=60).map(sorted),
    gap=st.integers(0, 4),
    piece=st.integers(1, 9),
    batch=st.integers(1, 20),
)
def test_each_number_is_read_once_and_found(
    numbers: list[int], gap: int, piece: int, batch: int
) -> None:
    chosen = np.array(numbers)
    seen: list[int] = []
    for found in batches(chosen, gap=gap, piece=piece, batch=batch):
        assert all(nbytes <= piece * NBYTES for _, nbytes in found.ranges)
        assert found.nbytes <= batch * NBYTES or len(found.ranges) == 1
        raw = np.empty(found.nbytes, np.uint8)
        for offset, buffer in found.requests(raw):
            buffer[:] = FILE[offset : offset + len(buffer)].data
        pixels = raw.view("<u2").reshape(found.n_sections, 1, 3)[found.picked]
        expected = FILE[OFFSET:].view("<u2").reshape(N, 1, 3)[chosen[found.at]]
        np.testing.assert_array_equal(pixels, expected)
        assert found.is_complete == (len(pixels) == found.n_sections == len(set(chosen[found.at])))
        seen += chosen[found.at].tolist()
    assert seen == numbers


@pytest.mark.parametrize(
    ("start", "shape", "n_runs"),
    [((1, 0, 0), (2, 3, 8), 1), ((1, 1, 0), (2, 2, 8), 2), ((0, 1, 2), (3, 2, 4), 6)],
)
def test_runs(start: tuple[int, ...], shape: tuple[int, ...], n_runs: int) -> None:
    block = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    complete = np.zeros((4, 3, 8), np.uint8)
    expected = complete.copy()
    expected[tuple(slice(at, at + n) for at, n in zip(start, shape, strict=True))] = block
    found = list(runs(block, complete.shape, start))
    for offset, run in found:
        complete.reshape(-1)[offset : offset + len(run)] = run
    np.testing.assert_array_equal(complete, expected)
    assert len(found) == n_runs
