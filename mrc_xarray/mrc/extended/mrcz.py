"""The JSON that mrcz and this package write between header and pixels.

See ``docs/reference/format.md#mrcz``.
"""

from __future__ import annotations

from collections.abc import Iterator

from mrc_xarray.errors import MrcError
from mrc_xarray.metadata.columns import Metadata
from mrc_xarray.mrc.extended.kind import ExtendedHeader, problem
from mrc_xarray.mrc.header import HEADER_SIZE, Header
from mrc_xarray.safe_json import DEEPEST, LONGEST, JsonLimitError, decode_json
from mrc_xarray.storage.base import Bytes

__all__ = ["JSON"]

# of a file, and more for coordinates of its sections
_MOST_VALUES, _MOST_VALUES_PER_SECTION = 2**18, 32
# bytes that are read at a time
_PIECE = 16 * 1024**2
# the only control characters that JSON does not escape
_BLANKS = b" \t\r\n"
_CONTROLS = bytes(set(range(32)) - set(_BLANKS))


def _is_kind(header: Header, extended_size: int) -> bool:
    return header.exttyp.strip().lower() == "json"


def _matches(header: Header, raw: bytes) -> bool:
    """Return whether the bytes are a JSON object, or the beginning of one."""
    begins = raw.lstrip(_BLANKS)
    is_object = begins.startswith(b"{") and begins[1:].lstrip(_BLANKS)[:1] in (b'"', b"}", b"")
    return is_object and _is_text(raw)


def _is_text(raw: bytes) -> bool:
    """Return whether bytes can be part of JSON, whose strings contain no control characters."""
    return len(raw) == len(raw.translate(None, _CONTROLS))


def _read_text(
    source: Bytes, header: Header, head: bytes, extended_size: int, n_sections: int
) -> Metadata:
    end = HEADER_SIZE + extended_size
    raw = head[HEADER_SIZE:end]
    if end > len(head) and _matches(header, raw):
        if extended_size > LONGEST:
            raise _too_much(source.name, extended_size, f"{extended_size} bytes long")
        raw = b"".join(_pieces(source, HEADER_SIZE, end))
    return _parse(source.name, raw, n_sections)


def _pieces(source: Bytes, start: int, end: int) -> Iterator[bytes]:
    """Yield a text in pieces, up to the first piece that is not text.

    A hole in a sparse file is not read to its end.
    """
    for at in range(start, end, _PIECE):
        piece = source.read(at, min(_PIECE, end - at))
        yield piece
        if not _is_text(piece):
            return


def _parse(name: str, raw: bytes, n_sections: int) -> Metadata:
    """Return a JSON object as `keys`; raise if it needs too much memory, or is too deep."""
    most_values = _MOST_VALUES + _MOST_VALUES_PER_SECTION * n_sections
    try:
        metadata = decode_json(raw, most_values=most_values)
    except JsonLimitError as error:
        raise _too_much(name, len(raw), str(error)) from None
    except ValueError as error:
        return _no_object(len(raw), f"not JSON: {error}")
    if not isinstance(metadata, dict):
        return _no_object(len(raw), f"JSON of type {type(metadata).__name__}")
    return Metadata(keys=metadata)


def _no_object(nbytes: int, found: str) -> Metadata:
    accepted, action = "a JSON object, because of EXTTYP", "The metadata are left out."
    return Metadata(problems=(problem(nbytes, found, accepted, action),))


def _too_much(name: str, nbytes: int, found: str) -> MrcError:
    accepted = f"JSON of up to {LONGEST} bytes and {DEEPEST} levels that fits into memory"
    action = "The file is not opened. It may be damaged or malicious."
    return MrcError.of(name, problem(nbytes, found, accepted, action))


JSON = ExtendedHeader(
    name="json", is_kind=_is_kind, matches=_matches, is_carried=False, read_text=_read_text
)
