"""Correct fields of a file's header in place."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import reduce
from typing import Any

from mrc_xarray.errors import MrcError, warn
from mrc_xarray.mrc.dialects import other_meanings
from mrc_xarray.mrc.geometry import AXES, axis_names
from mrc_xarray.mrc.header import HEADER_SIZE, Header, is_mrcz_label, shown_place
from mrc_xarray.mrc.reading import MrcFile
from mrc_xarray.pixels.array import StackArray
from mrc_xarray.pixels.statistics import UNDETERMINED, Statistics
from mrc_xarray.storage import LocalSource
from mrc_xarray.storage.locks import lock_in_place
from mrc_xarray.text import did_you_mean
from mrc_xarray.voxel_size import VoxelSize, VoxelSizeArgument
from mrc_xarray.writing.examined import Examined
from mrc_xarray.writing.header_fields import FIELDS, typed
from mrc_xarray.writing.header_layout import LAYOUTS, with_layout
from mrc_xarray.writing.live import LiveFile, local_path
from mrc_xarray.writing.record_values import with_values

__all__ = ["edit_header"]


def edit_header(
    target: str | os.PathLike[str],
    *,
    voxel_size: VoxelSizeArgument = None,
    layout: str | None = None,
    extended: Mapping[str, Any] | None = None,
    statistics: bool = False,
    **fields: Any,
) -> None:
    """Change fields of a file's header, in place.

    The new header is checked first. A value that would make the file unreadable, or would cause a
    new warning, is refused, and so is a field whose bytes have another meaning in this file. The
    header of a file that can't be opened can be repaired, too: one with an unknown MODE, without
    data, or with less data than it promises. The header is written by one call. If another process
    is changing the file in place, this waits until it has finished. A compressed stream is written
    again, with the same codec, and replaced atomically.

    Parameters
    ----------
    target : path
    voxel_size : float, (float, float, float), record array, or mapping of str to float or pair
        Sets CELLA for the sampling that MX, MY and MZ give: a number or (x, y, z), in ångström, or
        a mapping of "x", "y", "z" to a number in ångström or a pair such as ``(1.35, "nm")``.
    layout : {"image", "image_stack", "volume", "volume_stack"}, optional
        What the sections are, as MRC2014 says it: sets ISPG and MZ, and CELLA.z so that the voxel
        size stays. A volume stack needs ``mz``, the number of sections in one volume. If the file
        still opens with another layout, such as an image stack in ``.map``, there is a warning.
    extended : mapping of str to scalar or array-like, optional
        Values in the records of FEI1, FEI2 and SERI, by the names and in the units of the
        coordinates: ``{"tilt_angle": [-60, -57, ...], "defocus": -3.5}``. One value, or one for
        each of the NZ sections. Values of FEI become valid. The names are those of
        ``ds.mrc.extended_fields``; values without a standard unit have that of the file.
    statistics : bool
        Whether to read all pixels, in parts, and to write DMIN, DMAX, DMEAN and RMS of the finite
        ones. Complex pixels have no order, and only RMS. A header from before 2000 has no RMS.
    **fields
        New values, by the names of `mrc_xarray.mrc.header.Header`: ``origin=(0, 0, 0)``,
        ``ispg=1``, ``label=["..."]``. NX, NY, NZ, MODE and NSYMBT can be changed only if the
        file has the size that the new values need. ``extra1`` (8 bytes) and ``extra2`` (84 bytes)
        are the bytes that MRC2014 leaves free; fields in the same call are written over them.

    Raises
    ------
    TypeError
        If there is no such field, or a value has the wrong type.
    MrcError
        If the new header would be worse than the old one, if fields share bytes, if another write
        in this process is changing the file, or if the file is not on a disk.
    OSError
        If the file is missing, or may not be written.
    """
    _check_names(fields, voxel_size, layout, statistics)
    if extended is not None and not isinstance(extended, Mapping):
        raise TypeError(f"extended is {extended!r:.80}; accepted: a mapping of name to values")
    path = local_path(target)
    with (
        lock_in_place(path, exclusive=True, waits=True) as lock,
        LiveFile.for_header(path, lock) as (file, sink),
    ):
        try:
            header = _edited(file, fields, voxel_size, layout, statistics)
            records = _records(file.with_header(header), extended)
        except MrcError as error:
            error.add_note("the file was left as it is")
            raise
        if records:
            sink.write([(HEADER_SIZE, records)])
        sink.finish(header.encode())


def _records(live: LiveFile, values: Mapping[str, Any] | None) -> bytes:
    """Return the extended header with other values in its records; empty if there are none."""
    if not values:
        return b""
    file = Examined.of(live).opened()
    raw = live.read(HEADER_SIZE, file.sections.offset - HEADER_SIZE)
    return with_values(file.header, raw, values, live.name)


def _check_names(
    fields: Mapping[str, Any], voxel_size: object, layout: object, statistics: bool
) -> None:
    """Raise TypeError for unknown fields, and for those that two arguments would set."""
    if unknown := sorted(set(fields) - set(FIELDS)):
        accepted = ("voxel_size", "layout", "extended", "statistics", *FIELDS)
        raise TypeError(
            f"unknown header fields: {', '.join(unknown)}{did_you_mean(unknown, accepted)}"
        )
    if statistics not in (True, False):
        raise TypeError(f"statistics is {statistics!r}; accepted: True or False")
    if layout not in (None, *LAYOUTS):
        raise ValueError(f"layout is {layout!r}; accepted: {', '.join(map(repr, LAYOUTS))}")
    set_by = {
        "voxel_size": ["cella"] * (voxel_size is not None),
        "layout": ["ispg", "cella", *["mz"] * (layout != "volume_stack")] * (layout is not None),
        "statistics": [*UNDETERMINED] * statistics,
    }
    for argument, names in set_by.items():
        if twice := sorted(fields.keys() & set(names)):
            raise TypeError(f"{argument}= sets {', '.join(twice)} as well: give only one of them")


def _edited(
    live: LiveFile,
    fields: Mapping[str, Any],
    voxel_size: VoxelSizeArgument,
    layout: str | None,
    statistics: bool,
) -> Header:
    """Return the header with new values, after a check that it does no harm."""
    before = Examined.of(live)
    others = {name: value for name, value in fields.items() if layout is None or name != "mz"}
    header = _with_fields(live, others)
    if layout is not None:
        mz = typed("mz", fields["mz"]) if "mz" in fields else None
        header = with_layout(header, layout, live.name, mz)
    if voxel_size is not None:
        header = _with_voxel_size(Examined.of(live.with_header(header)), voxel_size)
    after = Examined.of(live.with_header(header))
    before.check_no_worse(after, fields.keys() | ({"ispg"} if layout else set()))
    if layout is not None and after.file is not None and after.file.layout.kind != layout:
        found = after.file.layout
        warn(
            f"{live.name}: the header says {layout} now, and the file still opens as {found.kind} "
            f"({found.rule}). layout={layout!r} opens it as {layout}."
        )
    return header.with_statistics(_measured(live, after.opened())) if statistics else header


def _measured(file: LiveFile, found: MrcFile) -> dict[str, float]:
    """Return the header fields with the statistics of all pixels, which are read in parts."""
    sections = found.sections
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


def _with_voxel_size(found: Examined, voxel_size: VoxelSizeArgument) -> Header:
    """Return the file's header with another CELLA, and with MX, MY, MZ if they are unknown."""
    header, size, named = found.header, VoxelSize.of(voxel_size), [*AXES]
    if found.file is not None and not size.is_by_name:
        layout, (section_axis, *axes) = found.file.layout, found.file.axes
        is_stack_with_spacing = layout.kind == "image_stack" and size.of_sections(section_axis)
        has_sections = section_axis in dict(layout.leading) or is_stack_with_spacing
        named = [section_axis, *axes] if has_sections else axes
    given = size.along({axis: axis for axis in named})
    if other := [step.units for step in given.values() if not step.is_length]:
        raise MrcError(f"voxel_size is in {', '.join(other)}; accepted: lengths, as CELLA is in Å")
    sizes = dict(zip(axis_names(header), (header.nz, header.ny, header.nx), strict=True))
    intervals = {axis: n if (n := header[f"m{axis}"]) > 0 else sizes[axis] for axis in given}
    if min(intervals.values()) < 1:
        # without voxels, nothing has their size
        found.opened()
    cella = {axis: step.size * intervals[axis] for axis, step in given.items()}
    # in an MRCZ, MX, MY and MZ can be 0
    changed = intervals if header.mrcz_version is None else {}
    return header.replaced(
        cella=header.cella._replace(**cella), **{f"m{axis}": n for axis, n in changed.items()}
    )
