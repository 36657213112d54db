"""The extended header of labelled data: read again from the source, for the sections in use.

Its bytes are not stored with the data, since an extended header can have several MiB.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from mrc_xarray.labels.attributes import attrs_of
from mrc_xarray.metadata.columns import Metadata
from mrc_xarray.mrc.extended import ExtendedHeader, kind_of
from mrc_xarray.mrc.header import Header
from mrc_xarray.units import converted
from mrc_xarray.writing.provenance import Provenance
from mrc_xarray.writing.subject import Subject

__all__ = ["Extended", "carry", "fields"]


@dataclass(frozen=True)
class Extended:
    """The extended header of a new file."""

    exttyp: str = ""
    raw: bytes = b""
    # NINT and NREAL, if the records need them
    counts: dict[str, int] = field(default_factory=dict)
    # the labels that the engine makes from the records
    coords: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    attrs: dict[str, Any] = field(default_factory=dict)
    # for a warning, what of the source's is not in it
    lost: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Source:
    """The extended header of the file that the data were opened from."""

    header: Header
    kind: ExtendedHeader
    raw: bytes

    def read(self, sections: npt.NDArray[np.integer] | None = None) -> Metadata:
        return self.kind.read(self.header, self.raw, sections)


def fields(data: xr.DataArray) -> xr.Dataset:
    """Decode the extended header; see `mrc_xarray.accessor.MrcAccessor.extended_fields`."""
    provenance = Provenance.of(data)
    source, raw = provenance.header, provenance.extended_header()
    if source is None or not raw:
        return xr.Dataset()
    every = xr.DataArray(np.arange(source.nz), dims="section")
    numbers = data.coords.get("section", every if source.nz > 1 else every[0])
    found = kind_of(source, len(raw)).read(source, raw, numbers.values.reshape(-1))
    variables: dict[str, xr.Variable] = {}
    for column in found.columns:
        values = column.values.reshape(numbers.shape)
        texts = {"units": column.units, "long_name": column.long_name}
        attrs = {name: text for name, text in texts.items() if text}
        variables[column.name] = xr.Variable(numbers.dims, values, attrs)
    for name, (value, units) in found.values.items():
        variables[name] = xr.Variable((), value, {"units": units} if units else {})
    return xr.Dataset(variables, {"section": numbers.variable})


def carry(subject: Subject, header: Header, *, is_of_source: bool) -> Extended:
    """Return the extended header of the user, or what is still valid of the one in the source.

    `is_of_source` is whether the voxels are those of the source, in the same cell.
    """
    if subject.options.extended_header is not None:
        return _given(subject.options.extended_header)
    try:
        return _carried(subject, header, is_of_source)
    except Exception as error:
        # any error of the store that the data were opened from
        return Extended(lost=(f"the extended header, which can't be read again ({error})",))


def _carried(subject: Subject, header: Header, is_of_source: bool) -> Extended:
    data, provenance, found = subject.data, subject.provenance, subject.source
    if found is None:
        return Extended()
    kind = kind_of(found, int(provenance.attrs.get("mrc_extended_bytes", 0)))
    if not kind.is_carried:
        return Extended()
    source = _Source(found, kind, provenance.extended_header())
    in_order: npt.NDArray[np.integer] = np.arange(found.nz)
    is_volume = subject.roles.kind in ("volume", "volume_stack")
    is_complete = found.nz == header.nz and (header.nz == 1 or is_volume)
    numbers = subject.section_numbers
    if numbers is None:
        numbers = in_order[: found.nz * is_complete]
    if size := kind.record_size(found, source.raw):
        return _selected(data, header, source, size, numbers)
    if kind.is_of_grid:
        if is_of_source and is_volume:
            return Extended(kind.name, source.raw, attrs=attrs_of(source.read().values))
        # operators of another grid would be wrong
        note = (
            f"ISPG {found.ispg} and its symmetry operators, as the data are not in the same cell"
        )
        lost = (note,) if is_volume and found.ispg > 1 else ()
        return Extended(attrs={"symmetry": data.attrs.get("symmetry")}, lost=lost)
    grid = ("nx", "ny", "nz", "mapc", "mapr", "maps")
    if np.array_equal(numbers, in_order) and all(found[name] == header[name] for name in grid):
        return Extended(found.exttyp, source.raw, {"nint": found.nint, "nreal": found.nreal})
    name = kind.name or found.exttyp or "of an unknown kind"
    return Extended(lost=(f"the extended header ({name})",))


def _selected(
    data: xr.DataArray,
    header: Header,
    source: _Source,
    size: int,
    sections: npt.NDArray[np.integer],
) -> Extended:
    """Return the records of some sections, unless the coordinates contradict them."""
    kind, n_records = source.kind, len(source.raw) // size
    if not len(sections) or int(sections.max()) >= n_records:
        return Extended(
            lost=(f"the extended header ({kind.name}), since its sections are unknown",)
        )
    found = source.read(sections)
    columns = {c.name: converted(c.name, c.values, c.units)[0] for c in found.columns}
    if not _agree(data, columns):
        reason = "which the coordinates contradict, or lack"
        return Extended(lost=(f"the extended header ({kind.name}), {reason}",))
    # a value that varies in the source may not vary in these sections
    constant = {
        name: np.full(len(sections), converted(name, value, units)[0])
        for name, (value, units) in found.values.items()
    }
    table = np.frombuffer(source.raw, np.uint8, n_records * size).reshape(n_records, size)
    selected = table[sections]
    if header.byteorder != source.header.byteorder and kind.word_size > 1:
        selected = selected.view(f"u{kind.word_size}").byteswap()
    exttyp, counts = kind.exttyp or kind.name, dict(kind.counts(source.header))
    return Extended(exttyp, selected.tobytes(), counts, columns | constant, attrs_of(found.values))


def _agree(data: xr.DataArray, columns: Mapping[str, npt.NDArray[Any]]) -> bool:
    """Return whether coordinates have the values of records, or nearly.

    They differ if files were joined, whose sections have the same numbers, or if the user has
    corrected a coordinate. The values of a sidecar may have more digits.
    """
    present = [name for name in columns if name in data.coords]
    if columns and not present:
        return False
    return all(_is_close(data.coords[name].values.reshape(-1), columns[name]) for name in present)


def _is_close(found: npt.NDArray[Any], values: npt.NDArray[Any]) -> bool:
    if found.shape != values.shape or (found.dtype.kind == "f") != (values.dtype.kind == "f"):
        return False
    if found.dtype.kind == "f":
        return np.allclose(found, values, rtol=0.01, atol=0.05, equal_nan=True)
    return found.dtype.kind == "M" or np.array_equal(found, values)


def _given(content: bytes | tuple[str, bytes]) -> Extended:
    """Return the extended header that the user gives: bytes, or EXTTYP and bytes."""
    if isinstance(content, bytes):
        return Extended("MRCO", content)
    match content:
        case (str(exttyp), bytes(raw)) if exttyp.isascii() and len(exttyp) == 4:
            return Extended(exttyp, raw)
    raise TypeError(
        f"extended_header is {content!r:.80}; accepted: bytes, or a tuple of EXTTYP (four ASCII "
        "letters) and bytes"
    )
