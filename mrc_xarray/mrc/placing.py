"""Where in the file the sections are, and how many: plain rows, or the blocks of an MRCZ.

The header promises; the file's size, or a walk through the blocks, tells.
"""

from __future__ import annotations

from mrc_xarray.errors import MrcError, Problem
from mrc_xarray.mrc.extended import kind_of
from mrc_xarray.mrc.header import HEADER_SIZE, Header, header_problem
from mrc_xarray.pixels.blocks import BlockIndex, walk
from mrc_xarray.pixels.compression import BLOCK_HEADER_SIZE, CODECS, LARGEST_BLOCK
from mrc_xarray.pixels.modes import PER_CODEC, Mode
from mrc_xarray.pixels.sections import Blocks, Contiguous, Packed4Bit, Sections
from mrc_xarray.storage.base import Bytes

__all__ = ["place_blocks", "place_rows"]

# the longest seen are 8 MiB, and a longer one can only be told from garbage by the file's size
_LONGEST_EXTENDED_HEADER = 16 * 1024**2
# walking through small blocks, a file is fetched by these steps
_WALK_WINDOW = 4 * 1024**2
# rows and columns of a compressed section, each with a coordinate; more in a larger file
_LONGEST_ROW = 2**20


def place_rows(
    source: Bytes,
    head: bytes,
    header: Header,
    shape: tuple[int, ...],
    mode: Mode,
    truncated: str,
) -> tuple[Sections, list[Problem]]:
    """Find the rows of all uncompressed sections that the file contains.

    Parameters
    ----------
    source : Bytes
    head : bytes
        The first bytes of the file, so that they need not be read again.
    header : Header
    shape : tuple of int, (n_sections, n_rows, n_columns, *samples)
        As the header gives it.
    mode : Mode
    truncated : {"error", "trim"}

    Returns
    -------
    sections : Sections
    problems : list of Problem

    Raises
    ------
    MrcError
        If sections are missing and `truncated` is ``"error"``, or if no section is complete.
    """
    kind = Packed4Bit if mode.number == 101 else Contiguous
    promised = kind(HEADER_SIZE, shape, mode, header.byteorder)
    size = source.size
    if size is None:
        # to decode a stream takes longer than opening may: its header is believed until then
        size = _promised_size(source.name, header, promised.nbytes)
    extended_size, problems = _extended_size(head, header, promised.nbytes, size)
    offset = HEADER_SIZE + extended_size
    end = offset + promised.nbytes
    whole = min(max(size - offset, 0) // promised.section_bytes, header.nz)
    problems += _complete(source.name, size, header, whole, end, f"{end} bytes with ", truncated)
    return kind(offset, (whole, *shape[1:]), mode, header.byteorder), problems


def place_blocks(
    source: Bytes,
    head: bytes,
    header: Header,
    shape: tuple[int, ...],
    mode: Mode,
    truncated: str,
) -> tuple[Sections, list[Problem]]:
    """Find the blocks of all sections that an MRCZ contains; see `place_rows`."""
    name = source.name
    if source.size is None:
        message = (
            "this is an MRCZ inside of a compressed stream, whose blocks can't be found without "
            "decoding it all: decompress it once, as an MRCZ is compressed already"
        )
        found, action = str(header.mode), message
        problem = header_problem("stream", "MODE", found, "no MRCZ", action)
        raise MrcError.of(name, problem, message)
    size = source.size
    offset = HEADER_SIZE + header.nsymbt
    if not HEADER_SIZE <= offset <= size:
        accepted = f"0 to {size - HEADER_SIZE}, with the first block behind"
        raise MrcError.of(name, _nsymbt(header, accepted, "The header is damaged."))
    section_bytes = mode.row_bytes(header.nx) * header.ny
    if section_bytes > LARGEST_BLOCK:
        most = (
            f"a section of up to {LARGEST_BLOCK} bytes, as it would be more than a block can hold"
        )
        raise MrcError.of(name, _too_wide(header, most))
    most_columns = max(_LONGEST_ROW, size)
    if max(header.nx, header.ny) > most_columns:
        raise MrcError.of(name, _too_wide(header, f"up to {most_columns} in this file"))
    # the header can't make the index larger than the file
    n_possible = min(header.nz, (size - offset) // BLOCK_HEADER_SIZE)
    index = _index(source, size, header, offset, n_possible, section_bytes)
    problems = _complete(name, size, header, len(index.starts), index.end, "", truncated)
    if len(index.damaged) == len(index.starts):
        accepted = f"chunks of blosc that decode to {section_bytes} bytes"
        message = (
            f"no block that decodes to {section_bytes} bytes, as NX, NY and MODE promise, "
            f"can be found from byte {offset} on. The file is damaged."
        )
        problem = Problem(
            "blocks", "blocks", "none", accepted, message, offset=offset, nbytes=size - offset
        )
        raise MrcError.of(name, problem, message)
    if index.starts[0] > offset:
        accepted = "the length of the extended header in bytes"
        action = f"The first block is at byte {index.starts[0]}, and is read from there."
        problems.append(_nsymbt(header, accepted, action))
    if index.damaged:
        listed = ", ".join(map(str, index.damaged[:10])) + ", …" * (len(index.damaged) > 10)
        problems.append(
            Problem(
                "blocks",
                "blocks",
                f"damaged in {len(index.damaged)} of {len(index.starts)} sections ({listed})",
                f"chunks of blosc that decode to {section_bytes} bytes",
                "The other sections can be read.",
                offset=offset,
                nbytes=size - offset,
            )
        )
    shape = (len(index.starts), *shape[1:])
    return Blocks(offset, shape, mode, header.byteorder, index, name), problems


def _too_wide(header: Header, accepted: str) -> Problem:
    found, action = f"{header.nx}, {header.ny}", "The header is damaged."
    return Problem("dimensions", "NX, NY", found, accepted, action, offset=0, nbytes=8)


def _index(
    source: Bytes, size: int, header: Header, start: int, n_sections: int, section_bytes: int
) -> BlockIndex:
    """Walk through the blocks: header by header, or by steps of some MiB where they are small."""
    is_large = n_sections > 0 and (size - start) // n_sections >= source.access.skip
    with source.fetching() as fetch:
        return walk(
            fetch,
            start=start,
            size=size,
            n_sections=n_sections,
            section_bytes=section_bytes,
            window=BLOCK_HEADER_SIZE if is_large else _WALK_WINDOW,
            codec=CODECS[header.mode // PER_CODEC],
            packed_bytes=max(header.packed_bytes, 0),
        )


def _extended_size(
    head: bytes, header: Header, data_size: int, size: int
) -> tuple[int, list[Problem]]:
    """Return the true length of the extended header; NSYMBT is wrong in some files.

    If NSYMBT can't be right, the length follows from the size of the file. A file that is a few
    bytes too short is truncated, and NSYMBT is used. One that is exactly NSYMBT bytes too short
    has no extended header, or is truncated: the bytes after the main header decide.
    """
    said = header.nsymbt
    there = size - HEADER_SIZE - data_size
    if said in (0, there):
        return said, []
    absent = there == 0 and not kind_of(header, said).looks_like(
        header, head[HEADER_SIZE : HEADER_SIZE + said]
    )
    impossible = said < 0 or (said > max(size, _LONGEST_EXTENDED_HEADER) and there > 0)
    if not (absent or impossible):
        return said, []
    accepted = f"{max(there, 0)}, the length of the extended header in bytes"
    action = f"By the file's size of {size} bytes it is taken as {max(there, 0)}."
    return max(there, 0), [_nsymbt(header, accepted, action)]


def _promised_size(name: str, header: Header, data_size: int) -> int:
    """Return the size that a header promises, unless it is clearly wrong."""
    if 0 <= header.nsymbt <= _LONGEST_EXTENDED_HEADER:
        return HEADER_SIZE + header.nsymbt + data_size
    accepted = f"0 to {_LONGEST_EXTENDED_HEADER} in a compressed stream"
    action = "Decompress the file: by its size it may be known what is right."
    raise MrcError.of(name, _nsymbt(header, accepted, action))


def _nsymbt(header: Header, accepted: str, action: str) -> Problem:
    found = str(header.nsymbt)
    return header_problem("nsymbt", "NSYMBT", found, accepted, action)


def _complete(
    name: str,
    size: int,
    header: Header,
    whole: int,
    end: int,
    bytes_and: str,
    truncated: str,
) -> list[Problem]:
    """Compare what the file has with what its header promises.

    Parameters
    ----------
    name : str
    size : int
        What the file has, in bytes.
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
    if whole == header.nz:
        if size == end:
            return []
        return [
            Problem(
                "extra-bytes",
                "NX, NY, NZ, MODE",
                f"{header.nx}, {header.ny}, {header.nz}, {header.mode}",
                f"what fills the file of {size} bytes",
                f"The data end at byte {end}, and the {size - end} bytes after them are ignored. "
                f"If they are from an append that was killed, and none is running, "
                f"os.truncate({name!r}, {end}) removes them.",
                offset=0,
                nbytes=16,
            )
        ]
    if truncated == "trim" and whole:
        return [
            header_problem(
                "truncated",
                "NZ",
                str(header.nz),
                f"the number of sections; the file of {size} bytes has {whole} whole ones",
                "They are opened, as truncated='trim' asks; of volumes and frames, whole ones.",
            )
        ]
    hint = "truncated='trim' opens the whole sections." if whole else "There is no whole section."
    message = (
        f"the file is truncated: it has {size} bytes with {whole} whole sections, and its "
        f"header promises {bytes_and}{header.nz} sections. {hint}"
    )
    accepted = (
        f"{whole}: the file has {size} bytes, and its header promises {bytes_and}{header.nz}"
    )
    problem = header_problem("truncated", "NZ", str(header.nz), accepted, hint)
    raise MrcError.of(name, problem, message)
