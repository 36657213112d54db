"""What a file contains, at a glance."""

from __future__ import annotations

import json
import math
import os
import warnings
from typing import Any

import xarray as xr

from mrc_xarray.errors import MrcWarning
from mrc_xarray.mrc.fields import FIELDS
from mrc_xarray.mrc.header import Header
from mrc_xarray.mrc.reading import read_header
from mrc_xarray.storage import open_source
from mrc_xarray.text import printable

__all__ = ["summarise", "summarise_header", "table"]

_STATISTICS = ("DMIN", "DMAX", "DMEAN", "RMS")
# bytes whose meaning is in the fields of dialects
_FREE = ("extra1", "extra2")


def summarise(target: str | os.PathLike[str], **options: Any) -> dict[str, Any]:
    """Open a file, and return a summary of it.

    Parameters
    ----------
    target : path or URL
    **options
        As for the engine.

    Returns
    -------
    dict
        Of values that strict JSON can store: numbers that are not finite are None.
    """
    with warnings.catch_warnings():
        # the summary contains the text of the warnings
        warnings.simplefilter("ignore", MrcWarning)
        ds = xr.open_dataset(target, engine="mrc", **options)
    data, header = ds["data"], ds.mrc.header
    attrs = data.attrs
    positions = {str(dim): ds[dim][0] for dim in data.dims if dim in ds.coords}
    # any coordinate can be stored in an MRCZ file
    first = {dim: float(at) for dim, at in positions.items() if at.dtype.kind in "iuf"}
    keys = ("codec", "chunk_version", "ratio", "blocks")
    compression = {key: attrs[f"mrcz_{key}"] for key in keys if f"mrcz_{key}" in attrs}
    return {
        "file": str(attrs["mrc_source"]),
        "size_on_disk": open_source(target, options.get("storage_options")).size,
        "shape": {str(dim): n for dim, n in data.sizes.items()},
        "dtype": str(data.dtype),
        "mode": header.mode,
        "mode0_assumption": attrs.get("mode0_assumption"),
        "byteorder": "little" if header.byteorder == "<" else "big",
        "layout": attrs["mrc_layout"],
        "layout_rule": attrs["mrc_layout_rule"],
        "voxel_size_angstrom": ds.mrc.voxel_size,
        "first_voxel": {dim: at if math.isfinite(at) else None for dim, at in first.items()},
        "units": {dim: str(ds[dim].attrs.get("units", "")) for dim in first},
        "extended_header": {"type": header.exttyp.strip(" \0"), "nsymbt": header.nsymbt},
        "stream": attrs.get("mrc_stream"),
        "compression": compression or None,
        "labels": [text.strip() for text in header.texts],
        "repaired_or_assumed": json.loads(attrs.get("mrc_repairs", "[]")),
        "header": json.loads(attrs["mrc_header"]),
    }


def summarise_header(target: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Return the header of a file that can't be opened, and its problems.

    None if the file has no header, or opens without a problem.
    """
    try:
        # as the problems name it
        header, name = read_header(target), printable(open_source(target).name)
    except Exception:
        # the library of a store may raise any error
        return None
    if not header.problems:
        return None
    return {
        "file": name,
        "problems": [text.removeprefix(f"{name}: ") for text in header.problems],
        "header": json.loads(header.to_json()),
    }


def table(summary: dict[str, Any], *, every_field: bool = False) -> str:
    """Return a summary as a table for people, and `every_field` of the header.

    Of a file that can't be opened, these are the problems and the header.
    """
    is_opened = "shape" in summary
    rows = _rows(summary) if is_opened else [("problem", text) for text in summary["problems"]]
    if every_field or not is_opened:
        rows += _header_rows(Header.from_json(json.dumps(summary["header"])), every_field)
    width = max(len(name) for name, _ in rows)
    lines = [summary["file"], *(f"  {name:<{width}}  {text}".rstrip() for name, text in rows)]
    return "\n".join(map(printable, lines))


def _header_rows(header: Header, every_field: bool) -> list[tuple[str, str]]:
    """Return the fields of a header: those of MRC2014, or all that have a name."""
    rows = []
    for field in FIELDS:
        if field.name == "label":
            rows += [(f"LABEL {n}", text) for n, text in enumerate(header.label, 1) if text]
        elif every_field or not (field.dialect or field.name in _FREE):
            rows.append((field.name.upper(), header.shown(field.name)))
    return rows


def _rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what a table says about a file that was opened."""
    units = {dim: unit.replace("angstrom", "Å") for dim, unit in summary["units"].items()}
    voxel = [f"{dim} {size:.6g} Å" for dim, size in summary["voxel_size_angstrom"].items()]
    first = [
        f"{dim} {at:.6g} {units[dim]}".rstrip()
        for dim, at in summary["first_voxel"].items()
        if at is not None
    ]
    rows = [
        ("shape", " × ".join(f"{n} {dim}" for dim, n in summary["shape"].items())),
        ("type", "{dtype} (MODE {mode}, {byteorder}-endian)".format(**summary)),
        ("voxel size", ", ".join(voxel) or "unknown"),
        ("first voxel at", ", ".join(first) or "unknown"),
        ("layout", "{layout} ({layout_rule})".format(**summary)),
        ("statistics", _statistics(Header.from_json(json.dumps(summary["header"])))),
        ("size on disk", _bytes(summary["size_on_disk"])),
    ]
    if nsymbt := summary["extended_header"]["nsymbt"]:
        kind = summary["extended_header"]["type"] or "no type"
        rows.append(("ext. header", f"{kind}, {_bytes(nsymbt)}"))
    if summary["stream"]:
        rows.append(("stream", f"{summary['stream']}, decoded when it is read"))
    if compression := summary["compression"]:
        text = "{codec}, chunk version {chunk_version}, ratio {ratio:.2f}, {blocks} blocks"
        rows.append(("compression", text.format(**compression)))
    if summary["mode0_assumption"]:
        rows.append(("8-bit data", summary["mode0_assumption"]))
    rows += [("label", text) for text in summary["labels"]]
    return rows + [("repaired", text) for text in summary["repaired_or_assumed"]]


def _statistics(header: Header) -> str:
    """Return the statistics in a header; see ``docs/reference/format.md#header``."""
    shown = ", ".join(f"{name} {header[name]:g}" for name in _STATISTICS)
    is_known = header.dmin <= header.dmax
    return shown if is_known else f"{shown} (undetermined)"


def _bytes(n: int) -> str:
    power = min(int(math.log2(n)) // 10, 4) if n > 0 else 0
    unit = ("bytes", "KiB", "MiB", "GiB", "TiB")[power]
    return f"{n} bytes" if power == 0 else f"{n / 1024**power:.1f} {unit} ({n} bytes)"
