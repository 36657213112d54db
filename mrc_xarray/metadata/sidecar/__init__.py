"""What stands in text files beside an image: one small file, and one row here, for each kind."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from mrc_xarray.metadata.columns import Metadata
from mrc_xarray.metadata.sidecar import direct_electron, direct_electron_names, mdoc, tilt_list

__all__ = ["SIDECARS", "Sidecar", "sidecar_named"]


class Sidecar(NamedTuple):
    """A kind of sidecar.

    Attributes
    ----------
    kind : str
        What it is called here.
    pattern : re.Pattern
        What the names of such files end in.
    names : callable
        An image's file name, without folders → the names that its sidecar can have, best first.
    read : callable
        (raw, name, image, n_sections): the sidecar's bytes and name, the image's name, and its
        number of sections → Metadata.
    """

    kind: str
    pattern: re.Pattern[str]
    names: Callable[[str], tuple[str, ...]]
    read: Callable[[bytes, str, str, int], Metadata]


#: In the order in which they are looked for; the first one found is taken.
SIDECARS = (
    Sidecar(
        "direct_electron",
        re.compile(r"info\.txt\Z", re.IGNORECASE),
        direct_electron_names.info_names,
        direct_electron.read,
    ),
    Sidecar("mdoc", re.compile(r"\.mdoc\Z", re.IGNORECASE), mdoc.names, mdoc.read),
    Sidecar(
        "tilt_list", re.compile(r"\.(raw)?tlt\Z", re.IGNORECASE), tilt_list.names, tilt_list.read
    ),
)


def sidecar_named(name: str) -> Sidecar | None:
    """Return the kind of sidecar that a file of this name is, or None."""
    return next((sidecar for sidecar in SIDECARS if sidecar.pattern.search(name)), None)
