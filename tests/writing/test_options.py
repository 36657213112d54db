"""Arguments that no write can have are refused before anything is planned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mrc_xarray import MrcError, to_mrc
from mrc_xarray.writing.options import WriteOptions


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"clevel": 10}, "clevel is 10; accepted: 0 to 9"),
        ({"clevel": "high"}, "clevel is 'high'"),
        ({"statistics": "slow"}, "statistics is 'slow'"),
        ({"byteorder": "<"}, "byteorder is '<'"),
        ({"metadata": {}, "extended_header": b""}, "exclude each other"),
        ({"region": {}, "append_dim": "z"}, "exclude each other"),
        ({"compression": "gzip", "compressor": "zstd"}, "exclude each other"),
        ({"compression": "lz4"}, "compression is 'lz4'; accepted: 'auto', None, 'gzip'"),
        ({"region": [slice(0, 1)]}, "region is .*; accepted: a mapping"),
        ({"metadata": "text"}, "metadata is 'text'; accepted: a dictionary"),
        (
            {"voxel_size": (1, 2)},
            r"voxel_size is \(1, 2\); accepted: a number or \(x, y",
        ),
        ({"voxel_size": "13"}, "voxel_size is '13'; accepted: a number"),
        ({"voxel_size": {"z": "13"}}, "voxel_size is {'z': '13'}; accepted: a number"),
        ({"voltage": "high"}, "voltage is 'high'; accepted: a number"),
        ({"labels": "text"}, "labels is the text 'text'"),
        ({"labels": ["x" * 81]}, "the label 'x{81}' can't be stored"),
        ({"labels": ["试样"]}, "the label '试样' can't be stored"),
    ],
    ids=str,
)
def test_wrong_arguments(tmp_path: Path, options: dict[str, Any], match: str) -> None:
    with pytest.raises((ValueError, TypeError), match=match):
        to_mrc(np.zeros((4, 5), "f4"), tmp_path / "a.mrc", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "ignored",
    [
        {"labels": ["a"]}, {"compressor": "zstd"}, {"metadata": {}}, {"overwrite": True},
        {"like": True},
    ],
)  # fmt: skip
def test_arguments_that_a_change_in_place_would_ignore(ignored: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(ignored))}= can't be combined"):
        WriteOptions(append_dim="z", **ignored)
    # the same as the defaults
    WriteOptions(region={}, compressor=None, labels=[], statistics="quick", mode=1)


@pytest.mark.parametrize(
    ("name", "compressor", "found"),
    [
        ("a.MRCZ", "auto", "zstd"),
        ("s3://bucket/a.mrcz?versionId=1", "auto", "zstd"),
        ("a.mrcz", None, None),
        ("a.mrc.gz", "auto", None),
        ("a.mrc.gz", "lz4", "lz4"),
        ("a.rec", "lz4", "lz4"),
    ],
)
def test_compressor_of_a_file(name: str, compressor: str | None, found: str | None) -> None:
    assert WriteOptions(compressor=compressor).compressor_for(name, codec=None) == found


@pytest.mark.parametrize(("name", "compressor"), [("a.mrcz.gz", "auto"), ("a.mrc.xz", "lz4")])
def test_file_is_not_compressed_twice(name: str, compressor: str) -> None:
    with pytest.raises(MrcError, match="already compressed"):
        WriteOptions(compressor=compressor).compressor_for(name, codec="gzip")
