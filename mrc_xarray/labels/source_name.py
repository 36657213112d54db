"""The name of the opened file, as an attribute that can read the file again."""

from __future__ import annotations

import copy
from typing import Any

from mrc_xarray.errors import MrcError
from mrc_xarray.storage import ByteSource, MemorySource, StreamSource

__all__ = ["SourceName"]


class SourceName(str):
    """The name of a file, as a `str` that also carries the file's source.

    netCDF, Zarr and JSON store it as a plain `str`, and return a plain `str`: no file that anyone
    may have made leads to another file. Copies also carry the source. So do pickled copies, if
    the file has a name to open it by. `extended_range` is the first byte and the length of the
    extended header.
    """

    source: ByteSource
    extended_range: tuple[int, int]

    def __new__(cls, name: str, source: ByteSource, extended_range: tuple[int, int]) -> SourceName:
        """Make a name from the text, the source and the place of the extended header."""
        self = super().__new__(cls, name)
        self.extended_range = extended_range
        if isinstance(source, MemorySource):
            # do not hold the pixels in memory for as long as the attribute exists
            self.source = MemorySource(source.data[: sum(extended_range)], source.name)
        else:
            # a copy does not hold decoded bytes, which belong to the array
            self.source = copy.copy(source)
        return self

    @property
    def stored_size(self) -> int | None:
        """The length of the file in bytes when it was opened, before any decoding.

        None for bytes in memory, of which only a part is here.
        """
        source = (
            self.source.stream.source if isinstance(self.source, StreamSource) else self.source
        )
        return None if isinstance(source, MemorySource) else source.size

    def __copy__(self) -> SourceName:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> SourceName:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if not self.source.can_be_reopened:
            return str, (str(self),)
        return SourceName, (str(self), self.source, self.extended_range)

    def extended_header(self) -> bytes:
        """Read the bytes between header and pixels.

        Raises OSError if the file no longer exists, and MrcError if it has changed.
        """
        offset, nbytes = self.extended_range
        if not nbytes:
            return b""
        raw = self.source.read(offset, nbytes)
        if len(raw) < nbytes:
            raise MrcError(
                f"{self}: the file changed since it was opened: its extended header has "
                f"{len(raw)} of {nbytes} bytes"
            )
        return raw
