"""References to the pixels of MRC files, as a Zarr group without a copy of any pixel."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import xarray as xr

from mrc_xarray.bridges.joined import alone, joined
from mrc_xarray.errors import warn
from mrc_xarray.storage import Target, redacted

__all__ = ["references"]

# files that are opened at the same time, if a store may have them
_REQUESTS = 16

References: TypeAlias = "dict[str, int | dict[str, str | list[str | int]]]"


def references(target: Target | Iterable[Target], dim: Any = None, **options: Any) -> References:
    """Return references to the pixels of one file or many, as a Zarr-3 group.

    Any reader of Zarr 3 can use them through fsspec's reference file system, without this
    package: ``xr.open_zarr("reference://", storage_options={"fo": references("tomo.mrc")})``. The
    Dataset is the same as that of the engine. Only the headers of the files are read.

    Parameters
    ----------
    target : path, URL, or iterable of these
        MRC and MRCZ files. An absolute path or a URL is stored for each, without user, password
        and query string. Pass these to fsspec when you read the references.
    dim : str, Variable, DataArray or Index, optional
        The dimension along which files are concatenated, as for `xarray.concat`: the name of a
        new dimension or of one of the files, or a coordinate for the new one.
    **options
        Arguments of the engine, such as ``layout`` or ``storage_options``; and ``engine="dm"``
        for files of DigitalMicrograph.

    Returns
    -------
    dict
        ``{"version": 1, "refs": {key: text, or [path or URL, first byte, number of bytes]}}``,
        which `json.dump` can write. The size is about 100 bytes per chunk. A chunk is a block of
        MRCZ, or uncompressed sections of about 4 MiB in total.

    Raises
    ------
    MrcError
        If a file can't be read, the pixels of a file are not byte ranges that Zarr can decode, or
        the files do not fit together.

    Notes
    -----
    A file that is changed afterwards is not noticed, and has wrong pixels.
    """
    files: list[Any] = _listed(target)
    if not files:
        raise ValueError("target is empty; accepted: at least one file")
    if dim is None and len(files) > 1:
        raise ValueError(
            f"dim is None; accepted for {len(files)} files: the dimension to join them along"
        )
    datasets = _all_opened(files, options)
    pixels = alone(datasets[0]) if dim is None else joined(datasets, dim)
    refs: dict[str, Any] = {
        key: document.decode() if key.endswith("zarr.json") else _base64(document)
        for key, document in pixels.documents().items()
    }
    refs["zarr.json"] = _consolidated(refs)
    for index, name, offset, nbytes in pixels.chunks():
        refs["/".join(("data/c", *map(str, index)))] = [name, offset, nbytes]
    return {"version": 1, "refs": refs}


def _listed(target: Any) -> list[Any]:
    # a file object is iterable, too
    single = (str, bytes, bytearray, memoryview, os.PathLike, xr.Dataset, xr.DataArray)
    is_one = isinstance(target, single) or hasattr(target, "read")
    return [target] if is_one or not isinstance(target, Iterable) else list(target)


def _all_opened(files: list[Any], options: dict[str, Any]) -> list[xr.Dataset]:
    if len(files) == 1 or not any("://" in str(file) for file in files):
        # without threads, a warning names the line of the user's code
        return [_opened(file, options) for file in files]
    with ThreadPoolExecutor(_REQUESTS) as pool:
        return list(pool.map(lambda file: _opened(file, options), files))


def _opened(file: Target, options: dict[str, Any]) -> xr.Dataset:
    if isinstance(file, str) and redacted(file) != file:
        warn(
            f"{redacted(file)}: references have the URL without user, password, query string and "
            "fragment. Pass these to fsspec when the references are read"
        )
    chosen = {"engine": "mrc"} | options
    return xr.open_dataset(file, chunks=None, **chosen)  # type: ignore[arg-type]  # of the engine


def _base64(chunk: bytes) -> str:
    return "base64:" + base64.b64encode(chunk).decode()


def _consolidated(refs: Mapping[str, Any]) -> str:
    """Return the document of the group with those of its arrays, which readers need not list."""
    group = json.loads(refs["zarr.json"])
    found = {
        key.removesuffix("/zarr.json"): json.loads(text)
        for key, text in refs.items()
        if key.endswith("/zarr.json")
    }
    inline = {"kind": "inline", "must_understand": False, "metadata": found}
    return json.dumps(group | {"consolidated_metadata": inline})


def for_parquet(references: Mapping[str, Any]) -> References:
    """Return the same references in the form that ``kerchunk.df.refs_to_dataframe`` takes.

    kerchunk's parquet files have one reference per row, in the order of the chunks. So chunks have
    the keys of Zarr 2, which Zarr 3 also defines, and the shapes of array and chunk are repeated
    under the key that kerchunk expects. The metadata of all arrays are in the document of the
    group alone, since kerchunk does not know ``zarr.json`` in an array.
    """
    refs = references["refs"]
    group = json.loads(refs["zarr.json"])
    result: dict[str, Any] = {}
    for name, array in group["consolidated_metadata"]["metadata"].items():
        chunk = array["chunk_grid"]["configuration"]["chunk_shape"]
        array["chunk_key_encoding"] = {"name": "v2", "configuration": {"separator": "."}}
        result[f"{name}/.zarray"] = json.dumps({"shape": array["shape"], "chunks": chunk})
    result["zarr.json"] = json.dumps(group)
    for key, value in refs.items():
        name, _, place = key.partition("/c")
        if f"{name}/.zarray" in result and not key.endswith("zarr.json"):
            result[f"{name}/{place.strip('/').replace('/', '.') or '0'}"] = value
    return {"version": 1, "refs": result}
