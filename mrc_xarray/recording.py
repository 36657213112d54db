"""What a reader of any file format returns, and what a labelled Dataset is made from.

A new format needs a reader that returns a `Recording`, and an entry point for xarray.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mrc_xarray.errors import Problem
from mrc_xarray.metadata.columns import Column, Value
from mrc_xarray.pixels.sections import Sections

__all__ = ["LABELS_KEY", "SAMPLES", "Dimension", "Recording"]

#: Key under which the writer stores labels that a header has no field for.
LABELS_KEY = "mrc_xarray"
#: Names of the last dimension of colour images.
SAMPLES = ("rgb", "rgba")


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One dimension of the data.

    Attributes
    ----------
    name : str
        What it is: ``"x"``, ``"ky"``, ``"image"``, ``"scan_x"``, ``"energy"``, ``"rgb"``.
    size : int
    start : float
        Position of the first element in `unit`.
    step : float or None
        Distance between neighbours in `unit`, negative if positions decrease; None if it is
        unknown, which leaves the dimension without a coordinate.
    unit : str
        A length such as ``"angstrom"``, a reciprocal length such as ``"1/nm"``, another unit such
        as ``"eV"``, or ``"1"`` for a number without a unit.
    """

    name: str
    size: int
    start: float = 0.0
    step: float | None = None
    unit: str = "angstrom"


@dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """Sections of pixels in a file, and everything that labels them.

    Attributes
    ----------
    name : str
        Path or URL, without credentials.
    sections : Sections
        Where the pixels are, and how they are decoded.
    dims : tuple of Dimension
        All dimensions of the data, slowest first: those that count sections, then rows, columns,
        and samples such as ``"rgb"``. A spectrum, the only row of its section, has no rows.
    frame_index : ndarray of int64, or None
        The section at each position of the dimensions that count sections, and -1 where there is
        none. None if the sections are in the order of these dimensions.
    has_section_numbers : bool
        Whether each section is labelled with its number in the file.
    section_spacing : float or None
        Distance in Å between sections that have no positions; None if it is unknown.
    columns : tuple of Column
        One value per section.
    values : mapping of str to Value
        One value for the file.
    metadata : mapping or None
        Further keys and values of the file or a sidecar, as JSON can store them.
    stored_labels : object
        What the file stores under `LABELS_KEY`, unchecked; None if it stores nothing.
    attrs : mapping of str to str, int or float
        Attributes in the format's own words.
    extended_range : (int, int)
        First byte and length of the bytes that a writer copies from file to file.
    problems : tuple of Problem
        What was repaired or assumed.
    """

    name: str
    sections: Sections
    dims: tuple[Dimension, ...]
    frame_index: np.ndarray[Any, np.dtype[np.int64]] | None = None
    has_section_numbers: bool = False
    section_spacing: float | None = None
    columns: tuple[Column, ...] = ()
    values: Mapping[str, Value] = field(default_factory=dict)
    metadata: Mapping[str, Any] | None = None
    stored_labels: object = None
    attrs: Mapping[str, Any] = field(default_factory=dict)
    extended_range: tuple[int, int] = (0, 0)
    problems: tuple[Problem, ...] = ()

    @property
    def leading(self) -> tuple[Dimension, ...]:
        """The dimensions that count sections."""
        return self.dims[: max(0, len(self.dims) - (len(self.sections.shape) - 1))]

    @property
    def frame(self) -> tuple[Dimension, ...]:
        """The dimensions of one section."""
        return self.dims[len(self.leading) :]
