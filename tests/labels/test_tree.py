"""A Direct Electron acquisition as a tree: the movie, and the images next to it."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import by_hand
import de_by_hand as de
import fsspec
import numpy as np
import pytest
import servers
import xarray as xr

from mrc_xarray import MrcWarning

Array = np.ndarray[Any, Any]
MOVIE = f"{de.STEM}_movie.mrc"
SCAN, FRAME = (3, 4), (5, 9)


def image(number: int, shape: tuple[int, int], **fields: Any) -> tuple[bytes, Array]:
    """Return an image, and its pixels, which differ from those of other images."""
    pixels = de.frames(1, "f4", shape)[0] + 1000 * number
    return de.movie(pixels[None], **fields), pixels


# file's name after the movie's stem → group, shape and dimensions
IMAGES: dict[str, tuple[str, tuple[int, int], tuple[str, str]]] = {
    "0_Virt #0_total_sum": ("virtual/Virt #0", SCAN, ("scan_y", "scan_x")),
    "1_ADF in_centroid_amplitude": ("virtual/ADF in", SCAN, ("scan_y", "scan_x")),
    "virt 2_wide_sum": ("virtual/wide", (6, 8), ("wide_y", "wide_x")),
    "3_turned_sum": ("virtual/turned", (4, 3), ("turned_y", "turned_x")),
    "ext1_Ext #1": ("external/Ext #1", SCAN, ("scan_y", "scan_x")),
    "ext2": ("external/ext2", (12, 16), ("ext2_y", "ext2_x")),
    "ext3_.": ("external/image", (2, 3), ("image_y", "image_x")),
    "final": ("final", FRAME, ("ky", "kx")),
}


def write(folder: Path, changed: dict[str, Any] | None = None, n: int = 12) -> dict[str, Array]:
    """Write an acquisition, and return the images by their group."""
    de.write(folder, de.frames(n), changed)
    pixels = {}
    for number, (name, (group, shape, _)) in enumerate(IMAGES.items()):
        raw, pixels[group] = image(number, shape)
        (folder / f"{de.STEM}_{name}.mrc").write_bytes(raw)
    # another acquisition, and a file that is not an image
    (folder / "20250102_00008_final.mrc").write_bytes(image(9, FRAME)[0])
    (folder / f"{de.STEM}_notes.txt").write_text("nothing")
    return pixels


@pytest.fixture(scope="module")
def acquired(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Array]]:
    folder = tmp_path_factory.mktemp("acquired")
    return folder / MOVIE, write(folder)


def check(tree: xr.DataTree, pixels: dict[str, Array]) -> None:
    groups = {group.lstrip("/") for group in tree.groups}
    assert groups == {"", "virtual", "external", *pixels}
    assert tree["data"].dims == ("scan_y", "scan_x", "ky", "kx")
    np.testing.assert_array_equal(tree["data"].values.reshape(12, *FRAME), de.frames(12))
    dims = {group: dims for group, _, dims in IMAGES.values()}
    for group, expected in pixels.items():
        assert tree[group]["data"].dims == dims[group]
        assert tree[group]["data"].attrs["mrc_layout"] == "image"
        np.testing.assert_array_equal(tree[group]["data"], expected)


@pytest.mark.parametrize(("options", "chunks"), [({"engine": "mrc"}, None), ({}, {})], ids=str)
def test_tree(
    acquired: tuple[Path, dict[str, Array]], options: dict[str, Any], chunks: Any
) -> None:
    path, pixels = acquired
    groups = xr.open_groups(path, chunks=chunks, **options)
    assert list(groups) == ["/", *(f"/{group}" for group in pixels)]
    xr.testing.assert_identical(groups["/"], xr.open_dataset(path, engine="mrc"))
    with xr.open_datatree(path, chunks=chunks, **options) as tree:
        check(tree, pixels)
        for node in tree.subtree:
            for variable in node.data_vars.values():
                assert (variable.chunks is None) == (chunks is None)


def test_children_have_the_movies_coordinates(acquired: tuple[Path, dict[str, Array]]) -> None:
    path, pixels = acquired
    tree = xr.open_datatree(path, engine="mrc")
    shared = tree["virtual/Virt #0"].to_dataset()
    np.testing.assert_array_equal(shared.scan_x, [0, 20, 40, 60])
    np.testing.assert_array_equal(shared.scan_y, [0, 30, 60])
    assert shared.data.sel(scan_x=40, scan_y=30) == pixels["virtual/Virt #0"][1, 2]
    assert {"kx", "ky"} <= set(tree["final"].to_dataset().coords)
    assert not tree["final"].to_dataset(inherit=False).coords
    assert not tree["external/ext2"].to_dataset(inherit=False).coords
    # what is selected at the root is selected below
    part = tree.isel(scan_y=slice(1, 3), scan_x=[0, 3], missing_dims="ignore")
    assert part["virtual/ADF in/data"].sizes == {"scan_y": 2, "scan_x": 2}
    assert part["external/ext2/data"].sizes == {"ext2_y": 12, "ext2_x": 16}
    sums = tree["data"].sum(("ky", "kx")) + tree["external/Ext #1/data"]
    expected = de.frames(12).reshape(*SCAN, *FRAME).sum((2, 3)) + pixels["external/Ext #1"]
    np.testing.assert_array_equal(sums, expected)


def test_movie_that_is_no_scan_shares_only_its_frame(tmp_path: Path) -> None:
    pixels = write(tmp_path)
    tree = xr.open_datatree(tmp_path / MOVIE, engine="mrc", metadata_file=None)
    assert tree["data"].dims == ("image", "y", "x")
    assert tree["virtual/ADF in/data"].dims == ("ADF in_y", "ADF in_x")
    assert tree["final/data"].dims == ("y", "x")
    np.testing.assert_array_equal(tree["final/data"], pixels["final"])


def test_own_names_of_dimensions_are_shared(tmp_path: Path) -> None:
    pixels = write(tmp_path)
    dims = ("row", "column", "v", "u")
    tree = xr.open_datatree(tmp_path / MOVIE, engine="mrc", dims=dims)
    assert tree["data"].dims == dims
    assert tree["final/data"].dims == ("v", "u")
    assert tree["virtual/ADF in/data"].dims == ("row", "column")
    np.testing.assert_array_equal(tree["virtual/ADF in/data"], pixels["virtual/ADF in"])


def test_units_and_drop_variables_are_for_all_datasets(tmp_path: Path) -> None:
    write(tmp_path)
    raw, _ = image(1, (6, 8), cella=(80, 60, 0))
    (tmp_path / f"{de.STEM}_virt 2_wide_sum.mrc").write_bytes(raw)
    dropped = iter(["scan_x", "y"])
    tree = xr.open_datatree(tmp_path / MOVIE, engine="mrc", units="nm", drop_variables=dropped)
    assert "scan_x" not in tree.coords
    assert "wide_y" not in tree["virtual/wide"].coords
    coordinate = tree["virtual/wide/wide_x"]
    assert (coordinate.attrs["units"], coordinate.attrs["spacing"]) == ("nm", 1)
    assert coordinate.values.tolist() == list(range(8))


def test_images_of_several_repeats(tmp_path: Path) -> None:
    """An image can have one section per repeat, and has the dimensions of the scan."""
    write(tmp_path, {"Scan - Repeats": 2}, 24)
    pixels = de.frames(2, "f4", SCAN)
    (tmp_path / f"{de.STEM}_1_ADF in_centroid_amplitude.mrc").write_bytes(de.movie(pixels))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MrcWarning)
        tree = xr.open_datatree(tmp_path / MOVIE, engine="mrc")
    np.testing.assert_array_equal(tree["data"].values.reshape(24, *FRAME), de.frames(24))
    np.testing.assert_array_equal(tree["virtual/ADF in/data"], pixels)
    assert tree["virtual/ADF in/data"].dims == ("repeat", "scan_y", "scan_x")
    assert tree["external/Ext #1/data"].dims == ("scan_y", "scan_x")


@pytest.mark.parametrize("name", ["data", "scan_x", "µ %20"])
def test_any_name_of_a_detector(tmp_path: Path, name: str) -> None:
    de.write(tmp_path, de.frames(12))
    raw, pixels = image(1, (6, 8))
    (tmp_path / f"{de.STEM}_ext1_{name}.mrc").write_bytes(raw)
    tree = xr.open_datatree(tmp_path / MOVIE, engine="mrc")
    np.testing.assert_array_equal(tree["data"].values.reshape(12, *FRAME), de.frames(12))
    (child,) = [node for node in tree.subtree if node.path not in ("/", "/external")]
    np.testing.assert_array_equal(child["data"], pixels)


@pytest.mark.parametrize("chunks", [None, {}], ids=str)
def test_images_that_the_user_gives(tmp_path: Path, chunks: Any) -> None:
    """They replace the images of their group next to the movie."""
    pixels = write(tmp_path)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    files, expected = {}, {}
    for number, name in enumerate((f"{de.STEM}_4_BF_a_sum", "my image", "20250102_9_b_ext3_EDX")):
        files[name] = folder / f"{name}.mrc"
        raw, expected[name] = image(number, SCAN)
        files[name].write_bytes(raw)
    virtual, own, external = files.values()
    tree = xr.open_datatree(
        tmp_path / MOVIE,
        engine="mrc",
        chunks=chunks,
        virtual_images=[virtual, str(own), io.BytesIO(own.read_bytes()), virtual],
        external_images=iter([external]),
    )
    names = {
        "virtual/BF a_sum": virtual, "virtual/my image": own, "virtual/virtual_image_2": own,
        "virtual/4 BF a_sum": virtual, "external/EDX": external,
    }  # fmt: skip
    groups = {group.lstrip("/") for group in tree.groups}
    assert groups == {"", "virtual", "external", "final", *names}
    for group, file in names.items():
        assert tree[group]["data"].dims == ("scan_y", "scan_x")
        assert (tree[group]["data"].chunks is None) == (chunks is None)
        np.testing.assert_array_equal(tree[group]["data"], expected[file.stem])
    np.testing.assert_array_equal(tree["final/data"], pixels["final"])
    # none of one group
    tree = xr.open_datatree(tmp_path / MOVIE, engine="mrc", virtual_images=[])
    assert "virtual" not in tree
    assert "/external/ext2" in tree.groups


def test_wrong_images(tmp_path: Path) -> None:
    path = de.write(tmp_path, de.frames(12))
    with pytest.raises(TypeError, match=r"virtual_images is 'a\.mrc'; accepted: a list"):
        xr.open_datatree(path, engine="mrc", virtual_images="a.mrc")
    with pytest.raises(FileNotFoundError):
        xr.open_datatree(path, engine="mrc", external_images=[tmp_path / "missing.mrc"])
    with pytest.raises(
        TypeError, match=r"virtual_images= is an argument of xarray\.open_datatree"
    ):
        xr.open_dataset(path, engine="mrc", virtual_images=[])


@pytest.mark.parametrize(
    ("scan", "shape", "dims"),
    [
        (12, (1, 12), ("scan_x",)),
        (12, (12, 1), ("scan_x",)),
        ((1, 12), (1, 12), ("scan_y", "scan_x")),
        ((2, 2, 3), (2, 3), ("scan_y", "scan_x")),
        ((2, 1, 2, 3), (2, 3), ("scan_y", "scan_x")),
        ((2, 2, 3), (4, 3), ("a_y", "a_x")),
    ],
)
def test_images_of_scans_of_any_number_of_dimensions(
    tmp_path: Path, scan: Any, shape: tuple[int, int], dims: tuple[str, ...]
) -> None:
    path = de.write(tmp_path, de.frames(12))
    raw, pixels = image(1, shape)
    (tmp_path / f"{de.STEM}_1_a_sum.mrc").write_bytes(raw)
    tree = xr.open_datatree(path, engine="mrc", scan_shape=scan)
    assert tree["virtual/a/data"].dims == dims
    np.testing.assert_array_equal(tree["virtual/a/data"].values.ravel(), pixels.ravel())


# a tree of one ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [MOVIE, "volume.mrc", "final.mrc"])
def test_file_without_neighbours(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(by_hand.mrc(de.frames(3)))
    tree = xr.open_datatree(path, engine="mrc")
    assert tree.groups == ("/",)
    xr.testing.assert_identical(tree.to_dataset(), xr.open_dataset(path, engine="mrc"))
    (tmp_path / f"{de.STEM}_final.mrc").write_bytes(image(1, FRAME)[0])
    (tmp_path / "volume_final.mrc").write_bytes(image(1, FRAME)[0])
    groups = ("/", "/final") if name == MOVIE else ("/",)
    assert xr.open_datatree(path, engine="mrc").groups == groups


def test_file_objects(acquired: tuple[Path, dict[str, Array]], tmp_path: Path) -> None:
    path, pixels = acquired
    with path.open("rb") as file:
        check(xr.open_datatree(file, engine="mrc"), pixels)
    other = tmp_path / "other.bin"
    other.write_bytes(path.read_bytes())
    with other.open("rb") as file:
        assert xr.open_datatree(file, engine="mrc").groups == ("/",)


# files and stores -------------------------------------------------------------------------------


@pytest.mark.slow
def test_zarr(acquired: tuple[Path, dict[str, Array]], tmp_path: Path) -> None:
    path, pixels = acquired
    tree = xr.open_datatree(path, engine="mrc", chunks={})
    tree.to_zarr(tmp_path / "tree.zarr", consolidated=False)
    with xr.open_datatree(tmp_path / "tree.zarr", engine="zarr", consolidated=False) as again:
        check(again, pixels)


@pytest.fixture
def memory(acquired: tuple[Path, dict[str, Array]]) -> Iterator[str]:
    fs = fsspec.filesystem("memory")
    fs.pipe({f"/tree/{file.name}": file.read_bytes() for file in acquired[0].parent.iterdir()})
    yield f"memory://tree/{MOVIE}"
    fs.rm("/tree", recursive=True)


@pytest.mark.parametrize("prefix", ["", "simplecache::"])
def test_memory(acquired: tuple[Path, dict[str, Array]], memory: str, prefix: str) -> None:
    check(xr.open_datatree(prefix + memory, engine="mrc"), acquired[1])


@pytest.mark.slow
def test_http_server_without_listing(acquired: tuple[Path, dict[str, Array]]) -> None:
    """Most servers list no folders, so that only the movie is found."""
    path, _ = acquired
    with servers.http_server(path.parent) as server, warnings.catch_warnings():
        warnings.simplefilter("ignore", MrcWarning)
        tree = xr.open_datatree(server.url(MOVIE), engine="mrc")
        np.testing.assert_array_equal(tree["data"].values.reshape(12, *FRAME), de.frames(12))


# the real files ---------------------------------------------------------------------------------


def test_real_acquisition(real_file: Callable[[str], Path]) -> None:
    path = real_file("direct_electron/20241021_00405_movie.mrc")
    tree = xr.open_datatree(path, engine="mrc")
    names = {
        "virtual/Virt 0": "0_Virt 0_sum", "virtual/Virt 1": "1_Virt 1_sum",
        "external/Ext 1": "ext1_Ext 1", "final": "final",
    }  # fmt: skip
    assert {group.lstrip("/") for group in tree.groups} == {"", "virtual", "external", *names}
    for group, name in names.items():
        raw = path.with_name(f"20241021_00405_{name}.mrc").read_bytes()
        expected = np.frombuffer(raw[1024:], "<f4").reshape(4, 8)
        np.testing.assert_array_equal(tree[group]["data"], expected)
        dims = ("ky", "kx") if group == "final" else ("scan_y", "scan_x")
        assert tree[group]["data"].dims == dims
