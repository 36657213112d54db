"""What of an extended header is read when a file is opened."""

from __future__ import annotations

import numpy as np

from mrc_xarray.errors import Problem
from mrc_xarray.metadata.columns import Metadata
from mrc_xarray.metadata.find import Step
from mrc_xarray.metadata.limits import MOST_POSITIONS
from mrc_xarray.mrc import extended
from mrc_xarray.mrc.header import HEADER_SIZE, Header
from mrc_xarray.storage.base import Bytes

__all__ = ["read_records"]

# symmetry records are read whole, and these are some thousand of them
_LONGEST_TEXT = 1024**2
# bytes of records that are read at once
_PIECE = 4 * 1024**2


def read_records(
    source: Bytes, header: Header, head: bytes, extended_size: int, n_sections: int
) -> tuple[Metadata, dict[str, Step]]:
    """Read what the extended header tells of each section.

    Parameters
    ----------
    source : Bytes
    header : Header
    head : bytes
        The file's first bytes, which are not read again.
    extended_size : int
    n_sections : int
        Those that are there.

    Returns
    -------
    metadata : Metadata
    steps : dict of str to Step
        Pixel size along x and y, where the records have one.
    """
    kind = extended.kind(header, extended_size)
    if kind in (None, "json"):
        return Metadata(), {}
    raw = head[HEADER_SIZE : HEADER_SIZE + extended_size]
    size = extended.record_size(header, raw, extended_size=extended_size)
    wanted = min(size * n_sections if size else _LONGEST_TEXT, extended_size)
    most = extended.most(header, extended_size)
    is_too_much = size > 0 and (wanted > most or n_sections > MOST_POSITIONS)
    if is_too_much:
        # the first record contains the pixel size
        wanted = size
    raw = raw[:wanted] if len(raw) >= wanted else _read(source, HEADER_SIZE, wanted)
    sections = None if n_sections == header.nz else np.arange(n_sections)
    if is_too_much:
        metadata = Metadata(problems=(_too_much(size, n_sections, most),))
    else:
        metadata = extended.read(header, raw, sections, extended_size=extended_size)
    pixel = extended.pixel_size(header, raw, extended_size=extended_size) if size else None
    if pixel is None:
        return metadata, {}
    x, y, units = pixel
    return metadata, {"x": Step(x, units), "y": Step(y, units)}


def _read(source: Bytes, offset: int, nbytes: int) -> bytes:
    """Read in pieces: while it reads, a source may need twice the memory of what it returns."""
    raw = bytearray(nbytes)
    for at in range(0, nbytes, _PIECE):
        raw[at : at + _PIECE] = source.read(offset + at, min(_PIECE, nbytes - at))
    return raw  # type: ignore[return-value]  # callers use only what bytes and bytearray share


def _too_much(size: int, n_sections: int, most: int) -> Problem:
    return Problem(
        "extended-header",
        "extended header",
        f"{n_sections} records of {size} bytes",
        f"up to {most} bytes, for up to {MOST_POSITIONS} sections, when a file is opened",
        "They are left out; ds.mrc.extended_fields decodes the records of a selection.",
        offset=HEADER_SIZE,
        nbytes=size * n_sections,
    )
