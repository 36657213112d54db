"""From what a file says to a labelled xarray Dataset: dimensions, coordinates, units, attrs.

Every unit conversion is here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from xarray.core import indexing

from mrc_xarray.labels.provenance import SourceName
from mrc_xarray.metadata.columns import Value, with_gaps
from mrc_xarray.mrc.header import HEADER_SIZE
from mrc_xarray.mrc.reading import MrcFile
from mrc_xarray.pixels.array import StackArray, StackVariable, preferred_chunks
from mrc_xarray.pixels.blocks import Blocks
from mrc_xarray.storage import ByteSource
from mrc_xarray.text import json_text, printable, printable_lines

__all__ = [
    "LABELS_KEY",
    "OWN_ATTRS",
    "UNITS",
    "attrs_of",
    "converted",
    "length_unit",
    "spacing",
    "to_dataset",
    "values_from_json",
    "values_to_json",
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

#: Units of what is told of each section, whatever its source has them in.
COLUMN_UNITS = {
    "tilt_angle": "degree",
    "tilt_beta": "degree",
    "stage_x": "um",
    "stage_y": "um",
    "stage_z": "um",
    "defocus": "um",
    "dose": "e/angstrom^2",
    "exposure_time": "s",
    "voltage": "kV",
}
# how large units are, beside each other
_SCALES = {
    "length": {"m": 1.0, "mm": 1e-3, "um": 1e-6, "nm": 1e-9, "angstrom": 1e-10, "pm": 1e-12},
    "dose": {"e/m^2": 1.0, "e/nm^2": 1e18, "e/angstrom^2": 1e20},
    "time": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9},
    "angle": {"degree": 1.0, "rad": 180 / math.pi},
    "voltage": {"V": 1.0, "kV": 1e3},
}

#: Where the JSON of an MRCZ by our writer keeps what the header can't tell of the labels.
LABELS_KEY = "mrc_xarray"
#: Attributes that the engine sets, and that a writer needs not keep.
OWN_ATTRS = frozenset(
    (
        *("mrc_source", "mrc_layout", "mrc_layout_rule", "mrc_header", "mrc_repairs"),
        *("mrc_metadata", "mrc_extended_bytes", "mrc_stream", "mode0_assumption"),
        *("mrcz_codec", "mrcz_chunk_version", "mrcz_blocks", "mrcz_ratio"),
        *("voltage_kV", "c3_mm", "gain_e_per_DN"),
    )
)


_ATTRS_WITH_UNIT = {"voltage": "voltage_kV", "c3": "c3_mm", "gain": "gain_e_per_DN"}


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
    sizes = tuple(n for _, n in leading)
    array = StackArray(source, file.sections, sizes, mmap, file.frame_index)
    roles = [*(role for role, _ in leading), *file.frame]
    if file.sections.mode.samples:
        roles.append("rgb")
    names = _names(roles, dims)

    data = StackVariable(
        tuple(names.values()),
        indexing.LazilyIndexedArray(array),
        _attrs(file, source),
        {"preferred_chunks": preferred_chunks(tuple(names.values()), array)},
    )
    along = tuple(names[role] for role, _ in leading)
    coords = _per_section(file, along, array)
    if file.layout.kind == "image_stack" and "section" not in file.too_long:
        numbers = np.arange(file.sections.shape[0], dtype=np.int64).reshape(array.leading)
        coords["section"] = xr.Variable(along, numbers, {"long_name": "section in the file"})
    if file.frame_index is not None:
        told = {"long_name": "frame in the file, -1 where none was recorded"}
        coords["frame_index"] = xr.Variable(along, file.frame_index, told)
    for role, size in zip(roles, array.shape, strict=True):
        if (role in file.voxel or role in file.steps) and role not in file.too_long:
            coords |= _positions(names[role], role, file, size, units)
    data.attrs = _printable(data.attrs)
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


def attrs_of(values: Mapping[str, Value]) -> dict[str, Any]:
    """Return what is told of the whole file: by its name, with its units beside it."""
    attrs: dict[str, Any] = {}
    for name, (told, unit) in values.items():
        value, unit = converted(name, told, unit)
        if name in _ATTRS_WITH_UNIT:
            attrs[_ATTRS_WITH_UNIT[name]] = float(value)
            continue
        if isinstance(value, np.datetime64):
            value = str(value)
        attrs[name] = int(value) if isinstance(value, bool) else value
        if unit:
            attrs[f"{name}_units"] = unit
    return attrs


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
    # positions that are or were float32 are regular to its precision only
    rounding = 2e-7 * float(np.abs(positions).max())
    tolerance = 1e-3 * abs(step) + min(rounding, 0.1 * abs(step))
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


def _name(stored: Any) -> str:
    """Return the name of a dimension or coordinate from a file, without control characters."""
    if not isinstance(stored, str):
        raise TypeError(f"{type(stored).__name__} instead of a name")
    return printable(stored)


def _printable(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes without control characters in names and texts."""
    return {
        printable(name): printable_lines(value) if type(value) is str else value
        for name, value in attrs.items()
    }


@dataclass(frozen=True)
class _Kept:
    """What our writer kept in the JSON of an MRCZ, of labels that a header can't tell."""

    dims: list[str]
    leading: tuple[tuple[str, int], ...]
    coords: dict[str, xr.Variable]
    attrs: dict[str, Any]


# the limit of NumPy 1; and with more coordinates, xarray needs seconds to make a Dataset
_MOST_DIMS, _MOST_COORDS = 32, 500


def _kept_labels(file: MrcFile) -> _Kept | None:
    """Return the labels that the file's JSON has; None where it has none that fit the pixels."""
    kept = (file.metadata or {}).get(LABELS_KEY)
    if not isinstance(kept, dict) or file.layout.rule.startswith("the argument"):
        return None
    try:
        dims = [_name(dim) for dim in kept["dims"]]
        shape = list(map(int, kept["shape"]))
        n_behind = len(file.sections.shape) - 1
        n_leading = len(dims) - n_behind
        fits = (
            len(shape) == len(dims) == len(set(dims)) <= _MOST_DIMS
            and len(kept["coords"]) <= _MOST_COORDS
            and math.prod(shape[:n_leading]) == file.sections.shape[0]
            and tuple(shape[n_leading:]) == file.sections.shape[1:]
            and min(shape) > 0
            and not {"data", "section"} & set(dims)
        )
        if not fits or n_leading < 0:
            return None
        sizes = dict(zip(dims, shape, strict=True))
        coords = {}
        for stored, coord in kept["coords"].items():
            name = _name(stored)
            values = values_from_json(coord["data"], coord["dtype"])
            along = tuple(map(_name, coord["dims"]))
            is_own = name not in sizes or along == (name,)
            fits = values.shape == tuple(sizes[dim] for dim in along) and len(set(along)) == len(
                along
            )
            if fits and is_own and name != "data":
                coords[name] = xr.Variable(along, values, _printable(coord["attrs"]))
        attrs = _printable(kept["attrs"])
        attrs = {name: value for name, value in attrs.items() if name not in OWN_ATTRS}
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError, RecursionError):
        # another program may have written anything there
        return None
    roles = [role for role, _ in file.layout.leading]
    if len(roles) != n_leading:
        roles = dims[:n_leading]
    leading = tuple(zip(roles, shape[:n_leading], strict=True))
    return _Kept(dims, leading, coords, attrs)


def values_to_json(values: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Return what JSON can hold of an array, and its dtype: numbers as they are, else text."""
    if values.dtype.kind == "m":
        return {"dtype": str(values.dtype), "data": values.view(np.int64).tolist()}
    if values.dtype.kind == "M":
        return {"dtype": str(values.dtype), "data": values.astype(str).tolist()}
    if values.dtype.kind == "c":
        pairs = np.stack([values.real, values.imag], axis=-1)
        return {"dtype": str(values.dtype), "data": pairs.tolist()}
    if values.dtype.kind in "iub" or values.dtype.name in ("float16", "float32", "float64"):
        return {"dtype": str(values.dtype), "data": values.tolist()}
    text = np.array([str(value) for value in values.reshape(-1)], dtype=str)
    return {"dtype": "str", "data": text.reshape(values.shape).tolist()}


# what `values_to_json` writes: of another dtype one element may be as large as it likes
_STORED = re.compile(
    r"u?int(8|16|32|64)|float(16|32|64)|complex(64|128)|bool|str"
    r"|(datetime|timedelta)64\[[a-zA-Zμ]+\]"
)
# of texts, in all, when each is as long as the longest
_MOST_LETTERS = 2**22


def values_from_json(data: Any, dtype: str) -> np.ndarray[Any, Any]:
    """Return the array that `values_to_json` kept."""
    if not _STORED.fullmatch(dtype):
        raise ValueError(f"dtype is {dtype!r}")
    wanted = np.dtype(dtype)
    if wanted.kind == "m":
        return np.array(data, np.int64).view(wanted)
    if wanted.kind == "c":
        pairs = np.array(data, np.float64)
        with np.errstate(all="ignore"):
            return (pairs[..., 0] + 1j * pairs[..., 1]).astype(wanted)
    if wanted.kind == "U":
        # every element has the length of the longest
        texts = np.array(data, object)
        longest = max((len(str(text)) for text in texts.reshape(-1)), default=0)
        if longest * texts.size > _MOST_LETTERS:
            raise ValueError(f"{texts.size} texts of up to {longest} letters")
    with np.errstate(all="ignore"):
        return np.array(data, wanted)


def _positions(
    dim: str, axis: str, file: MrcFile, size: int, units: str
) -> dict[str, xr.Variable]:
    """Return the coordinate of a spatial dimension by its name: where its voxels are.

    Empty if the step is so large that positions are not finite: then it counts as unknown.
    """
    name = f"{axis} position"
    if axis in file.voxel:
        step, first = file.voxel[axis] * UNITS[units], file.origin[axis] * UNITS[units]
    else:
        (size_as_told, told_in), first = file.steps[axis], 0.0
        if told_in.startswith("1/"):
            # a diffraction pattern's, which `units` is not for
            step, units, name = size_as_told, told_in, f"{axis} spatial frequency"
        else:
            step = size_as_told * _factor(told_in, units)
    if not math.isfinite(first + step * size):
        return {}
    attrs = {"units": units, "long_name": name, "spacing": step}
    # in place, to save memory for long dimensions
    positions = np.arange(size, dtype=np.float64)
    positions *= step
    positions += first
    return {dim: xr.Variable((dim,), positions, attrs)}


def _per_section(
    file: MrcFile, along: tuple[str, ...], array: StackArray
) -> dict[str, xr.Variable]:
    """Return what is told of each section, along the dimensions that count the sections."""
    coords = {}
    for column in file.columns:
        values, unit = converted(column.name, column.values, column.units)
        if file.frame_index is not None:
            # behind the last value stands what a position without a frame has
            gap = with_gaps(values[:1], np.zeros(1, np.bool_))
            values = np.concatenate([values, gap])[file.frame_index]
        else:
            values = values[: math.prod(array.leading)].reshape(array.leading)
        attrs = {"units": unit} if unit else {}
        if column.long_name:
            attrs["long_name"] = column.long_name
        coords[column.name] = xr.Variable(along, values, attrs)
    return coords


def converted(name: str, value: Any, unit: str) -> tuple[Any, str]:
    """Return a value, or an array of them, in the units that its name has here."""
    wanted = COLUMN_UNITS.get(name)
    if wanted is None or not unit or unit == wanted:
        return value, unit
    factor = _factor(unit, wanted)
    with np.errstate(all="ignore"):
        return (value, unit) if factor is None else (value * factor, wanted)


def _factor(unit: str, wanted: str) -> Any:
    """Return what turns one unit into another; None where they measure other things."""
    kinds = [next((k for k, units in _SCALES.items() if u in units), None) for u in (unit, wanted)]
    if kinds[0] is None or kinds[0] != kinds[1]:
        return None
    scale = _SCALES[kinds[0]]
    return scale[unit] / scale[wanted]


def _attrs(file: MrcFile, source: ByteSource) -> dict[str, Any]:
    """Return what must outlast arithmetic and files: flat, and of types that netCDF stores."""
    header = file.header
    attrs: dict[str, Any] = {
        # a path need not be text
        "mrc_source": SourceName(printable(file.name), source, file.sections.offset - HEADER_SIZE),
        "mrc_layout": file.layout.kind,
        "mrc_layout_rule": file.layout.rule,
        "mrc_header": header.to_json(),
    }
    if source.stream is not None:
        attrs["mrc_stream"] = source.stream
    if file.mode0 is not None:
        attrs["mode0_assumption"] = f"{file.sections.dtype}: {file.mode0}"
    if file.problems:
        attrs["mrc_repairs"] = json.dumps([p.message(file.name) for p in file.problems])
    if file.metadata is not None:
        metadata = {key: value for key, value in file.metadata.items() if key != LABELS_KEY}
        if metadata or LABELS_KEY not in file.metadata:
            attrs["mrc_metadata"] = json_text(metadata)
    if file.sections.offset > HEADER_SIZE:
        attrs["mrc_extended_bytes"] = file.sections.offset - HEADER_SIZE
    if isinstance(file.sections, Blocks):
        blocks = file.sections
        attrs["mrcz_codec"] = blocks.codec
        attrs["mrcz_chunk_version"] = blocks.version
        attrs["mrcz_blocks"] = blocks.shape[0]
        attrs["mrcz_ratio"] = blocks.nbytes / blocks.stored_bytes
    if header.has_mrcz_fields:
        measured = {
            "voltage_kV": header.voltage,
            "c3_mm": header.c3,
            "gain_e_per_DN": header.gain,
        }
        attrs |= {key: v for key, v in measured.items() if v and math.isfinite(v)}
    return attrs | attrs_of(file.values)
