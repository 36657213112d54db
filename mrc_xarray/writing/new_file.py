"""Plan a new file: from labels to a header, the inverse of `mrc_xarray.labels`."""

from __future__ import annotations

import contextlib
import datetime
import math
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import xarray as xr

from mrc_xarray._version import __version__
from mrc_xarray.errors import MrcError, warn
from mrc_xarray.mrc.geometry import AXES, geometry_of
from mrc_xarray.mrc.header import HEADER_SIZE, N_LABELS, Header, is_mrcz_label
from mrc_xarray.pixels.compression import LARGEST_BLOCK, codec_number
from mrc_xarray.pixels.modes import PER_CODEC
from mrc_xarray.storage import WriteTarget, name_of
from mrc_xarray.storage.sink import open_sink
from mrc_xarray.suffixes import OTHER_FORMATS, stem_and_suffix
from mrc_xarray.writing.cell import Cell, cells, fits_labels
from mrc_xarray.writing.extended_header import Extended, carry
from mrc_xarray.writing.extra import extra_of
from mrc_xarray.writing.header_layout import SPACE_GROUPS
from mrc_xarray.writing.options import WriteOptions
from mrc_xarray.writing.plan import Plan
from mrc_xarray.writing.remainder import layout_of, store_labels
from mrc_xarray.writing.subject import Subject

__all__ = ["plan_new"]

# the fields that place the voxels, and the layout
_PLACING = (
    "ispg", "mx", "my", "mz", "cella", "nxstart", "nystart", "nzstart", "origin",
)  # fmt: skip
# mrcz decides by this label what MZ means
_MRCZ_LABEL = "MRCZ0.6.0"


def plan_new(
    data: xr.DataArray,
    target: WriteTarget,
    options: WriteOptions,
    unlike: Sequence[str] = (),
) -> Plan:
    """Plan to write data to a new file, with one warning about all that the file can't hold.

    `unlike` is what is known to be lost already. The pixels are not computed. Raise MrcError if
    the data have a shape, a dtype or coordinates that no MRC file can have.
    """
    _check_name(name_of(target, options.storage_options))
    sink = open_sink(target, options.storage_options, options.overwrite, options.compression)
    compressor = options.compressor_for(sink.name, codec=sink.destination.codec)
    codec = 0 if compressor is None else codec_number(compressor)
    subject = Subject.of(data, sink.name, options, codec)
    header, extended, lost_by_format = _headers(subject)
    lost = [*unlike, *lost_by_format]
    mode = subject.mode
    if codec and mode.is_packed:
        raise MrcError(f"mode {mode.number} can't be compressed; use compressor=None")
    # a block also has some bytes of blosc's own
    if codec and header.ny * mode.row_bytes(header.nx) > LARGEST_BLOCK - 64:
        raise MrcError(
            f"a section of {header.ny} × {header.nx} pixels is larger than the 2 GiB that a block "
            "of an MRCZ file can hold; use compressor=None"
        )
    if lost:
        warn(f"{sink.name}: an MRC file can't store everything: {'; '.join(lost)}")
    return Plan(
        sink=sink,
        header=header,
        extended=extended,
        mode=mode,
        shape=data.shape,
        dtype=data.dtype,
        places=tuple(map(range, data.shape)),
        statistics=options.statistics,
        compressor=compressor,
        clevel=options.clevel,
        offset=HEADER_SIZE + len(extended),
    )


def _check_name(name: str) -> None:
    """Raise MrcError if the name ends in the suffix of another format."""
    if (suffix := stem_and_suffix(name.rstrip("/"))[1]) in OTHER_FORMATS:
        raise MrcError(
            f"{name}: the name ends in {suffix}, and the file would be MRC. Choose a name in "
            ".mrc, .mrcs, .map, .rec or .mrcz, or write the other format with "
            f"{OTHER_FORMATS[suffix]}"
        )


def _headers(subject: Subject) -> tuple[Header, bytes, list[str]]:
    """Return header and extended header, and what these can't hold."""
    source = subject.source
    extra, is_ours, extra_lost = extra_of(subject)
    possible, cell_lost = cells(subject, _section_intervals(subject))
    base = _base(subject, extra, _texts(subject, is_ours))
    carried = carry(subject, base, is_of_source=possible[0].is_of_source)
    probe = Extended() if subject.codec or subject.options.metadata else carried
    placed, lost = _placed(subject, _with_extended(base, source, probe), possible)
    extended, left = store_labels(subject, _with_extended(placed, source, carried), carried)
    header = _with_extended(placed, source, extended)
    return header, extended.raw, [*_header_lost(subject), *extra_lost, *cell_lost, *lost, *left]


def _base(subject: Subject, extra: Header, texts: Sequence[str]) -> Header:
    """Return the header without cell, layout and extended header."""
    cellb = extra.cellb if subject.source is None else subject.source.cellb
    has_angles = all(math.isfinite(angle) and 0 < angle < 180 for angle in cellb)
    numbers = [AXES.index(axis) + 1 for axis in subject.roles.axes]
    return extra.replaced(
        **dict(zip(("nz", "ny", "nx"), subject.n_along.values(), strict=True)),
        **dict(zip(("maps", "mapr", "mapc"), numbers, strict=True)),
        mode=subject.mode.number + PER_CODEC * subject.codec,
        cellb=cellb if has_angles else extra.cellb,
        nlabl=len(texts),
        label=(*texts, *[""] * (N_LABELS - len(texts))),
    )


def _with_extended(header: Header, source: Header | None, extended: Extended) -> Header:
    """Return the header with the fields that describe an extended header."""
    fields: dict[str, Any] = {"nsymbt": len(extended.raw)}
    if header.skew is not None:
        # it is stored over the other fields
        return header.replaced(**fields)
    if extended.counts or (source is not None and source.nsymbt):
        fields |= {"nint": 0, "nreal": 0} | extended.counts
    return header.replaced(exttyp=extended.exttyp if extended.raw else "", **fields)


def _placed(subject: Subject, base: Header, possible: list[Cell]) -> tuple[Header, list[str]]:
    """Return the header with cell and layout, and what is lost of the source's.

    The first that opens with the labels and the layout of the data is chosen, or else with the
    labels.
    """
    found = []
    for header in _candidates(subject, base, possible):
        is_other = layout_of(subject, header, header.nsymbt).kind != subject.roles.kind
        found.append(((not fits_labels(subject, header), is_other), header))
        if found[-1][0] == (False, False):
            break
    if not found:
        raise MrcError(
            f"{subject.name}: a size, a position or another number is more than a header can hold"
        )
    wanted = found[0][1]
    _, header = min(found, key=lambda each: each[0])
    # of images, ISPG says nothing but the layout
    is_volume = subject.roles.kind in ("volume", "volume_stack")
    changed = [
        f"{name.upper()} ({_shown(wanted[name])}, now {_shown(header[name])})"
        for name in _PLACING[0 if is_volume else 1 :]
        if subject.source is not None and wanted[name] != header[name]
    ]
    return header, changed


def _candidates(subject: Subject, base: Header, possible: list[Cell]) -> Iterator[Header]:
    """Yield the possible headers as they are read from a file, best first."""
    headers = [
        base.replaced(ispg=ispg, **cell.fields(base))
        for cell in possible
        for ispg in _space_groups(subject, cell)
    ]
    if subject.roles.kind == "image_stack" and subject.n_along[subject.roles.axes[0]] == 1:
        # with ISPG 0, it would be an image
        headers += [
            header.replaced(
                ispg=1, cella=header.cella._replace(z=header.cella.z or header.cella.x)
            )
            for header in headers
        ]
    for header in headers:
        # a number may not fit its field
        with contextlib.suppress(struct.error, OverflowError):
            yield Header.parse(header.encode(), header.byteorder)


def _space_groups(subject: Subject, cell: Cell) -> list[int]:
    """Return the possible ISPG, best first."""
    standard = SPACE_GROUPS[subject.roles.kind]
    if subject.source is None or not subject.has_kind_of_source or subject.source.ispg < 0:
        return [standard]
    ispg = subject.source.ispg
    # a crystal has its symmetry only in its own cell
    is_symmetric = subject.roles.kind in ("volume", "volume_stack") and ispg > standard
    return [standard] if is_symmetric and not cell.is_of_source else [ispg, standard]


def _shown(value: Any) -> str:
    return " × ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else str(value)


def _section_intervals(subject: Subject) -> dict[str, int]:
    """Return the intervals of the cell along the sections, if they are not all sections."""
    kind, sizes, section_axis = subject.roles.kind, subject.sizes, subject.roles.axes[0]
    if kind == "volume_stack":
        return {section_axis: sizes[-1], "z": sizes[-1]}
    if subject.codec:
        # mrcz takes MZ as the sections of a frame, and 0 as one array. RosettaSciIO reads only
        # arrays, so the shape of a scan is in the JSON
        return {"z": sizes[-1] if subject.roles.is_list_of_frames else 0}
    # MZ is 1 in a stack of images, whatever its axes are
    one = {"volume": (), "image": (section_axis,)}.get(kind, (section_axis, "z"))
    return dict.fromkeys(one, 1)


def _texts(subject: Subject, is_ours: bool) -> Sequence[str]:
    """Return the labels: those of the source, the user's, and one that names this package."""
    now = datetime.datetime.now().strftime("%Y-%m-%d %H:%M:%S")
    # our label at the front says that mrcz's fields are in the header
    program = f"{'' if is_ours else 'copied by '}mrc_xarray {__version__}"
    added = [*subject.options.labels, f"{program:<40}{now:>39}"]
    first = [_MRCZ_LABEL] if subject.codec else []
    n_free = N_LABELS - len(first) - len(added)
    if n_free < 0:
        n = len(subject.options.labels)
        raise MrcError(f"there are {n} labels; accepted: up to {n + n_free}")
    source_labels = () if subject.source is None else subject.source.texts
    old = [text for text in source_labels if not is_mrcz_label(text)]
    return [*first, *old[:n_free], *added]


def _header_lost(subject: Subject) -> list[str]:
    """Return positions and pixels that the header can't hold as they were, for a warning."""
    grids, roles = subject.grids, subject.roles
    lost = [grid.note for grid in grids.values() if grid.note]
    known = {} if subject.source is None else geometry_of(subject.source, roles.spatial).voxel
    dropped = [
        f"{axis} ({voxel:g} Å in the source)"
        for axis, voxel in known.items()
        if grids[axis].voxel is None and subject.is_of_source(axis)
    ]
    if dropped:
        lost.append(f"the voxel size along {', '.join(dropped)}, which the data do not have")
    lost += [subject.mode_note] if subject.mode_note else []
    if not subject.mode.is_standard:
        lost.append(f"MODE {subject.mode.number} is not in MRC2014, and few programs read it")
    return lost
