"""Text from a file reaches the terminal without control characters."""

from __future__ import annotations

import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import by_hand
import numpy as np
import pytest
import xarray as xr

from mrc_xarray import MrcError, MrcWarning
from mrc_xarray.cli import main
from mrc_xarray.errors import Problem
from mrc_xarray.mrc.header import Header
from mrc_xarray.text import json_text, printable, printable_lines

PIXELS = np.ones((2, 4, 4), "f4")
# escape, bell, DEL, the C1 escape, carriage return, NUL, and the right-to-left override
HOSTILE = "a\x1b[2J\x07\x7f\x9b31m\r\0\u202eb"
LATIN = HOSTILE.replace("\u202e", "").encode("latin-1")
STACK: dict[str, Any] = {"ispg": 0, "mz": 1, "cella": (4, 4, 0)}


def is_clean(text: str) -> bool:
    return all(c.isprintable() or c == "\n" for c in text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain Å × – … ", "plain Å × – … "),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x7f\x9b\0", r"\x7f\x9b\x00"),
        ("a\u202eb\u2066\ufeff", r"a\u202eb\u2066\ufeff"),
        ("\udc80", r"\udc80"),
        ("a\nb\r\x85\u2028", r"a\nb\r\x85\u2028"),
        (r"\x1b", r"\x1b"),
        ("\U000e0001", r"\U000e0001"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable_lines(text) == shown.replace(r"a\nb", "a\nb")
    assert printable(shown) == shown


def test_json_is_printable_and_the_same() -> None:
    value = {chr(code): [chr(code)] for code in [*range(32), *range(127, 160), 0x202E, 0xDC80]}
    text = json_text(value)
    assert text.isprintable()
    assert json.loads(text) == value


@pytest.mark.parametrize("kind", [MrcError, MrcWarning])
def test_errors_and_warnings(kind: Callable[[str], Exception]) -> None:
    error = kind(f"one {HOSTILE}\ntwo")
    for one in (error, pickle.loads(pickle.dumps(error))):
        assert str(one) == r"one a\x1b[2J\x07\x7f\x9b31m\r\x00\u202eb" + "\ntwo"
        assert is_clean(repr(one))


def test_findings() -> None:
    problem = Problem("mode", HOSTILE, HOSTILE, HOSTILE, HOSTILE, offset=0, nbytes=4)
    sidecar = Problem("sidecar", HOSTILE, HOSTILE, HOSTILE, HOSTILE, file=HOSTILE, line=1)
    for one in (problem, sidecar):
        for text in (str(one), repr(one), one.message(HOSTILE), one.refusal(HOSTILE)):
            assert text.isprintable()
        assert one.found == HOSTILE


# functions that make a file in a folder


def _header(folder: Path, **fields: Any) -> Path:
    path = folder / "a.mrc"
    path.write_bytes(by_hand.mrc(PIXELS, **fields))
    return path


def _marks(folder: Path) -> Path:
    symmetry = b"X,Y,Z\r\x0b\x0c\t".ljust(80)
    marks = {"map": b"\x1b[2J", "machst": b"\x7f\x9b\x1b\x07", "exttyp": b"\x1b[2J"}
    return _header(folder, extended=symmetry, **marks)


def _labels(folder: Path) -> Path:
    return _header(folder, labels=(LATIN, b"\x1b]0;pwn\x07", b"two\nlines"), nlabl=3)


def _mdoc(folder: Path) -> Path:
    (folder / "a.mrc.mdoc").write_text(
        f"Voltage = {HOSTILE}\nK{HOSTILE} = {HOSTILE}\n[T = {HOSTILE}]\n"
        f"[ZValue = 0]\nTiltAngle = {HOSTILE}\nSub{HOSTILE} = {HOSTILE}\n"
        f"[ZValue = {HOSTILE}]\n{HOSTILE}\n",
        newline="",
    )
    return _header(folder, **STACK)


def _info(folder: Path) -> Path:
    (folder / "a\x1b[2J_info.txt").write_text(
        f"Scan - Enable = on\nScan - Size X = {HOSTILE}\nScan - Type={HOSTILE}\n"
        f"Camera Model = {HOSTILE}\n{HOSTILE} = 4\n{HOSTILE}\n",
        newline="",
    )
    return _header(folder).rename(folder / "a\x1b[2J_movie.mrc")


def _zip(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "a.mrc.zip", "w") as archive:
        archive.writestr("\x1b[2J.mrc", "a")
        archive.writestr("\x1b]0;x\x07\u202e.mrc", "b")
    return folder / "a.mrc.zip"


def _metadata(folder: Path) -> Path:
    text = json.dumps({HOSTILE: {HOSTILE: [HOSTILE]}}, ensure_ascii=False)
    return _header(folder, extended=text.encode(), exttyp=b"json")


def _malformed(folder: Path) -> Path:
    return _header(folder, extended=b'{"a": \x1b[2J\x7f}', exttyp=b"json")


def _stored(folder: Path) -> Path:
    """Return a file with labels as this package stores them, but by another program."""
    coord = {"dims": [HOSTILE], "data": [HOSTILE, "b"], "dtype": "str"}
    stored = {
        "dims": [HOSTILE, "y", "x"], "shape": [2, 4, 4],
        "attrs": {HOSTILE: HOSTILE, "b": [HOSTILE]},
        "coords": {f"c{HOSTILE}": coord | {"attrs": {"units": HOSTILE, HOSTILE: "m"}}},
    }  # fmt: skip
    text = json.dumps({"mrc_xarray": stored})
    return _header(folder, extended=text.encode(), exttyp=b"json")


def _unknown_mode(folder: Path) -> Path:
    return _header(folder, mode=9).rename(folder / "\x1b[2J\x7f.mrc")


FILES = {
    make.__name__[1:]: make
    for make in (
        _marks, _labels, _mdoc, _info, _zip, _metadata, _malformed, _stored, _unknown_mode,
    )
}  # fmt: skip


@pytest.mark.parametrize(
    "command",
    [["info"], ["info", "--json"], ["validate"], ["validate", "--json"], ["convert"]],
    ids=" ".join,
)
@pytest.mark.parametrize("name", FILES)
def test_command(tmp_path: Path, capfd: Any, name: str, command: list[str]) -> None:
    path = FILES[name](tmp_path)
    more = [str(tmp_path / "out\x1b.mrc"), "--quiet"] if command == ["convert"] else []
    status = main([*command, str(path), *more])
    printed = "".join(capfd.readouterr())
    assert is_clean(printed)
    assert status == 0 or printed


@pytest.mark.parametrize("name", FILES)
def test_python(tmp_path: Path, name: str) -> None:
    path = FILES[name](tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if name in ("zip", "unknown_mode"):
            with pytest.raises(MrcError) as refused:
                xr.open_dataset(path, engine="mrc")
            assert is_clean(str(refused.value))
            return
        ds = xr.open_dataset(path, engine="mrc")
        lazy = xr.open_dataset(path, engine="mrc", chunks={})
    shown = [str(w.message) for w in caught]
    shown += [warnings.formatwarning(w.message, w.category, "f.py", 1) for w in caught]
    for one in (ds, ds.data, ds.coords, ds.data.variable, lazy, lazy.data, lazy.data.data):
        shown += [repr(one), str(one)]
    shown += [repr(ds.mrc.header), repr(ds.mrc.metadata), repr(ds.mrc.extended_header)]
    shown += [text for text in ds.data.attrs.values() if isinstance(text, str)]
    shown += map(str, [*ds.data.attrs, *ds.dims, *ds.coords])
    for text in shown:
        assert is_clean(text)


def test_values_are_not_escaped(tmp_path: Path) -> None:
    ds = xr.open_dataset(_labels(tmp_path), engine="mrc")
    assert ds.mrc.header.label[0].encode("latin-1") == LATIN
    assert Header.from_json(ds.data.attrs["mrc_header"]) == ds.mrc.header
    ds = xr.open_dataset(_metadata(tmp_path), engine="mrc")
    assert ds.mrc.metadata == {HOSTILE: {HOSTILE: [HOSTILE]}}
    ds = xr.open_dataset(_stored(tmp_path), engine="mrc")
    name = "c" + printable(HOSTILE)
    assert ds.data.dims == (printable(HOSTILE), "y", "x")
    assert ds[name].values.tolist() == [HOSTILE, "b"]
    assert ds[name].attrs["units"] == printable(HOSTILE)
    assert ds.data.attrs[printable(HOSTILE)] == printable(HOSTILE)


def test_error_of_strict_has_a_line_for_each_problem(tmp_path: Path) -> None:
    raw = by_hand.mrc(PIXELS, map=b"\x1b[2J", machst=b"\x1b\x07\0\0")
    with pytest.raises(MrcError) as caught:
        xr.open_dataset(io.BytesIO(raw), engine="mrc", strict=True)
    assert len(str(caught.value).split("\n")) == 2
    assert is_clean(str(caught.value))


def test_names_of_detectors(tmp_path: Path) -> None:
    _header(tmp_path, **STACK).rename(tmp_path / "a_movie.mrc")
    (tmp_path / "a_0_B\x1b[2J_sum.mrc").write_bytes(by_hand.mrc(PIXELS[:1]))
    tree = xr.open_datatree(tmp_path / "a_movie.mrc", engine="mrc")
    assert list(tree["virtual"].children) == [r"B\x1b[2J"]
    assert is_clean(repr(tree))


@pytest.mark.parametrize("argument", ["--no\x1b[2J", "a=\x07\x9b"])
def test_arguments(capfd: Any, argument: str) -> None:
    with pytest.raises(SystemExit):
        main(["convert", "a.mrc", "b.mrc", "--select", argument])
    assert is_clean("".join(capfd.readouterr()))
