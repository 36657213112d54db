"""MRCZ files mutated at random: data that are right, or MrcError; never a crash or a hang.

The mutations run in a process of their own, since a crash of a C library would end pytest. Run
one again with ``python tests/pixels/test_mrcz_fuzz.py SEED SEED+1 /tmp/seed``, and more of them
with ``MRC_XARRAY_FUZZ=100000 pytest -m slow tests/pixels/test_mrcz_fuzz.py``.
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
from pathlib import Path
from typing import Any, NamedTuple

import mrcz
import numpy as np
import pytest
import xarray as xr

from mrc_xarray import MrcError, MrcWarning
from mrc_xarray.pixels.compression import decode_block

pytestmark = pytest.mark.slow

Array = np.ndarray[Any, Any]

N_MUTATIONS = int(os.environ.get("MRC_XARRAY_FUZZ", "600"))
SECONDS_FOR_ONE = 0.5
HAS_BLOSC2 = importlib.util.find_spec("blosc2") is not None

CHUNK = struct.Struct("<4B3I")
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
# fields of the main header that have a meaning
PLACES = [*range(0, 76, 4), 88, 92, 104, 108, *range(132, 152, 4), *range(196, 216, 4), 224]


def test_mutations_give_right_data_or_mrc_error(tmp_path: Path) -> None:
    progress = tmp_path / "seed"
    command = [sys.executable, "-X", "faulthandler", __file__, "0", str(N_MUTATIONS), progress]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60 + SECONDS_FOR_ONE * N_MUTATIONS
        )
    except subprocess.TimeoutExpired:
        pytest.fail(f"seed {progress.read_text()} does not end")
    if done.returncode:
        pytest.fail(f"seed {progress.read_text()}: {done.stdout}\n{done.stderr[-4000:]}")


class Original(NamedTuple):
    """An intact file, and where its blocks are."""

    raw: bytes
    starts: list[int]
    stops: list[int]
    sections: Array

    def block(self, k: int) -> bytes:
        return self.raw[self.starts[k] : self.stops[k]]


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
        match int(rng.integers(8)):
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
                # one block instead of another
                j = int(rng.integers(len(original.starts)))
                raw[start:stop] = original.raw[original.starts[j] : original.stops[j]]
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
    """Open the mutated file, and compare all that it returns."""
    target = io.BufferedReader(io.BytesIO(raw)) if seed % 2 else io.BytesIO(raw)
    truncated = "error" if seed % 3 == 0 else "trim"
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            ds = xr.open_dataset(target, engine="mrc", cache=False, truncated=truncated)
        except MrcError:
            # one damaged header ends what can be read, and intact files open
            assert raw != original.raw
            return
    assert all(issubclass(warning.category, MrcWarning) for warning in warned)
    header, data = ds.mrc.header, ds["data"]
    if header.mode < 1000:
        return
    n_leading = data.ndim - 2 - (header.mode % 1000 == 16)
    starts = forward(raw, 1024 + header.nsymbt, header.nz)
    is_same_header = raw[: original.starts[0]] == original.raw[: original.starts[0]]
    for k, place in enumerate(list(np.ndindex(*data.shape[:n_leading]))[:8]):
        stop = starts[k] + CHUNK.unpack_from(raw, starts[k])[6]
        j = original.starts.index(starts[k]) if starts[k] in original.starts else None
        is_intact = is_same_header and j == k and raw[starts[k] : stop] == original.block(k)
        section = data.isel(dict(zip(data.dims, place, strict=False)))
        if is_intact:
            np.testing.assert_array_equal(section, original.sections[k])
            continue
        message = f"section {k}, at byte {starts[k]}"
        try:
            section.load()
        except MrcError as error:
            message = str(error)
        assert f"section {k}, at byte {starts[k]}" in message


def check_decoder(original: Original, raw: bytes) -> None:
    """Decode the mutated blocks alone into the middle of a larger array."""
    guard, n = 4096, int(original.sections[0].nbytes)
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
                decode_block(np.frombuffer(block, np.uint8), out, codec="zstd", where="a block")
            except MrcError:
                results.append(b"")
            else:
                results.append(out.tobytes())
            assert (buffer[:guard] == canary).all(), "written before the array"
            assert (buffer[guard + n :] == canary).all(), "written past the array"
        assert results[0] == results[1], "the section has bytes that the decoder did not write"


def main(start: str, stop: str, progress: str) -> None:
    # an allocation that these small files do not justify is an error
    import resource

    with tempfile.TemporaryDirectory() as folder:
        files = originals(Path(folder))
    resource.setrlimit(resource.RLIMIT_AS, (8 * 1024**3, 8 * 1024**3))
    for seed in range(int(start), int(stop)):
        Path(progress).write_text(str(seed))
        rng = np.random.default_rng(seed)
        original = files[int(rng.integers(len(files)))]
        raw = mutate(original, files, rng)
        check(original, raw, seed)
        check_decoder(original, raw)


if __name__ == "__main__":
    main(*sys.argv[1:])
