"""Labels that a file stores as JSON, where another program may have written anything."""

from __future__ import annotations

import io
import json
from typing import Any

import by_hand
import numpy as np
import pytest
import xarray as xr

from mrc_xarray.labels.stored_labels import values_from_json, values_to_json

PIXELS = np.ones((2, 4, 4), "f4")


def opened(text: bytes) -> xr.Dataset:
    raw = by_hand.mrc(PIXELS, extended=text, exttyp=b"json")
    return xr.open_dataset(io.BytesIO(raw), engine="mrc")


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def coord(data: Any, dtype: Any = "float64", **other: Any) -> dict[str, Any]:
    return {"coords": {"c": {"dims": ["q"], "data": data, "dtype": dtype, "attrs": {}} | other}}


FALSE: dict[str, dict[str, Any]] = {
    "deep values": coord(nested(150)),
    "deep texts": coord([nested(150), nested(150)], "str"),
    "ragged": coord([[1], [2, 3]]),
    "a text, very long, of many": coord(["a" * 10**6] + ["b"] * 10**5, "str"),
    "no dates": coord(["a", "b"], "datetime64[s]"),
    "no dtype": coord([1, 2], 5),
    "large dtype": coord([1, 2], "V1000000000"),
    "no attributes": coord([1, 2], attrs=[1]),
    "huge": {"shape": [2**70, 4, 4]},
    "negative": {"shape": [-2, -1, 4, 4], "dims": ["a", "b", "y", "x"]},
    "infinite": {"shape": [float("inf"), 4, 4]},
    "no name": {"dims": [nested(100), "y", "x"]},
    "number for a name": {"dims": [1, "y", "x"]},
    "one name twice": {"dims": ["y", "y", "x"]},
    "one name twice, as it is shown": {"dims": ["\x1b", "\\x1b", "x"]},
    "names, and no list": {"coords": [1]},
    "many dimensions": {
        "dims": [*map(str, range(100)), "y", "x"], "shape": [2, *[1] * 99, 4, 4],
    },
    "many coordinates": {
        "coords": {
            str(n): {"dims": [], "data": n, "dtype": "int64", "attrs": {}} for n in range(5000)
        },
    },
}  # fmt: skip


@pytest.mark.parametrize("case", FALSE)
def test_false_labels_are_left_out(case: str) -> None:
    stored = {"dims": ["q", "y", "x"], "shape": [2, 4, 4], "attrs": {}, "coords": {}}
    ds = opened(json.dumps({"mrc_xarray": stored | FALSE[case]}).encode())
    assert ds.data.dims == ("z", "y", "x")
    np.testing.assert_array_equal(ds.data, PIXELS)


def test_labels_that_fit() -> None:
    stored = {"dims": ["q", "y", "x"], "shape": [2, 4, 4], "attrs": {"a": nested(150)}}
    ds = opened(json.dumps({"mrc_xarray": stored | coord([1, 2])}).encode())
    assert ds.c.dims == ("q",)
    assert ds.c.values.tolist() == [1, 2]
    assert ds.data.attrs["a"] == nested(150)


@pytest.mark.parametrize(
    "values",
    [
        np.array([1, -2], ">i4"),
        np.array([True, False]),
        np.array([1.5, np.nan], "f2"),
        np.array([1 + 2j, -3j], "c8"),
        np.array(["2024-05-01", "NaT"], "M8[ns]"),
        np.array([5, -7], "m8[s]"),
        np.array(["a", "längst"]),
        np.array([[1, 2], [3, 4]], "u1"),
    ],
    ids=lambda values: str(values.dtype),
)
def test_values_come_back(values: np.ndarray[Any, Any]) -> None:
    stored = json.loads(json.dumps(values_to_json(values)))
    again = values_from_json(stored["data"], stored["dtype"])
    np.testing.assert_array_equal(again, values)
    assert values.dtype.kind == again.dtype.kind
    assert values.dtype.kind == "U" or again.dtype == values.dtype.newbyteorder("=")


def test_objects_become_texts() -> None:
    assert values_to_json(np.array([1, None], object)) == {"dtype": "str", "data": ["1", "None"]}
