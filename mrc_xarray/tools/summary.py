"""What a file contains, at a glance."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from typing import Any

import xarray as xr
from xarray.backends import list_engines

from mrc_xarray.errors import MrcWarning
from mrc_xarray.labels.source_name import SourceName
from mrc_xarray.labels.spacing import as_float, voxel_size
from mrc_xarray.mrc.header import Header
from mrc_xarray.mrc.header_json import every_field
from mrc_xarray.mrc.header_table import rows as header_rows
from mrc_xarray.mrc.reading import read_header
from mrc_xarray.storage import Target, open_source
from mrc_xarray.storage.base import InStore
from mrc_xarray.suffixes import DM_SUFFIXES, stem_and_suffix
from mrc_xarray.text import aligned, printable
from mrc_xarray.units import angstroms_per
from mrc_xarray.writing.provenance import Provenance

__all__ = ["describe", "engine_of", "rows", "shown_size", "summarise", "summarise_header", "table"]

_STATISTICS = ("DMIN", "DMAX", "DMEAN", "RMS")
_COMPRESSION: dict[str, Callable[[Any], str]] = {
    "codec": "{}".format,
    "chunk_version": "chunk version {}".format,
    "ratio": "ratio {:.2f}".format,
    "blocks": "{} blocks".format,
}


def summarise(target: Target, **options: Any) -> dict[str, Any]:
    """Open a file, and return a summary of it.

    Parameters
    ----------
    target : path, URL or file in a store
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
        engine = engine_of(target.name if isinstance(target, InStore) else target)
        ds = xr.open_dataset(target, engine=engine, **options)  # type: ignore[arg-type]
    size = open_source(target, options.get("storage_options")).size
    return describe(ds["data"]) | {"size_on_disk": size}


def engine_of(target: Any) -> str:
    """Return "dm" for a DM file, by its suffix or the content of a local file; else "mrc"."""
    is_named = isinstance(target, str) and stem_and_suffix(target)[1] in DM_SUFFIXES
    return "dm" if is_named or list_engines()["dm"].guess_can_open(target) else "mrc"


def describe(data: xr.DataArray) -> dict[str, Any]:
    """Return what `summarise` does of labelled data, by their attributes and coordinates.

    No file is read. What the data do not say is None; only data of MRC files have a header.
    """
    provenance = Provenance.of(data)
    attrs, header = provenance.attrs, provenance.header
    coords = {str(dim): data.coords[dim] for dim in data.dims if dim in data.coords}
    positions = {dim: coord[0] for dim, coord in coords.items() if coord.size}
    # any coordinate can be stored in an MRCZ file
    first = {dim: float(at) for dim, at in positions.items() if at.dtype.kind in "iuf"}
    compression = {k: attrs[f"mrcz_{k}"] for k in _COMPRESSION if f"mrcz_{k}" in attrs}
    source = attrs.get("mrc_source")
    found: dict[str, Any] = {
        "file": None if source is None else str(source),
        "size_on_disk": source.stored_size if isinstance(source, SourceName) else None,
        "shape": {str(dim): n for dim, n in data.sizes.items()},
        "dtype": str(data.dtype),
        "mode": None,
        "mode0_assumption": attrs.get("mode0_assumption"),
        "byteorder": None,
        "layout": attrs.get("mrc_layout"),
        "layout_rule": attrs.get("mrc_layout_rule"),
        "voxel_size_angstrom": voxel_size(data),
        "first_voxel": {dim: at if math.isfinite(at) else None for dim, at in first.items()},
        "units": {dim: str(coords[dim].attrs.get("units", "")) for dim in first},
        "steps": {dim: step for dim, coord in coords.items() if (step := _step(coord))},
        "extended_header": None,
        "stream": attrs.get("mrc_stream"),
        "compression": compression or None,
        "labels": [],
        "repaired_or_assumed": json.loads(attrs.get("mrc_repairs", "[]")),
        "header": None,
    }
    return found if header is None else found | _of_header(header)


def _step(coord: xr.DataArray) -> str:
    """Return the step of a coordinate and its unit, if that is no length; or an empty string."""
    unit = coord.attrs.get("units", "")
    if "spacing" not in coord.attrs or angstroms_per(unit) is not None:
        return ""
    return f"{as_float(coord.attrs['spacing']):.6g} {unit}".rstrip()


def _of_header(header: Header) -> dict[str, Any]:
    return {
        "mode": header.mode,
        "byteorder": "little" if header.byteorder == "<" else "big",
        "extended_header": {"type": header.exttyp.strip(" \0"), "nsymbt": header.nsymbt},
        "labels": [text.strip() for text in header.texts],
        "header": every_field(header),
    }


def summarise_header(target: Target) -> dict[str, Any] | None:
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
        "header": every_field(header),
    }


def table(summary: dict[str, Any], *, every_field: bool = False) -> str:
    """Return a summary as a table for people, and `every_field` of the header.

    Of a file that can't be opened, these are the problems and the header.
    """
    is_opened = "shape" in summary
    found = rows(summary) if is_opened else [("problem", text) for text in summary["problems"]]
    if summary["header"] and (every_field or not is_opened):
        header = Header.from_json(json.dumps(summary["header"]))
        fields = header_rows(header, every_field=every_field)
        found += [(name, value) for name, value, _ in fields]
    return "\n".join([printable(summary["file"]), *aligned(found)])


def rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the names and texts of what a summary says about data, except for the file's name."""
    kind = "{dtype} (MODE {mode}, {byteorder}-endian)" if summary["header"] else "{dtype}"
    found = [
        ("shape", " × ".join(f"{n} {dim}" for dim, n in summary["shape"].items()) or "one number"),
        ("type", kind.format(**summary)),
        ("voxel size", _voxel_size(summary["voxel_size_angstrom"])),
        ("first voxel at", _first_voxel(summary)),
    ]
    if steps := summary["steps"]:
        found.append(("step", ", ".join(f"{dim} {step}" for dim, step in steps.items())))
    if summary["layout"]:
        found.append(("layout", "{layout} ({layout_rule})".format(**summary)))
    if summary["header"]:
        header = summary["header"]
        n_voxels = header["nx"] * header["ny"] * header["nz"]
        is_file = math.prod(summary["shape"].values()) == n_voxels
        found.append(("statistics", _statistics(header) + " of the file" * (not is_file)))
    if summary["size_on_disk"] is not None:
        found.append(("size on disk", _bytes(summary["size_on_disk"])))
    if summary["extended_header"] and (nsymbt := summary["extended_header"]["nsymbt"]):
        kind = summary["extended_header"]["type"] or "no type"
        found.append(("ext. header", f"{kind}, {_bytes(nsymbt)}"))
    if summary["stream"]:
        found.append(("stream", f"{summary['stream']}, decoded when it is read"))
    if compression := summary["compression"]:
        texts = (_COMPRESSION[key](value) for key, value in compression.items())
        found.append(("compression", ", ".join(texts)))
    if summary["mode0_assumption"]:
        found.append(("8-bit data", summary["mode0_assumption"]))
    found += [("label", text) for text in summary["labels"]]
    repaired = (str(text) for text in summary["repaired_or_assumed"])
    return found + [("repaired", text.removeprefix(f"{summary['file']}: ")) for text in repaired]


def _voxel_size(sizes: dict[str, float]) -> str:
    """Return the voxel size in Å and nm."""
    if not sizes:
        return "unknown"
    in_angstrom = ", ".join(f"{dim} {size:.6g} Å" for dim, size in sizes.items())
    in_nm = " × ".join(dict.fromkeys(f"{size / 10:.6g}" for size in sizes.values()))
    return f"{in_angstrom} ({in_nm} nm)"


def _first_voxel(summary: dict[str, Any]) -> str:
    units = {dim: unit.replace("angstrom", "Å") for dim, unit in summary["units"].items()}
    first = [
        f"{dim} {at:.6g} {units[dim]}".rstrip()
        for dim, at in summary["first_voxel"].items()
        if at is not None
    ]
    return ", ".join(first) or "unknown"


def _statistics(header: dict[str, Any]) -> str:
    """Return the statistics in a header; see ``docs/reference/format.md#header``."""
    found = {name: float(header[name.lower()]) for name in _STATISTICS}
    shown = ", ".join(f"{name} {value:g}" for name, value in found.items())
    return shown if found["DMIN"] <= found["DMAX"] else f"{shown} (undetermined)"


def shown_size(n: int) -> str:
    """Return a number of bytes in a unit that suits it."""
    power = min(int(math.log2(n)) // 10, 4) if n > 0 else 0
    unit = ("bytes", "KiB", "MiB", "GiB", "TiB")[power]
    return f"{n} bytes" if power == 0 else f"{n / 1024**power:.1f} {unit}"


def _bytes(n: int) -> str:
    return f"{shown_size(n)} ({n} bytes)" if n >= 1024 else shown_size(n)
