"""Plan a new file: from labels to a header, the inverse of `mrc_xarray.labels`."""

from __future__ import annotations

import datetime
import math
import os
import struct
from collections.abc import Sequence
from typing import Any

import xarray as xr

from mrc_xarray._version import __version__
from mrc_xarray.errors import MrcError, warn
from mrc_xarray.labels.attributes import ATTRS_WITH_UNIT
from mrc_xarray.mrc.extended.ccp4 import has_skew
from mrc_xarray.mrc.geometry import AXES, axis_names, geometry_of
from mrc_xarray.mrc.header import HEADER_SIZE, N_LABELS, XYZ, Header, is_mrcz_label
from mrc_xarray.mrc.recognition import BYTE_ORDERS
from mrc_xarray.pixels.compression import LARGEST_BLOCK, codec_number
from mrc_xarray.pixels.modes import PER_CODEC
from mrc_xarray.storage.sink import open_sink
from mrc_xarray.writing.extended_header import carry
from mrc_xarray.writing.options import WriteOptions
from mrc_xarray.writing.plan import Plan
from mrc_xarray.writing.remainder import store_labels
from mrc_xarray.writing.subject import Roles, Subject

__all__ = ["plan_new"]

# CCP4's skew transformation
_SKEW = slice(96, 148)
# mrcz decides by this label what MZ means
_MRCZ_LABEL = "MRCZ0.6.0"


def plan_new(data: xr.DataArray, target: str | os.PathLike[str], options: WriteOptions) -> Plan:
    """Plan to write data to a new file, with one warning about all that the file can't hold.

    The pixels are not computed. Raise MrcError if the data have a shape, a dtype or coordinates
    that no MRC file can have.
    """
    sink = open_sink(target, options.storage_options, options.overwrite)
    compressor = options.compressor_for(sink.name)
    codec = 0 if compressor is None else codec_number(compressor)
    subject = Subject.of(data, sink.name, options, codec)
    header, extended, lost = _headers(subject)
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
        start=(0,) * data.ndim,
        statistics=options.statistics,
        compressor=compressor,
        clevel=options.clevel,
        offset=HEADER_SIZE + len(extended),
    )


def _headers(subject: Subject) -> tuple[Header, bytes, list[str]]:
    """Return header and extended header, and what these can't hold."""
    source, skew = subject.source, _skew(subject)
    header = _header(subject, skew)
    is_same_grid = source is not None and _is_same_grid(source, header, subject.roles)
    if source is not None and is_same_grid and source.ispg > 1:
        # a crystal, whose cell may be larger than the grid
        names = ("ispg", "cella", "mx", "my", "mz")
        header = header.replaced(**{name: source[name] for name in names})
    carried = carry(subject, header, is_same_grid=is_same_grid)
    extended, lost = store_labels(subject, header, carried)
    exttyp = {} if skew else {"exttyp": extended.exttyp if extended.raw else ""}
    header = header.replaced(nsymbt=len(extended.raw), **extended.counts, **exttyp)
    try:
        header.encode()
    except (struct.error, OverflowError) as error:
        raise MrcError(
            f"{subject.name}: a size, a position or another number is more than a header can "
            f"hold: {error}"
        ) from error
    return header, extended.raw, [*_header_lost(subject, skew), *lost]


def _skew(subject: Subject) -> bytes:
    """Return CCP4's skew transformation from the source; empty if there is none to preserve."""
    source = subject.source
    if source is None or subject.roles.kind != "volume" or not has_skew(source):
        return b""
    # an EXTTYP is stored in the same bytes
    return b"" if source.exttyp.strip().isalnum() else source.encode()[_SKEW]


def _header(subject: Subject, skew: bytes) -> Header:
    """Return the header without an extended header, as if there were no source but its skew."""
    roles = subject.roles
    n_sections = math.prod(subject.sizes)
    rows, columns = subject.data.shape[len(subject.sizes) :][:2]
    along = dict(zip(roles.axes, (n_sections, rows, columns), strict=True))
    intervals = along | _section_intervals(subject)
    voxel = {a: grid.voxel or 0.0 for a, grid in subject.grids.items() if a in roles.spatial}
    # in an MRCZ, MZ can be no interval, and the cell has all sections;
    # see ``docs/reference/format.md#mrcz``
    cella = (voxel.get(axis, 0.0) * (intervals[axis] or along[axis]) for axis in AXES)
    section, row, column = (AXES.index(axis) + 1 for axis in roles.axes)
    blank = Header.blank(BYTE_ORDERS[subject.options.byteorder], skew or bytes(52))
    cellb = blank.cellb if subject.source is None else subject.source.cellb
    has_angles = all(math.isfinite(angle) and 0 < angle < 180 for angle in cellb)
    texts = _texts(subject)
    return blank.replaced(
        nx=columns,
        ny=rows,
        nz=n_sections,
        mode=subject.mode.number + PER_CODEC * subject.codec,
        mx=intervals["x"],
        my=intervals["y"],
        mz=intervals["z"],
        cella=XYZ(*cella),
        cellb=cellb if has_angles else blank.cellb,
        mapc=column,
        mapr=row,
        maps=section,
        ispg={"volume": 1, "volume_stack": 401}.get(roles.kind, 0),
        origin=XYZ(*(subject.grids[a].first if a in subject.grids else 0.0 for a in AXES)),
        nlabl=len(texts),
        label=(*texts, *[""] * (N_LABELS - len(texts))),
        **_dialect_fields(subject, skew),
    )


def _section_intervals(subject: Subject) -> dict[str, int]:
    """Return the intervals of the cell along the sections, if they are not all sections."""
    kind, sizes, section_axis = subject.roles.kind, subject.sizes, subject.roles.axes[0]
    if kind == "volume_stack":
        return {section_axis: sizes[-1], "z": sizes[-1]}
    if subject.codec:
        # mrcz takes MZ as the sections of a frame, and 0 as one array
        is_grouped = kind == "image_stack" and len(sizes) == 2
        return {"z": sizes[-1] if is_grouped else 0}
    return {} if kind == "volume" else {section_axis: 1, "z": 1}


def _dialect_fields(subject: Subject, skew: bytes) -> dict[str, Any]:
    """Return header fields that mrcz and IMOD have defined in EXTRA."""
    fields: dict[str, Any] = {}
    for field, value in subject.options.instrument.items():
        measured = subject.provenance.attrs.get(ATTRS_WITH_UNIT[field]) if value is None else value
        if measured is not None and not skew:
            fields[field] = float(measured)
    if subject.mode.is_unsigned_variant:
        # IMOD's stamp and flags: unsigned bytes, and MRC2014's sign of the origin
        fields |= {"imod_stamp": int.from_bytes(b"IMOD", "little"), "imod_flags": 4}
    return fields


def _texts(subject: Subject) -> Sequence[str]:
    """Return the labels: those of the source, the user's, and one that names this package."""
    now = datetime.datetime.now().strftime("%Y-%m-%d %H:%M:%S")
    added = [*subject.options.labels, f"{'mrc_xarray ' + __version__:<40}{now:>39}"]
    first = [_MRCZ_LABEL] if subject.codec else []
    n_free = N_LABELS - len(first) - len(added)
    if n_free < 0:
        n = len(subject.options.labels)
        raise MrcError(f"there are {n} labels; accepted: up to {n + n_free}")
    source_labels = () if subject.source is None else subject.source.label
    old = [t for t in source_labels if t.strip(" \0") and not is_mrcz_label(t)]
    return [*first, *old[:n_free], *added]


def _is_same_grid(source: Header, header: Header, roles: Roles) -> bool:
    """Return whether the new file has the voxels of the source, in the same places."""
    is_stack = roles.kind == "volume_stack"
    if (
        roles.kind not in ("volume", "volume_stack")
        or (source.nx, source.ny, source.nz) != (header.nx, header.ny, header.nz)
        or axis_names(source) != roles.axes
        or is_stack != (401 <= source.ispg <= 630)
    ):
        return False
    old, new = (geometry_of(each, roles.spatial) for each in (source, header))
    return old.voxel.keys() == new.voxel.keys() and all(
        math.isclose(old.voxel[axis], new.voxel[axis], rel_tol=1e-4)
        and math.isclose(old.start[axis], new.start[axis], abs_tol=0.01 * old.voxel[axis])
        for axis in old.voxel
    )


def _header_lost(subject: Subject, skew: bytes) -> list[str]:
    """Return positions and values of the instrument that the header can't hold, for a warning."""
    lost = [grid.note for grid in subject.grids.values() if grid.note]
    if skew and any(value is not None for value in subject.options.instrument.values()):
        lost.append("voltage, C3 and gain, since CCP4's skew transformation is in their place")
    if not subject.mode.is_standard:
        lost.append(f"MODE {subject.mode.number} is not in MRC2014, and few programs read it")
    return lost
