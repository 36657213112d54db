"""Whether a file is MRC, and its byte order, from its first bytes.

See ``docs/reference/format.md#header``, ``#deltavision`` and ``#odd-headers``.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from mrc_xarray.errors import MrcError, Problem
from mrc_xarray.mrc.header import HEADER_SIZE, PLACES, stamped_byteorder
from mrc_xarray.pixels.compression import MRCZ_CODECS
from mrc_xarray.pixels.modes import MODES, PER_CODEC, ByteOrder, Mode

__all__ = [
    "BYTE_ORDERS",
    "PLAUSIBLE_SIZE",
    "guess_byteorder",
    "looks_like_mrc",
    "plausible_byteorders",
    "refuse_foreign",
]

#: Byte orders by the names that arguments use.
BYTE_ORDERS: dict[str, ByteOrder] = {"little": "<", "big": ">"}
#: Bytes that `looks_like_mrc` needs: everything up to the machine stamp.
PLAUSIBLE_SIZE = 216

_DELTAVISION_ID = -16224

# the first bytes of other kinds of file
_FOREIGN = {
    b"version https://git-lfs": "a Git LFS pointer: fetch the file itself with `git lfs pull`",
    b"<!doctype html": "an HTML page: a download that went wrong",
    b"<html": "an HTML page: a download that went wrong",
    b"<?xml": "an XML document",
    b"\x1f\x8b\x08": "a gzip file: decompress it first",
    b"BZh": "a bzip2 file: decompress it first",
    b"\xfd7zXZ": "an xz file: decompress it first",
    b"\x28\xb5\x2f\xfd": "a zstd file: decompress it first",
    b"PK\x03\x04": "a zip archive: fsspec opens a member as zip://NAME::ARCHIVE",
    b"\x89HDF\r\n": "an HDF5 file: open it with another engine",
    b"CDF": "a netCDF file: open it with another engine",
    b"II*\0": "a TIFF file: open it with another library",
    b"MM\0*": "a TIFF file: open it with another library",
    b"II+\0": "a TIFF file: open it with another library",
    b"\x89PNG\r\n": "a PNG image: open it with another library",
    b"\xff\xd8\xff": "a JPEG image: open it with another library",
    b"%PDF-": "a PDF document",
    b"\x93NUMPY": "a NumPy array: open it with numpy.load",
}
# the control characters of a text
_WHITE_SPACE = b"\t\n\r\f"
_CONTROLS = bytes(set(range(32)) - set(_WHITE_SPACE))


def looks_like_mrc(head: bytes) -> bool:
    """Return whether a file that begins with these bytes, 216 or more, can be MRC."""
    if len(head) < PLAUSIBLE_SIZE or _foreign(head) or _is_deltavision(head):
        return False
    scores = [_plausibility(head, order, MODES) for order in BYTE_ORDERS.values()]
    # a header with a damaged axis order is recognised by its MAP word and machine stamp
    at_map, at_stamp = PLACES["MAP"][0], PLACES["MACHST"][0]
    is_marked = head[at_map : at_map + 3] == b"MAP" and stamped_byteorder(head[at_stamp:])
    return any(score == 3 or (section_bytes and is_marked) for score, section_bytes in scores)


def _foreign(head: bytes) -> str | None:
    start = head[:512].lstrip().lower()
    for magic, kind in _FOREIGN.items():
        if head.startswith(magic) or (magic[:1] in b"<v" and start.startswith(magic)):
            return kind
    if _is_dm(head):
        return f"a DM{head[3]} file of DigitalMicrograph: open it with engine='dm'"
    # as NX and NY, any text promises sections of more than 10^16 pixels, or of none
    first = head[:HEADER_SIZE]
    is_text = len(first) == HEADER_SIZE and first.translate(None, _CONTROLS) == first
    if is_text and b"data_" in first and b"_rln" in first:
        return "a table of RELION: open it with engine='relion'"
    return "a text file" if is_text else None


def _is_dm(head: bytes) -> bool:
    """Return whether a file begins with version, size, byte order and a sorted list of tags.

    As numbers of an MRC header, one of NY, MODE and NXSTART would be impossible.
    """
    at = {b"\0\0\0\3": 8, b"\0\0\0\4": 12}.get(head[:4])
    is_order = at is not None and head[at : at + 4] in (b"\0\0\0\0", b"\0\0\0\1")
    return is_order and at is not None and head[at + 4 : at + 6] in (b"\1\0", b"\1\1")


def _is_deltavision(head: bytes) -> bool:
    return any(
        int.from_bytes(head[96:98], order, signed=True) == _DELTAVISION_ID
        for order in ("little", "big")
    )


def refuse_foreign(name: str, head: bytes) -> None:
    """Raise MrcError if `head`, 1024 bytes or the complete file, is not the start of MRC."""
    kind = _foreign(head)
    if kind is None and len(head) >= HEADER_SIZE and _is_deltavision(head):
        kind = "a DeltaVision file (−16224 at bytes 96–97): open it with the package mrc"
    action = "It is not an MRC file."
    if not head:
        code, found, message = "empty", "0 bytes", "the file is empty (0 bytes)"
    elif kind is not None:
        code, found, message = "foreign", kind, f"this is {kind}"
    elif len(head) < HEADER_SIZE:
        code, found, action = "short", f"{len(head)} bytes", "It is truncated, or not an MRC file."
        message = f"the file has {found}, and an MRC header alone has {HEADER_SIZE}. {action}"
    else:
        return
    accepted = f"{HEADER_SIZE} bytes of header, and pixels"
    raise MrcError.of(name, Problem(code, "the file", found, accepted, action, offset=0), message)


def _plausibility(head: bytes, order: ByteOrder, modes: Mapping[int, Mode]) -> tuple[int, int]:
    """Return how many of dimensions, mode and axis order make sense, and the bytes per section.

    These are 0 if the dimensions or the mode make no sense.
    """
    nx, ny, nz, number = struct.unpack_from(order + "4i", head, 0)
    axes = struct.unpack_from(order + "3i", head, PLACES["MAPC"][0])
    mode = modes.get(number)
    positive = min(nx, ny, nz) > 0
    known = mode is not None or (
        number // PER_CODEC in MRCZ_CODECS and number % PER_CODEC in modes and number > 0
    )
    section_bytes = mode.row_bytes(nx) * ny if mode and positive else 0
    return positive + known + (sorted(axes) == [1, 2, 3]), section_bytes


def plausible_byteorders(
    head: bytes, size: int | None, modes: Mapping[int, Mode]
) -> list[ByteOrder]:
    """Return the byte order in which the numbers make more sense, or both."""

    def evidence(order: ByteOrder) -> tuple[int, bool]:
        plausible, section_bytes = _plausibility(head, order, modes)
        # one section is enough, since the file may be truncated
        fits = section_bytes > 0 and (size is None or section_bytes <= size - HEADER_SIZE)
        return plausible, fits

    found = {order: evidence(order) for order in BYTE_ORDERS.values()}
    return [order for order in found if found[order] == max(found.values())]


def guess_byteorder(head: bytes, size: int | None, modes: Mapping[int, Mode]) -> ByteOrder:
    """Return the most plausible byte order, by header, size of the file and machine stamp."""
    orders = plausible_byteorders(head, size, modes)
    stamp = stamped_byteorder(head[PLACES["MACHST"][0] :])
    return stamp if stamp in orders else orders[0]
