"""Text files next to an image: characters, lines, numbers, and messages about them."""

from __future__ import annotations

import pytest

from mrc_xarray.metadata.files import ImageFile, TextFile, clip, number


def test_problem_names_file_line_and_key() -> None:
    file = TextFile("a.mdoc", b"\xef\xbb\xbfA = 1\r\nDefocus = ?\nC = 2\n")
    problem = file.problem("Defocus", "'?'", "a number", "It is unknown.", line=2)
    assert problem.message("a.st") == (
        "a.st: a.mdoc, line 2: Defocus is '?'; accepted: a number. It is unknown."
    )
    assert (
        "strict=True does not accept it. Without strict=True: It is unknown."
        in problem.refusal("a.st")
    )
    assert not problem.strict
    assert problem.offset == 10
    assert file.problem("A", "", "", "", line=1).offset == 3


def test_problem_of_the_complete_file() -> None:
    problem = TextFile("a.tlt", b"").problem("the number of tilt angles", "3", "4", "Left out.")
    assert problem.message("a.st").startswith("a.st: a.tlt: the number of tilt angles is 3")
    assert problem.offset is None


def test_lines_end_in_any_way() -> None:
    text = b"\n a \r\nb\rc\x0bd\xc2\x85e\n\n"
    assert list(TextFile("", text).lines()) == [(2, "a"), (3, "b"), (4, "c\x0bd\x85e")]


@pytest.mark.parametrize(
    ("raw", "text"), [("µm".encode(), "µm"), (b"\xb5m", "µm"), (b"\xef\xbb\xbfa", "a")]
)
def test_any_bytes_are_text(raw: bytes, text: str) -> None:
    assert list(TextFile("", raw).lines()) == [(1, text)]


@pytest.mark.parametrize("text", ["", "x", "nan", "inf", "1_0", "1,5", "1 2", "-nan(ind)"])
def test_no_number(text: str) -> None:
    assert number(text) is None


def test_clip() -> None:
    assert clip("a") == "'a'"
    assert len(clip("a" * 1000)) == 62


def test_find() -> None:
    folder = {"b": b"1", "c": b"2"}
    image = ImageFile(name="a", n_sections=1, n_promised=1, read_next_to=folder.get)
    assert image.find(["a", "b", "c"]) == (TextFile("b", b"1"), [])
    assert image.find(["d"]) == (None, [])

    def refuse(name: str) -> None:
        raise PermissionError(13, "Access Denied", name)

    image = ImageFile(name="a", n_sections=1, n_promised=1, read_next_to=refuse)
    found, (problem,) = image.find(["b", "c"], code="scan")
    assert found is None
    assert problem.code == "scan"
    assert "b: the file is unreadable: [Errno 13] Access Denied" in problem.message("a")
