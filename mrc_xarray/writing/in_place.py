"""Plan to change an existing file in place: to fill a region of it, or to append to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import xarray as xr

from mrc_xarray.errors import MrcError
from mrc_xarray.mrc.header import Header
from mrc_xarray.mrc.reading import MrcFile, inspect
from mrc_xarray.pixels.statistics import UNDETERMINED, Statistics
from mrc_xarray.storage.locks import Lock
from mrc_xarray.storage.sink import InPlace
from mrc_xarray.writing.backing import is_read_from
from mrc_xarray.writing.live import LiveFile
from mrc_xarray.writing.options import WriteOptions
from mrc_xarray.writing.plan import Plan

__all__ = ["plan_in_place"]


def plan_in_place(
    data: xr.DataArray,
    path: str,
    options: WriteOptions,
    lock: Lock,
    *,
    is_labelled: bool,
    is_delayed: bool,
) -> Plan:
    """Plan to fill a region of an existing file, or to append to it, while `lock` is held on it.

    `is_labelled` is whether the user has named the dimensions of `data`, and `is_delayed` whether
    the file is written later, and locked again then.
    """
    live = LiveFile.open(path, lock)
    if is_read_from(data, path):
        raise MrcError(
            f"{path}: the data would be read from this file while it is changed, and could be a "
            "mixture of old and new pixels. Load them first, with data.load().copy(deep=True), or "
            "write a new file"
        )
    file = inspect(live)
    sizes = _sizes(file, options.append_dim)
    _check_data(data, file, sizes, options.mode, is_labelled=is_labelled)
    sink = InPlace(path, live.size, live.head, live.node, locks=is_delayed)
    header, region, known = file.header, options.region or {}, None
    if options.append_dim is not None:
        _check_can_grow(live, file, sizes, options.append_dim)
        n_old, n_new = sizes[options.append_dim], sizes[options.append_dim] + len(data)
        sizes[options.append_dim] = n_new
        region = {options.append_dim: slice(n_old, n_new)}
        header = _lengthened(file, file.sections.shape[0] // n_old * n_new)
        grows_to = file.sections.offset + file.sections.nbytes // n_old * n_new
        sink = replace(sink, grows_to=grows_to)
        if options.statistics is True:
            known = _known_statistics(file)
    return Plan(
        sink=sink,
        header=header.replaced(**UNDETERMINED),
        mode=file.sections.mode,
        shape=tuple(sizes.values()),
        dtype=data.dtype,
        start=_start(data, file, sizes, region),
        statistics=options.statistics,
        known=known,
        offset=file.sections.offset,
    )


def _sizes(file: MrcFile, append_dim: str | None) -> dict[str, int]:
    """Return the dimensions that the engine gives the file, with their sizes."""
    leading = dict(file.layout.leading)
    if append_dim == "image" and file.layout.kind == "image":
        # the first image of a stack
        leading = {"image": 1}
    samples = ["rgb"] * len(file.sections.mode.samples)
    frame = zip([*file.axes[1:], *samples], file.sections.shape[1:], strict=True)
    return leading | dict(frame)


def _check_data(
    data: xr.DataArray,
    file: MrcFile,
    sizes: Mapping[str, int],
    number: int | None,
    *,
    is_labelled: bool,
) -> None:
    """Raise MrcError if the file can't hold data of these dimensions, or of this dtype."""
    mode, given = file.sections.mode, [str(dim) for dim in data.dims]
    if file.sections.is_compressed:
        raise MrcError(f"{file.name}: an MRCZ file can't be changed in place; write a new file")
    if given != list(sizes) and (is_labelled or len(given) != len(sizes)):
        raise MrcError(
            f"{file.name}: the data have the dimensions ({', '.join(given)}), and the file has "
            f"({', '.join(sizes)}); they must be the same"
        )
    if 0 in data.shape:
        raise MrcError(f"the data have the shape {data.shape}; accepted: no dimension of size 0")
    if number is None and not np.can_cast(data.dtype, mode.decoded):
        raise MrcError(
            f"{file.name}: the data are {data.dtype}, and the file is {mode.decoded_name} "
            f"(MODE {mode.number}); mode={mode.number} casts values that are in its range"
        )
    if number not in (None, mode.number):
        raise MrcError(f"{file.name}: mode is {number!r}, and the file has MODE {mode.number}")


def _start(
    data: xr.DataArray, file: MrcFile, sizes: Mapping[str, int], region: Mapping[str, slice]
) -> tuple[int, ...]:
    """Return the first pixel of a region, after a check that the data fill it."""
    if unknown := [str(dim) for dim in region if dim not in sizes]:
        raise MrcError(
            f"{file.name}: region has the dimensions {', '.join(unknown)}; accepted: "
            f"{', '.join(sizes)}"
        )
    start = []
    for (dim, n), size in zip(sizes.items(), data.shape, strict=True):
        part = region.get(dim, slice(0, n))
        if not isinstance(part, slice) or part.step not in (None, 1):
            raise MrcError(
                f"{file.name}: region[{dim!r}] is {part!r}; accepted: a slice of step 1"
            )
        first, stop, _ = part.indices(n)
        is_outside = any(at is not None and not -n <= at <= n for at in (part.start, part.stop))
        if is_outside or stop - first != size:
            raise MrcError(
                f"{file.name}: the data have {size} along {dim}, for {part.start}:{part.stop} of "
                f"{n} in the file; they must be the same, within the file"
            )
        start.append(first)
    if file.sections.mode.is_packed and data.shape[-1] != file.header.nx:
        raise MrcError(f"{file.name}: pixels share bytes, so region= must have complete rows")
    return tuple(start)


def _lengthened(file: MrcFile, nz: int) -> Header:
    """Return the header with more sections; the cell of a volume grows with its pixels."""
    values: dict[str, Any] = {"nz": nz}
    axis, n_old, cella = file.axes[0], file.sections.shape[0], file.header.cella
    if file.layout.kind == "volume" and file.header[f"m{axis}"] == n_old:
        longer = cella._replace(**{axis: getattr(cella, axis) * nz / n_old})
        values |= {f"m{axis}": nz, "cella": longer}
    return file.header.replaced(**values)


def _check_can_grow(
    live: LiveFile, file: MrcFile, sizes: Mapping[str, int], append_dim: str
) -> None:
    """Raise MrcError if sections can't be added, for example after an append that was killed."""
    slowest = next(iter(sizes))
    if append_dim != slowest:
        raise MrcError(
            f"{file.name}: append_dim is {append_dim!r}; accepted: {slowest!r}, the slowest "
            "dimension"
        )
    end = file.sections.offset + file.sections.nbytes
    if live.size > end:
        raise MrcError(
            f"{live.name}: the sections end at byte {end} according to the header, but the file "
            f"has {live.size} bytes. An append may have been killed. Appending would overwrite "
            f"the {live.size - end} bytes after the sections: if you don't need them, remove them "
            f"with os.truncate({live.name!r}, {end})"
        )


def _known_statistics(file: MrcFile) -> Statistics | None:
    """Return the statistics of the pixels according to the header, or None."""
    header, n = file.header, prod(file.sections.shape)
    if not header.has_statistics or header.rms < 0:
        return None
    return Statistics(n, header.dmin, header.dmax, header.dmean, n * header.rms**2)
