"""What the sections of a file are: one image, a stack, a volume, a stack of volumes, a scan.

The header tells this badly, so the rules are spelt out here, in their order.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass

from mrc_xarray.errors import MrcError
from mrc_xarray.mrc.extended import kind_of
from mrc_xarray.mrc.header import Header
from mrc_xarray.suffixes import STACK_SUFFIXES, VOLUME_SUFFIXES, stem_and_suffix

__all__ = ["LAYOUTS", "Layout", "arrange"]

LAYOUTS = ("image", "image_stack", "volume", "volume_stack")


@dataclass(frozen=True, slots=True)
class Layout:
    """What the sections are.

    Attributes
    ----------
    kind : str
        One of `LAYOUTS`, or ``"scan"``.
    rule : str
        Why, for the user, in `attrs`.
    leading : tuple of (str, int)
        Names and sizes of the dimensions that the sections count off, slowest first; empty for
        an image. Their product is the number of sections, or below it where a trimmed file ends
        within a volume or frame.
    """

    kind: str
    rule: str
    leading: tuple[tuple[str, int], ...]


def arrange(
    header: Header,
    n_sections: int,
    *,
    name: str,
    section_axis: str,
    extended_size: int,
    layout: str = "auto",
    scan_shape: tuple[int, int] | None = None,
    sections_per_frame: int | None = None,
    evidence: str = "",
) -> Layout:
    """Tell what the `n_sections` sections of a file are.

    Parameters
    ----------
    header : Header
    n_sections : int
        Sections in the file, fewer than NZ where it was trimmed.
    name : str
        The file's, for its suffix and for messages.
    section_axis : {"x", "y", "z"}
        What the sections of a volume run along (MAPS).
    extended_size : int
        Bytes of the extended header that are really there.
    layout, scan_shape, sections_per_frame
        The user's arguments, which win over the header.
    evidence : str
        How a sidecar tells that the sections are images of a stack; empty if none does.

    Returns
    -------
    Layout

    Raises
    ------
    MrcError
        Where the arguments do not fit the number of sections.
    """
    if scan_shape is not None:
        return _scan(n_sections, scan_shape, name, layout, sections_per_frame)
    if layout not in ("auto", *LAYOUTS):
        choices = ", ".join(repr(kind) for kind in ("auto", *LAYOUTS))
        raise ValueError(f"layout is {layout!r}; accepted: {choices}")

    if sections_per_frame is not None and operator.index(sections_per_frame) < 1:
        raise ValueError(f"sections_per_frame is {sections_per_frame}; accepted: 1 or more")
    if (sections_per_frame or 1) > 1 and layout in ("image", "volume"):
        raise ValueError(
            f"sections_per_frame={sections_per_frame} goes with layout='image_stack' or "
            f"'volume_stack', and not with {layout!r}"
        )
    per_volume = sections_per_frame or header.mz
    if layout == "auto":
        kind, rule = _by_rule(header, name, sections_per_frame, extended_size, evidence)
    else:
        kind, rule = layout, "the argument layout="

    given = "sections_per_frame" if sections_per_frame else "MZ (bytes 36–39)"
    if kind == "image":
        if n_sections != 1:
            raise MrcError(
                f"{name}: layout='image' needs one section, and the file has {n_sections}; "
                "choose 'image_stack' or 'volume'"
            )
        return Layout(kind, rule, ())
    if kind == "volume":
        return Layout(kind, rule, ((section_axis, n_sections),))
    if kind == "volume_stack":
        n_volumes = _groups(per_volume, header.nz, n_sections, name, given)
        return Layout(kind, rule, (("volume", n_volumes), (section_axis, per_volume)))
    per_frame = _per_frame(header, sections_per_frame)
    if per_frame > 1:
        n_frames = _groups(per_frame, header.nz, n_sections, name, given)
        return Layout(kind, rule, (("image", n_frames), ("channel", per_frame)))
    return Layout(kind, rule, (("image", n_sections),))


def _by_rule(
    header: Header,
    name: str,
    sections_per_frame: int | None,
    extended_size: int,
    evidence: str,
) -> tuple[str, str]:
    """Return the first layout that fits, and the rule that it fitted."""
    suffix = stem_and_suffix(name)[1]
    is_mrcz_stack = header.mrcz_version is not None and header.ispg == 0
    if (sections_per_frame or 1) > 1:
        return "image_stack", "the argument sections_per_frame="
    if 401 <= header.ispg <= 630 and header.mz > 0 and header.nz % header.mz == 0:
        return "volume_stack", "1: ISPG is 401–630 and MZ divides NZ"
    if header.nz == 1 and (header.ispg == 0 or not header.cella.z > 0):
        return "image", "2: NZ is 1, and ISPG is 0 or CELLA.z is not positive"
    if suffix in VOLUME_SUFFIXES:
        return "volume", f"3: the name ends in {suffix}"
    for holds, told in (
        (header.is_direct_electron, "a Direct Electron server wrote the file"),
        (
            kind_of(header, extended_size).is_per_section,
            "the extended header has section records",
        ),
        (is_mrcz_stack, "mrcz wrote the file, and ISPG is 0"),
        (suffix in STACK_SUFFIXES, f"the name ends in {suffix}"),
    ):
        if holds:
            return "image_stack", f"4: {told}"
    if evidence:
        return "image_stack", f"4: {evidence}"
    if header.ispg >= 1 or header.mz == header.nz:
        return "volume", "5: ISPG is 1 or more, or MZ equals NZ"
    return "image_stack", "6: nothing says that it is a volume"


def _per_frame(header: Header, sections_per_frame: int | None) -> int:
    """Return the sections of one frame: the caller's, else what mrcz wrote to MZ, else 1."""
    if sections_per_frame is not None:
        return sections_per_frame
    version = header.mrcz_version
    # before 0.5.0 mrcz wrote the array's shape to MX, MY and MZ
    grouped = version is not None and version >= (0, 5) and header.ispg == 0 and header.mz > 1
    return header.mz if grouped and header.nz % header.mz == 0 else 1


def _scan(
    n_sections: int,
    scan_shape: tuple[int, int],
    name: str,
    layout: str,
    sections_per_frame: int | None,
) -> Layout:
    if layout != "auto" or (sections_per_frame or 1) > 1:
        raise ValueError("scan_shape= goes with neither layout= nor sections_per_frame=")
    try:
        scan_y, scan_x = (operator.index(n) for n in scan_shape)
    except (TypeError, ValueError):
        raise ValueError(
            f"scan_shape is {scan_shape!r}; accepted: two integers, (scan_y, scan_x)"
        ) from None
    if scan_y < 1 or scan_x < 1 or scan_y * scan_x != n_sections:
        raise MrcError(
            f"{name}: scan_shape {(scan_y, scan_x)} has {scan_y * scan_x} positions, "
            f"and the file has {n_sections} frames; they must be equal"
        )
    return Layout("scan", "the argument scan_shape=", (("scan_y", scan_y), ("scan_x", scan_x)))


def _groups(per: int, promised: int, n_sections: int, name: str, what: str) -> int:
    """Return how many whole volumes or frames of `per` sections there are."""
    if per < 1 or promised % per:
        raise MrcError(
            f"{name}: {what} is {per}, which does not divide the file's {promised} sections; "
            "choose another layout= or sections_per_frame="
        )
    if n_sections < per:
        raise MrcError(
            f"{name}: the file has {n_sections} whole sections, and {per} belong together; "
            "layout='image_stack' with sections_per_frame=1 opens them, or layout='volume'"
        )
    return n_sections // per
