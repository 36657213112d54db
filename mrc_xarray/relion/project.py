"""The folder of a project, to which the names in a table are relative."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Any

from mrc_xarray.errors import MrcError
from mrc_xarray.storage import ByteSource
from mrc_xarray.storage.folder import Folder
from mrc_xarray.text import printable

__all__ = ["folder_of"]


def folder_of(
    source: ByteSource,
    names: Sequence[str],
    root: str | os.PathLike[str] | None,
    storage_options: dict[str, Any] | None,
) -> Folder:
    """Return the folder that names are relative to.

    It is `root`, or else the first of the working folder, the folder of the table and its parents
    that has the first of the named files. In a store, the working folder is left out.
    """
    if root is not None:
        return Folder.at(root, storage_options)
    # an absolute name says nothing about the others
    first = next((name for name in names if not os.path.isabs(name)), names[0])
    own = Folder.of(source)
    here = Folder.at(".", None)
    candidates = [here] if own is None or own.fs is None else []
    candidates += [] if own is None else own.upwards()
    try:
        found = next((folder for folder in candidates if folder.has(first)), None)
    except MrcError as error:
        error.add_note(printable(f"{source.name} names this file"))
        raise
    if found is not None:
        return found
    searched = ", ".join(dict.fromkeys(folder.name for folder in candidates))
    reason = f"No such file in {searched}; root= names the folder of the project"
    raise FileNotFoundError(errno.ENOENT, reason, first)
