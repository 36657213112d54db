"""FEI1 and FEI2: blocks of some hundred fields, as EPU, Velox and TIA write them.

See ``docs/reference/format.md#fei``. Four bitmasks mark the valid fields of a block.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np

from mrc_xarray.errors import Problem
from mrc_xarray.metadata.columns import Column, Metadata, with_gaps
from mrc_xarray.mrc.extended.kind import ExtendedHeader, Sections, problem
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
    """A field of a block: its name in `Column`, NumPy's code, and its units.

    The units ``"OLE"`` stand for days since 1899-12-30, ``"Unix"`` for µs since 1970.
    """

    name: str
    code: str
    units: str = ""
    long_name: str = ""


def _numbered(name: str, code: str, numbers: range) -> tuple[_Field, ...]:
    return tuple(_Field(f"{name}_{number}", code) for number in numbers)


# the fields after each of the four masks; the n-th field is valid where bit n of the mask is set
_MASKED: tuple[tuple[_Field, ...], ...] = (
    (
        _Field("time", "f8", "OLE", "time of acquisition"),
        _Field("microscope_type", "S16"),
        _Field("d_number", "S16"),
        _Field("application", "S16"),
        _Field("application_version", "S16"),
        _Field("voltage", "f8", "V", "acceleration voltage"),
        _Field("dose", "f8", "e/m^2"),
        _Field("tilt_angle", "f8", "degree", "alpha tilt"),
        _Field("tilt_beta", "f8", "degree", "beta tilt"),
        _Field("stage_x", "f8", "m"),
        _Field("stage_y", "f8", "m"),
        _Field("stage_z", "f8", "m"),
        _Field("tilt_axis_angle", "f8", "degree"),
        _Field("dual_axis_rotation", "f8"),
        _Field("pixel_size_x", "f8", "m"),
        _Field("pixel_size_y", "f8", "m"),
        *_numbered("unused", "f8", range(6)),
        _Field("defocus", "f8", "m"),
        _Field("stem_defocus", "f8", "m"),
        _Field("applied_defocus", "f8", "m"),
        _Field("instrument_mode", "i4"),
        _Field("projection_mode", "i4"),
        _Field("objective_lens_mode", "S16"),
        _Field("high_magnification_mode", "S16"),
        _Field("probe_mode", "i4"),
        _Field("eftem_on", "?"),
        _Field("magnification", "f8"),
    ),
    (
        _Field("camera_length", "f8", "m"),
        _Field("spot_index", "i4"),
        _Field("illuminated_area", "f8"),
        _Field("intensity", "f8"),
        _Field("convergence_angle", "f8", "rad"),
        _Field("illumination_mode", "S16"),
        _Field("wide_convergence_angle_range", "?"),
        _Field("slit_inserted", "?"),
        _Field("slit_width", "f8", "eV"),
        _Field("voltage_offset", "f8", "", "acceleration voltage offset"),
        _Field("drift_tube_voltage", "f8"),
        _Field("energy_shift", "f8"),
        _Field("shift_offset_x", "f8"),
        _Field("shift_offset_y", "f8"),
        _Field("shift_x", "f8"),
        _Field("shift_y", "f8"),
        _Field("exposure_time", "f8", "s", "integration time"),
        _Field("binning_width", "i4"),
        _Field("binning_height", "i4"),
        _Field("camera_name", "S16"),
        _Field("readout_left", "i4"),
        _Field("readout_top", "i4"),
        _Field("readout_right", "i4"),
        _Field("readout_bottom", "i4"),
        _Field("ceta_noise_reduction", "?"),
        _Field("ceta_frames_summed", "i4"),
        _Field("electron_counting", "?"),
        _Field("frames_aligned", "?"),
        *_numbered("camera_reserved", "i4", range(4)),
    ),
    (
        *_numbered("camera_reserved", "i4", range(4, 10)),
        _Field("phase_plate", "?"),
        _Field("stem_detector", "S16"),
        _Field("stem_gain", "f8"),
        _Field("stem_offset", "f8"),
        *_numbered("stem_reserved", "i4", range(5)),
        _Field("dwell_time", "f8", "s"),
        _Field("frame_time", "f8", "s"),
        _Field("scan_left", "i4"),
        _Field("scan_top", "i4"),
        _Field("scan_right", "i4"),
        _Field("scan_bottom", "i4"),
        _Field("scan_fov_x", "f8", "m", "full field of view of the scan along x"),
        _Field("scan_fov_y", "f8", "m", "full field of view of the scan along y"),
        _Field("element", "S16"),
        _Field("energy_interval_lower", "f8"),
        _Field("energy_interval_higher", "f8"),
        _Field("method", "i4"),
        _Field("is_dose_fraction", "?"),
        _Field("fraction_number", "i4"),
        _Field("start_frame", "i4"),
        _Field("end_frame", "i4"),
        _Field("input_stack", "S80"),
    ),
    (
        _Field("tilt_angle_min", "f8", "degree"),
        _Field("tilt_angle_max", "f8", "degree"),
        # the following fields are FEI2's
        _Field("scan_rotation", "f8"),
        _Field("diffraction_rotation", "f8"),
        _Field("image_rotation", "f8"),
        _Field("scan_mode", "i4"),
        _Field("acquisition_time", "i8", "Unix"),
        _Field("detector_name", "S16", "", "commercial name of the detector"),
        _Field("tilt_angle_start", "f8", "degree"),
        _Field("tilt_angle_end", "f8", "degree"),
        _Field("tilt_per_image", "f8"),
        _Field("tilt_speed", "f8"),
        _Field("beam_center_x", "i4", "pixel"),
        _Field("beam_center_y", "i4", "pixel"),
        _Field("cfeg_flash_time", "i8", "Unix"),
        _Field("phase_plate_index", "i4"),
        _Field("objective_aperture", "S16"),
    ),
)


def _record_size(header: Header, raw: bytes) -> int:
    """Return the size of a block in bytes, as its first word says; 0 if that makes no sense."""
    return _size_and_order(raw)[0]


def _matches(header: Header, raw: bytes) -> bool:
    """Return whether these are blocks, by their size, version, switches and texts.

    Blocks that were reserved but never written are zero.
    """
    size, byteorder = _size_and_order(raw)
    order: Literal["little", "big"] = "little" if byteorder == "<" else "big"
    if not size or int.from_bytes(raw[4:8], order) not in _VERSIONS:
        return False
    # in a truncated file, even the first block may be incomplete
    n_blocks = min(max(header.nz, 1), -(-len(raw) // size))
    blocks = raw[: n_blocks * size].ljust(n_blocks * size, b"\0")
    table = np.frombuffer(blocks, _dtype(size, byteorder))
    if not np.isin(table["size"], (0, size)).all():
        return False
    present = [f for f in itertools.chain(*_MASKED) if f.name in (table.dtype.names or ())]
    switches = [table[field.name] for field in present if field.code == "?"]
    texts = [table[field.name] for field in present if field.code.startswith("S")]
    return bool(
        all((values <= 1).all() for values in switches)
        and all(_is_text(text) for values in texts for text in values.tolist())
    )


def _is_text(stored: bytes) -> bool:
    return stored.partition(b"\0")[0].decode("latin-1").isprintable()


def _decode(header: Header, raw: bytes, sections: Sections) -> Metadata:
    size, byteorder = _size_and_order(raw)
    if not size:
        return Metadata(problems=() if is_blank(raw) else (_no_block(raw),))
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


def _no_block(raw: bytes) -> Problem:
    found = f"with a first block of {int.from_bytes(raw[:4], 'little', signed=True)} bytes"
    accepted = f"FEI's blocks of {_SIZES[0]} to {_SIZES[-1]} bytes"
    action = "Its fields are left out; its bytes are at ds.mrc.extended_header."
    return problem(len(raw), found, accepted, action)


def _dtype(size: int, byteorder: ByteOrder) -> np.dtype[Any]:
    """Return a block of `size` bytes: the fields outside of it are left out."""
    names, formats, offsets = ["size"], [byteorder + "i4"], [0]
    offset = 8
    for number, fields in enumerate(_MASKED):
        # the masks are little-endian even where all else is big-endian
        for name, code in [(_mask(number), "<u4"), *(field[:2] for field in fields)]:
            # a byte that is neither 0 nor 1 is no bool to NumPy
            code = {"?": "u1"}.get(code, code)
            n_bytes = np.dtype(code).itemsize
            if offset + n_bytes <= size:
                names.append(name)
                formats.append(code if name == _mask(number) else byteorder + code)
                offsets.append(offset)
            offset += n_bytes
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size})


def _mask(number: int) -> str:
    return f"bitmask_{number + 1}"


def _columns(table: np.ndarray[Any, Any]) -> Iterator[Column]:
    """Yield the fields that are valid in some blocks."""
    places = table.dtype.fields or {}
    is_constant = _constant_bytes(table)
    for number, fields in enumerate(_MASKED if len(table) else ()):
        masks = table[_mask(number)]
        in_all = int(np.bitwise_and.reduce(masks))
        in_some = int(np.bitwise_or.reduce(masks))
        for bit, field in enumerate(fields):
            if field.name not in places or not in_some >> bit & 1:
                continue
            valid = np.True_ if in_all >> bit & 1 else _bit(masks, bit)
            dtype, offset = places[field.name][:2]
            stored = table[field.name]
            if is_constant[offset : offset + dtype.itemsize].all():
                first, units = _values(stored[:1], field)
                values = np.broadcast_to(first, stored.shape)
            else:
                values, units = _values(stored, field)
            if field.name in ("pixel_size_x", "pixel_size_y"):
                units = _pixel_units(values, valid, table)
            yield Column(field.name, with_gaps(values, valid), units, field.long_name)


def _constant_bytes(table: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return which bytes are the same in all blocks: most are, and need not be decoded."""
    rows = table.view(np.uint8).reshape(len(table), -1)
    # so many blocks fit into a processor's cache
    pieces = (rows[start : start + 1024] for start in range(0, len(rows), 1024))
    constant = [(piece == rows[0]).all(axis=0) for piece in pieces]
    return np.logical_and.reduce(constant)  # type: ignore[no-any-return]  # NumPy's stub


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
        return _text(stored), ""
    native = {"f8": np.float64, "?": np.bool_}.get(field.code, np.int64)
    return stored.astype(native), field.units


def _text(stored: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return text up to its first NUL, as Latin-1, which every byte is."""
    n_bytes = stored.dtype.itemsize
    letters = np.ascontiguousarray(stored).view(np.uint8).reshape(-1, n_bytes)
    ended = np.logical_or.accumulate(letters == 0, axis=1)
    return np.where(ended, 0, letters).astype(np.uint32).view(f"U{n_bytes}").ravel()


def _pixel_units(
    sizes: np.ndarray[Any, Any],
    valid: np.ndarray[Any, Any] | np.bool_,
    table: np.ndarray[Any, Any],
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
