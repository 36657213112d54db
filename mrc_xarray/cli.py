"""The command ``mrc-xarray``: it calls public functions, and prints what they return."""

from __future__ import annotations

import argparse
import contextlib
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
            warnings.showwarning = _print_warning
            return int(arguments.run(arguments))
    except BrokenPipeError:
        # a program such as `head` has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        # the library of a store may raise any error
        _print_error(error)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="mrc-xarray", description="Electron-microscopy MRC files for xarray.")
    parser.add_argument("--version", action="version", version=mrc_xarray.__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(run: Callable[[argparse.Namespace], bool], help_text: str) -> _Parser:
        command = commands.add_parser(run.__name__.removeprefix("_"), help=help_text)
        command.set_defaults(run=run, parser=command)
        return command

    info = add(_info, "describe MRC files")
    validate = add(_validate, "list what is wrong with MRC files")
    validate.add_argument("--data", action="store_true", help="also check the pixels")
    for command in (info, validate):
        command.add_argument("files", nargs="+", metavar="FILE", help="paths or URLs")
        command.add_argument("--json", action="store_true", help="print one JSON list")

    convert = add(_convert, "convert between MRC, MRCZ, Zarr and netCDF, by the names' suffixes")
    _add_options(convert)

    edit = add(_edit, "change fields of the headers of MRC files in place")
    edit.usage = "mrc-xarray edit FILE [FILE ...] [--statistics] [--FIELD VALUE ...]"
    edit.add_argument("files", nargs="+", metavar="FILE", help="paths, in front of the options")
    # private: Python 3.14 has this pattern, and earlier versions take -1e-3 as an option
    edit._negative_number_matcher = re.compile(r"-\.?\d")
    _add_fields(edit)

    demo = add(_demo, "write a small tomogram, open it, and compute on a local cluster")
    demo.add_argument("file", nargs="?", metavar="FILE", help="path of the tomogram")
    return parser


def _info(arguments: argparse.Namespace) -> bool:
    from mrc_xarray.tools.summary import summarise, table

    summaries: list[dict[str, Any]] = []
    for file in arguments.files:
        try:
            summaries.append(summarise(file))
        except Exception as error:
            _print_error(error, file)
            continue
        if not arguments.json:
            print(table(summaries[-1]))
    if arguments.json:
        print(json_text(summaries, indent=2, allow_nan=False))
    return len(summaries) < len(arguments.files)


def _validate(arguments: argparse.Namespace) -> bool:
    reports: list[dict[str, Any]] = []
    for file in arguments.files:
        try:
            problems = mrc_xarray.validate(file, data=arguments.data)
        except Exception as error:
            _print_error(error, file)
            problems = [unreadable(error, "")]
        else:
            if not arguments.json:
                print(f"{printable(redacted(file))}:{'' if problems else ' valid'}")
                print("".join(f"  {problem}\n" for problem in problems), end="")
        reported = [{name: getattr(problem, name) for name in _REPORTED} for problem in problems]
        reports.append({"file": redacted(file), "valid": not problems, "problems": reported})
    if arguments.json:
        print(json_text(reports, indent=2, allow_nan=False))
    return not all(report["valid"] for report in reports)


def _convert(arguments: argparse.Namespace) -> bool:
    from dask.diagnostics.progress import ProgressBar

    from mrc_xarray.tools.convert import convert

    given = {name: getattr(arguments, name) for name in ("mode", "compressor", "clevel")}
    options = {name: value for name, value in given.items() if value is not None}
    if arguments.compressor == "none":
        options["compressor"] = None
    options |= {"select": dict(arguments.select), "overwrite": arguments.overwrite}
    with contextlib.nullcontext() if arguments.quiet else ProgressBar(out=sys.stderr):
        convert(arguments.source, arguments.target, **options)
    return False


def _add_options(convert: _Parser) -> None:
    """Add the arguments of `mrc_xarray.tools.convert.convert`."""
    convert.add_argument("source", metavar="SRC", help="path or URL")
    convert.add_argument("target", metavar="DST", help="path or URL in .mrc, .mrcz, .zarr or .nc")
    convert.add_argument("--mode", type=int, help="MODE of the target, or its type")
    convert.add_argument("--compressor", help="codec of an MRCZ file, or none")
    convert.add_argument("--clevel", type=int, help="compression level, 0 to 9")
    convert.add_argument(
        "--select",
        type=_selection,
        action="extend",
        nargs="+",
        default=[],
        metavar="DIM=INDEX or DIM=START:STOP[:STEP]",
        help="part of each dimension, by index",
    )
    convert.add_argument("--overwrite", action="store_true", help="replace DST")
    convert.add_argument("--quiet", action="store_true", help="show no progress bar")


def _add_fields(edit: _Parser) -> None:
    """Add an option for each argument of `mrc_xarray.edit_header`."""
    from mrc_xarray.mrc.header import shown_place
    from mrc_xarray.writing.header_fields import FIELDS

    unset: dict[str, Any] = {"default": argparse.SUPPRESS}
    text = "measure DMIN, DMAX, DMEAN and RMS"
    edit.add_argument("--statistics", action="store_true", help=text, **unset)
    text = "in Å: one number, or three for x, y and z"
    edit.add_argument("--voxel-size", type=float, nargs="+", metavar="SIZE", help=text, **unset)
    for name, field in FIELDS.items():
        kind = bytes.fromhex if field.kind is bytes else field.kind
        metavar = "HEX" if field.kind is bytes else field.kind.__name__.upper()
        options = dict(unset, help=shown_place(name), type=kind, metavar=metavar)
        if field.is_tuple:
            options["nargs"] = "+" if field.kind is str else field.n
        edit.add_argument(f"--{name.replace('_', '-')}", **options)


def _edit(arguments: argparse.Namespace) -> bool:
    fields = {k: v for k, v in vars(arguments).items() if k not in ("files", "run", "parser")}
    if sizes := fields.get("voxel_size"):
        if len(sizes) not in (1, 3):
            arguments.parser.error("argument --voxel-size: expected 1 or 3 arguments")
        fields["voxel_size"] = dict(zip("xyz", sizes, strict=True)) if sizes[1:] else sizes[0]
    if not fields:
        arguments.parser.error("nothing to change: give at least one option")
    n_failed = 0
    for file in arguments.files:
        try:
            mrc_xarray.edit_header(file, **fields)
        except Exception as error:
            _print_error(error, file)
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


def _print_warning(message: Warning | str, *where: Any, **more: Any) -> None:
    print(f"mrc-xarray: warning: {printable_lines(str(message))}", file=sys.stderr)


def _print_error(error: Exception, file: str = "") -> None:
    """Print an error in one line."""
    text = "; ".join([str(error), *getattr(error, "__notes__", [])])
    if file and not isinstance(error, mrc_xarray.MrcError):
        # the message of another library may be as short as a name
        text = f"{redacted(file)}: {type(error).__name__}: {text}"
    print("mrc-xarray: " + printable("; ".join(text.splitlines())), file=sys.stderr)
