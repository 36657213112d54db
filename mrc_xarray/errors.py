"""What can be wrong with a file: the error, the warning, one finding of either, and the rules."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from typing import Literal, NamedTuple

from mrc_xarray.text import printable, printable_lines

__all__ = [
    "RULES",
    "MrcError",
    "MrcWarning",
    "Problem",
    "Rule",
    "warn",
]

Severity = Literal["error", "warning", "note"]


class Rule(NamedTuple):
    """What breaking a rule means.

    Attributes
    ----------
    severity : {"error", "warning", "note"}
        Whether the file breaks the standard or can't be read, as mrcfile's validator sees it; or
        is merely suspicious; or, for a note, is sound, and we can't make use of all of it.
    meaning : str
        What is wrong.
    strict : bool
        Whether ``strict=True`` makes this an error.
    """

    severity: Severity
    meaning: str
    strict: bool = False


#: By code: what the reader repairs, assumes and refuses, and what the validator tells.
RULES: dict[str, Rule] = {
    # what is no MRC
    "empty": Rule("error", "the file has no bytes"),
    "short": Rule("error", "the file is shorter than a header"),
    "foreign": Rule("error", "the file is of another kind"),
    "stream": Rule("error", "what is compressed is damaged or truncated"),
    "unreadable": Rule("error", "the file can't be read, for another reason"),
    # the main header
    "map-word": Rule("error", "MAP does not begin with 'MAP'", strict=True),
    "map-padding": Rule("error", "MAP does not end with a blank"),
    "machine-stamp": Rule("error", "unknown, or of another byte order", strict=True),
    "mode": Rule("error", "MODE is unknown, or not in the standard"),
    "dimensions": Rule("error", "NX, NY or NZ is below 1, or they are more than can be"),
    "axes": Rule("error", "MAPC, MAPR, MAPS are no permutation of 1, 2, 3", strict=True),
    "negative-field": Rule("error", "MX, MY, MZ, ISPG or NLABL is negative"),
    "negative-cell": Rule("error", "CELLA is negative"),
    "volume-stack": Rule("error", "ISPG says volume stack, and MZ does not divide NZ"),
    "label-gap": Rule("error", "a label behind an empty one"),
    "label-count": Rule("error", "NLABL is not the number of labels"),
    "version": Rule("error", "NVERSION is not 20140 or 20141"),
    "exttyp": Rule("error", "EXTTYP is none that the standard knows"),
    "nsymbt": Rule("error", "NSYMBT can't be the extended header's length", strict=True),
    "truncated": Rule("error", "sections are missing at the end", strict=True),
    "extra-bytes": Rule("error", "the file is longer than its header says"),
    "cell": Rule("warning", "CELLA is not finite, or MX, MY, MZ is 0 with it set"),
    "origin": Rule("warning", "ORIGIN is not finite, or 10 cm and more"),
    "start": Rule("warning", "N*START is more than ten times the size of the map"),
    "long-dimension": Rule("note", "a dimension is too long for a coordinate"),
    # what is between header and pixels, and beside the file
    "extended-header": Rule("warning", "the extended header is not as its kind says"),
    "not-decoded": Rule("note", "the extended header is of a kind that is not decoded here"),
    "sidecar": Rule("warning", "a file beside the image is not as it should be"),
    "scan": Rule("warning", "what a sidecar says of the scan does not fit the frames"),
    # the pixels
    "blocks": Rule("error", "blocks of an MRCZ are damaged"),
    "packed-bytes": Rule("warning", "PACKED_BYTES is not the size of the blocks"),
    "block": Rule("error", "a block of an MRCZ does not decode"),
    "not-finite": Rule("warning", "pixels are NaN or infinite"),
    "statistics-minimum": Rule("error", "DMIN is not the minimum of the pixels"),
    "statistics-maximum": Rule("error", "DMAX is not the maximum of the pixels"),
    "statistics-mean": Rule("error", "DMEAN is not the mean of the pixels"),
    "statistics-rms": Rule("error", "RMS is not the deviation of the pixels from their mean"),
}


class MrcError(ValueError):
    """A file that can't be read as MRC."""

    def __init__(self, message: str = "") -> None:
        # the message may quote a file that contains control characters
        super().__init__(printable_lines(message))

    #: What is wrong, if it is one thing in the file.
    problem: Problem | None = None

    @classmethod
    def of(cls, name: str, problem: Problem, message: str = "") -> MrcError:
        """Return the error for a problem of the file `name`, by default with its own message."""
        error = cls(printable(f"{name}: {message}") if message else problem.message(name))
        error.problem = problem
        return error


class MrcWarning(UserWarning):
    """A file that could be read, after a repair or an assumption that the warning names."""

    def __init__(self, message: str = "") -> None:
        super().__init__(printable_lines(message))


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with an image or a file next to it, and what was done about it.

    Attributes
    ----------
    code : str
        The rule that is broken; see `RULES`.
    field : str
        The header field, as the MRC2014 standard names it, or another part of the file.
    found : str
        The value in the file.
    accepted : str
        What a correct file has there.
    action : str
        What is assumed instead, and what the user can do.
    offset : int or None
        The first byte of the field or the line; None if the problem is not in one place.
    nbytes : int
        The length of the field in bytes; 0 if it is not about bytes that are in the file.
    file : str
        The name of a file next to the image; empty for the image itself.
    line : int
        The line in a text file, from 1; 0 for the whole file.
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
        """Whether it is an error, a warning or a note."""
        return RULES[self.code].severity

    @property
    def strict(self) -> bool:
        """Whether ``strict=True`` makes this an error."""
        return RULES[self.code].strict

    def message(self, name: str) -> str:
        """Return the text of the warning about this repair or assumption in the file `name`."""
        return printable(f"{name}: {self._finding()}. {self.action}")

    def refusal(self, name: str) -> str:
        """Return the text of the error that ``strict=True`` makes of this problem."""
        finding = f"{self._finding()}; strict=True refuses it. Without strict: {self.action}"
        return printable(f"{name}: {finding}")

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


def warn(message: str) -> None:
    """Warn where the user's code called us, or called xarray that called us."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None:
        module = frame.f_globals.get("__name__", "")
        if module.partition(".")[0] not in ("mrc_xarray", "xarray"):
            break
        level, frame = level + 1, frame.f_back
    warnings.warn(message, MrcWarning, stacklevel=level)
