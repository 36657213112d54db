"""Metadata of an image: columns with one value per section, and values of the complete file.

Values and units are the file's own; `mrc_xarray.labels.dataset` converts them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from mrc_xarray.errors import Problem
from mrc_xarray.metadata.scan import Scan
from mrc_xarray.voxel_size import Step

__all__ = ["PER_SECTION", "Column", "Metadata", "Step", "Value", "with_gaps"]

#: Properties of a section by nature: a column even if all of its values are equal.
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
        In snake_case, such as ``tilt_angle``.
    values : ndarray of float64, int64, bool, str or datetime64[us], shape (n_sections,)
        Missing values are NaN, NaT or ``""``; see `with_gaps`. Texts of very different lengths
        can be objects. If there are several sections for each value, the length is that of the
        first dimension.
    units : str
        As in the file, such as ``"m"``, ``"degree"`` or ``"e/m^2"``; empty without units.
    long_name : str
        A description, if the name is not clear enough.
    attrs : mapping of str to str
        Further attributes in the format's own words.
    """

    name: str
    values: np.ndarray[Any, Any]
    units: str = ""
    long_name: str = ""
    attrs: Mapping[str, str] = field(default_factory=dict)


class Value(NamedTuple):
    """One value for the complete file, and its units as in the file."""

    value: Any
    units: str = ""


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Metadata:
    """The content of a sidecar or an extended header.

    Attributes
    ----------
    columns : tuple of Column
        One value per section.
    stack_columns : tuple of Column
        One value per section, which only the images of a stack have, and no positions of a scan.
    values : mapping of str to Value
        One value for the complete file: str, bool, int, float or datetime64.
    keys : mapping of str
        A sidecar's own keys and texts, or the JSON of an MRCZ, as JSON can store them.
    steps : mapping of str to Step
        Step sizes, by dimension.
    scan : Scan or None
        The positions of the sections in a scan.
    scan_size : (int, int) or None
        Rows and columns of a scan that may be the scan of the sections.
    is_diffraction : bool
        Whether the sections are diffraction patterns.
    evidence : str
        Why the sections are the images of a stack; empty without evidence.
    mode0 : tuple of (str, str), or None
        The dtype of pixels of MODE 0, ``"int8"`` or ``"uint8"``, and the evidence for it.
    only_for_stacks : bool
        Whether all of this applies only if the sections are the images of a stack.
    problems : tuple of Problem
        What could not be read, or was assumed. Problems with the code ``"scan"`` don't matter if
        the user states the layout.
    """

    columns: tuple[Column, ...] = ()
    stack_columns: tuple[Column, ...] = ()
    values: Mapping[str, Value] = field(default_factory=dict)
    keys: Mapping[str, Any] = field(default_factory=dict)
    steps: Mapping[str, Step] = field(default_factory=dict)
    scan: Scan | None = None
    scan_size: tuple[int, int] | None = None
    is_diffraction: bool = False
    evidence: str = ""
    mode0: tuple[str, str] | None = None
    only_for_stacks: bool = False
    problems: tuple[Problem, ...] = ()

    @classmethod
    def of_columns(cls, columns: Iterable[Column], problems: Iterable[Problem] = ()) -> Metadata:
        """Separate columns from values of the complete file.

        A column whose values are all equal becomes one value, except times and `PER_SECTION`.
        """
        varying, values = [], {}
        for column in columns:
            is_per_section = column.name in PER_SECTION or column.values.dtype.kind == "M"
            first = column.values[:1]
            # a missing value does not equal itself
            if is_per_section or not len(first) or not (column.values == first).all():
                varying.append(column)
            else:
                values[column.name] = Value(first[0].item(), column.units)
        return cls(columns=tuple(varying), values=values, problems=tuple(problems))

    def over(self, other: Metadata) -> Metadata:
        """Return this metadata, completed by `other`.

        `keys` are those of `other` if it has any, since a sidecar does not replace the JSON in a
        file. The result is no longer `only_for_stacks`.
        """
        names = {column.name for column in self.columns} | set(self.values)
        values = {name: value for name, value in other.values.items() if name not in names}
        return Metadata(
            columns=(*self.columns, *(c for c in other.columns if c.name not in names)),
            stack_columns=(*self.stack_columns, *other.stack_columns),
            values=values | dict(self.values),
            keys=other.keys or self.keys,
            steps=dict(other.steps) | dict(self.steps),
            scan=self.scan or other.scan,
            is_diffraction=self.is_diffraction or other.is_diffraction,
            evidence=self.evidence or other.evidence,
            mode0=self.mode0 or other.mode0,
            problems=(*self.problems, *other.problems),
        )

    def problems_of(self, *, scan: bool) -> tuple[Problem, ...]:
        """Return the problems, with or without those of the scan."""
        return tuple(problem for problem in self.problems if scan or problem.code != "scan")

    def of_stack(self) -> Metadata:
        """Return the metadata of the images of a stack."""
        names = {column.name for column in self.columns}
        more = (column for column in self.stack_columns if column.name not in names)
        return replace(self, columns=(*self.columns, *more))


def with_gaps(values: np.ndarray[Any, Any], present: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a copy of `values` with NaN, NaT or ``""`` wherever `present` is False.

    NaN makes float64 of integers and bools.
    """
    if values.dtype.kind in "iub" and not present.all():
        values = values.astype(np.float64)
    missing: Any = {"f": np.nan, "M": np.datetime64("NaT", "us"), "U": ""}.get(values.dtype.kind)
    return values.copy() if missing is None else np.where(present, values, missing)
