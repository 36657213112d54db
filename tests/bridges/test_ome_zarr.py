"""OME-Zarr: values and metadata by hand, and by other programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import by_hand
import dask.array as da
import fsspec
import numpy as np
import pytest
import servers
import xarray as xr
import zarr
from distributed import Client

from mrc_xarray import MrcError, open_ome_zarr, to_ome_zarr
from mrc_xarray.bridges import ome_zarr
from mrc_xarray.bridges.ome_axes import Axis
from mrc_xarray.cli import main

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(16)
PIXELS = RNG.integers(-(2**15), 2**15, (7, 9, 11), "i2")
# 2.5 Å, and not at the origin
MRC = by_hand.mrc(PIXELS, cella=(27.5, 22.5, 17.5), origin=(-20, 5, 30), labels=(b"ours",))


@pytest.fixture
def volume(tmp_path: Path) -> xr.Dataset:
    path = tmp_path / "tomo.mrc"
    path.write_bytes(MRC)
    return xr.open_dataset(path, engine="mrc", chunks={})


def metadata(store: Path) -> Any:
    return json.loads((store / "zarr.json").read_text())["attributes"]["ome"]


def transforms(scale: list[float], translation: list[float]) -> list[dict[str, Any]]:
    return [
        {"type": "scale", "scale": scale},
        {"type": "translation", "translation": translation},
    ]


def volume_of(
    pixels: Any, dims: str = "zyx", unit: str = "angstrom", step: float = 2.5
) -> xr.DataArray:
    """Return labelled pixels with regular coordinates along the last dimensions."""
    coords = {
        dim: (dim, step * np.arange(n), {"units": unit})
        for dim, n in zip(dims[::-1], pixels.shape[::-1], strict=False)
    }
    return xr.DataArray(pixels, dims=list(dims)[-pixels.ndim :], coords=coords)


def test_volume_by_hand(volume: xr.Dataset, tmp_path: Path) -> None:
    store = tmp_path / "tomo.ome.zarr"
    to_ome_zarr(volume, store, levels=3)
    assert metadata(store) == {
        "version": "0.5",
        "multiscales": [
            {
                "name": "tomo",
                "axes": [{"name": n, "type": "space", "unit": "angstrom"} for n in "zyx"],
                "datasets": [
                    {
                        "path": "scale0/data",
                        "coordinateTransformations": transforms([2.5] * 3, [30, 5, -20]),
                    },
                    {
                        "path": "scale1/data",
                        "coordinateTransformations": transforms([5] * 3, [31.25, 6.25, -18.75]),
                    },
                    {
                        "path": "scale2/data",
                        "coordinateTransformations": transforms([10] * 3, [33.75, 8.75, -16.25]),
                    },
                ],
                "type": "mean",
            }
        ],
    }
    first = xr.open_dataset(store, engine="zarr", group="scale0")
    xr.testing.assert_identical(first.load(), volume.load())
    assert first.mrc.header.label[0].strip() == "ours"
    blocks = PIXELS[:6, :8, :10].reshape(3, 2, 4, 2, 5, 2).astype("f8")
    second = xr.open_dataset(store, engine="zarr", group="scale1")
    np.testing.assert_array_equal(second.data, np.floor(blocks.mean((1, 3, 5)) + 0.5))
    assert second.data.dtype == "i2"
    assert second.z.values.tolist() == [31.25, 36.25, 41.25]
    assert second.mrc.voxel_size == {"z": 5.0, "y": 5.0, "x": 5.0}
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".part")]


@pytest.mark.slow
def test_levels_and_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Levels until none is larger; one chunk of a level is made from chunks of the one before."""
    monkeypatch.setattr(ome_zarr, "_SMALL", 4)
    pixels = RNG.normal(size=(5, 17, 12)).astype("f4")
    to_ome_zarr(volume_of(da.from_array(pixels, chunks=(2, 5, 7))), tmp_path / "a.zarr")
    root = zarr.open_group(tmp_path / "a.zarr", mode="r")
    arrays = [root[f"scale{i}/data"] for i in range(3)]
    assert "scale3" not in root
    assert [array.shape for array in arrays] == [(5, 17, 12), (2, 8, 6), (1, 4, 3)]
    assert [array.chunks for array in arrays] == [(4, 4, 4), (2, 4, 4), (1, 4, 3)]
    for array in arrays[1:]:
        n = [a // 2 * 2 if a > 1 else a for a in pixels.shape]
        even = pixels[: n[0], : n[1], : n[2]]
        blocks = even.reshape([k for a in n for k in (max(a // 2, 1), min(a, 2))])
        pixels = blocks.mean((1, 3, 5))
        np.testing.assert_allclose(array[:], pixels, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ("auto", (1, 128, 128, 128)),
        (64, (1, 64, 64, 64)),
        ({"x": np.int64(5), "y": -1}, (1, 128, 20, 5)),
    ],
)
def test_chunk_sizes(chunks: Any, expected: tuple[int, ...]) -> None:
    data = xr.DataArray(np.zeros((3, 10, 20, 30), "u1"), dims=("rgb", "z", "y", "x"))
    axes = tuple(Axis(name=dim, kind="space", size=9) for dim in "zyx")
    assert tuple(ome_zarr._chunk_sizes(chunks, data, axes).values()) == expected


@pytest.mark.parametrize(
    ("section", "expected"),
    [((512, 512), (128,) * 3), ((1024, 1024), (32, 256, 256)), ((4096, 4096), (2, 1024, 1024))],
)
def test_rows_of_chunks_have_few_sections(section: tuple[int, ...], expected: Any) -> None:
    data = volume_of(np.broadcast_to(np.float32(0), (500, *section)))
    found = ome_zarr._default_chunks(data, ["z", "y", "x"])
    assert tuple(found.values()) == expected
    assert expected[0] * section[0] * section[1] * 4 <= 256 * 1024**2


KINDS = {
    "image": by_hand.mrc(PIXELS[:1].astype("f4"), ispg=0, mz=1, cella=(27.5, 22.5, 0)),
    "one section": by_hand.mrc(PIXELS[:1], cella=(27.5, 22.5, 2.5)),
    "one pixel": by_hand.mrc(PIXELS[:1, :1, :1]),
    "stack": by_hand.mrc(PIXELS, ispg=0, mz=1, cella=(27.5, 22.5, 17.5)),
    "stack of volumes": by_hand.mrc(PIXELS[:6], ispg=401, mz=3, cella=(27.5, 22.5, 7.5)),
    "other byte order": by_hand.mrc(PIXELS.astype(">f4"), cella=(27.5, 22.5, 17.5)),
    "no voxel size": by_hand.mrc(PIXELS, cella=(0, 0, 0)),
    "complex": by_hand.mrc(PIXELS.astype("c8")),
    "float16": by_hand.mrc(RNG.normal(size=(4, 5, 6)).astype("f2")),
    "RGB": by_hand.mrc(RNG.integers(0, 256, (4, 5, 18), "u1"), 16, shape=(4, 5, 6)),
    "4 bits": by_hand.mrc(by_hand.pack_4bit(PIXELS.astype("u1") % 16), 101, shape=(7, 9, 11)),
    "NaN": by_hand.mrc(np.full((4, 4, 4), np.nan, "f4")),
}
LEADING = {"stack": ("image",), "stack of volumes": ("volume",), "RGB": ("rgb",)}
# not always a volume: one section is an image
SPATIAL = {"image": "yx", "stack": "yx"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind(kind: str, tmp_path: Path) -> None:
    """Other programs read what is written, and the way back has the labels and the header."""
    import ngff_zarr
    import yaozarrs

    (tmp_path / "a.mrc").write_bytes(KINDS[kind])
    ds = xr.open_dataset(tmp_path / "a.mrc", engine="mrc", chunks={})
    store = tmp_path / "a.ome.zarr"
    to_ome_zarr(ds, store, levels=1 if kind == "one pixel" else 2)
    yaozarrs.validate_zarr_store(store)
    dims = (*LEADING.get(kind, ()), *SPATIAL.get(kind, "zyx"))
    images = ngff_zarr.from_ngff_zarr(store, validate=True).images
    assert tuple(images[0].dims) == dims
    expected = ds.data.transpose(*dims)
    np.testing.assert_array_equal(images[0].data, expected)
    is_known = kind not in ("no voxel size",)
    unit = {"angstrom"} if is_known else set()
    assert {images[0].axes_units[dim] for dim in SPATIAL.get(kind, "zyx")} - {None} == unit
    assert [images[0].scale[dim] for dim in dims] == [
        ds.mrc.voxel_size.get(dim, 1.0) for dim in dims
    ]
    # the axes and the order are those of the dimensions
    found = open_ome_zarr(store)
    xr.testing.assert_identical(found.load(), ds.load())
    assert found.mrc.header == ds.mrc.header


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["u1", "i2", "f2", "f4"])
@pytest.mark.parametrize("shape", [(7, 9, 11), (5, 30)])
def test_values_and_transforms_of_ngff_zarr(
    dtype: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    import ngff_zarr

    data = volume_of((RNG.normal(size=shape) * 30 + 60).astype(dtype))
    to_ome_zarr(data, tmp_path / "a.ome.zarr", levels=3)
    dims = [str(dim) for dim in data.dims]
    image = ngff_zarr.to_ngff_image(
        data.values,
        dims=dims,
        scale=dict.fromkeys(dims, 2.5),
        translation=dict.fromkeys(dims, 0.0),
        axes_units=dict.fromkeys(dims, "angstrom"),
    )
    method = ngff_zarr.Methods.DASK_BIN_SHRINK
    theirs = ngff_zarr.to_multiscales(image, scale_factors=[2, 4], method=method).images
    ours = ngff_zarr.from_ngff_zarr(tmp_path / "a.ome.zarr", validate=True).images
    assert len(ours) == 3
    for found, expected in zip(ours, theirs, strict=True):
        values, wanted = np.asarray(found.data), np.asarray(expected.data)
        # ngff-zarr averages float16 in float64
        np.testing.assert_allclose(values, wanted, rtol=1e-3 if dtype == "f2" else 2e-6)
        assert values.dtype == wanted.dtype
        if np.dtype(dtype).kind in "iu":
            np.testing.assert_array_equal(values, wanted)
        assert (found.scale, found.translation) == (expected.scale, expected.translation)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (xr.DataArray(np.ones((2, 3, 4, 5)), dims=("scan_y", "scan_x", "ky", "kx")),
         r"\(scan_y, scan_x, ky, kx\), and OME-Zarr has at most three of space"),
        (xr.DataArray(np.ones((2, 3, 4, 5)), dims=("image", "channel", "y", "x")),
         "one of images or channels. Select or combine them first, or write a plain Zarr store"),
        (volume_of(np.ones((3, 4, 5))).isel(z=[0, 2, 1]), "z is not regular and increasing"),
        (volume_of(np.ones((3, 4, 5))).isel(y=slice(None, None, -1)), r"data\.sortby\('y'\)"),
        (np.ones(3), "two dimensions"),
    ],
)  # fmt: skip
def test_what_ome_zarr_can_not_hold(data: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(MrcError, match=message):
        to_ome_zarr(data, tmp_path / "a.ome.zarr")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": 0}, "levels is 0; accepted: 'auto', or 1 to 3 for this size"),
        ({"levels": 4}, "levels is 4"),
        ({"levels": True}, "levels is True"),
        ({"chunks": 0}, "chunks is 0; accepted: 'auto', a positive integer, or such integers by"),
        ({"chunks": (4, 4)}, r"chunks is \(4, 4\); .* dimension, of z, y, x"),
        ({"chunks": "big"}, "chunks is 'big'"),
        ({"chunks": {"q": 4}}, "chunks is {'q': 4}"),
        ({"method": "median"}, "method is 'median'; accepted: 'mean', 'mode'"),
        ({"progress": "no"}, "progress is 'no'"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        to_ome_zarr(np.ones((3, 4, 5)), tmp_path / "a.ome.zarr", **options)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("dims", "axes"),
    [
        ("time y x", [("time", "time", "second"), ("y", "space", ""), ("x", "space", "")]),
        ("energy y x", [("energy", "", "eV"), ("y", "space", ""), ("x", "space", "")]),
        ("image ky kx", [("image", "", ""), ("ky", "space", "1/nm"), ("kx", "space", "1/nm")]),
        ("time channel z y x", [("time", "time", "second"), ("channel", "channel", ""),
                                *[(dim, "space", "") for dim in "zyx"]]),
        # the specification demands time, then channels, then space
        ("image time y x", [("time", "time", "second"), ("image", "", ""),
                            ("y", "space", ""), ("x", "space", "")]),
    ],
)  # fmt: skip
def test_axes(dims: str, axes: list[tuple[str, str, str]]) -> None:
    from mrc_xarray.bridges.ome_axes import axes_of

    units = {"time": "s", "energy": "eV", "ky": "1/nm", "kx": "1/nm"}
    names = dims.split()
    coords = {name: (name, [0.0, 0.5], {"units": unit}) for name, unit in units.items()}
    data = xr.DataArray(
        np.ones((2,) * len(names)), dims=names, coords={n: coords[n] for n in names if n in units}
    )
    found = axes_of(data, "a.zarr")
    assert [(axis.name, axis.kind, axis.unit) for axis in found] == axes
    assert [axis.step for axis in found] == [0.5 if axis.unit else 1.0 for axis in found]


def test_coordinates_of_a_tilt_series(tmp_path: Path) -> None:
    """Values per image are preserved; nm become ångström in the metadata only."""
    pixels = RNG.integers(0, 9, (3, 4, 6), "u1")
    data = volume_of(pixels, "zyx", "nm", 0.2).rename(z="image").drop_vars("image")
    angles = ("image", [0.0, 3.0, -3.0], {"units": "degree"})
    names = ("image", ["a", "bc", "d"])
    data = data.assign_coords(tilt_angle=angles, name=names, exposure=1.5)
    to_ome_zarr(data, tmp_path / "a.ome.zarr", levels=2, method="mode")
    level = xr.open_dataset(tmp_path / "a.ome.zarr", engine="zarr", group="scale1")
    assert level.data.shape == (3, 2, 3)
    assert level.tilt_angle.values.tolist() == [0, 3, -3]
    assert level.tilt_angle.attrs == {"units": "degree"}
    assert float(level.exposure) == 1.5
    assert level.name.values.tolist() == ["a", "bc", "d"]
    assert level.x.values.tolist() == pytest.approx([0.1, 0.5, 0.9])
    assert level.x.attrs["units"] == "nm"
    image = metadata(tmp_path / "a.ome.zarr")["multiscales"][0]
    assert image["type"] == "mode"
    assert image["axes"][0] == {"name": "image", "type": "image"}
    assert image["datasets"][1]["coordinateTransformations"] == transforms([1, 4, 4], [0, 1, 1])


@pytest.mark.slow
def test_target_is_replaced_only_when_asked(tmp_path: Path) -> None:
    store = tmp_path / "an odd näme #1.ome.zarr"
    data = volume_of(np.ones((2, 3, 4), "f4"))
    to_ome_zarr(data, store, levels=1)
    with pytest.raises(FileExistsError, match="overwrite=True replaces it: "):
        to_ome_zarr(data * 2, store)
    # from itself
    itself = xr.open_dataset(store, engine="zarr", group="scale0", chunks={})
    to_ome_zarr(itself + 1, store, overwrite=True, levels=1)
    np.testing.assert_array_equal(open_ome_zarr(store).data, 2)
    assert os.listdir(tmp_path) == [store.name]


def test_folder_of_other_files_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(FileExistsError, match="no Zarr store, and is not replaced"):
        to_ome_zarr(np.ones((2, 3)), tmp_path, overwrite=True)
    with pytest.raises(FileNotFoundError, match=r"No such directory: '.*missing'"):
        to_ome_zarr(np.ones((2, 3)), tmp_path / "missing" / "a.ome.zarr")
    with pytest.raises(MrcError, match=r"notes\.txt: this is not a Zarr group"):
        open_ome_zarr(tmp_path / "notes.txt")
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_objects_of_other_programs_are_not_replaced(tmp_path: Path) -> None:
    fs = fsspec.filesystem("memory")
    bucket = f"memory://{tmp_path.name}"
    fs.pipe(f"{bucket}/notes.txt", b"")
    with pytest.raises(FileExistsError, match="no Zarr store, and is not replaced"):
        to_ome_zarr(np.ones((2, 3)), bucket, overwrite=True)
    assert fs.exists(f"{bucket}/notes.txt")


def test_failure_leaves_nothing(tmp_path: Path) -> None:
    def fail(block: Array) -> Array:
        raise ZeroDivisionError

    failing = da.ones((2, 3, 4), dtype="f4").map_blocks(fail, meta=np.empty((0, 0, 0), "f4"))
    with pytest.raises(ZeroDivisionError):
        to_ome_zarr(failing, tmp_path / "a.ome.zarr")
    assert not os.listdir(tmp_path)


@pytest.mark.slow
def test_store(tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}/a.ome.zarr"
    data = volume_of(RNG.normal(size=(4, 6, 8)).astype("f4"))
    to_ome_zarr(data, url, levels=2)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        to_ome_zarr(data, url)
    to_ome_zarr(data * 2, url, levels=2, overwrite=True)
    np.testing.assert_array_equal(open_ome_zarr(url).data, 2 * data)
    assert open_ome_zarr(url, level=1).sizes == {"z": 2, "y": 3, "x": 4}
    fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)


class StorePath:
    """What universal_pathlib gives for a URL: no `os.PathLike`, but a store and a name in it."""

    def __init__(self, url: str) -> None:
        self.fs, self.path = fsspec.url_to_fs(url)
        self.storage_options: dict[str, Any] = {}
        self._url = url

    def __str__(self) -> str:
        return self._url


@pytest.mark.slow
def test_over_http_and_as_a_path_of_a_store(tmp_path: Path) -> None:
    data = volume_of(RNG.normal(size=(4, 6, 8)).astype("f4"))
    url = f"memory://{tmp_path.name}/a.ome.zarr"
    to_ome_zarr(data, StorePath(url), levels=2)  # type: ignore[arg-type]
    np.testing.assert_array_equal(open_ome_zarr(url).data, data)
    to_ome_zarr(data, tmp_path / "a.ome.zarr", levels=2)
    with servers.http_server(tmp_path) as http:
        found = open_ome_zarr(http.url("a.ome.zarr"), level=1)
        assert found.sizes == {"z": 2, "y": 3, "x": 4}
        target = tmp_path / "b.mrc"
        assert main(["convert", "--quiet", http.url("a.ome.zarr"), str(target)]) == 0
        with xr.open_dataset(target, engine="mrc") as back:
            np.testing.assert_array_equal(back.data, data)
    fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)


@pytest.mark.slow
def test_on_a_cluster(tmp_path: Path, client: Client) -> None:
    pixels = RNG.normal(size=(6, 8, 10)).astype("f4")
    with client.as_current():
        lazy = volume_of(da.from_array(pixels, chunks=(2, -1, -1)))
        to_ome_zarr(lazy, tmp_path / "a.ome.zarr", levels=2, chunks=2)
    np.testing.assert_array_equal(open_ome_zarr(tmp_path / "a.ome.zarr").data, pixels)
    blocks = pixels.reshape(3, 2, 4, 2, 5, 2).mean((1, 3, 5))
    found = open_ome_zarr(tmp_path / "a.ome.zarr", level=1)
    np.testing.assert_allclose(found.data, blocks, rtol=1e-5, atol=1e-6)


def test_zarr_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zarr", None)
    for call in (lambda: to_ome_zarr(np.ones((2, 2)), tmp_path / "a"), lambda: open_ome_zarr("a")):
        with pytest.raises(ImportError, match="pip install zarr"):
            call()


# VmHWM, because ru_maxrss starts with the value of the parent process
PEAK = """
import sys
from mrc_xarray.cli import main

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))

small, large = sys.argv[1:]
assert main(["convert", small, small + ".ome.zarr"]) == 0
before = peak()
assert main(["convert", large, large + ".ome.zarr"]) == 0
print(before, peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the peak is read from /proc")
def test_memory_does_not_grow_with_the_volume(tmp_path: Path) -> None:
    """A volume of 768 MiB, after one of 256 MiB; the pixels are a hole in the file."""
    paths = []
    for n in (1024, 3072):
        paths.append(tmp_path / f"{n}.mrc")
        with paths[-1].open("wb") as file:
            file.write(by_hand.header((n, 256, 256), 2))
            file.truncate(1024 + 4 * n * 256 * 256)
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *map(str, paths)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    _, growth = map(int, done.stdout.split())
    assert growth / 1024 < 120
