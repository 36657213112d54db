"""Pictures: what is drawn, where, and what is read for it."""

from __future__ import annotations

import inspect
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import by_hand
import dask.array
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

from mrc_xarray.accessor import MrcAccessor
from mrc_xarray.pixels.array import StackArray
from mrc_xarray.tools.planes import Plane, planes_of
from mrc_xarray.tools.planes import pixels as pixels_of
from mrc_xarray.tools.plot import plot_slices

SHAPE = (4, 6, 10)
# no two slices, and no slice and a mirrored one, are the same
DATA = np.random.default_rng(0).normal(size=SHAPE).astype("f4")
# 2 Å along x, 5 along y, 10 along z
STEPS = {"z": 10.0, "y": 5.0, "x": 2.0}
ORIGIN = {"z": 0.0, "y": -20.0, "x": 100.0}


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    with mpl.rc_context():
        plt.switch_backend("Agg")
        yield
        plt.close("all")


def volume(units: str = "angstrom", scale: float = 1.0) -> xr.DataArray:
    coords = {
        dim: (dim, (ORIGIN[dim] + np.arange(n) * STEPS[dim]) * scale, {"units": units})
        for dim, n in zip(STEPS, SHAPE, strict=True)
    }
    return xr.DataArray(DATA.copy(), coords, tuple(STEPS))


def bare(shape: tuple[int, ...] = SHAPE, dims: tuple[str, ...] = ("z", "y", "x")) -> xr.DataArray:
    return xr.DataArray(np.arange(np.prod(shape), dtype="f4").reshape(shape), dims=dims)


def pixels(figure: Figure) -> list[Any]:
    return [np.asarray(ax.images[0].get_array()) for ax in figure.axes]


def drawn(data: xr.DataArray, at: Any = None, thickness: Any = None) -> tuple[list[Plane], Any]:
    """Return the planes and their pixels, without a figure."""
    planes = planes_of(data, at, thickness)
    return planes, pixels_of(data, planes)


def bar(figure: Figure) -> tuple[float, str]:
    """Return the length of the scale bar in units of the axis, and its text."""
    bars = [a for ax in figure.axes for a in ax.artists if isinstance(a, AnchoredSizeBar)]
    assert len(bars) == 1
    (rectangle,) = bars[0].size_bar.get_children()
    return rectangle.get_width(), bars[0].txt_label.get_text()


def test_slices_of_a_volume() -> None:
    figure = plot_slices(volume(), {"z": 12, "y": -6, "x": 117.2})
    across_z, across_y, across_x = pixels(figure)
    np.testing.assert_array_equal(across_z, DATA[1])
    np.testing.assert_array_equal(across_y, DATA[:, 3])
    np.testing.assert_array_equal(across_x, DATA[:, :, 9].T)
    assert plt.get_fignums() == [figure.number]  # type: ignore[attr-defined]


def test_the_middle_is_drawn_by_default() -> None:
    _, (across_z, across_y, across_x) = drawn(volume(), {"y": -20})
    np.testing.assert_array_equal(across_z, DATA[2])
    np.testing.assert_array_equal(across_y, DATA[:, 0])
    np.testing.assert_array_equal(across_x, DATA[:, :, 5].T)


@pytest.mark.parametrize("dims", ["xyz", "zxy"])
def test_dimensions_in_any_order(dims: str) -> None:
    expected, images = drawn(volume(), {"z": 10})
    planes, found = drawn(volume().transpose(*dims), {"z": 10})
    assert planes == expected
    for one, other in zip(found, images, strict=True):
        np.testing.assert_array_equal(one, other)


def test_places_and_labels() -> None:
    axes = plot_slices(volume()).axes
    z, y, x = (-5, 35), (-22.5, 7.5), (99, 119)
    assert [tuple(ax.images[0].get_extent()) for ax in axes] == [x + y, x + z, z + y]
    assert [(ax.get_xlim(), ax.get_ylim()) for ax in axes] == [(x, y), (x, z), (z, y)]
    assert [(ax.get_xlabel(), ax.get_ylabel()) for ax in axes] == [
        ("x [Å]", "y [Å]"), ("x [Å]", "z [Å]"), ("z [Å]", "y [Å]"),
    ]  # fmt: skip
    assert [ax.get_title() for ax in axes] == ["z = 20 Å", "y = -5 Å", "x = 110 Å"]


@pytest.mark.slow
def test_a_bright_voxel_is_seen_where_it_is() -> None:
    data = xr.zeros_like(volume())
    data[3, 0, 9] = 1
    for each in (data, data.isel(z=slice(None, None, -1), x=slice(None, None, -1))):
        figure = plot_slices(each, {"z": 30, "y": -20, "x": 118}, robust=None, scale_bar=False)
        figure.canvas.draw()
        seen = np.asarray(figure.canvas.buffer_rgba())[::-1, :, 0]  # type: ignore[attr-defined]
        # not on the lines: in the bright voxel and in the one at the opposite corner
        bright, dark = {"z": 33, "y": -18.5, "x": 118.6}, {"z": 3, "y": 6.5, "x": 100.6}
        for ax in figure.axes:
            across, up = (label()[0] for label in (ax.get_xlabel, ax.get_ylabel))
            for place, shade in ((bright, 255), (dark, 0)):
                column, row = ax.transData.transform((place[across], place[up]))
                assert seen[round(row), round(column)] == shade


@pytest.mark.slow
def test_anisotropic_voxels_have_their_shape() -> None:
    figure = plot_slices(volume())
    figure.canvas.draw()
    scales = set()
    for ax in figure.axes:
        assert ax.get_aspect() == 1
        box = ax.get_window_extent()
        scales |= {box.width / np.ptp(ax.get_xlim()), box.height / np.ptp(ax.get_ylim())}
    # all three plots have one scale
    assert max(scales) == pytest.approx(min(scales), rel=0.02)


def test_what_can_not_be_compared_has_square_pixels() -> None:
    planes = planes_of(volume().drop_vars("z"), None, None)
    aspects = [plane.up.per_unit(plane.right) for plane in planes]
    assert aspects == pytest.approx([1, 2, 0.2])
    seconds = xr.DataArray(4.0 * np.arange(6), dims="y", attrs={"units": "s"})
    figure = plot_slices(volume().isel(z=0).assign_coords(y=seconds))
    assert figure.axes[0].get_aspect() == 0.5


def test_lines_mark_the_other_slices() -> None:
    axes = plot_slices(volume(), {"z": 30, "y": 0, "x": 102}).axes
    marked = [{tuple(line.get_xydata().ravel()) for line in ax.lines} for ax in axes]
    # vertical ones go from 0 to 1 of the height, horizontal ones of the width
    assert marked == [
        {(102, 0, 102, 1), (0, 0, 1, 0)},
        {(102, 0, 102, 1), (0, 30, 1, 30)},
        {(30, 0, 30, 1), (0, 0, 1, 0)},
    ]
    colour = {ax.get_title()[0]: ax.title.get_color() for ax in axes}
    # first the horizontal line
    assert [line.get_color() for line in axes[0].lines] == [colour["y"], colour["x"]]
    assert [line.get_color() for line in axes[2].lines] == [colour["y"], colour["z"]]


def test_descending_positions_increase_upwards_and_to_the_right() -> None:
    data = volume().isel(z=0)
    ax = plot_slices(data.isel(y=slice(None, None, -1), x=slice(None, None, -1))).axes[0]
    np.testing.assert_array_equal(ax.images[0].get_array(), DATA[0, ::-1, ::-1])
    assert ax.images[0].get_extent() == [119, 99, 7.5, -22.5]
    assert (ax.get_xlim(), ax.get_ylim()) == ((99, 119), (-22.5, 7.5))


def test_one_unit_for_all_lengths() -> None:
    """Chosen by the longest one, so that a thin slab is in nm as well."""
    data = volume().isel(z=[0]).assign_coords(x=ORIGIN["x"] + 20.0 * np.arange(10))
    data["z"].attrs["spacing"] = 10.0
    data["x"].attrs["units"] = "angstrom"
    planes, _ = drawn(data)
    assert [plane.right.label for plane in planes] == ["x [nm]", "x [nm]", "z [nm]"]
    assert [plane.title for plane in planes] == ["z = 0 nm", "y = -0.5 nm", "x = 20 nm"]
    ends = *planes[0].right.ends, *planes[0].up.ends
    assert ends == pytest.approx([9, 29, -2.25, 0.75])
    assert planes[0].right.bar == (pytest.approx(5), "5 nm")
    in_nm = volume().assign_coords(z=volume("nm", 0.1)["z"])
    assert planes_of(in_nm, None, None)[1].up.ends == pytest.approx((-5, 35))
    assert planes_of(bare((2, 2, 1)), None, None)[0].right.bar == (1, "1 pixel")


def test_contrast_is_of_the_three_slices() -> None:
    data = volume()
    # in none of the slices
    data[0, 0, 0] = 1e6
    values = np.concatenate([DATA[2].ravel(), DATA[:, 3].ravel(), DATA[:, :, 5].ravel()])
    expected = pytest.approx(tuple(np.percentile(values, (10, 60))), rel=1e-6)
    for ax in plot_slices(data, robust=(10, 60)).axes:
        assert ax.images[0].get_clim() == expected


@pytest.mark.slow
def test_contrast_of_odd_values() -> None:
    data = bare((10, 10), ("y", "x"))
    data[0, :3] = [np.nan, np.inf, -np.inf]
    assert plot_slices(data, robust=None).axes[0].images[0].get_clim() == (3, 99)
    # more than 99 percent are equal
    data = xr.zeros_like(bare((20, 20), ("y", "x"))).astype("u2")
    data[3, 4] = 7
    assert plot_slices(data).axes[0].images[0].get_clim() == (0, 7)
    plot_slices(xr.full_like(data, np.nan, dtype="f2")).canvas.draw()
    plot_slices(data > 0).canvas.draw()


def test_one_image() -> None:
    figure = plot_slices(volume().isel(z=1))
    (ax,) = figure.axes
    np.testing.assert_array_equal(ax.images[0].get_array(), DATA[1])
    assert not ax.lines
    assert not ax.get_title()
    _, (across_y,) = drawn(volume().isel(y=2).transpose("x", "z"))
    np.testing.assert_array_equal(across_y, DATA[:, 2])
    (plane,), (image,) = drawn(bare((4, 5), ("ky", "kx")))
    np.testing.assert_array_equal(image, np.arange(20).reshape(4, 5))
    assert (plane.right.label, plane.up.label) == ("kx [pixel]", "ky [pixel]")


def test_without_coordinates_in_pixels() -> None:
    planes, (across_z, across_y, across_x) = drawn(bare(), {"z": 3, "x": 1})
    np.testing.assert_array_equal(across_z, bare()[3])
    np.testing.assert_array_equal(across_y, bare()[:, 3])
    np.testing.assert_array_equal(across_x, bare()[:, :, 1].T)
    assert planes[2].right.label == "z [pixel]"
    assert (*planes[2].right.ends, *planes[2].up.ends) == (-0.5, 3.5, -0.5, 5.5)
    assert planes[2].title == "x = 1 pixel"


def test_irregular_positions() -> None:
    """They can't be drawn to scale, but a slice is still found by its position."""
    planes, images = drawn(volume().isel(z=[0, 1, 3]), {"z": 29})
    np.testing.assert_array_equal(images[0], DATA[3])
    assert (planes[1].up.label, planes[0].title) == ("z [pixel]", "z = 2 pixel")


def test_a_single_section_has_its_thickness() -> None:
    data = xr.open_dataarray(io.BytesIO(by_hand.mrc(DATA, cella=(20, 30, 40))), engine="mrc")
    assert drawn(data.isel(z=[2]))[0][1].up.ends == (15, 25)


def test_dimensions_with_other_names() -> None:
    planes, images = drawn(volume().rename(z="depth", y="row", x="column"), {"depth": 30})
    np.testing.assert_array_equal(images[0], DATA[3])
    assert planes[0].up.label == "row [Å]"


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 500, 500), (500, 2, 2), (1, 1, 1)])
def test_extreme_shapes_can_be_drawn(shape: tuple[int, int, int]) -> None:
    plot_slices(bare(shape)).canvas.draw()


def test_drawing_into_a_figure() -> None:
    figure = Figure(layout="compressed")
    left, right = figure.subfigures(1, 2)
    assert plot_slices(volume(), figure=left) is figure
    assert plot_slices(volume().isel(z=0), figure=right) is figure
    assert (len(left.axes), len(right.axes)) == (3, 1)
    drawn = plot_slices(volume(), figure=Figure(), cmap="viridis", scale_bar=False).axes
    assert drawn[0].images[0].cmap.name == "viridis"
    assert not [artist for ax in drawn for artist in ax.artists]
    # pyplot does not know these figures
    assert plt.get_fignums() == []


def test_only_the_slices_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    n_read = []
    read = StackArray.read

    def counted(self: StackArray, key: Any) -> Any:
        found = read(self, key)
        n_read.append(found.size)
        return found

    monkeypatch.setattr(StackArray, "read", counted)
    raw = io.BytesIO(by_hand.mrc(DATA))
    data = xr.open_dataarray(raw, engine="mrc", cache=False)
    for options in ({"robust": (99, 1)}, {"at": {"z": 4}}):
        with pytest.raises(ValueError, match=r"accepted: (two percentiles|0 to 3 Å)"):
            plot_slices(data, **options)
    assert n_read == []
    drawn(data)
    drawn(data.transpose("y", "x", "z"))
    assert n_read == [60, 40, 24] * 2
    n_read.clear()
    # the sections at 10 and 20 Å
    data.mrc.plot_slices({"z": 1.5}, thickness={"z": 1})
    assert n_read == [2 * 60, 40, 24]


def test_one_computation_takes_each_chunk_once() -> None:
    taken = []

    def block(part: Any, block_info: Any) -> Any:
        taken.append(tuple(block_info[0]["chunk-location"]))
        return part

    chunks = dask.array.from_array(DATA, chunks=(1, 3, 5))
    data = volume().copy(data=chunks.map_blocks(block, dtype=DATA.dtype, meta=DATA[:0, :0, :0]))
    _, images = drawn(data, {"z": 10, "y": -20, "x": 100})
    np.testing.assert_array_equal(images[0], DATA[1])
    across = [(z, y, x) for z in range(4) for y in range(2) for x in range(2)]
    assert sorted(taken) == [(z, y, x) for z, y, x in across if z == 1 or y == 0 or x == 0]


def test_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "volume.mrc"
    path.write_bytes(by_hand.mrc(DATA, cella=(20, 30, 40), origin=(100, -20, 0)))
    with xr.open_dataset(path, engine="mrc", chunks={}, units="nm") as ds:
        figure = ds.mrc.plot_slices({"z": 1.1, "y": -0.4, "x": 11.8}, robust=None)
    across_z, across_y, across_x = pixels(figure)
    np.testing.assert_array_equal(across_z, DATA[1])
    np.testing.assert_array_equal(across_y, DATA[:, 3])
    np.testing.assert_array_equal(across_x, DATA[:, :, 9].T)
    assert figure.axes[0].images[0].get_clim()[1] == max(i.max() for i in pixels(figure))
    assert bar(figure) == (pytest.approx(5), "5 Å")


@pytest.mark.parametrize(
    ("data", "at", "message"),
    [
        (bare((2,), ("x",)), {}, r"float32 with the dimensions \(x\); accepted: numbers with two"),
        (bare().astype("M8[s]"), {}, r"datetime64\[s\] with the dimensions \(z, y, x\); accepted"),
        (bare(SHAPE, ("image", "y", "x")), {"y": 1}, "dimension 'y'; accepted: image$"),
        (bare(SHAPE, ("image", "y", "x")), {"image": 4}, "image = 4; accepted: 0 to 3 pixel"),
        (volume().isel(y=slice(0, 0)), {}, "no pixels along y"),
        (volume(), {"z": 36}, "at has z = 36; accepted: 0 to 30 Å"),
        (volume(), {"x": 98.9}, "at has x = 98.9; accepted: 100 to 118 Å"),
        (volume(), {"y": float("nan")}, "at has y = nan; accepted: -20 to 5 Å"),
        (volume(), {"w": 0}, "at has the dimension 'w'; accepted: z, y, x"),
        (volume().isel(z=0), {"y": 0}, "accepted: none, because an image has no slices"),
    ],
    ids=range(10),
)
def test_data_and_points_that_are_not_accepted(
    data: xr.DataArray, at: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        planes_of(data, at, None)


def scan() -> xr.DataArray:
    """A scan of 3 × 4 positions of 2 Å, and 5 × 6 pixels of the camera of 0.01 1/Å."""
    counts = np.random.default_rng(2).poisson(20, (3, 4, 5, 6)).astype("u2")
    counts[1, 2, 0] = 0
    steps = {"scan_y": 2, "scan_x": 2, "ky": 0.01, "kx": 0.01}
    coords = {
        dim: (dim, step * np.arange(n), {"units": "angstrom" if step > 1 else "1/angstrom"})
        for (dim, step), n in zip(steps.items(), counts.shape, strict=True)
    }
    return xr.DataArray(counts, coords, tuple(steps))


def test_a_scan_and_its_patterns() -> None:
    data = scan()
    at = {"scan_y": 2, "scan_x": 4, "ky": 0.03, "kx": 0.01}
    figure = plot_slices(data, at)
    image, pattern, *colour_bars = figure.axes
    np.testing.assert_array_equal(image.images[0].get_array(), data[:, :, 3, 1])
    np.testing.assert_array_equal(pattern.images[0].get_array(), data[1, 2])
    assert [ax.get_title() for ax in (image, pattern)] == [
        "ky = 0.3 1/nm, kx = 0.1 1/nm", "scan_y = 2 Å, scan_x = 4 Å",
    ]  # fmt: skip
    assert [(ax.get_xlabel(), ax.get_ylabel()) for ax in (image, pattern)] == [
        ("scan_x [Å]", "scan_y [Å]"), ("kx [1/nm]", "ky [1/nm]"),
    ]  # fmt: skip
    # downwards, with square pixels, and a colour bar each
    assert (image.get_ylim(), pattern.get_ylim()) == ((5, -1), pytest.approx((0.45, -0.05)))
    assert [ax.get_aspect() for ax in (image, pattern)] == [1, 1]
    assert [ax.images[0].colorbar.ax for ax in (image, pattern)] == colour_bars
    lines = [{tuple(line.get_xydata().ravel()) for line in ax.lines} for ax in (image, pattern)]
    assert lines[0] == {(4, 0, 4, 1), (0, 2, 1, 2)}
    # each has its own contrast
    low, high = np.percentile(data[1, 2], (1, 99))
    assert pattern.images[0].get_clim() == pytest.approx((low, high))


@pytest.mark.slow
def test_rows_of_a_scan_are_drawn_downwards() -> None:
    data = xr.zeros_like(scan().mean(("ky", "kx"), keep_attrs=True))
    data[0, 3] = 1
    figure = plot_slices(data, robust=None, scale_bar=False)
    figure.canvas.draw()
    seen = np.asarray(figure.canvas.buffer_rgba())[:, :, 0]  # type: ignore[attr-defined]
    ax = figure.axes[0]
    box = ax.get_window_extent()
    # the top right corner
    assert seen[seen.shape[0] - round(box.y1) + 5, round(box.x1) - 5] == 255
    assert seen[seen.shape[0] - round(box.y0) - 5, round(box.x1) - 5] == 0


def test_logarithm_of_counts() -> None:
    figure = plot_slices(scan(), {"scan_y": 2, "scan_x": 4}, norm="log", robust=None)
    image, pattern, *_ = figure.axes
    counts = scan()[1, 2].values
    drawn = pattern.images[0]
    assert isinstance(drawn.norm, mpl.colors.LogNorm)
    assert drawn.get_clim() == (counts[counts > 0].min(), counts.max())
    # counts of 0 are black, and not left out
    assert drawn.to_rgba(drawn.get_array())[0, 0].tolist() == [0, 0, 0, 1]
    assert type(image.images[0].norm) is mpl.colors.Normalize


@pytest.mark.slow
def test_logarithm_of_nothing() -> None:
    plot_slices(xr.zeros_like(scan()[0, 0]), norm="log").canvas.draw()


def test_a_virtual_detector() -> None:
    data = scan()
    thickness = {"ky": 0.02, "kx": 0.021}
    planes, images = drawn(data, {"ky": 0.02, "kx": 0.02}, thickness)
    expected = data.isel(ky=slice(1, 4), kx=slice(1, 4)).mean(("ky", "kx"))
    np.testing.assert_allclose(images[0], expected)
    assert planes[0].title == "ky = 0.1 to 0.3 1/nm, kx = 0.1 to 0.3 1/nm"
    with pytest.raises(ValueError, match="thickness is 2; accepted: a mapping, of scan_y, scan_x"):
        plot_slices(data, thickness=2)


@pytest.mark.parametrize(
    "chunks", [None, pytest.param({"z": 2, "y": 2, "x": 2}, marks=pytest.mark.slow)]
)
def test_a_slab_is_the_mean_of_its_sections(chunks: Any) -> None:
    data = volume() if chunks is None else volume().chunk(chunks)
    planes, (across_z, across_y, across_x) = drawn(data, {"z": 20, "y": -10, "x": 110}, 20)
    np.testing.assert_allclose(across_z, DATA[1:4].mean(0), rtol=1e-5)
    np.testing.assert_allclose(across_y, DATA[:, :5].mean(1), rtol=1e-5)
    np.testing.assert_allclose(across_x, DATA[:, :, :].mean(2).T, rtol=1e-5)
    assert [plane.title for plane in planes] == [
        "z = 10 to 30 Å", "y = -20 to 0 Å", "x = 100 to 118 Å",
    ]  # fmt: skip
    # of one dimension; thinner than a section
    _, (across_z, across_y, _) = drawn(data, {"z": 12}, {"z": 1e-3})
    np.testing.assert_array_equal(across_z, DATA[1])
    np.testing.assert_array_equal(across_y, DATA[:, 3])


def test_a_slab_of_odd_values() -> None:
    data = volume().astype("f2").copy()
    data[1:3] = 60000
    data[1, 0, 0] = np.nan
    _, (across_z, *_) = drawn(data, {"z": 15}, 10)
    # no overflow, and NaN only where all are NaN
    np.testing.assert_array_equal(across_z, np.full((6, 10), np.float16(60000)))
    for thickness in (0, -1, np.nan):
        with pytest.raises(ValueError, match=r"thickness has z = .*; accepted: a positive number"):
            plot_slices(volume(), thickness={"z": thickness})
    with pytest.raises(ValueError, match="thickness has the dimension 'w'; accepted: z, y, x"):
        plot_slices(volume(), thickness={"w": 1})


def test_stacks() -> None:
    stack = bare((5, 6, 7), ("image", "y", "x"))
    (plane,), (image,) = drawn(stack)
    np.testing.assert_array_equal(image, stack[2])
    assert plane.title == "image = 2"
    (plane,), (image,) = drawn(stack, {"image": 1}, 2)
    np.testing.assert_array_equal(image, stack[:3].mean("image"))
    assert plane.title == "image = 0 to 2"
    planes, images = drawn(volume().expand_dims(volume=2), {"volume": 0, "z": 10})
    np.testing.assert_array_equal(images[0], DATA[1])
    assert planes[0].title == "volume = 0, z = 10 Å"


def test_colours() -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (3, 4, 5, 3), "u1")
    data = xr.DataArray(rgb, dims=("image", "y", "x", "rgb"))
    np.testing.assert_array_equal(drawn(data)[1][0], rgb[1])
    slab = pixels(plot_slices(data, thickness=2, norm="log"))[0]
    np.testing.assert_array_equal(slab, rgb.mean(0).round())


@pytest.mark.slow
def test_amplitudes() -> None:
    figure = plot_slices(volume() * np.complex64(3 + 4j))
    np.testing.assert_allclose(pixels(figure)[0], 5 * abs(DATA[2]), rtol=1e-6)
    assert figure.axes[0].get_title() == "z = 20 Å, amplitude"


def test_help_shows_the_arguments() -> None:
    method = inspect.signature(MrcAccessor.plot_slices).parameters
    function = inspect.signature(plot_slices).parameters
    assert {name: p.default for name, p in method.items()} == {"self": inspect.Parameter.empty} | {
        name: p.default for name, p in function.items() if name != "data"
    }
    text = inspect.getdoc(MrcAccessor.plot_slices) or ""
    assert {*re.findall(r"^(\w+) : ", text, re.M)} == {*method} - {"self"}


NOTEBOOK = """
import numpy as np, xarray as xr, mrc_xarray
da = xr.DataArray(np.eye(4), dims=("y", "x"))
{}
"""


@pytest.mark.slow
def test_a_notebook_shows_a_figure_once() -> None:
    nbformat = pytest.importorskip("nbformat", reason="notebooks run with the extra docs")
    nbclient = pytest.importorskip("nbclient", reason="notebooks run with the extra docs")

    ends = ("da.mrc.plot_slices()", "da.mrc.plot_slices();", "figure = da.mrc.plot_slices()")
    cells = [nbformat.v4.new_code_cell(NOTEBOOK.format(end)) for end in (*ends, "figure")]
    cells[-1]["source"] = "figure"
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, kernel_name="python3").execute()
    shown = [[o for o in cell["outputs"] if "image/png" in o.get("data", {})] for cell in cells]
    assert [len(pictures) for pictures in shown] == [1, 1, 1, 1]


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install matplotlib"):
        plot_slices(volume())
