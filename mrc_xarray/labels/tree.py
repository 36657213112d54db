"""A recording as a tree: its Dataset, and the Datasets of images that were recorded with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import xarray as xr

from mrc_xarray.metadata.files import Companion
from mrc_xarray.recording import Dimension
from mrc_xarray.text import printable

__all__ = ["tree_of"]


def tree_of(
    movie: xr.Dataset, dims: Sequence[Dimension], images: Sequence[tuple[Companion, xr.Dataset]]
) -> dict[str, xr.Dataset]:
    """Return the groups of a tree: the movie is ``"/"``, an image ``"/<group>/<name>"``.

    `dims` are the dimensions of the movie, whose names in the Dataset can be the user's. An image
    that does not have their sizes gets dimensions that begin with its own name.
    """
    sizes = movie["data"].sizes
    roles = dict(zip(sizes, (dimension.name for dimension in dims), strict=True))
    shared = {
        "scan": {dim: sizes[dim] for dim, role in roles.items() if role in ("scan_y", "scan_x")},
        "frame": {dim: sizes[dim] for dim in list(sizes)[-2:]},
    }
    taken = {str(name) for name in (*movie.variables, *movie.dims)}
    tree = {"/": movie}
    for image, ds in images:
        # a name can contain the separator of the tree's paths
        label = printable(image.name.replace("/", "_"))
        label += "_" * (label in taken)
        path = f"/{image.group}/{label}" if image.group else f"/{label}"
        tree[path] = _sharing(ds, label, shared[image.shares])
    return tree


def _sharing(image: xr.Dataset, name: str, shared: Mapping[object, int]) -> xr.Dataset:
    """Rename the dimensions of an image to the shared ones if they fit, else to its own."""
    dims = image["data"].dims
    if list(shared.values()) == list(image["data"].shape):
        # the movie has their coordinates
        own = image.drop_vars([dim for dim in dims if dim in image.coords])
        return own.rename(dict(zip(dims, shared, strict=True)))
    return image.rename({dim: f"{name}_{dim}" for dim in dims})
