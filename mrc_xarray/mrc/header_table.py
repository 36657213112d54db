"""The fields of a header for people: names, values and meanings."""

from __future__ import annotations

from collections.abc import Iterator

from mrc_xarray.markup import escaped, table
from mrc_xarray.mrc.dialects import other_meanings
from mrc_xarray.mrc.fields import FIELDS, Field
from mrc_xarray.mrc.header import Header
from mrc_xarray.text import aligned, printable

__all__ = ["html", "rows", "text"]

# bytes whose meaning is in the fields of dialects
_FREE = ("extra1", "extra2")
# fields of IMOD that other programs have in the same place
_SHARED = ("nint", "nreal")
_ALWAYS = ("nx", "ny", "nz", "mode")
# characters of a label with escapes, if there is garbage in its place
_LONGEST = 100
# of types that no file has; a representation raises no error
_UNKNOWN = "<MRC header with fields of other types: {!r}>"


def rows(header: Header, *, every_field: bool = False) -> list[tuple[str, str, str]]:
    """Return name, value and meaning of the fields that have a meaning in the file, or of all."""
    fields = FIELDS if every_field else _meant(header)
    return [row for field in fields for row in _rows(header, field)]


def html(header: Header) -> str:
    """Return an HTML table of the fields that have a meaning in the file."""
    try:
        return table(rows(header))
    except Exception as error:
        return escaped(_UNKNOWN.format(error))


def text(header: Header) -> str:
    """Return lines of the fields that differ from those of an empty header."""
    try:
        empty = Header.blank(header.byteorder)
        fields = (
            f for f in _meant(header) if f.name in _ALWAYS or header[f.name] != empty[f.name]
        )
        lines = aligned(row for field in fields for row in _rows(header, field))
    except Exception as error:
        return printable(_UNKNOWN.format(error))
    order = "little" if header.byteorder == "<" else "big"
    return "\n".join([f"<MRC header, {order}-endian>", *lines])


def _meant(header: Header) -> list[Field]:
    """Return the fields of MRC2014, and those of a dialect that the file is in."""
    others = other_meanings(header)

    def has_meaning(field: Field) -> bool:
        is_foreign = field.dialect == "IMOD" and not header.has_imod_stamp
        if field.name in (*others, *_FREE) or (is_foreign and field.name not in _SHARED):
            return False
        if not field.dialect:
            return True
        value = header[field.name]
        return any(value) if isinstance(value, tuple) else bool(value)

    return [field for field in FIELDS if has_meaning(field)]


def _rows(header: Header, field: Field) -> Iterator[tuple[str, str, str]]:
    name, value = field.name.upper(), header[field.name]
    if field.name == "label":
        for number, label in enumerate(value, 1):
            if label.strip(" \0"):
                yield f"LABEL {number}", _clipped(printable(label.rstrip())), ""
    elif isinstance(value, str):
        yield name, repr(value), field.meaning
    else:
        yield name, header.shown(field.name), field.meaning


def _clipped(label: str) -> str:
    return label if len(label) <= _LONGEST else f"{label[:_LONGEST]}…"
