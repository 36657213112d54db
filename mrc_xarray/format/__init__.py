"""MRC files, without a word of xarray, dask or fsspec: numpy and the standard library."""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mrc_xarray.format import geometry
from mrc_xarray.format.compression import (
    BLOCK_HEADER_SIZE,
    CODECS,
    LARGEST_BLOCK,
    BlockIndex,
    walk,
)
from mrc_xarray.format.errors import MrcError, MrcWarning, Problem
from mrc_xarray.format.header import HEADER_SIZE, PLACES, ByteOrder, Header, stamped_byteorder
from mrc_xarray.format.layout import Layout, arrange
from mrc_xarray.format.modes import EMAN2_MODES, MODES, Mode, mode0_sign
from mrc_xarray.format.sections import Blocks, Contiguous, Packed4Bit, Sections

__all__ = ["Bytes", "MrcError", "MrcFile", "MrcWarning", "Problem", "looks_like_mrc", "read"]

#: Opening reads this much at once: the header, and in most files all that follows before pixels.
FIRST_READ = 64 * 1024
#: Bytes that `looks_like_mrc` needs: all up to the machine stamp.
PLAUSIBLE_SIZE = 216

# the longest seen are 8 MiB, and a longer one can only be told from garbage by the file's size
_LONGEST_EXTENDED_HEADER = 16 * 1024**2
# MODE of an MRCZ is this times the codec, plus the mode of its pixels
_PER_CODEC = 1000
# walking through blocks, a remote file is fetched by these steps, unless blocks are larger still
_WALK_WINDOW = 4 * 1024**2
_LARGE_BLOCK = 1024**2
_DELTAVISION_ID = -16224
_BYTE_ORDERS: dict[str, ByteOrder] = {"little": "<", "big": ">"}

# what other files begin with, for a message that helps
_FOREIGN = {
    b"version https://git-lfs": "a Git LFS pointer: fetch the file itself with `git lfs pull`",
    b"<!doctype html": "an HTML page: a download that went wrong",
    b"<html": "an HTML page: a download that went wrong",
    b"<?xml": "an XML document",
    b"\x1f\x8b": "a gzip file: decompress it first",
    b"BZh": "a bzip2 file: decompress it first",
    b"\xfd7zXZ": "an xz file: decompress it first",
    b"\x28\xb5\x2f\xfd": "a zstd file: decompress it first",
    b"PK\x03\x04": "a zip archive: fsspec opens a member as zip://NAME::ARCHIVE",
    b"\x89HDF\r\n": "an HDF5 file: open it with another engine",
    b"CDF": "a netCDF file: open it with another engine",
    b"II*\0": "a TIFF file: open it with another library",
    b"MM\0*": "a TIFF file: open it with another library",
}


class Bytes(Protocol):
    """Where a file's bytes come from."""

    @property
    def name(self) -> str:
        """The path or URL, for messages and for the suffix."""

    @property
    def size(self) -> int:
        """Length in bytes."""

    def read(self, offset: int, nbytes: int) -> bytes:
        """Return `nbytes` bytes from `offset`."""

    def map(self, *, writable: bool) -> Any:
        """Return all bytes as a buffer where that costs nothing, else None."""

    def has_beside(self, suffix: str) -> bool:
        """Tell whether a file with this name and `suffix` behind it is there; only if cheap."""


@dataclass(frozen=True)
class MrcFile:
    """What a file says, put together.

    Attributes
    ----------
    name : str
        Path or URL.
    header : Header
        As found; what had to be repaired is in the other attributes.
    sections : Sections
        Where the pixels are, and what they are.
    layout : Layout
        What the sections are.
    axes : tuple of {"x", "y", "z"}
        What sections, rows and columns run along.
    voxel : dict of str to float, Å
        By axis; an axis whose voxel size is unknown is left out.
    origin : dict of str to float, Å
        Position of the first voxel, for the axes in `voxel`.
    mode0 : str or None
        By which evidence 8-bit data are signed or not, where MODE is 0.
    metadata : mapping or None
        The JSON that mrcz writes.
    problems : tuple of Problem
        What was repaired or assumed.
    """

    name: str
    header: Header
    sections: Sections
    layout: Layout
    axes: tuple[str, str, str]
    voxel: Mapping[str, float]
    origin: Mapping[str, float]
    mode0: str | None
    metadata: Mapping[str, Any] | None
    problems: tuple[Problem, ...]


def read(
    source: Bytes,
    *,
    layout: str = "auto",
    scan_shape: tuple[int, int] | None = None,
    sections_per_frame: int | None = None,
    origin: str = "auto",
    mode0: str = "auto",
    convention: str = "ccpem",
    byteorder: str = "auto",
    look_beside: bool = True,
    truncated: str = "error",
    strict: bool = False,
) -> MrcFile:
    """Read what a file says of itself, but none of its pixels.

    Parameters
    ----------
    source : Bytes
    look_beside : bool
        Whether sidecars may be looked for.
    layout, scan_shape, sections_per_frame, origin, mode0, convention, byteorder, truncated, strict
        As for the engine; see `mrc_xarray.backend`.

    Returns
    -------
    MrcFile

    Raises
    ------
    MrcError
        If the file is not MRC, is truncated, or holds what is not known; with ``strict=True``
        also if a repair was needed.
    """
    _check_choice("mode0", mode0, ("auto", "int8", "uint8"))
    _check_choice("convention", convention, ("ccpem", "eman2"))
    _check_choice("byteorder", byteorder, ("auto", *_BYTE_ORDERS))
    _check_choice("truncated", truncated, ("error", "trim"))
    name = source.name
    head = source.read(0, min(FIRST_READ, source.size))
    _refuse_foreign(name, head, source.size)

    modes = EMAN2_MODES if convention == "eman2" else MODES
    order = _BYTE_ORDERS.get(byteorder) or _guess_byteorder(head, source.size, modes)
    header = Header.parse(head, order)
    problems = _marks(header, chosen=byteorder != "auto")
    mode = _mode(header, name, modes)
    evidence = None
    if mode.number == 0 and convention == "ccpem":
        sign, evidence = mode0_sign(header)
        if mode0 != "auto":
            sign, evidence = mode0, "the argument mode0="
        mode = dataclasses.replace(mode, stored=sign, decoded=sign)

    shape = (header.nz, header.ny, header.nx, *mode.samples)
    if min(shape) < 1:
        raise MrcError(
            f"{name}: NX, NY, NZ (bytes 0–11) are {header.nx}, {header.ny}, {header.nz}; "
            "accepted: 1 or more each. The file has no data, or its header is damaged."
        )
    place = _place_blocks if header.mode >= _PER_CODEC else _place_rows
    sections, more = place(source, header, shape, mode, truncated)
    problems += more
    n_sections = sections.shape[0]
    extended_size = sections.offset - HEADER_SIZE
    metadata, more = _json_metadata(source, header, head, extended_size)
    problems += more

    axes, more = geometry.axis_names(header)
    problems += more
    arranged = arrange(
        header,
        n_sections,
        name=name,
        section_axis=axes[0],
        extended_size=extended_size,
        layout=layout,
        scan_shape=scan_shape,
        sections_per_frame=sections_per_frame,
        has_mdoc=lambda: look_beside and source.has_beside(".mdoc"),
    )
    spatial = [axis for axis, _ in arranged.leading if axis in axes] + list(axes[1:])
    sizes = dict(zip(axes, shape[:3], strict=True))
    voxel, more = geometry.voxel_size(header, spatial, sizes)
    problems += more
    position, more = geometry.origin(header, axes, voxel, sizes, origin)
    problems += more

    if strict and (errors := [p.refusal(name) for p in problems if p.strict]):
        raise MrcError("\n".join(errors))
    return MrcFile(
        name,
        header,
        sections,
        arranged,
        axes,
        voxel,
        position,
        evidence,
        metadata,
        tuple(problems),
    )


def looks_like_mrc(head: bytes) -> bool:
    """Tell from the first 216 bytes of a foreign file whether it can be MRC."""
    if len(head) < PLAUSIBLE_SIZE or _foreign(head) or _is_deltavision(head):
        return False
    return max(_plausibility(head, order, MODES)[0] for order in _BYTE_ORDERS.values()) == 3


def _check_choice(argument: str, value: str, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        raise ValueError(f"{argument} is {value!r}; accepted: {', '.join(map(repr, accepted))}")


def _foreign(head: bytes) -> str | None:
    start = head[:512].lstrip().lower()
    for magic, kind in _FOREIGN.items():
        if head.startswith(magic) or (magic[:1] in b"<v" and start.startswith(magic)):
            return kind
    return None


def _is_deltavision(head: bytes) -> bool:
    return any(
        int.from_bytes(head[96:98], order, signed=True) == _DELTAVISION_ID
        for order in ("little", "big")
    )


def _refuse_foreign(name: str, head: bytes, size: int) -> None:
    """Raise MrcError where this is another kind of file, naming which."""
    if not size:
        raise MrcError(f"{name}: the file is empty (0 bytes)")
    kind = _foreign(head)
    if kind is None and len(head) >= HEADER_SIZE and _is_deltavision(head):
        kind = "a DeltaVision file (−16224 at bytes 96–97): open it with the package mrc"
    if kind is not None:
        raise MrcError(f"{name}: this is {kind}")
    if size < HEADER_SIZE:
        raise MrcError(
            f"{name}: the file has {size} bytes, and an MRC header alone has {HEADER_SIZE}; "
            "it is truncated, or not MRC"
        )


def _plausibility(head: bytes, order: ByteOrder, modes: Mapping[int, Mode]) -> tuple[int, int]:
    """Count which of dimensions, mode and axis order make sense in this byte order.

    Returns
    -------
    plausible : int
        0 to 3.
    section_bytes : int
        What one section would have; 0 where that is not to be told.
    """
    nx, ny, nz, number = struct.unpack_from(order + "4i", head, 0)
    axes = struct.unpack_from(order + "3i", head, PLACES["MAPC"][0])
    mode = modes.get(number)
    positive = min(nx, ny, nz) > 0
    known = mode is not None or (
        number // _PER_CODEC in CODECS and number % _PER_CODEC in modes and number > 0
    )
    section_bytes = mode.row_bytes(nx) * ny if mode and positive else 0
    return positive + known + (sorted(axes) == [1, 2, 3]), section_bytes


def _guess_byteorder(head: bytes, size: int, modes: Mapping[int, Mode]) -> ByteOrder:
    """Decide by plausibility; then by what fits the file's size; then by the machine stamp."""
    stamp = stamped_byteorder(head[PLACES["MACHST"][0] :])

    def evidence(order: ByteOrder) -> tuple[int, bool, bool, bool]:
        plausible, section_bytes = _plausibility(head, order, modes)
        # one section, so that a truncated file is still told right
        fits = 0 < section_bytes <= size - HEADER_SIZE
        return plausible, fits, order == stamp, order == "<"

    return max(_BYTE_ORDERS.values(), key=evidence)


def _marks(header: Header, *, chosen: bool) -> list[Problem]:
    """Check the MAP word and the machine stamp, which mrcfile refuses to do without.

    A stamp of the other order is no problem where the caller has `chosen` the byte order.
    """
    problems = []
    if not header.has_map_word:
        problems.append(
            Problem(
                "MAP",
                *PLACES["MAP"],
                repr(header.map.ljust(4, "\0")),
                "'MAP '",
                "It is read as MRC all the same, as files from before 2000 have none.",
                strict=True,
            )
        )
    stamped = header.stamped_byteorder
    if stamped != header.byteorder and not (chosen and stamped):
        order = "little" if header.byteorder == "<" else "big"
        problems.append(
            Problem(
                "MACHST",
                *PLACES["MACHST"],
                header.machst.hex(" "),
                "44 44 00 00 or 44 41 00 00 (little-endian), 11 11 00 00 (big-endian)",
                f"The header is read as {order}-endian; byteorder= overrides.",
                strict=True,
            )
        )
    return problems


def _mode(header: Header, name: str, modes: Mapping[int, Mode]) -> Mode:
    codec, number = divmod(header.mode, _PER_CODEC)
    mode = modes.get(number) if codec in CODECS else None
    if mode is not None and not (codec and number == 101):
        return mode
    known = ", ".join(map(str, modes))
    raise MrcError(
        f"{name}: MODE (bytes 12–15) is {header.mode}; known modes are {known}, and these with "
        f"1000 to {max(CODECS)}000 added in an MRCZ. The file may be damaged, or not MRC."
    )


def _place_rows(
    source: Bytes, header: Header, shape: tuple[int, ...], mode: Mode, truncated: str
) -> tuple[Sections, list[Problem]]:
    """Find the rows of uncompressed sections, as many as are there."""
    kind = Packed4Bit if mode.number == 101 else Contiguous
    promised = kind(HEADER_SIZE, shape, mode, header.byteorder)
    extended_size, problems = _extended_size(header, promised.nbytes, source.size)
    offset = HEADER_SIZE + extended_size
    end = offset + promised.nbytes
    whole = min(max(source.size - offset, 0) // promised.section_bytes, header.nz)
    problems += _complete(source, header, whole, end, f"{end} bytes with ", truncated)
    return kind(offset, (whole, *shape[1:]), mode, header.byteorder), problems


def _place_blocks(
    source: Bytes, header: Header, shape: tuple[int, ...], mode: Mode, truncated: str
) -> tuple[Sections, list[Problem]]:
    """Find the blocks of an MRCZ, as many as are there."""
    name, size = source.name, source.size
    offset = HEADER_SIZE + header.nsymbt
    if not HEADER_SIZE <= offset <= size:
        raise MrcError(
            f"{name}: NSYMBT (bytes 92–95) is {header.nsymbt}; accepted: 0 to "
            f"{size - HEADER_SIZE}, with the first block behind. The header is damaged."
        )
    section_bytes = mode.row_bytes(header.nx) * header.ny
    if section_bytes > LARGEST_BLOCK:
        raise MrcError(
            f"{name}: NX, NY (bytes 0–7) are {header.nx}, {header.ny}: a section of "
            f"{section_bytes} bytes is more than a block can hold"
        )
    # the header can't make the index larger than the file
    n_possible = min(header.nz, (size - offset) // BLOCK_HEADER_SIZE)
    index = _index(source, header, offset, n_possible, section_bytes)
    problems = _complete(source, header, len(index.starts), index.end, "", truncated)
    if len(index.damaged) == len(index.starts):
        raise MrcError(
            f"{name}: no block that decodes to {section_bytes} bytes, as NX, NY and MODE promise, "
            f"can be found from byte {offset} on. The file is damaged."
        )
    if index.starts[0] > offset:
        problems.append(
            Problem(
                "NSYMBT",
                *PLACES["NSYMBT"],
                str(header.nsymbt),
                "the length of the extended header in bytes",
                f"The first block is at byte {index.starts[0]}, and is read from there.",
                strict=True,
            )
        )
    if index.damaged:
        listed = ", ".join(map(str, index.damaged[:10])) + ", …" * (len(index.damaged) > 10)
        problems.append(
            Problem(
                "blocks",
                offset,
                size - offset,
                f"damaged in {len(index.damaged)} of {len(index.starts)} sections ({listed})",
                f"chunks of blosc that decode to {section_bytes} bytes",
                "The other sections can be read.",
            )
        )
    shape = (len(index.starts), *shape[1:])
    return Blocks(offset, shape, mode, header.byteorder, index, name), problems


def _index(
    source: Bytes, header: Header, start: int, n_sections: int, section_bytes: int
) -> BlockIndex:
    """Walk through the blocks: in a map where there is one, else by steps of some MiB."""
    fetch: Callable[[int, int], Any] = source.read
    window = _WALK_WINDOW
    mapped = source.map(writable=False)
    if mapped is not None:
        view = memoryview(mapped)
        fetch, window = lambda offset, nbytes: view[offset : offset + nbytes], source.size
    elif n_sections and (source.size - start) // n_sections >= _LARGE_BLOCK:
        window = BLOCK_HEADER_SIZE
    return walk(
        fetch,
        start=start,
        size=source.size,
        n_sections=n_sections,
        section_bytes=section_bytes,
        window=window,
        codec=CODECS[header.mode // _PER_CODEC],
        packed_bytes=max(header.packed_bytes, 0),
    )


def _extended_size(header: Header, data_size: int, size: int) -> tuple[int, list[Problem]]:
    """Return how long the extended header really is; NSYMBT lies in some files.

    Where NSYMBT can't be true, what the file has beyond header and data is taken. A file that
    merely lacks some bytes is truncated, and NSYMBT is believed.
    """
    said = header.nsymbt
    there = size - HEADER_SIZE - data_size
    if said in (0, there):
        return said, []
    absent = there == 0
    impossible = said < 0 or (said > max(size, _LONGEST_EXTENDED_HEADER) and there > 0)
    if not (absent or impossible):
        return said, []
    problem = Problem(
        "NSYMBT",
        *PLACES["NSYMBT"],
        str(said),
        "the length of the extended header in bytes",
        f"By the file's size of {size} bytes it is taken as {max(there, 0)}.",
        strict=True,
    )
    return max(there, 0), [problem]


def _complete(
    source: Bytes, header: Header, whole: int, end: int, bytes_and: str, truncated: str
) -> list[Problem]:
    """Compare what the file has with what its header promises.

    Parameters
    ----------
    source : Bytes
    header : Header
    whole : int
        Whole sections that are there.
    end : int
        The byte behind the last section.
    bytes_and : str
        What the header promises beside sections, for the message.
    truncated : {"error", "trim"}

    Raises
    ------
    MrcError
        If sections are missing, unless they may be left out.
    """
    name, size = source.name, source.size
    if whole == header.nz:
        if size == end:
            return []
        return [
            Problem(
                "NX, NY, NZ, MODE",
                0,
                16,
                f"{header.nx}, {header.ny}, {header.nz}, {header.mode}",
                f"what fills the file of {size} bytes",
                f"The data end at byte {end}; the {size - end} bytes behind them are ignored.",
            )
        ]
    if truncated == "trim" and whole:
        return [
            Problem(
                "NZ",
                *PLACES["NZ"],
                str(header.nz),
                f"the number of sections; the file of {size} bytes has {whole} whole ones",
                f"These {whole} are opened, as truncated='trim' asks.",
                strict=True,
            )
        ]
    hint = "truncated='trim' opens the whole sections." if whole else "There is no whole section."
    raise MrcError(
        f"{name}: the file is truncated: it has {size} bytes with {whole} whole sections, and its "
        f"header promises {bytes_and}{header.nz} sections. {hint}"
    )


def _json_metadata(
    source: Bytes, header: Header, head: bytes, extended_size: int
) -> tuple[dict[str, Any] | None, list[Problem]]:
    """Return the JSON that mrcz puts into the extended header; see FORMAT: MRCZ."""
    if header.exttyp.lower() != "json" or not extended_size:
        return None, []
    end = HEADER_SIZE + extended_size
    text = head[HEADER_SIZE:end]
    if end > len(head):
        text = source.read(HEADER_SIZE, extended_size)
    try:
        metadata = json.loads(text.decode())
        if isinstance(metadata, dict):
            return metadata, []
        found = f"JSON of type {type(metadata).__name__}"
    except (ValueError, RecursionError) as error:
        found = f"not JSON: {error}"
    problem = Problem(
        "extended header",
        HEADER_SIZE,
        extended_size,
        found,
        "a JSON object, as EXTTYP says",
        "The metadata are left out.",
    )
    return None, [problem]
