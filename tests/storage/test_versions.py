"""A store's object that is replaced while it is read: all old pixels or an error, never a mixture.

And servers that answer with something else than what was requested.
"""

from __future__ import annotations

import contextlib
import gzip
import io
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


@pytest.fixture
def http(path: Path) -> Iterator[servers.HttpServer]:
    with servers.http_server(path.parent) as server:
        yield server


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
    [("ETag", "Last-Modified"), ("ETag",), ("Last-Modified",), ()],
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
        # one request for the size, one for the header, and one per section
        assert n_requests == 2 + N
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
    if method == "GET":
        headers = {k: v for k, v in headers.items() if k not in ("ETag", "Last-Modified")}
    return status, headers, body


def weak_by_proxy(method: str, path: str, answer: servers.Answer) -> servers.Answer:
    """Make the ETag of a response with bytes weak, as a compressing proxy does."""
    status, headers, body = answer
    return status, headers | {"ETag": "W/" * (method == "GET") + headers["ETag"]}, body


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
    assert n_requests == 2 + N + more
    for at in range(n_requests + 1):
        http.before, http.n_arrived = replacing(path, at), 0
        assert outcome(url) == ("new" if at == 0 else "changed" if at < n_requests else "old")


def test_change_between_two_batches_of_a_load(http: servers.HttpServer, path: Path) -> None:
    """Without dask, one selection requests several ranges concurrently."""
    ds = xr.open_dataset(http.url(path.name), engine="mrc", cache=False)
    scattered = ds.data.isel(z=[0, 2])
    np.testing.assert_array_equal(scattered, OLD[::2])
    for at in range(2):
        http.before, http.n_arrived = replacing(path, at), 0
        with pytest.raises(MrcError, match=CHANGED):
            scattered.load()
    http.before = replacing(path, -1)
    np.testing.assert_array_equal(scattered, OLD[::2])


def test_http_file_that_got_shorter_or_longer(http: servers.HttpServer, path: Path) -> None:
    http.marks = ()
    for new in (OLD_BYTES[:-SECTION], OLD_BYTES + b"\0", OLD_BYTES[:2000]):
        path.write_bytes(OLD_BYTES)
        ds = xr.open_dataset(http.url(path.name), engine="mrc", cache=False)
        path.write_bytes(new)
        with pytest.raises(MrcError, match=rf"size: {len(OLD_BYTES)} bytes, now {len(new)}"):
            ds.data[0].load()


def test_range_behind_the_end_is_a_change(http: servers.HttpServer, path: Path) -> None:
    ds = xr.open_dataset(http.url(path.name), engine="mrc", cache=False)
    path.write_bytes(b"")

    def alter(method: str, where: str, answer: servers.Answer) -> servers.Answer:
        return 416, {}, b""

    http.alter = alter
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


def headers_of(**changes: str) -> Any:
    """Return a function that changes the headers of partial responses.

    START and STOP stand for numbers.
    """

    def alter(method: str, where: str, answer: servers.Answer) -> servers.Answer:
        status, headers, body = answer
        if status == 206:
            headers = headers | {k.replace("_", "-"): v for k, v in changes.items()}
        return status, headers, body

    return alter


def body_of(change: Callable[[bytes], bytes], **headers: str) -> Any:
    """Return a function that changes the body of partial responses, and the length with it."""

    def alter(method: str, where: str, answer: servers.Answer) -> servers.Answer:
        status, found, body = answer
        if status == 206:
            body = change(body)
            found = found | {"Content-Length": str(len(body)), **headers}
        return status, found, body

    return alter


def shifted(method: str, where: str, answer: servers.Answer) -> servers.Answer:
    """Respond with the right number of bytes from another position, and say so."""
    status, headers, body = answer
    if status == 206:
        start = len(OLD_BYTES) - len(body) if len(body) < 20000 else 4
        stop = start + len(body)
        headers = headers | {"Content-Range": f"bytes {start}-{stop - 1}/{len(OLD_BYTES)}"}
        body = OLD_BYTES[start:stop]
    return status, headers, body


def endless(method: str, where: str, answer: servers.Answer) -> servers.Answer:
    """Send more bytes than requested, without a length."""
    status, headers, body = answer
    if status == 206:
        headers = {k: v for k, v in headers.items() if k != "Content-Length"}
        body *= 50
    return status, headers, body


def lying_head(nbytes: int) -> Any:
    def alter(method: str, where: str, answer: servers.Answer) -> servers.Answer:
        status, headers, body = answer
        if method == "HEAD":
            headers = headers | {"Content-Length": str(len(OLD_BYTES) + nbytes)}
        return status, headers, body

    return alter


def partial_without_a_range(method: str, where: str, answer: servers.Answer) -> servers.Answer:
    status, headers, body = answer
    if status == 206:
        headers = {"ETag": headers["ETag"], "Content-Length": str(len(OLD_BYTES))}
        body = OLD_BYTES
    return status, headers, body


def no_content(method: str, where: str, answer: servers.Answer) -> servers.Answer:
    return (204 if answer[0] == 206 else answer[0]), answer[1], b""


ODD = {
    "shifted": (
        shifted,
        r"answered with \d+ bytes from byte \d+ instead of the \d+ bytes from byte \d+\.",
    ),
    "short": (
        body_of(lambda body: body[:-7]),
        r"answered with \d+ bytes instead of the \d+ bytes from byte \d+",
    ),
    "long": (body_of(lambda body: body + b"xxxx"), r"answered with \d+ bytes instead of the \d+"),
    "endless": (
        endless,
        r"answered with at least \d+ bytes instead of the \d+ bytes from byte \d+",
    ),
    "other range": (
        headers_of(Content_Range=f"bytes 4-{len(OLD_BYTES) - 1}/{len(OLD_BYTES)}"),
        r"answered with \d+ bytes from byte 4 instead of the \d+ bytes from byte \d+",
    ),
    "no range": (partial_without_a_range, "no valid Content-Range"),
    "odd range": (headers_of(Content_Range="bytes 0-x/y"), "no valid Content-Range"),
    "compressed": (
        body_of(gzip.compress, **{"Content-Encoding": "gzip"}),
        "with Content-Encoding 'gzip'; accepted: none",
    ),
    "large head": (lying_head(4096), "gives two sizes of the same file"),
    "small head": (lying_head(-2 * SECTION), "gives two sizes of the same file"),
    "no content": (no_content, "The server responded with 204 No Content"),
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
    def alter(method: str, where: str, answer: servers.Answer) -> servers.Answer:
        status, headers, body = answer
        if status == 206:
            first = headers["Content-Range"].partition("/")[0]
            headers = headers | {"Content-Range": f"{first}/*"}
        return status, headers, body

    http.alter = alter
    assert outcome(http.url(path.name)) == "old"


def test_whole_answer_is_right_where_the_whole_is_asked_for(
    http: servers.HttpServer, path: Path
) -> None:
    http.ignore_ranges = True
    size = path.stat().st_size
    assert open_source(http.url(path.name)).read(0, size) == OLD_BYTES


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
    assert calls == ["head_object", *["get_object"] * (1 + N)]
    for at in range(2 + N + 1):
        client.put_object(Bucket=s3.bucket, Key="volume.mrc", Body=OLD_BYTES)
        calls.clear()
        expected = "new" if at == 0 else "changed" if at < 2 + N else "old"
        assert outcome(url, **options) == expected


# other stores -----------------------------------------------------------------------------------


@contextlib.contextmanager
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[int]]]:
    """Yield a file in memory that is replaced before the n-th call, and a way to set n."""
    fs = fsspec.filesystem("memory")
    state = [-1, 0]

    def counting(method: str) -> None:
        real = getattr(type(fs), method)

        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            if state[1] == state[0]:
                fs.pipe("/versions/volume.mrc", NEW_BYTES)
            state[1] += 1
            return real(self, *args, **kwargs)

        monkeypatch.setattr(type(fs), method, call)

    # fsspec implements one of them by the other
    counting("info")
    counting("cat_ranges")
    try:
        yield "memory://versions/volume.mrc", state
    finally:
        fs.rm("/versions", recursive=True)


def test_file_in_memory_replaced_at_any_call(monkeypatch: pytest.MonkeyPatch) -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe("/versions/volume.mrc", OLD_BYTES)
    with memory(monkeypatch) as (url, state):
        assert outcome(url) == "old"
        n_calls = state[1]
        assert n_calls >= 3 + 2 * N
        found = []
        for at in range(n_calls + 1):
            fs.pipe("/versions/volume.mrc", OLD_BYTES)
            state[:] = at, 0
            found.append(outcome(url))
        assert found == sorted(found, key=["new", "changed", "old"].index)
        assert found[0] == "new"
        assert found[-1] == "old"
        assert found.count("changed") >= 2 * N


def archive_of(raw: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("inner/volume.mrc", raw)
    return file.getvalue()


@pytest.mark.slow
def test_archive_replaced_at_any_request(http: servers.HttpServer, path: Path) -> None:
    old, new = archive_of(OLD_BYTES), archive_of(NEW_BYTES)
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


@pytest.mark.slow
def test_copy_that_is_cached_is_of_one_version(http: servers.HttpServer, path: Path) -> None:
    # a folder for each run
    n_requests = 0
    for at in range(-1, 20):
        folder = path.with_name(f"cache{at}")
        http.before, http.n_arrived = replacing(path, at), 0
        options = {"storage_options": {"simplecache": {"cache_storage": str(folder)}}}
        found = outcome(f"simplecache::{http.url(path.name)}", **options)
        assert (at, found) in {(-1, "old"), (0, "new")} or at > 0
        n_requests = n_requests or http.n_arrived
        if at > n_requests:
            break
    assert found == "old"
