"""The command ``mrc-xarray``: public functions, printed."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import mrc_xarray

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; by default those of the process.

    Returns
    -------
    int
        Exit status: 0, or 1 where something could not be done.
    """
    parser = argparse.ArgumentParser(
        prog="mrc-xarray", description="Electron-microscopy MRC files for xarray."
    )
    parser.add_argument("--version", action="version", version=mrc_xarray.__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    info = commands.add_parser("info", help="tell what MRC files are")
    info.add_argument("files", nargs="+", metavar="FILE", help="paths or URLs")
    info.add_argument("--json", action="store_true", help="for machines: one JSON list")
    info.set_defaults(run=_info)

    demo = commands.add_parser(
        "demo", help="make a small tomogram, open it, and compute on a local cluster"
    )
    demo.add_argument("file", nargs="?", metavar="FILE", help="where to keep the tomogram")
    demo.set_defaults(run=_demo)

    arguments = parser.parse_args(argv)
    try:
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
    from mrc_xarray.summary import summarise, table

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
        print(json.dumps(summaries, indent=2, allow_nan=False))
    return int(len(summaries) < len(arguments.files))


def _demo(arguments: argparse.Namespace) -> int:
    import xarray as xr
    from distributed import Client, LocalCluster

    from mrc_xarray.demo import picture, write_tomogram

    with tempfile.TemporaryDirectory() as folder:
        path = arguments.file or os.path.join(folder, "tomogram.mrc")
        write_tomogram(path)
        print(f'>>> ds = xr.open_dataset("{os.path.basename(path)}", engine="mrc", chunks={{}})')
        ds = xr.open_dataset(path, engine="mrc", chunks={})
        print(ds)
        cluster = LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=2, threads_per_worker=1, dashboard_address=":0"
        )
        with cluster, Client(cluster):  # type: ignore[no-untyped-call]
            print("\n>>> ds.data.mean().compute(), on a cluster of 2 processes")
            print(f"{float(ds['data'].mean().compute()):.6f}")
            print('\n>>> ds.data.sel(z=slice(380, 460)).mean("z").compute()')
            print(picture(ds["data"].sel(z=slice(380, 460)).mean("z").compute().values))
    return 0


def _complain(error: Exception, file: str = "") -> None:
    """Tell an error in one line."""
    told = "; ".join([str(error), *getattr(error, "__notes__", [])])
    if not isinstance(error, mrc_xarray.MrcError):
        # its message may be no more than a name
        told = f"{file}: {type(error).__name__}: {told}" if file else told
    print("mrc-xarray: " + "; ".join(told.splitlines()), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
