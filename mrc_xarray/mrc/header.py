"""The main header: from bytes and to bytes, and what its fields mean together."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from mrc_xarray.errors import MrcError
from mrc_xarray.mrc.fields import (
    FIELDS,
    HEADER_SIZE,
    N_LABELS,
    PLACES,
    XYZ,
    Fields,
    header_problem,
    shown_place,
)
from mrc_xarray.mrc.header_json import fields_that_differ, packed
from mrc_xarray.pixels.modes import PER_CODEC, ByteOrder
from mrc_xarray.pixels.statistics import UNDETERMINED
from mrc_xarray.safe_json import decode_json
from mrc_xarray.text import json_text

__all__ = [
    "HEADER_SIZE",
    "IMOD_STAMP",
    "N_LABELS",
    "PLACES",
    "XYZ",
    "Header",
    "header_problem",
    "is_mrcz_label",
    "shown_place",
    "stamped_byteorder",
]

_STAMPS: dict[bytes, ByteOrder] = {b"\x44\x44": "<", b"\x44\x41": "<", b"\x11\x11": ">"}
# the beginnings of stamps that some programs write into valid files;
# see ``docs/reference/format.md#byte-order``
_ODD_STAMPS = (bytes(4), b"MAE ", b"\0\0\x44\x44", b"\x44\0", b"\x44\x11", b"\x44\x20\x20\x20")
#: IMOD's stamp in `Header.imod_stamp`.
IMOD_STAMP = int.from_bytes(b"IMOD", "little")
# SerialEM's label of packed frames, and the cameras that it wrote them for: K2 and K3
_PACKED_LABEL = "4 bits packed"
_PACKED_FRAMES = ((7676, 7420), (7680, 7424), (11520, 8184))


_STANDARD = [field for field in FIELDS if not field.dialect]
# the bytes that MRC2014 leaves free, and what dialects store in them
_FREE = [field for field in FIELDS if field.name in ("extra1", "extra2")]
_OVERLAYS = [field for field in FIELDS if field.dialect]


@dataclass(frozen=True)
class Header(Fields):
    """A header, with the meaning of its fields.

    Attributes
    ----------
    problems : tuple of str
        What prevents opening the file, and what opening it would repair or assume; only of the
        header that `mrc_xarray.read_header` returns.
    """

    problems: tuple[str, ...] = dataclasses.field(default=(), compare=False, repr=False)

    @classmethod
    def parse(cls, raw: bytes | bytearray, byteorder: ByteOrder) -> Self:
        """Decode the first 1024 bytes of a file."""
        header = cls.__new__(cls)
        # the __init__ of a frozen dataclass would take half of the time of opening
        values = {field.name: field.unpack(raw, byteorder) for field in FIELDS}
        vars(header).update({"byteorder": byteorder} | values)
        return header

    @classmethod
    def blank(cls, byteorder: ByteOrder = "<") -> Self:
        """Return the header of a new file, without dimensions, cell or pixels."""
        return cls.parse(bytes(HEADER_SIZE), byteorder).replaced(
            cellb=XYZ(90.0, 90.0, 90.0),
            mapc=1,
            mapr=2,
            maps=3,
            nversion=20141,
            map="MAP ",
            machst=b"\x44\x44\0\0" if byteorder == "<" else b"\x11\x11\0\0",
            **UNDETERMINED,
        )

    def __repr__(self) -> str:
        from mrc_xarray.mrc.header_table import text

        return text(self)

    def _repr_html_(self) -> str:
        from mrc_xarray.mrc.header_table import html

        return html(self)

    def replaced(self, **values: Any) -> Self:
        """Return this header with other values in some fields, and in those that share bytes.

        Raises MrcError if two of the new values share bytes, or a value does not fit its bytes.
        """
        header = dataclasses.replace(self, problems=(), **values)
        overlays = [field for field in _OVERLAYS if field.name in values]
        if not overlays and not values.keys() & {"extra1", "extra2"}:
            return header
        for one, other in itertools.pairwise(sorted(overlays, key=lambda field: field.offset)):
            if one.offset + one.nbytes > other.offset:
                raise MrcError(
                    f"the header fields {shown_place(one.name)} and {shown_place(other.name)} "
                    "share bytes: set only one of them"
                )
        raw = bytearray(HEADER_SIZE)
        for field in (*_FREE, *overlays):
            try:
                field.pack(raw, header)
            except (struct.error, OverflowError) as error:
                raise MrcError(
                    f"{field.name} is {header[field.name]!r}, which is more than a header can "
                    f"hold in {field.nbytes} bytes: {error}"
                ) from None
        shared = {f.name: f.unpack(raw, header.byteorder) for f in (*_FREE, *_OVERLAYS)}
        return dataclasses.replace(header, **shared)

    def with_statistics(self, fields: Mapping[str, float]) -> Self:
        """Return this header with other DMIN, DMAX, DMEAN and RMS.

        A header from before 2000 has no RMS: its bytes contain the position along Y. Files of
        Direct Electron are recognised by their values, which mean undetermined as well.
        """
        if self.is_direct_electron and fields == UNDETERMINED:
            return self
        is_old = self.is_old_style
        return self.replaced(**{k: v for k, v in fields.items() if not (is_old and k == "rms")})

    def encode(self) -> bytes:
        """Return the 1024 bytes.

        Raises struct.error or OverflowError if a value does not fit its field, and ValueError if
        it contradicts the bytes that it shares with ``extra1`` or ``extra2``.
        """
        raw = bytearray(HEADER_SIZE)
        for field in _STANDARD:
            field.pack(raw, self)
        for field in _OVERLAYS:
            value = self[field.name]
            # as text, since a NaN does not equal itself
            if repr(field.unpack(raw, self.byteorder)) != repr(value):
                raise ValueError(
                    f"the header field {field.name} is {value!r}, which contradicts the bytes "
                    "of extra1 and extra2: change it with Header.replaced"
                )
        return bytes(raw)

    def to_json(self) -> str:
        """Return the header as JSON text: the fields that differ from those of `blank`."""
        return json_text(fields_that_differ(self, _blank(self.byteorder)))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the header that `to_json` wrote; raise ValueError for anything else.

        JSON with every field, as earlier versions wrote it, is read as well.
        """
        try:
            values: dict[str, Any] = decode_json(text)
            if values["byteorder"] not in ("<", ">"):
                raise ValueError(f"not a header as JSON: byteorder is {values['byteorder']!r}")
            raw = packed(values, _blank_bytes(values["byteorder"]))
            # fields of dialects follow from the bytes that they share
            return cls.parse(raw, values["byteorder"])
        except (KeyError, OverflowError, TypeError, struct.error) as error:
            raise ValueError(f"not a header as JSON: {error!r}") from error

    @property
    def stamped_byteorder(self) -> ByteOrder | None:
        """The byte order that MACHST gives, or None if it gives none."""
        return stamped_byteorder(self.machst)

    @property
    def has_odd_stamp(self) -> bool:
        """Whether MACHST gives no byte order, but is one that some programs write."""
        return self.machst.startswith(_ODD_STAMPS)

    @property
    def has_map_word(self) -> bool:
        """Whether the file contains ``MAP``; some writers put a NUL after it."""
        return self.map[:3] == "MAP"

    @property
    def is_old_style(self) -> bool:
        """Whether this is a header from before 2000, with other fields at ORIGIN and MAP."""
        return not self.has_map_word and self.stamped_byteorder is None

    @property
    def has_valid_nversion(self) -> bool:
        """Whether NVERSION is a version of MRC2014."""
        return 20140 <= self.nversion < 21000

    @property
    def has_imod_stamp(self) -> bool:
        """Whether IMOD or SerialEM wrote this header."""
        return self.imod_stamp == IMOD_STAMP

    @property
    def sign_of_origin(self) -> int:
        """1 for MRC2014's sign; −1 for IMOD's, whose files with flag 4 have MRC2014's."""
        return -1 if self.has_imod_stamp and not self.imod_flags & 4 else 1

    @property
    def is_volume_stack(self) -> bool:
        """Whether ISPG means a volume stack, and MZ divides NZ."""
        return 401 <= self.ispg <= 630 and self.mz > 0 and self.nz % self.mz == 0

    @property
    def is_mrcz(self) -> bool:
        """Whether MODE says that the sections are compressed."""
        return self.codec_number > 0

    @property
    def codec_number(self) -> int:
        """The number of the codec in MODE; 0 for a plain file."""
        return max(self.mode, 0) // PER_CODEC

    @property
    def mrcz_version(self) -> tuple[int, ...] | None:
        """Version of the mrcz library in the first label, or None if mrcz did not write it."""
        if not is_mrcz_label(self.label[0]):
            return None
        digits = self.label[0][4:].strip().split(".")
        return tuple(int(part) for part in digits if part.isdecimal())

    @property
    def texts(self) -> list[str]:
        """The labels that are not blank."""
        return [text for text in self.label if text.strip(" \0")]

    @property
    def has_mrcz_fields(self) -> bool:
        """Whether voltage, C3 and gain have a meaning: in files of mrcz and of this package."""
        is_mrcz = self.is_mrcz or self.mrcz_version is not None
        is_ours = any(text.startswith("mrc_xarray") for text in self.texts[-1:])
        return (is_mrcz or is_ours) and self.skew is None

    @property
    def skew(self) -> tuple[float, ...] | None:
        """CCP4's skew transformation: nine numbers of SKWMAT, row by row, and SKWTRN in Å.

        None if there is none: LSKFLG is not 1, the numbers are garbage, or EXTTYP or NVERSION are
        in their place. See ``docs/reference/format.md#skew``.
        """
        exttyp = self.exttyp.strip()
        is_word = exttyp.isascii() and exttyp.isalnum()
        if self.lskflg != 1 or is_word or self.has_valid_nversion:
            return None
        # they extend over EXTTYP and NVERSION
        numbers = struct.unpack_from(
            self.byteorder + "12f", self.encode(), PLACES["LSKFLG"][0] + 4
        )
        is_matrix = all(map(math.isfinite, numbers)) and any(numbers[:9])
        return numbers if is_matrix else None

    @property
    def packed_evidence(self) -> str:
        """Why each byte of MODE 0 contains two pixels of 4 bits; empty if it is one pixel.

        See ``docs/reference/format.md#four-bits``.
        """
        is_negative = self.has_statistics and self.dmin < 0
        is_signed = self.imod_flags & 1 if self.has_imod_stamp else is_negative
        if self.mode < 0 or self.mode % PER_CODEC or is_signed:
            return ""
        if self.has_imod_stamp and self.imod_flags & 16:
            return "IMOD's flag 16 says that each byte contains two pixels of 4 bits"
        is_labelled = len(self.texts) == 1 and _PACKED_LABEL in self.texts[0]
        if is_labelled and _is_packed_size(self.nx, self.ny):
            return f"the label says {_PACKED_LABEL!r}, and a camera has this size"
        return ""

    @property
    def has_packed_bytes(self) -> bool:
        """Whether this is MODE 0 with two 4-bit pixels in each byte, so that NX counts pairs."""
        return bool(self.packed_evidence)

    @property
    def n_columns(self) -> int:
        """The number of columns of pixels: NX, or 2 NX if bytes are packed."""
        return 2 * self.nx if self.has_packed_bytes else self.nx

    @property
    def has_statistics(self) -> bool:
        """Whether DMIN, DMAX and DMEAN are finite and in the order of real statistics."""
        finite = all(map(math.isfinite, (self.dmin, self.dmax, self.dmean)))
        return finite and self.dmin < self.dmax and self.dmin <= self.dmean <= self.dmax

    @property
    def is_direct_electron(self) -> bool:
        """Whether a Direct Electron server wrote this header, by its signature.

        See ``docs/reference/format.md#direct-electron``. Its placeholder for an unknown pixel
        size is −10 Å.
        """
        return (
            self.nversion == 20140
            and not self.has_imod_stamp
            and not self.exttyp.strip()
            and self.nlabl == 0
            and (self.dmin, self.dmax, self.dmean, self.rms) == (2, 1, 0, -1)
            and self.cella.x < 0
        )


@functools.cache
def _blank(byteorder: ByteOrder) -> Header:
    return Header.blank(byteorder)


@functools.cache
def _blank_bytes(byteorder: ByteOrder) -> bytes:
    return _blank(byteorder).encode()


def _is_packed_size(nx: int, ny: int) -> bool:
    """Return whether frames of a counting camera have NX bytes and NY rows, to 2 as in IMOD."""
    sizes = (size for frame in _PACKED_FRAMES for size in (frame, frame[::-1]))
    return any(abs(nx - width // 2) <= 2 and abs(ny - height) <= 2 for width, height in sizes)


def is_mrcz_label(text: str) -> bool:
    """Return whether a label names mrcz, which decides by it what MZ means."""
    return text.startswith("MRCZ")


def stamped_byteorder(machst: bytes) -> ByteOrder | None:
    """Return the byte order that a machine stamp gives, or None if it gives none."""
    return _STAMPS.get(machst[:2])
