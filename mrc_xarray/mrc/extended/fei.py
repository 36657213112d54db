"""FEI1 and FEI2: blocks of some hundred fields, as EPU, Velox and TIA write them.

See ``docs/reference/format.md#fei``. Four bitmasks mark the valid fields of a block.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from mrc_xarray.metadata.columns import Column, Metadata, with_gaps
from mrc_xarray.mrc.extended.kind import ExtendedHeader, SectionNumbers, not_decoded
from mrc_xarray.mrc.extended.records import is_blank, take
from mrc_xarray.mrc.header import Header
from mrc_xarray.pixels.modes import ByteOrder

__all__ = ["FEI1", "FEI2"]

# bytes of blocks that are decoded when a file is opened: a scan of 256 × 256. Most fields have
# the same value in all blocks, so the decoded values need little memory
_MOST_DECODED = 65536 * 896

# blocks of FEI1 have 768 bytes, and blocks of FEI2 888; a later version may append fields
_SIZES = range(768, 16385)

# 0 for FEI1 and 2 for FEI2; some files contain other numbers
_VERSIONS = range(16)

_EPOCHS = {"OLE": np.datetime64("1899-12-30", "us"), "Unix": np.datetime64("1970-01-01", "us")}
_DAY = 86_400_000_000  # us
# 2173; other times than between the epoch and this day are garbage
_LAST_DAY = 100_000

_DIFFRACTION = 1  # projection mode
# no pixel has so many m, or so few 1/m
_BETWEEN_M_AND_PER_M = 1.0


class _Field(NamedTuple):
    """A field of a block: NumPy's code, its units, and its name in `Column`.

    The units ``"OLE"`` stand for days since 1899-12-30, ``"Unix"`` for µs since 1970.
    """

    code: str
    units: str
    name: str


def _fields(*rows: tuple[str, str, str]) -> tuple[_Field, ...]:
    """Return the fields of a table of codes, units and names."""
    return tuple(
        _Field(code, units, name) for code, units, names in rows for name in names.split()
    )


# the fields after each of the four masks; the n-th field is valid where bit n of the mask is set
_MASKED = (
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
_LONG_NAMES = {
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


def _record_size(header: Header, raw: bytes) -> int:
    """Return the size of a block in bytes, from its first word; 0 if that makes no sense."""
    return _size_and_order(raw)[0]


def _matches(header: Header, raw: bytes) -> bool:
    """Return whether these are blocks, by their size, version, switches and texts.

    Blocks that were reserved but never written are zero.
    """
    size, byteorder = _size_and_order(raw)
    if not size:
        return False
    # in a truncated file, even the first block may be incomplete
    n_blocks = min(max(header.nz, 1), -(-len(raw) // size))
    blocks = raw[: n_blocks * size].ljust(n_blocks * size, b"\0")
    table = np.frombuffer(blocks, _dtype(size, byteorder))
    if table["version"][0] not in _VERSIONS or not np.isin(table["size"], (0, size)).all():
        return False
    fields = [f for f in itertools.chain(*_MASKED) if f.name in (table.dtype.names or ())]
    return all(
        (table[field.name] <= 1).all()
        if field.code == "?"
        else all(text.isprintable() for text in _texts(table[field.name]))
        for field in fields
        if field.code[0] in "?S"
    )


def _decode(header: Header, raw: bytes, sections: SectionNumbers) -> Metadata:
    size, byteorder = _size_and_order(raw)
    if not size:
        first = int.from_bytes(raw[:4], "little", signed=True)
        found = f"invalid: its first block has {first} bytes"
        accepted = f"FEI's blocks of {_SIZES[0]} to {_SIZES[-1]} bytes"
        return Metadata() if is_blank(raw) else not_decoded(len(raw), found, accepted)
    records = take(header, raw, _dtype(size, byteorder), sections)
    # blocks that were reserved and never written are zero
    written = records.where(records.table["size"] == size)
    return written.metadata(_columns(written.table))


def _size_and_order(raw: bytes) -> tuple[int, ByteOrder]:
    """Return the size and byte order of the blocks, which need not be the header's order."""
    if int.from_bytes(raw[:4], "little") in _SIZES:
        return int.from_bytes(raw[:4], "little"), "<"
    big = int.from_bytes(raw[:4], "big")
    return (big if big in _SIZES else 0), ">"


def _dtype(size: int, byteorder: ByteOrder) -> np.dtype[Any]:
    """Return a block of `size` bytes: the fields outside of it are left out."""
    fields = [("size", byteorder + "i4"), ("version", byteorder + "i4")]
    for number, masked in enumerate(_MASKED):
        # the masks are little-endian even where all else is big-endian
        fields.append((_mask(number), "<u4"))
        # as bool, NumPy accepts only the bytes 0 and 1
        fields += [(field.name, byteorder + field.code.replace("?", "u1")) for field in masked]
    ends = np.cumsum([np.dtype(code).itemsize for _, code in fields])
    n_inside = int(np.count_nonzero(ends <= size))
    return np.dtype([*fields[:n_inside], ("rest", f"V{size - ends[n_inside - 1]}")])


def _mask(number: int) -> str:
    return f"bitmask_{number + 1}"


def _columns(table: np.ndarray[Any, Any]) -> Iterator[Column]:
    """Yield the fields that are valid in some blocks."""
    for number, fields in enumerate(_MASKED if len(table) else ()):
        masks = table[_mask(number)]
        for bit, field in enumerate(fields):
            valid = _bit(masks, bit)
            if field.name not in (table.dtype.names or ()) or not valid.any():
                continue
            stored = table[field.name]
            # most fields are the same in all blocks, and need not be decoded for each
            is_constant = (stored == stored[0]).all()
            values, units = _values(stored[:1] if is_constant else stored, field)
            if is_constant:
                values = np.broadcast_to(values, stored.shape)
            if field.name in ("pixel_size_x", "pixel_size_y"):
                units = _pixel_units(values, valid, table)
            long_name = _LONG_NAMES.get(field.name, "")
            yield Column(field.name, with_gaps(values, valid), units, long_name)


def _bit(masks: np.ndarray[Any, Any], bit: int) -> np.ndarray[Any, Any]:
    return (masks >> np.uint32(bit) & 1).astype(np.bool_)


def _values(stored: np.ndarray[Any, Any], field: _Field) -> tuple[np.ndarray[Any, Any], str]:
    """Return the values in a native dtype, and their units."""
    if field.units in ("OLE", "Unix"):
        ticks = _DAY if field.units == "OLE" else 1
        is_time = (stored > 0) & (stored < _LAST_DAY * _DAY // ticks)
        since = np.rint(np.where(is_time, stored, 0) * ticks).astype("m8[us]")
        return with_gaps(_EPOCHS[field.units] + since, is_time), ""
    if field.code.startswith("S"):
        return np.array(_texts(stored)), ""
    native = {"f8": np.float64, "?": np.bool_}.get(field.code, np.int64)
    return stored.astype(native), field.units


def _texts(stored: np.ndarray[Any, Any]) -> list[str]:
    """Return texts up to their first NUL, as Latin-1, which every byte is."""
    return [raw.partition(b"\0")[0].decode("latin-1") for raw in stored.tolist()]


def _pixel_units(
    sizes: np.ndarray[Any, Any], valid: np.ndarray[Any, Any], table: np.ndarray[Any, Any]
) -> str:
    """Return the units of pixel sizes: m, or 1/m in diffraction, or empty if that is not certain.

    The projection mode is not enough: Velox writes that of diffraction to its STEM images, whose
    pixels are in m.
    """
    known = valid & np.isfinite(sizes)
    if (sizes < _BETWEEN_M_AND_PER_M)[known].all():
        return "m"
    bit = [field.name for field in _MASKED[0]].index("projection_mode")
    says_image = _bit(table[_mask(0)], bit) & (table["projection_mode"] != _DIFFRACTION)
    if (sizes > _BETWEEN_M_AND_PER_M)[known].all() and not says_image[known].any():
        return "1/m"
    return ""


def _kind(name: str) -> ExtendedHeader:
    return ExtendedHeader(
        name=name,
        is_kind=lambda header, extended_size: header.exttyp.strip() == name,
        decode=_decode,
        matches=_matches,
        record_size=_record_size,
        is_per_section=True,
        most_decoded=_MOST_DECODED,
    )


FEI1, FEI2 = _kind("FEI1"), _kind("FEI2")
