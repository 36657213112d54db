"""The number of the frame at each position of a raster, by the frames that belong to none.

See ``docs/reference/format.md#frames-of-a-scan``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mrc_xarray.errors import Problem
from mrc_xarray.metadata.limits import MOST_POSITIONS

__all__ = ["MOST_UNVISITED", "NO_GAPS", "Gaps"]

#: The numbers of frames at more positions than this, 32 MiB, are stored only if at least every
#: second position has a frame.
MOST_UNVISITED = 2**22


@dataclass(frozen=True, kw_only=True, slots=True)
class Gaps:
    """The frames of a movie that belong to no position of its scan.

    Attributes
    ----------
    offset : int
        Frames in front of the first position. If it is negative, the number of positions without
        a frame, which are the first ones.
    flyback : int
        Frames after each line of the scan, while the beam returns.
    """

    offset: int = 0
    flyback: int = 0

    def __bool__(self) -> bool:
        return (self.offset, self.flyback) != (0, 0)

    def __str__(self) -> str:
        return f"scan_offset={self.offset} and scan_flyback={self.flyback}"

    def fits(self, sizes: Sequence[int], line: int, n_frames: int) -> bool:
        """Return whether a movie of `n_frames` has exactly the frames of a scan.

        `line` is the number of positions in a line. The last flyback may be missing, or a part of
        it.
        """
        n_positions = math.prod(sizes)
        if -self.offset >= n_positions:
            return False
        last: int = self._frame(n_positions - 1, line)
        return last < n_frames <= last + 1 + self.flyback

    def place(
        self, sizes: Sequence[int], line: int, n_frames: int
    ) -> tuple[np.ndarray[Any, np.dtype[np.int64]] | None, list[Problem]]:
        """Return the frame at each position, in the shape `sizes`, and problems.

        A position without a frame has −1. There is no result if no position has a frame, or if
        the scan is much larger than the movie.
        """
        n_positions = math.prod(sizes)
        if not -n_positions < self.offset < n_frames:
            accepted = f"{1 - n_positions} to {n_frames - 1}, so that a position has a frame"
            words = "scan_offset", str(self.offset), accepted, "Choose another number."
            return None, [Problem("scan", *words)]
        size = " × ".join(map(str, sizes))
        most = min(MOST_POSITIONS, max(MOST_UNVISITED, 2 * n_frames))
        if n_positions > most:
            accepted = f"up to {most} positions of {n_frames} frames"
            words = "the size of the scan", size, accepted, "Choose a smaller scan_shape=."
            return None, [Problem("scan", *words)]
        numbers = self._frame(np.arange(n_positions), line)
        n_needed = int(numbers[-1]) + 1
        numbers[(numbers < 0) | (numbers >= n_frames)] = -1
        action = ""
        if n_needed > n_frames:
            n_missing = np.count_nonzero(numbers < 0) - max(-self.offset, 0)
            action = (
                f"The last positions ({n_missing}) have no frame, and frame_index is −1 there."
            )
        elif n_frames > n_needed + self.flyback:
            n_surplus = n_frames - n_needed - self.flyback
            action = f"The last frames ({n_surplus}) are left out."
        accepted = f"{n_needed} for {size} positions with {self}"
        words = "the number of frames", str(n_frames), accepted, action
        problems = [Problem("scan", *words)] if action else []
        return numbers.reshape(tuple(sizes)), problems

    def _frame(self, position: Any, line: int) -> Any:
        """Return the number of the frame at a position, by its place in the order of the scan."""
        first = max(-self.offset, 0)
        n_lines = position // line - first // line
        return position - first + n_lines * self.flyback + max(self.offset, 0)


#: Each frame has a position, and each position a frame.
NO_GAPS = Gaps()
