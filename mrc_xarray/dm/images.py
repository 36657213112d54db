"""The images of a DM file: where their pixels are, and the calibrations of their axes.

See ``docs/reference/format.md#dm-images``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mrc_xarray.dm.tags import StoredArray, TagFile, Tags
from mrc_xarray.errors import MrcError
from mrc_xarray.recording import Dimension
from mrc_xarray.text import printable
from mrc_xarray.units import known_unit, scaled, shortest

__all__ = ["DmImage", "group_at", "images_of"]

# real files have some tens of images; opening each takes some milliseconds
_MOST_IMAGES = 2**10
# NumPy has no more dimensions
_MOST_AXES = 32


@dataclass(frozen=True, eq=False, kw_only=True)
class DmImage:
    """One image of a file.

    Attributes
    ----------
    number : int
        Its number in ImageList.
    name : str
    axes : tuple of Dimension
        Slowest first, with calibrations but without names: these depend on each other.
    data_type : int
    data : StoredArray
        Where its pixels are.
    tags : mapping
        All of its tags, except for the pixels.
    """

    number: int
    name: str
    axes: tuple[Dimension, ...]
    data_type: int
    data: StoredArray
    tags: Tags

    @property
    def n_pixels(self) -> int:
        """The number of pixels."""
        return math.prod(axis.size for axis in self.axes)


def group_at(tags: Tags, *path: str) -> Tags:
    """Return the group at a path; an empty one if there is none."""
    for name in path:
        found = tags.get(name)
        tags = found if isinstance(found, dict) else {}
    return tags


def images_of(file: TagFile) -> list[DmImage]:
    """Return the images of a file, without thumbnails; raise MrcError if there are none."""
    listed = group_at(file.root, "Thumbnails")
    # a damaged file can have anything in place of a number, also what a set can't hold
    thumbnails = [group_at(listed, name).get("ImageIndex") for name in listed]
    found = list(_images(file))
    if not found:
        raise MrcError(
            f"{file.name}: the tag group ImageList has no image; accepted: at least one with "
            "ImageData/Data and ImageData/Dimensions. The file is damaged, or contains only text"
        )
    if len(found) > _MOST_IMAGES:
        raise MrcError(
            f"{file.name}: the tag group ImageList has {len(found)} images; accepted: up to "
            f"{_MOST_IMAGES}. The file may be damaged"
        )
    return [image for image in found if image.number not in thumbnails] or found


def _images(file: TagFile) -> Iterator[DmImage]:
    listed = group_at(file.root, "ImageList")
    for number, name in enumerate(listed):
        tags = group_at(listed, name)
        content = group_at(tags, "ImageData")
        data, data_type = content.get("Data"), content.get("DataType")
        sizes = list(group_at(content, "Dimensions").values())
        if not isinstance(data, StoredArray) or not sizes:
            # an annotation without pixels
            continue
        where = f"{file.name}: ImageList:{number}:ImageData"
        if not all(isinstance(n, int) and n > 0 for n in sizes) or len(sizes) > _MOST_AXES:
            raise MrcError(
                f"{where}:Dimensions is {sizes!s:.200}; accepted: 1 to {_MOST_AXES} sizes "
                "above 0. The file is damaged"
            )
        if not isinstance(data_type, int):
            raise MrcError(f"{where}:DataType is {data_type!r:.200}; accepted: a number")
        yield DmImage(
            number=number,
            name=str(tags.get("Name") or ""),
            axes=tuple(reversed([*_axes(content, sizes)])),
            data_type=data_type,
            data=data,
            tags=tags | {"ImageData": {k: v for k, v in content.items() if k != "Data"}},
        )


def _axes(content: Tags, sizes: list[int]) -> Iterator[Dimension]:
    """Yield the axes, fastest first; files by some plugins have no calibration of the last."""
    groups = group_at(content, "Calibrations", "Dimension")
    calibrations = [group_at(groups, name) for name in groups]
    for i, size in enumerate(sizes):
        yield _axis(size, calibrations[i] if i < len(calibrations) else {})


def _axis(size: int, calibration: Mapping[str, Any]) -> Dimension:
    """Return a calibrated axis; position = (index − Origin) × Scale."""
    scale, origin = _number(calibration.get("Scale")), _number(calibration.get("Origin"))
    text = calibration.get("Units")
    unit = _unit(text) if isinstance(text, str) else ""
    if not scale or origin is None or (not unit and (scale, origin) == (1, 0)):
        return Dimension(name="", size=size)
    # 0.0 + x turns -0.0 into 0.0
    start = 0.0 + scaled(-origin, scale)
    return Dimension(name="", size=size, start=start, step=scale, unit=unit or "1")


def _number(value: object) -> float | None:
    """Return a finite number: of a float32, the decimal that is meant."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e30:
        return None
    return shortest(value)


def _unit(text: str) -> str:
    """Return a unit in our spelling, or as in the file if it is unknown."""
    stripped = text.strip().replace("⁻¹", "^-1").removesuffix("^-1")
    inverse = stripped != text.strip()
    name = f"1/{stripped}" if inverse else stripped
    return known_unit(name) or printable(text.strip())
