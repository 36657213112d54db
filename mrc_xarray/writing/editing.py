"""Correct fields of a file's header in place."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Mapping
from typing import Any

from mrc_xarray.errors import MrcError
from mrc_xarray.mrc.geometry import AXES
from mrc_xarray.mrc.header import N_LABELS, PLACES, XYZ, Header, is_mrcz_label
from mrc_xarray.mrc.reading import MrcFile, inspect
from mrc_xarray.mrc.recognition import guess_byteorder
from mrc_xarray.pixels.modes import MODES
from mrc_xarray.storage.locks import lock_in_place
from mrc_xarray.storage.sink import InPlace
from mrc_xarray.writing.live import LiveFile, local_path
from mrc_xarray.writing.options import check_numbers

__all__ = ["edit_header"]


def edit_header(
    target: str | os.PathLike[str],
    *,
    voxel_size: float | Mapping[str, float] | None = None,
    **fields: Any,
) -> None:
    """Change fields of a file's header, in place.

    The new header is checked first. A value that would make the file unreadable, or would cause a
    new warning, is refused. The header is written by one call. If another process is changing
    the file in place, this waits until it has finished.

    Parameters
    ----------
    target : path
    voxel_size : float, or mapping of {"x", "y", "z"} to float, Å, optional
        Sets CELLA for the sampling that MX, MY and MZ give.
    **fields
        New values, by the names of `mrc_xarray.mrc.header.Header`: ``origin=(0, 0, 0)``,
        ``ispg=1``, ``label=["..."]``. NX, NY, NZ, MODE and NSYMBT can be changed only if the
        file has the size that the new values need.

    Raises
    ------
    TypeError
        If there is no such field, or a value has the wrong type.
    MrcError
        If the new header would be worse than the old one, if another write in this process is
        changing the file, or if the file is not a plain file on a disk.
    OSError
        If the file is missing, or may not be written.
    """
    known = {name.lower() for name in PLACES} - {"extra1", "extra2"}
    unknown = sorted(set(fields) - known)
    if unknown:
        raise TypeError(f"unknown header fields: {', '.join(unknown)}")
    path = local_path(target)
    with lock_in_place(path, exclusive=True, waits=True) as lock:
        file = LiveFile.open(path, lock)
        try:
            header = _edited(file, fields, voxel_size)
        except MrcError as error:
            error.add_note("the file was left as it is")
            raise
        InPlace(file.name, file.size, file.head, file.node).finish(header.encode())


def _edited(
    file: LiveFile, fields: Mapping[str, Any], voxel_size: float | Mapping[str, float] | None
) -> Header:
    """Return the header with new values, after a check that the file can be read with it."""
    try:
        before = _findings(inspect(file))
    except MrcError:
        # any header that makes the file readable is better
        before = None
    header = _with_fields(file, fields)
    if voxel_size is not None:
        header = _with_voxel_size(inspect(file.with_header(header)), voxel_size)
    after = _findings(inspect(file.with_header(header)))
    if before is not None and after - before:
        raise MrcError("; ".join(sorted(after - before)))
    return header


def _with_fields(file: LiveFile, fields: Mapping[str, Any]) -> Header:
    """Return the file's header with new values in some fields."""
    old = Header.parse(file.head, guess_byteorder(file.head, file.size, MODES))
    header = old.replaced(**{name: _typed(name, value) for name, value in fields.items()})
    if "label" not in fields:
        return header
    version = old.label[0]
    if is_mrcz_label(version) and header.label[0] != version:
        # mrcz decides by this label what MZ means
        header = header.replaced(label=(version, *header.label)[:N_LABELS])
    n_labels = fields.get("nlabl", sum(bool(text) for text in header.label))
    return header.replaced(nlabl=n_labels)


def _findings(file: MrcFile) -> set[str]:
    """Return what is wrong with a file, without what to do about it."""
    return {p.message(file.name).removesuffix(p.action).rstrip() for p in file.problems}


def _with_voxel_size(file: MrcFile, voxel_size: float | Mapping[str, float]) -> Header:
    """Return the file's header with another CELLA, and with MX, MY, MZ if they are unknown."""
    header = file.header
    spatial = [axis for axis in dict(file.layout.leading) if axis in AXES] + [*file.axes[1:]]
    check_numbers("voxel_size", voxel_size)
    given = voxel_size if isinstance(voxel_size, Mapping) else dict.fromkeys(spatial, voxel_size)
    if set(given) - set(AXES):
        raise TypeError(f"voxel_size is {voxel_size!r}; accepted: a number, or one for x, y, z")
    sizes = dict(zip(file.axes, (header.nz, header.ny, header.nx), strict=True))
    intervals = {axis: n if (n := header[f"m{axis}"]) > 0 else sizes[axis] for axis in given}
    cella = {axis: float(step) * intervals[axis] for axis, step in given.items()}
    # in an MRCZ, MX, MY and MZ can be 0
    changed = intervals if header.mrcz_version is None else {}
    return header.replaced(
        cella=header.cella._replace(**cella), **{f"m{axis}": n for axis, n in changed.items()}
    )


def _typed(name: str, value: Any) -> Any:
    """Return a value of the type that a field has."""
    kind = str(Header.__dataclass_fields__[name].type)
    try:
        match kind:
            case "int":
                return operator.index(value)
            case "float":
                return _finite(value)
            case "XYZ" if len(value) != 3:
                raise TypeError("accepted: three numbers")
            case "XYZ":
                return XYZ(*map(_finite, value))
            case "str":
                return _text(value, PLACES[name.upper()][1])
            case "bytes":
                return _bytes(value, PLACES[name.upper()][1])
        if name != "label":
            return _floats(value, PLACES[name.upper()][1] // 4)
        if isinstance(value, str) or len(value) > N_LABELS:
            raise TypeError("accepted: up to ten texts")
        return (*map(_text, value), *[""] * (N_LABELS - len(value)))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} is {value!r}: {error}") from None


def _finite(value: Any) -> float:
    if not math.isfinite(value):
        raise TypeError("accepted: finite numbers")
    return float(value)


def _floats(value: Any, n: int) -> tuple[float, ...]:
    if isinstance(value, str) or len(value) != n:
        raise TypeError(f"accepted: {n} numbers")
    return tuple(map(float, value))


def _bytes(value: Any, length: int) -> bytes:
    if not isinstance(value, bytes) or len(value) != length:
        raise TypeError(f"accepted: {length} bytes")
    return value


def _text(value: Any, longest: int = 80) -> str:
    if not isinstance(value, str) or len(value) > longest or not value.isprintable():
        raise TypeError(f"accepted: a printable text of up to {longest} characters")
    return value
