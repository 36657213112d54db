"""The 1024 bytes of the main header, as one table.

See ``docs/reference/format.md#header`` for MRC2014 with its update 20141, and for the names that
IMOD, MRCZ and CCP4 give to the bytes that MRC2014 leaves free.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from mrc_xarray.errors import MrcError, Problem
from mrc_xarray.pixels.modes import PER_CODEC, ByteOrder
from mrc_xarray.pixels.statistics import UNDETERMINED
from mrc_xarray.safe_json import decode_json
from mrc_xarray.text import json_text

__all__ = [
    "HEADER_SIZE",
    "N_LABELS",
    "PLACES",
    "XYZ",
    "Header",
    "header_problem",
    "is_mrcz_label",
    "stamped_byteorder",
]

HEADER_SIZE = 1024
N_LABELS = 10

_STAMPS: dict[bytes, ByteOrder] = {b"\x44\x44": "<", b"\x44\x41": "<", b"\x11\x11": ">"}
_IMOD_STAMP = int.from_bytes(b"IMOD", "little")


class XYZ(NamedTuple):
    """Three numbers along the X, Y and Z axes of the cell."""

    x: float
    y: float
    z: float


def _at(offset: int, code: str, *, dialect: str = "") -> Any:
    """Place a header field: its first byte, `struct` code, and dialect if not in MRC2014."""
    return dataclasses.field(metadata={"offset": offset, "code": code, "dialect": dialect})


@dataclass(frozen=True)
class Header(Mapping[str, Any]):
    """Every field of an MRC header, as found in the file.

    Fields have MRC2014's names in lower case. They are attributes (``header.nx``) and also items
    (``header["NX"]``). Integers are Python integers, so that arithmetic on them does not
    overflow. Text includes its blanks, but not the NULs at its end. ``extra1`` and ``extra2`` are
    the bytes that MRC2014 leaves free. The fields after ``label`` are what IMOD, MRCZ and CCP4
    store in these bytes; they have a meaning only in a file of that dialect.

    Attributes
    ----------
    byteorder : {"<", ">"}
        The byte order of all numbers.
    nx, ny, nz : int
        Columns (fastest), rows, sections.
    mode : int
        How a pixel is stored; see `mrc_xarray.pixels.modes`.
    nxstart, nystart, nzstart : int
        First column, row and section in the cell, in voxels, in the order of the file's axes.
    mx, my, mz : int
        Intervals of the cell along X, Y, Z. MZ is 1 in an image stack, and the number of sections
        of one volume in a volume stack.
    cella : XYZ of float, Å
        Cell edges.
    cellb : XYZ of float, degrees
        Cell angles.
    mapc, mapr, maps : int
        The axis of columns, rows and sections: 1 for X, 2 for Y, 3 for Z.
    dmin, dmax, dmean, rms : float
        Statistics of the data; undetermined where DMAX < DMIN, DMEAN < DMIN, RMS < 0.
    ispg : int
        Space group: 0 image or image stack, 1 volume, 401–630 volume stack.
    nsymbt : int
        Length of the extended header in bytes.
    exttyp : str
        Kind of the extended header.
    nversion : int
        10 × year + revision of the format, or 0.
    origin : XYZ of float, Å
        Position of the first voxel.
    map : str
        ``"MAP "``.
    machst : bytes, length 4
        Machine stamp.
    nlabl : int
        Number of labels in use, often wrong.
    label : tuple of str, length 10
        Free text, 80 bytes each.
    nint, nreal : int
        Per section of the extended header: integers and floats (AGAR, FEI), or bytes and flags
        (SERI).
    imod_stamp, imod_flags : int
        IMOD's stamp, and bits: 1 bytes are signed, 4 the origin has MRC2014's sign.
    voltage, c3, gain : float
        MRCZ: kV, mm, electrons per count.
    packed_bytes : int
        MRCZ: compressed size of all blocks, in bytes.
    """

    byteorder: ByteOrder
    nx: int = _at(0, "i")
    ny: int = _at(4, "i")
    nz: int = _at(8, "i")
    mode: int = _at(12, "i")
    nxstart: int = _at(16, "i")
    nystart: int = _at(20, "i")
    nzstart: int = _at(24, "i")
    mx: int = _at(28, "i")
    my: int = _at(32, "i")
    mz: int = _at(36, "i")
    cella: XYZ = _at(40, "3f")
    cellb: XYZ = _at(52, "3f")
    mapc: int = _at(64, "i")
    mapr: int = _at(68, "i")
    maps: int = _at(72, "i")
    dmin: float = _at(76, "f")
    dmax: float = _at(80, "f")
    dmean: float = _at(84, "f")
    ispg: int = _at(88, "i")
    nsymbt: int = _at(92, "i")
    extra1: bytes = _at(96, "8s")
    exttyp: str = _at(104, "4s")
    nversion: int = _at(108, "i")
    extra2: bytes = _at(112, "84s")
    origin: XYZ = _at(196, "3f")
    map: str = _at(208, "4s")
    machst: bytes = _at(212, "4s")
    rms: float = _at(216, "f")
    nlabl: int = _at(220, "i")
    label: tuple[str, ...] = _at(224, "80s" * N_LABELS)
    creatid: int = _at(96, "h", dialect="IMOD")
    lskflg: int = _at(96, "i", dialect="CCP4")
    nint: int = _at(128, "h", dialect="IMOD")
    nreal: int = _at(130, "h", dialect="IMOD")
    sub: int = _at(132, "h", dialect="IMOD")
    zfac: int = _at(134, "h", dialect="IMOD")
    min2: float = _at(136, "f", dialect="IMOD")
    max2: float = _at(140, "f", dialect="IMOD")
    min3: float = _at(144, "f", dialect="IMOD")
    max3: float = _at(148, "f", dialect="IMOD")
    imod_stamp: int = _at(152, "i", dialect="IMOD")
    imod_flags: int = _at(156, "i", dialect="IMOD")
    idtype: int = _at(160, "h", dialect="IMOD")
    lens: int = _at(162, "h", dialect="IMOD")
    nd1: int = _at(164, "h", dialect="IMOD")
    nd2: int = _at(166, "h", dialect="IMOD")
    vd1: int = _at(168, "h", dialect="IMOD")
    vd2: int = _at(170, "h", dialect="IMOD")
    tiltangles: tuple[float, ...] = _at(172, "6f", dialect="IMOD")
    voltage: float = _at(132, "f", dialect="MRCZ")
    c3: float = _at(136, "f", dialect="MRCZ")
    gain: float = _at(140, "f", dialect="MRCZ")
    packed_bytes: int = _at(144, "q", dialect="MRCZ")

    @classmethod
    def parse(cls, raw: bytes | bytearray, byteorder: ByteOrder) -> Self:
        """Decode the first 1024 bytes of a file."""
        header = cls.__new__(cls)
        # the __init__ of a frozen dataclass would take half of the time of opening
        values = {field.name: field.unpack(raw, byteorder) for field in _FIELDS}
        vars(header).update({"byteorder": byteorder} | values)
        return header

    @classmethod
    def blank(cls, byteorder: ByteOrder = "<", extra: bytes = bytes(52)) -> Self:
        """Return the header of a new file, without dimensions, cell or pixels.

        `extra` are bytes 96 to 147, with NVERSION, where CCP4 has a skew transformation.
        """
        header = cls.parse(bytes(96) + extra + bytes(HEADER_SIZE - 96 - len(extra)), byteorder)
        return header.replaced(
            cellb=XYZ(90, 90, 90),
            mapc=1,
            mapr=2,
            maps=3,
            nversion=header.nversion if any(extra) else 20141,
            map="MAP ",
            machst=b"\x44\x44\0\0" if byteorder == "<" else b"\x11\x11\0\0",
            **UNDETERMINED,
        )

    def replaced(self, **values: Any) -> Self:
        """Return this header with other values in some fields, and in those that share bytes.

        Raises MrcError if two of the new values share bytes, or a value does not fit its bytes.
        """
        header = dataclasses.replace(self, **values)
        overlays = [field for field in _OVERLAYS if field.name in values]
        if not overlays and not values.keys() & {"extra1", "extra2"}:
            return header
        for one, other in itertools.pairwise(sorted(overlays, key=lambda field: field.offset)):
            if one.offset + one.nbytes > other.offset:
                raise MrcError(
                    f"the header fields {one.name.upper()} and {other.name.upper()} share bytes "
                    f"(from byte {other.offset} on): set only one of them"
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
        """Return the header as JSON text, with bytes as Latin-1 text and NaN as "nan"."""
        return json_text({key: _to_plain(value) for key, value in vars(self).items()})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the header that `to_json` wrote; raise ValueError for anything else."""
        raw = bytearray(HEADER_SIZE)
        try:
            values: dict[str, Any] = decode_json(text)
            if values["byteorder"] not in ("<", ">"):
                raise ValueError(f"not a header as JSON: byteorder is {values['byteorder']!r}")
            # fields of dialects follow from the bytes that they share
            for field in _STANDARD:
                field.pack(raw, values)
            return cls.parse(raw, values["byteorder"])
        except (KeyError, OverflowError, TypeError, struct.error) as error:
            raise ValueError(f"not a header as JSON: {error!r}") from error

    def __getitem__(self, name: str) -> Any:
        try:
            return vars(self)[str(name).lower()]
        except KeyError:
            raise KeyError(f"{name!r} is not a field of the MRC header") from None

    def __iter__(self) -> Iterator[str]:
        return iter(vars(self))

    def __len__(self) -> int:
        return len(vars(self))

    def problem(self, code: str, fields: str, accepted: str, action: str) -> Problem:
        """Return what is wrong with adjacent fields, as in "NX, NY", with values and place."""
        found = ", ".join(_shown(self[name], PLACES[name][1]) for name in fields.split(", "))
        return header_problem(code, fields, found, accepted, action)

    @property
    def stamped_byteorder(self) -> ByteOrder | None:
        """The byte order that MACHST gives, or None if it gives none."""
        return stamped_byteorder(self.machst)

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
        return self.imod_stamp == _IMOD_STAMP

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
    def has_mrcz_fields(self) -> bool:
        """Whether voltage, C3 and gain have a meaning: in files of mrcz and of this package."""
        last = [text for text in self.label if text.strip()][-1:]
        return self.mrcz_version is not None or any(t.startswith("mrc_xarray") for t in last)

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


def is_mrcz_label(text: str) -> bool:
    """Return whether a label names mrcz, which decides by it what MZ means."""
    return text.startswith("MRCZ")


def stamped_byteorder(machst: bytes) -> ByteOrder | None:
    """Return the byte order that a machine stamp gives, or None if it gives none."""
    return _STAMPS.get(machst[:2])


class _Field(NamedTuple):
    """A row of the table; `kind` is the annotation of the field in `Header`."""

    name: str
    offset: int
    code: str
    dialect: str
    kind: str

    @property
    def nbytes(self) -> int:
        return struct.calcsize("<" + self.code)

    def unpack(self, raw: bytes | bytearray, byteorder: ByteOrder) -> Any:
        values = struct.unpack_from(byteorder + self.code, raw, self.offset)
        if "str" in self.kind:
            values = tuple(text.rstrip(b"\0").decode("latin-1") for text in values)
        if self.kind == "XYZ":
            return XYZ(*values)
        return values if "tuple" in self.kind else values[0]

    def pack(self, raw: bytearray, header: Mapping[str, Any]) -> None:
        """Write the field of a header, or of its JSON, where floats and bytes can be text."""
        value = header[self.name]
        values: Iterable[Any] = value if isinstance(value, tuple | list) else (value,)
        if "f" in self.code:
            values = map(float, values)
        encoded = (v.encode("latin-1") if isinstance(v, str) else v for v in values)
        struct.pack_into(header["byteorder"] + self.code, raw, self.offset, *encoded)


def _to_plain(value: Any) -> Any:
    """Return a value that strict JSON can store."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, tuple):
        return [_to_plain(v) for v in value]
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


_FIELDS = [
    _Field(field.name, kind=str(field.type), **field.metadata)
    for field in dataclasses.fields(Header)
    if field.metadata
]
_STANDARD = [field for field in _FIELDS if not field.dialect]
# the bytes that MRC2014 leaves free, and what dialects store in them
_FREE = [field for field in _FIELDS if field.name in ("extra1", "extra2")]
_OVERLAYS = [field for field in _FIELDS if field.dialect]

#: Field names as MRC2014 spells them, with first byte and length.
PLACES: dict[str, tuple[int, int]] = {
    field.name.upper(): (field.offset, field.nbytes) for field in _FIELDS
}


def header_problem(code: str, field: str, found: object, accepted: str, action: str) -> Problem:
    """Return what is wrong with a header field, or with adjacent ones, as in "NX, NY"."""
    places = [PLACES[name] for name in field.split(", ")]
    offset, nbytes = places[0][0], sum(nbytes for _, nbytes in places)
    return Problem(code, field, str(found), accepted, action, offset=offset, nbytes=nbytes)


def _shown(value: Any, nbytes: int) -> str:
    if isinstance(value, bytes):
        return value.hex(" ")
    if isinstance(value, str):
        return repr(value.ljust(nbytes, "\0"))
    return ", ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else str(value)
