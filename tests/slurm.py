"""A stand-in for SLURM: ``sbatch`` runs a job's script as a process of this machine."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

# the number of a job is that of its process group
_SBATCH = """#!/bin/bash -eu
script=$(mktemp "{folder}/job-XXXXXX.sh")
cp "$1" "$script"
setsid bash "$script" < /dev/null > "$script.out" 2>&1 &
echo $! > "$script.id"
echo "Submitted batch job $!"
"""
_SCANCEL = """#!/bin/bash -u
kill -- "-$1"
"""


@contextlib.contextmanager
def commands(folder: Path) -> Iterator[Path]:
    """Make the commands in a new folder, and end all of their jobs afterwards.

    The folder contains the script of each job as ``job-*.sh``, and its output as
    ``job-*.sh.out``.
    """
    folder.mkdir()
    for name, text in (("sbatch", _SBATCH), ("scancel", _SCANCEL)):
        path = folder / name
        path.write_text(text.format(folder=folder))
        path.chmod(0o755)
    try:
        yield folder
    finally:
        for number in folder.glob("*.id"):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(number.read_text()), signal.SIGKILL)
