"""What a user wants to know of a file at a glance."""

from __future__ import annotations

import json
import math
import os
import warnings
from typing import Any

import xarray as xr

from mrc_xarray.errors import MrcWarning
from mrc_xarray.storage import open_source
from mrc_xarray.text import printable

__all__ = ["summarise", "table"]


def summarise(target: str | os.PathLike[str], **options: Any) -> dict[str, Any]:
    """Open a file and tell what it is.

    Parameters
    ----------
    target : path or URL
    **options
        As for the engine.

    Returns
    -------
    dict
        Of strings, numbers, lists and dicts, which strict JSON can hold: what is not finite is
        None.
    """
    with warnings.catch_warnings():
        # they are told in the summary
        warnings.simplefilter("ignore", MrcWarning)
        ds = xr.open_dataset(target, engine="mrc", **options)
    data, header = ds["data"], ds.mrc.header
    first = {str(dim): float(ds[dim][0]) for dim in data.dims if dim in ds.coords}
    summary = {
        "file": str(data.attrs["mrc_source"]),
        "size_on_disk": open_source(target, options.get("storage_options")).size,
        "shape": {str(dim): n for dim, n in data.sizes.items()},
        "dtype": str(data.dtype),
        "mode": header.mode,
        "mode0_assumption": data.attrs.get("mode0_assumption"),
        "byteorder": "little" if header.byteorder == "<" else "big",
        "layout": data.attrs["mrc_layout"],
        "layout_rule": data.attrs["mrc_layout_rule"],
        "voxel_size_angstrom": ds.mrc.voxel_size,
        "first_voxel": first,
        "units": {d: ds[d].attrs["units"] for d in first},
        "extended_header": {"type": header.exttyp.strip(" \0"), "nsymbt": header.nsymbt},
        "stream": data.attrs.get("mrc_stream"),
        "compression": _compression(data),
        "labels": [text.strip() for text in header.label if text.strip(" \0")],
        "repaired_or_assumed": json.loads(data.attrs.get("mrc_repairs", "[]")),
        "header": json.loads(data.attrs["mrc_header"]),
    }
    finite: dict[str, Any] = _finite(summary)
    return finite


def table(summary: dict[str, Any]) -> str:
    """Lay out what `summarise` tells for a reader."""
    voxel = summary["voxel_size_angstrom"]

    def unit(dim: str) -> str:
        written: str = summary["units"][dim]
        return "Å" if written == "angstrom" else written

    shape = " × ".join(f"{n} {dim}" for dim, n in summary["shape"].items())
    mode = f"{summary['dtype']} (MODE {summary['mode']}, {summary['byteorder']}-endian)"
    extended = summary["extended_header"]
    rows = [
        ("shape", shape),
        ("type", mode),
        ("voxel size", ", ".join(f"{d} {v:.6g} Å" for d, v in voxel.items()) or "unknown"),
        (
            "first voxel at",
            ", ".join(f"{d} {v:.6g} {unit(d)}" for d, v in summary["first_voxel"].items())
            or "unknown",
        ),
        ("layout", f"{summary['layout']}, by rule {summary['layout_rule']}"),
        ("size on disk", _bytes(summary["size_on_disk"])),
    ]
    if extended["nsymbt"]:
        kind = extended["type"] or "unnamed"
        rows.append(("ext. header", f"{kind}, {_bytes(extended['nsymbt'])}"))
    if summary["stream"]:
        rows.append(("stream", f"{summary['stream']}, decoded as it is read"))
    if mrcz := summary["compression"]:
        told = "{codec}, chunk version {chunk_version}, ratio {ratio:.2f}, {blocks} blocks"
        rows.append(("compression", told.format(**mrcz)))
    if summary["mode0_assumption"]:
        rows.append(("8-bit data", summary["mode0_assumption"]))
    rows += [("label", text) for text in summary["labels"]]
    rows += [("repaired", text) for text in summary["repaired_or_assumed"]]
    width = max(len(name) for name, _ in rows)
    lines = [summary["file"], *(f"  {name:<{width}}  {text}" for name, text in rows)]
    return "\n".join(map(printable, lines))


def _compression(data: xr.DataArray) -> dict[str, Any] | None:
    if "mrcz_codec" not in data.attrs:
        return None
    keys = ("codec", "chunk_version", "ratio", "blocks")
    return {key: data.attrs[f"mrcz_{key}"] for key in keys}


def _bytes(n: int) -> str:
    power = min(int(math.log2(n)) // 10, 4) if n > 0 else 0
    unit = ("bytes", "KiB", "MiB", "GiB", "TiB")[power]
    return f"{n} bytes" if power == 0 else f"{n / 1024**power:.1f} {unit} ({n} bytes)"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
