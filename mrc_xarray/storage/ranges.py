"""Byte ranges of an object in a store, and the check that they are from the opened version.

An object can be replaced between any two requests. Bytes are used only if they are proven to be
from the version that was opened. Either the response that contains them also identifies the
version, or the version is requested again after they were received.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from mrc_xarray.errors import MrcError
from mrc_xarray.storage.base import changed
from mrc_xarray.storage.failures import refusal

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = ["Version", "describe", "fetch"]

#: First byte, and the one after the last.
_Span: TypeAlias = tuple[int, int]
#: The bytes of a response, and whether its headers prove that they are from the opened version.
_Response: TypeAlias = tuple[bytes, bool]

# the stores' names for what changes when a file does, the most reliable first
_MARKS = (
    *("ETag", "etag", "md5", "Content-MD5", "Digest", "checksum", "CRC", "generation"),
    *("LastModified", "Last-Modified", "last_modified", "mtime", "modified", "modify"),
    *("modificationTime", "updated", "created"),
)
# for a store without marks: an MRC header contains the statistics of the pixels
_BEGINNING = "the first 1024 bytes"
_BEGINNING_SIZE = 1024
# requests at the same time; aiohttp opens 100 connections by default
_MOST_REQUESTS = 128
# marks that responses contain as well, and the header fields that contain them
_IN_RESPONSES = {"ETag": "etag", "Last-Modified": "last-modified"}
# first byte, last byte and size of the file; a server may leave out the range or the size
_CONTENT_RANGE = re.compile(r"(?i)bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
# what to do about a store whose responses are not valid
_COPY = "Copy the file, or put simplecache:: before the URL."


@dataclass(frozen=True)
class Version:
    """What distinguishes one version of an object from another."""

    size: int
    #: Names and values of properties that change when the object does, such as its ETag.
    marks: tuple[tuple[str, str], ...]

    def difference(self, size: int | None, marks: Mapping[str, str]) -> str:
        """Return how another version is known to differ, or an empty string."""
        differences = [name for name, value in self.marks if marks.get(name, value) != value]
        if size not in (None, self.size):
            differences.append(f"size: {self.size} bytes, now {size}")
        return ", ".join(differences)


@dataclass(frozen=True)
class _ByteRange:
    """The bytes from `start` to `stop` of an object, to be requested from the `opened` version.

    `path` is the object's name in the store, and `name` its name for messages.
    """

    path: str
    name: str
    opened: Version
    start: int
    stop: int

    def check(self, status: int, headers: Mapping[str, str]) -> bool:
        """Check HTTP status and headers of a response, before its bytes are read.

        Return whether the headers, by names in lower case, prove that the bytes are from the
        version that was opened. OSError is raised if the status is an error, MrcError if the
        bytes are from another version or another range.
        """
        content_range = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
        length = headers.get("content-length", "")
        size = length if status == 200 else content_range[3] if content_range else ""
        found = {name: _plain(headers.get(header, "")) for name, header in _IN_RESPONSES.items()}
        found = {name: value for name, value in found.items() if value}
        if status in (200, 206, 416):
            self._compare(int(size) if size.isdigit() else None, found)
        if status not in (200, 206):
            raise refusal(status, self.name)
        encoding = headers.get("content-encoding", "identity")
        if encoding not in ("", "identity"):
            raise MrcError(
                f"{self.name}: the server sends the bytes with Content-Encoding {encoding!a}; "
                f"accepted: none. {_COPY}"
            )
        if status == 206:
            self._check_part(content_range, length)
        elif (self.start, self.stop) != (0, self.opened.size):
            raise self.other_bytes(length or "all", hint=f" It ignores byte ranges. {_COPY}")
        return all(name in found for name, _ in self.opened.marks)

    def _compare(self, size: int | None, found: Mapping[str, str]) -> None:
        if not (difference := self.opened.difference(size, found)):
            return
        marks = dict(self.opened.marks)
        if marks and marks.items() <= found.items():
            raise MrcError(
                f"{self.name}: the server gives two sizes of the same file: {self.opened.size} "
                f"bytes when it was opened, and {size} in a later response. {_COPY}"
            )
        raise changed(self.name, difference)

    def _check_part(self, content_range: re.Match[str] | None, length: str) -> None:
        """Check that a partial response contains the requested bytes."""
        if content_range is None or content_range[1] is None:
            hint = f" The response has no valid Content-Range. {_COPY}"
            raise self.other_bytes(length or "some", hint=hint)
        start, stop = int(content_range[1]), int(content_range[2]) + 1
        if (start, stop) != (self.start, self.stop):
            raise self.other_bytes(stop - start, start)
        if length not in ("", str(stop - start)):
            raise self.other_bytes(length)

    def other_bytes(self, got: int | str, start: int | None = None, hint: str = "") -> MrcError:
        """Return the error for a response with other bytes than were requested."""
        place = "" if start in (None, self.start) else f" from byte {start}"
        return MrcError(
            f"{self.name}: the store answered with {got} bytes{place} instead of the "
            f"{self.stop - self.start} bytes from byte {self.start}.{hint}"
        )


def describe(fs: AbstractFileSystem, path: str, name: str) -> Version:
    """Return which version of an object a store has now; raise what the store raises."""
    # a cached listing could describe an older file
    fs.invalidate_cache(path)
    info = fs.info(path)
    size = info.get("size")
    if info.get("type") == "directory":
        raise IsADirectoryError(21, "Is a directory", name)
    if not isinstance(size, int):
        raise MrcError(f"{name}: the store does not give the file's size. {_COPY}")
    marks = _marks(info)
    archive: Any = getattr(fs, "fo", None)
    if hasattr(archive, "fs") and hasattr(archive, "path"):
        # the directory of an archive was read when it was opened, and may be outdated
        around = describe(archive.fs, archive.path, name)
        around_marks = (("size", str(around.size)), *around.marks)
        marks += tuple((f"{mark} of the archive", value) for mark, value in around_marks)
    if not marks and size:
        wanted = _ByteRange(path, name, Version(size, ()), 0, min(_BEGINNING_SIZE, size))
        (beginning,), _ = _request(fs, [wanted])
        marks = ((_BEGINNING, hashlib.sha256(beginning).hexdigest()),)
    return Version(size, marks)


def fetch(
    fs: AbstractFileSystem, path: str, name: str, opened: Version, ranges: Sequence[_Span]
) -> list[bytes]:
    """Fetch ranges of an object concurrently, all from the version that was opened.

    The returned bytes are complete. MrcError is raised if the object was replaced, or if the
    store's responses are not valid. Exceptions of the store are not changed.
    """
    # stores reject an empty range
    wanted = [_ByteRange(path, name, opened, *span) for span in ranges if span[0] < span[1]]
    if not wanted:
        return [b""] * len(ranges)
    received, is_proven = _request(fs, wanted)
    for byte_range, data in zip(wanted, received, strict=True):
        if len(data) != byte_range.stop - byte_range.start:
            ignores = len(data) == opened.size
            hint = f" It ignores byte ranges. {_COPY}" if ignores else ""
            raise byte_range.other_bytes(len(data), hint=hint)
    if not is_proven:
        now = describe(fs, path, name)
        # a mark that is missing now is a difference
        marks = dict.fromkeys(dict(opened.marks), "") | dict(now.marks)
        if difference := opened.difference(now.size, marks):
            raise changed(name, difference)
    found = iter(received)
    return [next(found) if start < stop else b"" for start, stop in ranges]


def _request(fs: AbstractFileSystem, wanted: Sequence[_ByteRange]) -> tuple[list[bytes], bool]:
    """Request ranges concurrently; return their bytes, and whether the version is proven."""
    get: Callable[[Any, _ByteRange], Awaitable[_Response]]
    if _is(fs, "fsspec.implementations.http", "HTTPFileSystem"):
        get = _get_http
    elif _is(fs, "s3fs.core", "S3FileSystem"):
        get = _get_s3
    else:
        paths, starts, stops = zip(*((r.path, r.start, r.stop) for r in wanted), strict=True)
        data = fs.cat_ranges(list(paths), list(starts), list(stops), on_error="raise")
        return data, False
    from fsspec.asyn import sync

    responses: list[_Response] = sync(fs.loop, _gather, fs, get, wanted)
    return [data for data, _ in responses], all(proves for _, proves in responses)


def _is(fs: AbstractFileSystem, module: str, name: str) -> bool:
    """Return whether a file system is an instance of a class, without importing the class."""
    return isinstance(fs, getattr(sys.modules.get(module), name, ()))


async def _gather(
    fs: AbstractFileSystem,
    get: Callable[[Any, _ByteRange], Awaitable[_Response]],
    wanted: Sequence[_ByteRange],
) -> list[_Response]:
    """Request all ranges, a limited number at a time; cancel the rest at the first failure."""
    gate = asyncio.Semaphore(_MOST_REQUESTS)

    async def limited(byte_range: _ByteRange) -> _Response:
        async with gate:
            return await get(fs, byte_range)

    tasks = [asyncio.ensure_future(limited(byte_range)) for byte_range in wanted]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _get_http(fs: Any, wanted: _ByteRange) -> _Response:
    """Request a range from an HTTP server, through fsspec's session.

    fsspec's own method does not return the headers, which are needed to identify the bytes.
    """
    options = dict(fs.kwargs)
    headers = {
        "Range": f"bytes={wanted.start}-{wanted.stop - 1}",
        # a range of a compressed response is not a range of the file
        "Accept-Encoding": "identity",
    }
    options["headers"] = {**(options.get("headers") or {}), **headers}
    session = await fs.set_session()
    async with session.get(fs.encode_url(wanted.path), **options) as response:
        found = {key.lower(): value for key, value in response.headers.items()}
        proves = wanted.check(response.status, found)
        received = bytearray()
        async for part in response.content.iter_any():
            received += part
            if len(received) > wanted.stop - wanted.start:
                raise wanted.other_bytes(f"at least {len(received)}")
        return bytes(received), proves


async def _get_s3(fs: Any, wanted: _ByteRange) -> _Response:
    """Request a range from S3 as s3fs does, whose own method does not return the ETag.

    This uses private methods of s3fs, for its sessions and retries.
    """
    from s3fs.core import _error_wrapper

    bucket, key, version = fs.split_path(wanted.path)
    options = {"VersionId": version} if version else {}
    span = f"bytes={wanted.start}-{wanted.stop - 1}"

    async def get() -> _Response:
        response = await fs._call_s3("get_object", Bucket=bucket, Key=key, Range=span, **options)
        metadata = response["ResponseMetadata"]
        # S3 only stores this as metadata, and does not encode the bytes
        headers = {**metadata["HTTPHeaders"], "content-encoding": ""}
        try:
            proves = wanted.check(metadata["HTTPStatusCode"], headers)
            return await response["Body"].read(), proves
        finally:
            response["Body"].close()

    # s3fs also retries a body that breaks off
    received: _Response = await _error_wrapper(get, retries=fs.retries)
    return received


def _marks(info: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return the most reliable mark, and the next one as well if the first is a weak ETag."""
    found = [(name, str(info[name])) for name in _MARKS if info.get(name)]
    is_weak = bool(found) and found[0][1].startswith("W/")
    return tuple((name, _plain(value)) for name, value in found[: 1 + is_weak])


def _plain(mark: str) -> str:
    """Return an ETag without the prefix of a weak one, which a proxy may add."""
    return mark.removeprefix("W/")
