"""Plots of three orthogonal slices through a point of a volume, or of one image.

matplotlib is an optional dependency, and imported when something is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from mrc_xarray.labels.spacing import spacing
from mrc_xarray.units import angstroms_per

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure, SubFigure

__all__ = ["plot_slices"]

Array: TypeAlias = npt.NDArray[Any]

_ZYX = ("z", "y", "x")
# of the slices across each dimension, slowest first; distinguishable by colour-blind readers
_COLOURS = ("#0072b2", "#d55e00", "#009e73")
# by size in Å
_SYMBOLS = {1: "Å", 10: "nm", 0.01: "pm", 1e4: "µm"}
# as a fraction of the width of the plot
_LONGEST_BAR = 0.3
_MOST_TICKS = 7
# inches, of the plots of an image and of a volume
_LONGEST_SIDE = {2: 5.0, 3: 7.0}
# as a fraction of the longest side; the labels of a thin volume need some space
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

    Positions increase upwards and to the right, as in xarray's own plots. The three slices share
    one contrast and one scale, and lines show where each slice cuts the others. Only the slices
    are read. A slice across the fastest dimension of an uncompressed file reads one pixel per row.

    Parameters
    ----------
    data : DataArray, shape (n_z, n_y, n_x) or (n_rows, n_columns)
        A volume with the dimensions z, y and x in any order, or with any three dimensions whose
        coordinates are lengths; or an image with any two dimensions. The first dimension of an
        image points upwards, unless the two are of z, y and x. Lazy data are loaded in one
        computation.
    at : mapping of dimension to float, optional
        The point, in the units of the coordinates, or as an index along a dimension without a
        coordinate. The nearest voxels are drawn. The default along each dimension is the middle,
        index ``n // 2``.
    figure : Figure or SubFigure, optional
        By default a new figure of pyplot.
    cmap : str or Colormap
    robust : (float, float) or None, percent
        Percentiles of the finite values in all slices that are drawn black and white; None for
        the smallest and largest value.
    scale_bar : bool
        Whether to draw a bar of a round length: in Å, nm or µm, in the unit of another
        coordinate, or in pixels if the coordinate is missing or irregular.

    Returns
    -------
    Figure
        For a volume with axes for the slices across z, y and x, in this order; for an image with
        one. For a SubFigure, the figure that contains it.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If the data are not a volume or an image, are complex or empty, or do not contain the
        point.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        message = 'plot_slices needs matplotlib: pip install "mrc-xarray[plot]"'
        raise ImportError(message) from error

    dims = _ordered(data)
    if robust is not None and not 0 <= robust[0] < robust[1] <= 100:
        raise ValueError(f"robust is {robust!r}; accepted: two percentiles, 0 ≤ low < high ≤ 100")
    at = at or {}
    known = list(map(str, dims)) if len(dims) == 3 else []
    if unknown := [dim for dim in at if dim not in known]:
        accepted = ", ".join(known) or "none, because an image has no slices"
        raise ValueError(f"at has the dimension {unknown[0]!r}; accepted: {accepted}")
    axes = [_axis(data, dim, at.get(str(dim))) for dim in dims]
    # the plots below and to the right of the first share its axes
    views: list[_View] = [(None, axes[0], axes[1])]
    if len(axes) == 3:
        z, y, x = axes
        views = [(z, y, x), (y, z, x), (x, y, z)]
    planes = _planes(data, views)
    style = {"cmap": cmap, **_contrast(planes, robust)}

    width, height, depth = _drawn_size(axes)
    size = np.array([width + depth, height + depth])
    # the labels need space, next to very long or high plots as well
    inches = np.maximum(size * _LONGEST_SIDE[len(dims)] / size.max(), 2) + 1
    drawn_in = figure or plt.figure(figsize=tuple(inches), layout="compressed")
    subplots = _subplots(drawn_in, width, height, depth)
    colours = dict(zip(dims, _COLOURS, strict=False))
    for ax, (across, up, right), plane in zip(subplots, views, planes, strict=True):
        _draw(ax, plane, up, right, style)
        if across is not None:
            title = f"{across.dim} = {across.position():.6g} {across.symbol}".rstrip()
            ax.set_title(title, color=colours[across.dim], fontsize="medium")
            ax.axhline(up.position(), color=colours[up.dim], linewidth=0.8)
            ax.axvline(right.position(), color=colours[right.dim], linewidth=0.8)
    if scale_bar:
        _add_scale_bar(subplots[0], axes[-2], axes[-1])
    return drawn_in.figure


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """A dimension as it is drawn: in the unit of its coordinate, or in pixels."""

    dim: Hashable
    n: int
    index: int  # of the slice across the dimension
    first: float = 0.0
    step: float = 1.0
    unit: str | None = None  # None for pixels

    @property
    def length(self) -> float:
        """Length between the outer edges of the first and the last pixel."""
        return abs(self.step) * self.n

    @property
    def ends(self) -> tuple[float, float]:
        """The outer edges of the first and the last pixel."""
        return self.position(-0.5), self.position(self.n - 0.5)

    @property
    def symbol(self) -> str:
        """The unit for people; empty if the coordinate has none."""
        if self.unit is None:
            return "pixel"
        return _SYMBOLS.get(angstroms_per(self.unit) or 0, self.unit)

    @property
    def label(self) -> str:
        return f"{self.dim} [{self.symbol}]" if self.symbol else str(self.dim)

    def position(self, index: float | None = None) -> float:
        return self.first + (self.index if index is None else index) * self.step


# the axis that the slice cuts, and the axes that point upwards and to the right
_View: TypeAlias = tuple[_Axis | None, _Axis, _Axis]


def _ordered(data: xr.DataArray) -> tuple[Hashable, ...]:
    """Return the dimensions as they are drawn, slowest first."""
    dims = data.dims
    if set(dims) <= set(_ZYX):
        dims = tuple(dim for dim in _ZYX if dim in dims)
    is_volume = len(dims) == 3 and (
        dims == _ZYX or all(angstroms_per(_unit(data, dim)) is not None for dim in dims)
    )
    if not is_volume and len(dims) != 2:
        spatial = set(_ZYX) if set(_ZYX) <= set(dims) else set(dims[-2:])
        selected = ", ".join(f"{dim}=0" for dim in dims if dim not in spatial)
        hint = f". Select first, for example with .isel({selected})" if len(dims) > 2 else ""
        raise ValueError(
            f"the data have the dimensions ({', '.join(map(str, dims))}); accepted: z, y and x "
            f"of a volume, or the two dimensions of an image{hint}"
        )
    if empty := [dim for dim in dims if not data.sizes[dim]]:
        raise ValueError(f"the data have no pixels along {empty[0]}")
    if data.dtype.kind not in "biuf":
        hint = ". Draw a part, for example abs(data)" if data.dtype.kind == "c" else ""
        raise ValueError(f"the data are {data.dtype}; accepted: real numbers{hint}")
    return dims


def _unit(data: xr.DataArray, dim: Hashable) -> str:
    return str(data.coords[dim].attrs.get("units", "")) if dim in data.coords else ""


def _axis(data: xr.DataArray, dim: Hashable, at: float | None) -> _Axis:
    # data[dim] of a dimension without a coordinate is the index
    coord = data[dim]
    values = coord.values if coord.dtype.kind in "iuf" else np.arange(coord.size)
    axis = _Axis(dim=dim, n=len(values), index=len(values) // 2)
    step = spacing(values, coord.attrs.get("spacing"))
    if dim in data.coords and coord.dtype.kind in "iuf" and step is not None:
        step, first = math.copysign(step, values[-1] - values[0]), float(values[0])
        axis = replace(axis, first=first, step=step, unit=_unit(data, dim))
    if at is None:
        return axis
    low, high, margin = float(values.min()), float(values.max()), 0.5 * abs(axis.step)
    if not low - margin <= at <= high + margin:
        accepted = f"{low:.6g} to {high:.6g} {axis.symbol}".rstrip()
        raise ValueError(f"at has {dim} = {at!r}; accepted: {accepted}")
    return replace(axis, index=int(np.abs(values - at).argmin()))


def _planes(data: xr.DataArray, views: Sequence[_View]) -> list[Array]:
    """Return the pixels of each plot, rows from the bottom to the top."""
    cuts = [{} if across is None else {across.dim: across.index} for across, *_ in views]
    planes = {str(number): data.variable.isel(cut) for number, cut in enumerate(cuts)}
    # one computation, because the planes have chunks in common
    loaded = xr.Dataset(planes).compute().data_vars.values()
    # xarray reads transposed lazy data pixel by pixel, so transpose after loading
    return [
        plane.transpose(up.dim, right.dim).values
        for plane, (_, up, right) in zip(loaded, views, strict=True)
    ]


def _contrast(planes: Sequence[Array], robust: tuple[float, float] | None) -> dict[str, float]:
    """Return the values that are drawn black and white; empty if no value is finite."""
    values = np.concatenate([plane[np.isfinite(plane)] for plane in planes]).astype(np.float64)
    if not values.size:
        return {}
    dark, light = np.percentile(values, (0, 100) if robust is None else robust)
    if dark == light:
        # few pixels differ from a constant background
        dark, light = values.min(), values.max()
    return {"vmin": float(dark), "vmax": float(light)}


def _aspect(up: _Axis, right: _Axis) -> float:
    """Return the drawn length of the unit of `up`, in units of `right`."""
    lengths = angstroms_per(up.unit), angstroms_per(right.unit)
    if lengths[0] is not None and lengths[1] is not None:
        return lengths[0] / lengths[1]
    if up.unit == right.unit is not None:
        return 1.0
    # the units can't be compared: draw square pixels
    return abs(right.step / up.step)


def _drawn_size(axes: Sequence[_Axis]) -> tuple[float, float, float]:
    """Return width, height and depth as drawn, in units of the last axis; depth 0 for an image."""
    *depth, height, width = [axis.length * _aspect(axis, axes[-1]) for axis in axes]
    return width, height, max(depth[0], _THINNEST * max(height, width)) if depth else 0


def _subplots(figure: Figure | SubFigure, width: float, height: float, depth: float) -> list[Axes]:
    """Return the axes for the slices across z, y and x, or for one image."""
    if not depth:
        return [figure.add_subplot()]
    grid = figure.add_gridspec(2, 2, width_ratios=(width, depth), height_ratios=(height, depth))
    front = figure.add_subplot(grid[0, 0])
    below = figure.add_subplot(grid[1, 0], sharex=front)
    return [front, below, figure.add_subplot(grid[0, 1], sharey=front)]


def _draw(ax: Axes, plane: Array, up: _Axis, right: _Axis, style: Mapping[str, Any]) -> None:
    from matplotlib.ticker import MaxNLocator

    aspect = _aspect(up, right)
    ax.imshow(plane, extent=(*right.ends, *up.ends), origin="lower", aspect=aspect, **style)
    ax.set(xlim=sorted(right.ends), ylim=sorted(up.ends), xlabel=right.label, ylabel=up.label)
    width, height = right.length, up.length * aspect
    for drawn, axis, length in ((ax.xaxis, right, width), (ax.yaxis, up, height)):
        n_ticks = max(2, round(_MOST_TICKS * length / max(width, height)))
        drawn.set_major_locator(MaxNLocator(n_ticks, integer=axis.unit is None))


def _add_scale_bar(ax: Axes, up: _Axis, right: _Axis) -> None:
    from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

    length, text = _bar(right)
    style = {"fill_bar": True, "borderpad": 0.6, "pad": 0.3, "sep": 3}
    style["size_vertical"] = 0.01 * up.length
    bar = AnchoredSizeBar(ax.transData, length, text, "lower right", **style)
    bar.patch.set(facecolor="white", edgecolor="none", alpha=0.8)
    ax.add_artist(bar)


def _bar(axis: _Axis) -> tuple[float, str]:
    """Return the length of the scale bar in the unit of the axis, and its text."""
    longest, unit = _LONGEST_BAR * axis.length, angstroms_per(axis.unit)
    if axis.unit is None:
        length = _round(max(longest, 1))
        return length, f"{length:g} pixel{'s' if length > 1 else ''}"
    if unit is None:
        length = _round(longest)
        return length, f"{length:g} {axis.symbol}".rstrip()
    length = _round(longest * unit)  # in Å
    # 20 Å, but 2 nm if the axis is not in Å
    nm = 100 if unit == 1 else 10
    scale, symbol = (1, "Å") if length < nm else (10, "nm") if length < 1e4 else (1e4, "µm")
    return length / unit, f"{length / scale:g} {symbol}"


def _round(longest: float) -> float:
    """Return 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(longest) + 1e-9)
    return power * max(digit for digit in (1, 2, 5) if digit * power <= longest * (1 + 1e-9))
