"""From what a file says to a labelled xarray Dataset: dimensions, coordinates, units, attrs.

Every unit conversion is here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from xarray.core import indexing

from mrc_xarray.array import StackArray, preferred_chunks
from mrc_xarray.format import MrcFile
from mrc_xarray.format.sections import Blocks
from mrc_xarray.source import ByteSource

__all__ = ["UNITS", "to_dataset", "voxel_size"]

#: Units of the spatial coordinates, as one ångström in each.
UNITS = {"angstrom": 1.0, "nm": 0.1, "pm": 100.0, "um": 1e-4}

_SPATIAL = ("x", "y", "z")


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
    array = StackArray(source, file.sections, tuple(n for _, n in file.layout.leading), mmap)
    roles = [role for role, _ in file.layout.leading] + list(file.axes[1:])
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
            tuple(names[role] for role, _ in file.layout.leading),
            np.arange(file.sections.shape[0], dtype=np.int64).reshape(array.leading),
            {"long_name": "section in the file"},
        )
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
        if coord is None or coord.attrs.get("units") not in UNITS or coord.dtype.kind not in "iuf":
            continue
        spacing = _spacing(coord.values, coord.attrs.get("spacing"))
        if spacing is not None:
            voxel[str(dim)] = spacing / UNITS[coord.attrs["units"]]
    return voxel


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
        attrs["mrc_metadata"] = json.dumps(file.metadata)
    if isinstance(file.sections, Blocks):
        index = file.sections.index
        attrs["mrcz_codec"] = index.codec
        attrs["mrcz_chunk_version"] = index.version
        attrs["mrcz_blocks"] = len(index.starts)
        attrs["mrcz_ratio"] = file.sections.nbytes / max(index.end - file.sections.offset, 1)
    if header.mrcz_version is not None:
        measured = {
            "voltage_kV": header.voltage,
            "c3_mm": header.c3,
            "gain_e_per_DN": header.gain,
        }
        attrs |= {key: v for key, v in measured.items() if v and math.isfinite(v)}
    return attrs


def _spacing(positions: np.ndarray[Any, Any], stored: float | None) -> float | None:
    """Return the step of regular positions; of a single one, the step that it had."""
    if not np.isfinite(positions).all():
        return None
    if len(positions) < 2:
        return None if stored is None else float(stored)
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    # positions that went through float32 are regular to its precision only
    tolerance = 1e-3 * abs(step) + 1e-6 * float(np.abs(positions).max())
    regular = np.allclose(np.diff(positions), step, rtol=0, atol=tolerance)
    return float(abs(step)) if regular and step else None
