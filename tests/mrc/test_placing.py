"""Files that are exactly NSYMBT bytes too short: truncated, or without an extended header."""

from __future__ import annotations

import bz2
import io
import struct
import warnings
from pathlib import Path
from typing import Any

import by_hand
import numpy as np
import pytest
import xarray as xr

from mrc_xarray import MrcError, MrcWarning, validate

Array = np.ndarray[Any, Any]
STACK = {"ispg": 0, "mz": 1, "cella": (10, 9, 0)}
N = 8
TILTS = 3.0 * np.arange(N) - 12


def fei(order: str, *, size: int, version: int) -> bytes:
    """Blocks with a tilt angle, a text and a switch, all valid."""
    block = bytearray(size)
    blocks = []
    for tilt in TILTS:
        struct.pack_into(order + "2i", block, 0, size, version)
        struct.pack_into("<I", block, 8, 1 << 3 | 1 << 7 | 1 << 30)
        block[52:57] = b"Velox"
        struct.pack_into(order + "d", block, 100, tilt)
        block[288] = 1
        blocks.append(bytes(block))
    return b"".join(blocks)


def seri(order: str) -> bytes:
    """Tilt, stage and magnification."""
    return b"".join(struct.pack(order + "4h", int(100 * t), 3, -7, 290) for t in TILTS)


def legacy(order: str) -> bytes:
    floats = (0.5, 1e-6, 2e-6, 3e-6, 0, 0, -1.5e-6, 0.25, 800, 84.5, 4e-10, 29000, 200000)
    return b"".join(struct.pack(order + "14f", t, *floats).ljust(128, b"\0") for t in TILTS)


# kind → its records for N sections, and the header fields
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "FEI1": (lambda o: fei(o, size=768, version=0), {"exttyp": b"FEI1"}),
    "FEI2": (lambda o: fei(o, size=888, version=2), {"exttyp": b"FEI2"}),
    "FEI1, reserved": (
        lambda o: fei(o, size=768, version=0) + bytes(8 * 768), {"exttyp": b"FEI1"},
    ),
    "SERI": (seri, {"exttyp": b"SERI", "nint": 8, "nreal": 1 | 4 | 8}),
    "SERI, padded": (
        lambda o: seri(o).ljust(1024, b"\0"), {"exttyp": b"SERI", "nint": 8, "nreal": 13},
    ),
    "SERI, tilts alone": (
        lambda o: (100 * TILTS).astype(o + "i2").tobytes(),
        {"exttyp": b"SERI", "nint": 2, "nreal": 1},
    ),
    "SERI without a type": (seri, {"nint": 8, "nreal": 13}),
    "AGAR": (
        lambda o: b"".join(struct.pack(o + "iff", 7, t, 0.25) for t in TILTS),
        {"exttyp": b"AGAR", "nint": 1, "nreal": 2},
    ),
    "legacy FEI": (
        lambda o: legacy(o).ljust(1024 * 128, b"\0"), {"nint": 0, "nreal": 32},
    ),
    "CCP4": (
        lambda o: b"X,Y,Z".ljust(80) + b"-X,Y+1/2,-Z".ljust(80, b"\0"), {"exttyp": b"CCP4"},
    ),
    "CCP4 without a type": (lambda o: b"X,  Y,  Z".ljust(80), {}),
    "json": (lambda o: b'{"operator": "\xc3\xa9"}', {"exttyp": b"json"}),
    "json, long": (
        lambda o: b'{"a": "' + b"x" * 100_001 + b'"}', {"exttyp": b"json"},
    ),
}  # fmt: skip


def stack(kind: str, order: str, nsymbt_in_sections: float) -> tuple[bytes, int]:
    """Return a complete file, and its NSYMBT, which is the length of so many sections."""
    make, fields = KINDS[kind]
    records = make(order)
    n_columns = int(len(records) / nsymbt_in_sections)
    # section k is filled with k + 1, so that a wrong offset shows
    pixels = np.arange(1, N + 1, dtype="i1")[:, None, None] * np.ones((1, 1, n_columns), "i1")
    raw = by_hand.mrc(pixels, byteorder=order, extended=records, **(STACK | fields))
    return raw, len(records)


def opened(raw: bytes, **options: Any) -> xr.Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MrcWarning)
        return xr.open_dataset(io.BytesIO(raw), engine="mrc", **options)


@pytest.mark.parametrize(("n_sections", "order"), [(0.5, "<"), (1, ">"), (2, "<")])
@pytest.mark.parametrize("kind", KINDS)
def test_truncated_by_nsymbt(kind: str, order: str, n_sections: float) -> None:
    complete, nsymbt = stack(kind, order, n_sections)
    np.testing.assert_array_equal(opened(complete).data[:, 0, 0], np.arange(1, N + 1))
    cut = complete[:-nsymbt]
    with pytest.raises(MrcError, match="the file is truncated"):
        opened(cut)
    n_left = N - int(np.ceil(n_sections))
    ds = opened(cut, truncated="trim")
    np.testing.assert_array_equal(ds.data[:, 0, 0], np.arange(1, n_left + 1))
    np.testing.assert_array_equal(ds.data[:, 0, -1], np.arange(1, n_left + 1))


def test_truncated_in_a_stream() -> None:
    complete, nsymbt = stack("FEI1", "<", 1)
    raw = bz2.compress(complete[:-nsymbt])
    ds = opened(raw, truncated="trim")
    np.testing.assert_array_equal(ds.data[:, 0, 0], np.arange(1, N))


def test_no_more_is_read_to_decide(tmp_path: Path, reads: Any) -> None:
    complete, nsymbt = stack("json, long", "<", 1)
    (tmp_path / "a.mrc").write_bytes(complete[:-nsymbt])
    with pytest.raises(MrcError, match="truncated"):
        xr.open_dataset(tmp_path / "a.mrc", engine="mrc")
    assert reads in ([], [(0, 64 * 1024)])


TEXT = b"The quick brown fox, jumps over the lazy dog. "
rng = np.random.default_rng(0)
SHAPE = (41, 24, 40)
# pixels of many kinds, none of which may be mistaken for records
PIXELS: dict[str, Array] = {
    "zeros": np.zeros(SHAPE, "i2"),
    "ones": np.ones(SHAPE, "i2"),
    "ones, float": np.ones(SHAPE, "f4"),
    "by section": np.arange(1, 42, dtype="i2")[:, None, None] * np.ones(SHAPE, "i2"),
    "counting up": np.arange(np.prod(SHAPE)).reshape(SHAPE).astype("i2"),
    "counting up, float": np.arange(np.prod(SHAPE)).reshape(SHAPE).astype("f4"),
    "bytes": rng.integers(-128, 128, SHAPE).astype("i1"),
    "sparse counts": rng.poisson(0.05, SHAPE).astype("i1"),
    "counts": rng.poisson(5, SHAPE).astype("i2"),
    "16 bits": rng.integers(-(2**15), 2**15, SHAPE).astype("i2"),
    "normal": rng.normal(size=SHAPE).astype("f4"),
    "wide": (30 * rng.normal(size=SHAPE)).astype("f4"),
    "text": np.resize(np.frombuffer(TEXT, "i1"), SHAPE),
}
FIELDS: dict[str, dict[str, Any]] = {
    "FEI1": {"exttyp": b"FEI1"},
    "FEI2": {"exttyp": b"FEI2"},
    "SERI": {"exttyp": b"SERI", "nint": 16, "nreal": 31},
    "SERI, tilts alone": {"exttyp": b"SERI", "nint": 2, "nreal": 1},
    "SERI, usual": {"exttyp": b"SERI", "nint": 14, "nreal": 61},
    "AGAR": {"exttyp": b"AGAR", "nint": 0, "nreal": 1},
    "AGAR, many": {"exttyp": b"AGAR", "nint": 2, "nreal": 10},
    "AGAR, integers alone": {"exttyp": b"AGAR", "nint": 2, "nreal": 0},
    "legacy FEI": {"exttyp": b"AGAR", "nint": 0, "nreal": 32},
    "CCP4": {"exttyp": b"CCP4"},
    "json": {"exttyp": b"json"},
    "MRCO": {"exttyp": b"MRCO"},
    "HDF5": {"exttyp": b"HDF5"},
    "none": {},
    "unknown": {"exttyp": b"what"},
}


FAST = ("FEI1", "SERI", "AGAR", "legacy FEI", "CCP4", "none")


@pytest.mark.parametrize(
    "kind", [k if k in FAST else pytest.param(k, marks=pytest.mark.slow) for k in FIELDS]
)
def test_pixels_are_not_mistaken_for_records(kind: str) -> None:
    """EXTTYP is no evidence of records; such files are opened with a warning."""
    for pixels, data in PIXELS.items():
        if (kind, pixels) == ("AGAR", "counting up, float"):
            # each section has one degree more: this is a valid tilt series
            continue
        order = "<" if data.dtype.kind == "i" else ">"
        for nsymbt in (data[0].nbytes, 6400):
            raw = by_hand.mrc(data, byteorder=order, nsymbt=nsymbt, **(STACK | FIELDS[kind]))
            with pytest.warns(MrcWarning, match=rf"NSYMBT .* is {nsymbt}; accepted: 0"):
                ds = xr.open_dataset(io.BytesIO(raw), engine="mrc", mode0="int8")
            np.testing.assert_array_equal(ds.data, data, pixels)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "EMD-3197.map", "real/relion_2d.mrc", "real/relion_stack.mrcs", "real/leginon.mrc",
        "real/relion_float16.mrc", "real/warptools_particle.mrcs", "real/griddata.ccp4",
        "real/beta_tubulin.mrc", "real/xmipp_volume.mrc",
    ],
)  # fmt: skip
def test_real_pixels_are_no_records(real_file: Any, name: str) -> None:
    raw = bytearray(real_file(name).read_bytes())
    order = ">" if raw[212:214] in (b"\x11\x11", b"\0\0") and raw[0] == 0 else "<"
    if struct.unpack_from(order + "i", raw, 92)[0]:
        pytest.skip("it has an extended header")
    nx, ny, nz, mode = struct.unpack_from(order + "4i", raw)
    raw = raw[: 1024 + nx * ny * nz * {0: 1, 1: 2, 2: 4, 6: 2, 12: 2}[mode]]
    for fields in FIELDS.values():
        for nsymbt in (80, 768, 1024, 6144):
            changed = raw.copy()
            for field, value in (fields | {"nsymbt": nsymbt}).items():
                offset, code = by_hand.FIELDS[field]
                struct.pack_into(order + code, changed, offset, value)
            with pytest.warns(MrcWarning, match=f"is {nsymbt}; accepted: 0"):
                xr.open_dataset(io.BytesIO(bytes(changed)), engine="mrc", metadata_file=None)


def test_only_a_file_on_a_disk_can_be_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    path.write_bytes(raw := by_hand.mrc(np.ones((2, 3, 4), "i1")) + b"more")
    hint = f"os.truncate({str(path)!r}, {len(raw) - 4})"
    targets = [(path, True), (raw, False), (io.BytesIO(raw), False), (bz2.compress(raw), False)]
    for target, is_local in targets:
        [problem] = [p for p in validate(target) if p.code == "extra-bytes"]
        assert (hint in problem.action, "os.truncate" in problem.action) == (is_local, is_local)
