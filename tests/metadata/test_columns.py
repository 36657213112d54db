"""Columns, values of the complete file, and metadata over other metadata."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mrc_xarray.errors import Problem
from mrc_xarray.metadata.columns import Column, Metadata, Step, Value, with_gaps
from mrc_xarray.metadata.scan import Scan


def test_of_columns() -> None:
    columns = [
        Column("camera", np.array(["a", "a"])),
        Column("tilt_angle", np.array([1.0, 1.0]), "degree"),
        Column("when", np.array(["2020-01-01"] * 2, "M8[us]")),
        Column("spot", np.array([1, 2])),
        Column("gap", np.array([np.nan, np.nan])),
    ]
    metadata = Metadata.of_columns(columns)
    assert [c.name for c in metadata.columns] == ["tilt_angle", "when", "spot", "gap"]
    assert metadata.values == {"camera": ("a", "")}
    assert Metadata.of_columns([Column("camera", np.array([]))]).values == {}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.5, 2.5], [1.5, np.nan]),
        ([1, 2], [1.0, np.nan]),
        ([True, True], [1.0, np.nan]),
        (["a", "b"], ["a", ""]),
        (np.array(["2020-01-01"] * 2, "M8[us]"), np.array(["2020-01-01", "NaT"], "M8[us]")),
    ],
)
def test_with_gaps(values: Any, expected: Any) -> None:
    values, expected = np.asarray(values), np.asarray(expected)
    found = with_gaps(values, np.array([True, False]))
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    complete = with_gaps(values, np.array([True, True]))
    assert complete.dtype == values.dtype
    assert not np.shares_memory(complete, values)


def test_over() -> None:
    own, others = (Problem("sidecar", name, "", "", "") for name in "ab")
    scan = Scan((("scan_y", 2),))
    sidecar = Metadata(
        columns=(Column("tilt_angle", np.zeros(2)),),
        values={"voltage": Value(200, "kV")},
        keys={"A": "1"},
        steps={"x": Step(1, "nm")},
        scan=scan,
        only_for_stacks=True,
        problems=(own,),
    )
    records = Metadata(
        columns=(Column("tilt_angle", np.ones(2)), Column("dose", np.ones(2))),
        values={"voltage": Value(300, "kV"), "c3": Value(1)},
        steps={"x": Step(2, "m"), "y": Step(3, "m")},
        is_diffraction=True,
        mode0=("uint8", "evidence"),
        problems=(others,),
    )
    both = sidecar.over(records)
    assert [(c.name, c.values[0]) for c in both.columns] == [("tilt_angle", 0), ("dose", 1)]
    assert both.values == {"voltage": (200, "kV"), "c3": (1, "")}
    assert both.steps == {"x": (1, "nm"), "y": (3, "m")}
    assert both.scan is scan
    assert both.is_diffraction
    assert both.mode0 == ("uint8", "evidence")
    assert not both.only_for_stacks
    assert both.problems == (own, others)
    assert both.keys == {"A": "1"}
    # a column replaces a value of the same name, and the reverse
    assert Metadata(values={"dose": Value(1)}).over(records).columns == records.columns[:1]
    # a sidecar does not replace the JSON in a file
    assert sidecar.over(Metadata(keys={"b": 2})).keys == {"b": 2}
