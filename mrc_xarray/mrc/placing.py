"""Where the sections are in the file, and how many: plain rows, or the blocks of an MRCZ.

The header makes a promise; the size of the file or its blocks show what is there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mrc_xarray.errors import MrcError, Problem
from mrc_xarray.mrc.extended import kind_of
from mrc_xarray.mrc.header import HEADER_SIZE, Header
from mrc_xarray.pixels.blocks import Blocks, Walk, walk
from mrc_xarray.pixels.compression import BLOCK_HEADER_SIZE, LARGEST_BLOCK, MRCZ_CODECS
from mrc_xarray.pixels.modes import Mode
from mrc_xarray.pixels.sections import Sections
from mrc_xarray.storage.base import Bytes

__all__ = ["Located", "locate"]

# the longest known are 8 MiB; a longer one is checked against the size of the file
_LONGEST_EXTENDED_HEADER = 16 * 1024**2
# small blocks are fetched together, by this many bytes
_WALK_WINDOW = 4 * 1024**2
# rows and columns of a compressed section, each with a coordinate; more in a larger file
_LONGEST_ROW = 2**20


@dataclass(frozen=True, kw_only=True)
class Located:
    """The sections that the file contains, and what was repaired."""

    sections: Sections
    problems: tuple[Problem, ...]

    @property
    def extended_size(self) -> int:
        """Length of the extended header in bytes, which may differ from NSYMBT."""
        return self.sections.offset - HEADER_SIZE


def locate(
    source: Bytes, head: bytes, header: Header, mode: Mode, n_columns: int, *, truncated: str
) -> Located:
    """Find the sections of a file that begins with `head`; a row has `n_columns` pixels.

    Raises MrcError if sections are missing and `truncated` is "error" rather than "trim", or if no
    section is complete.
    """
    shape = (header.nz, header.ny, n_columns, *mode.samples)
    promised = Sections(HEADER_SIZE, shape, mode, header.byteorder)
    if header.is_mrcz:
        return _locate_blocks(source, header, promised, truncated)
    return _locate_rows(source, head, header, promised, truncated)


def _locate_rows(
    source: Bytes, head: bytes, header: Header, promised: Sections, truncated: str
) -> Located:
    size = source.size
    if size is None:
        # decoding a stream takes too long for opening: the header is trusted until pixels are read
        size = _promised_size(source.name, header, promised.nbytes)
    extended_size, problems = _extended_size(head, header, promised.nbytes, size)
    offset = HEADER_SIZE + extended_size
    end = offset + promised.nbytes
    n_complete = min(max(size - offset, 0) // promised.section_bytes, header.nz)
    if n_complete < header.nz:
        wanted = f"{end} bytes with {header.nz} sections"
        problems.append(_truncated(source.name, header, size, n_complete, wanted, truncated))
    elif size > end:
        problems.append(_extra_bytes(source, header, size, end))
    sections = replace(promised, offset=offset, shape=(n_complete, *promised.shape[1:]))
    return Located(sections=sections, problems=tuple(problems))


def _locate_blocks(source: Bytes, header: Header, promised: Sections, truncated: str) -> Located:
    name, size = source.name, _size_of_mrcz(source, header, promised)
    offset = HEADER_SIZE + header.nsymbt
    found = _walk(source, size, offset, promised)
    n_found, end = len(found.edges) - 1, int(found.edges[-1])
    problems = []
    if found.fault is not None:
        problem = _damaged(found, truncated)
        if truncated == "error" or not n_found:
            raise MrcError.of(name, problem)
        problems.append(problem)
    elif n_found < header.nz:
        wanted = f"{header.nz} sections"
        problems.append(_truncated(name, header, size, n_found, wanted, truncated))
    elif size > end:
        problems.append(_extra_bytes(source, header, size, end))
    blocks = Blocks(
        offset=offset,
        shape=(n_found, *promised.shape[1:]),
        mode=promised.mode,
        byteorder=promised.byteorder,
        edges=found.edges,
        version=found.version,
        codec=MRCZ_CODECS[header.codec_number],
        name=name,
    )
    return Located(sections=blocks, problems=tuple(problems))


def _size_of_mrcz(source: Bytes, header: Header, promised: Sections) -> int:
    """Return the size of the file, after checks that it can contain the promised blocks."""
    name, size = source.name, source.size
    if size is None:
        message = (
            "this is an MRCZ in a compressed stream, and finding its blocks would take decoding "
            "the complete stream. Decompress it: an MRCZ is compressed already"
        )
        raise MrcError.of(name, header.problem("stream", "MODE", "no MRCZ", message), message)
    longest = max(_LONGEST_ROW, size)
    code, fields = "dimensions", "NX, NY"
    if not 0 <= header.nsymbt <= size - HEADER_SIZE:
        code, fields = "nsymbt", "NSYMBT"
        accepted = f"0 to {size - HEADER_SIZE}, followed by the first block"
    elif promised.section_bytes > LARGEST_BLOCK:
        accepted = f"a section of up to {LARGEST_BLOCK} bytes, the most that a block can hold"
    elif max(header.nx, header.ny) > longest:
        accepted = f"up to {longest} in this file"
    else:
        return size
    raise MrcError.of(name, header.problem(code, fields, accepted, "The header is damaged."))


def _walk(source: Bytes, size: int, start: int, promised: Sections) -> Walk:
    """Read only the headers of large blocks, and small blocks together."""
    n_sections = promised.shape[0]
    is_large = (size - start) // n_sections >= source.access.skip
    with source.fetching() as fetch:
        return walk(
            fetch,
            start=start,
            size=size,
            n_sections=n_sections,
            section_bytes=promised.section_bytes,
            window=BLOCK_HEADER_SIZE if is_large else _WALK_WINDOW,
        )


def _damaged(found: Walk, truncated: str) -> Problem:
    """Return the problem of a damaged block header, after which no block can be found."""
    assert found.fault is not None
    n = len(found.edges) - 1
    readable = f"Sections 0 to {n - 1}" if n > 1 else "Section 0" if n else "No section"
    action = f"{readable} can be read, and none after the damage"
    if n:
        action += ": they are opened" if truncated == "trim" else "; truncated='trim' opens them"
    return Problem(
        "blocks",
        f"{found.fault.field} of block {n}",
        str(found.fault.found),
        found.fault.accepted,
        f"{action}.",
        offset=int(found.edges[-1]),
        nbytes=BLOCK_HEADER_SIZE,
    )


def _extended_size(
    head: bytes, header: Header, data_size: int, size: int
) -> tuple[int, list[Problem]]:
    """Return the true length of the extended header; NSYMBT is wrong in some files.

    If NSYMBT can't be right, the length follows from the size of the file. A file that is a few
    bytes too short is truncated, and NSYMBT is used. One that is exactly NSYMBT bytes too short
    has no extended header, or is truncated: the bytes after the main header decide.
    """
    nsymbt, left = header.nsymbt, size - HEADER_SIZE - data_size
    if nsymbt in (0, left):
        return nsymbt, []
    records = head[HEADER_SIZE : HEADER_SIZE + nsymbt]
    is_absent = left == 0 and not kind_of(header, nsymbt).looks_like(header, records)
    impossible = nsymbt < 0 or (nsymbt > max(size, _LONGEST_EXTENDED_HEADER) and left > 0)
    if not (is_absent or impossible):
        return nsymbt, []
    accepted = f"{max(left, 0)}, the length of the extended header in bytes"
    action = f"From the file size of {size} bytes it is taken as {max(left, 0)}."
    return max(left, 0), [header.problem("nsymbt", "NSYMBT", accepted, action)]


def _promised_size(name: str, header: Header, data_size: int) -> int:
    """Return the size that a header promises, unless it is clearly wrong."""
    if 0 <= header.nsymbt <= _LONGEST_EXTENDED_HEADER:
        return HEADER_SIZE + header.nsymbt + data_size
    accepted = f"0 to {_LONGEST_EXTENDED_HEADER} in a compressed stream"
    action = "Decompress the file: its size may show the right value."
    raise MrcError.of(name, header.problem("nsymbt", "NSYMBT", accepted, action))


def _extra_bytes(source: Bytes, header: Header, size: int, end: int) -> Problem:
    action = f"The data end at byte {end}, and the {size - end} bytes after them are ignored."
    if source.local_path is not None:
        action += (
            " If they are from an append that was killed, and none is running, "
            f"os.truncate({source.local_path!r}, {end}) removes them."
        )
    accepted = f"values that fill the file of {size} bytes"
    return header.problem("extra-bytes", "NX, NY, NZ, MODE", accepted, action)


def _truncated(
    name: str, header: Header, size: int, n_complete: int, promised: str, truncated: str
) -> Problem:
    """Return the problem of missing sections, or raise it as an error."""
    accepted = f"{n_complete}, as the file has {size} bytes and its header promises {promised}"
    if truncated == "trim" and n_complete:
        action = (
            "The complete sections are opened, because truncated='trim'. An incomplete volume or "
            "frame is left out."
        )
        return header.problem("truncated", "NZ", accepted, action)
    hint = "truncated='trim' opens the complete sections."
    if not n_complete:
        hint = "No section is complete."
    message = (
        f"the file is truncated: it has {size} bytes with {n_complete} complete sections, and its "
        f"header promises {promised}. {hint}"
    )
    raise MrcError.of(name, header.problem("truncated", "NZ", accepted, hint), message)
