"""The steps of reading an MRC file; each returns its own result.

1. identify: byte order, header and mode
2. locate, in `mrc_xarray.mrc.placing`: where the sections are, and how many
3. gather: metadata of the extended header and of sidecars
4. arrange: what the sections are, and what a pixel is
5. place: dimensions, with the positions of their voxels
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from mrc_xarray.errors import MrcError, Problem
from mrc_xarray.metadata import limits
from mrc_xarray.metadata.columns import Metadata
from mrc_xarray.metadata.find import read_sidecar, sidecar_choice
from mrc_xarray.mrc.checks import CHECKS, check, find_mode
from mrc_xarray.mrc.extended import kind_of
from mrc_xarray.mrc.folding import fold, gaps_of
from mrc_xarray.mrc.geometry import axis_names, geometry_of
from mrc_xarray.mrc.header import Header
from mrc_xarray.mrc.layout import Layout
from mrc_xarray.mrc.placing import Located
from mrc_xarray.mrc.recognition import (
    BYTE_ORDERS,
    guess_byteorder,
    plausible_byteorders,
    refuse_foreign,
)
from mrc_xarray.mrc.voxel import problems_of_cell
from mrc_xarray.options import OpenOptions
from mrc_xarray.pixels.modes import EMAN2_MODES, MODES, Mode
from mrc_xarray.pixels.sections import Sections
from mrc_xarray.recording import Dimension
from mrc_xarray.storage.base import Bytes
from mrc_xarray.voxel_size import Step

__all__ = [
    "Arranged",
    "Gathered",
    "Identified",
    "Placed",
    "arrange_sections",
    "gather",
    "identify",
    "place",
    "repairs",
]


# the mode of two pixels in each byte
_PACKED = 101


@dataclass(frozen=True, kw_only=True)
class Identified:
    """The header of a file, and its mode; the sign of mode 0 is not decided.

    `packed` is why each byte of MODE 0 contains two pixels, and empty if it is one.
    """

    name: str
    header: Header
    mode: Mode
    packed: str
    problems: tuple[Problem, ...]

    @property
    def n_columns(self) -> int:
        """The number of pixels in a row."""
        return self.header.n_columns if self.packed else self.header.nx


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """Metadata of the extended header and of a sidecar, before the layout is known."""

    extended_header: Metadata
    sidecar: Metadata


@dataclass(frozen=True, kw_only=True)
class Arranged:
    """What the sections and their pixels are; `mode0` is the dtype of MODE 0, and its evidence."""

    layout: Layout
    sections: Sections
    frame_index: np.ndarray[Any, np.dtype[np.int64]] | None
    mode0: str | None
    metadata: Metadata
    sidecar: Metadata
    problems: tuple[Problem, ...]


@dataclass(frozen=True, kw_only=True)
class Placed:
    """The dimensions, and whether sections have labels: there may be too many sections."""

    dims: tuple[Dimension, ...]
    labels_sections: bool
    problems: tuple[Problem, ...]


def identify(source: Bytes, head: bytes, options: OpenOptions) -> Identified:
    """Find the byte order, decode the header, and look up its mode."""
    refuse_foreign(source.name, head)
    modes = _table(options)
    order = BYTE_ORDERS.get(options.byteorder) or guess_byteorder(head, source.size, modes)
    header = Header.parse(head, order)
    mode = find_mode(header, modes)
    if isinstance(mode, Problem):
        raise MrcError.of(source.name, mode)
    if min(header.nx, header.ny, header.nz) < 1:
        raise MrcError.of(source.name, next(CHECKS["dimensions"](header)))
    # a caller that gives the dtype of 8-bit data wants bytes
    packed = header.packed_evidence if options.mode0 == "auto" else ""
    return Identified(
        name=source.name,
        header=header,
        mode=MODES[_PACKED] if packed else mode,
        packed=packed,
        problems=repairs(header, head, source.size, options),
    )


def repairs(
    header: Header, head: bytes, size: int | None, options: OpenOptions
) -> tuple[Problem, ...]:
    """Return what opening a file repairs in its header."""
    # a file without MAP can be older than the stamp; strict=True refuses what mrcfile refuses
    is_certain = len(plausible_byteorders(head, size, _table(options))) == 1
    is_normal = header.is_old_style or (is_certain and header.has_odd_stamp)
    needs_stamp = options.byteorder == "auto" and (options.strict or not is_normal)
    found = check(header, repaired=True)
    return tuple(p for p in found if needs_stamp or p.code != "machine-stamp")


def _table(options: OpenOptions) -> Mapping[int, Mode]:
    """Return the table of mode numbers."""
    return EMAN2_MODES if options.convention == "eman2" else MODES


def gather(
    source: Bytes, head: bytes, identity: Identified, located: Located, options: OpenOptions
) -> Gathered:
    """Read the metadata in the extended header and in sidecars."""
    header, size, n_sections = identity.header, located.extended_size, located.sections.shape[0]
    extended_header = kind_of(header, size).read_from(source, header, head, size, n_sections)
    sidecar = read_sidecar(
        source,
        metadata_file=sidecar_choice(options.metadata_file, options.storage_options),
        scan_file=sidecar_choice(options.scan_file, options.storage_options),
        n_sections=n_sections,
        n_promised=header.nz,
        records=extended_header,
        gaps=gaps_of(options),
    )
    return Gathered(extended_header=extended_header, sidecar=sidecar)


def arrange_sections(
    identity: Identified, located: Located, gathered: Gathered, options: OpenOptions
) -> Arranged:
    """Decide on the layout, the order of the sections, and the sign of 8-bit data."""
    folded = fold(
        identity.header,
        located.sections.shape[0],
        name=identity.name,
        extended_size=located.extended_size,
        sidecar=gathered.sidecar,
        records=gathered.extended_header,
        options=options,
    )
    layout = folded.layout
    is_used = layout.kind == "image_stack" or not gathered.sidecar.only_for_stacks
    sidecar = gathered.sidecar if is_used else Metadata()
    combined = sidecar.over(gathered.extended_header)
    metadata = combined.of_stack() if layout.kind == "image_stack" else combined
    mode = identity.mode
    evidence = f"uint8: {identity.packed}" if identity.packed else None
    if mode.sign_varies:
        dtype, reason = _mode0_dtype(identity.header, options.mode0, metadata.mode0)
        mode, evidence = mode.with_sign(dtype), f"{dtype}: {reason}"
    shape = located.sections.shape
    if folded.frame_index is None:
        # a trimmed file may end within a volume or frame
        shape = (prod(n for _, n in layout.leading), *shape[1:])
    return Arranged(
        layout=layout,
        sections=replace(located.sections, mode=mode, shape=shape),
        frame_index=folded.frame_index,
        mode0=evidence,
        metadata=metadata,
        sidecar=sidecar,
        problems=(*metadata.problems_of(scan=not options.decides_layout), *folded.problems),
    )


def _mode0_dtype(header: Header, choice: str, sidecar: tuple[str, str] | None) -> tuple[str, str]:
    """Return whether MODE 0 is "int8" or "uint8", and what decided.

    See ``docs/reference/format.md#signedness``.
    """
    if choice != "auto":
        return choice, "the argument mode0="
    if sidecar is not None:
        return sidecar
    if header.has_imod_stamp and header.imod_flags & 1:
        return "int8", "IMOD's flags say signed"
    if header.has_imod_stamp:
        return "uint8", "IMOD's flags say unsigned"
    if header.is_direct_electron:
        return "uint8", "a Direct Electron server wrote the file"
    if header.has_statistics:
        fits_int8 = header.dmin >= -128 and header.dmax <= 127
        fits_uint8 = header.dmin >= 0 and header.dmax <= 255
        if fits_int8 != fits_uint8:
            evidence = f"DMIN is {header.dmin:g} and DMAX {header.dmax:g}"
            return "int8" if fits_int8 else "uint8", evidence
    if header.mrcz_version is not None:
        return "int8", "mrcz wrote the file, and can't write unsigned bytes"
    if header.has_valid_nversion:
        return "int8", "NVERSION is valid, and MRC2014 is signed"
    if not header.has_map_word:
        return "uint8", "a header without MAP is from before 2000"
    return "int8", "assumed, since the header does not say"


def place(source: Bytes, identity: Identified, arranged: Arranged, options: OpenOptions) -> Placed:
    """Find the positions along each dimension."""
    shape, leading = arranged.sections.shape, dict(arranged.layout.leading)
    rows_and_columns = axis_names(identity.header)[1:]
    frame = ("ky", "kx") if arranged.metadata.is_diffraction else rows_and_columns
    sizes = leading | dict(zip(frame, shape[1:3], strict=True))
    positions, problems = _positions(identity.header, arranged, sizes, options)
    labelled = {dim: size for dim, size in sizes.items() if dim in positions}
    if arranged.layout.kind == "image_stack" or arranged.metadata.columns:
        labelled["section"] = shape[0]
    in_file = () if source.size is None else (*leading, "section")
    too_long, notes = limits.too_long(labelled, in_file, field="NX, NY, NZ", offset=0, nbytes=12)
    dims = [
        Dimension(name=dim, size=size, **({} if dim in too_long else positions.get(dim, {})))
        for dim, size in sizes.items()
    ]
    if arranged.sections.mode.samples:
        dims.append(Dimension(name="rgb", size=shape[-1]))
    return Placed(
        dims=tuple(dims),
        labels_sections="section" not in too_long,
        problems=(*problems, *notes),
    )


def _positions(
    header: Header, arranged: Arranged, sizes: Mapping[str, int], options: OpenOptions
) -> tuple[dict[str, dict[str, Any]], list[Problem]]:
    """Return start, step and unit along the dimensions of known step, and what is wrong.

    The step of a sidecar overrides the step of the header, which overrides the step of records.
    The user's overrides all of them.
    """
    given: dict[str, Step] = {}
    if options.voxel_size is not None:
        # the names that the file stores are not known yet
        names = dict(zip(options.dims or sizes, sizes, strict=False))
        given = options.voxel_size.along(names, partly=True)
    axes = [dim for dim in sizes if dim in axis_names(header)]
    lengths = {a: given[a].size for a in axes if a in given and given[a].is_length}
    stated = {**arranged.sidecar.steps, **given}
    in_header = [axis for axis in axes if axis in lengths or axis not in stated]
    geometry = geometry_of(header, in_header, options.origin, lengths)
    found = dict(arranged.metadata.steps)
    if options.scan_shape is not None and "scan_y" not in sizes:
        # the positions in one line may come from several lines of the scan
        found.pop("scan_x", None)
    steps = {**found, **given}
    # Direct Electron's placeholder is no damage
    unknown = [axis for axis in in_header if axis not in steps and not header.is_direct_electron]
    return {
        **{dim: {"step": step.size, "unit": step.units} for dim, step in steps.items()},
        **{dim: {"step": v, "start": geometry.start[dim]} for dim, v in geometry.voxel.items()},
    }, [*problems_of_cell(header, unknown), *geometry.problems]
