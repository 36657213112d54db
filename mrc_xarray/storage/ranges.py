"""Byte ranges of an object in a store, and the check that they are from the opened version.

An object can be replaced between any two requests. Bytes are used only if they are proven to be
from the version that was opened. Either the response that contains them also identifies the
version, or the store is asked for the version again after they were received.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from mrc_xarray.errors import MrcError
from mrc_xarray.storage.base import changed
from mrc_xarray.storage.version import COPY, Question, Version, plain

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = ["describe", "fetch"]

#: First byte, and the one after the last.
Range: TypeAlias = tuple[int, int]

# the stores' names for what changes when a file does, the most reliable first
_MARKS = (
    *("ETag", "etag", "md5", "Content-MD5", "Digest", "checksum", "CRC", "generation"),
    *("LastModified", "Last-Modified", "last_modified", "mtime", "modified", "modify"),
    *("modificationTime", "updated", "created"),
)
# for a store without marks: an MRC header contains the statistics of the pixels
_BEGINNING = "the first 1024 bytes"
_BEGINNING_SIZE = 1024
# requests under way at once; aiohttp opens 100 connections by default
_TOGETHER = 128


def describe(fs: AbstractFileSystem, path: str, name: str) -> Version:
    """Ask a store which version of an object it has now.

    Raises
    ------
    MrcError
        If the store does not give the object's size.
    OSError, Exception
        As the store and fsspec raise.
    """
    # a cached listing could describe an older file
    fs.invalidate_cache(path)
    info = fs.info(path)
    size = info.get("size")
    if info.get("type") == "directory":
        raise IsADirectoryError(21, "Is a directory", name)
    if not isinstance(size, int):
        raise MrcError(f"{name}: the store does not give the file's size. {COPY}")
    marks = _marks(info)
    archive: Any = getattr(fs, "fo", None)
    if hasattr(archive, "fs") and hasattr(archive, "path"):
        # the directory of an archive was read when it was opened, and may be outdated
        around = describe(archive.fs, archive.path, name)
        around_marks = (("size", str(around.size)), *around.marks)
        marks += tuple((f"{mark} of the archive", value) for mark, value in around_marks)
    if not marks and size:
        question = Question(path, name, Version(size, ()), 0, min(_BEGINNING_SIZE, size))
        (beginning,), _ = _ask(fs, [question])
        marks = ((_BEGINNING, hashlib.sha256(beginning).hexdigest()),)
    return Version(size, marks)


def fetch(
    fs: AbstractFileSystem, path: str, name: str, opened: Version, ranges: Sequence[Range]
) -> list[bytes]:
    """Fetch ranges of an object, all from the version that was opened.

    Parameters
    ----------
    fs : AbstractFileSystem
    path : str
        The object's name in the store.
    name : str
        The object's name for messages.
    opened : Version
    ranges : sequence of (int, int)
        First byte and the one after the last. They are requested concurrently.

    Returns
    -------
    list of bytes
        One for each range, and complete.

    Raises
    ------
    MrcError
        If the object was replaced, or if the store's responses are not valid.
    OSError, Exception
        As the store and fsspec raise.
    """
    if any(start == stop for start, stop in ranges):
        # stores reject an empty range
        wanted = [span for span in ranges if span[0] < span[1]]
        found = iter(fetch(fs, path, name, opened, wanted))
        return [next(found) if start < stop else b"" for start, stop in ranges]
    if not ranges:
        return []
    questions = [Question(path, name, opened, start, stop) for start, stop in ranges]
    answers, is_proven = _ask(fs, questions)
    for question, data in zip(questions, answers, strict=True):
        if len(data) != question.stop - question.start:
            ignores = len(data) == opened.size
            hint = f" It ignores byte ranges. {COPY}" if ignores else ""
            raise question.other_bytes(len(data), hint=hint)
    if not is_proven:
        now = describe(fs, path, name)
        # a mark that is missing now is a difference
        marks = dict.fromkeys(dict(opened.marks), "") | dict(now.marks)
        if difference := opened.difference(now.size, marks):
            raise changed(name, difference)
    return answers


_Answer: TypeAlias = "tuple[bytes, bool]"


def _ask(fs: AbstractFileSystem, questions: Sequence[Question]) -> tuple[list[bytes], bool]:
    """Request ranges concurrently; return their bytes, and whether the version is proven."""
    asking: Callable[[Any, Question], Awaitable[_Answer]]
    if _is(fs, "fsspec.implementations.http", "HTTPFileSystem"):
        asking = _ask_http
    elif _is(fs, "s3fs.core", "S3FileSystem"):
        asking = _ask_s3
    else:
        paths, starts, stops = zip(*((q.path, q.start, q.stop) for q in questions), strict=True)
        data = fs.cat_ranges(list(paths), list(starts), list(stops), on_error="raise")
        return data, False
    from fsspec.asyn import sync

    answers: list[_Answer] = sync(fs.loop, _together, fs, asking, questions)
    return [data for data, _ in answers], all(proves for _, proves in answers)


def _is(fs: AbstractFileSystem, module: str, name: str) -> bool:
    """Return whether a file system is an instance of a class, without importing the class."""
    return isinstance(fs, getattr(sys.modules.get(module), name, ()))


async def _together(
    fs: AbstractFileSystem,
    asking: Callable[[Any, Question], Awaitable[_Answer]],
    questions: Sequence[Question],
) -> list[_Answer]:
    """Request all ranges, a limited number at a time; cancel the rest at the first failure."""
    gate = asyncio.Semaphore(_TOGETHER)

    async def ask(question: Question) -> _Answer:
        async with gate:
            return await asking(fs, question)

    tasks = [asyncio.ensure_future(ask(question)) for question in questions]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _ask_http(fs: Any, question: Question) -> _Answer:
    """Request a range from an HTTP server, through fsspec's session.

    fsspec's own method does not return the headers, which are needed to identify the bytes.
    """
    options = dict(fs.kwargs)
    wanted = {
        "Range": f"bytes={question.start}-{question.stop - 1}",
        # a range of a compressed response is not a range of the file
        "Accept-Encoding": "identity",
    }
    options["headers"] = {**(options.get("headers") or {}), **wanted}
    session = await fs.set_session()
    async with session.get(fs.encode_url(question.path), **options) as answer:
        headers = {key.lower(): value for key, value in answer.headers.items()}
        proves = question.check(answer.status, headers)
        parts, n = [], 0
        async for part in answer.content.iter_any():
            parts.append(part)
            n += len(part)
            if n > question.stop - question.start:
                raise question.other_bytes(f"at least {n}")
        return b"".join(parts), proves


async def _ask_s3(fs: Any, question: Question) -> _Answer:
    """Request a range from S3 as s3fs does, whose own method does not return the ETag.

    This uses private methods of s3fs, for its sessions and retries.
    """
    from s3fs.core import _error_wrapper

    bucket, key, version = fs.split_path(question.path)
    options = {"VersionId": version} if version else {}

    async def ask() -> _Answer:
        response = await fs._call_s3(
            "get_object",
            Bucket=bucket,
            Key=key,
            Range=f"bytes={question.start}-{question.stop - 1}",
            **options,
        )
        metadata = response["ResponseMetadata"]
        # S3 only stores this as metadata, and does not encode the bytes
        headers = {**metadata["HTTPHeaders"], "content-encoding": ""}
        try:
            proves = question.check(metadata["HTTPStatusCode"], headers)
            return await response["Body"].read(), proves
        finally:
            response["Body"].close()

    # s3fs also retries a body that breaks off
    answer: _Answer = await _error_wrapper(ask, retries=fs.retries)
    return answer


def _marks(info: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return the most reliable mark, and the next one as well if the first is a weak ETag."""
    found = [(name, str(info[name])) for name in _MARKS if info.get(name)]
    is_weak = bool(found) and found[0][1].startswith("W/")
    return tuple((name, plain(value)) for name, value in found[: 1 + is_weak])
