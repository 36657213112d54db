"""Sidecars built by hand, and their metadata in a form that is easy to compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mrc_xarray.errors import Problem
from mrc_xarray.metadata.columns import Column, Metadata
from mrc_xarray.metadata.files import ImageFile, TextFile


def only(problems: Sequence[Problem]) -> str:
    assert len(problems) == 1
    return problems[0].message("a.mrc")


def columns(metadata: Metadata) -> dict[str, Column]:
    return {column.name: column for column in metadata.columns}


def plain(metadata: Metadata) -> dict[str, object]:
    return {name: value.value for name, value in metadata.values.items()}


def units(metadata: Metadata) -> dict[str, str]:
    by_value = {name: value.units for name, value in metadata.values.items()}
    return by_value | {column.name: column.units for column in metadata.columns}


def text_file(content: str | bytes, name: str) -> TextFile:
    return TextFile(name, content if isinstance(content, bytes) else content.encode())


def image_file(name: str, n_sections: int, **options: Any) -> ImageFile:
    return ImageFile(name=name, **({"n_sections": n_sections, "n_promised": n_sections} | options))
