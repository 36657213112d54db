"""Write labelled data as MRC and MRCZ: lazily, in parallel, and at once or not at all.

Here is what the user calls: it finds a `Plan`. What the tasks do stands in `plan`, how they hang
together in `graph`.
"""

from __future__ import annotations

import dataclasses
import os
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from mrc_xarray.errors import MrcError, warn
from mrc_xarray.mrc.header import HEADER_SIZE
from mrc_xarray.pixels.compression import LARGEST_BLOCK, encoder
from mrc_xarray.pixels.statistics import Statistics
from mrc_xarray.storage import filesystem, redacted
from mrc_xarray.storage.locks import lock_in_place
from mrc_xarray.storage.sink import open_sink
from mrc_xarray.storage.threads import own_threads
from mrc_xarray.suffixes import COMPRESSED_SUFFIXES, stem_and_suffix
from mrc_xarray.text import printable
from mrc_xarray.writing.editing import local_path, plan_in_place
from mrc_xarray.writing.graph import written
from mrc_xarray.writing.heading import Wanted, make_heading
from mrc_xarray.writing.plan import Plan, begin, finish_plain
from mrc_xarray.writing.provenance import Provenance

if TYPE_CHECKING:
    import dask.array
    from dask.delayed import Delayed

__all__ = ["create", "to_mrc"]

Array: TypeAlias = npt.NDArray[Any]
Data: TypeAlias = "xr.DataArray | xr.Dataset | Array | dask.array.Array"

_MiB = 1024**2
# blocks of this size are past the cost of a task, and their memory is used again and again
_BLOCK = 16 * _MiB


def to_mrc(
    obj: Data,
    target: str | os.PathLike[str],
    *,
    mode: int | None = None,
    compressor: str | None = "auto",
    clevel: int = 1,
    metadata: Mapping[str, Any] | None = None,
    extended_header: bytes | tuple[str, bytes] | None = None,
    labels: Sequence[str] = (),
    statistics: bool | Literal["quick"] = True,
    voltage: float | None = None,
    c3: float | None = None,
    gain: float | None = None,
    byteorder: str = "little",
    voxel_size: float | Mapping[str, float] | None = None,
    region: Mapping[str, slice] | None = None,
    append_dim: str | None = None,
    overwrite: bool = False,
    compute: bool = True,
    storage_options: dict[str, Any] | None = None,
) -> Delayed | None:
    """Write data to an MRC or MRCZ file.

    Dask-backed data of any size are written in parallel, by the scheduler that dask has, in a
    few chunks of memory. A new file has a temporary name until it is complete, so that there is
    the old file or the new one at every moment, and may be the one that the data are read from.
    With `region` or `append_dim` a file is changed in place.

    Parameters
    ----------
    obj : DataArray, Dataset with one data variable, or array
        Shape (..., n_rows, n_columns). Dimensions that the engine makes tell the layout, and
        coordinates voxel size and origin; see the Notes. Arrays without labels are an image, a
        volume or a stack of volumes.
    target : path or URL
        Workers of a cluster must see the same path. A file for a store is first written to
        dask's ``temporary-directory``, and then sent.
    mode : int, optional
        MODE of the file: 0 (int8; uint8 data as uint8, with IMOD's mark), 1 (int16), 2 (float32),
        3 (complex of int16), 4 (complex64), 6 (uint16), 7 (int32), 8 (uint32), 12 (float16), 16
        (RGB), 101 (4 bits). By default the one that holds the data without loss. Floats are
        rounded to the nearest integer.
    compressor : {"auto", None, "zstd", "lz4", "lz4hc", "zlib", "blosclz"}
        For MRCZ. "auto" is "zstd" for a target in .mrcz, and None for others. Names behind
        ``"blosc2:"`` make chunks of version 5, which only mrcz 0.6 and this package read.
    clevel : int
        0 to 9.
    metadata : mapping, optional
        Written as JSON to the extended header, beside what an MRCZ was opened with.
    extended_header : bytes, or (str, bytes), optional
        The extended header, with its EXTTYP. By default that of the file that the data were
        opened from, as far as it holds.
    labels : sequence of str
        Texts of 80 characters at most, behind those that the data were opened with.
    statistics : bool or "quick"
        Whether to measure minimum, maximum, mean and deviation; "quick" for the first section
        alone. Always undetermined for complex data.
    voltage, c3, gain : float, optional
        kV, mm, electrons per count: where mrcz has them.
    byteorder : {"little", "big"}
    voxel_size : float, or mapping of dimension to float, Å
        Instead of what the coordinates tell.
    region : mapping of dimension to slice, optional
        Fill this part of an existing plain file, in place: a crash in the middle leaves it half
        filled. Its statistics become undetermined.
    append_dim : str, optional
        Add the data behind those of an existing plain file along this dimension, its slowest,
        in place: the header is changed last.
    overwrite : bool
        Whether to replace a file.
    compute : bool
        Whether to write now, or to return what does when it is computed.
    storage_options : dict, optional
        For fsspec.

    Returns
    -------
    dask.delayed.Delayed or None
        With ``compute=False``. Where one of its tasks fails, the temporary file is left.

    Raises
    ------
    MrcError
        If no MRC file can hold the data or their coordinates. In place, also if the file is not
        the one that the write was planned for, if another write in this process changes it, or if
        the data are read from it.
    FileExistsError
        If the target exists and may not be replaced, even if it appeared during the write.
    OSError
        As writing does: a full disk, a missing folder.
    TypeError, ValueError
        If an argument has a type or value that it can't have.

    Warns
    -----
    MrcWarning
        One, with all that the labels say and the file can't.

    Notes
    -----
    ``(y, x)`` is an image, ``(z, y, x)`` in any order a volume, ``(image, y, x)`` a stack of
    images, ``(volume, z, y, x)`` a stack of volumes; other dimensions before the last two count
    off the images of a stack. Coordinates in length units give CELLA and ORIGIN. See FORMAT: main
    header, MRCZ.
    """
    data = _as_data_array(obj)
    Provenance.of(data).warned()
    _check_pixels(data)
    if not isinstance(clevel, int) or not 0 <= clevel <= 9:
        raise ValueError(f"clevel is {clevel!r}; accepted: 0 to 9")
    wanted = Wanted(
        mode=mode,
        metadata=metadata,
        extended_header=extended_header,
        labels=labels,
        voltage=voltage,
        c3=c3,
        gain=gain,
        byteorder=byteorder,
        voxel_size=voxel_size,
    )
    if statistics not in (True, False, "quick"):
        raise ValueError(f"statistics is {statistics!r}; accepted: True, False, 'quick'")
    if metadata is not None and extended_header is not None:
        raise ValueError("metadata= is written to the extended header, and excludes another one")
    if region is None and append_dim is None:
        plan = _plan_new(
            data, target, wanted, compressor, clevel, statistics, overwrite, storage_options
        )
        return _write(plan, data, compute)
    if region is not None and append_dim is not None:
        raise ValueError("region= and append_dim= exclude each other")
    others = (metadata, extended_header, voltage, c3, gain, voxel_size)
    if (
        overwrite
        or compressor not in ("auto", None)
        or list(labels)
        or byteorder != "little"
        or any(other is not None for other in others)
    ):
        raise ValueError(
            "region= and append_dim= take mode, statistics and compute: all else is the file's"
        )
    is_labelled = isinstance(obj, xr.DataArray | xr.Dataset)
    path = local_path(target)
    # of two appends at the same time, one would write over the other
    with lock_in_place(path, exclusive=region is None, waits=compute) as lock:
        data, plan = plan_in_place(
            data,
            path,
            mode,
            region,
            append_dim,
            is_labelled=is_labelled,
            lock=lock,
            is_delayed=not compute,
            statistics=statistics,
        )
        return _write(plan, data, compute)


def create(
    target: str | os.PathLike[str],
    shape: Sequence[int],
    dtype: npt.DTypeLike,
    *,
    dims: Sequence[str] | None = None,
    mode: int | None = None,
    voxel_size: float | Mapping[str, float] | None = None,
    origin: Mapping[str, float] | None = None,
    labels: Sequence[str] = (),
    byteorder: str = "little",
    overwrite: bool = False,
) -> None:
    """Make a plain file of zeros at once, however large, to be filled with ``to_mrc(region=)``.

    Parameters
    ----------
    target : path
    shape : sequence of int
    dtype : dtype
    dims : sequence of str, optional
        The dimensions' names, as for `to_mrc`; by default those of an image, a volume or a stack
        of volumes.
    mode, labels, byteorder, overwrite
        As for `to_mrc`.
    voxel_size : float, or mapping of dimension to float, Å
    origin : mapping of dimension to float, Å, optional
        Positions of the first voxel.

    Raises
    ------
    MrcError
        If no MRC file can have this shape or dtype.
    FileExistsError
        If the target exists, and may not be replaced.
    """
    if filesystem(os.fsdecode(target))[0] is not None:
        name = redacted(os.fsdecode(target))
        raise MrcError(
            f"{name}: only a file on a disk can be filled in place. Create it locally, and copy "
            "it when it is complete"
        )
    if os.fsdecode(target).lower().endswith(COMPRESSED_SUFFIXES):
        raise MrcError(f"{os.fsdecode(target)}: a compressed stream can't be filled in place")
    # takes no memory, whatever its shape
    zeros = np.broadcast_to(np.zeros((), dtype), tuple(shape))
    data = _as_data_array(zeros if dims is None else xr.DataArray(zeros, dims=tuple(dims)))
    steps = voxel_size if isinstance(voxel_size, Mapping) else dict.fromkeys(data.dims, voxel_size)
    first = {}
    for dim, at in dict(origin or {}).items():
        step = steps.get(dim)
        if dim not in data.dims or step is None:
            raise MrcError(f"origin is {origin!r}; accepted: {data.dims}, with a voxel_size")
        attrs = {"units": "angstrom", "spacing": step}
        first[dim] = xr.Variable((dim,), at + np.arange(data.sizes[dim]) * step, attrs)
    wanted = Wanted(mode=mode, labels=labels, byteorder=byteorder, voxel_size=voxel_size)
    plan = _plan_new(data.assign_coords(first), target, wanted, None, 0, False, overwrite, None)
    try:
        finish_plain(begin(plan), Statistics())
    except BaseException:
        plan.sink.discard()
        raise


def _plan_new(
    data: xr.DataArray,
    target: str | os.PathLike[str],
    wanted: Wanted,
    compressor: str | None,
    clevel: int,
    statistics: bool | Literal["quick"],
    overwrite: bool,
    storage_options: dict[str, Any] | None,
) -> Plan:
    sink = open_sink(target, storage_options, overwrite)
    if compressor == "auto":
        compressor = "zstd" if stem_and_suffix(sink.name)[1] == ".mrcz" else None
    if compressor is not None and sink.name.lower().endswith(COMPRESSED_SUFFIXES):
        raise MrcError(
            f"{sink.name}: an MRCZ is compressed already; leave out the last suffix, or write a "
            "plain MRC into the stream with compressor=None"
        )
    if compressor is not None:
        wanted = dataclasses.replace(wanted, codec=encoder(compressor))
    heading = make_heading(data, sink.name, wanted)
    header, mode = heading.header, heading.mode
    if compressor is not None:
        if mode.is_packed:
            raise MrcError(f"mode {mode.number} can't be compressed; use compressor=None")
        # blosc has some bytes of its own in it
        if header.ny * mode.row_bytes(header.nx) > LARGEST_BLOCK - 64:
            raise MrcError(
                f"a section of {header.ny} × {header.nx} pixels is more than the 2 GiB that a "
                "block of an MRCZ can hold; compressor=None"
            )
    if heading.lost:
        warn(f"{sink.name}: an MRC file can't hold all of it: {'; '.join(heading.lost)}")
    return Plan(
        sink,
        header,
        heading.extended,
        mode,
        data.shape,
        data.dtype,
        (0,) * data.ndim,
        statistics=statistics,
        compressor=compressor,
        clevel=clevel,
        offset=HEADER_SIZE + len(heading.extended),
    )


def _as_data_array(obj: Any) -> xr.DataArray:
    """Take what the user gives as labelled data."""
    if isinstance(obj, xr.Dataset):
        names = list(obj.data_vars)
        if len(names) != 1:
            raise MrcError(
                f"the Dataset has the variables {names}; accepted: one, as in ds[['a']]"
            )
        data = obj[names[0]]
        return data.assign_attrs(obj.attrs | data.attrs)
    if isinstance(obj, xr.DataArray):
        return obj
    if not hasattr(obj, "dask"):
        obj = np.asanyarray(obj)
    if isinstance(getattr(obj, "_meta", None), np.ma.MaskedArray):
        raise MrcError("the data are masked, and an MRC file can't say where; fill them first")
    default = {2: ("y", "x"), 3: ("z", "y", "x"), 4: ("volume", "z", "y", "x")}.get(obj.ndim)
    if default is None:
        raise MrcError(
            f"the array has the shape {obj.shape}; accepted: two dimensions (an image), three (a "
            "volume) or four (a stack of volumes). Others need names: xarray.DataArray(..., dims=)"
        )
    return xr.DataArray(obj, dims=default)


def _check_pixels(data: xr.DataArray) -> None:
    if any(isinstance(n, float) for n in data.shape):
        raise MrcError("the data have dimensions of unknown size; compute_chunk_sizes() first")


def _write(plan: Plan, data: xr.DataArray, compute: bool) -> Delayed | None:
    """Do what is planned, or return what does."""
    if not compute:
        return written(plan, _as_dask(data), is_begun=False)
    # data that are here already need no cluster
    options = {"scheduler": "threads"} if data.chunks is None and _has_client() else {}
    try:
        with (begun := begin(plan)).lock:
            task = written(begun, _as_dask(data), is_begun=True)
            with own_threads(task, **options) as own:
                task.compute(**options, **own)
    except BaseException as error:
        plan.sink.discard()
        error.add_note(printable(plan.sink.note))
        raise
    return None


def _is_in_memory(data: xr.DataArray) -> bool:
    """Tell whether the pixels are an array, and no dask graph or file."""
    # xarray has no public word for it
    is_in_memory: bool = data.variable._in_memory
    return is_in_memory


def _as_dask(data: xr.DataArray) -> dask.array.Array:
    """Return the pixels as a dask array, in blocks of whole rows where it is made here."""
    array: dask.array.Array
    if data.chunks is not None:
        array = data.data
        return array
    chunks = {data.dims[-1]: data.sizes[data.dims[-1]]}
    row = data.shape[-1] * data.dtype.itemsize
    wanted = max(1, _BLOCK // row)
    for dim in reversed(data.dims[:-1]):
        chunks[dim] = min(data.sizes[dim], wanted)
        wanted = max(1, wanted // data.sizes[dim])
    if not _is_in_memory(data):
        array = data.chunk(chunks).data
        return array
    import dask.array

    array = dask.array.from_array(
        _Uncopied(data.values),
        chunks=tuple(chunks[dim] for dim in data.dims),
        # a hash of all pixels would be its name otherwise
        name=f"pixels-{uuid.uuid4().hex}",
        meta=np.empty((0,) * data.ndim, data.dtype),
    )
    return array


class _Uncopied:
    """An array that dask does not know for one, and does not copy: it may be a map of a file."""

    def __init__(self, values: Array) -> None:
        self.values, self.shape, self.dtype, self.ndim = (
            values,
            values.shape,
            values.dtype,
            values.ndim,
        )

    def __getitem__(self, key: Any) -> Array:
        part: Array = self.values[key]
        return part


def _has_client() -> bool:
    try:
        from distributed import default_client

        default_client()
    except (ImportError, ValueError):
        return False
    return True
