"""Whether 8-bit data of MODE 0 are signed. See ``docs/reference/format.md#signedness``."""

from __future__ import annotations

from mrc_xarray.mrc.header import Header

__all__ = ["mode0_dtype"]


def mode0_dtype(header: Header, choice: str, sidecar: tuple[str, str] | None) -> tuple[str, str]:
    """Return the dtype of mode 0 in this file, and what decided.

    Parameters
    ----------
    header : Header
    choice : {"auto", "int8", "uint8"}
        The argument ``mode0`` of the engine.
    sidecar : (str, str) or None
        The dtype that a sidecar states, and how.

    Returns
    -------
    dtype : {"int8", "uint8"}
    evidence : str
        For ``attrs``.
    """
    if choice != "auto":
        return choice, "the argument mode0="
    if sidecar is not None:
        return sidecar
    if header.has_imod_stamp and header.imod_flags & 1:
        return "int8", "IMOD's flags say signed"
    if header.has_imod_stamp:
        return "uint8", "IMOD's flags say unsigned"
    if header.is_direct_electron:
        return "uint8", "a Direct Electron server wrote the file"
    if header.has_statistics:
        fits_int8 = header.dmin >= -128 and header.dmax <= 127
        fits_uint8 = header.dmin >= 0 and header.dmax <= 255
        if fits_int8 != fits_uint8:
            evidence = f"DMIN is {header.dmin:g} and DMAX {header.dmax:g}"
            return "int8" if fits_int8 else "uint8", evidence
    if header.mrcz_version is not None:
        return "int8", "mrcz wrote the file, and can't write unsigned bytes"
    if header.has_valid_nversion:
        return "int8", "NVERSION is valid, and MRC2014 is signed"
    if not header.has_map_word:
        return "uint8", "a header without MAP is from before 2000"
    return "int8", "assumed: nothing in the header says"
