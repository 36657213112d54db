"""Sections that are in many files, and in any order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mrc_xarray.pixels.sections import InFile, Sections
from mrc_xarray.pixels.selection import Numbers
from mrc_xarray.storage.base import ByteSource

__all__ = ["Gathered", "Stacks"]

Integers = npt.NDArray[np.integer[Any]]


class Stacks(Protocol):
    """Files that are opened when they are read for the first time."""

    def opened(self, file: int) -> tuple[ByteSource, Sections]:
        """Return a file and its sections, which must be like those of all other files."""
        ...

    def missing(self, file: int, item: int, section: int, n_sections: int) -> Exception:
        """Return the error for an item whose section is not in the file, which has fewer."""
        ...


@dataclass(frozen=True, eq=False, kw_only=True)
class Gathered(Sections):
    """Items of one or more sections each, which are anywhere in many files.

    Attributes
    ----------
    stacks : Stacks
    stack : ndarray of int, shape (n_items,)
        The file of each item.
    first : ndarray of int, shape (n_items,)
        Its first section there.
    per_item : int
        How many sections it has.
    """

    stacks: Stacks
    stack: Integers
    first: Integers
    per_item: int = 1

    @property
    def is_native(self) -> bool:
        """Whether the bytes of one file are the pixels: they are in many files."""
        return False

    def in_files(self, numbers: Numbers) -> list[InFile]:
        """Return the selected sections by the files that they are in."""
        chosen = np.arange(numbers.start, numbers.stop) if isinstance(numbers, range) else numbers
        items, within = np.divmod(chosen, self.per_item)
        stack = self.stack[items].astype(np.intp)
        section = self.first[items].astype(np.intp) + within
        order = np.lexsort((section, stack))
        starts = np.flatnonzero(np.diff(stack[order], prepend=-1))
        parts = []
        for at in np.split(order, starts[1:]):
            is_in_order = len(at) == at[-1] - at[0] + 1 and bool((np.diff(at) == 1).all())
            place = slice(int(at[0]), int(at[-1]) + 1) if is_in_order else at
            parts.append(InFile(int(stack[at[0]]), place, section[at]))
        return parts

    def opened(self, source: ByteSource, part: InFile) -> tuple[ByteSource, Sections]:
        """Return the file of a part, and its sections."""
        opened, sections = self.stacks.opened(part.file)
        n_sections = sections.shape[0]
        if part.numbers[-1] >= n_sections:
            last = self.first.astype(np.intp) + (self.per_item - 1)
            item = int(np.flatnonzero((self.stack == part.file) & (last >= n_sections))[0])
            raise self.stacks.missing(part.file, item, int(last[item]), n_sections)
        return opened, sections
