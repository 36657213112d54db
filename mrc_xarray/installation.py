"""Optional packages, and the command that installs one as this package was installed."""

from __future__ import annotations

import os
import sys
from importlib import import_module, metadata
from typing import Any

__all__ = ["install_command", "optional"]

# names in conda-forge, where blosc2 and isal are libraries in C
_IN_CONDA = {"blosc2": "python-blosc2", "isal": "python-isal"}


def optional(module: str, purpose: str) -> Any:
    """Import a module for a purpose; ImportError says how to install its package."""
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        message = f"{purpose} needs {package}: {install_command(package)}"
        raise ImportError(message) from error


def install_command(*packages: str) -> str:
    """Return the command that installs packages of the Python Package Index next to this one.

    It names no extras of this package, which neither conda nor a copy of the repository has.
    """
    names = " ".join(packages)
    # pipx isolates each program in an environment of its own
    if os.path.exists(os.path.join(sys.prefix, "pipx_metadata.json")):
        return f"pipx inject mrc-xarray {names}"
    installer = _installer()
    if installer == "conda":
        in_conda = " ".join(_IN_CONDA.get(package, package) for package in packages)
        return f"conda install -c conda-forge {in_conda}"
    if installer == "uv":
        # environments of uv contain no pip, and may not be the active one
        return f"uv pip install --python {sys.executable} {names}"
    return f"pip install {names}"


def _installer() -> str:
    """Return the program that installed this package; empty if it is unknown."""
    try:
        return (metadata.distribution("mrc-xarray").read_text("INSTALLER") or "").strip()
    except metadata.PackageNotFoundError:
        return ""
