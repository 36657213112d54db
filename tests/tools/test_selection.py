"""``--select``: parts by index and by position."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import by_hand
import numpy as np
import pytest
import xarray as xr

from mrc_xarray import MrcError
from mrc_xarray.cli import main
from mrc_xarray.tools.selection import parse_selection, selected

# positions 0, 10, ..., 90 Å
Z = np.arange(10) * 10.0


def dataset(**coords: tuple[str, Any, str]) -> xr.Dataset:
    """Return a dataset with numbers along z or image, and coordinates with a unit."""
    found = {name: (dim, values, {"units": unit}) for name, (dim, values, unit) in coords.items()}
    dim, size = next((dim, len(values)) for dim, values, _ in coords.values())
    return xr.Dataset({"data": (dim, np.arange(size))}, found)


VOLUME = dataset(z=("z", Z, "angstrom"))
IN_NM = dataset(z=("z", Z / 10, "nm"))
PATTERN = dataset(kx=("kx", np.linspace(-1, 1, 21), "1/nm"))
ANGLES = dataset(scan_x=("scan_x", np.linspace(-10, 10, 21), "mrad"))
# dose-symmetric, and in falling order
TILTS = dataset(tilt_angle=("image", [0, 3, -3, -6, 6, 9, -9], "degree"))
FALLING = dataset(tilt_angle=("image", [9, 6, 3, 0, -3, -6, -9], "degree"))
TIMES = dataset(time=("time", [0.0, 0.5, 1.0], "s"))
DOSES = dataset(dose=("image", [1.0, 2.0, 4.0], "e/angstrom^2"))


@pytest.mark.parametrize(
    ("ds", "text", "expected"),
    [
        # both ends are included
        (VOLUME, "z=20:50A", [2, 3, 4, 5]),
        (VOLUME, "z=20A:50A", [2, 3, 4, 5]),
        (VOLUME, "z=2:5nm", [2, 3, 4, 5]),
        (VOLUME, "z=2nm:50Å", [2, 3, 4, 5]),
        (VOLUME, "z=0.002:0.005 µm", [2, 3, 4, 5]),
        (VOLUME, "z=2e3:5e3pm", [2, 3, 4, 5]),
        (VOLUME, "z=15:49.9 angstrom", [2, 3, 4]),
        (VOLUME, "z=70A:", [7, 8, 9]),
        (VOLUME, "z=:20A", [0, 1, 2]),
        (VOLUME, "z=-500:15A", [0, 1]),
        (VOLUME, "z=20:80A:3", [2, 5, 8]),
        # the nearest one
        (VOLUME, "z=43A", [4]),
        (VOLUME, "z=4.6nm", [5]),
        (VOLUME, "z=94A", [9]),
        (VOLUME, "z=-4A", [0]),
        (IN_NM, "z=20:50A", [2, 3, 4, 5]),
        (PATTERN, "kx=-0.2:0.1 1/nm", [8, 9, 10, 11]),
        (PATTERN, "kx=-0.2:0.1 /nm", [8, 9, 10, 11]),
        (PATTERN, "kx=-0.2:0.1nm^-1", [8, 9, 10, 11]),
        (PATTERN, "kx=-0.2:0.1nm⁻¹", [8, 9, 10, 11]),
        (PATTERN, "kx=-0.02:0.02/Å", [8, 9, 10, 11, 12]),
        (ANGLES, "scan_x=-2:1mrad", [8, 9, 10, 11]),
        (ANGLES, "scan_x=0.1:0.2deg", [12, 13]),
        (TILTS, "tilt_angle=-3:6deg", [0, 1, 2, 4]),
        (TILTS, "tilt_angle=-3:6°:2", [0, 2]),
        (FALLING, "tilt_angle=-3:6degrees", [1, 2, 3, 4]),
        (TILTS, "tilt_angle=5.5deg", [4]),
        (TIMES, "time=400ms:", [1, 2]),
        (DOSES, "dose=2:4e/angstrom^2", [1, 2]),
        # indices
        (VOLUME, "z=2:5", [2, 3, 4]),
        (VOLUME, "z=-1", [9]),
        (VOLUME, "z=1.0", [1]),
        (VOLUME, "z=:-8", [0, 1]),
        (VOLUME, "z=8:100", [8, 9]),
        (VOLUME, "z=:", [*range(10)]),
        (TILTS, "image=1:3", [1, 2]),
    ],
)
def test_parts(ds: xr.Dataset, text: str, expected: list[int]) -> None:
    select = dict([parse_selection(text)])
    assert selected(ds, select, "a.mrc").data.values.tolist() == expected


def test_several_parts_of_one_dimension() -> None:
    select = dict(map(parse_selection, ("tilt_angle=-6:6deg", "image=1:3")))
    assert selected(TILTS, select, "").tilt_angle.values.tolist() == [3, -3]


@pytest.mark.parametrize(
    ("ds", "text", "message"),
    [
        (VOLUME, "z=50:20A", r"a\.mrc: z: START \(50 A\) is greater than STOP \(20 A\)"),
        (VOLUME, "z=91:99A", r"no position from 91 A to 99 A; z is from 0 to 90 angstrom"),
        (VOLUME, "z=96A", "no position near 96 A; z is from 0 to 90 angstrom"),
        (VOLUME, "z=1:2mrad", "coordinate 'z' is angstrom, and the position is 1 mrad"),
        (VOLUME, "z=1:2parsec", "1 parsec; accepted: a unit that angstrom can be converted to"),
        (VOLUME, "z=20:50", "z has no indices 20:50; accepted: 0 to 9, or positions with a unit"),
        (VOLUME, "q=1:2A", "no coordinate 'q'; accepted: z"),
        (VOLUME, "z=::0", "slice step cannot be zero"),
        (TILTS, "image=1:2A", "the dimension 'image' has no coordinate: it can be"),
        (TILTS, "tilt_angle=1:2", "no dimension 'tilt_angle'; accepted: image"),
    ],
)
def test_what_does_not_fit(ds: xr.Dataset, text: str, message: str) -> None:
    with pytest.raises(MrcError, match=message):
        selected(ds, dict([parse_selection(text)]), "a.mrc")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("z=1A:2", "STOP has no unit"),
        (
            "z=0.51/nm",
            "two meanings; put a space .* as in 0.5 1/nm or 0.51 /nm",
        ),
        ("z=5:2A:-1", "STEP is not positive"),
        ("z=::15A", "STEP is 15 A; accepted: a number of voxels, without a unit"),
        ("z=0:5A:1.5", "1.5 is not an index"),
        ("z=1.5:3", "1.5 is not an index"),
        ("z=1e999", "inf is not an index"),
        ("z=A", "'A' is not a number"),
        *((text, "accepted: DIM=INDEX") for text in ("z=", "=0:2", "z=0:1:2:3")),
    ],
)
def test_what_can_not_be_parsed(text: str, message: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        parse_selection(text)


def test_command_reads_what_is_selected(tmp_path: Path, ranges_read: list[Any]) -> None:
    """A slab of a real geometry: 2.5 Å, the first voxel at 30, 5 and −20 Å."""
    pixels = np.random.default_rng(0).normal(size=(16, 24, 40)).astype("f4")
    source, target = tmp_path / "a.mrc", tmp_path / "b.mrc"
    source.write_bytes(by_hand.mrc(pixels, cella=(100, 60, 40), origin=(-20, 5, 30)))
    select = ["z=35:42.5A", "y=4", "x=-2:0nm"]
    assert main(["convert", "--quiet", str(source), str(target), "--select", *select]) == 0
    # the header, and rows of four sections
    assert sum(n for offset, n in ranges_read if offset >= 1024) <= 4 * 40 * 4
    with xr.open_dataset(target, engine="mrc") as ds:
        np.testing.assert_array_equal(ds.data, pixels[2:6, 4:5, 0:9])
        assert ds.z.values.tolist() == [35.0, 37.5, 40.0, 42.5]
        assert ds.x.values[[0, -1]].tolist() == [-20, 0]
