"""The longest dimensions that have coordinates.

A header of 1024 bytes can promise 2³¹ rows, columns and sections. Sections can be trusted if the
file is long enough to contain them. All other dimensions share one limit of memory.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from mrc_xarray.errors import Problem

__all__ = [
    "MOST_POSITIONS",
    "MOST_PROMISED",
    "is_worth_a_column",
    "too_long",
]

#: A longer dimension has no coordinates.
MOST_POSITIONS = 2**24
#: Rows, columns, and everything that a stream of unknown size promises, together: 16 MiB, and
#: as much again because pandas copies the positions that it indexes.
MOST_PROMISED = 2**21
# a longer column needs a value for at least one section in 16
_LONGEST_SPARSE_COLUMN = 2**14
_SECTIONS_PER_VALUE = 16


def is_worth_a_column(n_values: int, n_sections: int) -> bool:
    """Return whether a column of `n_values` for `n_sections` is worth its memory."""
    longest = max(_LONGEST_SPARSE_COLUMN, _SECTIONS_PER_VALUE * n_values)
    return n_sections <= min(MOST_POSITIONS, longest)


def too_long(
    sizes: Mapping[str, int], in_file: Collection[str], **place: Any
) -> tuple[frozenset[str], list[Problem]]:
    """Return the dimensions that are too long for a coordinate, and a note if there are any.

    The file is known to be long enough for those `in_file`. `place` says where the file has the
    sizes, as fields of a `Problem`.
    """
    long = set()
    left = MOST_PROMISED
    for dim, size in sorted(sizes.items(), key=lambda item: item[1]):
        if size > (MOST_POSITIONS if dim in in_file else left):
            long.add(dim)
        elif dim not in in_file:
            left -= size
    dims = sorted(long)
    note = Problem(
        code="long-dimension",
        found=", ".join(f"{sizes[dim]} along {dim}" for dim in dims),
        accepted=f"for coordinates, up to {MOST_POSITIONS} sections, and up to {MOST_PROMISED} "
        "rows, columns and sections of a stream together",
        action=f"{', '.join(dims)} {'has' if len(dims) == 1 else 'have'} no coordinates; "
        "select with isel.",
        **place,
    )
    return frozenset(dims), [note] if dims else []
