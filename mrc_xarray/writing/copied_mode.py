"""The mode of a new file: that of the source if the pixels are a copy, else by their dtype."""

from __future__ import annotations

import numpy as np
import xarray as xr

from mrc_xarray.errors import MrcError
from mrc_xarray.mrc.header import Header
from mrc_xarray.pixels.array import StackArray
from mrc_xarray.pixels.modes import MODES, PER_CODEC, Mode, mode_for
from mrc_xarray.writing.backing import contents

__all__ = ["choose_mode"]

# of two pixels in each byte
_PACKED = 101
# how dask names the tasks that read, select, join or move pixels, and change none of them
_COPYING = (
    "original-", "open_dataset-", "xarray-", "getitem-", "rechunk-", "concatenate-", "transpose-",
    "reshape-",
)  # fmt: skip


def choose_mode(
    data: xr.DataArray, number: int | None, source: Header | None, *, is_rgb: bool, codec: int
) -> tuple[Mode, str]:
    """Return the mode, and a text for a warning if a copy has another one than the source.

    `number` is the mode that the user asks for, `is_rgb` whether the last dimension is red, green
    and blue, and `codec` the number of the codec of an MRCZ. Raise MrcError if no mode stores the
    data without loss, or the one that the user asks for can't.
    """
    by_dtype = mode_for(data.dtype, number, is_rgb=is_rgb)
    old = None if number is not None or source is None else _mode_of(source, data)
    if old is None or source is None or is_rgb != bool(old.samples):
        return by_dtype, ""
    was = source.mode % PER_CODEC
    packed = " with two pixels in each byte" if source.has_packed_bytes else ""
    note = f"MODE {was}{packed}, which becomes MODE {old.number}" if was != old.number else ""
    if old.sign_varies and data.dtype.name in ("int8", "uint8"):
        return old.with_sign(data.dtype.str[1:]), note
    if np.dtype(old.decoded) != data.dtype:
        return by_dtype, ""
    if not (old.holds_its_dtype or _is_copy(data, old)):
        return by_dtype, (
            f"MODE {old.number} of the source, as the pixels are not known to be a copy; "
            f"mode={old.number} checks and writes them"
        )
    if old.is_packed and codec:
        complete = MODES[0].with_sign(old.decoded)
        return complete, (
            f"MODE {old.number}, as an MRCZ can't hold packed pixels (they are written as "
            f"MODE {complete.number})"
        )
    return old, note


def _mode_of(source: Header, data: xr.DataArray) -> Mode | None:
    """Return the mode that a copy of the source has; None if its mode is unknown."""
    if source.has_packed_bytes and _is_copy(data, MODES[_PACKED]):
        return MODES[_PACKED]
    found = MODES.get(source.mode % PER_CODEC) if source.mode >= 0 else None
    return found if found is None or found.successor is None else MODES[found.successor]


def _is_copy(data: xr.DataArray, mode: Mode) -> bool:
    """Return whether the pixels certainly have values that `mode` stores exactly.

    Pixels in memory are compared. Lazy pixels are not computed: they must come from files of this
    mode, and only be selected, joined or moved.
    """
    if data.variable._in_memory:
        try:
            return all(np.array_equal(mode.cast(part), part) for part in data.values)
        except MrcError:
            return False
    if data.chunks and not all(layer.startswith(_COPYING) for layer in data.data.dask.layers):
        return False
    found = [part.sections.mode for part in contents(data) if isinstance(part, StackArray)]
    return {each.number for each in found} == {mode.number}
