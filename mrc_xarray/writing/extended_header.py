"""The extended header of labelled data: read again from its source, and cut to its sections.

Its bytes are not kept with the data: an extended header has up to some MiB.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from mrc_xarray.labels.attributes import attrs_of
from mrc_xarray.metadata.columns import Column
from mrc_xarray.mrc.extended import kind_of
from mrc_xarray.mrc.header import Header
from mrc_xarray.units import converted
from mrc_xarray.writing.provenance import Provenance

__all__ = ["Extended", "carried", "fields", "given"]


@dataclass(frozen=True)
class Extended:
    """The extended header of a new file.

    Attributes
    ----------
    exttyp : str
    raw : bytes
    counts : dict
        NINT and NREAL, where the records need them.
    coords, attrs : dict
        What the records tell of the sections and of the file, as the engine opens it.
    lost : tuple of str
        Why it is not the old one's, if that could not be kept.
    """

    exttyp: str = ""
    raw: bytes = b""
    counts: dict[str, int] = field(default_factory=dict)
    coords: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    attrs: dict[str, Any] = field(default_factory=dict)
    lost: tuple[str, ...] = ()


def fields(data: xr.DataArray) -> xr.Dataset:
    """Decode the extended header's records of the sections that data have.

    Parameters
    ----------
    data : DataArray

    Returns
    -------
    Dataset
        A variable for each field, with its units as in the file: along the dimensions that count
        the sections, or without a dimension where it is one value for the file.

    Raises
    ------
    OSError, MrcError
        As `mrc_xarray.writing.provenance.Provenance.extended_header`.
    """
    provenance = Provenance.of(data)
    found, raw = provenance.header, provenance.extended_header()
    if found is None or not raw:
        return xr.Dataset()
    numbers = data.coords.get("section")
    if numbers is None:
        numbers = xr.DataArray(np.arange(found.nz), dims="section")
        numbers = numbers if found.nz > 1 else numbers[0]
    along, shape, sections = numbers.dims, numbers.shape, numbers.values.reshape(-1)
    told = kind_of(found, len(raw)).read(found, raw, sections)
    variables = {
        column.name: xr.Variable(along, column.values.reshape(shape), _attrs(column))
        for column in told.columns
    }
    variables |= {
        name: xr.Variable((), value, {"units": units} if units else {})
        for name, (value, units) in told.values.items()
    }
    return xr.Dataset(variables, {"section": numbers.variable})


def _attrs(column: Column) -> dict[str, str]:
    attrs = {"units": column.units, "long_name": column.long_name}
    return {name: text for name, text in attrs.items() if text}


def carried(
    data: xr.DataArray,
    header: Header,
    sections: npt.NDArray[np.integer] | None,
    *,
    is_same_grid: bool,
) -> Extended:
    """Return what of the source's extended header still holds for a new file.

    Parameters
    ----------
    data : DataArray
    header : Header
        The new one.
    sections : ndarray of int or None
        The number in the source of each section; None where that is unknown.
    is_same_grid : bool
        Whether the voxels are those of the source, where they were.
    """
    provenance = Provenance.of(data)
    found = provenance.header
    if found is None:
        return Extended()
    kind = kind_of(found, int(provenance.attrs.get("mrc_extended_bytes", 0)))
    if not kind.is_carried:
        return Extended()
    raw = provenance.extended_header()
    n_same = found.nz == header.nz
    if sections is None and n_same and (header.nz == 1 or header.ispg > 0):
        sections = np.arange(header.nz)
    size = kind.record_size(found, raw)
    if size:
        n_records = len(raw) // size
        if sections is None or not len(sections) or int(sections.max()) >= n_records:
            return Extended(
                lost=(f"the extended header ({kind.name}), as its sections are not known",)
            )
        table = np.frombuffer(raw, np.uint8)[: n_records * size].reshape(n_records, size)
        cut = table[sections]
        if header.byteorder != found.byteorder and kind.word_size > 1:
            word = np.dtype(f"u{kind.word_size}")
            cut = cut.view(word).byteswap().view(np.uint8)
        told = kind.read(found, raw, sections)
        coords = {c.name: converted(c.name, c.values, c.units)[0] for c in told.columns}
        if not _holds(data, coords):
            reason = "which the coordinates contradict, or lack"
            return Extended(lost=(f"the extended header ({kind.name}), {reason}",))
        # what varied in the whole file may not do so in these sections
        coords |= {
            name: np.full(len(sections), converted(name, value, units)[0])
            for name, (value, units) in told.values.items()
        }
        exttyp, counts = kind.exttyp or kind.name, dict(kind.counts(found))
        return Extended(exttyp, cut.tobytes(), counts, coords, attrs_of(told.values))
    if kind.is_of_grid:
        if not is_same_grid or found.ispg != header.ispg:
            # operators of another grid would be wrong, and so are gone without a word
            return Extended(attrs={"symmetry": data.attrs.get("symmetry")})
        told = kind.read(found, raw)
        return Extended(kind.name, raw, attrs=attrs_of(told.values))
    grid = ("nx", "ny", "nz", "mapc", "mapr", "maps")
    is_whole = sections is not None and np.array_equal(sections, np.arange(found.nz))
    if is_whole and all(found[name] == header[name] for name in grid):
        return Extended(found.exttyp, raw)
    return Extended(
        lost=(f"the extended header ({kind.name or found.exttyp or 'of no known kind'})",)
    )


def _holds(data: xr.DataArray, told: Mapping[str, npt.NDArray[Any]]) -> bool:
    """Tell whether records say the same of the sections as the coordinates do, or nearly.

    They don't where files were joined, whose sections have the same numbers, or where the user
    knows better. A sidecar's numbers may have more digits.
    """
    present = {name: values for name, values in told.items() if name in data.coords}
    if told and not present:
        return False
    for name, values in present.items():
        found = data.coords[name].values.reshape(-1)
        if found.shape != values.shape or (found.dtype.kind == "f") != (values.dtype.kind == "f"):
            return False
        if found.dtype.kind != "f":
            same = np.array_equal(found, values)
        else:
            same = np.allclose(found, values, rtol=0.01, atol=0.05, equal_nan=True)
        if not same and found.dtype.kind != "M":
            return False
    return True


def given(content: bytes | tuple[str, bytes]) -> Extended:
    """Take what the user gives: bytes, or EXTTYP and bytes."""
    if isinstance(content, bytes):
        return Extended("MRCO", content)
    match content:
        case (str(exttyp), bytes(raw)) if exttyp.isascii() and len(exttyp) == 4:
            return Extended(exttyp, raw)
    raise TypeError("extended_header is neither bytes nor (EXTTYP of four letters, bytes)")
