"""The fields of an FEI1 or FEI2 block.

See ``docs/reference/format.md#fei``. Four bitmasks mark the valid fields of a block.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mrc_xarray.pixels.modes import ByteOrder

__all__ = [
    "LONG_NAMES",
    "LOOKED_FOR",
    "MASKED",
    "Field",
    "block_dtype",
    "is_reserved",
    "mask_name",
]


class Field(NamedTuple):
    """A field of a block: NumPy's code, its units, and its name in `Column`.

    The units ``"OLE"`` stand for days since 1899-12-30, ``"Unix"`` for µs since 1970.
    """

    code: str
    units: str
    name: str


def _fields(*rows: tuple[str, str, str]) -> tuple[Field, ...]:
    """Return the fields of a table of codes, units and names."""
    return tuple(Field(code, units, name) for code, units, names in rows for name in names.split())


# the fields after each of the four masks; the n-th field is valid where bit n of the mask is set
MASKED = (
    _fields(
        ("f8", "OLE", "time"),
        ("S16", "", "microscope_type d_number application application_version"),
        ("f8", "V", "voltage"),
        ("f8", "e/m^2", "dose"),
        ("f8", "degree", "tilt_angle tilt_beta"),
        ("f8", "m", "stage_x stage_y stage_z"),
        ("f8", "degree", "tilt_axis_angle"),
        ("f8", "", "dual_axis_rotation"),
        ("f8", "m", "pixel_size_x pixel_size_y"),
        ("f8", "", "unused_0 unused_1 unused_2 unused_3 unused_4 unused_5"),
        ("f8", "m", "defocus stem_defocus applied_defocus"),
        ("i4", "", "instrument_mode projection_mode"),
        ("S16", "", "objective_lens_mode high_magnification_mode"),
        ("i4", "", "probe_mode"),
        ("?", "", "eftem_on"),
        ("f8", "", "magnification"),
    ),
    _fields(
        ("f8", "m", "camera_length"),
        ("i4", "", "spot_index"),
        ("f8", "", "illuminated_area intensity"),
        ("f8", "rad", "convergence_angle"),
        ("S16", "", "illumination_mode"),
        ("?", "", "wide_convergence_angle_range slit_inserted"),
        ("f8", "eV", "slit_width"),
        ("f8", "", "voltage_offset drift_tube_voltage energy_shift"),
        ("f8", "", "shift_offset_x shift_offset_y shift_x shift_y"),
        ("f8", "s", "exposure_time"),
        ("i4", "", "binning_width binning_height"),
        ("S16", "", "camera_name"),
        ("i4", "", "readout_left readout_top readout_right readout_bottom"),
        ("?", "", "ceta_noise_reduction"),
        ("i4", "", "ceta_frames_summed"),
        ("?", "", "electron_counting frames_aligned"),
        ("i4", "", "camera_reserved_0 camera_reserved_1 camera_reserved_2 camera_reserved_3"),
    ),
    _fields(
        ("i4", "", "camera_reserved_4 camera_reserved_5 camera_reserved_6"),
        ("i4", "", "camera_reserved_7 camera_reserved_8 camera_reserved_9"),
        ("?", "", "phase_plate"),
        ("S16", "", "stem_detector"),
        ("f8", "", "stem_gain stem_offset"),
        ("i4", "", "stem_reserved_0 stem_reserved_1 stem_reserved_2"),
        ("i4", "", "stem_reserved_3 stem_reserved_4"),
        ("f8", "s", "dwell_time frame_time"),
        ("i4", "", "scan_left scan_top scan_right scan_bottom"),
        ("f8", "m", "scan_fov_x scan_fov_y"),
        ("S16", "", "element"),
        ("f8", "", "energy_interval_lower energy_interval_higher"),
        ("i4", "", "method"),
        ("?", "", "is_dose_fraction"),
        ("i4", "", "fraction_number start_frame end_frame"),
        ("S80", "", "input_stack"),
    ),
    _fields(
        ("f8", "degree", "tilt_angle_min tilt_angle_max"),
        # the following fields are FEI2's
        ("f8", "", "scan_rotation diffraction_rotation image_rotation"),
        ("i4", "", "scan_mode"),
        ("i8", "Unix", "acquisition_time"),
        ("S16", "", "detector_name"),
        ("f8", "degree", "tilt_angle_start tilt_angle_end"),
        ("f8", "", "tilt_per_image tilt_speed"),
        ("i4", "pixel", "beam_center_x beam_center_y"),
        ("i8", "Unix", "cfeg_flash_time"),
        ("i4", "", "phase_plate_index"),
        ("S16", "", "objective_aperture"),
    ),
)
LONG_NAMES = {
    "time": "time of acquisition",
    "voltage": "acceleration voltage",
    "tilt_angle": "alpha tilt",
    "tilt_beta": "beta tilt",
    "voltage_offset": "acceleration voltage offset",
    "exposure_time": "integration time",
    "scan_fov_x": "full field of view of the scan along x",
    "scan_fov_y": "full field of view of the scan along y",
    "detector_name": "commercial name of the detector",
}
#: The values of a complete file that users look for.
LOOKED_FOR = frozenset(
    {
        "voltage", "magnification", "camera_length", "applied_defocus", "tilt_axis_angle",
        "convergence_angle", "slit_width", "dwell_time", "microscope_type", "application",
        "camera_name", "detector_name", "stem_detector", "element",
    }
)  # fmt: skip


def is_reserved(name: str) -> bool:
    """Return whether a field has no meaning yet."""
    return name.startswith("unused_") or "_reserved_" in name


def block_dtype(size: int, byteorder: ByteOrder) -> np.dtype[Any]:
    """Return a block of `size` bytes: the fields outside of it are left out."""
    fields = [("size", byteorder + "i4"), ("version", byteorder + "i4")]
    for number, masked in enumerate(MASKED):
        # the masks are little-endian even where all else is big-endian
        fields.append((mask_name(number), "<u4"))
        # as bool, NumPy accepts only the bytes 0 and 1
        fields += [(field.name, byteorder + field.code.replace("?", "u1")) for field in masked]
    ends = np.cumsum([np.dtype(code).itemsize for _, code in fields])
    n_inside = int(np.count_nonzero(ends <= size))
    return np.dtype([*fields[:n_inside], ("rest", f"V{size - ends[n_inside - 1]}")])


def mask_name(number: int) -> str:
    """Return the name of a bitmask in `block_dtype`, by its number from 0 on."""
    return f"bitmask_{number + 1}"
