"""Failures of a store, as exceptions that contain no secrets.

fsspec and the packages that it uses put the complete URL into their exceptions, and raise
`FileNotFoundError` for very different failures.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from http import HTTPStatus

from mrc_xarray.errors import MrcError
from mrc_xarray.installation import install_command
from mrc_xarray.storage.urls import redacted, scrubbed, secrets_of

__all__ = ["refusal", "without_secrets"]


@contextlib.contextmanager
def without_secrets(*urls: str) -> Iterator[None]:
    """Replace a store's exceptions by ones without user, password, query string and token.

    The first URL is the one that the user opened; others may contain more secrets. Failures of a
    store become an OSError or the subclass of the same meaning. Arguments that it does not accept
    are a TypeError, ValueError or NotImplementedError. A missing package is an ImportError with a
    note about what to install.
    """
    try:
        yield
    except ImportError as error:
        error.add_note(_missing_store(urls[0]))
        raise
    except (MrcError, MemoryError):
        raise
    except Exception as error:
        secrets = frozenset[str]().union(*map(secrets_of, urls))
        failure = _redacted_failure(_reason(error), redacted(urls[0]), secrets)
        try:
            raise failure from None
        finally:
            # the original exception would be pickled as well, and shown by another process
            failure.__context__ = None


def refusal(status: int, name: str) -> OSError:
    """Return the error for the status of an HTTP response."""
    try:
        phrase = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = str(status)
    if status in (404, 410):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    if status in (401, 403):
        return PermissionError(errno.EACCES, f"The server refuses access: {phrase}", name)
    if status == 429 or status >= 500:
        return OSError(errno.EIO, f"The server can't send the file now: {phrase}", name)
    return OSError(errno.EIO, f"The server responded with {phrase}", name)


def _missing_store(url: str) -> str:
    packages = {"http": "aiohttp", "https": "aiohttp", "s3": "s3fs", "s3a": "s3fs"}
    protocols = [part.partition("://")[0] for part in url.split("::")]
    package = next((packages[protocol] for protocol in protocols if protocol in packages), None)
    if package is None:
        return f"{redacted(url)}: install the fsspec package for this kind of URL"
    return f"{redacted(url)}: this kind of URL needs {package}: {install_command(package)}"


def _reason(error: Exception) -> BaseException:
    """Return the error of an HTTP server, for which fsspec always raises FileNotFoundError."""
    cause = error.__cause__
    is_of_http = isinstance(cause, OSError) or type(cause).__module__.startswith("aiohttp.")
    if isinstance(error, FileNotFoundError) and cause is not None and is_of_http:
        return cause
    return error


def _redacted_failure(error: BaseException, name: str, secrets: frozenset[str]) -> Exception:
    """Return the error to raise in place of a store's."""
    status = getattr(error, "status", None)
    if isinstance(status, int) and status >= 400:
        return refusal(status, name)
    if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        return TimeoutError(errno.ETIMEDOUT, "The server did not answer in time", name)
    for builtin, number in ((FileNotFoundError, errno.ENOENT), (FileExistsError, errno.EEXIST)):
        if isinstance(error, builtin):
            return builtin(number, os.strerror(number), name)
    kind = type(error).__name__
    text = scrubbed(str(getattr(error, "strerror", None) or error), secrets) or kind
    if isinstance(error, PermissionError):
        return PermissionError(errno.EACCES, text, name)
    if isinstance(error, OSError):
        # the number selects the class, such as ConnectionRefusedError
        return OSError(error.errno or errno.EIO, text, name)
    for kind_of_argument in (TypeError, ValueError, NotImplementedError):
        if isinstance(error, kind_of_argument) and type(error).__module__ == "builtins":
            return kind_of_argument(f"{name}: {text}")
    return OSError(errno.EIO, f"{kind}: {text}", name)
