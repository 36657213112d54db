"""The files that a table names, opened when they are read for the first time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mrc_xarray.errors import MrcError, warn
from mrc_xarray.mrc.header import HEADER_SIZE
from mrc_xarray.mrc.reading import open_recording
from mrc_xarray.options import OpenOptions
from mrc_xarray.pixels.sections import Sections
from mrc_xarray.recording import Recording
from mrc_xarray.relion.images import Places
from mrc_xarray.storage import ByteSource
from mrc_xarray.storage.folder import Folder
from mrc_xarray.text import printable

__all__ = ["Form", "StackFiles"]

# stacks that each process remembers; a set of subtomograms has a file for each particle
_MOST_OPENED = 4096


@dataclass(frozen=True)
class Form:
    """What all files have in common: the shape and type of a section, and their number, if equal.

    `axes` are the names of the dimensions of a section.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    axes: tuple[str, ...]
    n_sections: int | None

    @classmethod
    def of(cls, recording: Recording, *, are_files: bool) -> Form:
        """Return the form of a file."""
        sections = recording.sections
        axes = tuple(dimension.name for dimension in recording.frame)
        n_sections = sections.shape[0] if are_files else None
        return cls(sections.shape[1:], sections.dtype, axes, n_sections)

    def __str__(self) -> str:
        listed = " × ".join(map(str, self.shape))
        count = "" if self.n_sections is None else f"{self.n_sections} sections of "
        return f"{count}{listed} pixels ({', '.join(self.axes)}) of {self.dtype}"


@dataclass(frozen=True, eq=False)
class StackFiles:
    """The files of a table.

    Attributes
    ----------
    table : str
        Its name, for messages.
    label : str
        The column that names the files.
    folder : Folder
        The folder that the names are relative to.
    places : Places
    options : OpenOptions
        For each file.
    form : Form or None
        What each file has to be; None accepts any.
    """

    table: str
    label: str
    folder: Folder
    places: Places
    options: OpenOptions
    form: Form | None = None
    _opened: dict[int, tuple[ByteSource, Sections]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def __reduce__(self) -> tuple[Any, ...]:
        # each process opens the files that it reads
        return StackFiles, self.__dask_tokenize__()

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return self.table, self.label, self.folder, self.places, self.options, self.form

    def opened(self, file: int) -> tuple[ByteSource, Sections]:
        """Return a file and its sections.

        Raises OSError or MrcError if it can't be read, and MrcError if it has not the form of the
        others.
        """
        found = self._opened.get(file)
        if found is None:
            recording, source = self.read(file)
            if len(self._opened) >= _MOST_OPENED:
                # all at once, which is safe between threads
                self._opened.clear()
            found = self._opened[file] = source, recording.sections
        return found

    def read(self, file: int) -> tuple[Recording, ByteSource]:
        """Read the header of a file, and check it; see `opened`."""
        name, row = self.places.files[file], int(self.places.rows[file])
        try:
            recording, source = open_recording(self.folder.file(name), self.options, HEADER_SIZE)
        except (MrcError, OSError) as error:
            error.add_note(printable(f"{self.table}, row {row + 1}: {self.label} names this file"))
            raise
        form = Form.of(recording, are_files=self.places.are_files)
        if self.form is not None and form != self.form:
            rows = "engine='mrc' or open_many opens it" if form.n_sections else "leave them out"
            raise MrcError(
                f"{self.table}, row {row + 1}: {name} has {form}; accepted: {self.form}, as the "
                f"first file of the table. Select rows whose files are alike, and {rows}"
            )
        for problem in recording.problems:
            warn(problem.message(recording.name))
        return recording, source

    def missing(self, file: int, item: int, section: int, n_sections: int) -> MrcError:
        """Return the error for a section that is not in a file."""
        return MrcError(
            f"{self.table}, row {item + 1}: {self.label} names image {section + 1} of "
            f"{self.places.files[file]}, which has {n_sections}"
        )
