from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import by_hand
import numpy as np
import pytest
import xarray as xr

import mrc_xarray
from mrc_xarray import MrcError, MrcWarning, from_hyperspy, from_rosettasciio

# HyperSpy and its dependencies warn about each other when they are imported
warnings_of_others = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_signals_of_rosettasciio(real_file: Callable[[str], Path]) -> None:
    from rsciio.digitalmicrograph import file_reader

    for name in ("2D_test_STEM_image.dm3", "2D_test_diffraction_pattern.dm3"):
        path = real_file(f"dm/{name}")
        [signal] = file_reader(str(path))
        found = from_rosettasciio(signal)
        ours = xr.open_dataarray(path, engine="dm", units="nm")
        assert (found.name, found.dims, found.dtype) == ("data", ours.dims, ours.dtype)
        np.testing.assert_array_equal(found, ours)
        for dim in ours.dims:
            assert found[dim].units == ours[dim].units
            np.testing.assert_allclose(found[dim], ours[dim], rtol=1e-7)
        assert found.voltage_kV == ours.voltage_kV == 200
        assert found.title == ours.title
        assert found.mrc.metadata["metadata"]["General"]["title"] == ours.title


def test_a_spectrum_of_rosettasciio(real_file: Callable[[str], Path]) -> None:
    from rsciio.digitalmicrograph import file_reader

    path = real_file("dm/1D_test-EELS_spectrum.dm3")
    found = from_rosettasciio(file_reader(str(path), lazy=True)[0])
    assert found.chunks is not None
    xr.testing.assert_allclose(found, xr.open_dataarray(path, engine="dm"))


def test_a_signal_becomes_a_file(tmp_path: Path) -> None:
    axes = [
        {"name": "x", "size": 3, "scale": 0.5, "offset": 1, "units": "nm", "navigate": True},
        {"name": "y", "size": 4, "scale": 0.1, "units": "1/nm", "navigate": False},
        {"name": "x", "size": 5, "scale": 0.1, "units": "1/nm", "navigate": False},
    ]
    pixels = np.arange(60, dtype="u2").reshape(3, 4, 5)
    data = from_rosettasciio({"data": pixels, "axes": axes})
    assert data.dims == ("scan_x", "ky", "kx")
    assert np.shares_memory(data.values, pixels)
    data.mrc.to_file(tmp_path / "scan.mrcz")
    back = xr.open_dataarray(tmp_path / "scan.mrcz", engine="mrc", units="nm")
    for name in data.dims:
        xr.testing.assert_identical(back[name].variable, data[name].variable)
    np.testing.assert_array_equal(back, pixels)


def test_colours_are_a_dimension(tmp_path: Path) -> None:
    colours = np.arange(24, dtype="u1").reshape(2, 4, 3)
    pixels = colours.view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    axes = [{"name": "y", "size": 2}, {"name": "x", "size": 4}]
    data = from_rosettasciio({"data": pixels, "axes": axes})
    assert data.dims == ("y", "x", "rgb")
    np.testing.assert_array_equal(data, colours)
    with pytest.warns(MrcWarning, match="MODE 16"):
        data.mrc.to_file(tmp_path / "rgb.mrc")
    np.testing.assert_array_equal(xr.open_dataarray(tmp_path / "rgb.mrc", engine="mrc"), colours)


def test_data_without_axes() -> None:
    assert from_rosettasciio({"data": np.zeros((2, 3))}).dims == ("y", "x")
    assert from_rosettasciio({"data": [[1, 2]]}).dims == ("y", "x")
    without_sizes = from_rosettasciio(
        {"data": [[1, 2]], "axes": [{}, {"scale": 2, "units": "nm"}]}
    )
    assert without_sizes.x.values.tolist() == [0, 2]
    assert from_rosettasciio({"data": np.array([3.0]), "axes": []}).item() == 3


def test_what_is_no_signal() -> None:
    with pytest.raises(TypeError, match=r"is list; accepted: a dictionary.*file_reader\(name\)"):
        from_rosettasciio([{}])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="is list; accepted: a HyperSpy signal"):
        from_hyperspy([])  # type: ignore[arg-type]
    with pytest.raises(MrcError, match="ragged"):
        from_rosettasciio({"data": np.empty(2, object)})
    with pytest.raises(MrcError, match=r"has 1 axes, and data of shape \(2, 3\)"):
        from_rosettasciio({"data": np.empty((2, 3)), "axes": [{"size": 2}]})


def test_without_hyperspy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("hyperspy", "hyperspy.io", "hyperspy.axes"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match="pip install hyperspy"):
        xr.DataArray(np.zeros((2, 2)), dims=("y", "x")).mrc.to_hyperspy()
    with pytest.raises(ImportError, match="'x\\*\\*2' needs hyperspy: pip install hyperspy"):
        from_rosettasciio(
            {"data": np.zeros(2), "axes": [{"expression": "x**2", "size": 2, "units": "nm"}]}
        )


FILES: dict[str, tuple[np.ndarray[Any, Any], dict[str, Any], str]] = {
    "volume": (np.arange(60).reshape(3, 4, 5).astype("f4"), {"origin": (3, 2, 1)}, "LazySignal2D"),
    "image": (np.ones((1, 1, 1), "i2"), {"ispg": 0}, "LazySignal2D"),
    "complex": (np.ones((2, 3, 4), "c8"), {}, "LazyComplexSignal2D"),
    "stack": (np.ones((4, 3, 4), "f2"), {"ispg": 0, "mz": 1, "cella": (0, 0, 0)}, "LazySignal2D"),
    "volumes": (np.ones((4, 3, 4), "u2"), {"ispg": 401, "mz": 2}, "LazySignal2D"),
}


@pytest.mark.slow
@warnings_of_others
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("name", FILES)
def test_files_there_and_back(name: str, byteorder: str, tmp_path: Path) -> None:
    pixels, fields, expected = FILES[name]
    path = tmp_path / "a.mrc"
    path.write_bytes(by_hand.mrc(pixels, byteorder=byteorder, **fields))
    data = xr.open_dataarray(path, engine="mrc")
    signal = data.mrc.to_hyperspy()
    assert (type(signal).__name__, signal._lazy) == (expected, True)
    np.testing.assert_array_equal(signal.data.compute(), data)
    # HyperSpy's own axes
    for axis, dim in zip(signal.axes_manager._axes, data.dims, strict=True):
        assert axis.name == dim
        if dim in data.coords:
            np.testing.assert_allclose(axis.axis, data[dim], rtol=1e-12)
            assert axis.units == "Å"
    back = from_hyperspy(signal)
    assert back.chunks is not None
    xr.testing.assert_identical(back, data.drop_vars("section", errors="ignore"))


@pytest.mark.slow
@warnings_of_others
def test_a_saved_series_is_the_same(tmp_path: Path) -> None:
    import hyperspy.api as hs

    data = xr.DataArray(
        np.arange(60, dtype="f4").reshape(3, 4, 5),
        {"tilt_angle": ("image", [-60.1, 0, 59.8], {"units": "degree"}),
         "y": ("y", np.arange(4) * 0.2, {"units": "nm"})},
        ("image", "y", "x"), "data", {"voltage_kV": 200.0, "mrc_layout": "image_stack"},
    )  # fmt: skip
    data.mrc.to_file(tmp_path / "series.mrcz")
    opened = xr.open_dataarray(tmp_path / "series.mrcz", engine="mrc", units="nm")
    signal = opened.mrc.to_hyperspy(lazy=False)
    assert type(signal) is hs.signals.Signal2D
    signal.save(tmp_path / "series.hspy")
    loaded = hs.load(tmp_path / "series.hspy", lazy=True)
    assert loaded.axes_manager["tilt_angle"].axis.tolist() == [-60.1, 0, 59.8]
    assert loaded.metadata.Acquisition_instrument.TEM.beam_energy == 200
    assert loaded.inav[-60.1:0.0].data.shape == (1, 4, 5)
    back = from_hyperspy(loaded.inav[1:])
    assert back.chunks is not None
    xr.testing.assert_allclose(back, opened.isel(image=slice(1, None)).drop_vars("section"))
    back.mrc.to_file(tmp_path / "part.mrcz")
    part = xr.open_dataarray(tmp_path / "part.mrcz", engine="mrc")
    assert part.tilt_angle.values.tolist() == [0, 59.8]
    assert part.voltage_kV == 200


@pytest.mark.slow
@warnings_of_others
def test_signals_of_hyperspy() -> None:
    import hyperspy.api as hs

    function = {"expression": "a * x**2", "a": 2, "x": {"size": 4, "offset": 1, "scale": 1}}
    axes = [
        {"name": "t", "axis": np.array([0, 1, 4.0]), "units": "s", "navigate": True},
        {"name": "y", "units": "nm", "navigate": False, **function},
        {"name": "x", "size": 5, "scale": -0.1, "offset": 3, "units": "µm", "navigate": False},
    ]
    data = from_hyperspy(hs.signals.Signal2D(np.zeros((3, 4, 5)), axes=axes))
    assert data.t.values.tolist() == [0, 1, 4]
    assert data.y.values.tolist() == [2, 8, 18, 32]
    assert data.x.values.tolist() == [3, 2.9, 2.8, 2.7, 2.6]
    # HyperSpy prints x first, and the array has it last
    scan = hs.signals.Signal1D(np.zeros((2, 3, 7)))
    assert scan.axes_manager.shape == (3, 2, 7)
    assert from_hyperspy(scan).sizes == {"y": 2, "x": 3, "channel": 7}
    assert from_hyperspy(scan.T).sizes == {"image": 7, "y": 2, "x": 3}


@pytest.mark.slow
@warnings_of_others
def test_colours_and_spectra(real_file: Callable[[str], Path]) -> None:
    colours = xr.DataArray(
        np.arange(48, dtype="u1").reshape(2, 2, 4, 3), dims=("image", "y", "x", "rgb")
    )
    signal = colours.chunk(rgb=1).mrc.to_hyperspy()
    assert signal.data.dtype.names == ("R", "G", "B")
    np.testing.assert_array_equal(signal.data.compute()["G"], colours[..., 1])
    np.testing.assert_array_equal(from_hyperspy(signal), colours)
    spectrum = xr.open_dataarray(real_file("dm/1D_test-EELS_spectrum.dm3"), engine="dm")
    signal = spectrum.mrc.to_hyperspy()
    assert type(signal).__name__ == "LazySignal1D"
    assert signal.axes_manager[0].units == "eV"
    xr.testing.assert_allclose(from_hyperspy(signal), spectrum)
    with pytest.raises(MrcError, match=r"the shape \(\)"):
        spectrum[0].mrc.to_hyperspy()


@pytest.mark.slow
@warnings_of_others
def test_a_scan_has_calibrated_axes(real_file: Callable[[str], Path]) -> None:
    path = real_file("direct_electron/20241021_00405_movie.mrc")
    scan = xr.open_dataset(path, engine="mrc")
    signal = scan.mrc.to_hyperspy()
    assert signal.axes_manager.navigation_shape == (8, 4)
    assert [axis.units for axis in signal.axes_manager._axes] == ["Å", "Å", "1/nm", "1/nm"]
    assert signal.metadata.Acquisition_instrument.TEM.beam_energy == 300
    back = from_hyperspy(signal)
    xr.testing.assert_identical(back, scan["data"].drop_vars("section", errors="ignore"))


def test_reads_nothing(tmp_path: Path, ranges_read: list[tuple[int, int]]) -> None:
    from mrc_xarray.bridges.axes import axes_of
    from mrc_xarray.bridges.signal_metadata import metadata_of

    (tmp_path / "a.mrc").write_bytes(by_hand.mrc(np.ones((2, 3, 4), "f4")))
    data = xr.open_dataarray(tmp_path / "a.mrc", engine="mrc")
    ranges_read.clear()
    metadata_of(data, axes_of(data))
    assert ranges_read == []
    assert mrc_xarray.from_hyperspy is from_hyperspy
