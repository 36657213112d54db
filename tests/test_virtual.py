"""MRC files in VirtualiZarr and icechunk, against the engine and arrays built by hand."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import dm_by_hand
import modes_by_hand
import mrcz_by_hand
import numpy as np
import pytest
import servers
import xarray as xr

from mrc_xarray import MrcError
from mrc_xarray.virtual import MRCParser

FRAMES = {"ispg": 0, "mz": 1}
SCAN = {"scan_shape": (2, 4), "scan_offset": -1, "scan_flyback": 1}


for package in ("virtualizarr", "icechunk"):
    pytest.importorskip(package, reason="needs pip install virtualizarr icechunk")


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("codec")]


def engine(target: Any, **options: Any) -> xr.Dataset:
    return xr.open_dataset(target, **{"engine": "mrc", "chunks": None} | options).load()


def local_registry() -> Any:
    from obspec_utils.registry import ObjectStoreRegistry
    from obstore.store import LocalStore

    return ObjectStoreRegistry({"file://": LocalStore()})


def virtual(path: Path, **options: Any) -> xr.Dataset:
    from virtualizarr import open_virtual_dataset

    return open_virtual_dataset(path.as_uri(), local_registry(), MRCParser(**options))


def through_icechunk(ds: xr.Dataset, prefix: str, container: Any, credentials: Any) -> xr.Dataset:
    """Return what zarr reads from a repository that a virtual Dataset was committed to."""
    import icechunk

    config = icechunk.RepositoryConfig.default()
    config.set_virtual_chunk_container(icechunk.VirtualChunkContainer(prefix, container))
    allowed = icechunk.containers_credentials({prefix: credentials})
    repository = icechunk.Repository.create(
        icechunk.in_memory_storage(), config=config, authorize_virtual_chunk_access=allowed
    )
    session = repository.writable_session("main")
    ds.vz.to_icechunk(session.store)
    session.commit("a virtual Dataset")
    store = repository.readonly_session("main").store
    return xr.open_zarr(store, consolidated=False, chunks=None).load()


def from_disk(ds: xr.Dataset, folder: Path) -> xr.Dataset:
    import icechunk

    store = icechunk.local_filesystem_store(f"{folder}/")
    # icechunk 1 has no name for it
    access = getattr(icechunk.credentials, "LocalFileSystemAccess", None)
    return through_icechunk(ds, f"{folder.as_uri()}/", store, access)


CASES = {
    "volume": (modes_by_hand.plain()[0], {}),
    "big-endian": (modes_by_hand.plain("i2", byteorder=">")[0], {}),
    "stack": (modes_by_hand.plain("u2", **FRAMES)[0], {"units": "nm"}),
    "volume stack": (modes_by_hand.plain("f4", mz=2, ispg=401)[0], {}),
    "permuted": (modes_by_hand.plain("f4", mapc=3, mapr=1, maps=2)[0], {}),
    "image": (modes_by_hand.plain("f2", (1, 5, 9), cella=(0, 0, 0))[0], {}),
    "complex": (modes_by_hand.plain("c8")[0], {}),
    "complex integers": (modes_by_hand.complex_integers()[0], {}),
    "four bits": (modes_by_hand.four_bits()[0], {}),
    "rgb": (modes_by_hand.rgb()[0], {}),
    "mrcz": (mrcz_by_hand.file(mrcz_by_hand.chunks()), {"dims": ("tilt", "y", "x")}),
    "scan": (modes_by_hand.plain("f4", (8, 5, 9), **FRAMES)[0], SCAN),
    "scan of integers": (modes_by_hand.plain("u2", (8, 5, 9), **FRAMES)[0], SCAN),
    "dm": (dm_by_hand.dm(dm_by_hand.image(np.ones((3, 4), "f4"), 2)), {"engine": "dm"}),
}


@pytest.mark.parametrize("case", CASES)
def test_equal_to_the_engine(tmp_path: Path, case: str) -> None:
    raw, options = CASES[case]
    path = tmp_path / "a.mrc"
    path.write_bytes(raw)
    expected = engine(path, **options)
    store = MRCParser(**options)(path.as_uri(), local_registry())
    read = xr.open_zarr(store, consolidated=False, chunks=None).load()
    xr.testing.assert_identical(read, expected)
    assert read["data"].dtype == expected["data"].dtype
    path = path.rename(tmp_path / "ü b.mrc")
    ds, expected = virtual(path, **options), engine(path, **options)
    assert all(isinstance(coord.values, np.ndarray) for coord in ds.coords.values())
    xr.testing.assert_identical(from_disk(ds, tmp_path), expected)


def test_concatenated_as_the_engine(tmp_path: Path) -> None:
    paths = []
    for n in (4, 6):
        path = tmp_path / f"{n}.st"
        path.write_bytes(modes_by_hand.plain("i2", (n, 5, 9), **FRAMES)[0])
        angles = "".join(f"[ZValue = {k}]\nTiltAngle = {k * n}\n" for k in range(n))
        (tmp_path / f"{n}.st.mdoc").write_text(f"ImageFile = {n}.st\n{angles}")
        paths.append(path)
    # chunks of one number of sections, and not those of the shortest file
    ds = xr.concat([virtual(path, sections_per_chunk=2) for path in paths], "image")
    expected = xr.concat([engine(path) for path in paths], "image")
    xr.testing.assert_identical(from_disk(ds, tmp_path), expected)
    assert expected["tilt_angle"].values.tolist() == [0, 4, 8, 12, 0, 6, 12, 18, 24, 30]
    twice = [paths[0], paths[0]]
    ds = xr.concat([virtual(path) for path in twice], "series")
    expected = xr.concat([engine(path) for path in twice], "series")
    xr.testing.assert_identical(from_disk(ds, tmp_path), expected)


def test_stores_of_the_registry(tmp_path: Path) -> None:
    import icechunk
    from obspec_utils.registry import ObjectStoreRegistry
    from obstore.store import HTTPStore, S3Store
    from virtualizarr import open_virtual_dataset

    raw = modes_by_hand.plain("i2", (4, 5, 9), **FRAMES)[0]
    mdoc = b"ImageFile = a.st\n" + b"".join(
        b"[ZValue = %d]\nTiltAngle = %d\n" % (k, 3 * k) for k in range(4)
    )
    (tmp_path / "a.st").write_bytes(raw)
    (tmp_path / "a.st.mdoc").write_bytes(mdoc)
    plain = {"allow_http": True}
    with servers.http_server(tmp_path) as http, servers.s3_server() as s3:
        root = http.url("").rstrip("/")
        registry = ObjectStoreRegistry({root: HTTPStore.from_url(root, client_options=plain)})
        store = MRCParser()(http.url("a.st"), registry)
        expected = engine(http.url("a.st"))
        assert expected["tilt_angle"].values.tolist() == [0, 3, 6, 9]
        read = xr.open_zarr(store, consolidated=False, chunks=None).load()
        xr.testing.assert_identical(read, expected)

        url, keys = s3.put("a.st", raw), {"access_key_id": "key", "secret_access_key": "secret"}
        s3.put("a.st.mdoc", mdoc)
        bucket = S3Store(
            s3.bucket, endpoint=s3.endpoint, region="us-east-1", client_options=plain, **keys
        )
        ds = open_virtual_dataset(
            url, ObjectStoreRegistry({f"s3://{s3.bucket}": bucket}), MRCParser()
        )
        container = icechunk.s3_store(
            region="us-east-1", endpoint_url=s3.endpoint, allow_http=True, force_path_style=True
        )
        read = through_icechunk(
            ds, f"s3://{s3.bucket}/", container, icechunk.s3_credentials(**keys)
        )
        xr.testing.assert_identical(read, engine(url, storage_options=s3.storage_options))


def test_refusals(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc.gz"
    path.write_bytes(gzip.compress(modes_by_hand.plain()[0]))
    with pytest.raises(MrcError, match="a compressed stream have no byte ranges"):
        virtual(path)
    with pytest.raises(ValueError, match="sections_per_chunk is 0; accepted: None, or 1 or more"):
        MRCParser(sections_per_chunk=0)
    with pytest.raises(TypeError, match="navigation_shape"):
        virtual(path, navigation_shape=(2, 2))
