"""What can be wrong with a file: the error, the warning, and one finding of either."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MrcError", "MrcWarning", "Problem"]


class MrcError(ValueError):
    """A file that can't be read as MRC."""


class MrcWarning(UserWarning):
    """A file that could be read, after a repair or an assumption that the warning names."""


@dataclass(frozen=True, slots=True)
class Problem:
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

    def message(self, name: str) -> str:
        """Return what a user of the file `name` is told of a repair or an assumption."""
        return f"{self._finding(name)}. {self.action}"

    def refusal(self, name: str) -> str:
        """Return what a user is told who wants no repair."""
        return f"{self._finding(name)}; strict=True refuses it. Without strict: {self.action}"

    def _finding(self, name: str) -> str:
        last = self.offset + self.nbytes - 1
        verb = "are" if ", " in self.field else "is"
        return (
            f"{name}: {self.field} (bytes {self.offset}–{last}) {verb} {self.found}; "
            f"accepted: {self.accepted}"
        )
