"""Threads that end when the work ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mrc_xarray.storage.base import cores

__all__ = ["own_threads"]


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
