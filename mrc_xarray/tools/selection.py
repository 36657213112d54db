"""Parts of dimensions, by index or by position, as the command line names them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xarray as xr

from mrc_xarray.errors import MrcError
from mrc_xarray.units import factor, known_unit

__all__ = ["Positions", "Selection", "parse_selection", "selected"]

_NUMBER = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(\s*)(.*?)\s*")
_FORM = "DIM=INDEX, DIM=START:STOP[:STEP], or positions with a unit, as in z=400:500A"
# of a distance between voxels, for positions that have been rounded
_TOLERANCE = 1e-4


class Quantity(NamedTuple):
    """A number with a unit."""

    value: float
    unit: str

    def __str__(self) -> str:
        return f"{self.value:g} {self.unit}"


class Positions(NamedTuple):
    """Every `step`-th position from `start` to `stop`, or the one that is nearest to `at`.

    Both ends are included.
    """

    at: Quantity | None = None
    start: Quantity | None = None
    stop: Quantity | None = None
    step: int | None = None


#: A part of one dimension.
Selection = slice | Positions


def parse_selection(text: str) -> tuple[str, Selection]:
    """Parse ``DIM=INDEX``, ``DIM=START:STOP[:STEP]``, or the same with units of positions.

    Raises
    ------
    argparse.ArgumentTypeError
        If the text has another form.
    """
    name, _, numbers = text.partition("=")
    try:
        parts = [_number(part) if part.strip() else None for part in numbers.split(":")]
        if not name or len(parts) > 3 or parts == [None]:
            raise ValueError(f"accepted: {_FORM}")
        if any(isinstance(part, Quantity) for part in parts):
            return name, _positions(parts)
        found = [None if part is None else _integer(part) for part in parts]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None
    if len(found) == 1 and found[0] is not None:
        # a slice retains the dimension and its coordinate; -1 is the last index
        return name, slice(found[0], found[0] + 1 or None)
    return name, slice(*found)


def selected(ds: xr.Dataset, select: Mapping[str, Selection], name: str) -> xr.Dataset:
    """Return a part of a Dataset; `name` is that of its file, for messages.

    Raises
    ------
    MrcError
        If there is no such dimension or coordinate, or no such index or position.
    """
    for dim, part in select.items():
        try:
            along, index = _found(ds, dim, part)
        except ValueError as error:
            raise MrcError(f"{name}: {error}") from None
        ds = ds.isel({along: index})
    return ds


def _number(text: str) -> float | Quantity:
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a number; accepted: {_FORM}")
    digits, space, unit = match.groups()
    if not unit:
        return float(digits)
    if unit.startswith("/") and digits.endswith("1") and not space:
        raise ValueError(
            f"{text!r} has two meanings; put a space in front of the unit, as in "
            f"{digits[:-1] or 1} 1{unit} or {digits} {unit}"
        )
    return Quantity(float(digits), f"1{unit}" if unit.startswith("/") else unit)


def _integer(number: Any) -> int:
    if not number.is_integer():
        raise ValueError(f"{number:g} is not an index; accepted: {_FORM}")
    return int(number)


def _positions(parts: list[Any]) -> Positions:
    """Return positions; START without a unit has that of STOP."""
    if len(parts) == 1:
        return Positions(at=parts[0])
    start, stop, step = [*parts, None][:3]
    if isinstance(stop, float):
        raise ValueError(f"STOP has no unit; accepted: a unit after it, or {_FORM}")
    if isinstance(start, float) and stop is not None:
        start = Quantity(start, stop.unit)
    if isinstance(step, Quantity):
        raise ValueError(f"STEP is {step}; accepted: a number of voxels, without a unit")
    if step is not None and _integer(step) <= 0:
        raise ValueError("STEP is not positive; positions are selected in the order of the file")
    return Positions(start=start, stop=stop, step=None if step is None else _integer(step))


def _indices(ds: xr.Dataset, dim: str, part: slice) -> slice:
    n = ds.sizes[dim]
    if not range(n)[part]:
        numbers = (part.start, part.stop, *[part.step] * (part.step is not None))
        shown = ":".join("" if number is None else str(number) for number in numbers)
        raise ValueError(
            f"{dim} has no indices {shown}; accepted: 0 to {n - 1}, or positions with a unit, as "
            "in z=400:500A"
        )
    return part


def _found(ds: xr.Dataset, name: str, part: Selection) -> tuple[str, Any]:
    """Return a dimension and the index of a part along it."""
    if isinstance(part, slice):
        if name not in ds.dims:
            raise ValueError(f"no dimension {name!r}; accepted: {', '.join(map(str, ds.dims))}")
        return name, _indices(ds, name, part)
    if name in ds.dims and name not in ds.coords:
        raise ValueError(
            f"the dimension {name!r} has no coordinate: it can be selected by index, without a "
            "unit, or after --voxel-size has set its step"
        )
    if name not in ds.coords:
        accepted = ", ".join(str(coord) for coord in ds.coords if ds[coord].ndim == 1)
        raise ValueError(f"no coordinate {name!r}; accepted: {accepted}")
    coord = ds.coords[name]
    if coord.ndim != 1 or coord.dtype.kind not in "iuf":
        raise ValueError(f"the coordinate {name!r} is not a list of numbers; select by index")
    values = coord.values.astype(np.float64)
    if part.at is not None:
        return str(coord.dims[0]), _nearest(coord, values, part.at)
    return str(coord.dims[0]), _between(coord, values, part)


def _nearest(coord: xr.DataArray, values: npt.NDArray[Any], at: Quantity) -> slice:
    distance = np.abs(values - _converted(at, coord))
    # ValueError if no value is a number
    index = int(np.nanargmin(distance))
    if distance[index] > (0.5 + _TOLERANCE) * _distance(coord, values):
        raise ValueError(f"no position near {at}; {_range(coord, values)}")
    return slice(index, index + 1)


def _between(coord: xr.DataArray, values: npt.NDArray[Any], part: Positions) -> Any:
    start = -np.inf if part.start is None else _converted(part.start, coord)
    stop = np.inf if part.stop is None else _converted(part.stop, coord)
    if start > stop:
        raise ValueError(
            f"{coord.name}: START ({part.start}) is greater than STOP ({part.stop}); "
            "accepted: the lower position first, whatever the order in the file"
        )
    slack = _TOLERANCE * _distance(coord, values)
    (indices,) = np.nonzero((values >= start - slack) & (values <= stop + slack))
    if not len(indices):
        raise ValueError(
            f"no position from {part.start or 'the first'} to {part.stop or 'the last'}; "
            f"{_range(coord, values)}"
        )
    if len(indices) == indices[-1] - indices[0] + 1:
        return slice(int(indices[0]), int(indices[-1]) + 1, part.step)
    return indices[:: part.step]


def _converted(quantity: Quantity, coord: xr.DataArray) -> float:
    """Return a number in the unit of a coordinate."""
    units = str(coord.attrs.get("units", ""))
    unit, wanted = known_unit(quantity.unit) or quantity.unit, known_unit(units) or units
    scale = 1.0 if unit == wanted else factor(unit, wanted)
    if scale is None:
        accepted = f"a unit that {units} can be converted to" if units else "an index"
        raise ValueError(
            f"the unit of the coordinate {coord.name!r} is {units or 'unknown'}, and the position "
            f"is {quantity}; accepted: {accepted}"
        )
    return quantity.value * scale


def _distance(coord: xr.DataArray, values: npt.NDArray[Any]) -> float:
    """Return the largest distance between neighbours; of one position, its stored step."""
    if len(values) > 1:
        return float(np.nanmax(np.abs(np.diff(np.sort(values)))))
    return float(coord.attrs.get("spacing", 0))


def _range(coord: xr.DataArray, values: npt.NDArray[Any]) -> str:
    units = coord.attrs.get("units", "")
    return f"{coord.name} is from {np.nanmin(values):g} to {np.nanmax(values):g} {units}".rstrip()
