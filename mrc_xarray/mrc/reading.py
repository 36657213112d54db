"""Read an MRC file: its header, sections, metadata and dimensions, but not its pixels."""

from __future__ import annotations

import dataclasses
import math
import warnings
from dataclasses import dataclass
from typing import Any

from mrc_xarray.errors import MrcError, MrcWarning, Problem, unreadable
from mrc_xarray.metadata.columns import Value
from mrc_xarray.mrc.checks import CHECKS
from mrc_xarray.mrc.geometry import axis_names
from mrc_xarray.mrc.header import HEADER_SIZE, Header
from mrc_xarray.mrc.layout import Layout
from mrc_xarray.mrc.placing import locate
from mrc_xarray.mrc.recognition import guess_byteorder, refuse_foreign
from mrc_xarray.mrc.steps import (
    Arranged,
    Identified,
    Placed,
    arrange_sections,
    gather,
    identify,
    place,
    repairs,
)
from mrc_xarray.mrc.voxel import voxel_size
from mrc_xarray.options import OpenOptions
from mrc_xarray.pixels.blocks import Blocks
from mrc_xarray.pixels.modes import MODES
from mrc_xarray.pixels.sections import Sections
from mrc_xarray.recording import LABELS_KEY, Recording
from mrc_xarray.storage import ByteSource, Target, open_decoded
from mrc_xarray.storage.base import FIRST_READ, Bytes

__all__ = ["MrcFile", "inspect", "open_recording", "problems_of", "read", "read_header"]

# rules for the header without which no file can be opened
_FATAL = ("mode", "dimensions")


@dataclass(frozen=True, kw_only=True)
class MrcFile:
    """The results of all steps of reading, and what was repaired or assumed."""

    identity: Identified
    arranged: Arranged
    placed: Placed
    problems: tuple[Problem, ...]

    @property
    def name(self) -> str:
        """Path or URL."""
        return self.identity.name

    @property
    def header(self) -> Header:
        """The header as found; repairs are in the other results."""
        return self.identity.header

    @property
    def sections(self) -> Sections:
        """Where the pixels are, and how they are decoded."""
        return self.arranged.sections

    @property
    def layout(self) -> Layout:
        """What the sections are."""
        return self.arranged.layout

    @property
    def axes(self) -> tuple[str, str, str]:
        """The axes x, y, z of sections, rows and columns."""
        return axis_names(self.identity.header)


def inspect(
    source: Bytes, head: bytes | None = None, options: OpenOptions | None = None
) -> MrcFile:
    """Read everything about a file except its pixels; `head` is the first bytes, if known.

    Raises MrcError if the file is not MRC, is truncated, or has an unknown mode, and with
    strict=True also if something had to be repaired.
    """
    chosen = options or OpenOptions()
    first = source.read(0, min(FIRST_READ, source.size or FIRST_READ)) if head is None else head
    identity = identify(source, first, chosen)
    header, mode, n_columns = identity.header, identity.mode, identity.n_columns
    located = locate(source, first, header, mode, n_columns, truncated=chosen.truncated)
    gathered = gather(source, first, identity, located, chosen)
    arranged = arrange_sections(identity, located, gathered, chosen)
    placed = place(source, identity, arranged, chosen)
    steps = (identity, located, arranged, placed)
    problems = tuple(problem for step in steps for problem in step.problems)
    if chosen.strict and (errors := [p.refusal(source.name) for p in problems if p.strict]):
        raise MrcError("\n".join(errors))
    return MrcFile(identity=identity, arranged=arranged, placed=placed, problems=problems)


def read(
    source: Bytes, head: bytes | None = None, options: OpenOptions | None = None
) -> Recording:
    """Read a file as `inspect` does, and return a result that does not depend on MRC."""
    chosen = options or OpenOptions()
    file = inspect(source, head, chosen)
    arranged, placed = file.arranged, file.placed
    metadata = dict(arranged.metadata.keys)
    labels = metadata.pop(LABELS_KEY, None)
    # stored labels are those of sections in order
    is_placed = arranged.frame_index is not None
    return Recording(
        name=file.name,
        sections=file.sections,
        dims=placed.dims,
        frame_index=arranged.frame_index,
        has_section_numbers=file.layout.kind == "image_stack" and placed.labels_sections,
        section_spacing=_section_spacing(file, chosen),
        columns=arranged.metadata.columns if placed.labels_sections else (),
        values=_header_values(file.header) | dict(arranged.metadata.values),
        metadata=metadata or None,
        stored_labels=None if is_placed or chosen.decides_layout else labels,
        attrs=_attrs(file),
        extended_range=(HEADER_SIZE, file.sections.offset - HEADER_SIZE),
        problems=file.problems,
    )


def open_recording(
    target: Target, options: OpenOptions, first_read: int = FIRST_READ
) -> tuple[Recording, ByteSource]:
    """Open a file and read it; the source is for its pixels. `first_read` is in bytes."""
    salvages = options.truncated == "trim"
    source, head = open_decoded(
        target, options.storage_options, salvages=salvages, first_read=first_read
    )
    recording = read(source, head, options)
    sections = recording.sections
    if not sections.is_compressed:
        source = source.expecting(sections.offset + sections.nbytes, max(sections.shape))
    return recording, source


def read_header(target: Target, *, storage_options: dict[str, Any] | None = None) -> Header:
    """Read the header of a file, also if the file can't be opened.

    Any 1024 bytes that may be a header are decoded: with an unknown MODE, without data, or with
    less data than the header promises. No pixels are read.

    Parameters
    ----------
    target : path, URL, bytes or binary file object
        What the engine opens. Streams are decoded.
    storage_options : dict, optional
        For fsspec, if the target is a URL.

    Returns
    -------
    Header
        Its ``problems`` are texts: what prevents opening the file, and what opening it would
        repair or assume. They are empty for a file that opens without a warning.

    Raises
    ------
    OSError
        If the file does not exist or can't be read; the same error as from `open`.
    MrcError
        If the file is shorter than a header, or certainly has another format.

    Examples
    --------
    >>> header = mrc_xarray.read_header("damaged.mrc")
    >>> header.mode, header.problems
    """
    with warnings.catch_warnings():
        # `problems` contains these warnings
        warnings.simplefilter("ignore", MrcWarning)
        source, head = open_decoded(target, storage_options)
        refuse_foreign(source.name, head)
        header = Header.parse(head, guess_byteorder(head, source.size, MODES))
        problems = problems_of(source, head, header)
    return dataclasses.replace(header, problems=tuple(p.message(source.name) for p in problems))


def problems_of(source: Bytes, head: bytes, header: Header) -> list[Problem]:
    """Return what prevents opening a file, or else what opening it repairs or assumes.

    In a file that can't be opened, the header is checked for what would be repaired.
    """
    try:
        return [*inspect(source, head).problems]
    except MrcError as error:
        fatal = error.problem or unreadable(error)
    others = [problem for code in _FATAL for problem in CHECKS[code](header)]
    others += repairs(header, head, source.size, OpenOptions())
    return [fatal, *(problem for problem in others if problem.code != fatal.code)]


def _header_values(header: Header) -> dict[str, Value]:
    """Return the values that mrcz and this package store in the main header."""
    if not header.has_mrcz_fields:
        return {}
    values = {
        "voltage": Value(header.voltage, "kV"),
        "c3": Value(header.c3, "mm"),
        "gain": Value(header.gain, "e/DN"),
    }
    return {key: v for key, v in values.items() if v.value and math.isfinite(v.value)}


def _section_spacing(file: MrcFile, options: OpenOptions) -> float | None:
    """Return the distance between the sections of an image stack: that of the user, or CELLA."""
    if file.layout.kind != "image_stack":
        return None
    given = options.voxel_size and options.voxel_size.of_sections(file.axes[0])
    return given or voxel_size(file.header, file.axes[0])


def _attrs(file: MrcFile) -> dict[str, Any]:
    """Return the attributes that only MRC files have."""
    attrs: dict[str, Any] = {
        "mrc_layout": file.layout.kind,
        "mrc_layout_rule": file.layout.rule,
        "mrc_header": file.header.to_json(),
    }
    if file.arranged.mode0 is not None:
        attrs["mode0_assumption"] = file.arranged.mode0
    if file.sections.offset > HEADER_SIZE:
        attrs["mrc_extended_bytes"] = file.sections.offset - HEADER_SIZE
    if isinstance(file.sections, Blocks):
        blocks = file.sections
        attrs["mrcz_codec"] = blocks.codec
        attrs["mrcz_chunk_version"] = blocks.version
        attrs["mrcz_blocks"] = blocks.shape[0]
        attrs["mrcz_ratio"] = blocks.nbytes / blocks.stored_bytes
    return attrs
