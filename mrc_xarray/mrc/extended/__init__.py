"""Extended headers: the bytes between the main header and the pixels.

See ``docs/reference/format.md#extended-headers``. A new kind is one small file and one row here.
"""

from __future__ import annotations

from mrc_xarray.metadata.columns import Metadata
from mrc_xarray.mrc.checks import STANDARD_EXTTYPS
from mrc_xarray.mrc.extended import agar, ccp4, fei, mrcz, seri
from mrc_xarray.mrc.extended.kind import ExtendedHeader, SectionNumbers
from mrc_xarray.mrc.header import Header, header_problem

__all__ = ["EXTENDED", "NONE", "ExtendedHeader", "kind_of"]

#: In the order in which they are tried; the first one that it can be is taken.
EXTENDED = (mrcz.JSON, agar.LEGACY_FEI, seri.SERI, agar.AGAR, fei.FEI1, fei.FEI2, ccp4.CCP4)


def kind_of(header: Header, extended_size: int) -> ExtendedHeader:
    """Return the kind of an extended header of which `extended_size` bytes are in the file.

    `NONE` if there is no extended header, and a kind without a name if it is not known.
    """
    if extended_size <= 0:
        return NONE
    is_named = header.exttyp.strip() in {kind.name for kind in EXTENDED}
    is_skewed = header.skew is not None and not is_named
    candidates = (mrcz.JSON, ccp4.CCP4) if is_skewed else EXTENDED
    return next((kind for kind in candidates if kind.is_kind(header, extended_size)), UNKNOWN)


def _not_decoded(header: Header, raw: bytes, sections: SectionNumbers) -> Metadata:
    known = ", ".join(kind.name for kind in EXTENDED if kind.name == (kind.exttyp or kind.name))
    problem = header_problem(
        "not-decoded" if header.exttyp in STANDARD_EXTTYPS else "exttyp",
        "EXTTYP",
        repr(header.exttyp),
        f"{known}, whose contents are known",
        "The extended header is not decoded; its bytes are at ds.mrc.extended_header.",
    )
    return Metadata(problems=(problem,))


NONE = ExtendedHeader(name="", is_kind=lambda header, size: size <= 0, is_carried=False)
UNKNOWN = ExtendedHeader(name="", is_kind=lambda header, size: size > 0, decode=_not_decoded)
