"""Records of equal size, one per section: the extended headers of FEI, SerialEM and Agard."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mrc_xarray.errors import Problem
from mrc_xarray.metadata.columns import Column, Metadata, with_gaps
from mrc_xarray.metadata.limits import is_worth_a_column
from mrc_xarray.mrc.extended.kind import Sections, problem
from mrc_xarray.mrc.header import Header

__all__ = ["Records", "is_blank", "is_for_all", "is_tilt_series", "take"]

# degrees: the largest tilt of a stage, the largest difference between two views of one tilt, and
# the smallest step of a series
_STEEPEST, _SAME_TILT, _LEAST_STEP = 90.0, 0.25, 0.5
# largest ratio of a step to the usual one: Saxton's scheme varies them, and views may be missing
_STEPS_DIFFER = 2.5
# most views of one tilt
_MOST_REPEATS = 5


@dataclass(frozen=True, eq=False, slots=True)
class Records:
    """The records of the sections that were asked for, as far as they are in the file."""

    table: np.ndarray[Any, Any]  # structured, shape (n_present,)
    present: np.ndarray[Any, Any]  # whether a section has a record, shape (n_sections,)
    n_missing: int  # sections without a record
    size: int  # bytes of all records in the extended header

    def where(self, valid: np.ndarray[Any, Any]) -> Records:
        """Return the records for which `valid`, of shape (n_present,), is True."""
        if valid.all():
            return self
        present = self.present.copy()
        present[present] = valid
        n_missing = self.n_missing + int(np.count_nonzero(~valid))
        return Records(self.table[valid], present, n_missing, self.size)

    def metadata(self, columns: Iterable[Column], problems: Iterable[Problem] = ()) -> Metadata:
        """Return metadata of all sections from columns of shape (n_present,)."""
        metadata = Metadata.of_columns(columns if len(self.table) else (), problems)
        if not self.n_missing:
            return metadata
        n_sections = self.n_missing + len(self.table)
        found = f"without a record for {self.n_missing} of {n_sections} sections"
        accepted = "a record for each section"
        missing = problem(self.size, found, accepted, "Their values are missing.")
        spread = (replace(c, values=self._spread(c.values)) for c in metadata.columns)
        problems = (*metadata.problems, missing)
        return replace(metadata, columns=tuple(spread), problems=problems)

    def _spread(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        spread = np.zeros(self.present.shape, values.dtype)
        spread[self.present] = values
        return with_gaps(spread, self.present)


def take(header: Header, raw: bytes, dtype: np.dtype[Any], sections: Sections) -> Records:
    """Return the records of some sections; `dtype` is a record, as large as their distance."""
    records = np.frombuffer(raw, dtype, count=len(raw) // dtype.itemsize)
    n_sections = max(header.nz, 0) if sections is None else len(sections)
    if not is_worth_a_column(len(records), n_sections):
        return Records(records[:0], np.zeros(0, np.bool_), n_sections, len(raw))
    numbers = np.arange(n_sections) if sections is None else np.asarray(sections, np.int64)
    present = (numbers >= 0) & (numbers < len(records))
    table = records[:n_sections] if sections is None else records[numbers[present]]
    return Records(table, present, n_sections - len(table), len(raw))


def is_blank(raw: bytes) -> bool:
    """Return whether the extended header was reserved and never written, which is normal."""
    return raw.count(0) == len(raw)


def is_for_all(header: Header, size: int) -> bool:
    """Return whether NSYMBT bytes contain a record of `size` bytes for each section."""
    return 0 < size * header.nz <= header.nsymbt


def is_tilt_series(angles: np.ndarray[Any, Any]) -> bool:
    """Return whether numbers are the tilt angles of a series in degrees, and not pixels.

    The steps between the sorted angles of a series are of nearly the same size.
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
