"""The scan that the frames of a stack belong to, by an argument, a sidecar or the records.

See ``docs/reference/format.md#frames-of-a-scan``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from mrc_xarray.errors import MrcError, Problem
from mrc_xarray.metadata.columns import Metadata
from mrc_xarray.metadata.raster import Gaps
from mrc_xarray.metadata.scan import Scan, scan_dims
from mrc_xarray.mrc.header import Header
from mrc_xarray.mrc.layout import Layout, arrange
from mrc_xarray.mrc.voxel import axis_names
from mrc_xarray.options import OpenOptions

__all__ = ["Folded", "fold", "gaps_of"]


@dataclass(frozen=True, kw_only=True)
class Folded:
    """What the sections are, and the frame at each position if they are not in order."""

    layout: Layout
    frame_index: np.ndarray[Any, np.dtype[np.int64]] | None = None
    problems: tuple[Problem, ...] = ()


def gaps_of(options: OpenOptions) -> Gaps:
    """Return the frames without a position that the caller gives."""
    return Gaps(offset=options.scan_offset, flyback=options.scan_flyback)


def fold(
    header: Header,
    n_frames: int,
    *,
    name: str,
    extended_size: int,
    sidecar: Metadata,
    records: Metadata,
    options: OpenOptions,
) -> Folded:
    """Return what the `n_frames` sections of a file are; see `arrange` for the arguments.

    An argument wins over a sidecar, a sidecar over the records of the extended header, and these
    over the main header. Raises MrcError if the frames do not fit the arguments.
    """
    if options.scan_shape is not None:
        return _by_argument(name, n_frames, options)
    if sidecar.scan is not None and not options.decides_layout:
        return _folded("a sidecar describes the scan", sidecar.scan)
    layout = arrange(
        header,
        n_frames,
        name=name,
        section_axis=axis_names(header)[0],
        extended_size=extended_size,
        evidence=sidecar.evidence,
        options=options,
    )
    is_open = layout.kind == "image_stack" and not options.decides_layout
    folded = _by_records(n_frames, records, options) if is_open else None
    if folded is None and gaps_of(options):
        raise _no_scan(name, sidecar, options)
    return folded or Folded(layout=layout)


def _by_argument(name: str, n_frames: int, options: OpenOptions) -> Folded:
    # OpenOptions makes a tuple of it
    sizes: tuple[int, ...] = options.scan_shape  # type: ignore[assignment]
    scan, problems = Scan(scan_dims(sizes)).fitted(sizes[-1], n_frames, gaps_of(options))
    if scan is not None:
        return _folded("the argument scan_shape=", scan, problems)
    if problems:
        raise MrcError.of(name, problems[0])
    raise MrcError(
        f"{name}: scan_shape {sizes} has {prod(sizes)} positions, and the file has {n_frames} "
        "frames; the numbers must be equal, unless scan_offset= gives the number of frames in "
        "front of the first position, or scan_flyback= the number of frames after each line"
    )


def _by_records(n_frames: int, records: Metadata, options: OpenOptions) -> Folded | None:
    """Return the scan of the size in the records, if that is the size of the stack."""
    if records.scan_size is None or n_frames == 1:
        return None
    scan, problems = Scan(scan_dims(records.scan_size)).fitted(
        records.scan_size[-1], n_frames, gaps_of(options)
    )
    rule = "the records of the extended header have the size of the scan"
    return None if scan is None else _folded(rule, scan, problems)


def _folded(rule: str, scan: Scan, problems: Sequence[Problem] = ()) -> Folded:
    layout = Layout("scan", rule, scan.dims)
    return Folded(layout=layout, frame_index=scan.frame_index, problems=tuple(problems))


def _no_scan(name: str, sidecar: Metadata, options: OpenOptions) -> MrcError:
    """Return the error for gaps in a file that is no scan."""
    for problem in sidecar.problems:
        if problem.code == "scan":
            return MrcError.of(name, problem)
    return MrcError(
        f"{name}: {gaps_of(options)} need the size of the scan, which is in no sidecar or record; "
        "pass scan_shape=(scan_y, scan_x)"
    )
