"""Where programs find a copy, or a part, of a file: N*START, M, CELLA, ORIGIN, ISPG and layout."""

from __future__ import annotations

import itertools
import random
import warnings
from pathlib import Path
from typing import Any

import by_hand
import pytest
import xarray as xr
from writes import field, fields, labelled, noise, opened, source, unwarned, warned

from mrc_xarray import MrcWarning, to_mrc
from mrc_xarray.mrc.header import Header

PLACING = (
    "ispg", "mx", "my", "mz", "cella", "cellb", "nxstart", "nystart", "nzstart", "origin",
    "mapc", "mapr", "maps", "imod_stamp", "imod_flags",
)  # fmt: skip
N_START = ("nxstart", "nystart", "nzstart")
PIXELS = noise((14, 6, 8))
# a box in a cell of 20 Å
BOX: dict[str, Any] = {"mx": 20, "my": 20, "mz": 20, "cella": (20, 20, 20)}
START: dict[str, Any] = {"nxstart": 3, "nystart": 2, "nzstart": 4}
IMOD: dict[str, Any] = {"imod_stamp": by_hand.IMOD_STAMP, "imod_flags": 2}
PARTS = {"z": slice(2, 9), "y": slice(1, 4), "x": slice(3, 8)}


@pytest.fixture
def box(tmp_path: Path) -> xr.DataArray:
    return source(tmp_path, PIXELS, **BOX, **START).data


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("a.map", BOX | START | {"ispg": 19, "cellb": (90, 100, 90)}),
        # both conventions, which disagree
        ("a.mrc", BOX | START | {"origin": (5, 6, 7)}),
        # only the suffix makes it a volume
        ("a.rec", BOX | {"ispg": 0}),
        ("a.mrc", IMOD | {"origin": (-10.25, 3.5, 100)}),
        # a cell that is not a decimal number of ångströms
        ("a.mrc", {"cella": (8.4296, 6.3222, 14.7518), "nxstart": -4}),
        ("a.mrc", {"mapc": 3, "mapr": 1, "maps": 2, **BOX, **START}),
        # no voxel size
        ("a.mrc", BOX | START | {"cella": (0, 0, 0), "origin": (1, 2, 3)}),
        # the spacing of the sections of a stack
        ("a.mrcs", {"ispg": 0, "mz": 14, "cella": (8, 12, 42), "nzstart": 5}),
        ("a.mrc", {"ispg": 0, "mz": 1, "cella": (8, 12, 3), "origin": (1, 2, 3)}),
        ("a.mrc", {"ispg": 402, "mz": 7, "cella": (8, 12, 3), "nxstart": 2}),
    ],
)
def test_copy_is_where_its_source_is(tmp_path: Path, name: str, header: Any) -> None:
    byteorder, order = ("little", "<") if "imod_stamp" in header else ("big", ">")
    data = source(tmp_path, PIXELS, f"s{name}", byteorder=order, **header)
    to_mrc(data, tmp_path / name, byteorder=byteorder)
    old, new = (fields(tmp_path / n, *PLACING, byteorder=order) for n in (f"s{name}", name))
    assert new == old
    assert opened(tmp_path / name).equals(data)


@pytest.mark.parametrize(
    ("header", "start", "origin", "m"),
    [
        (START, (6, 3, 6), (0, 0, 0), (8, 6, 14)),
        (BOX | START, (6, 3, 6), (0, 0, 0), (20, 20, 20)),
        (BOX | START | {"origin": (5, 6, 7)}, (6, 3, 6), (8, 7, 9), (20, 20, 20)),
        # where only ORIGIN is used, and where it would be
        ({"origin": (5, 6, 7)}, (3, 1, 2), (8, 7, 9), (5, 3, 7)),
        ({}, (3, 1, 2), (3, 1, 2), (5, 3, 7)),
        (IMOD | {"origin": (-5, -6, -7)}, (3, 1, 2), (-8, -7, -9), (5, 3, 7)),
        # N*START of 0 is no sign of a convention
        ({"nxstart": -3, "nystart": -1, "nzstart": -2}, (0, 0, 0), (0, 0, 0), (8, 6, 14)),
    ],
)
def test_part_is_where_it_was(
    path: Path, tmp_path: Path, header: Any, start: Any, origin: Any, m: Any
) -> None:
    part = source(tmp_path, PIXELS, **header).data.isel(PARTS)
    to_mrc(part, path)
    assert fields(path, *N_START, "origin") == (*start, origin)
    assert fields(path, "mx", "my", "mz", "cella") == (*m, m)
    assert opened(path).data.equals(part)


@pytest.mark.parametrize("origin", [(0, 0, 0), (123.4, -7.25, 1000)])
@pytest.mark.parametrize("voxel", [13.48, 3.3702, 0.85377549])
def test_part_has_exactly_the_positions_of_its_source(
    path: Path, tmp_path: Path, voxel: float, origin: Any
) -> None:
    """Also if CELLA of the part alone would be that of a voxel size with fewer digits."""
    pixels = noise((12, 3, 4092), "f2")
    source(tmp_path, pixels, cella=(4092 * voxel, 3 * voxel, 12 * voxel), origin=origin)
    data = opened(tmp_path / "source.mrc", units="nm").data
    part = data.isel(z=slice(5, 9), x=slice(4025, 4082))
    to_mrc(part, path)
    again = opened(path, units="nm").data
    assert (data - again).shape == part.shape
    assert again.mrc.voxel_size == part.mrc.voxel_size


def test_starts_are_in_the_order_of_the_files_axes(path: Path, box: xr.DataArray) -> None:
    part = box.isel(PARTS).transpose("x", "z", "y")
    to_mrc(part, path)
    # of columns (Y), rows (Z) and sections (X)
    assert fields(path, "mapc", "mapr", "maps", *N_START) == (2, 3, 1, 3, 6, 6)
    assert opened(path).data.equals(part)


def test_section_of_a_box_is_still_in_it(path: Path, box: xr.DataArray) -> None:
    to_mrc(box[5], path)
    assert fields(path, *N_START, "mz", "cella", "ispg") == (3, 2, 9, 20, (20, 20, 20), 0)
    assert opened(path).data.dims == ("y", "x")


def test_every_second_voxel(path: Path, box: xr.DataArray) -> None:
    """N*START remain if they are still whole numbers; else ORIGIN has the position."""
    # from 4 Å, with voxels of 2 Å
    to_mrc(box[:, ::2, 1::2], path)
    assert fields(path, *N_START, "origin") == (2, 1, 4, (0, 0, 0))
    part = box[:, ::2, ::2]
    assert "NXSTART, NYSTART, NZSTART" in warned(part, path, overwrite=True)
    assert fields(path, *N_START, "origin", "cella") == (0, 0, 0, (3, 2, 4), (8, 6, 14))
    assert opened(path).data.equals(part)


def test_crystal_remains_in_a_part_of_its_cell(path: Path, tmp_path: Path) -> None:
    more: dict[str, Any] = {"exttyp": b"CCP4", "extended": b"X,  Y,  Z".ljust(80)}
    ds = source(tmp_path, PIXELS, ispg=18, **BOX, **START, **more)
    to_mrc(ds.isel(PARTS), path)
    assert fields(path, "ispg", "nsymbt") == (18, 80)
    # a larger voxel is another grid
    message = warned(ds.coarsen(x=2, y=2, z=2).mean(), path, overwrite=True)
    assert "ISPG 18 and its symmetry operators" in message
    assert fields(path, "ispg", "nsymbt") == (1, 0)


@pytest.mark.parametrize(
    ("shift", "scale", "cella", "start", "origin"),
    [
        # by a fraction of a voxel, and by voxels
        (0.25, 1, (8, 6, 14), (0, 0, 0), (3.25, 2, 4)),
        (2, 1, (20, 20, 20), (5, 2, 4), (0, 0, 0)),
        # calibrated
        (0, 1.5, (12, 9, 21), (3, 2, 4), (0, 0, 0)),
    ],
)
@unwarned
def test_changed_coordinates_are_what_is_written(
    path: Path, box: xr.DataArray, shift: float, scale: float, cella: Any, start: Any, origin: Any
) -> None:
    moved = {a: scale * box[a].values + shift * (a == "x") for a in "xyz"}
    changed = box.assign_coords({a: (a, at, {"units": "Å"}) for a, at in moved.items()})
    to_mrc(changed, path)
    assert fields(path, *N_START, "cella", "origin") == (*start, cella, origin)
    assert opened(path).data.equals(changed)


def test_origin_argument_of_the_engine(path: Path, tmp_path: Path) -> None:
    """A file that was placed by N*START remains there, although ORIGIN says otherwise."""
    source(tmp_path, PIXELS, **START, origin=(5, 6, 7))
    name = tmp_path / "source.mrc"
    message = warned(opened(name, origin="nstart"), path)
    assert "ORIGIN (5 × 6 × 7, now 3 × 2 × 4)" in message
    assert fields(path, *N_START) == (3, 2, 4)
    assert "NXSTART" in warned(opened(name, origin="zero"), path, overwrite=True)
    assert {c.values[0] for c in opened(path).coords.values()} == {0}


def test_mrcz_has_no_larger_cell(tmp_path: Path, box: xr.DataArray) -> None:
    path = tmp_path / "a.mrcz"
    assert "MX, MY, MZ (20, 20, 20) and CELLA" in warned(box, path)
    assert fields(path, *N_START, "mx", "my", "mz") == (3, 2, 4, 8, 6, 0)
    assert opened(path).data.equals(box)


def test_voxel_size_that_is_dropped_is_reported(path: Path, tmp_path: Path) -> None:
    data = source(tmp_path, PIXELS, cella=(8, 6, 28)).data
    assert r"the voxel size along z (2 Å in the source)" in warned(data.drop_vars("z"), path)
    assert field(path, "cella") == (8, 6, 0)


@unwarned
def test_header_that_a_stranger_wrote(path: Path) -> None:
    """`attrs` may come from a netCDF file of anybody; the labels are what counts."""
    most = 2**31 - 1
    headers: list[dict[str, Any]] = [
        {"nxstart": most}, {"mx": -most}, {"my": most}, {"mz": 0}, {"ispg": -7}, {"nz": most},
        {"ispg": 500, "mz": 2**30}, {"cella": (float("nan"), -1, 1e38)}, {"mode": most},
        {"mode": -most}, {"nx": 1}, {"mapc": 7}, {"origin": (float("inf"), 0, 1e38)},
    ]  # fmt: skip
    blank = Header.parse(by_hand.header((14, 6, 8), 2), "<")
    for header in headers:
        data = labelled(PIXELS, voxel=2.5, first=10.0)
        json = blank.replaced(**header).to_json()
        to_mrc(data.assign_attrs(mrc_header=json, mrc_layout="volume"), path, overwrite=True)
        assert opened(path).data.equals(data)


# layouts ----------------------------------------------------------------------------------------


SUFFIXES = (".mrc", ".mrcs", ".map", ".mrcz", ".mrc.gz")
# of sources that say nothing, or the opposite of what they are
SAID: list[dict[str, Any]] = [
    {"ispg": 0, "mz": 1, "cella": (20, 15, 0)},
    {"ispg": 1, "mz": 14, "cella": (20, 15, 35), "origin": (10, 20, 30)},
    {"ispg": 401, "mz": 3, "cella": (20, 15, 7.5), **START},
    {"ispg": 19, **BOX, **START},
]


@pytest.mark.parametrize(
    ("layout", "dims"),
    [
        ("image", ("y", "x")), ("image_stack", ("image", "y", "x")), ("volume", ("z", "y", "x")),
        ("volume_stack", ("volume", "z", "y", "x")),
    ],
)  # fmt: skip
def test_what_is_written_opens_in_the_same_layout(tmp_path: Path, layout: str, dims: Any) -> None:
    """Or a warning says how it opens."""
    possible = [*itertools.product((1, 2, 6), [None, *SAID], SUFFIXES)]
    some = random.Random(layout).sample(possible, 5)
    for n, header, suffix in [(1, None, ".mrcs"), *some]:
        pixels = noise(tuple({"volume": 2, "y": 6, "x": 8}.get(dim, n) for dim in dims))
        data = labelled(pixels, dims)
        if header is not None:
            source(tmp_path, pixels, "s.mrc", **header)
            per_frame = n if layout == "volume_stack" else None
            data = opened(tmp_path / "s.mrc", layout=layout, sections_per_frame=per_frame).data
        path = tmp_path / f"a{suffix}"
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", MrcWarning)
            to_mrc(data, path, overwrite=True)
        assert len(caught) <= 1
        if caught and "which open as" in str(caught[0].message):
            # a name or a single section, for which no field helps
            assert suffix in (".mrcs", ".map") or n == 1
            assert (suffix, layout) != (".mrcs", "image_stack")
        else:
            again, before = (
                d.drop_attrs().reset_coords(drop=True) for d in (opened(path).data, data)
            )
            xr.testing.assert_allclose(again, before)


def test_layout_needs_other_fields_than_the_source_has(tmp_path: Path) -> None:
    """A stack by its name, in a file whose name says nothing."""
    data = source(tmp_path, PIXELS, "s.mrcs", ispg=1, cella=(8, 6, 42))
    message = warned(data, tmp_path / "a.mrc")
    assert "MZ (14, now 1); CELLA (8 × 6 × 42, now 8 × 6 × 3)" in message
    assert "ISPG" not in message
    assert opened(tmp_path / "a.mrc").data.dims == ("image", "y", "x")
