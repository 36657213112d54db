"""The pictures of the landing page, drawn from the samples when the docs are built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from mrc_xarray import samples
from mrc_xarray.mrc.header import Header

# inches, of the pictures of cards, so that the cards of a row have one height
SIZE = (4.0, 2.5)


def draw(folder: Path) -> None:
    """Draw all pictures into a folder, which is created if necessary."""
    folder.mkdir(exist_ok=True)
    tomogram = opened(samples.tomogram())
    series = opened(samples.tilt_series()).sortby("tilt_angle")
    scan = opened(samples.stem4d())
    particles = opened(samples.particles()).isel(image=slice(0, 40))
    patterns = np.log1p(scan.coarsen(scan_y=9, scan_x=8).mean())
    pictures = {
        "slices.png": slices(tomogram),
        "tutorials.png": card(tomogram.sel(z=slice(380, 460)).mean("z").values),
        "howto.png": card(montage(patterns.values[1:3, 2:5]), cmap="magma"),
        "gallery.png": card(montage(particles.values.reshape(5, 8, 64, 64))),
        "explanation.png": card(montage(series.values[None, [5, 20, 35], :, 45:147])),
        "reference.png": fields(tomogram.mrc.header),
    }
    with mpl.rc_context({"savefig.dpi": 150}):
        for name, figure in pictures.items():
            figure.savefig(folder / name)


def opened(path: Path) -> xr.DataArray:
    """Return the pixels of a sample."""
    return xr.open_dataarray(path, engine="mrc").load()


def slices(data: xr.DataArray) -> Figure:
    """Return three slices of a volume."""
    figure = Figure(figsize=(6, 6), layout="constrained")
    data.mrc.plot_slices(figure=figure)
    return figure


def montage(images: Any) -> Any:
    """Return images of shape (n_y, n_x, n_rows, n_columns) as one."""
    n_y, n_x, n_rows, n_columns = images.shape
    return images.transpose(0, 2, 1, 3).reshape(n_y * n_rows, n_x * n_columns)


def card(pixels: Any, cmap: str = "gray") -> Figure:
    """Return the middle of an image without axes."""
    figure = Figure(figsize=SIZE)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    n_rows, n_columns = pixels.shape
    height = min(n_rows, round(n_columns * SIZE[1] / SIZE[0]))
    width = min(n_columns, round(n_rows * SIZE[0] / SIZE[1]))
    top, left = (n_rows - height) // 2, (n_columns - width) // 2
    low, high = np.percentile(pixels, (1, 99))
    middle = pixels[top : top + height, left : left + width]
    axes.imshow(middle, cmap=cmap, vmin=low, vmax=high, aspect="auto")
    return figure


def fields(header: Header) -> Figure:
    """Return the first fields of a header as text."""
    figure = Figure(figsize=SIZE)
    names = ("NX", "NY", "NZ", "MODE", "MX", "MY", "MZ", "MAPC", "MAPR", "MAPS", "ISPG", "NLABL")
    lines = [f"{name:<6}{header[name]:>6}" for name in names]
    options: dict[str, Any] = {"family": "monospace", "size": 13, "va": "center", "color": "#333"}
    figure.text(0.08, 0.5, "\n".join(lines[:6]), **options)
    figure.text(0.56, 0.5, "\n".join(lines[6:]), **options)
    return figure
