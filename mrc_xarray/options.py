"""The arguments of ``xr.open_dataset(..., engine="mrc")``: defaults, documentation and checks."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, SupportsIndex

from mrc_xarray.text import did_you_mean
from mrc_xarray.voxel_size import VoxelSize, VoxelSizeArgument

if TYPE_CHECKING:
    from mrc_xarray.storage import Target

__all__ = ["OpenOptions"]


def _choice(*accepted: str) -> Any:
    """Declare an argument that is one of several texts; the first one is the default."""
    return dataclasses.field(default=accepted[0], metadata={"accepted": accepted})


@dataclass(frozen=True, kw_only=True)
class OpenOptions:
    """The arguments that the engine adds to `xarray.open_dataset`.

    Parameters
    ----------
    storage_options : dict, optional
        For fsspec. They are also sent to the workers of a cluster.
    layout : {"auto", "image", "image_stack", "volume", "volume_stack"}
        What the sections are. ``data.attrs["mrc_layout_rule"]`` says which rule decided.
    scan_shape : (int, int), optional
        ``(scan_y, scan_x)``: fold a stack of frames into a scan.
    sections_per_frame : int, optional
        The number of sections that make one frame of an image stack, as its channels; mrcz calls
        them slices. With ``layout="volume_stack"``, the number of sections in one volume. By
        default it is read from the file.
    dims : sequence of str, optional
        Your own names for the dimensions of ``data``, slowest first.
    units : {"angstrom", "nm", "pm", "um"}
        Units of the spatial coordinates.
    voxel_size : float, (float, float, float), record array, or mapping of str to float or pair
        Replaces the voxel size that the file and its sidecars give: a number for x, y and z, or
        (x, y, z), in ångström, also as ``mrcfile.open(...).voxel_size`` returns it. Or a mapping
        by dimension, to a number in ångström or to a pair with its unit:
        ``{"scan_x": (0.5, "nm"), "kx": (0.01, "1/nm")}``.
    origin : {"auto", "origin", "nstart", "zero"}
        Where the position of the first voxel comes from: ORIGIN if it is set, else N*START, else
        CCP4's SKWTRN ("auto"); one of the first two; or 0.
    mode0 : {"auto", "int8", "uint8"}
        The dtype of 8-bit data. ``data.attrs["mode0_assumption"]`` says what decided. "int8" and
        "uint8" also read bytes that would be taken for two 4-bit pixels each.
    convention : {"ccpem", "eman2"}
        The table of mode numbers; "eman2" is mrcz's second one.
    byteorder : {"auto", "little", "big"}
        The byte order of the file, if its header is misleading.
    metadata_file : "auto", None, path, URL or binary file object
        A sidecar: Direct Electron's ``_info.txt``, SerialEM's ``.mdoc``, or a list of tilt angles
        (``.tlt``, ``.rawtlt``). By default, one next to the file is used; in a store, only two of
        the possible names are looked for. None for no sidecar.
    scan_file : "auto", None, path, URL or binary file object
        Direct Electron's ``_scan_coordinates.csv``, likewise.
    truncated : {"error", "trim"}
        Whether to open the complete sections of a file that has fewer than its header promises.
    mmap : bool
        Return views of a map of the file, rather than arrays that own their memory. Writing to
        them does not change the file.
    strict : bool
        Raise an error where the header would have to be repaired, as mrcfile does.
    """

    storage_options: dict[str, Any] | None = None
    layout: str = _choice("auto", "image", "image_stack", "volume", "volume_stack")
    scan_shape: tuple[int, int] | None = None
    sections_per_frame: int | None = None
    dims: Sequence[str] | None = None
    units: str = _choice("angstrom", "nm", "pm", "um")
    voxel_size: VoxelSizeArgument = None
    origin: str = _choice("auto", "origin", "nstart", "zero")
    mode0: str = _choice("auto", "int8", "uint8")
    convention: str = _choice("ccpem", "eman2")
    byteorder: str = _choice("auto", "little", "big")
    metadata_file: Target | None = "auto"
    scan_file: Target | None = "auto"
    truncated: str = _choice("error", "trim")
    mmap: bool = False
    strict: bool = False

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, accepted = getattr(self, field.name), field.metadata.get("accepted")
            if accepted is not None and value not in accepted:
                listed = ", ".join(map(repr, accepted))
                raise ValueError(f"{field.name} is {value!r}; accepted: {listed}")
        if self.voxel_size is not None:
            object.__setattr__(self, "voxel_size", VoxelSize.of(self.voxel_size))
        per_frame = self.sections_per_frame
        if per_frame is not None and not _is_size(per_frame):
            raise ValueError(f"sections_per_frame is {per_frame!r}; accepted: 1, 2, 3, …")
        if self.scan_shape is not None:
            object.__setattr__(self, "scan_shape", _two_sizes(self.scan_shape))
            if self.layout != "auto" or (per_frame or 1) > 1:
                raise ValueError(
                    "scan_shape= can be combined with neither layout= nor sections_per_frame="
                )
        if (per_frame or 1) > 1 and self.layout in ("image", "volume"):
            raise ValueError(
                f"sections_per_frame={per_frame} needs layout='image_stack' or 'volume_stack', "
                f"and not {self.layout!r}"
            )

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Self:
        """Return the options that a caller gave by keyword."""
        if "navigation_shape" in arguments:
            raise TypeError(
                "navigation_shape= is RosettaSciIO's, in the order (x, y); "
                "here write scan_shape=(y, x)"
            )
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = [name for name in arguments if name not in known]
        if unknown:
            accepted = ", ".join(sorted(known))
            hint = did_you_mean(unknown, known)
            raise TypeError(f"unknown arguments: {', '.join(unknown)}; accepted: {accepted}{hint}")
        return cls(**arguments)

    @property
    def decides_layout(self) -> bool:
        """Whether the caller decides what the sections are."""
        arranged = (self.scan_shape, self.sections_per_frame)
        return self.layout != "auto" or arranged != (None, None)


def _is_size(value: Any) -> bool:
    return isinstance(value, SupportsIndex) and operator.index(value) > 0


def _two_sizes(scan_shape: Any) -> tuple[int, int]:
    if not isinstance(scan_shape, Collection) or [*map(_is_size, scan_shape)] != [True, True]:
        raise ValueError(
            f"scan_shape is {scan_shape!r}; accepted: two positive integers, (scan_y, scan_x)"
        )
    scan_y, scan_x = map(operator.index, scan_shape)
    return scan_y, scan_x
