"""What the sections of a file are: one image, a stack, a volume, a stack of volumes, a scan.

No header field says this reliably, so the rules are listed here, in their order. See
``docs/reference/format.md#layout``.
"""

from __future__ import annotations

from dataclasses import dataclass

from mrc_xarray.errors import MrcError
from mrc_xarray.mrc.extended import kind_of
from mrc_xarray.mrc.header import Header
from mrc_xarray.mrc.voxel import sizes
from mrc_xarray.options import OpenOptions
from mrc_xarray.suffixes import STACK_SUFFIXES, VOLUME_SUFFIXES, stem_and_suffix

__all__ = ["Layout", "arrange"]


@dataclass(frozen=True, slots=True)
class Layout:
    """What the sections are: "image", "image_stack", "volume", "volume_stack" or "scan".

    `rule` is what decided. `leading` has names and sizes of the dimensions that count the
    sections, slowest first. Their product is the number of sections, or less if a trimmed file
    ends within a volume or frame.
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
    evidence: str = "",
    options: OpenOptions | None = None,
) -> Layout:
    """Return what the `n_sections` sections of a file are: fewer than NZ if it was trimmed.

    `section_axis` is the axis of the sections of a volume, `extended_size` the length of the
    extended header as found in the file, and `evidence` why a sidecar makes the sections a stack.
    `options` override the header. Raises MrcError if they do not fit the number of sections.
    """
    options = options or OpenOptions()
    if options.layout != "auto":
        kind, rule = options.layout, "the argument layout="
    elif (options.sections_per_frame or 1) > 1:
        kind, rule = "image_stack", "the argument sections_per_frame="
    else:
        kind, rule = _by_rule(header, name, extended_size, evidence)
    if kind == "image" and n_sections != 1:
        raise MrcError(
            f"{name}: layout='image' needs one section, and the file has {n_sections}; "
            "choose 'image_stack' or 'volume'"
        )
    if kind == "image":
        return Layout(kind, rule, ())
    if kind == "volume":
        return Layout(kind, rule, ((section_axis, n_sections),))
    outer, inner = ("volume", section_axis) if kind == "volume_stack" else ("image", "channel")
    per_group = options.sections_per_frame or (
        header.mz if kind == "volume_stack" else _sections_per_frame(header)
    )
    if kind == "image_stack" and per_group == 1:
        return Layout(kind, rule, (("image", n_sections),))
    given = "sections_per_frame" if options.sections_per_frame else "MZ (bytes 36–39)"
    n_groups = _groups(per_group, header.nz, n_sections, name, given)
    return Layout(kind, rule, ((outer, n_groups), (inner, per_group)))


def _by_rule(header: Header, name: str, extended_size: int, evidence: str) -> tuple[str, str]:
    """Return the layout of the first rule that applies, and the rule."""
    suffix = stem_and_suffix(name)[1]
    is_mrcz_stack = header.mrcz_version is not None and header.ispg == 0
    # later programs add their labels
    is_of_serialem = [text[:8] for text in header.texts] == ["SerialEM"]
    stack_evidence = {
        "a Direct Electron server wrote the file": header.is_direct_electron,
        "the extended header has section records": kind_of(header, extended_size).is_per_section,
        "the only label begins with SerialEM": is_of_serialem,
        "mrcz wrote the file, and ISPG is 0": is_mrcz_stack,
        f"the name ends in {suffix}": suffix in STACK_SUFFIXES,
        evidence: bool(evidence),
    }
    if header.is_volume_stack:
        return "volume_stack", "1: ISPG is 401–630 and MZ divides NZ"
    if header.nz == 1 and (header.ispg == 0 or not header.cella.z > 0):
        return "image", "2: NZ is 1, and ISPG is 0 or CELLA.z is not positive"
    if suffix in VOLUME_SUFFIXES:
        return "volume", f"3: the name ends in {suffix}"
    for reason, holds in stack_evidence.items():
        if holds:
            return "image_stack", f"4: {reason}"
    if header.ispg >= 1 or header.mz == header.nz:
        return "volume", "5: ISPG is 1 or more, or MZ equals NZ"
    if all(header[f"m{axis}"] == n - 1 for axis, n in sizes(header).items()):
        return "volume", "5: MX, MY and MZ are NX−1, NY−1 and NZ−1"
    return "image_stack", "6: nothing says that it is a volume"


def _sections_per_frame(header: Header) -> int:
    """Return the number of sections of one frame: what mrcz wrote to MZ, else 1."""
    version = header.mrcz_version
    # before 0.5.0, mrcz wrote the shape of the array to MX, MY and MZ
    is_grouped = version is not None and version >= (0, 5) and header.ispg == 0 and header.mz > 1
    return header.mz if is_grouped and header.nz % header.mz == 0 else 1


def _groups(per_group: int, promised: int, n_sections: int, name: str, given: str) -> int:
    """Return how many complete volumes or frames of `per_group` sections there are."""
    if per_group < 1 or promised % per_group:
        raise MrcError(
            f"{name}: {given} is {per_group}, which does not divide the file's {promised} "
            "sections; choose another layout= or sections_per_frame="
        )
    if n_sections < per_group:
        raise MrcError(
            f"{name}: the file has {n_sections} complete sections, and {per_group} belong "
            "together; layout='image_stack' with sections_per_frame=1 opens them, or "
            "layout='volume'"
        )
    return n_sections // per_group
