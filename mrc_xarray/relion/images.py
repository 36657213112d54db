"""The images of a table: which column names them, and where each of them is."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mrc_xarray.errors import MrcError
from mrc_xarray.metadata.files import clip
from mrc_xarray.relion.labels import name_of
from mrc_xarray.relion.star import Block

__all__ = ["IMAGES", "Kind", "Places", "choose", "kind_of", "places"]

Integers = npt.NDArray[np.integer[Any]]


class Kind(NamedTuple):
    """What a column names: the dimension of its rows, and that of the sections of a file.

    `pixel_sizes` are the labels of the pixel size in Å, the best first.
    """

    dim: str
    sections: str = ""
    pixel_sizes: tuple[str, ...] = (
        "rlnMicrographPixelSize",
        "rlnPixelSize",
        "rlnTomoTiltSeriesPixelSize",
    )


_OF_TOMOGRAM = Kind("tomogram", "z", ("rlnTomoTiltSeriesPixelSize",))
#: Columns that name files of pixels, in the order in which a table's own one is looked for.
IMAGES = {
    "rlnImageName": Kind("particle", "", ("rlnImagePixelSize", "rlnPixelSize")),
    "rlnReferenceImage": Kind("class_average", "", ("rlnPixelSize",)),
    "rlnTomoReconstructedTomogram": _OF_TOMOGRAM,
    "rlnTomoReconstructedTomogramDenoised": _OF_TOMOGRAM,
    "rlnTomoReconstructedTomogramHalf1": _OF_TOMOGRAM,
    "rlnTomoReconstructedTomogramHalf2": _OF_TOMOGRAM,
    "rlnMicrographName": Kind("micrograph"),
    "rlnMicrographMovieName": Kind(
        "movie", "frame", ("rlnMicrographOriginalPixelSize", "rlnMicrographPixelSize")
    ),
}
# of a section, in front of the name of its file
_NUMBER = re.compile("0*[1-9][0-9]{0,17}")
_TABLES = (
    "rlnMicrographMetadata", "rlnTomoParticlesFile", "rlnTomoTiltSeriesStarFile",
    "rlnTomoTomogramsFile",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Places:
    """Where the image of each row is.

    Attributes
    ----------
    files : tuple of str
        As in the table.
    file : ndarray of int, shape (n_rows,)
    first : ndarray of int, shape (n_rows,)
        The section in the file, from 0.
    are_files : bool
        Whether each row is a complete file, and not one of its sections.
    rows : ndarray of int, shape (n_files,)
        The first row that names each file.
    """

    files: tuple[str, ...]
    file: Integers
    first: Integers
    are_files: bool
    rows: Integers


def choose(table: str, blocks: Sequence[Block], column: str | None) -> tuple[Block, str]:
    """Return the block with images, and the label of the column that names them."""
    wanted = None if column is None else column.removeprefix("_")
    found = [
        (block, label)
        for label in (IMAGES if wanted is None else dict.fromkeys(_labels(blocks, wanted)))
        for block in blocks
        if label in block.columns and block.name != "optics"
    ]
    if not found:
        named = f"column={column!r} is not in the table" if column else "no column names images"
        labels = sorted({label for block in blocks for label in block.columns})
        accepted = ", ".join(IMAGES if wanted is None else labels)
        tables = [label for label in _TABLES if label in labels]
        hint = f". {tables[0]} names other tables: open each of them" if tables else ""
        raise MrcError(f"{table}: {named}; accepted: {accepted}{hint}")
    block, label = found[0]
    if others := [other.name for other, its_label in found[1:] if its_label == label]:
        listed = ", ".join([block.name, *others])
        raise MrcError(f"{table}: several blocks have {label} ({listed}); accepted: one")
    if not block.n_rows:
        raise MrcError(f"{table}: the block data_{block.name} has no rows")
    if block.columns[label].dtype != object:
        raise MrcError(f"{table}: {label} contains numbers; accepted: names of files")
    return block, label


def kind_of(label: str, columns: Container[str]) -> Kind:
    """Return what a column of a table names, which the user may have chosen."""
    if label in IMAGES:
        return IMAGES[label]
    if "rlnImageName" in columns:
        return Kind("particle")
    return Kind("tomogram" if "rlnTomoName" in columns else "micrograph")


def _labels(blocks: Sequence[Block], wanted: str) -> list[str]:
    """Return the labels that the user's word stands for: the label, or a coordinate's name."""
    labels = [label for block in blocks for label in block.columns]
    return [label for label in labels if wanted in (label, name_of(label))]


def places(table: str, label: str, names: npt.NDArray[np.object_]) -> Places:
    """Split the names of images, such as ``000001@stack.mrcs``.

    Raises MrcError if a name has no number, or only some have one.
    """
    parts = [name.rpartition("@") for name in names]
    numbers = [number for number, _, _ in parts]
    index: dict[str, int] = {}
    file = np.fromiter((index.setdefault(path, len(index)) for _, _, path in parts), np.int32)
    are_files = not any(at for _, at, _ in parts)
    section = np.zeros(len(parts), np.int64)
    if not are_files:
        for row, number in enumerate(numbers):
            if not _NUMBER.fullmatch(number):
                accepted = "a number from 1, @ and a file, as 000001@stack.mrcs"
                found = f"{label} is {clip(names[row])}"
                raise MrcError(f"{table}, row {row + 1}: {found}; accepted: {accepted}")
        section = np.array(list(map(int, numbers)), np.int64) - 1
    _, rows = np.unique(file, return_index=True)
    files = tuple(re.sub(r":mrcs?$", "", path) for path in index)
    if not all(files):
        row = int(rows[files.index("")])
        raise MrcError(f"{table}, row {row + 1}: {label} is {clip(names[row])}; it names no file")
    return Places(files, _small(file), _small(section), are_files, rows)


def _small(numbers: Integers) -> Integers:
    """Return numbers in few bytes, since they are sent to each worker of a cluster."""
    return numbers.astype(np.min_scalar_type(int(numbers.max())))
