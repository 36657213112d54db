"""Only the name of the source gives access to its file; no other attribute opens anything."""

from __future__ import annotations

import base64
import copy
import gzip
import io
import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import by_hand
import dask
import numpy as np
import pytest
import servers
import xarray as xr
from distributed import Client

from mrc_xarray import MrcError, MrcWarning
from mrc_xarray.labels.source_name import SourceName
from mrc_xarray.tools.convert import convert

PIXELS = np.arange(2 * 4 * 5, dtype="f4").reshape(2, 4, 5)
SECRET = b"SECRET  " * 128
RAW = by_hand.mrc(PIXELS, extended=SECRET, exttyp=b"MRCO")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "volume.mrc"
    path.write_bytes(RAW)
    return path


@pytest.fixture(autouse=True)
def _unknown_kind_is_a_note(recwarn: pytest.WarningsRecorder) -> None:
    """Ignore the warning that extended headers of the kind MRCO are not decoded."""
    warnings.filterwarnings("ignore", "[^;]*EXTTYP", MrcWarning)


def opened(path: Any, **options: Any) -> xr.Dataset:
    return xr.open_dataset(path, engine="mrc", **options)


# the same session -------------------------------------------------------------------------------

DERIVED: dict[str, Callable[[xr.DataArray], xr.DataArray]] = {
    "itself": lambda data: data,
    "arithmetic": lambda data: (data - 1) / 2,
    "selection": lambda data: data[:, 1:3].sel(x=slice(1, 3)),
    "reduction": lambda data: data.mean("z"),
    "deep copy": lambda data: data.copy(deep=True),
    "copy by the module": copy.deepcopy,
    "pickle": lambda data: pickle.loads(pickle.dumps(data)),
    "computed by dask": lambda data: (data.chunk({"z": 1}) * 2).compute(scheduler="threads"),
    "concatenated": lambda data: xr.concat([data, data + 1], "time"),
    "as a dictionary": lambda data: xr.DataArray.from_dict(data.load().to_dict()),
}


@pytest.mark.parametrize("derive", DERIVED)
def test_extended_header_is_read_again_in_the_same_session(path: Path, derive: str) -> None:
    assert DERIVED[derive](opened(path).data).mrc.extended_header == SECRET


@pytest.mark.parametrize("kind", [str, Path.open, bytes])
def test_extended_header_of_any_target(path: Path, kind: Any) -> None:
    if kind is Path.open:
        with path.open("rb") as file:
            data = opened(file).data
    else:
        data = opened(RAW if kind is bytes else str(path)).data
    assert data.mrc.extended_header == copy.deepcopy(data).mrc.extended_header == SECRET
    pickled = pickle.loads(pickle.dumps(data))
    if kind is bytes:
        # a file without a name can't be opened by another process
        with pytest.raises(MrcError, match="not opened from the file in this session"):
            _ = pickled.mrc.extended_header
    else:
        assert pickled.mrc.extended_header == SECRET


@pytest.mark.parametrize("compressed", [False, True])
def test_name_of_a_file_object_is_copied_but_not_pickled(compressed: bool) -> None:
    class Readable(io.BufferedReader):
        """A file object that has no name."""

    raw = gzip.compress(RAW) if compressed else RAW
    data = opened(Readable(io.BytesIO(raw))).data  # type: ignore[arg-type]
    assert data.copy(deep=True).mrc.extended_header == SECRET
    assert type(pickle.loads(pickle.dumps(data.attrs["mrc_source"]))) is str


@pytest.mark.slow
def test_extended_header_is_read_in_another_process_of_the_session(
    path: Path, client: Client
) -> None:
    data = opened(path).data.load()
    read = client.submit(lambda data: data.mrc.extended_header, data, pure=False)
    assert read.result(timeout=30) == SECRET


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".gz", ""])
def test_extended_header_of_a_store_and_of_a_stream(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a.mrc{suffix}").write_bytes(gzip.compress(RAW) if suffix else RAW)
    with servers.http_server(tmp_path) as server:
        for target in (tmp_path / f"a.mrc{suffix}", server.url(f"a.mrc{suffix}")):
            data = opened(target).data.load()
            assert pickle.loads(pickle.dumps(data)).mrc.extended_header == SECRET


def test_file_that_changed_is_refused(path: Path) -> None:
    data = opened(path).data.load()
    path.write_bytes(by_hand.mrc(PIXELS, extended=SECRET[::-1], exttyp=b"MRCO"))
    with pytest.raises(MrcError, match="changed since it was opened"):
        _ = data.mrc.extended_header
    path.unlink()
    with pytest.raises(FileNotFoundError):
        _ = data.mrc.extended_header


def test_name_of_bytes_does_not_hold_the_pixels() -> None:
    name = opened(RAW).data.attrs["mrc_source"]
    assert isinstance(name, SourceName)
    assert len(name.source.data) == 1024 + len(SECRET)  # type: ignore[attr-defined]
    assert type(pickle.loads(pickle.dumps(name))) is str


def test_name_of_a_stream_does_not_hold_decoded_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc.gz"
    path.write_bytes(gzip.compress(RAW))
    data = opened(path).data.load()
    assert "_shared" not in vars(data.attrs["mrc_source"].source)


def test_name_is_an_ordinary_text(path: Path) -> None:
    name = opened(path).data.attrs["mrc_source"]
    assert name == str(path)
    assert json.loads(json.dumps(name)) == str(path)
    assert repr(name) == repr(str(path))
    assert dask.base.tokenize(name) == dask.base.tokenize(opened(path).data.attrs["mrc_source"])
    assert type(name.upper()) is type(f"{name}") is type(name + "") is str


# untrusted files --------------------------------------------------------------------------------


def stored(ds: xr.Dataset, folder: Path, kind: str) -> xr.Dataset:
    """Write a dataset and open it again, as someone else's file."""
    if kind == "netcdf":
        ds.to_netcdf(folder / "untrusted.nc")
        with xr.open_dataset(folder / "untrusted.nc") as again:
            return again.load()
    ds.to_zarr(folder / "untrusted.zarr", consolidated=False)
    return xr.open_zarr(folder / "untrusted.zarr", consolidated=False).load()


# everything that reads attributes
USES: dict[str, Callable[[xr.Dataset, Path], Any]] = {
    "header": lambda ds, folder: ds.mrc.header,
    "voxel_size": lambda ds, folder: ds.mrc.voxel_size,
    "metadata": lambda ds, folder: ds.mrc.metadata,
    "extended_header": lambda ds, folder: ds.mrc.extended_header,
    "extended_fields": lambda ds, folder: ds.mrc.extended_fields,
    "to_file": lambda ds, folder: ds.mrc.to_file(folder / "out.mrc", overwrite=True),
    "to_file, MRCZ": lambda ds, folder: ds.mrc.to_file(folder / "out.mrcz", overwrite=True),
    "in place": lambda ds, folder: ds.mrc.to_file(folder / "volume.mrc", append_dim="z"),
}


SOURCES: dict[str, Callable[[Path, servers.HttpServer], str]] = {
    "URL": lambda folder, server: server.url("volume.mrc"),
    "references in the URL": lambda folder, server: (
        "reference://a.mrc::data:application/json;base64,"
        + base64.b64encode((folder / "refs.json").read_bytes()).decode()
    ),
    "references": lambda folder, server: f"reference://a.mrc::file://{folder}/refs.json",
    "path": lambda folder, server: str(folder / "volume.mrc"),
    "URL of a path": lambda folder, server: f"file://{folder}/volume.mrc",
}


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.filterwarnings("ignore::mrc_xarray.MrcWarning")
def test_nothing_is_opened_that_an_attribute_names(
    path: Path, tmp_path: Path, source: str
) -> None:
    mark = tmp_path / "code_ran"
    key = "{{ cycler.__init__.__globals__.os.system('touch %s') }}" % mark  # noqa: UP031
    generator = {"key": key, "url": "x", "dimensions": {"i": [0]}}
    references = {"version": 1, "templates": {}, "gen": [generator], "refs": {}}
    (tmp_path / "refs.json").write_text(json.dumps(references))
    ds = opened(path).load()
    with servers.http_server(tmp_path) as server:
        ds["data"].attrs["mrc_source"] = SOURCES[source](tmp_path, server)
        again = stored(ds, tmp_path, "zarr")
        assert again.data.attrs["mrc_source"] == ds.data.attrs["mrc_source"]
        for name, use in USES.items():
            if name.startswith("extended"):
                with pytest.raises(MrcError, match="is not stored with the data"):
                    use(again, tmp_path)
            else:
                use(again, tmp_path)
        assert server.requests == []
    assert not mark.exists()
    for out in tmp_path.glob("out.*"):
        assert SECRET[:64] not in out.read_bytes()


@pytest.mark.parametrize("kind", ["netcdf", "zarr"])
def test_name_of_an_open_file_in_another_file_opens_nothing(
    path: Path, tmp_path: Path, kind: str
) -> None:
    """The author of an untrusted file may know the names of your files."""
    own = opened(path)
    again = stored(own.load(), tmp_path, kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert again.mrc.header.exttyp == "MRCO"
    assert own.mrc.extended_header == SECRET
    with pytest.raises(MrcError, match=r"volume\.mrc: .*Open the MRC file itself.*extended_head"):
        _ = again.mrc.extended_header


def test_writing_warns_once_without_the_extended_header(path: Path, tmp_path: Path) -> None:
    again = stored(opened(path).load(), tmp_path, "netcdf")
    out = tmp_path / "out.mrc"
    with pytest.warns(MrcWarning, match="the extended header, which can't be read again") as seen:
        again.mrc.to_file(out)
    assert len([w for w in seen if "out.mrc" in str(w.message)]) == len(seen) == 1
    assert out.stat().st_size == 1024 + PIXELS.nbytes
    again.mrc.to_file(out, extended_header=("MRCO", SECRET), overwrite=True)
    assert opened(out).mrc.extended_header == SECRET


def test_converting_an_untrusted_file(path: Path, tmp_path: Path) -> None:
    ds = opened(path).load()
    ds["data"].attrs["mrc_source"] = str(path)
    ds.to_netcdf(tmp_path / "a.nc")
    with pytest.warns(MrcWarning, match="extended header"):
        convert(str(tmp_path / "a.nc"), str(tmp_path / "a.mrc"))
    assert SECRET[:64] not in (tmp_path / "a.mrc").read_bytes()
