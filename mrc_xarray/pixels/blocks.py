"""The compressed sections of an MRCZ file: blocks that follow each other without an index.

See ``docs/reference/format.md#mrcz``.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from mrc_xarray.pixels.compression import BLOCK_HEADER_SIZE, Chunk, Fault, decode_block
from mrc_xarray.pixels.sections import Batch, Sections, groups
from mrc_xarray.pixels.selection import Numbers
from mrc_xarray.storage.base import Access

__all__ = ["Blocks", "Walk", "walk"]

Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Blocks(Sections):
    """Sections that are compressed as one block each.

    `edges` has the first byte of each block and the end of the last, `version` is the chunk
    version of the first block, `codec` the codec that MODE names, and `name` the file.
    """

    edges: npt.NDArray[np.int64]
    version: int
    codec: str
    name: str

    @property
    def is_compressed(self) -> bool:
        return True

    @property
    def compressor(self) -> Literal["blosc", "blosc2"]:
        return "blosc" if self.version == 2 else "blosc2"

    def ranges(
        self, numbers: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        return self.edges[numbers], self.edges[numbers + 1] - self.edges[numbers]

    @property
    def stored_bytes(self) -> int:
        """Bytes of all blocks in the file."""
        return int(self.edges[-1] - self.edges[0])

    def batches(self, numbers: Numbers, access: Access) -> Iterator[Batch]:
        starts = self.edges[numbers].tolist()
        lengths = np.diff(self.edges)[numbers].tolist()
        # a batch takes the memory of the decoded sections
        for group in groups([max(n, self.section_bytes) for n in lengths], access.batch):
            ranges = list(zip(starts[group], lengths[group], strict=True))
            yield Batch(ranges, group, slice(None), len(ranges))

    def decode(
        self,
        raw: npt.NDArray[np.uint8],
        numbers: Numbers,
        out: Array | None = None,
        n_threads: int = 1,
    ) -> Array:
        decoded = np.empty((len(numbers), self.section_bytes), np.uint8) if out is None else out
        start = 0
        for number, section in zip(numbers, decoded, strict=True):
            first, end = self.edges[number : number + 2].tolist()
            where = f"{self.name}: section {number}, at byte {first}"
            block = raw[start : start + end - first]
            decode_block(block, section, codec=self.codec, where=where, n_threads=n_threads)
            start += end - first
        return decoded if out is not None else super().decode(decoded.reshape(-1), numbers)


class Walk(NamedTuple):
    """The blocks that a walk found; `edges` and `version` are as in `Blocks`.

    `fault` is what is wrong with the header of the next block; None if the file ends before that.
    """

    edges: npt.NDArray[np.int64]
    version: int
    fault: Fault | None


def walk(
    fetch: Callable[[int, int], Any],
    *,
    start: int,
    size: int,
    n_sections: int,
    section_bytes: int,
    window: int,
) -> Walk:
    """Follow up to `n_sections` block headers, until one is damaged or the file ends.

    The first block begins at `start`, and `size` is the length of the file. ``fetch(offset,
    nbytes)`` returns a buffer of bytes in the file, and is called for `window` bytes at once.
    """
    edges, version = array("q", [start]), 0
    position, base, buffer = start, start, b""
    fault = None
    while len(edges) <= n_sections and position + BLOCK_HEADER_SIZE <= size:
        if position - base + BLOCK_HEADER_SIZE > len(buffer):
            base, buffer = position, fetch(position, min(window, size - position))
        chunk = Chunk.parse(buffer, position - base)
        fault = chunk.fault(section_bytes)
        position += chunk.ctbytes
        if fault is not None or position > size:
            break
        version = version or chunk.version
        edges.append(position)
    return Walk(np.array(edges, np.int64), version, fault)
