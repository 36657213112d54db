"""MRCZ files mutated at random: data that are right, or MrcError; never a crash or a hang.

The mutations run in processes of their own, since a crash of a C library would end pytest. Run
one again with ``python tests/test_mrcz_fuzz.py SEED SEED+1 /tmp/seed``, and more of them with
``MRC_XARRAY_FUZZ=100000 pytest tests/test_mrcz_fuzz.py``.
"""

from __future__ import annotations

import importlib.util
import io
import os
import struct
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import blosc
import mrcz
import numpy as np
import pytest
import xarray as xr

from mrc_xarray import MrcError, MrcWarning
from mrc_xarray.mrc import placing
from mrc_xarray.pixels import blocks
from mrc_xarray.pixels.compression import decode_block

Array = np.ndarray[Any, Any]

N_MUTATIONS = int(os.environ.get("MRC_XARRAY_FUZZ", "2000"))
N_PROCESSES = 2
SECONDS_FOR_ONE = 0.25
HAS_BLOSC2 = importlib.util.find_spec("blosc2") is not None

CHUNK = struct.Struct("<4B3I")
# what the pixels of a section are, by MODE
STORED = {1: "i2", 2: "f4", 3: "i2", 4: "c8", 6: "u2", 7: "i4", 8: "u4", 12: "f2", 16: "u1"}
EXTREMES = [
    0,
    1,
    2,
    3,
    15,
    16,
    17,
    101,
    255,
    1024,
    6000,
    2**16,
    2**20,
    2**31 - 1,
    2**31,
    2**32 - 1,
]
# bytes of the main header that are integers or floats with a meaning
PLACES = [
    *range(0, 76, 4),
    88,
    92,
    104,
    108,
    132,
    136,
    140,
    144,
    148,
    196,
    200,
    204,
    208,
    212,
    224,
]


@pytest.mark.parametrize("process", range(N_PROCESSES))
def test_mutations_give_right_data_or_mrc_error(process: int, tmp_path: Path) -> None:
    bounds = np.linspace(0, N_MUTATIONS, N_PROCESSES + 1).astype(int)
    start, stop = bounds[process], bounds[process + 1]
    progress = tmp_path / "seed"
    command = [sys.executable, "-X", "faulthandler", __file__, str(start), str(stop), progress]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60 + SECONDS_FOR_ONE * (stop - start)
        )
    except subprocess.TimeoutExpired:
        pytest.fail(f"seed {progress.read_text()} takes for ever")
    if done.returncode:
        pytest.fail(f"seed {progress.read_text()}: {done.stdout}\n{done.stderr[-4000:]}")


class Original(NamedTuple):
    """A sound file, and where its blocks are."""

    raw: bytes
    starts: list[int]
    stops: list[int]
    sections: Array

    @property
    def section_bytes(self) -> int:
        return int(self.sections[0].nbytes)


def originals(folder: Path) -> list[Original]:
    """Return small files of several codecs, types and byte orders, with and without metadata."""
    rng = np.random.default_rng(0)

    def pixels(shape: tuple[int, ...], dtype: str) -> Array:
        return rng.poisson(1.5, shape).astype(dtype)

    kinds: list[tuple[Any, dict[str, Any]]] = [
        (pixels((5, 24, 32), "i1"), {"compressor": "zstd", "meta": {"stage": [1.5, "x"]}}),
        (pixels((6, 24, 33), "i2"), {"compressor": "lz4", "endian": "be"}),
        (pixels((4, 17, 23), "f4"), {"compressor": "zlib", "meta": {"text": "å" * 30}}),
        ([*pixels((3, 2, 20, 30), "u2")], {"compressor": "blosclz"}),
        (pixels((4, 16, 20), "c8"), {"compressor": "lz4hc"}),
        (rng.integers(-128, 128, (4, 20, 20), "i1"), {"compressor": "lz4"}),
    ]
    if HAS_BLOSC2:
        kinds += [
            (pixels((5, 48, 64), "u2"), {"compressor": "zstd", "backend": "blosc2"}),
            (pixels((4, 48, 64), "f4"), {"compressor": "lz4", "backend": "blosc2", "meta": {}}),
            (np.zeros((4, 48, 64), "i1"), {"compressor": "blosclz", "backend": "blosc2"}),
        ]
    files = []
    for data, options in kinds:
        path = folder / "original.mrc"
        mrcz.writeMRC(data, path, n_threads=1, **options)
        raw = path.read_bytes()
        sections = np.concatenate(data) if isinstance(data, list) else data
        order = "big" if options.get("endian") == "be" else "little"
        first = 1024 + int.from_bytes(raw[92:96], order)
        starts = forward(raw, first, len(sections))
        stops = [*starts[1:], len(raw)]
        files.append(Original(raw, starts, stops, sections))
    return files


def forward(raw: bytes, start: int, n: int) -> list[int]:
    """Follow `n` blocks from `start`, believing every header."""
    starts = []
    while len(starts) < n and start + CHUNK.size <= len(raw):
        starts.append(start)
        start += max(CHUNK.unpack_from(raw, start)[6], CHUNK.size)
    return starts


# mutations --------------------------------------------------------------------------------------


def mutate(original: Original, others: list[Original], rng: np.random.Generator) -> bytes:
    raw = bytearray(original.raw)
    for _ in range(1 + (rng.random() < 0.25)):
        k = int(rng.integers(len(original.starts)))
        start, stop = original.starts[k], original.stops[k]
        at = int(rng.integers(len(raw) or 1))
        match int(rng.integers(9)):
            case 0:
                for _ in range(int(rng.integers(1, 9))):
                    raw[int(rng.integers(len(raw)))] ^= 1 << int(rng.integers(8))
            case 1:
                put(raw, int(rng.choice(PLACES)), rng)
            case 2:
                put(raw, start + int(rng.choice([0, 4, 8, 12, 16, 20, 24, 28])), rng)
            case 3:
                byte = start + int(rng.integers(32))
                raw[byte : byte + 1] = [int(rng.integers(256))]
            case 4:
                for _ in range(int(rng.integers(1, 9))):
                    byte = int(rng.integers(start + CHUNK.size, stop))
                    raw[byte : byte + 1] = [int(rng.integers(256))]
            case 5:
                del raw[at:]
            case 6:
                # one block for another, or twice
                j = int(rng.integers(len(original.starts)))
                raw[start:stop] = original.raw[original.starts[j] : original.stops[j]]
            case 7:
                raw[at:at] = raw[start:stop]
            case _:
                other = others[int(rng.integers(len(others)))].raw
                n = int(rng.integers(1, 200))
                raw[at : at + int(rng.integers(200))] = other[at : at + n]
        if not raw:
            break
    return bytes(raw)


def put(raw: bytearray, at: int, rng: np.random.Generator) -> None:
    """Replace four bytes by an extreme value, a near one, or any."""
    if at + 4 > len(raw):
        return
    (value,) = struct.unpack_from("<I", raw, at)
    kind = rng.integers(3)
    if kind == 0:
        value = int(rng.choice(EXTREMES))
    elif kind == 1:
        value += int(rng.integers(-40, 41))
    else:
        value = int(rng.integers(2**32))
    struct.pack_into(str(rng.choice(["<I", ">I"])), raw, at, value % 2**32)


# checks -----------------------------------------------------------------------------------------


def check(original: Original, raw: bytes, seed: int) -> None:
    """Open the mutated file, and compare all that it gives."""
    intact = intact_sections(original, raw)
    # in memory, and as a stream that is walked and searched by small steps
    streamed = seed % 2 == 1
    blocks._SEARCHED_AT_ONCE = 300 if streamed else 4 * 1024**2
    placing._WALK_WINDOW = 100 if streamed else 4 * 1024**2
    target = io.BufferedReader(io.BytesIO(raw)) if streamed else io.BytesIO(raw)
    truncated = "trim" if seed % 3 == 0 else "error"
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            ds = xr.open_dataset(target, engine="mrc", cache=False, truncated=truncated)
        except MrcError:
            return
    for warning in warned:
        assert issubclass(warning.category, MrcWarning), warning
    header = ds.mrc.header
    if header.mode < 1000:
        return
    data = ds["data"]
    index = stack_array(data).sections.index
    leading = data.shape[: data.ndim - 2 - (header.mode % 1000 == 16)]
    places = list(np.ndindex(*leading))
    walked = forward(raw, 1024 + header.nsymbt, len(places))
    # a file with no more than one damaged block gives all others
    nearly_all = sum(intact) >= len(intact) - 1 and len(raw) == len(original.raw)
    for k in [*range(len(places))][:8]:
        key = dict(zip(data.dims, places[k], strict=False))
        try:
            section = data.isel(key).values
        except MrcError as found:
            error = str(found)
            section = None
        if section is None:
            assert f"section {k}, " in error, error
            assert not (nearly_all and intact[k]), f"section {k} is intact: {error}"
            continue
        if k < len(intact) and intact[k]:
            np.testing.assert_array_equal(section, original.sections[k])
            continue
        if k < len(intact) and section.tobytes() == original.sections[k].tobytes():
            continue
        # another block, or one with another content: it has its place in the file, and is
        # decoded as blosc does
        start, stop = int(index.starts[k]), int(index.stops[k])
        accepted = [*walked[k : k + 1], *original.starts[k : k + 1]]
        assert start in accepted or is_from_end(raw, start, len(places) - k), f"section {k}"
        assert section.tobytes() == decoded(raw[start:stop], section, header), f"section {k}"


def is_from_end(raw: bytes, start: int, n: int) -> bool:
    """Tell whether `n` blocks from `start` fill the rest of the file."""
    starts = forward(raw, start, n)
    return len(starts) == n and starts[-1] + CHUNK.unpack_from(raw, starts[-1])[6] == len(raw)


def intact_sections(original: Original, raw: bytes) -> list[bool]:
    """Tell which blocks are as they were, in a file whose header is, and before a damaged one.

    Those behind a damaged block count where the file's length did not change.
    """
    first = original.starts[0]
    same = [
        raw[start:stop] == original.raw[start:stop]
        for start, stop in zip(original.starts, original.stops, strict=True)
    ]
    if raw[:first] != original.raw[:first]:
        return [False] * len(same)
    if len(raw) != len(original.raw):
        return [all(same[: k + 1]) for k in range(len(same))]
    return same


def decoded(block: bytes, section: Array, header: Any) -> bytes:
    """Decode a block with blosc itself, into what the section has to be."""
    if block[0] == 2:
        content = blosc.decompress(block)
    else:
        import blosc2

        content = blosc2.decompress2(block)
    mode = header.mode % 1000
    dtype = np.dtype(STORED.get(mode, section.dtype.str)).newbyteorder(header.byteorder)
    pixels = np.frombuffer(content, dtype)
    if mode == 3:
        pixels = pixels.astype("f4").view("c8")
    return pixels.astype(section.dtype).tobytes()


def stack_array(data: xr.DataArray) -> Any:
    array: Any = data.variable._data
    while hasattr(array, "array"):
        array = array.array
    return array


def check_decoder(original: Original, raw: bytes) -> None:
    """Decode the mutated blocks alone into the middle of a larger array."""
    guard, n = 4096, original.section_bytes
    for start, stop in zip(original.starts, original.stops, strict=True):
        block = bytearray(raw[start:stop])
        if len(block) < 32 or block == original.raw[start:stop]:
            continue
        # past what is checked before, to the decoder itself
        struct.pack_into("<I", block, 4, n)
        struct.pack_into("<I", block, 12, len(block))
        results = []
        for canary in (0xA5, 0x5A):
            buffer = np.full(n + 2 * guard, canary, np.uint8)
            out = buffer[guard : guard + n]
            try:
                decode_block(
                    np.frombuffer(block, np.uint8),
                    out,
                    codec="zstd",
                    where="a block",
                )
            except MrcError:
                results.append(b"")
            else:
                results.append(out.tobytes())
            assert (buffer[:guard] == canary).all(), "written before the array"
            assert (buffer[guard + n :] == canary).all(), "written past the array"
        assert results[0] == results[1], "the section has bytes that the decoder did not write"


def seeds(start: int, stop: int, progress: Path) -> Iterator[int]:
    with progress.open("w") as file:
        for seed in range(start, stop):
            os.pwrite(file.fileno(), f"{seed:<12}".encode(), 0)
            yield seed


def main(start: str, stop: str, progress: str) -> None:
    # memory that no header of these small files justifies is an error, and no burden
    import resource

    with tempfile.TemporaryDirectory() as folder:
        files = originals(Path(folder))
    resource.setrlimit(resource.RLIMIT_AS, (8 * 1024**3, 8 * 1024**3))
    for seed in seeds(int(start), int(stop), Path(progress)):
        rng = np.random.default_rng(seed)
        original = files[int(rng.integers(len(files)))]
        raw = mutate(original, files, rng)
        check(original, raw, seed)
        check_decoder(original, raw)


if __name__ == "__main__":
    main(*sys.argv[1:])
