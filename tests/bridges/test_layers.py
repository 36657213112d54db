from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import by_hand
import numpy as np
import pytest
import writes
import xarray as xr

from mrc_xarray.bridges.layers import layers_of
from mrc_xarray.bridges.napari import read

RNG = np.random.default_rng(0)
VOLUME = RNG.normal(size=(6, 8, 10)).astype("f4")


def test_one_section_is_read(tmp_path: Path, ranges_read: list[tuple[int, int]]) -> None:
    path = tmp_path / "a.mrc"
    shape = (50, 256, 2048)
    by_hand.sparse(path, by_hand.header(shape, 2), 1024 + 4 * math.prod(shape))
    opened = sum(n for _, n in ranges_read)
    [(pixels, *_)] = read(str(path))
    assert sum(n for _, n in ranges_read) - opened <= 2**20 + 2**16
    ranges_read.clear()
    pixels[7].compute()
    # mapped or read, but not more than this section
    assert all(1024 + 7 * 2**21 <= first < 1024 + 8 * 2**21 for first, _ in ranges_read)


def test_many_sections_are_not_as_many_chunks(tmp_path: Path) -> None:
    path = tmp_path / "scan.mrc"
    by_hand.sparse(path, by_hand.header((90_000, 2, 4), 1, ispg=0), 1024 + 90_000 * 16)
    [(pixels, *_)] = read(str(path), scan_shape=(300, 300))
    assert pixels.shape == (300, 300, 2, 4)
    assert pixels.chunksize == (1, 9, 2, 4)


@pytest.mark.parametrize(
    ("angles", "scale", "start", "label", "unit"),
    [
        ([-3, 0, 3], 3.0, -3.0, "tilt_angle", "degree"),
        ([60, 58, 56.1], -1.95, 60.0, "tilt_angle", "degree"),
        ([-60.02, -57, -54.01], 3.005, -60.02, "tilt_angle", "degree"),
        ([0, 3, -3], 1.0, 0.0, "image", "pixel"),
        ([0, 1, 5], 1.0, 0.0, "image", "pixel"),
        ([7], 1.0, 0.0, "image", "pixel"),
    ],
)
def test_a_tilt_series(angles: Any, scale: float, start: float, label: str, unit: str) -> None:
    [(_, options, _)] = layers_of(writes.tilt_series(angles))
    assert options["scale"] == pytest.approx((scale, 1.0, 5.0))
    assert options["translate"] == (start, 0.0, 0.0)
    assert options["axis_labels"] == (label, "y", "x")
    assert options["units"] == (unit, "pixel", "angstrom")
    assert options["metadata"]["tilt_angle"].tolist() == angles


def test_complex_data_have_an_amplitude_and_a_phase(tmp_path: Path) -> None:
    waves = (VOLUME + 1j * VOLUME[::-1]).astype("c8")
    path = tmp_path / "a.mrc"
    path.write_bytes(by_hand.mrc(waves))
    (amplitude, first, _), (phase, second, _) = read(str(path))
    assert (first["name"], second["name"]) == ("a.mrc amplitude", "a.mrc phase")
    np.testing.assert_allclose(amplitude.compute(), np.hypot(waves.real, waves.imag), rtol=1e-6)
    np.testing.assert_allclose(phase.compute(), np.arctan2(waves.imag, waves.real), rtol=1e-6)
    assert second["contrast_limits"] == (-math.pi, math.pi)


@pytest.mark.parametrize("dtype", ["i1", "i2", "u2"])
def test_a_segmentation_is_a_layer_of_labels(dtype: str, tmp_path: Path) -> None:
    labels = np.zeros((5, 20, 20), dtype)
    labels[1:4, 4:12, 4:12], labels[1:4, 14:18, 2:18] = 1, 2
    path = tmp_path / "labels.mrc"
    path.write_bytes(by_hand.mrc(labels))
    [(pixels, options, kind)] = read(str(path))
    assert kind == "labels"
    assert "contrast_limits" not in options
    np.testing.assert_array_equal(pixels, labels)


@pytest.mark.parametrize(
    "pixels",
    [
        RNG.integers(0, 200, (4, 9, 9), "u2"),
        RNG.poisson(0.5, (4, 30, 30)).astype("u2"),
        np.full((4, 5, 6), 7, "i2"),
        np.zeros((4, 5, 6), "i1"),
        np.zeros((4, 5, 6), "f4"),
        np.full((2, 3, 4), np.nan, "f4"),
        np.zeros((1, 1, 1), "f2"),
    ],
    ids=str,
)
def test_other_volumes_are_images(pixels: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    path.write_bytes(by_hand.mrc(pixels))
    [(_, options, kind)] = read(str(path))
    assert kind == "image"
    low, high = options.get("contrast_limits", (0, 1))
    assert low < high


def test_a_mask_is_a_layer_of_labels() -> None:
    mask = xr.DataArray(VOLUME[0] > 0, dims=("y", "x"))
    [(pixels, _, kind)] = layers_of(mask)
    assert (pixels.dtype, kind) == (np.uint8, "labels")


def test_few_electrons_are_visible() -> None:
    frame = np.zeros((40, 40), "u2")
    frame[5, 5] = 1
    [(_, options, kind)] = layers_of(xr.DataArray(frame, dims=("ky", "kx")))
    assert (options["contrast_limits"], kind) == ((0.0, 1.0), "image")
