from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import by_hand
import numpy as np
import pytest
import xarray as xr

from mrc_xarray.cli import main

PIXELS = np.random.default_rng(0).normal(size=(3, 4, 5)).astype("f4")


class FakeViewer:
    """The part of napari's and ndv's viewers that is used."""

    def __init__(self, data: Any = None, **options: Any) -> None:
        self.layers: list[tuple[str, Any, dict[str, Any]]] = []
        self.scale_bar = SimpleNamespace(visible=False)
        self.data, self.options, self.is_shown = data, options, False

    def add_image(self, pixels: Any, **options: Any) -> None:
        self.layers.append(("image", pixels, options))

    def add_labels(self, pixels: Any, **options: Any) -> None:
        self.layers.append(("labels", pixels, options))

    def show(self) -> None:
        self.is_shown = True


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The event loops that were started, of two viewers that seem to be installed."""
    started: list[str] = []
    napari = SimpleNamespace(Viewer=FakeViewer, run=lambda: started.append("napari"))
    ndv = SimpleNamespace(ArrayViewer=FakeViewer, run_app=lambda: started.append("ndv"))
    monkeypatch.setitem(sys.modules, "napari", napari)
    monkeypatch.setitem(sys.modules, "ndv", ndv)
    return started


@pytest.fixture
def data(tmp_path: Path) -> xr.DataArray:
    (tmp_path / "a.mrc").write_bytes(by_hand.mrc(PIXELS, cella=(10, 8, 6), origin=(3, 0, 0)))
    return xr.open_dataarray(tmp_path / "a.mrc", engine="mrc", units="nm")


def test_napari_is_the_first_choice(data: xr.DataArray, runs: list[str]) -> None:
    viewer = data.mrc.view()
    assert runs == ["napari"]
    [(kind, pixels, options)] = viewer.layers
    assert (kind, options["scale"], options["units"][0]) == ("image", (2.0, 2.0, 2.0), "angstrom")
    np.testing.assert_array_equal(pixels, PIXELS)
    labels = np.zeros((3, 9, 9), "i2")
    labels[:, 2:7, 2:7] = 1
    viewer = xr.Dataset({"data": (("z", "y", "x"), labels)}).mrc.view()
    assert viewer.layers[0][0] == "labels"


def test_ndv_is_the_second(
    data: xr.DataArray, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "napari", None)
    [viewer] = data.mrc.view()
    assert (runs, viewer.is_shown) == (["ndv"], True)
    assert viewer.data.dims == ("z", "y", "x")
    assert viewer.data.x.values.tolist() == [3, 5, 7, 9, 11]
    np.testing.assert_array_equal(viewer.data, PIXELS)
    assert set(viewer.options) == {"default_lut"}
    amplitude, phase = (data + 1j).mrc.view()
    assert (amplitude.data.dtype.kind, phase.data.dtype.kind) == ("f", "f")
    [viewer] = xr.DataArray(np.zeros((4, 5, 3), "u1"), dims=("y", "x", "rgb")).mrc.view()
    assert viewer.options == {"channel_mode": "rgba"}


def test_neither_is_installed(data: xr.DataArray, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("napari", "ndv"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        ImportError, match=r'view needs napari or ndv: pip install "napari\[all\]"'
    ):
        data.mrc.view()


def test_the_command(
    tmp_path: Path, runs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    shown: list[FakeViewer] = []

    class Remembered(FakeViewer):
        def __init__(self) -> None:
            super().__init__()
            shown.append(self)

    sys.modules["napari"].Viewer = Remembered
    for name in ("a.mrc", "b.mrc"):
        (tmp_path / name).write_bytes(by_hand.mrc(PIXELS))
    options = ["--layout", "image_stack", "--voxel-size", "4", "--mode0", "uint8"]
    assert main(["view", str(tmp_path / "a.mrc"), str(tmp_path / "b.mrc"), *options]) == 0
    assert [layer[2]["name"] for layer in shown[0].layers] == ["a.mrc", "b.mrc"]
    assert shown[0].layers[0][2]["axis_labels"] == ("image", "y", "x")
    assert shown[0].layers[0][2]["scale"] == (1.0, 4.0, 4.0)
    assert main(["view", str(tmp_path / "none.mrc")]) == 1
    assert "none.mrc" in capsys.readouterr().err
    assert runs == ["napari"]
