"""FEI1 and FEI2: blocks of some hundred fields, as EPU, Velox and TIA write them.

See ``docs/reference/format.md#fei``. Four bitmasks mark the valid fields of a block.
"""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from mrc_xarray.metadata.columns import Column, Metadata, Step, Value, with_gaps
from mrc_xarray.mrc.extended.fei_fields import (
    LONG_NAMES,
    LOOKED_FOR,
    MASKED,
    Field,
    block_dtype,
    is_reserved,
    mask_name,
)
from mrc_xarray.mrc.extended.kind import Editable, ExtendedHeader, SectionNumbers, not_decoded
from mrc_xarray.mrc.extended.records import as_integers, finite, is_blank, take
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
    table = np.frombuffer(blocks, block_dtype(size, byteorder))
    if table["version"][0] not in _VERSIONS or not np.isin(table["size"], (0, size)).all():
        return False
    fields = [f for f in itertools.chain(*MASKED) if f.name in (table.dtype.names or ())]
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
    records = take(header, raw, block_dtype(size, byteorder), sections)
    # blocks that were reserved and never written are zero
    written = records.where(records.table["size"] == size)
    return written.metadata(_columns(written.table))


def _size_and_order(raw: bytes) -> tuple[int, ByteOrder]:
    """Return the size and byte order of the blocks, which need not be the header's order."""
    if int.from_bytes(raw[:4], "little") in _SIZES:
        return int.from_bytes(raw[:4], "little"), "<"
    big = int.from_bytes(raw[:4], "big")
    return (big if big in _SIZES else 0), ">"


def _columns(table: np.ndarray[Any, Any]) -> Iterator[Column]:
    """Yield the fields that are valid in some blocks."""
    for number, fields in enumerate(MASKED if len(table) else ()):
        masks = table[mask_name(number)]
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
            long_name = LONG_NAMES.get(field.name, "")
            yield Column(field.name, with_gaps(values, valid), units, long_name)


def _bit(masks: np.ndarray[Any, Any], bit: int) -> np.ndarray[Any, Any]:
    return (masks >> np.uint32(bit) & 1).astype(np.bool_)


def _values(stored: np.ndarray[Any, Any], field: Field) -> tuple[np.ndarray[Any, Any], str]:
    """Return the values in a native dtype, and their units."""
    if field.units in _EPOCHS:
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
    bit = [field.name for field in MASKED[0]].index("projection_mode")
    says_image = _bit(table[mask_name(0)], bit) & (table["projection_mode"] != _DIFFRACTION)
    if (sizes > _BETWEEN_M_AND_PER_M)[known].all() and not says_image[known].any():
        return "1/m"
    return ""


def _scan(values: Mapping[str, Value]) -> Metadata:
    """Return the size of the scan area and the steps in it, by its edges and field of view.

    See ``docs/reference/format.md#velox``. The area is often that of another image.
    """
    edges = [values.get(f"scan_{edge}") for edge in ("top", "bottom", "left", "right")]
    top, bottom, left, right = (int(edge.value) if edge else 0 for edge in edges)
    sizes = {"y": bottom - top, "x": right - left}
    if min(sizes.values()) < 1:
        return Metadata()
    views = {axis: values.get(f"scan_fov_{axis}", Value(0.0)).value for axis in sizes}
    steps = {
        f"scan_{axis}": Step(view / sizes[axis], "m")
        for axis, view in views.items()
        if 0 < view < np.inf
    }
    return Metadata(scan_size=(sizes["y"], sizes["x"]), steps=steps)


def _labels(metadata: Metadata) -> Metadata:
    """Return what labels the data when a file is opened; `extended_fields` has all fields.

    Fields without a meaning are no labels. Of some hundred values of the complete file, only
    those that users look for are, unless they are 0, which means that they are not set.
    """
    columns = (column for column in metadata.columns if not is_reserved(column.name))
    values = {
        name: found
        for name, found in metadata.values.items()
        if name in LOOKED_FOR and found.value not in (0, "")
    }
    return replace(metadata, columns=tuple(columns), values=values)


def _editable(header: Header, raw: bytes) -> Editable | None:
    size, byteorder = _size_and_order(raw)
    if not size:
        return None
    dtype = block_dtype(size, byteorder)
    places = {
        field.name: (field, number, bit)
        for number, fields in enumerate(MASKED)
        for bit, field in enumerate(fields)
        if field.name in (dtype.names or ())
    }

    def store(table: np.ndarray[Any, Any], name: str, values: np.ndarray[Any, Any]) -> None:
        field, number, bit = places[name]
        if (table["size"] != size).any():
            n = int(np.flatnonzero(table["size"] != size)[0])
            raise ValueError(f"sections with a record, and the record of section {n} is empty")
        table[name] = _stored(values, field, table[name].dtype)
        table[mask_name(number)] |= np.uint32(1 << bit)

    units = {name: field.units for name, (field, _, _) in places.items()}
    of_times = {name: "time" for name, unit in units.items() if unit in _EPOCHS}
    return Editable(dtype=dtype, units=units | of_times, store=store)


def _stored(
    values: np.ndarray[Any, Any], field: Field, dtype: np.dtype[Any]
) -> np.ndarray[Any, Any]:
    """Return values as a block stores them, the inverse of `_values`; ValueError if it can't."""
    if field.code.startswith("S"):
        return _stored_texts(values, dtype.itemsize)
    if field.units in _EPOCHS:
        since = _times(values) - _EPOCHS[field.units]
        days = since / np.timedelta64(1, "D")
        if not ((days > 0) & (days < _LAST_DAY)).all():
            raise ValueError(f"times after {_EPOCHS[field.units]}, and before 2173")
        return days if field.units == "OLE" else since.astype(np.int64)
    if field.code == "f8":
        return finite(values)
    if field.code == "?" and not np.isin(values, (0, 1)).all():
        raise ValueError("0 or 1")
    return as_integers(values, dtype)


def _stored_texts(values: np.ndarray[Any, Any], longest: int) -> np.ndarray[Any, Any]:
    texts = values.tolist()
    is_stored = values.dtype.kind == "U" and all(t.isascii() and t.isprintable() for t in texts)
    if not is_stored or max(map(len, texts)) > longest:
        raise ValueError(f"printable ASCII texts of up to {longest} characters")
    return np.array([text.encode() for text in texts])


def _times(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if values.dtype.kind in "MUO":
        with warnings.catch_warnings(), contextlib.suppress(ValueError, Warning):
            # NumPy warns about zones, which it drops
            warnings.simplefilter("error")
            return values.astype("M8[us]")
    raise ValueError("times, such as '2026-01-31T12:00:00', without a zone")


def _kind(name: str) -> ExtendedHeader:
    return ExtendedHeader(
        name=name,
        is_kind=lambda header, extended_size: header.exttyp.strip() == name,
        decode=_decode,
        matches=_matches,
        record_size=_record_size,
        is_per_section=True,
        scan=_scan,
        labels=_labels,
        most_decoded=_MOST_DECODED,
        editable=_editable,
    )


FEI1, FEI2 = _kind("FEI1"), _kind("FEI2")
