"""Options of the command that come from tables: arguments of the engine, and header fields."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import re
from typing import Any

from mrc_xarray.options import OpenOptions

__all__ = ["Pairs", "add_fields", "add_reading", "in_options", "number", "reading"]


class _Sizes(argparse.Action):
    """One number, or three by axis."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        if len(values) not in (1, 3):
            raise argparse.ArgumentError(self, "expected 1 or 3 arguments")
        given = dict(zip("xyz", values, strict=True)) if values[1:] else values[0]
        setattr(namespace, self.dest, given)


class Pairs(argparse.Action):
    """Pairs of name and value, as a dictionary."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        """Add the pairs to those of an earlier option."""
        setattr(namespace, self.dest, getattr(namespace, self.dest, {}) | dict(values))


def number(text: str) -> tuple[str, float]:
    """Parse NAME=NUMBER."""
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=NUMBER") from None


def add_reading(command: argparse.ArgumentParser) -> None:
    """Add the arguments of the engine that say how a file is read, as `reading` returns them."""
    group = command.add_argument_group(
        "arguments of the engine",
        "They say how an MRC file is read. Give the files first.",
        argument_default=argparse.SUPPRESS,
    )
    for field in dataclasses.fields(OpenOptions):
        option = f"--{field.name.replace('_', '-')}"
        if field.type == "str":
            group.add_argument(option, choices=field.metadata["accepted"])
        elif field.type in ("int", "int | None"):
            group.add_argument(option, type=int, metavar="N")
    group.add_argument(
        "--metadata-file",
        type=lambda text: None if text == "none" else text,
        metavar="FILE",
        help="a sidecar; none for no sidecar",
    )
    group.add_argument("--scan-shape", type=int, nargs="+", metavar="N", help="slowest first")
    _add_voxel_size(group)


def reading(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of the engine that were given."""
    names = ["level", *(field.name for field in dataclasses.fields(OpenOptions))]
    return {name: getattr(arguments, name) for name in names if name in arguments}


def _add_voxel_size(container: Any) -> None:
    text = "in Å: one number, or three for x, y and z"
    options = {"type": float, "nargs": "+", "metavar": "SIZE", "help": text}
    container.add_argument("--voxel-size", action=_Sizes, **options)


def add_fields(edit: argparse.ArgumentParser) -> None:
    """Add an option for each argument of `mrc_xarray.edit_header`."""
    from mrc_xarray.mrc.header import shown_place
    from mrc_xarray.writing.header_fields import FIELDS
    from mrc_xarray.writing.header_layout import LAYOUTS

    text = "measure DMIN, DMAX, DMEAN and RMS"
    edit.add_argument("--statistics", action="store_true", help=text)
    edit.add_argument("--layout", choices=LAYOUTS, help="sets ISPG, MZ and CELLA.z")
    _add_voxel_size(edit)
    edit.add_argument(
        "--extended",
        type=_values,
        nargs="+",
        action=Pairs,
        metavar="NAME=VALUE[,VALUE...]",
        help="values in the records of FEI and SerialEM",
    )
    for name, field in FIELDS.items():
        kind = bytes.fromhex if field.kind is bytes else field.kind
        metavar = "HEX" if field.kind is bytes else field.kind.__name__.upper()
        options: dict[str, Any] = {"help": shown_place(name), "type": kind, "metavar": metavar}
        if field.is_tuple:
            options["nargs"] = "+" if field.kind is str else field.n
        edit.add_argument(f"--{name.replace('_', '-')}", **options)


def _values(text: str) -> tuple[str, Any]:
    """Parse NAME=VALUE[,VALUE...]; values that are not numbers are texts."""
    name, _, listed = text.partition("=")
    found: list[Any] = listed.split(",")
    with contextlib.suppress(ValueError):
        found = [*map(float, found)]
    return name, found if found[1:] else found[0]


def in_options(text: str, command: argparse.ArgumentParser) -> str:
    """Return a message with the options of a command instead of Python's arguments."""
    options = re.findall(r"--([a-z][a-z0-9-]+)", command.format_help())
    names = "|".join({option.replace("-", "_") for option in options})

    def option(found: re.Match[str]) -> str:
        value = "" if found["value"] in (None, "True") else found["value"].strip("'").lower()
        return f"--{found['name'].replace('_', '-')} {value}".rstrip()

    value = r"(?P<value>'\w+'|-?\d+|True|None)(?![\w(])|(?![^\s,;.])"
    return re.sub(rf"(?<![\w/.])(?P<name>{names})=({value})", option, text)
