"""The JSON that mrcz, and this package, write between header and pixels. See FORMAT: MRCZ."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from mrc_xarray.format.errors import MrcError, Problem
from mrc_xarray.format.extended.records import problem
from mrc_xarray.format.header import Header
from mrc_xarray.format.metadata import Metadata

__all__ = [
    "KIND",
    "LONGEST",
    "is_deep",
    "is_text",
    "looks_like",
    "parse",
    "read",
    "record_size",
    "too_much",
]

#: Its EXTTYP.
KIND = "json"
#: No metadata of an image are longer, in bytes.
LONGEST = 256 * 1024**2
# objects in objects: Python gives up below 1000, and writes fewer than it reads
_DEEPEST = 200
_TOO_DEEP = f"nested more than {_DEEPEST} levels deep"
# JSON escapes all others within its texts
_BLANKS = b" \t\r\n"
_CONTROLS = bytes(set(range(32)) - set(_BLANKS))


def record_size(header: Header, raw: bytes) -> int:
    """Return 0: the metadata are of the file, and not of its sections."""
    return 0


def read(header: Header, raw: bytes, sections: np.ndarray[Any, Any] | None) -> Metadata:
    """Return nothing: what `parse` returns is no column."""
    return Metadata()


def looks_like(header: Header, raw: bytes) -> bool:
    """Return whether these bytes, the whole text or its beginning, are a JSON object."""
    begins = raw.lstrip(_BLANKS)
    is_object = begins.startswith(b"{") and begins[1:].lstrip(_BLANKS)[:1] in (b'"', b"}", b"")
    return is_object and is_text(raw)


def is_text(raw: bytes) -> bool:
    """Return whether bytes can be a part of JSON: its texts have no control characters."""
    return len(raw) == len(raw.translate(None, _CONTROLS))


def parse(name: str, raw: bytes) -> tuple[dict[str, Any] | None, list[Problem]]:
    """Return the metadata; None, and what is wrong, where they are no JSON object.

    Raises
    ------
    MrcError
        If there is not the memory for it, or its objects are nested too deeply.
    """
    try:
        metadata = json.loads(raw.decode())
    except RecursionError:
        raise too_much(name, len(raw), _TOO_DEEP) from None
    except MemoryError:
        raise too_much(name, len(raw), "more than there is memory for") from None
    except ValueError as error:
        return None, [_no_object(len(raw), f"not JSON: {error}")]
    if not isinstance(metadata, dict):
        return None, [_no_object(len(raw), f"JSON of type {type(metadata).__name__}")]
    if is_deep(metadata):
        raise too_much(name, len(raw), _TOO_DEEP)
    return metadata, []


def too_much(name: str, nbytes: int, found: str) -> MrcError:
    """Return the error for JSON of `nbytes` bytes that is not worth its memory."""
    accepted = f"JSON of up to {LONGEST} bytes and {_DEEPEST} levels, for which there is memory"
    action = "The file may be damaged, or made to do harm; it is not opened."
    return MrcError.of(name, problem(nbytes, found, accepted, action))


def _no_object(nbytes: int, found: str) -> Problem:
    accepted = "a JSON object, as EXTTYP says"
    return problem(nbytes, found, accepted, "The metadata are left out.")


def is_deep(value: Any) -> bool:
    """Return whether lists and objects are nested deeper than can be written and read anywhere."""
    level = [value]
    for _ in range(_DEEPEST):
        children = [c.values() if isinstance(c, dict) else c for c in level]
        level = [c for group in children for c in group if isinstance(c, dict | list)]
        if not level:
            return False
    return True
