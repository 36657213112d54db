"""Correct fields of a file's header in place."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Set
from functools import reduce
from typing import Any

from mrc_xarray.errors import MrcError
from mrc_xarray.mrc.dialects import other_meanings
from mrc_xarray.mrc.geometry import AXES
from mrc_xarray.mrc.header import IMOD_STAMP, Header, is_mrcz_label, shown_place
from mrc_xarray.mrc.reading import MrcFile, inspect
from mrc_xarray.pixels.array import StackArray
from mrc_xarray.pixels.statistics import UNDETERMINED, Statistics
from mrc_xarray.storage import LocalSource
from mrc_xarray.storage.locks import lock_in_place
from mrc_xarray.text import did_you_mean
from mrc_xarray.voxel_size import VoxelSize, VoxelSizeArgument
from mrc_xarray.writing.header_fields import FIELDS, typed
from mrc_xarray.writing.live import LiveFile, local_path

__all__ = ["edit_header"]

# fields that are changed to change the layout
_OF_LAYOUT = {"nx", "ny", "nz", "mx", "my", "mz", "ispg"}
# fields that are not changed to change what a pixel is
_NOT_OF_PIXELS = {"label", "nlabl", "dmin", "dmax", "dmean", "rms"}


def edit_header(
    target: str | os.PathLike[str],
    *,
    voxel_size: VoxelSizeArgument = None,
    statistics: bool = False,
    **fields: Any,
) -> None:
    """Change fields of a file's header, in place.

    The new header is checked first. A value that would make the file unreadable, or would cause a
    new warning, is refused, and so is a field whose bytes have another meaning in this file. The
    header is written by one call. If another process is changing the file in place, this waits
    until it has finished. A compressed stream is written again, with the same codec, and replaced
    atomically.

    Parameters
    ----------
    target : path
    voxel_size : float, (float, float, float), record array, or mapping of str to float or pair
        Sets CELLA for the sampling that MX, MY and MZ give: a number or (x, y, z), in ångström, or
        a mapping of "x", "y", "z" to a number in ångström or a pair such as ``(1.35, "nm")``.
    statistics : bool
        Whether to read all pixels, in parts, and to write DMIN, DMAX, DMEAN and RMS of the finite
        ones. A header from before 2000 has no RMS.
    **fields
        New values, by the names of `mrc_xarray.mrc.header.Header`: ``origin=(0, 0, 0)``,
        ``ispg=1``, ``label=["..."]``. NX, NY, NZ, MODE and NSYMBT can be changed only if the
        file has the size that the new values need.

    Raises
    ------
    TypeError
        If there is no such field, or a value has the wrong type.
    MrcError
        If the new header would be worse than the old one, if fields share bytes, if statistics of
        complex pixels are requested, which have no order, if another write in this process is
        changing the file, or if the file is not on a disk.
    OSError
        If the file is missing, or may not be written.
    """
    _check_names(fields, voxel_size, statistics)
    path = local_path(target)
    with (
        lock_in_place(path, exclusive=True, waits=True) as lock,
        LiveFile.for_header(path, lock) as (file, sink),
    ):
        try:
            header = _edited(file, fields, voxel_size, statistics)
        except MrcError as error:
            error.add_note("the file was left as it is")
            raise
        sink.finish(header.encode())


def _check_names(fields: Mapping[str, Any], voxel_size: object, statistics: bool) -> None:
    """Raise TypeError for unknown fields, and for those that two arguments would set."""
    if unknown := sorted(set(fields) - set(FIELDS)):
        accepted = ("voxel_size", "statistics", *FIELDS)
        raise TypeError(
            f"unknown header fields: {', '.join(unknown)}{did_you_mean(unknown, accepted)}"
        )
    if statistics not in (True, False):
        raise TypeError(f"statistics is {statistics!r}; accepted: True or False")
    given = {"cella"} if voxel_size is not None else set()
    given |= set(UNDETERMINED) if statistics else set()
    if twice := sorted(given & set(fields)):
        raise TypeError(
            f"voxel_size= or statistics= sets {', '.join(twice)} as well: give only one of them"
        )


def _edited(
    file: LiveFile, fields: Mapping[str, Any], voxel_size: VoxelSizeArgument, statistics: bool
) -> Header:
    """Return the header with new values, after a check that the file can be read with it."""
    before = None
    # any header that makes the file readable is better
    with contextlib.suppress(MrcError):
        before = inspect(file)
    header = _with_fields(file, fields)
    if voxel_size is not None:
        header = _with_voxel_size(inspect(file.with_header(header)), voxel_size)
    after = inspect(file.with_header(header))
    if before is not None:
        _check_no_worse(before, after, set(fields))
    return header.with_statistics(_measured(file, after)) if statistics else header


def _check_no_worse(before: MrcFile, after: MrcFile, names: Set[str]) -> None:
    """Raise MrcError for a new problem, or if layout or pixels change unintentionally."""
    if new := _findings(after) - _findings(before):
        raise MrcError("; ".join(sorted(new)))
    old, layout = before.layout, after.layout
    # CELLA.z says what a single section is
    if old.kind != layout.kind and not names & _OF_LAYOUT and after.header.nz > 1:
        raise MrcError(
            f"{after.name}: the file would open as {layout.kind} ({layout.rule}) instead of "
            f"{old.kind} ({old.rule}). ispg= and mz= in the same call say what it is: 0 and 1 for "
            "an image stack, 1 and the number of sections for a volume"
        )
    if before.sections.mode != after.sections.mode and names <= _NOT_OF_PIXELS:
        raise MrcError(
            f"{after.name}: the pixels would open as {after.sections.mode.decoded_name} "
            f"({after.arranged.mode0}) instead of {before.sections.mode.decoded_name} "
            f"({before.arranged.mode0}). imod_stamp={IMOD_STAMP} in the same call says what they "
            "are, with imod_flags=4 for unsigned bytes, 5 for signed ones, and 20 for two pixels "
            "in each byte"
        )


def _measured(file: LiveFile, found: MrcFile) -> dict[str, float]:
    """Return the header fields with the statistics of all pixels, which are read in parts."""
    sections = found.sections
    if not sections.mode.has_statistics:
        raise MrcError(
            f"{file.name}: the pixels are {sections.dtype} (MODE {sections.mode.number}), and "
            "complex numbers have no minimum and no maximum"
        )
    if found.header.is_direct_electron:
        raise MrcError(
            f"{file.name}: files of Direct Electron are recognised by DMIN, DMAX, DMEAN and RMS "
            "(2, 1, 0, −1), so statistics can't be written here; to_mrc writes a copy with them"
        )
    array = StackArray(LocalSource.open(file.path), sections, (sections.shape[0],))
    parts = (Statistics.of(array.read(key)) for key in sections.parts())
    return reduce(Statistics.joined, parts, Statistics()).fields()


def _with_fields(file: LiveFile, fields: Mapping[str, Any]) -> Header:
    """Return the file's header with new values; raise MrcError if no program would read them."""
    old = file.header
    header = old.replaced(**{name: typed(name, value) for name, value in fields.items()})
    if "label" in fields:
        version = old.label[0]
        if is_mrcz_label(version) and header.label[0] != version:
            # mrcz decides by this label what MZ means
            header = header.replaced(label=typed("label", (version, *fields["label"])))
        n_labels = fields.get("nlabl", sum(bool(text) for text in header.label))
        header = header.replaced(nlabl=n_labels)
    before, after = other_meanings(old), other_meanings(header)
    for name in fields:
        if name in after:
            raise MrcError(
                f"{file.name}: {shown_place(name)} can't be set in this file: {after[name]}"
            )
    # a label, EXTTYP and NVERSION say what other bytes mean
    for name in ("lskflg", "voltage", "c3", "gain"):
        if old[name] and name not in before and name in after:
            raise MrcError(
                f"{file.name}: {', '.join(fields)} would hide {shown_place(name)}: {after[name]}"
            )
    return header


def _findings(file: MrcFile) -> set[str]:
    """Return what is wrong with a file, without what to do about it."""
    return {p.message(file.name).removesuffix(p.action).rstrip() for p in file.problems}


def _with_voxel_size(file: MrcFile, voxel_size: VoxelSizeArgument) -> Header:
    """Return the file's header with another CELLA, and with MX, MY, MZ if they are unknown."""
    header = file.header
    spatial = [axis for axis in dict(file.layout.leading) if axis in AXES] + [*file.axes[1:]]
    size = VoxelSize.of(voxel_size)
    given = size.along({axis: axis for axis in (AXES if size.is_by_name else spatial)})
    if other := [step.units for step in given.values() if not step.is_length]:
        raise MrcError(f"voxel_size is in {', '.join(other)}; accepted: lengths, as CELLA is in Å")
    sizes = dict(zip(file.axes, (header.nz, header.ny, header.nx), strict=True))
    intervals = {axis: n if (n := header[f"m{axis}"]) > 0 else sizes[axis] for axis in given}
    cella = {axis: step.size * intervals[axis] for axis, step in given.items()}
    # in an MRCZ, MX, MY and MZ can be 0
    changed = intervals if header.mrcz_version is None else {}
    return header.replaced(
        cella=header.cella._replace(**cella), **{f"m{axis}": n for axis, n in changed.items()}
    )
