"""Files for the tests of the tools."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import by_hand
import pytest
from validating import DATA, STATISTICS


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes bytes, by default a valid file with some fields changed."""

    def write(raw: bytes | None = None, name: str = "file.mrc", **fields: Any) -> Path:
        path = tmp_path / name
        path.write_bytes(by_hand.mrc(DATA, **(STATISTICS | fields)) if raw is None else raw)
        return path

    return write
