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
from mrc_xarray.storage.urls import redacted, scrubbed, secrets_of

__all__ = ["refusal", "without_secrets"]


@contextlib.contextmanager
def without_secrets(*urls: str) -> Iterator[None]:
    """Replace a store's exceptions by ones without user, password, query string and token.

    Parameters
    ----------
    *urls : str
        The URL that the user opened, and any other text that contains secrets.

    Raises
    ------
    FileNotFoundError, FileExistsError, PermissionError, TimeoutError
        By what the store said.
    OSError
        For any other failure of a store.
    TypeError, ValueError, NotImplementedError
        For arguments that the store does not accept.
    """
    try:
        yield
    except (MrcError, ImportError, MemoryError):
        # these come from this package, or concern an import or this machine
        raise
    except Exception as error:
        secrets = frozenset[str]().union(*map(secrets_of, urls))
        failure = _in_own_words(_reason(error), redacted(urls[0]), secrets)
        try:
            raise failure from None
        finally:
            # the original would be pickled with it, and be shown by another process
            failure.__context__ = None


def refusal(status: int, name: str) -> OSError:
    """Return the error for the status of an HTTP response."""
    try:
        said = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        said = str(status)
    if status in (404, 410):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    if status in (401, 403):
        return PermissionError(errno.EACCES, f"The server refuses access: {said}", name)
    if status == 429 or status >= 500:
        return OSError(errno.EIO, f"The server can't send the file now: {said}", name)
    return OSError(errno.EIO, f"The server responded with {said}", name)


def _reason(error: Exception) -> BaseException:
    """Return the error of an HTTP server, for which fsspec always raises FileNotFoundError."""
    cause = error.__cause__
    is_of_http = isinstance(cause, OSError) or type(cause).__module__.startswith("aiohttp.")
    if isinstance(error, FileNotFoundError) and cause is not None and is_of_http:
        return cause
    return error


def _in_own_words(error: BaseException, name: str, secrets: frozenset[str]) -> Exception:
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
    said = scrubbed(str(getattr(error, "strerror", None) or error), secrets) or kind
    if isinstance(error, PermissionError):
        return PermissionError(errno.EACCES, said, name)
    if isinstance(error, OSError):
        # the number selects the class, such as ConnectionRefusedError
        return OSError(error.errno or errno.EIO, said, name)
    for kind_of_argument in (TypeError, ValueError, NotImplementedError):
        if isinstance(error, kind_of_argument) and type(error).__module__ == "builtins":
            return kind_of_argument(f"{name}: {said}")
    return OSError(errno.EIO, f"{kind}: {said}", name)
