"""STAR files: starfile reads the same values; quotation marks, comments, and damage."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import starfile
from star_by_hand import loop

from mrc_xarray import MrcError
from mrc_xarray.relion.star import Block, read_star
from mrc_xarray.storage import MemorySource, StreamSource, open_source


def read(text: str | bytes, **options: Any) -> list[Block]:
    raw = text.encode() if isinstance(text, str) else text
    return read_star(MemorySource(raw, "a.star"), **options)


def columns(text: str | bytes, **options: Any) -> dict[str, list[Any]]:
    [block] = read(text, **options)
    return {label: values.tolist() for label, values in block.columns.items()}


def test_blocks_of_values_and_of_tables() -> None:
    """A model file of RELION has both, and comments."""
    text = """# version 30001

data_model_general

_rlnReferenceDimensionality     2   # a comment
_rlnPixelSize   1.770000
_rlnFilename  "a b.mrcs"

# version 30001
data_model_classes

loop_
_rlnReferenceImage #1
_rlnClassDistribution #2
000001@Class2D/run_classes.mrcs     0.5
000002@Class2D/run_classes.mrcs     2.5e-01   # the second

data_empty
loop_
_rlnX #1
"""
    general, classes, empty = read(text)
    assert general.name == "model_general"
    assert {label: values.tolist() for label, values in general.columns.items()} == {
        "rlnReferenceDimensionality": [2], "rlnPixelSize": [1.77], "rlnFilename": ["a b.mrcs"],
    }  # fmt: skip
    assert classes.columns["rlnClassDistribution"].tolist() == [0.5, 0.25]
    assert classes.columns["rlnReferenceImage"][1] == "000002@Class2D/run_classes.mrcs"
    assert (empty.name, empty.n_rows, list(empty.columns)) == ("empty", 0, ["rlnX"])


@pytest.mark.parametrize(
    ("row", "values"),
    [
        ("'a b' \"c 'd'\" e", ["a b", "c 'd'", "e"]),
        ("'it's' x'y \"\"", ["it's", "x'y", ""]),
        ("a#b # c", ["a#b"]),
        ("a\tb\x0bc", ["a", "b", "c"]),
        ("data_x loop_ _y", ["data_x", "loop_", "_y"]),
        ("µ_1.mrc 'Ångström é'", ["µ_1.mrc", "Ångström é"]),
        ("'1' 2", [1, 2]),
    ],
)
def test_texts(row: str, values: list[Any]) -> None:
    labels = "".join(f"_a{n}\n" for n in range(len(values)))
    for end in ("", "\n", "\r\n", "\n\n# end"):
        found = columns(f"\ufeffdata_\nloop_\n{labels}{row}{end}")
        assert [value for [value] in found.values()] == values


@pytest.mark.parametrize(
    ("tokens", "dtype", "values"),
    [
        (["1", "-2", "+3"], "i8", [1, -2, 3]),
        (["1", "2.0"], "f8", [1, 2]),
        (["1e3", "inf"], "f8", [1000, np.inf]),
        (["99999999999999999999", "1"], "f8", [1e20, 1]),
        (["1_000", "2"], "O", ["1_000", "2"]),
        (["0x10", "2"], "O", ["0x10", "2"]),
        (["True", "False"], "O", ["True", "False"]),
        (["1" * 5000, "-"], "O", ["1" * 5000, "-"]),
    ],
)
@pytest.mark.parametrize("n", [1, 900], ids=["short", "long"])
def test_types(tokens: list[str], dtype: str, values: list[Any], n: int) -> None:
    """Also in long tables, whose rows are read by pandas."""
    [block] = read(loop("", {"a": tokens * n, "b": ["x"] * len(tokens) * n}))
    assert block.columns["a"].dtype == dtype
    assert block.columns["a"].tolist() == values * n


@pytest.mark.parametrize("late", ["x", "1_0", "1.5", "'a b'"])
def test_a_column_has_one_type(late: str) -> None:
    tokens = ["1"] * 600 + [late]
    [block] = read(loop("", {"a": tokens, "b": range(601)}))
    found = block.columns["a"]
    if late == "1.5":
        assert found.dtype == np.float64
        assert found[-1] == 1.5
    else:
        assert found.tolist() == [*tokens[:-1], late.strip("'")]
    assert block.columns["b"].tolist() == list(range(601))
    with pytest.raises(MrcError, match=r"a is .*; accepted: a number"):
        read(loop("", {"a": [*tokens, "x"]}), is_number=lambda label: label == "a")


def test_long_tables_equal_starfile(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n = 2000
    table = {
        "rlnImageName": [f"{i % 90 + 1:06d}@s{i // 90}.mrcs" for i in range(n)],
        "rlnDefocusU": [f"{value:12.6f}" for value in rng.random(n) * 3e4],
        "rlnX": [repr(value) for value in rng.standard_normal(n).tolist()],
        "rlnClassNumber": rng.integers(0, 50, n).tolist(),
    }
    path = tmp_path / "a.star"
    path.write_text(loop("particles", table))
    [block] = read_star(open_source(path))
    # pandas 3.0 does not read the nearest number of 17 digits, in starfile and here
    exact = np.array(table["rlnX"], "f8")
    np.testing.assert_allclose(block.columns.pop("rlnX"), exact, rtol=1e-12)
    wanted = starfile.read(path).drop(columns="rlnX")
    for label, column in wanted.items():
        np.testing.assert_array_equal(block.columns[label], column)
    # a row of another length among many
    for row, line in (("1 2 3", 1500), ("1 2 3 4 5", 700)):
        rows = path.read_text().splitlines()
        rows[line - 1] = row
        with pytest.raises(MrcError, match=f"line {line}: the row has {len(row.split())} values"):
            read("\n".join(rows))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "line 1: 'x' is in front of the first block"),
        ("data_\nx y\n", "line 2: 'x'; accepted: data_, loop_, or a label"),
        ("data_\n_a\n", "line 2: '_a' has 0 values; accepted: 1"),
        ("data_\nloop_\n_a\n'b\n", "line 4: a quotation mark without a second one"),
        ("data_\nloop_\n_a\n_b\n1 2\n\n1\n", "line 7: the row has 1 values; accepted: 2"),
        (b"data_\n\0", "byte 6 is 0"),
        ("data_\nloop_\n" + "".join(f"_a{n}\n" for n in range(501)), "more than 500 columns"),
    ],
)
def test_damage(text: str | bytes, message: str) -> None:
    with pytest.raises(MrcError, match=message):
        read(text)


def test_compressed_tables(tmp_path: Path) -> None:
    path = tmp_path / "a.star.gz"
    path.write_bytes(gzip.compress(b"data_\nloop_\n_a\n" + b"12345\n" * 100))
    source, _ = StreamSource.open(open_source(path), "gzip")
    assert read_star(source)[0].n_rows == 100
