"""Plan to change an existing file in place: to fill a region of it, or to append to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import xarray as xr

from mrc_xarray.errors import MrcError
from mrc_xarray.mrc.geometry import AXES
from mrc_xarray.mrc.header import IMOD_STAMP, Header
from mrc_xarray.mrc.reading import MrcFile, inspect
from mrc_xarray.pixels.statistics import UNDETERMINED, Statistics
from mrc_xarray.storage.locks import Lock
from mrc_xarray.storage.sink import InPlace
from mrc_xarray.suffixes import compressed_suffix, stem_and_suffix
from mrc_xarray.writing.arrays import with_leading
from mrc_xarray.writing.backing import is_read_from
from mrc_xarray.writing.live import LiveFile
from mrc_xarray.writing.options import WriteOptions
from mrc_xarray.writing.plan import Plan

__all__ = ["plan_in_place"]


def plan_in_place(
    given: xr.DataArray,
    path: str,
    options: WriteOptions,
    lock: Lock,
    *,
    is_labelled: bool,
    is_delayed: bool,
) -> tuple[Plan, xr.DataArray]:
    """Plan to fill a region of an existing file, or to append to it, while `lock` is held on it.

    Return the plan, and the data with all dimensions of the file. `is_labelled` is whether the
    user has named the dimensions of `data`, and `is_delayed` whether the file is written later,
    and locked again then.
    """
    live = LiveFile.open(path, lock)
    if is_read_from(given, path):
        raise MrcError(
            f"{path}: the data would be read from this file while it is changed, and could be a "
            "mixture of old and new pixels. Load them first, with data.load().copy(deep=True), or "
            "write a new file"
        )
    file = inspect(live)
    append_dim = options.append_dim
    sizes = _sizes(file, append_dim)
    data = given if append_dim is None else _expanded(given, append_dim, len(sizes))
    _check_data(data, file, sizes, options.mode, is_labelled=is_labelled)
    sink = InPlace(path, live.size, live.head, live.node, locks=is_delayed)
    header, region, known = file.header, options.region or {}, None
    if append_dim is not None:
        _check_can_grow(live, file, sizes, append_dim)
        n_old, n_new = sizes[append_dim], sizes[append_dim] + len(data)
        sizes[append_dim] = n_new
        region = {append_dim: slice(n_old, n_new)}
        header = _lengthened(file, append_dim, file.sections.shape[0] // n_old * n_new)
        grows_to = file.sections.offset + file.sections.nbytes // n_old * n_new
        sink = replace(sink, grows_to=grows_to)
        if options.statistics is True:
            known = _known_statistics(file)
    plan = Plan(
        sink=sink,
        header=_without_statistics(live, file, header),
        mode=file.sections.mode,
        shape=tuple(sizes.values()),
        dtype=data.dtype,
        start=_start(data, file, sizes, region),
        statistics=options.statistics,
        known=known,
        offset=file.sections.offset,
    )
    return plan, data


def as_first(data: xr.DataArray, append_dim: str, path: str, *, is_labelled: bool) -> xr.DataArray:
    """Return the data for the file that the first append creates, with the right dimensions.

    Raise MrcError if nothing could be appended to that file.
    """
    if stem_and_suffix(path)[1] == ".mrcz" or compressed_suffix(path):
        raise MrcError(
            f"{path}: nothing can be appended to a compressed file; accepted: a name that ends "
            "neither in .mrcz nor in a suffix of compression"
        )
    n_dims = 4 if append_dim == "volume" else 3
    complete = _expanded(data, append_dim, data.ndim + 1 if is_labelled else n_dims)
    if not is_labelled and complete.ndim == n_dims and append_dim not in complete.dims:
        complete = data.rename({data.dims[0]: append_dim})
    if complete.dims[0] != append_dim or append_dim not in ("image", "volume", *AXES):
        raise MrcError(
            f"{path}: append_dim is {append_dim!r}, and the data have the dimensions "
            f"({', '.join(map(str, data.dims))}); accepted: 'image', 'volume' or the axis of "
            "sections, as the slowest dimension"
        )
    # a file with one image opens as an image, and becomes a stack by the next append
    is_image = append_dim == "image" and len(complete) == 1
    return complete.isel(image=0) if is_image else complete


def _expanded(data: xr.DataArray, append_dim: str, n_dims: int) -> xr.DataArray:
    """Return the data with the dimension along which they are appended, if it is all they lack."""
    is_one = data.ndim == n_dims - 1 and append_dim not in data.dims
    return with_leading(data, append_dim) if is_one else data


def _sizes(file: MrcFile, append_dim: str | None) -> dict[str, int]:
    """Return the dimensions that the engine gives the file, with their sizes."""
    leading = dict(file.layout.leading)
    is_image, section_axis = file.layout.kind == "image", file.axes[0]
    if is_image and (append_dim == "image" or (append_dim == section_axis and file.header.ispg)):
        # the first image of a stack, or section of a volume
        leading = {append_dim: 1}
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
    if number not in (None, mode.number, file.header.mode):
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
    if file.sections.mode.is_packed and data.shape[-1] != file.sections.shape[2]:
        raise MrcError(f"{file.name}: pixels share bytes, so region= must have complete rows")
    return tuple(start)


def _lengthened(file: MrcFile, append_dim: str, nz: int) -> Header:
    """Return the header with more sections; the cell of a volume grows with its pixels."""
    values: dict[str, Any] = {"nz": nz}
    axis, n_old, cella = file.axes[0], file.sections.shape[0], file.header.cella
    m_old = file.header[f"m{axis}"]
    # some programs count the intervals between the first and the last voxel
    if append_dim == axis and m_old in (n_old, n_old - 1) and m_old:
        m = m_old + nz - n_old
        longer = cella._replace(**{axis: getattr(cella, axis) * m / m_old})
        values |= {f"m{axis}": m, "cella": longer}
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


def _without_statistics(live: LiveFile, file: MrcFile, header: Header) -> Header:
    """Return the header with undetermined statistics.

    Where only the statistics say that bytes are unsigned, IMOD's stamp then says it.
    """
    mode, blank = file.sections.mode, file.header.with_statistics(UNDETERMINED)
    changed = header.with_statistics(UNDETERMINED)
    is_same = not mode.sign_varies or inspect(live.with_header(blank)).sections.mode == mode
    return changed if is_same else changed.replaced(imod_stamp=IMOD_STAMP, imod_flags=4)


def _known_statistics(file: MrcFile) -> Statistics | None:
    """Return the statistics of the pixels according to the header, or None."""
    header, n = file.header, prod(file.sections.shape)
    if not header.has_statistics or header.rms < 0:
        return None
    return Statistics(n, header.dmin, header.dmax, header.dmean, n * header.rms**2)
