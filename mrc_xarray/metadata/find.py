"""The sidecars of an image: found, read, and what they are evidence for."""

from __future__ import annotations

import itertools
import os
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from mrc_xarray.metadata.columns import Metadata
from mrc_xarray.metadata.files import Companion, ImageFile, SidecarChoice, TextFile
from mrc_xarray.metadata.scan import read_positions
from mrc_xarray.metadata.sidecar import SIDECARS, Sidecar, sidecar_of
from mrc_xarray.storage.base import Bytes
from mrc_xarray.suffixes import COMPRESSED_SUFFIXES

__all__ = ["companions", "evidence_next_to", "image_name", "read_sidecar"]

# a longer sidecar is read, but its own keys are left out of the attributes
_LONGEST_WITH_KEYS = 2**24


def read_sidecar(
    source: Bytes,
    *,
    metadata_file: SidecarChoice,
    scan_file: SidecarChoice,
    n_sections: int,
    n_promised: int,
) -> Metadata:
    """Read the sidecar that the user names, or else one that is next to the file.

    The arguments are described in `ImageFile`. If `only_for_stacks` is set in the result, discard
    it for any other layout.
    """
    image = ImageFile(
        name=image_name(source.name),
        n_sections=n_sections,
        n_promised=n_promised,
        scan_file=scan_file,
        read_next_to=source.read_sibling,
    )
    is_in_store = "://" in source.name
    sidecars = [sidecar for sidecar in SIDECARS if sidecar.is_in_stores or not is_in_store]
    metadata = _read_sidecar(image, metadata_file, sidecars)
    is_used = metadata.scan is not None or any(p.code == "scan" for p in metadata.problems)
    if is_used or not isinstance(scan_file, TextFile):
        return metadata
    scan = None
    positions, problems = read_positions(scan_file)
    if positions is not None:
        scan, problems = positions.to_scan(positions.sizes, n_sections)
    scanned = Metadata(scan=scan, problems=tuple(problems))
    return scanned if metadata.only_for_stacks else metadata.over(scanned)


def image_name(source_name: str) -> str:
    """Return the name of an image file, without folders and without a suffix of compression."""
    name = source_name.split("?")[0] if "://" in source_name else source_name
    name = posixpath.basename(name.replace("\\", "/"))
    stem, suffix = posixpath.splitext(name)
    return stem if suffix.lower() in COMPRESSED_SUFFIXES else name


def companions(image: str, names: Iterable[str], keys: Mapping[str, Any]) -> tuple[Companion, ...]:
    """Return the other images of the acquisition of an image; see `Sidecar.companions`."""
    files = list(names)
    found = (sidecar.companions(image, files, keys) for sidecar in SIDECARS)
    return tuple(itertools.chain.from_iterable(found))


def evidence_next_to(path: str) -> str:
    """Return the layout evidence of the sidecars that are next to a local file."""
    folder, image = os.path.dirname(path), image_name(path)
    for sidecar in SIDECARS:
        if not sidecar.only_for_stacks and any(
            os.path.exists(os.path.join(folder, name)) for name in sidecar.names(image)
        ):
            return sidecar.evidence
    return ""


def _read_sidecar(
    image: ImageFile, choice: SidecarChoice, sidecars: Iterable[Sidecar]
) -> Metadata:
    if isinstance(choice, TextFile):
        return _read(sidecar_of(choice), choice, image)
    for sidecar in sidecars if choice == "auto" else ():
        only_for_stacks = sidecar.only_for_stacks
        file, problems = image.find(sidecar.names(image.name))
        if problems:
            return Metadata(problems=tuple(problems), only_for_stacks=only_for_stacks)
        if file is not None:
            metadata = _read(sidecar, file, image)
            evidence = "" if only_for_stacks else sidecar.evidence
            return replace(metadata, only_for_stacks=only_for_stacks, evidence=evidence)
    return Metadata()


def _read(sidecar: Sidecar, file: TextFile, image: ImageFile) -> Metadata:
    metadata = replace(sidecar.read(file, image), evidence=sidecar.evidence)
    if len(file.raw) <= _LONGEST_WITH_KEYS or not metadata.keys:
        return metadata
    found, accepted = f"{len(file.raw)} bytes long", f"up to {_LONGEST_WITH_KEYS} bytes"
    problem = file.problem("the file", found, accepted, "Its keys are left out of the metadata.")
    return replace(metadata, keys={}, problems=(*metadata.problems, problem))
