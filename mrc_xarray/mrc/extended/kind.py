"""A kind of extended header, and how it is read when a file is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from mrc_xarray.errors import Problem
from mrc_xarray.metadata.columns import Metadata, Step, Value
from mrc_xarray.metadata.limits import MOST_POSITIONS
from mrc_xarray.mrc.header import HEADER_SIZE, Header
from mrc_xarray.storage.base import Bytes

__all__ = [
    "Editable", "ExtendedHeader", "SectionNumbers", "nint_and_nreal", "not_decoded", "problem",
]  # fmt: skip

#: Numbers of sections in the file, shape (n_sections,), or None for all NZ.
SectionNumbers: TypeAlias = "np.ndarray[Any, Any] | None"

# an extended header without records is read completely up to here: thousands of symmetry operators
_LONGEST_TEXT = 1024**2
# bytes that are read at a time
_PIECE = 4 * 1024**2


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Editable:
    """What can be changed in the records of a file.

    Attributes
    ----------
    dtype : numpy.dtype
        One record.
    units : mapping of str to str
        By the name of a value, its units in the file.
    store : callable
        (table, name, values): writes an array of shape (n_sections,), in these units, to the
        records. ValueError says what is accepted, if a record can't hold a value.
    """

    dtype: np.dtype[Any]
    units: Mapping[str, str]
    store: Callable[[np.ndarray[Any, Any], str, np.ndarray[Any, Any]], None]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class ExtendedHeader:
    """A kind of extended header.

    Attributes
    ----------
    name : str
        EXTTYP, or a name for messages; empty for none, and for unknown kinds.
    is_kind : callable
        (header, extended_size): whether an extended header of that many bytes is of this kind.
    decode, matches : callable
        (header, raw, sections) and (header, raw): see `read` and `looks_like`.
    record_size : callable
        (header, raw): bytes per section, by the header and the first bytes of the extended
        header; 0 without records, or if the size makes no sense.
    is_per_section : bool
        Whether each section has a record.
    scan : callable
        (values): `Metadata` with the size and steps of a scan in the values of all records.
    labels : callable
        (metadata): the part that becomes coordinates and attributes when a file is opened.
    most_decoded : int
        Bytes of records that are decoded when a file is opened. More would need too much memory.
    word_size : int
        Bytes of the numbers in a record that have the byte order of the file; 1 if none have.
    exttyp : str
        EXTTYP of a new file with such records, if it is not `name`.
    counts : callable
        (header): NINT and NREAL of a new file with such records.
    is_carried, is_of_grid : bool
        Whether a new file can have the extended header of its source, and whether it is correct
        only for the same voxels and space group.
    editable : callable or None
        (header, raw): what can be changed in the records, or None if they make no sense.
    read_text : callable or None
        (source, header, head, extended_size, n_sections): what `read_from` returns, if all of
        the extended header is one text.
    """

    name: str
    is_kind: Callable[[Header, int], bool]
    decode: Callable[[Header, bytes, SectionNumbers], Metadata] = lambda header, raw, sections: (
        Metadata()
    )
    matches: Callable[[Header, bytes], bool] = lambda header, raw: False
    record_size: Callable[[Header, bytes], int] = lambda header, raw: 0
    is_per_section: bool = False
    scan: Callable[[Mapping[str, Value]], Metadata] = lambda values: Metadata()
    labels: Callable[[Metadata], Metadata] = lambda metadata: metadata
    most_decoded: int = 4 * 1024**2
    word_size: int = 1
    exttyp: str = ""
    counts: Callable[[Header], Mapping[str, int]] = lambda header: {}
    is_carried: bool = True
    is_of_grid: bool = False
    editable: Callable[[Header, bytes], Editable | None] | None = None
    read_text: Callable[[Bytes, Header, bytes, int, int], Metadata] | None = None

    def read(self, header: Header, raw: bytes, sections: SectionNumbers = None) -> Metadata:
        """Decode an extended header. Whatever the bytes are, nothing is raised.

        `raw` is the extended header, at least up to the last record of `sections`.
        """
        # garbage is full of infinities and NaNs
        with np.errstate(all="ignore"):
            return self.decode(header, raw, sections)

    def looks_like(self, header: Header, raw: bytes) -> bool:
        """Return whether bytes are of this kind by their contents, and are not pixels.

        `raw` is the NSYMBT bytes after the main header, or the first of them. False if that can't
        be decided.
        """
        with np.errstate(all="ignore"):
            return self.matches(header, raw)

    def pixel_size(self, header: Header, raw: bytes) -> dict[str, Step]:
        """Return the pixel size in the first record, by axis, in m or, in diffraction, 1/m.

        Empty without a finite positive pixel size, or if its units are not certain.
        """
        found = self.read(header, raw, np.zeros(1, np.int64)).values
        sizes = [found.get(f"pixel_size_{axis}", found.get("pixel_size")) for axis in "xy"]
        steps = {axis: Step(*size) for axis, size in zip("xy", sizes, strict=True) if size}
        is_known = len(steps) == 2 and steps["x"].units == steps["y"].units != ""
        is_known = is_known and all(0 < step.size < np.inf for step in steps.values())
        return steps if is_known else {}

    def read_from(
        self, source: Bytes, header: Header, head: bytes, extended_size: int, n_sections: int
    ) -> Metadata:
        """Read the extended header when a file is opened.

        `extended_size` bytes of it and `n_sections` are in the file. `head` is the beginning of
        the file, which is not read again. `MrcError` is raised for JSON that is too long or deep.
        """
        if self.read_text is not None:
            return self.read_text(source, header, head, extended_size, n_sections)
        raw = head[HEADER_SIZE : HEADER_SIZE + extended_size]
        size = self.record_size(header, raw)
        wanted = min(size * n_sections if size else _LONGEST_TEXT, extended_size)
        is_too_much = size > 0 and (wanted > self.most_decoded or n_sections > MOST_POSITIONS)
        if is_too_much:
            # the first record contains the pixel size
            wanted = size
        raw = raw[:wanted] if len(raw) >= wanted else _read(source, wanted)
        if is_too_much:
            metadata = Metadata(problems=(self._too_much(size, n_sections),))
        else:
            sections = None if n_sections == header.nz else np.arange(n_sections)
            metadata = self.read(header, raw, sections)
        if not size:
            return metadata
        first = self.read(header, raw, np.zeros(1, np.int64)).values if is_too_much else None
        scan = self.scan(first or metadata.values)
        steps = self.pixel_size(header, raw) | dict(scan.steps)
        return replace(self.labels(metadata), steps=steps, scan_size=scan.scan_size)

    def _too_much(self, size: int, n_sections: int) -> Problem:
        return problem(
            size * n_sections,
            f"{n_sections} records of {size} bytes",
            f"up to {self.most_decoded} bytes, for up to {MOST_POSITIONS} sections, when a file "
            "is opened",
            "They are left out; ds.mrc.extended_fields decodes the records of a selection.",
        )


def problem(size: int, found: str, accepted: str, action: str) -> Problem:
    """Return a problem of an extended header of `size` bytes."""
    words = "extended header", found, accepted, action
    return Problem("extended-header", *words, offset=HEADER_SIZE, nbytes=size)


def nint_and_nreal(header: Header) -> dict[str, int]:
    """Return the fields that describe the records of Agard and SerialEM, for a copy of them."""
    return {"nint": header.nint, "nreal": header.nreal}


def not_decoded(size: int, found: str, accepted: str) -> Metadata:
    """Return the metadata of an extended header that is not of the kind that it seemed to be."""
    action = "It is not decoded; its bytes are at ds.mrc.extended_header."
    return Metadata(problems=(problem(size, found, accepted, action),))


def _read(source: Bytes, nbytes: int) -> bytes:
    """Read in pieces: while it reads, a source may need twice the memory of what it returns."""
    raw = bytearray(nbytes)
    for at in range(0, nbytes, _PIECE):
        raw[at : at + _PIECE] = source.read(HEADER_SIZE + at, min(_PIECE, nbytes - at))
    return raw  # type: ignore[return-value]  # callers use only what bytes and bytearray share
