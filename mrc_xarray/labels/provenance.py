"""What attributes say of the file that data were opened from, and which of them are trusted.

Attributes pass through arithmetic, and through netCDF and Zarr files that anyone may have made.
They are data, and nothing is opened because an attribute names it. Only the source that a
`SourceName` carries leads back to a file, and no file can store that.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np
import xarray as xr

from mrc_xarray.errors import MrcError, warn
from mrc_xarray.mrc.extended.mrcz import LONGEST, is_deep
from mrc_xarray.mrc.header import HEADER_SIZE, Header
from mrc_xarray.storage import ByteSource, MemorySource, redacted

__all__ = ["SourceName", "extended_header", "header_of", "metadata_of", "well_formed"]

Labelled = TypeVar("Labelled", bound="xr.Dataset | xr.DataArray")

# characters of a name or a rule, and of a header as JSON
_LONGEST_TEXT = 2**14
_LONGEST_HEADER = 2**16


class SourceName(str):
    """The name of the file that data were opened from, as a `str` that also carries its source.

    netCDF, Zarr and JSON store it as a plain `str`, and return a plain `str`. Copies also carry
    the source. So do pickled copies, if the file has a name to open it by.

    Attributes
    ----------
    source : ByteSource
        The file, as it was when it was opened.
    extended_size : int
        Length of the extended header in bytes.
    """

    source: ByteSource
    extended_size: int

    def __new__(cls, name: str, source: ByteSource, extended_size: int) -> SourceName:
        """Make a name.

        Parameters
        ----------
        name : str
        source : ByteSource
            The file, as it was when it was opened.
        extended_size : int
            Length of the extended header in bytes.
        """
        self = super().__new__(cls, name)
        if isinstance(source, MemorySource):
            # do not hold the pixels in memory for as long as the attribute exists
            source = MemorySource(source.data[: HEADER_SIZE + extended_size], source.name)
        try:
            # a copy does not hold decoded bytes, which belong to the array
            self.source = copy.copy(source)
        except TypeError:
            # an open file object can't be copied
            self.source = source
        self.extended_size = extended_size
        return self

    def __copy__(self) -> SourceName:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> SourceName:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            is_elsewhere = bool(self.source.__reduce__()) and not isinstance(
                self.source, MemorySource
            )
        except TypeError:
            is_elsewhere = False
        if not is_elsewhere:
            return str, (str(self),)
        return SourceName, (str(self), self.source, self.extended_size)

    def extended_header(self) -> bytes:
        """Read the bytes between header and pixels.

        Raises
        ------
        OSError
            If the file is no longer there.
        MrcError
            If the file is not the one that was opened.
        """
        if not self.extended_size:
            return b""
        raw = self.source.read(HEADER_SIZE, self.extended_size)
        if len(raw) < self.extended_size:
            raise MrcError(
                f"{self}: the file changed since it was opened: its extended header has "
                f"{len(raw)} of {self.extended_size} bytes"
            )
        return raw


def header_of(attrs: Mapping[Any, Any]) -> Header | None:
    """Return the header that data were opened with, or None if they have none."""
    text = attrs.get("mrc_header")
    return None if text is None else Header.from_json(text)


def metadata_of(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the metadata of a file and its sidecars; empty if there are none."""
    metadata: dict[str, Any] = json.loads(attrs.get("mrc_metadata", "{}"))
    return metadata


def extended_header(attrs: Mapping[Any, Any]) -> bytes:
    """Return the bytes between header and pixels, from the file that data were opened from.

    Returns
    -------
    bytes
        Empty if there are none.

    Raises
    ------
    OSError
        If the file is no longer there.
    MrcError
        If another file is there, or if the data were not opened from it in this session.
    """
    name = attrs.get("mrc_source")
    if isinstance(name, SourceName):
        return name.extended_header()
    if attrs.get("mrc_extended_bytes"):
        raise MrcError(
            f"{redacted(str(name))[:200]}: the extended header of this file is not stored with "
            "the data, and the data were not opened from the file in this session. Open the MRC "
            "file itself with engine='mrc', or pass extended_header= to to_file"
        )
    return b""


def well_formed(obj: Labelled) -> Labelled:
    """Return labelled data without malformed attributes of this package.

    Parameters
    ----------
    obj : DataArray or Dataset

    Returns
    -------
    DataArray or Dataset
        The same object if all attributes are well formed, else a shallow copy.

    Warns
    -----
    MrcWarning
        One, which names the malformed attributes.
    """
    malformed = [f"{where}{key}" for where, _, key in _malformed(obj)]
    if not malformed:
        return obj
    listed = ", ".join(sorted(set(malformed))[:10])
    warn(
        f"the attributes {listed} are not as this package writes them, and are ignored. They may "
        "come from a damaged file, or from another program"
    )
    cleaned = obj.copy(deep=False)
    for _, attrs, key in list(_malformed(cleaned)):
        del attrs[key]
    return cleaned  # type: ignore[return-value]  # the same kind as what was copied


def _malformed(obj: xr.Dataset | xr.DataArray) -> Iterator[tuple[str, dict[Any, Any], str]]:
    """Yield each malformed attribute: its place for a message, its mapping, and its key."""
    # variables, as to make a DataArray of each of many coordinates takes long
    coords = obj.coords.variables
    places = [("", obj.attrs, _ACCEPTED)]
    if isinstance(obj, xr.Dataset):
        pixels = (v for name, v in obj.variables.items() if name not in coords)
        places += [("", variable.attrs, _ACCEPTED) for variable in pixels]
    places += [(f"{name}:", variable.attrs, _OF_COORDS) for name, variable in coords.items()]
    for where, attrs, accepted in places:
        for key, is_accepted in accepted.items():
            if key in attrs and not is_accepted(attrs[key]):
                yield where, attrs, key


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_TEXT


def _is_count(value: object) -> bool:
    return isinstance(value, Integral) and 0 <= int(value) < 2**31


def _is_number(value: object) -> bool:
    return abs(_number(value)) <= float(np.finfo(np.float32).max)


def _is_step(value: object) -> bool:
    return 0 < _number(value) < math.inf


def _number(value: object) -> float:
    """Return a number as a float; NaN for what is none, or larger than any float."""
    try:
        return float(value) if isinstance(value, Real) else math.nan
    except OverflowError:
        return math.nan


def _is_header(value: object) -> bool:
    if not isinstance(value, str) or len(value) > _LONGEST_HEADER:
        return False
    try:
        header = Header.from_json(value)
    except (ValueError, RecursionError):
        return False
    return min(header.nx, header.ny, header.nz) > 0


def _is_metadata(value: object) -> bool:
    return isinstance(_from_json(value), dict)


def _is_list(value: object) -> bool:
    return isinstance(_from_json(value), list)


def _from_json(value: object) -> Any:
    """Decode a text as JSON; return None if it is not JSON, too long or too deep."""
    if not isinstance(value, str) or len(value) > LONGEST:
        return None
    try:
        found = json.loads(value)
    except (ValueError, RecursionError, MemoryError):
        return None
    return None if is_deep(found) else found


# by name of an attribute, a function that returns whether a value is one that the engine writes
_ACCEPTED: dict[str, Callable[[Any], bool]] = {
    "mrc_header": _is_header,
    "mrc_metadata": _is_metadata,
    "mrc_repairs": _is_list,
    "mrc_extended_bytes": _is_count,
    "mrcz_chunk_version": _is_count,
    "mrcz_blocks": _is_count,
    "mrcz_ratio": _is_number,
    **dict.fromkeys(("mrc_source", "mrc_layout", "mrc_layout_rule", "mrc_stream"), _is_text),
    **dict.fromkeys(("mode0_assumption", "mrcz_codec"), _is_text),
    **dict.fromkeys(("voltage_kV", "c3_mm", "gain_e_per_DN"), _is_number),
}
_OF_COORDS: dict[str, Callable[[Any], bool]] = {"spacing": _is_step, "units": _is_text}
