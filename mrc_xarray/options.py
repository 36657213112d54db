"""The arguments of ``xr.open_dataset(..., engine="mrc")``: defaults, documentation and checks."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, SupportsIndex, TextIO

from mrc_xarray.text import did_you_mean
from mrc_xarray.voxel_size import VoxelSize, VoxelSizeArgument

if TYPE_CHECKING:
    from mrc_xarray.storage import Target

__all__ = ["OpenOptions"]

# NZ is smaller
_TOO_MANY = 2**31
# of a scan: NumPy 1 has 32 dimensions, and a frame needs up to 3
_MOST_DIMENSIONS = 29

# arguments of other readers, and what to write here
_ELSEWHERE = {
    "navigation_shape": "RosettaSciIO's, in the order (x, y); here write scan_shape=(y, x)",
    "lazy": "RosettaSciIO's; here pixels are always lazy, and chunks={} makes dask arrays",
    "distributed": "RosettaSciIO's; here chunks={} makes dask arrays that work on any cluster",
    "mmap_mode": "RosettaSciIO's; here write mmap=True for views of a map of the file",
    "useMemmap": "mrcz's; here write mmap=True for views of a map of the file",
    "endianness": "RosettaSciIO's; here write byteorder='little' or byteorder='big'",
    "endianess": "RosettaSciIO's; here write byteorder='little' or byteorder='big'",
    "endian": "mrcz's; here write byteorder='little' or byteorder='big'",
    "permissive": (
        "mrcfile's; here a damaged header is repaired with a warning, and strict=True is an error"
    ),
    "idx": "mrcz's; here select sections of the result: ds.isel(image=slice(2, 5))",
    "slices": "mrcz's; here write sections_per_frame=",
    "pixelunits": "mrcz's; here write units='angstrom', 'nm', 'pm' or 'um'",
    "fileConvention": "mrcz's; here write convention='ccpem' or convention='eman2'",
    "virtual_images": "an argument of xarray.open_datatree, which opens a movie and its images",
    "external_images": "an argument of xarray.open_datatree, which opens a movie and its images",
}


def _choice(*accepted: str | bool) -> Any:
    """Declare an argument that is one of several values; the first one is the default."""
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
    scan_shape : int or sequence of int, optional
        ``(scan_y, scan_x)``: fold a stack of frames into a scan. Three numbers are
        ``(repeat, scan_y, scan_x)``, one is a single line.
    scan_offset : int
        The number of frames in front of the first position of the scan. If it is negative, the
        number of positions without a frame, which are the first ones.
    scan_flyback : int
        The number of frames after each line of the scan that belong to no position. After the
        last line they may be missing.
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
    metadata_file : "auto", None, path, URL or file object
        A sidecar: Direct Electron's ``_info.txt``, SerialEM's ``.mdoc``, or a list of tilt angles
        (``.tlt``, ``.rawtlt``). By default, one next to the file is used; in a store, only two of
        the possible names are looked for. None for no sidecar. A file object can be binary or
        text.
    scan_file : "auto", None, path, URL or file object
        Direct Electron's ``_scan_coordinates.csv``, likewise.
    truncated : {"error", "trim"}
        Whether to open the complete sections of a file that has fewer than its header promises.
    mmap : {"auto", True, False}
        Whether pixels of a local file are views of a memory map of it. "auto": in tasks of dask,
        large contiguous parts of uncompressed files of the machine's byte order on a local disk;
        all results own their memory. True: wherever that is possible; writing to a result does
        not change the file. False: never; pixels are read into memory of their own.
    strict : bool
        Raise an error where the header would have to be repaired, as mrcfile does.
    """

    storage_options: dict[str, Any] | None = None
    layout: str = _choice("auto", "image", "image_stack", "volume", "volume_stack")
    scan_shape: int | Sequence[int] | None = None
    scan_offset: int = 0
    scan_flyback: int = 0
    sections_per_frame: int | None = None
    dims: Sequence[str] | None = None
    units: str = _choice("angstrom", "nm", "pm", "um")
    voxel_size: VoxelSizeArgument = None
    origin: str = _choice("auto", "origin", "nstart", "zero")
    mode0: str = _choice("auto", "int8", "uint8")
    convention: str = _choice("ccpem", "eman2")
    byteorder: str = _choice("auto", "little", "big")
    metadata_file: Target | TextIO | None = "auto"
    scan_file: Target | TextIO | None = "auto"
    truncated: str = _choice("error", "trim")
    mmap: str | bool = _choice("auto", True, False)
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
            object.__setattr__(self, "scan_shape", _sizes(self.scan_shape))
        for name, least in (("scan_offset", 1 - _TOO_MANY), ("scan_flyback", 0)):
            object.__setattr__(self, name, _count(name, getattr(self, name), least))
        of_scan = ("scan_shape", "scan_offset", "scan_flyback")
        given = [name for name in of_scan if getattr(self, name)]
        if given and (self.layout != "auto" or (per_frame or 1) > 1):
            raise ValueError(
                f"{given[0]}= can be combined with neither layout= nor sections_per_frame="
            )
        if (per_frame or 1) > 1 and self.layout in ("image", "volume"):
            raise ValueError(
                f"sections_per_frame={per_frame} needs layout='image_stack' or 'volume_stack', "
                f"and not {self.layout!r}"
            )

    @classmethod
    def of(cls, arguments: Mapping[str, Any], accepted: Collection[str] = ()) -> Self:
        """Return the options that a caller gave by keyword; `accepted` are by default all."""
        if foreign := [name for name in arguments if name in _ELSEWHERE]:
            raise TypeError("\n".join(f"{name}= is {_ELSEWHERE[name]}" for name in foreign))
        known = sorted(accepted or (field.name for field in dataclasses.fields(cls)))
        unknown = [name for name in arguments if name not in known]
        if unknown:
            hint = did_you_mean(unknown, known)
            words = f"unknown arguments: {', '.join(unknown)}; accepted: {', '.join(known)}{hint}"
            raise TypeError(words)
        return cls(**arguments)

    @property
    def decides_layout(self) -> bool:
        """Whether the caller decides what the sections are."""
        arranged = (self.scan_shape, self.sections_per_frame)
        return self.layout != "auto" or arranged != (None, None)


def _is_size(value: Any) -> bool:
    return _is_integer(value) and operator.index(value) > 0


def _is_integer(value: Any) -> bool:
    is_number = isinstance(value, SupportsIndex) and getattr(value, "ndim", 0) == 0
    return is_number and not isinstance(value, bool)


def _count(name: str, value: Any, least: int) -> int:
    if not _is_integer(value) or not least <= operator.index(value) < _TOO_MANY:
        accepted = "an integer, 0 or more" if least == 0 else "an integer"
        raise ValueError(f"{name} is {value!r}; accepted: {accepted}, as a number of frames")
    return operator.index(value)


def _sizes(scan_shape: Any) -> tuple[int, ...]:
    is_one = not isinstance(scan_shape, Collection) or getattr(scan_shape, "ndim", 1) == 0
    sizes = [scan_shape] if is_one else [*scan_shape]
    if not 0 < len(sizes) <= _MOST_DIMENSIONS or not all(map(_is_size, sizes)):
        raise ValueError(
            f"scan_shape is {scan_shape!r}; accepted: 1 to {_MOST_DIMENSIONS} positive integers, "
            "such as (scan_y, scan_x)"
        )
    return tuple(map(operator.index, sizes))
