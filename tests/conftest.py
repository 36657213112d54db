"""What all tests share: real files if they are available, and a check for open files."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, LocalCluster

from mrc_xarray import installation
from mrc_xarray.storage import LocalSource

# the tests are imported by path, and find their helpers here
sys.path.insert(0, str(Path(__file__).parent))

REAL_FILES = Path(__file__).parents[2] / "shared" / "data"


def pytest_collection_finish() -> None:
    """Leave modules and the list of tests out of garbage collection, which then is quick."""
    gc.freeze()


@pytest.fixture
def real_file() -> Callable[[str], Path]:
    """Return the path of a real file; skip the test if it is not available."""

    def find(name: str) -> Path:
        path = REAL_FILES / name
        if not path.exists():
            pytest.skip(f"the real file {name} is not part of the project")
        return path

    return find


@pytest.fixture(autouse=True)
def installed_by_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages name pip, whatever has installed the package."""
    monkeypatch.setattr(installation, "_installer", lambda: "pip")


@pytest.fixture(autouse=True)
def no_file_left_open(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test after which an MRC file is still open in this process."""
    yield
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        return
    still_open = []
    for descriptor in descriptors.iterdir():
        try:
            target = os.readlink(descriptor)
        except OSError:
            continue
        if target.removesuffix(" (deleted)").endswith((".mrc", ".mrcs", ".map", ".st", ".rec")):
            still_open.append(target)
    assert not still_open


@pytest.fixture(scope="session")
def codec() -> None:
    """Register the codec; the entry point of an installation may be older than the source."""
    from zarr.registry import register_codec

    from mrc_xarray.bridges.zarr_codecs import ModeCodec

    register_codec("mrc_xarray.mode", ModeCodec)


@pytest.fixture
def ranges_read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """First byte and number of bytes of each read of a local file."""
    ranges: list[tuple[int, int]] = []
    read_into = LocalSource.read_into

    def remember(self: LocalSource, requests: Any) -> None:
        ranges.extend((offset, len(buffer)) for offset, buffer in requests)
        read_into(self, requests)

    monkeypatch.setattr(LocalSource, "read_into", remember)
    return ranges


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A client of two processes with a limit of 1 GB each."""
    with (
        # the port of the dashboard may be taken by another cluster
        LocalCluster(
            n_workers=2, threads_per_worker=1, memory_limit="1GB", dashboard_address=":0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client
