"""Memory maps: on which file systems files are mapped, and whether an array is a view of a map."""

from __future__ import annotations

import mmap
from typing import Any

from mrc_xarray.storage import identity


def is_mapped(array: Any) -> bool:
    """Return whether an array is a view of a map."""
    base = array
    while hasattr(base, "base") and base.base is not None:
        base = base.base
    return isinstance(base.obj if isinstance(base, memoryview) else base, mmap.mmap)


def set_file_system(monkeypatch: Any, kind: str) -> None:
    """Let all files be on a file system of this type, wherever the tests run."""
    monkeypatch.setattr(identity, "_kinds", {})
    monkeypatch.setattr(identity, "_file_system", lambda path: kind)
