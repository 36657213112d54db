"""Records of one size, one a section, as FEI's, SerialEM's and Agard's extended headers have."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mrc_xarray.errors import Problem
from mrc_xarray.metadata.columns import Column, Metadata, gather, with_gaps
from mrc_xarray.metadata.limits import are_worthwhile
from mrc_xarray.mrc.header import HEADER_SIZE, Header

__all__ = ["Records", "is_blank", "is_for_all", "is_tilt_series", "problem", "take"]

# degrees: the largest tilt of a stage, the largest difference between two views of one tilt, and
# the smallest step of a series
_STEEPEST, _SAME_TILT, _LEAST_STEP = 90.0, 0.25, 0.5
# largest ratio of a step to the usual one: Saxton's scheme varies them, and views may be missing
_STEPS_DIFFER = 2.5
# most views of one tilt
_MOST_REPEATS = 5


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
    n_sections = max(header.nz, 0) if sections is None else len(sections)
    if not are_worthwhile(len(records), n_sections):
        return Records(records[:0], np.zeros(0, np.bool_), n_sections, len(raw))
    if sections is None:
        table = records[:n_sections]
        there = np.zeros(n_sections, np.bool_)
        there[: len(table)] = True
    else:
        sections = np.asarray(sections, np.int64)
        there = (sections >= 0) & (sections < len(records))
        table = records[sections[there]]
    return Records(table, there, len(there) - len(table), len(raw))


def is_blank(raw: bytes) -> bool:
    """Tell whether the extended header was reserved and never written, which is normal."""
    return raw.count(0) == len(raw)


def is_for_all(header: Header, size: int) -> bool:
    """Return whether NSYMBT bytes hold a record of `size` bytes for each section."""
    return 0 < size * header.nz <= header.nsymbt


def is_tilt_series(angles: np.ndarray[Any, Any]) -> bool:
    """Return whether numbers are the tilt angles of a series, and not pixels.

    When the angles of a series are sorted, their steps are of nearly the same size.

    Parameters
    ----------
    angles : ndarray of float, shape (n_sections,)
        In degrees.

    Returns
    -------
    bool
    """
    if not (np.abs(angles) <= _STEEPEST).all():
        return False
    steps = np.diff(np.sort(angles))
    steps = steps[steps > _SAME_TILT]
    if len(steps) < max(2, len(angles) / _MOST_REPEATS - 1):
        return False
    usual = np.median(steps)
    is_regular = steps.max() <= _STEPS_DIFFER * usual and usual <= _STEPS_DIFFER * steps.min()
    return bool(usual >= _LEAST_STEP and is_regular)


def problem(size: int, found: str, accepted: str, action: str) -> Problem:
    """Return what is wrong with an extended header of `size` bytes."""
    return Problem(
        "extended-header",
        "extended header",
        found,
        accepted,
        action,
        offset=HEADER_SIZE,
        nbytes=size,
    )
