"""The steps of reading an MRC file; each returns its own result.

1. identify: byte order, header and mode
2. locate, in `mrc_xarray.mrc.placing`: where the sections are, and how many
3. gather: metadata of the extended header and of sidecars
4. arrange: what the sections are, and what a pixel is
5. place: dimensions, with the positions of their voxels
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from mrc_xarray.errors import MrcError, Problem
from mrc_xarray.metadata import limits
from mrc_xarray.metadata.columns import Metadata
from mrc_xarray.metadata.files import SidecarChoice, TextFile
from mrc_xarray.metadata.find import read_sidecar
from mrc_xarray.mrc.checks import CHECKS, check
from mrc_xarray.mrc.extended import kind_of
from mrc_xarray.mrc.geometry import axis_names, geometry_of
from mrc_xarray.mrc.header import Header
from mrc_xarray.mrc.layout import Layout, arrange
from mrc_xarray.mrc.placing import Located
from mrc_xarray.mrc.recognition import BYTE_ORDERS, guess_byteorder, refuse_foreign
from mrc_xarray.options import OpenOptions
from mrc_xarray.pixels.compression import MRCZ_CODECS
from mrc_xarray.pixels.modes import EMAN2_MODES, MODES, PER_CODEC, Mode
from mrc_xarray.pixels.sections import Sections
from mrc_xarray.recording import Dimension
from mrc_xarray.storage import Target, open_decoded
from mrc_xarray.storage.base import Bytes

__all__ = [
    "Arranged",
    "Gathered",
    "Identified",
    "Placed",
    "arrange_sections",
    "gather",
    "identify",
    "place",
]


@dataclass(frozen=True, kw_only=True)
class Identified:
    """The header of a file, and the mode that it names; the sign of mode 0 is not decided."""

    name: str
    header: Header
    mode: Mode
    problems: tuple[Problem, ...]


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """Metadata of the extended header and of a sidecar, before the layout is known."""

    extended_header: Metadata
    sidecar: Metadata


@dataclass(frozen=True, kw_only=True)
class Arranged:
    """What the sections and their pixels are, and what decided on the sign of MODE 0."""

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
    modes = EMAN2_MODES if options.convention == "eman2" else MODES
    order = BYTE_ORDERS.get(options.byteorder) or guess_byteorder(head, source.size, modes)
    header = Header.parse(head, order)
    is_overridden = options.byteorder != "auto" and header.stamped_byteorder is not None
    problems = tuple(
        problem
        for problem in check(header, repaired=True)
        if not (is_overridden and problem.code == "machine-stamp")
    )
    mode = _mode(header, source.name, modes)
    if min(header.nx, header.ny, header.nz) < 1:
        raise MrcError.of(source.name, next(CHECKS["dimensions"](header)))
    return Identified(name=source.name, header=header, mode=mode, problems=problems)


def _mode(header: Header, name: str, modes: Mapping[int, Mode]) -> Mode:
    mode = modes.get(header.mode % PER_CODEC) if header.codec_number in MRCZ_CODECS else None
    if header.mode >= 0 and mode is not None and not (header.is_mrcz and mode.is_packed):
        return mode
    known = ", ".join(map(str, modes))
    accepted = f"{known}, and these with 1000 to {max(MRCZ_CODECS)}000 added in an MRCZ"
    action = "The file may be damaged or not an MRC file."
    raise MrcError.of(name, header.problem("mode", "MODE", accepted, action))


def gather(
    source: Bytes, head: bytes, identity: Identified, located: Located, options: OpenOptions
) -> Gathered:
    """Read the metadata in the extended header and in sidecars."""
    header, size, n_sections = identity.header, located.extended_size, located.sections.shape[0]
    extended_header = kind_of(header, size).read_from(source, header, head, size, n_sections)
    sidecar = read_sidecar(
        source,
        metadata_file=_sidecar(options.metadata_file, options.storage_options),
        scan_file=_sidecar(options.scan_file, options.storage_options),
        n_sections=n_sections,
        n_promised=header.nz,
    )
    return Gathered(extended_header=extended_header, sidecar=sidecar)


def _sidecar(target: Target | None, storage_options: dict[str, Any] | None) -> SidecarChoice:
    """Read the sidecar, if the user gives one."""
    if target is None or (isinstance(target, str) and target == "auto"):
        return target  # type: ignore[return-value]  # of the strings, only "auto" is left
    source, head = open_decoded(target, storage_options)
    raw = head if len(head) == source.size else source.read_all()
    return TextFile(os.path.basename(source.name), raw)


def arrange_sections(
    identity: Identified, located: Located, gathered: Gathered, options: OpenOptions
) -> Arranged:
    """Decide on the layout, the order of the sections, and the sign of 8-bit data."""
    header, sidecar = identity.header, gathered.sidecar
    scan = None if options.decides_layout else sidecar.scan
    if scan is not None:
        layout = Layout("scan", "a sidecar describes the scan", scan.dims)
    else:
        layout = arrange(
            header,
            located.sections.shape[0],
            name=identity.name,
            section_axis=axis_names(header)[0],
            extended_size=located.extended_size,
            evidence=sidecar.evidence,
            options=options,
        )
    is_used = layout.kind == "image_stack" or not sidecar.only_for_stacks
    used = sidecar if is_used else Metadata()
    metadata = used.over(gathered.extended_header)
    mode, evidence = identity.mode, None
    if mode.sign_varies:
        dtype, evidence = _mode0_dtype(header, options.mode0, metadata.mode0)
        mode = mode.with_sign(dtype)
    frame_index = scan.frame_index if scan is not None else None
    shape = located.sections.shape
    if frame_index is None:
        # a trimmed file may end within a volume or frame
        shape = (prod(n for _, n in layout.leading), *shape[1:])
    return Arranged(
        layout=layout,
        sections=replace(located.sections, mode=mode, shape=shape),
        frame_index=frame_index,
        mode0=evidence,
        metadata=metadata,
        sidecar=used,
        problems=tuple(
            problem
            for problem in metadata.problems
            if problem.code != "scan" or not options.decides_layout
        ),
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
    """Find the positions along each dimension.

    The step of a sidecar overrides the step of the header, which overrides the step of records.
    """
    axes, shape = axis_names(identity.header), arranged.sections.shape
    metadata, leading = arranged.metadata, arranged.layout.leading
    frame = ("ky", "kx") if metadata.is_diffraction else axes[1:]
    sizes = dict(leading) | dict(zip(frame, shape[1:3], strict=True))
    in_header = [dim for dim in sizes if dim in axes and dim not in arranged.sidecar.steps]
    geometry = geometry_of(identity.header, in_header, options.origin)
    steps = metadata.steps
    damage = [problem for axis, problem in geometry.damage.items() if axis not in steps]
    problems = [*damage, *geometry.problems]

    lengths = {dim: n for dim, n in sizes.items() if dim in steps or dim in geometry.voxel}
    if arranged.layout.kind == "image_stack" or metadata.columns:
        lengths["section"] = shape[0]
    in_file = () if source.size is None else (*dict(leading), "section")
    too_long = limits.too_long(lengths, in_file)
    if too_long:
        problems.append(limits.without_coordinate(lengths, too_long))

    positions: dict[str, dict[str, Any]] = {
        **{dim: {"step": step.size, "unit": step.units} for dim, step in steps.items()},
        **{dim: {"step": v, "start": geometry.start[dim]} for dim, v in geometry.voxel.items()},
    }
    dims = [
        Dimension(name=dim, size=size, **({} if dim in too_long else positions.get(dim, {})))
        for dim, size in sizes.items()
    ]
    if arranged.sections.mode.samples:
        dims.append(Dimension(name="rgb", size=shape[-1]))
    return Placed(
        dims=tuple(dims),
        labels_sections="section" not in too_long,
        problems=tuple(problems),
    )
