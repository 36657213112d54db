"""Chunks of several files in one grid, assembled from their bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import by_hand
import modes_by_hand
import numpy as np
import pytest
import xarray as xr

from mrc_xarray.bridges.joined import Joined, joined

Array = np.ndarray[Any, Any]


def assembled(files: Joined) -> Array:
    """Return the pixels in the chunks, as any program would that has only the references."""
    data = files.labels["data"]
    result = np.full(data.shape, -1, data.dtype)
    for index, name, offset, nbytes in files.chunks():
        raw = Path(name).read_bytes()[offset : offset + nbytes]
        at = tuple(slice(i * k, (i + 1) * k) for i, k in zip(index, files.chunk, strict=True))
        result[at] = np.frombuffer(raw, data.dtype).reshape(files.chunk)
    return result


@pytest.mark.parametrize("dim", ["scan_y", "scan_x", "y", "x", "repeat"])
@pytest.mark.parametrize("gaps", [{}, {"scan_flyback": 2}])
def test_scans_of_other_sizes(tmp_path: Path, dim: str, gaps: dict[str, int]) -> None:
    sizes = {"scan_y": [(4, 4), (6, 4)], "scan_x": [(3, 4), (3, 6)]}.get(dim, [(3, 4), (3, 4)])
    axis = ("scan_y", "scan_x", "y", "x").index(dim) if dim != "repeat" else 0
    datasets, expected = [], []
    for i, (n_y, n_x) in enumerate(sizes):
        recorded = n_x + gaps.get("scan_flyback", 0)
        pixels = modes_by_hand.noise((n_y, recorded, 5, 9), "i2") + np.int16(i)
        path = tmp_path / f"{i}.mrc"
        path.write_bytes(by_hand.mrc(pixels.reshape(-1, 5, 9), ispg=0, mz=1))
        shape: dict[str, Any] = {"scan_shape": (n_y, n_x), **gaps}
        datasets.append(xr.open_dataset(path, engine="mrc", voxel_size=None, **shape))
        expected.append(pixels[:, :n_x])
    joint: Any = np.stack if dim == "repeat" else np.concatenate
    if dim in ("y", "x"):
        # the positions of the second file continue those of the first
        moved = datasets[1][dim] + datasets[1].sizes[dim]
        datasets[1] = datasets[1].assign_coords({dim: moved})
    np.testing.assert_array_equal(assembled(joined(datasets, dim)), joint(expected, axis))
