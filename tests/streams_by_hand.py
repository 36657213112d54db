"""Compressed streams, written and read by the standard library."""

from __future__ import annotations

import bz2
import contextlib
import functools
import gzip
import io
import lzma
import os
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import by_hand
import dask
import numpy as np
import pytest

KiB, MiB = 1024, 1024**2
#: What the standard library raises for a damaged stream.
ERRORS = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)

#: Sections of 32 KiB with noise in 4 of 16 bits: something to compress, and to decode.
NZ, NY, NX = 20, 64, 256
PIXELS = np.random.default_rng(6).integers(0, 16, (NZ, NY, NX), "i2")
BYTES = by_hand.mrc(PIXELS)
SECTION = PIXELS[0].nbytes

linux = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="it looks into /proc")


class Codec(NamedTuple):
    """How to write and to read a stream; `name` is its name in attrs."""

    name: str
    suffix: str
    pack: Callable[[bytes], bytes]
    unpack: Callable[[bytes], bytes]
    #: Decodes the beginning of a stream.
    decompressor: Callable[[], Any] | None = None


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, **options: Any) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method, **options) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def unzipped(raw: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        (member,) = archive.namelist()
        return archive.read(member)


def read_by(open_: Callable[..., Any]) -> Callable[[bytes], bytes]:
    """Decode by a module's file class, which finds damage that its `decompress` ignores."""

    def unpack(raw: bytes) -> bytes:
        with open_(io.BytesIO(raw)) as file:
            return bytes(file.read())

    return unpack


CODECS = {
    codec.name: codec
    for codec in (
        Codec(
            *("gzip", ".gz", lambda data: gzip.compress(data, 1, mtime=0), read_by(gzip.open)),
            lambda: zlib.decompressobj(31),
        ),
        # blocks of 100 kB, so that there are several
        Codec(
            *("bz2", ".bz2", lambda data: bz2.compress(data, 1), read_by(bz2.open)),
            bz2.BZ2Decompressor,
        ),
        Codec(
            *("xz", ".xz", lambda data: lzma.compress(data, preset=0), read_by(lzma.open)),
            lzma.LZMADecompressor,
        ),
        Codec("zip", ".zip", lambda data: zipped({"volume.mrc": data}), unzipped),
    )
}


@functools.cache
def packed(codec: Codec) -> bytes:
    return codec.pack(BYTES)


def flipped(raw: bytes, at: int) -> bytes:
    at %= len(raw)
    return raw[:at] + bytes([raw[at] ^ 0x55]) + raw[at + 1 :]


def zeroed(raw: bytes, at: int, n: int = 64) -> bytes:
    return raw[:at] + bytes(n) + raw[at + n :]


@contextlib.contextmanager
def limits(folder: Path, memory: str, disk: str = "1 GiB") -> Iterator[None]:
    """Set how much decoded streams may take, and where their temporary files are."""
    with dask.config.set(
        {
            "mrc-xarray.decoded-memory": memory,
            "mrc-xarray.decoded-disk": disk,
            "temporary-directory": str(folder),
        }
    ):
        yield


@contextlib.contextmanager
def less_memory_than(nbytes: int) -> Iterator[None]:
    """Fail if the peak of allocated memory is larger."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < nbytes
    finally:
        tracemalloc.stop()


def temporary_files(folder: Path) -> list[os.stat_result]:
    """Return the status of the open files in a folder that have no name."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{descriptor}")
            if target.startswith(str(folder)) and target.endswith("(deleted)"):
                found.append(os.fstat(int(descriptor)))
    return found
