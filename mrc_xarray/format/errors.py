"""What can be wrong with a file: the error, the warning, and one finding of either."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass

__all__ = ["Finding", "MrcError", "MrcWarning", "Problem", "SidecarProblem", "warn"]


class MrcError(ValueError):
    """A file that can't be read as MRC."""


class MrcWarning(UserWarning):
    """A file that could be read, after a repair or an assumption that the warning names."""


class Finding:
    """One thing that is wrong, and what was done about it: in the header, or beside the file.

    Attributes
    ----------
    action : str
        What was assumed instead, and what the user can do.
    strict : bool
        Whether ``strict=True`` makes this an error.
    """

    __slots__ = ()

    action: str
    strict: bool

    def message(self, name: str) -> str:
        """Return what a user of the file `name` is told of a repair or an assumption."""
        return f"{self._finding(name)}. {self.action}"

    def refusal(self, name: str) -> str:
        """Return what a user is told who wants no repair."""
        return f"{self._finding(name)}; strict=True refuses it. Without strict: {self.action}"

    def _finding(self, name: str) -> str:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Problem(Finding):
    """One thing that is wrong with a header, and what was done about it.

    Attributes
    ----------
    field : str
        The header's field, by its name in the MRC2014 standard.
    offset : int
        The field's first byte in the file.
    nbytes : int
        The field's length in bytes.
    found : str
        The value in the file.
    accepted : str
        What a correct file has there.
    action : str
        What was assumed instead, and what the user can do.
    strict : bool
        Whether ``strict=True`` makes this an error.
    """

    field: str
    offset: int
    nbytes: int
    found: str
    accepted: str
    action: str
    strict: bool = False

    def _finding(self, name: str) -> str:
        last = self.offset + self.nbytes - 1
        verb = "are" if ", " in self.field else "is"
        return (
            f"{name}: {self.field} (bytes {self.offset}–{last}) {verb} {self.found}; "
            f"accepted: {self.accepted}"
        )


@dataclass(frozen=True, slots=True)
class SidecarProblem(Finding):
    """One thing that is wrong with a file beside the image, and what was done about it.

    Attributes
    ----------
    sidecar : str
        The name of the file beside the image.
    line : int
        The line, from 1 on; 0 for the whole file.
    key : str
        The key on that line, or what stands there in a file without keys.
    found : str
        The value in the sidecar.
    accepted : str
        What a correct sidecar has there.
    action : str
        What was assumed instead, and what the user can do.
    strict : bool
        Whether ``strict=True`` makes this an error.
    """

    sidecar: str
    line: int
    key: str
    found: str
    accepted: str
    action: str
    strict: bool = False

    def _finding(self, name: str) -> str:
        place = f"{self.sidecar}, line {self.line}" if self.line else self.sidecar
        return f"{name}: {place}: {self.key} is {self.found}; accepted: {self.accepted}"


def warn(message: str) -> None:
    """Warn where the user's code called us, or called xarray that called us."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None:
        module = frame.f_globals.get("__name__", "")
        if module.partition(".")[0] not in ("mrc_xarray", "xarray"):
            break
        level, frame = level + 1, frame.f_back
    warnings.warn(message, MrcWarning, stacklevel=level)
