"""The command ``mrc-xarray``: it calls public functions, and prints what they return."""

from __future__ import annotations

import argparse
import contextlib
import functools
import logging
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import mrc_xarray
from mrc_xarray.errors import unreadable
from mrc_xarray.storage import redacted
from mrc_xarray.text import json_text, printable, printable_lines
from mrc_xarray.tools.arguments import Pairs, add_fields, add_reading, in_options, reading

__all__ = ["main"]

# the attributes of a problem in JSON
_REPORTED = ("code", "severity", "field", "offset", "found", "accepted", "action", "file")


class _Parser(argparse.ArgumentParser):
    """A parser that escapes control characters in error messages."""

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        super().exit(status, message and printable_lines(message))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit status.

    The status is 0, or 1 if an operation failed or a file is not valid.
    """
    arguments = _parser().parse_args(argv)
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

    info = add(_info, "describe MRC files")
    validate = add(_validate, "list what is wrong with MRC files")
    validate.add_argument("--data", action="store_true", help="also check the pixels")
    info.add_argument("--header", action="store_true", help="also print all header fields")
    for command in (info, validate):
        command.add_argument("files", nargs="+", metavar="FILE", help="paths or URLs")
        command.add_argument("--json", action="store_true", help="print one JSON list")

    convert = add(_convert, "convert MRC, MRCZ, Zarr, netCDF and DM files, by the names' suffixes")
    _add_options(convert)
    for command in (info, validate, convert):
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
    return parser


def _info(arguments: argparse.Namespace) -> bool:
    from mrc_xarray.tools.summary import summarise, summarise_header, table

    summaries: list[dict[str, Any]] = []
    n_failed = 0
    for file in arguments.files:
        try:
            summary = summarise(file, **reading(arguments))
        except Exception as error:
            _print_error(arguments, error, file)
            n_failed += 1
            found = summarise_header(file)
            if found is None:
                continue
            summary = found
        summaries.append(summary)
        if not arguments.json:
            print(in_options(table(summary, every_field=arguments.header), arguments.parser))
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
    from dask.diagnostics.progress import ProgressBar

    from mrc_xarray.tools.convert import convert

    names = ("mode", "compressor", "clevel", "compression")
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    options: dict[str, Any] = {k: None if v == "none" else v for k, v in given.items()}
    options |= {"select": arguments.select, "overwrite": arguments.overwrite}
    with contextlib.nullcontext() if arguments.quiet else ProgressBar(out=sys.stderr):
        convert(arguments.source, arguments.target, reading=reading(arguments), **options)
    return False


def _add_options(convert: _Parser) -> None:
    """Add the arguments of `mrc_xarray.tools.convert.convert`."""
    convert.add_argument("source", metavar="SRC", help="path or URL")
    convert.add_argument("target", metavar="DST", help="path or URL in .mrc, .mrcz, .zarr or .nc")
    convert.add_argument("--mode", type=int, help="MODE of the target, or its type")
    convert.add_argument("--compressor", help="codec of an MRCZ file, or none")
    convert.add_argument(
        "--compression", help="codec of the stream around an MRC file, or none, whatever DST is"
    )
    convert.add_argument("--clevel", type=int, help="compression level, 0 to 9")
    convert.add_argument(
        "--select",
        type=_selection,
        action=Pairs,
        nargs="+",
        default={},
        metavar="DIM=INDEX or DIM=START:STOP[:STEP]",
        help="part of each dimension, by index",
    )
    convert.add_argument("--overwrite", action="store_true", help="replace DST")
    convert.add_argument("--quiet", action="store_true", help="show no progress bar")


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


def _selection(text: str) -> tuple[str, slice]:
    """Parse DIM=INDEX or DIM=START:STOP[:STEP]."""
    dim, _, numbers = text.partition("=")
    try:
        parts = [int(part) if part else None for part in numbers.split(":")]
        if not dim or len(parts) > 3 or parts == [None]:
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not DIM=INDEX or DIM=START:STOP[:STEP]"
        ) from None
    if len(parts) == 1 and parts[0] is not None:
        # a slice retains the dimension and its coordinate; -1 is the last index
        return dim, slice(parts[0], parts[0] + 1 or None)
    return dim, slice(*parts)


def _demo(arguments: argparse.Namespace) -> bool:
    import xarray as xr
    from distributed import Client, LocalCluster

    from mrc_xarray.tools.demo import picture, write_tomogram

    with tempfile.TemporaryDirectory() as folder:
        path = arguments.file or os.path.join(folder, "tomogram.mrc")
        write_tomogram(path)
        print(f'>>> ds = xr.open_dataset("{os.path.basename(path)}", engine="mrc", chunks={{}})')
        ds = xr.open_dataset(path, engine="mrc", chunks={})
        print(ds)
        # a heartbeat that arrives while the cluster closes is logged as an error
        options = {"dashboard_address": ":0", "silence_logs": logging.CRITICAL}
        with (
            LocalCluster(n_workers=2, threads_per_worker=1, **options) as cluster,
            Client(cluster),
        ):
            print("\n>>> ds.data.mean().compute(), on a cluster of 2 processes")
            print(f"{float(ds['data'].mean().compute()):.6f}")
            print('\n>>> ds.data.sel(z=slice(380, 460)).mean("z").compute()')
            print(picture(ds["data"].sel(z=slice(380, 460)).mean("z").compute().values))
    return False


def _print_warning(parser: _Parser, message: Warning | str, *where: Any, **more: Any) -> None:
    text = in_options(printable_lines(str(message)), parser)
    print(f"mrc-xarray: warning: {text}", file=sys.stderr)


def _print_error(arguments: argparse.Namespace, error: Exception, file: str = "") -> None:
    """Print an error in one line."""
    text = "; ".join([str(error), *getattr(error, "__notes__", [])])
    if file and not isinstance(error, mrc_xarray.MrcError):
        # the message of another library may be as short as a name
        text = f"{redacted(file)}: {type(error).__name__}: {text}"
    line = printable("; ".join(text.splitlines()))
    print("mrc-xarray: " + in_options(line, arguments.parser), file=sys.stderr)
