"""From labels to a header: the inverse of `mrc_xarray.labels`."""

from __future__ import annotations

import datetime
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from mrc_xarray._version import __version__
from mrc_xarray.errors import MrcError
from mrc_xarray.mrc.geometry import AXES, axis_names, geometry_of
from mrc_xarray.mrc.header import N_LABELS, XYZ, Header
from mrc_xarray.mrc.recognition import BYTE_ORDERS
from mrc_xarray.pixels.modes import PER_CODEC, Mode, mode_for
from mrc_xarray.recording import LABELS_KEY
from mrc_xarray.writing import extended_header
from mrc_xarray.writing.extended_header import Extended
from mrc_xarray.writing.options import WriteOptions
from mrc_xarray.writing.provenance import Provenance
from mrc_xarray.writing.remainder import (
    as_json,
    changed_dimensions,
    find_remainder,
    labels_for_json,
)
from mrc_xarray.writing.roles import Grid, Roles, find_grids, find_roles

__all__ = ["Heading", "make_heading"]

# CCP4's skew transformation
_SKEW = slice(96, 148)
# mrcz decides by this label what MZ means
_MRCZ_LABEL = "MRCZ0.6.0"
# the attribute that each header field of mrcz becomes
_INSTRUMENT = {"voltage": "voltage_kV", "c3": "c3_mm", "gain": "gain_e_per_DN"}


@dataclass(frozen=True)
class Heading:
    """Header, with undetermined statistics, and extended header; what they can't hold is lost."""

    header: Header
    extended: bytes
    mode: Mode
    lost: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Subject:
    """The data to be written, and what is known about them."""

    data: xr.DataArray
    options: WriteOptions
    codec: int  # in MODE; 0 for a plain file
    roles: Roles
    grids: dict[str, Grid]
    mode: Mode
    provenance: Provenance

    @property
    def source(self) -> Header | None:
        """The header of the file that the data were opened from."""
        return self.provenance.header

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes of the dimensions that count sections."""
        return self.data.shape[: len(self.roles.leading)]

    @property
    def skew(self) -> bytes:
        """CCP4's skew transformation from the source; empty if there is none to preserve."""
        source = self.source
        if source is None or self.roles.kind != "volume" or source.lskflg != 1:
            return b""
        # other programs store something else in the same bytes
        is_other = source.exttyp.strip().isalnum() or source.has_imod_stamp
        return b"" if is_other else source.encode()[_SKEW]


def make_heading(data: xr.DataArray, name: str, options: WriteOptions, codec: int) -> Heading:
    """Find the header and the extended header of a file from the labels of the data.

    The name of the file may determine the layout. The pixels are not computed.

    Raises
    ------
    MrcError
        If the data have a shape, a dtype or coordinates that no MRC file can have.
    """
    roles, provenance = find_roles(data), Provenance.of(data)
    source = provenance.header
    subject = _Subject(
        data=data,
        options=options,
        codec=codec,
        roles=roles,
        grids=find_grids(data, roles, options.voxel_size, source),
        mode=mode_for(data.dtype, options.mode, is_rgb=roles.is_rgb),
        provenance=provenance,
    )
    header = _header(subject)
    is_same_grid = source is not None and _is_same_grid(source, header, roles)
    if source is not None and is_same_grid and source.ispg > 1:
        # a crystal, whose cell may be larger than the grid
        names = ("ispg", "cella", "mx", "my", "mz")
        header = header.replaced(**{name: source[name] for name in names})
    carried = _carried(subject, header, is_same_grid)
    dims = changed_dimensions(data, roles, header, len(carried.raw), name)
    extended, more = _with_json(subject, carried, dims)
    if not subject.skew:
        header = header.replaced(exttyp=extended.exttyp if extended.raw else "")
    header = header.replaced(nsymbt=len(extended.raw), **extended.counts)
    try:
        header.encode()
    except (struct.error, OverflowError) as error:
        raise MrcError(
            f"{name}: a size, a position or another number is more than a header can hold: {error}"
        ) from error
    return Heading(header, extended.raw, subject.mode, (*_header_lost(subject), *more))


def _header(subject: _Subject) -> Header:
    """Return the header without an extended header, as if there were no source but its skew."""
    roles = subject.roles
    n_sections = math.prod(subject.sizes)
    rows, columns = subject.data.shape[len(subject.sizes) :][:2]
    along = dict(zip(roles.axes, (n_sections, rows, columns), strict=True))
    intervals = along | _section_intervals(subject)
    voxel = {a: grid.voxel or 0.0 for a, grid in subject.grids.items() if a in roles.spatial}
    # where MZ of an MRCZ is no interval, the cell has all sections;
    # see ``docs/reference/format.md#mrcz``
    cella = (voxel.get(axis, 0.0) * (intervals[axis] or along[axis]) for axis in AXES)
    section, row, column = (AXES.index(axis) + 1 for axis in roles.axes)
    blank = Header.blank(BYTE_ORDERS[subject.options.byteorder], subject.skew or bytes(52))
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
        **_dialect_fields(subject),
    )


def _section_intervals(subject: _Subject) -> dict[str, int]:
    """Return the intervals of the cell along the sections, if they are not all sections."""
    kind, sizes, section_axis = subject.roles.kind, subject.sizes, subject.roles.axes[0]
    if kind == "volume_stack":
        return {section_axis: sizes[-1], "z": sizes[-1]}
    if subject.codec:
        # mrcz takes MZ as the sections of a frame, and 0 as one array
        is_grouped = kind == "image_stack" and len(sizes) == 2
        return {"z": sizes[-1] if is_grouped else 0}
    return {} if kind == "volume" else {section_axis: 1, "z": 1}


def _dialect_fields(subject: _Subject) -> dict[str, Any]:
    """Return header fields that mrcz and IMOD have defined in EXTRA."""
    fields: dict[str, Any] = {}
    for field, value in subject.options.instrument.items():
        measured = subject.provenance.attrs.get(_INSTRUMENT[field]) if value is None else value
        if measured is not None and not subject.skew:
            fields[field] = float(measured)
    if subject.mode.is_unsigned_variant:
        # IMOD's stamp and flags: unsigned bytes, and MRC2014's sign of the origin
        fields |= {"imod_stamp": int.from_bytes(b"IMOD", "little"), "imod_flags": 4}
    return fields


def _texts(subject: _Subject) -> Sequence[str]:
    """Return the labels: those of the source, the user's, and one that names this package."""
    now = datetime.datetime.now().strftime("%Y-%m-%d %H:%M:%S")
    added = [*subject.options.labels, f"{'mrc_xarray ' + __version__:<40}{now:>39}"]
    first = [_MRCZ_LABEL] if subject.codec else []
    n_free = N_LABELS - len(first) - len(added)
    if n_free < 0:
        n = len(subject.options.labels)
        raise MrcError(f"there are {n} labels; accepted: up to {n + n_free}")
    source_labels = () if subject.source is None else subject.source.label
    old = [t for t in source_labels if t.strip(" \0") and not t.startswith("MRCZ")]
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


def _carried(subject: _Subject, header: Header, is_same_grid: bool) -> Extended:
    """Return the extended header of the user, or what is still valid of the one in the source."""
    if subject.options.extended_header is not None:
        return extended_header.given(subject.options.extended_header)
    try:
        return extended_header.carried(
            subject.data,
            subject.provenance,
            header,
            _sections(subject),
            is_same_grid=is_same_grid,
        )
    except Exception as error:
        # any error of the store that the data were opened from
        return Extended(lost=(f"the extended header, which can't be read again ({error})",))


def _sections(subject: _Subject) -> np.ndarray[Any, Any] | None:
    """Return the number of each section in the source, in order; None if that is unknown."""
    coord = subject.data.coords.get("section")
    leading = subject.data.dims[: len(subject.sizes)]
    if coord is None or set(coord.dims) != set(leading) or coord.dtype.kind not in "iu":
        return None
    numbers: np.ndarray[Any, Any] = coord.transpose(*leading).values.reshape(-1)
    return numbers


def _with_json(
    subject: _Subject, carried: Extended, dims: str
) -> tuple[Extended, tuple[str, ...]]:
    """Return the extended header, which is JSON where there is something for it, and the losses.

    JSON replaces records, and then contains what the records say. Only an MRCZ has labels in it.
    """
    options, data = subject.options, subject.data
    source_metadata = subject.provenance.metadata
    metadata = (source_metadata if subject.codec else {}) | dict(options.metadata or {})
    left = find_remainder(data, subject.grids, subject.roles, carried, dims)
    # RosettaSciIO can't read an MRCZ that has no JSON
    needs_json = metadata or (subject.codec and (left or not carried.raw))
    if options.extended_header is not None or not needs_json:
        hint = "the metadata; metadata=data.mrc.metadata writes them as JSON"
        return carried, (*left.lost, *[hint] * bool(source_metadata), *carried.lost)
    replaced = f"the extended header's bytes ({carried.exttyp}), since JSON replaces them"
    lost = (*[replaced] * bool(carried.raw), *carried.lost)
    all_left = find_remainder(data, subject.grids, subject.roles, Extended(), dims)
    if not subject.codec:
        return Extended("json", as_json(metadata)), (*all_left.lost, *lost)
    labels, no_form = labels_for_json(data, all_left)
    stored = {LABELS_KEY: labels} if metadata or left else {}
    return Extended("json", as_json(metadata | stored)), (*no_form, *lost)


def _header_lost(subject: _Subject) -> list[str]:
    """Return positions and values of the instrument that the header can't hold, for a warning."""
    lost = [grid.note for grid in subject.grids.values() if grid.note]
    if subject.skew and any(value is not None for value in subject.options.instrument.values()):
        lost.append("voltage, C3 and gain, since CCP4's skew transformation is in their place")
    if not subject.mode.is_standard:
        lost.append(f"MODE {subject.mode.number} is not in MRC2014, and few programs read it")
    return lost
