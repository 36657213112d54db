"""Validate a file, and compare the verdict with mrcfile's."""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path
from typing import Any

import by_hand
import mrcfile
import numpy as np
import xarray as xr

import mrc_xarray
from mrc_xarray import MrcError, MrcWarning, errors

Fields = dict[str, Any]
Problems = list[Any]

NAN, INF = float("nan"), float("inf")
DATA = np.arange(24, dtype="f4").reshape(2, 3, 4)
STATISTICS = {"dmin": 0, "dmax": 23, "dmean": 11.5, "rms": float(DATA.std())}
TEXT = b"X,Y,Z".ljust(80)

ATTRIBUTES = ("code", "severity", "field", "offset", "found", "accepted", "action", "file")
HEADER_CODES = {
    "map-word", "machine-stamp", "mode", "dimensions", "negative-field", "negative-cell", "axes",
    "volume-stack", "label-gap", "label-count", "version", "exttyp", "nsymbt", "truncated",
    "extra-bytes", "cell", "origin", "start", "empty", "short", "foreign", "stream",
    "extension", "statistics-part",
    "statistics-minimum", "statistics-maximum", "statistics-mean", "statistics-rms", "not-finite",
}  # fmt: skip
# what mrcfile does not check
NOT_IN_MRCFILE = {"block", "blocks", "packed-bytes", "extended-header", "sidecar", "scan"}
# what mrcfile takes as an error, and is a warning here
ONLY_WARNINGS = {"extension", "statistics-part"}
STRICT = {"map-word", "machine-stamp", "axes", "nsymbt", "truncated"}


def place(field: str) -> int | None:
    """Return the first byte of a header field, or of the first of several."""
    first = field.split(", ")[0]
    if match := re.fullmatch(r"label (\d+)", first):
        return 224 + 80 * (int(match[1]) - 1)
    name, _, axis = first.partition(".")
    if name.lower() not in by_hand.FIELDS:
        return None
    return by_hand.FIELDS[name.lower()][0] + 4 * "xyz".index(axis or "x")


def judged(target: Any, **options: Any) -> Problems:
    """Validate, and check what is true of every problem."""
    problems: Problems = mrc_xarray.validate(target, **options)
    assert isinstance(problems, list)
    for problem in problems:
        assert problem.severity == errors.RULES[problem.code].severity
        for name in ("field", "found", "accepted", "action"):
            assert isinstance(getattr(problem, name), str)
            assert getattr(problem, name) or problem.offset is None
        assert str(problem).isprintable()
        if problem.file == "" and (first := place(problem.field)) is not None:
            assert problem.offset == first
    keys = [key(problem) for problem in problems]
    assert len(set(keys)) == len(keys)
    return problems


def key(problem: Any) -> tuple[Any, ...]:
    return tuple(getattr(problem, name) for name in ATTRIBUTES)


def codes(problems: Problems) -> list[str]:
    return [problem.code for problem in problems]


def header_errors(problems: Problems) -> Problems:
    return [
        p
        for p in problems
        if p.code in ONLY_WARNINGS or (p.severity == "error" and p.code not in NOT_IN_MRCFILE)
    ]


def mrcfile_accepts(path: Path) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bool(mrcfile.validate(path, print_file=io.StringIO()))


def assert_as_mrcfile(path: Path) -> Problems:
    """Check that mrcfile has the same verdict, and return the problems."""
    problems = judged(path, data=True)
    assert bool(header_errors(problems)) == (not mrcfile_accepts(path)), problems
    return problems


def warned(path: Path, **options: Any) -> list[str] | None:
    """Return the engine's warnings; None if it can't open the file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            xr.open_dataset(path, engine="mrc", **options)
        except MrcError:
            return None
    assert all(issubclass(one.category, MrcWarning) for one in caught)
    return [str(one.message) for one in caught]
