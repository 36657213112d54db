"""Values in the records of an extended header, changed in place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mrc_xarray.errors import MrcError
from mrc_xarray.mrc.extended import EXTENDED, kind_of
from mrc_xarray.mrc.header import Header
from mrc_xarray.text import did_you_mean
from mrc_xarray.units import converted

__all__ = ["with_values"]


def with_values(header: Header, raw: bytes, values: Mapping[str, Any], name: str) -> bytes:
    """Return an extended header with other values in its records.

    Parameters
    ----------
    header : Header
    raw : bytes
        The extended header.
    values : mapping of str to scalar or array-like
        By the names and in the units of the coordinates, one value or one for each of the NZ
        sections.
    name : str
        Of the file, for messages.

    Raises
    ------
    MrcError
        If the records have no such value, or can't hold it.
    """
    kind = kind_of(header, len(raw))
    editable = None if kind.editable is None else kind.editable(header, raw)
    if editable is None:
        known = ", ".join(kind.name for kind in EXTENDED if kind.editable is not None)
        found = f"EXTTYP is {header.exttyp!r}" if raw else "there is no extended header"
        raise MrcError(f"{name}: {found}; extended= changes records of {known}")
    # for each value, what stored numbers are multiplied by for a coordinate, and its units
    units = {field: converted(field, 1.0, unit) for field, unit in editable.units.items()}
    if unknown := [field for field in values if field not in units]:
        accepted = ", ".join(f"{f} [{unit}]" if unit else f for f, (_, unit) in units.items())
        raise MrcError(
            f"{name}: the {kind.name} records have no {', '.join(map(str, unknown))}; accepted: "
            f"{accepted}{did_you_mean(map(str, unknown), units)}"
        )
    n_records = len(raw) // editable.dtype.itemsize
    if n_records < header.nz:
        raise MrcError(
            f"{name}: the extended header has {n_records} records for {header.nz} sections; "
            "accepted: one per section. to_mrc(extended_header=) writes a file with other records"
        )
    changed = bytearray(raw)
    table = np.frombuffer(changed, editable.dtype, header.nz)
    for field, value in values.items():
        shown = f"{name}: extended[{field!r}] is {value!r:.80}; accepted:"
        given = np.asarray(value)
        if given.shape not in ((), (header.nz,)) or np.ma.is_masked(value):
            raise MrcError(f"{shown} one value, or {header.nz}, one for each section")
        scale, _ = units[field]
        in_file = given / scale if given.dtype.kind in "iuf" and scale != 1 else given
        try:
            editable.store(table, field, np.broadcast_to(in_file, header.nz))
        except ValueError as error:
            raise MrcError(f"{shown} {error}") from None
    return bytes(changed)
