"""HyperSpy and RosettaSciIO: labelled data to and from their signals.

Both directions use the dictionary that HyperSpy and RosettaSciIO share: data, axes, metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mrc_xarray.bridges.axes import axes_of, coords_of
from mrc_xarray.bridges.signal_metadata import attrs_of, metadata_of
from mrc_xarray.errors import MrcError
from mrc_xarray.installation import optional
from mrc_xarray.writing.arrays import as_dask

if TYPE_CHECKING:
    from hyperspy.signal import BaseSignal

__all__ = ["from_hyperspy", "from_rosettasciio", "to_hyperspy"]

# the samples of a pixel, as HyperSpy names them
_SAMPLES = {"rgb": "RGB", "rgba": "RGBA"}


def to_hyperspy(data: xr.DataArray, *, lazy: bool = True) -> BaseSignal:
    """Return the data as a HyperSpy signal.

    Spectra become a ``Signal1D``, other data a ``Signal2D`` with the last two dimensions as signal
    axes, and complex data a ``ComplexSignal1D`` or ``ComplexSignal2D``. RGB images have HyperSpy's
    dtype ``rgb8``. If pyxem is installed, diffraction patterns become an
    ``ElectronDiffraction2D``. `mrc_xarray.from_hyperspy` is the way back.

    Parameters
    ----------
    data : DataArray
        Of one dimension or more.
    lazy : bool
        Whether the signal is lazy: its data are a dask array. Otherwise the pixels are read.

    Returns
    -------
    hyperspy.signal.BaseSignal
        The axes have the names of the dimensions, and the calibration and units of the
        coordinates. A dimension without a coordinate has an axis without units. An irregular
        coordinate, such as the tilt angles of a series, is a ``DataAxis`` if its values increase
        or decrease. ``metadata`` has the values that HyperSpy has names for, such as
        ``Acquisition_instrument.TEM.beam_energy``. ``original_metadata`` has the attributes, the
        metadata of the file, and the coordinates that are not axes.

    Raises
    ------
    ImportError
        If HyperSpy is not installed.
    MrcError
        If the data have no dimension, or an empty one.
    """
    dict2signal = optional("hyperspy.io", "to_hyperspy").dict2signal
    samples = _samples(data)
    frame = data.isel({data.dims[-1]: 0}) if samples else data
    axes = axes_of(frame)
    pixels = as_dask(data) if lazy else data.values
    metadata, original = metadata_of(data, axes)
    signal: BaseSignal = dict2signal(
        {
            "data": _joined(pixels, samples) if samples else pixels,
            "axes": axes,
            "metadata": metadata,
            "original_metadata": original,
        },
        lazy=lazy,
    )
    return signal


def from_hyperspy(signal: BaseSignal) -> xr.DataArray:
    """Return a HyperSpy signal as labelled data.

    Parameters
    ----------
    signal : hyperspy.signal.BaseSignal
        Lazy data remain lazy, and data in memory are not copied.

    Returns
    -------
    DataArray
        With the name ``data``. The dimensions are the axes in the order of the array, which is the
        reverse of the order in which HyperSpy prints them. The names are those of the axes, with
        these exceptions: axes without a name get one by their place; ``x`` and ``y`` of
        diffraction patterns are ``kx`` and ``ky``; ``x`` and ``y`` of a scan that has frames are
        ``scan_x`` and ``scan_y``; an axis ``tilt_angle`` is the coordinate ``tilt_angle`` along
        ``image``. An axis without units has no coordinate. A signal that `to_hyperspy` made gets
        its attributes back. Other signals have the beam energy, magnification and similar values
        by the names of this package, and all of their metadata as JSON in ``mrc_metadata``.

    Raises
    ------
    TypeError
        If `signal` is not a signal.
    MrcError
        If the signal is ragged.
    """
    if not hasattr(signal, "axes_manager"):
        raise TypeError(
            f"the signal is {type(signal).__name__}; accepted: a HyperSpy signal. hs.load returns "
            "a list for a file that has several"
        )
    return from_rosettasciio(
        {
            "data": signal.data,
            "axes": [*signal.axes_manager.as_dictionary().values()],
            "metadata": signal.metadata.as_dictionary(),
            "original_metadata": signal.original_metadata.as_dictionary(),
        }
    )


def from_rosettasciio(signal: Mapping[str, Any]) -> xr.DataArray:
    """Return a signal of RosettaSciIO as labelled data.

    Parameters
    ----------
    signal : mapping
        One of the dictionaries in the list that ``rsciio.NAME.file_reader`` returns. Lazy data
        remain lazy. The functions under ``"post_process"`` work on HyperSpy signals, and are not
        applied.

    Returns
    -------
    DataArray
        As from `from_hyperspy`.

    Raises
    ------
    TypeError
        If `signal` is not a dictionary with data.
    ImportError
        If an axis is a function, which HyperSpy calculates, and HyperSpy is not installed.
    MrcError
        If the data are ragged, or the axes are not those of the data.
    """
    if not isinstance(signal, Mapping) or "data" not in signal:
        raise TypeError(
            f"the signal is {type(signal).__name__}; accepted: a dictionary with data. The "
            "readers of RosettaSciIO return a list of them: "
            "from_rosettasciio(file_reader(name)[0])"
        )
    pixels = signal["data"]
    if not hasattr(pixels, "dtype"):
        pixels = np.asanyarray(pixels)
    if pixels.dtype == object:
        raise MrcError("the signal is ragged: its arrays differ in size; accepted: one array")
    axes = signal.get("axes")
    if axes is None:
        axes = [{} for _ in pixels.shape]
    if pixels.shape == (1,) and not axes:
        # HyperSpy has no arrays without a dimension
        pixels = pixels[0]
    if len(axes) != pixels.ndim:
        shape = f"data of shape {pixels.shape}"
        raise MrcError(
            f"the signal has {len(axes)} axes, and {shape}; accepted: one per dimension"
        )
    sizes = [pixels.shape[axis.get("index_in_array", i)] for i, axis in enumerate(axes)]
    dims, coords = coords_of(
        [{"size": size} | dict(axis) for size, axis in zip(sizes, axes, strict=True)]
    )
    if pixels.dtype.names:
        dims = (*dims, "rgba" if "A" in pixels.dtype.names else "rgb")
        pixels = np.stack([pixels[name] for name in pixels.dtype.names], axis=-1)
    return xr.DataArray(pixels, coords, dims, name="data", attrs=attrs_of(signal))


def _samples(data: xr.DataArray) -> str:
    """Return the names of the samples of a pixel, if HyperSpy has a dtype for them."""
    names = _SAMPLES.get(str(data.dims[-1]), "") if data.ndim else ""
    is_known = data.dtype in (np.uint8, np.uint16) and data.shape[-1:] == (len(names),)
    return names if is_known else ""


def _joined(pixels: Any, samples: str) -> Any:
    """Return pixels with one structure per pixel instead of a last dimension of samples."""
    dtype = np.dtype([(sample, pixels.dtype) for sample in samples])

    def join(block: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.ascontiguousarray(block).view(dtype)[..., 0]

    if not hasattr(pixels, "dask"):
        return join(pixels)
    complete = pixels.rechunk({pixels.ndim - 1: -1})
    return complete.map_blocks(join, dtype=dtype, drop_axis=pixels.ndim - 1)
