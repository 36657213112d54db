"""``ds.mrc`` in a notebook and a terminal: complete, harmless, and never an error."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import by_hand
import dask
import dask.array
import numpy as np
import pytest
import xarray as xr

from mrc_xarray.cli import main

PIXELS = np.arange(3 * 4 * 5, dtype="f4").reshape(3, 4, 5)
HOSTILE = "<script>alert(1)</script>\x1b[2J&\"'\u202e"


def opened(target: Any, **options: Any) -> xr.Dataset:
    return xr.open_dataset(target, engine="mrc", **options)


def of_bytes(**fields: Any) -> xr.Dataset:
    return opened(io.BytesIO(by_hand.mrc(PIXELS, **fields)))


class Page(HTMLParser):
    """The cells of all tables, the sources of pictures, and the names of tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.pictures: list[str] = []
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.feed(html)
        # all tags are closed
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not {name for name, _ in attrs if name.startswith("on")}
        if tag == "img":
            self.pictures.append(dict(attrs)["src"] or "")
        else:
            self.open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "td":
            self.cells[-1] += data


def rows(obj: Any) -> dict[str, str]:
    cells = Page(obj._repr_html_()).cells
    return dict(zip(cells[::2], cells[1::2], strict=True))


def test_everything_that_info_prints(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "tilt.mrc"
    fields: dict[str, Any] = {
        "labels": (b"by hand",),
        "cella": (13.3 * 5, 13.3 * 4, 30),
        "mapc": 0,
    }
    path.write_bytes(by_hand.mrc(PIXELS.astype("i1"), nversion=0, **fields))
    with pytest.warns(UserWarning, match="MAPC"):
        ds = opened(path)
    main(["info", str(path)])
    printed = capsys.readouterr().out.splitlines()[1:]
    shown = str(ds.mrc).splitlines()
    assert shown[0] == "<MRC volume>"
    assert {line.strip() for line in printed} <= {line.strip() for line in shown}
    found = rows(ds.mrc)
    assert {f"{name} {' '.join(text.split())}" for name, text in found.items()} == {
        " ".join(line.split()) for line in shown[1:]
    }
    assert found["file"] == str(path)
    assert found["shape"] == "3 z × 4 y × 5 x"
    assert found["type"] == "int8 (MODE 0, little-endian)"
    assert found["voxel size"] == "z 10 Å, y 13.3 Å, x 13.3 Å (1 × 1.33 nm)"
    assert found["layout"].startswith("volume (5: ISPG is 1")
    assert found["8-bit data"].startswith("int8: ")
    assert found["size on disk"] == "1.1 KiB (1084 bytes)"
    assert found["label"] == "by hand"
    assert found["repaired"].startswith("MAPC, MAPR, MAPS (bytes 64–75) are 0, 2, 3; accepted")
    [picture] = Page(ds.mrc._repr_html_()).pictures
    assert picture.startswith("data:image/png;base64,iVBORw0KGgo")


def test_after_arithmetic_and_selection() -> None:
    ds = of_bytes()
    found = rows((ds.isel(x=slice(0, 4, 2)) * 2.0).mrc)
    assert found["shape"] == "3 z × 4 y × 2 x"
    assert found["statistics"].endswith(" of the file")
    assert found["voxel size"].startswith("z 1 Å, y 1 Å, x 2 Å")
    assert rows(ds.data.astype("f8").mrc)["type"] == "float64 (MODE 2, little-endian)"
    assert "size on disk" not in rows(ds.mrc)


def test_steps_that_are_no_lengths(real_file: Callable[[str], Path]) -> None:
    path = real_file("dm/2D_test_diffraction_pattern.dm3")
    ds = xr.open_dataset(path, engine="dm")
    assert rows(ds.mrc)["step"] == "ky 0.174433 1/nm, kx 0.174433 1/nm"
    assert str(ds.mrc).startswith("<data without an MRC header>")
    assert len(Page(ds.mrc._repr_html_()).pictures) == 1


def _with_attrs(**attrs: Any) -> xr.Dataset:
    ds = of_bytes()
    ds["data"].attrs |= attrs
    return ds


def _fails() -> Any:
    raise AssertionError("computed")


def _delayed(n: int) -> xr.Variable:
    values = dask.array.from_delayed(dask.delayed(_fails)(), (n,), "f8")
    return xr.Variable(("x",), values, {"units": "nm", "spacing": 1.0})


def _without_attributes() -> xr.Dataset:
    ds = of_bytes()
    ds["data"].attrs.clear()
    return ds


ODD: dict[str, Callable[[], Any]] = {
    "nothing": xr.Dataset,
    "no data": lambda: xr.Dataset({"a": ("x", [1])}),
    "lost attributes": _without_attributes,
    "malformed header": lambda: _with_attrs(mrc_header="{"),
    "no header": lambda: _with_attrs(mrc_header=None),
    "repairs of another kind": lambda: _with_attrs(mrc_repairs='[1, {"a": null}, [[]]]'),
    "many repairs": lambda: _with_attrs(mrc_repairs="[%s 1]" % ('"a",' * 10**4)),
    "long texts": lambda: _with_attrs(mrc_layout="a" * 16000, mrc_source="b" * 16000),
    "attributes of other types": lambda: _with_attrs(
        mrc_source=7, mrc_layout=b"x", mrcz_ratio="1", mrcz_codec=3, mode0_assumption=[]
    ),
    "only a ratio": lambda: _with_attrs(mrcz_ratio=2),
    "a number": lambda: of_bytes().data.mean(),
    "a row": lambda: of_bytes().data[0, 0],
    "no pixels": lambda: of_bytes().data[:0],
    "dates": lambda: xr.DataArray(np.array([["2026-01-01"]], "M8[s]"), dims=("y", "x")),
    "texts": lambda: xr.DataArray([["a"]]),
    "objects": lambda: xr.DataArray(np.array([[None]], object)),
    "dimensions that are numbers": lambda: xr.DataArray(PIXELS, dims=(2, 1, 0)),
    "coordinates of texts": lambda: xr.DataArray([[1]], {"x": ["a"]}, ("y", "x")),
    "odd units": lambda: xr.DataArray([[1]], {"x": ("x", [1], {"units": 3})}, ("y", "x")),
    "coordinates that are not computed": lambda: xr.DataArray(
        PIXELS, dims=("z", "y", "x")
    ).assign_coords(xr.Coordinates({"x": _delayed(5)}, indexes={})),
    "a computation": lambda: xr.DataArray(
        dask.array.from_delayed(dask.delayed(_fails)(), (2, 2), "f4"), dims=("y", "x")
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_never_an_error_or_a_warning(name: str) -> None:
    obj = ODD[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text, html = repr(obj.mrc), obj.mrc._repr_html_()
    assert text.startswith("<")
    assert Page(html).tags <= {"div", "b", "table", "tr", "td", "img"}
    assert len(text) + len(html) < 60_000
    assert ("are not as this package writes them" in text) == (
        name.startswith(("malformed", "no header", "attributes of other", "odd units"))
    )


def test_text_from_strangers_is_escaped(tmp_path: Path) -> None:
    label = HOSTILE.replace("\u202e", "").encode("latin-1")
    ds = of_bytes(labels=(label,), exttyp=b"<b>&")
    names = ("mrc_source", "mrc_layout", "mrc_layout_rule", "mode0_assumption", "mrcz_codec")
    ds["data"].attrs |= dict.fromkeys(names, HOSTILE)
    ds["x"].attrs["units"] = HOSTILE
    ds = ds.rename(y=HOSTILE)
    header = ds.mrc.header
    for html in (ds.mrc._repr_html_(), header._repr_html_()):
        page = Page(html)
        assert page.tags <= {"div", "b", "table", "tr", "td", "img"}
        assert any("<script>" in cell for cell in page.cells)
        assert "\x1b" not in html
        assert "\u202e" not in html
    for text in (str(ds.mrc), str(header)):
        assert all(line.isprintable() for line in text.split("\n"))


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    path.write_bytes(by_hand.mrc(PIXELS))
    ds = opened(path)
    path.unlink()
    found = rows(ds.mrc)
    assert found["size on disk"] == "1.2 KiB (1264 bytes)"
    assert found["picture"].startswith("FileNotFoundError")
