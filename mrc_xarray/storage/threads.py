"""Threads that end when the work ends."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from mrc_xarray.storage.base import cores

__all__ = ["own_threads", "run_in_threads"]

Item = TypeVar("Item")


def run_in_threads(run: Callable[[Item], None], items: Sequence[Item], n_threads: int) -> None:
    """Call a function with every item, in this thread if one thread is enough."""
    if n_threads == 1 or len(items) == 1:
        for item in items:
            run(item)
        return
    # the pool exists only during this call, so that a fork can't inherit it
    with ThreadPoolExecutor(n_threads) as pool:
        for _ in pool.map(run, items):
            pass


@contextlib.contextmanager
def own_threads(collection: Any, **options: Any) -> Iterator[dict[str, Any]]:
    """Yield options for ``compute`` that add a thread pool, if dask would use its own threads.

    After an error, dask's own threads finish the tasks that they have begun. They would write to
    a file that is being removed or truncated.
    """
    from dask import config, threaded
    from dask.base import get_scheduler

    get = get_scheduler(collections=[collection], **options)
    if get not in (threaded.get, None) or config.get("pool", None) is not None:
        yield {}
        return
    pool = ThreadPoolExecutor(config.get("num_workers", None) or cores())
    waits = True
    try:
        yield {"pool": pool}
    except KeyboardInterrupt:
        # the user does not want to wait
        waits = False
        raise
    finally:
        pool.shutdown(wait=waits, cancel_futures=True)
