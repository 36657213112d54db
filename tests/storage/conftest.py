"""What the tests of storage share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import servers


@pytest.fixture
def http(tmp_path: Path) -> Iterator[servers.HttpServer]:
    """A server of the test's folder."""
    with servers.http_server(tmp_path) as server:
        yield server
