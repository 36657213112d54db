"""``ds.mrc`` and ``da.mrc``: what the attributes and coordinates say about the file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import xarray as xr

from mrc_xarray.labels.spacing import voxel_size
from mrc_xarray.mrc.header import Header
from mrc_xarray.storage import WriteTarget
from mrc_xarray.tools.extract import Border, Size, extract
from mrc_xarray.tools.planes import Thickness
from mrc_xarray.tools.plot import Norm, plot_slices
from mrc_xarray.tools.points import PointsArgument
from mrc_xarray.writing import extended_header as extended
from mrc_xarray.writing.provenance import Provenance

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure, SubFigure

__all__ = ["MrcAccessor"]


@xr.register_dataset_accessor("mrc")  # type: ignore[no-untyped-call]  # not typed in xarray
@xr.register_dataarray_accessor("mrc")  # type: ignore[no-untyped-call]
class MrcAccessor:
    """The header and metadata of the file that the data were opened from.

    They are stored in the attributes of ``data``, which arithmetic, netCDF and Zarr preserve.
    """

    def __init__(self, obj: xr.Dataset | xr.DataArray) -> None:
        self._obj = obj

    def __repr__(self) -> str:
        from mrc_xarray.tools.display import text

        return text(self._data())

    def _repr_html_(self) -> str:
        from mrc_xarray.tools.display import html

        return html(self._data())

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

    def plot_slices(
        self,
        at: Mapping[Any, float] | None = None,
        *,
        thickness: Thickness = None,
        norm: Norm = "linear",
        robust: tuple[float, float] | None = (1, 99),
        cmap: str | Colormap = "gray",
        scale_bar: bool = True,
        figure: Figure | SubFigure | None = None,
    ) -> Figure:
        """Draw three orthogonal slices of a volume, one image, or a scan and its frames.

        The slices of a volume share one contrast and one scale, and lines show where each slice
        cuts the others. A 4D scan is drawn as the image of one pixel of the camera, and the
        diffraction pattern at one position. Of a stack, one image or volume is drawn. Complex
        numbers are drawn as amplitudes.

        Positions increase to the right and upwards, as in xarray's own plots, but downwards for
        scans and diffraction patterns. All lengths in a figure have one unit: Å below 10 nm, nm
        below 10 µm, else µm; reciprocal lengths have 1/nm.

        Only what is drawn is read. A slice across the fastest dimension of an uncompressed file
        reads one pixel per row.

        Parameters
        ----------
        at : mapping of dimension to float, optional
            The point, in the units of the coordinates, or as an index along a dimension without a
            coordinate. The nearest voxels are drawn. The default along each dimension is the
            middle, index ``n // 2``.
        thickness : float or mapping of dimension to float, optional
            Draw the mean of a slab around the point instead of one section, in the units of the
            coordinates: of the sections whose positions are at most half of the thickness away. A
            number is for the three slices of a volume, or for the images of a stack; a mapping
            for any dimensions, such as ``{"kx": 0.2, "ky": 0.2}`` for a virtual detector.
        norm : {"linear", "log"}
            With "log", volumes, images and diffraction patterns are drawn on a logarithmic scale.
        robust : (float, float) or None, percent
            Percentiles of the finite values that are drawn black and white; None for the smallest
            and largest value.
        cmap : str or Colormap
        scale_bar : bool
            Whether to draw a bar of a round length, in pixels if the coordinate is missing or
            irregular.
        figure : Figure or SubFigure, optional
            By default a new figure of pyplot.

        Returns
        -------
        Figure
            For a volume with axes for the slices across z, y and x, in this order; for a scan with
            axes for its image and the pattern; for an image with one. For a SubFigure, the figure
            that contains it.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If the data have fewer than two dimensions, are empty, or do not contain the point.
        """
        return plot_slices(
            self._opened(),
            at,
            thickness=thickness,
            norm=norm,
            robust=robust,
            cmap=cmap,
            scale_bar=scale_bar,
            figure=figure,
        )

    def extract(
        self,
        points: PointsArgument,
        size: Size,
        border: Border = "pad",
        *,
        fill: complex | None = None,
    ) -> xr.DataArray:
        """Return boxes around points: subtomograms of a volume, or particles of micrographs.

        Nothing is read yet. Each box is a chunk of the result, and a task that reads the voxels of
        this box only. Data that dask has computed are the exception: their chunks are computed,
        once for all boxes.

        Parameters
        ----------
        points : array, shape (n, number of dimensions), or table
            Positions in the order of the dimensions and in the units of the coordinates, or voxel
            indices along a dimension without a coordinate. A table (pandas DataFrame, Dataset,
            structured array or mapping) has columns with the names of the dimensions, such as z, y
            and x, in any order. Its columns with units are converted. Points can have a position
            for each dimension of a box, or also for the others: ``(image, y, x)`` is in one image,
            and ``(y, x)`` in every image of a stack.
        size : int, sequence of int, or mapping of dimension to int
            The size of a box in voxels: along z, y and x, or ky and kx; along the last dimensions;
            or along any dimensions. Along the others, a point selects an index, or the box has
            everything.
        border : {"pad", "error", "drop"}
            What to do with boxes that are not completely inside the data: fill the voxels outside,
            raise an error, or leave the boxes out with a warning. `particle` is the row of each
            point in `points`, so that it shows what was left out.
        fill : number, optional
            The value of voxels outside. By default NaN, which means and sums of xarray skip, or 0
            for integers, which have no NaN.

        Returns
        -------
        DataArray, shape (n, other dimensions, box)
            Lazy, with the dimensions ``(particle, z, y, x)`` for a volume. The positions in a box
            are relative to its centre, the voxel ``size // 2``. This is the voxel that is nearest
            to the point; of a point exactly between two, it is the second one. Along `particle`
            are the positions of the point (``point_z`` and so on) and of this voxel
            (``center_z``), and the other columns of a table. Of more than 10,000 boxes, small ones
            share chunks of 1 MiB.

        Raises
        ------
        ValueError
            If points, size or fill are not accepted; the message says what is. With
            ``border="error"``, if a box is not completely inside the data.

        Warns
        -----
        MrcWarning
            If ``border="drop"`` leaves boxes out.
        """
        return extract(self._opened(), points, size, border, fill)

    def to_file(self, target: WriteTarget, **options: Any) -> Any:
        """Write the data to an MRC or MRCZ file; see `mrc_xarray.to_mrc` for all arguments."""
        from mrc_xarray.writing.writer import to_mrc

        return to_mrc(self._obj, target, **options)

    def view(self) -> Any:
        """Show the data in napari or ndv; see `mrc_xarray.bridges.viewer.view`."""
        from mrc_xarray.bridges.viewer import view

        return view(self._opened())

    def to_hyperspy(self, *, lazy: bool = True) -> Any:
        """Return a HyperSpy signal; see `mrc_xarray.bridges.hyperspy.to_hyperspy`."""
        from mrc_xarray.bridges.hyperspy import to_hyperspy

        return to_hyperspy(self._opened(), lazy=lazy)

    def to_relion(self, target: str | os.PathLike[str], **options: Any) -> None:
        """Write images as a particle set of RELION; see `mrc_xarray.bridges.relion.to_relion`."""
        from mrc_xarray.bridges.relion import to_relion

        to_relion(self._obj, target, **options)

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
