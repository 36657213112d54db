"""Show data in napari, or in ndv where napari is not installed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import xarray as xr

from mrc_xarray.bridges.layers import Layer, layers_of
from mrc_xarray.bridges.napari import read
from mrc_xarray.installation import install_command

__all__ = ["view", "view_files"]


def view(data: xr.DataArray) -> Any:
    """Show the data in napari, or in ndv where napari is not installed.

    The layers are those of the napari plugin: the scale is in ångström, complex data have an
    amplitude and a phase, and volumes of labels are labels. Sections are read when they are shown.
    In a script, the function returns when the window is closed; in IPython and Jupyter it returns
    immediately.

    Parameters
    ----------
    data : DataArray
        Of two dimensions or more.

    Returns
    -------
    napari.Viewer, or list of ndv.ArrayViewer
        ndv has one window for each layer.

    Raises
    ------
    ImportError
        If neither napari nor ndv is installed.
    MrcError
        If the data have fewer than two dimensions.
    """
    return _show(layers_of(data))


def view_files(paths: Sequence[str], **options: Any) -> Any:
    """Show files as `view` does; the options are those of `xarray.open_dataset`."""
    return _show([layer for path in paths for layer in read(path, **options)])


def _show(layers: Sequence[Layer]) -> Any:
    try:
        import napari
    except ImportError:
        return _show_in_ndv(layers)
    viewer = napari.Viewer()
    for pixels, options, kind in layers:
        add = viewer.add_labels if kind == "labels" else viewer.add_image
        add(pixels, **options)
    viewer.scale_bar.visible = True
    napari.run()
    return viewer


def _show_in_ndv(layers: Sequence[Layer]) -> Any:
    try:
        import ndv
    except ImportError as error:
        command = install_command('"napari[all]"')
        raise ImportError(f"view needs napari or ndv: {command}") from error
    viewers = []
    for pixels, options, _ in layers:
        labels = options["axis_labels"]
        places = zip(labels, options["translate"], options["scale"], strict=True)
        samples = ("rgb",) if options.get("rgb") else ()
        data = xr.DataArray(pixels, dims=(*labels, *samples), name=options["name"])
        positions = {
            name: start + step * data[name] for name, start, step in places if step != 1 or start
        }
        display: dict[str, Any] = {"channel_mode": "rgba"} if samples else {}
        if "contrast_limits" in options:
            display["default_lut"] = {"clims": options["contrast_limits"]}
        viewer = ndv.ArrayViewer(data.assign_coords(positions), **display)
        viewer.show()
        viewers.append(viewer)
    ndv.run_app()
    return viewers
