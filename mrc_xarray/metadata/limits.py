"""The longest dimensions that have coordinates.

A header of 1024 bytes can promise 2³¹ rows, columns and sections. Sections can be trusted if the
file is long enough to contain them. All other dimensions share one limit of memory.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from mrc_xarray.errors import Problem

__all__ = ["MOST_POSITIONS", "is_worth_a_column", "too_long", "without_coordinate"]

#: A longer dimension has no coordinates.
MOST_POSITIONS = 2**24
# rows, columns, and everything that a stream of unknown size promises, together: 16 MiB, and as
# much again because pandas copies the positions that it indexes
_MOST_PROMISED = 2**21
# a longer column needs a value for at least one section in 16
_LONGEST_SPARSE_COLUMN = 2**14
_SECTIONS_PER_VALUE = 16


def is_worth_a_column(n_values: int, n_sections: int) -> bool:
    """Return whether a column of `n_values` for `n_sections` is worth its memory."""
    longest = max(_LONGEST_SPARSE_COLUMN, _SECTIONS_PER_VALUE * n_values)
    return n_sections <= min(MOST_POSITIONS, longest)


def too_long(sizes: Mapping[str, int], in_file: Collection[str]) -> frozenset[str]:
    """Return the dimensions that are too long for a coordinate.

    The file is known to be long enough for those `in_file`.
    """
    long = set()
    left = _MOST_PROMISED
    for dim, size in sorted(sizes.items(), key=lambda item: item[1]):
        if size > (MOST_POSITIONS if dim in in_file else left):
            long.add(dim)
        elif dim not in in_file:
            left -= size
    return frozenset(long)


def without_coordinate(sizes: Mapping[str, int], dims: Iterable[str]) -> Problem:
    """Return the note that `dims` are too long to have coordinates."""
    dims = sorted(dims)
    listed = ", ".join(f"{sizes[dim]} along {dim}" for dim in dims)
    return Problem(
        "long-dimension",
        "NX, NY, NZ",
        listed,
        f"for coordinates, up to {MOST_POSITIONS} sections, and up to {_MOST_PROMISED} rows, "
        "columns and sections of a stream together",
        f"{', '.join(dims)} {'has' if len(dims) == 1 else 'have'} no coordinates; "
        "select with isel.",
        offset=0,
        nbytes=12,
    )
