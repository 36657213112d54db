"""The extended header of the source, for the sections that are written."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
import rsciio.mrc
import xarray as xr
from writes import (
    check_plain,
    check_validity,
    extended,
    field,
    noise,
    opened,
    read_by_rosettasciio,
    source,
    unwarned,
)

from mrc_xarray import MrcWarning, to_mrc

N = 6


def fei_block(k: int, size: int) -> bytes:
    """Return a block of EPU's with one field, the alpha tilt."""
    raw = bytearray(size)
    struct.pack_into("<iiI", raw, 0, size, {768: 0, 888: 2}[size], 1 << 7)
    struct.pack_into("<d", raw, 100, 10 * k - 20)
    raw[-8:] = struct.pack("<q", k)
    return bytes(raw)


# kind → header fields, records of six sections, bytes after them
RECORDS: dict[str, tuple[dict[str, Any], list[bytes], int]] = {
    "FEI1": ({"exttyp": b"FEI1"}, [fei_block(k, 768) for k in range(N)], 0),
    "FEI1 padded": ({"exttyp": b"FEI1"}, [fei_block(k, 768) for k in range(N)], 5 * 768),
    "FEI2": ({"exttyp": b"FEI2"}, [fei_block(k, 888) for k in range(N)], 0),
    "FEI2 padded": ({"exttyp": b"FEI2"}, [fei_block(k, 888) for k in range(N)], 15360 - N * 888),
    # EMAN2 confuses these: the size in the block decides
    "FEI1 of 888": ({"exttyp": b"FEI1"}, [fei_block(k, 888) for k in range(N)], 0),
    "SERI": (
        {"exttyp": b"SERI", "nint": 4, "nreal": 1 | 8},
        [struct.pack("<hh", 300 * k - 900, 50 + k) for k in range(N)],
        0,
    ),
    "SERI padded": (
        {"exttyp": b"SERI", "nint": 2, "nreal": 1},
        [struct.pack("<h", 300 * k - 900) for k in range(N)],
        1024 - 2 * N,
    ),
    "AGAR": (
        {"exttyp": b"AGAR", "nint": 1, "nreal": 2},
        [struct.pack("<iff", k, 3.0 * k, -1.5) for k in range(N)],
        0,
    ),
}  # fmt: skip


def with_records(tmp_path: Path, kind: str) -> tuple[xr.Dataset, list[bytes]]:
    more, records, padding = RECORDS[kind]
    fields = {"extended": b"".join(records) + bytes(padding), "ispg": 0, "mz": 1} | more
    return source(tmp_path, noise((N, 4, 5), "i2"), **fields), records


def with_tilts(tmp_path: Path, name: str, tilts: tuple[int, ...]) -> xr.DataArray:
    records = b"".join(struct.pack("<h", 100 * tilt) for tilt in tilts)
    seri = {"extended": records, "exttyp": b"SERI", "nint": 2, "nreal": 1}
    return source(tmp_path, noise((len(tilts), 4, 5)), name, **seri).data


def check_records(path: Path, kind: str, records: list[bytes]) -> None:
    more, _, padding = RECORDS[kind]
    for name, value in more.items():
        assert field(path, name) == value
    found, wanted = extended(path), b"".join(records)
    assert found[: len(wanted)] == wanted
    assert not any(found[len(wanted) :])
    assert len(found) == len(wanted) or padding
    assert path.stat().st_size == 1024 + len(found) + field(path, "nz") * 4 * 5 * 2


@pytest.mark.parametrize("kind", RECORDS)
@pytest.mark.parametrize("key", [slice(None), [4, 0, 5], [3]])
@unwarned
def test_records_of_the_selected_sections(path: Path, tmp_path: Path, kind: str, key: Any) -> None:
    ds, records = with_records(tmp_path, kind)
    to_mrc((ds.data.isel(image=key) + 1).compute() - 1, path)
    numbers = np.arange(N)[key]
    check_records(path, kind, [records[k] for k in numbers])
    check_plain(path, noise((N, 4, 5), "i2")[numbers])


@unwarned
def test_records_are_dropped_with_the_dimension(path: Path, tmp_path: Path) -> None:
    ds, _ = with_records(tmp_path, "FEI1")
    to_mrc(ds.data.mean("image").astype("f4"), path)
    assert field(path, "nsymbt") == 0
    assert field(path, "exttyp").strip(b" \0") == b""
    check_validity(path)


@pytest.mark.parametrize("kind", ["SERI", "AGAR"])
@unwarned
def test_records_get_the_byte_order_of_the_new_file(path: Path, tmp_path: Path, kind: str) -> None:
    ds, records = with_records(tmp_path, kind)
    to_mrc(ds, path, byteorder="big")
    n = field(path, "nsymbt", ">")
    found = path.read_bytes()[1024 : 1024 + n]
    code = {"SERI": "2h", "AGAR": "iff"}[kind] * N
    swapped = struct.pack(">" + code, *struct.unpack("<" + code, b"".join(records)))
    assert found == swapped


@pytest.mark.parametrize("key", [slice(None), [4, 0]])
def test_records_of_old_fei_files(path: Path, tmp_path: Path, key: Any) -> None:
    """They have no EXTTYP, and are recognised by their length of 1024 records."""
    records = [struct.pack("<32f", 3.0 * k, *range(31)) for k in range(1024)]
    fields = {"extended": b"".join(records), "ispg": 0, "mz": 1, "nint": 0, "nreal": 32}
    ds = source(tmp_path, noise((N, 4, 5), "i2"), **fields)
    to_mrc(ds.isel(image=key), path)
    numbers = np.arange(N)[key]
    wanted = b"".join(records[k] for k in numbers)
    assert extended(path)[: len(wanted)] == wanted
    assert opened(path).data.attrs["mrc_layout"] == "image_stack"
    assert read_by_rosettasciio(rsciio.mrc, path)["data"].shape[0] == len(numbers)


@pytest.mark.parametrize("exttyp", [b"ABCD", b"    "])
def test_unknown_records_are_preserved_with_the_shape(
    path: Path, tmp_path: Path, exttyp: bytes
) -> None:
    content = bytes(range(250)) * 4
    ds = source(tmp_path, noise((3, 4, 5)), extended=content, exttyp=exttyp)
    to_mrc((ds.data + 1).compute(), path)
    assert extended(path) == content
    assert field(path, "exttyp").strip(b" \0") == exttyp.strip()


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.isel(z=slice(1, 3)),
        lambda data: data.transpose("x", "y", "z"),
    ],
)
@unwarned
def test_unknown_records_are_dropped_with_the_shape(
    path: Path, tmp_path: Path, change: Any
) -> None:
    ds = source(tmp_path, noise((4, 4, 4)), extended=b"secret" * 40, exttyp=b"ABCD")
    to_mrc(change(ds.data), path)
    assert field(path, "nsymbt") == 0
    check_validity(path)


@unwarned
def test_source_that_is_gone_is_no_error(path: Path, tmp_path: Path) -> None:
    ds = with_records(tmp_path, "FEI1")[0].load()
    (tmp_path / "source.mrc").unlink()
    to_mrc(ds, path)
    assert field(path, "nsymbt") == 0
    check_plain(path, ds.data.values)


@pytest.mark.parametrize(
    ("given", "exttyp", "content"),
    [
        (b"", b"", b""),
        (b"x" * 33, None, b"x" * 33),
        (("SERI", b"\1\2" * 6), b"SERI", b"\1\2" * 6),
    ],
)
@unwarned
def test_extended_header_by_argument(
    path: Path, tmp_path: Path, given: Any, exttyp: bytes | None, content: bytes
) -> None:
    ds, _ = with_records(tmp_path, "FEI2")
    to_mrc(ds, path, extended_header=given)
    assert extended(path) == content
    if exttyp is not None:
        assert field(path, "exttyp").strip(b" \0") == exttyp
    with mrcfile.open(path) as mrc:
        np.testing.assert_array_equal(mrc.data, ds.data)
    assert opened(path).data.shape == ds.data.shape


@pytest.mark.parametrize("given", ["text", ("FEI11", b"")])
def test_bad_extended_header_is_refused(path: Path, given: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="extended_header"):
        to_mrc(noise((3, 4, 5)), path, extended_header=given)
    assert not path.exists()


@unwarned
def test_records_of_joined_files_are_not_mixed_up(path: Path, tmp_path: Path) -> None:
    tilts = [(10, 20, 30), (-60, -50, -40)]
    parts = [with_tilts(tmp_path, f"{i}.st", tilts[i]) for i in range(2)]
    joined = xr.concat(parts, "image")
    assert joined.tilt_angle.values.tolist() == [*tilts[0], *tilts[1]]
    to_mrc(joined, path)
    assert field(path, "nsymbt") == 0


def test_corrected_records_are_dropped_with_a_warning(path: Path, tmp_path: Path) -> None:
    data = with_tilts(tmp_path, "a.st", (10, 20, 30))
    data = data.assign_coords(tilt_angle=("image", [1.0, 2.0, 3.0]))
    with pytest.warns(MrcWarning, match="tilt_angle.*contradict"):
        to_mrc(data, path)
