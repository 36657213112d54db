"""Damaged MRCZ files: what is lost is named, and all the rest can be read."""

from __future__ import annotations

import io
import re
import warnings
from typing import Any, NamedTuple

import blosc
import numpy as np
import pytest
import xarray as xr
from mrcz_by_hand import (
    METADATA,
    NX,
    NY,
    PIXELS,
    Array,
    N,
    chunks,
    file,
    needs_blosc2,
    positions,
    put,
    start_of,
    versions,
)

from mrc_xarray import MrcError, MrcWarning


class Opened(NamedTuple):
    """A file that could be opened: what it warned of, and every section or its error."""

    warnings: list[str]
    sections: list[Array | MrcError]

    def damaged(self) -> list[int]:
        return [k for k, section in enumerate(self.sections) if isinstance(section, MrcError)]

    def assert_right(self, but: tuple[int, ...] = ()) -> None:
        """Compare all sections but some, and of these what could be read."""
        assert set(self.damaged()) <= set(but)
        for k, section in enumerate(self.sections):
            if not isinstance(section, MrcError):
                np.testing.assert_array_equal(section, PIXELS[k], f"section {k}")


def opened(raw: bytes, **options: Any) -> Opened:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        ds = xr.open_dataset(io.BytesIO(raw), engine="mrc", cache=False, **options)
    assert all(issubclass(warning.category, MrcWarning) for warning in warned)
    sections: list[Array | MrcError] = []
    for k in range(ds.data.shape[0]):
        try:
            sections.append(ds.data[k].values)
        except MrcError as error:
            sections.append(error)
    return Opened([str(warning.message) for warning in warned], sections)


@versions
def test_sound_file_has_no_warning(version: int) -> None:
    found = opened(file(chunks(version), METADATA, exttyp=b"json"))
    assert found.warnings == []
    assert len(found.sections) == N
    found.assert_right()


# headers of blocks ------------------------------------------------------------------------------

# what the header alone tells to be damaged
DAMAGE = [
    ("version", 0),
    ("version", 1),
    ("version", 6),
    ("typesize", 0),
    ("nbytes", 0),
    ("nbytes", NY * NX * 2 - 1),
    ("nbytes", NY * NX * 2 + 1),
    ("nbytes", 2**31 - 1),
    ("nbytes", 2**32 - 1),
    ("ctbytes", 0),
    ("ctbytes", 15),
]


@versions
@positions
@pytest.mark.parametrize(("field", "value"), DAMAGE)
def test_damaged_header_costs_one_section(version: int, k: int, field: str, value: int) -> None:
    blocks = chunks(version)
    put(blocks[k], field, value)
    found = opened(file(blocks))
    (warning,) = found.warnings
    assert f"damaged in 1 of {N} sections ({k})" in warning
    assert found.damaged() == [k]
    assert f"section {k}, at byte {start_of(blocks, k)}: " in str(found.sections[k])
    found.assert_right(but=(k,))


@versions
@pytest.mark.parametrize("k", [0, 4, N - 2], ids=["first", "middle", "last but one"])
@pytest.mark.parametrize("error", [-100, -1, 1, 20, 100, 2**20, 2**31 - 2000])
def test_wrong_size_costs_one_section(version: int, k: int, error: int) -> None:
    blocks = chunks(version)
    put(blocks[k], "ctbytes", len(blocks[k]) + error)
    found = opened(file(blocks))
    (warning,) = found.warnings
    assert f"damaged in 1 of {N} sections ({k})" in warning
    found.assert_right(but=(k,))


def test_last_block_that_is_too_small() -> None:
    blocks = chunks()
    put(blocks[-1], "ctbytes", len(blocks[-1]) - 10)
    found = opened(file(blocks))
    assert len(found.warnings) == 1
    assert found.damaged() == [N - 1]
    assert f"section {N - 1}, at byte {start_of(blocks, N - 1)}: " in str(found.sections[-1])
    found.assert_right(but=(N - 1,))


@pytest.mark.parametrize("more", [1, 2**20, 2**31])
def test_last_block_beyond_the_file_is_truncation(more: int) -> None:
    blocks = chunks()
    put(blocks[-1], "ctbytes", len(blocks[-1]) + more)
    with pytest.raises(MrcError, match=f"truncated.* {N - 1} whole sections"):
        opened(file(blocks))
    found = opened(file(blocks), truncated="trim")
    assert len(found.sections) == N - 1
    found.assert_right()


@versions
def test_two_damaged_headers_cost_two_sections(version: int) -> None:
    blocks = chunks(version)
    put(blocks[2], "version", 9)
    put(blocks[6], "nbytes", 9)
    found = opened(file(blocks))
    (warning,) = found.warnings
    assert f"damaged in 2 of {N} sections (2, 6)" in warning
    assert found.damaged() == [2, 6]
    found.assert_right(but=(2, 6))


@versions
def test_two_damaged_neighbours_cost_two_sections(version: int) -> None:
    blocks = chunks(version)
    put(blocks[4], "version", 9)
    put(blocks[5], "version", 9)
    found = opened(file(blocks))
    assert found.damaged() == [4, 5]
    found.assert_right(but=(4, 5))


@pytest.mark.parametrize(
    "options", [{"chunks": {}}, {"chunks": None}], ids=["chunked", "not chunked"]
)
def test_whole_array_with_a_damaged_block_is_an_error(options: dict[str, Any]) -> None:
    blocks = chunks()
    put(blocks[3], "version", 9)
    with pytest.warns(MrcWarning, match=r"\(3\)"):
        ds = xr.open_dataset(io.BytesIO(file(blocks)), engine="mrc", **options)
    with pytest.raises(MrcError, match=f"section 3, at byte {start_of(blocks, 3)}: "):
        ds.data.compute(scheduler="threads")
    np.testing.assert_array_equal(ds.data[4:], PIXELS[4:])


def test_many_damaged_sections_are_listed_in_short() -> None:
    blocks = chunks()
    pixels = [*PIXELS, *PIXELS]
    blocks += [bytearray(len(block)) for block in blocks[1:]] + [blocks[0]]
    found = opened(file(blocks, nz=len(pixels), nx=NX))
    (warning,) = found.warnings
    assert "damaged in 9 of 20 sections (10, 11, 12, 13, 14, 15, 16, 17, 18)" in warning
    np.testing.assert_array_equal(found.sections[-1], PIXELS[0])


# contents of blocks -----------------------------------------------------------------------------


def by_blosc(block: bytearray) -> Array | None:
    """Decode with blosc itself; None where it can't."""
    try:
        if block[0] == 2:
            content = blosc.decompress(bytes(block))
        else:
            import blosc2

            content = blosc2.decompress2(bytes(block))
    except Exception:
        return None
    return np.frombuffer(content, "u2").reshape(NY, NX)


def assert_as_blosc_has_it(blocks: list[bytearray], k: int, *, may_refuse: bool) -> None:
    """Compare a file whose block `k` decodes to other pixels, or to none.

    A block may be refused although blosc makes something of it, where its header makes no sense.
    """
    found = opened(file(blocks))
    expected = by_blosc(blocks[k])
    section = found.sections[k]
    if isinstance(section, MrcError):
        assert f"section {k}, at byte {start_of(blocks, k)}: " in str(section)
        assert expected is None or may_refuse
        assert all(f"({k})" in warning for warning in found.warnings)
    else:
        np.testing.assert_array_equal(section, expected)
        assert found.warnings == []
        found.sections[k] = PIXELS[k]
    assert len(found.warnings) <= may_refuse
    found.assert_right(but=(k,))


@versions
@positions
@pytest.mark.parametrize(
    ("field", "value"),
    [("codec version", 99), ("typesize", 1), ("typesize", 7), ("typesize", 255),
     ("blocksize", 0), ("blocksize", 1), ("blocksize", 333), ("blocksize", 2**31 - 1),
     ("blocksize", 2**32 - 1), ("flags", 0), ("flags", 0x20), ("flags", 0x60), ("flags", 0xFF)],
)  # fmt: skip
def test_field_that_the_decoder_judges(version: int, k: int, field: str, value: int) -> None:
    blocks = chunks(version)
    put(blocks[k], field, value)
    assert_as_blosc_has_it(blocks, k, may_refuse=True)


@versions
@positions
def test_flipped_bits(version: int, k: int) -> None:
    rng = np.random.default_rng(k)
    for _ in range(10):
        blocks = chunks(version)
        place = int(rng.integers(32, len(blocks[k])))
        blocks[k][place] ^= 1 << int(rng.integers(8))
        assert_as_blosc_has_it(blocks, k, may_refuse=False)


@versions
@positions
def test_lost_content_is_an_error(version: int, k: int) -> None:
    blocks = chunks(version)
    blocks[k][32:] = bytes(len(blocks[k]) - 32)
    found = opened(file(blocks))
    assert found.warnings == []
    assert found.damaged() == [k]
    assert f"section {k}, at byte {start_of(blocks, k)}: " in str(found.sections[k])
    found.assert_right(but=(k,))


@versions
def test_block_that_is_a_header_alone_is_an_error(version: int) -> None:
    blocks = chunks()
    blocks[4] = blocks[4][:16]
    put(blocks[4], "version", version)
    put(blocks[4], "ctbytes", 16)
    found = opened(file(blocks))
    assert found.damaged() == [4]
    found.assert_right(but=(4,))


@needs_blosc2
def test_block_that_leaves_memory_as_it_was_is_an_error() -> None:
    """A chunk of version 5 can say that its content was never set: bits 4 to 6 of byte 31."""
    blocks = chunks(5)
    blocks[4][31] = 4 << 4
    found = opened(file(blocks))
    assert found.damaged() == [4]
    found.assert_right(but=(4,))


# sizes ------------------------------------------------------------------------------------------

LENGTHS = [1, 15, 16, 17, 300]


@versions
@pytest.mark.parametrize("kept", LENGTHS)
def test_truncated_file(version: int, kept: int) -> None:
    blocks = chunks(version)
    raw = file(blocks)[: start_of(blocks, 7) + kept]
    numbers = f"it has {len(raw)} bytes with 7 whole sections, and its header promises {N}"
    with pytest.raises(MrcError, match=numbers):
        opened(raw)
    found = opened(raw, truncated="trim")
    (warning,) = found.warnings
    assert "7 whole ones" in warning
    assert len(found.sections) == 7
    found.assert_right()


def test_file_truncated_between_blocks() -> None:
    raw = file(chunks()[:7], packed_bytes=sum(map(len, chunks())))
    with pytest.raises(MrcError, match="7 whole sections"):
        opened(raw)
    found = opened(raw, truncated="trim")
    assert len(found.sections) == 7
    found.assert_right()


@pytest.mark.parametrize("kept", [0, *LENGTHS])
@pytest.mark.parametrize("truncated", ["error", "trim"])
@pytest.mark.parametrize("packed_bytes", [0, sum(map(len, chunks()))])
def test_truncated_file_with_a_damaged_block(kept: int, truncated: str, packed_bytes: int) -> None:
    """Blocks that end where the file does may not be its last."""
    blocks = chunks()
    put(blocks[3], "version", 9)
    raw = file(blocks, packed_bytes=packed_bytes)[: start_of(blocks, 8) + kept]
    try:
        found = opened(raw, truncated=truncated)
    except MrcError:
        return
    found.assert_right(but=tuple(range(3, N)))
    assert found.damaged()[0] == 3


@pytest.mark.parametrize("kept", [0, 1, 15])
def test_file_without_a_block_is_an_error(kept: int) -> None:
    with pytest.raises(MrcError, match="There is no whole section"):
        opened(file(chunks())[: 1024 + kept])


def test_empty_file_is_an_error() -> None:
    with pytest.raises(MrcError, match="empty"):
        opened(b"")


@pytest.mark.parametrize("size", [1, 15, 16, 5000])
def test_garbage_behind_the_blocks_is_a_warning(size: int) -> None:
    blocks = chunks()
    found = opened(file([*blocks, bytearray(b"\x07" * size)]))
    (warning,) = found.warnings
    assert f"the {size} bytes after them are ignored" in warning
    found.assert_right()


def test_garbage_behind_a_file_with_a_damaged_block() -> None:
    blocks = chunks()
    put(blocks[3], "version", 9)
    found = opened(file(blocks) + b"\x07" * 50)
    assert found.damaged()[0] == 3
    found.assert_right(but=tuple(range(3, N)))


# the main header --------------------------------------------------------------------------------


@pytest.mark.parametrize("nsymbt", [-1, -(2**31), 2**31 - 1, 10**6])
def test_impossible_nsymbt_is_an_error(nsymbt: int) -> None:
    with pytest.raises(MrcError, match=re.escape(f"NSYMBT (bytes 92–95) is {nsymbt}")):
        opened(file(chunks(), nsymbt=nsymbt))


@pytest.mark.parametrize("nsymbt", [0, 3, len(METADATA) - 1])
@versions
def test_nsymbt_that_is_too_small(nsymbt: int, version: int) -> None:
    found = opened(file(chunks(version), METADATA, nsymbt=nsymbt))
    assert found.warnings
    assert found.damaged() == []
    found.assert_right()


def test_nsymbt_that_is_too_large() -> None:
    """The blocks that it covers are lost, and others may be, but none is taken for another."""
    blocks = chunks()
    raw = file(blocks, nsymbt=len(blocks[0]) + 5)
    try:
        found = opened(raw)
    except MrcError:
        return
    assert found.warnings
    assert found.damaged()[:2] == [0, 1]
    found.assert_right(but=tuple(range(N)))


def test_nsymbt_that_leaves_no_block_is_an_error() -> None:
    raw = file(chunks())
    with pytest.raises(MrcError, match="no whole section"):
        opened(file(chunks(), nsymbt=len(raw) - 1024))


@pytest.mark.parametrize("nz", [N + 1, 1000, 2**31 - 1])
def test_nz_that_is_too_large_is_truncation(nz: int) -> None:
    raw = file(chunks(), nz=nz)
    with pytest.raises(MrcError, match=f"{N} whole sections, and its header promises {nz}"):
        opened(raw)
    found = opened(raw, truncated="trim")
    assert len(found.sections) == N
    found.assert_right()


def test_nz_that_is_too_small_is_a_warning() -> None:
    found = opened(file(chunks(), nz=4))
    (warning,) = found.warnings
    assert "bytes after them are ignored" in warning
    assert len(found.sections) == 4
    found.assert_right()


def test_nz_that_is_too_small_with_a_damaged_block() -> None:
    blocks = chunks()
    put(blocks[1], "version", 9)
    found = opened(file(blocks, nz=4))
    found.assert_right(but=(1, 2, 3))


@pytest.mark.parametrize("nz", [0, -1, -(2**31)])
def test_no_section_is_an_error(nz: int) -> None:
    with pytest.raises(MrcError, match="NX, NY, NZ"):
        opened(file(chunks(), nz=nz))


@pytest.mark.parametrize(
    "shape", [(2**31 - 1, NY), (NX, 2**31 - 1), (2**31 - 1, 2**31 - 1), (2**16, 2**15)]
)
def test_section_that_no_block_can_hold_is_an_error(shape: tuple[int, int]) -> None:
    nx, ny = shape
    with pytest.raises(MrcError, match="more than a block can hold"):
        opened(file(chunks(), nx=nx, ny=ny))


@pytest.mark.parametrize("nx", [1, NX - 1, NX + 1, 2**20])
def test_no_block_of_the_promised_size_is_an_error(nx: int) -> None:
    """There is nothing to be read, and nothing that would justify to ask for memory."""
    with pytest.raises(MrcError, match=str(nx * NY * 2)):
        opened(file(chunks(), nx=nx))


def test_zeros_instead_of_blocks_is_an_error() -> None:
    with pytest.raises(MrcError):
        opened(file([bytearray(5000)]))
