"""Tags of files that are sound, damaged or malicious, from bytes built by hand."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dm_by_hand as by_hand
import numpy as np
import pytest
import xarray as xr

from mrc_xarray import MrcError
from mrc_xarray.dm.tags import StoredArray, TagFile, looks_like_dm, read_tags
from mrc_xarray.storage import MemorySource

IMAGE = by_hand.image(np.arange(12).reshape(3, 4), 1)
FORMS = [(3, "<"), (4, "<"), (3, ">"), (4, ">")]


def tags(raw: bytes) -> TagFile:
    return read_tags(MemorySource(raw, "a.dm4"), raw[: 64 * 1024])


def file_of(extra: dict[str, Any], version: int = 4, byteorder: str = "<") -> bytes:
    return by_hand.Writer(version, byteorder).file(by_hand.root(IMAGE) | extra)


@pytest.mark.parametrize(("version", "byteorder"), FORMS)
def test_values(version: int, byteorder: str) -> None:
    raw = by_hand.Raw.of
    pack = by_hand.Writer(version, byteorder).packed
    given = {
        "text": "5 µm, Ω",
        "none": "",
        "flag": True,
        "whole": -7,
        "half": 0.5,
        "double": np.float64(0.1),
        "long": np.int64(2**40),
        "corner": (1.0, 2.0, 3.5, 4.0),
        "bytes": raw((18, 5), "caf\xe9!".encode("latin-1")),
        "unsigned": raw((20, 10, 3), bytes([1, 2, 255])),
        "no numbers": raw((20, 6, 0), b""),
        "pairs": raw((20, 15, 0, 2, 0, 2, 0, 3, 2), b"".join(
            [pack(2, -1), pack(3, 70000), pack(2, 2), pack(3, 3)]
        )),
        "texts": raw((20, 18, 2, 2), b"abcd"),
        "rows of texts": raw((20, 20, 18, 1, 2, 2), b"abcd"),
        "named 18 bytes": raw((15, 18, 1, 0, 3), pack(3, 5)),
        "rows": raw((20, 20, 2, 3, 2), pack(2, 1, 2, 3, 4, 5, 6)),
        "group": {"µ": {"#0": 1, "#1": {}}, "a.b": 2},
    }  # fmt: skip
    found = tags(file_of(given, version, byteorder))
    assert (found.version, found.byteorder) == (version, byteorder)
    assert {name: found.root[name] for name in given} == {
        "text": "5 µm, Ω", "none": "", "flag": True, "whole": -7, "half": 0.5, "double": 0.1,
        "long": 2**40, "corner": (1.0, 2.0, 3.5, 4.0), "bytes": "café!", "unsigned": [1, 2, 255],
        "no numbers": [], "pairs": [(-1, 70000), (2, 3)], "texts": ["ab", "cd"],
        "rows of texts": [["a", "b"], ["c", "d"]], "named 18 bytes": (5,),
        "rows": [[1, 2, 3], [4, 5, 6]], "group": {"µ": {"0": 1, "1": {}}, "a.b": 2},
    }  # fmt: skip


def test_long_arrays_are_left_in_the_file() -> None:
    long = by_hand.Raw.of((20, 10, 10**6), bytes(10**6))
    found = tags(file_of({"long": long, "long text": "a" * 10**6, "after": 1}))
    assert str(found.root["long"]).startswith("1000000 × uint8 at byte ")
    assert found.root["long text"] == "a" * 10**6
    assert found.root["after"] == 1


def test_all_texts_and_lists_share_a_limit() -> None:
    """The texts of a file of holes are long, but the numbers that it really has are read."""
    text, row = by_hand.Raw.of((18, 10**6), bytes(10**6)), (0.5,) * 200
    given = {f"t{i}": text for i in range(6)} | {f"r{i}": row for i in range(400)} | {"n": 5}
    found = tags(file_of(given, 3)).root
    assert [type(found[f"t{i}"]) for i in range(6)] == [str] * 4 + [StoredArray] * 2
    assert [type(found[f"r{i}"]) for i in (0, 200, 399)] == [tuple, tuple, StoredArray]
    assert found["n"] == 5


def test_beginning() -> None:
    raw = file_of({})
    assert looks_like_dm(raw[:26])
    for other in (raw[:25], b"\0\0\0\5" + raw[4:], raw[:15] + b"\2" + raw[16:], bytes(26)):
        assert not looks_like_dm(other)
        with pytest.raises(MrcError, match="accepted: 00 00 00 03"):
            tags(other)


def nested(levels: int) -> dict[str, Any]:
    group: dict[str, Any] = {"a": 1}
    for _ in range(levels):
        group = {"g": group}
    return group


def typed(*words: int) -> Callable[[], bytes]:
    return lambda: file_of({"odd": by_hand.Raw.of(words, bytes(16))})


HUGE = 2**63
DAMAGED: dict[str, tuple[Callable[[], bytes], str]] = {
    "deep": (lambda: file_of(nested(70)), "groups of tags are nested .*accepted: 64 levels"),
    "no type": (typed(), "the type of '/odd' .*: 0 words"),
    "long type": (
        lambda: file_of({}).replace(b"%%%%" + bytes(7), b"%%%%" + b"\x7f" * 7, 1),
        "words; accepted: 1 to",
    ),
    "unknown number": (typed(99), "the type of '/odd' .*: 99; accepted: a number, text"),
    "unknown array": (typed(20, 99, 1), ": 20, 99, 1"),
    "array of nothing": (typed(20), ": 20;"),
    "structure without fields": (typed(15, 0, 0), ": 15, 0, 0"),
    "structure of more fields": (typed(15, 0, HUGE, 0, 2), ": 15, 0, 9223"),
    "structure of structures": (typed(15, 0, 1, 0, 15), ": 15, 0, 1, 0, 15"),
    "array of many": (typed(20, 6, HUGE), "within a value .*: 36893488147419103232 bytes"),
    "array of long arrays": (typed(20, 20, 7, HUGE, HUGE), ": 20, 20, 7, 9223"),
    "array of 4 MiB rows": (typed(20, 20, 7, 2**22, HUGE), "within a value"),
    "text": (typed(18, 2**21), "within a tag .*: 2097152 bytes"),
    "long text": (typed(18, HUGE), ": 18, 9223"),
    "mark": (lambda: file_of({}).replace(b"%%%%", b"%%%$", 1), "the mark of .* b'%%%[$]'"),
    "name": (
        lambda: file_of({"odd": 1}).replace(b"\x15\0\3odd", b"\x15\x7f\3odd"),
        "the name of a tag is long .*: 32515 bytes; accepted: up to 1024 bytes",
    ),
    "kind": (lambda: file_of({"odd": 1}).replace(b"\x15\0\3odd", b"\x16\0\3odd"), ": 22; accept"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_an_error_without_allocation(name: str) -> None:
    made, message = DAMAGED[name]
    raw = made()
    tracemalloc.start()
    try:
        with pytest.raises(MrcError, match=message):
            tags(raw)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_too_many_tags_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mrc_xarray.dm.tags._MOST_TAGS", 100)
    with pytest.raises(MrcError, match="accepted: 100 in a file"):
        tags(file_of({"many": by_hand.numbered([{}] * 100)}))


@pytest.mark.parametrize("version", [3, 4])
def test_truncation_is_an_error(version: int) -> None:
    raw = by_hand.dm(by_hand.image(np.zeros((2, 2)), 1, name="a"), version=version)
    complete = raw[:-8]  # nothing needs the mark of the end
    tags(complete)
    for n in range(26, len(complete), 5):
        with pytest.raises(MrcError, match=r"ends within|first bytes are"):
            tags(raw[:n])


def test_a_damaged_byte_is_an_error_or_is_read() -> None:
    raw = by_hand.dm(IMAGE, thumbnails=[3], version=3)
    errors = []
    for at in range(0, len(raw), 2):
        damaged = raw[:at] + bytes([255 - raw[at]]) + raw[at + 1 :]
        try:
            tags(damaged)
        except MrcError as error:
            errors.append(str(error))
    assert len(errors) > 50
    assert all(text.startswith("a.dm4: ") and text.isprintable() for text in errors)


def test_a_hole_in_a_sparse_file_is_not_read(
    tmp_path: Path, ranges_read: list[tuple[int, int]]
) -> None:
    path = tmp_path / "a.dm4"
    with path.open("wb") as file:
        file.write(file_of({"hole": by_hand.Raw.of((20, 10, 2**40), b"")})[:-8])
        file.seek(2**40, 1)
        file.write(bytes(8))
    ds = xr.open_dataset(path, engine="dm")
    assert ds.mrc.metadata["hole"].startswith("1099511627776 × uint8 at byte ")
    assert sum(nbytes for _, nbytes in ranges_read) <= 64 * 1024


def test_damage_names_nothing_that_controls_a_terminal() -> None:
    raw = file_of({"\x1b[2J": by_hand.Raw.of((99,), b"")})
    with pytest.raises(MrcError, match=r"\[2J") as caught:
        xr.open_dataset(io.BytesIO(raw), engine="dm")
    assert str(caught.value).isprintable()
