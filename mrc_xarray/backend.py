"""The engine: xarray's contract, and nothing else.

xarray imports this module for every ``open_dataset`` without an engine, on any file: it must
be quick, and must not import dask or fsspec.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO

import xarray as xr
from xarray.backends import BackendEntrypoint

from mrc_xarray.errors import MrcWarning, warn
from mrc_xarray.labels.dataset import to_dataset
from mrc_xarray.mrc import reading
from mrc_xarray.storage import Target, open_decoded, open_source
from mrc_xarray.storage.codecs import first_bytes
from mrc_xarray.suffixes import MRC_SUFFIXES, stem_and_suffix

__all__ = ["MrcBackendEntrypoint"]


class MrcBackendEntrypoint(BackendEntrypoint):
    """Open MRC files with xarray: ``xr.open_dataset(target, engine="mrc")``."""

    description = (
        "Open electron-microscopy MRC and MRCZ files (.mrc, .mrcs, .mrcz, .map, .rec, .st)"
    )
    supports_groups = True
    open_dataset_parameters = (
        "filename_or_obj",
        "drop_variables",
        "storage_options",
        "layout",
        "scan_shape",
        "sections_per_frame",
        "dims",
        "units",
        "origin",
        "mode0",
        "convention",
        "byteorder",
        "metadata_file",
        "scan_file",
        "truncated",
        "mmap",
        "strict",
    )

    def open_dataset(  # type: ignore[override]  # xarray's own engines add keywords, too
        self,
        filename_or_obj: Target,
        *,
        drop_variables: str | Iterable[str] | None = None,
        storage_options: dict[str, Any] | None = None,
        layout: str = "auto",
        scan_shape: tuple[int, int] | None = None,
        sections_per_frame: int | None = None,
        dims: Sequence[str] | None = None,
        units: str = "angstrom",
        origin: str = "auto",
        mode0: str = "auto",
        convention: str = "ccpem",
        byteorder: str = "auto",
        metadata_file: Target | None = "auto",
        scan_file: Target | None = "auto",
        truncated: str = "error",
        mmap: bool = False,
        strict: bool = False,
        **unknown: Any,
    ) -> xr.Dataset:
        """Open one MRC file.

        Reads the header, and no pixels.

        Parameters
        ----------
        filename_or_obj : path, URL, bytes or binary file object
            Any URL that fsspec knows. Bytes only with ``chunks=None``.
        drop_variables : str or iterable of str, optional
            Variables and coordinates to leave out.
        storage_options : dict, optional
            For fsspec; they go to the workers of a cluster, too.
        layout : {"auto", "image", "image_stack", "volume", "volume_stack"}
            What the sections are. ``data.attrs`` tell which rule decided.
        scan_shape : (int, int), optional
            ``(scan_y, scan_x)``: fold a stack of frames into a scan.
        sections_per_frame : int, optional
            Sections that make one frame of an image stack, as its channels: what mrcz calls
            slices. With ``layout="volume_stack"``, the sections of one volume. By default as
            the file says.
        dims : sequence of str, optional
            Your own names for the dimensions of ``data``, slowest first.
        units : {"angstrom", "nm", "pm", "um"}
            Of the spatial coordinates.
        origin : {"auto", "origin", "nstart", "zero"}
            Where the first voxel's position comes from: ORIGIN if set, else N*START (auto), one
            of the two, or 0.
        mode0 : {"auto", "int8", "uint8"}
            What 8-bit data are. ``data.attrs["mode0_assumption"]`` tells what decided.
        convention : {"ccpem", "eman2"}
            Which table MODE is looked up in; "eman2" is mrcz's other one.
        byteorder : {"auto", "little", "big"}
        metadata_file : "auto", None, path, URL or binary file object
            A sidecar: Direct Electron's ``_info.txt``, SerialEM's ``.mdoc``, or a list of tilt
            angles (``.tlt``, ``.rawtlt``). By default one beside the file is taken; in a store,
            only that of a Direct Electron movie is looked for. None for none.
        scan_file : "auto", None, path, URL or binary file object
            Direct Electron's ``_scan_coordinates.csv``, likewise.
        truncated : {"error", "trim"}
            Whether to open the whole sections of a file that has fewer than promised.
        mmap : bool
            Return views of a map of the file, rather than arrays that own their memory.
            Writing to them does not touch the file.
        strict : bool
            Raise where a header would have to be repaired, as mrcfile does.

        Returns
        -------
        xarray.Dataset
            One variable, ``data``: shape (sections..., rows, columns), lazy. Spatial coordinates
            in `units`; a dimension whose voxel size is unknown has none.

        Raises
        ------
        MrcError
            If the file can't be read as MRC.
        OSError
            As `open` raises, if the file is missing or may not be read.

        Warns
        -----
        MrcWarning
            For each thing that had to be repaired or assumed.
        """
        if unknown:
            raise TypeError(_unknown_arguments(unknown))
        source, head = open_decoded(filename_or_obj, storage_options, salvages=truncated == "trim")
        file = reading.read(
            source,
            head,
            layout=layout,
            scan_shape=scan_shape,
            sections_per_frame=sections_per_frame,
            origin=origin,
            mode0=mode0,
            convention=convention,
            byteorder=byteorder,
            metadata_file=_sidecar(metadata_file, storage_options),
            scan_file=_sidecar(scan_file, storage_options),
            truncated=truncated,
            strict=strict,
        )
        for problem in file.problems:
            warn(problem.message(file.name))
        if not file.sections.is_compressed:
            source = source.until(file.sections.offset + file.sections.nbytes)
        ds = to_dataset(file, source, dims=dims, units=units, mmap=mmap)
        if drop_variables is not None:
            ds = ds.drop_vars(_listed(drop_variables), errors="ignore")
        if "://" in file.name:
            # otherwise xarray stores the complete URL, which may contain a password
            ds.encoding["source"] = file.name
        # open_mfdataset calls what is set here, without asking whether anything is
        ds.set_close(_nothing_to_close)
        return ds

    def open_groups_as_dict(  # type: ignore[override]  # with our keywords, as open_dataset
        self, filename_or_obj: Target, **options: Any
    ) -> dict[str, xr.Dataset]:
        """Open a Direct Electron movie and the images beside it; see `open_datatree`."""
        from mrc_xarray.labels.tree import groups

        storage_options = options.get("storage_options")

        def open_image(target: Target) -> xr.Dataset:
            return self.open_dataset(
                target,
                storage_options=storage_options,
                units=options.get("units", "angstrom"),
                metadata_file=None,
                drop_variables=options.get("drop_variables"),
                strict=options.get("strict", False),
            )

        movie = self.open_dataset(filename_or_obj, **options)
        roles = movie["data"].dims
        if options.get("dims") is not None:
            with warnings.catch_warnings():
                # they were told a moment ago
                warnings.simplefilter("ignore", MrcWarning)
                roles = self.open_dataset(filename_or_obj, **options | {"dims": None})["data"].dims
        source = open_source(filename_or_obj, storage_options)
        return groups(movie, roles, source, open_image)

    def open_datatree(  # type: ignore[override]  # with our keywords, as open_dataset
        self, filename_or_obj: Target, **options: Any
    ) -> xr.DataTree:
        """Open a Direct Electron movie, with what was recorded beside it.

        Parameters
        ----------
        filename_or_obj : path, URL or binary file object
            The movie's, in ``_movie.mrc``; another file is a tree of one Dataset.
        **options
            As for `open_dataset`; they are for the movie.

        Returns
        -------
        DataTree
            The movie at the root, virtual images at ``virtual/<name>``, external detectors at
            ``external/<name>``, the sum of all frames at ``final``. An image has the dimensions
            of the movie whose sizes it has, and else some with its own name before.

        Raises
        ------
        MrcError, OSError
            As `open_dataset`.
        """
        return xr.DataTree.from_dict(self.open_groups_as_dict(filename_or_obj, **options))

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Tell from its content whether a local file is MRC; a URL from its suffix alone."""
        try:
            if isinstance(filename_or_obj, str | os.PathLike):
                path = os.fspath(filename_or_obj)
                if "://" in path or "::" in path:
                    return stem_and_suffix(path)[1] in MRC_SUFFIXES
                path = os.path.expanduser(path)
                if not os.path.isfile(path):
                    # reading from a pipe would wait for its writer
                    return False
                with open(path, "rb") as file:
                    return _begins_mrc(file)
            if isinstance(filename_or_obj, bytes | bytearray | memoryview):
                return _begins_mrc(io.BytesIO(filename_or_obj))
            before = filename_or_obj.tell()
            try:
                filename_or_obj.seek(0)
                return _begins_mrc(filename_or_obj)
            finally:
                filename_or_obj.seek(before)
        except Exception:
            # xarray asks every engine about every file, and any of them may be anything
            return False


def _begins_mrc(file: BinaryIO) -> bool:
    return reading.looks_like_mrc(first_bytes(file, reading.PLAUSIBLE_SIZE))


def _sidecar(
    target: Target | None, storage_options: dict[str, Any] | None
) -> reading.SidecarChoice:
    """Read the sidecar that the user names, if any is named."""
    if target is None or (isinstance(target, str) and target == "auto"):
        return target  # type: ignore[return-value]  # of the strings, only "auto" is left
    source, head = open_decoded(target, storage_options)
    raw = head if len(head) == source.known_size else source.read(0, source.size)
    return reading.TextFile(os.path.basename(source.name), raw)


def _nothing_to_close() -> None:
    """Close nothing: no file is kept open."""


def _listed(names: str | Iterable[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _unknown_arguments(unknown: dict[str, Any]) -> str:
    if "navigation_shape" in unknown:
        return (
            "navigation_shape= is RosettaSciIO's, in the order (x, y); "
            "here write scan_shape=(y, x)"
        )
    return f"unknown arguments: {', '.join(unknown)}"
