"""JSON of an untrusted file may be malformed, too deep or too long."""

from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import by_hand
import numpy as np
import pytest
import xarray as xr

from mrc_xarray import MrcError, MrcWarning
from mrc_xarray.cli import main

PIXELS = np.ones((2, 4, 4), "f4")


def opened(text: bytes) -> xr.Dataset:
    raw = by_hand.mrc(PIXELS, extended=text, exttyp=b"json")
    return xr.open_dataset(io.BytesIO(raw), engine="mrc")


@pytest.mark.parametrize(
    "text",
    [
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a": ' + b"[" * 100_000,
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
        b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}",
    ],
    ids=["lists", "unfinished", "objects", "201 levels"],
)
def test_deep(tmp_path: Path, capsys: Any, text: bytes) -> None:
    with pytest.raises(MrcError) as caught:
        opened(text)
    message = f"extended header (bytes 1024–{1023 + len(text)}) is nested more than 200 levels"
    assert message in str(caught.value)
    path = tmp_path / "deep.mrc"
    path.write_bytes(by_hand.mrc(PIXELS, extended=text, exttyp=b"json"))
    for command in (["info"], ["validate"]):
        assert main([*command, str(path)]) == 1
        assert "nested more than 200 levels" in "".join(capsys.readouterr())


def test_not_so_deep() -> None:
    text = b'{"a": ' + b"[" * 199 + b"]" * 199 + b"}"
    assert opened(text).mrc.metadata == json.loads(text)


def test_no_memory_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def loads(text: str) -> Any:
        raise MemoryError

    monkeypatch.setattr("json.loads", loads)
    with pytest.raises(MrcError, match="more than there is memory for; accepted: JSON of up to"):
        opened(b'{"a": 1}')


@pytest.mark.parametrize("value", [b"{}", b'"a":1'])
def test_millions_of_values_are_refused_unread(value: bytes) -> None:
    n = 2**20
    text = (
        b'{"a":{' + b",".join([value] * n) + b"}}"
        if b":" in value
        else (b'{"a":[' + b",".join([value] * n) + b"]}")
    )
    raw = by_hand.mrc(PIXELS, extended=text, exttyp=b"json")
    tracemalloc.start()
    try:
        with pytest.raises(MrcError, match=r"extended header .* is about \d+ values"):
            xr.open_dataset(io.BytesIO(raw), engine="mrc")
        assert tracemalloc.get_traced_memory()[1] < 3 * len(raw)
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_values_of_many_sections_are_read() -> None:
    n = 20_000
    text = json.dumps({"a": [[0] * 20] * n}).encode()
    raw = by_hand.mrc(np.zeros((n, 1, 1), "i1"), extended=text, exttyp=b"json")
    ds = xr.open_dataset(io.BytesIO(raw), engine="mrc")
    assert len(ds.mrc.metadata["a"]) == n


@pytest.mark.parametrize(
    "text",
    [b'{"a": ', b"[1]", b"1", b'{"a": "\x00"}', b"\xff\xfe{", b'{"a": ' + b"9" * 5000 + b"}"],
)
def test_malformed_is_a_warning(text: bytes) -> None:
    with pytest.warns(MrcWarning, match="The metadata are left out") as caught:
        ds = opened(text)
    assert len(caught) == 1
    assert ds.mrc.metadata == {}
    np.testing.assert_array_equal(ds.data, PIXELS)


def sparse(path: Path, nsymbt: int, begins: bytes) -> Path:
    """Write a file with an extended header that is a hole but for its first bytes."""
    with path.open("wb") as file:
        file.write(by_hand.header(PIXELS.shape, 2, exttyp=b"json", nsymbt=nsymbt) + begins)
        file.seek(1024 + nsymbt)
        file.write(PIXELS.tobytes())
    return path


def test_longer_than_256_mib_is_refused_unread(tmp_path: Path, reads: Any) -> None:
    text = b'{"a": "' + b"x" * 100_000
    with pytest.raises(MrcError, match=r"bytes 1024–268436480\) is 268435457 bytes long"):
        xr.open_dataset(sparse(tmp_path / "a.mrc", 2**28 + 1, text), engine="mrc")
    assert sum(nbytes for _, nbytes in reads) <= 64 * 1024


def test_hole_costs_no_memory(tmp_path: Path) -> None:
    for begins in (b'{"a": "', b'{"a": "' + b"x" * 100_000, b""):
        path = sparse(tmp_path / "a.mrc", 2**28, begins)
        tracemalloc.start()
        with pytest.warns(MrcWarning, match="not JSON"):
            xr.open_dataset(path, engine="mrc")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 64 * 2**20
