"""Sections that are gathered from many files: which of them are read, and together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mrc_xarray.pixels.gathered import Gathered
from mrc_xarray.pixels.modes import MODES
from mrc_xarray.pixels.sections import Sections
from mrc_xarray.storage import MemorySource


class Stacks:
    """Three files of 7 sections of one pixel; `used` are those that were opened."""

    def __init__(self) -> None:
        self.used: list[int] = []

    def opened(self, file: int) -> tuple[MemorySource, Sections]:
        self.used.append(file)
        raw = np.arange(7, dtype="<f4") + 100 * file
        return MemorySource(raw.tobytes()), Sections(0, (7, 1, 1), MODES[2], "<")

    def missing(self, file: int, item: int, section: int, n_sections: int) -> Exception:
        return LookupError(f"{file}, {item}, {section}, {n_sections}")


def gathered(stack: list[int], first: list[int], per_item: int = 1) -> tuple[Gathered, Stacks]:
    stacks = Stacks()
    sections = Gathered(
        offset=0, shape=(len(stack) * per_item, 1, 1), mode=MODES[2], byteorder="<",
        stacks=stacks, stack=np.array(stack, "u1"), first=np.array(first, "u1"),
        per_item=per_item,
    )  # fmt: skip
    return sections, stacks


def parts(sections: Gathered, numbers: Any) -> list[tuple[int, Any, list[int]]]:
    found = sections.in_files(numbers)
    return [
        (p.file, p.at if isinstance(p.at, slice) else p.at.tolist(), list(p.numbers))
        for p in found
    ]


def test_sections_of_a_file_are_read_together_and_in_order() -> None:
    sections, _ = gathered([2, 0, 2, 0, 2], [6, 1, 3, 0, 3])
    assert parts(sections, range(5)) == [(0, [3, 1], [0, 1]), (2, [2, 4, 0], [3, 3, 6])]
    assert parts(sections, np.array([1, 4])) == [(0, slice(0, 1), [1]), (2, slice(1, 2), [3])]
    # in the order of the file, they need no copy
    sections, _ = gathered([0, 0, 1, 1], [2, 3, 0, 1])
    assert parts(sections, range(1, 4)) == [(0, slice(0, 1), [3]), (1, slice(1, 3), [0, 1])]


def test_items_of_several_sections() -> None:
    sections, _ = gathered([1, 0], [0, 2], per_item=3)
    assert parts(sections, range(2, 5)) == [(0, slice(1, 3), [2, 3]), (1, slice(0, 1), [2])]


def test_a_missing_section_is_reported_with_its_item() -> None:
    sections, stacks = gathered([0, 1, 1], [0, 6, 7])
    for part in sections.in_files(np.array([0, 1])):
        sections.opened(MemorySource(b""), part)
    assert stacks.used == [0, 1]
    with pytest.raises(LookupError, match="1, 2, 7, 7"):
        sections.opened(MemorySource(b""), sections.in_files(range(3))[1])
