"""The properties of microscope and camera: of optics groups, or repeated in each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mrc_xarray.errors import MrcError
from mrc_xarray.relion.labels import OF_OPTICS
from mrc_xarray.relion.star import Block

__all__ = ["merged", "pixel_sizes"]

Array = np.ndarray[Any, Any]

_SINGLE = np.finfo(np.float32)
_GROUP = "rlnOpticsGroup"
_BINNING = "rlnTomoTomogramBinning"


def merged(
    table: str, block: Block, blocks: Sequence[Block]
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the columns of a table with those of its optics groups, and the values of optics.

    A property of optics that is equal in all rows is one value.

    Raises MrcError if there is no group of a number, or several.
    """
    columns, values = {}, {}
    for label, column in block.columns.items():
        if label in OF_OPTICS and _is_one(column):
            values[label] = column[0]
        else:
            columns[label] = column
    optics = next((other for other in blocks if other.name == "optics"), None)
    if optics is None or not optics.n_rows:
        return columns, values
    group = _groups(table, block, optics)
    used = np.unique(group)
    for label, column in optics.columns.items():
        if label == _GROUP or label in block.columns:
            continue
        if _is_one(column[used]):
            values[label] = column[used[0]]
        else:
            columns[label] = column[group]
    return columns, values


def _is_one(values: Array) -> bool:
    """Return whether all values are equal; a missing value does not equal itself."""
    return bool((values == values[:1]).all())


def _groups(table: str, block: Block, optics: Block) -> Array:
    """Return the row of the optics group of each row."""
    found = block.columns.get(_GROUP)
    if found is None and optics.n_rows == 1:
        return np.zeros(block.n_rows, np.intp)
    if found is None or _GROUP not in optics.columns:
        where = f"data_{(block if found is None else optics).name}"
        raise MrcError(f"{table}: {where} has no {_GROUP}; accepted: one in data_optics and here")
    numbers, order = np.unique(optics.columns[_GROUP], return_index=True)
    if len(numbers) < optics.n_rows:
        raise MrcError(f"{table}: data_optics has two rows of one {_GROUP}; accepted: one")
    at = np.minimum(np.searchsorted(numbers, found), len(numbers) - 1)
    if len(wrong := np.flatnonzero(numbers[at] != found)):
        row, listed = int(wrong[0]), ", ".join(f"{number:g}" for number in numbers[:10])
        raise MrcError(
            f"{table}, row {row + 1}: {_GROUP} is {found[row]:g}; accepted: those in data_optics, "
            f"{listed}"
        )
    return order[at]


def pixel_sizes(
    columns: Mapping[str, Any], labels: Sequence[str], *, is_binned: bool = False
) -> Array | float | None:
    """Return the pixel size in Å, of each row if they differ; None if it is unknown.

    `columns` are values and columns. Of the `labels`, the first one that is there counts. Before
    RELION 3.1, it is the size of a pixel of the detector, divided by the magnification. That of
    a tomogram `is_binned`.
    """
    sizes = _pixel_sizes(columns, labels)
    if sizes is not None and is_binned and _BINNING in columns:
        sizes = np.asarray(sizes * columns[_BINNING])
    if sizes is None or sizes.dtype.kind not in "if":
        return None
    # what a header can hold, too
    if not ((sizes >= _SINGLE.tiny) & (sizes <= _SINGLE.max)).all():
        return None
    return float(sizes.flat[0]) if _is_one(sizes.reshape(-1)) else sizes


def _pixel_sizes(columns: Mapping[str, Any], labels: Sequence[str]) -> Array | None:
    for label in labels:
        if label in columns:
            return np.asarray(columns[label])
    detector, magnification = map(columns.get, ("rlnDetectorPixelSize", "rlnMagnification"))
    if detector is None or magnification is None:
        return None
    with np.errstate(all="ignore"):
        # µm
        return np.asarray(np.multiply(detector, 1e4) / magnification)
