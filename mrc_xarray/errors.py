"""The package's error and warning, one finding in a file, and the rules that files follow."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from typing import Literal, NamedTuple

from mrc_xarray.text import printable, printable_lines

__all__ = ["RULES", "MrcError", "MrcWarning", "Problem", "Rule", "unreadable", "warn"]

Severity = Literal["error", "warning", "note"]


class Rule(NamedTuple):
    """A rule that the reader and the validator share.

    An error violates the standard or prevents reading. A warning is about something suspicious
    that mrcfile accepts, or about an extension of the standard, and a note about a valid file that
    is not fully supported.
    """

    severity: Severity
    meaning: str
    strict: bool = False


#: By `Problem.code`.
RULES: dict[str, Rule] = {
    # the file as such
    "empty": Rule("error", "the file is empty"),
    "short": Rule("error", "the file is shorter than an MRC header"),
    "foreign": Rule("error", "the file has another format"),
    "stream": Rule("error", "the compressed data are damaged or truncated"),
    "unreadable": Rule("error", "the file can't be read, for another reason"),
    # the main header
    "map-word": Rule("error", "MAP does not begin with 'MAP'", strict=True),
    "map-padding": Rule("error", "MAP does not end with a space"),
    "machine-stamp": Rule("error", "MACHST is unknown or of the other byte order", strict=True),
    "mode": Rule("error", "MODE is unknown"),
    "extension": Rule("warning", "MODE is 7, 8 or 16, or EXTTYP is json: not in the standard"),
    "dimensions": Rule("error", "NX, NY or NZ is less than 1, or their product is too large"),
    "axes": Rule("error", "MAPC, MAPR and MAPS are not a permutation of 1, 2, 3", strict=True),
    "negative-field": Rule("error", "MX, MY, MZ, ISPG or NLABL is negative"),
    "negative-cell": Rule("error", "CELLA is negative"),
    "volume-stack": Rule("error", "ISPG indicates a volume stack, but MZ does not divide NZ"),
    "label-gap": Rule("error", "a label follows an empty label"),
    "label-count": Rule("error", "NLABL is not the number of labels"),
    "version": Rule("error", "NVERSION is not 20140 or 20141"),
    "exttyp": Rule("error", "EXTTYP is unknown"),
    "nsymbt": Rule("error", "NSYMBT can't be the length of the extended header", strict=True),
    "truncated": Rule("error", "sections are missing at the end of the file", strict=True),
    "extra-bytes": Rule("error", "the file is longer than its header implies"),
    "cell": Rule("warning", "CELLA is no possible size, or is set although MX, MY or MZ is 0"),
    "origin": Rule("warning", "ORIGIN is not finite, or at least 10 cm"),
    "start": Rule("warning", "N*START is more than ten times the size of the map"),
    "long-dimension": Rule("note", "a dimension is too long to have a coordinate"),
    # the extended header and sidecars
    "extended-header": Rule("warning", "the extended header does not have the form of its type"),
    "not-decoded": Rule("note", "the type of the extended header is not decoded"),
    "sidecar": Rule("warning", "a sidecar is malformed"),
    "scan": Rule("warning", "the scan that a sidecar describes does not fit the frames"),
    # the pixels
    "blocks": Rule("error", "blocks of an MRCZ file are damaged"),
    "packed-bytes": Rule("warning", "PACKED_BYTES is not the size of the blocks"),
    "block": Rule("error", "a block of an MRCZ file can't be decoded"),
    "not-finite": Rule("warning", "pixels are NaN or infinite"),
    "statistics-part": Rule("warning", "the statistics may be those of a part of the pixels"),
    "statistics-minimum": Rule("error", "DMIN is not the minimum of the pixels"),
    "statistics-maximum": Rule("error", "DMAX is not the maximum of the pixels"),
    "statistics-mean": Rule("error", "DMEAN is not the mean of the pixels"),
    "statistics-rms": Rule("error", "RMS is not the standard deviation of the pixels"),
}


class MrcError(ValueError):
    """A file that can't be read, or data that can't be written.

    Attributes
    ----------
    problem : Problem or None
        The finding in the file that caused the error; None if the error has another cause.
    """

    problem: Problem | None = None

    def __init__(self, message: str = "") -> None:
        # the message may quote a file that contains control characters
        super().__init__(printable_lines(message))

    @classmethod
    def of(cls, name: str, problem: Problem, message: str = "") -> MrcError:
        """Return the error for a problem of a file; `message` replaces the text of the problem."""
        error = cls(printable(f"{name}: {message}") if message else problem.message(name))
        error.problem = problem
        return error


class MrcWarning(UserWarning):
    """A repair or an assumption that was made to read or write a file."""

    def __init__(self, message: str = "") -> None:
        super().__init__(printable_lines(message))


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding in a file, and how it is handled.

    Attributes
    ----------
    code : str
        The rule that is violated; see `RULES`.
    field : str
        The header field, by its name in the MRC2014 standard, or another part of the file.
    found : str
        The value in the file.
    accepted : str
        The values that a correct file has.
    action : str
        What is assumed instead, and what you can do.
    offset : int or None
        The first byte of the field or line; None if the problem has no single position.
    nbytes : int
        The length of the field in bytes; 0 if the problem is not about bytes of the file.
    file : str
        The name of the sidecar that the problem is in; empty for the image itself.
    line : int
        The line of a text file, counted from 1; 0 for the complete file.
    """

    code: str
    field: str
    found: str
    accepted: str
    action: str
    offset: int | None = None
    nbytes: int = 0
    file: str = ""
    line: int = 0

    @property
    def severity(self) -> Severity:
        """The severity of the violated rule."""
        return RULES[self.code].severity

    @property
    def strict(self) -> bool:
        """Whether ``strict=True`` makes the problem an error."""
        return RULES[self.code].strict

    def message(self, name: str) -> str:
        """Return the text of the warning for the file `name`."""
        return printable(f"{name}: {self._finding()}. {self.action}")

    def refusal(self, name: str) -> str:
        """Return the text of the error that is raised with ``strict=True``."""
        handling = f"strict=True does not accept it. Without strict=True: {self.action}"
        return printable(f"{name}: {self._finding()}. {handling}")

    def __str__(self) -> str:
        return printable(f"{self.severity} {self.code}: {self._finding()}. {self.action}")

    def _finding(self) -> str:
        if self.file:
            place = f"{self.file}, line {self.line}" if self.line else self.file
            return f"{place}: {self.field} is {self.found}; accepted: {self.accepted}"
        where = ""
        if self.offset is not None and self.nbytes:
            where = f" (bytes {self.offset}–{self.offset + self.nbytes - 1})"
        verb = "are" if ", " in self.field else "is"
        return f"{self.field}{where} {verb} {self.found}; accepted: {self.accepted}"


def unreadable(error: Exception, action: str = "It is not opened.") -> Problem:
    """Return the problem of a file that can't be read for a reason that has no rule."""
    found, accepted = f"unreadable ({error})", "a file that can be read"
    return Problem("unreadable", "the file", found, accepted, action)


def warn(message: str) -> None:
    """Issue an `MrcWarning` at the line of the user's code, outside this package and xarray."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None:
        module = frame.f_globals.get("__name__", "")
        if module.partition(".")[0] not in ("mrc_xarray", "xarray"):
            break
        level, frame = level + 1, frame.f_back
    warnings.warn(message, MrcWarning, stacklevel=level)
