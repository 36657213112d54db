"""Commands in messages: how a missing package is installed next to this one."""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from mrc_xarray.installation import install_command

PACKAGE = Path(__file__).parents[1] / "mrc_xarray"


@pytest.fixture
def installed_by_pip() -> None:
    """Replace the fixture of all tests, which do not depend on the installation."""


class Installed:
    """What `importlib.metadata` says of a package that a program installed."""

    def __init__(self, installer: str | None) -> None:
        self.installer = installer

    def read_text(self, name: str) -> str | None:
        assert name == "INSTALLER"
        return self.installer


@pytest.mark.parametrize(
    ("installer", "command"),
    [
        ("pip\n", "pip install isal s3fs"),
        (None, "pip install isal s3fs"),
        ("conda", "conda install -c conda-forge python-isal s3fs"),
        ("uv", f"uv pip install --python {sys.executable} isal s3fs"),
    ],
)
def test_command_fits_the_installation(
    installer: str | None, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "distribution", lambda name: Installed(installer))
    assert install_command("isal", "s3fs") == command


def test_command_of_a_program_of_pipx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pipx_metadata.json").touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert install_command("s3fs") == "pipx inject mrc-xarray s3fs"


def test_command_for_a_copy_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    assert install_command("s3fs") == "pip install s3fs"


def test_no_message_names_a_command_of_its_own() -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    found = {path.name for path, text in texts.items() if re.search(r"\w+ install ", text)}
    assert found == {"installation.py"}
