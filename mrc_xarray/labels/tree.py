"""A recording as a tree: its Dataset, and the Datasets of images that were recorded with it."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence

import xarray as xr

from mrc_xarray.metadata.files import Companion
from mrc_xarray.recording import Dimension
from mrc_xarray.text import printable

__all__ = ["tree_of", "tree_of_images"]

# the dimensions of an image of the scan
_SCAN = ("scan_y", "scan_x")


def tree_of(
    movie: xr.Dataset, dims: Sequence[Dimension], images: Sequence[tuple[Companion, xr.Dataset]]
) -> dict[str, xr.Dataset]:
    """Return the groups of a tree: the movie is ``"/"``, an image ``"/<group>/<name>"``.

    `dims` are the dimensions of the movie, whose names in the Dataset can be the user's. An image
    that does not have their sizes gets dimensions that begin with its own name.
    """
    names = list(movie["data"].dims)
    scan = [name for name, role in zip(names, dims, strict=True) if role.name in _SCAN]
    # an image of all repeats, or one for all of them
    shared = {"scan": [names[:-2], scan] if scan else [], "frame": [names[-2:]]}
    sizes = movie["data"].sizes
    taken = {str(name) for name in (*movie.variables, *movie.dims)}
    tree = {"/": movie}
    for image, ds in images:
        label = _label(image.name, taken, "_")
        path = f"/{image.group}/{label}" if image.group else f"/{label}"
        tree[path] = _sharing(
            ds, label, [{dim: sizes[dim] for dim in along} for along in shared[image.shares]]
        )
    return tree


def _sharing(
    image: xr.Dataset, name: str, possible: Sequence[Mapping[Hashable, int]]
) -> xr.Dataset:
    """Rename the dimensions of an image to the first ones that fit, else to its own.

    The image of a scan of a single line has one row or one column.
    """
    for ds in (image, image.squeeze(drop=True)):
        dims = ds["data"].dims
        for shared in possible:
            if list(shared.values()) == list(ds["data"].shape):
                # the movie has their coordinates
                own = ds.drop_vars([dim for dim in dims if dim in ds.coords])
                return own.rename(dict(zip(dims, shared, strict=True)))
    return _apart(image, name)


def tree_of_images(
    largest: xr.Dataset, others: Sequence[tuple[str, xr.Dataset]]
) -> dict[str, xr.Dataset]:
    """Return the groups of a tree: the largest image is ``"/"``, each other ``"/<name>"``.

    Dimensions of another image that are not the same as those of the largest get its name.
    """
    taken = {str(name) for name in (*largest.variables, *largest.dims)}
    tree = {"/": largest}
    for number, (name, ds) in enumerate(others, 1):
        label = _label(name, taken, f"_{number}")
        taken.add(label)
        tree[f"/{label}"] = ds if _fits(ds, largest) else _apart(ds, label)
    return tree


def _label(name: str, taken: Collection[str], suffix: str) -> str:
    """Return the name of a group, with a suffix if the name is taken."""
    # a name can contain the separator of paths, or stand for a parent
    label = printable(name.replace("/", "_"))
    label = label if label.strip(".") else "image"
    return label + suffix * (label in taken)


def _fits(image: xr.Dataset, largest: xr.Dataset) -> bool:
    """Return whether the dimensions that two images have in common are the same."""
    common = [dim for dim in image.dims if dim in largest.dims]
    return all(
        image.sizes[dim] == largest.sizes[dim]
        and (dim in image.coords) == (dim in largest.coords)
        and (dim not in image.coords or image[dim].identical(largest[dim]))
        for dim in common
    )


def _apart(image: xr.Dataset, label: str) -> xr.Dataset:
    return image.rename({dim: f"{label}_{dim}" for dim in image["data"].dims})
