"""From labels to a header: what `dataset` does, the other way round."""

from __future__ import annotations

import datetime
import enum
import math
import struct
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from mrc_xarray._version import __version__
from mrc_xarray.errors import MrcError
from mrc_xarray.labels.attributes import OWN_ATTRS
from mrc_xarray.labels.stored_labels import values_to_json
from mrc_xarray.metadata.find import evidence_next_to
from mrc_xarray.mrc.geometry import AXES, axis_names, geometry_of
from mrc_xarray.mrc.header import N_LABELS, XYZ, Header
from mrc_xarray.mrc.layout import arrange
from mrc_xarray.mrc.recognition import BYTE_ORDERS
from mrc_xarray.pixels.modes import PER_CODEC, Mode, mode_for
from mrc_xarray.recording import LABELS_KEY
from mrc_xarray.text import json_text
from mrc_xarray.writing import extended_header as extended
from mrc_xarray.writing.provenance import Provenance
from mrc_xarray.writing.roles import Grid, Roles, find_grids, find_roles

__all__ = ["Heading", "Wanted", "make_heading"]

# a warning is to be read
_MOST_NAMES = 10
_SKEW = slice(96, 148)
# mrcz tells by it how to read MZ
_MRCZ_LABEL = "MRCZ0.6.0"


@dataclass(frozen=True)
class Wanted:
    """What the user says of a new file beyond the data's labels; see `mrc_xarray.to_mrc`."""

    mode: int | None = None
    codec: int = 0
    metadata: Mapping[str, Any] | None = None
    extended_header: bytes | tuple[str, bytes] | None = None
    labels: Sequence[str] = ()
    voltage: float | None = None
    c3: float | None = None
    gain: float | None = None
    byteorder: str = "little"
    voxel_size: float | Mapping[str, float] | None = None


@dataclass(frozen=True)
class Heading:
    """What a file says of itself before its pixels, but for what only the pixels tell.

    Attributes
    ----------
    header : Header
        Its statistics are undetermined.
    extended : bytes
        The extended header.
    mode : Mode
    lost : tuple of str
        What the data's labels say and the file can't.
    """

    header: Header
    extended: bytes
    mode: Mode
    lost: tuple[str, ...]


def make_heading(data: xr.DataArray, name: str, wanted: Wanted) -> Heading:
    """Find the header that tells what the labels of data tell.

    Parameters
    ----------
    data : DataArray
        Its pixels are not looked at.
    name : str
        The file's: its suffix may say what it is.
    wanted : Wanted

    Raises
    ------
    MrcError
        If the data have a shape, a dtype or coordinates that no MRC file can have.
    """
    if wanted.byteorder not in BYTE_ORDERS:
        raise ValueError(f"byteorder is {wanted.byteorder!r}; accepted: 'little', 'big'")
    roles = find_roles(data)
    mode = mode_for(data.dtype, wanted.mode, is_rgb=roles.is_rgb)
    provenance = Provenance.of(data)
    found = provenance.header
    grids = find_grids(data, roles, wanted.voxel_size, found)
    header = _header(data, roles, grids, mode, provenance, wanted)
    lost = [grid.note for grid in grids.values() if grid.note]
    if header.lskflg == 1 and {wanted.voltage, wanted.c3, wanted.gain} != {None}:
        lost.append("voltage, C3 and gain, as CCP4's skew transformation is in their place")
    if not mode.is_standard:
        lost.append(f"MODE {mode.number} is not in MRC2014, and few programs read it")

    is_same_grid = found is not None and _is_same_grid(found, header, roles)
    if found is not None and is_same_grid and found.ispg > 1:
        # of another grid the cell would not be the one that the symmetry is of
        cell = {f: getattr(found, f) for f in ("ispg", "cella", "mx", "my", "mz")}
        header = header.replaced(**cell)
    carried = _extended_header(data, header, roles, wanted, is_same_grid)
    dims = _dimensions(data, roles, header, len(carried.raw), name)
    coords, attrs = _untold(data, roles, grids, carried)
    metadata = {} if wanted.codec == 0 else dict(provenance.metadata)
    metadata |= wanted.metadata or {}
    if wanted.codec and wanted.extended_header is None and (metadata or dims or coords or attrs):
        # the JSON of an MRCZ takes the place of records, and holds all that these tell
        if carried.raw:
            lost.append(f"the extended header's bytes ({carried.exttyp}), as JSON is in its place")
        carried = extended.Extended(lost=carried.lost)
        coords, attrs = _untold(data, roles, grids, carried)
        metadata[LABELS_KEY], unheld = _labels(data, coords, attrs)
        lost += [f"{_listed(unheld)}, for which JSON has no form"] if unheld else []
    else:
        lost += [dims] if dims else []
        lost += [f"the coordinates {_listed(coords)}"] if coords else []
        lost += [f"the attributes {_listed(attrs)}"] if attrs else []
        if wanted.metadata is None and provenance.metadata:
            lost.append("the metadata; metadata=data.mrc.metadata writes them as JSON")
    lost += carried.lost
    # without any JSON, rosettasciio can't read an MRCZ
    if wanted.extended_header is None and (metadata or (wanted.codec and not carried.raw)):
        carried = extended.Extended("json", _json(metadata))
    header = header.replaced(nsymbt=len(carried.raw), **carried.counts)
    if not _has_skew(header):
        header = header.replaced(exttyp=carried.exttyp if carried.raw else "")
    try:
        header.encode()
    except (struct.error, OverflowError) as error:
        raise MrcError(
            f"{name}: a size, a position or another number is more than a header can hold: {error}"
        ) from error
    return Heading(header, carried.raw, mode, tuple(lost))


def _extended_header(
    data: xr.DataArray, header: Header, roles: Roles, wanted: Wanted, is_same_grid: bool
) -> extended.Extended:
    if wanted.extended_header is not None:
        return extended.given(wanted.extended_header)
    sections = _sections(data, roles)
    try:
        return extended.carried(data, header, sections, is_same_grid=is_same_grid)
    except Exception as error:
        # whatever the store of the data raises
        return extended.Extended(
            lost=(f"the extended header, which can't be read again ({error})",)
        )


def _header(
    data: xr.DataArray,
    roles: Roles,
    grids: dict[str, Grid],
    mode: Mode,
    provenance: Provenance,
    wanted: Wanted,
) -> Header:
    found = provenance.header
    sizes = [data.sizes[dim] for dim in map(_key(data), roles.leading)]
    n_sections = math.prod(sizes)
    rows, columns = data.shape[len(sizes) : len(sizes) + 2]
    section_axis, row_axis, column_axis = roles.axes
    along = {section_axis: n_sections, row_axis: rows, column_axis: columns}
    intervals = dict(along)
    if roles.kind == "volume_stack":
        intervals[section_axis] = sizes[-1]
        intervals["z"] = sizes[-1]
    elif wanted.codec:
        # mrcz takes it for the sections of a frame, and makes one array where it is 0
        is_grouped = roles.kind == "image_stack" and len(sizes) == 2
        intervals["z"] = sizes[-1] if is_grouped else 0
    elif roles.kind != "volume":
        intervals[section_axis] = 1
        intervals["z"] = 1
    voxel = {axis: grid.voxel or 0.0 for axis, grid in grids.items() if axis in roles.spatial}
    # FORMAT: MRCZ; where MZ is no interval, the cell has all sections
    cella = (voxel.get(axis, 0.0) * (intervals[axis] or along[axis]) for axis in AXES)
    origin = (grids[axis].first if axis in grids else 0.0 for axis in AXES)
    ispg = {"volume": 1, "volume_stack": 401}.get(roles.kind, 0)

    carries_skew = found is not None and _has_skew(found) and roles.kind == "volume"
    extra = found.encode()[_SKEW] if found is not None and carries_skew else bytes(52)
    header = Header.blank(BYTE_ORDERS[wanted.byteorder], extra)
    values: dict[str, Any] = {}
    if not carries_skew:
        for field, key in (("voltage", "voltage_kV"), ("c3", "c3_mm"), ("gain", "gain_e_per_DN")):
            value = getattr(wanted, field)
            value = provenance.attrs.get(key) if value is None else value
            if value is not None:
                values[field] = float(value)
    if mode.is_unsigned_variant:
        # IMOD's mark and flags: bytes without sign, and MRC2014's sign of the origin
        values |= {"imod_stamp": int.from_bytes(b"IMOD", "little"), "imod_flags": 4}
    labels = _labelled(found, wanted)
    return header.replaced(
        nx=columns,
        ny=rows,
        nz=n_sections,
        mode=mode.number + PER_CODEC * wanted.codec,
        mx=intervals["x"],
        my=intervals["y"],
        mz=intervals["z"],
        cella=XYZ(*cella),
        cellb=found.cellb if found is not None and _has_angles(found) else header.cellb,
        mapc=AXES.index(column_axis) + 1,
        mapr=AXES.index(row_axis) + 1,
        maps=AXES.index(section_axis) + 1,
        ispg=ispg,
        origin=XYZ(*origin),
        nlabl=len(labels),
        label=(*labels, *[""] * (N_LABELS - len(labels))),
        **values,
    )


def _labelled(found: Header | None, wanted: Wanted) -> list[str]:
    """Return the labels: the old ones, the user's, and one of our own."""
    if isinstance(wanted.labels, str):
        raise TypeError("labels is one text; accepted: a list of texts")
    for label in wanted.labels:
        if not (label.isascii() and label.isprintable() and len(label) <= 80):
            raise MrcError(f"the label {label!r} is not 80 or fewer printable ASCII characters")
    now = datetime.datetime.now().strftime("%Y-%m-%d %H:%M:%S")
    added = [*wanted.labels, f"{'mrc_xarray ' + __version__:<40}{now:>39}"]
    first = [_MRCZ_LABEL] if wanted.codec else []
    if len(first) + len(added) > N_LABELS:
        raise MrcError(f"there are {len(wanted.labels)} labels; accepted: {10 - len(first) - 1}")
    old = [] if found is None else [text for text in found.label if text.strip(" \0")]
    old = [text for text in old if not text.startswith("MRCZ")]
    return [*first, *old[: N_LABELS - len(first) - len(added)], *added]


def _has_skew(found: Header) -> bool:
    """Tell whether CCP4's skew transformation is there, over which others have other things."""
    return found.lskflg == 1 and not found.exttyp.strip().isalnum() and not found.has_imod_stamp


def _has_angles(found: Header) -> bool:
    return all(math.isfinite(angle) and 0 < angle < 180 for angle in found.cellb)


def _is_same_grid(found: Header, header: Header, roles: Roles) -> bool:
    """Tell whether the new file has the voxels of the old one, where they were."""
    if roles.kind not in ("volume", "volume_stack"):
        return False
    if (found.nx, found.ny, found.nz) != (header.nx, header.ny, header.nz):
        return False
    axes = axis_names(found)
    if axes != roles.axes or (roles.kind == "volume_stack") != (401 <= found.ispg <= 630):
        return False
    grids = []
    for each in (found, header):
        geometry = geometry_of(each, roles.spatial)
        grids.append((geometry.voxel, geometry.start))
    (voxel, origin), (new_voxel, new_origin) = grids
    return voxel.keys() == new_voxel.keys() and all(
        math.isclose(voxel[axis], new_voxel[axis], rel_tol=1e-4)
        and math.isclose(origin[axis], new_origin[axis], abs_tol=0.01 * voxel[axis])
        for axis in voxel
    )


def _sections(data: xr.DataArray, roles: Roles) -> np.ndarray[Any, Any] | None:
    """Return the number in the source of each section, in order; None where that is unknown."""
    coord = data.coords.get("section")
    leading = [dim for dim in data.dims if str(dim) in roles.leading]
    if coord is None or set(coord.dims) != set(leading):
        return None
    numbers: np.ndarray[Any, Any] = coord.transpose(*leading).values.reshape(-1)
    return numbers if numbers.dtype.kind in "iu" else None


def _dimensions(
    data: xr.DataArray, roles: Roles, header: Header, extended_size: int, name: str
) -> str:
    """Return what becomes of the dimensions, if they change, and how to open them as they are."""
    arranged = arrange(
        header,
        header.nz,
        name=name,
        section_axis=roles.axes[0],
        extended_size=extended_size,
        evidence=evidence_next_to(name),
    )
    opened = [*(dim for dim, _ in arranged.leading), *roles.axes[1:], *["rgb"] * roles.is_rgb]
    dims = [str(dim) for dim in data.dims]
    sizes = [data.sizes[dim] for dim in map(_key(data), roles.leading)]
    if opened == dims and [n for _, n in arranged.leading] == sizes:
        return ""
    hint = ""
    if roles.kind == "image_stack" and len(sizes) == 2 and roles.leading[1] == "channel":
        hint = f"; sections_per_frame={sizes[1]} brings them back"
    elif roles.kind == "image_stack" and len(sizes) == 2:
        hint = f"; scan_shape=({sizes[0]}, {sizes[1]}) brings them back"
    elif arranged.kind != roles.kind:
        hint = f"; layout={roles.kind!r} brings them back"
    return f"the dimensions ({', '.join(dims)}), which open as ({', '.join(opened)}){hint}"


def _untold(
    data: xr.DataArray, roles: Roles, grids: dict[str, Grid], carried: extended.Extended
) -> tuple[list[str], list[str]]:
    """Return the names of the coordinates and attributes that neither header nor records tell."""
    told = {roles.spatial.get(axis, axis) for axis, grid in grids.items() if grid.is_stored}
    told |= {name for name, values in carried.coords.items() if _is_told(data, name, values)}
    if "mrc_header" in data.attrs:
        # the sections have other numbers in the new file
        told.add("section")
    coords = [str(name) for name in data.coords if name not in told]
    attrs = [
        str(key)
        for key, value in data.attrs.items()
        if key not in OWN_ATTRS
        and not (key in carried.attrs and np.array_equal(carried.attrs[key], value))
    ]
    return coords, attrs


def _is_told(data: xr.DataArray, name: str, values: np.ndarray[Any, Any]) -> bool:
    """Tell whether a coordinate is what the records say."""
    if name not in data.coords:
        return True
    found = data.coords[name].values.reshape(-1)
    if found.shape != values.shape or found.dtype.kind != values.dtype.kind:
        return False
    return np.array_equal(found, values, equal_nan=found.dtype.kind in "fM")


def _listed(names: list[str]) -> str:
    """Return some of many names."""
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def _labels(
    data: xr.DataArray, coords: list[str], attrs: list[str]
) -> tuple[dict[str, Any], list[str]]:
    """Return what the JSON keeps of the labels, for `dataset` to bring back, and what it can't."""
    kept: dict[str, Any] = {"dims": [str(dim) for dim in data.dims], "shape": list(data.shape)}
    kept["coords"], kept["attrs"], unheld = {}, {}, []
    by_text = {str(key): value for key, value in data.attrs.items()}
    for name in coords:
        coord = data.coords[name]
        held = {str(key): value for key, value in coord.attrs.items() if _has_form(value)}
        dims = [str(dim) for dim in coord.dims]
        kept["coords"][name] = {"dims": dims, "attrs": held, **values_to_json(coord.values)}
    for key in attrs:
        if _has_form(by_text[key]):
            kept["attrs"][key] = by_text[key]
        else:
            unheld.append(key)
    return kept, unheld


def _has_form(value: Any) -> bool:
    try:
        json_text(value, default=_plain)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _json(metadata: Mapping[str, Any]) -> bytes:
    try:
        return json_text(metadata, default=_plain).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise MrcError(f"the metadata can't be written as JSON: {error}") from error


def _plain(value: Any) -> Any:
    """Return what JSON can hold, in the ways of mrcz."""
    if isinstance(value, enum.Enum):
        return f"Enum.{type(value).__name__}.{value.name}"
    if isinstance(value, np.ndarray | np.generic):
        return value.astype(str).tolist() if value.dtype.kind in "mM" else value.tolist()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _key(data: xr.DataArray) -> Any:
    """Return a function from a dimension's name as text to the name that xarray has."""
    names: dict[str, Hashable] = {str(dim): dim for dim in data.dims}
    return names.__getitem__
