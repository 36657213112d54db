"""A Direct Electron acquisition as a tree: the movie, and the images beside it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence

import xarray as xr

from mrc_xarray.labels.provenance import metadata_of
from mrc_xarray.metadata.find import companions, image_name
from mrc_xarray.storage import ByteSource, InStore
from mrc_xarray.text import printable

__all__ = ["groups"]


def groups(
    movie: xr.Dataset,
    roles: Sequence[Hashable],
    source: ByteSource,
    open_image: Callable[[str | InStore], xr.Dataset],
) -> dict[str, xr.Dataset]:
    """Open the images beside a movie.

    Parameters
    ----------
    movie : Dataset
        As the engine opens it.
    roles : sequence of str
        What its dimensions are, in their order, where they have the user's names.
    source : ByteSource
        The movie's.
    open_image : callable
        Opens what `ByteSource.beside` returns.

    Returns
    -------
    dict of str to Dataset
        ``"/"`` is the movie; ``"/virtual/<name>"``, ``"/external/<name>"`` and ``"/final"`` are
        images. They have the movie's dimensions where they have its sizes, so that its
        coordinates are theirs, and else dimensions with their own name before.
    """
    named = dict(zip(roles, movie["data"].sizes.items(), strict=True))
    scan = dict(size for role, size in named.items() if role in ("scan_y", "scan_x"))
    frame = dict(list(movie["data"].sizes.items())[-2:])
    taken = {str(variable) for variable in movie.variables} | set(map(str, movie.dims))
    tree = {"/": movie}
    keys = metadata_of(movie["data"].attrs)
    for companion in companions(image_name(source), source.names_beside(), keys):
        image = open_image(source.beside(companion.file))
        # a name may contain the separator of the tree
        label = printable(companion.name.replace("/", "_"))
        label += "_" * (label in taken and bool(companion.group))
        shared = scan if companion.shares == "scan" else frame
        path = f"/{companion.group}/{label}" if companion.group else f"/{label}"
        tree[path] = _sharing(image, label, shared)
    return tree


def _sharing(image: xr.Dataset, name: str, shared: Mapping[object, int]) -> xr.Dataset:
    """Give an image the dimensions that it shares, or some of its own."""
    dims = image["data"].dims
    if list(shared.values()) == list(image["data"].shape):
        # where they are, the movie tells
        renamed = dict(zip(dims, shared, strict=True))
        return image.drop_vars([dim for dim in dims if dim in image.coords]).rename(renamed)
    return image.rename({dim: f"{name}_{dim}" for dim in dims})
