"""HTML for notebooks: tables whose text is escaped, in the colours of the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from mrc_xarray.text import printable

__all__ = ["escaped", "table"]

# a notebook's own style aligns cells to the right, and colours every second row
_CELL = "text-align:left;vertical-align:top;padding:1px 14px 1px 0;border:0"
_VALUE = f"{_CELL};overflow-wrap:anywhere"
_NAME = f"{_CELL};white-space:nowrap;font-weight:600"
_REST = f"{_CELL};opacity:.75"


def escaped(text: str) -> str:
    """Return text for HTML, with control characters as escapes."""
    return escape(printable(text))


def table(rows: Iterable[Sequence[str]]) -> str:
    """Return a table of rows of text: name, value, and a remark in a fainter colour, if any."""
    lines = []
    for name, value, *remarks in rows:
        remark = "".join(f'<td style="{_REST}">{escaped(text)}</td>' for text in remarks if text)
        span = "" if remark else ' colspan="2"'
        lines.append(
            f'<tr style="background:none"><td style="{_NAME}">{escaped(name)}</td>'
            f'<td style="{_VALUE}"{span}>{escaped(value)}</td>{remark}</tr>'
        )
    return f'<table style="border:0;margin:4px 0;font-size:.9em">{"".join(lines)}</table>'
