"""The 1024 bytes of the main header, as one table.

See ``docs/reference/format.md#header`` for MRC2014 with its update 20141, and for the names that
IMOD, MRCZ and CCP4 give to the bytes that MRC2014 leaves free.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from mrc_xarray.errors import Problem
from mrc_xarray.pixels.modes import ByteOrder

__all__ = [
    "FIELDS",
    "HEADER_SIZE",
    "N_LABELS",
    "PLACES",
    "XYZ",
    "Field",
    "Fields",
    "header_problem",
    "shown_place",
]

HEADER_SIZE = 1024
N_LABELS = 10


class XYZ(NamedTuple):
    """Three numbers along the X, Y and Z axes of the cell."""

    x: float
    y: float
    z: float


def _at(offset: int, code: str, meaning: str, *, dialect: str = "") -> Any:
    """Place a header field: first byte, `struct` code, meaning, and dialect if not in MRC2014."""
    return dataclasses.field(
        metadata={"offset": offset, "code": code, "dialect": dialect, "meaning": meaning}
    )


@dataclass(frozen=True)
class Fields(Mapping[str, Any]):
    """Every field of an MRC header, as found in the file.

    Fields have MRC2014's names in lower case. They are attributes (``header.nx``) and also items
    (``header["NX"]``). Integers are Python integers, so that arithmetic on them does not
    overflow. Text includes its blanks, but not the NULs at its end. ``extra1`` and ``extra2`` are
    the bytes that MRC2014 leaves free. The fields after ``label`` are what IMOD, MRCZ and CCP4
    store in these bytes; they have a meaning only in a file of that dialect. ``byteorder`` is the
    order of the bytes of all numbers, ``"<"`` or ``">"``. ``print(header)`` has the meaning of
    each field.
    """

    byteorder: ByteOrder
    nx: int = _at(0, "i", "columns")
    ny: int = _at(4, "i", "rows")
    nz: int = _at(8, "i", "sections")
    mode: int = _at(12, "i", "type of a pixel")
    nxstart: int = _at(16, "i", "first column in the cell, in voxels")
    nystart: int = _at(20, "i", "first row in the cell, in voxels")
    nzstart: int = _at(24, "i", "first section in the cell, in voxels")
    mx: int = _at(28, "i", "intervals of the cell along X")
    my: int = _at(32, "i", "intervals of the cell along Y")
    mz: int = _at(36, "i", "intervals of the cell along Z; 1 in an image stack")
    cella: XYZ = _at(40, "3f", "edges of the cell along X, Y, Z, in Å")
    cellb: XYZ = _at(52, "3f", "angles of the cell, in degrees")
    mapc: int = _at(64, "i", "axis of columns: 1 X, 2 Y, 3 Z")
    mapr: int = _at(68, "i", "axis of rows")
    maps: int = _at(72, "i", "axis of sections")
    dmin: float = _at(76, "f", "minimum of the pixels")
    dmax: float = _at(80, "f", "maximum of the pixels; undetermined if it is below DMIN")
    dmean: float = _at(84, "f", "mean of the pixels")
    ispg: int = _at(88, "i", "space group: 0 images, 1 volume, 401–630 volume stack")
    nsymbt: int = _at(92, "i", "length of the extended header, in bytes")
    extra1: bytes = _at(96, "8s", "bytes for other programs")
    exttyp: str = _at(104, "4s", "kind of the extended header")
    nversion: int = _at(108, "i", "version of the format: 10 × year + revision")
    extra2: bytes = _at(112, "84s", "bytes for other programs")
    origin: XYZ = _at(196, "3f", "position of the first voxel along X, Y, Z, in Å")
    map: str = _at(208, "4s", "identifies an MRC file")
    machst: bytes = _at(212, "4s", "machine stamp: the byte order")
    rms: float = _at(216, "f", "standard deviation of the pixels; negative if not computed")
    nlabl: int = _at(220, "i", "labels in use")
    label: tuple[str, ...] = _at(224, "80s" * N_LABELS, "text")
    creatid: int = _at(96, "h", "creator of the file", dialect="IMOD")
    lskflg: int = _at(96, "i", "1 if there is a skew transformation", dialect="CCP4")
    nint: int = _at(128, "h", "integers or bytes in a record", dialect="IMOD")
    nreal: int = _at(130, "h", "floats in a record, or flags", dialect="IMOD")
    sub: int = _at(132, "h", "unused", dialect="IMOD")
    zfac: int = _at(134, "h", "unused", dialect="IMOD")
    min2: float = _at(136, "f", "minimum of the second image", dialect="IMOD")
    max2: float = _at(140, "f", "maximum of the second image", dialect="IMOD")
    min3: float = _at(144, "f", "minimum of the third image", dialect="IMOD")
    max3: float = _at(148, "f", "maximum of the third image", dialect="IMOD")
    imod_stamp: int = _at(152, "i", "1146047817 if IMOD wrote the header", dialect="IMOD")
    imod_flags: int = _at(
        156, "i", "1 signed bytes, 4 sign of ORIGIN, 16 packed bytes", dialect="IMOD"
    )
    idtype: int = _at(160, "h", "0 mono, 1 tilt, 2 tilts, 3 lina, 4 lins", dialect="IMOD")
    lens: int = _at(162, "h", "lens", dialect="IMOD")
    nd1: int = _at(164, "h", "axis of the tilt", dialect="IMOD")
    nd2: int = _at(166, "h", "depends on IDTYPE", dialect="IMOD")
    vd1: int = _at(168, "h", "tilt increment, in 0.01 degrees", dialect="IMOD")
    vd2: int = _at(170, "h", "first tilt angle, in 0.01 degrees", dialect="IMOD")
    tiltangles: tuple[float, ...] = _at(
        172, "6f", "original and current rotation, in degrees", dialect="IMOD"
    )
    voltage: float = _at(132, "f", "acceleration voltage, in kV", dialect="MRCZ")
    c3: float = _at(136, "f", "spherical aberration, in mm", dialect="MRCZ")
    gain: float = _at(140, "f", "electrons per count", dialect="MRCZ")
    packed_bytes: int = _at(144, "q", "length of all blocks, in bytes", dialect="MRCZ")

    def __getitem__(self, name: str) -> Any:
        found = str(name).lower()
        if found not in _NAMES:
            raise KeyError(f"{name!r} is not a field of the MRC header")
        return vars(self)[found]

    def __iter__(self) -> Iterator[str]:
        return iter(_NAMES)

    def __len__(self) -> int:
        return len(_NAMES)

    def problem(self, code: str, fields: str, accepted: str, action: str) -> Problem:
        """Return what is wrong with adjacent fields, as in "NX, NY", with values and place."""
        found = ", ".join(map(self.shown, fields.split(", ")))
        return header_problem(code, fields, found, accepted, action)

    def shown(self, name: str) -> str:
        """Return the value of a field as text, in which bytes are hexadecimal."""
        return _shown(self[name], PLACES[name.upper()][1])


class Field(NamedTuple):
    """A row of the table; `kind` is the annotation of the field in `Fields`."""

    name: str
    offset: int
    code: str
    dialect: str
    meaning: str
    kind: str

    @property
    def nbytes(self) -> int:
        """Length in bytes."""
        return struct.calcsize("<" + self.code)

    def unpack(self, raw: bytes | bytearray, byteorder: ByteOrder) -> Any:
        """Return the value of the field in the bytes of a header."""
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


FIELDS = [
    Field(field.name, kind=str(field.type), **field.metadata)
    for field in dataclasses.fields(Fields)
    if field.metadata
]

# in the order of a header; a dictionary, since looking them up has to be quick
_NAMES = dict.fromkeys(("byteorder", *(field.name for field in FIELDS)))

#: Field names as MRC2014 spells them, with first byte and length.
PLACES: dict[str, tuple[int, int]] = {
    field.name.upper(): (field.offset, field.nbytes) for field in FIELDS
}


def header_problem(code: str, field: str, found: object, accepted: str, action: str) -> Problem:
    """Return what is wrong with a header field, or with adjacent ones, as in "NX, NY"."""
    places = [PLACES[name] for name in field.split(", ")]
    offset, nbytes = places[0][0], sum(nbytes for _, nbytes in places)
    return Problem(code, field, str(found), accepted, action, offset=offset, nbytes=nbytes)


def shown_place(name: str) -> str:
    """Return the name of a field in messages, with its bytes."""
    offset, nbytes = PLACES[name.upper()]
    return f"{name.upper()} (bytes {offset}–{offset + nbytes - 1})"


def _shown(value: Any, nbytes: int) -> str:
    if isinstance(value, bytes):
        return value.hex(" ")
    if isinstance(value, str):
        return repr(value.ljust(nbytes, "\0"))
    if isinstance(value, tuple):
        return ", ".join(f"{v:g}" for v in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
