"""Selections along dimensions, and the numbers of the sections, rows or pixels that they take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
#: A selection along a dimension: a slice with start, stop and positive step, or sorted indices.
Pick: TypeAlias = "slice | npt.NDArray[np.intp]"
#: Numbers in the file of the selected sections, rows or pixels: sorted, or a range of step 1.
Numbers: TypeAlias = "range | npt.NDArray[np.intp]"


def as_pick(key: Any, n: int) -> Pick:
    """Return one element of an indexing key as a selection from a dimension of length `n`."""
    if isinstance(key, slice):
        return slice(*key.indices(n))
    if isinstance(key, int | np.integer):
        if not 0 <= key < n:
            raise IndexError(f"index {key} is out of bounds for a dimension of size {n}")
        return slice(int(key), int(key) + 1, 1)
    array: npt.NDArray[np.intp] = np.asarray(key, np.intp)
    if array.size and not 0 <= array.min() <= array.max() < n:
        raise IndexError(f"index {array.max()} is out of bounds for a dimension of size {n}")
    return array


def length(pick: Pick, n: int) -> int:
    """Return how many elements a selection takes from a dimension of length `n`."""
    return len(range(*pick.indices(n))) if isinstance(pick, slice) else len(pick)


def indices(pick: Pick, n: int) -> npt.NDArray[np.intp]:
    """Return the indices that a selection takes from a dimension of length `n`."""
    return np.arange(*pick.indices(n)) if isinstance(pick, slice) else pick


def is_complete(pick: Pick, n: int) -> bool:
    """Return whether a selection takes a complete dimension of length `n`."""
    return isinstance(pick, slice) and pick == slice(0, n, 1)


def is_contiguous(picks: Sequence[Pick], shape: Sequence[int]) -> bool:
    """Return whether the selected elements of a C-contiguous array follow each other."""
    is_inside = False
    for pick, n in zip(picks, shape, strict=True):
        if is_inside and not is_complete(pick, n):
            return False
        n_picked = length(pick, n)
        if not isinstance(pick, slice) or (pick.step != 1 and n_picked > 1):
            return False
        is_inside = is_inside or n_picked > 1
    return True


def select(array: Array, picks: Sequence[Pick]) -> Array:
    """Index orthogonally: a view for slices, otherwise a copy of only the selected elements."""
    slices = tuple(pick if isinstance(pick, slice) else slice(None) for pick in picks)
    sliced: Array = array[slices]
    arrays = {axis: pick for axis, pick in enumerate(picks) if not isinstance(pick, slice)}
    if not arrays:
        return sliced
    if len(arrays) == 1:
        [(axis, pick)] = arrays.items()
        # `take` would copy all of an array that is not contiguous
        return sliced[(slice(None),) * axis + (pick,)]
    along = [arrays.get(axis, np.arange(n)) for axis, n in enumerate(sliced.shape)]
    gathered: Array = sliced[np.ix_(*along)]
    return gathered


def numbers_within(outer: Numbers, pick: Pick, n: int) -> Numbers:
    """Return numbers within numbered units of length `n`, such as rows within sections."""
    if not isinstance(outer, range):
        return np.add.outer(outer * n, indices(pick, n)).reshape(-1)
    if is_complete(pick, n):
        return range(outer.start * n, outer.stop * n)
    if len(outer) == 1 and isinstance(pick, slice) and pick.step == 1:
        return range(outer.start * n + pick.start, outer.start * n + pick.stop)
    return numbers_within(np.arange(outer.start, outer.stop), pick, n)


def numbers_at(numbers: Numbers, positions: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return the numbers at some positions."""
    return numbers.start + positions if isinstance(numbers, range) else numbers[positions]


def spans(numbers: Numbers, gap: int, longest: int) -> npt.NDArray[np.intp]:
    """Cut numbers into spans with gaps up to `gap` that cover at most `longest` numbers each.

    Returns where in `numbers` each span starts, followed by the length of `numbers`.
    """
    n = len(numbers)
    if isinstance(numbers, range):
        return np.append(np.arange(0, n, longest), n)
    is_apart = np.diff(numbers) > gap + 1
    starts = np.append(0, np.flatnonzero(is_apart) + 1)
    first = np.repeat(numbers[starts], np.diff(starts, append=n))
    is_edge = is_apart | (np.diff((numbers - first) // longest) != 0)
    return np.concatenate([[0], np.flatnonzero(is_edge) + 1, [n]])
