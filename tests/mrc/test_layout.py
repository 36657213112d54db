"""What the sections are: each rule by files as the programs write them, and the arguments."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import by_hand
import mrcfile
import mrcz
import numpy as np
import pytest
import xarray as xr

from mrc_xarray import MrcError
from mrc_xarray.mrc import reading

IMAGE, STACK, VOLUME = ("y", "x"), ("image", "y", "x"), ("z", "y", "x")
VOLUMES = ("volume", "z", "y", "x")
CHANNELS = ("image", "channel", "y", "x")


def pixels(*shape: int, dtype: str = "f4") -> np.ndarray[Any, Any]:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def hand(n_sections: int = 6, *, dtype: str = "f4", **fields: Any) -> bytes:
    return by_hand.mrc(pixels(n_sections, 3, 4, dtype=dtype), **fields)


def imod(n_sections: int = 6, **fields: Any) -> bytes:
    """Bytes as IMOD writes any file: ISPG 0, MZ = NZ."""
    stamp = {"imod_stamp": by_hand.IMOD_STAMP, "imod_flags": 5}
    return hand(n_sections, dtype="i2", ispg=0, **stamp, **fields)


def relion(n_sections: int, **fields: Any) -> bytes:
    return hand(n_sections, ispg=0, nversion=0, labels=(b"Relion 3.1",), **fields)


def fei(n_sections: int, n_records: int) -> bytes:
    """Bytes as EPU writes them: FEI1 records of 768 bytes, some of them unused."""
    records = struct.pack("<2i", 768, 0).ljust(768, b"\0") * n_records
    return hand(n_sections, dtype="u2", extended=records, exttyp=b"FEI1", ispg=0)


def serialem(**fields: Any) -> bytes:
    """Bytes as SerialEM writes them: tilt angle and stage, 6 bytes per section."""
    records = b"".join(struct.pack("<hhh", 100 * i, 25, 50) for i in range(6))
    return imod(extended=records, nint=6, nreal=5, **fields)


def agar(**fields: Any) -> bytes:
    return hand(extended=bytes(6 * 12), nint=1, nreal=2, **fields)


def direct_electron(n_sections: int = 6) -> bytes:
    return hand(
        n_sections, dtype="u2", nversion=20140, ispg=1, cella=(-40, -30, 0),
        dmin=2, dmax=1, dmean=0, rms=-1,
    )  # fmt: skip


SERIALEM = b"SerialEM: Digitized using Camera                        10-Jan-23  16:45:39"

# content and writer → (name, bytes, dimensions, beginning of the rule)
BY_HAND: dict[str, tuple[str, bytes, tuple[str, ...], str]] = {
    "volume stack, ISPG 401": ("x.mrc", hand(ispg=401, mz=3), VOLUMES, "1"),
    "volume stack, ISPG 630": ("x.mrc", hand(ispg=630, mz=2), VOLUMES, "1"),
    "volume stack named .map": ("x.map", hand(ispg=401, mz=3), VOLUMES, "1"),
    "ISPG 631": ("x.mrc", hand(ispg=631, mz=3), VOLUME, "5"),
    "ISPG 401, MZ does not divide NZ": ("x.mrc", hand(ispg=401, mz=4), VOLUME, "5"),
    "ISPG 401, MZ 0": ("x.mrc", hand(ispg=401, mz=0, cella=(4, 3, 0)), VOLUME, "5"),
    "image, ISPG 0": ("x.mrc", hand(1, ispg=0), IMAGE, "2"),
    "image, CELLA.z 0": ("x.mrc", hand(1, cella=(4, 3, 0)), IMAGE, "2"),
    "image named .mrcs": ("x.mrcs", relion(1, mz=1), IMAGE, "2"),
    "volume of one section": ("x.mrc", hand(1), VOLUME, "5"),
    "IMOD, tomogram": ("x.rec", imod(), VOLUME, "3"),
    "IMOD, tilt series": ("x.st", imod(), STACK, "4"),
    "IMOD, coarsely aligned": ("x.preali", imod(), STACK, "4"),
    "IMOD, .mrc": ("x.mrc", imod(), VOLUME, "5"),
    "EMDB": ("emd_1.map", hand(nversion=0, nzstart=-2), VOLUME, "3"),
    "CCP4": ("x.ccp4", hand(ispg=19, mz=12, machst=b"\x44\x41\0\0"), VOLUME, "3"),
    "SERI in a .rec": ("x.rec", serialem(exttyp=b"SERI"), VOLUME, "3"),
    "RELION, particles": ("x.mrcs", relion(6, mz=1), STACK, "4"),
    "RELION, map": ("x.mrc", relion(6), VOLUME, "5"),
    "Direct Electron, movie": ("x_movie.mrc", direct_electron(), STACK, "4"),
    "Direct Electron, final": ("x_final.mrc", direct_electron(1), IMAGE, "2"),
    "EPU, stack": ("x.mrc", fei(6, 6), STACK, "4"),
    "EPU, 1024 records": ("x.mrc", fei(1, 1024), IMAGE, "2"),
    "FEI1 without records": ("x.mrc", hand(exttyp=b"FEI1"), VOLUME, "5"),
    "FEI2": ("x.mrc", hand(exttyp=b"FEI2", extended=bytes(6 * 888)), STACK, "4"),
    "SerialEM, SERI": ("x.mrc", serialem(exttyp=b"SERI"), STACK, "4"),
    "SerialEM, before EXTTYP": ("x.mrc", serialem(nversion=0), STACK, "4"),
    "AGAR": ("x.mrc", agar(exttyp=b"AGAR"), STACK, "4"),
    "AGAR, before EXTTYP": ("x.mrc", agar(nversion=0), STACK, "4"),
    "legacy FEI": ("x.mrc", hand(extended=bytes(1024 * 128), nreal=32), STACK, "4"),
    "legacy FEI, by its label": (
        "x.mrc", hand(extended=bytes(1024 * 128), labels=(b"Fei Company",)), STACK, "4",
    ),
    "symmetry operators": ("x.mrc", hand(exttyp=b"CCP4", extended=b" " * 160), VOLUME, "5"),
    "operators, before EXTTYP": ("x.mrc", hand(extended=b" " * 160), VOLUME, "5"),
    "SerialEM, by its label": ("x.mrc", hand(ispg=0, labels=(SERIALEM,)), STACK, "4"),
    "SerialEM, ISPG 1, NVERSION 0": (
        "x.mrc", hand(nversion=0, mz=1, byteorder=">", labels=(SERIALEM,)), STACK, "4",
    ),
    "SerialEM, after a reconstruction": (
        "x.mrc", hand(ispg=0, labels=(SERIALEM, b"TILT: Tomographic reconstruction")), VOLUME, "5",
    ),
    "SerialEM, one image": ("x.mrc", hand(1, ispg=0, labels=(SERIALEM,)), IMAGE, "2"),
    "Gorgon": ("x.mrc", hand(ispg=0, mx=3, my=2, mz=5, cella=(3, 2, 5)), VOLUME, "5"),
    "only MZ is NZ - 1": ("x.mrc", hand(ispg=0, mz=5), STACK, "6"),
    "ISPG 1, MZ 1": ("x.mrc", hand(mz=1), VOLUME, "5"),
    "ISPG 0, MZ 1": ("x.mrc", hand(ispg=0, mz=1), STACK, "6"),
    "ISPG 0, MZ 0": ("x.mrc", hand(ispg=0, mz=0, cella=(0, 0, 0)), STACK, "6"),
}  # fmt: skip


def check(path: Path, dims: tuple[str, ...], rule: str) -> None:
    with xr.open_dataset(path, engine="mrc") as ds:
        assert ds.data.dims == dims
        assert ds.data.attrs["mrc_layout_rule"].startswith(rule)
        kinds = {IMAGE: "image", VOLUME: "volume", VOLUMES: "volume_stack"}
        assert ds.data.attrs["mrc_layout"] == kinds.get(dims, "image_stack")
        np.testing.assert_array_equal(ds.data.values.ravel(), np.arange(ds.data.size))


@pytest.mark.parametrize("case", BY_HAND)
def test_rule_by_hand(tmp_path: Path, case: str) -> None:
    name, raw, dims, rule = BY_HAND[case]
    (tmp_path / name).write_bytes(raw)
    check(tmp_path / name, dims, rule)


def write_mrcfile(kind: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with mrcfile.new(path) as mrc:
            mrc.set_data(pixels(*{"image": (3, 4), "volumes": (2, 3, 3, 4)}.get(kind, (6, 3, 4))))
            if kind == "stack":
                mrc.set_image_stack()

    return write


def write_mrcz(*arrays: Any) -> Callable[[Path], None]:
    return lambda path: mrcz.writeMRC(arrays[0] if len(arrays) == 1 else list(arrays), str(path))


BY_PROGRAM: dict[str, tuple[Callable[[Path], None], tuple[str, ...], str]] = {
    "mrcfile, image": (write_mrcfile("image"), IMAGE, "2"),
    "mrcfile, stack": (write_mrcfile("stack"), STACK, "6"),
    "mrcfile, volume": (write_mrcfile("volume"), VOLUME, "5"),
    "mrcfile, volumes": (write_mrcfile("volumes"), VOLUMES, "1"),
    "mrcz, array": (write_mrcz(pixels(6, 3, 4)), STACK, "4"),
    "mrcz, one image": (write_mrcz(pixels(3, 4)), IMAGE, "2"),
    "mrcz, images": (write_mrcz(*pixels(6, 3, 4)), STACK, "4"),
    "mrcz, frames": (write_mrcz(*pixels(2, 3, 3, 4)), CHANNELS, "4"),
}


@pytest.mark.parametrize("case", BY_PROGRAM)
def test_rule_by_program(tmp_path: Path, case: str) -> None:
    write, dims, rule = BY_PROGRAM[case]
    write(tmp_path / "file.mrc")
    check(tmp_path / "file.mrc", dims, rule)


def test_mdoc_next_to_the_file_makes_a_stack(tmp_path: Path) -> None:
    path = tmp_path / "series.mrc"
    path.write_bytes(imod())
    (tmp_path / "series.mrc.mdoc").write_text(
        "".join(f"[ZValue = {n}]\nTiltAngle = {n}\n" for n in range(6))
    )
    with xr.open_dataset(path, engine="mrc") as ds:
        assert ds.data.dims == STACK
        assert ".mdoc" in ds.data.attrs["mrc_layout_rule"]
    with xr.open_dataset(path, engine="mrc", metadata_file=None) as ds:
        assert ds.data.dims == VOLUME


def opened(tmp_path: Path, raw: bytes, **options: Any) -> xr.Dataset:
    path = tmp_path / "file.mrc"
    path.write_bytes(raw)
    return xr.open_dataset(path, engine="mrc", **options)


@pytest.mark.parametrize(
    ("options", "dims", "shape"),
    [
        ({"layout": "image_stack"}, STACK, (6, 3, 4)),
        ({"layout": "volume"}, VOLUME, (6, 3, 4)),
        ({"layout": "volume_stack", "sections_per_frame": 2}, VOLUMES, (3, 2, 3, 4)),
        ({"layout": "image_stack", "sections_per_frame": 2}, CHANNELS, (3, 2, 3, 4)),
        ({"layout": "image_stack", "sections_per_frame": 1}, STACK, (6, 3, 4)),
        ({"sections_per_frame": 3}, CHANNELS, (2, 3, 3, 4)),
        ({"scan_shape": (2, 3)}, ("scan_y", "scan_x", "y", "x"), (2, 3, 3, 4)),
        ({"scan_shape": np.array([1, 6])}, ("scan_y", "scan_x", "y", "x"), (1, 6, 3, 4)),
        ({"scan_shape": 6}, ("scan_x", "y", "x"), (6, 3, 4)),
        ({"scan_shape": np.array(6)}, ("scan_x", "y", "x"), (6, 3, 4)),
        ({"scan_shape": (6,), "dims": ("line", "v", "u")}, ("line", "v", "u"), (6, 3, 4)),
        ({"scan_shape": [2, 3, 1]}, ("repeat", "scan_y", "scan_x", "y", "x"), (2, 3, 1, 3, 4)),
        (
            {"scan_shape": (1, 2, 1, 3)},
            ("repeat_1", "repeat_2", "scan_y", "scan_x", "y", "x"),
            (1, 2, 1, 3, 3, 4),
        ),
    ],
)
def test_arguments(
    tmp_path: Path, options: dict[str, Any], dims: tuple[str, ...], shape: tuple[int, ...]
) -> None:
    data = opened(tmp_path, hand(), **options).data
    assert (data.dims, data.shape) == (dims, shape)
    rule = data.attrs["mrc_layout_rule"]
    assert rule.startswith("the argument") or options == {"sections_per_frame": 1}
    np.testing.assert_array_equal(data, pixels(*shape))


def test_layout_by_argument_takes_the_sizes_of_the_header(tmp_path: Path) -> None:
    ds = opened(tmp_path, hand(ispg=1, mz=2), layout="volume_stack")
    assert ds.data.sizes == {"volume": 3, "z": 2, "y": 3, "x": 4}
    assert opened(tmp_path, hand(1), layout="image").data.dims == IMAGE
    with pytest.raises(MrcError, match=r"MZ.* is 4, which does not divide"):
        opened(tmp_path, hand(mz=4), layout="volume_stack")


def test_sections_per_frame_1_undoes_mrczs_grouping(tmp_path: Path) -> None:
    write_mrcz(*pixels(2, 3, 3, 4))(tmp_path / "file.mrc")
    with xr.open_dataset(tmp_path / "file.mrc", engine="mrc", sections_per_frame=1) as ds:
        assert ds.data.sizes == {"image": 6, "y": 3, "x": 4}


def test_mrcz_before_0_5_wrote_the_shape_to_mz(tmp_path: Path) -> None:
    for version, dims in ((b"MRCZ0.4.1", STACK), (b"MRCZ0.5.0", CHANNELS)):
        raw = hand(ispg=0, nversion=0, mx=0, my=0, mz=3, labels=(version,))
        assert opened(tmp_path, raw).data.dims == dims


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layout": "image"}, MrcError, r"file\.mrc: layout='image' needs one section.* 6"),
        ({"layout": "scan"}, ValueError, "layout is 'scan'; accepted: 'auto', 'image'"),
        ({"scan_shape": (2, 2)}, MrcError, r"file\.mrc: scan_shape \(2, 2\) has 4.* 6 frames"),
        ({"scan_shape": (-2, -3)}, ValueError, r"scan_shape is \(-2, -3\)"),
        ({"scan_shape": 6.0}, ValueError, r"scan_shape is 6\.0; accepted: 1 to 29 positive"),
        ({"scan_shape": (2, True)}, ValueError, r"scan_shape is \(2, True\); accepted"),
        ({"scan_shape": ()}, ValueError, r"scan_shape is \(\); accepted: 1 to 29 positive"),
        ({"scan_shape": (1,) * 30}, ValueError, "accepted: 1 to 29 positive integers"),
        ({"scan_flyback": -1}, ValueError, "scan_flyback is -1; accepted: an integer, 0 or more"),
        ({"scan_flyback": 0.5}, ValueError, r"scan_flyback is 0\.5; accepted: an integer"),
        ({"scan_offset": "1"}, ValueError, "scan_offset is '1'; accepted: an integer, as"),
        ({"scan_offset": 2**70}, ValueError, "scan_offset is 1180591620717411303424; accepted"),
        ({"scan_offset": 1, "layout": "volume"}, ValueError, "scan_offset= can be combined with"),
        ({"scan_flyback": 1}, MrcError, r"scan_flyback=1 need the size.*pass scan_shape=\(scan_y"),
        ({"scan_shape": (2, 3), "layout": "volume"}, ValueError, "scan_shape= can be combined"),
        ({"scan_shape": (2, 3), "sections_per_frame": 2}, ValueError, "combined with neither"),
        ({"layout": "volume", "sections_per_frame": 2}, ValueError, "needs layout='image_stack'"),
        ({"sections_per_frame": 4}, MrcError, "sections_per_frame is 4.*does not divide.* 6"),
        ({"sections_per_frame": 1.5}, ValueError, r"sections_per_frame is 1\.5; accepted: 1, 2"),
        ({"sections_per_frame": 0}, ValueError, "sections_per_frame is 0; accepted: 1, 2"),
        (
            {"layout": "volume_stack", "sections_per_frame": 4},
            MrcError,
            "is 4, which does not divide the file's 6 sections",
        ),
    ],
)
def test_arguments_that_do_not_fit(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        opened(tmp_path, hand(), **options)


@pytest.mark.parametrize(
    ("name", "dims"),
    [
        ("/a/b.rec.gz", VOLUME),
        ("/a.rec/b.mrc", STACK),
        ("s3://bucket/a.map.bz2", VOLUME),
        ("https://host/a.map?version=1#part", VOLUME),
        ("simplecache::s3://bucket/a.ccp4", VOLUME),
        ("zip://a.rec::https://host/b.zip", VOLUME),
        ("https://host/get?name=a.rec", STACK),
    ],
)
def test_suffix_of_a_path_or_url(name: str, dims: tuple[str, ...]) -> None:
    raw = hand(ispg=0, mz=1)
    file = reading.inspect(by_hand.Claimed(raw, len(raw), name))
    assert tuple(role for role, _ in file.layout.leading) == dims[:-2]
