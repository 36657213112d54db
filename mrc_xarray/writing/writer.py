"""Write labelled data as MRC and MRCZ files: lazily, in parallel, and atomically."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import xarray as xr

from mrc_xarray.storage import Target, WriteTarget
from mrc_xarray.storage.locks import lock_in_place
from mrc_xarray.storage.sink import ByteSink
from mrc_xarray.text import printable
from mrc_xarray.voxel_size import VoxelSizeArgument
from mrc_xarray.writing.arrays import Data, as_dask, as_data_array, is_labelled
from mrc_xarray.writing.graph import client_of_user, write_task
from mrc_xarray.writing.in_place import as_first, plan_in_place
from mrc_xarray.writing.like import labelled_like
from mrc_xarray.writing.live import local_path
from mrc_xarray.writing.new_file import plan_new
from mrc_xarray.writing.options import WriteOptions
from mrc_xarray.writing.plan import Plan, begin, warn_not_finite
from mrc_xarray.writing.progress import Progress, check_progress, computed

if TYPE_CHECKING:
    from dask.delayed import Delayed

__all__ = ["to_mrc"]


def to_mrc(
    obj: Data,
    target: WriteTarget,
    *,
    mode: int | None = None,
    compressor: str | None = "auto",
    clevel: int = 1,
    compression: str | None = "auto",
    metadata: Mapping[str, Any] | None = None,
    extended_header: bytes | tuple[str, bytes] | None = None,
    like: Target | xr.DataArray | xr.Dataset | None = None,
    labels: Sequence[str] = (),
    statistics: bool | Literal["quick"] = True,
    voltage: float | None = None,
    c3: float | None = None,
    gain: float | None = None,
    byteorder: str = "little",
    voxel_size: VoxelSizeArgument = None,
    region: Mapping[str, Any] | None = None,
    append_dim: str | None = None,
    overwrite: bool = False,
    compute: bool = True,
    progress: Progress = "auto",
    storage_options: dict[str, Any] | None = None,
) -> Delayed | None:
    """Write data to an MRC or MRCZ file.

    Data of any size that are backed by dask are written in parallel, by dask's own scheduler, in
    the memory of a few chunks. A new file has a temporary name until it is complete, so that the
    target is the old file or the new one at every moment. It may be the file that the data are
    read from. With `region` or `append_dim`, an existing file is changed in place.

    Parameters
    ----------
    obj : DataArray, Dataset with one data variable, array, or list of 2-D arrays
        Shape (..., n_rows, n_columns). The dimensions determine the layout, and the coordinates
        determine voxel size and origin; see the Notes. Arrays without labels are an image, a
        volume or a stack of volumes, and a list of images of equal shape and dtype is a stack of
        images.
    target : path, URL, UPath or binary file object
        Workers of a cluster must see the same path. A name of another format, such as one in
        .zarr or .tif, is refused. A file for a store or a file object is first written to
        dask's ``temporary-directory``, and then sent. A file object must be open for writing. The
        file begins at its position, and what the object has after the file is cut off. The object
        is left open, at the end of the file. It need not be seekable.
    mode : int, optional
        MODE of the file: 0 (int8; uint8 data as uint8, with IMOD's stamp), 1 (int16), 2
        (float32), 3 (complex of int16), 4 (complex64), 6 (uint16), 7 (int32), 8 (uint32), 12
        (float16), 16 (RGB), 101 (4 bits). By default that of the file that the data were opened
        from if they still have its dtype, else the one that holds the data without loss.
        For modes of integers, floats are rounded to the nearest integer.
    compressor : {"auto", None, "zstd", "lz4", "lz4hc", "zlib", "blosclz"}
        Compressor of an MRCZ. "auto" is "zstd" for a target in .mrcz, and None for others. With
        the prefix ``"blosc2:"``, chunks have version 5, which only mrcz 0.6 and this package read.
    clevel : int
        Compression level of an MRCZ, 0 to 9.
    compression : {"auto", None, "gzip", "bzip2", "xz", "lzma", "zstd"}
        Codec of the stream that a plain MRC file is written into, whatever its name is. "auto" is
        the one that the suffix of the name says, such as .gz. It can't be combined with
        `compressor`.
    metadata : mapping, optional
        Written as JSON to the extended header, in addition to the metadata that an MRCZ was
        opened with.
    extended_header : bytes, or (str, bytes), optional
        The extended header, with its EXTTYP. By default, the one of the file that the data were
        opened from, as far as it is still valid.
    like : path, URL, file object, DataArray or Dataset, optional
        A file, or labelled data, whose coordinates, header, labels, extended header and layout the
        new file gets, as far as they hold for the data. Labels of the data win. It may be the file
        that is replaced. A coordinate holds if the data have its dimensions, with the same size.
    labels : sequence of str
        Texts of 80 characters at most, added after those that the data were opened with.
    statistics : bool or "quick"
        Whether to measure minimum, maximum, mean and standard deviation; "quick" measures only
        the first section. Of complex data, only the standard deviation is measured.
    voltage, c3, gain : float, optional
        In kV, mm, and electrons per count, in the header fields of mrcz.
    byteorder : {"little", "big"}
        Byte order of the file.
    voxel_size : float, (float, float, float), record array, or mapping of str to float or pair
        Replaces the steps of the coordinates: a number for all spatial dimensions, or (x, y, z),
        in ångström. Or a mapping by dimension, to a number in ångström or to a pair with its unit,
        such as ``{"kx": (0.01, "1/nm")}``. Steps that a header has no field for are stored as
        coordinates are.
    region : mapping of dimension to int, slice, mask or list of int, optional
        Fill this part of an existing plain file in place. Each dimension is selected by itself,
        as in ``isel``, and a dimension that is not named is selected completely. Data with fewer
        dimensions are broadcast: those with labels by the names of their dimensions, and others,
        such as a number, by NumPy's rule. A crash leaves the region partly filled. The statistics
        of the file become undetermined.
    append_dim : str, optional
        Add the data to a plain file in place, along its slowest dimension. The header is changed
        last. Data that lack this dimension are one image, section or volume. If there is no such
        file, it is created.
    overwrite : bool
        Whether to replace an existing file.
    compute : bool
        Whether to write now. Otherwise, return an object that writes when it is computed.
    progress : {"auto", True, False}
        Whether to show a progress bar. "auto" shows one in a notebook or a terminal, when writing
        takes more than two seconds.
    storage_options : dict, optional
        Options for fsspec.

    Returns
    -------
    dask.delayed.Delayed or None
        With ``compute=False``. If one of its tasks fails, the temporary file remains.

    Raises
    ------
    MrcError
        If no MRC file can hold the data or their coordinates. In place, also if the file is not
        the one that the write was planned for, if another write in this process changes it, or if
        the data are read from it.
    FileExistsError
        If the target exists and may not be replaced, even if it appeared during the write.
    OSError
        If writing fails, for example because of a full disk or a missing directory.
    TypeError, ValueError
        If an argument has a wrong type or value.

    Warns
    -----
    MrcWarning
        One, which lists all labels, and fields of the source's header, that the file can't hold.
        Another one after the write, if pixels are NaN or infinite; with ``compute=False``, it
        comes from the last task.

    Notes
    -----
    ``(y, x)`` is an image, ``(z, y, x)`` in any order a volume, ``(image, y, x)`` a stack of
    images, ``(volume, z, y, x)`` a stack of volumes. Other dimensions in front of the last two
    count the images of a stack. Coordinates in length units give CELLA, N*START and ORIGIN; the
    other fields are those of the file that the data were opened from, where they still hold. See
    ``docs/reference/format.md#header``, ``docs/reference/format.md#origin`` and
    ``docs/reference/format.md#mrcz``.
    """
    check_progress(progress)
    shown = progress if compute else None
    options = WriteOptions(
        mode=mode,
        compressor=compressor,
        clevel=clevel,
        compression=compression,
        metadata=metadata,
        extended_header=extended_header,
        like=like is not None,
        labels=labels,
        statistics=statistics,
        voltage=voltage,
        c3=c3,
        gain=gain,
        byteorder=byteorder,
        voxel_size=voxel_size,
        region=region,
        append_dim=append_dim,
        overwrite=overwrite,
        storage_options=storage_options,
    )
    if like is not None:
        data, unlike = labelled_like(obj, like, storage_options)
        return _write(plan_new(data, target, options, unlike), data, shown)
    data = as_data_array(obj, of_any_rank=region is not None)
    if not options.is_in_place:
        return _write(plan_new(data, target, options), data, shown)
    is_named = is_labelled(obj)
    path = local_path(target)
    if append_dim is not None and not os.path.exists(path):
        first = as_first(data, append_dim, path, is_labelled=is_named)
        # another process may create the file in the meantime
        with contextlib.suppress(FileExistsError):
            plan = plan_new(first, path, replace(options, append_dim=None))
            return _write(plan, first, shown)
    # of two appends at the same time, one would overwrite the other
    with lock_in_place(path, exclusive=region is None, waits=compute) as lock:
        plan, complete = plan_in_place(
            data, path, options, lock, is_labelled=is_named, is_delayed=not compute
        )
        return _write(plan, complete, shown)


def _write(plan: Plan, data: xr.DataArray, progress: Progress | None) -> Delayed | None:
    """Write the data as planned, or return a task that does, if `progress` is None."""
    if progress is None:
        from dask.delayed import delayed

        if not data.size:
            nothing: Delayed = delayed(None)
            return nothing
        finished = write_task(plan, as_dask(data), is_begun=False)
        completed: Delayed = delayed(partial(_complete, plan.sink))(finished)
        return completed
    if not data.size:
        # a region without a position, by an empty mask
        return None
    # data in memory need no cluster
    is_here = data.chunks is None and client_of_user() is not None
    scheduler = {"scheduler": "threads"} if is_here else {}
    try:
        with (begun := begin(plan)).lock:
            task = write_task(begun, as_dask(data), is_begun=True)
            n_not_finite = computed(task, progress, **scheduler)
            plan.sink.deliver()
    except BaseException as error:
        plan.sink.discard()
        error.add_note(printable(plan.sink.note))
        raise
    warn_not_finite(plan.sink.name, n_not_finite)
    return None


def _complete(sink: ByteSink, n_not_finite: int) -> None:
    """Do what is left to do after the tasks that write a file."""
    sink.deliver()
    warn_not_finite(sink.name, n_not_finite)
