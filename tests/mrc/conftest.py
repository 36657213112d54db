"""What the tests of headers share."""

from __future__ import annotations

import pytest

from mrc_xarray.storage import LocalSource


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """First byte and length of every read of a local file, except for pixels."""
    reads: list[tuple[int, int]] = []
    read = LocalSource.read

    def remember(self: LocalSource, offset: int, nbytes: int) -> bytes:
        reads.append((offset, nbytes))
        return read(self, offset, nbytes)

    monkeypatch.setattr(LocalSource, "read", remember)
    return reads
