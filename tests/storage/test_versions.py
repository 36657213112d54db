"""An object that is replaced while it is read gives all old pixels or an error, never a mixture.

And servers whose response is not what was requested.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import pickle
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import by_hand
import fsspec
import numpy as np
import pytest
import servers
import xarray as xr
from streams_by_hand import zipped

from mrc_xarray import MrcError
from mrc_xarray.storage import open_source

N, SECTION = 4, 192 * 192 * 2
OLD = np.random.default_rng(3).integers(-1000, 1000, (N, 192, 192), "i2")
NEW = OLD + np.int16(5000)
# the statistics in the headers differ, like the pixels
OLD_BYTES = by_hand.mrc(OLD, dmin=float(OLD.min()))
NEW_BYTES = by_hand.mrc(NEW, dmin=float(NEW.min()))
assert len(OLD_BYTES) == len(NEW_BYTES)
CHANGED = r"volume\.mrc.*: the file changed since it was opened \("

Replace = Callable[[int], None]


def outcome(target: str, **options: Any) -> str:
    """Open and compute a file that may be replaced at any time; return the outcome."""
    try:
        ds = xr.open_dataset(target, engine="mrc", cache=False, **options)
        pixels = ds.data.chunk(z=1).compute(scheduler="synchronous").values
    except MrcError as error:
        return "changed" if re.search(CHANGED, str(error)) else str(error)
    new = [bool(np.array_equal(a, b)) for a, b in zip(pixels, NEW, strict=True)]
    old = [bool(np.array_equal(a, b)) for a, b in zip(pixels, OLD, strict=True)]
    assert all(old) or all(new), f"a mixture: {new}"
    return "old" if all(old) else "new"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "volume.mrc"
    path.write_bytes(OLD_BYTES)
    os.utime(path, (10**9, 10**9))
    return path


def replacing(path: Path, at: int, old: bytes = OLD_BYTES, new: bytes = NEW_BYTES) -> Replace:
    """Return a function that replaces the file, with another time, before the n-th request."""
    path.write_bytes(old)
    os.utime(path, (10**9, 10**9))

    def replace(n: int) -> None:
        if n == at:
            path.write_bytes(new)
            os.utime(path, (10**9 + 5, 10**9 + 5))

    return replace


# HTTP -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "marks",
    [
        ("ETag", "Last-Modified"),
        *(
            pytest.param(marks, marks=pytest.mark.slow)
            for marks in (("ETag",), ("Last-Modified",))
        ),
        pytest.param((), marks=pytest.mark.slow),
    ],
    ids=["both", "etag", "date", "none"],
)
def test_http_file_replaced_at_any_request(
    http: servers.HttpServer, path: Path, marks: tuple[str, ...]
) -> None:
    http.marks = marks
    url = http.url(path.name)
    assert outcome(url) == "old"
    n_requests = http.n_arrived
    if marks:
        # for the size, the header, two names of an .mdoc, and each section
        assert n_requests == 4 + N
    found = []
    for at in range(n_requests + 1):
        http.before, http.n_arrived = replacing(path, at), 0
        found.append(outcome(url))
    expected = ["new", *["changed"] * (n_requests - 1), "old"]
    if not marks:
        # only the size was requested
        expected[1] = "new"
    assert found == expected


def weak(method: str, path: str, answer: servers.Answer) -> servers.Answer:
    """Give the same weak ETag to every file."""
    status, headers, body = answer
    return status, headers | {"ETag": 'W/"same"'}, body


def strong_by_head_alone(method: str, path: str, answer: servers.Answer) -> servers.Answer:
    """Leave all marks out of a response with bytes."""
    status, headers, body = answer
    marks = ("ETag", "Last-Modified") if method == "GET" else ()
    return status, {name: headers[name] for name in headers if name not in marks}, body


def weak_by_proxy(method: str, path: str, answer: servers.Answer) -> servers.Answer:
    """Make the ETag of a response with bytes weak, as a compressing proxy does."""
    status, headers, body = answer
    marks = {name: "W/" * (method == "GET") + headers[name] for name in headers if name == "ETag"}
    return status, headers | marks, body


@pytest.mark.slow
@pytest.mark.parametrize(
    ("alter", "more"), [(weak, 0), (strong_by_head_alone, N + 1), (weak_by_proxy, 0)]
)
def test_http_marks_that_prove_less(
    http: servers.HttpServer, path: Path, alter: Any, more: int
) -> None:
    http.alter = alter
    url = http.url(path.name)
    assert outcome(url) == "old"
    n_requests = http.n_arrived
    # the size, the header, two names of an .mdoc, and each section
    assert n_requests == 4 + N + more
    for at in range(n_requests + 1):
        http.before, http.n_arrived = replacing(path, at), 0
        assert outcome(url) == ("new" if at == 0 else "changed" if at < n_requests else "old")


def test_http_file_that_got_shorter_or_longer(http: servers.HttpServer, path: Path) -> None:
    http.marks = ()
    for new in (OLD_BYTES[:-SECTION], OLD_BYTES + b"\0", OLD_BYTES[:2000]):
        path.write_bytes(OLD_BYTES)
        ds = xr.open_dataset(http.url(path.name), engine="mrc", cache=False)
        path.write_bytes(new)
        with pytest.raises(MrcError, match=rf"size: {len(OLD_BYTES)} bytes, now {len(new)}"):
            ds.data[0].load()


def test_range_that_the_server_does_not_have(http: servers.HttpServer, path: Path) -> None:
    ds = xr.open_dataset(http.url(path.name), engine="mrc", cache=False)
    http.alter = lambda method, where, answer: (416, {}, b"")
    with pytest.raises(OSError, match="416 Requested Range Not Satisfiable"):
        ds.load()


def test_mark_that_is_gone_is_a_change(http: servers.HttpServer, path: Path) -> None:
    ds = xr.open_dataset(http.url(path.name), engine="mrc", cache=False)
    http.marks = ("Last-Modified",)
    with pytest.raises(MrcError, match=rf"{CHANGED}ETag\)"):
        ds.load()


def test_ranges_are_fetched_at_the_same_time(http: servers.HttpServer, path: Path) -> None:
    ds = xr.open_dataset(http.url(path.name), engine="mrc", cache=False)
    together = threading.Barrier(2)

    def alter(method: str, where: str, answer: servers.Answer) -> servers.Answer:
        together.wait(10)
        return answer

    http.alter = alter
    np.testing.assert_array_equal(ds.data.isel(z=[0, 2]), OLD[::2])


def test_pickled_source_is_small_and_knows_the_version(
    http: servers.HttpServer, path: Path
) -> None:
    source = open_source(http.url(path.name))
    source.read(0, 1024)
    pickled = pickle.dumps(source)
    assert len(pickled) < 1000
    replacing(path, 0)(0)
    with pytest.raises(MrcError, match=CHANGED):
        pickle.loads(pickled).read(0, 1024)


# responses that are not what was requested -------------------------------------------------------


def partial(change: Callable[[dict[str, str], bytes], tuple[dict[str, str], bytes]]) -> Any:
    """Return an `alter` that changes headers and body of partial responses."""

    def alter(method: str, where: str, answer: servers.Answer) -> servers.Answer:
        status, headers, body = answer
        return (status, *change(headers, body)) if status == 206 else answer

    return alter


def shifted(headers: dict[str, str], body: bytes) -> tuple[dict[str, str], bytes]:
    """Respond with the right number of bytes from another position, and say so."""
    start = len(OLD_BYTES) - len(body) if len(body) < 20000 else 4
    stop = start + len(body)
    given = {"Content-Range": f"bytes {start}-{stop - 1}/{len(OLD_BYTES)}"}
    return headers | given, OLD_BYTES[start:stop]


def with_range(value: str) -> Any:
    return partial(lambda headers, body: (headers | {"Content-Range": value}, body))


def with_body(change: Callable[[bytes], bytes], **more: str) -> Any:
    """Change the body, and the length with it."""

    def changed(headers: dict[str, str], body: bytes) -> tuple[dict[str, str], bytes]:
        body = change(body)
        return headers | {"Content-Length": str(len(body)), **more}, body

    return partial(changed)


def with_size(nbytes: int) -> Any:
    """Give another size when the file is opened."""

    def alter(method: str, where: str, answer: servers.Answer) -> servers.Answer:
        status, headers, body = answer
        size = {"Content-Length": str(len(OLD_BYTES) + nbytes)}
        return (status, headers | size, body) if method == "HEAD" else answer

    return alter


ODD = {
    "shifted": (
        partial(shifted),
        r"answered with \d+ bytes from byte \d+ instead of the \d+ bytes from byte \d+\.",
    ),
    "short": (
        with_body(lambda body: body[:-7]),
        r"answered with \d+ bytes instead of the \d+ bytes from byte \d+",
    ),
    "long": (
        with_body(lambda body: body + b"xxxx"),
        r"answered with \d+ bytes instead of the \d+",
    ),
    "endless": (
        partial(
            lambda headers, body: (
                {"ETag": headers["ETag"], "Content-Range": headers["Content-Range"]},
                body * 50,
            )
        ),
        r"answered with at least \d+ bytes instead of the \d+ bytes from byte \d+",
    ),
    "other range": (
        with_range(f"bytes 4-{len(OLD_BYTES) - 1}/{len(OLD_BYTES)}"),
        r"answered with \d+ bytes from byte 4 instead of the \d+ bytes from byte \d+",
    ),
    "no range": (
        partial(lambda headers, body: ({"ETag": headers["ETag"]}, OLD_BYTES)),
        "no valid Content-Range",
    ),
    "odd range": (with_range("bytes 0-x/y"), "no valid Content-Range"),
    "compressed": (
        with_body(gzip.compress, **{"Content-Encoding": "gzip"}),
        "with Content-Encoding 'gzip'; accepted: none",
    ),
    "large head": (with_size(4096), "gives two sizes of the same file"),
    "small head": (with_size(-2 * SECTION), "gives two sizes of the same file"),
    "no content": (
        lambda method, where, answer: (204 if answer[0] == 206 else answer[0], answer[1], b""),
        "The server responded with 204 No Content",
    ),
}


@pytest.mark.parametrize("name", ["large head", "small head", "compressed"])
def test_odd_answer_is_an_error_of_opening(
    http: servers.HttpServer, path: Path, name: str
) -> None:
    http.alter, message = ODD[name]
    with pytest.raises((MrcError, OSError), match=message):
        xr.open_dataset(http.url(path.name), engine="mrc")


@pytest.mark.parametrize(
    ("alter", "message"),
    [pytest.param(*odd, id=name) for name, odd in ODD.items() if "head" not in name],
)
def test_odd_answer_is_an_error_of_reading(
    http: servers.HttpServer, path: Path, alter: Any, message: str
) -> None:
    data = xr.open_dataset(http.url(path.name), engine="mrc", cache=False).data
    http.alter = alter
    for selection in (data, data[:3], data[2, 5:7]):
        with pytest.raises((MrcError, OSError), match=message):
            selection.load()


def test_total_size_need_not_be_given(http: servers.HttpServer, path: Path) -> None:
    def no_total(headers: dict[str, str], body: bytes) -> tuple[dict[str, str], bytes]:
        first = headers["Content-Range"].partition("/")[0]
        return headers | {"Content-Range": f"{first}/*"}, body

    http.alter = partial(no_total)
    assert outcome(http.url(path.name)) == "old"


def test_complete_response_to_a_request_for_all_bytes(
    http: servers.HttpServer, path: Path
) -> None:
    http.ignore_ranges = True
    assert open_source(http.url(path.name)).read(0, len(OLD_BYTES)) == OLD_BYTES


# S3 ---------------------------------------------------------------------------------------------


@pytest.fixture
def s3() -> Iterator[servers.S3]:
    with servers.s3_server() as s3:
        yield s3


@pytest.mark.slow
def test_s3_object_replaced_at_any_request(
    s3: servers.S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    client = boto3.client(
        "s3", endpoint_url=s3.endpoint, aws_access_key_id="key", aws_secret_access_key="secret",
        region_name="us-east-1",
    )  # fmt: skip
    calls: list[str] = []
    at = -1
    real = s3fs.S3FileSystem._call_s3

    async def call(self: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        if len(calls) == at:
            client.put_object(Bucket=s3.bucket, Key="volume.mrc", Body=NEW_BYTES)
        calls.append(method)
        return await real(self, method, *args, **kwargs)

    options = {"storage_options": s3.storage_options}
    url = s3.put("volume.mrc", OLD_BYTES)
    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", call)
    assert outcome(url, **options) == "old"
    # the size, the header, two names of an .mdoc, and each section
    assert calls == ["head_object", *["get_object"] * (3 + N)]
    for at in range(4 + N + 1):
        client.put_object(Bucket=s3.bucket, Key="volume.mrc", Body=OLD_BYTES)
        calls.clear()
        expected = "new" if at == 0 else "changed" if at < 4 + N else "old"
        assert outcome(url, **options) == expected


# other stores -----------------------------------------------------------------------------------


def test_file_in_memory_replaced_at_any_call(monkeypatch: pytest.MonkeyPatch) -> None:
    fs = fsspec.filesystem("memory")
    at = n_calls = -1

    def counted(method: str) -> Any:
        real = getattr(type(fs), method)

        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal n_calls
            n_calls += 1
            if n_calls == at:
                fs.pipe("/versions/volume.mrc", NEW_BYTES)
            return real(*args, **kwargs)

        return call

    def replaced(n: int) -> str:
        nonlocal at, n_calls
        at, n_calls = n, -1
        fs.pipe("/versions/volume.mrc", OLD_BYTES)
        return outcome("memory://versions/volume.mrc")

    # fsspec implements one of them by the other
    for method in ("info", "cat_ranges"):
        monkeypatch.setattr(type(fs), method, counted(method))
    assert replaced(-2) == "old"
    found = [replaced(n) for n in range(n_calls + 2)]
    fs.rm("/versions", recursive=True)
    assert found == sorted(found, key=["new", "changed", "old"].index)
    assert found[0] == "new"
    assert found[-1] == "old"
    assert found.count("changed") >= 2 * N


@pytest.mark.slow
def test_archive_replaced_at_any_request(http: servers.HttpServer, path: Path) -> None:
    old, new = (zipped({"inner/volume.mrc": raw}) for raw in (OLD_BYTES, NEW_BYTES))
    archive = path.with_name("archive.zip")
    archive.write_bytes(old)
    url = f"zip://inner/volume.mrc::{http.url(archive.name)}"
    # a new file system each time, because fsspec caches one per URL
    options = {"storage_options": {"zip": {"skip_instance_cache": True}}}
    assert outcome(url, **options) == "old"
    n_requests = http.n_arrived
    found = []
    for at in range(n_requests + 1):
        http.before, http.n_arrived = replacing(archive, at, old, new), 0
        with contextlib.suppress(OSError, zipfile.BadZipFile):
            found.append(outcome(url, **options))
    assert found[0] == "new"
    assert found[-1] == "old"
    assert "changed" in found
