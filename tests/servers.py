"""Servers on loopback: HTTP with byte ranges, and moto's S3; and the child of a fork."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import fsspec


class Asked(NamedTuple):
    """A request as the server saw it: `start` to `stop` of the file, as bytes that it sent."""

    method: str
    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        return self.stop - self.start


#: Status, headers and body.
Answer: TypeAlias = "tuple[int, dict[str, str], bytes]"
#: Returns another answer, from the method, the path and the answer.
Alter: TypeAlias = Callable[[str, str, Answer], Answer]


class HttpServer(ThreadingHTTPServer):
    """Serves the files of one directory, and remembers the requests.

    Switches, to be set at any time: `ignore_ranges` answers every GET with 200 and the complete
    file, `marks` are the headers that distinguish versions of a file, and `gives_size` is whether
    an answer has a length. `before` is called with the number of a request before it is answered,
    and `alter` replaces the answer. A query string is ignored.
    """

    # eight parallel requests overflow the default of 5, and wait for a second
    request_queue_size = 128

    def __init__(self, directory: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.directory = directory
        self.requests: list[Asked] = []
        self.ignore_ranges = False
        self.marks: tuple[str, ...] = ("ETag", "Last-Modified")
        self.gives_size = True
        self.before: Callable[[int], None] = lambda n: None
        self.alter: Alter = lambda method, path, answer: answer
        self.n_arrived = 0
        self.one_at_a_time = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        # a client may close the connection before the end of a response that it refuses
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"

    def gets(self) -> list[tuple[int, int]]:
        """Return start and stop of every GET, in the file's order."""
        return sorted((r.start, r.stop) for r in self.requests if r.method == "GET")

    def methods(self) -> list[str]:
        return [r.method for r in self.requests]

    def nbytes(self) -> int:
        """Return how many bytes of files were sent."""
        return sum(r.nbytes for r in self.requests if r.method == "GET")


class _Handler(BaseHTTPRequestHandler):
    server: HttpServer

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def _answer(self, *, with_body: bool) -> None:
        server = self.server
        path = urllib.parse.urlsplit(self.path).path.lstrip("/")
        with server.one_at_a_time:
            server.before(server.n_arrived)
            server.n_arrived += 1
            answer = self._found(server.directory / path)
        status, headers, body = server.alter(self.command, path, answer)
        if status >= 400:
            self.send_error(status)
            return
        self.send_response(status)
        for header, value in headers.items():
            self.send_header(header, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def _found(self, path: Path) -> Answer:
        server = self.server
        if not path.is_file():
            return 404, {}, b""
        data = path.read_bytes()
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        start, stop, status = 0, len(data), 200
        headers = {}
        if wanted and not server.ignore_ranges:
            start, stop = int(wanted[1]), min(int(wanted[2]) + 1, len(data))
            status = 206
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        server.requests.append(Asked(self.command, start, stop))
        changed = path.stat().st_mtime_ns
        marks = {
            "ETag": f'"{len(data):x}-{changed:x}"',
            "Last-Modified": self.date_time_string(changed // 10**9),
        }
        headers |= {mark: marks[mark] for mark in server.marks}
        if not server.ignore_ranges:
            headers["Accept-Ranges"] = "bytes"
        if server.gives_size:
            headers["Content-Length"] = str(stop - start)
        return status, headers, data[start:stop]


@contextlib.contextmanager
def http_server(directory: Path) -> Iterator[HttpServer]:
    """Serve `directory` on a free port of loopback."""
    with HttpServer(directory) as server:
        # the poll is what ending it may take
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class S3:
    """A bucket of moto's server."""

    def __init__(self, endpoint: str, bucket: str) -> None:
        self.endpoint = endpoint
        self.bucket = bucket
        self.storage_options = {"key": "key", "secret": "secret", "endpoint_url": endpoint}

    def url(self, name: str) -> str:
        return f"s3://{self.bucket}/{name}"

    def put(self, name: str, data: bytes) -> str:
        """Store a file, and return its URL."""
        fs = fsspec.filesystem("s3", **self.storage_options)
        fs.pipe(f"{self.bucket}/{name}", data)
        return self.url(name)


def _call(url: str, method: str) -> None:
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10) as answer:
        assert answer.status == 200


@contextlib.contextmanager
def s3_server(bucket: str = "micrographs") -> Iterator[S3]:
    """Run moto's S3 on a free port of loopback, with one empty bucket."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        try:
            _call(f"{endpoint}/{bucket}", "PUT")
            yield S3(endpoint, bucket)
        finally:
            # moto's servers share what they store with the next one in this process
            _call(f"{endpoint}/moto-api/reset", "POST")
    finally:
        server.stop()


def forked(act: Callable[[], bytes]) -> Callable[[], bytes]:
    """Start the child of a fork; return a function that waits for what `act` returns there."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        answer = b"no answer"
        try:
            signal.alarm(20)
            answer = act()
        except BaseException as error:
            answer = repr(error).encode()
        finally:
            os.write(write_end, answer)
            os._exit(0)
    os.close(write_end)

    def wait() -> bytes:
        os.waitpid(child, 0)
        with open(read_end, "rb") as file:
            return file.read()

    return wait
