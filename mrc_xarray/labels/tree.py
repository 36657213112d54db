"""A recording as a tree: its Dataset, and those of the images that belong to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import xarray as xr

from mrc_xarray.recording import Dimension
from mrc_xarray.text import printable

__all__ = ["tree_of"]


def tree_of(
    movie: xr.Dataset, dims: Sequence[Dimension], images: Mapping[str, xr.Dataset]
) -> dict[str, xr.Dataset]:
    """Return the groups of a tree.

    Parameters
    ----------
    movie : Dataset
    dims : sequence of Dimension
        The dimensions of the movie, whose names in the Dataset can be the user's.
    images : mapping of str to Dataset
        By group: ``"final"`` for a sum over the scan, which has the shape of a frame, and
        ``"virtual/<name>"`` or ``"external/<name>"`` for an image with the shape of the scan.

    Returns
    -------
    dict of str to Dataset
        ``"/"`` is the movie. An image shares the movie's dimensions and coordinates if it has
        their sizes, and otherwise has dimensions that begin with its own name.
    """
    sizes = movie["data"].sizes
    roles = dict(zip(sizes, (dimension.name for dimension in dims), strict=True))
    scan = {dim: sizes[dim] for dim, role in roles.items() if role in ("scan_y", "scan_x")}
    frame = {dim: sizes[dim] for dim in list(sizes)[-2:]}
    taken = {str(name) for name in (*movie.variables, *movie.dims)}
    tree = {"/": movie}
    for group, image in images.items():
        parent, _, name = group.partition("/")
        # a name can contain the separator of the tree's paths
        label = printable(name.replace("/", "_"))
        label += "_" * (label in taken)
        path = f"/{parent}/{label}" if name else f"/{parent}"
        tree[path] = _sharing(image, label if name else parent, scan if name else frame)
    return tree


def _sharing(image: xr.Dataset, name: str, shared: Mapping[object, int]) -> xr.Dataset:
    """Rename the dimensions of an image to the shared ones if they fit, else to its own."""
    dims = image["data"].dims
    if list(shared.values()) == list(image["data"].shape):
        # the movie has their coordinates
        own = image.drop_vars([dim for dim in dims if dim in image.coords])
        return own.rename(dict(zip(dims, shared, strict=True)))
    return image.rename({dim: f"{name}_{dim}" for dim in dims})
