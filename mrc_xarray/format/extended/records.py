"""Records of one size, one a section, as FEI's, SerialEM's and Agard's extended headers have."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mrc_xarray.format.errors import Problem
from mrc_xarray.format.header import HEADER_SIZE, Header
from mrc_xarray.format.metadata import Column, Metadata, gather, with_gaps

__all__ = ["Records", "is_blank", "problem", "take"]

# a header that is garbage may promise 2³¹ sections; with fewer records than a 16th of so many,
# columns of missing values are not worth their memory
_MANY_SECTIONS = 2**14
_FEWEST = 16


@dataclass(frozen=True, eq=False, slots=True)
class Records:
    """The records of the sections that were asked for.

    Attributes
    ----------
    table : structured ndarray, shape (n_there,)
        The records that are there.
    there : ndarray of bool, shape (n_sections,)
        Which sections have one.
    n_missing : int
        Sections that have none.
    size : int
        Bytes of all records in the extended header.
    """

    table: np.ndarray[Any, Any]
    there: np.ndarray[Any, Any]
    n_missing: int
    size: int

    def keep(self, whole: np.ndarray[Any, Any]) -> Records:
        """Return these records without the damaged ones.

        Parameters
        ----------
        whole : ndarray of bool, shape (n_there,)
        """
        if whole.all():
            return self
        there = self.there.copy()
        there[self.there] = whole
        n_missing = self.n_missing + int(np.count_nonzero(~whole))
        return Records(self.table[whole], there, n_missing, self.size)

    def gather(self, columns: Iterable[Column], problems: Iterable[Problem] = ()) -> Metadata:
        """Tell columns from single values, by the records that are there.

        Parameters
        ----------
        columns : iterable of Column, of shape (n_there,)
        problems : iterable of Problem

        Returns
        -------
        Metadata
            With columns of shape (n_sections,).
        """
        # without a record there is nothing to tell
        metadata = gather(columns if len(self.table) else (), problems)
        if not self.n_missing:
            return metadata
        missing = problem(
            self.size,
            f"without a record for {self.n_missing} of "
            f"{self.n_missing + len(self.table)} sections",
            "a record for each section",
            "What it would say of them is missing.",
        )
        return dataclasses.replace(
            metadata,
            columns=tuple(
                dataclasses.replace(column, values=self._spread(column.values))
                for column in metadata.columns
            ),
            problems=(*metadata.problems, missing),
        )

    def _spread(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        spread = np.zeros(self.there.shape, values.dtype)
        spread[self.there] = values
        return with_gaps(spread, self.there)


def take(
    header: Header, raw: bytes, dtype: np.dtype[Any], sections: np.ndarray[Any, Any] | None
) -> Records:
    """Find the records of some sections.

    Parameters
    ----------
    header : Header
    raw : bytes
        The extended header, from its beginning on.
    dtype : numpy.dtype
        A record; its itemsize is the distance to the next.
    sections : ndarray of int, or None
        Numbers in the file; None for all NZ.

    Returns
    -------
    Records
    """
    records = np.frombuffer(raw, dtype, count=len(raw) // dtype.itemsize)
    if sections is None:
        n_sections = max(header.nz, 0)
        if n_sections > max(_MANY_SECTIONS, _FEWEST * len(records)):
            return Records(records[:0], np.zeros(0, np.bool_), n_sections, len(raw))
        table = records[:n_sections]
        there = np.arange(n_sections) < len(records)
    else:
        sections = np.asarray(sections, np.int64)
        there = (sections >= 0) & (sections < len(records))
        table = records[sections[there]]
    return Records(table, there, len(there) - len(table), len(raw))


def is_blank(raw: bytes) -> bool:
    """Tell whether the extended header was reserved and never written, which is normal."""
    return raw.count(0) == len(raw)


def problem(size: int, found: str, accepted: str, action: str) -> Problem:
    """Return what is wrong with an extended header of `size` bytes."""
    return Problem(
        "extended-header", "extended header", HEADER_SIZE, size, found, accepted, action
    )
