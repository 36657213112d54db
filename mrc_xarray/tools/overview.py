"""Many files at a glance: a table with one line for each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mrc_xarray.storage import redacted
from mrc_xarray.storage.base import InStore
from mrc_xarray.storage.listing import matching
from mrc_xarray.text import printable
from mrc_xarray.tools.summary import shown_size, summarise

__all__ = ["files_of", "name_of", "overview"]

_COLUMNS = ("file", "layout", "shape", "type", "voxel size", "size", "notes")
_WIDEST = 80


def files_of(patterns: Iterable[str]) -> Iterator[str | InStore]:
    """Yield the files that match patterns; a pattern that matches no file is the name of one."""
    for pattern in patterns:
        try:
            found = matching(pattern)
        except Exception:
            # the library of a store may raise any error, and opening the name raises it again
            yield pattern
        else:
            yield from found


def name_of(file: str | InStore) -> str:
    """Return the name of a file for messages, without secrets."""
    return file.name if isinstance(file, InStore) else redacted(file)


def overview(
    patterns: Iterable[str], explain: Callable[[Exception, str], str], **options: Any
) -> tuple[str, int]:
    """Return a table of files, and how many of them can't be opened.

    Parameters
    ----------
    patterns : iterable of str
        Paths and URLs, which can contain ``*``.
    explain : callable
        (error, name): the text about a file that can't be opened.
    **options
        As for the engine.
    """
    rows: list[tuple[str, ...]] = [_COLUMNS]
    n_failed = 0
    for file in files_of(patterns):
        try:
            rows.append((name_of(file), *_cells(summarise(file, **options))))
        except Exception as error:
            name = name_of(file)
            why = explain(error, name)
            for beginning in (name, os.path.abspath(name)):
                why = why.removeprefix(f"{printable(beginning)}: ")
            rows.append((name, f"error: {why}"))
            n_failed += 1
    return "\n".join(_lines(rows)), n_failed


def _cells(summary: dict[str, Any]) -> tuple[str, ...]:
    """Return the columns of a file after its name."""
    sizes = [f"{size:.4g}" for size in summary["voxel_size_angstrom"].values()]
    voxel = " × ".join(sizes[:1] if len(set(sizes)) == 1 else sizes)
    n_repairs = len(summary["repaired_or_assumed"])
    notes = (
        f"{summary['stream']} stream" if summary["stream"] else "",
        str((summary["compression"] or {}).get("codec", "")),
        f"{n_repairs} repaired or assumed" if n_repairs else "",
    )
    return (
        (summary["layout"] or "").replace("_", " "),
        " × ".join(map(str, summary["shape"].values())),
        summary["dtype"],
        f"{voxel} Å" if voxel else "unknown",
        shown_size(summary["size_on_disk"]),
        ", ".join(filter(None, notes)),
    )


def _lines(rows: list[tuple[str, ...]]) -> Iterator[str]:
    """Yield rows with aligned columns; the text about an error is not aligned."""
    texts = [tuple(map(printable, row)) for row in rows]
    complete = [row for row in texts if len(row) == len(_COLUMNS)]
    widths = [max(map(len, column)) for column in zip(*complete, strict=True)]
    widths[0] = min(max(len(row[0]) for row in texts), _WIDEST)
    for row in texts:
        padded = (text.ljust(width) for text, width in zip(row, widths, strict=False))
        yield "  ".join(padded).rstrip()
