"""Pixels on a GPU, where there is one."""

from __future__ import annotations

from pathlib import Path

import by_hand
import numpy as np
import pytest
import xarray as xr


def test_chunks_are_copied_to_a_gpu(tmp_path: Path) -> None:
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError:
        pytest.skip("there is no GPU")
    pixels = np.random.default_rng(0).normal(size=(20, 512, 512)).astype("f4")
    (tmp_path / "a.mrc").write_bytes(by_hand.mrc(pixels))
    data = xr.open_dataarray(tmp_path / "a.mrc", engine="mrc", chunks={"z": 5})
    meta = cupy.empty((0, 0, 0), data.dtype)
    on_gpu = data.copy(data=data.data.map_blocks(cupy.asarray, dtype=data.dtype, meta=meta))
    mean = on_gpu.mean("z")
    assert isinstance(mean.data.compute(), cupy.ndarray)
    np.testing.assert_allclose(mean.as_numpy(), pixels.mean(0), atol=1e-5)
    np.testing.assert_array_equal(cupy.asnumpy(on_gpu.data.compute()), pixels)
