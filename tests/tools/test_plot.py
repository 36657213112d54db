"""Pictures: what is drawn, where, and what is read for it."""

from __future__ import annotations

import io
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

from mrc_xarray.pixels.array import StackArray
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
    return xr.DataArray(DATA, coords, tuple(STEPS))


def bare(shape: tuple[int, ...] = SHAPE, dims: tuple[str, ...] = ("z", "y", "x")) -> xr.DataArray:
    return xr.DataArray(np.arange(np.prod(shape), dtype="f4").reshape(shape), dims=dims)


def pixels(figure: Figure) -> list[Any]:
    return [np.asarray(ax.images[0].get_array()) for ax in figure.axes]


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
    across_z, across_y, across_x = pixels(plot_slices(volume(), {"y": -20}))
    np.testing.assert_array_equal(across_z, DATA[2])
    np.testing.assert_array_equal(across_y, DATA[:, 0])
    np.testing.assert_array_equal(across_x, DATA[:, :, 5].T)


@pytest.mark.parametrize("dims", ["xyz", "zxy"])
def test_dimensions_in_any_order(dims: str) -> None:
    expected = plot_slices(volume(), {"z": 10})
    found = plot_slices(volume().transpose(*dims), {"z": 10})
    for one, other in zip(pixels(found), pixels(expected), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(found.axes, expected.axes, strict=True):
        assert one.images[0].get_extent() == other.images[0].get_extent()


def test_places_and_labels() -> None:
    axes = plot_slices(volume()).axes
    z, y, x = (-5, 35), (-22.5, 7.5), (99, 119)
    assert [tuple(ax.images[0].get_extent()) for ax in axes] == [x + y, x + z, z + y]
    assert [(ax.get_xlim(), ax.get_ylim()) for ax in axes] == [(x, y), (x, z), (z, y)]
    assert [(ax.get_xlabel(), ax.get_ylabel()) for ax in axes] == [
        ("x [Å]", "y [Å]"), ("x [Å]", "z [Å]"), ("z [Å]", "y [Å]"),
    ]  # fmt: skip
    assert [ax.get_title() for ax in axes] == ["z = 20 Å", "y = -5 Å", "x = 110 Å"]


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


def test_dimensions_in_different_units() -> None:
    z = volume("nm", 0.1)["z"]
    figure = plot_slices(volume().assign_coords(z=z))
    # one nm is drawn as long as ten Å
    assert [ax.get_aspect() for ax in figure.axes] == pytest.approx([1, 10, 0.1])
    assert figure.axes[1].get_ylabel() == "z [nm]"


def test_what_can_not_be_compared_has_square_pixels() -> None:
    figure = plot_slices(volume().drop_vars("z"))
    assert [ax.get_aspect() for ax in figure.axes] == pytest.approx([1, 2, 0.2])
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


@pytest.mark.parametrize(
    ("step", "units", "length", "text"),
    [
        # up to 30 of 100 columns
        (0.02, "angstrom", 0.5, "0.5 Å"),
        (1, "angstrom", 20, "20 Å"),
        (2.5, "angstrom", 50, "50 Å"),
        (13.3, "Å", 200, "20 nm"),
        (0.1, "nm", 2, "2 nm"),
        (10, "pm", 200, "2 Å"),
        (0.001, "um", 0.02, "20 nm"),
        (1000, "angstrom", 20000, "2 µm"),
        (0.1, "1/nm", 2, "2 1/nm"),
        (10 / 3, "", 100, "100"),
        (None, None, 20, "20 pixels"),
    ],
)
def test_scale_bar(step: float | None, units: str, length: float, text: str) -> None:
    data = bare((3, 100), ("y", "x"))
    if step is not None:
        data = data.assign_coords(x=("x", step * np.arange(100), {"units": units}))
    found = bar(plot_slices(data))
    assert found == (pytest.approx(length), text)


def test_scale_bar_of_a_single_pixel() -> None:
    assert bar(plot_slices(bare((2, 2, 1)))) == (1, "1 pixel")


def test_contrast_is_of_the_three_slices() -> None:
    data = volume()
    # in none of the slices
    data[0, 0, 0] = 1e6
    drawn = np.concatenate([DATA[2].ravel(), DATA[:, 3].ravel(), DATA[:, :, 5].ravel()])
    for robust in ((1, 99), (10, 60)):
        expected = pytest.approx(tuple(np.percentile(drawn, robust)), rel=1e-6)
        for ax in plot_slices(data, robust=robust).axes:
            assert ax.images[0].get_clim() == expected
    figure = plot_slices(data, robust=None)
    assert figure.axes[0].images[0].get_clim() == (drawn.min(), drawn.max())


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
    (across_y,) = pixels(plot_slices(volume().isel(y=2).transpose("x", "z")))
    np.testing.assert_array_equal(across_y, DATA[:, 2])
    pattern = bare((4, 5), ("ky", "kx"))
    (ax,) = plot_slices(pattern).axes
    np.testing.assert_array_equal(ax.images[0].get_array(), pattern)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("kx [pixel]", "ky [pixel]")


def test_without_coordinates_in_pixels() -> None:
    figure = plot_slices(bare(), {"z": 3, "x": 1})
    across_z, across_y, across_x = pixels(figure)
    np.testing.assert_array_equal(across_z, bare()[3])
    np.testing.assert_array_equal(across_y, bare()[:, 3])
    np.testing.assert_array_equal(across_x, bare()[:, :, 1].T)
    assert figure.axes[2].get_xlabel() == "z [pixel]"
    assert tuple(figure.axes[2].images[0].get_extent()) == (-0.5, 3.5, -0.5, 5.5)
    assert figure.axes[2].get_title() == "x = 1 pixel"


def test_irregular_positions() -> None:
    """They can't be drawn to scale, but a slice is still found by its position."""
    figure = plot_slices(volume().isel(z=[0, 1, 3]), {"z": 29})
    np.testing.assert_array_equal(pixels(figure)[0], DATA[3])
    assert figure.axes[1].get_ylabel() == "z [pixel]"
    assert figure.axes[0].get_title() == "z = 2 pixel"


def test_a_single_section_has_its_thickness() -> None:
    data = xr.open_dataarray(io.BytesIO(by_hand.mrc(DATA, cella=(20, 30, 40))), engine="mrc")
    figure = plot_slices(data.isel(z=[2]))
    assert figure.axes[1].get_ylim() == (15, 25)
    figure.canvas.draw()


def test_dimensions_with_other_names() -> None:
    data = volume().rename(z="depth", y="row", x="column")
    figure = plot_slices(data, {"depth": 30})
    np.testing.assert_array_equal(pixels(figure)[0], DATA[3])
    assert figure.axes[0].get_ylabel() == "row [Å]"


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
    plot_slices(data)
    plot_slices(data.transpose("y", "x", "z"))
    assert n_read == [60, 40, 24] * 2


def test_one_computation_takes_each_chunk_once() -> None:
    taken = []

    def block(part: Any, block_info: Any) -> Any:
        taken.append(tuple(block_info[0]["chunk-location"]))
        return part

    chunks = dask.array.from_array(DATA, chunks=(1, 3, 5))
    data = volume().copy(data=chunks.map_blocks(block, dtype=DATA.dtype, meta=DATA[:0, :0, :0]))
    figure = plot_slices(data, {"z": 10, "y": -20, "x": 100})
    np.testing.assert_array_equal(pixels(figure)[0], DATA[1])
    across = [(z, y, x) for z in range(4) for y in range(2) for x in range(2)]
    assert sorted(taken) == [(z, y, x) for z, y, x in across if z == 1 or y == 0 or x == 0]


def test_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "volume.mrc"
    path.write_bytes(by_hand.mrc(DATA, cella=(20, 30, 40), origin=(100, -20, 0)))
    for chunks in (None, {}):
        with xr.open_dataset(path, engine="mrc", chunks=chunks, units="nm") as ds:
            figure = ds.mrc.plot_slices({"z": 1.1, "y": -0.4, "x": 11.8}, robust=None)
            assert figure.axes[1].images[0].get_array().shape == (4, 10)
            figure = ds["data"].mrc.plot_slices({"z": 1.1, "y": -0.4, "x": 11.8})
        across_z, across_y, across_x = pixels(figure)
        np.testing.assert_array_equal(across_z, DATA[1])
        np.testing.assert_array_equal(across_y, DATA[:, 3])
        np.testing.assert_array_equal(across_x, DATA[:, :, 9].T)
        assert bar(figure) == (pytest.approx(0.5), "5 Å")


@pytest.mark.parametrize(
    ("data", "at", "message"),
    [
        (
            bare((2,), ("x",)),
            {},
            r"dimensions \(x\); accepted: z, y and x of a volume, or .* image$",
        ),
        (bare(SHAPE, ("image", "y", "x")), {}, r"\(image, y, x\); .* \.isel\(image=0\)"),
        (bare((2,) * 4, ("volume", *"zyx")), {}, r"Select first, .* \.isel\(volume=0\)"),
        (bare((2,) * 4, ("scan_y", "scan_x", "ky", "kx")), {}, r"\.isel\(scan_y=0, scan_x=0\)"),
        (volume().astype("c8"), {}, r"complex64; accepted: real numbers\. .* abs\(data\)"),
        (volume().isel(y=slice(0, 0)), {}, "no pixels along y"),
        (volume(), {"z": 36}, "at has z = 36; accepted: 0 to 30 Å"),
        (volume(), {"x": 98.9}, "at has x = 98.9; accepted: 100 to 118 Å"),
        (volume(), {"y": float("nan")}, "at has y = nan; accepted: -20 to 5 Å"),
        (volume(), {"w": 0}, "at has the dimension 'w'; accepted: z, y, x"),
        (volume().isel(z=0), {"y": 0}, "accepted: none, because an image has no slices"),
    ],
    ids=range(11),
)
def test_data_and_points_that_are_not_accepted(
    data: xr.DataArray, at: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        plot_slices(data, at)


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r'pip install "mrc-xarray\[plot\]"'):
        plot_slices(volume())
