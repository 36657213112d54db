"""Read a table of RELION: where its images are, and what its columns say about them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mrc_xarray.errors import MrcError, Problem
from mrc_xarray.metadata import limits
from mrc_xarray.metadata.columns import Column, Value
from mrc_xarray.options import OpenOptions
from mrc_xarray.pixels.gathered import Gathered
from mrc_xarray.recording import Dimension, Recording
from mrc_xarray.relion.images import Kind, Places, choose, kind_of, places
from mrc_xarray.relion.labels import is_number, is_text, unique_names, unit_of
from mrc_xarray.relion.optics import merged, pixel_sizes
from mrc_xarray.relion.project import folder_of
from mrc_xarray.relion.stacks import Form, StackFiles
from mrc_xarray.relion.star import read_star
from mrc_xarray.storage import ByteSource
from mrc_xarray.voxel_size import VoxelSize

__all__ = ["read"]

Array = np.ndarray[Any, Any]


def read(
    source: ByteSource,
    options: OpenOptions,
    root: str | os.PathLike[str] | None = None,
    column: str | None = None,
) -> Recording:
    """Read a table, and the header of the first file that it names.

    Parameters
    ----------
    source : ByteSource
    options : OpenOptions
        `mode0`, `truncated` and `strict` are for the files.
    root : path or URL, optional
        The folder that names are relative to; see `folder_of`.
    column : str, optional
        The label of the column that names the files, or the name of its coordinate.

    Raises
    ------
    MrcError
        If the table is malformed, or names no images.
    FileNotFoundError
        If the first file is missing.
    """
    blocks = read_star(source, is_text, is_number)
    block, label = choose(source.name, blocks, column)
    kind = kind_of(label, block.columns)
    placed = places(source.name, label, block.columns[label])
    columns, values = merged(source.name, block, blocks)
    folder = folder_of(source, placed.files, root, options.storage_options)
    chosen = _options_of_files(options, kind, placed)
    files = StackFiles(source.name, label, folder, placed, chosen)
    first, _ = files.read(0)
    files = replace(files, form=Form.of(first, are_files=placed.are_files))
    size = pixel_sizes(columns | values, kind.pixel_sizes, is_binned=kind.sections == "z")
    leading = _leading(source.name, first, kind, placed)
    dims, problems = _in_space((*leading, *first.frame), size, options.voxel_size)
    return Recording(
        name=source.name,
        sections=_gathered(first, files, placed),
        dims=(Dimension(name=kind.dim, size=block.n_rows), *dims),
        columns=_columns(columns, size),
        values=_values(values),
        attrs={"relion_column": label},
        problems=problems,
    )


def _values(found: Mapping[str, Any]) -> dict[str, Value]:
    """Return the values of optics by the names of attributes."""
    names = unique_names(found)
    return {
        names[label]: Value(value if isinstance(value, str) else value.item(), unit_of(label))
        for label, value in found.items()
    }


def _options_of_files(options: OpenOptions, kind: Kind, placed: Places) -> OpenOptions:
    is_stack = not placed.are_files or kind.sections == "frame"
    layout = "image_stack" if is_stack else "volume" if kind.sections == "z" else "auto"
    return OpenOptions(
        layout=layout,
        mode0=options.mode0,
        truncated=options.truncated,
        strict=options.strict,
        metadata_file=None,
        scan_file=None,
    )


def _leading(table: str, first: Recording, kind: Kind, placed: Places) -> tuple[Dimension, ...]:
    """Return the dimension that counts the sections of one item, if it has several."""
    n_sections = first.sections.shape[0]
    if not placed.are_files or (n_sections == 1 and not kind.sections):
        return ()
    if len(first.leading) > 1:
        listed = " × ".join(f"{dim.size} ({dim.name})" for dim in first.leading)
        raise MrcError(f"{table}: {first.name} has {listed} sections; accepted: one dimension")
    is_volume = first.leading and first.leading[0].name == "z"
    name = kind.sections or ("z" if is_volume else "frame")
    return (Dimension(name=name, size=n_sections),)


def _in_space(
    dims: Sequence[Dimension], size: Array | float | None, given: VoxelSize | None
) -> tuple[tuple[Dimension, ...], tuple[Problem, ...]]:
    """Return the dimensions of an item with their steps: those that the user gives, or one."""
    in_space = {dim.name: dim.size for dim in dims if dim.name in "xyz"}
    steps = {name: size if isinstance(size, float) else None for name in in_space}
    if given is not None:
        found = given.along({name: name for name in in_space}, partly=True)
        steps |= {name: step.size for name, step in found.items() if step.is_length}
    known = {name: n for name, n in in_space.items() if steps[name] is not None}
    too_long, problems = limits.too_long(known, (), field="the size")
    steps |= dict.fromkeys(too_long)
    return tuple(
        Dimension(name=dim.name, size=dim.size, step=steps.get(dim.name)) for dim in dims
    ), tuple(problems)


def _columns(columns: Mapping[str, Array], size: Array | float | None) -> tuple[Column, ...]:
    names = unique_names(columns)
    found = [
        Column(names[label], values, unit_of(label), attrs={"relion_name": label})
        for label, values in columns.items()
    ]
    if isinstance(size, np.ndarray) and all(values is not size for values in columns.values()):
        # it was calculated
        found.append(Column("pixel_size", size, "angstrom"))
    return tuple(found)


def _gathered(first: Recording, files: StackFiles, placed: Places) -> Gathered:
    sections, n_items = first.sections, len(placed.file)
    per_item = sections.shape[0] if placed.are_files else 1
    return Gathered(
        offset=0,
        shape=(n_items * per_item, *sections.shape[1:]),
        mode=sections.mode,
        byteorder=sections.byteorder,
        stacks=files,
        stack=placed.file,
        first=placed.first,
        per_item=per_item,
    )
