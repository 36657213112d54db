"""Checks of a header. The validator runs all of them, and the reader those that it repairs.

They agree with mrcfile's validator, except that modes 3 and 101 are valid. See
``docs/reference/format.md#header``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from mrc_xarray.errors import RULES, Problem
from mrc_xarray.mrc.header import N_LABELS, PLACES, Header
from mrc_xarray.mrc.voxel import AXES, joined, problems_of_cell
from mrc_xarray.pixels.compression import MRCZ_CODECS
from mrc_xarray.pixels.modes import MODES, PER_CODEC, STANDARD, Mode

__all__ = ["CHECKS", "STANDARD_EXTTYPS", "check", "find_mode"]

STANDARD_EXTTYPS = ("CCP4", "MRCO", "SERI", "AGAR", "FEI1", "FEI2", "HDF5")
_VERSIONS = (20140, 20141)
# white space in bytes; str.strip removes more
_BLANKS = " \t\n\r\v\f"
_IS_READ = "The file is read anyway."


def check(header: Header, *, repaired: bool = False) -> Iterator[Problem]:
    """Yield what is wrong with a header, or only what is `repaired`, which strict=True refuses."""
    for code, find in CHECKS.items():
        if not repaired or RULES[code].strict:
            yield from find(header)


def find_mode(header: Header, modes: Mapping[int, Mode] = MODES) -> Mode | Problem:
    """Return the mode of the pixels in a table of modes, or what is wrong with MODE."""
    mode = modes.get(header.mode % PER_CODEC) if header.codec_number in MRCZ_CODECS else None
    if header.mode >= 0 and mode is not None and not (header.is_mrcz and mode.is_packed):
        return mode
    known = ", ".join(map(str, modes))
    accepted = f"{known}, and these with 1000 to {max(MRCZ_CODECS)}000 added in an MRCZ"
    action = "The file may be damaged or not an MRC file."
    return header.problem("mode", "MODE", accepted, action)


def _map_word(header: Header) -> Iterator[Problem]:
    if not header.has_map_word:
        action = "The file is read as MRC, since files from before 2000 do not contain it."
        yield header.problem("map-word", "MAP", "'MAP '", action)


def _map_padding(header: Header) -> Iterator[Problem]:
    if header.has_map_word and header.map != "MAP ":
        yield header.problem("map-padding", "MAP", "'MAP '", _IS_READ)


def _machine_stamp(header: Header) -> Iterator[Problem]:
    stamped = header.stamped_byteorder
    if stamped != header.byteorder:
        orders = {"<": "little-endian", ">": "big-endian"}
        says = f"It means {orders[stamped]}, but the" if stamped else "The"
        accepted = "44 44 00 00 or 44 41 00 00 (little-endian), 11 11 00 00 (big-endian)"
        action = f"{says} header makes sense as {orders[header.byteorder]}; byteorder= overrides."
        yield header.problem("machine-stamp", "MACHST", accepted, action)


def _axes(header: Header) -> Iterator[Problem]:
    if sorted((header.mapc, header.mapr, header.maps)) != [1, 2, 3]:
        action = "1, 2, 3 are assumed: columns along x, rows along y, sections along z."
        yield header.problem("axes", "MAPC, MAPR, MAPS", "a permutation of 1, 2, 3", action)


def _mode(header: Header) -> Iterator[Problem]:
    mode = find_mode(header)
    if isinstance(mode, Problem):
        yield mode
    elif header.mode not in STANDARD and not header.is_mrcz:
        known = ", ".join(map(str, sorted(STANDARD)))
        yield header.problem("extension", "MODE", known, "Not all programs can read it.")


def _dimensions(header: Header) -> Iterator[Problem]:
    if min(header.nx, header.ny, header.nz) < 1:
        action = "The file has no data, or its header is damaged."
        yield header.problem("dimensions", "NX, NY, NZ", "1 or more each", action)


def _negative_fields(header: Header) -> Iterator[Problem]:
    accepted = "0 or more"
    for group in (("MX", "MY", "MZ"), ("ISPG",), ("NLABL",)):
        negative = [field for field in group if header[field] < 0]
        if negative:
            alike = (header.problem("negative-field", f, accepted, "") for f in negative)
            yield joined(alike, _IS_READ)


def _negative_cell(header: Header) -> Iterator[Problem]:
    for problem in problems_of_cell(header, AXES):
        if problem.code == "negative-cell":
            yield problem


def _volume_stack(header: Header) -> Iterator[Problem]:
    if 401 <= header.ispg <= 630 and not header.is_volume_stack:
        accepted = f"a divisor of NZ = {header.nz}, as ISPG {header.ispg} means a volume stack"
        action = "It is not opened as a volume stack; layout= states what it is."
        yield header.problem("volume-stack", "MZ", accepted, action)


def _labels(header: Header) -> list[bool]:
    return [bool(text.strip(_BLANKS)) for text in header.label]


def _label_gap(header: Header) -> Iterator[Problem]:
    in_use = _labels(header)
    first = in_use.index(False) if False in in_use else N_LABELS
    if True in in_use[first:]:
        after = in_use.index(True, first)
        yield Problem(
            "label-gap",
            f"label {after + 1}",
            repr(header.label[after][:20]),
            f"blank, since label {first + 1} is blank",
            _IS_READ,
            offset=PLACES["LABEL"][0] + 80 * after,
            nbytes=80,
        )


def _label_count(header: Header) -> Iterator[Problem]:
    n = sum(_labels(header))
    if n != header.nlabl:
        accepted = f"{n}, the number of labels with text"
        yield header.problem("label-count", "NLABL", accepted, "All labels are read.")


def _version(header: Header) -> Iterator[Problem]:
    # mrcz writes 0, and CCP4's skew matrix is stored there
    has_field = not header.is_mrcz and header.skew is None
    if has_field and header.nversion not in _VERSIONS:
        yield header.problem("version", "NVERSION", " or ".join(map(str, _VERSIONS)), _IS_READ)


def _exttyp(header: Header) -> Iterator[Problem]:
    known = (*STANDARD_EXTTYPS, "json") if header.is_mrcz else STANDARD_EXTTYPS
    if header.nsymbt > 0 and header.exttyp not in known and header.skew is None:
        code = "extension" if header.exttyp == "json" else "exttyp"
        action = "Known records are decoded anyway; the bytes are at ds.mrc.extended_header."
        yield header.problem(code, "EXTTYP", ", ".join(STANDARD_EXTTYPS), action)


#: By code, in the order in which they are reported.
CHECKS: dict[str, Callable[[Header], Iterator[Problem]]] = {
    "dimensions": _dimensions,
    "mode": _mode,
    "negative-field": _negative_fields,
    "negative-cell": _negative_cell,
    "axes": _axes,
    "volume-stack": _volume_stack,
    "exttyp": _exttyp,
    "version": _version,
    "map-word": _map_word,
    "map-padding": _map_padding,
    "machine-stamp": _machine_stamp,
    "label-gap": _label_gap,
    "label-count": _label_count,
}
