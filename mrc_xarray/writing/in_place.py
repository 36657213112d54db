"""Plan to change an existing file in place: to fill a region of it, or to append to it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
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
from mrc_xarray.writing.region import Region

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
    file = _inspected(live, given)
    sink = InPlace(path, live.size, live.head, live.node, locks=is_delayed)
    sizes = _sizes(file, options.region or {options.append_dim})
    plan = Plan(
        sink=sink,
        header=file.header,
        mode=file.sections.mode,
        shape=tuple(sizes.values()),
        dtype=given.dtype,
        places=(),
        statistics=options.statistics,
        known=None,
        offset=file.sections.offset,
    )
    if options.append_dim is None:
        region = Region.of(options.region or {}, sizes, file.name)
        _check_complete(region, file, sizes)
        data = region.filled_with(_as_stored(given, file, options.mode), is_labelled=is_labelled)
        plan = replace(plan, places=tuple(region.places.values()))
    else:
        data = _expanded(given, options.append_dim, len(sizes))
        _check_data(data, file, sizes, is_labelled=is_labelled)
        _check_can_grow(live, file, sizes, options.append_dim)
        plan = _grown(plan, sink, file, options.append_dim, len(data))
    _check_dtype(data.dtype, file, options.mode)
    header = _without_statistics(live, file, plan.header)
    return replace(plan, header=header, dtype=data.dtype), data


def _grown(plan: Plan, sink: InPlace, file: MrcFile, append_dim: str, n_added: int) -> Plan:
    """Return the plan for more images, sections or volumes after those of the file."""
    n_old, *frame = plan.shape
    n_new, sections = n_old + n_added, file.sections
    return replace(
        plan,
        sink=replace(sink, grows_to=plan.offset + sections.nbytes // n_old * n_new),
        header=_lengthened(file, append_dim, sections.shape[0] // n_old * n_new),
        shape=(n_new, *frame),
        places=(range(n_old, n_new), *map(range, frame)),
        known=_known_statistics(file) if plan.statistics is True else None,
    )


def _inspected(live: LiveFile, data: xr.DataArray) -> MrcFile:
    """Raise MrcError for an MRCZ, or if the data are read from the file."""
    if is_read_from(data, live.name):
        raise MrcError(
            f"{live.name}: the data would be read from this file while it is changed, and could "
            "be a mixture of old and new pixels. Load them first, with "
            "data.load().copy(deep=True), or write a new file"
        )
    file = inspect(live)
    if file.sections.is_compressed:
        raise MrcError(f"{file.name}: an MRCZ file can't be changed in place; write a new file")
    return file


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


def _sizes(file: MrcFile, named: Collection[str | None]) -> dict[str, int]:
    """Return the dimensions that the engine gives the file, with their sizes.

    A single image has a dimension of sections if the user has named it.
    """
    leading = dict(file.layout.leading)
    if file.layout.kind == "image":
        # the first image of a stack, or section of a volume
        possible = ["image", *[file.axes[0]] * bool(file.header.ispg)]
        leading = {dim: 1 for dim in possible if dim in named}
    samples = ["rgb"] * len(file.sections.mode.samples)
    frame = zip([*file.axes[1:], *samples], file.sections.shape[1:], strict=True)
    return leading | dict(frame)


def _check_data(
    data: xr.DataArray, file: MrcFile, sizes: Mapping[str, int], *, is_labelled: bool
) -> None:
    """Raise MrcError if data of these dimensions can't be added to the file."""
    given = [str(dim) for dim in data.dims]
    if given != list(sizes) and (is_labelled or len(given) != len(sizes)):
        raise MrcError(
            f"{file.name}: the data have the dimensions ({', '.join(given)}), and the file has "
            f"({', '.join(sizes)}); they must be the same"
        )
    if 0 in data.shape:
        raise MrcError(f"the data have the shape {data.shape}; accepted: no dimension of size 0")
    for dim, n, size in zip(given[1:], list(sizes.values())[1:], data.shape[1:], strict=True):
        if size != n:
            raise MrcError(
                f"{file.name}: the data have {size} along {dim}, and the file has {n}; they must "
                "be the same"
            )


def _check_dtype(dtype: np.dtype[Any], file: MrcFile, number: int | None) -> None:
    """Raise MrcError if the mode of the file can't hold a dtype, or is not the one asked for."""
    mode = file.sections.mode
    if number is None and not np.can_cast(dtype, mode.decoded):
        raise MrcError(
            f"{file.name}: the data are {dtype}, and the file is {mode.decoded_name} "
            f"(MODE {mode.number}); mode={mode.number} casts values that are in its range"
        )
    if number not in (None, mode.number, file.header.mode):
        raise MrcError(f"{file.name}: mode is {number!r}, and the file has MODE {mode.number}")


def _check_complete(region: Region, file: MrcFile, sizes: Mapping[str, int]) -> None:
    """Raise MrcError if a region has a part of what shares bytes, or is stored together."""
    mode, (*_, columns) = file.sections.mode, [dim for dim in sizes if dim != "rgb"]
    for dim, is_together in ((columns, mode.is_packed), ("rgb", bool(mode.samples))):
        if is_together and not np.array_equal(region.places[dim], range(sizes[dim])):
            what = "complete rows, since pixels share bytes" if dim == columns else "all colors"
            raise MrcError(f"{file.name}: region[{dim!r}] is a part of {dim}; accepted: {what}")


def _as_stored(data: xr.DataArray, file: MrcFile, number: int | None) -> xr.DataArray:
    """Return a single number as the mode of the file holds it, and other data as they are.

    A number has no size that could be compared with the mode's, so its value is.
    """
    if data.ndim or data.chunks is not None:
        return data
    mode, value = file.sections.mode, data.values
    if value.dtype.kind not in "biuf" + "c" * (np.dtype(mode.decoded).kind == "c"):
        raise MrcError(
            f"{file.name}: {value!r} is no number that the file can hold; accepted: numbers of "
            f"{mode.decoded_name} (MODE {mode.number})"
        )
    cast = mode.cast(value.reshape(1))[0]
    if number is None and np.dtype(mode.stored).kind in "iu" and cast != value:
        raise MrcError(
            f"{file.name}: {value} would be {cast} in the file, which is {mode.decoded_name} "
            f"(MODE {mode.number}); mode={mode.number} rounds it"
        )
    return xr.DataArray(cast)


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
