"""What an extended header or a sidecar yields: columns of one value a section, and single values.

Values and units are the file's own; `mrc_xarray.labels.dataset` converts them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from mrc_xarray.errors import Problem

__all__ = [
    "PER_SECTION",
    "Column",
    "Metadata",
    "Value",
    "gather",
    "with_gaps",
]

#: What belongs to each section by nature: a column even where all of its values are equal.
PER_SECTION = frozenset(
    {
        "tilt_angle", "tilt_beta", "tilt_angle_min", "tilt_angle_max", "tilt_angle_start",
        "tilt_angle_end", "stage_x", "stage_y", "stage_z", "piece_x", "piece_y", "piece_z",
        "defocus", "dose", "exposure_time", "time",
    }
)  # fmt: skip


@dataclass(frozen=True, eq=False, slots=True)
class Column:
    """One value for each section.

    Attributes
    ----------
    name : str
        In snake_case; DESIGN's for what it names, such as ``tilt_angle``.
    values : ndarray of float64, int64, bool, str or datetime64[us], shape (n_sections,)
        What is missing is NaN, NaT or ``""``; see `with_gaps`.
    units : str
        As in the file, such as ``"m"``, ``"degree"`` or ``"e/m^2"``; empty where there is none.
    long_name : str
        For people, where the name does not say enough.
    """

    name: str
    values: np.ndarray[Any, Any]
    units: str = ""
    long_name: str = ""


class Value(NamedTuple):
    """One value for the whole file, and its units as in the file."""

    value: Any
    units: str = ""


@dataclass(frozen=True, eq=False, slots=True)
class Metadata:
    """What was found beside the pixels.

    Attributes
    ----------
    columns : tuple of Column
        One value a section.
    values : mapping of str to Value
        One value for the whole file: str, bool, int or float.
    keys : mapping of str
        A sidecar's own keys and their values, as JSON can store them.
    problems : tuple of Problem
        What could not be read, or was assumed.
    """

    columns: tuple[Column, ...] = ()
    values: Mapping[str, Value] = field(default_factory=dict)
    keys: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


def gather(columns: Iterable[Column], problems: Iterable[Problem] = ()) -> Metadata:
    """Tell columns from what is one value for the whole file.

    Parameters
    ----------
    columns : iterable of Column
        Those whose values are all equal become one value, but for times and `PER_SECTION`.
    problems : iterable of Problem

    Returns
    -------
    Metadata
    """
    kept, single = [], {}
    for column in columns:
        by_nature = column.name in PER_SECTION or column.values.dtype.kind == "M"
        if not by_nature and _is_constant(column.values):
            single[column.name] = Value(column.values[0].item(), column.units)
        else:
            kept.append(column)
    return Metadata(tuple(kept), single, problems=tuple(problems))


def with_gaps(
    values: np.ndarray[Any, Any], present: np.ndarray[Any, Any] | np.bool_
) -> np.ndarray[Any, Any]:
    """Return a copy of `values` with what stands for missing where `present` is False.

    Parameters
    ----------
    values : ndarray, shape (n_sections,)
    present : ndarray of bool, shape (n_sections,) or ()

    Returns
    -------
    ndarray, shape (n_sections,)
        float64 with NaN for floats, and for integers and bools that have gaps; datetime64 with
        NaT; str with ``""``.
    """
    if values.dtype.kind in "iub" and not present.all():
        values = values.astype(np.float64)
    missing: Any = {"f": np.nan, "M": np.datetime64("NaT", "us"), "U": ""}.get(values.dtype.kind)
    return values.copy() if missing is None else np.where(present, values, missing)


def _is_constant(values: np.ndarray[Any, Any]) -> bool:
    """Tell whether there are values, and all are the same and none is missing."""
    return len(values) > 0 and bool((values == values[0]).all())
