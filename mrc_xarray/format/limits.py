"""What a header may claim: how long a dimension can be and still have a coordinate.

A header of 1024 bytes can promise 2³¹ rows, columns and sections. Sections are there where the
file is as long; in all other cases memory is limited as a whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from mrc_xarray.format.errors import Problem

__all__ = ["MOST_POSITIONS", "are_worthwhile", "too_long", "without_coordinate"]

#: A longer dimension has no coordinates.
MOST_POSITIONS = 2**24
# in all, of rows, of columns, and of all that a stream of unknown size promises: 16 MiB, and 16
# more, as pandas copies the positions that it indexes
_MOST_PROMISED = 2**21
# columns of more sections than this, nearly all without a value, are not worth their memory
_MANY_SECTIONS = 2**14
_FEWEST = 16


def are_worthwhile(n_there: int, n_sections: int) -> bool:
    """Return whether columns with `n_there` values for `n_sections` are worth their memory."""
    return n_sections <= min(MOST_POSITIONS, max(_MANY_SECTIONS, _FEWEST * n_there))


def too_long(sizes: Mapping[str, int], in_file: Collection[str]) -> frozenset[str]:
    """Return the dimensions that are too long for a coordinate.

    Parameters
    ----------
    sizes : mapping of str to int
        The dimensions that would have one.
    in_file : collection of str
        Dimensions that the file is known to be long enough for.
    """
    long = set()
    room = _MOST_PROMISED
    for dim, size in sorted(sizes.items(), key=lambda item: item[1]):
        if size > (MOST_POSITIONS if dim in in_file else room):
            long.add(dim)
        elif dim not in in_file:
            room -= size
    return frozenset(long)


def without_coordinate(sizes: Mapping[str, int], dims: Iterable[str]) -> Problem:
    """Return the note that dimensions are too long for the coordinates that they would have."""
    dims = sorted(dims)
    listed = ", ".join(f"{sizes[dim]} along {dim}" for dim in dims)
    return Problem(
        "long-dimension",
        "NX, NY, NZ",
        0,
        12,
        listed,
        f"for coordinates, up to {MOST_POSITIONS} sections, and {_MOST_PROMISED} in all of rows, "
        "columns and sections of a stream",
        f"{', '.join(dims)} {'has' if len(dims) == 1 else 'have'} no coordinates; isel selects.",
    )
