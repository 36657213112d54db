"""Sidecars, the text files next to an image: one small file, and one row here, for each kind."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mrc_xarray.errors import Problem
from mrc_xarray.metadata.columns import Metadata
from mrc_xarray.metadata.files import Companion, ImageFile, Name, TextFile
from mrc_xarray.metadata.sidecar import direct_electron, mdoc, mdoc_sections, tilt_list
from mrc_xarray.metadata.sidecar.direct_electron_files import companions

__all__ = ["SIDECARS", "Sidecar", "sidecar_of"]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Sidecar:
    """A kind of sidecar.

    Attributes
    ----------
    pattern : str
        Regular expression for the end of a file name, to recognise a file that the user names.
    content : bytes
        Regular expression for the content, to recognise a file of another name.
    names : callable
        (image): the names of the sidecar of an image file, best first, without folders, or
        patterns for them, as `ImageFile.find` has them.
    read : callable
        (file, image): the `Metadata` in the sidecar of an `ImageFile`. Whatever the file
        contains, nothing is raised.
    evidence : str
        Why an image with such a sidecar is a stack, for `Metadata.evidence`.
    only_for_stacks : bool
        Whether a sidecar that was found, and not named by the user, is used for stacks only. Such
        a sidecar is not evidence.
    names_in_stores : callable
        (image): the names that are looked for in a store, with one request for each.
    misfit : callable
        (file, image): why a file of such a name does not describe an `ImageFile`, or None.
    is_evidence : callable
        (file, image): whether a file that was found makes the image a stack. Otherwise it is used
        for stacks only.
    companions : callable
        (image, names, keys): the other images of the same acquisition among the file names in a
        folder, with the sidecar's `Metadata.keys`.
    """

    pattern: str
    content: bytes
    names: Callable[[str], tuple[Name, ...]]
    read: Callable[[TextFile, ImageFile], Metadata]
    evidence: str = ""
    only_for_stacks: bool = False
    names_in_stores: Callable[[str], tuple[Name, ...]] = lambda image: ()
    misfit: Callable[[TextFile, ImageFile], Problem | None] = lambda file, image: None
    is_evidence: Callable[[TextFile, ImageFile], bool] = lambda file, image: True
    companions: Callable[[str, Iterable[str], Mapping[str, Any]], tuple[Companion, ...]] = (
        lambda image, names, keys: ()
    )


#: In the order in which they are looked for; the first one that describes the image is taken.
SIDECARS = (
    Sidecar(
        pattern=r"info\.txt",
        content=rb"(?s)(?!.*\[(ZValue|FrameSet)).*=",
        names=direct_electron.names,
        read=direct_electron.read,
        names_in_stores=direct_electron.names,
        companions=companions,
    ),
    Sidecar(
        pattern=r"\.mdoc",
        content=rb"(?s).*\[(ZValue|FrameSet)",
        names=mdoc.names,
        names_in_stores=mdoc.names_in_stores,
        misfit=mdoc_sections.misfit,
        is_evidence=mdoc_sections.is_evidence,
        read=mdoc.read,
        evidence="an .mdoc describes the file",
    ),
    Sidecar(
        pattern=r"\.(raw)?tlt",
        content=b"",
        names=tilt_list.names,
        names_in_stores=tilt_list.names_in_stores,
        read=tilt_list.read,
        evidence="a list of tilt angles describes the file",
        only_for_stacks=True,
    ),
)


def sidecar_of(file: TextFile) -> Sidecar:
    """Return the kind of a sidecar, by its name or else by its content."""
    for sidecar in SIDECARS:
        if re.search(f"(?:{sidecar.pattern})\\Z", file.name, re.IGNORECASE):
            return sidecar
    return next(sidecar for sidecar in SIDECARS if re.match(sidecar.content, file.raw))
