"""What the engines have in common: how xarray calls them, and what it expects in return."""

from __future__ import annotations

import inspect
import io
import os
import re
from collections.abc import Callable, Collection, Iterable
from typing import Any

import xarray as xr
from xarray.backends import BackendEntrypoint

from mrc_xarray.errors import warn
from mrc_xarray.labels.dataset import to_dataset
from mrc_xarray.options import OpenOptions
from mrc_xarray.recording import Recording
from mrc_xarray.storage import ByteSource
from mrc_xarray.storage.compressed import first_bytes
from mrc_xarray.suffixes import stem_and_suffix

__all__ = ["can_open", "describe", "labelled", "names_in"]

# of each engine; those of `OpenOptions` follow
_PARAMETERS = """filename_or_obj : path, URL, bytes or binary file object
    Any URL that fsspec supports. Bytes only with ``chunks=None``.
drop_variables : str or iterable of str, optional
    Variables and coordinates to leave out.
"""


def describe(
    entrypoint: type[BackendEntrypoint],
    documentation: str,
    accepted: Collection[str] | None = None,
) -> None:
    """Give `open_dataset` the parameters of `OpenOptions`, and their documentation.

    `documentation` has a place for that of all parameters. By default all options are `accepted`.
    """
    method: Any = entrypoint.open_dataset
    signature = inspect.signature(method)
    *named, _ = signature.parameters.values()
    options = inspect.signature(OpenOptions).parameters
    names = [name for name in options if accepted is None or name in accepted]
    parameters = [*named, *(options[name] for name in names)]
    texts = inspect.cleandoc(OpenOptions.__doc__ or "").partition("Parameters\n----------\n")[2]
    # the text of an option begins with a line that is not indented
    each = re.split(r"\n(?=\S)", texts)
    texts = "\n".join(text for text in each if text.partition(" :")[0] in names)
    method.__signature__ = signature.replace(parameters=parameters)
    method.__doc__ = documentation.format(parameters=_PARAMETERS + texts)
    entrypoint.open_dataset_parameters = tuple(parameter.name for parameter in parameters[1:])


def labelled(
    recording: Recording,
    source: ByteSource,
    options: OpenOptions,
    drop_variables: str | Iterable[str] | None,
) -> xr.Dataset:
    """Return the Dataset of a recording, and warn about its problems."""
    for problem in recording.problems:
        warn(problem.message(recording.name))
    ds = to_dataset(recording, source, options)
    if dropped := names_in(drop_variables):
        ds = ds.drop_vars(dropped, errors="ignore")
    if "://" in recording.name:
        # otherwise xarray stores the complete URL, which may contain a password
        ds.encoding["source"] = recording.name
    # open_mfdataset calls this without checking whether it is set
    ds.set_close(_nothing_to_close)
    return ds


def names_in(drop_variables: str | Iterable[str] | None) -> list[str]:
    """Return the names as a list, since a generator can be used only once."""
    return [drop_variables] if isinstance(drop_variables, str) else [*(drop_variables or ())]


def can_open(
    target: Any, suffixes: Collection[str], n_bytes: int, looks_right: Callable[[bytes], bool]
) -> bool:
    """Return whether the first bytes of a local file look right, or a URL has a suffix."""
    try:
        if isinstance(target, str | os.PathLike):
            path = os.fspath(target)
            if "://" in path or "::" in path:
                return stem_and_suffix(path)[1] in suffixes
            head = _beginning(os.path.expanduser(path), n_bytes)
        elif isinstance(target, bytes | bytearray | memoryview):
            head = first_bytes(io.BytesIO(target), n_bytes)
        else:
            position = target.tell()
            try:
                target.seek(0)
                head = first_bytes(target, n_bytes)
            finally:
                target.seek(position)
        return looks_right(head)
    except Exception:
        # xarray asks every engine about every file, whatever it is
        return False


def _beginning(path: str, n_bytes: int) -> bytes:
    if not os.path.isfile(path):
        # reading from a pipe would wait for its writer
        return b""
    with open(path, "rb") as file:
        return first_bytes(file, n_bytes)


def _nothing_to_close() -> None:
    """Close nothing: no file is held open."""
