"""What ``ds.mrc`` shows in a notebook or a terminal. It never raises an error or a warning."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import xarray as xr

from mrc_xarray.markup import escaped, table
from mrc_xarray.text import aligned, printable
from mrc_xarray.tools import summary
from mrc_xarray.tools.thumbnail import Thumbnail, thumbnail

__all__ = ["html", "text"]

Rows: TypeAlias = "list[tuple[str, str]]"


# rows, and characters of each, if attributes are full of garbage
_MOST_ROWS, _LONGEST = 60, 500


def text(data: xr.DataArray | None) -> str:
    """Return lines of text about labelled data, from their attributes and coordinates."""
    title, rows = _described(data)
    return "\n".join([f"<{printable(title)}>", *aligned(rows)])


def html(data: xr.DataArray | None) -> str:
    """Return a table about labelled data, next to a picture of the middle section.

    The picture is read as `mrc_xarray.tools.thumbnail.thumbnail` does.
    """
    title, rows = _described(data)
    picture, failed = None, list[str]()
    if data is not None:
        picture, failed = _quietly(lambda: thumbnail(data))
    rows += [("picture", line) for line in failed if picture is None]
    figure = "" if picture is None else _figure(picture)
    return (
        f'<div><div style="margin:2px 0"><b>{escaped(title)}</b></div>'
        f'<div style="display:flex;gap:18px;align-items:flex-start">{figure}{table(rows)}</div>'
        "</div>"
    )


def _figure(picture: Thumbnail) -> str:
    source = f"data:image/png;base64,{base64.b64encode(picture.png).decode()}"
    size = f"width:{picture.width}px;height:{picture.height}px"
    return (
        '<div style="flex:none;margin-top:6px">'
        f'<img alt="middle section" src="{source}" style="{size};margin:0">'
        f'<div style="font-size:.8em;opacity:.75">{escaped(picture.caption)}</div></div>'
    )


def _described(data: xr.DataArray | None) -> tuple[str, Rows]:
    """Return a title and rows about data; a row says what could not be found out."""
    if data is None:
        return "no MRC data: the Dataset has no variable that was opened from a file", []
    found, warned = _quietly(lambda: _rows(data))
    title, rows = found or ("data that can't be described", [])
    rows += [("warning", line) for line in warned]
    more = [("…", f"{len(rows) - _MOST_ROWS} more")] if len(rows) > _MOST_ROWS else []
    return title, [*((name, _clipped(line)) for name, line in rows[:_MOST_ROWS]), *more]


def _rows(data: xr.DataArray) -> tuple[str, Rows]:
    coords = data.coords.variables
    # private: a coordinate may be the result of a computation that was not done yet
    lazy = [name for name, variable in coords.items() if not variable._in_memory]
    found = summary.describe(data.drop_vars(lazy))
    kind = (found["layout"] or "data").replace("_", " ")
    title = f"MRC {kind}" if found["header"] else f"{kind} without an MRC header"
    file = [] if found["file"] is None else [("file", found["file"])]
    return title, [*file, *summary.rows(found)]


def _clipped(line: str) -> str:
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"


def _quietly(work: Callable[[], Any]) -> tuple[Any, list[str]]:
    """Return what `work` returns, and the texts of its warnings; or None, and its error."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = work()
        except Exception as error:
            # of any store, or of attributes that anyone may have made
            return None, [f"{type(error).__name__}: {error}"]
    return result, [str(warning.message) for warning in caught]
