"""Coordinates of a file, as xarray variables whose values are in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from xarray.core.indexing import ExplicitlyIndexed

__all__ = ["Coordinate"]


class Coordinate(xr.Variable):
    """A variable that stays in memory when xarray opens a file, with any ``chunks=``.

    xarray treats all variables of an engine as lazy, except for those with an index. It wraps
    their values, shows ``...`` instead of them, and with ``chunks=`` converts them to dask arrays,
    which ``groupby`` and boolean selections refuse. These coordinates have no index, because
    arithmetic would then align the data by each of them.
    """

    __slots__ = ()

    @property
    def data(self) -> Any:
        """The values."""
        return super().data

    @data.setter
    def data(self, data: Any) -> None:
        values = np.asarray(data) if isinstance(data, ExplicitlyIndexed) else data
        xr.Variable.data.fset(self, values)  # type: ignore[attr-defined]  # a property
