"""What attributes say about the file that data were opened from, as far as it is well formed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import xarray as xr

from mrc_xarray.errors import MrcError, warn
from mrc_xarray.labels.attributes import COORDINATE_ATTRS, OWN_ATTRS
from mrc_xarray.labels.source_name import SourceName
from mrc_xarray.mrc.header import Header
from mrc_xarray.mrc.recognition import refuse_foreign
from mrc_xarray.safe_json import decode_json
from mrc_xarray.storage import redacted

__all__ = ["Provenance"]

# characters of a header as JSON
_LONGEST_HEADER = 2**16
_MOST_NAMES = 10


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """The attributes of labelled data, parsed.

    Attributes
    ----------
    attrs : mapping
        The attributes of the engine that are well formed.
    header : Header or None
        The header that the data were opened with.
    metadata : dict
        The metadata of a file and its sidecars; empty if there are none.
    """

    attrs: Mapping[Any, Any]
    header: Header | None
    metadata: dict[str, Any]

    @classmethod
    def of(cls, obj: xr.DataArray | xr.Dataset) -> Provenance:
        """Parse the attributes of the data, with one warning about those that are malformed."""
        malformed = sorted({f"{where}{key}" for where, key in _malformed(obj)})
        if malformed:
            warn(
                f"the attributes {', '.join(malformed[:_MOST_NAMES])} are not as this package "
                "writes them, and are ignored. They may come from a damaged file, or from another "
                "program"
            )
        attrs = {
            key: value
            for key, value in obj.attrs.items()
            if key in OWN_ATTRS and key not in malformed
        }
        header = attrs.get("mrc_header")
        return cls(
            attrs=attrs,
            header=None if header is None else Header.from_json(header),
            metadata=decode_json(attrs.get("mrc_metadata", "{}")),
        )

    def extended_header(self) -> bytes:
        """Read the extended header; see `mrc_xarray.accessor.MrcAccessor.extended_header`."""
        name = self.attrs.get("mrc_source")
        if isinstance(name, SourceName):
            return name.extended_header()
        if self.attrs.get("mrc_extended_bytes"):
            raise MrcError(
                f"{redacted(str(name))[:200]}: the extended header of this file is not stored "
                "with the data, and the data were not opened from the file in this session. Open "
                "the MRC file itself with engine='mrc', or pass extended_header= to to_file"
            )
        return b""


def _is_header(value: object) -> bool:
    if not isinstance(value, str) or len(value) > _LONGEST_HEADER:
        return False
    try:
        header = Header.from_json(value)
        # a mark of another format would be copied with the bytes that MRC2014 leaves free
        refuse_foreign("", header.encode())
    except ValueError:
        return False
    return min(header.nx, header.ny, header.nz) > 0


_OWN_ATTRS = {**OWN_ATTRS, "mrc_header": _is_header}


def _malformed(obj: xr.Dataset | xr.DataArray) -> Iterator[tuple[str, str]]:
    """Yield the place, for a message, and the name of each malformed attribute."""
    # variables, since making a DataArray of each of many coordinates takes long
    coords = obj.coords.variables
    places = [("", obj.attrs, _OWN_ATTRS)]
    if isinstance(obj, xr.Dataset):
        pixels = (variable for name, variable in obj.variables.items() if name not in coords)
        places += [("", variable.attrs, _OWN_ATTRS) for variable in pixels]
    places += [(f"{name}:", variable.attrs, COORDINATE_ATTRS) for name, variable in coords.items()]
    for where, attrs, accepted in places:
        for key, is_accepted in accepted.items():
            if key in attrs and not is_accepted(attrs[key]):
                yield where, key
