"""Selections of every kind, for comparing lazy data with eager data."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

# one index per dimension; further dimensions are complete
TRANSFORMS: dict[str, tuple[Any, ...]] = {
    "all": (slice(None),),
    "scalar": (2, slice(None)),
    "scalar from the end": (-1, slice(None)),
    "scalar row": (slice(None), 1, slice(None)),
    "scalars on all": (0, 1, 2, 0, 0),
    "scalars on two": (1, slice(None), 4),
    "numpy scalar": (np.int16(1), slice(None), np.uint8(3)),
    "window": (slice(1, 2), slice(1, 3), slice(2, 6)),
    "from the end": (slice(-2, None), slice(-3, -1), slice(None, -1)),
    "strided": (slice(None, None, 2), slice(1, None, 2), slice(0, 8, 3)),
    "reversed": (slice(None, None, -1),),
    "reversed and strided": (slice(None), slice(4, 0, -2), slice(None, None, -3)),
    "empty slice": (slice(1, 1), slice(None)),
    "empty columns": (slice(None), slice(None), slice(0, 0)),
    "empty list": ([], slice(None)),
    "list": (slice(None), [0, 2], slice(None)),
    "list of one": ([0], [1], [2], [0]),
    "list with duplicates": (slice(None), [1, 1, 3, 3, 3], slice(None)),
    "unsorted list": (slice(None), [3, 0, 4, 1], [7, 0, 7]),
    "list of sections": ([0, -1, 0], slice(None)),
    "orthogonal": ([0, 1], [4, 0, 2], [8, 1, 1, 2], [0]),
    "list and scalar": ([-1, 0], 1, [2, 0]),
    "list and stride": (slice(None, None, 2), [0, 4], slice(None, None, -2)),
    "array": (slice(None), np.array([2, 4], np.uint8), np.array([0, 8])),
    "boolean": (slice(None), np.array([True, False, True, True, False]), slice(None)),
    "boolean, none": (slice(None), np.zeros(5, bool), slice(None)),
}
VECTORISED = {
    "diagonal": {"z": ("p", [0, 3, 5]), "y": ("p", [0, 1, 4]), "x": ("p", [8, 0, 2])},
    "two of three": {"y": ("p", [4, 0]), "x": ("p", [1, -1])},
    "two dimensions": {"z": (("p", "q"), [[0, 1], [5, 5]])},
    "outer over new dimensions": {"z": ("p", [5, 0]), "y": ("q", [1, 1])},
    "with a slice": {"z": ("p", [3, 3, 1]), "x": ("p", [0, 1, 2]), "y": slice(None, None, -2)},
    "with a scalar": {"z": 2, "y": ("p", [0, 4]), "x": ("p", [0, 8])},
    "empty": {"z": ("p", np.zeros(0, int)), "y": ("p", np.zeros(0, int))},
}


def is_possible(key: slice, n: int) -> bool:
    """Exclude empty reversed slices, which fail in xarray's adapter for every engine."""
    along = range(*key.indices(n))
    return bool(along) or along.step > 0


def indices(n: int) -> st.SearchStrategy[Any]:
    number = st.integers(-n, n - 1)
    bound = st.none() | st.integers(-n - 2, n + 2)
    step = st.none() | st.integers(-n - 1, n + 1).filter(bool)
    return (
        number
        | st.builds(slice, bound, bound, step).filter(lambda key: is_possible(key, n))
        | st.lists(number, max_size=2 * n)
        | st.lists(st.booleans(), min_size=n, max_size=n).map(lambda mask: np.array(mask, bool))
    )
