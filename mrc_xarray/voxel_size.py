"""The argument ``voxel_size``, in each form that it can have."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from mrc_xarray.errors import MrcError
from mrc_xarray.units import factor, known_unit, scaled

__all__ = ["Step", "VoxelSize", "VoxelSizeArgument"]

#: A number, (x, y, z), mrcfile's record array, or a mapping of dimension to number or pair.
VoxelSizeArgument: TypeAlias = Any

_AXES = ("x", "y", "z")
_FORMS = (
    "a number or (x, y, z) in Å, or a mapping of dimension to a number in Å or to a number with "
    "its unit, such as {'kx': (0.01, '1/nm')}"
)


class Step(NamedTuple):
    """The distance between neighbours along a dimension, and its units."""

    size: float
    units: str

    @property
    def is_length(self) -> bool:
        """Whether the step is in ångström, as those of a header."""
        return self.units == "angstrom"


@dataclass(frozen=True)
class VoxelSize:
    """The steps that a user gives.

    Attributes
    ----------
    steps : mapping of str to Step
        By dimension or axis; lengths are in ångström.
    is_by_name : bool
        Whether the user named the dimensions. Otherwise the steps are for the axes x, y and z,
        and those that the data do not have are ignored.
    is_one_number : bool
        Whether the user gave one number for all axes.
    """

    steps: Mapping[str, Step]
    is_by_name: bool
    is_one_number: bool = False

    @classmethod
    def of(cls, value: VoxelSizeArgument) -> VoxelSize:
        """Return the steps in an argument.

        Raises TypeError if the argument has another form, and MrcError if a size is not finite
        and positive or a unit is unknown.
        """
        if isinstance(value, cls):
            return value
        try:
            if isinstance(value, Mapping):
                return cls({str(dim): _step(step) for dim, step in value.items()}, True)
            triple = _triple(value)
            steps = [_step(value)] * 3 if triple is None else [_step(v, zero=True) for v in triple]
            return cls(dict(zip(_AXES, steps, strict=True)), False, triple is None)
        except TypeError:
            raise TypeError(f"voxel_size is {value!r}; accepted: {_FORMS}") from None
        except ValueError as error:
            raise MrcError(f"voxel_size is {value!r}; accepted: {error}") from None

    def of_sections(self, axis: str) -> float | None:
        """Return the distance in Å between sections along an axis that is no dimension.

        None if it is 0 or not given: one number for all axes is not about the sections of a stack.
        Raises MrcError if it is no length.
        """
        step = None if self.is_one_number else self.steps.get(axis)
        if step is not None and not step.is_length:
            raise MrcError(
                f"voxel_size is in {step.units} along {axis}; accepted: a length, since it is the "
                "distance between the sections"
            )
        return (step.size or None) if step else None

    def along(
        self, roles: Mapping[str, str], *, partly: bool = False, others: Collection[str] = ()
    ) -> dict[str, Step]:
        """Return the steps by role, for the `roles` of dimensions by their names.

        A dimension can be named by its role, too. Raises MrcError if a size is 0 or, unless
        `roles` are only a part of the names, if a step is for neither the dimensions nor `others`.
        """
        role_of = {role: role for role in roles.values()} | dict(roles)
        steps = {role_of[dim]: step for dim, step in self.steps.items() if dim in role_of}
        if zero := [role for role, step in steps.items() if not step.size]:
            raise MrcError(f"voxel_size is 0 along {', '.join(zero)}; accepted: sizes above 0")
        unknown = sorted(self.steps.keys() - role_of.keys() - {*others})
        if not partly and unknown and (self.is_by_name or not steps):
            raise MrcError(
                f"voxel_size is for {', '.join(unknown)}, which the data do not have; accepted: "
                f"a mapping of {', '.join(map(repr, roles))}"
            )
        return steps


def _triple(value: Any) -> list[Any] | None:
    """Return the three sizes in a sequence or in mrcfile's record; None for another form."""
    if getattr(getattr(value, "dtype", None), "names", None) == _AXES:
        return [value[axis] for axis in _AXES]
    is_sequence = isinstance(value, tuple | list) or getattr(value, "ndim", 0) == 1
    return list(value) if is_sequence and len(value) == len(_AXES) else None


def _step(value: Any, *, zero: bool = False) -> Step:
    """Return a step; raise TypeError or, with what is accepted, ValueError."""
    is_pair = isinstance(value, tuple | list) and len(value) == 2
    number, unit = value if is_pair else (value, "angstrom")
    array = np.asarray(number)
    if not isinstance(unit, str) or array.ndim or array.dtype.kind not in "iuf":
        raise TypeError
    # of a float32, the decimal that is meant: 13.48, and not 13.479999542236328
    size = float(str(array[()]))
    if not (0 < size < math.inf or (zero and size == 0)):
        raise ValueError("finite sizes above 0")
    units = known_unit(unit)
    if units is None:
        raise ValueError(
            "units of length, such as 'angstrom' and 'nm', one divided by a length, such as "
            "'1/nm', of angles ('mrad', 'rad', 'degree'), of time ('s', 'ms', 'us', 'ns') or of "
            "energy ('eV', 'keV', 'meV')"
        )
    scale = factor(units, "angstrom")
    return Step(size, units) if scale is None else Step(scaled(size, scale), "angstrom")
