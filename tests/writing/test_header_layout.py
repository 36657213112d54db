"""``edit_header(layout=)`` changes ISPG, MZ and CELLA.z; mrcfile's methods are the oracle."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import by_hand
import mrcfile
import mrcz_by_hand
import numpy as np
import pytest
import xarray as xr
from writes import field

from mrc_xarray import MrcError, MrcWarning, edit_header

PIXELS = np.random.default_rng(6).integers(-(2**15), 2**15, (8, 12, 10), "i2")
ORDERS = ("<", ">")
STACK = {"ispg": 0, "mz": 1, "cella": (20, 24, 3)}
VOLUME = {"ispg": 1, "mz": 8, "cella": (20, 24, 24)}
VOLUMES = {"ispg": 401, "mz": 4, "cella": (20, 24, 12)}
FLAT = {"cella": (20, 24, 0)}


def layout_of(path: Path) -> Any:
    return xr.open_dataset(path, engine="mrc")["data"].attrs["mrc_layout"]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("before", "edit", "after"),
    [
        (VOLUME, {"layout": "image_stack"}, STACK),
        (STACK, {"layout": "volume"}, VOLUME),
        (STACK, {"layout": "volume_stack", "mz": 4}, VOLUMES),
        (VOLUMES, {"layout": "volume"}, VOLUME),
        (VOLUMES, {"layout": "volume_stack"}, VOLUMES),
        (VOLUMES, {"layout": "volume_stack", "mz": 2}, VOLUMES | {"mz": 2, "cella": (20, 24, 6)}),
        # the space group of a crystal
        (VOLUME | {"ispg": 19}, {"layout": "volume_stack", "mz": 4}, VOLUMES | {"ispg": 419}),
        (VOLUMES | {"ispg": 419}, {"layout": "volume"}, VOLUME | {"ispg": 19}),
        (VOLUME | {"ispg": 19}, {"layout": "volume"}, VOLUME | {"ispg": 19}),
        # an unknown voxel size is not invented
        (VOLUME | FLAT, {"layout": "image_stack"}, STACK | FLAT),
        # IMOD's volumes, and with a voxel size in the same call
        (VOLUME | {"ispg": 0}, {"layout": "volume"}, VOLUME),
        (VOLUME, {"layout": "image_stack", "voxel_size": 5}, STACK | {"cella": (50, 60, 3)}),
    ],
    ids=str,
)  # fmt: skip
def test_layout(
    path: Path, before: dict[str, Any], edit: dict[str, Any], after: dict[str, Any], order: str
) -> None:
    made: dict[str, Any] = {"byteorder": order, "extended": b"same" * 20, "exttyp": b"CCP4"}
    path.write_bytes(by_hand.mrc(PIXELS, **made, **before))
    edit_header(path, **edit)
    assert path.read_bytes() == by_hand.mrc(PIXELS, **made, **after)
    assert layout_of(path) == edit["layout"]


@pytest.mark.parametrize("kind", ["image_stack", "volume"])
def test_as_mrcfile(tmp_path: Path, kind: str) -> None:
    ours, theirs = tmp_path / "ours.mrc", tmp_path / "theirs.mrc"
    content = by_hand.mrc(PIXELS, **(VOLUME if kind == "image_stack" else STACK))
    for path in (ours, theirs):
        path.write_bytes(content)
    edit_header(ours, layout=kind)
    with mrcfile.open(theirs, "r+") as mrc:
        voxel_size = mrc.voxel_size.item()
        getattr(mrc, f"set_{kind}")()
    assert field(ours, "ispg") == field(theirs, "ispg")
    assert field(ours, "mz") == field(theirs, "mz")
    with mrcfile.open(ours) as mrc:
        # which mrcfile itself changes
        assert mrc.voxel_size.item() == voxel_size
        assert getattr(mrc, f"is_{kind}")()


def test_single_image(path: Path) -> None:
    path.write_bytes(by_hand.mrc(PIXELS[:1], ispg=1, mz=1, cella=(20, 24, 2)))
    assert layout_of(path) == "volume"
    edit_header(path, layout="image")
    assert path.read_bytes() == by_hand.mrc(PIXELS[:1], ispg=0, mz=1, cella=(20, 24, 2))
    edit_header(path, layout="volume")
    assert layout_of(path) == "volume"


def test_sections_along_another_axis(path: Path) -> None:
    """MZ is about the axis z, which counts the rows here."""
    turned: dict[str, Any] = {"mapc": 1, "mapr": 3, "maps": 2, "mx": 10, "my": 8, "mz": 12}
    path.write_bytes(by_hand.mrc(PIXELS, **turned, cella=(10, 8, 24)))
    edit_header(path, layout="image_stack")
    assert xr.open_dataset(path, engine="mrc").mrc.voxel_size["z"] == 2
    edit_header(path, layout="volume")
    assert path.read_bytes() == by_hand.mrc(PIXELS, **turned, cella=(10, 8, 24))


def test_mrcz(tmp_path: Path) -> None:
    path = tmp_path / "a.mrcz"
    path.write_bytes(before := mrcz_by_hand.file(mrcz_by_hand.chunks()))
    assert layout_of(path) == "image_stack"
    edit_header(path, layout="volume")
    assert layout_of(path) == "volume"
    edit_header(path, layout="image_stack")
    assert layout_of(path) == "image_stack"
    assert path.read_bytes()[1024:] == before[1024:]


def test_name_that_says_another_layout(tmp_path: Path) -> None:
    path = tmp_path / "a.map"
    path.write_bytes(by_hand.mrc(PIXELS, **VOLUME))
    with pytest.warns(MrcWarning, match=r"a\.map: .*the name ends in \.map.*layout='image_stack'"):
        edit_header(path, layout="image_stack")
    assert path.read_bytes() == by_hand.mrc(PIXELS, **STACK)


@pytest.mark.parametrize(
    ("edit", "error", "match"),
    [
        ({"layout": "stack"}, ValueError, "accepted: 'image', 'image_stack', 'volume', 'vol"),
        ({"layout": "image"}, MrcError, r"NZ \(bytes 8–11\) is 8; accepted: 1"),
        ({"layout": "volume_stack", "mz": 3}, MrcError, r"MZ .* is 3; accepted: a divisor of NZ"),
        ({"layout": "volume_stack", "mz": 0}, MrcError, "a divisor of NZ"),
        ({"layout": "volume", "mz": 4}, TypeError, "layout= sets mz as well"),
        ({"layout": "volume", "ispg": 4}, TypeError, "layout= sets ispg as well"),
        ({"layout": "volume", "cella": (1, 1, 1)}, TypeError, "layout= sets cella as well"),
    ],
)
def test_layout_that_is_not_possible(
    path: Path, edit: dict[str, Any], error: type[Exception], match: str
) -> None:
    path.write_bytes(before := by_hand.mrc(PIXELS, **STACK))
    with pytest.raises(error, match=match):
        edit_header(path, **edit)
    assert path.read_bytes() == before
    with pytest.raises(MrcError, match=r"MZ .* is 1; accepted: a divisor"):
        edit_header(path, layout="volume_stack")


def test_file_that_can_not_be_opened(path: Path) -> None:
    path.write_bytes(by_hand.mrc(PIXELS, mode=77, **VOLUME))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        edit_header(path, layout="image_stack")
    assert path.read_bytes() == by_hand.mrc(PIXELS, mode=77, **STACK)
