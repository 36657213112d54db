"""STAR files: blocks of values, and of columns that become arrays."""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from mrc_xarray.errors import MrcError
from mrc_xarray.metadata.files import clip
from mrc_xarray.storage import ByteSource

__all__ = ["Block", "read_star"]

Array = np.ndarray[Any, Any]

# RELION has tables of up to 60 columns
_MOST_COLUMNS = 500
# with fewer rows, pandas would be no faster
_FAST_ROWS = 512
# of comments and quoted texts, and white space that pandas does not know
_MARKS = (b"#", b"'", b'"', b"\v", b"\f")
# a closing quotation mark is followed by white space; a lone one has no end
_TOKEN = re.compile(rb"""#.*|'(.*?)'(?!\S)|"(.*?)"(?!\S)|[^\s'"#]\S*|\S""")
# a line that ends a table; a name in a row can begin alike
_END = re.compile(rb"\s*(loop_|data_\S*)\s*(#.*)?")


@dataclass(frozen=True, eq=False)
class Block:
    """A block: its name, and its columns by their labels, without the underscore.

    Columns are int64, float64, or objects that are all `str`. A block without ``loop_`` is one
    row.
    """

    name: str
    columns: dict[str, Array]

    @property
    def n_rows(self) -> int:
        """The number of rows."""
        return len(next(iter(self.columns.values()), ()))


def read_star(
    source: ByteSource,
    is_text: Callable[[str], bool] = lambda label: False,
    is_number: Callable[[str], bool] = lambda label: False,
) -> list[Block]:
    """Read all blocks of a file.

    A column whose values are all numbers has numbers, and any other has texts.

    Parameters
    ----------
    source : ByteSource
    is_text, is_number : callable
        Whether the column of a label has texts in any case, or is an error if it has one.

    Raises
    ------
    MrcError
        If the file has another format, or a row does not fit its columns. It names the line.
    """
    raw = source.read_all()
    if b"\0" in raw:
        where = f"byte {raw.index(0)}"
        raise MrcError(f"{source.name}: {where} is 0; accepted: a STAR file, which is text")
    lines = raw.removeprefix(b"\xef\xbb\xbf").splitlines()
    return _File(source.name, lines, is_text, is_number).blocks()


@dataclass(frozen=True, eq=False)
class _File:
    name: str
    lines: list[bytes]
    is_text: Callable[[str], bool]
    is_number: Callable[[str], bool]

    def blocks(self) -> list[Block]:
        """Return all blocks; a block that has values and tables becomes several."""
        blocks: list[Block] = []
        at = 0
        while at < len(self.lines):
            tokens = self._tokens(at)
            first = tokens[0].decode(errors="replace") if tokens else ""
            at += 1
            if first.startswith("data_") and len(tokens) == 1:
                blocks.append(Block(first.removeprefix("data_"), {}))
            elif first and not blocks:
                self._refuse(at - 1, f"{clip(first)} is in front of the first block", "data_")
            elif first == "loop_" and len(tokens) == 1:
                end = self._end_of_table(at)
                table = Block(blocks[-1].name, self._table(at, end))
                blocks[-1:] = [block for block in blocks[-1:] if block.columns] + [table]
                at = end
            elif first.startswith("_") and len(tokens) == 2:
                label = self._label(tokens[0], blocks[-1].columns, at - 1)
                blocks[-1].columns[label] = self._column(label, tokens[1:], [at - 1])
            elif first.startswith("_"):
                self._refuse(at - 1, f"{clip(first)} has {len(tokens) - 1} values", "1")
            elif first:
                accepted = "data_, loop_, or a label such as _rlnImageName"
                self._refuse(at - 1, clip(first), accepted)
        if not blocks:
            self._refuse(at, "the file ends without a block", "lines that begin with data_")
        return blocks

    def _end_of_table(self, at: int) -> int:
        following = range(at, len(self.lines))
        return next((i for i in following if _END.fullmatch(self.lines[i])), len(self.lines))

    def _table(self, at: int, end: int) -> dict[str, Array]:
        """Return the columns of the table in these lines."""
        labels: list[str] = []
        while at < end and (not (tokens := self._tokens(at)) or tokens[0].startswith(b"_")):
            labels += [self._label(token, labels, at) for token in tokens[:1]]
            at += 1
        while at < end and not self._tokens(end - 1):
            end -= 1
        joined = b"\n".join(self.lines[at:end])
        if end - at >= _FAST_ROWS and not any(mark in joined for mark in _MARKS):
            columns = _parsed(joined, {label: self.is_text(label) for label in labels})
            texts = [label for label, column in columns.items() if column.dtype == object]
            if columns and not any(map(self.is_number, texts)):
                return columns
        return self._split(labels, at, end)

    def _split(self, labels: Sequence[str], at: int, end: int) -> dict[str, Array]:
        """Return the columns of rows, which are split one by one."""
        rows = [(i, tokens) for i in range(at, end) if (tokens := self._tokens(i))]
        for i, tokens in rows:
            if len(tokens) != len(labels):
                accepted = f"{len(labels)}, as there are columns"
                self._refuse(i, f"the row has {len(tokens)} values", accepted)
        lines = [i for i, _ in rows]
        columns = zip(*(tokens for _, tokens in rows), strict=True) if rows else [()] * len(labels)
        return {
            label: self._column(label, values, lines)
            for label, values in zip(labels, columns, strict=True)
        }

    def _column(self, label: str, tokens: Sequence[bytes], lines: Iterable[int]) -> Array:
        numbers = None if self.is_text(label) else _numbers(tokens)
        if numbers is not None:
            return numbers
        if self.is_number(label):
            at, wrong = next(
                (i, token)
                for i, token in zip(lines, tokens, strict=True)
                if _numbers([token]) is None
            )
            found = clip(wrong.decode(errors="replace"))
            self._refuse(at, f"{label} is {found}", "a number")
        # equal texts are one object
        texts = {token: token.decode(errors="replace") for token in set(tokens)}
        column = np.empty(len(tokens), object)
        column[:] = [texts[token] for token in tokens]
        return column

    def _label(self, token: bytes, others: Iterable[str], at: int) -> str:
        label = token.decode(errors="replace").removeprefix("_")
        labels = list(others)
        if label in labels:
            self._refuse(at, f"a second {clip('_' + label)} in the block", "each label once")
        if len(labels) == _MOST_COLUMNS:
            self._refuse(at, f"more than {_MOST_COLUMNS} columns", f"up to {_MOST_COLUMNS}")
        return label

    def _tokens(self, at: int) -> list[bytes]:
        """Split a line at white space, except for quoted texts, and without its comment."""
        line = self.lines[at]
        if not any(mark in line for mark in _MARKS):
            return line.split()
        tokens = []
        for found in _TOKEN.finditer(line):
            if found[0] in (b"'", b'"'):
                self._refuse(at, "a quotation mark without a second one", "pairs")
            if not found[0].startswith(b"#"):
                tokens.append(found[found.lastindex or 0])
        return tokens

    def _refuse(self, at: int, found: str, accepted: str) -> NoReturn:
        raise MrcError(f"{self.name}, line {at + 1}: {found}; accepted: {accepted}")


def _numbers(tokens: Sequence[bytes]) -> Array | None:
    """Return numbers as int64, or else as float64; None if there is another text."""
    try:
        numbers = np.fromiter(map(float, tokens), np.float64, len(tokens))
    except ValueError:
        return None
    joined = b"".join(tokens)
    if b"_" in joined:
        # only Python reads 1_000 as a number
        return None
    if (numbers == np.rint(numbers)).all() and not joined.translate(None, b"0123456789+-"):
        with contextlib.suppress(OverflowError, ValueError):
            return np.array(list(map(int, tokens)), np.int64)
    return numbers


def _parsed(joined: bytes, is_text: Mapping[str, bool]) -> dict[str, Array]:
    """Return the columns of rows without quotation marks, three times as fast as row by row.

    None of them if rows differ in length, or pandas reads values in another way than `_numbers`.
    """
    import pandas as pd

    try:
        frame = pd.read_csv(
            io.BytesIO(joined),
            sep=r"\s+",
            header=None,
            names=list(is_text),
            dtype={label: object for label in is_text if is_text[label]},
            na_filter=False,
            quoting=csv.QUOTE_NONE,
            low_memory=False,
            encoding_errors="replace",
        )
    except ValueError:
        # some rows are long
        return {}
    columns = {label: frame[label].to_numpy() for label in is_text}
    fits = all(_is_as_read(column, is_text[label]) for label, column in columns.items())
    # with another index, all rows are long
    return columns if fits and isinstance(frame.index, pd.RangeIndex) else {}


def _is_as_read(column: Array, is_text: bool) -> bool:
    """Return whether pandas has read a column as `_numbers` would, and no row is short."""
    if column.dtype != object:
        return column.dtype in (np.int64, np.float64)
    is_short = bool((column == "").any())
    return not is_short and (is_text or _numbers([str(v).encode() for v in column]) is None)
