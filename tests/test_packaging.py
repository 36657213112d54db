"""What packages of other systems say about this one."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import mrc_xarray

ROOT = Path(__file__).parents[1]
#: Names in conda-forge, where they are not those of the Python Package Index.
IN_CONDA = {"dask[array]": "dask-core", "blosc": "python-blosc"}


@pytest.fixture
def project() -> dict[str, Any]:
    found = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return found["project"]


def test_recipe_of_conda_agrees_with_the_project(project: dict[str, Any]) -> None:
    recipe = yaml.safe_load((ROOT / ".ci/conda/recipe.yaml").read_text(encoding="utf-8"))
    assert recipe["package"]["name"] == project["name"]
    assert recipe["context"]["version"] == mrc_xarray.__version__
    assert f">={recipe['context']['python_min']}" == project["requires-python"]

    python, *required = recipe["requirements"]["run"]
    assert python == "python >=${{ python_min }}"
    parts = [text.partition(">=") for text in project["dependencies"]]
    expected = [f"{IN_CONDA.get(name, name)} >={version}" for name, _, version in parts]
    assert required == expected

    [script] = recipe["build"]["python"]["entry_points"]
    name, entry = script.split(" = ")
    assert project["scripts"] == {name: entry}


def test_command_has_the_name_of_the_package(project: dict[str, Any]) -> None:
    # so that `pipx run mrc-xarray` finds it
    assert project["name"] in project["scripts"]
