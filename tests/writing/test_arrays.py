"""What can be written: arrays, and lists of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import by_hand
import dask.array as da
import mrcz
import numpy as np
import pytest
import xarray as xr
from writes import field, opened, unwarned

from mrc_xarray import MrcError, to_mrc
from mrc_xarray.storage import LocalSource

IMAGES = [np.arange(24, dtype="i2").reshape(4, 6) + 100 * i for i in range(3)]


def by_name(image: Any, dims: tuple[str, ...] = ("y", "x"), **coords: Any) -> xr.DataArray:
    return xr.DataArray(image, coords, dims)


@pytest.mark.parametrize("name", ["list.mrc", "list.mrcz"])
@pytest.mark.parametrize(
    "images",
    [
        IMAGES,
        tuple(map(da.from_array, IMAGES)),
        [IMAGES[0], da.from_array(IMAGES[1]), IMAGES[2].astype(">i2")],
        [by_name(image).to_dataset(name="a") for image in IMAGES],
    ],
    ids=["numpy", "dask", "mixed", "datasets"],
)
def test_list_of_images_is_a_stack(tmp_path: Path, images: Any, name: str) -> None:
    path = tmp_path / name
    to_mrc(images, path)
    ds = opened(path)
    assert ds["data"].dims == ("image", "y", "x")
    np.testing.assert_array_equal(ds["data"], IMAGES)
    if name == "list.mrcz":
        np.testing.assert_array_equal(np.squeeze(mrcz.readMRC(path)[0]), IMAGES)
    else:
        assert [field(path, each) for each in ("nz", "mz", "ispg")] == [3, 1, 0]
        assert path.read_bytes()[1024:] == np.stack(IMAGES).tobytes()


def test_labels_of_the_images_are_joined(tmp_path: Path) -> None:
    (tmp_path / "tilt.mrcs").write_bytes(
        by_hand.mrc(np.stack(IMAGES), cella=(12, 8, 1), ispg=0, mz=1)
    )
    data = opened(tmp_path / "tilt.mrcs")["data"].chunk()
    images = [data.isel(image=i).assign_coords(tilt_angle=3.0 * i) for i in (2, 0)]
    to_mrc(images, tmp_path / "chosen.mrcz")
    chosen = opened(tmp_path / "chosen.mrcz")
    assert chosen.mrc.voxel_size == {"z": 1, "y": 2, "x": 2}
    np.testing.assert_array_equal(chosen["tilt_angle"], [6, 0])
    np.testing.assert_array_equal(chosen["data"], [IMAGES[2], IMAGES[0]])


def test_lazy_images_are_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nibbles = [image.astype("u1") & 15 for image in IMAGES]
    for i, image in enumerate(nibbles):
        raw = by_hand.mrc(by_hand.pack_4bit(image), 101, shape=(1, 4, 6), ispg=0, mz=1)
        (tmp_path / f"{i}.mrc").write_bytes(raw)
    images = [opened(tmp_path / f"{i}.mrc") for i in range(3)]
    reads: list[Any] = []
    monkeypatch.setattr(LocalSource, "read_into", lambda *_: reads.append(1))
    task = to_mrc(images, tmp_path / "stack.mrc", compute=False)
    assert not reads
    monkeypatch.undo()
    assert task is not None
    task.compute()
    # in the mode of the images
    assert field(tmp_path / "stack.mrc", "mode") == 101
    np.testing.assert_array_equal(opened(tmp_path / "stack.mrc")["data"], nibbles)


@unwarned
def test_masks_of_a_list_become_nan(tmp_path: Path) -> None:
    images = [np.ma.masked_less(image.astype("f4"), 3) for image in IMAGES]
    to_mrc(images, tmp_path / "masked.mrc")
    np.testing.assert_array_equal(
        opened(tmp_path / "masked.mrc")["data"], np.ma.stack(images).filled(np.nan)
    )


@pytest.mark.parametrize(
    ("images", "named"),
    [
        ([IMAGES[0], IMAGES[1][:3]], r"array 1 of the list is int16 of shape \(3, 6\).*\(4, 6\)"),
        ([IMAGES[0], IMAGES[1], IMAGES[2].astype("f4")], "array 2 of the list is float32.*int16"),
        ([IMAGES[0], np.stack(IMAGES)], "array 1 of the list"),
        ([IMAGES[0], 3], "array 1 of the list is 3"),
        ([by_name(IMAGES[0]), IMAGES[1]], "either all with labels"),
        ([by_name(IMAGES[0]), by_name(IMAGES[1], ("x", "y"))], r"\('x', 'y'\)"),
        (
            [by_name(IMAGES[0], x=range(6)), by_name(IMAGES[1], x=range(1, 7))],
            "coordinates: .*'x'",
        ),
        ([], r"shape \(0,\)"),
    ],
)
def test_lists_that_are_no_stack_are_refused(tmp_path: Path, images: Any, named: str) -> None:
    with pytest.raises(MrcError, match=named):
        to_mrc(images, tmp_path / "list.mrc")
    assert not any(tmp_path.iterdir())


def test_list_is_appended_or_fills_a_region(tmp_path: Path) -> None:
    path = tmp_path / "live.mrcs"
    to_mrc(IMAGES[:2], path, append_dim="image")
    to_mrc([IMAGES[2]], path, append_dim="image")
    to_mrc([IMAGES[2], IMAGES[0]], path, region={"image": slice(0, 2)})
    np.testing.assert_array_equal(opened(path)["data"], [IMAGES[2], IMAGES[0], IMAGES[2]])
