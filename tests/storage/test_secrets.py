"""No attribute, error, warning, log or name of a task contains the secrets of a URL."""

from __future__ import annotations

import contextlib
import copy
import gzip
import logging
import pickle
import socket
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import by_hand
import de_by_hand as de
import fsspec
import numpy as np
import pytest
import servers
import xarray as xr
from distributed import Client, LocalCluster

import mrc_xarray
from mrc_xarray import MrcError, MrcWarning, to_mrc
from mrc_xarray.cli import main
from mrc_xarray.storage import open_source, redacted
from mrc_xarray.storage.failures import refusal
from mrc_xarray.storage.sink import open_sink
from mrc_xarray.storage.urls import scrubbed, secrets_of, sibling

PIXELS = np.arange(6 * 5 * 4, dtype="i2").reshape(6, 5, 4)
MOVIE = f"{de.STEM}_movie.mrc"
USER, PASSWORD, SIGNATURE, TOKEN = "alicia", "hunter2", "SECRETSIG", "tok/en"
SECRETS = (USER, PASSWORD, SIGNATURE, TOKEN, "X-Amz", "tok%2Fen")
QUERY = f"?X-Amz-Signature={SIGNATURE}&token={TOKEN}#{TOKEN}"


def with_secrets(url: str) -> str:
    """Put a user, a password, a query string and a fragment into a URL."""
    return url.replace("http://", f"http://{USER}:{PASSWORD}@") + QUERY


def assert_none(shown: Any, where: str = "") -> None:
    """Check a text, the bytes of a file, or what `repr` returns of anything else."""
    text = shown if isinstance(shown, str) else repr(shown)
    for secret in SECRETS:
        assert secret not in text, f"{secret} in {where or text}"


@contextlib.contextmanager
def raises(kind: Any, match: str | None = None) -> Iterator[pytest.ExceptionInfo[Exception]]:
    """Check all that is shown of an error, here or after it was sent to another process."""
    with pytest.raises(kind, match=match) as raised:
        yield raised
    for error in (raised.value, pickle.loads(pickle.dumps(raised.value))):
        assert_none((str(error), error, traceback.format_exception(error)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "volume.mrc"
    path.write_bytes(by_hand.mrc(PIXELS))
    return path


@pytest.fixture(autouse=True)
def no_secret_in_logs(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO):
        yield
    for record in caplog.records:
        assert_none(record.getMessage(), record.name)


# text -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/data/a?b#c/x@y.mrc", "/data/a?b#c/x@y.mrc"),
        ("a::b.mrc", "a::b.mrc"),
        ("https://host:8080/x.mrc?sig=1/2#3", "https://host:8080/x.mrc"),
        ("https://u:p@host/x.mrc", "https://host/x.mrc"),
        ("https://u@host:80/x@y.mrc?mail=a@b", "https://host:80/x@y.mrc"),
        ("https://u:p%40w@host?sig=1", "https://host"),
        ("https://u:p@w@host/x.mrc", "https://host/x.mrc"),
        # not percent-encoded
        ("https://u:p/w@host/x.mrc", "https://host/x.mrc"),
        ("https://u:p?w@host/x.mrc?q", "https://host/x.mrc"),
        ("https://u:p#w@host/x.mrc", "https://host/x.mrc"),
        ("s3://bucket/key.mrc?versionId=1", "s3://bucket/key.mrc"),
        ("zip://a.mrc::https://u:p@h/x.zip?sig=1", "zip://a.mrc::https://h/x.zip"),
        ("zip://a.mrc::/data/x@y.zip", "zip://a.mrc::/data/x@y.zip"),
        ("https://u:p@[::1]:80/x.mrc?sig=1", "https://[::1]:80/x.mrc"),
    ],
)
def test_redacted(url: str, expected: str) -> None:
    assert redacted(url) == expected
    assert redacted(expected) == expected


def test_text_of_others_is_scrubbed() -> None:
    url = "https://al:pass%20word@host/x.mrc?sig=a%2Fb&k=v#frag"
    said = (
        "403, url='https://host/x.mrc?sig=a/b&k=v' for al with pass word or pass%20word at "
        "/x.mrc?sig=a%2Fb&k=v, also, a/b; https://other/y?z=1"
    )
    assert scrubbed(said, secrets_of(url)) == (
        "403, url='https://host/x.mrc' for … with … or … at /x.mrc?…, also, …; https://other/y"
    )


def test_sibling_of_a_url_with_slashes_in_its_query() -> None:
    assert sibling("https://u:p@h/d/x.mrc?sig=a/b", "y.txt") == "https://u:p@h/d/y.txt"
    assert sibling("bucket/what?/x.mrc", "y.txt") == "bucket/what?/y.txt"
    assert sibling("http://h/a%20b/x.mrc", "y #1.txt") == "http://h/a%20b/y%20%231.txt"


# what is opened ---------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "simplecache::"])
@pytest.mark.parametrize("chunks", [None, {}])
def test_dataset_holds_no_secret(
    http: servers.HttpServer, path: Path, tmp_path: Path, prefix: str, chunks: Any
) -> None:
    url = prefix + with_secrets(http.url(path.name))
    options = {"simplecache": {"cache_storage": str(tmp_path / "cache")}} if prefix else {}
    ds = xr.open_dataset(url, engine="mrc", chunks=chunks, storage_options=options)
    plain = prefix + http.url(path.name)
    assert ds.encoding["source"] == ds.data.attrs["mrc_source"] == plain
    assert ds.data.attrs["mrc_layout"] == "volume"
    assert_none((ds, ds._repr_html_(), ds.variables, ds.data.encoding, ds.encoding))
    assert_none((ds.attrs, ds.data.attrs, copy.deepcopy(ds).data.attrs))
    if chunks is not None:
        assert_none((ds.__dask_keys__(), dict(ds.__dask_graph__()), ds.data.data))
    np.testing.assert_array_equal(ds.data.compute(scheduler="threads"), PIXELS)
    assert ds.mrc.header.nx == 4


def test_files_that_are_written_hold_no_secret(
    http: servers.HttpServer, path: Path, tmp_path: Path
) -> None:
    ds = xr.open_dataset(with_secrets(http.url(path.name)), engine="mrc")
    ds.to_netcdf(tmp_path / "out.nc")
    ds.to_zarr(tmp_path / "out.zarr", consolidated=False)
    ds.data.mrc.to_file(tmp_path / "out.mrcz")
    ds.data.mrc.to_file(tmp_path / "out.mrc")
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) > 4
    for file in files:
        assert_none(file.read_bytes(), file.name)


def test_sources_show_no_secret(http: servers.HttpServer, path: Path) -> None:
    url = with_secrets(http.url(path.name))
    for target in (url, fsspec.open(url)):
        source = open_source(target)
        assert source.name == http.url(path.name)
        assert_none((source, str(source.sibling("other.mrc"))))
        again = pickle.loads(pickle.dumps(source))
        assert again == source
        assert again.read(1024, 240) == PIXELS.tobytes()
    with fsspec.open(url) as file:
        ds = xr.open_dataset(file, engine="mrc")
    assert_none((ds.encoding, ds.data.attrs))


def test_summary_and_findings_show_no_secret(http: servers.HttpServer, path: Path) -> None:
    from mrc_xarray.tools.summary import summarise, table

    # a stamp of the other byte order is repaired
    raw = bytearray(path.read_bytes())
    raw[212:216] = b"\x11\x11\0\0"
    path.write_bytes(raw)
    url = with_secrets(http.url(path.name))
    assert_none(table(summarise(url)))
    findings = list(mrc_xarray.validate(url, data=True))
    assert findings
    assert_none(findings)
    with pytest.warns(MrcWarning) as caught:
        ds = xr.open_dataset(url, engine="mrc")
    assert_none((messages(caught), ds.data.attrs["mrc_repairs"]))


# siblings ---------------------------------------------------------------------------------------


@pytest.fixture
def movie(tmp_path: Path) -> Path:
    path = tmp_path / MOVIE
    path.write_bytes(de.movie(de.frames(12)))
    return path


def messages(caught: pytest.WarningsRecorder) -> list[str]:
    return [str(warning.message) for warning in caught]


def refusing(suffix: str, status: int) -> servers.Alter:
    return lambda method, path, answer: (status, {}, b"") if path.endswith(suffix) else answer


def test_sidecar_that_is_refused(http: servers.HttpServer, movie: Path) -> None:
    http.alter = refusing("_info.txt", 403)
    with pytest.warns(MrcWarning, match="unreadable") as caught:
        ds = xr.open_dataset(with_secrets(http.url(MOVIE)), engine="mrc")
    assert_none((messages(caught), ds.data.attrs))


def test_sidecar_of_a_url_with_secrets_is_found(http: servers.HttpServer, movie: Path) -> None:
    movie.with_name(f"{de.STEM}_info.txt").write_bytes(de.info())
    movie.with_name(f"{de.STEM}_scan_coordinates.csv").write_bytes(de.csv())
    found = xr.open_dataset(with_secrets(http.url(MOVIE)), engine="mrc")
    expected = xr.open_dataset(movie, engine="mrc")
    assert found.mrc.metadata == expected.mrc.metadata
    assert found.data.dims == expected.data.dims
    assert "scan_y" in found.data.dims


def test_sidecar_that_is_named_by_a_url(http: servers.HttpServer, path: Path) -> None:
    path.with_name("angles.tlt").write_text("\n".join(map(str, range(5))))
    url = with_secrets(http.url("angles.tlt"))
    with pytest.warns(MrcWarning) as caught:
        xr.open_dataset(path, engine="mrc", metadata_file=url, layout="image_stack")
    assert_none(messages(caught))
    with raises(FileNotFoundError):
        xr.open_dataset(path, engine="mrc", metadata_file=with_secrets(http.url("none.tlt")))


def listing(method: str, path: str, answer: servers.Answer) -> servers.Answer:
    """Respond with a page of links to a request for the folder."""
    names = (MOVIE, f"{de.STEM}_final.mrc")
    page = "".join(f'<a href="{name}">{name}</a>' for name in names).encode()
    headers = {"Content-Type": "text/html", "Content-Length": str(len(page))}
    return answer if path.rstrip("/") else (200, headers, page)


def test_tree_of_a_url_with_secrets(http: servers.HttpServer, movie: Path) -> None:
    """The other images are opened with the user and password, and shown without."""
    final = movie.with_name(f"{de.STEM}_final.mrc")
    final.write_bytes(by_hand.mrc(de.frames(12)[0]))
    http.alter = listing
    tree = xr.open_datatree(with_secrets(http.url(MOVIE)), engine="mrc", chunks={})
    np.testing.assert_array_equal(tree["final/data"].squeeze(), de.frames(12)[0])
    np.testing.assert_array_equal(tree["data"], de.frames(12))
    assert tree.encoding["source"] == http.url(MOVIE)
    assert tree["final/data"].attrs["mrc_source"] == http.url(final.name)
    for node in tree.subtree:
        assert_none((node.encoding, node.attrs, node.dataset.data.attrs))


def test_folder_that_is_not_listed(http: servers.HttpServer, movie: Path) -> None:
    http.alter = refusing("/", 403)
    tree = xr.open_datatree(with_secrets(http.url(MOVIE)), engine="mrc")
    assert tree.groups == ("/",)


# what fails -------------------------------------------------------------------------------------

CIRCLE = {"Location": f"/volume.mrc?other={SIGNATURE}", "Content-Length": "0"}


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, FileNotFoundError), (401, PermissionError), (500, OSError), (799, OSError)],
)
def test_refusal_by_the_status(status: int, kind: type[Exception]) -> None:
    error = refusal(status, "volume.mrc")
    assert type(error) is kind
    assert error.filename == "volume.mrc"
    assert kind is FileNotFoundError or str(status) in str(error)


@pytest.mark.parametrize("prefix", ["", "simplecache::", "zip://inner/volume.mrc::"])
@pytest.mark.parametrize(
    ("status", "kind"), [(410, FileNotFoundError), (403, PermissionError), (429, OSError)]
)
def test_refusal_when_opening(
    http: servers.HttpServer, path: Path, prefix: str, status: int, kind: type[Exception]
) -> None:
    http.alter = refusing("", status)
    if prefix.startswith("zip"):
        # fsspec mistakes the query string of an archive for a pattern, which nothing matches
        kind = FileNotFoundError
    with raises(kind) as raised:
        xr.open_dataset(prefix + with_secrets(http.url(path.name)), engine="mrc")
    assert type(raised.value) is kind
    assert path.name in str(raised.value)
    assert kind is FileNotFoundError or str(status) in str(raised.value)


@pytest.mark.parametrize(
    ("alter", "kind", "message"),
    [
        (refusing("", 410), FileNotFoundError, r"volume\.mrc"),
        (refusing("", 403), PermissionError, r"volume\.mrc"),
        (refusing("", 429), OSError, r"volume\.mrc"),
        (lambda method, path, answer: (*answer[:2], answer[2][:10]), OSError, "not completed"),
        (lambda method, path, answer: (302, CIRCLE, b""), OSError, r"volume\.mrc"),
    ],
    ids=["gone", "forbidden", "busy", "breaks off", "redirected in circles"],
)
def test_failure_when_reading(
    http: servers.HttpServer, path: Path, alter: Any, kind: type[Exception], message: str
) -> None:
    ds = xr.open_dataset(with_secrets(http.url(path.name)), engine="mrc", chunks={})
    http.alter = alter
    with raises(kind, match=message) as raised:
        ds.data.compute(scheduler="threads")
    assert type(raised.value) is kind


@pytest.mark.parametrize("prefix", ["", "simplecache::"])
def test_connection_that_is_refused(prefix: str, path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    url = prefix + with_secrets(f"http://127.0.0.1:{port}/volume.mrc")
    with raises(ConnectionRefusedError, match="Connect call failed"):
        xr.open_dataset(url, engine="mrc")


@pytest.mark.slow
def test_error_and_log_of_a_worker(http: servers.HttpServer, path: Path) -> None:
    ds = xr.open_dataset(with_secrets(http.url(path.name)), engine="mrc", chunks={})
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        np.testing.assert_array_equal(client.compute(ds.data).result(), PIXELS)
        http.alter = refusing("", 403)
        future = client.compute(ds.data + 1, retries=0)
        with raises(PermissionError, match="403 Forbidden"):
            future.result()
        logs = client.get_worker_logs() | {"scheduler": client.get_scheduler_logs()}
    assert "Compute Failed" in str(logs)
    assert_none(str(logs))


def test_file_that_changed_or_is_damaged(http: servers.HttpServer, path: Path) -> None:
    url = with_secrets(http.url(path.name))
    ds = xr.open_dataset(url, engine="mrc", chunks={})
    path.write_bytes(by_hand.mrc(PIXELS) + b"\0")
    with raises(MrcError, match=r"volume\.mrc: the file changed since"):
        ds.load()
    for damaged in (by_hand.mrc(PIXELS)[:-9], b"no MRC"):
        path.write_bytes(damaged)
        with raises(MrcError, match=r"volume\.mrc"):
            xr.open_dataset(url, engine="mrc")
    path.write_bytes(by_hand.mrc(PIXELS)[:-9])
    with pytest.warns(MrcWarning) as caught:
        xr.open_dataset(url, engine="mrc", truncated="trim")
    assert_none(messages(caught))


def test_stream_that_is_damaged(http: servers.HttpServer, path: Path) -> None:
    packed = gzip.compress(by_hand.mrc(np.random.default_rng(0).random((9, 90, 90), "f4")))
    path.write_bytes(packed[: len(packed) // 2])
    url = with_secrets(http.url(path.name))
    ds = xr.open_dataset(url, engine="mrc", chunks={})
    with raises(MrcError, match=r"volume\.mrc: the gzip stream is damaged"):
        ds.load()
    http.alter = refusing("", 403)
    with raises(PermissionError):
        xr.open_dataset(url, engine="mrc")


@pytest.mark.parametrize(
    "url",
    [
        f"nosuch://{USER}:{PASSWORD}@host/x.mrc?sig={SIGNATURE}",
        f"http://{USER}:{PASSWORD}/x@127.0.0.1:1/x.mrc?sig={SIGNATURE}",
        f"http://{USER}:{PASSWORD}@:99999999/x.mrc?sig={SIGNATURE}",
        f"ftp://{USER}:{PASSWORD}@127.0.0.1:1/x.mrc",
    ],
)
def test_url_that_makes_no_sense(url: str) -> None:
    with raises((OSError, ValueError)):
        xr.open_dataset(url, engine="mrc")


def test_endpoint_with_a_password() -> None:
    """The errors of botocore contain the URL of the request."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    options = {"key": USER, "secret": PASSWORD, "endpoint_url": f"http://127.0.0.1:{port}"}
    options["config_kwargs"] = {"retries": {"max_attempts": 0}}
    fs = fsspec.filesystem("s3", **options)
    fs.retries = 1
    url = f"s3://bucket/x.mrc?sig={SIGNATURE}"
    with raises(OSError, match="Could not connect to the endpoint URL"):
        xr.open_dataset(url, engine="mrc", storage_options=options)


# the command ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [["info"], ["info", "--json"], ["validate"], ["validate", "--json"]], ids=" ".join
)
def test_command_shows_no_secret(
    http: servers.HttpServer, path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    url = with_secrets(http.url(path.name))
    main([*command, url])
    http.alter = refusing("", 403)
    main([*command, url])
    shown = "".join(capsys.readouterr())
    assert shown.count(path.name) >= 2
    assert_none(shown)


@pytest.mark.slow
def test_conversion_shows_no_secret(
    http: servers.HttpServer, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = with_secrets(http.url(path.name))
    nc, zarr = (url.replace(".mrc", suffix) for suffix in (".nc", ".zarr"))
    for source, target in (
        *[(url, tmp_path / name) for name in ("o.nc", "o.nc", "o.mrc")],
        *[(path, nc), (nc, tmp_path / "p.mrc"), (zarr, tmp_path / "p.mrc"), (path, zarr)],
        (path, f"s3://{USER}:{PASSWORD}@bucket/a.mrc"),
    ):
        main(["convert", str(source), str(target), "--quiet"])
    main(["convert", url, str(tmp_path / "o.zarr"), "--select", "q=0"])
    shown = capsys.readouterr()
    assert "no dimension 'q'" in shown.err
    assert "netCDF can only be written to a local path" in shown.err
    assert_none(shown.out + shown.err)


@pytest.mark.parametrize("options", [{}, {"region": {"z": slice(0, 2)}}, {"append_dim": "z"}])
def test_written_object_shows_no_secret(options: dict[str, Any]) -> None:
    url = f"memory://{USER}:{PASSWORD}@written/a.mrc{QUERY}"
    sink = open_sink(url, None, overwrite=True)
    assert_none((sink, sink.name, sink.note))
    to_mrc(PIXELS, url, overwrite=True)
    with raises((FileExistsError, MrcError), match=r"memory://written/a\.mrc"):
        to_mrc(PIXELS, url, **options)
