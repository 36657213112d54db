"""Plots of slices: three planes of a volume, an image, or a scan and its diffraction patterns.

matplotlib is an optional dependency, and imported when something is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from mrc_xarray.installation import optional
from mrc_xarray.pixels.contrast import contrast
from mrc_xarray.tools.planes import Plane, Thickness, pixels, planes_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure, SubFigure

__all__ = ["Norm", "new_figure", "plot_slices"]

Array: TypeAlias = npt.NDArray[Any]
Norm: TypeAlias = Literal["linear", "log"]

# of the slices across each dimension, slowest first; distinguishable by colour-blind readers
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
_MOST_TICKS = 6
# inches, of a plot by the number of planes
_LONGEST_SIDE = {1: 5.0, 2: 4.5, 3: 7.0}
# as a fraction of the longest side; the labels of a thin volume need some space
_THINNEST = 0.12


def plot_slices(
    data: xr.DataArray,
    at: Mapping[Any, float] | None = None,
    *,
    thickness: Thickness = None,
    norm: Norm = "linear",
    robust: tuple[float, float] | None = (1, 99),
    cmap: str | Colormap = "gray",
    scale_bar: bool = True,
    figure: Figure | SubFigure | None = None,
) -> Figure:
    """Draw slices through a point; see `MrcAccessor.plot_slices`."""
    if robust is not None and not 0 <= robust[0] < robust[1] <= 100:
        raise ValueError(f"robust is {robust!r}; accepted: two percentiles, 0 ≤ low < high ≤ 100")
    if norm not in ("linear", "log"):
        raise ValueError(f"norm is {norm!r}; accepted: 'linear', 'log'")
    planes = planes_of(data, at, thickness)
    drawn_in = figure or new_figure(planes)
    images = pixels(data, planes)
    subplots = _subplots(drawn_in, planes)
    cuts = dict.fromkeys(axis.dim for plane in planes for axis in plane.cut)
    colours = dict(zip(cuts, _COLOURS, strict=False))
    for ax, plane, image in zip(subplots, planes, images, strict=True):
        # the planes of a volume have one contrast, a scan and its patterns their own
        together = images if len(planes) == 3 else [image]
        is_log = norm == "log" and (plane.is_pattern or len(planes) != 2)
        _draw(ax, plane, image, _style(together, robust, cmap, is_log=is_log))
        _mark(ax, plane, colours, data.dtype)
        if scale_bar and ax in (subplots if len(planes) == 2 else subplots[:1]):
            _add_scale_bar(ax, plane)
        if plane.up.is_down and image.ndim == 2:
            drawn_in.colorbar(ax.images[0], ax=ax, pad=0.03, aspect=30)
    return drawn_in.figure


def new_figure(planes: Sequence[Plane], *, is_shown: bool = True) -> Figure:
    """Return a figure with the size of the planes, of pyplot if it is shown."""
    matplotlib = optional("matplotlib.figure", "drawing")
    width, height, depth = _drawn_size(planes)
    size = np.array([width + depth, height + depth])
    # the labels need space, next to very long or high plots as well
    inches = np.maximum(size * _LONGEST_SIDE[len(planes)] / size.max(), 2) + 1
    if len(planes) == 2:
        inches = inches * (2, 1)
    options: dict[str, Any] = {"figsize": tuple(inches), "layout": "compressed"}
    return _of_pyplot(options) if is_shown else matplotlib.Figure(**options)


def _of_pyplot(options: Mapping[str, Any]) -> Figure:
    """Return a figure of pyplot that a notebook shows once."""
    import matplotlib.pyplot as plt
    from matplotlib.figure import Figure

    class ShownOnce(Figure):
        def _ipython_display_(self) -> NoReturn:
            """Close the figure in pyplot, and leave it to IPython to show it.

            Otherwise a cell that ends with the figure shows it twice: as the result of the cell,
            and as one of the figures that pyplot has open at the end of a cell.
            """
            if "inline" in plt.get_backend():
                plt.close(self)
            raise NotImplementedError

    figure: Figure = plt.figure(FigureClass=ShownOnce, **options)
    return figure


def _drawn_size(planes: Sequence[Plane]) -> tuple[float, float, float]:
    """Return width, height and depth as drawn, in units of the first axis to the right.

    The depth is 0 if there are not three planes.
    """
    up, right = planes[0].up, planes[0].right
    width, height = right.length, up.length * up.per_unit(right)
    if len(planes) != 3:
        return width, height, 0
    (across,) = planes[0].cut
    depth = across.length * across.per_unit(right)
    return width, height, max(depth, _THINNEST * max(height, width))


def _subplots(figure: Figure | SubFigure, planes: Sequence[Plane]) -> list[Axes]:
    """Return the axes for each plane: for a volume, those across z, y and x."""
    width, height, depth = _drawn_size(planes)
    if not depth:
        return [figure.add_subplot(1, len(planes), i) for i, _ in enumerate(planes, 1)]
    grid = figure.add_gridspec(2, 2, width_ratios=(width, depth), height_ratios=(height, depth))
    front = figure.add_subplot(grid[0, 0])
    below = figure.add_subplot(grid[1, 0], sharex=front)
    to_right = figure.add_subplot(grid[0, 1], sharey=front)
    # the same numbers are at the other end
    front.tick_params(labelbottom=False)
    front.xaxis.label.set_visible(False)
    to_right.tick_params(labelleft=False)
    to_right.yaxis.label.set_visible(False)
    return [front, below, to_right]


def _style(
    images: Sequence[Array],
    robust: tuple[float, float] | None,
    cmap: str | Colormap,
    *,
    is_log: bool,
) -> dict[str, Any]:
    """Return how pixels are drawn: what is black and white, and where it is in between."""
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm, Normalize

    if images[0].ndim > 2:
        # red, green and blue are drawn as they are
        return {}
    colours = colormaps.get_cmap(cmap)
    if is_log:
        # counts of zero have no logarithm
        colours = colours.with_extremes(bad=colours(0.0))
    values = [image[image > 0] if is_log else image for image in images]
    limits = contrast(values, (0, 100) if robust is None else robust)
    if limits is None:
        return {"cmap": colours}
    return {"cmap": colours, "norm": (LogNorm if is_log else Normalize)(*limits)}


def _draw(ax: Axes, plane: Plane, image: Array, style: Mapping[str, Any]) -> None:
    from matplotlib.ticker import MaxNLocator

    up, right = plane.up, plane.right
    aspect = up.per_unit(right)
    extent = (*right.ends, *up.ends)
    ax.imshow(image, extent=extent, origin="lower", aspect=aspect, **style)
    ax.set(xlim=sorted(right.ends), ylim=sorted(up.ends, reverse=up.is_down))
    ax.set(xlabel=right.label, ylabel=up.label)
    ax.tick_params(length=2.5, width=0.6, labelsize="small")
    ax.spines[:].set_linewidth(0.6)
    width, height = right.length, up.length * aspect
    for drawn, axis, length in ((ax.xaxis, right, width), (ax.yaxis, up, height)):
        n_ticks = max(2, round(_MOST_TICKS * length / max(width, height)))
        drawn.set_major_locator(
            MaxNLocator(n_ticks, steps=(1, 2, 5, 10), integer=axis.unit == "pixel")
        )


def _mark(ax: Axes, plane: Plane, colours: Mapping[Any, str], dtype: np.dtype[Any]) -> None:
    """Give a plane a title, its colour, and lines and bands where other planes cut it."""
    title = ", ".join(filter(None, (plane.title, "amplitude" * (dtype.kind == "c"))))
    colour = colours[plane.cut[0].dim] if len(plane.cut) == 1 else "black"
    ax.set_title(title, color=colour, fontsize="medium")
    if len(plane.cut) == 1:
        ax.spines[:].set(color=colour, linewidth=1.2)
    if not plane.cut:
        return
    for axis, line, span in (
        (plane.up, ax.axhline, ax.axhspan),
        (plane.right, ax.axvline, ax.axvspan),
    ):
        if axis.is_slab:
            span(*axis.faces, color=colours[axis.dim], alpha=0.15, linewidth=0)
        line(axis.centre, color=colours[axis.dim], linewidth=0.8, alpha=0.8)


def _add_scale_bar(ax: Axes, plane: Plane) -> None:
    from matplotlib.patheffects import withStroke
    from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

    length, text = plane.right.bar
    style = {"fill_bar": True, "frameon": False, "color": "white", "sep": 4, "borderpad": 0.8}
    style["size_vertical"] = 0.012 * plane.up.length
    bar = AnchoredSizeBar(ax.transData, length, text, "lower right", **style)
    # visible on white and black
    outline = [withStroke(linewidth=2.5, foreground="black")]
    bar.txt_label._text.set(path_effects=outline, fontweight="bold")
    bar.size_bar.get_children()[0].set(path_effects=outline)
    ax.add_artist(bar)
