"""Progress bars: where they are shown, and when."""

from __future__ import annotations

import asyncio
import io
import sys
import types
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import mrcfile
import numpy as np
import pytest
from dask.diagnostics.progress import ProgressBar
from distributed import Client, Event
from distributed.diagnostics.progressbar import TextProgressBar

from mrc_xarray import to_mrc
from mrc_xarray.writing import progress

COMPLETE = "[########################################] | 100% Completed"
DATA = da.ones((4, 8, 8), chunks=(1, -1, -1), dtype="f4")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal_of(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Pretend that standard error is a terminal; not a fixture, since pytest replaces it later."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write takes long."""
    monkeypatch.setattr(progress, "_LONG", 0.0)


@pytest.mark.usefixtures("long")
def test_bar_in_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_of(monkeypatch)
    to_mrc(DATA, tmp_path / "a.mrc")
    *drawn, last, end = terminal.getvalue().replace("\n", "\r\n").split("\r")
    assert last.startswith(COMPLETE)
    assert end == "\n"
    with mrcfile.open(tmp_path / "a.mrc") as file:
        np.testing.assert_array_equal(file.data, DATA)
    assert all(line.startswith("[") for line in drawn if line)


def test_no_bar_of_a_short_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_of(monkeypatch)
    to_mrc(DATA, tmp_path / "a.mrc")
    assert terminal.getvalue() == ""


@pytest.mark.usefixtures("long")
@pytest.mark.parametrize(("option", "is_shown"), [("auto", False), (True, True), (False, False)])
def test_pipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: Any, is_shown: bool
) -> None:
    to_mrc(DATA, tmp_path / "a.mrcz", progress=option)
    out, err = capsys.readouterr()
    assert out == ""
    assert (COMPLETE in err) is is_shown
    assert bool(err) is is_shown


@pytest.mark.usefixtures("long")
@pytest.mark.parametrize("has_kernel", [True, False])
def test_notebook(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    has_kernel: bool,
) -> None:
    ipython = types.ModuleType("IPython")
    shell = types.SimpleNamespace(**({"kernel": object()} if has_kernel else {}))
    ipython.get_ipython = lambda: shell  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    to_mrc(DATA, tmp_path / "a.mrc")
    out, err = capsys.readouterr()
    assert err == ""
    assert (COMPLETE in out) is has_kernel
    # a single line, which is drawn again and again
    assert out.count("\n") == has_kernel


@pytest.mark.usefixtures("long")
def test_no_second_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_of(monkeypatch)
    own = io.StringIO()
    with ProgressBar(out=own):
        to_mrc(DATA, tmp_path / "a.mrc")
    assert COMPLETE in own.getvalue()
    assert terminal.getvalue() == ""


@pytest.mark.usefixtures("long")
def test_failed_write_ends_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_of(monkeypatch)

    numbers = iter(range(4))

    failing = DATA.map_blocks(lambda block: 1 // (2 - next(numbers)) * block, meta=DATA._meta)
    with pytest.raises(ZeroDivisionError), dask.config.set(num_workers=1):
        to_mrc(failing, tmp_path / "a.mrc")
    assert COMPLETE not in terminal.getvalue()
    assert terminal.getvalue().endswith("\n")


def test_unknown_value(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="progress is 'yes'; accepted: 'auto', True, False"):
        to_mrc(DATA, tmp_path / "a.mrc", progress="yes")  # type: ignore[arg-type]
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_bar_of_a_cluster(tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    # not at the top of the module, which workers can't import
    def wait(block: Any) -> Any:
        Event("bar").wait(timeout=30)
        return block

    terminal, is_drawn = terminal_of(monkeypatch), Event("bar", client=client)
    # the write ends only when the bar is there; this is called in the thread of the client
    monkeypatch.setattr(terminal, "write", lambda text: client.loop.add_callback(is_drawn.set))
    with client.as_current():
        waiting = DATA.map_blocks(wait, meta=DATA._meta)
        to_mrc(waiting, tmp_path / "a.mrc", progress=True)
    assert is_drawn.is_set()
    with mrcfile.open(tmp_path / "a.mrc") as file:
        np.testing.assert_array_equal(file.data, DATA)
    assert sys.stdout is not terminal


@pytest.mark.slow
def test_nothing_waits_for_the_bar(
    tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = terminal_of(monkeypatch)
    # the bar of distributed can miss the end of a task
    monkeypatch.setattr(TextProgressBar, "listen", lambda self: asyncio.Event().wait())
    with client.as_current():
        to_mrc(DATA, tmp_path / "a.mrc", progress=True)
    with mrcfile.open(tmp_path / "a.mrc") as file:
        np.testing.assert_array_equal(file.data, DATA)
    assert sys.stdout is not terminal


@pytest.mark.slow
def test_error_of_a_cluster(
    tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(block: Any) -> Any:
        raise ZeroDivisionError

    terminal = terminal_of(monkeypatch)
    with client.as_current():
        with pytest.raises(ZeroDivisionError):
            to_mrc(DATA.map_blocks(fail, meta=DATA._meta), tmp_path / "a.mrc", progress=True)
        assert not [*tmp_path.iterdir()]
        # another scheduler than the client is obeyed
        with dask.config.set(scheduler="threads"):
            to_mrc(DATA, tmp_path / "a.mrc", progress=True)
    assert COMPLETE in terminal.getvalue()
