"""Whether 8-bit data of MODE 0 are signed in a file."""

from __future__ import annotations

from mrc_xarray.mrc.header import Header

__all__ = ["mode0_sign"]


def mode0_sign(header: Header) -> tuple[str, str]:
    """Tell whether mode 0 is signed in this file, and by which evidence.

    Returns
    -------
    dtype : {"int8", "uint8"}
    evidence : str
        For the user, in `attrs`.
    """
    if header.has_imod_stamp:
        signed = bool(header.imod_flags & 1)
        return "int8" if signed else "uint8", f"IMOD's flags say {'' if signed else 'un'}signed"
    if header.is_direct_electron:
        return "uint8", "a Direct Electron server wrote the file"
    if header.has_statistics:
        fits_int8 = header.dmin >= -128 and header.dmax <= 127
        fits_uint8 = header.dmin >= 0 and header.dmax <= 255
        if fits_int8 != fits_uint8:
            return (
                "int8" if fits_int8 else "uint8",
                f"DMIN is {header.dmin:g} and DMAX {header.dmax:g}",
            )
    if header.mrcz_version is not None:
        return "int8", "mrcz wrote the file, and can't write unsigned bytes"
    if header.has_valid_nversion:
        return "int8", "NVERSION is valid, and MRC2014 is signed"
    if not header.has_map_word:
        return "uint8", "a header without MAP is from before 2000"
    return "int8", "assumed: nothing in the header tells"
