"""The command ``mrc-xarray``: it calls public functions, and prints what they return."""

from __future__ import annotations

import argparse
import functools
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import mrc_xarray
from mrc_xarray.errors import unreadable
from mrc_xarray.installation import optional
from mrc_xarray.storage import redacted
from mrc_xarray.text import json_text, printable, printable_lines
from mrc_xarray.tools.arguments import (
    Pairs,
    add_fields,
    add_reading,
    in_options,
    number,
    reading,
)
from mrc_xarray.tools.selection import parse_selection

__all__ = ["main"]

# the attributes of a problem in JSON
_REPORTED = ("code", "severity", "field", "offset", "found", "accepted", "action", "file")


class _Parser(argparse.ArgumentParser):
    """A parser with short error messages, without control characters."""

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        super().exit(status, message and printable_lines(message))

    def error(self, message: str) -> NoReturn:
        # the usage of a command has more lines than a user reads in front of an error
        self.exit(2, f"{self.prog}: error: {message} (see `{self.prog} --help`)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit status.

    The status is 0, or 1 if an operation failed or a file is not valid.
    """
    parser = _parser()
    if "_ARGCOMPLETE" in os.environ:
        _answer_shell(parser)
    arguments = parser.parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = functools.partial(_print_warning, arguments.parser)
            return int(arguments.run(arguments))
    except BrokenPipeError:
        # a program such as `head` has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        # the library of a store may raise any error
        _print_error(arguments, error)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="mrc-xarray", description="Electron-microscopy MRC files for xarray.")
    parser.add_argument("--version", action="version", version=mrc_xarray.__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(run: Callable[[argparse.Namespace], bool], text: str, default: Any = None) -> _Parser:
        name = run.__name__.removeprefix("_")
        command = commands.add_parser(name, help=text, argument_default=default)
        command.set_defaults(run=run, parser=command)
        return command

    info = add(_info, "describe MRC, MRCZ and DM files")
    validate = add(_validate, "list what is wrong with MRC files")
    validate.add_argument("--data", action="store_true", help="also check the pixels")
    info.add_argument("--header", action="store_true", help="also print all header fields")
    for command, files in ((info, "paths or URLs, also with *"), (validate, "paths or URLs")):
        command.add_argument("files", nargs="+", metavar="FILE", help=files)
        forms = command.add_mutually_exclusive_group()
        forms.add_argument("--json", action="store_true", help="print one JSON list")
        if command is info:
            forms.add_argument("--table", action="store_true", help="print one line per file")

    convert = add(_convert, "convert MRC, MRCZ, Zarr, netCDF and DM files, by the names' suffixes")
    _add_options(convert)
    preview = add(_preview, "draw slices of an MRC, MRCZ or DM file to a picture")
    _add_drawing(preview)
    view = add(_view, "show files in napari, or in ndv where napari is not installed")
    view.add_argument("files", nargs="+", metavar="FILE", help="paths or URLs")
    for command in (info, validate, convert, preview, view):
        add_reading(command)

    text = "change fields of the headers of MRC files in place"
    edit = add(_edit, text, default=argparse.SUPPRESS)
    edit.usage = "mrc-xarray edit FILE [FILE ...] [--layout L] [--statistics] [--FIELD VALUE ...]"
    edit.add_argument("files", nargs="+", metavar="FILE", help="paths, in front of the options")
    # private: Python 3.14 has this pattern, and earlier versions take -1e-3 as an option
    edit._negative_number_matcher = re.compile(r"-\.?\d")
    add_fields(edit)

    demo = add(_demo, "write a small tomogram, open it, and compute on a local cluster")
    demo.add_argument("file", nargs="?", metavar="FILE", help="path of the tomogram")

    completion = add(_completion, "print the code that makes a shell complete this command")
    completion.add_argument("shell", choices=("bash", "zsh", "fish", "powershell"))
    return parser


def _answer_shell(parser: argparse.ArgumentParser) -> None:
    """Print what may follow the words on the shell's line, and exit."""
    # the code that `mrc-xarray completion` prints sets the variable and calls the command
    import argcomplete

    argcomplete.autocomplete(parser, always_complete_options=False)


def _info(arguments: argparse.Namespace) -> bool:
    from mrc_xarray.tools.overview import files_of, name_of, overview
    from mrc_xarray.tools.summary import summarise, summarise_header, table
    from mrc_xarray.tools.terminal import coloured

    if arguments.table and arguments.header:
        arguments.parser.error("--table has no room for --header: give one of them")
    if arguments.table:
        explain = functools.partial(_error_line, arguments)
        lines, n_failed = overview(arguments.files, explain, **reading(arguments))
        print(coloured(lines, sys.stdout))
        return n_failed > 0
    summaries: list[dict[str, Any]] = []
    n_failed = 0
    for file in files_of(arguments.files):
        try:
            summary = summarise(file, **reading(arguments))
        except Exception as error:
            _print_error(arguments, error, name_of(file))
            n_failed += 1
            found = summarise_header(file)
            if found is None:
                continue
            summary = found
        summaries.append(summary)
        if not arguments.json:
            lines = in_options(table(summary, every_field=arguments.header), arguments.parser)
            print(coloured(lines, sys.stdout))
    if arguments.json:
        print(json_text(summaries, indent=2, allow_nan=False))
    return n_failed > 0


def _validate(arguments: argparse.Namespace) -> bool:
    reports: list[dict[str, Any]] = []
    for file in arguments.files:
        try:
            problems = mrc_xarray.validate(file, data=arguments.data, **reading(arguments))
        except Exception as error:
            _print_error(arguments, error, file)
            problems = [unreadable(error, "")]
        else:
            if not arguments.json:
                print(f"{printable(redacted(file))}:{'' if problems else ' valid'}")
                lines = "".join(f"  {problem}\n" for problem in problems)
                print(in_options(lines, arguments.parser), end="")
        reported = [{name: getattr(problem, name) for name in _REPORTED} for problem in problems]
        reports.append({"file": redacted(file), "valid": not problems, "problems": reported})
    if arguments.json:
        print(json_text(reports, indent=2, allow_nan=False))
    return not all(report["valid"] for report in reports)


def _convert(arguments: argparse.Namespace) -> bool:
    from mrc_xarray.tools.convert import convert

    names = ("mode", "compressor", "clevel", "compression", "levels", "chunks", "method")
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    options: dict[str, Any] = {k: None if v == "none" else v for k, v in given.items()}
    options |= {"select": arguments.select, "overwrite": arguments.overwrite}
    options |= {"reading": reading(arguments), "progress": not arguments.quiet and "auto"}
    convert(arguments.source, arguments.target, **options)
    return False


def _add_options(convert: _Parser) -> None:
    """Add the arguments of `mrc_xarray.tools.convert.convert`."""
    convert.add_argument("source", metavar="SRC", help="path or URL")
    convert.add_argument(
        "target", metavar="DST", help="path or URL in .mrc, .mrcz, .ome.zarr, .zarr or .nc"
    )
    convert.add_argument("--mode", type=int, help="MODE of the target, or its type")
    convert.add_argument("--compressor", help="codec of an MRCZ file, or none")
    convert.add_argument(
        "--compression", help="codec of the stream around an MRC file, or none, whatever DST is"
    )
    convert.add_argument("--clevel", type=int, help="compression level, 0 to 9")
    convert.add_argument(
        "--select",
        type=parse_selection,
        action=Pairs,
        nargs="+",
        default={},
        metavar="PART",
        help="DIM=INDEX or DIM=START:STOP[:STEP], or positions with a unit: z=400:500A",
    )
    level: Any = {"type": int, "metavar": "N", "default": argparse.SUPPRESS}
    convert.add_argument("--level", help="resolution of an OME-Zarr source, 0 to N", **level)
    convert.add_argument("--levels", type=int, metavar="N", help="resolutions of OME-Zarr")
    convert.add_argument("--chunks", type=int, metavar="N", help="edge of the chunks of OME-Zarr")
    convert.add_argument("--method", choices=("mean", "mode"), help="of OME-Zarr; mode for labels")
    convert.add_argument("--overwrite", action="store_true", help="replace DST")
    convert.add_argument("--quiet", action="store_true", help="show no progress bar")


def _preview(arguments: argparse.Namespace) -> bool:
    from mrc_xarray.tools.preview import preview

    names = ("at", "thickness", "norm")
    options = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    preview(arguments.file, arguments.output, reading=reading(arguments), **options)
    return False


def _add_drawing(preview: _Parser) -> None:
    """Add the arguments of `mrc_xarray.tools.preview.preview`."""
    preview.add_argument("file", metavar="FILE", help="path or URL")
    text = "the picture, in .png, .pdf, .svg, .jpg or another format of matplotlib"
    preview.add_argument("-o", "--output", required=True, metavar="PICTURE", help=text)
    options: dict[str, Any] = {"type": number, "action": Pairs, "nargs": "+"}
    text = "the point that is drawn, in the units of the coordinates; by default the middle"
    preview.add_argument("--at", metavar="DIM=POSITION", default={}, help=text, **options)
    text = "draw the mean of a slab, in the units of the coordinates"
    preview.add_argument("--thickness", metavar="DIM=LENGTH", default={}, help=text, **options)
    preview.add_argument("--norm", choices=("linear", "log"), help="scale of the contrast")


def _view(arguments: argparse.Namespace) -> bool:
    from mrc_xarray.bridges.viewer import view_files

    view_files(arguments.files, **reading(arguments))
    return False


def _edit(arguments: argparse.Namespace) -> bool:
    fields = {k: v for k, v in vars(arguments).items() if k not in ("files", "run", "parser")}
    if not fields:
        arguments.parser.error("nothing to change: give at least one option")
    n_failed = 0
    for file in arguments.files:
        try:
            mrc_xarray.edit_header(file, **fields)
        except Exception as error:
            _print_error(arguments, error, file)
            n_failed += 1
    return n_failed > 0


def _demo(arguments: argparse.Namespace) -> bool:
    from mrc_xarray.samples import demo

    demo.run(arguments.file)
    return False


def _completion(arguments: argparse.Namespace) -> bool:
    argcomplete = optional("argcomplete.shell_integration", "completion in a shell")
    print(argcomplete.shellcode(["mrc-xarray"], shell=arguments.shell))
    return False


def _print_warning(parser: _Parser, message: Warning | str, *where: Any, **more: Any) -> None:
    text = in_options(printable_lines(str(message)), parser)
    print(f"mrc-xarray: warning: {text}", file=sys.stderr)


def _print_error(arguments: argparse.Namespace, error: Exception, file: str = "") -> None:
    """Print an error in one line."""
    print("mrc-xarray: " + _error_line(arguments, error, file), file=sys.stderr)


def _error_line(arguments: argparse.Namespace, error: Exception, file: str = "") -> str:
    notes = getattr(error, "__notes__", [])
    text = str(error) or type(error).__name__
    text = "; ".join([text.removesuffix("." * bool(notes)), *notes])
    if file and not isinstance(error, mrc_xarray.MrcError):
        # the message of another library may be as short as a name
        text = f"{redacted(file)}: {type(error).__name__}: {text}"
    return in_options(printable("; ".join(text.splitlines())), arguments.parser)
