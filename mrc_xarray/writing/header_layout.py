"""The fields of a header that say what the sections are."""

from __future__ import annotations

from mrc_xarray.errors import MrcError
from mrc_xarray.mrc.header import Header
from mrc_xarray.mrc.voxel import intervals, sizes, voxel_size

__all__ = ["LAYOUTS", "SPACE_GROUPS", "with_layout"]

#: The space group that MRC2014 gives each layout, if the source has none of this kind.
SPACE_GROUPS = {"image": 0, "image_stack": 0, "volume": 1, "volume_stack": 401}
LAYOUTS = tuple(SPACE_GROUPS)
# ISPG of a volume with a symmetry, and what is added to it in a stack of such volumes
_SYMMETRIES, _OF_STACKS = range(1, 231), 400


def with_layout(header: Header, layout: str, name: str, mz: int | None = None) -> Header:
    """Return a header with ISPG and MZ for a layout, and CELLA.z for the same voxel size.

    `mz` is the number of sections in a volume of a stack, by default that of the header. Raises
    MrcError if the sections can't have the layout.
    """
    per_volume = header.mz if mz is None else mz
    changed = header.replaced(ispg=_space_group(header.ispg, layout), mz=per_volume)
    if layout == "image" and header.nz != 1:
        accepted = "1, for an image"
        action = "layout='image_stack' and layout='volume' take any number."
        raise MrcError.of(name, header.problem("dimensions", "NZ", accepted, action))
    if layout == "volume_stack":
        if (mz is None and header.mz == 1) or not changed.is_volume_stack:
            accepted = f"a divisor of NZ = {header.nz}: the number of sections in one volume"
            action = "mz= sets it in the same call."
            raise MrcError.of(name, changed.problem("volume-stack", "MZ", accepted, action))
    elif header.mrcz_version is not None:
        # in an MRCZ, it would be the number of sections in one frame
        changed = changed.replaced(mz=0)
    else:
        changed = changed.replaced(mz=sizes(header)["z"] if layout == "volume" else 1)
    size, n = voxel_size(header, "z"), intervals(changed, "z")
    if size is None or n == intervals(header, "z"):
        return changed
    return changed.replaced(cella=header.cella._replace(z=size * n))


def _space_group(ispg: int, layout: str) -> int:
    """Return ISPG for a layout, with the symmetry of the volume that it is now."""
    symmetry = ispg - _OF_STACKS if ispg - _OF_STACKS in _SYMMETRIES else ispg
    if symmetry not in _SYMMETRIES or layout in ("image", "image_stack"):
        return SPACE_GROUPS[layout]
    return symmetry + _OF_STACKS * (layout == "volume_stack")
