"""Boxes around points: their voxels, coordinates and borders, and what is read for them."""

from __future__ import annotations

import pickle
import time
from pathlib import Path
from typing import Any

import by_hand
import dask.array
import mrcfile
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from distributed import Client

from mrc_xarray import MrcWarning
from mrc_xarray.tools.extract import extract

Array = np.ndarray[Any, Any]

SHAPE = (20, 24, 28)
DATA = np.random.default_rng(0).normal(size=SHAPE).astype("f4")
# voxels of 2 × 2.5 × 4 Å, the first one at x = 100, y = -20
FIELDS: dict[str, Any] = {"cella": (56, 60, 80), "origin": (100, -20, 0)}
FIRST, STEP = np.array([0, -20, 100]), np.array([4, 2.5, 2])
# in the middle, at corners and edges, partly and completely outside
INDICES = np.array([[10, 12, 14], [0, 0, 0], [19, 23, 27], [3, 12, 26], [-2, 5, 30], [0, 99, 0]])
POINTS = FIRST + STEP * INDICES
SOURCES = ("lazy", "opened in chunks", "computed chunks", "in memory")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "tomogram.mrc"
    path.write_bytes(by_hand.mrc(DATA, **FIELDS))
    return path


def opened(path: Path, source: str = "lazy") -> xr.DataArray:
    if source == "opened in chunks":
        return xr.open_dataarray(path, engine="mrc", chunks={})
    da = xr.open_dataarray(path, engine="mrc")
    if source == "computed chunks":
        return da.chunk(z=7, y=5, x=11) * 1
    return da.load() if source == "in memory" else da


def boxes_of(data: Array, indices: Array, size: tuple[int, ...], fill: Any = np.nan) -> Array:
    """Slice a padded copy of the data."""
    width = 100 + max(size)
    padded = np.pad(data, width, constant_values=fill)
    starts = np.asarray(indices) + width - np.array(size) // 2
    return np.stack([padded[tuple(map(slice, at, at + size))] for at in starts])


@pytest.mark.parametrize(
    ("source", "size"),
    [
        *zip(SOURCES, (6, 5, (4, 1, 60), {"x": 3, "z": 2, "y": 7}), strict=True),
    ],
)
def test_boxes_are_those_of_numpy(path: Path, source: str, size: Any) -> None:
    boxes = extract(opened(path, source), POINTS, size)
    shape = {"z": 2, "y": 7, "x": 3}.values() if isinstance(size, dict) else size
    shape = tuple(np.broadcast_to([*shape] if not isinstance(shape, int) else shape, 3).tolist())
    assert boxes.dims == ("particle", "z", "y", "x")
    assert boxes.chunksizes["particle"] == (1,) * len(POINTS)
    expected = boxes_of(DATA, INDICES, shape)
    np.testing.assert_array_equal(boxes.values, expected)
    np.testing.assert_array_equal(boxes[1:, 0, ::-2].values, expected[1:, 0, ::-2])
    np.testing.assert_array_equal(boxes[-1, ..., [2, 0]].values, expected[-1][..., [2, 0]])


def test_the_centre_is_the_nearest_voxel(path: Path) -> None:
    z = np.array([3.9, 4, 5.9, 6, 6.1, 8])
    boxes = extract(opened(path), np.stack([z, 0 * z, 100 + 0 * z], 1), 2)
    np.testing.assert_array_equal(boxes["center_z"], [4, 4, 4, 8, 8, 8])
    # the voxel of an even box is size // 2, as in RELION and IMOD
    np.testing.assert_array_equal(boxes[:, 1, 1, 1], DATA[[1, 1, 1, 2, 2, 2], 8, 0])
    assert boxes.sel(z=0, y=0, x=0).equals(boxes[:, 1, 1, 1])


def test_coordinates(path: Path) -> None:
    boxes = opened(path).mrc.extract(POINTS + 0.1, 6)
    assert boxes["z"].values.tolist() == [-12, -8, -4, 0, 4, 8]
    assert boxes["x"].attrs == {"units": "angstrom", "long_name": "x position", "spacing": 2}
    assert boxes.mrc.voxel_size == {"z": 4, "y": 2.5, "x": 2}
    for i, dim in enumerate("zyx"):
        np.testing.assert_array_equal(boxes[f"point_{dim}"], POINTS[:, i] + 0.1)
        np.testing.assert_array_equal(boxes[f"center_{dim}"], POINTS[:, i])
        assert boxes[f"point_{dim}"].attrs["units"] == boxes[f"center_{dim}"].attrs["units"]
    np.testing.assert_array_equal(boxes["particle"], range(6))
    assert boxes.mrc.header.nx == 28


def test_positions_are_exact(tmp_path: Path) -> None:
    path = tmp_path / "volume.mrc"
    path.write_bytes(by_hand.mrc(DATA, cella=(28 * 13.3, 24 * 13.3, 20 * 13.3)))
    da = opened(path)
    boxes = extract(da, da["z"].values[:, None] * [1, 1, 1], 7)
    np.testing.assert_array_equal(boxes["center_z"], da["z"])
    assert boxes["x"].values.tolist() == [-39.9, -26.6, -13.3, 0, 13.3, 26.6, 39.9]


def test_units_of_the_coordinates_and_of_columns(path: Path) -> None:
    da = xr.open_dataarray(path, engine="mrc", units="nm")
    expected = extract(opened(path), POINTS, 4)
    np.testing.assert_array_equal(extract(da, POINTS / 10, 4), expected)
    columns = {dim: ("n", POINTS[:, i], {"units": "Å"}) for i, dim in enumerate("zyx")}
    np.testing.assert_array_equal(extract(da, xr.Dataset(columns), 4), expected)
    with pytest.raises(ValueError, match="points have z in s; accepted: nm"):
        extract(da, xr.Dataset(columns | {"z": ("n", POINTS[:, 0], {"units": "s"})}), 4)


def test_tables(path: Path) -> None:
    da = opened(path)
    expected = extract(da, POINTS, 4)
    columns: dict[str, Any] = {"x": POINTS[:, 2], "y": POINTS[:, 1], "z": POINTS[:, 0]}
    more = columns | {"score": np.arange(6.0), "name": list("abcdef")}
    for table in (columns, pd.DataFrame(columns), pd.DataFrame(columns).to_records(index=False)):
        xr.testing.assert_identical(extract(da, table, 4), expected)
    for table in (more, pd.DataFrame(more), xr.Dataset({k: ("row", v) for k, v in more.items()})):
        boxes = extract(da, table, 4)
        np.testing.assert_array_equal(boxes, expected)
        assert boxes["score"].dims == boxes["name"].dims == ("particle",)
        assert boxes["name"].dtype.kind == "U"
        assert boxes.groupby("name").mean().sizes["name"] == 6
    # numbers of particles of your own
    boxes = extract(da, columns | {"particle": [9, 8, 7, 6, 5, 4]}, 4)
    np.testing.assert_array_equal(boxes.sel(particle=8), expected[1])


def test_voxel_indices_without_coordinates() -> None:
    da = xr.DataArray(DATA, dims=("z", "y", "x"))
    boxes = extract(da, INDICES, 4)
    np.testing.assert_array_equal(boxes, boxes_of(DATA, INDICES, (4, 4, 4)))
    assert "z" not in boxes.coords
    np.testing.assert_array_equal(boxes["center_x"], INDICES[:, 2])


def test_positions_that_decrease(path: Path) -> None:
    da = opened(path).isel(z=slice(None, None, -1))
    boxes = extract(da, POINTS[:1], 5)
    np.testing.assert_array_equal(boxes[0], boxes_of(DATA[::-1], [[9, 12, 14]], (5, 5, 5))[0])
    assert boxes["z"].values.tolist() == [8, 4, 0, -4, -8]


STACK = np.random.default_rng(1).integers(-99, 99, (5, 12, 16), "i2")


def stack() -> xr.DataArray:
    coords = {"tilt_angle": ("image", [-2, -1, 0, 1, 2.0], {"units": "degree"})}
    return xr.DataArray(STACK, coords, ("image", "y", "x"))


def test_particles_of_micrographs() -> None:
    points = [[2, 5, 7], [4, 0, 15]]
    for given in (points, {"x": [7, 15], "image": [2, 4], "y": [5, 0]}):
        boxes = extract(stack(), given, 4)
        assert boxes.dims == ("particle", "y", "x")
        np.testing.assert_array_equal(boxes[0], STACK[2, 3:7, 5:9])
        # integers have no NaN
        np.testing.assert_array_equal(boxes[1], boxes_of(STACK[4], [[0, 15]], (4, 4), 0)[0])
        assert boxes["image"].values.tolist() == [2, 4]
        assert boxes["tilt_angle"].values.tolist() == [0, 2]
        assert boxes["tilt_angle"].attrs == {"units": "degree"}


def test_the_same_box_of_every_image() -> None:
    boxes = extract(stack(), [[5, 7]], (4, 6))
    assert boxes.dims == ("particle", "image", "y", "x")
    np.testing.assert_array_equal(boxes[0], STACK[:, 3:7, 4:10])
    assert boxes["tilt_angle"].dims == ("image",)
    # sections of a volume that go with them
    slabs = extract(stack(), {"image": [1]}, {"image": 3})
    np.testing.assert_array_equal(slabs[0], STACK[:3])


def test_patches_of_a_scan() -> None:
    scan = xr.DataArray(np.arange(5 * 6 * 3 * 4).reshape(5, 6, 3, 4), dims=(*"ab", "ky", "kx"))
    patches = extract(scan.rename(a="scan_y", b="scan_x"), [[2, 3]], {"scan_y": 3, "scan_x": 2})
    np.testing.assert_array_equal(patches[0], scan[1:4, 2:4])
    patterns = extract(scan, [[2, 3, 1, 1]], 2)
    np.testing.assert_array_equal(patterns[0], scan[2, 3, :2, :2])


def test_colours_and_named_volumes(tmp_path: Path) -> None:
    rgb = np.arange(6 * 7 * 3, dtype="u1").reshape(6, 7, 3)
    boxes = extract(xr.DataArray(rgb, dims=("y", "x", "rgb")), [[3, 3]], 2)
    np.testing.assert_array_equal(boxes[0], rgb[2:4, 2:4])
    names = {"tomogram": ["TS_1.mrc", "TS_2.mrc"]}
    da = xr.DataArray(np.stack([DATA, -DATA]), names, ("tomogram", "z", "y", "x"))
    table = {"tomogram": ["TS_2.mrc", "TS_1.mrc"]} | {dim: [9, 9] for dim in "xyz"}
    boxes = extract(da, table, 2)
    np.testing.assert_array_equal(boxes[0], -DATA[8:10, 8:10, 8:10])
    assert boxes["tomogram"].values.tolist() == table["tomogram"]
    with pytest.raises(ValueError, match=r"tomogram = 'TS_3'; accepted: 'TS_1.mrc', 'TS_2.mrc'"):
        extract(da, table | {"tomogram": ["TS_1.mrc", "TS_3"]}, 2)


@pytest.mark.parametrize(
    ("dtype", "fill", "expected"),
    [
        ("f2", None, np.nan), ("c8", None, np.nan), ("u2", None, 0), ("?", None, False),
        ("i1", -7, -7), ("f4", 0.1, np.float32(0.1)), ("u1", 255.0, 255),
    ],
)  # fmt: skip
def test_padding(dtype: str, fill: Any, expected: Any) -> None:
    da = xr.DataArray(np.ones((3, 4), dtype), dims=("y", "x"))
    boxes = extract(da, [[0, 0]], 3, fill=fill)
    assert boxes.dtype == dtype
    np.testing.assert_array_equal(boxes[0, 0], np.full(3, expected, dtype))
    np.testing.assert_array_equal(boxes[0, 1:, 1:], np.ones((2, 2), dtype))


def test_borders(path: Path) -> None:
    da = opened(path)
    message = r"the boxes of 5 of 6 points \(rows 1, 2, 3, 4, 5\) are not completely inside"
    with pytest.raises(ValueError, match=message):
        extract(da, POINTS, 6, "error")
    with pytest.warns(MrcWarning, match=message) as caught:
        boxes = da.mrc.extract(POINTS, 6, "drop")
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(boxes, boxes_of(DATA, INDICES[:1], (6, 6, 6)))
    table = {"score": range(6)} | dict(zip("zyx", POINTS.T, strict=True))
    with pytest.warns(MrcWarning, match="4 of 6"):
        dropped = extract(da, table, 4, "drop")
    assert dropped["particle"].values.tolist() == [0, 3]
    assert dropped["score"].values.tolist() == [0, 3]
    # a box that ends at the border is inside
    assert extract(da, FIRST + STEP * [[3, 3, 3]], 6, "error").size
    assert extract(da, FIRST + STEP * [[17, 21, 25]], 6, "error").size


@pytest.mark.parametrize(
    ("points", "size", "options", "message"),
    [
        (POINTS[0], 4, {}, r"shape \(3,\); accepted: \(n, 3\) for z, y, x, or a table"),
        (POINTS[:, :2], 4, {}, r"shape \(6, 2\); accepted"),
        ({"x": [1], "y": [1]}, 4, {}, "columns x, y; .* and z is missing"),
        ({"x": [1], "y": [1], "z": [1, 2]}, 4, {}, r"'x' of shape \(1,\); accepted: \(2,\)"),
        ([[0, np.nan, 0]], 4, {}, "y = nan in row 0; accepted: finite numbers"),
        ([["a", "b", "c"]], 4, {}, "z = 'a' in row 0"),
        (POINTS, 0, {}, "size is 0; accepted: a positive number of voxels"),
        (POINTS, 2.5, {}, r"size is 2.5"),
        (POINTS, (4,) * 4, {}, r"size is \(4, 4, 4, 4\); .* of z, y, x"),
        (POINTS, {"w": 4}, {}, "size is {'w': 4}"),
        (POINTS, 4, {"border": "edge"}, "border is .edge.; accepted: .pad., .error., .drop."),
        ({"point_z": [1], "x": [1], "y": [1], "z": [1]}, 4, {}, "'point_z', a name of"),
    ],
    ids=range(12),
)  # fmt: skip
def test_what_is_not_accepted(
    path: Path, points: Any, size: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        extract(opened(path), points, size, **options)


def test_more_that_is_not_accepted(path: Path) -> None:
    with pytest.raises(ValueError, match="the data have no pixels along y"):
        extract(opened(path)[:, :0], POINTS, 4)
    with pytest.raises(ValueError, match="a dimension 'particle', as the result has; rename it"):
        extract(stack().rename(image="particle"), [[5, 7]], 4)
    with pytest.raises(ValueError, match="fill is nan; accepted: a value of int16"):
        extract(stack(), [[5, 7]], 4, fill=np.nan)
    for fill in (1e50, 1j, "a"):
        with pytest.raises(ValueError, match="accepted: a value of float32"):
            extract(opened(path), POINTS, 4, fill=fill)
    with pytest.raises(ValueError, match="image = 5 in row 1; accepted: 0 to 4"):
        extract(stack(), [[4, 5, 7], [5, 5, 7]], 4)
    with pytest.raises(ValueError, match=r"z is irregular, .*drop_vars\('z'\) uses voxel indices"):
        extract(opened(path).isel(z=[0, 1, 3]), POINTS, 4)


def test_no_points(path: Path) -> None:
    for source in ("lazy", "computed chunks"):
        for points in (
            [],
            pd.DataFrame({"x": [], "y": [], "z": []}),
            pd.DataFrame(columns=[*"xyz"]),
        ):
            boxes = extract(opened(path, source), points, 4)
            assert boxes.shape == boxes.values.shape == (0, 4, 4, 4)


@pytest.mark.parametrize(
    "chunks", [None, pytest.param({}, marks=pytest.mark.slow)], ids=["lazy", "opened in chunks"]
)
def test_boxes_cost_their_own_bytes(
    tmp_path: Path, ranges_read: list[tuple[int, int]], chunks: Any
) -> None:
    """50 boxes of 64³, of a file of 64 GiB whose rows are as long as a box."""
    n, size = 16384, 64
    head = by_hand.header((n, n, size), 2)
    path = by_hand.sparse(tmp_path / "large.mrc", head, 1024 + 4 * n * n * size)
    da = xr.open_dataarray(path, engine="mrc", chunks=chunks, mmap=False)
    rng = np.random.default_rng(3)
    starts = np.stack(
        [rng.permutation(n // size)[:50] * size, *rng.integers(0, n - size, (1, 50))], 1
    )
    ranges_read.clear()
    boxes = extract(
        da, np.pad(starts + size // 2, ((0, 0), (0, 1)), constant_values=size // 2), size
    )
    assert boxes.chunksizes["particle"] == (1,) * 50
    assert len(pickle.dumps(boxes)) < 100_000
    assert not ranges_read
    total = boxes.sum().compute(scheduler="synchronous")
    assert total == 0
    # the 64 rows of each section of each box, in one range
    row = 4 * size
    expected = [
        (1024 + row * (n * (z + i) + y), row * size) for z, y in starts for i in range(size)
    ]
    assert sorted(ranges_read) == sorted(expected)
    assert sum(length for _, length in ranges_read) == 50 * 64**3 * 4
    # one section of each box
    ranges_read.clear()
    boxes[:, 32].compute(scheduler="synchronous")
    assert sum(length for _, length in ranges_read) == 50 * 64**2 * 4


def test_narrow_boxes_of_wide_rows_are_not_read_with_their_rows(
    tmp_path: Path, ranges_read: list[tuple[int, int]]
) -> None:
    shape = (96, 128, 4096)
    path = by_hand.sparse(
        tmp_path / "wide.mrc", by_hand.header(shape, 2), 1024 + 4 * 96 * 128 * 4096
    )
    boxes = extract(xr.open_dataarray(path, engine="mrc"), [[50, 60, 2000]], 32)
    ranges_read.clear()
    assert not boxes.values.any()
    # they are copied from a map
    assert ranges_read == []


def test_a_computed_chunk_is_computed_once() -> None:
    taken = []

    def block(part: Any, block_info: Any) -> Any:
        taken.append(tuple(block_info[0]["chunk-location"]))
        return part

    chunks = dask.array.from_array(DATA, chunks=(5, 6, 7))
    da = xr.DataArray(
        chunks.map_blocks(block, dtype=DATA.dtype, meta=DATA[:0, :0, :0]), dims=("z", "y", "x")
    )
    extract(da, [[4, 2, 3], [5, 3, 3], [5, 3, 3]], 2).compute()
    assert sorted(taken) == [(0, 0, 0), (1, 0, 0)]


def test_many_points_are_quick(path: Path) -> None:
    rng = np.random.default_rng(5)
    points = FIRST + STEP * rng.uniform(0, 20, (100_000, 3))
    begin = time.perf_counter()
    lazy = extract(opened(path), points, 16)
    # a million in less than 10 s; this takes some 50 ms
    assert time.perf_counter() - begin < 1
    # 16 KiB each: 64 in a chunk
    assert lazy.chunksizes["particle"][:2] == (64, 64)
    indices = np.floor((points[:70] - FIRST) / STEP + 0.5).astype(int)
    np.testing.assert_array_equal(lazy[:70], boxes_of(DATA, indices, (16, 16, 16)))


@pytest.mark.slow
def test_many_boxes_of_computed_chunks(path: Path) -> None:
    points = FIRST + STEP * np.random.default_rng(5).uniform(0, 20, (10_001, 3))
    lazy, computed = (extract(opened(path, source), points, 16) for source in SOURCES[::2])
    assert computed.chunksizes == lazy.chunksizes
    np.testing.assert_array_equal(computed, lazy)


@pytest.mark.filterwarnings("ignore:.*can't store everything:mrc_xarray.MrcWarning")
def test_boxes_in_files(path: Path, tmp_path: Path) -> None:
    boxes = extract(opened(path), POINTS, 6, fill=0)
    stacked = extract(opened(path), POINTS[:4], {"y": 6, "x": 6}, fill=0)
    expected = boxes_of(DATA, INDICES, (6, 6, 6), 0)
    plain = tmp_path / "boxes.mrc"
    boxes.mrc.to_file(plain)
    with mrcfile.open(plain) as file:
        assert file.is_volume_stack()
        np.testing.assert_array_equal(file.data, expected)
        assert file.voxel_size.tolist() == (2, 2.5, 4)
    again = xr.open_dataarray(plain, engine="mrc")
    assert again.dims == ("volume", "z", "y", "x")
    assert again["z"].values.tolist() == [-12, -8, -4, 0, 4, 8]
    stacked.mrc.to_file(tmp_path / "stack.mrcs")
    with mrcfile.open(tmp_path / "stack.mrcs") as file:
        assert file.is_image_stack()
        np.testing.assert_array_equal(file.data, [DATA[10, 9:15, 11:17], *file.data[1:]])
    boxes.mrc.to_file(tmp_path / "boxes.mrcz")
    again = xr.open_dataarray(tmp_path / "boxes.mrcz", engine="mrc")
    assert again.dims == boxes.dims
    np.testing.assert_array_equal(again["point_y"], POINTS[:, 1])


def test_boxes_of_a_plane_of_a_volume_are_images(path: Path) -> None:
    with pytest.raises(ValueError, match="z = 400 in row 0; accepted: 0 to 76"):
        extract(opened(path), [[400, 0, 100]], {"y": 6, "x": 6})
    boxes = extract(opened(path), POINTS[:1], {"y": 6, "x": 6})
    assert boxes.dims == ("particle", "y", "x")
    np.testing.assert_array_equal(boxes[0], DATA[10, 9:15, 11:17])
    # the section that the box is from
    assert boxes["z"].values.tolist() == [40]


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
def test_on_a_cluster(path: Path, client: Client, source: str) -> None:
    boxes = extract(opened(path, source), POINTS, 6)
    found = client.compute(boxes).result()
    np.testing.assert_array_equal(found, boxes_of(DATA, INDICES, (6, 6, 6)))
