"""Pictures: three orthogonal slices through a point of a volume, or one image.

matplotlib is an extra, and imported when something is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from mrc_xarray.labels.spacing import spacing
from mrc_xarray.units import length_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure, SubFigure

__all__ = ["plot_slices"]

Array: TypeAlias = npt.NDArray[Any]

_ZYX = ("z", "y", "x")
# of the slices across each dimension, slowest first: the colour-blind can tell them apart
_COLOURS = ("#0072b2", "#d55e00", "#009e73")
_SYMBOLS = {"angstrom": "Å", "nm": "nm", "pm": "pm", "um": "µm"}
# of a picture's width
_LONGEST_BAR = 0.3
_MOST_TICKS = 7
# inches: of one image, and of three
_LONGEST_SIDE = (5.0, 7.0)
# a thin volume's narrow pictures still have room for their labels
_THINNEST = 0.12


def plot_slices(
    data: xr.DataArray,
    at: Mapping[str, float] | None = None,
    *,
    figure: Figure | SubFigure | None = None,
    cmap: str | Colormap = "gray",
    robust: tuple[float, float] | None = (1, 99),
    scale_bar: bool = True,
) -> Figure:
    """Draw three orthogonal slices through a point of a volume, or one image.

    Positions increase upwards and to the right, as in xarray's own pictures. The three pictures
    have one contrast and one scale, and lines where the others cut them. Only the slices are
    read; across the fastest dimension of an uncompressed file, that is a pixel of every row.

    Parameters
    ----------
    data : DataArray, shape (n_z, n_y, n_x) or (n_rows, n_columns)
        A volume, with the dimensions z, y and x in any order, or with any three whose
        coordinates are lengths; or an image of any two dimensions, whose first one goes up
        unless the two are of z, y and x. Lazy data are loaded in one computation.
    at : mapping of dimension to float, optional
        The point, in the units of the coordinates, as ``sel`` takes it; along a dimension
        without a coordinate, the index. The nearest voxels are drawn. By default, and for
        dimensions that are left out, the middle one, of index ``n // 2``.
    figure : Figure or SubFigure, optional
        Where to draw; by default a new figure of pyplot's.
    cmap : str or Colormap
    robust : (float, float) or None, percent
        Percentiles of the slices, taken together, that are drawn black and white; None for
        their smallest and largest value. What is not finite does not count.
    scale_bar : bool
        Whether to draw a bar of a round length: in Å, nm or µm, in another unit that the
        coordinate has, or in pixels where it is missing or irregular.

    Returns
    -------
    Figure
        For a volume with the axes of the slices across z, y and x in this order; else with one.
        With a SubFigure, the figure that this belongs to.

    Raises
    ------
    ImportError
        If matplotlib is missing.
    ValueError
        If the data are no volume and no image, are complex or empty, or the point is not in them.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError('plot_slices takes pip install "mrc-xarray[plot]"') from error

    dims = _ordered(data)
    if robust is not None and not 0 <= robust[0] < robust[1] <= 100:
        raise ValueError(f"robust is {robust!r}; accepted: two percentiles, 0 ≤ low < high ≤ 100")
    axes = {dim: _axis(data, dim) for dim in dims}
    index = _indices(axes, at or {})
    planes = _planes(data, dims, index)
    style = {"cmap": cmap, **_contrast(planes, robust)}

    lengths = _drawn_lengths(list(axes.values()))
    if figure is None:
        figure = plt.figure(figsize=_figure_size(lengths), layout="compressed")
    grid = _grid(figure, lengths)
    for number, (ax, plane) in enumerate(zip(grid, planes, strict=True)):
        # the pictures beside and below the first one share its rows and its columns
        across = dims[number] if len(dims) == 3 else None
        up, right = (axes[dim] for dim in _up_and_right(dims, across))
        _draw(ax, plane, up, right, style)
        for other, colour in zip(dims, _COLOURS, strict=False):
            place = axes[other].position(index[other])
            if across is None:
                continue
            if other == across:
                ax.set_title(axes[other].told(place), color=colour, fontsize="medium")
            elif other == up.dim:
                ax.axhline(place, color=colour, linewidth=0.8)
            else:
                ax.axvline(place, color=colour, linewidth=0.8)
    if scale_bar:
        _add_scale_bar(grid[0], axes[dims[-2]], axes[dims[-1]])
    return figure.figure


@dataclass(frozen=True)
class _Axis:
    """A dimension as it is drawn.

    Attributes
    ----------
    dim : hashable
    size : int
        Pixels along it.
    first, step : float
        Where pixel 0 is and how far the next one, in `unit`: index 0 and 1 in pixels.
    unit : str or None
        Of the coordinate, as it is written there; None in pixels.
    coordinate : ndarray, shape (size,)
        What a point is given in.
    """

    dim: Hashable
    size: int
    first: float
    step: float
    unit: str | None
    coordinate: Array

    @property
    def length(self) -> float:
        """In `unit`, from the edge of the first pixel to that of the last."""
        return abs(self.step) * self.size

    @property
    def ends(self) -> tuple[float, float]:
        """The outer edges of the first and the last pixel."""
        return self.position(-0.5), self.position(self.size - 0.5)

    @property
    def symbol(self) -> str:
        """The unit for people; empty where the coordinate has none."""
        if self.unit is None:
            return "pixel"
        known = (s for name, s in _SYMBOLS.items() if length_unit(self.unit) == length_unit(name))
        return next(known, self.unit)

    @property
    def label(self) -> str:
        return f"{self.dim} [{self.symbol}]" if self.symbol else str(self.dim)

    def position(self, index: float) -> float:
        return self.first + index * self.step

    def told(self, place: float) -> str:
        return f"{self.dim} = {place:.6g} {self.symbol}".rstrip()


def _ordered(data: xr.DataArray) -> tuple[Hashable, ...]:
    """Return the dimensions as they are drawn, slowest first."""
    dims = data.dims
    if set(dims) <= set(_ZYX):
        dims = tuple(dim for dim in _ZYX if dim in dims)
    lengths = [dim for dim in dims if length_unit(_unit(data, dim)) is not None]
    is_volume = len(dims) == 3 and (dims == _ZYX or len(lengths) == 3)
    if not is_volume and len(dims) != 2:
        spatial = set(_ZYX) if set(_ZYX) <= set(dims) else set(dims[-2:])
        selected = ", ".join(f"{dim}=0" for dim in dims if dim not in spatial)
        select = f"; select first, as by .isel({selected})" if len(dims) > 2 else ""
        raise ValueError(
            f"the data have the dimensions ({', '.join(map(str, dims))}); accepted: those of a "
            f"volume, z, y and x, or the two of an image{select}"
        )
    if empty := [dim for dim in dims if not data.sizes[dim]]:
        raise ValueError(f"the data have no pixels along {empty[0]}")
    if data.dtype.kind not in "biuf":
        hint = "; draw a part, as abs(data)" if data.dtype.kind == "c" else ""
        raise ValueError(f"the data are {data.dtype}; accepted: real numbers{hint}")
    return dims


def _unit(data: xr.DataArray, dim: Hashable) -> str:
    return str(data.coords[dim].attrs.get("units", "")) if dim in data.coords else ""


def _axis(data: xr.DataArray, dim: Hashable) -> _Axis:
    size = data.sizes[dim]
    # a coordinate that is not there would be made up
    coord = data.coords[dim]
    if dim not in data.coords or coord.dtype.kind not in "iuf":
        return _Axis(dim, size, 0, 1, None, np.arange(size))
    values = coord.values
    step = spacing(values, coord.attrs.get("spacing"))
    if step is None:
        return _Axis(dim, size, 0, 1, None, values)
    step = math.copysign(step, values[-1] - values[0])
    return _Axis(dim, size, float(values[0]), step, _unit(data, dim), values)


def _indices(axes: Mapping[Hashable, _Axis], at: Mapping[str, float]) -> dict[Hashable, int]:
    """Return the index of the slice across each dimension."""
    accepted = list(map(str, axes)) if len(axes) == 3 else []
    if unknown := [dim for dim in at if dim not in accepted]:
        told = ", ".join(accepted) or "none, as one image has no slices"
        raise ValueError(f"at has the dimension {unknown[0]!r}; accepted: {told}")
    index = {dim: axis.size // 2 for dim, axis in axes.items()}
    for dim, wanted in at.items():
        axis = axes[dim]
        margin = 0.5 * abs(axis.step)
        low, high = float(axis.coordinate.min()), float(axis.coordinate.max())
        if not low - margin <= wanted <= high + margin:
            told = f"{low:.6g} to {high:.6g} {axis.symbol}".rstrip()
            raise ValueError(f"at has {dim} = {wanted!r}; accepted: {told}")
        index[dim] = int(np.abs(axis.coordinate - wanted).argmin())
    return index


def _up_and_right(dims: Sequence[Hashable], across: Hashable | None) -> tuple[Hashable, Hashable]:
    """Return the dimensions of a picture: those of the first one keep their direction."""
    up, right = (dim for dim in dims if dim != across)
    return (right, up) if len(dims) == 3 and across == dims[2] else (up, right)


def _planes(
    data: xr.DataArray, dims: Sequence[Hashable], index: Mapping[Hashable, int]
) -> list[Array]:
    """Return the pixels of the pictures, rows from the bottom to the top."""
    across = dims if len(dims) == 3 else (None,)
    planes = {
        f"plane {number}": data.variable.isel({} if dim is None else {dim: index[dim]})
        for number, dim in enumerate(across)
    }
    # one computation, since the planes have chunks in common
    loaded = xr.Dataset(planes).compute().data_vars.values()
    # xarray reads what is transposed point by point: so only now
    return [
        plane.transpose(*_up_and_right(dims, dim)).values
        for plane, dim in zip(loaded, across, strict=True)
    ]


def _contrast(planes: Sequence[Array], robust: tuple[float, float] | None) -> dict[str, float]:
    """Return the values that are drawn black and white; none where no value is finite."""
    values = np.concatenate([plane[np.isfinite(plane)] for plane in planes])
    if not values.size:
        return {}
    values = values.astype(np.float64)
    dark, light = np.percentile(values, (0, 100) if robust is None else robust)
    if dark == light:
        # a few beads, or single counts, in front of nothing
        dark, light = values.min(), values.max()
    return {"vmin": float(dark), "vmax": float(light)}


def _aspect(up: _Axis, right: _Axis) -> float:
    """Return how long the unit upwards is drawn, in units to the right."""
    units = up.unit, right.unit
    if None not in units:
        lengths = length_unit(up.unit), length_unit(right.unit)
        if lengths[0] is not None and lengths[1] is not None:
            return lengths[0] / lengths[1]
        if units[0] == units[1]:
            return 1.0
    # nothing to compare: square pixels
    return abs(right.step / up.step)


def _drawn_lengths(axes: Sequence[_Axis]) -> list[float]:
    """Return how long each axis is drawn, in units of the last one."""
    return [axis.length * _aspect(axis, axes[-1]) for axis in axes]


def _figure_size(lengths: Sequence[float]) -> tuple[float, float]:
    """Return width and height in inches."""
    *depth, height, width = lengths
    depth = [max(d, _THINNEST * max(height, width)) for d in depth]
    width, height = width + sum(depth), height + sum(depth)
    scale = _LONGEST_SIDE[len(depth)] / max(width, height)
    # room for the labels, and for those of very long or high pictures
    return max(width * scale, 2) + 1, max(height * scale, 2) + 1


def _grid(figure: Figure | SubFigure, lengths: Sequence[float]) -> list[Axes]:
    """Return the axes for the slices across z, y, x; or for one image."""
    if len(lengths) == 2:
        return [figure.add_subplot()]
    depth, height, width = lengths
    depth = max(depth, _THINNEST * max(height, width))
    grid = figure.add_gridspec(2, 2, width_ratios=(width, depth), height_ratios=(height, depth))
    front = figure.add_subplot(grid[0, 0])
    below = figure.add_subplot(grid[1, 0], sharex=front)
    beside = figure.add_subplot(grid[0, 1], sharey=front)
    return [front, below, beside]


def _draw(ax: Axes, plane: Array, up: _Axis, right: _Axis, style: Mapping[str, Any]) -> None:
    from matplotlib.ticker import MaxNLocator

    extent = (*right.ends, *up.ends)
    ax.imshow(plane, extent=extent, origin="lower", aspect=_aspect(up, right), **style)
    ax.set_xlim(min(right.ends), max(right.ends))
    ax.set_ylim(min(up.ends), max(up.ends))
    ax.set_xlabel(right.label)
    ax.set_ylabel(up.label)
    width, height = right.length, up.length * _aspect(up, right)
    for drawn, axis, length in ((ax.xaxis, right, width), (ax.yaxis, up, height)):
        n_ticks = max(2, round(_MOST_TICKS * length / max(width, height)))
        drawn.set_major_locator(MaxNLocator(n_ticks, integer=axis.unit is None))


def _add_scale_bar(ax: Axes, up: _Axis, right: _Axis) -> None:
    from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

    length, text = _round_length(right)
    bar = AnchoredSizeBar(
        ax.transData,
        length,
        text,
        "lower right",
        size_vertical=0.01 * up.length,
        fill_bar=True,
        borderpad=0.6,
        pad=0.3,
        sep=3,
    )
    bar.patch.set(facecolor="white", edgecolor="none", alpha=0.8)
    ax.add_artist(bar)


def _round_length(axis: _Axis) -> tuple[float, str]:
    """Return the length of the scale bar in the axis's unit, and what is written on it."""
    unit = length_unit(axis.unit) or 1.0
    # in Å where the unit is a length
    longest = _LONGEST_BAR * axis.length * unit
    if axis.unit is None:
        longest = max(longest, 1)
    power = 10.0 ** math.floor(math.log10(longest) + 1e-9)
    digit = max(d for d in (1, 2, 5) if d * power <= longest * (1 + 1e-9))
    length = digit * power
    if axis.unit is None:
        return length, f"{length:g} pixel{'s' if length > 1 else ''}"
    if length_unit(axis.unit) is None:
        return length, f"{length:g} {axis.symbol}".rstrip()
    # 20 Å, where the axis is not in nm
    nm = 100 if unit == 1 else 10
    scale, symbol = (1, "Å") if length < nm else (10, "nm") if length < 1e4 else (1e4, "µm")
    return length / unit, f"{length / scale:g} {symbol}"
