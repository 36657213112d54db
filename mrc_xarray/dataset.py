"""From what a file says to a labelled xarray Dataset: dimensions, coordinates, units, attrs.

Every unit conversion is here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from xarray.core import indexing

from mrc_xarray.array import StackArray, preferred_chunks
from mrc_xarray.format import MrcFile
from mrc_xarray.format.header import HEADER_SIZE
from mrc_xarray.format.sections import Blocks
from mrc_xarray.source import ByteSource

__all__ = [
    "LABELS_KEY",
    "OWN_ATTRS",
    "UNITS",
    "length_unit",
    "spacing",
    "to_dataset",
    "voxel_size",
]

#: Units of the spatial coordinates, as one ångström in each.
UNITS = {"angstrom": 1.0, "nm": 0.1, "pm": 100.0, "um": 1e-4}

# what others call them
_SPELLINGS = {
    "angstrom": ("angstroms", "ångström", "ångstrom", "å", "\u212b", "a"),
    "nm": ("nanometer", "nanometers", "nanometre", "nanometres"),
    "pm": ("picometer", "picometers", "picometre", "picometres"),
    "um": ("µm", "μm", "micron", "microns", "micrometer", "micrometers", "micrometre"),
}
_UNITS_BY_NAME = {name: unit for unit, names in _SPELLINGS.items() for name in (unit, *names)}

#: Where the JSON of an MRCZ by our writer keeps what the header can't tell of the labels.
LABELS_KEY = "mrc_xarray"
#: Attributes that the engine sets, and that a writer needs not keep.
OWN_ATTRS = frozenset(
    (
        *("mrc_source", "mrc_layout", "mrc_layout_rule", "mrc_header", "mrc_repairs"),
        *("mrc_metadata", "mrc_extended_bytes", "mode0_assumption"),
        *("mrcz_codec", "mrcz_chunk_version", "mrcz_blocks", "mrcz_ratio"),
        *("voltage_kV", "c3_mm", "gain_e_per_DN"),
    )
)


def to_dataset(
    file: MrcFile,
    source: ByteSource,
    *,
    dims: Sequence[str] | None = None,
    units: str = "angstrom",
    mmap: bool = False,
) -> xr.Dataset:
    """Label the pixels of a file.

    Parameters
    ----------
    file : MrcFile
    source : ByteSource
        Where its bytes come from.
    dims : sequence of str, optional
        The user's own names for the dimensions of ``data``, slowest first.
    units : {"angstrom", "nm", "pm", "um"}
        Of the spatial coordinates.
    mmap : bool
        Whether the lazy array returns views of a map where it can.

    Returns
    -------
    xarray.Dataset
        One lazy variable ``data``, and its coordinates, without indexes: xarray makes those.
    """
    if units not in UNITS:
        raise ValueError(f"units is {units!r}; accepted: {', '.join(map(repr, UNITS))}")
    leading = file.layout.leading
    kept = _kept_labels(file) if dims is None else None
    if kept is not None:
        dims, leading = kept.dims, kept.leading
    array = StackArray(source, file.sections, tuple(n for _, n in leading), mmap)
    roles = [role for role, _ in leading] + list(file.axes[1:])
    if file.sections.mode.samples:
        roles.append("rgb")
    names = _names(roles, dims)

    data = xr.Variable(
        tuple(names.values()),
        indexing.LazilyIndexedArray(array),
        _attrs(file),
        {"preferred_chunks": preferred_chunks(tuple(names.values()), array)},
    )
    coords = {
        names[role]: _positions(names[role], role, file, size, units)
        for role, size in zip(roles, array.shape, strict=True)
        if role in file.voxel
    }
    if file.layout.kind == "image_stack":
        coords["section"] = xr.Variable(
            tuple(names[role] for role, _ in leading),
            np.arange(file.sections.shape[0], dtype=np.int64).reshape(array.leading),
            {"long_name": "section in the file"},
        )
    if kept is not None:
        coords = kept.coords | coords
        data.attrs = kept.attrs | data.attrs
    return xr.Dataset({"data": data}, xr.Coordinates(coords, indexes={}))


def voxel_size(obj: xr.Dataset | xr.DataArray) -> dict[str, float]:
    """Return the voxel size of labelled data along its spatial dimensions.

    Parameters
    ----------
    obj : Dataset or DataArray
        With coordinates as the engine makes them, or after slicing, coarsening or the like.

    Returns
    -------
    dict of str to float, Å
        Dimensions without a coordinate, and those with an irregular one, are left out.
    """
    voxel = {}
    for dim in obj.dims:
        coord = obj.coords.get(dim)
        unit = None if coord is None else length_unit(coord.attrs.get("units"))
        if coord is None or unit is None or coord.dtype.kind not in "iuf":
            continue
        step = spacing(coord.values, coord.attrs.get("spacing"))
        if step is not None:
            voxel[str(dim)] = step * unit
    return voxel


def length_unit(name: object) -> float | None:
    """Return a unit of length in Å, or None where this is none that coordinates here have."""
    unit = _UNITS_BY_NAME.get(str(name).strip().lower())
    return None if unit is None else 1 / UNITS[unit]


def spacing(positions: np.ndarray[Any, Any], stored: float | None) -> float | None:
    """Return the step of regular positions; of a single one, the step that it had.

    Returns
    -------
    float or None
        Above 0, in the positions' own unit; None where they have no one step.
    """
    if not np.isfinite(positions).all():
        return None
    if len(positions) < 2:
        return None if stored is None else float(stored)
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    # positions that went through float32 are regular to its precision only
    tolerance = 1e-3 * abs(step) + 1e-6 * float(np.abs(positions).max())
    regular = np.allclose(np.diff(positions), step, rtol=0, atol=tolerance)
    return float(abs(step)) if regular and step else None


def _names(roles: list[str], dims: Sequence[str] | None) -> dict[str, str]:
    """Map what each dimension is to its name."""
    if dims is None:
        return {role: role for role in roles}
    if (
        not isinstance(dims, list | tuple)
        or len(dims) != len(roles)
        or len(set(dims)) != len(dims)
    ):
        raise ValueError(
            f"dims is {dims!r}; accepted: {len(roles)} different names, for {', '.join(roles)}"
        )
    if taken := {"data", "section"} & set(dims):
        raise ValueError(f"dims is {dims!r}; {taken.pop()!r} is the name of a variable")
    return dict(zip(roles, dims, strict=True))


@dataclass(frozen=True)
class _Kept:
    """What our writer kept in the JSON of an MRCZ, of labels that a header can't tell."""

    dims: list[str]
    leading: tuple[tuple[str, int], ...]
    coords: dict[str, xr.Variable]
    attrs: dict[str, Any]


def _kept_labels(file: MrcFile) -> _Kept | None:
    """Return the labels that the file's JSON has; None where it has none that fit the pixels."""
    kept = (file.metadata or {}).get(LABELS_KEY)
    if not isinstance(kept, dict) or file.layout.rule.startswith("the argument"):
        return None
    try:
        dims, shape = list(map(str, kept["dims"])), list(map(int, kept["shape"]))
        n_behind = len(file.sections.shape) - 1
        n_leading = len(dims) - n_behind
        fits = (
            len(shape) == len(dims) == len(set(dims))
            and math.prod(shape[:n_leading]) == file.sections.shape[0]
            and tuple(shape[n_leading:]) == file.sections.shape[1:]
        )
        if not fits or n_leading < 0:
            return None
        sizes = dict(zip(dims, shape, strict=True))
        coords = {}
        for name, coord in kept["coords"].items():
            values = np.array(coord["data"], coord["dtype"])
            along = tuple(map(str, coord["dims"]))
            if values.shape == tuple(sizes[dim] for dim in along) and name != "data":
                coords[str(name)] = xr.Variable(along, values, dict(coord["attrs"]))
        attrs = dict(kept["attrs"])
    except (AttributeError, KeyError, TypeError, ValueError):
        # another program may have written anything there
        return None
    roles = [role for role, _ in file.layout.leading]
    if len(roles) != n_leading:
        roles = dims[:n_leading]
    leading = tuple(zip(roles, shape[:n_leading], strict=True))
    return _Kept(dims, leading, coords, attrs)


def _positions(dim: str, axis: str, file: MrcFile, size: int, units: str) -> xr.Variable:
    """Return the coordinate of a spatial dimension: where its voxels are."""
    scale = UNITS[units]
    voxel, first = file.voxel[axis], file.origin[axis]
    attrs = {"units": units, "long_name": f"{axis} position", "spacing": voxel * scale}
    return xr.Variable((dim,), (first + np.arange(size) * voxel) * scale, attrs)


def _attrs(file: MrcFile) -> dict[str, str | float]:
    """Return what must outlast arithmetic and files: flat, and of types that netCDF stores."""
    header = file.header
    attrs: dict[str, str | float] = {
        # a path need not be text
        "mrc_source": file.name.encode(errors="backslashreplace").decode(),
        "mrc_layout": file.layout.kind,
        "mrc_layout_rule": file.layout.rule,
        "mrc_header": header.to_json(),
    }
    if file.mode0 is not None:
        attrs["mode0_assumption"] = f"{file.sections.dtype}: {file.mode0}"
    if file.problems:
        attrs["mrc_repairs"] = json.dumps([p.message(file.name) for p in file.problems])
    if file.metadata is not None:
        metadata = {key: value for key, value in file.metadata.items() if key != LABELS_KEY}
        if metadata or LABELS_KEY not in file.metadata:
            attrs["mrc_metadata"] = json.dumps(metadata)
    if file.sections.offset > HEADER_SIZE:
        attrs["mrc_extended_bytes"] = file.sections.offset - HEADER_SIZE
    if isinstance(file.sections, Blocks):
        index = file.sections.index
        attrs["mrcz_codec"] = index.codec
        attrs["mrcz_chunk_version"] = index.version
        attrs["mrcz_blocks"] = len(index.starts)
        attrs["mrcz_ratio"] = file.sections.nbytes / max(index.end - file.sections.offset, 1)
    if header.has_mrcz_fields:
        measured = {
            "voltage_kV": header.voltage,
            "c3_mm": header.c3,
            "gain_e_per_DN": header.gain,
        }
        attrs |= {key: v for key, v in measured.items() if v and math.isfinite(v)}
    return attrs
