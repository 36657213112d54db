"""The JSON that mrcz and this package write between header and pixels. See FORMAT: MRCZ."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from mrc_xarray.errors import MrcError, Problem
from mrc_xarray.metadata.columns import Metadata
from mrc_xarray.mrc.extended.records import problem
from mrc_xarray.mrc.header import Header

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

#: The EXTTYP, in lower case.
KIND = "json"
#: Longest JSON that is read, in bytes. No real metadata of an image are longer.
LONGEST = 256 * 1024**2
# levels of nesting; Python's limit is below 1000, and lower for writing than for reading
_DEEPEST = 200
# of a file, and more for coordinates of its sections
_MOST_VALUES, _MOST_VALUES_PER_SECTION = 2**18, 32
_TOO_DEEP = f"nested more than {_DEEPEST} levels deep"
# the only control characters that JSON does not escape
_BLANKS = b" \t\r\n"
_CONTROLS = bytes(set(range(32)) - set(_BLANKS))


def record_size(header: Header, raw: bytes) -> int:
    """Return 0: the metadata belong to the file, not to its sections."""
    return 0


def read(header: Header, raw: bytes, sections: np.ndarray[Any, Any] | None) -> Metadata:
    """Return empty metadata: JSON is decoded by `parse`, and has no columns."""
    return Metadata()


def looks_like(header: Header, raw: bytes) -> bool:
    """Return whether these bytes are a JSON object, or the beginning of one."""
    begins = raw.lstrip(_BLANKS)
    is_object = begins.startswith(b"{") and begins[1:].lstrip(_BLANKS)[:1] in (b'"', b"}", b"")
    return is_object and is_text(raw)


def is_text(raw: bytes) -> bool:
    """Return whether bytes can be part of JSON, whose strings contain no control characters."""
    return len(raw) == len(raw.translate(None, _CONTROLS))


def parse(name: str, raw: bytes, n_sections: int) -> tuple[dict[str, Any] | None, list[Problem]]:
    """Decode the JSON of an extended header.

    Parameters
    ----------
    name : str
        The file's, for messages.
    raw : bytes
        The extended header.

    Returns
    -------
    metadata : dict or None
        None if the bytes are not a JSON object.
    problems : list of Problem
        In that case, what is wrong.

    Raises
    ------
    MrcError
        If the JSON needs more memory than there is, or is nested too deeply.
    """
    n_values = sum(map(raw.count, (b",", b"[", b"{")))
    most = _MOST_VALUES + _MOST_VALUES_PER_SECTION * n_sections
    if n_values > most:
        # each takes some 100 bytes of memory, of three in the file
        raise too_much(name, len(raw), f"about {n_values} values, more than {most}")
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
    """Return the error for JSON of `nbytes` bytes that is too long or too deep to read."""
    accepted = f"JSON of up to {LONGEST} bytes and {_DEEPEST} levels that fits into memory"
    action = "The file is not opened. It may be damaged or malicious."
    return MrcError.of(name, problem(nbytes, found, accepted, action))


def _no_object(nbytes: int, found: str) -> Problem:
    accepted = "a JSON object, as EXTTYP says"
    return problem(nbytes, found, accepted, "The metadata are left out.")


def is_deep(value: Any) -> bool:
    """Return whether lists and objects are nested too deeply to be written and read reliably."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(_DEEPEST):
        children = [c.values() if isinstance(c, dict) else c for c in level]
        level = [c for group in children for c in group if isinstance(c, dict | list)]
        if not level:
            return False
    return True
