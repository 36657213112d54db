from __future__ import annotations

import importlib.util
import json
from typing import Any

import numpy as np
import pytest
import xarray as xr

from mrc_xarray.bridges.axes import axes_of
from mrc_xarray.bridges.signal_metadata import attrs_of, metadata_of

ATTRS = {
    "mrc_source": "s3://bucket/a tomogram.mrc.gz", "voltage_kV": 300.0, "magnification": 5000,
    "exposure_time": 0.5, "exposure_time_units": "s", "stage_x": 12.5, "stage_x_units": "um",
    "camera_length": 30, "camera_length_units": "cm", "time": "2024-10-21T19:36:50.5",
}  # fmt: skip


def both(**attrs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    data = xr.DataArray(
        np.zeros((2, 3), "f4"),
        {"tilt_angle": ((), 3.5, {"units": "degree"}), "note": ("y", ["a", "b"])},
        ("y", "x"),
        attrs=attrs,
    )
    return metadata_of(data, axes_of(data))


def test_values_have_the_names_and_units_of_hyperspy() -> None:
    metadata, original = both(**ATTRS)
    assert metadata == {
        "General": {
            "title": "a tomogram", "original_filename": "a tomogram.mrc.gz",
            "date": "2024-10-21", "time": "19:36:50",
        },
        "Acquisition_instrument": {"TEM": {
            "beam_energy": 300.0, "magnification": 5000.0, "camera_length": 300.0,
            "Camera": {"exposure": 0.5}, "Stage": {"tilt_alpha": 3.5, "x": 0.0125},
        }},
        "Signal": {"signal_type": ""},
    }  # fmt: skip
    assert original["attrs"] == ATTRS
    assert original["coords"] == {
        "tilt_angle": {"dims": [], "units": "degree", "values": 3.5},
        "note": {"dims": ["y"], "units": "", "values": ["a", "b"]},
    }


@pytest.mark.parametrize(
    ("unit", "dtype", "is_installed", "expected"),
    [
        ("1/nm", "u2", True, "electron_diffraction"),
        ("mrad", "f4", True, "electron_diffraction"),
        ("1/nm", "u2", False, ""),
        ("1/nm", "c8", True, ""),
        ("nm", "u2", True, ""),
    ],
)
def test_diffraction_patterns_are_those_of_pyxem(
    unit: str, dtype: str, is_installed: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: is_installed or None)
    coords = {name: (name, np.arange(3) * 0.5, {"units": unit}) for name in ("ky", "kx")}
    data = xr.DataArray(np.zeros((2, 3, 3), dtype), coords, ("scan_x", "ky", "kx"))
    assert metadata_of(data, axes_of(data))[0]["Signal"] == {"signal_type": expected}


def test_metadata_of_a_file_cannot_become_signals() -> None:
    stored = {"_sig_": {"data": 1}, "_hspy_AxesManager_": 2, "a": {"_": 3}, "list": [1, 2]}
    shown = both(mrc_metadata=json.dumps(stored))[1]["metadata"]
    assert shown == {
        "sig_": {"data": 1}, "hspy_AxesManager_": 2, "a": {"value": 3}, "list": [1, 2],
    }  # fmt: skip


def test_attributes_come_back() -> None:
    metadata, original = both(**ATTRS)
    assert attrs_of({"metadata": metadata, "original_metadata": original}) == ATTRS
    metadata["Acquisition_instrument"]["TEM"]["beam_energy"] = 200
    changed = attrs_of({"metadata": metadata, "original_metadata": original})
    assert changed == ATTRS | {"voltage_kV": 200}
    metadata, original = both()
    assert attrs_of({"metadata": metadata, "original_metadata": original}) == {}


def test_signals_of_others_have_values_and_all_metadata() -> None:
    metadata = {
        "General": {"title": "a\x1bb", "nothing": None},
        "Acquisition_instrument": {
            "SEM": {"beam_energy": np.float32(15), "Stage": {"x": 1.5}, "magnification": ""}
        },
        "_HyperSpy": {"navigators": {}},
    }
    original = {
        "attrs": {"a": 1}, "tags": {"exposure (s)": 0.25, "large": np.zeros(2000), 3: b"\xff"},
        "when": np.datetime64("2020-01-02"), "small": np.arange(3), "complex": 1j,
    }  # fmt: skip
    mapping = {
        "tags.exposure_s": ("Acquisition_instrument.TEM.Camera.exposure", lambda v: 2 * v),
        "tags.nothing": ("General.never", None),
    }
    attrs = attrs_of({"metadata": metadata, "original_metadata": original, "mapping": mapping})
    shown = json.loads(attrs.pop("mrc_metadata"))
    assert attrs == {
        "title": r"a\x1bb", "voltage_kV": 15.0, "stage_x": 1500.0, "stage_x_units": "um",
        "exposure_time": 0.5, "exposure_time_units": "s",
    }  # fmt: skip
    assert shown["metadata"]["General"] == {"title": r"a\x1bb"}
    assert set(shown["metadata"]) == {"General", "Acquisition_instrument"}
    assert shown["original_metadata"] == {
        "attrs": {"a": 1},
        "tags": {"exposure (s)": 0.25, "large": "array of float64 of shape (2000,)", "3": "�"},
        "when": "2020-01-02", "small": [0, 1, 2], "complex": "1j",
    }  # fmt: skip
