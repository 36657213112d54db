"""Records of equal size, one per section: the extended headers of FEI, SerialEM and Agard."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mrc_xarray.errors import Problem
from mrc_xarray.metadata.columns import Column, Metadata, with_gaps
from mrc_xarray.metadata.limits import is_worth_a_column
from mrc_xarray.mrc.extended.kind import SectionNumbers, problem
from mrc_xarray.mrc.header import Header

__all__ = ["Records", "as_integers", "finite", "is_blank", "is_tilt_series", "take", "take_all"]

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
    places: np.ndarray[Any, Any]  # of the records among the sections, shape (n_present,)
    n_sections: int
    size: int  # bytes of all records in the extended header

    def where(self, valid: np.ndarray[Any, Any]) -> Records:
        """Return the records for which `valid`, of shape (n_present,), is True."""
        if valid.all():
            return self
        return replace(self, table=self.table[valid], places=self.places[valid])

    def metadata(self, columns: Iterable[Column], problems: Iterable[Problem] = ()) -> Metadata:
        """Return metadata of all sections from columns of shape (n_present,)."""
        metadata = Metadata.of_columns(columns if len(self.table) else (), problems)
        n_missing = self.n_sections - len(self.table)
        if not n_missing:
            return metadata
        found = f"without a record for {n_missing} of {self.n_sections} sections"
        accepted = "a record for each section"
        missing = problem(self.size, found, accepted, "Their values are missing.")
        spread = (replace(c, values=self._spread(c.values)) for c in metadata.columns)
        problems = (*metadata.problems, missing)
        return replace(metadata, columns=tuple(spread), problems=problems)

    def _spread(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        spread = np.zeros(self.n_sections, values.dtype)
        spread[self.places] = values
        return with_gaps(spread, np.isin(np.arange(self.n_sections), self.places))


def take(header: Header, raw: bytes, dtype: np.dtype[Any], sections: SectionNumbers) -> Records:
    """Return the records of some sections; the itemsize of `dtype` is their distance."""
    records = np.frombuffer(raw, dtype, count=len(raw) // dtype.itemsize)
    n_sections = max(header.nz, 0) if sections is None else len(sections)
    if not is_worth_a_column(len(records), n_sections):
        return Records(records[:0], np.arange(0), n_sections, len(raw))
    if sections is None:
        table = records[:n_sections]
        return Records(table, np.arange(len(table)), n_sections, len(raw))
    numbers = np.asarray(sections, np.int64)
    places = np.flatnonzero((numbers >= 0) & (numbers < len(records)))
    return Records(records[numbers[places]], places, n_sections, len(raw))


def take_all(header: Header, raw: bytes, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return the records of all sections; none if NSYMBT is too small for them."""
    is_for_all = 0 < dtype.itemsize * header.nz <= header.nsymbt
    return take(header, raw if is_for_all else b"", dtype, None).table


def is_blank(raw: bytes) -> bool:
    """Return whether the extended header was reserved and never written, which is normal."""
    return raw.count(0) == len(raw)


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


def finite(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the values; raise ValueError unless they are finite numbers."""
    if values.dtype.kind not in "iufb" or not np.isfinite(values).all():
        raise ValueError("finite numbers")
    return values


def as_integers(
    values: np.ndarray[Any, Any], dtype: np.dtype[Any], *, rounds: bool = False
) -> np.ndarray[Any, Any]:
    """Return numbers as an integer dtype; raise ValueError for other numbers than it holds."""
    limits, rounded = np.iinfo(dtype), np.rint(finite(values))
    if not rounds and (rounded != values).any():
        raise ValueError("whole numbers")
    if not ((rounded >= limits.min) & (rounded <= limits.max)).all():
        raise ValueError(f"stored numbers of {limits.min} to {limits.max}")
    stored: np.ndarray[Any, Any] = rounded.astype(dtype)
    return stored
