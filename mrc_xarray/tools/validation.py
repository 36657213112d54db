"""Everything that is wrong with a file, for those who want to know, and not only to read."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mrc_xarray.errors import MrcError, MrcWarning, Problem
from mrc_xarray.mrc import reading
from mrc_xarray.mrc.checks import check
from mrc_xarray.mrc.header import Header, header_problem
from mrc_xarray.mrc.reading import MrcFile
from mrc_xarray.mrc.recognition import guess_byteorder
from mrc_xarray.pixels.array import StackArray
from mrc_xarray.pixels.blocks import Blocks
from mrc_xarray.pixels.modes import MODES
from mrc_xarray.pixels.statistics import Statistics
from mrc_xarray.storage import ByteSource, Target, open_decoded

__all__ = ["validate"]

# problems of what has no header to look at
_NO_HEADER = ("empty", "short", "foreign")
# pixels at once, in bytes
_STEP = 16 * 1024**2
# by which mrcfile, too, takes a statistic for another
_TOLERANCE = 0.01


def validate(
    target: Target, *, data: bool = False, storage_options: dict[str, Any] | None = None
) -> list[Problem]:
    """Tell what is wrong with a file.

    Looks at the main header, as mrcfile's validator does, save that modes 3 and 101 are valid,
    which MRC2014 has; at the extended header, the blocks of an MRCZ, and the files beside it. A
    compressed stream is decoded for it.

    Parameters
    ----------
    target : path, URL, bytes or binary file object
    data : bool
        Whether to read the pixels, too: whether statistics in the header are theirs, whether they
        are finite, and whether all blocks of an MRCZ decode.
    storage_options : dict, optional
        For fsspec, where the target is a URL.

    Returns
    -------
    list of problems
        By place in the file; empty if it is valid. Each has a ``code``, a ``severity`` ("error"
        or "warning"), the ``field``, its ``offset`` in bytes, what was ``found`` and what is
        ``accepted``, the ``action`` that the engine takes, and the ``file`` beside the image that
        it is about, empty for the image.

    Raises
    ------
    OSError
        As `open` does, where there is no such file, or it may not be read.

    Examples
    --------
    >>> for problem in mrc_xarray.validate("tomo.mrc"):
    ...     print(problem)
    """
    with warnings.catch_warnings():
        # what they tell is in the list
        warnings.simplefilter("ignore", MrcWarning)
        found = _until_refused(_findings(target, data, storage_options))
        problems: dict[tuple[str, str, str], Problem] = {}
        for problem in found:
            # the header's own check, and the reader that had to repair it, may tell the same
            problems.setdefault((problem.code, problem.field, problem.file), problem)
    told = [problem for problem in problems.values() if problem.severity != "note"]
    return sorted(told, key=lambda problem: (problem.file, problem.offset or 0))


def _until_refused(found: Iterator[Problem]) -> Iterator[Problem]:
    try:
        yield from found
    except MrcError as error:
        yield _problem(error)


def _problem(error: MrcError) -> Problem:
    return error.problem or Problem(
        "unreadable", "the file", str(error), "what can be read", "It is not opened."
    )


def _findings(
    target: Target, data: bool, storage_options: dict[str, Any] | None
) -> Iterator[Problem]:
    source, head = open_decoded(target, storage_options, salvages=True)
    if source.stream is not None:
        from mrc_xarray.storage.stream import StreamSource, damage

        assert isinstance(source, StreamSource)
        if source.fault is not None:
            yield damage(source.codec, source.fault)
        source = source.measured()
    try:
        # the standard has no unsigned bytes
        file = reading.read(source, head, mode0="int8")
    except MrcError as error:
        problem = _problem(error)
        if problem.code not in _NO_HEADER:
            yield from check(_header(head, source.size))
        yield problem
        return
    yield from check(file.header)
    yield from file.problems
    if isinstance(file.sections, Blocks):
        yield from _of_blocks(file, file.sections)
    if data:
        yield from _of_pixels(file, source)


def _header(head: bytes, size: int) -> Header:
    return Header.parse(head, guess_byteorder(head, size, MODES))


def _of_blocks(file: MrcFile, blocks: Blocks) -> Iterator[Problem]:
    told, there = file.header.packed_bytes, blocks.stored_bytes
    if file.header.has_mrcz_fields and told and told != there:
        yield header_problem(
            "packed-bytes",
            "PACKED_BYTES",
            str(told),
            f"{there}, the size of the blocks",
            "The blocks are found without it.",
        )


def _of_pixels(file: MrcFile, source: ByteSource) -> Iterator[Problem]:
    blocks = file.sections if isinstance(file.sections, Blocks) else None
    measured = Measured()
    # the file's own order, whatever the layout
    array = StackArray(source, file.sections, (file.sections.shape[0],))
    for key in _steps(file):
        section = key[0].start
        try:
            pixels = array.read(key)
        except MrcError as error:
            if blocks is None:
                yield _problem(error)
                return
            yield Problem(
                "block",
                f"section {section}",
                str(error).removeprefix(f"{file.name}: "),
                "a chunk of blosc that decodes",
                "The other sections can be read.",
                offset=int(blocks.edges[section]),
            )
            continue
        measured.add(pixels, section)
    if measured.n_wild:
        yield Problem(
            "not-finite",
            "the pixels",
            f"NaN or infinite in {measured.n_wild} places, the first in section {measured.first}",
            "finite numbers",
            "They are read as they are.",
        )
    # mrcz measures one section
    if blocks is None and not file.sections.mode.samples:
        yield from _of_statistics(file.header, measured)


def _steps(file: MrcFile) -> Iterator[tuple[slice, ...]]:
    """Yield keys of some sections each, or of one, or of some rows of one that is very large."""
    n, rows = file.sections.shape[:2]
    rest = (slice(None),) * (len(file.sections.shape) - 2)
    per_step = max(1, _STEP // file.sections.section_bytes)
    if isinstance(file.sections, Blocks):
        per_step = 1
    band = rows
    if per_step == 1 and not isinstance(file.sections, Blocks):
        band = max(1, _STEP * rows // file.sections.section_bytes)
    for start in range(0, n, per_step):
        for row in range(0, rows, band):
            yield slice(start, min(start + per_step, n)), slice(row, row + band), *rest


@dataclass
class Measured:
    """What pixels are, those that are no finite numbers counted apart.

    Attributes
    ----------
    finite, imaginary : Statistics
        Of the finite ones, or their real parts, and their imaginary parts.
    least, most : float
        Of all: NaN where one is.
    n_wild : int
        NaN and infinities.
    first : int
        Section of the first of them.
    """

    finite: Statistics = field(default_factory=Statistics)
    imaginary: Statistics = field(default_factory=Statistics)
    least: float = math.inf
    most: float = -math.inf
    n_wild: int = 0
    first: int = -1

    def add(self, pixels: npt.NDArray[Any], section: int) -> None:
        """Measure some more pixels, of `section` and those that follow."""
        self.finite = self.finite.joined(Statistics.of(np.ascontiguousarray(pixels.real)))
        if pixels.dtype.kind == "c":
            self.imaginary = self.imaginary.joined(
                Statistics.of(np.ascontiguousarray(pixels.imag))
            )
        else:
            self.least = float(np.minimum(self.least, pixels.min()))
            self.most = float(np.maximum(self.most, pixels.max()))
        if pixels.dtype.kind in "fc" and not (is_finite := np.isfinite(pixels)).all():
            self.n_wild += int((~is_finite).sum())
            if self.first < 0:
                of_section = is_finite.reshape(len(pixels), -1).all(axis=1)
                self.first = section + int(np.argmin(of_section))

    def fields(self) -> dict[str, float]:
        """Return the header's fields as numpy has them of all pixels at once."""
        fields = self.finite.fields()
        if self.n_wild:
            return {
                "dmin": self.least,
                "dmax": self.most,
                "dmean": self.least + self.most,
                "rms": math.nan,
            }
        if self.imaginary.n:
            fields["rms"] = math.hypot(fields["rms"], self.imaginary.fields()["rms"])
        return fields


def _of_statistics(header: Header, measured: Measured) -> Iterator[Problem]:
    """Compare as mrcfile does: what the header leaves undetermined is not compared."""
    real = measured.fields()
    # complex numbers have no order
    is_ordered = not measured.imaginary.n
    rows = (
        ("statistics-rms", "RMS", header.rms >= 0),
        ("statistics-minimum", "DMIN", is_ordered and header.dmin < header.dmax),
        ("statistics-maximum", "DMAX", is_ordered and header.dmin < header.dmax),
        (
            "statistics-mean",
            "DMEAN",
            is_ordered and header.dmean > min(header.dmin, header.dmax),
        ),
    )
    for code, name, is_determined in rows:
        told, found = header[name], real[name.lower()]
        is_exact = name in ("DMIN", "DMAX")
        is_same = told == found if is_exact else bool(np.isclose(found, told, rtol=_TOLERANCE))
        if is_determined and not is_same:
            yield header_problem(
                code,
                name,
                f"{told:.9g}",
                f"{found:.9g}, as the pixels are",
                "The pixels are read as they are; to_mrc measures them anew.",
            )
