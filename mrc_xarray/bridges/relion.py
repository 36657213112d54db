"""Write images as a particle set of RELION: a stack, and a table that names its images."""

from __future__ import annotations

import math
import os
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from mrc_xarray._version import __version__
from mrc_xarray.bridges.relion_columns import IMAGE_NAME, optics_of, table_columns
from mrc_xarray.errors import MrcError, warn
from mrc_xarray.labels.spacing import voxel_size
from mrc_xarray.storage import name_of, place_of
from mrc_xarray.storage.sink import open_sink
from mrc_xarray.text import printable
from mrc_xarray.writing.arrays import Data, as_data_array
from mrc_xarray.writing.writer import to_mrc

__all__ = ["to_relion"]

Columns = Mapping[str, Sequence[Any] | np.ndarray[Any, Any]]

# texts that begin like them need quotation marks
_MARKS = ("'", '"', "_", "data_", "loop_", ";", "$", "[")


def to_relion(
    obj: Data,
    target: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    storage_options: dict[str, Any] | None = None,
    **options: Any,
) -> None:
    """Write images as a particle set of RELION 3.1 and later: a stack and a table.

    The stack is next to the table, with its name in ``.mrcs``. It is written first, in parallel
    and in the memory of a few chunks, and then the table.

    Parameters
    ----------
    obj : DataArray, Dataset with one data variable, or array
        Images: shape (particle, y, x), with any name of the first dimension except z, or (y, x)
        for one image.
    target : path or URL
        The table, such as ``"Select/particles.star"``.
    root : path, optional
        The folder that the name of the stack is relative to: RELION's project. By default the
        working folder if it contains the table, else the folder of the table.
    overwrite : bool
        Whether to replace existing files.
    storage_options : dict, optional
        Options for fsspec.
    **options
        For the stack, as for `mrc_xarray.to_mrc`, such as ``mode=12``.

    Raises
    ------
    MrcError
        If the data are no images, their pixels are not square, or a coordinate has units or values
        that do not fit RELION's.
    FileExistsError
        If the table or the stack exists and may not be replaced.

    Warns
    -----
    MrcWarning
        If coordinates have no label in RELION, or the pixel size is unknown.

    Notes
    -----
    Coordinates along the first dimension become columns. Their label is ``relion_name`` in their
    attributes, or belongs to their name: ``defocus_u`` to rlnDefocusU, ``angle_rot`` to
    rlnAngleRot. Values are converted to RELION's units, defocus and origins to Å. The pixel size
    is that of the coordinates of the images. Voltage, spherical aberration and amplitude contrast
    come from coordinates, or from the attributes ``voltage_kV``, ``c3_mm`` and
    ``amplitude_contrast``, and are written as optics groups.
    """
    images = _images(obj)
    name = name_of(target, storage_options)
    size = _pixel_size(images, name)
    columns, left_out = table_columns(images)
    optics, of_rows = optics_of(images, columns, size)
    stack, listed = _stack(target, root, storage_options)
    names = [f"{n:06d}@{listed}" for n in range(1, len(images) + 1)]
    text = _text({"optics": optics, "particles": {IMAGE_NAME: names, **of_rows}})
    table = open_sink(target, storage_options, overwrite, None)
    pixels = images.drop_vars([c for c in images.coords if c not in images.dims[-2:]])
    pixels = pixels.drop_attrs(deep=False).rename({images.dims[0]: "image"})
    arguments = {"overwrite": overwrite, "storage_options": storage_options}
    to_mrc(pixels, stack, **(arguments | options))
    try:
        with table.begin(0):
            table.finish(text)
        table.deliver()
    except BaseException:
        table.discard()
        raise
    if left_out:
        listed_names = printable(", ".join(left_out))
        warn(f"{name}: RELION has no label for the coordinates {listed_names}; they are left out")


def _images(obj: Data) -> xr.DataArray:
    """Return the data as images along a first dimension."""
    data = as_data_array(obj)
    if isinstance(obj, np.ndarray) and data.ndim == 3:
        # a list of images, as RELION has no volumes in stacks
        data = data.rename({data.dims[0]: "particle"})
    if data.ndim == 2:
        data = data.expand_dims("particle")
    is_volume = data.ndim == 3 and data.dims[0] == "z"
    if data.ndim != 3 or is_volume or 0 in data.shape or data.dtype.kind not in "iuf":
        shape = ", ".join(f"{dim}: {n}" for dim, n in data.sizes.items())
        hint = ". rename(z='particle') makes images of sections" if is_volume else ""
        raise MrcError(
            f"the data are {data.dtype} of shape ({shape}); accepted: images of real numbers, "
            f"(particle, y, x) or (y, x), and none empty{hint}"
        )
    return data


def _pixel_size(images: xr.DataArray, name: str) -> float | None:
    """Return the size of the square pixels in Å, or None with a warning if it is unknown."""
    sizes = voxel_size(images)
    found = [sizes[str(dim)] for dim in images.dims[-2:] if str(dim) in sizes]
    if len(found) == 2 and not math.isclose(*found, rel_tol=1e-4):
        raise MrcError(
            f"pixels are {found[1]:g} × {found[0]:g} Å; accepted: square ones, as RELION has one "
            "number for them"
        )
    if not found and not {"image_pixel_size"} & {*map(str, images.coords), *images.attrs}:
        warn(
            f"{name}: the pixel size is unknown, and rlnImagePixelSize is left out. RELION needs "
            "it: give y and x coordinates in Å"
        )
    return found[0] if found else None


def _stack(
    target: str | os.PathLike[str],
    root: str | os.PathLike[str] | None,
    storage_options: dict[str, Any] | None,
) -> tuple[str, str]:
    """Return the path or URL of the stack, and its name in the table."""
    path, fs, _ = place_of(target, storage_options)
    stem, suffix = os.path.splitext(path)
    if suffix != ".star":
        raise ValueError(
            f"target is {name_of(target, storage_options)}; accepted: a name in .star"
        )
    stack = f"{stem}.mrcs"
    if fs is not None:
        return stack, posixpath.basename(stack)
    full = os.path.abspath(os.path.expanduser(stack))
    folder = os.path.dirname(full)
    here = os.getcwd()
    if root is None:
        root = here if os.path.commonpath([here, folder]) == here else folder
    return full, os.path.relpath(full, os.path.abspath(os.path.expanduser(root)))


def _text(blocks: Mapping[str, Columns]) -> bytes:
    """Return a STAR file with a table in each block."""
    parts = [f"# Created by mrc_xarray {__version__}\n"]
    for name, columns in blocks.items():
        labels = "".join(f"_{label} #{n}\n" for n, label in enumerate(columns, 1))
        rows = "\n".join(map(" ".join, zip(*map(_texts, columns.values()), strict=True)))
        parts.append(f"\ndata_{name}\n\nloop_\n{labels}{rows}\n\n")
    return "".join(parts).encode()


def _texts(values: Iterable[Any]) -> list[str]:
    """Return the values of a column as STAR has them."""
    listed = values.tolist() if isinstance(values, np.ndarray) else list(values)
    return [_quoted(value) if isinstance(value, str) else repr(value) for value in listed]


def _quoted(text: str) -> str:
    if not text.isprintable() or {"'", '"'} <= set(text):
        raise MrcError(f"{text!r} is not a text that a STAR file can have in a column")
    # starfile takes # for a comment within a text, too
    if text.split() == [text] and "#" not in text and not text.startswith(_MARKS):
        return text
    mark = "'" if '"' in text else '"'
    return f"{mark}{text}{mark}"
