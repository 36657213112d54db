"""New Zarr stores: on a disk, they get their name when they are complete."""

from __future__ import annotations

import contextlib
import errno
import os
import warnings
from collections.abc import Iterator
from typing import Any

import xarray as xr

from mrc_xarray.installation import optional
from mrc_xarray.storage import WriteTarget, place_of, redacted
from mrc_xarray.storage.failures import without_secrets
from mrc_xarray.storage.part import PartFolder, exists

__all__ = ["new_store", "place", "storable", "zarr_package"]

# each store of format 2 or 3 has one of these files
_OF_ROOTS = {"zarr.json", ".zgroup", ".zarray"}


def zarr_package() -> Any:
    """Import Zarr, an optional package."""
    return optional("zarr", "a Zarr store")


def storable(ds: xr.Dataset) -> xr.Dataset:
    """Return a Dataset without encodings, and without texts of a fixed length.

    Zarr 3 does not specify such texts, so that other programs may not read them.
    """
    texts = {name: c.astype(object) for name, c in ds.coords.items() if c.dtype.kind == "U"}
    return ds.assign_coords(texts).drop_encoding()


def place(
    target: WriteTarget, storage_options: dict[str, Any] | None = None
) -> tuple[dict[str, Any], str]:
    """Return arguments for Zarr that lead to a store, and its name for messages."""
    name, fs, path = place_of(target, storage_options)
    if fs is None:
        # zarr makes a URL of what is none
        return {"store": os.path.expanduser(path), "storage_options": None}, redacted(name)
    options = storage_options or getattr(target, "storage_options", None)
    return {"store": name, "storage_options": dict(options) if options else None}, redacted(name)


@contextlib.contextmanager
def new_store(
    target: WriteTarget, *, overwrite: bool, storage_options: dict[str, Any] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield arguments for ``Dataset.to_zarr`` and for Zarr, for a store with an empty root group.

    On a disk, the store is a folder with a temporary name, which is published at the end. In
    other stores, the objects are written in their place.

    Raises
    ------
    FileExistsError
        If the target exists and may not be replaced, or is a folder of anything but Zarr.
    """
    _, fs, path = place_of(target, storage_options)
    store, name = place(target, storage_options)
    if fs is not None:
        with without_secrets(store["store"]):
            fs.invalidate_cache(path)
            names = fs.ls(path, detail=False) if overwrite and fs.isdir(path) else []
        _check_contents(names, name)
        _create_root(store, name, overwrite)
        with without_secrets(store["store"]):
            yield store
            _consolidate(store)
        return
    folder = os.path.realpath(store["store"])
    _check(folder, overwrite)
    part = PartFolder.of(folder)
    try:
        part.create()
        store["store"] = part.path
        _create_root(store, folder, overwrite=True)
        yield store
        _consolidate(store)
        part.publish(overwrite=overwrite)
    finally:
        part.discard()


def _check(folder: str, overwrite: bool) -> None:
    """Raise OSError if a folder may not be written or replaced."""
    if not os.path.isdir(parent := os.path.dirname(folder)):
        raise FileNotFoundError(errno.ENOENT, "No such directory", parent)
    if os.path.lexists(folder) and not overwrite:
        raise exists(folder, can_grow=False)
    _check_contents(os.listdir(folder) if os.path.isdir(folder) else [], folder)


def _check_contents(names: list[str], folder: str) -> None:
    """Raise FileExistsError if none of the files in a folder is that of a Zarr store."""
    if names and not _OF_ROOTS & {os.path.basename(name) for name in names}:
        text = (
            "The folder is no Zarr store, and is not replaced: remove it, or choose another name"
        )
        raise FileExistsError(errno.EEXIST, text, folder)


def _create_root(store: dict[str, Any], name: str, overwrite: bool) -> None:
    """Write an empty group, after removing what is there if `overwrite`."""
    zarr = zarr_package()
    errors = (FileExistsError, zarr.errors.ContainsGroupError, zarr.errors.ContainsArrayError)
    try:
        with without_secrets(store["store"]):
            zarr.open_group(**store, mode="w" if overwrite else "w-", zarr_format=3)
    except errors:
        raise exists(name, can_grow=False) from None


def _consolidate(store: dict[str, Any]) -> None:
    """Copy all metadata to the root, because xarray warns if they are not there."""
    zarr = zarr_package()
    root = zarr.open_group(**store, mode="r+")
    with warnings.catch_warnings():
        # format 3 does not specify this yet
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(root.store, path=root.path)
