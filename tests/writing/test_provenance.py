"""Attributes that a stranger's file may contain are checked before they are used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import by_hand
import numpy as np
import pytest
import xarray as xr

from mrc_xarray import MrcWarning

PIXELS = np.arange(2 * 4 * 5, dtype="f4").reshape(2, 4, 5)


def opened(target: Any) -> xr.Dataset:
    return xr.open_dataset(target, engine="mrc")


HEADER = json.loads(opened(by_hand.mrc(PIXELS)).data.attrs["mrc_header"])
MALFORMED: dict[str, tuple[str, Any]] = {
    "broken JSON": ("mrc_header", "{"),
    "no fields": ("mrc_header", "{}"),
    "too many labels": ("mrc_header", json.dumps(HEADER | {"label": ["a"] * 11})),
    "metadata that are a list": ("mrc_metadata", "[1]"),
    "deep metadata": ("mrc_metadata", '{"a":' * 10**5 + "1" + "}" * 10**5),
    "an array": ("mrc_metadata", np.arange(3)),
    "repairs that are null": ("mrc_repairs", "null"),
    "a number beyond all floats": ("voltage_kV", 10**400),
    "no sections": ("mrc_header", json.dumps(HEADER | {"nz": -1})),
    "negative length": ("mrc_extended_bytes", -1),
    "absurd length": ("mrc_extended_bytes", 2**62),
    "voltage that is not finite": ("voltage_kV", float("nan")),
    "long rule": ("mrc_layout_rule", "5" * 10**6),
    "source of another type": ("mrc_source", 7.0),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_attribute_is_ignored_with_one_warning(tmp_path: Path, name: str) -> None:
    key, value = MALFORMED[name]
    ds = opened(by_hand.mrc(PIXELS)).load()
    ds["data"].attrs[key] = value
    for use in ("metadata", "voxel_size", "extended_header", "extended_fields"):
        with pytest.warns(MrcWarning, match=f"the attributes {key} are not as") as seen:
            getattr(ds.mrc, use)
        assert len(seen) == 1
    with pytest.warns(MrcWarning, match=f"the attributes {key} are not as"):
        assert hasattr(ds.mrc, "header") == (key != "mrc_header")
    with pytest.warns(MrcWarning, match=f"the attributes {key} are not as") as seen:
        ds.mrc.to_file(tmp_path / "out.mrc")
    assert len(seen) == 1
    np.testing.assert_array_equal(opened(tmp_path / "out.mrc").data, PIXELS)
    assert ds["data"].attrs[key] is value


@pytest.mark.parametrize("value", ["wide", -1.0, np.arange(2), 10**400])
def test_malformed_spacing_is_ignored(tmp_path: Path, value: Any) -> None:
    data = opened(by_hand.mrc(PIXELS)).data[:1].load()
    data.coords["z"].attrs["spacing"] = value
    with pytest.warns(MrcWarning, match="the attributes z:spacing are not as"):
        assert data.mrc.voxel_size == {"y": 1.0, "x": 1.0}


def test_several_malformed_attributes_are_one_warning() -> None:
    data = opened(by_hand.mrc(PIXELS)).data
    data.attrs |= {"mrc_header": "{", "mrc_metadata": "{", "mrc_extended_bytes": "{"}
    with pytest.warns(MrcWarning, match="mrc_extended_bytes, mrc_header, mrc_metadata") as seen:
        assert data.mrc.metadata == {}
    assert len(seen) == 1
