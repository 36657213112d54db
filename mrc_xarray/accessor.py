"""``ds.mrc`` and ``da.mrc``: what the attributes and coordinates say about the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xarray as xr

from mrc_xarray.labels.spacing import voxel_size
from mrc_xarray.mrc.header import Header
from mrc_xarray.storage import WriteTarget
from mrc_xarray.writing import extended_header as extended
from mrc_xarray.writing.provenance import Provenance

__all__ = ["MrcAccessor"]


@xr.register_dataset_accessor("mrc")  # type: ignore[no-untyped-call]  # not typed in xarray
@xr.register_dataarray_accessor("mrc")  # type: ignore[no-untyped-call]
class MrcAccessor:
    """The header and metadata of the file that the data were opened from.

    They are stored in the attributes of ``data``, which arithmetic, netCDF and Zarr preserve.
    """

    def __init__(self, obj: xr.Dataset | xr.DataArray) -> None:
        self._obj = obj

    @property
    def header(self) -> Header:
        """Every field of the header as found in the file, typed and named.

        Raises
        ------
        AttributeError
            If the data were not opened from an MRC file, or lost their attributes.
        """
        header = self._provenance().header
        if header is None:
            raise AttributeError(
                "the data have no attribute 'mrc_header': they were not opened with "
                "engine='mrc', or an operation dropped their attributes"
            )
        return header

    @property
    def voxel_size(self) -> dict[str, float]:
        """The voxel size in Å along each spatial dimension, from the coordinates.

        It is correct after slicing and coarsening. A dimension without a regular coordinate is
        left out; a dimension of length 1 has the voxel size that it was opened with.
        """
        # for its warning about malformed attributes, such as a spacing
        Provenance.of(self._obj)
        return voxel_size(self._obj)

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of the file and its sidecars that are not in the header; may be empty."""
        return self._provenance().metadata

    @property
    def extended_header(self) -> bytes:
        """The bytes between header and pixels, read from the file; empty if there are none.

        Raises
        ------
        OSError
            If the file no longer exists.
        MrcError
            If the file changed since it was opened, or if the data were not opened from the MRC
            file in this session. netCDF and Zarr do not store the extended header.
        """
        return self._provenance().extended_header()

    @property
    def extended_fields(self) -> xr.Dataset:
        """All fields of the extended header, read from the file; empty if it has no fields.

        The variables have the names and units of the file. Fields with one value per section
        have the dimension of the sections, and others have none.

        Raises
        ------
        OSError, MrcError
            As `extended_header`.
        """
        return extended.fields(self._opened())

    def plot_slices(self, at: Mapping[str, float] | None = None, **options: Any) -> Any:
        """Draw central slices; see `mrc_xarray.tools.plot.plot_slices`."""
        from mrc_xarray.tools.plot import plot_slices

        return plot_slices(self._opened(), at, **options)

    def to_file(self, target: WriteTarget, **options: Any) -> Any:
        """Write the data to an MRC or MRCZ file; see `mrc_xarray.to_mrc` for all arguments."""
        from mrc_xarray.writing.writer import to_mrc

        return to_mrc(self._obj, target, **options)

    def _provenance(self) -> Provenance:
        data = self._data()
        return Provenance.of(xr.Dataset() if data is None else data)

    def _opened(self) -> xr.DataArray:
        data = self._data()
        if data is None:
            raise AttributeError("the Dataset has no variable that was opened with engine='mrc'")
        return data

    def _data(self) -> xr.DataArray | None:
        """Return the variable that was opened from the file, which may have another name now."""
        if isinstance(self._obj, xr.DataArray):
            return self._obj
        variables = self._obj.data_vars
        opened = (v for v in variables.values() if "mrc_header" in v.attrs)
        return variables["data"] if "data" in variables else next(opened, None)
