"""The engine as xarray uses it: arguments, guessing, and all functions that open files."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import io
import os
import re
import socket
import warnings
from pathlib import Path
from typing import Any

import by_hand
import numpy as np
import pytest
import xarray as xr

from mrc_xarray import MrcWarning, open_many
from mrc_xarray.backend import MrcBackendEntrypoint

DATA = np.arange(24, dtype="i2").reshape(2, 3, 4)
RAW = by_hand.mrc(DATA)
STACK = by_hand.mrc(DATA, ispg=0, mz=1)

DEFAULTS = {
    "drop_variables": None, "storage_options": None, "layout": "auto", "scan_shape": None,
    "scan_offset": 0, "scan_flyback": 0,
    "sections_per_frame": None, "dims": None, "units": "angstrom", "voxel_size": None,
    "origin": "auto", "mode0": "auto", "convention": "ccpem", "byteorder": "auto",
    "metadata_file": "auto", "scan_file": "auto", "truncated": "error", "mmap": "auto",
    "strict": False,
}  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file.mrc"
    path.write_bytes(RAW)
    return path


def test_arguments_are_documented() -> None:
    method = MrcBackendEntrypoint.open_dataset
    parameters = inspect.signature(method).parameters
    named = {
        name: parameter.default
        for name, parameter in parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    assert named == DEFAULTS
    assert MrcBackendEntrypoint.open_dataset_parameters == ("filename_or_obj", *DEFAULTS)
    assert list(inspect.signature(MrcBackendEntrypoint().open_dataset).parameters) == [
        "filename_or_obj", *DEFAULTS,
    ]  # fmt: skip
    documented = re.findall(r"^(\w+) : ", str(method.__doc__), re.MULTILINE)
    assert documented == ["filename_or_obj", *DEFAULTS]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layout": "stack"}, ValueError, "layout is 'stack'; accepted: 'auto', 'image'"),
        ({"units": "A"}, ValueError, "units is 'A'; accepted: 'angstrom', 'nm', 'pm', 'um'$"),
        ({"origin": "none"}, ValueError, "origin is 'none'; accepted: 'auto', 'origin'"),
        ({"byteorder": "<"}, ValueError, "byteorder is '<'; accepted: 'auto', 'little', 'big'$"),
        ({"mode0": "i1"}, ValueError, "mode0 is 'i1'; accepted: 'auto', 'int8', 'uint8'$"),
        ({"convention": "imod"}, ValueError, "convention is 'imod'; accepted: 'ccpem', 'eman2'$"),
        ({"truncated": True}, ValueError, "truncated is True; accepted: 'error', 'trim'$"),
        (
            {"lay_out": "volume"},
            TypeError,
            r"arguments: lay_out; accepted: byteorder, .*\. Did you mean layout\?$",
        ),
        ({"voxelsize": 2}, TypeError, "unknown arguments: voxelsize; accepted: .*"),
        ({"unit": "nm"}, TypeError, r"unit; .*Did you mean units\?"),
        ({"navigation_shape": (2, 1)}, TypeError, r"\(x, y\); here write scan_shape=\(y, x\)"),
        ({"lazy": True, "idx": 1}, TypeError, r"^lazy= is Rosetta.*\nidx= is mrcz's"),
    ],
)
def test_wrong_arguments(
    path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    for function in (xr.open_dataset, xr.open_datatree):
        with pytest.raises(error, match=message):
            function(path, engine="mrc", **options)


ELSEWHERE = {
    "navigation_shape": "scan_shape", "lazy": "chunks", "distributed": "chunks",
    "mmap_mode": "mmap", "endianess": "byteorder", "endianness": "byteorder",
    "permissive": "strict", "idx": "isel", "pixelunits": "units", "slices": "sections_per_frame",
    "useMemmap": "mmap", "endian": "byteorder", "fileConvention": "convention",
}  # fmt: skip


@pytest.mark.parametrize("name", ELSEWHERE)
def test_arguments_of_other_readers_are_refused(path: Path, name: str) -> None:
    """The message names the argument here, for each function that opens files."""
    message = rf"^{name}= is \w+'s.*; here .*\b{ELSEWHERE[name]}\b"
    for value in (None, True):
        options: Any = {name: value}
        for function in (xr.open_dataset, xr.open_datatree, xr.open_mfdataset, open_many):
            with pytest.raises(TypeError, match=message):
                function([path] if function is open_many else path, engine="mrc", **options)
    with pytest.raises(TypeError, match=message):
        xr.open_dataset(path, **options)


def test_without_an_engine(path: Path) -> None:
    with (
        xr.open_dataset(path) as ds,
        xr.open_dataset(str(path), engine="mrc", decode_cf=False) as by_name,
        xr.open_dataset(path, engine=MrcBackendEntrypoint, decode_cf=False) as by_class,
    ):
        xr.testing.assert_identical(ds, by_name)
        xr.testing.assert_identical(ds, by_class)


def test_lazy_without_chunks(path: Path) -> None:
    with xr.open_dataset(path, engine="mrc") as ds:
        assert not ds.data.variable._in_memory
        assert ds.data.chunks is None
        assert ds.load().data.variable._in_memory


GUESSES: dict[str, tuple[bytes, bool]] = {
    "little": (RAW, True),
    "big": (by_hand.mrc(DATA, byteorder=">"), True),
    "header alone": (RAW[:1024], True),
    "no MAP, no stamp": (by_hand.mrc(DATA, map=bytes(4), machst=bytes(4)), True),
    "wrong stamp": (by_hand.mrc(DATA, machst=by_hand.STAMPS[">"]), True),
    "MRCZ": (by_hand.mrc(DATA, mode=6001), True),
    "216 bytes": (RAW[:216], True),
    "215 bytes": (RAW[:215], False),
    "DeltaVision": (by_hand.mrc(DATA, lskflg=0xC0A0), False),
    "unknown mode": (by_hand.mrc(DATA, mode=99), False),
    "no rows": (by_hand.header((2, 0, 4), 1), False),
    "empty": (b"", False),
    "zeros": (bytes(2048), False),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + RAW[8:], False),
    "netCDF 3": (b"CDF\x01" + RAW[4:], False),
    "gzip": (b"\x1f\x8b" + bytes(300), False),
    "HTML": (b"<!doctype html>" + b" " * 300, False),
    "noise": (np.random.default_rng(0).bytes(2048), False),
}


@pytest.mark.parametrize("case", GUESSES)
def test_guess_by_content(tmp_path: Path, case: str) -> None:
    raw, expected = GUESSES[case]
    path = tmp_path / "file.nc"
    path.write_bytes(raw)
    engine = MrcBackendEntrypoint()
    assert engine.guess_can_open(path) is engine.guess_can_open(str(path)) is expected
    assert engine.guess_can_open(raw) is engine.guess_can_open(memoryview(raw)) is expected
    with path.open("rb") as file:
        file.seek(7)
        assert engine.guess_can_open(file) is expected
        assert file.tell() == 7


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://bucket/a.mrc", True), ("https://host/a.MRCS", True), ("memory://a.rec", True),
        ("https://host/a.map?token=1", True), ("https://host/a.mrc#x", True),
        ("simplecache::s3://bucket/a.st", True), ("file:///a/b.mrcz", True),
        ("https://host/a.mrc.zip", True), ("https://host/a.nc.zip", False),
        ("s3://bucket/a.nc", False), ("https://host/?file=a.mrc", False),
        ("https://host/a", False), ("https://a.mrc/", False), ("s3://bucket/a.zarr", False),
    ],
)  # fmt: skip
def test_guess_of_a_url_is_by_name(
    monkeypatch: pytest.MonkeyPatch, url: str, expected: bool
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("guess_can_open used the network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr("builtins.open", refuse)
    assert MrcBackendEntrypoint().guess_can_open(url) is expected


class Broken:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


@pytest.mark.parametrize(
    "target",
    [None, 5, [], {}, Broken(), io.StringIO("text" * 100), xr.Dataset(), np.zeros(300), "\0", b""],
    ids=lambda target: type(target).__name__,
)
def test_guess_never_raises(target: Any) -> None:
    assert MrcBackendEntrypoint().guess_can_open(target) is False


def test_guess_of_folders_pipes_and_missing_files(tmp_path: Path) -> None:
    engine = MrcBackendEntrypoint()
    assert not engine.guess_can_open(tmp_path)
    assert not engine.guess_can_open(tmp_path / "none.mrc")
    os.mkfifo(tmp_path / "pipe.mrc")
    assert not engine.guess_can_open(tmp_path / "pipe.mrc")


def test_foreign_files_go_to_their_own_engine(tmp_path: Path) -> None:
    ds = xr.Dataset({"a": ("x", [1, 2])})
    ds.to_netcdf(tmp_path / "a.nc")
    with xr.open_dataset(tmp_path / "a.nc") as again:
        xr.testing.assert_identical(ds, again.load())


def files(tmp_path: Path, n: int) -> tuple[list[Path], np.ndarray[Any, Any]]:
    """Write `n` stacks of two sections, each with slightly another voxel and label."""
    data = np.arange(n * 24, dtype="i2").reshape(n, 2, 3, 4)
    paths = [tmp_path / f"{i}.mrcs" for i in range(n)]
    for i, path in enumerate(paths):
        cella = (4 + i * 1e-6, 3, 1)
        path.write_bytes(by_hand.mrc(data[i], ispg=0, mz=1, cella=cella, labels=(b"%d" % i,)))
    return paths, data.reshape(-1, 3, 4)


def test_many_files(tmp_path: Path) -> None:
    paths, data = files(tmp_path, 3)
    with xr.open_mfdataset(
        paths, engine="mrc", combine="nested", concat_dim="image", join="override",
        combine_attrs="drop_conflicts",
    ) as ds:  # fmt: skip
        np.testing.assert_array_equal(ds.data, data)
        assert ds.section.values.tolist() == [0, 1, 0, 1, 0, 1]
        assert ds.data.attrs["mrc_layout"] == "image_stack"
        assert ds.mrc.voxel_size == pytest.approx({"z": 1, "y": 1, "x": 1})


@pytest.mark.parametrize(
    ("dropped", "left"),
    [
        ("section", {"data", "x", "y"}),
        (["x", "y"], {"data", "section"}),
        ("data", {"section", "x", "y"}),
        (None, {"data", "section", "x", "y"}),
    ],
)
def test_drop_variables(tmp_path: Path, dropped: Any, left: set[str]) -> None:
    path = tmp_path / "file.mrcs"
    path.write_bytes(STACK)
    with xr.open_dataset(path, engine="mrc", drop_variables=dropped) as ds:
        assert set(ds.variables) == left


@pytest.mark.parametrize("options", [{}, {"mmap": True}])
def test_load_async(path: Path, options: dict[str, Any]) -> None:
    with xr.open_dataset(path, engine="mrc", **options) as ds:
        loaded = asyncio.run(ds.load_async())
        np.testing.assert_array_equal(loaded.data, DATA)
        assert ds.data.variable._in_memory
    with xr.open_dataset(path, engine="mrc", **options) as ds:
        window = asyncio.run(ds.isel(z=1, x=[0, 3]).load_async())
        np.testing.assert_array_equal(window.data, DATA[1][:, [0, 3]])
    with xr.open_dataset(path, engine="mrc", **options) as ds:
        picked = xr.Variable("p", [0, 2])
        points = asyncio.run(ds.isel(y=picked, x=picked).load_async())
        np.testing.assert_array_equal(points.data, DATA[:, [0, 2], [0, 2]])


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, io.BytesIO, open])
def test_targets(path: Path, kind: Any) -> None:
    target = path.open("rb") if kind is open else kind(RAW)
    with target if kind is open else contextlib.nullcontext():
        if kind is open:
            target.seek(3)
        with xr.open_dataset(target, engine="mrc") as ds:
            np.testing.assert_array_equal(ds.data, DATA)
        assert kind is not open or target.tell() == 3


def test_home_and_working_directory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(path.parent))
    for name in ("~/file.mrc", "file.mrc"):
        monkeypatch.chdir(path.parent)
        with xr.open_dataset(name, engine="mrc") as ds:
            assert ds.data.attrs["mrc_source"] == str(path)
            monkeypatch.chdir("/")
            np.testing.assert_array_equal(ds.data, DATA)


@pytest.mark.parametrize(
    "function", [xr.open_dataset, xr.open_dataarray, MrcBackendEntrypoint().open_dataset]
)
def test_warnings_point_at_the_users_line(tmp_path: Path, function: Any) -> None:
    path = tmp_path / "file.mrc"
    path.write_bytes(by_hand.mrc(DATA, map=bytes(4)))
    options = {} if inspect.ismethod(function) else {"engine": "mrc"}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        line = inspect.currentframe().f_lineno + 1
        function(path, **options).close()
    [warning] = caught
    assert warning.category is MrcWarning
    assert (warning.filename, warning.lineno) == (__file__, line)


def test_guess_uses_map_and_stamp_if_the_axis_order_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "w.mrc"
    path.write_bytes(by_hand.mrc(np.zeros((2, 3, 4), "f4"), mapc=0, mapr=0, maps=0))
    with pytest.warns(MrcWarning, match="MAPC"):
        assert xr.open_dataset(path).sizes == {"z": 2, "y": 3, "x": 4}
