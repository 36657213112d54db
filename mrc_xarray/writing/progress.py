"""Compute a graph of tasks, with a progress bar where a person waits for it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, TextIO, TypeAlias

from mrc_xarray.storage.threads import own_threads

if TYPE_CHECKING:
    from dask.delayed import Delayed

__all__ = ["Progress", "check_progress", "computed"]

#: Whether to show a progress bar; "auto" is where a person looks, if it takes long.
Progress: TypeAlias = Literal["auto", True, False]

# "auto" shows nothing before this time
_LONG = 2.0  # seconds
# dask's bar ends after one such time, which a short write waits for
_REDRAWN = 0.02  # seconds


def check_progress(progress: object) -> None:
    """Raise ValueError if the value is no `Progress`."""
    if progress not in ("auto", True, False):
        raise ValueError(f"progress is {progress!r}; accepted: 'auto', True, False")


def computed(task: Delayed, progress: Progress, **scheduler: Any) -> Any:
    """Compute a task by dask's scheduler, and return its result; own threads end with the task.

    `scheduler` are options of ``compute`` that choose another scheduler than dask does.
    """
    from dask.diagnostics.progress import ProgressBar

    client = _client(task, scheduler)
    out = _out(progress)
    delay = 0.0 if progress is True else _LONG
    if out is not None and client is not None:
        return _computed_on(client, task, out, delay)
    bar = (
        ProgressBar(minimum=delay, dt=_REDRAWN, out=out)
        if out is not None
        else contextlib.nullcontext()
    )
    with own_threads(task, **scheduler) as own, bar:
        return task.compute(**scheduler, **own)


def _client(task: Delayed, scheduler: dict[str, Any]) -> Any:
    """Return the distributed client that computes a task; None if another scheduler does."""
    from dask.base import get_scheduler

    owner = getattr(get_scheduler(collections=[task], **scheduler), "__self__", None)
    return owner if type(owner).__module__ == "distributed.client" else None


def _out(progress: Progress) -> TextIO | None:
    """Return where to show a progress bar; None to show none."""
    from dask.callbacks import Callback

    if progress is False:
        return None
    if _is_notebook():
        out = sys.stdout
    # pythonw has no standard streams
    elif progress is True or (sys.stderr is not None and sys.stderr.isatty()):
        out = sys.stderr
    else:
        return None
    # a bar of the user's own would share the line
    return out if progress is True or not Callback.active else None


def _is_notebook() -> bool:
    """Return whether the code runs in a kernel, whose output a notebook shows."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


def _computed_on(client: Any, task: Delayed, out: TextIO, delay: float) -> Any:
    """Compute a task on a cluster, with the progress bar of distributed after `delay` seconds."""
    from distributed import wait

    future = client.compute(task)
    try:
        with contextlib.suppress(TimeoutError):
            wait(future, timeout=delay)
        with contextlib.nullcontext() if future.done() else _bar_of(client, future, out):
            return future.result()
    except KeyboardInterrupt:
        future.cancel()
        raise


@contextlib.contextmanager
def _bar_of(client: Any, future: Any, out: TextIO) -> Iterator[None]:
    """Draw the progress of a future while the block runs.

    The bar can miss the end of a task, and would then wait for ever. So it runs in the thread of
    the client, and nothing waits for it.
    """
    from distributed.diagnostics.progressbar import TextProgressBar

    bar = TextProgressBar([future], loop=client.loop, start=False)
    # it writes to standard output
    with contextlib.redirect_stdout(out):
        drawn = asyncio.run_coroutine_threadsafe(bar.listen(), client.loop.asyncio_loop)
        try:
            yield
        finally:
            _, unfinished = concurrent.futures.wait([drawn], timeout=0.5)
            drawn.cancel()
    if unfinished:
        print(file=out)
