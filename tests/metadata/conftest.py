from __future__ import annotations

from typing import Any

import pytest

from mrc_xarray.storage import LocalSource


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """First byte and number of bytes of each read of a local file."""
    ranges: list[tuple[int, int]] = []
    real = LocalSource.read_into

    def read_into(self: LocalSource, requests: Any) -> None:
        ranges.extend((offset, len(buffer)) for offset, buffer in requests)
        real(self, requests)

    monkeypatch.setattr(LocalSource, "read_into", read_into)
    return ranges
