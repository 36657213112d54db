"""Extended headers built by hand, and their metadata in a form that is easy to compare."""

from __future__ import annotations

from typing import Any

import by_hand
import numpy as np

from mrc_xarray.metadata.columns import Metadata
from mrc_xarray.mrc.extended import ExtendedHeader, kind_of
from mrc_xarray.mrc.header import Header

Array = np.ndarray[Any, Any]


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
