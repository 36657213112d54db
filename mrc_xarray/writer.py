"""Write labelled data as MRC and MRCZ: lazily, in parallel, and at once or not at all.

The work is a graph of tasks, for threads or for the workers of a cluster. Each writes, or
compresses, its own block. What they share is a `Plan`; what they return is small.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from mrc_xarray.format.compression import LARGEST_BLOCK, encode_block, encoder
from mrc_xarray.format.encoding import cast, pack, runs
from mrc_xarray.format.errors import MrcError, warn
from mrc_xarray.format.header import HEADER_SIZE, Header
from mrc_xarray.format.layout import stem_and_suffix
from mrc_xarray.format.modes import Mode
from mrc_xarray.format.statistics import Statistics
from mrc_xarray.heading import Wanted, make_heading
from mrc_xarray.sink import ByteSink, open_sink

if TYPE_CHECKING:
    import dask.array
    from dask.delayed import Delayed

__all__ = ["Plan", "create", "to_mrc"]

Array: TypeAlias = npt.NDArray[Any]
Data: TypeAlias = "xr.DataArray | xr.Dataset | Array | dask.array.Array"

_MiB = 1024**2
# blocks of this size are past the cost of a task, and their memory is used again and again
_BLOCK = 16 * _MiB
# partial results that one task joins
_JOINED = 64


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
        If no MRC file can hold the data, or their coordinates.
    FileExistsError
        If the target exists, and may not be replaced.
    OSError
        As writing does: a full disk, a missing folder.

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
    if any(isinstance(n, float) for n in data.shape):
        raise MrcError("the data have dimensions of unknown size; compute_chunk_sizes() first")
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
    if region is not None or append_dim is not None:
        from mrc_xarray.editing import plan_in_place

        if region is not None and append_dim is not None:
            raise ValueError("region= and append_dim= exclude each other")
        if overwrite or compressor not in ("auto", None) or wanted != Wanted(mode=mode):
            raise ValueError(
                "region= and append_dim= take mode, statistics and compute: all else is the file's"
            )
        data, plan = plan_in_place(
            data,
            target,
            wanted,
            region,
            append_dim,
            is_labelled=isinstance(obj, xr.DataArray | xr.Dataset),
            statistics=statistics,
        )
    else:
        plan = _plan_new(
            data, target, wanted, compressor, clevel, statistics, overwrite, storage_options
        )
    array, is_in_memory = _as_dask(data)
    written = _written(plan, array)
    if not compute:
        return written
    try:
        # data that are here already need no cluster
        written.compute(**({"scheduler": "threads"} if is_in_memory else {}))
    except BaseException as error:
        plan.sink.discard()
        error.add_note(plan.note())
        raise
    return None


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
    # takes no memory, whatever its shape
    zeros = np.broadcast_to(np.zeros((), dtype), tuple(shape))
    data = _as_data_array(zeros if dims is None else xr.DataArray(zeros, dims=tuple(dims)))
    first = {
        str(dim): xr.Variable((dim,), at + np.arange(data.sizes[dim]), {"units": "angstrom"})
        for dim, at in (origin or {}).items()
        if dim in data.dims
    }
    if len(first) < len(origin or {}) or (first and voxel_size is None):
        raise MrcError(f"origin is {origin!r}; accepted: {data.dims}, with a voxel_size")
    wanted = Wanted(mode=mode, labels=labels, byteorder=byteorder, voxel_size=voxel_size)
    plan = _plan_new(data.assign_coords(first), target, wanted, None, 0, False, overwrite, None)
    try:
        _begin(plan)
        _finish_plain(plan, Statistics())
    except BaseException:
        plan.sink.discard()
        raise


@dataclass(frozen=True, eq=False)
class Plan:
    """What is written where; the same for all tasks.

    Attributes
    ----------
    sink : ByteSink
    header : Header
        Without what only the pixels tell.
    extended : bytes
    mode : Mode
    shape : tuple of int, (*leading, n_rows, n_columns, *samples)
        Of the file's pixels.
    start : tuple of int
        Where the data begin in them.
    statistics : bool or "quick"
    known : Statistics or None
        Those of the pixels that the file has already; None where these are changed.
    compressor : str or None
    clevel : int
    """

    sink: ByteSink
    header: Header
    extended: bytes
    mode: Mode
    shape: tuple[int, ...]
    start: tuple[int, ...]
    statistics: bool | Literal["quick"] = True
    known: Statistics | None = dataclasses.field(default_factory=Statistics)
    compressor: str | None = None
    clevel: int = 1
    offset: int = HEADER_SIZE

    @property
    def size(self) -> int:
        """Bytes of the file, before any compression."""
        n_sections, n_rows, n_columns = self.header.nz, self.header.ny, self.header.nx
        return self.offset + n_sections * n_rows * self.mode.row_bytes(n_columns)

    @property
    def measures(self) -> bool:
        """Whether the pixels are to be measured."""
        return bool(self.statistics) and self.known is not None and self.mode.decoded != "c8"

    def note(self) -> str:
        """Return what a failure means for the file."""
        from mrc_xarray.sink import InPlace

        if isinstance(self.sink, InPlace):
            return f"{self.sink.name} was being changed in place, and its header was not"
        return f"{self.sink.name} was not written; what was there before is untouched"


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
    if compressor is not None:
        if not 0 <= clevel <= 9:
            raise ValueError(f"clevel is {clevel}; accepted: 0 to 9")
        wanted = dataclasses.replace(wanted, codec=encoder(compressor))
    heading = make_heading(data, sink.name, wanted)
    header, mode = heading.header, heading.mode
    if compressor is not None:
        if mode.number == 101:
            raise MrcError("4-bit data (mode 101) can't be compressed; compressor=None")
        if header.ny * mode.row_bytes(header.nx) > LARGEST_BLOCK:
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
        return obj[names[0]]
    if isinstance(obj, xr.DataArray):
        return obj
    if not hasattr(obj, "dask"):
        obj = np.asarray(obj)
    default = {2: ("y", "x"), 3: ("z", "y", "x"), 4: ("volume", "z", "y", "x")}.get(obj.ndim)
    if default is None:
        raise MrcError(
            f"the array has the shape {obj.shape}; accepted: two dimensions (an image), three (a "
            "volume) or four (a stack of volumes). Others need names: xarray.DataArray(..., dims=)"
        )
    return xr.DataArray(obj, dims=default)


def _as_dask(data: xr.DataArray) -> tuple[dask.array.Array, bool]:
    """Return the pixels as a dask array, and whether that was made here."""
    if data.chunks is not None:
        return data.data, False
    section = prod(data.shape[-2:]) * data.dtype.itemsize
    chunks = {dim: data.sizes[dim] for dim in data.dims[-2:]}
    wanted = max(1, _BLOCK // section)
    for dim in reversed(data.dims[:-2]):
        chunks[dim] = min(data.sizes[dim], wanted)
        wanted = max(1, wanted // data.sizes[dim])
    return data.chunk(chunks).data, True


def _written(plan: Plan, array: dask.array.Array) -> Delayed:
    """Return the task that has the file complete, with all that it needs."""
    from dask.base import tokenize
    from dask.delayed import Delayed, delayed
    from dask.highlevelgraph import HighLevelGraph

    token = tokenize(plan.sink, array.name)
    planned = delayed(plan, name=f"plan-mrc-{token}", traverse=False)
    begun = delayed(_begin)(planned, dask_key_name=f"begin-mrc-{token}")
    graph, last = (_graph_plain if plan.compressor is None else _graph_mrcz)(
        plan, array, begun, token
    )
    finish = _finish_plain if plan.compressor is None else _finish_mrcz
    name = f"to-mrc-{token}"
    graph[name] = (finish, begun.key, last)
    return Delayed(name, HighLevelGraph.from_collections(name, graph, dependencies=()))


def _graph_plain(
    plan: Plan, array: dask.array.Array, begun: Delayed, token: str
) -> tuple[dict[Any, Any], Any]:
    """Write every block at its own place, and join the statistics as a tree."""
    from dask.base import optimize
    from dask.core import flatten

    if plan.mode.samples or plan.mode.number == 101:
        # the samples of a pixel are neighbours, and two pixels of 4 bits share a byte
        array = array.rechunk({array.ndim - 1: -1})
    written = _by_block(_write_block, plan, array, begun, f"write-mrc-{token}")
    (written,) = optimize(written)
    graph = dict(written.__dask_graph__())
    keys = list(flatten(written.__dask_keys__()))
    level = 0
    while len(keys) > 1 or not level:
        joined = {
            (f"join-mrc-{token}", level, i): (_join, keys[i * _JOINED : (i + 1) * _JOINED])
            for i in range(-(-len(keys) // _JOINED))
        }
        graph |= joined
        keys, level = list(joined), level + 1
    return graph, keys[0]


def _graph_mrcz(
    plan: Plan, array: dask.array.Array, begun: Delayed, token: str
) -> tuple[dict[Any, Any], Any]:
    """Compress blocks of whole sections side by side, and append them one after the other.

    An append needs the place where the one before it ended, and no more: blocks are written by
    the worker that compressed them. A block is not begun before the one some way ahead of it is
    in the file, so that compressed blocks don't pile up.
    """
    import dask.array
    from dask.base import optimize
    from dask.core import flatten
    from dask.highlevelgraph import HighLevelGraph

    array = array.rechunk(_section_chunks(array, len(plan.shape) - 2 - len(plan.mode.samples)))
    # placeholders, which get their tasks when the rest is optimised
    name = f"turn-mrc-{token}"
    indices = list(np.ndindex(array.numblocks))
    turns = dask.array.Array(
        HighLevelGraph.from_collections(
            name, {(name, *index): np.zeros((1,) * array.ndim) for index in indices}, ()
        ),
        name,
        chunks=tuple((1,) * n for n in array.numblocks),
        dtype=float,
    )
    compressed = _by_block(_compress_block, plan, array, begun, f"compress-mrc-{token}", turns)
    (compressed,) = optimize(compressed)
    graph = dict(compressed.__dask_graph__())
    window = 2 * _n_threads() + 2
    last: Any = None
    appended: list[Any] = []
    for i, (index, key) in enumerate(
        zip(indices, flatten(compressed.__dask_keys__()), strict=True)
    ):
        append = (f"append-mrc-{token}", i)
        graph[append] = (_append, begun.key, key, last)
        if i >= window:
            graph[(name, *index)] = (_turn, appended[i - window])
        appended.append(append)
        last = append
    return graph, last


def _by_block(
    function: Any,
    plan: Plan,
    array: dask.array.Array,
    begun: Delayed,
    name: str,
    *others: dask.array.Array,
) -> dask.array.Array:
    """Map a function over the blocks of an array; what it returns is one object a block."""
    import dask.array
    from dask.delayed import delayed

    starts = tuple(
        np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64) for sizes in array.chunks
    )
    # one object that is sent once, and not a number in each of many tasks
    mapped: dask.array.Array = dask.array.map_blocks(
        function,
        array,
        *others,
        plan=begun,
        starts=delayed(starts, name=f"starts-{name}", traverse=False),
        name=name,
        dtype=object,
        chunks=tuple((1,) * n for n in array.numblocks),
        meta=np.empty((0,) * array.ndim, object),
    )
    return mapped


def _section_chunks(array: dask.array.Array, n_leading: int) -> dict[int, Any]:
    """Return chunks of whole sections that follow each other in the file, no larger than now."""
    chunks: dict[int, Any] = dict.fromkeys(range(n_leading, array.ndim), -1)
    if n_leading > 1:
        n_sections = prod(max(sizes) for sizes in array.chunks[:n_leading])
        for axis in reversed(range(n_leading)):
            chunks[axis] = max(1, min(array.shape[axis], n_sections))
            n_sections //= array.shape[axis]
    return chunks


def _n_threads() -> int:
    """Return how many tasks can run at once."""
    from mrc_xarray.array import cores

    try:
        from distributed import default_client

        return sum(default_client().nthreads().values()) or cores()
    except (ImportError, ValueError):
        return cores()


# ------------------------------------------------------------------------------- the tasks


def _begin(plan: Plan) -> Plan:
    """Make the file, and give the plan to those that write to it."""
    plan.sink.begin(0 if plan.compressor else plan.size)
    return plan


def _write_block(
    block: Array, plan: Plan, starts: tuple[Any, ...], block_id: tuple[int, ...] = ()
) -> Array:
    at = _place(plan, starts, block_id)
    values = cast(block, plan.mode)
    measured = _measure(plan, values, at)
    n_outer = len(plan.shape) - 1 - len(plan.mode.samples)
    row = plan.mode.row_bytes(plan.header.nx)
    shape = (*plan.shape[:n_outer], row)
    first_byte = at[n_outer] * row // plan.header.nx
    stored = pack(values, plan.mode, plan.header.byteorder)
    plan.sink.write(
        (plan.offset + offset, part)
        for offset, part in runs(stored, shape, (*at[:n_outer], first_byte))
    )
    return _one(measured, block.ndim)


def _compress_block(
    block: Array,
    turn: Array,
    plan: Plan,
    starts: tuple[Any, ...],
    block_id: tuple[int, ...] = (),
) -> Array:
    del turn
    values = cast(block, plan.mode)
    measured = _measure(plan, values, _place(plan, starts, block_id))
    stored = pack(values, plan.mode, plan.header.byteorder)
    assert plan.compressor is not None
    blocks = [
        encode_block(
            section,
            compressor=plan.compressor,
            level=plan.clevel,
            typesize=np.dtype(plan.mode.stored).itemsize,
        )
        for section in stored.reshape(-1, *stored.shape[-2:])
    ]
    return _one((measured, blocks), block.ndim)


def _turn(appended: Any) -> Array:
    """Let a block begin."""
    del appended
    return np.zeros(())


def _append(
    plan: Plan, compressed: Array, before: tuple[int, Statistics] | None
) -> tuple[int, Statistics]:
    """Write blocks behind the others, and return where they end."""
    end, statistics = (plan.offset, Statistics()) if before is None else before
    measured, blocks = compressed.item()
    parts = []
    for block in blocks:
        parts.append((end, block))
        end += len(block)
    plan.sink.write(parts)
    return end, statistics.joined(measured)


def _join(blocks: list[Any]) -> Statistics:
    joined = Statistics()
    for block in blocks:
        joined = joined.joined(block.item() if isinstance(block, np.ndarray) else block)
    return joined


def _finish_plain(plan: Plan, measured: Statistics) -> None:
    known = Statistics() if plan.known is None else plan.known
    fields = known.joined(measured).fields() if plan.measures else Statistics().fields()
    header = plan.header.replaced(**fields)
    plan.sink.finish(header.encode() + plan.extended)


def _finish_mrcz(plan: Plan, appended: tuple[int, Statistics]) -> None:
    end, measured = appended
    header = plan.header.replaced(packed_bytes=end - plan.offset, **measured.fields())
    plan.sink.finish(header.encode() + plan.extended)


def _place(plan: Plan, starts: tuple[Any, ...], block_id: tuple[int, ...]) -> tuple[int, ...]:
    """Return the first element of a block in the file."""
    return tuple(
        first + int(along[i]) for first, along, i in zip(plan.start, starts, block_id, strict=True)
    )


def _measure(plan: Plan, values: Array, at: tuple[int, ...]) -> Statistics:
    if not plan.measures:
        return Statistics()
    if plan.statistics == "quick":
        n_leading = len(plan.shape) - 2 - len(plan.mode.samples)
        if any(at[:n_leading]):
            return Statistics()
        values = values[(0,) * n_leading]
    return Statistics.of(values)


def _one(result: Any, ndim: int) -> Array:
    """Wrap a block's result as the one element of an array."""
    wrapped = np.empty((1,) * ndim, object)
    wrapped[(0,) * ndim] = result
    return wrapped
