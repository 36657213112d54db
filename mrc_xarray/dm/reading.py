"""Read a DM3 or DM4 file: its tags, and where the pixels of its images are."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from mrc_xarray.dm.dimensions import names_of
from mrc_xarray.dm.images import DmImage, group_at, images_of
from mrc_xarray.dm.pixels import PIXELS, HalfPlane, sections_of
from mrc_xarray.dm.tags import StoredArray, TagFile, Tags, read_tags
from mrc_xarray.errors import MrcError, Problem
from mrc_xarray.metadata import limits
from mrc_xarray.metadata.columns import Value
from mrc_xarray.pixels.sections import Sections
from mrc_xarray.recording import Dimension, Recording
from mrc_xarray.storage.base import ByteSource

__all__ = ["DmFile", "read"]

#: Values of an image: their names, where they are in ImageTags, and their units there.
_VALUES = {
    "voltage": (("Microscope Info", "Voltage"), "V"),
    "magnification": (("Microscope Info", "Indicated Magnification"), ""),
    "camera_length": (("Microscope Info", "STEM Camera Length"), "mm"),
    "tilt_angle": (("Microscope Info", "Stage Position", "Stage Alpha"), "degree"),
    "tilt_beta": (("Microscope Info", "Stage Position", "Stage Beta"), "degree"),
    "stage_x": (("Microscope Info", "Stage Position", "Stage X"), "um"),
    "stage_y": (("Microscope Info", "Stage Position", "Stage Y"), "um"),
    "stage_z": (("Microscope Info", "Stage Position", "Stage Z"), "um"),
    "exposure_time": (("Acquisition", "Parameters", "Detector", "exposure (s)"), "s"),
}


@dataclass(frozen=True, eq=False)
class DmFile:
    """The images of a file, without thumbnails."""

    tags: TagFile
    images: tuple[DmImage, ...]

    @property
    def largest(self) -> DmImage:
        """The image that has the most pixels, the first of several."""
        return max(self.images, key=lambda image: image.n_pixels)

    @property
    def end(self) -> int:
        """The end of the last pixels, in bytes."""
        return max(image.data.offset + image.data.nbytes for image in self.images)

    @property
    def _document(self) -> Tags:
        """The tags that belong to no image."""
        return {name: tags for name, tags in self.tags.root.items() if name != "ImageList"}

    def recording(self, image: DmImage) -> Recording:
        """Return an image in no format's words; only the largest has the tags of the document.

        Raises MrcError if its pixels have an unknown type, or do not fit its dimensions.
        """
        sections = _sections(self.tags, image)
        dims, problems = _dimensions(image, sections)
        return Recording(
            name=self.tags.name,
            sections=sections,
            dims=dims,
            has_section_numbers=dims[0].name == "image" and not problems,
            values=_values(image),
            metadata=_plain((self._document if image is self.largest else {}) | image.tags),
            problems=problems,
        )


def read(source: ByteSource, head: bytes) -> DmFile:
    """Read the tags of a file that begins with `head`, and no pixels.

    Raises MrcError if the file is not DM3 or DM4, is damaged, or has no image.
    """
    tags = read_tags(source, head)
    return DmFile(tags, tuple(images_of(tags)))


def _sections(file: TagFile, image: DmImage) -> Sections:
    where = f"{file.name}: ImageList:{image.number}:ImageData"
    mode = PIXELS.get(image.data_type)
    if mode is None:
        known = ", ".join(map(str, sorted(PIXELS)))
        raise MrcError(
            f"{where}:DataType is {image.data_type}; accepted: {known}. If DigitalMicrograph "
            "shows the image, export it with another type"
        )
    sizes = [axis.size for axis in image.axes]
    # a spectrum is one row
    n_rows, n_columns = [1, *sizes][-2:]
    if isinstance(mode, HalfPlane) and not mode.fits(n_rows, n_columns):
        raise MrcError(
            f"{where}:Dimensions is {n_columns} × {n_rows}; accepted for DataType "
            f"{image.data_type}: a square of an even number of pixels"
        )
    shape = (math.prod(sizes[:-2]), n_rows, n_columns)
    sections = sections_of(mode, shape, image.data.offset, file.byteorder)
    if sections.nbytes != image.data.nbytes:
        listed = " × ".join(map(str, reversed(sizes)))
        raise MrcError(
            f"{where}:Data (byte {image.data.offset}) is {image.data.nbytes} bytes long; "
            f"accepted: {sections.nbytes}, for {listed} pixels of DataType {image.data_type}. "
            "The file is damaged"
        )
    return sections


def _dimensions(
    image: DmImage, sections: Sections
) -> tuple[tuple[Dimension, ...], tuple[Problem, ...]]:
    """Return the dimensions, and a note about those that are too long for a coordinate."""
    dims = [
        dataclasses.replace(axis, name=name)
        for name, axis in zip(names_of(image), image.axes, strict=True)
    ]
    samples = [Dimension(name="rgba", size=n) for n in sections.mode.samples]
    labelled = {d.name: d.size for d in dims if d.step is not None or d.name == "image"}
    in_file = [d.name for d in dims[:-2]]
    too_long, notes = limits.too_long(labelled, in_file, field="Dimensions")
    short = (dataclasses.replace(d, step=None) if d.name in too_long else d for d in dims)
    return (*short, *samples), tuple(notes)


def _values(image: DmImage) -> dict[str, Value]:
    """Return the values that have names and units of their own, and the name of the image."""
    tags = group_at(image.tags, "ImageTags")
    # a stack of the stack builder has the tags of its images in another place
    tags = group_at(tags, "source", "Tags at creation") or tags
    values = {"title": Value(image.name)} if image.name else {}
    for name, (path, unit) in _VALUES.items():
        found = group_at(tags, *path[:-1]).get(path[-1])
        if isinstance(found, int | float) and math.isfinite(found):
            values[name] = Value(float(found), unit)
    return values


def _plain(value: Any) -> Any:
    """Return tags with a text in place of each array that was not read."""
    if isinstance(value, dict):
        return {name: _plain(tag) for name, tag in value.items()}
    return str(value) if isinstance(value, StoredArray) else value
