"""MRC files, without a word of xarray, dask or fsspec: numpy and the standard library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from mrc_xarray.errors import MrcError, MrcWarning, Problem
from mrc_xarray.metadata import limits
from mrc_xarray.metadata.columns import Column, Value
from mrc_xarray.metadata.find import (
    NamedBytes,
    SidecarChoice,
    Step,
    read_sidecar,
    read_tilt_list,
)
from mrc_xarray.mrc import extended, geometry
from mrc_xarray.mrc.checks import CHECKS, check
from mrc_xarray.mrc.extended import mrcz
from mrc_xarray.mrc.extended.opening import read_records
from mrc_xarray.mrc.header import HEADER_SIZE, Header, header_problem
from mrc_xarray.mrc.layout import Layout, arrange
from mrc_xarray.mrc.placing import locate
from mrc_xarray.mrc.recognition import (
    BYTE_ORDERS,
    PLAUSIBLE_SIZE,
    guess_byteorder,
    looks_like_mrc,
    refuse_foreign,
)
from mrc_xarray.mrc.signedness import mode0_sign
from mrc_xarray.pixels.compression import CODECS
from mrc_xarray.pixels.modes import EMAN2_MODES, MODES, PER_CODEC, Mode
from mrc_xarray.pixels.sections import Sections
from mrc_xarray.storage.base import FIRST_READ, Bytes

__all__ = [
    "PLAUSIBLE_SIZE",
    "MrcError",
    "MrcFile",
    "MrcWarning",
    "NamedBytes",
    "Problem",
    "SidecarChoice",
    "looks_like_mrc",
    "read",
]

# Direct Electron's key for the pixels of movies whose electrons are counted
_COUNTED = "Autosave Counted Movie Pixel Format"
# bytes of a long text that are read at once
_PIECE = 16 * 1024**2


@dataclass(frozen=True)
class MrcFile:
    """What a file says, put together.

    Attributes
    ----------
    name : str
        Path or URL.
    header : Header
        As found; what had to be repaired is in the other attributes.
    sections : Sections
        Where the pixels are, and what they are.
    layout : Layout
        What the sections are.
    axes : tuple of {"x", "y", "z"}
        What sections, rows and columns run along.
    voxel : dict of str to float, Å
        By axis; an axis whose voxel size is unknown is left out.
    origin : dict of str to float, Å
        Position of the first voxel, for the axes in `voxel`.
    mode0 : str or None
        By which evidence 8-bit data are signed or not, where MODE is 0.
    metadata : mapping or None
        The JSON that mrcz writes, or a sidecar's own keys.
    frame : tuple of str
        What rows and columns are: the last two of `axes`, or ``"ky"`` and ``"kx"``.
    steps : mapping of str to Step
        Distances that the header does not tell, by dimension, in the units of who does.
    frame_index : ndarray of int64, or None
        The section at each position of `layout`, and -1 where there is none; None where they
        are in its order.
    columns : tuple of Column
        One value for each section, from the extended header and sidecars.
    too_long : frozenset of str
        Dimensions that are too long to have coordinates. ``"section"`` stands for the number of
        all sections.
    values : mapping of str to Value
        One value for the file.
    problems : tuple of Problem
        What was repaired or assumed.
    """

    name: str
    header: Header
    sections: Sections
    layout: Layout
    axes: tuple[str, str, str]
    voxel: Mapping[str, float]
    origin: Mapping[str, float]
    mode0: str | None
    metadata: Mapping[str, Any] | None
    frame: tuple[str, str]
    steps: Mapping[str, Step]
    frame_index: np.ndarray[Any, np.dtype[np.int64]] | None
    columns: tuple[Column, ...]
    too_long: frozenset[str]
    values: Mapping[str, Value]
    problems: tuple[Problem, ...]


def read(
    source: Bytes,
    head: bytes | None = None,
    *,
    layout: str = "auto",
    scan_shape: tuple[int, int] | None = None,
    sections_per_frame: int | None = None,
    origin: str = "auto",
    mode0: str = "auto",
    convention: str = "ccpem",
    byteorder: str = "auto",
    metadata_file: SidecarChoice = "auto",
    scan_file: SidecarChoice = "auto",
    truncated: str = "error",
    strict: bool = False,
) -> MrcFile:
    """Read what a file says of itself, but none of its pixels.

    Parameters
    ----------
    source : Bytes
    head : bytes, optional
        The first `FIRST_READ` bytes, where they are at hand.
    metadata_file, scan_file : "auto", NamedBytes or None
        Sidecars: to be looked for, these, or none.
    layout, scan_shape, sections_per_frame, origin, mode0, convention, byteorder, truncated, strict
        As for the engine; see `mrc_xarray.backend`.

    Returns
    -------
    MrcFile

    Raises
    ------
    MrcError
        If the file is not MRC, is truncated, or holds what is not known; with ``strict=True``
        also if a repair was needed.
    """
    _check_choice("mode0", mode0, ("auto", "int8", "uint8"))
    _check_choice("convention", convention, ("ccpem", "eman2"))
    _check_choice("byteorder", byteorder, ("auto", *BYTE_ORDERS))
    _check_choice("truncated", truncated, ("error", "trim"))
    name = source.name
    if head is None:
        head = source.read(0, min(FIRST_READ, source.size))
    refuse_foreign(name, head)

    modes = EMAN2_MODES if convention == "eman2" else MODES
    order = BYTE_ORDERS.get(byteorder) or guess_byteorder(head, source.known_size, modes)
    header = Header.parse(head, order)
    problems: list[Problem] = [*check(header, repaired=True)]
    if byteorder != "auto" and header.stamped_byteorder:
        problems = [problem for problem in problems if problem.code != "machine-stamp"]
    mode = _mode(header, name, modes)
    evidence = None
    if mode.sign_varies:
        sign, evidence = mode0_sign(header)
        if mode0 != "auto":
            sign, evidence = mode0, "the argument mode0="
        mode = mode.with_sign(sign)

    shape = (header.nz, header.ny, header.nx, *mode.samples)
    if min(shape) < 1:
        raise MrcError.of(name, next(CHECKS["dimensions"](header)))
    located = locate(source, head, header, mode, truncated=truncated)
    sections, extended_size = located.sections, located.extended_size
    problems += located.problems
    n_sections = sections.shape[0]
    metadata, more = _json_metadata(source, header, head, extended_size, n_sections)
    problems += more

    axes = geometry.axis_names(header)
    records, steps = read_records(source, header, head, extended_size, n_sections)
    beside = read_sidecar(source, metadata_file, scan_file, n_sections)
    is_said = layout != "auto" or scan_shape is not None or sections_per_frame is not None
    if not is_said:
        problems += beside.scan_problems
    if beside.scan is not None and not is_said:
        arranged = Layout("scan", "a sidecar tells of the scan", beside.scan.dims)
    else:
        arranged = arrange(
            header,
            n_sections,
            name=name,
            section_axis=axes[0],
            extended_size=extended_size,
            layout=layout,
            scan_shape=scan_shape,
            sections_per_frame=sections_per_frame,
            evidence=beside.evidence,
        )
        if arranged.kind == "image_stack" and metadata_file == "auto" and not beside.is_told:
            beside = beside.over(read_tilt_list(source, header.nz))
    beside = beside.over(records)
    if mode.sign_varies and mode0 == "auto" and beside.keys.get(_COUNTED) == "uint8":
        evidence = f"{_COUNTED} is uint8"
        mode = mode.with_sign("uint8")
        sections = replace(sections, mode=mode)
    problems += beside.problems
    frame_index = beside.scan.frame_index if beside.scan and arranged.kind == "scan" else None
    if scan_shape is not None:
        frame_index = None
    if frame_index is None:
        # whole volumes or frames of a trimmed file
        n_sections = prod(n for _, n in arranged.leading)
        sections = replace(sections, shape=(n_sections, *sections.shape[1:]))
    frame = ("ky", "kx") if beside.is_diffraction else axes[1:]
    steps = steps | dict(beside.steps)
    spatial = [axis for axis in (*(axis for axis, _ in arranged.leading), *frame) if axis in axes]
    sizes = dict(zip(axes, shape[:3], strict=True))
    # a sidecar's word goes before the header's, and the header's before that of its records
    voxel, more = geometry.voxel_size(header, [a for a in spatial if a not in beside.steps], sizes)
    problems += [problem for problem in more if not geometry.is_of(problem, set(steps))]
    steps = {axis: step for axis, step in steps.items() if axis not in voxel}
    position, more = geometry.origin(header, axes, voxel, sizes, origin)
    problems += more
    labelled = {*voxel, *steps}
    if arranged.kind == "image_stack" or beside.columns:
        labelled.add("section")
    lengths = dict(arranged.leading) | dict(zip(frame, shape[1:3], strict=True))
    lengths = {dim: n for dim, n in (lengths | {"section": n_sections}).items() if dim in labelled}
    in_file = () if source.known_size is None else (*dict(arranged.leading), "section")
    too_long = limits.too_long(lengths, in_file)
    if too_long:
        problems.append(limits.without_coordinate(lengths, too_long))

    if strict and (errors := [p.refusal(name) for p in problems if p.strict]):
        raise MrcError("\n".join(errors))
    return MrcFile(
        name,
        header,
        sections,
        arranged,
        axes,
        voxel,
        position,
        evidence,
        metadata if metadata is not None else dict(beside.keys) or None,
        frame,
        steps,
        frame_index,
        beside.columns if "section" not in too_long else (),
        too_long,
        beside.values,
        tuple(problems),
    )


def _check_choice(argument: str, value: str, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        raise ValueError(f"{argument} is {value!r}; accepted: {', '.join(map(repr, accepted))}")


def _mode(header: Header, name: str, modes: Mapping[int, Mode]) -> Mode:
    codec, number = divmod(header.mode, PER_CODEC)
    mode = modes.get(number) if codec in CODECS else None
    if mode is not None and not (codec and mode.is_packed):
        return mode
    known = ", ".join(map(str, modes))
    problem = header_problem(
        "mode",
        "MODE",
        str(header.mode),
        f"{known}, and these with 1000 to {max(CODECS)}000 added in an MRCZ",
        "The file may be damaged, or not MRC.",
    )
    raise MrcError.of(name, problem)


def _json_metadata(
    source: Bytes, header: Header, head: bytes, extended_size: int, n_sections: int
) -> tuple[dict[str, Any] | None, list[Problem]]:
    """Return the JSON that mrcz puts into the extended header; see FORMAT: MRCZ."""
    if extended.kind(header, extended_size) != mrcz.KIND:
        return None, []
    end = HEADER_SIZE + extended_size
    raw = head[HEADER_SIZE:end]
    if end > len(head) and mrcz.looks_like(header, raw):
        if extended_size > mrcz.LONGEST:
            raise mrcz.too_much(source.name, extended_size, f"{extended_size} bytes long")
        raw = b"".join(_text(source, HEADER_SIZE, end))
    return mrcz.parse(source.name, raw, n_sections)


def _text(source: Bytes, start: int, end: int) -> Iterator[bytes]:
    """Yield the bytes of a text in pieces, up to the first piece that is not text.

    So a hole in a sparse file is not read to its end.
    """
    for at in range(start, end, _PIECE):
        piece = source.read(at, min(_PIECE, end - at))
        yield piece
        if not mrcz.is_text(piece):
            return
