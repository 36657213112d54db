"""The JSON that mrcz and this package write between header and pixels. See FORMAT: MRCZ."""

from __future__ import annotations

from typing import Any

import numpy as np

from mrc_xarray.errors import MrcError, Problem
from mrc_xarray.metadata.columns import Metadata
from mrc_xarray.mrc.extended.records import problem
from mrc_xarray.mrc.header import Header
from mrc_xarray.safe_json import DEEPEST, LONGEST, JsonLimitError, decode_json

__all__ = [
    "KIND",
    "is_text",
    "looks_like",
    "parse",
    "read",
    "record_size",
    "too_much",
]

#: The EXTTYP, in lower case.
KIND = "json"
# of a file, and more for coordinates of its sections
_MOST_VALUES, _MOST_VALUES_PER_SECTION = 2**18, 32
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
    most_values = _MOST_VALUES + _MOST_VALUES_PER_SECTION * n_sections
    try:
        metadata = decode_json(raw, most_values=most_values)
    except JsonLimitError as error:
        raise too_much(name, len(raw), str(error)) from None
    except ValueError as error:
        return None, [_no_object(len(raw), f"not JSON: {error}")]
    if not isinstance(metadata, dict):
        return None, [_no_object(len(raw), f"JSON of type {type(metadata).__name__}")]
    return metadata, []


def too_much(name: str, nbytes: int, found: str) -> MrcError:
    """Return the error for JSON of `nbytes` bytes that is too long or too deep to read."""
    accepted = f"JSON of up to {LONGEST} bytes and {DEEPEST} levels that fits into memory"
    action = "The file is not opened. It may be damaged or malicious."
    return MrcError.of(name, problem(nbytes, found, accepted, action))


def _no_object(nbytes: int, found: str) -> Problem:
    accepted = "a JSON object, as EXTTYP says"
    return problem(nbytes, found, accepted, "The metadata are left out.")
