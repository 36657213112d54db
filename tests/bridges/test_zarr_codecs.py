"""The codec for Zarr of pixels that Zarr has no type for."""

from __future__ import annotations

import tomllib
from importlib import import_module
from pathlib import Path

import by_hand
import numpy as np
import pytest
import zarr

import mrc_xarray


def test_zarr_finds_the_codec_by_its_entry_point() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    ((name, target),) = project["project"]["entry-points"]["zarr.codecs"].items()
    module, _, attribute = target.partition(":")
    codec = getattr(import_module(module), attribute)
    json = {"name": name, "configuration": {"mode": 3, "endian": "big"}}
    assert codec.from_dict(json).to_dict() == json


@pytest.mark.usefixtures("codec")
def test_a_part_of_packed_pixels(tmp_path: Path) -> None:
    pixels = np.arange(2 * 3 * 5, dtype="u1").reshape(2, 3, 5) % 16
    raw = by_hand.mrc(by_hand.pack_4bit(pixels), 101, shape=pixels.shape)
    path = tmp_path / "a.mrc"
    path.write_bytes(raw)
    refs = mrc_xarray.references(path)
    group = zarr.open_group("reference://", storage_options={"fo": refs}, mode="r")
    np.testing.assert_array_equal(group["data"][1, 1:, ::2], pixels[1, 1:, ::2])
