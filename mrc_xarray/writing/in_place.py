"""Plan to fill a region of an existing file, or to append sections to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import xarray as xr

from mrc_xarray.errors import MrcError
from mrc_xarray.mrc.header import XYZ, Header
from mrc_xarray.mrc.reading import MrcFile
from mrc_xarray.pixels.statistics import UNDETERMINED, Statistics
from mrc_xarray.storage.locks import Lock
from mrc_xarray.storage.sink import InPlace
from mrc_xarray.writing.backing import is_read_from
from mrc_xarray.writing.live import LiveFile
from mrc_xarray.writing.options import WriteOptions
from mrc_xarray.writing.plan import Plan

__all__ = ["plan_in_place"]


@dataclass(frozen=True, kw_only=True)
class _Change:
    """What a change makes of the file.

    Attributes
    ----------
    start : tuple of int
        The first pixel of the data in the file.
    shape : tuple of int
        Of all pixels afterwards.
    header : Header
    grows : bool
        Whether sections are added.
    known : Statistics or None
        Statistics of the pixels that stay, if they are known.
    """

    start: tuple[int, ...]
    shape: tuple[int, ...]
    header: Header
    grows: bool = False
    known: Statistics | None = None


def plan_in_place(
    data: xr.DataArray,
    path: str,
    options: WriteOptions,
    lock: Lock,
    *,
    is_labelled: bool,
    is_delayed: bool,
) -> Plan:
    """Plan to fill a region of an existing file, or to append to it.

    Parameters
    ----------
    data : DataArray
    path : str
        As `local_path` returns it.
    options : WriteOptions
    lock : Lock
        On the file.
    is_labelled : bool
        Whether the user has named the dimensions of `data`.
    is_delayed : bool
        Whether the file is written later, so that it is not locked now.

    Raises
    ------
    MrcError
        If the file is compressed, if the data are read from it, or if they do not fit it.
    """
    live = LiveFile.open(path, lock)
    if is_read_from(data, live.name):
        raise MrcError(
            f"{live.name}: the data would be read from this file while it is changed, and could "
            "be a mixture of old and new pixels. Load them first, with "
            "data.load().copy(deep=True), or write a new file"
        )
    file = live.contents()
    if file.sections.is_compressed:
        raise MrcError(f"{live.name}: an MRCZ file can't be changed in place; write a new file")
    sizes = _sizes(file, options.append_dim)
    _check_fit(data, file, sizes, options.mode, is_labelled=is_labelled)
    change = _filled(data, file, sizes, options) if options.append_dim is None else _appended(
        data, live, file, sizes, options
    )  # fmt: skip
    end = file.sections.offset + change.header.nz * file.sections.section_bytes
    return Plan(
        sink=InPlace(
            live.name,
            live.size,
            live.head,
            live.node,
            grows_to=end if change.grows else None,
            locks=is_delayed,
        ),
        header=change.header.replaced(**UNDETERMINED),
        mode=file.sections.mode,
        shape=change.shape,
        dtype=data.dtype,
        start=change.start,
        statistics=options.statistics,
        known=change.known,
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


def _check_fit(
    data: xr.DataArray,
    file: MrcFile,
    sizes: dict[str, int],
    number: int | None,
    *,
    is_labelled: bool,
) -> None:
    """Raise MrcError unless the data have the dimensions and a type that the file can hold."""
    given = [str(dim) for dim in data.dims]
    if given != list(sizes) and (is_labelled or len(given) != len(sizes)):
        raise MrcError(
            f"{file.name}: the data have the dimensions ({', '.join(given)}), and the file has "
            f"({', '.join(sizes)}); they must be the same"
        )
    if 0 in data.shape:
        raise MrcError(f"the data have the shape {data.shape}; accepted: no dimension of size 0")
    mode = file.sections.mode
    if number is None and not np.can_cast(data.dtype, mode.decoded):
        raise MrcError(
            f"{file.name}: the data are {data.dtype}, and the file is {mode.decoded_name} "
            f"(MODE {mode.number}); mode={mode.number} casts values that are in its range"
        )
    if number not in (None, mode.number):
        raise MrcError(f"{file.name}: mode is {number!r}, and the file has MODE {mode.number}")


def _filled(
    data: xr.DataArray, file: MrcFile, sizes: Mapping[str, int], options: WriteOptions
) -> _Change:
    """Return the change that fills a region, having checked that the data fit it."""
    region = options.region or {}
    unknown = [str(dim) for dim in region if dim not in sizes]
    if unknown:
        raise MrcError(
            f"{file.name}: region has the dimensions {', '.join(unknown)}; accepted: "
            f"{', '.join(sizes)}"
        )
    start = []
    for (dim, n), size in zip(sizes.items(), data.shape, strict=True):
        part = region.get(dim, slice(None))
        if not isinstance(part, slice) or part.step not in (None, 1):
            raise MrcError(
                f"{file.name}: region[{dim!r}] is {part!r}; accepted: a slice of step 1"
            )
        first, stop, _ = part.indices(n)
        is_outside = any(at is not None and not -n <= at <= n for at in (part.start, part.stop))
        if is_outside or stop - first != size:
            raise MrcError(
                f"{file.name}: region[{dim!r}] is {part.start}:{part.stop} of {n}, and the data "
                f"have {size} along {dim}; they must be the same, within the file"
            )
        start.append(first)
    if file.sections.mode.number == 101 and data.shape[-1] != file.header.nx:
        raise MrcError(
            f"{file.name}: two pixels of 4 bits share a byte, so region= must have complete rows"
        )
    return _Change(start=tuple(start), shape=tuple(sizes.values()), header=file.header)


def _appended(
    data: xr.DataArray,
    live: LiveFile,
    file: MrcFile,
    sizes: Mapping[str, int],
    options: WriteOptions,
) -> _Change:
    """Return the change that adds the data after the sections of the file."""
    _check_nothing_follows(live, file)
    first_dim, n_old = next(iter(sizes.items()))
    if options.append_dim != first_dim:
        raise MrcError(
            f"{file.name}: append_dim is {options.append_dim!r}; accepted: {first_dim!r}, the "
            "slowest dimension"
        )
    shape = tuple(sizes.values())
    if data.shape[1:] != shape[1:]:
        raise MrcError(
            f"{file.name}: the data have the shape {data.shape}, and the file has {shape}; they "
            f"must be the same except along {first_dim}"
        )
    n_new = n_old + data.shape[0]
    nz = file.sections.shape[0] // n_old * n_new
    return _Change(
        start=(n_old, *[0] * (len(shape) - 1)),
        shape=(n_new, *shape[1:]),
        header=_lengthened(file, nz),
        grows=True,
        known=_known_statistics(file.header, prod(shape)) if options.statistics is True else None,
    )


def _lengthened(file: MrcFile, nz: int) -> Header:
    """Return the header with more sections; the cell of a volume grows with its pixels."""
    values: dict[str, Any] = {"nz": nz}
    axis = "xyz".index(file.axes[0])
    field, n_old = ("mx", "my", "mz")[axis], file.sections.shape[0]
    if file.layout.kind == "volume" and file.header[field] == n_old:
        cella = list(file.header.cella)
        cella[axis] *= nz / n_old
        values |= {field: nz, "cella": XYZ(*cella)}
    return file.header.replaced(**values)


def _check_nothing_follows(live: LiveFile, file: MrcFile) -> None:
    """Refuse to append to a file with bytes after its sections, as a killed append leaves them."""
    end = file.sections.offset + file.sections.nbytes
    if live.size > end:
        raise MrcError(
            f"{live.name}: the sections end at byte {end} according to the header, but the file "
            f"has {live.size} bytes. An append may have been killed. Appending would overwrite "
            f"the {live.size - end} bytes after the sections: if you don't need them, remove them "
            f"with os.truncate({live.name!r}, {end})"
        )


def _known_statistics(header: Header, n: int) -> Statistics | None:
    """Return the statistics of `n` pixels that a header contains, or None."""
    if not header.has_statistics or header.rms < 0:
        return None
    return Statistics(n, header.dmin, header.dmax, header.dmean, n * header.rms**2)
