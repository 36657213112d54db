"""Everything that is wrong with a file, as a list."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mrc_xarray.errors import MrcError, MrcWarning, Problem, unreadable
from mrc_xarray.mrc import reading
from mrc_xarray.mrc.checks import check
from mrc_xarray.mrc.header import Header, header_problem
from mrc_xarray.mrc.reading import MrcFile
from mrc_xarray.mrc.recognition import guess_byteorder
from mrc_xarray.options import OpenOptions
from mrc_xarray.pixels.array import StackArray
from mrc_xarray.pixels.blocks import Blocks
from mrc_xarray.pixels.modes import MODES
from mrc_xarray.pixels.statistics import Statistics
from mrc_xarray.storage import ByteSource, StreamSource, Target, open_decoded
from mrc_xarray.storage.stream import damage

__all__ = ["validate"]

# codes of files without a header that could be checked
_NO_HEADER = ("empty", "short", "foreign")
# relative, as in mrcfile
_TOLERANCE = 0.01
_MEASURE = "The pixels are read as they are. edit_header(statistics=True) measures them."


def validate(target: Target, *, data: bool = False, **options: Any) -> list[Problem]:
    """Return the problems of a file.

    The main header is checked as by mrcfile's validator, except that modes 3 and 101 are valid,
    as in MRC2014. The extended header, the blocks of an MRCZ file and sidecars are checked as
    well. A compressed stream is decoded completely.

    Parameters
    ----------
    target : path, URL, bytes or binary file object
    data : bool
        Whether to read the pixels as well, and check that they are finite, that they agree with
        the statistics in the header, and that each block of an MRCZ file can be decoded.
    **options
        Arguments of the engine that say how the file is read: ``storage_options`` for fsspec, if
        the target is a URL; ``metadata_file``, ``mode0``, ``layout``, ``truncated`` and others.

    Returns
    -------
    list of Problem
        The problems in the order of the file; empty if the file is valid. Each problem has a
        ``code``, a ``severity`` ("error" or "warning"), the ``field``, its ``offset`` in bytes,
        the value ``found``, the values ``accepted``, the ``action`` that the engine takes, and
        the ``file``, which is the name of a sidecar or empty for the image.

    Raises
    ------
    OSError
        If the file does not exist or can't be read; the same error as from `open`.
    TypeError, ValueError
        If an option is unknown, or has a value that is not accepted.

    Examples
    --------
    >>> for problem in mrc_xarray.validate("tomo.mrc"):
    ...     print(problem)
    """
    chosen = OpenOptions.of(options)
    problems: dict[tuple[str, str, str], Problem] = {}
    with warnings.catch_warnings():
        # the list contains these problems
        warnings.simplefilter("ignore", MrcWarning)
        for problem in _problems(target, data, chosen):
            # the check of the header and the reader that repaired it report the same problem
            problems.setdefault((problem.code, problem.field, problem.file), problem)
    reported = [problem for problem in problems.values() if problem.severity != "note"]
    return sorted(reported, key=lambda problem: (problem.file, problem.offset or 0))


def _problems(target: Target, data: bool, options: OpenOptions) -> Iterator[Problem]:
    try:
        source, head = open_decoded(target, options.storage_options, salvages=True)
        if isinstance(source, StreamSource) and (fault := source.find_fault()) is not None:
            yield damage(source.stream.codec, fault)
        yield from _source_problems(source, head, data, options)
    except MrcError as error:
        yield error.problem or unreadable(error)


def _source_problems(
    source: ByteSource, head: bytes, data: bool, options: OpenOptions
) -> Iterator[Problem]:
    try:
        file = reading.inspect(source, head, options)
    except MrcError as error:
        problem = error.problem or unreadable(error)
        if problem.code not in _NO_HEADER:
            yield from check(Header.parse(head, guess_byteorder(head, source.size, MODES)))
        yield problem
        return
    yield from check(file.header)
    yield from file.problems
    found = file.header.packed_bytes if file.header.has_mrcz_fields else 0
    if isinstance(file.sections, Blocks) and found not in (0, file.sections.stored_bytes):
        accepted = f"{file.sections.stored_bytes}, the size of the blocks"
        action = "The blocks are found without it."
        yield header_problem("packed-bytes", "PACKED_BYTES", found, accepted, action)
    if data:
        yield from _pixels(file, source)


def _pixels(file: MrcFile, source: ByteSource) -> Iterator[Problem]:
    blocks = file.sections if isinstance(file.sections, Blocks) else None
    measured = _Measured()
    # the order of the file, whatever the layout
    sections = file.sections
    array = StackArray(source, sections, (sections.shape[0],))
    for key in sections.parts():
        section = key[0].start
        try:
            measured.add(array.read(key), section)
        except MrcError as error:
            if blocks is None:
                raise
            found = str(error).removeprefix(f"{file.name}: ")
            accepted = "a blosc chunk that can be decoded"
            action, offset = "The other sections can be read.", int(blocks.edges[section])
            yield Problem("block", f"section {section}", found, accepted, action, offset=offset)
    if n := measured.every.n_not_finite:
        found = f"NaN or infinite ({n} in total, the first in section {measured.first_not_finite})"
        action = "They are read as they are."
        yield Problem("not-finite", "a pixel", found, "finite numbers", action)
    # mrcz stores the statistics of one section
    if blocks is None and not sections.mode.samples:
        yield from _statistics(file.header, measured)


@dataclass
class _Measured:
    """Statistics of all pixels, and of those in the first section."""

    every: Statistics = field(default_factory=Statistics)
    first: Statistics = field(default_factory=Statistics)
    first_not_finite: int = -1  # section

    def add(self, pixels: npt.NDArray[Any], section: int) -> None:
        """Measure pixels of `section` and of those that follow it."""
        measured = Statistics.of(pixels)
        if measured.n_not_finite and not self.every.n_not_finite:
            self.first_not_finite = section + int(np.argwhere(~np.isfinite(pixels))[0, 0])
        self.every = self.every.joined(measured)
        if section == 0:
            self.first = self.first.joined(Statistics.of(pixels[0]))


def _statistics(header: Header, measured: _Measured) -> Iterator[Problem]:
    """Compare the statistics that the header determines with those of the pixels."""
    differing = [*_differing(header, measured.every.fields(), measured)]
    is_of_first = measured.first.n and not [*_differing(header, measured.first.fields(), measured)]
    if differing and is_of_first:
        found = ", ".join(f"{header[name]:.9g}" for name in ("dmin", "dmax", "dmean"))
        accepted = "statistics of all pixels; these are those of the first section"
        yield header_problem("statistics-part", "DMIN, DMAX, DMEAN", found, accepted, _MEASURE)
    else:
        yield from differing


def _differing(header: Header, real: dict[str, float], measured: _Measured) -> Iterator[Problem]:
    """Yield each determined statistic that is not `real`, as mrcfile does."""
    is_ordered = measured.every.is_ordered or not measured.every.n
    has_range = is_ordered and header.dmin < header.dmax
    has_mean = is_ordered and header.dmean > min(header.dmin, header.dmax)
    # an append can't know how many pixels the old mean was about, if some were NaN
    is_part = measured.every.n_not_finite > 0 and measured.every.n > 0
    for code, name, is_determined in (
        ("statistics-part" if is_part else "statistics-rms", "RMS", header.rms >= 0),
        ("statistics-minimum", "DMIN", has_range),
        ("statistics-maximum", "DMAX", has_range),
        ("statistics-part" if is_part else "statistics-mean", "DMEAN", has_mean),
    ):
        found, expected = header[name], real[name.lower()]
        # mrcfile calculates the statistics of all pixels together
        is_of_all = measured.every.n_not_finite and not math.isfinite(found)
        is_position = name == "RMS" and header.is_old_style
        # the header has float32
        is_exact = name in ("DMIN", "DMAX") and found == np.float32(expected)
        is_near = name in ("DMEAN", "RMS") and np.isclose(expected, found, rtol=_TOLERANCE)
        if is_determined and not (is_of_all or is_position or is_exact or is_near):
            accepted = f"{expected:.9g}, the value of the finite pixels"
            if not measured.every.n:
                accepted = "a value that means undetermined, since no pixel is finite"
            yield header_problem(code, name, f"{found:.9g}", accepted, _MEASURE)
