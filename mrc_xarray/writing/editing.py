"""Change a file in place: fill a region, append sections, correct header fields."""

from __future__ import annotations

import contextlib
import math
import operator
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal

import numpy as np
import xarray as xr

from mrc_xarray.errors import MrcError
from mrc_xarray.mrc import reading
from mrc_xarray.mrc.header import HEADER_SIZE, N_LABELS, PLACES, XYZ, Header
from mrc_xarray.mrc.reading import MrcFile
from mrc_xarray.mrc.recognition import guess_byteorder
from mrc_xarray.pixels.modes import MODES
from mrc_xarray.pixels.statistics import UNDETERMINED, Statistics
from mrc_xarray.storage import LocalSource, filesystem, redacted
from mrc_xarray.storage.base import Access
from mrc_xarray.storage.codecs import begins_stream
from mrc_xarray.storage.identity import Node, node_of
from mrc_xarray.storage.locks import Lock, lock_in_place
from mrc_xarray.storage.sink import InPlace
from mrc_xarray.writing.backing import is_read_from
from mrc_xarray.writing.plan import Plan

__all__ = ["edit_header", "local_path", "plan_in_place"]

_AXES = "xyz"


def edit_header(
    target: str | os.PathLike[str],
    *,
    voxel_size: float | Mapping[str, float] | None = None,
    **fields: Any,
) -> None:
    """Change fields of a file's header, in place.

    The new header is checked first. A value that would make the file unreadable, or cause a
    warning that it does not cause now, is refused. The header is written by one call. If another
    process is changing the file in place, this waits until it has finished.

    Parameters
    ----------
    target : path
    voxel_size : float, or mapping of {"x", "y", "z"} to float, Å, optional
        Sets CELLA for the sampling that MX, MY and MZ give.
    **fields
        New values, by the names of `mrc_xarray.mrc.header.Header`: ``origin=(0, 0, 0)``,
        ``ispg=1``, ``label=["..."]``. NX, NY, NZ, MODE and NSYMBT only where the file has the
        size that they promise.

    Raises
    ------
    TypeError
        If there is no such field, or a value has the wrong type.
    MrcError
        If the new header would be worse than the old one, if another write in this process is
        changing the file, or if the file is not a plain file on a disk.
    OSError
        If the file is missing, or may not be written.
    """
    known = {name.lower() for name in PLACES} - {"extra1", "extra2"}
    unknown = sorted(set(fields) - known)
    if unknown:
        raise TypeError(f"unknown header fields: {', '.join(unknown)}")
    path = local_path(target)
    with lock_in_place(path, exclusive=True, waits=True) as lock:
        file = _Live.open(path, lock)
        header = _edited(file, voxel_size, fields)
        InPlace(file.name, file.size, file.head, file.node).finish(header.encode())


def _edited(
    file: _Live, voxel_size: float | Mapping[str, float] | None, fields: Mapping[str, Any]
) -> Header:
    """Return the header with new values, after checking that the file can be read with it."""
    try:
        before = _statements(file.name, reading.inspect(file))
    except MrcError:
        # any header that makes the file readable is better
        before = None
    header = Header.parse(file.head, guess_byteorder(file.head, file.size, MODES))
    header = header.replaced(**{name: _typed(name, value) for name, value in fields.items()})
    version = Header.parse(file.head, header.byteorder).label[0]
    if "label" in fields and version.startswith("MRCZ") and header.label[0] != version:
        # mrcz tells by it how to read MZ
        header = header.replaced(label=(version, *header.label)[:N_LABELS])
    if "label" in fields and "nlabl" not in fields:
        header = header.replaced(nlabl=sum(bool(text) for text in header.label))
    try:
        after = reading.inspect(file.with_header(header))
        if voxel_size is not None:
            header = _with_voxel_size(header, after, voxel_size)
            after = reading.inspect(file.with_header(header))
    except MrcError as error:
        error.add_note("the file was left as it is")
        raise
    now = _statements(file.name, after)
    if before is not None and now - before:
        raise MrcError("the file was left as it is: " + "; ".join(sorted(now - before)))
    return header


def local_path(target: str | os.PathLike[str]) -> str:
    """Return the path of a file that can be changed in place.

    Raises
    ------
    MrcError
        If the target is in a store.
    """
    fs, path = filesystem(os.fsdecode(target))
    if fs is not None:
        name = redacted(os.fsdecode(target))
        raise MrcError(
            f"{name}: only a file on a disk can be changed in place. Write a new file, or change "
            "a local copy"
        )
    return os.path.realpath(os.path.expanduser(path))


def _statements(name: str, file: MrcFile) -> set[str]:
    """Return what is wrong with a file, without what to do: that is for files as they are."""
    return {p.message(name).removesuffix(p.action).rstrip() for p in file.problems}


def plan_in_place(
    data: xr.DataArray,
    path: str,
    number: int | None,
    region: Mapping[str, slice] | None,
    append_dim: str | None,
    *,
    is_labelled: bool,
    lock: Lock,
    is_delayed: bool,
    statistics: bool | Literal["quick"],
) -> tuple[xr.DataArray, Plan]:
    """Plan to fill a region of an existing file, or to append to it.

    Parameters
    ----------
    data : DataArray
    path : str
        As `local_path` returns it.
    number : int or None
        The user's mode.
    region, append_dim, statistics
        As for `mrc_xarray.to_mrc`.
    is_labelled : bool
        Whether the dimensions of `data` have the user's names, rather than ours for an array.
    lock : Lock
        On the file.
    is_delayed : bool
        Whether the file is written later, so that it is not locked now.

    Returns
    -------
    data : DataArray
        With the file's dimensions.
    plan : Plan

    Raises
    ------
    MrcError
        If the file is compressed, or the data do not fit it.
    """
    source = _Live.open(path, lock)
    if is_read_from(data, source.name):
        raise MrcError(
            f"{source.name}: the data would be read from this file while it is changed, and could "
            "be a mixture of old and new pixels. Load them first, with "
            "data.load().copy(deep=True), or write a new file"
        )
    file = reading.inspect(source)
    if file.sections.is_compressed:
        raise MrcError(f"{source.name}: an MRCZ can't be changed in place; write it anew")
    dims, shape = _dimensions(file)
    if append_dim == "image" and file.layout.kind == "image":
        # the first of a stack
        dims, shape = ["image", *dims], [1, *shape]
    if not is_labelled and data.ndim == len(dims):
        data = data.rename(dict(zip(data.dims, dims, strict=True)))
    given = [str(dim) for dim in data.dims]
    if given != dims:
        raise MrcError(
            f"{source.name}: the data have the dimensions ({', '.join(given)}), and the file has "
            f"({', '.join(dims)}); they must be the same"
        )
    mode = file.sections.mode
    if 0 in data.shape:
        raise MrcError(f"the data have the shape {data.shape}; accepted: none of them 0")
    if number is None and not np.can_cast(data.dtype, mode.decoded):
        raise MrcError(
            f"{source.name}: the data are {data.dtype}, and the file is {mode.decoded_name} "
            f"(MODE {mode.number}); mode={mode.number} casts what is in its range"
        )
    if number not in (None, mode.number):
        raise MrcError(f"{source.name}: mode is {number!r}, and the file has MODE {mode.number}")
    header, known = file.header, None
    start = [0] * len(dims)
    if append_dim is not None:
        _check_no_left_over(source, file)
        n_old = prod(shape)
        start[0] = shape[0]
        header, shape = _appended(data, file, dims, shape, append_dim)
        if statistics is True:
            known = _known_statistics(file.header, n_old)
    else:
        assert region is not None
        start = _region(data, source.name, dims, shape, region)
        if mode.is_packed and data.shape[-1] != shape[-1]:
            raise MrcError(f"{source.name}: pixels share bytes: region= must have whole rows")
    plan = Plan(
        InPlace(
            source.name,
            source.size,
            source.head,
            source.node,
            grows_to=file.sections.offset + header.nz * file.sections.section_bytes
            if append_dim is not None
            else None,
            locks=is_delayed,
        ),
        header.replaced(**UNDETERMINED),
        b"",
        mode,
        tuple(shape),
        data.dtype,
        tuple(start),
        statistics=statistics,
        known=known,
        offset=file.sections.offset,
    )
    return data, plan


@dataclass(frozen=True)
class _Live:
    """A file on a disk that others may be changing at the same time, with a header of our choice.

    A `LocalSource` would refuse to read it.
    """

    name: str
    size: int
    head: bytes
    node: Node | None
    access: Access = LocalSource.access

    @classmethod
    def open(cls, path: str, lock: Lock) -> _Live:
        # refuses what is not a regular file
        LocalSource.open(path)
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            head = file.read(HEADER_SIZE)
        if not lock.is_on(found):
            raise MrcError(f"{path}: another file has taken its name just now; try again")
        live = cls(path, found.st_size, head, node_of(found, path))
        if (codec := begins_stream(live.head)) is not None:
            raise MrcError(
                f"{live.name}: a {codec} stream can't be changed in place; decompress it, or "
                "write another with to_mrc"
            )
        return live

    def with_header(self, header: Header) -> _Live:
        try:
            return replace(self, head=header.encode())
        except (struct.error, UnicodeEncodeError, OverflowError) as error:
            raise MrcError(f"{self.name}: a value does not fit its field: {error}") from error

    def read(self, offset: int, nbytes: int) -> bytes:
        with open(self.name, "rb") as file:
            file.seek(offset)
            data = file.read(nbytes)
        return self.head[offset : offset + nbytes] + data[max(HEADER_SIZE - offset, 0) :]

    def fetching(self) -> contextlib.AbstractContextManager[Callable[[int, int], bytes]]:
        return contextlib.nullcontext(self.read)

    def read_sibling(self, name: str) -> bytes | None:
        # an .mdoc or info file tells the layout
        return LocalSource.open(self.name).read_sibling(name)


def _check_no_left_over(source: _Live, file: MrcFile) -> None:
    """Refuse to append to a file with bytes after its sections, as a killed append leaves them."""
    end = file.sections.offset + file.sections.nbytes
    if source.size > end:
        raise MrcError(
            f"{source.name}: the sections end at byte {end} by the header, but the file has "
            f"{source.size} bytes. An append may have been killed. Appending would overwrite the "
            f"{source.size - end} bytes after the sections: if you don't need them, remove them "
            f"with os.truncate({source.name!r}, {end})"
        )


def _dimensions(file: MrcFile) -> tuple[list[str], list[int]]:
    """Return the names and sizes that the engine gives to the dimensions."""
    samples = ["rgb"] * len(file.sections.mode.samples)
    dims = [*(dim for dim, _ in file.layout.leading), *file.axes[1:], *samples]
    return dims, [*(n for _, n in file.layout.leading), *file.sections.shape[1:]]


def _region(
    data: xr.DataArray, name: str, dims: list[str], shape: list[int], region: Mapping[str, slice]
) -> list[int]:
    """Return where the data begin, having checked that they fit."""
    if not isinstance(region, Mapping):
        raise TypeError(f"region is {region!r}; accepted: a mapping of dimension to slice")
    unknown = [str(dim) for dim in region if dim not in dims]
    if unknown:
        raise MrcError(f"{name}: region names {', '.join(unknown)}; accepted: {', '.join(dims)}")
    start = []
    for dim, n, size in zip(dims, shape, data.shape, strict=True):
        part = region.get(dim, slice(None))
        if not isinstance(part, slice) or part.step not in (None, 1):
            raise MrcError(f"{name}: region[{dim!r}] is {part!r}; accepted: a slice of step 1")
        first, stop, _ = part.indices(n)
        beyond = any(at is not None and not -n <= at <= n for at in (part.start, part.stop))
        if beyond or stop - first != size:
            raise MrcError(
                f"{name}: region[{dim!r}] is {part.start}:{part.stop} of {n}, and the data have "
                f"{size} along {dim}; they must be the same, within the file"
            )
        start.append(first)
    return start


def _appended(
    data: xr.DataArray, file: MrcFile, dims: list[str], shape: list[int], append_dim: str
) -> tuple[Header, list[int]]:
    """Return the header and the shape of the file with the data behind its own."""
    name, header = file.name, file.header
    if append_dim != dims[0]:
        raise MrcError(
            f"{name}: append_dim is {append_dim!r}; accepted: {dims[0]!r}, the slowest dimension"
        )
    if list(data.shape[1:]) != shape[1:]:
        raise MrcError(
            f"{name}: the data have the shape {data.shape}, and the file has {tuple(shape)}; "
            f"they must be the same but for {append_dim}"
        )
    n_sections = prod(shape[:-2]) if not file.sections.mode.samples else prod(shape[:-3])
    per = n_sections // shape[0]
    shape = [shape[0] + data.shape[0], *shape[1:]]
    values: dict[str, Any] = {"nz": shape[0] * per}
    if file.layout.kind == "volume":
        axis = _AXES.index(file.axes[0])
        field = ("mx", "my", "mz")[axis]
        if getattr(header, field) == n_sections:
            # the cell is the box of the pixels, and grows with it
            cella = list(header.cella)
            cella[axis] *= values["nz"] / n_sections
            values |= {field: values["nz"], "cella": XYZ(*cella)}
    return header.replaced(**values), shape


def _with_voxel_size(
    header: Header, file: MrcFile, voxel_size: float | Mapping[str, float]
) -> Header:
    spatial = [axis for axis, _ in file.layout.leading if axis in _AXES] + list(file.axes[1:])
    given = voxel_size if isinstance(voxel_size, Mapping) else dict.fromkeys(spatial, voxel_size)
    if set(given) - set(_AXES):
        raise TypeError(f"voxel_size is {voxel_size!r}; accepted: a number, or one for x, y, z")
    sizes = dict(zip(file.axes, (header.nz, header.ny, header.nx), strict=True))
    cella, intervals = list(header.cella), [header.mx, header.my, header.mz]
    for axis, step in given.items():
        i = _AXES.index(axis)
        if intervals[i] <= 0 and header.mrcz_version is None:
            intervals[i] = sizes[axis]
        cella[i] = float(step) * (intervals[i] if intervals[i] > 0 else sizes[axis])
    mx, my, mz = intervals
    return header.replaced(cella=XYZ(*cella), mx=mx, my=my, mz=mz)


def _typed(name: str, value: Any) -> Any:
    """Return a value of the type that a field has."""
    kind = str(Header.__dataclass_fields__[name].type)
    try:
        if kind == "int":
            return operator.index(value)
        if kind == "float":
            return _finite(value)
        if kind == "XYZ":
            if len(value) != 3:
                raise TypeError("accepted: three numbers")
            return XYZ(*map(_finite, value))
        if name == "label":
            if isinstance(value, str) or len(value) > N_LABELS:
                raise TypeError("accepted: up to ten texts")
            return (*map(_text, value), *[""] * (N_LABELS - len(value)))
        if kind == "str":
            return _text(value)
        if kind == "bytes":
            return bytes(value)
        return tuple(map(float, value))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} is {value!r}: {error}") from None


def _finite(value: Any) -> float:
    if not math.isfinite(value):
        raise TypeError("accepted: finite numbers")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 80 or not value.isprintable():
        raise TypeError("accepted: a printable text of 80 characters at most")
    return value


def _known_statistics(header: Header, n: int) -> Statistics | None:
    """Return the statistics of `n` pixels that a header contains, or None."""
    if not header.has_statistics or header.rms < 0:
        return None
    return Statistics(n, header.dmin, header.dmax, header.dmean, n * header.rms**2)
