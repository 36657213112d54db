"""Attributes are data: nothing is opened because one of them names it."""

from __future__ import annotations

import base64
import copy
import json
import pickle
import subprocess
import sys
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
from mrc_xarray.labels import provenance
from mrc_xarray.labels.provenance import SourceName
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


# the user's own session -------------------------------------------------------------------------

DERIVED: dict[str, Callable[[xr.DataArray], xr.DataArray]] = {
    "itself": lambda data: data,
    "loaded": lambda data: data.load(),
    "arithmetic": lambda data: (data - 1) / 2,
    "selection": lambda data: data[:, 1:3].sel(x=slice(1, 3)),
    "reduction": lambda data: data.mean("z"),
    "copy": lambda data: data.copy(),
    "deep copy": lambda data: data.copy(deep=True),
    "copy by the module": copy.deepcopy,
    "pickle": lambda data: pickle.loads(pickle.dumps(data)),
    "computed by dask": lambda data: (data.chunk({"z": 1}) * 2).compute(scheduler="threads"),
    "in a dataset": lambda data: data.to_dataset(name="other")["other"],
    "concatenated": lambda data: xr.concat([data, data + 1], "time"),
    "by a function": lambda data: xr.apply_ufunc(np.negative, data, keep_attrs=True),
    "as a dictionary": lambda data: xr.DataArray.from_dict(data.load().to_dict()),
}


@pytest.mark.parametrize("derive", DERIVED)
@pytest.mark.parametrize("kind", [str, Path, Path.open, bytes])
def test_extended_header_is_read_again_in_the_same_session(
    path: Path, derive: str, kind: Any
) -> None:
    target = {bytes: RAW}.get(kind)
    if kind is Path.open:
        with path.open("rb") as file:
            data = opened(file).data
    else:
        data = opened(kind(path) if target is None else target).data
    derived = DERIVED[derive](data)
    if derive == "pickle" and kind is bytes:
        # a file without a name can't be opened again elsewhere
        with pytest.raises(MrcError, match="not opened from the file in this session"):
            _ = derived.mrc.extended_header
        return
    assert derived.mrc.extended_header == SECRET


def test_extended_header_is_read_in_another_process_of_the_session(
    path: Path, client: Client
) -> None:
    data = opened(path).data.load()
    read = client.submit(lambda data: data.mrc.extended_header, data, pure=False)
    assert read.result(timeout=30) == SECRET


@pytest.mark.parametrize("suffix", [".gz", ""])
def test_extended_header_of_a_store_and_of_a_stream(tmp_path: Path, suffix: str) -> None:
    import gzip

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


def test_name_of_a_stream_does_not_hold_what_was_decoded(tmp_path: Path) -> None:
    import gzip

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


# strangers' files -------------------------------------------------------------------------------


def stored(ds: xr.Dataset, folder: Path, kind: str) -> xr.Dataset:
    """Write a dataset and open it again, as if it came from elsewhere."""
    if kind == "netcdf":
        ds.to_netcdf(folder / "stranger.nc")
        with xr.open_dataset(folder / "stranger.nc") as again:
            return again.load()
    ds.to_zarr(folder / "stranger.zarr", consolidated=False)
    return xr.open_zarr(folder / "stranger.zarr", consolidated=False).load()


formats = pytest.mark.parametrize("kind", ["netcdf", "zarr"])

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


@formats
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.filterwarnings("ignore::mrc_xarray.MrcWarning")
def test_nothing_is_opened_that_an_attribute_names(
    path: Path, tmp_path: Path, kind: str, source: str
) -> None:
    mark = tmp_path / "code_ran"
    key = "{{ cycler.__init__.__globals__.os.system('touch %s') }}" % mark  # noqa: UP031
    generator = {"key": key, "url": "x", "dimensions": {"i": [0]}}
    references = {"version": 1, "templates": {}, "gen": [generator], "refs": {}}
    (tmp_path / "refs.json").write_text(json.dumps(references))
    ds = opened(path).load()
    with servers.http_server(tmp_path) as server:
        ds["data"].attrs["mrc_source"] = SOURCES[source](tmp_path, server)
        again = stored(ds, tmp_path, kind)
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


@formats
def test_text_of_a_file_that_is_open_here_leads_nowhere_either(
    path: Path, tmp_path: Path, kind: str
) -> None:
    """The author of the other file may know the names of the user's own files."""
    own = opened(path)
    again = stored(own.load(), tmp_path, kind)
    assert own.mrc.extended_header == SECRET
    with pytest.raises(MrcError, match=r"volume\.mrc: .*Open the MRC file itself.*extended_head"):
        _ = again.mrc.extended_header
    assert len(again.mrc.header.label) == 10


@formats
def test_writing_says_once_what_it_leaves_out(path: Path, tmp_path: Path, kind: str) -> None:
    again = stored(opened(path).load(), tmp_path, kind)
    out = tmp_path / "out.mrc"
    with pytest.warns(MrcWarning, match="the extended header, which can't be read again") as seen:
        again.mrc.to_file(out)
    assert len([w for w in seen if "out.mrc" in str(w.message)]) == len(seen) == 1
    assert out.stat().st_size == 1024 + PIXELS.nbytes
    again.mrc.to_file(out, extended_header=("MRCO", SECRET), overwrite=True)
    assert opened(out).mrc.extended_header == SECRET


def test_converting_and_the_command_line(path: Path, tmp_path: Path) -> None:
    ds = opened(path).load()
    ds["data"].attrs["mrc_source"] = str(path)
    ds.to_netcdf(tmp_path / "a.nc")
    with pytest.warns(MrcWarning, match="extended header"):
        convert(str(tmp_path / "a.nc"), str(tmp_path / "a.mrc"))
    done = subprocess.run(
        [sys.executable, "-m", "mrc_xarray", "convert", "a.nc", "b.mrc", "--quiet"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "extended header" in done.stderr
    for name in ("a.mrc", "b.mrc"):
        assert SECRET[:64] not in (tmp_path / name).read_bytes()


# malformed attributes ---------------------------------------------------------------------------

HEADER = json.loads(opened(by_hand.mrc(PIXELS)).data.attrs["mrc_header"])
MALFORMED: dict[str, tuple[str, Any]] = {
    "broken JSON": ("mrc_header", "{"),
    "JSON of another kind": ("mrc_header", "[]"),
    "number": ("mrc_header", 5),
    "no fields": ("mrc_header", "{}"),
    "a field of another type": ("mrc_header", json.dumps(HEADER | {"nx": "many"})),
    "a field that fits no file": ("mrc_header", json.dumps(HEADER | {"nx": 2**40})),
    "too few labels": ("mrc_header", json.dumps(HEADER | {"label": ["a"]})),
    "no byte order": ("mrc_header", json.dumps(HEADER | {"byteorder": "?"})),
    "a large header": ("mrc_header", json.dumps(HEADER | {"label": ["a" * 10**6] * 10})),
    "a deep header": ("mrc_header", "[" * 10**6),
    "metadata that are a list": ("mrc_metadata", "[1]"),
    "metadata that are broken": ("mrc_metadata", "{'a': 1}"),
    "deep metadata": ("mrc_metadata", '{"a":' * 10**5 + "1" + "}" * 10**5),
    "metadata that are too deep": ("mrc_metadata", '{"a":' * 300 + "1" + "}" * 300),
    "metadata that are a number": ("mrc_metadata", 1.5),
    "an array": ("mrc_metadata", np.arange(3)),
    "metadata that are null": ("mrc_metadata", "null"),
    "repairs that are null": ("mrc_repairs", "null"),
    "a number beyond all floats": ("voltage_kV", 10**400),
    "a ratio beyond all floats": ("mrcz_ratio", 10**400),
    "no sections": ("mrc_header", json.dumps(HEADER | {"nz": -1})),
    "length of another type": ("mrc_extended_bytes", "long"),
    "negative length": ("mrc_extended_bytes", -1),
    "absurd length": ("mrc_extended_bytes", 2**62),
    "array of lengths": ("mrc_extended_bytes", np.array([1, 2])),
    "voltage of another type": ("voltage_kV", "high"),
    "voltage that is not finite": ("voltage_kV", float("nan")),
    "gain beyond float32": ("gain_e_per_DN", 1e300),
    "layout of another type": ("mrc_layout", 3),
    "long rule": ("mrc_layout_rule", "5" * 10**6),
    "source of another type": ("mrc_source", 7.0),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_attribute_is_ignored_with_one_warning(tmp_path: Path, name: str) -> None:
    key, value = MALFORMED[name]
    ds = opened(by_hand.mrc(PIXELS)).load()
    ds["data"].attrs[key] = value
    for use in ("metadata", "voxel_size", "extended_header", "extended_fields"):
        with pytest.warns(MrcWarning, match=f"the attributes {key} are not as") as seen:
            getattr(ds.mrc, use)
        assert len(seen) == 1
    with pytest.warns(MrcWarning, match=f"the attributes {key} are not as"):
        header = getattr(ds.mrc, "header", None)
    assert (header is None) == (key == "mrc_header")
    with pytest.warns(MrcWarning, match=f"the attributes {key} are not as") as seen:
        ds.mrc.to_file(tmp_path / "out.mrc")
    assert len(seen) == 1
    np.testing.assert_array_equal(opened(tmp_path / "out.mrc").data, PIXELS)
    assert ds["data"].attrs[key] is value


@pytest.mark.parametrize("value", ["wide", -1.0, float("inf"), np.arange(2), None, 10**400])
def test_malformed_spacing_is_ignored(tmp_path: Path, value: Any) -> None:
    data = opened(by_hand.mrc(PIXELS)).data[:1].load()
    data.coords["z"].attrs["spacing"] = value
    with pytest.warns(MrcWarning, match="the attributes z:spacing are not as"):
        assert data.mrc.voxel_size == {"y": 1.0, "x": 1.0}


def test_several_malformed_attributes_are_one_warning() -> None:
    data = opened(by_hand.mrc(PIXELS)).data
    data.attrs |= {"mrc_header": "{", "mrc_metadata": "{", "mrc_extended_bytes": "{"}
    with pytest.warns(MrcWarning, match="mrc_extended_bytes, mrc_header, mrc_metadata") as seen:
        assert data.mrc.metadata == {}
    assert len(seen) == 1


def test_what_files_store_is_well_formed(path: Path, tmp_path: Path) -> None:
    for kind in ("netcdf", "zarr"):
        again = stored(opened(path).load(), tmp_path, kind)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert provenance.well_formed(again) is again
            assert again.mrc.header.exttyp == "MRCO"
