"""The sidecars of an image: found, read, and what they are evidence for."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, TextIO
from urllib.parse import unquote

import numpy as np

from mrc_xarray.errors import Problem
from mrc_xarray.metadata.columns import Metadata
from mrc_xarray.metadata.files import Companion, ImageFile, SidecarChoice, TextFile
from mrc_xarray.metadata.raster import NO_GAPS, Gaps
from mrc_xarray.metadata.scan import read_positions
from mrc_xarray.metadata.sidecar import SIDECARS, Sidecar, sidecar_of
from mrc_xarray.storage import Target, open_decoded
from mrc_xarray.storage.base import Bytes
from mrc_xarray.storage.local import read_next_to
from mrc_xarray.storage.urls import has_encoded_names
from mrc_xarray.suffixes import COMPRESSED_SUFFIXES

__all__ = [
    "companions",
    "evidence_next_to",
    "image_name",
    "read_sidecar",
    "sidecar_choice",
    "target_name",
]

# a longer sidecar is read, but its own keys are left out of the attributes
_LONGEST_WITH_KEYS = 2**24


def sidecar_choice(
    target: Target | TextIO | None, storage_options: dict[str, Any] | None
) -> SidecarChoice:
    """Read the sidecar that the user gives: a path, a URL, or a binary or text file object."""
    if target is None or (isinstance(target, str) and target == "auto"):
        return target  # type: ignore[return-value]  # of the strings, only "auto" is left
    text = _text_of(target)
    if text is not None:
        return TextFile(os.path.basename(target_name(target)), text.encode(errors="replace"))
    source, head = open_decoded(target, storage_options)  # type: ignore[arg-type]  # no text
    raw = head if len(head) == source.size else source.read_all()
    return TextFile(os.path.basename(source.name), raw)


def target_name(target: Any) -> str:
    """Return the path or URL of a target, or, for what has no name, its type in angle brackets."""
    if isinstance(target, str | os.PathLike):
        return os.fsdecode(target)
    names = (getattr(target, attribute, None) for attribute in ("name", "full_name", "path"))
    return next((n for n in names if isinstance(n, str)), f"<{type(target).__name__}>")


def _text_of(target: Any) -> str | None:
    """Return the content of a text file object, whose position stays; None for other targets."""
    if not (callable(getattr(target, "read", None)) and isinstance(target.read(0), str)):
        return None
    if not target.seekable():
        return str(target.read())
    position = None
    with contextlib.suppress(OSError):
        # has none while its lines are iterated
        position = target.tell()
    target.seek(0)
    try:
        return str(target.read())
    finally:
        if position is not None:
            target.seek(position)


def read_sidecar(
    source: Bytes,
    *,
    metadata_file: SidecarChoice,
    scan_file: SidecarChoice,
    n_sections: int,
    n_promised: int,
    records: Metadata | None = None,
    gaps: Gaps = NO_GAPS,
) -> Metadata:
    """Read the sidecar that the user names, or else one that is next to the file.

    `records` are those of the extended header; the other arguments are described in `ImageFile`.
    If `only_for_stacks` is set in the result, discard it for any other layout.
    """
    found = records or Metadata()
    recorded = {name: np.atleast_1d(value) for name, (value, _) in found.values.items()}
    image = ImageFile(
        name=image_name(source.name),
        n_sections=n_sections,
        n_promised=n_promised,
        is_in_store="://" in source.name,
        scan_file=scan_file,
        gaps=gaps,
        recorded=recorded | {column.name: column.values for column in found.columns},
        read_next_to=source.read_sibling,
        names_next_to=source.sibling_names,
    )
    metadata = _read_sidecar(image, metadata_file)
    is_used = metadata.scan is not None or any(p.code == "scan" for p in metadata.problems)
    if is_used or not isinstance(scan_file, TextFile):
        return metadata
    scan = None
    positions, problems = read_positions(scan_file)
    if positions is not None:
        scan, problems = positions.to_scan(positions.sizes, n_sections, gaps)
    scanned = Metadata(scan=scan, problems=tuple(problems))
    return scanned if metadata.only_for_stacks else metadata.over(scanned)


def image_name(source_name: str) -> str:
    """Return the name of an image file, without folders and without a suffix of compression."""
    name = source_name.split("?")[0] if "://" in source_name else source_name
    name = posixpath.basename(name.replace("\\", "/"))
    name = unquote(name) if has_encoded_names(source_name) else name
    stem, suffix = posixpath.splitext(name)
    return stem if suffix.lower() in COMPRESSED_SUFFIXES else name


def companions(image: str, names: Iterable[str], keys: Mapping[str, Any]) -> tuple[Companion, ...]:
    """Return the other images of the acquisition of an image; see `Sidecar.companions`."""
    files = list(names)
    found = (sidecar.companions(image, files, keys) for sidecar in SIDECARS)
    return tuple(itertools.chain.from_iterable(found))


def evidence_next_to(path: str, n_sections: int) -> str:
    """Return the layout evidence of the sidecar that is next to a local file."""
    read = functools.partial(read_next_to, path)
    image = ImageFile(
        name=image_name(path), n_sections=n_sections, n_promised=n_sections, read_next_to=read
    )
    return _read_sidecar(image, "auto").evidence


def _find(image: ImageFile) -> tuple[Sidecar | None, TextFile | None, tuple[Problem, ...]]:
    """Return the first sidecar that describes the image, else the first one that can't be read.

    It is returned with its file, if that can be read, and why other files were not used.
    """
    misfits: list[Problem] = []
    unreadable: tuple[Sidecar | None, tuple[Problem, ...]] = (None, ())
    for sidecar in SIDECARS:
        names = sidecar.names_in_stores if image.is_in_store else sidecar.names
        for name in names(image.name):
            file, problems = image.find([name])
            if problems and not unreadable[1]:
                unreadable = sidecar, tuple(problems)
            if file is None:
                continue
            if problem := sidecar.misfit(file, image):
                misfits.append(problem)
            else:
                return sidecar, file, (*misfits, *unreadable[1])
    return unreadable[0], None, (*misfits, *unreadable[1])


def _read_sidecar(image: ImageFile, choice: SidecarChoice) -> Metadata:
    if choice is None:
        return Metadata()
    if isinstance(choice, TextFile):
        return _read(sidecar_of(choice), choice, image)
    sidecar, file, problems = _find(image)
    if sidecar is None or file is None:
        only_for_stacks = sidecar is None or sidecar.only_for_stacks
        return Metadata(problems=problems, only_for_stacks=only_for_stacks)
    only_for_stacks = sidecar.only_for_stacks or not sidecar.is_evidence(file, image)
    metadata = _read(sidecar, file, image)
    return replace(
        metadata,
        evidence="" if only_for_stacks else metadata.evidence,
        only_for_stacks=only_for_stacks,
        problems=(*problems, *metadata.problems),
    )


def _read(sidecar: Sidecar, file: TextFile, image: ImageFile) -> Metadata:
    metadata = replace(sidecar.read(file, image), evidence=sidecar.evidence)
    if len(file.raw) <= _LONGEST_WITH_KEYS or not metadata.keys:
        return metadata
    found, accepted = f"{len(file.raw)} bytes long", f"up to {_LONGEST_WITH_KEYS} bytes"
    problem = file.problem("the file", found, accepted, "Its keys are left out of the metadata.")
    return replace(metadata, keys={}, problems=(*metadata.problems, problem))
