"""Extended headers built by hand, and their metadata in a form that is easy to compare."""

from __future__ import annotations

import re
from typing import Any

import by_hand
import numpy as np
from mrcfile.dtypes import fei1_dtype_big_endian, fei2_dtype_big_endian

from mrc_xarray.metadata.columns import Metadata
from mrc_xarray.mrc.extended import ExtendedHeader, kind_of
from mrc_xarray.mrc.header import Header

Array = np.ndarray[Any, Any]
FEI1, FEI2 = fei1_dtype_big_endian.newbyteorder("<"), fei2_dtype_big_endian.newbyteorder("<")
# mrcfile's spelling of what has another name here; the other names follow from mrcfile's
NAMES = {
    "Timestamp": "time", "D-Number": "d_number", "HT": "voltage", "Alpha tilt": "tilt_angle",
    "Beta tilt": "tilt_beta", "X-Stage": "stage_x", "Y-Stage": "stage_y", "Z-Stage": "stage_z",
    "Acceleration voltage offset": "voltage_offset", "Integration time": "exposure_time",
    "Readout area left": "readout_left", "Readout area top": "readout_top",
    "Readout area right": "readout_right", "Readout area bottom": "readout_bottom",
    "Direct detector electron counting": "electron_counting",
    "Direct detector align frames": "frames_aligned", "STEM Detector name": "stem_detector",
    "Gain": "stem_gain", "Offset": "stem_offset", "Full scan FOV X": "scan_fov_x",
    "Full scan FOV Y": "scan_fov_y", "Scan size left": "scan_left", "Scan size top": "scan_top",
    "Scan size right": "scan_right", "Scan size bottom": "scan_bottom",
    "Input stack filename": "input_stack", "Alpha tilt min": "tilt_angle_min",
    "Alpha tilt max": "tilt_angle_max", "Diffraction pattern rotation": "diffraction_rotation",
    "Scan mode enumeration": "scan_mode", "Acquisition time stamp": "acquisition_time",
    "Detector commercial name": "detector_name", "Start tilt angle": "tilt_angle_start",
    "End tilt angle": "tilt_angle_end", "Beam center X pixel": "beam_center_x",
    "Beam center Y pixel": "beam_center_y", "CFEG flash timestamp": "cfeg_flash_time",
    "Phase plate position index": "phase_plate_index",
    "Objective aperture name": "objective_aperture",
}  # fmt: skip
NOT_DATA = {"Metadata size", "Metadata version"} | {f"Bitmask {n}" for n in (1, 2, 3, 4)}


def header(
    exttyp: bytes, raw: bytes, n_sections: int, *, byteorder: str = "<", **fields: Any
) -> Header:
    """Return the header of a file of `n_sections` with the extended header `raw`."""
    fields = {"exttyp": exttyp, "nsymbt": len(raw)} | fields
    made = by_hand.header((n_sections, 3, 4), 6, byteorder=byteorder, **fields)
    return Header.parse(made, byteorder)  # type: ignore[arg-type]


def kind(parsed: Header, raw: bytes) -> ExtendedHeader:
    return kind_of(parsed, max(parsed.nsymbt, len(raw)) if raw else 0)


def read(parsed: Header, raw: bytes, sections: Array | None = None) -> Metadata:
    return kind(parsed, raw).read(parsed, raw, sections)


def record_size(parsed: Header, raw: bytes) -> int:
    return kind(parsed, raw).record_size(parsed, raw)


def pixel_size(parsed: Header, raw: bytes) -> tuple[float, float, str] | None:
    """Return x, y and their units."""
    steps = kind(parsed, raw).pixel_size(parsed, raw)
    return (steps["x"].size, *steps["y"]) if steps else None


def all_of(metadata: Metadata, n_sections: int) -> dict[str, Array]:
    """Return all fields as columns."""
    columns = {column.name: column.values for column in metadata.columns}
    assert all(values.shape == (n_sections,) for values in columns.values())
    assert not columns.keys() & metadata.values.keys()
    single = {name: np.array([v] * n_sections) for name, (v, _) in metadata.values.items()}
    return columns | single


def units_of(metadata: Metadata) -> dict[str, str]:
    units = {column.name: column.units for column in metadata.columns}
    return units | {name: value.units for name, value in metadata.values.items()}


def is_empty(metadata: Metadata) -> bool:
    return (metadata.columns, metadata.values) == ((), {})


def our_names(field: str) -> list[str]:
    """Return what a field of mrcfile's is called here."""
    if field == "Unused range":
        return [f"unused_{n}" for n in range(6)]
    name = NAMES.get(field, field.lower().replace(" ", "_"))
    return [re.sub("^(camera|stem)_param_", r"\1_", name)]


def bits(dtype: np.dtype[Any]) -> list[tuple[str, str, int, int]]:
    """Return (mrcfile's field, our name, number of the mask, bit), by the order of the fields."""
    found: list[tuple[str, str, int, int]] = []
    for field in dtype.names or ():
        if field.startswith("Bitmask"):
            number, before = int(field[-1]), len(found)
        elif field not in NOT_DATA:
            found += [
                (field, name, number, len(found) - before + n)
                for n, name in enumerate(our_names(field))
            ]
    return found
