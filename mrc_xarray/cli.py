"""The command ``mrc-xarray``: public functions, printed."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import mrc_xarray
from mrc_xarray.errors import Problem
from mrc_xarray.storage import redacted
from mrc_xarray.text import json_text, printable, printable_lines

__all__ = ["main"]

# of a problem, to machines
_TOLD = ("code", "severity", "field", "offset", "found", "accepted", "action", "file")


class _Parser(argparse.ArgumentParser):
    """A parser whose error messages contain no control characters of the arguments."""

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        super().exit(status, message and printable_lines(message))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; by default those of the process.

    Returns
    -------
    int
        Exit status: 0, or 1 where something could not be done, or a file is not valid.
    """
    parser = _Parser(prog="mrc-xarray", description="Electron-microscopy MRC files for xarray.")
    parser.add_argument("--version", action="version", version=mrc_xarray.__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    info = commands.add_parser("info", help="tell what MRC files are")
    info.add_argument("files", nargs="+", metavar="FILE", help="paths or URLs")
    info.add_argument("--json", action="store_true", help="for machines: one JSON list")
    info.set_defaults(run=_info)

    validate = commands.add_parser("validate", help="tell what is wrong with MRC files")
    validate.add_argument("files", nargs="+", metavar="FILE", help="paths or URLs")
    validate.add_argument("--data", action="store_true", help="look at the pixels, too")
    validate.add_argument("--json", action="store_true", help="for machines: one JSON list")
    validate.set_defaults(run=_validate)

    convert = commands.add_parser(
        "convert", help="convert between MRC, MRCZ, Zarr and netCDF, by the names' suffixes"
    )
    convert.add_argument("source", metavar="SRC", help="path or URL")
    convert.add_argument("target", metavar="DST", help="in .mrc, .mrcz, .zarr, .nc, ...")
    convert.add_argument("--mode", type=int, help="MODE of an MRC file")
    convert.add_argument("--compressor", help="codec of an MRCZ, or none")
    convert.add_argument("--clevel", type=int, help="how hard to compress, 0 to 9")
    convert.add_argument(
        "--select",
        type=_selection,
        action="extend",
        nargs="+",
        default=[],
        metavar="DIM=START:STOP",
        help="what to take along dimensions, by index",
    )
    convert.add_argument("--overwrite", action="store_true", help="replace DST")
    convert.add_argument("--quiet", action="store_true", help="without a progress bar")
    convert.set_defaults(run=_convert)

    demo = commands.add_parser(
        "demo", help="make a small tomogram, open it, and compute on a local cluster"
    )
    demo.add_argument("file", nargs="?", metavar="FILE", help="where to keep the tomogram")
    demo.set_defaults(run=_demo)

    arguments = parser.parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show
            return int(arguments.run(arguments))
    except BrokenPipeError:
        # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        # of any library that a store needs, too
        _complain(error)
        return 1


def _info(arguments: argparse.Namespace) -> int:
    from mrc_xarray.tools.summary import summarise, table

    summaries: list[dict[str, Any]] = []
    for file in arguments.files:
        try:
            summaries.append(summarise(file))
        except Exception as error:
            _complain(error, file)
            continue
        if not arguments.json:
            print(table(summaries[-1]))
    if arguments.json:
        print(json_text(summaries, indent=2, allow_nan=False))
    return int(len(summaries) < len(arguments.files))


def _validate(arguments: argparse.Namespace) -> int:
    reports: list[dict[str, Any]] = []
    for file in arguments.files:
        problems: list[Problem]
        try:
            problems = mrc_xarray.validate(file, data=arguments.data)
        except Exception as error:
            _complain(error, file)
            accepted = "a file that can be read"
            problems = [Problem("unreadable", "the file", str(error), accepted, "")]
        else:
            if not arguments.json:
                lines = [f"  {problem}" for problem in problems]
                name = printable(redacted(file))
                print("\n".join([f"{name}:{' valid' * (not problems)}", *lines]))
        told = [{name: getattr(problem, name) for name in _TOLD} for problem in problems]
        reports.append({"file": redacted(file), "valid": not problems, "problems": told})
    if arguments.json:
        print(json_text(reports, indent=2, allow_nan=False))
    return int(not all(report["valid"] for report in reports))


def _convert(arguments: argparse.Namespace) -> int:
    from dask.diagnostics.progress import ProgressBar

    from mrc_xarray.tools.convert import convert

    options = {"mode": arguments.mode, "clevel": arguments.clevel}
    options = {name: value for name, value in options.items() if value is not None}
    if arguments.compressor is not None:
        options["compressor"] = None if arguments.compressor == "none" else arguments.compressor
    progress = contextlib.nullcontext() if arguments.quiet else ProgressBar(out=sys.stderr)
    with progress:
        convert(
            arguments.source,
            arguments.target,
            select=dict(arguments.select),
            overwrite=arguments.overwrite,
            **options,
        )
    return 0


def _selection(text: str) -> tuple[str, slice]:
    """Read DIM=INDEX or DIM=START:STOP[:STEP]."""
    dim, _, numbers = text.partition("=")
    try:
        parts = [int(part) if part else None for part in numbers.split(":")]
        if not dim or len(parts) > 3 or parts == [None]:
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not DIM=START:STOP") from None
    if len(parts) == 1 and parts[0] is not None:
        # a slice keeps the dimension, and its position
        return dim, slice(parts[0], parts[0] + 1 or None)
    return dim, slice(*parts)


def _demo(arguments: argparse.Namespace) -> int:
    import xarray as xr
    from distributed import Client, LocalCluster

    from mrc_xarray.tools.demo import picture, write_tomogram

    with tempfile.TemporaryDirectory() as folder:
        path = arguments.file or os.path.join(folder, "tomogram.mrc")
        write_tomogram(path)
        print(f'>>> ds = xr.open_dataset("{os.path.basename(path)}", engine="mrc", chunks={{}})')
        ds = xr.open_dataset(path, engine="mrc", chunks={})
        print(ds)
        # a worker's heartbeat may come while the cluster closes, which it logs as an error
        cluster = LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        )
        with cluster, Client(cluster):
            print("\n>>> ds.data.mean().compute(), on a cluster of 2 processes")
            print(f"{float(ds['data'].mean().compute()):.6f}")
            print('\n>>> ds.data.sel(z=slice(380, 460)).mean("z").compute()')
            print(picture(ds["data"].sel(z=slice(380, 460)).mean("z").compute().values))
    return 0


def _show(message: Warning | str, *where: Any, **more: Any) -> None:
    """Print a warning in one line, without the place in the code."""
    print(f"mrc-xarray: warning: {printable_lines(str(message))}", file=sys.stderr)


def _complain(error: Exception, file: str = "") -> None:
    """Tell an error in one line."""
    told = "; ".join([str(error), *getattr(error, "__notes__", [])])
    if not isinstance(error, mrc_xarray.MrcError):
        # its message may be no more than a name
        told = f"{redacted(file)}: {type(error).__name__}: {told}" if file else told
    print("mrc-xarray: " + printable("; ".join(told.splitlines())), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
